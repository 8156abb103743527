/* SPDX-License-Identifier: Apache-2.0
 *
 * What is asked of checked resources: names of kinds, label matching, the order and reach of plugins, and their
 * lifetime. Order decides which filter sees a request first, so it must be total and the same on every worker and after
 * every restart.
 */
#include "conf/resource.h"
#include "conf/kinds.h"
#include "conf/memory.h"

static const struct {
    const char *name, *group;
    bool namespaced;
} kinds[KIND_COUNT] = {
#define X(id, name, group, namespaced) [KIND_##id] = {name, group, namespaced},
    RESOURCE_KINDS(X)
#undef X
};

const char *kind_name(enum kind kind)
{
    ASSERT((unsigned)kind < KIND_COUNT);
    return kinds[kind].name;
}

const char *kind_group(enum kind kind)
{
    ASSERT((unsigned)kind < KIND_COUNT);
    return kinds[kind].group;
}

bool kind_is_namespaced(enum kind kind)
{
    ASSERT((unsigned)kind < KIND_COUNT);
    return kinds[kind].namespaced;
}

const struct kind_reader *kind_reader_of(enum kind kind)
{
    static const struct kind_reader *const readers[KIND_COUNT] = {
        [KIND_GATEWAY_CLASS] = &kind_gateway_class,
        [KIND_GATEWAY] = &kind_gateway,
        [KIND_HTTP_ROUTE] = &kind_http_route,
        [KIND_REFERENCE_GRANT] = &kind_reference_grant,
        [KIND_WASM_PLUGIN] = &kind_wasm_plugin,
        [KIND_TRAFFIC_EXTENSION] = &kind_traffic_extension,
        [KIND_SERVICE_ENTRY] = &kind_service_entry,
        [KIND_SERVICE] = &kind_service,
        [KIND_ENDPOINT_SLICE] = &kind_endpoint_slice,
        [KIND_NAMESPACE] = &kind_namespace,
        [KIND_SECRET] = &kind_secret,
        [KIND_CONFIG_MAP] = &kind_config_map,
    };
    ASSERT((unsigned)kind < KIND_COUNT);
    return readers[kind];
}

const char *labels_get(const struct labels *l, const char *key)
{
    for (size_t i = 0; i < l->count; i++) {
        if (strcmp(l->list[i].key, key) == 0)
            return l->list[i].value;
    }
    return NULL;
}

bool labels_match(const struct labels *l, const struct labels *wanted)
{
    for (size_t i = 0; i < wanted->count; i++) {
        const char *value = labels_get(l, wanted->list[i].key);
        if (value == NULL || strcmp(value, wanted->list[i].value) != 0)
            return false;
    }
    return true;
}

static bool requirement_holds(const struct label_requirement *q, const struct labels *l)
{
    const char *value = labels_get(l, q->key);
    bool listed = false;
    for (size_t i = 0; value != NULL && i < q->value_count; i++)
        listed = listed || strcmp(q->values[i], value) == 0;
    switch (q->op) {
    case LABEL_IN: return listed;
    case LABEL_NOT_IN: return !listed;
    case LABEL_EXISTS: return value != NULL;
    case LABEL_NOT_EXISTS: return value == NULL;
    }
    return false;
}

bool label_selector_matches(const struct label_selector *s, const struct labels *l)
{
    for (size_t i = 0; i < s->requirement_count; i++) {
        if (!requirement_holds(&s->requirements[i], l))
            return false;
    }
    return labels_match(l, &s->match_labels);
}

bool wasm_plugin_matches_gateway_port(const struct wasm_plugin *p, uint16_t port)
{
    for (size_t i = 0; i < p->match_count; i++) {
        const struct traffic_match *m = &p->matches[i];
        if (m->mode == MODE_SERVER)
            continue;
        if (m->port_count == 0)
            return true;
        for (size_t k = 0; k < m->port_count; k++) {
            if (m->ports[k] == port)
                return true;
        }
    }
    return p->match_count == 0;
}

static int compare(int64_t a, int64_t b) { return (a > b) - (a < b); }

static int phase_place(enum plugin_phase phase) { return phase == PHASE_UNSPECIFIED ? PHASE_STATS + 1 : (int)phase; }

/* Below every int32 when unset. */
static int64_t priority_of(const struct wasm_plugin *p) { return p->has_priority ? p->priority : INT64_MIN; }

static int namespace_place(const char *ns, const char *own_ns, const char *root_ns)
{
    if (strcmp(ns, own_ns) == 0)
        return 0;
    return strcmp(ns, root_ns) == 0 ? 1 : 2;
}

int wasm_plugin_order(const struct resource *a, const struct resource *b, const char *own_ns, const char *root_ns)
{
    const struct wasm_plugin *p = &a->u.wasm_plugin, *q = &b->u.wasm_plugin;
    int c = compare(phase_place(p->phase), phase_place(q->phase));
    if (c == 0)
        c = compare(priority_of(q), priority_of(p));
    if (c == 0)
        c = compare(namespace_place(a->meta.ns, own_ns, root_ns), namespace_place(b->meta.ns, own_ns, root_ns));
    if (c == 0)
        c = compare(a->meta.created, b->meta.created);
    if (c == 0)
        c = strcmp(a->meta.name, b->meta.name);
    if (c == 0)
        c = strcmp(a->meta.ns, b->meta.ns);
    return c != 0 ? c : compare(a->meta.kind, b->meta.kind);
}

struct resource *resource_ref(struct resource *r)
{
    unsigned before = atomic_fetch_add_explicit(&r->refs, 1, memory_order_relaxed);
    ASSERT(before != 0);
    return r;
}

void resource_unref(struct resource *r)
{
    if (r == NULL)
        return;
    unsigned before = atomic_fetch_sub_explicit(&r->refs, 1, memory_order_acq_rel);
    ASSERT(before != 0);
    if (before == 1)
        memory_free(r->memory); /* r lies in it */
}

void resource_title(const struct meta *meta, struct strbuf *out)
{
    strbuf_addz(out, kind_name(meta->kind));
    strbuf_addc(out, ' ');
    if (meta->ns != NULL && meta->ns[0] != '\0') {
        strbuf_add_escaped(out, str_of(meta->ns));
        strbuf_addc(out, '/');
    }
    strbuf_add_escaped(out, str_of(meta->name));
}
