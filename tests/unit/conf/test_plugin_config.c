/* SPDX-License-Identifier: Apache-2.0
 *
 * The bytes a plugin gets for what stands under pluginConfig: the oddities of YAML 1.1 and of Go's JSON.
 */
#include "conf_test.h"

#define PLUGIN                                                                                                         \
    "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {name: p}\nspec:\n  url: file:///x.wasm\n"  \
    "  pluginConfig:"

/* NULL: no configuration at all. */
static void assert_config(const char *yaml, const char *expected)
{
    char *text = mem_printf("%s%s\n", PLUGIN, yaml);
    struct documents d;
    const struct wasm_plugin *p = &parse_one(text, &d)->u.wasm_plugin;
    if (expected == NULL) {
        assert_null(p->config);
        assert_int_equal(p->config_bytes, 0);
    } else {
        assert_non_null(p->config);
        assert_string_equal(p->config, expected);
        assert_int_equal(p->config_bytes, strlen(expected));
    }
    documents_free(&d);
    mem_free(text);
}

/* value as the only member: {"v":...} */
static void assert_value(const char *yaml, const char *expected)
{
    char *text = mem_printf(" {v: %s}", yaml), *json = mem_printf("{\"v\":%s}", expected);
    assert_config(text, json);
    mem_free(text);
    mem_free(json);
}

