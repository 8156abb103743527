/* SPDX-License-Identifier: Apache-2.0
 *
 * The property tree: names, binary forms, both spellings, and what filters set. The stream is made by hand; what the
 * stream would do for a property (routes, filter state) is faked here.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proxy/pool.h"
#include "proxy/properties.h"

/* ---- fakes of stream.c and pool.c ---- */

static struct route the_route;
static unsigned lookups;

const struct route *stream_route(struct stream *s)
{
    lookups++;
    s->route.route = &the_route;
    s->route_known = true;
    return &the_route;
}

struct str stream_property_get(const struct stream *s, struct str key, bool *found)
{
    for (const struct stream_property *p = s->properties; p != NULL; p = p->next) {
        *found = str_eq(p->key, key);
        if (*found)
            return p->value;
    }
    return STR_NONE;
}

bool stream_property_set(struct stream *s, struct str key, struct str value)
{
    struct stream_property *p = arena_zalloc(&s->arena, sizeof *p);
    p->key = arena_str(&s->arena, key);
    p->value = arena_str(&s->arena, value);
    p->next = s->properties;
    s->properties = p;
    return true;
}

static struct addr up_local;
/* ---- a stream ---- */

struct fixture {
    struct chunk_pool *pool;
    struct label labels[2];
    struct identity identity;
    struct worker worker;
    struct stream stream;
    struct message request, response;
    struct headers trailers;
    struct cluster cluster;
    struct endpoint endpoint;
    struct route_backend backend;
    struct strbuf out;
};

static void add(struct headers *h, const char *name, const char *value)
{
    assert_int_equal(headers_add(h, str_of(name), str_of(value)), HEADERS_OK);
}

static int setup(void **state)
{
    struct fixture *f = mem_zalloc(sizeof *f);
    struct stream *s = &f->stream;

    f->pool = chunk_pool_new(4);
    f->labels[0] = (struct label){(char *)"istio", (char *)"ingressgateway"};
    f->labels[1] = (struct label){(char *)"app", (char *)"edge"};
    f->identity = (struct identity){(char *)"weir", (char *)"istio-system", {f->labels, 2}};
    f->worker.identity = &f->identity;
    arena_init(&s->arena, f->pool, 1 << 20);
    s->worker = &f->worker;
    s->side[DIR_REQUEST].msg = &f->request;
    headers_init(&f->request.headers, &s->arena, 65536, 100);
    add(&f->request.headers, ":method", "GET");
    add(&f->request.headers, ":scheme", "http");
    add(&f->request.headers, ":authority", "example.com:8080");
    add(&f->request.headers, ":path", "/a/b?x=1&y=2");
    add(&f->request.headers, "x-a", "1");
    add(&f->request.headers, "x-a", "2");
    add(&f->request.headers, "user-agent", "t/1");
    add(&f->request.headers, "x-request-id", "id-1");
    f->request.version = 11;
    f->request.head_bytes = 100;
    assert_true(addr_parse(STR("10.0.0.7:4321"), &s->remote));
    assert_true(addr_parse(STR("127.0.0.1:8080"), &s->local));
    s->conn_id = 0x0102;
    s->start_wall_ns = 1700000000123456789u;
    s->start_ns = 1000;
    s->side[DIR_REQUEST].body_bytes = 7;
    the_route = (struct route){.name = (char *)"shop.main.0", .backends = &f->backend, .backend_count = 1};
    f->backend.cluster = (char *)"shop/api:80";
    lookups = 0;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    arena_fini(&f->stream.arena);
    chunk_pool_free(f->pool);
    strbuf_free(&f->out);
    mem_free(f);
    return 0;
}

static void add_response(struct fixture *f)
{
    f->stream.side[DIR_RESPONSE].msg = &f->response;
    headers_init(&f->response.headers, &f->stream.arena, 65536, 100);
    add(&f->response.headers, ":status", "404");
    add(&f->response.headers, "x-b", "c");
    f->response.status = 404;
}

/* "a.b" with '.' for NUL, but "\x1f" for a dot in a segment. */
static struct str path_of(const char *dotted, char *buf)
{
    size_t n = strlen(dotted);

