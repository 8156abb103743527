/* SPDX-License-Identifier: Apache-2.0
 *
 * A stream between two legs that only write down what they are told, with scripted filters: what the tests of the
 * chain, of replies and of the stream's deadlines share. Everything that happens is appended to one text, so that a
 * test compares whole stories.
 *
 *   q0(p,1)   filter 0's request headers callback, end          Q  its request body callback, with the bytes; t
 * trailers s0(200,0) filter 0's response headers callback              S  its response body callback; u trailers
 *   UP[...]   what went to the endpoint                         DOWN[...] what went to the client
 */
#ifndef WEIR_TESTS_STREAM_RIG_H
#define WEIR_TESTS_STREAM_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proxy/stream_private.h"

enum { RIG_FILTERS = 3, RIG_STEPS = 8 };
enum rig_callback { RIG_QH, RIG_QB, RIG_QT, RIG_SH, RIG_SB, RIG_ST, RIG_CALLBACKS };

struct rig;
typedef void rig_hook(struct rig *rig, struct filter *f, struct buf *data);

struct rig_filter {
    struct rig *rig;
    struct filter_ops ops;
    /* What its callbacks answer, one after the other; FILTER_CONTINUE when used up. */
    enum filter_result script[RIG_CALLBACKS][RIG_STEPS];
    unsigned at[RIG_CALLBACKS];
    rig_hook *hook[RIG_CALLBACKS];
    unsigned ended;
};

struct rig_leg {
    struct leg leg;
    struct rig *rig;
    const char *name;
    bool reading, full, detached, aborted;
};

struct rig {
    struct worker w;
    struct runtime runtime;
    struct listener_runtime listener;
    struct listener_conf conf;
    struct route_rule rule;
    struct route_backend backend;
    struct route route;
    struct rig_leg down, up;
    struct rig_filter filters[RIG_FILTERS];
    struct stream *s;
    struct strbuf story;
    struct arena arena; /* of messages */
};

