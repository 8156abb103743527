/* SPDX-License-Identifier: Apache-2.0
 *
 * The writing half of the HTTP/1 codec: framing is decided here, from message.body and from what the peer can take,
 * whatever the header map says. None of these functions may make a leg event: what goes wrong (a head that must not be
 * written, a body of another length than declared) is remembered in h->pending, and nothing of the leg is written from
 * then on.
 */
#include "base/budget.h"
#include "http/h1_encode.h"
#include "http/h1_leg.h"

/* Body data below this is copied behind the head, so that one chunk, and one send, carries both. */
enum { COALESCE_MAX = 2048 };
enum { OUTPUT_NEAR = 32 * 1024 };

static struct h1 *h1_of(struct leg *leg) { return CONTAINER_OF(leg, struct h1, leg); }

static void remember_error(struct h1 *h, enum leg_error why)
{
    h->pending = why;
    h->keep_alive = false;
    h1_cut_output(h);
    h1_signal_output(h);
}

/* out was empty before; tell the owner when it is not now. While it is not empty the owner knows. */
static void signal_if_first(struct h1 *h, bool was_empty)
{
    if (was_empty && h->out->n > 0)
        h1_signal_output(h);
}

/* ---- heads ---- */

static void begin_output(struct h1 *h, enum message_body body, uint64_t length, bool end)
{
    h->out_body = body;
    h->out_left = length;
    h->out_state = end ? H1_END : H1_BODY;
}

/* What a guest wrote into :status counts when it is a final status; else the message's own. */
static unsigned final_status(const struct message *msg)
{
    uint64_t status;

    if (!str_to_u64(headers_value(&msg->headers, HDR_STATUS), 999, &status) || status < 200)
        status = msg->status;
    return (unsigned)status;
}

/* The one protocol that is being switched to, or an empty string when there is none that may pass. */
static struct str upgrade_protocol(const struct message *msg)
{
    struct str upgrade;

    if (!msg->upgrade || headers_count_id(&msg->headers, HDR_UPGRADE) != 1)
        return STR_NONE;
    upgrade = str_trim(headers_value(&msg->headers, HDR_UPGRADE));
    return h1_is_upgrade_protocol(upgrade) ? upgrade : STR_NONE;
}

static void send_switch(struct h1 *h, const struct message *msg)
{
    struct h1_head head = {.headers = &msg->headers,
                           .connection = H1_CONNECTION_UPGRADE,
                           .upgrade = upgrade_protocol(msg),
                           .status = 101,
                           .server_name = h->server_name,
                           .dropped = &h->dropped_headers};

    if (!h->upgrade || head.upgrade.n == 0) {
        remember_error(h, LEG_BAD_MESSAGE);
        return;
    }
    h1_encode_response(h->out, &head);
    h->in_state = h->out_state = H1_TUNNEL;
    h->in_body = h->out_body = BODY_TUNNEL;
    h->keep_alive = false;
    h1_signal_read_state(h);
}

/* How the body of a response goes out; bodiless statuses and HEAD swallow it (RFC 9110 6.4.1). */
static void frame_response(const struct h1 *h, const struct message *msg, bool end, struct h1_head *head,
                           enum message_body *body)
{
    bool is_head = str_is(h->method, "HEAD");

    *body = BODY_NONE;
    head->length = msg->body == BODY_LENGTH ? msg->content_length : 0;
    if (head->status == 204)
        head->framing = H1_FRAMING_NONE;
    else if (head->status == 304 || (is_head && msg->body != BODY_LENGTH))
        head->framing = H1_FRAMING_AS_IS;
    else if (is_head)
        head->framing = H1_FRAMING_LENGTH;
    else if (end)
        head->framing = H1_FRAMING_LENGTH, head->length = 0;
    else if (msg->body == BODY_LENGTH)
        head->framing = H1_FRAMING_LENGTH, *body = BODY_LENGTH;
    else if (h->peer_http10)
        head->framing = H1_FRAMING_NONE, *body = BODY_CLOSE;
    else
        head->framing = H1_FRAMING_CHUNKED, *body = BODY_CHUNKED;
}

/* A request that will not be read to its end, or whose body the client may never send, ends the connection. */
static bool must_close(const struct h1 *h, const struct message *msg, enum message_body body, bool end)
{
    bool unread_request = h->in_state != H1_END && !h->upgrade;

    return h->closing || msg->close || body == BODY_CLOSE || (unread_request && end && !h1_may_drop_rest(h)) ||
           (unread_request && h->peer_expects_continue && !h->interim_sent);
}

