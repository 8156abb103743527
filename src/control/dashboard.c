/* SPDX-License-Identifier: Apache-2.0
 *
 * The document of /stats. Says what is there in the words of conditions, in the order requests meet it, and puts the
 * numbers of dashboard_history.c beside it. Must stay small and cheap however many objects there are: it is asked for
 * every second or two by each page that is open.
 */
#include "control/dashboard.h"

#include <stdio.h>
#include <time.h>

#include "base/budget.h"
#include "base/log.h"
#include "control/control.h"
#include "control/dashboard_priv.h"

enum { OBJECTS_MAX = 200, RULES_MAX = 8, EVENTS_SHOWN = 40, WINDOW_SHORT = 10, WINDOW_LONG = 60 };

static void add_text(struct strbuf *b, const char *name, const char *value)
{
    strbuf_printf(b, ",\"%s\":", name);
    if (value != NULL)
        strbuf_add_json(b, str_of(value));
    else
        strbuf_addz(b, "null");
}
static void add_number(struct strbuf *b, const char *name, uint64_t value)
{
    strbuf_printf(b, ",\"%s\":%llu", name, (unsigned long long)value);
}
/* The first member has no comma before it. */
static void open_object(struct strbuf *b, bool first, enum kind kind, const char *ns, const char *name)
{
    strbuf_printf(b, "%s{\"kind\":\"%s\"", first ? "" : ",", kind_name(kind));
    add_text(b, "namespace", ns);
    add_text(b, "name", name);
}

/* The one word and sentence of an object: of the first condition that is not as it should be, else of the last that
 * says something. */
static void add_state(struct strbuf *b, const struct condition_list *l, const char *scope)
{
    const struct condition *bad = NULL, *open = NULL, *warned = NULL, *good = NULL;
    for (size_t i = 0; i < l->count; i++) {
        const struct condition *c = &l->list[i];
        if ((scope != NULL && strcmp(c->scope, scope) != 0) || strcmp(c->type, "Conflicted") == 0)
            continue;
        if (c->status == CONDITION_FALSE && bad == NULL)
            bad = c;
        else if (c->status == CONDITION_UNKNOWN && open == NULL)
            open = c;
        else if (c->status == CONDITION_TRUE && strcmp(c->type, "Accepted") == 0 && strcmp(c->reason, "Accepted") != 0)
            warned = c;
        else if (c->status == CONDITION_TRUE && (good == NULL || strcmp(c->type, "Programmed") == 0))
            good = c;
    }
    const struct condition *c = bad != NULL ? bad : open != NULL ? open : warned != NULL ? warned : good;
    add_text(b, "state",
             bad != NULL      ? "bad"
             : open != NULL   ? "pending"
             : warned != NULL ? "warn"
             : good != NULL   ? "good"
                              : "unknown");
    add_text(b, "reason", c != NULL ? c->reason : NULL);
    add_text(b, "message", c != NULL ? c->message : NULL);
}

/* ---- gateways ---- */

static const char *protocol_name(enum listener_protocol p)
{
    static const char *const names[] = {"HTTP", "HTTPS", "TLS", "TCP", "UDP"};
    return names[p];
}

static void write_chain(const struct listener_conf *l, struct strbuf *b)
{
    strbuf_addc(b, '[');
    for (size_t i = 0; i < l->chain_count; i++) {
        if (i > 0)
            strbuf_addc(b, ',');
        strbuf_add_json(b, str_of(l->chain[i].title));
    }
    strbuf_addc(b, ']');
}

/* Where a listener is served, and the chain there: the same at each address of one port. */
static void write_served(const struct control *c, const char *gateway, uint16_t port, struct strbuf *b)
{
    const struct listener_conf *chain = NULL;
    strbuf_addz(b, ",\"addresses\":[");
    for (size_t i = 0; c->snapshot != NULL && i < c->snapshot->listener_count; i++) {
        const struct listener_conf *l = &c->snapshot->listeners[i];
        if (addr_port(&l->addr) != port || strcmp(l->gateway, gateway) != 0)
            continue;
        char text[ADDR_TEXT_MAX];
        addr_format(&l->addr, true, text);
        strbuf_printf(b, chain != NULL ? ",\"%s\"" : "\"%s\"", text);
        chain = l;
    }
    strbuf_addz(b, "],\"chain\":");
    if (chain != NULL)
        write_chain(chain, b);
    else
        strbuf_addz(b, "[]");
}

