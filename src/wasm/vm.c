/* SPDX-License-Identifier: Apache-2.0
 *
 * Instances and calls in both directions. What makes it hard is that this is the hottest path of the gateway and the
 * least trusted code in it: a call must cost next to nothing (no allocation, no clock, no lookup by name) and yet a
 * guest that loops, eats memory or traps must end alone, with a text that says where. Types are checked when a handle
 * is made, never when it is used. A vm that failed is never entered again, not even by host functions that are still on
 * the stack.
 */
#include <time.h>

#include "base/budget.h"
#include "wasm/engine_priv.h"
#include "wasm/trap_text.h"

_Static_assert(sizeof(union vm_value) == sizeof(wasmtime_val_raw_t), "values are passed as they are");
_Static_assert(_Alignof(union vm_value) == _Alignof(wasmtime_val_raw_t), "values are passed as they are");

#define LIKELY(x)   __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

enum { WASM_PAGE = 64 * 1024, MAX_TABLES = 16 };

struct vm_func {
    wasmtime_func_t handle;
    size_t slots; /* values it reads or writes, whichever is more */
};

struct vm {
    wasmtime_context_t *context; /* of store */
    struct engine *engine;
    void *user;
    struct vm_func *funcs;
    uint8_t *memory;      /* never moves (4 GiB are reserved); NULL: not found yet or none */
    uint64_t memory_size; /* as last seen; it only grows */
    unsigned depth;       /* guest entries on the stack */
    bool stopping;        /* raised, failed or exiting: whatever guest frames there are end at the next return */
    bool exiting;         /* stopping, but all is well */
    bool slow;            /* the running outermost call was seen by a tick */
    uint64_t deadline_ns, first_tick_ns, last_slow_ns; /* CPU time of this thread */

    wasmtime_store_t *store;
    struct module *module;
    wasmtime_instance_t instance;
    wasmtime_memory_t memory_handle;
    uint64_t memory_cap, memory_at_start, charged;
    size_t func_count;
    enum vm_result failure;
    bool past_deadline;
    char *raised, *error;
};

/* ---- guest memory ---- */

static void refresh_memory(struct vm *vm)
{
    if (vm->memory != NULL)
        vm->memory_size = wasmtime_memory_data_size(vm->context, &vm->memory_handle);
}

static void set_memory(struct vm *vm, const wasmtime_extern_t *item)
{
    vm->memory_handle = item->of.memory;
    vm->memory = wasmtime_memory_data(vm->context, &vm->memory_handle);
    refresh_memory(vm);
}

static void *memory_after_growth(struct vm *vm, uint32_t ptr, uint32_t len)
{
    refresh_memory(vm);
    return (uint64_t)ptr + len <= vm->memory_size && vm->memory != NULL ? vm->memory + ptr : NULL;
}

void *vm_mem(struct vm *vm, uint32_t ptr, uint32_t len)
{
    if (LIKELY((uint64_t)ptr + len <= vm->memory_size && vm->memory != NULL))
        return vm->memory + ptr;
    return memory_after_growth(vm, ptr, len);
}

uint64_t vm_memory_bytes(const struct vm *vm)
{
    return vm->memory != NULL ? wasmtime_memory_data_size(vm->context, &vm->memory_handle) : 0;
}

/* Counts what the guest has grown to. */
static void charge_memory(struct vm *vm)
{
    refresh_memory(vm);
    if (LIKELY(vm->memory_size == vm->charged))
        return;
    budget_charge(vm->memory_size - vm->charged);
    vm->charged = vm->memory_size;
}

/* ---- CPU time ---- */

static uint64_t thread_cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The epoch passed while the guest runs. The first time is the baseline, so that the fast path reads no clock: a call
 * may last for up to one tick more than its deadline. */
static wasmtime_error_t *on_tick(wasmtime_context_t *context, void *data, uint64_t *delta,
                                 wasmtime_update_deadline_kind_t *kind)
{
    (void)context;
    struct vm *vm = data;
    uint64_t now = thread_cpu_ns();
    *delta = 1;
    *kind = WASMTIME_UPDATE_DEADLINE_CONTINUE;
    if (!vm->slow) {
        vm->slow = true;
        vm->first_tick_ns = now;
        engine_hold(vm->engine);
        return NULL;
    }
    if (now - vm->first_tick_ns < vm->deadline_ns)
        return NULL;
    vm->past_deadline = true;
    return wasmtime_error_new("deadline");
}

static void arm(struct vm *vm, uint32_t deadline_ms)
{
    vm->deadline_ns = (uint64_t)deadline_ms * 1000000u;
    vm->last_slow_ns = 0;
    wasmtime_context_set_epoch_deadline(vm->context, 1);
    engine_enter(vm->engine);
}

