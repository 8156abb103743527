/* SPDX-License-Identifier: Apache-2.0
 *
 * The control thread: reads resources, has plugins delivered, composes snapshots and publishes them to the workers. It
 * never blocks on anything slow (files of modules, compiles, guests, DNS, HTTP): those happen elsewhere and come back
 * as messages. The order of publishing is what keeps "never unfiltered" true: a VM reaches a worker's mailbox before
 * the first snapshot that names it, and a listener socket only after the first snapshot that has its chain.
 */
#include "control/control.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/budget.h"
#include "base/log.h"
#include "base/metrics.h"

enum { LISTEN_BACKLOG = 4096, BUILDER_THREADS = 2, SECOND_MS = 1000 };

/* ---- listeners ---- */

static void mail_listener(struct control *c, unsigned worker, enum worker_mail type, const struct addr *addr, int fd)
{
    struct mail_listener *m = mem_zalloc(sizeof *m);
    m->mail.type = (int)type;
    m->addr = *addr;
    m->fd = fd;
    c->sockets_given += type == MAIL_LISTENER;
    mailbox_post(worker_mailbox(c->workers[worker]), &m->mail);
}

static void listener_failed(struct open_listener *l, const char *text, int error)
{
    char *why = mem_printf("cannot listen on %s: %s", text, strerror(error));
    if (l->error == NULL || strcmp(l->error, why) != 0) /* it is tried again and again, and said once */
        log_line(LOG_ERROR, "%s", why);
    mem_free(l->error);
    l->error = why;
}

static void listener_open_all(struct control *c, struct open_listener *l)
{
    char text[ADDR_TEXT_MAX];
    addr_format(&l->addr, true, text);
    int error = listener_probe(&l->addr);
    int *fds = mem_alloc(c->worker_count * sizeof *fds);
    unsigned opened = 0;
    while (error == 0 && opened < c->worker_count) {
        fds[opened] = listener_open(&l->addr, LISTEN_BACKLOG);
        if (fds[opened] < 0)
            error = errno;
        else
            opened++;
    }
    if (error == 0) {
        mem_free(l->error);
        l->error = NULL;
        l->open = true;
        for (unsigned i = 0; i < c->worker_count; i++)
            mail_listener(c, i, MAIL_LISTENER, &l->addr, fds[i]);
        log_line(LOG_INFO, "listening on %s", text);
    } else {
        for (unsigned i = 0; i < opened; i++)
            close(fds[i]);
        listener_failed(l, text, error);
    }
    mem_free(fds);
}

static void listeners_try_again(struct control *c)
{
    for (size_t i = 0; i < c->listener_count; i++)
        if (!c->listeners[i].open && c->life < LIFE_DRAINING)
            listener_open_all(c, &c->listeners[i]);
}

static struct open_listener *listener_find(struct control *c, const struct addr *addr)
{
    for (size_t i = 0; i < c->listener_count; i++)
        if (addr_eq(&c->listeners[i].addr, addr))
            return &c->listeners[i];
    return NULL;
}

/* After the snapshot was posted, so that no connection meets a worker that does not know its chain yet. */
static void listeners_follow(struct control *c, const struct snapshot *s)
{
    for (size_t i = 0; i < c->listener_count; i++)
        c->listeners[i].wanted = false;
    for (size_t i = 0; i < s->listener_count; i++) {
        struct open_listener *l = listener_find(c, &s->listeners[i].addr);
        if (l == NULL) {
            c->listeners = mem_realloc(c->listeners, (c->listener_count + 1) * sizeof *c->listeners);
            l = &c->listeners[c->listener_count++];
            *l = (struct open_listener){.addr = s->listeners[i].addr};
        }
        l->wanted = true;
        if (!l->open && c->life < LIFE_DRAINING)
            listener_open_all(c, l);
    }
    for (size_t i = c->listener_count; i-- > 0;) {
        struct open_listener *l = &c->listeners[i];
        if (l->wanted)
            continue;
        for (unsigned w = 0; l->open && w < c->worker_count; w++)
            mail_listener(c, w, MAIL_LISTENER_GONE, &l->addr, -1);
        mem_free(l->error);
        *l = c->listeners[--c->listener_count];
    }
}

