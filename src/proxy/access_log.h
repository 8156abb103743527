/* SPDX-License-Identifier: Apache-2.0
 *
 * Access log: a format with Envoy's command operators, compiled once to a list of pieces and written for each ended stream. Values are escaped, so that a
 * line is a line whatever a client or a guest sent.
 */
#ifndef WEIR_PROXY_ACCESS_LOG_H
#define WEIR_PROXY_ACCESS_LOG_H

#include "base/diag.h"
#include "conf/limits.h"

struct stream;
struct access_log;
/* text: Envoy format string or NULL for the default of kind. NULL when kind is OFF, or on a bad format (error in diag). */
struct access_log *access_log_new(enum access_log_format kind, const char *text, struct diag *diag);
void access_log_free(struct access_log *log);
/* Appends one line without newline. */
void access_log_write(const struct access_log *log, struct stream *s, struct strbuf *out);

#endif
