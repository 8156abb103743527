/* SPDX-License-Identifier: Apache-2.0
 *
 * The hash map against a plain array, and its iteration.
 */
#include "base/map.h"

#include <setjmp.h>
#include <stdio.h>

#include <cmocka.h>

enum { KEYS = 500 };

static struct str key_of(int i)
{
    static char text[32];
    return str_span(text, (size_t)snprintf(text, sizeof(text), "key %d", i));
}

static void test_basics(void **state)
{
    (void)state;
    struct map m = {0};
    int a = 1, b = 2;
    assert_null(map_get(&m, STR("x")));
    assert_null(map_remove(&m, STR("x")));
    assert_null(map_set(&m, STR(""), &a));
    assert_ptr_equal(map_get(&m, STR_NONE), &a);
    assert_ptr_equal(map_set(&m, STR_NONE, &b), &a);
    assert_null(map_set(&m, str_span("n\0m", 3), &a));
    assert_null(map_get(&m, STR("n")));
    assert_int_equal(m.count, 2);
    assert_ptr_equal(map_remove(&m, STR("")), &b);
    assert_null(map_remove(&m, STR("")));
    assert_ptr_equal(map_get(&m, str_span("n\0m", 3)), &a);
    map_free(&m);
    assert_int_equal(m.count, 0);
    map_free(&m);
}

static void test_order(void **state)
{
    (void)state;
    struct map m = {0};
    int values[KEYS];
    for (int i = 0; i < KEYS; i++)
        assert_null(map_set(&m, key_of(i), &values[i]));
    int i = 0;
    MAP_EACH (e, &m) {
        assert_ptr_equal(e->value, &values[i]);
        i++;
    }
    assert_int_equal(i, KEYS);
    MAP_EACH (e, &m)
        (void)map_remove(&m, e->key);
    assert_int_equal(m.count, 0);
    map_free(&m);
}

static void test_against_array(void **state)
{
    (void)state;
    struct map m = {0};
    static int values[8];
    int *expected[KEYS] = {0};
    uint64_t seed = 1;
    for (int op = 0; op < 200000; op++) {
        seed = seed * UINT64_C(6364136223846793005) + 1;
        int k = (int)(seed >> 40) % KEYS;
        int *value = &values[seed >> 33 & 7];
        if ((seed >> 60) < 6) {
            assert_ptr_equal(map_set(&m, key_of(k), value), expected[k]);
            expected[k] = value;
        } else if ((seed >> 60) < 12) {
            assert_ptr_equal(map_remove(&m, key_of(k)), expected[k]);
            expected[k] = NULL;
        } else {
            assert_ptr_equal(map_get(&m, key_of(k)), expected[k]);
        }
    }
    size_t count = 0;
    for (int k = 0; k < KEYS; k++) {
        assert_ptr_equal(map_get(&m, key_of(k)), expected[k]);
        count += expected[k] != NULL;
    }
    assert_int_equal(m.count, count);
    assert_true(m.cap <= 4 * KEYS); /* removing and adding again does not grow it */
    map_free(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_basics),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_against_array),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
