/* SPDX-License-Identifier: Apache-2.0
 *
 * Service, EndpointSlice, Namespace, Secret, ConfigMap, and metadata of any kind.
 */
#include "conf_test.h"

#define SERVICE "apiVersion: v1\nkind: Service\nmetadata: {name: s}\n"
#define S       "Service default/s: "
static void test_service(void **state)
{
    (void)state;
    static const struct message_case cases[] = {
        {"spec: {}", S "spec.ports: Required value"},
        {"spec: {ports: [{}]}", S "spec.ports[0].port: Required value"},
        {"spec: {ports: [{port: 0}]}",
         S "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"},
        {"spec: {ports: [{port: 80, targetPort: 70000}]}",
         S "spec.ports[0].targetPort: Invalid value: 70000: must be between 1 and 65535, inclusive"},
        {"spec: {ports: [{port: 80, targetPort: [1]}]}",
         S "spec.ports[0].targetPort: Invalid value: \"array\": spec.ports[0].targetPort in body must be of type "
           "integer or string: \"array\""},
        {"spec: {ports: [{port: 80, protocol: HTTP}]}",
         S "spec.ports[0].protocol: Unsupported value: \"HTTP\": supported values: \"TCP\", \"UDP\", \"SCTP\""},
        {"spec: {ports: [{port: 80, name: a}, {port: 81}]}", S "spec.ports[1].name: Required value"},
        {"spec: {ports: [{port: 80, name: a}, {port: 81, name: a}]}", S "spec.ports[1].name: Duplicate value: \"a\""},
        {"spec: {ports: [{port: 80, name: a}, {port: 80, name: b}]}",
         S "spec.ports[1]: Duplicate value: {\"port\":80,\"protocol\":\"TCP\"}"},
        {"spec: {ports: [{port: 53, name: a}, {port: 53, name: b, protocol: UDP}]}", ""},
        {"spec: {type: ExternalName}", S "spec.externalName: Required value"},
        {"spec: {clusterIP: None}", ""},
        {"spec: {ports: [{port: 80}], foo: 1}", S "unknown field \"spec.foo\""},
        {"spec: {ports: [{port: 80}], clusterIP: 10.0.0.1, clusterIPs: [], sessionAffinity: None, ipFamilies: [IPv4], "
         "internalTrafficPolicy: Cluster}\nstatus: {loadBalancer: {}}",
         ""},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_case(SERVICE, &cases[i]);
    struct documents d;
    const struct service *s =
        &parse_one(SERVICE "spec: {selector: {app: a}, ports: [{name: http, port: 80, targetPort: web, appProtocol: "
                           "kubernetes.io/h2c}, {name: n2, port: 81}, {name: dns, port: 53, protocol: UDP}, {name: x, "
                           "port: 82, targetPort: 8082}]}",
                   &d)
             ->u.service;
    assert_int_equal(s->port_count, 3);
    assert_string_equal(s->ports[0].target_name, "web");
    assert_string_equal(s->ports[0].app_protocol, "kubernetes.io/h2c");
    assert_int_equal(s->ports[1].target, 81);
    assert_null(s->ports[1].target_name);
    assert_int_equal(s->ports[2].target, 8082);
    assert_string_equal(s->type, "ClusterIP");
    documents_free(&d);
}

#define SLICE                                                                                                          \
    "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s-1, labels: "                             \
    "{kubernetes.io/service-name: s}}\n"
#define E "EndpointSlice default/s-1: "
static void test_endpoint_slice(void **state)
{
    (void)state;
    static const struct message_case cases[] = {
        {"endpoints: []", E "addressType: Required value"},
        {"addressType: IPv5",
         E "addressType: Unsupported value: \"IPv5\": supported values: \"IPv4\", \"IPv6\", \"FQDN\""},
        {"addressType: IPv4\nendpoints: [{addresses: [nope]}]",
         E "endpoints[0].addresses[0]: Invalid value: \"nope\": must be a valid IPv4 address"},
        {"addressType: IPv6\nendpoints: [{addresses: [127.0.0.1]}]",
         E "endpoints[0].addresses[0]: Invalid value: \"127.0.0.1\": must be a valid IPv6 address"},
        {"addressType: IPv4\nendpoints: [{}]", E "endpoints[0].addresses: Required value"},
        {"addressType: IPv4\nports: [{port: 0}]",
         E "ports[0].port: Invalid value: 0: ports[0].port in body should be greater than or equal to 1"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_case(SLICE, &cases[i]);
    struct documents d;
    const struct endpoint_slice *s =
        &parse_one(SLICE
                   "addressType: IPv4\nendpoints:\n- {addresses: [127.0.0.1, 127.0.0.2], nodeName: n1}\n"
                   "- {addresses: [127.0.0.3], conditions: {ready: false, serving: true}}\n- {addresses: [127.0.0.4], "
                   "conditions: {ready: ~}}\nports: [{name: http, port: 8080}, {port: 53, protocol: UDP}, {name: ''}]",
                   &d)
             ->u.endpoint_slice;
    assert_string_equal(s->service, "s");
    assert_string_equal(s->address_type, "IPv4");
    assert_int_equal(s->endpoint_count, 3);
    assert_true(s->endpoints[0].ready);
    assert_false(s->endpoints[1].ready);
    assert_true(s->endpoints[2].ready);
    assert_int_equal(s->port_count, 1);
    assert_int_equal(s->ports[0].port, 8080);
    documents_free(&d);
}

#define SECRET "apiVersion: v1\nkind: Secret\nmetadata: {name: k}\n"
#define K      "Secret default/k: "
static void test_secret(void **state)
{
    (void)state;
    static const struct message_case cases[] = {
        {"data: {a: 'canary!'}", K "data[a]: Invalid value: illegal base64 data at input byte 6"},
        {"data: {a: 17}", K "data[a]: Invalid value: \"integer\": data[a] in body must be of type string: \"integer\""},
        {"stringData: {a: yes}",
         K "stringData[a]: Invalid value: \"boolean\": stringData[a] in body must be of type string: \"boolean\""},
        {"data: {'a b': Zm9v}",
         K "data[a b]: Invalid value: \"a b\": a valid config key must consist of alphanumeric characters, '-', '_' or "
           "'.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"},
        {"data: canary", K "data: Invalid value: \"string\": data in body must be of type object: \"string\""},
        {"type: kubernetes.io/tls\ndata: {tls.crt: Zm9v}", K "data[tls.key]: Required value"},
        {"type: kubernetes.io/dockerconfigjson", K "data[.dockerconfigjson]: Required value"},
        {"foo: canary", K "unknown field \"foo\""},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_case(SECRET, &cases[i]);
    struct documents d;
    const struct secret *s =
        &parse_one(SECRET "type: x/y\ndata: {a: Zm9v, b: AAE=, c: ~}\nstringData: {a: over, d: new}\nimmutable: true",
                   &d)
             ->u.secret;
    assert_string_equal(s->type, "x/y");
    assert_int_equal(s->item_count, 4);
    assert_string_equal(s->items[0].key, "a");
    assert_int_equal(s->items[0].n, 4);
    assert_memory_equal(s->items[0].bytes, "over", 4);
    assert_int_equal(s->items[1].n, 2);
    assert_memory_equal(s->items[1].bytes, "\0\1", 2);
    assert_int_equal(s->items[2].n, 0);
    assert_memory_equal(s->items[3].bytes, "new", 3);
    documents_free(&d);
}

#define MAP "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n"
#define C   "ConfigMap default/c: "
static void test_config_map(void **state)
{
    (void)state;
    static const struct message_case cases[] = {
        {"data: {a: 1}", C "data[a]: Invalid value: \"integer\": data[a] in body must be of type string: \"integer\""},
        {"binaryData: {a: '*'}", C "binaryData[a]: Invalid value: illegal base64 data at input byte 0"},
        {"data: {a: x}\nbinaryData: {a: Zm9v}",
         C "binaryData[a]: Invalid value: \"a\": duplicate of key present in data"},
        {"data: {'..': x}",
         C "data[..]: Invalid value: \"..\": a valid config key must consist of alphanumeric characters, '-', '_' or "
           "'.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_case(MAP, &cases[i]);
    struct documents d;
    const struct config_map *c =
        &parse_one(MAP "data:\n  max-head-bytes: 64Ki\n  f: |-\n    x\n    y\n  empty: ~\nbinaryData: {b: Zm9v}\n", &d)
             ->u.config_map;
    assert_int_equal(c->data_count, 3);
    assert_string_equal(c->data[0].key, "max-head-bytes");
    assert_string_equal(c->data[1].value, "x\ny");
    assert_string_equal(c->data[2].value, "");
    documents_free(&d);
}

static void test_meta(void **state)
{
    (void)state;
#define N "apiVersion: v1\nkind: Namespace\n"
    static const struct message_case cases[] = {
        {"", "Namespace: metadata.name: Required value: name or generateName is required"},
        {"metadata: {}", "Namespace: metadata.name: Required value: name or generateName is required"},
        {"metadata: {generateName: a-}",
         "Namespace: metadata.name: Required value: generateName needs an API server: give the name itself"},
        {"metadata: {name: 5}", "Namespace: metadata.name: Invalid value: \"integer\": metadata.name in body must be "
                                "of type string: \"integer\""},
        {"metadata: x",
         "Namespace: metadata: Invalid value: \"string\": metadata in body must be of type object: \"string\""},
        {"metadata: {name: A}",
         "Namespace A: metadata.name: Invalid value: \"A\": a lowercase RFC 1123 label must consist of lower case "
         "alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or "
         "'123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"},
        {"metadata: {name: a, namespace: b}", "Namespace a: metadata.namespace: Forbidden: not allowed on this type"},
        {"metadata: {name: a, creationTimestamp: yesterday}",
         "Namespace a: metadata.creationTimestamp: Invalid value: \"yesterday\": must be an RFC 3339 time, such as "
         "2026-11-23T15:00:00Z"},
        {"metadata: {name: a, creationTimestamp: ~}", ""},
        {"metadata: {name: a, labels: {a: 1}}", "Namespace a: metadata.labels[a]: Invalid value: \"integer\": "
                                                "metadata.labels[a] in body must be of type string: \"integer\""},
        {"metadata: {name: a, labels: {a: 'b c'}}",
         "Namespace a: metadata.labels: Invalid value: \"b c\": a valid label must be an empty string or consist of "
         "alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. "
         "'MyValue',  or 'my_value',  or '12345', regex used for validation is "
         "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?') and be no longer than 63 characters"},
        {"metadata: {name: a, bogus: 1}", "warning: Namespace a: unknown field \"metadata.bogus\""},
        {"metadata: {name: a, managedFields: [{x: 1}], ownerReferences: [], finalizers: [a], uid: u, resourceVersion: "
         "'5', generation: 2, selfLink: x}",
         ""},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_case(N, &cases[i]);
    struct documents d;
    const struct meta *m =
        &parse_one("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a.b, namespace: ns1, uid: u, resourceVersion: "
                   "'5', generation: 2,\n"
                   " creationTimestamp: 2026-11-23T15:00:00Z, labels: {l: v}, annotations: {a/b: 'any thing'}}",
                   &d)
             ->meta;
    assert_string_equal(m->api_version, "v1");
    assert_string_equal(m->ns, "ns1");
    assert_string_equal(m->uid, "u");
    assert_string_equal(m->resource_version, "5");
    assert_int_equal(m->generation, 2);
    assert_int_equal(m->created, 1795446000);
    assert_string_equal(labels_get(&m->labels, "l"), "v");
    assert_null(labels_get(&m->labels, "x"));
    assert_string_equal(labels_get(&m->annotations, "a/b"), "any thing");
    documents_free(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_service),    cmocka_unit_test(test_endpoint_slice), cmocka_unit_test(test_secret),
        cmocka_unit_test(test_config_map), cmocka_unit_test(test_meta),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
