/* SPDX-License-Identifier: Apache-2.0
 *
 * WasmPlugin and TrafficExtension (extensions.istio.io/v1alpha1): one struct for both. The rules are those of Istio's
 * CRDs and webhook, in their words, but for two kindnesses: host:port/image without a scheme is an image, and a
 * priority that would stop istiod from reading every other plugin is refused in the one object that has it.
 */
#include "conf/kinds.h"
#include "conf/number.h"
#include "conf/plugin_config.h"

struct raw_plugin {
    struct wasm_plugin p;
    struct target_ref *target;
    bool has_target, has_targets, has_wasm, has_lua;
    const struct node *config;
    enum { TYPE_UNSPECIFIED, TYPE_HTTP, TYPE_NETWORK } type;
    char *sha256;
};

/* ---- selector, targetRefs ---- */

static void finish_selector(struct reader *r, const struct node *n, const struct path *path, void *raw, void *out)
{
    (void)raw, (void)out;
    struct path labels_path = {.up = path, .type = PATH_FIELD, .name = STR("matchLabels")};
    const struct node *labels = node_get(n, "matchLabels");
    if (labels == NULL || labels->type != NODE_MAP || labels->u.map.count == 0) {
        schema_warn(r, n, path, "workload selector specified without labels");
        return;
    }
    for (size_t i = 0; i < labels->u.map.count; i++) {
        const struct member *m = &labels->u.map.members[i];
        struct path at = {.up = &labels_path, .type = PATH_KEY, .name = m->key};
        if (m->key.n == 0)
            schema_invalid(r, m->value, &at, "key must not be empty");
        if (str_find(m->key, '*') >= 0)
            schema_invalid(r, m->value, &at, "wildcard not allowed in label key match");
        if (m->value->type != NODE_STRING)
            continue;
        if (str_find(m->value->u.string, '*') >= 0)
            schema_invalid(r, m->value, &at, "wildcard not allowed in label value match");
        else if (m->value->u.string.n > 63)
            schema_error(r, m->value, &at, "Too long: may not be more than 63 bytes");
    }
}

static const struct field selector_fields[] = {
    {.name = "matchLabels", .type = FIELD_LABELS, .at = offsetof(struct labels, list)},
};
static const struct schema selector_schema = {FIELDS(selector_fields), .finish = finish_selector};

struct raw_target {
    char *group, *kind, *name, *ns;
};

static const struct {
    const char *group, *kind;
    bool gateway;
} target_kinds[] = {
    {"gateway.networking.k8s.io", "Gateway", true},
    {"", "Service", false},
    {"networking.istio.io", "ServiceEntry", false},
    {"gateway.networking.k8s.io", "GatewayClass", false},
};

static void finish_target(struct reader *r, const struct node *n, const struct path *path, void *raw, void *out)
{
    const struct raw_target *t = raw;
    struct target_ref *ref = out;
    ref->group = t->group != NULL ? t->group : memory_str(r->memory, STR(""));
    if (strcmp(ref->group, "core") == 0)
        ref->group = memory_str(r->memory, STR(""));
    ref->kind = t->kind;
    ref->name = t->name;
    if (t->ns != NULL && t->ns[0] != '\0') {
        struct path at = {.up = path, .type = PATH_FIELD, .name = STR("namespace")};
        schema_invalid(r, schema_place(n, "namespace"), &at, "cross namespace referencing is not currently supported");
    }
    if (t->kind == NULL)
        return;
    for (size_t i = 0; i < ARRAY_LEN(target_kinds); i++) {
        if (strcmp(ref->group, target_kinds[i].group) != 0 || strcmp(ref->kind, target_kinds[i].kind) != 0)
            continue;
        if (!target_kinds[i].gateway)
            schema_warn(r, n, path, "a target of kind %s is for waypoints: it never applies on a gateway", ref->kind);
        return;
    }
    schema_invalid(
        r, n, path,
        "targetRef must be to one of [Gateway.gateway.networking.k8s.io Service ServiceEntry.networking.istio.io "
        "GatewayClass.gateway.networking.k8s.io] but was %s/%s",
        ref->group, ref->kind);
}

