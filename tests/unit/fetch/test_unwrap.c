/* SPDX-License-Identifier: Apache-2.0
 *
 * gzip and tar around a module, in every order, damaged, cut off and lying about sizes.
 */
#include "../loop_test.h"

#include <zlib.h>

#include "fetch/unwrap.h"

static const char MODULE[] = "\0asm\1\0\0\0 and the rest of it";
enum { MODULE_BYTES = sizeof MODULE - 1, MAX = 64 * 1024 };

struct bytes {
    char *p;
    size_t n;
};

static struct bytes plain(void) { return (struct bytes){mem_strndup(MODULE, MODULE_BYTES), MODULE_BYTES}; }

static struct bytes gzip(struct bytes in /* taken */)
{
    struct bytes out = {.p = mem_alloc(in.n + 1024)};
    z_stream z = {.next_in = (unsigned char *)in.p,
                  .avail_in = (unsigned)in.n,
                  .next_out = (unsigned char *)out.p,
                  .avail_out = (unsigned)in.n + 1024};
    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    out.n = z.total_out;
    deflateEnd(&z);
    mem_free(in.p);
    return out;
}

static void tar_add(struct strbuf *b, const char *name, char type, const char *size, struct bytes data)
{
    char head[512] = {0};
    snprintf(head, 100, "%s", name);
    snprintf(head + 100, 8, "0000644");
    snprintf(head + 124, 12, "%s", size);
    head[156] = type;
    memcpy(head + 257, "ustar", 6);
    strbuf_add(b, str_span(head, sizeof head));
    strbuf_add(b, str_span(data.p, data.n));
    while (b->n % 512 != 0)
        strbuf_addc(b, '\0');
}

static struct bytes tar(struct bytes in /* taken */)
{
    struct strbuf b = {0};
    char size[12], pax[] = "30 mtime=1350244992.023960108\n";
    snprintf(size, sizeof size, "%011zo", in.n);
    tar_add(&b, "./PaxHeaders/x", 'x', "00000000036", (struct bytes){pax, 30});
    tar_add(&b, "dir/", '5', "00000000000", (struct bytes){0});
    tar_add(&b, "dir/any-name", '0', size, in);
    tar_add(&b, "dir/second", '0', size, in);
    mem_free(in.p);
    return (struct bytes){b.p, b.n};
}

static void becomes_module(struct bytes in)
{
    char *error = module_unwrap(&in.p, &in.n, MAX);
    if (error != NULL)
        fail_msg("%s", error);
    assert_int_equal(in.n, MODULE_BYTES);
    assert_memory_equal(in.p, MODULE, MODULE_BYTES);
    mem_free(in.p);
}
static void fails(struct bytes in, const char *why)
{
    char *error = module_unwrap(&in.p, &in.n, MAX);
    assert_non_null(error);
    if (strstr(error, why) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", error, why);
    mem_free(error);
    mem_free(in.p);
}

static void test_every_order(void **state)
{
    (void)state;
    becomes_module(plain());
    becomes_module(gzip(plain()));
    becomes_module(tar(plain()));
    becomes_module(gzip(tar(plain())));
    becomes_module(tar(gzip(plain())));
    becomes_module(gzip(tar(gzip(plain()))));
    fails(gzip(gzip(gzip(gzip(gzip(plain()))))), "too deep");
}

static void test_not_packed_stays(void **state)
{
    (void)state;
    static const char *const texts[] = {"", "\x1f", "\x1f\x8b", "hello"};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        char *p = mem_strdup(texts[i]);
        size_t n = strlen(texts[i]);
        assert_null(module_unwrap(&p, &n, MAX));
        assert_int_equal(n, strlen(texts[i]));
        mem_free(p);
    }
}

static void test_members_follow_each_other(void **state)
{
    (void)state;
    struct bytes a = gzip((struct bytes){mem_strndup(MODULE, 10), 10}),
                 b = gzip((struct bytes){mem_strndup(MODULE + 10, MODULE_BYTES - 10), MODULE_BYTES - 10});
    struct strbuf both = {0};
    strbuf_add(&both, str_span(a.p, a.n));
    strbuf_add(&both, str_span(b.p, b.n));
    strbuf_add(&both, str_span("\0\0\0\0", 4)); /* padding */
    mem_free(a.p);
    mem_free(b.p);
    becomes_module((struct bytes){both.p, both.n});
}

static void test_damage(void **state)
{
    (void)state;
    for (size_t cut = 18; cut < 40; cut++) {
        struct bytes g = gzip(plain());
        if (cut < g.n)
            g.n = cut;
        else
            g.p[g.n - 5] ^= 1; /* the checksum */
        fails(g, "gzip file");
    }
    for (size_t cut = 512; cut < 512 * 4; cut += 100) {
        struct bytes t = tar(plain());
        t.n = cut;
        fails(t, "tar archive");
    }
}

static void test_lying_sizes(void **state)
{
    (void)state;
    static const char *const sizes[] = {
        "77777777777", "00000010000", "", "\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "-0000000001", "0000000003x"};
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        struct strbuf b = {0};
        struct bytes data = plain();
        tar_add(&b, "x", '0', sizes[i], data);
        mem_free(data.p);
        fails((struct bytes){b.p, b.n}, "damaged tar");
    }
}

static void test_bomb(void **state)
{
    (void)state;
    struct bytes zeros = {mem_zalloc(16 * MAX), 16 * MAX};
    fails(gzip(zeros), "too large");
    struct bytes exact = {mem_zalloc(MAX), MAX}, over = {mem_zalloc(MAX + 1), MAX + 1};
    struct bytes packed = gzip(exact);
    assert_null(module_unwrap(&packed.p, &packed.n, MAX));
    assert_int_equal(packed.n, MAX);
    mem_free(packed.p);
    fails(gzip(over), "too large");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_order),
        cmocka_unit_test(test_not_packed_stays),
        cmocka_unit_test(test_members_follow_each_other),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_lying_sizes),
        cmocka_unit_test(test_bomb),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
