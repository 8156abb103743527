/* SPDX-License-Identifier: Apache-2.0
 *
 * The life of a plugin generation on one worker: VMs come by mail, die in the middle of anything, are replaced, are
 * retired. What makes it hard is that a VM fails deep inside a stream's driver, while other streams wait in the same
 * VM: so a failure only changes state and posts mail, and a loop task settles those streams and frees the VM later,
 * with nothing of it on the stack. It must never enter a dead guest, and never let a stream into a quarantined one but
 * the single probe.
 */
#include "proxy/plugin_slot_priv.h"

#include "base/log.h"

enum {
    SLOT_FAILURE_WINDOW_MS = 10 * 1000, /* three failures within it: quarantine */
    SLOT_RESTART_MS = 50,               /* spread of the first replacements */
    SLOT_BACKOFF_FIRST_MS = 1000,
    SLOT_BACKOFF_MAX_MS = 60 * 1000,
    SLOT_PROBE_MS = 1000, /* a probe that lives so long went well, though its stream may last a day */
    SLOT_SECOND_MS = 1000,
    SLOT_LINGER_MS = 60 * 1000, /* for answers to callouts; they have limits of their own */
};

/* ---- finding and making ---- */

static struct str generation_key(const uint64_t *generation) { return str_span(generation, sizeof *generation); }

static void slot_task(struct loop_task *task);
static void slot_second(struct loop_timer *timer);

static struct plugin_slot *slot_new(struct worker *w, struct plugin *plugin)
{
    struct plugin_slot *slot = mem_zalloc(sizeof *slot);

    slot->worker = w;
    slot->plugin = plugin_ref(plugin);
    slot->refs = 1; /* of worker->slots */
    list_init(&slot->old);
    for (size_t i = 0; i < CB_COUNT; i++)
        slot->has[i] = true;
    filter_wasm_ops(&slot->ops, slot->has);
    loop_task_init(&slot->task, slot_task);
    loop_timer_init(&slot->second, &w->loop, slot_second);
    plugin_stats_init(slot);
    map_set(&w->slots, generation_key(&plugin->generation), slot);
    return slot;
}

static struct plugin_slot *slot_find(struct worker *w, uint64_t generation)
{
    return map_get(&w->slots, generation_key(&generation));
}

static struct plugin_slot *slot_find_or_make(struct worker *w, struct plugin *plugin)
{
    struct plugin_slot *slot = slot_find(w, plugin->generation);
    return slot != NULL ? slot : slot_new(w, plugin);
}

struct plugin_slot *plugin_slot_get(struct worker *w, struct plugin *plugin)
{
    struct plugin_slot *slot = slot_find_or_make(w, plugin);

    slot->refs++;
    if (slot->current != NULL && !slot->current->attached)
        loop_defer(&w->loop, &slot->task);
    return slot;
}

void plugin_slot_unref(struct plugin_slot *slot)
{
    ASSERT(slot->refs > 0);
    if (--slot->refs == 0 && !slot->ended)
        loop_defer(&slot->worker->loop, &slot->task); /* a guest call may be on the stack */
}

void plugin_slot_call_ended(struct plugin_slot *slot)
{
    if (slot->refs == 0 && !slot->ended)
        loop_defer(&slot->worker->loop, &slot->task);
}

enum slot_state plugin_slot_state(const struct plugin_slot *slot) { return slot->state; }

/* ---- mail to control ---- */

static struct mail_from_worker *mail_new(const struct worker *w, int type, uint64_t generation)
{
    struct mail_from_worker *m = mem_zalloc(sizeof *m);

    m->mail.type = type;
    m->worker = w->index;
    m->generation = generation;
    return m;
}

static void post_lost(struct plugin_slot *slot, uint64_t wanted_in_ms, const char *callback, const char *reason)
{
    struct worker *w = slot->worker;

    if (w->control == NULL)
        return;
    struct mail_from_worker *m = mail_new(w, MAIL_VM_LOST, slot->plugin->generation);
    m->wanted_in_ms = wanted_in_ms;
    m->quarantined = slot->state == SLOT_QUARANTINED;
    m->plugin = mem_strdup(slot->plugin->name);
    m->callback = callback != NULL ? mem_strdup(callback) : NULL;
    m->reason = reason != NULL ? mem_strdup(reason) : NULL;
    mailbox_post(w->control, &m->mail);
}

