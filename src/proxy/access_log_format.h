/* SPDX-License-Identifier: Apache-2.0
 *
 * A compiled access log format: a list of pieces, each a literal or an operator. Private to access_log*.c.
 */
#ifndef WEIR_PROXY_ACCESS_LOG_FORMAT_H
#define WEIR_PROXY_ACCESS_LOG_FORMAT_H

#include "base/headers.h"
#include "proxy/access_log.h"

/* X(op, "NAME", what stands in its parentheses) */
#define LOG_OPERATORS(X)                                                                                               \
    X(START_TIME, "START_TIME", MAYBE)                                                                                 \
    X(REQ, "REQ", NEEDED)                                                                                              \
    X(REQ, "REQUEST_HEADER", NEEDED)                                                                                   \
    X(RESP, "RESP", NEEDED)                                                                                            \
    X(RESP, "RESPONSE_HEADER", NEEDED)                                                                                 \
    X(TRAILER, "TRAILER", NEEDED)                                                                                      \
    X(TRAILER, "RESPONSE_TRAILER", NEEDED)                                                                             \
    X(FILTER_STATE, "FILTER_STATE", NEEDED)                                                                            \
    X(PROTOCOL, "PROTOCOL", NONE)                                                                                      \
    X(RESPONSE_CODE, "RESPONSE_CODE", NONE)                                                                            \
    X(RESPONSE_CODE_DETAILS, "RESPONSE_CODE_DETAILS", NONE)                                                            \
    X(RESPONSE_FLAGS, "RESPONSE_FLAGS", NONE)                                                                          \
    X(BYTES_RECEIVED, "BYTES_RECEIVED", NONE)                                                                          \
    X(BYTES_SENT, "BYTES_SENT", NONE)                                                                                  \
    X(REQUEST_HEADERS_BYTES, "REQUEST_HEADERS_BYTES", NONE)                                                            \
    X(RESPONSE_HEADERS_BYTES, "RESPONSE_HEADERS_BYTES", NONE)                                                          \
    X(DURATION, "DURATION", NONE)                                                                                      \
    X(REQUEST_DURATION, "REQUEST_DURATION", NONE)                                                                      \
    X(RESPONSE_DURATION, "RESPONSE_DURATION", NONE)                                                                    \
    X(RESPONSE_TX_DURATION, "RESPONSE_TX_DURATION", NONE)                                                              \
    X(UPSTREAM_HOST, "UPSTREAM_HOST", NONE)                                                                            \
    X(UPSTREAM_HOST, "UPSTREAM_REMOTE_ADDRESS", NONE)                                                                  \
    X(UPSTREAM_IP, "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", NONE)                                                       \
    X(UPSTREAM_PORT, "UPSTREAM_REMOTE_PORT", NONE)                                                                     \
    X(UPSTREAM_CLUSTER, "UPSTREAM_CLUSTER", NONE)                                                                      \
    X(UPSTREAM_CLUSTER, "UPSTREAM_CLUSTER_RAW", NONE)                                                                  \
    X(UPSTREAM_LOCAL_ADDRESS, "UPSTREAM_LOCAL_ADDRESS", NONE)                                                          \
    X(UPSTREAM_LOCAL_IP, "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", NONE)                                                  \
    X(UPSTREAM_LOCAL_PORT, "UPSTREAM_LOCAL_PORT", NONE)                                                                \
    X(ATTEMPTS, "UPSTREAM_REQUEST_ATTEMPT_COUNT", NONE)                                                                \
    X(REMOTE, "DOWNSTREAM_REMOTE_ADDRESS", NONE)                                                                       \
    X(REMOTE_IP, "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", NONE)                                                       \
    X(REMOTE_PORT, "DOWNSTREAM_REMOTE_PORT", NONE)                                                                     \
    X(PEER, "DOWNSTREAM_DIRECT_REMOTE_ADDRESS", NONE)                                                                  \
    X(PEER_IP, "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", NONE)                                                  \
    X(PEER_PORT, "DOWNSTREAM_DIRECT_REMOTE_PORT", NONE)                                                                \
    X(LOCAL, "DOWNSTREAM_LOCAL_ADDRESS", NONE)                                                                         \
    X(LOCAL_IP, "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", NONE)                                                         \
    X(LOCAL_PORT, "DOWNSTREAM_LOCAL_PORT", NONE)                                                                       \
    X(ROUTE_NAME, "ROUTE_NAME", NONE)                                                                                  \
    X(HOSTNAME, "HOSTNAME", NONE)                                                                                      \
    X(STREAM_ID, "STREAM_ID", NONE)                                                                                    \
    X(CONNECTION_ID, "CONNECTION_ID", NONE)                                                                            \
    X(END_REASON, "END_REASON", NONE)                                                                                  \
    X(RESPONSE_FLAGS_LONG, "RESPONSE_FLAGS_LONG", NONE)                                                                \
    X(GRPC_STATUS, "GRPC_STATUS", MAYBE)                                                                               \
    X(GRPC_STATUS_NUMBER, "GRPC_STATUS_NUMBER", NONE)                                                                  \
    X(PATH, "PATH", MAYBE)                                                                                             \
    X(QUERY_PARAM, "QUERY_PARAM", NEEDED)                                                                              \
    X(COMMON_DURATION, "COMMON_DURATION", NEEDED)                                                                      \
    X(DOWN_WIRE_RECEIVED, "DOWNSTREAM_WIRE_BYTES_RECEIVED", NONE)                                                      \
    X(DOWN_WIRE_SENT, "DOWNSTREAM_WIRE_BYTES_SENT", NONE)                                                              \
    X(UP_WIRE_RECEIVED, "UPSTREAM_WIRE_BYTES_RECEIVED", NONE)                                                          \
    X(UP_WIRE_SENT, "UPSTREAM_WIRE_BYTES_SENT", NONE)                                                                  \
    X(REQUEST_HEADERS_BYTES, "DOWNSTREAM_HEADER_BYTES_RECEIVED", NONE)                                                 \
    X(RESPONSE_HEADERS_BYTES, "UPSTREAM_HEADER_BYTES_RECEIVED", NONE)                                                  \
    X(UPSTREAM_PROTOCOL, "UPSTREAM_PROTOCOL", NONE)                                                                    \
    X(ENVIRONMENT, "ENVIRONMENT", NEEDED)                                                                              \
    X(ACCESS_LOG_TYPE, "ACCESS_LOG_TYPE", NONE)                                                                        \
    /* What Weir's filters, or plain HTTP, never have; known so that a format of Envoy or Istio is taken as it is. */  \
    X(ABSENT, "DYNAMIC_METADATA", NEEDED)                                                                              \
    X(ABSENT, "CLUSTER_METADATA", NEEDED)                                                                              \
    X(ABSENT, "UPSTREAM_METADATA", NEEDED)                                                                             \
    X(ABSENT, "METADATA", NEEDED)                                                                                      \
    X(ABSENT, "TRACE_ID", NONE)                                                                                        \
    X(ABSENT, "DOWNSTREAM_TLS_VERSION", NONE)                                                                          \
    X(ABSENT, "DOWNSTREAM_TLS_CIPHER", NONE)                                                                           \
    X(ABSENT, "DOWNSTREAM_PEER_SUBJECT", NONE)                                                                         \
    X(ABSENT, "DOWNSTREAM_PEER_URI_SAN", NONE)                                                                         \
    X(ABSENT, "DOWNSTREAM_LOCAL_URI_SAN", NONE)                                                                        \
    X(ABSENT, "DOWNSTREAM_TRANSPORT_FAILURE_REASON", NONE)                                                             \
    X(ABSENT, "REQUESTED_SERVER_NAME", NONE)                                                                           \
    X(ABSENT, "CONNECTION_TERMINATION_DETAILS", NONE)                                                                  \
    X(ABSENT, "UPSTREAM_TRANSPORT_FAILURE_REASON", NONE)

