/* SPDX-License-Identifier: Apache-2.0
 *
 * Gets a module: from a file, by http(s) (raw, gzip or tar, in any order, as Istio takes it), or out of an image in a
 * registry (oci://, or a reference without a scheme). Whatever comes begins with "\0asm"; digests and signatures that were
 * asked for have been checked. Bounded in size and time. The loop is never blocked: files, digests, unpacking and
 * signatures are libuv's pool's, credential helpers are children.
 */
#ifndef WEIR_FETCH_FETCH_H
#define WEIR_FETCH_FETCH_H

#include "fetch/registry.h"
#include "fetch/transfer.h"

enum { FETCH_BYTES_MAX = 256 * 1024 * 1024 };

struct fetcher;
struct fetch;

struct fetcher_options {
    const struct registry_table *registries; /* outlives the fetcher; NULL: empty */
    const char *docker_config;               /* directory; NULL: $DOCKER_CONFIG, ~/.docker. "": none */
    struct transfers *transfers;             /* outlives the fetcher; NULL: its own, with the guard's defaults */
};
/* options may be NULL. */
struct fetcher *fetcher_new(struct loop *loop, const struct fetcher_options *options);
/* Cancels what runs. */
void fetcher_free(struct fetcher *f);

struct fetch_result {
    char *bytes; /* the module; taken by the callback when it sets this to NULL (mem_free). NULL: failed or unchanged */
    size_t n;
    bool unchanged;         /* oci: it is what `have` names */
    bool verified;          /* verification_key was given, and the signature is good */
    char module_sha256[65]; /* of bytes; "" without them */
    char digest[80];        /* oci: "sha256:..." of the manifest; "" else */
    char index_digest[80];  /* oci: of the index it was found in; "" */
    const char *from;       /* where it came from, without credentials */
    const char *warning;    /* NULL: none */
    const char *reason;     /* a word of failure.h, or NULL. All four are borrowed */
    const char *error;      /* NULL: fine */
    bool retry;             /* worth trying again later */
    uint32_t retry_after_ms;
};
/* Copied; NULL or STR_NONE: not given. */
struct fetch_request {
    const char *url; /* file://, http://, https://, oci://, or a reference without a scheme */
    /* 64 hex digits. oci: digest of the manifest, or of the index; file: of the bytes; http: of the module once unpacked */
    const char *sha256;
    struct str pull_secret;        /* text of .dockerconfigjson: only these credentials then; else the Docker config's */
    const char *verification_key;  /* PEM. Only images are signed: other urls are refused with it */
    const char *have, *have_index; /* oci: digests of the manifest and of its index whose module the caller has already */
    void (*stage)(void *arg, const char *text); /* "resolving", "downloading 3 of 5 MiB", ... */
    void (*done)(void *arg, struct fetch_result *result); /* once, on the loop, later */
    void *arg;
};
struct fetch *fetch_start(struct fetcher *f, const struct fetch_request *request);
/* done will not run. */
void fetch_cancel(struct fetch *f);

/* The url as it may be shown: without user and password, and without a query (of a presigned url that is as good as a
 * password). Appends. */
void fetch_write_url(const char *url, struct strbuf *out);

#endif
