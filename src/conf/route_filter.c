/* SPDX-License-Identifier: Apache-2.0
 *
 * Filters of an HTTPRoute rule or backend. The API says each filter's parameters twice (type and a member of the same
 * name), so most errors are disagreements of the two. What Weir cannot honour yet is refused: a rule without its filter
 * would let through what the filter was meant to change.
 */
#include "conf/kinds.h"

struct raw_path_modifier {
    enum { MODIFIER_NONE, MODIFIER_FULL, MODIFIER_PREFIX } type;
    char *full, *prefix;
};
struct raw_redirect {
    enum { SCHEME_NONE, SCHEME_HTTP, SCHEME_HTTPS } scheme;
    char *hostname;
    struct path_modifier *path;
    uint16_t port;
    uint32_t status;
};
struct raw_extension {
    char *group, *kind, *name;
};
struct raw_filter {
    int type; /* filter_types[] */
    bool has[8];
    struct header_modifier request, response;
    struct raw_redirect redirect, rewrite;
    struct raw_extension extension;
};

enum {
    TYPE_REQUEST,
    TYPE_RESPONSE,
    TYPE_REDIRECT,
    TYPE_REWRITE,
    TYPE_EXTENSION,
    TYPE_MIRROR,
    TYPE_CORS,
    TYPE_AUTH,
    TYPE_COUNT
};
static const char *const filter_types[] = {"RequestHeaderModifier",
                                           "ResponseHeaderModifier",
                                           "RequestRedirect",
                                           "URLRewrite",
                                           "ExtensionRef",
                                           "RequestMirror",
                                           "CORS",
                                           "ExternalAuth",
                                           NULL};
static const char *const filter_members[] = {"requestHeaderModifier",
                                             "responseHeaderModifier",
                                             "requestRedirect",
                                             "urlRewrite",
                                             "extensionRef",
                                             "requestMirror",
                                             "cors",
                                             "externalAuth"};

/* ---- header modifiers ---- */

static void finish_header(struct reader *r, const struct node *n, const struct path *path, void *raw, void *out)
{
    (void)raw;
    const struct header_value *h = out;
    struct path at = {.up = path, .type = PATH_FIELD, .name = STR("value")};
    for (const char *p = h->value; p != NULL && *p != '\0'; p++) {
        if (((unsigned char)*p < 0x20 && *p != '\t') || *p == 0x7f) {
            schema_invalid(r, schema_place(n, "value"), &at, "a header value must not hold control characters");
            return;
        }
    }
}

static const struct field header_fields[] = {
    {.name = "name",
     .type = FIELD_STRING,
     .required = true,
     .at = offsetof(struct header_value, name),
     .min = 1,
     .format = &format_header_name},
    {.name = "value",
     .type = FIELD_STRING,
     .required = true,
     .at = offsetof(struct header_value, value),
     .min = 1,
     .max = 4096},
};
static const struct schema header_schema = {FIELDS(header_fields), .size = sizeof(struct header_value),
                                            .finish = finish_header};

static const struct field modifier_fields[] = {
    {.name = "set",
     .type = FIELD_OBJECTS,
     .at = offsetof(struct header_modifier, set),
     .count_at = offsetof(struct header_modifier, set_count),
     .max_items = 16,
     .schema = &header_schema,
     .unique = "name"},
    {.name = "add",
     .type = FIELD_OBJECTS,
     .at = offsetof(struct header_modifier, add),
     .count_at = offsetof(struct header_modifier, add_count),
     .max_items = 16,
     .schema = &header_schema,
     .unique = "name"},
    {.name = "remove",
     .type = FIELD_STRINGS,
     .at = offsetof(struct header_modifier, remove),
     .count_at = offsetof(struct header_modifier, remove_count),
     .max_items = 16,
     .is_set = true,
     .min = 1,
     .format = &format_header_name},
};
static const struct schema modifier_schema = {FIELDS(modifier_fields), .size = sizeof(struct header_modifier)};

/* ---- redirect and rewrite ---- */

