/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files of the ABI share and nobody else sees: the VM with its contexts, how a host function gets at the
 * guest's memory, and how a guest is entered. Two rules hold everything together: the guest is entered by context_call
 * alone (the allocator by abi_alloc alone), and a pointer into guest memory dies with the next guest call.
 */
#ifndef WEIR_WASM_ABI_H
#define WEIR_WASM_ABI_H

#include "base/map.h"
#include "base/metrics.h"
#include "wasm/pairs.h"
#include "wasm/plugin.h"
#include "wasm/shared.h"

enum {
    ROOT_ID = 1,
    TICK_MIN_MS = 10,                     /* every worker runs every plugin's tick */
    BODY_EDIT_MAX = 64 * 1024 * 1024,     /* a guest's appends to one body */
    PENDING_CALL_BYTES = 4 * 1024 * 1024, /* of callouts asked for before attach, all together */
    PROPERTY_MAX_BYTES = 256 * 1024,      /* root-scope properties of one VM, all together */
    FOREIGN_MAX_BYTES = 4 * 1024 * 1024,  /* what compress and uncompress take and give */
    SCRATCH_KEEP = 256 * 1024,            /* a larger scratch is given back */
};

struct ctx {
    struct plugin_vm *pv;
    void *stream; /* NULL for the root */
    uint32_t id;
    enum abi_stream direction; /* of the callback that runs */
    bool running;              /* a callback of this context is on the stack */
    bool resumed;              /* it asked for its own continuation */
    bool replied;              /* it asked for a local reply; true until its next callback */
    bool ending;               /* in ctx_end: no more control of the stream */
    uint8_t queued;            /* actions that wait, bit (1 << enum action_kind), + stream */
    struct ctx *next;          /* in its bucket, or in the free list */
};

enum action_kind { ACTION_REPLY, ACTION_CONTINUE, ACTION_CLOSE };
struct action {
    enum action_kind kind;
    enum abi_stream which;
    struct ctx *ctx;           /* NULL: its context ended meanwhile */
    struct local_reply *reply; /* one block with all its bytes */
};

/* A callout that is out, or was asked for before attach. */
struct callout {
    uint32_t seq; /* upper half of its id; tells a late answer from the slot's next user */
    bool used;
    bool failed; /* attach could not start it */
    void *handle;
    struct http_call *pending; /* one block with all its bytes; NULL once started */
};
/* The answer that on_http_call_response may read now. */
struct callout_answer {
    struct headers *headers, *trailers;
    struct buf *body;
    uint32_t status;
    struct str message;
};

struct guest_metric {
    metric_id id;
    enum abi_metric type;
};

enum warning {
    WARN_GRPC,
    WARN_MAP_WRITE,
    WARN_EVICTED,
    WARN_QUEUE_FULL,
    WARN_METRICS,
    WARN_METRIC_TYPE,
    WARN_NO_STREAM,
    WARN_HEADERS_FULL,
    WARN_BODY_FULL,
    WARN_TICK,
    WARN_PROPERTY,
    WARN_BODY_WRITE,
    WARN_SHARED_VALUE,
};

struct plugin_vm {
    struct plugin *plugin;
    struct vm *vm;
    const struct host_ops *ops; /* early ones while starting, NULL between start and attach */
    void *host;
    uint64_t token;
    bool configuring; /* the root is being created or configured: 0.1.0's get_configuration gives the plugin's */
    bool starting;    /* in _initialize, main or _start: proc_exit(0) is a good end */
    bool attached, detaching, draining, told;
    atomic_bool dead;
    int fn[CB_COUNT], fn_alloc;

    struct ctx root;
    struct ctx *current;   /* whose callback runs; NULL when the guest does not run */
    struct ctx *effective; /* whom host functions act on */
    bool allocating;       /* the guest's allocator is on the stack */
    struct ctx **buckets;  /* stream contexts by id */
    uint32_t bucket_count, ctx_count, next_id;
    struct ctx *free_ctx;

