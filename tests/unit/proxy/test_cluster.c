/* SPDX-License-Identifier: Apache-2.0
 *
 * Clusters: who is chosen, what survives an update, when an endpoint goes, and by which names a cluster is found.
 */
#include "proxy/cluster.h"

#include <setjmp.h>

#include <cmocka.h>

static struct endpoint_conf conf(const char *text, uint32_t weight)
{
    struct endpoint_conf e = {.weight = weight};
    assert_true(addr_parse(str_of(text), &e.addr));
    return e;
}

static struct endpoint *removed[8];
static size_t removed_count;
static void on_removed(struct endpoint *e)
{
    assert_true(e->removed);
    removed[removed_count++] = e;
}

static void test_round_robin(void **state)
{
    (void)state;
    struct cluster_table t = {0};
    struct cluster *c = cluster_get(&t, STR("ns/a:80"));
    assert_ptr_equal(cluster_get(&t, STR("ns/a:80")), c);
    assert_false(c->known);
    assert_null(cluster_choose(c, NULL));
    struct endpoint_conf list[] = {conf("127.0.0.1:1", 1), conf("127.0.0.1:2", 1), conf("127.0.0.1:3", 1)};
    cluster_update(c, list, 3);
    assert_true(c->known);
    char order[8] = "";
    for (int i = 0; i < 6; i++)
        order[i] = cluster_choose(c, NULL)->text[10];
    assert_string_equal(order, "123123");
    const struct endpoint *bad = c->endpoints[0];
    for (int i = 0; i < 6; i++)
        assert_ptr_not_equal(cluster_choose(c, bad), bad);
    cluster_update(c, list, 1);
    assert_ptr_equal(cluster_choose(c, bad), bad); /* there is no other */
    cluster_update(c, NULL, 0);
    assert_true(c->known);
    assert_null(cluster_choose(c, NULL));
    cluster_table_free(&t);
}

static void test_weights_are_smooth(void **state)
{
    (void)state;
    struct cluster_table t = {0};
    struct cluster *c = cluster_get(&t, STR("ns/a:80"));
    struct endpoint_conf list[] = {conf("127.0.0.1:1", 5), conf("127.0.0.1:2", 1), conf("127.0.0.1:3", 1)};
    cluster_update(c, list, 3);
    char order[16] = "";
    for (int i = 0; i < 7; i++)
        order[i] = cluster_choose(c, NULL)->text[10];
    assert_string_equal(order, "1121311");
    const struct endpoint *bad = c->endpoints[0];
    int seen[4] = {0};
    for (int i = 0; i < 10; i++)
        seen[cluster_choose(c, bad)->text[10] - '0']++;
    assert_int_equal(seen[1], 0);
    assert_int_equal(seen[2], 5);
    assert_int_equal(seen[3], 5);
    struct endpoint_conf zero[] = {conf("127.0.0.1:1", 0)};
    cluster_update(c, zero, 1);
    assert_int_equal(c->endpoints[0]->weight, 1);
    cluster_table_free(&t);
}

static void test_update_keeps_what_stays(void **state)
{
    (void)state;
    removed_count = 0;
    struct cluster_table t = {.on_endpoint_removed = on_removed};
    struct cluster *c = cluster_get(&t, STR("ns/a:80"));
    struct endpoint_conf first[] = {conf("127.0.0.1:1", 1), conf("[::1]:2", 1)};
    cluster_update(c, first, 2);
    struct endpoint *one = c->endpoints[0], *two = c->endpoints[1];
    assert_string_equal(two->text, "[::1]:2");
    endpoint_ref(one);
    struct endpoint_conf second[] = {conf("127.0.0.1:3", 1), conf("[::1]:2", 4), conf("127.0.0.1:3", 1)};
    cluster_update(c, second, 3);
    assert_int_equal(c->count, 2); /* a second mention of an address is none */
    assert_ptr_equal(c->endpoints[1], two);
    assert_int_equal(two->weight, 4);
    assert_int_equal(removed_count, 1);
    assert_ptr_equal(removed[0], one);
    /* still there for its user, and still says where it belonged */
    assert_true(one->removed);
    assert_string_equal(one->text, "127.0.0.1:1");
    assert_ptr_equal(one->cluster, c);
    endpoint_unref(one);
    /* the same address again is a new endpoint */
    cluster_update(c, first, 2);
    assert_false(c->endpoints[0]->removed);
    assert_int_equal(removed_count, 2);
    cluster_table_free(&t);
}

static void test_update_under_way_keeps_the_turn(void **state)
{
    (void)state;
    struct cluster_table t = {0};
    struct cluster *c = cluster_get(&t, STR("ns/a:80"));
    struct endpoint_conf list[] = {conf("127.0.0.1:1", 1), conf("127.0.0.1:2", 1), conf("127.0.0.1:3", 1)};
    cluster_update(c, list, 3);
    (void)cluster_choose(c, NULL);
    (void)cluster_choose(c, NULL);
    cluster_update(c, list, 3);
    assert_string_equal(cluster_choose(c, NULL)->text, "127.0.0.1:3");
    cluster_update(c, list, 2);
    assert_non_null(cluster_choose(c, NULL));
    cluster_table_free(&t);
}

