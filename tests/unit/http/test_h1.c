/* SPDX-License-Identifier: Apache-2.0
 *
 * The HTTP/1 codec as a server: keep-alive, pipelining, bodies, refusals, upgrades, half-close, limits, and that
 * nothing a guest writes becomes framing.
 */
#include "h1_rig.h"

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
         "head(POST /1) body=abc trailers(x=1;) reuse", OK200},
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
        {"POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", "head(POST /1) bad(2 400)",
         ERROR("400", "Bad Request", "bad")},
        {"POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX : 1\r\n\r\n",
         "head(POST /1) bad(2 400)", ERROR("400", "Bad Request", "bad")},
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

    open_rig(&r, H1_SERVER); /* the same when it is the body */
    r.answers_bad = true;
    assert_false(feed(&r, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\nx\r\n"));
    expect_log(&r, "head(POST /) body=a bad(2 400) close");
    expect_str(sent(&r), "HTTP/1.1 400 Bad Request\r\ncontent-length: 3\r\nconnection: close\r\n\r\nbad");
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
    expect_log(&r, "head(POST /) body=abcd bad(5 413)");
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
    feed(&r, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nabc");
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

/* What is small is read and dropped, and the connection goes on. */
static void the_rest_of_an_answered_request_is_dropped(void **state)
{
    static const struct {
        const char *head, *rest;
    } cases[] = {{"Content-Length: 10", "abcdefghij"},
                 {"Transfer-Encoding: chunked", "3;x\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"},
                 {"Transfer-Encoding: chunked", "1\r\na\r\n0\r\nx-t: v\r\n\r\n"}};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        for (size_t step = 0; step < 2; step++) {
            struct rig r;
            open_rig(&r, H1_SERVER);
            feed(&r, "POST / HTTP/1.1\r\nHost: a\r\n");
            feed(&r, cases[i].head);
            feed(&r, "\r\n\r\n");
            answer_ok(&r);
            assert_true(h1_is_dropping(&r.h));
            live(&r); /* the stream's memory is gone */
            expect_log(&r, "head(POST /)");
            r.answers = true;
            assert_true(feed_n(&r, str_of(cases[i].rest), step));
            assert_true(feed(&r, "GET /2 HTTP/1.1\r\nHost: a\r\n\r\n"));
            expect_log(&r, "reuse head(GET /2 end) reuse");
            expect_str(sent(&r), OK200 OK200);
            close_rig(&r);
        }
    }
}

static void a_rest_that_is_too_large_ends_the_connection(void **state)
{
    struct rig r;
    char kib[1025];

    (void)state;
    memset(kib, 'a', 1024);
    kib[1024] = '\0';
    open_rig(&r, H1_SERVER);
    feed(&r, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    answer_ok(&r);
    feed(&r, "100000\r\n");
    for (int i = 0; i < 64; i++)
        assert_true(feed(&r, kib));
    assert_false(feed(&r, "a"));
    expect_log(&r, "head(POST /) close");
    close_rig(&r);

    open_rig(&r, H1_SERVER);
    feed(&r, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    answer_ok(&r);
    assert_false(feed(&r, "zz\r\n"));
    expect_log(&r, "head(POST /) close");
    close_rig(&r);
}

/* Many requests in one read are answered in several turns, so that others, and the memory, get theirs. */
static void pipelined_requests_take_turns(void **state)
{
    struct rig r;
    unsigned turns = 1;
    size_t bytes = 0;

    (void)state;
    open_rig(&r, H1_SERVER);
    r.answers = true;
    for (int i = 0; i < 100; i++)
        buf_append(&r.in, STR("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert_true(h1_input(&r.h, &r.in));
    for (; r.in.n > 0; turns++) {
        assert_int_equal(r.read_states, turns);
        assert_false(h1_wants_input(&r.h));
        bytes += sent(&r).n;
        assert_true(h1_input(&r.h, &r.in));
    }
    assert_in_range(turns, 10, 50);
    assert_true(h1_wants_input(&r.h));
    assert_int_equal(bytes + sent(&r).n, 100 * strlen(OK200));
    strbuf_clear(&r.log);
    close_rig(&r);
}

/* A client that sends requests and reads no response must not make us hold them all. */
static void a_full_output_stalls_the_next_request(void **state)
{
    struct rig r;
    unsigned answered = 0;

    (void)state;
    open_rig(&r, H1_SERVER);
    r.answers = true;
    for (int i = 0; i < 1000; i++)
        (void)feed(&r, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_true(r.out.n < r.h.high_mark + 1024);
    assert_false(h1_wants_input(&r.h));
    while (r.out.n > 0) {
        answered += (unsigned)(sent(&r).n / strlen(OK200));
        h1_output_drained(&r.h);
        assert_true(h1_wants_input(&r.h));
        assert_true(h1_input(&r.h, &r.in));
    }
    assert_int_equal(answered, 1000);
    strbuf_clear(&r.log);
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
    expect_log(&r, "body=abc trailers(x=1;)");
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
    assert_true(n == 2 || n == 3);
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

/* Data before the error is given, so that what the stream sees does not depend on packets. */
static void data_before_a_bad_chunk_is_given(void **state)
{
    static const char in[] =
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX : 1\r\n\r\n";

    (void)state;
    for (size_t step = 0; step < 100; step++) {
        struct rig r;
        open_rig(&r, H1_SERVER);
        assert_false(feed_n(&r, str_of(in), step));
        expect_log(&r, "head(POST /) body=abc bad(2 400)");
        close_rig(&r);
    }
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
        cmocka_unit_test(the_rest_of_an_answered_request_is_dropped),
        cmocka_unit_test(a_rest_that_is_too_large_ends_the_connection),
        cmocka_unit_test(pipelined_requests_take_turns),
        cmocka_unit_test(a_full_output_stalls_the_next_request),
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
        cmocka_unit_test(data_before_a_bad_chunk_is_given),
        cmocka_unit_test(a_bad_body_after_the_answer_began),
        cmocka_unit_test(send_error_by_the_owner),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
