/* SPDX-License-Identifier: Apache-2.0
 *
 * Metric series of plugins: they live as long as any generation of their plugin, or another plugin that defines the
 * same name.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>

#include "wasm/series.h"

static bool written(const char *text)
{
    struct strbuf out = {0};

    metrics_write(&out);
    bool found = out.n != 0 && str_find_str(strbuf_str(&out), str_of(text)) >= 0;
    strbuf_free(&out);
    return found;
}

static metric_id guest(struct series_user *set, const char *name, size_t max)
{
    bool full;

    return series_define_guest(set, METRICS_COUNTER, str_of(name), max, &full);
}

static void test_goes_with_the_last_generation(void **state)
{
    (void)state;
    struct series_user *old = series_open(STR("ns.a")), *newer = series_open(STR("ns.a"));
    metric_id own = series_define(old, METRICS_GAUGE, STR("weir_t"), STR("plugin=\"ns.a\""), NULL);
    metric_id guests = guest(old, "t_guest", 10);

    metrics_gauge_set(own, 7);
    metrics_add(guests, 3);
    series_close(old);
    assert_int_equal(metrics_read(own), 7);
    assert_int_equal(guest(newer, "t_guest", 10), guests);
    assert_int_equal(metrics_read(guests), 3);
    series_close(newer);
    assert_false(written("weir_t"));
    assert_false(written("t_guest"));
    assert_int_equal(metrics_read(guests), 0);
}

static void test_two_plugins_share_a_name(void **state)
{
    (void)state;
    struct series_user *a = series_open(STR("ns.a")), *b = series_open(STR("ns.b"));
    metric_id id = guest(a, "t_shared", 10);

    assert_int_equal(guest(b, "t_shared", 10), id);
    assert_int_equal(guest(b, "t.shared", 10), id); /* the same when sanitised */
    metrics_add(id, 1);
    series_close(b);
    assert_true(written("t_shared 1"));
    series_close(a);
    assert_false(written("t_shared"));
}

static void test_bounded_by_name(void **state)
{
    bool full;

    (void)state;
    struct series_user *set = series_open(STR("ns.a")), *again = series_open(STR("ns.a"));
    assert_int_not_equal(guest(set, "t_1", 2), METRIC_NONE);
    assert_int_not_equal(guest(again, "t_2", 2), METRIC_NONE);
    assert_int_equal(series_define_guest(again, METRICS_COUNTER, STR("t_3"), 2, &full), METRIC_NONE);
    assert_true(full);
    assert_int_not_equal(series_define_guest(again, METRICS_COUNTER, STR("t_1"), 2, &full), METRIC_NONE);
    assert_false(full);
    /* the gateway's own are not counted; a clash of types holds nothing */
    assert_int_not_equal(series_define(set, METRICS_COUNTER, STR("weir_own"), STR_NONE, NULL), METRIC_NONE);
    assert_int_equal(series_define_guest(set, METRICS_GAUGE, STR("t_1"), 9, &full), METRIC_NONE);
    assert_false(full);
    series_close(set);
    series_close(again);
    assert_false(written("t_1"));
}

/* What only past generations have defined makes room for what the present one defines. */
static void test_unused_names_make_room(void **state)
{
    bool full;

    (void)state;
    struct series_user *old = series_open(STR("ns.a"));
    metric_id kept = guest(old, "t_kept", 3);
    assert_int_not_equal(guest(old, "t_old_1", 3), METRIC_NONE);
    assert_int_not_equal(guest(old, "t_old_2", 3), METRIC_NONE);
    metrics_add(kept, 5);
    struct series_user *newer = series_open(STR("ns.a"));
    assert_int_equal(guest(newer, "t_kept", 3), kept);
    assert_int_equal(series_define_guest(newer, METRICS_COUNTER, STR("t_new"), 3, &full), METRIC_NONE);
    assert_true(full); /* the old generation still counts */
    series_close(old);
    assert_true(written("t_old_1")); /* until its place is wanted */
    assert_int_not_equal(guest(newer, "t_new", 3), METRIC_NONE);
    assert_false(written("t_old_"));
    assert_true(written("t_kept 5"));
    assert_int_not_equal(guest(newer, "t_new_2", 3), METRIC_NONE);
    assert_int_equal(guest(newer, "t_new_3", 3), METRIC_NONE);
    series_close(newer);
    assert_false(written("t_kept"));
}

static void *churn(void *arg)
{
    for (int i = 0; i < 500; i++) {
        struct series_user *set = series_open(str_of(arg));
        metric_id id = guest(set, "t_churned", 10);
        metrics_add(id, 1);
        assert_true(metrics_read(id) >= 1);
        series_close(set);
    }
    return NULL;
}

static void test_threads(void **state)
{
    static const char *const names[] = {"ns.a", "ns.a", "ns.b", "ns.c"};
    pthread_t threads[ARRAY_LEN(names)];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, churn, (void *)(uintptr_t)names[i]), 0);
    }
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        pthread_join(threads[i], NULL);
    }
    assert_false(written("t_churned"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_goes_with_the_last_generation),
        cmocka_unit_test(test_two_plugins_share_a_name),
        cmocka_unit_test(test_bounded_by_name),
        cmocka_unit_test(test_unused_names_make_room),
        cmocka_unit_test(test_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
