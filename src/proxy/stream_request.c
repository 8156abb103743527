/* SPDX-License-Identifier: Apache-2.0
 *
 * The step table of a request: through the chain, to a route, to an endpoint, head and body out. What makes it hard is
 * failing well: an endpoint that refuses is no reason to fail while another is there, and a connection that had died in
 * the pool is no reason to fail a request that may be sent again. It must never send a request twice that may have
 * acted.
 */
#include "base/log.h"
#include "http/h1_parse.h"
#include "proxy/stream_private.h"

enum { CONNECT_TRIES = 3, RESEND_BYTES = 64 * 1024 };

/* ---- HEADERS ---- */

static enum step request_headers(struct stream *s)
{
    return s->priv->flow[DIR_REQUEST].head_passed ? STEP_NEXT : STEP_WAIT;
}

/* ---- ROUTE ---- */

const struct route *stream_route(struct stream *s)
{
    if (s->route_known)
        return s->route.route;
    if (s->side[DIR_REQUEST].msg == NULL || s->listener->conf->routes == NULL)
        return NULL;
    s->route_known = true;
    s->route = (struct route_hit){0};
    enum route_result r =
        route_lookup(s->listener->conf->routes, &s->side[DIR_REQUEST].msg->headers, s->worker->scratch, &s->route);
    if (r != ROUTE_FOUND)
        s->route = (struct route_hit){0};
    if (r == ROUTE_LIMIT) {
        reply_reason(s, END_MATCH_LIMIT);
        stream_kick(s);
    }
    return s->route.route;
}

static void redirect(struct stream *s, const struct route_filter *f)
{
    struct strbuf location = {0};
    struct header extra = {.name = STR("location"), .id = HDR_LOCATION};

    route_redirect_location(f, s->route.match, &s->side[DIR_REQUEST].msg->headers, addr_port(&s->listener->conf->addr),
                            &location);
    extra.value = strbuf_str(&location);
    struct reply r = {.status = f->to.status != 0 ? f->to.status : 302,
                      .extra = &extra,
                      .extra_count = 1,
                      .grpc_status = -1,
                      .reason = END_DIRECT_RESPONSE};
    reply_want(s, &r, UINT32_MAX, false);
    strbuf_free(&location);
}

static enum headers_result rewrite(struct stream *s, const struct route_filter *f, struct headers *h)
{
    enum headers_result r = HEADERS_OK;

    if (f->to.hostname != NULL && stream_limits(s)->x_forwarded_host)
        r = headers_add(h, STR("x-forwarded-host"), headers_value(h, HDR_AUTHORITY));
    return r == HEADERS_OK ? route_rewrite(f, s->route.match, h) : r;
}

/* False: the request goes no further. */
static bool apply_filters(struct stream *s, const struct route_filter *filters, size_t count)
{
    struct headers *h = &s->side[DIR_REQUEST].msg->headers;
    enum headers_result r = HEADERS_OK;

    for (size_t i = 0; i < count && r == HEADERS_OK; i++) {
        switch (filters[i].type) {
        case FILTER_REQUEST_HEADERS: r = route_modify_headers(&filters[i].headers, h); break;
        case FILTER_REWRITE: r = rewrite(s, &filters[i], h); break;
        case FILTER_REDIRECT: redirect(s, &filters[i]); return false;
        case FILTER_RESPONSE_HEADERS: break; /* on the way back */
        case FILTER_EXTENSION: reply_reason(s, END_INTERNAL); return false;
        }
    }
    if (r != HEADERS_OK)
        reply_reason(s, END_ARENA_FULL);
    return r == HEADERS_OK;
}

/* Filters and rewrites may have written what can stand in no request line; the codec would refuse it later and less
 * clearly. */
static bool is_sendable(const struct headers *h)
{
    struct str path = headers_value(h, HDR_PATH), host = headers_value(h, HDR_AUTHORITY);

    return h1_is_token(headers_value(h, HDR_METHOD)) && h1_is_path(path) && (host.n == 0 || h1_is_authority(host));
}