static void post_freed(struct worker *w, uint64_t generation)
{
    if (w->control != NULL)
        mailbox_post(w->control, &mail_new(w, MAIL_VM_FREED, generation)->mail);
}

/* ---- one VM: attach, tick, end ---- */

static void slot_vm_task(struct loop_task *task);

static void on_tick(struct loop_timer *timer)
{
    struct slot_vm *sv = CONTAINER_OF(timer, struct slot_vm, tick);

    if (sv->dead || sv->slot->current != sv)
        return;
    plugin_vm_tick(sv->vm);
    if (!sv->dead && sv->tick_ms != 0 && !loop_timer_is_active(timer)) /* not when the guest has set it anew */
        loop_timer_start(timer, sv->tick_ms);
}

static struct slot_vm *slot_vm_new(struct plugin_slot *slot, struct plugin_vm *vm)
{
    struct slot_vm *sv = mem_zalloc(sizeof *sv);

    sv->slot = slot;
    sv->vm = vm;
    sv->token = plugin_token_new(slot->worker);
    list_init(&sv->node);
    list_init(&sv->filters);
    list_init(&sv->calls);
    loop_timer_init(&sv->tick, &slot->worker->loop, on_tick);
    loop_task_init(&sv->task, slot_vm_task);
    return sv;
}

static void slot_vm_attach(struct slot_vm *sv)
{
    if (sv->attached)
        return;
    sv->attached = true;
    plugin_vm_attach(sv->vm, &plugin_host_ops, sv, sv->token);
}

static void slot_vm_closed(struct loop_timer *timer) { mem_free(CONTAINER_OF(timer, struct slot_vm, tick)); }

/* No context is left and nothing of the VM is on the stack. */
static void slot_vm_end(struct slot_vm *sv)
{
    ASSERT(list_is_empty(&sv->filters));
    if (sv->attached)
        plugin_vm_detach(
            sv->vm); /* may enter on_done and on_delete of the root; slot_vm_failed knows that it is the end */
    plugin_host_cancel_calls(sv);
    plugin_token_forget(sv->token);
    plugin_stats_fold(sv);
    plugin_stats_drop(sv);
    plugin_vm_free(sv->vm);
    loop_task_cancel(&sv->task);
    list_remove(&sv->node);
    loop_timer_close(&sv->tick, slot_vm_closed);
}

/* No stream enters it from now on. */
static void slot_vm_leave_current(struct slot_vm *sv)
{
    struct plugin_slot *slot = sv->slot;

    slot->current = NULL;
    list_push_back(&slot->old, &sv->node);
    loop_timer_stop(&sv->tick);
    loop_defer(&slot->worker->loop, &sv->task);
}

/* Of a VM in slot->old. */
static void slot_vm_task(struct loop_task *task)
{
    struct slot_vm *sv = CONTAINER_OF(task, struct slot_vm, task);
    struct plugin_slot *slot = sv->slot;

    if (sv->slot->current == sv)
        return;
    slot->refs++; /* the last stream must not take the slot away under us */
    while (sv->dead && !list_is_empty(&sv->filters))
        filter_wasm_settle(LIST_ENTRY(sv->filters.next, struct filter_wasm, node));
    if (list_is_empty(&sv->filters))
        slot_vm_end(sv);
    plugin_slot_unref(slot);
}

/* ---- the slot's own task and end ---- */

static void slot_closed(struct loop_timer *timer)
{
    struct plugin_slot *slot = CONTAINER_OF(timer, struct plugin_slot, second);

    plugin_unref(slot->plugin);
    strbuf_free(&slot->line);
    mem_free(slot);
}

static void slot_end(struct plugin_slot *slot)
{
    struct worker *w = slot->worker;
    struct slot_vm *current = slot->current;

    slot->ended = true;
    slot->current = NULL; /* a failure in its last callbacks is no news */
    if (current != NULL)
        slot_vm_end(current);
    LIST_EACH (node, &slot->old)
        slot_vm_end(LIST_ENTRY(node, struct slot_vm, node));
    map_remove(&w->slots, generation_key(&slot->plugin->generation));
    loop_task_cancel(&slot->task);
    loop_timer_close(&slot->second, slot_closed);
}