static void write_gateway(const struct control *c, const struct store_object *o, bool first, struct strbuf *b)
{
    struct condition_list conditions;
    conditions_now(c, o, &conditions);
    char *title = mem_printf("%s/%s", o->ns, o->name);
    const struct usage *u = usage_find(&c->usage, o->kind, o->ns, o->name);
    open_object(b, first, o->kind, o->ns, o->name);
    add_state(b, &conditions, "");
    strbuf_addz(b, ",\"listeners\":[");
    for (size_t i = 0; i < o->good->u.gateway.listener_count; i++) {
        const struct gateway_listener *l = &o->good->u.gateway.listeners[i];
        const struct usage_part *part = u != NULL ? usage_part_find(u, USAGE_LISTENER, l->name) : NULL;
        strbuf_printf(b, "%s{\"port\":%u,\"protocol\":\"%s\"", i > 0 ? "," : "", l->port, protocol_name(l->protocol));
        add_text(b, "name", l->name);
        add_text(b, "hostname", l->hostname);
        add_number(b, "attachedRoutes", part != NULL ? part->routes : 0);
        char *scope = mem_printf("listener/%s", l->name);
        add_state(b, &conditions, scope);
        mem_free(scope);
        write_served(c, title, l->port, b);
        strbuf_addc(b, '}');
    }
    strbuf_addz(b, "]}");
    mem_free(title);
    condition_list_free(&conditions);
}

/* ---- routes ---- */

static void match_text(const struct route_match *m, struct strbuf *b)
{
    static const char *const types[] = {"= ", "", "~ "};
    strbuf_printf(b, "%s%s%s%s", m->method != NULL ? m->method : "", m->method != NULL ? " " : "", types[m->path.type],
                  m->path.value);
    if (m->header_count + m->query_count > 0)
        strbuf_printf(b, " (%zu more conditions)", m->header_count + m->query_count);
}

static void write_rule(const struct route_rule *r, struct strbuf *b)
{
    struct strbuf text = {0};
    for (size_t i = 0; i < r->match_count && i < RULES_MAX; i++) {
        if (i > 0)
            strbuf_addz(&text, ", ");
        match_text(&r->matches[i], &text);
    }
    strbuf_addz(b, "{\"match\":");
    strbuf_add_json(b, strbuf_str(&text));
    strbuf_clear(&text);
    for (size_t i = 0; i < r->backend_count && i < RULES_MAX; i++) {
        const struct backend_ref *ref = &r->backends[i];
        strbuf_printf(&text, "%s%s%s%s:%u", i > 0 ? ", " : "", ref->ns != NULL ? ref->ns : "",
                      ref->ns != NULL ? "/" : "", ref->name, ref->port);
        if (r->backend_count > 1)
            strbuf_printf(&text, " (weight %u)", ref->weight);
    }
    strbuf_addz(b, ",\"backends\":");
    strbuf_add_json(b, strbuf_str(&text));
    strbuf_addc(b, '}');
    strbuf_free(&text);
}

static void write_route(const struct control *c, const struct store_object *o, bool first, struct strbuf *b)
{
    const struct http_route *r = &o->good->u.http_route;
    struct condition_list conditions;
    conditions_now(c, o, &conditions);
    open_object(b, first, o->kind, o->ns, o->name);
    add_state(b, &conditions, NULL);
    condition_list_free(&conditions);
    strbuf_addz(b, ",\"hostnames\":[");
    for (size_t i = 0; i < r->hostname_count && i < RULES_MAX; i++) {
        strbuf_addz(b, i > 0 ? "," : "");
        strbuf_add_json(b, str_of(r->hostnames[i]));
    }
    strbuf_addz(b, "],\"parents\":[");
    for (size_t i = 0; i < r->parent_count && i < RULES_MAX; i++) {
        const struct parent_ref *p = &r->parents[i];
        char *text = mem_printf("%s/%s%s%s", p->ns != NULL ? p->ns : o->ns, p->name, p->section != NULL ? " " : "",
                                p->section != NULL ? p->section : "");
        strbuf_addz(b, i > 0 ? "," : "");
        strbuf_add_json(b, str_of(text));
        mem_free(text);
    }
    strbuf_addz(b, "],\"rules\":[");
    for (size_t i = 0; i < r->rule_count && i < RULES_MAX; i++) {
        strbuf_addz(b, i > 0 ? "," : "");
        write_rule(&r->rules[i], b);
    }
    strbuf_addc(b, ']');
    add_number(b, "ruleCount", r->rule_count);
    strbuf_addc(b, '}');
}

/* ---- plugins ---- */

