/* SPDX-License-Identifier: Apache-2.0
 *
 * Envoy's property tree over a stream. One table of leaves for each first segment, each leaf a function that appends
 * its binary form; what has no leaf is looked up among what filters have set. Guests compare the forms bit by bit (an
 * integer is 8 bytes, never text), so the forms are written in one place each. A property that is not known yet is
 * NOT_FOUND, never an invented value.
 */
#include "proxy/properties.h"
#include "proxy/grpc.h"

#include "proxy/node_address.h"
#include "proxy/pool.h"

enum { PATH_SEGMENTS_MAX = 16 };

struct path {
    struct str seg[PATH_SEGMENTS_MAX];
    size_t count;
};
/* What a leaf looks at. */
struct view {
    const struct identity *me; /* may be NULL */
    struct stream *s;          /* NULL in the root's scope */
    bool ended;
    const struct path *path;
    struct strbuf *out;
};
typedef enum abi_status leaf_fn(struct view *v);
struct leaf {
    const char *name;
    leaf_fn *fn;
};

/* ---- forms ---- */

static enum abi_status give_u64(struct view *v, uint64_t n)
{
    char bytes[8];

    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (char)(n >> (8 * i) & 0xff);
    strbuf_add(v->out, str_span(bytes, sizeof bytes));
    return ABI_OK;
}

static enum abi_status give_bool(struct view *v, bool b)
{
    strbuf_addc(v->out, b ? 1 : 0);
    return ABI_OK;
}

static enum abi_status give_str(struct view *v, struct str s)
{
    strbuf_add(v->out, s);
    return ABI_OK;
}

static enum abi_status give_text(struct view *v, struct str s) { return s.n != 0 ? give_str(v, s) : ABI_NOT_FOUND; }

/* ns between two moments of which 0 is none. */
static enum abi_status give_duration(struct view *v, uint64_t from, uint64_t to)
{
    return from != 0 && to >= from && to != 0 ? give_u64(v, to - from) : ABI_NOT_FOUND;
}

static void add_u32(struct strbuf *b, size_t n)
{
    for (int i = 0; i < 4; i++)
        strbuf_addc(b, (char)(n >> (8 * i) & 0xff));
}

static void add_pairs(struct strbuf *b, const struct abi_pair *list, size_t count)
{
    add_u32(b, count);
    for (size_t i = 0; i < count; i++) {
        add_u32(b, list[i].name.n);
        add_u32(b, list[i].value.n);
    }
    for (size_t i = 0; i < count; i++) {
        strbuf_add(b, list[i].name);
        strbuf_addc(b, 0);
        strbuf_add(b, list[i].value);
        strbuf_addc(b, 0);
    }
}

static enum abi_status give_headers(struct view *v, const struct headers *h)
{
    add_u32(v->out, h->count);
    for (uint32_t i = 0; i < h->count; i++) {
        add_u32(v->out, h->list[i].name.n);
        add_u32(v->out, h->list[i].value.n);
    }
    for (uint32_t i = 0; i < h->count; i++) {
        strbuf_add(v->out, h->list[i].name);
        strbuf_addc(v->out, 0);
        strbuf_add(v->out, h->list[i].value);
        strbuf_addc(v->out, 0);
    }
    return ABI_OK;
}

/* The values of one name joined by commas. */
static enum abi_status give_header(struct view *v, const struct headers *h, struct str name)
{
    bool found = false;

    for (uint32_t i = 0; i < h->count; i++) {
        if (!str_ieq(h->list[i].name, name))
            continue;
        if (found)
            strbuf_addc(v->out, ',');
        strbuf_add(v->out, h->list[i].value);
        found = true;
    }
    return found ? ABI_OK : ABI_NOT_FOUND;
}

/* "x.headers" whole, or "x.headers.<name>". */
static enum abi_status give_map(struct view *v, const struct headers *h)
{
    if (h == NULL || v->path->count > 3)
        return ABI_NOT_FOUND;
    return v->path->count == 2 ? give_headers(v, h) : give_header(v, h, v->path->seg[2]);
}

