/* SPDX-License-Identifier: Apache-2.0
 *
 * Callouts over a fake pool: what is refused, what is sent, and that every way to end is told once, from the loop.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proxy/call.h"
#include "proxy/pool.h"

/* ---- a pool with one leg ---- */

static struct {
    enum pool_result next;
    bool reused, fresh_only;
    unsigned requests, cancels, detaches, aborts;
    struct up_request *request;
    struct leg leg;
    struct strbuf head, body;
    bool ended;
    enum message_body framing;
    unsigned trailers;
} pool;

static void send_head(struct leg *leg, const struct message *msg, bool end)
{
    (void)leg;
    strbuf_clear(&pool.head);
    for (uint32_t i = 0; i < msg->headers.count; i++)
        strbuf_printf(&pool.head, "%.*s=%.*s;", STR_ARG(msg->headers.list[i].name),
                      STR_ARG(msg->headers.list[i].value));
    pool.framing = msg->body;
    pool.ended = end;
}

static void send_body(struct leg *leg, struct buf *data, bool end)
{
    (void)leg;
    strbuf_clear(&pool.body);
    while (data->n != 0) {
        struct str s = buf_front(data);
        strbuf_add(&pool.body, s);
        buf_consume(data, s.n);
    }
    pool.ended = end;
}

static void send_trailers(struct leg *leg, const struct headers *trailers)
{
    (void)leg;
    pool.trailers = trailers->count;
    pool.ended = true;
}

static void detach(struct leg *leg, bool abort)
{
    (void)leg;
    pool.detaches++;
    pool.aborts += abort;
}

static const struct leg_codec codec = {
    .send_head = send_head, .send_body = send_body, .send_trailers = send_trailers, .detach = detach};

enum pool_result pool_request(struct worker *w, struct endpoint *endpoint, struct up_request *request, bool fresh_only,
                              struct leg **leg, bool *reused, enum end_reason *why)
{
    (void)w;
    assert_non_null(endpoint);
    pool.requests++;
    pool.request = request;
    pool.fresh_only = fresh_only;
    pool.leg = (struct leg){.codec = &codec, .ops = request->ops, .stream = request->owner};
    *leg = &pool.leg;
    *reused = pool.reused;
    *why = END_CONNECT_FAILED;
    return pool.next;
}

void pool_cancel(struct up_request *request)
{
    assert_ptr_equal(request, pool.request);
    pool.cancels++;
}

/* ---- a worker and a plugin that waits ---- */

struct fixture {
    struct worker w;
    struct call *call;
    unsigned done;
    bool failed;
    char error[80], status[8], body[4096];
    unsigned trailers;
};

static void on_done(void *arg, struct call *call, struct headers *headers, struct buf *body, struct headers *trailers,
                    const char *error)
{
    struct fixture *f = arg;

    assert_ptr_equal(call, f->call);
    f->done++;
    f->failed = headers == NULL;
    if (headers == NULL) {
        snprintf(f->error, sizeof f->error, "%s", error);
        return;
    }
    assert_null(error);
    snprintf(f->status, sizeof f->status, "%.*s", STR_ARG(headers_value(headers, HDR_STATUS)));
    assert_true(body->n < sizeof f->body);
    buf_copy_out(body, 0, body->n, f->body);
    f->body[body->n] = 0;
    f->trailers = trailers->count;
}

static void assert_answer(const struct fixture *f, const char *status, const char *body)
{
    assert_false(f->failed);
    assert_string_equal(f->status, status);
    assert_string_equal(f->body, body);
}

static int setup(void **state)
{
    struct fixture *f = mem_zalloc(sizeof *f);
    struct endpoint_conf e = {.weight = 1};

    loop_init(&f->w.loop);
    f->w.pool = chunk_pool_new(4);
    assert_true(addr_parse(STR("127.0.0.1:9"), &e.addr));
    cluster_update(cluster_get(&f->w.clusters, STR("ns/s:80")), &e, 1);
    strbuf_free(&pool.head);
    strbuf_free(&pool.body);
    memset(&pool, 0, sizeof pool);
    pool.next = POOL_READY;
    *state = f;
    return 0;
}

static void turn(struct fixture *f)
{
    for (int i = 0; i < 4; i++)
        uv_run(&f->w.loop.uv, UV_RUN_NOWAIT);
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    turn(f);
    cluster_table_free(&f->w.clusters);
    loop_fini(&f->w.loop);
    chunk_pool_free(f->w.pool);
    strbuf_free(&pool.head);
    strbuf_free(&pool.body);
    mem_free(f);
    return 0;
}

static const struct abi_pair get_pairs[] = {{STR_INIT(":path"), STR_INIT("/check")},
                                            {STR_INIT(":method"), STR_INIT("GET")},
                                            {STR_INIT(":authority"), STR_INIT("auth")},
                                            {STR_INIT("X-Token"), STR_INIT("t")}};

