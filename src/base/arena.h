/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory of one stream: allocated piece by piece, freed at once. What is no memory (a timer, a leg, a context
 * id) is registered with arena_defer and undone in reverse order when the arena ends, so that there is no
 * clean-up code to forget. Blocks are chunks of the worker's pool; larger pieces come from the system.
 * A ceiling bounds what a peer or a guest can make a long-lived stream hold.
 */
#ifndef WEIR_BASE_ARENA_H
#define WEIR_BASE_ARENA_H

#include "base/buf.h"

struct arena_big;
struct arena_deferred;
struct arena {
    struct chunk_pool *pool;
    struct chunk *blocks; /* linked by next_free */
    struct arena_big *big;
    struct arena_deferred *deferred;
    char *at, *end;
    size_t used, ceiling;
};

void arena_init(struct arena *a, struct chunk_pool *pool, size_t ceiling);
/* Runs the deferred calls (last first; what they defer runs too), then frees everything; a may be used again. */
void arena_fini(struct arena *a);
/* Our own, fixed-size needs: never NULL, may pass the ceiling. Aligned for any type. */
void *arena_alloc(struct arena *a, size_t n);
void *arena_zalloc(struct arena *a, size_t n);
/* Needs sized by a peer or a guest: NULL when it would pass the ceiling. Byte-aligned when n is odd. */
NODISCARD void *arena_try_alloc(struct arena *a, size_t n);
/* Copies; false at the ceiling. */
NODISCARD bool arena_try_str(struct arena *a, struct str s, struct str *out);
struct str arena_str(struct arena *a, struct str s);
struct str arena_printf(struct arena *a, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* fn(obj) runs in arena_fini. */
void arena_defer(struct arena *a, void (*fn)(void *obj), void *obj);

#endif
