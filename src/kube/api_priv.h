/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files of the API server share: the kinds it serves, a request as it was understood, the objects and the
 * recent past of their changes.
 *
 *      http_server -> api_server.c (guard, route) -> api_read.c            get, list, discovery, OpenAPI
 *                                                 -> api_watch.c           streams of changes
 *                                                 -> api_write.c           one write at a time: evaluate, disk, commit
 *                                                 -> api_log.c             the Pod's log
 *      api_objects.c holds the objects; every change passes object_commit, which tells the watchers.
 */
#ifndef WEIR_KUBE_API_PRIV_H
#define WEIR_KUBE_API_PRIV_H

#include "base/list.h"
#include "base/map.h"
#include "kube/api.h"
#include "kube/api_json.h"
#include "web/http_server.h"

enum {
    API_BODY_MAX = 3 * 1024 * 1024,   /* as a real server's */
    API_CONNECTIONS_MAX = 128,        /* watches and followed logs take one each */
    API_RING = 2048,                  /* changes that a watch may be behind */
    API_RING_BYTES = 64 * 1024 * 1024, /* and what they may weigh */
    API_QUEUED_MAX = 4 * 1024 * 1024, /* bytes a watcher may leave untaken, or an end is made */
    API_EVENTS_MAX = 500,             /* Events kept */
    API_OBJECTS_MAX = 50000,
};

/* ---- kinds ---- */

struct api_type;
struct api_column {
    const char *name, *type; /* string, integer, date */
    bool wide;
};
struct api_type {
    const char *kind, *plural, *singular, *short_names /* space-separated */, *group;
    const char *const *versions; /* NULL: those of the kind's reader; use api_type_versions */
    const char *categories;      /* space-separated */
    int conf_kind;               /* enum kind, or -1: made by the server, read-only */
    bool namespaced;
    bool core; /* built into kubectl: strategic merge patches, protobuf bodies */
    const struct api_column *columns;
    void (*cells)(const json_t *object, json_t *row); /* all of columns but Name and Age, which have places */
};
extern const struct api_type api_types[];
extern const size_t api_type_count;
const struct api_type *api_type_of(enum kind kind);
const struct api_type *api_type_find(struct str group, struct str plural);
/* Served, NULL-terminated; the first is the one that is stored. */
const char *const *api_type_versions(const struct api_type *t);
bool api_type_serves(const struct api_type *t, struct str version);
/* "wasmplugins.extensions.istio.io", "secrets": how messages call a resource. */
void api_type_name(const struct api_type *t, struct strbuf *out);
/* "extensions.istio.io/v1alpha1", "v1". */
char *api_type_version(const struct api_type *t, const char *version);
extern const struct api_type *const api_type_pod, *const api_type_event, *const api_type_crd;

/* ---- requests ---- */

enum api_format { FORMAT_OBJECT, FORMAT_TABLE, FORMAT_PARTIAL };
enum validation { VALIDATE_WARN, VALIDATE_STRICT, VALIDATE_IGNORE };
/* Everything is owned (mem_free); texts are NULL when not given. */
struct api_request {
    const struct api_type *type;
    char *version, *ns, *name, *sub; /* sub: subresource, NULL for the object */
    enum api_format format;
    char meta_version[8]; /* of Table and PartialObjectMetadata: v1, v1beta1 */
    char *label_selector, *field_selector, *resource_version, *resource_match, *continue_token, *include, *manager;
    uint64_t limit, timeout_s;
    bool watch, bookmarks, initial_events, dry_run, force;
    enum validation validation;
    char *user_agent;
};
/* Cuts "/apis/G/V/namespaces/NS/PLURAL/NAME/SUB" up; false: no such path here. */
bool api_path_parse(struct str path, struct api_request *r);
/* Query and Accept; false: out says what is wrong. */
bool api_query_parse(struct str query, struct api_request *r, struct http_response *out);
bool api_accept_parse(struct str accept, struct api_request *r, struct http_response *out);
void api_request_free(struct api_request *r);
/* The decoded value of a query parameter (mem_free); NULL when it is not there. */
char *api_query_get(struct str query, const char *name);
/* "%2F" and (plus) '+' decoded; NULL when the escapes are bad or it holds NUL. */
char *api_percent_decode(struct str s, bool plus);

/* ---- answers ---- */

