/* SPDX-License-Identifier: Apache-2.0
 *
 * weir version, and how the compiler child refuses to be run by hand.
 */
#include "cli_test.h"

static void test_version(void **state)
{
    (void)state;
    assert_int_equal(RUN(cli_version, "version"), CLI_OK);
    assert_string_equal(out_text, "weir " WEIR_VERSION "\n");
}

static void test_compile_module_wants_its_arguments(void **state)
{
    (void)state;
    assert_int_equal(RUN(cli_compile_module, "compile-module"), CLI_USAGE);
    assert_int_equal(RUN(cli_compile_module, "compile-module", "a", "b", "c", "d", "e", "f"), CLI_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_version),
        cmocka_unit_test(test_compile_module_wants_its_arguments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
