/* SPDX-License-Identifier: Apache-2.0
 *
 * See source_cluster.h. Watches come and go, and lists arrive in any order; the store must see whole states only. So
 * until every kind has been heard of once (or the snapshot on disk stands in for those that cannot be), changes wait in
 * the watches; then everything is put into the store at once, and from there on change by change. What must never
 * happen: an object taken away because the API server was away.
 */
#include "control/source_cluster_priv.h"

#include <unistd.h>

#include "base/log.h"

enum {
    SETTLE_MS = 5,
    PATIENCE_MS = 3000,    /* of a start, with a server that does not answer, before the snapshot stands in */
    RETURN_MS = 30 * 1000, /* kinds that do not come back with the others hold those up no longer */
    NAMED_MS = 5000,       /* Secrets and ConfigMaps that do not come hold up the first state no longer */
    KEEP_MS = 1000
};

#define GATEWAY_API "gateway.networking.k8s.io"
/* Kinds listed as a whole. */
static const struct cluster_kind cluster_kinds[] = {
    {{"WasmPlugin", "wasmplugins", "extensions.istio.io", {"v1alpha1"}, true}, true, false},
    {{"TrafficExtension", "trafficextensions", "extensions.istio.io", {"v1alpha1"}, true}, true, false},
    {{"EnvoyFilter", "envoyfilters", "networking.istio.io", {"v1alpha3"}, true}, true, false},
    {{"GatewayClass", "gatewayclasses", GATEWAY_API, {"v1", "v1beta1"}, false}, false, false},
    {{"Gateway", "gateways", GATEWAY_API, {"v1", "v1beta1"}, true}, true, false},
    {{"HTTPRoute", "httproutes", GATEWAY_API, {"v1", "v1beta1"}, true}, true, false},
    {{"ReferenceGrant", "referencegrants", GATEWAY_API, {"v1", "v1beta1"}, true}, true, false},
    {{"ServiceEntry", "serviceentries", "networking.istio.io", {"v1", "v1beta1", "v1alpha3"}, true}, true, false},
    {{"Service", "services", "", {"v1"}, true}, false, false},
    {{"EndpointSlice", "endpointslices", "discovery.k8s.io", {"v1"}, true}, false, false},
    {{"Namespace", "namespaces", "", {"v1"}, false}, false, true},
};
/* Kinds of which single objects are watched, by name. */
static const struct cluster_kind named_kinds[] = {
    {{"Secret", "secrets", "", {"v1"}, true}, false, true},
    {{"ConfigMap", "configmaps", "", {"v1"}, true}, false, true},
};

/* ---- the store ---- */

static void write_key(struct strbuf *key, const char *kind, const char *ns, const char *name)
{
    strbuf_clear(key);
    strbuf_printf(key, "%s/%s/%s", kind, ns, name);
}

static void put(struct source_cluster *s, const struct kube_watch *w, const struct kube_object *o, struct str text)
{
    struct strbuf key = {0};
    write_key(&key, kube_watch_kind(w)->kind, o->ns, o->name);
    map_set(&s->keys, strbuf_str(&key), s);
    char *z = strbuf_take(&key);
    store_text_set(s->o.store, ORIGIN_CLUSTER, z, text, "default");
    mem_free(z);
    s->dirty = true;
}

static void take(struct source_cluster *s, struct str key)
{
    char *z = str_dup(key);
    if (map_remove(&s->keys, key) != NULL)
        store_text_remove(s->o.store, ORIGIN_CLUSTER, z);
    mem_free(z);
    s->dirty = true;
}

struct reconcile {
    struct source_cluster *s;
    struct map seen;
};

static void reconcile_one(void *arg, const struct kube_watch *w, const struct kube_object *o, struct str text)
{
    struct reconcile *r = arg;
    struct strbuf key = {0};
    write_key(&key, kube_watch_kind(w)->kind, o->ns, o->name);
    map_set(&r->seen, strbuf_str(&key), r);
    strbuf_free(&key);
    put(r->s, w, o, text);
}

/* The store gets exactly what the watches know. */
static void reconcile(struct source_cluster *s)
{
    struct reconcile r = {.s = s};
    struct map gone = {0};
    for (size_t i = 0; i < s->count; i++)
        kube_watch_each(s->watches[i]->watch, reconcile_one, &r);
    MAP_EACH (e, &s->named)
        kube_watch_each(((struct cluster_watch *)e->value)->watch, reconcile_one, &r);
    MAP_EACH (e, &s->keys)
        if (map_get(&r.seen, e->key) == NULL)
            map_set(&gone, e->key, s);
    MAP_EACH (e, &gone)
        take(s, e->key);
    map_free(&gone);
    map_free(&r.seen);
}

