/* SPDX-License-Identifier: Apache-2.0
 *
 * host_ops of the proxy: what a guest asks for, done to its stream or its plugin. All of it is called while the ABI
 * layer works for one guest, often from inside a host call and deep in some stream's driver; and the stream that is
 * meant may be another one than the one being driven. So nothing here enters a guest or runs a driver: what a stream
 * has to act on is recorded with it (filter.h), and its driver runs when the current event is done.
 */
#include <pthread.h>
#include <time.h>

#include "proxy/plugin_slot_priv.h"
#include "proxy/properties.h"

#include "base/log.h"

/* ---- streams ---- */

static struct headers *host_map(void *stream, enum abi_map map, enum map_access access)
{
    struct filter_wasm *fw = stream;
    bool trailers = map == MAP_REQUEST_TRAILERS || map == MAP_RESPONSE_TRAILERS;
    enum direction dir = map == MAP_RESPONSE_HEADERS || map == MAP_RESPONSE_TRAILERS ? DIR_RESPONSE : DIR_REQUEST;

    if (map > MAP_RESPONSE_TRAILERS || (fw->ending && access == MAP_WRITE))
        return NULL;
    return filter_headers(fw->f, dir, trailers, access == MAP_WRITE);
}

static void host_map_changed(void *stream, enum abi_map map)
{
    struct filter_wasm *fw = stream;

    if (map == MAP_REQUEST_HEADERS && !fw->ending)
        filter_clear_route(fw->f);
}

static struct buf *host_body(void *stream, enum abi_buffer which)
{
    struct filter_wasm *fw = stream;

    if (fw->ending || which > BUFFER_RESPONSE_BODY)
        return NULL;
    return filter_body(fw->f, which == BUFFER_REQUEST_BODY ? DIR_REQUEST : DIR_RESPONSE);
}

/* The stream counts what it passes on; the encoder owns framing. */
static void host_body_changed(void *stream, enum abi_buffer which)
{
    (void)stream;
    (void)which;
}

static enum end_reason reply_reason(const struct local_reply *reply)
{
    /* The ABI layer's own refusal. */
    return reply->status == 400 && str_is(reply->details, "header_not_utf8") ? END_HEADER_NOT_UTF8 : END_PLUGIN_REPLY;
}

static void host_local_reply(void *stream, const struct local_reply *reply)
{
    struct filter_wasm *fw = stream;

    if (fw->ending)
        return;
    enum end_reason reason = reply_reason(reply);
    struct header *extra = mem_alloc(reply->headers.count * sizeof *extra);
    for (size_t i = 0; i < reply->headers.count; i++)
        extra[i] = (struct header){.name = reply->headers.list[i].name, .value = reply->headers.list[i].value};
    struct reply r = {
        .status = reply->status,
        .details = reason == END_PLUGIN_REPLY ? reply->details : STR_NONE,
        .body = reason == END_PLUGIN_REPLY ? reply->body : str_of(end_reason_body(reason)),
        .extra = extra,
        .extra_count = reply->headers.count,
        .grpc_status = reply->grpc_status,
        .reason = reason,
    };
    filter_reply(fw->f, &r);
    mem_free(extra);
    fw->answered = true;
}

/* Else what is not paused now would not pause later. */
static bool holds(const struct filter_side *side)
{
    switch (side->state) {
    case FILTER_HOLDS_HEADERS:
    case FILTER_HOLDS_ALL:
    case FILTER_HOLDS_BODY:
    case FILTER_HOLDS_TRAILERS: return true;
    default: return false;
    }
}

static void host_continue_stream(void *stream, enum abi_stream which)
{
    struct filter_wasm *fw = stream;

    enum direction dir = which == STREAM_REQUEST ? DIR_REQUEST : DIR_RESPONSE;

    if (!fw->ending && which <= STREAM_RESPONSE && holds(&fw->f->side[dir]))
        filter_continue(fw->f, dir);
}

static void host_close_stream(void *stream, enum abi_stream which)
{
    struct filter_wasm *fw = stream;

    (void)which; /* either direction's end is the end of an HTTP exchange */
    if (fw->ending)
        return;
    filter_close(fw->f, END_PLUGIN_CLOSED);
    fw->answered = true;
}

static void host_clear_route_cache(void *stream)
{
    struct filter_wasm *fw = stream;

    if (!fw->ending)
        filter_clear_route(fw->f);
}

/* ---- properties ---- */

static enum abi_status host_get_property(void *host, void *stream, struct str path, struct strbuf *out)
{
    struct slot_vm *sv = host;
    struct filter_wasm *fw = stream;

    return property_get(sv->slot->worker, fw != NULL ? fw->f->stream : NULL, fw != NULL && fw->ending, path, out);
}

static enum abi_status host_set_property(void *host, void *stream, struct str path, struct str value)
{
    struct filter_wasm *fw = stream;

    (void)host;
    return property_set(fw != NULL ? fw->f->stream : NULL, path, value);
}

/* ---- callouts ---- */

struct slot_call {
    struct list node; /* slot_vm->calls */
    struct slot_vm *vm;
    struct call *call;
    uint32_t id;
};

static void slot_call_free(struct slot_call *c)
{
    c->vm->call_count--;
    list_remove(&c->node);
    mem_free(c);
}

static void on_call_done(void *arg, struct call *call, struct headers *headers, struct buf *body,
                         struct headers *trailers, const char *error)
{
    struct slot_call *c = arg;
    struct plugin_vm *vm = c->vm->vm;
    struct plugin_slot *slot = c->vm->slot;
    bool dead = c->vm->dead;
    uint32_t id = c->id;

