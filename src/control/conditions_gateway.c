/* SPDX-License-Identifier: Apache-2.0
 *
 * What is true of a GatewayClass, a Gateway and its listeners, an HTTPRoute and its parents: the usage table that
 * compose left, and whether sockets are open and workers have the snapshot. Says nothing of objects of other
 * controllers.
 */
#include <stdio.h>

#include "control/conditions_priv.h"
#include "proxy/node_address.h"

void conditions_of_class(const struct condition_subject *s, struct condition_list *out)
{
    char *errors = condition_errors(s->o);
    if (s->o->good == NULL || compose_controller(s->o->good->u.gateway_class.controller_name) == NULL) {
        mem_free(errors);
        return;
    }
    if (errors != NULL)
        condition_add(out, "", "Accepted", CONDITION_FALSE, "Invalid", "%s", errors);
    else
        condition_add(out, "", "Accepted", CONDITION_TRUE, "Accepted", "its Gateways are served by this gateway");
    mem_free(errors);
}

/* ---- Gateways ---- */

static const struct open_listener *open_of(const struct control *c, const struct addr *addr)
{
    for (size_t i = 0; i < c->listener_count; i++)
        if (addr_eq(&c->listeners[i].addr, addr))
            return &c->listeners[i];
    return NULL;
}

/* Addresses of the snapshot that are this Gateway's; port 0: all. Why one of them has no socket goes to *why. */
static size_t sockets_of(const struct condition_subject *s, uint16_t port, const char **why)
{
    const struct snapshot *snapshot = s->c->snapshot;
    char *name = mem_printf("%s/%s", s->o->ns, s->o->name);
    size_t open = 0;
    for (size_t i = 0; snapshot != NULL && i < snapshot->listener_count; i++) {
        const struct listener_conf *l = &snapshot->listeners[i];
        if (strcmp(l->gateway, name) != 0 || (port != 0 && addr_port(&l->addr) != port))
            continue;
        const struct open_listener *socket = open_of(s->c, &l->addr);
        if (socket != NULL && socket->open)
            open++;
        else
            *why = socket != NULL && socket->error != NULL ? socket->error : "its socket is not open yet";
    }
    mem_free(name);
    return open;
}

static bool of_listener(const struct condition_subject *s, const struct gateway_listener *l, struct condition_list *out)
{
    const struct usage_part *part = s->usage != NULL ? usage_part_find(s->usage, USAGE_LISTENER, l->name) : NULL;
    char *scope = mem_printf("listener/%s", l->name);
    const char *why = NULL;
    bool good = false;
    size_t open = sockets_of(s, l->port, &why);
    if (part == NULL)
        condition_add(out, scope, "Accepted", CONDITION_UNKNOWN, "Pending", "not looked at yet");
    else if (part->ok)
        condition_add(out, scope, "Accepted", CONDITION_TRUE, "Accepted", "%s", "");
    else
        condition_add(out, scope, "Accepted", CONDITION_FALSE, part->reason, "%s", part->message);
    if (part == NULL || !part->ok)
        condition_add(out, scope, "Programmed", CONDITION_FALSE, part == NULL ? "Pending" : "Invalid", "%s",
                      part == NULL ? "not looked at yet" : part->message);
    else if (open == 0 || why != NULL)
        condition_add(out, scope, "Programmed", CONDITION_FALSE, "AddressNotUsable", "%s",
                      why != NULL ? why : "it has no address");
    else if (!s->adopted)
        condition_add(out, scope, "Programmed", CONDITION_FALSE, "Pending", "not every worker has it yet");
    else {
        condition_add(out, scope, "Programmed", CONDITION_TRUE, "Programmed", "port %u is open on %u workers", l->port,
                      s->c->worker_count);
        good = true;
    }
    if (l->http_routes)
        condition_add(out, scope, "ResolvedRefs", CONDITION_TRUE, "ResolvedRefs", "%s", "");
    else
        condition_add(out, scope, "ResolvedRefs", CONDITION_FALSE, "InvalidRouteKinds",
                      "allowedRoutes.kinds names no kind of route that is supported here: only HTTPRoute is");
    condition_add(out, scope, "Conflicted", CONDITION_FALSE, "NoConflicts", "%s", "");
    mem_free(scope);
    return good;
}

