/* SPDX-License-Identifier: Apache-2.0
 *
 * One attempt to deliver one text of one plugin: pull -> compiled code -> build. A newer text drops it, wherever it is:
 * what the thread pool still holds is freed when it comes back, and a build that is under way comes back with a ticket
 * that is nobody's any more. What must never happen: a late answer of a dropped attempt that does anything.
 */
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "control/delivery_priv.h"

/* Code of the fast compiler runs two to three times as long. */
enum { FAST_TIER_DEADLINES = 3 };
static const char DOCKER_CONFIG_TYPE[] = "kubernetes.io/dockerconfigjson", DOCKER_CONFIG_KEY[] = ".dockerconfigjson";

void delivery_module_free(struct delivery_module *m)
{
    mem_free(m->path);
    module_cache_release(&m->hold);
    module_cache_release(&m->code_hold);
    *m = (struct delivery_module){.hold = -1, .code_hold = -1};
}

static void work_free(struct delivery_work *w)
{
    resource_unref(w->resource);
    delivery_module_free(&w->module);
    mem_free(w->waits);
    mem_free(w);
}

void delivery_work_forget(struct delivery_work **slot)
{
    struct delivery_work *w = *slot;
    *slot = NULL;
    if (w == NULL)
        return;
    if (w->pull != NULL)
        pull_cancel(w->pull);
    if (w->code != NULL)
        code_unwant(w->code);
    if (w->building) {
        builder_forget(w->owner->o.builder, w->ticket);
        delivery_work_module_settled(w->owner, w->module.sha256);
    }
    work_free(w);
}

static struct delivery_work **work_slot(struct delivery_work *w)
{
    return w->better ? &w->item->better : &w->item->work;
}

static void work_stage(struct delivery_work *w, enum delivery_stage stage, enum delivery_step step)
{
    if (w->better)
        return;
    w->item->stage = stage;
    delivery_fact(w->owner, w->item, step, STEP_GOING);
}

static void work_fail(struct delivery_work *w, const struct delivery_failure *why, const char *fmt, ...)
    PRINTF_LIKE(3, 4);
static void work_fail(struct delivery_work *w, const struct delivery_failure *why, const char *fmt, ...)
{
    struct delivery *d = w->owner;
    struct delivery_item *item = w->item;
    bool better = w->better;
    char line[2048];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    struct strbuf text = {0};
    strbuf_add_escaped(&text, str_of(line));
    strbuf_addc(&text, '\0');
    struct delivery_failure failure = *why;
    failure.message = text.p;
    if (!better) {
        /* What it had come by is wanted still: it must not leave the cache. */
        delivery_module_free(&item->wanted);
        item->wanted = w->module;
        w->module = (struct delivery_module){.hold = -1, .code_hold = -1};
        item->again = w->again;
        bool for_good = why->again == AGAIN_NEVER && (why->step == STEP_COMPILE || why->step == STEP_CONFIGURE);
        memcpy(item->bad_sha256, for_good ? item->wanted.sha256 : "", for_good ? sizeof item->bad_sha256 : 1);
    }
    delivery_work_forget(work_slot(w));
    if (better)
        delivery_better_failed(item, d, why->again != AGAIN_NEVER, text.p);
    else
        delivery_item_failed(item, d, &failure);
    strbuf_free(&text);
}

/* ---- build ---- */

_Static_assert((int)FAIL_CLOSE == (int)PLUGIN_FAIL_CLOSE && (int)FAIL_OPEN == (int)PLUGIN_FAIL_OPEN &&
                   (int)FAIL_RELOAD == (int)PLUGIN_FAIL_RELOAD,
               "the fail strategies of conf and wasm are the same numbers");

