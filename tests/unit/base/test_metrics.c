/* SPDX-License-Identifier: Apache-2.0
 *
 * Metrics: sums over threads, histograms, removal and reuse, and that the text output is what Prometheus' own rules
 * say, by a strict reader of it.
 */
#include "base/metrics.h"

#include <setjmp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <pthread.h>

static char *output(void)
{
    struct strbuf out = {0};
    metrics_write(&out);
    return strbuf_take(&out);
}

/* The value of the line that begins with `series` and a space, or -1. */
static double line_value(const char *series)
{
    char *text = output(), *line = text;
    double value = -1;
    size_t n = strlen(series);
    while (line != NULL && *line != '\0') {
        if (strncmp(line, series, n) == 0 && line[n] == ' ')
            value = strtod(line + n + 1, NULL);
        line = strchr(line, '\n');
        line = line != NULL ? line + 1 : NULL;
    }
    mem_free(text);
    return value;
}

static metric_id counter(const char *name, const char *labels)
{
    return metrics_define(METRICS_COUNTER, str_of(name), str_of(labels), "Test.");
}

static void test_counter(void **state)
{
    (void)state;
    metric_id a = counter("t_requests_total", "code=\"2xx\""), b = counter("t_requests_total", "code=\"5xx\"");
    assert_int_not_equal(a, METRIC_NONE);
    assert_int_not_equal(a, b);
    assert_int_equal(counter("t_requests_total", "code=\"2xx\""), a);
    metrics_add(a, 2);
    metrics_add(a, 3);
    metrics_add(b, 1);
    assert_int_equal(metrics_read(a), 5);
    assert_int_equal(metrics_read(b), 1);
    assert_true(line_value("t_requests_total{code=\"2xx\"}") == 5);
    assert_true(line_value("t_requests_total{code=\"5xx\"}") == 1);
}

static void test_gauge(void **state)
{
    (void)state;
    metric_id g = metrics_define(METRICS_GAUGE, STR("t_streams"), STR_NONE, NULL);
    metrics_gauge_set(g, 10);
    metrics_gauge_add(g, -13);
    assert_int_equal(metrics_read(g), -3);
    char *text = output();
    assert_non_null(strstr(text, "# TYPE t_streams gauge\nt_streams -3\n"));
    assert_null(strstr(text, "# HELP t_streams"));
    mem_free(text);
}

static void test_none_and_wrong_type_do_nothing(void **state)
{
    (void)state;
    metrics_add(METRIC_NONE, 1);
    metrics_gauge_set(METRIC_NONE, 1);
    metrics_observe(METRIC_NONE, 1);
    metrics_remove(METRIC_NONE);
    assert_int_equal(metrics_read(METRIC_NONE), 0);
    assert_int_equal(metrics_quantile(METRIC_NONE, 0.5), 0);
    metric_id c = counter("t_typed_total", "");
    metrics_gauge_set(c, 7);
    metrics_observe(c, 7);
    assert_int_equal(metrics_read(c), 0);
    assert_int_equal(metrics_define(METRICS_GAUGE, STR("t_typed_total"), STR_NONE, NULL), METRIC_NONE);
    assert_int_equal(metrics_define(METRICS_GAUGE, STR("t_typed_total"), STR("a=\"b\""), NULL), METRIC_NONE);
}

static void test_names(void **state)
{
    (void)state;
    metric_id a = counter("t.dots-and:colons", "");
    assert_int_equal(counter("t_dots_and:colons", ""), a);
    counter("9lives", "");
    assert_true(line_value("_9lives") == 0);
    counter("", "");
    assert_true(line_value("_") == 0);
    /* what a histogram writes is nobody else's name */
    metric_id h = metrics_define(METRICS_HISTOGRAM, STR("t_time"), STR_NONE, NULL);
    assert_int_not_equal(h, METRIC_NONE);
    assert_int_equal(counter("t_time_count", ""), METRIC_NONE);
    assert_int_equal(counter("t_time_bucket", ""), METRIC_NONE);
    counter("t_late_sum", "");
    assert_int_equal(metrics_define(METRICS_HISTOGRAM, STR("t_late"), STR_NONE, NULL), METRIC_NONE);
}

