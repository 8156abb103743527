/* SPDX-License-Identifier: Apache-2.0
 *
 * Logging that never blocks the thread that logs. Every thread writes whole lines into its own bounded ring; one
 * writer thread moves them to standard error (log) and standard output (access log). A full ring drops the line
 * and counts it; the writer reports drops. Text of guests and peers must come through the escaping helpers of
 * str.h; log_line escapes control bytes of the final text once more as a last guard (a log line is one line).
 *
 * Line: "2026-11-23T15:00:00.123Z info  plugin istio-system/x active ..."
 */
#ifndef WEIR_BASE_LOG_H
#define WEIR_BASE_LOG_H

#include "base/str.h"

enum log_level { LOG_TRACE, LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_CRITICAL, LOG_OFF };

/* Starts the writer thread. Before it, lines go straight to standard error. */
void log_start(void);
/* Writes what is queued (waits for at most 2 s) and stops the writer. */
void log_stop(void);
void log_set_level(enum log_level level);
enum log_level log_get_level(void);
NODISCARD bool log_level_parse(struct str s, enum log_level *out);
const char *log_level_name(enum log_level level);

/* One line, without newline. Does nothing below the level. Never blocks. */
void log_line(enum log_level level, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* One whole access-log line without newline, already escaped. Never blocks. */
void log_access(struct str line);
/* Lines lost because a ring was full, since start. */
uint64_t log_dropped(void);
/* Copies the newest lines of the log (not the access log), at most max bytes, newest last, into out: for
 * `/logs` of the admin server. */
void log_tail(struct strbuf *out, size_t max);

/* The same as a stream: appends whole lines from position `from` on (0: the oldest kept), at most max bytes, and returns
 * where to go on. Lines that are no longer kept are passed over. */
uint64_t log_read(uint64_t from, size_t max, struct strbuf *out);
/* fn runs on the log's own thread, briefly and without logging, whenever there is more to read; NULL ends that: once this
 * returns it does not run any more. One at a time. */
void log_watch(void (*fn)(void *arg), void *arg);

/* A single ring write is bounded: longer lines are cut and end in "...". */
enum { LOG_LINE_MAX = 8 * 1024 };

#endif