/* Nobody needs it but callouts of the root context: a generation that is replaced gets its answers still. */
static bool slot_lingers(const struct plugin_slot *slot)
{
    const struct slot_vm *sv = slot->current;

    return sv != NULL && !sv->dead && !list_is_empty(&sv->calls) &&
           loop_now(&slot->worker->loop) - slot->retired_ms < SLOT_LINGER_MS;
}

static void slot_task(struct loop_task *task)
{
    struct plugin_slot *slot = CONTAINER_OF(task, struct plugin_slot, task);

    if (slot->refs == 0) {
        if (slot_lingers(slot))
            return;
        struct worker *w = slot->worker;
        uint64_t generation = slot->plugin->generation;
        slot_end(slot);
        post_freed(w, generation);
        return;
    }
    if (slot->current != NULL)
        slot_vm_attach(slot->current);
}

/* ---- states ---- */

static void slot_recovered(struct plugin_slot *slot)
{
    slot->state = SLOT_LIVE;
    slot->probe = NULL;
    slot->backoff_step = 0;
    slot->failures[0] = slot->failures[1] = 0;
    log_line(LOG_INFO, "plugin %s serves again on worker %u: its probe went well", slot->plugin->name,
             slot->worker->index);
}

static void slot_second(struct loop_timer *timer)
{
    struct plugin_slot *slot = CONTAINER_OF(timer, struct plugin_slot, second);
    uint64_t now = loop_now(&slot->worker->loop);

    loop_timer_start(timer, SLOT_SECOND_MS);
    plugin_slot_call_ended(slot);
    if (slot->current != NULL)
        plugin_stats_fold(slot->current);
    LIST_EACH (node, &slot->old)
        plugin_stats_fold(LIST_ENTRY(node, struct slot_vm, node));
    if (slot->state == SLOT_QUARANTINED && slot->current != NULL && now >= slot->quarantined_until)
        slot->state = SLOT_PROBING;
    if (slot->state == SLOT_PROBING && slot->probe != NULL && now - slot->probe_since >= SLOT_PROBE_MS)
        slot_recovered(slot);
}

static void slot_learn_callbacks(struct plugin_slot *slot, const struct plugin_vm *vm)
{
    if (slot->knows_callbacks)
        return;
    slot->knows_callbacks = true;
    for (size_t i = 0; i < CB_COUNT; i++)
        slot->has[i] = plugin_vm_has(vm, (enum plugin_callback)i);
    filter_wasm_ops(&slot->ops, slot->has);
    if (slot->worker->index == 0)
        metrics_add(slot->ids.swaps, 1);
}

static void slot_adopt(struct plugin_slot *slot, struct plugin_vm *vm)
{
    uint64_t now = loop_now(&slot->worker->loop);

    if (slot->current != NULL)
        slot_vm_leave_current(slot->current);
    slot->current = slot_vm_new(slot, vm);
    slot_learn_callbacks(slot, vm);
    if (slot->state == SLOT_QUARANTINED || slot->state == SLOT_PROBING) {
        slot->state = now >= slot->quarantined_until ? SLOT_PROBING : SLOT_QUARANTINED;
        slot->probe = NULL;
    } else {
        slot->state = SLOT_LIVE;
    }
    if (!loop_timer_is_active(&slot->second))
        loop_timer_start(&slot->second, SLOT_SECOND_MS);
    if (slot->refs > 1) /* some runtime has it: its clusters are known */
        slot_vm_attach(slot->current);
}

void plugin_slot_give_vm(struct worker *w, struct plugin_vm *vm)
{
    struct plugin_slot *slot = slot_find_or_make(w, plugin_vm_plugin(vm));

    if (slot->retired)
        plugin_vm_free(vm);
    else
        slot_adopt(slot, vm);
}

void plugin_slot_retire(struct worker *w, uint64_t generation)
{
    struct plugin_slot *slot = slot_find(w, generation);

    if (slot == NULL) {
        post_freed(w, generation);
        return;
    }
    if (slot->retired)
        return;
    slot->retired = true;
    slot->retired_ms = loop_now(&w->loop);
    if (slot->current != NULL) {
        slot->current->tick_ms = 0;
        loop_timer_stop(&slot->current->tick);
    }
    plugin_slot_unref(slot);
}

/* ---- failures ---- */

static uint64_t jittered(struct worker *w, uint64_t ms) { return ms / 2 + worker_random(w) % (ms / 2 + 1); }

