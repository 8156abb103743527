/* SPDX-License-Identifier: Apache-2.0
 *
 * weir status against an admin address of the test's own: what it prints of plugins and of what is not in use, and how
 * it exits.
 */
#include "cli_test.h"

#include "web/http_server.h"

/* ---- an admin address, on a thread of its own ---- */

static struct {
    struct loop loop;
    uv_thread_t thread;
    uv_async_t stop;
    struct http_server *server;
    char address[ADDR_TEXT_MAX];
    unsigned ready;                     /* status of /ready */
    const char *why, *plugins, *config; /* bodies; NULL: 404 */
} admin;

static void handle(void *arg, const struct http_request *r, struct http_response *out)
{
    (void)arg;
    const char *body = str_is(r->path, "/ready")     ? admin.why
                       : str_is(r->path, "/plugins") ? admin.plugins
                       : str_is(r->path, "/config")  ? admin.config
                                                     : NULL;
    out->status = body == NULL ? 404 : str_is(r->path, "/ready") ? admin.ready : 200;
    strbuf_addz(&out->body, body != NULL ? body : "");
}

static void on_stop(uv_async_t *h)
{
    uv_close((uv_handle_t *)h, NULL);
    http_server_free(admin.server);
    loop_stop(&admin.loop);
}

static void serve(void *arg)
{
    (void)arg;
    loop_run(&admin.loop);
    loop_fini(&admin.loop);
}

static int setup(void **state)
{
    (void)state;
    struct addr addr;
    socklen_t n = sizeof addr.u;
    assert_true(addr_parse(STR("127.0.0.1:0"), &addr));
    int fd = listener_open(&addr, 16);
    assert_true(fd >= 0);
    assert_int_equal(getsockname(fd, &addr.u.sa, &n), 0);
    addr_format(&addr, true, admin.address);
    loop_init(&admin.loop);
    struct http_server_options o = {.max_connections = 16, .max_body = 1024, .idle_ms = 60000, .handle = handle};
    admin.server = http_server_new(&admin.loop, fd, &o);
    uv_async_init(&admin.loop.uv, &admin.stop, on_stop);
    admin.ready = 200;
    admin.why = "ready\n";
    admin.plugins = "{\"plugins\": []}";
    admin.config = "{}";
    assert_int_equal(uv_thread_create(&admin.thread, serve, NULL), 0);
    return 0;
}
static int teardown(void **state)
{
    (void)state;
    uv_async_send(&admin.stop);
    uv_thread_join(&admin.thread);
    return 0;
}

static int status(void) { return RUN(cli_status, "status", "--admin", admin.address); }

/* ---- tests ---- */

static void test_usage(void **state)
{
    (void)state;
    assert_refused("no operand is wanted: \"x\"", cli_status, "status", "x");
    assert_refused("no option --json", cli_status, "status", "--json");
    assert_refused("--admin needs a value", cli_status, "status", "--admin");
    assert_int_equal(RUN(cli_status, "status", "--help"), CLI_OK);
    assert_has(out_text, "usage: weir status");
}

static void test_nobody_there(void **state)
{
    (void)state;
    assert_int_equal(RUN(cli_status, "status", "--admin=127.0.0.1:1"), CLI_FAILED);
    assert_has(err_text, "weir status: http://127.0.0.1:1/ready: ");
    assert_string_equal(out_text, "");
}

static void test_ready(void **state)
{
    (void)state;
    char want[200];
    assert_int_equal(status(), CLI_OK);
    snprintf(want, sizeof want, "gateway at %s: ready\nno plugins\n", admin.address);
    assert_string_equal(out_text, want);
    admin.ready = 503;
    admin.why = "plugin a/b: Compiling\n";
    assert_int_equal(status(), CLI_FAILED);
    assert_has(out_text, ": not ready: plugin a/b: Compiling\n");
}

static void test_plugins(void **state)
{
    (void)state;
    admin.plugins =
        "{\"plugins\": ["
        "{\"namespace\": \"n\", \"name\": \"good\", \"state\": \"Active\", \"phase\": \"AUTHZ\","
        " \"sha256\": \"0123456789abcdef\", \"generation\": 3, \"newestServes\": true},"
        "{\"namespace\": \"n\", \"name\": \"old\", \"state\": \"Stale\", \"phase\": \"UNSPECIFIED_PHASE\", \"sha256\": "
        "\"\","
        " \"generation\": 2, \"newestServes\": false, \"reason\": \"FetchFailed\", \"message\": \"no such file\","
        " \"appliesToTraffic\": false, \"appliesMessage\": \"selects no Gateway\","
        " \"workers\": [{\"state\": \"live\", \"lastFailure\": \"x\"}, {\"state\": \"quarantined\", \"lastFailure\": "
        "\"trap\"}]},"
        "{\"namespace\": \"n\", \"name\": \"new\", \"state\": \"Pending\", \"stage\": \"Compiling\", \"generation\": "
        "0}]}";
    assert_int_equal(status(), CLI_OK);
    assert_has(out_text, "PLUGIN ");
    assert_has(out_text, "n/good                               Active     AUTHZ     0123456789ab \n");
    assert_has(out_text, "generation 2 serves; the newest text: FetchFailed: no such file\n");
    assert_has(out_text, "    selects no Gateway\n");
    assert_has(out_text, "    worker 1 quarantined: trap\n");
    assert_null(strstr(out_text, "worker 0"));
    assert_has(out_text, "Compiling\n");
}

static void test_what_is_not_in_use(void **state)
{
    (void)state;
    admin.config =
        "{\"fileErrors\": [\"a.yaml:1:1: bad\"], \"listeners\": [{\"error\": \"\"}, {\"error\": \"cannot listen\"}],"
        "\"objects\": [{\"kind\": \"Service\", \"namespace\": \"n\", \"name\": \"s\", \"state\": \"stale\","
        " \"errors\": [\"b.yaml:2:2: bad\"], \"accepted\": true},"
        "{\"kind\": \"Gateway\", \"namespace\": \"n\", \"name\": \"g\", \"state\": \"good\", \"errors\": [],"
        " \"accepted\": false, \"reason\": \"PortUnavailable\", \"message\": \"taken\"}]}";
    assert_int_equal(status(), CLI_OK);
    assert_has(out_text, "not in use: a.yaml:1:1: bad\n");
    assert_has(out_text, "not in use: cannot listen\n");
    assert_has(out_text, "not in use (last good version serves): b.yaml:2:2: bad\n");
    assert_has(out_text, "not in use: Gateway n/g: PortUnavailable: taken\n");
}

/* Something else listens there, or an admin address of another version. */
static void test_answers_that_are_no_documents(void **state)
{
    (void)state;
    admin.plugins = "{";
    assert_int_equal(status(), CLI_FAILED);
    admin.plugins = NULL;
    assert_int_equal(status(), CLI_FAILED);
    admin.plugins = admin.config = "[]";
    (void)status();
    assert_has(out_text, "no plugins\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_usage, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nobody_there, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ready, setup, teardown),
        cmocka_unit_test_setup_teardown(test_plugins, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_not_in_use, setup, teardown),
        cmocka_unit_test_setup_teardown(test_answers_that_are_no_documents, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
