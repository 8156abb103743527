/* SPDX-License-Identifier: Apache-2.0
 *
 * The forms that names take in Kubernetes, Gateway API and Istio: each a pattern, as the CRDs and documents print it,
 * and a function that decides the same without a regular expression (a test compares them).
 */
#ifndef WEIR_CONF_FORMAT_H
#define WEIR_CONF_FORMAT_H

#include "base/str.h"

struct format {
    const char *pattern;
    bool (*ok)(struct str s);
    /* NULL: "<path> in body should match '<pattern>'", as CRDs say; else the API server's own text for built-in types.
     */
    const char *message;
    size_t max; /* longest in bytes; 0: no limit of its own */
};

extern const struct format format_label_name;     /* RFC 1123 label */
extern const struct format format_service_name;   /* RFC 1035 label */
extern const struct format format_subdomain;      /* RFC 1123 subdomain */
extern const struct format format_qualified_name; /* key of a label or an annotation */
extern const struct format format_label_value;
extern const struct format format_config_key;      /* of a ConfigMap or a Secret */
extern const struct format format_sha256;          /* or empty */
extern const struct format format_controller_name; /* example.com/controller */
extern const struct format format_group;           /* or empty */
extern const struct format format_kind;
extern const struct format format_gateway_name; /* section, namespace and object names in Gateway API */
extern const struct format format_namespace_ref;
extern const struct format format_hostname;         /* one leading "*." allowed */
extern const struct format format_precise_hostname; /* no wildcard */
extern const struct format format_header_name;      /* RFC 9110 token */
extern const struct format format_duration;         /* GEP-2257 */

/* Path of an Exact or PathPrefix match: the characters of RFC 3986 pchar and '/'. */
bool format_is_path(struct str s);
/* IPv4 or IPv6 address in text form. */
bool format_is_ip(struct str s);
bool format_is_ipv4(struct str s);

#endif
