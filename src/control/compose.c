/* SPDX-License-Identifier: Apache-2.0
 *
 * Gateways to listeners, plugins to chains. The rules of who gets which plugin are Istio's; what is ours is said where
 * it stands. One listener address belongs to one Gateway: the oldest that asks for it.
 */
#include <stdlib.h>

#include "base/log.h"
#include "control/compose_priv.h"
#include "proxy/access_log.h"

static const char CONTROLLER[] = "gateway.weir/controller", ISTIO_CONTROLLER[] = "istio.io/gateway-controller";
static const char ROOT_NAMESPACE[] = "istio-system";

static int compare_age(const void *a, const void *b)
{
    const struct meta *x = &(*(const struct resource *const *)a)->meta,
                      *y = &(*(const struct resource *const *)b)->meta;
    if (x->created != y->created)
        return x->created < y->created ? -1 : 1;
    int order = strcmp(x->ns, y->ns);
    return order != 0 ? order : strcmp(x->name, y->name);
}

const struct resource **compose_sorted(const struct store *store, enum kind kind, size_t *n)
{
    const struct resource **list = mem_alloc((store->objects.count + 1) * sizeof(struct resource *));
    *n = 0;
    STORE_EACH(o, store, kind) list[(*n)++] = o->good;
    if (*n > 1)
        qsort(list, *n, sizeof *list, compare_age);
    return list;
}

/* ---- gateways ---- */

const char *compose_controller(const char *name)
{
    return strcmp(name, CONTROLLER) == 0 ? CONTROLLER : strcmp(name, ISTIO_CONTROLLER) == 0 ? ISTIO_CONTROLLER : NULL;
}

const char *compose_gateway_controller(const struct store *store, const struct resource *gw)
{
    const char *name = gw->u.gateway.class_name;
    const struct store_object *o = store_find(store, KIND_GATEWAY_CLASS, "", name);
    if (o != NULL && o->good != NULL)
        return compose_controller(o->good->u.gateway_class.controller_name);
    return strcmp(name, "weir") == 0 ? CONTROLLER : strcmp(name, "istio") == 0 ? ISTIO_CONTROLLER : NULL;
}

/* A GatewayClass of ours says so by its controllerName. Without the object the names "weir" and "istio" stand for
 * themselves, so that a directory with a Gateway alone works. */
static bool class_is_ours(const struct compose *c, const struct resource *gw, const struct gateway_class **class_out)
{
    const char *name = gw->u.gateway.class_name;
    const struct store_object *o = store_find(c->store, KIND_GATEWAY_CLASS, "", name);
    *class_out = NULL;
    if (o == NULL || o->good == NULL) {
        if (compose_gateway_controller(c->store, gw) != NULL)
            return true;
        usage_say(c->usage, &gw->meta, false, "NoMatchingClass",
                  "gatewayClassName \"%s\" names no GatewayClass of this gateway", name);
        return false;
    }
    *class_out = &o->good->u.gateway_class;
    const char *controller = o->good->u.gateway_class.controller_name;
    bool ours = compose_controller(controller) != NULL;
    usage_say(c->usage, &o->good->meta, ours, ours ? "Accepted" : "NotOurs", ours ? "%s" : "controllerName is not %s",
              ours ? "" : CONTROLLER);
    if (!ours)
        usage_say(c->usage, &gw->meta, false, "NoMatchingClass", "its GatewayClass \"%s\" belongs to controller \"%s\"",
                  name, controller);
    return ours;
}

