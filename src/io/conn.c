/* SPDX-License-Identifier: Apache-2.0
 *
 * Sockets on uv_poll. What makes it hard is that polls are level-triggered and that libuv gives up a handle on
 * EPOLLERR: whatever the owner does not want to read now (pipelined bytes, the end of the stream) must be disarmed or
 * the loop spins, while a peer that goes away must still be noticed; and after an error the bytes that came before it
 * can still be read. Each uv_poll_start costs two system calls, so the interest told to libuv is kept and changed
 * late, after the callbacks that may change it back. Never here: a close of the descriptor before libuv let it go, a
 * callback from inside a call of the owner, a callback after conn_close.
 */
#include "io/conn.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <unistd.h>

enum {
    CONN_IOVECS = 64,
    CONN_READ_MIN = 4096, /* less room than this in the last chunk: read into a fresh one */
};

static void on_poll(uv_poll_t *poll, int status, int events);

/* ---- interest ---- */

static int wanted_events(const struct conn *c)
{
    if (c->connecting)
        return UV_WRITABLE;
    int events = 0;
    if (c->want_read && !c->read_eof)
        events |= UV_READABLE;
    /* FIN shows as long as it is unread: tell once. */
    if (!c->want_read && !c->read_eof && !c->hangup_told)
        events |= UV_DISCONNECT;
    if (c->want_write && c->error == 0)
        events |= UV_WRITABLE;
    return events;
}

static void update_interest(struct conn *c)
{
    int events = wanted_events(c);
    if (c->closing || c->in_event || events == c->interest)
        return;
    c->interest = events;
    if (events == 0)
        uv_poll_stop(&c->poll);
    else
        ASSERT(uv_poll_start(&c->poll, events, on_poll) == 0);
}

static int socket_error(int fd)
{
    int error = 0;
    socklen_t n = sizeof(error);
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &n) != 0)
        return errno;
    return error;
}

/* ---- beginning ---- */

static bool watch(struct conn *c, struct loop *loop, int fd, struct chunk_pool *pool, const struct conn_ops *ops)
{
    *c = (struct conn){.loop = loop, .ops = ops, .fd = fd};
    buf_init(&c->out, pool);
    int on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)); /* fails on what is no TCP, which is fine */
    int result = uv_poll_init(&loop->uv, &c->poll, fd);
    if (result == 0)
        return true;
    c->error = -result;
    c->fd = -1;
    c->closing = true;
    close(fd);
    return false;
}

static void ask_local(struct conn *c)
{
    socklen_t n = sizeof(c->local.u);
    if (getsockname(c->fd, &c->local.u.sa, &n) == 0)
        addr_unmap(&c->local);
}

bool conn_init(struct conn *c, struct loop *loop, int fd, struct chunk_pool *pool, const struct conn_ops *ops)
{
    if (!watch(c, loop, fd, pool, ops))
        return false;
    ask_local(c);
    socklen_t n = sizeof(c->peer.u);
    if (getpeername(fd, &c->peer.u.sa, &n) == 0)
        addr_unmap(&c->peer);
    /* Not armed yet: most owners want to read at once, and that is one change instead of two. */
    return true;
}

bool conn_connect(struct conn *c, struct loop *loop, const struct addr *to, struct chunk_pool *pool,
                  const struct conn_ops *ops)
{
    int error;
    int fd = socket(to->u.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0 && (connect(fd, &to->u.sa, addr_len(to)) == 0 || errno == EINPROGRESS || errno == EINTR)) {
        if (!watch(c, loop, fd, pool, ops))
            return false;
        c->peer = *to;
        c->connecting = true;
        update_interest(c);
        return true;
    }
    error = errno;
    if (fd >= 0)
        close(fd);
    *c = (struct conn){.loop = loop, .ops = ops, .fd = -1, .closing = true, .error = error};
    buf_init(&c->out, pool);
    return false;
}

/* ---- events ---- */

/* The connection is lost. The owner hears of it as of anything else: by reading, or as a hang-up. */
static void tell_loss(struct conn *c)
{
    if (c->want_read && !c->read_eof)
        c->ops->on_readable(c);
    else
        c->ops->on_hangup(c);
}

static void finish_connect(struct conn *c, bool failed)
{
    int error = socket_error(c->fd);
    if (error == 0 && failed)
        error = ECONNABORTED;
    c->connecting = false;
    c->error = error;
    if (error == 0)
        ask_local(c);
    else
        c->read_eof = true; /* nothing will ever come */
    c->ops->on_connected(c, error);
}

