/* SPDX-License-Identifier: Apache-2.0
 *
 * Client connections. What makes it hard is ending well: after the last response the client must be able to read it,
 * though it may still be sending, so we flush, send FIN, and read on for a while before we close (RFC 9112 9.6); a
 * response that was cut off must end in a reset, since a FIN could pass for its end. Reading stays armed while a stream
 * waits, so that a client that leaves is noticed, but never spins on bytes that nobody wants yet.
 */
#include "proxy/down.h"

#include "base/budget.h"
#include "proxy/stream_private.h"

enum {
    READS_PER_EVENT = 8,
    LINGER_BYTES = 16 * 1024 * 1024,
    DRAIN_IDLE_MS = 1000, /* while draining: who was just served, or just came, may be about to send a request */
};

enum down_state {
    DOWN_OPEN,
    DOWN_CLOSING, /* no more requests: flush, then FIN */
    DOWN_LINGER,  /* FIN is sent: read on and drop */
    DOWN_CLOSED,
};

struct down {
    struct conn conn;
    struct list node; /* worker->conns */
    struct list idle; /* worker->idle_conns, while there is no stream */
    struct worker *worker;
    struct worker_listener *listener; /* one reference */
    struct stream *stream;
    struct h1 h1;
    struct h1_limits limits;
    struct buf in;
    struct loop_task work;
    struct loop_timer timer;
    uint64_t timer_at; /* loop ms; UINT64_MAX: not armed */
    uint64_t since;    /* idle, closing or lingering since */
    uint64_t idle_timeout, linger_timeout;
    uint64_t id, requests, lingered;
    uint64_t counted_in, counted_out, noted_out;
    enum down_state state;
    bool feed;
    unsigned closing;
    uint8_t peer_n;
    char peer_ip[ADDR_TEXT_MAX];
};

static const struct conn_ops conn_ops;
static const struct h1_ops h1_ops;

static struct down *down_of_conn(struct conn *c) { return CONTAINER_OF(c, struct down, conn); }
static struct down *down_of_h1(struct h1 *h) { return CONTAINER_OF(h, struct down, h1); }

const struct addr *down_peer(const struct down *d) { return &d->conn.peer; }
const struct addr *down_local(const struct down *d) { return &d->conn.local; }
struct str down_peer_ip(const struct down *d) { return str_span(d->peer_ip, d->peer_n); }
uint64_t down_id(const struct down *d) { return d->id; }
uint64_t down_bytes_in(const struct down *d) { return d->conn.bytes_in - d->in.n; }
uint64_t down_bytes_out(const struct down *d) { return d->conn.bytes_out + d->conn.out.n; }

void worker_listener_unref(struct worker_listener *wl)
{
    if (--wl->refs == 0)
        mem_free(wl);
}

/* ---- closing ---- */

static void count_bytes(struct down *d)
{
    metrics_add(d->worker->stats.bytes_in, d->conn.bytes_in - d->counted_in);
    metrics_add(d->worker->stats.bytes_out, d->conn.bytes_out - d->counted_out);
    d->counted_in = d->conn.bytes_in;
    d->counted_out = d->conn.bytes_out;
}

static void one_closed(struct down *d)
{
    if (--d->closing > 0)
        return;
    struct worker *w = d->worker;
    list_remove(&d->node);
    w->conn_count--;
    buf_fini(&d->in);
    worker_listener_unref(d->listener);
    mem_free(d);
    worker_check_drained(w);
}

static void on_conn_closed(struct conn *c) { one_closed(down_of_conn(c)); }
static void on_timer_closed(struct loop_timer *timer) { one_closed(CONTAINER_OF(timer, struct down, timer)); }