/* Into *out, which holds what goes before. False, and *out as it was, when anything in the map is wrong. */
static bool limits_read(const struct resource *r, const char *file, unsigned line, struct limits *out,
                        struct diag *diag)
{
    const struct config_map *map = &r->u.config_map;
    struct limits next;
    limits_copy(&next, out);
    for (size_t i = 0; i < map->data_count; i++)
        limits_set(&next, str_of(map->data[i].key), str_of(map->data[i].value), file, line, "data", diag);
    struct access_log *log = access_log_new(next.access_log, next.access_log_text, diag);
    if (access_log_reads_environment(log) && r->meta.origin != ORIGIN_FILE) /* variables hold secrets */
        diag_add(diag, DIAG_ERROR, file, line, 0, "data", "access-log-format: only a file may use ENVIRONMENT");
    access_log_free(log);
    bool good = diag->errors == 0;
    struct limits gone = good ? *out : next;
    if (good)
        *out = next;
    limits_free(&gone);
    return good;
}

static void memory_set(struct compose_memory *memory, const char *key, struct resource *map)
{
    struct resource *last = map_set(&memory->parameters, str_of(key), resource_ref(map));
    if (last != NULL)
        resource_unref(last);
}

void compose_memory_free(struct compose_memory *m)
{
    MAP_EACH (e, &m->parameters)
        resource_unref(e->value);
    map_free(&m->parameters);
}

/* A map with an error in it changes nothing: its newest version without one goes on, with none the defaults. */
static void limits_from_map(const struct compose *c, const struct resource *gw, const struct store_object *o,
                            struct limits *limits)
{
    char *key = mem_printf("%s/%s", o->ns, o->name);
    struct diag diag = {0};
    if (limits_read(o->good, o->file, o->line, limits, &diag)) {
        memory_set(c->memory, key, o->good);
    } else {
        const struct resource *last = map_get(&c->memory->parameters, str_of(key));
        struct diag ignored = {0};
        if (last != NULL)
            (void)limits_read(last, o->file, o->line, limits, &ignored);
        diag_free(&ignored);
    }
    for (size_t i = 0; i < diag.count; i++) {
        char *text = diag_format(&diag.entries[i]);
        usage_say(c->usage, &o->good->meta, false, "InvalidParameters", "%s", text);
        usage_say(c->usage, &gw->meta, false, "InvalidParameters", "%s", text);
        mem_free(text);
    }
    diag_free(&diag);
    mem_free(key);
}

static void limits_from(const struct compose *c, const struct resource *gw, const struct parameters_ref *ref,
                        const char *default_ns, struct limits *limits)
{
    if (ref == NULL)
        return;
    const char *ns = ref->ns != NULL ? ref->ns : default_ns;
    const struct store_object *o = strcmp(ref->kind, "ConfigMap") == 0 && ref->group[0] == '\0'
                                       ? store_find(c->store, KIND_CONFIG_MAP, ns, ref->name)
                                       : NULL;
    if (o == NULL || o->good == NULL)
        usage_say(c->usage, &gw->meta, false, "InvalidParameters", "parametersRef: no ConfigMap %s/%s", ns, ref->name);
    else
        limits_from_map(c, gw, o, limits);
}

static bool listener_address(const char *value, uint16_t port, struct addr *out)
{
    return addr_from_ip(str_of(value != NULL ? value : "::"), port, out); /* [::] takes IPv4 too */
}

/* "::" takes IPv4 too: beside it there is no room for "0.0.0.0". */
static bool same_place(const struct addr *a, const struct addr *b)
{
    return addr_eq(a, b) || (addr_port(a) == addr_port(b) && addr_is_any(a) && addr_is_any(b));
}

/* Index of the listener at this address, made for gw when it is new; -1 when another Gateway has it. */
static ptrdiff_t listener_claim(struct compose *c, const struct resource *gw, const struct addr *addr,
                                const struct limits *limits, char **taken_by)
{
    struct snapshot *s = c->snapshot;
    char *name = mem_printf("%s/%s", gw->meta.ns, gw->meta.name);
    for (size_t i = 0; i < s->listener_count; i++) {
        if (!same_place(&s->listeners[i].addr, addr))
            continue;
        bool same = strcmp(s->listeners[i].gateway, name) == 0;
        if (same && addr->u.sa.sa_family == AF_INET6)
            s->listeners[i].addr = *addr;
        mem_free(name);
        *taken_by = s->listeners[i].gateway;
        return same ? (ptrdiff_t)i : -1;
    }
    s->listeners = mem_realloc(s->listeners, (s->listener_count + 1) * sizeof *s->listeners);
    struct listener_conf *l = &s->listeners[s->listener_count];
    *l = (struct listener_conf){.addr = *addr, .gateway = name, .routes = route_table_new()};
    limits_copy(&l->limits, limits);
    return (ptrdiff_t)s->listener_count++;
}