static const char *phase_text(enum plugin_phase p)
{
    static const char *const names[] = {NULL, "AUTHN", "AUTHZ", "STATS"};
    return names[p];
}
static const char *fail_text(enum plugin_fail f)
{
    return f == PLUGIN_FAIL_OPEN ? "FAIL_OPEN" : f == PLUGIN_FAIL_RELOAD ? "FAIL_RELOAD" : "FAIL_CLOSE";
}

static void write_delivery(const struct control *c, const struct delivery_item *item, struct strbuf *b)
{
    unsigned live = 0, quarantined = 0, failures = 0;
    const char *last = NULL;
    for (unsigned i = 0; i < c->worker_count; i++) {
        const struct delivery_worker *w = &item->workers[i];
        live += w->state != NULL && strcmp(w->state, "live") == 0;
        quarantined += w->state != NULL && strcmp(w->state, "quarantined") == 0;
        failures += w->losses;
        last = w->reason != NULL ? w->reason : last;
    }
    add_text(b, "stage", delivery_stage_name(item->stage));
    add_text(b, "sha256", item->live != NULL ? item->live->sha256 : NULL);
    add_number(b, "generation", item->live != NULL ? item->live->generation : 0);
    add_number(b, "swaps", item->swaps);
    strbuf_printf(b, ",\"workersLive\":%u,\"workersQuarantined\":%u,\"vmFailures\":%u", live, quarantined, failures);
    add_text(b, "lastFailure", last);
}

static void write_plugin(const struct control *c, const struct store_object *o, bool first, struct strbuf *b)
{
    const struct wasm_plugin *p = o->good != NULL ? &o->good->u.wasm_plugin : NULL;
    const struct delivery_item *item = p != NULL ? delivery_find(c->delivery, o->kind, o->ns, o->name) : NULL;
    const struct plugin_history *h = c->dashboard != NULL ? dashboard_plugin(c->dashboard, o->ns, o->name) : NULL;
    struct condition_list conditions;
    conditions_now(c, o, &conditions);
    open_object(b, first, o->kind, o->ns, o->name);
    add_state(b, &conditions, "");
    strbuf_addz(b, ",\"conditions\":");
    conditions_write_list(&conditions, b);
    condition_list_free(&conditions);
    if (p != NULL) {
        struct strbuf url = {0};
        url_write_public(p->url, &url);
        strbuf_addz(b, ",\"url\":");
        strbuf_add_json(b, strbuf_str(&url));
        strbuf_free(&url);
        add_text(b, "phase", phase_text(p->phase));
        strbuf_printf(b, p->has_priority ? ",\"priority\":%d" : ",\"priority\":null", p->priority);
        add_text(b, "failStrategy", fail_text(p->fail));
    }
    if (item != NULL)
        write_delivery(c, item, b);
    if (h != NULL) {
        add_number(b, "requests", h->requests);
        add_number(b, "failed", h->failed);
        add_number(b, "bypassed", h->bypassed);
        add_number(b, "traps", h->traps);
        add_number(b, "memoryBytes", h->memory_bytes > 0 ? (uint64_t)h->memory_bytes : 0);
        dashboard_write_plugin(c->dashboard, h, "last10s", WINDOW_SHORT, b);
        dashboard_write_plugin(c->dashboard, h, "last60s", WINDOW_LONG, b);
        dashboard_write_plugin_history(c->dashboard, h, b);
    }
    strbuf_addc(b, '}');
}

/* In the order in which requests of the first listener meet them; then those of the next; then those in no chain. */
static size_t write_plugins(const struct control *c, struct strbuf *b)
{
    struct map done = {0};
    size_t written = 0, all = 0;
    static const enum kind kinds[] = {KIND_WASM_PLUGIN, KIND_TRAFFIC_EXTENSION};
    strbuf_addz(b, ",\"plugins\":[");
    for (size_t i = 0; c->snapshot != NULL && i < c->snapshot->listener_count; i++) {
        const struct listener_conf *l = &c->snapshot->listeners[i];
        for (size_t k = 0; k < l->chain_count && written < OBJECTS_MAX; k++) {
            struct str name = str_of(l->chain[k].title), ns = str_split(&name, '/');
            char *ns_text = str_dup(ns);
            for (size_t n = 0; n < ARRAY_LEN(kinds); n++) {
                const struct store_object *o = store_find(&c->store, kinds[n], ns_text, name.p);
                if (o == NULL || map_get(&done, str_span(&o, sizeof(void *))) != NULL)
                    continue;
                map_set(&done, str_span(&o, sizeof(void *)), (void *)(uintptr_t)o);
                write_plugin(c, o, written++ == 0, b);
            }
            mem_free(ns_text);
        }
    }
    MAP_EACH (e, &c->store.objects) {
        const struct store_object *o = e->value;
        if (o->kind != KIND_WASM_PLUGIN && o->kind != KIND_TRAFFIC_EXTENSION)
            continue;
        all++;
        if (written < OBJECTS_MAX && map_get(&done, str_span(&o, sizeof(void *))) == NULL)
            write_plugin(c, o, written++ == 0, b);
    }
    map_free(&done);
    strbuf_addc(b, ']');
    return all;
}

