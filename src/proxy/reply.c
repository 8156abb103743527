/* SPDX-License-Identifier: Apache-2.0
 *
 * Local replies: complete responses of the proxy's own, for its failures and for filters. A reply takes the place of
 * whatever the response direction was doing, so it begins only between callbacks (reply_want records, the driver calls
 * reply_begin). It passes, in reverse, the filters that saw the request, unless a response was under way already. There
 * is one reply for each stream, and none once a response head is on the wire.
 */
#include "proxy/grpc.h"
#include "proxy/stream_private.h"

/* ---- recording ---- */

static struct str keep(struct stream *s, struct str text)
{
    struct str copy = STR_NONE;

    return text.n > 0 && arena_try_str(&s->arena, text, &copy) ? copy : STR_NONE;
}

static const struct header *keep_headers(struct stream *s, const struct reply *r, size_t *count)
{
    *count = 0;
    if (r->extra_count == 0)
        return NULL;
    struct header *list = arena_try_alloc(&s->arena, (r->extra_count * sizeof *list + 15) & ~(size_t)15);
    if (list == NULL)
        return NULL;
    for (size_t i = 0; i < r->extra_count; i++)
        list[i] = (struct header){.name = keep(s, r->extra[i].name), .value = keep(s, r->extra[i].value)};
    *count = r->extra_count;
    return list;
}

static bool response_is_under_way(const struct stream *s) { return s->side[DIR_RESPONSE].msg != NULL; }

void reply_want(struct stream *s, const struct reply *r, uint32_t from, bool override)
{
    struct stream_private *p = s->priv;

    if (p->ended || p->finished || p->reply_wanted || (p->replied && !override))
        return;
    if (p->flow[DIR_RESPONSE].head_sent) {
        stream_end(s, r->reason);
        return;
    }
    p->reply = *r;
    p->reply.details = keep(s, r->details);
    p->reply.extra = keep_headers(s, r, &p->reply.extra_count);
    buf_clear(&p->reply_body);
    buf_append(&p->reply_body, r->body);
    p->reply_from = from;
    p->reply_direct = r->skip_filters || p->replied || response_is_under_way(s);
    p->reply_wanted = true;
}

void reply_reason(struct stream *s, enum end_reason reason) { reply_status(s, reason, end_reason_status(reason)); }

void reply_status(struct stream *s, enum end_reason reason, unsigned status)
{
    struct reply r = {.status = status, .body = str_of(end_reason_body(reason)), .grpc_status = -1, .reason = reason};

    reply_want(s, &r, UINT32_MAX, true);
}

/* ---- the message ---- */

static bool is_grpc(const struct stream *s)
{
    return s->side[DIR_REQUEST].msg != NULL && grpc_is_request(&s->side[DIR_REQUEST].msg->headers);
}

static bool is_head_request(const struct stream *s)
{
    return s->side[DIR_REQUEST].msg != NULL &&
           str_is(headers_value(&s->side[DIR_REQUEST].msg->headers, HDR_METHOD), "HEAD");
}

static void add(struct headers *h, struct str name, struct str value)
{
    /* Our own few, in a map sized for them; a guest's extra fields that do not fit are left out. */
    if (headers_add(h, name, value) != HEADERS_OK)
        return;
}

/* Percent-encoded as grpc-message has it. */
static struct str grpc_message(struct stream *s, const struct buf *body)
{
    size_t n = body->n < 1024 ? body->n : 1024, at = 0;
    char *text = arena_try_alloc(&s->arena, n | 1), *out = arena_try_alloc(&s->arena, (3 * n) | 1);

    if (text == NULL || out == NULL)
        return STR_NONE;
    buf_copy_out(body, 0, n, text);
    while (n > 0 && text[n - 1] == '\n')
        n--;
    for (size_t i = 0; i < n; i++) {
        uint8_t c = (uint8_t)text[i];
        if (c >= 0x20 && c < 0x7f && c != '%') {
            out[at++] = (char)c;
        } else {
            out[at++] = '%';
            out[at++] = "0123456789ABCDEF"[c >> 4];
            out[at++] = "0123456789ABCDEF"[c & 15];
        }
    }
    return str_span(out, at);
}

static bool has_extra(const struct reply *r, struct str name)
{
    for (size_t i = 0; i < r->extra_count; i++)
        if (str_ieq(r->extra[i].name, name))
            return true;
    return false;
}

static void add_common(struct stream *s, struct headers *h)
{
    const struct reply *r = &s->priv->reply;
    const char *server = stream_limits(s)->server_name;

    if (!has_extra(r, STR("date")))
        add(h, STR("date"), worker_date(s->worker));
    if (!has_extra(r, STR("server")))
        add(h, STR("server"), server != NULL ? str_of(server) : STR("weir"));
    if (r->reason == END_OVERLOAD)
        add(h, STR("retry-after"), STR("1"));
    if (stream_limits(s)->debug_headers)
        add(h, STR("x-weir-end-reason"), s->details.n > 0 ? s->details : str_of(end_reason_details(r->reason)));
    for (size_t i = 0; i < r->extra_count; i++)
        if (r->extra[i].name.n > 0 && r->extra[i].name.p[0] != ':' && !str_ieq(r->extra[i].name, STR("content-length")))
            add(h, r->extra[i].name, r->extra[i].value);
}