static void on_dns_changed(void *arg, const char *host)
{
    (void)host;
    control_follow_endpoints(arg);
}

/* ---- snapshots ---- */

/* Each problem is logged once, when it appears or changes; when it goes away, too. */
static void log_problem(struct control *c, const char *title, const char *problem)
{
    const char *last = map_get(&c->logged, str_of(title));
    if (problem != NULL && (last == NULL || strcmp(last, problem) != 0)) {
        log_line(LOG_WARN, "%s: %s", title, problem);
        mem_free(map_set(&c->logged, str_of(title), mem_strdup(problem)));
    } else if (problem == NULL && last != NULL) {
        log_line(LOG_INFO, "%s: in order again", title);
        mem_free(map_remove(&c->logged, str_of(title)));
    }
}

static void log_problems(struct control *c)
{
    struct diag files = {0};
    struct strbuf text = {0};
    store_file_errors(&c->store, &files);
    for (size_t i = 0; i < files.count; i++) {
        char *line = diag_format(&files.entries[i]);
        if (i > 0)
            strbuf_addz(&text, "; ");
        strbuf_addz(&text, line);
        mem_free(line);
    }
    strbuf_addc(&text, '\0');
    log_problem(c, "resource files", files.count > 0 ? text.p : NULL);
    diag_free(&files);
    MAP_EACH (e, &c->store.objects) {
        const struct store_object *o = e->value;
        const struct usage *u = usage_find(&c->usage, o->kind, o->ns, o->name);
        char *title = mem_printf("%s %s%s%s", kind_name(o->kind), o->ns, o->ns[0] != '\0' ? "/" : "", o->name);
        strbuf_clear(&text);
        for (size_t i = 0; i < o->diag.count; i++) {
            char *line = diag_format(&o->diag.entries[i]);
            strbuf_printf(&text, "%s%s", text.n > 0 ? "; " : "", line);
            mem_free(line);
        }
        if (o->stale && o->good != NULL)
            strbuf_addz(&text, " (its last good version keeps serving)");
        if (u != NULL && !u->accepted)
            strbuf_printf(&text, "%s%s: %s", text.n > 0 ? "; " : "", u->reason, u->message);
        strbuf_addc(&text, '\0');
        log_problem(c, title, text.n > 1 ? text.p : NULL);
        mem_free(title);
    }
    strbuf_free(&text);
}

/* One process, one budget: the smallest that a Gateway asks for. */
static uint64_t smallest_budget(const struct snapshot *s)
{
    uint64_t smallest = 0;
    for (size_t i = 0; i < s->listener_count; i++) {
        uint64_t n = s->listeners[i].limits.memory_bytes;
        if (n > 0 && (smallest == 0 || n < smallest))
            smallest = n;
    }
    return smallest > 0 ? smallest : budget_default_limit();
}

static void set_gauge(const char *name, const char *help, uint64_t value)
{
    metrics_gauge_set(metrics_define(METRICS_GAUGE, str_of(name), STR_NONE, help), (int64_t)value);
}

static void tell_memory(void)
{
    set_gauge("weir_memory_used_bytes", "Memory charged to the budget: buffers, arenas, guests", budget_used());
    set_gauge("weir_memory_budget_bytes", "The memory budget; 0: none", budget_limit());
}

static void say_problems(struct control *c)
{
    metrics_gauge_set(c->bad_objects, (int64_t)store_bad_count(&c->store));
    log_problems(c);
}

void control_publish(struct control *c)
{
    usage_free(&c->usage);
    uint64_t version = c->snapshot != NULL ? c->snapshot->version + 1 : 1;
    struct snapshot *s = compose_snapshot(&c->store, c->delivery, &c->o->identity, version, &c->memory, &c->usage);
    budget_set_limit(smallest_budget(s));
    tell_memory();
    control_follow_endpoints(c);
    for (unsigned i = 0; i < c->worker_count; i++) {
        struct mail_snapshot *m = mem_zalloc(sizeof *m);
        m->mail.type = MAIL_SNAPSHOT;
        m->snapshot = snapshot_ref(s);
        mailbox_post(worker_mailbox(c->workers[i]), &m->mail);
    }
    listeners_follow(c, s);
    delivery_published(c->delivery, version);
    if (c->snapshot != NULL)
        snapshot_unref(c->snapshot);
    c->snapshot = s;
    metrics_gauge_set(c->config_version, (int64_t)version);
    metrics_add(c->reloads, 1);
    say_problems(c);
    conditions_touch(c->conditions);
}

