/* SPDX-License-Identifier: Apache-2.0
 *
 * See oci_sign.h. One request after the other:
 *
 *   the manifest -> what is there already under the tag -> config blob, signature blob -> the signature's manifest
 *   (-> the list behind the tag)
 *
 * What must never happen: that something else is signed than the bytes whose digest was computed here.
 */
#include "fetch/oci_sign.h"

#include <jansson.h>
#include <stdio.h>

#include "fetch/signature.h"

#define SIMPLE_SIGNING "application/vnd.dev.cosign.simplesigning.v1+json"
#define IMAGE_CONFIG   "application/vnd.oci.image.config.v1+json"
#define EMPTY_CONFIG   "application/vnd.oci.empty.v1+json"
#define IMAGE_MANIFEST "application/vnd.oci.image.manifest.v1+json"
#define IMAGE_INDEX    "application/vnd.oci.image.index.v1+json"

enum { MANIFEST_MAX = 4 * 1024 * 1024, ANSWER_MAX = 64 * 1024, STEP_LIMIT_MS = 60 * 1000 };

struct blob {
    struct strbuf bytes;
    char digest[DIGEST_TEXT_MAX];
};
struct oci_sign {
    struct repository *repository;
    char *name, *pem;
    enum oci_sign_form form;
    void (*done)(void *arg, const struct oci_sign_result *result);
    void *arg;
    char *subject_type;
    size_t subject_bytes;
    char digest[DIGEST_TEXT_MAX];
    char tag[DIGEST_TEXT_MAX]; /* what lists signatures of it */
    json_t *listed;            /* what is behind the tag already; NULL: nothing */
    struct strbuf signature;   /* raw */
    struct blob blobs[2];      /* config, layer */
    size_t blob;
    struct blob manifest;
    struct failure failure;
};

static void sign_end(struct oci_sign *s)
{
    struct oci_sign_result result = {.failure = &s->failure};
    memcpy(result.digest, s->digest, sizeof result.digest);
    memcpy(result.where, s->form == OCI_SIGN_COSIGN ? s->tag : s->manifest.digest, sizeof result.where);
    s->done(s->arg, &result);
    failure_clear(&s->failure);
    json_decref(s->listed);
    strbuf_free(&s->signature);
    strbuf_free(&s->manifest.bytes);
    for (size_t i = 0; i < ARRAY_LEN(s->blobs); i++)
        strbuf_free(&s->blobs[i].bytes);
    mem_free(s->subject_type);
    mem_free(s->name);
    mem_free(s->pem);
    mem_free(s);
}

/* True: it has ended. */
static bool sign_failed(struct oci_sign *s, struct repository_answer *a)
{
    if (a->failure->reason == NULL)
        return false;
    failure_move(&s->failure, a->failure);
    sign_end(s);
    return true;
}

static void ask(struct oci_sign *s, const struct repository_request *request,
                void (*done)(void *arg, struct repository_answer *a))
{
    struct repository_request r = *request;
    r.max_bytes = r.max_bytes > 0 ? r.max_bytes : ANSWER_MAX;
    r.total_ms = STEP_LIMIT_MS;
    r.done = done;
    r.arg = s;
    repository_ask(s->repository, &r);
}

static void put_manifest(struct oci_sign *s, const char *name, const char *type, struct str bytes,
                         void (*done)(void *arg, struct repository_answer *a))
{
    char *path = mem_printf("manifests/%s", name);
    ask(s,
        &(struct repository_request){
            .method = "PUT", .path = path, .content_type = type, .body = bytes, .has_body = true},
        done);
    mem_free(path);
}

static void blob_set(struct blob *b, struct str bytes)
{
    strbuf_clear(&b->bytes);
    strbuf_add(&b->bytes, bytes);
    encode_digest(bytes, b->digest);
}

static void blob_set_json(struct blob *b, json_t *value /* taken */)
{
    char *text = json_dumps(value, JSON_COMPACT);
    ASSERT(text != NULL);
    blob_set(b, str_of(text));
    free(text);
    json_decref(value);
}

