/* SPDX-License-Identifier: Apache-2.0
 *
 * See image.h. The tar is the smallest there is (POSIX ustar, one file, no times and no owners), so that nothing but
 * the module decides the digest.
 */
#include "fetch/image.h"

#include <stdio.h>
#include <zlib.h>

enum { TAR_BLOCK = 512, GZIP_WINDOW = 15 + 16, MEMORY_LEVEL = 8 };

static void tar_make(struct str module, struct strbuf *out)
{
    char head[TAR_BLOCK] = "plugin.wasm";
    unsigned sum = 0;
    memcpy(head + 100, "0000644", 8);
    memcpy(head + 108, "0000000", 8);
    memcpy(head + 116, "0000000", 8);
    (void)snprintf(head + 124, 12, "%011llo", (unsigned long long)module.n);
    memcpy(head + 136, "00000000000", 12);
    memset(head + 148, ' ', 8);
    head[156] = '0';
    memcpy(head + 257, "ustar\00000", 8);
    for (size_t i = 0; i < sizeof head; i++)
        sum += (unsigned char)head[i];
    (void)snprintf(head + 148, 8, "%06o", sum);
    static const char zeros[3 * TAR_BLOCK]; /* up to the block's end, and two blocks */
    strbuf_add(out, str_span(head, sizeof head));
    strbuf_add(out, module);
    strbuf_add(out, str_span(zeros, (TAR_BLOCK - module.n % TAR_BLOCK) % TAR_BLOCK + 2 * TAR_BLOCK));
}

static void gzip(struct str in, struct strbuf *out)
{
    z_stream z = {0};
    ASSERT(in.n <= UINT_MAX);
    ASSERT(deflateInit2(&z, Z_BEST_COMPRESSION, Z_DEFLATED, GZIP_WINDOW, MEMORY_LEVEL, Z_DEFAULT_STRATEGY) == Z_OK);
    size_t cap = deflateBound(&z, in.n);
    out->p = mem_alloc(cap);
    out->cap = cap;
    z.next_in = (unsigned char *)(uintptr_t)in.p;
    z.avail_in = (unsigned)in.n;
    z.next_out = (unsigned char *)out->p;
    z.avail_out = cap < UINT_MAX ? (unsigned)cap : UINT_MAX;
    ASSERT(deflate(&z, Z_FINISH) == Z_STREAM_END);
    out->n = z.total_out;
    deflateEnd(&z);
}

static void blob_take(struct image_blob *blob, struct strbuf *b)
{
    encode_digest(strbuf_str(b), blob->digest);
    blob->n = b->n;
    blob->bytes = strbuf_take(b);
}

static void write_descriptor(struct strbuf *b, const char *name, const char *type, const struct image_blob *blob)
{
    strbuf_printf(b, "%s{\"mediaType\":\"%s\",\"digest\":\"%s\",\"size\":%zu", name, type, blob->digest, blob->n);
}

static void write_manifest(struct image *image, enum image_layout layout, const struct image_annotation *annotations,
                           size_t count)
{
    struct strbuf b = {0};
    bool tar = layout == IMAGE_TAR;
    strbuf_addz(&b, "{\"schemaVersion\":2,\"mediaType\":\"" IMAGE_MANIFEST_TYPE "\",");
    write_descriptor(
        &b, "\"config\":", tar ? "application/vnd.oci.image.config.v1+json" : "application/vnd.wasm.config.v0+json",
        &image->config);
    strbuf_addz(&b, "},\"layers\":[");
    write_descriptor(&b, "", tar ? "application/vnd.oci.image.layer.v1.tar+gzip" : "application/wasm", &image->layer);
    strbuf_addz(&b, tar ? "}]" : ",\"annotations\":{\"org.opencontainers.image.title\":\"plugin.wasm\"}}]");
    for (size_t i = 0; i < count; i++) {
        strbuf_addz(&b, i == 0 ? ",\"annotations\":{" : ",");
        strbuf_add_json(&b, annotations[i].key);
        strbuf_addc(&b, ':');
        strbuf_add_json(&b, annotations[i].value);
    }
    strbuf_addz(&b, count > 0 ? "}}" : "}");
    blob_take(&image->manifest, &b);
}

void image_make(struct image *out, enum image_layout layout, struct str module,
                const struct image_annotation *annotations, size_t count)
{
    struct strbuf tar = {0}, layer = {0}, config = {0};
    char inner[DIGEST_TEXT_MAX];
    if (layout == IMAGE_TAR) {
        tar_make(module, &tar);
        encode_digest(strbuf_str(&tar), inner);
        gzip(strbuf_str(&tar), &layer);
        strbuf_printf(&config,
                      "{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{},\"rootfs\":{\"type\":\"layers\","
                      "\"diff_ids\":[\"%s\"]},\"history\":[{\"created_by\":\"weir push\"}]}",
                      inner);
    } else {
        encode_digest(module, inner);
        strbuf_add(&layer, module);
        strbuf_printf(&config, "{\"architecture\":\"wasm\",\"os\":\"wasip1\",\"layerDigests\":[\"%s\"]}", inner);
    }
    strbuf_free(&tar);
    blob_take(&out->layer, &layer);
    blob_take(&out->config, &config);
    write_manifest(out, layout, annotations, count);
}

void image_free(struct image *image)
{
    mem_free(image->config.bytes);
    mem_free(image->layer.bytes);
    mem_free(image->manifest.bytes);
    *image = (struct image){0};
}