    for (size_t i = 0; i < n; i++)
        buf[i] = dotted[i] == '.' ? '\0' : dotted[i] == '\x1f' ? '.' : dotted[i];
    return str_span(buf, n);
}

static enum abi_status get_from(struct fixture *f, struct stream *s, bool ended, const char *dotted)
{
    char buf[128];

    strbuf_clear(&f->out);
    return property_get(&f->worker, s, ended, path_of(dotted, buf), &f->out);
}

static void expect_bytes(struct fixture *f, const char *path, struct str want)
{
    assert_int_equal(get_from(f, &f->stream, false, path), ABI_OK);
    assert_int_equal(f->out.n, want.n);
    assert_memory_equal(f->out.p, want.p, want.n);
}

static void expect_text(struct fixture *f, const char *path, const char *want)
{
    assert_int_equal(get_from(f, &f->stream, false, path), ABI_OK);
    if (!str_is(strbuf_str(&f->out), want))
        fail_msg("%s: \"%.*s\", not \"%s\"", path, STR_ARG(strbuf_str(&f->out)), want);
}

static void expect_int(struct fixture *f, const char *path, uint64_t want)
{
    uint64_t got = 0;

    assert_int_equal(get_from(f, &f->stream, false, path), ABI_OK);
    assert_int_equal(f->out.n, 8);
    for (size_t i = 0; i < 8; i++)
        got |= (uint64_t)(unsigned char)f->out.p[i] << (8 * i);
    assert_true(got == want);
}

static void expect_none(struct fixture *f, const char *path)
{
    assert_int_equal(get_from(f, &f->stream, false, path), ABI_NOT_FOUND);
    assert_int_equal(f->out.n, 0);
}

/* ---- tests ---- */

static void test_request(void **state)
{
    struct fixture *f = *state;

    expect_text(f, "request.path", "/a/b?x=1&y=2");
    expect_text(f, "request.url_path", "/a/b");
    expect_text(f, "request.query", "x=1&y=2");
    expect_text(f, "request.host", "example.com:8080");
    expect_text(f, "request.scheme", "http");
    expect_text(f, "request.method", "GET");
    expect_text(f, "request.protocol", "HTTP/1.1");
    expect_text(f, "request.useragent", "t/1");
    expect_text(f, "request.id", "id-1");
    expect_none(f, "request.referer");
    expect_int(f, "request.time", 1700000000123456789u);
    expect_int(f, "request.size", 7);
    expect_int(f, "request.total_size", f->stream.side[DIR_REQUEST].msg->headers.bytes + 7);
    expect_none(f, "request.duration");
    f->stream.end_ns = 5000;
    expect_int(f, "request.duration", 4000);
    expect_none(f, "request.path.x");
    expect_none(f, "request.nothing");
    assert_int_equal(get_from(f, &f->stream, false, "request"), ABI_SERIALIZATION_FAILURE);
}

static void test_query_is_empty_without_one(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(headers_set(&f->request.headers, STR(":path"), STR("/plain")), HEADERS_OK);
    expect_text(f, "request.query", "");
    expect_text(f, "request.url_path", "/plain");
}

static void test_declared_size(void **state)
{
    struct fixture *f = *state;

    f->request.body = BODY_LENGTH;
    f->request.content_length = 1000;
    expect_int(f, "request.size", 1000);
}

static void test_header_maps(void **state)
{
    struct fixture *f = *state;

    expect_text(f, "request.headers.x-a", "1,2");
    expect_text(f, "request.headers.X-A", "1,2");
    expect_text(f, "request.headers.:method", "GET");
    expect_none(f, "request.headers.absent");
    expect_text(f, "request.headers.Host", "example.com:8080"); /* of :authority, as in Envoy */
    expect_none(f, "response.headers.x-b");
    expect_bytes(f, "response.trailers", STR("\0\0\0\0"));
    expect_none(f, "response.trailers.x");
    add_response(f);
    expect_text(f, "response.headers.x-b", "c");
    expect_bytes(f, "response.headers",
                 str_span("\x02\0\0\0\x07\0\0\0\x03\0\0\0\x03\0\0\0\x01\0\0\0:status\0"
                          "404\0x-b\0c\0",
                          38));
}

