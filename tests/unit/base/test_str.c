/* SPDX-License-Identifier: Apache-2.0
 *
 * Strings: edges of each function, UTF-8 against a straightforward decoder, escaping in every form.
 */
#include "base/str.h"

#include <setjmp.h>
#include <stdio.h>

#include <cmocka.h>

static void test_compare(void **state)
{
    (void)state;
    assert_true(str_eq(STR_NONE, STR("")));
    assert_true(str_ieq(STR("Content-LENGTH"), STR("cONTENT-length")));
    assert_false(str_ieq(STR("a@"), STR("a`"))); /* one bit apart, but no letters */
    assert_false(str_ieq(STR("["), STR("{")));
    assert_false(str_ieq(STR("ab"), STR("abc")));
    assert_true(str_starts(STR("abc"), STR("ab")) && str_starts(STR("abc"), STR_NONE) &&
                str_starts(STR_NONE, STR_NONE));
    assert_false(str_starts(STR("a"), STR("ab")));
    assert_true(str_ends(STR("abc"), STR("bc")) && str_ends(STR("abc"), STR("")) && str_ends(STR_NONE, STR_NONE));
    assert_false(str_ends(STR("c"), STR("bc")));
    assert_true(str_cmp(STR("a"), STR("b")) < 0);
    assert_true(str_cmp(STR("ab"), STR("a")) > 0);
    assert_true(str_cmp(STR("\xff"), STR("a")) > 0);
    assert_int_equal(str_cmp(STR_NONE, STR("")), 0);
}

static void test_search(void **state)
{
    (void)state;
    assert_int_equal(str_find(STR("a=b=c"), '='), 1);
    assert_int_equal(str_find(STR_NONE, 'x'), -1);
    assert_int_equal(str_find(str_span("a\0b", 3), '\0'), 1);
    assert_int_equal(str_find_str(STR("aXXb"), STR("XX")), 1);
    assert_int_equal(str_find_str(STR("aX"), STR("XX")), -1);
    assert_int_equal(str_find_str(STR_NONE, STR("")), 0);
    assert_true(str_is(str_trim(STR(" \t a b\t ")), "a b"));
    assert_int_equal(str_trim(STR(" \t ")).n, 0);
    assert_int_equal(str_trim(STR_NONE).n, 0);
    assert_true(str_is(str_trim(STR("\n a")), "\n a")); /* OWS only */
}

static void test_split(void **state)
{
    (void)state;
    struct str rest = STR("a,,b,");
    assert_true(str_is(str_split(&rest, ','), "a"));
    assert_true(str_is(str_split(&rest, ','), ""));
    assert_true(str_is(str_split(&rest, ','), "b"));
    assert_non_null(rest.p);
    assert_true(str_is(str_split(&rest, ','), ""));
    assert_null(rest.p);
    rest = STR("");
    assert_int_equal(str_split(&rest, ',').n, 0);
    assert_null(rest.p);
}

static void test_numbers(void **state)
{
    (void)state;
    uint64_t n = 7;
    assert_true(str_to_u64(STR("0"), UINT64_MAX, &n) && n == 0);
    assert_true(str_to_u64(STR("18446744073709551615"), UINT64_MAX, &n) && n == UINT64_MAX);
    assert_false(str_to_u64(STR("18446744073709551616"), UINT64_MAX, &n));
    assert_false(str_to_u64(STR("99999999999999999999999"), UINT64_MAX, &n));
    assert_true(str_to_u64(STR("0000000000000000000000065535"), 65535, &n) && n == 65535);
    assert_false(str_to_u64(STR("65536"), 65535, &n));
    assert_true(str_to_u64(STR("5"), 5, &n) && n == 5);
    assert_false(str_to_u64(STR("6"), 5, &n));
    const char *const bad[] = {"", "-1", "+1", " 1", "1 ", "0x1", "1a", "1.0"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_false(str_to_u64(str_of(bad[i]), UINT64_MAX, &n));
}

/* Encodes code point c, as long as asked for, valid or not. */
static size_t encode(uint32_t c, size_t len, unsigned char out[4])
{
    static const unsigned char lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = len; i-- > 1; c >>= 6)
        out[i] = (unsigned char)(0x80 | (c & 0x3f));
    out[0] = (unsigned char)(len == 1 ? c : (lead[len] | c));
    return len;
}

