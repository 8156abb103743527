/* SPDX-License-Identifier: Apache-2.0
 *
 * DNS by c-ares on a loop: A and AAAA with their TTLs. Belongs to the control thread; answers go to the workers
 * as endpoint messages.
 */
#ifndef WEIR_IO_RESOLVE_H
#define WEIR_IO_RESOLVE_H

#include "io/conn.h"

struct resolver;
struct resolve_answer {
    const struct addr *addrs; /* port 0; borrowed until the callback returns */
    size_t count;
    uint32_t ttl; /* seconds; the smallest of all; 0 when failed */
    const char *error; /* NULL when count > 0 */
};
/* servers: "127.0.0.1:5353,..." or NULL for the system's. NULL on failure. */
struct resolver *resolver_new(struct loop *loop, const char *servers);
/* Calls back exactly once, never before returning. "localhost" (127.0.0.1) and IP literals are answered without a
 * query. An answer from the hosts file has ttl 0: the caller sets a floor. */
void resolver_query(struct resolver *r, struct str name, void (*done)(void *arg, const struct resolve_answer *answer),
                    void *arg);
/* Outstanding queries call back with an error first. */
void resolver_free(struct resolver *r);

#endif
