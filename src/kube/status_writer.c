/* SPDX-License-Identifier: Apache-2.0
 *
 * See status_writer.h. What is wanted is kept by object; a key that may differ from the cluster waits in a queue. What
 * must never happen: two leaders writing in turns (each would see the other's status and write its own): a gateway that
 * does not hold the lease writes nothing, what is under way included.
 */
#include "kube/status_writer.h"

#include <time.h>

#include "base/log.h"
#include "kube/json_scan.h"

enum {
    TICK_MS = 100,
    AT_ONCE = 4,   /* calls */
    EACH_TICK = 2, /* 20 writes a second */
    AGAIN_MS = 300 * 1000,
    EVENTS_BURST = 25,
    EVENTS_WAITING = 200,
    EVENT_AGAIN_MS = 300 * 1000,
    REMEMBERED_MAX = 2000,
    NAME_SHOWN = 200,
    MESSAGE_MAX = 1000
};

struct wanted {
    char *kind, *ns, *name, *json;
    struct kube_writer *owner;
    struct kube_call *call;
    struct list node; /* in queue, or self */
    uint64_t not_before_ms;
    uint32_t backoff;
    bool changed; /* while the call was under way */
};
struct event {
    struct list node;
    struct strbuf body;
    char *path;
};
struct kube_writer {
    struct kube_writer_options o;
    char *instance;
    struct map objects; /* "Kind/ns/name" -> struct wanted */
    struct list queue, events;
    struct kube_call *event_call;
    struct map remembered; /* events of late -> writer */
    unsigned calls, event_tokens, event_count;
    uint64_t tokens_ms, again_ms, remembered_ms;
    struct loop_timer tick;
    char *problem;
    bool leads, awake; /* awake: the next tick is soon */
};

static void write_key(struct strbuf *key, const char *kind, const char *ns, const char *name)
{
    strbuf_printf(key, "%s/%s/%s", kind, ns, name);
}

static void set_problem(struct kube_writer *w, const char *title, const char *problem)
{
    if (problem != NULL && (w->problem == NULL || strcmp(w->problem, problem) != 0))
        log_line(LOG_WARN, "kubernetes: %s cannot be written: %s", title, problem);
    char *copy = problem != NULL ? mem_strdup(problem) : NULL;
    mem_free(w->problem);
    w->problem = copy;
}

static void wanted_free(struct wanted *o)
{
    if (o->call != NULL) {
        kube_call_cancel(o->call);
        o->owner->calls--;
    }
    list_remove(&o->node);
    char *const texts[] = {o->kind, o->ns, o->name, o->json};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        mem_free(texts[i]);
    mem_free(o);
}

static void wake(struct kube_writer *w)
{
    if (!w->awake)
        loop_timer_start(&w->tick, TICK_MS);
    w->awake = true;
}

static void enqueue(struct wanted *o)
{
    if (o->call != NULL)
        o->changed = true;
    else if (!list_is_linked(&o->node))
        list_push_back(&o->owner->queue, &o->node);
    wake(o->owner);
}

/* ---- status ---- */

static void on_patched(void *arg, struct kube_result *r)
{
    struct wanted *o = arg;
    struct kube_writer *w = o->owner;
    o->call = NULL;
    w->calls--;
    if (r->error == NULL) {
        o->backoff = 0;
        set_problem(w, "status", NULL);
    } else if (r->status != 404) { /* gone meanwhile: nothing to do */
        if (r->status != 409)
            set_problem(w, "status", r->error);
        o->not_before_ms = loop_now(w->o.loop) + kube_backoff(&o->backoff);
        o->changed = true;
    }
    if (o->changed) {
        o->changed = false;
        enqueue(o);
    }
}

static void add_text(struct strbuf *b, const char *name, const char *value)
{
    strbuf_printf(b, "\"%s\":", name);
    strbuf_add_json(b, str_of(value));
}

static void write_api_version(struct strbuf *out, const struct kube_watch *watch)
{
    const struct kube_kind *kind = kube_watch_kind(watch);
    strbuf_printf(out, "%s%s%s", kind->group, kind->group[0] != '\0' ? "/" : "", kube_watch_version(watch));
}

