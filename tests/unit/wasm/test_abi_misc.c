/* SPDX-License-Identifier: Apache-2.0
 *
 * Host functions: log, clocks, timers, properties, metrics, foreign functions.
 */
#include "abi_harness.h"
#include "base/metrics.h"

static struct module *module;
static struct stream stream;
static bool with_stream;

static int setup(void **state)
{
    test_setup(state);
    find_area(module);
    stream_init(&stream);
    with_stream = true;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    stream_fini(&stream);
    return 0;
}

static uint32_t step_tick_on(uint32_t cb, const uint32_t *a)
{
    (void)a;
    return cb == CB_CONFIGURE ? call("proxy_set_tick_period_milliseconds", 500) == ABI_OK : 1;
}

/* Runs step in a stream's header callback, or in a tick of the root. */
static void run(step_fn *step)
{
    struct plugin desc = plugin_desc(module);

    desc.limits.max_metrics = 4;
    on_step = step_tick_on;
    struct plugin_vm *pv = attach_vm(&desc, 1);
    on_step = NULL;
    struct ctx *ctx = with_stream ? ctx_new(pv, &stream) : NULL;
    on_step = step;
    if (with_stream) {
        assert_int_not_equal(ctx_request_headers(ctx, 1, false), CTX_FAILED);
    } else {
        plugin_vm_tick(pv);
    }
    assert_int_equal(host.failures, 0);
    on_step = NULL;
    if (with_stream) {
        ctx_end(ctx);
    }
    end_vm(pv);
}

static uint32_t step_log(uint32_t cb, const uint32_t *a)
{
    (void)cb;
    (void)a;
    uint32_t text = put(0, STR("hello"));
    for (int level = LOG_TRACE; level <= LOG_CRITICAL; level++) {
        assert_int_equal(call("proxy_log", level, text, 5), ABI_OK);
        assert_int_equal(host.last_level, level);
    }
    assert_ptr_equal(host.last_stream, &stream);
    assert_int_equal(call("proxy_log", 6, text, 5), ABI_BAD_ARGUMENT);
    assert_int_equal(call("proxy_log", 2, BAD, 100), ABI_INVALID_MEMORY_ACCESS);
    assert_int_equal(call("proxy_log", 2, text, 0), ABI_OK);
    size_t before = host.log.n;
    assert_int_equal(call("proxy_log", 2, area, AREA_SIZE - 1), ABI_OK);
    assert_int_equal(host.log.n - before, LOG_LINE_MAX + 1); /* cut */
    assert_int_equal(call("proxy_get_log_level", OUT_3), ABI_OK);
    assert_int_equal(get_u32(OUT_3), log_get_level());
    log_set_level(LOG_OFF);
    assert_int_equal(call("proxy_get_log_level", OUT_3), ABI_OK);
    assert_int_equal(get_u32(OUT_3), LOG_CRITICAL);
    log_set_level(LOG_INFO);
    assert_int_equal(call("proxy_get_log_level", BAD), ABI_INVALID_MEMORY_ACCESS);
    assert_int_equal(call("proxy_get_current_time_nanoseconds", OUT_3), ABI_OK);
    assert_true(get_u64(OUT_3) == 1111222233334444u);
    assert_int_equal(call("proxy_get_current_time_nanoseconds", 0xfffffffc), ABI_INVALID_MEMORY_ACCESS);
    assert_int_equal(call("proxy_set_tick_period_milliseconds", 3), ABI_OK);
    assert_int_equal(host.tick_ms, 10);
    assert_int_equal(call("proxy_set_tick_period_milliseconds", 0), ABI_OK);
    assert_int_equal(host.tick_ms, 0);
    assert_int_equal(call("proxy_done"), ABI_OK);
    return 0;
}

static void test_log_and_clock(void **state)
{
    (void)state;
    run(step_log);
    assert_true(logged("hello"));
}

/* ---- properties ---- */

static uint32_t foreign(const char *name, struct str args);

static uint32_t get(struct str path) { return call("proxy_get_property", put(0, path), path.n, OUT_PTR, OUT_SIZE); }

static uint32_t set(struct str path, struct str value)
{
    return call("proxy_set_property", put(0, path), path.n, put(1000, value), value.n);
}

