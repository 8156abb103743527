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
    bool mistake;  /* something of it is wrong; false: it is whole, but not for this gateway, or not yet read by it */
    char *reason;  /* "Accepted", "NoMatchingParent", "RefNotPermitted", ... */
    char *message; /* one or more sentences */
};
struct usage_table {
    struct map by_object;
};
void usage_free(struct usage_table *t);
/* NULL: nothing was said about it. */
const struct usage *usage_find(const struct usage_table *t, enum kind kind, const char *ns, const char *name);

/* What one composition leaves for the next: the newest good version of each ConfigMap that a Gateway takes its limits
 * from. Whether one is good is known here only, where it is read as limits. Zero-initialise. */
struct compose_memory {
    struct map parameters; /* "namespace/name" -> struct resource, one reference */
};
void compose_memory_free(struct compose_memory *m);

/* Never fails: what is wrong is left out and said in usage. One reference for the caller. */
struct snapshot *compose_snapshot(const struct store *store, const struct delivery *delivery,
                                  const struct identity *identity, uint64_t version, struct compose_memory *memory,
                                  struct usage_table *usage);

/* One cluster's endpoints as the store has them now. */
struct dns_endpoint {
    char *host; /* each of its addresses is an endpoint */
    uint16_t port;
    uint32_t weight;
};
struct cluster_endpoints {
    char *key;
    struct endpoint_conf *list;
    size_t count;
    struct dns_endpoint *names;
    size_t name_count;
};
struct cluster_set {
    struct cluster_endpoints *list;
    size_t count;
};
void compose_endpoints(const struct store *store, struct cluster_set *out);
void cluster_set_free(struct cluster_set *s);

#endif
