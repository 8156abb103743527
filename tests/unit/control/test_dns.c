/* SPDX-License-Identifier: Apache-2.0
 *
 * Addresses that stay fresh, against a DNS server of the test's own on the same loop: asked again when the TTL ends,
 * kept when an answer fails, told only when they change.
 */
#include "control_test.h"

#include "control/dns.h"

static struct loop loop;
static struct dns *dns;
static uv_poll_t server;
static int server_fd;
static unsigned questions, changes,
    last;              /* last: of the addresses that A questions are answered with, 127.0.0.<last> */
static unsigned count; /* how many of them; 0: SERVFAIL */
static bool rotate;

/* RFC 1035 section 4, just enough: A records with a TTL of 1 s. */
static size_t answer(unsigned char *p, size_t n)
{
    size_t at = 12;
    while (at < n && p[at] != 0)
        at += p[at] + 1u;
    bool a = p[at + 2] == 1;
    size_t end = at + 5;
    unsigned records = a ? count : 0;
    questions += a;
    p[2] = 0x81;
    p[3] = count > 0 ? 0x80 : 0x82;
    p[7] = (unsigned char)records;
    p[9] = p[11] = 0;
    for (unsigned i = 0; i < records; i++) {
        unsigned k = rotate ? (i + questions) % records : i;
        const unsigned char record[] = {0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 127, 0, 0, (unsigned char)(last + k)};
        memcpy(p + end, record, sizeof record);
        end += sizeof record;
    }
    return end;
}

static void on_question(uv_poll_t *poll, int status, int events)
{
    (void)poll;
    (void)status;
    (void)events;
    unsigned char p[1024];
    struct sockaddr_in from;
    socklen_t from_n = sizeof from;
    ssize_t n = recvfrom(server_fd, p, 512, MSG_DONTWAIT, (struct sockaddr *)&from, &from_n);
    if (n > 12)
        (void)!sendto(server_fd, p, answer(p, (size_t)n), 0, (const struct sockaddr *)&from, from_n);
}

static void on_changed(void *arg, const char *host)
{
    (void)arg;
    (void)host;
    changes++;
}

static int setup(void **state)
{
    (void)state;
    struct addr addr;
    char servers[ADDR_TEXT_MAX];
    questions = changes = 0;
    last = 2;
    count = 1;
    rotate = false;
    loop_init(&loop);
    assert_true(addr_parse(STR("127.0.0.1:0"), &addr));
    server_fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(server_fd, &addr.u.sa, addr_len(&addr)), 0);
    socklen_t n = sizeof addr.u;
    assert_int_equal(getsockname(server_fd, &addr.u.sa, &n), 0);
    addr_format(&addr, true, servers);
    uv_poll_init(&loop.uv, &server, server_fd);
    uv_poll_start(&server, UV_READABLE, on_question);
    dns = dns_new(&loop, servers, on_changed, NULL);
    return 0;
}
static int teardown(void **state)
{
    (void)state;
    dns_free(dns);
    uv_close((uv_handle_t *)&server, NULL);
    loop_fini(&loop);
    close(server_fd);
    return 0;
}

static void want(const char *host)
{
    struct map hosts = {0};
    if (host != NULL)
        map_set(&hosts, str_of(host), dns);
    dns_want(dns, &hosts);
    map_free(&hosts);
}
static bool at_least(void *arg)
{
    const unsigned *n = arg;
    return questions >= n[0] && changes >= n[1];
}
static void wait_for(unsigned q, unsigned c)
{
    unsigned n[] = {q, c};
    run_until(&loop, at_least, n);
}
static bool has_error(void *arg)
{
    (void)arg;
    return dns_error(dns, "a.test") != NULL;
}
static bool has_no_error(void *arg) { return !has_error(arg); }

static const char *addresses(void)
{
    static char text[256];
    size_t n = 0, used = 0;
    const struct addr *list = dns_addresses(dns, "a.test", &n);
    text[0] = '\0';
    for (size_t i = 0; i < n; i++) {
        char one[ADDR_TEXT_MAX];
        addr_format(&list[i], false, one);
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%s", i > 0 ? " " : "", one);
    }
    return text;
}

static void test_asked_again_when_the_ttl_ends(void **state)
{
    (void)state;
    want("a.test");
    assert_string_equal(addresses(), "");
    wait_for(1, 1);
    assert_string_equal(addresses(), "127.0.0.2");
    last = 7;
    wait_for(2, 2);
    assert_string_equal(addresses(), "127.0.0.7");
    want("a.test"); /* wanting it again asks nothing */
    unsigned asked = questions;
    wait_for(asked + 1, 2);
    assert_int_equal(changes, 2); /* the same answer is no change */
}

static void test_rotation_is_no_change(void **state)
{
    (void)state;
    count = 3;
    rotate = true;
    want("a.test");
    wait_for(3, 1);
    assert_int_equal(changes, 1);
    assert_string_equal(addresses(), "127.0.0.2 127.0.0.3 127.0.0.4");
}

static void test_failure_keeps_the_addresses(void **state)
{
    (void)state;
    want("a.test");
    wait_for(1, 1);
    count = 0;
    run_until(&loop, has_error, NULL);
    assert_string_equal(addresses(), "127.0.0.2");
    assert_int_equal(changes, 1);
    count = 2;
    run_until(&loop, has_no_error, NULL);
    assert_string_equal(addresses(), "127.0.0.2 127.0.0.3");
    assert_int_equal(changes, 2);
    assert_int_equal(logged("DNS: a.test: "), 2); /* that it fails, once, and that it is found again */
}

static void test_forgotten_while_asked(void **state)
{
    (void)state;
    want("a.test");
    want(NULL);
    want("a.test");
    wait_for(1, 1);
    want(NULL);
    assert_string_equal(addresses(), "");
    want("b.test"); /* under way when everything ends */
}

static void test_literals_ask_nobody(void **state)
{
    (void)state;
    dns_free(dns);
    dns = dns_new(&loop, "127.0.0.1:1", on_changed, NULL);
    want("127.0.0.9");
    for (int i = 0; i < 10; i++)
        uv_run(&loop.uv, UV_RUN_NOWAIT);
    size_t n = 0;
    const struct addr *list = dns_addresses(dns, "127.0.0.9", &n);
    assert_int_equal(n, 1);
    assert_true(addr_is_loopback(&list[0]));
    assert_int_equal(questions, 0);
}

int main(void)
{
    log_set_level(LOG_INFO);
    log_start();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_asked_again_when_the_ttl_ends, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rotation_is_no_change, setup, teardown),
        cmocka_unit_test_setup_teardown(test_failure_keeps_the_addresses, setup, teardown),
        cmocka_unit_test_setup_teardown(test_forgotten_while_asked, setup, teardown),
        cmocka_unit_test_setup_teardown(test_literals_ask_nobody, setup, teardown),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    log_stop();
    return failed;
}
