/* SPDX-License-Identifier: Apache-2.0
 *
 * The field tables as OpenAPI schemas, for clients that ask what a kind may hold (`kubectl explain`, CRDs).
 */
#ifndef WEIR_CONF_SCHEMA_OPENAPI_H
#define WEIR_CONF_SCHEMA_OPENAPI_H

#include "conf/resource.h"

/* JSON: members of an object of the kind besides apiVersion, kind and metadata, as {"type": "object", "properties": ...}.
 * `status` is free-form. */
void schema_write_openapi(enum kind kind, struct strbuf *out);
/* What the kind is for, in a sentence. */
const char *schema_kind_description(enum kind kind);

#endif
