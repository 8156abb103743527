/* SPDX-License-Identifier: Apache-2.0
 *
 * Istio ServiceEntry (networking.istio.io v1, v1beta1, v1alpha3): hosts outside Kubernetes that routes and filters may
 * call. Messages are those of Istio's CRD and webhook. Only what a gateway can connect to is kept: addresses and names,
 * no UNIX sockets, no workload selectors.
 */
#include "conf/kinds.h"

struct raw_endpoint {
    char *address;
    const struct node *ports;
    uint32_t weight;
    bool has_network;
};
struct raw_entry {
    struct service_entry e;
    enum { R_NONE, R_STATIC, R_DNS, R_DNS_ROUND_ROBIN, R_DYNAMIC_DNS } resolution;
    bool has_selector, has_endpoints;
    char **addresses;
    size_t address_count;
};
struct endpoint_port {
    char *name;
    uint16_t port;
};
_Static_assert(sizeof(struct endpoint_port) == sizeof(*((struct entry_endpoint *)0)->ports), "same members");

/* ---- ports ---- */

static void finish_port(struct reader *r, const struct node *n, const struct path *path, void *raw, void *out)
{
    (void)r, (void)n, (void)path, (void)raw;
    struct entry_port *p = out;
    if (p->target == 0)
        p->target = p->number;
}

static const struct field port_fields[] = {
    {.name = "number",
     .type = FIELD_INT,
     .required = true,
     .width = 2,
     .at = offsetof(struct entry_port, number),
     .min = 1,
     .max = 65535},
    {.name = "name",
     .type = FIELD_STRING,
     .required = true,
     .at = offsetof(struct entry_port, name),
     .min = 1,
     .max = 256},
    {.name = "targetPort",
     .type = FIELD_INT,
     .width = 2,
     .at = offsetof(struct entry_port, target),
     .min = 1,
     .max = 65535},
    {.name = "protocol", .type = FIELD_IGNORED},
};
static const struct schema port_schema = {FIELDS(port_fields), .size = sizeof(struct entry_port),
                                          .finish = finish_port};

/* ---- endpoints ---- */

static void check_address(struct reader *r, const struct node *n, const struct path *path, const struct raw_endpoint *e)
{
    if (e->address == NULL || e->address[0] == '\0') {
        if (node_get(n, "address") == NULL || e->address != NULL)
            schema_error(r, n, path,
                         e->has_network ? "Invalid value: endpoints of other networks are not supported yet"
                                        : "Invalid value: Address is required");
        return;
    }
    struct path at = {.up = path, .type = PATH_FIELD, .name = STR("address")};
    const struct node *place = schema_place(n, "address");
    if (str_starts(str_of(e->address), STR("unix://")))
        schema_invalid(r, place, &at, "UNIX domain sockets are not supported yet");
    else if (!format_is_ip(str_of(e->address)))
        schema_format(r, place, &at, str_of(e->address), &format_precise_hostname);
}

static void read_endpoint_ports(struct reader *r, const struct path *path, const struct raw_endpoint *raw,
                                struct entry_endpoint *e)
{
    if (raw->ports == NULL)
        return;
    struct path list = {.up = path, .type = PATH_FIELD, .name = STR("ports")};
    size_t count = raw->ports->u.map.count;
    struct endpoint_port *ports = memory_alloc(r->memory, count * sizeof *ports);
    for (size_t i = 0; i < count && i < 128; i++) {
        const struct member *m = &raw->ports->u.map.members[i];
        struct path at = {.up = &list, .type = PATH_KEY, .name = m->key};
        int64_t v;
        if (!node_integer(m->value, &v))
            schema_wrong_type(r, m->value, &at, "integer");
        else if (v < 1 || v > 65535)
            schema_invalid(r, m->value, &at, "port number must be between 1 and 65535");
        else
            ports[e->port_count++] = (struct endpoint_port){memory_str(r->memory, m->key), (uint16_t)v};
    }
    e->ports = (void *)ports;
}

static void finish_endpoint(struct reader *r, const struct node *n, const struct path *path, void *raw, void *out)
{
    const struct raw_endpoint *from = raw;
    struct entry_endpoint *e = out;
    check_address(r, n, path, from);
    e->address = from->address;
    e->weight = from->weight != 0 ? from->weight : 1;
    read_endpoint_ports(r, path, from, e);
}

