/* SPDX-License-Identifier: Apache-2.0
 *
 * Bytes of modules from files and from a server on the same loop: redirects, refusals, sizes, environment, cancelling.
 */
#include "../http_rig.h"

#include <netinet/in.h>

#include "fetch/fetch.h"

static struct loop loop;
static struct fetcher *fetcher;
static struct http_server *server;
static struct addr addr;
static char redirect_to[300];
static unsigned asked;

static void handle(void *arg, const struct http_request *r, struct http_response *out)
{
    (void)arg;
    asked++;
    if (str_is(r->path, "/module")) {
        strbuf_add(&out->body, STR("\0asm bytes"));
    } else if (str_is(r->path, "/redirect")) {
        out->status = 302;
        strbuf_printf(&out->headers, "location: %s\n", redirect_to);
    } else {
        out->status = 404;
    }
}

static int setup(void **state)
{
    (void)state;
    dir_make();
    asked = 0;
    loop_init(&loop);
    int fd = rig_listen(&addr);
    server = http_server_new(
        &loop, fd,
        &(struct http_server_options){.max_connections = 16, .max_body = 0, .idle_ms = 60000, .handle = handle});
    fetcher = fetcher_new(&loop, &(struct fetcher_options){.docker_config = ""});
    return 0;
}
static int teardown(void **state)
{
    (void)state;
    fetcher_free(fetcher);
    http_server_free(server);
    loop_fini(&loop);
    dir_remove();
    return 0;
}

static struct {
    bool done, retry;
    char *bytes, *error;
    size_t n;
} got;

