/* SPDX-License-Identifier: Apache-2.0
 *
 * A small HTTP/1.1 server on a loop, over the same codec as the proxy: whole requests in, whole responses out. For the
 * admin paths (and the echo upstream), not for traffic. Bounded: connections, head, body, and the time a client may
 * take.
 */
#ifndef WEIR_WEB_HTTP_SERVER_H
#define WEIR_WEB_HTTP_SERVER_H

#include "http/message.h"
#include "io/listener.h"

struct http_request {
    const struct message *msg;
    struct str method, path /* without query */, query, authority, body;
    const struct addr *peer;
};
struct http_response {
    unsigned status;
    const char *content_type;
    struct strbuf body;    /* the handler fills it; freed by the server */
    struct strbuf headers; /* more headers as "name: value\n" lines */
    bool close;
};

struct http_server;
struct http_server_options {
    size_t max_connections, max_body;
    uint64_t idle_ms; /* for a whole exchange: to send a request, to take its answer and to send the next */
    void (*handle)(void *arg, const struct http_request *request, struct http_response *response);
    void *arg;
};
/* Takes fd (listening). */
struct http_server *http_server_new(struct loop *loop, int fd, const struct http_server_options *options);
/* Closes the listener and every connection. The memory goes when the loop has closed the handles. */
void http_server_free(struct http_server *s);

#endif
