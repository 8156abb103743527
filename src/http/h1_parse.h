/* SPDX-License-Identifier: Apache-2.0
 *
 * A strict HTTP/1 parser (RFC 9112), pure: bytes in, values out. Being stricter than the servers behind us is what
 * keeps request smuggling out, so everything doubtful is refused, never repaired: obs-fold, bare CR or LF, NUL, space
 * before the colon, two or differing Content-Length, Content-Length together with Transfer-Encoding, a
 * Transfer-Encoding that is not exactly "chunked", bad chunk sizes, chunk extensions with control bytes or longer than
 * allowed, a bad, missing or second Host, an authority with userinfo.
 */
#ifndef WEIR_HTTP_H1_PARSE_H
#define WEIR_HTTP_H1_PARSE_H

#include "http/message.h"

enum parse {
    PARSE_DONE,
    PARSE_MORE,
    PARSE_BAD,
    PARSE_HEAD_TOO_LARGE,
    PARSE_URI_TOO_LONG,
    PARSE_BAD_VERSION,
    PARSE_UNSUPPORTED /* 501: method CONNECT */
};

struct h1_limits {
    size_t head_bytes; /* whole head, request line included */
    size_t uri_bytes;
    size_t headers; /* header fields in a head or in trailers */
    size_t trailer_bytes;
    size_t chunk_ext_bytes; /* in one chunk-size line */
    size_t pipeline_bytes;  /* unread pipelined input (h1_wants_input); 0: as head_bytes */
};

/* Parses a request head at the start of in. DONE: *used bytes were the head (with its empty line) and *msg is filled:
 * names lower-cased, pseudo-headers made (also from absolute-form and authority-form targets; "*" for OPTIONS),
 * hop-by-hop fields removed (":scheme" is "http"; the owner of a TLS connection sets "https"; a target's own scheme is
 * not believed). There is no ":authority" when an HTTP/1.0 request has no host. One CRLF before the request line is
 * skipped (RFC 9112 2.2). `why` (a constant, may be NULL) names the rule that was broken. Copies the head into msg's
 * arena once; every header points into that copy. `from` is where an earlier PARSE_MORE stopped scanning (0 at first),
 * kept up to date. msg is filled only when DONE. msg->headers may be edited up to twice the limits (headers.max_bytes,
 * max_count; the owner may change them). An arena at its ceiling gives PARSE_HEAD_TOO_LARGE. */
NODISCARD enum parse h1_parse_request(struct str in, const struct h1_limits *limits, size_t *from, struct arena *arena,
                                      struct message *msg, size_t *used, const char **why);
/* As above for a response; method is that of the request (HEAD and CONNECT change framing). */
NODISCARD enum parse h1_parse_response(struct str in, const struct h1_limits *limits, size_t *from, struct str method,
                                       struct arena *arena, struct message *msg, size_t *used, const char **why);

/* Chunked body decoder: a state kept between calls. */
enum h1_chunk_state { H1_CHUNK_SIZE, H1_CHUNK_DATA, H1_CHUNK_DATA_END, H1_CHUNK_TRAILERS, H1_CHUNK_DONE };
struct h1_chunked {
    enum h1_chunk_state state;
    uint64_t left;     /* bytes of the current chunk still to come */
    size_t scanned;    /* within an incomplete size line or trailer block */
    uint64_t overhead; /* extension bytes not yet outweighed by data; bounds "1;ext...\r\nx\r\n" for ever */
};
void h1_chunked_init(struct h1_chunked *c);
/* Looks at in; says how many bytes to skip (framing) and how many after them are data. At the end state is DONE and
 * trailers (may be empty; fields that are framing are left out) are in *trailers, which this initialises.
 * PARSE_DONE: skip and data are set (data may be 0; call again for the rest unless state is DONE). PARSE_MORE: needs
 * more than is there in one piece; nothing is to be skipped and the same bytes, longer, come again. After an
 * error the same bytes give the same error. */
NODISCARD enum parse h1_chunked_next(struct h1_chunked *c, struct str in, const struct h1_limits *limits,
                                     struct arena *arena, struct headers *trailers, size_t *skip, size_t *data,
                                     const char **why);

/* Is it a token / field value as RFC 9110 5.5 and 5.6.2 have it? For checking what guests write. (Space around a value
 * is let pass: a recipient strips it.) */
bool h1_is_token(struct str s);
bool h1_is_field_value(struct str s);
/* :path of a request: begins with '/', or is "*"; no space, control byte, byte >= 0x80 or '#'. */
bool h1_is_path(struct str s);
/* reg-name or IP literal with optional port (RFC 3986 3.2 without userinfo); empty is not one. */
bool h1_is_authority(struct str s);

#endif
