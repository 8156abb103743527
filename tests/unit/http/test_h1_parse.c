/* SPDX-License-Identifier: Apache-2.0
 *
 * The HTTP/1 parser against tables of what it must take and what it must refuse. Every row is parsed whole and byte by
 * byte, with `from` kept between the calls as the codec does, and must give the same result both ways.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "http/h1_parse.h"
#include "http/h1_scan.h"

static const struct h1_limits limits = {
    .head_bytes = 4096, .uri_bytes = 1024, .headers = 20, .trailer_bytes = 256, .chunk_ext_bytes = 64};
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

/* The parsed message as text, so that a row can say what it expects and splits can be compared. */
static void render(const struct message *m, struct strbuf *out)
{
    static const char *const bodies[] = {"none", "length", "chunked", "close", "tunnel"};

    strbuf_printf(out, "v%u %s", m->version, bodies[m->body]);
    if (m->body == BODY_LENGTH)
        strbuf_printf(out, "=%llu", (unsigned long long)m->content_length);
    if (m->keep_alive)
        strbuf_addz(out, " keep");
    if (m->upgrade)
        strbuf_addz(out, " upgrade");
    if (m->expect_continue)
        strbuf_addz(out, " expect");
    for (uint32_t i = 0; i < m->headers.count; i++) {
        const struct header *h = &m->headers.list[i];
        assert_int_equal(h->id, header_id_of(h->name));
        strbuf_printf(out, "|%.*s=%.*s", STR_ARG(h->name), STR_ARG(h->value));
    }
}

struct outcome {
    enum parse result;
    size_t used;
    struct strbuf text;
    const char *why;
};

static enum parse parse_once(bool request, struct str method, struct str in, const struct h1_limits *l, size_t *from,
                             struct outcome *o)
{
    struct arena arena;
    struct message m;

    arena_init(&arena, pool, 1 << 20);
    o->used = 0;
    strbuf_clear(&o->text);
    o->result = request ? h1_parse_request(in, l, from, &arena, &m, &o->used, &o->why)
                        : h1_parse_response(in, l, from, method, &arena, &m, &o->used, &o->why);
    if (o->result == PARSE_DONE) {
        assert_int_equal(m.head_bytes, o->used);
        render(&m, &o->text);
    } else if (o->result != PARSE_MORE) {
        assert_non_null(o->why);
    }
    arena_fini(&arena);
    return o->result;
}

/* Parses in whole; then split at every point, and byte by byte; the outcome must be the same. */
static struct outcome parse_all_ways(bool request, struct str method, struct str in, const struct h1_limits *l)
{
    struct outcome whole = {0}, part = {0};
    size_t from = 0;

    parse_once(request, method, in, l, &from, &whole);
    for (size_t cut = 0; cut <= in.n; cut++) {
        from = 0;
        if (parse_once(request, method, str_upto(in, cut), l, &from, &part) == PARSE_MORE)
            parse_once(request, method, in, l, &from, &part);
        assert_int_equal(part.result, whole.result);
        assert_true(str_eq(strbuf_str(&part.text), strbuf_str(&whole.text)));
    }
    from = 0;
    for (size_t n = 0; n <= in.n; n++)
        if (parse_once(request, method, str_upto(in, n), l, &from, &part) != PARSE_MORE)
            break;
    assert_int_equal(part.result, whole.result);
    assert_int_equal(part.result == PARSE_DONE ? part.used : 0, whole.result == PARSE_DONE ? whole.used : 0);
    assert_true(str_eq(strbuf_str(&part.text), strbuf_str(&whole.text)));
    strbuf_free(&part.text);
    return whole;
}

struct good {
    const char *in, *expect;
};

static void check_good(bool request, const char *method, const struct good *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct outcome o = parse_all_ways(request, str_of(method), str_of(rows[i].in), &limits);
        if (o.result != PARSE_DONE || !str_is(strbuf_str(&o.text), rows[i].expect))
            print_message("row %zu: %s\n got %.*s\nwant %s\nwhy %s\n", i, rows[i].in, STR_ARG(strbuf_str(&o.text)),
                          rows[i].expect, o.why != NULL ? o.why : "");
        assert_int_equal(o.result, PARSE_DONE);
        assert_true(str_is(strbuf_str(&o.text), rows[i].expect));
        strbuf_free(&o.text);
    }
}

#define HEAD(method, path) "|:method=" method "|:scheme=http|:authority=a|:path=" path

