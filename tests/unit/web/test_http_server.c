/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests over real sockets: pipelined, chunked, half-closed, too large, too slow, and more than it takes.
 */
#include "../http_rig.h"

#include <sys/resource.h>

static struct loop loop;
static struct http_server *server;
static struct addr addr;
static size_t answer_bytes;
static unsigned handled;

static struct http_exchange *later;
static bool was_gone;
static unsigned marks[8];

static void on_gone(void *owner)
{
    assert_ptr_equal(owner, &later);
    was_gone = true;
    later = NULL;
}

static void handle(void *arg, const struct http_request *r, struct http_response *out)
{
    (void)arg;
    marks[handled % ARRAY_LEN(marks)] = (*r->mark)++;
    handled++;
    if (str_is(r->path, "/later")) {
        later = r->exchange;
        http_exchange_defer(r->exchange, on_gone, &later);
        return;
    }
    if (str_is(r->path, "/at-once")) {
        struct http_response now = {.status = 201};
        http_exchange_defer(r->exchange, NULL, NULL);
        http_exchange_answer(r->exchange, &now);
        return;
    }
    if (str_is(r->path, "/large")) {
        for (size_t i = 0; i < answer_bytes; i++)
            strbuf_addc(&out->body, 'x');
        return;
    }
    out->status = str_is(r->path, "/missing") ? 404 : 200;
    out->close = str_is(r->path, "/close");
    strbuf_addz(&out->headers, "x-one: 1\nx-two: 2\n");
    strbuf_printf(&out->body, "%.*s %.*s [%.*s] %.*s <%.*s>", STR_ARG(r->method), STR_ARG(r->path), STR_ARG(r->query),
                  STR_ARG(r->authority), STR_ARG(r->body));
}

static void start(size_t connections, uint64_t idle_ms)
{
    handled = 0;
    later = NULL;
    was_gone = false;
    loop_init(&loop);
    int fd = rig_listen(&addr);
    server =
        http_server_new(&loop, fd,
                        &(struct http_server_options){
                            .max_connections = connections, .max_body = 1000, .idle_ms = idle_ms, .handle = handle});
}
static int setup(void **state)
{
    (void)state;
    start(4, 60000);
    return 0;
}
static int setup_impatient(void **state)
{
    (void)state;
    start(4, 50);
    return 0;
}
static int teardown(void **state)
{
    (void)state;
    http_server_free(server);
    loop_fini(&loop);
    return 0;
}

static void has(const char *text, const char *what)
{
    if (strstr(text, what) == NULL)
        fail_msg("\"%s\" is not in \"%.500s\"", what, text);
}

static void test_one_request(void **state)
{
    (void)state;
    const char *a = rig_ask(&loop, &addr, "GET /a/b?c=d&e HTTP/1.1\r\nHost: h:1\r\n\r\n");
    has(a, "HTTP/1.1 200 OK\r\n");
    has(a, "content-type: text/plain");
    has(a, "x-one: 1\r\n");
    has(a, "x-two: 2\r\n");
    has(a, "\r\n\r\nGET /a/b [c=d&e] h:1 <>");
}

/* ---- answers that come later ---- */

static bool has_later(void *arg)
{
    (void)arg;
    return later != NULL;
}
static bool is_gone(void *arg)
{
    (void)arg;
    return was_gone;
}

struct wanted {
    struct rig_client *client;
    const char *text;
};
static bool text_came(void *arg)
{
    struct wanted *w = arg;
    return strstr(rig_read(w->client), w->text) != NULL;
}
static void wait_text(struct rig_client *c, const char *text)
{
    struct wanted w = {c, text};
    run_until(&loop, text_came, &w);
}

static void test_answer_later(void **state)
{
    (void)state;
    struct rig_client client, *c = &client;
    rig_connect(c, &addr);
    rig_send(c, "GET /later HTTP/1.1\r\nHost: h\r\n\r\nGET /next HTTP/1.1\r\nHost: h\r\n\r\n");
    run_until(&loop, has_later, NULL);
    struct http_response r = {.status = 202};
    strbuf_addz(&r.body, "late");
    strbuf_addz(&r.headers, "x-three: 3\n");
    http_exchange_answer(later, &r);
    wait_text(c, "GET /next []");
    has(rig_read(c), "HTTP/1.1 202 Accepted\r\n");
    has(rig_read(c), "x-three: 3\r\n");
    has(rig_read(c), "\r\n\r\nlateHTTP/1.1 200");
    assert_int_equal(marks[0], 0);
    assert_int_equal(marks[1], 1); /* the same connection */
    rig_close(c);
    assert_false(was_gone);
    has(rig_ask(&loop, &addr, "GET /at-once HTTP/1.1\r\nHost: h\r\n\r\n"), "HTTP/1.1 201 Created");
}

