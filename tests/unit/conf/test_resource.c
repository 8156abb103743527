/* SPDX-License-Identifier: Apache-2.0
 *
 * Order and reach of plugins, label matching, names of kinds, references.
 */
#include "conf_test.h"

static struct resource plugin(const char *ns, const char *name, enum plugin_phase phase, int64_t created)
{
    struct resource r = {.meta = {.kind = KIND_WASM_PLUGIN,
                                  .ns = (char *)(uintptr_t)ns,
                                  .name = (char *)(uintptr_t)name,
                                  .created = created}};
    r.u.wasm_plugin.phase = phase;
    return r;
}

static struct resource with_priority(struct resource r, int32_t priority)
{
    r.u.wasm_plugin.has_priority = true;
    r.u.wasm_plugin.priority = priority;
    return r;
}

/* Each one comes before all that follow. */
static void test_order(void **state)
{
    (void)state;
    const struct resource list[] = {
        with_priority(plugin("own", "z", PHASE_AUTHN, 9), INT32_MAX),
        with_priority(plugin("root", "z", PHASE_AUTHN, 9), 10),
        with_priority(plugin("own", "z", PHASE_AUTHN, 9), 0),
        with_priority(plugin("root", "a", PHASE_AUTHN, 1), 0),
        with_priority(plugin("own", "z", PHASE_AUTHN, 9), -5),
        with_priority(plugin("root", "z", PHASE_AUTHN, 9), INT32_MIN),
        plugin("own", "b", PHASE_AUTHN, 5),
        plugin("own", "a", PHASE_AUTHN, 6),
        plugin("own", "b", PHASE_AUTHN, 6),
        plugin("root", "a", PHASE_AUTHN, 1),
        plugin("other", "a", PHASE_AUTHN, 0),
        plugin("third", "a", PHASE_AUTHN, 0),
        with_priority(plugin("own", "a", PHASE_AUTHZ, 0), 1),
        plugin("own", "a", PHASE_AUTHZ, 0),
        plugin("own", "a", PHASE_STATS, 0),
        with_priority(plugin("own", "a", PHASE_UNSPECIFIED, 0), 100),
        plugin("own", "a", PHASE_UNSPECIFIED, 0),
    };
    for (size_t i = 0; i < ARRAY_LEN(list); i++) {
        for (size_t k = 0; k < ARRAY_LEN(list); k++) {
            int c = wasm_plugin_order(&list[i], &list[k], "own", "root");
            assert_int_equal((c > 0) - (c < 0), (i > k) - (i < k));
        }
    }
    struct resource a = plugin("istio-system", "a", PHASE_AUTHN, 2), b = plugin("istio-system", "b", PHASE_AUTHN, 1);
    assert_true(wasm_plugin_order(&a, &b, "istio-system", "istio-system") > 0);
}

static void test_ports(void **state)
{
    (void)state;
    uint16_t ports[] = {80, 8080};
    struct wasm_plugin p = {0};
    assert_true(wasm_plugin_matches_gateway_port(&p, 80));
    struct traffic_match server[] = {{MODE_SERVER, NULL, 0}};
    p.matches = server;
    p.match_count = 1;
    assert_false(wasm_plugin_matches_gateway_port(&p, 80));
    struct traffic_match some[] = {{MODE_SERVER, NULL, 0}, {MODE_UNDEFINED, ports, 2}};
    p.matches = some;
    p.match_count = 2;
    assert_true(wasm_plugin_matches_gateway_port(&p, 8080));
    assert_false(wasm_plugin_matches_gateway_port(&p, 81));
    struct traffic_match any[] = {{MODE_CLIENT_AND_SERVER, NULL, 0}};
    p.matches = any;
    p.match_count = 1;
    assert_true(wasm_plugin_matches_gateway_port(&p, 1));
}

static void test_labels(void **state)
{
    (void)state;
    static char a[] = "a", b[] = "b", c[] = "c", none[] = "";
    struct label ab = {a, b}, both[] = {{a, b}, {c, none}};
    struct labels l = {both, 2}, one = {&ab, 1}, empty = {0};
    assert_true(labels_match(&l, &one));
    assert_false(labels_match(&one, &l));
    assert_true(labels_match(&empty, &empty));
    assert_true(labels_match(&one, &empty));
    assert_string_equal(labels_get(&l, "c"), "");
    char *values[] = {b};
    struct label_requirement in = {a, LABEL_IN, values, 1}, not_in = {a, LABEL_NOT_IN, values, 1},
                             exists = {c, LABEL_EXISTS, NULL, 0}, absent = {c, LABEL_NOT_EXISTS, NULL, 0};
    assert_true(label_selector_matches(&(struct label_selector){.requirements = &in, .requirement_count = 1}, &one));
    assert_false(label_selector_matches(&(struct label_selector){.requirements = &in, .requirement_count = 1}, &empty));
    assert_false(
        label_selector_matches(&(struct label_selector){.requirements = &not_in, .requirement_count = 1}, &one));
    assert_true(
        label_selector_matches(&(struct label_selector){.requirements = &not_in, .requirement_count = 1}, &empty));
    assert_true(label_selector_matches(&(struct label_selector){.requirements = &exists, .requirement_count = 1}, &l));
    assert_true(
        label_selector_matches(&(struct label_selector){.requirements = &absent, .requirement_count = 1}, &one));
    assert_false(label_selector_matches(&(struct label_selector){.requirements = &absent, .requirement_count = 1}, &l));
}

static void test_kinds_and_refs(void **state)
{
    (void)state;
    assert_string_equal(kind_name(KIND_HTTP_ROUTE), "HTTPRoute");
    assert_string_equal(kind_group(KIND_SERVICE), "");
    assert_false(kind_is_namespaced(KIND_GATEWAY_CLASS));
    assert_true(kind_is_namespaced(KIND_SECRET));
    struct documents d;
    struct resource *r =
        resource_ref(parse_one("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, namespace: a}\ndata: {k: v}", &d));
    documents_free(&d);
    assert_string_equal(r->u.config_map.data[0].value, "v");
    struct strbuf b = {0};
    resource_title(&r->meta, &b);
    char *z = strbuf_take(&b);
    assert_string_equal(z, "ConfigMap a/c");
    mem_free(z);
    resource_unref(r);
    resource_unref(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_order), cmocka_unit_test(test_ports),
                                       cmocka_unit_test(test_labels), cmocka_unit_test(test_kinds_and_refs)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
