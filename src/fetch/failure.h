/* SPDX-License-Identifier: Apache-2.0
 *
 * Why bytes did not come: one word for status, one text for people, and whether to try again.
 */
#ifndef WEIR_FETCH_FAILURE_H
#define WEIR_FETCH_FAILURE_H

#include "base/str.h"

/* The words are CamelCase and part of what users see: BadReference, Refused (address guard), FetchFailed (nothing or not
 * everything came), Truncated, Unauthorized (401), Forbidden (403), NotFound (404), RateLimited (429), ServerError (5xx),
 * TooLarge, LengthMismatch, DigestMismatch, BadModule (a file or http url that is none), BadImage,
 * NoModule (an image without one), SignatureMissing, SignatureInvalid. */
struct failure {
    const char *reason; /* static; NULL: none */
    char *text;
    bool retry;
    uint32_t retry_after_ms;
};

/* Replaces what f said. */
void failure_set(struct failure *f, const char *reason, bool retry, const char *fmt, ...) PRINTF_LIKE(4, 5);
void failure_clear(struct failure *f);
/* from's content goes to f. */
void failure_move(struct failure *f, struct failure *from);

/* The reason word of an HTTP status that is no answer. */
const char *failure_of_status(unsigned status);

#endif