/* ---- request ---- */

static const struct message *head_of(const struct view *v, enum direction dir) { return v->s->side[dir].msg; }

static struct str request_value(const struct view *v, enum header_id id)
{
    const struct message *m = head_of(v, DIR_REQUEST);
    return m != NULL ? headers_value(&m->headers, id) : STR_NONE;
}

static enum abi_status request_path(struct view *v) { return give_text(v, request_value(v, HDR_PATH)); }

static enum abi_status request_url_path(struct view *v)
{
    struct str path = request_value(v, HDR_PATH);
    ptrdiff_t at = str_find(path, '?');
    return give_text(v, at >= 0 ? str_upto(path, (size_t)at) : path);
}

static enum abi_status request_query(struct view *v)
{
    struct str path = request_value(v, HDR_PATH);
    ptrdiff_t at = str_find(path, '?');
    if (path.n == 0)
        return ABI_NOT_FOUND;
    return give_str(v, at >= 0 ? str_from(path, (size_t)at + 1) : STR_NONE);
}

static enum abi_status request_host(struct view *v) { return give_text(v, request_value(v, HDR_AUTHORITY)); }
static enum abi_status request_scheme(struct view *v) { return give_text(v, request_value(v, HDR_SCHEME)); }
static enum abi_status request_method(struct view *v) { return give_text(v, request_value(v, HDR_METHOD)); }
static enum abi_status request_referer(struct view *v) { return give_text(v, request_value(v, HDR_REFERER)); }
static enum abi_status request_useragent(struct view *v) { return give_text(v, request_value(v, HDR_USER_AGENT)); }

static enum abi_status request_id(struct view *v)
{
    struct str id = request_value(v, HDR_X_REQUEST_ID);
    return give_text(v, id.n != 0 ? id : v->s->request_id);
}

/* "host" is another name of :authority in Envoy's map. */
static enum abi_status request_headers(struct view *v)
{
    const struct message *m = head_of(v, DIR_REQUEST);
    if (m != NULL && v->path->count == 3 && str_ieq(v->path->seg[2], STR("host")))
        return give_header(v, &m->headers, STR(":authority"));
    return give_map(v, m != NULL ? &m->headers : NULL);
}

static enum abi_status request_headers_bytes(struct view *v)
{
    const struct message *m = head_of(v, DIR_REQUEST);
    return m != NULL ? give_u64(v, m->headers.bytes) : ABI_NOT_FOUND;
}

static enum abi_status request_time(struct view *v)
{
    return v->s->start_wall_ns != 0 ? give_u64(v, v->s->start_wall_ns) : ABI_NOT_FOUND;
}

static enum abi_status request_protocol(struct view *v)
{
    const struct message *m = head_of(v, DIR_REQUEST);
    if (m == NULL)
        return ABI_NOT_FOUND;
    return give_str(v, m->version == 10 ? STR("HTTP/1.0") : m->version == 20 ? STR("HTTP/2") : STR("HTTP/1.1"));
}

static enum abi_status request_duration(struct view *v) { return give_duration(v, v->s->start_ns, v->s->end_ns); }

/* The declared length, else what has come. */
static enum abi_status request_size(struct view *v)
{
    const struct message *m = head_of(v, DIR_REQUEST);
    bool declared = m != NULL && m->body == BODY_LENGTH && v->s->side[DIR_REQUEST].body_bytes < m->content_length;
    return give_u64(v, declared ? m->content_length : v->s->side[DIR_REQUEST].body_bytes);
}

static enum abi_status request_total_size(struct view *v)
{
    const struct message *m = head_of(v, DIR_REQUEST);
    return give_u64(v, v->s->side[DIR_REQUEST].body_bytes + (m != NULL ? m->headers.bytes : 0));
}

