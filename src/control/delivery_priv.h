/* SPDX-License-Identifier: Apache-2.0
 *
 * Shared by the parts of delivery: the objects and what serves (delivery.c), and one attempt for one text
 * (delivery_work.c).
 */
#ifndef WEIR_CONTROL_DELIVERY_PRIV_H
#define WEIR_CONTROL_DELIVERY_PRIV_H

#include "control/delivery.h"

enum delivery_again { AGAIN_NEVER, AGAIN_SOON, AGAIN_LATER };

struct delivery {
    struct delivery_options o;
    struct map items;
    uint64_t next_ticket, next_generation;
    struct loop_task notify;
    bool closing;
    struct list retries; /* struct delivery_retry */
    struct list retired; /* struct retired */
    uint64_t random;
};

/* delivery.c */

/* What a snapshot says has changed: control is told in a moment. */
void delivery_notify(struct delivery *d);
/* The attempt is over; reason and message are copied. */
void delivery_item_failed(struct delivery_item *item, struct delivery *d, const char *reason,
                          enum plugin_absence absence, enum delivery_again again, const char *message);
/* What is wanted is what serves already. */
void delivery_item_as_before(struct delivery_item *item);

/* delivery_work.c */

/* Begins an attempt for the item's newest text; one that is under way is dropped. */
void delivery_work_start(struct delivery *d, struct delivery_item *item);
/* Drops the attempt, wherever it is. */
void delivery_work_forget(struct delivery_item *item);
uint64_t delivery_work_ticket(const struct delivery_work *w);
const char *delivery_work_key(const struct delivery_work *w);
/* An attempt that was loading this module has ended, well or not: those that waited for it go on. */
void delivery_work_module_settled(struct delivery *d, const char *sha256);
/* The builder could not make the VMs. */
void delivery_work_not_built(struct delivery_work *w, const struct build_job *job);

#endif
