/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory that aborts when the machine has none, and failed assertions. There is nothing to recover to in either
 * case: what a peer or a guest can size was bounded before it came here, so running dry means that the machine is
 * at its end, and a failed assertion means that our own state can no longer be trusted.
 */
#include "base/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void base_assert_failed(const char *cond, const char *file, int line)
{
    /* Straight to the descriptor: the log's rings would be lost with the process. */
    fprintf(stderr, "weir: assertion failed: %s at %s:%d\n", cond, file, line);
    abort();
}

static void *must_have(void *p, size_t n)
{
    if (p == NULL) {
        fprintf(stderr, "weir: out of memory (%zu bytes)\n", n);
        abort();
    }
    return p;
}

void *mem_alloc(size_t n) { return must_have(malloc(n != 0 ? n : 1), n); }

void *mem_zalloc(size_t n) { return must_have(calloc(1, n != 0 ? n : 1), n); }

void *mem_realloc(void *p, size_t n) { return must_have(realloc(p, n != 0 ? n : 1), n); }

char *mem_strndup(const char *s, size_t n)
{
    char *copy = mem_alloc(n + 1);
    if (n != 0)
        memcpy(copy, s, n);
    copy[n] = '\0';
    return copy;
}

char *mem_strdup(const char *s) { return mem_strndup(s, strlen(s)); }

char *mem_printf(const char *fmt, ...)
{
    char *out = NULL;
    va_list args;
    va_start(args, fmt);
    int n = vasprintf(&out, fmt, args);
    va_end(args);
    return must_have(n >= 0 ? out : NULL, 0);
}

void mem_free(void *p) { free(p); }
