/* SPDX-License-Identifier: Apache-2.0
 *
 * A filter's HTTP callout: guests' pairs become a checked request, one exchange over the worker's pool, and an answer
 * held whole. What makes it hard is when it may end: inside the host call that starts it, inside leg events, by its
 * timer, by its VM's death. So every event only records how it ended, and one loop task delivers. It must never call
 * back twice, nor from inside call_start, and what a guest wrote must never reach the wire unchecked.
 */
#include "proxy/call.h"

#include <stdio.h>

#include "http/h1_parse.h"
#include "proxy/pool.h"
#include "proxy/runtime.h"

enum {
    CALL_KNOWN_POLL_MS = 50, /* looking again for endpoints that control has not told of yet */
    CALL_ARENA_HEADS = 4,    /* arena of a call: so many heads, and some */
    CALL_ARENA_MORE = 64 * 1024,
};

enum call_state {
    CALL_STARTING,
    CALL_WAITING /* in the pool's queue */,
    CALL_ON_LEG,
    CALL_OVER /* delivery is deferred */
};

struct call {
    struct worker *worker;
    struct cluster *cluster;
    call_done_fn *done; /* NULL: cancelled */
    void *arg;
    struct arena arena;
    struct limits limits; /* numbers only */
    struct message request;
    struct headers request_trailers;
    struct str request_body;
    struct up_request up;
    struct leg *leg;
    struct loop_task task; /* starts it, and delivers */
    struct loop_timer timer;
    uint64_t deadline; /* loop ms */
    enum call_state state;
    bool retried, reused, head_came /* or a 1xx */, fresh_only;
    struct message *response;
    struct headers *trailers;
    struct buf body;
    const char *error;
};

/* ---- ending ---- */

static void call_closed(struct loop_timer *timer) { mem_free(CONTAINER_OF(timer, struct call, timer)); }

static void call_free(struct call *c)
{
    loop_task_cancel(&c->task);
    cluster_unref(c->cluster);
    buf_fini(&c->body);
    arena_fini(&c->arena);
    loop_timer_close(&c->timer, call_closed);
}

/* Lets go of leg or pool. */
static void call_release(struct call *c, bool abort)
{
    if (c->state == CALL_WAITING)
        pool_cancel(&c->up);
    if (c->state == CALL_ON_LEG && c->leg != NULL)
        c->leg->codec->detach(c->leg, abort);
    c->leg = NULL;
}

/* error NULL: the answer is complete. */
static void call_over(struct call *c, const char *error)
{
    if (c->state == CALL_OVER)
        return;
    call_release(c, error != NULL);
    c->state = CALL_OVER;
    c->error = error;
    loop_defer(&c->worker->loop, &c->task);
}

static void call_deliver(struct call *c)
{
    struct headers none;

    headers_init(&none, &c->arena, 0, 0);
    if (c->error != NULL)
        c->done(c->arg, c, NULL, NULL, NULL, c->error);
    else
        c->done(c->arg, c, &c->response->headers, &c->body, c->trailers != NULL ? c->trailers : &none, NULL);
    call_free(c);
}

void call_cancel(struct call *c)
{
    call_release(c, true);
    c->state = CALL_OVER;
    call_free(c);
}

/* What Envoy's filters see of a failure before the endpoint's head: a gateway's answer. After it, a failure is told as
 * one, with no headers at all. */
static void call_failed(struct call *c, enum end_reason why, const char *error)
{
    char status[8], length[24];

    if (c->state == CALL_OVER)
        return;
    if (c->response != NULL) {
        call_over(c, error);
        return;
    }
    struct str text = str_of(end_reason_body(why));
    text.n -= text.n != 0 && text.p[text.n - 1] == '\n';
    struct message *m = arena_zalloc(&c->arena, sizeof *m);
    int n = snprintf(status, sizeof status, "%u", end_reason_status(why));
    int k = snprintf(length, sizeof length, "%zu", text.n);
    headers_init(&m->headers, &c->arena, SIZE_MAX, SIZE_MAX);
    (void)!headers_set_id(&m->headers, HDR_STATUS, str_span(status, (size_t)n));
    (void)!headers_set_id(&m->headers, HDR_CONTENT_LENGTH, str_span(length, (size_t)k));
    headers_add_borrowed(&m->headers, STR("content-type"), STR("text/plain"), HDR_CONTENT_TYPE);
    call_release(c, true);
    buf_clear(&c->body);
    buf_append(&c->body, text);
    c->response = m;
    c->trailers = NULL;
    c->state = CALL_OVER;
    c->error = NULL;
    loop_defer(&c->worker->loop, &c->task);
}

