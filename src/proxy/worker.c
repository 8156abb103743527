/* SPDX-License-Identifier: Apache-2.0
 *
 * A worker thread: its mail, its listeners, its clocks, how it adopts a snapshot, drains and ends. What makes it hard
 * is the end: streams, connections, pools, slots and timers all finish in callbacks of the loop, so stopping is a row
 * of steps, each of which lets the loop run. It must never block, and never touch what another thread owns.
 */
#include "proxy/worker.h"

#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "base/budget.h"
#include "base/log.h"
#include "proxy/down.h"
#include "proxy/plugin_slot.h"
#include "proxy/pool.h"
#include "proxy/stream.h"

enum {
    TICK_MS = 1000,
    KEEP_CHUNKS = 256,     /* free chunks a worker keeps: 4 MiB */
    KEEP_CHUNKS_NEAR = 16, /* under memory pressure */
};

/* ---- clocks and chance ---- */

uint64_t worker_mono_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t worker_wall_ns(struct worker *w)
{
    uint64_t now = loop_now(&w->loop);
    struct timespec t;

    if (w->wall_at_ms != now || w->wall_ns == 0) {
        clock_gettime(CLOCK_REALTIME, &t);
        w->wall_ns = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
        w->wall_at_ms = now;
    }
    return w->wall_ns;
}

struct str worker_date(struct worker *w)
{
    uint64_t second = worker_wall_ns(w) / 1000000000u;

    if (second != w->date_s) {
        time_t t = (time_t)second;
        struct tm tm;
        gmtime_r(&t, &tm);
        strftime(w->date, sizeof w->date, "%a, %d %b %Y %H:%M:%S GMT", &tm);
        w->date_s = second;
    }
    return str_of(w->date);
}

/* xorshift128+. */
uint64_t worker_random(struct worker *w)
{
    uint64_t a = w->random_state[0], b = w->random_state[1];

    w->random_state[0] = b;
    a ^= a << 23;
    w->random_state[1] = a ^ b ^ (a >> 17) ^ (b >> 26);
    return w->random_state[1] + b;
}

static void seed(struct worker *w)
{
    if (getrandom(w->random_state, sizeof w->random_state, GRND_NONBLOCK) != sizeof w->random_state)
        w->random_state[0] = worker_mono_ns();
    w->random_state[1] |= 1;
}

/* ---- mail to control ---- */

static struct mail_from_worker *new_mail(struct worker *w, int type)
{
    struct mail_from_worker *m = mem_zalloc(sizeof *m);

    m->mail.type = type;
    m->worker = w->index;
    return m;
}

static void post(struct worker *w, struct mail_from_worker *m)
{
    if (w->control != NULL)
        mailbox_post(w->control, &m->mail);
    else
        mem_free(m);
}

void worker_check_drained(struct worker *w)
{
    if (!w->draining || w->drained_told || w->stopping)
        return;
    if (w->conn_count > 0 || w->stream_count > 0 || !list_is_empty(&w->listeners))
        return;
    w->drained_told = true;
    post(w, new_mail(w, MAIL_DRAINED));
}

/* ---- snapshots ---- */

static void register_names(struct worker *w, const struct snapshot *s)
{
    cluster_clear_aliases(&w->clusters);
    for (size_t i = 0; i < s->cluster_count; i++) {
        struct cluster *c = cluster_get(&w->clusters, str_of(s->clusters[i].key));
        for (size_t at = 0; at < s->clusters[i].names_bytes;) {
            struct str name = str_of(s->clusters[i].names + at);
            if (name.n > 0)
                cluster_alias(&w->clusters, name, c);
            at += name.n + 1;
        }
    }
}

static void renew_listeners(struct worker *w)
{
    LIST_EACH (node, &w->listeners) {
        struct worker_listener *wl = LIST_ENTRY(node, struct worker_listener, node);
        wl->current = w->runtime != NULL ? runtime_listener(w->runtime, &wl->addr) : NULL;
        if (wl->current == NULL && w->runtime != NULL)
            down_close_idle(w, wl);
    }
}

void worker_adopt(struct worker *w, struct snapshot *s)
{
    struct runtime *old = w->runtime;

    register_names(w, s);
    w->runtime = runtime_new(w, s);
    renew_listeners(w);
    if (old != NULL)
        runtime_unref(old);
}

static void on_snapshot(struct worker *w, struct mail_snapshot *m)
{
    struct mail_from_worker *answer = new_mail(w, MAIL_ADOPTED);

    answer->version = m->snapshot->version;
    worker_adopt(w, m->snapshot);
    post(w, answer);
}

