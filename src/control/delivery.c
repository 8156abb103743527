/* SPDX-License-Identifier: Apache-2.0
 *
 * See delivery.h. What must never happen: a candidate that reaches traffic before every step went well, or a worker
 * that hears of a generation's end while a snapshot that names it may still be adopted.
 */
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

#include "base/log.h"
#include "control/delivery_priv.h"

enum {
    RETRY_SOON_MS = 1000,
    RETRY_SOON_MAX_MS = 60 * 1000,
    RETRY_LATER_MS = 60 * 1000,
    RETRY_LATER_MAX_MS = 15 * 60 * 1000,
    RETRY_ASKED_MAX_MS = 3600 * 1000, /* however long a server asks for */
    BETTER_AGAIN_MS = 60 * 1000
};

/* A generation that no new snapshot names. Workers hear of it once all of them have adopted such a snapshot: until then
 * a stream may still begin with it. */
struct retired {
    struct list node;
    struct plugin *plugin;
    uint64_t version; /* the first snapshot without it; 0: not published yet */
};
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
static void on_tell(struct loop_task *task)
{
    struct delivery *d = CONTAINER_OF(task, struct delivery, tell);
    d->o.told(d->o.arg);
}
void delivery_notify(struct delivery *d)
{
    loop_defer(d->o.loop, &d->notify);
    delivery_tell(d);
}
void delivery_tell(struct delivery *d)
{
    if (d->o.told != NULL && !d->closing)
        loop_defer(d->o.loop, &d->tell);
}

struct delivery *delivery_new(const struct delivery_options *options)
{
    struct delivery *d = mem_zalloc(sizeof *d);
    d->o = *options;
    d->next_ticket = d->next_generation = 1;
    d->random = str_hash(STR("delivery"));
    d->pulls = pulls_new(options->loop, options->cache, options->fetcher);
    list_init(&d->retries);
    list_init(&d->retired);
    loop_task_init(&d->notify, on_notify);
    loop_task_init(&d->tell, on_tell);
    return d;
}

/* ---- retired generations ---- */

static void plugin_retire(struct delivery *d, struct plugin *p /* taken */)
{
    struct retired *r = mem_zalloc(sizeof *r);
    r->plugin = p;
    list_init(&r->node);
    list_push_back(&d->retired, &r->node);
}

static void retired_free(struct retired *r)
{
    list_remove(&r->node);
    plugin_unref(r->plugin);
    mem_free(r);
}

static void retired_tell(struct delivery *d, struct retired *r)
{
    for (unsigned i = 0; i < d->o.worker_count; i++) {
        struct mail_retire *m = mem_zalloc(sizeof *m);
        m->mail.type = MAIL_RETIRE;
        m->generation = r->plugin->generation;
        mailbox_post(worker_mailbox(d->o.workers[i]), &m->mail);
    }
    retired_free(r);
}

/* ---- items ---- */

static void item_say(struct delivery_item *item, const char *reason, const char *message)
{
    char *r = reason != NULL ? mem_strdup(reason) : NULL, *m = message != NULL ? mem_strdup(message) : NULL;
    mem_free(item->reason);
    mem_free(item->message);
    item->reason = r;
    item->message = m;
}

static void item_stop_retry(struct delivery_item *item)
{
    delivery_retry_cancel(item->retry);
    item->retry_ms = 0;
    item->facts.retry_at_s = 0;
}

static void item_stop_retries(struct delivery *d, struct delivery_item *item)
{
    item_stop_retry(item);
    delivery_retry_cancel(item->recheck);
    delivery_retry_cancel(item->better_retry);
    for (unsigned i = 0; i < d->o.worker_count; i++)
        delivery_retry_cancel(item->workers[i].retry);
}

static void item_free(struct delivery *d, struct delivery_item *item)
{
    delivery_work_forget(&item->work);
    delivery_work_forget(&item->better);
    item_stop_retries(d, item);
    if (item->live != NULL) {
        plugin_retire(d, item->live);
        resource_unref(item->live_resource);
    }
    delivery_module_free(&item->live_module);
    delivery_module_free(&item->wanted);
    delivery_facts_free(item);
    if (item->resource != NULL)
        resource_unref(item->resource);
    for (unsigned i = 0; i < d->o.worker_count; i++)
        mem_free(item->workers[i].reason);
    mem_free(item->workers);
    item_say(item, NULL, NULL);
    mem_free(item->version);
    mem_free(item->title);
    mem_free(item);
}

