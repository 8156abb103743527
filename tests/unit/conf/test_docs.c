/* SPDX-License-Identifier: Apache-2.0
 *
 * docs/limits.md has the table of limits as it is in the code; docs/resources.md names every kind and annotation.
 */
#include "../docs_check.h"

#include "conf/limits.h"
#include "conf/resource.h"

static void test_limits(void **state)
{
    (void)state;
    struct strbuf made = {0};
    limits_write_markdown(&made);
    docs_check_made("docs/limits.md", strbuf_str(&made));
    strbuf_free(&made);
}

static void test_kinds(void **state)
{
    (void)state;
    char *text = docs_read("docs/resources.md");
    for (int k = 0; k < KIND_COUNT; k++) {
        char *cell = mem_printf("| %s |", kind_name((enum kind)k));
        if (str_find_str(str_of(text), str_of(cell)) < 0)
            fail_msg("docs/resources.md has no row for kind %s", kind_name((enum kind)k));
        mem_free(cell);
    }
    mem_free(text);
}

/* Every "plugin.weir/..." of the source, and no other. */
static void test_annotations(void **state)
{
    (void)state;
    char *source = docs_read("src/conf/kind_wasm_plugin.c"), *text = docs_read("docs/resources.md");
    struct str rest = str_of(source), prefix = STR("\"plugin.weir/");
    size_t count = 0;
    for (ptrdiff_t at; (at = str_find_str(rest, prefix)) >= 0;) {
        rest = str_from(rest, (size_t)at + 1);
        struct str name = str_upto(rest, (size_t)str_find(rest, '"'));
        if (name.n == prefix.n - 1)
            continue; /* the prefix itself */
        count++;
        char *cell = mem_printf("| `%.*s` |", STR_ARG(name));
        if (str_find_str(str_of(text), str_of(cell)) < 0)
            fail_msg("docs/resources.md has no row for annotation %.*s", STR_ARG(name));
        mem_free(cell);
    }
    size_t rows = 0;
    for (const char *p = text; (p = strstr(p, "| `plugin.weir/")) != NULL; p++)
        rows++;
    assert_int_equal(rows, count);
    mem_free(source);
    mem_free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_limits), cmocka_unit_test(test_kinds),
                                       cmocka_unit_test(test_annotations)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
