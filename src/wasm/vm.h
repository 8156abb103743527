/* SPDX-License-Identifier: Apache-2.0
 *
 * The Wasm engine behind one door: everything of Wasmtime that Weir uses; its headers are included by engine.c,
 * module.c and vm.c only. It knows no Proxy-Wasm: modules, instances, host functions by name, guest memory, and two
 * limits for each instance, CPU time and memory.
 *
 * Accepted: WebAssembly 2.0 with SIMD and, in the optimised tier, tail calls; 32-bit; one memory; no threads, garbage
 * collection, externref or exceptions.
 *
 * Threads: an engine and its modules are shared by all; a vm belongs to one thread at a time but may be handed over
 * while no guest frame is on the stack. Guests run on the stack of their thread (1 MiB for guest frames): give it 2 MiB
 * or more.
 *
 * Signals: from engine_new on, faults of guest code come in as SIGSEGV, SIGILL or SIGFPE and become traps. Whoever
 * installs handlers for these later must pass on what is not his.
 */
#ifndef WEIR_WASM_VM_H
#define WEIR_WASM_VM_H

#include "base/str.h"

/* ---- engine ---- */

struct engine;
/* Starts the epoch ticker thread (parked while no guest runs). One for each process. WASMTIME_BACKTRACE_DETAILS is set
 * to 1 here, before the engine exists, so that backtraces carry lines where the module has DWARF. */
struct engine *engine_new(void);
/* Every module and vm must be gone. */
void engine_free(struct engine *engine);
/* Text that changes whenever compiled code is of no use any more: engine version, its settings, the CPU's features.
 * Part of every cache key. The tier is not in it: compiled code knows its tier, and loading finds out. */
const char *engine_fingerprint(const struct engine *engine);

enum compile_tier { TIER_OPTIMISED /* Cranelift */, TIER_FAST /* Winch */ };
/* Compiles to native code. Takes seconds and much memory and cannot be cancelled: only the compiler child and tests
 * call it. On failure false and *error (one line, as all errors here; mem_free). TIER_FAST exists on x86-64 only and
 * refuses some modules (tail calls, a few SIMD instructions) that the other takes. */
NODISCARD bool engine_compile(struct engine *engine, struct str wasm, enum compile_tier tier, struct strbuf *out,
                              char **error);

/* ---- what a module is, without compiling it (for inspect, check and the ABI version) ---- */

struct module_import {
    struct str module, name; /* borrowed from the wasm bytes */
    const char *type;        /* "(i32 i32) -> (i32)"; NULL unless it is a function */
    char kind;               /* 'f' function, 'm' memory, 't' table, 'g' global */
};
struct module_export {
    struct str name;
    const char *type; /* as above */
    char kind;        /* as above, and 'e' for an exception tag */
};
struct module_section {
    struct str name; /* "code", "data", or a custom section's name */
    size_t bytes;
};
/* The type texts of imports and exports belong to info; several may share one. */
struct module_info {
    struct module_import *imports;
    size_t import_count;
    struct module_export *exports; /* in the order of the export section */
    size_t export_count;
    struct module_section *sections;
    size_t section_count;
    uint64_t memory_min_pages, memory_max_pages; /* of the first memory; max 0: none declared */
    uint32_t table_min;
    char *name;   /* from the name section; may be NULL */
    char **types; /* of the type section, as text */
    size_t type_count;
};
/* Parses the binary format itself (bounded, never trusts a length). false and *error on a malformed module; info is
 * then empty. info borrows wasm. */
NODISCARD bool module_info_parse(struct str wasm, struct module_info *info, char **error);
void module_info_free(struct module_info *info);

/* ---- modules and host functions ---- */

/* Layout of Wasmtime's raw value; only the member that the type says is meaningful. */
union vm_value {
    int32_t i32;
    uint32_t u32;
    int64_t i64;
    uint64_t u64;
    float f32;
    double f64;
    unsigned char bytes[16];
};

struct vm;
/* A host function: arguments in args[0..], result in args[0]. To end the guest, call vm_raise and return. */
typedef void (*vm_host_fn)(struct vm *vm, union vm_value *args);
struct vm_host_func {
    const char *module, *name;
    const char *params;  /* "iiI": i = i32, I = i64, f = f32, F = f64 */
    const char *results; /* "i" or "" */
    vm_host_fn fn;
};
/* Answer of an import that is not in the table: fills result (zeroed) with what the guest shall see. E.g. 52 for a WASI
 * call, 12 for env.proxy_*. Called once for each import when the module is linked; return false to refuse the module.
 */
