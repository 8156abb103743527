/* SPDX-License-Identifier: Apache-2.0
 *
 * Contexts, the one way into the guest, and what a guest asked for that has to wait until it has returned. Hard because
 * SDKs (Rust above all) panic when they are entered while one of their host calls is on the stack: continue, close and
 * local replies are queued and run, first in first out, after the outermost callback. Must never enter a dead guest,
 * and never malloc on the path of an ordinary header filter.
 */
#include <pthread.h>
#include <time.h>

#include "wasm/abi.h"

/* ---- time of callbacks: the CPU's counter, calibrated once ---- */

static uint64_t ticks_mult; /* ns per tick, 32.32 */
static pthread_once_t ticks_once = PTHREAD_ONCE_INIT;

static uint64_t monotonic_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static inline uint64_t ticks(void)
{
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
    uint64_t v;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(v));
    return v;
#else
    return monotonic_ns();
#endif
}

static void ticks_calibrate(void)
{
    uint64_t t0 = ticks(), n0 = monotonic_ns(), n1;

    do {
        n1 = monotonic_ns();
    } while (n1 - n0 < 1000000);
    uint64_t t1 = ticks();
    ticks_mult = (uint64_t)(((unsigned __int128)(n1 - n0) << 32) / (t1 > t0 ? t1 - t0 : 1));
}

static inline uint64_t ticks_ns(uint64_t n) { return (uint64_t)(((unsigned __int128)n * ticks_mult) >> 32); }

/* The only writer is the VM's thread: a load and a store, no locked instruction. */
static inline void bump(_Atomic uint64_t *cell, uint64_t n)
{
    atomic_store_explicit(cell, atomic_load_explicit(cell, memory_order_relaxed) + n, memory_order_relaxed);
}

static void count_call(struct plugin_vm *pv, enum plugin_callback cb, uint64_t ns)
{
    uint64_t us = ns / 1000;
    unsigned bucket = us == 0 ? 0 : 64u - (unsigned)__builtin_clzll(us);

    bump(&pv->stats.cb[cb].calls, 1);
    bump(&pv->stats.cb[cb].ns, ns);
    bump(&pv->stats.cb[cb].bucket[bucket < 16 ? bucket : 15], 1);
}

/* ---- contexts by id ---- */

static void buckets_grow(struct plugin_vm *pv)
{
    uint32_t count = pv->bucket_count * 2;
    struct ctx **buckets = mem_zalloc(count * sizeof(struct ctx *));

    for (uint32_t i = 0; i < pv->bucket_count; i++) {
        for (struct ctx *c = pv->buckets[i], *next; c != NULL; c = next) {
            next = c->next;
            c->next = buckets[c->id & (count - 1)];
            buckets[c->id & (count - 1)] = c;
        }
    }
    mem_free(pv->buckets);
    pv->buckets = buckets;
    pv->bucket_count = count;
}

struct ctx *context_find(struct plugin_vm *pv, uint32_t id)
{
    if (id == ROOT_ID) {
        return &pv->root;
    }
    struct ctx *c = pv->buckets[id & (pv->bucket_count - 1)];
    while (c != NULL && c->id != id) {
        c = c->next;
    }
    return c;
}

void context_init(struct plugin_vm *pv)
{
    pthread_once(&ticks_once, ticks_calibrate);
    pv->bucket_count = 64;
    pv->buckets = mem_zalloc(pv->bucket_count * sizeof(struct ctx *));
    pv->root = (struct ctx){.pv = pv, .id = ROOT_ID};
    pv->next_id = ROOT_ID;
}

void context_fini(struct plugin_vm *pv)
{
    ASSERT(pv->ctx_count == 0);
    for (struct ctx *c = pv->free_ctx, *next; c != NULL; c = next) {
        next = c->next;
        mem_free(c);
    }
    for (size_t i = 0; i < pv->action_count; i++) {
        mem_free(pv->actions[pv->action_first + i].reply);
    }
    mem_free(pv->actions);
    mem_free(pv->buckets);
}

