/* SPDX-License-Identifier: Apache-2.0
 *
 * Compiled code on disk: only what this user's key has sealed is ever given out. Modules: only what their name says.
 * Records of pulls: what was written, or nothing. And the directory's size, which takes nothing that somebody holds.
 */
#include "control_test.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "control/module_cache.h"

static struct module_cache *cache;
static uint64_t max_bytes;
static const char SHA[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
static const char OTHER[] = "5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9";

static struct module_cache *open_cache(const char *fingerprint)
{
    char *error = NULL;
    struct module_cache *c = module_cache_open(at("a/b/cache"), fingerprint, max_bytes, &error);
    if (c == NULL)
        fail_msg("%s", error);
    return c;
}
static int setup(void **state)
{
    (void)state;
    dir_make();
    max_bytes = 0;
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
    int hold = -1;
    char *path = module_cache_seal(cache, sha, "optimised", made, &hold, &error);
    if (path == NULL)
        fail_msg("%s", error);
    assert_true(hold >= 0);
    module_cache_release(&hold);
    assert_int_not_equal(access(made, F_OK), 0);
    mem_free(made);
    return path;
}
static bool finds(const char *sha, const char *tier)
{
    int hold = -1;
    char *path = module_cache_find(cache, sha, tier, &hold);
    assert_int_equal(hold >= 0, path != NULL);
    module_cache_release(&hold);
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
    int hold = -1;
    char *path = seal(SHA, "native code"), *found = module_cache_find(cache, SHA, "optimised", &hold);
    assert_string_equal(path, found);
    module_cache_release(&hold);
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
    assert_null(module_cache_open(dir, "engine 1", 0, &error));
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

static bool exists(const char *file) { return access(at(file), F_OK) == 0; }

static void old(const char *file, int64_t seconds_ago)
{
    struct timespec then = {.tv_sec = time(NULL) - seconds_ago}, times[2] = {then, then};
    assert_int_equal(utimensat(AT_FDCWD, at(file), times, 0), 0);
}

static void test_leftovers(void **state)
{
    (void)state;
    /* Of a process that died: its lock is there and nobody has it. */
    file_put("a/b/cache/tmp-00112233445566aa.lock", "");
    file_put("a/b/cache/tmp-00112233445566aa-0.cwasm", "x");
    file_put("a/b/cache/tmp-00112233445566bb-0.cwasm", "x"); /* not even a lock */
    file_put("a/b/cache/tmp-17-0.wasm", "x");                /* of another version: perhaps somebody's */
    file_put("a/b/cache/tmp-18-0.wasm", "x");
    old("a/b/cache/tmp-18-0.wasm", 7200);
    char *mine = module_cache_temporary(cache, ".cwasm");
    file_write(mine, "x", 1);
    struct module_cache *other = open_cache("engine 1"); /* a second process that shares the directory */
    assert_false(exists("a/b/cache/tmp-00112233445566aa.lock"));
    assert_false(exists("a/b/cache/tmp-00112233445566aa-0.cwasm"));
    assert_false(exists("a/b/cache/tmp-00112233445566bb-0.cwasm"));
    assert_true(exists("a/b/cache/tmp-17-0.wasm"));
    assert_false(exists("a/b/cache/tmp-18-0.wasm"));
    assert_int_equal(access(mine, F_OK), 0);
    module_cache_close(other);
    reopen("engine 1");
    assert_int_not_equal(access(mine, F_OK), 0);
    mem_free(mine);
}

/* ---- modules ---- */

static void put(struct str bytes, char sha[65], int *hold)
{
    char *error = NULL;
    sha256_hex(bytes, sha);
    char *path = module_cache_put(cache, sha, bytes, hold, &error);
    if (path == NULL)
        fail_msg("%s", error);
    assert_true(*hold >= 0);
    mem_free(path);
}
static bool has(const char *sha, struct str bytes)
{
    int hold = -1;
    size_t n = 0;
    char *path = NULL, *got = module_cache_get(cache, sha, &n, &path, &hold);
    bool same = got != NULL && str_eq(str_span(got, n), bytes);
    assert_int_equal(hold >= 0, got != NULL);
    module_cache_release(&hold);
    mem_free(path);
    mem_free(got);
    return same;
}

static void test_module_is_what_its_name_says(void **state)
{
    (void)state;
    char sha[65], file[128];
    int hold = -1;
    put(STR("a module"), sha, &hold);
    module_cache_release(&hold);
    reopen("engine 2"); /* bytes are good for every engine */
    assert_true(has(sha, STR("a module")));
    snprintf(file, sizeof file, "a/b/cache/%.64s.wasm", sha);
    file_put(file, "a modulf");
    assert_false(has(sha, STR("a modulf")));
    assert_false(exists(file));
    put(STR("a module"), sha, &hold); /* and it heals */
    file_put(file, "a mod");
    module_cache_release(&hold);
    put(STR("a module"), sha, &hold); /* over a torn one too */
    module_cache_release(&hold);
    assert_true(has(sha, STR("a module")));
}

/* ---- records ---- */

static void remember(const char *key, const char *module)
{
    struct pull_record r = {
        .from = mem_strdup("http://127.0.0.1:5000/a:v1"), .version = mem_strdup("u/1/x"), .pulled_s = 7};
    char *error = NULL;
    snprintf(r.digest, sizeof r.digest, "sha256:%s", SHA);
    snprintf(r.module_sha256, sizeof r.module_sha256, "%s", module);
    if (!module_cache_remember(cache, str_of(key), &r, &error))
        fail_msg("%s", error);
    pull_record_free(&r);
}
static bool recalls(const char *key)
{
    struct pull_record r;
    bool found = module_cache_recall(cache, str_of(key), &r);
    pull_record_free(&r);
    return found;
}

static void test_records(void **state)
{
    (void)state;
    struct pull_record r;
    assert_false(recalls("oci://a:v1"));
    remember("oci://a:v1", SHA);
    remember("oci://a:v1", OTHER); /* the tag moved */
    reopen("engine 2");
    assert_true(module_cache_recall(cache, STR("oci://a:v1"), &r));
    assert_string_equal(r.module_sha256, OTHER);
    assert_string_equal(r.digest + 7, SHA);
    assert_string_equal(r.index_digest, "");
    assert_string_equal(r.verified_key, "");
    assert_string_equal(r.from, "http://127.0.0.1:5000/a:v1");
    assert_string_equal(r.version, "u/1/x");
    assert_int_equal(r.pulled_s, 7);
    pull_record_free(&r);
    assert_false(recalls("oci://a:v2"));
}

static void test_records_that_were_touched(void **state)
{
    (void)state;
    char name[65], other[65], path[512], to[512];
    remember("a", SHA);
    sha256_hex(STR("a"), name);
    sha256_hex(STR("b"), other);
    snprintf(path, sizeof path, "%s/%s.pull", at("a/b/cache"), name);
    snprintf(to, sizeof to, "%s/%s.pull", at("a/b/cache"), other);
    assert_int_equal(link(path, to), 0); /* a good one in the place of another */
    assert_false(recalls("b"));
    assert_true(recalls("a"));
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    for (off_t cut = 0; cut < st.st_size; cut += 9) {
        remember("a", SHA);
        assert_int_equal(truncate(path, cut), 0);
        assert_false(recalls("a"));
    }
    remember("a", SHA);
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, 40, SEEK_SET), 0);
    fputc('!', f);
    fclose(f);
    assert_false(recalls("a"));
    assert_int_not_equal(access(path, F_OK), 0);
}

