/* SPDX-License-Identifier: Apache-2.0
 *
 * Checked resources: what a YAML (or JSON) document becomes once every field is known, typed and valid. One struct for
 * each kind, immutable and reference-counted, so that a snapshot keeps what it was made of while newer text is read.
 * Strings are NUL-terminated and owned by the resource's own memory. A pointer to an optional part is NULL when absent.
 *
 * Sources: Istio WasmPlugin/TrafficExtension (extensions.istio.io/v1alpha1), ServiceEntry (networking.istio.io v1,
 * v1beta1, v1alpha3), Gateway API v1 (and v1beta1), Kubernetes core v1, discovery.k8s.io/v1.
 */
#ifndef WEIR_CONF_RESOURCE_H
#define WEIR_CONF_RESOURCE_H

#include <stdatomic.h>

#include "base/diag.h"
#include "base/str.h"

#define RESOURCE_KINDS(X)                                                                                              \
    X(GATEWAY_CLASS, "GatewayClass", "gateway.networking.k8s.io", false)                                               \
    X(GATEWAY, "Gateway", "gateway.networking.k8s.io", true)                                                           \
    X(HTTP_ROUTE, "HTTPRoute", "gateway.networking.k8s.io", true)                                                      \
    X(REFERENCE_GRANT, "ReferenceGrant", "gateway.networking.k8s.io", true)                                            \
    X(WASM_PLUGIN, "WasmPlugin", "extensions.istio.io", true)                                                          \
    X(TRAFFIC_EXTENSION, "TrafficExtension", "extensions.istio.io", true)                                              \
    X(SERVICE_ENTRY, "ServiceEntry", "networking.istio.io", true)                                                      \
    X(SERVICE, "Service", "", true)                                                                                    \
    X(ENDPOINT_SLICE, "EndpointSlice", "discovery.k8s.io", true)                                                       \
    X(NAMESPACE, "Namespace", "", false)                                                                               \
    X(SECRET, "Secret", "", true)                                                                                      \
    X(CONFIG_MAP, "ConfigMap", "", true)

enum kind {
#define X(id, name, group, namespaced) KIND_##id,
    RESOURCE_KINDS(X)
#undef X
        KIND_COUNT
};
const char *kind_name(enum kind kind);
const char *kind_group(enum kind kind);
bool kind_is_namespaced(enum kind kind);

struct label {
    char *key, *value;
};
struct labels {
    struct label *list;
    size_t count;
};
/* NULL when absent. */
const char *labels_get(const struct labels *l, const char *key);
/* Every pair of `wanted` is in l (an empty wanted matches everything). */
bool labels_match(const struct labels *l, const struct labels *wanted);

/* Whose text an object is. What came over a network is trusted with less than the operator's own files: delivery asks. */
enum store_origin { ORIGIN_FILE, ORIGIN_KUBE_API, ORIGIN_CLUSTER };

struct meta {
    enum kind kind;
    enum store_origin origin; /* of resources_parse: ORIGIN_FILE; the store sets what it was told */
    char *api_version;
    char *ns; /* "" for cluster-scoped kinds */
    char *name;
    char *uid, *resource_version; /* "" in file mode */
    struct labels labels, annotations;
    int64_t created;    /* metadata.creationTimestamp, seconds since 1970; 0 when absent */
    int64_t generation; /* metadata.generation; 0 when absent */
    char *file;         /* where it was read; NULL when not from a file */
    unsigned line;
    uint8_t
        digest[32]; /* SHA-256 of the normalised document without
                       metadata.{resourceVersion,generation,managedFields,uid} and status: same digest, same meaning */
};

/* ---- Gateway API ---- */

struct parameters_ref {
    char *group, *kind, *ns /* NULL */, *name;
};
struct gateway_class {
    char *controller_name;
    struct parameters_ref *parameters; /* NULL when absent */
};

enum listener_protocol { PROTOCOL_HTTP, PROTOCOL_HTTPS, PROTOCOL_TLS, PROTOCOL_TCP, PROTOCOL_UDP };
enum routes_from { ROUTES_SAME, ROUTES_ALL, ROUTES_SELECTOR };
struct label_requirement {
    char *key;
    enum { LABEL_IN, LABEL_NOT_IN, LABEL_EXISTS, LABEL_NOT_EXISTS } op;
    char **values;
    size_t value_count;
};
struct label_selector {
    struct labels match_labels;
    struct label_requirement *requirements;
    size_t requirement_count;
};
bool label_selector_matches(const struct label_selector *s, const struct labels *l);
struct gateway_listener {
    char *name, *hostname /* NULL: any; "*.x" allowed */;
    uint16_t port;
    enum listener_protocol protocol;
    enum routes_from from;
    struct label_selector selector; /* of namespaces, for ROUTES_SELECTOR */
    unsigned line;
    bool http_routes; /* HTTPRoutes may attach: allowedRoutes.kinds is absent or names them */
};
struct gateway_address {
    char *type, *value;
};
struct gateway {
    char *class_name;
    struct gateway_listener *listeners;
    size_t listener_count;
    struct gateway_address *addresses; /* where to bind: IPAddress values; none: all addresses */
    size_t address_count;
    struct parameters_ref *parameters; /* spec.infrastructure.parametersRef */
};

