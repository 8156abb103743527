/* SPDX-License-Identifier: Apache-2.0
 *
 * struct str: bytes with a length, borrowed from somebody. Never NUL-terminated by promise; NUL exists only
 * at the libc border (str_dup). An empty str may have p == NULL.
 */
#ifndef WEIR_BASE_STR_H
#define WEIR_BASE_STR_H

#include <string.h>

#include "base/base.h"

struct str {
    const char *p;
    size_t n;
};

#define STR(literal) ((struct str){(literal), sizeof(literal) - 1})
#define STR_INIT(literal) {(literal), sizeof(literal) - 1}
#define STR_NONE ((struct str){NULL, 0})
/* For printf: "%.*s". */
#define STR_ARG(s) (int)(s).n, ((s).n != 0 ? (s).p : "")

static inline struct str str_of(const char *z) { return (struct str){z, z != NULL ? strlen(z) : 0}; }
static inline struct str str_span(const void *p, size_t n) { return (struct str){p, n}; }
static inline bool str_eq(struct str a, struct str b) { return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0); }
static inline bool str_is(struct str a, const char *z) { return str_eq(a, str_of(z)); }
static inline struct str str_from(struct str s, size_t at) { return (struct str){s.p + at, s.n - at}; }
static inline struct str str_upto(struct str s, size_t n) { return (struct str){s.p, n}; }

/* ASCII case-insensitive. */
bool str_ieq(struct str a, struct str b);
bool str_starts(struct str s, struct str prefix);
bool str_ends(struct str s, struct str suffix);
/* <0, 0, >0 by bytes, shorter first on a common prefix. */
int str_cmp(struct str a, struct str b);
/* Index of the first byte c, or -1. */
ptrdiff_t str_find(struct str s, char c);
ptrdiff_t str_find_str(struct str s, struct str needle);
/* Without leading and trailing SP and HTAB (RFC 9110 OWS). */
struct str str_trim(struct str s);
/* Cuts *rest at the first sep; returns the part before it; *rest is what follows (p == NULL when there was
 * no sep left and everything was returned). Start with rest->p != NULL. */
struct str str_split(struct str *rest, char sep);
/* Whole of s as decimal digits only, no sign, no space; false on overflow of max or any other byte. */
NODISCARD bool str_to_u64(struct str s, uint64_t max, uint64_t *out);
/* Valid UTF-8 without surrogates or overlong forms. */
bool str_is_utf8(struct str s);
/* 64-bit hash with a per-process random seed, so that a peer cannot choose colliding keys. */
uint64_t str_hash(struct str s);
/* NUL-terminated copy; free with mem_free. */
char *str_dup(struct str s);

/* A growable byte string. Zero-initialise, free with strbuf_free. */
struct strbuf {
    char *p;
    size_t n, cap;
};
void strbuf_add(struct strbuf *b, struct str s);
void strbuf_addc(struct strbuf *b, char c);
void strbuf_addz(struct strbuf *b, const char *z);
void strbuf_printf(struct strbuf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* JSON string with quotes; bytes that are no UTF-8 become U+FFFD; '<', '>' and '&' stay as they are. */
void strbuf_add_json(struct strbuf *b, struct str s);
/* Printable form for text logs: control bytes, '"', '\\' and bytes >= 0x7f as \xHH or \n \r \t \" \\. */
void strbuf_add_escaped(struct strbuf *b, struct str s);
static inline struct str strbuf_str(const struct strbuf *b) { return (struct str){b->p, b->n}; }
/* Keeps the memory. */
static inline void strbuf_clear(struct strbuf *b) { b->n = 0; }
void strbuf_free(struct strbuf *b);
/* NUL-terminates and gives the memory away (caller frees with mem_free); b is empty after. */
char *strbuf_take(struct strbuf *b);

#endif
