/* SPDX-License-Identifier: Apache-2.0
 *
 * The kinds Weir reads: each has a root table, in a file of its own, that fills the member of struct resource's union.
 */
#ifndef WEIR_CONF_KINDS_H
#define WEIR_CONF_KINDS_H

#include "conf/schema.h"

struct kind_reader {
    const char *versions[5];     /* NULL-terminated, newest first */
    const struct schema *schema; /* fills resource.u */
    const struct format *name;   /* of metadata.name */
};

extern const struct kind_reader kind_gateway_class, kind_gateway, kind_http_route, kind_reference_grant,
    kind_wasm_plugin, kind_traffic_extension, kind_service_entry, kind_service, kind_endpoint_slice, kind_namespace,
    kind_secret, kind_config_map;
const struct kind_reader *kind_reader_of(enum kind kind);

/* What every object has; metadata is read by meta_read beforehand. */
#define ROOT_FIELDS                                                                                                    \
    {.name = "apiVersion", .type = FIELD_IGNORED}, {.name = "kind", .type = FIELD_IGNORED},                            \
        {.name = "metadata", .type = FIELD_IGNORED},                                                                   \
    {                                                                                                                  \
        .name = "status", .type = FIELD_IGNORED                                                                        \
    }

/* metadata into r->meta (kind and api_version are set already). */
void meta_read(struct reader *r, const struct node *root, const struct kind_reader *kind, const char *default_ns);

/* Tables that several kinds share. */
extern const struct schema schema_parameters_ref; /* struct parameters_ref, group, kind, name, namespace */
extern const struct schema schema_label_selector; /* struct label_selector */
/* The HTTPRoute filter table, for rules and backendRefs. */
extern const struct schema schema_route_filter; /* struct route_filter */

#endif
