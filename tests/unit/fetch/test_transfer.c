/* SPDX-License-Identifier: Apache-2.0
 *
 * HTTP that Weir starts: methods and bodies, heads, pieces, bounds, cancelling inside callbacks, the guard's list.
 */
#include "../http_rig.h"

#include "fetch/transfer.h"

static struct loop loop;
static struct transfers *transfers;
static struct http_server *server;
static struct addr addr;
static char seen[4000];

static void handle(void *arg, const struct http_request *r, struct http_response *out)
{
    (void)arg;
    const struct header *type = headers_get(&r->msg->headers, STR("content-type"));
    const struct header *own = headers_get(&r->msg->headers, STR("x-own"));
    snprintf(seen, sizeof seen, "%.*s %.*s type=%.*s own=%.*s body=%.*s", STR_ARG(r->method), STR_ARG(r->path),
             STR_ARG(type != NULL ? type->value : STR("-")), STR_ARG(own != NULL ? own->value : STR("-")),
             STR_ARG(r->body));
    out->status = str_is(r->path, "/redirect")  ? 302
                  : str_is(r->path, "/missing") ? 404
                  : str_is(r->path, "/busy")    ? 503
                                                : 200;
    strbuf_addz(&out->headers, "x-two: a\nx-two: b\nretry-after: 3\n");
    if (out->status == 302)
        strbuf_addz(&out->headers, "location: /end\n");
    size_t n = str_is(r->path, "/big") ? 300000 : 5;
    for (size_t i = 0; i < n; i++)
        strbuf_addc(&out->body, 'x');
}

static int setup(void **state)
{
    (void)state;
    dir_make();
    loop_init(&loop);
    int fd = rig_listen(&addr);
    server = http_server_new(
        &loop, fd,
        &(struct http_server_options){.max_connections = 16, .max_body = 1 << 20, .idle_ms = 60000, .handle = handle});
    transfers = transfers_new(&loop, NULL);
    return 0;
}
static int teardown(void **state)
{
    (void)state;
    transfers_free(transfers);
    http_server_free(server);
    loop_fini(&loop);
    dir_remove();
    return 0;
}

static struct {
    unsigned done, heads, status, pieces;
    size_t bytes;
    char error[300], two[10], url[300];
    bool retry, too_large, refused, unconnected;
    uint32_t retry_after_ms;
    struct strbuf body;
} got;

static void on_head(void *arg, struct transfer *x)
{
    (void)arg;
    got.heads++;
    got.status = transfer_status(x);
    snprintf(got.two, sizeof got.two, "%.*s%.*s", STR_ARG(transfer_header(x, "X-Two")),
             STR_ARG(transfer_header_at(x, "x-two", 1)));
    assert_null(transfer_header_at(x, "x-two", 2).p);
}
static void on_done(void *arg, struct transfer *x, struct transfer_result *r)
{
    (void)arg;
    got.done++;
    got.status = r->status;
    snprintf(got.error, sizeof got.error, "%s", r->error != NULL ? r->error : "");
    snprintf(got.url, sizeof got.url, "%s", transfer_url(x));
    got.retry = r->retry;
    got.too_large = r->too_large;
    got.refused = r->refused;
    got.unconnected = r->unconnected;
    got.retry_after_ms = r->retry_after_ms;
    strbuf_free(&got.body);
    got.body = r->body;
    r->body = (struct strbuf){0};
}
static bool is_done(void *arg)
{
    (void)arg;
    return got.done > 0;
}
static const char *url(const char *path)
{
    static char text[300];
    snprintf(text, sizeof text, "http://127.0.0.1:%u%s", addr_port(&addr), path);
    return text;
}
static void run(struct transfer_request r)
{
    strbuf_free(&got.body);
    memset(&got, 0, sizeof got);
    r.on_head = on_head;
    r.done = on_done;
    transfer_start(transfers, &r);
    assert_int_equal(got.done, 0);
    run_until(&loop, is_done, NULL);
}

