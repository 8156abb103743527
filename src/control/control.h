/* SPDX-License-Identifier: Apache-2.0
 *
 * The control thread's own state, shared by the files of this directory that act on it (control.c, admin.c, status.c).
 */
#ifndef WEIR_CONTROL_CONTROL_H
#define WEIR_CONTROL_CONTROL_H

#include "base/metrics.h"
#include "control/compose.h"
#include "control/conditions.h"
#include "control/dashboard.h"
#include "control/dns.h"
#include "control/events.h"
#include "web/http_server.h"
#include "control/options.h"
#include "control/source_cluster.h"
#include "control/source_dir.h"

enum phase_of_life { LIFE_STARTING, LIFE_SERVING, LIFE_DRAINING, LIFE_CUT, LIFE_OVER };

/* A listener address: one socket for each worker, open as long as some snapshot wants it. */
struct open_listener {
    struct addr addr;
    bool open; /* false: could not be bound; error says why, and it is tried again every second */
    char *error;
    bool wanted;
};

struct control {
    const struct control_options *o;
    struct loop loop;
    struct mailbox *mailbox;
    struct worker **workers;
    unsigned worker_count;
    struct store store;
    struct source_dir *source;
    struct transfers *transfers;    /* of the cluster; NULL without one */
    struct source_cluster *cluster; /* NULL: none */
    struct engine *engine;
    struct module_cache *cache;
    struct transfers *module_transfers; /* with the address guard */
    struct fetcher *fetcher;
    struct compiler *compiler;
    struct code_maker *code;
    struct builder *builder;
    struct delivery *delivery;
    struct dns *dns;
    struct http_server *admin, *probe; /* NULL: none */
    struct source_api *api; /* NULL: no Kubernetes API */
    struct usage_table usage;
    struct compose_memory memory;
    struct conditions *conditions; /* NULL: nobody follows */
    struct events events;
    struct dashboard *dashboard; /* NULL: no samples */
    uint64_t shape;            /* of the objects the newest snapshot was made of */
    struct snapshot *snapshot; /* newest published; one reference */
    uint64_t *adopted;         /* by worker: version */
    uint64_t adopted_all;      /* every worker has it */
    struct map endpoints;      /* cluster key -> digest text of what the workers were last told */
    struct open_listener *listeners;
    size_t listener_count;
    uint64_t sockets_given, sockets_armed; /* to workers; by them */
    struct map logged; /* object title -> last logged problem, so that each is said once */
    struct loop_task publish;
    uv_signal_t term, interrupt, hup;
    struct loop_timer drain_timer, second;
    enum phase_of_life life;
    unsigned drained;
    int exit_code;
    uint64_t started_ms;
    metric_id bad_objects, config_version, reloads;
};

/* Composes a snapshot from the store as it is now and sends it to the workers. */
void control_publish(struct control *c);
/* The store was settled and something is another: has plugins delivered, a snapshot composed. */
void control_store_changed(struct control *c);
/* Begins to drain: /ready turns to 503, listeners close, the process ends with the last stream. */
void control_drain(struct control *c);
/* Ready to get traffic: why not goes to out (may be NULL) as lines. */
bool control_is_ready(const struct control *c, struct strbuf *out);

/* endpoints.c: tells the workers of every cluster whose endpoints are others than they were last told, and asks DNS for
 * the hosts that are wanted now. */
void control_follow_endpoints(struct control *c);

/* source_api.c: the Kubernetes API as a source of objects, and as a place where all of them and their status show. */
struct source_api;
/* NULL: the address or the state directory is not to be had; the log says why. */
struct source_api *source_api_new(struct control *c);
void source_api_free(struct source_api *s);
/* Shows what files hold now. */
void source_api_follow(struct source_api *s);
/* The Pod's condition. */
void source_api_ready(struct source_api *s);

/* admin.c */
bool admin_start(struct control *c);
/* status.c: JSON documents of /config and /plugins. */
void status_write_config(struct control *c, struct strbuf *out);
void status_write_plugins(struct control *c, struct strbuf *out);

#endif
