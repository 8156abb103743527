/* SPDX-License-Identifier: Apache-2.0
 *
 * A plugin: module + configuration + fail strategy + limits, one immutable generation of it, shared by all threads; a
 * plugin_vm: its VM and root context on one worker; a ctx: its stream context. This is the ABI as its embedder sees it.
 *
 *   builder thread          plugin_vm_new      instantiate, _initialize, on_context_create, on_vm_start, on_configure
 *   worker thread           plugin_vm_attach   ticks, queues, callouts asked for so far take effect
 *                           ctx_new, ctx_on_*, ctx_end    for each stream
 *                           plugin_vm_detach, plugin_vm_free
 */
#ifndef WEIR_WASM_PLUGIN_H
#define WEIR_WASM_PLUGIN_H

#include <stdatomic.h>

#include "base/metrics.h"
#include "wasm/host_ops.h"
#include "wasm/vm.h"

enum fail_strategy { FAIL_CLOSE, FAIL_OPEN, FAIL_RELOAD };
enum abi_version { ABI_NONE, ABI_0_1_0, ABI_0_2_0, ABI_0_2_1 };
enum header_utf8 { UTF8_REJECT /* request gets 400 */, UTF8_ESCAPE, UTF8_PASS };
/* What a PAUSE (1) returned by a header callback means (proxy-wasm.md 2.3). */
enum pause_headers {
    PAUSE_ALL /* Envoy's default: no further callback until continue */,
    PAUSE_HEADERS_ONLY /* body still delivered */
};

struct plugin_env {
    char *name, *value;
};
struct plugin_limits {
    uint32_t cpu_deadline_ms;   /* each stream callback, tick, queue event, callout answer; default 100 */
    uint32_t start_deadline_ms; /* start and configure; default 10,000 */
    uint64_t memory_bytes;      /* each VM; default 256 MiB */
    uint32_t pause_limit_ms;    /* how long a stream may stay paused; default 0: as the listener has it */
    uint32_t max_calls;         /* outstanding callouts of one VM */
    uint32_t shared_bytes;      /* shared data and queues of its vm_id */
    uint32_t max_metrics;
};

/* One generation. Immutable after plugin_new but for the reference count and counters. */
struct plugin {
    atomic_uint refs;
    uint64_t generation;
    char *name;    /* "<namespace>.<name>", the property plugin_name */
    char *root_id; /* pluginName; "" when unset */
    char *vm_id;   /* space of shared data and queues; the namespace by default */
    char *config;  /* pluginConfig as JSON; may be NULL when config_bytes is 0 */
    size_t config_bytes;
    struct plugin_env *env;
    size_t env_count;
    enum fail_strategy fail;
    enum header_utf8 utf8;
    enum pause_headers pause_headers;
    struct plugin_limits limits;
    enum abi_version abi;
    struct module *module; /* one reference */
    char sha256[65];       /* of the wasm */
    struct series_user *series; /* made by plugin_new: the metrics of this name */
};
/* Defaults of every limit. */
struct plugin_limits plugin_limits_default(void);
/* Copies the strings of desc; keeps a reference on desc->module. One reference for the caller. */
struct plugin *plugin_new(const struct plugin *desc);
struct plugin *plugin_ref(struct plugin *p);
void plugin_unref(struct plugin *p);
/* As metrics_define, of a series about this plugin: it is removed with the last generation of the plugin's name. Any
 * thread. */
metric_id plugin_metric(const struct plugin *p, enum metric_type type, struct str name, struct str labels,
                        const char *help);

/* First marker export of function kind; *warning (constant) when an unknown 0.2 marker is taken as 0.2.1. ABI_NONE: not
 * a Proxy-Wasm module. */
enum abi_version abi_detect(const struct module_info *info, const char **warning);
const char *abi_version_name(enum abi_version v);
/* The host function table for module_load_file, and its unknown-import rule. */
const struct vm_host_func *abi_host_functions(size_t *count);
bool abi_unknown_import(struct str module, struct str name, union vm_value *result);
/* Callback exports of a wrong type, missing memory or allocator: a text for the status (mem_free), or NULL. */
char *abi_check_module(const struct module_info *info);

/* ---- VM with root context ---- */

struct plugin_vm;
enum plugin_start { START_OK, START_FAILED_VM /* instantiate, _initialize, on_vm_start */, START_FAILED_CONFIGURE };
/* Any thread without a loop (builder): start_deadline_ms each for start and configure. log lines of the guest go to
 * early->log (its get_property is asked by the root when it is not NULL; its other functions are not used; host NULL).
 * early may be NULL and is not kept. *error (mem_free) says why when it is not START_OK. Keeps a ref on plugin. */
NODISCARD enum plugin_start plugin_vm_new(struct plugin *plugin, const struct host_ops *early, struct plugin_vm **out,
                                          char **error);
/* Worker: from now on this VM is entered here only. Callouts, tick period and queue registrations made while
 * configuring take effect. token: for queue_wake, unique in the process. ops and host must outlive the VM. */
