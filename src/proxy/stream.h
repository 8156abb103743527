/* SPDX-License-Identifier: Apache-2.0
 *
 * A stream: one proxied exchange. Two directions run at once, each through its own step table (stream_request.c,
 * stream_response.c), over one shared end state:
 *
 *   request:   HEADERS -> ROUTE -> CONNECT -> SEND -> BODY -> DONE
 *   response:  WAIT -> HEADERS -> SEND -> BODY -> DONE
 *
 * A step returns NEXT, WAIT or END. Entry points (leg events, timers, filter_continue) only record what happened and
 * run the one driver; nobody re-enters. Everything of a stream lives in its arena and goes with it.
 */
#ifndef WEIR_PROXY_STREAM_H
#define WEIR_PROXY_STREAM_H

#include "http/leg.h"
#include "io/loop.h"
#include "proxy/cluster.h"
#include "proxy/filter.h"
#include "proxy/route.h"
#include "proxy/runtime.h"

struct down;
struct up;

/* One entry of a stream's filter state (set_property): keys as the guest gave them, whole path. */
struct stream_property {
    struct stream_property *next;
    struct str key, value;
    uint32_t room;
};

/* What is known of one direction, for log, properties and metrics. */
struct stream_side {
    struct message *msg;      /* head; NULL until it came. Request: as edited by filters */
    struct headers *trailers; /* NULL when none */
    uint64_t body_bytes;      /* from the wire */
    uint64_t body_bytes_out;  /* to the wire */
    bool ended;               /* the whole message went to the other side */
};

/* Bytes of an exchange as they passed on its connection: heads, framing and bodies. While the exchange runs, less what
 * the connection had seen before it. */
struct wire_bytes {
    uint64_t received, sent;
};

struct stream {
    struct list node; /* worker->streams */
    struct worker *worker;
    struct runtime *runtime; /* one reference */
    struct listener_runtime *listener;
    struct arena arena;
    uint64_t id;
    struct down *down; /* NULL once the client's connection is gone */
    struct leg *down_leg;
    struct leg *up_leg; /* NULL until connected */
    struct up *up;
    struct stream_side side[2]; /* by enum direction */

    struct filter *filters; /* chain_count of them */
    size_t filter_count;

    struct route_hit route; /* cached; route.route NULL */
    bool route_known;
    struct cluster *cluster;
    struct endpoint *endpoint;
    struct str request_id, original_path; /* path before filters and rewrites */
    struct addr remote, peer, local;      /* client as trusted X-Forwarded-For says; the socket's peer; our address */
    struct addr up_local;                 /* our address towards the endpoint; u.sa.sa_family 0 until connected */
    uint64_t conn_id;
    struct wire_bytes down_wire, up_wire; /* up: of all attempts */

    enum end_reason reason;
    struct str details; /* overrides end_reason_details when not empty (guest's local reply) */
    uint16_t status;    /* sent downstream; 0 none */
    unsigned attempts;  /* upstream requests made */
    struct stream_property *properties;

    uint64_t start_ns, request_end_ns, up_start_ns, up_head_ns, end_ns; /* monotonic ns; 0: not yet */
    uint64_t start_wall_ns;

    struct stream_private *priv; /* of stream.c and the step tables */
};

/* A new request begins on down: made when its first byte came, so that head bytes have an arena. May return NULL when
 * there is no memory budget. */
struct stream *stream_new(struct worker *w, struct down *down, struct listener_runtime *listener);
/* The route of the request as it is now: looks up when not cached. NULL: none (or an error that has ended the stream).
 */
const struct route *stream_route(struct stream *s);
/* The stream has ended for this reason without an answer being possible (client gone, cut). */
void stream_abort(struct stream *s, enum end_reason reason);
/* There is memory again: a source that was stopped may go on. */
void stream_budget_eased(struct stream *s);
/* A property a filter set: value or STR_NONE with *found false. Setting replaces; bounded by the arena (false: full).
 */
struct str stream_property_get(const struct stream *s, struct str key, bool *found);
NODISCARD bool stream_property_set(struct stream *s, struct str key, struct str value);

#endif
