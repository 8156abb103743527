/* SPDX-License-Identifier: Apache-2.0
 *
 * A node tree as JSON. pluginConfig must reach a filter byte for byte as Istio delivers it: a protobuf Struct printed
 * by protojson and escaped for HTML, hence sorted keys, no spaces and numbers that went through a double.
 */
#ifndef WEIR_CONF_PLUGIN_CONFIG_H
#define WEIR_CONF_PLUGIN_CONFIG_H

#include "base/str.h"

struct node;

/* as_struct: every number as a double. Else whole numbers stay as they are (for digests). */
void node_write_json(const struct node *n, bool as_struct, struct strbuf *out);
/* As Go's encoders: \" \\ \b \f \n \r \t, \u00XX for other control bytes, and \u003c \u003e \u0026 \u2028 \u2029. s is
 * UTF-8. */
void plugin_config_write_string(struct strbuf *out, struct str s);

#endif
