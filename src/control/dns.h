/* SPDX-License-Identifier: Apache-2.0
 *
 * Keeps the addresses of DNS hosts fresh: each host is asked again when its smallest TTL ends (between 1 s and 5 min);
 * a failed answer keeps the addresses it last had and is asked again with back-off.
 */
#ifndef WEIR_CONTROL_DNS_H
#define WEIR_CONTROL_DNS_H

#include "base/map.h"
#include "io/resolve.h"

struct dns;
/* changed runs when the addresses of a host are others than before (never from inside dns_want). */
struct dns *dns_new(struct loop *loop, const char *servers, void (*changed)(void *arg, const char *host), void *arg);
/* The set of hosts wanted now; others are forgotten. hosts: keys of a map (values unused). */
void dns_want(struct dns *d, const struct map *hosts);
/* Addresses (port 0) as of now; count 0 while unknown. */
const struct addr *dns_addresses(const struct dns *d, const char *host, size_t *count);
const char *dns_error(const struct dns *d, const char *host);
void dns_free(struct dns *d);

#endif
