/* SPDX-License-Identifier: Apache-2.0
 *
 * A whole worker on loopback sockets: the test is client, endpoint and control at once. Here is what needs real
 * connections: keep-alive, pooling and retry, early responses, losing the client, adopting, draining, stopping.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/time.h>
#include <unistd.h>

#include <cmocka.h>

#include "proxy/runtime.h"

struct bench {
    struct loop control;
    struct mailbox *mail;
    struct worker *w;
    struct snapshot *snapshot;
    struct documents docs;
    struct addr addr, up_addr;
    int up;
    unsigned adopted, listening, drained;
    uint64_t up_connections, pending_requests; /* limits of the next snapshot; 0: the default */
};

static const struct identity identity = {.name = (char *)(uintptr_t) "weir", .ns = (char *)(uintptr_t) "ns"};

static void deliver(void *arg, struct mail *mail)
{
    struct bench *b = arg;

    b->adopted += mail->type == MAIL_ADOPTED;
    b->listening += mail->type == MAIL_LISTENING;
    b->drained += mail->type == MAIL_DRAINED;
    mem_free(mail);
}

static void wait_for(struct bench *b, const unsigned *count, unsigned wanted)
{
    while (*count < wanted)
        uv_run(&b->control.uv, UV_RUN_ONCE);
}

static int listen_any(struct addr *addr)
{
    socklen_t n = sizeof addr->u;
    assert_true(addr_parse(STR("127.0.0.1:0"), addr));
    int fd = listener_open(addr, 16);
    assert_true(fd >= 0);
    assert_int_equal(getsockname(fd, &addr->u.sa, &n), 0);
    return fd;
}

static struct route_table *routes(struct bench *b)
{
    static const char text[] = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\nspec:\n"
                               "  parentRefs: [{name: g}]\n  rules: [{backendRefs: [{name: up, port: 80}]}]\n";
    struct route_backend backend = {.cluster = (char *)(uintptr_t) "ns/up:80", .weight = 1};
    const struct route_backend *of_rule = &backend;
    const char *any = "";

    resources_parse(str_span(text, sizeof text - 1), "r.yaml", "ns", &b->docs);
    assert_int_equal(b->docs.count, 1);
    assert_non_null(b->docs.list[0].resource);
    struct route_table *t = route_table_new();
    route_table_add(t, b->docs.list[0].resource, &any, 1, &of_rule);
    route_table_finish(t);
    return t;
}

static void post_snapshot(struct bench *b, bool with_listener)
{
    struct mail_snapshot *m = mem_zalloc(sizeof *m);
    struct snapshot *s = snapshot_new(1, &identity);

    if (with_listener) {
        s->listeners = mem_zalloc(sizeof *s->listeners);
        s->listener_count = 1;
        s->listeners[0].addr = b->addr;
        s->listeners[0].gateway = mem_strdup("ns/g");
        limits_default(&s->listeners[0].limits);
        s->listeners[0].limits.access_log = ACCESS_LOG_OFF;
        s->listeners[0].limits.linger_timeout = 100;
        if (b->up_connections > 0)
            s->listeners[0].limits.up_connections = b->up_connections;
        if (b->pending_requests > 0)
            s->listeners[0].limits.pending_requests = b->pending_requests;
        documents_free(&b->docs);
        s->listeners[0].routes = routes(b);
    }
    m->mail.type = MAIL_SNAPSHOT;
    m->snapshot = s;
    unsigned before = b->adopted;
    mailbox_post(worker_mailbox(b->w), &m->mail);
    wait_for(b, &b->adopted, before + 1);
}

static void post_type(struct bench *b, int type)
{
    struct mail *m = mem_zalloc(sizeof *m);

    m->type = type;
    mailbox_post(worker_mailbox(b->w), m);
}

static void post_endpoint(struct bench *b, const struct addr *addr)
{
    struct mail_endpoints *e = mem_zalloc(sizeof *e);

    e->mail.type = MAIL_ENDPOINTS;
    e->key = mem_strdup("ns/up:80");
    e->list = mem_zalloc(sizeof *e->list);
    e->list[0] = (struct endpoint_conf){.addr = *addr, .weight = 1};
    e->count = 1;
    mailbox_post(worker_mailbox(b->w), &e->mail);
}

