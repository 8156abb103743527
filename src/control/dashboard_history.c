/* SPDX-License-Identifier: Apache-2.0
 *
 * A minute of samples of the metrics, one each second, and the rates and percentiles between two of them. A few
 * kilobytes for each plugin, and no work on the request path: the samples are sums that the metrics keep anyway.
 */
#include "control/dashboard_priv.h"

/* ---- taking a sample ---- */

/* The value of one label; the names of plugins and callbacks need no unescaping. */
static struct str label_of(struct str labels, const char *key)
{
    char *start = mem_printf("%s=\"", key);
    ptrdiff_t at = str_find_str(labels, str_of(start));
    struct str value = STR_NONE;
    if (at >= 0) {
        value = str_from(labels, (size_t)at + strlen(start));
        ptrdiff_t end = str_find(value, '"');
        value = str_upto(value, end >= 0 ? (size_t)end : value.n);
    }
    mem_free(start);
    return value;
}

static void add_class(void *arg, const struct metrics_value *v)
{
    struct traffic_sample *s = arg;
    struct str class = label_of(v->labels, "code_class");
    size_t i = class.n > 0 && class.p[0] >= '1' && class.p[0] <= '5' ? (size_t)(class.p[0] - '0') : 0;
    s->classes[i] += (uint64_t)v->value;
}
static void copy_counts(void *arg, const struct metrics_value *v) { memcpy(arg, v->counts, sizeof v->counts); }
static void add_value(void *arg, const struct metrics_value *v) { *(int64_t *)arg += v->value; }

static int64_t value_of(const char *name)
{
    int64_t sum = 0;
    metrics_each(str_of(name), add_value, &sum);
    return sum;
}

static struct plugin_history *plugin_of(struct dashboard *d, struct str labels)
{
    struct str name = label_of(labels, "plugin");
    struct plugin_history *p = map_get(&d->plugins, name);
    if (p == NULL) {
        p = mem_zalloc(sizeof *p);
        map_set(&d->plugins, name, p);
    }
    p->seen = true;
    return p;
}

static void add_calls(void *arg, const struct metrics_value *v)
{
    struct dashboard *d = arg;
    struct plugin_history *p = plugin_of(d, v->labels);
    struct str callback = label_of(v->labels, "callback");
    if (!str_is(callback, "proxy_on_request_headers") && !str_is(callback, "proxy_on_response_headers"))
        return;
    /* A filter may have one of the two only. */
    p->requests = (uint64_t)v->value > p->requests ? (uint64_t)v->value : p->requests;
    p->samples[d->newest].requests = (uint32_t)p->requests;
}
static void add_traps(void *arg, const struct metrics_value *v)
{
    struct dashboard *d = arg;
    struct plugin_history *p = plugin_of(d, v->labels);
    p->traps += (uint64_t)v->value;
    p->samples[d->newest].traps = (uint32_t)p->traps;
}
static void add_errors(void *arg, const struct metrics_value *v)
{
    struct dashboard *d = arg;
    struct plugin_history *p = plugin_of(d, v->labels);
    bool failed = str_is(label_of(v->labels, "strategy"), "fail");
    *(failed ? &p->failed : &p->bypassed) += (uint64_t)v->value;
    p->samples[d->newest].failed = (uint32_t)p->failed;
    p->samples[d->newest].bypassed = (uint32_t)p->bypassed;
}
static void add_memory(void *arg, const struct metrics_value *v)
{
    plugin_of(arg, v->labels)->memory_bytes += v->value;
}
/* Start and configure run on another thread, once: they say nothing of what a request waits for. */
static void add_times(void *arg, const struct metrics_value *v)
{
    struct dashboard *d = arg;
    struct str callback = label_of(v->labels, "callback");
    if (str_is(callback, "proxy_on_vm_start") || str_is(callback, "proxy_on_configure"))
        return;
    struct plugin_sample *s = &plugin_of(d, v->labels)->samples[d->newest];
    s->busy_us += (uint32_t)v->sum;
    for (size_t i = 0; i < METRICS_BUCKETS; i++)
        s->us[i < PLUGIN_BUCKETS ? i : PLUGIN_BUCKETS - 1] += (uint32_t)v->counts[i];
}

static void traffic_sample(struct traffic_sample *s, uint64_t now_ms)
{
    *s = (struct traffic_sample){.ms = now_ms};
    metrics_each(STR("weir_requests_total"), add_class, s);
    metrics_each(STR("weir_request_duration_seconds"), copy_counts, s->request_us);
    metrics_each(STR("weir_upstream_duration_seconds"), copy_counts, s->upstream_us);
    s->bytes_in = (uint64_t)value_of("weir_downstream_received_bytes_total");
    s->bytes_out = (uint64_t)value_of("weir_downstream_sent_bytes_total");
}

