/* SPDX-License-Identifier: Apache-2.0
 *
 * A message, the same for every HTTP version: a head (pseudo-headers and headers), body bytes passing by, and
 * trailers. Only the head lives here; body and trailers are events of a leg.
 *
 * In a request's map ":method", ":scheme", ":authority" and ":path" come first and there is no "host"; in a
 * response's ":status" comes first. Framing (content-length, transfer-encoding, connection, keep-alive, te,
 * trailer, upgrade) is the codec's: hop-by-hop headers are removed before a stream sees the message, except
 * content-length (kept, as Envoy does) and, for an upgrade, `upgrade` + `connection: upgrade`; "te: trailers" stays.
 */
#ifndef WEIR_HTTP_MESSAGE_H
#define WEIR_HTTP_MESSAGE_H

#include "base/headers.h"

enum message_body {
    BODY_NONE,    /* ends with the head */
    BODY_LENGTH,  /* content_length bytes */
    BODY_CHUNKED, /* until the last chunk; trailers possible */
    BODY_CLOSE,   /* until the connection closes (HTTP/1.x responses only) */
    BODY_TUNNEL,  /* after a 101 or a CONNECT: bytes both ways until each side closes */
};

struct message {
    struct headers headers;
    enum message_body body;
    uint64_t content_length; /* for BODY_LENGTH */
    uint16_t status;         /* responses; 0 in requests */
    uint8_t version;         /* 10, 11, 20 */
    bool upgrade;            /* request: asks to upgrade (body is BODY_NONE); response: 101 (body is BODY_TUNNEL) */
    bool expect_continue;    /* request has "Expect: 100-continue" */
    bool keep_alive;         /* the peer lets the connection go on after this exchange */
    bool close;              /* response to be sent: the connection ends after it, and the head says so */
    size_t head_bytes;       /* as received, for request.headers_bytes and the like */
};

#endif
