/* SPDX-License-Identifier: Apache-2.0
 *
 * The WASI functions that guests of real SDKs call, through the step guest; and that the table has real preview 1
 * signatures under both module names.
 */
#include "abi_harness.h"

static struct module *module;
static struct plugin_env env[] = {{(char *)"NAME", (char *)"value"}, {(char *)"E", (char *)""}};

static int setup(void **state)
{
    test_setup(state);
    find_area(module);
    return 0;
}

static bool run(step_fn *step)
{
    struct plugin desc = plugin_desc(module);

    desc.env = env;
    desc.env_count = 2;
    on_step = step;
    struct plugin_vm *pv = attach_vm(&desc, 1);
    bool alive = !plugin_vm_is_dead(pv);
    end_vm(pv);
    return alive;
}

/* Writes one iovec over text at the area's start; returns the vector's address. */
static uint32_t iovec(struct str text)
{
    uint32_t v[2] = {put(0, text), (uint32_t)text.n};

    return put(1000, str_span(v, sizeof v));
}

static uint32_t step_write(uint32_t cb, const uint32_t *a)
{
    (void)a;
    if (cb != STEP_INITIALIZE) { /* works before anything else does */
        return 1;
    }
    assert_int_equal(call("fd_write", 1, iovec(STR("to stdout\n")), 1, OUT_3), 0);
    assert_int_equal(get_u32(OUT_3), 10);
    assert_int_equal(host.last_level, LOG_INFO);
    assert_true(str_is(strbuf_str(&host.log), "to stdout\n")); /* one newline went, the harness added one */
    assert_int_equal(call("fd_write", 2, iovec(STR("x\n\n")), 1, OUT_3), 0);
    assert_int_equal(host.last_level, LOG_ERROR);
    int lines = host.log_lines;
    assert_int_equal(call("fd_write", 1, iovec(STR("")), 1, OUT_3), 0);
    assert_int_equal(call("fd_write", 1, iovec(STR("\n")), 1, OUT_3), 0);
    assert_int_equal(get_u32(OUT_3), 1);
    assert_int_equal(call("fd_write", 1, area, 0, OUT_3), 0);
    assert_int_equal(host.log_lines, lines); /* nothing to log */
    assert_int_equal(call("fd_write", 0, area, 0, OUT_3), 8);
    assert_int_equal(call("fd_write", 3, area, 0, OUT_3), 8);
    assert_int_equal(call("fd_write", 1, BAD, 5, OUT_3), 21);
    assert_int_equal(call("fd_write", 1, iovec(STR("x")), 1, BAD), 21);
    assert_int_equal(host.log_lines, lines);
    assert_int_equal(call("fd_write", 1, area, -1, OUT_3), 28);
    uint32_t bad[2] = {(uint32_t)BAD, 100};
    assert_int_equal(call("fd_write", 1, put(1000, str_span(bad, 8)), 1, OUT_3), 21);
    return 1;
}

static uint32_t step_pieces(uint32_t cb, const uint32_t *a)
{
    static char big[900];

    (void)a;
    if (cb == STEP_MAIN) { /* _initialize has ended: what waited is out */
        assert_true(str_is(strbuf_str(&host.log), "goroutine 1\n\trest\nlast words\nan answer\n"));
        strbuf_clear(&host.log);
        memset(big, 'x', sizeof big);
        for (int i = 0; i < 10; i++) { /* 9,000 bytes are cut to a line's most */
            assert_int_equal(call("fd_write", 1, iovec(str_span(big, sizeof big)), 1, OUT_3), 0);
            assert_int_equal(get_u32(OUT_3), sizeof big);
        }
        assert_int_equal(host.log.n, 0);
        assert_int_equal(call("fd_write", 1, iovec(STR("\n")), 1, OUT_3), 0);
        assert_int_equal(host.log.n, LOG_LINE_MAX + 1);
    }
    if (cb != STEP_INITIALIZE) {
        return 1;
    }
    assert_int_equal(call("fd_write", 2, iovec(STR("goroutine")), 1, OUT_3), 0);
    assert_int_equal(get_u32(OUT_3), 9);
    assert_int_equal(call("fd_write", 2, iovec(STR(" ")), 1, OUT_3), 0);
    assert_int_equal(call("fd_write", 1, iovec(STR("an answer")), 1, OUT_3), 0);
    assert_int_equal(call("fd_write", 2, iovec(STR("1")), 1, OUT_3), 0);
    assert_int_equal(host.log_lines, 0);
    assert_int_equal(call("fd_write", 2, iovec(STR("\n")), 1, OUT_3), 0);
    assert_int_equal(host.last_level, LOG_ERROR);
    assert_int_equal(call("fd_write", 2, iovec(STR("\trest\n")), 1, OUT_3), 0);
    assert_int_equal(call("fd_write", 2, iovec(STR("last words\n")), 1, OUT_3), 0);
    assert_int_equal(host.log_lines, 3);
    return 1;
}

