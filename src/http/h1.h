/* SPDX-License-Identifier: Apache-2.0
 *
 * HTTP/1.x on one connection, without I/O: bytes in, leg events out; leg_codec calls in, bytes out. The owner
 * (proxy/down.c, proxy/up.c) moves bytes between this and its conn and does as `h1_ops` says.
 *
 *      conn --bytes--> h1_input --leg_ops--> stream --leg_codec--> h1.out --bytes--> conn
 *
 * One exchange at a time: a pipelined request stays unread until the response before it is complete, and until less
 * than the high mark of earlier responses waits for a slow client. The hard part is
 * that a stream may answer, stop reading or detach from inside any event; so every event is the last thing a step does,
 * and what follows is decided anew from struct h1. It must never write framing that a guest chose.
 *
 * Upgrade: a request with one `upgrade` token (not h2c) and no body comes with message.upgrade and on_head(end =
 * false). Sending (down) or receiving (up) a 101 turns both directions of the leg into tunnels: on_body and send_body
 * carry raw bytes, `end` is a half-close. After any other final response the request is simply complete; no event tells
 * so.
 */
#ifndef WEIR_HTTP_H1_H
#define WEIR_HTTP_H1_H

#include "http/h1_parse.h"
#include "http/leg.h"

enum h1_role { H1_SERVER, H1_CLIENT };

enum {
    /* A server that has answered before the request's end reads and drops so much of the rest: that is cheaper than a
     * new connection. Beyond it the connection ends. */
    H1_REST_MAX = 64 * 1024,
};

struct h1;
/* None of these may free h, its arena-giving stream's conn or the input buf before the h1_ function that called it
 * returns (closing a socket and freeing later is fine). */
struct h1_ops {
    /* Server: the first bytes of a request are there. Make the stream: set leg->ops and leg->stream, and give its arena
     * (head memory). NULL: refuse (the owner has queued what it wants to say, e.g. by h1_send_error, and closes). */
    struct arena *(*on_begin)(struct h1 *h);
    /* Server: a request is refused and no response has begun; h->bad_status is what it deserves (400, 413, 414, 431,
     * 501, 505; 502 when the stream gave a response that cannot be sent). why may be NULL. Two cases:
     *  - the request is bad: the leg is still attached. With a bad head the stream has had no event; with a bad body it
     *    has had its head and the data before the error, and gets no more. The owner either calls h1_send_error (which
     *    forgets the leg; reset the stream afterwards), or lets the stream answer through the leg: the response says
     *    Connection: close and the stream's detach leads to on_exchange_end(false) as usual.
     *  - the response is bad (502): the stream has had on_reset just before and the leg is detached; answer by
     *    h1_send_error.
     * Close after the flush. */
    void (*on_bad_request)(struct h1 *h, enum leg_error error, const char *why);
    /* There is something to flush: called when out goes from empty to not empty, when a tunnel's direction ended (see
     * h1_wants_shutdown), and when an error waits to be delivered. The owner flushes later in this turn and then calls
     * h1_output_drained; it may flush at once, but must not call h1_output_drained, h1_input, h1_eof or
     * h1_fail from inside. */
    void (*on_output)(struct h1 *h);
    /* Reading was enabled or disabled by the stream, or input is wanted again (a tunnel began, the rest of an answered
     * request is to be dropped, pipelined requests wait). The owner asks
     * h1_wants_input, and when it is true feeds what it holds (be it nothing) to h1_input later in this turn, not from
     * inside. */
    void (*on_read_state)(struct h1 *h);
    /* The exchange is over and the leg is detached: once for each exchange, whichever way it ended, except after
     * h1_fail and h1_send_error, where the owner acts by itself. reusable: the connection may serve another exchange
     * (client: back to the pool; h1_begin_request is allowed from inside. Server: feed the rest of the input again,
     * later in this turn; when this runs inside h1_input, h1_input goes on by itself and feeding it from inside does
     * nothing). Not reusable: close after the flush; server: linger over unread input; by a reset when out_state is
     * H1_BROKEN, since what was sent is cut off and a FIN could pass for its end. */
    void (*on_exchange_end)(struct h1 *h, bool reusable);
};

/* Of each direction. */
enum h1_state {
    H1_IDLE,   /* nothing begun */
    H1_HEAD,   /* head begun but not complete */
    H1_BODY,   /* head done, message not (an upgrade request waits here for the response) */
    H1_TUNNEL, /* bytes both ways after a 101 */
    H1_END,    /* this message is complete */
    H1_BROKEN, /* in: input is of no use any more; out: cut off in the middle of a message */
};

