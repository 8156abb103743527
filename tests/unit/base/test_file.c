/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"

static char dir[64];
static const char *at(const char *name)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}
static int make(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/weir-test-XXXXXX");
    return mkdtemp(dir) != NULL ? 0 : -1;
}
static int drop(void **state)
{
    (void)state;
    unlink(at("a"));
    return rmdir(dir); /* fails when something was left behind */
}

static void assert_holds(const char *text)
{
    size_t n = 0;
    char *error, *p = file_read_all(at("a"), 100, &n, &error);
    assert_non_null(p);
    assert_int_equal(n, strlen(text));
    assert_string_equal(p, text);
    mem_free(p);
}

static void replaces_whole_files(void **state)
{
    (void)state;
    char *error;
    struct stat st;
    assert_true(file_replace(at("a"), STR("one"), 0640, &error));
    assert_holds("one");
    assert_int_equal(stat(at("a"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640);
    assert_true(file_replace(at("a"), STR("two, longer"), 0640, &error));
    assert_holds("two, longer");
}

static void what_cannot_be_written_leaves_the_old_file(void **state)
{
    (void)state;
    char *error;
    assert_true(file_replace(at("a"), STR("old"), 0600, &error));
    char *inside = mem_printf("%s/b", at("a")); /* a file is no directory */
    assert_false(file_replace(inside, STR("new"), 0600, &error));
    assert_non_null(strstr(error, "Not a directory"));
    mem_free(error);
    mem_free(inside);
    assert_holds("old");
}

static void what_is_no_file_is_never_replaced(void **state)
{
    (void)state;
    char *error;
    struct stat st;
    assert_int_equal(mkfifo(at("a"), 0600), 0);
    assert_false(file_replace(at("a"), STR("new"), 0600, &error));
    assert_non_null(strstr(error, "is not a regular file"));
    mem_free(error);
    assert_int_equal(stat(at("a"), &st), 0);
    assert_true(S_ISFIFO(st.st_mode));
}

static void creates_only_what_is_not_there(void **state)
{
    (void)state;
    assert_true(file_create(at("a"), STR("first")));
    assert_false(file_create(at("a"), STR("second")));
    assert_int_equal(errno, EEXIST);
    assert_holds("first");
}

static void reads_up_to_a_bound(void **state)
{
    (void)state;
    size_t n = 0;
    char *error;
    assert_true(file_create(at("a"), STR("12345")));
    assert_null(file_read_all(at("a"), 4, &n, &error));
    assert_string_equal(error, "is larger than 4 bytes");
    mem_free(error);
    assert_null(file_read_all(dir, 4, &n, &error));
    assert_string_equal(error, "is not a regular file");
    mem_free(error);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(replaces_whole_files, make, drop),
        cmocka_unit_test_setup_teardown(what_cannot_be_written_leaves_the_old_file, make, drop),
        cmocka_unit_test_setup_teardown(what_is_no_file_is_never_replaced, make, drop),
        cmocka_unit_test_setup_teardown(creates_only_what_is_not_there, make, drop),
        cmocka_unit_test_setup_teardown(reads_up_to_a_bound, make, drop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
