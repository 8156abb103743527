/* SPDX-License-Identifier: Apache-2.0
 *
 * Layers that lie: what libarchive would keep in memory for a header is bounded too.
 */
#include "../loop_test.h"

#include <zlib.h>

#include "fetch/layer.h"

enum { MAX = 16 * 1024 * 1024, ENTRIES = 1000 * 1000 };

static void add_header(struct strbuf *b, const char *name, size_t size, char type)
{
    char head[512] = "";
    unsigned sum = 0;
    (void)snprintf(head, 100, "%s", name);
    memcpy(head + 100, "0000644", 8);
    memcpy(head + 108, "0000000", 8);
    memcpy(head + 116, "0000000", 8);
    (void)snprintf(head + 124, 12, "%011zo", size);
    memcpy(head + 136, "00000000000", 12);
    memset(head + 148, ' ', 8);
    head[156] = type;
    memcpy(head + 257, "ustar\00000", 8);
    for (size_t i = 0; i < sizeof head; i++)
        sum += (unsigned char)head[i];
    (void)snprintf(head + 148, 8, "%06o", sum);
    strbuf_add(b, str_span(head, sizeof head));
}
static void pad(struct strbuf *b)
{
    while (b->n % 512 != 0)
        strbuf_addc(b, '\0');
}
static void gzip(struct strbuf *b)
{
    z_stream z = {0};
    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY), Z_OK);
    size_t cap = deflateBound(&z, b->n);
    char *out = mem_alloc(cap);
    z.next_in = (unsigned char *)b->p;
    z.avail_in = (unsigned)b->n;
    z.next_out = (unsigned char *)out;
    z.avail_out = (unsigned)cap;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    strbuf_clear(b);
    strbuf_add(b, str_span(out, z.total_out));
    deflateEnd(&z);
    mem_free(out);
}
static void broken(struct str layer, const char *text)
{
    char *module, *error;
    size_t n;
    assert_int_equal(layer_find_module(layer, MAX, &module, &n, &error), LAYER_BROKEN);
    if (strstr(error, text) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", error, text);
    assert_null(module);
    mem_free(error);
}

/* A sparse file whose map is nearly all of the archive: libarchive makes an entry of a list of each line. */
static void test_sparse_map(void **state)
{
    (void)state;
    static const char pax[] = "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n31 GNU.sparse.name=plugin.wasm\n"
                              "27 GNU.sparse.realsize=100\n";
    struct strbuf b = {0};
    add_header(&b, "pax", sizeof pax - 1, 'x');
    strbuf_add(&b, str_span(pax, sizeof pax - 1));
    pad(&b);
    add_header(&b, "plugin.wasm", 8 + 4 * (size_t)ENTRIES, '0');
    strbuf_printf(&b, "%d\n", ENTRIES);
    for (int i = 0; i < ENTRIES; i++)
        strbuf_add(&b, STR("0\n0\n"));
    pad(&b);
    broken(strbuf_str(&b), "a header that is too large");
    gzip(&b);
    assert_true(b.n < 64 * 1024);
    broken(strbuf_str(&b), "a header that is too large");
    strbuf_free(&b);
}

/* Not packed, and larger than any header may be. */
static void test_plain_and_large(void **state)
{
    (void)state;
    enum { SIZE = 5 * 1024 * 1024 };
    char *module, *error, *bytes = mem_zalloc(SIZE);
    size_t n;
    struct strbuf b = {0};
    memcpy(bytes, "\0asm\1\0\0\0", 8);
    add_header(&b, "first", SIZE, '0');
    strbuf_add(&b, str_span(bytes, SIZE));
    pad(&b);
    add_header(&b, "plugin.wasm", SIZE - 3, '0');
    strbuf_add(&b, str_span(bytes, SIZE - 3));
    pad(&b);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(layer_find_module(strbuf_str(&b), MAX, &module, &n, &error), LAYER_PLUGIN);
        assert_null(error);
        assert_int_equal(n, SIZE - 3);
        assert_memory_equal(module, bytes, n);
        mem_free(module);
        gzip(&b);
    }
    mem_free(bytes);
    strbuf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_sparse_map), cmocka_unit_test(test_plain_and_large)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
