/* SPDX-License-Identifier: Apache-2.0
 *
 * Gets the bytes of a module: from a file, or by http(s) with libcurl on the control loop. Unpacks nothing (unwrap.h).
 * Bounded in size and time; only http and https, also on redirects; the address guard looks at every address about to
 * be connected to (every hop, whatever DNS says).
 */
#ifndef WEIR_FETCH_FETCH_H
#define WEIR_FETCH_FETCH_H

#include "io/loop.h"

enum { FETCH_BYTES_MAX = 256 * 1024 * 1024 };

struct fetcher;
struct fetch;
struct fetch_result {
    char *bytes; /* taken by the callback (mem_free); NULL when failed */
    size_t n;
    const char *error; /* borrowed; NULL when fine */
    bool retry;        /* worth trying again later */
};
struct fetcher *fetcher_new(struct loop *loop);
/* url: file://, http:// or https://. done runs once, later, on the loop. */
struct fetch *fetch_start(struct fetcher *f, const char *url, void (*done)(void *arg, struct fetch_result *result),
                          void *arg);
/* done will not run. */
void fetch_cancel(struct fetch *f);
void fetcher_free(struct fetcher *f);

#endif