static void test_many_endpoints(void **state)
{
    (void)state;
    enum { MANY = 3000 };
    struct cluster_table t = {0};
    struct cluster *c = cluster_get(&t, STR("ns/a:80"));
    static struct endpoint_conf list[MANY];
    for (uint16_t i = 0; i < MANY; i++)
        assert_true(addr_from_ip(STR("127.0.0.1"), (uint16_t)(i + 1), &list[i].addr));
    cluster_update(c, list, MANY);
    struct endpoint *kept = c->endpoints[MANY - 1];
    cluster_update(c, list + 1000, MANY - 1000);
    assert_int_equal(c->count, MANY - 1000);
    assert_ptr_equal(c->endpoints[MANY - 1001], kept);
    cluster_table_free(&t);
}

static void register_names(struct cluster_table *t, const struct strbuf *names, struct cluster *c)
{
    for (size_t i = 0; i < names->n; i += strlen(names->p + i) + 1)
        cluster_alias(t, str_of(names->p + i), c);
}

static void test_names(void **state)
{
    (void)state;
    struct cluster_table t = {0};
    struct cluster *service = cluster_get(&t, STR("default/Web:8080"));
    struct cluster *host = cluster_get(&t, STR("default/entry/api.example.com:443"));
    struct strbuf names = {0};
    cluster_names_of_service("default", "web", 8080, &names);
    register_names(&t, &names, service);
    strbuf_clear(&names);
    cluster_names_of_host("api.Example.com", 443, &names);
    register_names(&t, &names, host);
    strbuf_free(&names);

    static const char *const service_names[] = {
        "default/Web:8080",     "default/web:8080", "web.default.svc.cluster.local:8080",
        "web.default.svc:8080", "web.default:8080", "outbound|8080||web.default.svc.cluster.local",
        "WEB.Default:8080"};
    for (size_t i = 0; i < ARRAY_LEN(service_names); i++)
        assert_ptr_equal(cluster_find(&t, str_of(service_names[i])), service);
    assert_ptr_equal(cluster_find(&t, STR("default/entry/api.example.com:443")), host);
    assert_ptr_equal(cluster_find(&t, STR("api.example.com:443")), host);
    assert_ptr_equal(cluster_find(&t, STR("API.EXAMPLE.COM:443")), host);
    assert_ptr_equal(cluster_find(&t, STR("outbound|443||api.example.com")), host);
    static const char *const unknown[] = {"",
                                          "web",
                                          "web:8080",
                                          "outbound|8080|v1|web.default.svc.cluster.local",
                                          "127.0.0.1:8080",
                                          "api.example.com:80"};
    for (size_t i = 0; i < ARRAY_LEN(unknown); i++)
        assert_null(cluster_find(&t, str_of(unknown[i])));
    cluster_update(service, NULL, 0);
    cluster_clear_aliases(&t);
    assert_null(cluster_find(&t, STR("web.default:8080")));
    assert_ptr_equal(cluster_find(&t, STR("default/Web:8080")), service);
    cluster_table_free(&t);
}

/* Each of those who keep it, last of all: an endpoint, a name, a user. */
static void test_gone_clusters_are_freed_with_their_last_user(void **state)
{
    (void)state;
    struct str key = STR("ns/a:80");
    for (int last = 0; last < 4; last++) {
        struct cluster_table t = {0};
        struct cluster *c = cluster_get(&t, key);
        struct endpoint_conf list[] = {conf("127.0.0.1:1", 1)};
        cluster_update(c, list, 1);
        cluster_update(c, list, 1);
        struct endpoint *e = c->endpoints[0];
        if (last == 1)
            endpoint_ref(e);
        if (last == 2)
            cluster_alias(&t, STR("a:80"), c);
        if (last == 3)
            cluster_ref(c);
        cluster_gone(c);
        assert_true((map_get(&t.by_key, key) != NULL) == (last != 0));
        if (last == 1)
            endpoint_unref(e);
        if (last == 2)
            cluster_clear_aliases(&t);
        if (last == 3)
            cluster_unref(c);
        assert_null(map_get(&t.by_key, key));
        cluster_table_free(&t);
    }
}

static void test_a_cluster_that_comes_back(void **state)
{
    (void)state;
    struct cluster_table t = {0};
    struct cluster *c = cluster_get(&t, STR("ns/a:80"));
    struct endpoint_conf list[] = {conf("127.0.0.1:1", 1)};
    cluster_update(c, list, 1);
    cluster_ref(c);
    cluster_gone(c);
    assert_null(cluster_choose(c, NULL));
    assert_ptr_equal(cluster_get(&t, STR("ns/a:80")), c);
    cluster_update(c, list, 1);
    cluster_unref(c);
    assert_non_null(cluster_choose(c, NULL));
    cluster_table_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_robin),
        cmocka_unit_test(test_weights_are_smooth),
        cmocka_unit_test(test_update_keeps_what_stays),
        cmocka_unit_test(test_update_under_way_keeps_the_turn),
        cmocka_unit_test(test_many_endpoints),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_gone_clusters_are_freed_with_their_last_user),
        cmocka_unit_test(test_a_cluster_that_comes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
