/* SPDX-License-Identifier: Apache-2.0
 *
 * The C SDK and its C++ header: guests that use all of it and check what they get, on the real engine.
 */
#include "abi_harness.h"

static struct module *c_module, *cpp_module;
static struct stream stream;
static struct plugin_vm *pv;

static int setup(void **state)
{
    test_setup(state);
    stream_init(&stream);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    end_vm(pv);
    stream_fini(&stream);
    if (logged("FAIL")) {
        fail_msg("%.*s", STR_ARG(strbuf_str(&host.log)));
    }
    return 0;
}

static struct ctx *begin(struct module *m)
{
    struct plugin desc = plugin_desc(m);

    pv = attach_vm(&desc, 5);
    return ctx_new(pv, &stream);
}

static void test_everything(void **state)
{
    (void)state;
    struct ctx *ctx = begin(c_module);
    assert_true(logged("up s {\"a\":1} 42 -7 beef c%"));
    assert_false(plugin_vm_has(pv, CB_RESPONSE_BODY));
    assert_true(plugin_vm_has(pv, CB_REQUEST_BODY));
    assert_int_equal(ctx_request_headers(ctx, stream.maps[0].count, false), CTX_CONTINUE);
    assert_true(str_is(headers_get(&stream.maps[0], STR("x-set"))->value, "1"));
    assert_null(headers_get(&stream.maps[0], STR("empty")));
    assert_true(str_is(headers_get(&stream.maps[0], STR("x-key"))->value, "secret"));
    stream_body(&stream, BUFFER_REQUEST_BODY, "hello");
    assert_int_equal(ctx_request_body(ctx, 5, false), CTX_BUFFER);
    assert_int_equal(ctx_request_body(ctx, 5, true), CTX_CONTINUE);
    assert_body(&stream, BUFFER_REQUEST_BODY, "changed");
    plugin_vm_tick(pv);
    ctx_end(ctx);
}

static void test_reply(void **state)
{
    (void)state;
    struct ctx *ctx = begin(c_module);
    assert_int_equal(headers_add(&stream.maps[0], STR("x-do"), STR("reply")), HEADERS_OK);
    assert_int_equal(ctx_request_headers(ctx, stream.maps[0].count, true), CTX_PAUSE_ALL);
    assert_int_equal(stream.reply_status, 418);
    assert_string_equal(stream.reply_details, "asked_for");
    assert_string_equal(stream.reply_body, "short and stout");
    assert_int_equal(stream.reply_headers, 1);
    ctx_end(ctx);
}

static void test_callout(void **state)
{
    (void)state;
    struct ctx *ctx = begin(c_module);
    assert_int_equal(headers_add(&stream.maps[0], STR("x-do"), STR("pause")), HEADERS_OK);
    assert_int_equal(ctx_request_headers(ctx, stream.maps[0].count, true), CTX_PAUSE_ALL);
    assert_int_equal(host.calls, 1);
    plugin_vm_call_done(pv, host.last_call_id, NULL, NULL, NULL, "timeout");
    assert_int_equal(stream.continued[0], 1);
    assert_non_null(headers_get(&stream.maps[0], STR("x-called")));
    ctx_end(ctx);
}

static void test_many_streams(void **state)
{
    enum { N = 300 };
    static struct ctx *many[N];

    (void)state;
    struct ctx *ctx = begin(c_module);
    assert_int_equal(headers_add(&stream.maps[0], STR("x-do"), STR("pause")), HEADERS_OK);
    for (size_t i = 0; i < N; i++) {
        many[i] = ctx_new(pv, &stream);
        assert_int_equal(ctx_request_headers(many[i], stream.maps[0].count, false), CTX_PAUSE_ALL);
    }
    for (size_t i = 0; i < N; i++) {
        ctx_end(many[i]);
    }
    ctx_end(ctx);
}

static void test_cpp(void **state)
{
    (void)state;
    struct ctx *ctx = begin(cpp_module);
    assert_int_equal(ctx_request_headers(ctx, stream.maps[0].count, false), CTX_CONTINUE);
    stream_body(&stream, BUFFER_REQUEST_BODY, "hello");
    assert_int_equal(ctx_request_body(ctx, 5, true), CTX_CONTINUE);
    assert_body(&stream, BUFFER_REQUEST_BODY, "Jello!");
    assert_int_equal(ctx_response_headers(ctx, 1, true), CTX_PAUSE_ALL);
    assert_int_equal(stream.reply_status, 403);
    assert_string_equal(stream.reply_body, "no");
    ctx_end(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_everything, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reply, setup, teardown),
        cmocka_unit_test_setup_teardown(test_callout, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_streams, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cpp, setup, teardown),
    };

    harness_begin();
    c_module = load_guest("sdk_all.c", NULL);
    cpp_module = load_guest("sdk_cpp.cpp", NULL);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    module_unref(c_module);
    module_unref(cpp_module);
    harness_end();
    return failed;
}
