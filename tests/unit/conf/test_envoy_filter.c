/* SPDX-License-Identifier: Apache-2.0
 *
 * EnvoyFilters read as the WasmPlugins they mean, and what is refused with its path.
 */
#include "conf_test.h"

#define WASM                                                                                                           \
    "\"@type\": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm, config: {root_id: r, fail_open: "      \
    "true, "                                                                                                           \
    "configuration: {\"@type\": type.googleapis.com/google.protobuf.StringValue, value: '{\"a\": 1}'}, "               \
    "vm_config: {code: {local: {filename: /opt/x.wasm}}}}"
#define FILTER(patches)                                                                                                \
    "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {name: f, namespace: ns}\n"                \
    "spec:\n  workloadSelector: {labels: {istio: ingressgateway}}\n  configPatches:\n" patches
#define INLINE(match, operation, typed)                                                                                \
    "  - {applyTo: HTTP_FILTER, match: " match ", patch: {operation: " operation                                       \
    ", value: {name: x, typed_config: {" typed "}}}}\n"
#define BEFORE(name) "{context: GATEWAY, listener: {filterChain: {filter: {subFilter: {name: " name "}}}}}"

static struct documents parse(const char *text)
{
    struct documents d;
    resources_parse(str_of(text), "f.yaml", "default", &d);
    return d;
}

static const struct wasm_plugin *plugin_of(const struct documents *d, size_t i)
{
    assert_true(i < d->count);
    for (size_t k = 0; k < d->list[i].diag.count; k++)
        if (d->list[i].diag.entries[k].level == DIAG_ERROR)
            fail_msg("%s: %s", d->list[i].diag.entries[k].path, d->list[i].diag.entries[k].message);
    assert_non_null(d->list[i].resource);
    assert_int_equal(d->list[i].resource->meta.kind, KIND_WASM_PLUGIN);
    return &d->list[i].resource->u.wasm_plugin;
}

static void an_inline_filter(void **state)
{
    (void)state;
    struct documents d = parse(FILTER(INLINE(BEFORE("envoy.filters.http.router"), "INSERT_BEFORE", WASM)));
    assert_int_equal(d.count, 1);
    const struct wasm_plugin *p = plugin_of(&d, 0);
    assert_string_equal(d.list[0].resource->meta.name, "f");
    assert_string_equal(d.list[0].resource->meta.ns, "ns");
    assert_string_equal(p->url, "file:///opt/x.wasm");
    assert_string_equal(p->plugin_name, "r");
    assert_string_equal(p->config, "{\"a\":1}");
    assert_int_equal(p->fail, PLUGIN_FAIL_OPEN);
    assert_int_equal(p->phase, PHASE_UNSPECIFIED);
    assert_string_equal(labels_get(&p->selector, "istio"), "ingressgateway");
    assert_int_equal(p->match_count, 1);
    assert_int_equal(p->matches[0].mode, MODE_CLIENT);
    documents_free(&d);
}

static void a_pair_and_several_filters(void **state)
{
    (void)state;
    struct documents d = parse(FILTER(
        "  - {applyTo: HTTP_FILTER, patch: {operation: ADD, value: {name: e, config_discovery: {type_urls: [x]}}}}\n"
        "  - {applyTo: EXTENSION_CONFIG, patch: {operation: ADD, value: {name: e, typed_config: {" WASM
        "}}}}\n" INLINE(BEFORE("envoy.filters.http.jwt_authn"), "INSERT_BEFORE", WASM)));
    assert_int_equal(d.count, 2);
    assert_string_equal(d.list[0].resource->meta.name, "f-00");
    assert_int_equal(plugin_of(&d, 1)->phase, PHASE_AUTHN);
    assert_string_equal(d.list[1].resource->meta.name, "f-01");
    documents_free(&d);
}

static void refused(const char *text, const char *path)
{
    struct documents d = parse(text);
    bool found = false;
    assert_true(d.count > 0);
    assert_null(d.list[0].resource);
    for (size_t i = 0; i < d.list[0].diag.count; i++)
        found |= strstr(d.list[0].diag.entries[i].path, path) != NULL;
    if (!found)
        fail_msg("no error at %s", path);
    assert_string_equal(d.list[0].name, "f"); /* its last good version is known by this */
    documents_free(&d);
}

static void what_has_no_equivalent(void **state)
{
    (void)state;
    refused(FILTER(INLINE(BEFORE("envoy.filters.http.router"), "MERGE", WASM)),
            "spec.configPatches[0].patch.operation");
    refused(FILTER(INLINE("{proxy: {proxyVersion: x}}", "ADD", WASM)), "spec.configPatches[0].match.proxy");
    refused(FILTER(INLINE("{listener: {filterChain: {sni: x}}}", "ADD", WASM)),
            "spec.configPatches[0].match.listener.filterChain");
    refused(FILTER(INLINE("{}", "ADD", WASM) "  - {applyTo: CLUSTER, patch: {operation: ADD, value: {name: c}}}\n"),
            "spec.configPatches[1].applyTo");
    refused(FILTER(INLINE("{}", "ADD",
                          "\"@type\": x/envoy.extensions.filters.http.wasm.v3.Wasm, config: {vm_config: {code: "
                          "{local: {inline_string: x}}}}")),
            "spec.configPatches[0].patch.value");
    refused(FILTER(INLINE("{}", "ADD",
                          "\"@type\": x/envoy.extensions.filters.http.wasm.v3.Wasm, config: {configuration: plain, "
                          "vm_config: {code: {local: {filename: /x}}}}")),
            "spec.configPatches[0].patch.value");
}

static void without_wasm_it_is_somebody_elses(void **state)
{
    (void)state;
    struct documents d = parse(FILTER("  - {applyTo: CLUSTER, patch: {operation: MERGE, value: {}}}\n"));
    assert_int_equal(d.count, 0);
    assert_int_equal(d.ignored, 1);
    documents_free(&d);
    d = parse("apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {name: f}\nspec: 1\n");
    assert_int_equal(d.count, 0);
    documents_free(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(an_inline_filter), cmocka_unit_test(a_pair_and_several_filters),
                                       cmocka_unit_test(what_has_no_equivalent),
                                       cmocka_unit_test(without_wasm_it_is_somebody_elses)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
