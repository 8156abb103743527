/* SPDX-License-Identifier: Apache-2.0
 *
 * See delivery.h. One delivery_work is one attempt for one text of one object; a newer text cancels it (its late
 * answers find ticket numbers that are nobody's any more). What must never happen: a candidate that reaches traffic
 * before every step went well, or a late old answer that overwrites a newer one.
 */
#include "control/delivery.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"

enum { RETRY_FIRST_MS = 1000, RETRY_MAX_MS = 60 * 1000 };

struct delivery_work {
    struct delivery *owner;
    struct delivery_item *item;
    uint64_t ticket;
    struct resource *resource; /* one reference */
    char key[65];
    struct fetch *fetch;
    char *bytes;
    size_t n;
    char sha256[65];
    enum abi_version abi;
    char *wasm_path, *made_path, *code_path;
    /* preparing on the thread pool */
    uv_work_t uv;
    char *error, *error_reason;
    char *warning;
    bool busy; /* the thread pool has it */
    bool cancelled;
};

struct delivery {
    struct delivery_options o;
    struct map items;
    uint64_t next_ticket, next_generation;
    struct loop_task notify;
    struct list retries; /* struct retry */
    struct list retired; /* struct retired */
    uint64_t random;
};
/* A generation that no new snapshot names. Workers hear of it once all of them have adopted such a snapshot: until then
 * a stream may still begin with it. */
struct retired {
    struct list node;
    struct plugin *plugin;
    uint64_t version; /* the first snapshot without it; 0: not published yet */
};
struct retry {
    struct list node;
    struct delivery *owner;
    struct loop_timer timer;
    char *key;             /* of the item */
    struct plugin *plugin; /* a VM of this one for `worker`; NULL: start the delivery again */
    unsigned worker;
};

static void work_fail(struct delivery_work *w, const char *reason, enum plugin_absence absence, bool again,
                      const char *fmt, ...) PRINTF_LIKE(5, 6);
static void work_fetched(void *arg, struct fetch_result *result);
static void work_prepare(struct delivery_work *w);
static void work_compile(struct delivery_work *w);
static void work_build(struct delivery_work *w);
static void item_start(struct delivery *d, struct delivery_item *item);
static void retry_later(struct delivery *d, const struct delivery_item *item, struct plugin *plugin, unsigned worker,
                        uint64_t ms);

const char *delivery_stage_name(enum delivery_stage s)
{
    static const char *const names[] = {"Fetching", "Compiling", "Configuring", "Adopting", "Programmed", "Failed"};
    return names[s];
}

/* ---- notification ---- */

static void on_notify(struct loop_task *task)
{
    struct delivery *d = CONTAINER_OF(task, struct delivery, notify);
    d->o.changed(d->o.arg);
}
static void notify(struct delivery *d) { loop_defer(d->o.loop, &d->notify); }

struct delivery *delivery_new(const struct delivery_options *options)
{
    struct delivery *d = mem_zalloc(sizeof *d);
    d->o = *options;
    d->next_ticket = d->next_generation = 1;
    d->random = str_hash(STR("delivery"));
    list_init(&d->retries);
    list_init(&d->retired);
    loop_task_init(&d->notify, on_notify);
    return d;
}

/* ---- items ---- */

/* What must be equal for a VM to go on as it is. Phase, priority, selector and match are the chain's business, not the
 * VM's. */
static void resource_key(const struct resource *r, char out[65])
{
    const struct wasm_plugin *p = &r->u.wasm_plugin;
    struct strbuf b = {0};
    strbuf_printf(&b, "%s\n%s\n%s\n%d\n%s\n", p->url, p->sha256 != NULL ? p->sha256 : "", p->plugin_name, (int)p->fail,
                  p->vm_id != NULL ? p->vm_id : "");
    strbuf_printf(&b, "%lld %lld %lld %lld %d %d\n", (long long)p->cpu_deadline_ms, (long long)p->start_deadline_ms,
                  (long long)p->memory_limit, (long long)p->pause_limit_ms, p->utf8, p->pause_headers);
    strbuf_printf(&b, "%zu\n", p->config_bytes);
    strbuf_add(&b, str_span(p->config, p->config_bytes));
    for (size_t i = 0; i < p->env_count; i++)
        strbuf_printf(&b, "\n%s=%s %d", p->env[i].name, p->env[i].value != NULL ? p->env[i].value : "",
                      p->env[i].from_host);
    sha256_hex(strbuf_str(&b), out);
    strbuf_free(&b);
}

