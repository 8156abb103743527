/* SPDX-License-Identifier: Apache-2.0
 *
 * Callouts: arguments, ids, the answer exactly once and never inside the host call, what is asked for before attach,
 * limits, cancelling; gRPC's refusals.
 */
#include "abi_harness.h"

static struct module *module;
static struct plugin_vm *pv;
static uint32_t ids[8], id_count;
static struct strbuf good;

static const struct abi_pair good_pairs[] = {
    {STR(":method"), STR("GET")}, {STR(":path"), STR("/check")}, {STR(":authority"), STR("auth")}};

static int setup(void **state)
{
    test_setup(state);
    id_count = 0;
    find_area(module);
    return 0;
}

static uint32_t http_call(const char *cluster, struct str headers, int timeout)
{
    struct str c = str_of(cluster);
    uint32_t h = put(1000, headers), body = put(5000, STR("ping"));

    return call("proxy_http_call", put(0, c), c.n, h, headers.n, body, 4, area, 0, timeout, OUT_3);
}

static uint32_t step_configure_call(uint32_t cb, const uint32_t *a)
{
    (void)a;
    if (cb == CB_CONFIGURE) {
        assert_int_equal(call("proxy_set_tick_period_milliseconds", 500), ABI_OK);
    }
    return 1;
}

static void begin(uint32_t max_calls)
{
    struct plugin desc = plugin_desc(module);

    desc.limits.max_calls = max_calls;
    on_step = step_configure_call;
    pv = attach_vm(&desc, 3);
    on_step = NULL;
}

static uint32_t step_call(uint32_t cb, const uint32_t *a)
{
    (void)a;
    if (cb == CB_TICK) {
        assert_int_equal(http_call("auth", strbuf_str(&good), 1000), ABI_OK);
        ids[id_count++] = get_u32(OUT_3);
        assert_int_equal(step_count[CB_CALL_RESPONSE], 0);
    }
    return 0;
}

static uint32_t answer_args[5];
static uint32_t step_answer(uint32_t cb, const uint32_t *a)
{
    if (cb != CB_CALL_RESPONSE) {
        return 0;
    }
    memcpy(answer_args, a, sizeof answer_args);
    assert_int_equal(call("proxy_get_header_map_value", MAP_CALL_HEADERS, put(0, STR(":status")), 7, OUT_PTR, OUT_SIZE),
                     ABI_OK);
    assert_gift("200");
    assert_int_equal(call("proxy_get_header_map_value", MAP_CALL_TRAILERS, put(0, STR("t")), 1, OUT_PTR, OUT_SIZE),
                     ABI_OK);
    assert_gift("u");
    assert_int_equal(call("proxy_get_buffer_bytes", BUFFER_CALL_BODY, 0, -1, OUT_PTR, OUT_SIZE), ABI_OK);
    assert_gift("pong");
    assert_int_equal(call("proxy_get_status", OUT_3, OUT_PTR, OUT_SIZE), ABI_OK);
    assert_int_equal(get_u32(OUT_3), 0);
    assert_int_equal(get_u32(OUT_SIZE), 0);
    assert_int_equal(call("proxy_get_status", BAD, OUT_PTR, OUT_SIZE), ABI_INVALID_MEMORY_ACCESS);
    /* no stream: what a late answer of a gone stream would do must not kill the VM */
    assert_int_equal(call("proxy_get_header_map_value", MAP_REQUEST_HEADERS, area, 1, OUT_PTR, OUT_SIZE),
                     ABI_NOT_FOUND);
    return 0;
}

static uint32_t step_failed(uint32_t cb, const uint32_t *a)
{
    if (cb == CB_CALL_RESPONSE) {
        memcpy(answer_args, a, sizeof answer_args);
        assert_int_equal(call("proxy_get_status", OUT_3, OUT_PTR, OUT_SIZE), ABI_OK);
        assert_int_equal(get_u32(OUT_3), 11);
        assert_true(gift().n > 0);
        assert_int_equal(call("proxy_get_header_map_pairs", MAP_CALL_HEADERS, OUT_PTR, OUT_SIZE), ABI_OK);
        assert_int_equal(get_u32(OUT_SIZE), 0);
        assert_int_equal(call("proxy_get_buffer_bytes", BUFFER_CALL_BODY, 0, -1, OUT_PTR, OUT_SIZE), ABI_NOT_FOUND);
    }
    return 0;
}

