/* SPDX-License-Identifier: Apache-2.0
 *
 * The chain: brings heads, bodies and trailers from filter to filter as docs/abi.md section 1 says. What makes it hard:
 * a filter may hold the head while it still wants the body, may hold the body while trailers pass it, may let go of
 * everything from any callback or from outside, and may end the stream in each of them. So every callback is followed
 * by a look at stream_is_stopped, and state changes only here. It never waits, never sends and never frees a filter.
 */
#include "base/budget.h"
#include "proxy/stream_private.h"

static struct buf *held_of(struct stream *s, struct filter_side *side)
{
    if (side->held == NULL) {
        side->held = arena_alloc(&s->arena, sizeof *side->held);
        buf_init(side->held, s->arena.pool);
    }
    return side->held;
}

/* May a filter that wants the whole body get `more` of it? Else the stream is answered. Beyond the memory budget the
 * answer is 503: what is held already is kept, but bodies must not grow until memory cannot be had. */
static bool may_hold(struct stream *s, enum direction dir, const struct filter_side *side, size_t more)
{
    size_t n = (side->held != NULL ? side->held->n : 0) + more;

    if (!side->over_is_error)
        return true;
    if (n > stream_limits(s)->buffer_bytes)
        reply_reason(s, dir == DIR_REQUEST ? END_BODY_TOO_LARGE : END_RESPONSE_TOO_LARGE);
    else if (n > BUFFER_BYTES_NEAR && budget_level() == BUDGET_OVER)
        reply_reason(s, END_OVERLOAD);
    else
        return true;
    return false;
}

/* Keeps data at a filter that is not to be called. */
static void wait_at(struct stream *s, enum direction dir, struct filter_side *side, struct buf *data, bool end)
{
    if (!may_hold(s, dir, side, data->n))
        return;
    buf_move(held_of(s, side), data, data->n);
    side->end_held = side->end_held || end;
}

/* ---- the head ---- */

static enum filter_result call_head(struct filter *f, enum direction dir, bool end)
{
    struct headers *h = &f->stream->side[dir].msg->headers;

    return dir == DIR_REQUEST ? f->ops->request_headers(f, h, end) : f->ops->response_headers(f, h, end);
}

static bool has_head_callback(const struct filter *f, enum direction dir)
{
    return (dir == DIR_REQUEST ? f->ops->request_headers : f->ops->response_headers) != NULL;
}

static enum filter_state state_after_head(struct filter_side *side, enum filter_result r, bool end)
{
    switch (r) {
    case FILTER_CONTINUE: return end ? FILTER_FINISHED : FILTER_OPEN;
    case FILTER_STOP: return FILTER_HOLDS_HEADERS;
    case FILTER_STOP_ALL_BUFFER:
    case FILTER_BUFFER: side->over_is_error = true; return FILTER_HOLDS_ALL;
    default: return FILTER_HOLDS_ALL;
    }
}

/* From flow.head_at on. */
void chain_head(struct stream *s, enum direction dir)
{
    struct flow *fl = &s->priv->flow[dir];

    for (; fl->head_at < s->filter_count; fl->head_at++) {
        struct filter *f = chain_at(s, dir, fl->head_at);
        struct filter_side *side = &f->side[dir];

        if (side->state == FILTER_BYPASSED)
            continue;
        if (side->state == FILTER_FRESH && has_head_callback(f, dir)) {
            side->state = FILTER_IN_CALLBACK;
            enum filter_result r = call_head(f, dir, fl->head_end);
            if (stream_is_stopped(s))
                return;
            if (side->state == FILTER_IN_CALLBACK)
                side->state = state_after_head(side, r, fl->head_end);
        } else if (side->state == FILTER_FRESH) {
            side->state = fl->head_end ? FILTER_FINISHED : FILTER_OPEN;
        }
        if (side->state == FILTER_HOLDS_HEADERS || side->state == FILTER_HOLDS_ALL)
            return;
    }
    fl->head_passed = true;
    if (fl->head_end)
        fl->out_end = true;
}

/* The head that f holds goes on. */
static void release_head(struct stream *s, enum direction dir, uint32_t position)
{
    struct flow *fl = &s->priv->flow[dir];

    if (fl->head_at != position || fl->head_passed)
        return;
    fl->head_at = position + 1;
    chain_head(s, dir);
}

/* ---- the body ---- */

