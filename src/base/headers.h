/* SPDX-License-Identifier: Apache-2.0
 *
 * A header map: an ordered list of name/value pairs, pseudo-headers (":method", ":path", ":authority",
 * ":scheme", ":status") among them as ordinary entries, first. Names are lower case. Duplicates are kept.
 * Well-known names carry an id, so that the proxy compares small integers.
 *
 * Bounded against a guest that edits for ever: the bytes of edits live in a store of this map that is reused in
 * place where the new value fits and compacted when more than half of it is dead; every edit fails (HEADERS_FULL)
 * when live bytes or entries would pass the map's limits.
 */
#ifndef WEIR_BASE_HEADERS_H
#define WEIR_BASE_HEADERS_H

#include "base/arena.h"

#define HEADER_IDS(X)                                                                                              \
    X(METHOD, ":method") X(PATH, ":path") X(AUTHORITY, ":authority") X(SCHEME, ":scheme") X(STATUS, ":status")     \
    X(PROTOCOL, ":protocol") X(HOST, "host") X(CONTENT_LENGTH, "content-length")                                   \
    X(TRANSFER_ENCODING, "transfer-encoding") X(CONNECTION, "connection") X(UPGRADE, "upgrade") X(TE, "te")        \
    X(KEEP_ALIVE, "keep-alive") X(PROXY_CONNECTION, "proxy-connection") X(TRAILER, "trailer") X(EXPECT, "expect")  \
    X(PROXY_AUTHENTICATE, "proxy-authenticate") X(PROXY_AUTHORIZATION, "proxy-authorization")                      \
    X(VIA, "via") X(X_FORWARDED_FOR, "x-forwarded-for") X(X_FORWARDED_PROTO, "x-forwarded-proto")                  \
    X(X_FORWARDED_HOST, "x-forwarded-host") X(X_REQUEST_ID, "x-request-id") X(DATE, "date") X(SERVER, "server")    \
    X(CONTENT_TYPE, "content-type") X(USER_AGENT, "user-agent") X(REFERER, "referer") X(LOCATION, "location")      \
    X(GRPC_STATUS, "grpc-status") X(COOKIE, "cookie") X(SET_COOKIE, "set-cookie") X(ACCEPT, "accept")

enum header_id {
    HDR_OTHER,
#define X(id, name) HDR_##id,
    HEADER_IDS(X)
#undef X
    HDR_COUNT
};

/* HDR_OTHER when unknown; name must be lower case. */
enum header_id header_id_of(struct str name);
struct str header_id_name(enum header_id id);

struct header {
    struct str name, value;
    uint32_t room; /* bytes value may grow to in place; 0: it lies in borrowed memory */
    uint16_t id;   /* enum header_id */
};

struct headers {
    struct arena *arena; /* first home of entries and edits */
    struct header *list;
    uint32_t count, cap;
    size_t bytes;              /* live name and value bytes */
    size_t max_bytes, max_count; /* limits of edits */
    char *store;               /* edits; malloc'ed once they outgrow the arena's small first block */
    size_t store_used, store_cap, store_dead;
};

enum headers_result { HEADERS_OK, HEADERS_FULL };

/* Keeps the arena pointer. Registers its clean-up with arena_defer when it first needs any: h must live, and stay where
 * it is, as long as the arena. To begin anew use headers_clear. */
void headers_init(struct headers *h, struct arena *arena, size_t max_bytes, size_t max_count);
/* For parsers: no copy; name and value must live as long as the arena. Not limited (the parser has its own). */
void headers_add_borrowed(struct headers *h, struct str name, struct str value, enum header_id id);

/* Edits copy name (lower-cased) and value; both may lie in this very map. Pseudo-headers are put behind the last one. A
 * failed edit changes nothing; one that does not add bytes or entries never fails. */
NODISCARD enum headers_result headers_add(struct headers *h, struct str name, struct str value);
/* Replaces the first entry of that name and drops its others; adds when there is none. */
NODISCARD enum headers_result headers_set(struct headers *h, struct str name, struct str value);
NODISCARD enum headers_result headers_set_id(struct headers *h, enum header_id id, struct str value);
/* All of that name; returns how many there were. */
size_t headers_remove(struct headers *h, struct str name);
size_t headers_remove_id(struct headers *h, enum header_id id);
void headers_remove_at(struct headers *h, size_t index);
void headers_clear(struct headers *h);
/* dst becomes a copy of src's entries, copied into dst's arena. */
NODISCARD enum headers_result headers_copy(struct headers *dst, const struct headers *src);

/* First value; NULL when absent. The pointer holds until the next edit. Lookup ignores case. */
const struct header *headers_get(const struct headers *h, struct str name);
const struct header *headers_get_id(const struct headers *h, enum header_id id);
/* Value of headers_get_id, or STR_NONE. */
struct str headers_value(const struct headers *h, enum header_id id);
size_t headers_count_id(const struct headers *h, enum header_id id);

#endif
