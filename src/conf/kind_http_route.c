/* SPDX-License-Identifier: Apache-2.0
 *
 * HTTPRoute (Gateway API v1): parents, hostnames, rules. Most rules that tie fields together are written in CEL in the
 * CRD and appear here with its texts. A route that passes can be programmed as it stands; whether its references lead
 * anywhere is found out later, when all objects are known.
 */
#include "conf/kinds.h"

/* ---- parentRefs ---- */

static void finish_parent(struct reader *r, const struct node *n, const struct path *path, void *raw, void *out)
{
    (void)raw, (void)n, (void)path;
    struct parent_ref *p = out;
    if (p->group == NULL)
        p->group = memory_str(r->memory, STR("gateway.networking.k8s.io"));
    if (p->kind == NULL)
        p->kind = memory_str(r->memory, STR("Gateway"));
}

static const struct field parent_fields[] = {
    {.name = "group", .type = FIELD_STRING, .at = offsetof(struct parent_ref, group), .format = &format_group},
    {.name = "kind", .type = FIELD_STRING, .at = offsetof(struct parent_ref, kind), .min = 1, .format = &format_kind},
    {.name = "namespace",
     .type = FIELD_STRING,
     .at = offsetof(struct parent_ref, ns),
     .min = 1,
     .format = &format_namespace_ref},
    {.name = "name",
     .type = FIELD_STRING,
     .required = true,
     .at = offsetof(struct parent_ref, name),
     .min = 1,
     .max = 253},
    {.name = "sectionName",
     .type = FIELD_STRING,
     .at = offsetof(struct parent_ref, section),
     .min = 1,
     .format = &format_gateway_name},
    {.name = "port", .type = FIELD_INT, .width = 2, .at = offsetof(struct parent_ref, port), .min = 1, .max = 65535},
};
static const struct schema parent_schema = {FIELDS(parent_fields), .size = sizeof(struct parent_ref),
                                            .finish = finish_parent, .line = HAS(struct parent_ref, line)};

static bool same_text(const char *a, const char *b) { return strcmp(a != NULL ? a : "", b != NULL ? b : "") == 0; }

static void check_parents(struct reader *r, const struct node *n, const struct path *path, const struct http_route *h)
{
    struct path at = {.up = path, .type = PATH_FIELD, .name = STR("parentRefs")};
    const struct node *place = schema_place(n, "parentRefs");
    bool unnamed = false, same = false;
    for (size_t i = 1; i < h->parent_count; i++) {
        for (size_t j = 0; j < i; j++) {
            const struct parent_ref *a = &h->parents[i], *b = &h->parents[j];
            if (a->name == NULL || b->name == NULL || !same_text(a->group, b->group) || !same_text(a->kind, b->kind) ||
                !same_text(a->ns, b->ns) || !same_text(a->name, b->name))
                continue;
            bool a_plain = a->section == NULL && a->port == 0, b_plain = b->section == NULL && b->port == 0;
            if (a_plain != b_plain)
                unnamed = true;
            else if (same_text(a->section, b->section) && a->port == b->port)
                same = true;
        }
    }
    if (unnamed)
        schema_error(
            r, place, &at,
            "Invalid value: sectionName or port must be specified when parentRefs includes 2 or more references "
            "to the same parent");
    if (same)
        schema_error(
            r, place, &at,
            "Invalid value: sectionName or port must be unique when parentRefs includes 2 or more references to "
            "the same parent");
}

/* ---- matches ---- */

struct raw_path_match {
    enum { PATH_TYPE_PREFIX, PATH_TYPE_EXACT, PATH_TYPE_REGEX } type;
    char *value;
};
struct raw_name_match {
    enum { NAME_EXACT, NAME_REGEX } type;
    char *name, *value;
};