typedef bool (*vm_unknown_import_fn)(struct str module, struct str name, union vm_value *result);

struct module;
/* Maps compiled code from a file made by engine_compile (trusted: the caller has checked where it comes from) and links
 * it against the table. An import that is no function, or whose parameters differ from the table's is refused with a
 * clear text; one whose result is missing in the module is served all the same (0.1.0 modules declare continue_request
 * without one). The table must outlive the module. One reference for the caller. */
NODISCARD bool module_load_file(struct engine *engine, const char *path, const struct vm_host_func *table, size_t count,
                                vm_unknown_import_fn unknown, struct module **out, char **error);
/* As above from memory (tests). */
NODISCARD bool module_load(struct engine *engine, struct str compiled, const struct vm_host_func *table, size_t count,
                           vm_unknown_import_fn unknown, struct module **out, char **error);
struct module *module_ref(struct module *m); /* atomic */
void module_unref(struct module *m);

/* ---- instances ---- */

enum vm_result {
    VM_OK,
    VM_TRAP,     /* unreachable, out of bounds, stack overflow, vm_raise, ... */
    VM_DEADLINE, /* used its CPU time */
    VM_MEMORY,   /* failed in another way while its memory was at its cap, or began above it */
};
struct vm_limits {
    uint64_t
        memory_bytes; /* of the linear memory; what it has grown to is charged to budget.h after each outermost call */
    uint32_t table_elements; /* of each table; 30,000 is a good default */
};

/* Instantiates (start function included, under deadline_ms of CPU time). user comes back from vm_user. No vm on
 * failure: *error. */
NODISCARD enum vm_result vm_new(struct module *module, const struct vm_limits *limits, uint32_t deadline_ms, void *user,
                                struct vm **out, char **error);
void vm_free(struct vm *vm);
void *vm_user(const struct vm *vm);

enum { VM_FUNC_NONE = -1, VM_FUNC_BAD_TYPE = -2 };
/* Handle of an exported function of exactly this type, VM_FUNC_NONE when there is none of that name, VM_FUNC_BAD_TYPE
 * when its type differs. */
int vm_func(struct vm *vm, const char *name, const char *params, const char *results);

/* Calls a guest function; values in, result in values[0] (values has room for max(1, arguments)). deadline_ms of CPU
 * time is armed for outermost calls only: a nested call (the allocator, from inside a host function) runs on what is
 * left. It is served in ticks of 5 ms: a call ends up to two ticks late. After anything but VM_OK the vm is never
 * entered again: calls return that result at once, guest frames still on the stack end when the host function returns;
 * vm_error says why. */
NODISCARD enum vm_result vm_call(struct vm *vm, int func, union vm_value *values, uint32_t deadline_ms);
/* Is a guest frame on the stack? */
bool vm_is_running(const struct vm *vm);
/* From inside a host function: the guest ends with a trap of this text (copied) when the function returns. */
void vm_raise(struct vm *vm, const char *text);
/* As vm_raise, but the end is a good one: the outermost call, whose host function this has to be, returns VM_OK with
 * values that mean nothing, and the vm may be entered again. Not while vm_new instantiates. */
void vm_exit(struct vm *vm);
/* Reason and guest backtrace of the failure, one line: "unreachable; at foo (src/lib.rs:12) < bar < ..." at most 20
 * frames. */
const char *vm_error(const struct vm *vm);
/* CPU time in ns of the last outermost call, from its first tick on, 0 if it never lasted until then (it was under a
 * few ms). */
uint64_t vm_last_slow_ns(const struct vm *vm);

/* [ptr, ptr+len) of guest memory, or NULL when any of it is outside; len 0 gives a non-NULL pointer when ptr is inside
 * or at the end. Valid until the next guest call or growth only. */
void *vm_mem(struct vm *vm, uint32_t ptr, uint32_t len);
/* Bytes of linear memory now. */
uint64_t vm_memory_bytes(const struct vm *vm);

#endif
