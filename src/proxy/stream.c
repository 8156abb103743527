/* SPDX-License-Identifier: Apache-2.0
 *
 * The life of a stream: how it begins, the events of its two legs, the one driver, its deadlines, its end. What makes
 * it hard is that anything may happen in any order: an answer before the question is over, a client that leaves while a
 * filter waits, a reply from inside a callback. So events only record and run the driver, the driver never runs inside
 * itself, and a stream is freed by a task of its own at the end of the turn, never while something of it is on the
 * stack.
 */
#include "proxy/stream_private.h"

#include "base/budget.h"
#include "base/log.h"
#include "proxy/plugin_slot.h"

static void on_kick(struct loop_task *task);
static void on_finish(struct loop_task *task);

/* ---- beginning ---- */

struct stream_block {
    struct stream stream;
    struct stream_private priv;
};

static void arm(struct stream *s, uint64_t after_ms)
{
    if (s->down != NULL && after_ms > 0)
        down_arm(s->down, loop_now(&s->worker->loop) + after_ms);
}

static void know_peer(struct stream *s)
{
    s->peer = *down_peer(s->down);
    s->local = *down_local(s->down);
    s->remote = s->peer;
    s->conn_id = down_id(s->down);
    s->down_wire = (struct wire_bytes){.received = 0 - down_bytes_in(s->down), .sent = 0 - down_bytes_out(s->down)};
}

static void arm_first(struct stream *s)
{
    const struct limits *l = stream_limits(s);

    arm(s, l->head_timeout);
    arm(s, l->request_timeout);
    arm(s, l->stream_idle_timeout);
}

struct stream *stream_new(struct worker *w, struct down *down, struct listener_runtime *listener)
{
    enum budget_level level = budget_level();
    struct arena arena;

    if (level == BUDGET_OVER)
        return NULL;
    arena_init(&arena, w->pool, listener->conf->limits.arena_bytes);
    struct stream_block *block = arena_zalloc(&arena, sizeof *block);
    struct stream *s = &block->stream;
    struct stream_private *p = s->priv = &block->priv;

    s->arena = arena; /* it points to nothing in itself */
    s->worker = w;
    s->runtime = runtime_ref(w->runtime);
    s->listener = listener;
    s->down = down;
    s->id = ++w->next_stream_id;
    s->start_ns = worker_mono_ns();
    s->start_wall_ns = worker_wall_ns(w);
    p->start_ms = p->active_ms = loop_now(&w->loop);
    p->shed = level == BUDGET_NEAR;
    buf_init(&p->flow[DIR_REQUEST].out, w->pool);
    buf_init(&p->flow[DIR_RESPONSE].out, w->pool);
    buf_init(&p->reply_body, w->pool);
    loop_task_init(&p->kick, on_kick);
    loop_task_init(&p->finish, on_finish);
    list_push_back(&w->streams, &s->node);
    w->stream_count++;
    if (down != NULL) {
        know_peer(s);
        arm_first(s);
    }
    return s;
}

/* ---- the driver ---- */

static void on_kick(struct loop_task *task)
{
    struct stream_private *p = CONTAINER_OF(task, struct stream_private, kick);

    stream_drive(&CONTAINER_OF(p, struct stream_block, priv)->stream);
}

void stream_kick(struct stream *s)
{
    if (!s->priv->running && !s->priv->finished)
        loop_defer(&s->worker->loop, &s->priv->kick);
}

static void stream_finish(struct stream *s);

/* Near the memory budget a stream gets no more than streams need to get on; over it, nothing to add to what it holds.
 * Streams that began while there was memory would else grow far beyond it. */
static uint64_t buffer_limit(const struct stream *s)
{
    uint64_t limit = stream_limits(s)->buffer_bytes;

    switch (budget_level()) {
    case BUDGET_FINE: return limit;
    case BUDGET_NEAR: return limit < BUFFER_BYTES_NEAR ? limit : BUFFER_BYTES_NEAR;
    case BUDGET_OVER: break;
    }
    return 2; /* half of it is where reading goes on: at nothing */
}

