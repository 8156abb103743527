/* SPDX-License-Identifier: Apache-2.0
 *
 * Following all objects and telling what has changed. A pass looks at every object that has a status, some hundred in
 * each turn of the loop, and compares what is true with what was told. However many changes come, a pass takes its time
 * before the next one begins: four times as long as it ran. Must never flap: an object's conditions are judged after
 * the snapshot made of it was published, never between the two.
 */
#include "control/conditions.h"

#include <stdio.h>
#include <time.h>

#include "control/conditions_priv.h"
#include "control/events.h"

enum { BATCH = 256, SOON_MS = 5 };

struct record {
    struct condition_list list;
    uint64_t generation;    /* of the store's object */
    uint64_t since_version; /* of the first snapshot that was made of it */
    uint64_t told;          /* hash of the status text */
    uint64_t live;          /* plugins: generation that serves */
    unsigned losses;
    metric_id programmed; /* plugins */
    uint8_t digest[32];   /* of the good version, since an object that came back begins to count anew */
};
struct conditions {
    struct control *c;
    struct map records; /* key of the store -> struct record */
    struct loop_timer timer;
    struct status_sink *sinks;
    bool *fresh; /* by sink: has not heard of all objects yet */
    size_t sink_count;
    size_t at; /* the next entry of the store's map */
    uint64_t began_ns, plugins_hash;
    bool running, again;
};

/* ---- conditions ---- */

const char *condition_status_name(enum condition_status s)
{
    return s == CONDITION_TRUE ? "True" : s == CONDITION_FALSE ? "False" : "Unknown";
}

void condition_add(struct condition_list *l, const char *scope, const char *type, enum condition_status status,
                   const char *reason, const char *fmt, ...)
{
    char text[4096];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    l->list = mem_realloc(l->list, (l->count + 1) * sizeof *l->list);
    l->list[l->count++] = (struct condition){.scope = mem_strdup(scope),
                                             .type = type,
                                             .status = status,
                                             .reason = mem_strdup(reason),
                                             .message = mem_strdup(n > 0 ? text : "")};
}

void condition_list_free(struct condition_list *l)
{
    for (size_t i = 0; i < l->count; i++) {
        mem_free(l->list[i].scope);
        mem_free(l->list[i].reason);
        mem_free(l->list[i].message);
    }
    mem_free(l->list);
    *l = (struct condition_list){0};
}

const struct condition *condition_find(const struct condition_list *l, const char *scope, const char *type)
{
    for (size_t i = 0; i < l->count; i++)
        if (strcmp(l->list[i].type, type) == 0 && strcmp(l->list[i].scope, scope) == 0)
            return &l->list[i];
    return NULL;
}

char *condition_errors(const struct store_object *o)
{
    struct strbuf text = {0};
    for (size_t i = 0; i < o->diag.count && text.n < 2048; i++) {
        if (o->diag.entries[i].level != DIAG_ERROR)
            continue;
        char *line = diag_format(&o->diag.entries[i]);
        strbuf_printf(&text, "%s%s", text.n > 0 ? "; " : "", line);
        mem_free(line);
    }
    if (text.n == 0 && (o->stale || o->good == NULL))
        strbuf_addz(&text, "the newest text is bad");
    return text.n > 0 ? strbuf_take(&text) : NULL;
}

static bool is_plugin(enum kind kind) { return kind == KIND_WASM_PLUGIN || kind == KIND_TRAFFIC_EXTENSION; }
static bool has_status(enum kind kind)
{
    return is_plugin(kind) || kind == KIND_GATEWAY_CLASS || kind == KIND_GATEWAY || kind == KIND_HTTP_ROUTE;
}

static const struct record *record_find(const struct control *c, const struct store_object *o)
{
    if (c->conditions == NULL)
        return NULL;
    char *key = mem_printf("%s/%s/%s", kind_name(o->kind), o->ns, o->name);
    const struct record *r = map_get(&c->conditions->records, str_of(key));
    mem_free(key);
    return r;
}

static struct condition_subject subject_of(const struct control *c, const struct store_object *o,
                                           const struct record *r)
{
    struct condition_subject s = {.c = c, .o = o};
    s.usage = usage_find(&c->usage, o->kind, o->ns, o->name);
    s.adopted = r != NULL && r->generation == o->generation && r->since_version <= c->adopted_all;
    return s;
}

/* The time of each condition's status: as it was, while the status is what it was. */
static void keep_times(struct condition_list *l, const struct record *r)
{
    int64_t now = (int64_t)time(NULL);
    for (size_t i = 0; i < l->count; i++) {
        const struct condition *last = r != NULL ? condition_find(&r->list, l->list[i].scope, l->list[i].type) : NULL;
        l->list[i].since = last != NULL && last->status == l->list[i].status ? last->since : now;
    }
}