/* ---- size ---- */

enum { BIG = 64 * 1024 };
static void put_big(char fill, char sha[65], int *hold)
{
    char *bytes = mem_alloc(BIG);
    memset(bytes, fill, BIG);
    put(str_span(bytes, BIG), sha, hold);
    mem_free(bytes);
    char file[128];
    snprintf(file, sizeof file, "a/b/cache/%.64s.wasm", sha);
    old(file, 1000 - fill); /* later letters are younger */
}
static bool is_there(const char *sha)
{
    char file[128];
    snprintf(file, sizeof file, "a/b/cache/%.64s.wasm", sha);
    return exists(file);
}

static void test_oldest_goes_and_what_is_held_stays(void **state)
{
    (void)state;
    char sha[6][65];
    int hold[6] = {-1, -1, -1, -1, -1, -1};
    for (int i = 0; i < 6; i++)
        put_big((char)('a' + i), sha[i], &hold[i]);
    for (int i = 1; i < 6; i++)
        if (i != 2)
            module_cache_release(&hold[i]);
    assert_int_equal(module_cache_trim(cache).removed, 0); /* no limit */
    max_bytes = 3 * BIG + BIG / 2;
    struct module_cache *other = open_cache("engine 1"); /* holds count for every process */
    struct cache_size size = module_cache_trim(other);
    assert_int_equal(size.removed, 3);
    assert_true(size.bytes <= max_bytes);
    static const bool stays[] = {true, false, true, false, false, true};
    for (int i = 0; i < 6; i++)
        assert_int_equal(is_there(sha[i]), stays[i]);
    /* All is held: it is over its size rather than taken away. */
    max_bytes = 1;
    module_cache_close(other);
    other = open_cache("engine 1");
    int again = module_cache_hold_again(hold[0]);
    module_cache_release(&hold[0]);
    module_cache_trim(other);
    assert_true(is_there(sha[0]));
    assert_true(is_there(sha[2]));
    assert_false(is_there(sha[5]));
    module_cache_release(&again);
    module_cache_trim(other);
    assert_false(is_there(sha[0]));
    module_cache_release(&hold[2]);
    module_cache_close(other);
}

