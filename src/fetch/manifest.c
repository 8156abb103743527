/* SPDX-License-Identifier: Apache-2.0
 *
 * See manifest.h.
 */
#include "fetch/manifest.h"

#include <jansson.h>

#include "fetch/encode.h"

enum { TEXT_MAX = 4096 };

/* ---- reading ---- */

static void descriptor_fini(struct descriptor *d)
{
    char *const all[] = {d->media_type, d->digest, d->title, d->cosign, d->artifact_type, d->os, d->architecture};
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        mem_free(all[i]);
}

void manifest_free(struct manifest *m)
{
    if (m == NULL)
        return;
    for (size_t i = 0; i < m->count; i++)
        descriptor_fini(&m->list[i]);
    descriptor_fini(&m->config);
    mem_free(m->list);
    mem_free(m->media_type);
    mem_free(m->artifact_type);
    mem_free(m);
}

static char *text_of(const json_t *o, const char *name)
{
    const char *s = json_string_value(json_object_get(o, name));
    return s != NULL && s[0] != '\0' && strlen(s) <= TEXT_MAX ? mem_strdup(s) : NULL;
}

static const char *read_descriptor(const json_t *o, struct descriptor *d)
{
    const json_t *size = json_object_get(o, "size"), *notes = json_object_get(o, "annotations");
    const json_t *platform = json_object_get(o, "platform");
    d->media_type = text_of(o, "mediaType");
    d->digest = text_of(o, "digest");
    d->title = text_of(notes, "org.opencontainers.image.title");
    d->cosign = text_of(notes, "dev.cosignproject.cosign/signature");
    d->artifact_type = text_of(o, "artifactType");
    d->os = text_of(platform, "os");
    d->architecture = text_of(platform, "architecture");
    d->attestation = json_object_get(notes, "vnd.docker.reference.type") != NULL;
    if (d->media_type == NULL)
        d->media_type = mem_strdup("");
    if (d->digest == NULL || !digest_is_good(str_of(d->digest)))
        return "names a blob without a sha256 digest";
    if (!json_is_integer(size) || json_integer_value(size) < 0)
        return "names a blob without a size";
    d->size = (uint64_t)json_integer_value(size);
    return NULL;
}

static const char *read_list(const json_t *list, size_t max, struct manifest *m)
{
    size_t n = json_array_size(list), i;
    const json_t *o;
    if (n > max)
        return "has too many entries";
    m->list = mem_zalloc((n > 0 ? n : 1) * sizeof *m->list);
    json_array_foreach(list, i, o)
    {
        const char *fault = read_descriptor(o, &m->list[m->count++]);
        if (fault != NULL)
            return fault;
    }
    return NULL;
}

static const char *read_document(const json_t *doc, struct str content_type, struct manifest *m)
{
    if (!json_is_object(doc))
        return "is not a JSON object";
    m->media_type = text_of(doc, "mediaType");
    m->artifact_type = text_of(doc, "artifactType");
    struct str type = m->media_type != NULL ? str_of(m->media_type) : content_type;
    if (json_integer_value(json_object_get(doc, "schemaVersion")) == 1 || json_object_get(doc, "fsLayers") != NULL)
        return "is of Docker's schema 1, which is too old";
    /* Bytes that could be read as either are nobody's honest manifest (GHSA-77vh-xpmg-72qh). */
    const json_t *children = json_object_get(doc, "manifests"), *layers = json_object_get(doc, "layers");
    if (children != NULL && layers != NULL)
        return "has both manifests and layers";
    if (json_is_array(children)) {
        m->is_index = true;
        return read_list(children, MANIFEST_CHILDREN_MAX, m);
    }
    if (layers == NULL) /* artifact manifests of ORAS and the 1.1 drafts */
        layers = json_object_get(doc, "blobs");
    const json_t *config = json_object_get(doc, "config");
    if (layers != NULL && !json_is_array(layers))
        return "has layers that are no list";
    if (layers == NULL && config == NULL)
        return str_find_str(type, STR("html")) >= 0 ? "is a web page"
                                                    : "is no manifest: it has neither manifests nor layers";
    const char *fault = config != NULL ? read_descriptor(config, &m->config) : NULL;
    return fault != NULL ? fault : read_list(layers, MANIFEST_LAYERS_MAX, m);
}

