/* SPDX-License-Identifier: Apache-2.0
 *
 * The harness of the codec's tests: an owner and a stream that writes down what happens to it, for both roles. Its log
 * is one line of words, body bytes joined, so that feeding whole, in pieces and byte by byte must give the same text.
 */
#ifndef WEIR_TEST_H1_RIG_H
#define WEIR_TEST_H1_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "http/h1.h"

static const struct h1_limits limits = {
    .head_bytes = 60 * 1024, .uri_bytes = 1024, .headers = 50, .trailer_bytes = 1024, .chunk_ext_bytes = 64};
static struct chunk_pool *pool;

static inline int setup(void **state)
{
    (void)state;
    pool = chunk_pool_new(8);
    return 0;
}

static inline int teardown(void **state)
{
    (void)state;
    chunk_pool_free(pool);
    return 0;
}

struct rig {
    struct h1 h;
    struct buf in, out;
    struct arena arena;
    bool arena_live, in_body_word;
    struct strbuf log, wire;
    unsigned outputs, read_states;
    /* what the stream does by itself */
    bool answers;       /* 200 "ok" once the request is complete, then detaches */
    bool refuses_begin; /* on_begin answers 503 */
    bool answers_bad;   /* a bad head is answered through the leg */
    bool stops_at_head; /* read_enable(false) in on_head */
    void (*on_head)(struct rig *r, struct message *m);
    bool detaches_at_end; /* when the message is complete */
    void (*on_end)(struct rig *r);
};

static inline void note(struct rig *r, const char *fmt, ...) PRINTF_LIKE(2, 3);
static inline void note(struct rig *r, const char *fmt, ...)
{
    va_list args;
    char text[256];

    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (r->log.n > 0)
        strbuf_addc(&r->log, ' ');
    strbuf_addz(&r->log, text);
    r->in_body_word = false;
}

static inline void live(struct rig *r)
{
    if (r->arena_live)
        arena_fini(&r->arena);
    arena_init(&r->arena, pool, 1 << 20);
    r->arena_live = true;
}

/* ---- messages to send ---- */

static inline struct message *message(struct rig *r, enum message_body body, uint64_t length)
{
    struct message *m = arena_zalloc(&r->arena, sizeof *m);

    headers_init(&m->headers, &r->arena, 1 << 16, 100);
    m->body = body;
    m->content_length = length;
    m->version = 11;
    return m;
}

static inline void add(struct message *m, const char *name, const char *value)
{
    headers_add_borrowed(&m->headers, str_of(name), str_of(value), header_id_of(str_of(name)));
}

static inline struct message *response(struct rig *r, unsigned status, enum message_body body, uint64_t length)
{
    struct message *m = message(r, body, length);

    m->status = (uint16_t)status;
    headers_add_borrowed(&m->headers, STR(":status"), arena_printf(&r->arena, "%u", status), HDR_STATUS);
    return m;
}

static inline struct message *request(struct rig *r, const char *method, const char *path, enum message_body body,
                                      uint64_t length)
{
    struct message *m = message(r, body, length);

    add(m, ":method", method);
    add(m, ":scheme", "http");
    add(m, ":authority", "a");
    add(m, ":path", path);
    return m;
}

static inline void send_head(struct rig *r, struct message *m, bool end)
{
    r->h.leg.codec->send_head(&r->h.leg, m, end);
}

static inline void send_text(struct rig *r, const char *text, bool end)
{
    struct buf data;

    buf_init(&data, pool);
    buf_append(&data, str_of(text));
    r->h.leg.codec->send_body(&r->h.leg, &data, end);
    assert_int_equal(data.n, 0);
    buf_fini(&data);
}

static inline void detach(struct rig *r, bool abort) { r->h.leg.codec->detach(&r->h.leg, abort); }

static inline void answer_ok(struct rig *r)
{
    send_head(r, response(r, 200, BODY_LENGTH, 2), false);
    send_text(r, "ok", true);
    detach(r, false);
}

/* ---- the stream ---- */

static inline void message_ended(struct rig *r)
{
    if (r->on_end != NULL)
        r->on_end(r);
    if (r->answers)
        answer_ok(r);
    else if (r->detaches_at_end)
        detach(r, false);
}

static inline void on_head(void *stream, struct message *m, bool end)
{
    struct rig *r = stream;

    if (m->status != 0)
        note(r, "head(%u%s)", m->status, end ? " end" : "");
    else
        note(r, "head(%.*s %.*s%s%s)", STR_ARG(headers_value(&m->headers, HDR_METHOD)),
             STR_ARG(headers_value(&m->headers, HDR_PATH)), m->upgrade ? " upgrade" : "", end ? " end" : "");
    if (r->stops_at_head)
        r->h.leg.codec->read_enable(&r->h.leg, false);
    if (r->on_head != NULL)
        r->on_head(r, m);
    if (end)
        message_ended(r);
}

static inline void on_interim(void *stream, struct message *m) { note(stream, "interim(%u)", m->status); }

static inline void on_body(void *stream, struct buf *data, bool end)
{
    struct rig *r = stream;

    if (data->n > 0 && !r->in_body_word) {
        note(r, "body=");
        r->in_body_word = true;
    }
    while (data->n > 0) {
        struct str front = buf_front(data);
        strbuf_add(&r->log, front);
        buf_consume(data, front.n);
    }
    if (end) {
        note(r, "end");
        message_ended(r);
    }
}

