/* SPDX-License-Identifier: Apache-2.0
 *
 * See oci_verify.h. A signature that is there and bad is no reason to stop: anybody who may push may add one. Only when
 * none is good does it matter whether there were any.
 */
#include "fetch/oci_verify.h"

#include <stdio.h>

#include "fetch/signature.h"

enum { SIGNATURES_MAX = 32, REFERRERS_MAX = 64 };

/* Where the search stands for one digest. */
enum place { COSIGN_TAG, REFERRERS_API, REFERRERS_TAG, PLACES };

struct oci_verify {
    struct loop *loop;
    struct repository *repository;
    struct oci_read *read;
    uv_work_t work;
    bool working, cancelled;
    char *pem, *digests[OCI_VERIFY_DIGESTS_MAX];
    size_t digest_count, digest; /* the one that is looked at */
    enum place place;
    struct manifest *referrers; /* an index; NULL */
    size_t referrer;
    struct manifest *manifest; /* whose layers are looked at; NULL */
    size_t layer;
    bool detached;
    unsigned seen; /* signatures looked at */
    /* on the pool */
    struct strbuf bytes;
    char *fault; /* NULL: good */
    char *last;  /* what the last bad one said */
    struct failure failure;
    void (*done)(void *arg, struct failure *failure);
    void *arg;
};

static void look_at_layer(struct oci_verify *v);

static void verify_free(struct oci_verify *v)
{
    for (size_t i = 0; i < v->digest_count; i++)
        mem_free(v->digests[i]);
    mem_free(v->pem);
    mem_free(v->fault);
    mem_free(v->last);
    manifest_free(v->referrers);
    manifest_free(v->manifest);
    strbuf_free(&v->bytes);
    failure_clear(&v->failure);
    mem_free(v);
}

static void verify_end(struct oci_verify *v)
{
    v->done(v->arg, &v->failure);
    verify_free(v);
}

static const char *digest_of(const struct oci_verify *v) { return v->digests[v->digest]; }

/* ---- one signature ---- */

static void check_work(uv_work_t *work)
{
    struct oci_verify *v = work->data;
    struct str bytes = strbuf_str(&v->bytes);
    v->fault = v->detached
                   ? signature_check_detached(v->pem, str_of(digest_of(v)), bytes)
                   : signature_check_cosign(v->pem, bytes, str_of(v->manifest->list[v->layer].cosign), digest_of(v));
}

static void check_done(uv_work_t *work, int status)
{
    struct oci_verify *v = work->data;
    (void)status;
    v->working = false;
    if (v->cancelled) {
        verify_free(v);
    } else if (v->fault == NULL) {
        verify_end(v);
    } else {
        mem_free(v->last);
        v->last = v->fault;
        v->fault = NULL;
        v->layer++;
        look_at_layer(v);
    }
}

/* A blob that is not there or not as it should be is a bad signature; a registry that does not answer is not. */
static bool is_bad_bytes(const struct failure *f)
{
    static const char *const reasons[] = {"NotFound", "TooLarge", "LengthMismatch", "DigestMismatch", "BadImage"};
    for (size_t i = 0; i < ARRAY_LEN(reasons); i++)
        if (strcmp(f->reason, reasons[i]) == 0)
            return true;
    return false;
}

static void on_signature(void *arg, struct oci_read_result *result)
{
    struct oci_verify *v = arg;
    v->read = NULL;
    if (result->failure->reason != NULL && is_bad_bytes(result->failure)) {
        mem_free(v->last);
        v->last = mem_strdup(result->failure->text);
        v->layer++;
        look_at_layer(v);
        return;
    }
    if (result->failure->reason != NULL) {
        failure_move(&v->failure, result->failure);
        verify_end(v);
        return;
    }
    strbuf_free(&v->bytes);
    v->bytes = result->bytes;
    result->bytes = (struct strbuf){0};
    v->working = true;
    v->work.data = v;
    ASSERT(uv_queue_work(&v->loop->uv, &v->work, check_work, check_done) == 0);
}

/* ---- where they may be ---- */

static void next_referrer(struct oci_verify *v);
static void next_place(struct oci_verify *v);

static void look_at_layer(struct oci_verify *v)
{
    while (v->layer < v->manifest->count && !v->detached && v->manifest->list[v->layer].cosign == NULL)
        v->layer++;
    if (v->layer >= v->manifest->count || (v->detached && v->layer > 0) || v->seen >= SIGNATURES_MAX) {
        next_referrer(v);
        return;
    }
    v->seen++;
    v->read = oci_read_blob(v->loop, v->repository, &v->manifest->list[v->layer],
                            v->detached ? SIGNATURE_MAX : SIGNATURE_PAYLOAD_MAX, NULL, on_signature, v);
}

