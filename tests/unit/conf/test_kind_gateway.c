/* SPDX-License-Identifier: Apache-2.0
 *
 * GatewayClass, Gateway and ReferenceGrant.
 */
#include "conf_test.h"

#define HEAD                                                                                                           \
    "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: g}\nspec:\n  gatewayClassName: weir\n " \
    " "
#define T  "Gateway default/g: "
#define L0 T "spec.listeners[0]"
#define V  "Invalid value: "

static void test_gateway_messages(void **state)
{
    (void)state;
    static const struct message_case cases[] = {
        {"", T "spec.listeners: Required value"},
        {"listeners: []", T "spec.listeners: " V "spec.listeners in body should have at least 1 items"},
        {"listeners: [{name: a, port: 80, protocol: HTTP}]", ""},
        {"listeners: [{port: 80, protocol: HTTP}]", L0 ".name: Required value"},
        {"listeners: [{name: a, protocol: HTTP}]", L0 ".port: Required value"},
        {"listeners: [{name: a, port: 80}]", L0 ".protocol: Required value"},
        {"listeners: [{name: a, port: 0, protocol: HTTP}]",
         L0 ".port: " V "0: spec.listeners[0].port in body should be greater than or equal to 1"},
        {"listeners: [{name: A, port: 80, protocol: HTTP}]",
         L0 ".name: " V "\"A\": spec.listeners[0].name in body should match "
            "'^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$'"},
        {"listeners: [{name: a, port: 80, protocol: http}]",
         L0 ".protocol: Unsupported value: \"http\": supported values: \"HTTP\", \"HTTPS\", \"TLS\", \"TCP\", \"UDP\""},
        {"listeners: [{name: a, port: 80, protocol: HTTP, hostname: 'a.*'}]",
         L0 ".hostname: " V "\"a.*\": spec.listeners[0].hostname in body should match "
            "'^(\\*\\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$'"},
        {"listeners: [{name: a, port: 80, protocol: HTTP, tls: {certificateRefs: []}}]",
         L0 ": " V "tls must not be specified for protocols ['HTTP', 'TCP', 'UDP']"},
        {"listeners: [{name: a, port: 80, protocol: HTTPS, tls: {certificateRefs: [{name: c}]}}]",
         "warning: " L0 ".protocol: protocol HTTPS is not supported yet: this listener is not programmed"},
        {"listeners: [{name: a, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: Selector}}}]",
         L0 ".allowedRoutes.namespaces.selector: Required value: must be set when from is Selector"},
        {"listeners: [{name: a, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: Some}}}]",
         L0 ".allowedRoutes.namespaces.from: Unsupported value: \"Some\": supported values: \"Same\", \"All\", "
            "\"Selector\""},
        {"listeners: [{name: a, port: 80, protocol: HTTP}, {name: a, port: 81, protocol: HTTP}]",
         T "spec.listeners[1]: " V "Listener name must be unique within the Gateway"},
        {"listeners: [{name: a, port: 80, protocol: HTTP}, {name: b, port: 80, protocol: HTTP}]",
         T "spec.listeners[1]: " V "Combination of port, protocol and hostname must be unique for each listener"},
        {"listeners: [{name: a, port: 80, protocol: HTTP}, {name: b, port: 80, protocol: HTTP, hostname: c}]", ""},
        {"listeners: [{name: a, port: 80, protocol: HTTP}]\n  addresses: [{value: nope}]",
         T "spec.addresses[0].value: " V "\"nope\": must be a valid IP address"},
        {"listeners: [{name: a, port: 80, protocol: HTTP}]\n  addresses: [{value: 127.0.0.1}, {value: 127.0.0.1}]",
         T "spec.addresses: " V "IPAddress values must be unique"},
        {"listeners: [{name: a, port: 80, protocol: HTTP}]\n  infrastructure: {parametersRef: {group: '', kind: "
         "ConfigMap}}",
         T "spec.infrastructure.parametersRef.name: Required value"},
        {"listeners: [{name: a, port: 80, protocol: HTTP}]\n  infrastructure: {parametersRef: {group: '', kind: "
         "ConfigMap, name: c, namespace: d}}",
         T "unknown field \"spec.infrastructure.parametersRef.namespace\""},
        {"listeners: [{name: a, port: 80, protocol: HTTP}]\n  backendTLS: {}",
         "warning: " T "spec.backendTLS: is not supported yet and has no effect"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_case(HEAD, &cases[i]);
    assert_messages(
        HEAD "listeners:\n  - name: a\n    port: 1\n    protocol: TLS\n",
        "f.yaml:7:5: Gateway default/g: spec.listeners[0]: Invalid value: tls mode must be set for protocol TLS\n"
        "warning: f.yaml:9:15: Gateway default/g: spec.listeners[0].protocol: protocol TLS is not supported yet: this "
        "listener is not programmed\n");
}

static void test_gateway(void **state)
{
    (void)state;
    struct documents d;
    const struct gateway *g =
        &parse_one(HEAD "listeners:\n  - {name: a, port: 80, protocol: HTTP, hostname: '*.x.com'}\n"
                        "  - {name: b, port: 81, protocol: TCP, allowedRoutes: {kinds: [{kind: TCPRoute}], namespaces: "
                        "{from: All}}}\n"
                        "  - name: c\n    port: 82\n    protocol: HTTP\n    allowedRoutes:\n      kinds: [{kind: "
                        "GRPCRoute}, {kind: HTTPRoute}]\n"
                        "      namespaces: {from: Selector, selector: {matchLabels: {a: b}, matchExpressions: [{key: "
                        "k, operator: NotIn, values: [v]}]}}\n"
                        "  addresses: [{value: '::1'}]\n  infrastructure: {parametersRef: {group: '', kind: ConfigMap, "
                        "name: cm}}\n",
                   &d)
             ->u.gateway;
    assert_string_equal(g->class_name, "weir");
    assert_int_equal(g->listener_count, 3);
    assert_string_equal(g->listeners[0].hostname, "*.x.com");
    assert_int_equal(g->listeners[0].from, ROUTES_SAME);
    assert_true(g->listeners[0].http_routes);
    assert_int_equal(g->listeners[0].line, 7);
    assert_int_equal(g->listeners[1].protocol, PROTOCOL_TCP);
    assert_int_equal(g->listeners[1].from, ROUTES_ALL);
    assert_false(g->listeners[1].http_routes);
    assert_int_equal(g->listeners[2].from, ROUTES_SELECTOR);
    assert_true(g->listeners[2].http_routes);
    assert_string_equal(g->addresses[0].type, "IPAddress");
    assert_string_equal(g->parameters->name, "cm");
    const struct label_selector *s = &g->listeners[2].selector;
    struct label ab = {"a", "b"}, kv = {"k", "v"}, both[] = {ab, kv};
    assert_true(label_selector_matches(s, &(struct labels){&ab, 1}));
    assert_false(label_selector_matches(s, &(struct labels){&kv, 1}));
    assert_false(label_selector_matches(s, &(struct labels){both, 2}));
    documents_free(&d);
}

static void test_class_and_grant(void **state)
{
    (void)state;
    static const struct message_case classes[] = {
        {"spec: {}", "GatewayClass c: spec.controllerName: Required value"},
        {"spec: {controllerName: weir}",
         "GatewayClass c: spec.controllerName: Invalid value: \"weir\": spec.controllerName in body should match "
         "'^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\\/[A-Za-z0-9\\/\\-._~%!$&'()*+,;=:]+$'"},
        {"spec: {controllerName: weir.dev/gateway, description: x}", ""},
        {"spec: {controllerName: weir.dev/gateway, parametersRef: {kind: ConfigMap, name: x}}",
         "GatewayClass c: spec.parametersRef.group: Required value"},
    };
    for (size_t i = 0; i < ARRAY_LEN(classes); i++)
        assert_case("apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: c}\n", &classes[i]);
    static const struct message_case grants[] = {
        {"spec: {from: [], to: [{group: '', kind: Service}]}",
         "ReferenceGrant default/g: spec.from: Invalid value: spec.from in body should have at least 1 items"},
        {"spec: {from: [{group: a.b, kind: HTTPRoute}], to: [{group: '', kind: Service}]}",
         "ReferenceGrant default/g: spec.from[0].namespace: Required value"},
        {"spec: {from: [{group: a.b, kind: HTTPRoute, namespace: n1}], to: [{kind: Service}]}",
         "ReferenceGrant default/g: spec.to[0].group: Required value"},
    };
    for (size_t i = 0; i < ARRAY_LEN(grants); i++)
        assert_case("apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {name: g}\n",
                    &grants[i]);
    struct documents d;
    const struct reference_grant *g =
        &parse_one("apiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\nmetadata: {name: g}\n"
                   "spec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: a}], to: [{group: '', "
                   "kind: Service, name: s}, {group: '', kind: Secret}]}",
                   &d)
             ->u.reference_grant;
    assert_int_equal(g->from_count, 1);
    assert_string_equal(g->from[0].ns, "a");
    assert_int_equal(g->to_count, 2);
    assert_string_equal(g->to[0].name, "s");
    assert_null(g->to[1].name);
    documents_free(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gateway_messages),
        cmocka_unit_test(test_gateway),
        cmocka_unit_test(test_class_and_grant),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
