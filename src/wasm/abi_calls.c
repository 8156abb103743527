/* SPDX-License-Identifier: Apache-2.0
 *
 * Host functions that call out. A callout belongs to the root context and outlives the stream that asked. Hard because
 * SDKs panic on an answer they do not expect: it comes exactly once, never from inside the host call, never after a
 * failed start; so what is asked for before attach is copied and started there, and what then cannot start is answered
 * as failed at attach's end.
 */
#include "wasm/abi.h"

/* ---- slots; an id is the slot's number + 1 and, above it, how often slots were taken ---- */

enum { SLOT_BITS = 16 };

static uint32_t callout_id(const struct plugin_vm *pv, const struct callout *c)
{
    return c->seq << SLOT_BITS | (uint32_t)(c - pv->callouts + 1);
}

static struct callout *callout_find(struct plugin_vm *pv, uint32_t id)
{
    uint32_t slot = (id & ((1u << SLOT_BITS) - 1)) - 1;

    if (slot >= pv->callout_cap || !pv->callouts[slot].used || callout_id(pv, &pv->callouts[slot]) != id) {
        return NULL;
    }
    return &pv->callouts[slot];
}

static struct callout *callout_take(struct plugin_vm *pv)
{
    uint32_t max = pv->plugin->limits.max_calls < 0xfffe ? pv->plugin->limits.max_calls : 0xfffe;

    if (pv->callouts_used >= max) {
        return NULL;
    }
    if (pv->callouts_used == pv->callout_cap) {
        uint32_t cap = pv->callout_cap != 0 ? pv->callout_cap * 2 : 8;
        pv->callouts = mem_realloc(pv->callouts, cap * sizeof *pv->callouts);
        memset(pv->callouts + pv->callout_cap, 0, (cap - pv->callout_cap) * sizeof *pv->callouts);
        pv->callout_cap = cap;
    }
    uint32_t slot = 0;
    while (pv->callouts[slot].used) {
        slot++;
    }
    pv->callouts_used++;
    pv->callout_seq = (pv->callout_seq + 1) & 0xffff;
    pv->callouts[slot] = (struct callout){.seq = pv->callout_seq, .used = true};
    return &pv->callouts[slot];
}

static void callout_release(struct plugin_vm *pv, struct callout *c)
{
    mem_free(c->pending);
    *c = (struct callout){0};
    pv->callouts_used--;
}

bool calls_finish(struct plugin_vm *pv, uint32_t id)
{
    struct callout *c = callout_find(pv, id);

    if (c != NULL) {
        callout_release(pv, c);
    }
    return c != NULL;
}

/* ---- asked for before attach ---- */

static size_t pairs_bytes(struct abi_pairs p)
{
    size_t n = p.count * sizeof(struct abi_pair);

    for (size_t i = 0; i < p.count; i++) {
        n += p.list[i].name.n + p.list[i].value.n;
    }
    return n;
}

static void copy_bytes(char **at, struct str *s)
{
    if (s->n != 0) {
        memcpy(*at, s->p, s->n);
    }
    s->p = *at;
    *at += s->n;
}

static void copy_pairs(struct abi_pairs *p, struct abi_pair *list, char **at)
{
    if (p->count != 0) {
        memcpy(list, p->list, p->count * sizeof *list);
    }
    p->list = list;
    for (size_t i = 0; i < p->count; i++) {
        copy_bytes(at, &list[i].name);
        copy_bytes(at, &list[i].value);
    }
}

/* In one block; NULL when pending calls would take too much. */
static struct http_call *pending_copy(struct plugin_vm *pv, const struct http_call *call)
{
    size_t bytes =
        sizeof *call + pairs_bytes(call->headers) + pairs_bytes(call->trailers) + call->cluster.n + call->body.n;

    if (bytes > PENDING_CALL_BYTES - pv->pending_bytes) {
        return NULL;
    }
    pv->pending_bytes += bytes;
    struct http_call *copy = mem_alloc(bytes);
    struct abi_pair *list = (struct abi_pair *)(void *)(copy + 1);
    char *at = (char *)(list + call->headers.count + call->trailers.count);
    *copy = *call;
    copy_pairs(&copy->headers, list, &at);
    copy_pairs(&copy->trailers, list + call->headers.count, &at);
    copy_bytes(&at, &copy->cluster);
    copy_bytes(&at, &copy->body);
    return copy;
}

void calls_attach(struct plugin_vm *pv)
{
    /* By id, not by slot: answers may start more. */
    uint32_t known = pv->callout_cap;

    for (uint32_t i = 0; i < known; i++) {
        struct callout *c = &pv->callouts[i];
        if (c->used && c->pending != NULL) {
            void *handle = NULL;
            c->failed = pv->ops->http_call(pv->host, c->pending, &handle) != ABI_OK;
            c = &pv->callouts[i];
            c->handle = handle;
            mem_free(c->pending);
            c->pending = NULL;
        }
    }
    for (uint32_t i = 0; i < known && !plugin_vm_is_dead(pv); i++) {
        if (pv->callouts[i].used && pv->callouts[i].failed) {
            plugin_vm_call_done(pv, callout_id(pv, &pv->callouts[i]), NULL, NULL, NULL,
                                "the call could not be started");
        }
    }
    pv->pending_bytes = 0;
}

