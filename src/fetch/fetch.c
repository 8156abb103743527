/* SPDX-License-Identifier: Apache-2.0
 *
 * See fetch.h. Files are read, unpacked and judged in one piece of work on libuv's pool; what http brought goes the
 * same way; images come out of oci.h finished. What must never happen: a blocked loop, or memory beyond FETCH_BYTES_MAX
 * for what came and once more for what it unpacks to.
 */
#include "fetch/fetch.h"

#include <stdio.h>

#include "base/file.h"
#include "fetch/credentials.h"
#include "fetch/encode.h"
#include "fetch/oci.h"
#include "fetch/unwrap.h"

enum { TOTAL_LIMIT_MS = 120 * 1000, IDLE_LIMIT_MS = 20 * 1000, REDIRECTS_MAX = 5, STAGE_MAX = 64 };

struct fetcher {
    struct loop *loop;
    struct transfers *transfers;
    bool own_transfers;
    const struct registry_table *registries;
    char *config_file;
    struct list fetches;
};
struct fetch {
    struct list node;
    struct fetcher *owner;
    void (*stage)(void *arg, const char *text);
    void (*done)(void *arg, struct fetch_result *result); /* NULL once cancelled */
    void *arg;
    char *sha256, *from;
    char said[STAGE_MAX]; /* the newest stage */
    struct failure failure;
    struct loop_task refuse;
    struct transfer *transfer;
    struct oci_pull *pull;
    uv_work_t work;
    bool working;
    char *path; /* of a file; NULL: bytes came by http */
    char *bytes;
    size_t n;
    char module_sha256[SHA256_HEX + 1];
};

static void fetch_free(struct fetch *f)
{
    list_remove(&f->node);
    mem_free(f->sha256);
    mem_free(f->from);
    mem_free(f->path);
    mem_free(f->bytes);
    failure_clear(&f->failure);
    mem_free(f);
}

static void fetch_tell(struct fetch *f, struct fetch_result *r, const struct failure *failure)
{
    r->reason = failure->reason;
    r->error = failure->reason != NULL ? failure->text : NULL;
    r->retry = failure->retry;
    r->retry_after_ms = failure->retry_after_ms;
    f->done(f->arg, r);
    mem_free(r->bytes);
    fetch_free(f);
}

static void fetch_stage(void *arg, const char *text)
{
    struct fetch *f = arg;
    if (f->stage == NULL || strcmp(f->said, text) == 0)
        return;
    (void)snprintf(f->said, sizeof f->said, "%s", text);
    f->stage(f->arg, f->said);
}

/* The end of a file or of http. */
static void fetch_end(struct fetch *f)
{
    struct fetch_result result = {.from = f->from};
    if (f->failure.reason == NULL) {
        result.bytes = f->bytes;
        result.n = f->n;
        memcpy(result.module_sha256, f->module_sha256, sizeof result.module_sha256);
        f->bytes = NULL;
    }
    fetch_tell(f, &result, &f->failure);
}

/* ---- bytes, on the pool ---- */

static void judge(struct fetch *f, bool remote)
{
    char *error = remote ? module_unwrap(&f->bytes, &f->n, FETCH_BYTES_MAX) : NULL;
    if (error != NULL) {
        failure_set(&f->failure, "BadModule", true, "%s: %s", f->from, error);
        mem_free(error);
        return;
    }
    encode_sha256(str_span(f->bytes, f->n), f->module_sha256);
    if (f->sha256 != NULL && strcmp(f->sha256, f->module_sha256) != 0)
        failure_set(&f->failure, "DigestMismatch", remote, "sha256 is %s, spec.sha256 wants %s", f->module_sha256,
                    f->sha256);
    else if (f->n < 8 || memcmp(f->bytes, "\0asm", 4) != 0)
        failure_set(&f->failure, "BadModule", remote, "%s: is not a valid Wasm module", f->from);
}

