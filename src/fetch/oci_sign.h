/* SPDX-License-Identifier: Apache-2.0
 *
 * Signs what a reference names now, and puts the signature where oci_verify.h looks for it:
 *
 *   cosign     a layer more in the image behind the tag sha256-<hex>.sig, as `cosign sign --key` leaves it; signatures of
 *              other keys stay
 *   detached   an artifact of type OCI_SIGNATURE_TYPE that refers to the manifest; on registries without the referrers
 *              API it is listed behind the tag sha256-<hex> too
 */
#ifndef WEIR_FETCH_OCI_SIGN_H
#define WEIR_FETCH_OCI_SIGN_H

#include "fetch/oci_verify.h"

enum oci_sign_form { OCI_SIGN_COSIGN, OCI_SIGN_DETACHED };

struct oci_sign_result {
    struct failure *failure;       /* reason NULL: it worked */
    char digest[DIGEST_TEXT_MAX];  /* what was signed */
    char where[DIGEST_TEXT_MAX];   /* tag or digest of the signature */
};
/* version: tag or digest. name: "registry/repository", which a cosign payload repeats. Texts are copied; the repository
 * must have been made for pushing, and outlives it. done: once, later. */
void oci_sign_start(struct repository *r, const char *version, const char *name, const char *private_pem,
                    enum oci_sign_form form, void (*done)(void *arg, const struct oci_sign_result *result), void *arg);

#endif
