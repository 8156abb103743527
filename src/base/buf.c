/* SPDX-License-Identifier: Apache-2.0
 *
 * Chunk pools and the slice queue. What makes it hard is sharing: several slices, of several buffers, may lie in one
 * chunk, and bytes that somebody can see must never change. The one rule that keeps this true: a byte of a chunk is
 * written once, at data[used], by whoever moves `used` past it. Slices therefore grow only at the end of what the
 * chunk has used, and everything else is a new reference. Only the last slice of a buf may be empty (a reservation
 * that has not been committed).
 */
#include "base/buf.h"

#include "base/budget.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define BUF_ASAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define BUF_ASAN 1
#endif
#ifdef BUF_ASAN
#include <sanitizer/asan_interface.h>
#define CHUNK_POISON(c)   ASAN_POISON_MEMORY_REGION((c)->data, CHUNK_SIZE)
#define CHUNK_UNPOISON(c) ASAN_UNPOISON_MEMORY_REGION((c)->data, CHUNK_SIZE)
#else
#define CHUNK_POISON(c)   ((void)(c))
#define CHUNK_UNPOISON(c) ((void)(c))
#endif

enum {
    BUF_SMALL = 512,       /* a piece below it may be copied to keep slices few */
    BUF_INLINE_SLICES = 4, /* ARRAY_LEN(inline_slices) */
    BUF_RING_KEPT = 64,    /* an emptied buf gives a larger ring back */
};

/* ---- chunks ---- */

struct chunk_pool {
    struct chunk *free;
    size_t free_count, keep;
    size_t out; /* chunks somebody holds */
};

struct chunk_pool *chunk_pool_new(size_t keep)
{
    struct chunk_pool *pool = mem_zalloc(sizeof(*pool));
    pool->keep = keep;
    return pool;
}

void chunk_pool_free(struct chunk_pool *pool)
{
    ASSERT(pool->out == 0);
    chunk_pool_trim(pool, 0);
    mem_free(pool);
}

static void chunk_release(struct chunk *c)
{
    budget_release(sizeof(*c) + CHUNK_SIZE);
    CHUNK_UNPOISON(c);
    mem_free(c);
}

void chunk_pool_trim(struct chunk_pool *pool, size_t n)
{
    while (pool->free_count > n) {
        struct chunk *c = pool->free;
        pool->free = c->next_free;
        pool->free_count--;
        chunk_release(c);
    }
}

struct chunk *chunk_get(struct chunk_pool *pool)
{
    struct chunk *c = pool->free;
    if (c != NULL) {
        pool->free = c->next_free;
        pool->free_count--;
        CHUNK_UNPOISON(c);
    } else {
        budget_charge(sizeof(*c) + CHUNK_SIZE);
        c = mem_alloc(sizeof(*c) + CHUNK_SIZE);
        c->pool = pool;
    }
    pool->out++;
    c->next_free = NULL;
    c->refs = 1;
    c->used = 0;
    return c;
}

void chunk_ref(struct chunk *c)
{
    ASSERT(c->refs != 0 && c->refs != UINT32_MAX);
    c->refs++;
}

void chunk_unref(struct chunk *c)
{
    ASSERT(c->refs != 0);
    if (--c->refs != 0)
        return;
    struct chunk_pool *pool = c->pool;
    pool->out--;
    if (pool->free_count >= pool->keep) {
        chunk_release(c);
        return;
    }
    CHUNK_POISON(c);
    c->next_free = pool->free;
    pool->free = c;
    pool->free_count++;
}

/* ---- the ring of slices ---- */

static struct slice *slice_at(const struct buf *b, uint32_t i) { return &b->slices[(b->first + i) & (b->cap - 1)]; }

static struct slice *slice_last(const struct buf *b) { return b->count != 0 ? slice_at(b, b->count - 1) : NULL; }

static void ring_make_room(struct buf *b)
{
    if (b->count < b->cap)
        return;
    ASSERT(b->cap <= UINT32_MAX / 2);
    struct slice *grown = mem_alloc((size_t)b->cap * 2 * sizeof(*grown));
    for (uint32_t i = 0; i < b->count; i++)
        grown[i] = *slice_at(b, i);
    if (b->slices != b->inline_slices)
        mem_free(b->slices);
    b->slices = grown;
    b->first = 0;
    b->cap *= 2;
}

/* Takes the reference that s holds. */
static void push_back(struct buf *b, struct slice s)
{
    ring_make_room(b);
    b->count++;
    *slice_at(b, b->count - 1) = s;
    b->n += s.n;
}

static void push_front(struct buf *b, struct slice s)
{
    ring_make_room(b);
    b->first = (b->first - 1) & (b->cap - 1);
    b->count++;
    *slice_at(b, 0) = s;
    b->n += s.n;
}

/* Removes the first slice; its reference goes to the caller. */
static struct slice pop_front(struct buf *b)
{
    struct slice s = *slice_at(b, 0);
    b->first = (b->first + 1) & (b->cap - 1);
    b->count--;
    b->n -= s.n;
    return s;
}