static void test_code_goes_with_its_mac(void **state)
{
    (void)state;
    char *path = seal(SHA, "native code"), mac[512];
    snprintf(mac, sizeof mac, "%.*s.mac", (int)(strlen(path) - strlen(".cwasm")), path);
    int hold = -1;
    mem_free(module_cache_find(cache, SHA, "optimised", &hold));
    max_bytes = 1;
    reopen("engine 1");
    module_cache_trim(cache);
    assert_true(finds(SHA, "optimised"));
    module_cache_release(&hold);
    assert_int_equal(module_cache_trim(cache).removed, 1);
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_not_equal(access(mac, F_OK), 0);
    assert_true(exists("a/b/cache/mac.key"));
    mem_free(path);
}

static void test_used_is_young(void **state)
{
    (void)state;
    char a[65], b[65];
    int hold = -1;
    put_big('a', a, &hold);
    module_cache_release(&hold);
    put_big('b', b, &hold);
    module_cache_release(&hold);
    char *bytes = mem_alloc(BIG);
    memset(bytes, 'a', BIG);
    assert_true(has(a, str_span(bytes, BIG)));
    mem_free(bytes);
    max_bytes = BIG + BIG / 2;
    reopen("engine 1");
    module_cache_trim(cache);
    assert_true(is_there(a));
    assert_false(is_there(b));
}

enum { SEALED = 300 };
static atomic_int being_sealed;
static void name_of(int i, char sha[65]) { (void)snprintf(sha, 65, "%064d", i); }
static void *look(void *arg)
{
    char sha[65];
    (void)arg;
    for (int i = atomic_load(&being_sealed); i < SEALED; i = atomic_load(&being_sealed)) {
        name_of(i, sha);
        (void)finds(sha, "optimised");
    }
    return NULL;
}
/* Who looks for code (another gateway, say) as it gets its name does not take it for torn, and away. */
static void test_looked_for_as_it_is_sealed(void **state)
{
    (void)state;
    pthread_t threads[2];
    char sha[65];
    unsigned lost = 0;
    atomic_store(&being_sealed, 0);
    for (size_t i = 0; i < ARRAY_LEN(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, look, NULL), 0);
    for (int i = 0; i < SEALED; i++) {
        atomic_store(&being_sealed, i);
        name_of(i, sha);
        char *path = seal(sha, "native code");
        lost += access(path, F_OK) != 0;
        mem_free(path);
    }
    atomic_store(&being_sealed, SEALED);
    for (size_t i = 0; i < ARRAY_LEN(threads); i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(lost, 0);
}

static void test_seal_fails(void **state)
{
    (void)state;
    char *error = NULL;
    int hold = -1;
    assert_null(module_cache_seal(cache, SHA, "optimised", at("a/b/cache/nothing"), &hold, &error));
    assert_int_equal(hold, -1);
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
        cmocka_unit_test_setup_teardown(test_module_is_what_its_name_says, setup, teardown),
        cmocka_unit_test_setup_teardown(test_records, setup, teardown),
        cmocka_unit_test_setup_teardown(test_records_that_were_touched, setup, teardown),
        cmocka_unit_test_setup_teardown(test_oldest_goes_and_what_is_held_stays, setup, teardown),
        cmocka_unit_test_setup_teardown(test_code_goes_with_its_mac, setup, teardown),
        cmocka_unit_test_setup_teardown(test_used_is_young, setup, teardown),
        cmocka_unit_test_setup_teardown(test_looked_for_as_it_is_sealed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_seal_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sha256, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
