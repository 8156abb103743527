/* SPDX-License-Identifier: Apache-2.0
 *
 * Shared by the parts of the dashboard: the samples of the last minute (dashboard_history.c) and the document
 * (dashboard.c).
 */
#ifndef WEIR_CONTROL_DASHBOARD_PRIV_H
#define WEIR_CONTROL_DASHBOARD_PRIV_H

#include "base/map.h"
#include "base/metrics.h"
#include "control/dashboard.h"

enum { HISTORY = 60, PLUGIN_BUCKETS = 17 };

/* Running totals at one moment. */
struct traffic_sample {
    uint64_t ms;
    uint64_t classes[6]; /* [0]: no response */
    uint64_t request_us[METRICS_BUCKETS], upstream_us[METRICS_BUCKETS];
    uint64_t bytes_in, bytes_out;
};
/* Of one plugin; what is subtracted over a minute fits in 32 bits, so these may wrap. */
struct plugin_sample {
    uint32_t requests, failed, bypassed, traps, busy_us;
    uint32_t us[PLUGIN_BUCKETS]; /* the last: longer */
};
struct plugin_history {
    struct plugin_sample samples[HISTORY + 1];
    uint64_t requests, failed, bypassed, traps; /* since the process started */
    int64_t memory_bytes;
    bool seen;
};
struct dashboard {
    struct traffic_sample samples[HISTORY + 1];
    struct map plugins; /* "<namespace>.<name>" -> struct plugin_history */
    size_t newest, count;
    int64_t streams, connections, up_connections;
};

/* Index of the sample that is `back` seconds older than the newest, or of the oldest there is. */
size_t dashboard_sample(const struct dashboard *d, size_t back);
/* NULL: nothing was counted for it yet. */
const struct plugin_history *dashboard_plugin(const struct dashboard *d, const char *ns, const char *name);
/* ,"NAME":{...}: rates and percentiles of the last `back` seconds. */
void dashboard_write_traffic(const struct dashboard *d, const char *name, size_t back, struct strbuf *out);
void dashboard_write_plugin(const struct dashboard *d, const struct plugin_history *p, const char *name, size_t back,
                            struct strbuf *out);
/* ,"history":{...}: one number for each second, oldest first. */
void dashboard_write_traffic_history(const struct dashboard *d, struct strbuf *out);
void dashboard_write_plugin_history(const struct dashboard *d, const struct plugin_history *p, struct strbuf *out);

#endif