static const struct field endpoint_fields[] = {
    {.name = "address", .type = FIELD_STRING, .at = offsetof(struct raw_endpoint, address), .max = 256},
    {.name = "ports", .type = FIELD_NODE, .at = offsetof(struct raw_endpoint, ports), .node_type = NODE_MAP},
    {.name = "weight",
     .type = FIELD_INT,
     .width = 4,
     .at = offsetof(struct raw_endpoint, weight),
     .min = 0,
     .max = UINT32_MAX},
    {.name = "network", .type = FIELD_IGNORED, .has = HAS(struct raw_endpoint, has_network)},
    {.name = "labels", .type = FIELD_IGNORED},
    {.name = "locality", .type = FIELD_IGNORED},
    {.name = "serviceAccount", .type = FIELD_IGNORED},
};
static const struct schema endpoint_schema = {FIELDS(endpoint_fields), .size = sizeof(struct entry_endpoint),
                                              .raw_size = sizeof(struct raw_endpoint), .finish = finish_endpoint};

/* ---- spec ---- */

static void check_ports(struct reader *r, const struct node *n, const struct path *path, const struct service_entry *e)
{
    struct path at = {.up = path, .type = PATH_FIELD, .name = STR("ports")};
    for (size_t i = 1; i < e->port_count; i++) {
        for (size_t j = 0; j < i; j++) {
            if (e->ports[i].number == 0 || e->ports[i].number != e->ports[j].number)
                continue;
            schema_error(r, schema_place(n, "ports"), &at, "Invalid value: port number cannot be duplicated");
            return;
        }
    }
}

static void check_endpoint_ports(struct reader *r, const struct node *n, const struct path *path,
                                 const struct service_entry *e)
{
    struct path list = {.up = path, .type = PATH_FIELD, .name = STR("endpoints")};
    const struct node *nodes = node_get(n, "endpoints");
    for (size_t i = 0; i < e->endpoint_count; i++) {
        struct path at = {.up = &list, .type = PATH_INDEX, .index = i};
        for (size_t k = 0; k < e->endpoints[i].port_count; k++) {
            bool known = false;
            for (size_t j = 0; j < e->port_count; j++)
                known =
                    known || (e->ports[j].name != NULL && strcmp(e->ports[j].name, e->endpoints[i].ports[k].name) == 0);
            if (!known)
                schema_error(r, schema_place(nodes->u.list.items[i], "ports"), &at,
                             "Invalid value: endpoint port %s is not defined by the service entry",
                             e->endpoints[i].ports[k].name);
        }
    }
}

static void check_hosts(struct reader *r, const struct node *n, const struct path *path, const struct raw_entry *x)
{
    struct path list = {.up = path, .type = PATH_FIELD, .name = STR("hosts")};
    const struct node *nodes = node_get(n, "hosts");
    bool needs_name = x->e.resolution == RESOLUTION_DNS && x->e.endpoint_count == 0;
    for (size_t i = 0; nodes != NULL && nodes->type == NODE_LIST && i < nodes->u.list.count; i++) {
        const struct node *host = nodes->u.list.items[i];
        struct path at = {.up = &list, .type = PATH_INDEX, .index = i};
        if (host->type != NODE_STRING || host->u.string.n == 0)
            continue;
        if (str_is(host->u.string, "*"))
            schema_invalid(r, host, &at, "hostname cannot be wildcard");
        else if (schema_format(r, host, &at, host->u.string, &format_hostname) && needs_name &&
                 host->u.string.p[0] == '*')
            schema_invalid(r, host, &at, "hosts must be FQDN if no endpoints are provided for resolution mode DNS");
    }
}