static const struct field target_fields[] = {
    {.name = "group", .type = FIELD_STRING, .at = offsetof(struct raw_target, group), .format = &format_group},
    {.name = "kind",
     .type = FIELD_STRING,
     .required = true,
     .at = offsetof(struct raw_target, kind),
     .min = 1,
     .max = 63,
     .format = &format_kind},
    {.name = "name",
     .type = FIELD_STRING,
     .required = true,
     .at = offsetof(struct raw_target, name),
     .min = 1,
     .max = 253},
    {.name = "namespace", .type = FIELD_STRING, .at = offsetof(struct raw_target, ns)},
};
static const struct schema target_schema = {FIELDS(target_fields), .size = sizeof(struct target_ref),
                                            .raw_size = sizeof(struct raw_target), .finish = finish_target,
                                            .line = HAS(struct target_ref, line)};

/* ---- match ---- */

static void finish_match(struct reader *r, const struct node *n, const struct path *path, void *raw, void *out)
{
    (void)raw;
    const struct traffic_match *m = out;
    if (m->mode == MODE_SERVER) {
        struct path at = {.up = path, .type = PATH_FIELD, .name = STR("mode")};
        schema_warn(r, schema_place(n, "mode"), &at, "mode SERVER never applies on a gateway; use CLIENT");
    }
}

static const struct field port_fields[] = {
    {.name = "number", .type = FIELD_INT, .required = true, .width = 2, .at = 0, .min = 1, .max = 65535},
};
static const struct schema port_schema = {FIELDS(port_fields), .size = sizeof(uint16_t)};

static const char *const mode_names[] = {"UNDEFINED", "CLIENT", "SERVER", "CLIENT_AND_SERVER", NULL};
static const struct field match_fields[] = {
    {.name = "mode", .type = FIELD_ENUM, .at = offsetof(struct traffic_match, mode), .names = mode_names},
    {.name = "ports",
     .type = FIELD_OBJECTS,
     .at = offsetof(struct traffic_match, ports),
     .count_at = offsetof(struct traffic_match, port_count),
     .schema = &port_schema,
     .unique = "number"},
};
static const struct schema match_schema = {FIELDS(match_fields), .size = sizeof(struct traffic_match),
                                           .finish = finish_match};

/* ---- vmConfig ---- */

struct raw_env {
    char *name, *value;
    bool has_value;
    enum { FROM_INLINE, FROM_HOST } from;
};

static void finish_env(struct reader *r, const struct node *n, const struct path *path, void *raw, void *out)
{
    const struct raw_env *e = raw;
    struct env_var *var = out;
    var->name = e->name;
    var->value = e->value != NULL ? e->value : memory_str(r->memory, STR(""));
    var->from_host = e->from == FROM_HOST;
    if (var->from_host && e->has_value)
        schema_error(r, n, path, "Invalid value: value may only be set when valueFrom is INLINE");
}

static const char *const from_names[] = {"INLINE", "HOST", NULL};
static const struct field env_fields[] = {
    {.name = "name",
     .type = FIELD_STRING,
     .required = true,
     .at = offsetof(struct raw_env, name),
     .min = 1,
     .max = 256},
    {.name = "value",
     .type = FIELD_STRING,
     .at = offsetof(struct raw_env, value),
     .has = HAS(struct raw_env, has_value),
     .max = 2048},
    {.name = "valueFrom", .type = FIELD_ENUM, .at = offsetof(struct raw_env, from), .names = from_names},
};
static const struct schema env_schema = {FIELDS(env_fields), .size = sizeof(struct env_var),
                                         .raw_size = sizeof(struct raw_env), .finish = finish_env};

/* istio-agent takes every ISTIO_META_ variable out before Envoy sees it, so a filter never gets one. */
static void finish_vm(struct reader *r, const struct node *n, const struct path *path, void *raw, void *out)
{
    (void)out;
    struct wasm_plugin *p = raw;
    struct path list = {.up = path, .type = PATH_FIELD, .name = STR("env")};
    const struct node *nodes = node_get(n, "env");
    size_t kept = 0;
    for (size_t i = 0; i < p->env_count; i++) {
        if (p->env[i].name != NULL && str_starts(str_of(p->env[i].name), STR("ISTIO_META_"))) {
            struct path at = {.up = &list, .type = PATH_INDEX, .index = i};
            schema_warn(r, nodes->u.list.items[i], &at,
                        "variables named ISTIO_META_* are Istio's own and do not reach the plugin");
            continue;
        }
        p->env[kept++] = p->env[i];
    }
    p->env_count = kept;
}