/* Go's runtime writes a word at a time. */
static void test_lines_come_in_pieces(void **state)
{
    (void)state;
    assert_true(run(step_pieces));
    assert_int_equal(step_count[STEP_MAIN], 1);
}

static void test_write(void **state)
{
    (void)state;
    assert_true(run(step_write));
    assert_int_equal(step_count[STEP_INITIALIZE], 1);
}

static uint32_t step_environment(uint32_t cb, const uint32_t *a)
{
    (void)a;
    if (cb != STEP_INITIALIZE) {
        return 1;
    }
    assert_int_equal(call("environ_sizes_get", OUT_PTR, OUT_SIZE), 0);
    assert_int_equal(get_u32(OUT_PTR), 2);
    assert_int_equal(get_u32(OUT_SIZE), 11 + 3);
    assert_int_equal(call("environ_get", area, area + 100), 0);
    assert_int_equal(get_u32(area), area + 100);
    assert_int_equal(get_u32(area + 4), area + 111);
    assert_memory_equal(vm_mem(guest, area + 100, 14), "NAME=value\0E=\0", 14);
    assert_int_equal(call("environ_get", BAD, area), 21);
    assert_int_equal(call("environ_get", area, BAD), 21);
    assert_int_equal(call("environ_sizes_get", BAD, OUT_SIZE), 21);
    assert_int_equal(call("args_sizes_get", OUT_PTR, OUT_SIZE), 0);
    assert_int_equal(get_u32(OUT_PTR) + get_u32(OUT_SIZE), 0);
    assert_int_equal(call("args_get", area, area), 0);
    return 1;
}

static void test_environment(void **state)
{
    (void)state;
    assert_true(run(step_environment));
}

