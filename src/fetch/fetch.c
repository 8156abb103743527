/* SPDX-License-Identifier: Apache-2.0
 *
 * See fetch.h. Files are read on libuv's thread pool, http goes by transfer.h. What must never happen: a blocked
 * control loop, or memory beyond FETCH_BYTES_MAX.
 */
#include "fetch/fetch.h"

#include "base/file.h"
#include "fetch/transfer.h"

enum { TOTAL_LIMIT_MS = 120 * 1000, IDLE_LIMIT_MS = 20 * 1000, REDIRECTS_MAX = 5 };

struct fetcher {
    struct loop *loop;
    struct transfers *transfers;
    struct list fetches;
};
struct fetch {
    struct list node;
    struct fetcher *owner;
    void (*done)(void *arg, struct fetch_result *result); /* NULL once cancelled */
    void *arg;
    /* file */
    uv_work_t work;
    char *path, *bytes, *error;
    size_t n;
    /* http */
    struct transfer *transfer;
};

static void fetch_free(struct fetch *f)
{
    list_remove(&f->node);
    mem_free(f->path);
    mem_free(f->bytes);
    mem_free(f->error);
    mem_free(f);
}

static void fetch_finish(struct fetch *f, struct fetch_result *result)
{
    if (f->done != NULL)
        f->done(f->arg, result);
    else
        mem_free(result->bytes);
    fetch_free(f);
}

/* ---- files ---- */

static void file_work(uv_work_t *work)
{
    struct fetch *f = work->data;
    f->bytes = file_read_all(f->path, FETCH_BYTES_MAX, &f->n, &f->error);
}

static void file_done(uv_work_t *work, int status)
{
    struct fetch *f = work->data;
    (void)status;
    char *text = f->error != NULL ? mem_printf("%s: %s", f->path, f->error) : NULL;
    struct fetch_result result = {.bytes = f->bytes, .n = f->n, .error = text, .reason = "FetchFailed", .retry = true};
    f->bytes = NULL;
    fetch_finish(f, &result);
    mem_free(text);
}

/* ---- http ---- */

static void http_done(void *arg, struct transfer *x, struct transfer_result *r)
{
    struct fetch *f = arg;
    (void)x;
    f->transfer = NULL;
    char *text = r->error != NULL   ? mem_strdup(r->error)
                 : r->status != 200 ? mem_printf("the server answered %u", r->status)
                                    : NULL;
    struct fetch_result result = {.error = text, .reason = "FetchFailed", .retry = !r->refused && !r->too_large};
    if (text == NULL) {
        result.n = r->body.n;
        result.bytes = strbuf_take(&r->body);
    }
    fetch_finish(f, &result);
    mem_free(text);
}

static void http_start(struct fetch *f, const char *url)
{
    f->transfer = transfer_start(f->owner->transfers, &(struct transfer_request){.url = url,
                                                                                 .max_redirects = REDIRECTS_MAX,
                                                                                 .total_ms = TOTAL_LIMIT_MS,
                                                                                 .idle_ms = IDLE_LIMIT_MS,
                                                                                 .guard = true,
                                                                                 .max_bytes = FETCH_BYTES_MAX,
                                                                                 .done = http_done,
                                                                                 .arg = f});
}

/* ---- entry points ---- */

struct fetcher *fetcher_new(struct loop *loop)
{
    struct fetcher *fr = mem_zalloc(sizeof *fr);
    fr->loop = loop;
    list_init(&fr->fetches);
    fr->transfers = transfers_new(loop, NULL);
    return fr;
}

struct fetch *fetch_start(struct fetcher *fr, const struct fetch_request *r)
{
    const char *url = r->url;
    struct fetch *f = mem_zalloc(sizeof *f);
    f->owner = fr;
    f->done = r->done;
    f->arg = r->arg;
    list_init(&f->node);
    list_push_back(&fr->fetches, &f->node);
    if (strncmp(url, "file://", 7) == 0) {
        f->path = mem_strdup(url + 7);
        f->work.data = f;
        ASSERT(uv_queue_work(&fr->loop->uv, &f->work, file_work, file_done) == 0);
    } else {
        http_start(f, url);
    }
    return f;
}

void fetch_cancel(struct fetch *f)
{
    f->done = NULL;
    if (f->transfer == NULL)
        return; /* the thread pool will finish it, unheard */
    transfer_cancel(f->transfer);
    fetch_free(f);
}

void fetcher_free(struct fetcher *fr)
{
    LIST_EACH (n, &fr->fetches)
        fetch_cancel(LIST_ENTRY(n, struct fetch, node));
    /* File reads still in the thread pool end in file_done, which takes them off the list: run until then. */
    while (!list_is_empty(&fr->fetches))
        uv_run(&fr->loop->uv, UV_RUN_ONCE);
    transfers_free(fr->transfers);
    mem_free(fr);
}
