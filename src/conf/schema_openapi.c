/* SPDX-License-Identifier: Apache-2.0
 *
 * See schema_openapi.h. The tables say what is read and how it is checked; rules over several fields (finish functions)
 * are not in here, and neither are texts about single fields: docs/resources.md has those.
 */
#include "conf/schema_openapi.h"

#include "conf/kinds.h"

enum { DEPTH_MAX = 16 };

static void write_object(const struct schema *s, unsigned depth, bool root, struct strbuf *out);

static void write_text(struct strbuf *out, const char *name, const char *value)
{
    strbuf_printf(out, ",\"%s\":", name);
    strbuf_add_json(out, str_of(value));
}

static void write_string(const struct field *f, struct strbuf *out)
{
    strbuf_addz(out, "\"type\":\"string\"");
    if (f->min > 0)
        strbuf_printf(out, ",\"minLength\":%lld", (long long)f->min);
    if (f->max > 0)
        strbuf_printf(out, ",\"maxLength\":%lld", (long long)f->max);
    if (f->format != NULL && f->format->pattern != NULL)
        write_text(out, "pattern", f->format->pattern);
}

static void write_integer(const struct field *f, struct strbuf *out)
{
    strbuf_printf(out, "\"type\":\"integer\",\"format\":\"%s\"", f->width == 8 ? "int64" : "int32");
    if (f->min == 0 && f->max == 0)
        return;
    strbuf_printf(out, ",\"minimum\":%lld,\"maximum\":%lld", (long long)f->min, (long long)f->max);
}

static void write_enum(const struct field *f, struct strbuf *out)
{
    const char *comma = "";
    strbuf_addz(out, "\"type\":\"string\",\"enum\":[");
    for (size_t i = 0; f->names[i] != NULL; i++) {
        if (f->names[i][0] == '\0')
            continue; /* stands for "absent" */
        strbuf_addz(out, comma);
        strbuf_add_json(out, str_of(f->names[i]));
        comma = ",";
    }
    strbuf_addc(out, ']');
}

/* The members of a schema object, without its braces. */
static void write_item(const struct field *f, unsigned depth, struct strbuf *out)
{
    switch (f->type) {
    case FIELD_STRING:
    case FIELD_STRINGS: write_string(f, out); break;
    case FIELD_BOOL: strbuf_addz(out, "\"type\":\"boolean\""); break;
    case FIELD_INT:
    case FIELD_INTS: write_integer(f, out); break;
    case FIELD_ENUM: write_enum(f, out); break;
    case FIELD_DURATION:
        strbuf_addz(out, "\"type\":\"string\"");
        write_text(out, "pattern", format_duration.pattern);
        break;
    case FIELD_OBJECT:
    case FIELD_POINTER:
    case FIELD_OBJECTS: write_object(f->schema, depth + 1, false, out); break;
    case FIELD_LABELS: strbuf_addz(out, "\"type\":\"object\",\"additionalProperties\":{\"type\":\"string\"}"); break;
    case FIELD_NODE:
        strbuf_addz(out, f->node_type == NODE_LIST
                             ? "\"type\":\"array\",\"items\":{\"x-kubernetes-preserve-unknown-fields\":true}"
                             : "\"type\":\"object\",\"x-kubernetes-preserve-unknown-fields\":true");
        break;
    case FIELD_IGNORED: strbuf_addz(out, "\"x-kubernetes-preserve-unknown-fields\":true"); break;
    case FIELD_UNREAD:
        strbuf_addz(out, "\"x-kubernetes-preserve-unknown-fields\":true");
        write_text(out, "description", f->text != NULL ? f->text : "Weir does not support it yet: it has no effect");
        break;
    }
}

static void write_field(const struct field *f, unsigned depth, struct strbuf *out)
{
    bool list = f->type == FIELD_OBJECTS || f->type == FIELD_STRINGS || f->type == FIELD_INTS;
    strbuf_add_json(out, str_of(f->name));
    strbuf_addz(out, ":{");
    if (list) {
        strbuf_addz(out, "\"type\":\"array\"");
        if (f->min_items > 0)
            strbuf_printf(out, ",\"minItems\":%zu", f->min_items);
        if (f->max_items > 0)
            strbuf_printf(out, ",\"maxItems\":%zu", f->max_items);
        strbuf_addz(out, ",\"items\":{");
    }
    write_item(f, depth, out);
    strbuf_addz(out, list ? "}}" : "}");
}

static bool is_of_root(const char *name)
{
    return strcmp(name, "apiVersion") == 0 || strcmp(name, "kind") == 0 || strcmp(name, "metadata") == 0;
}

static void write_object(const struct schema *s, unsigned depth, bool root, struct strbuf *out)
{
    const char *comma = "";
    bool required = false;
    strbuf_addz(out, "\"type\":\"object\"");
    if (s == NULL || depth > DEPTH_MAX)
        return;
    strbuf_addz(out, ",\"properties\":{");
    for (size_t i = 0; i < s->field_count; i++) {
        const struct field *f = &s->fields[i];
        required = required || f->required;
        if (root && is_of_root(f->name))
            continue;
        strbuf_addz(out, comma);
        comma = ",";
        if (root && strcmp(f->name, "status") == 0)
            strbuf_addz(out, "\"status\":{\"type\":\"object\",\"x-kubernetes-preserve-unknown-fields\":true}");
        else
            write_field(f, depth, out);
    }
    strbuf_addc(out, '}');
    comma = "";
    for (size_t i = 0; required && i < s->field_count; i++) {
        if (!s->fields[i].required)
            continue;
        strbuf_addz(out, comma[0] == '\0' ? ",\"required\":[" : comma);
        strbuf_add_json(out, str_of(s->fields[i].name));
        comma = ",";
    }
    if (required)
        strbuf_addc(out, ']');
}

void schema_write_openapi(enum kind kind, struct strbuf *out)
{
    strbuf_addc(out, '{');
    write_object(kind_reader_of(kind)->schema, 0, true, out);
    strbuf_addc(out, '}');
}

const char *schema_kind_description(enum kind kind)
{
    static const char *const texts[KIND_COUNT] = {
        [KIND_GATEWAY_CLASS] = "GatewayClass names the controller of its Gateways; Weir's is gateway.weir/controller.",
        [KIND_GATEWAY] = "Gateway opens listeners: addresses, ports and host names that take requests.",
        [KIND_HTTP_ROUTE] =
            "HTTPRoute sends requests of a Gateway's listeners to backends, by host, path, headers and more.",
        [KIND_REFERENCE_GRANT] = "ReferenceGrant lets objects of other namespaces refer to objects of its own.",
        [KIND_WASM_PLUGIN] = "WasmPlugin puts a Proxy-Wasm filter into the chain of the gateways it selects.",
        [KIND_TRAFFIC_EXTENSION] =
            "TrafficExtension is WasmPlugin's successor: a filter (wasm) for the gateways it selects.",
        [KIND_SERVICE_ENTRY] = "ServiceEntry names hosts outside, which routes and filters may then use.",
        [KIND_SERVICE] = "Service names a set of endpoints and their ports.",
        [KIND_ENDPOINT_SLICE] = "EndpointSlice lists addresses and ports of a Service.",
        [KIND_NAMESPACE] = "Namespace holds objects of its own names.",
        [KIND_SECRET] = "Secret holds credentials, such as those of an image registry.",
        [KIND_CONFIG_MAP] = "ConfigMap holds settings, such as a Gateway's limits.",
    };
    return texts[kind];
}