/* The head went out with a length that the body will not have. */
static void tell_length_broken(struct filter *f, enum direction dir)
{
    const struct stream *s = f->stream;

    if (f->ops->broke_length != NULL && s->priv->flow[dir].head_sent && s->side[dir].msg->body == BODY_LENGTH)
        f->ops->broke_length(f, dir);
}

static enum filter_result call_body(struct filter *f, enum direction dir, struct buf *data, bool end)
{
    struct flow *fl = &f->stream->priv->flow[dir];
    size_t before = data->n;

    fl->shown = data;
    fl->shown_to = f;
    fl->shown_end = end;
    enum filter_result r =
        dir == DIR_REQUEST ? f->ops->request_body(f, data, end) : f->ops->response_body(f, data, end);
    fl->shown = NULL;
    fl->shown_to = NULL;
    fl->resized = fl->resized || data->n != before;
    if (data->n != before || fl->trailers_made)
        tell_length_broken(f, dir);
    return r;
}

static bool has_body_callback(const struct filter *f, enum direction dir)
{
    return (dir == DIR_REQUEST ? f->ops->request_body : f->ops->response_body) != NULL;
}

/* The bytes of this callback alone are the filter's; as in Envoy, what was shown behind held ones counts as held. */
static void take_seen(struct filter *f, enum direction dir, struct buf *data)
{
    if (data->n == 0)
        return;
    f->stream->priv->flow[dir].resized = true;
    tell_length_broken(f, dir);
    buf_clear(data);
}

/* The filter keeps what its callback saw. */
static void hold_seen(struct stream *s, enum direction dir, struct filter *f, enum filter_state before,
                      enum filter_result r, struct buf *data, bool end)
{
    struct filter_side *side = &f->side[dir];
    struct flow *fl = &s->priv->flow[dir];

    side->state = before == FILTER_HOLDS_HEADERS ? FILTER_HOLDS_HEADERS : FILTER_HOLDS_BODY;
    side->end_held = end;
    side->shows_held = r == FILTER_BUFFER;
    if (r == FILTER_NO_BUFFER) {
        take_seen(f, dir, data);
        if (!end && before == FILTER_OPEN)
            side->state = FILTER_OPEN;
    } else {
        if (data->n > 0)
            buf_move(held_of(s, side), data, data->n);
        side->over_is_error = r == FILTER_BUFFER;
        (void)may_hold(s, dir, side, 0);
    }
    if (fl->trailers_made) { /* they wait here with what is held */
        fl->trailers_at = chain_position(f, dir);
        side->state = FILTER_HOLDS_TRAILERS;
        side->end_held = false;
    }
}

/* Shows data to the filter, behind what is held when it asked for that by FILTER_BUFFER. True: data (with everything
 * that was held) goes on. */
static bool pass_filter(struct stream *s, enum direction dir, struct filter *f, struct buf *data, bool *end)
{
    struct flow *fl = &s->priv->flow[dir];
    struct filter_side *side = &f->side[dir];
    enum filter_state before = side->state;
    size_t held_before = side->held != NULL ? side->held->n : 0;
    struct buf *show = data;

    if (held_before > 0 && side->shows_held) {
        if (!may_hold(s, dir, side, data->n))
            return false;
        buf_move(side->held, data, data->n);
        show = side->held;
    }
    side->state = FILTER_IN_CALLBACK;
    fl->trailers_made = false;
    enum filter_result r = call_body(f, dir, show, *end);
    if (stream_is_stopped(s))
        return false;
    if (fl->trailers_made)
        *end = false;
    if (side->state == FILTER_IN_CALLBACK && r != FILTER_CONTINUE) {
        hold_seen(s, dir, f, before, r, data, *end);
        return false;
    }
    if (held_before > 0) {
        if (show == data)
            buf_move(side->held, data, data->n);
        buf_move(data, side->held, side->held->n);
    }
    side->end_held = side->over_is_error = side->shows_held = false;
    if (side->state == FILTER_IN_CALLBACK) /* else it has bypassed itself */
        side->state = *end ? FILTER_FINISHED : FILTER_OPEN;
    release_head(s, dir, chain_position(f, dir));
    return !stream_is_stopped(s);
}

