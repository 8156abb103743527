/* SPDX-License-Identifier: Apache-2.0
 *
 * Shared data and shared queues: what VMs of one vm_id have in common, across threads and plugin generations. The one
 * place of the wasm layer with a lock. A space lives as long as any VM of its vm_id. Every byte is charged to the
 * space's quota: data beyond it pushes out the entries that were used longest ago; a full queue refuses.
 */
#ifndef WEIR_WASM_SHARED_H
#define WEIR_WASM_SHARED_H

#include "wasm/host_ops.h"

struct shared_space;

/* The space of vm_id, made when it is not there; one reference. */
struct shared_space *shared_open(struct str vm_id);
void shared_close(struct shared_space *s);

/* NOT_FOUND; appends a copy of the value to out. */
enum abi_status shared_get(struct shared_space *s, struct str key, struct strbuf *out, uint32_t *cas);
/* cas 0: unconditional; cas != 0 on an absent key succeeds. CAS_MISMATCH; INTERNAL_FAILURE when the entry alone is
 * beyond half of quota: the key is absent then. *evicted counts the entries that had to go. */
enum abi_status shared_set(struct shared_space *s, struct str key, struct str value, uint32_t cas, size_t quota,
                           size_t *evicted);

/* Opens or makes the queue; *id is never 0. INTERNAL_FAILURE beyond quota. */
enum abi_status queue_register(struct shared_space *s, struct str name, size_t quota, uint32_t *id);
/* vm_id empty: s itself. NOT_FOUND. */
enum abi_status queue_resolve(struct shared_space *s, struct str vm_id, struct str name, uint32_t *id);
/* Does the queue belong to s? */
bool queue_is_in(struct shared_space *s, uint32_t id);
/* NOT_FOUND (no such queue, or *full). Wakes the newest living registrant, from inside. */
enum abi_status queue_push(uint32_t id, struct str value, size_t quota, bool *full);
/* NOT_FOUND, EMPTY; appends to out. */
enum abi_status queue_pop(uint32_t id, struct strbuf *out);

/* token becomes the newest registrant of the queue; wake is called, from any thread and with the lock held, once for
 * each item that waits and each that comes. A token registers a queue once. */
void queue_subscribe(uint32_t id, uint64_t token, void (*wake)(uint64_t token, uint32_t queue_id));
/* No wake for token any more once this returned; the next newest registrants take over, woken for what waits. */
void queue_unsubscribe_all(uint64_t token);

#endif
