/* SPDX-License-Identifier: Apache-2.0
 *
 * See code.h. Everything that touches the disk (reading and writing megabytes, HMAC, fsync) is done on libuv's thread
 * pool; compiling in the compiler's child.
 *
 *   LOOK (thread pool: is it cached, optimised or fast?) -> COMPILE (child) -> SEAL (thread pool; room is made)
 *
 * A module that the fast compiler refuses goes to the other one, and what that says counts.
 */
#include "control/code.h"

#include <stdio.h>
#include <unistd.h>

#include "base/list.h"
#include "base/log.h"
#include "base/map.h"

/* Measured on two cores: 0.36 to 0.96 s for each MB, see docs/operations.md. */
enum { COMPILE_MS_PER_MB = 750, COMPILE_LONG_MS = 500, COMPILE_FELT_MS = 150 };

enum make_step { MAKE_LOOK, MAKE_COMPILE, MAKE_SEAL };

struct make {
    struct code_maker *owner;
    enum make_step step;
    struct list wants;
    char *key; /* in owner->makes */
    char sha256[65];
    enum compile_tier tier;
    bool fresh, background;
    char *wasm_path, *made_path; /* made_path: a temporary file */
    int wasm_hold;
    char *path, *error; /* what came out */
    int hold;
    uv_work_t work;
    struct compile *compile;
};
struct code_want {
    struct list node;
    void (*compiling)(void *arg);
    code_done done;
    void *arg;
};
struct code_maker {
    struct loop *loop;
    struct module_cache *cache;
    struct compiler *compiler;
    enum tier_policy policy;
    struct map makes; /* by sha256, tier, and whether it must be fresh */
    unsigned working; /* on the thread pool */
    bool closing;
};

/* ---- tiers ---- */

const char *tier_name(enum compile_tier t) { return t == TIER_FAST ? "fast" : "optimised"; }