static void send_response(struct h1 *h, const struct message *msg, bool end)
{
    struct h1_head head = {.headers = &msg->headers, .server_name = h->server_name, .dropped = &h->dropped_headers};
    enum message_body body;

    head.status = final_status(msg);
    if (head.status == 101) {
        send_switch(h, msg);
        return;
    }
    if (head.status < 200 || msg->body == BODY_TUNNEL) {
        remember_error(h, LEG_BAD_MESSAGE);
        return;
    }
    frame_response(h, msg, end, &head, &body);
    if (must_close(h, msg, body, end))
        h->keep_alive = false;
    if (!h->keep_alive)
        head.connection = H1_CONNECTION_CLOSE;
    else if (h->peer_http10)
        head.connection = H1_CONNECTION_KEEP_ALIVE;
    h1_encode_response(h->out, &head);
    begin_output(h, body, head.length, end);
    if (h->upgrade && h->in_state == H1_BODY) /* refused: the request is complete */
        h->in_state = H1_END;
}

static bool method_has_body(struct str method)
{
    return str_is(method, "POST") || str_is(method, "PUT") || str_is(method, "PATCH");
}

static bool is_sendable(const struct h1_head *head)
{
    if (head->method.n > H1_METHOD_MAX || !h1_is_token(head->method) || str_is(head->method, "CONNECT"))
        return false;
    if (!h1_is_path(head->path) || (str_is(head->path, "*") && !str_is(head->method, "OPTIONS")))
        return false;
    return head->host.n == 0 || h1_is_authority(head->host);
}

static void send_request(struct h1 *h, const struct message *msg, bool end)
{
    struct h1_head head = {.headers = &msg->headers,
                           .length = msg->body == BODY_LENGTH && !end ? msg->content_length : 0,
                           .method = headers_value(&msg->headers, HDR_METHOD),
                           .path = headers_value(&msg->headers, HDR_PATH),
                           .host = headers_value(&msg->headers, HDR_AUTHORITY),
                           .upgrade = upgrade_protocol(msg),
                           .dropped = &h->dropped_headers};
    enum message_body body = BODY_NONE;

    if (!is_sendable(&head)) {
        remember_error(h, LEG_BAD_MESSAGE);
        return;
    }
    h->method = arena_str(h->arena, head.method);
    h->upgrade = head.upgrade.n > 0;
    if (msg->upgrade && !h->upgrade) /* a filter took the upgrade back: what is left is a request without a body */
        end = true;
    if (h->upgrade)
        head.connection = H1_CONNECTION_UPGRADE, body = BODY_TUNNEL, end = false;
    else if (end)
        head.framing = msg->body == BODY_LENGTH || method_has_body(head.method) ? H1_FRAMING_LENGTH : H1_FRAMING_NONE;
    else if (msg->body == BODY_LENGTH)
        head.framing = H1_FRAMING_LENGTH, body = BODY_LENGTH;
    else
        head.framing = H1_FRAMING_CHUNKED, body = BODY_CHUNKED;
    h1_encode_request(h->out, &head);
    begin_output(h, body, head.length, end);
}

static void send_head(struct leg *leg, const struct message *msg, bool end)
{
    struct h1 *h = h1_of(leg);
    bool was_empty = h->out->n == 0;

    ASSERT(leg->stream != NULL);
    if (h->pending != LEG_OK)
        return;
    ASSERT(h->out_state == H1_IDLE);
    if (h->role == H1_SERVER)
        send_response(h, msg, end);
    else
        send_request(h, msg, end);
    signal_if_first(h, was_empty);
}

static void send_interim(struct leg *leg, const struct message *msg)
{
    struct h1 *h = h1_of(leg);
    bool was_empty = h->out->n == 0;
    struct h1_head head = {.headers = &msg->headers, .status = final_status(msg), .dropped = &h->dropped_headers};

    ASSERT(h->role == H1_SERVER && leg->stream != NULL);
    if (h->pending != LEG_OK || h->out_state != H1_IDLE || h->peer_http10)
        return;
    if (head.status < 100 || head.status > 199 || head.status == 101)
        return;
    h->interim_sent = h->interim_sent || head.status == 100;
    h1_encode_response(h->out, &head);
    signal_if_first(h, was_empty);
}

/* ---- bodies ---- */

static void put_data(struct h1 *h, struct buf *data)
{
    while (data->n > 0 && data->n <= COALESCE_MAX) {
        struct str front = buf_front(data);
        buf_append(h->out, front);
        buf_consume(data, front.n);
    }
    buf_move(h->out, data, data->n);
}

static void put_chunk(struct h1 *h, struct buf *data)
{
    if (data->n == 0)
        return;
    h1_encode_chunk_size(h->out, data->n);
    put_data(h, data);
    buf_append(h->out, STR("\r\n"));
}

/* Would data break the length that the head declared? */
static bool breaks_length(const struct h1 *h, size_t n, bool end)
{
    return h->out_body == BODY_LENGTH && (n > h->out_left || (end && n < h->out_left));
}

