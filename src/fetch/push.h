/* SPDX-License-Identifier: Apache-2.0
 *
 * An image into a registry (OCI distribution specification 1.1, "push"): blobs it does not have yet, in one piece or in
 * several, then the manifest. What the registry says of digests is checked against our own.
 */
#ifndef WEIR_FETCH_PUSH_H
#define WEIR_FETCH_PUSH_H

#include "fetch/failure.h"
#include "fetch/image.h"
#include "fetch/registry.h"
#include "fetch/transfer.h"

struct push;
struct push_request {
    struct loop *loop;
    struct transfers *transfers;
    const struct registry_table *registries; /* of mirrors, the first is pushed to */
    const char *config_file;                 /* Docker's; copied */
    const struct reference *reference;       /* with a digest it must be the manifest's; borrowed until done, as image */
    const struct image *image;
    size_t chunk_bytes; /* 0: each blob in one piece */
    /* what: "config", "layer"; NULL: nobody looks */
    void (*progress)(void *arg, const char *what, uint64_t done, uint64_t total);
    /* Once, later. where: "http://127.0.0.1:5000/name:tag"; borrowed. failure->reason NULL: it worked. */
    void (*done)(void *arg, const char *where, struct failure *failure);
    void *arg;
};
struct push *push_start(const struct push_request *r);
/* done will not run. */
void push_cancel(struct push *p);

#endif
