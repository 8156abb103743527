/* SPDX-License-Identifier: Apache-2.0
 *
 * Host functions with arguments that no SDK would pass, from inside a callback of a real guest. The input is a program:
 * one byte chooses the function, one byte for each argument chooses what kind of number it is. The guest's allocator
 * misbehaves too. What must hold: no memory error (sanitizers), no assertion, and a result that every SDK knows.
 */
#include "wasm/plugin.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* (module
 *   (import "test" "step" (func $step (param i32) (result i32)))
 *   (import "test" "alloc" (func $alloc (param i32) (result i32)))
 *   (memory (export "memory") 2 4)
 *   (func (export "proxy_abi_version_0_2_1"))
 *   (func (export "proxy_on_memory_allocate") (param i32) (result i32) (call $alloc (local.get 0)))
 *   (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (call $step (local.get 0)))
 *   (func (export "proxy_on_tick") (param i32) (drop (call $step (local.get 0))))) */
static const unsigned char guest[] = {
    0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00, 0x01, 0x14, 0x04, 0x60, 0x01, 0x7f, 0x01, 0x7f, 0x60, 0x00, 0x00,
    0x60, 0x03, 0x7f, 0x7f, 0x7f, 0x01, 0x7f, 0x60, 0x01, 0x7f, 0x00, 0x02, 0x1a, 0x02, 0x04, 0x74, 0x65, 0x73, 0x74,
    0x04, 0x73, 0x74, 0x65, 0x70, 0x00, 0x00, 0x04, 0x74, 0x65, 0x73, 0x74, 0x05, 0x61, 0x6c, 0x6c, 0x6f, 0x63, 0x00,
    0x00, 0x03, 0x05, 0x04, 0x01, 0x00, 0x02, 0x03, 0x05, 0x04, 0x01, 0x01, 0x02, 0x04, 0x07, 0x6a, 0x05, 0x06, 0x6d,
    0x65, 0x6d, 0x6f, 0x72, 0x79, 0x02, 0x00, 0x17, 0x70, 0x72, 0x6f, 0x78, 0x79, 0x5f, 0x61, 0x62, 0x69, 0x5f, 0x76,
    0x65, 0x72, 0x73, 0x69, 0x6f, 0x6e, 0x5f, 0x30, 0x5f, 0x32, 0x5f, 0x31, 0x00, 0x02, 0x18, 0x70, 0x72, 0x6f, 0x78,
    0x79, 0x5f, 0x6f, 0x6e, 0x5f, 0x6d, 0x65, 0x6d, 0x6f, 0x72, 0x79, 0x5f, 0x61, 0x6c, 0x6c, 0x6f, 0x63, 0x61, 0x74,
    0x65, 0x00, 0x03, 0x18, 0x70, 0x72, 0x6f, 0x78, 0x79, 0x5f, 0x6f, 0x6e, 0x5f, 0x72, 0x65, 0x71, 0x75, 0x65, 0x73,
    0x74, 0x5f, 0x68, 0x65, 0x61, 0x64, 0x65, 0x72, 0x73, 0x00, 0x04, 0x0d, 0x70, 0x72, 0x6f, 0x78, 0x79, 0x5f, 0x6f,
    0x6e, 0x5f, 0x74, 0x69, 0x63, 0x6b, 0x00, 0x05, 0x0a, 0x1a, 0x04, 0x02, 0x00, 0x0b, 0x06, 0x00, 0x20, 0x00, 0x10,
    0x01, 0x0b, 0x06, 0x00, 0x20, 0x00, 0x10, 0x00, 0x0b, 0x07, 0x00, 0x20, 0x00, 0x10, 0x00, 0x1a, 0x0b};

enum { AREA = 4096, PAGES = 2, CALLS_MAX = 64 };

static struct engine *engine;
static struct chunk_pool *pool;
static struct module *module;
static struct arena arena;
static struct headers headers;
static struct buf body;
static struct str program; /* what is left of the input */
static uint32_t heap = 65536;

