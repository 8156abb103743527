/* SPDX-License-Identifier: Apache-2.0
 *
 * Plugins and their VMs: what a module must look like, the start sequence, attach and detach, and the root context's
 * callbacks. Hard because a VM is started on a thread without a loop: what the guest asks for meanwhile (callouts,
 * ticks, queues) is kept and takes effect at attach. Must never enter a VM that failed, nor leave anything of one
 * behind in the process-wide tables.
 */
#include "wasm/abi.h"
#include "wasm/series.h"

enum { TABLE_ELEMENTS = 100 * 1000 /* a known Go WAF has 19,907 */ };

/* ---- limits and plugins ---- */

struct plugin_limits plugin_limits_default(void)
{
    return (struct plugin_limits){
        .cpu_deadline_ms = 100,
        .start_deadline_ms = 10000,
        .memory_bytes = 256ull * 1024 * 1024,
        .max_calls = 1024,
        .shared_bytes = 16 * 1024 * 1024,
        .max_metrics = 1000,
    };
}

static char *dup_or_empty(const char *s) { return mem_strdup(s != NULL ? s : ""); }

struct plugin *plugin_new(const struct plugin *desc)
{
    struct plugin *p = mem_alloc(sizeof *p);

    *p = *desc;
    atomic_init(&p->refs, 1);
    p->name = dup_or_empty(desc->name);
    p->root_id = dup_or_empty(desc->root_id);
    p->vm_id = dup_or_empty(desc->vm_id);
    p->config = desc->config != NULL ? mem_strndup(desc->config, desc->config_bytes) : NULL;
    p->config_bytes = desc->config != NULL ? desc->config_bytes : 0;
    p->env = mem_alloc(desc->env_count * sizeof *p->env);
    for (size_t i = 0; i < desc->env_count; i++) {
        p->env[i] = (struct plugin_env){dup_or_empty(desc->env[i].name), dup_or_empty(desc->env[i].value)};
    }
    p->module = module_ref(desc->module);
    p->series = series_open(str_of(p->name));
    return p;
}

struct plugin *plugin_ref(struct plugin *p)
{
    atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
    return p;
}

void plugin_unref(struct plugin *p)
{
    if (p == NULL || atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) != 1) {
        return;
    }
    for (size_t i = 0; i < p->env_count; i++) {
        mem_free(p->env[i].name);
        mem_free(p->env[i].value);
    }
    module_unref(p->module);
    series_close(p->series);
    mem_free(p->env);
    mem_free(p->name);
    mem_free(p->root_id);
    mem_free(p->vm_id);
    mem_free(p->config);
    mem_free(p);
}

metric_id plugin_metric(const struct plugin *p, enum metric_type type, struct str name, struct str labels,
                        const char *help)
{
    return series_define(p->series, type, name, labels, help);
}

/* ---- what a module must look like ---- */

const char *abi_version_name(enum abi_version v)
{
    switch (v) {
    case ABI_NONE: break;
    case ABI_0_1_0: return "0.1.0";
    case ABI_0_2_0: return "0.2.0";
    case ABI_0_2_1: return "0.2.1";
    }
    return "none";
}

enum abi_version abi_detect(const struct module_info *info, const char **warning)
{
    *warning = NULL;
    for (size_t i = 0; i < info->export_count; i++) {
        struct str name = info->exports[i].name;
        if (info->exports[i].kind != 'f' || !str_starts(name, STR("proxy_abi_version_"))) {
            continue;
        }
        name = str_from(name, sizeof "proxy_abi_version_" - 1);
        if (str_is(name, "0_1_0")) {
            return ABI_0_1_0;
        }
        if (str_is(name, "0_2_0")) {
            return ABI_0_2_0;
        }
        if (str_is(name, "0_2_1")) {
            return ABI_0_2_1;
        }
        if (str_starts(name, STR("0_2_"))) {
            *warning = "unknown Proxy-Wasm ABI version of the 0.2 family, run as 0.2.1";
            return ABI_0_2_1;
        }
    }
    return ABI_NONE;
}