static void serve_listener(struct compose *c, const struct resource *gw, const struct gateway_listener *l,
                           const char *address, const struct limits *limits, struct served **served, size_t *count)
{
    struct addr addr;
    char *taken_by = NULL;
    if (!listener_address(address, l->port, &addr)) {
        usage_say(c->usage, &gw->meta, false, "AddressNotUsable", "\"%s\" is not an IP address", address);
        usage_say_part(c->usage, &gw->meta, USAGE_ADDRESS, address, false, "AddressNotUsable",
                       "\"%s\" is not an IP address", address);
        return;
    }
    ptrdiff_t index = listener_claim(c, gw, &addr, limits, &taken_by);
    if (index < 0) {
        usage_say(c->usage, &gw->meta, false, "PortUnavailable", "listener %s: port %u is served by Gateway %s",
                  l->name, l->port, taken_by);
        usage_say_part(c->usage, &gw->meta, USAGE_LISTENER, l->name, false, "PortUnavailable",
                       "port %u is served by Gateway %s", l->port, taken_by);
        return;
    }
    *served = mem_realloc(*served, (*count + 1) * sizeof **served);
    (*served)[(*count)++] = (struct served){.gateway = gw, .listener = l, .index = (size_t)index};
}

static void compose_gateway(struct compose *c, const struct resource *gw, struct served **served, size_t *count)
{
    const struct gateway_class *class = NULL;
    if (!class_is_ours(c, gw, &class))
        return;
    const struct gateway *g = &gw->u.gateway;
    struct limits limits;
    limits_default(&limits);
    limits_from(c, gw, class != NULL ? class->parameters : NULL, c->identity->ns, &limits);
    limits_from(c, gw, g->parameters, gw->meta.ns, &limits);
    size_t before = *count;
    for (size_t i = 0; i < g->listener_count; i++) {
        const struct gateway_listener *l = &g->listeners[i];
        usage_say_part(c->usage, &gw->meta, USAGE_LISTENER, l->name, true, "", "%s", "");
        if (l->protocol != PROTOCOL_HTTP) {
            usage_say(c->usage, &gw->meta, false, "UnsupportedProtocol",
                      "listener %s: only protocol HTTP is supported yet", l->name);
            usage_say_part(c->usage, &gw->meta, USAGE_LISTENER, l->name, false, "UnsupportedProtocol",
                           "only protocol HTTP is supported yet");
            continue;
        }
        if (g->address_count == 0)
            serve_listener(c, gw, l, NULL, &limits, served, count);
        for (size_t a = 0; a < g->address_count; a++)
            serve_listener(c, gw, l, g->addresses[a].value, &limits, served, count);
    }
    limits_free(&limits);
    usage_say(c->usage, &gw->meta, *count > before, *count > before ? "Programmed" : "ListenersNotValid",
              *count > before ? "%s" : "no listener can be served%s", "");
}

/* ---- chains ---- */

/* istio-and-kubernetes.md 1.1, for a process that serves Gateways: with targetRefs the plugin's namespace must be the
 * Gateway's; with a selector (or neither) the plugin's namespace is the Gateway's, this process's, or the root
 * namespace, and the selector is matched against this process's labels with the label Istio puts on a Gateway's pods.
 */