static bool settle_store(struct source_cluster *s)
{
    s->dirty = false;
    metrics_add(s->changes, 1);
    return store_settle(s->o.store, loop_now(s->o.loop) + 1);
}

/* ---- watches ---- */

static void on_set(void *arg, struct kube_watch *w, const struct kube_object *o, struct str text)
{
    struct source_cluster *s = arg;
    kube_writer_touch(s->writer, kube_watch_kind(w)->kind, o->ns, o->name);
    if (s->stage != STAGE_LISTING && !s->held)
        put(s, w, o, text);
}

static void on_removed(void *arg, struct kube_watch *w, const char *ns, const char *name)
{
    struct source_cluster *s = arg;
    struct strbuf key = {0};
    kube_writer_forget(s->writer, kube_watch_kind(w)->kind, ns, name);
    if (s->stage != STAGE_LISTING && !s->held) {
        write_key(&key, kube_watch_kind(w)->kind, ns, name);
        take(s, strbuf_str(&key));
        strbuf_free(&key);
    }
}

/* Watches must not be freed, nor the store settled, inside their own callbacks: soon. */
static void on_told(void *arg, struct kube_watch *w)
{
    struct source_cluster *s = arg;
    (void)w;
    if (!loop_timer_is_active(&s->settle))
        loop_timer_start(&s->settle, SETTLE_MS);
}

static const struct kube_watch_ops watch_ops = {.set = on_set, .removed = on_removed, .told = on_told};

static struct cluster_watch *watch_new(struct source_cluster *s, const struct cluster_kind *kind, const char *ns,
                                       const char *field)
{
    struct cluster_watch *w = mem_zalloc(sizeof *w);
    w->kind = kind;
    w->ns = ns != NULL ? mem_strdup(ns) : NULL;
    w->field = field != NULL ? mem_strdup(field) : NULL;
    struct kube_watch_options o = {.loop = s->o.loop,
                                   .client = s->client,
                                   .kind = &kind->kube,
                                   .ns = ns,
                                   .label_selector = kind->limited ? s->o.label_selector : NULL,
                                   .field_selector = field,
                                   .ops = &watch_ops,
                                   .arg = s};
    w->watch = kube_watch_new(&o);
    return w;
}

static void watch_free(struct cluster_watch *w)
{
    kube_watch_free(w->watch);
    mem_free(w->ns);
    mem_free(w->field);
    mem_free(w);
}

static void add_watch(struct source_cluster *s, const struct cluster_kind *kind, const char *ns, const char *field)
{
    s->watches = mem_realloc(s->watches, (s->count + 1) * sizeof(struct cluster_watch *));
    s->watches[s->count++] = watch_new(s, kind, ns, field);
}

static void add_watches(struct source_cluster *s)
{
    for (size_t i = 0; i < ARRAY_LEN(cluster_kinds); i++) {
        const struct cluster_kind *kind = &cluster_kinds[i];
        bool is_namespace = strcmp(kind->kube.kind, "Namespace") == 0;
        if (s->o.namespace_count == 0 || (!kind->kube.namespaced && !is_namespace))
            add_watch(s, kind, NULL, NULL);
        for (size_t k = 0; k < s->o.namespace_count; k++) {
            char *field = is_namespace ? mem_printf("metadata.name=%s", s->o.namespaces[k]) : NULL;
            if (kind->kube.namespaced || is_namespace)
                add_watch(s, kind, is_namespace ? NULL : s->o.namespaces[k], field);
            mem_free(field);
        }
    }
}

static bool is_heard(const struct cluster_watch *w)
{
    struct kube_watch_state state = kube_watch_state(w->watch);
    return state.settled || (w->kind->optional && state.phase == KUBE_WATCH_REFUSED);
}

static bool all_heard(const struct source_cluster *s)
{
    for (size_t i = 0; i < s->count; i++)
        if (!is_heard(s->watches[i]))
            return false;
    return true;
}

static bool names_heard(const struct source_cluster *s)
{
    MAP_EACH (e, &s->named)
        if (!is_heard(e->value))
            return false;
    return true;
}

/* ---- Secrets and ConfigMaps by name ---- */