struct callback {
    const char *name, *params, *results;
    const char *params_0_1; /* NULL: the same */
};
static const struct callback callbacks[CB_COUNT] = {
    [CB_REQUEST_HEADERS] = {"proxy_on_request_headers", "iii", "i", "ii"},
    [CB_REQUEST_BODY] = {"proxy_on_request_body", "iii", "i", NULL},
    [CB_REQUEST_TRAILERS] = {"proxy_on_request_trailers", "ii", "i", NULL},
    [CB_RESPONSE_HEADERS] = {"proxy_on_response_headers", "iii", "i", "ii"},
    [CB_RESPONSE_BODY] = {"proxy_on_response_body", "iii", "i", NULL},
    [CB_RESPONSE_TRAILERS] = {"proxy_on_response_trailers", "ii", "i", NULL},
    [CB_LOG] = {"proxy_on_log", "i", "", NULL},
    [CB_CALL_RESPONSE] = {"proxy_on_http_call_response", "iiiii", "", NULL},
    [CB_TICK] = {"proxy_on_tick", "i", "", NULL},
    [CB_QUEUE_READY] = {"proxy_on_queue_ready", "ii", "", NULL},
    [CB_DONE] = {"proxy_on_done", "i", "i", NULL},
    [CB_DELETE] = {"proxy_on_delete", "i", "", NULL},
    [CB_VM_START] = {"proxy_on_vm_start", "ii", "i", NULL},
    [CB_CONFIGURE] = {"proxy_on_configure", "ii", "i", NULL},
    [CB_CONTEXT_CREATE] = {"proxy_on_context_create", "ii", "", NULL},
    [CB_FOREIGN] = {"proxy_on_foreign_function", "iii", "", NULL},
};

const char *plugin_callback_name(enum plugin_callback cb) { return callbacks[cb].name; }

static const char *callback_params(enum plugin_callback cb, enum abi_version abi)
{
    return abi == ABI_0_1_0 && callbacks[cb].params_0_1 != NULL ? callbacks[cb].params_0_1 : callbacks[cb].params;
}

/* As module_info writes types: "(i32 i32) -> (i32)". All of the ABI's callbacks are made of i32. */
static char *type_text(const char *params, const char *results)
{
    struct strbuf out = {0};

    strbuf_addc(&out, '(');
    for (size_t i = 0; params[i] != 0; i++) {
        strbuf_addz(&out, i != 0 ? " i32" : "i32");
    }
    strbuf_addz(&out, ") -> (");
    for (size_t i = 0; results[i] != 0; i++) {
        strbuf_addz(&out, i != 0 ? " i32" : "i32");
    }
    strbuf_addc(&out, ')');
    return strbuf_take(&out);
}

static const struct module_export *find_export(const struct module_info *info, const char *name, char kind)
{
    for (size_t i = 0; i < info->export_count; i++) {
        if (info->exports[i].kind == kind && (name == NULL || str_is(info->exports[i].name, name))) {
            return &info->exports[i];
        }
    }
    return NULL;
}

static char *check_type(const struct module_info *info, const char *name, const char *params, const char *results)
{
    const struct module_export *e = find_export(info, name, 'f');
    char *error = NULL;

    if (e != NULL) {
        char *want = type_text(params, results);
        if (!str_is(str_of(e->type), want)) {
            error = mem_printf("export %s has type %s, expected %s", name, e->type, want);
        }
        mem_free(want);
    }
    return error;
}

char *abi_check_module(const struct module_info *info)
{
    const char *warning;
    enum abi_version abi = abi_detect(info, &warning);
    char *error = NULL;

    if (abi == ABI_NONE) {
        return mem_strdup("no Proxy-Wasm module of ABI 0.1.0, 0.2.0 or 0.2.1 (no proxy_abi_version_* export)");
    }
    if (find_export(info, NULL, 'm') == NULL) {
        return mem_strdup("the module exports no memory");
    }
    if (find_export(info, "proxy_on_memory_allocate", 'f') == NULL && find_export(info, "malloc", 'f') == NULL) {
        return mem_strdup("the module exports neither proxy_on_memory_allocate nor malloc");
    }
    error = check_type(info, "proxy_on_memory_allocate", "i", "i");
    if (error == NULL && find_export(info, "proxy_on_memory_allocate", 'f') == NULL) {
        error = check_type(info, "malloc", "i", "i");
    }
    for (size_t cb = 0; cb < CB_COUNT && error == NULL; cb++) {
        const char *params = callback_params((enum plugin_callback)cb, abi);
        error = check_type(info, callbacks[cb].name, params, callbacks[cb].results);
    }
    return error;
}

/* ---- start ---- */

static bool bind_functions(struct plugin_vm *pv, char **error)
{
    for (size_t cb = 0; cb < CB_COUNT; cb++) {
        const char *params = callback_params((enum plugin_callback)cb, pv->plugin->abi);
        pv->fn[cb] = vm_func(pv->vm, callbacks[cb].name, params, callbacks[cb].results);
        if (pv->fn[cb] == VM_FUNC_BAD_TYPE) {
            *error = mem_printf("export %s has a wrong type", callbacks[cb].name);
            return false;
        }
    }
    pv->fn_alloc = vm_func(pv->vm, "proxy_on_memory_allocate", "i", "i");
    if (pv->fn_alloc == VM_FUNC_NONE) {
        pv->fn_alloc = vm_func(pv->vm, "malloc", "i", "i");
    }
    if (pv->fn_alloc < 0) {
        *error = mem_strdup("the module exports no allocator (proxy_on_memory_allocate or malloc) of the right type");
        return false;
    }
    return true;
}

