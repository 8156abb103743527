/* SPDX-License-Identifier: Apache-2.0
 *
 * Writes. One at a time, in the order they came: it is evaluated against the objects as they are, what follows is
 * written to disk and synced on libuv's pool, and only then it is committed (watchers and the gateway learn of it) and
 * answered. So what was acknowledged is on disk, what is shown is on disk, and two clients never see each other's
 * halves. Reads and watches go on meanwhile.
 */
#include <stdio.h>

#include "base/log.h"
#include "conf/kinds.h"
#include "kube/api_priv.h"

struct change {
    const struct api_type *t;
    char *ns, *name;
    json_t *json;     /* NULL: it goes */
    json_t *managers; /* may be NULL */
    char *path;       /* NULL: nothing is stored */
    struct strbuf text;
    char *error;
    bool status; /* a client writes the status, and nothing else */
    bool silent; /* only who owns what changed: no new version */
};
struct write {
    struct list node;
    struct kube_api *api;
    struct http_exchange *x; /* NULL: the client is gone */
    struct api_request r;
    enum verb verb;
    json_t *body;
    char *duplicates;
    struct http_response out;
    bool failed;   /* out has the answer */
    unsigned code; /* of success */
    json_t *result;
    struct change *changes;
    size_t count;
    uv_work_t work;
};

static void write_next(struct kube_api *api);

static void change_free(struct change *c)
{
    mem_free(c->ns);
    mem_free(c->name);
    mem_free(c->path);
    mem_free(c->error);
    strbuf_free(&c->text);
    json_decref(c->json);
    json_decref(c->managers);
}

static void write_free(struct write *w)
{
    for (size_t i = 0; i < w->count; i++)
        change_free(&w->changes[i]);
    mem_free(w->changes);
    mem_free(w->duplicates);
    json_decref(w->body);
    json_decref(w->result);
    strbuf_free(&w->out.body);
    strbuf_free(&w->out.headers);
    api_request_free(&w->r);
    mem_free(w);
}

/* Answers and frees. */
static void write_answer(struct write *w)
{
    if (!w->failed && w->result != NULL)
        api_json(&w->out, w->code, json_incref(w->result));
    if (w->x != NULL)
        http_exchange_answer(w->x, &w->out);
    write_free(w);
}

static struct change *add_change(struct write *w, const struct api_type *t, const char *ns, const char *name,
                                 json_t *json)
{
    w->changes = mem_realloc(w->changes, (w->count + 1) * sizeof *w->changes);
    struct change *c = &w->changes[w->count++];
    *c = (struct change){.t = t, .ns = mem_strdup(ns), .name = mem_strdup(name), .json = json};
    return c;
}

/* ---- what an object must be before it is looked at more closely ---- */

static const char *ns_of(const struct write *w) { return w->r.ns != NULL && w->r.type->namespaced ? w->r.ns : ""; }

static bool fail(struct write *w)
{
    w->failed = true;
    return false;
}

static bool check_type(struct write *w, const json_t *object)
{
    char *wanted = api_type_version(w->r.type, w->r.version);
    const char *kind = json_text(object, "kind"), *version = json_text(object, "apiVersion");
    bool ok = strcmp(kind, w->r.type->kind) == 0 && strcmp(version, wanted) == 0;
    if (!ok)
        api_fail(&w->out, 400, "BadRequest", NULL,
                 "the API version in the data (%s, kind %s) does not match the expected one (%s, kind %s)", version,
                 kind, wanted, w->r.type->kind);
    mem_free(wanted);
    return ok || fail(w);
}

