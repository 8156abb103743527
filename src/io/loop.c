/* SPDX-License-Identifier: Apache-2.0
 *
 * A libuv loop with work put off to the end of the turn. libuv runs, in each turn: timers, pending, idle, prepare,
 * poll, check, closing callbacks. Deferred tasks run in check, that is right after the I/O callbacks that deferred
 * them; an idle handle is active while any wait, so that what timers and closing callbacks defer does not sleep
 * through the next poll. A task that defers itself again must not keep the loop from its I/O.
 */
#include "io/loop.h"

#include <signal.h>

/* Rounds of tasks deferring tasks in one turn; what is left then waits for the next. */
enum { LOOP_ROUNDS = 16 };

static void uv_must(int result)
{
    /* libuv fails here only for want of memory or descriptors while the process starts. */
    ASSERT(result == 0);
}

static void on_wake(uv_idle_t *idle) { (void)idle; }

static void run_round(struct loop *loop)
{
    struct list round = LIST_INIT(round);
    list_insert_after(&loop->deferred, &round); /* takes the place of the head */
    list_remove(&loop->deferred);
    while (!list_is_empty(&round)) {
        struct loop_task *task = LIST_ENTRY(round.next, struct loop_task, node);
        list_remove(&task->node);
        task->fn(task);
    }
}

static void run_deferred(struct loop *loop)
{
    for (int i = 0; i < LOOP_ROUNDS && !list_is_empty(&loop->deferred); i++)
        run_round(loop);
    if (list_is_empty(&loop->deferred))
        uv_idle_stop(&loop->wake);
}

static void on_check(uv_check_t *check)
{
    struct loop *loop = CONTAINER_OF(check, struct loop, check);
    if (!list_is_empty(&loop->deferred))
        run_deferred(loop);
}

/* A peer or a child that closes early is an error like any other: libuv's pipes and TLS would raise a signal. */
static void ignore_broken_pipes(void)
{
    struct sigaction now;
    if (sigaction(SIGPIPE, NULL, &now) == 0 && now.sa_handler == SIG_DFL)
        signal(SIGPIPE, SIG_IGN);
}

void loop_init(struct loop *loop)
{
    ignore_broken_pipes();
    uv_must(uv_loop_init(&loop->uv));
    uv_must(uv_check_init(&loop->uv, &loop->check));
    uv_must(uv_idle_init(&loop->uv, &loop->wake));
    uv_must(uv_check_start(&loop->check, on_check)); /* also keeps uv_run from ending by itself */
    list_init(&loop->deferred);
}

void loop_run(struct loop *loop) { uv_run(&loop->uv, UV_RUN_DEFAULT); }

void loop_stop(struct loop *loop) { uv_stop(&loop->uv); }

struct handle_count {
    const struct loop *loop;
    size_t open, closing;
};

static void count_handle(uv_handle_t *handle, void *arg)
{
    struct handle_count *n = arg;
    if (handle == (const uv_handle_t *)&n->loop->check || handle == (const uv_handle_t *)&n->loop->wake)
        return;
    if (uv_is_closing(handle))
        n->closing++;
    else
        n->open++;
}

/* A close callback may close the next handle of its owner, so what is open is judged once nothing is closing any more.
 */
static void run_until_closed(struct loop *loop)
{
    struct handle_count n;
    do {
        run_deferred(loop);
        uv_run(&loop->uv, UV_RUN_NOWAIT);
        n = (struct handle_count){.loop = loop};
        uv_walk(&loop->uv, count_handle, &n);
    } while (n.closing > 0 || !list_is_empty(&loop->deferred));
    ASSERT(n.open == 0);
}

void loop_fini(struct loop *loop)
{
    run_until_closed(loop);
    run_deferred(loop);
    uv_close((uv_handle_t *)&loop->check, NULL);
    uv_close((uv_handle_t *)&loop->wake, NULL);
    uv_run(&loop->uv, UV_RUN_DEFAULT);
    ASSERT(list_is_empty(&loop->deferred));
    uv_must(uv_loop_close(&loop->uv));
}

/* ---- tasks ---- */

void loop_task_init(struct loop_task *task, void (*fn)(struct loop_task *task))
{
    list_init(&task->node);
    task->fn = fn;
}

void loop_defer(struct loop *loop, struct loop_task *task)
{
    if (list_is_linked(&task->node))
        return;
    if (list_is_empty(&loop->deferred))
        uv_idle_start(&loop->wake, on_wake);
    list_push_back(&loop->deferred, &task->node);
}

void loop_task_cancel(struct loop_task *task) { list_remove(&task->node); }

/* ---- timers ---- */

static void on_timer(uv_timer_t *uv)
{
    struct loop_timer *timer = CONTAINER_OF(uv, struct loop_timer, uv);
    timer->fn(timer);
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct loop_timer *timer = CONTAINER_OF(handle, struct loop_timer, uv);
    if (timer->closed != NULL)
        timer->closed(timer);
}

void loop_timer_init(struct loop_timer *timer, struct loop *loop, void (*fn)(struct loop_timer *timer))
{
    uv_must(uv_timer_init(&loop->uv, &timer->uv));
    timer->fn = fn;
    timer->closed = NULL;
}

void loop_timer_start(struct loop_timer *timer, uint64_t ms) { uv_must(uv_timer_start(&timer->uv, on_timer, ms, 0)); }

void loop_timer_stop(struct loop_timer *timer) { uv_timer_stop(&timer->uv); }

bool loop_timer_is_active(const struct loop_timer *timer) { return uv_is_active((const uv_handle_t *)&timer->uv) != 0; }

void loop_timer_close(struct loop_timer *timer, void (*closed)(struct loop_timer *timer))
{
    timer->closed = closed;
    uv_close((uv_handle_t *)&timer->uv, on_timer_closed);
}