static void add_status(struct stream *s, struct headers *h, unsigned status)
{
    add(h, STR(":status"), arena_printf(&s->arena, "%03u", status));
}

static void make_plain(struct stream *s, struct message *msg)
{
    const struct reply *r = &s->priv->reply;
    size_t n = s->priv->reply_body.n;

    add_status(s, &msg->headers, msg->status);
    msg->body = BODY_LENGTH;
    msg->content_length = n;
    add(&msg->headers, STR("content-length"), arena_printf(&s->arena, "%zu", n));
    if (n > 0 && !has_extra(r, STR("content-type")))
        add(&msg->headers, STR("content-type"), STR("text/plain"));
    add_common(s, &msg->headers);
}

static void make_grpc(struct stream *s, struct message *msg)
{
    struct stream_private *p = s->priv;
    int status = p->reply.grpc_status >= 0 ? p->reply.grpc_status : (int)grpc_of_status(msg->status);
    struct str text = grpc_message(s, &p->reply_body);

    msg->status = 200;
    msg->body = BODY_NONE;
    buf_clear(&p->reply_body);
    add_status(s, &msg->headers, 200);
    if (!has_extra(&p->reply, STR("content-type")))
        add(&msg->headers, STR("content-type"), STR("application/grpc"));
    add(&msg->headers, STR("grpc-status"), arena_printf(&s->arena, "%d", status));
    if (text.n > 0)
        add(&msg->headers, STR("grpc-message"), text);
    add_common(s, &msg->headers);
}

/* Will the request not be read to its end? What is left of it is dropped only as far as the codec goes. */
static bool must_close(const struct stream *s)
{
    const struct message *msg = s->side[DIR_REQUEST].msg;

    if (s->priv->flow[DIR_REQUEST].end_in)
        return false;
    switch (s->priv->reply.reason) {
    case END_HEAD_TIMEOUT:
    case END_REQUEST_TIMEOUT:
    case END_IDLE_TIMEOUT:
    case END_BODY_TOO_LARGE: return true;
    default: break;
    }
    return msg == NULL ||
           (msg->body == BODY_LENGTH && msg->content_length - s->side[DIR_REQUEST].body_bytes > H1_REST_MAX);
}

static struct message *make_message(struct stream *s)
{
    const struct limits *l = stream_limits(s);
    const struct reply *r = &s->priv->reply;
    struct message *msg = arena_zalloc(&s->arena, sizeof *msg);
    bool odd = r->status < 200 || r->status > 599;

    headers_init(&msg->headers, &s->arena, 2 * l->head_bytes, 2 * l->headers + 16);
    msg->status = (uint16_t)(odd ? 503 : r->status);
    msg->version = 11;
    msg->keep_alive = true;
    msg->close = must_close(s);
    if (is_grpc(s))
        make_grpc(s, msg);
    else
        make_plain(s, msg);
    return msg;
}

/* ---- taking the response's place ---- */

static void stop_request(struct stream *s)
{
    struct stream_private *p = s->priv;
    struct flow *fl = &p->flow[DIR_REQUEST];

    stream_drop_up(s, true);
    p->request = REQUEST_DONE;
    fl->discard = true;
    buf_clear(&fl->out);
    for (size_t i = 0; i < s->filter_count; i++)
        if (s->filters[i].side[DIR_REQUEST].held != NULL)
            buf_clear(s->filters[i].side[DIR_REQUEST].held);
}

/* Filters beyond the replier, and those that never saw the request, do not see the reply. */
static void choose_filters(struct stream *s)
{
    struct stream_private *p = s->priv;

    for (size_t i = 0; i < s->filter_count; i++) {
        struct filter *f = &s->filters[i];
        struct filter_side *side = &f->side[DIR_RESPONSE];
        bool sees = !p->reply_direct && i <= p->reply_from && f->side[DIR_REQUEST].state != FILTER_FRESH;

        if (side->held != NULL)
            buf_clear(side->held);
        side->end_held = side->resume = false;
        if (!sees)
            side->state = FILTER_BYPASSED;
    }
}

static void restart_response(struct stream *s)
{
    struct stream_private *p = s->priv;
    struct flow *fl = &p->flow[DIR_RESPONSE];

    memset(fl, 0, offsetof(struct flow, out));
    buf_clear(&fl->out);
    fl->end_in = true;
    s->side[DIR_RESPONSE].trailers = NULL;
    p->response = RESPONSE_WAIT;
}

void reply_begin(struct stream *s)
{
    struct stream_private *p = s->priv;
    struct flow *fl = &p->flow[DIR_RESPONSE];

    p->reply_wanted = false;
    p->replied = true;
    s->reason = p->reply.reason;
    s->details = p->reply.details;
    stop_request(s);
    choose_filters(s);
    restart_response(s);
    s->side[DIR_RESPONSE].msg = make_message(s);
    fl->head_end = p->reply_body.n == 0 || is_head_request(s);
    chain_head(s, DIR_RESPONSE);
    if (!stream_is_stopped(s) && !fl->head_end)
        chain_data(s, DIR_RESPONSE, 0, &p->reply_body, true);
}
