/* SPDX-License-Identifier: Apache-2.0
 *
 * See envoy_filter.h. The WasmPlugin is written as JSON and read back as nodes, so that from there on it is checked
 * like any other; its nodes get the line of the patch. What must never happen: an EnvoyFilter that applies more widely
 * here than it does there, so a match that cannot be expressed is an error, not left out.
 */
#include "conf/envoy_filter.h"

#include <stdio.h>

struct conversion {
    struct conf_memory *memory;
    const struct node *root, *patches;
    const char *file, *title;
    struct diag *diag;
    size_t index;        /* of the patch looked at */
    const char *cluster; /* that modules are downloaded from; NULL */
};

static void say(struct conversion *c, enum diag_level level, const struct node *place, const char *path,
                const char *fmt, ...) PRINTF_LIKE(5, 6);
static void say(struct conversion *c, enum diag_level level, const struct node *place, const char *path,
                const char *fmt, ...)
{
    char text[512];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    struct strbuf at = {0};
    if (c->title != NULL)
        strbuf_printf(&at, "%s: ", c->title);
    strbuf_printf(&at, "spec.configPatches[%zu]%s", c->index, path);
    strbuf_addc(&at, '\0');
    diag_add(c->diag, level, c->file, place->line, place->col, at.p, "%s", text);
    strbuf_free(&at);
}

/* ---- nodes ---- */

/* snake_case and camelCase are both in use. */
static const struct node *get(const struct node *n, const char *snake, const char *camel)
{
    const struct node *v = n != NULL ? node_get(n, snake) : NULL;
    return v != NULL || n == NULL ? v : node_get(n, camel);
}

static const char *text_of(const struct node *n)
{
    return n != NULL && n->type == NODE_STRING && strlen(n->u.string.p) == n->u.string.n ? n->u.string.p : NULL;
}
static const char *text_at(const struct node *n, const char *key)
{
    return n != NULL ? text_of(node_get(n, key)) : NULL;
}

static bool is(const char *text, const char *wanted) { return text != NULL && strcmp(text, wanted) == 0; }

static bool ends_in(const char *text, const char *end) { return text != NULL && str_ends(str_of(text), str_of(end)); }

static void write_node(struct strbuf *b, const struct node *n)
{
    switch (n->type) {
    case NODE_NULL: strbuf_addz(b, "null"); break;
    case NODE_BOOL: strbuf_addz(b, n->u.boolean ? "true" : "false"); break;
    case NODE_INT: strbuf_printf(b, "%lld", (long long)n->u.integer); break;
    case NODE_FLOAT: strbuf_printf(b, "%.17g", n->u.number); break;
    case NODE_STRING: strbuf_add_json(b, n->u.string); break;
    case NODE_LIST:
        strbuf_addc(b, '[');
        for (size_t i = 0; i < n->u.list.count; i++) {
            if (i > 0)
                strbuf_addc(b, ',');
            write_node(b, n->u.list.items[i]);
        }
        strbuf_addc(b, ']');
        break;
    case NODE_MAP:
        strbuf_addc(b, '{');
        for (size_t i = 0; i < n->u.map.count; i++) {
            if (i > 0)
                strbuf_addc(b, ',');
            strbuf_add_json(b, n->u.map.members[i].key);
            strbuf_addc(b, ':');
            write_node(b, n->u.map.members[i].value);
        }
        strbuf_addc(b, '}');
        break;
    }
}

static void add_member(struct strbuf *b, const char *name, const struct node *value)
{
    if (value == NULL)
        return;
    strbuf_printf(b, ",\"%s\":", name);
    write_node(b, value);
}
static void add_text(struct strbuf *b, const char *name, const char *text)
{
    if (text == NULL)
        return;
    strbuf_printf(b, ",\"%s\":", name);
    strbuf_add_json(b, str_of(text));
}

/* ---- finding Wasm ---- */