static struct file_stamp stamp_of(const char *url)
{
    struct stat st;
    if (strncmp(url, "file://", 7) != 0 || stat(url + 7, &st) != 0)
        return (struct file_stamp){0};
    return (struct file_stamp){(uint64_t)st.st_dev, (uint64_t)st.st_ino, (uint64_t)st.st_size,
                               (uint64_t)st.st_mtim.tv_sec * 1000000000u + (uint64_t)st.st_mtim.tv_nsec};
}

static void secret_digest(const struct delivery *d, const struct resource *r, uint8_t out[32])
{
    const char *name = r->u.wasm_plugin.pull_secret, *slash = name != NULL ? strrchr(name, '/') : NULL;
    memset(out, 0, 32);
    if (name == NULL || d->store == NULL)
        return;
    const struct store_object *o = store_find(d->store, KIND_SECRET, r->meta.ns, slash != NULL ? slash + 1 : name);
    if (o != NULL && o->good != NULL)
        memcpy(out, o->good->meta.digest, 32);
}

static void item_try(struct delivery *d, struct delivery_item *item, enum delivery_ask ask)
{
    item_stop_retry(item);
    item->file = stamp_of(item->resource->u.wasm_plugin.url);
    mem_free(item->version);
    item->version = delivery_version_of(item->resource);
    secret_digest(d, item->resource, item->secret);
    delivery_work_start(d, item, ask);
}

/* A new text, or a new file behind the same one. */
static void item_start(struct delivery *d, struct delivery_item *item)
{
    item->changed_ms = loop_now(d->o.loop);
    item->failures = 0;
    item->fresh_code = false;
    item->again = false;
    item->bad_sha256[0] = '\0';
    item_say(item, NULL, NULL);
    delivery_facts_reset(item);
    delivery_tell(d);
    if (item->live == NULL && item->absence != PLUGIN_PENDING) {
        item->absence = PLUGIN_PENDING;
        delivery_notify(d);
    }
    item_try(d, item, ASK_POLICY);
}

static void on_retry(struct loop_timer *timer)
{
    struct delivery_retry *r = CONTAINER_OF(timer, struct delivery_retry, timer);
    item_try(r->owner, r->item, r->item->again ? ASK_AGAIN : ASK_POLICY);
}

/* ---- looking at the tag now and then ---- */

static void on_recheck(struct loop_timer *timer);

static void item_follow_recheck(struct delivery *d, struct delivery_item *item)
{
    const struct wasm_plugin *p = &item->resource->u.wasm_plugin;
    delivery_retry_cancel(item->recheck);
    item->facts.recheck_at_s = 0;
    if (p->recheck_ms <= 0 || p->scheme == URL_FILE || pull_is_pinned(p))
        return;
    uint64_t ms = (uint64_t)p->recheck_ms;
    ms = delivery_between(d, ms - ms / 10, ms + ms / 10);
    item->facts.recheck_at_s = (int64_t)time(NULL) + (int64_t)(ms / 1000);
    delivery_retry_in(d, item, &item->recheck, 0, on_recheck, ms);
}

static void on_recheck(struct loop_timer *timer)
{
    struct delivery_retry *r = CONTAINER_OF(timer, struct delivery_retry, timer);
    struct delivery *d = r->owner;
    struct delivery_item *item = r->item;
    item_follow_recheck(d, item);
    if (item->work == NULL)
        item_try(d, item, ASK_RECHECK);
}

/* ---- how attempts end ---- */

static void item_retry(struct delivery *d, struct delivery_item *item, const struct delivery_failure *why)
{
    uint64_t ms = why->again == AGAIN_SOON ? delivery_back_off(d, item->failures, RETRY_SOON_MS, RETRY_SOON_MAX_MS)
                                           : delivery_back_off(d, item->failures, RETRY_LATER_MS, RETRY_LATER_MAX_MS);
    if (why->not_before_ms > ms) { /* what many were told at once they need not do at once */
        uint64_t asked = why->not_before_ms < RETRY_ASKED_MAX_MS ? why->not_before_ms : RETRY_ASKED_MAX_MS;
        ms = delivery_between(d, asked, asked + asked / 4);
    }
    item->retry_ms = loop_now(d->o.loop) + ms;
    item->facts.retry_at_s = (int64_t)time(NULL) + (int64_t)((ms + 999) / 1000);
    delivery_retry_in(d, item, &item->retry, 0, on_retry, ms);
}

