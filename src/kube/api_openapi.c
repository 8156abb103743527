/* SPDX-License-Identifier: Apache-2.0
 *
 * The OpenAPI documents, made from the schema tables: version 3, one for each group and version, and version 2 for
 * older clients (`kubectl explain`, diff and dry runs of kubectl 1.20 need it), which is one protobuf message for
 * everything. Its Content-Type must be a plain MIME type.
 *
 * Clients draw conclusions from these documents beside showing them: that a patch may be tried without effect (its
 * dryRun parameter), that the server checks fields (fieldValidation), and how lists merge (x-kubernetes-patch-*).
 *
 * Message numbers: gnostic's OpenAPIv2.proto.
 */
#include <stdio.h>

#include "conf/schema_openapi.h"
#include "kube/api_priv.h"

/* ---- schemas ---- */

static json_t *metadata_schema(void)
{
    static const char *const texts[] = {"name",     "generateName",      "namespace",         "uid",
                                        "selfLink", "creationTimestamp", "deletionTimestamp", "resourceVersion"};
    static const char *const maps[] = {"labels", "annotations"};
    static const char *const numbers[] = {"generation", "deletionGracePeriodSeconds"};
    static const char *const lists[] = {"finalizers", "ownerReferences", "managedFields"};
    json_t *p = json_object();
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        json_object_set_new(p, texts[i], json_pack("{s:s}", "type", "string"));
    for (size_t i = 0; i < ARRAY_LEN(maps); i++)
        json_object_set_new(p, maps[i],
                            json_pack("{s:s, s:{s:s}}", "type", "object", "additionalProperties", "type", "string"));
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
        json_object_set_new(p, numbers[i], json_pack("{s:s, s:s}", "type", "integer", "format", "int64"));
    for (size_t i = 0; i < ARRAY_LEN(lists); i++)
        json_object_set_new(
            p, lists[i],
            json_pack("{s:s, s:{s:b}}", "type", "array", "items", "x-kubernetes-preserve-unknown-fields", 1));
    return json_pack("{s:s, s:o}", "type", "object", "properties", p);
}

json_t *api_schema(const struct api_type *t)
{
    struct strbuf text = {0};
    char *error, *duplicate;
    if (t->conf_kind >= 0)
        schema_write_openapi((enum kind)t->conf_kind, &text);
    else
        strbuf_addz(
            &text,
            "{\"type\":\"object\",\"properties\":{\"spec\":{\"type\":\"object\"},\"status\":{\"type\":\"object\"}}}");
    json_t *schema = json_of_text(strbuf_str(&text), &error, &duplicate);
    ASSERT(schema != NULL); /* made here */
    strbuf_free(&text);
    json_t *properties = json_object_get(schema, "properties"), *all = json_object();
    json_object_set_new(
        all, "apiVersion",
        json_pack("{s:s, s:s}", "type", "string", "description", "The group and version of this object's form."));
    json_object_set_new(all, "kind", json_pack("{s:s, s:s}", "type", "string", "description", "What this object is."));
    json_object_set_new(all, "metadata", metadata_schema());
    json_object_update(all, properties);
    json_object_set_new(schema, "properties", all);
    json_t *ports = t->conf_kind == KIND_SERVICE ? json_object_get(json_at(all, "spec", "properties"), "ports") : NULL;
    if (ports != NULL) {
        json_set_text(ports, "x-kubernetes-patch-merge-key", "port");
        json_set_text(ports, "x-kubernetes-patch-strategy", "merge");
    }
    if (t->conf_kind >= 0)
        json_set_text(schema, "description", schema_kind_description((enum kind)t->conf_kind));
    return schema;
}

static json_t *gvk_json(const struct api_type *t, const char *version)
{
    return json_pack("{s:s, s:s, s:s}", "group", t->group, "version", version, "kind", t->kind);
}

/* "io.istio.extensions.v1alpha1.WasmPlugin" */
static char *schema_name(const struct api_type *t, const char *version)
{
    struct strbuf b = {0};
    struct str rest = str_of(t->group[0] != '\0' ? t->group : "core.api.k8s.io");
    while (rest.n > 0) {
        size_t at = rest.n;
        while (at > 0 && rest.p[at - 1] != '.')
            at--;
        strbuf_add(&b, str_from(rest, at));
        strbuf_addc(&b, '.');
        rest = str_upto(rest, at > 0 ? at - 1 : 0);
    }
    strbuf_printf(&b, "%s.%s", version, t->kind);
    return strbuf_take(&b);
}

static json_t *parameter(const char *name)
{
    return json_pack("{s:s, s:s, s:{s:s}}", "name", name, "in", "query", "schema", "type", "string");
}

