/* SPDX-License-Identifier: Apache-2.0
 *
 * Findings: their text form, and the bound on their number.
 */
#include "base/diag.h"

#include <setjmp.h>

#include <cmocka.h>

static void assert_text(const struct diag_entry *e, const char *expected)
{
    char *text = diag_format(e);
    assert_string_equal(text, expected);
    mem_free(text);
}

static void test_format(void **state)
{
    (void)state;
    struct diag d = {0};
    diag_add(&d, DIAG_ERROR, "a.yaml", 3, 7, "WasmPlugin x/y: spec.url", "bad %s", "scheme");
    diag_add(&d, DIAG_WARNING, "a.yaml", 3, 0, NULL, "m");
    diag_add(&d, DIAG_ERROR, "a.yaml", 0, 5, NULL, "m");
    diag_add(&d, DIAG_ERROR, NULL, 1, 1, "p", "m");
    assert_int_equal(d.errors, 3);
    assert_text(&d.entries[0], "a.yaml:3:7: WasmPlugin x/y: spec.url: bad scheme");
    assert_text(&d.entries[1], "a.yaml:3: m");
    assert_text(&d.entries[2], "a.yaml: m");
    assert_text(&d.entries[3], "p: m");
    struct diag copy = {0};
    diag_append(&copy, &d);
    diag_free(&d);
    assert_int_equal(copy.count, 4);
    assert_int_equal(copy.errors, 3);
    assert_text(&copy.entries[0], "a.yaml:3:7: WasmPlugin x/y: spec.url: bad scheme");
    diag_free(&copy);
}

static void test_bound(void **state)
{
    (void)state;
    struct diag d = {0}, all = {0};
    for (int i = 0; i < 1500; i++)
        diag_add(&d, DIAG_ERROR, "f", 1, 1, NULL, "%d", i);
    assert_int_equal(d.count, 1000);
    assert_int_equal(d.errors, 1500);
    assert_text(&d.entries[998], "f:1:1: 998");
    assert_text(&d.entries[999], "more than 999 findings; the rest is not shown");
    diag_append(&all, &d);
    diag_append(&all, &d);
    assert_int_equal(all.count, 1000);
    assert_int_equal(all.errors, 3000);
    diag_free(&d);
    diag_free(&all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_format), cmocka_unit_test(test_bound)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