static void disarm(struct vm *vm)
{
    if (LIKELY(!vm->slow))
        return;
    vm->last_slow_ns = thread_cpu_ns() - vm->first_tick_ns;
    if (vm->last_slow_ns == 0)
        vm->last_slow_ns = 1;
    vm->slow = false;
    engine_release(vm->engine);
}

uint64_t vm_last_slow_ns(const struct vm *vm) { return vm->last_slow_ns; }

/* ---- failure ---- */

static const char *trap_reason(wasmtime_trap_code_t code)
{
    switch (code) {
    case WASMTIME_TRAP_CODE_UNREACHABLE_CODE_REACHED: return "unreachable";
    case WASMTIME_TRAP_CODE_STACK_OVERFLOW: return "stack overflow";
    case WASMTIME_TRAP_CODE_MEMORY_OUT_OF_BOUNDS: return "out of bounds memory access";
    case WASMTIME_TRAP_CODE_TABLE_OUT_OF_BOUNDS:
        return "call of a function that does not exist (table index out of bounds)";
    case WASMTIME_TRAP_CODE_INDIRECT_CALL_TO_NULL: return "call of a null function";
    case WASMTIME_TRAP_CODE_BAD_SIGNATURE: return "indirect call of a function of another type";
    case WASMTIME_TRAP_CODE_INTEGER_OVERFLOW: return "integer overflow";
    case WASMTIME_TRAP_CODE_INTEGER_DIVISION_BY_ZERO: return "integer division by zero";
    case WASMTIME_TRAP_CODE_BAD_CONVERSION_TO_INTEGER: return "float out of range of an integer";
    default: return NULL;
    }
}

/* What a call or an instantiation ended with, taken apart; text is Wasmtime's own, all of it. */
struct ending {
    bool has_code;
    wasmtime_trap_code_t code;
    char *text;
};

static struct ending take_ending(wasmtime_error_t *error, wasm_trap_t *trap)
{
    struct ending end = {0};
    if (error != NULL) {
        end.text = engine_error_take(error);
        return end;
    }
    end.has_code = wasmtime_trap_code(trap, &end.code);
    wasm_message_t message;
    wasm_trap_message(trap, &message);
    end.text = mem_strndup(message.data, message.size > 0 ? message.size - 1 : 0);
    wasm_name_delete(&message);
    wasm_trap_delete(trap);
    return end;
}

/* A module that declares a maximum and never grows has chosen its size: that is not a limit it ran into. */
static uint64_t memory_limit(const struct vm *vm)
{
    uint64_t declared = vm->module->memory_max_bytes;
    bool grew = vm->memory_size > vm->memory_at_start;
    return grew && declared < vm->memory_cap ? declared : vm->memory_cap;
}

/* Wasmtime's limiter tells nobody that it refused a growth: the guest sees -1 and usually traps, aborts or exits soon.
 * So a guest that fails with less room left than its next growth would probably have asked for, a page or an eighth of
 * what it has, is taken to have failed for want of memory. One that asks for much at once fails earlier: then only the
 * names on its stack tell, where it has names. */
static bool is_at_memory_limit(const struct vm *vm)
{
    uint64_t step = vm->memory_size / 8 > WASM_PAGE ? vm->memory_size / 8 : WASM_PAGE;
    return vm->memory != NULL && vm->memory_size + step > memory_limit(vm);
}

/* Functions that are called for nothing else than an allocation that failed: Rust's, and C++'s without exceptions. */
static bool is_in_allocation_failure(const struct ending *end)
{
    static const char *const names[] = {"handle_alloc_error", "rust_oom", "alloc_error_handler", "operator new",
                                        "_Znwm"};

    if (!end->has_code || end->code != WASMTIME_TRAP_CODE_UNREACHABLE_CODE_REACHED)
        return false;
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (str_find_str(str_of(end->text), str_of(names[i])) >= 0)
            return true;
    return false;
}

static enum vm_result classify(struct vm *vm, const struct ending *end)
{
    refresh_memory(vm);
    if (vm->past_deadline)
        return VM_DEADLINE;
    if (end->has_code && end->code == WASMTIME_TRAP_CODE_STACK_OVERFLOW)
        return VM_TRAP;
    bool too_small = str_find_str(str_of(end->text), STR("exceeds memory limits")) >= 0; /* to instantiate at all */
    return too_small || is_at_memory_limit(vm) || is_in_allocation_failure(end) ? VM_MEMORY : VM_TRAP;
}