static void rig_tell(struct rig *r, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void rig_tell(struct rig *r, const char *fmt, ...)
{
    va_list args;
    char line[512];

    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    if (r->story.n > 0)
        strbuf_addc(&r->story, ' ');
    strbuf_addz(&r->story, line);
}

static void rig_bytes(const struct buf *b, char out[200])
{
    size_t n = b->n < 60 ? b->n : 60;

    buf_copy_out(b, 0, n, out);
    out[n] = '\0';
    if (n < b->n)
        snprintf(out, 200, "<%zu>", b->n);
}

/* ---- legs ---- */

static struct rig_leg *rig_leg_of(struct leg *leg) { return CONTAINER_OF(leg, struct rig_leg, leg); }

static void rig_send_head(struct leg *leg, const struct message *msg, bool end)
{
    struct rig_leg *l = rig_leg_of(leg);
    static const char *const bodies[] = {"none", "length", "chunked", "close", "tunnel"};
    struct str what = headers_value(&msg->headers, msg->status != 0 ? HDR_STATUS : HDR_PATH);

    if (msg->body == BODY_LENGTH)
        rig_tell(l->rig, "%s[%.*s,length=%llu,%d]", l->name, STR_ARG(what), (unsigned long long)msg->content_length,
                 end);
    else
        rig_tell(l->rig, "%s[%.*s,%s,%d]", l->name, STR_ARG(what), bodies[msg->body], end);
}

static void rig_send_interim(struct leg *leg, const struct message *msg)
{
    rig_tell(rig_leg_of(leg)->rig, "%s[interim %u]", rig_leg_of(leg)->name, msg->status);
}

static void rig_send_body(struct leg *leg, struct buf *data, bool end)
{
    char text[200];

    rig_bytes(data, text);
    rig_tell(rig_leg_of(leg)->rig, "%s[%s,%d]", rig_leg_of(leg)->name, text, end);
    buf_clear(data);
}

static void rig_send_trailers(struct leg *leg, const struct headers *trailers)
{
    rig_tell(rig_leg_of(leg)->rig, "%s[trailers %u]", rig_leg_of(leg)->name, trailers->count);
}

static void rig_read_enable(struct leg *leg, bool on) { rig_leg_of(leg)->reading = on; }
static bool rig_is_full(const struct leg *leg) { return CONTAINER_OF(leg, struct rig_leg, leg)->full; }
static void rig_detach(struct leg *leg, bool abort)
{
    rig_leg_of(leg)->detached = true;
    rig_leg_of(leg)->aborted = abort;
    leg->stream = NULL;
}

static const struct leg_codec rig_codec = {.send_head = rig_send_head,
                                           .send_interim = rig_send_interim,
                                           .send_body = rig_send_body,
                                           .send_trailers = rig_send_trailers,
                                           .read_enable = rig_read_enable,
                                           .is_full = rig_is_full,
                                           .detach = rig_detach};

/* ---- filters ---- */

static enum filter_result rig_answer(struct filter *f, enum rig_callback cb, struct buf *data)
{
    struct rig_filter *rf = f->self;
    unsigned at = rf->at[cb]++;

    if (rf->hook[cb] != NULL)
        rf->hook[cb](rf->rig, f, data);
    return at < RIG_STEPS ? rf->script[cb][at] : FILTER_CONTINUE;
}

static enum filter_result rig_headers(struct filter *f, struct headers *h, bool end, enum rig_callback cb)
{
    struct str what = headers_value(h, cb == RIG_QH ? HDR_PATH : HDR_STATUS);

    rig_tell(((struct rig_filter *)f->self)->rig, "%c%u(%.*s,%d)", cb == RIG_QH ? 'q' : 's', f->index, STR_ARG(what),
             end);
    return rig_answer(f, cb, NULL);
}

static enum filter_result rig_body(struct filter *f, struct buf *data, bool end, enum rig_callback cb)
{
    char text[200];

    rig_bytes(data, text);
    rig_tell(((struct rig_filter *)f->self)->rig, "%c%u(%s,%d)", cb == RIG_QB ? 'Q' : 'S', f->index, text, end);
    return rig_answer(f, cb, data);
}

static enum filter_result rig_trailers(struct filter *f, struct headers *t, enum rig_callback cb)
{
    rig_tell(((struct rig_filter *)f->self)->rig, "%c%u(%u)", cb == RIG_QT ? 't' : 'u', f->index, t->count);
    return rig_answer(f, cb, NULL);
}

static enum filter_result rig_qh(struct filter *f, struct headers *h, bool end)
{
    return rig_headers(f, h, end, RIG_QH);
}
static enum filter_result rig_sh(struct filter *f, struct headers *h, bool end)
{
    return rig_headers(f, h, end, RIG_SH);
}
static enum filter_result rig_qb(struct filter *f, struct buf *b, bool end) { return rig_body(f, b, end, RIG_QB); }
static enum filter_result rig_sb(struct filter *f, struct buf *b, bool end) { return rig_body(f, b, end, RIG_SB); }
static enum filter_result rig_qt(struct filter *f, struct headers *t) { return rig_trailers(f, t, RIG_QT); }
static enum filter_result rig_st(struct filter *f, struct headers *t) { return rig_trailers(f, t, RIG_ST); }
static void rig_ended(struct filter *f)
{
    struct rig_filter *rf = f->self;

    rf->ended++;
    rig_tell(rf->rig, "end%u", f->index);
}

/* ---- the rig ---- */

static struct rig *rig_new(unsigned filter_count)
{
    struct rig *r = mem_zalloc(sizeof *r);

    worker_init(&r->w, 0, 1, NULL);
    limits_default(&r->conf.limits);
    r->conf.limits.buffer_bytes = 100;
    r->conf.limits.server_name = NULL;
    r->listener.conf = &r->conf;
    r->runtime.refs = 1;
    r->runtime.worker = &r->w;
    r->w.runtime = &r->runtime;
    r->rule.request_timeout_ms = r->rule.backend_timeout_ms = -1;
    r->backend.cluster = (char *)(uintptr_t) "c";
    r->backend.weight = 1;
    r->route.rule = &r->rule;
    r->route.backends = &r->backend;
    r->route.backend_count = 1;
    r->route.total_weight = 1;
    arena_init(&r->arena, r->w.pool, 1 << 20);
    r->down = (struct rig_leg){.leg = {.codec = &rig_codec}, .rig = r, .name = "DOWN", .reading = true};
    r->up = (struct rig_leg){.leg = {.codec = &rig_codec}, .rig = r, .name = "UP", .reading = true};
    struct stream *s = r->s = stream_new(&r->w, NULL, &r->listener);
    assert_non_null(s);
    s->down_leg = &r->down.leg;
    s->up_leg = &r->up.leg; /* connected already */
    s->route_known = true;
    s->route.route = &r->route;
    r->down.leg.stream = r->up.leg.stream = s;
    s->filter_count = filter_count;
    s->filters = arena_zalloc(&s->arena, sizeof *s->filters * (filter_count + 1));
    for (uint32_t i = 0; i < filter_count; i++) {
        r->filters[i].rig = r;
        r->filters[i].ops = (struct filter_ops){.request_headers = rig_qh,
                                                .request_body = rig_qb,
                                                .request_trailers = rig_qt,
                                                .response_headers = rig_sh,
                                                .response_body = rig_sb,
                                                .response_trailers = rig_st,
                                                .ended = rig_ended};
        s->filters[i] = (struct filter){.ops = &r->filters[i].ops, .stream = s, .self = &r->filters[i], .index = i};
    }
    return r;
}

/* Deferred work: kicks, the end of the stream. */
static void rig_turn(struct rig *r) { uv_run(&r->w.loop.uv, UV_RUN_NOWAIT); }

static void rig_free(struct rig *r)
{
    if (!list_is_empty(&r->w.streams))
        stream_abort(r->s, END_DRAIN_CUT);
    rig_turn(r);
    assert_true(list_is_empty(&r->w.streams));
    r->w.runtime = NULL;
    assert_int_equal(r->runtime.refs, 1);
    arena_fini(&r->arena);
    worker_begin_stop(&r->w);
    loop_run(&r->w.loop);
    worker_fini(&r->w);
    limits_free(&r->conf.limits);
    strbuf_free(&r->story);
    mem_free(r);
}

static struct message *rig_message(struct rig *r, const char *const *pairs, enum message_body body, uint64_t length)
{
    struct message *m = arena_zalloc(&r->arena, sizeof *m);

    headers_init(&m->headers, &r->arena, 1 << 16, 200);
    for (; pairs[0] != NULL; pairs += 2)
        assert_int_equal(headers_add(&m->headers, str_of(pairs[0]), str_of(pairs[1])), HEADERS_OK);
    m->body = body;
    m->content_length = length;
    m->version = 11;
    m->keep_alive = true;
    return m;
}

static struct message *rig_request_message(struct rig *r, const char *method, enum message_body body,
                                           const char *length)
{
    const char *pairs[] = {":method", method,       ":scheme",
                           "http",    ":authority", "x",
                           ":path",   "/p",         length != NULL ? "content-length" : NULL,
                           length,    NULL};
    return rig_message(r, pairs, body, length != NULL ? (uint64_t)strtoull(length, NULL, 10) : 0);
}

static void rig_get(struct rig *r)
{
    stream_down_ops.on_head(r->s, rig_request_message(r, "GET", BODY_NONE, NULL), true);
}

/* A request with a body: chunked when length is NULL. */
static void rig_post(struct rig *r, const char *length)
{
    struct message *m = rig_request_message(r, "POST", length != NULL ? BODY_LENGTH : BODY_CHUNKED, length);

    stream_down_ops.on_head(r->s, m, false);
}

static void rig_give(struct rig *r, const struct leg_ops *ops, struct str text, bool end)
{
    struct buf b;

    buf_init(&b, r->w.pool);
    buf_append(&b, text);
    ops->on_body(r->s, &b, end);
    buf_fini(&b);
}

static inline void rig_down_body(struct rig *r, const char *text, bool end)
{
    rig_give(r, &stream_down_ops, str_of(text), end);
}
static inline void rig_up_body(struct rig *r, const char *text, bool end)
{
    rig_give(r, &stream_up_ops, str_of(text), end);
}

static inline void rig_trailers_in(struct rig *r, const struct leg_ops *ops)
{
    const char *pairs[] = {"x-t", "v", NULL};

    ops->on_trailers(r->s, &rig_message(r, pairs, BODY_NONE, 0)->headers);
}

static void rig_response(struct rig *r, const char *length, bool end)
{
    const char *pairs[] = {":status", "200", length != NULL ? "content-length" : NULL, length, NULL};
    struct message *m = rig_message(r, pairs,
                                    end              ? BODY_NONE
                                    : length != NULL ? BODY_LENGTH
                                                     : BODY_CHUNKED,
                                    length != NULL ? (uint64_t)strtoull(length, NULL, 10) : 0);

    m->status = 200;
    stream_up_ops.on_head(r->s, m, end);
}

/* The story since the last call. */
#define RIG_STORY(r, text)                                                                                             \
    do {                                                                                                               \
        strbuf_addc(&(r)->story, '\0');                                                                                \
        assert_string_equal((r)->story.p, text);                                                                       \
        strbuf_clear(&(r)->story);                                                                                     \
    } while (0)

#endif
