/* SPDX-License-Identifier: Apache-2.0
 *
 * Gets the bytes of a module: from a file, or by http(s) with libcurl on the control loop. Unpacks nothing (unwrap.h).
 * Bounded in size and time; only http and https, also on redirects; the address guard looks at every address about to
 * be connected to (every hop, whatever DNS says).
 */
#ifndef WEIR_FETCH_FETCH_H
#define WEIR_FETCH_FETCH_H

#include "base/str.h"
#include "io/loop.h"

enum { FETCH_BYTES_MAX = 256 * 1024 * 1024 };

struct fetcher;
struct fetch;
struct fetch_result {
    char *bytes; /* taken by the callback (mem_free); NULL when failed or unchanged */
    size_t n;
    bool unchanged;        /* oci: it is what `have` names */
    char module_sha256[65];
    char digest[80], index_digest[80];
    const char *from;
    bool verified;
    const char *warning;
    const char *reason; /* CamelCase word */
    const char *error;  /* borrowed; NULL when fine */
    bool retry;         /* worth trying again later */
    uint32_t retry_after_ms;
};
struct fetch_request {
    const char *url; /* file://, http:// or https:// */
    const char *sha256;
    struct str pull_secret;
    const char *verification_key;
    const char *have;
    void (*stage)(void *arg, const char *text);
    void (*done)(void *arg, struct fetch_result *result);
    void *arg;
};
struct fetcher *fetcher_new(struct loop *loop);
/* done runs once, later, on the loop. */
struct fetch *fetch_start(struct fetcher *f, const struct fetch_request *r);
/* done will not run. */
void fetch_cancel(struct fetch *f);
void fetcher_free(struct fetcher *f);

#endif
