/* SPDX-License-Identifier: Apache-2.0
 *
 * What a module must look like, and how a VM starts: order, failures, proc_exit, command modules, what the allocator
 * may not do.
 */
#include "abi_harness.h"

static struct module *module, *command;

static int setup(void **state)
{
    test_setup(state);
    return 0;
}

/* ---- the module's look ---- */

#define MARK      "(func (export \"proxy_abi_version_0_2_1\"))"
#define MEMORY    "(memory (export \"memory\") 1)"
#define ALLOCATOR "(func (export \"proxy_on_memory_allocate\") (param i32) (result i32) unreachable)"

static char *check(const char *wat)
{
    struct strbuf wasm = guest_assemble_text(wat, NULL);
    struct module_info info;
    char *error = NULL;

    assert_true(module_info_parse(strbuf_str(&wasm), &info, &error));
    char *text = abi_check_module(&info);
    module_info_free(&info);
    strbuf_free(&wasm);
    return text;
}

static void assert_refused(const char *wat, const char *why)
{
    char *text = check(wat);

    assert_non_null(text);
    if (strstr(text, why) == NULL) {
        fail_msg("%s", text);
    }
    mem_free(text);
}

static void test_check_module(void **state)
{
    (void)state;
    assert_null(check("(module " MARK MEMORY ALLOCATOR ")"));
    assert_null(check("(module " MARK MEMORY "(func (export \"malloc\") (param i32) (result i32) unreachable))"));
    assert_refused("(module " MEMORY ALLOCATOR ")", "no Proxy-Wasm module");
    assert_refused("(module (global (export \"proxy_abi_version_0_2_0\") i32 (i32.const 0))" MEMORY ALLOCATOR ")",
                   "no Proxy-Wasm module");
    assert_refused("(module " MARK ALLOCATOR ")", "memory");
    assert_refused("(module " MARK MEMORY ")", "malloc");
    assert_refused("(module " MARK MEMORY "(func (export \"malloc\") (param i64) (result i32) unreachable))",
                   "malloc has type (i64) -> (i32), expected (i32) -> (i32)");
    assert_refused("(module " MARK MEMORY ALLOCATOR
                   "(func (export \"proxy_on_request_headers\") (param i32 i32) (result i32) "
                   "unreachable))",
                   "expected (i32 i32 i32) -> (i32)");
    assert_refused("(module (func (export \"proxy_abi_version_0_1_0\"))" MEMORY ALLOCATOR
                   "(func (export \"proxy_on_request_headers\") (param i32 i32 i32) (result i32) unreachable))",
                   "expected (i32 i32) -> (i32)");
    assert_refused("(module " MARK MEMORY ALLOCATOR
                   "(func (export \"proxy_on_tick\") (param i32) (result i32) unreachable))",
                   "expected (i32) -> ()");
}

static enum abi_version detect(const char *exports, bool *warned)
{
    char wat[512];
    struct module_info info;
    const char *warning;
    char *error = NULL;

    snprintf(wat, sizeof wat, "(module %s)", exports);
    struct strbuf wasm = guest_assemble_text(wat, NULL);
    assert_true(module_info_parse(strbuf_str(&wasm), &info, &error));
    enum abi_version v = abi_detect(&info, &warning);
    *warned = warning != NULL;
    module_info_free(&info);
    strbuf_free(&wasm);
    return v;
}

static void test_detect(void **state)
{
    bool warned;

    (void)state;
    assert_int_equal(detect("(func (export \"proxy_abi_version_0_1_0\"))", &warned), ABI_0_1_0);
    assert_int_equal(detect("(func (export \"proxy_abi_version_0_2_0\"))", &warned), ABI_0_2_0);
    assert_int_equal(detect("(func (export \"proxy_abi_version_0_2_1\"))", &warned), ABI_0_2_1);
    assert_false(warned);
    assert_int_equal(detect("(func (export \"proxy_abi_version_0_2_100\"))", &warned), ABI_0_2_1);
    assert_true(warned);
    assert_int_equal(detect("(func (export \"proxy_abi_version_0_3_0\"))", &warned), ABI_NONE);
    assert_int_equal(
        detect("(func (export \"proxy_abi_version_0_3_0\")) (func (export \"proxy_abi_version_0_2_0\"))", &warned),
        ABI_0_2_0);
    assert_string_equal(abi_version_name(ABI_0_2_0), "0.2.0");
}

