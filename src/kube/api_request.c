/* SPDX-License-Identifier: Apache-2.0
 *
 * A request as the API server reads it (path, query, Accept), and answers as its clients expect them: every failure is
 * a Status object, whose reason and texts kubectl acts on and prints. Everything here is a peer's bytes.
 */
#include <stdio.h>
#include <time.h>

#include "kube/api_priv.h"

/* ---- escapes ---- */

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

char *api_percent_decode(struct str s, bool plus)
{
    char *out = mem_alloc(s.n + 1);
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (c == '%') {
            int high = s.n - i > 2 ? hex_digit(s.p[i + 1]) : -1, low = s.n - i > 2 ? hex_digit(s.p[i + 2]) : -1;
            c = (char)(high * 16 + low);
            if (high < 0 || low < 0 || c == '\0') {
                mem_free(out);
                return NULL;
            }
            i += 2;
        } else if (c == '+' && plus) {
            c = ' ';
        }
        out[n++] = c;
    }
    out[n] = '\0';
    return out;
}

char *api_query_get(struct str query, const char *name)
{
    struct str rest = query;
    while (rest.p != NULL && rest.n > 0) {
        struct str pair = str_split(&rest, '&'), key = pair, value = STR("");
        ptrdiff_t at = str_find(pair, '=');
        if (at >= 0) {
            key = str_upto(pair, (size_t)at);
            value = str_from(pair, (size_t)at + 1);
        }
        char *z = api_percent_decode(key, true);
        bool found = z != NULL && strcmp(z, name) == 0;
        mem_free(z);
        if (found)
            return api_percent_decode(value, true);
    }
    return NULL;
}

/* ---- path ---- */

static bool next_segment(struct str *rest, char **out)
{
    if (rest->p == NULL)
        return false;
    struct str s = str_split(rest, '/');
    *out = s.n > 0 ? api_percent_decode(s, false) : NULL;
    return *out != NULL;
}

/* Behind the version: [namespaces/NS/]PLURAL[/NAME[/SUB]]. "namespaces/NS" alone is the Namespace itself. */
static bool parse_resource(struct str group, struct str rest, struct api_request *r)
{
    char *parts[6] = {NULL};
    size_t n = 0;
    bool ok = true;
    while (rest.p != NULL && ok)
        ok = n < ARRAY_LEN(parts) && next_segment(&rest, &parts[n]) && ++n > 0;
    size_t at = 0;
    static const char *const of_namespace[] = {"status", "finalize"};
    bool subresource = n == 3 && (strcmp(parts[2], of_namespace[0]) == 0 || strcmp(parts[2], of_namespace[1]) == 0);
    if (ok && n >= 3 && strcmp(parts[0], "namespaces") == 0 && !(subresource && group.n == 0)) {
        r->ns = mem_strdup(parts[1]);
        at = 2;
    }
    ok = ok && n > at && n - at <= 3;
    if (ok) {
        r->type = api_type_find(group, str_of(parts[at]));
        r->name = n > at + 1 ? mem_strdup(parts[at + 1]) : NULL;
        r->sub = n > at + 2 ? mem_strdup(parts[at + 2]) : NULL;
    }
    for (size_t i = 0; i < n; i++)
        mem_free(parts[i]);
    return ok && r->type != NULL && api_type_serves(r->type, str_of(r->version)) &&
           (r->type->namespaced ? r->ns != NULL || r->name == NULL : r->ns == NULL);
}

bool api_path_parse(struct str path, struct api_request *r)
{
    struct str rest = path;
    char *root = NULL, *group = NULL;
    if (path.n == 0 || path.p[0] != '/')
        return false;
    rest = str_from(path, 1);
    bool ok = next_segment(&rest, &root);
    bool core = ok && strcmp(root, "api") == 0;
    if (ok && !core)
        ok = strcmp(root, "apis") == 0 && next_segment(&rest, &group);
    ok = ok && next_segment(&rest, &r->version) && parse_resource(core ? STR("") : str_of(group), rest, r);
    mem_free(root);
    mem_free(group);
    return ok;
}

/* ---- query ---- */

static bool truth(const char *value)
{
    return value != NULL && (strcmp(value, "true") == 0 || strcmp(value, "1") == 0);
}

static bool take_flag(struct str query, const char *name)
{
    char *value = api_query_get(query, name);
    bool yes = truth(value);
    mem_free(value);
    return yes;
}

