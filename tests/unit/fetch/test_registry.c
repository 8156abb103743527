/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of registries: prefixes, mirrors, files, and the rules for what it does not name.
 */
#include "../loop_test.h"

#include "fetch/registry.h"

static struct registry_table *table;
static struct registry_places places;

static int setup(void **state)
{
    (void)state;
    table = registry_table_new();
    return 0;
}
static int teardown(void **state)
{
    (void)state;
    registry_places_free(&places);
    registry_table_free(table);
    return 0;
}

static void add(const char *text)
{
    char *error = NULL;
    if (!registry_table_add(table, text, &error))
        fail_msg("%s", error);
}
static void resolve(const char *text)
{
    struct reference r;
    char *error = NULL;
    assert_true(reference_parse(str_of(text), &r, &error));
    registry_places_free(&places);
    registry_resolve(table, &r, &places);
    reference_free(&r);
}
static void is_place(size_t i, const char *base, const char *repository)
{
    assert_true(i < places.count);
    assert_string_equal(places.list[i].base, base);
    assert_string_equal(places.list[i].repository, repository);
}

static void test_a_word_without_a_dot(void **state)
{
    (void)state;
    resolve("oci://my-registry/my-wasm-filter:latest");
    is_place(0, "https://registry-1.docker.io", "my-registry/my-wasm-filter");
    assert_true(places.guessed_hub);
    add("my-registry=http://127.0.0.1:5000");
    resolve("oci://my-registry/my-wasm-filter:latest");
    assert_int_equal(places.count, 1);
    is_place(0, "http://127.0.0.1:5000", "my-wasm-filter");
    assert_string_equal(places.list[0].host, "127.0.0.1:5000");
    assert_true(places.list[0].own_names);
    assert_null(places.list[0].fallback);
    assert_false(places.guessed_hub);
    resolve("my-registry2/x"); /* whole components only */
    is_place(0, "https://registry-1.docker.io", "my-registry2/x");
    resolve("x");
    is_place(0, "https://registry-1.docker.io", "library/x");
    assert_false(places.guessed_hub);
}

static void test_prefixes_and_mirrors(void **state)
{
    (void)state;
    add("docker.io=https://mirror.example/hub/");
    add("ghcr.io=https://a.example");
    add("ghcr.io=http://b.example:80/x/y");
    add("ghcr.io/org=https://c.example");
    add("ghcr.io/org/one=https://d.example/only");
    resolve("nginx:1");
    is_place(0, "https://mirror.example", "hub/library/nginx");
    assert_false(places.list[0].own_names); /* Docker Hub's password is not the mirror's */
    resolve("a/b");
    is_place(0, "https://mirror.example", "hub/a/b");
    resolve("ghcr.io/z");
    assert_int_equal(places.count, 2);
    is_place(0, "https://a.example", "z");
    is_place(1, "http://b.example:80", "x/y/z");
    resolve("ghcr.io/org/f");
    assert_int_equal(places.count, 1);
    is_place(0, "https://c.example", "f");
    resolve("ghcr.io/org/one"); /* the whole name */
    is_place(0, "https://d.example", "only");
    resolve("ghcr.io/org/ones");
    is_place(0, "https://c.example", "ones");
}

static void test_schemes(void **state)
{
    (void)state;
    char *error = NULL;
    static const struct {
        const char *text, *base, *fallback;
        bool insecure;
    } rows[] = {
        {"h.example/x", "https://h.example", NULL, false},
        {"10.0.0.1:5000/x", "https://10.0.0.1:5000", NULL, false},
        {"localhost:5000/x", "http://localhost:5000", "https://localhost:5000", true},
        {"127.9.9.9/x", "http://127.9.9.9", "https://127.9.9.9", true},
        {"[::1]:5000/x", "http://[::1]:5000", "https://[::1]:5000", true},
        {"i.example:5000/x", "https://i.example:5000", "http://i.example:5000", true},
        {"j.example:1/x", "https://j.example:1", "http://j.example:1", true},
        {"127.0.0.1.example/x", "https://127.0.0.1.example", NULL, false},
    };
    assert_true(registry_table_add_insecure(table, "i.example:5000", &error));
    assert_true(registry_table_add_insecure(table, "j.example", &error));
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        resolve(rows[i].text);
        is_place(0, rows[i].base, "x");
        assert_int_equal(places.list[0].insecure, rows[i].insecure);
        if (rows[i].fallback == NULL)
            assert_null(places.list[0].fallback);
        else
            assert_string_equal(places.list[0].fallback, rows[i].fallback);
    }
    resolve("i.example:6000/x");
    assert_false(places.list[0].insecure);
}

static void test_file(void **state)
{
    (void)state;
    char *error = NULL;
    static const char text[] = "# registries\n\n"
                               "my-registry  http://127.0.0.1:5000   # local\r\n"
                               "ghcr.io https://m.example/gh ca=/ca.pem user=u password-file=/p insecure\n"
                               "\tq.io https://q config=/c.json cert=/a key=/b\n"
                               "insecure 10.0.0.1:5000";
    assert_true(registry_table_read(table, str_of(text), "f", &error));
    resolve("ghcr.io/x");
    const struct registry_entry *e = places.list[0].entry;
    assert_string_equal(e->ca_file, "/ca.pem");
    assert_string_equal(e->user, "u");
    assert_string_equal(e->password_file, "/p");
    assert_true(places.list[0].insecure);
    resolve("q.io/x");
    assert_string_equal(places.list[0].entry->config_file, "/c.json");
    resolve("10.0.0.1:5000/x");
    assert_true(places.list[0].insecure);
    static const char *const bad[][2] = {
        {"x", "f:1: a line is PREFIX URL"},
        {"\na https://x b=c", "f:2: options are"},
        {"a ftp://x", "must begin with http"},
        {"a https://", "must name a host"},
        {"a https://u:p@x", "credentials do not belong"},
        {"a https://x user=u", "belong together"},
        {"a https://x cert=u", "belong together"},
        {"a https://x ca=", "options are"},
        {"a https://x?y", "a host and a path only"},
        {"https://a https://x", "the prefix must be"},
        {"insecure a/b", "an insecure registry is HOST"},
        {"insecure a b", "nothing may follow"},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        char *whole = mem_printf("%s%s", "", bad[i][0]);
        assert_false(registry_table_read(table, str_of(whole), "f", &error));
        if (strstr(error, bad[i][1]) == NULL)
            fail_msg("\"%s\" does not say \"%s\"", error, bad[i][1]);
        mem_free(error);
        mem_free(whole);
    }
    /* What stands before the bad line does not count either. */
    assert_false(registry_table_read(table, STR("zz http://z\nbad"), "f", &error));
    mem_free(error);
    resolve("zz/x");
    assert_true(places.guessed_hub);
    assert_false(registry_table_load(table, "/nonexistent/file", &error));
    mem_free(error);
    assert_false(registry_table_add(table, "only-a-name", &error));
    mem_free(error);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_word_without_a_dot, setup, teardown),
        cmocka_unit_test_setup_teardown(test_prefixes_and_mirrors, setup, teardown),
        cmocka_unit_test_setup_teardown(test_schemes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_file, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
