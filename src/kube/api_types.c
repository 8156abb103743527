/* SPDX-License-Identifier: Apache-2.0
 *
 * The kinds the API serves, and what `kubectl get` shows of each. Cells are made here because a Table is made by the
 * server: kubectl prints them as they are.
 */
#include <stdio.h>

#include "conf/kinds.h"
#include "kube/api_priv.h"

/* ---- cells ---- */

static void cell(json_t *row, const char *text) { json_array_append_new(row, json_string(text)); }

static void cell_or(json_t *row, const char *text, const char *none) { cell(row, text[0] != '\0' ? text : none); }

static const json_t *condition_of(const json_t *object, const char *type)
{
    json_t *c;
    size_t i;
    json_array_foreach(json_at(object, "status", "conditions"), i, c)
    {
        if (strcmp(json_text(c, "type"), type) == 0)
            return c;
    }
    return NULL;
}

/* "Programmed", or the reason of the first condition that is not so. */
static const char *plugin_status(const json_t *object, const char **reason)
{
    *reason = "";
    json_t *c;
    size_t i;
    json_array_foreach(json_at(object, "status", "conditions"), i, c)
    {
        if (strcmp(json_text(c, "status"), "False") == 0) {
            *reason = json_text(c, "message");
            return json_text(c, "reason");
        }
    }
    const json_t *done = condition_of(object, "Programmed");
    if (done != NULL)
        *reason = json_text(done, "reason");
    if (done == NULL)
        return "Pending";
    return strcmp(json_text(done, "status"), "True") == 0 ? "Programmed" : json_text(done, "reason");
}

static void plugin_cells(const json_t *object, json_t *row)
{
    const json_t *spec = json_object_get(object, "spec"), *module = json_object_get(spec, "wasm");
    if (module == NULL)
        module = spec;
    const json_t *priority = json_object_get(spec, "priority");
    const char *reason, *status = plugin_status(object, &reason);
    cell_or(row, json_text(spec, "phase"), "<unset>");
    if (json_is_integer(priority))
        json_array_append(row, (json_t *)(uintptr_t)priority);
    else
        cell(row, "<unset>");
    cell_or(row, status, "Pending");
    cell(row, json_text(module, "url"));
    const char *digest = json_text(json_object_get(object, "status"), "digest");
    cell_or(row, digest[0] != '\0' ? digest : json_text(module, "sha256"), "<none>");
    cell_or(row, reason, "<none>");
}

static const char *condition_cell(const json_t *object, const char *type)
{
    const json_t *c = condition_of(object, type);
    return c != NULL ? json_text(c, "status") : "Unknown";
}

static void class_cells(const json_t *object, json_t *row)
{
    cell(row, json_text(json_object_get(object, "spec"), "controllerName"));
    cell(row, condition_cell(object, "Accepted"));
    cell(row, json_text(json_object_get(object, "spec"), "description"));
}

static void gateway_cells(const json_t *object, json_t *row)
{
    const json_t *addresses = json_at(object, "status", "addresses");
    cell(row, json_text(json_object_get(object, "spec"), "gatewayClassName"));
    cell(row, json_text(json_array_get(addresses, 0), "value"));
    cell(row, condition_cell(object, "Programmed"));
}

static void json_cell(json_t *row, const json_t *value)
{
    struct strbuf b = {0};
    if (value != NULL)
        json_put(&b, value);
    char *z = strbuf_take(&b);
    cell(row, z);
    mem_free(z);
}

static void route_cells(const json_t *object, json_t *row) { json_cell(row, json_at(object, "spec", "hostnames")); }

static void entry_cells(const json_t *object, json_t *row)
{
    const json_t *spec = json_object_get(object, "spec");
    json_cell(row, json_object_get(spec, "hosts"));
    cell(row, json_text(spec, "location"));
    cell(row, json_text(spec, "resolution"));
}

static void grant_cells(const json_t *object, json_t *row)
{
    (void)object;
    (void)row;
}

/* "80/TCP,443/TCP" */
static void ports_cell(json_t *row, const json_t *ports, const char *number, bool with_protocol)
{
    struct strbuf b = {0};
    json_t *p;
    size_t i;
    json_array_foreach(ports, i, p)
    {
        const char *protocol = json_text(p, "protocol");
        strbuf_printf(&b, "%s%lld", b.n > 0 ? "," : "", (long long)json_integer_value(json_object_get(p, number)));
        if (with_protocol)
            strbuf_printf(&b, "/%s", protocol[0] != '\0' ? protocol : "TCP");
    }
    char *z = strbuf_take(&b);
    cell_or(row, z, "<none>");
    mem_free(z);
}

static void labels_cell(json_t *row, json_t *labels)
{
    struct strbuf b = {0};
    const char *key;
    json_t *value;
    json_object_foreach(labels, key, value)
        strbuf_printf(&b, "%s%s=%s", b.n > 0 ? "," : "", key, json_is_string(value) ? json_string_value(value) : "");
    char *z = strbuf_take(&b);
    cell_or(row, z, "<none>");
    mem_free(z);
}

