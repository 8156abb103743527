/* SPDX-License-Identifier: Apache-2.0
 *
 * Connections over loopback TCP: every way in which a peer ends, while reading is armed and while it is not, with a
 * count of callbacks, since what goes wrong with level-triggered polls is a loop that spins.
 */
#include "io/conn.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

enum { MANY_TURNS = 50 };

static struct loop loop;
static struct chunk_pool *pool;
static struct conn conn;
static int peer; /* the other end, blocking; -1 closed */
static struct buf in;
static struct {
    int readable, writable, connected, hangup, closed;
    int connect_error;
    bool inside; /* a call of ours is running: no callback may */
    bool keep_reading, close_on_readable;
    enum io_result last;
} seen;

static void on_readable(struct conn *c)
{
    size_t got;
    assert_false(seen.inside);
    seen.readable++;
    if (seen.close_on_readable) {
        conn_close(c, false, NULL);
        return;
    }
    if (seen.keep_reading)
        seen.last = conn_read(c, &in, CHUNK_SIZE, &got);
}

static void on_writable(struct conn *c)
{
    assert_false(seen.inside);
    assert_int_equal(c->out.n, 0);
    seen.writable++;
}

static void on_connected(struct conn *c, int error)
{
    assert_false(seen.inside);
    assert_false(c->connecting);
    seen.connected++;
    seen.connect_error = error;
}

static void on_hangup(struct conn *c)
{
    (void)c;
    assert_false(seen.inside);
    seen.hangup++;
}

static void on_closed(struct conn *c)
{
    assert_false(seen.inside);
    memset(c, 0xee, sizeof(*c)); /* from now on it is not ours */
    seen.closed++;
}

static const struct conn_ops ops = {on_readable, on_writable, on_connected, on_hangup};

static int listen_loopback(struct addr *at)
{
    assert_true(addr_parse(STR("127.0.0.1:0"), at));
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, &at->u.sa, addr_len(at)), 0);
    assert_int_equal(listen(fd, 16), 0);
    socklen_t n = sizeof(at->u);
    assert_int_equal(getsockname(fd, &at->u.sa, &n), 0);
    return fd;
}

static void turns(int n)
{
    while (n-- > 0)
        uv_run(&loop.uv, UV_RUN_NOWAIT);
}

#define RUN_UNTIL(cond)                                                                                                \
    while (!(cond))                                                                                                    \
    uv_run(&loop.uv, UV_RUN_ONCE)

/* A connected pair: conn and peer. */
static int setup(void **state)
{
    (void)state;
    struct addr at;
    memset(&seen, 0, sizeof(seen));
    seen.keep_reading = true;
    loop_init(&loop);
    pool = chunk_pool_new(64);
    buf_init(&in, pool);
    int listener = listen_loopback(&at);
    peer = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(peer, &at.u.sa, addr_len(&at)), 0);
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    assert_true(fd >= 0);
    close(listener);
    assert_true(conn_init(&conn, &loop, fd, pool, &ops));
    assert_true(addr_eq(&conn.local, &at));
    assert_true(addr_is_loopback(&conn.peer) && addr_port(&conn.peer) != 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    if (seen.closed == 0)
        conn_close(&conn, true, NULL);
    if (peer >= 0)
        close(peer);
    buf_fini(&in);
    loop_fini(&loop);
    chunk_pool_free(pool);
    return 0;
}

static void peer_sends(const char *text) { assert_int_equal(send(peer, text, strlen(text), 0), strlen(text)); }

static void peer_resets(void)
{
    struct linger now = {1, 0};
    assert_int_equal(setsockopt(peer, SOL_SOCKET, SO_LINGER, &now, sizeof(now)), 0);
    close(peer);
    peer = -1;
}

static void assert_in(const char *text)
{
    assert_int_equal(in.n, strlen(text));
    assert_true(str_is(buf_front(&in), text));
}