/* The Wasm filter's message in a typed_config, plain or in a TypedStruct; NULL: it is another filter's. */
static const struct node *wasm_message(const struct node *filter)
{
    const struct node *typed = get(filter, "typed_config", "typedConfig");
    const char *type = text_at(typed, "@type");
    if (ends_in(type, ".TypedStruct")) {
        const struct node *url = get(typed, "type_url", "typeUrl");
        return ends_in(text_of(url), "filters.http.wasm.v3.Wasm") ? node_get(typed, "value") : NULL;
    }
    return ends_in(type, "filters.http.wasm.v3.Wasm") ? typed : NULL;
}

static const struct node *patch_value(const struct node *patch) { return node_get(node_get(patch, "patch"), "value"); }

static const struct node *find_extension(const struct conversion *c, const char *name)
{
    for (size_t i = 0; name != NULL && i < c->patches->u.list.count; i++) {
        const struct node *p = c->patches->u.list.items[i];
        if (p->type == NODE_MAP && is(text_at(p, "applyTo"), "EXTENSION_CONFIG") &&
            is(text_at(patch_value(p), "name"), name))
            return patch_value(p);
    }
    return NULL;
}

/* The PluginConfig of a patch that puts a Wasm filter into the chain; NULL: it does not. */
static const struct node *plugin_of(const struct conversion *c, const struct node *patch)
{
    if (patch->type != NODE_MAP || !is(text_at(patch, "applyTo"), "HTTP_FILTER"))
        return NULL;
    const struct node *filter = patch_value(patch);
    if (filter != NULL && get(filter, "config_discovery", "configDiscovery") != NULL)
        filter = find_extension(c, text_at(filter, "name"));
    const struct node *message = filter != NULL ? wasm_message(filter) : NULL;
    return message != NULL ? node_get(message, "config") : NULL;
}

/* ---- the plugin's members ---- */

#define VALUE ".patch.value"

static void convert_url(struct conversion *c, struct strbuf *b, const struct node *config)
{
    const struct node *vm = get(config, "vm_config", "vmConfig"), *code = vm != NULL ? node_get(vm, "code") : NULL;
    const struct node *local = code != NULL ? node_get(code, "local") : NULL;
    const struct node *remote = code != NULL ? node_get(code, "remote") : NULL;
    const char *file = text_at(local, "filename");
    const struct node *http = remote != NULL ? get(remote, "http_uri", "httpUri") : NULL;
    if (file != NULL) {
        char *url = mem_printf("file://%s", file);
        add_text(b, "url", url);
        mem_free(url);
    } else if (text_at(http, "uri") != NULL) {
        add_text(b, "url", text_at(http, "uri"));
        add_text(b, "sha256", text_at(remote, "sha256"));
        c->cluster = text_at(http, "cluster");
    } else {
        say(c, DIAG_ERROR, code != NULL ? code : config, VALUE,
            "the module's code is neither local.filename nor remote.http_uri: Weir takes files and urls");
    }
}

static void convert_env(struct strbuf *b, const struct node *config)
{
    const struct node *vm = get(config, "vm_config", "vmConfig");
    const struct node *env = vm != NULL ? get(vm, "environment_variables", "environmentVariables") : NULL;
    const struct node *host = env != NULL ? get(env, "host_env_keys", "hostEnvKeys") : NULL;
    const struct node *pairs = env != NULL ? get(env, "key_values", "keyValues") : NULL;
    bool first = true;
    if (env == NULL)
        return;
    strbuf_addz(b, ",\"vmConfig\":{\"env\":[");
    for (size_t i = 0; host != NULL && host->type == NODE_LIST && i < host->u.list.count; i++) {
        strbuf_addz(b, first ? "{\"valueFrom\":\"HOST\",\"name\":" : ",{\"valueFrom\":\"HOST\",\"name\":");
        write_node(b, host->u.list.items[i]);
        strbuf_addc(b, '}');
        first = false;
    }
    for (size_t i = 0; pairs != NULL && pairs->type == NODE_MAP && i < pairs->u.map.count; i++) {
        strbuf_addz(b, first ? "{\"name\":" : ",{\"name\":");
        strbuf_add_json(b, pairs->u.map.members[i].key);
        add_member(b, "value", pairs->u.map.members[i].value);
        strbuf_addc(b, '}');
        first = false;
    }
    strbuf_addz(b, "]}");
}

