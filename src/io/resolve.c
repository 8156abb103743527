/* SPDX-License-Identifier: Apache-2.0
 *
 * c-ares on a loop: one uv_poll for each of its sockets, one timer for its timeouts. c-ares closes its descriptors
 * itself, right after telling us, so the poll handle must let go in that very call; and it calls back whenever it
 * likes, from inside our own calls too. Answers are therefore copied and told from a task of the loop: the owner may
 * do anything in its callback, also free the resolver.
 */
#include "io/resolve.h"

#include <ares.h>
#include <netdb.h>

enum {
    RESOLVE_NAME_MAX = 253, /* RFC 1035 section 2.3.4, as text */
    RESOLVE_ADDRS_MAX = 256,
    RESOLVE_TIMEOUT_MS = 2000, /* of the first try; c-ares grows it */
    RESOLVE_TRIES = 3,
    RESOLVE_LITERAL_TTL = 3600,
};

struct resolver {
    struct loop *loop;
    ares_channel channel;
    struct loop_timer timer;
    struct list queries, sockets;
    bool closing;
};

struct query {
    struct list node;
    struct loop_task task;
    struct resolver *resolver;
    void (*done)(void *arg, const struct resolve_answer *answer);
    void *arg;
    struct addr *addrs;
    struct resolve_answer answer;
    bool answered;
};

struct ares_watch {
    struct list node;
    uv_poll_t poll;
    struct resolver *resolver;
    ares_socket_t fd;
};

/* ---- telling ---- */

static void tell(struct query *q)
{
    list_remove(&q->node);
    loop_task_cancel(&q->task);
    q->answer.addrs = q->addrs;
    q->done(q->arg, &q->answer);
    mem_free(q->addrs);
    mem_free(q);
}

static void on_task(struct loop_task *task) { tell(CONTAINER_OF(task, struct query, task)); }

static void answered(struct query *q)
{
    if (q->answer.count == 0 && q->answer.error == NULL)
        q->answer.error = "no address";
    if (q->answer.count == 0)
        q->answer.ttl = 0;
    q->answered = true;
    loop_defer(q->resolver->loop, &q->task);
}

static void add_addr(struct query *q, const struct addr *a)
{
    q->addrs = mem_realloc(q->addrs, (q->answer.count + 1) * sizeof(*q->addrs));
    q->addrs[q->answer.count++] = *a;
}

/* ---- c-ares ---- */

static void arm_timer(struct resolver *r)
{
    struct timeval tv;
    if (r->closing)
        return;
    if (ares_timeout(r->channel, NULL, &tv) == NULL) {
        loop_timer_stop(&r->timer);
        return;
    }
    loop_timer_start(&r->timer, (uint64_t)tv.tv_sec * 1000 + (uint64_t)tv.tv_usec / 1000 + 1);
}

