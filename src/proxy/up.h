/* SPDX-License-Identifier: Apache-2.0
 *
 * A connection to an endpoint: conn + HTTP/1 codec, serving one exchange after another. Private to up.c (its life and
 * bytes) and pool.c (who gets it).
 */
#ifndef WEIR_PROXY_UP_H
#define WEIR_PROXY_UP_H

#include "http/h1.h"
#include "proxy/pool.h"

enum up_state { UP_CONNECTING, UP_BUSY, UP_IDLE, UP_CLOSED };

struct up {
    struct conn conn;
    struct list node; /* endpoint->idle or ->busy */
    struct list all;  /* worker->ups */
    struct worker *worker;
    struct endpoint *endpoint;  /* one reference */
    struct up_request *request; /* who waits while it connects; NULL: nobody any more */
    struct h1 h1;
    struct h1_limits limits;
    struct buf in;
    struct loop_task work;
    struct loop_timer timer;
    uint64_t timer_at; /* loop ms; UINT64_MAX: not armed */
    uint64_t since;    /* connecting or idle since */
    uint64_t connect_timeout, idle_timeout, max_idle;
    enum up_state state;
    bool feed, answered;
    unsigned exchanges, closing;
};

/* Begins to connect; NULL when refused at once. */
struct up *up_connect(struct worker *w, struct endpoint *endpoint, const struct limits *limits);
struct leg *up_begin(struct up *up, const struct up_request *request);
/* Frees it later. The stream on it, if any, is told. */
void up_close(struct up *up, bool reset);

/* pool.c: */
/* Connected, or (error) never will be. */
void pool_connected(struct up *up, int error);
/* Its exchange is over and it may serve another. */
void pool_give_back(struct up *up);
void pool_forget(struct up *up);

#endif
