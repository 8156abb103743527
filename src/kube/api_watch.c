/* SPDX-License-Identifier: Apache-2.0
 *
 * Watches: a stream of changes, one JSON object a line. A watch that begins at a version gets what the ring still holds
 * from there on; one that is older, or that falls too far behind because its client does not read, is told 410 Expired
 * (as an event of a 200 answer, which is where clients look for it) and ended: they list again.
 */
#include <stdio.h>

#include "kube/api_priv.h"

enum { BOOKMARK_MS = 60000 };

struct watcher {
    struct list node;
    struct kube_api *api;
    struct http_exchange *x; /* NULL: over */
    struct api_request r;
    struct api_selector *selector;
    struct loop_timer end, bookmark;
    int open_timers;
};

static void watcher_maybe_free(struct watcher *w)
{
    if (w->open_timers > 0)
        return;
    api_request_free(&w->r);
    api_selector_free(w->selector);
    mem_free(w);
}
static void end_closed(struct loop_timer *timer)
{
    struct watcher *w = CONTAINER_OF(timer, struct watcher, end);
    w->open_timers--;
    watcher_maybe_free(w);
}
static void bookmark_closed(struct loop_timer *timer)
{
    struct watcher *w = CONTAINER_OF(timer, struct watcher, bookmark);
    w->open_timers--;
    watcher_maybe_free(w);
}

static void watcher_over(struct watcher *w)
{
    list_remove(&w->node);
    w->x = NULL;
    loop_timer_close(&w->end, end_closed);
    loop_timer_close(&w->bookmark, bookmark_closed);
}

static void on_gone(void *owner) { watcher_over(owner); }

static void send_event(struct watcher *w, const char *type, json_t *object /* taken */)
{
    struct strbuf b = {0};
    strbuf_printf(&b, "{\"type\":\"%s\",\"object\":", type);
    json_put(&b, object);
    strbuf_addz(&b, "}\n");
    json_decref(object);
    http_exchange_send(w->x, strbuf_str(&b));
    strbuf_free(&b);
}

static void watcher_end(struct watcher *w)
{
    struct http_exchange *x = w->x;
    watcher_over(w);
    http_exchange_end(x);
}

static void watcher_expire(struct watcher *w, const char *why)
{
    send_event(w, "ERROR", api_status_json(410, "Expired", NULL, why));
    watcher_end(w);
}

static void send_bookmark(struct watcher *w, bool initial_end)
{
    char rv[24];
    snprintf(rv, sizeof rv, "%llu", (unsigned long long)w->api->rv);
    char *version = api_type_version(w->r.type, w->r.version);
    json_t *o = json_pack("{s:s, s:s, s:{s:s, s:n}}", "kind", w->r.type->kind, "apiVersion", version, "metadata",
                          "resourceVersion", rv, "creationTimestamp");
    if (initial_end)
        json_object_set_new(json_object_get(o, "metadata"), "annotations",
                            json_pack("{s:s}", "k8s.io/initial-events-end", "true"));
    send_event(w, "BOOKMARK", o);
    mem_free(version);
}

static void on_bookmark(struct loop_timer *timer)
{
    struct watcher *w = CONTAINER_OF(timer, struct watcher, bookmark);
    send_bookmark(w, false);
    loop_timer_start(&w->bookmark, BOOKMARK_MS);
}

static void on_end(struct loop_timer *timer)
{
    struct watcher *w = CONTAINER_OF(timer, struct watcher, end);
    if (w->r.bookmarks)
        send_bookmark(w, false);
    watcher_end(w);
}

/* ---- one change ---- */

static bool is_wanted(const struct watcher *w, const json_t *object)
{
    const json_t *metadata = json_object_get(object, "metadata");
    return object != NULL && (w->r.ns == NULL || strcmp(json_text(metadata, "namespace"), w->r.ns) == 0) &&
           (w->r.name == NULL || strcmp(json_text(metadata, "name"), w->r.name) == 0) &&
           api_selector_matches(w->selector, object);
}

