/* SPDX-License-Identifier: Apache-2.0
 *
 * See http_server.h. One exchange at a time on a connection: the handler is asked once the request is whole, a moment
 * later in the turn, so that pipelined requests wait in the input instead of filling the output. What must never
 * happen: a client that sends or takes its bytes one by one and holds its place for ever; an owner of a deferred answer
 * that is told of its end twice, or touches a connection that is gone.
 */
#include "web/http_server.h"

#include <stdio.h>
#include <unistd.h>

#include "http/h1.h"

static const struct h1_limits server_limits = {.head_bytes = 32 * 1024,
                                               .uri_bytes = 8 * 1024,
                                               .headers = 100,
                                               .trailer_bytes = 8 * 1024,
                                               .chunk_ext_bytes = 256,
                                               .pipeline_bytes = 64 * 1024};
enum { OUTPUT_HIGH = 1024 * 1024, ARENA_MAX = 256 * 1024, POOL_KEEP = 16 };

struct http_server {
    struct loop *loop;
    struct http_server_options o;
    struct chunk_pool *pool;
    struct listener listener;
    struct list clients;
    size_t client_count;
    bool closing, listener_closed;
};
struct client {
    struct list node;
    struct http_server *server;
    struct conn conn;
    struct h1 h1;
    struct buf in, body;
    struct arena arena;
    bool arena_used;
    struct message *request;
    struct loop_timer idle;
    struct loop_task respond; /* the request is whole */
    struct loop_task pump;    /* there is room for output again */
    bool closed_conn, closed_timer, close_after_flush, dying;
    bool held; /* too much output: input waits */
    enum { ANSWER_NOW, ANSWER_LATER, ANSWER_STREAM } answer;
    bool deferred; /* the request at hand: handle is not the one that answers */
    void (*gone)(void *owner);
    void *owner;
    unsigned mark;
};

static const struct leg_ops request_ops;
static void client_close(struct client *c);
static void client_pump(struct client *c);

/* ---- one request ---- */

static struct arena *on_begin(struct h1 *h)
{
    struct client *c = CONTAINER_OF(h, struct client, h1);
    if (c->arena_used)
        arena_fini(&c->arena);
    arena_init(&c->arena, c->server->pool, ARENA_MAX);
    c->arena_used = true;
    c->request = NULL;
    buf_clear(&c->body);
    h->leg.ops = &request_ops;
    h->leg.stream = c;
    return &c->arena;
}

static void split_path(struct str path, struct http_request *r)
{
    ptrdiff_t q = str_find(path, '?');
    r->path = q < 0 ? path : str_upto(path, (size_t)q);
    r->query = q < 0 ? STR_NONE : str_from(path, (size_t)q + 1);
}

static void add_lines(struct headers *h, struct str lines)
{
    struct str rest = lines;
    while (rest.p != NULL && rest.n > 0) {
        struct str line = str_split(&rest, '\n');
        ptrdiff_t colon = str_find(line, ':');
        if (colon > 0)
            (void)!(headers_add(h, str_upto(line, (size_t)colon), str_trim(str_from(line, (size_t)colon + 1))) ==
                    HEADERS_OK);
    }
}

/* length < 0: not known yet. */
static void send_head(struct client *c, const struct http_response *r, int64_t length, bool end)
{
    struct message m = {.status = (uint16_t)r->status,
                        .version = 11,
                        .body = length < 0 ? BODY_CHUNKED : BODY_LENGTH,
                        .content_length = length < 0 ? 0 : (uint64_t)length};
    headers_init(&m.headers, &c->arena, 16 * 1024, 50);
    char text[24];
    snprintf(text, sizeof text, "%u", r->status);
    bool ok = headers_add(&m.headers, STR(":status"), str_of(text)) == HEADERS_OK;
    if (r->content_type != NULL)
        ok = headers_add(&m.headers, STR("content-type"), str_of(r->content_type)) == HEADERS_OK && ok;
    if (length >= 0) {
        snprintf(text, sizeof text, "%lld", (long long)length);
        ok = headers_add(&m.headers, STR("content-length"), str_of(text)) == HEADERS_OK && ok;
    }
    add_lines(&m.headers, strbuf_str(&r->headers));
    if (!ok || r->close || c->server->closing)
        c->h1.closing = true;
    c->h1.leg.codec->send_head(&c->h1.leg, &m, end);
}

