/* SPDX-License-Identifier: Apache-2.0
 *
 * The reading half of the HTTP/1 codec and the life of an exchange. h1_input is a loop over small steps; a step changes
 * the state first and makes its one event last, because inside the event the stream may answer, detach, or (client)
 * even begin the next exchange. After it the loop looks at struct h1 anew. A step returns whether the loop may go on.
 */
#include "http/h1_leg.h"

enum {
    MAX_INTERIMS = 16,           /* 1xx heads before a response; each takes arena memory */
    BODY_BATCH_MAX = 256 * 1024, /* chunked data handed over in one event */
    BEGUN_MAX = 8,               /* requests begun in one h1_input: the memory of their streams is freed after it */
};

/* ---- life ---- */

static void reset_exchange(struct h1 *h)
{
    h->in_state = h->out_state = H1_IDLE;
    h->in_body = h->out_body = BODY_NONE;
    h->in_left = h->out_left = h->in_bytes = 0;
    h->arena = NULL;
    h->msg = NULL;
    h->trailers = NULL;
    h->method = STR_NONE;
    h->scan_from = 0;
    h->pending = LEG_OK;
    h->interims = 0;
    h->keep_alive = h->read_enabled = true;
    h->stalled = h->was_full = h->peer_http10 = h->peer_expects_continue = h->interim_sent = h->upgrade = h->begun =
        false;
}

void h1_init(struct h1 *h, enum h1_role role, const struct h1_limits *limits, struct buf *out, size_t high_mark,
             const struct h1_ops *ops)
{
    memset(h, 0, sizeof *h);
    h->leg.codec = &h1_codec;
    h->ops = ops;
    h->limits = limits;
    h->role = role;
    h->out = out;
    h->high_mark = high_mark;
    reset_exchange(h);
}

bool h1_is_idle(const struct h1 *h)
{
    return h->leg.stream == NULL && h->in_state == H1_IDLE && h->out_state == H1_IDLE;
}

static size_t unread(const struct h1 *h) { return h->in != NULL ? h->in->n : h->unread; }

void h1_cut_output(struct h1 *h)
{
    if (h->out_state != H1_IDLE && h->out_state != H1_END)
        h->out_state = H1_BROKEN;
}

/* A server may have the next request waiting behind a FIN; what a client has left over was never asked for. */
static bool is_reusable(const struct h1 *h)
{
    if (!h->keep_alive || h->in_state != H1_END || h->out_state != H1_END)
        return false;
    if (h->role == H1_CLIENT)
        return !h->eof && unread(h) == 0;
    return !h->eof || unread(h) > 0; /* closing: the head has said so, or the next one will */
}

static void end_exchange(struct h1 *h)
{
    bool reusable = is_reusable(h);

    if (reusable)
        reset_exchange(h);
    else
        h->in_state = H1_BROKEN;
    h->ops->on_exchange_end(h, reusable);
}

/* ---- the rest of a request that has been answered: a stream of our own drops it ---- */

static void rest_done(struct h1 *h)
{
    h->leg.stream = NULL;
    arena_fini(&h->rest_arena);
}

static void rest_on_body(void *stream, struct buf *data, bool end)
{
    struct h1 *h = stream;

    (void)data;
    if (!end && h->in_bytes <= H1_REST_MAX)
        return;
    rest_done(h);
    end_exchange(h);
}

static void rest_on_trailers(void *stream, struct headers *trailers)
{
    struct h1 *h = stream;

    (void)trailers;
    rest_done(h);
    end_exchange(h);
}

static void rest_on_reset(void *stream, enum leg_error why)
{
    (void)why;
    rest_done(stream);
}

static const struct leg_ops rest_ops = {
    .on_body = rest_on_body, .on_trailers = rest_on_trailers, .on_reset = rest_on_reset};

bool h1_is_dropping(const struct h1 *h) { return h->leg.stream != NULL && h->leg.ops == &rest_ops; }

bool h1_may_drop_rest(const struct h1 *h)
{
    return h->in_state == H1_BODY && (h->in_body == BODY_CHUNKED || h->in_left <= H1_REST_MAX);
}

static void begin_dropping(struct h1 *h)
{
    h->leg.ops = &rest_ops;
    h->leg.stream = h;
    arena_init(&h->rest_arena, h->out->pool, h->limits->trailer_bytes + CHUNK_SIZE);
    h->arena = &h->rest_arena;
    h->trailers = NULL;
    h->msg = NULL;
    h->method = STR_NONE;
    h->in_bytes = 0;
    h->read_enabled = true;
    h->was_full = false;
    h1_signal_read_state(h);
}