/* Reading of the source follows what is held for the sink. */
static void settle_reading(struct stream *s, enum direction dir)
{
    struct flow *fl = &s->priv->flow[dir];
    struct leg *source = dir == DIR_REQUEST ? s->down_leg : s->up_leg;
    struct leg *sink = dir == DIR_REQUEST ? s->up_leg : s->down_leg;

    if (source == NULL || fl->end_in)
        return;
    uint64_t limit = buffer_limit(s);
    size_t held = fl->out.n + (s->filter_count > 0 ? chain_held(s, dir) : 0);
    bool sink_full = fl->head_sent && sink != NULL && sink->codec->is_full(sink);
    bool off = !fl->discard && (sink_full || held >= (fl->read_off ? limit / 2 : limit));

    if (off == fl->read_off)
        return;
    fl->read_off = off;
    source->codec->read_enable(source, !off);
}

static void settle_pause(struct stream *s, enum direction dir)
{
    struct flow *fl = &s->priv->flow[dir];
    const struct filter *f = dir == DIR_REQUEST && s->priv->replied ? NULL : chain_waits_for(s, dir);

    if (f == NULL) {
        fl->paused_since = 0;
    } else if (fl->paused_since == 0) {
        fl->paused_since = loop_now(&s->worker->loop) | 1;
        uint64_t at = stream_deadline(s, &(enum end_reason){END_NONE});
        if (s->down != NULL)
            down_arm(s->down, at);
    }
}

/* The client waits for a go-ahead before it sends the body: once the body is wanted it gets ours. */
static void settle_continue(struct stream *s)
{
    struct stream_private *p = s->priv;
    struct flow *fl = &p->flow[DIR_REQUEST];
    struct message *msg = s->side[DIR_REQUEST].msg;

    if (msg == NULL || !msg->expect_continue || p->continued || fl->end_in || p->replied || s->down_leg == NULL)
        return;
    if (p->request < REQUEST_BODY && !chain_wants_body(s, DIR_REQUEST))
        return;
    p->continued = true;
    if (s->side[DIR_REQUEST].body_bytes > 0 || p->flow[DIR_RESPONSE].head_sent)
        return;
    struct message go = {.status = 100, .version = 11};
    headers_init(&go.headers, &s->arena, 0, 0);
    s->down_leg->codec->send_interim(s->down_leg, &go);
}

static void settle(struct stream *s)
{
    settle_continue(s);
    settle_reading(s, DIR_REQUEST);
    settle_reading(s, DIR_RESPONSE);
    if (s->filter_count > 0) {
        settle_pause(s, DIR_REQUEST);
        settle_pause(s, DIR_RESPONSE);
    }
}

void stream_drive(struct stream *s)
{
    struct stream_private *p = s->priv;

    if (p->running || p->finished)
        return;
    p->running = true;
    do {
        if (p->reply_wanted && !p->ended)
            reply_begin(s);
        if (p->resume)
            chain_resume(s);
        if (!p->ended)
            request_run(s);
        if (!p->ended)
            response_run(s);
    } while (!p->ended && (p->reply_wanted || p->resume));
    p->running = false;
    if (p->ended)
        stream_finish(s);
    else
        settle(s);
}

/* ---- the end ---- */

void stream_end(struct stream *s, enum end_reason reason)
{
    if (s->priv->ended || s->priv->finished)
        return;
    s->priv->ended = true;
    s->priv->reply_wanted = false;
    if (s->reason == END_NONE || reason != END_VIA_UPSTREAM)
        s->reason = reason;
}

void stream_budget_eased(struct stream *s)
{
    if (s->priv->flow[DIR_REQUEST].read_off || s->priv->flow[DIR_RESPONSE].read_off)
        stream_kick(s);
}

void stream_abort(struct stream *s, enum end_reason reason)
{
    stream_end(s, reason);
    stream_drive(s);
}

/* What passed on a connection since the stream has it. */
static void take_up_wire(struct stream *s)
{
    if (s->up == NULL || s->up_leg == NULL)
        return;
    s->up_wire.received += pool_leg_bytes_in(s->up_leg);
    s->up_wire.sent += pool_leg_bytes_out(s->up_leg);
}

static void take_down_wire(struct stream *s)
{
    if (s->down == NULL)
        return;
    s->down_wire.received += down_bytes_in(s->down);
    s->down_wire.sent += down_bytes_out(s->down);
}

