/* SPDX-License-Identifier: Apache-2.0
 *
 * A filter of one stream and the chain it stands in. filter_ops is how the stream speaks to filters (the third and last
 * upward table); the functions below are how a filter speaks back. Request callbacks run in chain order, response
 * callbacks in reverse.
 *
 *     request:   [f0] -> [f1] -> [f2] -> route -> up leg
 *     response:  down leg <- [f0] <- [f1] <- [f2] <-
 *
 * Each direction of each filter is in one filter_state; body bytes a filter holds are in `held` of that direction.
 * docs/abi.md has the truth table.
 */
#ifndef WEIR_PROXY_FILTER_H
#define WEIR_PROXY_FILTER_H

#include "base/buf.h"
#include "base/headers.h"
#include "proxy/end_reason.h"

struct stream;
struct filter;

enum direction { DIR_REQUEST, DIR_RESPONSE };

enum filter_result {
    FILTER_CONTINUE,
    FILTER_STOP,     /* headers: hold them, the body still comes to this filter; trailers: hold */
    FILTER_STOP_ALL, /* headers: no further callback in this direction until continue; body waits, back-pressure at the
                        buffer limit */
    FILTER_STOP_ALL_BUFFER, /* as above, but a body over the limit is 413 / 500 */
    FILTER_BUFFER,    /* body: hold everything so far; the next callback sees all of it; over the limit 413 / 500 */
    FILTER_WATERMARK, /* body: hold; the next callback sees its own bytes; back-pressure instead of an error */
    FILTER_NO_BUFFER, /* body: these bytes are the filter's; they go no further */
    FILTER_ENDED,     /* the filter (or its failure) has replied to or ended the stream: stop, look at nothing */
};

/* NULL functions are skipped in that phase. `data` of a body callback holds what the filter may see and edit: the new
 * bytes, behind all held ones after FILTER_BUFFER. */
struct filter_ops {
    enum filter_result (*request_headers)(struct filter *f, struct headers *headers, bool end);
    enum filter_result (*request_body)(struct filter *f, struct buf *data, bool end);
    enum filter_result (*request_trailers)(struct filter *f, struct headers *trailers);
    enum filter_result (*response_headers)(struct filter *f, struct headers *headers, bool end);
    enum filter_result (*response_body)(struct filter *f, struct buf *data, bool end);
    enum filter_result (*response_trailers)(struct filter *f, struct headers *trailers);
    /* The stream is complete (both directions ended, or it was cut): log and let go. Everything of the stream is still
     * readable, nothing may be edited. Called once for every filter of the chain, request order. */
    void (*ended)(struct filter *f);
    /* A body callback changed the number of bytes, or made trailers, behind a head whose content-length is out already:
     * the stream cannot end well. NULL: nobody wants to know. */
    void (*broke_length)(struct filter *f, enum direction dir);
    /* It has done so before: heads wait for it, or go without a length. */
    bool breaks_length[2];
};

enum filter_state {
    FILTER_FRESH, /* headers have not come to it */
    FILTER_IN_CALLBACK,
    FILTER_HOLDS_HEADERS, /* FILTER_STOP from headers: gets body callbacks */
    FILTER_HOLDS_ALL,     /* FILTER_STOP_ALL[_BUFFER] */
    FILTER_OPEN,          /* headers passed on, body passes */
    FILTER_HOLDS_BODY,    /* headers passed on, body held */
    FILTER_HOLDS_TRAILERS,
    FILTER_FINISHED, /* the end of the message went past it */
    FILTER_BYPASSED, /* takes no part in this direction (any more) */
};
struct filter_side {
    enum filter_state state;
    bool over_is_error; /* what holds: *_BUFFER rather than watermark */
    bool shows_held;    /* the last body callback answered FILTER_BUFFER: the next one sees what is held */
    bool end_held;      /* the end of the body is among what is held */
    bool resume;        /* filter_continue was called; the stream's own */
    struct buf *held;   /* NULL until needed; arena memory */
};

struct filter {
    const struct filter_ops *ops;
    struct stream *stream;
    void *self; /* the filter's own, e.g. struct filter_wasm */
    uint32_t index;
    struct filter_side side[2]; /* by enum direction */
};

/* ---- what a filter may ask of its stream; none of them calls the filter before returning ---- */

/* Resume after any STOP/BUFFER/WATERMARK. Does nothing when the filter holds nothing in that direction or the stream
 * has ended. The driver runs when the current event is done (or before stream_kick returns). */
void filter_continue(struct filter *f, enum direction dir);
/* A complete response of the proxy's own. Before the response has started it goes back through the response callbacks
 * of this filter and of the filters before it (those whose request callback ran, the replier included); when response
 * headers are in progress but unsent it goes straight to the codec; when they are sent the stream is reset. A second
 * reply does nothing. body may be empty. extra: appended after our own headers. */
struct reply {
    unsigned status;
    struct str details; /* response code details; empty: those of reason */
    struct str body;
    const struct header *extra;
    size_t extra_count;
    int grpc_status; /* -1 none */
    enum end_reason reason;
    bool skip_filters; /* straight to the codec */
};
void filter_reply(struct filter *f, const struct reply *reply);
/* Reset without an answer. */
void filter_close(struct filter *f, enum end_reason reason);
/* May the map be read / edited now (see docs/abi.md)? NULL when not. Trailers with for_write inside the end-of-body
 * callback of that direction are created. */
struct headers *filter_headers(struct filter *f, enum direction dir, bool trailers, bool for_write);
/* The body that this filter may see now (inside its body callback, or held by it), or NULL. */
struct buf *filter_body(struct filter *f, enum direction dir);
/* The next look at the route computes it again. */
void filter_clear_route(struct filter *f);
/* Has the stream's driver run later in this turn of the loop, for events that come from outside a stream callback (a
 * callout's answer, a tick). The functions above do so by themselves; calling it again is harmless. Nothing of the
 * stream is freed before the caller's own turn is over. */
void filter_kick(struct filter *f);

#endif
