/* SPDX-License-Identifier: Apache-2.0
 *
 * What the ABI asks of whoever embeds it, the proxy or a test harness. `host` is the embedder's object for one plugin
 * on one worker, given to plugin_vm_attach; `stream` its object for one plugin on one stream, given to ctx_new.
 * Everything is called on the thread that owns the VM, and, unless said otherwise, from inside a host call: it must not
 * enter the guest.
 *
 * Sources: Proxy-Wasm ABI 0.1.0, 0.2.0, 0.2.1; semantics of Envoy 1.37 where the specification is silent.
 */
#ifndef WEIR_WASM_HOST_OPS_H
#define WEIR_WASM_HOST_OPS_H

#include "base/buf.h"
#include "base/headers.h"
#include "base/log.h"

/* proxy_status_t; only values that the Rust SDK knows may reach a guest (0-4, 7, 8, 10) besides 6 and 12. */
enum abi_status {
    ABI_OK = 0,
    ABI_NOT_FOUND = 1,
    ABI_BAD_ARGUMENT = 2,
    ABI_SERIALIZATION_FAILURE = 3,
    ABI_PARSE_FAILURE = 4,
    ABI_INVALID_MEMORY_ACCESS = 6,
    ABI_EMPTY = 7,
    ABI_CAS_MISMATCH = 8,
    ABI_INTERNAL_FAILURE = 10,
    ABI_UNIMPLEMENTED = 12,
};
enum abi_map {
    MAP_REQUEST_HEADERS = 0,
    MAP_REQUEST_TRAILERS = 1,
    MAP_RESPONSE_HEADERS = 2,
    MAP_RESPONSE_TRAILERS = 3,
    MAP_GRPC_INITIAL_METADATA = 4,
    MAP_GRPC_TRAILING_METADATA = 5,
    MAP_CALL_HEADERS = 6,
    MAP_CALL_TRAILERS = 7,
};
enum abi_buffer {
    BUFFER_REQUEST_BODY = 0,
    BUFFER_RESPONSE_BODY = 1,
    BUFFER_DOWNSTREAM_DATA = 2,
    BUFFER_UPSTREAM_DATA = 3,
    BUFFER_CALL_BODY = 4,
    BUFFER_GRPC_MESSAGE = 5,
    BUFFER_VM_CONFIGURATION = 6,
    BUFFER_PLUGIN_CONFIGURATION = 7,
    BUFFER_FOREIGN_ARGUMENTS = 8,
};
enum abi_stream { STREAM_REQUEST = 0, STREAM_RESPONSE = 1, STREAM_DOWNSTREAM = 2, STREAM_UPSTREAM = 3 };
enum abi_metric { METRIC_COUNTER = 0, METRIC_GAUGE = 1, METRIC_HISTOGRAM = 2 };

/* One name/value pair as guests pass them (proxy-wasm.md 1.6); borrowed. */
struct abi_pair {
    struct str name, value;
};
struct abi_pairs {
    const struct abi_pair *list;
    size_t count;
};

struct local_reply {
    uint32_t status;
    struct str details; /* response code details, whitespace made '_' */
    struct str body;
    struct abi_pairs headers;
    int32_t grpc_status; /* -1: none */
};

struct http_call {
    uint32_t id; /* as the guest knows it */
    struct str cluster;
    struct abi_pairs headers, trailers;
    struct str body;
    uint32_t timeout_ms; /* 0: the host's default ceiling */
};

enum map_access { MAP_READ, MAP_WRITE };

struct host_ops {
    /* -- streams -- */

    /* The live map of this kind, or NULL when there is none now, or (MAP_WRITE) when it may not be edited any more. For
     * trailers with MAP_WRITE inside the end_of_stream body callback it is created. */
    struct headers *(*map)(void *stream, enum abi_map map, enum map_access access);
    /* After edits of a map. A request header edit clears the cached route (ABI <= 0.2.1). */
    void (*map_changed)(void *stream, enum abi_map map);
    /* The body the guest may see now (request or response), or NULL. Edits go through buf_splice on it. */
    struct buf *(*body)(void *stream, enum abi_buffer which);
    void (*body_changed)(void *stream, enum abi_buffer which);
    /* Called after the outermost guest callback returned (the ABI layer defers them, arguments copied, first in first
     * out), but before the ctx_* or plugin_vm_* function that entered the guest returns: record what is asked for,
     * drive the stream later. `stream` need not be the one whose callback ran. A continue for the direction whose
     * callback of the same stream is running does not come here: that callback's action is CTX_CONTINUE instead.
     * local_reply also comes when an edit went beyond the limits of a map or body (431 or 500), and, before the guest
     * is entered, for a request header that is no UTF-8 (400, UTF8_REJECT). They may enter the guest again, and may end
     * any ctx but the one whose callback ran. */
    void (*local_reply)(void *stream, const struct local_reply *reply);
    void (*continue_stream)(void *stream, enum abi_stream which); /* STREAM_REQUEST or STREAM_RESPONSE */
    void (*close_stream)(void *stream, enum abi_stream which);
    /* At once, from inside the host call: a route property read next is the new route's. */
    void (*clear_route_cache)(void *stream);

    /* Properties: path segments joined by NUL, no trailing one. stream is NULL when a root context asks. plugin_name,
     * plugin_root_id and plugin_vm_id never come here, nor what the root itself has set (the ABI layer knows them). out
     * receives the binary form (pairs.h has the one of maps and lists). Also used, when not NULL, of the early ops of
     * plugin_vm_new, with host NULL. */
    enum abi_status (*get_property)(void *host, void *stream, struct str path, struct strbuf *out);
    /* stream is never NULL. set_envoy_filter_state comes as the path "filter_state" NUL name. The Rust SDK panics on
     * anything but OK. */
    enum abi_status (*set_property)(void *host, void *stream, struct str path, struct str value);

    /* -- plugin -- */

    /* Starts a callout; *handle is the host's, for cancel. Later, never before returning, the host calls
     * plugin_vm_call_done exactly once. BAD_ARGUMENT: unknown cluster; INTERNAL_FAILURE: limits; then there is no
     * plugin_vm_call_done. :method, :path and :authority were found present. Borrows call. */
    enum abi_status (*http_call)(void *host, const struct http_call *call, void **handle);
    void (*http_call_cancel)(void *host, void *handle);
    /* Period of on_tick (at least 10 ms); 0 stops; a new one restarts the timer. The host calls plugin_vm_tick. */
    void (*set_tick)(void *host, uint32_t period_ms);
    /* From ANY thread: a shared queue this VM registered has a new item. The host arranges for plugin_vm_queue_ready on
     * the VM's own thread, once for each call of this. token is the one given to plugin_vm_attach. Called with the lock
     * of all shared data held: it must be quick and must not come back into the ABI layer. Never called for a token
     * after plugin_vm_detach began. */
    void (*queue_wake)(uint64_t token, uint32_t queue_id);
    /* A line the guest logged, or the host about it. stream may be NULL. */
    void (*log)(void *host, void *stream, enum log_level level, struct str text);
    /* The VM failed (trap, deadline, memory); told once, after the outermost call returned. It must not be entered any
     * more: the host settles its streams and frees it later with plugin_vm_free (not from in here). */
    void (*vm_failed)(void *host, const char *callback, const char *reason);

    /* -- clock and random -- */
    uint64_t (*wall_ns)(void *host);
    uint64_t (*mono_ns)(void *host);
};

#endif
