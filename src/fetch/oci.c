/* SPDX-License-Identifier: Apache-2.0
 *
 * See oci.h. One pull is a walk with one thing under way at a time (p->question, read, verify or the pool):
 *
 *   place -> [HEAD] -> manifest -> index? its best child -> pin -> signature -> layers, one after the other -> module
 *
 * What fails at one place is tried at the next mirror. A child of an index without a module gives way to the next one.
 * What must never happen: bytes that no digest has vouched for reach the caller.
 */
#include "fetch/oci.h"

#include "fetch/layer.h"
#include "fetch/oci_read.h"
#include "fetch/oci_verify.h"

enum { INDEX_DEPTH_MAX = 3, CHILDREN_TRIED_MAX = 4, STAGE_MAX = 64, HEAD_MS = 30 * 1000 };

struct oci_pull {
    struct loop *loop;
    struct transfers *transfers;
    struct oci_pull_request r; /* callbacks and bounds; its texts are in the members below */
    char *config_file, *sha256, *pull_secret, *key, *have, *have_index;
    size_t secret_n;
    bool has_secret;
    struct reference reference;
    struct registry_places places;
    size_t place;
    struct repository *repository;
    char *from, *warning;
    char stage[STAGE_MAX];
    struct failure failure, before; /* before: what earlier places said */
    /* under way */
    struct loop_task begin;
    struct question *question;
    struct oci_read *read;
    struct oci_verify *verify;
    uv_work_t work;
    bool working, cancelled;
    /* the way to the manifest */
    char indexes[INDEX_DEPTH_MAX][DIGEST_TEXT_MAX];
    size_t depth;
    struct manifest *index; /* the innermost */
    const struct descriptor *children[MANIFEST_CHILDREN_MAX];
    size_t child_count, child;
    struct manifest *manifest;
    char digest[DIGEST_TEXT_MAX];
    bool verified, unchanged;
    /* layers */
    const struct descriptor *layers[MANIFEST_LAYERS_MAX];
    size_t layer_count, layer;
    uint64_t layer_bytes; /* asked for so far */
    struct strbuf blob;
    enum layer_found found;
    char *module, *module_error; /* of the newest layer */
    size_t module_n;
    char *best; /* the module so far */
    size_t best_n;
    char best_sha256[SHA256_HEX + 1];
};

static void manifest_ask(struct oci_pull *p, const char *name);
static void place_begin(struct oci_pull *p);
static void layer_next(struct oci_pull *p);

/* ---- ends ---- */

static void place_forget(struct oci_pull *p)
{
    repository_free(p->repository);
    p->repository = NULL;
    manifest_free(p->index);
    manifest_free(p->manifest);
    p->index = p->manifest = NULL;
    p->depth = p->child_count = p->child = p->layer_count = p->layer = 0;
    p->layer_bytes = 0;
    strbuf_free(&p->blob);
    mem_free(p->module);
    mem_free(p->module_error);
    mem_free(p->best);
    p->module = p->module_error = p->best = NULL;
    p->best_n = 0;
}

static void pull_free(struct oci_pull *p)
{
    place_forget(p);
    char *const all[] = {p->config_file, p->sha256,     p->pull_secret, p->key,
                         p->have,        p->have_index, p->from,        p->warning};
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        mem_free(all[i]);
    reference_free(&p->reference);
    registry_places_free(&p->places);
    failure_clear(&p->failure);
    failure_clear(&p->before);
    mem_free(p);
}

static void pull_end(struct oci_pull *p)
{
    struct oci_pull_result result = {.failure = &p->failure,
                                     .unchanged = p->unchanged,
                                     .verified = p->verified,
                                     .from = p->from,
                                     .warning = p->warning};
    if (p->failure.reason == NULL) {
        memcpy(result.digest, p->digest, sizeof result.digest);
        if (p->depth > 0)
            memcpy(result.index_digest, p->indexes[0], sizeof result.index_digest);
        if (!p->unchanged) {
            result.bytes = p->best;
            result.n = p->best_n;
            memcpy(result.module_sha256, p->best_sha256, sizeof result.module_sha256);
            p->best = NULL;
        }
    }
    p->r.done(p->r.arg, &result);
    mem_free(result.bytes);
    pull_free(p);
}

