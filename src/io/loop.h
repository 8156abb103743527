/* SPDX-License-Identifier: Apache-2.0
 *
 * One event loop for each thread that has one: a libuv loop, cached time, and work put off until the current
 * event is done. Everything here belongs to the thread that runs the loop, loop_stop included; other threads
 * reach a loop through a mailbox only.
 */
#ifndef WEIR_IO_LOOP_H
#define WEIR_IO_LOOP_H

#include <uv.h>

#include "base/list.h"

struct loop {
    uv_loop_t uv;
    uv_check_t check;
    uv_idle_t wake; /* runs only while deferred work waits, so that the loop does not sleep on it */
    struct list deferred;
};

/* SIGPIPE is ignored from then on, unless the process has its own idea of it. */
void loop_init(struct loop *loop);
/* Runs until loop_stop. */
void loop_run(struct loop *loop);
void loop_stop(struct loop *loop);
/* Every handle must be closed or closing; runs the loop until they are. */
void loop_fini(struct loop *loop);
/* Milliseconds, monotonic, as of the beginning of this turn. No system call. */
static inline uint64_t loop_now(const struct loop *loop) { return uv_now(&loop->uv); }

/* Work for later in this turn of the loop, after the current callback has returned; tasks deferred by tasks run in the
 * same turn too, up to 16 rounds of them. A task is embedded in what it works on; deferring one that waits already does
 * nothing. */
struct loop_task {
    struct list node;
    void (*fn)(struct loop_task *task);
};
void loop_task_init(struct loop_task *task, void (*fn)(struct loop_task *task));
void loop_defer(struct loop *loop, struct loop_task *task);
void loop_task_cancel(struct loop_task *task);

/* One-shot timer. The memory may be released only in `closed`, which never runs inside loop_timer_close. */
struct loop_timer {
    uv_timer_t uv;
    void (*fn)(struct loop_timer *timer);
    void (*closed)(struct loop_timer *timer);
};
void loop_timer_init(struct loop_timer *timer, struct loop *loop, void (*fn)(struct loop_timer *timer));
/* Fires once, ms after loop_now; starting again moves it. */
void loop_timer_start(struct loop_timer *timer, uint64_t ms);
void loop_timer_stop(struct loop_timer *timer);
bool loop_timer_is_active(const struct loop_timer *timer);
void loop_timer_close(struct loop_timer *timer, void (*closed)(struct loop_timer *timer));

#endif