/* ---- the exchange ---- */

static void call_try(struct call *c);

static void call_send(struct call *c)
{
    const struct leg_codec *codec = c->leg->codec;
    bool trailers = c->request_trailers.count != 0;

    codec->send_head(c->leg, &c->request, c->request_body.n == 0 && !trailers);
    if (c->request_body.n != 0) {
        struct buf body;
        buf_init(&body, c->worker->pool);
        buf_append(&body, c->request_body);
        codec->send_body(c->leg, &body, !trailers);
        buf_fini(&body);
    }
    if (trailers)
        codec->send_trailers(c->leg, &c->request_trailers);
}

static void on_ready(void *owner, struct leg *leg, bool reused)
{
    struct call *c = owner;

    c->state = CALL_ON_LEG;
    c->leg = leg;
    c->reused = reused;
    call_send(c);
}

static void on_failed(void *owner, enum end_reason reason)
{
    struct call *c = owner;

    c->state = CALL_STARTING; /* the pool has let go */
    call_failed(c, reason, end_reason_details(reason));
}

static bool is_idempotent(struct str method)
{
    static const char *const list[] = {"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"};

    for (size_t i = 0; i < ARRAY_LEN(list); i++)
        if (str_is(method, list[i]))
            return true;
    return false;
}

static void on_head(void *owner, struct message *msg, bool end)
{
    struct call *c = owner;

    c->head_came = true;
    c->response = msg;
    if (end)
        call_over(c, NULL);
}

static void on_interim(void *owner, struct message *msg)
{
    struct call *c = owner;

    (void)msg;
    c->head_came = true;
}

static void on_body(void *owner, struct buf *data, bool end)
{
    struct call *c = owner;

    if (c->body.n + data->n > c->limits.call_body_bytes) {
        call_over(c, "the answer is larger than call-body-bytes");
        return;
    }
    buf_move(&c->body, data, data->n);
    if (end)
        call_over(c, NULL);
}

static void on_trailers(void *owner, struct headers *trailers)
{
    struct call *c = owner;

    c->trailers = trailers;
    call_over(c, NULL);
}

/* An idle connection may have been closed by the endpoint in the moment it was taken. */
static bool may_retry(const struct call *c)
{
    return c->reused && !c->retried && !c->head_came && is_idempotent(headers_value(&c->request.headers, HDR_METHOD));
}

static void on_reset(void *owner, enum leg_error why)
{
    struct call *c = owner;
    bool again = (why == LEG_CLOSED || why == LEG_CONNECT_FAILED) && may_retry(c);

    c->leg = NULL;
    if (!again) {
        call_failed(c, why == LEG_BAD_MESSAGE ? END_UPSTREAM_BAD : END_UPSTREAM_RESET,
                    why == LEG_BAD_MESSAGE ? "the answer is not HTTP" : "the connection broke");
        return;
    }
    c->retried = c->fresh_only = true;
    c->state = CALL_STARTING;
    loop_defer(&c->worker->loop, &c->task);
}

static void on_drain(void *owner) { (void)owner; }

static const struct leg_ops call_leg_ops = {
    .on_head = on_head,
    .on_interim = on_interim,
    .on_body = on_body,
    .on_trailers = on_trailers,
    .on_reset = on_reset,
    .on_drain = on_drain,
};

static uint64_t time_left(const struct call *c)
{
    uint64_t now = loop_now(&c->worker->loop);
    return c->deadline > now ? c->deadline - now : 0;
}

