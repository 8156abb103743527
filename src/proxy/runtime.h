/* SPDX-License-Identifier: Apache-2.0
 *
 * A worker's own twin of a snapshot, and what hangs on a worker. Plain references: one thread. A stream keeps what it
 * needs of a runtime by keeping the snapshot's reference (one atomic per connection, not per request: conns hold it and
 * renew it when the worker adopts a newer one) and the plugin slots of its chain.
 */
#ifndef WEIR_PROXY_RUNTIME_H
#define WEIR_PROXY_RUNTIME_H

#include "io/listener.h"
#include "proxy/access_log.h"
#include "proxy/stats.h"
#include "proxy/worker.h"

struct plugin_slot;

/* One place of a chain on this worker. */
struct chain_place {
    const struct chain_entry *entry;
    struct plugin_slot *slot; /* one reference; NULL when the entry has no generation */
};
struct listener_runtime {
    const struct listener_conf *conf;
    struct chain_place *chain;
    size_t chain_count;
    struct access_log *log;
};
struct runtime {
    uint32_t refs; /* the worker's, and one for each stream */
    struct worker *worker;
    struct snapshot *snapshot; /* one reference */
    struct listener_runtime *listeners;
    size_t listener_count;
};
struct runtime *runtime_new(struct worker *w, struct snapshot *s /* takes one reference */);
struct runtime *runtime_ref(struct runtime *r);
void runtime_unref(struct runtime *r);
/* NULL when no listener of that address is there any more. */
struct listener_runtime *runtime_listener(const struct runtime *r, const struct addr *addr);

struct worker {
    unsigned index, count;
    struct loop loop;
    struct mailbox *mailbox, *control;
    const struct identity *identity;
    struct chunk_pool *pool;
    struct runtime *runtime; /* NULL until the first snapshot */
    struct cluster_table clusters;
    struct map slots;       /* generation (8 bytes) -> struct plugin_slot */
    struct list listeners;  /* struct worker_listener */
    struct list conns;      /* struct down: every client connection */
    struct list idle_conns; /* those without a stream, oldest first */
    struct list streams;    /* struct stream */
    struct list ups;        /* struct up: every connection to an endpoint */
    uint32_t conn_count, stream_count, up_count;
    int64_t told_conns, told_streams, told_ups; /* what the gauges have been told */
    bool was_near_budget;                       /* at the last tick */
    struct loop_timer tick;                     /* once a second: gauges */
    bool draining, stopping;
    uint64_t random_state[2]; /* fast, not for secrets */
    struct route_scratch *scratch;
    struct strbuf line; /* reused for access log lines */
    struct stats stats;
    uint64_t wall_ns, wall_at_ms; /* wall clock as read when the loop's time was wall_at_ms */
    uint64_t date_s;              /* second that date is of */
    char date[32];                /* IMF-fixdate */
    uv_thread_t thread;
    bool drained_told;
    struct loop_task stop;
    uint64_t next_stream_id, next_conn_id;
};
/* Everything of the worker but its thread and mailbox: for worker_start and for tests that drive a loop of their own.
 */
void worker_init(struct worker *w, unsigned index, unsigned count, const struct identity *identity);
/* Cuts everything; leaves the loop when it is gone. */
void worker_begin_stop(struct worker *w);
/* After the loop was left. */
void worker_fini(struct worker *w);
/* A connection or listener is gone: is a drain complete? */
void worker_check_drained(struct worker *w);
/* Takes one reference: the newest snapshot is from now on what new streams see. */
void worker_adopt(struct worker *w, struct snapshot *s);
uint64_t worker_random(struct worker *w);
/* "Mon, 23 Nov 2026 15:00:00 GMT", renewed when the second changes. */
struct str worker_date(struct worker *w);
/* Wall clock in ns: one clock read the first time in a turn of the loop, then from that plus the loop's time. */
uint64_t worker_wall_ns(struct worker *w);
/* Monotonic ns, a real read (vDSO). */
uint64_t worker_mono_ns(void);

#endif
