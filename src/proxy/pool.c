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

/* ---- getting one ---- */

static bool is_full(const struct endpoint *e, const struct up_request *request)
{
    return e->conn_count >= request->limits->up_connections;
}

/* The idle connection that was used last, or NULL. */
static struct up *take_idle(struct endpoint *e, const struct up_request *request)
{
    while (!list_is_empty(&e->idle)) {
        struct up *up = LIST_ENTRY(e->idle.next, struct up, node);
        if (request->fresh_only && !is_full(e, request))
            return NULL;
        if (request->fresh_only || (request->once && !conn_is_quiet(&up->conn))) {
            up_close(up, false); /* makes room for a fresh one; or its FIN has just come */
            continue;
        }
        list_remove(&up->node);
        e->idle_count--;
        list_push_back(&e->busy, &up->node);
        return up;
    }
    return NULL;
}

static struct leg *lend(struct up *up, struct up_request *request)
{
    request->up = up;
    return up_begin(up, request);
}

static bool begin_connect(struct endpoint *e, struct up_request *request)
{
    struct worker *w = request->worker;
    struct up *up = up_connect(w, e, request->limits);

    if (up == NULL)
        return false;
    list_push_back(&e->busy, &up->node);
    e->conn_count++;
    w->up_count++;
    metrics_add(w->stats.up_conns_total, 1);
    up->request = request;
    request->up = up;
    return true;
}

/* ---- the line ---- */

static void join_line(struct endpoint *e, struct up_request *request)
{
    endpoint_ref(e);
    list_push_back(&e->waiting, &request->node);
}

static void leave_line(struct up_request *request)
{
    list_remove(&request->node);
    request->endpoint->cluster->pending--;
    endpoint_unref(request->endpoint);
}

/* False: it goes on waiting, and so do all behind it. */
static bool serve_first(struct endpoint *e)
{
    struct up_request *request = LIST_ENTRY(e->waiting.next, struct up_request, node);
    struct up *up = e->removed ? NULL : take_idle(e, request);

    if (up == NULL && !e->removed && is_full(e, request))
        return false;
    leave_line(request);
    if (up != NULL) {
        request->on_ready(request->owner, lend(up, request), true);
    } else if (!e->removed && begin_connect(e, request)) {
        e->cluster->pending++;
    } else {
        request->on_failed(request->owner, END_CONNECT_FAILED);
    }
    return true;
}

static void serve(struct loop_task *task)
{
    struct endpoint *e = CONTAINER_OF(task, struct endpoint, serve);

    endpoint_ref(e);
    while (!list_is_empty(&e->waiting) && serve_first(e))
        continue;
    endpoint_unref(e);
}

/* There may be a place now. Later in this turn: whoever made it is still busy with something else. */
static void call_next(struct worker *w, struct endpoint *e)
{
    if (list_is_empty(&e->waiting))
        return;
    e->serve.fn = serve;
    loop_defer(&w->loop, &e->serve);
}

/* ---- asking ---- */

enum pool_result pool_request(struct worker *w, struct endpoint *endpoint, struct up_request *request, bool fresh_only,
                              struct leg **leg, bool *reused, enum end_reason *why)
{
    struct cluster *c = endpoint->cluster;
    bool is_first = list_is_empty(&endpoint->waiting);

    list_init(&request->node);
    request->worker = w;
    request->endpoint = endpoint;
    request->fresh_only = fresh_only;
    struct up *up = is_first ? take_idle(endpoint, request) : NULL;
    request->up = up;
    if (up != NULL) {
        *leg = lend(up, request);
        *reused = true;
        return POOL_READY;
    }
    *why = END_UPSTREAM_OVERFLOW;
    if (c->pending >= request->limits->pending_requests)
        return POOL_FAILED;
    *why = END_CONNECT_FAILED;
    if (!is_first || is_full(endpoint, request))
        join_line(endpoint, request);
    else if (!begin_connect(endpoint, request))
        return POOL_FAILED;
    c->pending++;
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
    if (list_is_linked(&request->node))
        leave_line(request);
    else if (request->up != NULL && request->up->request == request)
        take_request(request->up);
    request->up = NULL;
}

/* ---- what connections tell ---- */

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

    bool wanted = !list_is_empty(&e->waiting);
    bool kept = wanted || (e->idle_count < up->max_idle && budget_level() == BUDGET_FINE);
    if (e->removed || up->worker->stopping || up->conn.error != 0 || !kept) {
        up_close(up, false);
        return;
    }
    up->state = UP_IDLE;
    list_remove(&up->node);
    list_push_front(&e->idle, &up->node);
    e->idle_count++;
    call_next(up->worker, e);
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
    call_next(up->worker, e);
}

bool pool_leg_has_answered(const struct leg *leg) { return up_of_leg(leg)->answered; }

const struct addr *pool_leg_local(const struct leg *leg) { return &up_of_leg(leg)->conn.local; }

uint64_t pool_leg_bytes_in(const struct leg *leg)
{
    const struct up *up = up_of_leg(leg);

    return up->conn.bytes_in - up->in.n;
}

uint64_t pool_leg_bytes_out(const struct leg *leg)
{
    const struct up *up = up_of_leg(leg);

    return up->conn.bytes_out + up->conn.out.n;
}

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
    if (!list_is_empty(&e->waiting))
        call_next(LIST_ENTRY(e->waiting.next, struct up_request, node)->worker, e);
}

void pool_cut_all(struct worker *w)
{
    LIST_EACH (node, &w->ups)
        up_close(LIST_ENTRY(node, struct up, all), true);
}
