/* SPDX-License-Identifier: Apache-2.0
 *
 * The two Wasmtime engines of the process, Cranelift's and Winch's, their settings, the thread that ticks their epochs,
 * and compiling. What makes it hard is the ticker: see engine_priv.h. It must never let a guest run unobserved, and it
 * must not wake an idle machine 200 times a second.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

#if defined(__x86_64__)
#include <cpuid.h>
#else
#include <sys/auxv.h>
#endif

#include "wasm/engine_priv.h"
#include "wasm/trap_text.h"

/* Winch exists for these only; asking for it elsewhere would abort. */
#if defined(__x86_64__)
#define HAVE_FAST_TIER 1
#else
#define HAVE_FAST_TIER 0
#endif

/* Bumped whenever configure() changes in a way that the sizes below do not show. */
#define SETTINGS_VERSION 1
/* Guest frames live on the thread's own stack, host functions included; threads that run guests need 2 MiB or more. */
static const size_t GUEST_STACK = (size_t)1024 * 1024;
/* Address space for each VM, not memory: all that 32 bits can address, and a guard behind it for constant offsets, so
 * that compiled code needs no bounds checks and memory never moves. Thousands fit into 47 bits. */
static const uint64_t MEMORY_RESERVATION = (uint64_t)4 << 30;
static const uint64_t MEMORY_GUARD = (uint64_t)32 << 20;

static wasm_config_t *configure(enum compile_tier tier)
{
    wasm_config_t *config = wasm_config_new();
    wasmtime_config_strategy_set(config, tier == TIER_FAST ? WASMTIME_STRATEGY_WINCH : WASMTIME_STRATEGY_CRANELIFT);
    wasmtime_config_cranelift_opt_level_set(config, WASMTIME_OPT_LEVEL_SPEED);
    wasmtime_config_epoch_interruption_set(config, true);
    wasmtime_config_max_wasm_stack_set(config, GUEST_STACK);
    wasmtime_config_memory_reservation_set(config, MEMORY_RESERVATION);
    wasmtime_config_memory_guard_size_set(config, MEMORY_GUARD);
    wasmtime_config_memory_may_move_set(config, false);
    wasmtime_config_memory_init_cow_set(config, true);
    /* Only debuggers and unwinding panics would need it, and the engine is built to abort on panics. */
    wasmtime_config_native_unwind_info_set(config, false);
    /* What no Proxy-Wasm toolchain emits stays out. One memory: the cap of the store limiter counts each memory on its
     * own. */
    wasmtime_config_wasm_memory64_set(config, false);
    wasmtime_config_wasm_multi_memory_set(config, false);
    wasmtime_config_shared_memory_set(config, false);
    wasmtime_config_wasm_custom_page_sizes_set(config, false);
    wasmtime_config_wasm_wide_arithmetic_set(config, false);
    wasmtime_config_wasm_stack_switching_set(config, false);
    wasmtime_config_gc_support_set(config, false);
    return config;
}

/* ---- the ticker ---- */

static void tick(struct engine *engine)
{
    for (int tier = 0; tier < TIER_COUNT; tier++)
        if (engine->tiers[tier] != NULL)
            wasmtime_engine_increment_epoch(engine->tiers[tier]);
}

static void park(struct engine *engine)
{
    int expected = TICKER_QUIET;
    if (!atomic_compare_exchange_strong(&engine->ticker_state, &expected, TICKER_PARKED))
        return;
    /* Pairs with engine_hold: one of the two sees the other. */
    if (atomic_load(&engine->held) != 0) {
        engine_rouse(engine);
        return;
    }
    atomic_thread_fence(memory_order_release);
    tick(engine);
    pthread_mutex_lock(&engine->mutex);
    while (atomic_load(&engine->ticker_state) == TICKER_PARKED && !atomic_load(&engine->stop))
        pthread_cond_wait(&engine->wake, &engine->mutex);
    pthread_mutex_unlock(&engine->mutex);
}

static void *ticker_main(void *arg)
{
    struct engine *engine = arg;
    const struct timespec period = {.tv_nsec = TICK_MS * 1000000L};
    int quiet = 0;
    while (!atomic_load(&engine->stop)) {
        struct timespec rest = period;
        while (nanosleep(&rest, &rest) != 0 && errno == EINTR)
            ;
        tick(engine);
        int expected = TICKER_ACTIVE;
        if (atomic_compare_exchange_strong(&engine->ticker_state, &expected, TICKER_QUIET)) {
            quiet = 0;
        } else if (++quiet >= TICKS_UNTIL_PARKED) {
            quiet = 0;
            park(engine);
        }
    }
    return NULL;
}

void engine_rouse(struct engine *engine)
{
    int expected = TICKER_QUIET;
    if (atomic_compare_exchange_strong(&engine->ticker_state, &expected, TICKER_ACTIVE) || expected == TICKER_ACTIVE)
        return;
    pthread_mutex_lock(&engine->mutex);
    atomic_store(&engine->ticker_state, TICKER_ACTIVE);
    pthread_cond_signal(&engine->wake);
    pthread_mutex_unlock(&engine->mutex);
}

void engine_hold(struct engine *engine)
{
    atomic_fetch_add(&engine->held, 1);
    if (atomic_load(&engine->ticker_state) == TICKER_PARKED)
        engine_rouse(engine);
}

