/* SPDX-License-Identifier: Apache-2.0
 *
 * Contexts and what a callback's answer means (the table of docs/abi.md), the actions that wait for the callback's end,
 * effective contexts, and the death of a VM.
 */
#include "abi_harness.h"

static struct module *module, *module_0_1, *module_no_body;
static struct stream stream, other;
static struct plugin_vm *pv;
static struct ctx *ctx;
static uint32_t answer;

static int setup(void **state)
{
    test_setup(state);
    stream_init(&stream);
    stream_init(&other);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    stream_fini(&stream);
    stream_fini(&other);
    return 0;
}

static void begin_with(struct module *m, enum abi_version abi, enum pause_headers pause)
{
    struct plugin desc = plugin_desc(m);

    desc.abi = abi;
    desc.pause_headers = pause;
    find_area(m);
    pv = attach_vm(&desc, 7);
    ctx = ctx_new(pv, &stream);
}

static void begin(void) { begin_with(module, ABI_0_2_1, PAUSE_ALL); }

static void end(void)
{
    on_step = NULL;
    ctx_end(ctx);
    end_vm(pv);
}

/* ---- answers ---- */

static uint32_t step_answer(uint32_t cb, const uint32_t *a)
{
    (void)cb;
    (void)a;
    return answer;
}

static const enum ctx_action header_answers[2][6] = {
    [PAUSE_ALL] = {CTX_CONTINUE, CTX_PAUSE_ALL, CTX_CONTINUE, CTX_PAUSE_ALL_BUFFER, CTX_PAUSE_ALL, CTX_PAUSE_ALL},
    [PAUSE_HEADERS_ONLY] = {CTX_CONTINUE, CTX_PAUSE, CTX_CONTINUE, CTX_PAUSE_ALL_BUFFER, CTX_PAUSE_ALL, CTX_PAUSE_ALL},
};
static const enum ctx_action body_answers[6] = {CTX_CONTINUE,  CTX_BUFFER,    CTX_WATERMARK,
                                                CTX_NO_BUFFER, CTX_NO_BUFFER, CTX_NO_BUFFER};

static void test_answers(void **state)
{
    (void)state;
    for (int pause = PAUSE_ALL; pause <= PAUSE_HEADERS_ONLY; pause++) {
        begin_with(module, ABI_0_2_1, (enum pause_headers)pause);
        on_step = step_answer;
        for (answer = 0; answer < 6; answer++) {
            for (int eos = 0; eos < 2; eos++) {
                assert_int_equal(ctx_request_headers(ctx, 1, eos), header_answers[pause][answer]);
                assert_int_equal(ctx_response_headers(ctx, 1, eos), header_answers[pause][answer]);
                assert_int_equal(ctx_request_body(ctx, 1, eos), body_answers[answer]);
                assert_int_equal(ctx_response_body(ctx, 1, eos), body_answers[answer]);
            }
            assert_int_equal(ctx_request_trailers(ctx, 1), answer == 0 ? CTX_CONTINUE : CTX_PAUSE);
            assert_int_equal(ctx_response_trailers(ctx, 1), answer == 0 ? CTX_CONTINUE : CTX_PAUSE);
        }
        end();
    }
}

static void test_headers_only_needs_a_body_callback(void **state)
{
    (void)state;
    begin_with(module_no_body, ABI_0_2_1, PAUSE_HEADERS_ONLY);
    on_step = step_answer;
    answer = 1;
    assert_int_equal(ctx_request_headers(ctx, 1, false), CTX_PAUSE_ALL);
    assert_int_equal(ctx_response_headers(ctx, 1, false), CTX_PAUSE_ALL);
    assert_false(plugin_vm_has(pv, CB_REQUEST_BODY));
    assert_true(plugin_vm_has(pv, CB_REQUEST_HEADERS));
    uint32_t before = steps;
    assert_int_equal(ctx_request_body(ctx, 1, false), CTX_CONTINUE);
    assert_int_equal(steps, before);
    end();
}

static uint32_t seen[5];
static uint32_t step_seen(uint32_t cb, const uint32_t *a)
{
    (void)cb;
    memcpy(seen, a, sizeof seen);
    return 0;
}

