/* SPDX-License-Identifier: Apache-2.0
 *
 * The life of VMs on a worker and of their streams: strategies, death in the middle of things, quarantine and its
 * probe, retirement, swaps, timers, queues. The loop, mailboxes and metrics are real; the VM, the stream's driver and
 * callouts are faked here, so that a VM dies when the test wants it to.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proxy/plugin_slot_priv.h"
#include "proxy/properties.h"

/* ---- a fake VM ---- */

struct plugin_vm {
    struct plugin *plugin;
    const struct host_ops *ops;
    void *host;
    uint64_t token;
    bool attached, detached, dead, has[CB_COUNT];
    unsigned ctx_count, ticks, queue_events, answers, logs;
    struct plugin_vm_stats stats;
    enum ctx_action action; /* of the next callbacks */
    bool fails;             /* in the next callback */
    void (*inside)(struct plugin_vm *pv, void *stream);
};
struct ctx {
    struct plugin_vm *pv;
    void *stream;
    bool replied;
};
static unsigned vms_freed;

static void vm_die(struct plugin_vm *pv)
{
    pv->dead = true;
    pv->ops->vm_failed(pv->host, "proxy_on_request_headers", "unreachable");
}

void plugin_vm_attach(struct plugin_vm *pv, const struct host_ops *ops, void *host, uint64_t token)
{
    assert_false(pv->attached);
    pv->attached = true;
    pv->ops = ops;
    pv->host = host;
    pv->token = token;
}

void plugin_vm_detach(struct plugin_vm *pv)
{
    assert_true(pv->attached && !pv->detached);
    pv->detached = true;
}

void plugin_vm_free(struct plugin_vm *pv)
{
    assert_true(!pv->attached || pv->detached);
    assert_int_equal(pv->ctx_count, 0);
    vms_freed++;
    plugin_unref(pv->plugin);
    mem_free(pv);
}

struct plugin *plugin_vm_plugin(const struct plugin_vm *pv) { return pv->plugin; }
bool plugin_vm_is_dead(const struct plugin_vm *pv) { return pv->dead; }
metric_id plugin_metric(const struct plugin *p, enum metric_type type, struct str name, struct str labels,
                        const char *help)
{
    (void)p;
    return metrics_define(type, name, labels, help);
}
uint64_t plugin_vm_memory_bytes(const struct plugin_vm *pv) { return pv->dead ? 0 : 65536; }
bool plugin_vm_has(const struct plugin_vm *pv, enum plugin_callback cb) { return pv->has[cb]; }
const struct plugin_vm_stats *plugin_vm_stats(const struct plugin_vm *pv) { return &pv->stats; }
const char *plugin_callback_name(enum plugin_callback cb)
{
    return cb == CB_REQUEST_HEADERS ? "proxy_on_request_headers" : "cb";
}

void plugin_vm_tick(struct plugin_vm *pv)
{
    assert_false(pv->dead);
    pv->ticks++;
    if (pv->fails)
        vm_die(pv);
}

void plugin_vm_queue_ready(struct plugin_vm *pv, uint32_t queue_id)
{
    assert_int_equal(queue_id, 9);
    pv->queue_events++;
}

void plugin_vm_call_done(struct plugin_vm *pv, uint32_t call_id, struct headers *headers, struct buf *body,
                         struct headers *trailers, const char *error)
{
    (void)call_id, (void)headers, (void)body, (void)trailers, (void)error;
    pv->answers++;
}

struct plugin *plugin_ref(struct plugin *p)
{
    p->refs++;
    return p;
}
void plugin_unref(struct plugin *p) { p->refs--; }

struct ctx *ctx_new(struct plugin_vm *pv, void *stream)
{
    assert_true(pv->attached && !pv->detached);
    if (pv->dead)
        return NULL;
    struct ctx *ctx = mem_zalloc(sizeof *ctx);
    ctx->pv = pv;
    ctx->stream = stream;
    pv->ctx_count++;
    return ctx;
}

static enum ctx_action fake_callback(struct ctx *ctx, enum plugin_callback cb)
{
    struct plugin_vm *pv = ctx->pv;

    ctx->replied = false;
    if (pv->dead)
        return CTX_FAILED;
    pv->stats.cb[cb].calls++;
    pv->stats.cb[cb].bucket[3]++;
    if (pv->inside != NULL)
        pv->inside(pv, ctx->stream);
    if (pv->fails) {
        pv->stats.cb[cb].traps++;
        vm_die(pv);
        return CTX_FAILED;
    }
    return pv->action;
}

