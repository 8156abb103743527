/* SPDX-License-Identifier: Apache-2.0
 *
 * The objects the API shows, wherever they come from, and the recent past of their changes. Every change goes through
 * object_commit: it alone gives out resourceVersions, so that they rise in the order in which watchers are told.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#include "kube/api_priv.h"

static void object_key(struct strbuf *key, const struct api_type *t, const char *ns, const char *name)
{
    api_type_name(t, key);
    strbuf_printf(key, "/%s/%s", ns, name);
}

struct api_object *object_find(const struct kube_api *api, const struct api_type *t, const char *ns, const char *name)
{
    struct strbuf key = {0};
    object_key(&key, t, ns, name);
    struct api_object *o = map_get(&api->objects, strbuf_str(&key));
    strbuf_free(&key);
    return o;
}

void object_free(struct api_object *o)
{
    mem_free(o->ns);
    mem_free(o->name);
    mem_free(o->path);
    mem_free(o->file);
    json_decref(o->json);
    json_decref(o->managers);
    mem_free(o);
}

static void forget_oldest(struct kube_api *api)
{
    struct api_past *p = &api->ring[api->ring_first++ % API_RING];
    api->ring_bytes -= p->bytes;
    json_decref(p->old);
    json_decref(p->now);
    *p = (struct api_past){0};
}

static void remember(struct kube_api *api, enum api_change change, const struct api_type *t, json_t *old, json_t *now)
{
    /* What an object was is what the change before made it: counted there. */
    size_t bytes = json_weight(now);
    while (api->ring_next > api->ring_first &&
           (api->ring_next - api->ring_first == API_RING || api->ring_bytes + bytes > API_RING_BYTES))
        forget_oldest(api);
    struct api_past *p = &api->ring[api->ring_next++ % API_RING];
    *p = (struct api_past){api->rv, change, t, bytes, json_incref(old), json_incref(now)};
    api->ring_bytes += bytes;
    api_watch_tell(api, p);
}

/* json with the version in it; the caller's reference goes. */
static json_t *with_version(json_t *json, uint64_t rv)
{
    char text[24];
    snprintf(text, sizeof text, "%llu", (unsigned long long)rv);
    json_t *copy = json_copy_head(json);
    json_set_text(json_object_get(copy, "metadata"), "resourceVersion", text);
    json_decref(json);
    return copy;
}

struct api_object *object_commit(struct kube_api *api, const struct api_type *t, const char *ns, const char *name,
                                 json_t *json)
{
    struct strbuf key = {0};
    object_key(&key, t, ns, name);
    struct api_object *o = map_get(&api->objects, strbuf_str(&key));
    json_t *old = o != NULL ? o->json : NULL;
    if (json == NULL && o == NULL) {
        strbuf_free(&key);
        return NULL;
    }
    api->rv++;
    state_reserve(api);
    if (json == NULL) {
        map_remove(&api->objects, strbuf_str(&key));
        strbuf_free(&key);
        json_t *last = with_version(json_incref(old), api->rv);
        api->events -= t == api_type_event;
        remember(api, CHANGE_DELETED, t, old, last);
        json_decref(last);
        object_free(o);
        return NULL;
    }
    if (o == NULL) {
        o = mem_zalloc(sizeof *o);
        o->type = t;
        o->ns = mem_strdup(ns);
        o->name = mem_strdup(name);
        map_set(&api->objects, strbuf_str(&key), o);
        api->events += t == api_type_event;
    }
    strbuf_free(&key);
    o->rv = api->rv;
    o->json = with_version(json, api->rv);
    remember(api, old != NULL ? CHANGE_MODIFIED : CHANGE_ADDED, t, old, o->json);
    json_decref(old);
    return o;
}

static int by_name(const void *a, const void *b)
{
    const struct api_object *x = *(struct api_object *const *)a, *y = *(struct api_object *const *)b;
    int c = strcmp(x->ns, y->ns);
    return c != 0 ? c : strcmp(x->name, y->name);
}

struct api_object **object_list(const struct kube_api *api, const struct api_type *t, const char *ns, size_t *n)
{
    struct api_object **list = mem_alloc((api->objects.count + 1) * sizeof *list);
    *n = 0;
    MAP_EACH (e, &api->objects) {
        struct api_object *o = e->value;
        if (o->type == t && (ns == NULL || strcmp(o->ns, ns) == 0))
            list[(*n)++] = o;
    }
    qsort(list, *n, sizeof(struct api_object *), by_name);
    return list;
}

/* ---- namespaces: an object in one is enough for it to be there ---- */

bool namespace_is_fixed(const struct kube_api *api, const char *ns)
{
    return strcmp(ns, "default") == 0 || strcmp(ns, "kube-system") == 0 || strcmp(ns, "istio-system") == 0 ||
           strcmp(ns, api->pod_ns) == 0;
}

void object_namespace_make(struct kube_api *api, const char *ns)
{
    const struct api_type *t = api_type_of(KIND_NAMESPACE);
    if (ns[0] == '\0' || object_find(api, t, "", ns) != NULL)
        return;
    char uid[40], now[32];
    api_make_uid(uid);
    api_time_text(api_now(), now);
    json_t *j =
        json_pack("{s:s, s:s, s:{s:s, s:s, s:s, s:{s:s}}, s:{s:[s]}, s:{s:s}}", "apiVersion", "v1", "kind", "Namespace",
                  "metadata", "name", ns, "uid", uid, "creationTimestamp", now, "labels", "kubernetes.io/metadata.name",
                  ns, "spec", "finalizers", "kubernetes", "status", "phase", "Active");
    object_commit(api, t, "", ns, j);
}

void api_make_uid(char out[40])
{
    uint8_t b[16] = {0};
    ASSERT(getrandom(b, sizeof b, 0) == (ssize_t)sizeof b); /* so few bytes come whole */
    b[6] = (uint8_t)((b[6] & 0x0f) | 0x40);
    b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
    size_t n = 0;
    for (size_t i = 0; i < sizeof b; i++)
        n += (size_t)snprintf(out + n, 40 - n, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", b[i]);
}
