/* SPDX-License-Identifier: Apache-2.0
 *
 * Files in a real directory, on a real loop: edits in place and by rename, ConfigMap swaps, symlinked and recreated
 * directories, and what cannot be read.
 */
#include "control_test.h"

#include <sys/resource.h>

#include "control/source_dir.h"

static struct store store;
static struct loop loop;
static struct source_dir *source;
static unsigned changes;

static void on_changed(void *arg)
{
    (void)arg;
    changes++;
}

static int setup(void **state)
{
    (void)state;
    dir_make();
    assert_int_equal(mkdir(at("conf"), 0700), 0);
    store = (struct store){0};
    changes = 0;
    loop_init(&loop);
    source = NULL;
    return 0;
}
static int teardown(void **state)
{
    (void)state;
    source_dir_free(source);
    loop_fini(&loop);
    store_free(&store);
    dir_remove();
    return 0;
}

static void open_paths(const char *const *paths, size_t count)
{
    source = source_dir_new(&loop, &store, paths, count, "default", on_changed, NULL);
    source_dir_scan(source);
}
static void open_path(const char *path) { open_paths(&path, 1); }

static unsigned port_of(const char *name)
{
    const struct store_object *o = store_find(&store, KIND_SERVICE, "default", name);
    return o != NULL && o->good != NULL ? o->good->u.service.ports[0].port : 0;
}
static bool port_is(void *arg) { return port_of("x") == *(unsigned *)arg; }
/* Scans come from events and from the periodic look; either will do. */
static void wait_for_port(unsigned port) { run_until(&loop, port_is, &port); }

static char *errors_text(void)
{
    static char text[4096];
    struct diag d = {0};
    text[0] = '\0';
    store_file_errors(&store, &d);
    for (size_t i = 0; i < d.count; i++) {
        char *line = diag_format(&d.entries[i]);
        strncat(text, line, sizeof text - strlen(text) - 1);
        strncat(text, "\n", sizeof text - strlen(text) - 1);
        mem_free(line);
    }
    diag_free(&d);
    return text;
}

static void test_files_come_change_and_go(void **state)
{
    (void)state;
    file_put("conf/a.yaml", SERVICE("x", "80"));
    file_put("conf/ignored.txt", SERVICE("z", "80"));
    file_put("conf/.hidden.yaml", SERVICE("z", "80"));
    open_path(at("conf"));
    assert_int_equal(port_of("x"), 80);
    assert_int_equal(port_of("z"), 0);
    file_put("conf/a.yaml", SERVICE("x", "81")); /* by rename */
    wait_for_port(81);
    file_write(at("conf/a.yaml"), SERVICE("x", "82"), strlen(SERVICE("x", "82"))); /* in place */
    wait_for_port(82);
    unlink(at("conf/a.yaml"));
    wait_for_port(0);
    file_put("conf/b.json",
             "{\"apiVersion\": \"v1\", \"kind\": \"Service\", \"metadata\": {\"name\": \"x\"}, \"spec\": "
             "{\"ports\": [{\"port\": 83}]}}");
    wait_for_port(83);
    assert_true(changes > 0);
}

static void test_config_map_swap(void **state)
{
    (void)state;
    mkdir(at("conf/..1"), 0700);
    file_put("conf/..1/a.yaml", SERVICE("x", "80"));
    assert_int_equal(symlink("..1", at("conf/..data")), 0);
    assert_int_equal(symlink("..data/a.yaml", at("conf/a.yaml")), 0);
    const char *both[] = {at("conf"), at("conf/a.yaml")}; /* as a directory and as a file: one object, no conflict */
    open_paths(both, 2);
    assert_int_equal(port_of("x"), 80);
    assert_int_equal(store_bad_count(&store), 0);
    mkdir(at("conf/..2"), 0700);
    file_put("conf/..2/a.yaml", SERVICE("x", "81"));
    symlink("..2", at("conf/..data_tmp"));
    assert_int_equal(rename(at("conf/..data_tmp"), at("conf/..data")), 0);
    wait_for_port(81);
}

static void test_directory_by_symlink(void **state)
{
    (void)state;
    mkdir(at("r1"), 0700);
    mkdir(at("r2"), 0700);
    file_put("r1/a.yaml", SERVICE("x", "80"));
    file_put("r2/a.yaml", SERVICE("x", "81"));
    symlink("r1", at("current"));
    open_path(at("current"));
    assert_int_equal(port_of("x"), 80);
    symlink("r2", at("next"));
    rename(at("next"), at("current"));
    wait_for_port(81);
    file_put("r2/a.yaml", SERVICE("x", "82")); /* and it is the new one that is watched */
    wait_for_port(82);
    file_put("r1/a.yaml", SERVICE("x", "70"));
    source_dir_scan(source);
    assert_int_equal(port_of("x"), 82);
}