/* p->failure is set: the next mirror, or the end. */
static void pull_fail(struct oci_pull *p)
{
    bool more = p->place + 1 < p->places.count;
    uint32_t after = p->failure.retry_after_ms, before = p->before.retry_after_ms;
    if (p->before.reason != NULL) {
        failure_set(&p->failure, p->failure.reason, p->failure.retry || p->before.retry, "%s; %s", p->before.text,
                    p->failure.text);
        /* Of several places, the one that may be asked first. */
        p->failure.retry_after_ms = after < before ? after : before;
    }
    if (!more) {
        pull_end(p);
        return;
    }
    failure_move(&p->before, &p->failure);
    place_forget(p);
    p->place++;
    place_begin(p);
}

static void pull_stage(struct oci_pull *p, const char *text)
{
    if (p->r.stage == NULL || strcmp(text, p->stage) == 0)
        return;
    (void)snprintf(p->stage, sizeof p->stage, "%s", text);
    p->r.stage(p->r.arg, p->stage);
}

/* ---- layers ---- */

/* Pool. */
static void layer_work(uv_work_t *work)
{
    struct oci_pull *p = work->data;
    p->found = layer_find_module(strbuf_str(&p->blob), p->r.max_bytes, &p->module, &p->module_n, &p->module_error);
    strbuf_free(&p->blob);
    if (p->module == NULL || (p->found == LAYER_ONLY && p->best != NULL))
        return;
    mem_free(p->best);
    p->best = p->module;
    p->best_n = p->module_n;
    p->module = NULL;
    encode_sha256(str_span(p->best, p->best_n), p->best_sha256);
}

static void layer_done(uv_work_t *work, int status)
{
    struct oci_pull *p = work->data;
    (void)status;
    p->working = false;
    if (p->cancelled) {
        pull_free(p);
    } else if (p->found == LAYER_PLUGIN) {
        pull_end(p);
    } else if (p->found == LAYER_BROKEN) {
        failure_set(&p->failure, "BadImage", true, "%s: layer %.19s %s", p->from, p->layers[p->layer]->digest,
                    p->module_error);
        pull_fail(p);
    } else {
        mem_free(p->module);
        p->module = NULL;
        p->layer++;
        layer_next(p);
    }
}

static void on_layer(void *arg, struct oci_read_result *result)
{
    struct oci_pull *p = arg;
    p->read = NULL;
    if (result->failure->reason != NULL) {
        failure_move(&p->failure, result->failure);
        pull_fail(p);
        return;
    }
    p->blob = result->bytes;
    result->bytes = (struct strbuf){0};
    mem_free(p->module_error);
    p->module_error = NULL;
    pull_stage(p, "unpacking");
    p->working = true;
    p->work.data = p;
    ASSERT(uv_queue_work(&p->loop->uv, &p->work, layer_work, layer_done) == 0);
}

static void on_layer_progress(void *arg, uint64_t done, uint64_t total)
{
    struct oci_pull *p = arg;
    char text[STAGE_MAX];
    enum { MIB = 1024 * 1024 };
    if (total >= MIB)
        (void)snprintf(text, sizeof text, "downloading %llu of %llu MiB", (unsigned long long)(done / MIB),
                       (unsigned long long)((total + MIB - 1) / MIB));
    else
        (void)snprintf(text, sizeof text, "downloading");
    pull_stage(p, text);
}

/* No layer has it. */
static void layers_end(struct oci_pull *p)
{
    if (p->best != NULL) {
        pull_end(p);
        return;
    }
    failure_set(&p->failure, "NoModule", true, "%s: the image %s%s", p->from,
                p->layer_count == 0       ? "has no layer that could hold a module"
                : p->module_error != NULL ? "has no module: its first layer "
                                          : "has no module",
                p->layer_count > 0 && p->module_error != NULL ? p->module_error : "");
    if (p->child + 1 < p->child_count && p->child + 1 < CHILDREN_TRIED_MAX) {
        p->child++;
        failure_clear(&p->failure);
        manifest_ask(p, p->children[p->child]->digest);
    } else {
        pull_fail(p);
    }
}

static void layer_next(struct oci_pull *p)
{
    if (p->layer == p->layer_count) {
        layers_end(p);
        return;
    }
    const struct descriptor *d = p->layers[p->layer];
    if (d->size > p->r.max_bytes || p->layer_bytes > 2 * (uint64_t)p->r.max_bytes) {
        failure_set(&p->failure, "TooLarge", true, "%s: layer %.19s has %llu bytes; at most %zu are taken", p->from,
                    d->digest, (unsigned long long)d->size, p->r.max_bytes);
        pull_fail(p);
        return;
    }
    p->layer_bytes += d->size;
    on_layer_progress(p, 0, d->size);
    p->read = oci_read_blob(p->loop, p->repository, d, p->r.max_bytes, on_layer_progress, on_layer, p);
}