static void test_requests(void **state)
{
    (void)state;
    static const char *const own[] = {"x-own: 1", "content-type: text/x"};
    run((struct transfer_request){.url = url("/a"), .headers = own, .header_count = 1});
    assert_string_equal(seen, "GET /a type=- own=1 body=");
    assert_int_equal(got.status, 200);
    assert_int_equal(got.heads, 1);
    assert_string_equal(got.two, "ab");
    assert_string_equal(got.error, "");
    assert_int_equal(got.body.n, 5);
    run((struct transfer_request){.method = "POST", .url = url("/p"), .has_body = true, .body = STR("hi")});
    assert_string_equal(seen, "POST /p type=- own=- body=hi");
    run((struct transfer_request){
        .method = "PATCH", .url = url("/p"), .headers = own, .header_count = 2, .has_body = true, .body = STR("hi")});
    assert_string_equal(seen, "PATCH /p type=text/x own=1 body=hi");
    run((struct transfer_request){.method = "POST", .url = url("/p"), .has_body = true});
    assert_string_equal(seen, "POST /p type=- own=- body=");
    run((struct transfer_request){.method = "DELETE", .url = url("/d")});
    assert_string_equal(seen, "DELETE /d type=- own=- body=");
    run((struct transfer_request){.method = "HEAD", .url = url("/big"), .max_bytes = 1});
    assert_string_equal(seen, "HEAD /big type=- own=- body=");
    assert_int_equal(got.status, 200);
    file_write(at("body"), "0123456789", 10);
    run((struct transfer_request){.method = "PUT", .url = url("/f"), .body_file = at("body")});
    assert_string_equal(seen, "PUT /f type=- own=- body=0123456789");
    run((struct transfer_request){
        .method = "PUT", .url = url("/f"), .body_file = at("body"), .body_file_at = 3, .body_file_n = 4});
    assert_string_equal(seen, "PUT /f type=- own=- body=3456");
    run((struct transfer_request){.method = "PUT", .url = url("/f"), .body_file = at("absent")});
    assert_true(got.error[0] != '\0' || strcmp(seen, "PUT /f type=- own=- body=") == 0);
}

static void test_answers(void **state)
{
    (void)state;
    run((struct transfer_request){.url = url("/missing")});
    assert_int_equal(got.status, 404);
    assert_string_equal(got.error, "");
    assert_false(got.retry);
    run((struct transfer_request){.url = url("/busy")});
    assert_true(got.retry);
    assert_int_equal(got.retry_after_ms, 3000);
    run((struct transfer_request){.url = url("/redirect")}); /* is an answer */
    assert_int_equal(got.status, 302);
    assert_int_equal(got.heads, 1);
    run((struct transfer_request){.url = url("/redirect"), .max_redirects = 1});
    assert_int_equal(got.status, 200);
    assert_int_equal(got.heads, 1); /* of the last hop only */
    assert_string_equal(got.url, url("/end"));
    run((struct transfer_request){.url = "http://127.0.0.1:1/"});
    assert_true(got.error[0] != '\0' && got.retry && got.unconnected);
    assert_int_equal(got.heads, 0);
    run((struct transfer_request){.url = "file:///etc/passwd"});
    assert_true(got.error[0] != '\0');
    run((struct transfer_request){.url = "no url at all"});
    assert_true(got.error[0] != '\0' && !got.retry);
}

static void test_bounds(void **state)
{
    (void)state;
    run((struct transfer_request){.url = url("/big"), .max_bytes = 300000});
    assert_int_equal(got.body.n, 300000);
    run((struct transfer_request){.url = url("/big"), .max_bytes = 299999});
    assert_true(got.too_large && !got.retry);
    assert_string_equal(got.error, "is larger than 299999 bytes");
    assert_int_equal(got.body.n, 0);
}

static bool on_data(void *arg, struct transfer *x, struct str bytes)
{
    (void)x;
    got.pieces++;
    got.bytes += bytes.n;
    return arg == NULL || got.bytes < 1000;
}

static void test_pieces(void **state)
{
    (void)state;
    run((struct transfer_request){.url = url("/big"), .on_data = on_data});
    assert_int_equal(got.bytes, 300000);
    assert_int_equal(got.body.n, 0);
    run((struct transfer_request){.url = url("/big"), .on_data = on_data, .arg = transfers}); /* had enough */
    assert_string_equal(got.error, "was given up");
    assert_true(got.bytes < 300000);
}

static struct transfer *other;