void stream_drop_up(struct stream *s, bool abort)
{
    struct stream_private *p = s->priv;

    if (p->connecting) {
        p->connecting = false;
        pool_cancel(&p->up_request);
    }
    if (s->up_leg != NULL) {
        struct leg *leg = s->up_leg;
        take_up_wire(s);
        s->up_leg = NULL;
        s->up = NULL;
        leg->codec->detach(leg, abort);
    }
    if (p->counted) {
        p->counted = false;
        s->endpoint->active--;
    }
}

static void drop_down(struct stream *s, bool abort)
{
    struct leg *leg = s->down_leg;
    struct down *d = s->down;

    take_down_wire(s);
    s->down_leg = NULL;
    s->down = NULL;
    if (d != NULL)
        down_forget_stream(d);
    if (leg != NULL)
        leg->codec->detach(leg, abort);
}

/* The legs go now; callbacks, log and memory at the end of the turn, when what the client waits for has been flushed.
 */
static void stream_finish(struct stream *s)
{
    struct stream_private *p = s->priv;

    p->finished = true;
    s->end_ns = worker_mono_ns();
    bool whole = s->side[DIR_RESPONSE].ended && (!p->tunnel || s->side[DIR_REQUEST].ended);
    stream_drop_up(s, !whole || !s->side[DIR_REQUEST].ended);
    drop_down(s, !whole);
    loop_task_cancel(&p->kick);
    loop_defer(&s->worker->loop, &p->finish);
}

static uint64_t us_between(uint64_t from_ns, uint64_t to_ns)
{
    return from_ns == 0 || to_ns < from_ns ? 0 : (to_ns - from_ns) / 1000;
}

static void count(const struct stream *s)
{
    const struct stats *st = &s->worker->stats;
    unsigned class = s->status >= 100 && s->status < 600 ? s->status / 100u : 0;

    metrics_add(st->requests[class], 1);
    metrics_add(st->ended[s->reason], 1);
    metrics_observe(st->request_us, us_between(s->start_ns, s->end_ns));
    if (s->up_head_ns != 0)
        metrics_observe(st->up_us, us_between(s->up_start_ns, s->up_head_ns));
    if (s->priv->shed)
        metrics_add(st->shed, 1);
}

static void write_log(struct stream *s)
{
    struct strbuf *line = &s->worker->line;

    if (s->listener == NULL || s->listener->log == NULL)
        return;
    strbuf_clear(line);
    access_log_write(s->listener->log, s, line);
    log_access(strbuf_str(line));
}

/* On the stack, where there is no memory for a stream: what the connection knows is enough for log and metrics. */
void stream_refused(struct worker *w, struct down *down, struct listener_runtime *listener, enum end_reason reason,
                    size_t body_bytes)
{
    struct stream_block block = {.stream = {.worker = w, .listener = listener, .down = down, .reason = reason}};
    struct stream *s = &block.stream;

    s->priv = &block.priv;
    s->status = (uint16_t)end_reason_status(reason);
    s->side[DIR_RESPONSE].body_bytes_out = body_bytes;
    s->start_ns = s->end_ns = worker_mono_ns();
    s->start_wall_ns = worker_wall_ns(w);
    s->priv->shed = reason == END_OVERLOAD;
    know_peer(s);
    s->down_wire = (struct wire_bytes){0};
    write_log(s);
    count(s);
}

static void on_finish(struct loop_task *task)
{
    struct stream_private *p = CONTAINER_OF(task, struct stream_private, finish);
    struct stream *s = &CONTAINER_OF(p, struct stream_block, priv)->stream;
    struct worker *w = s->worker;

    for (size_t i = 0; i < s->filter_count; i++)
        if (s->filters[i].ops->ended != NULL)
            s->filters[i].ops->ended(&s->filters[i]);
    write_log(s);
    count(s);
    list_remove(&s->node);
    w->stream_count--;
    chain_free(s);
    buf_fini(&p->flow[DIR_REQUEST].out);
    buf_fini(&p->flow[DIR_RESPONSE].out);
    buf_fini(&p->reply_body);
    request_forget_body(s);
    if (s->endpoint != NULL)
        endpoint_unref(s->endpoint);
    if (s->cluster != NULL)
        cluster_unref(s->cluster);
    runtime_unref(s->runtime);
    struct arena arena = s->arena;
    arena_fini(&arena);
    worker_check_drained(w);
}