bool tier_policy_parse(const char *text, enum tier_policy *out)
{
    static const char *const names[] = {"auto", "optimised", "fast"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (strcmp(text, names[i]) == 0) {
            *out = (enum tier_policy)i;
            return true;
        }
    return false;
}

static bool fast_tier_exists(void)
{
#if defined(__x86_64__)
    return true;
#else
    return false;
#endif
}

static enum compile_tier tier_for(const struct code_maker *m, const struct code_ask *ask)
{
    uint64_t ms = (uint64_t)ask->n * COMPILE_MS_PER_MB / 1000000;
    if (!fast_tier_exists() || m->policy == TIERS_OPTIMISED || ask->background)
        return TIER_OPTIMISED;
    if (m->policy == TIERS_FAST)
        return TIER_FAST;
    return ms > COMPILE_LONG_MS || (ask->waiting && ms > COMPILE_FELT_MS) ? TIER_FAST : TIER_OPTIMISED;
}

bool code_wants_better(const struct code_maker *m, enum compile_tier tier)
{
    return tier == TIER_FAST && m->policy == TIERS_AUTO;
}

struct code_maker *code_maker_new(struct loop *loop, struct module_cache *cache, struct compiler *compiler,
                                  enum tier_policy policy)
{
    struct code_maker *m = mem_zalloc(sizeof *m);
    m->loop = loop;
    m->cache = cache;
    m->compiler = compiler;
    m->policy = policy;
    return m;
}

static void make_leave_table(struct make *k)
{
    if (map_get(&k->owner->makes, str_of(k->key)) == k)
        map_remove(&k->owner->makes, str_of(k->key));
}

static void make_free(struct make *k)
{
    make_leave_table(k);
    module_cache_release(&k->wasm_hold);
    module_cache_release(&k->hold);
    mem_free(k->key);
    mem_free(k->wasm_path);
    mem_free(k->made_path);
    mem_free(k->path);
    mem_free(k->error);
    mem_free(k);
}

static void make_finish(struct make *k, const struct code_result *result)
{
    /* Off the table first: who is told may want it again. */
    make_leave_table(k);
    while (!list_is_empty(&k->wants)) {
        struct code_want *want = LIST_ENTRY(k->wants.next, struct code_want, node);
        code_done done = want->done;
        void *arg = want->arg;
        list_remove(&want->node);
        mem_free(want);
        done(arg, result);
    }
    make_free(k);
}

static void make_fail(struct make *k, const char *reason, const char *error, bool again)
{
    make_finish(k, &(struct code_result){.reason = reason, .error = error, .again = again});
}

static void make_queue(struct make *k, enum make_step step, uv_work_cb work, uv_after_work_cb done)
{
    k->step = step;
    k->work.data = k;
    k->owner->working++;
    ASSERT(uv_queue_work(&k->owner->loop->uv, &k->work, work, done) == 0);
}

/* ---- seal ---- */

static void seal_work(uv_work_t *work)
{
    struct make *k = work->data;
    k->path = module_cache_seal(k->owner->cache, k->sha256, tier_name(k->tier), k->made_path, &k->hold, &k->error);
    if (k->path != NULL)
        module_cache_trim(k->owner->cache);
}

static void seal_done(uv_work_t *work, int status)
{
    struct make *k = work->data;
    (void)status;
    k->owner->working--;
    if (k->path != NULL)
        make_finish(k, &(struct code_result){.path = k->path, .tier = k->tier, .hold = k->hold});
    else
        make_fail(k, "CacheFailed", k->error, true);
}

/* ---- compile ---- */

static void make_compile(struct make *k);

static void compiled(void *arg, const char *error, bool again)
{
    struct make *k = arg;
    k->compile = NULL;
    if (error == NULL) {
        make_queue(k, MAKE_SEAL, seal_work, seal_done);
    } else if (k->tier == TIER_FAST && !again) {
        log_line(LOG_DEBUG, "module %s: the fast compiler does not take it (%s)", k->sha256, error);
        k->tier = TIER_OPTIMISED;
        make_compile(k);
    } else {
        make_fail(k, "CompileFailed", error, again);
    }
}

static void make_compile(struct make *k)
{
    k->step = MAKE_COMPILE;
    k->compile =
        compiler_run(k->owner->compiler, k->wasm_path, k->made_path, tier_name(k->tier), k->background, compiled, k);
}

static bool is_orphan(const struct make *k) { return k->step == MAKE_COMPILE && list_is_empty(&k->wants); }

/* Compiles that nobody waits for any more leave when the places are taken. */
static void make_room(struct code_maker *m)
{
    while (compiler_is_full(m->compiler)) {
        struct make *orphan = NULL;
        MAP_EACH (e, &m->makes)
            if (orphan == NULL && is_orphan(e->value))
                orphan = e->value;
        if (orphan == NULL)
            return;
        compiler_cancel(orphan->compile);
        make_free(orphan);
    }
}

/* ---- look ---- */

/* Optimised code is taken whatever was asked for. */
static void look_work(uv_work_t *work)
{
    struct make *k = work->data;
    enum compile_tier asked = k->tier;
    if (k->fresh)
        return;
    k->tier = TIER_OPTIMISED;
    k->path = module_cache_find(k->owner->cache, k->sha256, tier_name(k->tier), &k->hold);
    if (k->path != NULL || asked == TIER_OPTIMISED)
        return;
    k->tier = asked;
    k->path = module_cache_find(k->owner->cache, k->sha256, tier_name(k->tier), &k->hold);
}

static void look_done(uv_work_t *work, int status)
{
    struct make *k = work->data;
    struct code_maker *m = k->owner;
    (void)status;
    m->working--;
    if (k->path != NULL)
        make_finish(k, &(struct code_result){.path = k->path, .tier = k->tier, .hold = k->hold, .from_cache = true});
    else if (m->closing)
        make_free(k);
    else {
        if (!k->background)
            make_room(m);
        make_compile(k);
        LIST_EACH (node, &k->wants) {
            struct code_want *want = LIST_ENTRY(node, struct code_want, node);
            want->compiling(want->arg);
        }
    }
}

/* ---- wants ---- */

static struct make *make_new(struct code_maker *m, const char *key, const struct code_ask *ask, enum compile_tier tier)
{
    struct make *k = mem_zalloc(sizeof *k);
    k->owner = m;
    k->key = mem_strdup(key);
    snprintf(k->sha256, sizeof k->sha256, "%s", ask->sha256);
    k->tier = tier;
    k->fresh = ask->fresh;
    k->background = ask->background;
    k->wasm_path = mem_strdup(ask->wasm_path);
    k->wasm_hold = module_cache_hold_again(ask->hold);
    k->made_path = module_cache_temporary(m->cache, ".cwasm");
    k->hold = -1;
    list_init(&k->wants);
    map_set(&m->makes, str_of(key), k);
    make_queue(k, MAKE_LOOK, look_work, look_done);
    return k;
}

/* Somebody waits for what was a matter of the background. */
static void make_hurry(struct make *k)
{
    k->background = false;
    if (k->step == MAKE_COMPILE)
        compiler_hurry(k->compile);
}

struct code_want *code_want(struct code_maker *m, const struct code_ask *ask, void (*compiling)(void *arg),
                            code_done done, void *arg)
{
    enum compile_tier tier = tier_for(m, ask);
    char key[96];
    snprintf(key, sizeof key, "%s %s%s", ask->sha256, tier_name(tier), ask->fresh ? " fresh" : "");
    struct make *k = map_get(&m->makes, str_of(key));
    if (k == NULL)
        k = make_new(m, key, ask, tier);
    else if (k->background && !ask->background)
        make_hurry(k);
    struct code_want *want = mem_zalloc(sizeof *want);
    want->compiling = compiling;
    want->done = done;
    want->arg = arg;
    list_init(&want->node);
    list_push_back(&k->wants, &want->node);
    if (k->step != MAKE_LOOK)
        compiling(arg);
    return want;
}

void code_unwant(struct code_want *want)
{
    list_remove(&want->node);
    mem_free(want);
}

static struct make *some_compile(const struct code_maker *m)
{
    MAP_EACH (e, &m->makes)
        if (((struct make *)e->value)->step == MAKE_COMPILE)
            return e->value;
    return NULL;
}

void code_maker_free(struct code_maker *m)
{
    m->closing = true;
    for (struct make *k = some_compile(m); k != NULL; k = some_compile(m)) {
        compiler_cancel(k->compile);
        make_free(k);
    }
    while (m->working > 0)
        uv_run(&m->loop->uv, UV_RUN_ONCE);
    ASSERT(m->makes.count == 0);
    map_free(&m->makes);
    mem_free(m);
}
