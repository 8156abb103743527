/* SPDX-License-Identifier: Apache-2.0
 *
 * What the tests of src/kube share: JSON as text.
 */
#ifndef WEIR_TESTS_KUBE_TEST_H
#define WEIR_TESTS_KUBE_TEST_H

#include "../loop_test.h"
#include "kube/api_priv.h"

/* '...' stands for "..." so that literals can be read. */
__attribute__((unused)) static json_t *J(const char *text)
{
    char *copy = mem_strdup(text), *error, *duplicate;
    for (char *p = copy; *p != '\0'; p++)
        *p = *p == '\'' ? '"' : *p;
    json_t *j = json_of_text(str_of(copy), &error, &duplicate);
    if (j == NULL)
        fail_msg("%s: %s", text, error);
    mem_free(copy);
    mem_free(duplicate);
    return j;
}

/* Takes both. */
__attribute__((unused)) static void same(json_t *got, json_t *wanted)
{
    struct strbuf a = {0}, b = {0};
    if (got != NULL)
        json_put(&a, got);
    json_put(&b, wanted);
    strbuf_addc(&a, '\0');
    strbuf_addc(&b, '\0');
    if (got == NULL || !json_same(got, wanted))
        fail_msg("%s is not %s", a.p, b.p);
    strbuf_free(&a);
    strbuf_free(&b);
    json_decref(got);
    json_decref(wanted);
}

#endif