static int setup(void **state)
{
    struct bench *b = mem_zalloc(sizeof *b);
    struct mail_listener *l = mem_zalloc(sizeof *l);

    *state = b;
    metrics_thread_init();
    loop_init(&b->control);
    b->mail = mailbox_new(&b->control, deliver, b);
    b->w = worker_start(0, 1, &identity, b->mail);
    b->up = listen_any(&b->up_addr);
    /* The listening socket blocks here: the test is a simple endpoint. */
    assert_int_equal(fcntl(b->up, F_SETFL, 0), 0);
    post_endpoint(b, &b->up_addr);
    l->mail.type = MAIL_LISTENER;
    l->fd = listen_any(&b->addr);
    l->addr = b->addr;
    mailbox_post(worker_mailbox(b->w), &l->mail);
    wait_for(b, &b->listening, 1);
    post_snapshot(b, true);
    return 0;
}

static int teardown(void **state)
{
    struct bench *b = *state;

    worker_stop(b->w);
    mailbox_close(b->mail, NULL);
    loop_fini(&b->control);
    documents_free(&b->docs);
    close(b->up);
    metrics_thread_fini();
    mem_free(b);
    return 0;
}

/* ---- blocking sockets ---- */

static int client(struct bench *b)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval limit = {.tv_sec = 20};

    assert_true(fd >= 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), 0);
    assert_int_equal(connect(fd, &b->addr.u.sa, addr_len(&b->addr)), 0);
    return fd;
}

static int endpoint(struct bench *b)
{
    int fd = accept(b->up, NULL, NULL);
    struct timeval limit = {.tv_sec = 20};

    assert_true(fd >= 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), 0);
    return fd;
}

static void say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* Reads until the text ends with `end`. */
static char *hear(int fd, const char *end)
{
    static char text[65536];
    size_t n = 0, m = strlen(end);

    while (n < m || memcmp(text + n - m, end, m) != 0) {
        ssize_t got = recv(fd, text + n, sizeof text - 1 - n, 0);
        assert_true(got > 0);
        n += (size_t)got;
    }
    text[n] = '\0';
    return text;
}

static void hear_end(int fd)
{
    char c;
    assert_int_equal(recv(fd, &c, 1, 0), 0);
}

/* A reset, or an end. */
static void hear_loss(int fd)
{
    char c;
    assert_true(recv(fd, &c, 1, 0) <= 0);
}

#define GET "GET /x HTTP/1.1\r\nHost: h\r\n\r\n"
#define OK  "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

/* ---- tests ---- */

static void test_keep_alive_on_both_sides(void **state)
{
    struct bench *b = *state;
    int c = client(b), u;

    say(c, GET);
    u = endpoint(b);
    for (int i = 0; i < 3; i++) {
        assert_non_null(strstr(hear(u, "\r\n\r\n"), "GET /x HTTP/1.1\r\nhost: h\r\n"));
        say(u, OK);
        assert_non_null(strstr(hear(c, "ok"), "HTTP/1.1 200 OK\r\n"));
        if (i < 2)
            say(c, GET);
    }
    close(c);
    close(u);
}

static void test_pipelined_requests_are_answered_in_order(void **state)
{
    struct bench *b = *state;
    int c = client(b), u;

    say(c, "GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n");
    u = endpoint(b);
    assert_non_null(strstr(hear(u, "\r\n\r\n"), "GET /1 "));
    say(u, "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n1");
    assert_non_null(strstr(hear(u, "\r\n\r\n"), "GET /2 "));
    say(u, "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n2");
    hear(c, "2");
    close(c);
    close(u);
}

static void test_a_dead_pooled_connection_costs_a_get_nothing(void **state)
{
    struct bench *b = *state;
    int c = client(b), u;

    say(c, GET);
    u = endpoint(b);
    hear(u, "\r\n\r\n");
    say(u, OK);
    hear(c, "ok");
    say(c, GET);
    hear(u, "\r\n\r\n");
    close(u); /* without an answer */
    u = endpoint(b);
    hear(u, "\r\n\r\n");
    say(u, OK);
    assert_non_null(strstr(hear(c, "ok"), "HTTP/1.1 200 OK\r\n"));
    close(c);
    close(u);
}

