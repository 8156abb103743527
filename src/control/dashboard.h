/* SPDX-License-Identifier: Apache-2.0
 *
 * What the page, `weir top` and scripts ask for: one JSON document with what serves, how it does, and what happened of
 * late. Rates and percentiles are made here, of what the metrics gained over the last 10 seconds and the last minute, so
 * that every reader sees the same numbers and none needs a memory of its own.
 *
 * Never shows a secret: what it says of objects is what conditions and urls may say in public.
 */
#ifndef WEIR_CONTROL_DASHBOARD_H
#define WEIR_CONTROL_DASHBOARD_H

#include "base/str.h"

struct control;
struct dashboard;
struct dashboard *dashboard_new(void);
/* NULL is allowed, here and below. */
void dashboard_free(struct dashboard *d);
/* Once a second: takes a sample of the metrics. */
void dashboard_tick(struct dashboard *d, uint64_t now_ms);
/* The document. Bounded: the first 200 of each kind of object, and how many there are. */
void dashboard_write(struct control *c, struct strbuf *out);

#endif