/* ---- between chain and sink ---- */

/* May a filter still change how many bytes there are? Its body callbacks run behind the head. */
static bool may_resize(const struct stream *s, enum direction dir)
{
    for (size_t i = 0; i < s->filter_count; i++) {
        const struct filter *f = &s->filters[i];
        enum filter_state state = f->side[dir].state;
        bool sees = (dir == DIR_REQUEST ? f->ops->request_body : f->ops->response_body) != NULL;
        if (sees && state != FILTER_FINISHED && state != FILTER_BYPASSED)
            return true;
    }
    return false;
}

/* Filters in Rust and Go export every callback: that one may change the body says nothing. */
static bool is_known_to_resize(const struct stream *s, enum direction dir)
{
    for (size_t i = 0; i < s->filter_count; i++)
        if (s->filters[i].ops->breaks_length[dir])
            return true;
    return false;
}

/* The length that the peer declared still holds when nobody has changed the body; who means to change it later has to
 * remove the header, as in Envoy. What a guest wrote into content-length never counts. */
static bool keeps_length(const struct stream *s, enum direction dir)
{
    return !s->priv->flow[dir].resized && !is_known_to_resize(s, dir) &&
           headers_count_id(&s->side[dir].msg->headers, HDR_CONTENT_LENGTH) == 1;
}

bool flow_waits(const struct stream *s, enum direction dir)
{
    const struct flow *fl = &s->priv->flow[dir];
    const struct message *msg = s->side[dir].msg;

    return s->filter_count > 0 && msg->body == BODY_LENGTH && !fl->head_end && !msg->expect_continue &&
           fl->out.n == 0 && !fl->out_end && !fl->has_trailers && may_resize(s, dir) &&
           headers_count_id(&msg->headers, HDR_CONTENT_LENGTH) == 1;
}

void flow_frame(struct stream *s, enum direction dir)
{
    struct flow *fl = &s->priv->flow[dir];
    struct message *msg = s->side[dir].msg;

    if (msg->body == BODY_TUNNEL || fl->head_end || (dir == DIR_REQUEST && msg->upgrade))
        return;
    if (msg->body == BODY_CLOSE)
        msg->body = BODY_CHUNKED;
    if (s->filter_count == 0)
        return;
    if (fl->out_end && !fl->has_trailers) {
        msg->body = BODY_LENGTH;
        msg->content_length = fl->out.n;
    } else if (fl->has_trailers || (msg->body == BODY_LENGTH && !keeps_length(s, dir))) {
        msg->body = BODY_CHUNKED;
    }
}

bool flow_send(struct stream *s, enum direction dir, struct leg *leg)
{
    struct flow *fl = &s->priv->flow[dir];
    struct stream_side *side = &s->side[dir];

    if (side->ended)
        return true;
    if (fl->head_end) {
        side->ended = true;
        return true;
    }
    bool end = fl->out_end && !fl->has_trailers;
    if (fl->out.n > 0 || end) {
        side->body_bytes_out += fl->out.n;
        if (dir == DIR_REQUEST)
            request_keep_body(s, &fl->out);
        leg->codec->send_body(leg, &fl->out, end);
    }
    if (fl->out_trailers) {
        leg->codec->send_trailers(leg, side->trailers);
        end = true;
    }
    side->ended = end;
    return end;
}

/* ---- events of the down leg ---- */

static void note_end(struct stream *s, enum direction dir)
{
    struct stream_private *p = s->priv;

    p->flow[dir].end_in = true;
    if (dir == DIR_RESPONSE)
        return;
    p->request_end_ms = loop_now(&s->worker->loop);
    s->request_end_ns = s->side[DIR_REQUEST].body_bytes > 0 ? worker_mono_ns() : s->start_ns;
    if (s->priv->up_start_ms != 0)
        arm(s, stream_limits(s)->response_timeout);
}

void stream_touch(struct stream *s) { s->priv->active_ms = loop_now(&s->worker->loop); }

