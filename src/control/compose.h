/* SPDX-License-Identifier: Apache-2.0
 *
 * From the objects of the store to what serves: the snapshot (listeners, chains, routes) and the endpoints of every
 * cluster. Also says, for each object, how it is used and why not: the one place where references between objects are
 * judged.
 */
#ifndef WEIR_CONTROL_COMPOSE_H
#define WEIR_CONTROL_COMPOSE_H

#include "control/delivery.h"
#include "control/store.h"
#include "proxy/snapshot.h"

/* How an object is used, by "Kind/ns/name". */
struct usage {
    bool accepted; /* used by at least one gateway, route, ... */
    char *reason;  /* "Accepted", "NoMatchingParent", "RefNotPermitted", ... */
    char *message; /* one or more sentences */
};
struct usage_table {
    struct map by_object;
};
void usage_free(struct usage_table *t);
/* NULL: nothing was said about it. */
const struct usage *usage_find(const struct usage_table *t, enum kind kind, const char *ns, const char *name);

/* Never fails: what is wrong is left out and said in usage. One reference for the caller. */
struct snapshot *compose_snapshot(const struct store *store, const struct delivery *delivery,
                                  const struct identity *identity, uint64_t version, struct usage_table *usage);

/* One cluster's endpoints as the store has them now. */
struct cluster_endpoints {
    char *key;
    struct endpoint_conf *list;
    size_t count;
    char *dns_host; /* not NULL: the endpoints are this host's addresses, on dns_port */
    uint16_t dns_port;
};
struct cluster_set {
    struct cluster_endpoints *list;
    size_t count;
};
void compose_endpoints(const struct store *store, struct cluster_set *out);
void cluster_set_free(struct cluster_set *s);

#endif
