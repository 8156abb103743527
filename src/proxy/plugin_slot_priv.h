/* SPDX-License-Identifier: Apache-2.0
 *
 * What plugin_slot.c (life and death of VMs), plugin_host.c (what guests ask for), plugin_stats.c (metrics) and
 * filter_wasm.c (streams) share. All of it belongs to one worker's thread.
 *
 * A slot has at most one VM that new streams enter (`current`); VMs that died or were replaced stay in `old` until no
 * stream has a context there. Nothing is settled or freed from inside a guest call or a stream's driver: that is the
 * work of loop tasks.
 */
#ifndef WEIR_PROXY_PLUGIN_SLOT_PRIV_H
#define WEIR_PROXY_PLUGIN_SLOT_PRIV_H

#include "proxy/call.h"
#include "proxy/plugin_slot.h"
#include "proxy/stream.h"

/* Metric handles of one plugin name and what of its VMs' counters is in them already. */
struct plugin_stats_ids {
    struct {
        metric_id calls, traps, breaches, seconds; /* METRIC_NONE until there is something to count */
    } cb[CB_COUNT];
    metric_id failed, bypassed, memory, swaps;
};
struct plugin_stats_seen {
    struct {
        uint64_t calls, traps, breaches, ns, bucket[16];
    } cb[CB_COUNT];
    int64_t memory;
};

struct plugin_slot;
/* One VM on this worker; the `host` of its host_ops. */
struct slot_vm {
    struct plugin_slot *slot;
    struct plugin_vm *vm;
    struct list node;    /* slot->old; self-linked while it is slot->current */
    struct list filters; /* struct filter_wasm with a context here */
    struct list calls;   /* struct slot_call */
    uint32_t call_count, tick_ms;
    uint64_t token; /* of queue_wake */
    struct loop_timer tick;
    struct loop_task task; /* settles the streams of a dead VM, frees a VM that is left */
    struct plugin_stats_seen seen;
    bool attached, dead;
};

struct plugin_slot {
    struct worker *worker;
    struct plugin *plugin; /* one reference */
    uint32_t refs;         /* runtimes, streams, and one of worker->slots until retired */
    enum slot_state state;
    bool retired, ended, knows_callbacks;
    bool has[CB_COUNT];
    struct filter_ops ops; /* of a stream that may enter the guest: what the guest exports */
    struct slot_vm *current;
    struct list old;
    uint64_t retired_ms;
    uint64_t failures[2]; /* loop time of the last two, newest first; 0: none */
    unsigned backoff_step;
    uint64_t quarantined_until, probe_since;
    struct filter_wasm *probe; /* the one stream that is inside while PROBING */
    struct loop_timer second;  /* each second: metrics, probes */
    struct loop_task task;     /* attaches the current VM; ends the slot */
    struct plugin_stats_ids ids;
    struct strbuf line; /* reused for log lines */
};

enum filter_wasm_state { FW_FRESH, FW_INSIDE /* has a context */, FW_OUT /* bypassed, refused, failed or ended */ };
/* One plugin on one stream; in the stream's arena. The `stream` of host_ops. */
struct filter_wasm {
    struct filter *f;
    struct plugin_slot *slot; /* one reference until ended; NULL when the plugin is absent */
    struct slot_vm *vm;
    struct ctx *ctx;
    struct list node; /* slot_vm->filters */
    enum filter_wasm_state state;
    enum end_reason why; /* refusal of an absent plugin */
    bool answered;       /* since its last callback began: a local reply or close took effect */
    bool ending;         /* in ended: all readable, nothing writable */
};

/* ---- plugin_slot.c ---- */

/* The VM that fw may enter now; NULL and why not. Claims the probe. */
struct slot_vm *slot_enter(struct plugin_slot *slot, struct filter_wasm *fw, enum end_reason *why);
/* Could slot_enter succeed now? */
bool slot_is_usable(const struct plugin_slot *slot, enum end_reason *why);
/* fw has no context in its VM any more. */
void slot_leave(struct filter_wasm *fw);
/* A callout of a VM has ended; a retired slot may have waited for that. */
void plugin_slot_call_ended(struct plugin_slot *slot);
void slot_vm_failed(struct slot_vm *sv, const char *callback, const char *reason);

/* ---- plugin_host.c ---- */

extern const struct host_ops plugin_host_ops;
void plugin_host_cancel_calls(struct slot_vm *sv);
/* Process-wide: which worker hears of a token's queues. */
uint64_t plugin_token_new(struct worker *w);
void plugin_token_forget(uint64_t token);

/* ---- plugin_stats.c ---- */

void plugin_stats_init(struct plugin_slot *slot);
/* Adds what a VM counted since the last time to the metrics. */
void plugin_stats_fold(struct slot_vm *sv);
/* The VM is going: its share of the gauges too. */
void plugin_stats_drop(struct slot_vm *sv);

/* ---- filter_wasm.c ---- */

/* The ops of a stream that may enter, by what the guest exports. */
void filter_wasm_ops(struct filter_ops *ops, const bool has[CB_COUNT]);
/* The VM of fw is dead: end or release its stream by the fail strategy. Leaves the VM. */
void filter_wasm_settle(struct filter_wasm *fw);

#endif