/* False: the registry did not answer, and the search is over. */
static bool is_answer(struct oci_verify *v, struct oci_read_result *result)
{
    if (result->failure->reason == NULL || is_bad_bytes(result->failure) ||
        (v->place == REFERRERS_API && strncmp(result->failure->reason, "Fetch", 5) == 0))
        return true; /* registries without the referrers API say so in every way: 400, 404, 405 */
    failure_move(&v->failure, result->failure);
    verify_end(v);
    return false;
}

static void on_signature_manifest(void *arg, struct oci_read_result *result)
{
    struct oci_verify *v = arg;
    v->read = NULL;
    if (!is_answer(v, result))
        return;
    if (result->manifest == NULL || result->manifest->is_index) {
        next_referrer(v);
        return;
    }
    manifest_free(v->manifest);
    v->manifest = result->manifest;
    result->manifest = NULL;
    v->layer = 0;
    look_at_layer(v);
}

static bool is_cosigns(const char *type) { return type != NULL && strstr(type, "cosign.artifact.sig") != NULL; }

/* The next manifest that may be a signature among the referrers; the next place when there are no more. */
static void next_referrer(struct oci_verify *v)
{
    while (v->referrers != NULL && v->referrer < v->referrers->count && v->referrer < REFERRERS_MAX) {
        const struct descriptor *d = &v->referrers->list[v->referrer++];
        v->detached = d->artifact_type != NULL && strcmp(d->artifact_type, OCI_SIGNATURE_TYPE) == 0;
        if (!v->detached && !is_cosigns(d->artifact_type))
            continue;
        v->read = oci_read_manifest(v->loop, v->repository, d->digest, NULL, on_signature_manifest, v);
        return;
    }
    next_place(v);
}

static void on_referrers(void *arg, struct oci_read_result *result)
{
    struct oci_verify *v = arg;
    v->read = NULL;
    if (!is_answer(v, result))
        return;
    manifest_free(v->referrers);
    v->referrers = NULL;
    v->referrer = 0;
    if (result->manifest != NULL && result->manifest->is_index) {
        v->referrers = result->manifest;
        result->manifest = NULL;
        if (v->place == REFERRERS_API) /* who has the API has no need of the tag */
            v->place = REFERRERS_TAG;
    }
    next_referrer(v);
}

static void look_at_place(struct oci_verify *v)
{
    char path[DIGEST_TEXT_MAX + 32], tag[DIGEST_TEXT_MAX + 32];
    const char *hex = digest_of(v) + 7;
    v->detached = false;
    manifest_free(v->referrers);
    v->referrers = NULL;
    switch (v->place) {
    case COSIGN_TAG:
        (void)snprintf(tag, sizeof tag, "sha256-%s.sig", hex);
        v->read = oci_read_manifest(v->loop, v->repository, tag, NULL, on_signature_manifest, v);
        break;
    case REFERRERS_API:
        (void)snprintf(path, sizeof path, "referrers/%s", digest_of(v));
        v->read = oci_read_manifest(v->loop, v->repository, digest_of(v), path, on_referrers, v);
        break;
    case REFERRERS_TAG:
        (void)snprintf(tag, sizeof tag, "sha256-%s", hex);
        v->read = oci_read_manifest(v->loop, v->repository, tag, NULL, on_referrers, v);
        break;
    case PLACES: ASSERT(false);
    }
}

static void next_place(struct oci_verify *v)
{
    if (v->place + 1 < PLACES) {
        v->place++;
        look_at_place(v);
    } else if (v->digest + 1 < v->digest_count) {
        v->digest++;
        v->place = COSIGN_TAG;
        look_at_place(v);
    } else {
        char *bad_key = signature_check_key(v->pem);
        if (bad_key != NULL)
            failure_set(&v->failure, "SignatureInvalid", false, "verificationKey: %s", bad_key);
        else if (v->seen == 0)
            failure_set(&v->failure, "SignatureMissing", true, "nobody has signed %s", v->digests[0]);
        else
            failure_set(&v->failure, "SignatureInvalid", true, "%u signatures of %s, none good: %s", v->seen,
                        v->digests[0], v->last != NULL ? v->last : "");
        mem_free(bad_key);
        verify_end(v);
    }
}

struct oci_verify *oci_verify_start(struct loop *loop, struct repository *r, const char *pem,
                                    const char *const *digests, size_t count,
                                    void (*done)(void *arg, struct failure *failure), void *arg)
{
    struct oci_verify *v = mem_zalloc(sizeof *v);
    ASSERT(count > 0 && count <= OCI_VERIFY_DIGESTS_MAX);
    v->loop = loop;
    v->repository = r;
    v->pem = mem_strdup(pem);
    for (; v->digest_count < count; v->digest_count++)
        v->digests[v->digest_count] = mem_strdup(digests[v->digest_count]);
    v->done = done;
    v->arg = arg;
    look_at_place(v);
    return v;
}

void oci_verify_cancel(struct oci_verify *v)
{
    v->cancelled = true;
    if (v->read != NULL)
        oci_read_cancel(v->read);
    if (!v->working)
        verify_free(v);
}
