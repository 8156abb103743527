/* SPDX-License-Identifier: Apache-2.0
 *
 * The engine wrapper against real guests: WAT text beside this file (and small ones inside), assembled by wat2wasm.
 * Everything runs on both compile tiers where the CPU has both. No timing is asserted.
 */
#include <pthread.h>
#include <time.h>

#include "base/budget.h"
#include "guest.h"
#include "wasm/vm.h"

static struct engine *engine;
static enum compile_tier tier = TIER_OPTIMISED;

/* ---- guests ---- */

/* wat2wasm knows no way to write such a name. */
static void plant_odd_name(struct strbuf *wasm)
{
    ptrdiff_t at = str_find_str(strbuf_str(wasm), STR("odd@name~31m"));
    if (at >= 0)
        memcpy(wasm->p + at, "o\033d\nname+31m", 12);
}

static struct strbuf compile(struct strbuf wasm)
{
    struct strbuf code = {0};
    char *error = NULL;
    bool ok = engine_compile(engine, strbuf_str(&wasm), tier, &code, &error);
    if (!ok)
        fail_msg("compile: %s", error);
    strbuf_free(&wasm);
    return code;
}

/* ---- host functions ---- */

static int notes;
static int32_t last_note;
static int callback_func = VM_FUNC_NONE;
static enum vm_result callback_result;
static char last_read[32];

static void host_add(struct vm *vm, union vm_value *args)
{
    (void)vm;
    args[0].i32 = args[0].i32 + args[1].i32;
}

static void host_mix(struct vm *vm, union vm_value *args)
{
    (void)vm;
    args[0].f64 = args[0].i32 + (double)args[1].i64 + (double)args[2].f32 + args[3].f64;
}

static void host_note(struct vm *vm, union vm_value *args)
{
    (void)vm;
    notes++;
    last_note = args[0].i32;
}

static void host_status(struct vm *vm, union vm_value *args)
{
    (void)vm;
    args[0].u64 = 12; /* there must be room, whatever the module declares */
    notes++;
}

static void host_call_back(struct vm *vm, union vm_value *args)
{
    assert_true(vm_is_running(vm));
    callback_result = vm_call(vm, callback_func, args, 1);
}

static void host_fail(struct vm *vm, union vm_value *args)
{
    (void)args;
    vm_raise(vm, "exit status 3\nsecond line");
}

/* Longer than the ticker waits before it parks. */
static void host_rest(struct vm *vm, union vm_value *args)
{
    (void)vm;
    (void)args;
    nanosleep(&(struct timespec){.tv_sec = 1, .tv_nsec = 300000000}, NULL);
}

static void host_read(struct vm *vm, union vm_value *args)
{
    const char *p = vm_mem(vm, args[0].u32, args[1].u32);
    assert_non_null(p);
    snprintf(last_read, sizeof(last_read), "%.*s", args[1].i32, p);
}

static const struct vm_host_func table[] = {
    {"env", "add", "ii", "i", host_add},         {"env", "mix", "iIfF", "F", host_mix},
    {"env", "note", "i", "", host_note},         {"env", "status", "", "i", host_status},
    {"env", "status_of", "i", "i", host_status}, {"env", "call_back", "i", "i", host_call_back},
    {"env", "fail", "", "", host_fail},          {"env", "read", "ii", "", host_read},
    {"env", "rest", "", "", host_rest},
};

static bool unknown(struct str module, struct str name, union vm_value *result)
{
    if (!str_is(module, "unknown"))
        return false;
    assert_true(str_eq(name, STR("number")) || str_eq(name, STR("long")) || str_eq(name, STR("pair")) ||
                str_eq(name, STR("nothing")));
    result->i32 = 52;
    return true;
}

/* ---- shorthands ---- */

static const struct vm_limits roomy = {.memory_bytes = 16 << 20, .table_elements = 30000};

static struct module *load_code(struct strbuf code)
{
    struct module *module = NULL;
    char *error = NULL;
    if (!module_load(engine, strbuf_str(&code), table, ARRAY_LEN(table), unknown, &module, &error))
        fail_msg("load: %s", error);
    strbuf_free(&code);
    return module;
}

static struct module *load(const char *name)
{
    char *path = mem_printf(WEIR_SOURCE_DIR "/tests/unit/wasm/%s.wat", name);
    struct strbuf wasm = guest_assemble(path, NULL);
    plant_odd_name(&wasm);
    struct module *module = load_code(compile(wasm));
    mem_free(path);
    return module;
}