/* ---- the whole ---- */

static size_t write_all(const struct control *c, const char *name, enum kind kind,
                        void (*write)(const struct control *c, const struct store_object *o, bool first,
                                      struct strbuf *b),
                        struct strbuf *b)
{
    size_t count = 0;
    strbuf_printf(b, ",\"%s\":[", name);
    STORE_EACH(o, &c->store, kind)
    {
        if (count < OBJECTS_MAX)
            write(c, o, count == 0, b);
        count++;
    }
    strbuf_addc(b, ']');
    return count;
}

static void add_problem(struct strbuf *b, bool *first, const char *text)
{
    if (!*first)
        strbuf_addc(b, ',');
    *first = false;
    strbuf_add_json(b, str_of(text));
}

/* Why it is not ready, and what is not in use. */
static void write_problems(const struct control *c, struct strbuf *b)
{
    struct diag files = {0};
    struct strbuf why = {0};
    bool first = true, ready = control_is_ready(c, &why);
    store_file_errors(&c->store, &files);
    strbuf_printf(b, ",\"ready\":%s,\"problems\":[", ready ? "true" : "false");
    struct str rest = strbuf_str(&why);
    for (struct str line; rest.n > 0;) {
        line = str_split(&rest, '\n');
        char *text = str_dup(line);
        if (line.n > 0)
            add_problem(b, &first, text);
        mem_free(text);
    }
    for (size_t i = 0; i < files.count && i < OBJECTS_MAX; i++) {
        char *text = diag_format(&files.entries[i]);
        add_problem(b, &first, text);
        mem_free(text);
    }
    strbuf_addc(b, ']');
    strbuf_free(&why);
    diag_free(&files);
}

static const char *life_text(enum phase_of_life life)
{
    return life == LIFE_STARTING ? "starting" : life == LIFE_SERVING ? "serving" : "draining";
}

static void write_process(const struct control *c, struct strbuf *b)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    strbuf_addz(b, "{\"version\":\"" WEIR_VERSION "\"");
    add_text(b, "gateway", c->o->identity.name);
    add_text(b, "gatewayNamespace", c->o->identity.ns);
    add_number(b, "timeMillis", (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000);
    add_number(b, "uptimeSeconds", (loop_now(&c->loop) - c->started_ms) / 1000);
    add_text(b, "life", life_text(c->life));
    add_number(b, "workers", c->worker_count);
    add_number(b, "configVersion", c->snapshot != NULL ? c->snapshot->version : 0);
    add_number(b, "adoptedVersion", c->adopted_all);
    add_number(b, "badObjects", store_bad_count(&c->store));
    add_number(b, "memoryUsedBytes", budget_used());
    add_number(b, "memoryBudgetBytes", budget_limit());
}

static void write_traffic(const struct dashboard *d, struct strbuf *b)
{
    if (d == NULL || d->count == 0)
        return;
    strbuf_printf(b, ",\"traffic\":{\"streams\":%lld,\"connections\":%lld,\"upstreamConnections\":%lld",
                  (long long)d->streams, (long long)d->connections, (long long)d->up_connections);
    dashboard_write_traffic(d, "last10s", WINDOW_SHORT, b);
    dashboard_write_traffic(d, "last60s", WINDOW_LONG, b);
    dashboard_write_traffic_history(d, b);
    strbuf_addc(b, '}');
}

void dashboard_write(struct control *c, struct strbuf *out)
{
    write_process(c, out);
    write_problems(c, out);
    write_traffic(c->dashboard, out);
    size_t gateways = write_all(c, "gateways", KIND_GATEWAY, write_gateway, out);
    size_t routes = write_all(c, "routes", KIND_HTTP_ROUTE, write_route, out);
    size_t plugins = write_plugins(c, out);
    add_number(out, "gatewayCount", gateways);
    add_number(out, "routeCount", routes);
    add_number(out, "pluginCount", plugins);
    strbuf_addc(out, ',');
    struct strbuf events = {0};
    events_write(&c->events, EVENTS_SHOWN, &events); /* {"events":[...]} and a newline */
    strbuf_add(out, str_span(events.p + 1, events.n - 3));
    strbuf_free(&events);
    strbuf_addz(out, "}\n");
}