static void test_response(void **state)
{
    struct fixture *f = *state;

    expect_none(f, "response.code");
    expect_none(f, "response.code_details");
    expect_int(f, "response.flags", 0);
    expect_none(f, "response.grpc_status");
    expect_bytes(f, "response.headers", str_span("\0\0\0\0", 4));
    expect_none(f, "response.headers.x-b");
    expect_int(f, "response.headers_bytes", 0);
    add_response(f);
    expect_int(f, "response.code", 404);
    expect_int(f, "response.grpc_status", 12);
    expect_text(f, "response.code_details", "via_upstream");
    f->stream.status = 503;
    expect_int(f, "response.code", 503);
    f->stream.reason = END_NO_ENDPOINT;
    expect_text(f, "response.code_details", "no_healthy_upstream");
    expect_int(f, "response.flags", 2);
    f->stream.details = STR("from_a_filter");
    expect_text(f, "response.code_details", "from_a_filter");
    headers_init(&f->trailers, &f->stream.arena, 1000, 10);
    add(&f->trailers, "grpc-status", "14");
    f->stream.side[DIR_RESPONSE].trailers = &f->trailers;
    expect_int(f, "response.grpc_status", 14);
    expect_text(f, "response.trailers.grpc-status", "14");
}

/* Envoy's numbers, one for each of our flags. */
static void test_flags_are_envoys(void **state)
{
    struct fixture *f = *state;
    static const struct {
        enum end_reason reason;
        uint64_t bits;
    } list[] = {
        {END_UPSTREAM_RESET, 0x40},   {END_CONNECT_FAILED, 0x20},  {END_UPSTREAM_OVERFLOW, 0x80},
        {END_ROUTE_NOT_FOUND, 0x100}, {END_RESPONSE_TIMEOUT, 0x4}, {END_CLIENT_GONE, 0x4000},
        {END_IDLE_TIMEOUT, 0x10000},  {END_BAD_REQUEST, 0x40000},  {END_UPSTREAM_BAD, 0x800000},
        {END_NO_CLUSTER, 0x1000000},  {END_OVERLOAD, 0x2000000},   {END_VIA_UPSTREAM, 0},
    };

    for (size_t i = 0; i < ARRAY_LEN(list); i++) {
        f->stream.reason = list[i].reason;
        expect_int(f, "response.flags", list[i].bits);
    }
}

static void test_addresses(void **state)
{
    struct fixture *f = *state;

    expect_text(f, "source.address", "10.0.0.7:4321");
    expect_int(f, "source.port", 4321);
    expect_text(f, "destination.address", "127.0.0.1:8080");
    expect_int(f, "destination.port", 8080);
    expect_int(f, "connection.id", 0x0102);
    expect_int(f, "connection_id", 0x0102);
    expect_bytes(f, "connection.mtls", str_span("\0", 1));
    expect_text(f, "connection.requested_server_name", "");
    expect_none(f, "connection.tls_version");
}

static void test_upstream(void **state)
{
    struct fixture *f = *state;

    expect_none(f, "upstream.address");
    expect_none(f, "upstream.local_address");
    expect_none(f, "upstream.num_endpoints");
    assert_true(addr_parse(STR("[::1]:9000"), &f->endpoint.addr));
    assert_true(addr_parse(STR("127.0.0.1:55555"), &up_local));
    f->stream.endpoint = &f->endpoint;
    f->cluster = (struct cluster){.key = (char *)"shop/api:80", .count = 3};
    f->stream.cluster = &f->cluster;
    f->stream.up_local = up_local;
    f->stream.attempts = 2;
    expect_text(f, "upstream.address", "[::1]:9000");
    expect_int(f, "upstream.port", 9000);
    expect_text(f, "upstream.local_address", "127.0.0.1:55555");
    expect_int(f, "upstream.request_attempt_count", 2);
    expect_int(f, "upstream.num_endpoints", 3);
    expect_text(f, "upstream.locality", "");
    expect_text(f, "upstream.transport_failure_reason", "");
}

