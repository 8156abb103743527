/* SPDX-License-Identifier: Apache-2.0
 *
 * WASI preview 1 for guests that have no files, no arguments and no sockets: a log behind descriptors 1 and 2, clocks,
 * random bytes, the plugin's environment; everything else is refused in the way that start-up code of C, Rust and Go
 * libraries expects. All of it may be called from inside the guest's allocator (Go's collector does).
 */
#include <errno.h>
#include <sys/random.h>

#include "wasm/abi.h"

enum errno_wasi {
    W_SUCCESS = 0,
    W_BADF = 8,
    W_NOTDIR_ENVOY = 20, /* what Envoy answers to fd_readdir */
    W_FAULT = 21,
    W_INVAL = 28,
    W_NOENT = 44,
    W_NOSYS = 52,
    W_NOTSUP = 58,
};
enum { RANDOM_MAX = 64 * 1024, IOVS_MAX = 1024 };

#define WASI_FUNCTION(name)                                                                                            \
    static enum errno_wasi name##_(struct plugin_vm *pv, const union vm_value *a);                                     \
    vm_host_fn_proto wasi_##name;                                                                                      \
    void wasi_##name(struct vm *vm, union vm_value *args) { args[0].u32 = name##_(abi_enter_any(vm), args); }          \
    static enum errno_wasi name##_(struct plugin_vm *pv, const union vm_value *a)
#define WASI_CONSTANT(name, value)                                                                                     \
    WASI_FUNCTION(name)                                                                                                \
    {                                                                                                                  \
        (void)pv;                                                                                                      \
        (void)a;                                                                                                       \
        return value;                                                                                                  \
    }

WASI_CONSTANT(ok, W_SUCCESS)
WASI_CONSTANT(nosys, W_NOSYS)
WASI_CONSTANT(notsup, W_NOTSUP)
WASI_CONSTANT(noent, W_NOENT)
WASI_CONSTANT(badf, W_BADF) /* fd_prestat_get: this is what ends wasi-libc's scan for directories */
WASI_CONSTANT(args_get, W_SUCCESS)

static bool is_output(union vm_value fd) { return fd.u32 == 1 || fd.u32 == 2; }

WASI_FUNCTION(std_ok)
{
    (void)pv;
    return is_output(a[0]) ? W_SUCCESS : W_BADF;
}

static enum errno_wasi store_two(struct plugin_vm *pv, const union vm_value *a, size_t one, size_t two)
{
    if (!abi_gift_ok(pv, a[0], a[1])) {
        return W_FAULT;
    }
    abi_store_u32(pv, a[0], (uint32_t)one);
    abi_store_u32(pv, a[1], (uint32_t)two);
    return W_SUCCESS;
}

WASI_FUNCTION(sizes_zero) { return store_two(pv, a, 0, 0); }

/* ---- environment: what the plugin's configuration gives, nothing of the process ---- */

static size_t env_bytes(const struct plugin_env *e) { return strlen(e->name) + 1 + strlen(e->value) + 1; }

WASI_FUNCTION(environ_sizes_get)
{
    const struct plugin *p = pv->plugin;
    size_t bytes = 0;

    for (size_t i = 0; i < p->env_count; i++) {
        bytes += env_bytes(&p->env[i]);
    }
    return store_two(pv, a, p->env_count, bytes);
}

WASI_FUNCTION(environ_get)
{
    const struct plugin *p = pv->plugin;
    uint64_t at = a[1].u32;

    for (size_t i = 0; i < p->env_count; i++) {
        uint64_t slot = a[0].u32 + (uint64_t)i * 4;
        size_t n = env_bytes(&p->env[i]), name = strlen(p->env[i].name);
        if (slot > UINT32_MAX || at > UINT32_MAX) {
            return W_FAULT;
        }
        union vm_value where = {.u32 = (uint32_t)slot};
        char *mem = vm_mem(pv->vm, (uint32_t)at, (uint32_t)n);
        if (mem == NULL || !abi_writable(pv, where, 4)) {
            return W_FAULT;
        }
        abi_store_u32(pv, where, (uint32_t)at);
        memcpy(mem, p->env[i].name, name);
        mem[name] = '=';
        memcpy(mem + name + 1, p->env[i].value, n - name - 1); /* with its NUL */
        at += n;
    }
    return W_SUCCESS;
}

/* ---- clocks, random ---- */

static enum errno_wasi store_time(struct plugin_vm *pv, union vm_value out, uint64_t ns)
{
    if (!abi_writable(pv, out, 8)) {
        return W_FAULT;
    }
    abi_store_u64(pv, out, ns);
    return W_SUCCESS;
}

WASI_FUNCTION(clock_res_get) { return a[0].u32 <= 1 ? store_time(pv, a[1], 1) : W_NOTSUP; }

WASI_FUNCTION(clock_time_get)
{
    switch (a[0].u32) {
    case 0: return store_time(pv, a[2], abi_wall_ns(pv));
    case 1: return store_time(pv, a[2], abi_mono_ns(pv));
    default: return W_NOTSUP;
    }
}