void delivery_item_failed(struct delivery_item *item, struct delivery *d, const struct delivery_failure *why)
{
    bool said = item->failure_said && item->failures > 0 && item->reason != NULL &&
                strcmp(item->reason, why->reason) == 0 && strcmp(item->message, why->message) == 0;
    item->stage = DELIVERY_FAILED;
    item->failures++;
    item->fresh_code = false;
    item->settled = true;
    delivery_fact(d, item, why->step, STEP_FAILED);
    delivery_fact_text(&item->facts.progress, NULL);
    if (item->live == NULL && item->absence != why->absence) {
        item->absence = why->absence;
        delivery_notify(d);
    }
    char next[64] = "";
    if (why->again != AGAIN_NEVER) {
        item_retry(d, item, why);
        snprintf(next, sizeof next, "; next try in %llu s",
                 (unsigned long long)(item->retry_ms - loop_now(d->o.loop) + 999) / 1000);
    }
    char serving[96] = "";
    if (item->live != NULL)
        snprintf(serving, sizeof serving, " (the last good generation, %llu, keeps serving)",
                 (unsigned long long)item->live->generation);
    delivery_tell(d);
    log_line(said ? LOG_DEBUG : LOG_ERROR, "plugin %s not active: %s: %s%s%s", item->title, why->reason, why->message,
             serving, next);
    item->failure_said = true;
    item_say(item, why->reason, why->message);
}

void delivery_item_as_before(struct delivery_item *item, struct delivery *d)
{
    item_say(item, NULL, NULL);
    item->failures = 0;
    item->fresh_code = false;
    item->again = false;
    item->stage = item->live_adopted ? DELIVERY_PROGRAMMED : DELIVERY_ADOPT;
    bool verified = item->live_resource->u.wasm_plugin.verification_key != NULL;
    for (enum delivery_step step = STEP_ACCEPT; step < STEP_COUNT; step++)
        if (step != STEP_PROGRAM || item->live_adopted)
            delivery_fact(d, item, step, step == STEP_VERIFY && !verified ? STEP_SKIPPED : STEP_DONE);
    delivery_facts_as_live(item);
    delivery_tell(d);
    if (item->failure_said || item->live_adopted)
        log_line(item->failure_said ? LOG_INFO : LOG_DEBUG,
                 "plugin %s active as before: generation %llu is what is wanted", item->title,
                 (unsigned long long)item->live->generation);
    item->failure_said = false;
}

static void on_better_due(struct loop_timer *timer)
{
    struct delivery_retry *r = CONTAINER_OF(timer, struct delivery_retry, timer);
    struct delivery *d = r->owner;
    struct delivery_item *item = r->item;
    delivery_retry_cancel(r);
    if (item->better == NULL)
        delivery_better_start(d, item);
}

void delivery_better_failed(struct delivery_item *item, struct delivery *d, bool again, const char *why)
{
    log_line(LOG_WARN, "plugin %s: its fast code stays in use: %s", item->title, why);
    if (again)
        delivery_retry_in(d, item, &item->better_retry, 0, on_better_due,
                          delivery_between(d, BETTER_AGAIN_MS / 2, BETTER_AGAIN_MS));
}

/* ---- following the store ---- */

static void item_key(struct strbuf *b, enum kind kind, const char *ns, const char *name)
{
    strbuf_printf(b, "%s/%s/%s", kind_name(kind), ns, name);
}

static struct delivery_item *item_find_or_make(struct delivery *d, const struct store_object *o)
{
    struct strbuf key = {0};
    item_key(&key, o->kind, o->ns, o->name);
    struct delivery_item *item = map_get(&d->items, strbuf_str(&key));
    if (item == NULL) {
        item = mem_zalloc(sizeof *item);
        item->kind = o->kind;
        item->title = mem_printf("%s/%s", o->ns, o->name);
        item->absence = PLUGIN_PENDING;
        item->live_module.hold = item->live_module.code_hold = item->wanted.hold = item->wanted.code_hold = -1;
        item->workers = mem_zalloc((d->o.worker_count + 1) * sizeof *item->workers);
        map_set(&d->items, strbuf_str(&key), item);
    }
    strbuf_free(&key);
    return item;
}

