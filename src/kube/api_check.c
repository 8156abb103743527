/* SPDX-License-Identifier: Apache-2.0
 *
 * Is what a client sent an object that Weir can serve? The checks are those of files (conf), whose messages are the API
 * server's; here they become its Status: 422 Invalid with causes, 400 for unknown fields where the client wants them
 * refused, warnings that kubectl prints otherwise.
 */
#include <stdio.h>

#include "kube/api_priv.h"

/* ---- defaults of core kinds ---- */

static void default_secret(json_t *object)
{
    const char *key;
    json_t *value, *strings = json_object_get(object, "stringData");
    if (json_text(object, "type")[0] == '\0' && json_object_get(object, "type") == NULL)
        json_set_text(object, "type", "Opaque");
    if (!json_is_object(strings))
        return;
    json_t *data = json_object_get(object, "data");
    data = json_is_object(data) ? json_copy(data) : json_object();
    json_object_foreach(strings, key, value)
    {
        if (!json_is_string(value)) {
            json_decref(data);
            return; /* the check says what is wrong */
        }
        json_object_set_new(data, key, json_base64(str_span(json_string_value(value), json_string_length(value))));
    }
    json_object_set_new(object, "data", data);
    json_object_del(object, "stringData");
}

static void default_service(json_t *object)
{
    json_t *spec = json_object_get(object, "spec"), *port;
    size_t i;
    if (!json_is_object(spec))
        return;
    spec = json_copy(spec);
    json_object_set_new(object, "spec", spec);
    if (json_object_get(spec, "type") == NULL)
        json_set_text(spec, "type", "ClusterIP");
    json_t *ports = json_array();
    json_array_foreach(json_object_get(spec, "ports"), i, port)
    {
        port = json_is_object(port) ? json_copy(port) : json_incref(port);
        if (json_is_object(port) && json_object_get(port, "protocol") == NULL)
            json_set_text(port, "protocol", "TCP");
        if (json_is_object(port) && json_object_get(port, "targetPort") == NULL &&
            json_object_get(port, "port") != NULL)
            json_object_set(port, "targetPort", json_object_get(port, "port"));
        json_array_append_new(ports, port);
    }
    if (json_is_array(json_object_get(spec, "ports")))
        json_object_set(spec, "ports", ports);
    json_decref(ports);
}

static void default_namespace(json_t *object)
{
    json_t *metadata = json_copy(json_object_get(object, "metadata"));
    if (metadata == NULL)
        return;
    json_t *labels = json_object_get(metadata, "labels");
    labels = json_is_object(labels) ? json_copy(labels) : json_object();
    json_set_text(labels, "kubernetes.io/metadata.name", json_text(metadata, "name"));
    json_object_set_new(metadata, "labels", labels);
    json_object_set_new(object, "metadata", metadata);
    if (!json_is_object(json_object_get(object, "spec")))
        json_object_set_new(object, "spec", json_pack("{s:[s]}", "finalizers", "kubernetes"));
    json_object_set_new(object, "status", json_pack("{s:s}", "phase", "Active"));
}

void api_default(const struct api_type *t, json_t *object)
{
    if (t->conf_kind == KIND_SECRET)
        default_secret(object);
    else if (t->conf_kind == KIND_SERVICE)
        default_service(object);
    else if (t->conf_kind == KIND_NAMESPACE)
        default_namespace(object);
}

/* ---- unknown fields ---- */

/* Removes what path ("spec.match[0].foo") names. Names may hold dots: every member that fits is tried. */
static bool prune(json_t *at, struct str path)
{
    const char *key;
    json_t *value;
    if (json_is_array(at)) {
        ptrdiff_t end = str_find(path, ']');
        uint64_t i = 0;
        if (end < 2 || path.p[0] != '[' || !str_to_u64(str_span(path.p + 1, (size_t)end - 1), SIZE_MAX / 2, &i))
            return false;
        struct str rest = str_from(path, (size_t)end + 1);
        if (rest.n > 0 && rest.p[0] == '.')
            rest = str_from(rest, 1);
        return prune(json_array_get(at, (size_t)i), rest);
    }
    json_object_foreach(at, key, value)
    {
        struct str name = str_of(key);
        if (!str_starts(path, name))
            continue;
        struct str rest = str_from(path, name.n);
        if (rest.n == 0) {
            json_object_del(at, key);
            return true;
        }
        bool deeper = rest.p[0] == '.' ? prune(value, str_from(rest, 1)) : rest.p[0] == '[' && prune(value, rest);
        if (deeper)
            return true;
    }
    return false;
}

static const char unknown_mark[] = "unknown field \"";

static bool is_unknown(const struct diag_entry *e) { return str_starts(str_of(e->message), STR(unknown_mark)); }

/* True: something was cut, look again. object is an own deep copy. */
static bool cut_unknown(json_t *object, const struct diag *diag)
{
    bool any = false;
    for (size_t i = 0; i < diag->count; i++) {
        const struct diag_entry *e = &diag->entries[i];
        struct str path = str_of(e->message);
        if (!is_unknown(e) || path.n < sizeof unknown_mark)
            continue;
        path = str_span(path.p + sizeof unknown_mark - 1, path.n - sizeof unknown_mark);
        any |= prune(object, path);
    }
    return any;
}

/* ---- messages ---- */

