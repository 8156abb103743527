/* SPDX-License-Identifier: Apache-2.0
 *
 * Resources as JSON for /config: what Weir understood, in the API's own shape. It must never show what a Secret, an
 * environment variable or a credential holds: those appear as a digest, enough to see whether they changed.
 * pluginConfig counts as one of them unless asked for, since people put tokens in it; so does kubectl's copy of the
 * whole object in an annotation.
 */
#include "conf/digest.h"
#include "conf/number.h"
#include "conf/resource.h"

struct json {
    struct strbuf *out;
    bool comma;
};

static void j_name(struct json *j, const char *name)
{
    if (j->comma)
        strbuf_addc(j->out, ',');
    j->comma = true;
    if (name == NULL)
        return;
    strbuf_add_json(j->out, str_of(name));
    strbuf_addc(j->out, ':');
}

static void j_open(struct json *j, const char *name, char bracket)
{
    j_name(j, name);
    strbuf_addc(j->out, bracket);
    j->comma = false;
}

static void j_close(struct json *j, char bracket)
{
    strbuf_addc(j->out, bracket);
    j->comma = true;
}

static void j_str(struct json *j, const char *name, const char *value)
{
    if (value == NULL)
        return;
    j_name(j, name);
    strbuf_add_json(j->out, str_of(value));
}

static void j_nonempty(struct json *j, const char *name, const char *value)
{
    if (value != NULL && value[0] != '\0')
        j_str(j, name, value);
}

static void j_int(struct json *j, const char *name, int64_t value)
{
    j_name(j, name);
    strbuf_printf(j->out, "%lld", (long long)value);
}

static void j_bool(struct json *j, const char *name, bool value)
{
    j_name(j, name);
    strbuf_addz(j->out, value ? "true" : "false");
}

static void j_hidden(struct json *j, const char *name, struct str secret)
{
    j_name(j, name);
    strbuf_addc(j->out, '"');
    digest_write_hidden(j->out, secret);
    strbuf_addc(j->out, '"');
}

static void j_strings(struct json *j, const char *name, char *const *list, size_t count)
{
    if (count == 0)
        return;
    j_open(j, name, '[');
    for (size_t i = 0; i < count; i++)
        j_str(j, NULL, list[i]);
    j_close(j, ']');
}

static void j_duration(struct json *j, const char *name, int64_t ms)
{
    if (ms < 0)
        return;
    struct strbuf b = {0};
    number_write_duration(&b, ms);
    char *z = strbuf_take(&b);
    j_str(j, name, z);
    mem_free(z);
}

static void j_labels(struct json *j, const char *name, const struct labels *l)
{
    if (l->count == 0)
        return;
    j_open(j, name, '{');
    for (size_t i = 0; i < l->count; i++) {
        if (strcmp(l->list[i].key, "kubectl.kubernetes.io/last-applied-configuration") == 0)
            j_hidden(j, l->list[i].key, str_of(l->list[i].value));
        else
            j_str(j, l->list[i].key, l->list[i].value);
    }
    j_close(j, '}');
}

/* ---- Gateway API ---- */

static void write_parameters(struct json *j, const struct parameters_ref *p)
{
    if (p == NULL)
        return;
    j_open(j, "parametersRef", '{');
    j_str(j, "group", p->group);
    j_str(j, "kind", p->kind);
    j_str(j, "name", p->name);
    j_str(j, "namespace", p->ns);
    j_close(j, '}');
}

static void write_gateway_class(struct json *j, const struct gateway_class *c)
{
    j_str(j, "controllerName", c->controller_name);
    write_parameters(j, c->parameters);
}

