/* SPDX-License-Identifier: Apache-2.0
 *
 * The one dialect of regular expressions in resources: PCRE2 over bytes, matched against the whole subject, as Envoy
 * matches its own. Check and use must compile with the same options, hence this header: proxy code passes REGEX_OPTIONS
 * too.
 */
#ifndef WEIR_CONF_REGEX_H
#define WEIR_CONF_REGEX_H

#include "base/str.h"

/* PCRE2_ANCHORED | PCRE2_ENDANCHORED | PCRE2_NEVER_BACKSLASH_C | PCRE2_DOLLAR_ENDONLY; needs pcre2.h. */
#define REGEX_OPTIONS (PCRE2_ANCHORED | PCRE2_ENDANCHORED | PCRE2_NEVER_BACKSLASH_C | PCRE2_DOLLAR_ENDONLY)

/* False when the pattern does not compile: *offset is the byte where, message says why. */
NODISCARD bool regex_check(struct str pattern, size_t *offset, char *message, size_t message_size);

#endif
