/* SPDX-License-Identifier: Apache-2.0
 *
 * One plugin on one stream: filter_ops over the ABI's stream contexts. What makes it hard is everything that is not a
 * callback: the VM may not be there, may die inside any call, may be dead already because of another stream; then the
 * fail strategy decides, and a FAIL_CLOSE stream must never pass unfiltered while a FAIL_OPEN one must never lose what
 * is held. The context is made with the first callback, so that a stream that never comes here costs the guest nothing.
 */
#include "base/log.h"
#include "proxy/plugin_slot_priv.h"

/* ---- leaving ---- */

static void on_ended(struct filter *f);

/* Takes no part any more, in whatever it was. */
static const struct filter_ops out_ops = {.ended = on_ended};

static void step_aside(struct filter_wasm *fw)
{
    struct filter *f = fw->f;

    f->ops = &out_ops;
    fw->state = FW_OUT;
    for (int dir = 0; dir < 2; dir++)
        if (f->side[dir].state != FILTER_FINISHED)
            f->side[dir].state = FILTER_BYPASSED;
}

static void end_context(struct filter_wasm *fw)
{
    ctx_end(fw->ctx); /* of a dead VM it only frees */
    fw->ctx = NULL;
    slot_leave(fw);
}

static void reply_with(struct filter_wasm *fw, enum end_reason why)
{
    struct reply reply = {
        .status = end_reason_status(why), .body = str_of(end_reason_body(why)), .grpc_status = -1, .reason = why};

    filter_reply(fw->f, &reply);
}

/* The guest is not to be had for this stream. */
static enum filter_result apply_strategy(struct filter_wasm *fw, enum fail_strategy strategy, enum end_reason why)
{
    bool open = strategy == FAIL_OPEN;

    step_aside(fw);
    if (fw->slot != NULL)
        metrics_add(open ? fw->slot->ids.bypassed : fw->slot->ids.failed, 1);
    if (!open) {
        reply_with(fw, why);
        return FILTER_ENDED;
    }
    filter_continue(fw->f, DIR_REQUEST);
    filter_continue(fw->f, DIR_RESPONSE);
    return FILTER_CONTINUE;
}

static enum filter_result guest_failed(struct filter_wasm *fw)
{
    if (fw->ctx != NULL)
        end_context(fw);
    return apply_strategy(fw, fw->slot->plugin->fail, END_PLUGIN_FAILED);
}

/* ---- entering ---- */

static bool enter(struct filter_wasm *fw, enum filter_result *result)
{
    enum end_reason why = END_PLUGIN_FAILED;

    fw->answered = false;
    if (fw->state == FW_INSIDE && !fw->vm->dead)
        return true;
    if (fw->state == FW_FRESH) {
        fw->vm = slot_enter(fw->slot, fw, &why);
        if (fw->vm == NULL) {
            *result = apply_strategy(fw, fw->slot->plugin->fail, why);
            return false;
        }
        fw->state = FW_INSIDE;
        fw->ctx = ctx_new(fw->vm->vm, fw);
        if (fw->ctx != NULL)
            return true;
        slot_leave(fw);
    }
    *result = guest_failed(fw);
    return false;
}

static enum filter_result leave(struct filter_wasm *fw, enum ctx_action action)
{
    static const enum filter_result results[] = {
        [CTX_CONTINUE] = FILTER_CONTINUE,   [CTX_PAUSE] = FILTER_STOP,
        [CTX_PAUSE_ALL] = FILTER_STOP_ALL,  [CTX_PAUSE_ALL_BUFFER] = FILTER_STOP_ALL_BUFFER,
        [CTX_BUFFER] = FILTER_BUFFER,       [CTX_WATERMARK] = FILTER_WATERMARK,
        [CTX_NO_BUFFER] = FILTER_NO_BUFFER,
    };

    if (action == CTX_FAILED)
        return guest_failed(fw);
    if (fw->answered && fw->f->stream->side[DIR_RESPONSE].msg == NULL)
        return FILTER_ENDED;
    if (fw->answered || ctx_replied(fw->ctx)) /* or it was about a reply of ours already, and changes nothing */
        return FILTER_CONTINUE;
    return results[action];
}

