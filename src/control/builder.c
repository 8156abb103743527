/* SPDX-License-Identifier: Apache-2.0
 *
 * See builder.h.
 */
#include "control/builder.h"

#include <pthread.h>
#include <time.h>

#include "base/log.h"
#include "proxy/properties.h"

struct builder {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct mail *first, **last;
    struct mailbox *control;
    const struct identity *identity;
    pthread_t *threads;
    unsigned thread_count;
    bool stopping;
};

static uint64_t clock_ns(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
static uint64_t early_wall_ns(void *host)
{
    (void)host;
    return clock_ns(CLOCK_REALTIME);
}
static uint64_t early_mono_ns(void *host)
{
    (void)host;
    return clock_ns(CLOCK_MONOTONIC);
}
/* host is the plugin's name while a VM is being built. */
static _Thread_local const char *building;
static void early_log(void *host, void *stream, enum log_level level, struct str text)
{
    (void)host;
    (void)stream;
    if (level < log_get_level())
        return;
    struct strbuf line = {0};
    strbuf_add_escaped(&line, text);
    log_line(level, "wasm %s: %.*s", building != NULL ? building : "?", STR_ARG(strbuf_str(&line)));
    strbuf_free(&line);
}
/* Some filters read who the gateway is while they are configured. */
static _Thread_local const struct identity *building_for;
static enum abi_status early_get_property(void *host, void *stream, struct str path, struct strbuf *out)
{
    (void)host;
    (void)stream;
    return property_get_root(building_for, path, out);
}
static const struct host_ops early_ops = {
    .get_property = early_get_property, .log = early_log, .wall_ns = early_wall_ns, .mono_ns = early_mono_ns};

static bool job_load(struct build_job *job)
{
    if (job->plugin != NULL)
        return true;
    if (job->desc.module == NULL) {
        size_t count = 0;
        const struct vm_host_func *table = abi_host_functions(&count);
        if (!module_load_file(job->engine, job->code_path, table, count, abi_unknown_import, &job->desc.module,
                              &job->error)) {
            job->result = BUILD_BAD_CODE;
            return false;
        }
    }
    job->plugin = plugin_new(&job->desc);
    return true;
}

static void job_build(struct build_job *job)
{
    job->result = BUILD_OK;
    if (!job_load(job))
        return;
    building = job->plugin->name;
    job->vms = mem_zalloc(job->vm_count * sizeof(struct plugin_vm *));
    for (unsigned i = 0; i < job->vm_count && job->result == BUILD_OK; i++) {
        enum plugin_start start = plugin_vm_new(job->plugin, &early_ops, &job->vms[i], &job->error);
        if (start != START_OK)
            job->result = start == START_FAILED_CONFIGURE ? BUILD_CONFIGURE_FAILED : BUILD_START_FAILED;
    }
    building = NULL;
    if (job->result == BUILD_OK)
        return;
    for (unsigned i = 0; i < job->vm_count; i++)
        if (job->vms[i] != NULL)
            plugin_vm_free(job->vms[i]);
    mem_free(job->vms);
    job->vms = NULL;
}

static void *builder_thread(void *arg)
{
    struct builder *b = arg;
    building_for = b->identity;
    for (;;) {
        pthread_mutex_lock(&b->lock);
        while (b->first == NULL && !b->stopping)
            pthread_cond_wait(&b->wake, &b->lock);
        struct mail *mail = b->stopping ? NULL : b->first;
        if (mail != NULL) {
            b->first = mail->next;
            if (b->first == NULL)
                b->last = &b->first;
        }
        pthread_mutex_unlock(&b->lock);
        if (mail == NULL)
            return NULL;
        job_build(CONTAINER_OF(mail, struct build_job, mail));
        mailbox_post(b->control, mail);
    }
}

struct builder *builder_new(struct mailbox *control, const struct identity *identity, unsigned threads)
{
    struct builder *b = mem_zalloc(sizeof *b);
    pthread_mutex_init(&b->lock, NULL);
    pthread_cond_init(&b->wake, NULL);
    b->last = &b->first;
    b->control = mailbox_ref(control);
    b->identity = identity;
    b->threads = mem_zalloc(threads * sizeof *b->threads);
    for (; b->thread_count < threads; b->thread_count++)
        ASSERT(pthread_create(&b->threads[b->thread_count], NULL, builder_thread, b) == 0);
    return b;
}

void builder_post(struct builder *b, struct build_job *job)
{
    pthread_mutex_lock(&b->lock);
    job->mail.next = NULL;
    *b->last = &job->mail;
    b->last = &job->mail.next;
    pthread_cond_signal(&b->wake);
    pthread_mutex_unlock(&b->lock);
}

void builder_forget(struct builder *b, uint64_t ticket)
{
    struct build_job *found = NULL;
    pthread_mutex_lock(&b->lock);
    struct mail **at = &b->first;
    while (*at != NULL && CONTAINER_OF(*at, struct build_job, mail)->ticket != ticket)
        at = &(*at)->next;
    if (*at != NULL) {
        found = CONTAINER_OF(*at, struct build_job, mail);
        *at = found->mail.next;
        if (*at == NULL)
            b->last = at;
    }
    pthread_mutex_unlock(&b->lock);
    if (found != NULL)
        build_job_free(found);
}

void builder_free(struct builder *b)
{
    pthread_mutex_lock(&b->lock);
    b->stopping = true;
    pthread_cond_broadcast(&b->wake);
    pthread_mutex_unlock(&b->lock);
    for (unsigned i = 0; i < b->thread_count; i++)
        pthread_join(b->threads[i], NULL);
    while (b->first != NULL) {
        struct mail *mail = b->first;
        b->first = mail->next;
        build_job_free(CONTAINER_OF(mail, struct build_job, mail));
    }
    mailbox_unref(b->control);
    pthread_mutex_destroy(&b->lock);
    pthread_cond_destroy(&b->wake);
    mem_free(b->threads);
    mem_free(b);
}

void build_job_free(struct build_job *job)
{
    for (unsigned i = 0; job->vms != NULL && i < job->vm_count; i++)
        if (job->vms[i] != NULL)
            plugin_vm_free(job->vms[i]);
    mem_free(job->vms);
    if (job->plugin != NULL)
        plugin_unref(job->plugin);
    if (job->desc.module != NULL)
        module_unref(job->desc.module);
    mem_free(job->code_path);
    mem_free(job->desc.name);
    mem_free(job->desc.root_id);
    mem_free(job->desc.vm_id);
    mem_free(job->desc.config);
    for (size_t i = 0; i < job->desc.env_count; i++) {
        mem_free(job->desc.env[i].name);
        mem_free(job->desc.env[i].value);
    }
    mem_free(job->desc.env);
    mem_free(job->error);
    mem_free(job);
}
