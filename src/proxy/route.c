/* SPDX-License-Identifier: Apache-2.0
 *
 * The route table. A lookup goes: host, then the candidates of that host in order of precedence, of which the first
 * whose conditions hold is taken.
 *
 *   host:  exact name; else the longest wildcard ("*.example.com" also matches a.b.example.com); else any.
 *          One set of rules is chosen by host, as Envoy chooses a virtual host: when a name has rules of its own and
 * none of them matches, the answer is 404 and not a rule of a wildcard. path:  Exact; then PathPrefix, longest first;
 * then RegularExpression, longest first. The Gateway API leaves the place of regular expressions open; this is Istio's
 * (Envoy Gateway has them before prefixes). So a prefix "/" that has no other condition hides every regular expression
 * of its host, as in Istio. then:  a method; more headers; more query parameters; the older route;
 * "<namespace>/<name>"; the order in the route.
 *
 * A thousand rules of one host must not be walked through for each request: exact paths and prefixes are in hash maps,
 * and prefixes are asked for only at the lengths that there are and where a path element ends. What a client can size
 * (labels of its host, elements of its path) so costs no more than what the routes have of it.
 */
#include "proxy/route.h"

#include <stdlib.h>

#include "base/map.h"
#include "proxy/route_match.h"

/* DNS names end here (RFC 1035 2.3.4); a longer host is nobody's name. */
enum { HOST_MAX = 256 };

struct source { /* an HTTPRoute that was added */
    struct resource *resource;
    char *title; /* "<namespace>/<name>" */
};
struct candidate {
    const struct route *route;
    struct matcher *matcher;
    const struct source *source;
    size_t order; /* in which it was added */
};
struct bucket {
    struct candidate *list;
    size_t count, cap;
};
/* Distinct lengths of the keys of a map, longest first. */
struct lengths {
    size_t *list;
    size_t count;
};
struct host {
    struct map exact;    /* path -> struct bucket */
    struct map prefixes; /* path without its last slash -> struct bucket */
    struct lengths prefix_lengths;
    struct bucket regexes;
};
struct pointers {
    void **list;
    size_t count, cap;
};
struct route_table {
    struct map hosts;     /* "www.example.com" -> struct host */
    struct map wildcards; /* ".example.com" -> struct host */
    struct lengths wildcard_lengths;
    struct host *any; /* NULL when there is none */
    struct pointers sources, routes, matchers;
    size_t added;
    bool finished;
};

static void push(struct pointers *v, void *p)
{
    if (v->count == v->cap) {
        v->cap = v->cap != 0 ? 2 * v->cap : 16;
        v->list = mem_realloc(v->list, v->cap * sizeof(*v->list));
    }
    v->list[v->count++] = p;
}

struct route_table *route_table_new(void) { return mem_zalloc(sizeof(struct route_table)); }

/* ---- adding ---- */

static struct host *host_get(struct route_table *t, const char *hostname)
{
    struct str name = str_of(hostname);
    if (name.n == 0 || str_is(name, "*")) {
        if (t->any == NULL)
            t->any = mem_zalloc(sizeof(*t->any));
        return t->any;
    }
    struct strbuf lower = {0};
    bool wild = str_starts(name, STR("*."));
    for (size_t i = wild ? 1 : 0; i < name.n; i++)
        strbuf_addc(&lower, name.p[i] >= 'A' && name.p[i] <= 'Z' ? (char)(name.p[i] | 0x20) : name.p[i]);
    struct map *m = wild ? &t->wildcards : &t->hosts;
    struct host *host = map_get(m, strbuf_str(&lower));
    if (host == NULL) {
        host = mem_zalloc(sizeof(*host));
        map_set(m, strbuf_str(&lower), host);
    }
    strbuf_free(&lower);
    return host;
}

static struct bucket *bucket_get(struct map *m, struct str path)
{
    struct bucket *b = map_get(m, path);
    if (b == NULL) {
        b = mem_zalloc(sizeof(*b));
        map_set(m, path, b);
    }
    return b;
}

/* "/foo/" and "/foo" are the same prefix, "/" is the empty one. */
static struct str prefix_key(const char *value)
{
    struct str key = str_of(value);
    if (key.n != 0 && key.p[key.n - 1] == '/')
        key.n--;
    return key;
}

static void host_add(struct host *h, const struct candidate *c)
{
    const struct path_match *path = &matcher_match(c->matcher)->path;
    struct bucket *b = &h->regexes;
    if (path->type == MATCH_EXACT)
        b = bucket_get(&h->exact, str_of(path->value));
    else if (path->type == MATCH_PREFIX)
        b = bucket_get(&h->prefixes, prefix_key(path->value));
    if (b->count == b->cap) {
        b->cap = b->cap != 0 ? 2 * b->cap : 2;
        b->list = mem_realloc(b->list, b->cap * sizeof(*b->list));
    }
    b->list[b->count++] = *c;
}

