/* SPDX-License-Identifier: Apache-2.0
 *
 * Shared by the parts of delivery: the objects and what serves (delivery.c), one attempt for one text
 * (delivery_work.c), what is told of it (delivery_facts.c), and from a url to a module on disk (delivery_pull.c).
 */
#ifndef WEIR_CONTROL_DELIVERY_PRIV_H
#define WEIR_CONTROL_DELIVERY_PRIV_H

#include "control/delivery.h"
#include "control/delivery_pull.h"

enum delivery_again { AGAIN_NEVER, AGAIN_SOON, AGAIN_LATER };

struct delivery {
    struct delivery_options o;
    struct map items;
    const struct store *store; /* of the newest delivery_update: Secrets are looked up in it; NULL: none yet */
    struct pulls *pulls;
    uint64_t next_ticket, next_generation;
    struct loop_task notify, tell;
    bool closing;
    struct list retries; /* struct delivery_retry */
    struct list retired; /* struct retired */
    uint64_t random;
};

void delivery_module_free(struct delivery_module *m);

/* One attempt. better: not for the newest text, but optimised code for what serves. */
struct delivery_work {
    struct delivery *owner;
    struct delivery_item *item;
    uint64_t ticket;
    struct resource *resource; /* one reference */
    char key[65], vm_key[65];
    bool better;
    bool again; /* asks the registry whatever is remembered */
    bool quiet; /* a re-check: what serves is the newest text's, and nothing is said unless there is something new */
    struct pull *pull;
    struct code_want *code;
    bool code_from_cache;
    struct delivery_module module;
    bool building;
    char *waits; /* path of the code; another attempt is loading the same module, which is then shared */
};

/* delivery_keys.c */

/* What makes a new generation: module, configuration, environment, limits, ... vm: without where the module comes from:
 * equal for two texts that can share a VM when their modules are the same bytes. */
struct delivery_keys {
    char want[65], vm[65];
};
void delivery_keys_of(const struct resource *r, struct delivery_keys *out);
/* What imagePullPolicy Always counts: changes by the object's author. mem_free. */
char *delivery_version_of(const struct resource *r);

/* delivery_retry.c */

/* One timer for the next attempt of an item, or for the next VM of its plugin on one worker. */
struct delivery_retry {
    struct list node;
    struct delivery *owner;
    struct delivery_item *item;
    struct delivery_retry **slot; /* in the item; cleared when it is over */
    unsigned worker;
    struct loop_timer timer;
};
/* *slot is NULL then. r may be NULL. */
void delivery_retry_cancel(struct delivery_retry *r);
/* One that stands in *slot is cancelled first. */
void delivery_retry_in(struct delivery *d, struct delivery_item *item, struct delivery_retry **slot, unsigned worker,
                       void (*fn)(struct loop_timer *timer), uint64_t ms);
/* Anything from least to most. */
uint64_t delivery_between(struct delivery *d, uint64_t least, uint64_t most);
/* first, doubled with each failure up to max; between half of that and all of it. */
uint64_t delivery_back_off(struct delivery *d, unsigned failures, uint64_t first, uint64_t max);

/* delivery.c */

/* What a snapshot says has changed: control is told in a moment. */
void delivery_notify(struct delivery *d);
/* The same for what status says. */
void delivery_tell(struct delivery *d);
struct delivery_failure {
    enum delivery_step step;
    const char *reason, *message; /* copied */
    enum plugin_absence absence;
    enum delivery_again again;
    uint32_t not_before_ms; /* the server asked for that much time; 0 */
};
/* The attempt is over. */
void delivery_item_failed(struct delivery_item *item, struct delivery *d, const struct delivery_failure *why);
/* What is wanted is what serves already. */
void delivery_item_as_before(struct delivery_item *item, struct delivery *d);
/* The optimised code of what serves did not come. */
void delivery_better_failed(struct delivery_item *item, struct delivery *d, bool again, const char *why);

/* delivery_work.c */

enum delivery_ask { ASK_POLICY, ASK_AGAIN, ASK_RECHECK };
/* Begins an attempt for the item's newest text; one that is under way is dropped. */
void delivery_work_start(struct delivery *d, struct delivery_item *item, enum delivery_ask ask);
/* Begins to get optimised code for what serves. */
void delivery_better_start(struct delivery *d, struct delivery_item *item);
/* Drops the attempt, wherever it is; *slot is NULL then. */
void delivery_work_forget(struct delivery_work **slot);
/* An attempt that was loading this module has ended, well or not: those that waited for it go on. */
void delivery_work_module_settled(struct delivery *d, const char *sha256);
/* The builder could not make the VMs. */
void delivery_work_not_built(struct delivery_work *w, const struct build_job *job);

/* delivery_facts.c */

/* A new text: nothing is known of it yet. */
void delivery_facts_reset(struct delivery_item *item);
void delivery_facts_free(struct delivery_item *item);
/* GOING is told only of a step that has not ended yet, so that a retry or a look at the tag does not make a condition
 * flap. */
void delivery_fact(struct delivery *d, struct delivery_item *item, enum delivery_step step,
                   enum delivery_step_state state);
void delivery_fact_text(char **slot, const char *text /* NULL */);
/* The newest text has the module that serves. */
void delivery_facts_as_live(struct delivery_item *item);
void delivery_facts_of_pull(struct delivery *d, struct delivery_item *item, const struct pull_result *r);

#endif
