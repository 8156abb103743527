/* SPDX-License-Identifier: Apache-2.0
 *
 * Connections of one worker to endpoints: reused most-recent-first, watched for FIN while idle, opened when none is
 * idle; when an endpoint has as many as it may have, who comes next waits in line. Used by streams and by filters'
 * callouts (call.c): whoever wants to make one exchange.
 */
#ifndef WEIR_PROXY_POOL_H
#define WEIR_PROXY_POOL_H

#include "http/leg.h"
#include "proxy/cluster.h"
#include "proxy/runtime.h"

struct up; /* one connection */
struct up_request {
    struct arena *arena;       /* where the response head goes */
    const struct leg_ops *ops; /* of the exchange */
    void *owner;               /* leg->stream */
    /* A leg is ready: send the head on it. reused: the connection has served before (a failure before the first
     * response byte may be retried). Never called before pool_request returned POOL_WAIT. */
    void (*on_ready)(void *owner, struct leg *leg, bool reused);
    /* No connection could be had. */
    void (*on_failed)(void *owner, enum end_reason reason);
    const struct limits *limits;
    bool once; /* it may not be sent twice: a pooled connection is looked at before it is lent */
    /* The pool's: */
    bool fresh_only;
    struct list node; /* in endpoint->waiting */
    struct worker *worker;
    struct endpoint *endpoint; /* a reference while it is in line */
    struct up *up;             /* that connects for it, or serves it */
};
enum pool_result { POOL_READY /* *leg now */, POOL_WAIT, POOL_FAILED /* reason in *why */ };
/* POOL_WAIT: a connection is being made, or all of them are taken and this request is in line, among pending_requests
 * of its cluster. Should the endpoint be removed, who is in line gets on_failed(END_CONNECT_FAILED). */
enum pool_result pool_request(struct worker *w, struct endpoint *endpoint, struct up_request *request, bool fresh_only,
                              struct leg **leg, bool *reused, enum end_reason *why);
/* Gives up waiting. */
void pool_cancel(struct up_request *request);
/* Did this leg's connection give any response byte in the current exchange? */
bool pool_leg_has_answered(const struct leg *leg);
/* Local address of the leg's connection. */
const struct addr *pool_leg_local(const struct leg *leg);
/* Bytes that were taken from its connection and put on it (or queued) until now. */
uint64_t pool_leg_bytes_in(const struct leg *leg);
uint64_t pool_leg_bytes_out(const struct leg *leg);
/* Closes idle connections: all (drain, memory pressure). */
void pool_close_idle(struct worker *w);
/* For cluster_table.on_endpoint_removed. */
void pool_endpoint_removed(struct endpoint *e);
/* At the worker's end: closes every connection. */
void pool_cut_all(struct worker *w);

#endif
