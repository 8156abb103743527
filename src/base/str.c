/* SPDX-License-Identifier: Apache-2.0
 *
 * Bytes with a length: comparing, searching, checking, and the growable strbuf. Everything takes any bytes from
 * anybody: embedded NULs, broken UTF-8, lengths of zero with a NULL pointer. Nothing here may depend on the locale.
 */
#include "base/str.h"

#include <errno.h>
#include <stdio.h>
#include <sys/random.h>

static unsigned char lower(unsigned char c) { return c >= 'A' && c <= 'Z' ? (unsigned char)(c | 0x20) : c; }

bool str_ieq(struct str a, struct str b)
{
    if (a.n != b.n)
        return false;
    for (size_t i = 0; i < a.n; i++) {
        if (lower((unsigned char)a.p[i]) != lower((unsigned char)b.p[i]))
            return false;
    }
    return true;
}

bool str_starts(struct str s, struct str prefix) { return s.n >= prefix.n && str_eq(str_upto(s, prefix.n), prefix); }

bool str_ends(struct str s, struct str suffix)
{
    return s.n >= suffix.n && (suffix.n == 0 || str_eq(str_from(s, s.n - suffix.n), suffix));
}

int str_cmp(struct str a, struct str b)
{
    size_t n = a.n < b.n ? a.n : b.n;
    int order = n != 0 ? memcmp(a.p, b.p, n) : 0;
    return order != 0 ? order : (a.n > b.n) - (a.n < b.n);
}

ptrdiff_t str_find(struct str s, char c)
{
    const char *at = s.n != 0 ? memchr(s.p, c, s.n) : NULL;
    return at != NULL ? at - s.p : -1;
}

ptrdiff_t str_find_str(struct str s, struct str needle)
{
    if (needle.n == 0)
        return 0;
    const char *at = s.n != 0 ? memmem(s.p, s.n, needle.p, needle.n) : NULL;
    return at != NULL ? at - s.p : -1;
}

static bool is_ows(char c) { return c == ' ' || c == '\t'; }

struct str str_trim(struct str s)
{
    while (s.n != 0 && is_ows(s.p[0]))
        s = str_from(s, 1);
    while (s.n != 0 && is_ows(s.p[s.n - 1]))
        s.n--;
    return s;
}

struct str str_split(struct str *rest, char sep)
{
    struct str all = *rest;
    ptrdiff_t at = str_find(all, sep);
    if (at < 0) {
        *rest = STR_NONE;
        return all;
    }
    *rest = str_from(all, (size_t)at + 1);
    return str_upto(all, (size_t)at);
}

bool str_to_u64(struct str s, uint64_t max, uint64_t *out)
{
    if (s.n == 0)
        return false;
    uint64_t value = 0;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
        uint64_t digit = (uint64_t)(s.p[i] - '0');
        if (value > (max - digit) / 10 || digit > max)
            return false;
        value = value * 10 + digit;
    }
    *out = value;
    return true;
}

/* Length of the well-formed UTF-8 character at p (Unicode 15, table 3-7), or 0. */
static size_t utf8_char(const unsigned char *p, size_t n)
{
    if (p[0] < 0x80)
        return 1;
    size_t len;
    unsigned char low = 0x80, high = 0xbf; /* bounds of the second byte */
    if (p[0] >= 0xc2 && p[0] <= 0xdf) {
        len = 2;
    } else if (p[0] >= 0xe0 && p[0] <= 0xef) {
        len = 3;
        if (p[0] == 0xe0)
            low = 0xa0; /* overlong */
        else if (p[0] == 0xed)
            high = 0x9f; /* surrogates */
    } else if (p[0] >= 0xf0 && p[0] <= 0xf4) {
        len = 4;
        if (p[0] == 0xf0)
            low = 0x90; /* overlong */
        else if (p[0] == 0xf4)
            high = 0x8f; /* beyond U+10FFFF */
    } else {
        return 0;
    }
    if (n < len || p[1] < low || p[1] > high)
        return 0;
    for (size_t i = 2; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    }
    return len;
}

bool str_is_utf8(struct str s)
{
    const unsigned char *p = (const unsigned char *)s.p;
    for (size_t i = 0; i < s.n;) {
        uint64_t eight;
        if (s.n - i >= sizeof(eight)) {
            memcpy(&eight, p + i, sizeof(eight));
            if ((eight & UINT64_C(0x8080808080808080)) == 0) {
                i += sizeof(eight);
                continue;
            }
        }
        size_t len = utf8_char(p + i, s.n - i);
        if (len == 0)
            return false;
        i += len;
    }
    return true;
}

/* ---- SipHash-1-3 (Aumasson, Bernstein 2012): keyed, so that collisions cannot be computed by a peer ---- */

static uint64_t hash_key[2];