static void down_on_head(void *stream, struct message *msg, bool end)
{
    struct stream *s = stream;
    struct stream_private *p = s->priv;

    stream_touch(s);
    p->running = true;
    s->side[DIR_REQUEST].msg = msg;
    p->flow[DIR_REQUEST].head_end = end;
    if (end)
        note_end(s, DIR_REQUEST);
    request_head(s);
    if (!stream_is_stopped(s))
        chain_head(s, DIR_REQUEST);
    p->running = false;
    stream_drive(s);
}

static void take_body(struct stream *s, enum direction dir, struct buf *data, bool end)
{
    struct stream_private *p = s->priv;
    struct flow *fl = &p->flow[dir];

    stream_touch(s);
    s->side[dir].body_bytes += data->n;
    if (end)
        note_end(s, dir);
    if (fl->discard || stream_is_stopped(s))
        return;
    p->running = true;
    chain_data(s, dir, 0, data, end);
    p->running = false;
}

static void take_trailers(struct stream *s, enum direction dir, struct headers *trailers)
{
    struct stream_private *p = s->priv;
    struct flow *fl = &p->flow[dir];

    stream_touch(s);
    note_end(s, dir);
    if (fl->discard || stream_is_stopped(s))
        return;
    p->running = true;
    trailers->max_bytes = stream_limits(s)->head_bytes;
    s->side[dir].trailers = trailers;
    chain_trailers(s, dir);
    p->running = false;
}

static void down_on_body(void *stream, struct buf *data, bool end)
{
    take_body(stream, DIR_REQUEST, data, end);
    stream_drive(stream);
}

static void down_on_trailers(void *stream, struct headers *trailers)
{
    take_trailers(stream, DIR_REQUEST, trailers);
    stream_drive(stream);
}

static enum end_reason reason_of_down(const struct stream *s, enum leg_error why)
{
    switch (why) {
    case LEG_CLOSED: return END_CLIENT_GONE;
    case LEG_TIMEOUT: return END_IDLE_TIMEOUT;
    case LEG_HEAD_TOO_LARGE: return END_HEAD_TOO_LARGE;
    case LEG_URI_TOO_LONG: return END_URI_TOO_LONG;
    case LEG_BODY_TOO_LARGE: return END_BODY_TOO_LARGE;
    case LEG_UNSUPPORTED: return END_UNSUPPORTED;
    default: return s->priv->flow[DIR_RESPONSE].head_sent ? END_GUEST_BAD_HEAD : END_BAD_REQUEST;
    }
}

/* The codec answers by itself where it still can: the log shows what it says. */
static void down_on_reset(void *stream, enum leg_error why)
{
    struct stream *s = stream;
    enum end_reason reason = reason_of_down(s, why);

    s->down_leg = NULL;
    if (s->status == 0 && reason != END_CLIENT_GONE)
        s->status = (uint16_t)end_reason_status(reason);
    stream_abort(s, reason);
}

static void on_drain(void *stream)
{
    stream_touch(stream);
    stream_drive(stream);
}

const struct leg_ops stream_down_ops = {.on_head = down_on_head,
                                        .on_body = down_on_body,
                                        .on_trailers = down_on_trailers,
                                        .on_reset = down_on_reset,
                                        .on_drain = on_drain};

static enum end_reason reason_of_status(enum leg_error error, unsigned status)
{
    switch (status) {
    case 413: return END_BODY_TOO_LARGE;
    case 414: return END_URI_TOO_LONG;
    case 431: return END_HEAD_TOO_LARGE;
    case 501: return error == LEG_UNSUPPORTED ? END_CONNECT_REFUSED : END_UNSUPPORTED;
    case 505: return END_VERSION;
    default: return END_BAD_REQUEST;
    }
}

void stream_bad_request(struct stream *s, enum leg_error error, unsigned status)
{
    reply_reason(s, reason_of_status(error, status));
    stream_drive(s);
}

/* ---- events of the up leg ---- */

/* The endpoint has said all: its connection may serve others while our client still reads. */
static void up_complete(struct stream *s)
{
    struct stream_private *p = s->priv;

    if (p->tunnel || s->up_leg == NULL)
        return;
    p->flow[DIR_REQUEST].discard = true;
    stream_drop_up(s, !s->side[DIR_REQUEST].ended);
}

