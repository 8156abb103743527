/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of end reasons as arrays. What it must never do: differ from END_REASONS.
 */
#include "proxy/end_reason.h"

static const struct {
    const char *details, *flag, *body;
    unsigned status;
} table[END_COUNT] = {
#define X(id, details_, status_, flag_, body_)                                                                         \
    [END_##id] = {.details = details_, .flag = flag_, .body = body_, .status = status_},
    END_REASONS(X)
#undef X
};

const char *end_reason_details(enum end_reason r) { return table[r].details; }
unsigned end_reason_status(enum end_reason r) { return table[r].status; }
const char *end_reason_flag(enum end_reason r) { return table[r].flag; }
const char *end_reason_body(enum end_reason r) { return table[r].body; }