static void judge(const struct condition_subject *s, const struct record *r, struct condition_list *out)
{
    *out = (struct condition_list){0};
    if (is_plugin(s->o->kind))
        conditions_of_plugin(s, out);
    else if (s->o->kind == KIND_GATEWAY_CLASS)
        conditions_of_class(s, out);
    else if (s->o->kind == KIND_GATEWAY)
        conditions_of_gateway(s, out);
    else if (s->o->kind == KIND_HTTP_ROUTE)
        conditions_of_route(s, out);
    keep_times(out, r);
}

void conditions_now(const struct control *c, const struct store_object *o, struct condition_list *out)
{
    const struct record *r = record_find(c, o);
    struct condition_subject s = subject_of(c, o, r);
    judge(&s, r, out);
}

/* ---- as JSON ---- */

static void write_one(const struct condition *c, int64_t observed, bool as_text, struct strbuf *out)
{
    char when[24];
    event_time(c->since, when);
    strbuf_printf(out, "{\"type\":\"%s\",\"status\":\"%s\",\"reason\":", c->type, condition_status_name(c->status));
    strbuf_add_json(out, str_of(c->reason));
    strbuf_addz(out, ",\"message\":");
    strbuf_add_json(out, str_of(c->message));
    strbuf_printf(out, ",\"lastTransitionTime\":\"%s\"", when);
    if (observed > 0)
        strbuf_printf(out, as_text ? ",\"observedGeneration\":\"%lld\"" : ",\"observedGeneration\":%lld",
                      (long long)observed);
}

void condition_write_scope(const struct condition_list *l, const char *scope, int64_t observed, bool as_text,
                           struct strbuf *out)
{
    bool first = true;
    strbuf_addz(out, ",\"conditions\":[");
    for (size_t i = 0; i < l->count; i++) {
        if (strcmp(l->list[i].scope, scope) != 0)
            continue;
        if (!first)
            strbuf_addc(out, ',');
        first = false;
        write_one(&l->list[i], observed, as_text, out);
        strbuf_addc(out, '}');
    }
    strbuf_addc(out, ']');
}

void conditions_write_list(const struct condition_list *l, struct strbuf *out)
{
    strbuf_addc(out, '[');
    for (size_t i = 0; i < l->count; i++) {
        if (i > 0)
            strbuf_addc(out, ',');
        write_one(&l->list[i], 0, false, out);
        if (l->list[i].scope[0] != '\0') {
            strbuf_addz(out, ",\"scope\":");
            strbuf_add_json(out, str_of(l->list[i].scope));
        }
        strbuf_addc(out, '}');
    }
    strbuf_addc(out, ']');
}

static char *status_text(const struct condition_subject *s, const struct condition_list *l, int64_t observed)
{
    enum kind kind = s->o->kind;
    bool route = kind == KIND_HTTP_ROUTE && s->o->good != NULL;
    if (l->count == 0 && !route)
        return NULL;
    struct strbuf b = {0};
    if (observed <= 0 && s->o->good != NULL)
        observed = s->o->good->meta.generation > 0 ? s->o->good->meta.generation : (int64_t)s->o->generation;
    strbuf_addc(&b, '{');
    if (is_plugin(kind)) {
        strbuf_printf(&b, "\"observedGeneration\":\"%lld\"", (long long)observed);
        condition_write_scope(l, "", observed, true, &b);
        conditions_write_gateways(s, &b);
    } else {
        if (!route)
            condition_write_scope(l, "", observed, false, &b);
        if (kind == KIND_GATEWAY)
            conditions_write_gateway(s, l, observed, &b);
        else if (route)
            conditions_write_route(s, l, observed, &b);
    }
    strbuf_addc(&b, '}');
    if (b.p[1] == ',') { /* members are written after a comma */
        memmove(b.p + 1, b.p + 2, b.n - 2);
        b.n--;
    }
    return strbuf_take(&b);
}

char *conditions_write(const struct control *c, const struct store_object *o, int64_t observed)
{
    if (!has_status(o->kind))
        return NULL;
    const struct record *r = record_find(c, o);
    struct condition_subject s = subject_of(c, o, r);
    struct condition_list now;
    judge(&s, r, &now);
    char *text = status_text(&s, &now, observed);
    condition_list_free(&now);
    return text;
}

/* ---- telling ---- */

static void tell_event(struct conditions *s, const struct store_object *o, bool warning, const char *reason,
                       const char *message)
{
    events_add(&s->c->events, (int64_t)time(NULL), o->kind, o->ns, o->name, warning, reason, message);
    for (size_t i = 0; i < s->sink_count; i++)
        if (s->sinks[i].event != NULL)
            s->sinks[i].event(s->sinks[i].arg, o->kind, o->ns, o->name, warning ? "Warning" : "Normal", reason,
                              message);
}

