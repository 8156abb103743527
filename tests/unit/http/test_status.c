/* SPDX-License-Identifier: Apache-2.0
 *
 * Reason phrases: a known one, and that whatever else is asked for gives an empty text.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "http/h1.h"

static void phrases(void **state)
{
    (void)state;
    assert_string_equal(http_status_text(200), "OK");
    assert_string_equal(http_status_text(431), "Request Header Fields Too Large");
    for (unsigned status = 0; status < 1100; status++) {
        const char *text = http_status_text(status);
        assert_non_null(text);
        assert_null(strpbrk(text, "\r\n"));
        if (status < 100 || status > 599)
            assert_string_equal(text, "");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(phrases)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
