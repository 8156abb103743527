/* SPDX-License-Identifier: Apache-2.0
 *
 * What bytes may stand where in an HTTP/1 message: one table of classes and the scanners over it, shared by the parser
 * and the encoder so that what one refuses the other never writes. Private to src/http.
 */
#ifndef WEIR_HTTP_H1_SCAN_H
#define WEIR_HTTP_H1_SCAN_H

#include "base/str.h"

enum h1_class {
    H1_TOKEN = 1,  /* RFC 9110 5.6.2 tchar */
    H1_TARGET = 2, /* request target: visible ASCII but '#' */
    H1_VALUE = 4,  /* field value: HTAB, SP, visible ASCII, obs-text (RFC 9110 5.5) */
    H1_HOST = 8,   /* reg-name: unreserved and sub-delims (RFC 3986 3.2.2), without '%' */
    H1_HEX = 16,
    H1_DIGIT = 32,
};
extern const uint8_t h1_class[256];
/* The lower-case form of a tchar; 0 for any other byte. */
extern const char h1_lower[256];

static inline bool h1_is(char c, enum h1_class k) { return (h1_class[(uint8_t)c] & k) != 0; }
static inline char h1_lower_of(char c) { return h1_lower[(uint8_t)c]; }

/* The first control byte (below 0x20, or 0x7f) in [p, end), or end. */
const char *h1_find_control(const char *p, const char *end);
/* Length of the longest prefix of s whose bytes are all of class k. */
static inline size_t h1_span(struct str s, enum h1_class k)
{
    size_t n = 0;

    while (n < s.n && h1_is(s.p[n], k))
        n++;
    return n;
}
/* One protocol of an Upgrade field that may pass: "token" or "token/token", but no HTTP (h2c and its like would let
 * a client speak past the filters). */
bool h1_is_upgrade_protocol(struct str s);

/* Longest method that is taken or sent. */
enum { H1_METHOD_MAX = 32 };

#endif