/* ---- callbacks ---- */

static enum filter_result on_request_headers(struct filter *f, struct headers *headers, bool end)
{
    struct filter_wasm *fw = f->self;
    enum filter_result result;

    if (!enter(fw, &result))
        return result;
    return leave(fw, ctx_request_headers(fw->ctx, headers->count, end));
}

static enum filter_result on_request_body(struct filter *f, struct buf *data, bool end)
{
    struct filter_wasm *fw = f->self;
    enum filter_result result;

    if (!enter(fw, &result))
        return result;
    return leave(fw, ctx_request_body(fw->ctx, data->n, end));
}

static enum filter_result on_request_trailers(struct filter *f, struct headers *trailers)
{
    struct filter_wasm *fw = f->self;
    enum filter_result result;

    if (!enter(fw, &result))
        return result;
    return leave(fw, ctx_request_trailers(fw->ctx, trailers->count));
}

static enum filter_result on_response_headers(struct filter *f, struct headers *headers, bool end)
{
    struct filter_wasm *fw = f->self;
    enum filter_result result;

    if (!enter(fw, &result))
        return result;
    return leave(fw, ctx_response_headers(fw->ctx, headers->count, end));
}

static enum filter_result on_response_body(struct filter *f, struct buf *data, bool end)
{
    struct filter_wasm *fw = f->self;
    enum filter_result result;

    if (!enter(fw, &result))
        return result;
    return leave(fw, ctx_response_body(fw->ctx, data->n, end));
}

static enum filter_result on_response_trailers(struct filter *f, struct headers *trailers)
{
    struct filter_wasm *fw = f->self;
    enum filter_result result;

    if (!enter(fw, &result))
        return result;
    return leave(fw, ctx_response_trailers(fw->ctx, trailers->count));
}

/* Once for each worker and generation: from the next stream on its heads go out without a length. */
static void on_broke_length(struct filter *f, enum direction dir)
{
    struct plugin_slot *slot = ((struct filter_wasm *)f->self)->slot;

    if (slot == NULL || slot->ops.breaks_length[dir])
        return;
    slot->ops.breaks_length[dir] = true;
    log_line(LOG_WARN,
             "wasm %s: changed the length of a %s body whose content-length was sent: the stream breaks; a filter that "
             "does so must remove content-length in its headers callback",
             slot->plugin->name, dir == DIR_REQUEST ? "request" : "response");
}

void filter_wasm_ops(struct filter_ops *ops, const bool has[CB_COUNT])
{
    const bool breaks[2] = {ops->breaks_length[DIR_REQUEST], ops->breaks_length[DIR_RESPONSE]};

    *ops = (struct filter_ops){
        .breaks_length = {breaks[DIR_REQUEST], breaks[DIR_RESPONSE]},
        .request_headers = has[CB_REQUEST_HEADERS] ? on_request_headers : NULL,
        .request_body = has[CB_REQUEST_BODY] ? on_request_body : NULL,
        .request_trailers = has[CB_REQUEST_TRAILERS] ? on_request_trailers : NULL,
        .response_headers = has[CB_RESPONSE_HEADERS] ? on_response_headers : NULL,
        .response_body = has[CB_RESPONSE_BODY] ? on_response_body : NULL,
        .response_trailers = has[CB_RESPONSE_TRAILERS] ? on_response_trailers : NULL,
        .ended = on_ended,
        .broke_length = on_broke_length,
    };
}

/* ---- the end ---- */

/* Envoy makes a context for on_log alone when the request never came to the filter. */
static void log_only(struct filter_wasm *fw)
{
    enum end_reason why;

    if (fw->slot->state != SLOT_LIVE || !fw->slot->knows_callbacks || !fw->slot->has[CB_LOG])
        return;
    fw->vm = slot_enter(fw->slot, fw, &why);
    if (fw->vm == NULL)
        return;
    fw->ctx = ctx_new(fw->vm->vm, fw);
    if (fw->ctx == NULL)
        slot_leave(fw);
}

