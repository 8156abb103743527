/* SPDX-License-Identifier: Apache-2.0
 *
 * See watch.h. One call at a time, a list page or a watch; when it is over, what it said decides what comes next and
 * when (w->then). What must never happen: objects taken away because a list could not be read, or a loop that asks a
 * server in trouble without a rest.
 */
#include "kube/watch.h"

#include <stdlib.h>
#include <sys/random.h>

#include "base/log.h"
#include "kube/json_scan.h"

enum {
    PAGE = 500,
    LIST_BYTES_MAX = 64 * 1024 * 1024,
    LIST_LIMIT_MS = 120 * 1000,
    LIST_IDLE_MS = 30 * 1000,
    WATCH_IDLE_MS = 180 * 1000, /* bookmarks come every minute */
    WATCH_LEAST_S = 300,        /* and at most twice that */
    POLL_MS = 10 * 1000,        /* a kind that is not there, or not allowed */
    QUICK_MS = 1000,            /* a watch that ended sooner is followed after a rest */
    ABSENT_CONFIRM_MS = 30 * 1000
};

struct watched {
    char *ns, *name, *uid, *resource_version;
    char *text, *status;
    size_t n, status_n, version_at;
    bool seen; /* by the list going on */
};
struct kube_watch {
    struct kube_watch_options o;
    char *ns, *label_selector, *field_selector;
    struct map objects; /* "ns/name" -> struct watched */
    struct kube_call *call;
    struct loop_timer retry;
    struct strbuf resource_version; /* to watch from; empty: list first */
    struct strbuf next_page;        /* continue token of the list going on */
    unsigned version, page_size;
    struct kube_lines lines;
    uint32_t backoff;
    uint64_t began_ms, absent_ms;
    bool moved;   /* the watch gave something */
    bool expired; /* the watch said that its version will not do: list again */
    bool failed;  /* and that it is in trouble: after a rest */
    bool listed;
    struct kube_watch_state state;
    char *problem;
};

/* ---- objects ---- */

static void watched_free(struct watched *o)
{
    mem_free(o->ns);
    mem_free(o->name);
    mem_free(o->uid);
    mem_free(o->resource_version);
    mem_free(o->text);
    mem_free(o->status);
    mem_free(o);
}

static struct kube_object object_of(const struct watched *o)
{
    return (struct kube_object){.text = str_span(o->text, o->n),
                                .ns = o->ns,
                                .name = o->name,
                                .uid = o->uid,
                                .resource_version = o->resource_version,
                                .status = str_span(o->status, o->status_n)};
}

static void write_whole(struct strbuf *out, const struct watched *o)
{
    strbuf_clear(out);
    strbuf_add(out, str_span(o->text, o->version_at));
    strbuf_addz(out, "\"resourceVersion\":");
    strbuf_add_json(out, str_of(o->resource_version));
    if (o->text[o->version_at] != '}')
        strbuf_addc(out, ',');
    strbuf_add(out, str_span(o->text + o->version_at, o->n - o->version_at));
}

static void object_key(struct strbuf *key, const char *ns, const char *name) { strbuf_printf(key, "%s/%s", ns, name); }

static void replace(char **to, char **from)
{
    mem_free(*to);
    *to = *from;
    *from = NULL;
}

static void tell_set(struct kube_watch *w, const struct watched *o)
{
    struct strbuf whole = {0};
    struct kube_object object = object_of(o);
    write_whole(&whole, o);
    w->o.ops->set(w->o.arg, w, &object, strbuf_str(&whole));
    strbuf_free(&whole);
}

static void take_parsed(struct kube_watch *w, struct kube_parsed *p)
{
    struct strbuf key = {0};
    object_key(&key, p->ns, p->name);
    struct watched *o = map_get(&w->objects, strbuf_str(&key));
    bool changed = o == NULL || !str_eq(str_span(o->text, o->n), strbuf_str(&p->text)) || strcmp(o->uid, p->uid) != 0;
    if (o == NULL) {
        o = mem_zalloc(sizeof *o);
        map_set(&w->objects, strbuf_str(&key), o);
    }
    strbuf_free(&key);
    replace(&o->ns, &p->ns);
    replace(&o->name, &p->name);
    replace(&o->uid, &p->uid);
    replace(&o->resource_version, &p->resource_version);
    mem_free(o->status);
    o->status = mem_strndup(p->status.n > 0 ? p->status.p : "", p->status.n);
    o->status_n = p->status.n;
    if (changed) {
        mem_free(o->text);
        o->n = p->text.n;
        o->version_at = p->version_at;
        o->text = strbuf_take(&p->text);
    }
    o->seen = true;
    if (changed)
        tell_set(w, o);
}