static void on_publish(struct loop_task *task) { control_publish(CONTAINER_OF(task, struct control, publish)); }
static void on_delivery_changed(void *arg)
{
    struct control *c = arg;
    loop_defer(&c->loop, &c->publish);
}

static void on_delivery_told(void *arg)
{
    struct control *c = arg;
    conditions_touch(c->conditions);
}

/* What a snapshot is made of: every object but EndpointSlices, whose changes are small messages of their own. */
static uint64_t snapshot_shape(const struct store *store)
{
    uint64_t shape = 0;
    MAP_EACH (e, &store->objects) {
        const struct store_object *o = e->value;
        if (o->kind != KIND_ENDPOINT_SLICE && o->good != NULL)
            shape += str_hash(e->key) ^ (str_hash(str_span(o->good->meta.digest, sizeof o->good->meta.digest)) * 3);
    }
    return shape;
}

void control_store_changed(struct control *c)
{
    if (c->api != NULL)
        source_api_follow(c->api);
    delivery_update(c->delivery, &c->store);
    uint64_t shape = snapshot_shape(&c->store);
    if (c->snapshot == NULL || shape != c->shape) {
        c->shape = shape;
        loop_defer(&c->loop, &c->publish);
        return;
    }
    control_follow_endpoints(c);
    say_problems(c);
    conditions_touch(c->conditions);
}

static void on_files_changed(void *arg)
{
    struct control *c = arg;
    if (c->cluster != NULL)
        source_cluster_follow(c->cluster);
    control_store_changed(c);
}
static void on_store_changed(void *arg) { control_store_changed(arg); }

/* ---- messages from workers and builders ---- */

static void on_adopted(struct control *c, const struct mail_from_worker *m)
{
    c->adopted[m->worker] = m->version;
    uint64_t all = UINT64_MAX;
    for (unsigned i = 0; i < c->worker_count; i++)
        all = c->adopted[i] < all ? c->adopted[i] : all;
    if (all > c->adopted_all) {
        c->adopted_all = all;
        delivery_adopted(c->delivery, all);
        if (c->api != NULL)
            source_api_ready(c->api);
        conditions_touch(c->conditions);
    }
}

static void end_if_drained(struct control *c)
{
    if (c->drained < c->worker_count || c->life < LIFE_DRAINING)
        return;
    c->life = LIFE_OVER;
    loop_stop(&c->loop);
}

static void deliver(void *arg, struct mail *mail)
{
    struct control *c = arg;
    if (mail->type == DELIVERY_BUILT) {
        delivery_built(c->delivery, CONTAINER_OF(mail, struct build_job, mail));
        conditions_touch(c->conditions);
        return;
    }
    struct mail_from_worker *m = CONTAINER_OF(mail, struct mail_from_worker, mail);
    if (mail->type == MAIL_ADOPTED)
        on_adopted(c, m);
    else if (mail->type == MAIL_VM_LOST) {
        delivery_vm_lost(c->delivery, m);
        conditions_touch(c->conditions);
    } else if (mail->type == MAIL_LISTENING) {
        c->sockets_armed++;
    } else if (mail->type == MAIL_DRAINED) {
        c->drained++;
        end_if_drained(c);
    }
    mem_free(m->plugin);
    mem_free(m->callback);
    mem_free(m->reason);
    mem_free(m);
}

/* A build that ends after the loop has: its VMs go with it. */
static void drop_mail(struct mail *mail)
{
    if (mail->type == DELIVERY_BUILT) {
        build_job_free(CONTAINER_OF(mail, struct build_job, mail));
        return;
    }
    struct mail_from_worker *m = CONTAINER_OF(mail, struct mail_from_worker, mail);
    mem_free(m->plugin);
    mem_free(m->callback);
    mem_free(m->reason);
    mem_free(m);
}