static bool take_number(struct str query, const char *name, uint64_t *out, struct http_response *fail)
{
    char *value = api_query_get(query, name);
    bool ok = value == NULL || value[0] == '\0' || str_to_u64(str_of(value), INT32_MAX, out);
    if (!ok)
        api_fail(fail, 400, "BadRequest", NULL, "%s: a number is expected", name);
    mem_free(value);
    return ok;
}

static bool take_dry_run(struct str query, struct api_request *r, struct http_response *out)
{
    struct str rest = query;
    bool ok = true;
    while (rest.p != NULL && rest.n > 0) { /* a list: it may stand there more than once */
        char *value = api_query_get(str_split(&rest, '&'), "dryRun");
        bool all = value != NULL && strcmp(value, "All") == 0;
        ok = ok && (all || value == NULL || value[0] == '\0');
        r->dry_run = r->dry_run || all;
        mem_free(value);
    }
    if (!ok)
        api_fail(out, 400, "BadRequest", NULL, "dryRun: Unsupported value: supported values: \"All\"");
    return ok;
}

static bool take_validation(struct str query, struct api_request *r, struct http_response *out)
{
    static const char *const names[] = {"Warn", "Strict", "Ignore"};
    char *value = api_query_get(query, "fieldValidation");
    bool ok = value == NULL || value[0] == '\0';
    for (size_t i = 0; i < ARRAY_LEN(names) && !ok; i++) {
        ok = strcmp(value, names[i]) == 0;
        r->validation = (enum validation)i;
    }
    if (!ok)
        api_fail(out, 400, "BadRequest", NULL,
                 "fieldValidation: Unsupported value: supported values: \"Ignore\", \"Strict\", \"Warn\"");
    mem_free(value);
    return ok;
}

/* A value with bad escapes must not count as one that is not there: a selector, say, or dryRun. */
static bool query_is_sound(struct str query, struct http_response *out)
{
    char *whole = api_percent_decode(query, true);
    bool ok = whole != NULL;
    if (!ok)
        api_fail(out, 400, "BadRequest", NULL, "the query has bad percent escapes");
    mem_free(whole);
    return ok;
}

bool api_query_parse(struct str query, struct api_request *r, struct http_response *out)
{
    if (!query_is_sound(query, out))
        return false;
    r->label_selector = api_query_get(query, "labelSelector");
    r->field_selector = api_query_get(query, "fieldSelector");
    r->resource_version = api_query_get(query, "resourceVersion");
    r->resource_match = api_query_get(query, "resourceVersionMatch");
    r->continue_token = api_query_get(query, "continue");
    r->include = api_query_get(query, "includeObject");
    r->manager = api_query_get(query, "fieldManager");
    r->watch = take_flag(query, "watch");
    r->bookmarks = take_flag(query, "allowWatchBookmarks");
    r->initial_events = take_flag(query, "sendInitialEvents");
    r->force = take_flag(query, "force");
    if (r->manager != NULL && strlen(r->manager) > 128) {
        api_fail(out, 422, "Invalid", NULL, "fieldManager: Too long: may not be more than 128 bytes");
        return false;
    }
    return take_number(query, "limit", &r->limit, out) && take_number(query, "timeoutSeconds", &r->timeout_s, out) &&
           take_dry_run(query, r, out) && take_validation(query, r, out);
}

/* ---- Accept ---- */

static bool has_parameter(struct str item, const char *text)
{
    struct str rest = item;
    while (rest.p != NULL)
        if (str_is(str_trim(str_split(&rest, ';')), text))
            return true;
    return false;
}

/* One clause; true when it can be served. */
static bool accept_clause(struct str item, struct api_request *r)
{
    struct str rest = item, type = str_trim(str_split(&rest, ';'));
    bool any = str_is(type, "*/*") || str_is(type, "application/*");
    if (!any && !str_is(type, "application/json"))
        return false;
    bool table = has_parameter(item, "as=Table"), partial = has_parameter(item, "as=PartialObjectMetadata") ||
                                                            has_parameter(item, "as=PartialObjectMetadataList");
    bool v1 = has_parameter(item, "v=v1"), beta = has_parameter(item, "v=v1beta1");
    if ((table || partial) && (!has_parameter(item, "g=meta.k8s.io") || (!v1 && !beta)))
        return false;
    if (!table && !partial && (v1 || beta))
        return false;
    r->format = table ? FORMAT_TABLE : partial ? FORMAT_PARTIAL : FORMAT_OBJECT;
    snprintf(r->meta_version, sizeof r->meta_version, "%s", beta ? "v1beta1" : "v1");
    return true;
}

