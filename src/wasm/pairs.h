/* SPDX-License-Identifier: Apache-2.0
 *
 * The form in which header maps cross the guest border (proxy-wasm.md 1.6): u32 count, then count * (u32 name length,
 * u32 value length), then for each pair name NUL value NUL; little-endian. Strict on the way in: a malformed map is an
 * error, never an empty one, or a guest's mistake would wipe all headers.
 */
#ifndef WEIR_WASM_PAIRS_H
#define WEIR_WASM_PAIRS_H

#include "wasm/host_ops.h"

/* Bounds of a map that comes from a guest. */
enum { PAIRS_MAX_COUNT = 1024, PAIRS_MAX_BYTES = 1024 * 1024 };

enum pairs_result { PAIRS_OK, PAIRS_MALFORMED, PAIRS_TOO_BIG };

/* Parses data into list, which has room for PAIRS_MAX_COUNT; the entries borrow data. The empty map may be no byte, one
 * zero byte or four (C++, the specification, Rust and Go). */
NODISCARD enum pairs_result pairs_decode(struct str data, struct abi_pair *list, size_t *count);
const char *pairs_result_text(enum pairs_result r);

/* Bytes that the map takes. */
size_t pairs_size(const struct abi_pair *list, size_t count);
size_t pairs_size_headers(const struct headers *h);
/* Writes exactly as many bytes to out. */
void pairs_write(const struct abi_pair *list, size_t count, char *out);
void pairs_write_headers(const struct headers *h, char *out);

/* Appends the serialised map: for properties that are maps or lists (elements as names, empty values). */
void pairs_encode(struct strbuf *out, const struct abi_pair *list, size_t count);
void pairs_encode_headers(struct strbuf *out, const struct headers *h);

#endif
