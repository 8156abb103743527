/* SPDX-License-Identifier: Apache-2.0
 *
 * A client connection: conn + HTTP/1 codec + at most one stream. It knows when to read, when to flush (once for each
 * burst of events), how to close so that the client sees the last response, and it owns the one timer that serves the
 * connection and its stream.
 */
#ifndef WEIR_PROXY_DOWN_H
#define WEIR_PROXY_DOWN_H

#include "http/h1.h"
#include "proxy/runtime.h"

/* A listening socket on this worker; lives as long as a connection came from it. */
struct worker_listener {
    struct list node; /* worker->listeners */
    struct listener socket;
    struct worker *worker;
    struct addr addr;                 /* as control named it */
    struct listener_runtime *current; /* NULL: no Gateway has it */
    uint32_t refs;                    /* the socket's, and one for each connection */
    bool closing;
};
void worker_listener_unref(struct worker_listener *wl);

struct down;
/* Takes fd. */
void down_accept(struct worker_listener *wl, int fd, const struct addr *peer);
/* The stream on this connection has let go of it. */
void down_forget_stream(struct down *d);
/* Makes sure that the timer fires by then (loop ms); it then asks stream_deadline. */
void down_arm(struct down *d, uint64_t at_ms);
const struct addr *down_peer(const struct down *d);
const struct addr *down_local(const struct down *d);
/* The peer's IP as text. */
struct str down_peer_ip(const struct down *d);
uint64_t down_id(const struct down *d);
/* Bytes that were taken from the connection and put on it (or queued) until now. */
uint64_t down_bytes_in(const struct down *d);
uint64_t down_bytes_out(const struct down *d);
/* No new requests: idle connections close, others after their response. */
void down_drain_all(struct worker *w);
/* Closes idle connections (memory pressure, listener gone). listener NULL: of all. */
void down_close_idle(struct worker *w, const struct worker_listener *wl);
/* Cuts everything. */
void down_cut_all(struct worker *w);

/* ---- what down.c asks of streams (stream.c) ---- */
struct stream;
/* No stream was made for what came on down, and it was answered with reason's status: writes the access log line and
 * counts. listener may be NULL. Allocates nothing. */
void stream_refused(struct worker *w, struct down *down, struct listener_runtime *listener, enum end_reason reason,
                    size_t body_bytes);
/* The codec refused the request: answer through the leg. */
void stream_bad_request(struct stream *s, enum leg_error error, unsigned status);
/* When the stream's next deadline is (loop ms; UINT64_MAX: none). */
uint64_t stream_deadline(const struct stream *s, enum end_reason *why);
/* Acts on a deadline that has passed. */
void stream_expire(struct stream *s, enum end_reason why);
/* Bytes moved on a connection of it. */
void stream_touch(struct stream *s);

#endif