static void test_call_and_answer(void **state)
{
    struct arena arena;
    struct headers headers, trailers;
    struct buf body;

    (void)state;
    begin(10);
    on_step = step_call;
    plugin_vm_tick(pv);
    assert_int_equal(host.calls, 1);
    assert_int_equal(host.last_call_id, ids[0]);
    assert_int_not_equal(ids[0], 0);
    assert_string_equal(host.last_cluster, "auth");
    assert_string_equal(host.last_body, "ping");
    assert_int_equal(host.last_headers, 3);
    arena_init(&arena, pool, 1 << 20);
    headers_init(&headers, &arena, 4096, 10);
    headers_init(&trailers, &arena, 4096, 10);
    buf_init(&body, pool);
    assert_int_equal(headers_add(&headers, STR(":status"), STR("200")), HEADERS_OK);
    assert_int_equal(headers_add(&trailers, STR("t"), STR("u")), HEADERS_OK);
    buf_append(&body, STR("pong"));
    on_step = step_answer;
    plugin_vm_call_done(pv, ids[0], &headers, &body, &trailers, NULL);
    assert_int_equal(answer_args[0], 1); /* the root */
    assert_int_equal(answer_args[1], ids[0]);
    assert_int_equal(answer_args[2], 1);
    assert_int_equal(answer_args[3], 4);
    assert_int_equal(answer_args[4], 1);
    assert_int_equal(body.n, 0);
    plugin_vm_call_done(pv, ids[0], &headers, &body, &trailers, NULL); /* once only */
    plugin_vm_call_done(pv, 12345, &headers, &body, &trailers, NULL);
    assert_int_equal(step_count[CB_CALL_RESPONSE], 1);
    buf_fini(&body);
    arena_fini(&arena);
    end_vm(pv);
    assert_int_equal(host.cancels, 0);
}

static void test_failure(void **state)
{
    (void)state;
    begin(10);
    on_step = step_call;
    plugin_vm_tick(pv);
    on_step = step_failed;
    plugin_vm_call_done(pv, ids[0], NULL, NULL, NULL, "timeout");
    assert_int_equal(step_count[CB_CALL_RESPONSE], 1);
    assert_int_equal(answer_args[2] + answer_args[3] + answer_args[4], 0);
    end_vm(pv);
}

static void test_limit_and_slots(void **state)
{
    (void)state;
    begin(2);
    on_step = step_call;
    plugin_vm_tick(pv);
    plugin_vm_tick(pv);
    uint32_t first = ids[0];
    plugin_vm_call_done(pv, ids[0], NULL, NULL, NULL, NULL);
    step_count[CB_CALL_RESPONSE] = 0;
    plugin_vm_tick(pv);
    assert_int_not_equal(ids[2], first); /* the slot's next user has another id */
    on_step = NULL;
    plugin_vm_call_done(pv, first, NULL, NULL, NULL, NULL);
    assert_int_equal(step_count[CB_CALL_RESPONSE], 0);
    end_vm(pv);
    assert_int_equal(host.cancels, 2);
}