    struct action *actions; /* FIFO from action_first */
    size_t action_first, action_count, action_cap;

    struct callout *callouts;
    uint32_t callout_cap, callouts_used, callout_seq;
    size_t pending_bytes;
    struct callout_answer answer;

    uint32_t tick_ms;
    struct shared_space *space;
    uint32_t *queues; /* that this VM registered */
    size_t queue_count;
    uint32_t *resolved; /* of other spaces that this VM resolved */
    size_t resolved_count;

    struct guest_metric *metrics;
    size_t metric_count;
    struct map metric_names; /* type byte + name -> index + 1 */

    struct map properties; /* root scope: path -> strbuf */
    size_t property_bytes;

    struct strbuf scratch;  /* what is being given to the guest */
    struct strbuf output[2]; /* what descriptors 1 and 2 were given since the last newline; at most LOG_LINE_MAX */
    bool output_waits;       /* there may be some */
    struct abi_pair *pairs; /* PAIRS_MAX_COUNT, made on first need */
    uint32_t warned;        /* bits of enum warning */

    enum vm_result failure;
    const char *failed_in; /* name of the callback */
    char *reason;

    atomic_uint_fast64_t memory_bytes; /* sampled: asking costs as much as a host call */
    uint32_t call_count;
    struct plugin_vm_stats stats;
};

/* ---- host functions ---- */

/* An ABI host function; a are its arguments. The status goes back to the guest. */
typedef enum abi_status abi_fn(struct plugin_vm *pv, const union vm_value *a);
typedef void vm_host_fn_proto(struct vm *vm, union vm_value *args);

/* The VM that calls; NULL (and the guest will trap) when its allocator does. */
struct plugin_vm *abi_enter(struct vm *vm);
/* As abi_enter for what the allocator may call too (log, clocks, WASI). */
struct plugin_vm *abi_enter_any(struct vm *vm);

/* Defines host function proxy_NAME over the function that follows. */
#define ABI_FUNCTION(name)                                                                                             \
    static abi_fn name##_;                                                                                             \
    vm_host_fn_proto proxy_##name;                                                                                     \
    void proxy_##name(struct vm *vm, union vm_value *args)                                                             \
    {                                                                                                                  \
        struct plugin_vm *pv = abi_enter(vm);                                                                          \
        args[0].u32 = pv != NULL ? name##_(pv, args) : ABI_INTERNAL_FAILURE;                                           \
    }                                                                                                                  \
    static enum abi_status name##_(struct plugin_vm *pv, const union vm_value *a)
/* As ABI_FUNCTION, for what the allocator may call too. */
#define ABI_FUNCTION_ANY(name)                                                                                         \
    static abi_fn name##_;                                                                                             \
    vm_host_fn_proto proxy_##name;                                                                                     \
    void proxy_##name(struct vm *vm, union vm_value *args) { args[0].u32 = name##_(abi_enter_any(vm), args); }         \
    static enum abi_status name##_(struct plugin_vm *pv, const union vm_value *a)

/* Guest memory as bytes; false when any of it is outside. Borrowed until the next guest call. */
NODISCARD bool abi_read(struct plugin_vm *pv, union vm_value ptr, union vm_value size, struct str *out);
/* Are n bytes at ptr the guest's? */
bool abi_writable(struct plugin_vm *pv, union vm_value ptr, uint32_t n);
/* ptr was found writable; the memory may have moved since, never shrunk. */
void abi_store_u32(struct plugin_vm *pv, union vm_value ptr, uint32_t v);
void abi_store_u64(struct plugin_vm *pv, union vm_value ptr, uint64_t v);
/* A block of the guest's allocator of exactly n > 0 bytes; *mem is valid until the next guest call. */
enum abi_status abi_alloc(struct plugin_vm *pv, size_t n, uint32_t *ptr, void **mem);
/* Gives data (not in guest memory) to the guest: block, then its address and size to the out-pointers, which were found
 * writable. Empty data is address 0 and size 0. */
