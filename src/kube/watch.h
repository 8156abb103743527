/* SPDX-License-Identifier: Apache-2.0
 *
 * One kind of a cluster, or of one namespace of it, kept in step: LIST page by page, then WATCH from the list's
 * resourceVersion, and again for as long as it lives. Objects are told as they change, one by one, as JSON text with
 * apiVersion and kind; what only the server or a status writer changed (status, managedFields, resourceVersion) is no
 * change.
 *
 * What makes it hard is what goes wrong: a resourceVersion that is too old (410, as an answer or as an event) means a
 * list and a comparison, whose difference is told as deletions; a connection that died in silence; a kind that is not
 * installed yet; an object too large to take, which must stop none of the others.
 *
 * Source: Kubernetes API concepts (efficient detection of changes, chunked lists).
 */
#ifndef WEIR_KUBE_WATCH_H
#define WEIR_KUBE_WATCH_H

#include "base/map.h"
#include "kube/client.h"

enum { KUBE_OBJECT_MAX = 4 * 1024 * 1024 }; /* etcd's default is 1.5 MiB */

struct kube_kind {
    const char *kind, *plural, *group; /* group "" is core */
    const char *versions[4];           /* NULL-terminated, the first one served is taken */
    bool namespaced;
};

struct kube_object {
    struct str text;       /* without resourceVersion, managedFields and status */
    const char *ns, *name; /* ns "" for cluster-scoped kinds */
    const char *uid, *resource_version;
    struct str status; /* JSON; empty when there is none */
};

struct kube_watch;
struct kube_watch_ops {
    /* New or changed; text has the resourceVersion too. */
    void (*set)(void *arg, struct kube_watch *w, const struct kube_object *o, struct str text);
    void (*removed)(void *arg, struct kube_watch *w, const char *ns, const char *name);
    /* Its state is another, or a burst of changes has been told. */
    void (*told)(void *arg, struct kube_watch *w);
};
/* Copied; kind is borrowed. */
struct kube_watch_options {
    struct loop *loop;
    struct kube_client *client;
    const struct kube_kind *kind;
    const char *ns;                              /* NULL: all */
    const char *label_selector, *field_selector; /* NULL: none */
    const struct kube_watch_ops *ops;
    void *arg;
};

enum kube_watch_phase {
    KUBE_WATCH_STARTING, /* nothing is known yet */
    KUBE_WATCH_LIVE,
    KUBE_WATCH_STALE,  /* what is known may be old: the last attempt failed */
    KUBE_WATCH_ABSENT, /* the kind is not installed; asked again now and then */
    KUBE_WATCH_REFUSED /* 403; asked again now and then */
};
struct kube_watch_state {
    enum kube_watch_phase phase;
    const char *problem; /* of the last attempt; NULL */
    uint64_t since_ms;   /* loop time of the phase's beginning */
    size_t objects;
    uint64_t skipped; /* objects that were too large, or no objects */
    uint64_t lists;   /* that were read to their end */
    bool settled;     /* a list has succeeded, or the server has said that there is nothing to list */
};

/* Begins at once. Callbacks never run before it returns, and must not free the watch. */
struct kube_watch *kube_watch_new(const struct kube_watch_options *o);
void kube_watch_free(struct kube_watch *w);
const struct kube_kind *kube_watch_kind(const struct kube_watch *w);
struct kube_watch_state kube_watch_state(const struct kube_watch *w);
const char *kube_phase_name(enum kube_watch_phase phase);
/* The version of the API in use: "v1". */
const char *kube_watch_version(const struct kube_watch *w);
/* Puts an object of an earlier life in, as text that set() gave; the first list corrects what is wrong. Does nothing
 * once a list has succeeded. False: text is no object. */
bool kube_watch_restore(struct kube_watch *w, struct str text);
bool kube_watch_find(const struct kube_watch *w, const char *ns, const char *name, struct kube_object *out);
/* Each object, with the text that set() gave. */
void kube_watch_each(const struct kube_watch *w,
                     void (*fn)(void *arg, const struct kube_watch *w, const struct kube_object *o, struct str text),
                     void *arg);
/* Path of the objects of a kind: "/apis/GROUP/VERSION/namespaces/NS/PLURAL/NAME"; ns and name may be NULL. */
void kube_path(struct strbuf *out, const struct kube_kind *kind, const char *version, const char *ns, const char *name);

/* ---- for tests: the stream of a watch ---- */

/* Cuts a stream into lines of at most KUBE_OBJECT_MAX bytes. */
struct kube_lines {
    struct strbuf part;
    bool skipping;
};
/* Each whole line goes to `line`, without its end; one that is too long goes to `skipped` with its first bytes. False
 * from line: the rest is dropped, and false is returned. */
bool kube_lines_feed(struct kube_lines *l, struct str bytes, bool (*line)(void *arg, struct str text),
                     void (*skipped)(void *arg, struct str begin), void *arg);

/* One object of a list or an event, taken apart. Everything owned. */
struct kube_parsed {
    struct strbuf text; /* as kube_object.text */
    size_t version_at;  /* where the resourceVersion member goes */
    char *ns, *name, *uid, *resource_version;
    struct str status; /* borrowed from the object */
};
/* False: no object with a name. api_version and kind count when the object does not say them itself. */
bool kube_parse(struct str object, const char *api_version, const char *kind, struct kube_parsed *out);
void kube_parsed_free(struct kube_parsed *p);

#endif
