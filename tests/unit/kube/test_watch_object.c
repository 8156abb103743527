/* SPDX-License-Identifier: Apache-2.0
 *
 * JSON spans, lines of a watch, objects taken apart, statuses merged: what bytes of an API server go through.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "kube/json_scan.h"
#include "kube/lease.h"
#include "kube/status_writer.h"

#define assert_span(got, text) assert_true(str_is((got), (text)))

static void values_end_where_they_end(void **state)
{
    (void)state;
    static const char *const whole[] = {
        "{}", "[]", "\"a\\\"b\"", "12.5e+3", "true", "null", "{\"a\":[1,{\"b\":\"]}\"}]}"};
    for (size_t i = 0; i < ARRAY_LEN(whole); i++) {
        struct str rest = str_of(whole[i]), value;
        assert_true(json_scan_value(&rest, &value));
        assert_span(value, whole[i]);
        assert_int_equal(rest.n, 0);
    }
    static const char *const broken[] = {"", " ", "{", "[1", "\"a", "\"a\\", "}", "{]", "[}", "{\"a\":[1}", "'a'"};
    for (size_t i = 0; i < ARRAY_LEN(broken); i++) {
        struct str rest = str_of(broken[i]), value;
        assert_false(json_scan_value(&rest, &value));
    }
}

static void depth_is_bounded(void **state)
{
    (void)state;
    struct strbuf b = {0};
    for (int i = 0; i < JSON_SCAN_DEPTH; i++)
        strbuf_addc(&b, '[');
    for (int i = 0; i < JSON_SCAN_DEPTH; i++)
        strbuf_addc(&b, ']');
    struct str rest = strbuf_str(&b), value;
    assert_true(json_scan_value(&rest, &value));
    strbuf_clear(&b);
    for (int i = 0; i <= JSON_SCAN_DEPTH; i++)
        strbuf_addc(&b, '[');
    for (int i = 0; i <= JSON_SCAN_DEPTH; i++)
        strbuf_addc(&b, ']');
    rest = strbuf_str(&b);
    assert_false(json_scan_value(&rest, &value));
    strbuf_free(&b);
}

static void members_and_strings(void **state)
{
    (void)state;
    struct str o = STR("{ \"a\" : 1 , \"b\" : { \"c\" : \"x\\u00e4\\ud83d\\ude00\\n\" } }");
    assert_span(json_get(o, "a"), "1");
    assert_null(json_get(o, "d").p);
    char *text = json_scan_string(json_get(json_get(o, "b"), "c"));
    assert_string_equal(text, "x\xc3\xa4\xf0\x9f\x98\x80\n");
    mem_free(text);
    assert_null(json_scan_string(STR("\"\\u0000\"")));
    assert_null(json_scan_string(STR("\"\\x\"")));
    assert_null(json_scan_string(STR("12")));
    struct json_iter it = json_iter(STR("[1 2]"));
    while (json_iter_next(&it)) {
    }
    assert_true(it.bad);
    it = json_iter(STR("{\"a\" 1}"));
    assert_false(json_iter_next(&it));
    assert_true(it.bad);
}

/* ---- lines ---- */

struct lines {
    struct strbuf out;
    unsigned skipped;
};
static bool on_line(void *arg, struct str text)
{
    struct lines *l = arg;
    strbuf_add(&l->out, text);
    strbuf_addc(&l->out, '|');
    return !str_is(text, "stop");
}
static void on_skipped(void *arg, struct str begin)
{
    struct lines *l = arg;
    assert_true(str_starts(begin, STR("xxxx")));
    l->skipped++;
}

static void lines_in_pieces(void **state)
{
    (void)state;
    struct str text = STR("one\ntwo\r\n\nthree\n");
    for (size_t piece = 1; piece <= text.n; piece++) {
        struct kube_lines k = {0};
        struct lines l = {0};
        for (size_t at = 0; at < text.n; at += piece)
            assert_true(kube_lines_feed(&k, str_upto(str_from(text, at), at + piece < text.n ? piece : text.n - at),
                                        on_line, on_skipped, &l));
        assert_span(strbuf_str(&l.out), "one|two|three|");
        strbuf_free(&l.out);
        strbuf_free(&k.part);
    }
    struct kube_lines k = {0};
    struct lines l = {0};
    assert_false(kube_lines_feed(&k, STR("a\nstop\nb\n"), on_line, on_skipped, &l));
    assert_span(strbuf_str(&l.out), "a|stop|");
    strbuf_free(&l.out);
    strbuf_free(&k.part);
}

static void a_line_too_long_is_passed_over(void **state)
{
    (void)state;
    struct kube_lines k = {0};
    struct lines l = {0};
    char *x = mem_alloc(1024 * 1024);
    memset(x, 'x', 1024 * 1024);
    assert_true(kube_lines_feed(&k, STR("before\n"), on_line, on_skipped, &l));
    for (int i = 0; i < 9; i++)
        assert_true(kube_lines_feed(&k, str_span(x, 1024 * 1024), on_line, on_skipped, &l));
    assert_true(k.part.cap <= KUBE_OBJECT_MAX * 2);
    assert_true(kube_lines_feed(&k, STR("end\nafter\n"), on_line, on_skipped, &l));
    assert_span(strbuf_str(&l.out), "before|after|");
    assert_int_equal(l.skipped, 1);
    mem_free(x);
    strbuf_free(&l.out);
    strbuf_free(&k.part);
}