static void write_selector(struct json *j, const struct label_selector *s)
{
    static const char *const operators[] = {"In", "NotIn", "Exists", "DoesNotExist"};
    j_open(j, "selector", '{');
    j_labels(j, "matchLabels", &s->match_labels);
    if (s->requirement_count != 0) {
        j_open(j, "matchExpressions", '[');
        for (size_t i = 0; i < s->requirement_count; i++) {
            j_open(j, NULL, '{');
            j_str(j, "key", s->requirements[i].key);
            j_str(j, "operator", operators[s->requirements[i].op]);
            j_strings(j, "values", s->requirements[i].values, s->requirements[i].value_count);
            j_close(j, '}');
        }
        j_close(j, ']');
    }
    j_close(j, '}');
}

static void write_listener(struct json *j, const struct gateway_listener *l)
{
    static const char *const protocols[] = {"HTTP", "HTTPS", "TLS", "TCP", "UDP"};
    static const char *const from[] = {"Same", "All", "Selector"};
    j_open(j, NULL, '{');
    j_str(j, "name", l->name);
    j_str(j, "hostname", l->hostname);
    j_int(j, "port", l->port);
    j_str(j, "protocol", protocols[l->protocol]);
    j_open(j, "allowedRoutes", '{');
    j_open(j, "namespaces", '{');
    j_str(j, "from", from[l->from]);
    if (l->from == ROUTES_SELECTOR)
        write_selector(j, &l->selector);
    j_close(j, '}');
    j_close(j, '}');
    j_close(j, '}');
}

static void write_gateway(struct json *j, const struct gateway *g)
{
    j_str(j, "gatewayClassName", g->class_name);
    j_open(j, "listeners", '[');
    for (size_t i = 0; i < g->listener_count; i++)
        write_listener(j, &g->listeners[i]);
    j_close(j, ']');
    if (g->address_count != 0) {
        j_open(j, "addresses", '[');
        for (size_t i = 0; i < g->address_count; i++) {
            j_open(j, NULL, '{');
            j_str(j, "type", g->addresses[i].type);
            j_str(j, "value", g->addresses[i].value);
            j_close(j, '}');
        }
        j_close(j, ']');
    }
    if (g->parameters != NULL) {
        j_open(j, "infrastructure", '{');
        write_parameters(j, g->parameters);
        j_close(j, '}');
    }
}

static void write_header_values(struct json *j, const char *name, const struct header_value *list, size_t count)
{
    if (count == 0)
        return;
    j_open(j, name, '[');
    for (size_t i = 0; i < count; i++) {
        j_open(j, NULL, '{');
        j_str(j, "name", list[i].name);
        j_str(j, "value", list[i].value);
        j_close(j, '}');
    }
    j_close(j, ']');
}

static void write_path_modifier(struct json *j, const struct path_modifier *p)
{
    if (p == NULL)
        return;
    bool full = p->type == PATH_REPLACE_FULL;
    j_open(j, "path", '{');
    j_str(j, "type", full ? "ReplaceFullPath" : "ReplacePrefixMatch");
    j_str(j, full ? "replaceFullPath" : "replacePrefixMatch", p->value);
    j_close(j, '}');
}

static void write_filter(struct json *j, const struct route_filter *f)
{
    static const struct {
        const char *type, *member;
    } names[] = {[FILTER_REQUEST_HEADERS] = {"RequestHeaderModifier", "requestHeaderModifier"},
                 [FILTER_RESPONSE_HEADERS] = {"ResponseHeaderModifier", "responseHeaderModifier"},
                 [FILTER_REDIRECT] = {"RequestRedirect", "requestRedirect"},
                 [FILTER_REWRITE] = {"URLRewrite", "urlRewrite"},
                 [FILTER_EXTENSION] = {"ExtensionRef", "extensionRef"}};
    j_open(j, NULL, '{');
    j_str(j, "type", names[f->type].type);
    j_open(j, names[f->type].member, '{');
    if (f->type == FILTER_REQUEST_HEADERS || f->type == FILTER_RESPONSE_HEADERS) {
        write_header_values(j, "set", f->headers.set, f->headers.set_count);
        write_header_values(j, "add", f->headers.add, f->headers.add_count);
        j_strings(j, "remove", f->headers.remove, f->headers.remove_count);
    } else if (f->type == FILTER_EXTENSION) {
        j_str(j, "group", f->extension.group);
        j_str(j, "kind", f->extension.kind);
        j_str(j, "name", f->extension.name);
    } else {
        j_str(j, "scheme", f->to.scheme);
        j_str(j, "hostname", f->to.hostname);
        write_path_modifier(j, f->to.path);
        if (f->to.port != 0)
            j_int(j, "port", f->to.port);
        if (f->type == FILTER_REDIRECT)
            j_int(j, "statusCode", f->to.status);
    }
    j_close(j, '}');
    j_close(j, '}');
}