static void forget_gone(struct dashboard *d)
{
    struct map gone = {0};
    MAP_EACH (e, &d->plugins)
        if (!((struct plugin_history *)e->value)->seen)
            map_set(&gone, e->key, e->value);
    MAP_EACH (e, &gone)
        mem_free(map_remove(&d->plugins, e->key));
    map_free(&gone);
}

void dashboard_tick(struct dashboard *d, uint64_t now_ms)
{
    if (d == NULL)
        return;
    d->newest = d->count > 0 ? (d->newest + 1) % (HISTORY + 1) : 0;
    d->count += d->count <= HISTORY;
    traffic_sample(&d->samples[d->newest], now_ms);
    d->streams = value_of("weir_streams");
    d->connections = value_of("weir_downstream_connections");
    d->up_connections = value_of("weir_upstream_connections");
    MAP_EACH (e, &d->plugins) {
        struct plugin_history *p = e->value;
        p->samples[d->newest] = (struct plugin_sample){0};
        p->requests = p->failed = p->bypassed = p->traps = 0;
        p->memory_bytes = 0;
        p->seen = false;
    }
    metrics_each(STR("weir_plugin_calls_total"), add_calls, d);
    metrics_each(STR("weir_plugin_traps_total"), add_traps, d);
    metrics_each(STR("weir_plugin_breaches_total"), add_traps, d);
    metrics_each(STR("weir_plugin_errors_total"), add_errors, d);
    metrics_each(STR("weir_plugin_memory_bytes"), add_memory, d);
    metrics_each(STR("weir_plugin_callback_seconds"), add_times, d);
    forget_gone(d);
}

/* ---- between two samples ---- */

size_t dashboard_sample(const struct dashboard *d, size_t back)
{
    back = back < d->count ? back : d->count > 0 ? d->count - 1 : 0;
    return (d->newest + HISTORY + 1 - back) % (HISTORY + 1);
}

const struct plugin_history *dashboard_plugin(const struct dashboard *d, const char *ns, const char *name)
{
    char *key = mem_printf("%s.%s", ns, name);
    const struct plugin_history *p = map_get(&d->plugins, str_of(key));
    mem_free(key);
    return p;
}

static double seconds(const struct dashboard *d, size_t from, size_t to)
{
    uint64_t ms = d->samples[to].ms - d->samples[from].ms;
    return ms > 0 ? (double)ms / 1000 : 1;
}

static uint64_t requests_of(const struct traffic_sample *s)
{
    return s->classes[0] + s->classes[1] + s->classes[2] + s->classes[3] + s->classes[4] + s->classes[5];
}

/* A series that went and came back began anew: that is no loss of four thousand million requests. */
static uint32_t gain(uint32_t from, uint32_t to) { return to - from < UINT32_MAX / 2 ? to - from : 0; }

static void between(const uint64_t *from, const uint64_t *to, uint64_t out[METRICS_BUCKETS])
{
    for (size_t i = 0; i < METRICS_BUCKETS; i++)
        out[i] = to[i] - from[i];
}
static void plugin_between(const struct plugin_sample *from, const struct plugin_sample *to,
                           uint64_t out[METRICS_BUCKETS])
{
    memset(out, 0, METRICS_BUCKETS * sizeof *out);
    for (size_t i = 0; i < PLUGIN_BUCKETS; i++)
        out[i] = gain(from->us[i], to->us[i]);
}

/* null where there is nothing to take a percentile of. */
static void write_quantile(struct strbuf *b, const char *name, const uint64_t counts[METRICS_BUCKETS], double q)
{
    uint64_t any = 0;
    for (size_t i = 0; i < METRICS_BUCKETS; i++)
        any |= counts[i];
    if (any != 0)
        strbuf_printf(b, ",\"%s\":%.4g", name, metrics_bucket_quantile(counts, q));
    else
        strbuf_printf(b, ",\"%s\":null", name);
}

void dashboard_write_traffic(const struct dashboard *d, const char *name, size_t back, struct strbuf *out)
{
    size_t at = dashboard_sample(d, back);
    const struct traffic_sample *from = &d->samples[at], *to = &d->samples[d->newest];
    double s = seconds(d, at, d->newest);
    uint64_t counts[METRICS_BUCKETS];
    strbuf_printf(out, ",\"%s\":{\"seconds\":%.3g,\"requestsPerSecond\":%.6g,\"errorsPerSecond\":%.6g", name, s,
                  (double)(requests_of(to) - requests_of(from)) / s,
                  (double)(to->classes[5] + to->classes[0] - from->classes[5] - from->classes[0]) / s);
    strbuf_printf(out, ",\"bytesInPerSecond\":%.6g,\"bytesOutPerSecond\":%.6g,\"classes\":{",
                  (double)(to->bytes_in - from->bytes_in) / s, (double)(to->bytes_out - from->bytes_out) / s);
    for (size_t i = 1; i <= 5; i++)
        strbuf_printf(out, "\"%zuxx\":%.6g,", i, (double)(to->classes[i] - from->classes[i]) / s);
    strbuf_printf(out, "\"none\":%.6g}", (double)(to->classes[0] - from->classes[0]) / s);
    between(from->request_us, to->request_us, counts);
    write_quantile(out, "p50Micros", counts, 0.5);
    write_quantile(out, "p99Micros", counts, 0.99);
    between(from->upstream_us, to->upstream_us, counts);
    write_quantile(out, "upstreamP50Micros", counts, 0.5);
    write_quantile(out, "upstreamP99Micros", counts, 0.99);
    strbuf_addc(out, '}');
}