static void test_read_and_write(void **state)
{
    (void)state;
    size_t got;
    char answer[8] = "";
    conn_want_read(&conn, true);
    int interest = conn.interest;
    for (int i = 1; i <= 3; i++) {
        peer_sends("ping");
        RUN_UNTIL(seen.readable == i);
        assert_in("ping");
        assert_true(conn.drained);
        assert_int_equal(conn_read(&conn, &in, 100, &got), IO_AGAIN);
        assert_int_equal(got, 0);
        buf_clear(&in);
        buf_append(&conn.out, STR("pong"));
        seen.inside = true;
        assert_int_equal(conn_flush(&conn), IO_OK);
        seen.inside = false;
        assert_int_equal(recv(peer, answer, 4, MSG_WAITALL), 4);
        assert_memory_equal(answer, "pong", 4);
        turns(MANY_TURNS);
        assert_int_equal(seen.readable, i);
        assert_int_equal(conn.interest, interest); /* a request changes nothing in the poll set */
    }
    assert_int_equal(seen.writable + seen.hangup + seen.connected, 0);
    assert_int_equal(conn.bytes_in, 12);
    assert_int_equal(conn.bytes_out, 12);
    assert_int_equal(conn_flush(&conn), IO_OK); /* nothing to do */
}

static void test_an_idle_conn_holds_no_chunk(void **state)
{
    (void)state;
    size_t got;
    assert_int_equal(conn_read(&conn, &in, CHUNK_SIZE, &got), IO_AGAIN);
    assert_int_equal(in.count, 0);
    assert_int_equal(conn.out.count, 0);
}

static void test_read_respects_max(void **state)
{
    (void)state;
    size_t got;
    peer_sends("0123456789");
    conn_want_read(&conn, true);
    seen.keep_reading = false;
    RUN_UNTIL(seen.readable > 0);
    assert_int_equal(conn_read(&conn, &in, 4, &got), IO_OK);
    assert_int_equal(got, 4);
    assert_false(conn.drained);
    assert_int_equal(conn_read(&conn, &in, 100, &got), IO_OK);
    assert_int_equal(got, 6);
    assert_true(conn.drained);
    assert_in("0123456789"); /* one slice */
}

static void test_unread_bytes_are_told_again_but_not_when_disarmed(void **state)
{
    (void)state;
    seen.keep_reading = false;
    peer_sends("pipelined");
    conn_want_read(&conn, true);
    RUN_UNTIL(seen.readable == 3); /* level-triggered */
    conn_want_read(&conn, false);
    turns(MANY_TURNS);
    assert_int_equal(seen.readable, 3);
    assert_int_equal(seen.hangup, 0);
    seen.keep_reading = true;
    conn_want_read(&conn, true);
    RUN_UNTIL(in.n != 0);
    assert_in("pipelined");
}

static void test_eof(void **state)
{
    (void)state;
    size_t got;
    conn_want_read(&conn, true);
    peer_sends("bye");
    close(peer);
    peer = -1;
    RUN_UNTIL(seen.last == IO_EOF);
    assert_in("bye");
    assert_true(conn.read_eof);
    int readable = seen.readable;
    turns(MANY_TURNS);
    assert_int_equal(seen.readable, readable); /* not closed, and yet it does not spin */
    assert_int_equal(seen.hangup, 0);
    assert_int_equal(conn_read(&conn, &in, 10, &got), IO_EOF);
    conn_want_read(&conn, false);
    conn_want_read(&conn, true);
    turns(MANY_TURNS);
    assert_int_equal(seen.readable, readable);
}

static void test_fin_while_disarmed(void **state)
{
    (void)state;
    conn_want_read(&conn, false);
    turns(MANY_TURNS);
    assert_int_equal(seen.hangup, 0);
    peer_sends("last words");
    close(peer);
    peer = -1;
    RUN_UNTIL(seen.hangup != 0);
    turns(MANY_TURNS);
    assert_int_equal(seen.hangup, 1);
    assert_int_equal(seen.readable, 0);
    assert_int_equal(conn.error, 0);
    conn_want_read(&conn, true);
    RUN_UNTIL(seen.last == IO_EOF);
    assert_in("last words");
    turns(MANY_TURNS);
    assert_int_equal(seen.hangup, 1);
}