static void add_path(json_t *paths, const struct api_type *t, const char *version)
{
    char *base = t->group[0] != '\0' ? mem_printf("/apis/%s/%s", t->group, version) : mem_printf("/api/%s", version);
    char *path = mem_printf("%s%s/%s/{name}", base, t->namespaced ? "/namespaces/{namespace}" : "", t->plural);
    static const char *const methods[] = {"get", "put", "post", "patch", "delete"};
    json_t *item = json_object();
    for (size_t i = 0; i < ARRAY_LEN(methods); i++) {
        json_t *op =
            json_pack("{s:{s:{s:s}}, s:o, s:s}", "responses", "200", "description", "OK",
                      "x-kubernetes-group-version-kind", gvk_json(t, version), "x-kubernetes-action", methods[i]);
        if (i > 0)
            json_object_set_new(
                op, "parameters",
                json_pack("[o, o, o]", parameter("dryRun"), parameter("fieldValidation"), parameter("fieldManager")));
        json_object_set_new(item, methods[i], op);
    }
    json_object_set_new(paths, path, item);
    mem_free(base);
    mem_free(path);
}

static json_t *openapi_document(struct str group, struct str version)
{
    json_t *schemas = json_object(), *paths = json_object();
    char *v = str_dup(version);
    for (size_t i = 0; i < api_type_count; i++) {
        const struct api_type *t = &api_types[i];
        if (!str_is(group, t->group) || !api_type_serves(t, version))
            continue;
        char *name = schema_name(t, v);
        json_t *schema = api_schema(t);
        json_object_set_new(schema, "x-kubernetes-group-version-kind", json_pack("[o]", gvk_json(t, v)));
        json_object_set_new(schemas, name, schema);
        add_path(paths, t, v);
        mem_free(name);
    }
    mem_free(v);
    bool any = json_object_size(schemas) > 0;
    json_t *d = json_pack("{s:s, s:{s:s, s:s}, s:o, s:{s:o}}", "openapi", "3.0.0", "info", "title", "Weir", "version",
                          WEIR_VERSION, "paths", paths, "components", "schemas", schemas);
    if (any)
        return d;
    json_decref(d);
    return NULL;
}

static void add_to_index(json_t *paths, const struct api_type *t)
{
    const char *const *v = api_type_versions(t);
    for (; *v != NULL; v++) {
        char *name = t->group[0] != '\0' ? mem_printf("apis/%s/%s", t->group, *v) : mem_printf("api/%s", *v);
        /* The hash lets clients keep a document: it must change with what Weir reads. */
        char *url = mem_printf("/openapi/v3/%s?hash=%s", name, WEIR_VERSION);
        json_object_set_new(paths, name, json_pack("{s:s}", "serverRelativeURL", url));
        mem_free(name);
        mem_free(url);
    }
}

/* ---- version 2, as protobuf ---- */

static void put_varint(struct strbuf *out, uint64_t v)
{
    for (; v >= 0x80; v >>= 7)
        strbuf_addc(out, (char)(v | 0x80));
    strbuf_addc(out, (char)v);
}

static void put_bytes(struct strbuf *out, unsigned number, struct str bytes)
{
    put_varint(out, (uint64_t)number << 3 | 2);
    put_varint(out, bytes.n);
    strbuf_add(out, bytes);
}

static void put_word(struct strbuf *out, unsigned number, const char *text) { put_bytes(out, number, str_of(text)); }

/* Puts inner as a message and empties it. */
static void put_message(struct strbuf *out, unsigned number, struct strbuf *inner)
{
    put_bytes(out, number, strbuf_str(inner));
    strbuf_free(inner);
    *inner = (struct strbuf){0};
}

/* Any {yaml = 2}, and NamedAny {name = 1, value = 2}. JSON is YAML. */
static void put_any(struct strbuf *out, unsigned number, const json_t *value)
{
    struct strbuf text = {0}, any = {0};
    json_put(&text, value);
    put_bytes(&any, 2, strbuf_str(&text));
    put_message(out, number, &any);
    strbuf_free(&text);
}

static void put_extension(struct strbuf *out, unsigned number, const char *name, const json_t *value)
{
    struct strbuf named = {0};
    put_word(&named, 1, name);
    put_any(&named, 2, value);
    put_message(out, number, &named);
}

static void put_schema(struct strbuf *out, const json_t *schema);

static void put_properties(struct strbuf *out, json_t *properties)
{
    const char *name;
    json_t *value;
    struct strbuf all = {0}, named = {0}, schema = {0};
    json_object_foreach(properties, name, value)
    {
        put_word(&named, 1, name);
        put_schema(&schema, value);
        put_message(&named, 2, &schema);
        put_message(&all, 1, &named);
    }
    put_message(out, 25, &all);
}

