/* SPDX-License-Identifier: Apache-2.0
 *
 * A field section (RFC 9112 section 5): the header lines of a head, or trailers. Private to src/http.
 */
#ifndef WEIR_HTTP_H1_FIELD_H
#define WEIR_HTTP_H1_FIELD_H

#include "http/h1_parse.h"
#include "http/h1_scan.h"

/* More Connection fields or options than this is nobody's honest message. */
enum { H1_MAX_CONNECTIONS = 8, H1_MAX_OPTIONS = 32 };

/* What the hop-by-hop and framing fields of a section said. */
struct h1_fields {
    struct str host, upgrade;
    struct str connections[H1_MAX_CONNECTIONS];
    unsigned hosts, lengths, codings, upgrades, connection_count;
    uint64_t length;
    bool chunked, expect_continue, te_trailers;
    bool option_close, option_keep_alive, option_upgrade;
    bool option_named; /* Connection names other fields */
};

/* Parses [p, end), which ends with the first empty line, lower-casing names in place. Fields go to out, except host and
 * those that are hop-by-hop; content-length stays. Checks framing for a message of this version. */
NODISCARD enum parse h1_fields_parse(struct h1_fields *f, char *p, const char *end, const struct h1_limits *limits,
                                     unsigned version, struct headers *out, const char **why);
/* Removes the fields that Connection names (RFC 9110 7.6.1), but no pseudo-header and not content-length. */
void h1_fields_remove_named(const struct h1_fields *f, struct headers *out);
/* Trailers: fields that are framing, routing or hop-by-hop are left out (RFC 9110 6.5.1). */
NODISCARD enum parse h1_trailers_parse(char *p, const char *end, const struct h1_limits *limits, struct headers *out,
                                       const char **why);
/* May a field of this id stand in trailers? */
bool h1_is_trailer(enum header_id id);

#endif
