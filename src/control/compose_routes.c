/* SPDX-License-Identifier: Apache-2.0
 *
 * HTTPRoutes to route tables: which listeners take a route (parentRefs, allowedRoutes, hostnames), and what its
 * backends are (Services and ServiceEntries, with ReferenceGrants across namespaces). A reference that cannot be
 * followed becomes a backend that answers 500, as the Gateway API wants, and is said in the route's status.
 */
#include "control/compose_priv.h"

bool compose_reference_granted(const struct store *store, const char *from_group, const char *from_kind,
                               const char *from_ns, const char *to_group, const char *to_kind, const char *to_ns,
                               const char *to_name)
{
    if (strcmp(from_ns, to_ns) == 0)
        return true;
    STORE_EACH(o, store, KIND_REFERENCE_GRANT)
    {
        const struct reference_grant *g = &o->good->u.reference_grant;
        if (strcmp(o->ns, to_ns) != 0)
            continue;
        bool from = false, to = false;
        for (size_t i = 0; i < g->from_count; i++)
            from |= strcmp(g->from[i].group, from_group) == 0 && strcmp(g->from[i].kind, from_kind) == 0 &&
                    strcmp(g->from[i].ns, from_ns) == 0;
        for (size_t i = 0; i < g->to_count; i++)
            to |= strcmp(g->to[i].group, to_group) == 0 && strcmp(g->to[i].kind, to_kind) == 0 &&
                  (g->to[i].name == NULL || strcmp(g->to[i].name, to_name) == 0);
        if (from && to)
            return true;
    }
    return false;
}

/* ---- backends ---- */

static bool service_has_port(const struct service *s, uint16_t port)
{
    for (size_t i = 0; i < s->port_count; i++)
        if (s->ports[i].port == port)
            return true;
    return false;
}

static char *backend_service(const struct compose *c, const struct backend_ref *b, const char *ns, char **why)
{
    const struct store_object *o = store_find(c->store, KIND_SERVICE, ns, b->name);
    if (o == NULL || o->good == NULL)
        *why = mem_printf("Service %s/%s not found", ns, b->name);
    else if (b->port == 0)
        *why = mem_printf("Service %s/%s: port is required", ns, b->name);
    else if (!service_has_port(&o->good->u.service, b->port))
        *why = mem_printf("Service %s/%s has no port %u", ns, b->name, b->port);
    else if (o->good->u.service.external_name != NULL)
        *why = mem_printf("Service %s/%s is of type ExternalName, which is refused", ns, b->name);
    else
        return cluster_key_service(ns, b->name, b->port);
    return NULL;
}

/* Istio's way to a ServiceEntry: group networking.istio.io, kind Hostname (name is the host) or ServiceEntry. */
static char *backend_entry(const struct compose *c, const struct backend_ref *b, const char *ns, char **why)
{
    bool by_host = strcmp(b->kind, "Hostname") == 0;
    STORE_EACH(o, c->store, KIND_SERVICE_ENTRY)
    {
        const struct service_entry *e = &o->good->u.service_entry;
        if (by_host ? false : strcmp(o->ns, ns) != 0 || strcmp(o->name, b->name) != 0)
            continue;
        for (size_t h = 0; h < e->host_count; h++) {
            if (by_host && strcmp(e->hosts[h], b->name) != 0)
                continue;
            for (size_t p = 0; p < e->port_count; p++)
                if (e->ports[p].number == b->port)
                    return cluster_key_host(o->ns, o->name, e->hosts[h], b->port);
        }
    }
    *why = mem_printf("no ServiceEntry gives %s %s port %u", b->kind, b->name, b->port);
    return NULL;
}