/* ---- response ---- */

static bool response_status(const struct view *v, uint64_t *code)
{
    const struct message *m = head_of(v, DIR_RESPONSE);

    *code = v->s->status;
    if (*code == 0 && m != NULL && !str_to_u64(headers_value(&m->headers, HDR_STATUS), 999, code))
        *code = m->status;
    return *code != 0;
}

static enum abi_status response_code(struct view *v)
{
    uint64_t code;
    return response_status(v, &code) ? give_u64(v, code) : ABI_NOT_FOUND;
}

static enum abi_status response_code_details(struct view *v)
{
    if (v->s->details.n != 0)
        return give_str(v, v->s->details);
    if (v->s->reason != END_NONE)
        return give_str(v, str_of(end_reason_details(v->s->reason)));
    return head_of(v, DIR_RESPONSE) != NULL ? give_str(v, str_of(end_reason_details(END_VIA_UPSTREAM))) : ABI_NOT_FOUND;
}

/* Bits of Envoy's StreamInfo::CoreResponseFlag. */
static uint64_t flag_bits(const char *flag)
{
    static const char *const names[] = {"LH",   "UH",   "UT",   "LR",   "UR", "UF",  "UC", "UO", "NR",  "DI",
                                        "FI",   "RL",   "UAEX", "RLSE", "DC", "URX", "SI", "IH", "DPE", "UMSDR",
                                        "RFCF", "NFCF", "DT",   "UPE",  "NC", "OM",  "DF", "DO"};

    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (strcmp(flag, names[i]) == 0)
            return UINT64_C(1) << i;
    return 0;
}

static enum abi_status response_flags(struct view *v) { return give_u64(v, flag_bits(end_reason_flag(v->s->reason))); }

static enum abi_status response_grpc_status(struct view *v)
{
    const struct message *m = head_of(v, DIR_RESPONSE);
    const struct headers *trailers = v->s->side[DIR_RESPONSE].trailers;
    struct str text = trailers != NULL ? headers_value(trailers, HDR_GRPC_STATUS) : STR_NONE;
    uint64_t code;

    if (text.n == 0 && m != NULL)
        text = headers_value(&m->headers, HDR_GRPC_STATUS);
    if (str_to_u64(text, INT32_MAX, &code))
        return give_u64(v, code);
    return response_status(v, &code) ? give_u64(v, grpc_of_status((unsigned)code)) : ABI_NOT_FOUND;
}

/* An empty map where there is none yet, as in Envoy. */
static enum abi_status give_response_map(struct view *v, const struct headers *h)
{
    if (h != NULL)
        return give_map(v, h);
    if (v->path->count != 2)
        return ABI_NOT_FOUND;
    add_u32(v->out, 0);
    return ABI_OK;
}

static enum abi_status response_headers(struct view *v)
{
    const struct message *m = head_of(v, DIR_RESPONSE);
    return give_response_map(v, m != NULL ? &m->headers : NULL);
}

static enum abi_status response_headers_bytes(struct view *v)
{
    const struct message *m = head_of(v, DIR_RESPONSE);
    return give_u64(v, m != NULL ? m->headers.bytes : 0);
}

static enum abi_status response_trailers(struct view *v)
{
    return give_response_map(v, v->s->side[DIR_RESPONSE].trailers);
}

static enum abi_status response_size(struct view *v) { return give_u64(v, v->s->side[DIR_RESPONSE].body_bytes_out); }

static enum abi_status response_total_size(struct view *v)
{
    const struct message *m = head_of(v, DIR_RESPONSE);
    return give_u64(v, v->s->side[DIR_RESPONSE].body_bytes_out + (m != NULL ? m->headers.bytes : 0));
}

/* From the first byte sent to the endpoint to the last byte it gave. */
static enum abi_status response_backend_latency(struct view *v)
{
    return v->s->side[DIR_RESPONSE].ended ? give_duration(v, v->s->up_start_ns, v->s->end_ns) : ABI_NOT_FOUND;
}