void h1_end_exchange(struct h1 *h)
{
    if (h->role == H1_SERVER && h->out_state == H1_END && h->keep_alive && !h->eof && h1_may_drop_rest(h) &&
        h->in_body != BODY_TUNNEL)
        begin_dropping(h);
    else
        end_exchange(h);
}

/* ---- failing ---- */

static void reset_leg(struct h1 *h, enum leg_error why)
{
    void *stream = h->leg.stream;

    h->in_state = H1_BROKEN;
    h->pending = LEG_OK;
    h->keep_alive = false;
    h1_cut_output(h);
    h->leg.stream = NULL;
    h->leg.ops->on_reset(stream, why);
}

/* The peer broke off, or a client's peer broke the protocol: nothing more can be said. */
static void abandon(struct h1 *h, enum leg_error why)
{
    reset_leg(h, why);
    h->ops->on_exchange_end(h, false);
}

/* A message that must not go on. While nothing has been answered, a server answers. */
static void refuse(struct h1 *h, enum leg_error error, unsigned status, const char *why)
{
    bool can_answer = h->role == H1_SERVER && h->out_state == H1_IDLE;

    h->in_state = H1_BROKEN;
    h->keep_alive = false;
    if (!can_answer) {
        abandon(h, error);
        return;
    }
    h->bad_status = status;
    h->ops->on_bad_request(h, error, why);
}

static void refuse_parse(struct h1 *h, enum parse r, const char *why)
{
    switch (r) {
    case PARSE_HEAD_TOO_LARGE: refuse(h, LEG_HEAD_TOO_LARGE, 431, why); break;
    case PARSE_URI_TOO_LONG: refuse(h, LEG_URI_TOO_LONG, 414, why); break;
    case PARSE_BAD_VERSION: refuse(h, LEG_UNSUPPORTED, 505, why); break;
    case PARSE_UNSUPPORTED: refuse(h, LEG_UNSUPPORTED, 501, why); break;
    default: refuse(h, LEG_BAD_MESSAGE, 400, why);
    }
}

void h1_fail(struct h1 *h, enum leg_error why)
{
    if (h->leg.stream != NULL)
        reset_leg(h, why);
    h->in_state = H1_BROKEN;
    h->keep_alive = false;
    h1_cut_output(h);
}

void h1_begin_request(struct h1 *h, struct arena *arena, const struct leg_ops *ops, void *stream)
{
    ASSERT(h->role == H1_CLIENT && h1_is_idle(h));
    reset_exchange(h);
    h->arena = arena;
    h->leg.ops = ops;
    h->leg.stream = stream;
}

/* ---- heads ---- */

/* The bytes of the input in one piece, as many as a head can have. Beyond a chunk they are copied to *scratch. */
static struct str view_head(const struct h1 *h, char **scratch)
{
    struct str front = buf_front(h->in);
    size_t n = h->in->n < h->limits->head_bytes ? h->in->n : h->limits->head_bytes;

    *scratch = NULL;
    if (front.n >= n)
        return front;
    if (n <= CHUNK_SIZE)
        return buf_pullup(h->in, n);
    *scratch = mem_alloc(n);
    buf_copy_out(h->in, 0, n, *scratch);
    return str_span(*scratch, n);
}

static enum parse parse_head(struct h1 *h, size_t *used, const char **why)
{
    char *scratch;
    struct str view = view_head(h, &scratch);
    enum parse r;

    if (h->role == H1_SERVER)
        r = h1_parse_request(view, h->limits, &h->scan_from, h->arena, h->msg, used, why);
    else
        r = h1_parse_response(view, h->limits, &h->scan_from, h->method, h->arena, h->msg, used, why);
    mem_free(scratch);
    return r;
}

static void begin_head(struct h1 *h)
{
    h->in_state = H1_HEAD;
    h->begun = true;
    h->scan_from = 0;
    h->msg = arena_alloc(h->arena, sizeof *h->msg);
}

/* An empty line alone is not yet a request: no stream is made for it. */
static bool is_stray_line(const struct buf *in)
{
    char c[2];

    if (in->n > 2)
        return false;
    buf_copy_out(in, 0, in->n, c);
    return c[0] == '\r' && (in->n == 1 || c[1] == '\n');
}