static void backend_resolve(const struct compose *c, const struct resource *route, const struct backend_ref *b,
                            struct route_backend *out)
{
    const char *ns = b->ns != NULL ? b->ns : route->meta.ns;
    *out = (struct route_backend){.weight = b->weight, .filters = b->filters, .filter_count = b->filter_count};
    bool entry = strcmp(b->group, "networking.istio.io") == 0 &&
                 (strcmp(b->kind, "Hostname") == 0 || strcmp(b->kind, "ServiceEntry") == 0);
    bool service = b->group[0] == '\0' && strcmp(b->kind, "Service") == 0;
    const char *reason = "BackendNotFound";
    if (!entry && !service) {
        out->why = mem_printf("backendRef kind %s/%s is not supported", b->group, b->kind);
        reason = "InvalidKind";
    } else if (strcmp(b->kind, "Hostname") != 0 &&
               !compose_reference_granted(c->store, "gateway.networking.k8s.io", "HTTPRoute", route->meta.ns, b->group,
                                          b->kind, ns, b->name)) {
        out->why = mem_printf("no ReferenceGrant in %s lets it refer to %s %s", ns, b->kind, b->name);
        reason = "RefNotPermitted";
    } else {
        out->cluster = service ? backend_service(c, b, ns, &out->why) : backend_entry(c, b, ns, &out->why);
    }
    if (out->why == NULL)
        return;
    usage_say(c->usage, &route->meta, false, reason, "%s", out->why);
    usage_say_part(c->usage, &route->meta, USAGE_REFS, "", false, reason, "%s", out->why);
}

static struct route_backend **backends_resolve(const struct compose *c, const struct resource *route)
{
    const struct http_route *r = &route->u.http_route;
    struct route_backend **all = mem_zalloc((r->rule_count + 1) * sizeof *all);
    for (size_t i = 0; i < r->rule_count; i++) {
        all[i] = mem_zalloc((r->rules[i].backend_count + 1) * sizeof **all);
        for (size_t b = 0; b < r->rules[i].backend_count; b++)
            backend_resolve(c, route, &r->rules[i].backends[b], &all[i][b]);
    }
    return all;
}

static void backends_free(struct route_backend **all, const struct http_route *r)
{
    for (size_t i = 0; i < r->rule_count; i++) {
        for (size_t b = 0; b < r->rules[i].backend_count; b++) {
            mem_free(all[i][b].cluster);
            mem_free(all[i][b].why);
        }
        mem_free(all[i]);
    }
    mem_free(all);
}

/* ---- hostnames ---- */

/* Is host (exact or "*.x") inside pattern ("*.x")? */
static bool host_inside(const char *host, const char *pattern)
{
    struct str suffix = str_of(pattern + 1), h = str_of(host[0] == '*' ? host + 1 : host);
    return pattern[0] == '*' && h.n >= suffix.n && str_ends(h, suffix) && (host[0] == '*' || h.n > suffix.n);
}

/* The narrower of two hostnames that meet; NULL when they do not. NULL and "" are any. */
static const char *host_meet(const char *listener, const char *route)
{
    if (listener == NULL || listener[0] == '\0')
        return route;
    if (route[0] == '\0' || strcmp(listener, route) == 0)
        return listener;
    if (host_inside(route, listener))
        return route;
    return host_inside(listener, route) ? listener : NULL;
}

struct hosts {
    const char **list;
    size_t count;
};

static void hosts_add(struct hosts *h, const char *host)
{
    for (size_t i = 0; i < h->count; i++)
        if (strcmp(h->list[i], host) == 0)
            return;
    h->list = mem_realloc(h->list, (h->count + 1) * sizeof *h->list);
    h->list[h->count++] = host;
}

/* ---- attachment ---- */

static bool listener_allows(const struct compose *c, const struct served *s, const struct resource *route)
{
    const struct gateway_listener *l = s->listener;
    if (!l->http_routes)
        return false;
    if (l->from == ROUTES_ALL)
        return true;
    if (l->from == ROUTES_SAME)
        return strcmp(route->meta.ns, s->gateway->meta.ns) == 0;
    const struct store_object *ns = store_find(c->store, KIND_NAMESPACE, "", route->meta.ns);
    return ns != NULL && ns->good != NULL && label_selector_matches(&l->selector, &ns->good->meta.labels);
}