/* An object that stops matching is gone for this watcher, though it lives. False: the watcher has ended. */
static bool tell(struct watcher *w, const struct api_past *p)
{
    if (p->type != w->r.type)
        return true;
    bool before = is_wanted(w, p->old), after = p->change != CHANGE_DELETED && is_wanted(w, p->now);
    if (!before && !after)
        return true;
    send_event(w, !before ? "ADDED" : after ? "MODIFIED" : "DELETED", api_render(&w->r, p->now));
    if (http_exchange_queued(w->x) <= API_QUEUED_MAX)
        return true;
    watcher_expire(w, "the watch fell too far behind");
    return false;
}

void api_watch_tell(struct kube_api *api, const struct api_past *past)
{
    LIST_EACH (n, &api->watchers)
        (void)tell(LIST_ENTRY(n, struct watcher, node), past);
}

/* ---- begin ---- */

static void send_everything(struct watcher *w)
{
    size_t n;
    struct api_object **list = object_list(w->api, w->r.type, w->r.ns, &n);
    for (size_t i = 0; i < n; i++)
        if (is_wanted(w, list[i]->json))
            send_event(w, "ADDED", api_render(&w->r, list[i]->json));
    mem_free(list);
}

uint64_t api_oldest_version(const struct kube_api *api)
{
    return api->ring_first > 0 ? api->ring[api->ring_first % API_RING].rv - 1 : api->first_rv;
}

/* One from the future is of another life of this server, whose objects the client still holds. */
static void send_past(struct watcher *w, uint64_t since)
{
    struct kube_api *api = w->api;
    uint64_t known = api_oldest_version(api);
    if (since < known || since > api->rv) {
        char text[128];
        snprintf(text, sizeof text, "too %s resource version: %llu (%llu)", since < known ? "old" : "large",
                 (unsigned long long)since, (unsigned long long)(since < known ? known : api->rv));
        watcher_expire(w, text);
        return;
    }
    for (uint64_t i = api->ring_first; i < api->ring_next; i++)
        if (api->ring[i % API_RING].rv > since && !tell(w, &api->ring[i % API_RING]))
            return;
}

static bool version_of(const struct api_request *r, uint64_t *since, struct http_response *out)
{
    *since = 0;
    if (r->resource_version == NULL || r->resource_version[0] == '\0')
        return true;
    if (str_to_u64(str_of(r->resource_version), UINT64_MAX, since))
        return true;
    api_fail(out, 400, "BadRequest", NULL, "resourceVersion: Invalid value: \"%s\"", r->resource_version);
    return false;
}

void api_watch(struct kube_api *api, struct api_request *r, struct http_exchange *x, struct http_response *out,
               bool *deferred)
{
    uint64_t since;
    char *error = NULL;
    struct api_selector *s = NULL;
    if (version_of(r, &since, out)) {
        s = api_selector_new(r->label_selector, r->field_selector, r->type, &error);
        if (s == NULL)
            api_fail(out, 400, "BadRequest", NULL, "%s", error);
        mem_free(error);
    }
    if (s == NULL) {
        api_request_free(r);
        return;
    }
    struct watcher *w = mem_zalloc(sizeof *w);
    *w = (struct watcher){.api = api, .x = x, .r = *r, .selector = s, .open_timers = 2};
    *r = (struct api_request){0};
    list_init(&w->node);
    list_push_back(&api->watchers, &w->node);
    loop_timer_init(&w->end, api->loop, on_end);
    loop_timer_init(&w->bookmark, api->loop, on_bookmark);
    *deferred = true;
    http_exchange_defer(x, on_gone, w);
    struct http_response head = {.status = 200, .content_type = "application/json"};
    http_exchange_begin(x, &head);
    if (w->r.timeout_s > 0)
        loop_timer_start(&w->end, w->r.timeout_s * 1000);
    if (w->r.bookmarks)
        loop_timer_start(&w->bookmark, BOOKMARK_MS);
    if (since == 0 || (w->r.initial_events && since <= api->rv)) { /* as it is now is not older than any version */
        send_everything(w);
        if (w->r.initial_events)
            send_bookmark(w, true);
    } else {
        send_past(w, since);
    }
}

void api_watch_end(struct kube_api *api)
{
    LIST_EACH (n, &api->watchers)
        watcher_end(LIST_ENTRY(n, struct watcher, node));
}