/* ---- addresses ---- */

static enum abi_status give_address(struct view *v, const struct addr *a)
{
    char text[ADDR_TEXT_MAX];

    if (a->u.sa.sa_family == AF_UNSPEC)
        return ABI_NOT_FOUND;
    return give_str(v, str_span(text, addr_format(a, true, text)));
}

static enum abi_status give_port(struct view *v, const struct addr *a)
{
    return a->u.sa.sa_family != AF_UNSPEC ? give_u64(v, addr_port(a)) : ABI_NOT_FOUND;
}

static enum abi_status source_address(struct view *v) { return give_address(v, &v->s->remote); }
static enum abi_status source_port(struct view *v) { return give_port(v, &v->s->remote); }
static enum abi_status destination_address(struct view *v) { return give_address(v, &v->s->local); }
static enum abi_status destination_port(struct view *v) { return give_port(v, &v->s->local); }

static enum abi_status connection_id(struct view *v) { return give_u64(v, v->s->conn_id); }
static enum abi_status connection_mtls(struct view *v) { return give_bool(v, false); }
static enum abi_status connection_server_name(struct view *v) { return give_str(v, STR_NONE); }

/* ---- upstream ---- */

static enum abi_status upstream_address(struct view *v)
{
    return v->s->endpoint != NULL ? give_address(v, &v->s->endpoint->addr) : ABI_NOT_FOUND;
}

static enum abi_status upstream_port(struct view *v)
{
    return v->s->endpoint != NULL ? give_port(v, &v->s->endpoint->addr) : ABI_NOT_FOUND;
}

static enum abi_status upstream_local_address(struct view *v)
{
    const struct addr *a = v->s->up_local.u.sa.sa_family != 0 ? &v->s->up_local : NULL;
    return a != NULL ? give_address(v, a) : ABI_NOT_FOUND;
}

static enum abi_status upstream_attempts(struct view *v) { return give_u64(v, v->s->attempts); }

static enum abi_status upstream_num_endpoints(struct view *v)
{
    return v->s->cluster != NULL ? give_u64(v, v->s->cluster->count) : ABI_NOT_FOUND;
}

/* Empty, as for an endpoint of no locality that did not fail in Envoy. */
static enum abi_status upstream_empty(struct view *v) { return v->s->endpoint != NULL ? ABI_OK : ABI_NOT_FOUND; }

/* ---- node: who this gateway is, as Istio tells its proxies ---- */

static const struct identity *identity_of(const struct view *v) { return v->me; }

static void add_node_id(const struct view *v, struct strbuf *b)
{
    const struct identity *me = identity_of(v);
    strbuf_printf(b, "router~%s~%s.%s~%s.svc.cluster.local", node_address(), me->name, me->ns, me->ns);
}

static void add_node_cluster(const struct view *v, struct strbuf *b)
{
    strbuf_printf(b, "%s.%s", identity_of(v)->name, identity_of(v)->ns);
}

static void add_labels(const struct view *v, struct strbuf *b)
{
    const struct labels *l = &identity_of(v)->labels;
    struct abi_pair *list = mem_alloc((l->count + 1) * sizeof *list);

    for (size_t i = 0; i < l->count; i++)
        list[i] = (struct abi_pair){str_of(l->list[i].key), str_of(l->list[i].value)};
    add_pairs(b, list, l->count);
    mem_free(list);
}

static enum abi_status give_metadata(struct view *v)
{
    const struct identity *me = identity_of(v);
    struct strbuf labels = {0};

    add_labels(v, &labels);
    const struct abi_pair list[] = {
        {STR("LABELS"), strbuf_str(&labels)},
        {STR("NAME"), str_of(me->name)},
        {STR("NAMESPACE"), str_of(me->ns)},
        {STR("WORKLOAD_NAME"), str_of(me->name)},
    };
    add_pairs(v->out, list, ARRAY_LEN(list));
    strbuf_free(&labels);
    return ABI_OK;
}

