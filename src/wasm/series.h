/* SPDX-License-Identifier: Apache-2.0
 *
 * The metric series of plugins: what the gateway counts about one and what its guests define, by the plugin's name,
 * across workers and generations. They go when the last generation of that name is gone; a newer one keeps them.
 */
#ifndef WEIR_WASM_SERIES_H
#define WEIR_WASM_SERIES_H

#include "base/metrics.h"

struct series_set;

/* The set of this plugin name, made when it is not there; one reference. Any thread, as all of these. */
struct series_set *series_open(struct str plugin_name);
void series_close(struct series_set *set);

/* As metrics_define, of the gateway's own series; not counted. */
metric_id series_define(struct series_set *set, enum metric_type type, struct str name, struct str labels,
                        const char *help);
/* Of a guest: idempotent by type and name. Plugins that define the same name share the series, as in Envoy. *full and
 * METRIC_NONE when the set has max of them; METRIC_NONE when the name has another type or there are too many in all. */
metric_id series_define_guest(struct series_set *set, enum metric_type type, struct str name, size_t max, bool *full);

#endif