enum ctx_action ctx_request_headers(struct ctx *ctx, size_t count, bool end)
{
    (void)count, (void)end;
    return fake_callback(ctx, CB_REQUEST_HEADERS);
}
enum ctx_action ctx_request_body(struct ctx *ctx, size_t size, bool end)
{
    (void)size, (void)end;
    return fake_callback(ctx, CB_REQUEST_BODY);
}
enum ctx_action ctx_request_trailers(struct ctx *ctx, size_t count)
{
    (void)count;
    return fake_callback(ctx, CB_REQUEST_TRAILERS);
}
enum ctx_action ctx_response_headers(struct ctx *ctx, size_t count, bool end)
{
    (void)count, (void)end;
    return fake_callback(ctx, CB_RESPONSE_HEADERS);
}
enum ctx_action ctx_response_body(struct ctx *ctx, size_t size, bool end)
{
    (void)size, (void)end;
    return fake_callback(ctx, CB_RESPONSE_BODY);
}
enum ctx_action ctx_response_trailers(struct ctx *ctx, size_t count)
{
    (void)count;
    return fake_callback(ctx, CB_RESPONSE_TRAILERS);
}
void ctx_end(struct ctx *ctx)
{
    ctx->pv->ctx_count--;
    ctx->pv->logs += !ctx->pv->dead;
    mem_free(ctx);
}
bool ctx_replied(const struct ctx *ctx) { return ctx->replied; }

/* ---- a fake stream and what filters ask of it ---- */

struct fake_stream {
    struct stream s;
    struct filter f;
    unsigned replies, closes, continues[2], cleared;
    struct reply reply;
    char details[64];
    enum end_reason closed;
    struct message request, response;
};

static struct fake_stream *fake_of(struct filter *f) { return CONTAINER_OF(f, struct fake_stream, f); }

void filter_continue(struct filter *f, enum direction dir) { fake_of(f)->continues[dir]++; }

void filter_reply(struct filter *f, const struct reply *reply)
{
    struct fake_stream *fs = fake_of(f);

    fs->replies++;
    fs->reply = *reply;
    assert_true(reply->details.n < sizeof fs->details);
    memcpy(fs->details, reply->details.n != 0 ? reply->details.p : "", reply->details.n);
    fs->details[reply->details.n] = 0;
}

void filter_close(struct filter *f, enum end_reason reason)
{
    fake_of(f)->closes++;
    fake_of(f)->closed = reason;
}

struct headers *filter_headers(struct filter *f, enum direction dir, bool trailers, bool for_write)
{
    (void)for_write;
    return trailers || f->stream->side[dir].msg == NULL ? NULL : &f->stream->side[dir].msg->headers;
}

struct buf *filter_body(struct filter *f, enum direction dir)
{
    (void)f, (void)dir;
    return NULL;
}

void filter_clear_route(struct filter *f) { fake_of(f)->cleared++; }

enum abi_status property_get(struct worker *w, struct stream *s, bool ended, struct str path, struct strbuf *out)
{
    (void)w, (void)s, (void)ended, (void)path, (void)out;
    return ABI_NOT_FOUND;
}
enum abi_status property_set(struct stream *s, struct str path, struct str value)
{
    (void)s, (void)path, (void)value;
    return ABI_OK;
}

/* ---- fake callouts ---- */

struct call {
    call_done_fn *done;
    void *arg;
};
static struct call *last_call;
static unsigned calls_cancelled;

enum abi_status call_start(struct worker *w, const struct http_call *spec, call_done_fn *done, void *arg,
                           struct call **out)
{
    (void)w;
    if (!str_is(spec->cluster, "known"))
        return ABI_BAD_ARGUMENT;
    *out = last_call = mem_zalloc(sizeof **out);
    **out = (struct call){done, arg};
    return ABI_OK;
}

void call_cancel(struct call *call)
{
    calls_cancelled++;
    mem_free(call);
}

uint64_t worker_random(struct worker *w) { return w->random_state[0]++; }

/* ---- the worker ---- */

struct fixture {
    struct worker w;
    struct plugin plugin;
    struct plugin_slot *slot; /* a runtime's reference */
    unsigned lost, freed, queue_mails;
    struct mail_from_worker last;
};

static void to_control(void *arg, struct mail *mail)
{
    struct fixture *f = arg;
    struct mail_from_worker *m = CONTAINER_OF(mail, struct mail_from_worker, mail);

    f->lost += mail->type == MAIL_VM_LOST;
    f->freed += mail->type == MAIL_VM_FREED;
    f->last = *m;
    mem_free(m->plugin);
    mem_free(m->callback);
    mem_free(m->reason);
    mem_free(m);
}

static void to_worker(void *arg, struct mail *mail)
{
    struct fixture *f = arg;
    struct mail_queue *m = CONTAINER_OF(mail, struct mail_queue, mail);

    assert_int_equal(mail->type, MAIL_QUEUE);
    f->queue_mails++;
    plugin_slot_queue_ready(&f->w, m->token, m->queue_id);
    mem_free(m);
}

static void turn(struct fixture *f)
{
    for (int i = 0; i < 4; i++)
        uv_run(&f->w.loop.uv, UV_RUN_NOWAIT);
}