/* ---- what layers are ---- */

static bool says(const char *text, const char *word) { return text != NULL && strstr(text, word) != NULL; }
static bool ends(const char *text, const char *tail) { return text != NULL && str_ends(str_of(text), str_of(tail)); }

static bool is_tar_type(const char *type)
{
    return says(type, ".tar") || ends(type, "+tar") || says(type, "/x-tar") || says(type, "/tar") ||
           ends(type, "/gzip") || ends(type, "/x-gzip") || ends(type, "/zstd") || ends(type, "x-gtar");
}

static enum layer_kind kind_of(const struct manifest *m, const struct descriptor *d)
{
    bool tar = is_tar_type(d->media_type);
    if (!tar && (ends(d->media_type, "+wasm") || ends(d->media_type, "/wasm") || ends(d->media_type, ".wasm")))
        return LAYER_MODULE;
    if (!tar && ends(d->title, ".wasm"))
        return LAYER_MODULE;
    if (tar)
        return LAYER_ARCHIVE;
    bool wasm = says(m->artifact_type, "wasm") || says(m->config.media_type, "wasm");
    return wasm && m->count == 1 ? LAYER_MODULE : LAYER_OTHER;
}

struct manifest *manifest_parse(struct str json, struct str content_type, char **error)
{
    json_error_t at;
    struct manifest *m = mem_zalloc(sizeof *m);
    json_t *doc = json.n <= MANIFEST_BYTES_MAX ? json_loadb(json.n > 0 ? json.p : "", json.n, 0, &at) : NULL;
    const char *fault = doc == NULL ? "is not JSON" : read_document(doc, content_type, m);
    json_decref(doc);
    for (size_t i = 0; fault == NULL && !m->is_index && i < m->count; i++)
        m->list[i].kind = kind_of(m, &m->list[i]);
    if (fault == NULL)
        return m;
    manifest_free(m);
    *error = mem_printf("the manifest %s", fault);
    return NULL;
}

/* ---- choosing ---- */

/* The lower the better. */
static unsigned child_rank(const struct descriptor *d, const char *pin)
{
    enum { PINNED, ISTIOS, WASM, LINUX, PLAIN, REST };
    bool unknown = d->os == NULL || strcmp(d->os, "unknown") == 0;
    if (pin != NULL && strcmp(d->digest, pin) == 0)
        return PINNED;
    if (d->architecture != NULL && strcmp(d->architecture, "wasm") == 0)
        return WASM;
    if (unknown)
        return PLAIN;
    if (strcmp(d->os, "linux") != 0)
        return REST;
    return d->architecture != NULL && strcmp(d->architecture, "amd64") == 0 ? ISTIOS : LINUX;
}

size_t manifest_children(const struct manifest *index, const char *pin, const struct descriptor **order)
{
    enum { RANKS = 6, REST = 5 };
    size_t n = 0;
    for (unsigned rank = 0; rank < RANKS; rank++)
        for (size_t i = 0; i < index->count; i++)
            if (!index->list[i].attestation && child_rank(&index->list[i], pin) == rank && (rank < REST || n == 0))
                order[n++] = &index->list[i];
    return n;
}

size_t manifest_layers(const struct manifest *m, const struct descriptor **order)
{
    size_t n = 0;
    for (size_t i = 0; i < m->count; i++)
        if (m->list[i].kind == LAYER_MODULE)
            order[n++] = &m->list[i];
    for (size_t i = 1; i < n; i++) {
        const struct descriptor *d = order[i];
        if (d->title == NULL || strcmp(d->title, "plugin.wasm") != 0)
            continue;
        memmove(order + 1, order, i * sizeof *order);
        order[0] = d;
        break;
    }
    for (size_t i = m->count; n == 0 || order[n - 1]->kind == LAYER_ARCHIVE;) {
        if (i == 0)
            break;
        if (m->list[--i].kind == LAYER_ARCHIVE)
            order[n++] = &m->list[i];
    }
    return n;
}