static void bytes_work(uv_work_t *work)
{
    struct fetch *f = work->data;
    char *error = NULL;
    if (f->path != NULL)
        f->bytes = file_read_all(f->path, FETCH_BYTES_MAX, &f->n, &error);
    if (error != NULL)
        failure_set(&f->failure, "FetchFailed", true, "%s: %s", f->path, error);
    else
        judge(f, f->path == NULL);
    mem_free(error);
}

static void bytes_done(uv_work_t *work, int status)
{
    struct fetch *f = work->data;
    (void)status;
    if (f->done == NULL)
        fetch_free(f);
    else
        fetch_end(f);
}

static void bytes_start(struct fetch *f)
{
    f->work.data = f;
    f->working = true;
    ASSERT(uv_queue_work(&f->owner->loop->uv, &f->work, bytes_work, bytes_done) == 0);
}

/* ---- http ---- */

static void http_done(void *arg, struct transfer *x, struct transfer_result *r)
{
    struct fetch *f = arg;
    (void)x;
    f->transfer = NULL;
    if (r->error != NULL)
        failure_set(&f->failure,
                    r->refused     ? "Refused"
                    : r->too_large ? "TooLarge"
                    : r->truncated ? "Truncated"
                                   : "FetchFailed",
                    !r->refused && !r->too_large, "%s: %s", f->from, r->error);
    else if (r->status != 200)
        failure_set(&f->failure, failure_of_status(r->status), true, "%s: the server answered %u", f->from, r->status);
    f->failure.retry_after_ms = r->retry_after_ms;
    if (f->failure.reason != NULL) {
        fetch_end(f);
        return;
    }
    f->n = r->body.n;
    f->bytes = strbuf_take(&r->body);
    bytes_start(f);
}

static void http_progress(void *arg, uint64_t done, uint64_t total)
{
    char text[STAGE_MAX];
    enum { MIB = 1024 * 1024 };
    if (total >= MIB)
        (void)snprintf(text, sizeof text, "downloading %llu of %llu MiB", (unsigned long long)(done / MIB),
                       (unsigned long long)((total + MIB - 1) / MIB));
    else
        (void)snprintf(text, sizeof text, "downloading");
    fetch_stage(arg, text);
}

static void http_start(struct fetch *f, const char *url)
{
    f->transfer = transfer_start(f->owner->transfers,
                                 &(struct transfer_request){.url = url,
                                                            .max_redirects = REDIRECTS_MAX,
                                                            .total_ms = TOTAL_LIMIT_MS,
                                                            .idle_ms = IDLE_LIMIT_MS,
                                                            .guard = true,
                                                            .max_bytes = FETCH_BYTES_MAX,
                                                            .progress = f->stage != NULL ? http_progress : NULL,
                                                            .done = http_done,
                                                            .arg = f});
}

/* ---- images ---- */

static void pull_done(void *arg, struct oci_pull_result *r)
{
    struct fetch *f = arg;
    f->pull = NULL;
    struct fetch_result result = {.bytes = r->bytes,
                                  .n = r->n,
                                  .unchanged = r->unchanged,
                                  .verified = r->verified,
                                  .from = r->from,
                                  .warning = r->warning};
    r->bytes = NULL;
    memcpy(result.module_sha256, r->module_sha256, sizeof result.module_sha256);
    memcpy(result.digest, r->digest, sizeof result.digest);
    memcpy(result.index_digest, r->index_digest, sizeof result.index_digest);
    fetch_tell(f, &result, r->failure);
}

static void pull_start(struct fetch *f, const struct fetch_request *request)
{
    struct fetcher *fr = f->owner;
    f->pull = oci_pull_start(&(struct oci_pull_request){.loop = fr->loop,
                                                        .transfers = fr->transfers,
                                                        .registries = fr->registries,
                                                        .config_file = fr->config_file,
                                                        .reference = request->url,
                                                        .sha256 = request->sha256,
                                                        .pull_secret = request->pull_secret,
                                                        .verification_key = request->verification_key,
                                                        .have = request->have,
                                                        .have_index = request->have_index,
                                                        .max_bytes = FETCH_BYTES_MAX,
                                                        .stage = fetch_stage,
                                                        .done = pull_done,
                                                        .arg = f});
}