static void describe_limits(const struct wasm_plugin *p, enum compile_tier tier, struct plugin_limits *l)
{
    *l = plugin_limits_default();
    if (p->cpu_deadline_ms >= 0)
        l->cpu_deadline_ms = (uint32_t)p->cpu_deadline_ms;
    if (p->start_deadline_ms >= 0)
        l->start_deadline_ms = (uint32_t)p->start_deadline_ms;
    if (p->memory_limit >= 0)
        l->memory_bytes = (uint64_t)p->memory_limit;
    if (p->pause_limit_ms >= 0)
        l->pause_limit_ms = (uint32_t)p->pause_limit_ms;
    if (tier == TIER_FAST) {
        l->cpu_deadline_ms *= FAST_TIER_DEADLINES;
        l->start_deadline_ms *= FAST_TIER_DEADLINES;
    }
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
    describe_limits(p, w->module.tier, &desc->limits);
    desc->abi = w->module.abi;
    memcpy(desc->sha256, w->module.sha256, sizeof desc->sha256);
}

/* One module in memory for all plugins of the same code. */
static struct module *module_in_use(struct delivery *d, const struct delivery_module *m)
{
    MAP_EACH (e, &d->items) {
        const struct delivery_item *item = e->value;
        if (item->live != NULL && strcmp(item->live->sha256, m->sha256) == 0 && item->live_module.tier == m->tier)
            return item->live->module;
    }
    return NULL;
}
static bool is_loading(const struct delivery_work *w, const struct delivery_module *m)
{
    return w != NULL && w->building && strcmp(w->module.sha256, m->sha256) == 0 && w->module.tier == m->tier;
}
static bool module_is_coming(struct delivery *d, const struct delivery_module *m)
{
    MAP_EACH (e, &d->items) {
        const struct delivery_item *item = e->value;
        if (is_loading(item->work, m) || is_loading(item->better, m))
            return true;
    }
    return false;
}

