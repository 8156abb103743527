/* SPDX-License-Identifier: Apache-2.0
 *
 * Is there a signature in the repository that a key and a digest agree with? Looked for, in this order, for each digest:
 *   sha256-<hex>.sig      cosign's tag: layers are payloads, their annotation the signature; one good one suffices
 *   referrers             of artifact type application/vnd.weir.signature.v1 (the first layer is a detached signature over
 *                         the digest's text) or cosign's; by the referrers API, or the tag sha256-<hex>
 * Offline: no transparency log and no certificates, the key alone. Sigstore bundles (cosign 3's default) are not read.
 */
#ifndef WEIR_FETCH_OCI_VERIFY_H
#define WEIR_FETCH_OCI_VERIFY_H

#include "fetch/oci_read.h"

#define OCI_SIGNATURE_TYPE "application/vnd.weir.signature.v1"

enum { OCI_VERIFY_DIGESTS_MAX = 4 };

struct oci_verify;
/* Texts are copied. failure->reason is NULL when it is signed; SignatureMissing, SignatureInvalid, or why the registry
 * did not answer. Once, later. */
struct oci_verify *oci_verify_start(struct loop *loop, struct repository *r, const char *pem, const char *const *digests,
                                    size_t count, void (*done)(void *arg, struct failure *failure), void *arg);
/* done will not run. */
void oci_verify_cancel(struct oci_verify *v);

#endif