static bool step_begin(struct h1 *h)
{
    if (h->in->n == 0)
        return false;
    if (h->role == H1_CLIENT) {
        if (h->leg.stream == NULL) /* nobody asked */
            h->in_state = H1_BROKEN;
        else if (h->out_state == H1_IDLE) /* an answer before the question */
            abandon(h, LEG_BAD_MESSAGE);
        else
            begin_head(h);
        return true;
    }
    if (is_stray_line(h->in))
        return false;
    bool full = h->out->n > h->high_mark, enough = h->begun_now == BEGUN_MAX;
    h->stalled = full || enough;
    if (enough && !full)
        h1_signal_read_state(h);
    if (h->stalled)
        return false;
    h->begun_now++;
    reset_exchange(h);
    h->in_state = H1_HEAD;
    h->arena = h->ops->on_begin(h);
    if (h->arena == NULL) {
        h->in_state = H1_BROKEN;
        h->keep_alive = false;
        return true;
    }
    ASSERT(h->leg.stream != NULL && h->leg.ops != NULL);
    begin_head(h);
    return true;
}

/* Sets up reading of the body that msg announces; true when the message ends here. */
static bool begin_body(struct h1 *h, const struct message *msg)
{
    bool end = msg->body == BODY_NONE || (msg->body == BODY_LENGTH && msg->content_length == 0);

    h->in_body = msg->body;
    h->in_left = msg->body == BODY_LENGTH ? msg->content_length : 0;
    h->in_bytes = 0;
    h1_chunked_init(&h->chunked);
    h->in_state = end ? H1_END : H1_BODY;
    return end;
}

static bool is_over_limit(const struct h1 *h, uint64_t bytes) { return h->max_body > 0 && bytes > h->max_body; }

static void take_request(struct h1 *h, struct message *msg)
{
    bool end;

    h->method = headers_value(&msg->headers, HDR_METHOD);
    h->keep_alive = msg->keep_alive;
    h->peer_http10 = msg->version == 10;
    if (msg->body == BODY_LENGTH && is_over_limit(h, msg->content_length)) {
        refuse(h, LEG_BODY_TOO_LARGE, 413, "body too large");
        return;
    }
    end = begin_body(h, msg);
    h->peer_expects_continue = msg->expect_continue;
    h->upgrade = msg->upgrade;
    if (msg->upgrade) { /* wait for the answer: a tunnel, or nothing */
        h->in_body = BODY_TUNNEL;
        h->in_state = H1_BODY;
        end = false;
    }
    h->leg.ops->on_head(h->leg.stream, msg, end);
}

static void take_interim(struct h1 *h, struct message *msg)
{
    if (++h->interims > MAX_INTERIMS) {
        abandon(h, LEG_BAD_MESSAGE);
        return;
    }
    begin_head(h);
    h->leg.ops->on_interim(h->leg.stream, msg);
}

static void take_switch(struct h1 *h, struct message *msg)
{
    if (!h->upgrade || !msg->upgrade) {
        abandon(h, LEG_BAD_MESSAGE);
        return;
    }
    h->in_state = h->out_state = H1_TUNNEL;
    h->in_body = h->out_body = BODY_TUNNEL;
    h->keep_alive = false;
    h->leg.ops->on_head(h->leg.stream, msg, false);
}

static void take_response(struct h1 *h, struct message *msg)
{
    bool end;

    if (msg->status == 101) {
        take_switch(h, msg);
        return;
    }
    if (msg->status < 200) {
        take_interim(h, msg);
        return;
    }
    if (msg->body == BODY_LENGTH && is_over_limit(h, msg->content_length)) {
        abandon(h, LEG_BODY_TOO_LARGE);
        return;
    }
    if (h->upgrade && h->out_state == H1_BODY) /* refused: the request is complete */
        h->out_state = H1_END;
    h->keep_alive = h->keep_alive && msg->keep_alive;
    end = begin_body(h, msg);
    h->leg.ops->on_head(h->leg.stream, msg, end);
}

static bool step_head(struct h1 *h)
{
    const char *why = NULL;
    size_t used = 0;
    enum parse r;

    if (h->in->n == 0)
        return false;
    r = parse_head(h, &used, &why);
    if (r == PARSE_MORE)
        return false;
    if (r != PARSE_DONE) {
        refuse_parse(h, r, why);
        return true;
    }
    buf_consume(h->in, used);
    if (h->role == H1_SERVER)
        take_request(h, h->msg);
    else
        take_response(h, h->msg);
    return true;
}

/* ---- bodies ---- */