static void work_build(struct delivery_work *w, const char *code_path)
{
    struct delivery *d = w->owner;
    struct module *module = module_in_use(d, &w->module);
    work_stage(w, DELIVERY_BUILD, STEP_CONFIGURE);
    if (module == NULL && module_is_coming(d, &w->module)) {
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

static void work_go_on(struct delivery_work *w, const char *sha256)
{
    if (w == NULL || w->waits == NULL || strcmp(w->module.sha256, sha256) != 0)
        return;
    char *path = w->waits;
    w->waits = NULL;
    work_build(w, path);
    mem_free(path);
}

void delivery_work_module_settled(struct delivery *d, const char *sha256)
{
    MAP_EACH (e, &d->items) {
        struct delivery_item *item = e->value;
        if (d->closing)
            return;
        work_go_on(item->work, sha256);
        work_go_on(item->better, sha256);
    }
}

static struct delivery_failure not_started(const char *reason, enum delivery_again again)
{
    return (struct delivery_failure){STEP_CONFIGURE, reason, NULL, PLUGIN_START_FAILED, again, 0};
}

void delivery_work_not_built(struct delivery_work *w, const struct build_job *job)
{
    const char *error = job->error != NULL ? job->error : "unknown";
    struct delivery_failure why;
    w->building = false; /* it has come back */
    delivery_work_module_settled(w->owner, w->module.sha256);
    switch (job->result) {
    case BUILD_BAD_CODE:
        /* Also code that was just made, if it is there no more: others may share the directory. */
        if (!w->better && (w->code_from_cache || (job->code_path != NULL && access(job->code_path, F_OK) != 0))) {
            log_line(LOG_WARN, "plugin %s: compiled code of the cache does not load (%s); compiling anew",
                     w->item->title, error);
            w->item->fresh_code = true;
            delivery_work_start(w->owner, w->item, w->again ? ASK_AGAIN : ASK_POLICY);
            return;
        }
        why = not_started("LinkFailed", AGAIN_NEVER);
        break;
    case BUILD_START_FAILED: why = not_started("StartFailed", AGAIN_LATER); break;
    case BUILD_CONFIGURE_FAILED: why = not_started("ConfigureFailed", AGAIN_LATER); break;
    default: ASSERT(false); return;
    }
    work_fail(w, &why, "%s", error);
}

/* ---- compiled code ---- */

static void work_compiles(void *arg) { work_stage(arg, DELIVERY_COMPILE, STEP_COMPILE); }

static void work_has_code(void *arg, const struct code_result *result)
{
    struct delivery_work *w = arg;
    w->code = NULL;
    if (result->path == NULL) {
        bool cache = strcmp(result->reason, "CacheFailed") == 0;
        struct delivery_failure why = {STEP_COMPILE,
                                       result->reason,
                                       NULL,
                                       PLUGIN_BAD_MODULE,
                                       !result->again ? AGAIN_NEVER
                                       : cache        ? AGAIN_SOON
                                                      : AGAIN_LATER,
                                       0};
        work_fail(w, &why, "%s", result->error);
        return;
    }
    w->code_from_cache = result->from_cache;
    w->module.tier = result->tier;
    module_cache_release(&w->module.code_hold);
    w->module.code_hold = module_cache_hold_again(result->hold);
    if (!w->better) {
        struct delivery_facts *f = &w->item->facts;
        snprintf(f->tier, sizeof f->tier, "%s", tier_name(result->tier));
        f->code_from_cache = result->from_cache;
        delivery_fact(w->owner, w->item, STEP_COMPILE, STEP_DONE);
    }
    work_build(w, result->path);
}

static void work_want_code(struct delivery_work *w)
{
    struct delivery_item *item = w->item;
    w->code = code_want(w->owner->o.code,
                        &(struct code_ask){.sha256 = w->module.sha256,
                                           .wasm_path = w->module.path,
                                           .hold = w->module.hold,
                                           .n = w->module.n,
                                           .fresh = item->fresh_code && !w->better,
                                           .waiting = item->live == NULL,
                                           .background = w->better},
                        work_compiles, work_has_code, w);
}

/* ---- pull ---- */

static void work_take_module(struct delivery_work *w, const struct pull_result *r)
{
    struct delivery_module *m = &w->module;
    m->path = mem_strdup(r->path);
    m->n = r->n;
    m->hold = module_cache_hold_again(r->hold);
    m->abi = r->abi;
    memcpy(m->sha256, r->sha256, sizeof m->sha256);
    snprintf(m->digest, sizeof m->digest, "%s", r->digest);
}

/* Of a re-check: nothing is known to be wrong with what serves, so nothing is said of it in status. */
static void recheck_failed(struct delivery_work *w, const struct pull_result *r)
{
    struct delivery_item *item = w->item;
    char *text = mem_printf("the look for a new version failed: %s: %s", r->reason, r->error);
    bool said = item->facts.warning != NULL && strcmp(item->facts.warning, text) == 0;
    log_line(said ? LOG_DEBUG : LOG_WARN, "plugin %s: %s", item->title, text);
    delivery_fact_text(&item->facts.warning, text);
    delivery_fact_text(&item->facts.progress, NULL);
    delivery_tell(w->owner);
    mem_free(text);
    delivery_work_forget(&item->work);
}

static void work_pull_failed(struct delivery_work *w, const struct pull_result *r)
{
    static const char *const for_ever[] = {"BadReference", "Refused", "NotSupported"};
    bool remote = w->resource->u.wasm_plugin.scheme != URL_FILE;
    bool verify = strncmp(r->reason, "Signature", 9) == 0 || strcmp(r->reason, "BadModule") == 0;
    enum delivery_again again = r->bytes_are_bad ? (remote ? AGAIN_LATER : AGAIN_NEVER)
                                : r->retry       ? AGAIN_SOON
                                                 : AGAIN_LATER;
    if (strcmp(r->reason, "SignatureMissing") == 0)
        again = AGAIN_SOON; /* it is about to be signed */
    /* Worth a retry all the same: of several mirrors one refused and another did not answer. */
    for (size_t i = 0; i < ARRAY_LEN(for_ever); i++)
        if (strcmp(r->reason, for_ever[i]) == 0)
            again = r->retry ? AGAIN_LATER : AGAIN_NEVER;
    delivery_facts_of_pull(w->owner, w->item, r);
    if (verify)
        delivery_fact(w->owner, w->item, STEP_FETCH, STEP_DONE);
    struct delivery_failure why = {verify ? STEP_VERIFY : STEP_FETCH,
                                   r->reason,
                                   NULL,
                                   strcmp(r->reason, "BadModule") == 0 ? PLUGIN_BAD_MODULE : PLUGIN_FETCH_FAILED,
                                   again,
                                   r->retry_after_ms};
    work_fail(w, &why, "%s", r->error);
}

static void work_pulled(void *arg, const struct pull_result *r)
{
    struct delivery_work *w = arg;
    struct delivery *d = w->owner;
    struct delivery_item *item = w->item;
    bool quiet = w->quiet && item->stage != DELIVERY_FAILED;
    w->pull = NULL;
    item->facts.rechecks += w->quiet;
    if (r->error != NULL && quiet && !r->bytes_are_bad) {
        recheck_failed(w, r);
        return;
    }
    if (r->error != NULL) {
        work_pull_failed(w, r);
        return;
    }
    if (item->live != NULL && strcmp(item->live_vm_key, w->vm_key) == 0 && strcmp(item->live->sha256, r->sha256) == 0) {
        /* A file that was touched, a tag that names what it named, another url of the same bytes. */
        delivery_facts_of_pull(d, item, r);
        memcpy(item->live_key, w->key, sizeof item->live_key);
        resource_unref(item->live_resource);
        item->live_resource = resource_ref(w->resource);
        snprintf(item->facts.live_digest, sizeof item->facts.live_digest, "%s", r->digest);
        delivery_work_forget(&item->work);
        delivery_item_as_before(item, d);
        return;
    }
    if (w->quiet && strcmp(item->bad_sha256, r->sha256) == 0) {
        delivery_work_forget(&item->work); /* known to be bad, and said */
        return;
    }
    if (quiet)
        item->changed_ms = loop_now(d->o.loop); /* the tag moved */
    delivery_facts_of_pull(d, item, r);
    if (r->warning != NULL)
        log_line(LOG_WARN, "plugin %s: %s", item->title, r->warning);
    work_take_module(w, r);
    work_want_code(w);
}

static void work_stage_text(void *arg, const char *text)
{
    struct delivery_work *w = arg;
    delivery_fact_text(&w->item->facts.progress, text);
    delivery_tell(w->owner);
}

/* Of the plugin's own namespace: a "namespace/name" would let who may write plugins use anybody's credentials, so what
 * stands before the slash is not looked at, as in Istio. */
static bool find_secret(struct delivery_work *w, struct str *out, char **error)
{
    const struct resource *r = w->resource;
    const char *name = r->u.wasm_plugin.pull_secret;
    *out = STR_NONE;
    if (name == NULL)
        return true;
    const char *slash = strrchr(name, '/');
    name = slash != NULL ? slash + 1 : name;
    const struct store_object *o =
        w->owner->store != NULL ? store_find(w->owner->store, KIND_SECRET, r->meta.ns, name) : NULL;
    if (o == NULL || o->good == NULL) {
        *error = mem_printf("imagePullSecret: there is no Secret %s/%s", r->meta.ns, name);
        return false;
    }
    const struct secret *s = &o->good->u.secret;
    if (s->type == NULL || strcmp(s->type, DOCKER_CONFIG_TYPE) != 0) {
        *error = mem_printf("imagePullSecret: Secret %s/%s is of type %s, not %s", r->meta.ns, name,
                            s->type != NULL && s->type[0] != '\0' ? s->type : "Opaque", DOCKER_CONFIG_TYPE);
        return false;
    }
    for (size_t i = 0; i < s->item_count; i++)
        if (strcmp(s->items[i].key, DOCKER_CONFIG_KEY) == 0) {
            *out = str_span(s->items[i].bytes, s->items[i].n);
            return true;
        }
    *error = mem_printf("imagePullSecret: Secret %s/%s has no %s", r->meta.ns, name, DOCKER_CONFIG_KEY);
    return false;
}

/* What an object that came by an API may not name. mem_free; NULL: nothing. */
static char *origin_error(const struct delivery *d, const struct resource *r)
{
    const struct wasm_plugin *p = &r->u.wasm_plugin;
    if (r->meta.origin == ORIGIN_FILE)
        return NULL;
    if (p->scheme == URL_FILE && d->o.module_dir == NULL)
        return mem_strdup("file:// urls of objects that come by an API need --module-dir DIR");
    for (size_t i = 0; i < p->env_count; i++) {
        bool allowed = !p->env[i].from_host;
        for (size_t k = 0; k < d->o.host_env_count && !allowed; k++)
            allowed = strcmp(d->o.host_env[k], p->env[i].name) == 0;
        if (!allowed)
            return mem_printf("env %s: valueFrom HOST of objects that come by an API needs --allow-host-env %s",
                              p->env[i].name, p->env[i].name);
    }
    return NULL;
}

static void work_pull(struct delivery_work *w)
{
    struct delivery *d = w->owner;
    const struct resource *r = w->resource;
    const struct wasm_plugin *p = &r->u.wasm_plugin;
    struct str secret;
    char *error = NULL;
    if (!w->quiet)
        work_stage(w, DELIVERY_FETCH, STEP_FETCH);
    if (p->scheme == URL_OCI && !find_secret(w, &secret, &error)) {
        struct delivery_failure why = {STEP_FETCH, "PullSecret", NULL, PLUGIN_FETCH_FAILED, AGAIN_NEVER, 0};
        work_fail(w, &why, "%s", error);
        mem_free(error);
        return;
    }
    char *version = delivery_version_of(r),
         *object = mem_printf("%s/%s/%s", kind_name(r->meta.kind), r->meta.ns, r->meta.name);
    bool private = p->scheme == URL_OCI && p->pull_secret != NULL;
    w->pull =
        pull_start(d->pulls, &(struct pull_ask){.url = p->url,
                                                .scheme = p->scheme,
                                                .sha256 = p->sha256,
                                                .verification_key = p->verification_key,
                                                .secret = private ? secret : STR_NONE,
                                                .secret_scope = private ? r->meta.ns : "",
                                                .module_dir = r->meta.origin != ORIGIN_FILE ? d->o.module_dir : NULL,
                                                .always = pull_is_always(p),
                                                .again = w->again,
                                                .object = object,
                                                .version = version,
                                                .stage = work_stage_text,
                                                .done = work_pulled,
                                                .arg = w});
    mem_free(version);
    mem_free(object);
}

static struct delivery_work *work_new(struct delivery *d, struct delivery_item *item, struct resource *resource)
{
    struct delivery_work *w = mem_zalloc(sizeof *w);
    struct delivery_keys keys;
    w->owner = d;
    w->item = item;
    w->ticket = d->next_ticket++;
    w->resource = resource_ref(resource);
    w->module.hold = w->module.code_hold = -1;
    delivery_keys_of(resource, &keys);
    memcpy(w->key, keys.want, sizeof w->key);
    memcpy(w->vm_key, keys.vm, sizeof w->vm_key);
    return w;
}

void delivery_work_start(struct delivery *d, struct delivery_item *item, enum delivery_ask ask)
{
    delivery_work_forget(&item->work);
    struct delivery_work *w = item->work = work_new(d, item, item->resource);
    w->again = ask != ASK_POLICY;
    w->quiet = ask == ASK_RECHECK;
    const struct wasm_plugin *p = &w->resource->u.wasm_plugin;
    char *refused = origin_error(d, w->resource);
    struct delivery_failure why = {STEP_ACCEPT, "NotSupported", NULL, PLUGIN_BAD_MODULE, AGAIN_NEVER, 0};
    if (p->type == PLUGIN_NETWORK) {
        work_fail(w, &why, "plugins of type NETWORK are not supported yet");
    } else if (refused != NULL) {
        why.reason = "Refused";
        why.absence = PLUGIN_FETCH_FAILED;
        work_fail(w, &why, "%s", refused);
    } else {
        delivery_fact(d, item, STEP_ACCEPT, STEP_DONE);
        work_pull(w);
    }
    mem_free(refused);
}

void delivery_better_start(struct delivery *d, struct delivery_item *item)
{
    delivery_work_forget(&item->better);
    struct delivery_work *w = item->better = work_new(d, item, item->live_resource);
    const struct delivery_module *live = &item->live_module;
    w->better = true;
    w->module.path = mem_strdup(live->path);
    w->module.n = live->n;
    w->module.hold = module_cache_hold_again(live->hold);
    w->module.abi = live->abi;
    memcpy(w->module.sha256, live->sha256, sizeof w->module.sha256);
    memcpy(w->module.digest, live->digest, sizeof w->module.digest);
    work_want_code(w);
}
