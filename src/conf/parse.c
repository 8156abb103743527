/* SPDX-License-Identifier: Apache-2.0
 *
 * Text to documents to resources. The unit of failure is the object: a document in error names, as far as it can, the
 * object it would have been, and does not touch the others. Kinds that others read (Deployments beside our resources in
 * one file are usual) are passed over with a warning; a misspelt kind of ours is an error.
 */
#include "conf/digest.h"
#include "conf/envoy_filter.h"
#include "conf/kinds.h"
#include "conf/plugin_config.h"
#include "conf/resource.h"

enum { NAME_SHOWN = 253 };

struct parse {
    const char *file, *default_ns;
    struct documents *out;
    size_t cap;
    struct conf_memory *scratch;
    bool whole; /* resources keep their JSON */
};

/* Groups whose kinds are Kubernetes', Istio's or Gateway API's, with the kinds that Weir knows of but does not read. In
 * these, a kind that is not listed is a mistake; in all other groups it is somebody else's. */
static const struct {
    const char *group;
    const char *kinds;
} others[] = {
    {"",
     " Binding ComponentStatus Endpoints Event LimitRange Node PersistentVolume PersistentVolumeClaim Pod PodTemplate "
     "ReplicationController ResourceQuota ServiceAccount "},
    {"gateway.networking.k8s.io",
     " GRPCRoute TLSRoute TCPRoute UDPRoute BackendTLSPolicy BackendLBPolicy ListenerSet "},
    {"extensions.istio.io", " "},
    {"networking.istio.io", " Gateway VirtualService DestinationRule Sidecar WorkloadEntry WorkloadGroup "
                            "ProxyConfig "},
    {"discovery.k8s.io", " "},
};

static struct document *add_document(struct parse *p, const struct node *n)
{
    struct documents *out = p->out;
    if (out->count == p->cap) {
        p->cap = p->cap == 0 ? 8 : p->cap * 2;
        out->list = mem_realloc(out->list, p->cap * sizeof *out->list);
    }
    struct document *d = &out->list[out->count++];
    *d = (struct document){.kind = -1, .line = n->line};
    return d;
}

/* A string without NUL, else NULL. */
static const char *text_of(const struct node *n)
{
    if (n == NULL || n->type != NODE_STRING ||
        memchr(n->u.string.p, '\0', n->u.string.n + 1) != n->u.string.p + n->u.string.n)
        return NULL;
    return n->u.string.p;
}

static char *make_title(const char *kind, const char *ns, const char *name)
{
    struct strbuf b = {0};
    strbuf_add_escaped(&b, str_upto(str_of(kind), strnlen(kind, NAME_SHOWN)));
    if (name != NULL && name[0] != '\0') {
        strbuf_addc(&b, ' ');
        if (ns != NULL && ns[0] != '\0') {
            strbuf_add_escaped(&b, str_upto(str_of(ns), strnlen(ns, NAME_SHOWN)));
            strbuf_addc(&b, '/');
        }
        strbuf_add_escaped(&b, str_upto(str_of(name), strnlen(name, NAME_SHOWN)));
    }
    return strbuf_take(&b);
}

static int find_kind(const char *kind, struct str group)
{
    for (int k = 0; k < KIND_COUNT; k++) {
        if (strcmp(kind, kind_name((enum kind)k)) == 0 && str_is(group, kind_group((enum kind)k)))
            return k;
    }
    return -1;
}

static bool reads_version(enum kind kind, struct str version)
{
    const char *const *versions = kind_reader_of(kind)->versions;
    for (size_t i = 0; versions[i] != NULL; i++) {
        if (str_is(version, versions[i]))
            return true;
    }
    return false;
}

/* Somebody else's kind, as opposed to a mistake. */
static bool is_foreign(const char *kind, struct str group)
{
    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        if (!str_is(group, others[i].group))
            continue;
        struct str rest = str_of(others[i].kinds);
        while (rest.p != NULL) {
            struct str word = str_split(&rest, ' ');
            if (word.n != 0 && str_is(word, kind))
                return true;
        }
        return false;
    }
    return true;
}

static void sort_entries(struct diag *d)
{
    for (size_t i = 1; i < d->count; i++) {
        struct diag_entry e = d->entries[i];
        size_t k = i;
        for (; k > 0; k--) {
            const struct diag_entry *before = &d->entries[k - 1];
            if (before->line < e.line || (before->line == e.line && before->col <= e.col))
                break;
            d->entries[k] = d->entries[k - 1];
        }
        d->entries[k] = e;
    }
}