static void want(struct source_cluster *s, const struct cluster_kind *kind, const char *ns, const char *name)
{
    struct strbuf key = {0};
    write_key(&key, kind->kube.kind, ns, name);
    struct cluster_watch *w = map_get(&s->named, strbuf_str(&key));
    if (w == NULL && s->named.count < CLUSTER_NAMED_MAX) {
        char *field = mem_printf("metadata.name=%s", name);
        w = watch_new(s, kind, ns, field);
        map_set(&s->named, strbuf_str(&key), w);
        mem_free(field);
    }
    s->full = s->full || w == NULL;
    if (w != NULL)
        w->wanted = true;
    strbuf_free(&key);
}

static void want_parameters(struct source_cluster *s, const struct parameters_ref *p, const char *ns)
{
    if (p != NULL && p->group[0] == '\0' && strcmp(p->kind, "ConfigMap") == 0)
        want(s, &named_kinds[1], p->ns != NULL ? p->ns : ns, p->name);
}

static void want_pull_secret(struct source_cluster *s, const struct store_object *o)
{
    if (o->origin == ORIGIN_CLUSTER && o->good->u.wasm_plugin.pull_secret != NULL)
        want(s, &named_kinds[0], o->ns, o->good->u.wasm_plugin.pull_secret);
}

static void drop_unwanted(struct source_cluster *s)
{
    struct map gone = {0};
    MAP_EACH (e, &s->named)
        if (!((struct cluster_watch *)e->value)->wanted)
            map_set(&gone, e->key, e->value);
    MAP_EACH (e, &gone) {
        take(s, e->key); /* a named watch has one object, of its own key */
        watch_free(map_remove(&s->named, e->key));
    }
    map_free(&gone);
}

void source_cluster_follow(struct source_cluster *s)
{
    s->full = false;
    MAP_EACH (e, &s->named)
        ((struct cluster_watch *)e->value)->wanted = false;
    STORE_EACH(o, s->o.store, KIND_WASM_PLUGIN)
    want_pull_secret(s, o);
    STORE_EACH(o, s->o.store, KIND_TRAFFIC_EXTENSION)
    want_pull_secret(s, o);
    STORE_EACH(o, s->o.store, KIND_GATEWAY)
    if (o->origin == ORIGIN_CLUSTER)
        want_parameters(s, o->good->u.gateway.parameters, o->ns);
    STORE_EACH(o, s->o.store, KIND_GATEWAY_CLASS)
    if (o->origin == ORIGIN_CLUSTER)
        want_parameters(s, o->good->u.gateway_class.parameters, s->o.ns);
    drop_unwanted(s);
}

/* ---- the snapshot on disk ---- */

static void restore_into(struct cluster_watch *w, struct str kind, struct str text)
{
    if (str_is(kind, w->kind->kube.kind) && !kube_watch_state(w->watch).settled)
        (void)kube_watch_restore(w->watch, text);
}

static void restore_one(void *arg, struct str kind, struct str text)
{
    struct source_cluster *s = arg;
    /* With several namespaces a kind has a watch for each: the one whose objects these are. */
    struct kube_parsed p;
    if (!kube_parse(text, "v1", "Unknown", &p))
        return;
    for (size_t i = 0; i < s->count; i++) {
        struct cluster_watch *w = s->watches[i];
        if (w->ns == NULL || strcmp(w->ns, p.ns) == 0)
            restore_into(w, kind, text);
    }
    for (size_t i = 0; i < ARRAY_LEN(named_kinds); i++) {
        if (!str_is(kind, named_kinds[i].kube.kind) || s->named.count >= CLUSTER_NAMED_MAX)
            continue;
        want(s, &named_kinds[i], p.ns, p.name);
        struct strbuf key = {0};
        write_key(&key, named_kinds[i].kube.kind, p.ns, p.name);
        restore_into(map_get(&s->named, strbuf_str(&key)), kind, text);
        strbuf_free(&key);
    }
    kube_parsed_free(&p);
}

static void keep_one(void *arg, const struct kube_watch *w, const struct kube_object *o, struct str text)
{
    (void)o;
    cluster_snapshot_add(arg, kube_watch_kind(w)->kind, text);
}

static char *snapshot_key(const struct source_cluster *s)
{
    struct strbuf key = {0};
    strbuf_printf(&key, "%s labels %s namespaces", kube_client_server(s->client),
                  s->o.label_selector != NULL ? s->o.label_selector : "");
    for (size_t i = 0; i < s->o.namespace_count; i++)
        strbuf_printf(&key, " %s", s->o.namespaces[i]);
    return strbuf_take(&key);
}

