/* SPDX-License-Identifier: Apache-2.0
 *
 * Clusters and their endpoints: every port of every Service (from its EndpointSlices) and of every ServiceEntry host
 * (STATIC endpoints, or DNS, whose answers come later from dns.c). They are no part of the snapshot, but their names
 * are: filters call clusters by them.
 */
#include "control/compose_priv.h"

char *cluster_key_service(const char *ns, const char *name, uint16_t port)
{
    return mem_printf("%s/%s:%u", ns, name, port);
}

char *cluster_key_host(const char *ns, const char *entry, const char *host, uint16_t port)
{
    return mem_printf("%s/%s/%s:%u", ns, entry, host, port);
}

/* ---- names ---- */

static void cluster_declare(struct snapshot *s, char *key /* taken */, struct strbuf *names)
{
    s->clusters = mem_realloc(s->clusters, (s->cluster_count + 1) * sizeof *s->clusters);
    s->clusters[s->cluster_count].key = key;
    s->clusters[s->cluster_count].names_bytes = names->n;
    s->clusters[s->cluster_count].names = mem_strndup(names->p, names->n);
    s->cluster_count++;
    strbuf_clear(names);
}

void compose_clusters(struct compose *c)
{
    struct strbuf names = {0};
    STORE_EACH(o, c->store, KIND_SERVICE)
    {
        const struct service *svc = &o->good->u.service;
        for (size_t i = 0; i < svc->port_count && svc->external_name == NULL; i++) {
            cluster_names_of_service(o->ns, o->name, svc->ports[i].port, &names);
            cluster_declare(c->snapshot, cluster_key_service(o->ns, o->name, svc->ports[i].port), &names);
        }
        if (svc->external_name != NULL)
            usage_say(c->usage, &o->good->meta, false, "ExternalNameRefused",
                      "Services of type ExternalName are refused: use a ServiceEntry");
    }
    STORE_EACH(o, c->store, KIND_SERVICE_ENTRY)
    {
        const struct service_entry *e = &o->good->u.service_entry;
        for (size_t h = 0; h < e->host_count; h++)
            for (size_t p = 0; p < e->port_count; p++) {
                cluster_names_of_host(e->hosts[h], e->ports[p].number, &names);
                cluster_declare(c->snapshot, cluster_key_host(o->ns, o->name, e->hosts[h], e->ports[p].number), &names);
            }
    }
    strbuf_free(&names);
}

/* ---- endpoints ---- */

static struct cluster_endpoints *set_add(struct cluster_set *set, char *key /* taken */)
{
    set->list = mem_realloc(set->list, (set->count + 1) * sizeof *set->list);
    struct cluster_endpoints *e = &set->list[set->count++];
    *e = (struct cluster_endpoints){.key = key};
    return e;
}

static void endpoint_add(struct cluster_endpoints *e, const char *ip, uint16_t port, uint32_t weight)
{
    struct addr addr;
    if (port == 0 || !addr_from_ip(str_of(ip), port, &addr))
        return;
    e->list = mem_realloc(e->list, (e->count + 1) * sizeof *e->list);
    e->list[e->count++] = (struct endpoint_conf){addr, weight > 0 ? weight : 1};
}

/* The slice's port of the Service's port name; a slice with one unnamed port serves a Service with one port. */
static uint16_t slice_port(const struct endpoint_slice *s, const struct service *svc, const struct service_port *port)
{
    for (size_t i = 0; i < s->port_count; i++)
        if (strcmp(s->ports[i].name, port->name) == 0)
            return s->ports[i].port;
    return s->port_count == 1 && svc->port_count == 1 ? s->ports[0].port : 0;
}

static void endpoints_of_service(const struct store *store, const struct store_object *o, struct cluster_set *out)
{
    const struct service *svc = &o->good->u.service;
    if (svc->external_name != NULL)
        return;
    size_t first = out->count;
    for (size_t i = 0; i < svc->port_count; i++)
        set_add(out, cluster_key_service(o->ns, o->name, svc->ports[i].port));
    STORE_EACH(so, store, KIND_ENDPOINT_SLICE)
    {
        const struct endpoint_slice *s = &so->good->u.endpoint_slice;
        if (strcmp(so->ns, o->ns) != 0 || strcmp(s->service, o->name) != 0)
            continue;
        for (size_t i = 0; i < svc->port_count; i++) {
            uint16_t port = slice_port(s, svc, &svc->ports[i]);
            for (size_t e = 0; e < s->endpoint_count; e++)
                for (size_t a = 0; s->endpoints[e].ready && a < s->endpoints[e].address_count; a++)
                    endpoint_add(&out->list[first + i], s->endpoints[e].addresses[a], port, 1);
        }
    }
}

static uint16_t entry_endpoint_port(const struct entry_endpoint *e, const struct entry_port *port)
{
    for (size_t i = 0; i < e->port_count; i++)
        if (strcmp(e->ports[i].name, port->name) == 0)
            return e->ports[i].port;
    return port->target != 0 ? port->target : port->number;
}

static void name_add(struct cluster_endpoints *e, const char *host, uint16_t port, uint32_t weight)
{
    e->names = mem_realloc(e->names, (e->name_count + 1) * sizeof *e->names);
    e->names[e->name_count++] = (struct dns_endpoint){mem_strdup(host), port, weight > 0 ? weight : 1};
}

/* With DNS an endpoint is an address or a name; without endpoints the host itself is the name. */
static void endpoints_of_port(const struct service_entry *entry, const char *host, const struct entry_port *port,
                              struct cluster_endpoints *e)
{
    for (size_t i = 0; i < entry->endpoint_count; i++) {
        const struct entry_endpoint *at = &entry->endpoints[i];
        uint16_t number = entry_endpoint_port(at, port);
        struct addr literal;
        if (entry->resolution == RESOLUTION_DNS && !addr_from_ip(str_of(at->address), number, &literal))
            name_add(e, at->address, number, at->weight);
        else
            endpoint_add(e, at->address, number, at->weight);
    }
    if (entry->resolution == RESOLUTION_DNS && entry->endpoint_count == 0)
        name_add(e, host, port->target != 0 ? port->target : port->number, 1);
}

static void endpoints_of_entry(const struct store_object *o, struct cluster_set *out)
{
    const struct service_entry *entry = &o->good->u.service_entry;
    for (size_t h = 0; h < entry->host_count; h++)
        for (size_t p = 0; p < entry->port_count; p++) {
            const struct entry_port *port = &entry->ports[p];
            char *key = cluster_key_host(o->ns, o->name, entry->hosts[h], port->number);
            endpoints_of_port(entry, entry->hosts[h], port, set_add(out, key));
        }
}

void compose_endpoints(const struct store *store, struct cluster_set *out)
{
    *out = (struct cluster_set){0};
    STORE_EACH(o, store, KIND_SERVICE) endpoints_of_service(store, o, out);
    STORE_EACH(o, store, KIND_SERVICE_ENTRY) endpoints_of_entry(o, out);
}

void cluster_set_free(struct cluster_set *s)
{
    for (size_t i = 0; i < s->count; i++) {
        mem_free(s->list[i].key);
        mem_free(s->list[i].list);
        for (size_t k = 0; k < s->list[i].name_count; k++)
            mem_free(s->list[i].names[k].host);
        mem_free(s->list[i].names);
    }
    mem_free(s->list);
    *s = (struct cluster_set){0};
}