static bool plugin_selects(const struct compose *c, const struct resource *plugin, const struct resource *gw)
{
    const struct wasm_plugin *p = &plugin->u.wasm_plugin;
    if (p->target_count > 0) {
        if (strcmp(plugin->meta.ns, gw->meta.ns) != 0)
            return false;
        for (size_t i = 0; i < p->target_count; i++)
            if (strcmp(p->targets[i].kind, "Gateway") == 0 &&
                strcmp(p->targets[i].group, "gateway.networking.k8s.io") == 0 &&
                strcmp(p->targets[i].name, gw->meta.name) == 0)
                return true;
        return false;
    }
    if (strcmp(plugin->meta.ns, ROOT_NAMESPACE) != 0 && strcmp(plugin->meta.ns, c->identity->ns) != 0 &&
        strcmp(plugin->meta.ns, gw->meta.ns) != 0)
        return false;
    for (size_t i = 0; i < p->selector.count; i++) {
        const struct label *want = &p->selector.list[i];
        const char *have = labels_get(&c->identity->labels, want->key);
        if (strcmp(want->key, "gateway.networking.k8s.io/gateway-name") == 0)
            have = gw->meta.name;
        if (have == NULL || strcmp(have, want->value) != 0)
            return false;
    }
    return true;
}

static void chain_add(struct compose *c, struct listener_conf *l, const struct resource *plugin)
{
    l->chain = mem_realloc(l->chain, (l->chain_count + 1) * sizeof *l->chain);
    struct chain_entry *e = &l->chain[l->chain_count++];
    *e = (struct chain_entry){.title = mem_printf("%s/%s", plugin->meta.ns, plugin->meta.name),
                              .absence = PLUGIN_PENDING,
                              .fail = (enum fail_strategy)plugin->u.wasm_plugin.fail};
    const struct delivery_item *item =
        delivery_find(c->delivery, plugin->meta.kind, plugin->meta.ns, plugin->meta.name);
    if (item == NULL)
        return;
    if (item->live != NULL) {
        e->plugin = plugin_ref(item->live);
        e->absence = PLUGIN_PRESENT;
        e->fail = item->live->fail;
    } else {
        e->absence = item->absence;
    }
}

/* Is a plugin meant for a Gateway of ours, and is it in a chain? */
struct applies {
    bool selected, chained;
};

/* Sorted by insertion: chains are short, and the order depends on the Gateway's namespace. */
static void compose_chain(struct compose *c, struct listener_conf *l, const struct resource *gw,
                          const struct resource **plugins, size_t count, struct applies *applies)
{
    const struct resource **chain = mem_alloc((count + 1) * sizeof(struct resource *));
    size_t n = 0;
    for (size_t i = 0; i < count; i++) {
        if (!plugin_selects(c, plugins[i], gw))
            continue;
        applies[i].selected = true;
        if (!wasm_plugin_matches_gateway_port(&plugins[i]->u.wasm_plugin, addr_port(&l->addr)))
            continue;
        applies[i].chained = true;
        usage_say_part(c->usage, &plugins[i]->meta, USAGE_GATEWAY, l->gateway, true, "", "%s", "");
        size_t at = n++;
        while (at > 0 && wasm_plugin_order(chain[at - 1], plugins[i], gw->meta.ns, ROOT_NAMESPACE) > 0) {
            chain[at] = chain[at - 1];
            at--;
        }
        chain[at] = plugins[i];
    }
    for (size_t i = 0; i < n; i++)
        chain_add(c, l, chain[i]);
    mem_free(chain);
}

