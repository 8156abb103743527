/* SPDX-License-Identifier: Apache-2.0
 *
 * Names of images as Docker reads them.
 */
#include "../loop_test.h"

#include "fetch/reference.h"

#define HEX    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define DIGEST "sha256:" HEX

static const struct {
    const char *text, *name, *registry, *repository, *tag, *digest;
    bool by_default;
} good[] = {
    {"filter", "filter", "docker.io", "library/filter", "latest", NULL, true},
    {"filter:v1", "filter", "docker.io", "library/filter", "v1", NULL, true},
    {"oci://filter", "filter", "docker.io", "library/filter", "latest", NULL, true},
    {"my-registry/my-wasm-filter:latest", "my-registry/my-wasm-filter", "docker.io", "my-registry/my-wasm-filter",
     "latest", NULL, true},
    {"docker.io/x", "docker.io/x", "docker.io", "library/x", "latest", NULL, false},
    {"index.docker.io/a/b:c", "index.docker.io/a/b", "docker.io", "a/b", "c", NULL, false},
    {"ghcr.io/org/name/x:1.2.3-rc_1", "ghcr.io/org/name/x", "ghcr.io", "org/name/x", "1.2.3-rc_1", NULL, false},
    {"oci://127.0.0.1:5000/x", "127.0.0.1:5000/x", "127.0.0.1:5000", "x", "latest", NULL, false},
    {"localhost/x:y", "localhost/x", "localhost", "x", "y", NULL, false},
    {"registry:5000/x", "registry:5000/x", "registry:5000", "x", "latest", NULL, false},
    {"[::1]:5000/x:y", "[::1]:5000/x", "[::1]:5000", "x", "y", NULL, false},
    {"Registry/x", "Registry/x", "Registry", "x", "latest", NULL, false},
    {"x@" DIGEST, "x", "docker.io", "library/x", NULL, DIGEST, true},
    {"h.io/x:t@" DIGEST, "h.io/x", "h.io", "x", "t", DIGEST, false},
    {"h.io:443/x@" DIGEST, "h.io:443/x", "h.io:443", "x", NULL, DIGEST, false},
    {"h.io/a__b/c.d/e--f/g_h", "h.io/a__b/c.d/e--f/g_h", "h.io", "a__b/c.d/e--f/g_h", "latest", NULL, false},
};

static void same(const char *a, const char *b)
{
    if (a == NULL || b == NULL)
        assert_true(a == b);
    else
        assert_string_equal(a, b);
}

static void test_good(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        struct reference r;
        char *error = NULL;
        if (!reference_parse(str_of(good[i].text), &r, &error))
            fail_msg("%s", error);
        same(r.name, good[i].name);
        same(r.registry, good[i].registry);
        same(r.repository, good[i].repository);
        same(r.tag, good[i].tag);
        same(r.digest, good[i].digest);
        assert_int_equal(r.by_default, good[i].by_default);
        reference_free(&r);
    }
}

static void test_bad(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        {"", "is empty"},
        {"oci://me:secret@host:5000/a:v1", "\"host:5000/a:v1\" holds a user or a password"},
        {"oci://", "is empty"},
        {"oci:///opt/x.wasm", "begins with a slash"},
        {"/opt/x", "begins with a slash"},
        {"h.io/", "no repository"},
        {"h.io/Upper", "upper-case"},
        {"Upper", "upper-case"},
        {"h.io/a//b", "not well formed"},
        {"h.io/-a", "not well formed"},
        {"h.io/a-", "not well formed"},
        {"h.io/a..b", "not well formed"},
        {"h.io/a___b", "not well formed"},
        {"h.io/a b", "not well formed"},
        {"h.io/../x", "not well formed"},
        {"x:", "tag"},
        {"x:-a", "tag"},
        {"x:a%2f", "tag"},
        {"x@sha256:abc", "digest"},
        {"x@sha512:" HEX HEX, "digest"},
        {"x@sha256:0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef", "digest"},
        {"h.io:0/x", "registry"},
        {"h.io:99999/x", "registry"},
        {"h.io:http/x", "registry"},
        {".io/x", "registry"},
        {"[::1/x", "registry"},
        {"user:pass@h.io/x", "holds a user or a password"},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct reference r;
        char *error = NULL;
        if (reference_parse(str_of(bad[i][0]), &r, &error))
            fail_msg("\"%s\" passed", bad[i][0]);
        if (strstr(error, bad[i][1]) == NULL)
            fail_msg("\"%s\" does not say \"%s\"", error, bad[i][1]);
        assert_null(strstr(error, "pass@"));
        mem_free(error);
        assert_null(r.repository);
        reference_free(&r);
    }
}

static void test_bounds(void **state)
{
    (void)state;
    struct strbuf b = {0};
    struct reference r;
    char *error = NULL;
    strbuf_addz(&b, "h.io/");
    while (b.n < 5 + REPOSITORY_MAX)
        strbuf_addc(&b, 'a');
    assert_true(reference_parse(strbuf_str(&b), &r, &error));
    reference_free(&r);
    strbuf_addc(&b, 'a');
    assert_false(reference_parse(strbuf_str(&b), &r, &error));
    mem_free(error);
    assert_false(reference_parse(str_span(b.p + 5, 251), &r, &error)); /* "library/" comes before it */
    mem_free(error);
    while (b.n <= REFERENCE_MAX)
        strbuf_addc(&b, 'a');
    assert_false(reference_parse(strbuf_str(&b), &r, &error));
    mem_free(error);
    strbuf_free(&b);
}

static void test_writing(void **state)
{
    (void)state;
    struct reference r;
    char *error = NULL;
    struct strbuf b = {0};
    assert_true(reference_parse(STR("x:y"), &r, &error));
    reference_write(&r, &b);
    assert_true(str_is(strbuf_str(&b), "docker.io/library/x:y"));
    reference_free(&r);
    strbuf_clear(&b);
    assert_true(reference_parse(STR("h:1/x:y@" DIGEST), &r, &error));
    reference_write(&r, &b);
    assert_true(str_is(strbuf_str(&b), "h:1/x@" DIGEST));
    reference_free(&r);
    strbuf_free(&b);
    assert_true(str_is(reference_without_user(STR("u:p@h/x@y")), "h/x@y"));
    assert_true(str_is(reference_without_user(STR("x@" DIGEST)), "x@" DIGEST));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_good), cmocka_unit_test(test_bad),
                                       cmocka_unit_test(test_bounds), cmocka_unit_test(test_writing)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
