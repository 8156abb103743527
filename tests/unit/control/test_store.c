/* SPDX-License-Identifier: Apache-2.0
 *
 * Last good versions, objects that move or are named twice, files that cannot be read, gaps of a start.
 */
#include "control_test.h"

static struct store store;

static int setup(void **state)
{
    (void)state;
    store = (struct store){0};
    store_clock = 1000;
    return 0;
}
static int teardown(void **state)
{
    (void)state;
    store_free(&store);
    return 0;
}

static const struct store_object *service(const char *name)
{
    return store_find(&store, KIND_SERVICE, "default", name);
}
static unsigned port_of(const char *name) { return service(name)->good->u.service.ports[0].port; }

static void test_new_changed_same(void **state)
{
    (void)state;
    give(&store, "a.yaml", SERVICE("x", "80"));
    assert_true(settle(&store));
    assert_int_equal(port_of("x"), 80);
    uint64_t generation = service("x")->generation;
    assert_false(settle(&store));
    give(&store, "a.yaml", "# a comment\n" SERVICE("x", "80"));
    settle(&store);
    assert_int_equal(service("x")->generation, generation);
    give(&store, "a.yaml", SERVICE("x", "81"));
    assert_true(settle(&store));
    assert_int_equal(service("x")->generation, generation + 1);
    assert_int_equal(port_of("x"), 81);
}

static void test_bad_object_keeps_last_good(void **state)
{
    (void)state;
    give(&store, "a.yaml", SERVICE("x", "80") SERVICE("z", "80"));
    settle(&store);
    give(&store, "a.yaml", SERVICE("x", "99999") SERVICE("z", "81"));
    assert_true(settle(&store));
    assert_int_equal(port_of("x"), 80);
    assert_true(service("x")->stale);
    assert_true(service("x")->diag.errors > 0);
    assert_int_equal(port_of("z"), 81); /* the other is not held up */
    assert_int_equal(store_bad_count(&store), 1);
    give(&store, "a.yaml", SERVICE("x", "82") SERVICE("z", "81"));
    assert_true(settle(&store));
    assert_int_equal(port_of("x"), 82);
    assert_false(service("x")->stale);
    assert_int_equal(store_bad_count(&store), 0);
}

static void test_file_that_does_not_parse_keeps_its_objects(void **state)
{
    (void)state;
    give(&store, "a.yaml", SERVICE("x", "80"));
    settle(&store);
    give(&store, "a.yaml", "a: [b\n");
    assert_true(settle(&store)); /* its error is news */
    time_passes();
    assert_false(settle(&store));
    assert_int_equal(port_of("x"), 80);
    struct diag files = {0};
    store_file_errors(&store, &files);
    assert_true(files.errors > 0);
    diag_free(&files);
}

static void test_unreadable_file_keeps_its_objects(void **state)
{
    (void)state;
    give(&store, "a.yaml", SERVICE("x", "80"));
    settle(&store);
    store_file_set(&store, "a.yaml", STR_NONE, "Permission denied", "default");
    assert_true(settle(&store));
    assert_int_equal(port_of("x"), 80);
    assert_int_equal(store_bad_count(&store), 1);
    store_file_set(&store, "a.yaml", STR_NONE, "Permission denied", "default");
    assert_false(settle(&store)); /* the same error is no news */
    give(&store, "a.yaml", SERVICE("x", "80"));
    assert_true(settle(&store));
    assert_int_equal(store_bad_count(&store), 0);
}

static void test_object_goes_after_a_while(void **state)
{
    (void)state;
    give(&store, "a.yaml", SERVICE("x", "80") SERVICE("z", "80"));
    settle(&store);
    /* A file that is rewritten in place is empty for a moment. */
    give(&store, "a.yaml", "");
    settle(&store);
    assert_non_null(service("x"));
    assert_int_equal(store.missing, 2);
    give(&store, "a.yaml", SERVICE("x", "80"));
    settle(&store);
    assert_int_equal(store.missing, 1);
    time_passes();
    assert_true(settle(&store));
    assert_null(service("z"));
    assert_non_null(service("x"));
    assert_int_equal(store.missing, 0);
    store_file_remove(&store, "a.yaml");
    settle(&store);
    time_passes();
    assert_true(settle(&store));
    assert_null(service("x"));
}

