/* SPDX-License-Identifier: Apache-2.0
 *
 * Sequences of buffer operations, read from the input, on three buffers of one pool, against flat byte arrays. Three
 * bytes are one operation: what, on which buffers, how much. Looks for bytes that change under a buffer that shares
 * them, and for chunks that are freed too early (sanitizer) or never (chunk_pool_free asserts).
 */
#include "base/buf.h"

enum { BUFS = 3, MODEL_MAX = 256 * 1024 };

struct model {
    char p[MODEL_MAX];
    size_t n;
};
static struct model models[BUFS];

static void model_splice(struct model *m, size_t start, size_t size, const char *data, size_t n)
{
    memmove(m->p + start + n, m->p + start + size, m->n - start - size);
    if (n != 0)
        memcpy(m->p + start, data, n);
    m->n = m->n - size + n;
}

static void check(const struct buf *b, const struct model *m)
{
    size_t at = 0;
    ASSERT(b->n == m->n);
    for (uint32_t i = 0; i < b->count; i++) {
        const struct slice *s = &b->slices[(b->first + i) & (b->cap - 1)];
        ASSERT(s->n != 0 && s->chunk->refs != 0);
        ASSERT(s->p >= s->chunk->data && s->p + s->n <= s->chunk->data + s->chunk->used);
        ASSERT(memcmp(s->p, m->p + at, s->n) == 0);
        at += s->n;
    }
    ASSERT(at == m->n);
}

/* Small sizes finely, large ones coarsely, up to a bit more than two chunks. */
static size_t size_of(uint8_t amount) { return amount < 128 ? amount : (size_t)(amount - 127) * 260; }

static void fill(char *fresh, size_t n, uint8_t *next)
{
    for (size_t i = 0; i < n; i++)
        fresh[i] = (char)(*next)++;
}

static void run(struct buf bufs[BUFS], uint8_t what, uint8_t which, uint8_t amount, uint8_t *next)
{
    static char fresh[64 * 1024], taken[MODEL_MAX];
    struct buf *b = &bufs[which % BUFS], *other = &bufs[(which + 1 + (which >> 4) % (BUFS - 1)) % BUFS];
    struct model *m = &models[b - bufs], *om = &models[other - bufs];
    size_t n = size_of(amount), room;
    if (m->n + om->n + n > MODEL_MAX / 2) {
        buf_clear(b);
        m->n = 0;
    }
    if (m->n + om->n + n > MODEL_MAX / 2)
        return;
    switch (what % 9) {
    case 0:
        fill(fresh, n, next);
        buf_append(b, str_span(fresh, n));
        model_splice(m, m->n, 0, fresh, n);
        break;
    case 1: {
        n = n < CHUNK_SIZE ? n : CHUNK_SIZE;
        char *p = buf_reserve(b, n, &room);
        ASSERT(room >= n);
        fill(fresh, n, next);
        memcpy(p, fresh, n);
        buf_commit(b, n);
        model_splice(m, m->n, 0, fresh, n);
        break;
    }
    case 2:
        n = n < other->n ? n : other->n;
        buf_move(b, other, n);
        model_splice(m, m->n, 0, om->p, n);
        model_splice(om, 0, n, NULL, 0);
        break;
    case 3:
        buf_prepend(b, other);
        model_splice(m, 0, 0, om->p, om->n);
        om->n = 0;
        break;
    case 4:
        n = n < b->n ? n : b->n;
        buf_consume(b, n);
        model_splice(m, 0, n, NULL, 0);
        break;
    case 5: {
        size_t start = b->n * (which >> 2) / 64, size = b->n - start < n ? b->n - start : n;
        n = (size_t)which * 3;
        fill(fresh, n, next);
        buf_splice(b, start, size, str_span(fresh, n));
        model_splice(m, start, size, fresh, n);
        break;
    }
    case 6:
        n = n < b->n ? n : b->n;
        n = n < CHUNK_SIZE ? n : CHUNK_SIZE;
        ASSERT(str_eq(buf_pullup(b, n), str_span(m->p, n)));
        break;
    case 7: {
        struct str front = buf_front(other);
        n = n < front.n ? n : front.n;
        if (n == 0)
            break;
        memcpy(taken, front.p, n);
        buf_append_slice(b, other->slices[other->first].chunk, str_upto(front, n));
        model_splice(m, m->n, 0, taken, n);
        break;
    }
    default:
        buf_clear(b);
        m->n = 0;
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct chunk_pool *pool = chunk_pool_new(4);
    struct buf bufs[BUFS];
    uint8_t next = 0;
    for (int i = 0; i < BUFS; i++) {
        buf_init(&bufs[i], pool);
        models[i].n = 0;
    }
    if (size > 600)
        size = 600;
    for (size_t at = 0; at + 3 <= size; at += 3) {
        run(bufs, data[at], data[at + 1], data[at + 2], &next);
        for (int i = 0; i < BUFS; i++)
            check(&bufs[i], &models[i]);
    }
    for (int i = 0; i < BUFS; i++)
        buf_fini(&bufs[i]);
    chunk_pool_free(pool);
    return 0;
}