static void skip_object(struct kube_watch *w, struct str begin, const char *why)
{
    char *name = json_scan_string(json_get(json_get(begin, "metadata"), "name"));
    if (w->state.skipped++ == 0)
        log_line(LOG_WARN, "kubernetes: %s %s: an object %s; it is passed over, others are not touched",
                 w->o.kind->plural, name != NULL ? name : "(name not known)", why);
    mem_free(name);
}

static void object_api_version(const struct kube_watch *w, struct strbuf *out)
{
    strbuf_printf(out, "%s%s%s", w->o.kind->group, w->o.kind->group[0] != '\0' ? "/" : "",
                  w->o.kind->versions[w->version]);
}

/* False: it is no object that could be named. */
static bool take_object(struct kube_watch *w, struct str object)
{
    struct strbuf api_version = {0};
    struct kube_parsed p;
    object_api_version(w, &api_version);
    strbuf_addc(&api_version, '\0');
    bool ok = kube_parse(object, api_version.p, w->o.kind->kind, &p);
    strbuf_free(&api_version);
    if (!ok)
        return false;
    take_parsed(w, &p);
    kube_parsed_free(&p);
    return true;
}

static void remove_key(struct kube_watch *w, struct str key)
{
    struct watched *o = map_remove(&w->objects, key);
    if (o == NULL)
        return;
    w->o.ops->removed(w->o.arg, w, o->ns, o->name);
    watched_free(o);
}

static void remove_unseen(struct kube_watch *w)
{
    struct map gone = {0};
    MAP_EACH (e, &w->objects)
        if (!((struct watched *)e->value)->seen)
            map_set(&gone, e->key, e->value);
    MAP_EACH (e, &gone)
        remove_key(w, e->key);
    map_free(&gone);
}

static void mark_unseen(struct kube_watch *w)
{
    MAP_EACH (e, &w->objects)
        ((struct watched *)e->value)->seen = false;
}

/* ---- state ---- */

static void set_state(struct kube_watch *w, enum kube_watch_phase phase, const char *problem)
{
    bool other = w->state.phase != phase;
    if (other) {
        w->state.phase = phase;
        w->state.since_ms = loop_now(w->o.loop);
    }
    if (problem != w->problem) {
        mem_free(w->problem);
        w->problem = problem != NULL ? mem_strdup(problem) : NULL;
    }
    w->state.problem = w->problem;
    w->o.ops->told(w->o.arg, w);
}

const char *kube_phase_name(enum kube_watch_phase phase)
{
    static const char *const names[] = {"starting", "live", "stale", "not installed", "refused"};
    return names[phase];
}

/* ---- what comes next ---- */

static void list_begin(struct kube_watch *w);
static void watch_begin(struct kube_watch *w);

static void on_retry(struct loop_timer *timer)
{
    struct kube_watch *w = CONTAINER_OF(timer, struct kube_watch, retry);
    if (w->resource_version.n > 0)
        watch_begin(w);
    else
        list_begin(w);
}

static void later(struct kube_watch *w, uint32_t ms) { loop_timer_start(&w->retry, ms); }

static void fail(struct kube_watch *w, const char *problem, uint32_t retry_after_ms)
{
    uint32_t ms = kube_backoff(&w->backoff);
    set_state(w, w->state.settled || w->objects.count > 0 ? KUBE_WATCH_STALE : KUBE_WATCH_STARTING, problem);
    later(w, retry_after_ms > ms ? retry_after_ms : ms);
}

/* ---- listing ---- */

static void add_query(struct strbuf *path, const char *name, const char *value)
{
    strbuf_printf(path, "&%s=", name);
    for (const char *p = value; *p != '\0'; p++) {
        unsigned char c = (unsigned char)*p;
        bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
                     c == '.' || c == '_' || c == '~';
        if (plain)
            strbuf_addc(path, (char)c);
        else
            strbuf_printf(path, "%%%02X", c);
    }
}

void kube_path(struct strbuf *out, const struct kube_kind *kind, const char *version, const char *ns, const char *name)
{
    if (kind->group[0] != '\0')
        strbuf_printf(out, "/apis/%s/%s", kind->group, version);
    else
        strbuf_printf(out, "/api/%s", version);
    if (kind->namespaced && ns != NULL && ns[0] != '\0')
        strbuf_printf(out, "/namespaces/%s", ns);
    strbuf_printf(out, "/%s", kind->plural);
    if (name != NULL)
        strbuf_printf(out, "/%s", name);
}

