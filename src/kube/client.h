/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests to a Kubernetes API server: the address, TLS and credentials of kubeconfig.h put on transfers of
 * fetch/transfer.h, and errors told in the server's own words. Credentials are read again every minute and when the
 * server answers 401 (service account tokens rotate); what cannot be read then leaves the last ones in use.
 */
#ifndef WEIR_KUBE_CLIENT_H
#define WEIR_KUBE_CLIENT_H

#include "fetch/transfer.h"

struct kube_client;
struct kube_client_options {
    struct loop *loop;
    struct transfers *transfers;
    const char *kubeconfig; /* files as in $KUBECONFIG; NULL: the pod's service account when there is one, else
                               $KUBECONFIG, else ~/.kube/config */
    const char *service_account; /* directory; NULL: KUBE_SERVICE_ACCOUNT_DIR */
};
/* NULL and *error (mem_free) when there are no credentials to begin with. */
struct kube_client *kube_client_new(const struct kube_client_options *o, char **error);
/* Calls that run are cancelled. */
void kube_client_free(struct kube_client *c);
/* "https://10.0.0.1:6443 (in cluster)" */
const char *kube_client_where(const struct kube_client *c);
/* "https://10.0.0.1:6443" */
const char *kube_client_server(const struct kube_client *c);
/* Namespace of the context or of the service account; NULL. */
const char *kube_client_namespace(const struct kube_client *c);
/* Why the credentials in use could not be read again; NULL when they could. */
const char *kube_client_problem(const struct kube_client *c);

struct kube_result {
    unsigned status;  /* 0: no answer */
    struct str body;  /* of any answer; empty with on_data and a 2xx */
    const char *error; /* NULL: 2xx. "403 Forbidden: wasmplugins... is forbidden: User ..." */
    const char *reason; /* of a Status object: "Expired", "AlreadyExists"; "" */
    bool too_large;     /* more than max_bytes */
    uint32_t retry_after_ms;
};
/* Copied before kube_call returns. */
struct kube_request {
    const char *method; /* NULL: GET */
    const char *path;   /* "/api/v1/services?limit=500" */
    const char *content_type;
    struct str body; /* sent when content_type is given */
    uint32_t total_ms, idle_ms;
    size_t max_bytes;                            /* of the answer; 0: 16 MiB */
    void (*on_open)(void *arg);                   /* a 2xx head has come; NULL */
    bool (*on_data)(void *arg, struct str bytes); /* of 2xx answers; NULL: collected. False ends the call */
    void (*done)(void *arg, struct kube_result *r);
    void *arg;
};
struct kube_call;
/* done runs once, on the loop, never before this returns. */
struct kube_call *kube_call(struct kube_client *c, const struct kube_request *r);
/* done will not run. Not from inside done. */
void kube_call_cancel(struct kube_call *call);

/* Back-off with jitter: doubles *ms from 800 to 30,000 and returns between half of it and all of it. Start with 0. */
uint32_t kube_backoff(uint32_t *ms);

#endif