static int setup(void **state)
{
    struct fixture *f = mem_zalloc(sizeof *f);

    loop_init(&f->w.loop);
    f->w.pool = chunk_pool_new(4);
    f->w.mailbox = mailbox_new(&f->w.loop, to_worker, f);
    f->w.control = mailbox_new(&f->w.loop, to_control, f);
    f->plugin = (struct plugin){
        .refs = 1, .generation = 7, .name = (char *)"ns.p", .fail = FAIL_CLOSE, .limits = {.max_calls = 2}};
    vms_freed = calls_cancelled = 0;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    if (f->slot != NULL)
        plugin_slot_unref(f->slot);
    plugin_slots_free(&f->w);
    assert_int_equal(f->plugin.refs, 1 + 1); /* the slot's goes with its timer */
    mailbox_close(f->w.mailbox, NULL);
    mailbox_close(f->w.control, NULL);
    loop_fini(&f->w.loop);
    assert_int_equal(f->plugin.refs, 1);
    chunk_pool_free(f->w.pool);
    mem_free(f);
    return 0;
}

/* As teardown when the slot is gone already. */
static int teardown_gone(void **state)
{
    struct fixture *f = *state;

    plugin_slots_free(&f->w);
    mailbox_close(f->w.mailbox, NULL);
    mailbox_close(f->w.control, NULL);
    loop_fini(&f->w.loop);
    assert_int_equal(f->plugin.refs, 1);
    chunk_pool_free(f->w.pool);
    mem_free(f);
    return 0;
}

static struct plugin_vm *vm_new_fake(struct fixture *f)
{
    struct plugin_vm *pv = mem_zalloc(sizeof *pv);

    pv->plugin = plugin_ref(&f->plugin);
    pv->has[CB_REQUEST_HEADERS] = pv->has[CB_RESPONSE_HEADERS] = true;
    return pv;
}

static struct plugin_vm *start(struct fixture *f)
{
    struct plugin_vm *pv = vm_new_fake(f);

    if (f->slot == NULL)
        f->slot = plugin_slot_get(&f->w, &f->plugin);
    plugin_slot_give_vm(&f->w, pv);
    turn(f);
    assert_true(pv->attached);
    return pv;
}

static struct chain_entry entry = {.title = (char *)"ns/p"};

static struct fake_stream *stream_begin(struct fixture *f, struct plugin_slot *slot)
{
    struct fake_stream *fs = mem_zalloc(sizeof *fs);
    struct chain_place place = {.entry = &entry, .slot = slot};

    arena_init(&fs->s.arena, f->w.pool, 1 << 20);
    fs->s.worker = &f->w;
    fs->f.stream = &fs->s;
    fs->s.side[DIR_REQUEST].msg = &fs->request;
    headers_init(&fs->request.headers, &fs->s.arena, 1000, 10);
    headers_init(&fs->response.headers, &fs->s.arena, 1000, 10);
    filter_wasm_init(&fs->f, &place);
    return fs;
}

/* What the chain does with an answer to headers. */
static enum filter_result run_headers(struct fake_stream *fs, enum direction dir)
{
    struct filter *f = &fs->f;
    struct filter_side *side = &f->side[dir];
    enum filter_result r = FILTER_CONTINUE;

    if (side->state == FILTER_BYPASSED)
        return r;
    side->state = FILTER_IN_CALLBACK;
    if (dir == DIR_REQUEST && f->ops->request_headers != NULL)
        r = f->ops->request_headers(f, &fs->request.headers, false);
    if (dir == DIR_RESPONSE && f->ops->response_headers != NULL)
        r = f->ops->response_headers(f, &fs->response.headers, false);
    if (side->state == FILTER_IN_CALLBACK)
        side->state = r == FILTER_CONTINUE ? FILTER_OPEN : r == FILTER_STOP ? FILTER_HOLDS_HEADERS : FILTER_HOLDS_ALL;
    return r;
}

static void stream_finish(struct fake_stream *fs)
{
    if (fs->f.ops->ended != NULL)
        fs->f.ops->ended(&fs->f);
    arena_fini(&fs->s.arena);
    mem_free(fs);
}

/* ---- tests ---- */

static void test_vm_works_from_the_first_runtime_on(void **state)
{
    struct fixture *f = *state;
    struct plugin_vm *pv = vm_new_fake(f);

    plugin_slot_give_vm(&f->w, pv);
    turn(f);
    assert_false(pv->attached); /* its callouts would find no cluster yet */
    f->slot = plugin_slot_get(&f->w, &f->plugin);
    assert_false(pv->attached);
    turn(f);
    assert_true(pv->attached);
    assert_int_equal(plugin_slot_state(f->slot), SLOT_LIVE);
}

static void test_context_is_made_late_and_ended(void **state)
{
    struct fixture *f = *state;
    struct plugin_vm *pv = start(f);
    struct fake_stream *fs = stream_begin(f, f->slot);

    assert_null(fs->f.ops->request_body);
    assert_int_equal(pv->ctx_count, 0);
    assert_int_equal(run_headers(fs, DIR_REQUEST), FILTER_CONTINUE);
    assert_int_equal(run_headers(fs, DIR_RESPONSE), FILTER_CONTINUE);
    assert_int_equal(pv->ctx_count, 1);
    stream_finish(fs);
    assert_int_equal(pv->ctx_count, 0);
    assert_int_equal(pv->logs, 1);
}

