/* SPDX-License-Identifier: Apache-2.0
 *
 * A leg is one exchange on one connection: a stream has a down leg (client) and an up leg (endpoint). This is the
 * seam between codecs (h1; later h2) and the stream. Two tables:
 *
 *   leg_ops   codec -> stream   events, called from the codec while it parses input or when its output drained
 *   leg_codec stream -> codec   what the stream asks of the leg
 *
 * Rules: leg_codec functions never call a leg_ops function before they return (errors are remembered and delivered
 * later through on_reset). A stream may call any leg_codec function from inside an event. After on_reset, or after the
 * stream called `detach`, neither side touches the other again.
 */
#ifndef WEIR_HTTP_LEG_H
#define WEIR_HTTP_LEG_H

#include "base/buf.h"
#include "http/message.h"

struct leg;

/* Why a leg broke. The proxy maps it to an end reason (proxy/end_reason.h). */
enum leg_error {
    LEG_OK,
    LEG_CLOSED,      /* peer closed or reset before the message was complete */
    LEG_BAD_MESSAGE, /* the peer broke the protocol */
    LEG_HEAD_TOO_LARGE,
    LEG_URI_TOO_LONG,
    LEG_BODY_TOO_LARGE,
    LEG_TIMEOUT,
    LEG_UNSUPPORTED, /* e.g. a transfer coding or version we do not speak */
    LEG_CONNECT_FAILED,
};

struct leg_ops {
    /* A whole head. msg lives in the stream's arena. end: no body follows (false for an upgrade request: a tunnel
     * may follow, or, after a final response other than 101, nothing more). */
    void (*on_head)(void *stream, struct message *msg, bool end);
    /* A 1xx response other than 101 (up legs only). */
    void (*on_interim)(void *stream, struct message *msg);
    /* Body bytes; the stream takes all of data (it may leave data non-empty only to have it dropped).
     * end: the message ends here, without trailers. data may be empty when end. */
    void (*on_body)(void *stream, struct buf *data, bool end);
    /* Trailers; the message ends here. */
    void (*on_trailers)(void *stream, struct headers *trailers);
    /* The leg broke; it is detached already. */
    void (*on_reset)(void *stream, enum leg_error why);
    /* Output fell below the low mark after leg_codec.is_full said true. */
    void (*on_drain)(void *stream);
};

struct leg_codec {
    /* Down legs: a final response head. Up legs: a request head. The codec decides framing from msg->body and
     * writes its own framing headers; what a guest wrote there is ignored. Borrows msg. */
    void (*send_head)(struct leg *leg, const struct message *msg, bool end);
    /* Down legs: a 1xx head. */
    void (*send_interim)(struct leg *leg, const struct message *msg);
    /* Moves all bytes out of data. Bytes beyond a declared length end the leg (on_reset, later). */
    void (*send_body)(struct leg *leg, struct buf *data, bool end);
    /* Ends the message. Dropped where the framing has no room for them. */
    void (*send_trailers)(struct leg *leg, const struct headers *trailers);
    /* Stops or resumes reading of body bytes (flow control). Counts nothing: last word wins. */
    void (*read_enable)(struct leg *leg, bool on);
    /* More queued than the high mark: the stream should stop feeding until on_drain. */
    bool (*is_full)(const struct leg *leg);
    /* The stream is done with the leg, whether or not both messages are complete: the codec finishes, drains or
     * closes its connection as the protocol needs. Never calls back again. abort: reset rather than finish. */
    void (*detach)(struct leg *leg, bool abort);
};

struct leg {
    const struct leg_codec *codec;
    const struct leg_ops *ops;
    void *stream; /* NULL once detached */
};

#endif
