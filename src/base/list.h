/* SPDX-License-Identifier: Apache-2.0
 *
 * Intrusive doubly linked list. A node is in at most one list; list_remove leaves it self-linked, so removing
 * twice does nothing and list_is_linked tells the truth.
 */
#ifndef WEIR_BASE_LIST_H
#define WEIR_BASE_LIST_H

#include "base/base.h"

struct list {
    struct list *next, *prev;
};

#define LIST_INIT(name) {&(name), &(name)}
#define LIST_ENTRY(node, type, member) CONTAINER_OF(node, type, member)
/* Safe while the current node is removed. */
#define LIST_EACH(pos, head)                                                                                           \
    for (struct list *pos = (head)->next, *pos##_next = pos->next; pos != (head);                                      \
         pos = pos##_next, pos##_next = pos->next)

static inline void list_init(struct list *l) { l->next = l->prev = l; }
static inline bool list_is_empty(const struct list *l) { return l->next == l; }
static inline bool list_is_linked(const struct list *n) { return n->next != n; }
static inline void list_insert_after(struct list *at, struct list *n)
{
    n->next = at->next;
    n->prev = at;
    at->next->prev = n;
    at->next = n;
}
static inline void list_push_back(struct list *head, struct list *n) { list_insert_after(head->prev, n); }
static inline void list_push_front(struct list *head, struct list *n) { list_insert_after(head, n); }
static inline void list_remove(struct list *n)
{
    n->prev->next = n->next;
    n->next->prev = n->prev;
    list_init(n);
}

#endif