static void layers_begin(struct oci_pull *p)
{
    if (p->have != NULL && strcmp(p->have, p->digest) == 0) {
        p->unchanged = true;
        pull_end(p);
        return;
    }
    p->layer_count = manifest_layers(p->manifest, p->layers);
    p->layer = 0;
    layer_next(p);
}

/* ---- the manifest ---- */

static void on_verified(void *arg, struct failure *failure)
{
    struct oci_pull *p = arg;
    p->verify = NULL;
    if (failure->reason != NULL) {
        failure_set(&p->failure, failure->reason, failure->retry, "%s: %s", p->from, failure->text);
        p->failure.retry_after_ms = failure->retry_after_ms;
        pull_fail(p);
        return;
    }
    p->verified = true;
    layers_begin(p);
}

static bool pin_is_met(const struct oci_pull *p)
{
    if (p->sha256 == NULL || strcmp(p->digest + 7, p->sha256) == 0)
        return true;
    for (size_t i = 0; i < p->depth; i++)
        if (strcmp(p->indexes[i] + 7, p->sha256) == 0)
            return true;
    return false;
}

static void manifest_settled(struct oci_pull *p)
{
    if (!pin_is_met(p)) {
        failure_set(&p->failure, "DigestMismatch", true, "%s: the manifest's digest is %s, spec.sha256 wants %s",
                    p->from, p->digest, p->sha256);
        pull_fail(p);
        return;
    }
    if (p->key == NULL) {
        layers_begin(p);
        return;
    }
    const char *digests[OCI_VERIFY_DIGESTS_MAX] = {p->digest};
    size_t count = 1;
    for (size_t i = 0; i < p->depth && count < OCI_VERIFY_DIGESTS_MAX; i++)
        digests[count++] = p->indexes[i];
    pull_stage(p, "verifying");
    p->verify = oci_verify_start(p->loop, p->repository, p->key, digests, count, on_verified, p);
}

static void index_settled(struct oci_pull *p, const char *digest)
{
    char pin[DIGEST_TEXT_MAX];
    if (p->depth == INDEX_DEPTH_MAX) {
        failure_set(&p->failure, "BadImage", true, "%s: indexes in indexes, more than %d deep", p->from,
                    INDEX_DEPTH_MAX);
        pull_fail(p);
        return;
    }
    memcpy(p->indexes[p->depth++], digest, DIGEST_TEXT_MAX);
    (void)snprintf(pin, sizeof pin, "sha256:%s", p->sha256 != NULL ? p->sha256 : "");
    p->child_count = manifest_children(p->index, p->sha256 != NULL ? pin : NULL, p->children);
    p->child = 0;
    if (p->child_count == 0) {
        failure_set(&p->failure, "NoModule", true, "%s: the index names no image", p->from);
        pull_fail(p);
        return;
    }
    manifest_ask(p, p->children[0]->digest);
}

static void on_manifest(void *arg, struct oci_read_result *result)
{
    struct oci_pull *p = arg;
    p->read = NULL;
    if (result->failure->reason != NULL) {
        failure_move(&p->failure, result->failure);
        pull_fail(p);
        return;
    }
    struct manifest **place = result->manifest->is_index ? &p->index : &p->manifest;
    manifest_free(*place);
    *place = result->manifest;
    result->manifest = NULL;
    if (place == &p->index) {
        index_settled(p, result->digest);
        return;
    }
    memcpy(p->digest, result->digest, sizeof p->digest);
    manifest_settled(p);
}

static void manifest_ask(struct oci_pull *p, const char *name)
{
    if (digest_is_good(str_of(name)) && p->have != NULL && strcmp(name, p->have) == 0 && p->key == NULL) {
        (void)snprintf(p->digest, sizeof p->digest, "%s", name);
        if (pin_is_met(p)) { /* a digest names one thing only: no need to look at it again */
            p->unchanged = true;
            pull_end(p);
            return;
        }
    }
    p->read = oci_read_manifest(p->loop, p->repository, name, NULL, on_manifest, p);
}

static const char *version_of(const struct oci_pull *p)
{
    return p->reference.digest != NULL ? p->reference.digest : p->reference.tag;
}

