/* SPDX-License-Identifier: Apache-2.0
 *
 * ServiceEntry: Istio's messages and what becomes of it.
 */
#include "conf_test.h"

#define HEAD "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: e}\nspec:\n  "
#define T    "ServiceEntry default/e: "
#define V    "Invalid value: "

static void test_messages(void **state)
{
    (void)state;
    static const struct message_case cases[] = {
        {"resolution: DNS", T "spec.hosts: Required value"},
        {"{resolution: DNS, hosts: []}", T "spec.hosts: " V "spec.hosts in body should have at least 1 items"},
        {"{resolution: DNS, hosts: ['*']}", T "spec.hosts[0]: " V "\"*\": hostname cannot be wildcard"},
        {"{resolution: DNS, hosts: ['*.a.com']}",
         T "spec.hosts[0]: " V "\"*.a.com\": hosts must be FQDN if no endpoints are provided for resolution mode DNS"},
        {"{resolution: DNS, hosts: [a.com], foo: 1}", T "unknown field \"spec.foo\""},
        {"{resolution: EDS, hosts: [a.com]}", T "spec.resolution: Unsupported value: \"EDS\": supported values: "
                                                "\"NONE\", \"STATIC\", \"DNS\", \"DNS_ROUND_ROBIN\", \"DYNAMIC_DNS\""},
        {"{resolution: DNS, hosts: [a.com], ports: [{number: 80}]}", T "spec.ports[0].name: Required value"},
        {"{resolution: DNS, hosts: [a.com], ports: [{name: a, number: 0}]}",
         T "spec.ports[0].number: " V "0: spec.ports[0].number in body should be greater than or equal to 1"},
        {"{resolution: DNS, hosts: [a.com], ports: [{name: a, number: 80}, {name: a, number: 81}]}",
         T "spec.ports[1]: Duplicate value: {\"name\":\"a\"}"},
        {"{resolution: DNS, hosts: [a.com], ports: [{name: a, number: 80}, {name: b, number: 80}]}",
         T "spec.ports: " V "port number cannot be duplicated"},
        {"{resolution: STATIC, hosts: [a.com]}",
         T "spec: " V "endpoints must be provided if service entry resolution mode is static"},
        {"{resolution: STATIC, hosts: [a.com], endpoints: [{address: b.com}]}",
         T "spec.endpoints[0].address: " V "\"b.com\": must be an IP address when resolution is STATIC"},
        {"{resolution: STATIC, hosts: [a.com], endpoints: [{}]}", T "spec.endpoints[0]: " V "Address is required"},
        {"{resolution: STATIC, hosts: [a.com], endpoints: [{address: 'unix:///s'}]}",
         T "spec.endpoints[0].address: " V "\"unix:///s\": UNIX domain sockets are not supported yet"},
        {"{resolution: STATIC, hosts: [a.com], endpoints: [{address: 127.0.0.1, ports: {x: 80}}]}",
         T "spec.endpoints[0]: " V "endpoint port x is not defined by the service entry"},
        {"{resolution: STATIC, hosts: [a.com], ports: [{name: x, number: 80}], endpoints: [{address: 127.0.0.1, ports: "
         "{x: 0}}]}",
         T "spec.endpoints[0].ports[x]: " V "0: port number must be between 1 and 65535"},
        {"{resolution: DNS_ROUND_ROBIN, hosts: [a.com], endpoints: [{address: b.com}, {address: c.com}]}",
         T "spec: " V "DNS_ROUND_ROBIN mode cannot have multiple endpoints"},
        {"{resolution: DNS, hosts: [a.com], addresses: [10.0.0.0/8]}",
         T "spec: " V "CIDR addresses are allowed only for NONE/STATIC resolution types"},
        {"{resolution: DYNAMIC_DNS, hosts: ['*.a.com'], endpoints: [{address: b.com}]}",
         T "spec.resolution: resolution DYNAMIC_DNS is not supported yet"},
        {"{hosts: [a.com]}",
         "warning: " T "spec.resolution: resolution NONE gives a gateway no endpoints: use STATIC or DNS"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_case(HEAD, &cases[i]);
}

static void test_entry(void **state)
{
    (void)state;
    struct documents d;
    const struct service_entry *e =
        &parse_one(HEAD
                   "{hosts: [a.com, '*.b.com'], location: MESH_EXTERNAL, exportTo: ['*'], resolution: STATIC,\n"
                   "  ports: [{name: http, number: 80, protocol: HTTP, targetPort: 8080}, {name: alt, number: 81}],\n"
                   "  endpoints: [{address: 127.0.0.1, ports: {http: 9000}, weight: 3, labels: {a: b}, locality: x}, "
                   "{address: '::1'}]}",
                   &d)
             ->u.service_entry;
    assert_int_equal(e->host_count, 2);
    assert_int_equal(e->resolution, RESOLUTION_STATIC);
    assert_int_equal(e->ports[0].number, 80);
    assert_int_equal(e->ports[0].target, 8080);
    assert_int_equal(e->ports[1].target, 81);
    assert_int_equal(e->endpoint_count, 2);
    assert_int_equal(e->endpoints[0].weight, 3);
    assert_int_equal(e->endpoints[0].port_count, 1);
    assert_string_equal(e->endpoints[0].ports[0].name, "http");
    assert_int_equal(e->endpoints[0].ports[0].port, 9000);
    assert_int_equal(e->endpoints[1].weight, 1);
    assert_string_equal(e->endpoints[1].address, "::1");
    documents_free(&d);
    e = &parse_one("apiVersion: networking.istio.io/v1alpha3\nkind: ServiceEntry\nmetadata: {name: e}\nspec: {hosts: "
                   "[a.com], resolution: DNS}",
                   &d)
             ->u.service_entry;
    assert_int_equal(e->resolution, RESOLUTION_DNS);
    documents_free(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_messages), cmocka_unit_test(test_entry)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