static const struct field vm_fields[] = {
    {.name = "env",
     .type = FIELD_OBJECTS,
     .at = offsetof(struct wasm_plugin, env),
     .count_at = offsetof(struct wasm_plugin, env_count),
     .max_items = 256,
     .schema = &env_schema,
     .unique = "name"},
};
static const struct schema vm_schema = {FIELDS(vm_fields), .finish = finish_vm};

/* ---- url ---- */

static bool scheme_of(struct str word, enum url_scheme *out)
{
    static const struct {
        struct str name;
        enum url_scheme scheme;
    } schemes[] = {{STR_INIT("file"), URL_FILE},
                   {STR_INIT("http"), URL_HTTP},
                   {STR_INIT("https"), URL_HTTPS},
                   {STR_INIT("oci"), URL_OCI}};
    for (size_t i = 0; i < ARRAY_LEN(schemes); i++) {
        if (str_ieq(word, schemes[i].name)) {
            *out = schemes[i].scheme;
            return true;
        }
    }
    return false;
}

static void check_url(struct reader *r, const struct node *n, const struct path *path, struct wasm_plugin *p)
{
    struct path at = {.up = path, .type = PATH_FIELD, .name = STR("url")};
    const struct node *place = schema_place(n, "url");
    if (p->url == NULL)
        return;
    struct str url = str_of(p->url), rest = url;
    ptrdiff_t colon = str_find(url, ':');
    struct str word = colon > 0 ? str_upto(url, (size_t)colon) : STR_NONE;
    bool slashes = colon > 0 && str_starts(str_from(url, (size_t)colon), STR("://"));
    p->scheme = URL_OCI;
    if (scheme_of(word, &p->scheme) ? !slashes : slashes) {
        schema_invalid(r, place, &at, "url must have schema one of [http, https, file, oci]");
        return;
    }
    if (slashes)
        rest = str_from(url, (size_t)colon + 3);
    for (size_t i = 0; i < rest.n; i++) {
        if ((unsigned char)rest.p[i] < 0x20 || rest.p[i] == 0x7f || (rest.p[i] == ' ' && p->scheme != URL_FILE)) {
            schema_invalid(r, place, &at, "url must not hold spaces or control characters");
            return;
        }
    }
    bool web = p->scheme == URL_HTTP || p->scheme == URL_HTTPS;
    if (rest.n == 0 || (web && (rest.p[0] == '/' || rest.p[0] == ':' || rest.p[0] == '?')))
        schema_invalid(r, place, &at, "url must name %s",
                       web                     ? "a host"
                       : p->scheme == URL_FILE ? "a file"
                                               : "an image");
    else if (!slashes && (rest.p[0] == '/' || rest.p[0] == '.'))
        schema_warn(r, place, &at, "a url without a scheme is an image: this means oci://%s; a file is file://%s",
                    p->url, p->url);
    else if (p->scheme == URL_OCI && rest.p[0] == '/')
        schema_warn(r, place, &at, "an image's name begins with its registry or repository: is file://%.*s meant?",
                    STR_ARG(rest));
}

/* ---- annotations ---- */

