/* SPDX-License-Identifier: Apache-2.0
 *
 * A list of findings about an input. An input can be wrong in a million places: the list is bounded, and its last
 * entry says so; the count of errors goes on, because it decides.
 */
#include "base/diag.h"

#include <stdio.h>

enum { DIAG_MAX = 1000 };

static struct diag_entry *new_entry(struct diag *d)
{
    if (d->count == d->cap) {
        d->cap = d->cap != 0 ? 2 * d->cap : 16;
        d->entries = mem_realloc(d->entries, d->cap * sizeof(*d->entries));
    }
    struct diag_entry *e = &d->entries[d->count++];
    *e = (struct diag_entry){0};
    return e;
}

static char *dup_or_null(const char *s) { return s != NULL ? mem_strdup(s) : NULL; }

/* Takes message. */
static void add(struct diag *d, enum diag_level level, const char *file, unsigned line, unsigned col, const char *path,
                char *message)
{
    if (level == DIAG_ERROR)
        d->errors++;
    if (d->count == DIAG_MAX) {
        mem_free(message);
        return;
    }
    struct diag_entry *e = new_entry(d);
    e->level = level;
    if (d->count == DIAG_MAX) {
        /* The last place is for saying that there is more. */
        e->message = mem_printf("more than %d findings; the rest is not shown", DIAG_MAX - 1);
        mem_free(message);
        return;
    }
    e->file = dup_or_null(file);
    e->line = line;
    e->col = col;
    e->path = dup_or_null(path);
    e->message = message;
}

void diag_add(struct diag *d, enum diag_level level, const char *file, unsigned line, unsigned col, const char *path,
              const char *fmt, ...)
{
    char *message = NULL;
    va_list args;
    va_start(args, fmt);
    int n = vasprintf(&message, fmt, args);
    va_end(args);
    ASSERT(n >= 0);
    add(d, level, file, line, col, path, message);
}

char *diag_format(const struct diag_entry *e)
{
    struct strbuf out = {0};
    if (e->file != NULL) {
        strbuf_addz(&out, e->file);
        if (e->line != 0)
            strbuf_printf(&out, ":%u", e->line);
        if (e->line != 0 && e->col != 0)
            strbuf_printf(&out, ":%u", e->col);
        strbuf_addz(&out, ": ");
    }
    if (e->path != NULL) {
        strbuf_addz(&out, e->path);
        strbuf_addz(&out, ": ");
    }
    strbuf_addz(&out, e->message);
    return strbuf_take(&out);
}

void diag_append(struct diag *dst, const struct diag *src)
{
    for (size_t i = 0; i < src->count; i++) {
        const struct diag_entry *e = &src->entries[i];
        size_t errors = dst->errors;
        add(dst, e->level, e->file, e->line, e->col, e->path, mem_strdup(e->message));
        dst->errors = errors;
    }
    dst->errors += src->errors;
}

void diag_free(struct diag *d)
{
    for (size_t i = 0; i < d->count; i++) {
        mem_free(d->entries[i].file);
        mem_free(d->entries[i].path);
        mem_free(d->entries[i].message);
    }
    mem_free(d->entries);
    *d = (struct diag){0};
}
