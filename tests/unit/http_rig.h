/* SPDX-License-Identifier: Apache-2.0
 *
 * A client for tests of servers on a loop: bytes out, bytes in, on the test's own thread between turns of the loop.
 */
#ifndef WEIR_TESTS_HTTP_RIG_H
#define WEIR_TESTS_HTTP_RIG_H

#include "loop_test.h"

#include "web/http_server.h"

struct rig_client {
    int fd;
    struct strbuf got; /* NUL-terminated after each read */
    bool eof;
    unsigned want; /* responses */
};

/* A listening socket of any port. */
__attribute__((unused)) static int rig_listen(struct addr *addr)
{
    assert_true(addr_parse(STR("127.0.0.1:0"), addr));
    int fd = listener_open(addr, 128);
    assert_true(fd >= 0);
    socklen_t n = sizeof addr->u;
    assert_int_equal(getsockname(fd, &addr->u.sa, &n), 0);
    return fd;
}

__attribute__((unused)) static void rig_connect(struct rig_client *c, const struct addr *to)
{
    *c = (struct rig_client){.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    assert_int_equal(connect(c->fd, &to->u.sa, addr_len(to)), 0);
    assert_int_equal(fcntl(c->fd, F_SETFL, O_NONBLOCK), 0);
}
__attribute__((unused)) static void rig_close(struct rig_client *c)
{
    close(c->fd);
    strbuf_free(&c->got);
}
__attribute__((unused)) static void rig_send(struct rig_client *c, const char *text)
{
    assert_int_equal(send(c->fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}
/* What has come; text is NUL-terminated. */
__attribute__((unused)) static const char *rig_read(struct rig_client *c)
{
    char piece[4096];
    ssize_t n;
    while ((n = recv(c->fd, piece, sizeof piece, MSG_DONTWAIT)) > 0)
        strbuf_add(&c->got, str_span(piece, (size_t)n));
    c->eof |= n == 0 || (n < 0 && errno != EAGAIN);
    strbuf_addc(&c->got, '\0');
    c->got.n--;
    return c->got.p;
}
static unsigned rig_count(const char *text, const char *word)
{
    unsigned n = 0;
    for (const char *p = strstr(text, word); p != NULL; p = strstr(p + 1, word))
        n++;
    return n;
}
static bool rig_has_responses(void *arg)
{
    struct rig_client *c = arg;
    return rig_count(rig_read(c), "HTTP/1.1 ") >= c->want || c->eof;
}
static bool rig_is_closed(void *arg)
{
    struct rig_client *c = arg;
    (void)rig_read(c);
    return c->eof;
}
__attribute__((unused)) static void rig_wait_responses(struct loop *loop, struct rig_client *c, unsigned count)
{
    c->want = count;
    run_until(loop, rig_has_responses, c);
    assert_int_equal(rig_count(c->got.p, "HTTP/1.1 "), count);
}
__attribute__((unused)) static void rig_wait_closed(struct loop *loop, struct rig_client *c)
{
    run_until(loop, rig_is_closed, c);
}
/* One exchange on a connection of its own; the whole answer, good until the next call. */
__attribute__((unused)) static const char *rig_ask(struct loop *loop, const struct addr *to, const char *request)
{
    static struct strbuf last;
    struct rig_client c;
    rig_connect(&c, to);
    rig_send(&c, request);
    shutdown(c.fd, SHUT_WR);
    rig_wait_closed(loop, &c);
    strbuf_free(&last);
    last = c.got;
    c.got = (struct strbuf){0};
    rig_close(&c);
    return last.p;
}

#endif