/* ---- entry points ---- */

void fetch_write_url(const char *url, struct strbuf *out)
{
    struct str rest = str_of(url);
    ptrdiff_t slashes = str_find_str(rest, STR("://"));
    size_t scheme = slashes >= 0 ? (size_t)slashes + 3 : 0;
    strbuf_add(out, str_upto(rest, scheme));
    rest = reference_without_user(str_from(rest, scheme));
    ptrdiff_t query = str_find(rest, '?');
    strbuf_add(out, query >= 0 ? str_upto(rest, (size_t)query) : rest);
}

static void on_refuse(struct loop_task *task) { fetch_end(CONTAINER_OF(task, struct fetch, refuse)); }

struct fetch *fetch_start(struct fetcher *fr, const struct fetch_request *request)
{
    struct fetch *f = mem_zalloc(sizeof *f);
    struct strbuf from = {0};
    const char *url = request->url;
    bool file = strncasecmp(url, "file://", 7) == 0;
    bool http = strncasecmp(url, "http://", 7) == 0 || strncasecmp(url, "https://", 8) == 0;
    fetch_write_url(url, &from);
    f->owner = fr;
    f->stage = request->stage;
    f->done = request->done;
    f->arg = request->arg;
    f->sha256 = request->sha256 != NULL ? mem_strdup(request->sha256) : NULL;
    f->from = strbuf_take(&from);
    loop_task_init(&f->refuse, on_refuse);
    list_init(&f->node);
    list_push_back(&fr->fetches, &f->node);
    if ((file || http) && request->verification_key != NULL) {
        failure_set(&f->failure, "SignatureMissing", false, "%s: verificationKey is for images: only those are signed",
                    f->from);
        loop_defer(fr->loop, &f->refuse);
    } else if (file) {
        f->path = mem_strdup(url + 7);
        bytes_start(f);
    } else if (http) {
        http_start(f, url);
    } else {
        pull_start(f, request);
    }
    return f;
}

void fetch_cancel(struct fetch *f)
{
    f->done = NULL;
    if (f->working)
        return; /* the thread pool will finish it, unheard */
    loop_task_cancel(&f->refuse);
    if (f->transfer != NULL)
        transfer_cancel(f->transfer);
    if (f->pull != NULL)
        oci_pull_cancel(f->pull);
    fetch_free(f);
}

struct fetcher *fetcher_new(struct loop *loop, const struct fetcher_options *options)
{
    static const struct fetcher_options none;
    const struct fetcher_options *o = options != NULL ? options : &none;
    struct fetcher *fr = mem_zalloc(sizeof *fr);
    fr->loop = loop;
    list_init(&fr->fetches);
    fr->own_transfers = o->transfers == NULL;
    fr->transfers = o->transfers != NULL ? o->transfers : transfers_new(loop, NULL);
    fr->registries = o->registries;
    fr->config_file =
        o->docker_config != NULL && o->docker_config[0] == '\0' ? NULL : credentials_config_path(o->docker_config);
    return fr;
}

void fetcher_free(struct fetcher *fr)
{
    LIST_EACH (n, &fr->fetches)
        fetch_cancel(LIST_ENTRY(n, struct fetch, node));
    /* Work still in the thread pool ends in bytes_done, which takes it off the list: run until then. */
    while (!list_is_empty(&fr->fetches))
        uv_run(&fr->loop->uv, UV_RUN_ONCE);
    if (fr->own_transfers)
        transfers_free(fr->transfers);
    mem_free(fr->config_file);
    mem_free(fr);
}