static void finish_path_modifier(struct reader *r, const struct node *n, const struct path *path, void *raw, void *out)
{
    const struct raw_path_modifier *m = raw;
    struct path_modifier *to = out;
    if (m->type == MODIFIER_FULL && m->full == NULL)
        schema_error(r, n, path,
                     "Invalid value: replaceFullPath must be specified when type is set to 'ReplaceFullPath'");
    if (m->type == MODIFIER_PREFIX && m->prefix == NULL)
        schema_error(r, n, path,
                     "Invalid value: replacePrefixMatch must be specified when type is set to 'ReplacePrefixMatch'");
    if (m->type != MODIFIER_FULL && m->full != NULL)
        schema_error(r, n, path, "Invalid value: type must be 'ReplaceFullPath' when replaceFullPath is set");
    if (m->type != MODIFIER_PREFIX && m->prefix != NULL)
        schema_error(r, n, path, "Invalid value: type must be 'ReplacePrefixMatch' when replacePrefixMatch is set");
    to->type = m->type == MODIFIER_FULL ? PATH_REPLACE_FULL : PATH_REPLACE_PREFIX;
    to->value = m->type == MODIFIER_FULL ? m->full : m->prefix;
    for (const char *p = to->value; p != NULL && *p != '\0'; p++) {
        if ((unsigned char)*p <= 0x20 || (unsigned char)*p >= 0x7f) {
            schema_error(r, n, path, "Invalid value: a path must not hold spaces, control or non-ASCII characters");
            return;
        }
    }
}

static const char *const modifier_names[] = {"", "ReplaceFullPath", "ReplacePrefixMatch", NULL};
static const struct field path_modifier_fields[] = {
    {.name = "type",
     .type = FIELD_ENUM,
     .required = true,
     .at = offsetof(struct raw_path_modifier, type),
     .names = modifier_names},
    {.name = "replaceFullPath", .type = FIELD_STRING, .at = offsetof(struct raw_path_modifier, full), .max = 1024},
    {.name = "replacePrefixMatch", .type = FIELD_STRING, .at = offsetof(struct raw_path_modifier, prefix), .max = 1024},
};
static const struct schema path_modifier_schema = {FIELDS(path_modifier_fields), .size = sizeof(struct path_modifier),
                                                   .raw_size = sizeof(struct raw_path_modifier),
                                                   .finish = finish_path_modifier};

static void finish_redirect(struct reader *r, const struct node *n, const struct path *path, void *raw, void *out)
{
    (void)raw;
    static const uint32_t known[] = {301, 302, 303, 307, 308};
    struct raw_redirect *d = out;
    if (node_get(n, "statusCode") == NULL) {
        d->status = 302;
        return;
    }
    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        if (d->status == known[i])
            return;
    }
    struct path at = {.up = path, .type = PATH_FIELD, .name = STR("statusCode")};
    if (d->status != 0)
        schema_error(r, schema_place(n, "statusCode"), &at,
                     "Unsupported value: %u: supported values: 301, 302, 303, 307, 308", d->status);
}

#define REWRITE_FIELDS                                                                                                 \
    {.name = "hostname",                                                                                               \
     .type = FIELD_STRING,                                                                                             \
     .at = offsetof(struct raw_redirect, hostname),                                                                    \
     .min = 1,                                                                                                         \
     .format = &format_precise_hostname},                                                                              \
    {                                                                                                                  \
        .name = "path", .type = FIELD_POINTER, .at = offsetof(struct raw_redirect, path),                              \
        .schema = &path_modifier_schema                                                                                \
    }

static const char *const scheme_names[] = {"", "http", "https", NULL};
static const struct field redirect_fields[] = {
    REWRITE_FIELDS,
    {.name = "scheme", .type = FIELD_ENUM, .at = offsetof(struct raw_redirect, scheme), .names = scheme_names},
    {.name = "port", .type = FIELD_INT, .width = 2, .at = offsetof(struct raw_redirect, port), .min = 1, .max = 65535},
    {.name = "statusCode",
     .type = FIELD_INT,
     .width = 4,
     .at = offsetof(struct raw_redirect, status),
     .min = 100,
     .max = 599},
};
static const struct schema redirect_schema = {FIELDS(redirect_fields), .size = sizeof(struct raw_redirect),
                                              .finish = finish_redirect};
static const struct field rewrite_fields[] = {REWRITE_FIELDS};
static const struct schema rewrite_schema = {FIELDS(rewrite_fields), .size = sizeof(struct raw_redirect)};

static const struct field extension_fields[] = {
    {.name = "group",
     .type = FIELD_STRING,
     .required = true,
     .at = offsetof(struct raw_extension, group),
     .format = &format_group},
    {.name = "kind",
     .type = FIELD_STRING,
     .required = true,
     .at = offsetof(struct raw_extension, kind),
     .min = 1,
     .format = &format_kind},
    {.name = "name",
     .type = FIELD_STRING,
     .required = true,
     .at = offsetof(struct raw_extension, name),
     .min = 1,
     .max = 253},
};
static const struct schema extension_schema = {FIELDS(extension_fields), .size = sizeof(struct raw_extension)};

