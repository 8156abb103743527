/* SPDX-License-Identifier: Apache-2.0
 *
 * From the counters that the ABI layer keeps in each VM to metrics: once a second, and when a VM ends, what has been
 * counted since is added to the series of the plugin's name. So a callback costs no more than what the VM counts, and a
 * series lives on through generations and VMs, until the plugin is gone. Series come into being with the first thing to
 * count.
 */
#include "proxy/plugin_slot_priv.h"

#include <stdio.h>

static metric_id define(const struct plugin_slot *slot, enum metric_type type, const char *name, const char *key,
                        const char *value, const char *help)
{
    struct strbuf labels = {0};

    metrics_label(&labels, "plugin", str_of(slot->plugin->name));
    if (key != NULL)
        metrics_label(&labels, key, str_of(value));
    metric_id id = plugin_metric(slot->plugin, type, str_of(name), strbuf_str(&labels), help);
    strbuf_free(&labels);
    return id;
}

void plugin_stats_init(struct plugin_slot *slot)
{
    char worker[16];
    struct plugin_stats_ids *ids = &slot->ids;

    snprintf(worker, sizeof worker, "%u", slot->worker->index);
    ids->failed = define(slot, METRICS_COUNTER, "weir_plugin_errors_total", "strategy", "fail",
                         "streams that a plugin's fail strategy answered or let pass");
    ids->bypassed = define(slot, METRICS_COUNTER, "weir_plugin_errors_total", "strategy", "bypass", NULL);
    ids->memory =
        define(slot, METRICS_GAUGE, "weir_plugin_memory_bytes", "worker", worker, "linear memory of a plugin's VMs");
    ids->swaps =
        define(slot, METRICS_COUNTER, "weir_plugin_swaps_total", NULL, NULL, "generations of a plugin put to work");
}

static void add(struct plugin_slot *slot, metric_id *id, const char *name, enum plugin_callback cb, uint64_t n,
                const char *help)
{
    if (n == 0)
        return;
    if (*id == METRIC_NONE)
        *id = define(slot, METRICS_COUNTER, name, "callback", plugin_callback_name(cb), help);
    metrics_add(*id, n);
}

static uint64_t news(const _Atomic uint64_t *cell, uint64_t *seen)
{
    uint64_t now = atomic_load_explicit(cell, memory_order_relaxed), n = now - *seen;

    *seen = now;
    return n;
}

static void fold_times(struct slot_vm *sv, enum plugin_callback cb)
{
    struct plugin_slot *slot = sv->slot;
    metric_id *id = &slot->ids.cb[cb].seconds;

    if (*id == METRIC_NONE) {
        *id = define(slot, METRICS_HISTOGRAM, "weir_plugin_callback_seconds", "callback", plugin_callback_name(cb),
                     "time in one callback of a plugin");
        metrics_scale(*id, 1e-6);
    }
    /* Bucket b of the VM holds times below 2^b us, that of the metric those up to 2^b; the last of the VM has no end.
     */
    const struct plugin_vm_stats *stats = plugin_vm_stats(sv->vm);
    unsigned last = ARRAY_LEN(sv->seen.cb[cb].bucket) - 1;
    for (unsigned b = 0; b <= last; b++)
        metrics_observe_bucket(*id, b < last ? b : METRICS_BUCKETS - 1,
                               news(&stats->cb[cb].bucket[b], &sv->seen.cb[cb].bucket[b]));
    uint64_t us = sv->seen.cb[cb].ns / 1000; /* what is below a microsecond counts later */
    (void)news(&stats->cb[cb].ns, &sv->seen.cb[cb].ns);
    metrics_observe_sum(*id, sv->seen.cb[cb].ns / 1000 - us);
}

static void fold_memory(struct slot_vm *sv, int64_t now)
{
    metrics_gauge_add(sv->slot->ids.memory, now - sv->seen.memory);
    sv->seen.memory = now;
}

void plugin_stats_fold(struct slot_vm *sv)
{
    struct plugin_slot *slot = sv->slot;
    const struct plugin_vm_stats *stats = plugin_vm_stats(sv->vm);

    for (unsigned i = 0; i < CB_COUNT; i++) {
        enum plugin_callback cb = (enum plugin_callback)i;
        uint64_t calls = news(&stats->cb[i].calls, &sv->seen.cb[i].calls);
        add(slot, &slot->ids.cb[i].calls, "weir_plugin_calls_total", cb, calls, "callbacks entered");
        add(slot, &slot->ids.cb[i].traps, "weir_plugin_traps_total", cb,
            news(&stats->cb[i].traps, &sv->seen.cb[i].traps), "callbacks that ended in a trap");
        add(slot, &slot->ids.cb[i].breaches, "weir_plugin_breaches_total", cb,
            news(&stats->cb[i].breaches, &sv->seen.cb[i].breaches),
            "callbacks that went over a limit of time or memory");
        if (calls != 0)
            fold_times(sv, cb);
    }
    fold_memory(sv, (int64_t)plugin_vm_memory_bytes(sv->vm));
}

void plugin_stats_drop(struct slot_vm *sv) { fold_memory(sv, 0); }