static void on_timer(struct loop_timer *timer)
{
    struct resolver *r = CONTAINER_OF(timer, struct resolver, timer);
    ares_process_fd(r->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    arm_timer(r);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct ares_watch *w = CONTAINER_OF(poll, struct ares_watch, poll);
    struct resolver *r = w->resolver;
    /* On an error libuv stopped watching; c-ares finds it by reading and closes the socket. */
    bool in = status < 0 || (events & UV_READABLE) != 0;
    bool out = status < 0 || (events & UV_WRITABLE) != 0;
    ares_process_fd(r->channel, in ? w->fd : ARES_SOCKET_BAD, out ? w->fd : ARES_SOCKET_BAD);
    arm_timer(r);
}

static void on_watch_closed(uv_handle_t *handle) { mem_free(CONTAINER_OF(handle, struct ares_watch, poll)); }

static struct ares_watch *find_watch(struct resolver *r, ares_socket_t fd)
{
    LIST_EACH (pos, &r->sockets) {
        struct ares_watch *w = LIST_ENTRY(pos, struct ares_watch, node);
        if (w->fd == fd)
            return w;
    }
    return NULL;
}

static struct ares_watch *new_watch(struct resolver *r, ares_socket_t fd)
{
    struct ares_watch *w = mem_zalloc(sizeof(*w));
    w->resolver = r;
    w->fd = fd;
    if (uv_poll_init(&r->loop->uv, &w->poll, fd) != 0) {
        mem_free(w); /* the query will time out */
        return NULL;
    }
    list_push_back(&r->sockets, &w->node);
    return w;
}

static void on_socket_state(void *arg, ares_socket_t fd, int readable, int writable)
{
    struct resolver *r = arg;
    struct ares_watch *w = find_watch(r, fd);
    int events = (readable ? UV_READABLE : 0) | (writable ? UV_WRITABLE : 0);
    if (events == 0) {
        if (w == NULL)
            return;
        list_remove(&w->node);
        uv_close((uv_handle_t *)&w->poll, on_watch_closed);
        return;
    }
    if (w == NULL)
        w = new_watch(r, fd);
    if (w != NULL)
        ASSERT(uv_poll_start(&w->poll, events, on_poll) == 0);
}

static void on_answer(void *arg, int status, int timeouts, struct ares_addrinfo *info)
{
    struct query *q = arg;
    (void)timeouts;
    q->answer.ttl = UINT32_MAX;
    if (status != ARES_SUCCESS)
        q->answer.error = status == ARES_EDESTRUCTION ? "resolver closed" : ares_strerror(status);
    for (struct ares_addrinfo_cname *c = info != NULL ? info->cnames : NULL; c != NULL; c = c->next) {
        if (c->ttl >= 0 && (uint32_t)c->ttl < q->answer.ttl)
            q->answer.ttl = (uint32_t)c->ttl;
    }
    for (struct ares_addrinfo_node *n = info != NULL ? info->nodes : NULL; n != NULL; n = n->ai_next) {
        struct addr a;
        if (n->ai_addrlen > sizeof(a.u) || q->answer.count == RESOLVE_ADDRS_MAX)
            continue;
        memset(&a, 0, sizeof(a));
        memcpy(&a.u, n->ai_addr, n->ai_addrlen);
        add_addr(q, &a);
        if (n->ai_ttl >= 0 && (uint32_t)n->ai_ttl < q->answer.ttl)
            q->answer.ttl = (uint32_t)n->ai_ttl;
    }
    if (info != NULL)
        ares_freeaddrinfo(info);
    answered(q);
}

/* ---- the resolver ---- */

struct resolver *resolver_new(struct loop *loop, const char *servers)
{
    struct resolver *r = mem_zalloc(sizeof(*r));
    r->loop = loop;
    list_init(&r->queries);
    list_init(&r->sockets);
    struct ares_options options = {.timeout = RESOLVE_TIMEOUT_MS,
                                   .tries = RESOLVE_TRIES,
                                   .sock_state_cb = on_socket_state,
                                   .sock_state_cb_data = r};
    if (ares_library_init(ARES_LIB_INIT_ALL) != ARES_SUCCESS) {
        mem_free(r);
        return NULL;
    }
    if (ares_init_options(&r->channel, &options, ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB) !=
        ARES_SUCCESS)
        goto no_channel;
    if (servers != NULL && ares_set_servers_ports_csv(r->channel, servers) != ARES_SUCCESS)
        goto no_servers;
    loop_timer_init(&r->timer, loop, on_timer);
    return r;
no_servers:
    ares_destroy(r->channel);
no_channel:
    ares_library_cleanup();
    mem_free(r);
    return NULL;
}

/* RFC 6761 section 6.3. IPv4 only: what listens on "localhost" rarely does on ::1, and half of a balancer's picks
 * would be refused. */
static bool is_localhost(struct str name)
{
    static const struct str suffix = STR_INIT(".localhost");
    return str_ieq(name, STR("localhost")) || (name.n > suffix.n && str_ieq(str_from(name, name.n - suffix.n), suffix));
}

static bool answer_literal(struct query *q, struct str name)
{
    struct addr a;
    if (name.n != 0 && name.p[name.n - 1] == '.')
        name.n--;
    if (!addr_from_ip(is_localhost(name) ? STR("127.0.0.1") : name, 0, &a))
        return false;
    add_addr(q, &a);
    q->answer.ttl = RESOLVE_LITERAL_TTL;
    return true;
}

void resolver_query(struct resolver *r, struct str name, void (*done)(void *arg, const struct resolve_answer *answer),
                    void *arg)
{
    ASSERT(!r->closing);
    struct query *q = mem_zalloc(sizeof(*q));
    q->resolver = r;
    q->done = done;
    q->arg = arg;
    loop_task_init(&q->task, on_task);
    list_push_back(&r->queries, &q->node);
    if (name.n == 0 || name.n > RESOLVE_NAME_MAX + 1 || memchr(name.p, '\0', name.n) != NULL) {
        q->answer.error = "not a host name";
        answered(q);
    } else if (answer_literal(q, name)) {
        answered(q);
    } else {
        char z[RESOLVE_NAME_MAX + 2];
        memcpy(z, name.p, name.n);
        z[name.n] = '\0';
        struct ares_addrinfo_hints hints = {
            .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = ARES_AI_NOSORT};
        ares_getaddrinfo(r->channel, z, NULL, &hints, on_answer, q);
        arm_timer(r);
    }
}

static void on_resolver_closed(struct loop_timer *timer) { mem_free(CONTAINER_OF(timer, struct resolver, timer)); }

void resolver_free(struct resolver *r)
{
    r->closing = true;
    ares_destroy(r->channel); /* answers every open query with an error */
    ares_library_cleanup();
    while (!list_is_empty(&r->queries)) {
        struct query *q = LIST_ENTRY(r->queries.next, struct query, node);
        ASSERT(q->answered);
        tell(q);
    }
    ASSERT(list_is_empty(&r->sockets));
    loop_timer_close(&r->timer, on_resolver_closed);
}
