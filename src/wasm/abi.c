/* SPDX-License-Identifier: Apache-2.0
 *
 * The one table of host functions, and how they reach guest memory. Every address and length is the guest's: vm_mem
 * checks it in 64 bits, a pointer got from it is dead after the next guest call, and the guest's allocator is a guest
 * call. Must never write to a guest address that was not checked first, nor hand out a block larger than asked for.
 */
#include "wasm/abi.h"

#include <stdio.h>
#include <time.h>

/* ---- entering a host function ---- */

struct plugin_vm *abi_enter_any(struct vm *vm)
{
    struct plugin_vm *pv = vm_user(vm);

    pv->vm = vm; /* the start function runs before vm_new has returned it */
    return pv;
}

struct plugin_vm *abi_enter(struct vm *vm)
{
    struct plugin_vm *pv = abi_enter_any(vm);

    if (pv->allocating) {
        vm_raise(vm, "a host function was called from inside the allocator");
        return NULL;
    }
    return pv;
}

/* ---- guest memory ---- */

bool abi_read(struct plugin_vm *pv, union vm_value ptr, union vm_value size, struct str *out)
{
    if (size.u32 == 0) {
        *out = STR_NONE; /* an empty slice's address means nothing: Rust passes 1, C++ anything */
        return true;
    }
    const void *p = vm_mem(pv->vm, ptr.u32, size.u32);
    *out = str_span(p, size.u32);
    return p != NULL;
}

bool abi_writable(struct plugin_vm *pv, union vm_value ptr, uint32_t n) { return vm_mem(pv->vm, ptr.u32, n) != NULL; }

void abi_store_u32(struct plugin_vm *pv, union vm_value ptr, uint32_t v)
{
    void *p = vm_mem(pv->vm, ptr.u32, sizeof v);

    ASSERT(p != NULL);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    v = __builtin_bswap32(v);
#endif
    memcpy(p, &v, sizeof v);
}

void abi_store_u64(struct plugin_vm *pv, union vm_value ptr, uint64_t v)
{
    void *p = vm_mem(pv->vm, ptr.u32, sizeof v);

    ASSERT(p != NULL);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    v = __builtin_bswap64(v);
#endif
    memcpy(p, &v, sizeof v);
}

enum abi_status abi_alloc(struct plugin_vm *pv, size_t n, uint32_t *ptr, void **mem)
{
    union vm_value v[1] = {{.u32 = (uint32_t)n}};

    ASSERT(n != 0 && !pv->allocating);
    if (n > UINT32_MAX || pv->fn_alloc < 0) {
        return ABI_INVALID_MEMORY_ACCESS;
    }
    pv->allocating = true;
    enum vm_result result = vm_call(pv->vm, pv->fn_alloc, v, 0);
    pv->allocating = false;
    if (result != VM_OK) {
        context_failed(pv, result, "the allocator", vm_error(pv->vm));
        vm_raise(pv->vm, pv->reason);
        return ABI_INTERNAL_FAILURE;
    }
    *ptr = v[0].u32;
    *mem = *ptr != 0 ? vm_mem(pv->vm, *ptr, (uint32_t)n) : NULL;
    return *mem != NULL ? ABI_OK : ABI_INVALID_MEMORY_ACCESS;
}

void abi_give_none(struct plugin_vm *pv, union vm_value out_ptr, union vm_value out_size)
{
    abi_store_u32(pv, out_ptr, 0);
    abi_store_u32(pv, out_size, 0);
}

enum abi_status abi_give(struct plugin_vm *pv, struct str data, union vm_value out_ptr, union vm_value out_size)
{
    uint32_t ptr;
    void *mem;

    if (data.n == 0) { /* never allocate 0 bytes: Go's allocator panics */
        abi_give_none(pv, out_ptr, out_size);
        return ABI_OK;
    }
    enum abi_status status = abi_alloc(pv, data.n, &ptr, &mem);
    if (status != ABI_OK) {
        return status;
    }
    memcpy(mem, data.p, data.n);
    abi_store_u32(pv, out_ptr, ptr);
    abi_store_u32(pv, out_size, (uint32_t)data.n);
    return ABI_OK;
}