void dashboard_write_plugin(const struct dashboard *d, const struct plugin_history *p, const char *name, size_t back,
                            struct strbuf *out)
{
    size_t at = dashboard_sample(d, back);
    const struct plugin_sample *from = &p->samples[at], *to = &p->samples[d->newest];
    double s = seconds(d, at, d->newest);
    uint64_t counts[METRICS_BUCKETS];
    plugin_between(from, to, counts);
    strbuf_printf(out, ",\"%s\":{\"requestsPerSecond\":%.6g,\"failedPerSecond\":%.6g,\"bypassedPerSecond\":%.6g", name,
                  gain(from->requests, to->requests) / s, gain(from->failed, to->failed) / s,
                  gain(from->bypassed, to->bypassed) / s);
    strbuf_printf(out, ",\"trapsPerSecond\":%.6g,\"busyCores\":%.4g", gain(from->traps, to->traps) / s,
                  gain(from->busy_us, to->busy_us) / 1e6 / s);
    write_quantile(out, "p50Micros", counts, 0.5);
    write_quantile(out, "p99Micros", counts, 0.99);
    strbuf_addc(out, '}');
}

/* ---- one number for each second ---- */

static void write_number(struct strbuf *out, bool first, double value)
{
    strbuf_printf(out, first ? "%.4g" : ",%.4g", value);
}

void dashboard_write_traffic_history(const struct dashboard *d, struct strbuf *out)
{
    static const char *const names[] = {"requestsPerSecond", "errorsPerSecond", "p99Micros"};
    strbuf_addz(out, ",\"history\":{");
    for (size_t n = 0; n < ARRAY_LEN(names); n++) {
        strbuf_printf(out, n > 0 ? ",\"%s\":[" : "\"%s\":[", names[n]);
        for (size_t back = d->count > 0 ? d->count - 1 : 0; back-- > 0;) {
            size_t at = dashboard_sample(d, back + 1), next = dashboard_sample(d, back);
            const struct traffic_sample *from = &d->samples[at], *to = &d->samples[next];
            double s = seconds(d, at, next), value;
            uint64_t counts[METRICS_BUCKETS];
            between(from->request_us, to->request_us, counts);
            if (n == 0)
                value = (double)(requests_of(to) - requests_of(from)) / s;
            else if (n == 1)
                value = (double)(to->classes[5] + to->classes[0] - from->classes[5] - from->classes[0]) / s;
            else
                value = metrics_bucket_quantile(counts, 0.99);
            write_number(out, back + 2 == d->count, value);
        }
        strbuf_addc(out, ']');
    }
    strbuf_addc(out, '}');
}

void dashboard_write_plugin_history(const struct dashboard *d, const struct plugin_history *p, struct strbuf *out)
{
    static const char *const names[] = {"requestsPerSecond", "p99Micros"};
    strbuf_addz(out, ",\"history\":{");
    for (size_t n = 0; n < ARRAY_LEN(names); n++) {
        strbuf_printf(out, n > 0 ? ",\"%s\":[" : "\"%s\":[", names[n]);
        for (size_t back = d->count > 0 ? d->count - 1 : 0; back-- > 0;) {
            size_t at = dashboard_sample(d, back + 1), next = dashboard_sample(d, back);
            uint64_t counts[METRICS_BUCKETS];
            plugin_between(&p->samples[at], &p->samples[next], counts);
            write_number(out, back + 2 == d->count,
                         n == 0 ? gain(p->samples[at].requests, p->samples[next].requests) / seconds(d, at, next)
                                : metrics_bucket_quantile(counts, 0.99));
        }
        strbuf_addc(out, ']');
    }
    strbuf_addc(out, '}');
}

/* ---- life ---- */

struct dashboard *dashboard_new(void) { return mem_zalloc(sizeof(struct dashboard)); }

void dashboard_free(struct dashboard *d)
{
    if (d == NULL)
        return;
    MAP_EACH (e, &d->plugins)
        mem_free(e->value);
    map_free(&d->plugins);
    mem_free(d);
}