/* ---- objects ---- */

static void an_object_is_taken_apart(void **state)
{
    (void)state;
    struct kube_parsed p;
    assert_true(
        kube_parse(STR("{\"metadata\":{\"name\":\"n\",\"namespace\":\"s\",\"uid\":\"u\",\"resourceVersion\":\"7\","
                       "\"managedFields\":[{\"a\":1}]},\"spec\":{\"x\":99999999999999999999},\"status\":{\"y\":1}}"),
                   "v1", "Service", &p));
    assert_span(strbuf_str(&p.text),
                "{\"apiVersion\":\"v1\",\"kind\":\"Service\",\"metadata\":{\"name\":\"n\",\"namespace\":"
                "\"s\",\"uid\":\"u\"},\"spec\":{\"x\":99999999999999999999}}");
    assert_string_equal(p.name, "n");
    assert_string_equal(p.ns, "s");
    assert_string_equal(p.resource_version, "7");
    assert_span(p.status, "{\"y\":1}");
    assert_int_equal(p.text.p[p.version_at - 1], '{');
    kube_parsed_free(&p);
    assert_true(
        kube_parse(STR("{\"kind\":\"K\",\"apiVersion\":\"g/v\",\"metadata\":{\"name\":\"n\"}}"), "v1", "Service", &p));
    assert_span(strbuf_str(&p.text), "{\"apiVersion\":\"g/v\",\"kind\":\"K\",\"metadata\":{\"name\":\"n\"}}");
    kube_parsed_free(&p);
    assert_false(kube_parse(STR("{\"metadata\":{}}"), "v1", "Service", &p));
    assert_false(kube_parse(STR("[]"), "v1", "Service", &p));
}

/* ---- status ---- */

static void check_merge(const char *wanted, const char *current, const char *merged, bool same)
{
    bool got = false;
    char *text = kube_status_merge(str_of(wanted), str_of(current), &got);
    assert_string_equal(text, merged);
    assert_int_equal(got, same);
    mem_free(text);
}

static void times_of_the_same_status_are_kept(void **state)
{
    (void)state;
    const char *wanted = "{\"conditions\":[{\"type\":\"A\",\"status\":\"True\",\"lastTransitionTime\":\"new\"},"
                         "{\"type\":\"B\",\"status\":\"False\",\"lastTransitionTime\":\"new\"}]}";
    check_merge(wanted, "", wanted, false);
    check_merge(wanted,
                "{\"conditions\":[{\"type\":\"B\",\"status\":\"True\",\"lastTransitionTime\":\"old\"},"
                "{\"type\":\"A\",\"status\":\"True\",\"lastTransitionTime\":\"old\"}]}",
                "{\"conditions\":[{\"type\":\"A\",\"status\":\"True\",\"lastTransitionTime\":\"old\"},"
                "{\"type\":\"B\",\"status\":\"False\",\"lastTransitionTime\":\"new\"}]}",
                false);
    check_merge(
        "{\"listeners\":[{\"name\":\"l\",\"conditions\":[{\"type\":\"A\",\"status\":\"True\",\"lastTransitionTime\":"
        "\"new\"}]}]}",
        "{\"addresses\":[],\"listeners\":[{\"name\":\"l\",\"conditions\":[{\"type\":\"A\",\"status\":\"True\","
        "\"lastTransitionTime\":\"old\"}]}]}",
        "{\"listeners\":[{\"name\":\"l\",\"conditions\":[{\"type\":\"A\",\"status\":\"True\",\"lastTransitionTime\":"
        "\"old\"}]}]}",
        true);
    bool same;
    assert_null(kube_status_merge(STR("nonsense"), STR("{}"), &same));
}

static void parents_of_others_stay(void **state)
{
    (void)state;
    check_merge("{\"parents\":[{\"controllerName\":\"gateway.weir/controller\",\"parentRef\":{\"name\":\"g\"}}]}",
                "{\"parents\":[{\"controllerName\":\"x/y\",\"parentRef\":{\"name\":\"g\"}},"
                "{\"controllerName\":\"gateway.weir/controller\",\"parentRef\":{\"name\":\"gone\"}}]}",
                "{\"parents\":[{\"controllerName\":\"x/y\",\"parentRef\":{\"name\":\"g\"}},"
                "{\"controllerName\":\"gateway.weir/controller\",\"parentRef\":{\"name\":\"g\"}}]}",
                false);
}

static void micro_time_has_six_digits(void **state)
{
    (void)state;
    struct strbuf b = {0};
    kube_micro_time(&b, 1795446000, 42);
    assert_span(strbuf_str(&b), "2026-11-23T15:00:00.000042Z");
    strbuf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_end_where_they_end),
        cmocka_unit_test(depth_is_bounded),
        cmocka_unit_test(members_and_strings),
        cmocka_unit_test(lines_in_pieces),
        cmocka_unit_test(a_line_too_long_is_passed_over),
        cmocka_unit_test(an_object_is_taken_apart),
        cmocka_unit_test(times_of_the_same_status_are_kept),
        cmocka_unit_test(parents_of_others_stay),
        cmocka_unit_test(micro_time_has_six_digits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
