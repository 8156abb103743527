/* SPDX-License-Identifier: Apache-2.0
 *
 * A snapshot's life: made by control, read by every worker, freed by whoever drops the last reference (a worker's
 * stream, as a rule). So everything in it must be free of thread: resources and plugins count atomically.
 */
#include "proxy/snapshot.h"

struct snapshot *snapshot_new(uint64_t version, const struct identity *identity)
{
    struct snapshot *s = mem_zalloc(sizeof(*s));
    atomic_init(&s->refs, 1);
    s->version = version;
    s->identity = identity;
    return s;
}

struct snapshot *snapshot_ref(struct snapshot *s)
{
    unsigned before = atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    ASSERT(before > 0);
    return s;
}

static void listener_free(struct listener_conf *l)
{
    for (size_t i = 0; i < l->chain_count; i++) {
        mem_free(l->chain[i].title);
        if (l->chain[i].plugin != NULL)
            plugin_unref(l->chain[i].plugin);
    }
    mem_free(l->chain);
    mem_free(l->gateway);
    limits_free(&l->limits);
    if (l->routes != NULL)
        route_table_free(l->routes);
}

void snapshot_unref(struct snapshot *s)
{
    if (atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) > 1)
        return;
    for (size_t i = 0; i < s->listener_count; i++)
        listener_free(&s->listeners[i]);
    mem_free(s->listeners);
    for (size_t i = 0; i < s->cluster_count; i++) {
        mem_free(s->clusters[i].key);
        mem_free(s->clusters[i].names);
    }
    mem_free(s->clusters);
    mem_free(s);
}
