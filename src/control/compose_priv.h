/* SPDX-License-Identifier: Apache-2.0
 *
 * Shared by the parts of compose: gateways and chains (compose.c), routes (compose_routes.c), endpoints
 * (compose_endpoints.c).
 */
#ifndef WEIR_CONTROL_COMPOSE_PRIV_H
#define WEIR_CONTROL_COMPOSE_PRIV_H

#include <stdio.h>

#include "control/compose.h"

/* fmt may give an empty text. */
void usage_say(struct usage_table *t, const struct meta *meta, bool accepted, const char *reason, const char *fmt, ...)
    PRINTF_LIKE(5, 6);
/* The same of a part, which is made when new. Valid until the next call for the same object. */
struct usage_part *usage_say_part(struct usage_table *t, const struct meta *meta, enum usage_aspect aspect,
                                  const char *name, bool ok, const char *reason, const char *fmt, ...)
    PRINTF_LIKE(7, 8);

struct compose {
    const struct store *store;
    const struct delivery *delivery;
    const struct identity *identity;
    struct snapshot *snapshot;
    struct compose_memory *memory;
    struct usage_table *usage;
};
/* One gateway listener that is served: where, and by which gateway. */
struct served {
    const struct resource *gateway;
    const struct gateway_listener *listener;
    size_t index;    /* into snapshot->listeners */
    unsigned routes; /* that are attached */
    const struct resource *last_route;
};
/* Attaches every HTTPRoute to the listeners that take it, and finishes the tables. */
void compose_routes(struct compose *c, struct served *served, size_t count);
/* Objects of a kind, oldest first (creation time, namespace, name); count in *n; free with mem_free. */
const struct resource **compose_sorted(const struct store *store, enum kind kind, size_t *n);

/* Does a ReferenceGrant let an object of from_* refer to to_*? */
bool compose_reference_granted(const struct store *store, const char *from_group, const char *from_kind,
                               const char *from_ns, const char *to_group, const char *to_kind, const char *to_ns,
                               const char *to_name);
char *cluster_key_service(const char *ns, const char *name, uint16_t port);
char *cluster_key_host(const char *ns, const char *entry, const char *host, uint16_t port);
/* Adds every declared cluster with its other names to the snapshot. */
void compose_clusters(struct compose *c);

#endif
