/* SPDX-License-Identifier: Apache-2.0
 *
 * Header maps to and from the guest's form. Hard because every number in it is the guest's: all sums are 64-bit and
 * checked against what is there before a byte is read. Must never hand back a map that the bytes do not spell.
 */
#include "wasm/pairs.h"

static uint32_t load_u32(const char *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof v);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    v = __builtin_bswap32(v);
#endif
    return v;
}

static char *store_u32(char *p, size_t n)
{
    uint32_t v = (uint32_t)n;

#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    v = __builtin_bswap32(v);
#endif
    memcpy(p, &v, sizeof v);
    return p + sizeof v;
}

const char *pairs_result_text(enum pairs_result r)
{
    switch (r) {
    case PAIRS_OK: return "ok";
    case PAIRS_MALFORMED: return "malformed header map";
    case PAIRS_TOO_BIG: return "header map over 1,024 pairs or 1 MiB";
    }
    return "?";
}

enum pairs_result pairs_decode(struct str data, struct abi_pair *list, size_t *count)
{
    *count = 0;
    if (data.n == 0 || (data.n == 1 && data.p[0] == 0)) {
        return PAIRS_OK;
    }
    if (data.n > PAIRS_MAX_BYTES) {
        return PAIRS_TOO_BIG;
    }
    if (data.n < 4) {
        return PAIRS_MALFORMED;
    }
    uint64_t n = load_u32(data.p);
    if (n > PAIRS_MAX_COUNT) {
        return PAIRS_TOO_BIG;
    }
    if (4 + n * 8 > data.n) {
        return PAIRS_MALFORMED;
    }
    uint64_t at = 4 + n * 8; /* of the next string */
    for (size_t i = 0; i < n; i++) {
        uint64_t name = load_u32(data.p + 4 + i * 8), value = load_u32(data.p + 8 + i * 8);
        if (at + name + value + 2 > data.n) {
            return PAIRS_MALFORMED;
        }
        const char *p = data.p + at;
        if (p[name] != 0 || p[name + 1 + value] != 0) {
            return PAIRS_MALFORMED;
        }
        list[i] = (struct abi_pair){str_span(p, name), str_span(p + name + 1, value)};
        at += name + value + 2;
    }
    if (at != data.n) {
        return PAIRS_MALFORMED;
    }
    *count = (size_t)n;
    return PAIRS_OK;
}

size_t pairs_size(const struct abi_pair *list, size_t count)
{
    size_t n = 4;

    for (size_t i = 0; i < count; i++) {
        n += 8 + list[i].name.n + 1 + list[i].value.n + 1;
    }
    return n;
}

size_t pairs_size_headers(const struct headers *h)
{
    size_t n = 4;

    for (size_t i = 0; i < h->count; i++) {
        n += 8 + h->list[i].name.n + 1 + h->list[i].value.n + 1;
    }
    return n;
}

static char *store_z(char *p, struct str s)
{
    if (s.n != 0) {
        memcpy(p, s.p, s.n);
    }
    p[s.n] = 0;
    return p + s.n + 1;
}

void pairs_write(const struct abi_pair *list, size_t count, char *out)
{
    out = store_u32(out, count);
    for (size_t i = 0; i < count; i++) {
        out = store_u32(out, list[i].name.n);
        out = store_u32(out, list[i].value.n);
    }
    for (size_t i = 0; i < count; i++) {
        out = store_z(out, list[i].name);
        out = store_z(out, list[i].value);
    }
}

void pairs_write_headers(const struct headers *h, char *out)
{
    out = store_u32(out, h->count);
    for (size_t i = 0; i < h->count; i++) {
        out = store_u32(out, h->list[i].name.n);
        out = store_u32(out, h->list[i].value.n);
    }
    for (size_t i = 0; i < h->count; i++) {
        out = store_z(out, h->list[i].name);
        out = store_z(out, h->list[i].value);
    }
}

static void add_u32(struct strbuf *out, size_t n)
{
    char bytes[4];

    store_u32(bytes, n);
    strbuf_add(out, str_span(bytes, sizeof bytes));
}

static void add_z(struct strbuf *out, struct str s)
{
    strbuf_add(out, s);
    strbuf_addc(out, 0);
}

void pairs_encode(struct strbuf *out, const struct abi_pair *list, size_t count)
{
    add_u32(out, count);
    for (size_t i = 0; i < count; i++) {
        add_u32(out, list[i].name.n);
        add_u32(out, list[i].value.n);
    }
    for (size_t i = 0; i < count; i++) {
        add_z(out, list[i].name);
        add_z(out, list[i].value);
    }
}

void pairs_encode_headers(struct strbuf *out, const struct headers *h)
{
    add_u32(out, h->count);
    for (size_t i = 0; i < h->count; i++) {
        add_u32(out, h->list[i].name.n);
        add_u32(out, h->list[i].value.n);
    }
    for (size_t i = 0; i < h->count; i++) {
        add_z(out, h->list[i].name);
        add_z(out, h->list[i].value);
    }
}
