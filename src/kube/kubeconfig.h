/* SPDX-License-Identifier: Apache-2.0
 *
 * Where a Kubernetes API server is and who we are to it: from a pod's service account, or from kubeconfig files as
 * kubectl reads them. Everything named by path (certificates, keys, tokens) is read here, so that reading it all again
 * is how rotated credentials are picked up. Files are small and bounded.
 *
 * Not honoured: exec plugins, auth-provider (gone from kubectl too) and impersonation (as, as-groups): they are errors,
 * since without them we would be somebody else.
 */
#ifndef WEIR_KUBE_KUBECONFIG_H
#define WEIR_KUBE_KUBECONFIG_H

#include "base/str.h"

enum { KUBECONFIG_FILE_MAX = 1024 * 1024 };

/* Owned, all of it; NULL or empty when not given. */
struct kube_access {
    char *server; /* without a slash at its end; may have a path */
    struct strbuf ca_pem, cert_pem, key_pem;
    char *server_name, *proxy;
    bool insecure;
    char *token, *username, *password;
    char *ns;               /* of the context, or of the service account */
    char *where;            /* "in cluster", or "context NAME" for messages */
};
void kube_access_free(struct kube_access *a);

/* Of the pod we run in. directory: where the service account is mounted (KUBE_SERVICE_ACCOUNT_DIR). */
#define KUBE_SERVICE_ACCOUNT_DIR "/var/run/secrets/kubernetes.io/serviceaccount"
NODISCARD bool kubeconfig_in_cluster(const char *directory, struct kube_access *out, char **error);
/* files: one path, or several with ':' between, merged as kubectl does: of each name the first file's counts. Files that
 * do not exist are passed over unless it is only one. context NULL: current-context. False and *error (mem_free). */
NODISCARD bool kubeconfig_load(const char *files, const char *context, struct kube_access *out, char **error);
/* "/path" stays, a relative one is of the directory of `file`. mem_free. */
char *kubeconfig_path(const char *file, const char *path);

#endif