static void test_scalars(void **state)
{
    (void)state;
    static const struct {
        const char *yaml, *json;
    } cases[] = {
        /* booleans of YAML 1.1 */
        {"yes", "true"},
        {"Yes", "true"},
        {"YES", "true"},
        {"no", "false"},
        {"No", "false"},
        {"NO", "false"},
        {"on", "true"},
        {"On", "true"},
        {"ON", "true"},
        {"off", "false"},
        {"Off", "false"},
        {"OFF", "false"},
        {"y", "true"},
        {"Y", "true"},
        {"n", "false"},
        {"N", "false"},
        {"true", "true"},
        {"True", "true"},
        {"TRUE", "true"},
        {"false", "false"},
        {"False", "false"},
        {"FALSE", "false"},
        {"yES", "\"yES\""},
        {"\"yes\"", "\"yes\""},
        {"'no'", "\"no\""},
        {"!!str yes", "\"yes\""},
        {"!!bool \"yes\"", "true"},
        /* null */
        {"null", "null"},
        {"Null", "null"},
        {"NULL", "null"},
        {"~", "null"},
        {"", "null"},
        {"'~'", "\"~\""},
        {"nULL", "\"nULL\""},
        {"none", "\"none\""},
        /* integers */
        {"0", "0"},
        {"-0", "0"},
        {"+5", "5"},
        {"-5", "-5"},
        {"010", "8"},
        {"-010", "-8"},
        {"0o17", "15"},
        {"0x1F", "31"},
        {"0X1f", "31"},
        {"-0x10", "-16"},
        {"0b101", "5"},
        {"-0b11", "-3"},
        {"1_000", "1000"},
        {"0_10", "8"},
        {"08", "8"},
        {"09.5", "9.5"},
        {"0x", "\"0x\""},
        {"0xZZ", "\"0xZZ\""},
        {"_1", "\"_1\""},
        {"-", "\"-\""},
        {"+", "\"+\""},
        {"9007199254740993", "9007199254740992"},
        {"5000000000", "5000000000"},
        {"9223372036854775807", "9223372036854775807" /* through a double, see below */},
        {"18446744073709551615", "18446744073709552000"},
        {"123456789012345678901234567890", "1.2345678901234568e+29"},
        {"!!int \"7\"", "7"},
        {"!!str 7", "\"7\""},
        {"'7'", "\"7\""},
        /* floats */
        {"1.10", "1.1"},
        {"1e21", "1e+21"},
        {"1e20", "100000000000000000000"},
        {"1E3", "1000"},
        {"1e-7", "1e-7"},
        {"1e-6", "0.000001"},
        {".5", "0.5"},
        {"-.5", "-0.5"},
        {"5.", "5"},
        {"1.0", "1"},
        {"-0.0", "-0"},
        {"1e400", "\"1e400\""},
        {"1_0.5", "10.5"},
        {"!!float 3", "3"},
        {".", "\".\""},
        {"1.2.3", "\"1.2.3\""},
        {"1e", "\"1e\""},
        {"+.5", "0.5"},
        {"0x1p4", "\"0x1p4\""},
        {"1:30", "\"1:30\""},
        {"190:20:30", "\"190:20:30\""},
        /* dates and the rest are strings */
        {"2001-01-01", "\"2001-01-01\""},
        {"2001-12-14t21:59:43.10-05:00", "\"2001-12-14t21:59:43.10-05:00\""},
        {"1.2.3.4", "\"1.2.3.4\""},
        {"10s", "\"10s\""},
        {"!mine x", "\"x\""},
        {"!!binary aGVsbG8=", "\"hello\""},
        {"<<", "\"\\u003c\\u003c\""},
        /* strings in JSON */
        {"\"<a>&b\"", "\"\\u003ca\\u003e\\u0026b\""},
        {"\"\\u2028\\u2029\"", "\"\\u2028\\u2029\""},
        {"\"a\\\"b\\\\c/d\"", "\"a\\\"b\\\\c/d\""},
        {"\"\\n\\r\\t\\b\\f\"", "\"\\n\\r\\t\\b\\f\""},
        {"\"\\x01\\x1f\\x7f\"", "\"\\u0001\\u001f\x7f\""},
        {"\"\\0\"", "\"\\u0000\""},
        {"\"\\u00e9\"", "\"\xc3\xa9\""},
        {"\"\\U0001F600\"", "\"\xf0\x9f\x98\x80\""},
        /* collections */
        {"[]", "[]"},
        {"{}", "{}"},
        {"[1, yes, ~, a]", "[1,true,null,\"a\"]"},
        {"{b: 1, a: {d: [], c: 2}}", "{\"a\":{\"c\":2,\"d\":[]},\"b\":1}"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        if (strcmp(cases[i].yaml, "9223372036854775807") == 0)
            assert_value(cases[i].yaml, "9223372036854776000");
        else
            assert_value(cases[i].yaml, cases[i].json);
    }
}

static void test_keys(void **state)
{
    (void)state;
    assert_config("\n    n: 1", "{\"false\":1}");
    assert_config("\n    on: 1", "{\"true\":1}");
    assert_config("\n    'on': 1", "{\"on\":1}");
    assert_config("\n    010: 1\n    1.5: 2\n    1e6: 3", "{\"1.5\":2,\"1e+06\":3,\"8\":1}");
    assert_config("\n    b: 1\n    B: 2\n    a: 3\n    aa: 4\n    \"\\u00e9\": 5\n    _: 6",
                  "{\"B\":2,\"_\":6,\"a\":3,\"aa\":4,\"b\":1,\"\xc3\xa9\":5}");
    assert_config("\n    \"<k>\": 1", "{\"\\u003ck\\u003e\":1}");
}

static void test_empty(void **state)
{
    (void)state;
    assert_config("", NULL);
    assert_config(" {}", NULL);
    assert_config(" ~", NULL);
    assert_config(" {a: ~}", "{\"a\":null}");
}

static void test_blocks_anchors_merges(void **state)
{
    (void)state;
    assert_config("\n    t: |\n      a\n      b\n    f: >\n      c\n      d", "{\"f\":\"c d\\n\",\"t\":\"a\\nb\\n\"}");
    assert_config("\n    a: &x {k: 1}\n    b: *x", "{\"a\":{\"k\":1},\"b\":{\"k\":1}}");
    assert_config("\n    a: &x {k: 1, l: 2}\n    b: {<<: *x, k: 3}",
                  "{\"a\":{\"k\":1,\"l\":2},\"b\":{\"k\":3,\"l\":2}}");
    assert_config("\n    a: &x {k: 1}\n    b: &y {k: 2, m: 3}\n    c: {k2: 0, <<: [*x, *y]}",
                  "{\"a\":{\"k\":1},\"b\":{\"k\":2,\"m\":3},\"c\":{\"k\":1,\"k2\":0,\"m\":3}}");
}

/* The same object as JSON has the same bytes. */
static void test_json_input(void **state)
{
    (void)state;
    struct documents d;
    const char *text =
        "{\"apiVersion\":\"extensions.istio.io/v1alpha1\",\"kind\":\"WasmPlugin\",\"metadata\":{\"name\":\"p\"},"
        "\"spec\":{\"url\":\"file:\\/\\/\\/x.wasm\",\"pluginConfig\":{\"z\":1.0,\"s\":\"\\ud83d\\ude00\\ud800<\","
        "\"on\":\"yes\",\"n\":010e0}}}";
    resources_parse(str_of(text), "f", "default",
                    &d); /* 010e0 is no JSON, but YAML: only then are surrogates refused */
    assert_int_equal(d.syntax.errors, 1);
    documents_free(&d);
    text = "{\"apiVersion\":\"extensions.istio.io/v1alpha1\",\"kind\":\"WasmPlugin\",\"metadata\":{\"name\":\"p\"},"
           "\"spec\":{\"url\":\"file:\\/\\/\\/x.wasm\",\"pluginConfig\":{\"z\":1.0,\"s\":\"\\ud83d\\ude00\\ud800<\","
           "\"on\":\"yes\",\"n\":-0,\"m\":1E2}}}";
    const struct wasm_plugin *p = &parse_one(text, &d)->u.wasm_plugin;
    assert_string_equal(p->config,
                        "{\"m\":100,\"n\":0,\"on\":\"yes\",\"s\":\"\xf0\x9f\x98\x80\xef\xbf\xbd\\u003c\",\"z\":1}");
    assert_string_equal(p->url, "file:///x.wasm");
    documents_free(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scalars),    cmocka_unit_test(test_keys),
        cmocka_unit_test(test_empty),      cmocka_unit_test(test_blocks_anchors_merges),
        cmocka_unit_test(test_json_input),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