/* EPOLLERR: libuv has stopped the handle. */
static void lose(struct conn *c)
{
    bool again = c->error != 0;
    int error = socket_error(c->fd);
    if (c->error == 0)
        c->error = error != 0 ? error : ECONNRESET;
    c->hangup_told = true; /* the descriptor reads as hung up from now on */
    tell_loss(c);
    /* What came before the error is still to be read, so READ is armed again by our caller; but an error that asking
     * for it does not clear would come back for ever. */
    if (again && !c->closing)
        c->read_eof = true;
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct conn *c = CONTAINER_OF(poll, struct conn, poll);
    if (status < 0)
        c->interest = 0;
    c->in_event = true;
    if (c->connecting) {
        finish_connect(c, status < 0);
    } else if (status < 0) {
        lose(c);
    } else {
        if ((events & UV_WRITABLE) != 0 && c->want_write) {
            enum io_result result = conn_flush(c);
            if (result == IO_OK)
                c->ops->on_writable(c);
            else if (result == IO_FAIL)
                tell_loss(c);
        }
        if (!c->closing && (events & UV_READABLE) != 0 && c->want_read && !c->read_eof)
            c->ops->on_readable(c);
        if (!c->closing && (events & UV_DISCONNECT) != 0 && !c->want_read && !c->hangup_told) {
            c->hangup_told = true;
            c->ops->on_hangup(c);
        }
    }
    c->in_event = false;
    update_interest(c);
}

void conn_want_read(struct conn *c, bool on)
{
    if (c->closing)
        return;
    c->want_read = on;
    update_interest(c);
}

/* ---- bytes ---- */

enum io_result conn_read(struct conn *c, struct buf *in, size_t max, size_t *got)
{
    *got = 0;
    c->drained = true;
    if (c->closing || c->connecting)
        return c->closing ? IO_FAIL : IO_AGAIN;
    if (c->read_eof)
        return c->error != 0 ? IO_FAIL : IO_EOF;
    ASSERT(max != 0);
    size_t room;
    char *to = buf_reserve(in, max < CONN_READ_MIN ? max : CONN_READ_MIN, &room);
    if (room > max)
        room = max;
    ssize_t n;
    do
        n = recv(c->fd, to, room, 0);
    while (n < 0 && errno == EINTR);
    int error = n < 0 ? errno : 0;
    buf_commit(in, n > 0 ? (size_t)n : 0);
    if (n > 0) {
        *got = (size_t)n;
        c->bytes_in += (uint64_t)n;
        c->drained = *got < room;
        return IO_OK;
    }
    if (n < 0 && error == EAGAIN && c->error == 0)
        return IO_AGAIN;
    /* The end. Disarming waits for the end of the event: mostly the owner closes now. */
    c->read_eof = true;
    if (n < 0 && error != EAGAIN && c->error == 0)
        c->error = error;
    return c->error != 0 ? IO_FAIL : IO_EOF;
}

bool conn_is_quiet(const struct conn *c)
{
    char byte;

    return !c->closing && !c->read_eof && c->error == 0 && recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 &&
           errno == EAGAIN;
}

static ssize_t send_some(struct conn *c, size_t *asked)
{
    struct iovec iov[CONN_IOVECS];
    int count = buf_iovec(&c->out, iov, CONN_IOVECS);
    *asked = 0;
    for (int i = 0; i < count; i++)
        *asked += iov[i].iov_len;
    ssize_t n;
    do {
        if (count == 1) {
            n = send(c->fd, iov[0].iov_base, iov[0].iov_len, MSG_NOSIGNAL);
        } else {
            struct msghdr msg = {.msg_iov = iov, .msg_iovlen = (size_t)count};
            n = sendmsg(c->fd, &msg, MSG_NOSIGNAL);
        }
    } while (n < 0 && errno == EINTR);
    return n;
}

enum io_result conn_flush(struct conn *c)
{
    if (c->closing || c->error != 0)
        return IO_FAIL;
    while (c->out.n != 0 && !c->connecting) {
        size_t asked;
        ssize_t n = send_some(c, &asked);
        if (n < 0 && errno != EAGAIN) {
            c->error = errno;
            return IO_FAIL;
        }
        if (n > 0) {
            buf_consume(&c->out, (size_t)n);
            c->bytes_out += (uint64_t)n;
        }
        if (n < (ssize_t)asked)
            break;
    }
    c->want_write = c->out.n != 0;
    update_interest(c);
    return c->out.n != 0 ? IO_AGAIN : IO_OK;
}

void conn_shutdown(struct conn *c)
{
    if (c->closing || c->write_eof)
        return;
    c->write_eof = true;
    (void)shutdown(c->fd, SHUT_WR); /* fails only where the peer is gone already, which reading will tell */
}

/* ---- end ---- */

static void on_closed(uv_handle_t *handle)
{
    struct conn *c = CONTAINER_OF(handle, struct conn, poll);
    if (c->closed != NULL)
        c->closed(c);
}

void conn_close(struct conn *c, bool reset, void (*closed)(struct conn *c))
{
    if (c->closing)
        return;
    c->closing = true;
    c->closed = closed;
    c->want_read = c->want_write = c->connecting = false;
    c->interest = 0;
    uv_close((uv_handle_t *)&c->poll, on_closed); /* takes the descriptor out of the poll set now */
    if (reset) {
        struct linger now = {.l_onoff = 1, .l_linger = 0};
        (void)setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    }
    close(c->fd);
    c->fd = -1;
    buf_fini(&c->out);
}