static void test_arguments(void **state)
{
    (void)state;
    begin();
    on_step = step_seen;
    ctx_request_headers(ctx, 5, true);
    assert_int_equal(seen[0], ctx_id(ctx));
    assert_int_equal(seen[1], 5);
    assert_int_equal(seen[2], 1);
    ctx_response_body(ctx, 77, false);
    assert_int_equal(seen[1], 77);
    assert_int_equal(seen[2], 0);
    end();
    begin_with(module_0_1, ABI_0_1_0, PAUSE_ALL);
    on_step = step_seen;
    assert_int_equal(ctx_request_headers(ctx, 6, true), CTX_CONTINUE);
    assert_int_equal(seen[1], 6);
    end();
}

/* ---- continue, close, reply ---- */

static uint32_t step_continue_own(uint32_t cb, const uint32_t *a)
{
    (void)a;
    bool request = cb == CB_REQUEST_HEADERS || cb == CB_REQUEST_BODY || cb == CB_REQUEST_TRAILERS;
    assert_int_equal(call("proxy_continue_stream", request ? STREAM_REQUEST : STREAM_RESPONSE), ABI_OK);
    return 1;
}

static void test_own_continue_wins_over_pause(void **state)
{
    (void)state;
    begin();
    on_step = step_continue_own;
    assert_int_equal(ctx_request_headers(ctx, 1, false), CTX_CONTINUE);
    assert_int_equal(ctx_request_body(ctx, 1, false), CTX_CONTINUE);
    assert_int_equal(ctx_request_trailers(ctx, 1), CTX_CONTINUE);
    assert_int_equal(ctx_response_headers(ctx, 1, false), CTX_CONTINUE);
    assert_int_equal(ctx_response_body(ctx, 1, false), CTX_CONTINUE);
    assert_int_equal(stream.continued[0] + stream.continued[1], 0);
    end();
}

static uint32_t target;

static uint32_t step_control_other(uint32_t cb, const uint32_t *a)
{
    (void)a;
    if (cb != CB_TICK) {
        return 0;
    }
    assert_int_equal(call("proxy_continue_stream", STREAM_REQUEST), ABI_OK); /* the root has none */
    assert_int_equal(call("proxy_set_effective_context", 99999), ABI_BAD_ARGUMENT);
    assert_int_equal(call("proxy_set_effective_context", target), ABI_OK);
    for (int i = 0; i < 100; i++) { /* once is enough */
        assert_int_equal(call("proxy_continue_stream", STREAM_REQUEST), ABI_OK);
        assert_int_equal(call("proxy_continue_stream", STREAM_RESPONSE), ABI_OK);
    }
    assert_int_equal(call("proxy_continue_stream", 4), ABI_BAD_ARGUMENT);
    assert_int_equal(call("proxy_continue_stream", STREAM_UPSTREAM), ABI_OK);
    assert_int_equal(call("proxy_close_stream", 4), ABI_BAD_ARGUMENT);
    assert_int_equal(call("proxy_close_stream", STREAM_DOWNSTREAM), ABI_OK); /* no HTTP stream has it */
    assert_int_equal(stream.continued[0], 0);                                /* not yet */
    assert_int_equal(call("proxy_clear_route_cache"), ABI_OK);
    assert_int_equal(stream.cleared, 1);                              /* at once */
    assert_int_equal(call("proxy_set_effective_context", 0), ABI_OK); /* the tick's own: no stream */
    assert_int_equal(call("proxy_clear_route_cache"), ABI_OK);
    assert_int_equal(stream.cleared, 1);
    assert_int_equal(call("proxy_set_effective_context", 1), ABI_OK);
    return 0;
}

static uint32_t step_back_to_own(uint32_t cb, const uint32_t *a)
{
    (void)a;
    if (cb == CB_REQUEST_HEADERS) {
        assert_int_equal(call("proxy_set_effective_context", 1), ABI_OK);
        assert_int_equal(call("proxy_clear_route_cache"), ABI_OK);
        assert_int_equal(stream.cleared, 0);
        assert_int_equal(call("proxy_set_effective_context", 0), ABI_OK);
        assert_int_equal(call("proxy_clear_route_cache"), ABI_OK);
        assert_int_equal(stream.cleared, 1);
    }
    return cb == CB_CONFIGURE || cb == CB_VM_START;
}