/* ---- start ---- */

static uint32_t order[16], order_count;
static uint32_t fail_at, fail_how; /* 1: answer false, 2: trap, 3: proc_exit(0), 4: proc_exit(1) */

static uint32_t step_start(uint32_t cb, const uint32_t *a)
{
    order[order_count++ & 15] = cb;
    if (cb == CB_CONTEXT_CREATE) {
        assert_int_equal(a[0], 1);
        assert_int_equal(a[1], 0);
    }
    if (cb == CB_VM_START) {
        assert_int_equal(a[1], 0);
    }
    if (cb == CB_CONFIGURE) {
        assert_int_equal(a[1], 7);
    }
    if (cb != fail_at) {
        return 1;
    }
    if (fail_how == 2) {
        vm_raise(guest, "test");
    } else if (fail_how > 2) {
        (void)call("proc_exit", (int)fail_how - 3);
    }
    return 0;
}

static enum plugin_start start(struct module *m, char **error)
{
    struct plugin desc = plugin_desc(m);
    struct plugin *p = plugin_new(&desc);
    struct plugin_vm *pv;

    guest_signals_restore();
    on_step = step_start;
    order_count = 0;
    enum plugin_start result = plugin_vm_new(p, &ops, &pv, error);
    on_step = NULL;
    if (result == START_OK) {
        plugin_vm_free(pv);
    } else {
        assert_null(pv);
    }
    assert_int_equal(atomic_load(&p->refs), 1);
    plugin_unref(p);
    return result;
}

static void test_order(void **state)
{
    static const uint32_t want[] = {STEP_INITIALIZE, STEP_MAIN, CB_CONTEXT_CREATE, CB_VM_START, CB_CONFIGURE};
    char *error;

    (void)state;
    fail_at = 99;
    assert_int_equal(start(module, &error), START_OK);
    assert_int_equal(order_count, 5);
    assert_memory_equal(order, want, sizeof want);
    assert_int_equal(start(command, &error), START_OK);
    assert_int_equal(order_count, 4);
    assert_int_equal(order[0], STEP_START);
}