/* metadata.name and namespace agree with the URL, or are taken from it. object is an own copy with an own metadata. */
static bool check_place(struct write *w, json_t *object)
{
    json_t *metadata = json_child(object, "metadata");
    const char *name = json_text(metadata, "name"), *ns = json_text(metadata, "namespace");
    if (w->r.name != NULL && name[0] != '\0' && strcmp(name, w->r.name) != 0) {
        api_fail(&w->out, 400, "BadRequest", NULL,
                 "the name of the object (%s) does not match the name on the URL (%s)", name, w->r.name);
        return fail(w);
    }
    if (w->r.name != NULL)
        json_set_text(metadata, "name", w->r.name);
    if (!w->r.type->namespaced) {
        json_object_del(metadata, "namespace");
        return true;
    }
    if (w->r.ns == NULL) {
        api_fail(&w->out, 405, "MethodNotAllowed", NULL,
                 "the server does not allow this method on the requested resource");
        return fail(w);
    }
    if (ns[0] != '\0' && strcmp(ns, w->r.ns) != 0) {
        api_fail(&w->out, 400, "BadRequest", NULL,
                 "the namespace of the provided object does not match the namespace sent on the request");
        return fail(w);
    }
    json_set_text(metadata, "namespace", w->r.ns);
    return true;
}