static void on_timer(struct loop_timer *timer)
{
    struct call *c = CONTAINER_OF(timer, struct call, timer);

    if (c->state == CALL_OVER)
        return;
    if (time_left(c) == 0) {
        call_failed(c, END_RESPONSE_TIMEOUT, "the answer did not end in time");
        return;
    }
    if (c->state == CALL_STARTING)
        call_try(c);
    else
        loop_timer_start(&c->timer, time_left(c));
}

static void call_try(struct call *c)
{
    enum end_reason why = END_NO_ENDPOINT;
    uint64_t left = time_left(c);
    bool wait_to_know = !c->cluster->known && c->cluster->count == 0;

    loop_timer_start(&c->timer, wait_to_know && left > CALL_KNOWN_POLL_MS ? CALL_KNOWN_POLL_MS : left);
    if (wait_to_know) /* a VM is put to work before the first endpoints or DNS answers come */
        return;
    struct endpoint *e = cluster_choose(c->cluster, NULL);
    if (e == NULL) {
        call_failed(c, why, end_reason_details(why));
        return;
    }
    c->up = (struct up_request){.arena = &c->arena,
                                .ops = &call_leg_ops,
                                .owner = c,
                                .on_ready = on_ready,
                                .on_failed = on_failed,
                                .limits = &c->limits};
    list_init(&c->up.node);
    bool reused = false;
    struct leg *leg = NULL;
    switch (pool_request(c->worker, e, &c->up, c->fresh_only, &leg, &reused, &why)) {
    case POOL_READY: on_ready(c, leg, reused); break;
    case POOL_WAIT: c->state = CALL_WAITING; break;
    case POOL_FAILED: call_failed(c, why, end_reason_details(why)); break;
    }
}

static void call_task(struct loop_task *task)
{
    struct call *c = CONTAINER_OF(task, struct call, task);

    if (c->state == CALL_OVER)
        call_deliver(c);
    else
        call_try(c);
}

/* ---- the request, from what a guest wrote ---- */

static const struct str *pair_value(const struct abi_pairs *pairs, struct str name, size_t *count)
{
    const struct str *found = NULL;

    *count = 0;
    for (size_t i = 0; i < pairs->count; i++) {
        if (!str_ieq(pairs->list[i].name, name))
            continue;
        found = found != NULL ? found : &pairs->list[i].value;
        (*count)++;
    }
    return found;
}

/* A pseudo-header that must stand there once, or may be absent when there is a default. */
static bool add_pseudo(struct headers *h, const struct abi_pairs *pairs, struct str name, struct str def)
{
    size_t count;
    const struct str *value = pair_value(pairs, name, &count);

    if (count > 1 || (value == NULL && def.n == 0) || (value != NULL && value->n == 0))
        return false;
    return headers_add(h, name, value != NULL ? *value : def) == HEADERS_OK;
}

static bool is_own_framing(enum header_id id)
{
    switch (id) {
    case HDR_CONTENT_LENGTH:
    case HDR_TRANSFER_ENCODING:
    case HDR_CONNECTION:
    case HDR_KEEP_ALIVE:
    case HDR_PROXY_CONNECTION:
    case HDR_UPGRADE:
    case HDR_EXPECT:
    case HDR_TRAILER:
    case HDR_TE:
    case HDR_HOST: return true;
    default: return false;
    }
}

static bool is_pseudo(struct str name) { return name.n != 0 && name.p[0] == ':'; }

static bool is_request_pseudo(struct str name)
{
    return str_ieq(name, STR(":method")) || str_ieq(name, STR(":path")) || str_ieq(name, STR(":authority")) ||
           str_ieq(name, STR(":scheme"));
}

/* What is framing is left out: the encoder owns it. */
static bool add_fields(struct headers *h, const struct abi_pairs *pairs)
{
    for (size_t i = 0; i < pairs->count; i++) {
        struct str name = pairs->list[i].name, value = pairs->list[i].value;
        if (is_pseudo(name)) {
            if (!is_request_pseudo(name))
                return false;
            continue;
        }
        if (!h1_is_token(name) || !h1_is_field_value(value) || headers_add(h, name, value) != HEADERS_OK)
            return false;
        if (is_own_framing((enum header_id)h->list[h->count - 1].id))
            headers_remove_at(h, h->count - 1);
    }
    return true;
}

