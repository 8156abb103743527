/* SPDX-License-Identifier: Apache-2.0
 *
 * The slice queue, mostly by holding random operations on several buffers of one pool against flat byte arrays: what
 * goes wrong here is sharing, which shows only when buffers have exchanged slices for a while.
 */
#include "base/buf.h"

#include <setjmp.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/budget.h"

static struct chunk_pool *pool;

static int setup(void **state)
{
    (void)state;
    pool = chunk_pool_new(8);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    chunk_pool_free(pool); /* asserts that no chunk was leaked */
    return 0;
}

static void assert_holds(const struct buf *b, struct str expected)
{
    static char flat[1 << 20];
    assert_int_equal(b->n, expected.n);
    assert_true(b->n <= sizeof(flat));
    buf_copy_out(b, 0, b->n, flat);
    assert_true(str_eq(str_span(flat, b->n), expected));
}

static void test_chunks_are_reused_and_charged(void **state)
{
    (void)state;
    uint64_t before = budget_used();
    struct chunk *chunks[10];
    for (int i = 0; i < 10; i++)
        chunks[i] = chunk_get(pool);
    assert_int_equal(budget_used() - before, 10 * (sizeof(struct chunk) + CHUNK_SIZE));
    chunk_ref(chunks[0]);
    for (int i = 0; i < 10; i++)
        chunk_unref(chunks[i]);
    chunk_unref(chunks[0]);
    assert_int_equal(budget_used() - before, 8 * (sizeof(struct chunk) + CHUNK_SIZE)); /* keep */
    struct chunk *again = chunk_get(pool);
    assert_ptr_equal(again, chunks[8]); /* last in, first out: warm */
    assert_int_equal(again->used, 0);
    chunk_unref(again);
    chunk_pool_trim(pool, 2);
    assert_int_equal(budget_used() - before, 2 * (sizeof(struct chunk) + CHUNK_SIZE));
}

static void test_head_and_small_body_are_one_slice(void **state)
{
    (void)state;
    struct buf in, out;
    buf_init(&in, pool);
    buf_init(&out, pool);
    static char head[300], body[36];
    memset(head, 'h', sizeof(head));
    memset(body, 'b', sizeof(body));
    buf_append(&in, str_span("HTTP/1.1 200 OK\r\n\r\n", 19));
    buf_append(&in, str_span(body, sizeof(body)));
    buf_consume(&in, 19);
    for (int i = 0; i < 3; i++)
        buf_append(&out, str_span(head + 100 * i, 100));
    buf_move(&out, &in, sizeof(body));
    struct iovec iov[4];
    assert_int_equal(buf_iovec(&out, iov, 4), 1);
    assert_int_equal(iov[0].iov_len, 336);
    assert_int_equal(buf_front(&out).n, 336);
    assert_int_equal(in.n, 0);
    assert_int_equal(in.count, 0); /* an empty buf holds no chunk */
    buf_fini(&in);
    buf_fini(&out);
}

static void test_large_pieces_are_not_copied(void **state)
{
    (void)state;
    struct buf a, b;
    buf_init(&a, pool);
    buf_init(&b, pool);
    static char bytes[10000];
    buf_append(&a, str_span(bytes, sizeof(bytes)));
    buf_append(&b, STR("head"));
    const char *at = buf_front(&a).p;
    buf_move(&b, &a, 6000);
    buf_move(&b, &a, 4000);
    struct iovec iov[4];
    assert_int_equal(buf_iovec(&b, iov, 4), 2); /* the two halves touch: one slice again */
    assert_ptr_equal(iov[1].iov_base, at);
    assert_int_equal(iov[1].iov_len, 10000);
    buf_fini(&a);
    buf_fini(&b);
}

static void test_single_bytes_do_not_pile_up_slices(void **state)
{
    (void)state;
    /* As a chunked body with one byte in each chunk arrives: "1\r\nx\r\n". */
    struct buf in, out;
    buf_init(&in, pool);
    buf_init(&out, pool);
    for (int i = 0; i < 50000; i++) {
        buf_append(&in, STR("1\r\nx\r\n"));
        buf_consume(&in, 3);
        buf_move(&out, &in, 1);
        buf_consume(&in, 2);
    }
    assert_int_equal(out.n, 50000);
    assert_true(out.count <= 8);
    buf_fini(&in);
    buf_fini(&out);
}

