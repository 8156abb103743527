/* SPDX-License-Identifier: Apache-2.0
 *
 * Host functions on header maps. Hard because of what SDKs make of statuses: a read of a map that is not there is
 * NOT_FOUND or empty, a write to one is ignored with a warning (Rust panics on anything but OK), and what does not fit
 * the map's limits ends the stream rather than passing a header that the filter meant to replace. Must never wipe a map
 * for a malformed argument.
 */
#include "wasm/abi.h"

enum { MAP_LAST = MAP_CALL_TRAILERS };

static struct headers *map_for_read(struct plugin_vm *pv, uint32_t kind)
{
    struct ctx *ctx = pv->effective;

    switch (kind) {
    case MAP_REQUEST_HEADERS:
    case MAP_REQUEST_TRAILERS:
    case MAP_RESPONSE_HEADERS:
    case MAP_RESPONSE_TRAILERS:
        return ctx != NULL && ctx->stream != NULL ? pv->ops->map(ctx->stream, (enum abi_map)kind, MAP_READ) : NULL;
    case MAP_CALL_HEADERS: return pv->answer.headers;
    case MAP_CALL_TRAILERS: return pv->answer.trailers;
    default: return NULL;
    }
}

/* OK with *map NULL: nothing to write to now, and the guest is to be told OK. */
static enum abi_status map_for_write(struct plugin_vm *pv, uint32_t kind, struct headers **map)
{
    struct ctx *ctx = pv->effective;

    if (kind > MAP_RESPONSE_TRAILERS) {
        return ABI_BAD_ARGUMENT;
    }
    *map = ctx != NULL && ctx->stream != NULL ? pv->ops->map(ctx->stream, (enum abi_map)kind, MAP_WRITE) : NULL;
    if (*map == NULL) {
        abi_warn_once(pv, WARN_MAP_WRITE, "a write to header map %u was ignored: there is none to write to now", kind);
    }
    return ABI_OK;
}

static void map_full(struct plugin_vm *pv, uint32_t kind)
{
    abi_warn_once(pv, WARN_HEADERS_FULL, "an edit of header map %u went beyond its limits: the stream ends", kind);
    context_fail_stream(pv->effective, kind == MAP_REQUEST_HEADERS ? 431 : 500, "filter_headers_too_large");
}

static void map_edited(struct plugin_vm *pv, uint32_t kind, enum headers_result r)
{
    if (r != HEADERS_OK) {
        map_full(pv, kind);
    }
    pv->ops->map_changed(pv->effective->stream, (enum abi_map)kind);
}

/* ---- what the guest sees of bytes that are no UTF-8 ---- */

static bool is_shown_as_is(struct plugin_vm *pv, struct str s)
{
    return pv->plugin->utf8 == UTF8_PASS || abi_is_utf8(s);
}

static void add_shown(struct plugin_vm *pv, struct strbuf *out, struct str s)
{
    static const char hex[] = "0123456789ABCDEF";

    if (is_shown_as_is(pv, s)) {
        strbuf_add(out, s);
        return;
    }
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c < 0x80) {
            strbuf_addc(out, (char)c);
        } else {
            strbuf_add(out, str_span((char[]){'%', hex[c >> 4], hex[c & 15]}, 3));
        }
    }
}

static void give_shown(struct plugin_vm *pv, const struct headers *h, struct strbuf *out)
{
    struct strbuf text = {0};
    struct abi_pair *list = mem_alloc(h->count * sizeof *list);

    for (size_t i = 0; i < h->count; i++) {
        add_shown(pv, &text, h->list[i].name);
        list[i].name.n = text.n;
        add_shown(pv, &text, h->list[i].value);
        list[i].value.n = text.n;
    }
    size_t at = 0;
    for (size_t i = 0; i < h->count; i++) {
        size_t name_end = list[i].name.n, value_end = list[i].value.n;
        list[i] =
            (struct abi_pair){str_span(text.p + at, name_end - at), str_span(text.p + name_end, value_end - name_end)};
        at = value_end;
    }
    pairs_encode(out, list, h->count);
    mem_free(list);
    strbuf_free(&text);
}

/* Envoy's map of request headers takes "host" for another name of :authority, and filters count on it. */
static bool is_host(uint32_t kind, struct str key)
{
    return key.n == 4 && kind == MAP_REQUEST_HEADERS && str_ieq(key, STR("host"));
}

static struct str name_in(uint32_t kind, struct str key) { return is_host(kind, key) ? STR(":authority") : key; }

/* ---- reading ---- */