static void test_actions(void **state)
{
    struct fixture *f = *state;
    struct plugin_vm *pv = start(f);
    static const struct {
        enum ctx_action action;
        enum filter_result result;
    } rows[] = {
        {CTX_CONTINUE, FILTER_CONTINUE},   {CTX_PAUSE, FILTER_STOP},
        {CTX_PAUSE_ALL, FILTER_STOP_ALL},  {CTX_PAUSE_ALL_BUFFER, FILTER_STOP_ALL_BUFFER},
        {CTX_BUFFER, FILTER_BUFFER},       {CTX_WATERMARK, FILTER_WATERMARK},
        {CTX_NO_BUFFER, FILTER_NO_BUFFER},
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct fake_stream *fs = stream_begin(f, f->slot);
        pv->action = rows[i].action;
        assert_int_equal(run_headers(fs, DIR_REQUEST), rows[i].result);
        stream_finish(fs);
    }
}

static void test_without_a_vm(void **state)
{
    struct fixture *f = *state;

    f->slot = plugin_slot_get(&f->w, &f->plugin);
    assert_int_equal(plugin_slot_state(f->slot), SLOT_WAITING);
    struct fake_stream *fs = stream_begin(f, f->slot);
    assert_true(f->slot->has[CB_REQUEST_BODY]); /* nobody knows yet which callbacks it has */
    assert_int_equal(run_headers(fs, DIR_REQUEST), FILTER_ENDED);
    assert_int_equal(fs->reply.status, 403);
    assert_int_equal(fs->reply.reason, END_PLUGIN_ABSENT);
    stream_finish(fs);

    f->plugin.fail = FAIL_OPEN;
    fs = stream_begin(f, f->slot);
    assert_int_equal(run_headers(fs, DIR_REQUEST), FILTER_CONTINUE);
    assert_int_equal(run_headers(fs, DIR_RESPONSE), FILTER_CONTINUE);
    assert_int_equal(fs->replies, 0);
    stream_finish(fs);
}

static void test_vm_comes_between_init_and_headers(void **state)
{
    struct fixture *f = *state;

    f->slot = plugin_slot_get(&f->w, &f->plugin);
    struct fake_stream *fs = stream_begin(f, f->slot);
    struct plugin_vm *pv = start(f);
    assert_int_equal(run_headers(fs, DIR_REQUEST), FILTER_CONTINUE);
    assert_int_equal(pv->ctx_count, 1);
    stream_finish(fs);
}

static void test_absent_plugin(void **state)
{
    struct fixture *f = *state;
    static const struct {
        enum plugin_absence absence;
        enum fail_strategy fail;
        unsigned status; /* 0: passes */
    } rows[] = {
        {PLUGIN_PENDING, FAIL_CLOSE, 403},       {PLUGIN_FETCH_FAILED, FAIL_CLOSE, 403},
        {PLUGIN_FETCH_FAILED, FAIL_RELOAD, 403}, {PLUGIN_BAD_MODULE, FAIL_CLOSE, 503},
        {PLUGIN_START_FAILED, FAIL_CLOSE, 503},  {PLUGIN_PENDING, FAIL_OPEN, 0},
        {PLUGIN_BAD_MODULE, FAIL_OPEN, 0},
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        entry.absence = rows[i].absence;
        entry.fail = rows[i].fail;
        struct fake_stream *fs = stream_begin(f, NULL);
        enum filter_result r = run_headers(fs, DIR_REQUEST);
        assert_int_equal(r, rows[i].status != 0 ? FILTER_ENDED : FILTER_CONTINUE);
        assert_int_equal(fs->reply.status, rows[i].status);
        stream_finish(fs);
    }
    entry.fail = FAIL_CLOSE;
}

/* One stream's callback kills the VM; another is paused in it, a third has nothing more to show it, a fourth waits for
 * the response. */
static void test_death_settles_all_streams(void **state)
{
    struct fixture *f = *state;
    struct plugin_vm *pv = start(f);
    struct fake_stream *killer = stream_begin(f, f->slot), *paused = stream_begin(f, f->slot);
    struct fake_stream *done = stream_begin(f, f->slot), *waits = stream_begin(f, f->slot);

    pv->action = CTX_PAUSE_ALL;
    assert_int_equal(run_headers(paused, DIR_REQUEST), FILTER_STOP_ALL);
    pv->action = CTX_CONTINUE;
    run_headers(done, DIR_REQUEST);
    run_headers(done, DIR_RESPONSE); /* no body callback: a long download may follow */
    run_headers(waits, DIR_REQUEST);
    pv->fails = true;
    assert_int_equal(run_headers(killer, DIR_REQUEST), FILTER_ENDED);
    assert_int_equal(killer->reply.status, 503);
    assert_int_equal(killer->reply.reason, END_PLUGIN_FAILED);
    assert_int_equal(killer->reply.body.n, 0);
    assert_int_equal(plugin_slot_state(f->slot), SLOT_DEAD);
    assert_int_equal(paused->replies, 0); /* not from inside */
    assert_int_equal(vms_freed, 0);
    turn(f);
    assert_int_equal(paused->replies, 1);
    assert_int_equal(paused->reply.status, 503);
    assert_int_equal(waits->replies, 1);
    assert_int_equal(done->replies, 0);
    assert_int_equal(killer->replies, 1);
    assert_int_equal(vms_freed, 1);
    assert_int_equal(f->lost, 1);
    assert_int_equal(f->last.generation, 7);
    assert_true(f->last.wanted_in_ms >= 1 && f->last.wanted_in_ms <= 51);
    assert_false(f->last.quarantined);
    /* New ones, until a VM comes. */
    struct fake_stream *next = stream_begin(f, f->slot);
    assert_int_equal(run_headers(next, DIR_REQUEST), FILTER_ENDED);
    assert_int_equal(next->reply.reason, END_PLUGIN_FAILED);
    stream_finish(next);
    stream_finish(killer);
    stream_finish(paused);
    stream_finish(done);
    stream_finish(waits);
    start(f);
    assert_int_equal(plugin_slot_state(f->slot), SLOT_LIVE);
}

