/* SPDX-License-Identifier: Apache-2.0
 *
 * Compiled code of modules: from the cache, or made by the compiler and put there. One make serves everybody who wants
 * the same module at that time, and goes on when they have left: who edits a plugin faster than its module compiles
 * finds the compile where it was. What nobody waits for gives its place to what somebody does.
 */
#ifndef WEIR_CONTROL_CODE_H
#define WEIR_CONTROL_CODE_H

#include "control/compiler.h"
#include "control/module_cache.h"

struct code_result {
    const char *path; /* borrowed; NULL when failed */
    bool from_cache;
    const char *reason, *error; /* borrowed; "CompileFailed" or "CacheFailed" and a text */
    bool again;                 /* another try may go better */
};
typedef void (*code_done)(void *arg, const struct code_result *result);

struct code_maker;
struct code_want;
struct code_maker *code_maker_new(struct loop *loop, struct module_cache *cache, struct compiler *compiler);
/* Takes bytes. sha256 is theirs. fresh: do not take it from the cache. compiling runs when it is not cached and the
 * compiler has it, maybe before this returns; done runs once, later, on the loop; the want is over then. */
struct code_want *code_want(struct code_maker *m, const char *sha256, char *bytes, size_t n, bool fresh,
                            void (*compiling)(void *arg), code_done done, void *arg);
/* done will not run. */
void code_unwant(struct code_want *want);
/* No want may be left. Runs the loop until the thread pool has given everything back. The compiler must still be
 * there. */
void code_maker_free(struct code_maker *m);

#endif
