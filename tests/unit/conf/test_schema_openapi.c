/* SPDX-License-Identifier: Apache-2.0
 *
 * Schemas made from the tables: JSON that says what the reader takes.
 */
#include "conf_test.h"

#include "conf/schema_openapi.h"
#include "conf/ydoc.h"

static const struct node *node_at(const struct node *n, const char *path)
{
    struct str rest = str_of(path);
    while (rest.p != NULL && n != NULL) {
        char *name = str_dup(str_split(&rest, '.'));
        n = node_get(n, name);
        mem_free(name);
    }
    return n;
}

static void test_every_kind(void **state)
{
    (void)state;
    for (int k = 0; k < KIND_COUNT; k++) {
        struct strbuf b = {0};
        schema_write_openapi((enum kind)k, &b);
        struct conf_memory *m = memory_new();
        struct ydoc_stream *s = ydoc_open(strbuf_str(&b));
        struct ydoc y;
        assert_int_equal(ydoc_next(s, m, &y), YDOC_DOCUMENT);
        assert_int_equal(y.problem_count, 0);
        assert_non_null(node_at(y.root, "properties.status"));
        assert_non_null(schema_kind_description((enum kind)k));
        ydoc_close(s);
        memory_free(m);
        strbuf_free(&b);
    }
}

static void test_wasm_plugin(void **state)
{
    (void)state;
    struct strbuf b = {0};
    schema_write_openapi(KIND_WASM_PLUGIN, &b);
    struct conf_memory *m = memory_new();
    struct ydoc_stream *s = ydoc_open(strbuf_str(&b));
    struct ydoc y;
    assert_int_equal(ydoc_next(s, m, &y), YDOC_DOCUMENT);
    const struct node *spec = node_at(y.root, "properties.spec");
    assert_int_equal(node_at(spec, "properties.phase.enum")->u.list.count, 4);
    assert_int_equal(node_at(spec, "properties.url.minLength")->u.integer, 1);
    assert_int_equal(node_at(spec, "properties.priority.maximum")->u.integer, INT32_MAX);
    assert_true(str_is(node_at(spec, "properties.sha256.pattern")->u.string, "(^$|^[a-f0-9]{64}$)"));
    assert_true(node_at(spec, "properties.match.items.properties.ports") != NULL);
    assert_true(str_is(node_at(spec, "required")->u.list.items[0]->u.string, "url"));
    ydoc_close(s);
    memory_free(m);
    strbuf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_kind),
        cmocka_unit_test(test_wasm_plugin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
