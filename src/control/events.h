/* SPDX-License-Identifier: Apache-2.0
 *
 * The last transitions of objects, oldest first: bounded, and the same word said again of the same object is counted
 * instead of kept twice.
 */
#ifndef WEIR_CONTROL_EVENTS_H
#define WEIR_CONTROL_EVENTS_H

#include "conf/resource.h"

enum { EVENTS_MAX = 256 };

struct event {
    uint64_t id;          /* goes up with each event and each repetition */
    int64_t first, last;  /* seconds since 1970 */
    uint64_t count;
    enum kind kind;
    char *ns, *name, *reason, *message;
    bool warning;
};
struct events {
    struct event list[EVENTS_MAX];
    size_t count;
    uint64_t next_id;
};
/* Zero-initialise. Everything is copied; message is cut at 1,024 bytes. */
void events_add(struct events *e, int64_t now, enum kind kind, const char *ns, const char *name, bool warning,
                const char *reason, const char *message);
/* {"events":[...]}, newest first, at most `max` of them. */
void events_write(const struct events *e, size_t max, struct strbuf *out);
/* As RFC 3339 in UTC, to the second. */
void event_time(int64_t seconds, char out[24]);
void events_free(struct events *e);

#endif
