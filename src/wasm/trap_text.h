/* SPDX-License-Identifier: Apache-2.0
 *
 * From Wasmtime's multi-line error text to the one line that goes to logs and status. Function and file names in it
 * come from the guest, so that nothing in the text is trusted: control bytes are escaped, length and frame count are
 * bounded.
 */
#ifndef WEIR_WASM_TRAP_TEXT_H
#define WEIR_WASM_TRAP_TEXT_H

#include "base/str.h"

enum { TRAP_TEXT_FRAMES = 20, TRAP_TEXT_NAME = 160 };

/* Appends "foo (src/lib.rs:12) < bar < ...", innermost first; nothing when message has no backtrace. */
void trap_text_frames(struct strbuf *out, struct str message);
/* Appends message without its backtrace on one line, its causes separated by ": ". */
void trap_text_line(struct strbuf *out, struct str message);
/* Appends at most max bytes of s, escaped. */
void trap_text_escaped(struct strbuf *out, struct str s, size_t max);

#endif