static void build_resource(struct parse *p, struct document *d, const struct node *n, const char *api_version)
{
    const struct kind_reader *kind = kind_reader_of((enum kind)d->kind);
    struct conf_memory *memory = memory_new();
    struct resource *res = memory_alloc(memory, sizeof *res);
    res->memory = memory;
    atomic_init(&res->refs, 1);
    res->meta.kind = (enum kind)d->kind;
    res->meta.api_version = memory_str(memory, str_of(api_version));
    res->meta.file = p->file != NULL ? memory_str(memory, str_of(p->file)) : NULL;
    res->meta.line = n->line;
    struct reader r = {.memory = memory,
                       .scratch = p->scratch,
                       .diag = &d->diag,
                       .file = p->file,
                       .title = d->title,
                       .root = n,
                       .meta = &res->meta,
                       .hide_values = d->kind == KIND_SECRET};
    meta_read(&r, n, kind, p->default_ns);
    schema_read(&r, kind->schema, n, NULL, &res->u);
    if (p->whole) {
        struct strbuf b = {0};
        node_write_json(n, false, &b);
        res->json = memory_str(memory, strbuf_str(&b));
        strbuf_free(&b);
    }
    if (d->diag.errors == 0)
        digest_object(p->scratch, n, res->meta.ns, res->meta.digest);
    d->resource = res;
}

static void read_object(struct parse *p, const struct node *n);

static void read_items(struct parse *p, const struct node *items)
{
    for (size_t i = 0; i < items->u.list.count; i++)
        read_object(p, items->u.list.items[i]);
}

/* kind and apiVersion, or a document that says what is wrong with them. */
static bool read_type(struct parse *p, const struct node *n, const char **kind, const char **api_version)
{
    static const char *const names[] = {"apiVersion", "kind"};
    const char **out[] = {api_version, kind};
    struct diag wrong = {0};
    for (size_t i = 0; i < ARRAY_LEN(names) && n->type == NODE_MAP; i++) {
        const struct node *value = node_get(n, names[i]);
        *out[i] = text_of(value);
        if (value == NULL || (*out[i] != NULL && (*out[i])[0] == '\0'))
            diag_add(&wrong, DIAG_ERROR, p->file, n->line, n->col, names[i], "Required value");
        else if (*out[i] == NULL)
            diag_add(&wrong, DIAG_ERROR, p->file, value->line, value->col, names[i],
                     "Invalid value: \"%s\": %s in body must be of type string: \"%s\"", node_type_name(value),
                     names[i], node_type_name(value));
    }
    if (n->type != NODE_MAP)
        diag_add(&wrong, DIAG_ERROR, p->file, n->line, n->col, NULL,
                 "an object with apiVersion and kind is expected here, not a value of type %s", node_type_name(n));
    if (wrong.errors == 0)
        return true;
    struct document *d = add_document(p, n);
    d->diag = wrong;
    return false;
}

static void pass_over(struct parse *p, const struct node *n, const char *title, const char *api_version)
{
    p->out->ignored++;
    diag_add(&p->out->syntax, DIAG_WARNING, p->file, n->line, n->col, title,
             "Weir does not read this kind (%.*s): ignored", (int)strnlen(api_version, NAME_SHOWN), api_version);
}

/* One EnvoyFilter with several Wasm filters is several plugins. What is wrong with it is wrong with each. */
static void read_envoy_filter(struct parse *p, const struct node *n, const char *title, const char *api_version)
{
    struct envoy_filter found;
    struct diag diag = {0};
    envoy_filter_read(p->scratch, n, p->file, title, &diag, &found);
    if (found.count == 0)
        pass_over(p, n, title, api_version);
    for (size_t i = 0; i < found.count; i++) {
        const struct node *plugin = found.plugins[i], *metadata = node_get(plugin, "metadata");
        const char *name = text_of(node_get(metadata, "name")), *ns = text_of(node_get(metadata, "namespace"));
        struct document *d = add_document(p, plugin);
        d->kind = KIND_WASM_PLUGIN;
        d->ns = mem_strdup(ns != NULL && ns[0] != '\0' ? ns : p->default_ns);
        d->name = name != NULL ? mem_strdup(name) : NULL;
        d->title = mem_strdup(title);
        diag_append(&d->diag, &diag);
        build_resource(p, d, plugin, "extensions.istio.io/v1alpha1");
    }
    diag_free(&diag);
}