enum annotation_type { ANNOTATION_MS, ANNOTATION_SECONDS, ANNOTATION_BYTES, ANNOTATION_WORD, ANNOTATION_TEXT };
struct annotation {
    const char *name;
    enum annotation_type type;
    size_t at;
    int64_t min, max;     /* MS, SECONDS (also in ms), BYTES */
    const char *words[4]; /* WORD: index is the value */
    const char *must;
};
static const struct annotation annotations[] = {
    {"plugin.weir/cpu-deadline",
     ANNOTATION_MS,
     offsetof(struct wasm_plugin, cpu_deadline_ms),
     1,
     60 * 1000,
     {NULL},
     "must be a duration from 1ms to 1m, such as \"50ms\""},
    {"plugin.weir/start-deadline",
     ANNOTATION_MS,
     offsetof(struct wasm_plugin, start_deadline_ms),
     1,
     600 * 1000,
     {NULL},
     "must be a duration from 1ms to 10m, such as \"10s\""},
    {"plugin.weir/pause-limit",
     ANNOTATION_MS,
     offsetof(struct wasm_plugin, pause_limit_ms),
     100,
     3600 * 1000,
     {NULL},
     "must be a duration from 100ms to 1h, such as \"30s\""},
    {"plugin.weir/recheck-interval",
     ANNOTATION_SECONDS,
     offsetof(struct wasm_plugin, recheck_ms),
     1000,
     30ll * 24 * 3600 * 1000,
     {NULL},
     "must be seconds or a duration from 1s to 720h, such as \"60\" or \"5m\""},
    {"plugin.weir/memory-limit",
     ANNOTATION_BYTES,
     offsetof(struct wasm_plugin, memory_limit),
     64 * 1024,
     4ll * 1024 * 1024 * 1024,
     {NULL},
     "must be a size from 64Ki to 4Gi, such as \"64Mi\""},
    {"plugin.weir/utf8",
     ANNOTATION_WORD,
     offsetof(struct wasm_plugin, utf8),
     0,
     0,
     {"reject", "escape", "pass", NULL},
     "must be \"reject\", \"escape\" or \"pass\""},
    {"plugin.weir/on-headers-pause",
     ANNOTATION_WORD,
     offsetof(struct wasm_plugin, pause_headers),
     0,
     0,
     {"all", "headers", NULL},
     "must be \"all\" or \"headers\""},
    {"plugin.weir/vm-id",
     ANNOTATION_TEXT,
     offsetof(struct wasm_plugin, vm_id),
     1,
     253,
     {NULL},
     "must be 1 to 253 bytes of printable text"},
};

static bool annotation_read(struct reader *r, const struct annotation *a, struct str value, char *base)
{
    void *at = base + a->at;
    int64_t ms;
    uint64_t bytes;
    switch (a->type) {
    case ANNOTATION_SECONDS:
        if (str_to_u64(value, (uint64_t)a->max / 1000, &bytes)) {
            *(int64_t *)at = (int64_t)bytes * 1000;
            return *(int64_t *)at >= a->min;
        }
        __attribute__((fallthrough));
    case ANNOTATION_MS:
        if (!number_parse_duration(value, &ms) || ms < a->min || ms > a->max)
            return false;
        *(int64_t *)at = ms;
        return true;
    case ANNOTATION_BYTES:
        if (!number_parse_bytes(value, &bytes) || bytes < (uint64_t)a->min || bytes > (uint64_t)a->max)
            return false;
        *(int64_t *)at = (int64_t)bytes;
        return true;
    case ANNOTATION_WORD:
        for (int i = 0; a->words[i] != NULL; i++) {
            if (str_is(value, a->words[i])) {
                *(int *)at = i;
                return true;
            }
        }
        return false;
    case ANNOTATION_TEXT:
        for (size_t i = 0; i < value.n; i++) {
            if ((unsigned char)value.p[i] < 0x20 || value.p[i] == 0x7f)
                return false;
        }
        if (value.n < (size_t)a->min || value.n > (size_t)a->max)
            return false;
        *(char **)at = memory_str(r->memory, value);
        return true;
    }
    return false;
}

static void read_annotations(struct reader *r, struct wasm_plugin *p)
{
    p->cpu_deadline_ms = p->start_deadline_ms = p->memory_limit = p->pause_limit_ms = p->recheck_ms = -1;
    p->utf8 = p->pause_headers = -1;
    struct path metadata = {.type = PATH_FIELD, .name = STR("metadata")};
    struct path list = {.up = &metadata, .type = PATH_FIELD, .name = STR("annotations")};
    const struct node *nodes = node_get(node_get(r->root, "metadata"), "annotations");
    for (size_t i = 0; i < r->meta->annotations.count; i++) {
        struct str name = str_of(r->meta->annotations.list[i].key);
        if (!str_starts(name, STR("plugin.weir/")))
            continue;
        struct path at = {.up = &list, .type = PATH_KEY, .name = name};
        const struct node *place = node_member(nodes, name)->value;
        const struct annotation *known = NULL;
        for (size_t k = 0; k < ARRAY_LEN(annotations); k++) {
            if (str_is(name, annotations[k].name))
                known = &annotations[k];
        }
        if (known == NULL)
            schema_warn(r, place, &at, "unknown annotation: it has no effect");
        else if (!annotation_read(r, known, str_of(r->meta->annotations.list[i].value), (char *)p))
            schema_invalid(r, place, &at, "%s", known->must);
    }
}

