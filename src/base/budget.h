/* SPDX-License-Identifier: Apache-2.0
 *
 * One memory budget for the process: buffers, arenas and guest memories are charged here before they are
 * allocated. Near the ceiling the proxy sheds load (503 with Retry-After, idle connections close), so that the
 * machine's allocator never has to say no first. Thread-safe; pools charge whole slabs, so the request path
 * touches the shared counter only when it grows.
 */
#ifndef WEIR_BASE_BUDGET_H
#define WEIR_BASE_BUDGET_H

#include "base/base.h"

enum budget_level { BUDGET_FINE, BUDGET_NEAR /* over 90 %: shed */, BUDGET_OVER };

/* 80 % of what the cgroup or the machine lets this process have; 0 when neither can be read. */
uint64_t budget_default_limit(void);
/* The tightest memory limit of this process's cgroup and of those around it (v2: memory.max; v1: memory.limit_in_bytes);
 * 0: none. root: before /proc and /sys; "" but in tests. */
uint64_t budget_cgroup_limit(const char *root);
/* bytes == 0: no ceiling. */
void budget_set_limit(uint64_t bytes);
/* Always counts. The caller decides by budget_level() beforehand whether to begin new work. */
void budget_charge(size_t n);
void budget_release(size_t n);
/* Charges only if the total stays within the limit. */
NODISCARD bool budget_try_charge(size_t n);
enum budget_level budget_level(void);
uint64_t budget_used(void);
uint64_t budget_limit(void);

#endif