static struct module *load_text(const char *wat) { return load_code(compile(guest_assemble_text(wat, NULL))); }

static struct vm *start(struct module *module, const struct vm_limits *limits)
{
    struct vm *vm = NULL;
    char *error = NULL;
    if (vm_new(module, limits, 10000, &notes, &vm, &error) != VM_OK)
        fail_msg("start: %s", error);
    return vm;
}

static int func(struct vm *vm, const char *name, const char *params, const char *results)
{
    int f = vm_func(vm, name, params, results);
    assert_true(f >= 0);
    return f;
}

/* Starts the guest, calls its function and gives the failed vm back. */
static struct vm *call_failing(const char *guest, const char *name, const struct vm_limits *limits,
                               enum vm_result expected)
{
    struct module *module = load(guest);
    struct vm *vm = start(module, limits);
    module_unref(module);
    union vm_value values[1] = {{.i32 = 0}};
    int f = vm_func(vm, name, "", "");
    if (f < 0)
        f = func(vm, name, "i", "i");
    enum vm_result result = vm_call(vm, f, values, 50);
    if (result != expected)
        fail_msg("%s: %d instead of %d: %s", name, result, expected, vm_error(vm));
    assert_int_equal(vm_call(vm, f, values, 50), expected); /* never entered again */
    assert_false(vm_is_running(vm));
    assert_null(strchr(vm_error(vm), '\n'));
    return vm;
}

static void assert_has(const char *text, const char *part)
{
    if (strstr(text, part) == NULL)
        fail_msg("'%s' is not in '%s'", part, text);
}

static void assert_fails(const char *guest, const char *name, const char *part)
{
    struct vm *vm = call_failing(guest, name, &roomy, VM_TRAP);
    assert_has(vm_error(vm), part);
    vm_free(vm);
}

/* ---- calls ---- */

static void test_calls(void **state)
{
    (void)state;
    guest_signals_restore();
    struct module *module = load("calls");
    struct vm *vm = start(module, &roomy);
    union vm_value v[4];
    assert_ptr_equal(vm_user(vm), &notes);
    assert_int_equal(vm_call(vm, func(vm, "nothing", "", ""), v, 100), VM_OK);
    v[0].i32 = 40, v[1].i32 = 2;
    assert_int_equal(vm_call(vm, func(vm, "sum", "ii", "i"), v, 100), VM_OK);
    assert_int_equal(v[0].i32, 42);
    v[0].i64 = INT64_MAX - 1;
    assert_int_equal(vm_call(vm, func(vm, "long", "I", "I"), v, 100), VM_OK);
    assert_true(v[0].i64 == INT64_MAX);
    v[0].f32 = 3;
    assert_int_equal(vm_call(vm, func(vm, "half32", "f", "f"), v, 100), VM_OK);
    assert_true(v[0].f32 == 1.5f);
    v[0].f64 = 5;
    assert_int_equal(vm_call(vm, func(vm, "half64", "F", "F"), v, 100), VM_OK);
    assert_true(v[0].f64 == 2.5);
    assert_false(vm_is_running(vm));
    assert_string_equal(vm_error(vm), "");
    vm_free(vm);
    module_unref(module);
}

static void test_func_lookup(void **state)
{
    (void)state;
    guest_signals_restore();
    struct module *module = load("calls");
    struct vm *vm = start(module, &roomy);
    assert_int_equal(vm_func(vm, "absent", "", ""), VM_FUNC_NONE);
    assert_int_equal(vm_func(vm, "memory", "", ""), VM_FUNC_NONE);
    assert_int_equal(vm_func(vm, "sum", "i", "i"), VM_FUNC_BAD_TYPE);
    assert_int_equal(vm_func(vm, "sum", "ii", ""), VM_FUNC_BAD_TYPE);
    assert_int_equal(vm_func(vm, "sum", "iI", "i"), VM_FUNC_BAD_TYPE);
    vm_free(vm);
    module_unref(module);
}

