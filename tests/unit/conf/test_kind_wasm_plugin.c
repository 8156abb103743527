/* SPDX-License-Identifier: Apache-2.0
 *
 * WasmPlugin and TrafficExtension: every message that Istio has, what is accepted, and what it becomes.
 */
#include "conf_test.h"

#define HEAD                                                                                                           \
    "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {name: x, namespace: istio-system}\n"
#define T "WasmPlugin istio-system/x: "

static void test_messages(void **state)
{
    (void)state;
    static const struct message_case cases[] = {
        {"", T "spec: Required value"},
        {"spec: ~", T "spec: Required value"},
        {"spec: 1", "WasmPlugin istio-system/x: spec: Invalid value: \"integer\": spec in body must be of type object: "
                    "\"integer\""},
        {"spec: {}", T "spec.url: Required value"},
        {"spec: {url: ~}", T "spec.url: Required value"},
        {"spec: {url: ''}", T "spec.url: Invalid value: \"\": spec.url in body should be at least 1 chars long"},
        {"spec: {url: 5}",
         T "spec.url: Invalid value: \"integer\": spec.url in body must be of type string: \"integer\""},
        {"spec: {url: 'fake://e'}",
         T "spec.url: Invalid value: \"fake://e\": url must have schema one of [http, https, file, oci]"},
        {"spec: {url: 'file:/x'}",
         T "spec.url: Invalid value: \"file:/x\": url must have schema one of [http, https, file, oci]"},
        {"spec: {url: 'file://'}", T "spec.url: Invalid value: \"file://\": url must name a file"},
        {"spec: {url: 'http:///x'}", T "spec.url: Invalid value: \"http:///x\": url must name a host"},
        {"spec: {url: 'oci://'}", T "spec.url: Invalid value: \"oci://\": url must name an image"},
        {"spec: {url: 'http://a/b c'}",
         T "spec.url: Invalid value: \"http://a/b c\": url must not hold spaces or control characters"},
        {"spec: {url: \"file:///a\\0b\"}", T "spec.url: Invalid value: must not hold NUL bytes"},
        {"spec: {url: /opt/x.wasm}",
         "warning: " T
         "spec.url: a url without a scheme is an image: this means oci:///opt/x.wasm; a file is file:///opt/x.wasm"},
        {"spec: {url: 'file:///x', foo: 1}", "WasmPlugin istio-system/x: unknown field \"spec.foo\""},
        {"spec: {url: 'file:///x'}\nfoo: 1", "WasmPlugin istio-system/x: unknown field \"foo\""},
        {"spec: {url: 'file:///x', match: [{foo: 1}]}",
         "WasmPlugin istio-system/x: unknown field \"spec.match[0].foo\""},
        {"spec: {url: 'file:///x', sha256: foo}",
         T "spec.sha256: Invalid value: \"foo\": spec.sha256 in body should match '(^$|^[a-f0-9]{64}$)'"},
        {"spec: {url: 'file:///x', sha256: 0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF}",
         T "spec.sha256: Invalid value: \"0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF\": "
           "spec.sha256 in body should match '(^$|^[a-f0-9]{64}$)'"},
        {"spec: {url: 'file:///x', phase: authn}", T "spec.phase: Unsupported value: \"authn\": supported values: "
                                                     "\"UNSPECIFIED_PHASE\", \"AUTHN\", \"AUTHZ\", \"STATS\""},
        {"spec: {url: 'file:///x', phase: yes}",
         T "spec.phase: Invalid value: \"boolean\": spec.phase in body must be of type string: \"boolean\""},
        {"spec: {url: 'file:///x', priority: '1'}",
         T "spec.priority: Invalid value: \"string\": spec.priority in body must be of type integer: \"string\""},
        {"spec: {url: 'file:///x', priority: 1.5}",
         T "spec.priority: Invalid value: \"number\": spec.priority in body must be of type integer: \"number\""},
        {"spec: {url: 'file:///x', priority: 3000000000}",
         T "spec.priority: Invalid value: 3000000000: must be a 32-bit integer, -2147483648 to 2147483647"},
        {"spec: {url: 'file:///x', priority: -2147483649}",
         T "spec.priority: Invalid value: -2147483649: must be a 32-bit integer, -2147483648 to 2147483647"},
        {"spec: {url: 'file:///x', priority: 1e30}",
         T "spec.priority: Invalid value: 1e+30: must be a 32-bit integer, -2147483648 to 2147483647"},
        {"spec: {url: 'file:///x', pluginConfig: [1]}",
         T "spec.pluginConfig: Invalid value: \"array\": spec.pluginConfig in body must be of type object: \"array\""},
        {"spec: {url: 'file:///x', pluginConfig: abc}", T
         "spec.pluginConfig: Invalid value: \"string\": spec.pluginConfig in body must be of type object: \"string\""},
        {"spec: {url: 'file:///x', pluginConfig: {a: .nan}}", T ".nan has no form in JSON"},
        {"spec: {url: 'file:///x', pluginConfig: {a: 1, a: 2}}", T "key \"a\" already set in map"},
        {"spec: {url: 'file:///x', pluginConfig: {on: 1, y: 2}}", T "key \"true\" already set in map"},
        {"spec: {url: 'file:///x', pluginConfig: {~: 1}}", T "unsupported map key of type: null"},
        {"spec: {url: 'file:///x', pluginConfig: {[a]: 1}}", T "unsupported map key of type: array"},
        {"spec: {url: 'file:///x', pluginName: ''}",
         T "spec.pluginName: Invalid value: \"\": spec.pluginName in body should be at least 1 chars long"},
        {"spec: {url: 'file:///x', imagePullSecret: ''}",
         T "spec.imagePullSecret: Invalid value: \"\": spec.imagePullSecret in body should be at least 1 chars long"},
        {"spec: {url: 'file:///x', imagePullPolicy: Never}",
         T "spec.imagePullPolicy: Unsupported value: \"Never\": supported values: \"UNSPECIFIED_POLICY\", "
           "\"IfNotPresent\", \"Always\""},
        {"spec: {url: 'file:///x', failStrategy: OPEN}", T "spec.failStrategy: Unsupported value: \"OPEN\": supported "
                                                           "values: \"FAIL_CLOSE\", \"FAIL_OPEN\", \"FAIL_RELOAD\""},
        {"spec: {url: 'file:///x', type: TCP}", T
         "spec.type: Unsupported value: \"TCP\": supported values: \"UNSPECIFIED_PLUGIN_TYPE\", \"HTTP\", \"NETWORK\""},
        {"spec: {url: 'file:///x', type: NETWORK}",
         "warning: " T "spec.type: type NETWORK is not supported yet: this plugin is not applied"},
        {"spec: {url: 'oci:///opt/x.wasm'}",
         "warning: " T
         "spec.url: an image's name begins with its registry or repository: is file:///opt/x.wasm meant?"},
        {"spec: {url: 'file:///x', vmConfig: {env: [{name: a}, {name: a}]}}",
         T "spec.vmConfig.env[1]: Duplicate value: {\"name\":\"a\"}"},
        {"spec: {url: 'file:///x', vmConfig: {env: [{value: b}]}}", T "spec.vmConfig.env[0].name: Required value"},
        {"spec: {url: 'file:///x', vmConfig: {env: [{name: a, valueFrom: HOST, value: ''}]}}",
         T "spec.vmConfig.env[0]: Invalid value: value may only be set when valueFrom is INLINE"},
        {"spec: {url: 'file:///x', vmConfig: {env: [{name: a, valueFrom: X}]}}",
         T "spec.vmConfig.env[0].valueFrom: Unsupported value: \"X\": supported values: \"INLINE\", \"HOST\""},
        {"spec: {url: 'file:///x', vmConfig: {env: [{name: ISTIO_META_A, value: v}]}}",
         "warning: " T
         "spec.vmConfig.env[0]: variables named ISTIO_META_* are Istio's own and do not reach the plugin"},
        {"spec: {url: 'file:///x', match: [{ports: [{}]}]}", T "spec.match[0].ports[0].number: Required value"},
        {"spec: {url: 'file:///x', match: [{ports: [{number: 0}]}]}",
         T "spec.match[0].ports[0].number: Invalid value: 0: spec.match[0].ports[0].number in body should be greater "
           "than or equal to 1"},
        {"spec: {url: 'file:///x', match: [{ports: [{number: 65536}]}]}",
         T "spec.match[0].ports[0].number: Invalid value: 65536: spec.match[0].ports[0].number in body should be less "
           "than or equal to 65535"},
        {"spec: {url: 'file:///x', match: [{ports: [{number: 80}, {number: 80}]}]}",
         T "spec.match[0].ports[1]: Duplicate value: {\"number\":80}"},
        {"spec: {url: 'file:///x', match: [{mode: SERVER}]}",
         "warning: " T "spec.match[0].mode: mode SERVER never applies on a gateway; use CLIENT"},
        {"spec: {url: 'file:///x', selector: {matchLabels: {a: b}}, targetRefs: []}",
         T "spec: Invalid value: only one of targetRefs or selector can be set"},
        {"spec: {url: 'file:///x', selector: {matchLabels: {istio: 'bar*'}}}",
         T "spec.selector.matchLabels[istio]: Invalid value: \"bar*\": wildcard not allowed in label value match"},
        {"spec: {url: 'file:///x', selector: {matchLabels: {'i*': b}}}",
         T "spec.selector.matchLabels[i*]: Invalid value: \"b\": wildcard not allowed in label key match"},
        {"spec: {url: 'file:///x', selector: {matchLabels: {a: 1}}}",
         T "spec.selector.matchLabels[a]: Invalid value: \"integer\": spec.selector.matchLabels[a] in body must be of "
           "type string: \"integer\""},
        {"spec: {url: 'file:///x', selector: {}}",
         "warning: " T "spec.selector: workload selector specified without labels"},
        {"spec: {url: 'file:///x', targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: g, namespace: "
         "o}]}",
         T
         "spec.targetRefs[0].namespace: Invalid value: \"o\": cross namespace referencing is not currently supported"},
        {"spec: {url: 'file:///x', targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway}]}",
         T "spec.targetRefs[0].name: Required value"},
        {"spec: {url: 'file:///x', targetRefs: [{group: apps, kind: Deployment, name: g}]}",
         T "spec.targetRefs[0]: Invalid value: targetRef must be to one of [Gateway.gateway.networking.k8s.io Service "
           "ServiceEntry.networking.istio.io GatewayClass.gateway.networking.k8s.io] but was apps/Deployment"},
        {"spec: {url: 'file:///x', targetRefs: [{kind: Service, name: g}]}",
         "warning: " T "spec.targetRefs[0]: a target of kind Service is for waypoints: it never applies on a gateway"},
        {"spec: {url: 'file:///x'}\nstatus: {conditions: [{anything: goes}]}", ""},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_case(HEAD, &cases[i]);
}

static void test_annotations(void **state)
{
    (void)state;
    static const struct message_case bad[] = {
        {"cpu-deadline: 5", "Invalid value: \"integer\": metadata.annotations[plugin.weir/cpu-deadline] in body must "
                            "be of type string: \"integer\""},
        {"cpu-deadline: '5'", "Invalid value: \"5\": must be a duration from 1ms to 1m, such as \"50ms\""},
        {"cpu-deadline: 0s", "Invalid value: \"0s\": must be a duration from 1ms to 1m, such as \"50ms\""},
        {"recheck-interval: '0'",
         "Invalid value: \"0\": must be seconds or a duration from 1s to 720h, such as \"60\" or \"5m\""},
        {"recheck-interval: 721h",
         "Invalid value: \"721h\": must be seconds or a duration from 1s to 720h, such as \"60\" or \"5m\""},
        {"start-deadline: 1h", "Invalid value: \"1h\": must be a duration from 1ms to 10m, such as \"10s\""},
        {"pause-limit: 1ms", "Invalid value: \"1ms\": must be a duration from 100ms to 1h, such as \"30s\""},
        {"memory-limit: 64MB", "Invalid value: \"64MB\": must be a size from 64Ki to 4Gi, such as \"64Mi\""},
        {"memory-limit: 5Gi", "Invalid value: \"5Gi\": must be a size from 64Ki to 4Gi, such as \"64Mi\""},
        {"utf8: maybe", "Invalid value: \"maybe\": must be \"reject\", \"escape\" or \"pass\""},
        {"on-headers-pause: body", "Invalid value: \"body\": must be \"all\" or \"headers\""},
        {"vm-id: ''", "Invalid value: \"\": must be 1 to 253 bytes of printable text"},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct str name = str_of(bad[i].text);
        name.n = (size_t)str_find(name, ':');
        char *text =
            mem_printf("metadata: {name: x, annotations: {plugin.weir/%s}}\nspec: {url: 'file:///x'}", bad[i].text);
        char *message = mem_printf("WasmPlugin default/x: metadata.annotations[plugin.weir/%.*s]: %s", STR_ARG(name),
                                   bad[i].message);
        assert_case("apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\n",
                    &(struct message_case){text, message});
        mem_free(text);
        mem_free(message);
    }
    struct documents d;
    const struct wasm_plugin *p =
        &parse_one("apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata:\n  name: x\n  annotations:\n"
                   "    plugin.weir/cpu-deadline: 50ms\n    plugin.weir/start-deadline: 2s\n    "
                   "plugin.weir/memory-limit: 64Mi\n"
                   "    plugin.weir/pause-limit: 1m30s\n    plugin.weir/utf8: escape\n    "
                   "plugin.weir/on-headers-pause: headers\n"
                   "    plugin.weir/vm-id: shared\n    other/thing: x\nspec: {url: 'file:///x'}",
                   &d)
             ->u.wasm_plugin;
    assert_int_equal(p->cpu_deadline_ms, 50);
    assert_int_equal(p->start_deadline_ms, 2000);
    assert_int_equal(p->memory_limit, 64 << 20);
    assert_int_equal(p->pause_limit_ms, 90000);
    assert_int_equal(p->utf8, 1);
    assert_int_equal(p->pause_headers, 1);
    assert_string_equal(p->vm_id, "shared");
    assert_int_equal(d.list[0].diag.count, 0);
    documents_free(&d);
}

static void test_defaults(void **state)
{
    (void)state;
    struct documents d;
    const struct resource *r =
        parse_one("apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {name: x}\n"
                  "spec: {url: 'oci://r/i:1'}",
                  &d);
    const struct wasm_plugin *p = &r->u.wasm_plugin;
    assert_string_equal(r->meta.ns, "default");
    assert_string_equal(r->meta.name, "x");
    assert_string_equal(r->meta.uid, "");
    assert_int_equal(r->meta.created, 0);
    assert_false(p->has_selector);
    assert_false(p->has_priority);
    assert_int_equal(p->phase, PHASE_UNSPECIFIED);
    assert_int_equal(p->fail, PLUGIN_FAIL_CLOSE);
    assert_int_equal(p->type, PLUGIN_HTTP);
    assert_string_equal(p->plugin_name, "");
    assert_null(p->sha256);
    assert_null(p->config);
    assert_null(p->vm_id);
    assert_int_equal(p->cpu_deadline_ms, -1);
    assert_int_equal(p->utf8, -1);
    assert_int_equal(p->pause_headers, -1);
    documents_free(&d);
}

static void test_urls(void **state)
{
    (void)state;
    static const struct {
        const char *url;
        enum url_scheme scheme;
    } cases[] = {{"file:///x.wasm", URL_FILE},
                 {"http://h:8080/x.wasm?a=b", URL_HTTP},
                 {"https://h/x", URL_HTTPS},
                 {"oci://r/i:latest", URL_OCI},
                 {"OCI://r/i", URL_OCI},
                 {"registry.example/i:v1", URL_OCI},
                 {"private-registry:5000/a/b:latest", URL_OCI},
                 {"127.0.0.1:5000/a:v1", URL_OCI},
                 {"localhost:5000/a", URL_OCI},
                 {"image", URL_OCI}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct documents d;
        char *text = mem_printf(HEAD "spec: {url: '%s'}", cases[i].url);
        const struct wasm_plugin *p = &parse_one(text, &d)->u.wasm_plugin;
        assert_string_equal(p->url, cases[i].url);
        assert_int_equal(p->scheme, cases[i].scheme);
        assert_int_equal(d.list[0].diag.count, 0);
        documents_free(&d);
        mem_free(text);
    }
}

static void test_all_fields(void **state)
{
    (void)state;
    struct documents d;
    const struct wasm_plugin *p =
        &parse_one(
             HEAD
             "spec:\n  selector: {matchLabels: {istio: ingressgateway}}\n  url: https://h/x.wasm\n"
             "  sha256: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n"
             "  imagePullPolicy: Always\n  imagePullSecret: s\n  pluginName: root\n  phase: AUTHZ\n  priority: -5\n"
             "  failStrategy: FAIL_RELOAD\n  type: HTTP\n"
             "  vmConfig: {env: [{name: A, value: b}, {name: ISTIO_META_B, value: c}, {name: H, valueFrom: HOST}]}\n"
             "  match: [{mode: CLIENT, ports: [{number: 80}, {number: 8080}]}, {mode: CLIENT_AND_SERVER}]\n",
             &d)
             ->u.wasm_plugin;
    assert_true(p->has_selector);
    assert_string_equal(labels_get(&p->selector, "istio"), "ingressgateway");
    assert_int_equal(p->pull_policy, PULL_ALWAYS);
    assert_string_equal(p->pull_secret, "s");
    assert_string_equal(p->plugin_name, "root");
    assert_int_equal(p->phase, PHASE_AUTHZ);
    assert_true(p->has_priority);
    assert_int_equal(p->priority, -5);
    assert_int_equal(p->fail, PLUGIN_FAIL_RELOAD);
    assert_int_equal(p->env_count, 2);
    assert_string_equal(p->env[0].value, "b");
    assert_string_equal(p->env[1].name, "H");
    assert_true(p->env[1].from_host);
    assert_int_equal(p->match_count, 2);
    assert_int_equal(p->matches[0].mode, MODE_CLIENT);
    assert_int_equal(p->matches[0].port_count, 2);
    assert_int_equal(p->matches[0].ports[1], 8080);
    documents_free(&d);
    p = &parse_one(
             HEAD "spec: {url: 'file:///x', targetRef: {group: gateway.networking.k8s.io, kind: Gateway, name: g}}", &d)
             ->u.wasm_plugin;
    assert_int_equal(p->target_count, 1);
    assert_string_equal(p->targets[0].name, "g");
    assert_int_equal(p->targets[0].line, 4);
    documents_free(&d);
}

/* The document the project began with, its url changed to a file. */
static void test_seed(void **state)
{
    (void)state;
    struct documents d;
    const struct resource *r =
        parse_one("apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata:\n"
                  "  name: my-wasm-plugin\n  namespace: istio-system\nspec:\n  selector:\n"
                  "    matchLabels:\n      istio: ingressgateway\n  url: file:///x.wasm\n  phase: AUTHZ\n",
                  &d);
    assert_int_equal(d.list[0].diag.count, 0);
    assert_string_equal(r->meta.name, "my-wasm-plugin");
    assert_string_equal(r->meta.ns, "istio-system");
    assert_int_equal(r->u.wasm_plugin.phase, PHASE_AUTHZ);
    assert_int_equal(r->u.wasm_plugin.scheme, URL_FILE);
    assert_string_equal(r->meta.file, "f.yaml");
    assert_int_equal(r->meta.line, 1);
    documents_free(&d);
}

#define EXT "apiVersion: extensions.istio.io/v1alpha1\nkind: TrafficExtension\nmetadata: {name: x, namespace: a}\n"
#define E   "TrafficExtension a/x: "
static void test_traffic_extension(void **state)
{
    (void)state;
    static const struct message_case cases[] = {
        {"spec: {}", E "spec: Invalid value: exactly one of wasm or lua must be set"},
        {"spec: {wasm: {url: 'file:///x'}, lua: {inlineCode: x}}",
         E "spec: Invalid value: exactly one of wasm or lua must be set"},
        {"spec: {lua: {inlineCode: x}}", E "spec.lua: Lua extensions are not supported yet"},
        {"spec: {wasm: {}}", E "spec.wasm.url: Required value"},
        {"spec: {phase: UNSPECIFIED_PHASE, wasm: {url: 'file:///x'}}",
         E "spec.phase: Unsupported value: \"UNSPECIFIED_PHASE\": supported values: \"UNSPECIFIED\", \"AUTHN\", "
           "\"AUTHZ\", \"STATS\""},
        {"spec: {url: 'file:///x', wasm: {url: 'file:///x'}}", E "unknown field \"spec.url\""},
        {"spec: {wasm: {url: 'file:///x'}, targetRef: {}}", E "unknown field \"spec.targetRef\""},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_case(EXT, &cases[i]);
    struct documents d;
    const struct resource *r = parse_one(EXT "spec: {phase: STATS, priority: 7, wasm: {url: 'file:///x', pluginConfig: "
                                             "{a: 1}, vmConfig: {env: [{name: A}]}}}",
                                         &d);
    assert_int_equal(r->meta.kind, KIND_TRAFFIC_EXTENSION);
    assert_int_equal(r->u.wasm_plugin.phase, PHASE_STATS);
    assert_int_equal(r->u.wasm_plugin.priority, 7);
    assert_string_equal(r->u.wasm_plugin.config, "{\"a\":1}");
    assert_int_equal(r->u.wasm_plugin.env_count, 1);
    documents_free(&d);
}

static void test_all_errors_with_places(void **state)
{
    (void)state;
    assert_messages("apiVersion: extensions.istio.io/v1alpha1\n"
                    "kind: WasmPlugin\n"
                    "metadata:\n"
                    "  name: x\n"
                    "  namespace: istio-system\n"
                    "spec:\n"
                    "  url: ''\n"
                    "  bogus: 1\n"
                    "  phase: authn\n"
                    "  match:\n"
                    "  - ports:\n"
                    "    - {}\n",
                    "f.yaml:7:8: WasmPlugin istio-system/x: spec.url: Invalid value: \"\": spec.url in body should be "
                    "at least 1 chars long\n"
                    "f.yaml:8:3: WasmPlugin istio-system/x: unknown field \"spec.bogus\"\n"
                    "f.yaml:9:10: WasmPlugin istio-system/x: spec.phase: Unsupported value: \"authn\": supported "
                    "values: \"UNSPECIFIED_PHASE\", \"AUTHN\", \"AUTHZ\", \"STATS\"\n"
                    "f.yaml:12:7: WasmPlugin istio-system/x: spec.match[0].ports[0].number: Required value\n");
    assert_messages("apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata:\n  name: x\n"
                    "  namespace: istio-system\nspec:\n  phase: AUTHZ\n",
                    "f.yaml:7:3: WasmPlugin istio-system/x: spec.url: Required value\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_messages),          cmocka_unit_test(test_annotations),
        cmocka_unit_test(test_defaults),          cmocka_unit_test(test_urls),
        cmocka_unit_test(test_all_fields),        cmocka_unit_test(test_seed),
        cmocka_unit_test(test_traffic_extension), cmocka_unit_test(test_all_errors_with_places),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
