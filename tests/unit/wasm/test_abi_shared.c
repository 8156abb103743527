/* SPDX-License-Identifier: Apache-2.0
 *
 * Shared data and queues across VMs: CAS, quotas, who is woken, and what dies with whom.
 */
#include "abi_harness.h"

static struct module *module;

static int setup(void **state)
{
    test_setup(state);
    find_area(module);
    return 0;
}

static uint32_t step_tick_on(uint32_t cb, const uint32_t *a)
{
    (void)a;
    return cb == CB_CONFIGURE ? call("proxy_set_tick_period_milliseconds", 500) == ABI_OK : 1;
}

static struct plugin_vm *begin_in(char *vm_id, uint64_t token, uint32_t quota)
{
    struct plugin desc = plugin_desc(module);

    desc.vm_id = vm_id;
    desc.limits.shared_bytes = quota;
    on_step = step_tick_on;
    struct plugin_vm *pv = attach_vm(&desc, token);
    on_step = NULL;
    return pv;
}

/* Runs step in a tick of pv. */
static void in(struct plugin_vm *pv, step_fn *step)
{
    on_step = step;
    plugin_vm_tick(pv);
    on_step = NULL;
    assert_int_equal(host.failures, 0);
}

static uint32_t set(const char *key, const char *value, uint32_t cas)
{
    struct str k = str_of(key), v = str_of(value);

    return call("proxy_set_shared_data", put(0, k), k.n, put(1000, v), v.n, cas);
}

static uint32_t get(const char *key)
{
    struct str k = str_of(key);

    return call("proxy_get_shared_data", put(0, k), k.n, OUT_PTR, OUT_SIZE, OUT_3);
}

static uint32_t step_cas(uint32_t cb, const uint32_t *a)
{
    (void)cb;
    (void)a;
    assert_int_equal(get("k"), ABI_NOT_FOUND);
    assert_int_equal(set("k", "one", 77), ABI_OK); /* cas on an absent key */
    assert_int_equal(get("k"), ABI_OK);
    assert_gift("one");
    uint32_t cas = get_u32(OUT_3);
    assert_int_not_equal(cas, 0);
    assert_int_equal(set("k", "two", cas), ABI_OK);
    assert_int_equal(set("k", "three", cas), ABI_CAS_MISMATCH);
    assert_int_equal(get("k"), ABI_OK);
    assert_gift("two");
    assert_int_equal(set("k", "four", 0), ABI_OK);
    assert_int_equal(get("k"), ABI_OK);
    assert_gift("four");
    assert_int_equal(set("e", "", 0), ABI_OK);
    assert_int_equal(get("e"), ABI_OK);
    assert_int_equal(get_u32(OUT_PTR) + get_u32(OUT_SIZE), 0);
    assert_int_equal(call("proxy_get_shared_data", BAD, 100, OUT_PTR, OUT_SIZE, OUT_3), ABI_INVALID_MEMORY_ACCESS);
    assert_int_equal(call("proxy_get_shared_data", area, 1, OUT_PTR, OUT_SIZE, BAD), ABI_INVALID_MEMORY_ACCESS);
    assert_int_equal(call("proxy_get_shared_data", area, 1, OUT_PTR, BAD, OUT_3), ABI_INVALID_MEMORY_ACCESS);
    assert_int_equal(call("proxy_set_shared_data", BAD, 100, area, 1, 0), ABI_INVALID_MEMORY_ACCESS);
    assert_int_equal(call("proxy_set_shared_data", area, 1, BAD, 100, 0), ABI_INVALID_MEMORY_ACCESS);
    return 0;
}

static uint32_t step_sees_four(uint32_t cb, const uint32_t *a)
{
    (void)cb;
    (void)a;
    assert_int_equal(get("k"), ABI_OK);
    assert_gift("four");
    return 0;
}

static uint32_t step_sees_nothing(uint32_t cb, const uint32_t *a)
{
    (void)cb;
    (void)a;
    assert_int_equal(get("k"), ABI_NOT_FOUND);
    return 0;
}

