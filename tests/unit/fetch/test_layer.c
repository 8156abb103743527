/* SPDX-License-Identifier: Apache-2.0
 *
 * Modules in tars as people and tools make them (written here with libarchive), and in those that lie.
 */
#include "../loop_test.h"

#include <archive.h>
#include <archive_entry.h>

#include "fetch/image.h"
#include "fetch/layer.h"

enum { MAX = 64 * 1024 };
static const char A[] = "\0asm\1\0\0\0 a", B[] = "\0asm\1\0\0\0 b";

struct file {
    const char *name, *bytes;
    size_t n;
    const char *link; /* hard link to */
    unsigned type;    /* 0: regular */
};
#define FILE_A(name)                                                                                                   \
    {                                                                                                                  \
        name, A, sizeof A - 1, NULL, 0                                                                                 \
    }
#define FILE_B(name)                                                                                                   \
    {                                                                                                                  \
        name, B, sizeof B - 1, NULL, 0                                                                                 \
    }

static char *packed;
static size_t packed_n;

static void pack(const struct file *files, size_t count, int filter)
{
    struct archive *a = archive_write_new();
    mem_free(packed);
    packed = mem_alloc(4 * 1024 * 1024);
    archive_write_set_format_pax_restricted(a);
    archive_write_set_bytes_in_last_block(a, 1);
    assert_int_equal(archive_write_add_filter(a, filter), ARCHIVE_OK);
    assert_int_equal(archive_write_open_memory(a, packed, 4 * 1024 * 1024, &packed_n), ARCHIVE_OK);
    for (size_t i = 0; i < count; i++) {
        struct archive_entry *e = archive_entry_new();
        archive_entry_set_pathname(e, files[i].name);
        archive_entry_set_filetype(e, files[i].type != 0 ? files[i].type : AE_IFREG);
        archive_entry_set_perm(e, 0644);
        archive_entry_set_size(e, (la_int64_t)files[i].n);
        if (files[i].type == AE_IFLNK)
            archive_entry_set_symlink(e, "/etc/passwd");
        if (files[i].link != NULL)
            archive_entry_set_hardlink(e, files[i].link);
        assert_int_equal(archive_write_header(a, e), ARCHIVE_OK);
        if (files[i].n > 0)
            assert_int_equal(archive_write_data(a, files[i].bytes, files[i].n), files[i].n);
        archive_entry_free(e);
    }
    assert_int_equal(archive_write_close(a), ARCHIVE_OK);
    archive_write_free(a);
}

static void finds(enum layer_found want, const char *bytes, size_t n, const char *text)
{
    char *module, *error;
    size_t module_n;
    enum layer_found found = layer_find_module(str_span(packed, packed_n), MAX, &module, &module_n, &error);
    if (found != want)
        fail_msg("found %d, not %d (%s)", found, want, error != NULL ? error : "no error");
    if (bytes != NULL) {
        assert_int_equal(module_n, n);
        assert_memory_equal(module, bytes, n);
        assert_null(error);
    } else {
        assert_null(module);
        if (strstr(error, text) == NULL)
            fail_msg("\"%s\" does not say \"%s\"", error, text);
    }
    mem_free(module);
    mem_free(error);
}
static void finds_a(enum layer_found want) { finds(want, A, sizeof A - 1, NULL); }
#define PACK(filter, ...)                                                                                              \
    do {                                                                                                               \
        const struct file files[] = {__VA_ARGS__};                                                                     \
        pack(files, ARRAY_LEN(files), filter);                                                                         \
    } while (0)

static void test_packings(void **state)
{
    (void)state;
    static const int filters[] = {ARCHIVE_FILTER_NONE, ARCHIVE_FILTER_GZIP, ARCHIVE_FILTER_ZSTD};
    for (size_t i = 0; i < ARRAY_LEN(filters); i++) {
        PACK(filters[i], FILE_A("plugin.wasm"));
        finds_a(LAYER_PLUGIN);
    }
    packed_n = sizeof A - 1;
    memcpy(packed, A, packed_n);
    finds_a(LAYER_PLUGIN);
    PACK(ARCHIVE_FILTER_XZ, FILE_A("plugin.wasm")); /* not enabled */
    finds(LAYER_BROKEN, NULL, 0, "");
}