static void test_reserve(void **state)
{
    (void)state;
    struct buf b;
    size_t room;
    buf_init(&b, pool);
    char *p = buf_reserve(&b, 1, &room);
    assert_int_equal(room, CHUNK_SIZE);
    assert_int_equal(buf_front(&b).n, 0);
    buf_commit(&b, 0); /* nothing came: the chunk goes back */
    assert_int_equal(b.count, 0);
    p = buf_reserve(&b, 100, &room);
    memcpy(p, "abc", 3);
    buf_commit(&b, 3);
    char *more = buf_reserve(&b, CHUNK_SIZE - 3, &room);
    assert_ptr_equal(more, p + 3);
    buf_commit(&b, 0);
    assert_holds(&b, STR("abc"));
    more = buf_reserve(&b, CHUNK_SIZE, &room); /* does not fit: another chunk */
    assert_int_equal(room, CHUNK_SIZE);
    memcpy(more, "def", 3);
    buf_commit(&b, 3);
    assert_holds(&b, STR("abcdef"));
    (void)buf_reserve(&b, 10, &room);
    buf_append(&b, STR("ghi")); /* a reservation nobody committed is forgotten */
    assert_holds(&b, STR("abcdefghi"));
    buf_fini(&b);
}

static void test_shared_chunk_is_never_overwritten(void **state)
{
    (void)state;
    struct buf a, b;
    buf_init(&a, pool);
    buf_init(&b, pool);
    buf_append(&a, STR("0123456789"));
    buf_append_slice(&b, a.slices[0].chunk, str_upto(buf_front(&a), 5));
    buf_append(&b, STR("bbb")); /* not newest: must not write over "56789" */
    buf_append(&a, STR("aaa"));
    assert_holds(&a, STR("0123456789aaa"));
    assert_holds(&b, STR("01234bbb"));
    buf_append(&b, STR("B"));
    buf_append(&a, STR("A"));
    assert_holds(&a, STR("0123456789aaaA"));
    assert_holds(&b, STR("01234bbbB"));
    buf_fini(&a);
    buf_fini(&b);
}

static void test_append_slice_written_by_the_caller(void **state)
{
    (void)state;
    struct buf a;
    buf_init(&a, pool);
    struct chunk *c = chunk_get(pool);
    memcpy(c->data, "caller", 6);
    buf_append_slice(&a, c, str_span(c->data, 6));
    chunk_unref(c);
    buf_append(&a, STR("+"));
    assert_holds(&a, STR("caller+"));
    buf_fini(&a);
}

static void test_pullup(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, pool);
    static char bytes[CHUNK_SIZE - 4];
    memset(bytes, 'x', sizeof(bytes));
    buf_append(&b, str_span(bytes, sizeof(bytes)));
    buf_append(&b, STR("GET / HTTP/1.1\r\n"));
    buf_consume(&b, sizeof(bytes));
    assert_int_equal(buf_front(&b).n, 4);
    struct str head = buf_pullup(&b, 16);
    assert_true(str_eq(head, STR("GET / HTTP/1.1\r\n")));
    assert_ptr_equal(buf_pullup(&b, 10).p, head.p);
    assert_null(buf_pullup(&b, 0).p);
    buf_fini(&b);
}

static void test_splice_aliases(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, pool);
    buf_append(&b, STR("hello world"));
    struct str world = str_from(buf_front(&b), 6);
    buf_splice(&b, 0, 11, world); /* its own bytes, which go away in the same call */
    assert_holds(&b, STR("world"));
    buf_splice(&b, 5, 0, STR("!"));
    buf_splice(&b, 0, 0, STR("the "));
    assert_holds(&b, STR("the world!"));
    buf_splice(&b, 4, 5, STR_NONE);
    assert_holds(&b, STR("the !"));
    buf_fini(&b);
}

static void test_ring_memory_is_given_back(void **state)
{
    (void)state;
    struct buf a, b;
    buf_init(&a, pool);
    buf_init(&b, pool);
    buf_append(&a, STR("0123456789"));
    struct chunk *c = a.slices[0].chunk;
    for (int i = 0; i < 1000; i++)
        buf_append_slice(&b, c, str_span(c->data + i % 2 * 5, 1));
    assert_int_equal(b.count, 1000);
    for (int i = 0; i < 1000; i++)
        buf_consume(&b, 1);
    assert_ptr_equal(b.slices, b.inline_slices);
    buf_fini(&a);
    buf_fini(&b);
}

/* ---- random operations against a model ---- */

enum { BUFS = 3, MODEL_MAX = 200000 };

static uint64_t seed;

static unsigned next_random(unsigned below)
{
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (unsigned)(seed >> 33) % below;
}

static struct {
    char p[MODEL_MAX * 2];
    size_t n;
} model[BUFS];

static void model_splice(int i, size_t start, size_t size, const char *data, size_t n)
{
    memmove(model[i].p + start + n, model[i].p + start + size, model[i].n - start - size);
    if (n != 0)
        memcpy(model[i].p + start, data, n);
    model[i].n = model[i].n - size + n;
}

static size_t random_size(void)
{
    static const unsigned bounds[] = {4, 40, 600, 5000, 20000, 40000};
    return next_random(bounds[next_random(ARRAY_LEN(bounds))]);
}

static size_t random_upto(size_t n)
{
    size_t size = next_random(4) == 0 ? n : random_size();
    return size < n ? size : n;
}

