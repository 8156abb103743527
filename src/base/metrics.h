/* SPDX-License-Identifier: Apache-2.0
 *
 * Counters, gauges and histograms of the process, kept so that counting on the request path is one relaxed load and store:
 * each thread has a slot of its own and writes only there; a reader adds the slots up. A gauge is one shared atomic, since
 * "set" has no sum. Definition takes a mutex and is idempotent by name and labels.
 */
#ifndef WEIR_BASE_METRICS_H
#define WEIR_BASE_METRICS_H

#include "base/str.h"

enum metric_type { METRICS_COUNTER, METRICS_GAUGE, METRICS_HISTOGRAM };
/* Small handle; index into the tables. METRIC_NONE is a valid argument everywhere and does nothing. */
typedef uint32_t metric_id;
#define METRIC_NONE 0u
enum { METRICS_BUCKETS = 32 };

/* Claims a slot for the calling thread (worker threads at start). Threads without one share slot 0, with atomic adds. */
void metrics_thread_init(void);
void metrics_thread_fini(void); /* its counts stay in the sums */

/* name: [a-zA-Z_:][a-zA-Z0-9_:]*, other bytes become '_'. labels: `a="b",c="d"` already escaped (metrics_label), or empty. help may be NULL.
 * METRIC_NONE when the table (65,536 series) is full or the name has another type. */
metric_id metrics_define(enum metric_type type, struct str name, struct str labels, const char *help);
/* Adds `key="escaped value"` to labels, with a comma where needed. */
void metrics_label(struct strbuf *labels, const char *key, struct str value);

void metrics_add(metric_id id, uint64_t n);      /* counter */
void metrics_gauge_set(metric_id id, int64_t v);
void metrics_gauge_add(metric_id id, int64_t n);
/* Histogram of values in any unit; buckets are powers of two from 1 to 2^30 of it. unit_scale at exposition (e.g. 1e-6: us to s) is given at
 * definition by metrics_scale. */
void metrics_observe(metric_id id, uint64_t value);
void metrics_observe_n(metric_id id, uint64_t value, uint64_t n); /* the same value n times */
void metrics_scale(metric_id id, double scale);
/* For who has counted in the same buckets already: n values of bucket i (above 2^(i-1), up to 2^i; 0: up to 1; 31: above 2^30), and what their
 * sum is. */
void metrics_observe_bucket(metric_id id, unsigned bucket, uint64_t n);
void metrics_observe_sum(metric_id id, uint64_t sum);
/* Sum of all slots (counter: total; gauge: value; histogram: count of observations). */
int64_t metrics_read(metric_id id);
/* Histogram quantile estimate, 0 when empty. */
uint64_t metrics_quantile(metric_id id, double q);
/* Quantile of counts by bucket, interpolated; 0 when empty. */
double metrics_bucket_quantile(const uint64_t counts[METRICS_BUCKETS], double q);
struct metrics_value {
    struct str labels; /* as given at definition */
    int64_t value;     /* counter, gauge; histogram: how many observations */
    uint64_t sum, counts[METRICS_BUCKETS]; /* histogram, in its own unit */
};
/* Calls fn for every series of that name. fn must not call anything of metrics. */
void metrics_each(struct str name, void (*fn)(void *arg, const struct metrics_value *v), void *arg);
/* The series disappears from the output; its id is not used again. */
void metrics_remove(metric_id id);
/* Prometheus text format 0.0.4, series of one name together. */
void metrics_write(struct strbuf *out);

#endif
