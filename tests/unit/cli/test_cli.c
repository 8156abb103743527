/* SPDX-License-Identifier: Apache-2.0
 *
 * Choosing the subcommand, and the reader of options that all of them share.
 */
#include "cli_test.h"

static void test_choosing(void **state)
{
    (void)state;
    assert_refused("usage: weir COMMAND", cli_main, "weir");
    assert_refused("no command \"serve\"", cli_main, "weir", "serve");
    static const char *const asks[] = {"help", "--help", "-h"};
    for (size_t i = 0; i < ARRAY_LEN(asks); i++) {
        assert_int_equal(RUN(cli_main, "weir", asks[i]), CLI_OK);
        assert_has(out_text, "  inspect ");
        assert_string_equal(err_text, "");
    }
    assert_int_equal(RUN(cli_main, "weir", "version"), CLI_OK);
    assert_string_equal(out_text, "weir " WEIR_VERSION "\n");
    assert_int_equal(RUN(cli_main, "weir", "--version"), CLI_OK);
    assert_string_equal(out_text, "weir " WEIR_VERSION "\n");
    assert_refused("weir check: needs a file", cli_main, "weir", "check");
}

static void test_options_in_order(void **state)
{
    (void)state;
    char text[][16] = {"run", "a", "--x", "1", "--y=2=3", "--z=", "-", "--", "--last"};
    char *argv[ARRAY_LEN(text)];
    for (size_t i = 0; i < ARRAY_LEN(text); i++)
        argv[i] = text[i];
    struct cli_args a = {.argc = ARRAY_LEN(text), .argv = argv};
    static const struct {
        const char *name, *value;
    } want[] = {{NULL, "a"}, {"x", "1"}, {"y", "2=3"}, {"z", ""}, {NULL, "-"}, {NULL, "--"}};
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        assert_true(cli_next(&a));
        if (want[i].name == NULL) {
            assert_null(a.name);
            assert_string_equal(a.value, want[i].value);
        } else {
            assert_string_equal(a.name, want[i].name);
            assert_string_equal(cli_value(&a), want[i].value);
        }
    }
    assert_true(cli_next(&a));
    struct caught err = catch_begin(stderr);
    const char *none = cli_value(&a);
    catch_end(&err, err_text);
    assert_null(none);
    assert_string_equal(err_text, "weir: --last needs a value\n");
    assert_false(cli_next(&a));
    assert_false(cli_next(&a));
}

static void test_labels(void **state)
{
    (void)state;
    struct labels l;
    assert_true(cli_labels("a=b,,c/d=,e=f=g", &l));
    assert_int_equal(l.count, 3);
    assert_string_equal(l.list[1].key, "c/d");
    assert_string_equal(l.list[1].value, "");
    assert_string_equal(l.list[2].value, "f=g");
    cli_labels_free(&l);
    assert_int_equal(l.count, 0);
    assert_true(cli_labels("", &l));
    assert_int_equal(l.count, 0);
    static const char *const bad[] = {"a", "=b", "a=b,c"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_false(cli_labels(bad[i], &l));
        cli_labels_free(&l);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_choosing),
        cmocka_unit_test(test_options_in_order),
        cmocka_unit_test(test_labels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