static void test_reset_while_disarmed(void **state)
{
    (void)state;
    conn_want_read(&conn, false);
    peer_sends("last words");
    peer_resets();
    RUN_UNTIL(seen.hangup != 0);
    turns(MANY_TURNS);
    assert_int_equal(seen.hangup, 1);
    assert_int_equal(conn.error, ECONNRESET);
    buf_append(&conn.out, STR("too late"));
    assert_int_equal(conn_flush(&conn), IO_FAIL);
    conn_want_read(&conn, true);
    RUN_UNTIL(seen.last == IO_FAIL);
    int readable = seen.readable;
    turns(MANY_TURNS);
    assert_int_equal(seen.readable, readable);
    assert_int_equal(seen.hangup, 1);
}

static void test_reset_while_reading(void **state)
{
    (void)state;
    conn_want_read(&conn, true);
    turns(2);
    peer_resets();
    RUN_UNTIL(seen.last == IO_FAIL);
    assert_int_equal(conn.error, ECONNRESET);
    int readable = seen.readable;
    turns(MANY_TURNS);
    assert_int_equal(seen.readable, readable);
    assert_int_equal(seen.hangup, 0);
}

static void test_reset_ignored_by_the_owner_does_not_spin(void **state)
{
    (void)state;
    seen.keep_reading = false; /* an owner that sees on_readable and does nothing: told again, but by its own choice */
    conn_want_read(&conn, true);
    peer_sends("x");
    RUN_UNTIL(seen.readable > 0);
    peer_resets();
    RUN_UNTIL(conn.error != 0);
    conn_want_read(&conn, false);
    int readable = seen.readable, hangup = seen.hangup;
    turns(MANY_TURNS);
    assert_int_equal(seen.readable, readable);
    assert_int_equal(seen.hangup, hangup);
}

static void fill(struct buf *b, size_t n)
{
    char part[1000];
    for (size_t at = 0; at < n; at += sizeof(part)) {
        for (size_t i = 0; i < sizeof(part); i++)
            part[i] = (char)((at + i) * 31 >> 3);
        buf_append(b, str_span(part, sizeof(part)));
    }
}

static void test_big_flush(void **state)
{
    (void)state;
    enum { TOTAL = 8 * 1000 * 1000 };
    static char got[64 * 1024];
    fill(&conn.out, TOTAL);
    conn_want_read(&conn, true);
    assert_int_equal(conn_flush(&conn), IO_AGAIN);
    assert_true(conn.out.n > 0 && conn.out.n < TOTAL);
    turns(MANY_TURNS);
    assert_int_equal(seen.writable, 0);
    size_t at = 0;
    while (at < TOTAL) {
        ssize_t n = recv(peer, got, sizeof(got), MSG_DONTWAIT);
        for (ssize_t i = 0; i < n; i++, at++)
            assert_int_equal(got[i], (char)(at * 31 >> 3));
        turns(1);
    }
    assert_int_equal(seen.writable, 1);
    turns(MANY_TURNS);
    assert_int_equal(seen.writable, 1); /* WRITE is disarmed again */
    assert_int_equal(conn.out.n, 0);
    assert_int_equal(conn.bytes_out, TOTAL);
}

static void test_flush_by_hand_disarms_write(void **state)
{
    (void)state;
    static char got[256 * 1024];
    fill(&conn.out, 8 * 1000 * 1000);
    conn_want_read(&conn, true);
    assert_int_equal(conn_flush(&conn), IO_AGAIN);
    enum io_result result;
    do {
        (void)recv(peer, got, sizeof(got), MSG_DONTWAIT);
        result = conn_flush(&conn);
    } while (result == IO_AGAIN);
    assert_int_equal(result, IO_OK);
    turns(MANY_TURNS);
    assert_int_equal(seen.writable, 0);
}

