/* SPDX-License-Identifier: Apache-2.0
 *
 * The module reader against what wat2wasm makes, and against bytes that no tool would make.
 */
#include "guest.h"
#include "wasm/vm.h"

static struct strbuf assemble(void) { return guest_assemble(WEIR_SOURCE_DIR "/tests/unit/wasm/info.wat", NULL); }

static void test_everything(void **state)
{
    (void)state;
    struct strbuf wasm = assemble();
    struct module_info info;
    char *error = NULL;
    assert_true(module_info_parse(strbuf_str(&wasm), &info, &error));
    assert_string_equal(info.name, "info_module");
    assert_int_equal(info.import_count, 2);
    assert_true(str_is(info.imports[0].module, "env"));
    assert_true(str_is(info.imports[0].name, "proxy_log"));
    assert_int_equal(info.imports[0].kind, 'f');
    assert_string_equal(info.imports[0].type, "(i32 i32 i32) -> (i32)");
    assert_string_equal(info.imports[1].type, "(i32) -> ()");
    assert_int_equal(info.memory_min_pages, 2);
    assert_int_equal(info.memory_max_pages, 100);
    assert_int_equal(info.table_min, 7);
    static const struct {
        const char *name, *type;
        char kind;
    } exports[] = {{"memory", NULL, 'm'},
                   {"setting", NULL, 'g'},
                   {"proxy_abi_version_0_2_1", "() -> ()", 'f'},
                   {"all", "(i32 i64 f32 f64 v128 funcref externref) -> (i64)", 'f'},
                   {"log", "(i32 i32 i32) -> (i32)", 'f'},
                   {"again", "(i32) -> ()", 'f'}};
    assert_int_equal(info.export_count, ARRAY_LEN(exports));
    for (size_t i = 0; i < ARRAY_LEN(exports); i++) {
        assert_true(str_is(info.exports[i].name, exports[i].name));
        assert_int_equal(info.exports[i].kind, exports[i].kind);
        if (exports[i].type != NULL)
            assert_string_equal(info.exports[i].type, exports[i].type);
        else
            assert_null(info.exports[i].type);
    }
    size_t sum = 8;
    for (size_t i = 0; i < info.section_count; i++)
        sum += info.sections[i].bytes;
    assert_true(str_is(info.sections[0].name, "type"));
    assert_true(str_is(info.sections[info.section_count - 1].name, "name"));
    assert_true(sum < wasm.n && sum > wasm.n - 7 * info.section_count);
    module_info_free(&info);
    strbuf_free(&wasm);
}

static void test_every_truncation_is_refused_or_shorter(void **state)
{
    (void)state;
    struct strbuf wasm = assemble();
    for (size_t n = 0; n < wasm.n; n++) {
        char *copy = mem_strndup(wasm.p, n); /* of its own, so that a sanitizer sees reads past the end */
        struct module_info info;
        char *error = NULL;
        if (module_info_parse(str_span(copy, n), &info, &error)) {
            module_info_free(&info);
        } else {
            assert_non_null(error);
            assert_int_equal(info.export_count, 0);
            mem_free(error);
        }
        mem_free(copy);
    }
    strbuf_free(&wasm);
}

static void assert_refused(struct str wasm, const char *expected)
{
    struct module_info info;
    char *error = NULL;
    assert_false(module_info_parse(wasm, &info, &error));
    assert_string_equal(error, expected);
    mem_free(error);
}

#define HEADER "\0asm\1\0\0\0"

static void test_refusals(void **state)
{
    (void)state;
    assert_refused(STR_NONE, "not a WebAssembly module");
    assert_refused(STR("#!/bin/sh\n"), "not a WebAssembly module");
    assert_refused(STR("\0asm\x0d\0\1\0"), "a WebAssembly component; a core module is needed");
    assert_refused(STR("\0asm\2\0\0\0"), "unknown version of the WebAssembly binary format");
    assert_refused(STR(HEADER "\x01\x05\x01"), "malformed module: type section at byte 8: length past the end");
    assert_refused(STR(HEADER "\x01\x01\x7f"), "malformed module: type section at byte 8: count past the end");
    assert_refused(STR(HEADER "\x01\x04\x01\x50\x00\x00"),
                   "malformed module: type section at byte 8: type that is no function type");
    assert_refused(STR(HEADER "\x01\x05\x01\x60\x00\x00\x00"),
                   "malformed module: type section at byte 8: bytes left over");
    assert_refused(STR(HEADER "\x01\x01\x00\x01\x01\x00"),
                   "malformed module: type section at byte 11: section appears twice");
    assert_refused(STR(HEADER "\x63\x00"), "malformed module: unknown section at byte 8: unknown section");
    assert_refused(STR(HEADER "\x03\x02\x01\x05"),
                   "malformed module: function section at byte 8: type index out of range");
    assert_refused(STR(HEADER "\x02\x05\x01\x01\xff\x01\x78\x00"),
                   "malformed module: import section at byte 8: name is not UTF-8");
    assert_refused(STR(HEADER "\x07\x05\x01\x01\x78\x00\x09"),
                   "malformed module: export section at byte 8: export of something that does not exist");
    assert_refused(STR(HEADER "\x02\xff\xff\xff\xff\x7f"),
                   "malformed module: import section at byte 8: number too large");
    assert_refused(STR(HEADER "\x02\xff\xff\xff\xff\xff\xff"),
                   "malformed module: import section at byte 8: number too large");
}

static void test_smallest_and_custom(void **state)
{
    (void)state;
    struct module_info info;
    char *error = NULL;
    assert_true(module_info_parse(STR(HEADER), &info, &error));
    assert_int_equal(info.section_count, 0);
    assert_null(info.name);
    module_info_free(&info);
    /* A broken name section is no error. */
    assert_true(module_info_parse(STR(HEADER "\x00\x08\x04name\x00\x7f\x01"), &info, &error));
    assert_null(info.name);
    assert_int_equal(info.section_count, 1);
    module_info_free(&info);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_everything),
        cmocka_unit_test(test_every_truncation_is_refused_or_shorter),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_smallest_and_custom),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