static void test_labels(void **state)
{
    (void)state;
    struct strbuf labels = {0};
    metrics_label(&labels, "a", STR("x\"y\\z\nw"));
    metrics_label(&labels, "b", STR("\xc3\xa9\x01"));
    metrics_label(&labels, "c", STR("\xff"));
    strbuf_addc(&labels, '\0');
    assert_string_equal(labels.p, "a=\"x\\\"y\\\\z\\nw\",b=\"\xc3\xa9\xef\xbf\xbd\",c=\"\xef\xbf\xbd\"");
    strbuf_free(&labels);
}

static void test_help_is_escaped(void **state)
{
    (void)state;
    metrics_define(METRICS_GAUGE, STR("t_help"), STR_NONE, "two\nlines \\ here");
    char *text = output();
    assert_non_null(strstr(text, "# HELP t_help two\\nlines \\\\ here\n"));
    mem_free(text);
}

static void test_histogram(void **state)
{
    (void)state;
    metric_id h = metrics_define(METRICS_HISTOGRAM, STR("t_seconds"), STR("p=\"x\""), "Time.");
    metrics_scale(h, 1e-6);
    assert_int_equal(metrics_quantile(h, 0.5), 0);
    const uint64_t values[] = {0, 1, 2, 3, 4, 5, 1000, UINT64_C(1) << 30, (UINT64_C(1) << 30) + 1, UINT64_C(1) << 40};
    for (size_t i = 0; i < ARRAY_LEN(values); i++)
        metrics_observe(h, values[i]);
    assert_int_equal(metrics_read(h), 10);
    assert_true(line_value("t_seconds_bucket{p=\"x\",le=\"1e-06\"}") == 2);
    assert_true(line_value("t_seconds_bucket{p=\"x\",le=\"2e-06\"}") == 3);
    assert_true(line_value("t_seconds_bucket{p=\"x\",le=\"4e-06\"}") == 5);
    assert_true(line_value("t_seconds_bucket{p=\"x\",le=\"8e-06\"}") == 6);
    assert_true(line_value("t_seconds_bucket{p=\"x\",le=\"0.000512\"}") == 6);
    assert_true(line_value("t_seconds_bucket{p=\"x\",le=\"0.001024\"}") == 7);
    assert_true(line_value("t_seconds_bucket{p=\"x\",le=\"1073.741824\"}") == 8);
    assert_true(line_value("t_seconds_bucket{p=\"x\",le=\"+Inf\"}") == 10);
    assert_true(line_value("t_seconds_count{p=\"x\"}") == 10);
    assert_true(line_value("t_seconds_sum{p=\"x\"}") > 1099511);
}

static void test_quantile(void **state)
{
    (void)state;
    metric_id h = metrics_define(METRICS_HISTOGRAM, STR("t_quantile"), STR_NONE, NULL);
    for (int i = 0; i < 90; i++)
        metrics_observe(h, 100);
    for (int i = 0; i < 10; i++)
        metrics_observe(h, 5000);
    uint64_t median = metrics_quantile(h, 0.5), p99 = metrics_quantile(h, 0.99);
    assert_in_range(median, 64, 128);
    assert_in_range(p99, 4096, 8192);
    assert_in_range(metrics_quantile(h, 0), 0, 128);
    assert_in_range(metrics_quantile(h, 1), 4096, 8192);
    metric_id far = metrics_define(METRICS_HISTOGRAM, STR("t_far"), STR_NONE, NULL);
    metrics_observe(far, UINT64_MAX);
    metric_id many = metrics_define(METRICS_HISTOGRAM, STR("t_many"), STR_NONE, NULL);
    metrics_observe_n(many, 100, 7);
    metrics_observe_n(many, 100, 0);
    metrics_observe_n(METRIC_NONE, 100, 1);
    assert_int_equal(metrics_read(many), 7);
    assert_true(line_value("t_many_sum") == 700);
    assert_true(line_value("t_many_bucket{le=\"128\"}") == 7);
    assert_int_equal(metrics_quantile(far, 0.5), UINT64_C(1) << 30);
}