static uint32_t take(void)
{
    if (program.n == 0) {
        return 0;
    }
    uint32_t v = (unsigned char)program.p[0];
    program = str_from(program, 1);
    return v;
}

/* ---- the host ---- */

static struct headers *op_map(void *s, enum abi_map map, enum map_access access)
{
    (void)s;
    return map == MAP_REQUEST_HEADERS || (map == MAP_RESPONSE_HEADERS && access == MAP_READ) ? &headers : NULL;
}
static void op_map_changed(void *s, enum abi_map map) { (void)s, (void)map; }
static struct buf *op_body(void *s, enum abi_buffer which)
{
    (void)s;
    return which == BUFFER_REQUEST_BODY ? &body : NULL;
}
static void op_body_changed(void *s, enum abi_buffer which) { (void)s, (void)which; }
static void op_reply(void *s, const struct local_reply *r)
{
    (void)s;
    ASSERT(r->status >= 200 && r->status <= 599 && r->grpc_status >= -1 && r->grpc_status <= 16);
}
static void op_stream(void *s, enum abi_stream which)
{
    (void)s;
    ASSERT(which <= STREAM_RESPONSE);
}
static void op_clear(void *s) { (void)s; }
static enum abi_status op_get_property(void *h, void *s, struct str path, struct strbuf *out)
{
    (void)h, (void)s;
    strbuf_add(out, path);
    return path.n % 3 == 0 ? ABI_NOT_FOUND : ABI_OK;
}
static enum abi_status op_set_property(void *h, void *s, struct str path, struct str value)
{
    (void)h, (void)s, (void)value;
    ASSERT(path.n != 0);
    return ABI_OK;
}
static enum abi_status op_call(void *h, const struct http_call *c, void **handle)
{
    (void)h;
    *handle = &body;
    return c->body.n % 2 == 0 ? ABI_OK : ABI_BAD_ARGUMENT;
}
static void op_cancel(void *h, void *handle) { (void)h, (void)handle; }
static void op_tick(void *h, uint32_t ms) { (void)h, (void)ms; }
static void op_wake(uint64_t token, uint32_t queue) { (void)token, (void)queue; }
static void op_log(void *h, void *s, enum log_level level, struct str text)
{
    (void)h, (void)s;
    ASSERT(level <= LOG_CRITICAL && text.n <= LOG_LINE_MAX);
}
static void op_failed(void *h, const char *cb, const char *reason) { (void)h, (void)cb, (void)reason; }
static uint64_t op_ns(void *h)
{
    (void)h;
    return 1;
}

static const struct host_ops ops = {
    .map = op_map,
    .map_changed = op_map_changed,
    .body = op_body,
    .body_changed = op_body_changed,
    .local_reply = op_reply,
    .continue_stream = op_stream,
    .close_stream = op_stream,
    .clear_route_cache = op_clear,
    .get_property = op_get_property,
    .set_property = op_set_property,
    .http_call = op_call,
    .http_call_cancel = op_cancel,
    .set_tick = op_tick,
    .queue_wake = op_wake,
    .log = op_log,
    .vm_failed = op_failed,
    .wall_ns = op_ns,
    .mono_ns = op_ns,
};

/* ---- the guest's side ---- */

static uint64_t argument(char type)
{
    uint32_t kind = take(), v = take();

    switch (kind & 7) {
    case 0: return v;
    case 1: return AREA + v * 16;          /* a place in the area */
    case 2: return 60000 + v * 4;          /* an out-pointer */
    case 3: return PAGES * 65536 - v;      /* near the end of memory */
    case 4: return UINT32_MAX - v;         /* near the end of the address space */
    case 5: return v << 8 | take();        /* a size */
    case 6: return v << 24 | take() << 16; /* anything */
    default: return type == 'I' ? (uint64_t) - (int64_t)v : v % 9;
    }
}