static void close_now(struct down *d, bool reset)
{
    if (d->state == DOWN_CLOSED)
        return;
    d->state = DOWN_CLOSED;
    h1_fail(&d->h1, LEG_CLOSED); /* a stream, if any, hears of it */
    count_bytes(d);
    list_remove(&d->idle);
    loop_task_cancel(&d->work);
    d->closing = 2;
    conn_close(&d->conn, reset, on_conn_closed);
    loop_timer_close(&d->timer, on_timer_closed);
}

static void arm(struct down *d, uint64_t at)
{
    uint64_t now = loop_now(&d->worker->loop);

    if (at >= d->timer_at || d->state == DOWN_CLOSED)
        return;
    d->timer_at = at;
    loop_timer_start(&d->timer, at > now ? at - now : 0);
}

void down_arm(struct down *d, uint64_t at_ms) { arm(d, at_ms); }

static void start_closing(struct down *d)
{
    if (d->state != DOWN_OPEN)
        return;
    d->state = DOWN_CLOSING;
    d->since = loop_now(&d->worker->loop);
    list_remove(&d->idle);
    arm(d, d->since + d->idle_timeout);
    loop_defer(&d->worker->loop, &d->work);
}

/* Everything is flushed. */
static void start_linger(struct down *d)
{
    if (d->conn.read_eof || d->linger_timeout == 0) {
        close_now(d, false);
        return;
    }
    d->state = DOWN_LINGER;
    d->since = loop_now(&d->worker->loop);
    buf_clear(&d->in);
    conn_shutdown(&d->conn);
    conn_want_read(&d->conn, true);
    arm(d, d->since + d->linger_timeout);
}

static void linger(struct down *d)
{
    size_t got;
    enum io_result r = IO_OK;

    for (int i = 0; i < READS_PER_EVENT && r == IO_OK && d->lingered < LINGER_BYTES; i++) {
        r = conn_read(&d->conn, &d->in, CHUNK_SIZE, &got);
        d->lingered += got;
        buf_clear(&d->in);
        if (r == IO_OK && d->conn.drained)
            return;
    }
    if (r == IO_EOF || r == IO_FAIL || d->lingered >= LINGER_BYTES)
        close_now(d, false);
}

static void lost(struct down *d)
{
    h1_fail(&d->h1, LEG_CLOSED);
    close_now(d, true);
}

/* ---- idleness ---- */

/* Of a connection without a stream. */
static uint64_t idle_deadline(const struct down *d)
{
    if (h1_is_dropping(&d->h1))
        return d->since + d->linger_timeout;
    if (d->worker->draining && d->conn.out.n == 0) /* else the client is still reading its response */
        return d->since + DRAIN_IDLE_MS;
    return d->since + d->idle_timeout;
}

static void become_idle(struct down *d)
{
    d->since = loop_now(&d->worker->loop);
    list_remove(&d->idle);
    list_push_back(&d->worker->idle_conns, &d->idle);
    arm(d, idle_deadline(d));
}

static bool is_idle(const struct down *d) { return d->state == DOWN_OPEN && d->stream == NULL && h1_is_idle(&d->h1); }

/* ---- bytes ---- */

static void feed(struct down *d)
{
    (void)!h1_input(&d->h1, &d->in); /* the codec's events say how it ends */
    if (d->state != DOWN_OPEN)
        return;
    if (d->conn.read_eof && is_idle(d) && !d->h1.stalled) /* what is left is no request */
        start_closing(d);
    else
        conn_want_read(&d->conn, h1_wants_input(&d->h1));
}

static void on_eof(struct down *d)
{
    h1_eof(&d->h1);
    if (is_idle(d) && !d->feed)
        start_closing(d); /* the last response may still be on its way */
}

