/* SPDX-License-Identifier: Apache-2.0
 *
 * Every name form says the same in its pattern (which users read) and in its function (which decides).
 */
#include "conf_test.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "conf/format.h"

static const struct format *const formats[] = {
    &format_label_name,     &format_service_name,     &format_subdomain,
    &format_qualified_name, &format_label_value,      &format_config_key,
    &format_sha256,         &format_controller_name,  &format_group,
    &format_kind,           &format_gateway_name,     &format_namespace_ref,
    &format_hostname,       &format_precise_hostname, &format_header_name,
    &format_duration,
};

#define X63   "aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffggg"
#define HEX64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
static const char *const samples[] = {
    "",
    "a",
    "A",
    "1",
    "-",
    ".",
    "..",
    "..a",
    ".a",
    "a.",
    "a-",
    "-a",
    "a-b",
    "a.b",
    "a..b",
    "a.-b",
    "a-.b",
    "a_b",
    "a b",
    "1a",
    "a1",
    "Gateway",
    "Gate-way",
    "Gateway-",
    "1Gateway",
    "*",
    "*.a",
    "*.a.b",
    "a.*",
    "**.a",
    "*.",
    "example.com",
    "example.com.",
    "EXAMPLE.com",
    "example.com/controller",
    "example.com/",
    "/x",
    "a/b",
    "a/b/c",
    "a//b",
    "a/b c",
    "weir.dev/gateway-controller",
    "weir.dev/A~!$&'()*+,;=:%",
    "app.kubernetes.io/name",
    "App.io/name",
    "a/_b",
    "a/b_",
    "a/B.c_d-e",
    "key.name",
    "KEY_NAME",
    "key-name",
    "key name",
    "key/name",
    ".dockerconfigjson",
    "x-header",
    "X-Header",
    "x:y",
    "x\"",
    "x^`|~",
    "10s",
    "1h30m",
    "500ms",
    "0s",
    "10",
    "1.5s",
    "100000s",
    "1s1s1s1s",
    "1s1s1s1s1s",
    "1ms1",
    "foo",
    HEX64,
    HEX64 "0",
    "0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF",
    X63,
    X63 "h",
    X63 "/" X63,
    "x/" X63,
    "x/" X63 "h",
    "a\n",
    "\xc3\xa9",
};

static void test_pattern_and_function_agree(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(formats); i++) {
        int error;
        PCRE2_SIZE at;
        pcre2_code *code = pcre2_compile((PCRE2_SPTR)formats[i]->pattern, PCRE2_ZERO_TERMINATED, PCRE2_DOLLAR_ENDONLY,
                                         &error, &at, NULL);
        assert_non_null(code);
        pcre2_match_data *data = pcre2_match_data_create_from_pattern(code, NULL);
        for (size_t k = 0; k < ARRAY_LEN(samples); k++) {
            struct str s = str_of(samples[k]);
            bool expected = pcre2_match(code, (PCRE2_SPTR)s.p, s.n, 0, 0, data, NULL) > 0;
            if (formats[i]->ok(s) != expected)
                print_message("'%s' against %s\n", samples[k], formats[i]->pattern);
            assert_int_equal(formats[i]->ok(s), expected);
        }
        pcre2_match_data_free(data);
        pcre2_code_free(code);
    }
}

static void test_paths_and_addresses(void **state)
{
    (void)state;
    static const char *const good[] = {"/", "/a/b", "/a%20b", "/a;v=1,2", "/~u/@x:y!$&'()*+", "/%FF"};
    static const char *const bad[] = {"", "/a b", "/a%2", "/a%zz", "/a?b", "/\xc3\xa9", "/<", "/%"};
    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        assert_true(format_is_path(str_of(good[i])));
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_false(format_is_path(str_of(bad[i])));
    assert_true(format_is_ip(STR("127.0.0.1")));
    assert_true(format_is_ip(STR("::1")));
    assert_true(format_is_ip(STR("2001:db8::ff00:42:8329")));
    assert_false(format_is_ip(STR("127.0.0.256")));
    assert_false(format_is_ip(STR("127.1")));
    assert_false(format_is_ip(STR("")));
    assert_false(format_is_ip(STR("127.0.0.1\0")));
    assert_false(format_is_ipv4(STR("::1")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pattern_and_function_agree),
        cmocka_unit_test(test_paths_and_addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
