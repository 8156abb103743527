/* SPDX-License-Identifier: Apache-2.0
 *
 * Everything a peer can size or delay, in one table: name, unit, default, smallest and largest value, and why. A user
 * sets them in a ConfigMap that the GatewayClass or the Gateway names as parametersRef (data: {max-head-bytes: 64Ki});
 * docs/limits.md is made from this table.
 */
#ifndef WEIR_CONF_LIMITS_H
#define WEIR_CONF_LIMITS_H

#include "base/diag.h"
#include "base/str.h"

#define KIB     1024ull
#define MIB     (1024ull * 1024)
#define GIB     (1024ull * 1024 * 1024)
#define SECONDS 1000ull

/* X(field, "key", UNIT, default, min, max, "reason") ; BYTES take Ki Mi Gi, MS take ms s m h (0 = none where min is 0),
 * COUNT and FLAG (0/1, true/false) */
#define LIMITS(X)                                                                                                      \
    X(head_bytes, "max-head-bytes", BYTES, 60 * KIB, 1 * KIB, 1 * MIB,                                                 \
      "request or response head, as Envoy's max_request_headers_kb")                                                   \
    X(headers, "max-headers", COUNT, 100, 1, 10000,                                                                    \
      "header fields in a head or in trailers, as Envoy's max_headers_count")                                          \
    X(uri_bytes, "max-uri-bytes", BYTES, 16 * KIB, 256, 64 * KIB,                                                      \
      "request target; longer ones are attacks or mistakes")                                                           \
    X(body_bytes, "max-body-bytes", BYTES, 0, 0, 1024 * GIB, "request body; 0: no limit, bodies stream")               \
    X(buffer_bytes, "buffer-bytes", BYTES, 1 * MIB, 16 * KIB, 256 * MIB,                                               \
      "what one direction of a stream may hold: back-pressure above it, 413/500 when a filter buffers more, as "       \
      "Envoy's per_connection_buffer_limit_bytes")                                                                     \
    X(output_bytes, "output-bytes", BYTES, 128 * KIB, 16 * KIB, 16 * MIB,                                              \
      "bytes queued for a slow peer before its source stops being read")                                               \
    X(pipeline_bytes, "pipeline-bytes", BYTES, 64 * KIB, 4 * KIB, 1 * MIB,                                             \
      "unread pipelined input held for a connection")                                                                  \
    X(arena_bytes, "arena-bytes", BYTES, 1 * MIB, 64 * KIB, 64 * MIB, "memory of one stream besides its buffers")      \
    X(connections, "max-connections", COUNT, 20000, 1, 1000000,                                                        \
      "client connections of a worker; more are answered 503 and closed")                                              \
    X(streams_per_connection, "max-streams-per-connection", COUNT, 0, 0, 1000000000,                                   \
      "then Connection: close; 0: no limit")                                                                           \
    X(up_connections, "max-upstream-connections", COUNT, 4096, 1, 1000000, "connections of a worker to one endpoint")  \
    X(up_idle, "max-idle-upstream", COUNT, 256, 0, 100000, "idle connections of a worker kept for one endpoint")       \
    X(pending_requests, "max-pending-requests", COUNT, 4096, 1, 1000000,                                               \
      "streams of a worker waiting for a connection to one cluster")                                                   \
    X(head_timeout, "head-timeout", MS, 30 * SECONDS, 100, 3600 * SECONDS,                                             \
      "from the first byte of a request to its whole head (slowloris): 408")                                           \
    X(idle_timeout, "idle-timeout", MS, 300 * SECONDS, 100, 86400 * SECONDS, "client connection without a request")    \
    X(stream_idle_timeout, "stream-idle-timeout", MS, 300 * SECONDS, 0, 86400 * SECONDS,                               \
      "no byte either way: 408 or 504, as Envoy's stream_idle_timeout")                                                \
    X(request_timeout, "request-timeout", MS, 0, 0, 86400 * SECONDS, "whole request to be received: 408; 0: none")     \
    X(connect_timeout, "connect-timeout", MS, 5 * SECONDS, 10, 600 * SECONDS, "to an endpoint: 503")                   \
    X(response_timeout, "response-timeout", MS, 15 * SECONDS, 0, 86400 * SECONDS,                                      \
      "from the end of the request to the end of the response head: 504, as Envoy's route timeout")                    \
    X(up_idle_timeout, "upstream-idle-timeout", MS, 60 * SECONDS, 100, 86400 * SECONDS, "idle upstream connection")    \
    X(linger_timeout, "linger-timeout", MS, 1 * SECONDS, 0, 60 * SECONDS,                                              \
      "reading on after an early response, so that the client sees it")                                                \
    X(pause_timeout, "pause-timeout", MS, 60 * SECONDS, 100, 3600 * SECONDS,                                           \
      "a plugin that paused a stream must continue it")                                                                \
    X(call_timeout, "call-timeout", MS, 30 * SECONDS, 10, 600 * SECONDS, "ceiling of a filter's HTTP callout")         \
    X(call_body_bytes, "call-body-bytes", BYTES, 1 * MIB, 1 * KIB, 64 * MIB, "answer to a filter's HTTP callout")      \
    X(memory_bytes, "memory-budget", BYTES, 0, 0, 1024 * GIB,                                                          \
      "buffers, arenas and guests of the process; 0: 80 % of the cgroup or machine")                                   \
    X(xff_num_trusted_hops, "xff-num-trusted-hops", COUNT, 0, 0, 100,                                                  \
      "as Envoy: how many proxies before us may be believed in X-Forwarded-For")                                       \
    X(use_remote_address, "use-remote-address", FLAG, 1, 0, 1,                                                         \
      "append the peer to X-Forwarded-For and do not trust what it sent, as Istio's gateways")                         \
    X(x_forwarded_host, "append-x-forwarded-host", FLAG, 0, 0, 1,                                                      \
      "X-Forwarded-Host when a route rewrites the host; off as Envoy's append_x_forwarded_host")                       \
    X(via, "via", FLAG, 0, 0, 1, "append Via; off as in Envoy")                                                        \
    X(preserve_request_id, "preserve-external-request-id", FLAG, 0, 0, 1, "keep X-Request-Id of clients, as Envoy")    \
    X(debug_headers, "debug-headers", FLAG, 0, 0, 1, "x-weir-end-reason on local replies")

enum path_normalization { PATH_NONE, PATH_BASE, PATH_MERGE_SLASHES, PATH_DECODE_AND_MERGE_SLASHES };
enum access_log_format { ACCESS_LOG_OFF, ACCESS_LOG_TEXT, ACCESS_LOG_JSON };

struct limits {
#define X(field, key, unit, def, min, max, reason) uint64_t field;
    LIMITS(X)
#undef X
    enum path_normalization path_normalization; /* "path-normalization": NONE, BASE (default), MERGE_SLASHES,
                                                   DECODE_AND_MERGE_SLASHES, as Istio */
    enum access_log_format access_log;          /* "access-log": off, text (default), json */
    char *access_log_text;                      /* "access-log-format": Envoy operators; NULL: Envoy's default format */
    char *server_name;                          /* "server-name": NULL: "weir" */
};

void limits_default(struct limits *l);
/* Reads one key; errors to diag with file, line (may be 0) and path. Unknown keys are errors. */
void limits_set(struct limits *l, struct str key, struct str value, const char *file, unsigned line, const char *path,
                struct diag *diag);
void limits_copy(struct limits *dst, const struct limits *src);
void limits_free(struct limits *l);
/* Markdown table of all limits, for docs/limits.md. */
void limits_write_markdown(struct strbuf *out);

#endif