static void on_done(void *arg, struct fetch_result *r)
{
    (void)arg;
    assert_false(got.done);
    got.done = true;
    got.bytes = r->bytes;
    r->bytes = NULL;
    got.n = r->n;
    got.retry = r->retry;
    got.error = r->error != NULL ? mem_strdup(r->error) : NULL;
}
static bool is_done(void *arg)
{
    (void)arg;
    return got.done;
}
static void forget(void)
{
    mem_free(got.bytes);
    mem_free(got.error);
    memset(&got, 0, sizeof got);
}
static void fetch(const char *fmt, ...) PRINTF_LIKE(1, 2);
static void fetch(const char *fmt, ...)
{
    char url[400];
    va_list args;
    va_start(args, fmt);
    vsnprintf(url, sizeof url, fmt, args);
    va_end(args);
    forget();
    fetch_start(fetcher, &(struct fetch_request){.url = url, .done = on_done});
    assert_false(got.done); /* never before it returns */
    run_until(&loop, is_done, NULL);
}
static void is_bytes(const char *p, size_t n)
{
    if (got.error != NULL)
        fail_msg("%s", got.error);
    assert_int_equal(got.n, n);
    assert_memory_equal(got.bytes, p, n);
    forget();
}
static void is_error(const char *text, bool retry)
{
    assert_null(got.bytes);
    assert_non_null(got.error);
    if (strstr(got.error, text) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", got.error, text);
    assert_int_equal(got.retry, retry);
    forget();
}
static unsigned port(void) { return addr_port(&addr); }

static void test_files(void **state)
{
    (void)state;
    file_write(at("m.wasm"), "\0asm\1\0\0\0", 8);
    fetch("file://%s", at("m.wasm"));
    is_bytes("\0asm\1\0\0\0", 8);
    fetch("file://%s", at("missing.wasm"));
    is_error("cannot open: No such file", true);
    assert_int_equal(mkfifo(at("fifo"), 0600), 0);
    fetch("file://%s", at("fifo"));
    is_error("not a regular file", true);
    fetch("file://%s", test_dir);
    is_error("not a regular file", true);
    fetch("file:///dev/zero");
    is_error("not a regular file", true);
    int fd = open(at("huge"), O_WRONLY | O_CREAT, 0600);
    assert_int_equal(ftruncate(fd, (off_t)FETCH_BYTES_MAX + 1), 0);
    close(fd);
    fetch("file://%s", at("huge"));
    is_error("is larger than", true);
}

static void test_http(void **state)
{
    (void)state;
    fetch("http://127.0.0.1:%u/module", port());
    is_bytes("\0asm bytes", 10);
    fetch("http://127.0.0.1:%u/absent", port());
    is_error("the server answered 404", true);
    fetch("http://127.0.0.1:1/module");
    is_error("onnect", true);
}

/* What is shown of a url gives nothing away. */
static void test_shown_urls(void **state)
{
    (void)state;
    const struct {
        const char *url, *shown;
    } cases[] = {{"https://me:secret@host/a.wasm?sig=secret", "https://host/a.wasm"},
                 {"https://host?x", "https://host"},
                 {"http://a@b@host:1/x@y", "http://host:1/x@y"},
                 {"oci://me:secret@host:5000/a@sha256:00", "oci://host:5000/a@sha256:00"},
                 {"file:///a b", "file:///a b"}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct strbuf b = {0};
        fetch_write_url(cases[i].url, &b);
        strbuf_addc(&b, '\0');
        assert_string_equal(b.p, cases[i].shown);
        strbuf_free(&b);
    }
    fetch("http://me:secret@127.0.0.1:%u/none?sig=secret", port());
    assert_null(strstr(got.error, "secret"));
    is_error("/none: the server answered 404", true);
}

static void test_redirects(void **state)
{
    (void)state;
    snprintf(redirect_to, sizeof redirect_to, "http://127.0.0.1:%u/module", port());
    fetch("http://127.0.0.1:%u/redirect", port());
    is_bytes("\0asm bytes", 10);
    snprintf(redirect_to, sizeof redirect_to, "/redirect"); /* for ever */
    asked = 0;
    fetch("http://127.0.0.1:%u/redirect", port());
    is_error("redirect", true);
    assert_int_equal(asked, 6);
    file_write(at("secret"), "secret", 6);
    snprintf(redirect_to, sizeof redirect_to, "file://%s", at("secret"));
    fetch("http://127.0.0.1:%u/redirect", port());
    is_error("rotocol", true);
    snprintf(redirect_to, sizeof redirect_to, "ftp://127.0.0.1/x");
    fetch("http://127.0.0.1:%u/redirect", port());
    is_error("rotocol", true);
}

static void test_guarded_addresses(void **state)
{
    (void)state;
    static const char *const urls[] = {"http://169.254.169.254/latest/meta-data",
                                       "http://[fe80::1]/x",
                                       "http://[::ffff:169.254.169.254]/x",
                                       "http://[fd00:ec2::254]/x",
                                       "http://100.100.100.200/x",
                                       "http://168.63.129.16/x",
                                       "http://192.0.0.192/x",
                                       "http://[fd20:ce::254]/x"};
    for (size_t i = 0; i < ARRAY_LEN(urls); i++) {
        fetch("%s", urls[i]);
        is_error("link-local or a cloud's metadata service", false);
        /* and on the way of a redirect */
        snprintf(redirect_to, sizeof redirect_to, "%s", urls[i]);
        fetch("http://127.0.0.1:%u/redirect", port());
        is_error("link-local or a cloud's metadata service", false);
    }
}

static void test_environment_decides_nothing(void **state)
{
    (void)state;
    static const char *const names[] = {"http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        setenv(names[i], "http://127.0.0.1:1", 1);
    fetch("http://127.0.0.1:%u/module", port());
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        unsetenv(names[i]);
    is_bytes("\0asm bytes", 10);
}

static void test_cancel(void **state)
{
    (void)state;
    forget();
    struct addr silent;
    int fd = rig_listen(&silent);
    file_write(at("m.wasm"), "\0asm\1\0\0\0", 8);
    char url[400];
    snprintf(url, sizeof url, "http://127.0.0.1:%u/x", addr_port(&silent));
    struct fetch *waiting = fetch_start(fetcher, &(struct fetch_request){.url = url, .done = on_done});
    for (int i = 0; i < 5; i++)
        uv_run(&loop.uv, UV_RUN_NOWAIT);
    fetch_cancel(waiting);
    fetch_cancel(fetch_start(fetcher, &(struct fetch_request){.url = url, .done = on_done})); /* at once */
    snprintf(url, sizeof url, "file://%s", at("m.wasm"));
    fetch_cancel(fetch_start(fetcher, &(struct fetch_request){.url = url, .done = on_done}));
    fetch("http://127.0.0.1:%u/module", port()); /* only this one calls back */
    is_bytes("\0asm bytes", 10);
    /* Two are left for the end to deal with. */
    fetch_start(fetcher, &(struct fetch_request){.url = url, .done = on_done});
    snprintf(url, sizeof url, "http://127.0.0.1:%u/x", addr_port(&silent));
    fetch_start(fetcher, &(struct fetch_request){.url = url, .done = on_done});
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_files, setup, teardown),
        cmocka_unit_test_setup_teardown(test_http, setup, teardown),
        cmocka_unit_test_setup_teardown(test_shown_urls, setup, teardown),
        cmocka_unit_test_setup_teardown(test_redirects, setup, teardown),
        cmocka_unit_test_setup_teardown(test_guarded_addresses, setup, teardown),
        cmocka_unit_test_setup_teardown(test_environment_decides_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cancel, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