static void say_no_gateway(struct compose *c, const struct resource *plugin)
{
    const struct wasm_plugin *p = &plugin->u.wasm_plugin;
    for (size_t i = 0; i < p->target_count; i++) {
        const struct target_ref *t = &p->targets[i];
        bool gateway = strcmp(t->kind, "Gateway") == 0 && strcmp(t->group, "gateway.networking.k8s.io") == 0;
        const struct store_object *o = gateway ? store_find(c->store, KIND_GATEWAY, plugin->meta.ns, t->name) : NULL;
        if (!gateway)
            usage_say(c->usage, &plugin->meta, false, "UnsupportedTarget",
                      "applies to no Gateway: targets of kind %s/%s are for waypoints", t->group, t->kind);
        else if (o == NULL || o->good == NULL)
            usage_say(c->usage, &plugin->meta, false, "TargetNotFound",
                      "applies to no Gateway: targetRefs name Gateway %s/%s, which does not exist", plugin->meta.ns,
                      t->name);
        else
            usage_say(c->usage, &plugin->meta, false, "TargetNotServed",
                      "applies to no Gateway: targetRefs name Gateway %s/%s, of which no listener is served",
                      plugin->meta.ns, t->name);
    }
    if (p->target_count == 0)
        usage_say(c->usage, &plugin->meta, false, "NoMatchingGateway", "applies to no Gateway: %s",
                  p->selector.count > 0
                      ? "its selector matches neither this gateway's labels nor the name of a Gateway it may select"
                      : "it is neither in a Gateway's namespace nor in this gateway's nor in the root namespace");
}

static void say_applies(struct compose *c, const struct resource *plugin, struct applies applies)
{
    const struct wasm_plugin *p = &plugin->u.wasm_plugin;
    bool client = p->match_count == 0;
    for (size_t i = 0; i < p->match_count; i++)
        client |= p->matches[i].mode != MODE_SERVER;
    if (applies.chained)
        usage_say(c->usage, &plugin->meta, true, "Accepted", "%s", "");
    else if (!applies.selected)
        say_no_gateway(c, plugin);
    else
        usage_say(c->usage, &plugin->meta, false, "NoMatchingListener", "applies to no traffic: %s",
                  client ? "no listener of its Gateways has a port that spec.match names"
                         : "spec.match has mode SERVER, and a gateway's traffic is CLIENT");
}

static void compose_chains(struct compose *c, const struct served *served, size_t served_count)
{
    size_t count = 0, more = 0;
    const struct resource **plugins = compose_sorted(c->store, KIND_WASM_PLUGIN, &count);
    const struct resource **extensions = compose_sorted(c->store, KIND_TRAFFIC_EXTENSION, &more);
    plugins = mem_realloc(plugins, (count + more + 1) * sizeof(struct resource *));
    memcpy(plugins + count, extensions, more * sizeof(struct resource *));
    count += more;
    mem_free(extensions);
    struct applies *applies = mem_zalloc((count + 1) * sizeof *applies);
    bool *done = mem_zalloc(c->snapshot->listener_count + 1);
    for (size_t i = 0; i < served_count; i++) {
        if (done[served[i].index])
            continue;
        done[served[i].index] = true;
        compose_chain(c, &c->snapshot->listeners[served[i].index], served[i].gateway, plugins, count, applies);
    }
    for (size_t i = 0; i < count; i++)
        say_applies(c, plugins[i], applies[i]);
    mem_free(done);
    mem_free(applies);
    mem_free(plugins);
}

struct snapshot *compose_snapshot(const struct store *store, const struct delivery *delivery,
                                  const struct identity *identity, uint64_t version, struct compose_memory *memory,
                                  struct usage_table *usage)
{
    struct snapshot *s = mem_zalloc(sizeof *s);
    atomic_init(&s->refs, 1);
    s->version = version;
    s->identity = identity;
    struct compose c = {store, delivery, identity, s, memory, usage};
    struct served *served = NULL;
    size_t served_count = 0, count = 0;
    const struct resource **gateways = compose_sorted(store, KIND_GATEWAY, &count);
    for (size_t i = 0; i < count; i++)
        compose_gateway(&c, gateways[i], &served, &served_count);
    mem_free(gateways);
    compose_chains(&c, served, served_count);
    compose_routes(&c, served, served_count);
    compose_clusters(&c);
    mem_free(served);
    return s;
}
