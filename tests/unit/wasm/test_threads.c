/* SPDX-License-Identifier: Apache-2.0
 *
 * VMs of one vm_id on several threads at once: compare-and-swap loses no update, every queue item is taken once by a
 * VM that is told of it, metrics add up, and VMs that come and go meanwhile take nothing away.
 */
#include <pthread.h>

#include "abi_harness.h"
#include "wasm/shared.h"

enum { THREADS = 4, TICKS = 20, EACH = 50, TOTAL = THREADS * TICKS * EACH };

static struct module *module;
/* Wakes of each token, told from any thread. */
static atomic_int woken[THREADS * TICKS * 2];
static atomic_uint_fast64_t next_token;

static void t_wake(uint64_t token, uint32_t queue)
{
    ASSERT(queue != 0);
    atomic_fetch_add(&woken[token], 1);
}

static void t_log(void *h, void *stream, enum log_level level, struct str text)
{
    (void)h;
    (void)stream;
    (void)level;
    (void)text;
}

static void t_failed(void *h, const char *callback, const char *reason)
{
    (void)h;
    fprintf(stderr, "%s: %s\n", callback, reason);
    abort();
}

static void t_tick(void *h, uint32_t ms)
{
    (void)h;
    (void)ms;
}

static const struct host_ops thread_ops = {
    .set_tick = t_tick,
    .queue_wake = t_wake,
    .log = t_log,
    .vm_failed = t_failed,
    .wall_ns = op_wall,
    .mono_ns = op_mono,
};

struct vm_of_thread {
    struct plugin_vm *pv;
    uint64_t token;
    uint32_t queue;
};

static struct vm_of_thread begin(struct plugin *p)
{
    struct vm_of_thread t = {.token = atomic_fetch_add(&next_token, 1)};
    char *error = NULL;

    ASSERT(t.token < ARRAY_LEN(woken));
    enum plugin_start started = plugin_vm_new(p, &thread_ops, &t.pv, &error);
    ASSERT(started == START_OK);
    plugin_vm_attach(t.pv, &thread_ops, NULL, t.token);
    return t;
}

static void take_items(struct vm_of_thread *t, uint32_t queue)
{
    for (int n = atomic_exchange(&woken[t->token], 0); n > 0; n--)
        plugin_vm_queue_ready(t->pv, queue);
}

static uint32_t queue_id;

static void *worker(void *arg)
{
    struct plugin *p = arg;
    struct vm_of_thread t = begin(p);

    metrics_thread_init();
    for (int i = 0; i < TICKS; i++) {
        plugin_vm_tick(t.pv);
        take_items(&t, queue_id);
        if (i % 7 == 3) { /* a swap: the new one is there before the old one goes */
            struct vm_of_thread newer = begin(p);
            plugin_vm_detach(t.pv);
            plugin_vm_free(t.pv);
            t = newer;
        }
    }
    plugin_vm_detach(t.pv);
    plugin_vm_free(t.pv);
    metrics_thread_fini();
    return NULL;
}

static uint32_t number(struct shared_space *s, const char *key)
{
    struct strbuf out = {0};
    uint32_t cas, v = 0;

    assert_int_equal(shared_get(s, str_of(key), &out, &cas), ABI_OK);
    memcpy(&v, out.p, sizeof v);
    strbuf_free(&out);
    return v;
}

static void test_threads(void **state)
{
    struct plugin desc = plugin_desc(module);
    pthread_t threads[THREADS];
    size_t evicted;

    (void)state;
    guest_signals_restore();
    desc.limits.cpu_deadline_ms = 30000;
    struct plugin *p = plugin_new(&desc);
    struct shared_space *space = shared_open(str_of(desc.vm_id));
    /* cas 0 sets whatever is there, so the numbers begin with a value */
    assert_int_equal(shared_set(space, STR("k"), STR("\0\0\0\0"), 0, 1 << 20, &evicted), ABI_OK);
    assert_int_equal(shared_set(space, STR("t"), STR("\0\0\0\0"), 0, 1 << 20, &evicted), ABI_OK);
    struct vm_of_thread last = begin(p);
    assert_int_equal(queue_resolve(space, STR_NONE, STR("q"), &queue_id), ABI_OK);
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, worker, p), 0);
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(number(space, "k"), TOTAL);
    /* what the others left waiting is told to the registrant that is still there, at most 1,024 at a time */
    while (atomic_load(&woken[last.token]) != 0) {
        take_items(&last, queue_id);
        queue_subscribe(queue_id, last.token, t_wake);
    }
    struct strbuf item = {0};
    uint32_t left = 0;
    while (queue_pop(queue_id, &item) == ABI_OK)
        left++;
    strbuf_free(&item);
    assert_int_equal(number(space, "t") + left, TOTAL);
    metric_id counted = metrics_define(METRICS_COUNTER, STR("threads_total"), STR_NONE, NULL);
    assert_int_equal(metrics_read(counted), TOTAL);
    plugin_vm_detach(last.pv);
    plugin_vm_free(last.pv);
    shared_close(space);
    plugin_unref(p);
    assert_int_equal(metrics_read(counted), 0); /* went with the plugin */
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup(test_threads, test_setup)};

    harness_begin();
    struct strbuf wasm = guest_assemble(WEIR_SOURCE_DIR "/tests/unit/wasm/threads.wat", NULL);
    module = load_wasm(strbuf_str(&wasm));
    strbuf_free(&wasm);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    module_unref(module);
    harness_end();
    return failed;
}
