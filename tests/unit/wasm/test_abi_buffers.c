/* SPDX-License-Identifier: Apache-2.0
 *
 * Host functions on buffers: ranges that go beyond the end, a splice in every place, what is read only and what is not
 * there.
 */
#include "abi_harness.h"

static struct module *module, *module_0_1;
static struct stream stream;

static bool run_in(struct module *m, enum abi_version abi, step_fn *step)
{
    struct plugin desc = plugin_desc(m);

    desc.abi = abi;
    find_area(m);
    struct plugin_vm *pv = attach_vm(&desc, 1);
    struct ctx *ctx = ctx_new(pv, &stream);
    on_step = step;
    enum ctx_action action = ctx_request_body(ctx, stream.bodies[0].n, true);
    on_step = NULL;
    ctx_end(ctx);
    end_vm(pv);
    return action != CTX_FAILED;
}

static bool run(step_fn *step) { return run_in(module, ABI_0_2_1, step); }

static int setup(void **state)
{
    test_setup(state);
    stream_init(&stream);
    stream_body(&stream, BUFFER_REQUEST_BODY, "hello world");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    stream_fini(&stream);
    return 0;
}

static uint32_t get(uint32_t start, uint32_t size)
{
    return call("proxy_get_buffer_bytes", BUFFER_REQUEST_BODY, start, size, OUT_PTR, OUT_SIZE);
}

static uint32_t step_get(uint32_t cb, const uint32_t *a)
{
    (void)cb;
    assert_int_equal(a[1], 11);
    assert_int_equal(a[2], 1);
    assert_int_equal(get(0, UINT32_MAX), ABI_OK);
    assert_gift("hello world");
    assert_int_equal(get(6, UINT32_MAX), ABI_OK);
    assert_gift("world");
    assert_int_equal(get(6, 3), ABI_OK);
    assert_gift("wor");
    allocs = 0;
    assert_int_equal(get(11, 5), ABI_OK);
    assert_int_equal(get_u32(OUT_PTR), 0);
    assert_int_equal(get_u32(OUT_SIZE), 0);
    assert_int_equal(get(UINT32_MAX, UINT32_MAX), ABI_OK);
    assert_int_equal(get_u32(OUT_SIZE), 0);
    assert_int_equal(get(0, 0), ABI_OK);
    assert_int_equal(get_u32(OUT_SIZE), 0);
    assert_int_equal(allocs, 0);
    assert_int_equal(call("proxy_get_buffer_bytes", 9, 0, 1, OUT_PTR, OUT_SIZE), ABI_BAD_ARGUMENT);
    assert_int_equal(call("proxy_get_buffer_bytes", 0, 0, 1, BAD, OUT_SIZE), ABI_INVALID_MEMORY_ACCESS);
    static const int absent[] = {1, 2, 3, 4, 5, 8};
    for (size_t i = 0; i < ARRAY_LEN(absent); i++) {
        assert_int_equal(call("proxy_get_buffer_bytes", absent[i], 0, 1, OUT_PTR, OUT_SIZE), ABI_NOT_FOUND);
        assert_int_equal(call("proxy_get_buffer_status", absent[i], OUT_PTR, OUT_SIZE), ABI_NOT_FOUND);
    }
    assert_int_equal(call("proxy_get_buffer_status", 0, OUT_PTR, OUT_SIZE), ABI_OK);
    assert_int_equal(get_u32(OUT_PTR), 11);
    assert_int_equal(get_u32(OUT_SIZE), 0);
    assert_int_equal(call("proxy_get_buffer_status", 9, OUT_PTR, OUT_SIZE), ABI_BAD_ARGUMENT);
    assert_int_equal(call("proxy_get_buffer_status", 0, OUT_PTR, BAD), ABI_INVALID_MEMORY_ACCESS);
    assert_int_equal(call("proxy_get_buffer_bytes", BUFFER_VM_CONFIGURATION, 0, 9, OUT_PTR, OUT_SIZE), ABI_OK);
    assert_int_equal(get_u32(OUT_SIZE), 0);
    assert_int_equal(call("proxy_get_buffer_bytes", BUFFER_PLUGIN_CONFIGURATION, 1, 3, OUT_PTR, OUT_SIZE), ABI_OK);
    assert_gift("\"a\"");
    return 0;
}

static void test_get(void **state)
{
    (void)state;
    assert_true(run(step_get));
}