static uint32_t step_property(uint32_t cb, const uint32_t *a)
{
    (void)cb;
    (void)a;
    assert_int_equal(get(STR("plugin_name")), ABI_OK);
    assert_gift("ns.test");
    assert_int_equal(get(STR("plugin_root_id\0")), ABI_OK); /* the C++ SDK ends in a NUL */
    assert_gift("root");
    assert_int_equal(get(STR("plugin_vm_id")), ABI_OK);
    assert_gift("ns");
    assert_int_equal(get(STR("a\0b")), ABI_NOT_FOUND);
    assert_int_equal(set(STR("a\0b"), STR("v")), ABI_OK);
    assert_int_equal(get(STR("a\0b")), ABI_OK);
    assert_gift("v");
    assert_int_equal(get(STR("a\0b\0")), ABI_OK);
    assert_int_equal(get(STR("a")), ABI_NOT_FOUND);
    assert_int_equal(set(STR("empty"), STR("")), ABI_OK);
    assert_int_equal(get(STR("empty")), ABI_OK);
    assert_int_equal(get_u32(OUT_PTR), 0);
    assert_int_equal(get(STR("")), ABI_SERIALIZATION_FAILURE);
    assert_int_equal(get(STR("\0")), ABI_SERIALIZATION_FAILURE);
    assert_int_equal(call("proxy_get_property", BAD, 100, OUT_PTR, OUT_SIZE), ABI_INVALID_MEMORY_ACCESS);
    assert_int_equal(call("proxy_get_property", area, 1, OUT_PTR, BAD), ABI_INVALID_MEMORY_ACCESS);
    assert_int_equal(call("proxy_set_property", BAD, 100, area, 1), ABI_INVALID_MEMORY_ACCESS);
    assert_int_equal(call("proxy_set_property", area, 1, BAD, 100), ABI_INVALID_MEMORY_ACCESS);
    return 0;
}

static void test_properties(void **state)
{
    (void)state;
    run(step_property);
    assert_non_null(map_get(&host.properties, STR("a\0b")));
    host_reset();
    with_stream = false; /* the root has a store of its own: Rust filters panic on NOT_FOUND */
    run(step_property);
    assert_null(map_get(&host.properties, STR("a\0b")));
}

static uint32_t step_many_properties(uint32_t cb, const uint32_t *a)
{
    uint32_t n = 0;
    char name[16];

    (void)cb;
    (void)a;
    for (; n < 40; n++) { /* Rust filters panic on anything but OK */
        snprintf(name, sizeof name, "p%u", n);
        assert_int_equal(call("proxy_set_property", put(0, str_of(name)), strlen(name), area + 100, 10000), ABI_OK);
    }
    assert_int_equal(get(STR("p20")), ABI_OK);
    assert_int_equal(get(STR("p30")), ABI_NOT_FOUND);
    assert_true(logged("p25 was not kept") || logged("p26 was not kept"));
    return 0;
}

static void test_root_properties_are_bounded(void **state)
{
    (void)state;
    with_stream = false;
    run(step_many_properties);
}

static uint32_t step_no_room(uint32_t cb, const uint32_t *a)
{
    static const char state[] = "\x0a\x01k\x12\x01v"; /* {path: "k", value: "v"} */

    (void)cb;
    (void)a;
    host.properties_full = true;
    assert_int_equal(set(STR("a\0b"), STR("v")), ABI_OK);
    assert_true(logged("a.b was not kept"));
    assert_int_equal(get(STR("a\0b")), ABI_NOT_FOUND);
    assert_int_equal(set(STR(""), STR("v")), ABI_OK);
    /* here SDKs hand the status on */
    assert_int_equal(foreign("set_envoy_filter_state", str_of(state)), ABI_INTERNAL_FAILURE);
    return 0;
}

static void test_stream_without_room(void **state)
{
    (void)state;
    run(step_no_room);
}

static uint32_t step_root_id(uint32_t cb, const uint32_t *a)
{
    (void)a;
    if (cb == CB_CONTEXT_CREATE) { /* the C++ SDK aborts when it is not there by then */
        assert_int_equal(get(STR("plugin_root_id")), ABI_OK);
        assert_gift("root");
    }
    return 1;
}

static void test_root_id_in_create(void **state)
{
    struct plugin desc = plugin_desc(module);

    (void)state;
    on_step = step_root_id;
    struct plugin_vm *pv = attach_vm(&desc, 1);
    assert_int_equal(step_count[CB_CONTEXT_CREATE], 1);
    end_vm(pv);
}

/* ---- metrics ---- */

static uint32_t define(int type, struct str name)
{
    assert_int_equal(call("proxy_define_metric", type, put(0, name), name.n, OUT_3), ABI_OK);
    return get_u32(OUT_3);
}

