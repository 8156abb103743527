/* SPDX-License-Identifier: Apache-2.0
 *
 * The header map against a simple model, with edits whose names and values lie in the map itself; its limits; and
 * that a guest which edits for ever does not make it grow.
 */
#include "base/headers.h"

#include <setjmp.h>
#include <stdio.h>

#include <cmocka.h>

static struct chunk_pool *pool;
static struct arena arena;
static struct headers h;

static int setup(void **state)
{
    (void)state;
    pool = chunk_pool_new(8);
    arena_init(&arena, pool, 1 << 20);
    headers_init(&h, &arena, 4096, 64);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    arena_fini(&arena);
    chunk_pool_free(pool);
    return 0;
}

static void assert_entry(size_t i, const char *name, const char *value)
{
    assert_true(i < h.count);
    assert_true(str_is(h.list[i].name, name));
    assert_true(str_is(h.list[i].value, value));
}

static void test_ids(void **state)
{
    (void)state;
    for (int id = HDR_OTHER + 1; id < HDR_COUNT; id++) {
        struct str name = header_id_name((enum header_id)id);
        assert_int_equal(header_id_of(name), id);
        char other[64];
        for (size_t i = 0; i < name.n; i++) {
            memcpy(other, name.p, name.n);
            other[i] ^= 1;
            assert_int_equal(header_id_of(str_span(other, name.n)), HDR_OTHER);
        }
        assert_int_equal(header_id_of(str_upto(name, name.n - 1)), HDR_OTHER);
    }
    assert_int_equal(header_id_of(STR_NONE), HDR_OTHER);
    assert_int_equal(header_id_of(STR("x-something-else")), HDR_OTHER);
}

static void test_borrowed(void **state)
{
    (void)state;
    static const char name[] = "x-a", value[] = "1";
    headers_add_borrowed(&h, STR(":path"), STR("/"), HDR_PATH);
    headers_add_borrowed(&h, str_of(name), str_of(value), HDR_OTHER);
    assert_ptr_equal(h.list[1].value.p, value);
    assert_int_equal(h.bytes, 6 + 4);
    assert_ptr_equal(headers_get(&h, STR("X-A")), &h.list[1]);
    assert_ptr_equal(headers_get(&h, STR(":PATH")), &h.list[0]);
    assert_null(headers_get(&h, STR("x-b")));
    assert_true(str_is(headers_value(&h, HDR_PATH), "/"));
    assert_null(headers_value(&h, HDR_HOST).p);
    assert_null(h.store); /* no memory for edits yet */
}

static void test_edits(void **state)
{
    (void)state;
    headers_add_borrowed(&h, STR(":method"), STR("GET"), HDR_METHOD);
    headers_add_borrowed(&h, STR("x-a"), STR("1"), HDR_OTHER);
    headers_add_borrowed(&h, STR("x-b"), STR("2"), HDR_OTHER);
    headers_add_borrowed(&h, STR("x-a"), STR("3"), HDR_OTHER);
    assert_int_equal(headers_add(&h, STR("X-New"), STR("Value")), HEADERS_OK);
    assert_entry(4, "x-new", "Value");
    assert_int_equal(headers_set(&h, STR("X-A"), STR("4")), HEADERS_OK);
    assert_int_equal(h.count, 4);
    assert_entry(1, "x-a", "4"); /* in the place of the first */
    assert_entry(2, "x-b", "2");
    assert_int_equal(headers_set(&h, STR("x-c"), STR("")), HEADERS_OK);
    assert_entry(4, "x-c", "");
    assert_int_equal(headers_set_id(&h, HDR_PATH, STR("/p")), HEADERS_OK);
    assert_entry(1, ":path", "/p"); /* pseudo-headers stay together */
    assert_int_equal(headers_add(&h, STR(":Authority"), STR("a")), HEADERS_OK);
    assert_entry(2, ":authority", "a");
    assert_int_equal(h.list[2].id, HDR_AUTHORITY);
    assert_int_equal(headers_remove(&h, STR("X-B")), 1);
    assert_int_equal(headers_remove(&h, STR("X-B")), 0);
    assert_int_equal(headers_remove_id(&h, HDR_METHOD), 1);
    headers_remove_at(&h, 0);
    assert_entry(0, ":authority", "a");
    assert_int_equal(headers_add(&h, STR("cookie"), STR("a=1")), HEADERS_OK);
    assert_int_equal(headers_add(&h, STR("Cookie"), STR("b=2")), HEADERS_OK);
    assert_int_equal(headers_count_id(&h, HDR_COOKIE), 2);
    headers_clear(&h);
    assert_int_equal(h.count + h.bytes, 0);
    assert_int_equal(headers_add(&h, STR("x"), STR("y")), HEADERS_OK);
    assert_entry(0, "x", "y");
}