static const struct {
    const char *text;
    bool at_end;
    const char *message;
} path_rules[] = {
    {"//", false, "must not contain '//' when type one of ['Exact', 'PathPrefix']"},
    {"/./", false, "must not contain '/./' when type one of ['Exact', 'PathPrefix']"},
    {"/../", false, "must not contain '/../' when type one of ['Exact', 'PathPrefix']"},
    {"%2f", false, "must not contain '%2f' when type one of ['Exact', 'PathPrefix']"},
    {"%2F", false, "must not contain '%2F' when type one of ['Exact', 'PathPrefix']"},
    {"#", false, "must not contain '#' when type one of ['Exact', 'PathPrefix']"},
    {"/..", true, "must not end with '/..' when type one of ['Exact', 'PathPrefix']"},
    {"/.", true, "must not end with '/.' when type one of ['Exact', 'PathPrefix']"},
};

static void check_plain_path(struct reader *r, const struct node *n, const struct path *path, struct str value)
{
    if (value.n == 0 || value.p[0] != '/') {
        schema_error(r, n, path,
                     "Invalid value: value must be an absolute path and start with '/' when type one of ['Exact', "
                     "'PathPrefix']");
        return;
    }
    bool found = false;
    for (size_t i = 0; i < ARRAY_LEN(path_rules); i++) {
        struct str text = str_of(path_rules[i].text);
        if (path_rules[i].at_end ? str_ends(value, text) : str_find_str(value, text) >= 0) {
            schema_error(r, n, path, "Invalid value: %s", path_rules[i].message);
            found = true;
        }
    }
    if (!found && !format_is_path(value))
        schema_error(r, n, path,
                     "Invalid value: must only contain valid characters (matching "
                     "^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%%][0-9a-fA-F]{2})+$) for types ['Exact', 'PathPrefix']");
}

static void finish_path(struct reader *r, const struct node *n, const struct path *path, void *raw, void *out)
{
    const struct raw_path_match *m = raw;
    struct path_match *to = out;
    to->type = m->type == PATH_TYPE_EXACT ? MATCH_EXACT : m->type == PATH_TYPE_REGEX ? MATCH_REGEX : MATCH_PREFIX;
    to->value = m->value;
    if (m->value == NULL && node_get(n, "value") == NULL)
        to->value = memory_str(r->memory, STR("/"));
    if (to->value == NULL)
        return;
    if (to->type != MATCH_REGEX) {
        check_plain_path(r, schema_place(n, "value"), path, str_of(to->value));
        return;
    }
    struct path at = {.up = path, .type = PATH_FIELD, .name = STR("value")};
    schema_regex(r, schema_place(n, "value"), &at, to->value);
}

static const char *const path_type_names[] = {"PathPrefix", "Exact", "RegularExpression", NULL};
static const struct field path_fields[] = {
    {.name = "type", .type = FIELD_ENUM, .at = offsetof(struct raw_path_match, type), .names = path_type_names},
    {.name = "value", .type = FIELD_STRING, .at = offsetof(struct raw_path_match, value), .max = 1024},
};
static const struct schema path_schema = {FIELDS(path_fields), .size = sizeof(struct path_match),
                                          .raw_size = sizeof(struct raw_path_match), .finish = finish_path};

static void finish_name(struct reader *r, const struct node *n, const struct path *path, void *raw, void *out)
{
    const struct raw_name_match *m = raw;
    struct name_match *to = out;
    to->type = m->type == NAME_REGEX ? MATCH_REGEX : MATCH_EXACT;
    to->name = m->name;
    to->value = m->value;
    struct path at = {.up = path, .type = PATH_FIELD, .name = STR("value")};
    if (to->type == MATCH_REGEX && to->value != NULL)
        schema_regex(r, schema_place(n, "value"), &at, to->value);
}

static void finish_header(struct reader *r, const struct node *n, const struct path *path, void *raw, void *out)
{
    finish_name(r, n, path, raw, out);
    struct name_match *to = out;
    for (char *p = to->name; p != NULL && *p != '\0'; p++) {
        if (*p >= 'A' && *p <= 'Z')
            *p = (char)(*p | 0x20);
    }
}

