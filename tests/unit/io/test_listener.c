/* SPDX-License-Identifier: Apache-2.0
 *
 * Listeners: no connection is lost at the close, none accepted while paused, no spinning without descriptors, and a
 * second process is refused.
 */
#include "io/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

static struct loop loop;
static struct listener listener;
static int accepted, closed, fds[64];
static bool close_on_accept;

static void on_closed(struct listener *l)
{
    assert_ptr_equal(l, &listener);
    closed++;
}

static void on_accept(struct listener *l, int fd, const struct addr *peer)
{
    assert_ptr_equal(l->owner, &loop);
    assert_true(addr_is_loopback(peer));
    assert_int_equal(peer->u.sa.sa_family, AF_INET); /* also on a dual-stack socket */
    assert_true((fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
    assert_true((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    fds[accepted++] = fd;
    if (close_on_accept)
        listener_close(l, on_closed);
}

static void open_at(const char *text)
{
    struct addr at;
    assert_true(addr_parse(str_of(text), &at));
    int fd = listener_open(&at, 128);
    assert_true(fd >= 0);
    listener_init(&listener, &loop, fd, on_accept, &loop);
    assert_true(addr_port(&listener.addr) != 0);
}

static int setup(void **state)
{
    (void)state;
    accepted = closed = 0;
    close_on_accept = false;
    loop_init(&loop);
    open_at("127.0.0.1:0");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    listener_close(&listener, on_closed);
    loop_fini(&loop);
    assert_int_equal(closed, 1);
    for (int i = 0; i < accepted; i++)
        close(fds[i]);
    return 0;
}

static int connect_to(uint16_t port)
{
    struct addr at;
    assert_true(addr_from_ip(STR("127.0.0.1"), port, &at));
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, &at.u.sa, addr_len(&at)), 0);
    return fd;
}

static void turns(int n)
{
    while (n-- > 0)
        uv_run(&loop.uv, UV_RUN_NOWAIT);
}

static void test_accepts_in_bursts(void **state)
{
    (void)state;
    int clients[40];
    for (int i = 0; i < 40; i++)
        clients[i] = connect_to(addr_port(&listener.addr));
    turns(1);
    assert_true(accepted <= 16);
    while (accepted < 40)
        uv_run(&loop.uv, UV_RUN_ONCE);
    for (int i = 0; i < 40; i++)
        close(clients[i]);
}

static void test_pause(void **state)
{
    (void)state;
    listener_pause(&listener, true);
    listener_pause(&listener, true);
    int client = connect_to(addr_port(&listener.addr));
    turns(20);
    assert_int_equal(accepted, 0);
    listener_pause(&listener, false);
    while (accepted == 0)
        uv_run(&loop.uv, UV_RUN_ONCE);
    close(client);
}

static void test_close_takes_in_what_waits(void **state)
{
    (void)state;
    int clients[40];
    char c;
    listener_pause(&listener, true);
    for (int i = 0; i < 40; i++)
        clients[i] = connect_to(addr_port(&listener.addr));
    listener_close(&listener, on_closed);
    assert_int_equal(accepted, 40);
    assert_int_equal(closed, 0); /* never from inside */
    listener_close(&listener, NULL);
    listener_pause(&listener, false);
    turns(5);
    assert_int_equal(closed, 1);
    for (int i = 0; i < 40; i++) {
        assert_int_equal(recv(clients[i], &c, 1, MSG_DONTWAIT), -1);
        assert_int_equal(errno, EAGAIN); /* neither reset nor ended */
        close(clients[i]);
    }
}

static void test_close_from_a_callback(void **state)
{
    (void)state;
    close_on_accept = true;
    int clients[5];
    for (int i = 0; i < 5; i++)
        clients[i] = connect_to(addr_port(&listener.addr));
    while (closed == 0)
        uv_run(&loop.uv, UV_RUN_ONCE);
    assert_int_equal(accepted, 5);
    for (int i = 0; i < 5; i++)
        close(clients[i]);
}

static void test_rests_without_descriptors(void **state)
{
    (void)state;
    struct rlimit before, none;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    int client = connect_to(addr_port(&listener.addr));
    none = before;
    none.rlim_cur = 3; /* existing descriptors stay, new ones are refused */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    while (!loop_timer_is_active(&listener.backoff))
        uv_run(&loop.uv, UV_RUN_ONCE);
    assert_false(uv_is_active((uv_handle_t *)&listener.poll)); /* does not spin */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    while (accepted == 0)
        uv_run(&loop.uv, UV_RUN_ONCE);
    close(client);
}

static void test_probe(void **state)
{
    (void)state;
    struct addr at = listener.addr;
    assert_int_equal(listener_probe(&at), EADDRINUSE); /* as a second Weir would find it */
    int second = listener_open(&at, 16);               /* as our own second worker does */
    assert_true(second >= 0);
    close(second);

    /* A connection of ours in TIME_WAIT does not refuse the next start. */
    int client = connect_to(addr_port(&at));
    while (accepted == 0)
        uv_run(&loop.uv, UV_RUN_ONCE);
    close(fds[--accepted]); /* the server closes first */
    char c;
    assert_int_equal(recv(client, &c, 1, 0), 0);
    close(client);
    listener_close(&listener, on_closed);
    assert_int_equal(listener_probe(&at), 0);
    assert_int_equal(listener_probe(&at), 0); /* and lets go */
}

static void test_probe_of_what_is_not_ours(void **state)
{
    (void)state;
    struct addr at;
    assert_true(addr_parse(STR("192.0.2.1:80"), &at)); /* TEST-NET: bound nowhere */
    assert_int_equal(listener_probe(&at), EADDRNOTAVAIL);
    assert_int_equal(listener_open(&at, 16), -1);
    assert_int_equal(errno, EADDRNOTAVAIL);
}

static void test_all_addresses(void **state)
{
    assert_int_equal(teardown(state), 0);
    loop_init(&loop);
    accepted = closed = 0;
    open_at(":0");
    int client = connect_to(addr_port(&listener.addr));
    while (accepted == 0)
        uv_run(&loop.uv, UV_RUN_ONCE);
    close(client);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_accepts_in_bursts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pause, setup, teardown),
        cmocka_unit_test_setup_teardown(test_close_takes_in_what_waits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_close_from_a_callback, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rests_without_descriptors, setup, teardown),
        cmocka_unit_test_setup_teardown(test_probe, setup, teardown),
        cmocka_unit_test_setup_teardown(test_probe_of_what_is_not_ours, setup, teardown),
        cmocka_unit_test_setup_teardown(test_all_addresses, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
