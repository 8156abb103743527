/* SPDX-License-Identifier: Apache-2.0
 *
 * What the tests of the conf layer share: parse a text and see its messages as lines, exactly as a user would.
 */
#ifndef CONF_TEST_H
#define CONF_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "conf/resource.h"

/* All messages, syntax first, one a line, warnings with "warning: " before them. Free with mem_free. */
static inline char *messages_of(const struct documents *d)
{
    struct strbuf b = {0};
    for (size_t i = 0; i <= d->count; i++) {
        const struct diag *diag = i == 0 ? &d->syntax : &d->list[i - 1].diag;
        for (size_t k = 0; k < diag->count; k++) {
            char *line = diag_format(&diag->entries[k]);
            strbuf_printf(&b, "%s%s\n", diag->entries[k].level == DIAG_WARNING ? "warning: " : "", line);
            mem_free(line);
        }
    }
    return strbuf_take(&b);
}

/* text gives exactly these messages. */
static inline void assert_messages(const char *text, const char *expected)
{
    struct documents d;
    resources_parse(str_of(text), "f.yaml", "default", &d);
    char *got = messages_of(&d);
    if (strcmp(got, expected) != 0)
        print_message("---- text:\n%s\n---- got:\n%s---- expected:\n%s", text, got, expected);
    assert_string_equal(got, expected);
    mem_free(got);
    documents_free(&d);
}

/* One resource without any error (warnings are allowed); the caller frees the documents. */
static inline struct resource *parse_one(const char *text, struct documents *d)
{
    resources_parse(str_of(text), "f.yaml", "default", d);
    char *got = messages_of(d);
    if (d->count != 1 || d->list[0].resource == NULL)
        print_message("---- text:\n%s\n---- got %zu documents:\n%s", text, d->count, got);
    mem_free(got);
    assert_int_equal(d->count, 1);
    assert_non_null(d->list[0].resource);
    assert_int_equal(d->syntax.errors, 0);
    return d->list[0].resource;
}

/* One line of a table: what stands under a prefix, and the only message, without "f.yaml:line:col: ". */
struct message_case {
    const char *text, *message;
};

static inline void assert_case(const char *prefix, const struct message_case *c)
{
    char *text = mem_printf("%s%s", prefix, c->text);
    struct documents d;
    resources_parse(str_of(text), NULL, "default", &d);
    char *all = messages_of(&d);
    /* Places differ from case to case and are tested elsewhere: cut "line:col: ". */
    struct strbuf b = {0};
    struct str rest = str_of(all);
    while (rest.p != NULL && rest.n != 0) {
        struct str line = str_split(&rest, '\n');
        if (str_starts(line, STR("warning: "))) {
            strbuf_addz(&b, "warning: ");
            line = str_from(line, 9);
        }
        for (int colons = 0; colons < 2 && line.n != 0 && line.p[0] >= '0' && line.p[0] <= '9';) {
            ptrdiff_t colon = str_find(line, ':');
            if (colon < 0)
                break;
            line = str_from(line, (size_t)colon + 1);
            colons++;
        }
        strbuf_add(&b, str_trim(line));
        strbuf_addc(&b, '\n');
    }
    char *got = strbuf_take(&b);
    char *expected = c->message[0] != '\0' ? mem_printf("%s\n", c->message) : mem_strdup("");
    if (strcmp(got, expected) != 0)
        print_message("---- text:\n%s\n---- got:\n%s---- expected:\n%s", text, got, expected);
    assert_string_equal(got, expected);
    mem_free(got);
    mem_free(expected);
    mem_free(all);
    mem_free(text);
    documents_free(&d);
}

#endif