static void on_endpoints(struct worker *w, struct mail_endpoints *m)
{
    struct cluster *c = cluster_get(&w->clusters, str_of(m->key));

    if (m->gone)
        cluster_gone(c);
    else
        cluster_update(c, m->list, m->count);
    mem_free(m->key);
    mem_free(m->list);
}

/* ---- listeners ---- */

static void on_accept(struct listener *l, int fd, const struct addr *peer)
{
    struct worker_listener *wl = l->owner;

    if (wl->worker->stopping)
        close(fd);
    else
        down_accept(wl, fd, peer);
}

static void on_listener_closed(struct listener *l)
{
    struct worker_listener *wl = l->owner;
    struct worker *w = wl->worker;

    list_remove(&wl->node);
    worker_listener_unref(wl);
    worker_check_drained(w);
}

static void close_listener(struct worker_listener *wl)
{
    if (wl->closing)
        return;
    wl->closing = true;
    listener_close(&wl->socket, on_listener_closed);
}

static void add_listener(struct worker *w, const struct addr *addr, int fd)
{
    struct worker_listener *wl = mem_zalloc(sizeof *wl);

    wl->worker = w;
    wl->addr = *addr;
    wl->refs = 1;
    wl->current = w->runtime != NULL ? runtime_listener(w->runtime, addr) : NULL;
    list_push_back(&w->listeners, &wl->node);
    listener_init(&wl->socket, &w->loop, fd, on_accept, wl);
    if (w->draining)
        close_listener(wl);
}

static void drop_listener(struct worker *w, const struct addr *addr)
{
    LIST_EACH (node, &w->listeners) {
        struct worker_listener *wl = LIST_ENTRY(node, struct worker_listener, node);
        if (addr_eq(&wl->addr, addr))
            close_listener(wl);
    }
}

static void close_listeners(struct worker *w)
{
    LIST_EACH (node, &w->listeners)
        close_listener(LIST_ENTRY(node, struct worker_listener, node));
}

/* ---- drain and stop ---- */

static void on_drain(struct worker *w)
{
    if (w->draining)
        return;
    w->draining = true;
    close_listeners(w);
    down_drain_all(w);
    worker_check_drained(w);
}

static void tell_gauges(struct worker *w)
{
    const struct stats *st = &w->stats;
    int64_t conns = w->conn_count, streams = w->stream_count, ups = w->up_count;

    if (conns != w->told_conns)
        metrics_gauge_add(st->conns, conns - w->told_conns);
    if (streams != w->told_streams)
        metrics_gauge_add(st->streams, streams - w->told_streams);
    if (ups != w->told_ups)
        metrics_gauge_add(st->up_conns, ups - w->told_ups);
    w->told_conns = conns;
    w->told_streams = streams;
    w->told_ups = ups;
}

static void mind_budget(struct worker *w)
{
    bool was_near = w->was_near_budget;

    w->was_near_budget = budget_level() != BUDGET_FINE;
    if (w->was_near_budget) {
        down_close_idle(w, NULL);
        pool_close_idle(w);
        chunk_pool_trim(w->pool, KEEP_CHUNKS_NEAR);
    } else if (was_near) {
        LIST_EACH (node, &w->streams)
            stream_budget_eased(LIST_ENTRY(node, struct stream, node));
    }
}

static void on_tick(struct loop_timer *timer)
{
    struct worker *w = CONTAINER_OF(timer, struct worker, tick);

    tell_gauges(w);
    mind_budget(w);
    loop_timer_start(&w->tick, TICK_MS);
}

static void drop_mail(struct mail *mail);

/* Streams have had their last callbacks; now what they needed goes. */
static void stop_rest(struct loop_task *task)
{
    struct worker *w = CONTAINER_OF(task, struct worker, stop);

    if (w->stream_count > 0) { /* a filter's end may take another round */
        loop_defer(&w->loop, &w->stop);
        return;
    }
    plugin_slots_free(w);
    pool_cut_all(w);
    loop_timer_close(&w->tick, NULL);
    if (w->runtime != NULL)
        runtime_unref(w->runtime);
    w->runtime = NULL;
    if (w->mailbox != NULL)
        mailbox_close(w->mailbox, drop_mail);
    loop_stop(&w->loop);
}

static void on_stop(struct worker *w)
{
    if (w->stopping)
        return;
    w->stopping = true;
    close_listeners(w);
    down_cut_all(w);
    LIST_EACH (node, &w->streams)
        stream_abort(LIST_ENTRY(node, struct stream, node), END_DRAIN_CUT);
    loop_defer(&w->loop, &w->stop);
}