static void sink_data(struct stream *s, enum direction dir, struct buf *data, bool end)
{
    struct flow *fl = &s->priv->flow[dir];
    struct leg *leg = dir == DIR_REQUEST ? s->up_leg : s->down_leg;

    if (end)
        fl->out_end = true;
    if (!fl->head_sent || leg == NULL || fl->out.n > 0 || fl->has_trailers) {
        buf_move(&fl->out, data, data->n); /* the step table sends it */
        return;
    }
    if (data->n == 0 && !end)
        return;
    s->side[dir].body_bytes_out += data->n;
    s->side[dir].ended = end;
    if (dir == DIR_REQUEST)
        request_keep_body(s, data);
    leg->codec->send_body(leg, data, end);
}

void chain_data(struct stream *s, enum direction dir, uint32_t position, struct buf *data, bool end)
{
    struct flow *fl = &s->priv->flow[dir];
    bool made = false;

    for (; position < s->filter_count; position++) {
        struct filter *f = chain_at(s, dir, position);
        struct filter_side *side = &f->side[dir];

        if (side->state == FILTER_BYPASSED || side->state == FILTER_FINISHED)
            continue;
        if (side->state == FILTER_HOLDS_ALL || side->state == FILTER_HOLDS_TRAILERS ||
            (side->state == FILTER_HOLDS_HEADERS && !has_body_callback(f, dir))) {
            wait_at(s, dir, side, data, end);
            return;
        }
        if (!has_body_callback(f, dir)) {
            if (end)
                side->state = FILTER_FINISHED;
            continue;
        }
        if (!pass_filter(s, dir, f, data, &end))
            return;
        if (fl->trailers_made) {
            fl->trailers_made = false;
            fl->trailers_at = position + 1;
            made = true;
        }
    }
    sink_data(s, dir, data, end);
    if (made)
        chain_trailers(s, dir);
}

/* ---- trailers ---- */

static bool has_trailers_callback(const struct filter *f, enum direction dir)
{
    return (dir == DIR_REQUEST ? f->ops->request_trailers : f->ops->response_trailers) != NULL;
}

/* What the filter at position still holds goes on, without an end: trailers follow. */
static void release_body(struct stream *s, enum direction dir, uint32_t position)
{
    struct filter_side *side = &chain_at(s, dir, position)->side[dir];
    bool end = side->end_held;
    struct buf moved;

    if (stream_is_stopped(s) || side->held == NULL || (side->held->n == 0 && !end)) {
        if (!stream_is_stopped(s) && end) {
            buf_init(&moved, s->arena.pool);
            side->end_held = false;
            chain_data(s, dir, position + 1, &moved, true);
            buf_fini(&moved);
        }
        return;
    }
    buf_init(&moved, s->arena.pool);
    buf_move(&moved, side->held, side->held->n);
    side->end_held = false;
    chain_data(s, dir, position + 1, &moved, end);
    buf_fini(&moved);
}

/* The filter at position lets its trailers, and all before them, go. */
static void finish_at(struct stream *s, enum direction dir, uint32_t position)
{
    struct filter_side *side = &chain_at(s, dir, position)->side[dir];

    if (side->state != FILTER_BYPASSED)
        side->state = FILTER_FINISHED;
    side->end_held = false;
    release_head(s, dir, position);
    release_body(s, dir, position);
}

static enum filter_result call_trailers(struct filter *f, enum direction dir)
{
    struct headers *t = f->stream->side[dir].trailers;

    return dir == DIR_REQUEST ? f->ops->request_trailers(f, t) : f->ops->response_trailers(f, t);
}

/* From flow.trailers_at on. */
void chain_trailers(struct stream *s, enum direction dir)
{
    struct flow *fl = &s->priv->flow[dir];

    fl->has_trailers = true;
    for (; fl->trailers_at < s->filter_count; fl->trailers_at++) {
        struct filter *f = chain_at(s, dir, fl->trailers_at);
        struct filter_side *side = &f->side[dir];

        if (side->state == FILTER_HOLDS_ALL || side->state == FILTER_HOLDS_TRAILERS)
            return;
        if (side->state == FILTER_BYPASSED)
            continue;
        if (has_trailers_callback(f, dir)) {
            side->state = FILTER_IN_CALLBACK;
            enum filter_result r = call_trailers(f, dir);
            if (stream_is_stopped(s))
                return;
            if (side->state == FILTER_IN_CALLBACK && r != FILTER_CONTINUE) {
                side->state = FILTER_HOLDS_TRAILERS;
                return;
            }
        }
        finish_at(s, dir, fl->trailers_at);
        if (stream_is_stopped(s))
            return;
    }
    fl->out_trailers = true;
    fl->out_end = true;
}