__attribute__((constructor)) static void hash_seed(void)
{
    size_t got = 0;
    while (got < sizeof(hash_key)) {
        ssize_t n = getrandom((char *)hash_key + got, sizeof(hash_key) - got, 0);
        ASSERT(n >= 0 || errno == EINTR);
        if (n > 0)
            got += (size_t)n;
    }
}

static uint64_t rotate(uint64_t x, int by) { return x << by | x >> (64 - by); }

static void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[1] = rotate(v[1], 13) ^ v[0];
    v[0] = rotate(v[0], 32);
    v[2] += v[3];
    v[3] = rotate(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = rotate(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = rotate(v[1], 17) ^ v[2];
    v[2] = rotate(v[2], 32);
}

uint64_t str_hash(struct str s)
{
    uint64_t v[4] = {hash_key[0] ^ UINT64_C(0x736f6d6570736575), hash_key[1] ^ UINT64_C(0x646f72616e646f6d),
                     hash_key[0] ^ UINT64_C(0x6c7967656e657261), hash_key[1] ^ UINT64_C(0x7465646279746573)};
    uint64_t word = 0;
    size_t whole = s.n & ~(size_t)7;
    for (size_t i = 0; i < whole; i += 8) {
        memcpy(&word, s.p + i, 8);
        v[3] ^= word;
        sip_round(v);
        v[0] ^= word;
    }
    word = (uint64_t)s.n << 56;
    for (size_t i = whole; i < s.n; i++)
        word |= (uint64_t)(unsigned char)s.p[i] << 8 * (i - whole);
    v[3] ^= word;
    sip_round(v);
    v[0] ^= word;
    v[2] ^= 0xff;
    for (int i = 0; i < 3; i++)
        sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

char *str_dup(struct str s) { return mem_strndup(s.p, s.n); }

/* ---- strbuf ---- */

/* Room for n more bytes and a NUL. */
static void make_room(struct strbuf *b, size_t n)
{
    ASSERT(n < SIZE_MAX / 4 && b->n < SIZE_MAX / 4);
    size_t need = b->n + n + 1;
    if (need <= b->cap)
        return;
    size_t cap = b->cap < 32 ? 64 : 2 * b->cap;
    b->cap = cap < need ? need : cap;
    b->p = mem_realloc(b->p, b->cap);
}

void strbuf_add(struct strbuf *b, struct str s)
{
    if (s.n == 0)
        return;
    make_room(b, s.n);
    memcpy(b->p + b->n, s.p, s.n);
    b->n += s.n;
}

void strbuf_addc(struct strbuf *b, char c)
{
    make_room(b, 1);
    b->p[b->n++] = c;
}

void strbuf_addz(struct strbuf *b, const char *z) { strbuf_add(b, str_of(z)); }

void strbuf_printf(struct strbuf *b, const char *fmt, ...)
{
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int n = vsnprintf(b->p != NULL ? b->p + b->n : NULL, b->cap - b->n, fmt, args);
    va_end(args);
    ASSERT(n >= 0);
    if ((size_t)n >= b->cap - b->n) {
        make_room(b, (size_t)n);
        (void)vsnprintf(b->p + b->n, b->cap - b->n, fmt, again);
    }
    va_end(again);
    b->n += (size_t)n;
}

void strbuf_add_json(struct strbuf *b, struct str s)
{
    strbuf_addc(b, '"');
    for (size_t i = 0; i < s.n;) {
        unsigned char c = (unsigned char)s.p[i];
        size_t len = utf8_char((const unsigned char *)s.p + i, s.n - i);
        if (len == 0)
            strbuf_addz(b, "\xef\xbf\xbd");
        else if (c == '"' || c == '\\')
            strbuf_printf(b, "\\%c", c);
        else if (c == '\n')
            strbuf_addz(b, "\\n");
        else if (c == '\r')
            strbuf_addz(b, "\\r");
        else if (c == '\t')
            strbuf_addz(b, "\\t");
        else if (c < 0x20)
            strbuf_printf(b, "\\u%04x", c);
        else
            strbuf_add(b, (struct str){s.p + i, len});
        i += len != 0 ? len : 1;
    }
    strbuf_addc(b, '"');
}

void strbuf_add_escaped(struct strbuf *b, struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c == '"' || c == '\\')
            strbuf_printf(b, "\\%c", c);
        else if (c == '\n')
            strbuf_addz(b, "\\n");
        else if (c == '\r')
            strbuf_addz(b, "\\r");
        else if (c == '\t')
            strbuf_addz(b, "\\t");
        else if (c < 0x20 || c >= 0x7f)
            strbuf_printf(b, "\\x%02x", c);
        else
            strbuf_addc(b, (char)c);
    }
}

void strbuf_free(struct strbuf *b)
{
    mem_free(b->p);
    *b = (struct strbuf){0};
}

char *strbuf_take(struct strbuf *b)
{
    make_room(b, 0);
    b->p[b->n] = '\0';
    char *taken = b->p;
    *b = (struct strbuf){0};
    return taken;
}
