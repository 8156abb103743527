/* SPDX-License-Identifier: Apache-2.0
 *
 * See code.h. Everything that touches the disk (reading and writing megabytes, HMAC, fsync) is done on libuv's thread
 * pool; compiling in the compiler's child.
 *
 *   LOOK (thread pool: is it cached? else write the module for the child) -> COMPILE (child) -> SEAL (thread pool)
 */
#include "control/code.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "base/list.h"
#include "base/map.h"

static const char TIER[] = "optimised";

enum make_step { MAKE_LOOK, MAKE_COMPILE, MAKE_SEAL };

struct make {
    struct code_maker *owner;
    enum make_step step;
    struct list wants;
    char *key; /* in owner->makes */
    char sha256[65];
    bool fresh;
    char *bytes;
    size_t n;
    char *wasm_path, *made_path; /* temporary files */
    char *path, *error;          /* what came out */
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
    struct map makes; /* by sha256, and whether it must be fresh */
    unsigned working; /* on the thread pool */
    bool closing;
};

struct code_maker *code_maker_new(struct loop *loop, struct module_cache *cache, struct compiler *compiler)
{
    struct code_maker *m = mem_zalloc(sizeof *m);
    m->loop = loop;
    m->cache = cache;
    m->compiler = compiler;
    return m;
}

static void make_leave_table(struct make *k)
{
    if (map_get(&k->owner->makes, str_of(k->key)) == k)
        map_remove(&k->owner->makes, str_of(k->key));
}

static void make_free(struct make *k)
{
    if (k->wasm_path != NULL)
        unlink(k->wasm_path);
    make_leave_table(k);
    mem_free(k->key);
    mem_free(k->bytes);
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
    k->path = module_cache_seal(k->owner->cache, k->sha256, TIER, k->made_path, &k->error);
}

static void seal_done(uv_work_t *work, int status)
{
    struct make *k = work->data;
    (void)status;
    k->owner->working--;
    if (k->path != NULL)
        make_finish(k, &(struct code_result){.path = k->path});
    else
        make_fail(k, "CacheFailed", k->error, true);
}

/* ---- compile ---- */

static void compiled(void *arg, const char *error, bool again)
{
    struct make *k = arg;
    k->compile = NULL;
    if (error != NULL)
        make_fail(k, "CompileFailed", error, again);
    else
        make_queue(k, MAKE_SEAL, seal_work, seal_done);
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

static void look_work(uv_work_t *work)
{
    struct make *k = work->data;
    k->path = k->fresh ? NULL : module_cache_find(k->owner->cache, k->sha256, TIER);
    if (k->path != NULL)
        return;
    FILE *f = fopen(k->wasm_path, "wbx");
    bool ok = f != NULL && fwrite(k->bytes, 1, k->n, f) == k->n;
    int why = errno;
    if (f != NULL && fclose(f) != 0 && ok) {
        ok = false;
        why = errno;
    }
    if (!ok)
        k->error = mem_printf("cannot write to the cache directory: %s", strerror(why));
}

static void look_done(uv_work_t *work, int status)
{
    struct make *k = work->data;
    struct code_maker *m = k->owner;
    (void)status;
    m->working--;
    mem_free(k->bytes);
    k->bytes = NULL;
    if (k->path != NULL)
        make_finish(k, &(struct code_result){.path = k->path, .from_cache = true});
    else if (k->error != NULL)
        make_fail(k, "CacheFailed", k->error, true);
    else if (m->closing)
        make_free(k);
    else {
        make_room(m);
        k->step = MAKE_COMPILE;
        k->compile = compiler_run(m->compiler, k->wasm_path, k->made_path, TIER, compiled, k);
        LIST_EACH (node, &k->wants) {
            struct code_want *want = LIST_ENTRY(node, struct code_want, node);
            want->compiling(want->arg);
        }
    }
}

/* ---- wants ---- */

static struct make *make_new(struct code_maker *m, const char *key, const char *sha256, char *bytes, size_t n,
                             bool fresh)
{
    struct make *k = mem_zalloc(sizeof *k);
    k->owner = m;
    k->key = mem_strdup(key);
    memcpy(k->sha256, sha256, sizeof k->sha256);
    k->fresh = fresh;
    k->bytes = bytes;
    k->n = n;
    k->wasm_path = module_cache_temporary(m->cache, ".wasm");
    k->made_path = module_cache_temporary(m->cache, ".cwasm");
    list_init(&k->wants);
    map_set(&m->makes, str_of(key), k);
    make_queue(k, MAKE_LOOK, look_work, look_done);
    return k;
}

struct code_want *code_want(struct code_maker *m, const char *sha256, char *bytes, size_t n, bool fresh,
                            void (*compiling)(void *arg), code_done done, void *arg)
{
    char key[80];
    snprintf(key, sizeof key, "%s%s", sha256, fresh ? " fresh" : "");
    struct make *k = map_get(&m->makes, str_of(key));
    if (k == NULL)
        k = make_new(m, key, sha256, bytes, n, fresh);
    else
        mem_free(bytes);
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