static void test_host_calls(void **state)
{
    (void)state;
    guest_signals_restore();
    struct module *module = load("calls");
    struct vm *vm = start(module, &roomy);
    union vm_value v[4];
    notes = 0;
    v[0].i32 = 20, v[1].i32 = 1;
    assert_int_equal(vm_call(vm, func(vm, "host_add", "ii", "i"), v, 100), VM_OK);
    assert_int_equal(v[0].i32, 42);
    v[0].i32 = 1, v[1].i64 = 2, v[2].f32 = 0.5f, v[3].f64 = 0.25;
    assert_int_equal(vm_call(vm, func(vm, "host_mix", "iIfF", "F"), v, 100), VM_OK);
    assert_true(v[0].f64 == 3.75);
    v[0].i32 = -5;
    assert_int_equal(vm_call(vm, func(vm, "host_note", "i", ""), v, 100), VM_OK);
    assert_int_equal(last_note, -5);
    assert_int_equal(vm_call(vm, func(vm, "host_status", "", ""), v, 100), VM_OK); /* results missing in the module */
    assert_int_equal(notes, 3);
    assert_int_equal(vm_call(vm, func(vm, "unknowns", "", "I"), v, 100), VM_OK);
    assert_int_equal(v[0].i64, 52 * 4);
    vm_free(vm);
    module_unref(module);
}

static void test_memory(void **state)
{
    (void)state;
    guest_signals_restore();
    struct module *module = load("calls");
    struct vm *vm = start(module, &roomy);
    union vm_value v[1];
    assert_int_equal(vm_memory_bytes(vm), 65536);
    assert_memory_equal(vm_mem(vm, 16, 5), "hello", 5);
    assert_non_null(vm_mem(vm, 0, 65536));
    assert_non_null(vm_mem(vm, 65536, 0));
    assert_non_null(vm_mem(vm, 65535, 1));
    assert_null(vm_mem(vm, 65535, 2));
    assert_null(vm_mem(vm, 65537, 0));
    assert_null(vm_mem(vm, UINT32_MAX, UINT32_MAX));
    assert_null(vm_mem(vm, 1, UINT32_MAX));
    v[0].i32 = 2;
    assert_int_equal(vm_call(vm, func(vm, "grow", "i", "i"), v, 100), VM_OK);
    assert_int_equal(v[0].i32, 1);
    assert_int_equal(vm_memory_bytes(vm), 3 * 65536);
    assert_non_null(vm_mem(vm, 0, 3 * 65536));
    *(char *)vm_mem(vm, 3 * 65536 - 1, 1) = 'x';
    v[0].i32 = 3 * 65536 - 1;
    assert_int_equal(vm_call(vm, func(vm, "peek", "i", "i"), v, 100), VM_OK);
    assert_int_equal(v[0].i32, 'x');
    vm_free(vm);
    module_unref(module);
}

static void test_nested_calls(void **state)
{
    (void)state;
    guest_signals_restore();
    struct module *module = load("calls");
    struct vm *vm = start(module, &roomy);
    union vm_value v[1] = {{.i32 = 5}};
    callback_func = func(vm, "allocate", "i", "i");
    assert_int_equal(vm_call(vm, func(vm, "host_call_back", "i", "i"), v, 100), VM_OK);
    assert_int_equal(v[0].i32, 16);
    assert_int_equal(vm_memory_bytes(vm), 2 * 65536);
    /* A failure inside ends the outer call too, and what it was is kept. */
    callback_func = func(vm, "trap_inside", "i", "i");
    assert_int_equal(vm_call(vm, func(vm, "host_call_back", "i", "i"), v, 100), VM_TRAP);
    assert_int_equal(callback_result, VM_TRAP);
    assert_has(vm_error(vm), "unreachable; at ");
    assert_false(vm_is_running(vm));
    vm_free(vm);
    module_unref(module);
}

static void test_raise(void **state)
{
    (void)state;
    guest_signals_restore();
    notes = 0;
    struct vm *vm = call_failing("calls", "host_fail", &roomy, VM_TRAP);
    assert_has(vm_error(vm), "exit status 3: second line; at fails");
    assert_int_equal(notes, 0); /* nothing of the guest ran after it */
    vm_free(vm);
}

/* ---- failures ---- */

static void test_traps(void **state)
{
    (void)state;
    guest_signals_restore();
    assert_fails("traps", "unreachable", "unreachable; at innermost < core::panicking::panic < middle < unreachable");
    assert_fails("traps", "odd_name", "unreachable; at o\\x1bd");
    assert_fails("traps", "out_of_bounds", "out of bounds memory access");
    assert_fails("traps", "divide", "integer division by zero");
    assert_fails("traps", "null_call", "null function");
    assert_fails("traps", "wrong_type", "another type");
    assert_fails("traps", "no_such_element", "does not exist");
    assert_fails("traps", "recurse", "stack overflow; at recurse < recurse");
}