static void on_readable(struct conn *c)
{
    struct down *d = down_of_conn(c);

    if (d->state == DOWN_LINGER) {
        linger(d);
        return;
    }
    for (int i = 0; i < READS_PER_EVENT; i++) {
        size_t got;
        enum io_result r = conn_read(c, &d->in, CHUNK_SIZE, &got);
        if (r == IO_AGAIN)
            return;
        if (r == IO_FAIL) {
            lost(d);
            return;
        }
        if (r == IO_EOF) {
            on_eof(d);
            return;
        }
        if (d->state != DOWN_OPEN) { /* closing: of no interest, but FIN is */
            buf_clear(&d->in);
            return;
        }
        feed(d);
        if (d->state != DOWN_OPEN || c->drained || !c->want_read)
            return;
    }
}

/* A request that lies in the socket already is still served. */
static void close_idle(struct down *d)
{
    if (d->requests > 0 && is_idle(d))
        on_readable(&d->conn);
    if (is_idle(d) && d->in.n == 0 && d->conn.out.n == 0)
        close_now(d, false);
}

/* Bytes went out: whoever waits for the client to read them has waited for something. */
static void note_progress(struct down *d)
{
    if (d->conn.bytes_out == d->noted_out)
        return;
    d->noted_out = d->conn.bytes_out;
    if (d->stream != NULL)
        stream_touch(d->stream);
    else if (!h1_is_dropping(&d->h1))
        d->since = loop_now(&d->worker->loop);
    if (d->worker->draining && is_idle(d))
        arm(d, idle_deadline(d));
}

static void flush(struct down *d)
{
    if (d->conn.out.n > 0 && conn_flush(&d->conn) == IO_FAIL) {
        lost(d);
        return;
    }
    note_progress(d);
    if (d->conn.out.n == 0 && h1_wants_shutdown(&d->h1))
        conn_shutdown(&d->conn);
    if (d->conn.out.n <= d->h1.high_mark / 2)
        h1_output_drained(&d->h1);
    if (d->state == DOWN_CLOSING && d->conn.out.n == 0)
        start_linger(d);
}

/* Once after each burst of events: feed what had to wait, then one send for head, body and whatever else was queued. */
static void on_work(struct loop_task *task)
{
    struct down *d = CONTAINER_OF(task, struct down, work);

    if (d->feed && d->state == DOWN_OPEN) {
        d->feed = false;
        feed(d);
    }
    if (d->state == DOWN_CLOSING && d->h1.out_state == H1_BROKEN)
        close_now(d, true);
    if (d->state != DOWN_CLOSED && d->state != DOWN_LINGER)
        flush(d);
}

static void on_writable(struct conn *c) { flush(down_of_conn(c)); }

static void on_hangup(struct conn *c)
{
    struct down *d = down_of_conn(c);

    /* FIN alone only says that no more will come; it is read in its turn. */
    if (c->error != 0)
        lost(d);
}

static const struct conn_ops conn_ops = {
    .on_readable = on_readable, .on_writable = on_writable, .on_hangup = on_hangup};

/* ---- the timer ---- */

static void on_timer(struct loop_timer *timer)
{
    struct down *d = CONTAINER_OF(timer, struct down, timer);
    uint64_t now = loop_now(&d->worker->loop), at;
    enum end_reason why = END_NONE;

    d->timer_at = UINT64_MAX;
    note_progress(d);
    if (d->state == DOWN_LINGER)
        at = d->since + d->linger_timeout;
    else if (d->state == DOWN_CLOSING)
        at = d->since + d->idle_timeout;
    else if (d->stream != NULL)
        at = stream_deadline(d->stream, &why);
    else
        at = idle_deadline(d);
    if (at > now) {
        if (at != UINT64_MAX)
            arm(d, at);
        return;
    }
    if (d->state == DOWN_OPEN && d->stream != NULL) {
        stream_expire(d->stream, why);
        if (d->stream != NULL)
            arm(d, now + 1000); /* looks again: what it does now (a reply, say) has deadlines too */
    } else if (d->state == DOWN_OPEN && h1_is_dropping(&d->h1)) {
        h1_fail(&d->h1, LEG_TIMEOUT);
        start_closing(d);
    } else {
        close_idle(d);
        if (d->state != DOWN_OPEN || is_idle(d)) /* else its next request has just come */
            close_now(d, d->state == DOWN_CLOSING || d->conn.out.n > 0);
    }
}