static void service_cells(const json_t *object, json_t *row)
{
    const json_t *spec = json_object_get(object, "spec");
    cell_or(row, json_text(spec, "type"), "ClusterIP");
    cell_or(row, json_text(spec, "clusterIP"), "<none>");
    cell_or(row, json_text(spec, "externalName"), "<none>");
    ports_cell(row, json_object_get(spec, "ports"), "port", true);
    labels_cell(row, json_object_get(spec, "selector"));
}

static void slice_cells(const json_t *object, json_t *row)
{
    struct strbuf b = {0};
    json_t *e, *a;
    size_t i, k;
    cell(row, json_text(object, "addressType"));
    ports_cell(row, json_object_get(object, "ports"), "port", false);
    json_array_foreach(json_object_get(object, "endpoints"), i, e)
    {
        json_array_foreach(json_object_get(e, "addresses"), k, a)
            strbuf_printf(&b, "%s%s", b.n > 0 ? "," : "", json_is_string(a) ? json_string_value(a) : "");
    }
    char *z = strbuf_take(&b);
    cell_or(row, z, "<unset>");
    mem_free(z);
}

static void namespace_cells(const json_t *object, json_t *row)
{
    cell_or(row, json_text(json_object_get(object, "status"), "phase"), "Active");
}

static void secret_cells(const json_t *object, json_t *row)
{
    cell_or(row, json_text(object, "type"), "Opaque");
    json_array_append_new(row, json_integer((json_int_t)json_object_size(json_object_get(object, "data"))));
}

static void config_map_cells(const json_t *object, json_t *row)
{
    size_t n = json_object_size(json_object_get(object, "data"));
    n += json_object_size(json_object_get(object, "binaryData"));
    json_array_append_new(row, json_integer((json_int_t)n));
}

static void pod_cells(const json_t *object, json_t *row)
{
    const json_t *status = json_object_get(object, "status");
    bool ready = strcmp(condition_cell(object, "Ready"), "True") == 0;
    cell(row, ready ? "1/1" : "0/1");
    cell(row, json_text(status, "phase"));
    json_array_append_new(row, json_integer(0));
    cell_or(row, json_text(status, "podIP"), "<none>");
    cell_or(row, json_text(json_object_get(object, "spec"), "nodeName"), "<none>");
}

static void event_cells(const json_t *object, json_t *row)
{
    const json_t *about = json_object_get(object, "involvedObject");
    char *title = mem_printf("%s/%s", json_text(about, "kind"), json_text(about, "name"));
    for (char *p = title; *p != '\0' && *p != '/'; p++)
        *p = *p >= 'A' && *p <= 'Z' ? (char)(*p - 'A' + 'a') : *p;
    cell(row, json_text(object, "type"));
    cell(row, json_text(object, "reason"));
    cell(row, title);
    cell(row, json_text(object, "message"));
    mem_free(title);
}

static void crd_cells(const json_t *object, json_t *row)
{
    cell(row, json_text(json_object_get(object, "metadata"), "creationTimestamp"));
}

/* ---- the table. "Name" and "Age" (or "Last Seen") are filled by api_table ---- */

#define COLUMNS(name, ...) static const struct api_column name[] = {__VA_ARGS__, {NULL, NULL, false}}
COLUMNS(plugin_columns, {"Name", "string", 0}, {"Phase", "string", 0}, {"Priority", "string", 0},
        {"Status", "string", 0}, {"Age", "string", 0}, {"URL", "string", 1}, {"Digest", "string", 1},
        {"Reason", "string", 1});
COLUMNS(class_columns, {"Name", "string", 0}, {"Controller", "string", 0}, {"Accepted", "string", 0},
        {"Age", "string", 0}, {"Description", "string", 1});
COLUMNS(gateway_columns, {"Name", "string", 0}, {"Class", "string", 0}, {"Address", "string", 0},
        {"Programmed", "string", 0}, {"Age", "string", 0});
COLUMNS(route_columns, {"Name", "string", 0}, {"Hostnames", "string", 0}, {"Age", "string", 0});
COLUMNS(grant_columns, {"Name", "string", 0}, {"Age", "string", 0});
COLUMNS(entry_columns, {"Name", "string", 0}, {"Hosts", "string", 0}, {"Location", "string", 0},
        {"Resolution", "string", 0}, {"Age", "string", 0});
COLUMNS(service_columns, {"Name", "string", 0}, {"Type", "string", 0}, {"Cluster-IP", "string", 0},
        {"External-IP", "string", 0}, {"Port(s)", "string", 0}, {"Age", "string", 0}, {"Selector", "string", 1});
COLUMNS(slice_columns, {"Name", "string", 0}, {"AddressType", "string", 0}, {"Ports", "string", 0},
        {"Endpoints", "string", 0}, {"Age", "string", 0});
COLUMNS(namespace_columns, {"Name", "string", 0}, {"Status", "string", 0}, {"Age", "string", 0});
COLUMNS(secret_columns, {"Name", "string", 0}, {"Type", "string", 0}, {"Data", "integer", 0}, {"Age", "string", 0});
COLUMNS(config_map_columns, {"Name", "string", 0}, {"Data", "integer", 0}, {"Age", "string", 0});
COLUMNS(pod_columns, {"Name", "string", 0}, {"Ready", "string", 0}, {"Status", "string", 0}, {"Restarts", "integer", 0},
        {"Age", "string", 0}, {"IP", "string", 1}, {"Node", "string", 1});