/* ---- actions ---- */

static char *copy_str(char *at, struct str src, struct str *dst)
{
    if (src.n != 0) {
        memcpy(at, src.p, src.n);
    }
    *dst = str_span(at, src.n);
    return at + src.n;
}

struct local_reply *reply_copy(const struct local_reply *reply)
{
    size_t bytes = sizeof *reply + reply->headers.count * sizeof(struct abi_pair) + reply->details.n + reply->body.n;

    for (size_t i = 0; i < reply->headers.count; i++) {
        bytes += reply->headers.list[i].name.n + reply->headers.list[i].value.n;
    }
    struct local_reply *copy = mem_alloc(bytes);
    struct abi_pair *list = (struct abi_pair *)(void *)(copy + 1);
    char *at = (char *)(list + reply->headers.count);
    *copy = *reply;
    copy->headers.list = list;
    at = copy_str(at, reply->details, &copy->details);
    at = copy_str(at, reply->body, &copy->body);
    for (size_t i = 0; i < reply->headers.count; i++) {
        at = copy_str(at, reply->headers.list[i].name, &list[i].name);
        at = copy_str(at, reply->headers.list[i].value, &list[i].value);
    }
    return copy;
}

static uint8_t action_bit(enum action_kind kind, enum abi_stream which)
{
    static const uint8_t bits[] = {[ACTION_REPLY] = 1, [ACTION_CLOSE] = 2, [ACTION_CONTINUE] = 16};

    return kind == ACTION_CONTINUE ? (uint8_t)(bits[kind] << (which & 3)) : bits[kind];
}

/* Bounded by the bits: at most one action of each kind for each context. */
static void actions_room(struct plugin_vm *pv)
{
    if (pv->action_first + pv->action_count < pv->action_cap) {
        return;
    }
    if (pv->action_first != 0) {
        memmove(pv->actions, pv->actions + pv->action_first, pv->action_count * sizeof *pv->actions);
        pv->action_first = 0;
    } else {
        pv->action_cap = pv->action_cap != 0 ? pv->action_cap * 2 : 16;
        pv->actions = mem_realloc(pv->actions, pv->action_cap * sizeof *pv->actions);
    }
}

void context_defer(struct ctx *ctx, enum action_kind kind, enum abi_stream which, struct local_reply *reply)
{
    struct plugin_vm *pv = ctx->pv;
    uint8_t bit = action_bit(kind, which);
    bool over = (ctx->queued & (action_bit(ACTION_REPLY, which) | action_bit(ACTION_CLOSE, which))) != 0;

    if (ctx->stream == NULL) {
        abi_warn_once(pv, WARN_NO_STREAM, "a stream was to be continued, closed or answered, but there is none");
    }
    if (ctx->stream == NULL || ctx->ending || over || (ctx->queued & bit) != 0) {
        mem_free(reply);
        return;
    }
    actions_room(pv);
    ctx->queued |= bit;
    ctx->replied = ctx->replied || kind == ACTION_REPLY;
    pv->actions[pv->action_first + pv->action_count++] = (struct action){kind, which, ctx, reply};
}

void context_fail_stream(struct ctx *ctx, uint32_t status, const char *details)
{
    struct local_reply reply = {.status = status, .details = str_of(details), .grpc_status = -1};

    context_defer(ctx, ACTION_REPLY, STREAM_REQUEST, reply_copy(&reply));
}

static void action_run(struct plugin_vm *pv, struct action *a)
{
    void *stream = a->ctx->stream;

    a->ctx->queued &= (uint8_t)~action_bit(a->kind, a->which);
    switch (a->kind) {
    case ACTION_REPLY: pv->ops->local_reply(stream, a->reply); break;
    case ACTION_CONTINUE: pv->ops->continue_stream(stream, a->which); break;
    case ACTION_CLOSE: pv->ops->close_stream(stream, a->which); break;
    }
}

/* What an action starts may enter the guest again (no frame of it is left) and queue more: the outermost loop runs
 * those too. */
