/* SPDX-License-Identifier: Apache-2.0
 *
 * A plugin generation on one worker: its VM, whether it is alive, and when it may be entered. Failures are counted
 * here: after 3 traps or breaches within 10 s the plugin is quarantined on this worker, its fail strategy applies
 * without entering the guest, with a jittered back-off and one probe.
 *
 *   WAITING --vm--> LIVE --fails--> DEAD --vm--> LIVE ...      (a replacement VM is asked from control)
 *                    DEAD --3 within 10 s--> QUARANTINED --back-off over, vm--> PROBING --a stream went well--> LIVE
 *
 * "Went well": the probe's stream ended, or has been in the guest for a second, and the VM lives.
 */
#ifndef WEIR_PROXY_PLUGIN_SLOT_H
#define WEIR_PROXY_PLUGIN_SLOT_H

#include "proxy/filter.h"
#include "proxy/runtime.h"

enum slot_state { SLOT_WAITING, SLOT_LIVE, SLOT_DEAD, SLOT_QUARANTINED, SLOT_PROBING };

/* Finds or makes the slot of this generation. One reference for the caller (a runtime); keeps a ref on plugin. A VM
 * that came before is put to work a moment later in this turn of the loop, when clusters are known: what the guest
 * asked for while configuring (callouts, ticks) happens then. */
struct plugin_slot *plugin_slot_get(struct worker *w, struct plugin *plugin);
void plugin_slot_unref(struct plugin_slot *slot);
enum slot_state plugin_slot_state(const struct plugin_slot *slot);

/* Worker mail. A VM takes the place of one that lives (a swap of compile tiers); one for a retired generation is freed.
 * The sender posts no VM of a generation for which MAIL_VM_FREED has come. */
void plugin_slot_give_vm(struct worker *w, struct plugin_vm *vm /* taken */);
/* Ticks stop at once; the VM goes with the last stream and runtime that use it, then MAIL_VM_FREED is posted (at once
 * when there is no such generation here). */
void plugin_slot_retire(struct worker *w, uint64_t generation);
void plugin_slot_queue_ready(struct worker *w, uint64_t token, uint32_t queue_id);
/* At worker's end, when its streams are gone: every VM and slot goes. Runtimes may give back their references until the
 * loop runs once more, which the timers of slots need. */
void plugin_slots_free(struct worker *w);

/* Builds the filter of this place for a stream: fills f->ops and f->self. Decides by state and fail strategy:
 * live -> the Wasm filter; FAIL_OPEN without a usable VM -> bypass (ops with no callbacks but ended); else -> a filter
 * that replies with 403 (PLUGIN_ABSENT: it never arrived) or 503 (PLUGIN_FAILED, PLUGIN_QUARANTINED) on request
 * headers. f->ops may change while the stream lives (a VM died). f->ops->ended must be called once. */
void filter_wasm_init(struct filter *f, const struct chain_place *place);

#endif