static void read_object(struct parse *p, const struct node *n)
{
    const char *kind = NULL, *api_version = NULL;
    if (!read_type(p, n, &kind, &api_version))
        return;
    struct str kind_text = str_of(kind), group = STR_NONE, version = str_of(api_version);
    ptrdiff_t slash = str_find(version, '/');
    if (slash >= 0) {
        group = str_upto(version, (size_t)slash);
        version = str_from(version, (size_t)slash + 1);
    }
    const struct node *items = node_get(n, "items");
    if (str_ends(kind_text, STR("List")) && items != NULL && items->type == NODE_LIST) {
        read_items(p, items);
        return;
    }
    const struct node *metadata = node_get(n, "metadata");
    const char *name = text_of(node_get(metadata, "name")), *ns = text_of(node_get(metadata, "namespace"));
    int known = find_kind(kind, group);
    if (known >= 0 && !kind_is_namespaced((enum kind)known))
        ns = NULL;
    else if (known >= 0 && (ns == NULL || ns[0] == '\0'))
        ns = p->default_ns;
    char *title = make_title(kind, ns, name);
    if (known < 0 && strcmp(kind, "EnvoyFilter") == 0 && str_is(group, "networking.istio.io")) {
        read_envoy_filter(p, n, title, api_version);
        mem_free(title);
        return;
    }
    if (known < 0 && is_foreign(kind, group)) {
        pass_over(p, n, title, api_version);
        mem_free(title);
        return;
    }
    struct document *d = add_document(p, n);
    d->title = title;
    d->ns = mem_strdup(ns != NULL ? ns : "");
    d->name = name != NULL ? mem_strdup(name) : NULL;
    d->kind = known;
    if (known < 0 || !reads_version((enum kind)known, version)) {
        const struct node *place = schema_place(n, "apiVersion");
        diag_add(&d->diag, DIAG_ERROR, p->file, place->line, place->col, title,
                 "no matches for kind \"%.*s\" in version \"%.*s\"", (int)strnlen(kind, NAME_SHOWN), kind,
                 (int)strnlen(api_version, NAME_SHOWN), api_version);
        return;
    }
    build_resource(p, d, n, api_version);
}

/* Duplicate keys and the like belong to the object they stand in: of a List, the last one that begins before them. */
static void add_problems(struct parse *p, const struct ydoc *y, size_t first)
{
    struct documents *out = p->out;
    for (size_t i = 0; i < y->problem_count && first < out->count; i++) {
        const struct ydoc_problem *problem = &y->problems[i];
        size_t at = first;
        for (size_t k = first + 1; k < out->count; k++) {
            if (out->list[k].line <= problem->line)
                at = k;
        }
        diag_add(&out->list[at].diag, DIAG_ERROR, p->file, problem->line, problem->col, out->list[at].title, "%s",
                 problem->message);
    }
    for (size_t k = first; k < out->count; k++) {
        struct document *d = &out->list[k];
        sort_entries(&d->diag);
        if (d->diag.errors != 0) {
            resource_unref(d->resource);
            d->resource = NULL;
        }
    }
}

static void parse(struct str text, const char *file, const char *default_ns, bool whole, struct documents *out)
{
    *out = (struct documents){0};
    struct parse p = {.file = file,
                      .default_ns = default_ns != NULL && default_ns[0] != '\0' ? default_ns : "default",
                      .out = out,
                      .whole = whole};
    struct ydoc_stream *s = ydoc_open(text);
    enum ydoc_result result;
    do {
        struct ydoc y;
        p.scratch = memory_new();
        result = ydoc_next(s, p.scratch, &y);
        if (result == YDOC_DOCUMENT && y.root != NULL && y.root->type != NODE_NULL) {
            size_t first = out->count;
            read_object(&p, y.root);
            add_problems(&p, &y, first);
        }
        memory_free(p.scratch);
    } while (result == YDOC_DOCUMENT);
    if (result == YDOC_ERROR) {
        unsigned line, col;
        const char *message = ydoc_error(s, &line, &col);
        diag_add(&out->syntax, DIAG_ERROR, file, line, col, NULL, "%s", message);
    }
    ydoc_close(s);
}

void resources_parse(struct str text, const char *file, const char *default_ns, struct documents *out)
{
    parse(text, file, default_ns, false, out);
}

void resources_parse_whole(struct str text, const char *file, const char *default_ns, struct documents *out)
{
    parse(text, file, default_ns, true, out);
}

void documents_free(struct documents *d)
{
    for (size_t i = 0; i < d->count; i++) {
        resource_unref(d->list[i].resource);
        diag_free(&d->list[i].diag);
        mem_free(d->list[i].ns);
        mem_free(d->list[i].name);
        mem_free(d->list[i].title);
    }
    mem_free(d->list);
    diag_free(&d->syntax);
    *d = (struct documents){0};
}
