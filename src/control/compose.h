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
    struct usage_part *parts;
    size_t part_count;
};
/* A part of an object that has a status of its own. */
enum usage_aspect {
    USAGE_LISTENER, /* of a Gateway; name is the listener's */
    USAGE_ADDRESS,  /* of a Gateway; name is an address of spec.addresses that cannot be used */
    USAGE_PARENT,   /* of an HTTPRoute; name is the number of the parentRef. One of a foreign Gateway has no part */
    USAGE_REFS,     /* of an HTTPRoute: references that cannot be followed; name is "" */
    USAGE_GATEWAY,  /* of a plugin: one it is selected for; name is "<namespace>/<name>"; ok: in a chain there */
};
struct usage_part {
    enum usage_aspect aspect;
    char *name;
    bool ok;
    char *reason, *message; /* of the first finding that is not ok; else "" */
    const char *controller; /* USAGE_PARENT: controllerName of the Gateway's class; lives as long as the process */
    unsigned routes;        /* USAGE_LISTENER: that are attached */
};
/* NULL: nothing was said about it. */
const struct usage_part *usage_part_find(const struct usage *u, enum usage_aspect aspect, const char *name);
/* The controllerName, as a constant, when it is one of ours; else NULL. */
const char *compose_controller(const char *controller_name);
/* The same of a Gateway's class. */
const char *compose_gateway_controller(const struct store *store, const struct resource *gw);
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
