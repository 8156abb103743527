/* SPDX-License-Identifier: Apache-2.0
 *
 * Host functions on header maps: each with good arguments, bad pointers, bad map kinds and maps that are not there, in
 * the ABI versions that differ; allocators that misbehave; bytes that are no UTF-8.
 */
#include "abi_harness.h"

static struct module *module, *module_0_1, *module_malloc;
static struct stream stream;

/* Runs step inside on_request_headers of a fresh VM and stream; false when the VM died. */
static bool run_in(struct module *m, enum abi_version abi, enum header_utf8 utf8, step_fn *step)
{
    struct plugin desc = plugin_desc(m);

    desc.abi = abi;
    desc.utf8 = utf8;
    find_area(m);
    struct plugin_vm *pv = attach_vm(&desc, 1);
    struct ctx *ctx = ctx_new(pv, &stream);
    uint32_t before = alloc_mode;
    on_step = step;
    enum ctx_action action = ctx_request_headers(ctx, stream.maps[0].count, false);
    on_step = NULL;
    alloc_mode = 0;
    ctx_end(ctx);
    end_vm(pv);
    alloc_mode = before;
    return action != CTX_FAILED;
}

static bool run(step_fn *step) { return run_in(module, ABI_0_2_1, UTF8_PASS, step); }

static int setup(void **state)
{
    test_setup(state);
    stream_init(&stream);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    stream_fini(&stream);
    return 0;
}

static uint32_t get(const char *name)
{
    struct str s = str_of(name);

    return call("proxy_get_header_map_value", MAP_REQUEST_HEADERS, put(0, s), s.n, OUT_PTR, OUT_SIZE);
}

/* Envoy's request map takes "host" for another name of :authority. */
static uint32_t step_host(uint32_t cb, const uint32_t *a)
{
    (void)cb;
    (void)a;
    uint32_t name = put(100, STR("HOST")), value = put(120, STR("b.example"));
    assert_int_equal(get("host"), ABI_NOT_FOUND);
    assert_int_equal(call("proxy_add_header_map_value", MAP_REQUEST_HEADERS, name, 4, value, 9), ABI_OK);
    assert_int_equal(get(":authority"), ABI_OK);
    assert_gift("b.example");
    assert_int_equal(get("Host"), ABI_OK);
    assert_gift("b.example");
    name = put(100, STR("HOST")), value = put(120, STR("c.example"));
    assert_int_equal(call("proxy_add_header_map_value", MAP_REQUEST_HEADERS, name, 4, value, 9), ABI_OK);
    assert_int_equal(headers_get(&stream.maps[0], STR("host")) == NULL, true);
    assert_int_equal(call("proxy_replace_header_map_value", MAP_REQUEST_HEADERS, name, 4, value, 9), ABI_OK);
    assert_int_equal(get("host"), ABI_OK);
    assert_gift("c.example");
    assert_int_equal(call("proxy_remove_header_map_value", MAP_REQUEST_HEADERS, name, 4), ABI_OK);
    assert_int_equal(get(":authority"), ABI_NOT_FOUND);
    struct strbuf pairs = {0};
    static const struct abi_pair list[] = {{STR_INIT(":authority"), STR_INIT("x")}, {STR_INIT("host"), STR_INIT("y")}};
    pairs_encode(&pairs, list, 2);
    assert_int_equal(call("proxy_set_header_map_pairs", MAP_REQUEST_HEADERS, put(200, strbuf_str(&pairs)), pairs.n),
                     ABI_OK);
    strbuf_free(&pairs);
    assert_int_equal(stream.maps[0].count, 1);
    assert_int_equal(get("host"), ABI_OK);
    assert_gift("y");
    return 0;
}

static void test_host_is_authority(void **state)
{
    (void)state;
    assert_true(run(step_host));
}

static uint32_t step_get(uint32_t cb, const uint32_t *a)
{
    (void)cb;
    (void)a;
    assert_int_equal(get("x-key"), ABI_OK);
    assert_gift("secret");
    assert_int_equal(last_alloc, 6); /* exactly */
    assert_int_equal(get("X-Key"), ABI_OK);
    assert_gift("secret");
    allocs = 0;
    assert_int_equal(get("empty"), ABI_OK);
    assert_int_equal(get_u32(OUT_PTR), 0);
    assert_int_equal(get_u32(OUT_SIZE), 0);
    assert_int_equal(allocs, 0); /* never 0 bytes */
    assert_int_equal(get("absent"), ABI_NOT_FOUND);
    assert_int_equal(call("proxy_get_header_map_value", 8, area, 1, OUT_PTR, OUT_SIZE), ABI_BAD_ARGUMENT);
    assert_int_equal(call("proxy_get_header_map_value", 0, BAD, 100, OUT_PTR, OUT_SIZE), ABI_INVALID_MEMORY_ACCESS);
    assert_int_equal(call("proxy_get_header_map_value", 0, area, -1, OUT_PTR, OUT_SIZE), ABI_INVALID_MEMORY_ACCESS);
    assert_int_equal(call("proxy_get_header_map_value", 0, area, 1, BAD, OUT_SIZE), ABI_INVALID_MEMORY_ACCESS);
    assert_int_equal(call("proxy_get_header_map_value", 0, area, 1, OUT_PTR, 0xfffffffe), ABI_INVALID_MEMORY_ACCESS);
    for (int map = 1; map < 8; map++) { /* none of these is there: no Rust filter may die of it */
        assert_int_equal(call("proxy_get_header_map_value", map, area, 1, OUT_PTR, OUT_SIZE), ABI_NOT_FOUND);
    }
    assert_int_equal(allocs, 0);
    return 0;
}

