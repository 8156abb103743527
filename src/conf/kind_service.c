/* SPDX-License-Identifier: Apache-2.0
 *
 * Service and EndpointSlice: where backends are. Only TCP ports are kept. The API server has checked what comes from a
 * cluster; files have had no such check, hence the rules that keep a mistake from turning into a silent 503.
 */
#include "conf/kinds.h"

/* ---- Service ---- */

struct raw_service_port {
    struct service_port p;
    enum { SERVICE_TCP, SERVICE_UDP, SERVICE_SCTP } protocol;
};
struct raw_service {
    struct service s;
    struct raw_service_port *ports;
    size_t port_count;
    enum { CLUSTER_IP, NODE_PORT, LOAD_BALANCER, EXTERNAL_NAME } type;
    char *cluster_ip;
};

static bool is_port_name(struct str s)
{
    bool letter = false;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool alpha = c >= 'a' && c <= 'z', digit = c >= '0' && c <= '9';
        letter = letter || alpha;
        if (!alpha && !digit && (c != '-' || i == 0 || i == s.n - 1 || s.p[i - 1] == '-'))
            return false;
    }
    return letter && s.n <= 15;
}

static void check_port_number(struct reader *r, const struct node *n, const struct path *path, const char *member,
                              int64_t value)
{
    struct path at = {.up = path, .type = PATH_FIELD, .name = str_of(member)};
    if (value < 1 || value > 65535)
        schema_invalid(r, schema_place(n, member), &at, "must be between 1 and 65535, inclusive");
}

static void read_target(struct reader *r, const struct node *n, const struct path *path, struct service_port *p)
{
    const struct node *target = node_get(n, "targetPort");
    struct path at = {.up = path, .type = PATH_FIELD, .name = STR("targetPort")};
    int64_t number;
    p->target = p->port;
    if (target == NULL)
        return;
    if (target->type == NODE_STRING) {
        if (is_port_name(target->u.string))
            p->target_name = schema_string(r, target, &at);
        else
            schema_invalid(
                r, target, &at,
                "must be a port number or the name of a port: at most 15 lower case letters, digits and '-', at "
                "least one letter");
    } else if (node_integer(target, &number)) {
        check_port_number(r, n, path, "targetPort", number);
        p->target = (uint16_t)number;
    } else {
        schema_wrong_type(r, target, &at, "integer or string");
    }
}

static void finish_service_port(struct reader *r, const struct node *n, const struct path *path, void *raw, void *out)
{
    (void)raw;
    struct raw_service_port *p = out;
    const struct node *port = node_get(n, "port");
    struct path at = {.up = path, .type = PATH_FIELD, .name = STR("port")};
    int64_t number;
    if (port != NULL && node_integer(port, &number)) {
        check_port_number(r, n, path, "port", number);
        p->p.port = (uint16_t)number;
    } else if (port != NULL) {
        schema_wrong_type(r, port, &at, "integer");
    }
    if (p->p.name == NULL)
        p->p.name = memory_str(r->memory, STR(""));
    read_target(r, n, path, &p->p);
}

static const char *const service_protocols[] = {"TCP", "UDP", "SCTP", NULL};
static const struct field service_port_fields[] = {
    {.name = "name",
     .type = FIELD_STRING,
     .at = offsetof(struct raw_service_port, p.name),
     .min = 1,
     .format = &format_label_name},
    {.name = "port", .type = FIELD_IGNORED, .required = true},
    {.name = "protocol",
     .type = FIELD_ENUM,
     .at = offsetof(struct raw_service_port, protocol),
     .names = service_protocols},
    {.name = "appProtocol",
     .type = FIELD_STRING,
     .at = offsetof(struct raw_service_port, p.app_protocol),
     .format = &format_qualified_name},
    {.name = "targetPort", .type = FIELD_IGNORED},
    {.name = "nodePort", .type = FIELD_IGNORED},
};
static const struct schema service_port_schema = {FIELDS(service_port_fields), .size = sizeof(struct raw_service_port),
                                                  .finish = finish_service_port};