static struct route *route_new(const struct meta *meta, const struct route_rule *rule, size_t index,
                               const struct route_backend *backends)
{
    struct route *r = mem_zalloc(sizeof(*r));
    r->name = mem_printf("%s.%s.%zu", meta->ns, meta->name, index);
    r->rule = rule;
    r->backend_count = rule->backend_count;
    r->backends = mem_zalloc(r->backend_count * sizeof(*r->backends));
    for (size_t i = 0; i < r->backend_count; i++) {
        r->backends[i] = backends[i];
        r->backends[i].cluster = backends[i].cluster != NULL ? mem_strdup(backends[i].cluster) : NULL;
        r->backends[i].why = backends[i].why != NULL ? mem_strdup(backends[i].why) : NULL;
        r->total_weight += backends[i].weight;
    }
    return r;
}

void route_table_add(struct route_table *t, struct resource *resource, const char *const *hostnames,
                     size_t hostname_count, const struct route_backend *const *backends_of_rule)
{
    ASSERT(!t->finished && resource->meta.kind == KIND_HTTP_ROUTE);
    struct source *source = mem_alloc(sizeof(*source));
    source->resource = resource_ref(resource);
    source->title = mem_printf("%s/%s", resource->meta.ns, resource->meta.name);
    push(&t->sources, source);

    const struct http_route *http = &resource->u.http_route;
    for (size_t i = 0; i < http->rule_count; i++) {
        const struct route_rule *rule = &http->rules[i];
        struct candidate c = {.source = source};
        struct route *r = route_new(&resource->meta, rule, i, backends_of_rule[i]);
        push(&t->routes, r);
        c.route = r;
        for (size_t j = 0; j < rule->match_count; j++) {
            c.matcher = matcher_new(&rule->matches[j]);
            push(&t->matchers, c.matcher);
            c.order = t->added++;
            for (size_t k = 0; k < hostname_count; k++)
                host_add(host_get(t, hostnames[k]), &c);
        }
    }
}

void route_table_claim(struct route_table *t, const char *hostname)
{
    ASSERT(!t->finished);
    (void)host_get(t, hostname);
}

/* ---- finishing ---- */

static int order_sizes(size_t more, size_t less) { return (more < less) - (more > less); }

/* Negative: a goes first. The path decides before, except among regular expressions. */
static int candidate_order(const void *left, const void *right)
{
    const struct candidate *a = left, *b = right;
    const struct route_match *m = matcher_match(a->matcher), *n = matcher_match(b->matcher);
    int order = 0;
    if (m->path.type == MATCH_REGEX && n->path.type == MATCH_REGEX)
        order = order_sizes(strlen(m->path.value), strlen(n->path.value));
    if (order == 0)
        order = (m->method == NULL) - (n->method == NULL);
    if (order == 0)
        order = order_sizes(m->header_count, n->header_count);
    if (order == 0)
        order = order_sizes(m->query_count, n->query_count);
    int64_t created_a = a->source->resource->meta.created, created_b = b->source->resource->meta.created;
    if (order == 0)
        order = (created_a > created_b) - (created_a < created_b);
    if (order == 0)
        order = strcmp(a->source->title, b->source->title);
    return order != 0 ? order : order_sizes(b->order, a->order);
}

static void bucket_sort(struct bucket *b)
{
    if (b->count > 1)
        qsort(b->list, b->count, sizeof(*b->list), candidate_order);
}

static int longer_first(const void *a, const void *b) { return order_sizes(*(const size_t *)a, *(const size_t *)b); }

static void lengths_of(const struct map *m, struct lengths *out)
{
    out->list = mem_alloc(m->count * sizeof(*out->list));
    MAP_EACH (e, m) {
        out->list[out->count++] = e->key.n;
    }
    if (out->count == 0)
        return;
    qsort(out->list, out->count, sizeof(*out->list), longer_first);
    size_t n = 1;
    for (size_t i = 1; i < out->count; i++) {
        if (out->list[i] != out->list[n - 1])
            out->list[n++] = out->list[i];
    }
    out->count = n;
}

static void host_finish(struct host *h)
{
    MAP_EACH (e, &h->exact) {
        bucket_sort(e->value);
    }
    MAP_EACH (e, &h->prefixes) {
        bucket_sort(e->value);
    }
    bucket_sort(&h->regexes);
    lengths_of(&h->prefixes, &h->prefix_lengths);
}

void route_table_finish(struct route_table *t)
{
    ASSERT(!t->finished);
    MAP_EACH (e, &t->hosts) {
        host_finish(e->value);
    }
    MAP_EACH (e, &t->wildcards) {
        host_finish(e->value);
    }
    if (t->any != NULL)
        host_finish(t->any);
    lengths_of(&t->wildcards, &t->wildcard_lengths);
    t->finished = true;
}

/* ---- freeing ---- */

static void buckets_free(struct map *m)
{
    MAP_EACH (e, m) {
        struct bucket *b = e->value;
        mem_free(b->list);
        mem_free(b);
    }
    map_free(m);
}