static void test_get(void **state)
{
    (void)state;
    assert_true(run(step_get));
}

static uint32_t step_get_0_1(uint32_t cb, const uint32_t *a)
{
    (void)cb;
    (void)a;
    assert_int_equal(get("absent"), ABI_OK);
    assert_int_equal(get_u32(OUT_SIZE), 0);
    assert_int_equal(get("x-key"), ABI_OK);
    assert_gift("secret");
    return 0;
}

static void test_get_0_1_0(void **state)
{
    (void)state;
    assert_true(run_in(module_0_1, ABI_0_1_0, UTF8_PASS, step_get_0_1));
}

static uint32_t step_only_malloc(uint32_t cb, const uint32_t *a)
{
    (void)cb;
    (void)a;
    assert_int_equal(get("x-key"), ABI_OK);
    assert_gift("secret");
    return 0;
}

static void test_malloc_is_the_fallback(void **state)
{
    (void)state;
    assert_true(run_in(module_malloc, ABI_0_2_1, UTF8_PASS, step_only_malloc));
}

static uint32_t step_pairs(uint32_t cb, const uint32_t *a)
{
    static struct abi_pair list[PAIRS_MAX_COUNT];
    size_t count;

    (void)cb;
    (void)a;
    assert_int_equal(call("proxy_get_header_map_pairs", 0, OUT_PTR, OUT_SIZE), ABI_OK);
    assert_int_equal(pairs_decode(gift(), list, &count), PAIRS_OK);
    assert_int_equal(count, 4);
    assert_true(str_is(list[0].name, ":method") && str_is(list[0].value, "GET"));
    assert_true(str_is(list[3].name, "empty") && str_is(list[3].value, ""));
    assert_int_equal(last_alloc, get_u32(OUT_SIZE));
    for (int map = 1; map < 8; map++) {
        assert_int_equal(call("proxy_get_header_map_pairs", map, OUT_PTR, OUT_SIZE), ABI_OK);
        assert_int_equal(get_u32(OUT_PTR), 0);
        assert_int_equal(get_u32(OUT_SIZE), 0);
    }
    assert_int_equal(call("proxy_get_header_map_pairs", 8, OUT_PTR, OUT_SIZE), ABI_BAD_ARGUMENT);
    assert_int_equal(call("proxy_get_header_map_pairs", 0, BAD, OUT_SIZE), ABI_INVALID_MEMORY_ACCESS);
    assert_int_equal(call("proxy_get_header_map_size", 0, OUT_PTR), ABI_OK);
    assert_int_equal(get_u32(OUT_PTR), 7 + 3 + 5 + 2 + 5 + 6 + 5);
    assert_int_equal(call("proxy_get_header_map_size", 2, OUT_PTR), ABI_OK);
    assert_int_equal(get_u32(OUT_PTR), 0);
    assert_int_equal(call("proxy_get_header_map_size", 8, OUT_PTR), ABI_BAD_ARGUMENT);
    assert_int_equal(call("proxy_get_header_map_size", 0, BAD), ABI_INVALID_MEMORY_ACCESS);
    return 0;
}

static void test_pairs(void **state)
{
    (void)state;
    assert_true(run(step_pairs));
}

static uint32_t edit(const char *fn, const char *name, const char *value)
{
    struct str n = str_of(name), v = str_of(value);

    return call(fn, MAP_REQUEST_HEADERS, put(0, n), n.n, put(1000, v), v.n);
}

