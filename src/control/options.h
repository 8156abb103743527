/* SPDX-License-Identifier: Apache-2.0
 *
 * What `weir run` was told on its command line.
 */
#ifndef WEIR_CONTROL_OPTIONS_H
#define WEIR_CONTROL_OPTIONS_H

#include "control/code.h"
#include "fetch/registry.h"
#include "io/conn.h"
#include "proxy/snapshot.h"

struct control_options {
    const char *const *paths; /* files and directories of resources */
    size_t path_count;
    struct identity identity;
    struct addr admin;
    bool has_admin;         /* false: no admin server (--admin off) */
    struct addr probe; /* /ready, /healthz and /metrics alone, on any address */
    bool has_probe;
    bool admin_any_address; /* a non-loopback admin address was asked for explicitly */
    struct addr kube_api;    /* loopback */
    bool has_kube_api;
    const char *state_dir;   /* of objects that come by it */
    unsigned workers;
    const char *cache_dir;
    uint64_t cache_bytes; /* what it may hold; 0: no limit */
    enum tier_policy tiers;
    struct registry_table *registries; /* --registry, --registries, --insecure-registry */
    const char *const *fetch_allow;    /* addresses that the guard of downloads lets through */
    size_t fetch_allow_count;
    const char *module_dir;      /* where file:// modules of objects that came by an API may lie; NULL: nowhere */
    const char *const *host_env; /* variables of this process that their plugins may read */
    size_t host_env_count;
    uint32_t drain_time_ms;
    bool show_plugin_config;   /* /config shows pluginConfig */
    const char *program;       /* path of this executable, for the compiler child */
    const char *dns_servers;   /* NULL: the system's */
    bool kubernetes;                  /* resources from a cluster too */
    const char *kubeconfig;           /* NULL: the pod's service account, $KUBECONFIG or ~/.kube/config */
    const char *const *watch_namespaces; /* none: all */
    size_t watch_namespace_count;
    const char *label_selector; /* of the cluster's objects that configure Weir; NULL */
    uint32_t compile_delay_ms; /* for tests: the compiler child waits this long first (WEIR_TEST_COMPILE_DELAY_MS) */
};

/* Serves until SIGTERM or SIGINT has drained it. Returns the process's exit code. */
int control_run(const struct control_options *options);

#endif