static void test_object_moves_between_files(void **state)
{
    (void)state;
    give(&store, "a.yaml", SERVICE("x", "80"));
    give(&store, "b.yaml", SERVICE("z", "80"));
    settle(&store);
    uint64_t generation = service("x")->generation;
    give(&store, "a.yaml", "");
    give(&store, "b.yaml", SERVICE("z", "80") SERVICE("x", "80"));
    settle(&store);
    assert_string_equal(service("x")->file, "b.yaml");
    assert_int_equal(service("x")->generation, generation); /* nothing was lost on the way */
    assert_int_equal(service("x")->diag.errors, 0);
    store_file_remove(&store, "a.yaml");
    time_passes();
    settle(&store);
    assert_non_null(service("x"));
}

static void give_text(enum store_origin origin, const char *key, const char *text)
{
    store_text_set(&store, origin, key, str_of(text), "default");
}

static void test_origins(void **state)
{
    (void)state;
    give(&store, "a.yaml", SERVICE("z", "80"));
    give_text(ORIGIN_KUBE_API, "Service/default/x", SERVICE("x", "80"));
    assert_true(settle(&store));
    assert_int_equal(service("x")->origin, ORIGIN_KUBE_API);
    assert_int_equal(service("x")->good->meta.origin, ORIGIN_KUBE_API);
    assert_int_equal(service("z")->good->meta.origin, ORIGIN_FILE);
    /* A file cannot take over what kubectl applied, though it was known earlier. */
    give(&store, "a.yaml", SERVICE("z", "80") SERVICE("x", "81"));
    assert_true(settle(&store));
    assert_int_equal(port_of("x"), 80);
    assert_int_equal(service("x")->diag.errors, 1);
    /* Removed: gone at once, and the file's comes in the same settle. */
    uint64_t generation = service("x")->generation;
    store_text_remove(&store, ORIGIN_KUBE_API, "Service/default/x");
    assert_true(settle(&store));
    assert_int_equal(port_of("x"), 81);
    assert_int_equal(service("x")->diag.errors, 0);
    assert_int_equal(service("x")->generation, generation + 1);
    give_text(ORIGIN_CLUSTER, "Service/default/w", SERVICE("w", "80"));
    settle(&store);
    assert_int_equal(service("w")->good->meta.origin, ORIGIN_CLUSTER);
    store_text_remove(&store, ORIGIN_CLUSTER, "Service/default/w");
    assert_true(settle(&store));
    assert_null(service("w"));
    assert_int_equal(store.missing, 0);
}

static void test_origin_changes_with_same_text(void **state)
{
    (void)state;
    give_text(ORIGIN_KUBE_API, "Service/default/x", SERVICE("x", "80"));
    settle(&store);
    uint64_t generation = service("x")->generation;
    give(&store, "a.yaml", SERVICE("x", "80"));
    store_text_remove(&store, ORIGIN_KUBE_API, "Service/default/x");
    settle(&store);
    assert_int_equal(service("x")->good->meta.origin, ORIGIN_FILE);
    assert_int_equal(service("x")->generation, generation + 1); /* what it may do is another thing now */
}

static void test_object_in_two_files(void **state)
{
    (void)state;
    give(&store, "a.yaml", SERVICE("x", "80"));
    give(&store, "b.yaml", SERVICE("x", "81"));
    assert_true(settle(&store));
    assert_int_equal(port_of("x"), 80); /* who had it first keeps it */
    assert_int_equal(service("x")->diag.errors, 1);
    assert_non_null(strstr(service("x")->diag.entries[0].message, "already defined at a.yaml:1"));
    assert_false(settle(&store)); /* and it is no news every time */
    give(&store, "a.yaml", "");
    assert_true(settle(&store));
    assert_int_equal(port_of("x"), 81);
    assert_int_equal(service("x")->diag.errors, 0);
}

static void test_same_object_twice_in_a_file(void **state)
{
    (void)state;
    give(&store, "a.yaml", SERVICE("x", "80") SERVICE("x", "81"));
    settle(&store);
    assert_int_equal(port_of("x"), 80);
    assert_int_equal(service("x")->diag.errors, 1);
}

