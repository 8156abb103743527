/* SPDX-License-Identifier: Apache-2.0
 *
 * What engine.c, module.c and vm.c share, the only files that see Wasmtime: the two engines with their ticker, a linked
 * module, and small helpers. Nobody else includes this.
 *
 * The hard part is the ticker. It increments the epoch every few milliseconds, but only while guests run, and a guest
 * must never be left running with a parked ticker, for nobody would end its endless loop. The rule that makes the entry
 * cheap: parking is followed by one more increment. A guest that enters reads the epoch first and the ticker's state
 * second, so either it saw an older epoch, and its deadline (that epoch + 1) has passed already, or it sees that the
 * ticker is parked and wakes it. A guest whose deadline passed comes to the epoch callback, and from there on it holds
 * the ticker until it ends.
 */
#ifndef WEIR_WASM_ENGINE_PRIV_H
#define WEIR_WASM_ENGINE_PRIV_H

#include <pthread.h>
#include <stdatomic.h>

#include <wasmtime.h>

#include "wasm/vm.h"

enum { TIER_COUNT = TIER_FAST + 1 };
enum { TICK_MS = 5, TICKS_UNTIL_PARKED = 200 };
enum ticker_state { TICKER_ACTIVE /* a guest was entered since the last tick */, TICKER_QUIET, TICKER_PARKED };

struct engine {
    wasm_engine_t *tiers[TIER_COUNT]; /* NULL where this CPU architecture has no such compiler */
    char *fingerprint;
    pthread_t ticker;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    atomic_bool stop;
    _Alignas(64) atomic_int ticker_state; /* read at each entry: alone in its cache line */
    _Alignas(64) atomic_uint held;        /* guests that run for longer than a tick */
};

/* Wakes the ticker, or notes the activity. Thread-safe. */
void engine_rouse(struct engine *engine);
/* A guest that was seen by a tick keeps the ticker going until it is released. */
void engine_hold(struct engine *engine);
void engine_release(struct engine *engine);

/* After the epoch deadline was set, before the guest runs. The fence orders the two loads (see above); it costs nothing
 * on x86. */
static inline void engine_enter(struct engine *engine)
{
    atomic_thread_fence(memory_order_acquire);
    if (atomic_load_explicit(&engine->ticker_state, memory_order_relaxed) != TICKER_ACTIVE)
        engine_rouse(engine);
}

/* Text of an error, which is deleted. Free with mem_free. */
char *engine_error_take(wasmtime_error_t *error);
/* As above, as one line. */
char *engine_error_line(wasmtime_error_t *error);

/* One import of a module as it is served: a table entry, or an answer. */
struct module_link {
    const struct vm_host_func *func; /* NULL: answer */
    union vm_value answer;
    uint32_t result_count; /* of the answer */
};

struct module {
    atomic_uint refs;
    struct engine *engine;
    enum compile_tier tier;
    wasmtime_module_t *compiled;
    wasmtime_instance_pre_t *pre;
    struct module_link *links;
    char *memory_name; /* of the memory that guest pointers point into; NULL: none is exported */
    size_t memory_name_length;
    uint64_t memory_max_bytes; /* as declared; UINT64_MAX: not at all */
};

/* Host functions of vm.c, which the module is linked with; env is a struct module_link. */
wasm_trap_t *vm_host_trampoline(void *env, wasmtime_caller_t *caller, wasmtime_val_raw_t *values, size_t count);
wasm_trap_t *vm_answer_trampoline(void *env, wasmtime_caller_t *caller, wasmtime_val_raw_t *values, size_t count);

/* Value types as one character each, 'i', 'I', 'f', 'F', 'v' (v128) or 'r' (a reference), NUL-terminated. Free with
 * mem_free. Not by wasm_valtype_kind, which aborts the process on types that it does not know. */
char *module_type_chars(const wasm_valtype_vec_t *types);

#endif