static bool is_head_request(const struct client *c)
{
    return str_eq(headers_value(&c->request->headers, HDR_METHOD), STR("HEAD"));
}

static void send_bytes(struct client *c, struct str bytes, bool end)
{
    struct buf out;
    buf_init(&out, c->server->pool);
    buf_append(&out, bytes);
    c->h1.leg.codec->send_body(&c->h1.leg, &out, end);
    buf_fini(&out);
}

static void send_response(struct client *c, const struct http_response *r)
{
    bool empty = r->body.n == 0 || is_head_request(c);
    send_head(c, r, (int64_t)r->body.n, empty);
    if (!empty)
        send_bytes(c, strbuf_str(&r->body), true);
    c->h1.leg.codec->detach(&c->h1.leg, false);
}

static void response_free(struct http_response *r)
{
    strbuf_free(&r->body);
    strbuf_free(&r->headers);
}

static void answer(struct client *c)
{
    char *flat = mem_alloc(c->body.n + 1);
    buf_copy_out(&c->body, 0, c->body.n, flat);
    struct http_request r = {.msg = c->request,
                             .method = headers_value(&c->request->headers, HDR_METHOD),
                             .authority = headers_value(&c->request->headers, HDR_AUTHORITY),
                             .body = str_span(flat, c->body.n),
                             .peer = &c->conn.peer,
                             .local = &c->conn.local,
                             .mark = &c->mark,
                             .exchange = (struct http_exchange *)c};
    split_path(headers_value(&c->request->headers, HDR_PATH), &r);
    struct http_response response = {.status = 200, .content_type = "text/plain; charset=utf-8"};
    c->deferred = false;
    c->server->o.handle(c->server->o.arg, &r, &response);
    mem_free(flat);
    if (!c->deferred)
        send_response(c, &response);
    response_free(&response);
}

/* ---- answers that come later: an exchange is the client while its one request is being answered ---- */

static struct client *client_of(const struct http_exchange *x) { return (struct client *)(uintptr_t)x; }

void http_exchange_defer(struct http_exchange *x, void (*gone)(void *owner), void *owner)
{
    struct client *c = client_of(x);
    ASSERT(c->answer == ANSWER_NOW && c->request != NULL);
    c->answer = ANSWER_LATER;
    c->deferred = true;
    c->gone = gone;
    c->owner = owner;
    loop_timer_stop(&c->idle);
}

static void exchange_is_over(struct client *c)
{
    c->answer = ANSWER_NOW;
    c->gone = NULL;
    loop_timer_start(&c->idle, c->server->o.idle_ms);
    loop_defer(c->server->loop, &c->pump);
}

void http_exchange_answer(struct http_exchange *x, struct http_response *r)
{
    struct client *c = client_of(x);
    ASSERT(c->answer == ANSWER_LATER);
    send_response(c, r);
    response_free(r);
    exchange_is_over(c);
}

void http_exchange_begin(struct http_exchange *x, struct http_response *r)
{
    struct client *c = client_of(x);
    ASSERT(c->answer == ANSWER_LATER);
    c->answer = ANSWER_STREAM;
    send_head(c, r, -1, false);
    response_free(r);
    loop_timer_start(&c->idle, c->server->o.idle_ms);
    loop_defer(c->server->loop, &c->pump);
}

void http_exchange_send(struct http_exchange *x, struct str bytes)
{
    struct client *c = client_of(x);
    ASSERT(c->answer == ANSWER_STREAM);
    if (bytes.n == 0 || is_head_request(c))
        return;
    if (!loop_timer_is_active(&c->idle))
        loop_timer_start(&c->idle, c->server->o.idle_ms);
    send_bytes(c, bytes, false);
    loop_defer(c->server->loop, &c->pump);
}

size_t http_exchange_queued(const struct http_exchange *x) { return client_of(x)->conn.out.n; }

void http_exchange_end(struct http_exchange *x)
{
    struct client *c = client_of(x);
    ASSERT(c->answer == ANSWER_STREAM);
    send_bytes(c, STR_NONE, true);
    c->h1.leg.codec->detach(&c->h1.leg, false);
    exchange_is_over(c);
}

