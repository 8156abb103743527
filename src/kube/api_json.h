/* SPDX-License-Identifier: Apache-2.0
 *
 * JSON values as the API server handles them: read from JSON or YAML text by the same reader that reads resources (so
 * that an object means the same wherever it comes from), written as JSON, and as YAML that people like to read.
 */
#ifndef WEIR_KUBE_API_JSON_H
#define WEIR_KUBE_API_JSON_H

#include <jansson.h>

#include "base/str.h"

/* One document, at most as deep and large as conf's limits allow. NULL and *error (mem_free) when it does not parse or
 * holds several documents. *duplicate: 'duplicate field "a"' texts, or NULL (mem_free). */
json_t *json_of_text(struct str text, char **error, char **duplicate);
void json_put(struct strbuf *out, const json_t *j);
/* Block style, strings quoted where YAML 1.1 or 1.2 would read something else. Ends with a newline. False: it would be
 * more than about max bytes (indentation can be most of it), and out is cut short. */
bool json_put_yaml(struct strbuf *out, const json_t *j, size_t max);
bool json_same(const json_t *a, const json_t *b);

/* About how many bytes it takes, as text or in memory. */
size_t json_weight(const json_t *j);

/* At most `depth` lists and objects in each other. */
bool json_is_shallow(const json_t *j, unsigned depth);

/* A string member, "" when it is not there. */
const char *json_text(const json_t *object, const char *name);
/* a.b in one step; NULL when either is missing. */
json_t *json_at(const json_t *object, const char *a, const char *b);
/* The member, made as an empty object when it is none. */
json_t *json_child(json_t *object, const char *name);
/* An own copy of the object's first level and of its metadata: these may be changed, what hangs below is shared. */
json_t *json_copy_head(const json_t *object);
void json_set_text(json_t *object, const char *name, const char *value);
/* A string: the bytes in base64. */
json_t *json_base64(struct str s);
json_t *json_array_of(const char *const *texts, size_t n);

#endif
