/* SPDX-License-Identifier: Apache-2.0
 *
 * Defines the proxy's metrics. All are defined at once, before any traffic, so that a series stands at 0 from the first
 * scrape on and rates have a beginning.
 */
#include "proxy/stats.h"

static metric_id define(enum metric_type type, const char *name, const char *help)
{
    return metrics_define(type, str_of(name), STR_NONE, help);
}

static metric_id define_labelled(const char *name, const char *key, const char *value, const char *help)
{
    struct strbuf labels = {0};
    metrics_label(&labels, key, str_of(value));
    metric_id id = metrics_define(METRICS_COUNTER, str_of(name), strbuf_str(&labels), help);
    strbuf_free(&labels);
    return id;
}

/* Observed in microseconds, shown in seconds. */
static metric_id define_duration(const char *name, const char *help)
{
    metric_id id = define(METRICS_HISTOGRAM, name, help);
    metrics_scale(id, 1e-6);
    return id;
}

static void define_requests(struct stats *s)
{
    static const char *const classes[] = {"none", "1xx", "2xx", "3xx", "4xx", "5xx"};
    _Static_assert(ARRAY_LEN(classes) == ARRAY_LEN(s->requests), "one class for each counter");
    for (size_t i = 0; i < ARRAY_LEN(classes); i++)
        s->requests[i] = define_labelled("weir_requests_total", "code_class", classes[i],
                                         "Requests by class of the status sent to the client; none: no response head "
                                         "was sent.");
}

static void define_ended(struct stats *s)
{
    static const char *const details[END_COUNT] = {
#define X(id, text, status, flag, body) [END_##id] = text,
        END_REASONS(X)
#undef X
    };
    s->ended[END_NONE] = METRIC_NONE;
    for (size_t i = END_NONE + 1; i < END_COUNT; i++)
        s->ended[i] = define_labelled("weir_streams_ended_total", "reason", details[i],
                                      "Streams by the reason they ended for, as in the access log's "
                                      "RESPONSE_CODE_DETAILS.");
}

void stats_init(struct stats *s)
{
    define_requests(s);
    define_ended(s);
    s->request_us = define_duration("weir_request_duration_seconds",
                                    "From the first byte of a request to the last byte of its response.");
    s->up_us = define_duration("weir_upstream_duration_seconds",
                               "From a request being sent to an endpoint to the head of its response.");
    s->conns = define(METRICS_GAUGE, "weir_downstream_connections", "Open client connections.");
    s->conns_total =
        define(METRICS_COUNTER, "weir_downstream_connections_total", "Client connections accepted since the start.");
    s->streams = define(METRICS_GAUGE, "weir_streams", "Requests being served now.");
    s->up_conns = define(METRICS_GAUGE, "weir_upstream_connections", "Open connections to endpoints.");
    s->up_conns_total =
        define(METRICS_COUNTER, "weir_upstream_connections_total", "Connections to endpoints opened since the start.");
    s->up_retries = define(METRICS_COUNTER, "weir_upstream_retries_total",
                           "Requests sent once more because a reused connection had been closed by the endpoint.");
    s->up_connect_failures = define(METRICS_COUNTER, "weir_upstream_connect_failures_total",
                                    "Connections to endpoints that were refused or timed out.");
    s->bytes_in =
        define(METRICS_COUNTER, "weir_downstream_received_bytes_total", "Bytes received from clients, heads included.");
    s->bytes_out =
        define(METRICS_COUNTER, "weir_downstream_sent_bytes_total", "Bytes sent to clients, heads included.");
    s->shed = define(METRICS_COUNTER, "weir_overload_shed_total",
                     "Requests answered with 503 because of the memory budget, and connections above max-connections.");
    s->guest_headers_dropped =
        define(METRICS_COUNTER, "weir_filter_headers_dropped_total",
               "Header fields written by filters that may not stand in a message and were left out.");
}
