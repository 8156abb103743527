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

/* ---- what there is ---- */

/* At most n bytes of a small file that the kernel makes up (its size says nothing). */
static struct str read_some(const char *path, char *room, size_t n)
{
    size_t got = 0;
    ssize_t r = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return STR_NONE;
    while (got < n && (r = read(fd, room + got, n - got)) > 0)
        got += (size_t)r;
    close(fd);
    return r < 0 ? STR_NONE : str_span(room, got);
}

static uint64_t smaller(uint64_t a, uint64_t b) { return a == 0 || (b != 0 && b < a) ? b : a; }

/* 0 when there is no such file, or no number in it ("max"). */
static uint64_t read_limit(const char *root, const char *mount, struct str group, const char *file)
{
    char room[64];
    char *path = mem_printf("%s%s%.*s/%s", root, mount, STR_ARG(group), file);
    struct str text = read_some(path, room, sizeof room);
    uint64_t value = 0;

    mem_free(path);
    if (text.n > 0 && text.p[text.n - 1] == '\n')
        text.n--;
    return str_to_u64(text, UINT64_MAX, &value) ? value : 0;
}

/* The tightest limit of a group and of those around it: each holds for all below. A group that the mount does not show
 * (a container without a namespace of its own sees the host's names) has no file, and its mount's root has. */
static uint64_t limit_of_groups(const char *root, const char *mount, struct str group, const char *file)
{
    uint64_t least = 0;

    if (group.n == 0 || group.p[0] != '/' || str_find_str(group, STR("/..")) >= 0)
        group = STR("/");
    while (group.n > 0) {
        while (group.n > 0 && group.p[group.n - 1] == '/')
            group.n--;
        least = smaller(least, read_limit(root, mount, group, file));
        while (group.n > 0 && group.p[group.n - 1] != '/')
            group.n--;
    }
    return least;
}

static bool has_memory(struct str controllers)
{
    while (controllers.n > 0)
        if (str_is(str_split(&controllers, ','), "memory"))
            return true;
    return false;
}

/* Lines of "id:controllers:/group"; cgroup v2 is the one without controllers. */
uint64_t budget_cgroup_limit(const char *root)
{
    char room[8192];
    char *path = mem_printf("%s/proc/self/cgroup", root);
    struct str lines = read_some(path, room, sizeof room);
    struct str two = STR("/"), one = STR("/");

    mem_free(path);
    while (lines.n > 0) {
        struct str rest = str_split(&lines, '\n');
        struct str id = str_split(&rest, ':'), controllers = str_split(&rest, ':');
        if (str_is(id, "0") && controllers.n == 0)
            two = rest;
        else if (has_memory(controllers))
            one = rest;
    }
    return smaller(limit_of_groups(root, "/sys/fs/cgroup", two, "memory.max"),
                   limit_of_groups(root, "/sys/fs/cgroup/memory", one, "memory.limit_in_bytes"));
}

uint64_t budget_default_limit(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    uint64_t bytes = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : 0;

    return smaller(bytes, budget_cgroup_limit("")) / 10 * 8;
}
