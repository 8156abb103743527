/* SPDX-License-Identifier: Apache-2.0
 *
 * What a transfer that ended badly says, and where it may not go. What it says may not change from try to try.
 */
#include "../http_rig.h"

#include "fetch/transfer.h"

static struct loop loop;
static struct transfers *transfers;
static struct http_server *server;
static struct addr addr;

static void handle(void *arg, const struct http_request *r, struct http_response *out)
{
    (void)arg;
    (void)r;
    strbuf_add(&out->body, STR("hello"));
}

static int setup(void **state)
{
    (void)state;
    loop_init(&loop);
    int fd = rig_listen(&addr);
    server = http_server_new(&loop, fd,
                             &(struct http_server_options){.max_connections = 16, .idle_ms = 60000, .handle = handle});
    transfers = transfers_new(&loop, NULL);
    return 0;
}
static int teardown(void **state)
{
    (void)state;
    transfers_free(transfers);
    http_server_free(server);
    loop_fini(&loop);
    return 0;
}

static struct {
    bool done, refused;
    unsigned status;
    char *error;
} got;

static void on_done(void *arg, struct transfer *x, struct transfer_result *r)
{
    (void)arg;
    (void)x;
    got.done = true;
    got.refused = r->refused;
    got.status = r->status;
    got.error = r->error != NULL ? mem_strdup(r->error) : NULL;
}
static bool is_done(void *arg)
{
    (void)arg;
    return got.done;
}
static void ask(const struct transfer_request *how, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void ask(const struct transfer_request *how, const char *fmt, ...)
{
    char url[200];
    va_list args;
    va_start(args, fmt);
    vsnprintf(url, sizeof url, fmt, args);
    va_end(args);
    struct transfer_request r = *how;
    r.url = url;
    r.done = on_done;
    mem_free(got.error);
    memset(&got, 0, sizeof got);
    transfer_start(transfers, &r);
    run_until(&loop, is_done, NULL);
}
static void says(const char *text)
{
    assert_non_null(got.error);
    assert_string_equal(got.error, text);
    mem_free(got.error);
    got.error = NULL;
}

static void test_texts_stay(void **state)
{
    (void)state;
    struct addr silent;
    int fd = rig_listen(&silent);
    ask(&(struct transfer_request){.total_ms = 50}, "http://127.0.0.1:%u/", addr_port(&silent));
    says("no answer came in time");
    close(fd);
    char text[200];
    ask(&(struct transfer_request){0}, "http://127.0.0.1:%u/", addr_port(&silent));
    snprintf(text, sizeof text, "Failed to connect to 127.0.0.1 port %u: Connection refused", addr_port(&silent));
    says(text);
}

static void *answer_half(void *arg)
{
    static const char half[] = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf";
    char head[4096];
    int fd = accept(*(int *)arg, NULL, NULL);
    (void)!recv(fd, head, sizeof head, 0);
    (void)!send(fd, half, sizeof half - 1, MSG_NOSIGNAL);
    close(fd);
    return NULL;
}
static void test_truncated(void **state)
{
    (void)state;
    struct addr at;
    pthread_t thread;
    int fd = rig_listen(&at);
    int blocking = fcntl(fd, F_GETFL) & ~O_NONBLOCK;
    assert_int_equal(fcntl(fd, F_SETFL, blocking), 0);
    assert_int_equal(pthread_create(&thread, NULL, answer_half, &fd), 0);
    ask(&(struct transfer_request){.total_ms = 60000}, "http://127.0.0.1:%u/", addr_port(&at));
    says("the connection was closed before the end of the answer");
    pthread_join(thread, NULL);
    close(fd);
}

/* By any of its names. */
static void test_nobody_outside_leads_here(void **state)
{
    (void)state;
    static const char *const names[] = {"127.0.0.1", "127.1",     "0x7f000001",
                                        "0.0.0.0",   "localhost", "[::ffff:127.0.0.1]"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        ask(&(struct transfer_request){.guard = true, .outside = true}, "http://%s:%u/", names[i], addr_port(&addr));
        assert_true(got.refused);
        says("the address is of this machine, where a server outside may not lead");
    }
    ask(&(struct transfer_request){.guard = true}, "http://127.0.0.1:%u/", addr_port(&addr));
    assert_int_equal(got.status, 200);
    /* A connection that is there already is none to take. */
    ask(&(struct transfer_request){.guard = true, .outside = true}, "http://127.0.0.1:%u/", addr_port(&addr));
    assert_true(got.refused);
    mem_free(got.error);
    got.error = NULL;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_texts_stay, setup, teardown),
        cmocka_unit_test_setup_teardown(test_truncated, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nobody_outside_leads_here, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