static void write_path(const struct kube_watch *w, struct strbuf *path)
{
    kube_path(path, w->o.kind, w->o.kind->versions[w->version], w->ns, NULL);
}

static void write_selectors(const struct kube_watch *w, struct strbuf *path)
{
    if (w->label_selector != NULL)
        add_query(path, "labelSelector", w->label_selector);
    if (w->field_selector != NULL)
        add_query(path, "fieldSelector", w->field_selector);
}

static void start_call(struct kube_watch *w, struct strbuf *path, struct kube_request *r)
{
    strbuf_addc(path, '\0');
    r->path = path->p;
    r->arg = w;
    w->call = kube_call(w->o.client, r);
    strbuf_free(path);
}

static void list_done(void *arg, struct kube_result *r);

static void list_page(struct kube_watch *w)
{
    struct strbuf path = {0};
    write_path(w, &path);
    strbuf_printf(&path, "?limit=%u", w->page_size);
    write_selectors(w, &path);
    if (w->next_page.n > 0) {
        strbuf_addc(&w->next_page, '\0');
        add_query(&path, "continue", w->next_page.p);
    }
    struct kube_request r = {
        .total_ms = LIST_LIMIT_MS, .idle_ms = LIST_IDLE_MS, .max_bytes = LIST_BYTES_MAX, .done = list_done};
    start_call(w, &path, &r);
}

static void list_begin(struct kube_watch *w)
{
    mark_unseen(w);
    strbuf_clear(&w->next_page);
    strbuf_clear(&w->resource_version);
    list_page(w);
}

static void take_items(struct kube_watch *w, struct str items)
{
    struct json_iter it = json_iter(items);
    while (json_iter_next(&it)) {
        if (it.value.n > KUBE_OBJECT_MAX)
            skip_object(w, it.value, "is too large");
        else if (!take_object(w, it.value))
            skip_object(w, it.value, "has no name");
    }
}

/* What was too large to take is not gone. */
static void keep_skipped(struct kube_watch *w, struct str items)
{
    struct json_iter it = json_iter(items);
    while (json_iter_next(&it)) {
        if (it.value.n <= KUBE_OBJECT_MAX)
            continue;
        struct str meta = json_get(it.value, "metadata");
        char *ns = json_scan_string(json_get(meta, "namespace")), *name = json_scan_string(json_get(meta, "name"));
        struct strbuf key = {0};
        object_key(&key, ns != NULL ? ns : "", name != NULL ? name : "");
        struct watched *o = map_get(&w->objects, strbuf_str(&key));
        if (o != NULL)
            o->seen = true;
        strbuf_free(&key);
        mem_free(ns);
        mem_free(name);
    }
}

static bool is_whole(struct str text)
{
    struct str rest = text, value;
    return json_scan_value(&rest, &value) && rest.n == 0 && value.p[0] == '{';
}

/* A page came. False: it is none. */
static bool take_page(struct kube_watch *w, struct str body)
{
    struct str items = json_get(body, "items"), meta = json_get(body, "metadata");
    char *version = json_scan_string(json_get(meta, "resourceVersion"));
    char *next = json_scan_string(json_get(meta, "continue"));
    bool ok = is_whole(body) && version != NULL && version[0] != '\0';
    if (ok) {
        take_items(w, items);
        keep_skipped(w, items);
        strbuf_clear(&w->next_page);
        strbuf_addz(&w->next_page, next != NULL ? next : "");
        if (w->next_page.n == 0)
            strbuf_addz(&w->resource_version, version);
    }
    mem_free(version);
    mem_free(next);
    return ok;
}

static void list_over(struct kube_watch *w)
{
    remove_unseen(w);
    w->listed = true;
    w->state.settled = true;
    w->state.lists++;
    w->absent_ms = 0;
    w->page_size = PAGE;
    set_state(w, KUBE_WATCH_LIVE, NULL);
    watch_begin(w);
}