static void drain(struct plugin_vm *pv)
{
    if (pv->draining) {
        return;
    }
    pv->draining = true;
    while (pv->action_count != 0) {
        struct action a = pv->actions[pv->action_first];
        pv->action_first = --pv->action_count == 0 ? 0 : pv->action_first + 1;
        if (a.ctx != NULL && !atomic_load_explicit(&pv->dead, memory_order_relaxed)) {
            action_run(pv, &a);
        } else if (a.ctx != NULL) {
            a.ctx->queued &= (uint8_t)~action_bit(a.kind, a.which);
        }
        mem_free(a.reply);
    }
    pv->draining = false;
}

/* ---- entering ---- */

const char *plugin_limit_hint(enum vm_result result, bool on_worker)
{
    switch (result) {
    case VM_MEMORY: return "; plugin.weir/memory-limit raises it";
    case VM_DEADLINE:
        return on_worker ? "; plugin.weir/cpu-deadline raises it" : "; plugin.weir/start-deadline raises it";
    default: return "";
    }
}

void context_failed(struct plugin_vm *pv, enum vm_result result, const char *where, const char *reason)
{
    if (pv->reason != NULL) {
        return;
    }
    atomic_store_explicit(&pv->dead, true, memory_order_relaxed);
    pv->failure = result;
    pv->failed_in = where;
    pv->reason = mem_printf("%s%s", reason, plugin_limit_hint(result, pv->attached));
}

void context_tell_failure(struct plugin_vm *pv)
{
    if (!atomic_load_explicit(&pv->dead, memory_order_relaxed) || pv->told || !pv->attached || pv->draining ||
        pv->current != NULL) {
        return;
    }
    pv->told = true;
    if (pv->detaching) {
        abi_logf(pv, LOG_ERROR, "%s: %s", pv->failed_in, pv->reason);
    } else {
        pv->ops->vm_failed(pv->host, pv->failed_in, pv->reason);
    }
}

static void record_failure(struct plugin_vm *pv, enum plugin_callback cb, enum vm_result result)
{
    context_failed(pv, result, plugin_callback_name(cb), vm_error(pv->vm));
    /* pv->failure, not result: a deadline that hit inside the allocator ends the callback as a trap. */
    bump(pv->failure == VM_TRAP ? &pv->stats.cb[cb].traps : &pv->stats.cb[cb].breaches, 1);
}

bool context_call(struct plugin_vm *pv, struct ctx *ctx, enum plugin_callback cb, union vm_value *values,
                  uint32_t deadline_ms)
{
    if (atomic_load_explicit(&pv->dead, memory_order_relaxed)) {
        return false;
    }
    ASSERT(pv->current == NULL); /* the host entered from inside a host call */
    pv->current = pv->effective = ctx;
    uint64_t start = ticks();
    enum vm_result result = vm_call(pv->vm, pv->fn[cb], values, deadline_ms);
    uint64_t end = ticks();
    if (pv->output_waits) {
        wasi_flush(pv);
    }
    pv->current = pv->effective = NULL;
    count_call(pv, cb, ticks_ns(end - start));
    if (result != VM_OK) {
        record_failure(pv, cb, result);
    }
    if ((pv->call_count++ & 63) == 0 || result != VM_OK) {
        atomic_store_explicit(&pv->memory_bytes, vm_memory_bytes(pv->vm), memory_order_relaxed);
    }
    if (pv->action_count != 0) {
        drain(pv);
    }
    if (atomic_load_explicit(&pv->dead, memory_order_relaxed)) {
        context_tell_failure(pv);
        return false;
    }
    return true;
}

/* ---- stream contexts ---- */

