/* SPDX-License-Identifier: Apache-2.0
 *
 * See push.h. One request at a time: for each blob HEAD, then (404) POST for a place, PUT or PATCHes and PUT; at the
 * end the manifest. Each answer of the upload names the place for the next piece.
 */
#include "fetch/push.h"

#include <stdio.h>

#include "fetch/repository.h"

enum { REQUEST_MS = 15 * 60 * 1000, ANSWER_MAX = 1024 * 1024, BLOBS = 2 };

struct push {
    struct push_request r;
    struct registry_places places;
    struct repository *repository;
    struct question *question;
    struct loop_task begin;
    char *where, *location;
    size_t blob; /* BLOBS: the manifest */
    size_t sent; /* of the blob */
    size_t piece;
    size_t chunk;
    struct failure failure;
};

static void blob_ask(struct push *p);
static void piece_send(struct push *p);

static const struct image_blob *blob_of(const struct push *p)
{
    return p->blob == 0 ? &p->r.image->layer : &p->r.image->config;
}

static void push_free(struct push *p)
{
    repository_free(p->repository);
    registry_places_free(&p->places);
    failure_clear(&p->failure);
    mem_free(p->where);
    mem_free(p->location);
    mem_free(p);
}

static void push_end(struct push *p)
{
    p->r.done(p->r.arg, p->where, &p->failure);
    push_free(p);
}

static void push_ask(struct push *p, struct repository_request *request)
{
    request->max_bytes = ANSWER_MAX;
    request->total_ms = REQUEST_MS;
    request->arg = p;
    p->question = repository_ask(p->repository, request);
}

/* False: it failed, and p is gone. */
static bool push_goes_on(struct push *p, struct repository_answer *a)
{
    p->question = NULL;
    if (a->failure->reason == NULL)
        return true;
    failure_move(&p->failure, a->failure);
    push_end(p);
    return false;
}

static bool digest_agrees(struct push *p, struct repository_answer *a, const char *digest)
{
    struct str said = transfer_header(a->x, "docker-content-digest");
    if (!digest_is_good(said) || str_is(said, digest))
        return true;
    failure_set(&p->failure, "DigestMismatch", false, "%s: the registry says it has stored %.*s, but %s was sent",
                p->where, STR_ARG(said), digest);
    push_end(p);
    return false;
}

/* ---- the manifest ---- */

static void on_manifest(void *arg, struct repository_answer *a)
{
    struct push *p = arg;
    if (push_goes_on(p, a) && digest_agrees(p, a, p->r.image->manifest.digest))
        push_end(p);
}

static void manifest_send(struct push *p)
{
    const struct reference *r = p->r.reference;
    char *path = mem_printf("manifests/%s", r->tag != NULL ? r->tag : r->digest);
    push_ask(p, &(struct repository_request){.method = "PUT",
                                             .path = path,
                                             .content_type = IMAGE_MANIFEST_TYPE,
                                             .body = str_span(p->r.image->manifest.bytes, p->r.image->manifest.n),
                                             .has_body = true,
                                             .done = on_manifest});
    mem_free(path);
}

/* ---- blobs ---- */

static void blob_next(struct push *p)
{
    if (++p->blob < BLOBS)
        blob_ask(p);
    else
        manifest_send(p);
}

/* Where the next piece goes. */
static bool take_location(struct push *p, struct repository_answer *a)
{
    struct str location = transfer_header(a->x, "location");
    bool good = location.n > 0 && location.n < TRANSFER_URL_MAX &&
                (location.p[0] == '/' || str_starts(location, STR("http://")) || str_starts(location, STR("https://")));
    if (!good) {
        failure_set(&p->failure, "FetchFailed", true, "%s: the registry does not say where to upload to", p->where);
        push_end(p);
        return false;
    }
    mem_free(p->location);
    p->location = str_dup(location);
    return true;
}

static void on_stored(void *arg, struct repository_answer *a)
{
    struct push *p = arg;
    if (push_goes_on(p, a) && digest_agrees(p, a, blob_of(p)->digest))
        blob_next(p);
}

static void on_piece(void *arg, struct repository_answer *a)
{
    struct push *p = arg;
    if (!push_goes_on(p, a) || !take_location(p, a))
        return;
    p->sent += p->piece;
    piece_send(p);
}