static const char *const name_type_names[] = {"Exact", "RegularExpression", NULL};
#define NAME_FIELDS(longest)                                                                                           \
    {.name = "type", .type = FIELD_ENUM, .at = offsetof(struct raw_name_match, type), .names = name_type_names},       \
        {.name = "name",                                                                                               \
         .type = FIELD_STRING,                                                                                         \
         .required = true,                                                                                             \
         .at = offsetof(struct raw_name_match, name),                                                                  \
         .min = 1,                                                                                                     \
         .format = &format_header_name},                                                                               \
    {                                                                                                                  \
        .name = "value", .type = FIELD_STRING, .required = true, .at = offsetof(struct raw_name_match, value),         \
        .min = 1, .max = longest                                                                                       \
    }
static const struct field header_fields[] = {NAME_FIELDS(4096)};
static const struct schema header_schema = {FIELDS(header_fields), .size = sizeof(struct name_match),
                                            .raw_size = sizeof(struct raw_name_match), .finish = finish_header};
static const struct field query_fields[] = {NAME_FIELDS(1024)};
static const struct schema query_schema = {FIELDS(query_fields), .size = sizeof(struct name_match),
                                           .raw_size = sizeof(struct raw_name_match), .finish = finish_name};

struct raw_match {
    struct route_match m;
    enum { METHOD_ANY } method;
};
static const char *const method_names[] = {"",        "GET",     "HEAD",  "POST",  "PUT", "DELETE",
                                           "CONNECT", "OPTIONS", "TRACE", "PATCH", NULL};

static void default_match(struct reader *r, struct route_match *m)
{
    if (m->path.value == NULL) {
        m->path.type = MATCH_PREFIX;
        m->path.value = memory_str(r->memory, STR("/"));
    }
}

static void finish_match(struct reader *r, const struct node *n, const struct path *path, void *raw, void *out)
{
    (void)n, (void)path;
    const struct raw_match *m = raw;
    struct route_match *to = out;
    *to = m->m;
    default_match(r, to);
    if (m->method != METHOD_ANY)
        to->method = memory_str(r->memory, str_of(method_names[m->method]));
}

static const struct field match_fields[] = {
    {.name = "path", .type = FIELD_OBJECT, .at = offsetof(struct raw_match, m.path), .schema = &path_schema},
    {.name = "headers",
     .type = FIELD_OBJECTS,
     .at = offsetof(struct raw_match, m.headers),
     .count_at = offsetof(struct raw_match, m.header_count),
     .max_items = 16,
     .schema = &header_schema,
     .unique = "name"},
    {.name = "queryParams",
     .type = FIELD_OBJECTS,
     .at = offsetof(struct raw_match, m.query),
     .count_at = offsetof(struct raw_match, m.query_count),
     .max_items = 16,
     .schema = &query_schema,
     .unique = "name"},
    {.name = "method", .type = FIELD_ENUM, .at = offsetof(struct raw_match, method), .names = method_names},
};
static const struct schema match_schema = {FIELDS(match_fields), .size = sizeof(struct route_match),
                                           .raw_size = sizeof(struct raw_match), .finish = finish_match};

/* ---- backendRefs ---- */

struct raw_backend {
    struct backend_ref b;
    bool has_weight;
};

static const struct {
    enum route_filter_type type;
    const char *name;
} once[] = {{FILTER_REQUEST_HEADERS, "RequestHeaderModifier"},
            {FILTER_RESPONSE_HEADERS, "ResponseHeaderModifier"},
            {FILTER_REDIRECT, "RequestRedirect"},
            {FILTER_REWRITE, "URLRewrite"}};