static void add_reason(struct strbuf *out, const struct vm *vm, const struct ending *end)
{
    const char *known = end->has_code ? trap_reason(end->code) : NULL;
    if (vm->past_deadline)
        strbuf_printf(out, "used its CPU time of %llu ms", (unsigned long long)(vm->deadline_ns / 1000000u));
    else if (vm->raised != NULL)
        strbuf_addz(out, vm->raised);
    else if (known != NULL)
        strbuf_addz(out, known);
    else
        trap_text_line(out, str_of(end->text));
}

static void add_memory(struct strbuf *out, const struct vm *vm)
{
    if (vm->memory_size > memory_limit(vm) / 2)
        strbuf_printf(out, " (memory %llu of at most %llu KiB)", (unsigned long long)(vm->memory_size / 1024),
                      (unsigned long long)(memory_limit(vm) / 1024));
}

/* The first failure counts: outer calls end because inner ones did. */
static enum vm_result fail(struct vm *vm, wasmtime_error_t *error, wasm_trap_t *trap)
{
    struct ending end = take_ending(error, trap);
    if (vm->failure == VM_OK) {
        struct strbuf text = {0}, frames = {0};
        vm->failure = classify(vm, &end);
        if (vm->failure == VM_MEMORY)
            strbuf_addz(&text, "memory limit: ");
        add_reason(&text, vm, &end);
        if (vm->failure != VM_DEADLINE)
            add_memory(&text, vm);
        trap_text_frames(&frames, str_of(end.text));
        if (frames.n != 0)
            strbuf_printf(&text, "; at %.*s", STR_ARG(strbuf_str(&frames)));
        strbuf_free(&frames);
        vm->error = strbuf_take(&text);
    }
    vm->stopping = true;
    mem_free(end.text);
    return vm->failure;
}

const char *vm_error(const struct vm *vm) { return vm->error != NULL ? vm->error : ""; }

void vm_raise(struct vm *vm, const char *text)
{
    ASSERT(vm->depth > 0);
    if (vm->stopping)
        return;
    struct strbuf line = {0};
    trap_text_line(&line, str_of(text));
    vm->raised = strbuf_take(&line);
    vm->stopping = true;
}

void vm_exit(struct vm *vm)
{
    ASSERT(vm->depth == 1 && vm->func_count != 0); /* a handle was made: instantiation is over */
    vm->exiting = !vm->stopping;
    vm->stopping = true;
}

/* ---- guest to host ---- */

/* Only while the start function runs is the memory not known yet. */
static void find_memory_of(struct vm *vm, wasmtime_caller_t *caller)
{
    wasmtime_extern_t item;
    const struct module *m = vm->module;
    if (m->memory_name != NULL && wasmtime_caller_export_get(caller, m->memory_name, m->memory_name_length, &item))
        set_memory(vm, &item);
}

static wasm_trap_t *stop_guest(void)
{
    static const char text[] = "stopped by the host";
    return wasmtime_trap_new(text, sizeof(text) - 1);
}

wasm_trap_t *vm_host_trampoline(void *env, wasmtime_caller_t *caller, wasmtime_val_raw_t *values, size_t count)
{
    const struct module_link *link = env;
    struct vm *vm = wasmtime_context_get_data(wasmtime_caller_context(caller));
    if (UNLIKELY(vm->memory == NULL))
        find_memory_of(vm, caller);
    /* A module may declare () -> () where the table has a result: no room is passed then. */
    union vm_value none;
    link->func->fn(vm, LIKELY(count != 0) ? (union vm_value *)(void *)values : &none);
    return LIKELY(!vm->stopping) ? NULL : stop_guest();
}

wasm_trap_t *vm_answer_trampoline(void *env, wasmtime_caller_t *caller, wasmtime_val_raw_t *values, size_t count)
{
    const struct module_link *link = env;
    (void)caller;
    ASSERT(link->result_count <= count);
    for (size_t i = 0; i < link->result_count; i++)
        memset(&values[i], 0, sizeof(values[i]));
    if (link->result_count != 0)
        memcpy(&values[0], &link->answer, sizeof(values[0]));
    return NULL;
}

/* ---- host to guest ---- */

static bool has_type(struct vm *vm, const wasmtime_func_t *func, const char *params, const char *results)
{
    wasm_functype_t *type = wasmtime_func_type(vm->context, func);
    char *p = module_type_chars(wasm_functype_params(type)), *r = module_type_chars(wasm_functype_results(type));
    bool same = strcmp(p, params) == 0 && strcmp(r, results) == 0;
    mem_free(p);
    mem_free(r);
    wasm_functype_delete(type);
    return same;
}