static void test_route_and_cluster_in_both_spellings(void **state)
{
    struct fixture *f = *state;

    expect_text(f, "xds.route_name", "shop.main.0");
    expect_text(f, "route_name", "shop.main.0");
    expect_text(f, "xds.cluster_name", "shop/api:80");
    expect_text(f, "cluster_name", "shop/api:80");
    expect_text(f, "xds.route_metadata", "");
    expect_bytes(f, "xds.route_metadata.filter_metadata", str_span("\0\0\0\0", 4));
    expect_bytes(f, "xds.route_metadata.typed_filter_metadata", str_span("\0\0\0\0", 4));
    expect_none(f, "xds.route_metadata.filter_metadata.x");
    expect_none(f, "xds.route_metadata.other");
    expect_text(f, "xds.virtual_host_metadata", "");
    expect_text(f, "xds.filter_chain_name", "");
    expect_int(f, "listener_direction", 2);
    expect_int(f, "xds.listener_direction", 2);
    assert_int_equal(lookups, 1);
}

static void test_no_lookup_at_the_end(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(get_from(f, &f->stream, true, "route_name"), ABI_NOT_FOUND);
    assert_int_equal(lookups, 0);
}

static void test_node(void **state)
{
    static const char node_id[] = "router~10.1.2.3~weir.istio-system~istio-system.svc.cluster.local";
    struct fixture *f = *state;

    expect_text(f, "node.id", node_id); /* INSTANCE_IP: see main */
    expect_text(f, "xds.node.cluster", "weir.istio-system");
    expect_text(f, "node.metadata.NAMESPACE", "istio-system");
    expect_text(f, "xds.node.metadata.NAME", "weir");
    expect_text(f, "node.metadata.LABELS.istio", "ingressgateway");
    expect_none(f, "node.metadata.LABELS.none");
    expect_none(f, "node.metadata.NONE");
    expect_none(f, "node.none");
    expect_bytes(f, "node.metadata.LABELS",
                 str_span("\x02\0\0\0\x05\0\0\0\x0e\0\0\0\x03\0\0\0\x04\0\0\0istio\0ingressgateway\0app\0edge\0", 50));
    /* Node.id is field 1, of wire type 2. */
    assert_int_equal(get_from(f, &f->stream, false, "node"), ABI_OK);
    assert_int_equal(f->out.p[0], 0x0a);
    assert_int_equal((size_t)f->out.p[1], strlen(node_id));
    assert_true(str_find_str(strbuf_str(&f->out), STR("\x1a\x0eingressgateway")) > 0);
}

/* What a VM may ask while it is built. */
static void test_without_a_worker(void **state)
{
    struct fixture *f = *state;
    const struct identity *me = f->worker.identity;
    static const struct str known[] = {STR_INIT("node\0id"), STR_INIT("xds\0node\0metadata\0NAMESPACE"),
                                       STR_INIT("listener_direction\0")};
    static const struct str unknown[] = {STR_INIT("request\0path"), STR_INIT("route_name"), STR_INIT("mine")};

    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        strbuf_clear(&f->out);
        assert_int_equal(property_get_root(me, known[i], &f->out), ABI_OK);
        assert_true(f->out.n != 0);
    }
    for (size_t i = 0; i < ARRAY_LEN(unknown); i++)
        assert_int_equal(property_get_root(me, unknown[i], &f->out), ABI_NOT_FOUND);
    assert_int_equal(property_get_root(me, STR_NONE, &f->out), ABI_SERIALIZATION_FAILURE);
    assert_int_equal(property_get_root(NULL, known[0], &f->out), ABI_NOT_FOUND);
}

static void test_root_scope(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(get_from(f, NULL, false, "node.metadata.NAME"), ABI_OK);
    assert_true(str_is(strbuf_str(&f->out), "weir"));
    assert_int_equal(get_from(f, NULL, false, "listener_direction"), ABI_OK);
    assert_int_equal(get_from(f, NULL, false, "xds.route_name"), ABI_NOT_FOUND);
    assert_int_equal(get_from(f, NULL, false, "request.path"), ABI_NOT_FOUND);
    assert_int_equal(get_from(f, NULL, false, "connection_id"), ABI_NOT_FOUND);
    assert_int_equal(get_from(f, NULL, false, "anything"), ABI_NOT_FOUND);
    assert_int_equal(get_from(f, NULL, false, "metadata"), ABI_NOT_FOUND);
    assert_int_equal(property_set(NULL, STR("a"), STR("b")), ABI_NOT_FOUND);
}

