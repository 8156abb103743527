/* SPDX-License-Identifier: Apache-2.0
 *
 * A snapshot lets go of everything with its last reference, on whatever thread that is. Plugins, limits and route
 * tables are stand-ins that count.
 */
#include "proxy/snapshot.h"

#include <setjmp.h>

#include <cmocka.h>
#include <pthread.h>

static int plugins_freed, tables_freed, limits_freed;
void plugin_unref(struct plugin *p)
{
    assert_non_null(p);
    plugins_freed++;
}
void route_table_free(struct route_table *t)
{
    assert_non_null(t);
    tables_freed++;
}
void limits_free(struct limits *l)
{
    assert_non_null(l);
    limits_freed++;
}

static struct snapshot *make(void)
{
    static const struct identity identity = {.name = NULL};
    struct snapshot *s = snapshot_new(7, &identity);
    s->listener_count = 2;
    s->listeners = mem_zalloc(2 * sizeof(*s->listeners));
    struct listener_conf *l = &s->listeners[0];
    l->gateway = mem_strdup("default/gateway");
    l->chain_count = 2;
    l->chain = mem_zalloc(2 * sizeof(*l->chain));
    l->chain[0].title = mem_strdup("default/present");
    l->chain[0].plugin = (struct plugin *)(uintptr_t)1;
    l->chain[1].title = mem_strdup("default/absent");
    l->chain[1].absence = PLUGIN_FETCH_FAILED;
    l->routes = (struct route_table *)(uintptr_t)1;
    s->cluster_count = 1;
    s->clusters = mem_zalloc(sizeof(*s->clusters));
    s->clusters[0].key = mem_strdup("default/a:80");
    s->clusters[0].names = mem_strdup("a.default:80");
    return s;
}

static void *drop(void *arg)
{
    for (int i = 0; i < 1000; i++)
        snapshot_unref(snapshot_ref(arg));
    snapshot_unref(arg);
    return NULL;
}

static void test_last_reference_frees(void **state)
{
    (void)state;
    struct snapshot *s = make();
    assert_int_equal(s->version, 7);
    pthread_t threads[3];
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, drop, snapshot_ref(s)), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(plugins_freed, 0);
    snapshot_unref(s);
    assert_int_equal(plugins_freed, 1);
    assert_int_equal(tables_freed, 1);
    assert_int_equal(limits_freed, 2);
}

static void test_empty(void **state)
{
    (void)state;
    snapshot_unref(snapshot_new(1, NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_last_reference_frees),
        cmocka_unit_test(test_empty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