static void on_respond(struct loop_task *task)
{
    struct client *c = CONTAINER_OF(task, struct client, respond);
    /* Time to take this answer and to send the next request. */
    loop_timer_start(&c->idle, c->server->o.idle_ms);
    answer(c);
    client_pump(c);
}

static void request_whole(struct client *c) { loop_defer(c->server->loop, &c->respond); }

static void refuse_body(struct client *c)
{
    h1_send_error(&c->h1, 413, STR("request body too large\n"));
    c->close_after_flush = true;
}

static void on_head(void *stream, struct message *msg, bool end)
{
    struct client *c = stream;
    c->request = msg;
    if (msg->body == BODY_LENGTH && msg->content_length > c->server->o.max_body) {
        refuse_body(c);
        return;
    }
    if (msg->expect_continue) {
        struct message m = {.status = 100, .version = 11, .body = BODY_NONE};
        headers_init(&m.headers, &c->arena, 1024, 4);
        if (headers_add(&m.headers, STR(":status"), STR("100")) == HEADERS_OK)
            c->h1.leg.codec->send_interim(&c->h1.leg, &m);
    }
    if (end || msg->upgrade) /* nothing here upgrades: it is answered as if it had not asked */
        request_whole(c);
}

static void on_body(void *stream, struct buf *data, bool end)
{
    struct client *c = stream;
    if (c->body.n + data->n > c->server->o.max_body) {
        buf_clear(data);
        refuse_body(c);
        return;
    }
    buf_move(&c->body, data, data->n);
    if (end)
        request_whole(c);
}

static void on_trailers(void *stream, struct headers *trailers)
{
    (void)trailers;
    request_whole(stream);
}
static void on_reset(void *stream, enum leg_error why)
{
    struct client *c = stream;
    (void)why;
    loop_task_cancel(&c->respond);
    c->close_after_flush = true;
}
static void on_drain(void *stream) { (void)stream; }
static void on_interim(void *stream, struct message *msg)
{
    (void)stream;
    (void)msg;
}
static const struct leg_ops request_ops = {on_head, on_interim, on_body, on_trailers, on_reset, on_drain};

/* ---- connection ---- */

static void on_bad_request(struct h1 *h, enum leg_error error, const char *why)
{
    struct client *c = CONTAINER_OF(h, struct client, h1);
    (void)error;
    h1_send_error(h, h->bad_status != 0 ? h->bad_status : 400, str_of(why != NULL ? why : "bad request"));
    c->close_after_flush = true;
}
static void on_output(struct h1 *h) { (void)h; }
static void on_read_state(struct h1 *h) { (void)h; }
static void on_exchange_end(struct h1 *h, bool reusable)
{
    struct client *c = CONTAINER_OF(h, struct client, h1);
    if (!reusable)
        c->close_after_flush = true;
}
static const struct h1_ops codec_ops = {on_begin, on_bad_request, on_output, on_read_state, on_exchange_end};

static void client_flush(struct client *c)
{
    enum io_result r = conn_flush(&c->conn);
    if (r == IO_FAIL || (r == IO_OK && c->close_after_flush)) {
        client_close(c);
        return;
    }
    if (r != IO_OK)
        return;
    if (c->answer == ANSWER_STREAM)
        loop_timer_stop(&c->idle); /* it took all there is; the next piece may be long in coming */
    h1_output_drained(&c->h1);
    if (c->held) {
        c->held = false;
        loop_defer(c->server->loop, &c->pump);
    }
}

static void client_pump(struct client *c)
{
    c->held = c->conn.out.n > OUTPUT_HIGH;
    if (!c->held && !h1_input(&c->h1, &c->in))
        c->close_after_flush = true;
    conn_want_read(&c->conn, !c->held && !c->close_after_flush && h1_wants_input(&c->h1));
    client_flush(c);
}
static void on_pump(struct loop_task *task) { client_pump(CONTAINER_OF(task, struct client, pump)); }