static enum abi_status give_label(struct view *v, struct str key)
{
    const struct labels *l = &identity_of(v)->labels;

    for (size_t i = 0; i < l->count; i++)
        if (str_is(key, l->list[i].key))
            return give_str(v, str_of(l->list[i].value));
    return ABI_NOT_FOUND;
}

/* Segments behind "node.metadata". */
static enum abi_status node_metadata(struct view *v, const struct str *seg, size_t count)
{
    const struct identity *me = identity_of(v);

    if (count == 0)
        return give_metadata(v);
    if (str_is(seg[0], "LABELS")) {
        if (count == 2)
            return give_label(v, seg[1]);
        if (count == 1)
            add_labels(v, v->out);
        return count == 1 ? ABI_OK : ABI_NOT_FOUND;
    }
    if (count != 1)
        return ABI_NOT_FOUND;
    if (str_is(seg[0], "NAMESPACE"))
        return give_str(v, str_of(me->ns));
    if (str_is(seg[0], "NAME") || str_is(seg[0], "WORKLOAD_NAME"))
        return give_str(v, str_of(me->name));
    return ABI_NOT_FOUND;
}

/* ---- node as a message: envoy.config.core.v3.Node {id 1, cluster 2, metadata 3 (Struct), user_agent_name 6,
 * user_agent_version 7} ---- */

static void pb_varint(struct strbuf *b, uint64_t n)
{
    for (; n >= 0x80; n >>= 7)
        strbuf_addc(b, (char)(n | 0x80));
    strbuf_addc(b, (char)n);
}

static void pb_bytes(struct strbuf *b, unsigned field, struct str s)
{
    pb_varint(b, field << 3 | 2);
    pb_varint(b, s.n);
    strbuf_add(b, s);
}

/* An entry of Struct.fields: {key 1, value 2 (Value)}; kind is the field of Value: 3 string_value, 5 struct_value. */
static void pb_field(struct strbuf *b, struct str key, unsigned kind, struct str value)
{
    struct strbuf v = {0}, entry = {0};

    pb_bytes(&v, kind, value);
    pb_bytes(&entry, 1, key);
    pb_bytes(&entry, 2, strbuf_str(&v));
    pb_bytes(b, 1, strbuf_str(&entry));
    strbuf_free(&v);
    strbuf_free(&entry);
}

static void pb_metadata(const struct identity *me, struct strbuf *b)
{
    struct strbuf labels = {0};

    for (size_t i = 0; i < me->labels.count; i++)
        pb_field(&labels, str_of(me->labels.list[i].key), 3, str_of(me->labels.list[i].value));
    pb_field(b, STR("LABELS"), 5, strbuf_str(&labels));
    pb_field(b, STR("NAME"), 3, str_of(me->name));
    pb_field(b, STR("NAMESPACE"), 3, str_of(me->ns));
    pb_field(b, STR("WORKLOAD_NAME"), 3, str_of(me->name));
    strbuf_free(&labels);
}

static enum abi_status give_node(struct view *v)
{
    struct strbuf part = {0};

    add_node_id(v, &part);
    pb_bytes(v->out, 1, strbuf_str(&part));
    strbuf_clear(&part);
    add_node_cluster(v, &part);
    pb_bytes(v->out, 2, strbuf_str(&part));
    strbuf_clear(&part);
    pb_metadata(identity_of(v), &part);
    pb_bytes(v->out, 3, strbuf_str(&part));
    pb_bytes(v->out, 6, STR("weir"));
    pb_bytes(v->out, 7, STR(WEIR_VERSION));
    strbuf_free(&part);
    return ABI_OK;
}

/* "node..." begins at this segment. */
static enum abi_status node_at(struct view *v, size_t at)
{
    const struct str *seg = v->path->seg + at + 1;
    size_t count = v->path->count - at - 1;