static void work_drop(struct delivery_work *w)
{
    if (w->fetch != NULL)
        fetch_cancel(w->fetch);
    w->fetch = NULL;
    if (w->busy) {
        w->cancelled = true; /* freed when the thread pool or the compiler gives it back */
        return;
    }
    resource_unref(w->resource);
    mem_free(w->bytes);
    if (w->wasm_path != NULL)
        unlink(w->wasm_path);
    mem_free(w->wasm_path);
    mem_free(w->made_path);
    mem_free(w->code_path);
    mem_free(w->error);
    mem_free(w->error_reason);
    mem_free(w->warning);
    mem_free(w);
}

static void item_forget_work(struct delivery_item *item)
{
    struct delivery_work *w = item->work;
    item->work = NULL;
    if (w != NULL)
        work_drop(w);
}

static void item_say(struct delivery_item *item, const char *reason, const char *message)
{
    mem_free(item->reason);
    mem_free(item->message);
    item->reason = reason != NULL ? mem_strdup(reason) : NULL;
    item->message = message != NULL ? mem_strdup(message) : NULL;
}

static void plugin_retire(struct delivery *d, struct plugin *p /* taken */)
{
    struct retired *r = mem_zalloc(sizeof *r);
    r->plugin = p;
    list_init(&r->node);
    list_push_back(&d->retired, &r->node);
}

static void retired_tell(struct delivery *d, struct retired *r)
{
    for (unsigned i = 0; i < d->o.worker_count; i++) {
        struct mail_retire *m = mem_zalloc(sizeof *m);
        m->mail.type = MAIL_RETIRE;
        m->generation = r->plugin->generation;
        mailbox_post(worker_mailbox(d->o.workers[i]), &m->mail);
    }
    list_remove(&r->node);
    plugin_unref(r->plugin);
    mem_free(r);
}

static void item_free(struct delivery *d, struct delivery_item *item)
{
    item_forget_work(item);
    if (item->live != NULL)
        plugin_retire(d, item->live);
    if (item->resource != NULL)
        resource_unref(item->resource);
    for (unsigned i = 0; i < d->o.worker_count; i++)
        mem_free(item->workers[i].reason);
    mem_free(item->workers);
    item_say(item, NULL, NULL);
    mem_free(item->title);
    mem_free(item);
}

/* What is wanted is what serves already. */
static void item_as_it_was(struct delivery_item *item)
{
    item_forget_work(item);
    item_say(item, NULL, NULL);
    item->stage = DELIVERY_PROGRAMMED;
    log_line(LOG_INFO, "plugin %s active as before: generation %llu is what is wanted", item->title,
             (unsigned long long)item->live->generation);
}

static void item_key(struct strbuf *b, enum kind kind, const char *ns, const char *name)
{
    strbuf_printf(b, "%s/%s/%s", kind_name(kind), ns, name);
}

static void item_follow(struct delivery *d, const struct store_object *o)
{
    struct strbuf key = {0};
    item_key(&key, o->kind, o->ns, o->name);
    struct delivery_item *item = map_get(&d->items, strbuf_str(&key));
    if (item == NULL) {
        item = mem_zalloc(sizeof *item);
        item->kind = o->kind;
        item->title = mem_printf("%s/%s", o->ns, o->name);
        item->absence = PLUGIN_PENDING;
        item->workers = mem_zalloc(d->o.worker_count * sizeof *item->workers);
        map_set(&d->items, strbuf_str(&key), item);
    }
    strbuf_free(&key);
    item->seen = true;
    if (item->resource != o->good) {
        if (item->resource != NULL)
            resource_unref(item->resource);
        item->resource = resource_ref(o->good);
    }
    char want[65];
    resource_key(o->good, want);
    if (strcmp(want, item->want_key) == 0)
        return;
    memcpy(item->want_key, want, sizeof want);
    item->changed_ms = loop_now(d->o.loop);
    item->failures = 0;
    if (item->live != NULL && strcmp(want, item->live_key) == 0) {
        item_as_it_was(item);
        return;
    }
    item_start(d, item);
}