static void host_free(struct host *h)
{
    buckets_free(&h->exact);
    buckets_free(&h->prefixes);
    mem_free(h->regexes.list);
    mem_free(h->prefix_lengths.list);
    mem_free(h);
}

static void route_free(struct route *r)
{
    for (size_t i = 0; i < r->backend_count; i++) {
        mem_free(r->backends[i].cluster);
        mem_free(r->backends[i].why);
    }
    mem_free(r->backends);
    mem_free(r->name);
    mem_free(r);
}

static void hosts_free(struct map *m)
{
    MAP_EACH (e, m) {
        host_free(e->value);
    }
    map_free(m);
}

void route_table_free(struct route_table *t)
{
    hosts_free(&t->hosts);
    hosts_free(&t->wildcards);
    if (t->any != NULL)
        host_free(t->any);
    for (size_t i = 0; i < t->matchers.count; i++)
        matcher_free(t->matchers.list[i]);
    for (size_t i = 0; i < t->routes.count; i++)
        route_free(t->routes.list[i]);
    for (size_t i = 0; i < t->sources.count; i++) {
        struct source *s = t->sources.list[i];
        resource_unref(s->resource);
        mem_free(s->title);
        mem_free(s);
    }
    mem_free(t->matchers.list);
    mem_free(t->routes.list);
    mem_free(t->sources.list);
    mem_free(t->wildcard_lengths.list);
    mem_free(t);
}

/* ---- looking up ---- */

/* The host of ":authority" in lower case, without port; empty when it cannot be anybody's name. */
static struct str host_name(struct str authority, char buf[HOST_MAX])
{
    bool literal = authority.n != 0 && authority.p[0] == '[';
    ptrdiff_t end = str_find(authority, literal ? ']' : ':');
    size_t n = end < 0 ? authority.n : (size_t)end + (literal ? 1 : 0);
    if (n > HOST_MAX)
        return STR_NONE;
    for (size_t i = 0; i < n; i++) {
        char c = authority.p[i];
        buf[i] = c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
    }
    return str_span(buf, n);
}

static const struct host *find_host(const struct route_table *t, struct str authority)
{
    char buf[HOST_MAX];
    struct str name = host_name(authority, buf);
    const struct host *host = name.n != 0 ? map_get(&t->hosts, name) : NULL;
    for (size_t i = 0; i < t->wildcard_lengths.count && host == NULL; i++) {
        size_t n = t->wildcard_lengths.list[i];
        if (n < name.n && name.p[name.n - n] == '.')
            host = map_get(&t->wildcards, str_from(name, name.n - n));
    }
    return host != NULL ? host : t->any;
}

struct question {
    const struct headers *request;
    struct str path, query;
    struct route_scratch *scratch;
    struct route_hit *hit;
};

static enum route_result try_bucket(const struct bucket *b, const struct question *q)
{
    for (size_t i = 0; b != NULL && i < b->count; i++) {
        const struct candidate *c = &b->list[i];
        switch (matcher_try(c->matcher, q->request, q->path, q->query, q->scratch)) {
        case MATCHER_NO: break;
        case MATCHER_LIMIT: return ROUTE_LIMIT;
        case MATCHER_YES: *q->hit = (struct route_hit){c->route, matcher_match(c->matcher)}; return ROUTE_FOUND;
        }
    }
    return ROUTE_NONE;
}

/* A prefix matches where one of its elements ends. That of "/" matches everything, "*" of OPTIONS too. */
static bool ends_element(struct str path, size_t n)
{
    return n == 0 || n == path.n || (n < path.n && path.p[n] == '/');
}

static enum route_result find_in_host(const struct host *h, const struct question *q)
{
    enum route_result result = try_bucket(map_get(&h->exact, q->path), q);
    for (size_t i = 0; i < h->prefix_lengths.count && result == ROUTE_NONE; i++) {
        size_t n = h->prefix_lengths.list[i];
        if (ends_element(q->path, n))
            result = try_bucket(map_get(&h->prefixes, str_upto(q->path, n)), q);
    }
    return result == ROUTE_NONE ? try_bucket(&h->regexes, q) : result;
}

enum route_result route_lookup(const struct route_table *t, const struct headers *request,
                               struct route_scratch *scratch, struct route_hit *hit)
{
    ASSERT(t->finished);
    *hit = (struct route_hit){0};
    const struct host *host = find_host(t, headers_value(request, HDR_AUTHORITY));
    struct question q = {.request = request, .scratch = scratch, .hit = hit};
    q.query = headers_value(request, HDR_PATH);
    if (host == NULL || q.query.n == 0)
        return ROUTE_NONE;
    q.path = str_split(&q.query, '?');
    return find_in_host(host, &q);
}

const struct route_backend *route_choose_backend(const struct route *r, uint64_t random)
{
    if (r->total_weight == 0)
        return NULL;
    uint64_t at = random % r->total_weight;
    for (size_t i = 0; i < r->backend_count; i++) {
        if (at < r->backends[i].weight)
            return &r->backends[i];
        at -= r->backends[i].weight;
    }
    return NULL;
}
