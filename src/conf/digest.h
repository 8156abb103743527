/* SPDX-License-Identifier: Apache-2.0
 *
 * SHA-256, and the digest of a document's meaning. libcrypto shows in digest.c alone.
 */
#ifndef WEIR_CONF_DIGEST_H
#define WEIR_CONF_DIGEST_H

#include "base/str.h"

struct conf_memory;
struct node;

enum { DIGEST_BYTES = 32 };

void digest_sha256(struct str data, uint8_t out[DIGEST_BYTES]);
/* "sha256:0123..." (64 hex digits): what stands for a secret where it must not show. */
void digest_write_hidden(struct strbuf *out, struct str secret);
/* Of the object without metadata.{resourceVersion, generation, managedFields, uid} and status, with its namespace: what
 * has the same digest means the same. */
void digest_object(struct conf_memory *scratch, const struct node *root, const char *ns, uint8_t out[DIGEST_BYTES]);

#endif
