/* SPDX-License-Identifier: Apache-2.0
 *
 * Resources as JSON: the shape of each kind, and above all what must not be in it.
 */
#include "conf_test.h"

static void assert_json(const char *text, bool with_config, const char *expected)
{
    struct documents d;
    struct strbuf b = {0};
    resource_write_json(parse_one(text, &d), with_config, &b);
    char *z = strbuf_take(&b);
    assert_string_equal(z, expected);
    mem_free(z);
    documents_free(&d);
}

static void test_no_secret_shows(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "apiVersion: v1\nkind: Secret\nmetadata: {name: s, annotations: "
        "{kubectl.kubernetes.io/last-applied-configuration: '{canary}'}}\n"
        "data: {a: Y2FuYXJ5}\nstringData: {b: canary}\n",
        "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {name: p, annotations: "
        "{kubectl.kubernetes.io/last-applied-configuration: '{canary}'}}\n"
        "spec:\n  url: https://user:canary@h/x.wasm?token=canary\n  verificationKey: canary\n  pluginConfig: {token: "
        "canary}\n"
        "  vmConfig: {env: [{name: A, value: canary}]}\n",
        "apiVersion: extensions.istio.io/v1alpha1\nkind: TrafficExtension\nmetadata: {name: p}\n"
        "spec: {wasm: {url: 'http://canary@h:80', pluginConfig: {token: [canary]}, vmConfig: {env: [{name: A, value: "
        "canary}]}}}\n",
    };
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct documents d;
        struct strbuf b = {0};
        resource_write_json(parse_one(texts[i], &d), false, &b);
        assert_true(str_find_str(strbuf_str(&b), STR("canary")) < 0);
        assert_true(str_find_str(strbuf_str(&b), STR("Y2FuYXJ5")) < 0);
        assert_true(str_find_str(strbuf_str(&b), STR("sha256:")) >= 0);
        strbuf_free(&b);
        documents_free(&d);
    }
}

/* Messages about a Secret do not quote it either. */
static void test_no_secret_in_messages(void **state)
{
    (void)state;
    struct documents d;
    resources_parse(
        STR("apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ntype: [canary]\ndata: {a: 'canary*', b: "
            "[canary]}\nstringData: {c: {canary: canary}}\n"
            "immutable: canary\n---\napiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {name: p}\n"
            "spec: {url: 'file:///x', vmConfig: {env: [{name: A, value: [canary]}, {name: B, valueFrom: HOST, value: "
            "canary}]}, pluginConfig: canary}\n"),
        "f.yaml", "default", &d);
    char *text = messages_of(&d);
    assert_int_equal(d.count, 2);
    assert_int_equal(d.list[0].diag.errors, 4);
    assert_int_equal(d.list[1].diag.errors, 3);
    assert_null(strstr(text, "canary"));
    mem_free(text);
    documents_free(&d);
}

