/* SPDX-License-Identifier: Apache-2.0
 *
 * What runs now, as JSON: /plugins and /config. Never shows Secret data, environment values, credentials or keys
 * (resource_write_json hides them); pluginConfig only when the operator asked for it.
 */
#include "control/control.h"

static const char *fail_name(enum plugin_fail f)
{
    return f == PLUGIN_FAIL_OPEN ? "FAIL_OPEN" : f == PLUGIN_FAIL_RELOAD ? "FAIL_RELOAD" : "FAIL_CLOSE";
}
static const char *phase_name(enum plugin_phase p)
{
    static const char *const names[] = {"UNSPECIFIED_PHASE", "AUTHN", "AUTHZ", "STATS"};
    return names[p];
}

static void add_field(struct strbuf *b, const char *name, const char *value)
{
    strbuf_printf(b, ",\"%s\":", name);
    if (value != NULL)
        strbuf_add_json(b, str_of(value));
    else
        strbuf_addz(b, "null");
}

/* The state a person asks about: what happens to traffic now. */
static const char *item_state(const struct control *c, const struct delivery_item *item)
{
    if (item->live == NULL)
        return item->stage == DELIVERY_FAILED ? "Failed" : "Pending";
    for (unsigned i = 0; i < c->worker_count; i++)
        if (item->workers[i].state != NULL && strcmp(item->workers[i].state, "live") != 0)
            return "Degraded";
    return item->stage == DELIVERY_ADOPT ? "Adopting" : "Active";
}

static void write_workers(const struct control *c, const struct delivery_item *item, struct strbuf *b)
{
    strbuf_addz(b, ",\"workers\":[");
    for (unsigned i = 0; i < c->worker_count; i++) {
        strbuf_printf(b, "%s{\"worker\":%u", i > 0 ? "," : "", i);
        add_field(b, "state", item->workers[i].state != NULL ? item->workers[i].state : "waiting");
        strbuf_printf(b, ",\"failures\":%u", item->workers[i].losses);
        add_field(b, "lastFailure", item->workers[i].reason);
        strbuf_addc(b, '}');
    }
    strbuf_addc(b, ']');
}

static void write_conditions(const struct control *c, const struct store_object *o, struct strbuf *b)
{
    struct condition_list l;
    conditions_now(c, o, &l);
    strbuf_addz(b, ",\"conditions\":");
    conditions_write_list(&l, b);
    condition_list_free(&l);
}

static void write_item(const struct control *c, const struct delivery_item *item, struct strbuf *b)
{
    const struct resource *r = item->resource;
    const struct wasm_plugin *p = &r->u.wasm_plugin;
    const struct usage *u = usage_find(&c->usage, item->kind, r->meta.ns, r->meta.name);
    strbuf_addz(b, "{\"kind\":");
    strbuf_add_json(b, str_of(kind_name(item->kind)));
    add_field(b, "namespace", r->meta.ns);
    add_field(b, "name", r->meta.name);
    add_field(b, "state", item_state(c, item));
    add_field(b, "stage", delivery_stage_name(item->stage)); /* of the newest text */
    strbuf_printf(b, ",\"newestServes\":%s", item->stage == DELIVERY_PROGRAMMED ? "true" : "false");
    add_field(b, "reason", item->reason);
    add_field(b, "message", item->message);
    uint64_t now = loop_now(&c->loop);
    if (item->retry_ms > 0)
        strbuf_printf(b, ",\"nextTryInMs\":%llu",
                      (unsigned long long)(item->retry_ms > now ? item->retry_ms - now : 0));
    struct strbuf url = {0};
    url_write_public(p->url, &url);
    strbuf_addc(&url, '\0');
    add_field(b, "url", url.p);
    strbuf_free(&url);
    add_field(b, "phase", phase_name(p->phase));
    if (p->has_priority)
        strbuf_printf(b, ",\"priority\":%d", p->priority);
    else
        strbuf_addz(b, ",\"priority\":null");
    add_field(b, "failStrategy", fail_name(p->fail));
    add_field(b, "sha256", item->live != NULL ? item->live->sha256 : NULL);
    const struct delivery_facts *f = &item->facts;
    add_field(b, "tier", item->live != NULL ? f->live_tier : NULL); /* "fast" until the optimised code is there */
    add_field(b, "digest", f->live_digest[0] != '\0' ? f->live_digest : NULL);
    add_field(b, "newestDigest", f->digest[0] != '\0' ? f->digest : NULL);
    add_field(b, "from", f->from);
    add_field(b, "progress", f->progress);
    add_field(b, "warning", f->warning);
    strbuf_printf(b, ",\"verified\":%s,\"fromCache\":%s,\"rechecks\":%u", f->verified ? "true" : "false",
                  f->bytes_from_cache ? "true" : "false", f->rechecks);
    add_field(b, "abi", item->live != NULL ? abi_version_name(item->live->abi) : NULL);
    strbuf_printf(b, ",\"generation\":%llu,\"swaps\":%u,\"activatedInMs\":%llu",
                  item->live != NULL ? (unsigned long long)item->live->generation : 0ull, item->swaps,
                  (unsigned long long)item->took_ms);
    strbuf_printf(b, ",\"appliesToTraffic\":%s", u != NULL && u->accepted ? "true" : "false");
    add_field(b, "appliesMessage", u != NULL ? u->message : NULL);
    write_workers(c, item, b);
    const struct store_object *o = store_find(&c->store, item->kind, r->meta.ns, r->meta.name);
    if (o != NULL)
        write_conditions(c, o, b);
    strbuf_addc(b, '}');
}

