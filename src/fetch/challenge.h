/* SPDX-License-Identifier: Apache-2.0
 *
 * The www-authenticate header of a registry (RFC 9110 section 11.6.1; the distribution project's token specification):
 * which scheme it wants, and for Bearer where tokens are to be had.
 */
#ifndef WEIR_FETCH_CHALLENGE_H
#define WEIR_FETCH_CHALLENGE_H

#include "base/str.h"

enum { CHALLENGE_MAX = 16 * 1024 };

struct challenge {
    bool basic, bearer;
    char *realm, *service, *scope; /* of Bearer; NULL when not said */
};

/* Adds what one header line offers (it may hold several challenges); of several Bearers the first counts. */
void challenge_read(struct challenge *c, struct str header);
void challenge_free(struct challenge *c);

#endif