static void test_at_most_20_frames(void **state)
{
    (void)state;
    guest_signals_restore();
    struct vm *vm = call_failing("traps", "deep", &roomy, VM_TRAP);
    size_t frames = 1;
    for (const char *p = vm_error(vm); (p = strstr(p, " < ")) != NULL; p += 3)
        frames++;
    assert_int_equal(frames, 20);
    vm_free(vm);
}

static void test_loop_meets_deadline(void **state)
{
    (void)state;
    guest_signals_restore();
    struct vm *vm = call_failing("traps", "spin", &roomy, VM_DEADLINE);
    assert_has(vm_error(vm), "used its CPU time of 50 ms; at spin");
    assert_true(vm_last_slow_ns(vm) >= 50000000u);
    vm_free(vm);
}

/* Each inner call is short; only the sum is over the limit. The inner calls' own deadlines are not armed. */
static void test_nested_calls_share_the_deadline(void **state)
{
    (void)state;
    guest_signals_restore();
    struct module *module = load("calls");
    struct vm *vm = start(module, &roomy);
    callback_func = func(vm, "spin_inside", "i", "i");
    union vm_value v[1];
    assert_int_equal(vm_call(vm, func(vm, "call_for_ever", "", ""), v, 50), VM_DEADLINE);
    assert_has(vm_error(vm), "used its CPU time of 50 ms; at ");
    vm_free(vm);
    module_unref(module);
}

/* The ticker parks after a second without guests. A loop that begins then, or while it is about to, is ended all the
 * same. */
static void test_deadline_after_a_pause(void **state)
{
    (void)state;
    guest_signals_restore();
    for (int i = 0; i < 3; i++) {
        nanosleep(&(struct timespec){.tv_sec = 1, .tv_nsec = i * 20000000L}, NULL);
        struct vm *vm = call_failing("traps", "spin", &roomy, VM_DEADLINE);
        vm_free(vm);
    }
}

static void test_deadline_after_a_long_host_call(void **state)
{
    (void)state;
    guest_signals_restore();
    struct module *module = load_text("(module (import \"env\" \"rest\" (func $rest)) (memory (export \"memory\") 1)"
                                      "(func (export \"go\") (call $rest) (loop $again (br $again))))");
    struct vm *vm = start(module, &roomy);
    assert_int_equal(vm_call(vm, func(vm, "go", "", ""), NULL, 20), VM_DEADLINE);
    vm_free(vm);
    module_unref(module);
}

/* One growth that is refused, far from the limit: only the names on the stack tell. */
static void test_one_large_growth_is_refused(void **state)
{
    (void)state;
    guest_signals_restore();
    struct module *module =
        load_text("(module (memory (export \"memory\") 1)"
                  "(func $_ZN5alloc5alloc18handle_alloc_error17h0123456789abcdefE unreachable)"
                  "(func (export \"go\") (if (i32.eq (memory.grow (i32.const 60000)) (i32.const -1))"
                  "  (then (call $_ZN5alloc5alloc18handle_alloc_error17h0123456789abcdefE)))))");
    struct vm *vm = start(module, &roomy);
    assert_int_equal(vm_call(vm, func(vm, "go", "", ""), NULL, 100), VM_MEMORY);
    assert_has(vm_error(vm), "memory limit: unreachable; at");
    vm_free(vm);
    module_unref(module);
}

static void test_memory_limit(void **state)
{
    (void)state;
    guest_signals_restore();
    const struct vm_limits small = {.memory_bytes = 1 << 20, .table_elements = 30000};
    struct vm *vm = call_failing("traps", "eat", &small, VM_MEMORY);
    assert_has(vm_error(vm), "memory limit: unreachable (memory 1024 of at most 1024 KiB); at eat");
    assert_int_equal(vm_memory_bytes(vm), 1 << 20);
    vm_free(vm);
    /* Too small to begin with. */
    const struct vm_limits none = {.memory_bytes = 1024, .table_elements = 30000};
    struct module *module = load("traps");
    char *error = NULL;
    assert_int_equal(vm_new(module, &none, 100, NULL, &vm, &error), VM_MEMORY);
    assert_has(error, "memory limit");
    mem_free(error);
    module_unref(module);
}

