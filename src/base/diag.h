/* SPDX-License-Identifier: Apache-2.0
 *
 * What is wrong with an input, all of it at once, each with where it stands: "file:line:col: path: message".
 */
#ifndef WEIR_BASE_DIAG_H
#define WEIR_BASE_DIAG_H

#include "base/str.h"

enum diag_level { DIAG_ERROR, DIAG_WARNING };
struct diag_entry {
    enum diag_level level;
    char *file; /* may be NULL */
    unsigned line, col; /* 1-based; 0 unknown */
    char *path;         /* "WasmPlugin istio-system/x: spec.url"; may be NULL */
    char *message;
};
struct diag {
    struct diag_entry *entries;
    size_t count, cap;
    size_t errors;
};

/* Zero-initialise to start. Everything is copied. Keeps at most 1,000 entries, the last saying that more follow. */
void diag_add(struct diag *d, enum diag_level level, const char *file, unsigned line, unsigned col,
              const char *path, const char *fmt, ...) PRINTF_LIKE(7, 8);
/* "file:line:col: path: message"; parts that are unknown are left out. Free with mem_free. */
char *diag_format(const struct diag_entry *e);
void diag_append(struct diag *dst, const struct diag *src);
void diag_free(struct diag *d);

#endif
