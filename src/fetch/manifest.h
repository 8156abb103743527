/* SPDX-License-Identifier: Apache-2.0
 *
 * Manifests and indexes of images and artifacts (OCI image specification 1.1, Docker's image manifest version 2 schema
 * 2), read from the bytes of a registry: bounded in every count and length. And the decision which child of an index
 * and which layers are looked at for a module.
 */
#ifndef WEIR_FETCH_MANIFEST_H
#define WEIR_FETCH_MANIFEST_H

#include "base/str.h"

enum { MANIFEST_BYTES_MAX = 4 * 1024 * 1024, MANIFEST_LAYERS_MAX = 128, MANIFEST_CHILDREN_MAX = 256 };

/* What can be done with the bytes of a layer. */
enum layer_kind {
    LAYER_MODULE,  /* a module as it is, by its media type, title or artifact type */
    LAYER_ARCHIVE, /* a tar, packed or not */
    LAYER_OTHER,
};
struct descriptor {
    char *media_type, *digest; /* digest_is_good */
    uint64_t size;
    char *title;                  /* org.opencontainers.image.title; NULL */
    char *cosign;                 /* dev.cosignproject.cosign/signature; NULL */
    char *artifact_type;          /* NULL */
    char *os, *architecture;      /* of an index's child; NULL */
    bool attestation;             /* about another child, nothing to run */
    enum layer_kind kind;         /* of a layer */
};
struct manifest {
    bool is_index;
    char *media_type, *artifact_type; /* NULL when not said */
    struct descriptor config;         /* digest NULL: none */
    struct descriptor *list;          /* layers, or an index's children */
    size_t count;
};

/* NULL and *error (mem_free) when it is none. content_type: of the answer, may be empty. Takes milliseconds for large
 * ones: not for a loop's thread. */
struct manifest *manifest_parse(struct str json, struct str content_type, char **error);
void manifest_free(struct manifest *m);

/* The children of an index in the order they are worth looking at, into order (room for MANIFEST_CHILDREN_MAX); returns
 * how many. pin: "sha256:..." of the one that is wanted, or NULL. The order: the pinned one; linux/amd64, as Istio;
 * Wasm platforms (architecture wasm); linux of any kind; without a platform; the rest when it
 * is the only one. Attestations never. */
size_t manifest_children(const struct manifest *index, const char *pin, const struct descriptor **order);
/* The layers to look at for a module, in order, into order (room for MANIFEST_LAYERS_MAX): layers that are modules, the
 * one titled plugin.wasm first; without any, the archives from last to first. */
size_t manifest_layers(const struct manifest *m, const struct descriptor **order);

#endif
