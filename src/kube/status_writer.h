/* SPDX-License-Identifier: Apache-2.0
 *
 * What is true of a cluster's objects, written into their `status`, and Events. Only while this gateway leads
 * (lease.h); only where the object's status says something else; a few at a time and some each second, so that a change
 * of everything is no storm. Server-side apply as field owner "weir".
 *
 * What is kept of the status that is there: lastTransitionTime of conditions whose status is the same (a new leader has
 * not seen the transition), and what other controllers wrote into an HTTPRoute's parents.
 */
#ifndef WEIR_KUBE_STATUS_WRITER_H
#define WEIR_KUBE_STATUS_WRITER_H

#include "kube/watch.h"

struct kube_writer;
struct kube_writer_options {
    struct loop *loop;
    struct kube_client *client;
    const char *instance; /* who reports Events; copied */
    /* The cluster's newest version of an object; NULL: it has none. */
    const struct kube_watch *(*find)(void *arg, const char *kind, const char *ns, const char *name,
                                     struct kube_object *out);
    void *arg;
};
struct kube_writer *kube_writer_new(const struct kube_writer_options *o);
void kube_writer_free(struct kube_writer *w);
void kube_writer_lead(struct kube_writer *w, bool leads);
/* json: the status member; NULL: nothing more to say (what was written stays). */
void kube_writer_status(struct kube_writer *w, const char *kind, const char *ns, const char *name, const char *json);
/* The object is another than it was: is its status still as it should be? */
void kube_writer_touch(struct kube_writer *w, const char *kind, const char *ns, const char *name);
/* The object is gone. */
void kube_writer_forget(struct kube_writer *w, const char *kind, const char *ns, const char *name);
void kube_writer_event(struct kube_writer *w, const char *kind, const char *ns, const char *name, const char *type,
                       const char *reason, const char *message);
/* Objects whose status is not as it should be, and why the last write failed (NULL: it did not). */
size_t kube_writer_waiting(const struct kube_writer *w);
const char *kube_writer_problem(const struct kube_writer *w);

/* ---- for tests ---- */

/* `wanted` with what is kept of `current` (may be empty). *same: current says that already. NULL: wanted is no JSON
 * object. mem_free. */
char *kube_status_merge(struct str wanted, struct str current, bool *same);

#endif