/* A StringValue that holds a JSON object, or a Struct. */
static void convert_configuration(struct conversion *c, struct strbuf *b, const struct node *config)
{
    const struct node *given = node_get(config, "configuration");
    if (given == NULL)
        return;
    const struct node *value =
        given->type == NODE_MAP && node_get(given, "@type") != NULL ? node_get(given, "value") : given;
    const char *text = text_of(value);
    if (value == NULL || is(text, ""))
        return;
    if (text == NULL && value->type == NODE_MAP) {
        add_member(b, "pluginConfig", value);
        return;
    }
    struct ydoc doc = {0};
    struct str rest = str_of(text);
    size_t at = 0, line_start = 0;
    unsigned line = 1;
    doc.root = NULL;
    bool ok = text != NULL && json_text_read(&doc, c->memory, rest, &at, &line, &line_start) && at == rest.n &&
              doc.root != NULL && doc.root->type == NODE_MAP && doc.problem_count == 0;
    if (ok)
        add_member(b, "pluginConfig", doc.root);
    else
        say(c, DIAG_ERROR, value, VALUE, "configuration is no JSON object: pluginConfig cannot say it");
}

static void convert_failure(struct strbuf *b, const struct node *config)
{
    const struct node *open = get(config, "fail_open", "failOpen");
    const char *policy = text_of(get(config, "failure_policy", "failurePolicy"));
    if ((open != NULL && open->type == NODE_BOOL && open->u.boolean) || is(policy, "FAIL_OPEN"))
        add_text(b, "failStrategy", "FAIL_OPEN");
    else if (is(policy, "FAIL_RELOAD"))
        add_text(b, "failStrategy", "FAIL_RELOAD");
}

/* ---- where it applies ---- */

static void convert_phase(struct conversion *c, struct strbuf *b, const struct node *patch, const struct node *sub)
{
    const struct node *place = node_get(node_get(patch, "patch"), "operation");
    const char *operation = text_of(place), *beside = text_at(sub, "name");
    bool before = is(operation, "INSERT_BEFORE"), after = is(operation, "INSERT_AFTER");
    if (is(operation, "INSERT_FIRST")) {
        add_text(b, "phase", "AUTHN");
        say(c, DIAG_WARNING, place, ".patch.operation", "the first filter of all becomes one of phase AUTHN");
    } else if (!before && !after && !is(operation, "ADD")) {
        say(c, DIAG_ERROR, place != NULL ? place : patch, ".patch.operation",
            "\"%s\" of a Wasm filter has no equivalent: INSERT_BEFORE, INSERT_AFTER, INSERT_FIRST and ADD have",
            operation != NULL ? operation : "");
    } else if (before && ends_in(beside, "jwt_authn")) {
        add_text(b, "phase", "AUTHN");
    } else if ((before && ends_in(beside, "http.rbac")) || (after && ends_in(beside, "jwt_authn"))) {
        add_text(b, "phase", "AUTHZ");
    } else if (after && ends_in(beside, "http.rbac")) {
        add_text(b, "phase", "STATS");
    } else if (beside != NULL && !(before && ends_in(beside, "http.router"))) {
        say(c, DIAG_WARNING, sub, ".match.listener.filterChain.filter.subFilter",
            "Weir has no filter \"%s\": the plugin goes to the end of the chain", beside);
    }
}

static void refuse_match(struct conversion *c, const struct node *of, const char *member, const char *path)
{
    const struct node *n = of != NULL ? node_get(of, member) : NULL;
    if (n != NULL)
        say(c, DIAG_ERROR, n, path, "a WasmPlugin cannot be limited so: without it the filter would apply more widely");
}

