/* SPDX-License-Identifier: Apache-2.0
 *
 * Host functions that control a stream or choose the context: all of them answer at once and act after the callback,
 * since acting could enter the guest. Must never act on a context that is not this VM's.
 */
#include "base/budget.h"
#include "wasm/abi.h"

enum { REPLY_WHEN_OVER = 64 * 1024 /* body of a local reply while the process is over its memory budget */ };

static enum abi_status continue_which(struct plugin_vm *pv, enum abi_stream which)
{
    struct ctx *ctx = pv->effective;

    if (ctx == NULL || which > STREAM_RESPONSE) {
        return ABI_OK; /* an HTTP context has no connection to continue */
    }
    if (ctx->running && ctx == pv->current && ctx->direction == which && !ctx->ending) {
        ctx->resumed = true;
    } else {
        context_defer(ctx, ACTION_CONTINUE, which, NULL);
    }
    return ABI_OK;
}

ABI_FUNCTION(continue_stream)
{
    return a[0].u32 <= STREAM_UPSTREAM ? continue_which(pv, (enum abi_stream)a[0].u32) : ABI_BAD_ARGUMENT;
}

ABI_FUNCTION(continue_request)
{
    (void)a;
    return continue_which(pv, STREAM_REQUEST);
}

ABI_FUNCTION(continue_response)
{
    (void)a;
    return continue_which(pv, STREAM_RESPONSE);
}

ABI_FUNCTION(close_stream)
{
    if (a[0].u32 > STREAM_UPSTREAM) {
        return ABI_BAD_ARGUMENT;
    }
    if (pv->effective != NULL && a[0].u32 <= STREAM_RESPONSE) {
        context_defer(pv->effective, ACTION_CLOSE, (enum abi_stream)a[0].u32, NULL);
    }
    return ABI_OK;
}

ABI_FUNCTION(clear_route_cache)
{
    (void)a;
    if (pv->effective != NULL && pv->effective->stream != NULL) {
        pv->ops->clear_route_cache(pv->effective->stream);
    }
    return ABI_OK;
}

/* Response code details are one word in access logs. */
static struct str one_word(struct strbuf *out, struct str details)
{
    for (size_t i = 0; i < details.n; i++) {
        unsigned char c = (unsigned char)details.p[i];
        strbuf_addc(out, c <= ' ' || c == 0x7f ? '_' : (char)c);
    }
    return strbuf_str(out);
}

ABI_FUNCTION(send_local_response)
{
    struct local_reply reply = {.status = a[0].u32};
    struct str details;

    if (!abi_read(pv, a[1], a[2], &details) || !abi_read(pv, a[3], a[4], &reply.body)) {
        return ABI_INVALID_MEMORY_ACCESS;
    }
    enum abi_status status = abi_read_pairs(pv, a[5], a[6], &reply.headers);
    if (status != ABI_OK) {
        return status;
    }
    details.n = details.n < 256 ? details.n : 256;
    reply.details = one_word(abi_scratch(pv), details);
    reply.grpc_status = a[7].u32 <= 16 ? a[7].i32 : -1;
    if (reply.status < 200 || reply.status > 599) {
        abi_logf(pv, LOG_WARN, "local reply with status %u sent as 500", reply.status);
        reply.status = 500;
    }
    if (reply.body.n > (budget_level() == BUDGET_OVER ? REPLY_WHEN_OVER : BODY_EDIT_MAX)) {
        abi_warn_once(pv, WARN_BODY_FULL, "a local reply of %zu bytes is too large: 500 is sent", reply.body.n);
        reply = (struct local_reply){.status = 500, .details = STR("filter_body_too_large"), .grpc_status = -1};
    }
    if (pv->effective != NULL) {
        context_defer(pv->effective, ACTION_REPLY, STREAM_REQUEST, reply_copy(&reply));
    }
    return ABI_OK;
}

ABI_FUNCTION(set_effective_context)
{
    /* 0: the callback's own again, as in Envoy. While the start function runs there is none. */
    struct ctx *ctx = a[0].u32 != 0 ? context_find(pv, a[0].u32) : pv->current != NULL ? pv->current : &pv->root;

    if (ctx == NULL) {
        return ABI_BAD_ARGUMENT;
    }
    pv->effective = ctx;
    return ABI_OK;
}

/* Stream contexts end at once and root contexts do not wait for it: there is never an on_done pending. Rust panics on
 * anything but OK. */
ABI_FUNCTION(done)
{
    (void)pv;
    (void)a;
    return ABI_OK;
}
