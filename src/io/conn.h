/* SPDX-License-Identifier: Apache-2.0
 *
 * A socket and its transport. conn moves bytes between the socket and buffers and tells its owner what happened;
 * it knows no protocol. Polls are level-triggered, and the interest is kept so that a request costs no epoll_ctl:
 * READ stays armed while the owner has room, WRITE is armed only when the kernel would not take more.
 *
 * Lifetime: the owner embeds struct conn. conn_close stops everything at once and calls `closed` from the loop
 * later, never from inside; only then may the memory go. After conn_close no other callback runs.
 *
 * TLS, PROXY protocol and NETWORK plugins will be transports and byte filters between here and the socket.
 */
#ifndef WEIR_IO_CONN_H
#define WEIR_IO_CONN_H

#include <netinet/in.h>
#include <sys/socket.h>

#include "base/buf.h"
#include "io/loop.h"

struct addr {
    union {
        struct sockaddr sa;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
        struct sockaddr_storage ss;
    } u;
};
enum { ADDR_TEXT_MAX = 64 };
/* "1.2.3.4:80", "[::1]:80", ":80" (all addresses: [::], where IPv4 arrives too). */
NODISCARD bool addr_parse(struct str text, struct addr *out);
/* IP literal and port. */
NODISCARD bool addr_from_ip(struct str ip, uint16_t port, struct addr *out);
socklen_t addr_len(const struct addr *a);
uint16_t addr_port(const struct addr *a);
bool addr_is_loopback(const struct addr *a);
/* 0.0.0.0 or [::]. */
bool addr_is_any(const struct addr *a);
bool addr_eq(const struct addr *a, const struct addr *b);
/* "::ffff:1.2.3.4" becomes plain IPv4. */
void addr_unmap(struct addr *a);
/* "ip:port" ("[ip]:port" for v6; "local" when it is neither, as a socket pair's); returns the length written. Without
 * port when !with_port. */
size_t addr_format(const struct addr *a, bool with_port, char out[ADDR_TEXT_MAX]);

enum io_result { IO_OK, IO_AGAIN, IO_EOF, IO_FAIL };

struct conn;
struct conn_ops {
    /* The socket has bytes, or its end: call conn_read. Called again while unread (level-triggered). */
    void (*on_readable)(struct conn *c);
    /* The kernel took everything of c->out (only after a flush that could not finish). */
    void (*on_writable)(struct conn *c);
    /* conn_connect finished; error is 0 or an errno value. */
    void (*on_connected)(struct conn *c, int error);
    /* The peer is gone while READ was disarmed: reset (c->error is set), or it sent FIN (c->error is 0; most peers that
     * do so are gone, a few only finished sending). Once for each of the two. What it sent may still be read. */
    void (*on_hangup)(struct conn *c);
};

struct conn {
    uv_poll_t poll;
    struct loop *loop;
    const struct conn_ops *ops;
    void (*closed)(struct conn *c);
    struct buf out; /* bytes for the peer, not yet taken by the kernel */
    struct addr peer, local;
    int fd;
    int interest; /* UV_READABLE | UV_WRITABLE | UV_DISCONNECT as told to libuv */
    bool connecting, closing;
    bool in_event;  /* an event is being told: the interest changes once, after it */
    bool read_eof;  /* the peer sent FIN */
    bool write_eof; /* we sent FIN */
    bool want_read;
    bool want_write;  /* a flush could not finish */
    bool drained;     /* the last conn_read was short: the socket is empty, no need to read again in this event */
    bool hangup_told; /* on_hangup ran for FIN */
    int error;        /* errno of the failure that ended it; 0 none */
    uint64_t bytes_in, bytes_out;
};

/* Takes fd (non-blocking, connected). TCP_NODELAY is set. Nothing is watched until the first conn_want_read. false: the
 * descriptor could not be watched; fd is closed. */
NODISCARD bool conn_init(struct conn *c, struct loop *loop, int fd, struct chunk_pool *pool,
                         const struct conn_ops *ops);
/* Begins to connect. false: refused at once (c->error), nothing to close. May not call back before returning. */
NODISCARD bool conn_connect(struct conn *c, struct loop *loop, const struct addr *to, struct chunk_pool *pool,
                            const struct conn_ops *ops);
/* Arms or disarms reading. While disarmed, on_hangup still tells of a peer that went away. */
void conn_want_read(struct conn *c, bool on);
/* One read of at most max bytes (one chunk's room) into in. IO_OK: some bytes, *got says how many; a short read means
 * that the socket is empty, so do not read again before the next on_readable. */
enum io_result conn_read(struct conn *c, struct buf *in, size_t max, size_t *got);
/* Is the connection as it should be while nothing is asked: nothing to read, not even its end? A system call. */
bool conn_is_quiet(const struct conn *c);
/* Writes as much of c->out as the kernel takes; arms WRITE for the rest (then on_writable). IO_OK: all written;
 * IO_AGAIN: some left; IO_FAIL: c->error. Never calls back before returning. */
enum io_result conn_flush(struct conn *c);
/* FIN after what is in out has been flushed by the caller. To let a peer that still sends see the last response, do
 * this, read on for a while, and only then close: the kernel answers a close with unread input by RST. */
void conn_shutdown(struct conn *c);
/* reset: RST instead of FIN. closed may be NULL (embedded in static memory). Safe to call twice. */
void conn_close(struct conn *c, bool reset, void (*closed)(struct conn *c));

#endif