static uint64_t value(uint32_t id)
{
    assert_int_equal(call("proxy_get_metric", id, OUT_3), ABI_OK);
    return get_u64(OUT_3);
}

static uint32_t step_metrics(uint32_t cb, const uint32_t *a)
{
    (void)cb;
    (void)a;
    uint32_t counter = define(METRIC_COUNTER, STR("my.requests"));
    assert_int_equal(define(METRIC_COUNTER, STR("my.requests")), counter);
    uint32_t gauge = define(METRIC_GAUGE, STR("my.level")), histogram = define(METRIC_HISTOGRAM, STR("my.time"));
    uint64_t base = value(counter);
    assert_int_equal(call("proxy_increment_metric", counter, 5), ABI_OK);
    assert_int_equal(call("proxy_increment_metric", counter, 0), ABI_BAD_ARGUMENT);
    assert_int_equal(call("proxy_increment_metric", counter, -1), ABI_BAD_ARGUMENT);
    assert_int_equal(call("proxy_record_metric", counter, 2), ABI_OK); /* adds */
    assert_int_equal(value(counter) - base, 7);
    assert_int_equal(call("proxy_record_metric", gauge, 100), ABI_OK);
    assert_int_equal(call("proxy_increment_metric", gauge, -30), ABI_OK);
    assert_int_equal(value(gauge), 70);
    assert_int_equal(call("proxy_record_metric", histogram, 12), ABI_OK);
    assert_int_equal(call("proxy_increment_metric", histogram, 1), ABI_BAD_ARGUMENT);
    assert_int_equal(call("proxy_get_metric", histogram, OUT_3), ABI_BAD_ARGUMENT);
    assert_int_equal(call("proxy_get_metric", 9999, OUT_3), ABI_NOT_FOUND);
    assert_int_equal(call("proxy_get_metric", 0, OUT_3), ABI_NOT_FOUND);
    assert_int_equal(call("proxy_get_metric", counter ^ 1, OUT_3), ABI_NOT_FOUND); /* another type */
    assert_int_equal(call("proxy_get_metric", counter, BAD), ABI_INVALID_MEMORY_ACCESS);
    assert_int_equal(call("proxy_increment_metric", 9999, 1), ABI_NOT_FOUND);
    assert_int_equal(call("proxy_record_metric", 9999, 1), ABI_NOT_FOUND);
    assert_int_equal(call("proxy_define_metric", 3, area, 1, OUT_3), ABI_BAD_ARGUMENT);
    assert_int_equal(call("proxy_define_metric", 0, BAD, 100, OUT_3), ABI_INVALID_MEMORY_ACCESS);
    assert_int_equal(call("proxy_define_metric", 0, area, 1, BAD), ABI_INVALID_MEMORY_ACCESS);
    uint32_t ours = define(METRIC_COUNTER, STR("weir_secret_total"));
    assert_int_equal(call("proxy_increment_metric", ours, 1), ABI_OK);
    uint32_t fifth = define(METRIC_COUNTER, STR("one.too.many")); /* OK, but counts nowhere */
    assert_int_equal(call("proxy_increment_metric", fifth, 1), ABI_OK);
    assert_int_equal(value(fifth), 0);
    return 0;
}

static void test_metrics(void **state)
{
    struct strbuf text = {0};

    (void)state;
    metric_id mine = metrics_define(METRICS_COUNTER, STR("weir_secret_total"), STR_NONE, NULL);
    struct plugin desc = plugin_desc(module);
    struct plugin *newer = plugin_new(&desc);
    run(step_metrics);
    assert_int_equal(metrics_read(mine), 0); /* the gateway's own series is out of reach */
    metrics_write(&text);
    plugin_unref(newer);
    assert_true(str_find_str(strbuf_str(&text), STR("\nmy_requests 7\n")) >= 0);
    assert_true(str_find_str(strbuf_str(&text), STR("wasmcustom_weir_secret_total 1\n")) >= 0);
    assert_true(str_find_str(strbuf_str(&text), STR("one_too_many")) < 0);
    strbuf_clear(&text);
    metrics_write(&text); /* they went with the plugin's last generation */
    assert_true(str_find_str(strbuf_str(&text), STR("my_requests")) < 0);
    assert_true(str_find_str(strbuf_str(&text), STR("wasmcustom_")) < 0);
    strbuf_free(&text);
}

/* ---- foreign functions ---- */

static uint32_t foreign(const char *name, struct str args)
{
    struct str n = str_of(name);

    return call("proxy_call_foreign_function", put(0, n), n.n, put(1000, args), args.n, OUT_PTR, OUT_SIZE);
}