static void test_data(void **state)
{
    (void)state;
    struct plugin_vm *one = begin_in("a", 1, 1 << 20), *two = begin_in("a", 2, 1 << 20),
                     *stranger = begin_in("b", 3, 1 << 20);
    in(one, step_cas);
    in(two, step_sees_four);
    in(stranger, step_sees_nothing);
    end_vm(one);
    in(two, step_sees_four); /* lives on in the second */
    end_vm(two);
    one = begin_in("a", 1, 1 << 20);
    in(one, step_sees_nothing); /* and dies with the last */
    end_vm(one);
    end_vm(stranger);
}

static uint32_t step_fill(uint32_t cb, const uint32_t *a)
{
    static char value[1000];
    char key[16];

    (void)cb;
    (void)a;
    memset(value, 'v', sizeof value - 1);
    for (int i = 0; i < 100; i++) { /* about 110 KB into 32 */
        snprintf(key, sizeof key, "key%d", i);
        assert_int_equal(set(key, value, 0), ABI_OK);
        assert_int_equal(get("key0"), ABI_OK); /* used all the time: stays */
    }
    assert_int_equal(get("key1"), ABI_NOT_FOUND);
    assert_int_equal(get("key99"), ABI_OK);
    assert_true(logged("shared data of vm_id \"a\" is full"));
    /* too big by itself: as if it had been dropped at once (Rust filters panic on anything but OK and a CAS mismatch)
     */
    assert_int_equal(call("proxy_set_shared_data", put(0, STR("key99")), 5, area, 40000, 0), ABI_OK);
    assert_int_equal(get("key99"), ABI_NOT_FOUND);
    assert_int_equal(get("key0"), ABI_OK);
    return 0;
}

static void test_quota(void **state)
{
    (void)state;
    struct plugin_vm *pv = begin_in("a", 1, 64 * 1024);
    in(pv, step_fill);
    end_vm(pv);
}

/* ---- queues ---- */

static uint32_t queue;

static uint32_t step_register(uint32_t cb, const uint32_t *a)
{
    (void)a;
    if (cb == CB_CONFIGURE || cb == CB_TICK) {
        assert_int_equal(call("proxy_register_shared_queue", put(0, STR("q")), 1, OUT_3), ABI_OK);
        queue = get_u32(OUT_3);
        assert_int_not_equal(queue, 0);
        assert_int_equal(call("proxy_register_shared_queue", BAD, 100, OUT_3), ABI_INVALID_MEMORY_ACCESS);
        assert_int_equal(call("proxy_register_shared_queue", area, 1, BAD), ABI_INVALID_MEMORY_ACCESS);
    }
    return 1;
}

static uint32_t enqueue(const char *value)
{
    struct str v = str_of(value);

    return call("proxy_enqueue_shared_queue", queue, put(0, v), v.n);
}

static uint32_t step_enqueue(uint32_t cb, const uint32_t *a)
{
    (void)cb;
    (void)a;
    assert_int_equal(enqueue("first"), ABI_OK);
    assert_int_equal(enqueue(""), ABI_OK);
    return 0;
}

static uint32_t step_dequeue(uint32_t cb, const uint32_t *a)
{
    (void)cb;
    (void)a;
    assert_int_equal(call("proxy_dequeue_shared_queue", queue, OUT_PTR, BAD), ABI_INVALID_MEMORY_ACCESS);
    assert_int_equal(call("proxy_dequeue_shared_queue", queue, OUT_PTR, OUT_SIZE), ABI_OK);
    assert_gift("first");
    assert_int_equal(call("proxy_dequeue_shared_queue", queue, OUT_PTR, OUT_SIZE), ABI_OK);
    assert_int_equal(get_u32(OUT_SIZE), 0);
    assert_int_equal(call("proxy_dequeue_shared_queue", queue, OUT_PTR, OUT_SIZE), ABI_EMPTY);
    assert_int_equal(call("proxy_dequeue_shared_queue", queue + 999, OUT_PTR, OUT_SIZE), ABI_NOT_FOUND);
    assert_int_equal(call("proxy_enqueue_shared_queue", queue + 999, area, 1), ABI_NOT_FOUND);
    assert_int_equal(call("proxy_enqueue_shared_queue", queue, BAD, 100), ABI_INVALID_MEMORY_ACCESS);
    return 0;
}