static struct http_call spec_of(const struct abi_pair *list, size_t count)
{
    return (struct http_call){.id = 1, .cluster = STR("ns/s:80"), .headers = {list, count}};
}

static enum abi_status start(struct fixture *f, const struct http_call *spec)
{
    return call_start(&f->w, spec, on_done, f, &f->call);
}

static void start_get(struct fixture *f)
{
    struct http_call spec = spec_of(get_pairs, ARRAY_LEN(get_pairs));

    assert_int_equal(start(f, &spec), ABI_OK);
    assert_int_equal(pool.requests, 0); /* not from inside */
    turn(f);
}

static struct message *answer(struct arena *arena, const char *status)
{
    struct message *m = arena_zalloc(arena, sizeof *m);

    headers_init(&m->headers, arena, 1000, 10);
    assert_int_equal(headers_add(&m->headers, STR(":status"), str_of(status)), HEADERS_OK);
    return m;
}

static void give_body(struct fixture *f, const char *text, bool end)
{
    struct buf b;

    buf_init(&b, f->w.pool);
    buf_append(&b, str_of(text));
    pool.leg.ops->on_body(pool.leg.stream, &b, end);
    buf_fini(&b);
}

/* ---- tests ---- */

static void test_get(void **state)
{
    struct fixture *f = *state;

    start_get(f);
    assert_true(str_is(strbuf_str(&pool.head), ":method=GET;:scheme=http;:authority=auth;:path=/check;x-token=t;"));
    assert_true(pool.ended);
    assert_int_equal(pool.framing, BODY_NONE);
    pool.leg.ops->on_interim(pool.leg.stream, NULL);
    pool.leg.ops->on_head(pool.leg.stream, answer(pool.request->arena, "200"), false);
    give_body(f, "hel", false);
    give_body(f, "lo", true);
    assert_int_equal(f->done, 0); /* not from inside a leg event */
    assert_int_equal(pool.detaches, 1);
    turn(f);
    assert_int_equal(f->done, 1);
    assert_string_equal(f->status, "200");
    assert_string_equal(f->body, "hello");
    assert_int_equal(pool.aborts, 0);
}

static void test_post_with_body_and_framing_of_its_own(void **state)
{
    struct fixture *f = *state;
    const struct abi_pair pairs[] = {{STR(":method"), STR("POST")},       {STR(":path"), STR("/")},
                                     {STR(":authority"), STR("a:1")},     {STR(":scheme"), STR("https")},
                                     {STR("content-length"), STR("999")}, {STR("Transfer-Encoding"), STR("chunked")},
                                     {STR("connection"), STR("close")},   {STR("host"), STR("other")}};
    struct http_call spec = spec_of(pairs, ARRAY_LEN(pairs));

    spec.body = STR("{}");
    assert_int_equal(start(f, &spec), ABI_OK);
    turn(f);
    assert_true(str_is(strbuf_str(&pool.head), ":method=POST;:scheme=https;:authority=a:1;:path=/;content-length=2;"));
    assert_true(str_is(strbuf_str(&pool.body), "{}"));
    assert_int_equal(pool.framing, BODY_LENGTH);
    assert_true(pool.ended);
    pool.leg.ops->on_head(pool.leg.stream, answer(pool.request->arena, "204"), true);
    turn(f);
    assert_string_equal(f->status, "204");
    assert_string_equal(f->body, "");
}

static void test_trailers_both_ways(void **state)
{
    struct fixture *f = *state;
    const struct abi_pair trailer = {STR("x-sum"), STR("1")};
    struct http_call spec = spec_of(get_pairs, ARRAY_LEN(get_pairs));
    struct headers t;

    spec.trailers = (struct abi_pairs){&trailer, 1};
    assert_int_equal(start(f, &spec), ABI_OK);
    turn(f);
    assert_int_equal(pool.framing, BODY_CHUNKED);
    assert_int_equal(pool.trailers, 1);
    pool.leg.ops->on_head(pool.leg.stream, answer(pool.request->arena, "200"), false);
    headers_init(&t, pool.request->arena, 1000, 10);
    assert_int_equal(headers_add(&t, STR("grpc-status"), STR("0")), HEADERS_OK);
    pool.leg.ops->on_trailers(pool.leg.stream, &t);
    turn(f);
    assert_int_equal(f->trailers, 1);
}

