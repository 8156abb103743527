/* SPDX-License-Identifier: Apache-2.0
 *
 * See oci_read.h.
 */
#include "fetch/oci_read.h"

enum { MANIFEST_MS = 60 * 1000, BLOB_MS = 15 * 60 * 1000 };

struct oci_read {
    struct loop *loop;
    struct question *question;
    struct loop_task refuse; /* tells later what was refused at once */
    uv_work_t work;
    bool working, is_blob, cancelled;
    char *name; /* for messages */
    char *content_type;
    char want[DIGEST_TEXT_MAX];   /* "": any */
    char header[DIGEST_TEXT_MAX]; /* docker-content-digest; "" */
    uint64_t size;
    struct strbuf bytes;
    struct manifest *manifest;
    char digest[DIGEST_TEXT_MAX];
    struct failure failure;
    void (*progress)(void *arg, uint64_t done, uint64_t total);
    void (*done)(void *arg, struct oci_read_result *result);
    void *arg;
};

static void read_free(struct oci_read *read)
{
    mem_free(read->name);
    mem_free(read->content_type);
    strbuf_free(&read->bytes);
    manifest_free(read->manifest);
    failure_clear(&read->failure);
    mem_free(read);
}

static void read_end(struct oci_read *read)
{
    struct oci_read_result result = {.failure = &read->failure, .manifest = read->manifest, .bytes = read->bytes};
    memcpy(result.digest, read->digest, sizeof result.digest);
    read->manifest = NULL;
    read->bytes = (struct strbuf){0};
    read->done(read->arg, &result);
    manifest_free(result.manifest);
    strbuf_free(&result.bytes);
    read_free(read);
}

/* Pool. */
static void read_work(uv_work_t *work)
{
    struct oci_read *read = work->data;
    char *error = NULL;
    encode_digest(strbuf_str(&read->bytes), read->digest);
    const char *want = read->want[0] != '\0' ? read->want : read->header;
    if (want[0] != '\0' && strcmp(want, read->digest) != 0) {
        failure_set(&read->failure, "DigestMismatch", true, "%s: the bytes that came have the digest %s, not %s",
                    read->name, read->digest, want);
        return;
    }
    if (read->is_blob)
        return;
    read->manifest =
        manifest_parse(strbuf_str(&read->bytes), str_of(read->content_type != NULL ? read->content_type : ""), &error);
    if (read->manifest == NULL)
        failure_set(&read->failure, "BadImage", true, "%s: %s", read->name, error);
    mem_free(error);
}

static void read_worked(uv_work_t *work, int status)
{
    struct oci_read *read = work->data;
    (void)status;
    if (read->cancelled)
        read_free(read);
    else
        read_end(read);
}

static void on_answer(void *arg, struct repository_answer *a)
{
    struct oci_read *read = arg;
    read->question = NULL;
    if (a->failure->reason != NULL) {
        failure_move(&read->failure, a->failure);
        if (read->is_blob && strcmp(read->failure.reason, "TooLarge") == 0)
            failure_set(&read->failure, "LengthMismatch", true, "%s: is longer than the %llu bytes its manifest says",
                        read->name, (unsigned long long)read->size);
        read_end(read);
        return;
    }
    if (read->is_blob && a->body.n != read->size) {
        failure_set(&read->failure, "LengthMismatch", true, "%s: %zu bytes came, its manifest says %llu", read->name,
                    a->body.n, (unsigned long long)read->size);
        read_end(read);
        return;
    }
    struct str header = transfer_header(a->x, "docker-content-digest");
    if (digest_is_good(header)) {
        memcpy(read->header, header.p, header.n);
        read->header[header.n] = '\0';
    }
    read->content_type = str_dup(transfer_header(a->x, "content-type"));
    read->bytes = a->body;
    a->body = (struct strbuf){0};
    read->work.data = read;
    read->working = true;
    ASSERT(uv_queue_work(&read->loop->uv, &read->work, read_work, read_worked) == 0);
}

static void on_progress(void *arg, uint64_t done, uint64_t total)
{
    struct oci_read *read = arg;
    (void)total;
    read->progress(read->arg, done, read->size);
}

static void on_refuse(struct loop_task *task) { read_end(CONTAINER_OF(task, struct oci_read, refuse)); }

static struct oci_read *read_new(struct loop *loop, void (*done)(void *arg, struct oci_read_result *result), void *arg)
{
    struct oci_read *read = mem_zalloc(sizeof *read);
    read->loop = loop;
    read->done = done;
    read->arg = arg;
    loop_task_init(&read->refuse, on_refuse);
    return read;
}

struct oci_read *oci_read_manifest(struct loop *loop, struct repository *r, const char *name, const char *path,
                                   void (*done)(void *arg, struct oci_read_result *result), void *arg)
{
    struct oci_read *read = read_new(loop, done, arg);
    struct strbuf text = {0};
    repository_write(r, &text);
    strbuf_printf(&text, "%s%s", digest_is_good(str_of(name)) ? "@" : ":", name);
    read->name = strbuf_take(&text);
    if (path == NULL && digest_is_good(str_of(name)))
        memcpy(read->want, name, strlen(name) + 1);
    char *whole = path == NULL ? mem_printf("manifests/%s", name) : NULL;
    read->question = repository_ask(r, &(struct repository_request){.path = path != NULL ? path : whole,
                                                                    .accept = OCI_ACCEPT,
                                                                    .max_bytes = MANIFEST_BYTES_MAX,
                                                                    .total_ms = MANIFEST_MS,
                                                                    .done = on_answer,
                                                                    .arg = read});
    mem_free(whole);
    return read;
}

struct oci_read *oci_read_blob(struct loop *loop, struct repository *r, const struct descriptor *d, size_t max,
                               void (*progress)(void *arg, uint64_t done, uint64_t total),
                               void (*done)(void *arg, struct oci_read_result *result), void *arg)
{
    struct oci_read *read = read_new(loop, done, arg);
    struct strbuf text = {0};
    repository_write(r, &text);
    strbuf_printf(&text, ": blob %.19s", d->digest);
    read->name = strbuf_take(&text);
    read->is_blob = true;
    read->size = d->size;
    read->progress = progress;
    memcpy(read->want, d->digest, strlen(d->digest) + 1);
    if (d->size > max) {
        failure_set(&read->failure, "TooLarge", true, "%s: has %llu bytes, more than %zu", read->name,
                    (unsigned long long)d->size, max);
        loop_defer(loop, &read->refuse);
        return read;
    }
    char *path = mem_printf("blobs/%s", d->digest);
    read->question = repository_ask(r, &(struct repository_request){.path = path,
                                                                    .max_bytes = d->size > 0 ? (size_t)d->size : 1,
                                                                    .total_ms = BLOB_MS,
                                                                    .progress = progress != NULL ? on_progress : NULL,
                                                                    .done = on_answer,
                                                                    .arg = read});
    mem_free(path);
    return read;
}

void oci_read_cancel(struct oci_read *read)
{
    read->cancelled = true;
    loop_task_cancel(&read->refuse);
    if (read->question != NULL)
        question_cancel(read->question);
    if (!read->working)
        read_free(read);
}