static void write_patch(struct strbuf *b, const struct kube_watch *watch, const struct kube_object *found,
                        const char *status)
{
    const struct kube_kind *kind = kube_watch_kind(watch);
    strbuf_addz(b, "{\"apiVersion\":\"");
    write_api_version(b, watch);
    strbuf_addz(b, "\",");
    add_text(b, "kind", kind->kind);
    strbuf_addz(b, ",\"metadata\":{");
    add_text(b, "name", found->name);
    if (kind->namespaced) {
        strbuf_addc(b, ',');
        add_text(b, "namespace", found->ns);
    }
    strbuf_addc(b, ',');
    add_text(b, "uid", found->uid); /* never of another object that has the name now */
    if (strcmp(kind->kind, "HTTPRoute") == 0) {
        strbuf_addc(b, ','); /* parents of others were copied from this version */
        add_text(b, "resourceVersion", found->resource_version);
    }
    strbuf_printf(b, "},\"status\":%s}", status);
}

static void patch(struct wanted *o, const struct kube_watch *watch, const struct kube_object *found, const char *status)
{
    struct kube_writer *w = o->owner;
    struct strbuf path = {0}, body = {0};
    kube_path(&path, kube_watch_kind(watch), kube_watch_version(watch), found->ns, found->name);
    strbuf_addz(&path, "/status?fieldManager=weir&force=true");
    strbuf_addc(&path, '\0');
    write_patch(&body, watch, found, status);
    struct kube_request r = {.method = "PATCH",
                             .path = path.p,
                             .content_type = "application/apply-patch+yaml",
                             .body = strbuf_str(&body),
                             .done = on_patched,
                             .arg = o};
    w->calls++;
    o->changed = false;
    o->call = kube_call(w->o.client, &r);
    strbuf_free(&path);
    strbuf_free(&body);
}

static void forget(struct wanted *o)
{
    struct kube_writer *w = o->owner;
    struct strbuf key = {0};
    write_key(&key, o->kind, o->ns, o->name);
    map_remove(&w->objects, strbuf_str(&key));
    strbuf_free(&key);
    wanted_free(o);
}

/* True: a call was made. */
static bool settle_one(struct wanted *o)
{
    struct kube_object found;
    const struct kube_watch *watch = o->owner->o.find(o->owner->o.arg, o->kind, o->ns, o->name, &found);
    if (watch == NULL) { /* of a file, or gone */
        forget(o);
        return false;
    }
    bool same;
    char *status = kube_status_merge(str_of(o->json), found.status, &same);
    bool write = status != NULL && !same;
    if (write)
        patch(o, watch, &found, status);
    mem_free(status);
    return write;
}

static void settle_queue(struct kube_writer *w)
{
    unsigned made = 0;
    LIST_EACH (n, &w->queue) {
        struct wanted *o = LIST_ENTRY(n, struct wanted, node);
        if (made >= EACH_TICK || w->calls >= AT_ONCE)
            break;
        if (o->not_before_ms > loop_now(w->o.loop))
            continue;
        list_remove(&o->node);
        made += settle_one(o);
    }
}

void kube_writer_status(struct kube_writer *w, const char *kind, const char *ns, const char *name, const char *json)
{
    struct strbuf key = {0};
    write_key(&key, kind, ns, name);
    struct wanted *o = map_get(&w->objects, strbuf_str(&key));
    if (o == NULL && json != NULL) {
        o = mem_zalloc(sizeof *o);
        *o = (struct wanted){.kind = mem_strdup(kind), .ns = mem_strdup(ns), .name = mem_strdup(name), .owner = w};
        list_init(&o->node);
        map_set(&w->objects, strbuf_str(&key), o);
    }
    strbuf_free(&key);
    if (o == NULL)
        return;
    mem_free(o->json);
    o->json = json != NULL ? mem_strdup(json) : mem_strdup("");
    enqueue(o);
}