/* The same text, but its module is to be asked for anew. */
static bool item_asks_again(const struct delivery *d, const struct delivery_item *item)
{
    const struct wasm_plugin *p = &item->resource->u.wasm_plugin;
    if (p->scheme == URL_FILE)
        return false;
    uint8_t secret[32];
    secret_digest(d, item->resource, secret);
    bool unfinished = item->stage == DELIVERY_FAILED || item->stage == DELIVERY_FETCH;
    if (unfinished && memcmp(secret, item->secret, sizeof secret) != 0)
        return true;
    char *version = delivery_version_of(item->resource);
    bool changed = item->version == NULL || strcmp(item->version, version) != 0;
    mem_free(version);
    return changed && pull_is_always(p) && !pull_is_pinned(p);
}

static void item_follow(struct delivery *d, const struct store_object *o)
{
    struct delivery_item *item = item_find_or_make(d, o);
    item->seen = true;
    if (item->resource != o->good) {
        int64_t recheck = item->resource != NULL ? item->resource->u.wasm_plugin.recheck_ms : -1;
        if (item->resource != NULL)
            resource_unref(item->resource);
        item->resource = resource_ref(o->good);
        if (recheck != o->good->u.wasm_plugin.recheck_ms)
            item_follow_recheck(d, item);
    }
    struct delivery_keys keys;
    delivery_keys_of(o->good, &keys);
    bool asks_again = item_asks_again(d, item);
    if (strcmp(keys.want, item->want_key) == 0 && !asks_again)
        return;
    bool moved = strcmp(keys.want, item->want_key) != 0;
    memcpy(item->want_key, keys.want, sizeof item->want_key);
    if (moved)
        item_follow_recheck(d, item);
    if (item->live == NULL || strcmp(keys.want, item->live_key) != 0 || asks_again) {
        item_start(d, item);
        return;
    }
    delivery_work_forget(&item->work);
    item_stop_retry(item);
    delivery_item_as_before(item, d);
}

