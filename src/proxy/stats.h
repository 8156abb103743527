/* SPDX-License-Identifier: Apache-2.0
 *
 * Metric handles of the proxy, defined once and used by all workers (base/metrics.h sums the workers up). Names follow
 * Prometheus' rules and begin with weir_.
 */
#ifndef WEIR_PROXY_STATS_H
#define WEIR_PROXY_STATS_H

#include "base/metrics.h"
#include "proxy/end_reason.h"

struct stats {
    metric_id requests[6];                 /* weir_requests_total{code_class="1xx".."5xx"}; [0] no response */
    metric_id ended[END_COUNT];            /* weir_streams_ended_total{reason="..."} */
    metric_id request_us;                  /* weir_request_duration_seconds (histogram) */
    metric_id up_us;                       /* weir_upstream_duration_seconds: request sent to response head */
    metric_id conns, conns_total, streams; /* weir_downstream_connections (gauge), ..._total, weir_streams (gauge) */
    metric_id up_conns, up_conns_total, up_retries, up_connect_failures;
    metric_id bytes_in, bytes_out;
    metric_id shed;                  /* weir_overload_shed_total */
    metric_id guest_headers_dropped; /* headers a filter wrote that may not go on the wire */
};
void stats_init(struct stats *s);

#endif
