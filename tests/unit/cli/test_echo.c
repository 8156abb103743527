/* SPDX-License-Identifier: Apache-2.0
 *
 * The command line of weir echo; what it answers is for the e2e tests.
 */
#include "cli_test.h"

static void test_usage(void **state)
{
    (void)state;
    assert_refused("needs --listen ADDR", cli_echo, "echo");
    assert_refused("needs --listen ADDR", cli_echo, "echo", "--name", "a");
    assert_refused("no operand is wanted: \"x\"", cli_echo, "echo", "x");
    assert_refused("--listen \"nowhere\": want IP:PORT", cli_echo, "echo", "--listen", "nowhere");
    assert_refused("--listen needs a value", cli_echo, "echo", "--listen");
    assert_refused("no option --port", cli_echo, "echo", "--port");
    assert_int_equal(RUN(cli_echo, "echo", "--help"), CLI_OK);
    assert_has(out_text, "usage: weir echo");
}

static void test_an_address_that_is_not_ours(void **state)
{
    (void)state;
    assert_int_equal(RUN(cli_echo, "echo", "--listen=192.0.2.1:80"), CLI_FAILED);
    assert_has(err_text, "weir echo: cannot listen: ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_usage),
        cmocka_unit_test(test_an_address_that_is_not_ours),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