static void write_filters(struct json *j, const struct route_filter *list, size_t count)
{
    if (count == 0)
        return;
    j_open(j, "filters", '[');
    for (size_t i = 0; i < count; i++)
        write_filter(j, &list[i]);
    j_close(j, ']');
}

static void write_name_matches(struct json *j, const char *name, const struct name_match *list, size_t count)
{
    if (count == 0)
        return;
    j_open(j, name, '[');
    for (size_t i = 0; i < count; i++) {
        j_open(j, NULL, '{');
        j_str(j, "type", list[i].type == MATCH_REGEX ? "RegularExpression" : "Exact");
        j_str(j, "name", list[i].name);
        j_str(j, "value", list[i].value);
        j_close(j, '}');
    }
    j_close(j, ']');
}

static void write_match(struct json *j, const struct route_match *m)
{
    static const char *const types[] = {"Exact", "PathPrefix", "RegularExpression"};
    j_open(j, NULL, '{');
    j_open(j, "path", '{');
    j_str(j, "type", types[m->path.type]);
    j_str(j, "value", m->path.value);
    j_close(j, '}');
    write_name_matches(j, "headers", m->headers, m->header_count);
    write_name_matches(j, "queryParams", m->query, m->query_count);
    j_str(j, "method", m->method);
    j_close(j, '}');
}

static void write_backend(struct json *j, const struct backend_ref *b)
{
    j_open(j, NULL, '{');
    j_nonempty(j, "group", b->group);
    j_str(j, "kind", b->kind);
    j_str(j, "namespace", b->ns);
    j_str(j, "name", b->name);
    if (b->port != 0)
        j_int(j, "port", b->port);
    j_int(j, "weight", b->weight);
    write_filters(j, b->filters, b->filter_count);
    j_close(j, '}');
}

static void write_rule(struct json *j, const struct route_rule *rule)
{
    j_open(j, NULL, '{');
    j_str(j, "name", rule->name);
    j_open(j, "matches", '[');
    for (size_t i = 0; i < rule->match_count; i++)
        write_match(j, &rule->matches[i]);
    j_close(j, ']');
    write_filters(j, rule->filters, rule->filter_count);
    j_open(j, "backendRefs", '[');
    for (size_t i = 0; i < rule->backend_count; i++)
        write_backend(j, &rule->backends[i]);
    j_close(j, ']');
    if (rule->request_timeout_ms >= 0 || rule->backend_timeout_ms >= 0) {
        j_open(j, "timeouts", '{');
        j_duration(j, "request", rule->request_timeout_ms);
        j_duration(j, "backendRequest", rule->backend_timeout_ms);
        j_close(j, '}');
    }
    j_close(j, '}');
}

static void write_http_route(struct json *j, const struct http_route *h)
{
    j_open(j, "parentRefs", '[');
    for (size_t i = 0; i < h->parent_count; i++) {
        const struct parent_ref *p = &h->parents[i];
        j_open(j, NULL, '{');
        j_str(j, "group", p->group);
        j_str(j, "kind", p->kind);
        j_str(j, "namespace", p->ns);
        j_str(j, "name", p->name);
        j_str(j, "sectionName", p->section);
        if (p->port != 0)
            j_int(j, "port", p->port);
        j_close(j, '}');
    }
    j_close(j, ']');
    j_strings(j, "hostnames", h->hostnames, h->hostname_count);
    j_open(j, "rules", '[');
    for (size_t i = 0; i < h->rule_count; i++)
        write_rule(j, &h->rules[i]);
    j_close(j, ']');
}