/* ---- letting go ---- */

static bool holds(const struct stream *s, enum direction dir, const struct filter *f)
{
    const struct filter_side *side = &f->side[dir];
    const struct flow *fl = &s->priv->flow[dir];

    switch (side->state) {
    case FILTER_HOLDS_ALL:
    case FILTER_HOLDS_HEADERS:
    case FILTER_HOLDS_BODY:
    case FILTER_HOLDS_TRAILERS: return true;
    case FILTER_BYPASSED: /* it may have left while it held something */
        return (side->held != NULL && side->held->n > 0) || side->end_held ||
               (fl->head_at == chain_position(f, dir) && s->side[dir].msg != NULL && !fl->head_passed) ||
               (fl->has_trailers && fl->trailers_at == chain_position(f, dir));
    default: return false;
    }
}

/* Held behind a head the filter had not let pass: nothing of it has been seen yet. */
static void resume_all(struct stream *s, enum direction dir, uint32_t position)
{
    struct filter_side *side = &chain_at(s, dir, position)->side[dir];
    struct flow *fl = &s->priv->flow[dir];
    struct buf moved;
    bool end = side->end_held;

    side->state = fl->head_end ? FILTER_FINISHED : FILTER_OPEN;
    side->over_is_error = side->end_held = false;
    release_head(s, dir, position);
    if (stream_is_stopped(s) || fl->head_end)
        return;
    if (end || (side->held != NULL && side->held->n > 0)) {
        buf_init(&moved, s->arena.pool);
        if (side->held != NULL)
            buf_move(&moved, side->held, side->held->n);
        chain_data(s, dir, position, &moved, end);
        buf_fini(&moved);
    }
    if (!stream_is_stopped(s) && fl->has_trailers && fl->trailers_at == position)
        chain_trailers(s, dir);
}

static void resume_seen(struct stream *s, enum direction dir, uint32_t position)
{
    struct filter_side *side = &chain_at(s, dir, position)->side[dir];
    struct flow *fl = &s->priv->flow[dir];
    bool had_trailers = side->state == FILTER_HOLDS_TRAILERS ||
                        (side->state == FILTER_BYPASSED && fl->has_trailers && fl->trailers_at == position);

    if (had_trailers) {
        finish_at(s, dir, position);
        if (stream_is_stopped(s))
            return;
        fl->trailers_at = position + 1;
        chain_trailers(s, dir);
        return;
    }
    if (side->state != FILTER_BYPASSED)
        side->state = side->end_held || fl->head_end ? FILTER_FINISHED : FILTER_OPEN;
    side->over_is_error = false;
    release_head(s, dir, position);
    release_body(s, dir, position);
}

static void resume_direction(struct stream *s, enum direction dir)
{
    /* From the sink backwards: what is further on goes first. */
    for (uint32_t position = (uint32_t)s->filter_count; position-- > 0 && !stream_is_stopped(s);) {
        struct filter *f = chain_at(s, dir, position);
        struct filter_side *side = &f->side[dir];
        bool wanted = side->resume || side->state == FILTER_BYPASSED;

        side->resume = false;
        if (!wanted || !holds(s, dir, f))
            continue;
        if (side->state == FILTER_HOLDS_ALL)
            resume_all(s, dir, position);
        else
            resume_seen(s, dir, position);
    }
}

void chain_resume(struct stream *s)
{
    struct stream_private *p = s->priv;

    while (p->resume && !stream_is_stopped(s)) {
        p->resume = false;
        if (!p->replied)
            resume_direction(s, DIR_REQUEST);
        if (!stream_is_stopped(s) && s->side[DIR_RESPONSE].msg != NULL)
            resume_direction(s, DIR_RESPONSE);
    }
}

/* ---- questions ---- */

size_t chain_held(const struct stream *s, enum direction dir)
{
    size_t n = 0;

    for (size_t i = 0; i < s->filter_count; i++) {
        const struct filter_side *side = &s->filters[i].side[dir];
        if (side->held != NULL && !side->over_is_error)
            n += side->held->n;
    }
    return n;
}

const struct filter *chain_waits_for(const struct stream *s, enum direction dir)
{
    const struct flow *fl = &s->priv->flow[dir];

    for (size_t i = 0; i < s->filter_count; i++) {
        enum filter_state state = s->filters[i].side[dir].state;
        bool body_over = fl->end_in || fl->read_off;
        if (state == FILTER_HOLDS_ALL || state == FILTER_HOLDS_TRAILERS)
            return &s->filters[i];
        if (body_over && (state == FILTER_HOLDS_HEADERS || state == FILTER_HOLDS_BODY))
            return &s->filters[i];
    }
    return NULL;
}

