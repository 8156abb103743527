/* SPDX-License-Identifier: Apache-2.0
 *
 * Bytes and life of a connection to an endpoint. What makes it hard: it may be lent, given back and lent again from
 * inside one read, and it may die in any of the three states. After everything that can make an event, its state is
 * looked at anew. While idle it is watched: bytes or FIN then mean that it is of no use.
 */
#include "proxy/up.h"

#include <errno.h>

enum { READS_PER_EVENT = 8 };

static const struct conn_ops conn_ops;
static const struct h1_ops h1_ops;

static struct up *up_of_conn(struct conn *c) { return CONTAINER_OF(c, struct up, conn); }
static struct up *up_of_h1(struct h1 *h) { return CONTAINER_OF(h, struct up, h1); }

/* ---- timer ---- */

static void arm(struct up *up, uint64_t at)
{
    uint64_t now = loop_now(&up->worker->loop);

    if (at >= up->timer_at)
        return;
    up->timer_at = at;
    loop_timer_start(&up->timer, at > now ? at - now : 0);
}

static uint64_t deadline(const struct up *up)
{
    switch (up->state) {
    case UP_CONNECTING: return up->since + up->connect_timeout;
    case UP_IDLE: return up->since + up->idle_timeout;
    default: return UINT64_MAX;
    }
}

static void on_timer(struct loop_timer *timer)
{
    struct up *up = CONTAINER_OF(timer, struct up, timer);
    uint64_t at = deadline(up);

    up->timer_at = UINT64_MAX;
    if (at > loop_now(&up->worker->loop)) {
        if (at != UINT64_MAX)
            arm(up, at);
    } else if (up->state == UP_CONNECTING) {
        pool_connected(up, ETIMEDOUT);
    } else {
        up_close(up, false);
    }
}

/* ---- bytes ---- */

static void feed(struct up *up)
{
    bool useful = h1_input(&up->h1, &up->in);

    if (up->state == UP_CLOSED)
        return;
    if (!useful)
        up_close(up, false);
    else
        conn_want_read(&up->conn, h1_wants_input(&up->h1));
}

static void lost(struct up *up)
{
    h1_fail(&up->h1, LEG_CLOSED);
    up_close(up, true);
}

static void on_readable(struct conn *c)
{
    struct up *up = up_of_conn(c);

    for (int i = 0; i < READS_PER_EVENT; i++) {
        size_t got;
        enum io_result r = conn_read(c, &up->in, CHUNK_SIZE, &got);
        if (r == IO_AGAIN)
            return;
        if (r == IO_FAIL) {
            lost(up);
            return;
        }
        if (r == IO_EOF) {
            h1_eof(&up->h1);
            if (up->state == UP_IDLE)
                up_close(up, false);
            return;
        }
        up->answered = true;
        feed(up);
        if (up->state == UP_CLOSED || c->drained || !c->want_read)
            return;
    }
}

static void flush(struct up *up)
{
    enum io_result r = IO_OK;
    size_t got;

    if (up->conn.out.n > 0)
        r = conn_flush(&up->conn);
    if (r == IO_FAIL) {
        /* The answer may have come before the connection broke (an early response). */
        while (up->state != UP_CLOSED && conn_read(&up->conn, &up->in, CHUNK_SIZE, &got) == IO_OK) {
            up->answered = true;
            feed(up);
        }
        if (up->state != UP_CLOSED)
            lost(up);
        return;
    }
    if (up->conn.out.n == 0 && h1_wants_shutdown(&up->h1))
        conn_shutdown(&up->conn);
    if (up->conn.out.n <= up->h1.high_mark / 2)
        h1_output_drained(&up->h1);
}

/* Once after each burst of events: feed what had to wait, then one send for all that was queued. */
static void on_work(struct loop_task *task)
{
    struct up *up = CONTAINER_OF(task, struct up, work);

    if (up->feed && up->state != UP_CLOSED) {
        up->feed = false;
        feed(up);
    }
    if (up->state != UP_CLOSED && up->state != UP_CONNECTING)
        flush(up);
}

static void on_writable(struct conn *c) { flush(up_of_conn(c)); }

static void on_connected(struct conn *c, int error) { pool_connected(up_of_conn(c), error); }

