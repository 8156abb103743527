/* SPDX-License-Identifier: Apache-2.0
 *
 * Resources from a Kubernetes cluster: a watch of every kind Weir reads (kube/watch.h) feeding the store, and of those
 * Secrets and ConfigMaps, one by one, that objects in the store name. Nothing is shown to the gateway before every kind
 * has been listed once: a route without the plugin that guards it would pass requests. The last snapshot is kept on
 * disk, so that a gateway restarts and serves while the API server is away.
 */
#ifndef WEIR_CONTROL_SOURCE_CLUSTER_H
#define WEIR_CONTROL_SOURCE_CLUSTER_H

#include "control/conditions.h"
#include "control/store.h"
#include "kube/watch.h"

struct source_cluster;
struct source_cluster_options {
    struct loop *loop;
    struct transfers *transfers;
    struct store *store;
    const char *kubeconfig;        /* NULL: see kube_client_options */
    const char *const *namespaces; /* none: all */
    size_t namespace_count;
    const char *label_selector; /* of the kinds that configure Weir, not of Services and the like; NULL */
    const char *ns;             /* the gateway's own namespace */
    const char *state_dir;      /* where the snapshot is kept; made when missing */
    void (*changed)(void *arg); /* the store changed (store_settle has been called) */
    void *arg;
};
/* Everything is borrowed for its life. NULL and *error (mem_free): no way to reach a cluster. changed never runs before
 * it returns. */
struct source_cluster *source_cluster_new(const struct source_cluster_options *o, char **error);
void source_cluster_free(struct source_cluster *s);
/* The store has what the cluster has, or had when it was last seen. Lines about what is missing, stale or left out go to
 * out (may be NULL), also when true. */
bool source_cluster_is_ready(const struct source_cluster *s, struct strbuf *out);
/* JSON object for /config. */
void source_cluster_write_json(const struct source_cluster *s, struct strbuf *out);
/* Names in the store changed by another source: Secrets and ConfigMaps that are wanted now. */
void source_cluster_follow(struct source_cluster *s);

/* Where control's conditions go: into the cluster, while this gateway is the one that writes them. */
struct status_sink source_cluster_sink(struct source_cluster *s);

/* ---- cluster_snapshot.c: the file ---- */

struct cluster_snapshot;
/* The file is of this server and selection: key. */
struct cluster_snapshot *cluster_snapshot_new(struct loop *loop, const char *directory, const char *key);
/* Waits for a write that is under way. */
void cluster_snapshot_free(struct cluster_snapshot *s);
/* Each object as watch text; false: there is no snapshot that can be used (why: *error, mem_free). */
bool cluster_snapshot_read(struct cluster_snapshot *s, void (*each)(void *arg, struct str kind, struct str text),
                           void *arg, char **error);
/* Writes text (takes it) on libuv's pool; one that comes while another is written follows it. */
void cluster_snapshot_write(struct cluster_snapshot *s, struct strbuf *text);
/* A line of the file: kind and object. */
void cluster_snapshot_add(struct strbuf *out, const char *kind, struct str object);
/* The first line; call once, first. */
void cluster_snapshot_begin(struct strbuf *out, const char *key);

#endif