static void up_on_head(void *stream, struct message *msg, bool end)
{
    struct stream *s = stream;
    struct stream_private *p = s->priv;

    stream_touch(s);
    p->running = true;
    request_forget_body(s);
    s->up_head_ns = worker_mono_ns();
    s->side[DIR_RESPONSE].msg = msg;
    p->flow[DIR_RESPONSE].head_end = end;
    p->tunnel = msg->body == BODY_TUNNEL;
    if (s->side[DIR_REQUEST].msg->upgrade && !p->tunnel) { /* refused: the request ended with its head */
        p->flow[DIR_REQUEST].discard = true;
        s->side[DIR_REQUEST].ended = true;
    }
    if (end)
        note_end(s, DIR_RESPONSE);
    response_edit(s);
    if (!stream_is_stopped(s))
        chain_head(s, DIR_RESPONSE);
    p->running = false;
    if (end)
        up_complete(s);
    stream_drive(s);
}

static void up_on_interim(void *stream, struct message *msg)
{
    struct stream *s = stream;

    stream_touch(s);
    if (msg->status == 100 || s->down_leg == NULL || s->priv->replied || s->priv->flow[DIR_RESPONSE].head_sent)
        return; /* 100 is ours to say: Expect was not passed on */
    s->down_leg->codec->send_interim(s->down_leg, msg);
}

static void up_on_body(void *stream, struct buf *data, bool end)
{
    struct stream *s = stream;

    take_body(s, DIR_RESPONSE, data, end);
    if (end)
        up_complete(s);
    stream_drive(s);
}

static void up_on_trailers(void *stream, struct headers *trailers)
{
    struct stream *s = stream;

    take_trailers(s, DIR_RESPONSE, trailers);
    up_complete(s);
    stream_drive(s);
}

static void up_on_reset(void *stream, enum leg_error why)
{
    struct stream *s = stream;
    struct stream_private *p = s->priv;

    bool answered = s->side[DIR_RESPONSE].msg != NULL || (s->up_leg != NULL && pool_leg_has_answered(s->up_leg));

    take_up_wire(s);
    s->up_leg = NULL;
    stream_drop_up(s, true);
    if (p->ended || p->replied)
        return;
    if (p->tunnel)
        stream_end(s, END_TUNNEL);
    else if (s->side[DIR_RESPONSE].msg != NULL)
        reply_reason(s, why != LEG_CLOSED                 ? END_UPSTREAM_BAD
                        : p->flow[DIR_RESPONSE].head_sent ? END_UPSTREAM_RESET_BODY
                                                          : END_UPSTREAM_RESET);
    else
        request_failed(s, why == LEG_CLOSED ? END_UPSTREAM_RESET : END_UPSTREAM_BAD, !answered && p->up_reused);
    stream_drive(s);
}

const struct leg_ops stream_up_ops = {.on_head = up_on_head,
                                      .on_interim = up_on_interim,
                                      .on_body = up_on_body,
                                      .on_trailers = up_on_trailers,
                                      .on_reset = up_on_reset,
                                      .on_drain = on_drain};

/* ---- deadlines ---- */

struct deadline {
    uint64_t at;
    enum end_reason why;
};

/* Nothing more of the request is waited for. One that asks for an upgrade is complete with its head. */
static bool request_is_in(const struct stream *s)
{
    const struct message *msg = s->side[DIR_REQUEST].msg;

    return s->priv->flow[DIR_REQUEST].end_in || (msg != NULL && msg->upgrade);
}

static void sooner(struct deadline *d, uint64_t from, uint64_t after, enum end_reason why)
{
    if (after > 0 && from + after < d->at)
        *d = (struct deadline){from + after, why};
}

static void deadline_response(const struct stream *s, struct deadline *d)
{
    const struct stream_private *p = s->priv;
    const struct route_rule *rule = s->route.route != NULL ? s->route.route->rule : NULL;
    bool ruled = false;

    if (p->tunnel || p->replied || p->flow[DIR_RESPONSE].end_in)
        return;
    if (rule != NULL && rule->request_timeout_ms >= 0) {
        sooner(d, p->start_ms, (uint64_t)rule->request_timeout_ms, END_RESPONSE_TIMEOUT);
        ruled = true;
    }
    if (rule != NULL && rule->backend_timeout_ms >= 0) {
        if (p->up_start_ms != 0)
            sooner(d, p->up_start_ms, (uint64_t)rule->backend_timeout_ms, END_RESPONSE_TIMEOUT);
        ruled = true;
    }
    if (!ruled && request_is_in(s) && p->up_start_ms != 0 && s->side[DIR_RESPONSE].msg == NULL) {
        uint64_t from = p->request_end_ms > p->up_start_ms ? p->request_end_ms : p->up_start_ms;
        sooner(d, from, stream_limits(s)->response_timeout, END_RESPONSE_TIMEOUT);
    }
}