static void convert_match(struct conversion *c, struct strbuf *b, const struct node *patch)
{
    const struct node *match = node_get(patch, "match"), *listener = match != NULL ? node_get(match, "listener") : NULL;
    const struct node *chain = listener != NULL ? node_get(listener, "filterChain") : NULL;
    const struct node *filter = chain != NULL ? node_get(chain, "filter") : NULL;
    const struct node *port = listener != NULL ? node_get(listener, "portNumber") : NULL;
    const char *context = text_at(match, "context");
    const char *mode = is(context, "GATEWAY") || is(context, "SIDECAR_OUTBOUND")   ? "CLIENT"
                       : is(context, "SIDECAR_INBOUND") || is(context, "WAYPOINT") ? "SERVER"
                                                                                   : NULL;
    refuse_match(c, match, "proxy", ".match.proxy");
    refuse_match(c, match, "routeConfiguration", ".match.routeConfiguration");
    refuse_match(c, match, "cluster", ".match.cluster");
    refuse_match(c, listener, "name", ".match.listener.name");
    refuse_match(c, listener, "listenerFilter", ".match.listener.listenerFilter");
    static const char *const of_chain[] = {"name", "sni", "transportProtocol", "applicationProtocols",
                                           "destinationPort"};
    for (size_t i = 0; i < ARRAY_LEN(of_chain); i++)
        refuse_match(c, chain, of_chain[i], ".match.listener.filterChain");
    convert_phase(c, b, patch, filter != NULL ? node_get(filter, "subFilter") : NULL);
    if (mode == NULL && port == NULL)
        return;
    strbuf_addz(b, ",\"match\":[{");
    if (mode != NULL)
        strbuf_printf(b, "\"mode\":\"%s\"%s", mode, port != NULL ? "," : "");
    if (port != NULL) {
        strbuf_addz(b, "\"ports\":[{\"number\":");
        write_node(b, port);
        strbuf_addz(b, "}]");
    }
    strbuf_addz(b, "}]");
}

static void convert_target(struct conversion *c, struct strbuf *b)
{
    const struct node *spec = node_get(c->root, "spec"), *selector = node_get(spec, "workloadSelector");
    const struct node *priority = node_get(spec, "priority");
    int64_t n = 0;
    if (selector != NULL && node_get(selector, "labels") != NULL) {
        strbuf_addz(b, ",\"selector\":{\"matchLabels\":");
        write_node(b, node_get(selector, "labels"));
        strbuf_addc(b, '}');
    }
    add_member(b, "targetRefs", node_get(spec, "targetRefs"));
    if (priority != NULL && node_integer(priority, &n) && n != 0 && n > INT32_MIN && n <= INT32_MAX) {
        strbuf_printf(b, ",\"priority\":%lld", (long long)-n); /* lower goes first there, higher here */
    }
}

/* ---- whole objects ---- */

static void write_meta(struct strbuf *b, const struct node *root, size_t number, bool alone)
{
    static const char *const kept[] = {"namespace", "labels",          "annotations", "creationTimestamp",
                                       "uid",       "resourceVersion", "generation"};
    const struct node *meta = node_get(root, "metadata");
    const char *name = text_at(meta, "name");
    char *own = alone || name == NULL ? NULL : mem_printf("%s-%02zu", name, number);
    strbuf_addz(b, "{\"apiVersion\":\"extensions.istio.io/v1alpha1\",\"kind\":\"WasmPlugin\",\"metadata\":{\"name\":");
    strbuf_add_json(b, str_of(own != NULL ? own : name != NULL ? name : ""));
    mem_free(own);
    for (size_t i = 0; meta != NULL && i < ARRAY_LEN(kept); i++)
        add_member(b, kept[i], node_get(meta, kept[i]));
    strbuf_addz(b, "},\"spec\":{");
}

static void set_place(struct node *n, const struct node *place)
{
    n->line = place->line;
    n->col = place->col;
    for (size_t i = 0; n->type == NODE_LIST && i < n->u.list.count; i++)
        set_place(n->u.list.items[i], place);
    for (size_t i = 0; n->type == NODE_MAP && i < n->u.map.count; i++) {
        n->u.map.members[i].line = place->line;
        n->u.map.members[i].col = place->col;
        set_place(n->u.map.members[i].value, place);
    }
}

