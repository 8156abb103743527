/* SPDX-License-Identifier: Apache-2.0
 *
 * Clusters of a worker. An update replaces the list of endpoints but keeps the objects of those that stay, since their
 * connections, and the balancer's memory of whose turn it is, hang on them. One thread, no locks.
 *
 * What must never happen: an endpoint or a cluster freed while a connection or a stream still points to it. Hence the
 * references; the cluster's own of an endpoint is given back when that leaves the list, control's of a cluster when no
 * resource declares it any more.
 */
#include "proxy/cluster.h"

/* ---- references ---- */

void cluster_ref(struct cluster *c)
{
    ASSERT(c->refs < UINT32_MAX);
    c->refs++;
}

static void cluster_free(struct cluster *c)
{
    mem_free(c->endpoints);
    mem_free(c->key);
    mem_free(c);
}

void cluster_unref(struct cluster *c)
{
    ASSERT(c->refs > 0);
    if (--c->refs > 0)
        return;
    ASSERT(c->count == 0 && c->pending == 0);
    map_remove(&c->table->by_key, str_of(c->key));
    cluster_free(c);
}

void endpoint_ref(struct endpoint *e)
{
    ASSERT(e->refs > 0 && e->refs < UINT32_MAX);
    e->refs++;
}

void endpoint_unref(struct endpoint *e)
{
    ASSERT(e->refs > 0);
    if (--e->refs > 0)
        return;
    ASSERT(e->removed && list_is_empty(&e->idle) && list_is_empty(&e->busy) && list_is_empty(&e->waiting));
    loop_task_cancel(&e->serve);
    cluster_unref(e->cluster);
    mem_free(e);
}

static struct endpoint *endpoint_new(struct cluster *c, const struct addr *addr)
{
    struct endpoint *e = mem_zalloc(sizeof(*e));
    e->addr = *addr;
    (void)addr_format(addr, true, e->text);
    e->refs = 1;
    e->cluster = c;
    cluster_ref(c);
    list_init(&e->idle);
    list_init(&e->busy);
    list_init(&e->waiting);
    loop_task_init(&e->serve, NULL);
    return e;
}

static void endpoint_remove(struct endpoint *e)
{
    const struct cluster_table *t = e->cluster->table;
    e->removed = true;
    if (t->on_endpoint_removed != NULL)
        t->on_endpoint_removed(e);
    endpoint_unref(e);
}

/* ---- what control says ---- */

struct cluster *cluster_get(struct cluster_table *t, struct str key)
{
    struct cluster *c = map_get(&t->by_key, key);
    if (c == NULL) {
        c = mem_zalloc(sizeof(*c));
        c->key = str_dup(key);
        c->table = t;
        c->equal_weights = true;
        map_set(&t->by_key, key, c);
    }
    return c;
}

static struct str addr_key(const struct addr *a, char text[ADDR_TEXT_MAX])
{
    return str_span(text, addr_format(a, true, text));
}

/* Takes the endpoint of that address out of `old`, or makes one. NULL: this update has named it before. */
static struct endpoint *endpoint_for(struct cluster *c, struct map *old, struct map *seen, const struct addr *addr)
{
    char text[ADDR_TEXT_MAX];
    struct str key = addr_key(addr, text);
    if (map_get(seen, key) != NULL)
        return NULL;
    struct endpoint *e = map_remove(old, key);
    if (e == NULL)
        e = endpoint_new(c, addr);
    map_set(seen, key, e);
    return e;
}

void cluster_update(struct cluster *c, const struct endpoint_conf *endpoints, size_t count)
{
    struct map old = {0}, seen = {0};
    for (size_t i = 0; i < c->count; i++) {
        struct endpoint *e = c->endpoints[i];
        map_set(&old, str_of(e->text), e);
    }
    struct endpoint **list = mem_alloc((count != 0 ? count : 1) * sizeof(struct endpoint *));
    size_t n = 0;
    bool equal = true;
    for (size_t i = 0; i < count; i++) {
        struct endpoint *e = endpoint_for(c, &old, &seen, &endpoints[i].addr);
        if (e == NULL)
            continue;
        uint32_t weight = endpoints[i].weight != 0 ? endpoints[i].weight : 1;
        if (e->weight != weight)
            e->current_weight = 0;
        e->weight = weight;
        list[n++] = e;
        equal = equal && weight == list[0]->weight;
    }
    if (!c->told)
        cluster_ref(c);
    c->told = true;
    mem_free(c->endpoints);
    c->endpoints = list;
    c->count = n;
    c->next = n != 0 ? c->next % n : 0;
    c->equal_weights = equal;
    c->known = true;
    MAP_EACH (e, &old) {
        endpoint_remove(e->value);
    }
    map_free(&old);
    map_free(&seen);
}

