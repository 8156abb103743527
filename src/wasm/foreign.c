/* SPDX-License-Identifier: Apache-2.0
 *
 * Foreign functions: Envoy's side door of the ABI. compress and uncompress (zlib), clear_route_cache,
 * set_envoy_filter_state and declare_property; everything else is NOT_FOUND. Arguments are protobuf where Envoy's are;
 * the few fields need no library. Must never let a few bytes become gigabytes, nor take seconds of the worker.
 */
#include <zlib.h>

#include "wasm/abi.h"

/* ---- protobuf: just enough ---- */

static bool take_varint(struct str *in, uint64_t *out)
{
    *out = 0;
    for (unsigned shift = 0; shift < 64 && in->n != 0; shift += 7) {
        unsigned char c = (unsigned char)in->p[0];
        *in = str_from(*in, 1);
        *out |= (uint64_t)(c & 0x7f) << shift;
        if (c < 0x80) {
            return true;
        }
    }
    return false;
}

struct field {
    uint64_t number, varint;
    struct str bytes;
};

static bool take_field(struct str *in, struct field *f)
{
    uint64_t tag, n;

    *f = (struct field){0};
    if (!take_varint(in, &tag)) {
        return false;
    }
    f->number = tag >> 3;
    switch (tag & 7) {
    case 0: return take_varint(in, &f->varint);
    case 1: n = 8; break;
    case 2:
        if (!take_varint(in, &n)) {
            return false;
        }
        break;
    case 5: n = 4; break;
    default: return false;
    }
    if (n > in->n) {
        return false;
    }
    f->bytes = str_upto(*in, n);
    *in = str_from(*in, n);
    return true;
}

/* ---- functions ---- */

typedef enum abi_status foreign_fn(struct plugin_vm *pv, struct str args, struct strbuf *out);

static char *room_for(struct strbuf *out, size_t n)
{
    if (out->cap < n) {
        out->p = mem_realloc(out->p, n);
        out->cap = n;
    }
    return out->p;
}

static enum abi_status foreign_compress(struct plugin_vm *pv, struct str args, struct strbuf *out)
{
    (void)pv;
    if (args.n > FOREIGN_MAX_BYTES) {
        return ABI_BAD_ARGUMENT;
    }
    uLongf n = compressBound(args.n);
    Bytef *p = (Bytef *)room_for(out, n);
    if (compress2(p, &n, (const Bytef *)(args.n != 0 ? args.p : ""), args.n, Z_DEFAULT_COMPRESSION) != Z_OK) {
        return ABI_SERIALIZATION_FAILURE;
    }
    out->n = n;
    return ABI_OK;
}

static enum abi_status foreign_uncompress(struct plugin_vm *pv, struct str args, struct strbuf *out)
{
    if (args.n > FOREIGN_MAX_BYTES) {
        return ABI_BAD_ARGUMENT;
    }
    for (uLongf room = args.n < 1024 ? 4096 : args.n * 4;; room *= 4) {
        uLongf n = room < FOREIGN_MAX_BYTES ? room : FOREIGN_MAX_BYTES;
        Bytef *p = (Bytef *)room_for(out, n);
        int r = uncompress(p, &n, (const Bytef *)(args.n != 0 ? args.p : ""), args.n);
        if (r == Z_OK) {
            out->n = n;
            return ABI_OK;
        }
        if (r != Z_BUF_ERROR) {
            return ABI_SERIALIZATION_FAILURE;
        }
        if (room >= FOREIGN_MAX_BYTES) {
            abi_logf(pv, LOG_WARN, "uncompress: the result is over %d bytes, or the data is cut short",
                     FOREIGN_MAX_BYTES);
            return ABI_SERIALIZATION_FAILURE;
        }
    }
}

static enum abi_status foreign_clear_route_cache(struct plugin_vm *pv, struct str args, struct strbuf *out)
{
    (void)args;
    (void)out;
    if (pv->effective != NULL && pv->effective->stream != NULL) {
        pv->ops->clear_route_cache(pv->effective->stream);
    }
    return ABI_OK;
}

/* {path = 1, value = 2, span = 3}. Kept as the property "filter_state" NUL path, under which it is read. */
static enum abi_status foreign_set_filter_state(struct plugin_vm *pv, struct str args, struct strbuf *out)
{
    struct str path = STR_NONE, value = STR_NONE;
    struct field f;

    while (args.n != 0) {
        if (!take_field(&args, &f)) {
            return ABI_BAD_ARGUMENT;
        }
        path = f.number == 1 ? f.bytes : path;
        value = f.number == 2 ? f.bytes : value;
    }
    if (path.n == 0 || path.n > 1024) {
        return ABI_BAD_ARGUMENT;
    }
    struct strbuf full = {0};
    strbuf_add(&full, str_span("filter_state", sizeof "filter_state"));
    strbuf_add(&full, path);
    enum abi_status status = abi_property_set(pv, strbuf_str(&full), value);
    strbuf_free(&full);
    (void)out;
    return status;
}

/* Types and spans of properties mean nothing here: bytes are kept as they are, for the stream. */
static enum abi_status foreign_declare_property(struct plugin_vm *pv, struct str args, struct strbuf *out)
{
    struct field f;

    (void)pv;
    (void)out;
    while (args.n != 0) {
        if (!take_field(&args, &f)) {
            return ABI_BAD_ARGUMENT;
        }
    }
    return ABI_OK;
}

enum abi_status foreign_call(struct plugin_vm *pv, struct str name, struct str args, struct strbuf *out)
{
    static const struct {
        const char *name;
        foreign_fn *fn;
    } table[] = {
        {"compress", foreign_compress},
        {"uncompress", foreign_uncompress},
        {"clear_route_cache", foreign_clear_route_cache},
        {"set_envoy_filter_state", foreign_set_filter_state},
        {"declare_property", foreign_declare_property},
    };

    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        if (str_is(name, table[i].name)) {
            return table[i].fn(pv, args, out);
        }
    }
    return ABI_NOT_FOUND;
}

/* An out-pointer may be 0: result unwanted. */
ABI_FUNCTION(call_foreign_function)
{
    struct str name, args;
    bool wanted = a[4].u32 != 0 && a[5].u32 != 0;

    if (!abi_read(pv, a[0], a[1], &name) || !abi_read(pv, a[2], a[3], &args) ||
        (a[4].u32 != 0 && !abi_writable(pv, a[4], 4)) || (a[5].u32 != 0 && !abi_writable(pv, a[5], 4))) {
        return ABI_INVALID_MEMORY_ACCESS;
    }
    enum abi_status status = foreign_call(pv, name, args, abi_scratch(pv));
    if (status == ABI_OK && wanted) {
        status = abi_give(pv, strbuf_str(&pv->scratch), a[4], a[5]);
    } else if (status == ABI_OK && a[5].u32 != 0) {
        abi_store_u32(pv, a[5], (uint32_t)pv->scratch.n);
    }
    abi_scratch_done(pv);
    return status;
}
