/* SPDX-License-Identifier: Apache-2.0
 *
 * The conditions of one HTTPRoute match besides its exact or prefix path, compiled: method, headers, query parameters
 * and regular expressions. Private to route.c.
 */
#ifndef WEIR_PROXY_ROUTE_MATCH_H
#define WEIR_PROXY_ROUTE_MATCH_H

#include "proxy/route.h"

/* MATCHER_LIMIT: a regular expression could not be decided within its limits (or is none). The request must then fail:
 * taking it for "no match" would lead a crafted request past a rule. */
enum matcher_result { MATCHER_NO, MATCHER_YES, MATCHER_LIMIT };

struct matcher;
/* Keeps a pointer to match. */
struct matcher *matcher_new(const struct route_match *match);
void matcher_free(struct matcher *m);
const struct route_match *matcher_match(const struct matcher *m);
/* path: without query; only looked at when the path match is a regular expression. query: without '?'. Any thread, with
 * a scratch of its own. */
enum matcher_result matcher_try(const struct matcher *m, const struct headers *request, struct str path,
                                struct str query, struct route_scratch *scratch);

#endif
