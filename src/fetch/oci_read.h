/* SPDX-License-Identifier: Apache-2.0
 *
 * One manifest or one blob of a repository, whole: fetched, its size and digest checked and (a manifest) parsed, the
 * latter on libuv's pool.
 */
#ifndef WEIR_FETCH_OCI_READ_H
#define WEIR_FETCH_OCI_READ_H

#include "fetch/encode.h"
#include "fetch/manifest.h"
#include "fetch/repository.h"

#define OCI_ACCEPT                                                                                                     \
    "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, "            \
    "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json, "              \
    "application/vnd.oci.artifact.manifest.v1+json"

struct oci_read;
struct oci_read_result {
    struct failure *failure;      /* reason NULL: it worked; may be moved */
    struct manifest *manifest;    /* may be taken (set to NULL) */
    struct strbuf bytes;          /* of a blob; may be taken */
    char digest[DIGEST_TEXT_MAX]; /* of the manifest */
};
/* name: a tag, or "sha256:...", which is then verified. path: NULL, or "referrers/sha256:..." to read that instead.
 * done: once, later. */
struct oci_read *oci_read_manifest(struct loop *loop, struct repository *r, const char *name, const char *path,
                                   void (*done)(void *arg, struct oci_read_result *result), void *arg);
/* d: what a manifest says of it, copied; larger than max is refused without a request. progress may be NULL. */
struct oci_read *oci_read_blob(struct loop *loop, struct repository *r, const struct descriptor *d, size_t max,
                               void (*progress)(void *arg, uint64_t done, uint64_t total),
                               void (*done)(void *arg, struct oci_read_result *result), void *arg);
/* done will not run. */
void oci_read_cancel(struct oci_read *read);

#endif