enum string_match { MATCH_EXACT, MATCH_PREFIX, MATCH_REGEX };
struct path_match {
    enum string_match type;
    char *value;
};
struct name_match {
    enum string_match type;
    char *name, *value;
}; /* header names lower case */
struct route_match {
    struct path_match path; /* default PREFIX "/" */
    struct name_match *headers, *query;
    size_t header_count, query_count;
    char *method; /* NULL: any */
};
struct header_value {
    char *name, *value;
};
struct header_modifier {
    struct header_value *set, *add;
    char **remove;
    size_t set_count, add_count, remove_count;
};
struct path_modifier {
    enum { PATH_REPLACE_FULL, PATH_REPLACE_PREFIX } type;
    char *value;
};
enum route_filter_type {
    FILTER_REQUEST_HEADERS,
    FILTER_RESPONSE_HEADERS,
    FILTER_REDIRECT,
    FILTER_REWRITE,
    FILTER_EXTENSION /* seam */
};
struct route_filter {
    enum route_filter_type type;
    struct header_modifier headers; /* REQUEST_HEADERS, RESPONSE_HEADERS */
    struct {
        char *scheme, *hostname; /* NULL: as the request */
        struct path_modifier *path;
        uint16_t port;   /* 0: unset */
        uint16_t status; /* redirect: 301, 302, 303, 307, 308 */
    } to;                /* REDIRECT; REWRITE uses hostname and path */
    struct {
        char *group, *kind, *name;
    } extension;
    unsigned line;
};
struct backend_ref {
    char *group, *kind /* "Service" default */, *ns /* NULL: the route's */, *name;
    uint16_t port;   /* 0: absent */
    uint32_t weight; /* default 1 */
    struct route_filter *filters;
    size_t filter_count;
    unsigned line, col;
};
struct parent_ref {
    char *group, *kind, *ns /* NULL */, *name, *section /* NULL */;
    uint16_t port;
    unsigned line;
};
struct route_rule {
    char *name; /* may be NULL */
    struct route_match *matches;
    size_t match_count; /* at least one: the default match when none was given */
    struct route_filter *filters;
    size_t filter_count;
    struct backend_ref *backends;
    size_t backend_count;
    int64_t request_timeout_ms, backend_timeout_ms; /* -1: unset; 0: none */
    unsigned line;
};
struct http_route {
    struct parent_ref *parents;
    size_t parent_count;
    char **hostnames;
    size_t hostname_count;
    struct route_rule *rules;
    size_t rule_count;
};
struct reference_grant {
    struct {
        char *group, *kind, *ns;
    } * from;
    size_t from_count;
    struct {
        char *group, *kind, *name /* NULL: all */;
    } * to;
    size_t to_count;
};

/* ---- Istio ---- */

enum plugin_phase { PHASE_UNSPECIFIED, PHASE_AUTHN, PHASE_AUTHZ, PHASE_STATS };
enum plugin_fail { PLUGIN_FAIL_CLOSE, PLUGIN_FAIL_OPEN, PLUGIN_FAIL_RELOAD };
enum plugin_type { PLUGIN_HTTP, PLUGIN_NETWORK };
enum pull_policy { PULL_UNSPECIFIED, PULL_IF_NOT_PRESENT, PULL_ALWAYS };
enum match_mode { MODE_UNDEFINED, MODE_CLIENT, MODE_SERVER, MODE_CLIENT_AND_SERVER };
enum url_scheme { URL_FILE, URL_HTTP, URL_HTTPS, URL_OCI };
struct target_ref {
    char *group, *kind, *name;
    unsigned line;
};
struct traffic_match {
    enum match_mode mode;
    uint16_t *ports;
    size_t port_count;
};
struct env_var {
    char *name, *value;
    bool from_host;
};
/* WasmPlugin and TrafficExtension (wasm) become this one thing. */
struct wasm_plugin {
    struct labels selector; /* matchLabels; empty: every workload of the namespace */
    bool has_selector;
    struct target_ref *targets; /* targetRefs, or the one of targetRef */
    size_t target_count;
    char *url; /* as written */
    enum url_scheme scheme;
    char *sha256; /* 64 lower hex, or NULL */
    enum pull_policy pull_policy;
    char *pull_secret;      /* NULL when absent */
    char *verification_key; /* NULL when absent */
    char *config; /* byte for byte as Istio delivers it (istio-and-kubernetes.md section 3); NULL when empty */
    size_t config_bytes;
    char *plugin_name; /* root_id; "" when unset */
    enum plugin_phase phase;
    bool has_priority; /* unset sorts below every value */
    int32_t priority;
    enum plugin_fail fail;
    enum plugin_type type;
    struct env_var *env; /* ISTIO_META_* stripped */
    size_t env_count;
    struct traffic_match *matches;
    size_t match_count;
    /* plugin.weir/... annotations, checked; -1: not given */
    int64_t cpu_deadline_ms, start_deadline_ms, memory_limit, pause_limit_ms, recheck_ms;
    int utf8;          /* enum header_utf8 of wasm/plugin.h: 0 reject, 1 escape, 2 pass; -1 */
    int pause_headers; /* 0 all, 1 headers only; -1 */
    char *vm_id;       /* NULL: the namespace */
};
/* Does a spec.match entry let this plugin run on a gateway (CLIENT side) listener of this port? */
bool wasm_plugin_matches_gateway_port(const struct wasm_plugin *p, uint16_t port);
/* Chain order (istio-and-kubernetes.md 1.3): phase, then priority descending (unset last), then own namespace before
 * root namespace, then creation time, name, namespace. For qsort-like use. */