/* A reservation that was not committed must not end up in the middle. */
static void drop_empty_tail(struct buf *b)
{
    struct slice *last = slice_last(b);
    if (last != NULL && last->n == 0) {
        b->count--;
        chunk_unref(last->chunk);
    }
}

static uint32_t chunk_room(const struct chunk *c) { return CHUNK_SIZE - c->used; }

/* May s grow in place? Only when nobody wrote behind it. */
static bool is_newest(const struct slice *s) { return s->p + s->n == s->chunk->data + s->chunk->used; }

/* ---- life ---- */

void buf_init(struct buf *b, struct chunk_pool *pool)
{
    b->pool = pool;
    b->slices = b->inline_slices;
    b->first = b->count = 0;
    b->cap = BUF_INLINE_SLICES;
    b->n = 0;
}

static void ring_shrink(struct buf *b, uint32_t kept)
{
    if (b->cap <= kept || b->slices == b->inline_slices)
        return;
    mem_free(b->slices);
    buf_init(b, b->pool);
}

static void drop_all(struct buf *b)
{
    while (b->count != 0)
        chunk_unref(pop_front(b).chunk);
    b->first = 0;
}

void buf_clear(struct buf *b)
{
    drop_all(b);
    ring_shrink(b, BUF_RING_KEPT);
}

void buf_fini(struct buf *b)
{
    drop_all(b);
    ring_shrink(b, BUF_INLINE_SLICES);
}

/* ---- growing ---- */

/* Makes the last slice one that may grow by at least min bytes; returns how many it may grow by. */
static uint32_t grow_tail(struct buf *b, uint32_t min)
{
    struct slice *last = slice_last(b);
    if (last != NULL && chunk_room(last->chunk) >= min) {
        struct chunk *c = last->chunk;
        if (!is_newest(last)) {
            chunk_ref(c);
            drop_empty_tail(b);
            push_back(b, (struct slice){c, c->data + c->used, 0});
        }
        return chunk_room(c);
    }
    drop_empty_tail(b);
    struct chunk *c = chunk_get(b->pool);
    push_back(b, (struct slice){c, c->data, 0});
    return CHUNK_SIZE;
}

static void commit_tail(struct buf *b, uint32_t n)
{
    struct slice *last = slice_last(b);
    last->n += n;
    last->chunk->used += n;
    b->n += n;
}

void buf_append(struct buf *b, struct str s)
{
    while (s.n != 0) {
        uint32_t room = grow_tail(b, 1);
        uint32_t n = s.n < room ? (uint32_t)s.n : room;
        struct slice *last = slice_last(b);
        memcpy(last->p + last->n, s.p, n);
        commit_tail(b, n);
        s = str_from(s, n);
    }
}

char *buf_reserve(struct buf *b, size_t min, size_t *room)
{
    ASSERT(min <= CHUNK_SIZE);
    *room = grow_tail(b, min != 0 ? (uint32_t)min : 1);
    struct slice *last = slice_last(b);
    return last->p + last->n;
}

void buf_commit(struct buf *b, size_t n)
{
    struct slice *last = slice_last(b);
    if (n != 0) {
        ASSERT(last != NULL && is_newest(last) && n <= chunk_room(last->chunk));
        commit_tail(b, (uint32_t)n);
    }
    drop_empty_tail(b);
}

/* Appends a slice, taking its reference; joins it to the last one where the two touch. */
static void append_owned(struct buf *b, struct slice s)
{
    drop_empty_tail(b);
    struct slice *last = slice_last(b);
    if (last != NULL && last->chunk == s.chunk && last->p + last->n == s.p) {
        last->n += s.n;
        b->n += s.n;
        chunk_unref(s.chunk);
        return;
    }
    push_back(b, s);
}

void buf_append_slice(struct buf *b, struct chunk *c, struct str s)
{
    if (s.n == 0)
        return;
    ASSERT(s.p >= c->data && s.n <= CHUNK_SIZE && (size_t)(s.p - c->data) <= CHUNK_SIZE - s.n);
    /* Where it lies beyond what the chunk counts as used (the caller wrote it there), nobody may write there again. */
    uint32_t end = (uint32_t)(s.p - c->data) + (uint32_t)s.n;
    if (c->used < end)
        c->used = end;
    chunk_ref(c);
    append_owned(b, (struct slice){c, c->data + (s.p - c->data), (uint32_t)s.n});
}

/* Is it better to copy n bytes to the end of b than to add a slice for them? */
static bool better_copied(const struct buf *b, const struct slice *s)
{
    const struct slice *last = slice_last(b);
    if (s->n >= BUF_SMALL || last == NULL || last->n == 0)
        return false;
    if (last->chunk == s->chunk && last->p + last->n == s->p)
        return false; /* they touch: joining is free */
    if (is_newest(last))
        return chunk_room(last->chunk) >= s->n;
    /* Two small neighbours: begin a chunk of our own, in which the following ones gather. Without this a peer that
     * sends single bytes makes us hold a slice and a piece of a chunk for each. */
    return last->n < BUF_SMALL;
}