/* ---- spec ---- */

static void finish_wasm(struct reader *r, const struct node *n, const struct path *path, void *raw, void *out)
{
    (void)out;
    struct raw_plugin *w = raw;
    struct wasm_plugin *p = &w->p;
    check_url(r, n, path, p);
    if (w->sha256 != NULL && w->sha256[0] != '\0')
        p->sha256 = w->sha256;
    if (p->plugin_name == NULL)
        p->plugin_name = memory_str(r->memory, STR(""));
    p->type = w->type == TYPE_NETWORK ? PLUGIN_NETWORK : PLUGIN_HTTP;
    if (w->type == TYPE_NETWORK) {
        struct path at = {.up = path, .type = PATH_FIELD, .name = STR("type")};
        schema_warn(r, schema_place(n, "type"), &at, "type NETWORK is not supported yet: this plugin is not applied");
    }
    if (w->config != NULL && w->config->u.map.count != 0) {
        struct strbuf b = {0};
        node_write_json(w->config, true, &b);
        p->config = memory_str(r->memory, strbuf_str(&b));
        p->config_bytes = b.n;
        strbuf_free(&b);
    }
}

static void finish_targeting(struct reader *r, const struct node *n, const struct path *path, struct raw_plugin *w)
{
    if (w->p.has_selector + w->has_target + w->has_targets > 1)
        schema_error(r, n, path, "Invalid value: only one of targetRefs or selector can be set");
    if (w->p.target_count == 0 && w->target != NULL) {
        w->p.targets = w->target;
        w->p.target_count = 1;
    }
    read_annotations(r, &w->p);
}

static void finish_plugin_spec(struct reader *r, const struct node *n, const struct path *path, void *raw, void *out)
{
    struct raw_plugin *w = raw;
    finish_wasm(r, n, path, raw, out);
    finish_targeting(r, n, path, w);
    *(struct wasm_plugin *)out = w->p;
}

static void finish_extension_spec(struct reader *r, const struct node *n, const struct path *path, void *raw, void *out)
{
    struct raw_plugin *w = raw;
    if (w->has_wasm == w->has_lua) {
        schema_error(r, n, path, "Invalid value: exactly one of wasm or lua must be set");
    } else if (w->has_lua) {
        struct path at = {.up = path, .type = PATH_FIELD, .name = STR("lua")};
        schema_error(r, schema_place(n, "lua"), &at, "Lua extensions are not supported yet");
    }
    finish_targeting(r, n, path, w);
    *(struct wasm_plugin *)out = w->p;
}

#define P(member) offsetof(struct raw_plugin, p.member)
static const char *const pull_names[] = {"UNSPECIFIED_POLICY", "IfNotPresent", "Always", NULL};
static const char *const fail_names[] = {"FAIL_CLOSE", "FAIL_OPEN", "FAIL_RELOAD", NULL};
static const char *const type_names[] = {"UNSPECIFIED_PLUGIN_TYPE", "HTTP", "NETWORK", NULL};
static const char *const plugin_phase_names[] = {"UNSPECIFIED_PHASE", "AUTHN", "AUTHZ", "STATS", NULL};
static const char *const extension_phase_names[] = {"UNSPECIFIED", "AUTHN", "AUTHZ", "STATS", NULL};