static void on_ended(struct filter *f)
{
    struct filter_wasm *fw = f->self;
    struct plugin_slot *slot = fw->slot;

    fw->ending = true;
    if (slot == NULL)
        return;
    if (fw->state == FW_FRESH)
        log_only(fw);
    if (fw->ctx != NULL)
        end_context(fw);
    fw->state = FW_OUT;
    f->ops = &out_ops;
    fw->slot = NULL;
    plugin_slot_unref(slot);
}

/* ---- from outside the stream's driver ---- */

static bool direction_needs_guest(const struct filter_wasm *fw, enum direction dir)
{
    const bool *has = fw->slot->has;
    bool headers = has[dir == DIR_REQUEST ? CB_REQUEST_HEADERS : CB_RESPONSE_HEADERS];
    bool rest = has[dir == DIR_REQUEST ? CB_REQUEST_BODY : CB_RESPONSE_BODY] ||
                has[dir == DIR_REQUEST ? CB_REQUEST_TRAILERS : CB_RESPONSE_TRAILERS];

    switch (fw->f->side[dir].state) {
    case FILTER_FRESH: return headers || rest;
    case FILTER_OPEN: return rest;
    case FILTER_FINISHED:
    case FILTER_BYPASSED: return false;
    default: return true;
    }
}

/* A stream of which the guest has seen all that it wants to see (a long download behind a filter of request headers)
 * only loses its on_log. */
void filter_wasm_settle(struct filter_wasm *fw)
{
    bool needs_guest = direction_needs_guest(fw, DIR_REQUEST) || direction_needs_guest(fw, DIR_RESPONSE);

    end_context(fw);
    if (needs_guest)
        apply_strategy(fw, fw->slot->plugin->fail, END_PLUGIN_FAILED);
    else
        step_aside(fw);
}

/* ---- making ---- */

static enum filter_result refuse(struct filter *f, struct headers *headers, bool end)
{
    struct filter_wasm *fw = f->self;
    enum end_reason why;

    if (fw->slot == NULL)
        return apply_strategy(fw, FAIL_CLOSE, fw->why);
    if (slot_is_usable(fw->slot, &why)) { /* it has come meanwhile */
        f->ops = &fw->slot->ops;
        return f->ops->request_headers != NULL ? f->ops->request_headers(f, headers, end) : FILTER_CONTINUE;
    }
    return apply_strategy(fw, fw->slot->plugin->fail, why);
}

static const struct filter_ops refuse_ops = {.request_headers = refuse, .ended = on_ended};

/* As in Istio: 403 for what never arrived, 503 for what did not start. */
static enum end_reason absence_reason(enum plugin_absence absence)
{
    return absence == PLUGIN_BAD_MODULE || absence == PLUGIN_START_FAILED ? END_PLUGIN_FAILED : END_PLUGIN_ABSENT;
}

static bool is_open(const struct chain_place *place)
{
    return (place->slot != NULL ? place->slot->plugin->fail : place->entry->fail) == FAIL_OPEN;
}

void filter_wasm_init(struct filter *f, const struct chain_place *place)
{
    struct filter_wasm *fw = arena_zalloc(&f->stream->arena, sizeof *fw);
    enum end_reason why = END_PLUGIN_ABSENT;
    bool usable = place->slot != NULL && slot_is_usable(place->slot, &why);

    f->self = fw;
    fw->f = f;
    fw->slot = place->slot;
    fw->why = place->slot != NULL ? why : absence_reason(place->entry->absence);
    list_init(&fw->node);
    if (fw->slot != NULL)
        fw->slot->refs++;
    if (usable) {
        f->ops = &fw->slot->ops;
    } else if (is_open(place)) {
        step_aside(fw);
        if (fw->slot != NULL)
            metrics_add(fw->slot->ids.bypassed, 1);
    } else {
        f->ops = &refuse_ops;
    }
}