void status_write_plugins(struct control *c, struct strbuf *out)
{
    strbuf_printf(out, "{\"version\":%llu,\"plugins\":[",
                  c->snapshot != NULL ? (unsigned long long)c->snapshot->version : 0ull);
    bool first = true;
    MAP_EACH (e, delivery_items(c->delivery)) {
        if (!first)
            strbuf_addc(out, ',');
        first = false;
        write_item(c, e->value, out);
    }
    strbuf_addz(out, "]}\n");
}

static void write_diag(struct strbuf *b, const char *name, const struct diag *d, enum diag_level level)
{
    strbuf_printf(b, ",\"%s\":[", name);
    bool first = true;
    for (size_t i = 0; i < d->count; i++) {
        if (d->entries[i].level != level)
            continue;
        char *text = diag_format(&d->entries[i]);
        if (!first)
            strbuf_addc(b, ',');
        first = false;
        strbuf_add_json(b, str_of(text));
        mem_free(text);
    }
    strbuf_addc(b, ']');
}

static void write_object(const struct control *c, const struct store_object *o, struct strbuf *b)
{
    const struct usage *u = usage_find(&c->usage, o->kind, o->ns, o->name);
    strbuf_addz(b, "{\"kind\":");
    strbuf_add_json(b, str_of(kind_name(o->kind)));
    add_field(b, "namespace", o->ns);
    add_field(b, "name", o->name);
    add_field(b, "file", o->file);
    strbuf_printf(b, ",\"line\":%u,\"generation\":%llu", o->line, (unsigned long long)o->generation);
    add_field(b, "state", o->good == NULL ? "invalid" : o->stale ? "stale" : "current");
    write_diag(b, "errors", &o->diag, DIAG_ERROR);
    write_diag(b, "warnings", &o->diag, DIAG_WARNING);
    if (u != NULL) {
        strbuf_printf(b, ",\"accepted\":%s", u->accepted ? "true" : "false");
        add_field(b, "reason", u->reason);
        add_field(b, "message", u->message);
    }
    write_conditions(c, o, b);
    if (o->good != NULL) {
        strbuf_addz(b, ",\"resource\":");
        resource_write_json(o->good, c->o->show_plugin_config, b);
    }
    strbuf_addc(b, '}');
}

static void write_listeners(const struct control *c, struct strbuf *b)
{
    strbuf_addz(b, ",\"listeners\":[");
    for (size_t i = 0; c->snapshot != NULL && i < c->snapshot->listener_count; i++) {
        const struct listener_conf *l = &c->snapshot->listeners[i];
        char text[ADDR_TEXT_MAX];
        addr_format(&l->addr, true, text);
        strbuf_printf(b, "%s{\"address\":\"%s\"", i > 0 ? "," : "", text);
        add_field(b, "gateway", l->gateway);
        const char *error = NULL;
        for (size_t k = 0; k < c->listener_count; k++)
            if (addr_eq(&c->listeners[k].addr, &l->addr))
                error = c->listeners[k].error;
        add_field(b, "error", error);
        strbuf_addz(b, ",\"chain\":[");
        for (size_t k = 0; k < l->chain_count; k++) {
            strbuf_addz(b, k > 0 ? ",{\"plugin\":" : "{\"plugin\":");
            strbuf_add_json(b, str_of(l->chain[k].title));
            if (l->chain[k].plugin != NULL)
                strbuf_printf(b, ",\"generation\":%llu}", (unsigned long long)l->chain[k].plugin->generation);
            else
                strbuf_addz(b, ",\"generation\":null}");
        }
        strbuf_addz(b, "]}");
    }
    strbuf_addc(b, ']');
}

void status_write_config(struct control *c, struct strbuf *out)
{
    struct diag files = {0};
    store_file_errors(&c->store, &files);
    strbuf_printf(out, "{\"version\":%llu,\"adopted\":%llu,\"notInUse\":%zu",
                  c->snapshot != NULL ? (unsigned long long)c->snapshot->version : 0ull,
                  (unsigned long long)c->adopted_all, store_bad_count(&c->store));
    write_diag(out, "fileErrors", &files, DIAG_ERROR);
    diag_free(&files);
    write_listeners(c, out);
    if (c->cluster != NULL) {
        strbuf_addz(out, ",\"cluster\":");
        source_cluster_write_json(c->cluster, out);
    }
    strbuf_addz(out, ",\"objects\":[");
    bool first = true;
    MAP_EACH (e, &c->store.objects) {
        if (!first)
            strbuf_addc(out, ',');
        first = false;
        write_object(c, e->value, out);
    }
    strbuf_addz(out, "]}\n");
}