static void test_death_with_fail_open(void **state)
{
    struct fixture *f = *state;
    struct plugin_vm *pv = start(f);
    struct fake_stream *killer = stream_begin(f, f->slot), *paused = stream_begin(f, f->slot);

    f->plugin.fail = FAIL_OPEN;
    pv->action = CTX_PAUSE_ALL;
    run_headers(paused, DIR_REQUEST);
    pv->fails = true;
    assert_int_equal(run_headers(killer, DIR_REQUEST), FILTER_CONTINUE);
    assert_int_equal(killer->f.side[DIR_REQUEST].state, FILTER_BYPASSED);
    turn(f);
    assert_int_equal(paused->replies, 0);
    assert_int_equal(paused->continues[DIR_REQUEST], 1);
    assert_int_equal(paused->continues[DIR_RESPONSE], 1);
    assert_int_equal(paused->f.side[DIR_REQUEST].state, FILTER_BYPASSED);
    assert_int_equal(paused->f.side[DIR_RESPONSE].state, FILTER_BYPASSED);
    assert_null(paused->f.ops->response_headers);
    stream_finish(killer);
    stream_finish(paused);
}

/* An event comes to a stream after the death, before the task that settles. */
static void test_event_between_death_and_settling(void **state)
{
    struct fixture *f = *state;
    struct plugin_vm *pv = start(f);
    struct fake_stream *fs = stream_begin(f, f->slot);

    run_headers(fs, DIR_REQUEST);
    vm_die(pv);
    assert_int_equal(run_headers(fs, DIR_RESPONSE), FILTER_ENDED);
    assert_int_equal(fs->replies, 1);
    turn(f);
    assert_int_equal(fs->replies, 1);
    assert_int_equal(vms_freed, 1);
    stream_finish(fs);
}

static void test_stream_ends_between_death_and_settling(void **state)
{
    struct fixture *f = *state;
    struct plugin_vm *pv = start(f);
    struct fake_stream *fs = stream_begin(f, f->slot);

    run_headers(fs, DIR_REQUEST);
    vm_die(pv);
    stream_finish(fs);
    turn(f);
    assert_int_equal(vms_freed, 1);
}

static void die_times(struct fixture *f, int times)
{
    for (int i = 0; i < times; i++) {
        vm_die(start(f));
        turn(f);
    }
}

static void test_quarantine_and_probe(void **state)
{
    struct fixture *f = *state;

    die_times(f, 2);
    assert_int_equal(plugin_slot_state(f->slot), SLOT_DEAD);
    die_times(f, 1);
    assert_int_equal(plugin_slot_state(f->slot), SLOT_QUARANTINED);
    assert_int_equal(f->lost, 3);
    assert_true(f->last.quarantined);
    assert_true(f->last.wanted_in_ms >= 500 && f->last.wanted_in_ms <= 1001);
    struct plugin_vm *early = start(f); /* before its time: it waits */
    assert_int_equal(plugin_slot_state(f->slot), SLOT_QUARANTINED);
    struct fake_stream *fs = stream_begin(f, f->slot);
    assert_int_equal(run_headers(fs, DIR_REQUEST), FILTER_ENDED);
    assert_int_equal(fs->reply.reason, END_PLUGIN_QUARANTINED);
    assert_int_equal(early->ctx_count, 0);
    stream_finish(fs);

    f->slot->quarantined_until = 0;
    struct plugin_vm *pv = start(f);
    assert_int_equal(plugin_slot_state(f->slot), SLOT_PROBING);
    struct fake_stream *probe = stream_begin(f, f->slot), *other = stream_begin(f, f->slot);
    assert_int_equal(run_headers(probe, DIR_REQUEST), FILTER_CONTINUE);
    assert_int_equal(run_headers(other, DIR_REQUEST), FILTER_ENDED);
    assert_int_equal(other->reply.status, 503);
    assert_int_equal(pv->ctx_count, 1);
    stream_finish(other);
    assert_int_equal(plugin_slot_state(f->slot), SLOT_PROBING);
    stream_finish(probe);
    assert_int_equal(plugin_slot_state(f->slot), SLOT_LIVE);
    assert_int_equal(f->slot->failures[0], 0);
}