static void test_reset_during_a_flush(void **state)
{
    (void)state;
    fill(&conn.out, 8 * 1000 * 1000);
    assert_int_equal(conn_flush(&conn), IO_AGAIN);
    peer_resets();
    RUN_UNTIL(seen.hangup != 0);
    turns(MANY_TURNS);
    assert_int_equal(seen.hangup, 1);
    assert_int_equal(seen.writable, 0);
    assert_true(conn.error != 0);
    assert_int_equal(conn_flush(&conn), IO_FAIL);
}

static void test_write_to_a_gone_peer(void **state)
{
    (void)state;
    close(peer);
    peer = -1;
    enum io_result result = IO_OK;
    while (result == IO_OK) { /* the first is answered by RST, a later one fails; SIGPIPE would kill us */
        buf_append(&conn.out, STR("hello?"));
        result = conn_flush(&conn);
        turns(1);
    }
    assert_int_equal(result, IO_FAIL);
    assert_true(conn.error == EPIPE || conn.error == ECONNRESET);
}

static void test_half_close(void **state)
{
    (void)state;
    char c;
    conn_want_read(&conn, true);
    conn_shutdown(&conn);
    conn_shutdown(&conn);
    assert_true(conn.write_eof);
    assert_int_equal(recv(peer, &c, 1, 0), 0);
    peer_sends("still here");
    RUN_UNTIL(in.n != 0);
    assert_in("still here");
    close(peer);
    peer = -1;
    RUN_UNTIL(seen.last == IO_EOF);
    turns(MANY_TURNS);
}

static void test_close(void **state)
{
    (void)state;
    size_t got;
    char c;
    buf_append(&conn.out, STR("never sent"));
    conn_want_read(&conn, true);
    turns(1);
    peer_sends("x");
    assert_int_equal(conn_flush(&conn), IO_OK);
    buf_append(&conn.out, STR("never sent"));
    seen.inside = true;
    conn_close(&conn, false, on_closed);
    conn_close(&conn, false, on_closed);
    conn_want_read(&conn, true);
    conn_shutdown(&conn);
    assert_int_equal(conn_flush(&conn), IO_FAIL);
    assert_int_equal(conn_read(&conn, &in, 10, &got), IO_FAIL);
    assert_int_equal(conn.fd, -1);
    seen.inside = false;
    RUN_UNTIL(seen.closed != 0);
    turns(MANY_TURNS);
    assert_int_equal(seen.closed, 1);
    assert_int_equal(seen.readable, 0);
    assert_int_equal(recv(peer, &c, 1, 0), 1); /* what the kernel had taken arrives */
}

static void test_close_with_reset(void **state)
{
    (void)state;
    char c;
    conn_close(&conn, true, on_closed);
    RUN_UNTIL(seen.closed != 0);
    assert_int_equal(recv(peer, &c, 1, 0), -1);
    assert_int_equal(errno, ECONNRESET);
}

static void test_close_from_a_callback(void **state)
{
    (void)state;
    seen.close_on_readable = true;
    fill(&conn.out, 8 * 1000 * 1000);
    assert_int_equal(conn_flush(&conn), IO_AGAIN);
    conn_want_read(&conn, true);
    peer_sends("x");
    RUN_UNTIL(seen.readable != 0);
    turns(MANY_TURNS);
    assert_int_equal(seen.readable, 1);
    assert_int_equal(seen.writable + seen.hangup, 0);
}

static void test_descriptor_that_cannot_be_watched(void **state)
{
    (void)state;
    struct conn other;
    int fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_false(conn_init(&other, &loop, fd, pool, &ops));
    assert_true(other.error != 0);
    assert_int_equal(fcntl(fd, F_GETFD), -1); /* closed */
    conn_close(&other, false, NULL);          /* nothing to close, and harmless */
}

