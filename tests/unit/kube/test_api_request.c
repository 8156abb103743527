/* SPDX-License-Identifier: Apache-2.0
 *
 * Paths, queries, Accept, selectors, and the kernel's table of sockets.
 */
#include "kube_test.h"

static void path_is(const char *path, const char *kind, const char *ns, const char *name, const char *sub)
{
    struct api_request r = {0};
    bool ok = api_path_parse(str_of(path), &r);
    if (ok != (kind != NULL))
        fail_msg("%s is %staken", path, ok ? "" : "not ");
    if (ok) {
        assert_string_equal(r.type->kind, kind);
        assert_string_equal(r.ns != NULL ? r.ns : "-", ns);
        assert_string_equal(r.name != NULL ? r.name : "-", name);
        assert_string_equal(r.sub != NULL ? r.sub : "-", sub);
    }
    api_request_free(&r);
}

static void test_paths(void **state)
{
    (void)state;
    path_is("/api/v1/secrets", "Secret", "-", "-", "-");
    path_is("/api/v1/namespaces/a/secrets", "Secret", "a", "-", "-");
    path_is("/api/v1/namespaces/a/secrets/b", "Secret", "a", "b", "-");
    path_is("/api/v1/namespaces/a/pods/b/log", "Pod", "a", "b", "log");
    path_is("/api/v1/namespaces", "Namespace", "-", "-", "-");
    path_is("/api/v1/namespaces/a", "Namespace", "-", "a", "-");
    path_is("/api/v1/namespaces/a/status", "Namespace", "-", "a", "status");
    path_is("/apis/extensions.istio.io/v1alpha1/namespaces/a%2eb/wasmplugins/x%20y", "WasmPlugin", "a.b", "x y", "-");
    path_is("/apis/gateway.networking.k8s.io/v1beta1/gatewayclasses/x", "GatewayClass", "-", "x", "-");
    static const char *const bad[] = {"",
                                      "/",
                                      "/api",
                                      "/api/v1",
                                      "/api/v2/secrets",
                                      "/apis/v1/secrets",
                                      "/api/v1/secrets/x",
                                      "/api/v1/nothing",
                                      "/api/v1/namespaces/a/namespaces/b",
                                      "/api/v1//secrets",
                                      "/api/v1/namespaces//secrets",
                                      "/api/v1/namespaces/a/secrets/b/c/d",
                                      "/api/v1/namespaces/a/secrets/%0",
                                      "/api/v1/namespaces/a/secrets/%00",
                                      "/apis/gateway.networking.k8s.io/v1/namespaces/a/gatewayclasses/x",
                                      "api/v1/secrets"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        path_is(bad[i], NULL, "", "", "");
}

static int format_of(const char *accept)
{
    struct api_request r = {0};
    struct http_response out = {0};
    int format = api_accept_parse(accept != NULL ? str_of(accept) : STR_NONE, &r, &out) ? (int)r.format : -1;
    strbuf_free(&out.body);
    return format;
}

static void test_accept(void **state)
{
    (void)state;
    assert_int_equal(format_of(NULL), FORMAT_OBJECT);
    assert_int_equal(format_of("*/*"), FORMAT_OBJECT);
    assert_int_equal(format_of("application/vnd.kubernetes.protobuf, application/json"), FORMAT_OBJECT);
    assert_int_equal(format_of("application/json;as=Table;v=v1;g=meta.k8s.io,application/json"), FORMAT_TABLE);
    assert_int_equal(format_of("application/json;as=Table;v=v9;g=meta.k8s.io,application/json"), FORMAT_OBJECT);
    assert_int_equal(format_of("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"), FORMAT_PARTIAL);
    assert_int_equal(format_of("text/html"), -1);
    assert_int_equal(format_of("application/json;as=Table;v=v9;g=meta.k8s.io"), -1);
}

static int matches(const char *labels, const char *fields)
{
    char *error;
    json_t *o = J("{'metadata':{'name':'x','namespace':'n','labels':{'a':'b','a.b/c':'','e':'f'}},'reason':'R'}");
    struct api_selector *s = api_selector_new(labels, fields, api_type_event, &error);
    int result = s == NULL ? -1 : (int)api_selector_matches(s, o);
    api_selector_free(s);
    mem_free(error);
    json_decref(o);
    return result;
}

static void test_selectors(void **state)
{
    (void)state;
    static const char *const yes[] = {
        "",         "a",           "a=b",         "a==b",        " a = b , e=f ",
        "a in (b)", "a in (x, b)", "a notin (c)", "z notin (c)", "!z",
        "! z",      "z!=b",        "a.b/c",       "a.b/c=",      "a in (b),e notin (x,y),!q"};
    static const char *const no[] = {"z", "a=c", "a!=b", "!a", "a in (c,d)", "a notin (b)", "a=b,e=x", "a=", "z="};
    static const char *const bad[] = {"=",    "a=b=c", "a in", "a in b", "a in (b",   "a like b",
                                      "a,,b", "a=b,",  "(",    "a b",    "a in (b) c"};
    for (size_t i = 0; i < ARRAY_LEN(yes); i++)
        assert_int_equal(matches(yes[i], NULL), 1);
    for (size_t i = 0; i < ARRAY_LEN(no); i++)
        assert_int_equal(matches(no[i], NULL), 0);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (matches(bad[i], NULL) != -1)
            fail_msg("\"%s\" is taken", bad[i]);
    assert_int_equal(matches(NULL, "metadata.name=x,metadata.namespace==n,reason!=Q"), 1);
    assert_int_equal(matches(NULL, "metadata.name!=x"), 0);
    assert_int_equal(matches(NULL, "spec.x=1"), -1);
    assert_int_equal(matches(NULL, "metadata.name"), -1);
}

static int owner(const char *line)
{
    struct addr peer, local;
    unsigned uid = 0;
    assert_true(addr_parse(STR("127.0.0.1:40000"), &peer));
    assert_true(addr_parse(STR("127.0.0.1:8080"), &local));
    char *table = mem_printf("  sl  local_address rem_address   st ...\n%s\n", line);
    bool found = peer_find(str_of(table), &peer, &local, &uid);
    mem_free(table);
    return found ? (int)uid : -1;
}

static void test_owner_of_a_socket(void **state)
{
    (void)state;
    assert_int_equal(owner("   1: 0100007F:9C40 0100007F:1F90 01 0:0 00:0 0  1000        0 777 1 0"), 1000);
    /* The other end of the same connection, which is ours. */
    assert_int_equal(owner("   1: 0100007F:1F90 0100007F:9C40 01 0:0 00:0 0  1000        0 777 1 0"), -1);
    assert_int_equal(owner("   1: 0100007F:9C41 0100007F:1F90 01 0:0 00:0 0  1000        0 777 1 0"), -1);
    /* Closed by its process: the kernel says uid 0 then, which must not pass for root. */
    assert_int_equal(owner("   1: 0100007F:9C40 0100007F:1F90 06 0:0 00:0 0     0        0 0 1 0"), -1);
    assert_int_equal(owner("   1: 0000000000000000FFFF00000100007F:9C40 0000000000000000FFFF00000100007F:1F90 01 0:0 "
                           "00:0 0 7 0 777 1"),
                     7);
    assert_int_equal(owner("   1: 0100007F:9C40 0100007F:1F90 01 0:0 00:0 0 "), -1);
    assert_int_equal(owner("garbage"), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_paths),
        cmocka_unit_test(test_accept),
        cmocka_unit_test(test_selectors),
        cmocka_unit_test(test_owner_of_a_socket),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