static uint32_t step_errors(uint32_t cb, const uint32_t *a)
{
    struct strbuf partial = {0};

    (void)a;
    if (cb != CB_TICK) {
        return 0;
    }
    for (size_t skip = 0; skip < 3; skip++) { /* each pseudo-header is needed */
        struct abi_pair list[2];
        for (size_t i = 0, n = 0; i < 3; i++) {
            if (i != skip) {
                list[n++] = good_pairs[i];
            }
        }
        strbuf_clear(&partial);
        pairs_encode(&partial, list, 2);
        assert_int_equal(http_call("auth", strbuf_str(&partial), 1), ABI_BAD_ARGUMENT);
        assert_int_equal(get_u32(OUT_3), 0);
    }
    strbuf_free(&partial);
    assert_int_equal(http_call("auth", strbuf_str(&good), -1), ABI_BAD_ARGUMENT);
    assert_int_equal(http_call("auth", STR("\1\0\0\0"), 1), ABI_BAD_ARGUMENT);
    uint32_t c = put(0, STR("auth")), h = put(1000, strbuf_str(&good));
    assert_int_equal(call("proxy_http_call", BAD, 40, h, good.n, c, 0, c, 0, 1, OUT_3), ABI_INVALID_MEMORY_ACCESS);
    assert_int_equal(call("proxy_http_call", c, 4, BAD, good.n, c, 0, c, 0, 1, OUT_3), ABI_INVALID_MEMORY_ACCESS);
    assert_int_equal(call("proxy_http_call", c, 4, h, good.n, BAD, 40, c, 0, 1, OUT_3), ABI_INVALID_MEMORY_ACCESS);
    assert_int_equal(call("proxy_http_call", c, 4, h, good.n, c, 0, BAD, 40, 1, OUT_3), ABI_INVALID_MEMORY_ACCESS);
    assert_int_equal(call("proxy_http_call", c, 4, h, good.n, c, 0, c, 0, 1, BAD), ABI_INVALID_MEMORY_ACCESS);
    assert_int_equal(host.calls, 0); /* nothing was started */
    uint32_t t = put(3000, STR("\1\0\0\0\1\0\0\0\1\0\0\0a\0b"));
    assert_int_equal(call("proxy_http_call", c, 4, h, good.n, c, 0, t, 16, 1, OUT_3), ABI_OK);
    assert_int_equal(host.last_trailers, 1);
    assert_int_equal(host.last_headers, 3);
    assert_int_equal(call("proxy_http_call", c, 4, h, good.n, c, 0, t, 15, 1, OUT_3), ABI_BAD_ARGUMENT);
    assert_int_equal(call("proxy_http_call", c, 4, h, good.n, c, 0, t, 4, 1, OUT_3), ABI_BAD_ARGUMENT);
    host.call_answer = ABI_BAD_ARGUMENT; /* unknown cluster */
    assert_int_equal(http_call("nobody", strbuf_str(&good), 1), ABI_BAD_ARGUMENT);
    assert_int_equal(get_u32(OUT_3), 0);
    host.call_answer = ABI_NOT_FOUND; /* Rust would panic on it */
    assert_int_equal(http_call("nobody", strbuf_str(&good), 1), ABI_INTERNAL_FAILURE);
    return 0;
}

static void test_errors(void **state)
{
    (void)state;
    begin(10);
    on_step = step_errors;
    plugin_vm_tick(pv);
    assert_int_equal(step_count[CB_TICK], 1);
    end_vm(pv);
    assert_int_equal(host.cancels, 1);
}

static uint32_t step_early(uint32_t cb, const uint32_t *a)
{
    (void)a;
    if (cb == CB_CONFIGURE) {
        assert_int_equal(http_call("a", strbuf_str(&good), 1), ABI_OK);
        ids[id_count++] = get_u32(OUT_3);
        assert_int_equal(http_call("b", strbuf_str(&good), 1), ABI_OK);
        ids[id_count++] = get_u32(OUT_3);
        assert_int_equal(http_call("c", strbuf_str(&good), 1), ABI_INTERNAL_FAILURE); /* two at most */
        memset(vm_mem(guest, area, AREA_SIZE), 'Z', AREA_SIZE);
        assert_int_equal(call("proxy_set_tick_period_milliseconds", 1), ABI_OK);
    }
    return 1;
}

static void start_early(void)
{
    struct plugin desc = plugin_desc(module);

    desc.limits.max_calls = 2;
    on_step = step_early;
    pv = start_vm(&desc);
    on_step = NULL;
    assert_int_equal(host.calls, 0);
    assert_int_equal(host.tick_sets, 0);
}