/* ---- readiness ---- */

bool control_is_ready(const struct control *c, struct strbuf *out)
{
    bool ready = true;
    struct strbuf why = {0};
    if (c->life >= LIFE_DRAINING) {
        ready = false;
        strbuf_addz(&why, "draining\n");
    }
    if (c->snapshot == NULL || c->adopted_all < 1) {
        ready = false;
        strbuf_addz(&why, "no configuration has been adopted yet\n");
    }
    MAP_EACH (e, delivery_items(c->delivery)) {
        const struct delivery_item *item = e->value;
        if (item->settled)
            continue;
        ready = false;
        strbuf_printf(&why, "plugin %s: %s\n", item->title, delivery_stage_name(item->stage));
    }
    ready = !store_write_gaps(&c->store, &why) && ready;
    for (size_t i = 0; i < c->listener_count; i++) {
        if (c->listeners[i].error == NULL)
            continue;
        ready = false;
        strbuf_printf(&why, "%s\n", c->listeners[i].error);
    }
    if (c->sockets_armed < c->sockets_given) {
        ready = false;
        strbuf_addz(&why, "workers do not accept on every listener yet\n");
    }
    if (c->cluster != NULL && !source_cluster_is_ready(c->cluster, &why))
        ready = false;
    if (out != NULL)
        strbuf_add(out, strbuf_str(&why));
    strbuf_free(&why);
    return ready;
}

/* ---- end ---- */

static void mail_plain(struct control *c, enum worker_mail type)
{
    for (unsigned i = 0; i < c->worker_count; i++) {
        struct mail *m = mem_zalloc(sizeof *m);
        m->type = (int)type;
        mailbox_post(worker_mailbox(c->workers[i]), m);
    }
}

static void on_drain_time(struct loop_timer *timer)
{
    struct control *c = CONTAINER_OF(timer, struct control, drain_timer);
    if (c->life == LIFE_DRAINING) {
        c->life = LIFE_CUT;
        log_line(LOG_WARN, "what is left of the traffic is cut");
        mail_plain(c, MAIL_CUT);
        loop_timer_start(&c->drain_timer, 5000);
    } else {
        log_line(LOG_ERROR, "workers did not finish in time");
        c->exit_code = 1;
        c->life = LIFE_OVER;
        loop_stop(&c->loop);
    }
}

void control_drain(struct control *c)
{
    if (c->life >= LIFE_DRAINING)
        return;
    c->life = LIFE_DRAINING;
    log_line(LOG_INFO, "draining: at most %u s", c->o->drain_time_ms / 1000);
    mail_plain(c, MAIL_DRAIN);
    loop_timer_start(&c->drain_timer, c->o->drain_time_ms);
}

static void on_signal(uv_signal_t *handle, int signum)
{
    struct control *c = handle->data;
    if (c->life == LIFE_OVER)
        return;
    if (signum == SIGHUP) {
        if (source_dir_scan(c->source))
            on_files_changed(c);
        return;
    }
    if (c->life >= LIFE_DRAINING) { /* asked twice: cut now; a third time: do not wait for the workers either */
        on_drain_time(&c->drain_timer);
        return;
    }
    log_line(LOG_INFO, "%s received", signum == SIGTERM ? "SIGTERM" : "SIGINT");
    control_drain(c);
}

static void on_second(struct loop_timer *timer)
{
    struct control *c = CONTAINER_OF(timer, struct control, second);
    tell_memory();
    set_gauge("weir_log_lines_dropped", "Log and access log lines lost because a ring was full", log_dropped());
    if (c->delivery != NULL)
        delivery_check_files(c->delivery);
    listeners_try_again(c);
    if (c->api != NULL && c->delivery != NULL)
        source_api_ready(c->api);
    conditions_tick(c->conditions);
    dashboard_tick(c->dashboard, loop_now(&c->loop));
    loop_timer_start(&c->second, SECOND_MS);
}

/* ---- life ---- */

