/* SPDX-License-Identifier: Apache-2.0
 *
 * Writes heads and trailers to the wire. Private to src/http. The caller decides framing; fields of the map that would
 * say anything about it are never written.
 */
#ifndef WEIR_HTTP_H1_ENCODE_H
#define WEIR_HTTP_H1_ENCODE_H

#include "base/buf.h"
#include "http/message.h"

enum h1_framing {
    H1_FRAMING_NONE,
    H1_FRAMING_LENGTH,  /* content-length: length */
    H1_FRAMING_CHUNKED, /* transfer-encoding: chunked */
    H1_FRAMING_AS_IS,   /* the map's own content-length, if it is one (HEAD, 304) */
};
enum h1_connection { H1_CONNECTION_NONE, H1_CONNECTION_CLOSE, H1_CONNECTION_KEEP_ALIVE, H1_CONNECTION_UPGRADE };

struct h1_head {
    const struct headers *headers;
    enum h1_framing framing;
    uint64_t length;
    enum h1_connection connection;
    struct str upgrade;            /* for H1_CONNECTION_UPGRADE */
    unsigned status;               /* responses; 0 in requests */
    const char *server_name;       /* responses; NULL: add none */
    const char *content_type;      /* responses; NULL: the map's */
    struct str method, path, host; /* requests */
    uint64_t *dropped;             /* counts fields that were refused */
};

/* Both append to out. Method, path, host, upgrade and status are the caller's to check. */
void h1_encode_request(struct buf *out, const struct h1_head *head);
void h1_encode_response(struct buf *out, const struct h1_head *head);
/* Last chunk and trailer section. */
void h1_encode_last_chunk(struct buf *out, const struct headers *trailers, uint64_t *dropped);
/* "size CRLF" of a chunk. */
void h1_encode_chunk_size(struct buf *out, size_t size);

#endif
