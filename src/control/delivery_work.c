/* SPDX-License-Identifier: Apache-2.0
 *
 * One attempt to deliver one text of one plugin: fetch -> verify -> compiled code -> build. A newer text drops it,
 * wherever it is: what the thread pool still holds is freed when it comes back, and a build that is under way comes
 * back with a ticket that is nobody's any more. What must never happen: a late answer of a dropped attempt that does
 * anything.
 */
#include <stdlib.h>
#include <sys/stat.h>

#include "base/log.h"
#include "control/delivery_priv.h"

struct delivery_work {
    struct delivery *owner;
    struct delivery_item *item;
    uint64_t ticket;
    struct resource *resource; /* one reference */
    char key[65];
    struct fetch *fetch;
    struct code_want *code;
    bool from_cache;
    char *bytes;
    size_t n;
    char sha256[65];
    enum abi_version abi;
    uv_work_t uv;
    const char *bad_reason, *warning; /* what the check on the thread pool found */
    char *bad;
    bool checking, dropped; /* the thread pool has it; it is to be freed when it comes back */
    bool building;
    char *waits; /* path of the code; another attempt is loading the same module, which is then shared */
};

uint64_t delivery_work_ticket(const struct delivery_work *w) { return w->ticket; }
const char *delivery_work_key(const struct delivery_work *w) { return w->key; }

static void work_free(struct delivery_work *w)
{
    resource_unref(w->resource);
    mem_free(w->bytes);
    mem_free(w->bad);
    mem_free(w->waits);
    mem_free(w);
}

void delivery_work_forget(struct delivery_item *item)
{
    struct delivery_work *w = item->work;
    item->work = NULL;
    if (w == NULL)
        return;
    if (w->fetch != NULL)
        fetch_cancel(w->fetch);
    if (w->code != NULL)
        code_unwant(w->code);
    if (w->building) {
        builder_forget(w->owner->o.builder, w->ticket);
        delivery_work_module_settled(w->owner, w->sha256);
    }
    if (w->checking)
        w->dropped = true;
    else
        work_free(w);
}

static void work_fail(struct delivery_work *w, const char *reason, enum plugin_absence absence,
                      enum delivery_again again, const char *fmt, ...) PRINTF_LIKE(5, 6);
static void work_fail(struct delivery_work *w, const char *reason, enum plugin_absence absence,
                      enum delivery_again again, const char *fmt, ...)
{
    struct delivery *d = w->owner;
    struct delivery_item *item = w->item;
    char line[2048];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    struct strbuf text = {0};
    strbuf_add_escaped(&text, str_of(line));
    strbuf_addc(&text, '\0');
    delivery_work_forget(item);
    delivery_item_failed(item, d, reason, absence, again, text.p);
    strbuf_free(&text);
}

/* ---- build ---- */

_Static_assert((int)FAIL_CLOSE == (int)PLUGIN_FAIL_CLOSE && (int)FAIL_OPEN == (int)PLUGIN_FAIL_OPEN &&
                   (int)FAIL_RELOAD == (int)PLUGIN_FAIL_RELOAD,
               "the fail strategies of conf and wasm are the same numbers");

static void describe(struct delivery_work *w, struct plugin *desc)
{
    const struct resource *r = w->resource;
    const struct wasm_plugin *p = &r->u.wasm_plugin;
    desc->generation = w->owner->next_generation++;
    desc->name = mem_printf("%s.%s", r->meta.ns, r->meta.name);
    desc->root_id = mem_strdup(p->plugin_name != NULL ? p->plugin_name : "");
    desc->vm_id = mem_strdup(p->vm_id != NULL ? p->vm_id : r->meta.ns);
    desc->config = p->config != NULL ? mem_strndup(p->config, p->config_bytes) : NULL;
    desc->config_bytes = p->config_bytes;
    desc->env = mem_zalloc((p->env_count + 1) * sizeof *desc->env);
    for (size_t i = 0; i < p->env_count; i++) {
        const char *value = p->env[i].from_host ? getenv(p->env[i].name) : p->env[i].value;
        if (value == NULL && p->env[i].from_host)
            continue; /* as Istio: a host variable that is not there is skipped */
        desc->env[desc->env_count].name = mem_strdup(p->env[i].name);
        desc->env[desc->env_count++].value = mem_strdup(value != NULL ? value : "");
    }
    desc->fail = (enum fail_strategy)p->fail;
    desc->utf8 = p->utf8 < 0 ? UTF8_REJECT : (enum header_utf8)p->utf8;
    desc->pause_headers = p->pause_headers < 0 ? PAUSE_ALL : (enum pause_headers)p->pause_headers;
    desc->limits = plugin_limits_default();
    if (p->cpu_deadline_ms >= 0)
        desc->limits.cpu_deadline_ms = (uint32_t)p->cpu_deadline_ms;
    if (p->start_deadline_ms >= 0)
        desc->limits.start_deadline_ms = (uint32_t)p->start_deadline_ms;
    if (p->memory_limit >= 0)
        desc->limits.memory_bytes = (uint64_t)p->memory_limit;
    if (p->pause_limit_ms >= 0)
        desc->limits.pause_limit_ms = (uint32_t)p->pause_limit_ms;
    desc->abi = w->abi;
    memcpy(desc->sha256, w->sha256, sizeof desc->sha256);
}