static inline void on_trailers(void *stream, struct headers *t)
{
    struct rig *r = stream;

    note(r, "trailers(");
    for (uint32_t i = 0; i < t->count; i++)
        strbuf_printf(&r->log, "%.*s=%.*s;", STR_ARG(t->list[i].name), STR_ARG(t->list[i].value));
    strbuf_addc(&r->log, ')');
    message_ended(r);
}

static inline void on_reset(void *stream, enum leg_error why)
{
    struct rig *r = stream;

    assert_null(r->h.leg.stream);
    note(r, "reset(%d%s)", (int)why, r->h.begun ? "" : " nothing");
}

static inline void on_drain(void *stream) { note(stream, "drain"); }

static const struct leg_ops stream_ops = {.on_head = on_head,
                                          .on_interim = on_interim,
                                          .on_body = on_body,
                                          .on_trailers = on_trailers,
                                          .on_reset = on_reset,
                                          .on_drain = on_drain};

/* ---- the owner ---- */

static inline struct rig *rig_of(struct h1 *h) { return CONTAINER_OF(h, struct rig, h); }

static inline struct arena *own_begin(struct h1 *h)
{
    struct rig *r = rig_of(h);

    if (r->refuses_begin) {
        h1_send_error(h, 503, STR("no"));
        return NULL;
    }
    live(r);
    h->leg.ops = &stream_ops;
    h->leg.stream = r;
    return &r->arena;
}

static inline void own_bad_request(struct h1 *h, enum leg_error error, const char *why)
{
    struct rig *r = rig_of(h);

    assert_non_null(why);
    note(r, "bad(%d %u%s)", (int)error, h->bad_status, h->leg.stream != NULL ? "" : " detached");
    if (r->answers_bad && h->leg.stream != NULL) {
        send_head(r, response(r, h->bad_status, BODY_LENGTH, 3), false);
        send_text(r, "bad", true);
        detach(r, false);
    } else {
        h1_send_error(h, h->bad_status, STR("bad"));
    }
}

static inline void own_output(struct h1 *h) { rig_of(h)->outputs++; }
static inline void own_read_state(struct h1 *h) { rig_of(h)->read_states++; }

static inline void own_exchange_end(struct h1 *h, bool reusable)
{
    struct rig *r = rig_of(h);

    assert_null(h->leg.stream);
    assert_true(reusable == h1_is_idle(h) || !reusable);
    note(r, reusable ? "reuse" : h->out_state == H1_BROKEN ? "cut" : "close");
    if (h->in != NULL)
        assert_true(h1_input(h, h->in)); /* from inside: does nothing */
}

static const struct h1_ops owner_ops = {.on_begin = own_begin,
                                        .on_bad_request = own_bad_request,
                                        .on_output = own_output,
                                        .on_read_state = own_read_state,
                                        .on_exchange_end = own_exchange_end};

static inline void open_rig(struct rig *r, enum h1_role role)
{
    memset(r, 0, sizeof *r);
    buf_init(&r->in, pool);
    buf_init(&r->out, pool);
    h1_init(&r->h, role, &limits, &r->out, 1000, &owner_ops);
}

static inline void close_rig(struct rig *r)
{
    buf_fini(&r->in);
    buf_fini(&r->out);
    if (r->arena_live)
        arena_fini(&r->arena);
    strbuf_free(&r->log);
    strbuf_free(&r->wire);
}

static inline void open_client(struct rig *r)
{
    open_rig(r, H1_CLIENT);
    live(r);
    h1_begin_request(&r->h, &r->arena, &stream_ops, r);
}

/* Feeds text in pieces of step bytes (0: whole), and goes on as an owner does. */
static inline bool feed_n(struct rig *r, struct str text, size_t step)
{
    bool more = true;

    while (text.n > 0) {
        size_t n = step == 0 || step > text.n ? text.n : step;
        buf_append(&r->in, str_upto(text, n));
        text = str_from(text, n);
        more = h1_input(&r->h, &r->in);
    }
    return more;
}

static inline bool feed(struct rig *r, const char *text) { return feed_n(r, str_of(text), 0); }

/* What was written since the last call. */
static inline struct str sent(struct rig *r)
{
    strbuf_clear(&r->wire);
    while (r->out.n > 0) {
        struct str front = buf_front(&r->out);
        strbuf_add(&r->wire, front);
        buf_consume(&r->out, front.n);
    }
    return strbuf_str(&r->wire);
}

static inline void expect_str(struct str got, const char *want)
{
    if (!str_is(got, want))
        print_message(" got: %.*s\nwant: %s\n", STR_ARG(got), want != NULL ? want : "(nothing)");
    assert_true(str_is(got, want));
}

static inline void expect_log(struct rig *r, const char *want)
{
    expect_str(strbuf_str(&r->log), want);
    strbuf_clear(&r->log);
    r->in_body_word = false;
}

#define OK200       "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
#define OK200_CLOSE "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"
#define ERROR(status, text, body)                                                                                      \
    "HTTP/1.1 " status " " text "\r\ncontent-type: text/plain\r\ncontent-length: 3\r\nconnection: close\r\n\r\n" body

/* What is fed, and the log and the wire that must come of it. */
struct dialogue {
    const char *in, *log, *wire;
};

#endif
