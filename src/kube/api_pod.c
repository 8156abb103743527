/* SPDX-License-Identifier: Apache-2.0
 *
 * What the gateway itself is to kubectl: a Pod, so that `kubectl get pods` and `kubectl logs -l` find it, and Events
 * about objects, of which equal ones are counted up instead of repeated.
 */
#include <stdio.h>

#include "kube/api_priv.h"

/* ---- the Pod ---- */

static json_t *labels_json(const struct labels *l)
{
    json_t *o = json_object();
    for (size_t i = 0; i < l->count; i++)
        json_set_text(o, l->list[i].key, l->list[i].value);
    return o;
}

static json_t *condition(const char *type, bool is, const char *since, const char *why)
{
    json_t *c =
        json_pack("{s:s, s:s, s:s}", "type", type, "status", is ? "True" : "False", "lastTransitionTime", since);
    if (!is && why != NULL) {
        json_set_text(c, "reason", "ContainersNotReady");
        json_set_text(c, "message", why);
    }
    return c;
}

static json_t *pod_status(const struct kube_api *api, bool ready, const char *why, const char *started, const char *now)
{
    char ip[ADDR_TEXT_MAX];
    addr_format(&api->o.addr, false, ip);
    json_t *conditions = json_array();
    json_array_append_new(conditions, condition("Initialized", true, started, NULL));
    json_array_append_new(conditions, condition("Ready", ready, now, why));
    json_array_append_new(conditions, condition("ContainersReady", ready, now, why));
    json_array_append_new(conditions, condition("PodScheduled", true, started, NULL));
    json_t *container =
        json_pack("{s:s, s:b, s:b, s:i, s:s, s:s, s:{s:{s:s}}}", "name", "weir", "ready", (int)ready, "started", 1,
                  "restartCount", 0, "image", "weir", "imageID", "", "state", "running", "startedAt", started);
    json_t *s = json_pack("{s:s, s:s, s:s, s:s}", "phase", "Running", "startTime", started, "podIP", ip, "hostIP", ip);
    json_object_set_new(s, "conditions", conditions);
    json_object_set_new(s, "containerStatuses", json_pack("[o]", container));
    return s;
}

void api_pod_make(struct kube_api *api, bool ready, const char *why)
{
    const struct api_object *old = object_find(api, api_type_pod, api->pod_ns, api->pod_name);
    char now[32], uid[40];
    api_time_text(api_now(), now);
    api_make_uid(uid);
    const json_t *was = old != NULL ? json_object_get(old->json, "metadata") : NULL;
    const char *started = was != NULL ? json_text(was, "creationTimestamp") : now;
    json_t *metadata = json_pack("{s:s, s:s, s:s, s:s}", "name", api->pod_name, "namespace", api->pod_ns, "uid",
                                 was != NULL ? json_text(was, "uid") : uid, "creationTimestamp", started);
    json_object_set_new(metadata, "labels", labels_json(api->o.pod_labels));
    json_object_set_new(metadata, "annotations", json_pack("{s:s}", "kubectl.kubernetes.io/default-container", "weir"));
    json_t *pod = json_pack("{s:s, s:s, s:o, s:{s:[{s:s, s:s}], s:s, s:s}}", "apiVersion", "v1", "kind", "Pod",
                            "metadata", metadata, "spec", "containers", "name", "weir", "image", "weir",
                            "restartPolicy", "Always", "nodeName", "localhost");
    json_object_set_new(pod, "status", pod_status(api, ready, why, started, now));
    object_commit(api, api_type_pod, api->pod_ns, api->pod_name, pod);
}

void kube_api_set_ready(struct kube_api *api, bool ready, const char *why)
{
    const struct api_object *o = object_find(api, api_type_pod, api->pod_ns, api->pod_name);
    json_t *c = json_array_get(json_at(o->json, "status", "conditions"), 1);
    bool was = strcmp(json_text(c, "status"), "True") == 0;
    if (was != ready || (!ready && strcmp(json_text(c, "message"), why) != 0))
        api_pod_make(api, ready, why);
}

/* ---- Events ---- */

static void drop_oldest_event(struct kube_api *api)
{
    const struct api_object *oldest = NULL;
    MAP_EACH (e, &api->objects) {
        const struct api_object *o = e->value;
        if (o->type == api_type_event && (oldest == NULL || o->rv < oldest->rv))
            oldest = o;
    }
    if (oldest == NULL)
        return;
    char *ns = mem_strdup(oldest->ns), *name = mem_strdup(oldest->name);
    object_commit(api, api_type_event, ns, name, NULL);
    mem_free(ns);
    mem_free(name);
}

static json_t *about(const struct api_object *o, const struct api_type *t, const char *ns, const char *name)
{
    char *version = api_type_version(t, api_type_versions(t)[0]);
    json_t *j = json_pack("{s:s, s:s, s:s}", "kind", t->kind, "name", name, "apiVersion", version);
    if (t->namespaced)
        json_set_text(j, "namespace", ns);
    if (o != NULL) {
        json_set_text(j, "uid", json_text(json_object_get(o->json, "metadata"), "uid"));
        json_set_text(j, "resourceVersion", json_text(json_object_get(o->json, "metadata"), "resourceVersion"));
    }
    mem_free(version);
    return j;
}

void kube_api_event(struct kube_api *api, enum kind kind, const char *ns, const char *name, const char *type,
                    const char *reason, const char *message)
{
    const struct api_type *t = api_type_of(kind);
    const char *place = t->namespaced ? ns : "default";
    char now[32];
    api_time_text(api_now(), now);
    char *key = mem_printf("%s/%s/%s/%s/%s", t->kind, ns, name, reason, message);
    char *event_name = mem_printf("%.200s.%016llx", name, (unsigned long long)str_hash(str_of(key)));
    const struct api_object *old = object_find(api, api_type_event, place, event_name);
    const struct api_object *o = object_find(api, t, t->namespaced ? ns : "", name);
    json_int_t count = old != NULL ? json_integer_value(json_object_get(old->json, "count")) : 0;
    count++;
    const char *first = old != NULL ? json_text(old->json, "firstTimestamp") : now;
    char uid[40];
    api_make_uid(uid);
    json_t *e =
        json_pack("{s:s, s:s, s:{s:s, s:s, s:s, s:s}, s:s, s:s, s:s, s:s, s:I, s:{s:s}, s:s, s:s}", "apiVersion", "v1",
                  "kind", "Event", "metadata", "name", event_name, "namespace", place, "uid",
                  old != NULL ? json_text(json_object_get(old->json, "metadata"), "uid") : uid, "creationTimestamp",
                  first, "type", type, "reason", reason, "firstTimestamp", first, "lastTimestamp", now, "count", count,
                  "source", "component", "weir", "reportingComponent", "weir", "reportingInstance", api->pod_name);
    json_set_text(e, "message", message);
    json_object_set_new(e, "involvedObject", about(o, t, ns, name));
    if (old == NULL && api->events >= API_EVENTS_MAX)
        drop_oldest_event(api);
    object_commit(api, api_type_event, place, event_name, e);
    mem_free(event_name);
    mem_free(key);
}
