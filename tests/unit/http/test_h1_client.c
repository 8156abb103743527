/* SPDX-License-Identifier: Apache-2.0
 *
 * The HTTP/1 codec as a client: how requests are framed, what responses do to the connection, and what an upstream must
 * not do.
 */
#include "h1_rig.h"

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
         "head(200) body=abc trailers(x=1;) reuse", NULL},
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

/* A filter may remove the upgrade of a request that asked for one: it must not wait for a body that cannot come. */
static void an_upgrade_that_a_filter_took_back(void **state)
{
    struct rig r;

    (void)state;
    open_client(&r);
    struct message *m = request(&r, "GET", "/", BODY_NONE, 0);
    m->upgrade = true;
    send_head(&r, m, false);
    expect_str(sent(&r), "GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    r.detaches_at_end = true;
    feed(&r, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na");
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
        cmocka_unit_test(an_upgrade_that_a_filter_took_back),
        cmocka_unit_test(no_tunnel_bytes_before_the_switch),
        cmocka_unit_test(the_next_exchange_may_begin_inside_the_last_event),
        cmocka_unit_test(a_stream_may_detach_inside_any_event),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