static void test_failing_probe_doubles_the_back_off(void **state)
{
    struct fixture *f = *state;
    uint64_t least = 500;

    die_times(f, 3);
    for (int i = 0; i < 8; i++) {
        f->slot->quarantined_until = 0;
        struct plugin_vm *pv = start(f);
        assert_int_equal(plugin_slot_state(f->slot), SLOT_PROBING);
        struct fake_stream *fs = stream_begin(f, f->slot);
        pv->fails = true;
        run_headers(fs, DIR_REQUEST);
        stream_finish(fs);
        turn(f);
        assert_int_equal(plugin_slot_state(f->slot), SLOT_QUARANTINED);
        least = least * 2 < 30000 ? least * 2 : 30000;
        assert_true(f->last.wanted_in_ms >= least && f->last.wanted_in_ms <= least * 2 + 1);
    }
}

static void test_retire(void **state)
{
    struct fixture *f = *state;
    struct plugin_vm *pv = start(f);
    struct fake_stream *fs = stream_begin(f, f->slot);

    run_headers(fs, DIR_REQUEST);
    pv->ops->set_tick(pv->host, 1);
    plugin_slot_retire(&f->w, 7);
    plugin_slot_retire(&f->w, 7);
    plugin_slot_unref(f->slot); /* the runtime goes, the stream stays */
    turn(f);
    uv_sleep(3);
    turn(f);
    assert_int_equal(pv->ticks, 0);
    assert_int_equal(vms_freed, 0);
    plugin_slot_give_vm(&f->w, vm_new_fake(f)); /* a late replacement */
    assert_int_equal(vms_freed, 1);
    run_headers(fs, DIR_RESPONSE);
    stream_finish(fs);
    assert_int_equal(vms_freed, 1); /* not from inside */
    turn(f);
    assert_int_equal(vms_freed, 2);
    assert_int_equal(f->freed, 1);
    assert_int_equal(f->last.generation, 7);
    f->slot = NULL;
    plugin_slot_retire(&f->w, 99);
    turn(f);
    assert_int_equal(f->freed, 2);
    assert_int_equal(f->last.generation, 99);
}

static void test_retired_gets_its_answers(void **state)
{
    struct fixture *f = *state;
    struct plugin_vm *pv = start(f);
    struct http_call spec = {.id = 1, .cluster = STR("known")};
    void *handle;

    assert_int_equal(pv->ops->http_call(pv->host, &spec, &handle), ABI_OK);
    struct call *call = last_call;
    plugin_slot_retire(&f->w, 7);
    plugin_slot_unref(f->slot);
    f->slot = NULL;
    turn(f);
    assert_int_equal(vms_freed, 0);
    unsigned answers_before = pv->answers;
    call->done(call->arg, call, NULL, NULL, NULL, NULL);
    mem_free(call);
    assert_int_equal(pv->answers, answers_before + 1);
    assert_int_equal(vms_freed, 0); /* not from inside */
    turn(f);
    assert_int_equal(vms_freed, 1);
    assert_int_equal(calls_cancelled, 0);
    assert_int_equal(f->freed, 1);
}

static void test_swap(void **state)
{
    struct fixture *f = *state;
    struct plugin_vm *old = start(f);
    struct fake_stream *in_old = stream_begin(f, f->slot);

    run_headers(in_old, DIR_REQUEST);
    struct plugin_vm *new = start(f);
    assert_int_equal(vms_freed, 0);
    struct fake_stream *in_new = stream_begin(f, f->slot);
    run_headers(in_new, DIR_REQUEST);
    run_headers(in_old, DIR_RESPONSE);
    assert_int_equal(old->ctx_count, 1);
    assert_int_equal(new->ctx_count, 1);
    stream_finish(in_old);
    turn(f);
    assert_int_equal(vms_freed, 1);
    assert_int_equal(plugin_slot_state(f->slot), SLOT_LIVE);
    stream_finish(in_new);
}

static void test_queue_event_reaches_the_worker(void **state)
{
    struct fixture *f = *state;
    struct plugin_vm *pv = start(f);
    uint64_t token = pv->token;

    pv->ops->queue_wake(token, 9);
    assert_int_equal(pv->queue_events, 0);
    turn(f);
    assert_int_equal(f->queue_mails, 1);
    assert_int_equal(pv->queue_events, 1);
    const struct host_ops *ops = pv->ops;
    vm_die(pv);
    ops->queue_wake(token, 9); /* dead, and then gone */
    turn(f);
    ops->queue_wake(token, 9);
    turn(f);
    assert_int_equal(f->queue_mails, 2);
}