static void check_status(const struct vm_host_func *f, uint32_t status)
{
    if (f->results[0] != 0 && strncmp(f->name, "proxy_", 6) == 0) {
        ASSERT(status <= 12 && status != 5 && status != 9 && status != 11);
    }
}

static void host_step(struct vm *vm, union vm_value *args)
{
    size_t count;
    const struct vm_host_func *table = abi_host_functions(&count);
    uint32_t area = take() * 4u;

    area = area < program.n ? area : (uint32_t)program.n;
    memcpy(vm_mem(vm, AREA, area), program.p, area); /* strings and maps for the calls to come */
    program = str_from(program, area);
    for (int i = 0; i < CALLS_MAX && program.n != 0; i++) {
        union vm_value v[16] = {{0}};
        const struct vm_host_func *f = &table[take() % count];
        for (size_t p = 0; f->params[p] != 0; p++) {
            v[p].u64 = argument(f->params[p]);
        }
        if (strcmp(f->name, "proc_exit") != 0) {
            f->fn(vm, v);
            check_status(f, v[0].u32);
        }
    }
    args[0].u32 = take();
}

static void host_alloc(struct vm *vm, union vm_value *args)
{
    uint32_t n = args[0].u32;

    ASSERT(n != 0);
    switch (take() & 31) {
    case 31: args[0].u32 = 0; return;
    case 30: args[0].u32 = UINT32_MAX - 3; return;
    case 29: vm_raise(vm, "allocator"); return;
    default: break;
    }
    if (n > 65536) {
        args[0].u32 = 0;
        return;
    }
    heap = heap + n > PAGES * 65536 ? 65536 : heap;
    args[0].u32 = heap;
    heap += n;
}

/* ---- one input ---- */

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static struct vm_host_func table[256];
    struct strbuf code = {0};
    char *error = NULL;
    size_t count;

    (void)argc, (void)argv;
    const struct vm_host_func *own = abi_host_functions(&count);
    memcpy(table, own, count * sizeof *own);
    table[count++] = (struct vm_host_func){"test", "step", "i", "i", host_step};
    table[count++] = (struct vm_host_func){"test", "alloc", "i", "i", host_alloc};
    engine = engine_new();
    pool = chunk_pool_new(16);
    ASSERT(engine_compile(engine, str_span(guest, sizeof guest), TIER_OPTIMISED, &code, &error));
    ASSERT(module_load(engine, strbuf_str(&code), table, count, abi_unknown_import, &module, &error));
    strbuf_free(&code);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct plugin desc = {
        .name = (char[]){"fuzz"}, .vm_id = (char[]){"fuzz"}, .limits = plugin_limits_default(), .module = module};
    struct plugin_vm *pv;
    char *error = NULL;

    program = str_span(data, size);
    desc.abi = (take() & 1) != 0 ? ABI_0_2_0 : ABI_0_2_1;
    desc.utf8 = (enum header_utf8)(take() % 3);
    desc.limits.max_calls = 4;
    desc.limits.max_metrics = 8;
    desc.limits.shared_bytes = 64 * 1024;
    arena_init(&arena, pool, 1 << 20);
    headers_init(&headers, &arena, 4096, 32);
    buf_init(&body, pool);
    (void)!headers_add(&headers, STR(":path"), STR("/\xff"));
    (void)!headers_add(&headers, STR("x"), STR("y"));
    buf_append(&body, STR("body"));
    struct plugin *p = plugin_new(&desc);
    ASSERT(plugin_vm_new(p, &ops, &pv, &error) == START_OK);
    plugin_unref(p);
    plugin_vm_attach(pv, &ops, &body, 1);
    struct ctx *ctx = ctx_new(pv, &headers);
    (void)ctx_request_headers(ctx, 2, false);
    plugin_vm_tick(pv);
    plugin_vm_call_done(pv, 0x10001, &headers, &body, NULL, NULL);
    ctx_end(ctx);
    plugin_vm_detach(pv);
    plugin_vm_free(pv);
    buf_fini(&body);
    arena_fini(&arena);
    return 0;
}
