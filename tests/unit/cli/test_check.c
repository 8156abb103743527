/* SPDX-License-Identifier: Apache-2.0
 *
 * weir check: what it prints of good and bad files, and how it exits.
 */
#include "cli_test.h"

#define GATEWAY                                                                                                        \
    "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: g, namespace: istio-system}\nspec:\n"   \
    "  gatewayClassName: weir\n  listeners: [{name: http, port: 80, protocol: HTTP}]\n"

static int setup(void **state)
{
    (void)state;
    dir_make();
    return 0;
}
static int teardown(void **state)
{
    (void)state;
    dir_remove();
    return 0;
}

static void test_usage(void **state)
{
    (void)state;
    assert_refused("needs a file or directory", cli_check, "check");
    assert_refused("/no/such/file: no such file", cli_check, "check", "/no/such/file");
    assert_refused("no option --strict", cli_check, "check", "--strict", test_dir);
    assert_refused("--namespace needs a value", cli_check, "check", test_dir, "--namespace");
    assert_refused("--labels needs a value", cli_check, "check", test_dir, "--labels");
    assert_refused("--labels \"x\": want k=v,k=v", cli_check, "check", "--labels", "x", test_dir);
    assert_int_equal(RUN(cli_check, "check", "--help"), CLI_OK);
    assert_has(out_text, "usage: weir check");
}

static void test_good_files(void **state)
{
    (void)state;
    assert_int_equal(RUN(cli_check, "check", test_dir), CLI_OK);
    assert_string_equal(out_text, "0 objects, no errors, 0 warnings\n");
    file_put("a.yaml", GATEWAY);
    assert_int_equal(RUN(cli_check, "check", test_dir), CLI_OK);
    assert_string_equal(out_text, "1 object, no errors, 0 warnings\n");
    assert_string_equal(err_text, "");
    assert_int_equal(RUN(cli_check, "check", at("a.yaml"), "--namespace=x", "--labels=a=b"), CLI_OK);
}

static void test_every_error_has_its_place(void **state)
{
    (void)state;
    file_put("a.yaml", GATEWAY);
    file_put("b.yaml",
             "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 0}, {port: 99999}]}\n");
    file_put("c.yaml", "a: [\n");
    assert_int_equal(RUN(cli_check, "check", test_dir), CLI_FAILED);
    assert_has(out_text, "/b.yaml:4:23: ");
    assert_has(out_text, "/b.yaml:4:34: ");
    assert_has(out_text, "/c.yaml:");
    assert_null(strstr(out_text, "/a.yaml:"));
    assert_has(err_text, " errors, 0 warnings\n");
}

static void test_warnings_do_not_fail(void **state)
{
    (void)state;
    file_put("a.yaml", GATEWAY "  addresses: [{type: Hostname, value: a.example}]\n");
    int code = RUN(cli_check, "check", test_dir);
    assert_has(out_text, "warning: ");
    assert_int_equal(code, strstr(err_text, "error") != NULL ? CLI_FAILED : CLI_OK);
}

/* References between objects are looked at too. */
static void test_two_gateways_of_one_port(void **state)
{
    (void)state;
    file_put("a.yaml", GATEWAY);
    file_put("b.yaml", "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n"
                       "metadata: {name: h, namespace: istio-system}\nspec:\n  gatewayClassName: weir\n"
                       "  listeners: [{name: http, port: 80, protocol: HTTP}]\n");
    (void)RUN(cli_check, "check", test_dir);
    assert_has(out_text, "Gateway istio-system/h: PortUnavailable: ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_usage, setup, teardown),
        cmocka_unit_test_setup_teardown(test_good_files, setup, teardown),
        cmocka_unit_test_setup_teardown(test_every_error_has_its_place, setup, teardown),
        cmocka_unit_test_setup_teardown(test_warnings_do_not_fail, setup, teardown),
        cmocka_unit_test_setup_teardown(test_two_gateways_of_one_port, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
