/* SPDX-License-Identifier: Apache-2.0
 *
 * Name resolution against a DNS server of the test's own, on the same loop: answers with TTLs, failures, silence, and
 * an owner that frees the resolver from its callback.
 */
#include "io/resolve.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

static struct loop loop;
static struct resolver *resolver;
static uv_poll_t server;
static int server_fd;
static char servers[ADDR_TEXT_MAX];
static int questions;
static bool inside;

/* ---- the server: RFC 1035 section 4, just enough ---- */

static size_t put_record(unsigned char *p, uint16_t type, uint32_t ttl, const void *data, uint16_t n)
{
    const unsigned char head[] = {0xc0,
                                  12,
                                  (unsigned char)(type >> 8),
                                  (unsigned char)type,
                                  0,
                                  1,
                                  (unsigned char)(ttl >> 24),
                                  (unsigned char)(ttl >> 16),
                                  (unsigned char)(ttl >> 8),
                                  (unsigned char)ttl,
                                  (unsigned char)(n >> 8),
                                  (unsigned char)n};
    memcpy(p, head, sizeof(head));
    memcpy(p + sizeof(head), data, n);
    return sizeof(head) + n;
}

static void answer(unsigned char *p, size_t n, const struct sockaddr_in *to)
{
    static const unsigned char v6[16] = {0x20, 1, 0xd, 0xb8, [15] = 1};
    char name[256];
    size_t at = 12, length = 0;
    for (; at < n && p[at] != 0; at += p[at] + 1u)
        length += (size_t)snprintf(name + length, sizeof(name) - length, "%.*s.", p[at], (char *)p + at + 1);
    uint16_t type = (uint16_t)(p[at + 1] << 8 | p[at + 2]);
    size_t end = at + 5;
    p[2] = 0x81;
    p[3] = 0x80;
    p[11] = 0; /* no OPT in the answer */
    questions++;
    if (strcmp(name, "silent.test.") == 0)
        return;
    if (strcmp(name, "two.test.") == 0 && type == 1) {
        p[7] = 2;
        end += put_record(p + end, 1, 300, "\x7f\0\0\x02", 4);
        end += put_record(p + end, 1, 20, "\x7f\0\0\x03", 4);
    } else if (strcmp(name, "two.test.") == 0 && type == 28) {
        p[7] = 1;
        end += put_record(p + end, 28, 60, v6, 16);
    } else if (strcmp(name, "v4.test.") == 0) {
        p[7] = type == 1;
        if (type == 1)
            end += put_record(p + end, 1, 5, "\x7f\0\0\x04", 4);
    } else if (strcmp(name, "broken.test.") == 0) {
        end = 13;
    } else {
        p[3] = 0x83; /* NXDOMAIN */
    }
    (void)sendto(server_fd, p, end, 0, (const struct sockaddr *)to, sizeof(*to));
}

static void on_question(uv_poll_t *poll, int status, int events)
{
    (void)poll;
    (void)status;
    (void)events;
    unsigned char p[1024];
    struct sockaddr_in from;
    socklen_t from_n = sizeof(from);
    ssize_t n = recvfrom(server_fd, p, 512, MSG_DONTWAIT, (struct sockaddr *)&from, &from_n);
    if (n > 12)
        answer(p, (size_t)n, &from);
}

static int setup(void **state)
{
    (void)state;
    struct addr at;
    questions = 0;
    loop_init(&loop);
    assert_true(addr_parse(STR("127.0.0.1:0"), &at));
    server_fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(server_fd, &at.u.sa, addr_len(&at)), 0);
    socklen_t n = sizeof(at.u);
    assert_int_equal(getsockname(server_fd, &at.u.sa, &n), 0);
    (void)addr_format(&at, true, servers);
    assert_int_equal(uv_poll_init(&loop.uv, &server, server_fd), 0);
    assert_int_equal(uv_poll_start(&server, UV_READABLE, on_question), 0);
    resolver = resolver_new(&loop, servers);
    assert_non_null(resolver);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    if (resolver != NULL)
        resolver_free(resolver);
    uv_close((uv_handle_t *)&server, NULL);
    close(server_fd);
    loop_fini(&loop);
    return 0;
}

/* ---- */

struct result {
    int calls;
    size_t count;
    uint32_t ttl;
    bool failed, free_resolver;
    char text[8][ADDR_TEXT_MAX];
};

static void on_done(void *arg, const struct resolve_answer *a)
{
    struct result *r = arg;
    assert_false(inside);
    r->calls++;
    r->count = a->count;
    r->ttl = a->ttl;
    r->failed = a->error != NULL;
    assert_true(r->failed == (a->count == 0));
    for (size_t i = 0; i < a->count && i < 8; i++) {
        assert_int_equal(addr_port(&a->addrs[i]), 0);
        (void)addr_format(&a->addrs[i], false, r->text[i]);
    }
    if (r->free_resolver) {
        resolver_free(resolver);
        resolver = NULL;
    }
}