static void test_directory_away_and_back(void **state)
{
    (void)state;
    file_put("conf/a.yaml", SERVICE("x", "80"));
    open_path(at("conf"));
    rename(at("conf"), at("gone"));
    source_dir_scan(source);
    usleep((STORE_GONE_MS + 20) * 1000);
    source_dir_scan(source);
    assert_int_equal(port_of("x"), 80); /* it keeps what it last gave */
    assert_non_null(strstr(errors_text(), "its objects stay as they are"));
    mkdir(at("conf"), 0700);
    file_put("conf/a.yaml", SERVICE("x", "81"));
    wait_for_port(81);
    assert_string_equal(errors_text(), "");
    file_put("conf/a.yaml", SERVICE("x", "82"));
    wait_for_port(82);
}

static void test_named_file_away_and_back(void **state)
{
    (void)state;
    open_path(at("one.yaml"));
    assert_non_null(strstr(errors_text(), "No such file"));
    file_put("one.yaml", SERVICE("x", "80"));
    wait_for_port(80);
    assert_string_equal(errors_text(), "");
    unlink(at("one.yaml"));
    wait_for_port(0);
    assert_non_null(strstr(errors_text(), "No such file"));
}

static void test_no_descriptor_left(void **state)
{
    (void)state;
    file_put("conf/a.yaml", SERVICE("x", "80"));
    open_path(at("conf"));
    struct rlimit old, none = {0};
    getrlimit(RLIMIT_NOFILE, &old);
    none.rlim_max = old.rlim_max;
    setrlimit(RLIMIT_NOFILE, &none);
    unlink(at("conf/a.yaml"));
    source_dir_scan(source);
    setrlimit(RLIMIT_NOFILE, &old);
    assert_int_equal(port_of("x"), 80);
    assert_non_null(strstr(errors_text(), "cannot be listed"));
    wait_for_port(0); /* seen when it can be seen */
}

static void test_only_its_own_files_stay(void **state)
{
    (void)state;
    mkdir(at("conf2"), 0700);
    file_put("conf/a.yaml", SERVICE("z", "80"));
    file_put("conf2/a.yaml", SERVICE("x", "80"));
    const char *both[] = {at("conf"), at("conf2")};
    open_paths(both, 2);
    rename(at("conf"), at("gone"));
    unlink(at("conf2/a.yaml"));
    wait_for_port(0); /* "conf" is away, which keeps nothing of "conf2" */
    assert_int_equal(port_of("z"), 80);
}

static void test_what_cannot_be_read(void **state)
{
    (void)state;
    assert_int_equal(mkfifo(at("conf/fifo.yaml"), 0600), 0);
    mkdir(at("conf/dir.yaml"), 0700);
    symlink("nowhere", at("conf/dangling.yaml"));
    file_put("conf/a.yaml", SERVICE("x", "80"));
    int fd = open(at("conf/huge.yaml"), O_WRONLY | O_CREAT, 0600);
    assert_int_equal(ftruncate(fd, 17 * 1024 * 1024), 0);
    close(fd);
    open_path(at("conf"));
    assert_int_equal(port_of("x"), 80);
    assert_non_null(strstr(errors_text(), "fifo.yaml: is not a regular file"));
    assert_non_null(strstr(errors_text(), "dir.yaml: is not a regular file"));
    assert_non_null(strstr(errors_text(), "huge.yaml: is larger than"));
    assert_false(source_dir_scan(source)); /* and that is no news every time */
}

static void test_error_is_a_change(void **state)
{
    (void)state;
    file_put("conf/a.yaml", SERVICE("x", "80"));
    open_path(at("conf"));
    file_put("conf/a.yaml", "a: [b\n");
    assert_true(source_dir_scan(source));
    assert_int_equal(port_of("x"), 80);
    assert_non_null(strstr(errors_text(), "a.yaml:"));
}

int main(void)
{
    log_set_level(LOG_OFF);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_files_come_change_and_go, setup, teardown),
        cmocka_unit_test_setup_teardown(test_config_map_swap, setup, teardown),
        cmocka_unit_test_setup_teardown(test_directory_by_symlink, setup, teardown),
        cmocka_unit_test_setup_teardown(test_directory_away_and_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_named_file_away_and_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_descriptor_left, setup, teardown),
        cmocka_unit_test_setup_teardown(test_only_its_own_files_stay, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_cannot_be_read, setup, teardown),
        cmocka_unit_test_setup_teardown(test_error_is_a_change, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
