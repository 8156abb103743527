/* SPDX-License-Identifier: Apache-2.0
 *
 * Who of several gateways writes status: a Lease of coordination.k8s.io that one of them holds and renews. Whether the
 * holder is gone is judged by when this process last saw the record change, never by comparing clocks. Traffic does not
 * depend on it: without a leader, status is not written, and that is all.
 *
 * Source: Kubernetes coordination.k8s.io/v1 (renewTime is a MicroTime: six fractional digits).
 */
#ifndef WEIR_KUBE_LEASE_H
#define WEIR_KUBE_LEASE_H

#include "kube/client.h"

struct kube_lease;
struct kube_lease_options {
    struct loop *loop;
    struct kube_client *client;
    const char *ns, *name, *identity; /* copied; identity is ours alone */
    void (*changed)(void *arg, bool held);
    void *arg;
};
/* Begins at once; changed never runs before it returns. */
struct kube_lease *kube_lease_new(const struct kube_lease_options *o);
/* The record stays, and runs out. */
void kube_lease_free(struct kube_lease *l);
bool kube_lease_is_held(const struct kube_lease *l);
/* Who holds it, as last seen ("" nobody), and why it could not be asked or renewed (NULL: it could). */
const char *kube_lease_holder(const struct kube_lease *l);
const char *kube_lease_problem(const struct kube_lease *l);

/* ---- for tests ---- */

/* "2026-11-23T15:00:00.000001Z" */
void kube_micro_time(struct strbuf *out, int64_t seconds, unsigned micros);

#endif