static json_t *descriptor(const char *type, const char *digest, size_t bytes)
{
    return json_pack("{s:s,s:s,s:I}", "mediaType", type, "digest", digest, "size", (json_int_t)bytes);
}

/* ---- the list behind the tag ---- */

static void on_listed(void *arg, struct repository_answer *a)
{
    if (!sign_failed(arg, a))
        sign_end(arg);
}

/* The referrers tag schema (distribution specification): for registries that do not say that they have taken note. */
static void list_put(struct oci_sign *s)
{
    json_t *index = s->listed != NULL
                        ? json_incref(s->listed)
                        : json_pack("{s:i,s:s,s:[]}", "schemaVersion", 2, "mediaType", IMAGE_INDEX, "manifests");
    json_t *list = json_object_get(index, "manifests");
    json_t *one = descriptor(IMAGE_MANIFEST, s->manifest.digest, s->manifest.bytes.n);
    json_object_set_new(one, "artifactType", json_pack("s", OCI_SIGNATURE_TYPE));
    json_array_append_new(list, one);
    struct blob text = {0};
    blob_set_json(&text, index);
    strbuf_free(&s->blobs[1].bytes);
    s->blobs[1] = text; /* kept until it is sent */
    put_manifest(s, s->tag, IMAGE_INDEX, strbuf_str(&s->blobs[1].bytes), on_listed);
}

/* ---- the signature's manifest ---- */

static void on_manifest_put(void *arg, struct repository_answer *a)
{
    struct oci_sign *s = arg;
    if (sign_failed(s, a))
        return;
    bool noted = a->x != NULL && transfer_header(a->x, "oci-subject").p != NULL;
    if (s->form == OCI_SIGN_COSIGN || noted)
        sign_end(s);
    else
        list_put(s);
}

static json_t *cosign_manifest(struct oci_sign *s)
{
    json_t *layer = descriptor(SIMPLE_SIGNING, s->blobs[1].digest, s->blobs[1].bytes.n);
    struct strbuf text = {0};
    encode_base64(strbuf_str(&s->signature), &text);
    strbuf_addc(&text, '\0');
    json_object_set_new(layer, "annotations", json_pack("{s:s}", "dev.cosignproject.cosign/signature", text.p));
    strbuf_free(&text);
    json_t *m = s->listed != NULL
                    ? json_incref(s->listed)
                    : json_pack("{s:i,s:s,s:o,s:[]}", "schemaVersion", 2, "mediaType", IMAGE_MANIFEST, "config",
                                descriptor(IMAGE_CONFIG, s->blobs[0].digest, s->blobs[0].bytes.n), "layers");
    json_array_append_new(json_object_get(m, "layers"), layer);
    return m;
}

static json_t *detached_manifest(struct oci_sign *s)
{
    return json_pack("{s:i,s:s,s:s,s:o,s:[o],s:o}", "schemaVersion", 2, "mediaType", IMAGE_MANIFEST, "artifactType",
                     OCI_SIGNATURE_TYPE, "config", descriptor(EMPTY_CONFIG, s->blobs[0].digest, s->blobs[0].bytes.n),
                     "layers", descriptor(OCI_SIGNATURE_TYPE, s->blobs[1].digest, s->blobs[1].bytes.n), "subject",
                     descriptor(s->subject_type, s->digest, s->subject_bytes));
}

static void manifest_put(struct oci_sign *s)
{
    bool cosign = s->form == OCI_SIGN_COSIGN;
    blob_set_json(&s->manifest, cosign ? cosign_manifest(s) : detached_manifest(s));
    put_manifest(s, cosign ? s->tag : s->manifest.digest, IMAGE_MANIFEST, strbuf_str(&s->manifest.bytes),
                 on_manifest_put);
}

/* ---- blobs ---- */

static void blob_post(struct oci_sign *s);

static void on_blob_put(void *arg, struct repository_answer *a)
{
    struct oci_sign *s = arg;
    if (sign_failed(s, a))
        return;
    s->blob++;
    if (s->blob < ARRAY_LEN(s->blobs))
        blob_post(s);
    else
        manifest_put(s);
}