/* ---- connecting ---- */

static struct conn up;

static void test_connect(void **state)
{
    (void)state;
    struct addr at;
    char text[8];
    int listener = listen_loopback(&at);
    seen.inside = true;
    assert_true(conn_connect(&up, &loop, &at, pool, &ops));
    assert_true(up.connecting);
    buf_append(&up.out, STR("early"));
    assert_int_equal(conn_flush(&up), IO_AGAIN);
    seen.inside = false;
    RUN_UNTIL(seen.connected != 0);
    assert_int_equal(seen.connect_error, 0);
    assert_true(addr_eq(&up.peer, &at));
    assert_true(addr_port(&up.local) != 0);
    RUN_UNTIL(seen.writable != 0); /* what was flushed too early went out by itself */
    int fd = accept(listener, NULL, NULL);
    assert_int_equal(recv(fd, text, 5, MSG_WAITALL), 5);
    turns(MANY_TURNS);
    assert_int_equal(seen.connected, 1);
    assert_int_equal(seen.writable, 1);
    close(fd);
    RUN_UNTIL(seen.hangup != 0); /* an idle connection learns of FIN */
    close(listener);
    conn_close(&up, false, NULL);
}

static void test_connect_refused(void **state)
{
    (void)state;
    struct addr at;
    int listener = listen_loopback(&at);
    close(listener);
    assert_true(conn_connect(&up, &loop, &at, pool, &ops));
    RUN_UNTIL(seen.connected != 0);
    assert_int_equal(seen.connect_error, ECONNREFUSED);
    assert_int_equal(up.error, ECONNREFUSED);
    conn_want_read(&up, true);
    turns(MANY_TURNS);
    assert_int_equal(seen.connected, 1);
    assert_int_equal(seen.readable + seen.hangup, 0);
    conn_close(&up, false, NULL);
}

static void test_connect_fails_at_once(void **state)
{
    (void)state;
    struct addr at;
    memset(&at, 0, sizeof(at));
    assert_false(conn_connect(&up, &loop, &at, pool, &ops));
    assert_int_equal(up.error, EAFNOSUPPORT);
    turns(2);
    assert_int_equal(seen.connected, 0);
}

static void test_close_while_connecting(void **state)
{
    (void)state;
    struct addr at;
    int listener = listen_loopback(&at);
    assert_true(conn_connect(&up, &loop, &at, pool, &ops));
    conn_close(&up, false, NULL);
    turns(MANY_TURNS);
    assert_int_equal(seen.connected, 0);
    close(listener);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_read_and_write, setup, teardown),
        cmocka_unit_test_setup_teardown(test_an_idle_conn_holds_no_chunk, setup, teardown),
        cmocka_unit_test_setup_teardown(test_read_respects_max, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unread_bytes_are_told_again_but_not_when_disarmed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_eof, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fin_while_disarmed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reset_while_disarmed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reset_while_reading, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reset_ignored_by_the_owner_does_not_spin, setup, teardown),
        cmocka_unit_test_setup_teardown(test_big_flush, setup, teardown),
        cmocka_unit_test_setup_teardown(test_flush_by_hand_disarms_write, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reset_during_a_flush, setup, teardown),
        cmocka_unit_test_setup_teardown(test_write_to_a_gone_peer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_half_close, setup, teardown),
        cmocka_unit_test_setup_teardown(test_close, setup, teardown),
        cmocka_unit_test_setup_teardown(test_close_with_reset, setup, teardown),
        cmocka_unit_test_setup_teardown(test_close_from_a_callback, setup, teardown),
        cmocka_unit_test_setup_teardown(test_descriptor_that_cannot_be_watched, setup, teardown),
        cmocka_unit_test_setup_teardown(test_connect, setup, teardown),
        cmocka_unit_test_setup_teardown(test_connect_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_connect_fails_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_close_while_connecting, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