struct h1 {
    struct leg leg; /* of the current exchange */
    const struct h1_ops *ops;
    const struct h1_limits *limits;
    enum h1_role role;
    enum h1_state in_state, out_state;
    enum message_body in_body, out_body;
    uint64_t in_left, out_left; /* of BODY_LENGTH */
    uint64_t max_body;          /* LEG_BODY_TOO_LARGE beyond it; 0 none */
    uint64_t in_bytes;          /* body bytes of the current message */
    struct h1_chunked chunked;
    struct buf *in, *out;     /* input of the running h1_input, else NULL; the conn's output queue */
    struct arena *arena;      /* where heads go */
    struct message *msg;      /* head being received */
    struct headers *trailers; /* received, not yet delivered */
    struct str method;        /* of the exchange's request; lives in the arena */
    size_t high_mark, scan_from;
    size_t unread;            /* bytes that h1_input left in its buf the last time */
    uint64_t dropped_headers; /* fields that guests wrote and the encoder refused; counts up, the owner may clear it */
    enum leg_error pending;   /* remembered error, delivered by h1_output_drained or h1_input */
    unsigned bad_status;      /* for on_bad_request */
    unsigned interims;        /* 1xx received in this exchange */
    bool keep_alive;          /* both sides agree so far */
    bool closing;             /* server: answer with Connection: close (drain); the owner sets it at any time */
    struct arena rest_arena;  /* server: trailers of a request whose stream is gone */
    unsigned begun_now;       /* server: requests begun by the running h1_input */
    bool stalled;             /* server: the next request waits for output to drain, or for the next h1_input */
    bool read_enabled, was_full, peer_http10, peer_expects_continue, interim_sent;
    bool begun;              /* bytes of the current incoming message have come (client: too late for a silent retry) */
    bool upgrade;            /* this exchange's request asks to upgrade */
    bool eof;                /* the peer has sent FIN */
    bool in_signal;          /* inside on_output or on_read_state */
    const char *server_name; /* value of the `server` header a server adds when there is none; NULL: none */
};

void h1_init(struct h1 *h, enum h1_role role, const struct h1_limits *limits, struct buf *out, size_t high_mark,
             const struct h1_ops *ops);

/* Feeds bytes; consumes what it can use now (leaves an incomplete head or a pipelined request in place).
 * Returns false when input is of no further use: read no more. What is in out is still to be flushed; on_bad_request or
 * on_exchange_end tells when to close. A client gets false for bytes that no request asked for. */
NODISCARD bool h1_input(struct h1 *h, struct buf *in);
/* The peer sent FIN; feed what was read before it first. What the codec left unread (read_enable, pipelining) is still
 * served: the owner keeps feeding it as before, and the end takes effect behind it. */
void h1_eof(struct h1 *h);
/* The connection broke (or the owner's timer ran out): resets the leg with `why`. No on_exchange_end. */
void h1_fail(struct h1 *h, enum leg_error why);
/* May more input be read now? False while the stream has stopped reading, or (server) while the response to a fully
 * read request is not complete yet and pipelined input is over its bound (limits->pipeline_bytes). */
bool h1_wants_input(const struct h1 *h);
/* Server: a complete response of the codec's own, Connection: close. Body is text/plain. Forgets the leg without any
 * event. Only while no response has begun; does nothing otherwise. */
void h1_send_error(struct h1 *h, unsigned status, struct str body);
/* With the owner's fields (borrowed) beside the framing. */
void h1_send_error_with(struct h1 *h, unsigned status, const struct headers *fields, struct str body);
/* Client: begins an exchange on an idle connection. Keeps stream and ops until detached; arena is where the response
 * head goes. */
void h1_begin_request(struct h1 *h, struct arena *arena, const struct leg_ops *ops, void *stream);
/* The owner calls this after each flush that left out below half of the high mark (empty counts), but not from inside
 * an h1_ops function: delivers on_drain if someone waits, and an error that a leg_codec function remembered. */
void h1_output_drained(struct h1 *h);
/* A tunnel's outgoing direction has ended: send FIN once out is flushed (half-close); reading goes on. */
bool h1_wants_shutdown(const struct h1 *h);
/* Server: is the rest of a request being dropped whose response is complete? The owner bounds the time. */
bool h1_is_dropping(const struct h1 *h);
/* No exchange and no input begun. */
bool h1_is_idle(const struct h1 *h);

/* Reason phrase of a status code ("OK" for 200), "" when unknown. */
const char *http_status_text(unsigned status);

#endif