/* Not a callback of the ABI: _initialize, main and _start. */
static bool run_start(struct plugin_vm *pv, const char *name, int func, char **error)
{
    union vm_value v[2] = {{0}, {0}};

    if (func < 0) {
        return true;
    }
    pv->starting = true;
    enum vm_result result = vm_call(pv->vm, func, v, pv->plugin->limits.start_deadline_ms);
    pv->starting = false;
    wasi_flush(pv);
    if (result == VM_OK) {
        return true;
    }
    *error = mem_printf("%s: %s", name, vm_error(pv->vm));
    return false;
}

static bool run_initialize(struct plugin_vm *pv, char **error)
{
    int init = vm_func(pv->vm, "_initialize", "", "");

    if (init == VM_FUNC_NONE) {
        return run_start(pv, "_start", vm_func(pv->vm, "_start", "", ""), error);
    }
    if (!run_start(pv, "_initialize", init, error)) {
        return false;
    }
    int start = vm_func(pv->vm, "main", "ii", "i");
    if (start >= 0) {
        return run_start(pv, "main", start, error);
    }
    return run_start(pv, "__main_void", vm_func(pv->vm, "__main_void", "", "i"), error);
}

/* One callback of the root while starting; *ok is what the guest answered. */
static bool run_root(struct plugin_vm *pv, enum plugin_callback cb, uint32_t arg, bool *ok, char **error)
{
    union vm_value v[2] = {{.u32 = ROOT_ID}, {.u32 = arg}};

    *ok = true;
    if (pv->fn[cb] == VM_FUNC_NONE) {
        return true;
    }
    if (!context_call(pv, &pv->root, cb, v, pv->plugin->limits.start_deadline_ms)) {
        *error = mem_printf("%s: %s", pv->failed_in, pv->reason);
        return false;
    }
    *ok = v[0].u32 != 0;
    return true;
}

static enum plugin_start run_vm_start(struct plugin_vm *pv, char **error)
{
    bool ok;

    pv->configuring = true;
    if (!run_root(pv, CB_CONTEXT_CREATE, 0, &ok, error)) {
        return START_FAILED_VM;
    }
    pv->configuring = false;
    if (!run_root(pv, CB_VM_START, 0, &ok, error)) {
        return START_FAILED_VM;
    }
    if (!ok) {
        *error = mem_strdup("proxy_on_vm_start returned false");
        return START_FAILED_VM;
    }
    pv->configuring = true;
    if (!run_root(pv, CB_CONFIGURE, (uint32_t)pv->plugin->config_bytes, &ok, error)) {
        return START_FAILED_CONFIGURE;
    }
    pv->configuring = false;
    if (!ok) {
        *error = mem_strdup("proxy_on_configure returned false: the filter refuses its configuration");
        return START_FAILED_CONFIGURE;
    }
    return START_OK;
}

static enum plugin_start start(struct plugin_vm *pv, char **error)
{
    const struct plugin *p = pv->plugin;
    const struct vm_limits limits = {.memory_bytes = p->limits.memory_bytes, .table_elements = TABLE_ELEMENTS};
    struct vm *vm;

    enum vm_result result = vm_new(p->module, &limits, p->limits.start_deadline_ms, pv, &vm, error);
    if (result != VM_OK) {
        char *text = mem_printf("%s%s", *error, plugin_limit_hint(result, false));
        mem_free(*error);
        *error = text;
        wasi_flush(pv);
        pv->vm = NULL;
        return START_FAILED_VM;
    }
    pv->vm = vm;
    if (!bind_functions(pv, error) || !run_initialize(pv, error)) {
        return START_FAILED_VM;
    }
    return run_vm_start(pv, error);
}

enum plugin_start plugin_vm_new(struct plugin *plugin, const struct host_ops *early, struct plugin_vm **out,
                                char **error)
{
    struct plugin_vm *pv = mem_zalloc(sizeof *pv);

    pv->plugin = plugin_ref(plugin);
    pv->ops = early;
    pv->fn_alloc = VM_FUNC_NONE;
    pv->space = shared_open(str_of(plugin->vm_id));
    context_init(pv);
    *error = NULL;
    enum plugin_start result = start(pv, error);
    pv->ops = NULL;
    if (result != START_OK) {
        plugin_vm_free(pv);
        *out = NULL;
        return result;
    }
    atomic_store_explicit(&pv->memory_bytes, vm_memory_bytes(pv->vm), memory_order_relaxed);
    *out = pv;
    return START_OK;
}

