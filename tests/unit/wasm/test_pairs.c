/* SPDX-License-Identifier: Apache-2.0
 *
 * The header-map form: what is written is read back, the three empty forms, and nothing malformed passes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "wasm/pairs.h"

static struct abi_pair list[PAIRS_MAX_COUNT];

static enum pairs_result decode(struct str data, size_t *count) { return pairs_decode(data, list, count); }

static void test_round_trip(void **state)
{
    const struct abi_pair in[] = {
        {STR("a"), STR("1")}, {STR(":path"), STR("/x?y")}, {STR("e"), STR("")}, {STR(""), STR("v")}};
    struct strbuf out = {0};
    size_t count;

    (void)state;
    pairs_encode(&out, in, 4);
    assert_int_equal(out.n, pairs_size(in, 4));
    assert_int_equal(decode(strbuf_str(&out), &count), PAIRS_OK);
    assert_int_equal(count, 4);
    for (size_t i = 0; i < 4; i++) {
        assert_true(str_eq(list[i].name, in[i].name) && str_eq(list[i].value, in[i].value));
    }
    char *direct = mem_alloc(out.n);
    pairs_write(in, 4, direct);
    assert_memory_equal(direct, out.p, out.n);
    mem_free(direct);
    strbuf_free(&out);
}

static void test_exact_bytes(void **state)
{
    const struct abi_pair in[] = {{STR("ab"), STR("c")}};
    static const char want[] = "\1\0\0\0\2\0\0\0\1\0\0\0ab\0c";
    struct strbuf out = {0};

    (void)state;
    pairs_encode(&out, in, 1);
    assert_int_equal(out.n, sizeof want);
    assert_memory_equal(out.p, want, sizeof want);
    strbuf_free(&out);
}

static void test_empty_forms(void **state)
{
    size_t count = 9;

    (void)state;
    assert_int_equal(decode(STR_NONE, &count), PAIRS_OK);
    assert_int_equal(count, 0);
    assert_int_equal(decode(STR("\0"), &count), PAIRS_OK);
    assert_int_equal(decode(STR("\0\0\0\0"), &count), PAIRS_OK);
    assert_int_equal(count, 0);
}

static void test_malformed(void **state)
{
    static const struct str bad[] = {
        STR_INIT("\1"),
        STR_INIT("\0\0"),
        STR_INIT("\1\0\0\0"),
        STR_INIT("\0\0\0\0x"),
        STR_INIT("\1\0\0\0\1\0\0\0\1\0\0\0a\0b"),                   /* last NUL missing */
        STR_INIT("\1\0\0\0\1\0\0\0\1\0\0\0axb\0"),                  /* NUL after the name missing */
        STR_INIT("\1\0\0\0\1\0\0\0\1\0\0\0a\0bx"),                  /* NUL after the value missing */
        STR_INIT("\1\0\0\0\1\0\0\0\1\0\0\0a\0b\0x"),                /* trailing byte */
        STR_INIT("\1\0\0\0\377\377\377\377\1\0\0\0a\0b\0"),         /* name length over the end */
        STR_INIT("\1\0\0\0\377\377\377\377\377\377\377\377a\0b\0"), /* sum wraps in 32 bits */
        STR_INIT("\2\0\0\0\1\0\0\0\1\0\0\0a\0b\0"),                 /* one pair short */
    };
    size_t count;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_int_equal(decode(bad[i], &count), PAIRS_MALFORMED);
        assert_int_equal(count, 0);
    }
}

static void test_too_big(void **state)
{
    size_t count;
    struct strbuf many = {0};
    char *large = mem_zalloc(PAIRS_MAX_BYTES + 1);

    (void)state;
    assert_int_equal(decode(STR("\1\4\0\0"), &count), PAIRS_TOO_BIG); /* 1,025 */
    assert_int_equal(decode(str_span(large, PAIRS_MAX_BYTES + 1), &count), PAIRS_TOO_BIG);
    mem_free(large);
    for (size_t i = 0; i < PAIRS_MAX_COUNT; i++) {
        list[i] = (struct abi_pair){STR("n"), STR("v")};
    }
    pairs_encode(&many, list, PAIRS_MAX_COUNT);
    assert_int_equal(decode(strbuf_str(&many), &count), PAIRS_OK);
    assert_int_equal(count, PAIRS_MAX_COUNT);
    strbuf_free(&many);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_exact_bytes), cmocka_unit_test(test_empty_forms),
        cmocka_unit_test(test_malformed),  cmocka_unit_test(test_too_big),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