/* Registries count manifests that are fetched, not those that are asked after. */
static void on_head(void *arg, struct repository_answer *a)
{
    struct oci_pull *p = arg;
    p->question = NULL;
    struct str digest = a->failure->reason == NULL ? transfer_header(a->x, "docker-content-digest") : STR_NONE;
    bool is_it = digest_is_good(digest) && str_is(digest, p->have);
    bool is_index = !is_it && digest_is_good(digest) && p->have_index != NULL && str_is(digest, p->have_index);
    if (!is_it && !is_index) {
        manifest_ask(p, version_of(p));
        return;
    }
    (void)snprintf(p->digest, sizeof p->digest, "%s", p->have);
    if (is_index)
        (void)snprintf(p->indexes[p->depth++], DIGEST_TEXT_MAX, "%s", p->have_index);
    p->unchanged = true;
    pull_end(p);
}

/* ---- places ---- */

static void place_begin(struct oci_pull *p)
{
    struct strbuf from = {0};
    char *registry = registry_credentials_name(&p->reference, &p->places.list[p->place]);
    p->repository = repository_new(
        &(struct repository_options){.loop = p->loop,
                                     .transfers = p->transfers,
                                     .place = &p->places.list[p->place],
                                     .pull_secret = p->has_secret ? str_span(p->pull_secret, p->secret_n) : STR_NONE,
                                     .config_file = p->config_file,
                                     .registry = registry});
    mem_free(registry);
    mem_free(p->from);
    repository_write(p->repository, &from);
    reference_write_version(&p->reference, &from);
    p->from = strbuf_take(&from);
    pull_stage(p, "resolving");
    bool look_first = p->have != NULL && p->reference.digest == NULL && p->sha256 == NULL && p->key == NULL;
    if (!look_first) {
        manifest_ask(p, version_of(p));
        return;
    }
    char *path = mem_printf("manifests/%s", version_of(p));
    p->question = repository_ask(
        p->repository,
        &(struct repository_request){
            .method = "HEAD", .path = path, .accept = OCI_ACCEPT, .total_ms = HEAD_MS, .done = on_head, .arg = p});
    mem_free(path);
}

static void pull_begin(struct loop_task *task)
{
    struct oci_pull *p = CONTAINER_OF(task, struct oci_pull, begin);
    if (p->failure.reason != NULL)
        pull_end(p);
    else
        place_begin(p);
}

static char *copy(const char *s) { return s != NULL ? mem_strdup(s) : NULL; }

static void take_reference(struct oci_pull *p, const char *text)
{
    char *error = NULL;
    if (!reference_parse(str_of(text), &p->reference, &error)) {
        failure_set(&p->failure, "BadReference", false, "%s", error);
        mem_free(error);
        return;
    }
    registry_resolve(p->r.registries, &p->reference, &p->places);
    if (!p->places.guessed_hub)
        return;
    struct str rest = str_of(p->reference.name), first = str_split(&rest, '/');
    p->warning = mem_printf("%.*s has no dot, so it is no registry's name: asked Docker Hub; use --registry %.*s=URL",
                            STR_ARG(first), STR_ARG(first));
}

struct oci_pull *oci_pull_start(const struct oci_pull_request *r)
{
    struct oci_pull *p = mem_zalloc(sizeof *p);
    p->loop = r->loop;
    p->transfers = r->transfers;
    p->r = (struct oci_pull_request){
        .registries = r->registries, .max_bytes = r->max_bytes, .stage = r->stage, .done = r->done, .arg = r->arg};
    p->config_file = copy(r->config_file);
    p->sha256 = copy(r->sha256);
    p->key = copy(r->verification_key);
    p->have = copy(r->have);
    p->have_index = copy(r->have_index);
    p->has_secret = r->pull_secret.p != NULL;
    p->pull_secret = str_dup(r->pull_secret);
    p->secret_n = r->pull_secret.n;
    take_reference(p, r->reference);
    loop_task_init(&p->begin, pull_begin);
    loop_defer(p->loop, &p->begin);
    return p;
}

void oci_pull_cancel(struct oci_pull *p)
{
    p->cancelled = true;
    loop_task_cancel(&p->begin);
    if (p->question != NULL)
        question_cancel(p->question);
    if (p->read != NULL)
        oci_read_cancel(p->read);
    if (p->verify != NULL)
        oci_verify_cancel(p->verify);
    if (!p->working)
        pull_free(p);
}
