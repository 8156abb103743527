/* SPDX-License-Identifier: Apache-2.0
 *
 * When what failed is tried again: timers that belong to an item, and how long they wait. Nobody shall be asked by
 * many at the same moment, so every wait is spread.
 */
#include "control/delivery_priv.h"

static void retry_closed(struct loop_timer *timer) { mem_free(CONTAINER_OF(timer, struct delivery_retry, timer)); }

void delivery_retry_cancel(struct delivery_retry *r)
{
    if (r == NULL)
        return;
    *r->slot = NULL;
    list_remove(&r->node);
    loop_timer_close(&r->timer, retry_closed);
}

void delivery_retry_in(struct delivery *d, struct delivery_item *item, struct delivery_retry **slot, unsigned worker,
                       void (*fn)(struct loop_timer *timer), uint64_t ms)
{
    delivery_retry_cancel(*slot);
    struct delivery_retry *r = mem_zalloc(sizeof *r);
    r->owner = d;
    r->item = item;
    r->slot = slot;
    r->worker = worker;
    list_init(&r->node);
    list_push_back(&d->retries, &r->node);
    loop_timer_init(&r->timer, d->o.loop, fn);
    loop_timer_start(&r->timer, ms);
    *slot = r;
}

/* From least to most. */
uint64_t delivery_between(struct delivery *d, uint64_t least, uint64_t most)
{
    d->random = d->random * 6364136223846793005u + 1442695040888963407u;
    return least + (d->random >> 33) % (most - least + 1);
}

/* first, doubled with each failure up to max; between half of that and all of it. */
uint64_t delivery_back_off(struct delivery *d, unsigned failures, uint64_t first, uint64_t max)
{
    uint64_t ms = first << (failures < 16 ? failures - 1 : 15);
    ms = ms < max ? ms : max;
    return delivery_between(d, ms / 2, ms);
}