/* ---- mail ---- */

static void deliver(void *arg, struct mail *mail)
{
    struct worker *w = arg;

    switch ((enum worker_mail)mail->type) {
    case MAIL_SNAPSHOT: on_snapshot(w, (struct mail_snapshot *)mail); break;
    case MAIL_ENDPOINTS: on_endpoints(w, (struct mail_endpoints *)mail); break;
    case MAIL_LISTENER: {
        struct mail_listener *m = (struct mail_listener *)mail;
        add_listener(w, &m->addr, m->fd);
        post(w, new_mail(w, MAIL_LISTENING));
        break;
    }
    case MAIL_LISTENER_GONE: drop_listener(w, &((struct mail_listener *)mail)->addr); break;
    case MAIL_VM: plugin_slot_give_vm(w, ((struct mail_vm *)mail)->vm); break;
    case MAIL_RETIRE: plugin_slot_retire(w, ((struct mail_retire *)mail)->generation); break;
    case MAIL_QUEUE: {
        const struct mail_queue *m = (struct mail_queue *)mail;
        plugin_slot_queue_ready(w, m->token, m->queue_id);
        break;
    }
    case MAIL_DRAIN: on_drain(w); break;
    case MAIL_CUT: down_cut_all(w); break;
    case MAIL_STOP: on_stop(w); break;
    case MAIL_ADOPTED:
    case MAIL_VM_LOST:
    case MAIL_VM_FREED:
    case MAIL_DRAINED:
    case MAIL_LISTENING: break; /* not to us */
    }
    mem_free(mail);
}

/* What came too late. */
static void drop_mail(struct mail *mail)
{
    switch ((enum worker_mail)mail->type) {
    case MAIL_SNAPSHOT: snapshot_unref(((struct mail_snapshot *)mail)->snapshot); break;
    case MAIL_ENDPOINTS:
        mem_free(((struct mail_endpoints *)mail)->key);
        mem_free(((struct mail_endpoints *)mail)->list);
        break;
    case MAIL_LISTENER: close(((struct mail_listener *)mail)->fd); break;
    case MAIL_VM: plugin_vm_free(((struct mail_vm *)mail)->vm); break;
    default: break;
    }
    mem_free(mail);
}

/* ---- life ---- */

void worker_init(struct worker *w, unsigned index, unsigned count, const struct identity *identity)
{
    memset(w, 0, sizeof *w);
    w->index = index;
    w->count = count;
    w->identity = identity;
    loop_init(&w->loop);
    w->pool = chunk_pool_new(KEEP_CHUNKS);
    w->scratch = route_scratch_new();
    w->clusters.on_endpoint_removed = pool_endpoint_removed;
    list_init(&w->listeners);
    list_init(&w->conns);
    list_init(&w->idle_conns);
    list_init(&w->streams);
    list_init(&w->ups);
    loop_task_init(&w->stop, stop_rest);
    loop_timer_init(&w->tick, &w->loop, on_tick);
    loop_timer_start(&w->tick, TICK_MS);
    stats_init(&w->stats);
    seed(w);
}

void worker_begin_stop(struct worker *w) { on_stop(w); }

void worker_fini(struct worker *w)
{
    loop_fini(&w->loop);
    tell_gauges(w);
    cluster_table_free(&w->clusters);
    route_scratch_free(w->scratch);
    strbuf_free(&w->line);
    chunk_pool_free(w->pool);
}

static void run(void *arg)
{
    struct worker *w = arg;

    metrics_thread_init();
    loop_run(&w->loop);
    worker_fini(w);
    metrics_thread_fini();
}

struct worker *worker_start(unsigned index, unsigned count, const struct identity *identity, struct mailbox *to_control)
{
    struct worker *w = mem_alloc(sizeof *w);

    worker_init(w, index, count, identity);
    w->control = mailbox_ref(to_control);
    w->mailbox = mailbox_ref(mailbox_new(&w->loop, deliver, w));
    ASSERT(uv_thread_create(&w->thread, run, w) == 0);
    return w;
}

struct mailbox *worker_mailbox(struct worker *w) { return w->mailbox; }

void worker_stop(struct worker *w)
{
    struct mail *m = mem_zalloc(sizeof *m);

    m->type = MAIL_STOP;
    mailbox_post(w->mailbox, m);
    uv_thread_join(&w->thread);
    mailbox_unref(w->mailbox);
    mailbox_unref(w->control);
    mem_free(w);
}