static void test_utf8(void **state)
{
    (void)state;
    unsigned char p[4];
    for (uint32_t c = 0; c < 0x140000; c++) {
        size_t shortest = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
        bool valid = c < 0xd800 || (c > 0xdfff && c < 0x110000);
        size_t n = encode(c, shortest, p);
        assert_true(str_is_utf8(str_span(p, n)) == valid);
        if (n > 1)
            assert_false(str_is_utf8(str_span(p, n - 1)));
        if (shortest < 4 && c < 0x10000) {
            n = encode(c, shortest + 1, p);
            assert_false(str_is_utf8(str_span(p, n))); /* overlong */
        }
    }
    assert_true(str_is_utf8(STR("a long text of ASCII, then \xc3\xa9 and more of it")));
    assert_false(str_is_utf8(STR("a long text of ASCII, then \xc3 and more of it")));
    assert_false(str_is_utf8(STR("\x80")));
    assert_false(str_is_utf8(STR("\xfe\xff")));
    assert_true(str_is_utf8(STR_NONE));
}

static void test_hash(void **state)
{
    (void)state;
    char text[64];
    uint64_t seen[2000];
    for (int i = 0; i < 2000; i++) {
        int n = snprintf(text, sizeof(text), "key-%d", i);
        seen[i] = str_hash(str_span(text, (size_t)n));
        for (int j = 0; j < i; j++)
            assert_true(seen[i] != seen[j]);
    }
    char copy[] = "key-7";
    assert_true(str_hash(str_of(copy)) == seen[7]);
    char zeros[20] = {0};
    for (size_t i = 0; i < 20; i++)
        for (size_t j = 0; j < i; j++)
            assert_true(str_hash(str_span(zeros, i)) != str_hash(str_span(zeros, j)));
    assert_true(str_hash(STR_NONE) == str_hash(STR("")));
}

static void test_strbuf(void **state)
{
    (void)state;
    struct strbuf b = {0};
    strbuf_add(&b, STR_NONE);
    assert_null(b.p);
    strbuf_addc(&b, 'a');
    strbuf_addz(&b, "bc");
    strbuf_printf(&b, "%d", 123);
    for (int i = 0; i < 1000; i++)
        strbuf_printf(&b, "%05d", i);
    assert_int_equal(b.n, 6 + 5000);
    assert_memory_equal(b.p, "abc1230000000001", 16);
    assert_memory_equal(b.p + 5001, "00999", 5);
    strbuf_clear(&b);
    strbuf_addz(&b, "x");
    char *z = strbuf_take(&b);
    assert_string_equal(z, "x");
    mem_free(z);
    z = strbuf_take(&b);
    assert_string_equal(z, "");
    mem_free(z);
    strbuf_printf(&b, "%s", "");
    assert_int_equal(b.n, 0);
    strbuf_free(&b);
}

static void test_escaping(void **state)
{
    (void)state;
    struct strbuf b = {0};
    strbuf_add_json(&b, str_span("a\"\\\n\r\t\x01\0<&>\x7f\xc3\xa9\xff\xc3", 16));
    assert_true(str_is(strbuf_str(&b), "\"a\\\"\\\\\\n\\r\\t\\u0001\\u0000<&>\x7f\xc3\xa9\xef\xbf\xbd\xef\xbf\xbd\""));
    strbuf_clear(&b);
    strbuf_add_escaped(&b, str_span("a\"\\\n\r\t\x1b[1m\x7f\xff\0", 13));
    assert_true(str_is(strbuf_str(&b), "a\\\"\\\\\\n\\r\\t\\x1b[1m\\x7f\\xff\\x00"));
    strbuf_free(&b);
    char *z = str_dup(STR_NONE);
    assert_string_equal(z, "");
    mem_free(z);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_compare), cmocka_unit_test(test_search),   cmocka_unit_test(test_split),
        cmocka_unit_test(test_numbers), cmocka_unit_test(test_utf8),     cmocka_unit_test(test_hash),
        cmocka_unit_test(test_strbuf),  cmocka_unit_test(test_escaping),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