/* Those above, in order of first appearance, and what START_TIME and literals become. */
enum log_op {
    OP_LITERAL,
    OP_START_TIME,
    OP_TIME,          /* strftime of text */
    OP_TIME_FRACTION, /* `digits` of the second */
    OP_TIME_SECONDS,  /* since 1970 */
    OP_REQ,
    OP_RESP,
    OP_TRAILER,
    OP_FILTER_STATE,
    OP_PROTOCOL,
    OP_RESPONSE_CODE,
    OP_RESPONSE_CODE_DETAILS,
    OP_RESPONSE_FLAGS,
    OP_BYTES_RECEIVED,
    OP_BYTES_SENT,
    OP_REQUEST_HEADERS_BYTES,
    OP_RESPONSE_HEADERS_BYTES,
    OP_DURATION,
    OP_REQUEST_DURATION,
    OP_RESPONSE_DURATION,
    OP_RESPONSE_TX_DURATION,
    OP_UPSTREAM_HOST,
    OP_UPSTREAM_IP,
    OP_UPSTREAM_PORT,
    OP_UPSTREAM_CLUSTER,
    OP_UPSTREAM_LOCAL_ADDRESS,
    OP_UPSTREAM_LOCAL_IP,
    OP_UPSTREAM_LOCAL_PORT,
    OP_ATTEMPTS,
    OP_REMOTE,
    OP_REMOTE_IP,
    OP_REMOTE_PORT,
    OP_PEER,
    OP_PEER_IP,
    OP_PEER_PORT,
    OP_LOCAL,
    OP_LOCAL_IP,
    OP_LOCAL_PORT,
    OP_ROUTE_NAME,
    OP_HOSTNAME, /* becomes a literal */
    OP_STREAM_ID,
    OP_CONNECTION_ID,
    OP_END_REASON,
    OP_RESPONSE_FLAGS_LONG,
    OP_GRPC_STATUS,
    OP_GRPC_STATUS_NUMBER,
    OP_PATH,
    OP_QUERY_PARAM,
    OP_COMMON_DURATION,
    OP_DOWN_WIRE_RECEIVED,
    OP_DOWN_WIRE_SENT,
    OP_UP_WIRE_RECEIVED,
    OP_UP_WIRE_SENT,
    OP_UPSTREAM_PROTOCOL,
    OP_ENVIRONMENT,     /* becomes a literal */
    OP_ACCESS_LOG_TYPE, /* becomes a literal */
    OP_ABSENT,
};