static struct node *read_back(struct conversion *c, struct str json, const struct node *place)
{
    struct ydoc doc = {0};
    struct ydoc_stream *s = ydoc_open(json);
    enum ydoc_result result = ydoc_next(s, c->memory, &doc);
    ydoc_close(s);
    if (result != YDOC_DOCUMENT || doc.root == NULL)
        return NULL;
    set_place(doc.root, place);
    return doc.root;
}

static struct node *convert_patch(struct conversion *c, const struct node *patch, const struct node *config,
                                  size_t number, bool alone)
{
    struct strbuf json = {0}, spec = {0};
    write_meta(&json, c->root, number, alone);
    convert_url(c, &spec, config);
    add_text(&spec, "pluginName", text_of(get(config, "root_id", "rootId")));
    convert_configuration(c, &spec, config);
    convert_failure(&spec, config);
    convert_env(&spec, config);
    convert_match(c, &spec, patch);
    convert_target(c, &spec);
    const struct node *vm = get(config, "vm_config", "vmConfig");
    if (vm != NULL && text_of(get(vm, "vm_id", "vmId")) != NULL)
        say(c, DIAG_WARNING, vm, VALUE,
            "vm_id is not taken over: the annotation plugin.weir/vm-id of a WasmPlugin says the like");
    if (get(config, "capability_restriction_config", "capabilityRestrictionConfig") != NULL)
        say(c, DIAG_WARNING, config, VALUE, "capability_restriction_config has no equivalent");
    if (spec.n > 0)
        strbuf_add(&json, str_from(strbuf_str(&spec), 1)); /* each member has a comma in front */
    strbuf_addz(&json, "}}");
    struct node *plugin = read_back(c, strbuf_str(&json), patch);
    strbuf_free(&json);
    strbuf_free(&spec);
    return plugin;
}

/* Patches that are no Wasm filter: the other half of a pair, the cluster that modules come from, or refused. */
static void judge_other(struct conversion *c, const struct node *patch)
{
    const char *to = text_at(patch, "applyTo");
    const struct node *value = patch->type == NODE_MAP ? patch_value(patch) : NULL;
    if (is(to, "EXTENSION_CONFIG") && value != NULL && wasm_message(value) != NULL)
        return;
    if (is(to, "CLUSTER") && c->cluster != NULL && is(text_at(value, "name"), c->cluster)) {
        say(c, DIAG_WARNING, patch, "", "the cluster that the module is downloaded from is not needed");
        return;
    }
    say(c, DIAG_ERROR, patch, ".applyTo", "a patch to \"%s\" has no equivalent here: only Wasm HTTP filters have",
        to != NULL ? to : "");
}

void envoy_filter_read(struct conf_memory *memory, const struct node *root, const char *file, const char *title,
                       struct diag *diag, struct envoy_filter *out)
{
    struct conversion c = {.memory = memory, .root = root, .file = file, .title = title, .diag = diag};
    *out = (struct envoy_filter){0};
    const struct node *spec = node_get(root, "spec");
    c.patches = spec != NULL ? node_get(spec, "configPatches") : NULL;
    if (c.patches == NULL || c.patches->type != NODE_LIST)
        return;
    size_t found = 0;
    for (size_t i = 0; i < c.patches->u.list.count; i++)
        found += plugin_of(&c, c.patches->u.list.items[i]) != NULL;
    for (c.index = 0; found > 0 && c.index < c.patches->u.list.count; c.index++) {
        const struct node *patch = c.patches->u.list.items[c.index], *config = plugin_of(&c, patch);
        if (config == NULL)
            continue;
        struct node *plugin =
            out->count < ENVOY_FILTER_PLUGINS_MAX ? convert_patch(&c, patch, config, out->count, found == 1) : NULL;
        if (plugin != NULL)
            out->plugins[out->count++] = plugin;
        else
            say(&c, DIAG_ERROR, patch, "", "cannot be turned into a WasmPlugin");
    }
    for (c.index = 0; found > 0 && c.index < c.patches->u.list.count; c.index++)
        if (plugin_of(&c, c.patches->u.list.items[c.index]) == NULL)
            judge_other(&c, c.patches->u.list.items[c.index]);
}