static void check_filters(struct reader *r, const struct node *n, const struct path *path,
                          const struct route_filter *filters, size_t count)
{
    size_t seen[ARRAY_LEN(once)] = {0};
    const struct node *place = schema_place(n, "filters");
    struct path at = {.up = path, .type = PATH_FIELD, .name = STR("filters")};
    for (size_t i = 0; i < count; i++) {
        /* A filter in error is all zero; only its type tells nothing then. */
        const struct node *item = node_get(place->type == NODE_LIST ? place->u.list.items[i] : NULL, "type");
        for (size_t k = 0; item != NULL && item->type == NODE_STRING && k < ARRAY_LEN(once); k++)
            seen[k] += filters[i].type == once[k].type && str_is(item->u.string, once[k].name);
    }
    for (size_t k = 0; k < ARRAY_LEN(once); k++) {
        if (seen[k] > 1)
            schema_error(r, place, &at, "Invalid value: %s filter cannot be repeated", once[k].name);
    }
    if (seen[2] != 0 && seen[3] != 0)
        schema_error(
            r, place, &at,
            "Invalid value: May specify either httpRouteFilterRequestRedirect or httpRouteFilterRequestRewrite, "
            "but not both");
}

static void finish_backend(struct reader *r, const struct node *n, const struct path *path, void *raw, void *out)
{
    struct raw_backend *b = raw;
    struct backend_ref *to = out;
    unsigned line = to->line, col = to->col;
    *to = b->b;
    to->line = line;
    to->col = col;
    if (to->group == NULL)
        to->group = memory_str(r->memory, STR(""));
    if (to->kind == NULL)
        to->kind = memory_str(r->memory, STR("Service"));
    if (!b->has_weight)
        to->weight = 1;
    if (to->port == 0 && to->group[0] == '\0' && strcmp(to->kind, "Service") == 0 && node_get(n, "port") == NULL)
        schema_error(r, n, path, "Invalid value: Must have port for Service reference");
    check_filters(r, n, path, to->filters, to->filter_count);
}

#define B(member) offsetof(struct raw_backend, b.member)
static const struct field backend_fields[] = {
    {.name = "group", .type = FIELD_STRING, .at = B(group), .format = &format_group},
    {.name = "kind", .type = FIELD_STRING, .at = B(kind), .min = 1, .format = &format_kind},
    {.name = "namespace", .type = FIELD_STRING, .at = B(ns), .min = 1, .format = &format_namespace_ref},
    {.name = "name", .type = FIELD_STRING, .required = true, .at = B(name), .min = 1, .max = 253},
    {.name = "port", .type = FIELD_INT, .width = 2, .at = B(port), .min = 1, .max = 65535},
    {.name = "weight",
     .type = FIELD_INT,
     .width = 4,
     .at = B(weight),
     .has = HAS(struct raw_backend, has_weight),
     .min = 0,
     .max = 1000000},
    {.name = "filters",
     .type = FIELD_OBJECTS,
     .at = B(filters),
     .count_at = B(filter_count),
     .max_items = 16,
     .schema = &schema_route_filter},
};
static const struct schema backend_schema = {
    FIELDS(backend_fields),   .size = sizeof(struct backend_ref),    .raw_size = sizeof(struct raw_backend),
    .finish = finish_backend, .line = HAS(struct backend_ref, line), .col = HAS(struct backend_ref, col)};

/* ---- rules ---- */

static bool replaces_prefix(const struct route_filter *filters, size_t count, enum route_filter_type type)
{
    for (size_t i = 0; i < count; i++) {
        if (filters[i].type == type && filters[i].to.path != NULL && filters[i].to.path->type == PATH_REPLACE_PREFIX &&
            filters[i].to.path->value != NULL)
            return true;
    }
    return false;
}

static bool redirects(const struct route_rule *rule)
{
    for (size_t i = 0; i < rule->filter_count; i++) {
        if (rule->filters[i].type == FILTER_REDIRECT)
            return true;
    }
    return false;
}