static uint32_t step_rest(uint32_t cb, const uint32_t *a)
{
    static const char zeroes[64];

    (void)a;
    if (cb != STEP_INITIALIZE) {
        return 1;
    }
    assert_int_equal(call("clock_time_get", 0, 0, OUT_3), 0);
    assert_true(get_u64(OUT_3) > 1500000000ull * 1000000000ull);
    assert_int_equal(call("clock_time_get", 1, 0, OUT_3), 0);
    assert_int_equal(call("clock_time_get", 2, 0, OUT_3), 58);
    assert_int_equal(call("clock_time_get", 0, 0, BAD), 21);
    assert_int_equal(call("clock_res_get", 1, OUT_3), 0);
    assert_int_equal(get_u64(OUT_3), 1);
    put(0, str_span(zeroes, 64));
    assert_int_equal(call("random_get", area, 64), 0);
    assert_memory_not_equal(vm_mem(guest, area, 64), zeroes, 64);
    assert_int_equal(call("random_get", BAD, 0), 0);
    assert_int_equal(call("random_get", BAD, 100), 21);
    assert_int_equal(call("random_get", area, 65537), 28);
    assert_int_equal(call("poll_oneoff", area, area, 1, OUT_3), 0); /* Go needs a success */
    assert_int_equal(get_u32(OUT_3), 0);
    assert_int_equal(call("poll_oneoff", area, area, 1, BAD), 21);
    assert_int_equal(call("sched_yield"), 0);
    assert_int_equal(call("fd_prestat_get", 3, area), 8); /* ends the scan for directories */
    assert_int_equal(call("fd_prestat_dir_name", 3, area, 5), 52);
    assert_int_equal(call("fd_fdstat_get", 1, area), 0);
    assert_int_equal(get_u64(area), 0);
    assert_int_equal(get_u64(area + 8), 64);
    assert_int_equal(call("fd_fdstat_get", 3, area), 8);
    assert_int_equal(call("fd_fdstat_get", 1, BAD), 21);
    assert_int_equal(call("fd_fdstat_set_flags", 1, 0), 52);
    assert_int_equal(call("fd_read", 0, area, 1, OUT_3), 52);
    assert_int_equal(call("fd_close", 1), 0);
    assert_int_equal(call("fd_seek", 1, 0, 0, OUT_3), 0);
    assert_int_equal(call("fd_tell", 1, OUT_3), 0);
    assert_int_equal(call("fd_filestat_get", 1, area), 8);
    assert_int_equal(call("fd_sync", 1), 0);
    assert_int_equal(call("fd_sync", 5), 8);
    assert_int_equal(call("fd_readdir", 3, area, 10, 0, OUT_3), 20);
    assert_int_equal(call("path_open", 3, 0, area, 1, 0, 0, 0, 0, OUT_3), 44);
    assert_int_equal(call("path_filestat_get", 3, 0, area, 1, area), 58);
    assert_int_equal(call("path_unlink_file", 3, area, 1), 58);
    assert_int_equal(call("sock_accept", 3, 0, OUT_3), 58);
    return 1;
}

static void test_rest(void **state)
{
    (void)state;
    assert_true(run(step_rest));
}

static void test_table(void **state)
{
    size_t count;
    const struct vm_host_func *table = abi_host_functions(&count);
    static const struct {
        const char *name, *params;
    } known[] = {
        {"path_link", "iiiiiii"}, {"path_symlink", "iiiii"}, {"path_open", "iiiiiIIii"}, {"fd_seek", "iIii"},
        {"fd_pwrite", "iiiIi"},   {"clock_time_get", "iIi"}, {"proc_exit", "i"},         {"fd_readdir", "iiiIi"},
    };

    (void)state;
    for (size_t k = 0; k < ARRAY_LEN(known); k++) {
        int found = 0;
        for (size_t i = 0; i < count; i++) {
            if (strcmp(table[i].name, known[k].name) == 0) {
                assert_string_equal(table[i].params, known[k].params);
                found++;
            }
        }
        assert_int_equal(found, 2);
    }
    for (size_t i = 0; i < count; i++) { /* no name twice */
        for (size_t j = 0; j < i; j++) {
            assert_false(strcmp(table[i].name, table[j].name) == 0 && strcmp(table[i].module, table[j].module) == 0);
        }
    }
}

static void test_unknown_imports(void **state)
{
    union vm_value v = {0};

    (void)state;
    assert_true(abi_unknown_import(STR("wasi_snapshot_preview1"), STR("fd_new"), &v));
    assert_int_equal(v.u32, 52);
    assert_true(abi_unknown_import(STR("env"), STR("proxy_new"), &v));
    assert_int_equal(v.u32, 12);
    assert_true(abi_unknown_import(STR("env"), STR("abort"), &v));
    assert_int_equal(v.u32, 0);
    assert_false(abi_unknown_import(STR("gojs"), STR("x"), &v));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_write, setup),
        cmocka_unit_test_setup(test_lines_come_in_pieces, setup),
        cmocka_unit_test_setup(test_environment, setup),
        cmocka_unit_test_setup(test_rest, setup),
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_unknown_imports),
    };

    harness_begin();
    module = load_guest("step.c", NULL);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    module_unref(module);
    harness_end();
    return failed;
}