static void append_copied(struct buf *b, const struct slice *s)
{
    if (!is_newest(slice_last(b)) || chunk_room(slice_last(b)->chunk) < s->n) {
        struct chunk *c = chunk_get(b->pool);
        push_back(b, (struct slice){c, c->data, 0});
    }
    struct slice *last = slice_last(b);
    memcpy(last->p + last->n, s->p, s->n);
    commit_tail(b, s->n);
}

void buf_move(struct buf *dst, struct buf *src, size_t n)
{
    ASSERT(dst != src && dst->pool == src->pool && n <= src->n);
    while (n != 0) {
        struct slice s = *slice_at(src, 0);
        bool whole = s.n <= n;
        if (!whole)
            s.n = (uint32_t)n;
        n -= s.n;
        if (better_copied(dst, &s)) {
            append_copied(dst, &s);
            buf_consume(src, s.n);
        } else if (whole) {
            append_owned(dst, pop_front(src));
        } else {
            chunk_ref(s.chunk);
            append_owned(dst, s);
            buf_consume(src, s.n);
        }
    }
    if (src->n == 0)
        buf_clear(src);
}

void buf_share(struct buf *dst, const struct buf *src)
{
    ASSERT(dst != src && dst->pool == src->pool);
    for (uint32_t i = 0; i < src->count; i++) {
        const struct slice *s = slice_at(src, i);
        if (s->n < BUF_SMALL)
            buf_append(dst, str_span(s->p, s->n));
        else
            buf_append_slice(dst, s->chunk, str_span(s->p, s->n));
    }
}

void buf_prepend(struct buf *dst, struct buf *src)
{
    ASSERT(dst != src && dst->pool == src->pool);
    drop_empty_tail(src);
    if (dst->n == 0)
        drop_empty_tail(dst);
    for (uint32_t i = src->count; i-- > 0;)
        push_front(dst, *slice_at(src, i));
    src->count = 0;
    src->n = 0;
    buf_clear(src);
}

/* ---- shrinking, looking ---- */

void buf_consume(struct buf *b, size_t n)
{
    ASSERT(n <= b->n);
    while (n != 0) {
        struct slice *s = slice_at(b, 0);
        if (s->n > n) {
            s->p += n;
            s->n -= (uint32_t)n;
            b->n -= n;
            return;
        }
        n -= s->n;
        chunk_unref(pop_front(b).chunk);
    }
    if (b->n == 0)
        buf_clear(b);
}

void buf_copy_out(const struct buf *b, size_t start, size_t n, void *out)
{
    ASSERT(start <= b->n && n <= b->n - start);
    char *to = out;
    for (uint32_t i = 0; n != 0; i++) {
        const struct slice *s = slice_at(b, i);
        if (start >= s->n) {
            start -= s->n;
            continue;
        }
        size_t part = s->n - start < n ? s->n - start : n;
        memcpy(to, s->p + start, part);
        to += part;
        n -= part;
        start = 0;
    }
}

void buf_splice(struct buf *b, size_t start, size_t size, struct str data)
{
    ASSERT(start <= b->n && size <= b->n - start);
    struct buf head;
    buf_init(&head, b->pool);
    buf_move(&head, b, start);
    /* Before the old bytes go: data may be some of them. */
    buf_append(&head, data);
    buf_consume(b, size);
    buf_prepend(b, &head);
    buf_fini(&head);
}

struct str buf_front(const struct buf *b)
{
    if (b->n == 0)
        return STR_NONE;
    const struct slice *s = slice_at(b, 0);
    return (struct str){s->p, s->n};
}

struct str buf_pullup(struct buf *b, size_t n)
{
    ASSERT(n <= b->n && n <= CHUNK_SIZE);
    if (n == 0)
        return STR_NONE;
    struct slice first = *slice_at(b, 0);
    if (first.n < n) {
        if (is_newest(&first) && chunk_room(first.chunk) >= n - first.n) {
            (void)pop_front(b);
        } else {
            struct chunk *c = chunk_get(b->pool);
            first = (struct slice){c, c->data, 0};
        }
        size_t more = n - first.n;
        buf_copy_out(b, 0, more, first.p + first.n);
        first.n = (uint32_t)n;
        first.chunk->used = (uint32_t)(first.p + n - first.chunk->data);
        buf_consume(b, more);
        push_front(b, first);
    }
    return (struct str){slice_at(b, 0)->p, n};
}

int buf_iovec(const struct buf *b, struct iovec *iov, int max)
{
    int n = 0;
    for (uint32_t i = 0; i < b->count && n < max; i++) {
        const struct slice *s = slice_at(b, i);
        if (s->n != 0)
            iov[n++] = (struct iovec){s->p, s->n};
    }
    return n;
}
