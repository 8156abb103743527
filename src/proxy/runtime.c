/* SPDX-License-Identifier: Apache-2.0
 *
 * A worker's twin of a snapshot: for each listener the chain's plugin slots and the compiled access log. What did not
 * change comes back by key (slots by generation), so adopting a snapshot costs little. It must never free a slot that a
 * stream still needs: streams keep a reference on their runtime.
 */
#include "proxy/runtime.h"

#include "base/log.h"
#include "proxy/plugin_slot.h"

static void make_chain(struct worker *w, struct listener_runtime *l)
{
    l->chain_count = l->conf->chain_count;
    l->chain = mem_zalloc(l->chain_count * sizeof *l->chain);
    for (size_t i = 0; i < l->chain_count; i++) {
        const struct chain_entry *e = &l->conf->chain[i];
        l->chain[i].entry = e;
        l->chain[i].slot = e->plugin != NULL ? plugin_slot_get(w, e->plugin) : NULL;
    }
}

static void make_log(struct listener_runtime *l)
{
    const struct limits *limits = &l->conf->limits;
    struct diag diag = {0};

    l->log = access_log_new(limits->access_log, limits->access_log_text, &diag);
    if (diag.errors > 0) /* control has checked it */
        log_line(LOG_ERROR, "gateway %s: access log format: %s", l->conf->gateway, diag.entries[0].message);
    diag_free(&diag);
}

struct runtime *runtime_new(struct worker *w, struct snapshot *s)
{
    struct runtime *r = mem_zalloc(sizeof *r);

    r->refs = 1;
    r->worker = w;
    r->snapshot = s;
    r->listener_count = s->listener_count;
    r->listeners = mem_zalloc(r->listener_count * sizeof *r->listeners);
    for (size_t i = 0; i < r->listener_count; i++) {
        r->listeners[i].conf = &s->listeners[i];
        make_chain(w, &r->listeners[i]);
        make_log(&r->listeners[i]);
    }
    return r;
}

struct runtime *runtime_ref(struct runtime *r)
{
    r->refs++;
    return r;
}

static void free_listener(struct listener_runtime *l)
{
    for (size_t i = 0; i < l->chain_count; i++)
        if (l->chain[i].slot != NULL)
            plugin_slot_unref(l->chain[i].slot);
    mem_free(l->chain);
    if (l->log != NULL)
        access_log_free(l->log);
}

void runtime_unref(struct runtime *r)
{
    if (--r->refs > 0)
        return;
    for (size_t i = 0; i < r->listener_count; i++)
        free_listener(&r->listeners[i]);
    mem_free(r->listeners);
    snapshot_unref(r->snapshot);
    mem_free(r);
}

struct listener_runtime *runtime_listener(const struct runtime *r, const struct addr *addr)
{
    for (size_t i = 0; i < r->listener_count; i++)
        if (addr_eq(&r->listeners[i].conf->addr, addr))
            return &r->listeners[i];
    return NULL;
}
