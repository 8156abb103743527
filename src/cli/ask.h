/* SPDX-License-Identifier: Apache-2.0
 *
 * Questions to the admin address of a gateway that runs, for `weir status` and `weir top`.
 */
#ifndef WEIR_CLI_ASK_H
#define WEIR_CLI_ASK_H

#include <jansson.h>

#include "base/str.h"

/* GET http://ADMIN/PATH, the body to out. HTTP status, or 0 when there was no answer; then why not goes to *error
 * (mem_free). */
long ask(const char *admin, const char *path, struct strbuf *out, char **error);
/* The JSON document there (json_decref), or NULL and *error as above. */
json_t *ask_json(const char *admin, const char *path, char **error);
/* A member's text, "" when it is absent or none. */
const char *ask_text(const json_t *o, const char *name);
/* A member's number, 0 when it is absent or none. */
double ask_number(const json_t *o, const char *name);

#endif
