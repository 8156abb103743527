/* SPDX-License-Identifier: Apache-2.0
 *
 * Compiled code of modules: from the cache, or made by the compiler and put there. One make serves everybody who wants
 * the same module at that time, and goes on when they have left: who edits a plugin faster than its module compiles
 * finds the compile where it was. What nobody waits for gives its place to what somebody does.
 *
 * There are two tiers. The optimising compiler takes about 0.7 s for each MB of a module, the fast one a quarter to a third
 * of it; its code runs slower. So the fast one is asked for only where waiting hurts, and who got fast code asks for
 * the optimised one later, in the background.
 */
#ifndef WEIR_CONTROL_CODE_H
#define WEIR_CONTROL_CODE_H

#include "control/compiler.h"
#include "control/module_cache.h"
#include "wasm/vm.h"

/* --compile-tier. */
enum tier_policy {
    TIERS_AUTO,      /* as said above */
    TIERS_OPTIMISED, /* never the fast one */
    TIERS_FAST,      /* always the fast one, where it takes the module; no second compile */
};
bool tier_policy_parse(const char *text, enum tier_policy *out);
const char *tier_name(enum compile_tier t); /* "fast", "optimised": in status, and for `compile-module` */

struct code_ask {
    const char *sha256;     /* of the module */
    const char *wasm_path;  /* its bytes, in the cache; copied */
    int hold;               /* of the bytes; -1: none. Held once more as long as the compile needs them */
    size_t n;               /* how many */
    bool fresh;             /* do not take it from the cache */
    bool waiting;           /* nothing serves meanwhile */
    bool background;        /* the optimised code, when nobody else needs the compiler */
};
struct code_result {
    const char *path; /* borrowed; NULL when failed */
    enum compile_tier tier;
    int hold; /* of the code; borrowed: module_cache_hold_again */
    bool from_cache;
    const char *reason, *error; /* borrowed; "CompileFailed" or "CacheFailed" and a text */
    bool again;                 /* another try may go better */
};
typedef void (*code_done)(void *arg, const struct code_result *result);

struct code_maker;
struct code_want;
struct code_maker *code_maker_new(struct loop *loop, struct module_cache *cache, struct compiler *compiler,
                                  enum tier_policy policy);
/* compiling runs when it is not cached and the compiler has it, maybe before this returns; done runs once, later, on the
 * loop; the want is over then. Code of either tier may come, optimised code always when it is asked for in the
 * background. */
struct code_want *code_want(struct code_maker *m, const struct code_ask *ask, void (*compiling)(void *arg),
                            code_done done, void *arg);
/* done will not run. */
void code_unwant(struct code_want *want);
/* Is code of this tier worth a second compile in the background? */
bool code_wants_better(const struct code_maker *m, enum compile_tier tier);
/* No want may be left. Runs the loop until the thread pool has given everything back. The compiler must still be
 * there. */
void code_maker_free(struct code_maker *m);

#endif
