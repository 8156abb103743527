/* SPDX-License-Identifier: Apache-2.0
 *
 * Why a stream ended, in one table: the word that stands in the log and the metric (Envoy's response code details where
 * it has one), the status of the local reply (0: none, the response was the upstream's or nobody is left to answer),
 * Envoy's response flag, and the text of the body. docs/end-reasons.md is made from it.
 */
#ifndef WEIR_PROXY_END_REASON_H
#define WEIR_PROXY_END_REASON_H

/* X(ID, "details", status, "flag", "body") */
#define END_REASONS(X)                                                                                                 \
    X(NONE, "in_progress", 0, "", "")                                                                                  \
    X(VIA_UPSTREAM, "via_upstream", 0, "", "")                                                                         \
    X(BAD_REQUEST, "http1.codec_error", 400, "DPE", "bad request\n")                                                   \
    X(BAD_PATH, "path_normalization_failed", 400, "", "bad request path\n")                                            \
    X(HEADER_NOT_UTF8, "wasm_header_not_utf8", 400, "", "request header is not UTF-8\n")                               \
    X(DIRECT_RESPONSE, "direct_response", 0, "", "")                                                                   \
    X(ROUTE_NOT_FOUND, "route_not_found", 404, "NR", "")                                                               \
    X(CONNECT_REFUSED, "connect_not_supported", 405, "NR", "CONNECT is not supported\n")                               \
    X(HEAD_TIMEOUT, "request_header_timeout", 408, "", "request timeout\n")                                            \
    X(REQUEST_TIMEOUT, "request_overall_timeout", 408, "", "request timeout\n")                                        \
    X(IDLE_TIMEOUT, "stream_idle_timeout", 408, "SI", "stream timeout\n")                                              \
    X(BODY_TOO_LARGE, "request_payload_too_large", 413, "", "payload too large\n")                                     \
    X(URI_TOO_LONG, "uri_too_long", 414, "", "URI too long\n")                                                         \
    X(HEAD_TOO_LARGE, "request_headers_too_large", 431, "", "request headers too large\n")                             \
    X(INTERNAL, "internal_error", 500, "", "internal error\n")                                                         \
    X(RESPONSE_TOO_LARGE, "response_payload_too_large", 500, "", "response payload too large\n")                       \
    X(MATCH_LIMIT, "route_regex_limit", 500, "", "internal error\n")                                                   \
    X(ARENA_FULL, "stream_memory_limit", 500, "", "internal error\n")                                                  \
    X(GUEST_BAD_HEAD, "filter_invalid_headers", 500, "", "internal error\n")                                           \
    X(UNSUPPORTED, "not_implemented", 501, "", "not implemented\n")                                                    \
    X(VERSION, "http_version_not_supported", 505, "", "HTTP version not supported\n")                                  \
    X(UPSTREAM_BAD, "upstream_protocol_error", 502, "UPE", "upstream protocol error\n")                                \
    X(UPSTREAM_RESET, "upstream_reset_before_response_started", 503, "UC",                                             \
      "upstream connect error or disconnect before headers\n")                                                         \
    X(UPSTREAM_RESET_BODY, "upstream_reset_after_response_started", 0, "UC", "")                                       \
    X(CONNECT_FAILED, "upstream_connect_failure", 503, "UF", "upstream connect failure\n")                             \
    X(NO_CLUSTER, "cluster_not_found", 500, "NC", "backend not found\n")                                               \
    X(NO_ENDPOINT, "no_healthy_upstream", 503, "UH", "no healthy upstream\n")                                          \
    X(UPSTREAM_OVERFLOW, "upstream_overflow", 503, "UO", "upstream overflow\n")                                        \
    X(RESPONSE_TIMEOUT, "response_timeout", 504, "UT", "upstream request timeout\n")                                   \
    X(OVERLOAD, "overload", 503, "OM", "memory budget exhausted\n")                                                    \
    X(PLUGIN_ABSENT, "wasm_not_loaded", 403, "", "plugin is not loaded\n")                                             \
    X(PLUGIN_FAILED, "wasm_fail_stream", 503, "", "")                                                                  \
    X(PLUGIN_QUARANTINED, "wasm_quarantined", 503, "", "")                                                             \
    X(PLUGIN_REPLY, "wasm_local_reply", 0, "", "")                                                                     \
    X(PLUGIN_CLOSED, "wasm_close_stream", 0, "", "")                                                                   \
    X(PAUSE_TIMEOUT, "wasm_pause_timeout", 504, "", "filter did not continue in time\n")                               \
    X(TUNNEL, "tunnel_closed", 0, "", "")                                                                              \
    X(CLIENT_GONE, "downstream_remote_disconnect", 0, "DC", "")                                                        \
    X(DRAIN_CUT, "drain_time_over", 0, "", "")

enum end_reason {
#define X(id, details, status, flag, body) END_##id,
    END_REASONS(X)
#undef X
        END_COUNT
};
const char *end_reason_details(enum end_reason r);
unsigned end_reason_status(enum end_reason r);
const char *end_reason_flag(enum end_reason r);
const char *end_reason_body(enum end_reason r);

#endif