enum abi_status abi_read_pairs(struct plugin_vm *pv, union vm_value ptr, union vm_value size, struct abi_pairs *out)
{
    struct str data;

    if (!abi_read(pv, ptr, size, &data)) {
        return ABI_INVALID_MEMORY_ACCESS;
    }
    if (pv->pairs == NULL) {
        pv->pairs = mem_alloc(PAIRS_MAX_COUNT * sizeof *pv->pairs);
    }
    out->list = pv->pairs;
    enum pairs_result r = pairs_decode(data, pv->pairs, &out->count);
    if (r != PAIRS_OK) {
        abi_logf(pv, LOG_WARN, "%s from the filter refused", pairs_result_text(r));
        return ABI_BAD_ARGUMENT;
    }
    return ABI_OK;
}

bool abi_is_utf8(struct str s)
{
    uint64_t all = 0, word;
    size_t i = 0;

    for (; i + sizeof word <= s.n; i += sizeof word) {
        memcpy(&word, s.p + i, sizeof word);
        all |= word;
    }
    for (; i < s.n; i++) {
        all |= (unsigned char)s.p[i];
    }
    return (all & 0x8080808080808080u) == 0 || str_is_utf8(s);
}

struct strbuf *abi_scratch(struct plugin_vm *pv)
{
    strbuf_clear(&pv->scratch);
    return &pv->scratch;
}

void abi_scratch_done(struct plugin_vm *pv)
{
    if (pv->scratch.cap > SCRATCH_KEEP) {
        strbuf_free(&pv->scratch);
        pv->scratch = (struct strbuf){0};
    }
}

/* ---- log and clock of the host ---- */

void abi_log(struct plugin_vm *pv, enum log_level level, struct str text)
{
    text.n = text.n < LOG_LINE_MAX ? text.n : LOG_LINE_MAX;
    if (pv->ops != NULL && pv->ops->log != NULL) {
        pv->ops->log(pv->host, pv->effective != NULL ? pv->effective->stream : NULL, level, text);
    } else {
        log_line(level, "plugin %s: %.*s", pv->plugin->name, STR_ARG(text));
    }
}

static void log_v(struct plugin_vm *pv, enum log_level level, const char *fmt, va_list args)
{
    char line[512];
    int n = vsnprintf(line, sizeof line, fmt, args);

    if (n > 0) {
        abi_log(pv, level, str_span(line, (size_t)n < sizeof line ? (size_t)n : sizeof line - 1));
    }
}

void abi_logf(struct plugin_vm *pv, enum log_level level, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    log_v(pv, level, fmt, args);
    va_end(args);
}

void abi_warn_once(struct plugin_vm *pv, enum warning w, const char *fmt, ...)
{
    va_list args;

    if ((pv->warned & (1u << w)) != 0) {
        return;
    }
    pv->warned |= 1u << w;
    va_start(args, fmt);
    log_v(pv, LOG_WARN, fmt, args);
    va_end(args);
}