bool api_accept_parse(struct str accept, struct api_request *r, struct http_response *out)
{
    r->format = FORMAT_OBJECT;
    snprintf(r->meta_version, sizeof r->meta_version, "v1");
    struct str rest = accept;
    bool ok = accept.n == 0;
    while (!ok && rest.p != NULL && rest.n > 0)
        ok = accept_clause(str_trim(str_split(&rest, ',')), r);
    if (!ok)
        api_fail(out, 406, "NotAcceptable", NULL,
                 "only the following media types are accepted: application/json, application/json;stream=watch");
    return ok;
}

void api_request_free(struct api_request *r)
{
    char *texts[] = {r->version,
                     r->ns,
                     r->name,
                     r->sub,
                     r->label_selector,
                     r->field_selector,
                     r->resource_version,
                     r->resource_match,
                     r->continue_token,
                     r->include,
                     r->manager,
                     r->user_agent};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        mem_free(texts[i]);
    *r = (struct api_request){0};
}

/* ---- answers ---- */

void api_json(struct http_response *out, unsigned status, json_t *body)
{
    out->status = status;
    out->content_type = "application/json";
    strbuf_clear(&out->body);
    json_put(&out->body, body);
    strbuf_addc(&out->body, '\n');
    json_decref(body);
}

json_t *api_status_json(unsigned code, const char *reason, json_t *details, const char *message)
{
    json_t *s = json_pack("{s:s, s:s, s:{}, s:s}", "kind", "Status", "apiVersion", "v1", "metadata", "status",
                          code < 400 ? "Success" : "Failure");
    if (message != NULL)
        json_set_text(s, "message", message);
    if (reason != NULL)
        json_set_text(s, "reason", reason);
    if (details != NULL)
        json_object_set_new(s, "details", details);
    json_object_set_new(s, "code", json_integer(code));
    return s;
}

/* A message may hold a peer's bytes: strbuf_add_json mends what is no UTF-8. */
static void fail_text(struct http_response *out, unsigned code, const char *reason, json_t *details,
                      const char *message)
{
    api_json(out, code, api_status_json(code, reason, details, message));
}

void api_fail(struct http_response *out, unsigned code, const char *reason, json_t *details, const char *fmt, ...)
{
    char text[2048];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    fail_text(out, code, reason, details, text);
}

static json_t *details_of(const struct api_type *t, const char *name)
{
    json_t *d = json_object();
    if (name != NULL)
        json_set_text(d, "name", name);
    if (t->group[0] != '\0')
        json_set_text(d, "group", t->group);
    json_set_text(d, "kind", t->plural);
    return d;
}

void api_fail_object(struct http_response *out, unsigned code, const char *reason, const struct api_type *t,
                     const char *name, const char *fmt, ...)
{
    char text[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    struct strbuf b = {0};
    api_type_name(t, &b);
    strbuf_printf(&b, " \"%s\" %s", name != NULL ? name : "", text);
    char *z = strbuf_take(&b);
    fail_text(out, code, reason, details_of(t, name), z);
    mem_free(z);
}

void api_fail_not_found(struct http_response *out, const struct api_type *t, const char *name)
{
    api_fail_object(out, 404, "NotFound", t, name, "not found");
}

void api_warn(struct http_response *out, const char *text)
{
    struct strbuf quoted = {0};
    for (const char *p = text; *p != '\0' && quoted.n < 512; p++) {
        if (*p == '"' || *p == '\\')
            strbuf_addc(&quoted, '\\');
        strbuf_addc(&quoted, *p >= ' ' && *p < 0x7f ? *p : '?');
    }
    if (out->headers.n < 6000)
        strbuf_printf(&out->headers, "warning: 299 - \"%.*s\"\n", STR_ARG(strbuf_str(&quoted)));
    strbuf_free(&quoted);
}

int64_t api_now(void) { return (int64_t)time(NULL); }

void api_time_text(int64_t seconds, char out[32])
{
    time_t t = (time_t)seconds;
    struct tm tm;
    if (gmtime_r(&t, &tm) == NULL || strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
        snprintf(out, 32, "1970-01-01T00:00:00Z");
}