static void test_failures(void **state)
{
    static const struct {
        uint32_t at, how;
        enum plugin_start result;
        const char *why;
    } rows[] = {
        {STEP_INITIALIZE, 2, START_FAILED_VM, "_initialize: test"},
        {STEP_MAIN, 2, START_FAILED_VM, "main: test"},
        {STEP_MAIN, 4, START_FAILED_VM, "main: proc_exit(1)"},
        {CB_CONTEXT_CREATE, 2, START_FAILED_VM, "proxy_on_context_create: test"},
        {CB_VM_START, 1, START_FAILED_VM, "proxy_on_vm_start returned false"},
        {CB_VM_START, 2, START_FAILED_VM, "proxy_on_vm_start: test"},
        {CB_CONFIGURE, 1, START_FAILED_CONFIGURE, "proxy_on_configure returned false"},
        {CB_CONFIGURE, 2, START_FAILED_CONFIGURE, "proxy_on_configure: test"},
        {CB_CONFIGURE, 3, START_FAILED_CONFIGURE, "proc_exit(0)"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char *error = NULL;
        fail_at = rows[i].at;
        fail_how = rows[i].how;
        assert_int_equal(start(module, &error), rows[i].result);
        if (strstr(error, rows[i].why) == NULL) {
            fail_msg("row %zu: %s", i, error);
        }
        mem_free(error);
    }
}

/* proc_exit(0) ends a start well, from _start, main or _initialize, and the VM goes on; elsewhere it is a trap. */
static void test_exit_zero(void **state)
{
    static const uint32_t reactor[] = {STEP_INITIALIZE, STEP_MAIN, CB_CONTEXT_CREATE, CB_VM_START, CB_CONFIGURE};
    static const uint32_t started[] = {STEP_START, CB_CONTEXT_CREATE, CB_VM_START, CB_CONFIGURE};
    char *error = NULL;

    (void)state;
    fail_how = 3;
    for (fail_at = STEP_INITIALIZE; fail_at <= STEP_MAIN; fail_at++) {
        assert_int_equal(start(module, &error), START_OK);
        assert_int_equal(order_count, ARRAY_LEN(reactor));
        assert_memory_equal(order, reactor, sizeof reactor);
    }
    fail_at = STEP_START;
    assert_int_equal(start(command, &error), START_OK);
    assert_int_equal(order_count, ARRAY_LEN(started));
    assert_memory_equal(order, started, sizeof started);
    fail_at = CB_VM_START;
    assert_int_equal(start(command, &error), START_FAILED_VM);
    assert_non_null(strstr(error, "proxy_on_vm_start: proc_exit(0)"));
    mem_free(error);
}

static void test_without_early_ops(void **state)
{
    struct plugin desc = plugin_desc(module);
    struct plugin *p = plugin_new(&desc);
    struct plugin_vm *pv;
    char *error = NULL;

    (void)state;
    guest_signals_restore();
    assert_int_equal(plugin_vm_new(p, NULL, &pv, &error), START_OK);
    plugin_vm_attach(pv, &ops, &host, 4);
    plugin_unref(p);
    end_vm(pv);
}

/* ---- the allocator may log and look at the clock, and nothing else ---- */

static const char *const allocator_guest =
    "(module (import \"env\" \"proxy_log\" (func $log (param i32 i32 i32) (result i32)))"
    "(import \"env\" \"proxy_get_buffer_bytes\" (func $get (param i32 i32 i32 i32 i32) (result i32)))"
    "(import \"wasi_snapshot_preview1\" \"sched_yield\" (func $yield (result i32)))"
    "(memory (export \"memory\") 1)" MARK "(global $bad (mut i32) (i32.const 0))"
    "(func (export \"proxy_on_memory_allocate\") (param i32) (result i32)"
    "  (drop (call $log (i32.const 2) (i32.const 0) (i32.const 1))) (drop (call $yield))"
    "  (if (global.get $bad) (then (drop (call $get (i32.const 7) (i32.const 0) (i32.const 9) (i32.const 8) (i32.const "
    "12)))))"
    "  (i32.const 1024))"
    "(func (export \"proxy_on_context_create\") (param i32 i32)"
    "  (drop (call $get (i32.const 7) (i32.const 0) (i32.const 9) (i32.const 8) (i32.const 12)))"
    "  (global.set $bad (i32.const 1))))";

static void test_allocator_is_restricted(void **state)
{
    struct strbuf wasm = guest_assemble_text(allocator_guest, NULL);
    struct module *m = load_wasm(strbuf_str(&wasm));
    struct plugin desc = plugin_desc(m);

    (void)state;
    struct plugin_vm *pv = attach_vm(&desc, 1);
    assert_int_equal(host.log_lines, 1);
    assert_null(ctx_new(pv, &host)); /* its second create calls the allocator that now misbehaves */
    assert_int_equal(host.failures, 1);
    assert_non_null(strstr(host.failure, "inside the allocator"));
    end_vm(pv);
    module_unref(m);
    strbuf_free(&wasm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_check_module, setup),
        cmocka_unit_test_setup(test_detect, setup),
        cmocka_unit_test_setup(test_order, setup),
        cmocka_unit_test_setup(test_failures, setup),
        cmocka_unit_test_setup(test_exit_zero, setup),
        cmocka_unit_test_setup(test_without_early_ops, setup),
        cmocka_unit_test_setup(test_allocator_is_restricted, setup),
    };

    harness_begin();
    module = load_guest("step.c", NULL);
    command = load_guest("step.c", "-DCOMMAND");
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    module_unref(module);
    module_unref(command);
    harness_end();
    return failed;
}