static void write_reference_grant(struct json *j, const struct reference_grant *g)
{
    j_open(j, "from", '[');
    for (size_t i = 0; i < g->from_count; i++) {
        j_open(j, NULL, '{');
        j_str(j, "group", g->from[i].group);
        j_str(j, "kind", g->from[i].kind);
        j_str(j, "namespace", g->from[i].ns);
        j_close(j, '}');
    }
    j_close(j, ']');
    j_open(j, "to", '[');
    for (size_t i = 0; i < g->to_count; i++) {
        j_open(j, NULL, '{');
        j_str(j, "group", g->to[i].group);
        j_str(j, "kind", g->to[i].kind);
        j_str(j, "name", g->to[i].name);
        j_close(j, '}');
    }
    j_close(j, ']');
}

/* ---- Istio ---- */

void url_write_public(const char *url, struct strbuf *out)
{
    struct str s = str_of(url);
    ptrdiff_t scheme = str_find_str(s, STR("://"));
    size_t start = scheme < 0 ? 0 : (size_t)scheme + 3, path = start;
    while (path < s.n && s.p[path] != '/' && s.p[path] != '?' && s.p[path] != '#')
        path++;
    size_t host = start;
    for (size_t i = start; i < path; i++) {
        if (s.p[i] == '@')
            host = i + 1;
    }
    strbuf_add(out, str_upto(s, start));
    if (host != start)
        strbuf_addz(out, "***@");
    struct str rest = str_from(s, host);
    ptrdiff_t query = str_find(rest, '?');
    strbuf_add(out, query < 0 ? rest : str_upto(rest, (size_t)query + 1));
    if (query >= 0)
        digest_write_hidden(out, str_from(rest, (size_t)query + 1));
}

static void write_url(struct json *j, const char *url)
{
    struct strbuf b = {0};
    url_write_public(url, &b);
    char *z = strbuf_take(&b);
    j_str(j, "url", z);
    mem_free(z);
}

static void write_module(struct json *j, const struct wasm_plugin *p, bool with_config)
{
    static const char *const pull[] = {"UNSPECIFIED_POLICY", "IfNotPresent", "Always"};
    static const char *const fail[] = {"FAIL_CLOSE", "FAIL_OPEN", "FAIL_RELOAD"};
    write_url(j, p->url);
    j_str(j, "sha256", p->sha256);
    if (p->pull_policy != PULL_UNSPECIFIED)
        j_str(j, "imagePullPolicy", pull[p->pull_policy]);
    j_str(j, "imagePullSecret", p->pull_secret);
    if (p->verification_key != NULL)
        j_hidden(j, "verificationKey", str_of(p->verification_key));
    if (p->config != NULL && !with_config) {
        j_hidden(j, "pluginConfig", str_span(p->config, p->config_bytes));
    } else if (p->config != NULL) {
        j_name(j, "pluginConfig");
        strbuf_add(j->out, str_span(p->config, p->config_bytes));
    }
    j_nonempty(j, "pluginName", p->plugin_name);
    j_str(j, "failStrategy", fail[p->fail]);
    j_str(j, "type", p->type == PLUGIN_NETWORK ? "NETWORK" : "HTTP");
    if (p->env_count == 0)
        return;
    j_open(j, "vmConfig", '{');
    j_open(j, "env", '[');
    for (size_t i = 0; i < p->env_count; i++) {
        j_open(j, NULL, '{');
        j_str(j, "name", p->env[i].name);
        if (p->env[i].from_host)
            j_str(j, "valueFrom", "HOST");
        else
            j_hidden(j, "value", str_of(p->env[i].value));
        j_close(j, '}');
    }
    j_close(j, ']');
    j_close(j, '}');
}