/* One module in memory for all plugins of the same code. */
static struct module *module_in_use(struct delivery *d, const char *sha256)
{
    MAP_EACH (e, &d->items) {
        const struct delivery_item *item = e->value;
        if (item->live != NULL && strcmp(item->live->sha256, sha256) == 0)
            return item->live->module;
    }
    return NULL;
}
static bool module_is_coming(struct delivery *d, const char *sha256)
{
    MAP_EACH (e, &d->items) {
        const struct delivery_work *w = ((struct delivery_item *)e->value)->work;
        if (w != NULL && w->building && strcmp(w->sha256, sha256) == 0)
            return true;
    }
    return false;
}

static void work_build(struct delivery_work *w, const char *code_path)
{
    struct delivery *d = w->owner;
    struct module *module = module_in_use(d, w->sha256);
    w->item->stage = DELIVERY_BUILD;
    if (module == NULL && module_is_coming(d, w->sha256)) {
        w->waits = mem_strdup(code_path);
        return;
    }
    w->building = true;
    struct build_job *job = mem_zalloc(sizeof *job);
    job->mail.type = DELIVERY_BUILT;
    job->engine = d->o.engine;
    job->code_path = mem_strdup(code_path);
    describe(w, &job->desc);
    job->desc.module = module != NULL ? module_ref(module) : NULL;
    job->vm_count = d->o.worker_count;
    job->ticket = w->ticket;
    builder_post(d->o.builder, job);
}

void delivery_work_module_settled(struct delivery *d, const char *sha256)
{
    MAP_EACH (e, &d->items) {
        struct delivery_work *w = ((struct delivery_item *)e->value)->work;
        if (d->closing || w == NULL || w->waits == NULL || strcmp(w->sha256, sha256) != 0)
            continue;
        char *path = w->waits;
        w->waits = NULL;
        work_build(w, path);
        mem_free(path);
    }
}

void delivery_work_not_built(struct delivery_work *w, const struct build_job *job)
{
    const char *error = job->error != NULL ? job->error : "unknown";
    w->building = false; /* it has come back */
    delivery_work_module_settled(w->owner, w->sha256);
    switch (job->result) {
    case BUILD_BAD_CODE:
        if (w->from_cache) {
            log_line(LOG_WARN, "plugin %s: compiled code of the cache does not load (%s); compiling anew",
                     w->item->title, error);
            w->item->fresh_code = true;
            delivery_work_start(w->owner, w->item);
            return;
        }
        work_fail(w, "LinkFailed", PLUGIN_START_FAILED, AGAIN_NEVER, "%s", error);
        return;
    case BUILD_START_FAILED: work_fail(w, "StartFailed", PLUGIN_START_FAILED, AGAIN_LATER, "%s", error); return;
    case BUILD_CONFIGURE_FAILED: work_fail(w, "ConfigureFailed", PLUGIN_START_FAILED, AGAIN_LATER, "%s", error); return;
    case BUILD_OK: break;
    }
    ASSERT(false);
}

/* ---- compiled code ---- */

static void work_compiles(void *arg) { ((struct delivery_work *)arg)->item->stage = DELIVERY_COMPILE; }

static void work_has_code(void *arg, const struct code_result *result)
{
    struct delivery_work *w = arg;
    w->code = NULL;
    if (result->path == NULL) {
        bool cache = strcmp(result->reason, "CacheFailed") == 0;
        work_fail(w, result->reason, PLUGIN_BAD_MODULE,
                  !result->again ? AGAIN_NEVER
                  : cache        ? AGAIN_SOON
                                 : AGAIN_LATER,
                  "%s", result->error);
        return;
    }
    w->from_cache = result->from_cache;
    work_build(w, result->path);
}