void delivery_update(struct delivery *d, const struct store *store)
{
    MAP_EACH (e, &d->items)
        ((struct delivery_item *)e->value)->seen = false;
    STORE_EACH(o, store, KIND_WASM_PLUGIN) item_follow(d, o);
    STORE_EACH(o, store, KIND_TRAFFIC_EXTENSION) item_follow(d, o);
    struct map gone = {0};
    MAP_EACH (e, &d->items)
        if (!((struct delivery_item *)e->value)->seen)
            map_set(&gone, e->key, e->value);
    MAP_EACH (e, &gone) {
        struct delivery_item *item = map_remove(&d->items, e->key);
        log_line(LOG_INFO, "plugin %s removed", item->title);
        /* Workers keep the VM until their last stream with it has ended. */
        item_free(d, item);
    }
    map_free(&gone);
}

const struct delivery_item *delivery_find(const struct delivery *d, enum kind kind, const char *ns, const char *name)
{
    struct strbuf key = {0};
    item_key(&key, kind, ns, name);
    const struct delivery_item *item = map_get(&d->items, strbuf_str(&key));
    strbuf_free(&key);
    return item;
}

struct map *delivery_items(struct delivery *d) { return &d->items; }

/* ---- files that change ---- */

static struct file_stamp stamp_of(const char *url)
{
    struct stat st;
    if (strncmp(url, "file://", 7) != 0 || stat(url + 7, &st) != 0)
        return (struct file_stamp){0};
    return (struct file_stamp){(uint64_t)st.st_dev, (uint64_t)st.st_ino, (uint64_t)st.st_size,
                               (uint64_t)st.st_mtim.tv_sec * 1000000000u + (uint64_t)st.st_mtim.tv_nsec};
}

void delivery_check_files(struct delivery *d)
{
    MAP_EACH (e, &d->items) {
        struct delivery_item *item = e->value;
        if (item->work != NULL || item->resource->u.wasm_plugin.scheme != URL_FILE)
            continue;
        struct file_stamp now = stamp_of(item->resource->u.wasm_plugin.url);
        if (now.inode == 0 || memcmp(&now, &item->file, sizeof now) == 0)
            continue; /* a file that is gone takes nothing away: what was loaded from it goes on */
        item->changed_ms = loop_now(d->o.loop);
        item->failures = 0;
        item_start(d, item);
    }
}

/* ---- one attempt ---- */

static void item_start(struct delivery *d, struct delivery_item *item)
{
    item_forget_work(item);
    struct delivery_work *w = mem_zalloc(sizeof *w);
    w->owner = d;
    w->item = item;
    w->ticket = d->next_ticket++;
    w->resource = resource_ref(item->resource);
    memcpy(w->key, item->want_key, sizeof w->key);
    item->work = w;
    item->stage = DELIVERY_FETCH;
    item->file = stamp_of(item->resource->u.wasm_plugin.url);
    if (item->live == NULL && item->absence != PLUGIN_PENDING && item->failures == 0) {
        item->absence = PLUGIN_PENDING;
        notify(d);
    }
    const struct wasm_plugin *p = &w->resource->u.wasm_plugin;
    if (p->type == PLUGIN_NETWORK)
        work_fail(w, "NotSupported", PLUGIN_BAD_MODULE, false, "plugins of type NETWORK are not supported yet");
    else if (p->scheme == URL_OCI)
        work_fail(w, "NotSupported", PLUGIN_FETCH_FAILED, false,
                  "fetching from OCI registries is not supported yet (%s): use a file:// or http(s):// url", p->url);
    else
        w->fetch = fetch_start(d->o.fetcher, p->url, work_fetched, w);
}