    if (identity_of(v) == NULL)
        return ABI_NOT_FOUND;
    if (count == 0)
        return give_node(v);
    if (str_is(seg[0], "metadata"))
        return node_metadata(v, seg + 1, count - 1);
    if (count != 1)
        return ABI_NOT_FOUND;
    if (str_is(seg[0], "id"))
        add_node_id(v, v->out);
    else if (str_is(seg[0], "cluster"))
        add_node_cluster(v, v->out);
    else if (str_is(seg[0], "user_agent_name"))
        strbuf_addz(v->out, "weir");
    else if (str_is(seg[0], "user_agent_version"))
        strbuf_addz(v->out, WEIR_VERSION);
    else
        return ABI_NOT_FOUND;
    return ABI_OK;
}

/* ---- xds, and the same leaves bare ---- */

static enum abi_status xds_node(struct view *v) { return node_at(v, 1); }
static enum abi_status bare_node(struct view *v) { return node_at(v, 0); }

/* The router's choice, looked up now when it was not yet: that fixes it until a filter edits the request. */
static const struct route *route_of(struct view *v)
{
    if (v->s->route_known || v->ended || head_of(v, DIR_REQUEST) == NULL)
        return v->s->route.route;
    return stream_route(v->s);
}

static enum abi_status xds_route_name(struct view *v)
{
    const struct route *r = v->s != NULL ? route_of(v) : NULL;
    return r != NULL && r->name != NULL ? give_str(v, str_of(r->name)) : ABI_NOT_FOUND;
}

static const char *cluster_name_of(struct view *v)
{
    if (v->s == NULL)
        return NULL;
    if (v->s->cluster != NULL)
        return v->s->cluster->key;
    const struct route *r = route_of(v);
    return r != NULL && r->backend_count == 1 ? r->backends[0].cluster : NULL;
}

static enum abi_status xds_cluster_name(struct view *v)
{
    const char *name = cluster_name_of(v);
    return name != NULL ? give_str(v, str_of(name)) : ABI_NOT_FOUND;
}

/* Metadata messages are there, and empty: they serialise to nothing, and so do the two maps in them. */
static enum abi_status give_metadata_message(struct view *v, size_t segments)
{
    if (v->path->count == segments)
        return ABI_OK;
    struct str member = v->path->seg[segments];
    if (v->path->count != segments + 1 ||
        (!str_is(member, "filter_metadata") && !str_is(member, "typed_filter_metadata")))
        return ABI_NOT_FOUND;
    add_u32(v->out, 0);
    return ABI_OK;
}

static enum abi_status xds_cluster_metadata(struct view *v)
{
    return cluster_name_of(v) != NULL ? give_metadata_message(v, 2) : ABI_NOT_FOUND;
}

static enum abi_status xds_route_metadata(struct view *v)
{
    return v->s != NULL && route_of(v) != NULL ? give_metadata_message(v, 2) : ABI_NOT_FOUND;
}

static enum abi_status xds_host_metadata(struct view *v)
{
    return v->s != NULL && v->s->endpoint != NULL ? give_metadata_message(v, 2) : ABI_NOT_FOUND;
}

/* Gateway API's listeners have one chain, without a name. */
static enum abi_status xds_filter_chain_name(struct view *v) { return v->s != NULL ? ABI_OK : ABI_NOT_FOUND; }

static enum abi_status xds_listener_metadata(struct view *v) { return give_metadata_message(v, 2); }

/* TrafficDirection OUTBOUND: what Istio's gateways say of themselves. */
static enum abi_status xds_listener_direction(struct view *v) { return give_u64(v, 2); }

/* ---- tables ---- */