int vm_func(struct vm *vm, const char *name, const char *params, const char *results)
{
    wasmtime_extern_t item;
    if (!wasmtime_instance_export_get(vm->context, &vm->instance, name, strlen(name), &item) ||
        item.kind != WASMTIME_EXTERN_FUNC)
        return VM_FUNC_NONE;
    if (!has_type(vm, &item.of.func, params, results))
        return VM_FUNC_BAD_TYPE;
    size_t slots = strlen(params) > strlen(results) ? strlen(params) : strlen(results);
    vm->funcs = mem_realloc(vm->funcs, (vm->func_count + 1) * sizeof(*vm->funcs));
    vm->funcs[vm->func_count] = (struct vm_func){.handle = item.of.func, .slots = slots};
    return (int)vm->func_count++;
}

/* Takes what the host function's return ended the guest with. */
static void exited(struct vm *vm, wasmtime_error_t *error, wasm_trap_t *trap)
{
    struct ending end = take_ending(error, trap);
    mem_free(end.text);
    vm->exiting = vm->stopping = false;
}

static enum vm_result leave(struct vm *vm, wasmtime_error_t *error, wasm_trap_t *trap)
{
    vm->depth--;
    if (UNLIKELY(error != NULL || trap != NULL)) {
        if (vm->exiting)
            exited(vm, error, trap);
        else
            (void)fail(vm, error, trap);
    }
    if (vm->depth == 0) {
        charge_memory(vm);
        disarm(vm);
    }
    return vm->failure;
}

enum vm_result vm_call(struct vm *vm, int func, union vm_value *values, uint32_t deadline_ms)
{
    ASSERT(func >= 0 && (size_t)func < vm->func_count);
    if (UNLIKELY(vm->stopping))
        return vm->failure != VM_OK ? vm->failure : VM_TRAP;
    if (vm->depth++ == 0)
        arm(vm, deadline_ms);
    const struct vm_func *f = &vm->funcs[func];
    wasm_trap_t *trap = NULL;
    wasmtime_error_t *error =
        wasmtime_func_call_unchecked(vm->context, &f->handle, (wasmtime_val_raw_t *)(void *)values, f->slots, &trap);
    return leave(vm, error, trap);
}

bool vm_is_running(const struct vm *vm) { return vm->depth != 0; }

void *vm_user(const struct vm *vm) { return vm->user; }

/* ---- life ---- */

static void limit(struct vm *vm, const struct vm_limits *limits)
{
    vm->memory_cap = limits->memory_bytes;
    int64_t memory = limits->memory_bytes > INT64_MAX ? INT64_MAX : (int64_t)limits->memory_bytes;
    wasmtime_store_limiter(vm->store, memory, limits->table_elements, 1, MAX_TABLES, 1);
    wasmtime_store_epoch_deadline_callback(vm->store, on_tick, vm, NULL);
}

static enum vm_result instantiate(struct vm *vm, uint32_t deadline_ms)
{
    vm->depth++;
    arm(vm, deadline_ms);
    wasm_trap_t *trap = NULL;
    wasmtime_error_t *error = wasmtime_instance_pre_instantiate(vm->module->pre, vm->context, &vm->instance, &trap);
    const struct module *m = vm->module;
    wasmtime_extern_t item;
    if (error == NULL && trap == NULL && vm->memory == NULL && m->memory_name != NULL &&
        wasmtime_instance_export_get(vm->context, &vm->instance, m->memory_name, m->memory_name_length, &item))
        set_memory(vm, &item);
    vm->memory_at_start = vm->memory_size;
    return leave(vm, error, trap);
}

enum vm_result vm_new(struct module *module, const struct vm_limits *limits, uint32_t deadline_ms, void *user,
                      struct vm **out, char **error)
{
    struct vm *vm = mem_zalloc(sizeof(*vm));
    vm->module = module_ref(module);
    vm->engine = module->engine;
    vm->user = user;
    vm->store = wasmtime_store_new(module->engine->tiers[module->tier], vm, NULL);
    vm->context = wasmtime_store_context(vm->store);
    limit(vm, limits);
    enum vm_result result = instantiate(vm, deadline_ms);
    if (result == VM_OK) {
        *out = vm;
        return VM_OK;
    }
    *error = mem_strdup(vm_error(vm));
    vm_free(vm);
    return result;
}

void vm_free(struct vm *vm)
{
    ASSERT(vm->depth == 0);
    wasmtime_store_delete(vm->store);
    budget_release(vm->charged);
    module_unref(vm->module);
    mem_free(vm->funcs);
    mem_free(vm->raised);
    mem_free(vm->error);
    mem_free(vm);
}
