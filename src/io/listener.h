/* SPDX-License-Identifier: Apache-2.0
 *
 * A listening TCP socket of one worker (SO_REUSEPORT: one for each worker). Outlives snapshots: it is keyed by its
 * address and closed only at drain or when no Gateway has it any more.
 */
#ifndef WEIR_IO_LISTENER_H
#define WEIR_IO_LISTENER_H

#include "io/conn.h"

struct listener {
    uv_poll_t poll;
    struct loop *loop;
    int fd;
    struct addr addr;
    struct loop_timer backoff; /* EMFILE/ENFILE/ENOMEM: rest a while instead of spinning */
    /* Takes fd (non-blocking, close-on-exec). */
    void (*on_accept)(struct listener *l, int fd, const struct addr *peer);
    void (*closed)(struct listener *l);
    void *owner;
    bool paused;
    int closing;
};

/* Control thread: is the address free for us? Binds once without SO_REUSEPORT and lets go, so that a second Weir
 * on the same address is refused. Returns 0 or an errno value. */
int listener_probe(const struct addr *addr);
/* Control thread: opens a bound, listening, non-blocking SO_REUSEPORT socket; -1 and errno on failure. */
int listener_open(const struct addr *addr, int backlog);
/* Takes fd. Accepts at most 16 connections a turn. */
void listener_init(struct listener *l, struct loop *loop, int fd,
                   void (*on_accept)(struct listener *l, int fd, const struct addr *peer), void *owner);
void listener_pause(struct listener *l, bool on);
/* Accepts what the kernel has already queued (until EAGAIN), which calls on_accept from inside, then closes: no
 * connection is reset. `closed` comes later from the loop. */
void listener_close(struct listener *l, void (*closed)(struct listener *l));

#endif