/* The group, the version or the resource is not served. */
static void list_absent(struct kube_watch *w, const char *problem)
{
    if (w->o.kind->versions[w->version + 1] != NULL) {
        w->version++;
        list_begin(w);
        return;
    }
    w->version = 0;
    if (w->absent_ms == 0)
        w->absent_ms = loop_now(w->o.loop);
    if (w->objects.count > 0 && loop_now(w->o.loop) - w->absent_ms < ABSENT_CONFIRM_MS) {
        /* A server that has just started may not know its own kinds yet. */
        fail(w, problem, 0);
        return;
    }
    if (w->objects.count > 0)
        log_line(LOG_WARN, "kubernetes: %s is not installed any more: its %zu objects are gone", w->o.kind->plural,
                 w->objects.count);
    mark_unseen(w);
    remove_unseen(w);
    w->state.settled = true;
    set_state(w, KUBE_WATCH_ABSENT, problem);
    later(w, POLL_MS);
}

static void list_done(void *arg, struct kube_result *r)
{
    struct kube_watch *w = arg;
    w->call = NULL;
    strbuf_clear(&w->resource_version);
    if (r->error == NULL && take_page(w, r->body)) {
        if (w->next_page.n > 0)
            list_page(w);
        else
            list_over(w);
    } else if (r->error == NULL) {
        fail(w, "the answer is no list", 0);
    } else if (r->status == 404) {
        list_absent(w, r->error);
    } else if (r->status == 403) {
        w->backoff = 0;
        set_state(w, KUBE_WATCH_REFUSED, r->error);
        later(w, POLL_MS);
    } else {
        if (r->status == 0 && w->page_size > 1 && r->too_large)
            w->page_size /= 2;
        fail(w, r->error, r->retry_after_ms);
    }
}

/* ---- watching ---- */

static void watch_line_skipped(void *arg, struct str begin)
{
    struct kube_watch *w = arg;
    /* The beginning has no end, so it is searched as text: apiVersion, kind and metadata.name come first. */
    ptrdiff_t at = str_find_str(begin, STR("\"metadata\":"));
    struct str rest = at < 0 ? STR_NONE : str_from(begin, (size_t)at);
    skip_object(w, rest, "is too large");
}

/* Whatever it is, a list tells what is so; 410 is usual, and no reason to wait. */
static bool watch_error(struct kube_watch *w, struct str object)
{
    w->expired = true;
    if (str_is(json_get(object, "code"), "410"))
        return false;
    char *message = json_scan_string(json_get(object, "message"));
    w->failed = true;
    set_state(w, KUBE_WATCH_STALE, message != NULL ? message : "the watch ended with an error");
    mem_free(message);
    return false;
}

static void take_version(struct kube_watch *w, struct str object)
{
    char *version = json_scan_string(json_get(json_get(object, "metadata"), "resourceVersion"));
    if (version != NULL && version[0] != '\0') {
        strbuf_clear(&w->resource_version);
        strbuf_addz(&w->resource_version, version);
    }
    mem_free(version);
}

static void take_deleted(struct kube_watch *w, struct str object)
{
    struct str meta = json_get(object, "metadata");
    char *ns = json_scan_string(json_get(meta, "namespace")), *name = json_scan_string(json_get(meta, "name"));
    struct strbuf key = {0};
    object_key(&key, ns != NULL ? ns : "", name != NULL ? name : "");
    remove_key(w, strbuf_str(&key));
    strbuf_free(&key);
    mem_free(ns);
    mem_free(name);
}

static bool watch_line(void *arg, struct str line)
{
    struct kube_watch *w = arg;
    struct str type = json_get(line, "type"), object = json_get(line, "object");
    if (!is_whole(line) || object.n == 0) {
        w->expired = w->failed = true;
        set_state(w, KUBE_WATCH_STALE, "the watch sent what is no event");
        return false;
    }
    if (str_is(type, "\"ERROR\""))
        return watch_error(w, object);
    take_version(w, object);
    w->moved = true;
    if (str_is(type, "\"ADDED\"") || str_is(type, "\"MODIFIED\"")) {
        if (!take_object(w, object))
            skip_object(w, object, "has no name");
    } else if (str_is(type, "\"DELETED\"")) {
        take_deleted(w, object);
    }
    return true;
}

static bool watch_data(void *arg, struct str bytes)
{
    struct kube_watch *w = arg;
    bool more = kube_lines_feed(&w->lines, bytes, watch_line, watch_line_skipped, w);
    w->backoff = w->moved ? 0 : w->backoff;
    w->o.ops->told(w->o.arg, w);
    return more;
}

static void watch_open(void *arg)
{
    struct kube_watch *w = arg;
    if (w->state.phase != KUBE_WATCH_LIVE)
        set_state(w, KUBE_WATCH_LIVE, NULL);
}