static void gateway_accepted(const struct condition_subject *s, size_t valid, const char *errors,
                             struct condition_list *out)
{
    const struct gateway *g = &s->o->good->u.gateway;
    if (errors != NULL)
        condition_add(out, "", "Accepted", CONDITION_FALSE, "Invalid", "%s", errors);
    else if (s->usage == NULL)
        condition_add(out, "", "Accepted", CONDITION_UNKNOWN, "Pending", "not looked at yet");
    else if (strcmp(s->usage->reason, "InvalidParameters") == 0)
        condition_add(out, "", "Accepted", CONDITION_FALSE, "InvalidParameters", "%s", s->usage->message);
    else if (valid == 0)
        condition_add(out, "", "Accepted", CONDITION_FALSE, "ListenersNotValid", "%s", s->usage->message);
    else if (valid < g->listener_count)
        condition_add(out, "", "Accepted", CONDITION_TRUE, "ListenersNotValid", "%s", s->usage->message);
    else
        condition_add(out, "", "Accepted", CONDITION_TRUE, "Accepted", "%s", "");
}

static const struct usage_part *bad_address(const struct usage *u)
{
    for (size_t i = 0; u != NULL && i < u->part_count; i++)
        if (u->parts[i].aspect == USAGE_ADDRESS && !u->parts[i].ok)
            return &u->parts[i];
    return NULL;
}

static void gateway_programmed(const struct condition_subject *s, size_t valid, size_t good, const char *errors,
                               struct condition_list *out)
{
    const struct gateway *g = &s->o->good->u.gateway;
    const struct usage_part *address = bad_address(s->usage);
    const char *why = NULL;
    (void)sockets_of(s, 0, &why);
    if (errors != NULL)
        condition_add(out, "", "Programmed", CONDITION_FALSE, "Invalid",
                      "the newest text is not in use; the last good version goes on");
    else if (address != NULL)
        condition_add(out, "", "Programmed", CONDITION_FALSE, "AddressNotUsable", "%s", address->message);
    else if (s->usage != NULL && valid == 0)
        condition_add(out, "", "Programmed", CONDITION_FALSE, "Invalid", "no listener can be served");
    else if (why != NULL)
        condition_add(out, "", "Programmed", CONDITION_FALSE, "AddressNotUsable", "%s", why);
    else if (!s->adopted || good == 0)
        condition_add(out, "", "Programmed", CONDITION_FALSE, "Pending", "not every worker has it yet");
    else
        condition_add(out, "", "Programmed", CONDITION_TRUE, "Programmed", "%zu of %zu listeners on %u workers", good,
                      g->listener_count, s->c->worker_count);
}

void conditions_of_gateway(const struct condition_subject *s, struct condition_list *out)
{
    if (s->o->good == NULL || compose_gateway_controller(&s->c->store, s->o->good) == NULL)
        return;
    const struct gateway *g = &s->o->good->u.gateway;
    char *errors = condition_errors(s->o);
    struct condition_list listeners = {0};
    size_t good = 0, valid = 0;
    for (size_t i = 0; i < g->listener_count; i++) {
        good += of_listener(s, &g->listeners[i], &listeners);
        valid += listeners.list[listeners.count - 4].status == CONDITION_TRUE;
    }
    gateway_accepted(s, valid, errors, out);
    gateway_programmed(s, valid, good, errors, out);
    out->list = mem_realloc(out->list, (out->count + listeners.count + 1) * sizeof *out->list);
    if (listeners.count > 0)
        memcpy(out->list + out->count, listeners.list, listeners.count * sizeof *out->list);
    out->count += listeners.count;
    mem_free(listeners.list);
    mem_free(errors);
}

static void write_addresses(const struct condition_subject *s, struct strbuf *out)
{
    const struct gateway *g = &s->o->good->u.gateway;
    strbuf_addz(out, ",\"addresses\":[");
    bool first = true;
    const char *why = NULL;
    bool open = sockets_of(s, 0, &why) > 0;
    for (size_t i = 0; open && i < (g->address_count > 0 ? g->address_count : 1); i++) {
        const char *value = g->address_count > 0 ? g->addresses[i].value : node_address();
        if (s->usage == NULL || usage_part_find(s->usage, USAGE_ADDRESS, value) != NULL)
            continue;
        strbuf_addz(out, first ? "{\"type\":\"IPAddress\",\"value\":" : ",{\"type\":\"IPAddress\",\"value\":");
        strbuf_add_json(out, str_of(value));
        strbuf_addc(out, '}');
        first = false;
    }
    strbuf_addc(out, ']');
}