static void check_prefix_filters(struct reader *r, const struct node *n, const struct path *path,
                                 const struct route_rule *rule)
{
    static const struct {
        enum route_filter_type type;
        const char *name;
    } types[] = {{FILTER_REDIRECT, "RequestRedirect"}, {FILTER_REWRITE, "URLRewrite"}};
    if (rule->match_count == 1 && rule->matches[0].path.type == MATCH_PREFIX)
        return;
    for (size_t k = 0; k < ARRAY_LEN(types); k++) {
        if (replaces_prefix(rule->filters, rule->filter_count, types[k].type))
            schema_error(
                r, schema_place(n, "filters"), path,
                "Invalid value: When using %s filter with path.replacePrefixMatch, exactly one PathPrefix match "
                "must be specified",
                types[k].name);
        for (size_t i = 0; i < rule->backend_count; i++) {
            if (!replaces_prefix(rule->backends[i].filters, rule->backends[i].filter_count, types[k].type))
                continue;
            schema_error(
                r, schema_place(n, "backendRefs"), path,
                "Invalid value: Within backendRefs, when using %s filter with path.replacePrefixMatch, exactly "
                "one PathPrefix match must be specified",
                types[k].name);
            break;
        }
    }
}

static void finish_rule(struct reader *r, const struct node *n, const struct path *path, void *raw, void *out)
{
    (void)raw;
    struct route_rule *rule = out;
    if (node_get(n, "timeouts") == NULL)
        rule->request_timeout_ms = rule->backend_timeout_ms = -1;
    if (rule->match_count == 0) {
        rule->matches = memory_alloc(r->memory, sizeof *rule->matches);
        rule->match_count = 1;
        default_match(r, &rule->matches[0]);
    }
    check_filters(r, n, path, rule->filters, rule->filter_count);
    if (redirects(rule) && rule->backend_count != 0)
        schema_error(r, schema_place(n, "backendRefs"), path,
                     "Invalid value: RequestRedirect filter must not be used together with backendRefs");
    check_prefix_filters(r, n, path, rule);
}

struct raw_timeouts {
    int64_t request, backend;
    bool has_request, has_backend;
};
struct timeouts {
    int64_t request, backend;
};
_Static_assert(offsetof(struct route_rule, backend_timeout_ms) ==
                   offsetof(struct route_rule, request_timeout_ms) + offsetof(struct timeouts, backend),
               "the two timeouts of a rule are neighbours");

static void finish_timeouts(struct reader *r, const struct node *n, const struct path *path, void *raw, void *out)
{
    const struct raw_timeouts *t = raw;
    struct timeouts *to = out;
    to->request = t->has_request ? t->request : -1;
    to->backend = t->has_backend ? t->backend : -1;
    if (t->has_request && t->has_backend && t->request != 0 && t->backend > t->request)
        schema_error(r, n, path, "Invalid value: backendRequest timeout cannot be longer than request timeout");
}

static const struct field timeouts_fields[] = {
    {.name = "request",
     .type = FIELD_DURATION,
     .at = offsetof(struct raw_timeouts, request),
     .has = HAS(struct raw_timeouts, has_request)},
    {.name = "backendRequest",
     .type = FIELD_DURATION,
     .at = offsetof(struct raw_timeouts, backend),
     .has = HAS(struct raw_timeouts, has_backend)},
};
static const struct schema timeouts_schema = {FIELDS(timeouts_fields), .size = sizeof(struct timeouts),
                                              .raw_size = sizeof(struct raw_timeouts), .finish = finish_timeouts};