static void test_effective_context_0_is_the_callbacks_own(void **state)
{
    (void)state;
    on_step = step_back_to_own;
    begin();
    assert_int_equal(ctx_request_headers(ctx, 1, true), CTX_CONTINUE);
    end();
}

static uint32_t step_set_tick(uint32_t cb, const uint32_t *a)
{
    (void)a;
    return cb == CB_CONFIGURE ? call("proxy_set_tick_period_milliseconds", 1000) == ABI_OK : 1;
}

static void test_effective_context(void **state)
{
    (void)state;
    on_step = step_set_tick;
    begin();
    assert_int_equal(host.tick_ms, 1000);
    target = ctx_id(ctx);
    on_step = step_control_other;
    plugin_vm_tick(pv);
    assert_int_equal(step_count[CB_TICK], 1);
    assert_int_equal(stream.continued[0], 1);
    assert_int_equal(stream.continued[1], 1);
    assert_int_equal(stream.closed, 0);
    end();
}

static uint32_t step_reply(uint32_t cb, const uint32_t *a)
{
    struct strbuf pairs = {0};
    const struct abi_pair list[] = {{STR("x"), STR("y")}};

    (void)a;
    (void)cb;
    pairs_encode(&pairs, list, 1);
    uint32_t details = put(0, STR("no way\there")), body = put(100, STR("denied")),
             headers = put(200, strbuf_str(&pairs));
    assert_int_equal(call("proxy_send_local_response", 403, details, 11, body, 6, headers, pairs.n, -1), ABI_OK);
    memset(vm_mem(guest, area, 300), 'Z', 300); /* its arguments were copied */
    assert_int_equal(stream.replies, 0);
    assert_int_equal(call("proxy_send_local_response", 200, area, 0, area, 0, area, 0, 7), ABI_OK);
    assert_int_equal(call("proxy_continue_stream", STREAM_RESPONSE), ABI_OK);
    assert_int_equal(call("proxy_close_stream", STREAM_REQUEST), ABI_OK);
    strbuf_free(&pairs);
    return 0;
}

static void test_local_reply(void **state)
{
    (void)state;
    begin();
    on_step = step_reply;
    assert_int_equal(ctx_request_headers(ctx, 1, false), CTX_PAUSE_ALL);
    assert_true(ctx_replied(ctx));
    assert_int_equal(stream.replies, 1);
    assert_int_equal(stream.reply_status, 403);
    assert_int_equal(stream.reply_grpc, -1);
    assert_string_equal(stream.reply_details, "no_way_here");
    assert_string_equal(stream.reply_body, "denied");
    assert_int_equal(stream.reply_headers, 1);
    assert_int_equal(stream.continued[1] + stream.closed, 0);
    stream.replies = 0;
    assert_int_equal(ctx_request_body(ctx, 1, true), CTX_NO_BUFFER);
    stream.replies = 0;
    assert_int_equal(ctx_request_trailers(ctx, 1), CTX_PAUSE);
    on_step = NULL;
    assert_int_equal(ctx_response_headers(ctx, 1, true), CTX_CONTINUE);
    assert_false(ctx_replied(ctx));
    end();
}

/* A guest that has 70 MiB gives all of it as the body. */
static uint32_t step_huge_reply(uint32_t cb, const uint32_t *a)
{
    (void)cb;
    (void)a;
    alloc_mode = 4; /* each allocation takes 1 MiB more */
    for (int i = 0; i < 70; i++) {
        assert_int_equal(call("proxy_get_property", put(0, STR("plugin_name")), 11, OUT_PTR, OUT_SIZE), ABI_OK);
    }
    alloc_mode = 0;
    assert_int_equal(call("proxy_send_local_response", 200, area, 0, 0, 66 << 20, area, 0, -1), ABI_OK);
    return 0;
}