static void on_blob_place(void *arg, struct repository_answer *a)
{
    struct oci_sign *s = arg;
    if (sign_failed(s, a))
        return;
    struct str place = a->x != NULL ? transfer_header(a->x, "location") : STR_NONE;
    if (place.n == 0) {
        failure_set(&s->failure, "FetchFailed", false, "the registry does not say where to upload to");
        sign_end(s);
        return;
    }
    const struct blob *b = &s->blobs[s->blob];
    char *url = mem_printf("%.*s%cdigest=%s", STR_ARG(place), str_find(place, '?') >= 0 ? '&' : '?', b->digest);
    ask(s,
        &(struct repository_request){.method = "PUT",
                                     .url = url,
                                     .content_type = "application/octet-stream",
                                     .body = strbuf_str(&b->bytes),
                                     .has_body = true},
        on_blob_put);
    mem_free(url);
}

static void blob_post(struct oci_sign *s)
{
    ask(s, &(struct repository_request){.method = "POST", .path = "blobs/uploads/", .has_body = true}, on_blob_place);
}

/* ---- signing ---- */

static void sign(struct oci_sign *s)
{
    struct strbuf payload = {0};
    if (s->form == OCI_SIGN_COSIGN)
        signature_payload_write(s->name, s->digest, &payload);
    else
        strbuf_addz(&payload, s->digest);
    char *error = signature_make(s->pem, strbuf_str(&payload), &s->signature);
    if (error == NULL) {
        blob_set(&s->blobs[0], STR("{}"));
        blob_set(&s->blobs[1], strbuf_str(s->form == OCI_SIGN_COSIGN ? &payload : &s->signature));
        blob_post(s);
    } else {
        failure_set(&s->failure, "SignatureInvalid", false, "%s", error);
        sign_end(s);
    }
    mem_free(error);
    strbuf_free(&payload);
}

static void on_what_is_listed(void *arg, struct repository_answer *a)
{
    struct oci_sign *s = arg;
    if (a->failure->reason != NULL && a->status != 404) {
        (void)sign_failed(s, a);
        return;
    }
    const char *member = s->form == OCI_SIGN_COSIGN ? "layers" : "manifests";
    if (a->failure->reason == NULL) {
        s->listed = json_loadb(a->body.p, a->body.n, JSON_REJECT_DUPLICATES, NULL);
        if (!json_is_array(json_object_get(s->listed, member))) {
            failure_set(&s->failure, "BadImage", false, "what is behind the tag %s lists no signatures", s->tag);
            sign_end(s);
            return;
        }
    }
    sign(s);
}

static void on_subject(void *arg, struct repository_answer *a)
{
    struct oci_sign *s = arg;
    if (sign_failed(s, a))
        return;
    encode_digest(strbuf_str(&a->body), s->digest);
    s->subject_bytes = a->body.n;
    struct str type = a->x != NULL ? transfer_header(a->x, "content-type") : STR_NONE;
    s->subject_type = type.n > 0 ? str_dup(type) : mem_strdup(IMAGE_MANIFEST);
    snprintf(s->tag, sizeof s->tag, "sha256-%s%s", s->digest + strlen("sha256:"),
             s->form == OCI_SIGN_COSIGN ? ".sig" : "");
    char *path = mem_printf("manifests/%s", s->tag);
    ask(s, &(struct repository_request){.path = path, .accept = OCI_ACCEPT, .max_bytes = MANIFEST_MAX},
        on_what_is_listed);
    mem_free(path);
}

void oci_sign_start(struct repository *r, const char *version, const char *name, const char *private_pem,
                    enum oci_sign_form form, void (*done)(void *arg, const struct oci_sign_result *result), void *arg)
{
    struct oci_sign *s = mem_zalloc(sizeof *s);
    s->repository = r;
    s->name = mem_strdup(name);
    s->pem = mem_strdup(private_pem);
    s->form = form;
    s->done = done;
    s->arg = arg;
    char *path = mem_printf("manifests/%s", version);
    ask(s, &(struct repository_request){.path = path, .accept = OCI_ACCEPT, .max_bytes = MANIFEST_MAX}, on_subject);
    mem_free(path);
}