void plugin_vm_attach(struct plugin_vm *pv, const struct host_ops *ops, void *host, uint64_t token);
/* Cancels callouts, drops queue registrations, stops ticks, calls on_done/on_delete of the root when the VM is alive
 * (its answer does not delay anything). When: the VM is dead, or its last ctx has ended (one that waits for a callout
 * would otherwise wait for ever). No ctx_new after it; a ctx that is left may still be called and must be ended. */
void plugin_vm_detach(struct plugin_vm *pv);
/* After detach (or without attach), with no ctx left and not from inside a guest call or host op. */
void plugin_vm_free(struct plugin_vm *pv);
struct plugin *plugin_vm_plugin(const struct plugin_vm *pv);
bool plugin_vm_is_dead(const struct plugin_vm *pv);
/* As of a recent callback; any thread. */
uint64_t plugin_vm_memory_bytes(const struct plugin_vm *pv);
/* Does the guest export this callback? Filters without one are left out of that phase. */
enum plugin_callback {
    CB_REQUEST_HEADERS,
    CB_REQUEST_BODY,
    CB_REQUEST_TRAILERS,
    CB_RESPONSE_HEADERS,
    CB_RESPONSE_BODY,
    CB_RESPONSE_TRAILERS,
    CB_LOG,
    CB_CALL_RESPONSE,
    CB_TICK,
    CB_QUEUE_READY,
    CB_DONE,
    CB_DELETE,
    CB_VM_START,
    CB_CONFIGURE,
    CB_CONTEXT_CREATE,
    CB_FOREIGN,
    CB_COUNT
};
const char *plugin_callback_name(enum plugin_callback cb); /* "proxy_on_request_headers" */
bool plugin_vm_has(const struct plugin_vm *pv, enum plugin_callback cb);

void plugin_vm_tick(struct plugin_vm *pv);
void plugin_vm_queue_ready(struct plugin_vm *pv, uint32_t queue_id);
/* The answer of a callout; headers NULL: it failed (on_http_call_response with 0 headers; get_status says error).
 * Borrows; body is empty after. Unknown and cancelled ids are ignored. */
void plugin_vm_call_done(struct plugin_vm *pv, uint32_t call_id, struct headers *headers, struct buf *body,
                         struct headers *trailers, const char *error);

/* Counters of one VM, written by its thread, read by anyone (relaxed). Latency buckets in wall time of the loop's clock
 * are too coarse, so the ABI layer reads the CPU's timestamp counter around each outermost callback. */
struct plugin_vm_stats {
    struct {
        _Atomic uint64_t calls, traps, breaches, ns;
        _Atomic uint64_t bucket[16]; /* callback time: < 1 us, < 2 us, < 4 us, ... */
    } cb[CB_COUNT];
};
const struct plugin_vm_stats *plugin_vm_stats(const struct plugin_vm *pv);

/* ---- stream contexts ---- */

enum ctx_action {
    CTX_CONTINUE,
    CTX_PAUSE,            /* headers: this filter still gets the body (PAUSE_HEADERS_ONLY); trailers: hold */
    CTX_PAUSE_ALL,        /* headers: nothing more for this filter until continue; body waits with back-pressure */
    CTX_PAUSE_ALL_BUFFER, /* headers: as above, but exceeding the buffer is an error */
    CTX_BUFFER,           /* body: keep it all, exceeding the buffer limit is 413/500 */
    CTX_WATERMARK,        /* body: keep it, back-pressure at the limit */
    CTX_NO_BUFFER,        /* body: this chunk is consumed by the filter */
    CTX_FAILED,           /* the VM died in this call or was dead */
};

struct ctx;
/* A stream context; the guest's on_context_create runs now. NULL when the VM is dead or died in it. stream is given to
 * host_ops. */
struct ctx *ctx_new(struct plugin_vm *pv, void *stream);
uint32_t ctx_id(const struct ctx *ctx);
enum ctx_action ctx_request_headers(struct ctx *ctx, size_t count, bool end);
enum ctx_action ctx_request_body(struct ctx *ctx, size_t size, bool end);
enum ctx_action ctx_request_trailers(struct ctx *ctx, size_t count);
enum ctx_action ctx_response_headers(struct ctx *ctx, size_t count, bool end);
enum ctx_action ctx_response_body(struct ctx *ctx, size_t size, bool end);
enum ctx_action ctx_response_trailers(struct ctx *ctx, size_t count);
/* on_log, then on_done, then on_delete (Envoy's order for HTTP; what the VM exports and while it lives), then frees
 * ctx. Safe on a dead VM. Not from inside a host call, nor for the ctx whose ctx_* function is on the stack. */
void ctx_end(struct ctx *ctx);
/* Was a local reply asked for in the callback that just returned, by the guest or for it? (Its action is then ignored,
 * and host_ops.local_reply has been called.) */
bool ctx_replied(const struct ctx *ctx);

/* Name space shared by VMs of one vm_id is process-wide (shared.c); dropped with its last VM. */

#endif