static void check_service_ports(struct reader *r, const struct node *n, const struct path *path,
                                const struct raw_service *s)
{
    struct path list = {.up = path, .type = PATH_FIELD, .name = STR("ports")};
    const struct node *nodes = node_get(n, "ports");
    for (size_t i = 0; s->port_count > 1 && i < s->port_count; i++) {
        const struct raw_service_port *a = &s->ports[i];
        const struct node *item = nodes->u.list.items[i];
        struct path at = {.up = &list, .type = PATH_INDEX, .index = i};
        struct path name = {.up = &at, .type = PATH_FIELD, .name = STR("name")};
        if (a->p.name != NULL && a->p.name[0] == '\0' && node_get(item, "name") == NULL)
            schema_error(r, item, &name, "Required value");
        for (size_t j = 0; j < i; j++) {
            const struct raw_service_port *b = &s->ports[j];
            if (a->p.name != NULL && b->p.name != NULL && a->p.name[0] != '\0' && strcmp(a->p.name, b->p.name) == 0) {
                schema_error(r, schema_place(item, "name"), &name, "Duplicate value: \"%s\"", a->p.name);
                break;
            }
            if (a->p.port != 0 && a->p.port == b->p.port && a->protocol == b->protocol) {
                schema_error(r, item, &at, "Duplicate value: {\"port\":%u,\"protocol\":\"%s\"}", a->p.port,
                             service_protocols[a->protocol]);
                break;
            }
        }
    }
}

static const char *const service_types[] = {"ClusterIP", "NodePort", "LoadBalancer", "ExternalName", NULL};

static void finish_service(struct reader *r, const struct node *n, const struct path *path, void *raw, void *out)
{
    struct raw_service *s = raw;
    struct service *to = out;
    check_service_ports(r, n, path, s);
    s->s.type = memory_str(r->memory, str_of(service_types[s->type]));
    s->s.ports = memory_alloc(r->memory, s->port_count * sizeof *s->s.ports);
    for (size_t i = 0; i < s->port_count; i++) {
        if (s->ports[i].protocol == SERVICE_TCP)
            s->s.ports[s->s.port_count++] = s->ports[i].p;
    }
    struct path ports = {.up = path, .type = PATH_FIELD, .name = STR("ports")};
    bool headless = s->cluster_ip != NULL && strcmp(s->cluster_ip, "None") == 0;
    if (s->type != EXTERNAL_NAME && !headless && s->port_count == 0)
        schema_error(r, n, &ports, "Required value");
    struct path external = {.up = path, .type = PATH_FIELD, .name = STR("externalName")};
    if (s->type == EXTERNAL_NAME && node_get(n, "externalName") == NULL)
        schema_error(r, n, &external, "Required value");
    else if (s->type == EXTERNAL_NAME && s->s.external_name != NULL)
        schema_format(r, schema_place(n, "externalName"), &external, str_of(s->s.external_name), &format_subdomain);
    *to = s->s;
}

#define IGNORE(field_name)                                                                                             \
    {                                                                                                                  \
        .name = field_name, .type = FIELD_IGNORED                                                                      \
    }
