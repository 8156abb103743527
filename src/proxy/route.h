/* SPDX-License-Identifier: Apache-2.0
 *
 * Routing: an immutable table for each listener, built by control from HTTPRoutes, looked up by workers. Precedence is
 * the Gateway API's: hostname (exact, then longest wildcard, then any), path (Exact, then longest prefix, then regular
 * expressions, longest first: Istio's choice), method, number of header matches, number of query matches, then creation
 * time, namespace/name, order in the route. Only the most specific hostname that matches is looked at.
 */
#ifndef WEIR_PROXY_ROUTE_H
#define WEIR_PROXY_ROUTE_H

#include "base/headers.h"
#include "conf/resource.h"
#include "proxy/end_reason.h"

struct route_backend {
    char *cluster; /* key; NULL: an invalid reference, answers 500 (Gateway API) */
    char *why;     /* of the invalid reference; may be NULL */
    uint32_t weight;
    const struct route_filter *filters; /* borrowed from the resource */
    size_t filter_count;
};
/* What a match leads to; one for each rule, shared by its matches. */
struct route {
    char *name;                    /* "<namespace>.<route>.<rule index>" */
    const struct route_rule *rule; /* borrowed: the table keeps a ref on its resource */
    struct route_backend *backends;
    size_t backend_count;
    uint64_t total_weight;
};
struct route_hit {
    const struct route *route;
    const struct route_match *match; /* for ReplacePrefixMatch */
};
enum route_result {
    ROUTE_FOUND,
    ROUTE_NONE,
    ROUTE_LIMIT /* a regular expression hit its match limit: an error, never "no match" */
};

struct route_table;
struct route_table *route_table_new(void);
/* hostnames: the route's, already intersected with the listener's ("" = any). Keeps a ref on resource (an HTTPRoute).
 * clusters: for each rule, for each backend, the key or NULL and the reason; copied. */
void route_table_add(struct route_table *t, struct resource *resource, const char *const *hostnames,
                     size_t hostname_count, const struct route_backend *const *backends_of_rule);
/* This hostname ("" = any) has rules of its own, be they none: no less specific one serves its requests. */
void route_table_claim(struct route_table *t, const char *hostname);
/* Sorts and compiles; after it the table is immutable and thread-safe to read. */
void route_table_finish(struct route_table *t);
void route_table_free(struct route_table *t);
/* Uses :authority (any case, with or without port), :path, :method and the headers. hit is zero unless ROUTE_FOUND.
 * Each thread brings its own match memory (made once by route_scratch_new). */
struct route_scratch;
struct route_scratch *route_scratch_new(void);
void route_scratch_free(struct route_scratch *s);
enum route_result route_lookup(const struct route_table *t, const struct headers *request,
                               struct route_scratch *scratch, struct route_hit *hit);
/* Weighted choice; random: 64 random bits. NULL when all weights are 0 or there is none. */
const struct route_backend *route_choose_backend(const struct route *r, uint64_t random);

/* RequestHeaderModifier / ResponseHeaderModifier: set, add, remove, in this order. `host` of a request is :authority:
 * set and add replace it, remove does nothing. */
enum headers_result route_modify_headers(const struct header_modifier *m, struct headers *h);
/* URLRewrite: edits :path (keeping the query) and :authority. */
enum headers_result route_rewrite(const struct route_filter *f, const struct route_match *match,
                                  struct headers *request);
/* RequestRedirect: Location value into out (cleared first). port: the listener's. */
void route_redirect_location(const struct route_filter *f, const struct route_match *match,
                             const struct headers *request, uint16_t port, struct strbuf *out);
/* Path normalisation as Istio's policies (path.c): BASE = RFC 3986 normalisation ("/a/../b" -> "/b", "\\" -> "/",
 * %-encoded unreserved decoded), MERGE_SLASHES also merges, DECODE_AND_MERGE_SLASHES also decodes %2f and %5c. The
 * query is untouched. Returns false when the path is to be refused (400: an escaped NUL). out is the input when nothing
 * changed, else points into buf (of at least path.n bytes, not overlapping path). */
NODISCARD bool path_normalize(unsigned policy, struct str path, char *buf, struct str *out);

#endif