enum abi_status abi_give(struct plugin_vm *pv, struct str data, union vm_value out_ptr, union vm_value out_size);
void abi_give_none(struct plugin_vm *pv, union vm_value out_ptr, union vm_value out_size);
/* Both out-pointers of a gift. */
static inline bool abi_gift_ok(struct plugin_vm *pv, union vm_value out_ptr, union vm_value out_size)
{
    return abi_writable(pv, out_ptr, 4) && abi_writable(pv, out_size, 4);
}
/* Guest's pairs into pv->pairs; BAD_ARGUMENT (logged) when malformed. They borrow guest memory. */
enum abi_status abi_read_pairs(struct plugin_vm *pv, union vm_value ptr, union vm_value size, struct abi_pairs *out);
/* Of a few nanoseconds when it is ASCII. */
bool abi_is_utf8(struct str s);
/* The scratch, empty. */
struct strbuf *abi_scratch(struct plugin_vm *pv);
void abi_scratch_done(struct plugin_vm *pv);

/* A line about or of the guest, cut to LOG_LINE_MAX. */
void abi_log(struct plugin_vm *pv, enum log_level level, struct str text);
void abi_logf(struct plugin_vm *pv, enum log_level level, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* As abi_logf at level warn, once for each VM. */
void abi_warn_once(struct plugin_vm *pv, enum warning w, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* Logs what the guest has written without ending the line. */
void wasi_flush(struct plugin_vm *pv);
uint64_t abi_wall_ns(struct plugin_vm *pv);
uint64_t abi_mono_ns(struct plugin_vm *pv);

/* ---- contexts ---- */

/* Enters the guest; values[0] has the result. False when the VM is dead or died. Runs the actions that the guest asked
 * for. */
NODISCARD bool context_call(struct plugin_vm *pv, struct ctx *ctx, enum plugin_callback cb, union vm_value *values,
                            uint32_t deadline_ms);
/* Which annotation moves the limit that was hit; "" for other ends. */
const char *plugin_limit_hint(enum vm_result result, bool on_worker);
/* Records the first failure. */
void context_failed(struct plugin_vm *pv, enum vm_result result, const char *where, const char *reason);
/* Tells the host of the failure, once, when no call is on the stack. */
void context_tell_failure(struct plugin_vm *pv);
/* The live context of that id, the root's included; NULL. */
struct ctx *context_find(struct plugin_vm *pv, uint32_t id);
void context_init(struct plugin_vm *pv);
void context_fini(struct plugin_vm *pv);
/* Asks for an action after the outermost callback. reply (one block) becomes the queue's. */
void context_defer(struct ctx *ctx, enum action_kind kind, enum abi_stream which, struct local_reply *reply);
/* Ends the stream of ctx with a local reply of ours, after the callback. */
void context_fail_stream(struct ctx *ctx, uint32_t status, const char *details);
/* A copy of reply in one block (mem_free). */
struct local_reply *reply_copy(const struct local_reply *reply);

/* ---- parts that plugin.c starts and ends ---- */

void calls_attach(struct plugin_vm *pv);
void calls_cancel_all(struct plugin_vm *pv);
/* Frees the slot and returns true when the id is of a live call. */
bool calls_finish(struct plugin_vm *pv, uint32_t id);
void calls_fini(struct plugin_vm *pv);
void queues_attach(struct plugin_vm *pv);
void metrics_forget(struct plugin_vm *pv);
void properties_forget(struct plugin_vm *pv);
/* Root-scope store and ops, as the host function does; for set_envoy_filter_state. */
enum abi_status abi_property_set(struct plugin_vm *pv, struct str path, struct str value);

/* proxy_call_foreign_function's table; results go to out. */
enum abi_status foreign_call(struct plugin_vm *pv, struct str name, struct str args, struct strbuf *out);

#endif