static const struct field service_spec_fields[] = {
    {.name = "ports",
     .type = FIELD_OBJECTS,
     .at = offsetof(struct raw_service, ports),
     .count_at = offsetof(struct raw_service, port_count),
     .schema = &service_port_schema},
    {.name = "type", .type = FIELD_ENUM, .at = offsetof(struct raw_service, type), .names = service_types},
    {.name = "externalName", .type = FIELD_STRING, .at = offsetof(struct raw_service, s.external_name), .max = 253},
    {.name = "selector", .type = FIELD_LABELS, .at = offsetof(struct raw_service, s.selector)},
    {.name = "clusterIP", .type = FIELD_STRING, .at = offsetof(struct raw_service, cluster_ip)},
    IGNORE("clusterIPs"),
    IGNORE("externalIPs"),
    IGNORE("sessionAffinity"),
    IGNORE("sessionAffinityConfig"),
    IGNORE("loadBalancerIP"),
    IGNORE("loadBalancerSourceRanges"),
    IGNORE("externalTrafficPolicy"),
    IGNORE("internalTrafficPolicy"),
    IGNORE("healthCheckNodePort"),
    IGNORE("publishNotReadyAddresses"),
    IGNORE("ipFamilies"),
    IGNORE("ipFamilyPolicy"),
    IGNORE("allocateLoadBalancerNodePorts"),
    IGNORE("loadBalancerClass"),
    IGNORE("trafficDistribution"),
};
static const struct schema service_spec = {FIELDS(service_spec_fields), .size = sizeof(struct service),
                                           .raw_size = sizeof(struct raw_service), .finish = finish_service};
static const struct field service_fields[] = {
    ROOT_FIELDS, {.name = "spec", .type = FIELD_OBJECT, .required = true, .at = 0, .schema = &service_spec}};
static const struct schema service_schema = {FIELDS(service_fields)};
const struct kind_reader kind_service = {{"v1"}, &service_schema, &format_service_name};

/* ---- EndpointSlice ---- */

struct raw_slice_port {
    char *name;
    uint16_t port;
    enum { SLICE_TCP, SLICE_UDP, SLICE_SCTP } protocol;
};
struct raw_conditions {
    bool ready, has_ready;
};
struct raw_slice_endpoint {
    struct slice_endpoint e;
    struct raw_conditions conditions;
};
struct raw_slice {
    enum { SLICE_IPV4, SLICE_IPV6, SLICE_FQDN } type;
    struct slice_endpoint *endpoints;
    size_t endpoint_count;
    struct raw_slice_port *ports;
    size_t port_count;
};

static void finish_slice_endpoint(struct reader *r, const struct node *n, const struct path *path, void *raw, void *out)
{
    (void)r, (void)n, (void)path;
    const struct raw_slice_endpoint *from = raw;
    struct slice_endpoint *e = out;
    *e = from->e;
    e->ready = !from->conditions.has_ready || from->conditions.ready;
}

static const struct field conditions_fields[] = {
    {.name = "ready",
     .type = FIELD_BOOL,
     .at = offsetof(struct raw_conditions, ready),
     .has = HAS(struct raw_conditions, has_ready)},
    IGNORE("serving"),
    IGNORE("terminating"),
};
static const struct schema conditions_schema = {FIELDS(conditions_fields), .size = sizeof(struct raw_conditions)};
static const struct field slice_endpoint_fields[] = {
    {.name = "addresses",
     .type = FIELD_STRINGS,
     .required = true,
     .at = offsetof(struct raw_slice_endpoint, e.addresses),
     .count_at = offsetof(struct raw_slice_endpoint, e.address_count),
     .min_items = 1,
     .max_items = 100,
     .min = 1,
     .max = 253},
    {.name = "conditions",
     .type = FIELD_OBJECT,
     .at = offsetof(struct raw_slice_endpoint, conditions),
     .schema = &conditions_schema},
    IGNORE("hostname"),
    IGNORE("nodeName"),
    IGNORE("targetRef"),
    IGNORE("zone"),
    IGNORE("hints"),
    IGNORE("deprecatedTopology"),
};
static const struct schema slice_endpoint_schema = {
    FIELDS(slice_endpoint_fields), .size = sizeof(struct slice_endpoint), .raw_size = sizeof(struct raw_slice_endpoint),
    .finish = finish_slice_endpoint};

static const struct field slice_port_fields[] = {
    {.name = "name", .type = FIELD_STRING, .at = offsetof(struct raw_slice_port, name), .max = 63},
    {.name = "port",
     .type = FIELD_INT,
     .width = 2,
     .at = offsetof(struct raw_slice_port, port),
     .min = 1,
     .max = 65535},
    {.name = "protocol",
     .type = FIELD_ENUM,
     .at = offsetof(struct raw_slice_port, protocol),
     .names = service_protocols},
    IGNORE("appProtocol"),
};
static const struct schema slice_port_schema = {FIELDS(slice_port_fields), .size = sizeof(struct raw_slice_port)};