static uint64_t jitter(struct delivery *d, uint64_t ms)
{
    d->random = d->random * 6364136223846793005u + 1442695040888963407u;
    return ms / 2 + (d->random >> 33) % (ms / 2 + 1);
}

static void work_fail(struct delivery_work *w, const char *reason, enum plugin_absence absence, bool again,
                      const char *fmt, ...)
{
    struct delivery *d = w->owner;
    struct delivery_item *item = w->item;
    struct strbuf text = {0};
    va_list args;
    va_start(args, fmt);
    char line[2048];
    int n = vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    strbuf_add_escaped(&text, str_span(line, n < 0 ? 0 : (size_t)n < sizeof line ? (size_t)n : sizeof line - 1));
    strbuf_addc(&text, '\0');
    item->stage = DELIVERY_FAILED;
    item->failures++;
    if (item->live == NULL && item->absence != absence) {
        item->absence = absence;
        notify(d);
    }
    item_say(item, reason, text.p);
    log_line(LOG_ERROR, "plugin %s not active: %s: %s%s", item->title, reason, text.p,
             item->live != NULL ? " (the last good generation keeps serving)" : "");
    strbuf_free(&text);
    item_forget_work(item);
    if (again) {
        unsigned shift = item->failures < 7 ? item->failures - 1 : 6;
        uint64_t ms = (uint64_t)RETRY_FIRST_MS << shift;
        retry_later(d, item, NULL, 0, jitter(d, ms < RETRY_MAX_MS ? ms : RETRY_MAX_MS));
    }
}

static void work_fetched(void *arg, struct fetch_result *result)
{
    struct delivery_work *w = arg;
    w->fetch = NULL;
    if (result->error != NULL) {
        work_fail(w, "FetchFailed", PLUGIN_FETCH_FAILED, result->retry, "%s", result->error);
        return;
    }
    w->bytes = result->bytes;
    w->n = result->n;
    work_prepare(w);
}

/* Thread pool: digest, form, ABI, and whether the compiled code is in the cache already. */
static void prepare_work(uv_work_t *uv)
{
    struct delivery_work *w = uv->data;
    const struct wasm_plugin *p = &w->resource->u.wasm_plugin;
    sha256_hex(str_span(w->bytes, w->n), w->sha256);
    if (p->sha256 != NULL && strcmp(p->sha256, w->sha256) != 0) {
        w->error_reason = mem_strdup("DigestMismatch");
        w->error = mem_printf("sha256 is %s, spec.sha256 wants %s", w->sha256, p->sha256);
        return;
    }
    struct module_info info = {0};
    char *error = NULL;
    if (!module_info_parse(str_span(w->bytes, w->n), &info, &error)) {
        w->error_reason = mem_strdup("BadModule");
        w->error = mem_printf("is not a valid Wasm module: %s", error != NULL ? error : "malformed");
        mem_free(error);
        return;
    }
    const char *warning = NULL;
    w->abi = abi_detect(&info, &warning);
    if (warning != NULL)
        w->warning = mem_strdup(warning);
    if (w->abi == ABI_NONE) {
        w->error_reason = mem_strdup("BadModule");
        w->error = mem_strdup("missing or unknown Proxy-Wasm ABI version (no proxy_abi_version_* export)");
    } else {
        w->error = abi_check_module(&info);
        if (w->error != NULL)
            w->error_reason = mem_strdup("BadModule");
    }
    module_info_free(&info);
    if (w->error == NULL)
        w->code_path = module_cache_find(w->owner->o.cache, w->sha256, "optimised");
}

static void prepare_done(uv_work_t *uv, int status)
{
    struct delivery_work *w = uv->data;
    (void)status;
    w->busy = false;
    if (w->cancelled) {
        work_drop(w);
        return;
    }
    memcpy(w->item->wasm_sha256, w->sha256, sizeof w->sha256);
    if (w->warning != NULL)
        log_line(LOG_WARN, "plugin %s: %s", w->item->title, w->warning);
    struct delivery_item *item = w->item;
    if (w->error != NULL)
        work_fail(w, w->error_reason, PLUGIN_BAD_MODULE, false, "%s", w->error);
    else if (item->live != NULL && strcmp(item->live_key, w->key) == 0 && strcmp(item->live->sha256, w->sha256) == 0)
        item_as_it_was(item); /* the file was touched, its bytes are the same */
    else if (w->code_path != NULL)
        work_build(w);
    else
        work_compile(w);
}