static void requests_that_are_taken(void **state)
{
    static const struct good rows[] = {
        {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "v11 none keep" HEAD("GET", "/")},
        {"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "v11 none keep" HEAD("GET", "/")},
        {"GET / HTTP/1.1\r\nhost:a\r\n\r\n", "v11 none keep" HEAD("GET", "/")},
        {"GET / HTTP/1.1\r\nHOST: \t a \t\r\n\r\n", "v11 none keep" HEAD("GET", "/")},
        {"GET / HTTP/1.9\r\nHost: a\r\n\r\n", "v11 none keep" HEAD("GET", "/")},
        {"get /a?b=c%20d&e HTTP/1.1\r\nX-Y: Z z\r\nHost: a\r\nEmpty:\r\n\r\n",
         "v11 none keep" HEAD("get", "/a?b=c%20d&e") "|x-y=Z z|empty="},
        {"GET /\"<>\\^`{|} HTTP/1.1\r\nHost: a\r\n\r\n", "v11 none keep" HEAD("GET", "/\"<>\\^`{|}")},
        {"GET / HTTP/1.1\r\nHost: a\r\nX: \x80\xff\tq\r\n\r\n", "v11 none keep" HEAD("GET", "/") "|x=\x80\xff\tq"},
        {"GET / HTTP/1.1\r\nHost: a\r\n!#$%&'*+-.^_`|~09Az: v\r\n\r\n",
         "v11 none keep" HEAD("GET", "/") "|!#$%&'*+-.^_`|~09az=v"},
        {"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "v11 none keep" HEAD("OPTIONS", "*")},
        {"GET http://b:80/x?y HTTP/1.1\r\nHost: a\r\n\r\n",
         "v11 none keep|:method=GET|:scheme=http|:authority=b:80|:path=/x?y"},
        {"GET HTTP://b HTTP/1.1\r\nHost: a\r\n\r\n", "v11 none keep|:method=GET|:scheme=http|:authority=b|:path=/"},
        {"GET https://b?q HTTP/1.1\r\nHost: a\r\n\r\n",
         "v11 none keep|:method=GET|:scheme=http|:authority=b|:path=/?q"},
        {"OPTIONS http://b HTTP/1.1\r\nHost: a\r\n\r\n",
         "v11 none keep|:method=OPTIONS|:scheme=http|:authority=b|:path=*"},
        {"GET / HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n",
         "v11 none keep|:method=GET|:scheme=http|:authority=[::1]:8080|:path=/"},
        {"GET / HTTP/1.1\r\nHost: x_y.%41-~b:65535\r\n\r\n",
         "v11 none keep|:method=GET|:scheme=http|:authority=x_y.%41-~b:65535|:path=/"},
        {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
         "v11 length=5 keep" HEAD("POST", "/") "|content-length=5"},
        {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
         "v11 length=0" HEAD("POST", "/") "|content-length=0"},
        {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775807\r\n\r\n",
         "v11 length=9223372036854775807 keep" HEAD("POST", "/") "|content-length=9223372036854775807"},
        {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", "v11 chunked keep" HEAD("POST", "/")},
        {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\nTE: trailers, deflate\r\nTrailer: x\r\n\r\n",
         "v11 chunked keep" HEAD("POST", "/") "|te=trailers"},
        {"GET / HTTP/1.1\r\nHost: a\r\nTE: deflate\r\nKeep-Alive: 5\r\nProxy-Connection: close\r\n\r\n",
         "v11 none keep" HEAD("GET", "/")},
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: X-A,, keep-alive ,x-b\r\nX-A: 1\r\nX-B: 2\r\nX-C: 3\r\nx-a: "
         "4\r\n\r\n",
         "v11 none keep" HEAD("GET", "/") "|x-c=3"},
        {"POST / HTTP/1.1\r\nHost: a\r\nConnection: host, content-length, te\r\nContent-Length: 5\r\nTE: "
         "trailers\r\n\r\n",
         "v11 length=5 keep" HEAD("POST", "/") "|content-length=5|te=trailers"},
        {"POST / HTTP/1.1\r\nHost: a\r\nConnection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n",
         "v11 chunked keep" HEAD("POST", "/")},
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nConnection: keep-alive\r\n\r\n",
         "v11 none" HEAD("GET", "/")},
        {"GET / HTTP/1.0\r\n\r\n", "v10 none|:method=GET|:scheme=http|:path=/"},
        {"GET / HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n", "v10 none keep" HEAD("GET", "/")},
        {"GET / HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive, close\r\n\r\n", "v10 none" HEAD("GET", "/")},
        {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-Continue\r\n\r\n",
         "v11 length=5 keep expect" HEAD("POST", "/") "|content-length=5|expect=100-Continue"},
        {"POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
         "v10 length=5" HEAD("POST", "/") "|content-length=5|expect=100-continue"},
        {"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
         "v11 none keep" HEAD("GET", "/") "|expect=100-continue"},
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
         "v11 none keep upgrade" HEAD("GET", "/") "|connection=upgrade|upgrade=websocket"},
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: foo/2\r\n\r\n",
         "v11 none keep upgrade" HEAD("GET", "/") "|connection=upgrade|upgrade=foo/2"},
        /* what does not become an upgrade */
        {"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n", "v11 none keep" HEAD("GET", "/")},
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: a, b\r\n\r\n", "v11 none keep" HEAD("GET", "/")},
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: a\r\nUpgrade: b\r\n\r\n",
         "v11 none keep" HEAD("GET", "/")},
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: "
         "x\r\n\r\n",
         "v11 none keep" HEAD("GET", "/")},
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: H2C\r\nHTTP2-Settings: x\r\n\r\n",
         "v11 none keep" HEAD("GET", "/")},
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: HTTP/2.0\r\n\r\n",
         "v11 none keep" HEAD("GET", "/")},
        {"POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\nContent-Length: 1\r\n\r\n",
         "v11 length=1 keep" HEAD("POST", "/") "|content-length=1"},
        {"GET / HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n", "v10 none" HEAD("GET", "/")},
    };

    (void)state;
    check_good(true, "", rows, ARRAY_LEN(rows));
}

