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

static int setup(void **state)
{
    struct bench *b = mem_zalloc(sizeof *b);
    struct mail_endpoints *e = mem_zalloc(sizeof *e);
    struct mail_listener *l = mem_zalloc(sizeof *l);

    *state = b;
    metrics_thread_init();
    loop_init(&b->control);
    b->mail = mailbox_new(&b->control, deliver, b);
    b->w = worker_start(0, 1, &identity, b->mail);
    b->up = listen_any(&b->up_addr);
    /* The listening socket blocks here: the test is a simple endpoint. */
    assert_int_equal(fcntl(b->up, F_SETFL, 0), 0);
    e->mail.type = MAIL_ENDPOINTS;
    e->key = mem_strdup("ns/up:80");
    e->list = mem_zalloc(sizeof *e->list);
    e->list[0] = (struct endpoint_conf){.addr = b->up_addr, .weight = 1};
    e->count = 1;
    mailbox_post(worker_mailbox(b->w), &e->mail);
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
