/* SPDX-License-Identifier: Apache-2.0
 *
 * What is true of each object now, in the words of Kubernetes: conditions, and the `status` member made of them. The one
 * source for the Kubernetes API, /plugins, the page and the command line, so that all of them say the same.
 *
 *   WasmPlugin, TrafficExtension   Accepted, Fetched, Verified, Compiled, Configured, Programmed
 *   GatewayClass                   Accepted
 *   Gateway                        Accepted, Programmed; each listener: Accepted, Programmed, ResolvedRefs, Conflicted
 *   HTTPRoute                      for each parentRef that is ours: Accepted, ResolvedRefs
 *
 * They speak of the newest text. A condition is Unknown while its step has not been reached; Programmed is True only when
 * every worker has adopted the newest text and it is in use. lastTransitionTime stays while the status stays.
 *
 * Sources: Gateway API v1 (conditions and reasons), Istio's CRDs (observedGeneration is a string there).
 */
#ifndef WEIR_CONTROL_CONDITIONS_H
#define WEIR_CONTROL_CONDITIONS_H

#include "control/store.h"

struct control;

enum condition_status { CONDITION_UNKNOWN, CONDITION_FALSE, CONDITION_TRUE };
const char *condition_status_name(enum condition_status s);

struct condition {
    char *scope;      /* "": the object; "listener/http"; "parent/..." */
    const char *type; /* a constant */
    enum condition_status status;
    char *reason, *message;
    int64_t since; /* of the status; seconds since 1970 */
};
struct condition_list {
    struct condition *list;
    size_t count;
};
void condition_list_free(struct condition_list *l);
/* NULL when there is none. */
const struct condition *condition_find(const struct condition_list *l, const char *scope, const char *type);

/* Follows all objects from now on. */
struct conditions *conditions_new(struct control *c);
/* Before the store and delivery go. NULL is allowed. */
void conditions_free(struct conditions *s);
/* Something may have changed: a store, a snapshot, an adoption, a plugin. All objects are looked at in a moment, some
 * hundred in a turn of the loop, and what differs from the last time is told. NULL is allowed. */
void conditions_touch(struct conditions *s);
/* Once a second: looks whether a plugin has changed without a word. */
void conditions_tick(struct conditions *s);

/* The `status` member Weir would write for this object now, as JSON text (mem_free); NULL: nothing to say. observed is
 * metadata.generation of the newest text; 0: as Weir knows it. */
char *conditions_write(const struct control *c, const struct store_object *o, int64_t observed);
/* The conditions of this object now; empty when there is nothing to say. The caller frees them. */
void conditions_now(const struct control *c, const struct store_object *o, struct condition_list *out);
/* As a JSON array, with the scope where it is not "". */
void conditions_write_list(const struct condition_list *l, struct strbuf *out);

/* Who is told of changes, never from inside a call of theirs. */
struct status_sink {
    /* `status` has another text than last time. */
    void (*status)(void *arg, enum kind kind, const char *ns, const char *name, const char *json);
    /* type is "Normal" or "Warning". */
    void (*event)(void *arg, enum kind kind, const char *ns, const char *name, const char *type, const char *reason,
                  const char *message);
    void *arg;
};
/* Copied. Every object's status is told in a moment; events from now on. Either function may be NULL. */
void conditions_add_sink(struct control *c, const struct status_sink *sink);

#endif