static void test_limits(void **state)
{
    (void)state;
    static char big[5000];
    assert_int_equal(headers_add(&h, STR("x"), str_span(big, 4096)), HEADERS_FULL);
    assert_int_equal(headers_add(&h, STR("x"), str_span(big, 4095)), HEADERS_OK);
    assert_int_equal(headers_add(&h, STR("y"), STR_NONE), HEADERS_FULL);
    assert_int_equal(headers_set(&h, STR("x"), str_span(big, 4096)), HEADERS_FULL);
    assert_int_equal(h.list[0].value.n, 4095); /* untouched by what failed */
    assert_int_equal(headers_set(&h, STR("x"), STR("1")), HEADERS_OK);
    for (int i = 1; i < 64; i++)
        assert_int_equal(headers_add(&h, STR("y"), STR("1")), HEADERS_OK);
    assert_int_equal(headers_add(&h, STR("y"), STR("1")), HEADERS_FULL);
    assert_int_equal(headers_set(&h, STR("z"), STR("1")), HEADERS_FULL);
    assert_int_equal(headers_set(&h, STR("y"), STR("2")), HEADERS_OK);
    assert_int_equal(h.count, 2);
    assert_int_equal(h.bytes, 4);
}

static void test_shrinking_is_allowed_above_the_limit(void **state)
{
    (void)state;
    static char big[9000];
    headers_add_borrowed(&h, STR("x"), str_span(big, 9000), HDR_OTHER); /* the parser has its own limits */
    assert_int_equal(headers_set(&h, STR("x"), str_span(big, 8000)), HEADERS_OK);
    assert_int_equal(headers_set(&h, STR("x"), str_span(big, 8001)), HEADERS_FULL);
    assert_int_equal(headers_set(&h, STR("y"), STR_NONE), HEADERS_FULL);
    assert_int_equal(headers_set(&h, STR("x"), str_span(big, 10)), HEADERS_OK);
    assert_int_equal(headers_add(&h, STR("y"), STR_NONE), HEADERS_OK);
}

static void test_endless_edits_stay_bounded(void **state)
{
    (void)state;
    static char value[2000];
    size_t arena_used = 0;
    for (unsigned i = 0; i < 1000000; i++) {
        size_t n = (i * 7919u) % 1000;
        memset(value, 'a' + (int)(i % 26), n < 40 ? n : 40);
        assert_int_equal(headers_set(&h, STR("x-guest"), str_span(value, n)), HEADERS_OK);
        if (i % 3 == 0)
            assert_int_equal(headers_add(&h, STR("x-other"), str_span(value, n)), HEADERS_OK);
        if (i % 7 == 0)
            (void)headers_remove(&h, STR("x-other"));
        assert_true(h.store_cap <= 4 * 4096);
        if (i == 10000)
            arena_used = arena.used;
    }
    assert_int_equal(arena.used, arena_used);
}

