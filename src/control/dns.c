/* SPDX-License-Identifier: Apache-2.0
 *
 * See dns.h.
 */
#include "control/dns.h"

#include <stdlib.h>

#include "base/log.h"

enum { TTL_MIN_S = 1, TTL_MAX_S = 300, RETRY_FIRST_MS = 1000, RETRY_MAX_MS = 30000, ADDRESSES_MAX = 256 };

struct host {
    struct dns *owner;
    char *name, *error;
    struct addr *addrs;
    size_t count;
    struct loop_timer timer;
    unsigned failures;
    bool asking, forgotten, closed;
};
struct dns {
    struct loop *loop;
    struct resolver *resolver;
    struct map hosts;
    void (*changed)(void *arg, const char *host);
    void *arg;
};

static void host_ask(struct host *h);

struct dns *dns_new(struct loop *loop, const char *servers, void (*changed)(void *arg, const char *host), void *arg)
{
    struct dns *d = mem_zalloc(sizeof *d);
    d->loop = loop;
    d->resolver = resolver_new(loop, servers);
    d->changed = changed;
    d->arg = arg;
    if (d->resolver == NULL)
        log_line(LOG_ERROR, "the DNS resolver could not be started: hosts of ServiceEntries will have no addresses");
    return d;
}

static void host_free(struct host *h)
{
    if (h->asking || !h->closed)
        return;
    mem_free(h->name);
    mem_free(h->error);
    mem_free(h->addrs);
    mem_free(h);
}
static void host_timer_closed(struct loop_timer *timer)
{
    struct host *h = CONTAINER_OF(timer, struct host, timer);
    h->closed = true;
    host_free(h);
}

static int compare_addrs(const void *a, const void *b)
{
    char x[ADDR_TEXT_MAX], y[ADDR_TEXT_MAX];
    addr_format(a, true, x);
    addr_format(b, true, y);
    return strcmp(x, y);
}

/* Sorted, so that a server that rotates its answers changes nothing. */
static bool host_take(struct host *h, const struct resolve_answer *answer)
{
    size_t n = answer->count < ADDRESSES_MAX ? answer->count : ADDRESSES_MAX;
    struct addr *addrs = mem_alloc((n + 1) * sizeof *addrs);
    memcpy(addrs, answer->addrs, n * sizeof *addrs);
    qsort(addrs, n, sizeof *addrs, compare_addrs);
    bool same = n == h->count;
    for (size_t i = 0; same && i < n; i++)
        same = addr_eq(&addrs[i], &h->addrs[i]);
    mem_free(h->addrs);
    h->addrs = addrs;
    h->count = n;
    return !same;
}

static void on_answer(void *arg, const struct resolve_answer *answer)
{
    struct host *h = arg;
    h->asking = false;
    if (h->forgotten) {
        host_free(h);
        return;
    }
    mem_free(h->error);
    h->error = NULL;
    if (answer->count > 0 && h->failures > 0)
        log_line(LOG_INFO, "DNS: %s: found again", h->name);
    uint64_t again;
    bool changed = false;
    if (answer->count > 0) {
        h->failures = 0;
        changed = host_take(h, answer);
        uint32_t ttl = answer->ttl < TTL_MIN_S ? TTL_MIN_S : answer->ttl > TTL_MAX_S ? TTL_MAX_S : answer->ttl;
        again = (uint64_t)ttl * 1000;
    } else {
        h->error = mem_strdup(answer->error != NULL ? answer->error : "no address");
        if (h->failures++ == 0)
            log_line(LOG_WARN, "DNS: %s: %s%s", h->name, h->error,
                     h->count > 0 ? " (its last addresses stay in use)" : "");
        again = (uint64_t)RETRY_FIRST_MS << (h->failures < 6 ? h->failures - 1 : 5);
        again = again < RETRY_MAX_MS ? again : RETRY_MAX_MS;
    }
    loop_timer_start(&h->timer, again);
    if (changed)
        h->owner->changed(h->owner->arg, h->name);
}

static void on_due(struct loop_timer *timer) { host_ask(CONTAINER_OF(timer, struct host, timer)); }

static void host_ask(struct host *h)
{
    if (h->asking || h->owner->resolver == NULL)
        return;
    h->asking = true;
    resolver_query(h->owner->resolver, str_of(h->name), on_answer, h);
}

static void host_forget(struct host *h)
{
    h->forgotten = true;
    loop_timer_close(&h->timer, host_timer_closed);
}

void dns_want(struct dns *d, const struct map *hosts)
{
    struct map gone = {0};
    MAP_EACH (e, &d->hosts)
        if (map_get(hosts, e->key) == NULL)
            map_set(&gone, e->key, e->value);
    MAP_EACH (e, &gone)
        host_forget(map_remove(&d->hosts, e->key));
    map_free(&gone);
    MAP_EACH (e, hosts) {
        if (map_get(&d->hosts, e->key) != NULL)
            continue;
        struct host *h = mem_zalloc(sizeof *h);
        h->owner = d;
        h->name = str_dup(e->key);
        loop_timer_init(&h->timer, d->loop, on_due);
        map_set(&d->hosts, e->key, h);
        host_ask(h);
    }
}

const struct addr *dns_addresses(const struct dns *d, const char *host, size_t *count)
{
    const struct host *h = map_get(&d->hosts, str_of(host));
    *count = h != NULL ? h->count : 0;
    return h != NULL ? h->addrs : NULL;
}

const char *dns_error(const struct dns *d, const char *host)
{
    const struct host *h = map_get(&d->hosts, str_of(host));
    return h != NULL ? h->error : NULL;
}

void dns_free(struct dns *d)
{
    MAP_EACH (e, &d->hosts)
        host_forget(e->value);
    map_free(&d->hosts);
    if (d->resolver != NULL)
        resolver_free(d->resolver);
    mem_free(d);
}
