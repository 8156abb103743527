/* SPDX-License-Identifier: Apache-2.0
 *
 * The module of an image: reference, place, manifest, platform, signature, layer. Everything users push is read: Docker
 * and OCI images with a plugin.wasm in a tar layer, artifacts with one, two or three layers of any of the media types
 * in use (manifest.h, layer.h say how). Digests are checked on everything; mirrors are tried in order.
 */
#ifndef WEIR_FETCH_OCI_H
#define WEIR_FETCH_OCI_H

#include "fetch/encode.h"
#include "fetch/failure.h"
#include "fetch/registry.h"
#include "fetch/transfer.h"

struct oci_pull;
struct oci_pull_result {
    struct failure *failure; /* reason NULL: it worked */
    char *bytes;             /* the module; may be taken (set to NULL). NULL when failed or unchanged */
    size_t n;
    bool unchanged, verified;
    char module_sha256[SHA256_HEX + 1];
    char digest[DIGEST_TEXT_MAX], index_digest[DIGEST_TEXT_MAX]; /* "" when not known */
    const char *from, *warning;                                  /* borrowed; NULL */
};
/* Everything is copied but what is marked; NULL or STR_NONE: none. */
struct oci_pull_request {
    struct loop *loop;
    struct transfers *transfers;
    const struct registry_table *registries; /* outlives the pull */
    const char *config_file;                 /* Docker's */
    const char *reference;                   /* with or without oci:// */
    const char *sha256;                      /* 64 hex: of the manifest, or of an index on the way to it */
    struct str pull_secret;
    const char *verification_key;
    const char *have, *have_index; /* "sha256:...": of the manifest, and of its index, whose module the caller has */
    size_t max_bytes;
    void (*stage)(void *arg, const char *text);
    void (*done)(void *arg, struct oci_pull_result *result); /* once, later */
    void *arg;
};
struct oci_pull *oci_pull_start(const struct oci_pull_request *r);
/* done will not run. */
void oci_pull_cancel(struct oci_pull *p);

#endif
