/* SPDX-License-Identifier: Apache-2.0
 *
 * docs/end-reasons.md, docs/metrics.md and the access log operators of docs/operations.md against the code.
 */
#include "../docs_check.h"

#include <glob.h>

#include "base/map.h"
#include "proxy/access_log_format.h"
#include "proxy/end_reason.h"

static size_t count_of(const char *text, const char *what)
{
    size_t n = 0;
    for (const char *p = text; (p = strstr(p, what)) != NULL; p++)
        n++;
    return n;
}

static void test_end_reasons(void **state)
{
    (void)state;
    char *text = docs_read("docs/end-reasons.md");
    for (int r = END_NONE + 1; r < END_COUNT; r++) {
        unsigned status = end_reason_status((enum end_reason)r);
        const char *flag = end_reason_flag((enum end_reason)r);
        char number[16];
        snprintf(number, sizeof(number), status != 0 ? "%u" : "-", status);
        char *row = mem_printf("\n| `%s` | %s | %s | ", end_reason_details((enum end_reason)r), number,
                               flag[0] != '\0' ? flag : "-");
        if (count_of(text, row) != 1)
            fail_msg("docs/end-reasons.md wants one row beginning with: %s", row + 1);
        mem_free(row);
    }
    assert_int_equal(count_of(text, "\n| `"), END_COUNT - 1);
    mem_free(text);
}

static bool is_name(char c) { return (c >= 'a' && c <= 'z') || c == '_'; }

/* Words of text that begin with `before`, less its first `skip` bytes, into the set. */
static void collect(struct map *set, const char *text, const char *before, size_t skip)
{
    for (const char *p = text; (p = strstr(p, before)) != NULL;) {
        p += skip;
        size_t n = 0;
        while (is_name(p[n]))
            n++;
        map_set(set, str_span(p, n), set);
    }
}

static void collect_sources(struct map *set, const char *pattern)
{
    glob_t found;
    char *full = mem_printf("%s/%s", WEIR_SOURCE_DIR, pattern);
    assert_int_equal(glob(full, 0, NULL, &found), 0);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        char *text = docs_read(found.gl_pathv[i] + strlen(WEIR_SOURCE_DIR) + 1);
        collect(set, text, "\"weir_", 1);
        mem_free(text);
    }
    globfree(&found);
    mem_free(full);
}

static void test_metrics(void **state)
{
    (void)state;
    struct map code = {0}, documented = {0};
    collect_sources(&code, "src/proxy/*.c");
    collect_sources(&code, "src/control/*.c");
    char *text = docs_read("docs/metrics.md");
    collect(&documented, text, "| `weir_", 3);
    assert_true(code.count > 10);
    MAP_EACH (e, &code)
        if (map_get(&documented, e->key) == NULL)
            fail_msg("docs/metrics.md has no row for %.*s", STR_ARG(e->key));
    MAP_EACH (e, &documented)
        if (map_get(&code, e->key) == NULL)
            fail_msg("docs/metrics.md has %.*s, which is in no source file", STR_ARG(e->key));
    map_free(&code);
    map_free(&documented);
    mem_free(text);
}

static void test_operators(void **state)
{
    (void)state;
    static const char *const names[] = {
#define X(op, name, argument) name,
        LOG_OPERATORS(X)
#undef X
    };
    char *text = docs_read("docs/operations.md");
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        char *plain = mem_printf("`%s`", names[i]), *with = mem_printf("`%s(", names[i]);
        if (count_of(text, plain) + count_of(text, with) == 0)
            fail_msg("docs/operations.md does not name the operator %s", names[i]);
        mem_free(plain);
        mem_free(with);
    }
    mem_free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_end_reasons), cmocka_unit_test(test_metrics),
                                       cmocka_unit_test(test_operators)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