static void test_values_of_the_map_itself(void **state)
{
    (void)state;
    /* Each of these fills and moves the store many times while name and value lie in it. */
    for (int i = 0; i < 1000; i++) {
        char fresh[300];
        memset(fresh, 'a' + i % 26, sizeof(fresh));
        struct str value = str_span(fresh, (size_t)(i * 37 % 300));
        assert_int_equal(headers_set(&h, STR("x-a"), value), HEADERS_OK);
        assert_int_equal(headers_set(&h, STR("x-b"), headers_get(&h, STR("x-a"))->value), HEADERS_OK);
        assert_true(str_eq(headers_get(&h, STR("x-b"))->value, value));
        /* A part of itself, in place. */
        struct str own = headers_get(&h, STR("x-b"))->value;
        size_t half = own.n / 2;
        assert_int_equal(headers_set(&h, STR("x-b"), str_from(own, half)), HEADERS_OK);
        assert_true(str_eq(headers_get(&h, STR("x-b"))->value, str_from(value, half)));
        /* Its own name as the value of another, an entry's name as the name. */
        assert_int_equal(headers_set(&h, STR("x-c"), h.list[0].name), HEADERS_OK);
        assert_true(str_is(headers_get(&h, STR("x-c"))->value, "x-a"));
        assert_int_equal(headers_add(&h, h.list[2].name, h.list[2].value), HEADERS_OK);
        assert_int_equal(headers_set(&h, h.list[2].name, h.list[0].value), HEADERS_OK);
        assert_true(str_eq(headers_get(&h, STR("x-c"))->value, value));
        assert_int_equal(h.count, 3);
    }
    /* A name that is a part of the very value it replaces. */
    assert_int_equal(headers_set(&h, STR("x-a"), STR("x-a and more")), HEADERS_OK);
    assert_int_equal(headers_add(&h, STR("x-a"), STR("second")), HEADERS_OK);
    assert_int_equal(headers_set(&h, str_upto(h.list[0].value, 3), STR("zzzzzzzzz")), HEADERS_OK);
    assert_int_equal(h.count, 3);
    assert_entry(0, "x-a", "zzzzzzzzz");
    assert_int_equal(headers_remove(&h, h.list[0].name), 1);
}

static void test_copy(void **state)
{
    (void)state;
    struct arena short_lived;
    struct headers src;
    arena_init(&short_lived, pool, 1 << 20);
    headers_init(&src, &short_lived, 1 << 20, 1000);
    char text[16];
    for (int i = 0; i < 64; i++) {
        int n = snprintf(text, sizeof(text), "x-%d", i);
        assert_int_equal(headers_add(&src, str_span(text, (size_t)n), STR("some value")), HEADERS_OK);
    }
    assert_int_equal(headers_add(&h, STR("x-old"), STR("gone")), HEADERS_OK);
    assert_int_equal(headers_copy(&h, &src), HEADERS_OK);
    assert_int_equal(headers_copy(&h, &h), HEADERS_OK);
    assert_int_equal(h.bytes, src.bytes);
    assert_int_equal(headers_add(&src, STR("x"), STR("65 are too many")), HEADERS_OK);
    assert_int_equal(headers_copy(&h, &src), HEADERS_FULL);
    arena_fini(&short_lived);
    assert_int_equal(h.count, 64);
    assert_entry(0, "x-0", "some value");
    assert_entry(63, "x-63", "some value");
}

/* ---- random edits against a model ---- */

enum { MODEL_MAX = 64, VALUE_MAX = 700 };
static struct {
    char name[16], value[VALUE_MAX];
    size_t n;
} model[MODEL_MAX + 1];
static size_t model_count, model_bytes;
static uint64_t seed;

static unsigned next_random(unsigned below)
{
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (unsigned)(seed >> 33) % below;
}

static const char *const names[] = {":path", ":method", "host", "x-a", "x-b", "x-longer-name", "set-cookie", "via"};

static size_t model_find(const char *name, size_t from)
{
    while (from < model_count && strcmp(model[from].name, name) != 0)
        from++;
    return from;
}

static void model_recount(void)
{
    model_bytes = 0;
    for (size_t i = 0; i < model_count; i++)
        model_bytes += strlen(model[i].name) + model[i].n;
}

static void model_remove_at(size_t i)
{
    memmove(&model[i], &model[i + 1], (model_count - i - 1) * sizeof(model[0]));
    model_count--;
}

static void model_insert(const char *name, const char *value, size_t n)
{
    size_t at = model_count;
    for (at = 0; name[0] == ':' && at < model_count && model[at].name[0] == ':'; at++)
        continue;
    if (name[0] != ':')
        at = model_count;
    memmove(&model[at + 1], &model[at], (model_count - at) * sizeof(model[0]));
    model_count++;
    memcpy(model[at].name, name, strlen(name) + 1);
    memcpy(model[at].value, value, n);
    model[at].n = n;
}