static void watch_done(void *arg, struct kube_result *r)
{
    struct kube_watch *w = arg;
    w->call = NULL;
    bool quick = loop_now(w->o.loop) - w->began_ms < QUICK_MS;
    /* An answer that is an error: of a version too old, or from a future that a restored server does not know, or of a
     * kind that is gone. A list sorts them. */
    if (w->expired || r->status >= 300)
        strbuf_clear(&w->resource_version);
    if (!quick && !w->failed && r->status < 300)
        w->backoff = 0;
    if (!w->failed && r->error != NULL && !w->expired && r->status != 410)
        fail(w, r->error, r->retry_after_ms);
    else if (w->failed || quick)
        later(w, kube_backoff(&w->backoff));
    else if (w->expired || r->status == 410)
        list_begin(w);
    else
        watch_begin(w);
}

static unsigned watch_seconds(void)
{
    uint32_t random = 0;
    if (getrandom(&random, sizeof random, 0) != sizeof random)
        random = 0;
    return WATCH_LEAST_S + random % (WATCH_LEAST_S + 1);
}

static void watch_begin(struct kube_watch *w)
{
    struct strbuf path = {0};
    write_path(w, &path);
    strbuf_printf(&path, "?watch=1&allowWatchBookmarks=true&timeoutSeconds=%u", watch_seconds());
    write_selectors(w, &path);
    strbuf_addc(&w->resource_version, '\0');
    add_query(&path, "resourceVersion", w->resource_version.p);
    w->resource_version.n--;
    strbuf_free(&w->lines.part);
    w->lines.skipping = false;
    w->moved = w->expired = w->failed = false;
    w->began_ms = loop_now(w->o.loop);
    struct kube_request r = {.idle_ms = WATCH_IDLE_MS,
                             .max_bytes = SIZE_MAX,
                             .on_open = watch_open,
                             .on_data = watch_data,
                             .done = watch_done};
    start_call(w, &path, &r);
}

/* ---- life ---- */

static char *copy(const char *text) { return text != NULL ? mem_strdup(text) : NULL; }

struct kube_watch *kube_watch_new(const struct kube_watch_options *o)
{
    struct kube_watch *w = mem_zalloc(sizeof *w);
    w->o = *o;
    w->ns = copy(o->ns);
    w->label_selector = copy(o->label_selector);
    w->field_selector = copy(o->field_selector);
    w->page_size = PAGE;
    w->state.since_ms = loop_now(o->loop);
    loop_timer_init(&w->retry, o->loop, on_retry);
    list_begin(w);
    return w;
}

static void watch_closed(struct loop_timer *timer) { mem_free(CONTAINER_OF(timer, struct kube_watch, retry)); }

void kube_watch_free(struct kube_watch *w)
{
    if (w->call != NULL)
        kube_call_cancel(w->call);
    MAP_EACH (e, &w->objects)
        watched_free(e->value);
    map_free(&w->objects);
    strbuf_free(&w->resource_version);
    strbuf_free(&w->next_page);
    strbuf_free(&w->lines.part);
    mem_free(w->ns);
    mem_free(w->label_selector);
    mem_free(w->field_selector);
    mem_free(w->problem);
    loop_timer_close(&w->retry, watch_closed);
}

const struct kube_kind *kube_watch_kind(const struct kube_watch *w) { return w->o.kind; }
const char *kube_watch_version(const struct kube_watch *w) { return w->o.kind->versions[w->version]; }

struct kube_watch_state kube_watch_state(const struct kube_watch *w)
{
    struct kube_watch_state state = w->state;
    state.objects = w->objects.count;
    return state;
}

bool kube_watch_restore(struct kube_watch *w, struct str text) { return w->listed || take_object(w, text); }

bool kube_watch_find(const struct kube_watch *w, const char *ns, const char *name, struct kube_object *out)
{
    struct strbuf key = {0};
    object_key(&key, ns, name);
    const struct watched *o = map_get(&w->objects, strbuf_str(&key));
    strbuf_free(&key);
    if (o != NULL)
        *out = object_of(o);
    return o != NULL;
}

void kube_watch_each(const struct kube_watch *w,
                     void (*fn)(void *arg, const struct kube_watch *w, const struct kube_object *o, struct str text),
                     void *arg)
{
    struct strbuf whole = {0};
    MAP_EACH (e, &w->objects) {
        struct kube_object object = object_of(e->value);
        write_whole(&whole, e->value);
        fn(arg, w, &object, strbuf_str(&whole));
    }
    strbuf_free(&whole);
}