void calls_cancel_all(struct plugin_vm *pv)
{
    for (uint32_t i = 0; i < pv->callout_cap; i++) {
        struct callout *c = &pv->callouts[i];
        if (c->used) {
            void *handle = c->pending == NULL && !c->failed ? c->handle : NULL;
            callout_release(pv, c);
            if (handle != NULL) {
                pv->ops->http_call_cancel(pv->host, handle);
            }
        }
    }
}

void calls_fini(struct plugin_vm *pv)
{
    for (uint32_t i = 0; i < pv->callout_cap; i++) {
        mem_free(pv->callouts[i].pending);
    }
    mem_free(pv->callouts);
}

/* ---- host functions ---- */

static bool has_pseudo(struct abi_pairs p, const char *name)
{
    for (size_t i = 0; i < p.count; i++) {
        if (str_is(p.list[i].name, name) && p.list[i].value.n != 0) {
            return true;
        }
    }
    return false;
}

/* Headers and trailers are both read into the scratch list; trailers take what headers left. */
static enum abi_status read_call(struct plugin_vm *pv, const union vm_value *a, struct http_call *call,
                                 struct abi_pair **headers)
{
    *headers = NULL;
    if (!abi_read(pv, a[0], a[1], &call->cluster) || !abi_read(pv, a[4], a[5], &call->body)) {
        return ABI_INVALID_MEMORY_ACCESS;
    }
    enum abi_status status = abi_read_pairs(pv, a[2], a[3], &call->headers);
    if (status != ABI_OK) {
        return status;
    }
    struct str trailers;
    if (!abi_read(pv, a[6], a[7], &trailers)) {
        return ABI_INVALID_MEMORY_ACCESS;
    }
    if (trailers.n > 4) { /* rare: the list of headers moves out of the way */
        *headers = mem_alloc(call->headers.count * sizeof **headers);
        memcpy(*headers, call->headers.list, call->headers.count * sizeof **headers);
        call->headers.list = *headers;
    }
    struct abi_pair *list = pv->pairs;
    if (trailers.n <= 4) {
        size_t none;
        struct abi_pair unused[1];
        call->trailers = (struct abi_pairs){0};
        return trailers.n == 4 && memcmp(trailers.p, "\0\0\0\0", 4) != 0 ? ABI_BAD_ARGUMENT
               : pairs_decode(trailers, unused, &none) == PAIRS_OK       ? ABI_OK
                                                                         : ABI_BAD_ARGUMENT;
    }
    call->trailers.list = list;
    return pairs_decode(trailers, list, &call->trailers.count) == PAIRS_OK ? ABI_OK : ABI_BAD_ARGUMENT;
}

static enum abi_status start_call(struct plugin_vm *pv, struct http_call *call)
{
    struct callout *c = callout_take(pv);

    if (c == NULL) {
        abi_logf(pv, LOG_WARN, "callout refused: %u are out already", pv->callouts_used);
        return ABI_INTERNAL_FAILURE;
    }
    uint32_t id = call->id = callout_id(pv, c);
    if (!pv->attached) {
        c->pending = pending_copy(pv, call);
        if (c->pending == NULL) {
            callout_release(pv, c);
            return ABI_INTERNAL_FAILURE;
        }
        return ABI_OK;
    }
    void *handle = NULL;
    enum abi_status status = pv->ops->http_call(pv->host, call, &handle);
    c = callout_find(pv, id);
    ASSERT(c != NULL); /* the host answered from inside */
    c->handle = handle;
    if (status != ABI_OK) {
        callout_release(pv, c);
    }
    return status == ABI_OK || status == ABI_BAD_ARGUMENT ? status : ABI_INTERNAL_FAILURE;
}

ABI_FUNCTION(http_call)
{
    struct http_call call = {.timeout_ms = a[8].u32};
    struct abi_pair *headers;

    if (!abi_writable(pv, a[9], 4)) {
        return ABI_INVALID_MEMORY_ACCESS;
    }
    abi_store_u32(pv, a[9], 0);
    enum abi_status status = read_call(pv, a, &call, &headers);
    if (status == ABI_OK && (a[8].i32 < 0 || !has_pseudo(call.headers, ":method") ||
                             !has_pseudo(call.headers, ":path") || !has_pseudo(call.headers, ":authority"))) {
        status = ABI_BAD_ARGUMENT;
    }
    if (status == ABI_OK) {
        status = pv->detaching ? ABI_INTERNAL_FAILURE : start_call(pv, &call);
    }
    if (status == ABI_OK) {
        abi_store_u32(pv, a[9], call.id);
    }
    mem_free(headers);
    return status;
}

static enum abi_status no_grpc(struct plugin_vm *pv)
{
    abi_warn_once(pv, WARN_GRPC, "gRPC calls of filters are not supported: they fail");
    return ABI_INTERNAL_FAILURE;
}

ABI_FUNCTION(grpc_call)
{
    (void)a;
    return no_grpc(pv);
}

ABI_FUNCTION(grpc_stream)
{
    (void)a;
    return no_grpc(pv);
}

ABI_FUNCTION(grpc_send)
{
    (void)pv;
    (void)a;
    return ABI_NOT_FOUND;
}

ABI_FUNCTION(grpc_cancel)
{
    (void)pv;
    (void)a;
    return ABI_NOT_FOUND;
}

ABI_FUNCTION(grpc_close)
{
    (void)pv;
    (void)a;
    return ABI_NOT_FOUND;
}