void kube_writer_touch(struct kube_writer *w, const char *kind, const char *ns, const char *name)
{
    struct strbuf key = {0};
    write_key(&key, kind, ns, name);
    struct wanted *o = map_get(&w->objects, strbuf_str(&key));
    strbuf_free(&key);
    if (o != NULL)
        enqueue(o);
}

void kube_writer_forget(struct kube_writer *w, const char *kind, const char *ns, const char *name)
{
    struct strbuf key = {0};
    write_key(&key, kind, ns, name);
    struct wanted *o = map_get(&w->objects, strbuf_str(&key));
    strbuf_free(&key);
    if (o != NULL)
        forget(o);
}

static void touch_all(struct kube_writer *w)
{
    w->again_ms = loop_now(w->o.loop);
    MAP_EACH (e, &w->objects)
        enqueue(e->value);
}

/* ---- Events ---- */

static void event_free(struct event *e)
{
    list_remove(&e->node);
    strbuf_free(&e->body);
    mem_free(e->path);
    mem_free(e);
}

static void on_event_sent(void *arg, struct kube_result *r)
{
    struct kube_writer *w = arg;
    w->event_call = NULL;
    if (r->error != NULL) /* an Event is news: it is not sent again later */
        set_problem(w, "an Event", r->error);
}

static void send_event(struct kube_writer *w)
{
    uint64_t now = loop_now(w->o.loop), more = (now - w->tokens_ms) / 1000;
    if (more > 0) {
        w->tokens_ms += more * 1000;
        w->event_tokens = more + w->event_tokens > EVENTS_BURST ? EVENTS_BURST : (unsigned)more + w->event_tokens;
    }
    if (list_is_empty(&w->events) || w->event_tokens == 0 || w->event_call != NULL)
        return;
    w->event_tokens--;
    w->event_count--;
    struct event *e = LIST_ENTRY(w->events.next, struct event, node);
    struct kube_request r = {.method = "POST",
                             .path = e->path,
                             .content_type = "application/json",
                             .body = strbuf_str(&e->body),
                             .done = on_event_sent,
                             .arg = w};
    w->event_call = kube_call(w->o.client, &r);
    event_free(e);
}

/* The same of the same object was said a moment ago. */
static bool is_remembered(struct kube_writer *w, const char *kind, const char *ns, const char *name, const char *reason,
                          const char *message)
{
    uint64_t now = loop_now(w->o.loop);
    if (now - w->remembered_ms > EVENT_AGAIN_MS || w->remembered.count > REMEMBERED_MAX) {
        map_free(&w->remembered);
        w->remembered = (struct map){0};
        w->remembered_ms = now;
    }
    struct strbuf key = {0};
    strbuf_printf(&key, "%s/%s/%s %s %s", kind, ns, name, reason, message);
    bool known = map_set(&w->remembered, strbuf_str(&key), w) != NULL;
    strbuf_free(&key);
    return known;
}

static void add_pair(struct strbuf *b, const char *name, const char *value)
{
    add_text(b, name, value);
    strbuf_addc(b, ',');
}

static void write_event(struct kube_writer *w, struct strbuf *b, const struct kube_watch *watch,
                        const struct kube_object *o, const char *type, const char *reason, const char *message)
{
    const char *ns = o->ns[0] != '\0' ? o->ns : "default";
    char now[32], *generate = mem_printf("%.*s.", NAME_SHOWN, o->name),
                  *text = mem_printf("%.*s", MESSAGE_MAX, message);
    struct strbuf api_version = {0};
    time_t t = time(NULL);
    struct tm tm;
    strftime(now, sizeof now, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&t, &tm));
    write_api_version(&api_version, watch);
    strbuf_addc(&api_version, '\0');
    strbuf_addz(b, "{\"apiVersion\":\"v1\",\"kind\":\"Event\",\"metadata\":{");
    add_pair(b, "generateName", generate);
    add_text(b, "namespace", ns);
    strbuf_addz(b, "},\"involvedObject\":{");
    add_pair(b, "apiVersion", api_version.p);
    add_pair(b, "kind", kube_watch_kind(watch)->kind);
    if (o->ns[0] != '\0')
        add_pair(b, "namespace", o->ns);
    add_pair(b, "uid", o->uid);
    add_text(b, "name", o->name);
    strbuf_addz(b, "},");
    add_pair(b, "type", type);
    add_pair(b, "reason", reason);
    add_pair(b, "message", text);
    add_pair(b, "firstTimestamp", now);
    add_pair(b, "lastTimestamp", now);
    strbuf_addz(b,
                "\"count\":1,\"source\":{\"component\":\"weir\"},\"reportingComponent\":\"gateway.weir/controller\",");
    add_text(b, "reportingInstance", w->instance);
    strbuf_addc(b, '}');
    strbuf_free(&api_version);
    mem_free(generate);
    mem_free(text);
}