struct ctx *ctx_new(struct plugin_vm *pv, void *stream)
{
    ASSERT(pv->attached && !pv->detaching && pv->current == NULL);
    if (plugin_vm_is_dead(pv)) {
        return NULL;
    }
    struct ctx *ctx = pv->free_ctx;
    if (ctx != NULL) {
        pv->free_ctx = ctx->next;
    } else {
        ctx = mem_alloc(sizeof *ctx);
    }
    do {
        pv->next_id++;
    } while (pv->next_id == 0 || context_find(pv, pv->next_id) != NULL);
    if (++pv->ctx_count > pv->bucket_count) {
        buckets_grow(pv);
    }
    struct ctx **bucket = &pv->buckets[pv->next_id & (pv->bucket_count - 1)];
    *ctx = (struct ctx){.pv = pv, .stream = stream, .id = pv->next_id, .next = *bucket};
    *bucket = ctx;
    if (pv->fn[CB_CONTEXT_CREATE] != VM_FUNC_NONE) {
        union vm_value v[2] = {{.u32 = ctx->id}, {.u32 = ROOT_ID}};
        if (!context_call(pv, ctx, CB_CONTEXT_CREATE, v, pv->plugin->limits.cpu_deadline_ms)) {
            ctx_end(ctx);
            return NULL;
        }
    }
    return ctx;
}

uint32_t ctx_id(const struct ctx *ctx) { return ctx->id; }

bool ctx_replied(const struct ctx *ctx) { return ctx->replied; }

/* One stream callback; *out is what it returned, 0 when the guest has none. */
static bool ctx_call(struct ctx *ctx, enum plugin_callback cb, enum abi_stream direction, union vm_value *v,
                     uint32_t *out)
{
    struct plugin_vm *pv = ctx->pv;

    ctx->resumed = ctx->replied = false;
    *out = 0;
    if (atomic_load_explicit(&pv->dead, memory_order_relaxed)) {
        return false;
    }
    if (pv->fn[cb] == VM_FUNC_NONE) {
        return true;
    }
    ctx->direction = direction;
    ctx->running = true;
    bool alive = context_call(pv, ctx, cb, v, pv->plugin->limits.cpu_deadline_ms);
    ctx->running = false;
    *out = v[0].u32;
    return alive;
}

static enum ctx_action headers_action(struct ctx *ctx, uint32_t returned, enum plugin_callback body)
{
    const struct plugin_vm *pv = ctx->pv;

    if (ctx->replied) {
        return CTX_PAUSE_ALL;
    }
    if (returned == 0 || returned == 2 || ctx->resumed) {
        return CTX_CONTINUE;
    }
    if (returned == 3) {
        return CTX_PAUSE_ALL_BUFFER;
    }
    /* Without a body callback nobody would guard the held headers: the first body chunk would release them. */
    bool headers_only =
        returned == 1 && pv->plugin->pause_headers == PAUSE_HEADERS_ONLY && pv->fn[body] != VM_FUNC_NONE;
    return headers_only ? CTX_PAUSE : CTX_PAUSE_ALL;
}

static enum ctx_action on_headers(struct ctx *ctx, enum plugin_callback cb, size_t count, bool end)
{
    union vm_value v[3] = {{.u32 = ctx->id}, {.u32 = (uint32_t)count}, {.u32 = end}};
    bool request = cb == CB_REQUEST_HEADERS;
    uint32_t returned;

    if (!ctx_call(ctx, cb, request ? STREAM_REQUEST : STREAM_RESPONSE, v, &returned)) {
        return CTX_FAILED;
    }
    return headers_action(ctx, returned, request ? CB_REQUEST_BODY : CB_RESPONSE_BODY);
}

static enum ctx_action on_body(struct ctx *ctx, enum plugin_callback cb, size_t size, bool end)
{
    union vm_value v[3] = {{.u32 = ctx->id}, {.u32 = size <= UINT32_MAX ? (uint32_t)size : UINT32_MAX}, {.u32 = end}};
    uint32_t returned;