static uint32_t step_edit(uint32_t cb, const uint32_t *a)
{
    (void)cb;
    (void)a;
    assert_int_equal(edit("proxy_add_header_map_value", "X-New", "1"), ABI_OK);
    assert_int_equal(edit("proxy_add_header_map_value", "x-new", "2"), ABI_OK);
    assert_int_equal(get("x-new"), ABI_OK);
    assert_gift("1"); /* the first */
    assert_int_equal(edit("proxy_replace_header_map_value", "x-new", "3"), ABI_OK);
    assert_int_equal(get("x-new"), ABI_OK);
    assert_gift("3");
    assert_int_equal(edit("proxy_replace_header_map_value", "x-other", ""), ABI_OK);
    assert_int_equal(stream.maps[0].count, 6);
    assert_int_equal(call("proxy_remove_header_map_value", 0, put(0, STR("x-new")), 5), ABI_OK);
    assert_int_equal(get("x-new"), ABI_NOT_FOUND);
    int changes = stream.changed[0];
    assert_int_equal(call("proxy_remove_header_map_value", 0, put(0, STR("x-new")), 5), ABI_OK);
    assert_int_equal(stream.changed[0], changes); /* nothing was removed: the route stays */
    static const char *const fns[] = {"proxy_add_header_map_value", "proxy_replace_header_map_value"};
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(call(fns[i], 8, area, 1, area, 1), ABI_BAD_ARGUMENT);
        assert_int_equal(call(fns[i], MAP_CALL_HEADERS, area, 1, area, 1), ABI_BAD_ARGUMENT);
        assert_int_equal(call(fns[i], 0, BAD, 100, area, 1), ABI_INVALID_MEMORY_ACCESS);
        assert_int_equal(call(fns[i], 0, area, 1, BAD, 100), ABI_INVALID_MEMORY_ACCESS);
        assert_int_equal(call(fns[i], MAP_RESPONSE_HEADERS, area, 1, area, 1), ABI_OK); /* none: ignored */
    }
    assert_int_equal(call("proxy_remove_header_map_value", 8, area, 1), ABI_BAD_ARGUMENT);
    assert_int_equal(call("proxy_remove_header_map_value", 0, BAD, 100), ABI_INVALID_MEMORY_ACCESS);
    assert_true(logged("write to header map 2 was ignored"));
    return 0;
}

static void test_edit(void **state)
{
    (void)state;
    assert_true(run(step_edit));
    assert_int_equal(stream.replies, 0);
}

static uint32_t set_pairs(struct str data) { return call("proxy_set_header_map_pairs", 0, put(0, data), data.n); }

static uint32_t step_set_pairs(uint32_t cb, const uint32_t *a)
{
    const struct abi_pair list[] = {{STR(":path"), STR("/y")}, {STR("Up"), STR("1")}};
    struct strbuf data = {0};

    (void)cb;
    (void)a;
    assert_int_equal(set_pairs(STR("\1\0\0\0\377\377\377\377\1\0\0\0a\0b\0")), ABI_BAD_ARGUMENT);
    assert_int_equal(stream.maps[0].count, 4); /* never wiped */
    assert_int_equal(stream.changed[0], 0);
    assert_true(logged("malformed header map"));
    pairs_encode(&data, list, 2);
    assert_int_equal(set_pairs(strbuf_str(&data)), ABI_OK);
    assert_int_equal(stream.maps[0].count, 2);
    assert_int_equal(get("up"), ABI_OK);
    assert_gift("1");
    assert_int_equal(set_pairs(STR("\0\0\0\0")), ABI_OK);
    assert_int_equal(stream.maps[0].count, 0);
    assert_int_equal(set_pairs(STR("\0")), ABI_OK);
    assert_int_equal(set_pairs(STR("")), ABI_OK);
    assert_int_equal(call("proxy_set_header_map_pairs", 8, area, 0), ABI_BAD_ARGUMENT);
    assert_int_equal(call("proxy_set_header_map_pairs", 0, BAD, 100), ABI_INVALID_MEMORY_ACCESS);
    assert_int_equal(call("proxy_set_header_map_pairs", MAP_RESPONSE_HEADERS, area, 0), ABI_OK);
    strbuf_free(&data);
    return 0;
}

static void test_set_pairs(void **state)
{
    (void)state;
    assert_true(run(step_set_pairs));
}

static uint32_t step_full(uint32_t cb, const uint32_t *a)
{
    (void)cb;
    (void)a;
    for (int i = 0; i < 40; i++) { /* the map takes 32 entries */
        assert_int_equal(edit("proxy_add_header_map_value", "n", "v"), ABI_OK);
    }
    return 0;
}

static void test_what_does_not_fit_ends_the_stream(void **state)
{
    (void)state;
    assert_true(run(step_full));
    assert_int_equal(stream.replies, 1);
    assert_int_equal(stream.reply_status, 431);
    assert_int_equal(stream.maps[0].count, 32);
}