static void test_declared_maximum(void **state)
{
    (void)state;
    guest_signals_restore();
    struct module *module = load_text("(module (memory (export \"memory\") 1 3)"
                                      "(func (export \"trap\") unreachable)"
                                      "(func (export \"grow\") (drop (memory.grow (i32.const 2))) unreachable))");
    struct vm *vm = start(module, &roomy);
    assert_int_equal(vm_call(vm, func(vm, "trap", "", ""), NULL, 100), VM_TRAP);
    vm_free(vm);
    vm = start(module, &roomy);
    assert_int_equal(vm_call(vm, func(vm, "grow", "", ""), NULL, 100), VM_MEMORY);
    assert_has(vm_error(vm), "(memory 192 of at most 192 KiB)");
    vm_free(vm);
    module_unref(module);
}

static void test_table_limit(void **state)
{
    (void)state;
    guest_signals_restore();
    struct module *module = load_text("(module (memory (export \"memory\") 1) (table 30001 funcref))");
    struct vm *vm = NULL;
    char *error = NULL;
    assert_int_equal(vm_new(module, &roomy, 100, NULL, &vm, &error), VM_TRAP);
    assert_has(error, "table");
    mem_free(error);
    module_unref(module);
}

static void test_start_function(void **state)
{
    (void)state;
    guest_signals_restore();
    struct module *module = load("start_loops");
    struct vm *vm = NULL;
    char *error = NULL;
    assert_int_equal(vm_new(module, &roomy, 20, NULL, &vm, &error), VM_DEADLINE);
    assert_has(error, "used its CPU time of 20 ms; at begin");
    mem_free(error);
    module_unref(module);
    module = load("start_calls");
    vm = start(module, &roomy);
    assert_int_equal(last_note, 42);
    assert_string_equal(last_read, "from start");
    vm_free(vm);
    module_unref(module);
}

/* ---- linking ---- */

static void assert_refused(const char *wat, const char *expected)
{
    struct strbuf code = compile(guest_assemble_text(wat, NULL));
    struct module *module = NULL;
    char *error = NULL;
    assert_false(module_load(engine, strbuf_str(&code), table, ARRAY_LEN(table), unknown, &module, &error));
    assert_string_equal(error, expected);
    mem_free(error);
    strbuf_free(&code);
}

static void test_refused_imports(void **state)
{
    (void)state;
    guest_signals_restore();
    assert_refused("(module (import \"env\" \"add\" (func (param i32) (result i32))))",
                   "import env.add has type (i32) -> (i32), expected (i32 i32) -> (i32)");
    assert_refused("(module (import \"env\" \"note\" (func (param i32) (result i64))))",
                   "import env.note has type (i32) -> (i64), expected (i32) -> ()");
    assert_refused("(module (import \"env\" \"add\" (func (param v128 funcref))))",
                   "import env.add has type (v128 ref) -> (), expected (i32 i32) -> (i32)");
    assert_refused("(module (import \"other\" \"fu\\0an\" (func)))",
                   "import other.fu\\nn is not provided by this host");
    assert_refused("(module (import \"unknown\" \"number\" (func (result funcref))))",
                   "import unknown.number is not provided by this host and returns a reference");
    assert_refused(
        "(module (import \"env\" \"memory\" (memory 1)))",
        "import env.memory is a memory; only functions can be imported (link the module without --import-memory)");
    assert_refused("(module (import \"env\" \"t\" (table 1 funcref)))",
                   "import env.t is a table; only functions can be imported");
    assert_refused("(module (import \"env\" \"g\" (global i32)))",
                   "import env.g is a global; only functions can be imported");
}

static void test_duplicate_imports_must_agree(void **state)
{
    (void)state;
    guest_signals_restore();
    struct strbuf code = compile(guest_assemble_text("(module (import \"unknown\" \"number\" (func (result i32)))"
                                                     "(import \"unknown\" \"number\" (func (result i64))))",
                                                     NULL));
    struct module *module = NULL;
    char *error = NULL;
    assert_false(module_load(engine, strbuf_str(&code), table, ARRAY_LEN(table), unknown, &module, &error));
    assert_has(error, "number");
    mem_free(error);
    strbuf_free(&code);
}