bool chain_wants_body(const struct stream *s, enum direction dir)
{
    for (size_t i = 0; i < s->filter_count; i++)
        if (s->filters[i].side[dir].state == FILTER_HOLDS_HEADERS)
            return true;
    return false;
}

void chain_free(struct stream *s)
{
    for (size_t i = 0; i < s->filter_count; i++)
        for (int dir = 0; dir < 2; dir++)
            if (s->filters[i].side[dir].held != NULL)
                buf_fini(s->filters[i].side[dir].held);
}

/* ---- what filters ask ---- */

void filter_continue(struct filter *f, enum direction dir)
{
    struct stream *s = f->stream;

    if (stream_is_stopped(s) || s->priv->finished || (s->priv->replied && dir == DIR_REQUEST) || !holds(s, dir, f))
        return;
    f->side[dir].resume = true;
    s->priv->resume = true;
    stream_kick(s);
}

void filter_reply(struct filter *f, const struct reply *reply)
{
    reply_want(f->stream, reply, f->index, false);
    stream_kick(f->stream);
}

void filter_close(struct filter *f, enum end_reason reason)
{
    stream_end(f->stream, reason);
    stream_kick(f->stream);
}

static bool may_write_head(const struct filter *f, enum direction dir)
{
    const struct flow *fl = &f->stream->priv->flow[dir];

    if (fl->head_passed || fl->head_at != chain_position(f, dir))
        return false;
    switch (f->side[dir].state) {
    case FILTER_IN_CALLBACK:
    case FILTER_HOLDS_HEADERS:
    case FILTER_HOLDS_ALL:
    case FILTER_HOLDS_TRAILERS: return true;
    default: return false;
    }
}

static struct headers *trailers_of(struct filter *f, enum direction dir, bool for_write)
{
    struct stream *s = f->stream;
    struct flow *fl = &s->priv->flow[dir];
    struct headers *t = s->side[dir].trailers;

    if (!for_write)
        return t;
    if (t == NULL) {
        if (fl->shown_to != f || !fl->shown_end || fl->has_trailers)
            return NULL;
        t = arena_alloc(&s->arena, sizeof *t);
        headers_init(t, &s->arena, stream_limits(s)->head_bytes, stream_limits(s)->headers);
        s->side[dir].trailers = t;
        fl->trailers_made = fl->has_trailers = true;
        return t;
    }
    if (fl->shown_to == f && fl->trailers_made)
        return t;
    return fl->has_trailers && !fl->out_trailers && fl->trailers_at == chain_position(f, dir) ? t : NULL;
}

struct headers *filter_headers(struct filter *f, enum direction dir, bool trailers, bool for_write)
{
    struct stream *s = f->stream;

    if (for_write && (s->priv->ended || s->priv->finished || (s->priv->replied && dir == DIR_REQUEST)))
        return NULL;
    if (trailers)
        return trailers_of(f, dir, for_write);
    if (s->side[dir].msg == NULL || (for_write && !may_write_head(f, dir)))
        return NULL;
    return &s->side[dir].msg->headers;
}

struct buf *filter_body(struct filter *f, enum direction dir)
{
    const struct flow *fl = &f->stream->priv->flow[dir];

    if (fl->shown_to == f)
        return fl->shown;
    if (f->stream->priv->finished)
        return NULL;
    switch (f->side[dir].state) {
    case FILTER_IN_CALLBACK: /* of trailers: what the filter held goes on before them */
        return fl->has_trailers && fl->trailers_at == chain_position(f, dir) ? held_of(f->stream, &f->side[dir]) : NULL;
    case FILTER_HOLDS_ALL:
    case FILTER_HOLDS_HEADERS:
    case FILTER_HOLDS_BODY:
    case FILTER_HOLDS_TRAILERS: return f->side[dir].held;
    default: return NULL;
    }
}

void filter_clear_route(struct filter *f)
{
    struct stream *s = f->stream;

    if (s->priv->request <= REQUEST_HEADERS) {
        s->route_known = false;
        s->route = (struct route_hit){0};
    }
}

void filter_kick(struct filter *f) { stream_kick(f->stream); }
