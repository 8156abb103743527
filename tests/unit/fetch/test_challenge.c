/* SPDX-License-Identifier: Apache-2.0
 *
 * www-authenticate of registries as they are, of several schemes in one line, and of those that mean harm.
 */
#include "../loop_test.h"

#include "fetch/challenge.h"

static void check(const char *header, bool basic, bool bearer, const char *realm, const char *service,
                  const char *scope)
{
    const char *want[] = {realm, service, scope};
    struct challenge c = {0};
    challenge_read(&c, str_of(header));
    char *const got[] = {c.realm, c.service, c.scope};
    assert_int_equal(c.basic, basic);
    assert_int_equal(c.bearer, bearer);
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        if (want[i] == NULL)
            assert_null(got[i]);
        else
            assert_string_equal(got[i], want[i]);
    }
    challenge_free(&c);
}

static void test_all(void **state)
{
    (void)state;
    check("Bearer "
          "realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\",scope=\"repository:a/b:pull,push\"",
          false, true, "https://auth.docker.io/token", "registry.docker.io", "repository:a/b:pull,push");
    check("Basic realm=\"x\"", true, false, NULL, NULL, NULL);
    check("basic", true, false, NULL, NULL, NULL);
    check("bearer Realm = \"r\" , SERVICE=s", false, true, "r", "s", NULL);
    check("Basic realm=\"a\", Bearer realm=\"b\", service=\"c\", Digest realm=\"d\"", true, true, "b", "c", NULL);
    check("Bearer realm=\"b\", Basic realm=\"a\"", true, true, "b", NULL, NULL);
    check("Bearer realm=\"a\", Bearer realm=\"b\"", false, true, "a", NULL, NULL);
    check("Negotiate YWJj==, Basic realm=x", true, false, NULL, NULL, NULL);
    check("Bearer realm=\"q\\\"u\\\\o\"", false, true, "q\"u\\o", NULL, NULL);
    check("Bearer realm=\"a\", realm=\"b\"", false, true, "a", NULL, NULL);
    check("Bearer realm=\"cut off", false, true, NULL, NULL, NULL);
    check("Bearer realm=\"line\r\nbreak\"", false, true, NULL, NULL, NULL);
    check("Bearer realm=\"nul", false, true, NULL, NULL, NULL);
    check("", false, false, NULL, NULL, NULL);
    check(",,,", false, false, NULL, NULL, NULL);
    check("=x", false, false, NULL, NULL, NULL);
    check("realm=\"a\"", false, false, NULL, NULL, NULL);
}

static void test_two_lines(void **state)
{
    (void)state;
    struct challenge c = {0};
    challenge_read(&c, STR("Basic realm=\"a\""));
    challenge_read(&c, STR("Bearer realm=\"b\""));
    assert_true(c.basic && c.bearer);
    assert_string_equal(c.realm, "b");
    challenge_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_all), cmocka_unit_test(test_two_lines)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
