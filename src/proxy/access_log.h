/* SPDX-License-Identifier: Apache-2.0
 *
 * Access log: a format with Envoy's command operators, compiled once to a list of pieces and written for each ended
 * stream. Values are escaped, so that a line is a line whatever a client or a guest sent.
 */
#ifndef WEIR_PROXY_ACCESS_LOG_H
#define WEIR_PROXY_ACCESS_LOG_H

#include "base/diag.h"
#include "conf/limits.h"

struct stream;
struct access_log;
/* text: NULL for the default of kind (TEXT: Envoy's default format; JSON: Istio's field names). TEXT: an Envoy format
 * string, one line. JSON: a JSON object whose strings are Envoy formats; one that is a single operator gives a number,
 * a string or null. NULL when kind is OFF, or on a bad format (errors in diag, path "access-log-format"). The result is
 * immutable: threads may share it. */
struct access_log *access_log_new(enum access_log_format kind, const char *text, struct diag *diag);
void access_log_free(struct access_log *log);
/* Does its format hold variables of this process (ENVIRONMENT)? log may be NULL. */
bool access_log_reads_environment(const struct access_log *log);
/* Appends one line without newline. Of s it changes the arena only (decoded values); end_ns must be set. */
void access_log_write(const struct access_log *log, struct stream *s, struct strbuf *out);

#endif
