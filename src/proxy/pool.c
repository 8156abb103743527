/* SPDX-License-Identifier: Apache-2.0
 *
 * Who gets which connection. Each endpoint has its idle connections, most recent first, so that those not needed grow
 * old and close. Whoever finds none waits for one that is opened for it. It must never hand out a connection before
 * pool_request returned POOL_WAIT, nor twice.
 */
#include "proxy/pool.h"

#include "base/budget.h"
#include "proxy/up.h"

static struct up *up_of_leg(const struct leg *leg)
{
    struct h1 *h = CONTAINER_OF(leg, struct h1, leg);

    return CONTAINER_OF(h, struct up, h1);
}

static struct leg *take_idle(struct endpoint *e, struct up_request *request)
{
    struct up *up = LIST_ENTRY(e->idle.next, struct up, node);

    list_remove(&up->node);
    e->idle_count--;
    list_push_back(&e->busy, &up->node);
    request->up = up;
    return up_begin(up, request);
}

enum pool_result pool_request(struct worker *w, struct endpoint *endpoint, struct up_request *request, bool fresh_only,
                              struct leg **leg, bool *reused, enum end_reason *why)
{
    struct cluster *c = endpoint->cluster;

    list_init(&request->node);
    request->up = NULL;
    if (!fresh_only && !list_is_empty(&endpoint->idle)) {
        *leg = take_idle(endpoint, request);
        *reused = true;
        return POOL_READY;
    }
    *why = END_UPSTREAM_OVERFLOW;
    if (endpoint->conn_count >= request->limits->up_connections || c->pending >= request->limits->pending_requests)
        return POOL_FAILED;
    *why = END_CONNECT_FAILED;
    struct up *up = up_connect(w, endpoint, request->limits);
    if (up == NULL)
        return POOL_FAILED;
    list_push_back(&endpoint->busy, &up->node);
    endpoint->conn_count++;
    w->up_count++;
    metrics_add(w->stats.up_conns_total, 1);
    c->pending++;
    up->request = request;
    request->up = up;
    return POOL_WAIT;
}

static struct up_request *take_request(struct up *up)
{
    struct up_request *request = up->request;

    if (request == NULL)
        return NULL;
    up->request = NULL;
    up->endpoint->cluster->pending--;
    return request;
}

/* The connection goes on: it will serve someone else. */
void pool_cancel(struct up_request *request)
{
    if (request->up != NULL && request->up->request == request)
        take_request(request->up);
    request->up = NULL;
}

void pool_connected(struct up *up, int error)
{
    struct up_request *request = take_request(up);

    if (error != 0) {
        up_close(up, false);
        if (request != NULL) {
            request->up = NULL;
            request->on_failed(request->owner, END_CONNECT_FAILED);
        }
    } else if (request != NULL) {
        request->on_ready(request->owner, up_begin(up, request), false);
    } else {
        up->state = UP_BUSY;
        pool_give_back(up);
        if (up->state == UP_IDLE) {
            up->since = loop_now(&up->worker->loop);
            conn_want_read(&up->conn, true);
        }
    }
}

void pool_give_back(struct up *up)
{
    struct endpoint *e = up->endpoint;

    if (e->removed || up->worker->stopping || e->idle_count >= up->max_idle || budget_level() != BUDGET_FINE) {
        up_close(up, false);
        return;
    }
    up->state = UP_IDLE;
    list_remove(&up->node);
    list_push_front(&e->idle, &up->node);
    e->idle_count++;
}

/* It is about to be closed. */
void pool_forget(struct up *up)
{
    struct endpoint *e = up->endpoint;

    if (up->state == UP_IDLE)
        e->idle_count--;
    list_remove(&up->node);
    take_request(up);
    e->conn_count--;
    up->worker->up_count--;
}

bool pool_leg_has_answered(const struct leg *leg) { return up_of_leg(leg)->answered; }

const struct addr *pool_leg_local(const struct leg *leg) { return &up_of_leg(leg)->conn.local; }

void pool_close_idle(struct worker *w)
{
    LIST_EACH (node, &w->ups) {
        struct up *up = LIST_ENTRY(node, struct up, all);
        if (up->state == UP_IDLE)
            up_close(up, false);
    }
}

void pool_endpoint_removed(struct endpoint *e)
{
    LIST_EACH (node, &e->idle)
        up_close(LIST_ENTRY(node, struct up, node), false);
}

void pool_cut_all(struct worker *w)
{
    LIST_EACH (node, &w->ups)
        up_close(LIST_ENTRY(node, struct up, all), true);
}
