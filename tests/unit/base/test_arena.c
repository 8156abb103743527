/* SPDX-License-Identifier: Apache-2.0
 *
 * The arena: one chunk for the usual stream, ceilings, alignment, deferred calls, and that everything goes back.
 */
#include "base/arena.h"

#include <setjmp.h>
#include <stdalign.h>

#include <cmocka.h>

#include "base/budget.h"

static void test_nothing_before_first_use(void **state)
{
    (void)state;
    uint64_t before = budget_used();
    struct chunk_pool *pool = chunk_pool_new(4);
    struct arena a;
    arena_init(&a, pool, 1000);
    assert_int_equal(budget_used(), before);
    arena_fini(&a);
    chunk_pool_free(pool);
    assert_int_equal(budget_used(), before);
}

static void test_one_chunk_for_a_usual_stream(void **state)
{
    (void)state;
    uint64_t before = budget_used();
    struct chunk_pool *pool = chunk_pool_new(4);
    struct arena a;
    arena_init(&a, pool, 1 << 20);
    for (int i = 0; i < 60; i++)
        memset(arena_alloc(&a, 250), 1, 250);
    assert_int_equal(budget_used() - before, sizeof(struct chunk) + CHUNK_SIZE);
    arena_fini(&a);
    chunk_pool_free(pool);
    assert_int_equal(budget_used(), before);
}

static void test_alignment(void **state)
{
    (void)state;
    struct chunk_pool *pool = chunk_pool_new(4);
    struct arena a;
    arena_init(&a, pool, 1 << 20);
    for (size_t n = 0; n < 300; n++) {
        assert_int_equal((uintptr_t)arena_alloc(&a, n) % alignof(max_align_t), 0);
        char *p = arena_try_alloc(&a, n);
        assert_non_null(p);
        for (size_t align = 1; align <= alignof(max_align_t) && n != 0 && n % align == 0; align *= 2)
            assert_int_equal((uintptr_t)p % align, 0);
        memset(p, 0xee, n);
    }
    assert_int_equal((uintptr_t)arena_alloc(&a, 100000) % alignof(max_align_t), 0);
    arena_fini(&a);
    chunk_pool_free(pool);
}

static void test_pieces_do_not_overlap(void **state)
{
    (void)state;
    struct chunk_pool *pool = chunk_pool_new(4);
    struct arena a;
    arena_init(&a, pool, 1 << 30);
    unsigned char *pieces[400];
    size_t sizes[400];
    for (unsigned i = 0; i < 400; i++) {
        sizes[i] = (i * 7919u) % 9000u;
        pieces[i] = i % 3 == 0 ? arena_zalloc(&a, sizes[i]) : arena_alloc(&a, sizes[i]);
        if (i % 3 == 0 && sizes[i] != 0)
            assert_int_equal(pieces[i][sizes[i] - 1], 0);
        memset(pieces[i], (int)(i & 0xff), sizes[i]);
    }
    for (unsigned i = 0; i < 400; i++) {
        for (size_t j = 0; j < sizes[i]; j++)
            assert_int_equal(pieces[i][j], i & 0xff);
    }
    arena_fini(&a);
    chunk_pool_free(pool);
}

static void test_ceiling(void **state)
{
    (void)state;
    struct chunk_pool *pool = chunk_pool_new(4);
    struct arena a;
    struct str out;
    arena_init(&a, pool, 1000);
    assert_null(arena_try_alloc(&a, 1001));
    assert_null(arena_try_alloc(&a, SIZE_MAX));
    assert_non_null(arena_try_alloc(&a, 900));
    assert_null(arena_try_alloc(&a, 200));
    assert_true(arena_try_str(&a, STR("hello"), &out));
    assert_true(str_is(out, "hello"));
    static const char big[200];
    assert_false(arena_try_str(&a, str_span(big, sizeof(big)), &out));
    assert_non_null(arena_alloc(&a, 5000)); /* our own may pass it */
    assert_null(arena_try_alloc(&a, 1));
    arena_fini(&a);
    assert_int_equal(a.used, 0); /* may be used again */
    assert_non_null(arena_try_alloc(&a, 1000));
    arena_fini(&a);
    chunk_pool_free(pool);
}

static void test_strings(void **state)
{
    (void)state;
    struct chunk_pool *pool = chunk_pool_new(4);
    struct arena a;
    arena_init(&a, pool, 1 << 20);
    char text[] = "abc";
    struct str copy = arena_str(&a, str_of(text));
    text[0] = 'x';
    assert_true(str_is(copy, "abc"));
    assert_null(arena_str(&a, STR_NONE).p);
    assert_non_null(arena_str(&a, STR("")).p);
    assert_true(str_is(arena_printf(&a, "%d:%s", 42, "x"), "42:x"));
    struct str wide = arena_printf(&a, "%20000d", 1);
    assert_int_equal(wide.n, 20000);
    assert_int_equal(wide.p[19999], '1');
    arena_fini(&a);
    chunk_pool_free(pool);
}

static struct {
    int order[8];
    int n;
    struct arena *arena;
} ran;

static void note(void *obj) { ran.order[ran.n++] = *(int *)obj; }

static void note_and_defer(void *obj)
{
    static int late = 99;
    note(obj);
    arena_defer(ran.arena, note, &late);
}

static void test_deferred(void **state)
{
    (void)state;
    struct chunk_pool *pool = chunk_pool_new(4);
    struct arena a;
    arena_init(&a, pool, 0);
    ran.arena = &a;
    int *one = arena_alloc(&a, sizeof(*one)), *two = arena_alloc(&a, sizeof(*two));
    *one = 1;
    *two = 2;
    arena_defer(&a, note, one);
    arena_defer(&a, note_and_defer, two);
    arena_fini(&a);
    assert_int_equal(ran.n, 3);
    assert_int_equal(ran.order[0], 2);
    assert_int_equal(ran.order[1], 99); /* what a deferred call defers runs too */
    assert_int_equal(ran.order[2], 1);
    chunk_pool_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_before_first_use),
        cmocka_unit_test(test_one_chunk_for_a_usual_stream),
        cmocka_unit_test(test_alignment),
        cmocka_unit_test(test_pieces_do_not_overlap),
        cmocka_unit_test(test_ceiling),
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_deferred),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
