/* SPDX-License-Identifier: Apache-2.0
 *
 * A module made into an image or artifact that registries take. The same module and annotations give the same digests.
 *   image      OCI image, one tar+gzip layer that holds plugin.wasm: what `docker build` of a FROM scratch makes, and
 *              what Istio reads
 *   artifact   the CNCF's Wasm layout: one layer application/wasm, config application/vnd.wasm.config.v0+json
 */
#ifndef WEIR_FETCH_IMAGE_H
#define WEIR_FETCH_IMAGE_H

#include "fetch/encode.h"

#define IMAGE_MANIFEST_TYPE "application/vnd.oci.image.manifest.v1+json"

enum image_layout { IMAGE_TAR, IMAGE_ARTIFACT };
enum { IMAGE_ANNOTATIONS_MAX = 64 };
struct image_annotation {
    struct str key, value;
};
struct image_blob {
    char *bytes;
    size_t n;
    char digest[DIGEST_TEXT_MAX];
};
struct image {
    struct image_blob config, layer, manifest;
};

/* Blocks: packs and digests. annotations go to the manifest, in their order. */
void image_make(struct image *out, enum image_layout layout, struct str module,
                const struct image_annotation *annotations, size_t count);
void image_free(struct image *image);

#endif
