/* SPDX-License-Identifier: Apache-2.0
 *
 * weir inspect: what it says of modules that load, that do not, and of files that are none.
 */
#include "cli_test.h"

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

#define HEADER "\0asm\1\0\0\0"
/* type () -> (); import env.proxy_log and "e\nv".x of that type; one function; memory of 1 page. */
#define TYPES   "\1\4\1\x60\0\0"
#define IMPORTS "\2\x19\2\3env\tproxy_log\0\0\3e\nv\1x\0\0"
#define BODY    "\3\2\1\0\5\3\1\0\1"
#define CODE    "\n\4\1\2\0\x0b"

static const char *put(const void *bytes, size_t n)
{
    const char *path = at("x.wasm");
    file_write(path, bytes, n);
    return path;
}
#define PUT(text) put(text, sizeof(text) - 1)

static void test_usage(void **state)
{
    (void)state;
    assert_refused("needs a file", cli_inspect, "inspect");
    assert_refused("takes one file", cli_inspect, "inspect", "a", "b");
    assert_refused("no option --json", cli_inspect, "inspect", "--json", "a");
    assert_int_equal(RUN(cli_inspect, "inspect", "--help"), CLI_OK);
    assert_has(out_text, "usage: weir inspect");
}

static void test_what_is_no_module(void **state)
{
    (void)state;
    assert_int_equal(RUN(cli_inspect, "inspect", at("absent.wasm")), CLI_FAILED);
    assert_has(err_text, "absent.wasm: ");
    assert_int_equal(RUN(cli_inspect, "inspect", PUT("not wasm")), CLI_FAILED);
    assert_has(err_text, "x.wasm: is not a valid Wasm module");
    assert_string_equal(out_text, "");
}

static void test_a_module_that_is_no_filter(void **state)
{
    (void)state;
    assert_int_equal(RUN(cli_inspect, "inspect", PUT(HEADER)), CLI_FAILED);
    assert_has(out_text, "\nbytes: 8\n");
    assert_has(out_text, "\nsha256: 93a44bbb96c751218e4c00d479e4c14358122a389acca16205b1e4d0dc5f9476\n");
    assert_has(out_text, "\nabi: none\n");
    assert_has(out_text, "\nverdict: missing or unknown Proxy-Wasm ABI version");
}

static void test_a_filter(void **state)
{
    (void)state;
    static const char wasm[] = HEADER TYPES IMPORTS BODY "\7\x24\2\6memory\2\0\x17proxy_abi_version_0_2_1\0\2" CODE;
    int code = RUN(cli_inspect, "inspect", PUT(wasm));
    assert_has(out_text, "\nabi: 0.2.1\n");
    assert_has(out_text, "\nmemory: 1 pages at start\n");
    assert_has(out_text, "\nimports: 2\n  env.proxy_log ");
    assert_has(out_text, "  e\\nv.x "); /* a name is no way to write to a terminal */
    assert_has(out_text, "unknown: answered by a stub");
    assert_has(out_text, "  proxy_abi_version_0_2_1 ");
    assert_has(out_text, "\nsections: type=");
    assert_has(out_text, "\nverdict: ");
    assert_int_equal(code, strstr(out_text, "verdict: loads") != NULL ? CLI_OK : CLI_FAILED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_usage, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_no_module, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_module_that_is_no_filter, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_filter, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