static void check_resolution(struct reader *r, const struct node *n, const struct path *path, const struct raw_entry *x)
{
    struct path at = {.up = path, .type = PATH_FIELD, .name = STR("resolution")};
    const struct node *place = schema_place(n, "resolution");
    const struct service_entry *e = &x->e;
    if (x->has_selector && e->endpoint_count != 0)
        schema_error(r, n, path, "Invalid value: only one of WorkloadSelector or Endpoints can be set");
    const struct node *given = node_get(n, "resolution");
    bool none = given == NULL || (given->type == NODE_STRING && str_is(given->u.string, "NONE"));
    if (none) { /* a resolution in error reads as NONE too, and has its own message */
        if (e->endpoint_count != 0)
            schema_error(r, n, path, "Invalid value: NONE mode cannot set endpoints");
        schema_warn(r, place, &at, "resolution NONE gives a gateway no endpoints: use STATIC or DNS");
    }
    if (x->resolution == R_DYNAMIC_DNS)
        schema_error(r, place, &at, "resolution DYNAMIC_DNS is not supported yet");
    if (x->resolution == R_DNS_ROUND_ROBIN && e->endpoint_count > 1)
        schema_error(r, n, path, "Invalid value: DNS_ROUND_ROBIN mode cannot have multiple endpoints");
    if (x->resolution == R_STATIC && !x->has_endpoints && !x->has_selector)
        schema_error(r, n, path,
                     "Invalid value: endpoints must be provided if service entry resolution mode is static");
    struct path list = {.up = path, .type = PATH_FIELD, .name = STR("endpoints")};
    const struct node *nodes = node_get(n, "endpoints");
    for (size_t i = 0; x->resolution == R_STATIC && i < e->endpoint_count; i++) {
        const struct node *item = nodes->u.list.items[i];
        struct path item_path = {.up = &list, .type = PATH_INDEX, .index = i};
        struct path address = {.up = &item_path, .type = PATH_FIELD, .name = STR("address")};
        if (e->endpoints[i].address != NULL && e->endpoints[i].address[0] != '\0' &&
            !str_starts(str_of(e->endpoints[i].address), STR("unix://")) &&
            !format_is_ip(str_of(e->endpoints[i].address)))
            schema_invalid(r, schema_place(item, "address"), &address,
                           "must be an IP address when resolution is STATIC");
    }
}

static void finish_entry(struct reader *r, const struct node *n, const struct path *path, void *raw, void *out)
{
    struct raw_entry *x = raw;
    struct service_entry *e = out;
    x->e.resolution = x->resolution == R_STATIC ? RESOLUTION_STATIC
                      : x->resolution == R_NONE ? RESOLUTION_NONE
                                                : RESOLUTION_DNS;
    check_hosts(r, n, path, x);
    check_ports(r, n, path, &x->e);
    check_resolution(r, n, path, x);
    check_endpoint_ports(r, n, path, &x->e);
    bool cidr = false;
    for (size_t i = 0; i < x->address_count; i++)
        cidr = cidr || strchr(x->addresses[i], '/') != NULL;
    if (cidr && x->resolution != R_NONE && x->resolution != R_STATIC)
        schema_error(r, schema_place(n, "addresses"), path,
                     "Invalid value: CIDR addresses are allowed only for NONE/STATIC resolution types");
    *e = x->e;
}

#define E(member) offsetof(struct raw_entry, e.member)
static const char *const resolution_names[] = {"NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS", NULL};
static const struct field spec_fields[] = {
    {.name = "hosts",
     .type = FIELD_STRINGS,
     .required = true,
     .at = E(hosts),
     .count_at = E(host_count),
     .min_items = 1,
     .max_items = 256,
     .min = 1,
     .max = 255},
    {.name = "addresses",
     .type = FIELD_STRINGS,
     .at = offsetof(struct raw_entry, addresses),
     .count_at = offsetof(struct raw_entry, address_count),
     .max_items = 256,
     .max = 64},
    {.name = "ports",
     .type = FIELD_OBJECTS,
     .at = E(ports),
     .count_at = E(port_count),
     .max_items = 256,
     .schema = &port_schema,
     .unique = "name"},
    {.name = "resolution", .type = FIELD_ENUM, .at = offsetof(struct raw_entry, resolution), .names = resolution_names},
    {.name = "endpoints",
     .type = FIELD_OBJECTS,
     .at = E(endpoints),
     .count_at = E(endpoint_count),
     .has = HAS(struct raw_entry, has_endpoints),
     .max_items = 4096,
     .schema = &endpoint_schema},
    {.name = "workloadSelector",
     .type = FIELD_UNREAD,
     .has = HAS(struct raw_entry, has_selector),
     .text = "workloadSelector is not supported yet: it gives no endpoints"},
    {.name = "location", .type = FIELD_IGNORED},
    {.name = "exportTo", .type = FIELD_IGNORED},
    {.name = "subjectAltNames", .type = FIELD_IGNORED},
};
static const struct schema spec_schema = {FIELDS(spec_fields), .size = sizeof(struct service_entry),
                                          .raw_size = sizeof(struct raw_entry), .finish = finish_entry};
static const struct field entry_fields[] = {
    ROOT_FIELDS, {.name = "spec", .type = FIELD_OBJECT, .required = true, .at = 0, .schema = &spec_schema}};
static const struct schema entry_schema = {FIELDS(entry_fields)};
const struct kind_reader kind_service_entry = {{"v1", "v1beta1", "v1alpha3"}, &entry_schema, &format_subdomain};