static bool choose_cluster(struct stream *s, const struct route *route)
{
    const struct route_backend *b =
        route_choose_backend(route, route->backend_count > 1 ? worker_random(s->worker) : 0);

    if (b == NULL || b->cluster == NULL) {
        reply_reason(s, END_NO_CLUSTER);
        return false;
    }
    s->priv->backend = b;
    s->cluster = cluster_get(&s->worker->clusters, str_of(b->cluster));
    cluster_ref(s->cluster);
    return b->filter_count == 0 || apply_filters(s, b->filters, b->filter_count);
}

static enum step request_route(struct stream *s)
{
    const struct route *route = stream_route(s);

    if (stream_is_stopped(s))
        return STEP_END;
    if (route == NULL) {
        reply_reason(s, END_ROUTE_NOT_FOUND);
        return STEP_END;
    }
    if (!apply_filters(s, route->rule->filters, route->rule->filter_count) || !choose_cluster(s, route))
        return STEP_END;
    bool edited = s->filter_count + route->rule->filter_count + s->priv->backend->filter_count > 0;
    if (edited && !is_sendable(&s->side[DIR_REQUEST].msg->headers)) {
        reply_reason(s, END_GUEST_BAD_HEAD);
        return STEP_END;
    }
    return STEP_NEXT;
}

/* ---- CONNECT ---- */

static void use_endpoint(struct stream *s, struct endpoint *e)
{
    if (s->endpoint != NULL)
        endpoint_unref(s->endpoint);
    endpoint_ref(e);
    e->active++;
    s->endpoint = e;
    s->priv->counted = true;
}

static void set_leg(struct stream *s, struct leg *leg, bool reused)
{
    s->up_leg = leg;
    s->up_local = *pool_leg_local(leg);
    s->up = s->priv->up_request.up;
    s->up_wire.received -= pool_leg_bytes_in(leg); /* until take_up_wire */
    s->up_wire.sent -= pool_leg_bytes_out(leg);
    s->priv->up_reused = reused;
}

/* An attempt to connect failed; is there another to make? */
static bool may_try_another(struct stream *s, enum end_reason why)
{
    struct stream_private *p = s->priv;

    stream_drop_up(s, true);
    metrics_add(s->worker->stats.up_connect_failures, 1);
    p->avoid = s->endpoint;
    if (why != END_CONNECT_FAILED)
        return false;
    if (s->endpoint->removed) /* that is no fault of those that came in its place */
        return true;
    return ++p->connect_tries < CONNECT_TRIES && p->connect_tries < s->cluster->count;
}

static void on_ready(void *owner, struct leg *leg, bool reused)
{
    struct stream *s = owner;

    s->priv->connecting = false;
    set_leg(s, leg, reused);
    stream_drive(s);
}

static void on_failed(void *owner, enum end_reason reason)
{
    struct stream *s = owner;

    s->priv->connecting = false;
    if (!may_try_another(s, reason))
        reply_reason(s, reason);
    stream_drive(s);
}

static bool is_idempotent(const struct stream *s)
{
    static const char *const methods[] = {"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"};
    struct str method = headers_value(&s->side[DIR_REQUEST].msg->headers, HDR_METHOD);

    for (size_t i = 0; i < ARRAY_LEN(methods); i++)
        if (str_is(method, methods[i]))
            return true;
    return false;
}

static enum pool_result try_endpoint(struct stream *s, struct endpoint *e, enum end_reason *why)
{
    struct stream_private *p = s->priv;
    struct leg *leg = NULL;
    bool reused = false;

    use_endpoint(s, e);
    p->up_request = (struct up_request){.arena = &s->arena,
                                        .ops = &stream_up_ops,
                                        .owner = s,
                                        .on_ready = on_ready,
                                        .on_failed = on_failed,
                                        .limits = stream_limits(s),
                                        .once = !is_idempotent(s)};
    enum pool_result r = pool_request(s->worker, e, &p->up_request, s->attempts > 0, &leg, &reused, why);
    if (r == POOL_READY)
        set_leg(s, leg, reused);
    p->connecting = r == POOL_WAIT;
    return r;
}

static void arm_deadline(struct stream *s)
{
    if (s->down != NULL)
        down_arm(s->down, stream_deadline(s, &(enum end_reason){END_NONE}));
}

static enum step request_connect(struct stream *s)
{
    struct stream_private *p = s->priv;
    enum end_reason why = END_NONE;