#define WASM_FIELDS                                                                                                    \
    {.name = "url", .type = FIELD_STRING, .required = true, .at = P(url), .min = 1, .max = 16384},                     \
        {.name = "sha256", .type = FIELD_STRING, .at = offsetof(struct raw_plugin, sha256), .format = &format_sha256}, \
        {.name = "imagePullPolicy", .type = FIELD_ENUM, .at = P(pull_policy), .names = pull_names},                    \
        {.name = "imagePullSecret", .type = FIELD_STRING, .at = P(pull_secret), .min = 1, .max = 253},                 \
        {.name = "verificationKey", .type = FIELD_STRING, .at = P(verification_key)},                                  \
        {.name = "pluginConfig",                                                                                       \
         .type = FIELD_NODE,                                                                                           \
         .at = offsetof(struct raw_plugin, config),                                                                    \
         .node_type = NODE_MAP},                                                                                       \
        {.name = "pluginName", .type = FIELD_STRING, .at = P(plugin_name), .min = 1, .max = 256},                      \
        {.name = "failStrategy", .type = FIELD_ENUM, .at = P(fail), .names = fail_names},                              \
        {.name = "vmConfig", .type = FIELD_OBJECT, .at = offsetof(struct raw_plugin, p), .schema = &vm_schema},        \
    {                                                                                                                  \
        .name = "type", .type = FIELD_ENUM, .at = offsetof(struct raw_plugin, type), .names = type_names               \
    }

#define TARGETING_FIELDS(phase_names)                                                                                  \
    {.name = "selector",                                                                                               \
     .type = FIELD_OBJECT,                                                                                             \
     .at = P(selector),                                                                                                \
     .has = HAS(struct raw_plugin, p.has_selector),                                                                    \
     .schema = &selector_schema},                                                                                      \
        {.name = "targetRefs",                                                                                         \
         .type = FIELD_OBJECTS,                                                                                        \
         .at = P(targets),                                                                                             \
         .count_at = P(target_count),                                                                                  \
         .has = HAS(struct raw_plugin, has_targets),                                                                   \
         .max_items = 16,                                                                                              \
         .schema = &target_schema},                                                                                    \
        {.name = "phase", .type = FIELD_ENUM, .at = P(phase), .names = phase_names},                                   \
        {.name = "priority",                                                                                           \
         .type = FIELD_INT,                                                                                            \
         .width = 4,                                                                                                   \
         .at = P(priority),                                                                                            \
         .has = HAS(struct raw_plugin, p.has_priority),                                                                \
         .min = INT32_MIN,                                                                                             \
         .max = INT32_MAX},                                                                                            \
    {                                                                                                                  \
        .name = "match", .type = FIELD_OBJECTS, .at = P(matches), .count_at = P(match_count), .schema = &match_schema  \
    }

static const struct field plugin_spec_fields[] = {
    WASM_FIELDS,
    TARGETING_FIELDS(plugin_phase_names),
    {.name = "targetRef",
     .type = FIELD_POINTER,
     .at = offsetof(struct raw_plugin, target),
     .has = HAS(struct raw_plugin, has_target),
     .schema = &target_schema},
};
static const struct schema plugin_spec_schema = {FIELDS(plugin_spec_fields), .raw_size = sizeof(struct raw_plugin),
                                                 .finish = finish_plugin_spec};

static const struct field wasm_fields[] = {WASM_FIELDS};
static const struct schema wasm_schema = {FIELDS(wasm_fields), .finish = finish_wasm};
static const struct field extension_spec_fields[] = {
    TARGETING_FIELDS(extension_phase_names),
    {.name = "wasm", .type = FIELD_OBJECT, .at = 0, .has = HAS(struct raw_plugin, has_wasm), .schema = &wasm_schema},
    {.name = "lua", .type = FIELD_IGNORED, .has = HAS(struct raw_plugin, has_lua)},
};
static const struct schema extension_spec_schema = {
    FIELDS(extension_spec_fields), .raw_size = sizeof(struct raw_plugin), .finish = finish_extension_spec};

static const struct field plugin_fields[] = {
    ROOT_FIELDS,
    {.name = "spec", .type = FIELD_OBJECT, .required = true, .at = 0, .schema = &plugin_spec_schema},
};
static const struct schema plugin_schema = {FIELDS(plugin_fields)};
static const struct field extension_fields[] = {
    ROOT_FIELDS,
    {.name = "spec", .type = FIELD_OBJECT, .required = true, .at = 0, .schema = &extension_spec_schema},
};
static const struct schema extension_schema = {FIELDS(extension_fields)};

const struct kind_reader kind_wasm_plugin = {{"v1alpha1"}, &plugin_schema, &format_subdomain};
const struct kind_reader kind_traffic_extension = {{"v1alpha1"}, &extension_schema, &format_subdomain};
