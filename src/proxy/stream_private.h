/* SPDX-License-Identifier: Apache-2.0
 *
 * What the parts of a stream share: stream.c (life, events, driver, deadlines), chain.c (filters), stream_request.c and
 * stream_response.c (the step tables), request_head.c (what the edge does to a head), reply.c. Nobody else includes it.
 *
 * A flow is one direction of a stream on its way from the source leg through the chain to the sink leg:
 *
 *   source leg -> [position 0] -> [position 1] -> ... -> out -> sink leg
 *
 * Position k is filter k for requests and filter n-1-k for responses. The head stands at head_at (next to be called, or
 * held there); body bytes that a filter holds are in its filter_side; what came out of the chain and cannot be sent yet
 * is in out.
 */
#ifndef WEIR_PROXY_STREAM_PRIVATE_H
#define WEIR_PROXY_STREAM_PRIVATE_H

#include "proxy/down.h"
#include "proxy/pool.h"
#include "proxy/stream.h"

enum step { STEP_NEXT, STEP_WAIT, STEP_END };
enum request_step { REQUEST_HEADERS, REQUEST_ROUTE, REQUEST_CONNECT, REQUEST_SEND, REQUEST_BODY, REQUEST_DONE };
enum response_step { RESPONSE_WAIT, RESPONSE_HEADERS, RESPONSE_SEND, RESPONSE_BODY, RESPONSE_DONE };

/* What one direction of a stream may hold near the memory budget, instead of limits.buffer_bytes. */
enum { BUFFER_BYTES_NEAR = 64 * 1024 };

struct flow {
    /* source */
    bool head_end; /* the message ends with its head */
    bool end_in;   /* all of it came */
    bool discard;  /* what still comes is of no interest */
    bool read_off; /* the source leg was told to stop reading */
    /* chain */
    uint32_t head_at;
    uint32_t trailers_at; /* next position whose trailers callback runs, or that holds them; valid when has_trailers */
    bool has_trailers;    /* they came, or a filter made them */
    bool trailers_made;   /* inside a body callback: the filter made trailers */
    bool resized;         /* a filter changed the number of body bytes */
    struct buf *shown;    /* what the running body callback sees */
    struct filter *shown_to;
    bool shown_end;
    /* sink */
    bool head_passed, head_sent;
    bool out_end; /* the end of the body came out of the chain (trailers may follow it) */
    bool out_trailers;
    uint64_t paused_since; /* loop ms: the stream waits for a filter; 0: it does not */
    struct buf out;        /* last: a reply that takes the response's place clears what is before it */
};

struct stream_private {
    struct flow flow[2]; /* by enum direction */
    enum request_step request;
    enum response_step response;
    bool running;      /* the driver is on the stack */
    bool ended;        /* decided; stream_finish follows */
    bool finished;     /* legs detached; only the last callbacks and the log are to come */
    bool resume;       /* some filter_side.resume is set */
    bool reply_wanted; /* reply is to begin */
    bool replied;      /* the response is our own */
    bool reply_direct; /* it passes no filter */
    bool shed;         /* no memory budget: answer 503 whatever it asks */
    bool tunnel;       /* 101 went through */
    bool continued;    /* 100 was sent */
    bool connecting;   /* up_request waits in the pool */
    bool up_reused;
    bool sent_body;       /* body bytes went to the endpoint and are not held: no retry any more */
    bool counted;   /* endpoint->active */
    unsigned connect_tries;
    uint32_t reply_from; /* filters up to this one see the reply */
    struct reply reply;
    struct buf reply_body;
    struct up_request up_request;
    struct buf *resend;     /* body bytes that went to the endpoint, while they may have to go again; arena memory */
    struct endpoint *avoid; /* the one that just failed; no reference, only compared */
    const struct route_backend *backend;
    struct loop_task kick, finish;
    /* loop ms */
    uint64_t start_ms, active_ms, request_end_ms;
    uint64_t up_start_ms; /* it began to look for an endpoint; 0: not yet */
};

static inline const struct limits *stream_limits(const struct stream *s) { return &s->listener->conf->limits; }
static inline struct filter *chain_at(const struct stream *s, enum direction dir, uint32_t position)
{
    return &s->filters[dir == DIR_REQUEST ? position : (uint32_t)s->filter_count - 1 - position];
}
static inline uint32_t chain_position(const struct filter *f, enum direction dir)
{
    return dir == DIR_REQUEST ? f->index : (uint32_t)f->stream->filter_count - 1 - f->index;
}
/* Nothing more may pass: the stream ends, or a reply takes the place of what flows. */
static inline bool stream_is_stopped(const struct stream *s) { return s->priv->ended || s->priv->reply_wanted; }

/* ---- stream.c ---- */
extern const struct leg_ops stream_down_ops, stream_up_ops;
void stream_drive(struct stream *s);
/* Has stream_drive run later in this turn, unless it runs already. */
void stream_kick(struct stream *s);
/* Decides the end; no answer goes out any more. */
void stream_end(struct stream *s, enum end_reason reason);
/* The up leg goes: abort cuts its connection. */
void stream_drop_up(struct stream *s, bool abort);
/* Is the head to wait for the body's first bytes? A filter may change the length that it declares; when they turn out
 * to be all, the new length is known. */
bool flow_waits(const struct stream *s, enum direction dir);
/* Sets body and content_length of the head that is about to be sent from what the chain left. */
void flow_frame(struct stream *s, enum direction dir);
/* Sends what came out of the chain to leg; true when the end went too. */
bool flow_send(struct stream *s, enum direction dir, struct leg *leg);

/* ---- chain.c ---- */
/* Each moves things on as far as the filters let them. */
void chain_head(struct stream *s, enum direction dir);
void chain_data(struct stream *s, enum direction dir, uint32_t position, struct buf *data, bool end);
void chain_trailers(struct stream *s, enum direction dir);
void chain_resume(struct stream *s);
/* Bytes held with back-pressure. */
size_t chain_held(const struct stream *s, enum direction dir);
/* The filter that this direction waits for, or NULL: source has no more to give (ended) or may give no more. */
const struct filter *chain_waits_for(const struct stream *s, enum direction dir);
/* Some filter holds the head but wants the body. */
bool chain_wants_body(const struct stream *s, enum direction dir);
void chain_free(struct stream *s);

/* ---- request_head.c ---- */
/* Normalises the path, adds what the edge adds, makes the filters. May ask for a reply. */
void request_head(struct stream *s);

/* ---- step tables ---- */
void request_run(struct stream *s);
void response_run(struct stream *s);
/* data is about to go to the endpoint: keeps it for as long as the request may be sent again. */
void request_keep_body(struct stream *s, const struct buf *data);
/* It will not be sent again. */
void request_forget_body(struct stream *s);
/* The up leg or the attempt to get one failed. */
void request_failed(struct stream *s, enum end_reason reason, bool may_retry);
/* Route's edits of the response head, before the filters see it. */
void response_edit(struct stream *s);

/* ---- reply.c ---- */
/* A reply by the proxy itself for this reason; passes the filters that saw the request. Resets when the response head
 * has gone. */
void reply_reason(struct stream *s, enum end_reason reason);
/* As reply_reason, with another status. */
void reply_status(struct stream *s, enum end_reason reason, unsigned status);
/* As filter_reply, for filters up to index `from`. override: also when a reply is under way. */
void reply_want(struct stream *s, const struct reply *r, uint32_t from, bool override);
/* Makes the wanted reply the response. */
void reply_begin(struct stream *s);

#endif