    if (flow_waits(s, DIR_REQUEST))
        return STEP_WAIT;
    if (p->up_start_ms == 0)
        p->up_start_ms = loop_now(&s->worker->loop);
    while (s->up_leg == NULL) {
        if (p->connecting) {
            arm_deadline(s);
            return STEP_WAIT;
        }
        struct endpoint *e = cluster_choose(s->cluster, p->avoid);
        if (e == NULL) {
            reply_reason(s, END_NO_ENDPOINT);
            return STEP_END;
        }
        if (try_endpoint(s, e, &why) == POOL_FAILED && !may_try_another(s, why)) {
            reply_reason(s, why);
            return STEP_END;
        }
    }
    return STEP_NEXT;
}

/* ---- SEND, BODY ---- */

static enum step request_send(struct stream *s)
{
    struct stream_private *p = s->priv;
    struct flow *fl = &p->flow[DIR_REQUEST];
    bool at_once = s->filter_count == 0 && s->attempts == 0 && p->up_reused;

    flow_frame(s, DIR_REQUEST);
    s->attempts++;
    s->up_start_ns = at_once && fl->head_end ? s->start_ns : worker_mono_ns();
    fl->head_sent = true;
    s->up_leg->codec->send_head(s->up_leg, s->side[DIR_REQUEST].msg, fl->head_end);
    arm_deadline(s);
    return STEP_NEXT;
}

static enum step request_body(struct stream *s)
{
    if (s->up_leg == NULL)
        return STEP_END;
    return flow_send(s, DIR_REQUEST, s->up_leg) ? STEP_NEXT : STEP_WAIT;
}

/* ---- failing ---- */

void request_keep_body(struct stream *s, const struct buf *data)
{
    struct stream_private *p = s->priv;
    size_t held = p->resend != NULL ? p->resend->n : 0;

    if (p->sent_body || data->n == 0)
        return;
    if (!p->up_reused || s->attempts != 1 || held + data->n > RESEND_BYTES || !is_idempotent(s) ||
        s->side[DIR_RESPONSE].msg != NULL) {
        p->sent_body = true;
        request_forget_body(s);
        return;
    }
    if (p->resend == NULL) {
        p->resend = arena_alloc(&s->arena, sizeof *p->resend);
        buf_init(p->resend, s->arena.pool);
    }
    buf_share(p->resend, data);
}

void request_forget_body(struct stream *s)
{
    if (s->priv->resend == NULL)
        return;
    buf_fini(s->priv->resend);
    s->priv->resend = NULL;
    s->priv->sent_body = true;
}

/* What went to the endpoint waits in front of what has not. */
static void take_back_body(struct stream *s)
{
    struct stream_private *p = s->priv;

    s->side[DIR_REQUEST].ended = false;
    if (p->resend == NULL)
        return;
    s->side[DIR_REQUEST].body_bytes_out -= p->resend->n;
    buf_prepend(&p->flow[DIR_REQUEST].out, p->resend);
}

void request_failed(struct stream *s, enum end_reason reason, bool may_retry)
{
    struct stream_private *p = s->priv;

    if (!may_retry || s->attempts != 1 || p->sent_body || s->side[DIR_REQUEST].msg->upgrade || !is_idempotent(s)) {
        reply_reason(s, reason);
        return;
    }
    metrics_add(s->worker->stats.up_retries, 1);
    take_back_body(s);
    p->flow[DIR_REQUEST].head_sent = false;
    p->up_start_ms = 0;
    p->request = REQUEST_CONNECT;
}

/* ---- the table ---- */

void request_run(struct stream *s)
{
    static enum step (*const steps[])(struct stream * s) = {[REQUEST_HEADERS] = request_headers,
                                                            [REQUEST_ROUTE] = request_route,
                                                            [REQUEST_CONNECT] = request_connect,
                                                            [REQUEST_SEND] = request_send,
                                                            [REQUEST_BODY] = request_body};
    struct stream_private *p = s->priv;

    while (p->request != REQUEST_DONE && !stream_is_stopped(s)) {
        enum step r = steps[p->request](s);
        if (r == STEP_WAIT)
            return;
        p->request = r == STEP_END ? REQUEST_DONE : p->request + 1;
    }
}