static void test_huge_reply(void **state)
{
    struct plugin desc = plugin_desc(module);

    (void)state;
    find_area(module);
    desc.limits.memory_bytes = 128 * 1024 * 1024;
    desc.limits.cpu_deadline_ms = 10000;
    struct plugin_vm *big = attach_vm(&desc, 1);
    struct ctx *one = ctx_new(big, &stream);
    on_step = step_huge_reply;
    assert_int_equal(ctx_request_headers(one, 1, false), CTX_PAUSE_ALL);
    on_step = NULL;
    assert_int_equal(stream.replies, 1);
    assert_int_equal(stream.reply_status, 500);
    assert_string_equal(stream.reply_details, "filter_body_too_large");
    assert_string_equal(stream.reply_body, "");
    ctx_end(one);
    end_vm(big);
}

static uint32_t step_reply_errors(uint32_t cb, const uint32_t *a)
{
    (void)cb;
    (void)a;
    assert_int_equal(call("proxy_send_local_response", 403, BAD, 11, area, 6, area, 0, -1), ABI_INVALID_MEMORY_ACCESS);
    assert_int_equal(call("proxy_send_local_response", 403, area, 1, BAD, 60, area, 0, -1), ABI_INVALID_MEMORY_ACCESS);
    assert_int_equal(call("proxy_send_local_response", 403, area, 1, area, 6, BAD, 40, -1), ABI_INVALID_MEMORY_ACCESS);
    uint32_t bad = put(0, STR("\7\0\0\0x"));
    assert_int_equal(call("proxy_send_local_response", 403, area, 1, area, 6, bad, 5, -1), ABI_BAD_ARGUMENT);
    assert_int_equal(call("proxy_send_local_response", 99, area, 0, area, 0, area, 0, 14), ABI_OK);
    return 0;
}

static void test_local_reply_errors(void **state)
{
    (void)state;
    begin();
    on_step = step_reply_errors;
    assert_int_equal(ctx_response_headers(ctx, 1, false), CTX_PAUSE_ALL);
    assert_int_equal(stream.replies, 1);
    assert_int_equal(stream.reply_status, 500);
    assert_int_equal(stream.reply_grpc, 14);
    end();
}

static uint32_t step_close(uint32_t cb, const uint32_t *a)
{
    (void)cb;
    (void)a;
    assert_int_equal(call("proxy_close_stream", STREAM_REQUEST), ABI_OK);
    assert_int_equal(stream.closed, 0);
    return 0;
}

static void test_close(void **state)
{
    (void)state;
    begin();
    on_step = step_close;
    assert_int_equal(ctx_request_headers(ctx, 1, false), CTX_CONTINUE);
    assert_int_equal(stream.closed, 1);
    end();
}

static uint32_t step_0_1_continue(uint32_t cb, const uint32_t *a)
{
    (void)cb;
    (void)a;
    assert_int_equal(call("proxy_continue_response"), ABI_OK);
    assert_int_equal(call("proxy_continue_request"), ABI_OK);
    return 1;
}

static void test_continue_0_1_0(void **state)
{
    (void)state;
    begin_with(module_0_1, ABI_0_1_0, PAUSE_ALL);
    on_step = step_0_1_continue;
    assert_int_equal(ctx_request_headers(ctx, 1, false), CTX_CONTINUE);
    assert_int_equal(stream.continued[0], 0);
    assert_int_equal(stream.continued[1], 1);
    end();
}

/* ---- life ---- */

static uint32_t order[16], order_count;
static uint32_t step_order(uint32_t cb, const uint32_t *a)
{
    (void)a;
    order[order_count++ & 15] = cb;
    if (cb == CB_LOG) { /* too late: nothing happens */
        (void)call("proxy_continue_stream", STREAM_REQUEST);
        (void)call("proxy_close_stream", STREAM_REQUEST);
        (void)call("proxy_send_local_response", 403, area, 0, area, 0, area, 0, -1);
    }
    return 0;
}