static void put_body(struct h1 *h, struct buf *data, bool end)
{
    switch (h->out_body) {
    case BODY_CHUNKED:
        put_chunk(h, data);
        if (end)
            buf_append(h->out, STR("0\r\n\r\n"));
        break;
    case BODY_LENGTH:
        h->out_left -= data->n;
        put_data(h, data);
        break;
    case BODY_CLOSE:
    case BODY_TUNNEL: put_data(h, data); break;
    case BODY_NONE: break; /* the answer to a HEAD: not for the wire */
    }
    if (end)
        h->out_state = H1_END;
}

static void send_body(struct leg *leg, struct buf *data, bool end)
{
    struct h1 *h = h1_of(leg);
    bool was_empty = h->out->n == 0;
    bool waits = h->out_state == H1_BODY && h->out_body == BODY_TUNNEL; /* an upgrade not yet answered */

    ASSERT(leg->stream != NULL);
    if (h->pending == LEG_OK && (h->out_state == H1_BODY || h->out_state == H1_TUNNEL) && !(waits && data->n == 0)) {
        if (waits || breaks_length(h, data->n, end))
            remember_error(h, LEG_BAD_MESSAGE);
        else
            put_body(h, data, end);
    }
    buf_clear(data);
    if (end && h1_wants_shutdown(h))
        h1_signal_output(h); /* also when there are no bytes: the owner sends FIN */
    else
        signal_if_first(h, was_empty);
}

static void send_trailers(struct leg *leg, const struct headers *trailers)
{
    struct h1 *h = h1_of(leg);
    bool was_empty = h->out->n == 0;

    if (h->pending == LEG_OK && h->out_state == H1_BODY && h->out_body == BODY_CHUNKED) {
        h1_encode_last_chunk(h->out, trailers, &h->dropped_headers);
        h->out_state = H1_END;
        signal_if_first(h, was_empty);
    } else {
        struct buf none;
        buf_init(&none, h->out->pool);
        send_body(leg, &none, true);
        buf_fini(&none);
    }
}

/* ---- flow control, the end ---- */

static void read_enable(struct leg *leg, bool on)
{
    struct h1 *h = h1_of(leg);

    if (h->read_enabled == on)
        return;
    h->read_enabled = on;
    h1_signal_read_state(h);
}

/* Near the memory budget a slow peer is owed less; over it more comes only when all has gone. */
static size_t output_limit(const struct h1 *h)
{
    switch (budget_level()) {
    case BUDGET_FINE: return h->high_mark;
    case BUDGET_NEAR: return h->high_mark < OUTPUT_NEAR ? h->high_mark : OUTPUT_NEAR;
    case BUDGET_OVER: break;
    }
    return 0;
}

static bool is_full(const struct leg *leg)
{
    struct h1 *h = CONTAINER_OF(leg, struct h1, leg);

    if (h->out->n == 0 || h->out->n <= output_limit(h))
        return false;
    h->was_full = true;
    return true;
}

static void detach(struct leg *leg, bool abort)
{
    struct h1 *h = h1_of(leg);

    if (leg->stream == NULL)
        return;
    ASSERT(!h1_is_dropping(h)); /* who has detached does not do so again */
    leg->stream = NULL;
    h->pending = LEG_OK;
    if (abort)
        h->keep_alive = false;
    if (h->out_state == H1_TUNNEL && !abort)
        h->out_state = H1_END;
    h1_cut_output(h);
    h1_end_exchange(h);
}

const struct leg_codec h1_codec = {.send_head = send_head,
                                   .send_interim = send_interim,
                                   .send_body = send_body,
                                   .send_trailers = send_trailers,
                                   .read_enable = read_enable,
                                   .is_full = is_full,
                                   .detach = detach};

void h1_send_error(struct h1 *h, unsigned status, struct str body)
{
    struct headers none;

    headers_init(&none, NULL, 0, 0);
    h1_send_error_with(h, status, &none, body);
}

void h1_send_error_with(struct h1 *h, unsigned status, const struct headers *fields, struct str body)
{
    bool was_empty = h->out->n == 0;
    struct h1_head head = {.headers = fields,
                           .framing = H1_FRAMING_LENGTH,
                           .length = body.n,
                           .connection = H1_CONNECTION_CLOSE,
                           .status = status,
                           .server_name = h->server_name,
                           .dropped = &h->dropped_headers};

    ASSERT(h->role == H1_SERVER);
    h->leg.stream = NULL;
    h->pending = LEG_OK;
    h->in_state = H1_BROKEN;
    h->keep_alive = false;
    h1_cut_output(h);
    if (h->out_state != H1_IDLE)
        return;
    head.content_type = body.n > 0 ? "text/plain" : NULL;
    h1_encode_response(h->out, &head);
    if (!str_is(h->method, "HEAD"))
        buf_append(h->out, body);
    h->out_state = H1_END;
    signal_if_first(h, was_empty);
}