static void work_prepare(struct delivery_work *w)
{
    w->busy = true;
    w->uv.data = w;
    ASSERT(uv_queue_work(&w->owner->o.loop->uv, &w->uv, prepare_work, prepare_done) == 0);
}

static void compile_done(void *arg, const char *error)
{
    struct delivery_work *w = arg;
    w->busy = false;
    unlink(w->wasm_path);
    if (w->cancelled) {
        unlink(w->made_path);
        work_drop(w);
        return;
    }
    if (error != NULL) {
        work_fail(w, "CompileFailed", PLUGIN_BAD_MODULE, false, "%s", error);
        return;
    }
    char *why = NULL;
    w->code_path = module_cache_seal(w->owner->o.cache, w->sha256, "optimised", w->made_path, &why);
    if (w->code_path == NULL) {
        work_fail(w, "CacheFailed", PLUGIN_BAD_MODULE, true, "%s", why);
        mem_free(why);
        return;
    }
    work_build(w);
}

static void work_compile(struct delivery_work *w)
{
    struct delivery *d = w->owner;
    w->item->stage = DELIVERY_COMPILE;
    w->wasm_path = module_cache_temporary(d->o.cache, ".wasm");
    w->made_path = module_cache_temporary(d->o.cache, ".cwasm");
    FILE *f = fopen(w->wasm_path, "wbx");
    bool ok = f != NULL && fwrite(w->bytes, 1, w->n, f) == w->n;
    if (f != NULL)
        ok = fclose(f) == 0 && ok;
    if (!ok) {
        work_fail(w, "CacheFailed", PLUGIN_BAD_MODULE, true, "cannot write to the cache directory");
        return;
    }
    mem_free(w->bytes);
    w->bytes = NULL;
    w->busy = true;
    compiler_run(d->o.compiler, w->wasm_path, w->made_path, "optimised", compile_done, w);
}

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

_Static_assert((int)FAIL_CLOSE == (int)PLUGIN_FAIL_CLOSE && (int)FAIL_OPEN == (int)PLUGIN_FAIL_OPEN &&
                   (int)FAIL_RELOAD == (int)PLUGIN_FAIL_RELOAD,
               "the fail strategies of conf and wasm are the same numbers");

static void work_build(struct delivery_work *w)
{
    struct delivery *d = w->owner;
    w->item->stage = DELIVERY_BUILD;
    struct build_job *job = mem_zalloc(sizeof *job);
    job->mail.type = DELIVERY_BUILT;
    job->engine = d->o.engine;
    job->code_path = w->code_path;
    w->code_path = NULL;
    describe(w, &job->desc);
    /* The same code as the generation in use: share the module, map nothing again. */
    if (w->item->live != NULL && strcmp(w->item->live->sha256, w->sha256) == 0)
        job->desc.module = module_ref(w->item->live->module);
    job->vm_count = d->o.worker_count;
    job->ticket = w->ticket;
    builder_post(d->o.builder, job);
}

/* ---- the builder's answers ---- */

static void vm_to_worker(struct delivery *d, unsigned worker, struct plugin_vm **vm)
{
    struct mail_vm *m = mem_zalloc(sizeof *m);
    m->mail.type = MAIL_VM;
    m->vm = *vm;
    *vm = NULL;
    mailbox_post(worker_mailbox(d->o.workers[worker]), &m->mail);
}

static void item_go_live(struct delivery *d, struct delivery_item *item, struct build_job *job)
{
    for (unsigned i = 0; i < job->vm_count; i++) {
        vm_to_worker(d, i, &job->vms[i]);
        item->workers[i].state = "live";
        mem_free(item->workers[i].reason);
        item->workers[i].reason = NULL;
    }
    if (item->live != NULL) {
        plugin_retire(d, item->live);
        item->swaps++;
    }
    item->live = plugin_ref(job->plugin);
    item->absence = PLUGIN_PRESENT;
    memcpy(item->live_key, item->work->key, sizeof item->live_key);
    item->stage = DELIVERY_ADOPT;
    item->adopt_version = 0;
    item->failures = 0;
    item_say(item, NULL, NULL);
    item_forget_work(item);
    notify(d);
}