void conditions_write_gateway(const struct condition_subject *s, const struct condition_list *l, int64_t observed,
                              struct strbuf *out)
{
    const struct gateway *g = &s->o->good->u.gateway;
    write_addresses(s, out);
    strbuf_addz(out, ",\"listeners\":[");
    for (size_t i = 0; i < g->listener_count; i++) {
        const struct gateway_listener *listener = &g->listeners[i];
        const struct usage_part *part =
            s->usage != NULL ? usage_part_find(s->usage, USAGE_LISTENER, listener->name) : NULL;
        strbuf_addz(out, i > 0 ? ",{\"name\":" : "{\"name\":");
        strbuf_add_json(out, str_of(listener->name));
        strbuf_printf(out, ",\"attachedRoutes\":%u,\"supportedKinds\":[%s]", part != NULL ? part->routes : 0,
                      listener->http_routes && listener->protocol == PROTOCOL_HTTP
                          ? "{\"group\":\"gateway.networking.k8s.io\",\"kind\":\"HTTPRoute\"}"
                          : "");
        char *scope = mem_printf("listener/%s", listener->name);
        condition_write_scope(l, scope, observed, false, out);
        mem_free(scope);
        strbuf_addc(out, '}');
    }
    strbuf_addc(out, ']');
}

/* ---- routes ---- */

static char *parent_scope(const struct resource *route, const struct parent_ref *p)
{
    return mem_printf("parent/%s/%s/%s/%u", p->ns != NULL ? p->ns : route->meta.ns, p->name,
                      p->section != NULL ? p->section : "", p->port);
}

static const struct usage_part *parent_part(const struct condition_subject *s, size_t index)
{
    char number[24];
    (void)snprintf(number, sizeof number, "%zu", index);
    return s->usage != NULL ? usage_part_find(s->usage, USAGE_PARENT, number) : NULL;
}

void conditions_of_route(const struct condition_subject *s, struct condition_list *out)
{
    if (s->o->good == NULL)
        return;
    const struct http_route *r = &s->o->good->u.http_route;
    const struct usage_part *refs = s->usage != NULL ? usage_part_find(s->usage, USAGE_REFS, "") : NULL;
    char *errors = condition_errors(s->o);
    for (size_t i = 0; i < r->parent_count; i++) {
        const struct usage_part *part = parent_part(s, i);
        if (part == NULL)
            continue;
        char *scope = parent_scope(s->o->good, &r->parents[i]);
        if (condition_find(out, scope, "Accepted") != NULL) {
            mem_free(scope); /* the same parent twice */
            continue;
        }
        if (errors != NULL)
            condition_add(out, scope, "Accepted", CONDITION_FALSE, "UnsupportedValue", "%s", errors);
        else if (part->ok)
            condition_add(out, scope, "Accepted", CONDITION_TRUE, "Accepted", "%s", "");
        else
            condition_add(out, scope, "Accepted", CONDITION_FALSE, part->reason, "%s", part->message);
        if (refs == NULL)
            condition_add(out, scope, "ResolvedRefs", CONDITION_TRUE, "ResolvedRefs", "%s", "");
        else
            condition_add(out, scope, "ResolvedRefs", CONDITION_FALSE, refs->reason, "%s", refs->message);
        mem_free(scope);
    }
    mem_free(errors);
}

static void write_parent_ref(const struct parent_ref *p, struct strbuf *out)
{
    strbuf_addz(out, "{\"parentRef\":{\"group\":");
    strbuf_add_json(out, str_of(p->group));
    strbuf_addz(out, ",\"kind\":");
    strbuf_add_json(out, str_of(p->kind));
    if (p->ns != NULL) {
        strbuf_addz(out, ",\"namespace\":");
        strbuf_add_json(out, str_of(p->ns));
    }
    strbuf_addz(out, ",\"name\":");
    strbuf_add_json(out, str_of(p->name));
    if (p->section != NULL) {
        strbuf_addz(out, ",\"sectionName\":");
        strbuf_add_json(out, str_of(p->section));
    }
    if (p->port != 0)
        strbuf_printf(out, ",\"port\":%u", p->port);
    strbuf_addc(out, '}');
}

void conditions_write_route(const struct condition_subject *s, const struct condition_list *l, int64_t observed,
                            struct strbuf *out)
{
    const struct http_route *r = &s->o->good->u.http_route;
    bool first = true;
    strbuf_addz(out, ",\"parents\":[");
    for (size_t i = 0; i < r->parent_count; i++) {
        const struct usage_part *part = parent_part(s, i);
        if (part == NULL)
            continue;
        if (!first)
            strbuf_addc(out, ',');
        first = false;
        write_parent_ref(&r->parents[i], out);
        strbuf_addz(out, ",\"controllerName\":");
        strbuf_add_json(out, str_of(part->controller));
        char *scope = parent_scope(s->o->good, &r->parents[i]);
        condition_write_scope(l, scope, observed, false, out);
        mem_free(scope);
        strbuf_addc(out, '}');
    }
    strbuf_addc(out, ']');
}