void delivery_update(struct delivery *d, const struct store *store)
{
    d->store = store;
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

void delivery_check_files(struct delivery *d)
{
    MAP_EACH (e, &d->items) {
        struct delivery_item *item = e->value;
        if (item->work != NULL || item->resource->u.wasm_plugin.scheme != URL_FILE)
            continue;
        struct file_stamp now = stamp_of(item->resource->u.wasm_plugin.url);
        if (now.inode == 0 || memcmp(&now, &item->file, sizeof now) == 0)
            continue; /* a file that is gone takes nothing away: what was loaded from it goes on */
        item_start(d, item);
    }
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

static void worker_is_live(struct delivery_worker *w)
{
    w->state = "live";
    w->attempts = 0;
    delivery_retry_cancel(w->retry);
}

static void item_take_vms(struct delivery *d, struct delivery_item *item, struct build_job *job)
{
    for (unsigned i = 0; i < job->vm_count; i++) {
        vm_to_worker(d, i, &job->vms[i]);
        worker_is_live(&item->workers[i]);
        mem_free(item->workers[i].reason);
        item->workers[i].reason = NULL;
    }
    if (item->live != NULL) {
        plugin_retire(d, item->live);
        resource_unref(item->live_resource);
        item->swaps++;
    }
    item->live = plugin_ref(job->plugin);
    item->live_adopted = false;
    item->adopt_version = 0;
    item->absence = PLUGIN_PRESENT;
}

static void item_go_live(struct delivery *d, struct delivery_item *item, struct delivery_work *w, struct build_job *job)
{
    item_take_vms(d, item, job);
    item->live_resource = resource_ref(w->resource);
    memcpy(item->live_key, w->key, sizeof item->live_key);
    memcpy(item->live_vm_key, w->vm_key, sizeof item->live_vm_key);
    delivery_module_free(&item->live_module);
    item->live_module = w->module;
    w->module.path = NULL;
    w->module.hold = w->module.code_hold = -1;
    struct delivery_facts *f = &item->facts;
    snprintf(f->live_digest, sizeof f->live_digest, "%s", item->live_module.digest);
    snprintf(f->live_tier, sizeof f->live_tier, "%s", tier_name(item->live_module.tier));
    item->live_is_better = w->better;
    if (w->better) {
        if (item->stage == DELIVERY_PROGRAMMED)
            snprintf(f->tier, sizeof f->tier, "%s", f->live_tier);
    } else {
        item->live_changed_ms = item->changed_ms;
        item->stage = DELIVERY_ADOPT;
        item->failures = 0;
        item->fresh_code = false;
        item->again = false;
        item->bad_sha256[0] = '\0';
        item_say(item, NULL, NULL);
        delivery_module_free(&item->wanted);
        delivery_fact(d, item, STEP_CONFIGURE, STEP_DONE);
        delivery_fact(d, item, STEP_PROGRAM, STEP_GOING);
        delivery_work_forget(&item->better);
        delivery_retry_cancel(item->better_retry);
    }
    /* And with it, plugins that wait for the same module go on. */
    delivery_work_forget(w->better ? &item->better : &item->work);
    delivery_notify(d);
}

static struct delivery_work *work_of_ticket(struct delivery *d, uint64_t ticket)
{
    MAP_EACH (e, &d->items) {
        struct delivery_item *item = e->value;
        if (item->work != NULL && item->work->ticket == ticket)
            return item->work;
        if (item->better != NULL && item->better->ticket == ticket)
            return item->better;
    }
    return NULL;
}

static struct delivery_item *item_of_generation(struct delivery *d, uint64_t generation)
{
    MAP_EACH (e, &d->items) {
        struct delivery_item *item = e->value;
        if (item->live != NULL && item->live->generation == generation)
            return item;
    }
    return NULL;
}

/* ---- VMs that are lost, and their replacements ---- */

static void on_replacement_due(struct loop_timer *timer)
{
    struct delivery_retry *r = CONTAINER_OF(timer, struct delivery_retry, timer);
    struct build_job *job = mem_zalloc(sizeof *job);
    job->mail.type = DELIVERY_BUILT;
    job->engine = r->owner->o.engine;
    job->plugin = plugin_ref(r->item->live);
    job->vm_count = 1;
    job->first_worker = r->worker;
    builder_post(r->owner->o.builder, job);
    delivery_retry_cancel(r);
}

static void replacement_built(struct delivery *d, struct build_job *job)
{
    struct delivery_item *item = item_of_generation(d, job->plugin->generation);
    if (item == NULL)
        return; /* its generation is not in use any more: the VM goes with the job */
    struct delivery_worker *w = &item->workers[job->first_worker];
    if (job->result == BUILD_OK) {
        worker_is_live(w);
        delivery_tell(d);
        vm_to_worker(d, job->first_worker, &job->vms[0]);
        log_line(LOG_INFO, "plugin %s active again on worker %u (generation %llu)", item->title, job->first_worker,
                 (unsigned long long)job->plugin->generation);
        return;
    }
    w->attempts++;
    uint64_t ms = delivery_back_off(d, w->attempts, RETRY_SOON_MS, RETRY_SOON_MAX_MS);
    log_line(w->attempts == 1 ? LOG_ERROR : LOG_DEBUG,
             "plugin %s: a replacement VM for worker %u did not start: %s; it is tried again until it does",
             item->title, job->first_worker, job->error != NULL ? job->error : "unknown");
    delivery_retry_in(d, item, &w->retry, job->first_worker, on_replacement_due, ms);
}

void delivery_built(struct delivery *d, struct build_job *job)
{
    struct delivery_work *w = job->ticket != 0 ? work_of_ticket(d, job->ticket) : NULL;
    if (job->ticket == 0)
        replacement_built(d, job);
    else if (w != NULL && job->result == BUILD_OK)
        item_go_live(d, w->item, w, job);
    else if (w != NULL)
        delivery_work_not_built(w, job);
    build_job_free(job);
}

void delivery_vm_lost(struct delivery *d, const struct mail_from_worker *mail)
{
    struct delivery_item *item = item_of_generation(d, mail->generation);
    const char *callback = mail->callback != NULL ? mail->callback : "?";
    const char *reason = mail->reason != NULL ? mail->reason : "unknown";
    if (item == NULL) {
        log_line(LOG_ERROR, "plugin %s failed on worker %u in %s: %s (generation %llu, which is being replaced)",
                 mail->plugin != NULL ? mail->plugin : "?", mail->worker, callback, reason,
                 (unsigned long long)mail->generation);
        return;
    }
    log_line(LOG_ERROR, "plugin %s failed on worker %u in %s: %s%s", item->title, mail->worker, callback, reason,
             mail->quarantined ? "; quarantined" : "");
    struct delivery_worker *w = &item->workers[mail->worker];
    w->state = mail->quarantined ? "quarantined" : "restarting";
    w->losses++;
    w->attempts = 0;
    mem_free(w->reason);
    w->reason = mem_printf("%s: %s", callback, reason);
    delivery_tell(d);
    if (mail->wanted_in_ms > 0)
        delivery_retry_in(d, item, &w->retry, mail->worker, on_replacement_due, mail->wanted_in_ms);
}

/* ---- adoption ---- */

void delivery_published(struct delivery *d, uint64_t version)
{
    MAP_EACH (e, &d->items) {
        struct delivery_item *item = e->value;
        if (item->live != NULL && !item->live_adopted && item->adopt_version == 0)
            item->adopt_version = version;
    }
    LIST_EACH (n, &d->retired) {
        struct retired *r = LIST_ENTRY(n, struct retired, node);
        if (r->version == 0)
            r->version = version;
    }
}

static void item_say_active(const struct delivery *d, const struct delivery_item *item)
{
    static const char *const phases[] = {"none", "AUTHN", "AUTHZ", "STATS"};
    const struct delivery_facts *f = &item->facts;
    log_line(
        LOG_INFO,
        "plugin %s active: phase %s, sha256 %s, ABI %s, %u workers, generation %llu, %llu ms after the change%s%s%s",
        item->title, phases[item->resource->u.wasm_plugin.phase], item->live->sha256, abi_version_name(item->live->abi),
        d->o.worker_count, (unsigned long long)item->live->generation, (unsigned long long)item->took_ms,
        f->live_digest[0] != '\0' ? ", image " : "", f->live_digest,
        item->live_module.tier == TIER_FAST ? ", fast code" : "");
}

static void item_adopted(struct delivery *d, struct delivery_item *item)
{
    item->live_adopted = true;
    item->settled = true;
    delivery_tell(d);
    if (item->live_is_better) {
        log_line(LOG_INFO, "plugin %s: its optimised code is in use, generation %llu", item->title,
                 (unsigned long long)item->live->generation);
        if (item->stage == DELIVERY_ADOPT) /* as before, said while this was on its way */
            item->stage = DELIVERY_PROGRAMMED;
        delivery_fact(d, item, STEP_PROGRAM, item->stage == DELIVERY_PROGRAMMED ? STEP_DONE : STEP_WAITING);
        return;
    }
    item->took_ms = loop_now(d->o.loop) - item->live_changed_ms;
    if (item->stage == DELIVERY_ADOPT) {
        item->stage = DELIVERY_PROGRAMMED;
        delivery_fact(d, item, STEP_PROGRAM, STEP_DONE);
    }
    if (item->stage != DELIVERY_FAILED) /* else a newer text has failed meanwhile */
        item->failure_said = false;
    item_say_active(d, item);
    if (code_wants_better(d->o.code, item->live_module.tier) && item->better == NULL)
        delivery_better_start(d, item);
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
        if (item->live != NULL && !item->live_adopted && item->adopt_version != 0 && item->adopt_version <= version)
            item_adopted(d, item);
    }
}

void delivery_free(struct delivery *d)
{
    d->closing = true;
    MAP_EACH (e, &d->items)
        item_free(d, e->value);
    map_free(&d->items);
    ASSERT(list_is_empty(&d->retries));
    /* The end of everything: no worker needs to be told. */
    LIST_EACH (n, &d->retired)
        retired_free(LIST_ENTRY(n, struct retired, node));
    loop_task_cancel(&d->notify);
    loop_task_cancel(&d->tell);
    pulls_free(d->pulls);
    mem_free(d);
}