static void ask(const char *name, struct result *r)
{
    inside = true;
    resolver_query(resolver, str_of(name), on_done, r);
    inside = false;
}

static void wait_for(const struct result *r)
{
    while (r->calls == 0)
        uv_run(&loop.uv, UV_RUN_ONCE);
    assert_int_equal(r->calls, 1);
}

static bool has(const struct result *r, const char *text)
{
    bool found = false;
    for (size_t i = 0; i < r->count; i++)
        found |= strcmp(r->text[i], text) == 0;
    return found;
}

static void test_addresses_and_ttl(void **state)
{
    (void)state;
    struct result two = {0}, v4 = {0};
    ask("two.test", &two);
    ask("v4.test", &v4);
    wait_for(&two);
    wait_for(&v4);
    assert_int_equal(two.count, 3);
    assert_true(has(&two, "127.0.0.2") && has(&two, "127.0.0.3") && has(&two, "2001:db8::1"));
    assert_int_equal(two.ttl, 20);
    assert_int_equal(v4.count, 1);
    assert_true(has(&v4, "127.0.0.4"));
    assert_int_equal(v4.ttl, 5);
}

static void test_no_such_name(void **state)
{
    (void)state;
    struct result r = {0};
    ask("none.test", &r);
    wait_for(&r);
    assert_true(r.failed);
    assert_int_equal(r.ttl, 0);
}

static void test_literals_ask_nobody(void **state)
{
    (void)state;
    static const struct {
        const char *name, *address;
    } cases[] = {{"localhost", "127.0.0.1"},
                 {"LocalHost.", "127.0.0.1"},
                 {"app.localhost", "127.0.0.1"},
                 {"10.1.2.3", "10.1.2.3"},
                 {"2001:db8::7", "2001:db8::7"}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct result r = {0};
        ask(cases[i].name, &r);
        wait_for(&r);
        assert_int_equal(r.count, 1);
        assert_true(has(&r, cases[i].address));
        assert_true(r.ttl > 0);
    }
    assert_int_equal(questions, 0);
}

static void test_bad_names(void **state)
{
    (void)state;
    static char big[300];
    memset(big, 'a', sizeof(big) - 1);
    const struct str names[] = {STR(""), str_of(big), str_span("a\0b", 3), STR("a..b"), STR(".")};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct result r = {0};
        inside = true;
        resolver_query(resolver, names[i], on_done, &r);
        inside = false;
        wait_for(&r);
        assert_true(r.failed);
    }
}

static void test_free_answers_what_is_open(void **state)
{
    (void)state;
    struct result silent = {0}, literal = {0};
    ask("silent.test", &silent);
    while (questions == 0)
        uv_run(&loop.uv, UV_RUN_ONCE);
    ask("127.0.0.1", &literal);
    resolver_free(resolver);
    resolver = NULL;
    assert_int_equal(silent.calls, 1);
    assert_true(silent.failed);
    assert_int_equal(literal.calls, 1);
    for (int i = 0; i < 5; i++)
        uv_run(&loop.uv, UV_RUN_NOWAIT);
    assert_int_equal(silent.calls + literal.calls, 2);
}

static void test_free_from_the_callback(void **state)
{
    (void)state;
    struct result r = {.free_resolver = true}, silent = {0}, other = {0};
    ask("silent.test", &silent);
    ask("two.test", &r);
    ask("localhost", &other);
    wait_for(&r);
    assert_int_equal(r.count, 3);
    assert_int_equal(silent.calls, 1);
    assert_int_equal(other.calls, 1);
}

static void test_many_at_once(void **state)
{
    (void)state;
    static struct result many[200];
    memset(many, 0, sizeof(many));
    for (int i = 0; i < 200; i++)
        ask(i % 2 ? "two.test" : "v4.test", &many[i]);
    for (int i = 0; i < 200; i++) {
        wait_for(&many[i]);
        assert_int_equal(many[i].count, i % 2 ? 3 : 1);
    }
}

static void test_new_refuses_bad_servers(void **state)
{
    (void)state;
    assert_null(resolver_new(&loop, "not a server"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_addresses_and_ttl, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_such_name, setup, teardown),
        cmocka_unit_test_setup_teardown(test_literals_ask_nobody, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_names, setup, teardown),
        cmocka_unit_test_setup_teardown(test_free_answers_what_is_open, setup, teardown),
        cmocka_unit_test_setup_teardown(test_free_from_the_callback, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_new_refuses_bad_servers, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