static void keep(struct source_cluster *s)
{
    struct strbuf text = {0};
    char *key = snapshot_key(s);
    cluster_snapshot_begin(&text, key);
    for (size_t i = 0; i < s->count; i++)
        kube_watch_each(s->watches[i]->watch, keep_one, &text);
    MAP_EACH (e, &s->named)
        kube_watch_each(((struct cluster_watch *)e->value)->watch, keep_one, &text);
    cluster_snapshot_write(s->snapshot, &text);
    mem_free(key);
}

static void on_keep(struct loop_timer *timer) { keep(CONTAINER_OF(timer, struct source_cluster, keep)); }

/* ---- stages ---- */

static void enter(struct source_cluster *s, enum cluster_stage stage)
{
    s->stage = stage;
    s->stage_ms = loop_now(s->o.loop);
}

/* Everything goes into the store; what it names is asked for before the gateway is shown anything. */
static void begin_named(struct source_cluster *s)
{
    enter(s, STAGE_NAMED);
    reconcile(s);
    (void)settle_store(s);
    source_cluster_follow(s);
    loop_timer_start(&s->patience, NAMED_MS);
}

static void begin_flow(struct source_cluster *s)
{
    enter(s, STAGE_FLOWING);
    loop_timer_stop(&s->patience);
    (void)settle_store(s);
    store_mark_gaps(s->o.store);
    log_line(LOG_INFO, "kubernetes: %zu objects%s", s->keys.count, s->restored ? ", some of them as last seen" : "");
    if (!s->restored)
        loop_timer_start(&s->keep, KEEP_MS);
    s->o.changed(s->o.arg);
}

static void restore(struct source_cluster *s)
{
    char *error = NULL;
    if (!cluster_snapshot_read(s->snapshot, restore_one, s, &error)) {
        log_line(LOG_WARN, "kubernetes: %s does not answer, and there is no snapshot: %s", kube_client_where(s->client),
                 error);
        mem_free(error);
        return;
    }
    log_line(LOG_WARN, "kubernetes: %s does not answer: its objects are those last seen here",
             kube_client_where(s->client));
    s->restored = true;
    begin_named(s);
    s->held = true;
}

static bool any_heard(const struct source_cluster *s)
{
    for (size_t i = 0; i < s->count; i++)
        if (is_heard(s->watches[i]))
            return true;
    return false;
}

static void release(struct source_cluster *s)
{
    s->held = s->restored = false;
    loop_timer_stop(&s->patience);
    reconcile(s);
}

static void advance(struct source_cluster *s);

static void on_patience(struct loop_timer *timer)
{
    struct source_cluster *s = CONTAINER_OF(timer, struct source_cluster, patience);
    if (s->stage == STAGE_LISTING)
        restore(s);
    else if (s->stage == STAGE_NAMED)
        begin_flow(s);
    else if (s->held)
        release(s);
    advance(s);
}

/* Something was told: by the stage it is a step on, or a change to pass on. */
static void advance(struct source_cluster *s)
{
    if (s->stage == STAGE_LISTING && all_heard(s))
        begin_named(s);
    if (s->stage == STAGE_NAMED && names_heard(s))
        begin_flow(s);
    if (s->stage == STAGE_FLOWING && s->held && all_heard(s))
        release(s);
    else if (s->stage == STAGE_FLOWING && s->held && any_heard(s) && !loop_timer_is_active(&s->patience))
        loop_timer_start(&s->patience, RETURN_MS);
    if (s->stage != STAGE_FLOWING || !s->dirty)
        return;
    bool changed = settle_store(s);
    source_cluster_follow(s);
    if (!loop_timer_is_active(&s->keep))
        loop_timer_start(&s->keep, KEEP_MS);
    if (changed)
        s->o.changed(s->o.arg);
}

static void on_settle(struct loop_timer *timer)
{
    struct source_cluster *s = CONTAINER_OF(timer, struct source_cluster, settle);
    advance(s);
    cluster_report(s);
}

/* ---- status ---- */

static const struct kube_watch *find_object(void *arg, const char *kind, const char *ns, const char *name,
                                            struct kube_object *out)
{
    const struct source_cluster *s = arg;
    for (size_t i = 0; i < s->count; i++) {
        const struct cluster_watch *w = s->watches[i];
        if (strcmp(w->kind->kube.kind, kind) == 0 && kube_watch_find(w->watch, ns, name, out))
            return w->watch;
    }
    return NULL;
}

static void on_lead(void *arg, bool held)
{
    struct source_cluster *s = arg;
    kube_writer_lead(s->writer, held);
    metrics_gauge_set(s->leads, held);
}

