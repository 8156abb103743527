/* SPDX-License-Identifier: Apache-2.0
 *
 * Whole files: read with a bound, and written so that a reader, or a machine that loses power, sees the old bytes or
 * the new ones and nothing between.
 */
#ifndef WEIR_BASE_FILE_H
#define WEIR_BASE_FILE_H

#include "base/str.h"

/* Whole regular file, at most max bytes, with a NUL behind them; NULL and *error (mem_free) otherwise. Opens
 * non-blocking, so that a FIFO cannot hang us. mem_free. */
char *file_read_all(const char *path, size_t max, size_t *n, char **error);
/* A file that must not be there yet: mode 0600, synced. False: errno says why; nothing is left behind. */
bool file_create(const char *path, struct str bytes);
/* Replaces or makes the file: temporary name beside it, sync, rename, sync of the directory. mode as for open(2). False
 * and *error (mem_free) otherwise; the old file stays as it was. */
bool file_replace(const char *path, struct str bytes, unsigned mode, char **error);

#endif