static void on_hangup(struct conn *c)
{
    struct up *up = up_of_conn(c);

    /* Reading is off for back-pressure, and what came is still to be read; only an idle connection is lost by this. */
    if (up->state == UP_IDLE)
        up_close(up, false);
}

static const struct conn_ops conn_ops = {
    .on_readable = on_readable, .on_writable = on_writable, .on_connected = on_connected, .on_hangup = on_hangup};

/* ---- the codec's owner ---- */

static void on_output(struct h1 *h)
{
    struct up *up = up_of_h1(h);

    loop_defer(&up->worker->loop, &up->work);
}

static void on_read_state(struct h1 *h)
{
    struct up *up = up_of_h1(h);

    up->feed = true;
    loop_defer(&up->worker->loop, &up->work);
}

static void on_exchange_end(struct h1 *h, bool reusable)
{
    struct up *up = up_of_h1(h);

    metrics_add(up->worker->stats.guest_headers_dropped, h->dropped_headers);
    h->dropped_headers = 0;
    if (up->state == UP_CLOSED)
        return;
    if (reusable)
        pool_give_back(up);
    else
        up_close(up, h->out_state == H1_BROKEN);
    if (up->state == UP_IDLE) {
        up->since = loop_now(&up->worker->loop);
        arm(up, up->since + up->idle_timeout);
    }
}

static const struct h1_ops h1_ops = {
    .on_output = on_output, .on_read_state = on_read_state, .on_exchange_end = on_exchange_end};

/* ---- life ---- */

struct up *up_connect(struct worker *w, struct endpoint *endpoint, const struct limits *limits)
{
    struct up *up = mem_zalloc(sizeof *up);

    if (!conn_connect(&up->conn, &w->loop, &endpoint->addr, w->pool, &conn_ops)) {
        mem_free(up);
        return NULL;
    }
    up->worker = w;
    up->endpoint = endpoint;
    endpoint_ref(endpoint);
    up->limits = (struct h1_limits){.head_bytes = limits->head_bytes,
                                    .uri_bytes = limits->uri_bytes,
                                    .headers = limits->headers,
                                    .trailer_bytes = limits->head_bytes,
                                    .chunk_ext_bytes = 4096,
                                    .pipeline_bytes = limits->pipeline_bytes};
    up->connect_timeout = limits->connect_timeout;
    up->idle_timeout = limits->up_idle_timeout;
    up->max_idle = limits->up_idle;
    h1_init(&up->h1, H1_CLIENT, &up->limits, &up->conn.out, limits->output_bytes, &h1_ops);
    buf_init(&up->in, w->pool);
    list_init(&up->node);
    list_push_back(&w->ups, &up->all);
    loop_task_init(&up->work, on_work);
    loop_timer_init(&up->timer, &w->loop, on_timer);
    up->timer_at = UINT64_MAX;
    up->since = loop_now(&w->loop);
    arm(up, up->since + up->connect_timeout);
    return up;
}

struct leg *up_begin(struct up *up, const struct up_request *request)
{
    up->state = UP_BUSY;
    up->answered = false;
    up->exchanges++;
    up->h1.high_mark = request->limits->output_bytes;
    h1_begin_request(&up->h1, request->arena, request->ops, request->owner);
    conn_want_read(&up->conn, true);
    return &up->h1.leg;
}

static void one_closed(struct up *up)
{
    if (--up->closing > 0)
        return;
    buf_fini(&up->in);
    mem_free(up);
}

static void on_conn_closed(struct conn *c) { one_closed(up_of_conn(c)); }
static void on_timer_closed(struct loop_timer *timer) { one_closed(CONTAINER_OF(timer, struct up, timer)); }

void up_close(struct up *up, bool reset)
{
    if (up->state == UP_CLOSED)
        return;
    pool_forget(up);
    up->state = UP_CLOSED;
    h1_fail(&up->h1, LEG_CLOSED);
    up->closing = 2;
    list_remove(&up->all);
    loop_task_cancel(&up->work);
    conn_close(&up->conn, reset, on_conn_closed);
    loop_timer_close(&up->timer, on_timer_closed);
    struct endpoint *e = up->endpoint;
    up->endpoint = NULL;
    endpoint_unref(e);
}
