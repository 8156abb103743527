/* SPDX-License-Identifier: Apache-2.0
 *
 * Shared by the parts of conditions: following objects and telling (conditions.c), what is true of a plugin
 * (conditions_plugin.c) and of the Gateway API's objects (conditions_gateway.c).
 */
#ifndef WEIR_CONTROL_CONDITIONS_PRIV_H
#define WEIR_CONTROL_CONDITIONS_PRIV_H

#include "control/conditions.h"
#include "control/control.h"

/* One object as it is looked at. */
struct condition_subject {
    const struct control *c;
    const struct store_object *o;
    const struct usage *usage; /* NULL: none yet */
    bool adopted; /* every worker has a snapshot that was made of this version of the object */
};
/* fmt may give an empty text. type is a constant. */
void condition_add(struct condition_list *l, const char *scope, const char *type, enum condition_status status,
                   const char *reason, const char *fmt, ...) PRINTF_LIKE(6, 7);
/* The newest text is not in use: its errors, in one line. */
char *condition_errors(const struct store_object *o);
/* ,"conditions":[...] of one scope. */
void condition_write_scope(const struct condition_list *l, const char *scope, int64_t observed, bool as_text,
                           struct strbuf *out);

void conditions_of_plugin(const struct condition_subject *s, struct condition_list *out);
/* ,"gateways":[...] that the plugin is in a chain of. */
void conditions_write_gateways(const struct condition_subject *s, struct strbuf *out);

void conditions_of_class(const struct condition_subject *s, struct condition_list *out);
void conditions_of_gateway(const struct condition_subject *s, struct condition_list *out);
void conditions_of_route(const struct condition_subject *s, struct condition_list *out);
/* Members of `status` beside the object's own conditions, each after a comma. */
void conditions_write_gateway(const struct condition_subject *s, const struct condition_list *l, int64_t observed,
                              struct strbuf *out);
void conditions_write_route(const struct condition_subject *s, const struct condition_list *l, int64_t observed,
                            struct strbuf *out);

#endif
