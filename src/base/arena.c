/* SPDX-License-Identifier: Apache-2.0
 *
 * The arena of a stream: bumps a pointer through chunks of the worker's pool, so that the usual stream costs one
 * chunk from a free list and no malloc. Pieces that would waste a good part of a chunk come from the system and are
 * charged to the process's budget. What counts against the ceiling is what was asked for, rounded by alignment. It
 * must never let a piece that a peer or a guest sized pass the ceiling, and never touch memory before first use.
 */
#include "base/arena.h"

#include <stdalign.h>
#include <stdio.h>

#include "base/budget.h"

/* Larger pieces get a block of their own: at most this much of a chunk is lost at its end. */
enum { ARENA_BIG = CHUNK_SIZE / 4, ARENA_ALIGN = alignof(max_align_t) };

struct arena_big {
    struct arena_big *next;
    size_t size;
    alignas(max_align_t) char data[];
};

struct arena_deferred {
    struct arena_deferred *next;
    void (*fn)(void *obj);
    void *obj;
};

void arena_init(struct arena *a, struct chunk_pool *pool, size_t ceiling)
{
    *a = (struct arena){.pool = pool, .ceiling = ceiling};
}

static void *alloc_big(struct arena *a, size_t n)
{
    ASSERT(n <= SIZE_MAX - sizeof(struct arena_big));
    size_t size = sizeof(struct arena_big) + n;
    budget_charge(size);
    struct arena_big *big = mem_alloc(size);
    big->next = a->big;
    big->size = size;
    a->big = big;
    a->used += n;
    return big->data;
}

static void add_block(struct arena *a)
{
    struct chunk *c = chunk_get(a->pool);
    c->next_free = a->blocks;
    a->blocks = c;
    a->at = c->data;
    a->end = c->data + CHUNK_SIZE;
}

static void *alloc_aligned(struct arena *a, size_t n, size_t align)
{
    if (n > ARENA_BIG)
        return alloc_big(a, n);
    size_t pad = (size_t)(-(uintptr_t)a->at & (align - 1));
    if (pad + n > (size_t)(a->end - a->at)) {
        add_block(a);
        pad = (size_t)(-(uintptr_t)a->at & (align - 1));
    }
    char *p = a->at + pad;
    a->at = p + n;
    a->used += pad + n;
    return p;
}

void *arena_alloc(struct arena *a, size_t n) { return alloc_aligned(a, n != 0 ? n : 1, ARENA_ALIGN); }

void *arena_zalloc(struct arena *a, size_t n)
{
    void *p = arena_alloc(a, n);
    memset(p, 0, n);
    return p;
}

static bool may_hold(const struct arena *a, size_t n) { return a->used <= a->ceiling && n <= a->ceiling - a->used; }

void *arena_try_alloc(struct arena *a, size_t n)
{
    if (!may_hold(a, n))
        return NULL;
    if (n == 0)
        n = 1;
    /* The largest power of two that divides n is enough for any array of n bytes. */
    size_t align = n & (~n + 1);
    return alloc_aligned(a, n, align < ARENA_ALIGN ? align : ARENA_ALIGN);
}

static struct str copy_str(struct arena *a, struct str s)
{
    if (s.n == 0)
        return (struct str){s.p != NULL ? "" : NULL, 0};
    char *p = alloc_aligned(a, s.n, 1);
    memcpy(p, s.p, s.n);
    return (struct str){p, s.n};
}

bool arena_try_str(struct arena *a, struct str s, struct str *out)
{
    if (!may_hold(a, s.n))
        return false;
    *out = copy_str(a, s);
    return true;
}

struct str arena_str(struct arena *a, struct str s) { return copy_str(a, s); }

struct str arena_printf(struct arena *a, const char *fmt, ...)
{
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    ASSERT(n >= 0);
    char *p = alloc_aligned(a, (size_t)n + 1, 1);
    (void)vsnprintf(p, (size_t)n + 1, fmt, again);
    va_end(again);
    return (struct str){p, (size_t)n};
}

void arena_defer(struct arena *a, void (*fn)(void *obj), void *obj)
{
    struct arena_deferred *d = arena_alloc(a, sizeof(*d));
    *d = (struct arena_deferred){.next = a->deferred, .fn = fn, .obj = obj};
    a->deferred = d;
}

void arena_fini(struct arena *a)
{
    while (a->deferred != NULL) {
        struct arena_deferred *d = a->deferred;
        a->deferred = d->next;
        d->fn(d->obj);
    }
    while (a->big != NULL) {
        struct arena_big *big = a->big;
        a->big = big->next;
        budget_release(big->size);
        mem_free(big);
    }
    while (a->blocks != NULL) {
        struct chunk *c = a->blocks;
        a->blocks = c->next_free;
        chunk_unref(c);
    }
    arena_init(a, a->pool, a->ceiling);
}