static void write_targeting(struct json *j, const struct wasm_plugin *p, const char *unspecified)
{
    static const char *const phases[] = {NULL, "AUTHN", "AUTHZ", "STATS"};
    static const char *const modes[] = {"UNDEFINED", "CLIENT", "SERVER", "CLIENT_AND_SERVER"};
    if (p->has_selector) {
        j_open(j, "selector", '{');
        j_labels(j, "matchLabels", &p->selector);
        j_close(j, '}');
    }
    if (p->target_count != 0) {
        j_open(j, "targetRefs", '[');
        for (size_t i = 0; i < p->target_count; i++) {
            j_open(j, NULL, '{');
            j_str(j, "group", p->targets[i].group);
            j_str(j, "kind", p->targets[i].kind);
            j_str(j, "name", p->targets[i].name);
            j_close(j, '}');
        }
        j_close(j, ']');
    }
    j_str(j, "phase", p->phase == PHASE_UNSPECIFIED ? unspecified : phases[p->phase]);
    if (p->has_priority)
        j_int(j, "priority", p->priority);
    if (p->match_count == 0)
        return;
    j_open(j, "match", '[');
    for (size_t i = 0; i < p->match_count; i++) {
        j_open(j, NULL, '{');
        j_str(j, "mode", modes[p->matches[i].mode]);
        if (p->matches[i].port_count != 0) {
            j_open(j, "ports", '[');
            for (size_t k = 0; k < p->matches[i].port_count; k++) {
                j_open(j, NULL, '{');
                j_int(j, "number", p->matches[i].ports[k]);
                j_close(j, '}');
            }
            j_close(j, ']');
        }
        j_close(j, '}');
    }
    j_close(j, ']');
}

static void write_service_entry(struct json *j, const struct service_entry *e)
{
    static const char *const resolutions[] = {"NONE", "STATIC", "DNS"};
    j_strings(j, "hosts", e->hosts, e->host_count);
    j_open(j, "ports", '[');
    for (size_t i = 0; i < e->port_count; i++) {
        j_open(j, NULL, '{');
        j_str(j, "name", e->ports[i].name);
        j_int(j, "number", e->ports[i].number);
        j_int(j, "targetPort", e->ports[i].target);
        j_close(j, '}');
    }
    j_close(j, ']');
    j_str(j, "resolution", resolutions[e->resolution]);
    if (e->endpoint_count == 0)
        return;
    j_open(j, "endpoints", '[');
    for (size_t i = 0; i < e->endpoint_count; i++) {
        j_open(j, NULL, '{');
        j_str(j, "address", e->endpoints[i].address);
        if (e->endpoints[i].port_count != 0) {
            j_open(j, "ports", '{');
            for (size_t k = 0; k < e->endpoints[i].port_count; k++)
                j_int(j, e->endpoints[i].ports[k].name, e->endpoints[i].ports[k].port);
            j_close(j, '}');
        }
        j_int(j, "weight", e->endpoints[i].weight);
        j_close(j, '}');
    }
    j_close(j, ']');
}

/* ---- core ---- */

static void write_service(struct json *j, const struct service *s)
{
    j_str(j, "type", s->type);
    j_nonempty(j, "externalName", s->external_name);
    j_labels(j, "selector", &s->selector);
    j_open(j, "ports", '[');
    for (size_t i = 0; i < s->port_count; i++) {
        j_open(j, NULL, '{');
        j_nonempty(j, "name", s->ports[i].name);
        j_int(j, "port", s->ports[i].port);
        if (s->ports[i].target_name != NULL)
            j_str(j, "targetPort", s->ports[i].target_name);
        else
            j_int(j, "targetPort", s->ports[i].target);
        j_str(j, "appProtocol", s->ports[i].app_protocol);
        j_close(j, '}');
    }
    j_close(j, ']');
}