static void test_shapes(void **state)
{
    (void)state;
    assert_json(
        "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {name: p, namespace: a, labels: {l: "
        "v}}\n"
        "spec: {url: 'file:///x.wasm', phase: AUTHZ, priority: 3, selector: {matchLabels: {b: c}}, pluginConfig: {k: "
        "'<'},\n"
        "  match: [{mode: CLIENT, ports: [{number: 80}]}], vmConfig: {env: [{name: H, valueFrom: HOST}]}}",
        true,
        "{\"apiVersion\":\"extensions.istio.io/"
        "v1alpha1\",\"kind\":\"WasmPlugin\",\"metadata\":{\"name\":\"p\",\"namespace\":\"a\",\"labels\":{\"l\":\"v\"}},"
        "\"spec\":{\"selector\":{\"matchLabels\":{\"b\":\"c\"}},\"phase\":\"AUTHZ\",\"priority\":3,\"match\":[{"
        "\"mode\":\"CLIENT\",\"ports\":[{\"number\":80}]}],"
        "\"url\":\"file:///"
        "x.wasm\",\"pluginConfig\":{\"k\":\"\\u003c\"},\"failStrategy\":\"FAIL_CLOSE\",\"type\":\"HTTP\","
        "\"vmConfig\":{\"env\":[{\"name\":\"H\",\"valueFrom\":\"HOST\"}]}}}");
    assert_json("apiVersion: v1\nkind: Namespace\nmetadata: {name: a}", false,
                "{\"apiVersion\":\"v1\",\"kind\":\"Namespace\",\"metadata\":{\"name\":\"a\"},\"spec\":{}}");
    assert_json("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: b}\ndata: {k: \"\\\"\"}", false,
                "{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"a\",\"namespace\":\"b\"},"
                "\"data\":{\"k\":\"\\\"\"}}");
    assert_json("apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r, namespace: b}\n"
                "spec:\n  parentRefs: [{name: g}]\n  hostnames: [h.example]\n  rules:\n  - matches: [{method: GET, "
                "headers: [{name: X, value: v1}]}]\n"
                "    filters: [{type: URLRewrite, urlRewrite: {hostname: z, path: {type: ReplaceFullPath, "
                "replaceFullPath: /q}}}]\n"
                "    backendRefs: [{name: s, port: 80}]\n    timeouts: {request: 90s}\n",
                false,
                "{\"apiVersion\":\"gateway.networking.k8s.io/"
                "v1\",\"kind\":\"HTTPRoute\",\"metadata\":{\"name\":\"r\",\"namespace\":\"b\"},\"spec\":{"
                "\"parentRefs\":[{\"group\":\"gateway.networking.k8s.io\",\"kind\":\"Gateway\",\"name\":\"g\"}],"
                "\"hostnames\":[\"h.example\"],\"rules\":[{"
                "\"matches\":[{\"path\":{\"type\":\"PathPrefix\",\"value\":\"/"
                "\"},\"headers\":[{\"type\":\"Exact\",\"name\":\"x\",\"value\":\"v1\"}],\"method\":\"GET\"}],"
                "\"filters\":[{\"type\":\"URLRewrite\",\"urlRewrite\":{\"hostname\":\"z\",\"path\":{\"type\":"
                "\"ReplaceFullPath\",\"replaceFullPath\":\"/q\"}}}],"
                "\"backendRefs\":[{\"kind\":\"Service\",\"name\":\"s\",\"port\":80,\"weight\":1}],\"timeouts\":{"
                "\"request\":\"1m30s\"}}]}}");
}

/* What is written can be read again and means the same (kinds without hidden values). */
static void test_round_trip(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: g}\nspec: {gatewayClassName: c, "
        "listeners: [{name: a, port: 80, protocol: HTTP, hostname: '*.x'}], addresses: [{value: 127.0.0.1}], "
        "infrastructure: {parametersRef: {group: '', kind: ConfigMap, name: cm}}}",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: c}\nspec: {controllerName: "
        "weir.dev/g}",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\nmetadata: {name: g}\nspec: {from: [{group: "
        "a.b, kind: K, namespace: q}], to: [{group: '', kind: Service, name: s}]}",
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: e}\nspec: {hosts: [a.b], resolution: "
        "STATIC, ports: [{name: h, number: 80}], endpoints: [{address: 127.0.0.1, ports: {h: 81}}]}",
        "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{name: a, port: 80, targetPort: web}], "
        "selector: {app: x}}",
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s, labels: "
        "{kubernetes.io/service-name: s}}\naddressType: IPv4\nendpoints: [{addresses: [127.0.0.1]}]\nports: [{name: a, "
        "port: 1}]",
        "apiVersion: extensions.istio.io/v1alpha1\nkind: TrafficExtension\nmetadata: {name: t}\nspec: {targetRefs: "
        "[{group: gateway.networking.k8s.io, kind: Gateway, name: g}], wasm: {url: 'oci://r/i', sha256: '', "
        "pluginConfig: {a: [1, ~]}}}",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\nspec: {rules: [{name: q, "
        "filters: [{type: RequestRedirect, requestRedirect: {scheme: https, port: 1, statusCode: 301}}]}, {filters: "
        "[{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: b}], remove: [c]}}], timeouts: "
        "{backendRequest: 1s}}]}",
    };
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct documents d, e;
        struct strbuf first = {0}, second = {0};
        resource_write_json(parse_one(texts[i], &d), true, &first);
        char *z = strbuf_take(&first);
        resource_write_json(parse_one(z, &e), true, &second);
        char *again = strbuf_take(&second);
        assert_string_equal(again, z);
        mem_free(again);
        mem_free(z);
        documents_free(&d);
        documents_free(&e);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_no_secret_shows),
                                       cmocka_unit_test(test_no_secret_in_messages), cmocka_unit_test(test_shapes),
                                       cmocka_unit_test(test_round_trip)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