static void assert_like_model(void)
{
    model_recount();
    assert_int_equal(h.count, model_count);
    assert_int_equal(h.bytes, model_bytes);
    assert_true(h.store_dead <= h.store_used && h.store_used <= h.store_cap);
    for (size_t i = 0; i < model_count; i++) {
        assert_true(str_is(h.list[i].name, model[i].name));
        assert_true(str_eq(h.list[i].value, str_span(model[i].value, model[i].n)));
        assert_int_equal(h.list[i].id, header_id_of(h.list[i].name));
    }
}

static void random_edit(void)
{
    char copy[VALUE_MAX], fresh[VALUE_MAX], spelled[16];
    const char *name = names[next_random(ARRAY_LEN(names))];
    struct str value = {fresh, next_random(next_random(2) ? 20 : VALUE_MAX)}, key = {spelled, strlen(name)};
    memset(fresh, (int)('a' + next_random(26)), value.n);
    for (size_t i = 0; i <= key.n; i++)
        spelled[i] = (char)(name[i] >= 'a' && name[i] <= 'z' && next_random(2) ? name[i] - 32 : name[i]);
    if (h.count != 0 && next_random(2)) {
        struct str own = h.list[next_random(h.count)].value;
        value = str_from(own, next_random((unsigned)own.n + 1));
    }
    size_t same = model_find(name, 0);
    if (same < model_count && next_random(3) == 0)
        key = h.list[same].name;
    memcpy(copy, value.n != 0 ? value.p : "", value.n);
    size_t n = value.n, bytes = model_bytes + key.n + n;
    switch (next_random(8)) {
    case 0:
    case 1:
    case 2: {
        bool fits = bytes <= h.max_bytes && model_count < h.max_count;
        assert_int_equal(headers_add(&h, key, value), fits ? HEADERS_OK : HEADERS_FULL);
        if (fits)
            model_insert(name, copy, n);
        break;
    }
    case 3:
    case 4:
    case 5: {
        for (size_t i = same; i < model_count; i = model_find(name, i + 1))
            bytes -= key.n + model[i].n;
        bool fits = bytes <= h.max_bytes && (same < model_count || model_count < h.max_count);
        enum header_id id = header_id_of(str_of(name));
        enum headers_result result =
            id != HDR_OTHER && next_random(2) ? headers_set_id(&h, id, value) : headers_set(&h, key, value);
        assert_int_equal(result, fits ? HEADERS_OK : HEADERS_FULL);
        if (!fits)
            break;
        if (same == model_count) {
            model_insert(name, copy, n);
            break;
        }
        memcpy(model[same].value, copy, n);
        model[same].n = n;
        for (size_t i = model_find(name, same + 1); i < model_count; i = model_find(name, i))
            model_remove_at(i);
        break;
    }
    case 6: {
        size_t removed = 0;
        for (size_t i = same; i < model_count; i = model_find(name, i), removed++)
            model_remove_at(i);
        assert_int_equal(headers_remove(&h, key), removed);
        break;
    }
    default:
        if (model_count != 0) {
            size_t i = next_random((unsigned)model_count);
            headers_remove_at(&h, i);
            model_remove_at(i);
        }
        break;
    }
}

static void test_against_model(void **state)
{
    for (unsigned run = 1; run <= 60; run++) {
        seed = run;
        model_count = 0;
        for (unsigned i = next_random(20); i > 0; i--) {
            const char *name = names[3 + i % 3];
            headers_add_borrowed(&h, str_of(name), STR("borrowed"), HDR_OTHER);
            model_insert(name, "borrowed", 8);
        }
        for (int op = 0; op < 1500; op++) {
            assert_like_model();
            random_edit();
        }
        assert_like_model();
        assert_int_equal(teardown(state), 0);
        assert_int_equal(setup(state), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ids),
        cmocka_unit_test_setup_teardown(test_borrowed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_edits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_limits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_shrinking_is_allowed_above_the_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_endless_edits_stay_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_values_of_the_map_itself, setup, teardown),
        cmocka_unit_test_setup_teardown(test_copy, setup, teardown),
        cmocka_unit_test_setup_teardown(test_against_model, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