struct bad {
    enum parse result;
    const char *in;
    size_t n;
};
#define BAD(text)                                                                                                      \
    {                                                                                                                  \
        PARSE_BAD, text, sizeof(text) - 1                                                                              \
    }
#define ROW(result, text)                                                                                              \
    {                                                                                                                  \
        result, text, sizeof(text) - 1                                                                                 \
    }

static void check_bad(bool request, const char *method, const struct bad *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct outcome o = parse_all_ways(request, str_of(method), str_span(rows[i].in, rows[i].n), &limits);
        if (o.result != rows[i].result)
            print_message("row %zu gave %d: %s\n", i, (int)o.result, rows[i].in);
        assert_int_equal(o.result, rows[i].result);
        strbuf_free(&o.text);
    }
}

#define GET(rest) "GET / HTTP/1.1\r\nHost: a\r\n" rest "\r\n"

static void requests_that_are_refused(void **state)
{
    static const struct bad rows[] = {
        /* line ends */
        BAD("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        BAD("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        BAD("\rGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        BAD("GET / HTTP/1.1\nHost: a\r\n\r\n"),
        BAD("GET / HTTP/1.1\r\nHost: a\n\r\n"),
        BAD("GET / HTTP/1.1\r\nHost: a\r\n\n"),
        BAD("GET / HTTP/1.1\rHost: a\r\n\r\n"),
        BAD(GET("X: a\rb\r\n")),
        BAD(GET("X: a\r\r\n")),
        BAD(GET("\rX: a\r\n")),
        BAD("GET / HTTP/1.1\r\nHost: a\r\nX: b\r\r\n\r\n"),
        /* request line */
        BAD(" GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        BAD("GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
        BAD("GET /  HTTP/1.1\r\nHost: a\r\n\r\n"),
        BAD("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        BAD("GET / HTTP/1.1 \r\nHost: a\r\n\r\n"),
        BAD("GET / \r\nHost: a\r\n\r\n"),
        BAD("GET /\r\nHost: a\r\n\r\n"),
        BAD("GET\r\nHost: a\r\n\r\n"),
        BAD("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
        BAD("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"),
        BAD("GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n"),
        BAD("GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n"),
        BAD("GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n"),
        BAD("GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n"),
        BAD("G\0T / HTTP/1.1\r\nHost: a\r\n\r\n"),
        BAD("G(T / HTTP/1.1\r\nHost: a\r\n\r\n"),
        BAD("GET@ / HTTP/1.1\r\nHost: a\r\n\r\n"),
        BAD("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG / HTTP/1.1\r\nHost: a\r\n\r\n"),
        BAD("GET / http/1.1\r\nHost: a\r\n\r\n"),
        BAD("GET / HTTP/11\r\nHost: a\r\n\r\n"),
        BAD("GET / HTTP/1.11\r\nHost: a\r\n\r\n"),
        BAD("GET / HTTP/1.\r\nHost: a\r\n\r\n"),
        BAD("GET / HTTP/x.1\r\nHost: a\r\n\r\n"),
        BAD("GET / HTCPCP/1.1\r\nHost: a\r\n\r\n"),
        BAD("\x16\x03\x01\x02"),
        ROW(PARSE_BAD_VERSION, "GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
        ROW(PARSE_BAD_VERSION, "GET / HTTP/0.9\r\nHost: a\r\n\r\n"),
        BAD("PRI * HTTP/1.1\r\nHost: a\r\n\r\n"),
        ROW(PARSE_BAD_VERSION, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        /* target forms */
        ROW(PARSE_UNSUPPORTED, "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n"),
        BAD("GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
        BAD("OPTIONS ** HTTP/1.1\r\nHost: a\r\n\r\n"),
        BAD("GET a:443 HTTP/1.1\r\nHost: a\r\n\r\n"),
        BAD("GET a/b HTTP/1.1\r\nHost: a\r\n\r\n"),
        BAD("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        BAD("GET http:// HTTP/1.1\r\nHost: a\r\n\r\n"),
        BAD("GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n"),
        BAD("GET http://?x HTTP/1.1\r\nHost: a\r\n\r\n"),
        BAD("GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        BAD("GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        BAD("GET http://a:x/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        BAD("GET http://a/ HTTP/1.1\r\n\r\n"),
        BAD("GET http://a/ HTTP/1.1\r\nHost: b c\r\n\r\n"),
        /* host */
        BAD("GET / HTTP/1.1\r\n\r\n"),
        BAD("GET / HTTP/1.1\r\nHost:\r\n\r\n"),
        BAD("GET / HTTP/1.0\r\nHost:\r\n\r\n"),
        BAD(GET("Host: a\r\n")),
        BAD("GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
        BAD("GET / HTTP/1.1\r\nHost: a,b@c\r\n\r\n"),
        BAD("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"),
        BAD("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
        BAD("GET / HTTP/1.1\r\nHost: a:\r\n\r\n"),
        BAD("GET / HTTP/1.1\r\nHost: a:b\r\n\r\n"),
        BAD("GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n"),
        BAD("GET / HTTP/1.1\r\nHost: a:1:2\r\n\r\n"),
        BAD("GET / HTTP/1.1\r\nHost: :80\r\n\r\n"),
        BAD("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n"),
        BAD("GET / HTTP/1.1\r\nHost: []\r\n\r\n"),
        BAD("GET / HTTP/1.1\r\nHost: [::1]x\r\n\r\n"),
        BAD("GET / HTTP/1.1\r\nHost: a%4\r\n\r\n"),
        BAD("GET / HTTP/1.1\r\nHost: \xc3\xa9\r\n\r\n"),
        /* fields */
        BAD(GET("X : a\r\n")),
        BAD(GET("X\t: a\r\n")),
        BAD(GET(": a\r\n")),
        BAD(GET("X\r\n")),
        BAD(GET("X Y: a\r\n")),
        BAD(GET("X(: a\r\n")),
        BAD(GET("\xe9: a\r\n")),
        BAD(GET(":path: /admin\r\n")),
        BAD(GET("X: a\r\n b\r\n")),
        BAD(GET("X: a\r\n\tb\r\n")),
        BAD(GET("X: a\r\n : b\r\n")),
        BAD("GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
        BAD(GET("X: a\0b\r\n")),
        BAD(GET("X: a\x01"
                "b\r\n")),
        BAD(GET("X: a\x0b"
                "b\r\n")),
        BAD(GET("X: 12345678\x1f\r\n")),
        BAD(GET("X: a\x7f"
                "b\r\n")),
        BAD(GET("X\0: a\r\n")),
        /* framing */
        BAD(GET("Content-Length: 5\r\nContent-Length: 5\r\n")),
        BAD(GET("Content-Length: 5\r\nContent-Length: 6\r\n")),
        BAD(GET("Content-Length: 5, 5\r\n")),
        BAD(GET("Content-Length: +5\r\n")),
        BAD(GET("Content-Length: -5\r\n")),
        BAD(GET("Content-Length: 5 5\r\n")),
        BAD(GET("Content-Length: 0x5\r\n")),
        BAD(GET("Content-Length: 5a\r\n")),
        BAD(GET("Content-Length:\r\n")),
        BAD(GET("Content-Length: 9223372036854775808\r\n")),
        BAD(GET("Content-Length: 18446744073709551621\r\n")),
        BAD(GET("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n")),
        BAD(GET("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n")),
        BAD(GET("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n")),
        BAD(GET("Transfer-Encoding: gzip, chunked\r\n")),
        BAD(GET("Transfer-Encoding: chunked, identity\r\n")),
        BAD(GET("Transfer-Encoding: identity\r\n")),
        BAD(GET("Transfer-Encoding: xchunked\r\n")),
        BAD(GET("Transfer-Encoding: chunked;q=1\r\n")),
        BAD(GET("Transfer-Encoding: \"chunked\"\r\n")),
        BAD(GET("Transfer-Encoding: chunked,\r\n")),
        BAD(GET("Transfer-Encoding: \x0b"
                "chunked\r\n")),
        BAD(GET("Transfer-Encoding:\r\n")),
        BAD("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"),
        BAD("POST / HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: identity\r\n\r\n"),
        BAD(GET("Connection: a b\r\n")),
        BAD(GET("Connection: close;x\r\n")),
        BAD(GET("Connection: :path\r\n")),
        BAD(GET("Connection: a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a\r\n")),
    };

    (void)state;
    check_bad(true, "", rows, ARRAY_LEN(rows));
}

static void requests_that_are_incomplete(void **state)
{
    static const struct bad rows[] = {
        ROW(PARSE_MORE, ""),
        ROW(PARSE_MORE, "\r"),
        ROW(PARSE_MORE, "\r\n"),
        ROW(PARSE_MORE, "GET / HTTP/1.1\r\nHost: a\r\n"),
        ROW(PARSE_MORE, "GET / HTTP/1.1\r\nHost: a\r\n\r"),
    };

    (void)state;
    check_bad(true, "", rows, ARRAY_LEN(rows));
}

static void responses_that_are_taken(void **state)
{
    static const struct good rows[] = {
        {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", "v11 length=3 keep|:status=200|content-length=3"},
        {"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", "v11 length=0 keep|:status=200|content-length=0"},
        {"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "v11 length=0 keep|:status=200|content-length=0"},
        {"HTTP/1.1 299 so it is: \t\xe9\r\nTransfer-Encoding: Chunked\r\n\r\n", "v11 chunked keep|:status=299"},
        {"HTTP/1.1 200 OK\r\n\r\n", "v11 close|:status=200"},
        {"HTTP/1.0 200 OK\r\n\r\n", "v10 close|:status=200"},
        {"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n", "v10 length=3|:status=200|content-length=3"},
        {"HTTP/1.0 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\n",
         "v10 length=3 keep|:status=200|content-length=3"},
        {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\n",
         "v11 length=3|:status=200|content-length=3"},
        {"HTTP/1.1 204 No\r\nContent-Length: 3\r\n\r\n", "v11 none keep|:status=204|content-length=3"},
        {"HTTP/1.1 304 No\r\nContent-Length: 3\r\n\r\n", "v11 none keep|:status=304|content-length=3"},
        {"HTTP/1.1 100 Continue\r\n\r\n", "v11 none keep|:status=100"},
        {"HTTP/1.1 103 Hints\r\nLink: x\r\n\r\n", "v11 none keep|:status=103|link=x"},
        {"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
         "v11 tunnel upgrade|:status=101|connection=upgrade|upgrade=websocket"},
        {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: upgrade\r\nUpgrade: h2c\r\nSet-Cookie: a\r\nset-cookie: "
         "b\r\n\r\n",
         "v11 length=1 keep|:status=200|content-length=1|set-cookie=a|set-cookie=b"},
    };
    static const struct good to_head[] = {
        {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", "v11 none keep|:status=200|content-length=3"},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "v11 none keep|:status=200"},
        {"HTTP/1.1 200 OK\r\n\r\n", "v11 none keep|:status=200"},
    };

    (void)state;
    check_good(false, "GET", rows, ARRAY_LEN(rows));
    check_good(false, "HEAD", to_head, ARRAY_LEN(to_head));
}

static void responses_that_are_refused(void **state)
{
    static const struct bad rows[] = {
        BAD("\r\nHTTP/1.1 200 OK\r\n\r\n"),
        BAD("ICY 200 OK\r\n\r\n"),
        BAD("http/1.1 200 OK\r\n\r\n"),
        BAD("HTTP/1.1  200 OK\r\n\r\n"),
        BAD("HTTP/1.1 20 OK\r\n\r\n"),
        BAD("HTTP/1.1 2000 OK\r\n\r\n"),
        BAD("HTTP/1.1 099 OK\r\n\r\n"),
        BAD("HTTP/1.1 2a0 OK\r\n\r\n"),
        BAD("HTTP/1.1 \r\n\r\n"),
        BAD("HTTP/1.1\r\n\r\n"),
        BAD("HTTP\r\n\r\n"),
        BAD("H\r\n\r\n"),
        BAD("HTTP/1.1 200 O\0K\r\n\r\n"),
        BAD("HTTP/1.1 200 O\rK\r\n\r\n"),
        BAD("HTTP/1.1 200 OK\n\r\n"),
        BAD("HTTP/1.1 200 OK\r\n Folded: 1\r\n\r\n"),
        BAD("HTTP/1.1 200 OK\r\nX : 1\r\n\r\n"),
        BAD("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n"),
        BAD("HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\n"),
        BAD("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"),
        BAD("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"),
        BAD("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n"),
        BAD("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ROW(PARSE_BAD_VERSION, "HTTP/2.0 200 OK\r\n\r\n"),
        ROW(PARSE_MORE, "HTTP/1.1 200 OK\r\nX: 1\r\n"),
    };

    (void)state;
    check_bad(false, "GET", rows, ARRAY_LEN(rows));
}

static void check_limit(struct str in, enum parse expect)
{
    static const struct h1_limits small = {.head_bytes = 200, .uri_bytes = 60, .headers = 3, .trailer_bytes = 10};
    struct outcome o = parse_all_ways(true, STR_NONE, in, &small);

    assert_int_equal(o.result, expect);
    strbuf_free(&o.text);
}

static void limits_hold_exactly(void **state)
{
    char in[600];
    int n;

    (void)state;
    for (int uri = 58; uri <= 200; uri++) {
        n = snprintf(in, sizeof in, "GET /%0*d HTTP/1.1\r\nHost: a\r\n\r\n", uri - 1, 7);
        check_limit(str_span(in, (size_t)n), uri <= 60 ? PARSE_DONE : PARSE_URI_TOO_LONG);
    }
    for (int pad = 150; pad <= 250; pad++) {
        n = snprintf(in, sizeof in, "GET / HTTP/1.1\r\nHost: a\r\nX: %0*d\r\n\r\n", pad, 7);
        check_limit(str_span(in, (size_t)n), n <= 200 ? PARSE_DONE : PARSE_HEAD_TOO_LARGE);
    }
    check_limit(STR(GET("X: 1\r\nY: 2\r\n")), PARSE_DONE);
    check_limit(STR(GET("X: 1\r\nY: 2\r\nZ: 3\r\n")), PARSE_HEAD_TOO_LARGE);
}

static void an_arena_at_its_ceiling_refuses(void **state)
{
    struct arena arena;
    struct message m;
    size_t from = 0, used;
    const char *why;

    (void)state;
    arena_init(&arena, pool, 16);
    assert_int_equal(h1_parse_request(STR(GET("")), &limits, &from, &arena, &m, &used, &why), PARSE_HEAD_TOO_LARGE);
    arena_fini(&arena);
}

static void only_the_head_is_used(void **state)
{
    struct arena arena;
    struct message m;
    size_t from = 0, used = 0;
    const char *why;
    struct str in = STR(GET("") "GET /2 HTTP/1.1\r\n");

    (void)state;
    arena_init(&arena, pool, 1 << 20);
    assert_int_equal(h1_parse_request(in, &limits, &from, &arena, &m, &used, &why), PARSE_DONE);
    assert_int_equal(used, sizeof(GET("")) - 1);
    assert_int_equal(headers_set(&m.headers, STR("x"), STR("y")), HEADERS_OK);
    arena_fini(&arena);
}

/* ---- chunked ---- */

/* Decodes in, fed in pieces of `step` bytes; data and trailers as text in out. */
static enum parse decode(struct str in, size_t step, struct strbuf *out)
{
    struct arena arena;
    struct headers trailers = {0};
    struct h1_chunked c;
    size_t at = 0, there = 0;
    enum parse r = PARSE_MORE;
    const char *why = NULL;

    arena_init(&arena, pool, 1 << 20);
    h1_chunked_init(&c);
    strbuf_clear(out);
    while (c.state != H1_CHUNK_DONE) {
        size_t skip, data;
        r = h1_chunked_next(&c, str_span(in.p + at, there - at), &limits, &arena, &trailers, &skip, &data, &why);
        if (r == PARSE_MORE) {
            if (there == in.n)
                break;
            there = in.n - there < step ? in.n : there + step;
            continue;
        }
        if (r != PARSE_DONE) {
            assert_non_null(why);
            break;
        }
        strbuf_add(out, str_span(in.p + at + skip, data));
        at += skip + data;
    }
    for (uint32_t i = 0; i < trailers.count; i++)
        strbuf_printf(out, "|%.*s=%.*s", STR_ARG(trailers.list[i].name), STR_ARG(trailers.list[i].value));
    if (c.state == H1_CHUNK_DONE && r == PARSE_DONE)
        strbuf_printf(out, "|%zu left", in.n - at);
    arena_fini(&arena);
    return r;
}

static void chunks_that_are_taken(void **state)
{
    static const struct good rows[] = {
        {"0\r\n\r\n", "|0 left"},
        {"3\r\nabc\r\n0\r\n\r\nGET", "abc|3 left"},
        {"0003\r\nabc\r\nA\r\n0123456789\r\n00\r\n\r\n", "abc0123456789|0 left"},
        {"3;x\r\nabc\r\n2;a=b;c=\"d e\"\r\nde\r\n0;last\r\n\r\n", "abcde|0 left"},
        {"1\r\na\r\n0\r\nX-T: 1\r\nY:\r\n\r\n", "a|x-t=1|y=|0 left"},
        {"0\r\nContent-Length: 5\r\nHost: x\r\nTransfer-Encoding: y\r\nX: 1\r\n\r\n", "|x=1|0 left"},
    };
    struct strbuf out = {0};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        for (size_t step = 1; step < 60; step++) {
            assert_int_equal(decode(str_of(rows[i].in), step, &out), PARSE_DONE);
            assert_true(str_is(strbuf_str(&out), rows[i].expect));
        }
    strbuf_free(&out);
}

static void chunks_that_are_refused(void **state)
{
    static const struct bad rows[] = {
        BAD("\r\n"),
        BAD(" 3\r\nabc\r\n"),
        BAD("3 \r\nabc\r\n"),
        BAD("3 ;x\r\nabc\r\n"),
        BAD("+3\r\nabc\r\n"),
        BAD("-1\r\n"),
        BAD("0x3\r\nabc\r\n"),
        BAD("g\r\n"),
        BAD("3g\r\nabc\r\n"),
        BAD("3\nabc\r\n"),
        BAD("3\r\r\nabc\r\n"),
        BAD("3\rabc\r\n"),
        BAD("3;a\rb\r\nabc\r\n"),
        BAD("3;a\0b\r\nabc\r\n"),
        BAD("3;a\x01\r\nabc\r\n"),
        BAD("3\r\nabcd\r\n"),
        BAD("3\r\nabc\n0\r\n\r\n"),
        BAD("3\r\nabc0\r\n\r\n"),
        BAD("3\r\nabc\r0\r\n\r\n"),
        BAD("8000000000000000\r\n"),
        BAD("fffffffffffffffff\r\n"),
        BAD("10000000000000003\r\n"),
        BAD("00000000000000003\r\nabc\r\n"),
        BAD("3;0123456789012345678901234567890123456789012345678901234567890123456789\r\nabc\r\n0\r\n\r\n"),
        BAD("0\r\nX : 1\r\n\r\n"),
        BAD("0\r\n X: 1\r\n\r\n"),
        BAD("0\r\nX: 1\r\n Y\r\n\r\n"),
        BAD("0\r\nX: 1\n\r\n"),
        BAD("0\r\n\n"),
        BAD("0\r\nX: a\rb\r\n\r\n"),
        BAD("0\r\n\rX: a\r\n\r\n"),
        BAD("0\r\n: a\r\n\r\n"),
        ROW(PARSE_HEAD_TOO_LARGE, "0\r\na:\r\na:\r\na:\r\na:\r\na:\r\na:\r\na:\r\na:\r\na:\r\na:\r\na:\r\na:\r\na:\r\n"
                                  "a:\r\na:\r\na:\r\na:\r\na:\r\na:\r\na:\r\na:\r\na:\r\n\r\n"),
        ROW(PARSE_MORE, "3\r\nab"),
        ROW(PARSE_MORE, "3\r\nabc"),
        ROW(PARSE_MORE, "3\r\nabc\r\n0\r\n"),
        ROW(PARSE_MORE, "3"),
    };
    struct strbuf out = {0};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        for (size_t step = 1; step < 70; step++) {
            enum parse r = decode(str_span(rows[i].in, rows[i].n), step, &out);
            if (r != rows[i].result)
                print_message("row %zu step %zu gave %d: %s\n", i, step, (int)r, rows[i].in);
            assert_int_equal(r, rows[i].result);
        }
    strbuf_free(&out);
}

static void long_trailers_are_refused(void **state)
{
    struct strbuf in = {0}, out = {0};

    (void)state;
    strbuf_addz(&in, "0\r\nX: ");
    for (int i = 0; i < 300; i++)
        strbuf_addc(&in, 'a');
    strbuf_addz(&in, "\r\n\r\n");
    for (size_t step = 1; step < 400; step += 7)
        assert_int_equal(decode(strbuf_str(&in), step, &out), PARSE_HEAD_TOO_LARGE);
    strbuf_free(&in);
    strbuf_free(&out);
}

/* A byte of data at a time, each behind a long extension, must not go on for ever; without extensions it may. */
static void extensions_are_outweighed_by_data(void **state)
{
    struct strbuf in = {0}, out = {0};

    (void)state;
    for (int i = 0; i < 1000; i++)
        strbuf_addz(&in, "1;0123456789012345678901234567890123456789012345678901234567\r\nx\r\n");
    strbuf_addz(&in, "0\r\n\r\n");
    assert_int_equal(decode(strbuf_str(&in), in.n, &out), PARSE_BAD);
    strbuf_clear(&in);
    for (int i = 0; i < 10000; i++)
        strbuf_addz(&in, "1;0123456789abcdef\r\nx\r\n");
    strbuf_addz(&in, "0\r\n\r\n");
    assert_int_equal(decode(strbuf_str(&in), in.n, &out), PARSE_DONE);
    strbuf_free(&in);
    strbuf_free(&out);
}

/* ---- the checks for what guests write ---- */

static void byte_classes_are_those_of_the_grammar(void **state)
{
    (void)state;
    for (int c = 0; c < 256; c++) {
        char byte = (char)c;
        struct str s = str_span(&byte, 1);
        bool alpha = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'), digit = c >= '0' && c <= '9';
        bool token = alpha || digit || (c != 0 && strchr("!#$%&'*+-.^_`|~", c) != NULL);

        assert_int_equal(h1_is_token(s), token);
        assert_int_equal(h1_is_field_value(s), c == '\t' || (c >= 0x20 && c != 0x7f));
        assert_int_equal(h1_lower_of(byte), !token ? 0 : c >= 'A' && c <= 'Z' ? c + 32 : c);
        assert_int_equal(h1_is(byte, H1_TARGET), c > 0x20 && c < 0x7f && c != '#');
        assert_int_equal(h1_is_authority(s), alpha || digit || (c != 0 && strchr("-._~!$&'()*+,;=", c) != NULL));
    }
    assert_false(h1_is_token(STR("")));
    assert_true(h1_is_field_value(STR("")));
    assert_true(h1_is_field_value(STR_NONE));
    assert_false(h1_is_authority(STR("")));
}

static void find_control_finds_the_first(void **state)
{
    char text[40];

    (void)state;
    for (size_t at = 0; at < sizeof text; at++)
        for (int c = 0; c < 256; c++) {
            bool control = c < 0x20 || c == 0x7f;
            memset(text, at % 2 == 0 ? '\x80' : ' ', sizeof text);
            text[at] = (char)c;
            if (at + 1 < sizeof text)
                text[at + 1] = '\x1f';
            assert_ptr_equal(h1_find_control(text, text + sizeof text), text + at + (control ? 0 : 1));
        }
}

static void paths(void **state)
{
    (void)state;
    assert_true(h1_is_path(STR("/")));
    assert_true(h1_is_path(STR("/a/../b?c=%00")));
    assert_true(h1_is_path(STR("*")));
    assert_false(h1_is_path(STR("")));
    assert_false(h1_is_path(STR("a")));
    assert_false(h1_is_path(STR("*a")));
    assert_false(h1_is_path(STR("/a b")));
    assert_false(h1_is_path(STR("/a#b")));
    assert_false(h1_is_path(STR("/a\r\nb")));
    assert_false(h1_is_path(STR("/\xc3\xa9")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_that_are_taken),
        cmocka_unit_test(requests_that_are_refused),
        cmocka_unit_test(requests_that_are_incomplete),
        cmocka_unit_test(responses_that_are_taken),
        cmocka_unit_test(responses_that_are_refused),
        cmocka_unit_test(limits_hold_exactly),
        cmocka_unit_test(an_arena_at_its_ceiling_refuses),
        cmocka_unit_test(only_the_head_is_used),
        cmocka_unit_test(chunks_that_are_taken),
        cmocka_unit_test(chunks_that_are_refused),
        cmocka_unit_test(long_trailers_are_refused),
        cmocka_unit_test(extensions_are_outweighed_by_data),
        cmocka_unit_test(byte_classes_are_those_of_the_grammar),
        cmocka_unit_test(find_control_finds_the_first),
        cmocka_unit_test(paths),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
