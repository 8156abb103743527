/* SPDX-License-Identifier: Apache-2.0
 *
 * Hash map from bytes to a pointer. Keys are copied. Not thread-safe. Iteration order is insertion order as
 * long as nothing was removed.
 */
#ifndef WEIR_BASE_MAP_H
#define WEIR_BASE_MAP_H

#include "base/str.h"

struct map_entry {
    struct str key;
    void *value;
};
struct map {
    struct map_entry *entries; /* insertion order; key.p == NULL marks a removed one */
    uint32_t *slots;
    size_t count, used, cap;
};

/* Zero-initialise a map to start. Frees keys, not values. */
void map_free(struct map *m);
void *map_get(const struct map *m, struct str key);
/* Returns the value replaced, or NULL. value must not be NULL. */
void *map_set(struct map *m, struct str key, void *value);
/* Returns the value removed, or NULL. */
void *map_remove(struct map *m, struct str key);
#define MAP_EACH(e, m)                                                                    \
    for (struct map_entry *e = (m)->entries; e != NULL && e < (m)->entries + (m)->used; e++) \
        if (e->key.p != NULL)

#endif
