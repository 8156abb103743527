/* SPDX-License-Identifier: Apache-2.0
 *
 * A small HTTP/1.1 server on a loop, over the same codec as the proxy: whole requests in; answers whole, later, or piece
 * by piece. For the admin paths, the Kubernetes API (and the echo upstream), not for traffic. Bounded: connections,
 * head, body, and the time a client may take.
 */
#ifndef WEIR_WEB_HTTP_SERVER_H
#define WEIR_WEB_HTTP_SERVER_H

#include "http/message.h"
#include "io/listener.h"

struct http_exchange;
struct http_request {
    const struct message *msg;
    struct str method, path /* without query */, query, authority, body;
    const struct addr *peer, *local;
    unsigned *mark; /* the handler's own: 0 at first, kept as long as the connection */
    struct http_exchange *exchange;
};
struct http_response {
    unsigned status;
    const char *content_type;
    struct strbuf body;    /* the handler fills it; freed by the server */
    struct strbuf headers; /* more headers as "name: value\n" lines */
    bool close;
};

/* An answer that does not come from inside handle: the handler calls http_exchange_defer, and `response` is not looked
 * at. Then either http_exchange_answer once, or http_exchange_begin, http_exchange_send any number of times and
 * http_exchange_end. The exchange is not to be touched after its answer, its end, or gone. None of these calls back
 * before it returns.
 *
 * gone: the client went away, or the server is being freed. While an answer is streamed a client that only finished
 * sending counts as gone too. NULL is allowed: what is sent then goes nowhere. */
void http_exchange_defer(struct http_exchange *x, void (*gone)(void *owner), void *owner);
/* Takes the memory of r's body and headers. */
void http_exchange_answer(struct http_exchange *x, struct http_response *r);
/* Status, content type and headers; the body is of unknown length. Takes the memory of headers. */
void http_exchange_begin(struct http_exchange *x, struct http_response *r);
void http_exchange_send(struct http_exchange *x, struct str bytes);
/* Bytes the client has not taken yet: the owner bounds them. A client that has not taken all of it after idle_ms is closed. */
size_t http_exchange_queued(const struct http_exchange *x);
void http_exchange_end(struct http_exchange *x);

struct http_server;
struct http_server_options {
    size_t max_connections, max_body;
    uint64_t idle_ms; /* for a whole exchange: to send a request, to take its answer and to send the next. A deferred
                         answer and what is streamed may take longer */
    void (*handle)(void *arg, const struct http_request *request, struct http_response *response);
    void *arg;
};
/* Takes fd (listening). */
struct http_server *http_server_new(struct loop *loop, int fd, const struct http_server_options *options);
/* Closes the listener and every connection. The memory goes when the loop has closed the handles. */
void http_server_free(struct http_server *s);

#endif