/* ---- check ---- */

static void work_bad(struct delivery_work *w, const char *reason, char *text /* taken */)
{
    w->bad_reason = reason;
    w->bad = text;
}

/* Thread pool: unpacking, digest, form, ABI. */
static void check_work(uv_work_t *uv)
{
    struct delivery_work *w = uv->data;
    struct module_info info = {0};
    char *error = NULL;
    if (!module_info_parse(str_span(w->bytes, w->n), &info, &error)) {
        work_bad(w, "BadModule", mem_printf("is not a valid Wasm module: %s", error != NULL ? error : "malformed"));
        mem_free(error);
        return;
    }
    w->abi = abi_detect(&info, &w->warning);
    if (w->abi == ABI_NONE)
        work_bad(w, "BadModule",
                 mem_strdup("missing or unknown Proxy-Wasm ABI version (no proxy_abi_version_* export)"));
    else
        work_bad(w, "BadModule", abi_check_module(&info));
    module_info_free(&info);
}

static void check_done(uv_work_t *uv, int status)
{
    struct delivery_work *w = uv->data;
    struct delivery_item *item = w->item;
    (void)status;
    w->checking = false;
    if (w->dropped) {
        work_free(w);
        return;
    }
    if (w->bad != NULL) {
        bool remote = w->resource->u.wasm_plugin.scheme != URL_FILE;
        work_fail(w, w->bad_reason, PLUGIN_BAD_MODULE, remote ? AGAIN_LATER : AGAIN_NEVER, "%s", w->bad);
        return;
    }
    if (item->live != NULL && strcmp(item->live_key, w->key) == 0 && strcmp(item->live->sha256, w->sha256) == 0) {
        delivery_work_forget(item);
        delivery_item_as_before(item); /* the file was touched, its bytes are the same */
        return;
    }
    if (w->warning != NULL)
        log_line(LOG_WARN, "plugin %s: %s", item->title, w->warning);
    char *bytes = w->bytes;
    w->bytes = NULL;
    w->code = code_want(w->owner->o.code, w->sha256, bytes, w->n, item->fresh_code, work_compiles, work_has_code, w);
}

/* ---- fetch ---- */

static void work_fetched(void *arg, struct fetch_result *result)
{
    struct delivery_work *w = arg;
    w->fetch = NULL;
    if (result->error != NULL) {
        bool bad = strcmp(result->reason, "BadModule") == 0 || strcmp(result->reason, "DigestMismatch") == 0;
        work_fail(w, result->reason, bad ? PLUGIN_BAD_MODULE : PLUGIN_FETCH_FAILED,
                  !result->retry ? AGAIN_NEVER
                  : bad          ? AGAIN_LATER
                                 : AGAIN_SOON,
                  "%s", result->error);
        return;
    }
    if (result->warning != NULL)
        log_line(LOG_WARN, "plugin %s: %s", w->item->title, result->warning);
    w->bytes = result->bytes;
    w->n = result->n;
    memcpy(w->sha256, result->module_sha256, sizeof w->sha256);
    result->bytes = NULL;
    w->checking = true;
    w->uv.data = w;
    ASSERT(uv_queue_work(&w->owner->o.loop->uv, &w->uv, check_work, check_done) == 0);
}

void delivery_work_start(struct delivery *d, struct delivery_item *item)
{
    delivery_work_forget(item);
    struct delivery_work *w = mem_zalloc(sizeof *w);
    w->owner = d;
    w->item = item;
    w->ticket = d->next_ticket++;
    w->resource = resource_ref(item->resource);
    memcpy(w->key, item->want_key, sizeof w->key);
    item->work = w;
    item->stage = DELIVERY_FETCH;
    const struct wasm_plugin *p = &w->resource->u.wasm_plugin;
    if (p->type == PLUGIN_NETWORK)
        work_fail(w, "NotSupported", PLUGIN_BAD_MODULE, AGAIN_NEVER, "plugins of type NETWORK are not supported yet");
    else
        w->fetch = fetch_start(d->o.fetcher, &(struct fetch_request){.url = p->url,
                                                                     .sha256 = p->sha256,
                                                                     .done = work_fetched,
                                                                     .arg = w});
}
