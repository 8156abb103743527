/* SPDX-License-Identifier: Apache-2.0
 *
 * Clusters of one worker: named sets of endpoints, each with a pool of connections. They live outside the snapshot:
 * endpoints and DNS answers are small messages, and every runtime uses the table as it is now. A cluster is known by
 * its key:
 *      "<namespace>/<service>:<port>"            a Service
 *      "<namespace>/<entry>/<host>:<port>"       a ServiceEntry host
 * and by the names filters call it with (cluster_find).
 */
#ifndef WEIR_PROXY_CLUSTER_H
#define WEIR_PROXY_CLUSTER_H

#include "base/list.h"
#include "base/map.h"
#include "io/conn.h"

struct endpoint_conf {
    struct addr addr;
    uint32_t weight; /* at least 1 */
};

/* One endpoint of a cluster on this worker; it outlives its removal while connections or streams use it: whoever keeps
 * a pointer over a turn of the loop (a connection, a stream, a waiting request) holds a reference. */
struct endpoint {
    struct addr addr;
    uint32_t weight, active;
    uint32_t refs; /* its users', and one of the cluster's while it is listed: endpoint_ref, endpoint_unref */
    bool removed;  /* not in the cluster any more: nobody new may use it, idle connections are to be closed */
    char text[ADDR_TEXT_MAX];
    struct list idle; /* struct up: reusable connections, most recent first */
    struct list busy;
    struct list waiting;    /* struct up_request in line for a connection; each has a reference */
    struct loop_task serve; /* the pool's: serves those in line */
    uint32_t idle_count, conn_count;
    struct cluster *cluster;
    int64_t current_weight; /* smooth weighted round robin */
};

struct cluster_table;
/* Whoever keeps a pointer over a turn of the loop (a stream, a callout) holds a reference, and so do its endpoints, its
 * other names, and control's word that it is there (from the first cluster_update to cluster_gone). It is freed with
 * the last of them. */
struct cluster {
    char *key;
    uint32_t refs;
    bool told; /* the reference of cluster_update */
    struct cluster_table *table;
    struct endpoint **endpoints; /* those not removed */
    size_t count;
    size_t next; /* round robin while all weights are equal */
    bool equal_weights;
    uint64_t chosen;
    uint32_t pending; /* who waits for a connection: one that is being made, or in line */
    bool known;       /* endpoints were told at least once */
};

/* Zero-initialise to start. */
struct cluster_table {
    struct map by_key;
    struct map aliases; /* other names -> struct cluster */
    /* The pool's: close the idle connections of e, which has just been removed (busy ones go when their exchange ends).
     * Called from cluster_update while the cluster still holds its reference, so that e stays valid through the call.
     * May be NULL. */
    void (*on_endpoint_removed)(struct endpoint *e);
};
/* Creates it when it is new. Never NULL. Borrowed: see struct cluster. */
struct cluster *cluster_get(struct cluster_table *t, struct str key);
void cluster_ref(struct cluster *c);
void cluster_unref(struct cluster *c);
/* The new truth; endpoints that stay keep their connections. */
void cluster_update(struct cluster *c, const struct endpoint_conf *endpoints, size_t count);
/* No resource declares it any more: its endpoints go, and itself when nobody uses it. */
void cluster_gone(struct cluster *c);
/* Smooth weighted round robin; NULL when there is none. Skips `avoid` (an endpoint that just failed) when another is
 * there. */
struct endpoint *cluster_choose(struct cluster *c, const struct endpoint *avoid);
/* A name a filter may call: key, host:port, Istio's "outbound|<port>|<subset>|<host>",
 * "<service>.<namespace>.svc.cluster.local:<port>", ... as registered by cluster_alias. NULL when unknown. */
struct cluster *cluster_find(struct cluster_table *t, struct str name);
/* A reference that keeps e. */
void endpoint_ref(struct endpoint *e);
/* Gives one back; a removed endpoint is freed with the last (its lists must be empty by then). */
void endpoint_unref(struct endpoint *e);
void cluster_alias(struct cluster_table *t, struct str name, struct cluster *c);
void cluster_clear_aliases(struct cluster_table *t);
/* Every endpoint must be idle and without users. */
void cluster_table_free(struct cluster_table *t);

/* All names under which filters may call a cluster (for control, which sends them along): appends to a NUL-separated
 * list. */
void cluster_names_of_service(const char *ns, const char *name, uint16_t port, struct strbuf *out);
void cluster_names_of_host(const char *host, uint16_t port, struct strbuf *out);

#endif