static void test_spoilt_name_keeps_the_object(void **state)
{
    (void)state;
    give(&store, "a.yaml", PLUGIN("istio-system", "p", "url: 'file:///p.wasm'") SERVICE("x", "80"));
    settle(&store);
    give(
        &store, "a.yaml",
        "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {nam: p}\nspec: {url: x}\n---\n" SERVICE(
            "x", "80"));
    settle(&store);
    time_passes();
    settle(&store);
    const struct store_object *p = store_find(&store, KIND_WASM_PLUGIN, "istio-system", "p");
    assert_non_null(p);
    assert_non_null(p->good);
    assert_true(p->stale);
    assert_int_equal(p->diag.errors, 1);
    assert_int_equal(service("x")->diag.errors, 0);
    /* Mended by leaving it out: now it is gone. */
    give(&store, "a.yaml", SERVICE("x", "80"));
    settle(&store);
    time_passes();
    settle(&store);
    assert_null(store_find(&store, KIND_WASM_PLUGIN, "istio-system", "p"));
}

static void test_foreign_kinds_hold_nothing(void **state)
{
    (void)state;
    static const char foreign[] = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n---\n";
    char text[512];
    snprintf(text, sizeof text, "%s%s", foreign, SERVICE("x", "80"));
    give(&store, "a.yaml", text);
    settle(&store);
    give(&store, "a.yaml", foreign);
    settle(&store);
    time_passes();
    settle(&store);
    assert_null(service("x"));
    assert_int_equal(store_bad_count(&store), 0);
}

static void test_gaps_of_a_start(void **state)
{
    (void)state;
    give(&store, "a.yaml", PLUGIN("istio-system", "bad", "url: 'fake://x'"));
    give(&store, "b.yaml", "a: [b\n");
    give(&store, "c.yaml", SERVICE("x", "99999")); /* lets nothing pass by */
    settle(&store);
    store_mark_gaps(&store);
    struct strbuf why = {0};
    assert_true(store_write_gaps(&store, &why));
    strbuf_addc(&why, '\0');
    assert_non_null(strstr(why.p, "WasmPlugin istio-system/bad"));
    assert_non_null(strstr(why.p, "b.yaml"));
    assert_null(strstr(why.p, "Service"));
    strbuf_clear(&why);
    give(&store, "a.yaml", PLUGIN("istio-system", "bad", "url: 'file:///x'"));
    /* The file parses now, but what it names is still unknown: the gap goes on. */
    give(&store, "b.yaml", PLUGIN("istio-system", "other", "url: 'fake://x'"));
    settle(&store);
    assert_true(store_write_gaps(&store, &why));
    strbuf_addc(&why, '\0');
    assert_non_null(strstr(why.p, "WasmPlugin istio-system/other"));
    strbuf_clear(&why);
    give(&store, "b.yaml", PLUGIN("istio-system", "other", "url: 'file:///x'"));
    settle(&store);
    assert_false(store_write_gaps(&store, &why));
    /* What goes bad later keeps its last good version: no gap. */
    give(&store, "b.yaml", "a: [b\n");
    give(&store, "a.yaml", PLUGIN("istio-system", "bad", "url: 'fake://x'"));
    settle(&store);
    assert_false(store_write_gaps(&store, &why));
    strbuf_free(&why);
}

int main(void)
{
    log_set_level(LOG_OFF);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_new_changed_same, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_object_keeps_last_good, setup, teardown),
        cmocka_unit_test_setup_teardown(test_file_that_does_not_parse_keeps_its_objects, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unreadable_file_keeps_its_objects, setup, teardown),
        cmocka_unit_test_setup_teardown(test_object_goes_after_a_while, setup, teardown),
        cmocka_unit_test_setup_teardown(test_object_moves_between_files, setup, teardown),
        cmocka_unit_test_setup_teardown(test_origins, setup, teardown),
        cmocka_unit_test_setup_teardown(test_origin_changes_with_same_text, setup, teardown),
        cmocka_unit_test_setup_teardown(test_object_in_two_files, setup, teardown),
        cmocka_unit_test_setup_teardown(test_same_object_twice_in_a_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_spoilt_name_keeps_the_object, setup, teardown),
        cmocka_unit_test_setup_teardown(test_foreign_kinds_hold_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_gaps_of_a_start, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
