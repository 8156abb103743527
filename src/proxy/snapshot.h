/* SPDX-License-Identifier: Apache-2.0
 *
 * The immutable result of all resources at their newest good versions. Control makes it, workers adopt it; a worker's
 * runtime is its own twin of it.
 */
#ifndef WEIR_PROXY_SNAPSHOT_H
#define WEIR_PROXY_SNAPSHOT_H

#include <stdatomic.h>

#include "conf/limits.h"
#include "io/conn.h"
#include "proxy/route.h"
#include "wasm/plugin.h"

/* Why there is no generation to run: decides the reply of FAIL_CLOSE (403 as Istio for what never arrived, 503 for a VM
 * that failed). */
enum plugin_absence {
    PLUGIN_PRESENT,
    PLUGIN_PENDING /* fetching, compiling */,
    PLUGIN_FETCH_FAILED,
    PLUGIN_BAD_MODULE,
    PLUGIN_START_FAILED
};

/* A place in a chain. */
struct chain_entry {
    char *title;           /* "istio-system/my-wasm-plugin" */
    struct plugin *plugin; /* one reference; NULL unless absence is PLUGIN_PRESENT */
    enum plugin_absence absence;
    enum fail_strategy fail;
};

struct listener_conf {
    struct addr addr;
    char *gateway; /* "<namespace>/<name>" of the first Gateway on it */
    struct limits limits;
    struct chain_entry *chain; /* in request order */
    size_t chain_count;
    struct route_table *routes;
};

/* Who this gateway is. */
struct identity {
    char *name, *ns;
    struct labels labels;
};

struct snapshot {
    atomic_uint refs;
    uint64_t version;
    const struct identity *identity; /* lives as long as the process */
    struct listener_conf *listeners; /* sorted by address */
    size_t listener_count;
    /* Every cluster routes or filters may use: keys with their other names. Workers register the aliases when they
     * adopt. */
    struct {
        char *key;
        char *names;
        size_t names_bytes; /* NUL-separated */
    } * clusters;
    size_t cluster_count;
};
/* Empty, with one reference; control fills it before anybody else sees it. What hangs on it is the snapshot's: strings
 * and arrays are freed with mem_free, each listener's route table is its own. */
struct snapshot *snapshot_new(uint64_t version, const struct identity *identity);
struct snapshot *snapshot_ref(struct snapshot *s);
/* Frees with the last one. Any thread. */
void snapshot_unref(struct snapshot *s);

#endif