static void test_stream(void **state)
{
    (void)state;
    struct rig_client client, *c = &client;
    rig_connect(c, &addr);
    rig_send(c, "GET /later HTTP/1.1\r\nHost: h\r\n\r\n");
    run_until(&loop, has_later, NULL);
    struct http_response r = {.status = 200, .content_type = "application/json"};
    http_exchange_begin(later, &r);
    http_exchange_send(later, STR("one\n"));
    wait_text(c, "4\r\none\n\r\n");
    has(rig_read(c), "transfer-encoding: chunked\r\n");
    http_exchange_send(later, STR("three\n"));
    http_exchange_end(later);
    wait_text(c, "6\r\nthree\n\r\n0\r\n\r\n");
    rig_send(c, "GET /again HTTP/1.1\r\nHost: h\r\n\r\n");
    wait_text(c, "GET /again []");
    rig_close(c);
    assert_false(was_gone);
}

static void gone_while(bool stream)
{
    struct rig_client client, *c = &client;
    rig_connect(c, &addr);
    rig_send(c, "GET /later HTTP/1.1\r\nHost: h\r\n\r\n");
    run_until(&loop, has_later, NULL);
    struct http_response r = {.status = 200};
    if (stream)
        http_exchange_begin(later, &r);
    rig_close(c);
    if (!stream) /* it may only have finished sending: known once it is written to */
        return;
    run_until(&loop, is_gone, NULL);
    assert_null(later);
}
static void test_gone_while_streaming(void **state)
{
    (void)state;
    gone_while(true);
}
/* teardown frees the server: the owner is told. */
static void test_gone_with_the_server(void **state)
{
    (void)state;
    gone_while(false);
}

/* One that takes nothing of what is streamed to it. */
static void test_stream_to_a_stuck_client(void **state)
{
    (void)state;
    struct rig_client client, *c = &client;
    rig_connect(c, &addr);
    rig_send(c, "GET /later HTTP/1.1\r\nHost: h\r\n\r\n");
    run_until(&loop, has_later, NULL);
    struct http_response r = {.status = 200};
    http_exchange_begin(later, &r);
    static char block[64 * 1024];
    for (int i = 0; i < 200; i++)
        http_exchange_send(later, str_span(block, sizeof block));
    assert_true(http_exchange_queued(later) > 0);
    run_until(&loop, is_gone, NULL);
    rig_close(c);
}

static void test_bodies(void **state)
{
    (void)state;
    has(rig_ask(&loop, &addr, "POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"), "<hello>");
    has(rig_ask(&loop, &addr,
                "POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"),
        "<hello>");
    has(rig_ask(&loop, &addr,
                "POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx: y\r\n\r\n"),
        "<hello>");
    has(rig_ask(&loop, &addr, "POST /p HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi"),
        "<hi>");
}

