/* SPDX-License-Identifier: Apache-2.0
 *
 * Plugin delivery: from a WasmPlugin's newest good text to a VM on every worker.
 *
 *   pull (remembered, or fetched and verified) -> compile (child) -> build and configure a VM for each worker (builder) ->
 * hand over -> adopted by every worker -> Programmed
 *
 * Code of the fast compiler is swapped for optimised code in the background, by an ordinary swap of the same text.
 *
 * Each object walks alone: a slow or broken one delays no other. While a new version is on its way, or when it fails,
 * the last one that worked goes on serving; with none, the fail strategy answers. A newer text always wins over an
 * older one that is still on its way.
 *
 * What failed is tried again when the outside may have changed:
 *
 *   fetch failed, cache not writable           soon: after 1 s, doubling to 60 s, or when the server says (Retry-After)
 *   a server gave wrong bytes (digest, form)   later: after 60 s, doubling to 15 min (a file is watched instead)
 *   compiler killed or out of time             later
 *   start or configure failed                  later: a guest may depend on the time, its environment or memory left
 *   cached code that does not load             once, compiled anew
 *   imagePullSecret missing or wrong           when the Secret changes
 *   everything else                            not: a new text, or a new file, starts afresh
 *
 * plugin.weir/recheck-interval asks the registry now and then what the tag names.
 *
 * The log says each transition once: active, not active and why (not again for the same failure of the same text),
 * active as before, removed; and each loss and return of a VM.
 */
#ifndef WEIR_CONTROL_DELIVERY_H
#define WEIR_CONTROL_DELIVERY_H

#include "control/builder.h"
#include "control/code.h"
#include "fetch/fetch.h"
#include "control/store.h"
#include "proxy/snapshot.h"
#include "proxy/worker.h"

enum delivery_stage {
    DELIVERY_FETCH,
    DELIVERY_COMPILE,
    DELIVERY_BUILD,
    DELIVERY_ADOPT,      /* handed to the workers */
    DELIVERY_PROGRAMMED, /* every worker has adopted it */
    DELIVERY_FAILED,     /* definitely, until the object changes or a retry comes */
};
const char *delivery_stage_name(enum delivery_stage s);

/* What changes when a file is written or replaced. */
struct file_stamp {
    uint64_t device, inode, size, mtime_ns;
};

/* The way of an object's newest text, for its conditions. A step that has ended stays as it ended until a new text (or a
 * retry, a re-check, the optimising compile) comes to it again; a step behind one that failed is WAITING. */
enum delivery_step {
    STEP_ACCEPT,    /* Weir takes the text: kind, type, and what a plugin from an API may name */
    STEP_FETCH,     /* the module's bytes are here, and are what sha256 says */
    STEP_VERIFY,    /* the signature is good (SKIPPED without verificationKey), the module is Proxy-Wasm of a known ABI */
    STEP_COMPILE,   /* native code is there */
    STEP_CONFIGURE, /* a VM for every worker has started and taken its configuration */
    STEP_PROGRAM,   /* every worker has adopted it */
    STEP_COUNT
};
enum delivery_step_state { STEP_WAITING, STEP_GOING, STEP_DONE, STEP_SKIPPED, STEP_FAILED };
struct delivery_step_fact {
    enum delivery_step_state state;
    int64_t since_s;  /* wall clock, seconds since 1970, of the last change of state; 0: never changed */
    uint64_t took_ms; /* from GOING to the end of it, the last time it ended */
    uint64_t began_ms; /* loop time; delivery's own */
};
enum delivery_source { SOURCE_NONE, SOURCE_FILE, SOURCE_HTTP, SOURCE_OCI };
/* All texts are owned by the item; NULL or "" when not known (yet). None holds a credential. They tell of the newest
 * text; what serves is in live_* (equal once the newest text is programmed). */
struct delivery_facts {
    struct delivery_step_fact steps[STEP_COUNT];
    enum delivery_source source;
    char *from;             /* where the bytes came from: "http://127.0.0.1:5000/my-wasm-filter:latest"; NULL */
    char *progress;         /* while STEP_FETCH is GOING: "downloading 3 of 5 MiB"; NULL */
    char *warning;          /* what looks wrong but stops nothing (a url that became oci:///, ...); NULL */
    char module_sha256[65]; /* of the module's unpacked bytes */
    char digest[80];        /* oci: "sha256:..." of the manifest */
    char index_digest[80];  /* oci: of the index it was found in */
    uint64_t module_bytes;
    char tier[12];          /* of the code the newest text got: "fast" or "optimised" */
    bool verified;          /* a signature was checked with verificationKey */
    bool bytes_from_cache;  /* no layer or file was downloaded for it */
    bool code_from_cache;   /* nothing was compiled for it */
    int64_t retry_at_s;     /* wall clock of the next try; 0: none is planned */
    int64_t recheck_at_s;   /* wall clock of the next look at the tag (plugin.weir/recheck-interval); 0: none */
    unsigned rechecks;      /* looks at the tag since the text came */
    char live_digest[80], live_tier[12]; /* of what serves now; live->sha256 is its module */
    /* The newest failure's reason and message are item->reason and item->message, and the step is the FAILED one. */
};

