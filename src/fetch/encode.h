/* SPDX-License-Identifier: Apache-2.0
 *
 * Digests and encodings of the registry protocol. libcrypto shows in encode.c (and signature.c).
 */
#ifndef WEIR_FETCH_ENCODE_H
#define WEIR_FETCH_ENCODE_H

#include "base/str.h"

enum { DIGEST_TEXT_MAX = 80, SHA256_HEX = 64 };

/* 64 lower-case hex digits and a NUL. Milliseconds for a megabyte: not for a loop's thread when bytes are many. */
void encode_sha256(struct str bytes, char out[SHA256_HEX + 1]);
/* "sha256:" and the hex digits. */
void encode_digest(struct str bytes, char out[DIGEST_TEXT_MAX]);
/* "sha256:" and 64 lower-case hex digits, the only kind of digest we take. */
bool digest_is_good(struct str text);
void encode_base64(struct str bytes, struct strbuf *out);
/* Standard alphabet, padding optional, white space skipped. Appends to out; false when it is anything else. */
NODISCARD bool decode_base64(struct str text, struct strbuf *out);
/* Everything but unreserved characters (RFC 3986 section 2.3) as %XX. */
void encode_url(struct str text, struct strbuf *out);

#endif
