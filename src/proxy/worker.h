/* SPDX-License-Identifier: Apache-2.0
 *
 * A worker: one thread, one loop, and everything that serves traffic on it: listeners, connections, pools, clusters,
 * plugin slots, the current runtime. It shares nothing on the request path; control speaks to it through its mailbox
 * and hears from it through control's.
 */
#ifndef WEIR_PROXY_WORKER_H
#define WEIR_PROXY_WORKER_H

#include "io/mailbox.h"
#include "proxy/cluster.h"
#include "proxy/snapshot.h"

/* control -> worker; each struct begins with struct mail and is freed by the worker (mem_free), what it points to as
 * said */
enum worker_mail {
    MAIL_SNAPSHOT,      /* mail_snapshot: adopt; answered by MAIL_ADOPTED */
    MAIL_ENDPOINTS,     /* mail_endpoints */
    MAIL_LISTENER,      /* mail_listener: serve this socket */
    MAIL_LISTENER_GONE, /* mail_listener with fd -1: close the socket of that address (accept what is queued first) */
    MAIL_VM,            /* mail_vm: a VM of a generation for this worker */
    MAIL_RETIRE,        /* mail_retire: no chain uses this generation any more: free its VM when its last stream ends */
    MAIL_QUEUE,         /* mail_queue: a shared queue has an item */
    MAIL_DRAIN,         /* begin to drain; MAIL_DRAINED when the last stream and connection are gone */
    MAIL_CUT,           /* drain time is over: cut what is left */
    MAIL_STOP,          /* leave the loop */
    /* worker -> control */
    MAIL_ADOPTED,   /* mail_from_worker */
    MAIL_VM_LOST,   /* mail_from_worker: the VM of `generation` died; reason; a replacement is wanted no sooner than
                       wanted_in_ms (0: not wanted) */
    MAIL_VM_FREED,  /* mail_from_worker: the last VM of a retired generation is gone here */
    MAIL_DRAINED,   /* mail_from_worker */
    MAIL_LISTENING, /* mail_from_worker: listener of MAIL_LISTENER is armed */
};
struct mail_snapshot {
    struct mail mail;
    struct snapshot *snapshot; /* one reference, taken */
};
struct mail_endpoints {
    struct mail mail;
    bool gone;                  /* no resource declares the cluster any more; the list is empty */
    char *key;                  /* taken */
    struct endpoint_conf *list; /* taken */
    size_t count;
};
struct mail_listener {
    struct mail mail;
    struct addr addr;
    int fd; /* taken */
};
struct mail_vm {
    struct mail mail;
    struct plugin_vm *vm; /* taken; not attached */
};
struct mail_retire {
    struct mail mail;
    uint64_t generation;
};
struct mail_queue {
    struct mail mail;
    uint64_t token;
    uint32_t queue_id;
};
struct mail_from_worker {
    struct mail mail;
    unsigned worker;
    uint64_t version, generation;
    uint64_t wanted_in_ms;
    bool quarantined;
    char *plugin, *callback, *reason; /* taken; may be NULL */
};

struct worker;
/* The thread starts at once. to_control: a reference is kept; messages of worker -> control go there. */
struct worker *worker_start(unsigned index, unsigned count, const struct identity *identity,
                            struct mailbox *to_control);
struct mailbox *worker_mailbox(struct worker *w);
/* Posts MAIL_STOP, joins the thread, frees everything. */
void worker_stop(struct worker *w);

#endif