static bool check_target(const struct headers *h)
{
    struct str method = headers_value(h, HDR_METHOD), path = headers_value(h, HDR_PATH);

    return h1_is_token(method) && !str_is(method, "CONNECT") && h1_is_path(path) &&
           (!str_is(path, "*") || str_is(method, "OPTIONS")) && h1_is_authority(headers_value(h, HDR_AUTHORITY));
}

static bool set_body(struct call *c, const struct http_call *spec)
{
    char text[24];
    struct message *m = &c->request;

    m->version = 11;
    if (c->request_trailers.count != 0) {
        m->body = BODY_CHUNKED;
        return true;
    }
    m->body = spec->body.n != 0 ? BODY_LENGTH : BODY_NONE;
    m->content_length = spec->body.n;
    int n = snprintf(text, sizeof text, "%zu", spec->body.n);
    return spec->body.n == 0 ||
           headers_set_id(&m->headers, HDR_CONTENT_LENGTH, str_span(text, (size_t)n)) == HEADERS_OK;
}

static bool build_request(struct call *c, const struct http_call *spec)
{
    struct headers *h = &c->request.headers;
    size_t max = (size_t)c->limits.head_bytes, count = (size_t)c->limits.headers;

    headers_init(h, &c->arena, max, count + 8);
    headers_init(&c->request_trailers, &c->arena, max, count);
    return add_pseudo(h, &spec->headers, STR(":method"), STR_NONE) &&
           add_pseudo(h, &spec->headers, STR(":scheme"), STR("http")) &&
           add_pseudo(h, &spec->headers, STR(":authority"), STR_NONE) &&
           add_pseudo(h, &spec->headers, STR(":path"), STR_NONE) && check_target(h) && add_fields(h, &spec->headers) &&
           add_fields(&c->request_trailers, &spec->trailers) && set_body(c, spec);
}

/* A callout has no listener of its own: the first one's limits, of the configuration that is served now. */
static void set_limits(struct call *c)
{
    const struct runtime *r = c->worker->runtime;

    if (r != NULL && r->listener_count != 0)
        c->limits = r->listeners[0].conf->limits;
    else
        limits_default(&c->limits);
    c->limits.access_log_text = c->limits.server_name = NULL; /* not ours */
}

enum abi_status call_start(struct worker *w, const struct http_call *spec, call_done_fn *done, void *arg,
                           struct call **out)
{
    struct cluster *cluster = cluster_find(&w->clusters, spec->cluster);

    if (cluster == NULL)
        return ABI_BAD_ARGUMENT;
    struct call *c = mem_zalloc(sizeof *c);
    c->worker = w;
    c->cluster = cluster;
    cluster_ref(cluster);
    c->done = done;
    c->arg = arg;
    set_limits(c);
    uint64_t most_body =
        c->limits.call_body_bytes > c->limits.buffer_bytes ? c->limits.call_body_bytes : c->limits.buffer_bytes;
    arena_init(&c->arena, w->pool,
               (size_t)c->limits.head_bytes * CALL_ARENA_HEADS + CALL_ARENA_MORE + (size_t)most_body);
    buf_init(&c->body, w->pool);
    loop_task_init(&c->task, call_task);
    loop_timer_init(&c->timer, &w->loop, on_timer);
    bool small = spec->body.n <= most_body && arena_try_str(&c->arena, spec->body, &c->request_body);
    if (!small || !build_request(c, spec)) {
        call_free(c);
        return small ? ABI_BAD_ARGUMENT : ABI_INTERNAL_FAILURE;
    }
    uint64_t ms = c->limits.call_timeout;
    c->deadline = loop_now(&w->loop) + (spec->timeout_ms != 0 && spec->timeout_ms < ms ? spec->timeout_ms : ms);
    loop_defer(&w->loop, &c->task);
    *out = c;
    return ABI_OK;
}