void cluster_gone(struct cluster *c)
{
    cluster_update(c, NULL, 0);
    c->told = false;
    cluster_unref(c);
}

/* ---- choosing ---- */

/* Everybody's credit grows by its weight; the richest pays the sum of all and is chosen. */
static struct endpoint *choose_weighted(struct cluster *c, const struct endpoint *avoid)
{
    struct endpoint *best = NULL;
    int64_t total = 0;
    for (size_t i = 0; i < c->count; i++) {
        struct endpoint *e = c->endpoints[i];
        if (e == avoid)
            continue;
        total += e->weight;
        e->current_weight += e->weight;
        if (best == NULL || e->current_weight > best->current_weight)
            best = e;
    }
    if (best != NULL)
        best->current_weight -= total;
    return best;
}

/* The same for equal weights, without a look at each. */
static struct endpoint *choose_next(struct cluster *c, const struct endpoint *avoid)
{
    struct endpoint *e;
    do {
        e = c->endpoints[c->next];
        c->next = c->next + 1 < c->count ? c->next + 1 : 0;
    } while (e == avoid);
    return e;
}

struct endpoint *cluster_choose(struct cluster *c, const struct endpoint *avoid)
{
    if (c->count == 0)
        return NULL;
    c->chosen++;
    if (c->count == 1)
        return c->endpoints[0];
    return c->equal_weights ? choose_next(c, avoid) : choose_weighted(c, avoid);
}

/* Names are DNS names and so without case; what stands in the tables is lower case. Longer ones are no names. */
enum { NAME_MAX_BYTES = 1024 };

static struct str lower_name(struct str name, char buf[NAME_MAX_BYTES])
{
    for (size_t i = 0; i < name.n; i++)
        buf[i] = name.p[i] >= 'A' && name.p[i] <= 'Z' ? (char)(name.p[i] | 0x20) : name.p[i];
    return str_span(buf, name.n);
}

struct cluster *cluster_find(struct cluster_table *t, struct str name)
{
    char buf[NAME_MAX_BYTES];
    struct cluster *c = map_get(&t->by_key, name);
    if (c == NULL)
        c = map_get(&t->aliases, name);
    if (c == NULL && name.n != 0 && name.n <= sizeof(buf))
        c = map_get(&t->aliases, lower_name(name, buf));
    return c;
}

void cluster_alias(struct cluster_table *t, struct str name, struct cluster *c)
{
    char buf[NAME_MAX_BYTES];
    if (name.n == 0 || name.n > sizeof(buf))
        return;
    cluster_ref(c);
    struct cluster *before = map_set(&t->aliases, lower_name(name, buf), c);
    if (before != NULL)
        cluster_unref(before);
}

void cluster_clear_aliases(struct cluster_table *t)
{
    MAP_EACH (e, &t->aliases)
        cluster_unref(e->value);
    map_free(&t->aliases);
}

void cluster_table_free(struct cluster_table *t)
{
    cluster_clear_aliases(t);
    MAP_EACH (e, &t->by_key) {
        struct cluster *c = e->value;
        cluster_ref(c); /* it goes here, not with its last endpoint */
        for (size_t i = 0; i < c->count; i++) {
            ASSERT(c->endpoints[i]->refs == 1);
            c->endpoints[i]->removed = true;
            endpoint_unref(c->endpoints[i]);
        }
        ASSERT(c->refs == (c->told ? 2 : 1));
        cluster_free(c);
    }
    map_free(&t->by_key);
}

/* One name and its NUL. */
static void add_name(struct strbuf *out, const char *fmt, const char *a, const char *b, unsigned port)
{
    strbuf_printf(out, fmt, a, b, port);
    strbuf_addc(out, '\0');
}

void cluster_names_of_service(const char *ns, const char *name, uint16_t port, struct strbuf *out)
{
    add_name(out, "%s/%s:%u", ns, name, port);
    add_name(out, "%s.%s.svc.cluster.local:%u", name, ns, port);
    add_name(out, "%s.%s.svc:%u", name, ns, port);
    add_name(out, "%s.%s:%u", name, ns, port);
    strbuf_printf(out, "outbound|%u||%s.%s.svc.cluster.local", port, name, ns);
    strbuf_addc(out, '\0');
}

void cluster_names_of_host(const char *host, uint16_t port, struct strbuf *out)
{
    strbuf_printf(out, "%s:%u", host, port);
    strbuf_addc(out, '\0');
    strbuf_printf(out, "outbound|%u||%s", port, host);
    strbuf_addc(out, '\0');
}
