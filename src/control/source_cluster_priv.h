/* SPDX-License-Identifier: Apache-2.0
 *
 * What source_cluster.c and cluster_report.c share.
 */
#ifndef WEIR_CONTROL_SOURCE_CLUSTER_PRIV_H
#define WEIR_CONTROL_SOURCE_CLUSTER_PRIV_H

#include "base/metrics.h"
#include "control/source_cluster.h"
#include "kube/lease.h"
#include "kube/status_writer.h"

enum { CLUSTER_NAMED_MAX = 500 };

/* `limited`: the label selector is for them. `optional`: to be refused them is no reason not to serve. */
struct cluster_kind {
    struct kube_kind kube;
    bool limited, optional;
};
struct cluster_watch {
    struct kube_watch *watch;
    const struct cluster_kind *kind;
    char *ns, *field; /* NULL */
    bool wanted;      /* of a named one: still */
    enum kube_watch_phase said;
};
enum cluster_stage { STAGE_LISTING, STAGE_NAMED, STAGE_FLOWING };
struct source_cluster {
    struct source_cluster_options o;
    struct kube_client *client;
    struct cluster_watch **watches; /* of whole kinds */
    size_t count;
    struct map named; /* "Secret/ns/name" -> struct cluster_watch */
    struct map keys;  /* of texts in the store -> s */
    struct cluster_snapshot *snapshot;
    enum cluster_stage stage;
    uint64_t stage_ms;
    bool restored; /* some of what is known is of the snapshot on disk */
    bool held;     /* and the store keeps it as it is until the whole cluster has been heard of again */
    bool full;     /* too many named objects */
    bool dirty;    /* the store was given texts that are not settled yet */
    struct loop_timer settle, patience, keep;
    struct kube_writer *writer;
    struct kube_lease *lease;
    metric_id stale, objects, changes, leads;
};

/* Says in the log, and in metrics, what is another than last time. */
void cluster_report(struct source_cluster *s);

#endif