/* What the server alone writes. */
static void drop_server_fields(json_t *metadata)
{
    static const char *const names[] = {"managedFields", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds",
                                        "resourceVersion"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        json_object_del(metadata, names[i]);
}

static void set_stored_version(const struct api_type *t, json_t *object)
{
    char *version = api_type_version(t, api_type_versions(t)[0]);
    json_set_text(object, "apiVersion", version);
    json_set_text(object, "kind", t->kind);
    mem_free(version);
}

static bool refuse_file(struct write *w, const struct api_object *o)
{
    if (o->file == NULL)
        return true;
    api_fail_object(&w->out, 403, "Forbidden", w->r.type, o->name,
                    "is forbidden: it comes from the file %s: edit that file", o->file);
    return fail(w);
}

static char *manager_of(const struct write *w)
{
    if (w->r.manager != NULL && w->r.manager[0] != '\0')
        return mem_strdup(w->r.manager);
    struct str agent = str_of(w->r.user_agent != NULL ? w->r.user_agent : "");
    ptrdiff_t slash = str_find(agent, '/');
    agent = slash >= 0 ? str_upto(agent, (size_t)slash) : agent;
    return agent.n > 0 ? str_dup(agent.n > 128 ? str_upto(agent, 128) : agent) : mem_strdup("unknown");
}

/* ---- create ---- */

static void generate_name(json_t *metadata)
{
    char uid[40];
    const char *base = json_text(metadata, "generateName");
    if (json_text(metadata, "name")[0] != '\0' || base[0] == '\0')
        return;
    api_make_uid(uid);
    char *name = mem_printf("%.*s%.5s", (int)strnlen(base, 248), base, uid);
    json_set_text(metadata, "name", name);
    mem_free(name);
}

/* The new object whole, or false. next is an own copy with an own metadata. managers is taken. */
static bool finish_create(struct write *w, json_t *next, json_t *managers)
{
    json_t *metadata = json_object_get(next, "metadata");
    char uid[40], now[32];
    drop_server_fields(metadata);
    api_make_uid(uid);
    api_time_text(api_now(), now);
    json_set_text(metadata, "uid", uid);
    json_set_text(metadata, "creationTimestamp", now);
    json_object_set_new(metadata, "generation", json_integer(1));
    json_object_del(next, "status");
    api_default(w->r.type, next);
    bool ok = api_validate(&w->r, next, w->duplicates, &w->out) || fail(w);
    const char *name = json_text(json_object_get(next, "metadata"), "name");
    set_stored_version(w->r.type, next);
    w->code = 201;
    if (ok && w->api->objects.count >= API_OBJECTS_MAX) {
        api_fail(&w->out, 403, "Forbidden", NULL, "there are %d objects already; no more are stored", API_OBJECTS_MAX);
        ok = fail(w);
    }
    if (ok && !w->r.dry_run)
        add_change(w, w->r.type, ns_of(w), name, json_incref(next))->managers = json_incref(managers);
    else if (ok)
        w->result = api_render(&w->r, next);
    json_decref(managers);
    return ok;
}

static bool run_create(struct write *w)
{
    if (!check_type(w, w->body))
        return false;
    json_t *next = json_copy_head(w->body);
    generate_name(json_object_get(next, "metadata"));
    bool ok = check_place(w, next);
    const json_t *metadata = json_object_get(next, "metadata"); /* one that is no object was replaced */
    const char *name = json_text(metadata, "name");
    const struct api_object *o = ok ? object_find(w->api, w->r.type, ns_of(w), name) : NULL;
    /* The Namespace that is there because something is in it may still be made. */
    bool implicit = o != NULL && o->type->conf_kind == KIND_NAMESPACE && o->path == NULL && o->file == NULL &&
                    !namespace_is_fixed(w->api, name);
    if (ok && json_text(metadata, "resourceVersion")[0] != '\0') {
        api_fail(&w->out, 400, "BadRequest", NULL, "resourceVersion should not be set on objects to be created");
        ok = fail(w);
    } else if (o != NULL && !implicit) {
        api_fail_object(&w->out, 409, "AlreadyExists", w->r.type, name,
                        o->file != NULL ? "already exists, in the file %s" : "already exists", o->file);
        ok = fail(w);
    }
    char *manager = manager_of(w);
    if (ok)
        ok = finish_create(w, next, apply_note_update(NULL, manager, NULL, w->body));
    mem_free(manager);
    json_decref(next);
    return ok;
}

/* ---- update ---- */

/* Everything but metadata and status: what generation counts. */
static bool same_meaning(const json_t *a, const json_t *b)
{
    json_t *x = json_copy((json_t *)(uintptr_t)a), *y = json_copy((json_t *)(uintptr_t)b);
    json_t *both[] = {x, y};
    for (size_t i = 0; i < 2; i++) {
        json_object_del(both[i], "metadata");
        json_object_del(both[i], "status");
    }
    bool same = json_same(x, y);
    json_decref(x);
    json_decref(y);
    return same;
}

static bool is_stale(struct write *w, const struct api_object *o, const json_t *next)
{
    const char *wanted = json_text(json_object_get(next, "metadata"), "resourceVersion");
    const char *uid = json_text(json_object_get(next, "metadata"), "uid");
    const json_t *live = json_object_get(o->json, "metadata");
    struct strbuf b = {0};
    api_type_name(w->r.type, &b);
    bool version = wanted[0] != '\0' && strcmp(wanted, json_text(live, "resourceVersion")) != 0;
    bool other = uid[0] != '\0' && strcmp(uid, json_text(live, "uid")) != 0;
    json_t *details = json_pack("{s:s, s:s, s:s}", "name", o->name, "group", o->type->group, "kind", o->type->plural);
    if (version)
        api_fail(
            &w->out, 409, "Conflict", json_incref(details),
            "Operation cannot be fulfilled on %.*s \"%s\": the object has been modified; please apply your changes to "
            "the latest version and try again",
            STR_ARG(strbuf_str(&b)), o->name);
    else if (other)
        api_fail(
            &w->out, 409, "Conflict", json_incref(details),
            "Operation cannot be fulfilled on %.*s \"%s\": Precondition failed: UID in precondition: %s, UID in object "
            "meta: %s",
            STR_ARG(strbuf_str(&b)), o->name, uid, json_text(live, "uid"));
    json_decref(details);
    strbuf_free(&b);
    return version || other;
}

static void keep_identity(const json_t *live, json_t *next)
{
    static const char *const kept[] = {"uid", "creationTimestamp", "resourceVersion", "generation"};
    const json_t *from = json_object_get(live, "metadata");
    json_t *to = json_object_get(next, "metadata");
    drop_server_fields(to);
    for (size_t i = 0; i < ARRAY_LEN(kept); i++) {
        json_t *value = json_object_get(from, kept[i]);
        if (value != NULL)
            json_object_set(to, kept[i], value);
        else
            json_object_del(to, kept[i]);
    }
}

static void keep_status(const json_t *live, json_t *next)
{
    json_t *status = json_object_get(live, "status");
    if (status != NULL)
        json_object_set(next, "status", status);
    else
        json_object_del(next, "status");
}

/* The status alone may change, or all but the status. Takes managers (NULL: made from what changed). */
static bool finish_update(struct write *w, const struct api_object *o, json_t *next, json_t *managers)
{
    bool status = w->r.sub != NULL, ok = true;
    if (status) {
        json_t *given = json_incref(json_object_get(next, "status"));
        json_object_clear(next);
        json_object_update(next, o->json);
        json_object_set(next, "metadata", json_object_get(o->json, "metadata"));
        json_object_set_new(next, "status", given != NULL ? given : json_object());
    } else {
        keep_identity(o->json, next);
        set_stored_version(w->r.type, next);
        keep_status(o->json, next);
        api_default(w->r.type, next);
        ok = api_validate(&w->r, next, w->duplicates, &w->out) || fail(w);
        json_t *metadata = json_copy(json_object_get(next, "metadata"));
        int64_t generation = json_integer_value(json_object_get(metadata, "generation"));
        if (ok && !same_meaning(o->json, next))
            json_object_set_new(metadata, "generation", json_integer(generation + 1));
        json_object_set_new(next, "metadata", metadata);
    }
    char *manager = manager_of(w);
    if (managers == NULL)
        managers = status ? json_incref(o->managers) : apply_note_update(o->managers, manager, o->json, next);
    bool same = json_same(next, o->json), owners = !json_same(managers, o->managers);
    w->code = 200;
    if (ok && (w->r.dry_run || (same && (!owners || w->verb != VERB_APPLY)))) {
        w->result = api_render(&w->r, next);
    } else if (ok) {
        struct change *c = add_change(w, o->type, o->ns, o->name, json_incref(next));
        c->managers = json_incref(managers);
        c->status = status;
        c->silent = same;
    }
    mem_free(manager);
    json_decref(managers);
    return ok;
}

static bool run_update(struct write *w)
{
    const struct api_object *o = object_find(w->api, w->r.type, ns_of(w), w->r.name);
    if (!check_type(w, w->body))
        return false;
    if (o == NULL) {
        api_fail_not_found(&w->out, w->r.type, w->r.name);
        return fail(w);
    }
    json_t *next = json_copy_head(w->body);
    bool ok = refuse_file(w, o) && check_place(w, next);
    bool versioned = json_text(json_object_get(next, "metadata"), "resourceVersion")[0] != '\0';
    if (ok && !versioned && !w->r.type->core) {
        json_t *causes =
            json_pack("[{s:s, s:s, s:s}]", "reason", "FieldValueInvalid", "message",
                      "Invalid value: 0: must be specified for an update", "field", "metadata.resourceVersion");
        json_t *details = json_pack("{s:s, s:s, s:s, s:o}", "name", o->name, "group", o->type->group, "kind",
                                    o->type->kind, "causes", causes);
        api_fail(&w->out, 422, "Invalid", details,
                 "%s.%s \"%s\" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update",
                 o->type->kind, o->type->group, o->name);
        ok = fail(w);
    }
    if (ok && is_stale(w, o, next))
        ok = fail(w);
    ok = ok && finish_update(w, o, next, NULL);
    json_decref(next);
    return ok;
}

static bool run_patch(struct write *w)
{
    const struct api_object *o = object_find(w->api, w->r.type, ns_of(w), w->r.name);
    char *error = NULL;
    if (o == NULL) {
        api_fail_not_found(&w->out, w->r.type, w->r.name);
        return fail(w);
    }
    if (!refuse_file(w, o))
        return false;
    json_t *live = api_view(&w->r, o->json);
    json_t *patched = w->verb == VERB_MERGE       ? patch_merge(live, w->body)
                      : w->verb == VERB_STRATEGIC ? patch_strategic(live, w->body, &error)
                                                  : patch_json(live, w->body, &error);
    json_decref(live);
    if (!json_is_object(patched)) {
        api_fail(&w->out, w->verb == VERB_JSON_PATCH ? 422 : 400, w->verb == VERB_JSON_PATCH ? "Invalid" : "BadRequest",
                 NULL, "%s", error != NULL ? error : "the patch must be an object");
        mem_free(error);
        json_decref(patched);
        return fail(w);
    }
    json_t *next = json_copy_head(patched);
    json_decref(patched);
    bool ok = check_type(w, next) && check_place(w, next) && (!is_stale(w, o, next) || fail(w)) &&
              finish_update(w, o, next, NULL);
    json_decref(next);
    return ok;
}

static bool run_apply(struct write *w)
{
    const struct api_object *o = object_find(w->api, w->r.type, ns_of(w), w->r.name);
    if (w->r.manager == NULL || w->r.manager[0] == '\0') {
        api_fail(&w->out, 422, "Invalid", NULL,
                 "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch");
        return fail(w);
    }
    if (!check_type(w, w->body) || (o != NULL && !refuse_file(w, o)))
        return false;
    json_t *config = json_copy_head(w->body), *causes, *out;
    bool ok = check_place(w, config);
    if (ok && o != NULL && is_stale(w, o, config))
        ok = fail(w);
    if (!ok) {
        json_decref(config);
        return false;
    }
    drop_server_fields(json_object_get(config, "metadata"));
    api_default(w->r.type, config);
    json_t *managers = o != NULL ? json_incref(o->managers) : NULL;
    char *error = NULL, *version = api_type_version(w->r.type, w->r.version);
    json_t *live = o != NULL ? api_view(&w->r, o->json) : NULL;
    out = apply_merge(live, config, &managers, w->r.manager, w->r.force, version, &causes, &error);
    json_decref(live);
    mem_free(version);
    if (out == NULL) {
        api_json(&w->out, 409, api_status_json(409, "Conflict", json_pack("{s:o}", "causes", causes), error));
        mem_free(error);
        json_decref(managers);
        ok = fail(w);
    } else {
        json_t *next = json_copy_head(out);
        json_decref(out);
        ok = o != NULL ? finish_update(w, o, next, managers) : finish_create(w, next, managers);
        json_decref(next);
    }
    json_decref(config);
    return ok;
}

/* ---- delete ---- */

static void add_removal(struct write *w, const struct api_object *o)
{
    struct change *c = add_change(w, o->type, o->ns, o->name, NULL);
    c->path = o->path != NULL ? mem_strdup(o->path) : NULL;
}

/* A Namespace goes with everything in it, or not at all. */
static bool add_contents(struct write *w, const char *ns)
{
    if (namespace_is_fixed(w->api, ns)) {
        api_fail_object(&w->out, 403, "Forbidden", w->r.type, ns, "is forbidden: this namespace may not be deleted");
        return fail(w);
    }
    MAP_EACH (e, &w->api->objects) {
        const struct api_object *o = e->value;
        if (strcmp(o->ns, ns) != 0)
            continue;
        if (o->file != NULL) {
            api_fail_object(&w->out, 403, "Forbidden", w->r.type, ns,
                            "is forbidden: %s %s in it comes from the file %s", o->type->kind, o->name, o->file);
            return fail(w);
        }
        add_removal(w, o);
    }
    return true;
}

static bool precondition_holds(struct write *w, const struct api_object *o)
{
    const json_t *wanted = json_object_get(w->body, "preconditions");
    json_t *as_object = json_pack("{s:{}}", "metadata");
    json_t *metadata = json_object_get(as_object, "metadata");
    if (json_text(wanted, "uid")[0] != '\0')
        json_set_text(metadata, "uid", json_text(wanted, "uid"));
    if (json_text(wanted, "resourceVersion")[0] != '\0')
        json_set_text(metadata, "resourceVersion", json_text(wanted, "resourceVersion"));
    bool ok = !is_stale(w, o, as_object) || fail(w);
    json_decref(as_object);
    return ok;
}

static bool run_delete(struct write *w)
{
    const struct api_object *o = object_find(w->api, w->r.type, ns_of(w), w->r.name);
    if (o == NULL) {
        api_fail_not_found(&w->out, w->r.type, w->r.name);
        return fail(w);
    }
    if (!refuse_file(w, o) || !precondition_holds(w, o))
        return false;
    if (o->type->conf_kind == KIND_NAMESPACE && !add_contents(w, o->name))
        return false;
    add_removal(w, o);
    json_t *details = json_pack("{s:s, s:s, s:s, s:s}", "name", o->name, "group", o->type->group, "kind",
                                o->type->plural, "uid", json_text(json_object_get(o->json, "metadata"), "uid"));
    w->code = 200;
    w->result = api_status_json(200, NULL, details, NULL);
    return true;
}

static bool run_delete_all(struct write *w)
{
    char *error = NULL;
    struct api_selector *s = api_selector_new(w->r.label_selector, w->r.field_selector, w->r.type, &error);
    if (s == NULL) {
        api_fail(&w->out, 400, "BadRequest", NULL, "%s", error);
        mem_free(error);
        return fail(w);
    }
    size_t n;
    struct api_object **list = object_list(w->api, w->r.type, w->r.ns, &n);
    for (size_t i = 0; i < n; i++) {
        if (!api_selector_matches(s, list[i]->json))
            continue;
        if (list[i]->file == NULL && list[i]->type->conf_kind != KIND_NAMESPACE)
            add_removal(w, list[i]);
        else
            api_warn(&w->out, list[i]->file != NULL ? "objects that come from files were left"
                                                    : "namespaces are deleted one by one");
    }
    mem_free(list);
    api_selector_free(s);
    w->code = 200;
    w->result = api_status_json(200, NULL, NULL, NULL);
    return true;
}

/* ---- disk, commit, answer ---- */

static bool evaluate(struct write *w)
{
    bool object = json_is_object(w->body), list = json_is_array(w->body);
    if (w->verb == VERB_DELETE || w->verb == VERB_DELETE_ALL ? w->body != NULL && !object
                                                             : !object && !(list && w->verb == VERB_JSON_PATCH)) {
        api_fail(&w->out, 400, "BadRequest", NULL, "the body must be an object");
        return fail(w);
    }
    switch (w->verb) {
    case VERB_CREATE: return run_create(w);
    case VERB_UPDATE: return run_update(w);
    case VERB_MERGE:
    case VERB_STRATEGIC:
    case VERB_JSON_PATCH: return run_patch(w);
    case VERB_APPLY: return run_apply(w);
    case VERB_DELETE: return run_delete(w);
    case VERB_DELETE_ALL: return run_delete_all(w);
    }
    return false;
}

static void on_disk(uv_work_t *work)
{
    struct write *w = CONTAINER_OF(work, struct write, work);
    for (size_t i = 0; i < w->count; i++) {
        struct change *c = &w->changes[i];
        if (c->path != NULL && !state_write(c->path, c->json != NULL ? strbuf_str(&c->text) : STR_NONE, &c->error))
            break;
    }
}

/* The status Weir wrote while this was on its way to disk stays. */
static json_t *with_newest_status(const struct change *c, const struct api_object *o)
{
    if (c->json == NULL || o == NULL || c->status)
        return json_incref(c->json);
    json_t *copy = json_copy(c->json);
    keep_status(o->json, copy);
    return copy;
}

static void commit(struct write *w, struct change *c)
{
    struct kube_api *api = w->api;
    struct api_object *o = object_find(api, c->t, c->ns, c->name);
    if (c->json != NULL)
        object_namespace_make(api, c->ns);
    if (!c->silent)
        o = object_commit(api, c->t, c->ns, c->name, with_newest_status(c, o));
    if (o != NULL) {
        mem_free(o->path);
        o->path = c->path != NULL ? mem_strdup(c->path) : NULL;
        mem_free(o->file);
        o->file = NULL;
        json_decref(o->managers);
        o->managers = json_incref(c->managers);
        o->client_status = c->status || (o->client_status && c->json != NULL);
        if (w->result == NULL)
            w->result = api_render(&w->r, o->json);
    }
    if (c->t->conf_kind < 0 || c->silent || c->status)
        return;
    struct strbuf text = {0};
    if (o != NULL)
        json_put(&text, o->json);
    api->o.ops->changed(api->o.arg, (enum kind)c->t->conf_kind, c->ns, c->name,
                        o != NULL ? strbuf_str(&text) : STR_NONE);
    strbuf_free(&text);
}

static void on_written(uv_work_t *work, int status)
{
    struct write *w = CONTAINER_OF(work, struct write, work);
    struct kube_api *api = w->api;
    ASSERT(status == 0);
    api->writing = NULL;
    if (api->freed) {
        write_free(w);
        if (!api->reserving)
            kube_api_free(api);
        return;
    }
    for (size_t i = 0; i < w->count; i++) {
        if (w->changes[i].error != NULL) {
            log_line(LOG_ERROR, "kube-api: %s", w->changes[i].error);
            api_fail(&w->out, 500, "InternalError", NULL, "%s", w->changes[i].error);
            fail(w);
            break;
        }
        commit(w, &w->changes[i]);
    }
    api->o.ops->settle(api->o.arg);
    write_answer(w);
    write_next(api);
}

/* False: there is an object that may not be stored. */
static bool to_disk(struct write *w)
{
    struct kube_api *api = w->api;
    for (size_t i = 0; i < w->count; i++) {
        struct change *c = &w->changes[i];
        if (c->json == NULL)
            continue;
        const struct api_object *o = object_find(api, c->t, c->ns, c->name);
        c->path = state_path(api, c->t, c->ns, c->name);
        if (!state_text(c->json, c->managers, c->status || (o != NULL && o->client_status), &c->text)) {
            api_fail(&w->out, 413, "RequestEntityTooLarge", NULL, "the object is too large to be stored");
            return fail(w);
        }
    }
    api->writing = w;
    ASSERT(uv_queue_work(&api->loop->uv, &w->work, on_disk, on_written) == 0);
    return true;
}

static void write_next(struct kube_api *api)
{
    while (api->writing == NULL && !list_is_empty(&api->writes)) {
        struct write *w = LIST_ENTRY(api->writes.next, struct write, node);
        list_remove(&w->node);
        if (!evaluate(w) || w->count == 0 || w->r.dry_run || !to_disk(w))
            write_answer(w);
    }
}

/* What is on its way to disk is done all the same. */
static void on_gone(void *owner)
{
    struct write *w = owner;
    w->x = NULL;
    if (!list_is_linked(&w->node))
        return;
    list_remove(&w->node);
    write_free(w);
}

void api_write(struct kube_api *api, struct api_request *r, enum verb verb, json_t *body, char *duplicates,
               struct http_exchange *x)
{
    struct write *w = mem_zalloc(sizeof *w);
    *w = (struct write){.api = api, .x = x, .r = *r, .verb = verb, .body = body, .duplicates = duplicates};
    *r = (struct api_request){0};
    list_init(&w->node);
    http_exchange_defer(x, on_gone, w);
    list_push_back(&api->writes, &w->node);
    write_next(api);
}

void api_write_end(struct kube_api *api)
{
    LIST_EACH (n, &api->writes) {
        list_remove(n);
        write_free(LIST_ENTRY(n, struct write, node));
    }
}