static void test_ticks(void **state)
{
    struct fixture *f = *state;
    struct plugin_vm *pv = start(f);

    pv->ops->set_tick(pv->host, 1);
    while (pv->ticks < 3)
        uv_run(&f->w.loop.uv, UV_RUN_ONCE);
    pv->ops->set_tick(pv->host, 0);
    unsigned then = pv->ticks;
    uv_sleep(3);
    turn(f);
    assert_int_equal(pv->ticks, then);
    pv->ops->set_tick(pv->host, 1);
    pv->fails = true;
    while (plugin_slot_state(f->slot) == SLOT_LIVE)
        uv_run(&f->w.loop.uv, UV_RUN_ONCE);
    turn(f);
    assert_int_equal(vms_freed, 1);
}

static void test_callouts(void **state)
{
    struct fixture *f = *state;
    struct plugin_vm *pv = start(f);
    struct http_call spec = {.id = 1, .cluster = STR("known")};
    void *handles[3];

    spec.cluster = STR("unknown");
    assert_int_equal(pv->ops->http_call(pv->host, &spec, &handles[0]), ABI_BAD_ARGUMENT);
    spec.cluster = STR("known");
    assert_int_equal(pv->ops->http_call(pv->host, &spec, &handles[0]), ABI_OK);
    struct call *first = last_call;
    assert_int_equal(pv->ops->http_call(pv->host, &spec, &handles[1]), ABI_OK);
    assert_int_equal(pv->ops->http_call(pv->host, &spec, &handles[2]), ABI_INTERNAL_FAILURE); /* max_calls */
    first->done(first->arg, first, NULL, NULL, NULL, "error");
    mem_free(first);
    assert_int_equal(pv->answers, 1);
    pv->ops->http_call_cancel(pv->host, handles[0]); /* over already: nothing */
    assert_int_equal(calls_cancelled, 0);
    pv->ops->http_call_cancel(pv->host, handles[1]);
    assert_int_equal(calls_cancelled, 1);
    assert_int_equal(pv->ops->http_call(pv->host, &spec, &handles[0]), ABI_OK);
    vm_die(pv);
    turn(f);
    assert_int_equal(calls_cancelled, 2);
}

static void test_on_log_alone(void **state)
{
    struct fixture *f = *state;
    struct plugin_vm *pv = vm_new_fake(f);

    pv->has[CB_LOG] = true;
    f->slot = plugin_slot_get(&f->w, &f->plugin);
    plugin_slot_give_vm(&f->w, pv);
    turn(f);
    stream_finish(stream_begin(f, f->slot));
    assert_int_equal(pv->logs, 1);
    struct fake_stream *fs = stream_begin(f, f->slot);
    vm_die(pv);
    turn(f);
    stream_finish(fs);
}

static void reply_inside(struct plugin_vm *pv, void *stream)
{
    struct abi_pair pair = {STR("X-A"), STR("b")};
    struct local_reply reply = {
        .status = 401, .details = STR("no_key"), .body = STR("no"), .headers = {&pair, 1}, .grpc_status = -1};

    pv->ops->local_reply(stream, &reply);
}

static void test_local_reply(void **state)
{
    struct fixture *f = *state;
    struct plugin_vm *pv = start(f);
    struct fake_stream *fs = stream_begin(f, f->slot);

    pv->inside = reply_inside;
    pv->action = CTX_PAUSE_ALL;
    assert_int_equal(run_headers(fs, DIR_REQUEST), FILTER_ENDED);
    assert_int_equal(fs->reply.status, 401);
    assert_int_equal(fs->reply.reason, END_PLUGIN_REPLY);
    assert_string_equal(fs->details, "no_key");
    assert_int_equal(fs->reply.extra_count, 1);
    /* Its own reply passes it: one more reply there changes nothing, and must not hold it. */
    fs->s.side[DIR_RESPONSE].msg = &fs->response;
    assert_int_equal(run_headers(fs, DIR_RESPONSE), FILTER_CONTINUE);
    stream_finish(fs);
}

static void refuse_utf8(struct plugin_vm *pv, void *stream)
{
    struct local_reply reply = {.status = 400, .details = STR("header_not_utf8"), .grpc_status = -1};

    pv->ops->local_reply(stream, &reply);
}

static void test_bad_utf8_has_its_own_reason(void **state)
{
    struct fixture *f = *state;
    struct plugin_vm *pv = start(f);
    struct fake_stream *fs = stream_begin(f, f->slot);

    pv->inside = refuse_utf8;
    assert_int_equal(run_headers(fs, DIR_REQUEST), FILTER_ENDED);
    assert_int_equal(fs->reply.reason, END_HEADER_NOT_UTF8);
    assert_int_equal(fs->reply.status, 400);
    assert_string_equal(fs->details, "");
    stream_finish(fs);
}

static void close_inside(struct plugin_vm *pv, void *stream) { pv->ops->close_stream(stream, STREAM_RESPONSE); }

static void test_close(void **state)
{
    struct fixture *f = *state;
    struct plugin_vm *pv = start(f);
    struct fake_stream *fs = stream_begin(f, f->slot);

    pv->inside = close_inside;
    assert_int_equal(run_headers(fs, DIR_REQUEST), FILTER_ENDED);
    assert_int_equal(fs->closed, END_PLUGIN_CLOSED);
    stream_finish(fs);
}