    if (!ctx_call(ctx, cb, cb == CB_REQUEST_BODY ? STREAM_REQUEST : STREAM_RESPONSE, v, &returned)) {
        return CTX_FAILED;
    }
    if (ctx->replied) {
        return CTX_NO_BUFFER;
    }
    switch (returned) {
    case 0: return CTX_CONTINUE;
    case 1: return ctx->resumed ? CTX_CONTINUE : CTX_BUFFER;
    case 2: return ctx->resumed ? CTX_CONTINUE : CTX_WATERMARK;
    default: return CTX_NO_BUFFER;
    }
}

static enum ctx_action on_trailers(struct ctx *ctx, enum plugin_callback cb, size_t count)
{
    union vm_value v[2] = {{.u32 = ctx->id}, {.u32 = (uint32_t)count}};
    uint32_t returned;

    if (!ctx_call(ctx, cb, cb == CB_REQUEST_TRAILERS ? STREAM_REQUEST : STREAM_RESPONSE, v, &returned)) {
        return CTX_FAILED;
    }
    return (returned != 0 && !ctx->resumed) || ctx->replied ? CTX_PAUSE : CTX_CONTINUE;
}

/* One such byte from any client kills a Rust filter. Names are tokens: the parser let nothing else in. */
static bool has_bad_utf8(const struct headers *h)
{
    for (size_t i = 0; h != NULL && i < h->count; i++) {
        if (!abi_is_utf8(h->list[i].value)) {
            return true;
        }
    }
    return false;
}

enum ctx_action ctx_request_headers(struct ctx *ctx, size_t count, bool end)
{
    struct plugin_vm *pv = ctx->pv;

    if (pv->plugin->utf8 == UTF8_REJECT && pv->fn[CB_REQUEST_HEADERS] != VM_FUNC_NONE && !plugin_vm_is_dead(pv) &&
        has_bad_utf8(pv->ops->map(ctx->stream, MAP_REQUEST_HEADERS, MAP_READ))) {
        struct local_reply reply = {.status = 400, .details = STR("header_not_utf8"), .grpc_status = -1};
        ctx->replied = true;
        pv->ops->local_reply(ctx->stream, &reply);
        return CTX_PAUSE_ALL;
    }
    return on_headers(ctx, CB_REQUEST_HEADERS, count, end);
}

enum ctx_action ctx_request_body(struct ctx *ctx, size_t size, bool end)
{
    return on_body(ctx, CB_REQUEST_BODY, size, end);
}

enum ctx_action ctx_request_trailers(struct ctx *ctx, size_t count)
{
    return on_trailers(ctx, CB_REQUEST_TRAILERS, count);
}

enum ctx_action ctx_response_headers(struct ctx *ctx, size_t count, bool end)
{
    return on_headers(ctx, CB_RESPONSE_HEADERS, count, end);
}

enum ctx_action ctx_response_body(struct ctx *ctx, size_t size, bool end)
{
    return on_body(ctx, CB_RESPONSE_BODY, size, end);
}

enum ctx_action ctx_response_trailers(struct ctx *ctx, size_t count)
{
    return on_trailers(ctx, CB_RESPONSE_TRAILERS, count);
}

void ctx_end(struct ctx *ctx)
{
    static const enum plugin_callback last[] = {CB_LOG, CB_DONE, CB_DELETE};
    struct plugin_vm *pv = ctx->pv;

    ASSERT(!ctx->running && pv->current == NULL);
    ctx->ending = true;
    for (size_t i = 0; i < ARRAY_LEN(last); i++) {
        union vm_value v[1] = {{.u32 = ctx->id}};
        uint32_t ignored;
        if (!ctx_call(ctx, last[i], STREAM_RESPONSE, v, &ignored)) {
            break;
        }
    }
    for (size_t i = 0; i < pv->action_count; i++) {
        struct action *a = &pv->actions[pv->action_first + i];
        a->ctx = a->ctx == ctx ? NULL : a->ctx;
    }
    struct ctx **at = &pv->buckets[ctx->id & (pv->bucket_count - 1)];
    while (*at != ctx) {
        at = &(*at)->next;
    }
    *at = ctx->next;
    pv->ctx_count--;
    ctx->next = pv->free_ctx;
    pv->free_ctx = ctx;
}