static const struct leaf request_leaves[] = {
    {"path", request_path},
    {"url_path", request_url_path},
    {"query", request_query},
    {"host", request_host},
    {"scheme", request_scheme},
    {"method", request_method},
    {"headers", request_headers},
    {"headers_bytes", request_headers_bytes},
    {"referer", request_referer},
    {"useragent", request_useragent},
    {"time", request_time},
    {"id", request_id},
    {"protocol", request_protocol},
    {"duration", request_duration},
    {"size", request_size},
    {"total_size", request_total_size},
    {NULL, NULL},
};
static const struct leaf response_leaves[] = {
    {"code", response_code},
    {"code_details", response_code_details},
    {"flags", response_flags},
    {"grpc_status", response_grpc_status},
    {"headers", response_headers},
    {"headers_bytes", response_headers_bytes},
    {"trailers", response_trailers},
    {"size", response_size},
    {"total_size", response_total_size},
    {"backend_latency", response_backend_latency},
    {NULL, NULL},
};
static const struct leaf source_leaves[] = {{"address", source_address}, {"port", source_port}, {NULL, NULL}};
static const struct leaf destination_leaves[] = {
    {"address", destination_address}, {"port", destination_port}, {NULL, NULL}};
static const struct leaf connection_leaves[] = {
    {"id", connection_id},
    {"mtls", connection_mtls},
    {"requested_server_name", connection_server_name},
    {NULL, NULL},
};
static const struct leaf upstream_leaves[] = {
    {"address", upstream_address},
    {"port", upstream_port},
    {"local_address", upstream_local_address},
    {"locality", upstream_empty},
    {"transport_failure_reason", upstream_empty},
    {"request_attempt_count", upstream_attempts},
    {"num_endpoints", upstream_num_endpoints},
    {NULL, NULL},
};
static const struct leaf xds_leaves[] = {
    {"node", xds_node},
    {"cluster_name", xds_cluster_name},
    {"cluster_metadata", xds_cluster_metadata},
    {"route_name", xds_route_name},
    {"route_metadata", xds_route_metadata},
    {"virtual_host_metadata", xds_route_metadata},
    {"filter_chain_name", xds_filter_chain_name},
    {"upstream_host_metadata", xds_host_metadata},
    {"listener_metadata", xds_listener_metadata},
    {"listener_direction", xds_listener_direction},
    {NULL, NULL},
};
/* First segments; in_root: known without a stream. */
static const struct tree {
    const char *name;
    const struct leaf *leaves;
    bool in_root;
} trees[] = {
    {"request", request_leaves, false},
    {"response", response_leaves, false},
    {"source", source_leaves, false},
    {"destination", destination_leaves, false},
    {"connection", connection_leaves, false},
    {"upstream", upstream_leaves, false},
    {"xds", xds_leaves, true},
};

/* ---- reading ---- */

static bool path_split(struct str text, struct path *path)
{
    struct str rest = text;

    path->count = 0;
    if (rest.n != 0 && rest.p[rest.n - 1] == 0) /* the C++ SDK ends every segment */
        rest.n--;
    if (rest.n == 0)
        return false;
    while (rest.p != NULL) {
        struct str seg = str_split(&rest, 0);
        if (path->count == PATH_SEGMENTS_MAX)
            return true; /* longer than anything we know */
        path->seg[path->count++] = seg;
    }
    return true;
}

/* Maps and messages may have more segments behind their name. */
static bool goes_deeper(const struct leaf *leaf)
{
    return leaf->fn == request_headers || leaf->fn == response_headers || leaf->fn == response_trailers ||
           leaf->fn == xds_node || leaf->fn == xds_cluster_metadata || leaf->fn == xds_route_metadata ||
           leaf->fn == xds_host_metadata || leaf->fn == xds_listener_metadata;
}

static enum abi_status leaf_get(struct view *v, const struct leaf *leaves, struct str name, size_t segments)
{
    for (; leaves->name != NULL; leaves++) {
        if (!str_is(name, leaves->name))
            continue;
        return v->path->count == segments || goes_deeper(leaves) ? leaves->fn(v) : ABI_NOT_FOUND;
    }
    return ABI_NOT_FOUND;
}