    (void)call;
    slot_call_free(c);
    if (!dead)
        plugin_vm_call_done(vm, id, headers, body, trailers, error);
    plugin_slot_call_ended(slot);
}

static enum abi_status host_http_call(void *host, const struct http_call *spec, void **handle)
{
    struct slot_vm *sv = host;

    if (sv->call_count >= sv->slot->plugin->limits.max_calls)
        return ABI_INTERNAL_FAILURE;
    struct slot_call *c = mem_zalloc(sizeof *c);
    enum abi_status status = call_start(sv->slot->worker, spec, on_call_done, c, &c->call);
    if (status != ABI_OK) {
        mem_free(c);
        return status;
    }
    c->vm = sv;
    c->id = spec->id;
    sv->call_count++;
    list_push_back(&sv->calls, &c->node);
    *handle = c;
    return ABI_OK;
}

/* The handle may be one that plugin_host_cancel_calls has ended. */
static void host_http_call_cancel(void *host, void *handle)
{
    struct slot_vm *sv = host;

    LIST_EACH (node, &sv->calls) {
        struct slot_call *c = LIST_ENTRY(node, struct slot_call, node);
        if (c == handle) {
            call_cancel(c->call);
            slot_call_free(c);
            return;
        }
    }
}

void plugin_host_cancel_calls(struct slot_vm *sv)
{
    while (!list_is_empty(&sv->calls)) {
        struct slot_call *c = LIST_ENTRY(sv->calls.next, struct slot_call, node);
        call_cancel(c->call);
        slot_call_free(c);
    }
}

/* ---- ticks, logs, failures, clocks ---- */

static void host_set_tick(void *host, uint32_t period_ms)
{
    struct slot_vm *sv = host;

    sv->tick_ms = sv->slot->retired || sv->dead ? 0 : period_ms;
    if (sv->tick_ms != 0)
        loop_timer_start(&sv->tick, sv->tick_ms);
    else
        loop_timer_stop(&sv->tick);
}

static void host_log(void *host, void *stream, enum log_level level, struct str text)
{
    struct slot_vm *sv = host;
    struct filter_wasm *fw = stream;
    struct strbuf *line = &sv->slot->line;

    if (level < log_get_level())
        return;
    strbuf_clear(line);
    strbuf_add_escaped(line, text.n <= LOG_LINE_MAX ? text : str_upto(text, LOG_LINE_MAX));
    if (fw != NULL)
        log_line(level, "wasm %s: [%llu] %.*s", sv->slot->plugin->name, (unsigned long long)fw->f->stream->id,
                 STR_ARG(strbuf_str(line)));
    else
        log_line(level, "wasm %s: %.*s", sv->slot->plugin->name, STR_ARG(strbuf_str(line)));
}

static void host_vm_failed(void *host, const char *callback, const char *reason)
{
    slot_vm_failed(host, callback, reason);
}

/* A guest that asks for the time gets the time, not the loop's. */
static uint64_t clock_ns(clockid_t id)
{
    struct timespec ts;

    clock_gettime(id, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static uint64_t host_wall_ns(void *host)
{
    (void)host;
    return clock_ns(CLOCK_REALTIME);
}

static uint64_t host_mono_ns(void *host)
{
    (void)host;
    return clock_ns(CLOCK_MONOTONIC);
}

/* ---- queues: any thread finds the worker of a token ---- */

static struct {
    pthread_mutex_t lock;
    uint64_t last;
    struct map mailboxes; /* token (8 bytes) -> struct mailbox, one reference */
} tokens = {.lock = PTHREAD_MUTEX_INITIALIZER};

static struct str token_key(const uint64_t *token) { return str_span(token, sizeof *token); }

uint64_t plugin_token_new(struct worker *w)
{
    pthread_mutex_lock(&tokens.lock);
    uint64_t token = ((uint64_t)w->index << 40) + ++tokens.last;
    map_set(&tokens.mailboxes, token_key(&token), mailbox_ref(w->mailbox));
    pthread_mutex_unlock(&tokens.lock);
    return token;
}

void plugin_token_forget(uint64_t token)
{
    pthread_mutex_lock(&tokens.lock);
    struct mailbox *box = map_remove(&tokens.mailboxes, token_key(&token));
    if (tokens.mailboxes.count == 0) {
        map_free(&tokens.mailboxes);
        tokens.mailboxes = (struct map){0};
    }
    pthread_mutex_unlock(&tokens.lock);
    mailbox_unref(box);
}

static void host_queue_wake(uint64_t token, uint32_t queue_id)
{
    struct mail_queue *m = mem_zalloc(sizeof *m);

    m->mail.type = MAIL_QUEUE;
    m->token = token;
    m->queue_id = queue_id;
    pthread_mutex_lock(&tokens.lock);
    struct mailbox *box = map_get(&tokens.mailboxes, token_key(&token));
    if (box != NULL)
        mailbox_post(box, &m->mail);
    pthread_mutex_unlock(&tokens.lock);
    if (box == NULL)
        mem_free(m);
}

const struct host_ops plugin_host_ops = {
    .map = host_map,
    .map_changed = host_map_changed,
    .body = host_body,
    .body_changed = host_body_changed,
    .local_reply = host_local_reply,
    .continue_stream = host_continue_stream,
    .close_stream = host_close_stream,
    .clear_route_cache = host_clear_route_cache,
    .get_property = host_get_property,
    .set_property = host_set_property,
    .http_call = host_http_call,
    .http_call_cancel = host_http_call_cancel,
    .set_tick = host_set_tick,
    .queue_wake = host_queue_wake,
    .log = host_log,
    .vm_failed = host_vm_failed,
    .wall_ns = host_wall_ns,
    .mono_ns = host_mono_ns,
};
