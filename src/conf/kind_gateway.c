/* SPDX-License-Identifier: Apache-2.0
 *
 * GatewayClass, Gateway and ReferenceGrant (Gateway API v1): the CRDs' tables and the rules that the CRDs write in CEL,
 * with their texts. Listeners of protocols that Weir does not speak yet are kept, with a warning: the others must go on
 * working.
 */
#include "conf/kinds.h"

/* ---- shared ---- */

static const struct field parameters_ref_fields[] = {
    {.name = "group",
     .type = FIELD_STRING,
     .required = true,
     .at = offsetof(struct parameters_ref, group),
     .format = &format_group},
    {.name = "kind",
     .type = FIELD_STRING,
     .required = true,
     .at = offsetof(struct parameters_ref, kind),
     .min = 1,
     .format = &format_kind},
    {.name = "name",
     .type = FIELD_STRING,
     .required = true,
     .at = offsetof(struct parameters_ref, name),
     .min = 1,
     .max = 253},
    {.name = "namespace",
     .type = FIELD_STRING,
     .at = offsetof(struct parameters_ref, ns),
     .min = 1,
     .format = &format_namespace_ref},
};
const struct schema schema_parameters_ref = {FIELDS(parameters_ref_fields), .size = sizeof(struct parameters_ref)};

/* The infrastructure's one has no namespace. */
static const struct schema local_parameters_ref = {.fields = parameters_ref_fields,
                                                   .field_count = ARRAY_LEN(parameters_ref_fields) - 1,
                                                   .size = sizeof(struct parameters_ref)};

