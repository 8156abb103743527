/* SPDX-License-Identifier: Apache-2.0
 *
 * From a url to a module on disk: what is remembered, else the registry, else an error. The policy (imagePullPolicy,
 * digests known up front) is decided here; when to try again is the caller's.
 *
 *   LOOK (thread pool: records, bytes) -> download, shared with everybody who wants the same -> STORE (thread pool: bytes,
 *   records) -> NOTE (thread pool: which version of which object has asked; imagePullPolicy Always only)
 *
 *   digest known (spec.sha256, @sha256:)   what is remembered under it is taken: no network
 *   IfNotPresent                           what is remembered for the url is taken: no network
 *   Always                                 the same, but only if this version of this object has asked before
 *   again                                  nothing is taken unasked
 *
 * Asking a registry costs one request for the manifest when it names what is remembered.
 */
#ifndef WEIR_CONTROL_DELIVERY_PULL_H
#define WEIR_CONTROL_DELIVERY_PULL_H

#include "conf/resource.h"
#include "control/module_cache.h"
#include "fetch/fetch.h"
#include "wasm/plugin.h"

struct pulls; /* all that are under way */
struct pull;
struct pulls *pulls_new(struct loop *loop, struct module_cache *cache, struct fetcher *fetcher);
/* All must be over or cancelled. Runs the loop until the thread pool has given everything back. */
void pulls_free(struct pulls *p);

struct pull_result {
    const char *reason, *error; /* error NULL: fine. All texts are borrowed */
    bool bytes_are_bad;         /* the failure is the module's, not the way's: it came and is not good */
    bool retry;
    uint32_t retry_after_ms;
    char sha256[65]; /* of the module */
    size_t n;
    const char *path; /* of its bytes, in the cache */
    int hold;         /* of them; borrowed: module_cache_hold_again */
    enum abi_version abi;
    const char *digest, *index_digest; /* "" */
    const char *from, *warning;        /* may be NULL */
    bool verified, from_cache, unchanged /* the registry was asked, and named what is remembered */;
};

struct pull_ask { /* copied */
    const char *url;
    enum url_scheme scheme;
    const char *sha256;           /* or NULL */
    const char *verification_key; /* or NULL */
    struct str secret;            /* text of .dockerconfigjson; STR_NONE: none */
    const char *secret_scope;     /* whose credentials: what came by them is remembered for this namespace only; "" */
    const char *module_dir;       /* file:// must lie in there, whatever links say; NULL: anywhere */
    bool always, again;
    const char *object, *version; /* for always */
    void (*stage)(void *arg, const char *text);                 /* may be NULL; never before pull_start returns */
    void (*done)(void *arg, const struct pull_result *result);  /* once, later, on the loop; the pull is over then */
    void *arg;
};
struct pull *pull_start(struct pulls *p, const struct pull_ask *ask);
/* done will not run. A download that nobody waits for any more ends. */
void pull_cancel(struct pull *pull);

/* The policy of a plugin: Istio's default is IfNotPresent, for oci urls that end in ":latest" Always. */
bool pull_is_always(const struct wasm_plugin *p);
/* Its digest is known up front: no look at the registry can change what it is. */
bool pull_is_pinned(const struct wasm_plugin *p);

#endif