static struct delivery_item *item_of_ticket(struct delivery *d, uint64_t ticket)
{
    MAP_EACH (e, &d->items) {
        struct delivery_item *item = e->value;
        if (item->work != NULL && item->work->ticket == ticket)
            return item;
    }
    return NULL;
}

static void replacement_built(struct delivery *d, struct build_job *job)
{
    MAP_EACH (e, &d->items) {
        struct delivery_item *item = e->value;
        if (item->live == NULL || item->live->generation != job->plugin->generation)
            continue;
        if (job->result == BUILD_OK) {
            item->workers[job->first_worker].state = "live";
            vm_to_worker(d, job->first_worker, &job->vms[0]);
            log_line(LOG_INFO, "plugin %s active again on worker %u (generation %llu)", item->title, job->first_worker,
                     (unsigned long long)job->plugin->generation);
        } else {
            log_line(LOG_ERROR, "plugin %s: a replacement VM for worker %u did not start: %s", item->title,
                     job->first_worker, job->error != NULL ? job->error : "unknown");
            retry_later(d, item, job->plugin, job->first_worker, jitter(d, 2000));
        }
        return;
    }
    /* Its generation is not in use any more: the VM goes with the job. */
}

void delivery_built(struct delivery *d, struct build_job *job)
{
    struct delivery_item *item = job->ticket != 0 ? item_of_ticket(d, job->ticket) : NULL;
    if (job->ticket == 0)
        replacement_built(d, job);
    else if (item != NULL && job->result == BUILD_OK)
        item_go_live(d, item, job);
    else if (item != NULL) {
        static const char *const reasons[] = {[BUILD_BAD_CODE] = "LinkFailed",
                                              [BUILD_START_FAILED] = "StartFailed",
                                              [BUILD_CONFIGURE_FAILED] = "ConfigureFailed"};
        work_fail(item->work, reasons[job->result], PLUGIN_START_FAILED, false, "%s",
                  job->error != NULL ? job->error : "unknown");
    }
    build_job_free(job);
}

/* ---- adoption ---- */

void delivery_published(struct delivery *d, uint64_t version)
{
    MAP_EACH (e, &d->items) {
        struct delivery_item *item = e->value;
        if (item->stage == DELIVERY_ADOPT && item->adopt_version == 0)
            item->adopt_version = version;
    }
    LIST_EACH (n, &d->retired) {
        struct retired *r = LIST_ENTRY(n, struct retired, node);
        if (r->version == 0)
            r->version = version;
    }
}

void delivery_adopted(struct delivery *d, uint64_t version)
{
    LIST_EACH (n, &d->retired) {
        struct retired *r = LIST_ENTRY(n, struct retired, node);
        if (r->version != 0 && r->version <= version)
            retired_tell(d, r);
    }
    MAP_EACH (e, &d->items) {
        struct delivery_item *item = e->value;
        if (item->stage != DELIVERY_ADOPT || item->adopt_version == 0 || item->adopt_version > version)
            continue;
        item->stage = DELIVERY_PROGRAMMED;
        item->programmed_once = true;
        item->took_ms = loop_now(d->o.loop) - item->changed_ms;
        static const char *const phases[] = {"none", "AUTHN", "AUTHZ", "STATS"};
        log_line(LOG_INFO,
                 "plugin %s active: phase %s, sha256 %s, ABI %s, %u workers, generation %llu, %llu ms after the change",
                 item->title, phases[item->resource->u.wasm_plugin.phase], item->live->sha256,
                 abi_version_name(item->live->abi), d->o.worker_count, (unsigned long long)item->live->generation,
                 (unsigned long long)item->took_ms);
    }
}

