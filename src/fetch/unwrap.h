/* SPDX-License-Identifier: Apache-2.0
 *
 * A module that came by http may be packed: Istio unwraps gzip and tar, in any order, until it finds a module, and so
 * do we. What is unpacked is bounded; what an archive says of sizes is never believed.
 */
#ifndef WEIR_FETCH_UNWRAP_H
#define WEIR_FETCH_UNWRAP_H

#include "base/str.h"

/* Unpacks *bytes (mem_alloc; replaced) in place while it is gzip or a tar archive, whose first regular file is taken.
 * Bytes that are neither stay as they are. Blocks: not for a loop's thread. NULL, or an error (mem_free). */
char *module_unwrap(char **bytes, size_t *n, size_t max);

#endif