static void test_bad_code(void **state)
{
    (void)state;
    guest_signals_restore();
    struct strbuf out = {0};
    struct module *module = NULL;
    char *error = NULL;
    assert_false(engine_compile(engine, STR("\0asm\1\0\0\0nonsense"), tier, &out, &error));
    assert_null(strchr(error, '\n'));
    mem_free(error);
    assert_false(module_load(engine, STR("no code"), table, ARRAY_LEN(table), unknown, &module, &error));
    assert_null(strchr(error, '\n'));
    mem_free(error);
    assert_false(module_load_file(engine, "/does/not/exist", table, ARRAY_LEN(table), unknown, &module, &error));
    assert_has(error, "/does/not/exist");
    mem_free(error);
    strbuf_free(&out);
}

static void test_features_that_are_off(void **state)
{
    (void)state;
    guest_signals_restore();
    static const char *const texts[] = {"(module (memory 1) (memory 1))", "(module (memory i64 1))"};
    static const char *const flags[] = {"--enable-multi-memory", "--enable-memory64"};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct strbuf wasm = guest_assemble_text(texts[i], flags[i]), out = {0};
        char *error = NULL;
        assert_false(engine_compile(engine, strbuf_str(&wasm), tier, &out, &error));
        mem_free(error);
        strbuf_free(&wasm);
    }
}

/* The fast tier knows no tail calls. */
static void test_tail_calls(void **state)
{
    (void)state;
    guest_signals_restore();
    struct strbuf out = {0}, wasm = guest_assemble_text("(module (func $f (return_call $f)))", "--enable-tail-call");
    char *error = NULL;
    assert_int_equal(engine_compile(engine, strbuf_str(&wasm), tier, &out, &error), tier == TIER_OPTIMISED);
    mem_free(error);
    strbuf_free(&out);
    strbuf_free(&wasm);
}

static void test_load_file(void **state)
{
    (void)state;
    guest_signals_restore();
    struct strbuf code = compile(guest_assemble(WEIR_SOURCE_DIR "/tests/unit/wasm/calls.wat", NULL));
    char path[] = "/tmp/weir-test-code-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    guest_write_file(path, strbuf_str(&code));
    struct module *module = NULL;
    char *error = NULL;
    if (!module_load_file(engine, path, table, ARRAY_LEN(table), unknown, &module, &error))
        fail_msg("%s", error);
    unlink(path);
    struct vm *vm = start(module, &roomy);
    union vm_value v[2] = {{.i32 = 1}, {.i32 = 2}};
    assert_int_equal(vm_call(vm, func(vm, "sum", "ii", "i"), v, 100), VM_OK);
    assert_int_equal(v[0].i32, 3);
    vm_free(vm);
    module_unref(module);
    strbuf_free(&code);
}

/* ---- life ---- */

static void *run_elsewhere(void *arg)
{
    struct vm *vm = arg;
    union vm_value v[2] = {{.i32 = 30}, {.i32 = 3}};
    assert_int_equal(vm_call(vm, func(vm, "host_add", "ii", "i"), v, 100), VM_OK);
    assert_int_equal(v[0].i32, 66);
    callback_func = func(vm, "trap_inside", "i", "i");
    assert_int_equal(vm_call(vm, func(vm, "host_call_back", "i", "i"), v, 100), VM_TRAP);
    vm_free(vm);
    return NULL;
}

static void test_vm_is_handed_over(void **state)
{
    (void)state;
    guest_signals_restore();
    struct module *module = load("calls");
    for (int i = 0; i < 4; i++) {
        struct vm *vm = start(module, &roomy);
        union vm_value v[2] = {{.i32 = 1}, {.i32 = 2}};
        assert_int_equal(vm_call(vm, func(vm, "sum", "ii", "i"), v, 100), VM_OK);
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, run_elsewhere, vm), 0);
        pthread_join(thread, NULL);
    }
    module_unref(module);
}

static void *call_many(void *arg)
{
    struct vm *vm = start(arg, &roomy);
    int f = func(vm, "five", "i", "i");
    for (int i = 0; i < 20000; i++) {
        union vm_value v[1] = {{.i32 = i}};
        assert_int_equal(vm_call(vm, f, v, 10000), VM_OK);
        assert_int_equal(v[0].i32, i + 5);
    }
    vm_free(vm);
    module_unref(arg);
    return NULL;
}

static void test_threads_share_a_module(void **state)
{
    (void)state;
    guest_signals_restore();
    struct module *module = load("calls");
    pthread_t threads[4];
    for (size_t i = 0; i < ARRAY_LEN(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, call_many, module_ref(module)), 0);
    for (size_t i = 0; i < ARRAY_LEN(threads); i++)
        pthread_join(threads[i], NULL);
    module_unref(module);
}

