/* SPDX-License-Identifier: Apache-2.0
 *
 * Entries in insertion order beside a table of indexes into them (open addressing, linear probing). A removed entry
 * stays as a gap that probes pass over, until the next time the arrays are full, when both are rebuilt. At most half
 * of the slots are in use, so that a probe always ends.
 */
#include "base/map.h"

enum { MAP_FIRST_CAP = 8 };

void map_free(struct map *m)
{
    for (size_t i = 0; i < m->used; i++)
        mem_free((char *)(uintptr_t)m->entries[i].key.p);
    mem_free(m->entries);
    mem_free(m->slots);
    *m = (struct map){0};
}

/* The slot of key, or the free one where it would go. Slots hold index + 1; 0 is free. */
static size_t find_slot(const struct map *m, struct str key)
{
    size_t mask = 2 * m->cap - 1;
    size_t at = (size_t)str_hash(key) & mask;
    for (; m->slots[at] != 0; at = (at + 1) & mask) {
        const struct map_entry *e = &m->entries[m->slots[at] - 1];
        if (e->key.p != NULL && str_eq(e->key, key))
            break;
    }
    return at;
}

void *map_get(const struct map *m, struct str key)
{
    if (m->count == 0)
        return NULL;
    uint32_t index = m->slots[find_slot(m, key)];
    return index != 0 ? m->entries[index - 1].value : NULL;
}

static void rebuild(struct map *m, size_t cap)
{
    ASSERT(cap <= UINT32_MAX / 2);
    struct map next = {.cap = cap};
    next.entries = mem_alloc(cap * sizeof(*next.entries));
    next.slots = mem_zalloc(2 * cap * sizeof(*next.slots));
    for (size_t i = 0; i < m->used; i++) {
        if (m->entries[i].key.p == NULL)
            continue;
        next.entries[next.used] = m->entries[i];
        size_t at = find_slot(&next, m->entries[i].key);
        next.slots[at] = (uint32_t)++next.used;
    }
    next.count = next.used;
    mem_free(m->entries);
    mem_free(m->slots);
    *m = next;
}

void *map_set(struct map *m, struct str key, void *value)
{
    ASSERT(value != NULL);
    if (m->used == m->cap)
        rebuild(m, m->count < m->cap / 2 ? m->cap : (m->cap != 0 ? 2 * m->cap : MAP_FIRST_CAP));
    size_t at = find_slot(m, key);
    if (m->slots[at] != 0) {
        struct map_entry *e = &m->entries[m->slots[at] - 1];
        void *old = e->value;
        e->value = value;
        return old;
    }
    m->entries[m->used] = (struct map_entry){{mem_strndup(key.p, key.n), key.n}, value};
    m->slots[at] = (uint32_t)++m->used;
    m->count++;
    return NULL;
}

void *map_remove(struct map *m, struct str key)
{
    if (m->count == 0)
        return NULL;
    uint32_t index = m->slots[find_slot(m, key)];
    if (index == 0)
        return NULL;
    struct map_entry *e = &m->entries[index - 1];
    void *old = e->value;
    char *name = (char *)(uintptr_t)e->key.p;
    *e = (struct map_entry){STR_NONE, NULL};
    m->count--;
    mem_free(name);
    return old;
}