static void on_status(void *arg, enum kind kind, const char *ns, const char *name, const char *json)
{
    struct source_cluster *s = arg;
    kube_writer_status(s->writer, kind_name(kind), ns, name, json);
}

static void on_event(void *arg, enum kind kind, const char *ns, const char *name, const char *type, const char *reason,
                     const char *message)
{
    struct source_cluster *s = arg;
    kube_writer_event(s->writer, kind_name(kind), ns, name, type, reason, message);
}

struct status_sink source_cluster_sink(struct source_cluster *s)
{
    return (struct status_sink){.status = on_status, .event = on_event, .arg = s};
}

/* "pod_0123456789abcdef": a name alone may be that of the pod before. */
static char *make_identity(void)
{
    char host[256] = "weir";
    uint64_t random = str_hash(STR("lease"));
    if (gethostname(host, sizeof host - 1) != 0)
        host[0] = '\0';
    return mem_printf("%s_%016llx", host, (unsigned long long)random);
}

static void status_start(struct source_cluster *s)
{
    char *identity = make_identity();
    struct kube_writer_options w = {
        .loop = s->o.loop, .client = s->client, .instance = identity, .find = find_object, .arg = s};
    s->writer = kube_writer_new(&w);
    struct kube_lease_options l = {.loop = s->o.loop,
                                   .client = s->client,
                                   .ns = s->o.ns,
                                   .name = "weir-status",
                                   .identity = identity,
                                   .changed = on_lead,
                                   .arg = s};
    s->lease = kube_lease_new(&l);
    mem_free(identity);
}

/* ---- life ---- */

struct source_cluster *source_cluster_new(const struct source_cluster_options *o, char **error)
{
    struct kube_client_options c = {.loop = o->loop, .transfers = o->transfers, .kubeconfig = o->kubeconfig};
    struct kube_client *client = kube_client_new(&c, error);
    if (client == NULL)
        return NULL;
    struct source_cluster *s = mem_zalloc(sizeof *s);
    s->o = *o;
    s->client = client;
    char *key = snapshot_key(s);
    s->snapshot = cluster_snapshot_new(o->loop, o->state_dir, key);
    mem_free(key);
    loop_timer_init(&s->settle, o->loop, on_settle);
    loop_timer_init(&s->patience, o->loop, on_patience);
    loop_timer_init(&s->keep, o->loop, on_keep);
    loop_timer_start(&s->patience, PATIENCE_MS);
    s->stale = metrics_define(METRICS_GAUGE, STR("weir_kubernetes_watches_stale"), STR_NONE,
                              "Watches of the cluster that are not up to date");
    s->objects =
        metrics_define(METRICS_GAUGE, STR("weir_kubernetes_objects"), STR_NONE, "Objects read from the cluster");
    s->changes = metrics_define(METRICS_COUNTER, STR("weir_kubernetes_updates_total"), STR_NONE,
                                "Times that objects of the cluster changed what Weir knows");
    s->leads = metrics_define(METRICS_GAUGE, STR("weir_kubernetes_writes_status"), STR_NONE,
                              "1 while this gateway is the one that writes status into the cluster");
    status_start(s);
    enter(s, STAGE_LISTING);
    log_line(LOG_INFO, "kubernetes: reading from %s", kube_client_where(client));
    add_watches(s);
    return s;
}

static void keep_closed(struct loop_timer *timer) { mem_free(CONTAINER_OF(timer, struct source_cluster, keep)); }
static void patience_closed(struct loop_timer *timer)
{
    loop_timer_close(&CONTAINER_OF(timer, struct source_cluster, patience)->keep, keep_closed);
}
static void settle_closed(struct loop_timer *timer)
{
    loop_timer_close(&CONTAINER_OF(timer, struct source_cluster, settle)->patience, patience_closed);
}

void source_cluster_free(struct source_cluster *s)
{
    if (loop_timer_is_active(&s->keep))
        keep(s);
    loop_timer_stop(&s->settle);
    loop_timer_stop(&s->patience);
    loop_timer_stop(&s->keep);
    for (size_t i = 0; i < s->count; i++)
        watch_free(s->watches[i]);
    MAP_EACH (e, &s->named)
        watch_free(e->value);
    kube_writer_free(s->writer);
    kube_lease_free(s->lease);
    cluster_snapshot_free(s->snapshot);
    kube_client_free(s->client);
    mem_free(s->watches);
    map_free(&s->named);
    map_free(&s->keys);
    loop_timer_close(&s->settle, settle_closed);
}
