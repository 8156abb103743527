/* SPDX-License-Identifier: Apache-2.0
 *
 * The process's memory budget: two counters. Every thread charges it, none waits for another; a reader may see a
 * total that is a moment old, which is good enough for deciding whether to begin new work. It must never wrap:
 * releasing what was not charged is our own bug.
 */
#include "base/budget.h"

#include <stdatomic.h>

static _Atomic uint64_t used_bytes;
static _Atomic uint64_t limit_bytes;

void budget_set_limit(uint64_t bytes) { atomic_store_explicit(&limit_bytes, bytes, memory_order_relaxed); }

void budget_charge(size_t n) { atomic_fetch_add_explicit(&used_bytes, n, memory_order_relaxed); }

void budget_release(size_t n)
{
    uint64_t before = atomic_fetch_sub_explicit(&used_bytes, n, memory_order_relaxed);
    ASSERT(before >= n);
}

bool budget_try_charge(size_t n)
{
    uint64_t limit = budget_limit();
    uint64_t used = budget_used();
    do {
        if (limit != 0 && (used > limit || n > limit - used))
            return false;
    } while (!atomic_compare_exchange_weak_explicit(&used_bytes, &used, used + n, memory_order_relaxed,
                                                    memory_order_relaxed));
    return true;
}

enum budget_level budget_level(void)
{
    uint64_t limit = budget_limit();
    uint64_t used = budget_used();
    if (limit == 0 || used <= limit - limit / 10)
        return BUDGET_FINE;
    return used <= limit ? BUDGET_NEAR : BUDGET_OVER;
}

uint64_t budget_used(void) { return atomic_load_explicit(&used_bytes, memory_order_relaxed); }

uint64_t budget_limit(void) { return atomic_load_explicit(&limit_bytes, memory_order_relaxed); }