void api_json(struct http_response *out, unsigned status, json_t *body /* taken */);
/* A Status of failure; details may be NULL and is taken. */
void api_fail(struct http_response *out, unsigned code, const char *reason, json_t *details, const char *fmt, ...)
    PRINTF_LIKE(5, 6);
/* NotFound and the like about one object, with name, group and kind in details. */
void api_fail_object(struct http_response *out, unsigned code, const char *reason, const struct api_type *t,
                     const char *name, const char *fmt, ...) PRINTF_LIKE(6, 7);
void api_fail_not_found(struct http_response *out, const struct api_type *t, const char *name);
json_t *api_status_json(unsigned code, const char *reason, json_t *details, const char *message);
/* A warning that kubectl prints. */
void api_warn(struct http_response *out, const char *text);
/* "2026-11-23T15:00:00Z", now or of a time. */
void api_time_text(int64_t seconds, char out[32]);
int64_t api_now(void);

/* ---- selectors ---- */

struct api_selector;
/* NULL and *error (mem_free) when one of them is wrong; both may be NULL. */
struct api_selector *api_selector_new(const char *labels, const char *fields, const struct api_type *t, char **error);
bool api_selector_matches(const struct api_selector *s, const json_t *object);
void api_selector_free(struct api_selector *s);

/* ---- objects ---- */

struct api_object {
    const struct api_type *type;
    char *ns, *name;
    json_t *json;     /* whole; never changed, only replaced */
    json_t *managers; /* owner sets (api_apply.c); may be NULL */
    char *path;       /* of its file in the state directory; NULL: not stored */
    char *file;       /* the operator's file it comes from: read-only */
    bool client_status; /* a client wrote the status last: it is stored */
    uint64_t rv;
};
enum api_change { CHANGE_ADDED, CHANGE_MODIFIED, CHANGE_DELETED };
struct api_past {
    uint64_t rv;
    enum api_change change;
    const struct api_type *type;
    size_t bytes;
    json_t *old, *now; /* of a deletion: now is the last state, with the deletion's version */
};
struct kube_api {
    struct loop *loop;
    struct kube_api_options o;
    struct addr addr;
    struct http_server *server;
    int lock_fd;
    char *state_dir, *pod_name, *pod_ns;
    struct map objects; /* "plural.group/ns/name" -> struct api_object */
    uint64_t rv;        /* of the newest change */
    uint64_t rv_limit;  /* the counter's file says that no version from here on was given out */
    uint64_t first_rv;  /* of the changes this process made: older ones are not known */
    struct api_past ring[API_RING];
    uint64_t ring_first, ring_next; /* oldest kept, next to be written; both count up */
    size_t ring_bytes;
    size_t events;
    struct list watchers, logs, writes;
    struct api_log_wake *log_wake; /* NULL: nobody ever followed */
    struct write *writing;
    bool freed;
    bool reserving;
};
struct api_object *object_find(const struct kube_api *api, const struct api_type *t, const char *ns, const char *name);
/* What an object becomes: json (taken) replaces what is there (NULL: it goes), gets the next resourceVersion, and the
 * watchers hear of it. Returns the object (NULL when it went). */
struct api_object *object_commit(struct kube_api *api, const struct api_type *t, const char *ns, const char *name,
                                 json_t *json);
/* Sorted by namespace and name; mem_free. ns NULL: of all. */
struct api_object **object_list(const struct kube_api *api, const struct api_type *t, const char *ns, size_t *n);
void object_free(struct api_object *o);
/* Does the namespace exist, be it only because something is in it? */
bool object_namespace_is_there(const struct kube_api *api, const char *ns);
/* Makes the Namespace object if there is none. */
void object_namespace_make(struct kube_api *api, const char *ns);
bool namespace_is_fixed(const struct kube_api *api, const char *ns);
void api_make_uid(char out[40]);

/* ---- state directory (api_state.c) ---- */

/* Path of an object's file, mem_free. */
char *state_path(const struct kube_api *api, const struct api_type *t, const char *ns, const char *name);
/* What the file holds. False: more than is read again at the next start. */
bool state_text(const json_t *object, const json_t *managers, bool with_status, struct strbuf *out);
/* Blocks (pool): writes, or removes when text.p is NULL; durable when it returns true. */
bool state_write(const char *path, struct str text, char **error);
/* At start; blocks. Objects go into api->objects; damaged files are moved aside and logged. */
bool state_load(struct kube_api *api, char **error);
/* Keeps the counter's file ahead of what is given out. */
void state_reserve(struct kube_api *api);
void state_close(struct kube_api *api);

