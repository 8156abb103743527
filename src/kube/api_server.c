/* SPDX-License-Identifier: Apache-2.0
 *
 * The door: every request passes the guard, is understood or refused here, and goes to who answers it. What a client
 * may size is bounded by the server (head, body, connections) before it comes here.
 */
#include <errno.h>
#include <stdio.h>

#include "base/log.h"
#include "kube/api_priv.h"

/* ---- what a request asks ---- */

static struct str media_type(const struct http_request *r)
{
    const struct header *h = headers_get(&r->msg->headers, STR("content-type"));
    struct str rest = h != NULL ? h->value : STR("");
    return rest.n > 0 ? str_trim(str_split(&rest, ';')) : rest;
}

static bool patch_verb(struct str type, const struct api_type *t, enum verb *verb)
{
    if (str_is(type, "application/merge-patch+json"))
        *verb = VERB_MERGE;
    else if (str_is(type, "application/json-patch+json"))
        *verb = VERB_JSON_PATCH;
    else if (str_is(type, "application/apply-patch+yaml"))
        *verb = VERB_APPLY;
    else if (str_is(type, "application/strategic-merge-patch+json") && t->core)
        *verb = VERB_STRATEGIC;
    else
        return false;
    return true;
}

/* None at all is JSON: kubectl 1.20 sends what it creates of core kinds so. A page in a browser could too, but not
 * without an Origin, which the guard refuses; the types that forms have are no body types. */
static bool is_body_type(struct str type)
{
    return type.n == 0 || str_is(type, "application/json") || str_is(type, "application/yaml") ||
           str_is(type, "application/vnd.kubernetes.protobuf");
}

static void fail_media(struct http_response *out, const char *accepted)
{
    api_fail(out, 415, "UnsupportedMediaType", NULL,
             "the body of the request was in an unknown format - accepted media types include: %s", accepted);
}

/* The method as a verb; false: out says why not. */
static bool verb_of(const struct http_request *h, const struct api_request *r, enum verb *verb,
                    struct http_response *out)
{
    struct str type = media_type(h);
    bool named = r->name != NULL, status = r->sub != NULL;
    if (str_is(h->method, "POST") && !named)
        *verb = VERB_CREATE;
    else if (str_is(h->method, "PUT") && named)
        *verb = VERB_UPDATE;
    else if (str_is(h->method, "DELETE") && !status)
        *verb = named ? VERB_DELETE : VERB_DELETE_ALL;
    else if (!str_is(h->method, "PATCH") || !named) {
        api_fail(out, 405, "MethodNotAllowed", NULL, "the server does not allow this method on the requested resource");
        return false;
    } else if (!patch_verb(type, r->type, verb)) {
        fail_media(out, r->type->core ? "application/json-patch+json, application/merge-patch+json, "
                                        "application/strategic-merge-patch+json, application/apply-patch+yaml"
                                      : "application/json-patch+json, application/merge-patch+json, "
                                        "application/apply-patch+yaml");
        return false;
    }
    if (r->type->conf_kind < 0) {
        api_fail(out, 405, "MethodNotAllowed", NULL, "%s are read-only here: this gateway makes them", r->type->plural);
        return false;
    }
    bool deletes = *verb == VERB_DELETE || *verb == VERB_DELETE_ALL;
    bool patches = str_is(h->method, "PATCH");
    if (!patches && (h->body.n > 0 || !deletes) && !is_body_type(type)) {
        fail_media(out, "application/json, application/yaml, application/vnd.kubernetes.protobuf");
        return false;
    }
    return true;
}

static bool read_body(const struct http_request *h, json_t **body, char **duplicates, struct http_response *out)
{
    char *error = NULL;
    *body = NULL;
    *duplicates = NULL;
    if (h->body.n == 0)
        return true;
    *body = str_is(media_type(h), "application/vnd.kubernetes.protobuf") ? protobuf_object(h->body, &error)
                                                                         : json_of_text(h->body, &error, duplicates);
    if (*body == NULL)
        api_fail(out, 400, "BadRequest", NULL, "the body of the request could not be read: %s", error);
    mem_free(error);
    return *body != NULL;
}

static void write_request(struct kube_api *api, const struct http_request *h, struct api_request *r,
                          struct http_response *out, bool *deferred)
{
    enum verb verb;
    json_t *body = NULL;
    char *duplicates = NULL;
    /* DELETE with the body of another group's kind and protobuf options: its options are all optional. */
    if (!verb_of(h, r, &verb, out) || !read_body(h, &body, &duplicates, out))
        return;
    const struct header *agent = headers_get(&h->msg->headers, STR("user-agent"));
    r->user_agent = agent != NULL ? str_dup(agent->value) : NULL;
    if (json_is_object(body) && json_is_array(json_object_get(body, "dryRun")) &&
        json_array_size(json_object_get(body, "dryRun")) > 0)
        r->dry_run = true; /* DeleteOptions */
    *deferred = true;
    api_write(api, r, verb, body, duplicates, h->exchange);
}