void engine_release(struct engine *engine) { atomic_fetch_sub(&engine->held, 1); }

/* ---- fingerprint ---- */

static uint64_t mix(uint64_t hash, uint64_t value)
{
    for (int i = 0; i < 8; i++, value >>= 8)
        hash = (hash ^ (value & 0xff)) * 0x100000001b3u; /* FNV-1a */
    return hash;
}

/* The feature words that Cranelift looks at, and more; none of them differs from one core to the next. */
static uint64_t cpu_features(void)
{
    uint64_t hash = 0xcbf29ce484222325u;
#if defined(__x86_64__)
    unsigned a, b, c, d;
    if (__get_cpuid(1, &a, &b, &c, &d) != 0)
        hash = mix(mix(hash, c), d);
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d) != 0)
        hash = mix(mix(mix(hash, b), c), d);
    if (__get_cpuid(0x80000001, &a, &b, &c, &d) != 0)
        hash = mix(mix(hash, c), d);
#else
    hash = mix(mix(hash, getauxval(AT_HWCAP)), getauxval(AT_HWCAP2));
#endif
    return hash;
}

static const char *architecture(void)
{
#if defined(__x86_64__)
    return "x86_64";
#elif defined(__aarch64__)
    return "aarch64";
#else
    return "other";
#endif
}

/* ---- engine ---- */

/* Signals are for the threads that have an event loop. */
static void start_ticker(struct engine *engine)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&engine->ticker, NULL, ticker_main, engine);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    ASSERT(failed == 0);
#if defined(__linux__)
    pthread_setname_np(engine->ticker, "weir-ticker");
#endif
}

struct engine *engine_new(void)
{
    /* Wasmtime looks once, when the configuration is made. */
    setenv("WASMTIME_BACKTRACE_DETAILS", "1", 1);
    struct engine *engine = aligned_alloc(_Alignof(struct engine), sizeof(*engine));
    ASSERT(engine != NULL);
    memset(engine, 0, sizeof(*engine));
    for (int tier = 0; tier < TIER_COUNT; tier++)
        if (tier != TIER_FAST || HAVE_FAST_TIER)
            engine->tiers[tier] = wasm_engine_new_with_config(configure((enum compile_tier)tier));
    engine->fingerprint =
        mem_printf("wasmtime-" WASMTIME_VERSION " settings-%d stack-%zu reserve-%llu guard-%llu %s-%016llx",
                   SETTINGS_VERSION, GUEST_STACK, (unsigned long long)MEMORY_RESERVATION,
                   (unsigned long long)MEMORY_GUARD, architecture(), (unsigned long long)cpu_features());
    atomic_init(&engine->stop, false);
    atomic_init(&engine->ticker_state, TICKER_QUIET);
    atomic_init(&engine->held, 0);
    pthread_mutex_init(&engine->mutex, NULL);
    pthread_cond_init(&engine->wake, NULL);
    start_ticker(engine);
    return engine;
}

void engine_free(struct engine *engine)
{
    ASSERT(atomic_load(&engine->held) == 0);
    pthread_mutex_lock(&engine->mutex);
    atomic_store(&engine->stop, true);
    pthread_cond_signal(&engine->wake);
    pthread_mutex_unlock(&engine->mutex);
    pthread_join(engine->ticker, NULL);
    pthread_cond_destroy(&engine->wake);
    pthread_mutex_destroy(&engine->mutex);
    for (int tier = 0; tier < TIER_COUNT; tier++)
        if (engine->tiers[tier] != NULL)
            wasm_engine_delete(engine->tiers[tier]);
    mem_free(engine->fingerprint);
    free(engine);
}

const char *engine_fingerprint(const struct engine *engine) { return engine->fingerprint; }

char *engine_error_take(wasmtime_error_t *error)
{
    wasm_name_t message;
    wasmtime_error_message(error, &message);
    char *text = mem_strndup(message.data, message.size);
    wasm_name_delete(&message);
    wasmtime_error_delete(error);
    return text;
}

char *engine_error_line(wasmtime_error_t *error)
{
    char *text = engine_error_take(error);
    struct strbuf line = {0};
    trap_text_line(&line, str_of(text));
    mem_free(text);
    return strbuf_take(&line);
}

bool engine_compile(struct engine *engine, struct str wasm, enum compile_tier tier, struct strbuf *out, char **error)
{
    if (engine->tiers[tier] == NULL) {
        *error = mem_strdup("the fast compiler does not know this CPU architecture");
        return false;
    }
    wasmtime_module_t *module = NULL;
    wasmtime_error_t *failed = wasmtime_module_new(engine->tiers[tier], (const uint8_t *)wasm.p, wasm.n, &module);
    if (failed != NULL) {
        *error = engine_error_line(failed);
        return false;
    }
    wasm_byte_vec_t bytes;
    failed = wasmtime_module_serialize(module, &bytes);
    wasmtime_module_delete(module);
    if (failed != NULL) {
        *error = engine_error_line(failed);
        return false;
    }
    strbuf_add(out, str_span(bytes.data, bytes.size));
    wasm_byte_vec_delete(&bytes);
    return true;
}
