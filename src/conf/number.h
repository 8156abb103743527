/* SPDX-License-Identifier: Apache-2.0
 *
 * Numbers and units as text: doubles as Go prints them (plugins see those bytes), durations and sizes as people write
 * them. Independent of the locale's decimal point as long as LC_NUMERIC is "C", which Weir never changes.
 */
#ifndef WEIR_CONF_NUMBER_H
#define WEIR_CONF_NUMBER_H

#include "base/str.h"

/* As Go's encoding/json and protojson: shortest text that reads back as the same double; an exponent below 1e-6 and
 * from 1e21 on. v must be finite. */
void number_write_json(struct strbuf *out, double v);
/* As Go's strconv.FormatFloat(v, 'g', -1, 32): what sigs.k8s.io/yaml makes of a map key that is a float. */
void number_write_key(struct strbuf *out, double v);

/* GEP-2257 duration, ^([0-9]{1,5}(h|m|s|ms)){1,4}$, in milliseconds. */
NODISCARD bool number_parse_duration(struct str s, int64_t *ms);
/* Shortest form of it: "1h30m", "500ms", "0s". */
void number_write_duration(struct strbuf *out, int64_t ms);
/* Bytes: digits, then nothing, Ki, Mi, Gi, k, M or G. */
NODISCARD bool number_parse_bytes(struct str s, uint64_t *bytes);
/* "64Ki" where it is a whole number of the unit. */
void number_write_bytes(struct strbuf *out, uint64_t bytes);
/* RFC 3339 date-time to seconds since 1970; fractions are cut. */
NODISCARD bool number_parse_time(struct str s, int64_t *seconds);
/* Standard base64 with padding (RFC 4648 section 4); CR and LF are skipped, as Go does. out has room for s.n / 4 * 3
 * bytes. On failure *n is the offset of the first bad byte. */
NODISCARD bool number_parse_base64(struct str s, uint8_t *out, size_t *n);

#endif