static const char *const address_types[] = {"IPv4", "IPv6", "FQDN", NULL};

static void check_addresses(struct reader *r, const struct node *n, const struct raw_slice *s)
{
    struct path list = {.type = PATH_FIELD, .name = STR("endpoints")};
    const struct node *nodes = node_get(n, "endpoints");
    if (node_get(n, "addressType") == NULL)
        return;
    for (size_t i = 0; i < s->endpoint_count; i++) {
        const struct node *addresses = node_get(nodes->u.list.items[i], "addresses");
        struct path endpoint = {.up = &list, .type = PATH_INDEX, .index = i};
        struct path all = {.up = &endpoint, .type = PATH_FIELD, .name = STR("addresses")};
        for (size_t k = 0; addresses != NULL && addresses->type == NODE_LIST && k < addresses->u.list.count; k++) {
            const struct node *a = addresses->u.list.items[k];
            struct path at = {.up = &all, .type = PATH_INDEX, .index = k};
            if (a->type != NODE_STRING || a->u.string.n == 0)
                continue;
            if (s->type == SLICE_IPV4 && !format_is_ipv4(a->u.string))
                schema_invalid(r, a, &at, "must be a valid IPv4 address");
            if (s->type == SLICE_IPV6 && (format_is_ipv4(a->u.string) || !format_is_ip(a->u.string)))
                schema_invalid(r, a, &at, "must be a valid IPv6 address");
            if (s->type == SLICE_FQDN)
                schema_format(r, a, &at, a->u.string, &format_subdomain);
        }
    }
}

static void finish_slice(struct reader *r, const struct node *n, const struct path *path, void *raw, void *out)
{
    (void)path;
    const struct raw_slice *s = raw;
    struct endpoint_slice *to = out;
    check_addresses(r, n, s);
    const char *service = labels_get(&r->meta->labels, "kubernetes.io/service-name");
    to->service = memory_str(r->memory, str_of(service));
    if (service == NULL)
        schema_warn(r, n, NULL,
                    "without the label kubernetes.io/service-name this EndpointSlice belongs to no Service");
    to->address_type = memory_str(r->memory, str_of(address_types[s->type]));
    to->endpoints = s->endpoints;
    to->endpoint_count = s->endpoint_count;
    to->ports = memory_alloc(r->memory, s->port_count * sizeof *to->ports);
    for (size_t i = 0; i < s->port_count; i++) {
        const struct raw_slice_port *p = &s->ports[i];
        if (p->protocol != SLICE_TCP || p->port == 0)
            continue;
        char *name = p->name != NULL ? p->name : memory_str(r->memory, STR(""));
        to->ports[to->port_count++] = (struct slice_port){name, p->port};
    }
}

static const struct field slice_fields[] = {
    ROOT_FIELDS,
    {.name = "addressType",
     .type = FIELD_ENUM,
     .required = true,
     .at = offsetof(struct raw_slice, type),
     .names = address_types},
    {.name = "endpoints",
     .type = FIELD_OBJECTS,
     .at = offsetof(struct raw_slice, endpoints),
     .count_at = offsetof(struct raw_slice, endpoint_count),
     .max_items = 1000,
     .schema = &slice_endpoint_schema},
    {.name = "ports",
     .type = FIELD_OBJECTS,
     .at = offsetof(struct raw_slice, ports),
     .count_at = offsetof(struct raw_slice, port_count),
     .max_items = 20000,
     .schema = &slice_port_schema},
};
static const struct schema slice_schema = {FIELDS(slice_fields), .size = sizeof(struct endpoint_slice),
                                           .raw_size = sizeof(struct raw_slice), .finish = finish_slice};
const struct kind_reader kind_endpoint_slice = {{"v1"}, &slice_schema, &format_subdomain};
