/* SPDX-License-Identifier: Apache-2.0
 *
 * The Kubernetes API of this gateway, tied to its store: what kubectl applies becomes texts of the store, and what
 * files hold shows in the API. A name has one owner: the API refuses what a file has, and the store passes over what a
 * file says of an object that kubectl applied.
 */
#include "base/log.h"
#include "control/conditions.h"
#include "control/control.h"
#include "kube/api.h"

struct shown {
    uint8_t digest[32];
    char *file;
    enum kind kind;
    char *ns, *name;
    bool seen;
};
struct source_api {
    struct control *c;
    struct kube_api *api;
    struct map shown; /* "Kind/ns/name" of files' objects -> struct shown */
    struct map fresh; /* what was applied since the last settle -> struct fresh */
};
struct fresh {
    enum kind kind;
    char *ns, *name;
};

/* ---- down: from kubectl into the store ---- */

static void on_changed(void *arg, enum kind kind, const char *ns, const char *name, struct str text)
{
    struct source_api *s = arg;
    char *key = mem_printf("%s/%s/%s", kind_name(kind), ns, name);
    if (text.p != NULL)
        store_text_set(&s->c->store, ORIGIN_KUBE_API, key, text, "default");
    else
        store_text_remove(&s->c->store, ORIGIN_KUBE_API, key);
    if (text.p != NULL && s->api != NULL && map_get(&s->fresh, str_of(key)) == NULL) {
        struct fresh *f = mem_alloc(sizeof *f);
        *f = (struct fresh){kind, mem_strdup(ns), mem_strdup(name)};
        map_set(&s->fresh, str_of(key), f);
    }
    mem_free(key);
}

/* What was deleted and made again meanwhile may have the status it had, and nobody would tell it again. */
static void tell_fresh(struct source_api *s)
{
    MAP_EACH (e, &s->fresh) {
        struct fresh *f = e->value;
        const struct store_object *o = store_find(&s->c->store, f->kind, f->ns, f->name);
        char *status = o != NULL ? conditions_write(s->c, o, 0) : NULL;
        if (status != NULL)
            kube_api_set_status(s->api, f->kind, f->ns, f->name, status);
        mem_free(status);
        mem_free(f->ns);
        mem_free(f->name);
        mem_free(f);
    }
    map_free(&s->fresh);
    s->fresh = (struct map){0};
}

static void on_settle(void *arg)
{
    struct source_api *s = arg;
    if (store_settle(&s->c->store, loop_now(&s->c->loop) + 1) && s->c->life < LIFE_OVER)
        control_store_changed(s->c);
    tell_fresh(s);
}
static const struct kube_api_ops api_ops = {on_changed, on_settle};

/* ---- up: files' objects into the API ---- */

static void shown_free(struct shown *h)
{
    mem_free(h->file);
    mem_free(h->ns);
    mem_free(h->name);
    mem_free(h);
}

static void show(struct source_api *s, struct str key, const struct store_object *o)
{
    struct shown *h = map_get(&s->shown, key);
    if (h == NULL) {
        h = mem_zalloc(sizeof *h);
        h->kind = o->kind;
        h->ns = mem_strdup(o->ns);
        h->name = mem_strdup(o->name);
        map_set(&s->shown, key, h);
    }
    h->seen = true;
    bool same = h->file != NULL && strcmp(h->file, o->file) == 0 &&
                memcmp(h->digest, o->good->meta.digest, sizeof h->digest) == 0;
    if (same)
        return;
    mem_free(h->file);
    h->file = mem_strdup(o->file);
    memcpy(h->digest, o->good->meta.digest, sizeof h->digest);
    kube_api_set_file_object(s->api, o->kind, o->ns, o->name, o->good->json, o->file);
}

void source_api_follow(struct source_api *s)
{
    struct map gone = {0};
    MAP_EACH (e, &s->shown)
        ((struct shown *)e->value)->seen = false;
    MAP_EACH (e, &s->c->store.objects) {
        const struct store_object *o = e->value;
        if (o->origin == ORIGIN_FILE && o->good != NULL && o->good->json != NULL)
            show(s, e->key, o);
    }
    MAP_EACH (e, &s->shown)
        if (!((struct shown *)e->value)->seen)
            map_set(&gone, e->key, e->value);
    MAP_EACH (e, &gone) {
        struct shown *h = map_remove(&s->shown, e->key);
        kube_api_set_file_object(s->api, h->kind, h->ns, h->name, NULL, NULL);
        shown_free(h);
    }
    map_free(&gone);
}

void source_api_ready(struct source_api *s)
{
    struct strbuf why = {0};
    bool ready = control_is_ready(s->c, &why);
    char *text = strbuf_take(&why);
    kube_api_set_ready(s->api, ready, text);
    mem_free(text);
}

/* ---- status and events ---- */

static void on_status(void *arg, enum kind kind, const char *ns, const char *name, const char *json)
{
    kube_api_set_status(((struct source_api *)arg)->api, kind, ns, name, json);
}
static void on_event(void *arg, enum kind kind, const char *ns, const char *name, const char *type, const char *reason,
                     const char *message)
{
    kube_api_event(((struct source_api *)arg)->api, kind, ns, name, type, reason, message);
}

/* ---- life ---- */

struct source_api *source_api_new(struct control *c)
{
    struct source_api *s = mem_zalloc(sizeof *s);
    s->c = c;
    c->store.whole = true;
    char *error;
    struct kube_api_options o = {.addr = c->o->kube_api,
                                 .state_dir = c->o->state_dir,
                                 .pod_name = c->o->identity.name,
                                 .pod_ns = c->o->identity.ns,
                                 .pod_labels = &c->o->identity.labels,
                                 .ops = &api_ops,
                                 .arg = s};
    s->api = kube_api_new(&c->loop, &o, &error);
    if (s->api != NULL) {
        struct status_sink sink = {on_status, on_event, s};
        conditions_add_sink(c, &sink);
        return s;
    }
    log_line(LOG_ERROR, "%s", error);
    mem_free(error);
    mem_free(s);
    return NULL;
}

void source_api_free(struct source_api *s)
{
    kube_api_free(s->api);
    MAP_EACH (e, &s->shown)
        shown_free(e->value);
    map_free(&s->shown);
    mem_free(s);
}