#define R(member) offsetof(struct route_rule, member)
static const struct field rule_fields[] = {
    {.name = "name", .type = FIELD_STRING, .at = R(name), .min = 1, .format = &format_gateway_name},
    {.name = "matches",
     .type = FIELD_OBJECTS,
     .at = R(matches),
     .count_at = R(match_count),
     .max_items = 64,
     .schema = &match_schema},
    {.name = "filters",
     .type = FIELD_OBJECTS,
     .at = R(filters),
     .count_at = R(filter_count),
     .max_items = 16,
     .schema = &schema_route_filter},
    {.name = "backendRefs",
     .type = FIELD_OBJECTS,
     .at = R(backends),
     .count_at = R(backend_count),
     .max_items = 16,
     .schema = &backend_schema},
    {.name = "timeouts", .type = FIELD_OBJECT, .at = R(request_timeout_ms), .schema = &timeouts_schema},
    {.name = "retry", .type = FIELD_UNREAD, .text = "retry is not supported yet: the policy has no effect"},
    {.name = "sessionPersistence",
     .type = FIELD_UNREAD,
     .text = "sessionPersistence is not supported yet: sessions do not stick"},
};
static const struct schema rule_schema = {FIELDS(rule_fields), .size = sizeof(struct route_rule), .finish = finish_rule,
                                          .line = HAS(struct route_rule, line)};

/* ---- spec ---- */

static void check_rules(struct reader *r, const struct node *n, const struct path *path, const struct http_route *h)
{
    struct path at = {.up = path, .type = PATH_FIELD, .name = STR("rules")};
    const struct node *place = schema_place(n, "rules");
    size_t matches = 0;
    for (size_t i = 0; i < h->rule_count; i++) {
        matches += h->rules[i].match_count;
        for (size_t j = 0; j < i; j++) {
            if (h->rules[i].name == NULL || h->rules[j].name == NULL || !same_text(h->rules[i].name, h->rules[j].name))
                continue;
            schema_error(r, place, &at, "Invalid value: Rule name must be unique within the route");
            return;
        }
    }
    if (matches >= 128)
        schema_error(r, place, &at,
                     "Invalid value: While 16 rules and 64 matches per rule are allowed, the total number of matches "
                     "across all rules in a route must be less than 128");
}

static void finish_route(struct reader *r, const struct node *n, const struct path *path, void *raw, void *out)
{
    (void)raw;
    struct http_route *h = out;
    check_parents(r, n, path, h);
    if (node_get(n, "rules") == NULL) {
        h->rules = memory_alloc(r->memory, sizeof *h->rules);
        h->rule_count = 1;
        h->rules->line = n->line;
        h->rules->request_timeout_ms = h->rules->backend_timeout_ms = -1;
        h->rules->matches = memory_alloc(r->memory, sizeof *h->rules->matches);
        h->rules->match_count = 1;
        default_match(r, h->rules->matches);
    }
    check_rules(r, n, path, h);
}

static const struct field spec_fields[] = {
    {.name = "parentRefs",
     .type = FIELD_OBJECTS,
     .at = offsetof(struct http_route, parents),
     .count_at = offsetof(struct http_route, parent_count),
     .max_items = 32,
     .schema = &parent_schema},
    {.name = "hostnames",
     .type = FIELD_STRINGS,
     .at = offsetof(struct http_route, hostnames),
     .count_at = offsetof(struct http_route, hostname_count),
     .max_items = 16,
     .min = 1,
     .format = &format_hostname},
    {.name = "rules",
     .type = FIELD_OBJECTS,
     .at = offsetof(struct http_route, rules),
     .count_at = offsetof(struct http_route, rule_count),
     .min_items = 1,
     .max_items = 16,
     .schema = &rule_schema},
    {.name = "useDefaultGateways", .type = FIELD_UNREAD},
};
static const struct schema spec_schema = {FIELDS(spec_fields), .size = sizeof(struct http_route),
                                          .finish = finish_route};
static const struct field route_fields[] = {
    ROOT_FIELDS, {.name = "spec", .type = FIELD_OBJECT, .required = true, .at = 0, .schema = &spec_schema}};
static const struct schema route_schema = {FIELDS(route_fields)};
const struct kind_reader kind_http_route = {{"v1", "v1beta1"}, &route_schema, &format_subdomain};
