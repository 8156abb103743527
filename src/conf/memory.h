/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory of one resource or of one document being read: handed out piece by piece, freed at once. Not the arena of
 * base/arena.h, because a resource belongs to no worker: it is made by one thread and freed by whichever lets go last.
 * Must never be used for what a client of the gateway can size; text of resources is bounded by its reader.
 */
#ifndef WEIR_CONF_MEMORY_H
#define WEIR_CONF_MEMORY_H

#include "base/str.h"

struct conf_memory;

struct conf_memory *memory_new(void);
/* m may be NULL. */
void memory_free(struct conf_memory *m);
/* Zeroed and aligned for any type used here; never NULL. */
void *memory_alloc(struct conf_memory *m, size_t n);
/* NUL-terminated copy. */
char *memory_str(struct conf_memory *m, struct str s);
/* An array that grows: when count has reached *cap, moves items (of `size` bytes) to twice the room. */
void *memory_grow(struct conf_memory *m, void *items, size_t count, size_t *cap, size_t size);

#endif