static void on_readable(struct conn *conn)
{
    struct client *c = CONTAINER_OF(conn, struct client, conn);
    size_t got = 0;
    enum io_result r = conn_read(conn, &c->in, CHUNK_SIZE, &got);
    if (r == IO_AGAIN)
        return;
    if (r == IO_OK) {
        client_pump(c);
        return;
    }
    if (r == IO_EOF && c->answer != ANSWER_STREAM) { /* what it sent is still answered */
        h1_eof(&c->h1);
        conn_want_read(&c->conn, false);
        if (h1_is_idle(&c->h1))
            c->close_after_flush = true;
        client_pump(c);
        return;
    }
    client_close(c);
}
static void on_writable(struct conn *conn) { client_flush(CONTAINER_OF(conn, struct client, conn)); }
static void on_connected(struct conn *conn, int error)
{
    (void)conn;
    (void)error;
}
static void on_hangup(struct conn *conn)
{
    struct client *c = CONTAINER_OF(conn, struct client, conn);
    bool answering =
        c->answer == ANSWER_LATER || list_is_linked(&c->respond.node) || (c->answer == ANSWER_NOW && conn->out.n > 0);
    if (conn->error == 0 && answering)
        return; /* it has only finished sending, maybe: it gets its answer */
    client_close(c);
}
static const struct conn_ops client_conn_ops = {on_readable, on_writable, on_connected, on_hangup};

static void server_maybe_free(struct http_server *s)
{
    if (!s->closing || !s->listener_closed || s->client_count > 0)
        return;
    chunk_pool_free(s->pool);
    mem_free(s);
}

static void client_maybe_free(struct client *c)
{
    if (!c->closed_conn || !c->closed_timer)
        return;
    struct http_server *s = c->server;
    buf_fini(&c->in);
    buf_fini(&c->body);
    if (c->arena_used)
        arena_fini(&c->arena);
    list_remove(&c->node);
    s->client_count--;
    mem_free(c);
    server_maybe_free(s);
}
static void conn_closed(struct conn *conn)
{
    struct client *c = CONTAINER_OF(conn, struct client, conn);
    c->closed_conn = true;
    client_maybe_free(c);
}
static void timer_closed(struct loop_timer *timer)
{
    struct client *c = CONTAINER_OF(timer, struct client, idle);
    c->closed_timer = true;
    client_maybe_free(c);
}

static void client_close(struct client *c)
{
    if (c->dying)
        return;
    c->dying = true;
    void (*gone)(void *owner) = c->answer != ANSWER_NOW ? c->gone : NULL;
    c->answer = ANSWER_NOW;
    h1_fail(&c->h1, LEG_CLOSED);
    loop_task_cancel(&c->respond);
    loop_task_cancel(&c->pump);
    loop_timer_close(&c->idle, timer_closed);
    conn_close(&c->conn, false, conn_closed);
    if (gone != NULL)
        gone(c->owner);
}

static void on_idle(struct loop_timer *timer) { client_close(CONTAINER_OF(timer, struct client, idle)); }

static void on_accept(struct listener *l, int fd, const struct addr *peer)
{
    struct http_server *s = l->owner;
    if (s->client_count >= s->o.max_connections || s->closing) {
        close(fd);
        return;
    }
    struct client *c = mem_zalloc(sizeof *c);
    c->server = s;
    if (!conn_init(&c->conn, s->loop, fd, s->pool, &client_conn_ops)) {
        mem_free(c);
        return;
    }
    c->conn.peer = *peer;
    list_init(&c->node);
    list_push_back(&s->clients, &c->node);
    s->client_count++;
    buf_init(&c->in, s->pool);
    buf_init(&c->body, s->pool);
    h1_init(&c->h1, H1_SERVER, &server_limits, &c->conn.out, OUTPUT_HIGH, &codec_ops);
    loop_task_init(&c->respond, on_respond);
    loop_task_init(&c->pump, on_pump);
    loop_timer_init(&c->idle, s->loop, on_idle);
    loop_timer_start(&c->idle, s->o.idle_ms);
    conn_want_read(&c->conn, true);
}

struct http_server *http_server_new(struct loop *loop, int fd, const struct http_server_options *options)
{
    struct http_server *s = mem_zalloc(sizeof *s);
    s->loop = loop;
    s->o = *options;
    s->pool = chunk_pool_new(POOL_KEEP);
    list_init(&s->clients);
    listener_init(&s->listener, loop, fd, on_accept, s);
    return s;
}

static void listener_closed(struct listener *l)
{
    struct http_server *s = l->owner;
    s->listener_closed = true;
    server_maybe_free(s);
}

void http_server_free(struct http_server *s)
{
    s->closing = true;
    LIST_EACH (n, &s->clients)
        client_close(LIST_ENTRY(n, struct client, node));
    listener_close(&s->listener, listener_closed);
}