/* Hands the first n bytes of the input to the stream; the state already says what comes after them. */
static void give_body(struct h1 *h, size_t n, bool end)
{
    struct buf data;

    buf_init(&data, h->in->pool);
    buf_move(&data, h->in, n);
    h->leg.ops->on_body(h->leg.stream, &data, end);
    buf_fini(&data);
}

static bool step_length(struct h1 *h)
{
    size_t n = h->in->n < h->in_left ? h->in->n : (size_t)h->in_left;

    if (n == 0)
        return false;
    h->in_left -= n;
    h->in_bytes += n;
    if (h->in_left == 0)
        h->in_state = H1_END;
    give_body(h, n, h->in_left == 0);
    return true;
}

static bool step_until_close(struct h1 *h)
{
    size_t n = h->in->n;

    if (n == 0)
        return false;
    h->in_bytes += n;
    if (h->in_body == BODY_CLOSE && is_over_limit(h, h->in_bytes))
        refuse(h, LEG_BODY_TOO_LARGE, 413, "body too large");
    else
        give_body(h, n, false);
    return true;
}

/* One piece of framing at the front of the input, made contiguous where it lies in several slices. */
static enum parse next_chunk(struct h1 *h, size_t *data, const char **why)
{
    struct str front = buf_front(h->in);
    size_t skip;
    enum parse r = h1_chunked_next(&h->chunked, front, h->limits, h->arena, h->trailers, &skip, data, why);

    if (r == PARSE_MORE && front.n < h->in->n) {
        size_t most = h->limits->trailer_bytes + h->limits->chunk_ext_bytes + 64, n = h->in->n < most ? h->in->n : most;
        char *copy = NULL;

        if (n <= CHUNK_SIZE) {
            front = buf_pullup(h->in, n);
        } else {
            copy = mem_alloc(n);
            buf_copy_out(h->in, 0, n, copy);
            front = str_span(copy, n);
        }
        r = h1_chunked_next(&h->chunked, front, h->limits, h->arena, h->trailers, &skip, data, why);
        mem_free(copy);
    }
    if (r == PARSE_DONE)
        buf_consume(h->in, skip);
    return r;
}

/* Moves the data of as many chunks as are there to data. */
static enum parse collect_chunks(struct h1 *h, struct buf *data, const char **why)
{
    enum parse r = PARSE_MORE;
    size_t n;

    while (h->chunked.state != H1_CHUNK_DONE && h->in->n > 0 && data->n < BODY_BATCH_MAX) {
        r = next_chunk(h, &n, why);
        if (r != PARSE_DONE)
            return r;
        buf_move(data, h->in, n);
        h->in_bytes += n;
    }
    return r;
}

static void end_chunked(struct h1 *h, struct buf *data)
{
    h->in_state = H1_END;
    if (h->trailers->count > 0)
        h->leg.ops->on_trailers(h->leg.stream, h->trailers);
    else
        h->leg.ops->on_body(h->leg.stream, data, true);
}

static bool step_chunked(struct h1 *h)
{
    const char *why = NULL;
    struct buf data;
    enum parse r;
    bool progress = true;

    if (h->trailers == NULL)
        h->trailers = arena_zalloc(h->arena, sizeof *h->trailers);
    buf_init(&data, h->in->pool);
    r = collect_chunks(h, &data, &why);
    if (r != PARSE_DONE && r != PARSE_MORE && data.n == 0) /* what came before the error is given first */
        refuse_parse(h, r, why);
    else if (is_over_limit(h, h->in_bytes))
        refuse(h, LEG_BODY_TOO_LARGE, 413, "body too large");
    else if (h->chunked.state == H1_CHUNK_DONE && (data.n == 0 || h->trailers->count == 0))
        end_chunked(h, &data);
    else if (data.n > 0)
        h->leg.ops->on_body(h->leg.stream, &data, false);
    else
        progress = r == PARSE_DONE && h->in->n > 0;
    buf_fini(&data);
    return progress;
}

static bool step_body(struct h1 *h)
{
    if (!h->read_enabled)
        return false;
    switch (h->in_body) {
    case BODY_LENGTH: return step_length(h);
    case BODY_CHUNKED: return step_chunked(h);
    case BODY_CLOSE: return step_until_close(h);
    case BODY_NONE:
    case BODY_TUNNEL: return false; /* an upgrade that has not been answered */
    }
    return false;
}

/* ---- the end of the input ---- */

static void end_with_body_event(struct h1 *h)
{
    struct buf none;

    h->in_state = H1_END;
    buf_init(&none, h->out->pool);
    h->leg.ops->on_body(h->leg.stream, &none, true);
    buf_fini(&none);
}

