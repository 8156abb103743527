/* SPDX-License-Identifier: Apache-2.0
 *
 * Host functions on shared data and queues. Arguments are read under the lock straight from guest memory; results leave
 * through the scratch, since the guest's allocator must not run under a lock. A queue of another vm_id has to be
 * resolved by name before its id is of use: ids are small numbers and easily guessed.
 */
#include "wasm/abi.h"

enum { RESOLVED_MAX = 1024, QUEUES_MAX = 1024 };

ABI_FUNCTION(get_shared_data)
{
    struct str key;
    uint32_t cas = 0;

    if (!abi_read(pv, a[0], a[1], &key) || !abi_gift_ok(pv, a[2], a[3]) || !abi_writable(pv, a[4], 4)) {
        return ABI_INVALID_MEMORY_ACCESS;
    }
    enum abi_status status = shared_get(pv->space, key, abi_scratch(pv), &cas);
    if (status == ABI_OK) {
        status = abi_give(pv, strbuf_str(&pv->scratch), a[2], a[3]);
    }
    if (status == ABI_OK) {
        abi_store_u32(pv, a[4], cas);
    }
    abi_scratch_done(pv);
    return status;
}

ABI_FUNCTION(set_shared_data)
{
    struct str key, value;
    size_t evicted;

    if (!abi_read(pv, a[0], a[1], &key) || !abi_read(pv, a[2], a[3], &value)) {
        return ABI_INVALID_MEMORY_ACCESS;
    }
    enum abi_status status = shared_set(pv->space, key, value, a[4].u32, pv->plugin->limits.shared_bytes, &evicted);
    if (evicted != 0) {
        abi_warn_once(pv, WARN_EVICTED, "shared data of vm_id \"%s\" is full: the entries used longest ago are dropped",
                      pv->plugin->vm_id);
    }
    if (status == ABI_INTERNAL_FAILURE) { /* to the guest it was dropped at once: Rust panics on this status */
        abi_warn_once(pv, WARN_SHARED_VALUE, "shared data of %zu bytes is not kept: %u are the most", value.n,
                      pv->plugin->limits.shared_bytes / 2);
        status = ABI_OK;
    }
    return status;
}

static bool has_id(const uint32_t *ids, size_t n, uint32_t id)
{
    for (size_t i = 0; i < n; i++) {
        if (ids[i] == id) {
            return true;
        }
    }
    return false;
}

static void add_id(uint32_t **ids, size_t *n, uint32_t id)
{
    *ids = mem_realloc(*ids, (*n + 1) * sizeof **ids);
    (*ids)[(*n)++] = id;
}

ABI_FUNCTION(register_shared_queue)
{
    struct str name;
    uint32_t id;

    if (!abi_read(pv, a[0], a[1], &name) || !abi_writable(pv, a[2], 4)) {
        return ABI_INVALID_MEMORY_ACCESS;
    }
    enum abi_status status = pv->queue_count < QUEUES_MAX
                                 ? queue_register(pv->space, name, pv->plugin->limits.shared_bytes, &id)
                                 : ABI_INTERNAL_FAILURE;
    if (status != ABI_OK) {
        abi_logf(pv, LOG_WARN, "too many shared queues, or too little room for one more");
        return status;
    }
    if (!has_id(pv->queues, pv->queue_count, id)) {
        add_id(&pv->queues, &pv->queue_count, id);
    }
    if (pv->attached && !pv->detaching) {
        queue_subscribe(id, pv->token, pv->ops->queue_wake);
    }
    abi_store_u32(pv, a[2], id);
    return ABI_OK;
}

void queues_attach(struct plugin_vm *pv)
{
    for (size_t i = 0; i < pv->queue_count; i++) {
        queue_subscribe(pv->queues[i], pv->token, pv->ops->queue_wake);
    }
}

ABI_FUNCTION(resolve_shared_queue)
{
    struct str vm_id, name;
    uint32_t id;

    if (!abi_read(pv, a[0], a[1], &vm_id) || !abi_read(pv, a[2], a[3], &name) || !abi_writable(pv, a[4], 4)) {
        return ABI_INVALID_MEMORY_ACCESS;
    }
    enum abi_status status = queue_resolve(pv->space, vm_id, name, &id);
    if (status != ABI_OK) {
        return status;
    }
    if (!has_id(pv->resolved, pv->resolved_count, id) && !queue_is_in(pv->space, id)) {
        if (pv->resolved_count == RESOLVED_MAX) {
            return ABI_NOT_FOUND;
        }
        add_id(&pv->resolved, &pv->resolved_count, id);
    }
    abi_store_u32(pv, a[4], id);
    return ABI_OK;
}

static bool may_use(struct plugin_vm *pv, uint32_t id)
{
    return has_id(pv->resolved, pv->resolved_count, id) || queue_is_in(pv->space, id);
}

ABI_FUNCTION(enqueue_shared_queue)
{
    struct str value;
    bool full;

    if (!abi_read(pv, a[1], a[2], &value)) {
        return ABI_INVALID_MEMORY_ACCESS;
    }
    if (!may_use(pv, a[0].u32)) {
        return ABI_NOT_FOUND;
    }
    enum abi_status status = queue_push(a[0].u32, value, pv->plugin->limits.shared_bytes, &full);
    if (full) { /* the one failure that every SDK hands to the filter */
        abi_warn_once(pv, WARN_QUEUE_FULL, "shared queue %u is full: items are refused", a[0].u32);
    }
    return status;
}

ABI_FUNCTION(dequeue_shared_queue)
{
    if (!abi_gift_ok(pv, a[1], a[2])) {
        return ABI_INVALID_MEMORY_ACCESS;
    }
    if (!may_use(pv, a[0].u32)) {
        return ABI_NOT_FOUND;
    }
    enum abi_status status = queue_pop(a[0].u32, abi_scratch(pv));
    if (status == ABI_OK) {
        status = abi_give(pv, strbuf_str(&pv->scratch), a[1], a[2]);
    }
    abi_scratch_done(pv);
    return status;
}