static void random_op(struct buf bufs[BUFS])
{
    static char fresh[40000], taken[MODEL_MAX * 2];
    int i = (int)next_random(BUFS), j = (i + 1 + (int)next_random(BUFS - 1)) % BUFS;
    struct buf *b = &bufs[i], *other = &bufs[j];
    size_t n = random_size(), room;
    for (size_t at = 0; at < n; at++)
        fresh[at] = (char)next_random(256);
    switch (next_random(11)) {
    case 0:
        buf_append(b, str_span(fresh, n));
        model_splice(i, model[i].n, 0, fresh, n);
        break;
    case 1: {
        if (n > CHUNK_SIZE)
            n = CHUNK_SIZE;
        char *p = buf_reserve(b, n, &room);
        assert_true(room >= n);
        memcpy(p, fresh, n);
        buf_commit(b, n);
        model_splice(i, model[i].n, 0, fresh, n);
        break;
    }
    case 2:
    case 3:
        n = random_upto(other->n);
        buf_move(b, other, n);
        model_splice(i, model[i].n, 0, model[j].p, n);
        model_splice(j, 0, n, NULL, 0);
        break;
    case 4:
        buf_prepend(b, other);
        model_splice(i, 0, 0, model[j].p, model[j].n);
        model[j].n = 0;
        break;
    case 5:
    case 6:
        n = random_upto(b->n);
        buf_consume(b, n);
        model_splice(i, 0, n, NULL, 0);
        break;
    case 7: {
        size_t start = next_random((unsigned)b->n + 1), size = random_upto(b->n - start);
        buf_splice(b, start, size, str_span(fresh, n));
        model_splice(i, start, size, fresh, n);
        break;
    }
    case 8:
        n = random_upto(b->n < CHUNK_SIZE ? b->n : CHUNK_SIZE);
        assert_true(str_eq(buf_pullup(b, n), str_span(model[i].p, n)));
        break;
    case 9: {
        struct str front = buf_front(other); /* the same bytes in two buffers */
        if (front.n == 0)
            break;
        struct chunk *c = other->slices[other->first].chunk;
        front = str_from(front, next_random((unsigned)front.n));
        memcpy(taken, front.p, front.n);
        buf_append_slice(b, c, front);
        model_splice(i, model[i].n, 0, taken, front.n);
        break;
    }
    default:
        buf_clear(b);
        model[i].n = 0;
        break;
    }
}

static void test_against_model(void **state)
{
    (void)state;
    struct buf bufs[BUFS];
    for (seed = 1; seed < 1000000;) {
        uint64_t began = seed;
        for (int i = 0; i < BUFS; i++) {
            buf_init(&bufs[i], pool);
            model[i].n = 0;
        }
        for (int op = 0; op < 300; op++) {
            random_op(bufs);
            for (int i = 0; i < BUFS; i++) {
                assert_holds(&bufs[i], str_span(model[i].p, model[i].n));
                if (bufs[i].n > MODEL_MAX / 3) {
                    buf_clear(&bufs[i]);
                    model[i].n = 0;
                }
            }
        }
        for (int i = 0; i < BUFS; i++)
            buf_fini(&bufs[i]);
        seed = began + 20000;
    }
}

/* Each may be consumed and appended to without the other noticing. */
static void test_shared_bytes_are_in_both(void **state)
{
    (void)state;
    static char text[3 * CHUNK_SIZE];
    memset(text, 'x', sizeof(text));
    struct buf a, b;
    buf_init(&a, pool);
    buf_init(&b, pool);
    buf_append(&a, str_span(text, sizeof(text)));
    uint64_t before = budget_used();
    buf_share(&b, &a);
    assert_int_equal(budget_used(), before);
    buf_append(&a, STR("one"));
    buf_append(&b, STR("two"));
    buf_consume(&a, sizeof(text));
    assert_holds(&a, STR("one"));
    assert_int_equal(b.n, sizeof(text) + 3);
    buf_consume(&b, sizeof(text));
    assert_holds(&b, STR("two"));
    buf_share(&b, &a);
    buf_clear(&a);
    assert_holds(&b, STR("twoone"));
    buf_fini(&a);
    buf_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_chunks_are_reused_and_charged, setup, teardown),
        cmocka_unit_test_setup_teardown(test_head_and_small_body_are_one_slice, setup, teardown),
        cmocka_unit_test_setup_teardown(test_large_pieces_are_not_copied, setup, teardown),
        cmocka_unit_test_setup_teardown(test_single_bytes_do_not_pile_up_slices, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reserve, setup, teardown),
        cmocka_unit_test_setup_teardown(test_shared_chunk_is_never_overwritten, setup, teardown),
        cmocka_unit_test_setup_teardown(test_append_slice_written_by_the_caller, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pullup, setup, teardown),
        cmocka_unit_test_setup_teardown(test_splice_aliases, setup, teardown),
        cmocka_unit_test_setup_teardown(test_shared_bytes_are_in_both, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ring_memory_is_given_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_against_model, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