/* How a value stands in the line. */
enum log_form {
    FORM_TEXT,       /* escaped; "-" when there is none */
    FORM_JSON,       /* a JSON value of its own: number, string or null */
    FORM_JSON_INNER, /* part of a JSON string */
};

/* Points of time of COMMON_DURATION. */
enum log_point {
    POINT_REQUEST_BEGIN,
    POINT_REQUEST_END,
    POINT_UP_SENT,
    POINT_UP_HEAD,
    POINT_RESPONSE_END,
    POINT_NEVER, /* TLS; what an Envoy filter would set */
};
enum log_path_source { PATH_ORIGINAL_OR_NOW, PATH_ORIGINAL, PATH_NOW };

/* Longest text that one time format may give. */
enum { LOG_TIME_MAX = 256 };

struct log_piece {
    enum log_op op;
    enum log_form form;
    char *text; /* literal, header name, key or time format; owned */
    size_t text_bytes;
    char *other; /* second header name, or NULL; owned */
    enum header_id id, other_id;
    uint32_t limit; /* bytes of the value; 0: all */
    uint32_t digits;
    union {
        struct {
            enum log_point from, to;
            uint64_t unit_ns;
        } span;
        struct {
            enum log_path_source source;
            bool without_query;
        } path;
        bool snake;
    } u;
};
struct access_log {
    struct log_piece *pieces;
    size_t count, cap;
    bool reads_environment;
};

/* Compiles a text format, or a JSON object of formats, to the end of log. false: what is wrong is in diag. */
NODISCARD bool log_format_text(struct access_log *log, struct str format, struct diag *diag);
NODISCARD bool log_format_json(struct access_log *log, struct str object, struct diag *diag);
/* UTC; fills every field that strftime uses. */
struct tm;
void log_time_split(int64_t seconds, struct tm *out);

#endif