static void test_remove_and_reuse(void **state)
{
    (void)state;
    metric_id a = counter("t_gone_total", ""), h = metrics_define(METRICS_HISTOGRAM, STR("t_gone"), STR_NONE, NULL);
    metrics_add(a, 41);
    metrics_observe(h, 3);
    metrics_remove(a);
    metrics_remove(h);
    metrics_remove(h);
    char *text = output();
    assert_null(strstr(text, "t_gone"));
    mem_free(text);
    metrics_add(a, 1);
    assert_int_equal(metrics_read(a), 0);
    /* the name may come back, with another type even, and begins at 0, in the cells that were used before */
    for (int i = 0; i < 3; i++) {
        metric_id again = counter("t_gone_total", "");
        assert_int_not_equal(again, a);
        assert_int_equal(metrics_read(again), 0);
        metrics_add(again, 2);
        metrics_add(a, 100);
        assert_int_equal(metrics_read(again), 2);
        metrics_remove(again);
    }
    metric_id histogram = metrics_define(METRICS_HISTOGRAM, STR("t_back"), STR_NONE, NULL);
    assert_int_equal(metrics_read(histogram), 0);
    metrics_observe(histogram, 3);
    assert_true(line_value("t_back_sum") == 3);
    assert_int_not_equal(metrics_define(METRICS_GAUGE, STR("t_gone_total"), STR_NONE, NULL), METRIC_NONE);
}

static void test_remove_keeps_the_others_of_a_name(void **state)
{
    (void)state;
    metric_id ids[3];
    const char *labels[3] = {"n=\"0\"", "n=\"1\"", "n=\"2\""};
    for (int i = 0; i < 3; i++)
        ids[i] = counter("t_three_total", labels[i]);
    metrics_remove(ids[2]);
    ids[2] = counter("t_three_total", labels[2]);
    metrics_remove(ids[0]);
    assert_true(line_value("t_three_total{n=\"0\"}") == -1);
    assert_true(line_value("t_three_total{n=\"1\"}") == 0);
    assert_true(line_value("t_three_total{n=\"2\"}") == 0);
}

/* ---- threads ---- */

enum { THREADS = 4, ROUNDS = 20000 };
static metric_id shared_counter, shared_histogram, shared_gauge;
static atomic_bool reading;

static void *count(void *arg)
{
    if (arg != NULL)
        metrics_thread_init();
    metric_id own = counter("t_defined_by_all_total", "");
    for (int i = 0; i < ROUNDS; i++) {
        metrics_add(shared_counter, 1);
        metrics_observe(shared_histogram, (uint64_t)i);
        metrics_gauge_add(shared_gauge, i % 2 == 0 ? 1 : -1);
        metrics_add(own, 1);
    }
    if (arg != NULL)
        metrics_thread_fini();
    return NULL;
}