WASI_FUNCTION(random_get)
{
    size_t n = a[1].u32;

    if (n > RANDOM_MAX) {
        return W_INVAL;
    }
    char *mem = n != 0 ? vm_mem(pv->vm, a[0].u32, (uint32_t)n) : NULL;
    if (n != 0 && mem == NULL) {
        return W_FAULT;
    }
    while (n != 0) {
        ssize_t got = getrandom(mem, n, 0);
        if (got < 0 && errno != EINTR) {
            return W_NOSYS;
        }
        if (got > 0) {
            mem += got;
            n -= (size_t)got;
        }
    }
    return W_SUCCESS;
}

/* Nothing to wait for: Go's runtime only wants a success. */
WASI_FUNCTION(poll_oneoff)
{
    if (!abi_writable(pv, a[3], 4)) {
        return W_FAULT;
    }
    abi_store_u32(pv, a[3], 0);
    return W_SUCCESS;
}

/* ---- descriptors 1 and 2 are the log ---- */

static void log_output(struct plugin_vm *pv, int which)
{
    struct strbuf *line = &pv->output[which];

    if (line->n != 0) {
        abi_log(pv, which == 0 ? LOG_INFO : LOG_ERROR, strbuf_str(line));
        strbuf_clear(line);
    }
}

void wasi_flush(struct plugin_vm *pv)
{
    log_output(pv, 0);
    log_output(pv, 1);
    pv->output_waits = false;
}

static void add_output(struct strbuf *line, struct str part)
{
    size_t room = LOG_LINE_MAX - line->n;

    strbuf_add(line, str_upto(part, part.n < room ? part.n : room));
}

/* What ends in a newline is a line; what does not waits for the rest of it until the callback ends: Go's panics come in
 * pieces of a word each. */
static enum errno_wasi write_log(struct plugin_vm *pv, const union vm_value *a, union vm_value out)
{
    uint64_t total = 0;
    char last = 0;

    if (!is_output(a[0])) {
        return W_BADF;
    }
    if (a[2].u32 > IOVS_MAX) {
        return W_INVAL;
    }
    const char *iovs = vm_mem(pv->vm, a[1].u32, a[2].u32 * 8);
    if ((iovs == NULL && a[2].u32 != 0) || !abi_writable(pv, out, 4)) {
        return W_FAULT;
    }
    struct strbuf *line = &pv->output[a[0].u32 - 1];
    size_t before = line->n;
    for (uint32_t i = 0; i < a[2].u32; i++) {
        union vm_value ptr = {0}, n = {0};
        struct str part;
        memcpy(&ptr.u32, iovs + i * 8, 4);
        memcpy(&n.u32, iovs + i * 8 + 4, 4);
        if (!abi_read(pv, ptr, n, &part)) {
            line->n = before;
            return W_FAULT;
        }
        total += part.n;
        last = part.n != 0 ? part.p[part.n - 1] : last;
        add_output(line, part);
    }
    if (total > UINT32_MAX) {
        line->n = before;
        return W_INVAL;
    }
    if (last == '\n') {
        line->n -= line->n != 0 && line->p[line->n - 1] == '\n';
        log_output(pv, a[0].u32 == 1 ? 0 : 1);
    } else {
        pv->output_waits = true;
    }
    abi_store_u32(pv, out, (uint32_t)total);
    return W_SUCCESS;
}

WASI_FUNCTION(fd_write) { return write_log(pv, a, a[3]); }

WASI_FUNCTION(fd_pwrite) { return write_log(pv, a, a[4]); }

/* filetype, flags, rights, inheriting rights: only "may be written" is true. */
WASI_FUNCTION(fd_fdstat_get)
{
    if (!is_output(a[0])) {
        return W_BADF;
    }
    char *mem = vm_mem(pv->vm, a[1].u32, 24);
    if (mem == NULL) {
        return W_FAULT;
    }
    memset(mem, 0, 24);
    mem[8] = 64;
    return W_SUCCESS;
}

WASI_FUNCTION(fd_readdir)
{
    if (!abi_writable(pv, a[4], 4)) {
        return W_FAULT;
    }
    abi_store_u32(pv, a[4], 0);
    return W_NOTDIR_ENVOY;
}

WASI_FUNCTION(fd_renumber)
{
    (void)pv;
    return is_output(a[0]) && is_output(a[1]) ? W_NOTSUP : W_BADF;
}

WASI_FUNCTION(fd_seek) { return store_time(pv, a[3], 0); }

WASI_FUNCTION(fd_tell) { return store_time(pv, a[1], 0); }

/* Must not return to the guest as if nothing had happened. It is how a command's start may end well; anything else is a
 * failure, whatever the code. */
vm_host_fn_proto wasi_proc_exit;
void wasi_proc_exit(struct vm *vm, union vm_value *args)
{
    const struct plugin_vm *pv = abi_enter_any(vm);

    if (pv->starting && !pv->allocating && args[0].u32 == 0) {
        vm_exit(vm);
        return;
    }
    char *text = mem_printf("proc_exit(%d)", args[0].i32);
    vm_raise(vm, text);
    mem_free(text);
}
