/* SPDX-License-Identifier: Apache-2.0
 *
 * The Kubernetes API as kubectl needs it, for one gateway: objects of every kind Weir reads, the gateway itself as a Pod
 * with its log, Events. Objects that come by it are kept as one YAML file each in the state directory; those of the
 * operator's own files and the status Weir writes show here too. The server listens on loopback without TLS and answers
 * only this user's processes and root's (api_guard.c).
 *
 * All of it runs on one loop. What is slow (files) runs on libuv's pool; a write is answered once it is on disk.
 */
#ifndef WEIR_KUBE_API_H
#define WEIR_KUBE_API_H

#include "conf/resource.h"
#include "io/conn.h"

struct kube_api;

/* Upwards. None may call back into the API before it returns, kube_api_set_status and kube_api_event excepted. */
struct kube_api_ops {
    /* An object's text (JSON) is there or another; text.p NULL: it is gone. At start, once for each stored object. */
    void (*changed)(void *arg, enum kind kind, const char *ns, const char *name, struct str text);
    /* After one or several `changed`. */
    void (*settle)(void *arg);
};
struct kube_api_options {
    struct addr addr;      /* loopback */
    const char *state_dir; /* made when it is not there; one process at a time */
    const char *pod_name, *pod_ns;
    const struct labels *pod_labels;
    bool any_peer; /* tests of the server alone: peers are not looked up */
    const struct kube_api_ops *ops;
    void *arg;
};

/* Reads the state directory (blocks), tells its objects by ops->changed (not settle), and listens. NULL and *error
 * (mem_free) when the address or the directory is not to be had. Everything is copied. */
struct kube_api *kube_api_new(struct loop *loop, const struct kube_api_options *o, char **error);
/* Closes the server at once. A write that is on its way to disk ends by itself; run the loop until it has. */
void kube_api_free(struct kube_api *api);

/* An object of the operator's files as it is now: JSON text and where it stands; json NULL: gone. Does nothing when a
 * stored object has that name. */
void kube_api_set_file_object(struct kube_api *api, enum kind kind, const char *ns, const char *name, const char *json,
                              const char *file);
/* The `status` member of an object, as JSON text. Not stored: whoever writes it writes it again after a start. Does
 * nothing when there is no such object, or when it is the same. */
void kube_api_set_status(struct kube_api *api, enum kind kind, const char *ns, const char *name, const char *json);
/* An Event about an object. type: Normal or Warning. */
void kube_api_event(struct kube_api *api, enum kind kind, const char *ns, const char *name, const char *type,
                    const char *reason, const char *message);
/* The Pod's Ready condition. */
void kube_api_set_ready(struct kube_api *api, bool ready, const char *why);
/* Is there an object of this name from kubectl? (For messages about files that name it too.) */
bool kube_api_owns(const struct kube_api *api, enum kind kind, const char *ns, const char *name);
/* The port it listens on: for tests that asked for any. */
uint16_t kube_api_port(const struct kube_api *api);

#endif