static bool sub_is_served(const struct api_request *r)
{
    if (r->sub == NULL)
        return true;
    bool log = r->type == api_type_pod && strcmp(r->sub, "log") == 0;
    return log || (r->type->conf_kind >= 0 && strcmp(r->sub, "status") == 0);
}

static void resource_request(struct kube_api *api, const struct http_request *h, struct api_request *r,
                             struct http_response *out, bool *deferred)
{
    const struct header *accept = headers_get(&h->msg->headers, STR("accept"));
    bool get = str_is(h->method, "GET") || str_is(h->method, "HEAD");
    bool log = get && r->sub != NULL && strcmp(r->sub, "log") == 0;
    if (!sub_is_served(r)) {
        api_fail(out, 404, "NotFound", NULL, "the server could not find the requested resource");
        return;
    }
    if (!api_query_parse(h->query, r, out) ||
        (!log && !api_accept_parse(accept != NULL ? accept->value : STR_NONE, r, out)))
        return;
    if (!get)
        write_request(api, h, r, out, deferred);
    else if (log)
        api_log(api, r, h->query, h->exchange, out, deferred);
    else if (r->watch)
        api_watch(api, r, h->exchange, out, deferred);
    else if (r->name != NULL)
        api_get(api, r, out);
    else
        api_list(api, r, out);
}