static void finish_requirement(struct reader *r, const struct node *n, const struct path *path, void *raw, void *out)
{
    (void)raw;
    const struct label_requirement *q = out;
    struct path at = {.up = path, .type = PATH_FIELD, .name = STR("values")};
    bool wants = q->op == LABEL_IN || q->op == LABEL_NOT_IN;
    if (node_get(n, "operator") == NULL)
        return;
    if (wants && q->value_count == 0)
        schema_error(r, n, &at, "Required value: must be specified when `operator` is 'In' or 'NotIn'");
    if (!wants && q->value_count != 0)
        schema_error(r, schema_place(n, "values"), &at,
                     "Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
}

static const char *const operator_names[] = {"In", "NotIn", "Exists", "DoesNotExist", NULL};
static const struct field requirement_fields[] = {
    {.name = "key",
     .type = FIELD_STRING,
     .required = true,
     .at = offsetof(struct label_requirement, key),
     .format = &format_qualified_name},
    {.name = "operator",
     .type = FIELD_ENUM,
     .required = true,
     .at = offsetof(struct label_requirement, op),
     .names = operator_names},
    {.name = "values",
     .type = FIELD_STRINGS,
     .at = offsetof(struct label_requirement, values),
     .count_at = offsetof(struct label_requirement, value_count),
     .format = &format_label_value},
};
static const struct schema requirement_schema = {FIELDS(requirement_fields), .size = sizeof(struct label_requirement),
                                                 .finish = finish_requirement};

static const struct field label_selector_fields[] = {
    {.name = "matchLabels", .type = FIELD_LABELS, .at = offsetof(struct label_selector, match_labels)},
    {.name = "matchExpressions",
     .type = FIELD_OBJECTS,
     .at = offsetof(struct label_selector, requirements),
     .count_at = offsetof(struct label_selector, requirement_count),
     .schema = &requirement_schema},
};
const struct schema schema_label_selector = {FIELDS(label_selector_fields), .size = sizeof(struct label_selector)};

/* ---- GatewayClass ---- */

static const struct field class_spec_fields[] = {
    {.name = "controllerName",
     .type = FIELD_STRING,
     .required = true,
     .at = offsetof(struct gateway_class, controller_name),
     .min = 1,
     .format = &format_controller_name},
    {.name = "parametersRef",
     .type = FIELD_POINTER,
     .at = offsetof(struct gateway_class, parameters),
     .schema = &schema_parameters_ref},
    {.name = "description", .type = FIELD_IGNORED},
};
static const struct schema class_spec = {FIELDS(class_spec_fields), .size = sizeof(struct gateway_class)};
static const struct field class_fields[] = {
    ROOT_FIELDS, {.name = "spec", .type = FIELD_OBJECT, .required = true, .at = 0, .schema = &class_spec}};
static const struct schema class_schema = {FIELDS(class_fields)};
const struct kind_reader kind_gateway_class = {{"v1", "v1beta1"}, &class_schema, &format_subdomain};

/* ---- listeners ---- */

struct raw_namespaces {
    enum { FROM_SAME, FROM_ALL, FROM_SELECTOR } from;
    bool has_selector;
    struct label_selector selector;
};
struct raw_kind {
    char *group, *kind;
};
struct raw_listener {
    struct gateway_listener l;
    struct raw_namespaces namespaces;
    struct raw_kind *kinds;
    size_t kind_count;
    bool has_tls, has_mode, has_certificates, has_options;
    enum { TLS_TERMINATE, TLS_PASSTHROUGH } mode;
};

static void finish_namespaces(struct reader *r, const struct node *n, const struct path *path, void *raw, void *out)
{
    (void)raw;
    const struct raw_namespaces *s = out;
    struct path at = {.up = path, .type = PATH_FIELD, .name = STR("selector")};
    if (s->from == FROM_SELECTOR && !s->has_selector)
        schema_error(r, n, &at, "Required value: must be set when from is Selector");
}

static const char *const from_names[] = {"Same", "All", "Selector", NULL};
static const struct field namespaces_fields[] = {
    {.name = "from", .type = FIELD_ENUM, .at = offsetof(struct raw_namespaces, from), .names = from_names},
    {.name = "selector",
     .type = FIELD_OBJECT,
     .at = offsetof(struct raw_namespaces, selector),
     .has = HAS(struct raw_namespaces, has_selector),
     .schema = &schema_label_selector},
};
static const struct schema namespaces_schema = {FIELDS(namespaces_fields), .size = sizeof(struct raw_namespaces),
                                                .finish = finish_namespaces};

static const struct field route_kind_fields[] = {
    {.name = "group", .type = FIELD_STRING, .at = offsetof(struct raw_kind, group), .format = &format_group},
    {.name = "kind",
     .type = FIELD_STRING,
     .required = true,
     .at = offsetof(struct raw_kind, kind),
     .min = 1,
     .format = &format_kind},
};
static const struct schema route_kind_schema = {FIELDS(route_kind_fields), .size = sizeof(struct raw_kind)};

static const struct field allowed_fields[] = {
    {.name = "namespaces",
     .type = FIELD_OBJECT,
     .at = offsetof(struct raw_listener, namespaces),
     .schema = &namespaces_schema},
    {.name = "kinds",
     .type = FIELD_OBJECTS,
     .at = offsetof(struct raw_listener, kinds),
     .count_at = offsetof(struct raw_listener, kind_count),
     .max_items = 8,
     .schema = &route_kind_schema},
};
static const struct schema allowed_schema = {FIELDS(allowed_fields)};

static void finish_tls(struct reader *r, const struct node *n, const struct path *path, void *raw, void *out)
{
    (void)out;
    const struct raw_listener *l = raw;
    if (l->mode == TLS_TERMINATE && !l->has_certificates && !l->has_options)
        schema_error(r, n, path, "Invalid value: certificateRefs or options must be specified when mode is Terminate");
}

static const char *const tls_mode_names[] = {"Terminate", "Passthrough", NULL};
static const struct field tls_fields[] = {
    {.name = "mode",
     .type = FIELD_ENUM,
     .at = offsetof(struct raw_listener, mode),
     .has = HAS(struct raw_listener, has_mode),
     .names = tls_mode_names},
    {.name = "certificateRefs", .type = FIELD_IGNORED, .has = HAS(struct raw_listener, has_certificates)},
    {.name = "options", .type = FIELD_IGNORED, .has = HAS(struct raw_listener, has_options)},
    {.name = "frontendValidation", .type = FIELD_IGNORED},
};
static const struct schema tls_schema = {FIELDS(tls_fields), .finish = finish_tls};

static const char *const protocol_names[] = {"HTTP", "HTTPS", "TLS", "TCP", "UDP", NULL};

static void check_protocol(struct reader *r, const struct node *n, const struct path *path,
                           const struct raw_listener *l)
{
    enum listener_protocol protocol = l->l.protocol;
    bool plain = protocol == PROTOCOL_HTTP || protocol == PROTOCOL_TCP || protocol == PROTOCOL_UDP;
    const struct node *given = node_get(n, "protocol");
    if (given == NULL || given->type != NODE_STRING || !str_is(given->u.string, protocol_names[protocol]))
        return; /* reported already */
    if (plain && l->has_tls)
        schema_error(r, schema_place(n, "tls"), path,
                     "Invalid value: tls must not be specified for protocols ['HTTP', 'TCP', 'UDP']");
    if (protocol == PROTOCOL_HTTPS && l->has_tls && l->mode != TLS_TERMINATE)
        schema_error(r, schema_place(n, "tls"), path, "Invalid value: tls mode must be Terminate for protocol HTTPS");
    if (protocol == PROTOCOL_TLS && !l->has_mode)
        schema_error(r, n, path, "Invalid value: tls mode must be set for protocol TLS");
    if ((protocol == PROTOCOL_TCP || protocol == PROTOCOL_UDP) && l->l.hostname != NULL)
        schema_error(r, schema_place(n, "hostname"), path,
                     "Invalid value: hostname must not be specified for protocols ['TCP', 'UDP']");
    if (protocol != PROTOCOL_HTTP) {
        struct path at = {.up = path, .type = PATH_FIELD, .name = STR("protocol")};
        schema_warn(r, schema_place(n, "protocol"), &at,
                    "protocol %s is not supported yet: this listener is not programmed", protocol_names[protocol]);
    }
}

static void finish_listener(struct reader *r, const struct node *n, const struct path *path, void *raw, void *out)
{
    struct raw_listener *l = raw;
    struct gateway_listener *listener = out;
    unsigned line = listener->line;
    check_protocol(r, n, path, l);
    *listener = l->l;
    listener->line = line;
    listener->from = l->namespaces.from == FROM_ALL        ? ROUTES_ALL
                     : l->namespaces.from == FROM_SELECTOR ? ROUTES_SELECTOR
                                                           : ROUTES_SAME;
    listener->selector = l->namespaces.selector;
    listener->http_routes = l->kind_count == 0;
    for (size_t i = 0; i < l->kind_count; i++) {
        const struct raw_kind *k = &l->kinds[i];
        bool ours = k->group == NULL || strcmp(k->group, "gateway.networking.k8s.io") == 0;
        if (ours && k->kind != NULL && strcmp(k->kind, "HTTPRoute") == 0)
            listener->http_routes = true;
    }
}

#define L(member) offsetof(struct raw_listener, l.member)
static const struct field listener_fields[] = {
    {.name = "name", .type = FIELD_STRING, .required = true, .at = L(name), .min = 1, .format = &format_gateway_name},
    {.name = "hostname", .type = FIELD_STRING, .at = L(hostname), .min = 1, .format = &format_hostname},
    {.name = "port", .type = FIELD_INT, .required = true, .width = 2, .at = L(port), .min = 1, .max = 65535},
    {.name = "protocol", .type = FIELD_ENUM, .required = true, .at = L(protocol), .names = protocol_names},
    {.name = "tls", .type = FIELD_OBJECT, .at = 0, .has = HAS(struct raw_listener, has_tls), .schema = &tls_schema},
    {.name = "allowedRoutes", .type = FIELD_OBJECT, .at = 0, .schema = &allowed_schema},
};
static const struct schema listener_schema = {FIELDS(listener_fields), .size = sizeof(struct gateway_listener),
                                              .raw_size = sizeof(struct raw_listener), .finish = finish_listener,
                                              .line = HAS(struct gateway_listener, line)};

/* ---- Gateway ---- */

static void finish_address(struct reader *r, const struct node *n, const struct path *path, void *raw, void *out)
{
    (void)raw;
    struct gateway_address *a = out;
    if (a->type == NULL)
        a->type = memory_str(r->memory, STR("IPAddress"));
    struct path at = {.up = path, .type = PATH_FIELD, .name = STR("value")};
    if (a->value == NULL || a->value[0] == '\0')
        return;
    if (strcmp(a->type, "IPAddress") == 0 && !format_is_ip(str_of(a->value)))
        schema_invalid(r, schema_place(n, "value"), &at, "must be a valid IP address");
    if (strcmp(a->type, "Hostname") == 0)
        schema_format(r, schema_place(n, "value"), &at, str_of(a->value), &format_hostname);
    if (strcmp(a->type, "IPAddress") != 0)
        schema_warn(r, schema_place(n, "type"), path, "only addresses of type IPAddress are bound");
}

static const struct field address_fields[] = {
    {.name = "type", .type = FIELD_STRING, .at = offsetof(struct gateway_address, type), .min = 1, .max = 253},
    {.name = "value", .type = FIELD_STRING, .at = offsetof(struct gateway_address, value), .max = 253},
};
static const struct schema address_schema = {FIELDS(address_fields), .size = sizeof(struct gateway_address),
                                             .finish = finish_address};

static bool same_text(const char *a, const char *b) { return strcmp(a != NULL ? a : "", b != NULL ? b : "") == 0; }

static void check_listeners(struct reader *r, const struct node *n, const struct path *path, const struct gateway *g)
{
    const struct node *nodes = node_get(n, "listeners");
    struct path list = {.up = path, .type = PATH_FIELD, .name = STR("listeners")};
    for (size_t i = 1; i < g->listener_count; i++) {
        const struct gateway_listener *a = &g->listeners[i];
        struct path at = {.up = &list, .type = PATH_INDEX, .index = i};
        bool name = false, place = false;
        for (size_t j = 0; j < i; j++) {
            const struct gateway_listener *b = &g->listeners[j];
            name = name || (a->name != NULL && b->name != NULL && strcmp(a->name, b->name) == 0);
            place = place || (a->port != 0 && a->port == b->port && a->protocol == b->protocol &&
                              same_text(a->hostname, b->hostname));
        }
        if (name)
            schema_error(r, nodes->u.list.items[i], &at,
                         "Invalid value: Listener name must be unique within the Gateway");
        if (place)
            schema_error(r, nodes->u.list.items[i], &at,
                         "Invalid value: Combination of port, protocol and hostname must be unique for each listener");
    }
}

static void finish_gateway(struct reader *r, const struct node *n, const struct path *path, void *raw, void *out)
{
    (void)raw;
    const struct gateway *g = out;
    check_listeners(r, n, path, g);
    struct path list = {.up = path, .type = PATH_FIELD, .name = STR("addresses")};
    for (size_t i = 1; i < g->address_count; i++) {
        for (size_t j = 0; j < i; j++) {
            const struct gateway_address *a = &g->addresses[i], *b = &g->addresses[j];
            if (a->value == NULL || a->type == NULL || b->type == NULL || !same_text(a->type, b->type) ||
                !same_text(a->value, b->value))
                continue;
            schema_error(r, schema_place(n, "addresses"), &list, "Invalid value: %s values must be unique", a->type);
            return;
        }
    }
}

static const struct field infrastructure_fields[] = {
    {.name = "parametersRef",
     .type = FIELD_POINTER,
     .at = offsetof(struct gateway, parameters),
     .schema = &local_parameters_ref},
    {.name = "labels", .type = FIELD_IGNORED},
    {.name = "annotations", .type = FIELD_IGNORED},
};
static const struct schema infrastructure_schema = {FIELDS(infrastructure_fields)};

static const struct field gateway_spec_fields[] = {
    {.name = "gatewayClassName",
     .type = FIELD_STRING,
     .required = true,
     .at = offsetof(struct gateway, class_name),
     .min = 1,
     .max = 253},
    {.name = "listeners",
     .type = FIELD_OBJECTS,
     .required = true,
     .at = offsetof(struct gateway, listeners),
     .count_at = offsetof(struct gateway, listener_count),
     .min_items = 1,
     .max_items = 64,
     .schema = &listener_schema},
    {.name = "addresses",
     .type = FIELD_OBJECTS,
     .at = offsetof(struct gateway, addresses),
     .count_at = offsetof(struct gateway, address_count),
     .max_items = 16,
     .schema = &address_schema},
    {.name = "infrastructure", .type = FIELD_OBJECT, .at = 0, .schema = &infrastructure_schema},
    {.name = "allowedListeners", .type = FIELD_UNREAD},
    {.name = "backendTLS", .type = FIELD_UNREAD},
    {.name = "tls", .type = FIELD_UNREAD},
    {.name = "defaultScope", .type = FIELD_UNREAD},
};
static const struct schema gateway_spec = {FIELDS(gateway_spec_fields), .size = sizeof(struct gateway),
                                           .finish = finish_gateway};
static const struct field gateway_fields[] = {
    ROOT_FIELDS, {.name = "spec", .type = FIELD_OBJECT, .required = true, .at = 0, .schema = &gateway_spec}};
static const struct schema gateway_schema = {FIELDS(gateway_fields)};
const struct kind_reader kind_gateway = {{"v1", "v1beta1"}, &gateway_schema, &format_subdomain};

/* ---- ReferenceGrant ---- */

struct grant_from {
    char *group, *kind, *ns;
};
struct grant_to {
    char *group, *kind, *name;
};
_Static_assert(sizeof(struct grant_from) == sizeof(*((struct reference_grant *)0)->from), "same members");
_Static_assert(sizeof(struct grant_to) == sizeof(*((struct reference_grant *)0)->to), "same members");

#define GRANT_FIELDS(type_)                                                                                            \
    {.name = "group",                                                                                                  \
     .type = FIELD_STRING,                                                                                             \
     .required = true,                                                                                                 \
     .at = offsetof(struct type_, group),                                                                              \
     .format = &format_group},                                                                                         \
    {                                                                                                                  \
        .name = "kind", .type = FIELD_STRING, .required = true, .at = offsetof(struct type_, kind), .min = 1,          \
        .format = &format_kind                                                                                         \
    }

static const struct field grant_from_fields[] = {
    GRANT_FIELDS(grant_from),
    {.name = "namespace",
     .type = FIELD_STRING,
     .required = true,
     .at = offsetof(struct grant_from, ns),
     .min = 1,
     .format = &format_namespace_ref},
};
static const struct schema grant_from_schema = {FIELDS(grant_from_fields), .size = sizeof(struct grant_from)};
static const struct field grant_to_fields[] = {
    GRANT_FIELDS(grant_to),
    {.name = "name", .type = FIELD_STRING, .at = offsetof(struct grant_to, name), .min = 1, .max = 253},
};
static const struct schema grant_to_schema = {FIELDS(grant_to_fields), .size = sizeof(struct grant_to)};

static const struct field grant_spec_fields[] = {
    {.name = "from",
     .type = FIELD_OBJECTS,
     .required = true,
     .at = offsetof(struct reference_grant, from),
     .count_at = offsetof(struct reference_grant, from_count),
     .min_items = 1,
     .max_items = 16,
     .schema = &grant_from_schema},
    {.name = "to",
     .type = FIELD_OBJECTS,
     .required = true,
     .at = offsetof(struct reference_grant, to),
     .count_at = offsetof(struct reference_grant, to_count),
     .min_items = 1,
     .max_items = 16,
     .schema = &grant_to_schema},
};
static const struct schema grant_spec = {FIELDS(grant_spec_fields), .size = sizeof(struct reference_grant)};
static const struct field grant_fields[] = {
    ROOT_FIELDS, {.name = "spec", .type = FIELD_OBJECT, .required = true, .at = 0, .schema = &grant_spec}};
static const struct schema grant_schema = {FIELDS(grant_fields)};
const struct kind_reader kind_reference_grant = {{"v1", "v1beta1", "v1alpha2"}, &grant_schema, &format_subdomain};