static void settle_body_eof(struct h1 *h, size_t left)
{
    struct buf none;

    if (left > 0 && !h->read_enabled)
        return;
    switch (h->in_body) {
    case BODY_CLOSE: end_with_body_event(h); return;
    case BODY_TUNNEL:
    case BODY_NONE: return; /* an upgrade that has not been answered; the tunnel will end at once */
    case BODY_CHUNKED:
        if (h->chunked.state == H1_CHUNK_DONE) { /* held back by read_enable */
            buf_init(&none, h->out->pool);
            end_chunked(h, &none);
            buf_fini(&none);
            return;
        }
        break;
    case BODY_LENGTH: break;
    }
    abandon(h, LEG_CLOSED);
}

/* FIN came and h1_input has nothing more to do but for `left` bytes it must leave. */
static void settle_eof(struct h1 *h, size_t left)
{
    switch (h->in_state) {
    case H1_IDLE:
    case H1_HEAD:
        if (h->leg.stream != NULL)
            abandon(h, LEG_CLOSED);
        break;
    case H1_BODY: settle_body_eof(h, left); break;
    case H1_TUNNEL:
        if (left == 0)
            end_with_body_event(h);
        break;
    case H1_END:
    case H1_BROKEN: break;
    }
}

void h1_eof(struct h1 *h)
{
    h->eof = true;
    if (h->in == NULL)
        settle_eof(h, h->unread);
}

/* ---- the loop ---- */

static bool step(struct h1 *h)
{
    switch (h->in_state) {
    case H1_IDLE: return step_begin(h);
    case H1_HEAD: return step_head(h);
    case H1_BODY: return step_body(h);
    case H1_TUNNEL: return h->read_enabled && step_until_close(h);
    case H1_END:
        if (h->role == H1_CLIENT && h->in->n > 0) { /* more than the response: nothing may follow on this connection */
            h->keep_alive = false;
            buf_clear(h->in);
        }
        return false;
    case H1_BROKEN: buf_clear(h->in); return false;
    }
    return false;
}

static void deliver_pending(struct h1 *h)
{
    enum leg_error why = h->pending;

    h->pending = LEG_OK;
    if (why == LEG_OK || h->leg.stream == NULL)
        return;
    if (h->role == H1_SERVER && h->out_state == H1_IDLE) /* it has had its say */
        reset_leg(h, why);
    refuse(h, why, 502, "the response cannot be sent");
}

bool h1_input(struct h1 *h, struct buf *in)
{
    if (h->in != NULL)
        return true; /* fed from inside an event: the loop below us goes on by itself */
    ASSERT(!h->in_signal);
    h->in = in;
    h->begun_now = 0;
    do
        deliver_pending(h);
    while (step(h));
    if (h->eof)
        settle_eof(h, in->n);
    h->unread = in->n;
    h->in = NULL;
    return h->in_state != H1_BROKEN;
}

bool h1_wants_input(const struct h1 *h)
{
    size_t bound = h->limits->pipeline_bytes > 0 ? h->limits->pipeline_bytes : h->limits->head_bytes;

    switch (h->in_state) {
    case H1_IDLE: return !h->stalled;
    case H1_HEAD: return true;
    case H1_BODY: return h->in_body == BODY_TUNNEL ? h->unread < bound : h->read_enabled;
    case H1_TUNNEL: return h->read_enabled;
    case H1_END: return h->unread < bound;
    case H1_BROKEN: return false;
    }
    return false;
}

/* ---- what the owner tells and hears ---- */

void h1_signal_output(struct h1 *h)
{
    bool before = h->in_signal;

    h->in_signal = true;
    h->ops->on_output(h);
    h->in_signal = before;
}

void h1_signal_read_state(struct h1 *h)
{
    bool before = h->in_signal;

    h->in_signal = true;
    h->ops->on_read_state(h);
    h->in_signal = before;
}

void h1_output_drained(struct h1 *h)
{
    ASSERT(!h->in_signal);
    deliver_pending(h);
    if (h->was_full && h->leg.stream != NULL && h->out->n <= h->high_mark / 2) {
        h->was_full = false;
        h->leg.ops->on_drain(h->leg.stream);
    }
    if (h->stalled && h->out->n <= h->high_mark / 2) {
        h->stalled = false;
        h1_signal_read_state(h);
    }
}

bool h1_wants_shutdown(const struct h1 *h) { return h->out_state == H1_END && h->out_body == BODY_TUNNEL; }