static void test_names(void **state)
{
    (void)state;
    PACK(ARCHIVE_FILTER_NONE, FILE_B("a.wasm"), FILE_A("./deep/down/plugin.wasm"), FILE_B("plugin.wasm"));
    finds_a(LAYER_PLUGIN);
    PACK(ARCHIVE_FILTER_NONE, FILE_A("/plugin.wasm"));
    finds_a(LAYER_PLUGIN);
    PACK(ARCHIVE_FILTER_NONE, FILE_A("../../plugin.wasm"));
    finds_a(LAYER_PLUGIN);
    PACK(ARCHIVE_FILTER_NONE, {"README.md", "hi", 2, NULL, 0}, FILE_A("opt/filter.wasm"));
    finds_a(LAYER_ONLY);
    PACK(ARCHIVE_FILTER_NONE, FILE_A("a.wasm"), FILE_B("b.wasm"));
    finds(LAYER_NOTHING, NULL, 0, "holds 2 files named *.wasm");
    PACK(ARCHIVE_FILTER_NONE, FILE_A("myplugin.wasmx"), FILE_A(".wh.plugin.wasm"), FILE_A("plugin.wasm/x"));
    finds(LAYER_NOTHING, NULL, 0, "holds no plugin.wasm");
    PACK(ARCHIVE_FILTER_NONE, {"plugin.wasm", NULL, 0, NULL, AE_IFLNK}, {"x/plugin.wasm", NULL, 0, "etc/passwd", 0},
         {"y/plugin.wasm", NULL, 0, NULL, AE_IFDIR}, {"z/plugin.wasm", NULL, 0, NULL, AE_IFIFO});
    finds(LAYER_NOTHING, NULL, 0, "holds no plugin.wasm");
    PACK(ARCHIVE_FILTER_NONE, {"plugin.wasm", "no module", 9, NULL, 0});
    finds(LAYER_BROKEN, NULL, 0, "plugin.wasm that is not a Wasm module");
    PACK(ARCHIVE_FILTER_NONE, {"x.wasm", "", 0, NULL, 0});
    finds(LAYER_BROKEN, NULL, 0, "not a Wasm module");
    packed_n = 0;
    finds(LAYER_NOTHING, NULL, 0, "holds no plugin.wasm");
}

static void test_bounds(void **state)
{
    (void)state;
    char *big = mem_zalloc(3 * 1024 * 1024);
    memcpy(big, A, 8);
    PACK(ARCHIVE_FILTER_GZIP, {"plugin.wasm", big, MAX, NULL, 0});
    finds(LAYER_PLUGIN, big, MAX, NULL);
    PACK(ARCHIVE_FILTER_GZIP, {"plugin.wasm", big, MAX + 1, NULL, 0});
    finds(LAYER_BROKEN, NULL, 0, "larger than");
    PACK(ARCHIVE_FILTER_GZIP, {"other", big, 3 * 1024 * 1024, NULL, 0},
         FILE_A("plugin.wasm")); /* a bomb to be passed over */
    finds(LAYER_BROKEN, NULL, 0, "too large when unpacked");
    mem_free(big);
}

static void test_damage(void **state)
{
    (void)state;
    static const int filters[] = {ARCHIVE_FILTER_NONE, ARCHIVE_FILTER_GZIP, ARCHIVE_FILTER_ZSTD};
    char *module, *error;
    size_t n;
    for (size_t i = 0; i < ARRAY_LEN(filters); i++) {
        PACK(filters[i], {"first", "x", 1, NULL, 0}, FILE_A("plugin.wasm"));
        size_t whole = packed_n;
        for (size_t cut = 1; cut < whole && cut < 1600; cut += 7) {
            /* A copy of its own size, so that a read beyond it is seen. */
            char *part = mem_alloc(cut);
            memcpy(part, packed, cut);
            enum layer_found found = layer_find_module(str_span(part, cut), MAX, &module, &n, &error);
            if (found == LAYER_PLUGIN)
                assert_memory_equal(module, A, sizeof A - 1);
            else
                assert_null(module);
            mem_free(module);
            mem_free(error);
            mem_free(part);
        }
    }
    PACK(ARCHIVE_FILTER_NONE, FILE_A("plugin.wasm"));
    memcpy(packed + 124, "77777777777", 11); /* the size; and the checksum made right again */
    memset(packed + 148, ' ', 8);
    unsigned sum = 0;
    for (size_t i = 0; i < 512; i++)
        sum += (unsigned char)packed[i];
    snprintf(packed + 148, 8, "%06o", sum);
    finds(LAYER_BROKEN, NULL, 0, "");
}

static void test_what_push_makes(void **state)
{
    (void)state;
    struct image image;
    for (size_t n = sizeof A - 1; n < 4000; n += 501) {
        char *wasm = mem_zalloc(n);
        memcpy(wasm, A, sizeof A - 1);
        image_make(&image, IMAGE_TAR, str_span(wasm, n), NULL, 0);
        assert_true(image.layer.n + 1 < 4 * 1024 * 1024);
        memcpy(packed, image.layer.bytes, packed_n = image.layer.n);
        finds(LAYER_PLUGIN, wasm, n, NULL);
        image_free(&image);
        image_make(&image, IMAGE_ARTIFACT, str_span(wasm, n), NULL, 0);
        memcpy(packed, image.layer.bytes, packed_n = image.layer.n);
        finds(LAYER_PLUGIN, wasm, n, NULL);
        image_free(&image);
        mem_free(wasm);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_packings), cmocka_unit_test(test_names),
                                       cmocka_unit_test(test_bounds), cmocka_unit_test(test_damage),
                                       cmocka_unit_test(test_what_push_makes)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    mem_free(packed);
    return failed;
}