static uint64_t system_ns(clockid_t id)
{
    struct timespec ts;

    clock_gettime(id, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t abi_wall_ns(struct plugin_vm *pv)
{
    return pv->attached ? pv->ops->wall_ns(pv->host) : system_ns(CLOCK_REALTIME);
}

uint64_t abi_mono_ns(struct plugin_vm *pv)
{
    return pv->attached ? pv->ops->mono_ns(pv->host) : system_ns(CLOCK_MONOTONIC);
}

/* ---- the table ---- */

/* What every module gets, whatever its version: a superset harms nobody and 0.2 headers still declare 0.1 functions. */
#define PROXY_FUNCTIONS(X)                                                                                             \
    X(log, "iii")                                                                                                      \
    X(get_log_level, "i")                                                                                              \
    X(get_current_time_nanoseconds, "i")                                                                               \
    X(set_tick_period_milliseconds, "i")                                                                               \
    X(get_configuration, "ii")                                                                                         \
    X(get_status, "iii")                                                                                               \
    X(get_property, "iiii")                                                                                            \
    X(set_property, "iiii")                                                                                            \
    X(get_buffer_bytes, "iiiii")                                                                                       \
    X(get_buffer_status, "iii")                                                                                        \
    X(set_buffer_bytes, "iiiii")                                                                                       \
    X(get_header_map_pairs, "iii")                                                                                     \
    X(set_header_map_pairs, "iii")                                                                                     \
    X(get_header_map_size, "ii")                                                                                       \
    X(get_header_map_value, "iiiii")                                                                                   \
    X(add_header_map_value, "iiiii")                                                                                   \
    X(replace_header_map_value, "iiiii")                                                                               \
    X(remove_header_map_value, "iii")                                                                                  \
    X(send_local_response, "iiiiiiii")                                                                                 \
    X(continue_stream, "i")                                                                                            \
    X(close_stream, "i")                                                                                               \
    X(continue_request, "")                                                                                            \
    X(continue_response, "")                                                                                           \
    X(clear_route_cache, "")                                                                                           \
    X(http_call, "iiiiiiiiii")                                                                                         \
    X(grpc_call, "iiiiiiiiiiii")                                                                                       \
    X(grpc_stream, "iiiiiiiii")                                                                                        \
    X(grpc_send, "iiii")                                                                                               \
    X(grpc_cancel, "i")                                                                                                \
    X(grpc_close, "i")                                                                                                 \
    X(set_shared_data, "iiiii")                                                                                        \
    X(get_shared_data, "iiiii")                                                                                        \
    X(register_shared_queue, "iii")                                                                                    \
    X(resolve_shared_queue, "iiiii")                                                                                   \
    X(enqueue_shared_queue, "iii")                                                                                     \
    X(dequeue_shared_queue, "iii")                                                                                     \
    X(define_metric, "iiii")                                                                                           \
    X(increment_metric, "iI")                                                                                          \
    X(record_metric, "iI")                                                                                             \
    X(get_metric, "ii")                                                                                                \
    X(set_effective_context, "i")                                                                                      \
    X(done, "")                                                                                                        \
    X(call_foreign_function, "iiiiii")

/* WASI preview 1; preview 0 ("unstable") has the same types. */
#define WASI_FUNCTIONS(X)                                                                                              \
    X(args_get, "ii", args_get)                                                                                        \
    X(args_sizes_get, "ii", sizes_zero)                                                                                \
    X(environ_get, "ii", environ_get)                                                                                  \
    X(environ_sizes_get, "ii", environ_sizes_get)                                                                      \
    X(clock_res_get, "ii", clock_res_get)                                                                              \
    X(clock_time_get, "iIi", clock_time_get)                                                                           \
    X(fd_advise, "iIIi", ok)                                                                                           \
    X(fd_allocate, "iII", std_ok)                                                                                      \
    X(fd_close, "i", ok)                                                                                               \
    X(fd_datasync, "i", std_ok)                                                                                        \
    X(fd_fdstat_get, "ii", fd_fdstat_get)                                                                              \
    X(fd_fdstat_set_flags, "ii", nosys)                                                                                \
    X(fd_fdstat_set_rights, "iII", std_ok)                                                                             \
    X(fd_filestat_get, "ii", badf)                                                                                     \
    X(fd_filestat_set_size, "iI", std_ok)                                                                              \
    X(fd_filestat_set_times, "iIIi", std_ok)                                                                           \
    X(fd_pread, "iiiIi", nosys)                                                                                        \
    X(fd_prestat_get, "ii", badf)                                                                                      \
    X(fd_prestat_dir_name, "iii", nosys)                                                                               \
    X(fd_pwrite, "iiiIi", fd_pwrite)                                                                                   \
    X(fd_read, "iiii", nosys)                                                                                          \
    X(fd_readdir, "iiiIi", fd_readdir)                                                                                 \
    X(fd_renumber, "ii", fd_renumber)                                                                                  \
    X(fd_seek, "iIii", fd_seek)                                                                                        \
    X(fd_sync, "i", std_ok)                                                                                            \
    X(fd_tell, "ii", fd_tell)                                                                                          \
    X(fd_write, "iiii", fd_write)                                                                                      \
    X(path_create_directory, "iii", notsup)                                                                            \
    X(path_filestat_get, "iiiii", notsup)                                                                              \
    X(path_filestat_set_times, "iiiiIIi", notsup)                                                                      \
    X(path_link, "iiiiiii", notsup)                                                                                    \
    X(path_open, "iiiiiIIii", noent)                                                                                   \
    X(path_readlink, "iiiiii", notsup)                                                                                 \
    X(path_remove_directory, "iii", notsup)                                                                            \
    X(path_rename, "iiiiii", notsup)                                                                                   \
    X(path_symlink, "iiiii", notsup)                                                                                   \
    X(path_unlink_file, "iii", notsup)                                                                                 \
    X(poll_oneoff, "iiii", poll_oneoff)                                                                                \
    X(proc_raise, "i", nosys)                                                                                          \
    X(random_get, "ii", random_get)                                                                                    \
    X(sched_yield, "", ok)                                                                                             \
    X(sock_accept, "iii", notsup)                                                                                      \
    X(sock_recv, "iiiiii", notsup)                                                                                     \
    X(sock_send, "iiiii", notsup)                                                                                      \
    X(sock_shutdown, "ii", notsup)

#define X(name, params) vm_host_fn_proto proxy_##name;
PROXY_FUNCTIONS(X)
#undef X
#define X(name, params, fn) vm_host_fn_proto wasi_##fn;
WASI_FUNCTIONS(X)
#undef X
vm_host_fn_proto wasi_proc_exit;

/* Emscripten's. */
static void notify_memory_growth(struct vm *vm, union vm_value *args)
{
    (void)vm;
    (void)args;
}

static void pthread_equal_(struct vm *vm, union vm_value *args)
{
    (void)vm;
    args[0].u32 = args[0].u32 == args[1].u32;
}

static const struct vm_host_func functions[] = {
#define X(name, params) {"env", "proxy_" #name, params, "i", proxy_##name},
    PROXY_FUNCTIONS(X)
#undef X
#define X(name, params, fn)                                                                                            \
    {"wasi_snapshot_preview1", #name, params, "i", wasi_##fn}, {"wasi_unstable", #name, params, "i", wasi_##fn},
        WASI_FUNCTIONS(X)
#undef X
            {"wasi_snapshot_preview1", "proc_exit", "i", "", wasi_proc_exit},
    {"wasi_unstable", "proc_exit", "i", "", wasi_proc_exit},
    {"env", "emscripten_notify_memory_growth", "i", "", notify_memory_growth},
    {"env", "pthread_equal", "ii", "i", pthread_equal_},
};

const struct vm_host_func *abi_host_functions(size_t *count)
{
    *count = ARRAY_LEN(functions);
    return functions;
}

bool abi_unknown_import(struct str module, struct str name, union vm_value *result)
{
    bool wasi = str_starts(module, STR("wasi_"));
    bool proxy = str_is(module, "env") && (str_starts(name, STR("proxy_")) || str_starts(name, STR("envoy_")));

    if (!wasi && !str_is(module, "env")) {
        return false; /* another system's module: nothing we could answer is right */
    }
    result->u32 = wasi ? 52 : proxy ? ABI_UNIMPLEMENTED : 0;
    log_line(LOG_WARN, "import %.*s.%.*s is not provided; calls answer %u", STR_ARG(module), STR_ARG(name),
             result->u32);
    return true;
}