/* ---- the filter ---- */

static void check_members(struct reader *r, const struct node *n, const struct path *path, const struct raw_filter *f)
{
    for (int i = 0; i < TYPE_COUNT; i++) {
        if (f->has[i] && i != f->type)
            schema_error(r, schema_place(n, filter_members[i]), path,
                         "Invalid value: filter.%s must be nil if the filter.type is not %s", filter_members[i],
                         filter_types[i]);
    }
    if (!f->has[f->type])
        schema_error(r, n, path, "Invalid value: filter.%s must be specified for %s filter.type",
                     filter_members[f->type], filter_types[f->type]);
}

static void finish_filter(struct reader *r, const struct node *n, const struct path *path, void *raw, void *out)
{
    const struct raw_filter *f = raw;
    struct route_filter *to = out;
    const struct node *type = node_get(n, "type");
    if (type == NULL || type->type != NODE_STRING || !str_is(type->u.string, filter_types[f->type]))
        return; /* reported already */
    check_members(r, n, path, f);
    switch (f->type) {
    case TYPE_REQUEST:
        to->type = FILTER_REQUEST_HEADERS;
        to->headers = f->request;
        break;
    case TYPE_RESPONSE:
        to->type = FILTER_RESPONSE_HEADERS;
        to->headers = f->response;
        break;
    case TYPE_REDIRECT:
        to->type = FILTER_REDIRECT;
        if (f->redirect.scheme != SCHEME_NONE)
            to->to.scheme = memory_str(r->memory, str_of(scheme_names[f->redirect.scheme]));
        to->to.hostname = f->redirect.hostname;
        to->to.path = f->redirect.path;
        to->to.port = f->redirect.port;
        to->to.status = (uint16_t)f->redirect.status;
        break;
    case TYPE_REWRITE:
        to->type = FILTER_REWRITE;
        to->to.hostname = f->rewrite.hostname;
        to->to.path = f->rewrite.path;
        break;
    default:
        to->type = FILTER_EXTENSION;
        to->extension.group = f->extension.group;
        to->extension.kind = f->extension.kind;
        to->extension.name = f->extension.name;
        schema_error(r, n, path, "%s filters are not supported yet", filter_types[f->type]);
    }
}

#define F(member)     offsetof(struct raw_filter, member)
#define HAS_FILTER(i) (offsetof(struct raw_filter, has) + (i) + 1)
static const struct field filter_fields[] = {
    {.name = "type", .type = FIELD_ENUM, .required = true, .at = F(type), .names = filter_types},
    {.name = "requestHeaderModifier",
     .type = FIELD_OBJECT,
     .at = F(request),
     .has = HAS_FILTER(TYPE_REQUEST),
     .schema = &modifier_schema},
    {.name = "responseHeaderModifier",
     .type = FIELD_OBJECT,
     .at = F(response),
     .has = HAS_FILTER(TYPE_RESPONSE),
     .schema = &modifier_schema},
    {.name = "requestRedirect",
     .type = FIELD_OBJECT,
     .at = F(redirect),
     .has = HAS_FILTER(TYPE_REDIRECT),
     .schema = &redirect_schema},
    {.name = "urlRewrite",
     .type = FIELD_OBJECT,
     .at = F(rewrite),
     .has = HAS_FILTER(TYPE_REWRITE),
     .schema = &rewrite_schema},
    {.name = "extensionRef",
     .type = FIELD_OBJECT,
     .at = F(extension),
     .has = HAS_FILTER(TYPE_EXTENSION),
     .schema = &extension_schema},
    {.name = "requestMirror", .type = FIELD_IGNORED, .has = HAS_FILTER(TYPE_MIRROR)},
    {.name = "cors", .type = FIELD_IGNORED, .has = HAS_FILTER(TYPE_CORS)},
    {.name = "externalAuth", .type = FIELD_IGNORED, .has = HAS_FILTER(TYPE_AUTH)},
};
const struct schema schema_route_filter = {FIELDS(filter_fields), .size = sizeof(struct route_filter),
                                           .raw_size = sizeof(struct raw_filter), .finish = finish_filter,
                                           .line = HAS(struct route_filter, line)};
