/* SPDX-License-Identifier: Apache-2.0
 *
 * What tests of the ABI share: guests compiled by clang, a host whose every call is recorded, streams with maps and
 * bodies, and the step guest (tests/guests/step.c), from inside whose callbacks a test calls host functions with the
 * arguments it likes.
 *
 * A test sets `on_step`; it runs inside each callback of the guest. There, call("proxy_log", 0, ptr, n) calls a host
 * function as the guest would, put() and text() write and read guest memory.
 */
#ifndef WEIR_TESTS_WASM_ABI_HARNESS_H
#define WEIR_TESTS_WASM_ABI_HARNESS_H

#include "base/map.h"
#include "guest.h"
#include "wasm/pairs.h"
#include "wasm/plugin.h"

#define UNUSED __attribute__((unused))

/* ---- guests ---- */

static struct engine *engine;
static struct chunk_pool *pool;

/* Compiles tests/guests/NAME, with the SDK's library when its name begins with "sdk"; defines: "-DA=b -DC", or NULL. */
static UNUSED struct strbuf guest_compile(const char *name, const char *defines)
{
    char out[] = "/tmp/weir-test-guest-XXXXXX", command[2048];
    const char *flags =
        "--target=wasm32 -O2 -nostdlib -ffreestanding -Wall -Wextra -Werror -I" WEIR_SOURCE_DIR "/sdk/c";
    const char *link = "-Wl,--no-entry -Wl,--allow-undefined", *library = WEIR_SOURCE_DIR "/sdk/c/proxy_wasm.c";
    int fd = mkstemp(out), status = -1;
    pid_t pid;

    assert_true(fd >= 0);
    close(fd);
    defines = defines != NULL ? defines : "";
    if (strstr(name, ".cpp") != NULL) { /* the library is C */
        snprintf(command, sizeof command,
                 "clang %s -c -o %s.o %s && clang++ %s %s -std=c++17 -fno-exceptions -fno-rtti %s -o %s "
                 "%s/tests/guests/%s %s.o; "
                 "r=$?; rm -f %s.o; exit $r",
                 flags, out, library, flags, defines, link, out, WEIR_SOURCE_DIR, name, out, out);
    } else {
        snprintf(command, sizeof command, "clang %s %s %s -o %s %s/tests/guests/%s %s", flags, defines, link, out,
                 WEIR_SOURCE_DIR, name, strncmp(name, "sdk", 3) == 0 ? library : "");
    }
    char *argv[] = {"sh", "-c", command, NULL};
    assert_int_equal(posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (status != 0) {
        fail_msg("%s", command);
    }
    struct strbuf wasm = guest_read_file(out);
    unlink(out);
    return wasm;
}

/* ---- the host ---- */

struct stream {
    struct arena arena;
    struct headers maps[4];
    bool has_map[4], read_only;
    struct buf bodies[2];
    bool has_body[2];
    int continued[2], closed, cleared, changed[4], body_changed[2], replies;
    uint32_t reply_status;
    int32_t reply_grpc;
    char reply_details[64], reply_body[64];
    size_t reply_headers;
    struct ctx *end_on_continue; /* another stream's, ended from inside the op */
};

struct host {
    struct strbuf log;
    int log_lines;
    enum log_level last_level;
    void *last_stream;
    uint32_t tick_ms;
    int tick_sets;
    int calls, cancels;
    uint32_t last_call_id;
    char last_cluster[64], last_body[64];
    size_t last_headers, last_trailers;
    enum abi_status call_answer;
    int failures;
    char failed_in[64], failure[512];
    struct map properties;
    bool properties_full;
};

static struct host host;
/* Wakes come from any thread in life; tests have one. */
static struct {
    uint64_t token;
    uint32_t queue;
} wakes[64];
static size_t wake_count;

static struct headers *op_map(void *stream, enum abi_map map, enum map_access access)
{
    struct stream *s = stream;

    return s->has_map[map] && !(access == MAP_WRITE && s->read_only) ? &s->maps[map] : NULL;
}

static void op_map_changed(void *stream, enum abi_map map) { ((struct stream *)stream)->changed[map]++; }

static struct buf *op_body(void *stream, enum abi_buffer which)
{
    struct stream *s = stream;

    return s->has_body[which] ? &s->bodies[which] : NULL;
}

static void op_body_changed(void *stream, enum abi_buffer which) { ((struct stream *)stream)->body_changed[which]++; }

static void op_local_reply(void *stream, const struct local_reply *r)
{
    struct stream *s = stream;

    s->replies++;
    s->reply_status = r->status;
    s->reply_grpc = r->grpc_status;
    s->reply_headers = r->headers.count;
    snprintf(s->reply_details, sizeof s->reply_details, "%.*s", STR_ARG(r->details));
    snprintf(s->reply_body, sizeof s->reply_body, "%.*s", STR_ARG(r->body));
}

static void op_continue(void *stream, enum abi_stream which)
{
    struct stream *s = stream;

    s->continued[which]++;
    if (s->end_on_continue != NULL) {
        struct ctx *c = s->end_on_continue;
        s->end_on_continue = NULL;
        ctx_end(c);
    }
}

static void op_close(void *stream, enum abi_stream which)
{
    (void)which;
    ((struct stream *)stream)->closed++;
}

static void op_clear(void *stream) { ((struct stream *)stream)->cleared++; }

static enum abi_status op_get_property(void *h, void *stream, struct str path, struct strbuf *out)
{
    (void)h;
    (void)stream;
    struct strbuf *v = map_get(&host.properties, path);
    if (v == NULL) {
        return ABI_NOT_FOUND;
    }
    strbuf_add(out, strbuf_str(v));
    return ABI_OK;
}

static enum abi_status op_set_property(void *h, void *stream, struct str path, struct str value)
{
    (void)h;
    (void)stream;
    if (host.properties_full) {
        return ABI_INTERNAL_FAILURE;
    }
    struct strbuf *v = mem_zalloc(sizeof *v);
    strbuf_add(v, value);
    struct strbuf *old = map_set(&host.properties, path, v);
    if (old != NULL) {
        strbuf_free(old);
        mem_free(old);
    }
    return ABI_OK;
}

static enum abi_status op_http_call(void *h, const struct http_call *call, void **handle)
{
    (void)h;
    host.calls++;
    host.last_call_id = call->id;
    host.last_headers = call->headers.count;
    host.last_trailers = call->trailers.count;
    snprintf(host.last_cluster, sizeof host.last_cluster, "%.*s", STR_ARG(call->cluster));
    snprintf(host.last_body, sizeof host.last_body, "%.*s", STR_ARG(call->body));
    *handle = &host;
    return host.call_answer;
}

static void op_cancel(void *h, void *handle)
{
    (void)h;
    assert_ptr_equal(handle, &host);
    host.cancels++;
}

static void op_set_tick(void *h, uint32_t ms)
{
    (void)h;
    host.tick_ms = ms;
    host.tick_sets++;
}

static void op_wake(uint64_t token, uint32_t queue)
{
    if (wake_count < ARRAY_LEN(wakes)) {
        wakes[wake_count].token = token;
        wakes[wake_count].queue = queue;
    }
    wake_count++;
}

static void op_log(void *h, void *stream, enum log_level level, struct str text)
{
    (void)h;
    host.log_lines++;
    host.last_level = level;
    host.last_stream = stream;
    strbuf_add(&host.log, text);
    strbuf_addc(&host.log, '\n');
}

static void op_failed(void *h, const char *callback, const char *reason)
{
    (void)h;
    host.failures++;
    snprintf(host.failed_in, sizeof host.failed_in, "%s", callback);
    snprintf(host.failure, sizeof host.failure, "%s", reason);
}

static uint64_t op_wall(void *h)
{
    (void)h;
    return 1111222233334444u;
}

static uint64_t op_mono(void *h)
{
    (void)h;
    return 5555u;
}

static const struct host_ops ops = {
    .map = op_map,
    .map_changed = op_map_changed,
    .body = op_body,
    .body_changed = op_body_changed,
    .local_reply = op_local_reply,
    .continue_stream = op_continue,
    .close_stream = op_close,
    .clear_route_cache = op_clear,
    .get_property = op_get_property,
    .set_property = op_set_property,
    .http_call = op_http_call,
    .http_call_cancel = op_cancel,
    .set_tick = op_set_tick,
    .queue_wake = op_wake,
    .log = op_log,
    .vm_failed = op_failed,
    .wall_ns = op_wall,
    .mono_ns = op_mono,
};

static UNUSED bool logged(const char *text)
{
    return host.log.n != 0 && str_find_str(strbuf_str(&host.log), str_of(text)) >= 0;
}

static void host_reset(void)
{
    MAP_EACH (e, &host.properties) {
        strbuf_free(e->value);
        mem_free(e->value);
    }
    map_free(&host.properties);
    strbuf_free(&host.log);
    host = (struct host){0};
    wake_count = 0;
}

/* ---- streams ---- */

static UNUSED void stream_init(struct stream *s)
{
    *s = (struct stream){0};
    arena_init(&s->arena, pool, 1 << 20);
    for (size_t i = 0; i < 4; i++) {
        headers_init(&s->maps[i], &s->arena, 4096, 32);
    }
    for (size_t i = 0; i < 2; i++) {
        buf_init(&s->bodies[i], pool);
    }
    s->has_map[MAP_REQUEST_HEADERS] = true;
    struct headers *h = &s->maps[MAP_REQUEST_HEADERS];
    assert_int_equal(headers_add(h, STR(":method"), STR("GET")), HEADERS_OK);
    assert_int_equal(headers_add(h, STR(":path"), STR("/x")), HEADERS_OK);
    assert_int_equal(headers_add(h, STR("x-key"), STR("secret")), HEADERS_OK);
    assert_int_equal(headers_add(h, STR("empty"), STR("")), HEADERS_OK);
}

static UNUSED void stream_fini(struct stream *s)
{
    for (size_t i = 0; i < 2; i++) {
        buf_fini(&s->bodies[i]);
    }
    arena_fini(&s->arena);
}

static UNUSED void stream_body(struct stream *s, enum abi_buffer which, const char *text)
{
    s->has_body[which] = true;
    buf_clear(&s->bodies[which]);
    buf_append(&s->bodies[which], str_of(text));
}

static UNUSED void assert_body(struct stream *s, enum abi_buffer which, const char *text)
{
    char copy[256] = {0};

    assert_true(s->bodies[which].n < sizeof copy);
    buf_copy_out(&s->bodies[which], 0, s->bodies[which].n, copy);
    assert_string_equal(copy, text);
}

/* ---- the step guest ---- */

enum { STEP_INITIALIZE = 100, STEP_MAIN = 101, STEP_START = 102 };

typedef uint32_t step_fn(uint32_t cb, const uint32_t *a);
static step_fn *on_step;
static uint32_t step_count[128], steps;
static struct vm *guest; /* while on_step runs */
static uint32_t alloc_mode, allocs, last_alloc;
static uint32_t area; /* where tests may write in guest memory */
enum { AREA_SIZE = 64 * 1024 };

static void host_step(struct vm *vm, union vm_value *v)
{
    uint32_t a[5] = {v[1].u32, v[2].u32, v[3].u32, v[4].u32, v[5].u32}, cb = v[0].u32;
    bool answers = cb == CB_VM_START || cb == CB_CONFIGURE || cb == CB_DONE;

    steps++;
    step_count[cb < 128 ? cb : 127]++;
    struct vm *outer = guest;
    guest = vm;
    v[0].u32 = on_step != NULL ? on_step(cb, a) : answers;
    guest = outer;
}

static void host_alloc(struct vm *vm, union vm_value *v)
{
    (void)vm;
    allocs++;
    last_alloc = v[0].u32;
    v[0].u32 = alloc_mode;
}

static const struct vm_host_func *test_functions(size_t *count)
{
    static struct vm_host_func table[256];
    const struct vm_host_func *own = abi_host_functions(count);

    memcpy(table, own, *count * sizeof *own);
    table[(*count)++] = (struct vm_host_func){"test", "step", "iiiiii", "i", host_step};
    table[(*count)++] = (struct vm_host_func){"test", "alloc", "i", "i", host_alloc};
    return table;
}

static UNUSED struct module *load_wasm(struct str wasm)
{
    struct strbuf code = {0};
    struct module *m;
    char *error = NULL;
    size_t count;
    const struct vm_host_func *table = test_functions(&count);

    if (!engine_compile(engine, wasm, TIER_OPTIMISED, &code, &error)) {
        fail_msg("%s", error);
    }
    if (!module_load(engine, strbuf_str(&code), table, count, abi_unknown_import, &m, &error)) {
        fail_msg("%s", error);
    }
    strbuf_free(&code);
    return m;
}

static UNUSED struct module *load_guest(const char *name, const char *defines)
{
    struct strbuf wasm = guest_compile(name, defines);
    struct module *m = load_wasm(strbuf_str(&wasm));

    strbuf_free(&wasm);
    return m;
}

/* A host function by name, called as the guest would: all arguments are i32 but where the name's type says 'I'. */
#define call(...) call_values(__VA_ARGS__, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
static UNUSED uint32_t call_values(const char *name, ...)
{
    size_t count;
    const struct vm_host_func *table = abi_host_functions(&count);
    union vm_value v[16] = {{0}};
    va_list args;

    for (size_t i = 0; i < count; i++) {
        if (strcmp(table[i].name, name) == 0) {
            va_start(args, name);
            for (size_t p = 0; table[i].params[p] != 0; p++) {
                v[p].i64 = va_arg(args, int);
                if (table[i].params[p] == 'i') {
                    v[p].i64 &= 0xffffffff;
                }
            }
            va_end(args);
            table[i].fn(guest, v);
            return v[0].u32;
        }
    }
    fail_msg("no host function %s", name);
    return 0;
}

/* Writes text at offset of the area; returns its guest address. */
static UNUSED uint32_t put(uint32_t offset, struct str s)
{
    char *p = vm_mem(guest, area + offset, (uint32_t)s.n);

    assert_non_null(p);
    if (s.n != 0) {
        memcpy(p, s.p, s.n);
    }
    return area + offset;
}

static UNUSED uint32_t get_u32(uint32_t address)
{
    uint32_t v;

    memcpy(&v, vm_mem(guest, address, 4), 4);
    return v;
}

static UNUSED uint64_t get_u64(uint32_t address)
{
    uint64_t v;

    memcpy(&v, vm_mem(guest, address, 8), 8);
    return v;
}

/* Where out-pointers of tests are, and what a gift put there. */
#define OUT_PTR  (area + 60000)
#define OUT_SIZE (area + 60004)
#define OUT_3    (area + 60008)
#define BAD      ((int)0xfffffff0u)
static UNUSED struct str gift(void)
{
    uint32_t p = get_u32(OUT_PTR), n = get_u32(OUT_SIZE);

    return n != 0 ? str_span(vm_mem(guest, p, n), n) : STR_NONE;
}
#define assert_gift(z) assert_true(str_is(gift(), z))

static UNUSED struct plugin_limits test_limits(void)
{
    struct plugin_limits l = plugin_limits_default();

    l.cpu_deadline_ms = 300;
    l.memory_bytes = 16 * 1024 * 1024;
    return l;
}

static UNUSED struct plugin plugin_desc(struct module *m)
{
    return (struct plugin){
        .name = "ns.test",
        .root_id = "root",
        .vm_id = "ns",
        .config = "{\"a\":1}",
        .config_bytes = 7,
        .limits = test_limits(),
        .abi = ABI_0_2_1,
        .module = m,
    };
}

static UNUSED struct plugin_vm *start_vm(const struct plugin *desc)
{
    struct plugin *p = plugin_new(desc);
    struct plugin_vm *pv;
    char *error = NULL;

    guest_signals_restore();
    if (plugin_vm_new(p, &ops, &pv, &error) != START_OK) {
        fail_msg("%s", error);
    }
    plugin_unref(p);
    return pv;
}

/* Started and attached. */
static UNUSED struct plugin_vm *attach_vm(const struct plugin *desc, uint64_t token)
{
    struct plugin_vm *pv = start_vm(desc);

    plugin_vm_attach(pv, &ops, &host, token);
    return pv;
}

static UNUSED void end_vm(struct plugin_vm *pv)
{
    on_step = NULL;
    alloc_mode = 0;
    plugin_vm_detach(pv);
    plugin_vm_free(pv);
}

static UNUSED int test_setup(void **state)
{
    (void)state;
    host_reset();
    on_step = NULL;
    alloc_mode = allocs = steps = 0;
    memset(step_count, 0, sizeof step_count);
    return 0;
}

/* The area's address is a constant of each guest, told by an exported function. */
static UNUSED void find_area(struct module *m)
{
    const struct vm_limits limits = {.memory_bytes = 16 * 1024 * 1024, .table_elements = 100};
    struct vm *vm;
    union vm_value v[1];
    char *error = NULL;

    guest_signals_restore();
    if (vm_new(m, &limits, 1000, NULL, &vm, &error) != VM_OK) {
        fail_msg("%s", error);
    }
    assert_int_equal(vm_call(vm, vm_func(vm, "area", "", "i"), v, 1000), VM_OK);
    area = v[0].u32;
    vm_free(vm);
}

static UNUSED void harness_begin(void)
{
    engine = engine_new();
    pool = chunk_pool_new(16);
    guest_signals_save();
}

static UNUSED void harness_end(void)
{
    host_reset();
    chunk_pool_free(pool);
    engine_free(engine);
}

#endif