static void on_progress(void *arg, uint64_t done, uint64_t total)
{
    struct push *p = arg;
    if (total > 0) /* not the answer's bytes */
        p->r.progress(p->r.arg, p->blob == 0 ? "layer" : "config", p->sent + done, blob_of(p)->n);
}

/* The last piece is a PUT that names the digest; one before it is a PATCH. */
static void piece_send(struct push *p)
{
    const struct image_blob *b = blob_of(p);
    size_t left = b->n - p->sent;
    bool last = p->chunk == 0 || left <= p->chunk;
    char range[64];
    p->piece = last ? left : p->chunk;
    (void)snprintf(range, sizeof range, "%zu-%zu", p->sent, p->sent + p->piece - 1);
    char *url = last ? mem_printf("%s%cdigest=%s", p->location, strchr(p->location, '?') != NULL ? '&' : '?', b->digest)
                     : mem_strdup(p->location);
    push_ask(p, &(struct repository_request){.method = last ? "PUT" : "PATCH",
                                             .url = url,
                                             .content_type = "application/octet-stream",
                                             .content_range = p->chunk > 0 && p->piece > 0 ? range : NULL,
                                             .body = str_span(b->bytes + p->sent, p->piece),
                                             .has_body = true,
                                             .progress = p->r.progress != NULL ? on_progress : NULL,
                                             .done = last ? on_stored : on_piece});
    mem_free(url);
}

static void on_place(void *arg, struct repository_answer *a)
{
    struct push *p = arg;
    uint64_t least = 0;
    if (!push_goes_on(p, a) || !take_location(p, a))
        return;
    p->sent = 0;
    p->chunk = p->r.chunk_bytes;
    if (p->chunk > 0 && str_to_u64(transfer_header(a->x, "oci-chunk-min-length"), SIZE_MAX, &least) && p->chunk < least)
        p->chunk = (size_t)least;
    piece_send(p);
}

static void on_head(void *arg, struct repository_answer *a)
{
    struct push *p = arg;
    if (a->failure->reason == NULL) { /* the registry has it */
        p->question = NULL;
        blob_next(p);
        return;
    }
    if (strcmp(a->failure->reason, "NotFound") != 0) {
        (void)push_goes_on(p, a);
        return;
    }
    push_ask(p, &(struct repository_request){
                    .method = "POST", .path = "blobs/uploads/", .has_body = true, .done = on_place});
}

static void blob_ask(struct push *p)
{
    char *path = mem_printf("blobs/%s", blob_of(p)->digest);
    push_ask(p, &(struct repository_request){.method = "HEAD", .path = path, .done = on_head});
    mem_free(path);
}

/* ---- entry points ---- */

static void push_begin(struct loop_task *task)
{
    struct push *p = CONTAINER_OF(task, struct push, begin);
    const struct reference *r = p->r.reference;
    if (r->digest != NULL && strcmp(r->digest, p->r.image->manifest.digest) != 0) {
        failure_set(&p->failure, "DigestMismatch", false, "%s: the manifest's digest would be %s", p->where,
                    p->r.image->manifest.digest);
        push_end(p);
        return;
    }
    blob_ask(p);
}

struct push *push_start(const struct push_request *r)
{
    struct push *p = mem_zalloc(sizeof *p);
    struct strbuf where = {0};
    p->r = *r;
    p->r.config_file = NULL;
    registry_resolve(r->registries, r->reference, &p->places);
    char *registry = registry_credentials_name(r->reference, &p->places.list[0]);
    p->repository = repository_new(&(struct repository_options){.loop = r->loop,
                                                                .transfers = r->transfers,
                                                                .place = &p->places.list[0],
                                                                .config_file = r->config_file,
                                                                .registry = registry,
                                                                .push = true});
    mem_free(registry);
    repository_write(p->repository, &where);
    reference_write_version(r->reference, &where);
    p->where = strbuf_take(&where);
    loop_task_init(&p->begin, push_begin);
    loop_defer(r->loop, &p->begin);
    return p;
}

void push_cancel(struct push *p)
{
    loop_task_cancel(&p->begin);
    if (p->question != NULL)
        question_cancel(p->question);
    push_free(p);
}
