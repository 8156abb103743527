/* SPDX-License-Identifier: Apache-2.0
 *
 * Blocks that double in size from 1 KiB to 64 KiB, so that a thousand small Services stay small and a large ConfigMap
 * takes few calls. Pieces that need more than a quarter of a block get one of their own.
 */
#include "conf/memory.h"

enum { FIRST_BLOCK = 1024, LAST_BLOCK = 64 * 1024, ALIGNMENT = 16 };

struct block {
    struct block *next;
    _Alignas(ALIGNMENT) char data[];
};

struct conf_memory {
    struct block *blocks;
    char *at, *end;
    size_t next_size;
};

struct conf_memory *memory_new(void)
{
    struct conf_memory *m = mem_zalloc(sizeof *m);
    m->next_size = FIRST_BLOCK;
    return m;
}

void memory_free(struct conf_memory *m)
{
    if (m == NULL)
        return;
    while (m->blocks != NULL) {
        struct block *b = m->blocks;
        m->blocks = b->next;
        mem_free(b);
    }
    mem_free(m);
}

static char *memory_add_block(struct conf_memory *m, size_t n)
{
    struct block *b = mem_zalloc(sizeof *b + n);
    b->next = m->blocks;
    m->blocks = b;
    return b->data;
}

void *memory_alloc(struct conf_memory *m, size_t n)
{
    n = (n + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
    if (n == 0)
        n = ALIGNMENT;
    if (n > m->next_size / 4)
        return memory_add_block(m, n);
    if ((size_t)(m->end - m->at) < n) {
        m->at = memory_add_block(m, m->next_size);
        m->end = m->at + m->next_size;
        if (m->next_size < LAST_BLOCK)
            m->next_size *= 2;
    }
    void *p = m->at;
    m->at += n;
    return p;
}

char *memory_str(struct conf_memory *m, struct str s)
{
    char *p = memory_alloc(m, s.n + 1);
    if (s.n != 0)
        memcpy(p, s.p, s.n);
    return p;
}

void *memory_grow(struct conf_memory *m, void *items, size_t count, size_t *cap, size_t size)
{
    if (count < *cap)
        return items;
    *cap = *cap == 0 ? 8 : *cap * 2;
    void *p = memory_alloc(m, *cap * size);
    if (count != 0)
        memcpy(p, items, count * size);
    return p;
}
