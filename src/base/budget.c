/* SPDX-License-Identifier: Apache-2.0
 *
 * The process's memory budget: two counters. Every thread charges it, none waits for another; a reader may see a
 * total that is a moment old, which is good enough for deciding whether to begin new work. It must never wrap:
 * releasing what was not charged is our own bug.
 */
#include "base/budget.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/str.h"

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

/* A number alone in a small file; 0 when there is none ("max"). */
static uint64_t read_number(const char *path)
{
    char text[64];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, sizeof text);
    close(fd);
    uint64_t value = 0;
    return n > 0 && str_to_u64(str_trim(str_upto((struct str){text, (size_t)n}, (size_t)n - (text[n - 1] == '\n'))),
                               UINT64_MAX, &value)
               ? value
               : 0;
}

uint64_t budget_default_limit(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    uint64_t bytes = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : 0;
    static const char *const limits[] = {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"};
    for (size_t i = 0; i < ARRAY_LEN(limits); i++) {
        uint64_t n = read_number(limits[i]);
        if (n > 0 && (bytes == 0 || n < bytes))
            bytes = n;
    }
    return bytes / 10 * 8;
}