static void test_continue_only_what_is_held(void **state)
{
    struct fixture *f = *state;
    struct plugin_vm *pv = start(f);
    struct fake_stream *fs = stream_begin(f, f->slot);
    struct filter_wasm *fw = fs->f.self;

    pv->action = CTX_PAUSE_ALL;
    run_headers(fs, DIR_REQUEST);
    pv->ops->continue_stream(fw, STREAM_RESPONSE);
    pv->ops->continue_stream(fw, STREAM_DOWNSTREAM);
    assert_int_equal(fs->continues[DIR_RESPONSE], 0);
    assert_int_equal(fs->continues[DIR_REQUEST], 0);
    pv->ops->continue_stream(fw, STREAM_REQUEST);
    assert_int_equal(fs->continues[DIR_REQUEST], 1);
    stream_finish(fs);
}

static void test_maps(void **state)
{
    struct fixture *f = *state;
    struct plugin_vm *pv = start(f);
    struct fake_stream *fs = stream_begin(f, f->slot);
    struct filter_wasm *fw = fs->f.self;

    run_headers(fs, DIR_REQUEST);
    assert_ptr_equal(pv->ops->map(fw, MAP_REQUEST_HEADERS, MAP_WRITE), &fs->request.headers);
    assert_null(pv->ops->map(fw, MAP_RESPONSE_HEADERS, MAP_READ));
    assert_null(pv->ops->map(fw, MAP_CALL_HEADERS, MAP_READ));
    pv->ops->map_changed(fw, MAP_REQUEST_HEADERS);
    pv->ops->map_changed(fw, MAP_RESPONSE_HEADERS);
    assert_int_equal(fs->cleared, 1);
    fw->ending = true;
    assert_ptr_equal(pv->ops->map(fw, MAP_REQUEST_HEADERS, MAP_READ), &fs->request.headers);
    assert_null(pv->ops->map(fw, MAP_REQUEST_HEADERS, MAP_WRITE));
    pv->ops->clear_route_cache(fw);
    pv->ops->close_stream(fw, STREAM_REQUEST);
    assert_int_equal(fs->cleared, 1);
    assert_int_equal(fs->closes, 0);
    stream_finish(fs);
}

static int64_t metric(enum metric_type type, const char *name, const char *labels)
{
    return metrics_read(metrics_define(type, str_of(name), str_of(labels), NULL));
}

static void test_metrics(void **state)
{
    struct fixture *f = *state;
    f->plugin.name = (char *)"ns.metrics";
    struct plugin_vm *pv = start(f);
    static const char by_callback[] = "plugin=\"ns.metrics\",callback=\"proxy_on_request_headers\"";

    for (int i = 0; i < 5; i++) {
        struct fake_stream *fs = stream_begin(f, f->slot);
        pv->fails = i == 4;
        run_headers(fs, DIR_REQUEST);
        stream_finish(fs);
        if (i == 2)
            plugin_stats_fold(f->slot->current); /* as each second: nothing is counted twice */
    }
    assert_int_equal(metric(METRICS_GAUGE, "weir_plugin_memory_bytes", "plugin=\"ns.metrics\",worker=\"0\""), 65536);
    turn(f);
    assert_int_equal(metric(METRICS_COUNTER, "weir_plugin_calls_total", by_callback), 5);
    assert_int_equal(metric(METRICS_COUNTER, "weir_plugin_traps_total", by_callback), 1);
    assert_int_equal(metric(METRICS_HISTOGRAM, "weir_plugin_callback_seconds", by_callback), 5);
    assert_int_equal(metric(METRICS_COUNTER, "weir_plugin_errors_total", "plugin=\"ns.metrics\",strategy=\"fail\""), 1);
    assert_int_equal(metric(METRICS_COUNTER, "weir_plugin_swaps_total", "plugin=\"ns.metrics\""), 1);
    assert_int_equal(metric(METRICS_GAUGE, "weir_plugin_memory_bytes", "plugin=\"ns.metrics\",worker=\"0\""), 0);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_vm_works_from_the_first_runtime_on),
        T(test_context_is_made_late_and_ended),
        T(test_actions),
        T(test_without_a_vm),
        T(test_vm_comes_between_init_and_headers),
        cmocka_unit_test_setup_teardown(test_absent_plugin, setup, teardown_gone),
        T(test_death_settles_all_streams),
        T(test_death_with_fail_open),
        T(test_event_between_death_and_settling),
        T(test_stream_ends_between_death_and_settling),
        T(test_quarantine_and_probe),
        T(test_failing_probe_doubles_the_back_off),
        cmocka_unit_test_setup_teardown(test_retire, setup, teardown_gone),
        cmocka_unit_test_setup_teardown(test_retired_gets_its_answers, setup, teardown_gone),
        T(test_swap),
        T(test_queue_event_reaches_the_worker),
        T(test_ticks),
        T(test_callouts),
        T(test_on_log_alone),
        T(test_local_reply),
        T(test_bad_utf8_has_its_own_reason),
        T(test_close),
        T(test_continue_only_what_is_held),
        T(test_maps),
        T(test_metrics),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