static void test_what_is_refused(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *name, *value;
    } bad[] = {
        {":path", "/x y"},  {":path", "no-slash"}, {":path", ""},      {":method", "G T"}, {":method", "CONNECT"},
        {":method", ""},    {":authority", "a b"}, {":authority", ""}, {"x y", "v"},       {"", "v"},
        {"x", "a\r\nb: c"}, {"x", "a\nb"},         {":status", "200"}, {":path:", "/"},
    };
    struct http_call spec = spec_of(get_pairs, ARRAY_LEN(get_pairs));

    spec.cluster = STR("127.0.0.1:15000"); /* an address is no cluster */
    assert_int_equal(start(f, &spec), ABI_BAD_ARGUMENT);
    for (size_t missing = 0; missing < 3; missing++) {
        struct abi_pair pairs[4];
        memcpy(pairs, get_pairs, sizeof pairs);
        pairs[missing] = (struct abi_pair){STR("x"), STR("y")};
        spec = spec_of(pairs, 4);
        assert_int_equal(start(f, &spec), ABI_BAD_ARGUMENT);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct abi_pair pairs[4];
        struct str name = str_of(bad[i].name);
        memcpy(pairs, get_pairs, sizeof pairs);
        size_t at = 3;
        for (size_t k = 0; k < 3; k++)
            at = str_eq(pairs[k].name, name) ? k : at;
        pairs[at] = (struct abi_pair){name, str_of(bad[i].value)};
        spec = spec_of(pairs, 4);
        if (start(f, &spec) != ABI_BAD_ARGUMENT)
            fail_msg("row %zu was taken", i);
    }
    struct abi_pair twice[5];
    memcpy(twice, get_pairs, sizeof get_pairs);
    twice[4] = (struct abi_pair){STR(":Path"), STR("/other")};
    spec = spec_of(twice, 5);
    assert_int_equal(start(f, &spec), ABI_BAD_ARGUMENT);
    turn(f);
    assert_int_equal(pool.requests, 0);
    assert_int_equal(f->done, 0);
}

static void test_too_large_a_request(void **state)
{
    struct fixture *f = *state;
    struct http_call spec = spec_of(get_pairs, ARRAY_LEN(get_pairs));
    size_t n = 3 * 1024 * 1024;
    char *big = mem_zalloc(n);

    spec.body = str_span(big, n);
    assert_int_equal(start(f, &spec), ABI_INTERNAL_FAILURE);
    mem_free(big);
}

static void test_too_large_an_answer(void **state)
{
    struct fixture *f = *state;
    char *text = mem_zalloc(64 * 1024 + 1);

    memset(text, 'x', 64 * 1024);
    start_get(f);
    pool.leg.ops->on_head(pool.leg.stream, answer(pool.request->arena, "200"), false);
    for (int i = 0; i < 17; i++)
        if (pool.aborts == 0)
            give_body(f, text, false);
    assert_int_equal(pool.aborts, 1);
    turn(f);
    assert_true(f->failed);
    assert_int_equal(f->done, 1);
    mem_free(text);
}

static void test_pool_has_none(void **state)
{
    struct fixture *f = *state;

    pool.next = POOL_FAILED;
    start_get(f);
    turn(f);
    assert_int_equal(f->done, 1);
    assert_answer(f, "503", "upstream connect failure");
}

static void test_pool_waits_then_is_ready(void **state)
{
    struct fixture *f = *state;

    pool.next = POOL_WAIT;
    start_get(f);
    assert_int_equal(pool.head.n, 0);
    pool.request->on_ready(pool.request->owner, &pool.leg, false);
    assert_true(pool.head.n != 0);
    pool.leg.ops->on_head(pool.leg.stream, answer(pool.request->arena, "200"), true);
    turn(f);
    assert_int_equal(f->done, 1);
    assert_int_equal(pool.cancels, 0);
}

static void test_pool_waits_then_fails(void **state)
{
    struct fixture *f = *state;

    pool.next = POOL_WAIT;
    start_get(f);
    pool.request->on_failed(pool.request->owner, END_CONNECT_FAILED);
    turn(f);
    assert_int_equal(f->done, 1);
    assert_answer(f, "503", "upstream connect failure");
    assert_int_equal(pool.cancels, 0);
}

static void test_no_endpoint(void **state)
{
    struct fixture *f = *state;

    cluster_update(cluster_get(&f->w.clusters, STR("ns/s:80")), NULL, 0);
    start_get(f);
    turn(f);
    assert_int_equal(pool.requests, 0);
    assert_answer(f, "503", "no healthy upstream");
}

static void test_endpoints_not_told_yet(void **state)
{
    struct fixture *f = *state;
    struct endpoint_conf e = {.weight = 1};
    struct http_call spec = spec_of(get_pairs, ARRAY_LEN(get_pairs));
    struct cluster *c = cluster_get(&f->w.clusters, STR("ns/later:80"));

    spec.cluster = STR("ns/later:80");
    assert_int_equal(start(f, &spec), ABI_OK);
    turn(f);
    assert_int_equal(pool.requests, 0);
    assert_int_equal(f->done, 0);
    assert_true(addr_parse(STR("127.0.0.1:9"), &e.addr));
    cluster_update(c, &e, 1);
    while (pool.requests == 0)
        uv_run(&f->w.loop.uv, UV_RUN_ONCE);
    call_cancel(f->call);
}