bool delivery_settled(const struct delivery *d)
{
    MAP_EACH (e, &d->items) {
        const struct delivery_item *item = e->value;
        if (item->stage != DELIVERY_PROGRAMMED && item->stage != DELIVERY_FAILED)
            return false;
    }
    return true;
}

/* ---- replacements and retries ---- */

static void retry_closed(struct loop_timer *timer)
{
    struct retry *r = CONTAINER_OF(timer, struct retry, timer);
    if (r->plugin != NULL)
        plugin_unref(r->plugin);
    mem_free(r->key);
    mem_free(r);
}

static void build_replacement(struct delivery *d, struct plugin *plugin, unsigned worker)
{
    struct build_job *job = mem_zalloc(sizeof *job);
    job->mail.type = DELIVERY_BUILT;
    job->engine = d->o.engine;
    job->plugin = plugin_ref(plugin);
    job->vm_count = 1;
    job->first_worker = worker;
    builder_post(d->o.builder, job);
}

static void on_retry(struct loop_timer *timer)
{
    struct retry *r = CONTAINER_OF(timer, struct retry, timer);
    struct delivery *d = r->owner;
    struct delivery_item *item = map_get(&d->items, str_of(r->key));
    if (item != NULL && r->plugin == NULL && item->stage == DELIVERY_FAILED && item->work == NULL)
        item_start(d, item);
    else if (item != NULL && r->plugin != NULL && item->live != NULL && item->live->generation == r->plugin->generation)
        build_replacement(d, r->plugin, r->worker);
    list_remove(&r->node);
    loop_timer_close(&r->timer, retry_closed);
}

static void retry_later(struct delivery *d, const struct delivery_item *item, struct plugin *plugin, unsigned worker,
                        uint64_t ms)
{
    struct retry *r = mem_zalloc(sizeof *r);
    struct strbuf key = {0};
    strbuf_printf(&key, "%s/%s", kind_name(item->kind), item->title);
    r->key = str_dup(strbuf_str(&key));
    strbuf_free(&key);
    r->owner = d;
    r->plugin = plugin != NULL ? plugin_ref(plugin) : NULL;
    r->worker = worker;
    list_init(&r->node);
    list_push_back(&d->retries, &r->node);
    loop_timer_init(&r->timer, d->o.loop, on_retry);
    loop_timer_start(&r->timer, ms);
}

void delivery_vm_lost(struct delivery *d, const struct mail_from_worker *mail)
{
    MAP_EACH (e, &d->items) {
        struct delivery_item *item = e->value;
        if (item->live == NULL || item->live->generation != mail->generation)
            continue;
        log_line(LOG_ERROR, "plugin %s failed on worker %u in %s: %s%s", item->title, mail->worker,
                 mail->callback != NULL ? mail->callback : "?", mail->reason != NULL ? mail->reason : "unknown",
                 mail->quarantined ? "; quarantined" : "");
        item->workers[mail->worker].state = mail->quarantined ? "quarantined" : "restarting";
        item->workers[mail->worker].losses++;
        item->workers[mail->worker].since_ms = loop_now(d->o.loop);
        mem_free(item->workers[mail->worker].reason);
        item->workers[mail->worker].reason = mem_printf("%s: %s", mail->callback != NULL ? mail->callback : "?",
                                                        mail->reason != NULL ? mail->reason : "unknown");
        retry_later(d, item, item->live, mail->worker, mail->wanted_in_ms > 0 ? mail->wanted_in_ms : 1);
        return;
    }
}

void delivery_free(struct delivery *d)
{
    MAP_EACH (e, &d->items)
        item_free(d, e->value);
    map_free(&d->items);
    LIST_EACH (n, &d->retries) {
        struct retry *r = LIST_ENTRY(n, struct retry, node);
        list_remove(n);
        loop_timer_close(&r->timer, retry_closed);
    }
    /* The workers are gone already: nobody is left to tell. */
    LIST_EACH (n, &d->retired) {
        struct retired *r = LIST_ENTRY(n, struct retired, node);
        list_remove(n);
        plugin_unref(r->plugin);
        mem_free(r);
    }
    loop_task_cancel(&d->notify);
    mem_free(d);
}
