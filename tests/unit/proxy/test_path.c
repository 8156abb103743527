/* SPDX-License-Identifier: Apache-2.0
 *
 * Path normalisation, by a table of what Envoy makes of each path under Istio's policies.
 */
#include "proxy/route.h"

#include <setjmp.h>
#include <stdlib.h>

#include <cmocka.h>

#include "conf/limits.h"

/* NULL: refused. merged and decoded are NULL where they are as base. */
static const struct {
    const char *path, *base, *merged, *decoded;
} cases[] = {
    /* in their normal form */
    {"/", "/", 0, 0},
    {"/a/b/c", "/a/b/c", 0, 0},
    {"/a/b/", "/a/b/", 0, 0},
    {"/a.b/..c/d..", "/a.b/..c/d..", 0, 0},
    {"/a?b=/../c", "/a?b=/../c", 0, 0},
    {"*", "*", 0, 0},
    {"", "", 0, 0},
    /* dot segments */
    {"/a/../b", "/b", 0, 0},
    {"/..", "/", 0, 0},
    {"/../../a", "/a", 0, 0},
    {"/.", "/", 0, 0},
    {"/./a/./b/.", "/a/b/", 0, 0},
    {"/a/b/..", "/a/", 0, 0},
    {"/a/b/../", "/a/", 0, 0},
    {"/a/b/../../..", "/", 0, 0},
    {"/a/...", "/a/...", 0, 0},
    {"/a/..b", "/a/..b", 0, 0},
    {"/a/.b", "/a/.b", 0, 0},
    {"/a/../b?x=..", "/b?x=..", 0, 0},
    /* escaped dots are dots */
    {"/%2e%2e/", "/", 0, 0},
    {"/a/%2E./b", "/b", 0, 0},
    {"/a/.%2e", "/", 0, 0},
    {"/a/%2e/b", "/a/b", 0, 0},
    {"/a/%2e%2eb", "/a/..b", 0, 0},
    {"/a%2eb", "/a.b", 0, 0},
    /* escapes: unreserved bytes are decoded, others stay as they are */
    {"/%41%7a%30%2d%5f%7e", "/Az0-_~", 0, 0},
    {"/%20%3F%23%25", "/%20%3F%23%25", 0, 0},
    {"/%c3%a9", "/%c3%a9", 0, 0},
    {"/%00", NULL, 0, 0},
    {"/a%00b", NULL, 0, 0},
    {"/a?%00", "/a?%00", 0, 0},
    /* broken escapes stay, and never become whole */
    {"/%", "/%", 0, 0},
    {"/%4", "/%4", 0, 0},
    {"/%zz", "/%zz", 0, 0},
    {"/%252e%252e/", "/%252e%252e/", 0, 0},
    {"/%%32e", "/%252e", 0, 0},
    {"/%%32%65", "/%252e", 0, 0},
    {"/%2%65", "/%252e", 0, 0},
    {"/%%32%46", "/%252F", 0, 0},
    {"/%%30%30", "/%2500", 0, 0},
    {"/%%32x", "/%2x", 0, 0},
    {"/%a/../bc%64", "/bcd", 0, 0},
    {"/%/..%32e", "/%/..2e", 0, 0},
    /* backslashes */
    {"/a\\b", "/a/b", 0, 0},
    {"/a\\..\\b", "/b", 0, 0},
    {"/a\\\\b", "/a//b", "/a/b", 0},
    /* slashes */
    {"/a//b", "/a//b", "/a/b", 0},
    {"//a", "//a", "/a", 0},
    {"/a///", "/a///", "/a/", 0},
    {"/a//../b", "/a/b", 0, 0},
    {"/a/.//b", "/a//b", "/a/b", 0},
    {"/a//b?c//d", "/a//b?c//d", "/a/b?c//d", 0},
    /* escaped slashes */
    {"/a%2Fb", "/a%2Fb", "/a%2Fb", "/a/b"},
    {"/a%2f%5Cb", "/a%2f%5Cb", "/a%2f%5Cb", "/a/b"},
    {"/a%2f..%2fb", "/a%2f..%2fb", "/a%2f..%2fb", "/b"},
    {"/a/..%5cb", "/a/..%5cb", "/a/..%5cb", "/b"},
    {"/a%252fb", "/a%252fb", "/a%252fb", "/a%252fb"},
    {"/a%2fb?c%2fd", "/a%2fb?c%2fd", "/a%2fb?c%2fd", "/a/b?c%2fd"},
    {"/%%32f", "/%252f", "/%252f", "/%252f"},
};

static void check(unsigned policy, const char *path, const char *wanted)
{
    size_t n = strlen(path);
    char *in = malloc(n + 1), *buf = malloc(n + 1); /* exact sizes, for the address sanitizer */
    memcpy(in, path, n);
    buf[n] = '!';
    struct str out = STR_NONE;
    bool ok = path_normalize(policy, str_span(in, n), buf, &out);
    if (ok != (wanted != NULL) || (ok && !str_eq(out, str_of(wanted))))
        fail_msg("policy %u: \"%s\" became \"%.*s\", not \"%s\"", policy, path, STR_ARG(out),
                 wanted != NULL ? wanted : "(refused)");
    assert_int_equal(buf[n], '!');
    if (ok && str_eq(out, str_of(path)))
        assert_true(out.p == in || n == 0 || out.p == buf);
    free(in);
    free(buf);
}

static void test_policies(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const char *merged = cases[i].merged != NULL ? cases[i].merged : cases[i].base;
        const char *decoded = cases[i].decoded != NULL ? cases[i].decoded : merged;
        check(PATH_NONE, cases[i].path, cases[i].path);
        check(PATH_BASE, cases[i].path, cases[i].base);
        check(PATH_MERGE_SLASHES, cases[i].path, merged);
        check(PATH_DECODE_AND_MERGE_SLASHES, cases[i].path, decoded);
    }
}

static void test_result_is_a_fixed_point(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        for (unsigned policy = PATH_NONE; policy <= PATH_DECODE_AND_MERGE_SLASHES; policy++) {
            char first[64], second[64];
            struct str once, twice;
            if (!path_normalize(policy, str_of(cases[i].path), first, &once))
                continue;
            assert_true(path_normalize(policy, once, second, &twice));
            assert_true(str_eq(once, twice));
        }
    }
}

static void test_normal_path_is_not_copied(void **state)
{
    (void)state;
    struct str path = STR("/a/b?c=%2f"), out;
    assert_true(path_normalize(PATH_DECODE_AND_MERGE_SLASHES, path, NULL, &out));
    assert_ptr_equal(out.p, path.p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_policies),
        cmocka_unit_test(test_result_is_a_fixed_point),
        cmocka_unit_test(test_normal_path_is_not_copied),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