/* Schema: what kubectl looks at. */
static void put_schema(struct strbuf *out, const json_t *schema)
{
    const char *key;
    json_t *value, *item;
    size_t i;
    struct strbuf inner = {0}, deeper = {0};
    if (json_text(schema, "format")[0] != '\0')
        put_word(out, 2, json_text(schema, "format"));
    if (json_text(schema, "description")[0] != '\0')
        put_word(out, 4, json_text(schema, "description"));
    json_array_foreach(json_object_get(schema, "required"), i, item) put_word(out, 19, json_string_value(item));
    json_array_foreach(json_object_get(schema, "enum"), i, item) put_any(out, 20, item);
    if (json_is_object(json_object_get(schema, "additionalProperties"))) {
        put_schema(&inner, json_object_get(schema, "additionalProperties"));
        put_message(&deeper, 1, &inner);
        put_message(out, 21, &deeper);
    }
    if (json_text(schema, "type")[0] != '\0') {
        put_word(&inner, 1, json_text(schema, "type"));
        put_message(out, 22, &inner);
    }
    if (json_object_get(schema, "items") != NULL) {
        put_schema(&inner, json_object_get(schema, "items"));
        put_message(&deeper, 1, &inner);
        put_message(out, 23, &deeper);
    }
    if (json_object_get(schema, "properties") != NULL)
        put_properties(out, json_object_get(schema, "properties"));
    json_object_foreach((json_t *)(uintptr_t)schema, key, value)
    {
        if (str_starts(str_of(key), STR("x-kubernetes-")))
            put_extension(out, 31, key, value);
    }
}

/* ParametersItem {parameter {non_body {query}}}: an optional string. */
static void put_query_parameter(struct strbuf *operation, const char *name)
{
    struct strbuf query = {0}, non_body = {0}, parameter = {0}, item = {0};
    put_word(&query, 2, "query");
    put_word(&query, 4, name);
    put_word(&query, 6, "string");
    put_message(&non_body, 3, &query);
    put_message(&parameter, 2, &non_body);
    put_message(&item, 1, &parameter);
    put_message(operation, 8, &item);
}

static void put_path(struct strbuf *paths, const struct api_type *t, const char *version)
{
    struct strbuf operation = {0}, item = {0}, named = {0};
    char *base = t->group[0] != '\0' ? mem_printf("/apis/%s/%s", t->group, version) : mem_printf("/api/%s", version);
    char *path = mem_printf("%s%s/%s/{name}", base, t->namespaced ? "/namespaces/{namespace}" : "", t->plural);
    json_t *gvk = gvk_json(t, version);
    put_query_parameter(&operation, "dryRun");
    put_query_parameter(&operation, "fieldManager");
    put_query_parameter(&operation, "fieldValidation");
    put_message(&operation, 9, &item); /* no responses are told */
    put_extension(&operation, 13, "x-kubernetes-group-version-kind", gvk);
    put_message(&item, 8, &operation);
    put_word(&named, 1, path);
    put_message(&named, 2, &item);
    put_message(paths, 2, &named);
    json_decref(gvk);
    mem_free(base);
    mem_free(path);
}

static void put_definition(struct strbuf *definitions, const struct api_type *t, const char *version)
{
    struct strbuf schema = {0}, named = {0};
    char *name = schema_name(t, version);
    json_t *j = api_schema(t);
    json_object_set_new(j, "x-kubernetes-group-version-kind", json_pack("[o]", gvk_json(t, version)));
    put_word(&named, 1, name);
    put_schema(&schema, j);
    put_message(&named, 2, &schema);
    put_message(definitions, 1, &named);
    json_decref(j);
    mem_free(name);
}

static void openapi_v2(struct strbuf *out)
{
    struct strbuf info = {0}, paths = {0}, definitions = {0};
    put_word(out, 1, "2.0");
    put_word(&info, 1, "Weir");
    put_word(&info, 2, WEIR_VERSION);
    put_message(out, 2, &info);
    for (size_t i = 0; i < api_type_count; i++) {
        const char *const *v = api_type_versions(&api_types[i]);
        for (; *v != NULL; v++) {
            put_path(&paths, &api_types[i], *v);
            put_definition(&definitions, &api_types[i], *v);
        }
    }
    put_message(out, 8, &paths);
    put_message(out, 9, &definitions);
}

/* ---- the documents ---- */

void api_openapi(struct kube_api *api, const struct http_request *r, struct http_response *out)
{
    (void)api;
    struct str p = api_path_trim(r->path);
    json_t *j = NULL;
    if (str_is(p, "/openapi/v2")) {
        out->content_type = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
        openapi_v2(&out->body);
        return;
    }
    if (str_is(p, "/openapi/v3")) {
        json_t *paths = json_object();
        for (size_t i = 0; i < api_type_count; i++)
            add_to_index(paths, &api_types[i]);
        j = json_pack("{s:o}", "paths", paths);
    } else if (str_starts(p, STR("/openapi/v3/apis/"))) {
        struct str rest = str_from(p, 17), group = str_split(&rest, '/');
        j = rest.p != NULL ? openapi_document(group, rest) : NULL;
    } else if (str_starts(p, STR("/openapi/v3/api/"))) {
        j = openapi_document(STR(""), str_from(p, 16));
    }
    if (j != NULL)
        api_json(out, 200, j);
    else
        api_fail(out, 404, "NotFound", json_object(), "the server could not find the requested resource");
}