/* A module on disk and its code, held there. */
struct delivery_module {
    char *path; /* of its bytes, in the cache; NULL: none */
    size_t n;
    int hold, code_hold; /* -1: none */
    char sha256[65], digest[80];
    enum abi_version abi;
    enum compile_tier tier;
};

struct delivery_retry;
/* A plugin on one worker. */
struct delivery_worker {
    const char *state;         /* "live", "restarting", "quarantined"; NULL: nothing yet */
    char *reason;              /* of the last loss; NULL */
    unsigned losses, attempts; /* attempts: replacements that failed in a row */
    struct delivery_retry *retry;
};

struct delivery_item {
    enum kind kind;
    char *title;               /* "istio-system/my-wasm-plugin" */
    struct resource *resource; /* newest good text that is being delivered; one reference */
    char want_key[65];         /* what makes a new generation: module, configuration, environment, limits, ... */
    char live_key[65], live_vm_key[65];
    struct plugin *live;                /* generation in use; NULL: never was one */
    struct resource *live_resource;     /* the text it was made for; one reference */
    struct delivery_module live_module; /* what it was made of */
    struct delivery_module wanted;      /* what the newest text's last attempt, which failed, had come by */
    bool live_adopted;                       /* by every worker */
    bool live_is_better;                     /* made for its code only; the text was programmed before */
    uint64_t adopt_version, live_changed_ms; /* the snapshot that carries live (0: not published yet) */
    enum delivery_stage stage;               /* of the newest text */
    enum plugin_absence absence;             /* while live is NULL */
    struct delivery_facts facts;             /* for conditions */
    char *reason;                            /* CamelCase word of the newest text's failure; NULL */
    char *message;                           /* text of it; NULL */
    bool failure_said;                       /* the log's last word is that it is not active */
    bool settled;                            /* was programmed once, or has failed once: /ready waits for it no more */
    bool fresh_code;                         /* do not take compiled code from the cache */
    uint64_t changed_ms;                     /* loop time when the newest text came */
    uint64_t took_ms;                        /* from then until Programmed */
    uint64_t retry_ms;                       /* loop time of the next try; 0: none */
    unsigned swaps, failures;
    struct delivery_worker *workers;
    bool seen;
    struct file_stamp file;       /* of a file:// module when it was last fetched */
    char *version;                /* of the object when its module was last asked for (imagePullPolicy Always) */
    uint8_t secret[32];           /* digest of its imagePullSecret then */
    bool again;                   /* its next try asks the registry whatever is remembered */
    char bad_sha256[65];          /* of a module that will never do for this text; "" */
    struct delivery_work *work;   /* candidate on its way; NULL */
    struct delivery_work *better; /* optimised code for what serves, on its way; NULL */
    struct delivery_retry *retry, *recheck, *better_retry;
};

struct delivery;
struct delivery_options {
    struct loop *loop;
    struct mailbox *control;
    struct worker **workers;
    unsigned worker_count;
    struct engine *engine;
    struct module_cache *cache;
    struct fetcher *fetcher;
    struct code_maker *code;
    struct builder *builder;
    /* For objects that came by an API: where file:// modules may lie (NULL: nowhere), and which variables of this
     * process they may read. */
    const char *module_dir;
    const char *const *host_env;
    size_t host_env_count;
    /* What a snapshot says of some plugin has changed; never called from inside a delivery function. */
    void (*changed)(void *arg);
    /* What status says of some plugin may have changed: stage, step, reason, a worker's state. NULL: nobody listens. Never
     * called from inside a delivery function; one call for many changes. */
    void (*told)(void *arg);
    void *arg;
};
struct delivery *delivery_new(const struct delivery_options *options);
/* Follows the store: starts what is new or changed, drops what is gone. A plugin that applies to nothing is delivered
 * too, so that its status tells the truth. */
void delivery_update(struct delivery *d, const struct store *store);
/* Fetches file:// modules again whose file has changed: a filter that was just rebuilt goes live by itself. To be
 * called now and then. */
void delivery_check_files(struct delivery *d);
const struct delivery_item *delivery_find(const struct delivery *d, enum kind kind, const char *ns, const char *name);
struct map *delivery_items(struct delivery *d);
/* Snapshot `version` has been published; and all workers have adopted it. */
void delivery_published(struct delivery *d, uint64_t version);
void delivery_adopted(struct delivery *d, uint64_t version);
/* Takes job (mail of type DELIVERY_BUILT). */
enum { DELIVERY_BUILT = 1000 };
void delivery_built(struct delivery *d, struct build_job *job);
void delivery_vm_lost(struct delivery *d, const struct mail_from_worker *mail);
/* Before the builder, the code maker and the fetcher are freed; builds that come back later are the owner's to drop. */
void delivery_free(struct delivery *d);

#endif