static void test_calls_before_attach(void **state)
{
    (void)state;
    start_early();
    plugin_vm_attach(pv, &ops, &host, 1);
    assert_int_equal(host.calls, 2);
    assert_string_equal(host.last_cluster, "b");
    assert_string_equal(host.last_body, "ping");
    assert_int_equal(host.last_headers, 3);
    assert_int_equal(host.tick_ms, 10); /* the smallest period */
    assert_int_equal(step_count[CB_CALL_RESPONSE], 0);
    plugin_vm_call_done(pv, ids[1], NULL, NULL, NULL, NULL);
    assert_int_equal(step_count[CB_CALL_RESPONSE], 1);
    end_vm(pv);
    assert_int_equal(host.cancels, 1);
    assert_int_equal(host.tick_ms, 0);
}

static void test_calls_that_cannot_start_at_attach(void **state)
{
    (void)state;
    start_early();
    host.call_answer = ABI_BAD_ARGUMENT;
    on_step = step_failed;
    plugin_vm_attach(pv, &ops, &host, 1);
    assert_int_equal(step_count[CB_CALL_RESPONSE], 2);
    assert_int_equal(answer_args[1], ids[1]);
    end_vm(pv);
    assert_int_equal(step_count[CB_CALL_RESPONSE], 2);
    assert_int_equal(host.cancels, 0);
}

static void test_never_attached(void **state)
{
    (void)state;
    start_early();
    plugin_vm_free(pv);
    assert_int_equal(host.calls, 0);
}

static uint32_t step_call_in_done(uint32_t cb, const uint32_t *a)
{
    (void)a;
    if (cb == CB_DONE) {
        assert_int_equal(http_call("a", strbuf_str(&good), 1), ABI_INTERNAL_FAILURE);
    }
    return 0;
}

static void test_no_call_while_detaching(void **state)
{
    (void)state;
    begin(10);
    on_step = step_call_in_done;
    plugin_vm_detach(pv);
    on_step = NULL;
    plugin_vm_free(pv);
    assert_int_equal(host.calls, 0);
    assert_int_equal(step_count[CB_DONE], 1);
}

static uint32_t step_grpc(uint32_t cb, const uint32_t *a)
{
    (void)a;
    if (cb == CB_TICK) {
        for (int i = 0; i < 3; i++) {
            assert_int_equal(call("proxy_grpc_call", area, 1, area, 1, area, 1, area, 0, area, 0, 1, OUT_3),
                             ABI_INTERNAL_FAILURE);
            assert_int_equal(call("proxy_grpc_stream", area, 1, area, 1, area, 1, area, 0, OUT_3),
                             ABI_INTERNAL_FAILURE);
        }
        assert_int_equal(host.log_lines, 1); /* one warning */
        assert_int_equal(call("proxy_grpc_send", 1, area, 1, 0), ABI_NOT_FOUND);
        assert_int_equal(call("proxy_grpc_cancel", 1), ABI_NOT_FOUND);
        assert_int_equal(call("proxy_grpc_close", 1), ABI_NOT_FOUND);
    }
    return 0;
}

static void test_grpc(void **state)
{
    (void)state;
    begin(10);
    on_step = step_grpc;
    plugin_vm_tick(pv);
    assert_int_equal(step_count[CB_TICK], 1);
    end_vm(pv);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_call_and_answer, setup),
        cmocka_unit_test_setup(test_failure, setup),
        cmocka_unit_test_setup(test_limit_and_slots, setup),
        cmocka_unit_test_setup(test_errors, setup),
        cmocka_unit_test_setup(test_calls_before_attach, setup),
        cmocka_unit_test_setup(test_calls_that_cannot_start_at_attach, setup),
        cmocka_unit_test_setup(test_never_attached, setup),
        cmocka_unit_test_setup(test_no_call_while_detaching, setup),
        cmocka_unit_test_setup(test_grpc, setup),
    };

    harness_begin();
    pairs_encode(&good, good_pairs, 3);
    module = load_guest("step.c", NULL);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    module_unref(module);
    strbuf_free(&good);
    harness_end();
    return failed;
}
