/* SPDX-License-Identifier: Apache-2.0
 *
 * Host functions on buffers: the body that the callback may see, a callout's answer, the configuration. All range
 * arithmetic is 64-bit, since guests ask for (start, 0xFFFFFFFF). Bytes go straight between body chunks and guest
 * memory.
 */
#include "base/budget.h"
#include "wasm/abi.h"

/* One of the two is set when the buffer is there. */
struct source {
    struct buf *buf;
    struct str text;
    bool found;
};

static struct source source_find(struct plugin_vm *pv, uint32_t kind)
{
    struct ctx *ctx = pv->effective;
    struct buf *b = NULL;

    switch (kind) {
    case BUFFER_REQUEST_BODY:
    case BUFFER_RESPONSE_BODY:
        b = ctx != NULL && ctx->stream != NULL ? pv->ops->body(ctx->stream, (enum abi_buffer)kind) : NULL;
        return (struct source){.buf = b, .found = b != NULL};
    case BUFFER_CALL_BODY: return (struct source){.buf = pv->answer.body, .found = pv->answer.body != NULL};
    case BUFFER_VM_CONFIGURATION: return (struct source){.found = true}; /* Istio has no VM configuration */
    case BUFFER_PLUGIN_CONFIGURATION:
        return (struct source){.text = str_span(pv->plugin->config, pv->plugin->config_bytes), .found = true};
    default: return (struct source){0};
    }
}

static size_t source_size(const struct source *s) { return s->buf != NULL ? s->buf->n : s->text.n; }

ABI_FUNCTION(get_buffer_bytes)
{
    uint64_t start = a[1].u32, n = a[2].u32;
    uint32_t ptr;
    void *mem;

    if (a[0].u32 > BUFFER_FOREIGN_ARGUMENTS) {
        return ABI_BAD_ARGUMENT;
    }
    if (!abi_gift_ok(pv, a[3], a[4])) {
        return ABI_INVALID_MEMORY_ACCESS;
    }
    struct source s = source_find(pv, a[0].u32);
    if (!s.found) {
        return ABI_NOT_FOUND;
    }
    uint64_t size = source_size(&s);
    n = start >= size ? 0 : n < size - start ? n : size - start;
    if (n == 0) {
        abi_give_none(pv, a[3], a[4]);
        return ABI_OK;
    }
    enum abi_status status = abi_alloc(pv, n, &ptr, &mem);
    if (status != ABI_OK) {
        return status;
    }
    if (s.buf != NULL) {
        buf_copy_out(s.buf, start, n, mem);
    } else {
        memcpy(mem, s.text.p + start, n);
    }
    abi_store_u32(pv, a[3], ptr);
    abi_store_u32(pv, a[4], (uint32_t)n);
    return ABI_OK;
}

ABI_FUNCTION(get_buffer_status)
{
    if (a[0].u32 > BUFFER_FOREIGN_ARGUMENTS) {
        return ABI_BAD_ARGUMENT;
    }
    if (!abi_gift_ok(pv, a[1], a[2])) {
        return ABI_INVALID_MEMORY_ACCESS;
    }
    struct source s = source_find(pv, a[0].u32);
    if (!s.found) {
        return ABI_NOT_FOUND;
    }
    size_t size = source_size(&s);
    abi_store_u32(pv, a[1], size <= UINT32_MAX ? (uint32_t)size : UINT32_MAX);
    abi_store_u32(pv, a[2], 0);
    return ABI_OK;
}

ABI_FUNCTION(set_buffer_bytes)
{
    struct str data;

    if (a[0].u32 > BUFFER_FOREIGN_ARGUMENTS || a[0].u32 >= BUFFER_CALL_BODY) {
        return ABI_BAD_ARGUMENT;
    }
    if (!abi_read(pv, a[3], a[4], &data)) {
        return ABI_INVALID_MEMORY_ACCESS;
    }
    struct source s = source_find(pv, a[0].u32);
    if (!s.found) { /* OK, since the Rust SDK panics on anything else */
        abi_warn_once(pv, WARN_BODY_WRITE, "a write to body %u was ignored: there is none to write to now", a[0].u32);
        return ABI_OK;
    }
    uint64_t size = s.buf->n, start = a[1].u32 < size ? a[1].u32 : size;
    uint64_t cut = a[2].u32 < size - start ? a[2].u32 : size - start;
    if (size - cut + data.n > BODY_EDIT_MAX || (data.n > cut && budget_level() == BUDGET_OVER)) {
        abi_warn_once(pv, WARN_BODY_FULL, "an edit of body %u went beyond its limits: the stream ends", a[0].u32);
        context_fail_stream(pv->effective, 500, "filter_body_too_large");
        return ABI_OK;
    }
    buf_splice(s.buf, start, cut, data);
    pv->ops->body_changed(pv->effective->stream, (enum abi_buffer)a[0].u32);
    return ABI_OK;
}

/* 0.1.0: the plugin's configuration while it is created and configured, the VM's (none) at any other time. */
ABI_FUNCTION(get_configuration)
{
    if (!abi_gift_ok(pv, a[0], a[1])) {
        return ABI_INVALID_MEMORY_ACCESS;
    }
    struct str config = str_span(pv->plugin->config, pv->plugin->config_bytes);
    return abi_give(pv, pv->configuring ? config : STR_NONE, a[0], a[1]);
}
