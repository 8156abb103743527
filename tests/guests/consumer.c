/* SPDX-License-Identifier: Apache-2.0
 *
 * Takes what others put into the shared queue "jobs", when it is told, until it is empty; counts items and their sum in
 * metrics.
 */
#include "proxy_wasm.h"

static uint32_t queue, items, sum, wakes;

bool pw_on_configure(uint32_t root, uint32_t size)
{
    (void)root;
    (void)size;
    pw_register_queue("jobs", &queue);
    items = pw_define_metric(PW_COUNTER, "e2e_jobs");
    sum = pw_define_metric(PW_COUNTER, "e2e_jobs_sum");
    wakes = pw_define_metric(PW_COUNTER, "e2e_jobs_wakes");
    return true;
}

void pw_on_queue_ready(uint32_t root, uint32_t id)
{
    (void)root;
    struct pw_str item;

    if (id != queue) {
        __builtin_trap();
    }
    pw_increment(wakes, 1);
    while (pw_dequeue(queue, &item) == PW_OK) {
        uint64_t n = 0;
        pw_parse_u64(item, &n);
        pw_free_str(&item);
        pw_increment(items, 1);
        if (n != 0) {
            pw_increment(sum, (int64_t)n);
        }
    }
}