/* May this user do that? Whoever got here may. */
static bool access_review(const struct http_request *h, struct http_response *out)
{
    if (!str_is(h->method, "POST") || !str_is(h->path, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"))
        return false;
    api_json(out, 201,
             json_pack("{s:s, s:s, s:{}, s:{}, s:{s:b}}", "kind", "SelfSubjectAccessReview", "apiVersion",
                       "authorization.k8s.io/v1", "metadata", "spec", "status", "allowed", 1));
    return true;
}

static void handle(void *arg, const struct http_request *h, struct http_response *out)
{
    struct kube_api *api = arg;
    struct api_request r = {0};
    bool deferred = false;
    strbuf_addz(&out->headers, "cache-control: no-cache, private\nx-content-type-options: nosniff\n");
    if (!api_guard(api, h, out))
        return;
    if (api_discovery_path(h->path))
        api_discovery(api, h, out);
    else if (str_starts(h->path, STR("/openapi/")))
        api_openapi(api, h, out);
    else if (access_review(h, out))
        ;
    else if (api_path_parse(h->path, &r))
        resource_request(api, h, &r, out, &deferred);
    else
        api_fail(out, 404, "NotFound", json_object(), "the server could not find the requested resource");
    api_request_free(&r);
}

/* ---- life ---- */

static void tell_stored(struct kube_api *api)
{
    MAP_EACH (e, &api->objects) {
        const struct api_object *o = e->value;
        if (o->path == NULL)
            continue;
        struct strbuf text = {0};
        json_put(&text, o->json);
        api->o.ops->changed(api->o.arg, (enum kind)o->type->conf_kind, o->ns, o->name, strbuf_str(&text));
        strbuf_free(&text);
    }
}

static void make_fixed_objects(struct kube_api *api)
{
    static const char *const namespaces[] = {"default", "kube-system", "istio-system"};
    for (size_t i = 0; i < ARRAY_LEN(namespaces); i++)
        object_namespace_make(api, namespaces[i]);
    object_namespace_make(api, api->pod_ns);
    struct strbuf names = {0};
    MAP_EACH (e, &api->objects) {
        const struct api_object *o = e->value;
        if (o->type->namespaced)
            strbuf_printf(&names, "%s\n", o->ns);
    }
    struct str rest = strbuf_str(&names);
    while (rest.p != NULL && rest.n > 0) {
        char *ns = str_dup(str_split(&rest, '\n'));
        object_namespace_make(api, ns);
        mem_free(ns);
    }
    strbuf_free(&names);
    api_crds_make(api);
    api_pod_make(api, false, "starting");
}

static bool listen_on(struct kube_api *api, char **error)
{
    char text[ADDR_TEXT_MAX];
    addr_format(&api->o.addr, true, text);
    int failed = addr_port(&api->o.addr) != 0 ? listener_probe(&api->o.addr) : 0;
    int fd = failed == 0 ? listener_open(&api->o.addr, 128) : -1;
    if (fd < 0) {
        *error = mem_printf("kube-api: cannot listen on %s: %s (--kube-api ADDR chooses another address)", text,
                            strerror(failed != 0 ? failed : errno));
        return false;
    }
    socklen_t n = sizeof api->addr.u;
    api->addr = api->o.addr;
    (void)getsockname(fd, &api->addr.u.sa, &n);
    struct http_server_options o = {.max_connections = API_CONNECTIONS_MAX,
                                    .max_body = API_BODY_MAX,
                                    .idle_ms = 90000,
                                    .handle = handle,
                                    .arg = api};
    api->server = http_server_new(api->loop, fd, &o);
    addr_format(&api->addr, true, text);
    log_line(LOG_INFO, "kubernetes API on http://%s, objects in %s", text, api->state_dir);
    return true;
}

struct kube_api *kube_api_new(struct loop *loop, const struct kube_api_options *o, char **error)
{
    struct kube_api *api = mem_zalloc(sizeof *api);
    api->loop = loop;
    api->o = *o;
    api->lock_fd = -1;
    api->state_dir = mem_strdup(o->state_dir);
    api->pod_name = mem_strdup(o->pod_name);
    api->pod_ns = mem_strdup(o->pod_ns);
    list_init(&api->watchers);
    list_init(&api->logs);
    list_init(&api->writes);
    *error = NULL;
    if (state_load(api, error)) {
        make_fixed_objects(api);
        api->first_rv = api->rv;
        tell_stored(api);
        if (listen_on(api, error))
            return api;
    }
    kube_api_free(api);
    return NULL;
}

void kube_api_free(struct kube_api *api)
{
    if (!api->freed) {
        api_watch_end(api);
        api_log_end(api);
        if (api->server != NULL)
            http_server_free(api->server);
        api->server = NULL;
        api_write_end(api);
        api->freed = true;
    }
    if (api->writing != NULL || api->reserving)
        return; /* on_written and on_reserved come back here */
    for (size_t i = 0; i < API_RING; i++) {
        json_decref(api->ring[i].old);
        json_decref(api->ring[i].now);
    }
    MAP_EACH (e, &api->objects)
        object_free(e->value);
    map_free(&api->objects);
    state_close(api);
    mem_free(api->state_dir);
    mem_free(api->pod_name);
    mem_free(api->pod_ns);
    mem_free(api);
}

uint16_t kube_api_port(const struct kube_api *api) { return addr_port(&api->addr); }

/* ---- what the gateway tells ---- */

bool kube_api_owns(const struct kube_api *api, enum kind kind, const char *ns, const char *name)
{
    const struct api_object *o = object_find(api, api_type_of(kind), ns, name);
    return o != NULL && o->path != NULL;
}

/* An object of a file gets what a server would have given it. */
static json_t *file_object(const struct api_type *t, const char *ns, const char *name, json_t *j,
                           const struct api_object *old)
{
    json_t *next = json_copy_head(j), *metadata = json_object_get(next, "metadata");
    const json_t *was = old != NULL ? json_object_get(old->json, "metadata") : NULL;
    char uid[40], now[32], *version = api_type_version(t, api_type_versions(t)[0]);
    api_make_uid(uid);
    api_time_text(api_now(), now);
    json_set_text(next, "apiVersion", version);
    json_set_text(metadata, "name", name);
    if (t->namespaced)
        json_set_text(metadata, "namespace", ns);
    json_set_text(metadata, "uid", was != NULL ? json_text(was, "uid") : uid);
    if (json_text(metadata, "creationTimestamp")[0] == '\0')
        json_set_text(metadata, "creationTimestamp", was != NULL ? json_text(was, "creationTimestamp") : now);
    int64_t generation = was != NULL ? json_integer_value(json_object_get(was, "generation")) : 0;
    json_object_set_new(metadata, "generation", json_integer(generation + 1));
    json_object_del(metadata, "managedFields");
    json_object_del(next, "status");
    api_default(t, next);
    if (old != NULL && json_object_get(old->json, "status") != NULL)
        json_object_set(next, "status", json_object_get(old->json, "status"));
    mem_free(version);
    return next;
}

void kube_api_set_file_object(struct kube_api *api, enum kind kind, const char *ns, const char *name, const char *json,
                              const char *file)
{
    const struct api_type *t = api_type_of(kind);
    struct api_object *o = object_find(api, t, ns, name);
    char *error = NULL, *duplicate = NULL;
    if (o != NULL && o->path != NULL)
        return;
    if (json == NULL) {
        if (o != NULL && o->file != NULL)
            object_commit(api, t, ns, name, NULL);
        if (kind == KIND_NAMESPACE)
            object_namespace_make(api, name); /* something may still be in it */
        return;
    }
    json_t *j = json_of_text(str_of(json), &error, &duplicate);
    if (json_is_object(j)) {
        object_namespace_make(api, ns);
        o = object_commit(api, t, ns, name, file_object(t, ns, name, j, o));
        mem_free(o->file);
        o->file = mem_strdup(file);
    }
    json_decref(j);
    mem_free(error);
    mem_free(duplicate);
}

void kube_api_set_status(struct kube_api *api, enum kind kind, const char *ns, const char *name, const char *json)
{
    struct api_object *o = object_find(api, api_type_of(kind), ns, name);
    char *error = NULL, *duplicate = NULL;
    json_t *status = o != NULL ? json_of_text(str_of(json), &error, &duplicate) : NULL;
    if (status != NULL && !json_same(status, json_object_get(o->json, "status"))) {
        json_t *next = json_copy(o->json);
        json_object_set(next, "status", status);
        o->client_status = false;
        object_commit(api, o->type, ns, name, next);
    }
    json_decref(status);
    mem_free(error);
    mem_free(duplicate);
}