static struct {
    uint32_t start, size;
    const char *data, *want;
} splices[] = {
    {0, UINT32_MAX, "new", "new"},        /* replace all */
    {0, 11, "new", "new"},                /* the same, exactly */
    {0, 0, "> ", "> hello world"},        /* prepend */
    {0, 5, "HELLO", "HELLO world"},       /* replace at the front */
    {0, 6, "", "world"},                  /* cut at the front */
    {UINT32_MAX, 0, "!", "hello world!"}, /* append */
    {11, 0, "!", "hello world!"},         /* append at the very end */
    {500, 500, "!", "hello world!"},      /* append, whatever the size */
    {5, 1, "_", "hello_world"},           /* in the middle */
    {5, 0, ",", "hello, world"},          /* insert in the middle */
    {6, UINT32_MAX, "you", "hello you"},  /* to the end */
    {0, UINT32_MAX, "", ""},              /* all gone */
};
static size_t at;

static uint32_t step_splice(uint32_t cb, const uint32_t *a)
{
    struct str data = str_of(splices[at].data);

    (void)cb;
    (void)a;
    assert_int_equal(call("proxy_set_buffer_bytes", 0, splices[at].start, splices[at].size, put(0, data), data.n),
                     ABI_OK);
    return 0;
}

static void test_splice(void **state)
{
    (void)state;
    for (at = 0; at < ARRAY_LEN(splices); at++) {
        stream_body(&stream, BUFFER_REQUEST_BODY, "hello world");
        assert_true(run(step_splice));
        assert_body(&stream, BUFFER_REQUEST_BODY, splices[at].want);
    }
    assert_int_equal(stream.body_changed[0], ARRAY_LEN(splices));
}

static uint32_t step_set_errors(uint32_t cb, const uint32_t *a)
{
    (void)cb;
    (void)a;
    for (int kind = BUFFER_CALL_BODY; kind < 11; kind++) { /* read only, or none */
        assert_int_equal(call("proxy_set_buffer_bytes", kind, 0, 0, area, 1), ABI_BAD_ARGUMENT);
    }
    for (int kind = 1; kind < 4; kind++) { /* none now: Rust filters panic on anything but OK */
        assert_int_equal(call("proxy_set_buffer_bytes", kind, 0, 0, area, 1), ABI_OK);
        assert_int_equal(call("proxy_set_buffer_bytes", kind, 0, 0, BAD, 100), ABI_INVALID_MEMORY_ACCESS);
    }
    assert_true(logged("a write to body 1 was ignored"));
    assert_int_equal(call("proxy_set_buffer_bytes", 0, 0, 0, BAD, 100), ABI_INVALID_MEMORY_ACCESS);
    return 0;
}

static void test_set_errors(void **state)
{
    (void)state;
    assert_true(run(step_set_errors));
    assert_body(&stream, BUFFER_REQUEST_BODY, "hello world");
}

static uint32_t step_grow(uint32_t cb, const uint32_t *a)
{
    (void)cb;
    (void)a;
    for (int i = 0; i < 1200; i++) { /* 75 MB in all */
        assert_int_equal(call("proxy_set_buffer_bytes", 0, -1, 0, area, AREA_SIZE), ABI_OK);
    }
    return 0;
}

static void test_growth_is_bounded(void **state)
{
    (void)state;
    assert_true(run(step_grow));
    assert_true(stream.bodies[0].n <= 64 * 1024 * 1024);
    assert_int_equal(stream.replies, 1);
    assert_int_equal(stream.reply_status, 500);
}

static uint32_t step_configuration(uint32_t cb, const uint32_t *a)
{
    (void)a;
    if (cb == CB_CONTEXT_CREATE || cb == CB_CONFIGURE || cb == CB_VM_START) {
        assert_int_equal(call("proxy_get_configuration", OUT_PTR, OUT_SIZE), ABI_OK);
        assert_gift(cb == CB_VM_START ? "" : "{\"a\":1}");
        assert_int_equal(call("proxy_get_configuration", OUT_PTR, BAD), ABI_INVALID_MEMORY_ACCESS);
    }
    return 1;
}

static void test_configuration_0_1_0(void **state)
{
    struct plugin desc = plugin_desc(module_0_1);

    (void)state;
    desc.abi = ABI_0_1_0;
    find_area(module_0_1);
    on_step = step_configuration;
    struct plugin_vm *pv = attach_vm(&desc, 1);
    assert_int_equal(step_count[CB_CONFIGURE], 1);
    end_vm(pv);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_get, setup, teardown),
        cmocka_unit_test_setup_teardown(test_splice, setup, teardown),
        cmocka_unit_test_setup_teardown(test_set_errors, setup, teardown),
        cmocka_unit_test_setup_teardown(test_growth_is_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_configuration_0_1_0, setup, teardown),
    };

    harness_begin();
    module = load_guest("step.c", NULL);
    module_0_1 = load_guest("step.c", "-DABI=proxy_abi_version_0_1_0 -DABI_0_1");
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    module_unref(module);
    module_unref(module_0_1);
    harness_end();
    return failed;
}