static void test_stale_connection_is_tried_again_once(void **state)
{
    struct fixture *f = *state;

    pool.reused = true;
    start_get(f);
    assert_false(pool.fresh_only);
    pool.leg.ops->on_reset(pool.leg.stream, LEG_CLOSED);
    turn(f);
    assert_int_equal(pool.requests, 2);
    assert_true(pool.fresh_only);
    pool.leg.ops->on_reset(pool.leg.stream, LEG_CLOSED);
    turn(f);
    assert_int_equal(pool.requests, 2);
    assert_int_equal(f->done, 1);
    assert_answer(f, "503", "upstream connect error or disconnect before headers");
}

static void test_no_retry(void **state)
{
    struct fixture *f = *state;
    struct abi_pair pairs[4];

    memcpy(pairs, get_pairs, sizeof pairs);
    struct http_call spec = spec_of(pairs, 4);
    pairs[1].value = STR("POST");
    pool.reused = true;
    assert_int_equal(start(f, &spec), ABI_OK);
    turn(f);
    pool.leg.ops->on_reset(pool.leg.stream, LEG_CLOSED);
    turn(f);
    assert_int_equal(pool.requests, 1);
    assert_int_equal(f->done, 1);
    f->done = 0;
    pool.requests = 0;
    start_get(f);
    pool.leg.ops->on_head(pool.leg.stream, answer(pool.request->arena, "200"), false);
    pool.leg.ops->on_reset(pool.leg.stream, LEG_CLOSED);
    turn(f);
    assert_int_equal(pool.requests, 1);
    assert_true(f->failed);
    assert_int_equal(f->done, 1);
}

static void test_time_over_is_a_504(void **state)
{
    struct fixture *f = *state;
    struct http_call spec = spec_of(get_pairs, ARRAY_LEN(get_pairs));

    spec.timeout_ms = 1;
    assert_int_equal(start(f, &spec), ABI_OK);
    while (f->done == 0)
        uv_run(&f->w.loop.uv, UV_RUN_ONCE);
    assert_answer(f, "504", "upstream request timeout");
    assert_int_equal(pool.requests, pool.aborts);
    turn(f);
    assert_int_equal(f->done, 1);
}

/* A head has been promised to nobody yet: as in Envoy, there is none any more. */
static void test_time_over_behind_the_head_is_a_failure(void **state)
{
    struct fixture *f = *state;
    struct http_call spec = spec_of(get_pairs, ARRAY_LEN(get_pairs));

    spec.timeout_ms = 200;
    assert_int_equal(start(f, &spec), ABI_OK);
    turn(f);
    pool.leg.ops->on_head(pool.leg.stream, answer(pool.request->arena, "200"), false);
    while (f->done == 0)
        uv_run(&f->w.loop.uv, UV_RUN_ONCE);
    assert_true(f->failed);
    assert_int_equal(pool.requests, pool.aborts);
}

static void test_cancel_in_every_state(void **state)
{
    struct fixture *f = *state;
    struct http_call spec = spec_of(get_pairs, ARRAY_LEN(get_pairs));

    assert_int_equal(start(f, &spec), ABI_OK);
    call_cancel(f->call);
    turn(f);
    assert_int_equal(pool.requests, 0);
    pool.next = POOL_WAIT;
    start_get(f);
    call_cancel(f->call);
    assert_int_equal(pool.cancels, 1);
    pool.next = POOL_READY;
    pool.requests = 0;
    start_get(f);
    call_cancel(f->call);
    assert_int_equal(pool.aborts, 1);
    pool.requests = 0;
    start_get(f);
    pool.leg.ops->on_head(pool.leg.stream, answer(pool.request->arena, "200"), true);
    call_cancel(f->call); /* between the end and its delivery */
    turn(f);
    assert_int_equal(f->done, 0);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_get),
        T(test_post_with_body_and_framing_of_its_own),
        T(test_trailers_both_ways),
        T(test_what_is_refused),
        T(test_too_large_a_request),
        T(test_too_large_an_answer),
        T(test_pool_has_none),
        T(test_pool_waits_then_is_ready),
        T(test_pool_waits_then_fails),
        T(test_no_endpoint),
        T(test_endpoints_not_told_yet),
        T(test_stale_connection_is_tried_again_once),
        T(test_no_retry),
        T(test_time_over_is_a_504),
        T(test_time_over_behind_the_head_is_a_failure),
        T(test_cancel_in_every_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