static void write_endpoint_slice(struct json *j, const struct endpoint_slice *s)
{
    j_str(j, "addressType", s->address_type);
    j_open(j, "endpoints", '[');
    for (size_t i = 0; i < s->endpoint_count; i++) {
        j_open(j, NULL, '{');
        j_strings(j, "addresses", s->endpoints[i].addresses, s->endpoints[i].address_count);
        j_open(j, "conditions", '{');
        j_bool(j, "ready", s->endpoints[i].ready);
        j_close(j, '}');
        j_close(j, '}');
    }
    j_close(j, ']');
    j_open(j, "ports", '[');
    for (size_t i = 0; i < s->port_count; i++) {
        j_open(j, NULL, '{');
        j_nonempty(j, "name", s->ports[i].name);
        j_int(j, "port", s->ports[i].port);
        j_close(j, '}');
    }
    j_close(j, ']');
}

static void write_secret(struct json *j, const struct secret *s)
{
    j_str(j, "type", s->type);
    j_open(j, "data", '{');
    for (size_t i = 0; i < s->item_count; i++)
        j_hidden(j, s->items[i].key, str_span(s->items[i].bytes, s->items[i].n));
    j_close(j, '}');
}

static void write_config_map(struct json *j, const struct config_map *c)
{
    const struct labels data = {c->data, c->data_count};
    j_labels(j, "data", &data);
}

/* ---- the object ---- */

static void write_spec(struct json *j, const struct resource *r, bool with_plugin_config)
{
    switch (r->meta.kind) {
    case KIND_GATEWAY_CLASS: write_gateway_class(j, &r->u.gateway_class); break;
    case KIND_GATEWAY: write_gateway(j, &r->u.gateway); break;
    case KIND_HTTP_ROUTE: write_http_route(j, &r->u.http_route); break;
    case KIND_REFERENCE_GRANT: write_reference_grant(j, &r->u.reference_grant); break;
    case KIND_WASM_PLUGIN:
        write_targeting(j, &r->u.wasm_plugin, "UNSPECIFIED_PHASE");
        write_module(j, &r->u.wasm_plugin, with_plugin_config);
        break;
    case KIND_TRAFFIC_EXTENSION:
        write_targeting(j, &r->u.wasm_plugin, "UNSPECIFIED");
        j_open(j, "wasm", '{');
        write_module(j, &r->u.wasm_plugin, with_plugin_config);
        j_close(j, '}');
        break;
    case KIND_SERVICE_ENTRY: write_service_entry(j, &r->u.service_entry); break;
    case KIND_SERVICE: write_service(j, &r->u.service); break;
    case KIND_ENDPOINT_SLICE: write_endpoint_slice(j, &r->u.endpoint_slice); break;
    case KIND_SECRET: write_secret(j, &r->u.secret); break;
    case KIND_CONFIG_MAP: write_config_map(j, &r->u.config_map); break;
    case KIND_NAMESPACE:
    case KIND_COUNT: break;
    }
}

static void write_meta(struct json *j, const struct meta *m)
{
    j_open(j, "metadata", '{');
    j_str(j, "name", m->name);
    j_nonempty(j, "namespace", m->ns);
    j_nonempty(j, "uid", m->uid);
    j_nonempty(j, "resourceVersion", m->resource_version);
    if (m->generation != 0)
        j_int(j, "generation", m->generation);
    j_labels(j, "labels", &m->labels);
    j_labels(j, "annotations", &m->annotations);
    j_close(j, '}');
}

/* Kinds that have no spec: their fields stand at the root. */
static bool is_flat(enum kind kind)
{
    return kind == KIND_SECRET || kind == KIND_CONFIG_MAP || kind == KIND_ENDPOINT_SLICE;
}

void resource_write_json(const struct resource *r, bool with_plugin_config, struct strbuf *out)
{
    struct json j = {.out = out};
    j_open(&j, NULL, '{');
    j_str(&j, "apiVersion", r->meta.api_version);
    j_str(&j, "kind", kind_name(r->meta.kind));
    write_meta(&j, &r->meta);
    if (!is_flat(r->meta.kind))
        j_open(&j, "spec", '{');
    write_spec(&j, r, with_plugin_config);
    if (!is_flat(r->meta.kind))
        j_close(&j, '}');
    j_close(&j, '}');
}