static void deadline_pause(const struct stream *s, enum direction dir, struct deadline *d)
{
    uint64_t since = s->priv->flow[dir].paused_since;
    uint64_t after = stream_limits(s)->pause_timeout;
    const struct filter *f = since != 0 ? chain_waits_for(s, dir) : NULL;

    if (f == NULL)
        return;
    if (f->index < s->listener->chain_count) {
        const struct chain_entry *e = s->listener->chain[f->index].entry;
        if (e != NULL && e->plugin != NULL && e->plugin->limits.pause_limit_ms > 0)
            after = e->plugin->limits.pause_limit_ms;
    }
    sooner(d, since, after, END_PAUSE_TIMEOUT);
}

uint64_t stream_deadline(const struct stream *s, enum end_reason *why)
{
    const struct stream_private *p = s->priv;
    const struct limits *l = stream_limits(s);
    struct deadline d = {UINT64_MAX, END_NONE};
    bool paused = p->flow[DIR_REQUEST].paused_since != 0 || p->flow[DIR_RESPONSE].paused_since != 0;

    if (s->side[DIR_REQUEST].msg == NULL)
        sooner(&d, p->start_ms, l->head_timeout, END_HEAD_TIMEOUT);
    if (!request_is_in(s))
        sooner(&d, p->start_ms, l->request_timeout, END_REQUEST_TIMEOUT);
    if (!paused)
        sooner(&d, p->active_ms, l->stream_idle_timeout, END_IDLE_TIMEOUT);
    deadline_response(s, &d);
    deadline_pause(s, DIR_REQUEST, &d);
    deadline_pause(s, DIR_RESPONSE, &d);
    *why = d.why;
    return d.at;
}

void stream_expire(struct stream *s, enum end_reason why)
{
    /* A reply that itself does not get on is cut. */
    if (s->priv->tunnel || (s->priv->replied && why != END_PAUSE_TIMEOUT))
        stream_end(s, why);
    else if (why == END_IDLE_TIMEOUT && request_is_in(s)) /* it is not the client that was waited for */
        reply_status(s, why, 504);
    else
        reply_reason(s, why);
    stream_drive(s);
}

/* ---- filter state ---- */

struct str stream_property_get(const struct stream *s, struct str key, bool *found)
{
    for (const struct stream_property *it = s->properties; it != NULL; it = it->next) {
        if (str_eq(it->key, key)) {
            *found = true;
            return it->value;
        }
    }
    *found = false;
    return STR_NONE;
}

/* The value is kept in memory of its own size; a longer one takes new arena memory, which is bounded. */
static bool property_store(struct stream *s, struct stream_property *it, struct str value)
{
    if (value.n > it->room) {
        size_t room = value.n < 32 ? 32 : value.n * 2;
        char *p = room <= UINT32_MAX ? arena_try_alloc(&s->arena, room) : NULL;
        if (p == NULL)
            return false;
        it->value.p = p;
        it->room = (uint32_t)room;
    }
    if (value.n > 0) {
        union {
            const char *c;
            char *m;
        } to = {it->value.p}; /* it is ours: the line above made it */
        memmove(to.m, value.p, value.n);
    }
    it->value.n = value.n;
    return true;
}

bool stream_property_set(struct stream *s, struct str key, struct str value)
{
    struct stream_property *it = s->properties;

    while (it != NULL && !str_eq(it->key, key))
        it = it->next;
    if (it != NULL)
        return property_store(s, it, value);
    it = arena_try_alloc(&s->arena, (sizeof *it + 15) & ~(size_t)15);
    if (it == NULL)
        return false;
    *it = (struct stream_property){0};
    if (!arena_try_str(&s->arena, key, &it->key) || !property_store(s, it, value))
        return false;
    it->next = s->properties;
    s->properties = it;
    return true;
}
