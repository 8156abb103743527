/* SPDX-License-Identifier: Apache-2.0
 *
 * Host functions on metrics: Envoy's stat "wasmcustom.<name>", shown to Prometheus without the prefix and with the name
 * sanitised. An id is the guest's own: index and type. define must answer OK to Rust, so what is over the limit, or
 * clashes with another type, becomes a metric that counts nowhere. A guest must never reach the gateway's own series.
 */
#include "wasm/abi.h"
#include "wasm/series.h"

enum { NAME_MAX_BYTES = 512 };

static uint32_t guest_id(size_t index, enum abi_metric type) { return (uint32_t)(index + 1) << 2 | (uint32_t)type; }

/* Names of the gateway and of its process are not for guests. */
static bool is_reserved(struct str name)
{
    static const char *const prefixes[] = {"weir", "envoy", "process", "wasmcustom"};

    for (size_t i = 0; i < ARRAY_LEN(prefixes); i++) {
        if (str_starts(name, str_of(prefixes[i]))) {
            return true;
        }
    }
    return false;
}

static void warn_over(struct plugin_vm *pv)
{
    abi_warn_once(pv, WARN_METRICS, "more than %u metrics, or one without a name: not counted",
                  pv->plugin->limits.max_metrics);
}

static metric_id define(struct plugin_vm *pv, enum abi_metric type, struct str name)
{
    static const enum metric_type types[] = {METRICS_COUNTER, METRICS_GAUGE, METRICS_HISTOGRAM};
    struct strbuf *full = abi_scratch(pv);

    if (is_reserved(name)) {
        strbuf_addz(full, "wasmcustom_");
    }
    strbuf_add(full, name);
    bool over;
    metric_id id =
        series_define_guest(pv->plugin->series, types[type], strbuf_str(full), pv->plugin->limits.max_metrics, &over);
    if (over) {
        warn_over(pv);
    } else if (id == METRIC_NONE) {
        abi_warn_once(pv, WARN_METRIC_TYPE,
                      "metric \"%.*s\" is not counted: its name has another type, or there are too many",
                      STR_ARG(name));
    }
    return id;
}

ABI_FUNCTION(define_metric)
{
    struct str name;

    if (a[0].u32 > METRIC_HISTOGRAM) {
        return ABI_BAD_ARGUMENT;
    }
    if (!abi_read(pv, a[1], a[2], &name) || !abi_writable(pv, a[3], 4)) {
        return ABI_INVALID_MEMORY_ACCESS;
    }
    enum abi_metric type = (enum abi_metric)a[0].u32;
    name.n = name.n < NAME_MAX_BYTES ? name.n : NAME_MAX_BYTES;
    char key[1 + NAME_MAX_BYTES] = {(char)('0' + type)};
    if (name.n != 0) {
        memcpy(key + 1, name.p, name.n);
    }
    uintptr_t known = (uintptr_t)map_get(&pv->metric_names, str_span(key, 1 + name.n));
    if (known != 0) {
        abi_store_u32(pv, a[3], guest_id(known - 1, type));
        return ABI_OK;
    }
    if (pv->metric_count >= pv->plugin->limits.max_metrics || name.n == 0) {
        warn_over(pv);
        abi_store_u32(pv, a[3], guest_id(0x3ffffffe, type)); /* an id that no index has; see metric_of */
        return ABI_OK;
    }
    metric_id id = define(pv, type, name);
    pv->metrics = mem_realloc(pv->metrics, (pv->metric_count + 1) * sizeof *pv->metrics);
    pv->metrics[pv->metric_count++] = (struct guest_metric){id, type};
    map_set(&pv->metric_names, str_span(key, 1 + name.n), (void *)(uintptr_t)pv->metric_count);
    abi_store_u32(pv, a[3], guest_id(pv->metric_count - 1, type));
    return ABI_OK;
}

/* METRIC_NONE for the id of what is over the limit. */
static bool metric_of(struct plugin_vm *pv, uint32_t id, struct guest_metric *out)
{
    static const struct guest_metric nowhere[] = {
        {METRIC_NONE, METRIC_COUNTER}, {METRIC_NONE, METRIC_GAUGE}, {METRIC_NONE, METRIC_HISTOGRAM}};
    uint32_t index = (id >> 2) - 1, type = id & 3;

    if (type > METRIC_HISTOGRAM) {
        return false;
    }
    if (index == 0x3ffffffe) {
        *out = nowhere[type];
        return true;
    }
    if (index >= pv->metric_count || pv->metrics[index].type != type) {
        return false;
    }
    *out = pv->metrics[index];
    return true;
}

ABI_FUNCTION(increment_metric)
{
    struct guest_metric m;
    int64_t delta = a[1].i64;

    if (!metric_of(pv, a[0].u32, &m)) {
        return ABI_NOT_FOUND;
    }
    if (m.type == METRIC_HISTOGRAM || (m.type == METRIC_COUNTER && delta <= 0)) {
        return ABI_BAD_ARGUMENT;
    }
    if (m.type == METRIC_COUNTER) {
        metrics_add(m.id, (uint64_t)delta);
    } else {
        metrics_gauge_add(m.id, delta);
    }
    return ABI_OK;
}

ABI_FUNCTION(record_metric)
{
    struct guest_metric m;

    if (!metric_of(pv, a[0].u32, &m)) {
        return ABI_NOT_FOUND;
    }
    switch (m.type) {
    case METRIC_COUNTER: metrics_add(m.id, a[1].u64); break; /* as in Envoy */
    case METRIC_GAUGE: metrics_gauge_set(m.id, a[1].i64); break;
    case METRIC_HISTOGRAM: metrics_observe(m.id, a[1].u64); break;
    }
    return ABI_OK;
}

ABI_FUNCTION(get_metric)
{
    struct guest_metric m;

    if (!abi_writable(pv, a[1], 8)) {
        return ABI_INVALID_MEMORY_ACCESS;
    }
    if (!metric_of(pv, a[0].u32, &m)) {
        return ABI_NOT_FOUND;
    }
    if (m.type == METRIC_HISTOGRAM) {
        return ABI_BAD_ARGUMENT;
    }
    abi_store_u64(pv, a[1], (uint64_t)metrics_read(m.id));
    return ABI_OK;
}

void metrics_forget(struct plugin_vm *pv)
{
    mem_free(pv->metrics);
    map_free(&pv->metric_names);
}
