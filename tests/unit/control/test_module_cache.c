/* SPDX-License-Identifier: Apache-2.0
 *
 * Compiled code on disk: only what this user's key has sealed is ever given out.
 */
#include "control_test.h"

#include "control/module_cache.h"

static struct module_cache *cache;
static const char SHA[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
static const char OTHER[] = "5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9";

static struct module_cache *open_cache(const char *fingerprint)
{
    char *error = NULL;
    struct module_cache *c = module_cache_open(at("a/b/cache"), fingerprint, &error);
    if (c == NULL)
        fail_msg("%s", error);
    return c;
}
static int setup(void **state)
{
    (void)state;
    dir_make();
    cache = open_cache("engine 1");
    return 0;
}
static int teardown(void **state)
{
    (void)state;
    if (cache != NULL)
        module_cache_close(cache);
    dir_remove();
    return 0;
}

static char *seal(const char *sha, const char *code)
{
    char *made = module_cache_temporary(cache, ".cwasm"), *error = NULL;
    file_write(made, code, strlen(code));
    char *path = module_cache_seal(cache, sha, "optimised", made, &error);
    if (path == NULL)
        fail_msg("%s", error);
    assert_int_not_equal(access(made, F_OK), 0);
    mem_free(made);
    return path;
}
static bool finds(const char *sha, const char *tier)
{
    char *path = module_cache_find(cache, sha, tier);
    mem_free(path);
    return path != NULL;
}
static void reopen(const char *fingerprint)
{
    module_cache_close(cache);
    cache = open_cache(fingerprint);
}

static void test_found_again(void **state)
{
    (void)state;
    assert_false(finds(SHA, "optimised"));
    char *path = seal(SHA, "native code"), *found = module_cache_find(cache, SHA, "optimised");
    assert_string_equal(path, found);
    mem_free(path);
    mem_free(found);
    reopen("engine 1");
    assert_true(finds(SHA, "optimised"));
    assert_false(finds(SHA, "fast"));
    assert_false(finds(OTHER, "optimised"));
    reopen("engine 2");
    assert_false(finds(SHA, "optimised"));
}

static void test_sealed_twice(void **state)
{
    (void)state;
    mem_free(seal(SHA, "native code"));
    mem_free(seal(SHA, "other native code"));
    assert_true(finds(SHA, "optimised"));
}

static void test_tampered(void **state)
{
    (void)state;
    char *path = seal(SHA, "native code");
    file_write(path, "evil   code", 11);
    assert_false(finds(SHA, "optimised"));
    mem_free(path);
    mem_free(seal(SHA, "native code")); /* and it heals */
    assert_true(finds(SHA, "optimised"));
}

static void test_torn(void **state)
{
    (void)state;
    char *path = seal(SHA, "native code");
    assert_int_equal(truncate(path, 5), 0);
    assert_false(finds(SHA, "optimised"));
    mem_free(path);
    path = seal(SHA, "native code");
    char mac[512];
    snprintf(mac, sizeof mac, "%.*s.mac", (int)(strlen(path) - strlen(".cwasm")), path);
    assert_int_equal(unlink(mac), 0); /* a crash between the two renames */
    assert_false(finds(SHA, "optimised"));
    mem_free(path);
}

static void test_one_good_file_in_the_place_of_another(void **state)
{
    (void)state;
    char *a = seal(SHA, "native code a"), *b = seal(OTHER, "native code b"), from[512], to[512];
    assert_int_equal(rename(a, b), 0);
    snprintf(from, sizeof from, "%.*s.mac", (int)(strlen(a) - strlen(".cwasm")), a);
    snprintf(to, sizeof to, "%.*s.mac", (int)(strlen(b) - strlen(".cwasm")), b);
    assert_int_equal(rename(from, to), 0);
    assert_false(finds(OTHER, "optimised"));
    mem_free(a);
    mem_free(b);
}

static void test_symlink_is_not_followed(void **state)
{
    (void)state;
    char *path = seal(SHA, "native code");
    assert_int_equal(rename(path, at("elsewhere")), 0);
    assert_int_equal(symlink(at("elsewhere"), path), 0);
    assert_false(finds(SHA, "optimised"));
    mem_free(path);
}

static void test_another_key(void **state)
{
    (void)state;
    mem_free(seal(SHA, "native code"));
    assert_int_equal(unlink(at("a/b/cache/mac.key")), 0);
    reopen("engine 1");
    assert_false(finds(SHA, "optimised"));
}

static void refused(const char *dir, const char *why)
{
    char *error = NULL;
    assert_null(module_cache_open(dir, "engine 1", &error));
    assert_non_null(strstr(error, why));
    mem_free(error);
}

static void test_directory_must_be_ours(void **state)
{
    (void)state;
    struct stat st;
    assert_int_equal(stat(at("a/b/cache"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    assert_int_equal(stat(at("a/b/cache/mac.key"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(mkdir(at("open"), 0700), 0);
    assert_int_equal(chmod(at("open"), 0755), 0);
    refused(at("open"), "mode 0700");
    file_put("file", "x");
    refused(at("file"), "0700");
    refused(at("file/below"), "Not a directory");
    if (geteuid() == 0) {
        assert_int_equal(mkdir(at("theirs"), 0700), 0);
        assert_int_equal(chown(at("theirs"), 65534, 65534), 0);
        refused(at("theirs"), "of this user");
    }
    /* A key that is cut short is not made good: code sealed by others would be believed by nobody anyway. */
    assert_int_equal(truncate(at("a/b/cache/mac.key"), 3), 0);
    refused(at("a/b/cache"), "mac.key");
}

static void test_leftovers(void **state)
{
    (void)state;
    file_put("a/b/cache/tmp-999999999-0.wasm", "x"); /* no such process */
    char mine[300];
    snprintf(mine, sizeof mine, "a/b/cache/tmp-%ld-77.wasm", (long)getpid());
    file_put(mine, "x");
    reopen("engine 1");
    assert_int_not_equal(access(at("a/b/cache/tmp-999999999-0.wasm"), F_OK), 0);
    assert_int_equal(access(at(mine), F_OK), 0);
}

static void test_seal_fails(void **state)
{
    (void)state;
    char *error = NULL;
    assert_null(module_cache_seal(cache, SHA, "optimised", at("a/b/cache/nothing"), &error));
    assert_non_null(strstr(error, "cannot store compiled code"));
    mem_free(error);
    assert_false(finds(SHA, "optimised"));
}

static void test_sha256(void **state)
{
    (void)state;
    char hex[65];
    sha256_hex(STR(""), hex);
    assert_string_equal(hex, SHA);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_found_again, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sealed_twice, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tampered, setup, teardown),
        cmocka_unit_test_setup_teardown(test_torn, setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_good_file_in_the_place_of_another, setup, teardown),
        cmocka_unit_test_setup_teardown(test_symlink_is_not_followed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_another_key, setup, teardown),
        cmocka_unit_test_setup_teardown(test_directory_must_be_ours, setup, teardown),
        cmocka_unit_test_setup_teardown(test_leftovers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_seal_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sha256, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