static uint32_t step_foreign(uint32_t cb, const uint32_t *a)
{
    static char text[20000], packed[1000];

    (void)cb;
    (void)a;
    memset(text, 'x', sizeof text);
    assert_int_equal(foreign("compress", str_span(text, sizeof text)), ABI_OK);
    struct str small = gift();
    assert_true(small.n > 0 && small.n < sizeof packed);
    memcpy(packed, small.p, small.n);
    assert_int_equal(foreign("uncompress", str_span(packed, small.n)), ABI_OK);
    assert_int_equal(gift().n, sizeof text);
    assert_memory_equal(gift().p, text, sizeof text);
    assert_int_equal(foreign("uncompress", STR("no zlib data")), ABI_SERIALIZATION_FAILURE);
    assert_int_equal(foreign("uncompress", str_span(packed, small.n - 5)), ABI_SERIALIZATION_FAILURE);
    assert_int_equal(foreign("compress", STR("")), ABI_OK);
    assert_int_equal(foreign("clear_route_cache", STR("")), ABI_OK);
    assert_int_equal(stream.cleared, 1);
    assert_int_equal(foreign("set_envoy_filter_state", STR("\12\3key\22\5value\30\1")), ABI_OK);
    assert_int_equal(get(STR("filter_state\0key")), ABI_OK);
    assert_gift("value");
    assert_int_equal(foreign("set_envoy_filter_state", STR("\12\377key")), ABI_BAD_ARGUMENT);
    assert_int_equal(foreign("set_envoy_filter_state", STR("\22\5value")), ABI_BAD_ARGUMENT); /* no path */
    assert_int_equal(foreign("set_envoy_filter_state", STR("\13")), ABI_BAD_ARGUMENT);        /* a group */
    assert_int_equal(foreign("declare_property", STR("\12\3key\20\1")), ABI_OK);
    assert_int_equal(foreign("declare_property", STR("\12\3k")), ABI_BAD_ARGUMENT);
    assert_int_equal(foreign("sign", STR("")), ABI_NOT_FOUND);
    assert_int_equal(foreign("expr_create", STR("1 == 1")), ABI_NOT_FOUND);
    uint32_t n = put(0, STR("compress"));
    assert_int_equal(call("proxy_call_foreign_function", n, 8, n, 8, 0, 0), ABI_OK); /* result unwanted */
    assert_int_equal(call("proxy_call_foreign_function", n, 8, n, 8, 0, OUT_SIZE), ABI_OK);
    assert_true(get_u32(OUT_SIZE) > 0);
    assert_int_equal(call("proxy_call_foreign_function", BAD, 80, n, 8, 0, 0), ABI_INVALID_MEMORY_ACCESS);
    assert_int_equal(call("proxy_call_foreign_function", n, 8, BAD, 80, 0, 0), ABI_INVALID_MEMORY_ACCESS);
    assert_int_equal(call("proxy_call_foreign_function", n, 8, n, 8, BAD, OUT_SIZE), ABI_INVALID_MEMORY_ACCESS);
    return 0;
}

/* 16 MB of zeroes in 16 KB: refused at the cap. */
static uint32_t step_bomb(uint32_t cb, const uint32_t *a)
{
    extern int compress(unsigned char *, unsigned long *, const unsigned char *, unsigned long);
    unsigned long n = 60000, big = 16 * 1024 * 1024;
    unsigned char *zeroes = mem_zalloc(big), *packed = mem_alloc(n);

    (void)cb;
    (void)a;
    assert_int_equal(compress(packed, &n, zeroes, big), 0);
    assert_int_equal(foreign("uncompress", str_span(packed, n)), ABI_SERIALIZATION_FAILURE);
    mem_free(zeroes);
    mem_free(packed);
    return 0;
}

static void test_foreign(void **state)
{
    (void)state;
    run(step_foreign);
    run(step_bomb);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_log_and_clock, setup, teardown),
        cmocka_unit_test_setup_teardown(test_properties, setup, teardown),
        cmocka_unit_test_setup_teardown(test_root_properties_are_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stream_without_room, setup, teardown),
        cmocka_unit_test_setup_teardown(test_root_id_in_create, setup, teardown),
        cmocka_unit_test_setup_teardown(test_metrics, setup, teardown),
        cmocka_unit_test_setup_teardown(test_foreign, setup, teardown),
    };

    harness_begin();
    module = load_guest("step.c", NULL);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    module_unref(module);
    harness_end();
    return failed;
}