static void cancel_on_head(void *arg, struct transfer *x)
{
    got.heads++;
    transfer_cancel(x);
    if (other != NULL)
        transfer_cancel(other);
    other = NULL;
    transfer_start(transfers, &(struct transfer_request){.url = url("/again"), .done = on_done, .arg = arg});
}
static bool cancel_on_data(void *arg, struct transfer *x, struct str bytes)
{
    (void)bytes;
    transfer_cancel(x);
    transfer_start(transfers, &(struct transfer_request){.url = url("/again"), .done = on_done, .arg = arg});
    return true;
}
static void never(void *arg, struct transfer *x, struct transfer_result *r)
{
    (void)arg;
    (void)x;
    (void)r;
    fail_msg("a cancelled transfer called back");
}

static void test_cancel_inside(void **state)
{
    (void)state;
    struct addr silent;
    char silent_url[100];
    int fd = rig_listen(&silent);
    snprintf(silent_url, sizeof silent_url, "http://127.0.0.1:%u/", addr_port(&silent));
    memset(&got, 0, sizeof got);
    transfer_start(transfers, &(struct transfer_request){.url = url("/big"), .on_head = cancel_on_head, .done = never});
    other = transfer_start(transfers, &(struct transfer_request){.url = silent_url, .done = never});
    run_until(&loop, is_done, NULL);
    assert_int_equal(got.heads, 1);
    assert_string_equal(got.url, url("/again"));
    strbuf_free(&got.body);
    memset(&got, 0, sizeof got);
    transfer_start(transfers, &(struct transfer_request){.url = url("/big"), .on_data = cancel_on_data, .done = never});
    run_until(&loop, is_done, NULL);
    assert_string_equal(got.url, url("/again"));
    strbuf_free(&got.body);
    close(fd);
}

static void start_next(void *arg, struct transfer *x, struct transfer_result *r)
{
    on_done(arg, x, r);
    unsigned *left = arg;
    got.done = *left == 0;
    if ((*left)-- > 0)
        transfer_start(transfers, &(struct transfer_request){.url = url("/next"), .done = start_next, .arg = left});
}

static void test_start_in_done(void **state)
{
    (void)state;
    unsigned left = 20;
    memset(&got, 0, sizeof got);
    transfer_start(transfers, &(struct transfer_request){.url = url("/first"), .done = start_next, .arg = &left});
    run_until(&loop, is_done, NULL);
    assert_string_equal(got.url, url("/next"));
    strbuf_free(&got.body);
}

static void test_guard(void **state)
{
    (void)state;
    static const char *const good[] = {"10.0.0.0/8", "0.0.0.0/0", "1.2.3.4", "fe80::/10", "::1", "::/0"};
    static const char *const bad[] = {"", "10.0.0.0/33", "10.0.0/8", "x", "fe80::/129", "1.2.3.4/", "/8", "1.2.3.4/-1"};
    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        assert_true(transfers_allow_parse(good[i]));
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_false(transfers_allow_parse(bad[i]));
    static const char *const guarded[] = {"http://169.254.1.1/", "http://[fe80::1]/", "http://[64:ff9b::a9fe:a9fe]/",
                                          "http://[::169.254.169.254]/", "http://2852039166/"};
    for (size_t i = 0; i < ARRAY_LEN(guarded); i++) {
        run((struct transfer_request){.url = guarded[i], .guard = true, .connect_ms = 500});
        assert_true(got.refused && !got.retry);
    }
}

/* Decided before anything is sent: a guard that lets a loopback range of its own through as well as it did. */
static void test_allow(void **state)
{
    (void)state;
    static const char *const allow[] = {"169.254.1.0/24", "::1"};
    struct transfers *own = transfers_new(&loop, &(struct transfers_options){.allow = allow, .allow_count = 2});
    static const char *const urls[] = {"http://169.254.2.0:1/", "http://169.254.0.255:1/", "http://[fe80::1]:1/"};
    for (size_t i = 0; i < ARRAY_LEN(urls); i++) {
        memset(&got, 0, sizeof got);
        transfer_start(own, &(struct transfer_request){.url = urls[i], .guard = true, .done = on_done});
        run_until(&loop, is_done, NULL);
        assert_true(got.refused);
    }
    transfers_free(own);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {TEST(test_requests), TEST(test_answers),       TEST(test_bounds),
                                       TEST(test_pieces),   TEST(test_cancel_inside), TEST(test_start_in_done),
                                       TEST(test_guard),    TEST(test_allow)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
