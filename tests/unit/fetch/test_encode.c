/* SPDX-License-Identifier: Apache-2.0
 *
 * Digests, base64 (RFC 4648 section 10) and url encoding.
 */
#include "../loop_test.h"

#include "fetch/encode.h"

static void test_digests(void **state)
{
    (void)state;
    char text[DIGEST_TEXT_MAX];
    encode_digest(STR("abc"), text);
    assert_string_equal(text, "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_true(digest_is_good(str_of(text)));
    encode_digest(STR_NONE, text);
    assert_string_equal(text, "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    text[70] = 'G';
    assert_false(digest_is_good(str_of(text)));
    assert_false(digest_is_good(STR("sha256:")));
    assert_false(digest_is_good(STR_NONE));
}

static void test_base64(void **state)
{
    (void)state;
    static const char *const rows[][2] = {{"", ""},        {"f", "Zg=="},        {"fo", "Zm8="},
                                          {"foo", "Zm9v"}, {"foob", "Zm9vYg=="}, {"\xff\xfe\xfd", "//79"}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct strbuf b = {0};
        encode_base64(str_of(rows[i][0]), &b);
        assert_true(str_is(strbuf_str(&b), rows[i][1]));
        strbuf_clear(&b);
        assert_true(decode_base64(str_of(rows[i][1]), &b));
        assert_true(str_is(strbuf_str(&b), rows[i][0]));
        strbuf_free(&b);
    }
    static const char *const bad[] = {"Z", "Zg=", "Zg===", "=", "Zm=9", "Zm9v=", "Zm-v", "Zm9vY"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct strbuf b = {0};
        if (decode_base64(str_of(bad[i]), &b))
            fail_msg("%s passed", bad[i]);
        strbuf_free(&b);
    }
    struct strbuf b = {0};
    assert_true(decode_base64(STR("Zm 9v\nYg"), &b)); /* padding may be missing */
    assert_true(str_is(strbuf_str(&b), "foob"));
    strbuf_free(&b);
}

static void test_url(void **state)
{
    (void)state;
    struct strbuf b = {0};
    encode_url(str_span("a-Z~0 /:&=\0\xff", 12), &b);
    assert_true(str_is(strbuf_str(&b), "a-Z~0%20%2F%3A%26%3D%00%FF"));
    strbuf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_digests), cmocka_unit_test(test_base64),
                                       cmocka_unit_test(test_url)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