static void test_set_and_get(void **state)
{
    struct fixture *f = *state;
    char buf[64];

    assert_int_equal(property_set(&f->stream, STR("colour"), STR("red")), ABI_OK);
    expect_text(f, "colour", "red");
    expect_text(f,
                "filter_state.wasm\x1f"
                "colour",
                "red");
    expect_text(f, "filter_state.colour", "red");
    assert_int_equal(get_from(f, &f->stream, false, "filter_state"), ABI_SERIALIZATION_FAILURE);
    assert_int_equal(property_set(&f->stream, path_of("a.b.c", buf), STR("deep")), ABI_OK);
    expect_text(f, "a.b.c", "deep");
    expect_none(f, "a.b");
    expect_none(f, "a");
    /* What is known shadows what is set. */
    assert_int_equal(property_set(&f->stream, path_of("request.method", buf), STR("X")), ABI_OK);
    expect_text(f, "request.method", "GET");
    /* A name that is not known of a known tree goes round. */
    assert_int_equal(property_set(&f->stream, path_of("request.mine", buf), STR("m")), ABI_OK);
    expect_text(f, "request.mine", "m");
    assert_int_equal(property_set(&f->stream, STR("empty"), STR_NONE), ABI_OK);
    expect_text(f, "empty", "");
    /* set_envoy_filter_state: the key by itself, as the access log looks it up. */
    bool found = false;
    assert_int_equal(property_set(&f->stream, STR("filter_state\0team"), STR("a")), ABI_OK);
    expect_text(f, "filter_state.team", "a");
    assert_true(str_is(stream_property_get(&f->stream, STR("team"), &found), "a"));
    assert_true(found);
}

static void test_paths(void **state)
{
    struct fixture *f = *state;
    char deep[100];

    expect_text(f, "request.method.", "GET"); /* the C++ SDK's trailing NUL */
    assert_int_equal(get_from(f, &f->stream, false, ""), ABI_SERIALIZATION_FAILURE);
    assert_int_equal(get_from(f, &f->stream, false, "."), ABI_SERIALIZATION_FAILURE);
    expect_none(f, "..");
    expect_none(f, ".request.method");
    expect_none(f, "request..method");
    memset(deep, 0, sizeof deep);
    assert_int_equal(property_get(&f->worker, &f->stream, false, str_span(deep, sizeof deep), &f->out), ABI_NOT_FOUND);
    expect_bytes(f, "metadata.filter_metadata", str_span("\0\0\0\0", 4));
    expect_none(f, "metadata.filter_metadata.x");
    expect_text(f, "metadata", "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_request, setup, teardown),
        cmocka_unit_test_setup_teardown(test_query_is_empty_without_one, setup, teardown),
        cmocka_unit_test_setup_teardown(test_declared_size, setup, teardown),
        cmocka_unit_test_setup_teardown(test_header_maps, setup, teardown),
        cmocka_unit_test_setup_teardown(test_response, setup, teardown),
        cmocka_unit_test_setup_teardown(test_flags_are_envoys, setup, teardown),
        cmocka_unit_test_setup_teardown(test_addresses, setup, teardown),
        cmocka_unit_test_setup_teardown(test_upstream, setup, teardown),
        cmocka_unit_test_setup_teardown(test_route_and_cluster_in_both_spellings, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_lookup_at_the_end, setup, teardown),
        cmocka_unit_test_setup_teardown(test_without_a_worker, setup, teardown),
        cmocka_unit_test_setup_teardown(test_node, setup, teardown),
        cmocka_unit_test_setup_teardown(test_root_scope, setup, teardown),
        cmocka_unit_test_setup_teardown(test_set_and_get, setup, teardown),
        cmocka_unit_test_setup_teardown(test_paths, setup, teardown),
    };
    setenv("INSTANCE_IP", "10.1.2.3", 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