/* filter_state.<key>: what a filter has set, whose key Envoy begins with "wasm.". */
static enum abi_status filter_state_get(struct view *v)
{
    struct str key = v->path->count == 2 ? v->path->seg[1] : STR_NONE;
    bool found = false;

    if (v->s != NULL && v->path->count == 1 && str_is(v->path->seg[0], "filter_state")) /* the whole tree has no form */
        return ABI_SERIALIZATION_FAILURE;

    if (str_starts(key, STR("wasm.")))
        key = str_from(key, 5);
    struct str value = v->s != NULL && key.n != 0 ? stream_property_get(v->s, key, &found) : STR_NONE;
    return found ? give_str(v, value) : ABI_NOT_FOUND;
}

/* Names before Envoy 1.33, and those of one segment; they shadow the xds leaves of the same name, one segment to the
 * left. */
static enum abi_status bare_get(struct view *v)
{
    const struct str *seg = v->path->seg;

    if (str_is(seg[0], "node"))
        return bare_node(v);
    if (str_is(seg[0], "filter_state") || str_is(seg[0], "upstream_filter_state"))
        return filter_state_get(v);
    if (str_is(seg[0], "metadata"))
        return v->s != NULL ? give_metadata_message(v, 1) : ABI_NOT_FOUND;
    if (v->path->count != 1)
        return ABI_NOT_FOUND;
    if (str_is(seg[0], "connection_id"))
        return v->s != NULL ? connection_id(v) : ABI_NOT_FOUND;
    struct path moved = {.seg = {STR("xds"), seg[0]}, .count = 2};
    struct view bare = {v->me, v->s, v->ended, &moved, v->out};
    return leaf_get(&bare, xds_leaves, seg[0], 2);
}

static enum abi_status known_get(struct view *v)
{
    for (size_t i = 0; i < ARRAY_LEN(trees); i++) {
        if (!str_is(v->path->seg[0], trees[i].name))
            continue;
        if (v->s == NULL && !trees[i].in_root)
            return ABI_NOT_FOUND;
        return v->path->count > 1 ? leaf_get(v, trees[i].leaves, v->path->seg[1], 2) : ABI_SERIALIZATION_FAILURE;
    }
    return bare_get(v);
}

enum abi_status property_get(struct worker *w, struct stream *s, bool ended, struct str path, struct strbuf *out)
{
    struct path split;
    struct view v = {w->identity, s, ended, &split, out};
    bool found = false;

    if (!path_split(path, &split))
        return ABI_SERIALIZATION_FAILURE;
    enum abi_status status = known_get(&v);
    if (status == ABI_OK || s == NULL)
        return status;
    struct str whole = path.p[path.n - 1] == 0 ? str_upto(path, path.n - 1) : path;
    struct str value = stream_property_get(s, whole, &found);
    return found ? give_str(&v, value) : status;
}

enum abi_status property_get_root(const struct identity *me, struct str path, struct strbuf *out)
{
    struct path split;
    struct view v = {me, NULL, false, &split, out};

    return path_split(path, &split) ? known_get(&v) : ABI_SERIALIZATION_FAILURE;
}

enum abi_status property_set(struct stream *s, struct str path, struct str value)
{
    static const struct str filter_state = STR_INIT("filter_state\0");

    if (s == NULL || path.n == 0)
        return ABI_NOT_FOUND;
    struct str whole = path.p[path.n - 1] == 0 ? str_upto(path, path.n - 1) : path;
    /* set_envoy_filter_state: kept under its own key, as the access log and filter_state.<key> look it up */
    if (str_starts(whole, filter_state) && str_find(str_from(whole, filter_state.n), 0) < 0)
        whole = str_from(whole, filter_state.n);
    return stream_property_set(s, whole, value) ? ABI_OK : ABI_INTERNAL_FAILURE;
}