/* What has become true or false. Programmed that is False says what another condition has said already. */
static void tell_transitions(struct conditions *s, const struct store_object *o, const struct record *r,
                             const struct condition_list *now)
{
    bool bad = false;
    for (size_t i = 0; i < now->count; i++) {
        const struct condition *c = &now->list[i], *last = condition_find(&r->list, c->scope, c->type);
        bool good_type = strcmp(c->type, "Programmed") == 0 ||
                         (strcmp(c->type, "Accepted") == 0 && !is_plugin(o->kind) && o->kind != KIND_GATEWAY);
        if (c->status == CONDITION_TRUE && good_type && (last == NULL || last->status != CONDITION_TRUE))
            tell_event(s, o, false, c->reason, c->message);
        bool conflict = strcmp(c->type, "Conflicted") == 0, pending = strcmp(c->reason, "Pending") == 0;
        bool repeats =
            strcmp(c->type, "Programmed") == 0 && (bad || strcmp(c->reason, "Quarantined") != 0) && is_plugin(o->kind);
        if (c->status != CONDITION_FALSE || conflict || pending)
            continue;
        bool news = last == NULL || last->status != CONDITION_FALSE || strcmp(last->reason, c->reason) != 0;
        if (news && !repeats)
            tell_event(s, o, true, c->reason, c->message);
        bad = true;
    }
}

/* A new generation that took the place of one that was Programmed, between two looks. */
static void tell_plugin(struct conditions *s, const struct store_object *o, struct record *r,
                        const struct condition_list *now)
{
    const struct delivery_item *item =
        s->c->delivery != NULL ? delivery_find(s->c->delivery, o->kind, o->ns, o->name) : NULL;
    if (item == NULL)
        return;
    const struct condition *p = condition_find(now, "", "Programmed"),
                           *was = condition_find(&r->list, "", "Programmed");
    uint64_t live = item->live != NULL && item->live_adopted ? item->live->generation : 0;
    if (p != NULL && was != NULL && p->status == CONDITION_TRUE && was->status == CONDITION_TRUE && live != r->live)
        tell_event(s, o, false, p->reason, p->message);
    r->live = live;
    unsigned losses = 0;
    const char *why = NULL;
    for (unsigned i = 0; i < s->c->worker_count; i++) {
        losses += item->workers[i].losses;
        why = item->workers[i].reason != NULL ? item->workers[i].reason : why;
    }
    if (losses > r->losses)
        tell_event(s, o, true, "PluginFailed", why != NULL ? why : "its VM was lost");
    r->losses = losses;
}

static void tell_status(struct conditions *s, const struct condition_subject *subject, struct record *r)
{
    char *text = status_text(subject, &r->list, 0);
    uint64_t hash = str_hash(str_of(text));
    for (size_t i = 0; text != NULL && i < s->sink_count; i++)
        if (s->sinks[i].status != NULL && (s->fresh[i] || hash != r->told))
            s->sinks[i].status(s->sinks[i].arg, subject->o->kind, subject->o->ns, subject->o->name, text);
    r->told = hash;
    mem_free(text);
}

static void count_programmed(struct record *r, const struct store_object *o)
{
    const struct condition *p = condition_find(&r->list, "", "Programmed");
    if (r->programmed == METRIC_NONE) {
        struct strbuf labels = {0};
        char *name = mem_printf("%s.%s", o->ns, o->name);
        metrics_label(&labels, "plugin", str_of(name));
        r->programmed = metrics_define(METRICS_GAUGE, STR("weir_plugin_programmed"), strbuf_str(&labels),
                                       "1: every worker serves the newest text of the plugin");
        mem_free(name);
        strbuf_free(&labels);
    }
    metrics_gauge_set(r->programmed, p != NULL && p->status == CONDITION_TRUE);
}

static void look_at(struct conditions *s, struct str key, const struct store_object *o)
{
    struct record *r = map_get(&s->records, key);
    if (r == NULL) {
        r = mem_zalloc(sizeof *r);
        map_set(&s->records, key, r);
    }
    bool other = o->good != NULL && memcmp(r->digest, o->good->meta.digest, sizeof r->digest) != 0;
    if (r->generation != o->generation || other) {
        r->generation = o->generation;
        if (other)
            memcpy(r->digest, o->good->meta.digest, sizeof r->digest);
        r->since_version = s->c->snapshot != NULL ? s->c->snapshot->version : 1;
    }
    struct condition_subject subject = subject_of(s->c, o, r);
    struct condition_list now;
    judge(&subject, r, &now);
    tell_transitions(s, o, r, &now);
    if (is_plugin(o->kind))
        tell_plugin(s, o, r, &now);
    condition_list_free(&r->list);
    r->list = now;
    if (is_plugin(o->kind))
        count_programmed(r, o);
    tell_status(s, &subject, r);
}