/* ---- the codec's owner ---- */

/* New requests see the newest limits. */
static void take_limits(struct down *d, const struct limits *l)
{
    d->limits = (struct h1_limits){.head_bytes = l->head_bytes,
                                   .uri_bytes = l->uri_bytes,
                                   .headers = l->headers,
                                   .trailer_bytes = l->head_bytes,
                                   .chunk_ext_bytes = 4096,
                                   .pipeline_bytes = l->pipeline_bytes};
    d->idle_timeout = l->idle_timeout;
    d->linger_timeout = l->linger_timeout;
    d->h1.max_body = l->body_bytes;
    d->h1.high_mark = l->output_bytes;
    if (d->worker->draining || (l->streams_per_connection > 0 && d->requests >= l->streams_per_connection))
        d->h1.closing = true;
}

/* A reply where there is no stream to make one: it has the fields of those that streams make (reply.c). A stream that
 * there was has its reason in the log already; where there never was one, refuse() sees to it. */
static void send_error(struct down *d, unsigned status, enum end_reason reason, const char *text)
{
    const struct listener_runtime *listener = d->listener->current;
    const char *server = listener != NULL ? listener->conf->limits.server_name : NULL;
    struct headers fields;
    struct arena arena;

    arena_init(&arena, d->worker->pool, 4096);
    headers_init(&fields, &arena, 4096, 4);
    headers_add_borrowed(&fields, STR("date"), worker_date(d->worker), HDR_DATE);
    headers_add_borrowed(&fields, STR("server"), str_of(server != NULL ? server : "weir"), HDR_SERVER);
    if (reason == END_OVERLOAD)
        headers_add_borrowed(&fields, STR("retry-after"), STR("1"), HDR_OTHER);
    if (listener != NULL && listener->conf->limits.debug_headers)
        headers_add_borrowed(&fields, STR("x-weir-end-reason"), str_of(end_reason_details(reason)), HDR_OTHER);
    h1_send_error_with(&d->h1, status, &fields, str_of(text));
    arena_fini(&arena);
}

static struct arena *refuse(struct down *d, enum end_reason reason, const char *text)
{
    send_error(d, end_reason_status(reason), reason, text);
    stream_refused(d->worker, d, d->listener->current, reason, strlen(text));
    start_closing(d);
    return NULL;
}

static struct arena *on_begin(struct h1 *h)
{
    struct down *d = down_of_h1(h);
    struct listener_runtime *listener = d->listener->current;

    list_remove(&d->idle);
    d->requests++;
    if (listener == NULL)
        return refuse(d, END_ROUTE_NOT_FOUND, "no listener\n");
    take_limits(d, &listener->conf->limits);
    struct stream *s = stream_new(d->worker, d, listener);
    if (s == NULL)
        return refuse(d, END_OVERLOAD, end_reason_body(END_OVERLOAD));
    d->stream = s;
    s->down_leg = &h->leg;
    h->leg.ops = &stream_down_ops;
    h->leg.stream = s;
    return &s->arena;
}

static void on_bad_request(struct h1 *h, enum leg_error error, const char *why)
{
    struct down *d = down_of_h1(h);

    (void)why;
    if (h->leg.stream != NULL) {
        stream_bad_request(h->leg.stream, error, h->bad_status);
        return;
    }
    /* From 500 on it was our response that could not be written. */
    enum end_reason reason = h->bad_status >= 500   ? END_GUEST_BAD_HEAD
                             : h->bad_status == 413 ? END_BODY_TOO_LARGE
                                                    : END_BAD_REQUEST;
    send_error(d, h->bad_status >= 500 ? end_reason_status(reason) : h->bad_status, reason, end_reason_body(reason));
    start_closing(d);
}