static void *read_all(void *arg)
{
    (void)arg;
    int64_t last = 0;
    while (atomic_load(&reading)) {
        int64_t now = metrics_read(shared_counter);
        assert_true(now >= last);
        last = now;
        mem_free(output());
        metrics_remove(counter("t_comes_and_goes_total", ""));
    }
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    shared_counter = counter("t_threads_total", "");
    shared_histogram = metrics_define(METRICS_HISTOGRAM, STR("t_threads"), STR_NONE, NULL);
    shared_gauge = metrics_define(METRICS_GAUGE, STR("t_threads_gauge"), STR_NONE, NULL);
    atomic_store(&reading, true);
    pthread_t reader, threads[2 * THREADS];
    assert_int_equal(pthread_create(&reader, NULL, read_all, NULL), 0);
    for (int i = 0; i < 2 * THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, count, i % 2 == 0 ? &threads[i] : NULL), 0);
    for (int i = 0; i < 2 * THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    atomic_store(&reading, false);
    assert_int_equal(pthread_join(reader, NULL), 0);
    assert_int_equal(metrics_read(shared_counter), 2 * THREADS * ROUNDS);
    assert_int_equal(metrics_read(shared_histogram), 2 * THREADS * ROUNDS);
    assert_int_equal(metrics_read(shared_gauge), 0);
    assert_int_equal(metrics_read(counter("t_defined_by_all_total", "")), 2 * THREADS * ROUNDS);
}

/* ---- the text format ---- */

static const char *skip_name(const char *p)
{
    assert_true((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || *p == '_' || *p == ':');
    while ((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') || *p == '_' || *p == ':')
        p++;
    return p;
}

static const char *skip_labels(const char *p)
{
    do {
        p = skip_name(p + 1);
        assert_true(p[0] == '=' && p[1] == '"');
        for (p += 2; *p != '"'; p++) {
            assert_true(*p != '\n' && *p != '\0');
            if (*p == '\\')
                p++;
        }
        p++;
    } while (*p == ',');
    assert_int_equal(*p, '}');
    return p + 1;
}

/* Every line is a comment or a sample, every sample belongs to the family of the last TYPE, no family comes twice. */
static void test_text_is_well_formed(void **state)
{
    (void)state;
    char *text = output(), family[128] = "", seen[16384] = "";
    size_t samples = 0;
    for (const char *p = text; *p != '\0'; p++) {
        if (strncmp(p, "# TYPE ", 7) == 0) {
            const char *end = skip_name(p + 7);
            (void)snprintf(family, sizeof(family), "%.*s", (int)(end - p - 7), p + 7);
            char mark[140];
            (void)snprintf(mark, sizeof(mark), "|%s|", family);
            assert_null(strstr(seen, mark));
            (void)strncat(seen, mark, sizeof(seen) - strlen(seen) - 1);
        } else if (*p != '#') {
            assert_int_equal(strncmp(p, family, strlen(family)), 0);
            p = skip_name(p);
            if (*p == '{')
                p = skip_labels(p);
            assert_int_equal(*p, ' ');
            char *end;
            (void)strtod(p + 1, &end);
            assert_int_equal(*end, '\n');
            samples++;
            p = end;
            continue;
        }
        p = strchr(p, '\n');
        assert_non_null(p);
    }
    assert_true(samples > 10);
    mem_free(text);
}

/* Last: it fills the table. */
static void test_full_table(void **state)
{
    (void)state;
    metric_id last = METRIC_NONE, id;
    size_t n = 0;
    do {
        char labels[32];
        (void)snprintf(labels, sizeof(labels), "n=\"%zu\"", n++);
        id = counter("t_many_total", labels);
        last = id != METRIC_NONE ? id : last;
    } while (id != METRIC_NONE);
    assert_in_range(n, 60000, 65536);
    assert_int_equal(counter("t_no_room_total", ""), METRIC_NONE);
    char *text = output();
    assert_null(strstr(text, "t_no_room_total"));
    mem_free(text);
    metrics_remove(last);
    assert_int_not_equal(counter("t_room_total", ""), METRIC_NONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counter),
        cmocka_unit_test(test_gauge),
        cmocka_unit_test(test_none_and_wrong_type_do_nothing),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_labels),
        cmocka_unit_test(test_help_is_escaped),
        cmocka_unit_test(test_histogram),
        cmocka_unit_test(test_quantile),
        cmocka_unit_test(test_remove_and_reuse),
        cmocka_unit_test(test_remove_keeps_the_others_of_a_name),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_text_is_well_formed),
        cmocka_unit_test(test_full_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