ABI_FUNCTION(get_header_map_pairs)
{
    if (a[0].u32 > MAP_LAST) {
        return ABI_BAD_ARGUMENT;
    }
    if (!abi_gift_ok(pv, a[1], a[2])) {
        return ABI_INVALID_MEMORY_ACCESS;
    }
    const struct headers *h = map_for_read(pv, a[0].u32);
    if (h == NULL || h->count == 0) {
        abi_give_none(pv, a[1], a[2]);
        return ABI_OK;
    }
    bool plain = true;
    for (size_t i = 0; i < h->count && plain; i++) {
        plain = is_shown_as_is(pv, h->list[i].name) && is_shown_as_is(pv, h->list[i].value);
    }
    if (!plain) {
        give_shown(pv, h, abi_scratch(pv));
        return abi_give(pv, strbuf_str(&pv->scratch), a[1], a[2]);
    }
    /* The usual case: straight into the guest. */
    size_t n = pairs_size_headers(h);
    uint32_t ptr;
    void *mem;
    enum abi_status status = abi_alloc(pv, n, &ptr, &mem);
    if (status == ABI_OK) {
        pairs_write_headers(h, mem);
        abi_store_u32(pv, a[1], ptr);
        abi_store_u32(pv, a[2], (uint32_t)n);
    }
    return status;
}

ABI_FUNCTION(get_header_map_size)
{
    if (a[0].u32 > MAP_LAST) {
        return ABI_BAD_ARGUMENT;
    }
    if (!abi_writable(pv, a[1], 4)) {
        return ABI_INVALID_MEMORY_ACCESS;
    }
    const struct headers *h = map_for_read(pv, a[0].u32);
    abi_store_u32(pv, a[1], h != NULL ? (uint32_t)h->bytes : 0);
    return ABI_OK;
}

ABI_FUNCTION(get_header_map_value)
{
    struct str key;

    if (a[0].u32 > MAP_LAST) {
        return ABI_BAD_ARGUMENT;
    }
    if (!abi_read(pv, a[1], a[2], &key) || !abi_gift_ok(pv, a[3], a[4])) {
        return ABI_INVALID_MEMORY_ACCESS;
    }
    const struct headers *h = map_for_read(pv, a[0].u32);
    const struct header *entry = h != NULL ? headers_get(h, name_in(a[0].u32, key)) : NULL;
    if (entry == NULL) {
        abi_give_none(pv, a[3], a[4]);
        return pv->plugin->abi == ABI_0_1_0 ? ABI_OK : ABI_NOT_FOUND;
    }
    if (is_shown_as_is(pv, entry->value)) {
        return abi_give(pv, entry->value, a[3], a[4]);
    }
    add_shown(pv, abi_scratch(pv), entry->value);
    return abi_give(pv, strbuf_str(&pv->scratch), a[3], a[4]);
}

/* ---- writing ---- */

typedef enum headers_result edit_fn(struct headers *h, struct str name, struct str value);

static enum abi_status edit(struct plugin_vm *pv, const union vm_value *a, edit_fn *fn)
{
    struct headers *h;
    struct str key, value;

    if (!abi_read(pv, a[1], a[2], &key) || !abi_read(pv, a[3], a[4], &value)) {
        return ABI_INVALID_MEMORY_ACCESS;
    }
    enum abi_status status = map_for_write(pv, a[0].u32, &h);
    if (status == ABI_OK && h != NULL) {
        map_edited(pv, a[0].u32, is_host(a[0].u32, key) ? headers_set(h, STR(":authority"), value) : fn(h, key, value));
    }
    return status;
}

ABI_FUNCTION(add_header_map_value) { return edit(pv, a, headers_add); }

ABI_FUNCTION(replace_header_map_value) { return edit(pv, a, headers_set); }

ABI_FUNCTION(remove_header_map_value)
{
    struct headers *h;
    struct str key;

    if (!abi_read(pv, a[1], a[2], &key)) {
        return ABI_INVALID_MEMORY_ACCESS;
    }
    enum abi_status status = map_for_write(pv, a[0].u32, &h);
    if (status == ABI_OK && h != NULL && headers_remove(h, name_in(a[0].u32, key)) != 0) {
        map_edited(pv, a[0].u32, HEADERS_OK);
    }
    return status;
}

ABI_FUNCTION(set_header_map_pairs)
{
    struct headers *h;
    struct abi_pairs pairs;
    enum abi_status status = a[0].u32 > MAP_LAST ? ABI_BAD_ARGUMENT : abi_read_pairs(pv, a[1], a[2], &pairs);

    if (status == ABI_OK) {
        status = map_for_write(pv, a[0].u32, &h);
    }
    if (status != ABI_OK || h == NULL) {
        return status;
    }
    enum headers_result r = HEADERS_OK;
    headers_clear(h);
    for (size_t i = 0; i < pairs.count && r == HEADERS_OK; i++) {
        const struct abi_pair *p = &pairs.list[i];
        r = is_host(a[0].u32, p->name) ? headers_set(h, STR(":authority"), p->value)
                                       : headers_add(h, p->name, p->value);
    }
    map_edited(pv, a[0].u32, r);
    return ABI_OK;
}