static void test_body_too_large(void **state)
{
    (void)state;
    char text[4096] = "POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 1001\r\n\r\n";
    memset(text + strlen(text), 'x', 1001);
    has(rig_ask(&loop, &addr, text), "HTTP/1.1 413 ");
    assert_int_equal(handled, 0);
    /* Chunk by chunk, too. */
    strcpy(text, "POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 11; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "64\r\n%0100d\r\n", i);
    has(rig_ask(&loop, &addr, text), "HTTP/1.1 413 ");
    assert_int_equal(handled, 0);
}

/* Neither its announcement nor its bytes are waited for. */
static void test_body_too_large_at_once(void **state)
{
    (void)state;
    const char *a =
        rig_ask(&loop, &addr, "POST /p HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 1001\r\n\r\n");
    has(a, "HTTP/1.1 413 ");
    assert_null(strstr(a, "100 Continue"));
    assert_int_equal(handled, 0);
}

/* Nothing here upgrades: kubectl port-forward and exec are told so, and do not hang. */
static void test_upgrade_is_answered(void **state)
{
    (void)state;
    has(rig_ask(&loop, &addr, "GET /x HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
        "HTTP/1.1 200 ");
    assert_int_equal(handled, 1);
}

static void test_head_and_close(void **state)
{
    (void)state;
    const char *a = rig_ask(&loop, &addr, "HEAD /x HTTP/1.1\r\nHost: h\r\n\r\n");
    has(a, "content-length: ");
    assert_string_equal(strstr(a, "\r\n\r\n"), "\r\n\r\n");
    struct rig_client c;
    rig_connect(&c, &addr);
    rig_send(&c, "GET /close HTTP/1.1\r\nHost: h\r\n\r\n");
    rig_wait_closed(&loop, &c);
    has(c.got.p, "onnection: close\r\n");
    rig_close(&c);
}

static void test_malformed(void **state)
{
    (void)state;
    has(rig_ask(&loop, &addr, "GET / HTTP/1.1\r\nHost: h\r\nX : y\r\n\r\n"), "HTTP/1.1 400 ");
    has(rig_ask(&loop, &addr, "nonsense\r\n\r\n"), "HTTP/1.1 400 ");
    assert_int_equal(handled, 0);
}

static void test_keep_alive_and_pipelining(void **state)
{
    (void)state;
    struct rig_client c;
    rig_connect(&c, &addr);
    rig_send(&c, "GET /1 HTTP/1.1\r\nHost: h\r\n\r\n");
    rig_wait_responses(&loop, &c, 1);
    rig_send(&c, "GET /2 HTTP/1.1\r\nHost: h\r\n\r\nPOST /3 HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi"
                 "GET /missing HTTP/1.1\r\nHost: h\r\n\r\n");
    rig_wait_responses(&loop, &c, 4);
    const char *two = strstr(c.got.p, "GET /2"), *three = strstr(c.got.p, "POST /3"), *four = strstr(c.got.p, " 404 ");
    assert_true(two != NULL && three > two && four > three);
    assert_false(c.eof);
    rig_close(&c);
}

/* Who asks and asks and takes nothing fills its own socket, not our memory. */
enum { ASKED = 60 };
static bool has_taken_all(void *arg)
{
    struct rig_client *c = arg;
    (void)rig_read(c);
    return c->got.n >= ASKED * answer_bytes || c->eof;
}
static void test_output_is_bounded(void **state)
{
    (void)state;
    struct rig_client c;
    answer_bytes = 512 * 1024;
    rig_connect(&c, &addr);
    for (int i = 0; i < ASKED; i++)
        rig_send(&c, "GET /large HTTP/1.1\r\nHost: h\r\n\r\n");
    for (int turn = 0; turn < 200; turn++)
        uv_run(&loop.uv, UV_RUN_NOWAIT);
    assert_true(handled > 0 && handled < ASKED / 2);
    run_until(&loop, has_taken_all, &c); /* once it takes them it gets them all */
    assert_false(c.eof);
    assert_int_equal(handled, ASKED);
    rig_close(&c);
}

static void test_slow_client_loses_its_place(void **state)
{
    (void)state;
    struct rig_client idle, drip;
    rig_connect(&idle, &addr);
    rig_connect(&drip, &addr);
    rig_send(&drip, "GET / HTTP/1.1\r\nHost: h\r\nx: ");
    rig_wait_closed(&loop, &idle);
    /* Each byte is no new time. */
    for (int i = 0; i < 10000 && !drip.eof; i++) {
        (void)!send(drip.fd, "y", 1, MSG_NOSIGNAL);
        uv_run(&loop.uv, UV_RUN_NOWAIT);
        usleep(1000);
        (void)rig_read(&drip);
    }
    assert_true(drip.eof);
    assert_int_equal(handled, 0);
    rig_close(&idle);
    rig_close(&drip);
}

static void test_more_connections_than_it_takes(void **state)
{
    (void)state;
    struct rig_client c[5];
    for (int i = 0; i < 4; i++) {
        rig_connect(&c[i], &addr);
        rig_send(&c[i], "GET /1 HTTP/1.1\r\nHost: h\r\n\r\n");
        rig_wait_responses(&loop, &c[i], 1);
    }
    rig_connect(&c[4], &addr);
    rig_wait_closed(&loop, &c[4]);
    rig_close(&c[0]);
    for (int i = 0; i < 5; i++)
        uv_run(&loop.uv, UV_RUN_NOWAIT);
    rig_close(&c[4]);
    rig_connect(&c[4], &addr);
    rig_send(&c[4], "GET /2 HTTP/1.1\r\nHost: h\r\n\r\n");
    rig_wait_responses(&loop, &c[4], 1);
    for (int i = 1; i < 5; i++)
        rig_close(&c[i]);
}

static void test_end_with_clients_in_every_state(void **state)
{
    (void)state;
    struct rig_client c[3];
    for (int i = 0; i < 3; i++)
        rig_connect(&c[i], &addr);
    answer_bytes = 8 * 1024 * 1024;
    rig_send(&c[1], "GET / HTT");
    rig_send(&c[2], "GET /large HTTP/1.1\r\nHost: h\r\n\r\n");
    for (int i = 0; i < 5; i++)
        uv_run(&loop.uv, UV_RUN_NOWAIT);
    for (int i = 0; i < 3; i++)
        rig_close(&c[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_one_request, setup, teardown),
        cmocka_unit_test_setup_teardown(test_answer_later, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stream, setup, teardown),
        cmocka_unit_test_setup_teardown(test_gone_while_streaming, setup, teardown),
        cmocka_unit_test_setup_teardown(test_gone_with_the_server, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stream_to_a_stuck_client, setup_impatient, teardown),
        cmocka_unit_test_setup_teardown(test_bodies, setup, teardown),
        cmocka_unit_test_setup_teardown(test_body_too_large, setup, teardown),
        cmocka_unit_test_setup_teardown(test_body_too_large_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_upgrade_is_answered, setup, teardown),
        cmocka_unit_test_setup_teardown(test_head_and_close, setup, teardown),
        cmocka_unit_test_setup_teardown(test_malformed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_keep_alive_and_pipelining, setup, teardown),
        cmocka_unit_test_setup_teardown(test_output_is_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_slow_client_loses_its_place, setup_impatient, teardown),
        cmocka_unit_test_setup_teardown(test_more_connections_than_it_takes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_end_with_clients_in_every_state, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
