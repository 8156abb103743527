/* SPDX-License-Identifier: Apache-2.0
 *
 * Limits: every default lies in its range and survives being written; keys, units and what is refused.
 */
#include "conf_test.h"

#include "conf/limits.h"

static void test_defaults(void **state)
{
    (void)state;
    struct limits l;
    limits_default(&l);
#define X(field, key, unit, def, min, max, reason)                                                                     \
    assert_true(l.field == (def));                                                                                     \
    assert_true((def) <= (max) && l.field + 1 > (min));
    LIMITS(X)
#undef X
    assert_int_equal(l.path_normalization, PATH_BASE);
    assert_int_equal(l.access_log, ACCESS_LOG_TEXT);
    assert_null(l.access_log_text);
    limits_free(&l);
}

static void test_set(void **state)
{
    (void)state;
    static const struct {
        const char *key, *value, *message; /* NULL: accepted */
    } cases[] = {
        {"max-head-bytes", "64Ki", NULL},
        {"max-head-bytes", " 65536 ", NULL},
        {"max-head-bytes", "2Mi",
         "Invalid value: \"2Mi\": max-head-bytes must be a size such as 64Ki, from 1Ki to 1Mi"},
        {"max-head-bytes", "", "Invalid value: \"\": max-head-bytes must be a size such as 64Ki, from 1Ki to 1Mi"},
        {"max-headers", "0", "Invalid value: \"0\": max-headers must be a whole number, from 1 to 10000"},
        {"max-headers", "1e3", "Invalid value: \"1e3\": max-headers must be a whole number, from 1 to 10000"},
        {"max-headers", "200", NULL},
        {"head-timeout", "1m30s", NULL},
        {"head-timeout", "0", "Invalid value: \"0\": head-timeout must be a duration such as 10s, from 100ms to 1h"},
        {"head-timeout", "30", "Invalid value: \"30\": head-timeout must be a duration such as 10s, from 100ms to 1h"},
        {"request-timeout", "0", NULL},
        {"request-timeout", "0s", NULL},
        {"via", "true", NULL},
        {"via", "0", NULL},
        {"via", "yes", "Invalid value: \"yes\": via must be true or false"},
        {"path-normalization", "MERGE_SLASHES", NULL},
        {"path-normalization", "merge",
         "Invalid value: \"merge\": path-normalization must be NONE, BASE, MERGE_SLASHES or DECODE_AND_MERGE_SLASHES"},
        {"access-log", "json", NULL},
        {"access-log", "xml", "Invalid value: \"xml\": access-log must be off, text or json"},
        {"access-log-format", "%REQ(:METHOD)%\n", NULL},
        {"server-name", "gate", NULL},
        {"server-name", "a\nb", "Invalid value: \"a\\nb\": server-name must be text without control characters"},
        {"nope", "1", "unknown limit \"nope\""},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct limits l;
        struct diag diag = {0};
        limits_default(&l);
        limits_set(&l, str_of(cases[i].key), str_of(cases[i].value), "f.yaml", 3, "ConfigMap a/b: data", &diag);
        assert_int_equal(diag.errors, cases[i].message != NULL);
        if (cases[i].message != NULL) {
            char *expected = mem_printf("f.yaml:3: ConfigMap a/b: data: %s", cases[i].message),
                 *got = diag_format(&diag.entries[0]);
            assert_string_equal(got, expected);
            mem_free(expected);
            mem_free(got);
        }
        diag_free(&diag);
        limits_free(&l);
    }
}

static void test_values_and_copy(void **state)
{
    (void)state;
    struct limits l, copy;
    struct diag diag = {0};
    limits_default(&l);
    limits_set(&l, STR("max-head-bytes"), STR("64Ki"), NULL, 0, NULL, &diag);
    limits_set(&l, STR("head-timeout"), STR("1m30s"), NULL, 0, NULL, &diag);
    limits_set(&l, STR("via"), STR("1"), NULL, 0, NULL, &diag);
    limits_set(&l, STR("path-normalization"), STR("NONE"), NULL, 0, NULL, &diag);
    limits_set(&l, STR("access-log"), STR("off"), NULL, 0, NULL, &diag);
    limits_set(&l, STR("server-name"), STR("one"), NULL, 0, NULL, &diag);
    limits_set(&l, STR("server-name"), STR("two"), NULL, 0, NULL, &diag);
    assert_int_equal(diag.count, 0);
    limits_copy(&copy, &l);
    limits_free(&l);
    assert_int_equal(copy.head_bytes, 65536);
    assert_int_equal(copy.head_timeout, 90000);
    assert_int_equal(copy.via, 1);
    assert_int_equal(copy.path_normalization, PATH_NONE);
    assert_int_equal(copy.access_log, ACCESS_LOG_OFF);
    assert_string_equal(copy.server_name, "two");
    limits_free(&copy);
    struct strbuf b = {0};
    limits_write_markdown(&b);
    assert_true(str_find_str(strbuf_str(&b), STR("| `max-head-bytes` | 60Ki | 1Ki | 1Mi | ")) > 0);
    assert_true(str_find_str(strbuf_str(&b), STR("| `head-timeout` | 30s | 100ms | 1h | ")) > 0);
    strbuf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_defaults), cmocka_unit_test(test_set),
                                       cmocka_unit_test(test_values_and_copy)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
