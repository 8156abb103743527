/* SPDX-License-Identifier: Apache-2.0
 *
 * Deferred tasks and timers: what runs in which turn.
 */
#include "io/loop.h"

#include <setjmp.h>
#include <string.h>

#include <cmocka.h>

struct worker_like {
    struct loop loop;
    struct loop_task task, other;
    struct loop_timer timer;
    int ran, other_ran, fired;
    bool inside;
};

static struct worker_like w;

static int setup(void **state)
{
    (void)state;
    memset(&w, 0, sizeof(w));
    loop_init(&w.loop);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    loop_fini(&w.loop);
    return 0;
}

static void count_task(struct loop_task *task)
{
    assert_false(w.inside);
    assert_false(list_is_linked(&task->node));
    w.ran++;
}

static void count_other(struct loop_task *task)
{
    (void)task;
    w.other_ran++;
    loop_stop(&w.loop);
}

static void on_timer(struct loop_timer *timer)
{
    (void)timer;
    w.fired++;
    w.inside = true;
    loop_defer(&w.loop, &w.task);
    loop_defer(&w.loop, &w.task); /* waits already */
    loop_defer(&w.loop, &w.other);
    w.inside = false;
}

static void test_deferred_from_a_timer(void **state)
{
    (void)state;
    loop_task_init(&w.task, count_task);
    loop_task_init(&w.other, count_other);
    loop_timer_init(&w.timer, &w.loop, on_timer);
    loop_timer_start(&w.timer, 0);
    assert_true(loop_timer_is_active(&w.timer));
    loop_run(&w.loop); /* ends by the second task; would sleep for ever if tasks did not wake it */
    assert_int_equal(w.fired, 1);
    assert_int_equal(w.ran, 1);
    assert_int_equal(w.other_ran, 1);
    assert_false(loop_timer_is_active(&w.timer)); /* one-shot */
    loop_timer_close(&w.timer, NULL);
}

static void defer_other(struct loop_task *task)
{
    (void)task;
    loop_defer(&w.loop, &w.other);
}

static void test_a_chain_of_tasks_runs_in_one_turn(void **state)
{
    (void)state;
    loop_task_init(&w.task, defer_other);
    loop_task_init(&w.other, count_other);
    loop_defer(&w.loop, &w.task);
    uv_run(&w.loop.uv, UV_RUN_NOWAIT);
    assert_int_equal(w.other_ran, 1);
}

static void again(struct loop_task *task)
{
    if (++w.ran < 1000)
        loop_defer(&w.loop, task);
}

static void fire(struct loop_timer *timer)
{
    (void)timer;
    w.fired = w.ran;
}

static void test_a_task_that_repeats_does_not_starve_the_loop(void **state)
{
    (void)state;
    loop_task_init(&w.task, again);
    loop_timer_init(&w.timer, &w.loop, fire);
    loop_timer_start(&w.timer, 0);
    loop_defer(&w.loop, &w.task);
    while (w.ran < 1000)
        uv_run(&w.loop.uv, UV_RUN_ONCE);
    assert_true(w.fired < 1000); /* the timer had its turn meanwhile */
    loop_timer_close(&w.timer, NULL);
}

static void test_cancel(void **state)
{
    (void)state;
    loop_task_init(&w.task, count_task);
    loop_task_cancel(&w.task);
    loop_defer(&w.loop, &w.task);
    loop_task_cancel(&w.task);
    uv_run(&w.loop.uv, UV_RUN_NOWAIT);
    assert_int_equal(w.ran, 0);
}

static void cancel_other(struct loop_task *task)
{
    (void)task;
    loop_task_cancel(&w.other);
}

static void test_cancel_from_a_task_of_the_same_round(void **state)
{
    (void)state;
    loop_task_init(&w.task, cancel_other);
    loop_task_init(&w.other, count_other);
    loop_defer(&w.loop, &w.task);
    loop_defer(&w.loop, &w.other);
    uv_run(&w.loop.uv, UV_RUN_NOWAIT);
    assert_int_equal(w.other_ran, 0);
}

static void closed(struct loop_timer *timer)
{
    assert_false(w.inside);
    (void)timer;
    w.ran++;
}

static void test_timer_stop_and_close(void **state)
{
    (void)state;
    loop_timer_init(&w.timer, &w.loop, fire);
    loop_timer_start(&w.timer, 0);
    loop_timer_stop(&w.timer);
    assert_false(loop_timer_is_active(&w.timer));
    uv_run(&w.loop.uv, UV_RUN_NOWAIT);
    assert_int_equal(w.fired, 0);
    loop_timer_start(&w.timer, 1);
    w.inside = true;
    loop_timer_close(&w.timer, closed);
    w.inside = false;
    uv_run(&w.loop.uv, UV_RUN_NOWAIT);
    assert_int_equal(w.ran, 1);
}

static void defer_late(struct loop_timer *timer)
{
    (void)timer;
    loop_defer(&w.loop, &w.task);
}

static void test_fini_runs_what_waits(void **state)
{
    loop_task_init(&w.task, count_task);
    loop_timer_init(&w.timer, &w.loop, fire);
    loop_timer_close(&w.timer, defer_late); /* from a closing callback, inside loop_fini */
    assert_int_equal(teardown(state), 0);
    assert_int_equal(w.ran, 1);
    assert_int_equal(setup(state), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_deferred_from_a_timer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_chain_of_tasks_runs_in_one_turn, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_task_that_repeats_does_not_starve_the_loop, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cancel, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cancel_from_a_task_of_the_same_round, setup, teardown),
        cmocka_unit_test_setup_teardown(test_timer_stop_and_close, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fini_runs_what_waits, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
