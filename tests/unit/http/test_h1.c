/* SPDX-License-Identifier: Apache-2.0
 *
 * The HTTP/1 codec with a stream that writes down what happens to it. One harness serves both roles; its log is one
 * line of words, body bytes joined, so that feeding whole, in pieces and byte by byte must give the same text.
 */
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

static int setup(void **state)
{
    (void)state;
    pool = chunk_pool_new(8);
    return 0;
}

static int teardown(void **state)
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

static void note(struct rig *r, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void note(struct rig *r, const char *fmt, ...)
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

static void live(struct rig *r)
{
    if (r->arena_live)
        arena_fini(&r->arena);
    arena_init(&r->arena, pool, 1 << 20);
    r->arena_live = true;
}

/* ---- messages to send ---- */

static struct message *message(struct rig *r, enum message_body body, uint64_t length)
{
    struct message *m = arena_zalloc(&r->arena, sizeof *m);

    headers_init(&m->headers, &r->arena, 1 << 16, 100);
    m->body = body;
    m->content_length = length;
    m->version = 11;
    return m;
}

static void add(struct message *m, const char *name, const char *value)
{
    headers_add_borrowed(&m->headers, str_of(name), str_of(value), header_id_of(str_of(name)));
}

static struct message *response(struct rig *r, unsigned status, enum message_body body, uint64_t length)
{
    struct message *m = message(r, body, length);

    m->status = (uint16_t)status;
    headers_add_borrowed(&m->headers, STR(":status"), arena_printf(&r->arena, "%u", status), HDR_STATUS);
    return m;
}

static struct message *request(struct rig *r, const char *method, const char *path, enum message_body body,
                               uint64_t length)
{
    struct message *m = message(r, body, length);

    add(m, ":method", method);
    add(m, ":scheme", "http");
    add(m, ":authority", "a");
    add(m, ":path", path);
    return m;
}

static void send_head(struct rig *r, struct message *m, bool end) { r->h.leg.codec->send_head(&r->h.leg, m, end); }

static void send_text(struct rig *r, const char *text, bool end)
{
    struct buf data;

    buf_init(&data, pool);
    buf_append(&data, str_of(text));
    r->h.leg.codec->send_body(&r->h.leg, &data, end);
    assert_int_equal(data.n, 0);
    buf_fini(&data);
}

static void detach(struct rig *r, bool abort) { r->h.leg.codec->detach(&r->h.leg, abort); }

static void answer_ok(struct rig *r)
{
    send_head(r, response(r, 200, BODY_LENGTH, 2), false);
    send_text(r, "ok", true);
    detach(r, false);
}

/* ---- the stream ---- */

static void message_ended(struct rig *r)
{
    if (r->on_end != NULL)
        r->on_end(r);
    if (r->answers)
        answer_ok(r);
    else if (r->detaches_at_end)
        detach(r, false);
}

static void on_head(void *stream, struct message *m, bool end)
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

static void on_interim(void *stream, struct message *m) { note(stream, "interim(%u)", m->status); }

static void on_body(void *stream, struct buf *data, bool end)
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

static void on_trailers(void *stream, struct headers *t)
{
    struct rig *r = stream;

    note(r, "trailers(");
    for (uint32_t i = 0; i < t->count; i++)
        strbuf_printf(&r->log, "%.*s=%.*s;", STR_ARG(t->list[i].name), STR_ARG(t->list[i].value));
    strbuf_addc(&r->log, ')');
    message_ended(r);
}

static void on_reset(void *stream, enum leg_error why)
{
    struct rig *r = stream;

    assert_null(r->h.leg.stream);
    note(r, "reset(%d%s)", (int)why, r->h.begun ? "" : " nothing");
}

static void on_drain(void *stream) { note(stream, "drain"); }

static const struct leg_ops stream_ops = {.on_head = on_head,
                                          .on_interim = on_interim,
                                          .on_body = on_body,
                                          .on_trailers = on_trailers,
                                          .on_reset = on_reset,
                                          .on_drain = on_drain};

/* ---- the owner ---- */

static struct rig *rig_of(struct h1 *h) { return CONTAINER_OF(h, struct rig, h); }

static struct arena *own_begin(struct h1 *h)
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

static void own_bad_request(struct h1 *h, enum leg_error error, const char *why)
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

static void own_output(struct h1 *h) { rig_of(h)->outputs++; }
static void own_read_state(struct h1 *h) { rig_of(h)->read_states++; }

static void own_exchange_end(struct h1 *h, bool reusable)
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

static void open_rig(struct rig *r, enum h1_role role)
{
    memset(r, 0, sizeof *r);
    buf_init(&r->in, pool);
    buf_init(&r->out, pool);
    h1_init(&r->h, role, &limits, &r->out, 1000, &owner_ops);
}

static void close_rig(struct rig *r)
{
    buf_fini(&r->in);
    buf_fini(&r->out);
    if (r->arena_live)
        arena_fini(&r->arena);
    strbuf_free(&r->log);
    strbuf_free(&r->wire);
}

static void open_client(struct rig *r)
{
    open_rig(r, H1_CLIENT);
    live(r);
    h1_begin_request(&r->h, &r->arena, &stream_ops, r);
}

/* Feeds text in pieces of step bytes (0: whole), and goes on as an owner does. */
static bool feed_n(struct rig *r, struct str text, size_t step)
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

static bool feed(struct rig *r, const char *text) { return feed_n(r, str_of(text), 0); }

/* What was written since the last call. */
static struct str sent(struct rig *r)
{
    strbuf_clear(&r->wire);
    while (r->out.n > 0) {
        struct str front = buf_front(&r->out);
        strbuf_add(&r->wire, front);
        buf_consume(&r->out, front.n);
    }
    return strbuf_str(&r->wire);
}

static void expect_str(struct str got, const char *want)
{
    if (!str_is(got, want))
        print_message(" got: %.*s\nwant: %s\n", STR_ARG(got), want);
    assert_true(str_is(got, want));
}

static void expect_log(struct rig *r, const char *want)
{
    expect_str(strbuf_str(&r->log), want);
    strbuf_clear(&r->log);
    r->in_body_word = false;
}

#define OK200       "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
#define OK200_CLOSE "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"
#define ERROR(status, text, body)                                                                                      \
    "HTTP/1.1 " status " " text "\r\ncontent-type: text/plain\r\ncontent-length: 3\r\nconnection: close\r\n\r\n" body

/* ---- server ---- */

/* Input, log, wire: whatever the pieces. */
struct dialogue {
    const char *in, *log, *wire;
};

static void server_dialogues(void **state)
{
    static const struct dialogue rows[] = {
        {"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n", "head(GET /1 end) reuse", OK200},
        {"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HTTP/1.0\r\n\r\n",
         "head(GET /1 end) reuse head(GET /2 end) reuse head(GET /3 end) close", OK200 OK200 OK200_CLOSE},
        {"\r\nGET /1 HTTP/1.1\r\nHost: a\r\n\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n\r\n",
         "head(GET /1 end) reuse head(GET /2 end) reuse", OK200 OK200},
        {"GET /1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
         "head(GET /1 end) close", OK200_CLOSE},
        {"GET /1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /2 HTTP/1.0\r\n\r\n",
         "head(GET /1 end) reuse head(GET /2 end) close",
         "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\nok" OK200_CLOSE},
        {"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
         "head(POST /1) body=hello end reuse head(GET /2 end) reuse", OK200 OK200},
        {"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "head(POST /1 end) reuse", OK200},
        {"POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
         "GET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
         "head(POST /1) body=abcde end reuse head(GET /2 end) reuse", OK200 OK200},
        {"POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: 1\r\nHost: z\r\n\r\n",
         "head(POST /1) body=abc trailers( x=1;) reuse", OK200},
        {"POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "head(POST /1) end reuse",
         OK200},
        {"HEAD /1 HTTP/1.1\r\nHost: a\r\n\r\n", "head(HEAD /1 end) reuse",
         "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"},
        {"GET /1 HTTP/1.1\r\nHost: a\r\nConnection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: "
         "x\r\n\r\n",
         "head(GET /1 end) reuse", OK200},
        {"GET / HTTP/1.1\r\n\r\n", "bad(2 400)", ERROR("400", "Bad Request", "bad")},
        {"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/3.0\r\n\r\n", "head(GET /1 end) reuse bad(7 505)",
         OK200 ERROR("505", "HTTP Version Not Supported", "bad")},
        {"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", "bad(7 501)", ERROR("501", "Not Implemented", "bad")},
        {"POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
         "head(POST /1) reset(2) bad(2 400 detached)", ERROR("400", "Bad Request", "bad")},
        {"POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX : 1\r\n\r\n",
         "head(POST /1) reset(2) bad(2 400 detached)", ERROR("400", "Bad Request", "bad")},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        for (size_t step = 0; step < 40; step++) {
            struct rig r;
            open_rig(&r, H1_SERVER);
            r.answers = true;
            feed_n(&r, str_of(rows[i].in), step);
            expect_log(&r, rows[i].log);
            expect_str(sent(&r), rows[i].wire);
            close_rig(&r);
        }
}

static void a_pipelined_request_waits(void **state)
{
    struct rig r;

    (void)state;
    open_rig(&r, H1_SERVER);
    assert_true(feed(&r, "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n"));
    expect_log(&r, "head(GET /1 end)");
    assert_true(h1_wants_input(&r.h));
    answer_ok(&r);
    expect_log(&r, "reuse");
    assert_true(h1_input(&r.h, &r.in));
    expect_log(&r, "head(GET /2 end)");
    answer_ok(&r);
    expect_log(&r, "reuse");
    assert_true(h1_is_idle(&r.h));
    close_rig(&r);
}

static void pipelined_input_is_bounded(void **state)
{
    struct rig r;

    (void)state;
    open_rig(&r, H1_SERVER);
    feed(&r, "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n");
    for (size_t fed = 0; fed < limits.head_bytes; fed += 10) {
        assert_true(h1_wants_input(&r.h));
        feed(&r, "0123456789");
    }
    assert_false(h1_wants_input(&r.h));
    close_rig(&r);
}

static void a_large_head_spans_chunks(void **state)
{
    struct rig r;
    struct strbuf in = {0};

    (void)state;
    for (size_t step = 0; step <= 9000; step += 3000) {
        open_rig(&r, H1_SERVER);
        r.answers = true;
        strbuf_clear(&in);
        strbuf_addz(&in, "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n");
        for (int i = 0; i < 40; i++)
            strbuf_printf(&in, "x-%d: %01000d\r\n", i, i);
        strbuf_addz(&in, "\r\nabcGET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_true(feed_n(&r, strbuf_str(&in), step));
        expect_log(&r, "head(POST /1) body=abc end reuse head(GET /2 end) reuse");
        expect_str(sent(&r), OK200 OK200);
        close_rig(&r);
    }
    open_rig(&r, H1_SERVER);
    strbuf_clear(&in);
    strbuf_printf(&in, "GET / HTTP/1.1\r\nHost: a\r\nx: %070000d\r\n\r\n", 1);
    assert_false(feed_n(&r, strbuf_str(&in), 1000));
    expect_log(&r, "bad(3 431)");
    strbuf_free(&in);
    close_rig(&r);
}

static void a_head_too_large_by_uri(void **state)
{
    struct rig r;
    struct strbuf in = {0};

    (void)state;
    strbuf_printf(&in, "GET /%02000d HTTP/1.1\r\nHost: a\r\n\r\n", 1);
    open_rig(&r, H1_SERVER);
    assert_false(feed_n(&r, strbuf_str(&in), 100));
    expect_log(&r, "bad(4 414)");
    expect_str(sent(&r), ERROR("414", "URI Too Long", "bad"));
    strbuf_free(&in);
    close_rig(&r);
}

static void a_stream_may_answer_a_bad_request(void **state)
{
    struct rig r;

    (void)state;
    open_rig(&r, H1_SERVER);
    r.answers_bad = true;
    assert_false(feed(&r, "GET / HTTP/1.1\r\n\r\n"));
    expect_log(&r, "bad(2 400) close");
    expect_str(sent(&r), "HTTP/1.1 400 Bad Request\r\ncontent-length: 3\r\nconnection: close\r\n\r\nbad");
    assert_false(feed(&r, "GET / HTTP/1.1\r\n\r\n"));
    expect_log(&r, "");
    close_rig(&r);
}

static void an_owner_may_refuse_to_begin(void **state)
{
    struct rig r;

    (void)state;
    open_rig(&r, H1_SERVER);
    r.refuses_begin = true;
    assert_false(feed(&r, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    expect_log(&r, "");
    expect_str(sent(&r), "HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n"
                         "connection: close\r\n\r\nno");
    close_rig(&r);
}

static void body_limits(void **state)
{
    struct rig r;

    (void)state;
    open_rig(&r, H1_SERVER);
    r.h.max_body = 4;
    assert_false(feed(&r, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"));
    expect_log(&r, "bad(5 413)");
    expect_str(sent(&r), ERROR("413", "Content Too Large", "bad"));
    close_rig(&r);

    open_rig(&r, H1_SERVER);
    r.h.max_body = 4;
    assert_true(feed(&r, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n"));
    assert_false(feed(&r, "1\r\ne\r\n"));
    expect_log(&r, "head(POST /) body=abcd reset(5) bad(5 413 detached)");
    close_rig(&r);
}

/* One response through a server, for every way of framing it. */
static void check_response(const char *in, struct message *(*make)(struct rig *), bool end, const char *body,
                           const char *wire, const char *log)
{
    struct rig r;

    open_rig(&r, H1_SERVER);
    feed(&r, in);
    strbuf_clear(&r.log);
    send_head(&r, make(&r), end);
    if (!end)
        send_text(&r, body, false);
    if (!end)
        send_text(&r, "", true);
    detach(&r, false);
    expect_str(sent(&r), wire);
    expect_log(&r, log);
    close_rig(&r);
}

static struct message *plain_none(struct rig *r) { return response(r, 200, BODY_NONE, 0); }
static struct message *plain_length(struct rig *r) { return response(r, 200, BODY_LENGTH, 3); }
static struct message *plain_chunked(struct rig *r) { return response(r, 200, BODY_CHUNKED, 0); }
static struct message *plain_close(struct rig *r) { return response(r, 200, BODY_CLOSE, 0); }
static struct message *no_content(struct rig *r)
{
    struct message *m = response(r, 204, BODY_LENGTH, 3);
    add(m, "content-length", "3");
    return m;
}
static struct message *not_modified(struct rig *r)
{
    struct message *m = response(r, 304, BODY_NONE, 0);
    add(m, "content-length", "77");
    return m;
}
static struct message *bad_length(struct rig *r)
{
    struct message *m = response(r, 304, BODY_NONE, 0);
    add(m, "content-length", "7x");
    return m;
}

static void response_framing(void **state)
{
    static const char get[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n", head[] = "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n";
    static const char old[] = "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";

    (void)state;
    check_response(get, plain_none, true, "", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "reuse");
    check_response(get, plain_length, true, "", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "reuse");
    check_response(get, plain_length, false, "abc", "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", "reuse");
    check_response(get, plain_none, false, "abc",
                   "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "reuse");
    check_response(get, plain_chunked, false, "0123456789abcdef!",
                   "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n11\r\n0123456789abcdef!\r\n0\r\n\r\n",
                   "reuse");
    check_response(get, plain_close, false, "abc",
                   "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "reuse");
    check_response(get, no_content, false, "abc", "HTTP/1.1 204 No Content\r\n\r\n", "reuse");
    check_response(get, not_modified, true, "", "HTTP/1.1 304 Not Modified\r\ncontent-length: 77\r\n\r\n", "reuse");
    check_response(get, bad_length, true, "", "HTTP/1.1 304 Not Modified\r\n\r\n", "reuse");
    check_response(head, plain_length, false, "abc", "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n", "reuse");
    check_response(head, plain_chunked, false, "abc", "HTTP/1.1 200 OK\r\n\r\n", "reuse");
    check_response(old, plain_length, false, "abc",
                   "HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: keep-alive\r\n\r\nabc", "reuse");
    check_response(old, plain_chunked, false, "abc", "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nabc", "close");
}

static void trailers_go_out_where_there_is_room(void **state)
{
    struct rig r;
    struct message *m;

    (void)state;
    open_rig(&r, H1_SERVER);
    feed(&r, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    send_head(&r, response(&r, 200, BODY_CHUNKED, 0), false);
    send_text(&r, "abc", false);
    m = message(&r, BODY_NONE, 0);
    add(m, "x-t", "1");
    add(m, "content-length", "9");
    add(m, ":path", "/");
    add(m, "bad name", "1");
    add(m, "x-u", "a\r\nb");
    r.h.leg.codec->send_trailers(&r.h.leg, &m->headers);
    detach(&r, false);
    expect_str(sent(&r), "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-t: 1\r\n\r\n");
    assert_int_equal(r.h.dropped_headers, 4);
    expect_log(&r, "head(GET / end) reuse");

    feed(&r, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    send_head(&r, response(&r, 200, BODY_LENGTH, 3), false);
    send_text(&r, "abc", false);
    m = message(&r, BODY_NONE, 0);
    add(m, "x-t", "1");
    r.h.leg.codec->send_trailers(&r.h.leg, &m->headers);
    detach(&r, false);
    expect_str(sent(&r), "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc");
    expect_log(&r, "head(GET / end) reuse");
    close_rig(&r);
}

static void what_a_guest_must_not_write_is_dropped(void **state)
{
    struct rig r;
    struct message *m;

    (void)state;
    open_rig(&r, H1_SERVER);
    r.h.server_name = "weir";
    feed(&r, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    m = response(&r, 200, BODY_LENGTH, 2);
    add(m, "good", "1");
    add(m, "cr", "a\r\nx: y");
    add(m, "lf", "a\nb");
    headers_add_borrowed(&m->headers, STR("nul"), STR("a\0b"), HDR_OTHER);
    add(m, "bad name", "1");
    add(m, "bad:name", "1");
    add(m, "", "1");
    add(m, "x\r\ny", "1");
    add(m, "transfer-encoding", "chunked");
    add(m, "connection", "close");
    add(m, "keep-alive", "1");
    add(m, "upgrade", "x");
    add(m, "content-length", "77");
    add(m, "content-type", "a\r\nb");
    send_head(&r, m, false);
    send_text(&r, "ok", true);
    detach(&r, false);
    expect_str(sent(&r), "HTTP/1.1 200 OK\r\ngood: 1\r\nserver: weir\r\ncontent-length: 2\r\n\r\nok");
    assert_int_equal(r.h.dropped_headers, 12);
    expect_log(&r, "head(GET / end) reuse");
    close_rig(&r);
}

static void bytes_beyond_the_length_end_the_leg(void **state)
{
    struct rig r;

    (void)state;
    open_rig(&r, H1_SERVER);
    feed(&r, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    send_head(&r, response(&r, 200, BODY_LENGTH, 3), false);
    send_text(&r, "ab", false);
    send_text(&r, "cd", false);
    send_text(&r, "e", true);
    expect_log(&r, "head(GET / end)");
    h1_output_drained(&r.h);
    expect_log(&r, "reset(2) cut");
    expect_str(sent(&r), "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab");
    close_rig(&r);

    open_rig(&r, H1_SERVER);
    feed(&r, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    send_head(&r, response(&r, 200, BODY_LENGTH, 3), false);
    send_text(&r, "ab", true);
    h1_output_drained(&r.h);
    expect_log(&r, "head(GET / end) reset(2) cut");
    close_rig(&r);
}

static void a_bad_status_becomes_a_502(void **state)
{
    static const unsigned statuses[] = {100, 101, 199, 0};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(statuses); i++) {
        struct rig r;
        unsigned outputs;
        open_rig(&r, H1_SERVER);
        feed(&r, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        outputs = r.outputs;
        send_head(&r, response(&r, statuses[i], BODY_NONE, 0), true);
        assert_int_equal(sent(&r).n, 0);
        assert_int_equal(r.outputs, outputs + 1);
        h1_output_drained(&r.h);
        expect_log(&r, "head(GET / end) reset(2) bad(2 502 detached)");
        expect_str(sent(&r), ERROR("502", "Bad Gateway", "bad"));
        close_rig(&r);
    }
}

static void an_early_response_ends_the_connection(void **state)
{
    struct rig r;

    (void)state;
    open_rig(&r, H1_SERVER);
    feed(&r, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
    send_head(&r, response(&r, 403, BODY_NONE, 0), true);
    assert_true(feed(&r, "def"));
    detach(&r, false);
    expect_log(&r, "head(POST /) body=abcdef close");
    expect_str(sent(&r), "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    assert_false(feed(&r, "GHIJ"));
    expect_log(&r, "");
    close_rig(&r);

    /* ... unless the body comes after all before the stream is done. */
    open_rig(&r, H1_SERVER);
    feed(&r, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc");
    send_head(&r, response(&r, 200, BODY_LENGTH, 2), false);
    send_text(&r, "ok", true);
    assert_true(feed(&r, "def"));
    detach(&r, false);
    expect_log(&r, "head(POST /) body=abcdef end reuse");
    expect_str(sent(&r), OK200);
    close_rig(&r);
}

static void expect_continue(void **state)
{
    static const char in[] = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n";
    struct rig r;

    (void)state;
    open_rig(&r, H1_SERVER);
    feed(&r, in);
    r.h.leg.codec->send_interim(&r.h.leg, response(&r, 100, BODY_NONE, 0));
    r.h.leg.codec->send_interim(&r.h.leg, response(&r, 101, BODY_NONE, 0));
    expect_str(sent(&r), "HTTP/1.1 100 Continue\r\n\r\n");
    feed(&r, "abc");
    answer_ok(&r);
    expect_log(&r, "head(POST /) body=abc end reuse");
    expect_str(sent(&r), OK200);
    close_rig(&r);

    open_rig(&r, H1_SERVER);
    feed(&r, in);
    answer_ok(&r);
    expect_log(&r, "head(POST /) close");
    expect_str(sent(&r), OK200_CLOSE);
    close_rig(&r);
}

static void no_interim_to_http10(void **state)
{
    struct rig r;

    (void)state;
    open_rig(&r, H1_SERVER);
    feed(&r, "GET / HTTP/1.0\r\n\r\n");
    r.h.leg.codec->send_interim(&r.h.leg, response(&r, 103, BODY_NONE, 0));
    assert_int_equal(sent(&r).n, 0);
    close_rig(&r);
}

static void drain_closes(void **state)
{
    struct rig r;

    (void)state;
    open_rig(&r, H1_SERVER);
    r.answers = true;
    r.h.closing = true;
    assert_false(feed(&r, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    expect_log(&r, "head(GET / end) close");
    expect_str(sent(&r), OK200_CLOSE);
    close_rig(&r);
}

static struct message *switching(struct rig *r)
{
    struct message *m = response(r, 101, BODY_TUNNEL, 0);

    m->upgrade = true;
    add(m, "connection", "upgrade");
    add(m, "upgrade", "websocket");
    return m;
}

#define UPGRADE "GET /w HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"

static void a_server_upgrade_becomes_a_tunnel(void **state)
{
    struct rig r;

    (void)state;
    open_rig(&r, H1_SERVER);
    assert_true(feed(&r, UPGRADE "early"));
    expect_log(&r, "head(GET /w upgrade)");
    send_head(&r, switching(&r), false);
    expect_str(sent(&r), "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
    assert_int_equal(r.read_states, 1);
    assert_true(h1_wants_input(&r.h));
    assert_true(h1_input(&r.h, &r.in));
    feed(&r, "GET / HTTP/1.1\r\n\r\n");
    expect_log(&r, "body=earlyGET / HTTP/1.1\r\n\r\n");
    send_text(&r, "raw", false);
    expect_str(sent(&r), "raw");
    h1_eof(&r.h);
    expect_log(&r, "end");
    assert_false(h1_wants_shutdown(&r.h));
    r.outputs = 0;
    send_text(&r, "", true);
    assert_int_equal(r.outputs, 1);
    assert_true(h1_wants_shutdown(&r.h));
    detach(&r, false);
    expect_log(&r, "close");
    close_rig(&r);
}

static void a_tunnel_may_be_half_closed_by_us(void **state)
{
    struct rig r;

    (void)state;
    open_rig(&r, H1_SERVER);
    feed(&r, UPGRADE);
    send_head(&r, switching(&r), false);
    send_text(&r, "bye", true);
    assert_true(h1_wants_shutdown(&r.h));
    assert_true(feed(&r, "still here"));
    h1_eof(&r.h);
    detach(&r, false);
    expect_log(&r, "head(GET /w upgrade) body=still here end close");
    close_rig(&r);
}

static void a_refused_upgrade_goes_on(void **state)
{
    struct rig r;

    (void)state;
    open_rig(&r, H1_SERVER);
    feed(&r, UPGRADE "GET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
    answer_ok(&r);
    expect_str(sent(&r), OK200);
    assert_true(h1_input(&r.h, &r.in));
    expect_log(&r, "head(GET /w upgrade) reuse head(GET /2 end)");
    close_rig(&r);
}

static void reading_stops_and_resumes(void **state)
{
    struct rig r;

    (void)state;
    open_rig(&r, H1_SERVER);
    r.stops_at_head = true;
    assert_true(
        feed(&r, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: 1\r\n\r\n"));
    expect_log(&r, "head(POST /)");
    assert_false(h1_wants_input(&r.h));
    assert_int_equal(r.read_states, 1);
    h1_eof(&r.h);
    expect_log(&r, "");
    r.h.leg.codec->read_enable(&r.h.leg, true);
    r.h.leg.codec->read_enable(&r.h.leg, true);
    assert_int_equal(r.read_states, 2);
    assert_true(h1_wants_input(&r.h));
    assert_true(h1_input(&r.h, &r.in));
    expect_log(&r, "body=abc trailers( x=1;)");
    answer_ok(&r);
    expect_log(&r, "close"); /* the peer has closed its side */
    expect_str(sent(&r), OK200);
    close_rig(&r);
}

static void server_eof(void **state)
{
    static const struct dialogue rows[] = {
        {"", "", ""},
        {"\r\n", "", ""},
        {"GET / HT", "reset(1) close", ""},
        {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabc", "head(POST /) body=abc reset(1) close", ""},
        {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
         "head(POST /) body=ab reset(1) close", ""},
        {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
         "head(POST /) body=abc reset(1) close", ""},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct rig r;
        open_rig(&r, H1_SERVER);
        feed(&r, rows[i].in);
        h1_eof(&r.h);
        expect_log(&r, rows[i].log);
        expect_str(sent(&r), rows[i].wire);
        close_rig(&r);
    }
}

static void a_half_closed_client_gets_its_answers(void **state)
{
    struct rig r;

    (void)state;
    open_rig(&r, H1_SERVER);
    feed(&r, "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
    h1_eof(&r.h);
    answer_ok(&r);
    expect_log(&r, "head(GET /1 end) reuse");
    assert_true(h1_input(&r.h, &r.in));
    answer_ok(&r);
    expect_log(&r, "head(GET /2 end) close");
    expect_str(sent(&r), OK200 OK200);
    close_rig(&r);
}

static void output_is_bounded_by_back_pressure(void **state)
{
    struct rig r;
    char text[400];

    (void)state;
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    open_rig(&r, H1_SERVER);
    feed(&r, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    send_head(&r, response(&r, 200, BODY_CHUNKED, 0), false);
    assert_int_equal(r.outputs, 1);
    assert_false(r.h.leg.codec->is_full(&r.h.leg));
    h1_output_drained(&r.h);
    for (int i = 0; i < 3; i++)
        send_text(&r, text, false);
    assert_int_equal(r.outputs, 1); /* the owner knows already */
    assert_true(r.h.leg.codec->is_full(&r.h.leg));
    expect_log(&r, "head(GET / end)");
    h1_output_drained(&r.h); /* still too much */
    expect_log(&r, "");
    buf_consume(&r.out, r.out.n - 500);
    h1_output_drained(&r.h);
    h1_output_drained(&r.h);
    expect_log(&r, "drain");
    detach(&r, true);
    expect_log(&r, "cut");
    close_rig(&r);
}

static void large_bodies_are_not_copied(void **state)
{
    struct rig r;
    struct buf data;
    struct chunk *c = chunk_get(pool);
    struct iovec iov[8];
    int n;

    (void)state;
    open_rig(&r, H1_SERVER);
    feed(&r, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    send_head(&r, response(&r, 200, BODY_CHUNKED, 0), false);
    memset(c->data, 'x', 8000);
    buf_init(&data, pool);
    buf_append_slice(&data, c, str_span(c->data, 8000));
    r.h.leg.codec->send_body(&r.h.leg, &data, true);
    n = buf_iovec(&r.out, iov, 8);
    assert_int_equal(n, 3);
    assert_ptr_equal(iov[1].iov_base, c->data);
    chunk_unref(c);
    detach(&r, false);
    close_rig(&r);

    open_rig(&r, H1_SERVER);
    r.answers = true;
    feed(&r, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_int_equal(buf_iovec(&r.out, iov, 8), 1); /* head and small body are one piece */
    close_rig(&r);
}

static void a_failing_connection_resets(void **state)
{
    struct rig r;

    (void)state;
    open_rig(&r, H1_SERVER);
    feed(&r, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n");
    send_head(&r, response(&r, 200, BODY_CHUNKED, 0), false);
    h1_fail(&r.h, LEG_TIMEOUT);
    h1_fail(&r.h, LEG_TIMEOUT);
    expect_log(&r, "head(POST /) reset(6)");
    assert_int_equal(r.h.out_state, H1_BROKEN);
    assert_false(feed(&r, "abcde"));
    expect_log(&r, "");
    close_rig(&r);
}

static void a_bad_body_after_the_answer_began(void **state)
{
    struct rig r;

    (void)state;
    open_rig(&r, H1_SERVER);
    feed(&r, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    send_head(&r, response(&r, 200, BODY_CHUNKED, 0), false);
    assert_false(feed(&r, "x"));
    expect_log(&r, "head(POST /) reset(2) cut");
    close_rig(&r);
}

static void send_error_by_the_owner(void **state)
{
    struct rig r;

    (void)state;
    open_rig(&r, H1_SERVER);
    feed(&r, "GET / HT");
    h1_send_error(&r.h, 408, STR("bad"));
    assert_null(r.h.leg.stream);
    expect_str(sent(&r), ERROR("408", "Request Timeout", "bad"));
    expect_log(&r, "");
    h1_send_error(&r.h, 408, STR("bad"));
    assert_int_equal(sent(&r).n, 0);
    close_rig(&r);
}

/* ---- client ---- */

static void request_framing(void **state)
{
    struct rig r;
    struct message *m;

    (void)state;
    open_client(&r);
    m = request(&r, "GET", "/x?y", BODY_NONE, 0);
    add(m, "x-a", "1");
    add(m, "te", "trailers");
    send_head(&r, m, true);
    expect_str(sent(&r), "GET /x?y HTTP/1.1\r\nhost: a\r\nx-a: 1\r\nte: trailers\r\nconnection: te\r\n\r\n");
    close_rig(&r);

    open_client(&r);
    send_head(&r, request(&r, "POST", "/", BODY_NONE, 0), true);
    expect_str(sent(&r), "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n");
    close_rig(&r);

    open_client(&r);
    send_head(&r, request(&r, "OPTIONS", "*", BODY_NONE, 0), true);
    expect_str(sent(&r), "OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n");
    close_rig(&r);

    open_client(&r);
    send_head(&r, request(&r, "PUT", "/", BODY_LENGTH, 3), false);
    send_text(&r, "abc", true);
    expect_str(sent(&r), "PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc");
    close_rig(&r);

    open_client(&r);
    send_head(&r, request(&r, "PUT", "/", BODY_CHUNKED, 0), false);
    send_text(&r, "abc", true);
    expect_str(sent(&r), "PUT / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    close_rig(&r);

    /* a guest gave a GET a body */
    open_client(&r);
    send_head(&r, request(&r, "GET", "/", BODY_NONE, 0), false);
    send_text(&r, "abc", true);
    expect_str(sent(&r), "GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    close_rig(&r);

    /* what a guest must not choose */
    open_client(&r);
    m = request(&r, "GET", "/", BODY_NONE, 0);
    add(m, "host", "evil");
    add(m, "transfer-encoding", "chunked");
    add(m, "content-length", "5");
    add(m, "te", "gzip");
    add(m, "connection", "x");
    send_head(&r, m, true);
    expect_str(sent(&r), "GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_int_equal(r.h.dropped_headers, 3);
    close_rig(&r);
}

static void a_bad_request_line_resets_the_leg(void **state)
{
    static const char *const rows[][3] = {
        {"GET", "/a b", "a"},
        {"GET", "/\r\n", "a"},
        {"GET", "", "a"},
        {"GET", "a", "a"},
        {"GET", "*", "a"},
        {"GET", "/#", "a"},
        {"GET", "/\xc3\xa9", "a"},
        {"G T", "/", "a"},
        {"", "/", "a"},
        {"G\r\n", "/", "a"},
        {"CONNECT", "/", "a"},
        {"GET", "/", "a b"},
        {"GET", "/", "u@a"},
        {"GET", "/", "a\r\n"},
        {"GET", "/", "a/b"},
        {"GETGETGETGETGETGETGETGETGETGETGET", "/", "a"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct rig r;
        struct message *m;
        open_client(&r);
        m = message(&r, BODY_NONE, 0);
        add(m, ":method", rows[i][0]);
        add(m, ":authority", rows[i][2]);
        add(m, ":path", rows[i][1]);
        send_head(&r, m, false);
        send_text(&r, "abc", true);
        assert_int_equal(r.out.n, 0);
        assert_int_equal(r.outputs, 1);
        h1_output_drained(&r.h);
        expect_log(&r, "reset(2 nothing) close");
        close_rig(&r);
    }
}

static void client_dialogues(void **state)
{
    static const struct dialogue rows[] = {
        {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", "head(200) body=abc end reuse", NULL},
        {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "head(200 end) reuse", NULL},
        {"HTTP/1.1 204 OK\r\n\r\n", "head(204 end) reuse", NULL},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx: 1\r\n\r\n",
         "head(200) body=abc trailers( x=1;) reuse", NULL},
        {"HTTP/1.1 100 C\r\n\r\nHTTP/1.1 103 H\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na",
         "interim(100) interim(103) head(200) body=a end reuse", NULL},
        {"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\na", "head(200) body=a end close", NULL},
        {"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na", "head(200) body=a end close", NULL},
        {"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\na", "head(200) body=a end reuse", NULL},
        {"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", "reset(2) cut", NULL},
        {"HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\na", "reset(2) cut", NULL},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx", "head(200) reset(2) cut", NULL},
        {"HTTP/2.0 200 OK\r\n\r\n", "reset(7) cut", NULL},
        {"220 smtp\r\n", "reset(2) cut", NULL},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        for (size_t step = 0; step < 20; step++) {
            struct rig r;
            bool ends_well = strstr(rows[i].log, "reset") == NULL;
            open_client(&r);
            r.detaches_at_end = true;
            send_head(&r, request(&r, "POST", "/", BODY_LENGTH, 2), false);
            if (ends_well)
                send_text(&r, "hi", true);
            feed_n(&r, str_of(rows[i].in), step);
            expect_log(&r, rows[i].log);
            close_rig(&r);
        }
}

static void a_close_delimited_response(void **state)
{
    struct rig r;

    (void)state;
    open_client(&r);
    r.detaches_at_end = true;
    send_head(&r, request(&r, "GET", "/", BODY_NONE, 0), true);
    assert_true(feed(&r, "HTTP/1.1 200 OK\r\n\r\nabc"));
    feed(&r, "def");
    h1_eof(&r.h);
    expect_log(&r, "head(200) body=abcdef end close");
    close_rig(&r);
}

static void client_eof(void **state)
{
    static const struct dialogue rows[] = {
        {"", "reset(1 nothing) close", NULL},
        {"H", "reset(1) close", NULL},
        {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", "head(200) body=ab reset(1) close", NULL},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "head(200) reset(1) close", NULL},
        {"HTTP/1.1 100 C\r\n\r\n", "interim(100) reset(1) close", NULL},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct rig r;
        open_client(&r);
        send_head(&r, request(&r, "GET", "/", BODY_NONE, 0), true);
        feed(&r, rows[i].in);
        h1_eof(&r.h);
        expect_log(&r, rows[i].log);
        close_rig(&r);
    }
}

static void bytes_nobody_asked_for(void **state)
{
    struct rig r;

    (void)state;
    open_client(&r); /* behind the response */
    r.detaches_at_end = true;
    send_head(&r, request(&r, "GET", "/", BODY_NONE, 0), true);
    feed(&r, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb");
    expect_log(&r, "head(200) body=a end close");
    close_rig(&r);

    open_client(&r); /* the same, while the stream still holds the leg */
    send_head(&r, request(&r, "GET", "/", BODY_NONE, 0), true);
    feed(&r, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na");
    feed(&r, "b");
    detach(&r, false);
    expect_log(&r, "head(200) body=a end close");
    close_rig(&r);

    open_client(&r); /* before the request */
    assert_false(feed(&r, "HTTP/1.1 408 T\r\n\r\n"));
    expect_log(&r, "reset(2 nothing) close");
    close_rig(&r);

    open_rig(&r, H1_CLIENT); /* on an idle connection */
    assert_false(feed(&r, "HTTP/1.1 408 T\r\n\r\n"));
    expect_log(&r, "");
    assert_false(h1_is_idle(&r.h));
    close_rig(&r);
}

static void interims_are_bounded(void **state)
{
    struct rig r;
    bool more = true;
    int n = 0;

    (void)state;
    open_client(&r);
    send_head(&r, request(&r, "GET", "/", BODY_NONE, 0), true);
    while (more && n < 100) {
        more = feed(&r, "HTTP/1.1 103 H\r\n\r\n");
        n++;
    }
    assert_int_equal(n, 17);
    close_rig(&r);
}

static void an_early_response_to_a_client(void **state)
{
    struct rig r;

    (void)state;
    open_client(&r);
    send_head(&r, request(&r, "POST", "/", BODY_LENGTH, 10), false);
    send_text(&r, "abc", false);
    feed(&r, "HTTP/1.1 413 T\r\nContent-Length: 0\r\n\r\n");
    send_text(&r, "def", false);
    detach(&r, false);
    expect_log(&r, "head(413 end) cut");
    close_rig(&r);
}

static struct message *upgrade_request(struct rig *r)
{
    struct message *m = request(r, "GET", "/w", BODY_NONE, 0);

    m->upgrade = true;
    add(m, "connection", "upgrade");
    add(m, "upgrade", "websocket");
    return m;
}

#define SWITCH "HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"

static void a_client_upgrade_becomes_a_tunnel(void **state)
{
    struct rig r;

    (void)state;
    for (int end = 0; end < 2; end++) {
        open_client(&r);
        send_head(&r, upgrade_request(&r), end != 0);
        expect_str(sent(&r), "GET /w HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
        assert_true(feed(&r, SWITCH "hello"));
        send_text(&r, "raw", false);
        expect_str(sent(&r), "raw");
        send_text(&r, "", true);
        assert_true(h1_wants_shutdown(&r.h));
        feed(&r, " you");
        h1_eof(&r.h);
        detach(&r, false);
        expect_log(&r, "head(101) body=hello you end close");
        close_rig(&r);
    }
}

static void a_client_upgrade_that_is_refused(void **state)
{
    struct rig r;

    (void)state;
    open_client(&r);
    r.detaches_at_end = true;
    send_head(&r, upgrade_request(&r), false);
    assert_true(feed(&r, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"));
    expect_log(&r, "head(200) body=a end reuse");
    close_rig(&r);
}

static void no_tunnel_bytes_before_the_switch(void **state)
{
    struct rig r;

    (void)state;
    open_client(&r);
    send_head(&r, upgrade_request(&r), false);
    sent(&r);
    send_text(&r, "GET /smuggled HTTP/1.1\r\n\r\n", false);
    assert_int_equal(sent(&r).n, 0);
    h1_output_drained(&r.h);
    expect_log(&r, "reset(2 nothing) cut");
    close_rig(&r);
}

static void begin_again(struct rig *r)
{
    r->on_end = NULL;
    detach(r, false);
    live(r);
    h1_begin_request(&r->h, &r->arena, &stream_ops, r);
    send_head(r, request(r, "GET", "/2", BODY_NONE, 0), true);
}

static void the_next_exchange_may_begin_inside_the_last_event(void **state)
{
    struct rig r;

    (void)state;
    open_client(&r);
    send_head(&r, request(&r, "GET", "/1", BODY_NONE, 0), true);
    r.on_end = begin_again;
    assert_true(feed(&r, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"));
    r.detaches_at_end = true;
    assert_true(feed(&r, "HTTP/1.1 404 N\r\nContent-Length: 1\r\n\r\nb"));
    expect_log(&r, "head(200) body=a end reuse head(404) body=b end reuse");
    close_rig(&r);
}

static void detach_in_on_head(struct rig *r, struct message *m)
{
    (void)m;
    detach(r, true);
}

static void a_stream_may_detach_inside_any_event(void **state)
{
    struct rig r;

    (void)state;
    open_rig(&r, H1_SERVER);
    r.on_head = detach_in_on_head;
    assert_false(feed(&r, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"));
    expect_log(&r, "head(POST /) close");
    detach(&r, true); /* twice is nothing */
    expect_log(&r, "");
    close_rig(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(server_dialogues),
        cmocka_unit_test(a_pipelined_request_waits),
        cmocka_unit_test(pipelined_input_is_bounded),
        cmocka_unit_test(a_large_head_spans_chunks),
        cmocka_unit_test(a_head_too_large_by_uri),
        cmocka_unit_test(a_stream_may_answer_a_bad_request),
        cmocka_unit_test(an_owner_may_refuse_to_begin),
        cmocka_unit_test(body_limits),
        cmocka_unit_test(response_framing),
        cmocka_unit_test(trailers_go_out_where_there_is_room),
        cmocka_unit_test(what_a_guest_must_not_write_is_dropped),
        cmocka_unit_test(bytes_beyond_the_length_end_the_leg),
        cmocka_unit_test(a_bad_status_becomes_a_502),
        cmocka_unit_test(an_early_response_ends_the_connection),
        cmocka_unit_test(expect_continue),
        cmocka_unit_test(no_interim_to_http10),
        cmocka_unit_test(drain_closes),
        cmocka_unit_test(a_server_upgrade_becomes_a_tunnel),
        cmocka_unit_test(a_tunnel_may_be_half_closed_by_us),
        cmocka_unit_test(a_refused_upgrade_goes_on),
        cmocka_unit_test(reading_stops_and_resumes),
        cmocka_unit_test(server_eof),
        cmocka_unit_test(a_half_closed_client_gets_its_answers),
        cmocka_unit_test(output_is_bounded_by_back_pressure),
        cmocka_unit_test(large_bodies_are_not_copied),
        cmocka_unit_test(a_failing_connection_resets),
        cmocka_unit_test(a_bad_body_after_the_answer_began),
        cmocka_unit_test(send_error_by_the_owner),
        cmocka_unit_test(request_framing),
        cmocka_unit_test(a_bad_request_line_resets_the_leg),
        cmocka_unit_test(client_dialogues),
        cmocka_unit_test(a_close_delimited_response),
        cmocka_unit_test(client_eof),
        cmocka_unit_test(bytes_nobody_asked_for),
        cmocka_unit_test(interims_are_bounded),
        cmocka_unit_test(an_early_response_to_a_client),
        cmocka_unit_test(a_client_upgrade_becomes_a_tunnel),
        cmocka_unit_test(a_client_upgrade_that_is_refused),
        cmocka_unit_test(no_tunnel_bytes_before_the_switch),
        cmocka_unit_test(the_next_exchange_may_begin_inside_the_last_event),
        cmocka_unit_test(a_stream_may_detach_inside_any_event),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