struct resource;
int wasm_plugin_order(const struct resource *a, const struct resource *b, const char *own_ns, const char *root_ns);

enum resolution { RESOLUTION_NONE, RESOLUTION_STATIC, RESOLUTION_DNS };
struct entry_port {
    char *name;
    uint16_t number, target;
};
struct entry_endpoint {
    char *address;
    struct {
        char *name;
        uint16_t port;
    } * ports;
    size_t port_count;
    uint32_t weight;
};
struct service_entry {
    char **hosts;
    size_t host_count;
    struct entry_port *ports;
    size_t port_count;
    enum resolution resolution;
    struct entry_endpoint *endpoints;
    size_t endpoint_count;
};

/* ---- core ---- */

struct service_port {
    char *name /* "" */;
    uint16_t port;
    uint16_t target;
    char *target_name /* NULL */;
    char *app_protocol /* NULL */;
};
struct service {
    struct service_port *ports;
    size_t port_count;
    char *type;          /* "ClusterIP" ... */
    char *external_name; /* NULL */
    struct labels selector;
};
struct slice_endpoint {
    char **addresses;
    size_t address_count;
    bool ready;
};
struct slice_port {
    char *name;
    uint16_t port;
};
struct endpoint_slice {
    char *service; /* label kubernetes.io/service-name; "" when absent */
    char *address_type;
    struct slice_endpoint *endpoints;
    size_t endpoint_count;
    struct slice_port *ports;
    size_t port_count;
};
struct secret_item {
    char *key;
    uint8_t *bytes;
    size_t n;
};
struct secret {
    char *type;
    struct secret_item *items;
    size_t item_count;
};
struct config_map {
    struct label *data;
    size_t data_count;
};

/* ---- the resource ---- */

struct resource {
    atomic_uint refs;
    struct meta meta;
    union {
        struct gateway_class gateway_class;
        struct gateway gateway;
        struct http_route http_route;
        struct reference_grant reference_grant;
        struct wasm_plugin wasm_plugin; /* KIND_WASM_PLUGIN and KIND_TRAFFIC_EXTENSION */
        struct service_entry service_entry;
        struct service service;
        struct endpoint_slice endpoint_slice;
        struct secret secret;
        struct config_map config_map;
    } u;
    char *json; /* the whole object as it was written; NULL unless it was asked for (resources_parse_whole) */
    struct conf_memory *memory; /* everything above points into it */
};
struct resource *resource_ref(struct resource *r); /* atomic */
void resource_unref(struct resource *r);
/* "WasmPlugin istio-system/my-wasm-plugin" into out. */
void resource_title(const struct meta *meta, struct strbuf *out);

/* One document of a file. resource is NULL when it has errors; then title (best known "Kind ns/name", may be NULL),
 * kind (-1 unknown), ns and name say which object it would have been, so that its last good version can keep serving.
 */
struct document {
    struct resource *resource;
    struct diag diag; /* errors and warnings of this document only */
    int kind;
    char *ns, *name, *title;
    unsigned line;
};
struct documents {
    struct document *list;
    size_t count;
    struct diag syntax; /* the text does not parse: count says how many documents before it did */
    size_t ignored;     /* documents of kinds Weir does not read (a warning each, in syntax, level WARNING) */
};
/* Parses YAML 1.1 as Kubernetes reads it (or JSON, a subset), any number of documents, kind List included. Objects of
 * namespaced kinds without a namespace get default_ns. file names the place in messages. Bounded: text size is the
 * caller's; depth 64, 1,000,000 nodes, no alias bombs. */
void resources_parse(struct str text, const char *file, const char *default_ns, struct documents *out);
/* As resources_parse; each resource keeps the whole object as JSON too. */
void resources_parse_whole(struct str text, const char *file, const char *default_ns, struct documents *out);
void documents_free(struct documents *d);

/* The resource as JSON for /config (Secret data, env values, pull credentials and keys replaced by "sha256:...";
 * pluginConfig only when asked). */
void resource_write_json(const struct resource *r, bool with_plugin_config, struct strbuf *out);
/* A url as anyone may see it: user information and the query may be credentials (signed urls), so stars and a digest
 * stand for them. */
void url_write_public(const char *url, struct strbuf *out);

#endif