static void test_end_order(void **state)
{
    (void)state;
    begin();
    on_step = step_order;
    order_count = 0;
    ctx_end(ctx);
    assert_int_equal(order_count, 3);
    assert_int_equal(order[0], CB_LOG);
    assert_int_equal(order[1], CB_DONE);
    assert_int_equal(order[2], CB_DELETE);
    assert_int_equal(stream.continued[0] + stream.closed + stream.replies, 0);
    order_count = 0;
    plugin_vm_detach(pv);
    assert_int_equal(order_count, 2);
    assert_int_equal(order[0], CB_DONE);
    assert_int_equal(order[1], CB_DELETE);
    on_step = NULL;
    plugin_vm_free(pv);
}

static void test_many_contexts(void **state)
{
    enum { N = 1000 };
    static struct ctx *many[N];

    (void)state;
    begin();
    for (size_t i = 0; i < N; i++) {
        many[i] = ctx_new(pv, &other);
        assert_non_null(many[i]);
        assert_int_equal(ctx_id(many[i]), ctx_id(ctx) + 1 + i);
    }
    for (size_t i = 0; i < N; i += 2) {
        ctx_end(many[i]);
    }
    struct ctx *again = ctx_new(pv, &other);
    assert_int_equal(ctx_id(again), ctx_id(ctx) + N + 1); /* ids are not reused */
    ctx_end(again);
    for (size_t i = 1; i < N; i += 2) {
        ctx_end(many[i]);
    }
    end();
}

static uint32_t step_continue_both(uint32_t cb, const uint32_t *a)
{
    (void)a;
    if (cb == CB_REQUEST_HEADERS) {
        (void)call("proxy_continue_stream", STREAM_RESPONSE);
        (void)call("proxy_set_effective_context", target);
        (void)call("proxy_continue_stream", STREAM_REQUEST);
    }
    return 0;
}

static void test_an_action_ends_another_stream(void **state)
{
    (void)state;
    begin();
    struct ctx *second = ctx_new(pv, &other);
    target = ctx_id(second);
    stream.end_on_continue = second; /* from inside the first action; the second action's context is gone then */
    on_step = step_continue_both;
    assert_int_equal(ctx_request_headers(ctx, 1, false), CTX_CONTINUE);
    assert_int_equal(stream.continued[1], 1);
    assert_int_equal(other.continued[0], 0);
    assert_int_equal(step_count[CB_DELETE], 1);
    end();
}

/* ---- death ---- */

static uint32_t step_die(uint32_t cb, const uint32_t *a)
{
    (void)a;
    (void)cb;
    (void)call("proxy_continue_stream", STREAM_RESPONSE);
    vm_raise(guest, "test");
    return 0;
}

static void test_death(void **state)
{
    (void)state;
    begin();
    struct ctx *second = ctx_new(pv, &other);
    on_step = step_die;
    assert_int_equal(ctx_request_headers(ctx, 1, false), CTX_FAILED);
    assert_int_equal(host.failures, 1);
    assert_string_equal(host.failed_in, "proxy_on_request_headers");
    assert_non_null(strstr(host.failure, "test"));
    assert_int_equal(stream.continued[1], 0); /* the dying callback's wishes are void */
    assert_true(plugin_vm_is_dead(pv));
    uint32_t before = steps;
    assert_int_equal(ctx_response_headers(ctx, 1, false), CTX_FAILED);
    assert_int_equal(ctx_request_body(second, 1, false), CTX_FAILED);
    assert_int_equal(ctx_request_trailers(second, 1), CTX_FAILED);
    assert_null(ctx_new(pv, &other));
    plugin_vm_tick(pv);
    plugin_vm_queue_ready(pv, 1);
    plugin_vm_call_done(pv, 1, NULL, NULL, NULL, NULL);
    ctx_end(second);
    end();
    assert_int_equal(steps, before);
    assert_int_equal(host.failures, 1);
}

static void test_death_in_create(void **state)
{
    (void)state;
    begin();
    on_step = step_die;
    assert_null(ctx_new(pv, &other));
    assert_int_equal(host.failures, 1);
    assert_string_equal(host.failed_in, "proxy_on_context_create");
    end();
}