void kube_writer_event(struct kube_writer *w, const char *kind, const char *ns, const char *name, const char *type,
                       const char *reason, const char *message)
{
    struct kube_object found;
    const struct kube_watch *watch = w->leads ? w->o.find(w->o.arg, kind, ns, name, &found) : NULL;
    if (watch == NULL || w->event_count >= EVENTS_WAITING || is_remembered(w, kind, ns, name, reason, message))
        return;
    struct event *e = mem_zalloc(sizeof *e);
    e->path = mem_printf("/api/v1/namespaces/%s/events", found.ns[0] != '\0' ? found.ns : "default");
    write_event(w, &e->body, watch, &found, type, reason, message);
    list_init(&e->node);
    list_push_back(&w->events, &e->node);
    w->event_count++;
    wake(w);
}

/* ---- life ---- */

static void on_tick(struct loop_timer *timer)
{
    struct kube_writer *w = CONTAINER_OF(timer, struct kube_writer, tick);
    w->awake = false;
    if (!w->leads)
        return;
    if (loop_now(w->o.loop) - w->again_ms > AGAIN_MS)
        touch_all(w);
    settle_queue(w);
    send_event(w);
    w->awake = !list_is_empty(&w->queue) || !list_is_empty(&w->events);
    loop_timer_start(timer, w->awake ? TICK_MS : AGAIN_MS);
}

void kube_writer_lead(struct kube_writer *w, bool leads)
{
    w->leads = leads;
    if (leads) {
        w->awake = false;
        wake(w);
        touch_all(w);
        return;
    }
    MAP_EACH (e, &w->objects) {
        struct wanted *o = e->value;
        if (o->call == NULL)
            continue;
        kube_call_cancel(o->call);
        o->call = NULL;
        w->calls--;
    }
    while (!list_is_empty(&w->events))
        event_free(LIST_ENTRY(w->events.next, struct event, node));
    w->event_count = 0;
}

struct kube_writer *kube_writer_new(const struct kube_writer_options *o)
{
    struct kube_writer *w = mem_zalloc(sizeof *w);
    w->o = *o;
    w->instance = mem_strdup(o->instance);
    w->event_tokens = EVENTS_BURST;
    w->tokens_ms = w->again_ms = w->remembered_ms = loop_now(o->loop);
    list_init(&w->queue);
    list_init(&w->events);
    loop_timer_init(&w->tick, o->loop, on_tick);
    return w;
}

static void writer_closed(struct loop_timer *timer) { mem_free(CONTAINER_OF(timer, struct kube_writer, tick)); }

void kube_writer_free(struct kube_writer *w)
{
    kube_writer_lead(w, false);
    if (w->event_call != NULL)
        kube_call_cancel(w->event_call);
    MAP_EACH (e, &w->objects)
        wanted_free(e->value);
    map_free(&w->objects);
    map_free(&w->remembered);
    mem_free(w->instance);
    mem_free(w->problem);
    loop_timer_close(&w->tick, writer_closed);
}

size_t kube_writer_waiting(const struct kube_writer *w)
{
    size_t n = w->calls;
    LIST_EACH (node, &w->queue)
        n++;
    return n;
}
const char *kube_writer_problem(const struct kube_writer *w) { return w->problem; }
