/* SPDX-License-Identifier: Apache-2.0
 *
 * The metric series of plugins: what the gateway counts about one and what its guests define, by the plugin's name,
 * across workers and generations. They go when the last generation of that name is gone; a newer one keeps them.
 */
#ifndef WEIR_WASM_SERIES_H
#define WEIR_WASM_SERIES_H

#include "base/metrics.h"

struct series_user;

/* One generation of the plugin of this name. Any thread, as all of these. */
struct series_user *series_open(struct str plugin_name);
void series_close(struct series_user *user);

/* As metrics_define, of the gateway's own series; not counted. */
metric_id series_define(struct series_user *user, enum metric_type type, struct str name, struct str labels,
                        const char *help);
/* Of a guest: idempotent by type and name. Plugins that define the same name share the series, as in Envoy. When the
 * plugin has max of them, those go that no living generation has defined; *full and METRIC_NONE when there are none.
 * METRIC_NONE when the name has another type or there are too many in all. */
metric_id series_define_guest(struct series_user *user, enum metric_type type, struct str name, size_t max, bool *full);

#endif