COLUMNS(event_columns, {"Last Seen", "string", 0}, {"Type", "string", 0}, {"Reason", "string", 0},
        {"Object", "string", 0}, {"Message", "string", 0}, {"Name", "string", 1});
COLUMNS(crd_columns, {"Name", "string", 0}, {"Created At", "date", 0});

static const char *const v1[] = {"v1", NULL};
#define ISTIO   "istio-io extensions-istio-io"
#define GATEWAY "gateway.networking.k8s.io"

const struct api_type api_types[] = {
    {"WasmPlugin", "wasmplugins", "wasmplugin", "", "extensions.istio.io", NULL, ISTIO, KIND_WASM_PLUGIN, true, false,
     plugin_columns, plugin_cells},
    {"TrafficExtension", "trafficextensions", "trafficextension", "", "extensions.istio.io", NULL, ISTIO,
     KIND_TRAFFIC_EXTENSION, true, false, plugin_columns, plugin_cells},
    {"GatewayClass", "gatewayclasses", "gatewayclass", "gc", GATEWAY, NULL, "gateway-api", KIND_GATEWAY_CLASS, false,
     false, class_columns, class_cells},
    {"Gateway", "gateways", "gateway", "gtw", GATEWAY, NULL, "gateway-api", KIND_GATEWAY, true, false, gateway_columns,
     gateway_cells},
    {"HTTPRoute", "httproutes", "httproute", "", GATEWAY, NULL, "gateway-api", KIND_HTTP_ROUTE, true, false,
     route_columns, route_cells},
    {"ReferenceGrant", "referencegrants", "referencegrant", "refgrant", GATEWAY, NULL, "gateway-api",
     KIND_REFERENCE_GRANT, true, false, grant_columns, grant_cells},
    {"ServiceEntry", "serviceentries", "serviceentry", "se", "networking.istio.io", NULL,
     "istio-io networking-istio-io", KIND_SERVICE_ENTRY, true, false, entry_columns, entry_cells},
    {"Service", "services", "service", "svc", "", NULL, "all", KIND_SERVICE, true, true, service_columns,
     service_cells},
    {"EndpointSlice", "endpointslices", "endpointslice", "", "discovery.k8s.io", NULL, "", KIND_ENDPOINT_SLICE, true,
     true, slice_columns, slice_cells},
    {"Namespace", "namespaces", "namespace", "ns", "", NULL, "", KIND_NAMESPACE, false, true, namespace_columns,
     namespace_cells},
    {"Secret", "secrets", "secret", "", "", NULL, "", KIND_SECRET, true, true, secret_columns, secret_cells},
    {"ConfigMap", "configmaps", "configmap", "cm", "", NULL, "", KIND_CONFIG_MAP, true, true, config_map_columns,
     config_map_cells},
    {"Pod", "pods", "pod", "po", "", v1, "all", -1, true, true, pod_columns, pod_cells},
    {"Event", "events", "event", "ev", "", v1, "", -1, true, true, event_columns, event_cells},
    {"CustomResourceDefinition", "customresourcedefinitions", "customresourcedefinition", "crd crds",
     "apiextensions.k8s.io", v1, "api-extensions", -1, false, true, crd_columns, crd_cells},
};
const size_t api_type_count = ARRAY_LEN(api_types);
const struct api_type *const api_type_pod = &api_types[KIND_COUNT];
const struct api_type *const api_type_event = &api_types[KIND_COUNT + 1];
const struct api_type *const api_type_crd = &api_types[KIND_COUNT + 2];

const struct api_type *api_type_of(enum kind kind)
{
    for (size_t i = 0; i < api_type_count; i++)
        if (api_types[i].conf_kind == (int)kind)
            return &api_types[i];
    ASSERT(false);
    return NULL;
}

const struct api_type *api_type_find(struct str group, struct str plural)
{
    for (size_t i = 0; i < api_type_count; i++)
        if (str_is(group, api_types[i].group) && str_is(plural, api_types[i].plural))
            return &api_types[i];
    return NULL;
}

const char *const *api_type_versions(const struct api_type *t)
{
    return t->versions != NULL ? t->versions : kind_reader_of((enum kind)t->conf_kind)->versions;
}

bool api_type_serves(const struct api_type *t, struct str version)
{
    const char *const *versions = api_type_versions(t);
    for (size_t i = 0; versions[i] != NULL; i++)
        if (str_is(version, versions[i]))
            return true;
    return false;
}

void api_type_name(const struct api_type *t, struct strbuf *out)
{
    strbuf_addz(out, t->plural);
    if (t->group[0] != '\0')
        strbuf_printf(out, ".%s", t->group);
}

char *api_type_version(const struct api_type *t, const char *version)
{
    return t->group[0] != '\0' ? mem_printf("%s/%s", t->group, version) : mem_strdup(version);
}
