/* SPDX-License-Identifier: Apache-2.0
 *
 * Text to JSON and back; YAML that reads back as the same, whatever a string looks like.
 */
#include "kube_test.h"

static void test_yaml_is_for_people(void **state)
{
    (void)state;
    json_t *j = J("{'kind':'WasmPlugin','spec':{'url':'oci://a/b:1','on':'yes','list':[{'a':1,'b':[true]},'x',[],{}],"
                  "'text':'one\\ntwo\\n','none':null,'empty':{}},'n':-1.5}");
    struct strbuf b = {0};
    assert_true(json_put_yaml(&b, j, SIZE_MAX));
    strbuf_addc(&b, '\0');
    assert_string_equal(b.p, "kind: WasmPlugin\n"
                             "spec:\n"
                             "  url: oci://a/b:1\n"
                             "  \"on\": \"yes\"\n"
                             "  list:\n"
                             "  - a: 1\n"
                             "    b:\n"
                             "    - true\n"
                             "  - x\n"
                             "  - []\n"
                             "  - {}\n"
                             "  text: |\n"
                             "    one\n"
                             "    two\n"
                             "  none: null\n"
                             "  empty: {}\n"
                             "\"n\": -1.5\n");
    strbuf_free(&b);
    json_decref(j);
}

static void test_yaml_reads_back(void **state)
{
    (void)state;
    static const char *const odd[] = {"",
                                      "y",
                                      "No",
                                      "0x10",
                                      "1_000",
                                      "1e3",
                                      "null",
                                      "~",
                                      "- a",
                                      "a: b",
                                      "a #b",
                                      "#",
                                      "'",
                                      "\"",
                                      "\\",
                                      "a\tb",
                                      "\n",
                                      "a\n",
                                      "a\n\n",
                                      " a\n",
                                      "a \nb\n",
                                      "\na\n",
                                      "a\n b\n",
                                      "\xc3\xa4\n",
                                      "%x",
                                      "@",
                                      "`",
                                      "|",
                                      ">",
                                      "a:",
                                      "a\r\n",
                                      "1:30",
                                      ".5",
                                      "+1",
                                      "=",
                                      "<<",
                                      "2026-01-01",
                                      "e",
                                      "a\x7f",
                                      "\xc2\x85",
                                      "\xc2\x9f",
                                      "a\xe2\x80\xa8z",
                                      "\xef\xbb\xbf",
                                      "\xef\xbf\xbf",
                                      "\xf0\x9f\x98\x80",
                                      "---\n"};
    for (size_t i = 0; i < ARRAY_LEN(odd); i++) {
        json_t *j = json_object(), *list = json_array();
        json_set_text(j, "value", odd[i]);
        json_set_text(j, odd[i], "key");
        json_array_append_new(list, json_string(odd[i]));
        json_array_append_new(list, json_pack("[s, {s:s}]", odd[i], odd[i], odd[i]));
        json_object_set_new(j, "list", list);
        struct strbuf b = {0};
        assert_true(json_put_yaml(&b, j, SIZE_MAX));
        char *error, *duplicate;
        json_t *again = json_of_text(strbuf_str(&b), &error, &duplicate);
        if (again == NULL || duplicate != NULL)
            fail_msg("%.*s: %s", STR_ARG(strbuf_str(&b)), again == NULL ? error : duplicate);
        same(again, j);
        strbuf_free(&b);
    }
}

static void test_one_document(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "{", "a: 1\n---\nb: 2\n", "a: [", "\t- x"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        char *error, *duplicate;
        assert_null(json_of_text(str_of(bad[i]), &error, &duplicate));
        assert_non_null(error);
        mem_free(error);
    }
    char *error, *duplicate;
    json_t *j = json_of_text(STR("{\"a\":1,\"a\":2}"), &error, &duplicate);
    assert_non_null(duplicate);
    mem_free(duplicate);
    same(j, J("{'a':1}"));
}

static void test_base64(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        {"", ""}, {"f", "Zg=="}, {"fo", "Zm8="}, {"foo", "Zm9v"}, {"\xff\xfe\xfd", "//79"}};
    for (size_t i = 0; i < ARRAY_LEN(pairs); i++) {
        json_t *j = json_base64(str_of(pairs[i][0]));
        assert_string_equal(json_string_value(j), pairs[i][1]);
        json_decref(j);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_yaml_is_for_people),
        cmocka_unit_test(test_yaml_reads_back),
        cmocka_unit_test(test_one_document),
        cmocka_unit_test(test_base64),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