static const char *cause_reason(const char *message)
{
    static const struct {
        const char *text, *reason;
    } words[] = {{"Required value", "FieldValueRequired"},
                 {"Duplicate value", "FieldValueDuplicate"},
                 {"Unsupported value", "FieldValueNotSupported"},
                 {"Too long", "FieldValueTooLong"},
                 {"Too many", "FieldValueTooMany"},
                 {"Forbidden", "FieldValueForbidden"}};
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (str_starts(str_of(message), str_of(words[i].text)))
            return words[i].reason;
    return "FieldValueInvalid";
}

/* "WasmPlugin istio-system/x: spec.url" without what is before the field; "" when it is about the whole object. */
static const char *field_of(const struct diag_entry *e)
{
    const char *colon = e->path != NULL ? strstr(e->path, ": ") : NULL;
    return colon != NULL ? colon + 2 : "";
}

static void fail_invalid(const struct api_type *t, const json_t *object, const struct diag *diag,
                         struct http_response *out)
{
    const char *name = json_text(json_object_get(object, "metadata"), "name");
    json_t *causes = json_array();
    struct strbuf text = {0}, title = {0};
    size_t n = 0;
    for (size_t i = 0; i < diag->count; i++) {
        const struct diag_entry *e = &diag->entries[i];
        if (e->level != DIAG_ERROR)
            continue;
        const char *field = field_of(e);
        json_array_append_new(causes,
                              json_pack("{s:s, s:s%, s:s}", "reason", cause_reason(e->message), "message", e->message,
                                        strlen(e->message), "field", field[0] != '\0' ? field : "<nil>"));
        strbuf_printf(&text, "%s%s%s%s", n++ > 0 ? ", " : "", field, field[0] != '\0' ? ": " : "", e->message);
    }
    strbuf_printf(&title, "%s", t->kind);
    if (t->group[0] != '\0')
        strbuf_printf(&title, ".%s", t->group);
    char *all = strbuf_take(&text), *what = strbuf_take(&title);
    json_t *details = json_pack("{s:s, s:s, s:s}", "name", name, "group", t->group, "kind", t->kind);
    json_object_set_new(details, "causes", causes);
    char *message = mem_printf(n > 1 ? "%s \"%s\" is invalid: [%s]" : "%s \"%s\" is invalid: %s", what, name, all);
    api_json(out, 422, api_status_json(422, "Invalid", details, message));
    mem_free(message);
    mem_free(all);
    mem_free(what);
}

static bool fail_strict(struct http_response *out, const struct diag *diag, const char *duplicates)
{
    struct strbuf b = {0};
    if (duplicates != NULL)
        strbuf_addz(&b, duplicates);
    for (size_t i = 0; diag != NULL && i < diag->count; i++)
        if (is_unknown(&diag->entries[i]))
            strbuf_printf(&b, "%s%s", b.n > 0 ? ", " : "", diag->entries[i].message);
    char *text = strbuf_take(&b);
    api_fail(out, 400, "BadRequest", NULL, "strict decoding error: %s", text);
    mem_free(text);
    return false;
}

static size_t count_unknown(const struct diag *d)
{
    size_t n = 0;
    for (size_t i = 0; i < d->count; i++)
        n += is_unknown(&d->entries[i]);
    return n;
}

static void warn_all(struct http_response *out, const struct diag *d, bool unknown)
{
    for (size_t i = 0; i < d->count; i++) {
        const struct diag_entry *e = &d->entries[i];
        if (is_unknown(e) ? !unknown : e->level != DIAG_WARNING)
            continue;
        const char *field = field_of(e);
        char *text = mem_printf("%s%s%s", field, field[0] != '\0' ? ": " : "", e->message);
        api_warn(out, text);
        mem_free(text);
    }
}

static void check(const json_t *object, struct documents *docs, struct diag *diag)
{
    struct strbuf text = {0};
    json_put(&text, object);
    resources_parse(strbuf_str(&text), NULL, "default", docs);
    diag_append(diag, &docs->syntax);
    for (size_t i = 0; i < docs->count; i++)
        diag_append(diag, &docs->list[i].diag);
    strbuf_free(&text);
}

static void cut_deep(json_t *object, const struct diag *diag)
{
    json_t *copy = json_deep_copy(object);
    cut_unknown(copy, diag);
    json_object_clear(object);
    json_object_update(object, copy);
    json_decref(copy);
}

bool api_validate(const struct api_request *r, json_t *object, const char *duplicates, struct http_response *out)
{
    struct documents docs;
    struct diag diag = {0};
    if (duplicates != NULL && r->validation == VALIDATE_STRICT)
        return fail_strict(out, NULL, duplicates);
    if (duplicates != NULL && r->validation == VALIDATE_WARN)
        api_warn(out, duplicates);
    check(object, &docs, &diag);
    bool ok = true;
    if (count_unknown(&diag) > 0 && r->validation == VALIDATE_STRICT) {
        ok = fail_strict(out, &diag, NULL);
    } else if (count_unknown(&diag) > 0) {
        warn_all(out, &diag, r->validation == VALIDATE_WARN);
        cut_deep(object, &diag);
        documents_free(&docs);
        diag_free(&diag);
        diag = (struct diag){0};
        check(object, &docs, &diag);
    }
    if (ok && (diag.errors > 0 || docs.count != 1 || docs.list[0].resource == NULL)) {
        fail_invalid(r->type, object, &diag, out);
        ok = false;
    }
    if (ok)
        warn_all(out, &diag, false);
    documents_free(&docs);
    diag_free(&diag);
    return ok;
}