static uint64_t slot_quarantine(struct plugin_slot *slot, uint64_t now)
{
    uint64_t ms = (uint64_t)SLOT_BACKOFF_FIRST_MS << (slot->backoff_step < 6 ? slot->backoff_step : 6);

    ms = jittered(slot->worker, ms < SLOT_BACKOFF_MAX_MS ? ms : SLOT_BACKOFF_MAX_MS);
    slot->state = SLOT_QUARANTINED;
    slot->backoff_step++;
    slot->quarantined_until = now + ms;
    slot->probe = NULL;
    return ms;
}

/* How long control shall wait with the next VM. */
static uint64_t slot_count_failure(struct plugin_slot *slot)
{
    struct worker *w = slot->worker;
    uint64_t now = loop_now(&w->loop);
    bool second_back = slot->failures[0] != 0 && now - slot->failures[0] < SLOT_FAILURE_WINDOW_MS;
    bool third_back = slot->failures[1] != 0 && now - slot->failures[1] < SLOT_FAILURE_WINDOW_MS;

    slot->failures[1] = slot->failures[0];
    slot->failures[0] = now != 0 ? now : 1;
    if (slot->state == SLOT_PROBING || slot->state == SLOT_QUARANTINED || third_back)
        return slot_quarantine(slot, now);
    slot->state = SLOT_DEAD;
    return worker_random(w) % (second_back ? 2 * SLOT_RESTART_MS : SLOT_RESTART_MS);
}

void slot_vm_failed(struct slot_vm *sv, const char *callback, const char *reason)
{
    struct plugin_slot *slot = sv->slot;

    if (sv->dead)
        return;
    sv->dead = true;
    if (slot->current != sv) { /* replaced already, or in its last on_done */
        loop_defer(&slot->worker->loop, &sv->task);
        return;
    }
    slot_vm_leave_current(sv);
    uint64_t wanted_in_ms = slot_count_failure(slot);
    post_lost(slot, slot->retired ? 0 : wanted_in_ms + 1, callback, reason);
}

/* ---- streams ---- */

bool slot_is_usable(const struct plugin_slot *slot, enum end_reason *why)
{
    switch (slot->state) {
    case SLOT_WAITING: *why = END_PLUGIN_ABSENT; return false;
    case SLOT_LIVE: return true;
    case SLOT_DEAD: *why = END_PLUGIN_FAILED; return false;
    case SLOT_QUARANTINED: break;
    case SLOT_PROBING:
        if (slot->probe == NULL)
            return true;
        break;
    }
    *why = END_PLUGIN_QUARANTINED;
    return false;
}

struct slot_vm *slot_enter(struct plugin_slot *slot, struct filter_wasm *fw, enum end_reason *why)
{
    if (!slot_is_usable(slot, why))
        return NULL;
    slot_vm_attach(slot->current); /* may tell the guest of a callout that could not start, of which it may die */
    if (!slot_is_usable(slot, why))
        return NULL;
    if (slot->state == SLOT_PROBING) {
        slot->probe = fw;
        slot->probe_since = loop_now(&slot->worker->loop);
    }
    list_push_back(&slot->current->filters, &fw->node);
    return slot->current;
}

void slot_leave(struct filter_wasm *fw)
{
    struct slot_vm *sv = fw->vm;
    struct plugin_slot *slot = sv->slot;

    list_remove(&fw->node);
    fw->vm = NULL;
    if (slot->probe == fw) {
        slot->probe = NULL;
        if (slot->state == SLOT_PROBING && sv == slot->current)
            slot_recovered(slot);
    }
    if (slot->current != sv && list_is_empty(&sv->filters))
        loop_defer(&slot->worker->loop, &sv->task);
}

/* ---- other mail ---- */

void plugin_slot_queue_ready(struct worker *w, uint64_t token, uint32_t queue_id)
{
    MAP_EACH (entry, &w->slots) {
        struct plugin_slot *slot = entry->value;
        if (slot->current != NULL && slot->current->token == token && slot->current->attached) {
            plugin_vm_queue_ready(slot->current->vm, queue_id);
            return;
        }
    }
}

void plugin_slots_free(struct worker *w)
{
    for (;;) {
        struct plugin_slot *slot = NULL;
        MAP_EACH (entry, &w->slots)
            slot = entry->value;
        if (slot == NULL)
            break;
        slot_end(slot);
    }
    map_free(&w->slots);
    w->slots = (struct map){0};
}