static bool cluster_start(struct control *c)
{
    const struct control_options *o = c->o;
    char *error = NULL, *directory = mem_printf("%s/cluster", o->cache_dir);
    c->transfers = transfers_new(&c->loop, NULL);
    struct source_cluster_options s = {.loop = &c->loop,
                                       .transfers = c->transfers,
                                       .store = &c->store,
                                       .kubeconfig = o->kubeconfig,
                                       .namespaces = o->watch_namespaces,
                                       .namespace_count = o->watch_namespace_count,
                                       .label_selector = o->label_selector,
                                       .ns = o->identity.ns,
                                       .state_dir = directory,
                                       .changed = on_store_changed,
                                       .arg = c};
    c->cluster = source_cluster_new(&s, &error);
    if (c->cluster == NULL)
        log_line(LOG_ERROR, "--kubernetes: %s", error);
    if (c->cluster != NULL) {
        struct status_sink sink = source_cluster_sink(c->cluster);
        conditions_add_sink(c, &sink);
    }
    mem_free(error);
    mem_free(directory);
    return c->cluster != NULL;
}

static bool control_start(struct control *c)
{
    const struct control_options *o = c->o;
    char *error = NULL;
    c->cache = module_cache_open(o->cache_dir, engine_fingerprint(c->engine), o->cache_bytes, &error);
    if (c->cache == NULL) {
        log_line(LOG_ERROR, "%s", error);
        mem_free(error);
        return false;
    }
    c->worker_count = o->workers;
    c->workers = mem_zalloc(c->worker_count * sizeof(struct worker *));
    c->adopted = mem_zalloc(c->worker_count * sizeof *c->adopted);
    for (unsigned i = 0; i < c->worker_count; i++)
        c->workers[i] = worker_start(i, c->worker_count, &o->identity, c->mailbox);
    c->module_transfers = transfers_new(
        &c->loop, &(struct transfers_options){.allow = o->fetch_allow, .allow_count = o->fetch_allow_count});
    c->fetcher =
        fetcher_new(&c->loop, &(struct fetcher_options){.registries = o->registries, .transfers = c->module_transfers});
    c->compiler = compiler_new(&c->loop, o->program, o->compile_delay_ms);
    c->code = code_maker_new(&c->loop, c->cache, c->compiler, o->tiers);
    c->builder = builder_new(c->mailbox, &c->o->identity, BUILDER_THREADS);
    c->dns = dns_new(&c->loop, o->dns_servers, on_dns_changed, c);
    struct delivery_options d = {.loop = &c->loop,
                                 .control = c->mailbox,
                                 .workers = c->workers,
                                 .worker_count = c->worker_count,
                                 .engine = c->engine,
                                 .cache = c->cache,
                                 .fetcher = c->fetcher,
                                 .code = c->code,
                                 .builder = c->builder,
                                 .module_dir = o->module_dir,
                                 .host_env = o->host_env,
                                 .host_env_count = o->host_env_count,
                                 .changed = on_delivery_changed,
                                 .told = on_delivery_told,
                                 .arg = c};
    c->delivery = delivery_new(&d);
    c->conditions = conditions_new(c);
    c->dashboard = dashboard_new();
    c->source = source_dir_new(&c->loop, &c->store, o->paths, o->path_count, "default", on_files_changed, c);
    if (o->kubernetes && !cluster_start(c))
        return false;
    if (!admin_start(c))
        return false;
    if (o->has_kube_api && (c->api = source_api_new(c)) == NULL)
        return false;
    source_dir_scan(c->source);
    (void)store_settle(&c->store, loop_now(&c->loop)); /* objects of the API, when there is no file */
    store_mark_gaps(&c->store);
    on_store_changed(c);
    return true;
}

static void signal_start(struct control *c, uv_signal_t *handle, int signum)
{
    uv_signal_init(&c->loop.uv, handle);
    handle->data = c;
    uv_signal_start(handle, on_signal, signum);
}