/* A POST cannot be sent twice, so it is not given to a connection whose end has come already. */
static void test_a_post_does_not_take_a_closed_connection(void **state)
{
    struct bench *b = *state;
    int c = client(b), u;

    for (int i = 0; i < 50; i++) {
        say(c, GET);
        u = endpoint(b);
        hear(u, "\r\n\r\n");
        say(u, OK);
        hear(c, "ok");
        close(u); /* right before the next request */
        say(c, "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\na");
        u = endpoint(b);
        hear(u, "\r\n\r\na");
        say(u, "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok");
        assert_non_null(strstr(hear(c, "ok"), "HTTP/1.1 200 OK\r\n"));
        close(u);
    }
    close(c);
}

/* ---- the line at a full endpoint ---- */

static void limit_up(struct bench *b, uint64_t connections, uint64_t pending)
{
    b->up_connections = connections;
    b->pending_requests = pending;
    post_snapshot(b, true);
}

static void test_requests_wait_for_a_connection(void **state)
{
    struct bench *b = *state;
    int first, second, third, fourth, u;

    limit_up(b, 1, 2);
    first = client(b);
    say(first, "GET /1 HTTP/1.1\r\nHost: h\r\n\r\n");
    u = endpoint(b);
    assert_non_null(strstr(hear(u, "\r\n\r\n"), "GET /1 "));
    second = client(b);
    say(second, "POST /2 HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\na");
    post_snapshot(b, true); /* so the worker has seen it */
    third = client(b);
    say(third, "GET /3 HTTP/1.1\r\nHost: h\r\n\r\n");
    post_snapshot(b, true);
    fourth = client(b);
    say(fourth, "GET /4 HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_non_null(strstr(hear(fourth, "overflow\n"), "HTTP/1.1 503 "));
    say(u, OK);
    hear(first, "ok");
    assert_non_null(strstr(hear(u, "\r\n\r\na"), "POST /2 "));
    /* The connection ends: the next in line gets a new one. */
    say(u, "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok");
    hear(second, "ok");
    hear_end(u);
    close(u);
    u = endpoint(b);
    assert_non_null(strstr(hear(u, "\r\n\r\n"), "GET /3 "));
    say(u, OK);
    hear(third, "ok");
    close(first), close(second), close(third), close(fourth), close(u);
}

static void test_who_leaves_the_line_does_not_hold_it_up(void **state)
{
    struct bench *b = *state;
    struct linger now = {.l_onoff = 1};
    int first, second, third, u;

    limit_up(b, 1, 100);
    first = client(b);
    say(first, GET);
    u = endpoint(b);
    hear(u, "\r\n\r\n");
    second = client(b);
    say(second, GET);
    post_snapshot(b, true);
    third = client(b);
    say(third, "GET /3 HTTP/1.1\r\nHost: h\r\n\r\n");
    post_snapshot(b, true);
    assert_int_equal(setsockopt(second, SOL_SOCKET, SO_LINGER, &now, sizeof now), 0);
    close(second);
    post_snapshot(b, true);
    say(u, OK);
    hear(first, "ok");
    assert_non_null(strstr(hear(u, "\r\n\r\n"), "GET /3 "));
    close(third); /* stopped while it is served */
    close(first), close(u);
}

static void test_the_line_moves_to_another_endpoint(void **state)
{
    struct bench *b = *state;
    struct addr other;
    int first, second, u, v, listening = listen_any(&other);

    assert_int_equal(fcntl(listening, F_SETFL, 0), 0);
    limit_up(b, 1, 100);
    first = client(b);
    say(first, GET);
    u = endpoint(b);
    hear(u, "\r\n\r\n");
    second = client(b);
    say(second, "GET /2 HTTP/1.1\r\nHost: h\r\n\r\n");
    post_snapshot(b, true);
    post_endpoint(b, &other);
    v = accept(listening, NULL, NULL);
    assert_non_null(strstr(hear(v, "\r\n\r\n"), "GET /2 "));
    say(v, OK);
    hear(second, "ok");
    say(u, OK);
    hear(first, "ok");
    close(first), close(second), close(u), close(v), close(listening);
}

/* ---- ends ---- */

static void test_a_small_rest_of_a_request_is_dropped(void **state)
{
    struct bench *b = *state;
    int c = client(b), u;

    say(c, "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\nabc");
    u = endpoint(b);
    hear(u, "abc");
    say(u, "HTTP/1.1 403 No\r\ncontent-length: 2\r\n\r\nno");
    assert_null(strstr(hear(c, "no"), "connection: close"));
    hear_loss(u);
    close(u);
    say(c, "def" GET);
    u = endpoint(b);
    hear(u, "\r\n\r\n");
    say(u, OK);
    hear(c, "ok");
    /* A rest that does not come is waited for no longer than linger-timeout. */
    say(c, "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\nabc");
    hear(u, "abc");
    say(u, "HTTP/1.1 403 No\r\ncontent-length: 2\r\n\r\nno");
    hear(c, "no");
    hear_end(c);
    close(c);
    close(u);
}

/* What a slow client has not read yet is no idleness. */
static void test_drain_waits_for_a_slow_reader(void **state)
{
    struct bench *b = *state;
    enum { SIZE = 60 * 1024 };
    static char body[SIZE + 1];
    int c = client(b), u, small = 256 * 1024;
    size_t got = 0;

    /* Small enough to fill, but not under a segment of the loopback device: then it would trickle. */
    assert_int_equal(setsockopt(c, SOL_SOCKET, SO_RCVBUF, &small, sizeof small), 0);
    memset(body, 'x', SIZE);
    for (int i = 0; i < 200; i++) /* pipelined: the answers fill all buffers on the way */
        say(c, GET);
    u = endpoint(b);
    for (int i = 0; i < 200; i++) {
        struct timeval limit = {.tv_usec = 200000};
        char text[2048];
        assert_int_equal(setsockopt(u, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), 0);
        if (recv(u, text, sizeof text, 0) <= 0)
            break; /* the worker begins no more before the client reads */
        got++;
        say(u, "HTTP/1.1 200 OK\r\ncontent-length: 61440\r\n\r\n");
        say(u, body);
    }
    assert_in_range(got, 1, 199);
    post_type(b, MAIL_DRAIN);
    usleep(1500 * 1000);
    for (size_t n = 0; n < got * SIZE;) {
        ssize_t r = recv(c, body, SIZE, 0);
        assert_true(r > 0);
        n += (size_t)r;
    }
    close(c);
    close(u);
}

static void test_a_post_is_not_sent_twice(void **state)
{
    struct bench *b = *state;
    int c = client(b), u;

    say(c, GET);
    u = endpoint(b);
    hear(u, "\r\n\r\n");
    say(u, OK);
    hear(c, "ok");
    say(c, "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\na");
    hear(u, "\r\n\r\na");
    close(u);
    assert_non_null(strstr(hear(c, "headers\n"), "HTTP/1.1 503 "));
    close(c);
}

static void test_fin_after_the_request_still_gets_the_response(void **state)
{
    struct bench *b = *state;
    int c = client(b), u;

    say(c, GET);
    shutdown(c, SHUT_WR);
    u = endpoint(b);
    hear(u, "\r\n\r\n");
    say(u, OK);
    hear(c, "ok");
    hear_end(c);
    close(c);
    close(u);
}

static void test_a_lost_client_resets_the_endpoint(void **state)
{
    struct bench *b = *state;
    struct linger now = {.l_onoff = 1};
    int c = client(b), u;
    char byte;

    say(c, GET);
    u = endpoint(b);
    hear(u, "\r\n\r\n");
    assert_int_equal(setsockopt(c, SOL_SOCKET, SO_LINGER, &now, sizeof now), 0);
    close(c);
    assert_true(recv(u, &byte, 1, 0) <= 0);
    close(u);
}

static void test_early_response(void **state)
{
    struct bench *b = *state;
    int c = client(b), u;

    say(c, "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\nabc");
    u = endpoint(b);
    hear(u, "abc");
    say(u, "HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig");
    assert_non_null(strstr(hear(c, "big"), "HTTP/1.1 413 "));
    say(c, "defdefdef");
    hear_end(c);
    close(c);
    close(u);
}

static void test_tunnel_with_half_close(void **state)
{
    struct bench *b = *state;
    int c = client(b), u;

    say(c, "GET /x HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n");
    u = endpoint(b);
    assert_non_null(strstr(hear(u, "\r\n\r\n"), "upgrade: chat\r\n"));
    say(u, "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: chat\r\n\r\nhello");
    assert_non_null(strstr(hear(c, "hello"), "HTTP/1.1 101 "));
    say(c, "ping");
    hear(u, "ping");
    shutdown(c, SHUT_WR);
    hear_end(u);
    say(u, "bye");
    hear(c, "bye");
    close(u);
    hear_end(c);
    close(c);
}

static void test_listener_without_gateway(void **state)
{
    struct bench *b = *state;
    int idle = client(b);

    say(idle, GET);
    int u = endpoint(b);
    hear(u, "\r\n\r\n");
    say(u, OK);
    hear(idle, "ok");
    post_snapshot(b, false);
    hear_end(idle);
    int c = client(b);
    say(c, GET);
    assert_non_null(strstr(hear(c, "no listener\n"), "HTTP/1.1 404 "));
    hear_end(c);
    close(c);
    close(idle);
    close(u);
}

static void test_drain_waits_for_the_last_response(void **state)
{
    struct bench *b = *state;
    int c = client(b), u;

    say(c, GET);
    u = endpoint(b);
    hear(u, "\r\n\r\n");
    post_type(b, MAIL_DRAIN);
    post_snapshot(b, true); /* answered behind the drain */
    assert_int_equal(b->drained, 0);
    say(u, OK);
    assert_non_null(strstr(hear(c, "ok"), "connection: close\r\n"));
    hear_end(c);
    close(c);
    wait_for(b, &b->drained, 1);
    close(u);
}

static void test_cut_ends_what_is_left(void **state)
{
    struct bench *b = *state;
    int c = client(b), u;
    char byte;

    say(c, GET);
    u = endpoint(b);
    hear(u, "\r\n\r\n");
    post_type(b, MAIL_DRAIN);
    post_type(b, MAIL_CUT);
    wait_for(b, &b->drained, 1);
    assert_true(recv(c, &byte, 1, 0) <= 0);
    assert_true(recv(u, &byte, 1, 0) <= 0);
    close(c);
    close(u);
}

static void test_stop_with_streams_in_flight(void **state)
{
    struct bench *b = *state;
    int c = client(b);

    say(c, GET);
    int u = endpoint(b);
    hear(u, "\r\n\r\n");
    int half = client(b);
    say(half, "GET /unfinis");
    close(c); /* teardown stops the worker with all this in the air */
    close(u);
    close(half);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_keep_alive_on_both_sides, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pipelined_requests_are_answered_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_dead_pooled_connection_costs_a_get_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_post_does_not_take_a_closed_connection, setup, teardown),
        cmocka_unit_test_setup_teardown(test_requests_wait_for_a_connection, setup, teardown),
        cmocka_unit_test_setup_teardown(test_who_leaves_the_line_does_not_hold_it_up, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_line_moves_to_another_endpoint, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_small_rest_of_a_request_is_dropped, setup, teardown),
        cmocka_unit_test_setup_teardown(test_drain_waits_for_a_slow_reader, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_post_is_not_sent_twice, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fin_after_the_request_still_gets_the_response, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_lost_client_resets_the_endpoint, setup, teardown),
        cmocka_unit_test_setup_teardown(test_early_response, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tunnel_with_half_close, setup, teardown),
        cmocka_unit_test_setup_teardown(test_listener_without_gateway, setup, teardown),
        cmocka_unit_test_setup_teardown(test_drain_waits_for_the_last_response, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cut_ends_what_is_left, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stop_with_streams_in_flight, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
