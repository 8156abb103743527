/* SPDX-License-Identifier: Apache-2.0
 *
 * Names of images as Docker reads them (github.com/distribution/reference): [registry/]repository[:tag][@digest]. The
 * first component is a registry when it has a dot, a colon, an upper-case letter, or is "localhost"; otherwise the name
 * is Docker Hub's. The table of registry.h may have another opinion of the first component, so the words as they were
 * written are kept.
 */
#ifndef WEIR_FETCH_REFERENCE_H
#define WEIR_FETCH_REFERENCE_H

#include "base/str.h"

enum { REFERENCE_MAX = 1024, REPOSITORY_MAX = 255 };

struct reference {
    char *name;       /* as written, without tag and digest: "my-registry/my-wasm-filter" */
    char *registry;   /* "docker.io" when none was written (or one of its other names was) */
    char *repository; /* "library/" is added for Docker Hub's own */
    char *tag;        /* "latest" when neither tag nor digest was written; NULL when only a digest was */
    char *digest;     /* "sha256:..."; NULL. With a tag too it is the digest that counts */
    bool by_default;  /* no registry was written */
};

/* text: with or without "oci://". False and *error (mem_free) when it is no reference. */
NODISCARD bool reference_parse(struct str text, struct reference *out, char **error);
/* text (without scheme) without "user:password@" before its host, for messages. A digest's '@' stays. */
struct str reference_without_user(struct str text);
void reference_free(struct reference *r);
/* ":tag" or "@digest", what is asked for. */
void reference_write_version(const struct reference *r, struct strbuf *out);
/* "registry/repository:tag", whole. */
void reference_write(const struct reference *r, struct strbuf *out);

#endif