/* ---- reading ---- */

void api_get(struct kube_api *api, const struct api_request *r, struct http_response *out);
void api_list(struct kube_api *api, const struct api_request *r, struct http_response *out);
/* The object in the version that was asked for (new reference). */
json_t *api_view(const struct api_request *r, const json_t *object);
/* One object as the request wants it: itself, a Table of one row, PartialObjectMetadata. */
json_t *api_render(const struct api_request *r, const json_t *object);
json_t *api_table(const struct api_request *r, json_t *const *objects, size_t n, const char *rv, const char *more,
                  size_t remaining);
void api_discovery(struct kube_api *api, const struct http_request *r, struct http_response *out);
bool api_discovery_path(struct str path);
/* Without a slash at its end. */
struct str api_path_trim(struct str path);
/* OpenAPI schema of a kind, with metadata. */
json_t *api_schema(const struct api_type *t);
void api_openapi(struct kube_api *api, const struct http_request *r, struct http_response *out);
/* The CRDs of the kinds that are CRDs elsewhere, as objects. */
void api_crds_make(struct kube_api *api);

/* ---- watching ---- */

void api_watch(struct kube_api *api, struct api_request *r /* taken */, struct http_exchange *x,
               struct http_response *out, bool *deferred);
/* Changes after this version are known. */
uint64_t api_oldest_version(const struct kube_api *api);
void api_watch_tell(struct kube_api *api, const struct api_past *past);
void api_watch_end(struct kube_api *api);

/* ---- writing ---- */

enum verb { VERB_CREATE, VERB_UPDATE, VERB_MERGE, VERB_STRATEGIC, VERB_APPLY, VERB_JSON_PATCH, VERB_DELETE,
            VERB_DELETE_ALL };
/* Takes r and body (may be NULL: DELETE). Answers by the exchange, later. */
void api_write(struct kube_api *api, struct api_request *r, enum verb verb, json_t *body, char *duplicates,
               struct http_exchange *x);
void api_write_end(struct kube_api *api);
/* Checks an object along its schema; unknown fields are refused, cut with a warning, or cut, as the request wants. False:
 * out has the failure. */
bool api_validate(const struct api_request *r, json_t *object, const char *duplicates, struct http_response *out);
/* What a typed kind gets when it is written: a Secret's stringData, a Service's defaults. */
void api_default(const struct api_type *t, json_t *object);

/* api_patch.c: the patched object (new), or NULL and *error (mem_free). */
json_t *patch_merge(const json_t *object, const json_t *patch);
json_t *patch_strategic(const json_t *object, const json_t *patch, char **error);
json_t *patch_json(const json_t *object, const json_t *patch, char **error);

/* api_apply.c: server-side apply. Managers: [{"manager","operation","time","fields":{...}}]. */
json_t *apply_merge(const json_t *live, const json_t *config, json_t **managers, const char *manager, bool force,
                    const char *api_version, json_t **causes, char **error);
/* After any other write: what changed belongs to this manager now. */
json_t *apply_note_update(json_t *managers, const char *manager, const json_t *old, const json_t *now);

/* api_protobuf.c: the object in a "k8s\0" envelope as JSON; NULL and *error (mem_free). */
json_t *protobuf_object(struct str body, char **error);

/* ---- the Pod and its log, Events ---- */

void api_pod_make(struct kube_api *api, bool ready, const char *why);
void api_log(struct kube_api *api, const struct api_request *r, struct str query, struct http_exchange *x,
             struct http_response *out, bool *deferred);
void api_log_end(struct kube_api *api);

/* ---- guard ---- */

/* Host, Origin, Sec-Fetch-Site, the peer's user; false: out has the refusal. */
bool api_guard(struct kube_api *api, const struct http_request *r, struct http_response *out);
/* Lines of /proc/net/tcp or tcp6: the owner of the socket whose own end is peer and whose other end is local. False: no
 * such socket, or one that nobody holds any more (its uid would read 0). */
bool peer_find(struct str table, const struct addr *peer, const struct addr *local, unsigned *uid);

#endif