static void on_output(struct h1 *h)
{
    struct down *d = down_of_h1(h);

    loop_defer(&d->worker->loop, &d->work);
}

static void on_read_state(struct h1 *h)
{
    struct down *d = down_of_h1(h);

    d->feed = true;
    loop_defer(&d->worker->loop, &d->work);
    if (h1_is_dropping(h)) {
        d->since = loop_now(&d->worker->loop);
        arm(d, idle_deadline(d));
    }
}

static void on_exchange_end(struct h1 *h, bool reusable)
{
    struct down *d = down_of_h1(h);

    metrics_add(d->worker->stats.guest_headers_dropped, h->dropped_headers);
    h->dropped_headers = 0;
    count_bytes(d);
    if (d->state != DOWN_OPEN)
        return;
    if (!reusable) {
        start_closing(d);
        return;
    }
    become_idle(d);
    if (d->in.n > 0 || h->in == NULL) { /* a pipelined request may wait; from inside h1_input it goes on by itself */
        d->feed = true;
        loop_defer(&d->worker->loop, &d->work);
    }
}

static const struct h1_ops h1_ops = {.on_begin = on_begin,
                                     .on_bad_request = on_bad_request,
                                     .on_output = on_output,
                                     .on_read_state = on_read_state,
                                     .on_exchange_end = on_exchange_end};

/* ---- life ---- */

void down_accept(struct worker_listener *wl, int fd, const struct addr *peer)
{
    struct worker *w = wl->worker;
    struct down *d = mem_zalloc(sizeof *d);

    if (!conn_init(&d->conn, &w->loop, fd, w->pool, &conn_ops)) {
        mem_free(d);
        return;
    }
    d->conn.peer = *peer;
    d->worker = w;
    d->listener = wl;
    wl->refs++;
    d->id = ++w->next_conn_id;
    d->peer_n = (uint8_t)addr_format(peer, false, d->peer_ip);
    d->timer_at = UINT64_MAX;
    h1_init(&d->h1, H1_SERVER, &d->limits, &d->conn.out, 128 * 1024, &h1_ops);
    buf_init(&d->in, w->pool);
    loop_task_init(&d->work, on_work);
    loop_timer_init(&d->timer, &w->loop, on_timer);
    list_push_back(&w->conns, &d->node);
    list_init(&d->idle);
    w->conn_count++;
    metrics_add(w->stats.conns_total, 1);
    if (wl->current != NULL)
        take_limits(d, &wl->current->conf->limits);
    else
        d->idle_timeout = d->linger_timeout = 1000;
    become_idle(d);
    conn_want_read(&d->conn, true);
    if (wl->current != NULL && w->conn_count > wl->current->conf->limits.connections)
        (void)refuse(d, END_OVERLOAD, "too many connections\n");
}

void down_forget_stream(struct down *d) { d->stream = NULL; }

void down_close_idle(struct worker *w, const struct worker_listener *wl)
{
    LIST_EACH (node, &w->idle_conns) {
        struct down *d = LIST_ENTRY(node, struct down, idle);
        if (wl == NULL || d->listener == wl)
            close_idle(d);
    }
}

void down_drain_all(struct worker *w)
{
    LIST_EACH (node, &w->conns) {
        struct down *d = LIST_ENTRY(node, struct down, node);
        if (d->state != DOWN_OPEN)
            continue;
        d->h1.closing = true;
        if (!is_idle(d))
            continue;
        if (idle_deadline(d) <= loop_now(&w->loop))
            close_idle(d);
        else
            arm(d, idle_deadline(d));
    }
}

void down_cut_all(struct worker *w)
{
    LIST_EACH (node, &w->conns) {
        struct down *d = LIST_ENTRY(node, struct down, node);
        if (d->stream != NULL)
            stream_abort(d->stream, END_DRAIN_CUT);
        close_now(d, d->conn.out.n > 0 || d->h1.out_state == H1_BROKEN);
    }
}
