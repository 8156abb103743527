/* SPDX-License-Identifier: Apache-2.0
 *
 * Signatures of modules: does this key say that this digest is what it should be? Two forms:
 *
 *   cosign     a "simple signing" payload (JSON that names the digest of the manifest), and a signature over the
 *              payload's bytes; stored in the registry as the tag sha256-<hex>.sig, or as a referrer
 *   detached   a signature over the digest itself: over the 71 bytes "sha256:<64 lower hex>" without a line end, as
 *              printf %s "sha256:..." | openssl dgst -sha256 -sign key.pem
 *              (ed25519: openssl pkeyutl -sign -rawin -inkey key.pem -in FILE, with those bytes in FILE)
 *
 * Keys are PEM: "BEGIN PUBLIC KEY", ECDSA P-256, P-384 and P-521, ed25519, RSA of 2048 to 8192 bits (PKCS#1 v1.5, SHA-256,
 * as cosign); of up to 8 in one text any will do. ECDSA is over SHA-256; with P-384 and P-521 also over SHA-384 and SHA-512. Everything blocks (micro- to
 * milliseconds): not for a loop's thread when it can be helped. Errors are texts for mem_free; NULL is good.
 */
#ifndef WEIR_FETCH_SIGNATURE_H
#define WEIR_FETCH_SIGNATURE_H

#include "base/str.h"

enum { SIGNATURE_KEY_MAX = 64 * 1024, SIGNATURE_PAYLOAD_MAX = 64 * 1024, SIGNATURE_MAX = 2048 };

/* NULL: a public key this file can use. */
char *signature_check_key(const char *pem);
/* Is the signature good, and does the payload say `digest` ("sha256:...")? The signature is looked at first: bytes that
 * nobody signed are not even parsed. */
char *signature_check_cosign(const char *pem, struct str payload, struct str signature_base64, const char *digest);
/* signature: as openssl writes it, or base64 of that (line ends around it are fine). */
char *signature_check_detached(const char *pem, struct str bytes, struct str signature);

/* The digest that a payload names, into out (room for 80). Parses JSON of an unknown origin; the fuzz target's door. */
char *signature_payload_digest(struct str payload, char out[80]);

/* ---- making them (weir sign) ---- */

/* The payload for a digest; reference: what was signed, "registry/repository", for whoever reads it. */
void signature_payload_write(const char *reference, const char *digest, struct strbuf *out);
/* Signs bytes with a private key (PEM, not encrypted); the signature is appended to out. */
char *signature_make(const char *private_pem, struct str bytes, struct strbuf *out);
/* A new ECDSA P-256 pair, as PEM. */
char *signature_make_key(struct strbuf *private_pem, struct strbuf *public_pem);
void signature_base64(struct str bytes, struct strbuf *out);

#endif
