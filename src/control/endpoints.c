/* SPDX-License-Identifier: Apache-2.0
 *
 * Endpoints to workers: small messages beside the snapshots, one for each cluster that changed. They come from the
 * store and from DNS; a change of one of a thousand must not cost the workers more than one message each.
 */
#include "base/log.h"
#include "control/control.h"

static void endpoints_post(struct control *c, const struct cluster_endpoints *e, bool gone)
{
    for (unsigned i = 0; i < c->worker_count; i++) {
        struct mail_endpoints *m = mem_zalloc(sizeof *m);
        m->mail.type = MAIL_ENDPOINTS;
        m->gone = gone;
        m->key = mem_strdup(e->key);
        m->list = mem_alloc((e->count + 1) * sizeof *m->list);
        if (e->count > 0)
            memcpy(m->list, e->list, e->count * sizeof *m->list);
        m->count = e->count;
        mailbox_post(worker_mailbox(c->workers[i]), &m->mail);
    }
}

static void endpoints_send(struct control *c, const struct cluster_endpoints *e)
{
    struct strbuf digest = {0};
    for (size_t i = 0; i < e->count; i++) {
        char text[ADDR_TEXT_MAX];
        addr_format(&e->list[i].addr, true, text);
        strbuf_printf(&digest, "%s*%u ", text, e->list[i].weight);
    }
    strbuf_addc(&digest, ';');
    char *last = map_get(&c->endpoints, str_of(e->key));
    if (last != NULL && str_eq(str_of(last), strbuf_str(&digest))) {
        strbuf_free(&digest);
        return;
    }
    mem_free(map_set(&c->endpoints, str_of(e->key), strbuf_take(&digest)));
    endpoints_post(c, e, false);
}

static bool has_endpoint(const struct cluster_endpoints *e, const struct addr *addr)
{
    for (size_t i = 0; i < e->count; i++)
        if (addr_eq(&e->list[i].addr, addr))
            return true;
    return false;
}

/* Two names may give the same address: it is one endpoint. */
static void add_dns_addresses(struct control *c, struct cluster_endpoints *e, const struct dns_endpoint *name)
{
    size_t n = 0;
    const struct addr *addrs = dns_addresses(c->dns, name->host, &n);
    e->list = mem_realloc(e->list, (e->count + n + 1) * sizeof *e->list);
    for (size_t i = 0; i < n; i++) {
        struct addr addr = addrs[i];
        if (addr.u.sa.sa_family == AF_INET)
            addr.u.in.sin_port = htons(name->port);
        else
            addr.u.in6.sin6_port = htons(name->port);
        if (!has_endpoint(e, &addr))
            e->list[e->count++] = (struct endpoint_conf){addr, name->weight};
    }
}

static bool reaches(const struct addr *a, const struct addr *own)
{
    return addr_port(a) == addr_port(own) && (addr_eq(a, own) || addr_is_loopback(a));
}

/* The data plane never connects to our own admin address or Kubernetes API, whatever a Service says: a filter could
 * call it. */
static void drop_own_addresses(const struct control *c, struct cluster_endpoints *e)
{
    size_t kept = 0;
    for (size_t i = 0; i < e->count; i++) {
        const struct addr *a = &e->list[i].addr;
        bool admin = c->o->has_admin && reaches(a, &c->o->admin);
        bool api = c->o->has_kube_api && reaches(a, &c->o->kube_api);
        if (!admin && !api)
            e->list[kept++] = e->list[i];
        else
            log_line(LOG_WARN, "cluster %s: an endpoint is this gateway's %s address and is not used", e->key,
                     admin ? "admin" : "Kubernetes API");
    }
    e->count = kept;
}

static void want_hosts(struct control *c, const struct cluster_set *set)
{
    struct map hosts = {0};
    for (size_t i = 0; i < set->count; i++)
        for (size_t k = 0; k < set->list[i].name_count; k++)
            map_set(&hosts, str_of(set->list[i].names[k].host), c);
    dns_want(c->dns, &hosts);
    map_free(&hosts);
}

/* The workers forget the clusters that no resource declares any more. */
static void forget_clusters(struct control *c, const struct cluster_set *set)
{
    struct map gone = {0};
    MAP_EACH (e, &c->endpoints)
        map_set(&gone, e->key, e->value);
    for (size_t i = 0; i < set->count; i++)
        map_remove(&gone, str_of(set->list[i].key));
    MAP_EACH (e, &gone) {
        struct cluster_endpoints none = {.key = str_dup(e->key)};
        endpoints_post(c, &none, true);
        mem_free(map_remove(&c->endpoints, e->key));
        mem_free(none.key);
    }
    map_free(&gone);
}

void control_follow_endpoints(struct control *c)
{
    struct cluster_set set;
    compose_endpoints(&c->store, &set);
    want_hosts(c, &set);
    for (size_t i = 0; i < set.count; i++) {
        struct cluster_endpoints *e = &set.list[i];
        for (size_t k = 0; k < e->name_count; k++)
            add_dns_addresses(c, e, &e->names[k]);
        drop_own_addresses(c, e);
        endpoints_send(c, e);
    }
    forget_clusters(c, &set);
    cluster_set_free(&set);
}