/* ---- passes ---- */

static void record_free(struct record *r)
{
    metrics_remove(r->programmed);
    condition_list_free(&r->list);
    mem_free(r);
}

static void forget_gone(struct conditions *s)
{
    struct map gone = {0};
    MAP_EACH (e, &s->records)
        if (map_get(&s->c->store.objects, e->key) == NULL)
            map_set(&gone, e->key, e->value);
    MAP_EACH (e, &gone)
        record_free(map_remove(&s->records, e->key));
    map_free(&gone);
}

static uint64_t clock_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void pass_begin(struct conditions *s)
{
    s->running = true;
    s->again = false;
    s->at = 0;
    s->began_ns = clock_ns();
}

static void pass_end(struct conditions *s)
{
    forget_gone(s);
    for (size_t i = 0; i < s->sink_count; i++)
        s->fresh[i] = false;
    s->running = false;
    if (s->again)
        loop_timer_start(&s->timer, SOON_MS + (clock_ns() - s->began_ns) / 1000000 * 4);
}

/* Objects that go may move the others, so that one is missed: the pass that follows such a change sees it. */
static void on_timer(struct loop_timer *timer)
{
    struct conditions *s = CONTAINER_OF(timer, struct conditions, timer);
    struct map *objects = &s->c->store.objects;
    if (!list_is_empty(&s->c->publish.node)) { /* what compose says is about to be said anew */
        loop_timer_start(&s->timer, 1);
        return;
    }
    if (!s->running)
        pass_begin(s);
    size_t looked = 0;
    for (; s->at < objects->used && looked < BATCH; s->at++) {
        const struct map_entry *e = &objects->entries[s->at];
        const struct store_object *o = e->value;
        if (e->key.p == NULL || !has_status(o->kind))
            continue;
        look_at(s, e->key, o);
        looked++;
    }
    if (s->at < objects->used)
        loop_timer_start(&s->timer, 1);
    else
        pass_end(s);
}

void conditions_touch(struct conditions *s)
{
    if (s == NULL)
        return;
    if (s->running)
        s->again = true;
    else if (!loop_timer_is_active(&s->timer))
        loop_timer_start(&s->timer, SOON_MS);
}

static uint64_t plugins_hash(const struct conditions *s)
{
    uint64_t hash = s->c->adopted_all;
    MAP_EACH (e, delivery_items(s->c->delivery)) {
        const struct delivery_item *item = e->value;
        uint64_t parts[6] = {item->stage,
                             item->live != NULL ? item->live->generation : 0,
                             item->live_adopted,
                             item->absence,
                             str_hash(str_of(item->reason)),
                             str_hash(str_of(item->message))};
        hash = hash * 31 + str_hash(e->key) + str_hash(str_span(parts, sizeof parts));
        for (unsigned i = 0; i < s->c->worker_count; i++)
            hash = hash * 31 + str_hash(str_of(item->workers[i].state)) + item->workers[i].losses;
    }
    for (size_t i = 0; i < s->c->listener_count; i++)
        hash = hash * 31 + s->c->listeners[i].open;
    return hash;
}

void conditions_tick(struct conditions *s)
{
    if (s == NULL || s->c->delivery == NULL)
        return;
    uint64_t hash = plugins_hash(s);
    if (hash != s->plugins_hash)
        conditions_touch(s);
    s->plugins_hash = hash;
}

/* ---- life ---- */

struct conditions *conditions_new(struct control *c)
{
    struct conditions *s = mem_zalloc(sizeof *s);
    s->c = c;
    loop_timer_init(&s->timer, &c->loop, on_timer);
    return s;
}

static void on_closed(struct loop_timer *timer) { mem_free(CONTAINER_OF(timer, struct conditions, timer)); }

void conditions_free(struct conditions *s)
{
    if (s == NULL)
        return;
    MAP_EACH (e, &s->records)
        record_free(e->value);
    map_free(&s->records);
    mem_free(s->sinks);
    mem_free(s->fresh);
    s->sinks = NULL;
    s->fresh = NULL;
    s->sink_count = 0;
    loop_timer_close(&s->timer, on_closed);
}

void conditions_add_sink(struct control *c, const struct status_sink *sink)
{
    struct conditions *s = c->conditions;
    s->sinks = mem_realloc(s->sinks, (s->sink_count + 1) * sizeof *s->sinks);
    s->fresh = mem_realloc(s->fresh, (s->sink_count + 1) * sizeof *s->fresh);
    s->sinks[s->sink_count] = *sink;
    s->fresh[s->sink_count++] = true;
    conditions_touch(s);
}
