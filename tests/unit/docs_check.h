/* SPDX-License-Identifier: Apache-2.0
 *
 * For tests that hold a document against the code it describes. A document is hand-written but for what stands between
 * the two markers; tools/docs (WEIR_UPDATE_DOCS=1) writes that part anew.
 */
#ifndef WEIR_TESTS_DOCS_CHECK_H
#define WEIR_TESTS_DOCS_CHECK_H

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/str.h"

#define DOCS_BEGIN "<!-- made by tools/docs; do not edit -->\n"
#define DOCS_END   "<!-- end -->\n"

/* Whole file, path from the root of the sources; NUL-terminated; free with mem_free. */
static inline char *docs_read(const char *path)
{
    char *full = mem_printf("%s/%s", WEIR_SOURCE_DIR, path);
    FILE *f = fopen(full, "rb");
    struct strbuf text = {0};
    char chunk[4096];
    if (f == NULL)
        fail_msg("%s cannot be read", full);
    for (size_t n; (n = fread(chunk, 1, sizeof(chunk), f)) > 0;)
        strbuf_add(&text, str_span(chunk, n));
    fclose(f);
    mem_free(full);
    return strbuf_take(&text);
}

static inline void docs_write(const char *path, struct str text)
{
    char *full = mem_printf("%s/%s", WEIR_SOURCE_DIR, path), *aside = mem_printf("%s.new", full);
    FILE *f = fopen(aside, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text.p, 1, text.n, f), text.n);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(rename(aside, full), 0);
    mem_free(full);
    mem_free(aside);
}

/* The part between the markers must be `made`. */
static inline void docs_check_made(const char *path, struct str made)
{
    char *text = docs_read(path);
    struct str all = str_of(text);
    ptrdiff_t begin = str_find_str(all, STR(DOCS_BEGIN)), end = str_find_str(all, STR(DOCS_END));
    assert_true(begin >= 0 && end > begin);
    size_t from = (size_t)begin + sizeof(DOCS_BEGIN) - 1;
    if (!str_eq(str_span(text + from, (size_t)end - from), made)) {
        if (getenv("WEIR_UPDATE_DOCS") == NULL)
            fail_msg("%s is not what the code says; tools/docs renews it", path);
        struct strbuf anew = {0};
        strbuf_add(&anew, str_upto(all, from));
        strbuf_add(&anew, made);
        strbuf_add(&anew, str_from(all, (size_t)end));
        docs_write(path, strbuf_str(&anew));
        strbuf_free(&anew);
    }
    mem_free(text);
}

#endif