/* ---- on a worker ---- */

void plugin_vm_attach(struct plugin_vm *pv, const struct host_ops *ops, void *host, uint64_t token)
{
    ASSERT(!pv->attached && !plugin_vm_is_dead(pv));
    pv->ops = ops;
    pv->host = host;
    pv->token = token;
    pv->attached = true;
    if (pv->tick_ms != 0) {
        ops->set_tick(host, pv->tick_ms);
    }
    queues_attach(pv);
    calls_attach(pv);
}

void plugin_vm_detach(struct plugin_vm *pv)
{
    static const enum plugin_callback last[] = {CB_DONE, CB_DELETE};

    ASSERT(pv->attached && !pv->detaching && pv->current == NULL);
    pv->detaching = true;
    queue_unsubscribe_all(pv->token);
    pv->ops->set_tick(pv->host, 0);
    for (size_t i = 0; i < ARRAY_LEN(last); i++) {
        union vm_value v[1] = {{.u32 = ROOT_ID}};
        if (pv->fn[last[i]] != VM_FUNC_NONE &&
            !context_call(pv, &pv->root, last[i], v, pv->plugin->limits.cpu_deadline_ms)) {
            break;
        }
    }
    calls_cancel_all(pv);
}

void plugin_vm_free(struct plugin_vm *pv)
{
    ASSERT(pv->current == NULL && !pv->draining && (!pv->attached || pv->detaching));
    context_fini(pv);
    calls_fini(pv);
    metrics_forget(pv);
    properties_forget(pv);
    if (pv->vm != NULL) {
        vm_free(pv->vm);
    }
    shared_close(pv->space);
    mem_free(pv->queues);
    mem_free(pv->resolved);
    mem_free(pv->pairs);
    mem_free(pv->reason);
    strbuf_free(&pv->scratch);
    strbuf_free(&pv->output[0]);
    strbuf_free(&pv->output[1]);
    plugin_unref(pv->plugin);
    mem_free(pv);
}

struct plugin *plugin_vm_plugin(const struct plugin_vm *pv) { return pv->plugin; }

bool plugin_vm_is_dead(const struct plugin_vm *pv) { return atomic_load_explicit(&pv->dead, memory_order_relaxed); }

uint64_t plugin_vm_memory_bytes(const struct plugin_vm *pv)
{
    return atomic_load_explicit(&pv->memory_bytes, memory_order_relaxed);
}

bool plugin_vm_has(const struct plugin_vm *pv, enum plugin_callback cb) { return pv->fn[cb] != VM_FUNC_NONE; }

const struct plugin_vm_stats *plugin_vm_stats(const struct plugin_vm *pv) { return &pv->stats; }

/* ---- the root's callbacks ---- */

static void root_call(struct plugin_vm *pv, enum plugin_callback cb, union vm_value *v)
{
    v[0].u32 = ROOT_ID;
    if (pv->fn[cb] != VM_FUNC_NONE) {
        (void)!context_call(pv, &pv->root, cb, v, pv->plugin->limits.cpu_deadline_ms);
    }
}

void plugin_vm_tick(struct plugin_vm *pv)
{
    union vm_value v[1] = {{0}};

    if (pv->tick_ms != 0 && !pv->detaching) {
        root_call(pv, CB_TICK, v);
    }
}

void plugin_vm_queue_ready(struct plugin_vm *pv, uint32_t queue_id)
{
    union vm_value v[2] = {{0}, {.u32 = queue_id}};

    if (!pv->detaching) {
        root_call(pv, CB_QUEUE_READY, v);
    }
}

void plugin_vm_call_done(struct plugin_vm *pv, uint32_t call_id, struct headers *headers, struct buf *body,
                         struct headers *trailers, const char *error)
{
    enum { BROKEN_CONNECTION = 11 };
    bool known = calls_finish(pv, call_id);

    if (known && !pv->detaching) {
        struct callout_answer outer = pv->answer;
        if (headers != NULL) {
            pv->answer = (struct callout_answer){.headers = headers, .trailers = trailers, .body = body};
        } else {
            struct str message = error != NULL ? str_of(error) : STR("reset");
            pv->answer = (struct callout_answer){.status = BROKEN_CONNECTION, .message = message};
        }
        union vm_value v[5] = {{0}, {.u32 = call_id}, {0}, {0}, {0}};
        v[2].u32 = headers != NULL ? headers->count : 0;
        v[3].u32 = headers != NULL && body != NULL ? (uint32_t)body->n : 0;
        v[4].u32 = headers != NULL && trailers != NULL ? trailers->count : 0;
        root_call(pv, CB_CALL_RESPONSE, v);
        pv->answer = outer;
    }
    if (body != NULL) {
        buf_clear(body);
    }
}