/* Who asks for the end once more while it is under way must not have it end badly. */
static void signals_end(struct control *c)
{
    uv_signal_t *const handles[] = {&c->term, &c->interrupt, &c->hup};
    static const int numbers[] = {SIGTERM, SIGINT, SIGHUP};
    for (size_t i = 0; i < ARRAY_LEN(handles); i++) {
        uv_close((uv_handle_t *)handles[i], NULL);
        signal(numbers[i], SIG_IGN);
    }
}

/* Everything that could call into what is being taken apart goes first: timers, the mailbox. What still has
 * work on the thread pool runs the loop until that is back. */
static void control_end(struct control *c)
{
    c->life = LIFE_OVER;
    loop_timer_close(&c->drain_timer, NULL);
    loop_timer_close(&c->second, NULL);
    conditions_free(c->conditions); /* they tell the cluster and the API */
    c->conditions = NULL;
    if (c->source != NULL)
        source_dir_free(c->source);
    if (c->cluster != NULL)
        source_cluster_free(c->cluster);
    if (c->transfers != NULL)
        transfers_free(c->transfers);
    if (c->admin != NULL)
        http_server_free(c->admin);
    if (c->probe != NULL)
        http_server_free(c->probe);
    if (c->api != NULL)
        source_api_free(c->api);
    if (c->dns != NULL)
        dns_free(c->dns);
    mailbox_close(c->mailbox, drop_mail);
    if (c->delivery != NULL)
        delivery_free(c->delivery);
    loop_task_cancel(&c->publish);
    if (c->builder != NULL)
        builder_free(c->builder);
    for (unsigned i = 0; i < c->worker_count; i++)
        worker_stop(c->workers[i]);
    c->worker_count = 0;
    if (c->code != NULL)
        code_maker_free(c->code);
    if (c->compiler != NULL)
        compiler_free(c->compiler);
    if (c->fetcher != NULL)
        fetcher_free(c->fetcher);
    if (c->module_transfers != NULL)
        transfers_free(c->module_transfers);
    signals_end(c);
    loop_fini(&c->loop);
    if (c->snapshot != NULL)
        snapshot_unref(c->snapshot);
    usage_free(&c->usage);
    compose_memory_free(&c->memory);
    events_free(&c->events);
    dashboard_free(c->dashboard);
    store_free(&c->store);
    MAP_EACH (e, &c->endpoints)
        mem_free(e->value);
    map_free(&c->endpoints);
    MAP_EACH (e, &c->logged)
        mem_free(e->value);
    map_free(&c->logged);
    for (size_t i = 0; i < c->listener_count; i++)
        mem_free(c->listeners[i].error);
    mem_free(c->listeners);
    mem_free(c->workers);
    mem_free(c->adopted);
    if (c->cache != NULL)
        module_cache_close(c->cache);
    engine_free(c->engine);
}

int control_run(const struct control_options *options)
{
    struct control *c = mem_zalloc(sizeof *c);
    c->o = options;
    loop_init(&c->loop);
    c->started_ms = loop_now(&c->loop);
    c->mailbox = mailbox_new(&c->loop, deliver, c);
    c->engine = engine_new();
    loop_task_init(&c->publish, on_publish);
    loop_timer_init(&c->drain_timer, &c->loop, on_drain_time);
    loop_timer_init(&c->second, &c->loop, on_second);
    loop_timer_start(&c->second, 1);
    signal_start(c, &c->term, SIGTERM);
    signal_start(c, &c->interrupt, SIGINT);
    signal_start(c, &c->hup, SIGHUP);
    c->bad_objects = metrics_define(METRICS_GAUGE, STR("weir_config_bad_objects"), STR_NONE,
                                    "Objects and files whose newest text is not in use because it is bad");
    c->config_version =
        metrics_define(METRICS_GAUGE, STR("weir_config_version"), STR_NONE, "Version of the newest published snapshot");
    c->reloads =
        metrics_define(METRICS_COUNTER, STR("weir_config_publications_total"), STR_NONE, "Snapshots published");
    c->life = LIFE_SERVING;
    if (control_start(c))
        loop_run(&c->loop);
    else
        c->exit_code = 1;
    int code = c->exit_code;
    control_end(c);
    log_line(LOG_INFO, "stopped");
    mem_free(c);
    return code;
}