static void test_queue(void **state)
{
    (void)state;
    struct plugin_vm *one = begin_in("a", 1, 1 << 20), *two = begin_in("a", 2, 1 << 20);
    in(one, step_register);
    in(two, step_register);
    in(one, step_enqueue);
    assert_int_equal(wake_count, 2);
    assert_int_equal(wakes[0].token, 2); /* the newest registrant */
    assert_int_equal(wakes[0].queue, queue);
    on_step = step_dequeue;
    plugin_vm_queue_ready(two, queue);
    assert_int_equal(step_count[CB_QUEUE_READY], 1);
    in(one, step_enqueue);
    wake_count = 0;
    end_vm(two);
    assert_int_equal(wake_count, 2); /* what waits is the next one's */
    assert_int_equal(wakes[0].token, 1);
    in(one, step_dequeue);
    end_vm(one);
}

static void test_queue_registered_before_attach(void **state)
{
    struct plugin desc = plugin_desc(module);

    (void)state;
    desc.vm_id = "a";
    struct plugin_vm *one = begin_in("a", 1, 1 << 20);
    on_step = step_register;
    struct plugin_vm *two = start_vm(&desc);
    in(one, step_enqueue);
    assert_int_equal(wake_count, 0); /* nobody yet */
    plugin_vm_attach(two, &ops, &host, 9);
    assert_int_equal(wake_count, 2);
    assert_int_equal(wakes[1].token, 9);
    in(one, step_dequeue);
    end_vm(one);
    end_vm(two);
}

static uint32_t step_guess(uint32_t cb, const uint32_t *a)
{
    (void)cb;
    (void)a;
    assert_int_equal(enqueue("x"), ABI_NOT_FOUND); /* another tenant's id is of no use */
    assert_int_equal(call("proxy_dequeue_shared_queue", queue, OUT_PTR, OUT_SIZE), ABI_NOT_FOUND);
    uint32_t vm = put(0, STR("a")), name = put(10, STR("q"));
    assert_int_equal(call("proxy_resolve_shared_queue", vm, 0, name, 1, OUT_3), ABI_NOT_FOUND); /* not in its own */
    assert_int_equal(call("proxy_resolve_shared_queue", vm, 1, name, 1, OUT_3), ABI_OK);
    assert_int_equal(get_u32(OUT_3), queue);
    assert_int_equal(call("proxy_resolve_shared_queue", vm, 1, vm, 1, OUT_3), ABI_NOT_FOUND);
    assert_int_equal(call("proxy_resolve_shared_queue", BAD, 100, name, 1, OUT_3), ABI_INVALID_MEMORY_ACCESS);
    assert_int_equal(call("proxy_resolve_shared_queue", vm, 1, BAD, 100, OUT_3), ABI_INVALID_MEMORY_ACCESS);
    assert_int_equal(call("proxy_resolve_shared_queue", vm, 1, name, 1, BAD), ABI_INVALID_MEMORY_ACCESS);
    assert_int_equal(enqueue("x"), ABI_OK);
    return 0;
}

static void test_queue_of_another_space(void **state)
{
    (void)state;
    struct plugin_vm *one = begin_in("a", 1, 1 << 20), *two = begin_in("b", 2, 1 << 20);
    in(one, step_register);
    in(two, step_guess);
    assert_int_equal(wake_count, 1);
    end_vm(one);
    in(two, NULL);
    end_vm(two);
}

static uint32_t step_overflow(uint32_t cb, const uint32_t *a)
{
    uint32_t n = 0;

    (void)cb;
    (void)a;
    while (n < 100 && call("proxy_enqueue_shared_queue", queue, area, 1000) == ABI_OK) {
        n++;
    }
    assert_true(n > 20 && n < 40);
    assert_true(logged("is full"));
    assert_int_equal(set("k", "data has its own half", 0), ABI_OK);
    return 0;
}

static void test_queue_quota(void **state)
{
    (void)state;
    struct plugin_vm *pv = begin_in("a", 1, 64 * 1024);
    in(pv, step_register);
    in(pv, step_overflow);
    end_vm(pv);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_data, setup),
        cmocka_unit_test_setup(test_quota, setup),
        cmocka_unit_test_setup(test_queue, setup),
        cmocka_unit_test_setup(test_queue_registered_before_attach, setup),
        cmocka_unit_test_setup(test_queue_of_another_space, setup),
        cmocka_unit_test_setup(test_queue_quota, setup),
    };

    harness_begin();
    module = load_guest("step.c", NULL);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    module_unref(module);
    harness_end();
    return failed;
}