static bool parent_names(const struct parent_ref *p, const struct resource *route, const struct served *s)
{
    return strcmp(p->kind, "Gateway") == 0 && strcmp(p->group, "gateway.networking.k8s.io") == 0 &&
           strcmp(p->name, s->gateway->meta.name) == 0 &&
           strcmp(p->ns != NULL ? p->ns : route->meta.ns, s->gateway->meta.ns) == 0 &&
           (p->section == NULL || strcmp(p->section, s->listener->name) == 0) &&
           (p->port == 0 || p->port == s->listener->port);
}

/* What one parentRef came to. */
struct attachment {
    size_t listeners;
    const char *refused; /* by a listener that it names; NULL */
};

/* Does another listener of this address take all of `host`, and is more specific than `mine`? A request belongs to the
 * most specific listener alone (the Gateway API's listener isolation). */
static bool host_elsewhere(const struct served *served, size_t count, const struct served *mine, const char *host)
{
    for (size_t i = 0; i < count; i++) {
        const char *name = served[i].listener->hostname, *own = mine->listener->hostname;
        if (served[i].index != mine->index || name == NULL || name[0] == '\0')
            continue;
        bool narrower = own == NULL || own[0] == '\0' || (strcmp(own, name) != 0 && host_inside(name, own));
        if (narrower && (strcmp(host, name) == 0 || host_inside(host, name)))
            return true;
    }
    return false;
}

/* Hostnames under which the route lives on the listeners at `index`. */
static void attach_hosts(const struct compose *c, const struct resource *route, const struct parent_ref *p,
                         struct served *served, size_t count, size_t index, struct hosts *hosts, struct attachment *out)
{
    const struct http_route *r = &route->u.http_route;
    for (size_t i = 0; i < count; i++) {
        if (served[i].index != index || !parent_names(p, route, &served[i]))
            continue;
        if (!listener_allows(c, &served[i], route)) {
            out->refused = "NotAllowedByListeners";
            continue;
        }
        bool meets = false;
        for (size_t h = 0; h < r->hostname_count || h == 0; h++) {
            const char *meet = host_meet(served[i].listener->hostname, r->hostname_count > 0 ? r->hostnames[h] : "");
            meets |= meet != NULL;
            if (meet != NULL && !host_elsewhere(served, count, &served[i], meet))
                hosts_add(hosts, meet);
        }
        if (!meets && out->refused == NULL)
            out->refused = "NoMatchingListenerHostname";
        if (!meets)
            continue;
        out->listeners++;
        if (served[i].last_route != route) /* two parentRefs may name the same listener */
            served[i].routes++;
        served[i].last_route = route;
    }
}

/* Its Gateway is there, and is none of ours. */
static bool parent_elsewhere(const struct compose *c, const struct resource *route)
{
    const struct http_route *r = &route->u.http_route;
    for (size_t i = 0; i < r->parent_count; i++) {
        const struct parent_ref *p = &r->parents[i];
        const struct store_object *gw =
            strcmp(p->kind, "Gateway") == 0
                ? store_find(c->store, KIND_GATEWAY, p->ns != NULL ? p->ns : route->meta.ns, p->name)
                : NULL;
        const struct usage *u = gw != NULL ? usage_find(c->usage, KIND_GATEWAY, gw->ns, gw->name) : NULL;
        if (u != NULL && !u->accepted && !u->mistake)
            return true;
    }
    return false;
}

static const char *refused_text(const char *refused)
{
    return refused == NULL ? "no parentRef names a listener of a Gateway that is served"
           : strcmp(refused, "NotAllowedByListeners") == 0
               ? "the listener's allowedRoutes do not take routes of its namespace"
               : "none of its hostnames is one of the listener's";
}

