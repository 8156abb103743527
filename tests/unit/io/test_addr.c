/* SPDX-License-Identifier: Apache-2.0
 *
 * Addresses as text and back.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "io/conn.h"

static void assert_parses(const char *text, const char *expected)
{
    struct addr a;
    char out[ADDR_TEXT_MAX];
    assert_true(addr_parse(str_of(text), &a));
    size_t n = addr_format(&a, true, out);
    assert_true(str_is(str_span(out, n), expected));
}

static void test_parse(void **state)
{
    (void)state;
    assert_parses("1.2.3.4:80", "1.2.3.4:80");
    assert_parses("[::1]:65535", "[::1]:65535");
    assert_parses("[FE80::0:1]:1", "[fe80::1]:1");
    assert_parses(":15000", "[::]:15000");
    assert_parses("0.0.0.0:0", "0.0.0.0:0");
    const char *const bad[] = {"",          "1.2.3.4", "1.2.3.4:",       "1.2.3.4:65536", "1.2.3.4:-1",
                               "1.2.3:80",  "::1:80",  "[::1]",          "[1.2.3.4]:80",  "[]:80",
                               "host:80",   "[::1:80", "1.2.3.4:080000", "[::1%lo]:80",   " 1.2.3.4:80",
                               "1.2.3.4:8 "};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct addr a;
        assert_false(addr_parse(str_of(bad[i]), &a));
    }
}

static void test_from_ip(void **state)
{
    (void)state;
    struct addr a, b;
    char out[ADDR_TEXT_MAX];
    assert_true(addr_from_ip(STR("10.0.0.1"), 8080, &a));
    assert_int_equal(addr_port(&a), 8080);
    assert_int_equal(addr_len(&a), sizeof(struct sockaddr_in));
    assert_true(str_is(str_span(out, addr_format(&a, false, out)), "10.0.0.1"));
    assert_true(addr_from_ip(STR("2001:db8::1"), 443, &b));
    assert_int_equal(addr_len(&b), sizeof(struct sockaddr_in6));
    assert_true(str_is(str_span(out, addr_format(&b, false, out)), "2001:db8::1"));
    assert_false(addr_eq(&a, &b));
    assert_true(addr_from_ip(STR("10.0.0.1"), 8080, &b) && addr_eq(&a, &b));
    assert_true(addr_from_ip(STR("10.0.0.1"), 8081, &b) && !addr_eq(&a, &b));
    assert_true(addr_from_ip(STR("10.0.0.2"), 8080, &b) && !addr_eq(&a, &b));
    assert_false(addr_from_ip(str_span("1.2.3.4\0", 8), 1, &a));
    assert_false(addr_from_ip(STR_NONE, 1, &a));
    assert_false(addr_from_ip(STR("localhost"), 1, &a));
    static const char longest[] = "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255";
    assert_true(addr_from_ip(str_of(longest), 65535, &a));
    assert_true(addr_format(&a, true, out) < ADDR_TEXT_MAX);
}

static void test_loopback_and_mapped(void **state)
{
    (void)state;
    struct addr a, b;
    static const char *const yes[] = {"127.0.0.1", "127.255.0.1", "::1", "::ffff:127.0.0.1"};
    static const char *const no[] = {"126.0.0.1", "128.0.0.1", "::", "::2", "::ffff:1.2.3.4", "0.0.0.0"};
    for (size_t i = 0; i < ARRAY_LEN(yes); i++)
        assert_true(addr_from_ip(str_of(yes[i]), 1, &a) && addr_is_loopback(&a));
    for (size_t i = 0; i < ARRAY_LEN(no); i++)
        assert_true(addr_from_ip(str_of(no[i]), 1, &a) && !addr_is_loopback(&a));
    assert_true(addr_from_ip(STR("::ffff:1.2.3.4"), 80, &a) && addr_from_ip(STR("1.2.3.4"), 80, &b));
    assert_false(addr_eq(&a, &b));
    addr_unmap(&a);
    assert_true(addr_eq(&a, &b));
    memset(&a, 0, sizeof(a));
    char out[ADDR_TEXT_MAX];
    assert_int_equal(addr_format(&a, true, out), 5);
    assert_false(addr_is_loopback(&a));
    assert_int_equal(addr_port(&a), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse),
        cmocka_unit_test(test_from_ip),
        cmocka_unit_test(test_loopback_and_mapped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
