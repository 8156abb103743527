/* SPDX-License-Identifier: Apache-2.0
 *
 * Accepting. A SO_REUSEPORT socket has a queue of its own, and closing it resets what waits there: so listeners live
 * long, and take everything in before they close. When descriptors or memory run out the queue stays readable, so the
 * listener rests instead of spinning. It must never share an address with another process by accident, which
 * SO_REUSEPORT would allow: listener_probe asks first.
 */
#include "io/listener.h"

#include <errno.h>
#include <unistd.h>

enum {
    LISTENER_BURST = 16,        /* accepts in a turn, so that connections already here get theirs */
    LISTENER_REST_MS = 100,     /* out of descriptors or memory */
    LISTENER_LAST_BURST = 65536 /* at closing: more than any backlog */
};

enum accepted { ACCEPTED, ACCEPT_AGAIN, ACCEPT_REST };

/* ---- control thread ---- */

/* Bound, not listening; -1 and errno. */
static int open_bound(const struct addr *addr, bool reuseport)
{
    int fd = socket(addr->u.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    int on = 1, off = 0;
    /* REUSEADDR: connections in TIME_WAIT do not matter; a socket that listens still refuses us. */
    bool ok = setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0;
    ok = ok && (!reuseport || setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) == 0);
    if (addr->u.sa.sa_family == AF_INET6)
        ok = ok && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)) == 0;
    if (ok && bind(fd, &addr->u.sa, addr_len(addr)) == 0)
        return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

/* [::] on a machine without IPv6 means 0.0.0.0. */
static int open_any(const struct addr *addr, bool reuseport)
{
    int fd = open_bound(addr, reuseport);
    bool no_v6 = errno == EAFNOSUPPORT || errno == EADDRNOTAVAIL;
    struct addr v4;
    if (fd >= 0 || !no_v6 || addr->u.sa.sa_family != AF_INET6 || !addr_is_any(addr) ||
        !addr_from_ip(STR("0.0.0.0"), addr_port(addr), &v4))
        return fd;
    return open_bound(&v4, reuseport);
}

int listener_probe(const struct addr *addr)
{
    int fd = open_any(addr, false);
    if (fd < 0)
        return errno;
    close(fd);
    return 0;
}

int listener_open(const struct addr *addr, int backlog)
{
    int fd = open_any(addr, true);
    if (fd < 0 || listen(fd, backlog) == 0)
        return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

/* ---- worker ---- */

static void on_poll(uv_poll_t *poll, int status, int events);

static void watch(struct listener *l) { ASSERT(uv_poll_start(&l->poll, UV_READABLE, on_poll) == 0); }

static enum accepted accept_one(struct listener *l)
{
    struct addr peer;
    socklen_t n = sizeof(peer.u);
    memset(&peer, 0, sizeof(peer));
    int fd = accept4(l->fd, &peer.u.sa, &n, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
        addr_unmap(&peer);
        l->on_accept(l, fd, &peer);
        return ACCEPTED;
    }
    switch (errno) {
    case EAGAIN: return ACCEPT_AGAIN;
    case EINTR:
    case ECONNABORTED:
    case EPERM:
    case EPROTO:
    case ENOPROTOOPT:
    case EOPNOTSUPP:
    case ENETDOWN:
    case ENETUNREACH:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case ENONET: return ACCEPTED; /* that one connection broke in the queue (accept(2)); go on with the next */
    default: return ACCEPT_REST;  /* EMFILE, ENFILE, ENOBUFS, ENOMEM */
    }
}

static void rest(struct listener *l)
{
    uv_poll_stop(&l->poll);
    loop_timer_start(&l->backoff, LISTENER_REST_MS);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct listener *l = CONTAINER_OF(poll, struct listener, poll);
    (void)events;
    if (status < 0) {
        rest(l);
        return;
    }
    for (int i = 0; i < LISTENER_BURST && !l->paused && l->closing == 0; i++) {
        enum accepted result = accept_one(l);
        if (result == ACCEPT_REST && l->closing == 0)
            rest(l);
        if (result != ACCEPTED)
            return;
    }
}

static void on_backoff(struct loop_timer *timer)
{
    struct listener *l = CONTAINER_OF(timer, struct listener, backoff);
    if (!l->paused)
        watch(l);
}

void listener_init(struct listener *l, struct loop *loop, int fd,
                   void (*on_accept)(struct listener *l, int fd, const struct addr *peer), void *owner)
{
    *l = (struct listener){.loop = loop, .fd = fd, .on_accept = on_accept, .owner = owner};
    socklen_t n = sizeof(l->addr.u);
    (void)getsockname(fd, &l->addr.u.sa, &n);
    ASSERT(uv_poll_init(&loop->uv, &l->poll, fd) == 0);
    loop_timer_init(&l->backoff, loop, on_backoff);
    watch(l);
}

void listener_pause(struct listener *l, bool on)
{
    if (l->paused == on || l->closing != 0 || l->fd < 0)
        return;
    l->paused = on;
    if (on)
        uv_poll_stop(&l->poll);
    else if (!loop_timer_is_active(&l->backoff))
        watch(l);
}

static void one_closed(struct listener *l)
{
    if (--l->closing == 0 && l->closed != NULL)
        l->closed(l);
}

static void on_poll_closed(uv_handle_t *handle) { one_closed(CONTAINER_OF(handle, struct listener, poll)); }

static void on_backoff_closed(struct loop_timer *timer) { one_closed(CONTAINER_OF(timer, struct listener, backoff)); }

void listener_close(struct listener *l, void (*closed)(struct listener *l))
{
    if (l->closing != 0 || l->fd < 0)
        return;
    l->closing = 2; /* the poll handle and the timer */
    l->closed = closed;
    for (int i = 0; i < LISTENER_LAST_BURST && accept_one(l) == ACCEPTED; i++)
        continue;
    uv_close((uv_handle_t *)&l->poll, on_poll_closed);
    loop_timer_close(&l->backoff, on_backoff_closed);
    close(l->fd);
    l->fd = -1;
}