static uint32_t step_alloc_null(uint32_t cb, const uint32_t *a)
{
    (void)cb;
    (void)a;
    alloc_mode = 1;
    assert_int_equal(get("x-key"), ABI_INVALID_MEMORY_ACCESS);
    alloc_mode = 3;
    assert_int_equal(get("x-key"), ABI_INVALID_MEMORY_ACCESS);
    assert_int_equal(call("proxy_get_header_map_pairs", 0, OUT_PTR, OUT_SIZE), ABI_INVALID_MEMORY_ACCESS);
    alloc_mode = 4; /* grows the memory while it allocates */
    assert_int_equal(get("x-key"), ABI_OK);
    assert_gift("secret");
    return 0;
}

static void test_allocators(void **state)
{
    (void)state;
    assert_true(run(step_alloc_null));
}

static uint32_t step_alloc_trap(uint32_t cb, const uint32_t *a)
{
    (void)cb;
    (void)a;
    alloc_mode = 2;
    assert_int_equal(get("x-key"), ABI_INTERNAL_FAILURE);
    return 0;
}

static void test_allocator_traps(void **state)
{
    (void)state;
    assert_false(run(step_alloc_trap));
    assert_int_equal(host.failures, 1);
    assert_non_null(strstr(host.failure, "unreachable"));
}

static uint32_t step_alloc_loops(uint32_t cb, const uint32_t *a)
{
    (void)cb;
    (void)a;
    alloc_mode = 5;
    (void)get("x-key");
    return 0;
}

static void test_allocator_has_no_deadline_of_its_own(void **state)
{
    (void)state;
    assert_false(run(step_alloc_loops));
    assert_int_equal(host.failures, 1);
    assert_non_null(strstr(host.failure, "CPU time"));
}

static void set_bad_value(void)
{
    assert_int_equal(headers_set(&stream.maps[0], STR("x-key"), STR("caf\xe9")), HEADERS_OK);
}

static uint32_t step_escaped(uint32_t cb, const uint32_t *a)
{
    (void)cb;
    (void)a;
    assert_int_equal(get("x-key"), ABI_OK);
    assert_gift("caf%E9");
    assert_int_equal(call("proxy_get_header_map_pairs", 0, OUT_PTR, OUT_SIZE), ABI_OK);
    assert_true(str_find_str(gift(), STR("caf%E9")) > 0);
    assert_true(str_find_str(gift(), STR(":method")) > 0);
    return 0;
}

static uint32_t step_passed(uint32_t cb, const uint32_t *a)
{
    (void)cb;
    (void)a;
    assert_int_equal(get("x-key"), ABI_OK);
    assert_gift("caf\xe9");
    return 0;
}

static uint32_t step_never(uint32_t cb, const uint32_t *a)
{
    (void)a;
    if (cb == CB_REQUEST_HEADERS) {
        fail_msg("the guest was entered");
    }
    return 0;
}

static void test_bytes_that_are_no_utf8(void **state)
{
    (void)state;
    set_bad_value();
    assert_true(run_in(module, ABI_0_2_1, UTF8_ESCAPE, step_escaped));
    assert_true(run_in(module, ABI_0_2_1, UTF8_PASS, step_passed));
    assert_int_equal(stream.replies, 0);
    assert_true(run_in(module, ABI_0_2_1, UTF8_REJECT, step_never));
    assert_int_equal(stream.replies, 1);
    assert_int_equal(stream.reply_status, 400);
    assert_int_equal(headers_set(&stream.maps[0], STR("x-key"), STR("caf\xc3\xa9")), HEADERS_OK);
    assert_true(run_in(module, ABI_0_2_1, UTF8_REJECT, NULL));
    assert_int_equal(stream.replies, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_get, setup, teardown),
        cmocka_unit_test_setup_teardown(test_host_is_authority, setup, teardown),
        cmocka_unit_test_setup_teardown(test_get_0_1_0, setup, teardown),
        cmocka_unit_test_setup_teardown(test_malloc_is_the_fallback, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pairs, setup, teardown),
        cmocka_unit_test_setup_teardown(test_edit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_set_pairs, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_does_not_fit_ends_the_stream, setup, teardown),
        cmocka_unit_test_setup_teardown(test_allocators, setup, teardown),
        cmocka_unit_test_setup_teardown(test_allocator_traps, setup, teardown),
        cmocka_unit_test_setup_teardown(test_allocator_has_no_deadline_of_its_own, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bytes_that_are_no_utf8, setup, teardown),
    };

    harness_begin();
    module = load_guest("step.c", NULL);
    module_0_1 = load_guest("step.c", "-DABI=proxy_abi_version_0_1_0 -DABI_0_1");
    module_malloc = load_guest("step.c", "-DONLY_MALLOC");
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    module_unref(module);
    module_unref(module_0_1);
    module_unref(module_malloc);
    harness_end();
    return failed;
}