/* For the status of each parentRef; those of other controllers' Gateways are not ours to judge. */
static void say_parents(struct compose *c, const struct resource *route, const struct attachment *attachments)
{
    const struct http_route *r = &route->u.http_route;
    for (size_t p = 0; p < r->parent_count; p++) {
        const struct parent_ref *ref = &r->parents[p];
        const struct store_object *gw =
            strcmp(ref->kind, "Gateway") == 0 && strcmp(ref->group, "gateway.networking.k8s.io") == 0
                ? store_find(c->store, KIND_GATEWAY, ref->ns != NULL ? ref->ns : route->meta.ns, ref->name)
                : NULL;
        const char *controller = gw != NULL && gw->good != NULL ? compose_gateway_controller(c->store, gw->good) : NULL;
        if (controller == NULL)
            continue;
        const struct attachment *a = &attachments[p];
        char number[24];
        snprintf(number, sizeof number, "%zu", p);
        usage_say_part(c->usage, &route->meta, USAGE_PARENT, number, a->listeners > 0,
                       a->refused != NULL ? a->refused : "NoMatchingParent", "%s",
                       a->refused == NULL ? "no listener of the Gateway that is served has this section name and port"
                                          : refused_text(a->refused))
            ->controller = controller;
    }
}

static void compose_route(struct compose *c, const struct resource *route, struct served *served, size_t count)
{
    const struct http_route *r = &route->u.http_route;
    struct route_backend **backends = backends_resolve(c, route);
    struct attachment *attachments = mem_zalloc((r->parent_count + 1) * sizeof *attachments);
    size_t attached = 0;
    const char *refused = NULL;
    for (size_t index = 0; index < c->snapshot->listener_count; index++) {
        struct hosts hosts = {0};
        for (size_t p = 0; p < r->parent_count; p++)
            attach_hosts(c, route, &r->parents[p], served, count, index, &hosts, &attachments[p]);
        if (hosts.count > 0) {
            route_table_add(c->snapshot->listeners[index].routes, (struct resource *)(uintptr_t)route, hosts.list,
                            hosts.count, (const struct route_backend *const *)backends);
            attached++;
        }
        mem_free(hosts.list);
    }
    backends_free(backends, r);
    for (size_t p = 0; p < r->parent_count; p++)
        refused = refused == NULL || attachments[p].refused != NULL ? attachments[p].refused : refused;
    say_parents(c, route, attachments);
    mem_free(attachments);
    if (attached == 0)
        usage_say(c->usage, &route->meta, false,
                  refused != NULL              ? refused
                  : parent_elsewhere(c, route) ? "OtherGateway"
                                               : "NoMatchingParent",
                  "%s", refused_text(refused));
    else
        usage_say(c->usage, &route->meta, true, "Accepted", "%s", "");
}

static void say_attached(struct compose *c, const struct served *served, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct usage_part *part = usage_say_part(c->usage, &served[i].gateway->meta, USAGE_LISTENER,
                                                 served[i].listener->name, true, "", "%s", "");
        /* With several addresses a listener is served several times, by the same routes. */
        part->routes = served[i].routes > part->routes ? served[i].routes : part->routes;
    }
}

void compose_routes(struct compose *c, struct served *served, size_t count)
{
    size_t n = 0;
    const struct resource **routes = compose_sorted(c->store, KIND_HTTP_ROUTE, &n);
    for (size_t i = 0; i < n; i++)
        compose_route(c, routes[i], served, count);
    mem_free(routes);
    say_attached(c, served, count);
    for (size_t i = 0; i < count; i++)
        if (served[i].listener->hostname != NULL)
            route_table_claim(c->snapshot->listeners[served[i].index].routes, served[i].listener->hostname);
    for (size_t i = 0; i < c->snapshot->listener_count; i++)
        route_table_finish(c->snapshot->listeners[i].routes);
}