static uint32_t step_exit(uint32_t cb, const uint32_t *a)
{
    (void)cb;
    (void)a;
    (void)call("proc_exit", 0);
    return 0;
}

static void test_proc_exit_traps(void **state)
{
    (void)state;
    begin();
    on_step = step_exit;
    assert_int_equal(ctx_request_headers(ctx, 1, false), CTX_FAILED);
    assert_non_null(strstr(host.failure, "proc_exit(0)"));
    end();
}

static uint64_t load(const _Atomic uint64_t *v) { return atomic_load(v); }

static void test_stats(void **state)
{
    (void)state;
    begin();
    ctx_request_headers(ctx, 1, false);
    ctx_request_headers(ctx, 1, false);
    const struct plugin_vm_stats *s = plugin_vm_stats(pv);
    assert_int_equal(load(&s->cb[CB_REQUEST_HEADERS].calls), 2);
    uint64_t in_buckets = 0;
    for (size_t i = 0; i < 16; i++) {
        in_buckets += load(&s->cb[CB_REQUEST_HEADERS].bucket[i]);
    }
    assert_int_equal(in_buckets, 2);
    assert_int_equal(load(&s->cb[CB_CONFIGURE].calls), 1);
    on_step = step_die;
    ctx_request_headers(ctx, 1, false);
    assert_int_equal(load(&s->cb[CB_REQUEST_HEADERS].traps), 1);
    assert_int_equal(load(&s->cb[CB_REQUEST_HEADERS].breaches), 0);
    assert_true(plugin_vm_memory_bytes(pv) >= 65536);
    end();
}

static uint32_t step_loop_alloc(uint32_t cb, const uint32_t *a)
{
    (void)cb;
    (void)a;
    alloc_mode = 5;
    (void)call("proxy_get_header_map_pairs", 0, OUT_PTR, OUT_SIZE);
    return 0;
}

static void test_deadline_is_a_breach(void **state)
{
    (void)state;
    begin();
    on_step = step_loop_alloc;
    assert_int_equal(ctx_request_headers(ctx, 1, false), CTX_FAILED);
    alloc_mode = 0;
    assert_int_equal(load(&plugin_vm_stats(pv)->cb[CB_REQUEST_HEADERS].breaches), 1);
    assert_int_equal(load(&plugin_vm_stats(pv)->cb[CB_REQUEST_HEADERS].traps), 0);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_answers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_headers_only_needs_a_body_callback, setup, teardown),
        cmocka_unit_test_setup_teardown(test_arguments, setup, teardown),
        cmocka_unit_test_setup_teardown(test_own_continue_wins_over_pause, setup, teardown),
        cmocka_unit_test_setup_teardown(test_effective_context, setup, teardown),
        cmocka_unit_test_setup_teardown(test_effective_context_0_is_the_callbacks_own, setup, teardown),
        cmocka_unit_test_setup_teardown(test_local_reply, setup, teardown),
        cmocka_unit_test_setup_teardown(test_huge_reply, setup, teardown),
        cmocka_unit_test_setup_teardown(test_local_reply_errors, setup, teardown),
        cmocka_unit_test_setup_teardown(test_close, setup, teardown),
        cmocka_unit_test_setup_teardown(test_continue_0_1_0, setup, teardown),
        cmocka_unit_test_setup_teardown(test_end_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_contexts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_an_action_ends_another_stream, setup, teardown),
        cmocka_unit_test_setup_teardown(test_death, setup, teardown),
        cmocka_unit_test_setup_teardown(test_death_in_create, setup, teardown),
        cmocka_unit_test_setup_teardown(test_proc_exit_traps, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stats, setup, teardown),
        cmocka_unit_test_setup_teardown(test_deadline_is_a_breach, setup, teardown),
    };

    harness_begin();
    module = load_guest("step.c", NULL);
    module_0_1 = load_guest("step.c", "-DABI=proxy_abi_version_0_1_0 -DABI_0_1");
    module_no_body = load_guest("step.c", "-DNO_BODY");
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    module_unref(module);
    module_unref(module_0_1);
    module_unref(module_no_body);
    harness_end();
    return failed;
}