static void test_many_vms_and_the_budget(void **state)
{
    (void)state;
    guest_signals_restore();
    struct module *module = load("calls");
    uint64_t before = budget_used();
    struct vm *vms[200];
    for (size_t i = 0; i < ARRAY_LEN(vms); i++)
        vms[i] = start(module, &roomy);
    assert_int_equal(budget_used() - before, 200 * 65536);
    union vm_value v[1] = {{.i32 = 3}};
    assert_int_equal(vm_call(vms[0], func(vms[0], "grow", "i", "i"), v, 100), VM_OK);
    assert_int_equal(budget_used() - before, 203 * 65536);
    for (size_t i = 0; i < ARRAY_LEN(vms); i++)
        vm_free(vms[i]);
    assert_int_equal(budget_used(), before);
    for (int i = 0; i < 200; i++)
        vm_free(start(module, &roomy));
    assert_int_equal(budget_used(), before);
    module_unref(module);
}

static void test_fingerprint(void **state)
{
    (void)state;
    guest_signals_restore();
    assert_has(engine_fingerprint(engine), "wasmtime-48.");
    struct engine *other = engine_new();
    assert_string_equal(engine_fingerprint(other), engine_fingerprint(engine));
    engine_free(other);
}

/* Not a test of speed: says what a call costs. */
static void test_says_what_a_call_costs(void **state)
{
    (void)state;
    guest_signals_restore();
    struct module *module = load("calls");
    struct vm *vm = start(module, &roomy);
    const int rounds = 200000, empty = func(vm, "nothing", "", ""), five = func(vm, "five", "i", "i");
    struct timespec t[3];
    union vm_value v[1];
    clock_gettime(CLOCK_MONOTONIC, &t[0]);
    for (int i = 0; i < rounds; i++)
        assert_true(vm_call(vm, empty, v, 100) == VM_OK);
    clock_gettime(CLOCK_MONOTONIC, &t[1]);
    for (int i = 0; i < rounds; i++) {
        v[0].i32 = i;
        assert_true(vm_call(vm, five, v, 100) == VM_OK);
    }
    clock_gettime(CLOCK_MONOTONIC, &t[2]);
    double ns[2];
    for (int i = 0; i < 2; i++)
        ns[i] = ((double)(t[i + 1].tv_sec - t[i].tv_sec) * 1e9 + (double)(t[i + 1].tv_nsec - t[i].tv_nsec)) / rounds;
    print_message("           an empty call %.0f ns, one with five host calls %.0f ns\n", ns[0], ns[1]);
    vm_free(vm);
    module_unref(module);
}

int main(void)
{
    engine = engine_new();
    guest_signals_save();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_calls),
        cmocka_unit_test(test_func_lookup),
        cmocka_unit_test(test_host_calls),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_nested_calls),
        cmocka_unit_test(test_raise),
        cmocka_unit_test(test_traps),
        cmocka_unit_test(test_at_most_20_frames),
        cmocka_unit_test(test_loop_meets_deadline),
        cmocka_unit_test(test_nested_calls_share_the_deadline),
        cmocka_unit_test(test_deadline_after_a_pause),
        cmocka_unit_test(test_deadline_after_a_long_host_call),
        cmocka_unit_test(test_memory_limit),
        cmocka_unit_test(test_one_large_growth_is_refused),
        cmocka_unit_test(test_declared_maximum),
        cmocka_unit_test(test_table_limit),
        cmocka_unit_test(test_start_function),
        cmocka_unit_test(test_refused_imports),
        cmocka_unit_test(test_duplicate_imports_must_agree),
        cmocka_unit_test(test_bad_code),
        cmocka_unit_test(test_features_that_are_off),
        cmocka_unit_test(test_tail_calls),
        cmocka_unit_test(test_load_file),
        cmocka_unit_test(test_vm_is_handed_over),
        cmocka_unit_test(test_threads_share_a_module),
        cmocka_unit_test(test_many_vms_and_the_budget),
        cmocka_unit_test(test_fingerprint),
        cmocka_unit_test(test_says_what_a_call_costs),
    };
    int failed = cmocka_run_group_tests_name("vm, optimised", tests, NULL, NULL);
#if defined(__x86_64__)
    tier = TIER_FAST;
    failed += cmocka_run_group_tests_name("vm, fast", tests, NULL, NULL);
#endif
    engine_free(engine);
    return failed;
}
