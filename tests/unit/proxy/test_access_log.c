/* SPDX-License-Identifier: Apache-2.0
 *
 * Access log lines: every operator, both forms, what is missing, what is hostile, and formats that are refused. The
 * stream is made by hand; what belongs to other parts of the proxy is a stand-in.
 */
#include "proxy/access_log.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "proxy/access_log_format.h"
#include "proxy/pool.h"
#include "proxy/stream.h"

static struct addr up_local;
struct str stream_property_get(const struct stream *s, struct str key, bool *found)
{
    for (const struct stream_property *p = s->properties; p != NULL; p = p->next) {
        if (str_eq(p->key, key)) {
            *found = true;
            return p->value;
        }
    }
    *found = false;
    return STR_NONE;
}

/* ---- a stream ---- */

static struct chunk_pool *pool;
static struct stream s;
static struct message request, response;
static struct endpoint endpoint;
static struct cluster cluster = {.key = (char *)(uintptr_t) "default/web:8080"};
static struct route route = {.name = (char *)(uintptr_t) "default.web.0"};
static struct stream_property note = {NULL, STR_INIT("my.note"), STR_INIT("free text"), 0};

static void add(struct message *m, const char *name, const char *value)
{
    assert_int_equal(headers_add(&m->headers, str_of(name), str_of(value)), HEADERS_OK);
}

static int setup(void **state)
{
    (void)state;
    memset(&s, 0, sizeof(s));
    memset(&request, 0, sizeof(request));
    memset(&response, 0, sizeof(response));
    pool = chunk_pool_new(4);
    arena_init(&s.arena, pool, 1 << 20);
    headers_init(&request.headers, &s.arena, 1 << 16, 100);
    headers_init(&response.headers, &s.arena, 1 << 16, 100);
    add(&request, ":method", "GET");
    add(&request, ":path", "/a?b=c");
    add(&request, ":authority", "www.example.com");
    add(&request, "user-agent", "curl/7.88");
    add(&request, "x-request-id", "id-1");
    request.version = 11;
    request.head_bytes = 120;
    add(&response, ":status", "200");
    add(&response, "content-type", "text/plain");
    response.head_bytes = 80;
    s.side[DIR_REQUEST] = (struct stream_side){.msg = &request, .body_bytes = 5};
    s.side[DIR_RESPONSE] = (struct stream_side){.msg = &response, .body_bytes_out = 36};
    s.start_wall_ns = UINT64_C(1795446000123456789); /* 2026-11-23T15:00:00 */
    s.start_ns = 1000000000;
    s.request_end_ns = 1003000000;
    s.up_start_ns = 1004000000;
    s.up_head_ns = 1011999999;
    s.end_ns = 1020000000;
    s.status = 200;
    s.reason = END_VIA_UPSTREAM;
    s.attempts = 1;
    s.conn_id = 77;
    s.request_id = STR("id-1");
    s.cluster = &cluster;
    s.endpoint = &endpoint;
    (void)snprintf(endpoint.text, sizeof(endpoint.text), "127.0.0.1:9000");
    assert_true(addr_from_ip(STR("127.0.0.1"), 9000, &endpoint.addr));
    s.route.route = &route;
    s.properties = &note;
    assert_true(addr_parse(STR("127.0.0.9:1111"), &s.remote));
    assert_true(addr_parse(STR("[::1]:2222"), &s.peer));
    assert_true(addr_parse(STR("127.0.0.1:10080"), &s.local));
    assert_true(addr_parse(STR("127.0.0.1:3333"), &up_local));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    arena_fini(&s.arena);
    chunk_pool_free(pool);
    return 0;
}

static char line[8192];
static const char *write_line(enum access_log_format kind, const char *format)
{
    struct diag diag = {0};
    struct access_log *log = access_log_new(kind, format, &diag);
    if (log == NULL)
        fail_msg("%s", diag.count != 0 ? diag.entries[0].message : "no log and no reason");
    assert_int_equal(diag.count, 0);
    struct strbuf out = {0};
    access_log_write(log, &s, &out);
    (void)snprintf(line, sizeof(line), "%.*s", STR_ARG(strbuf_str(&out)));
    strbuf_free(&out);
    access_log_free(log);
    return line;
}

static const char *text(const char *format) { return write_line(ACCESS_LOG_TEXT, format); }
static const char *json(const char *format) { return write_line(ACCESS_LOG_JSON, format); }

/* ---- */

static void test_default_text(void **state)
{
    (void)state;
    assert_string_equal(text(NULL), "[2026-11-23T15:00:00.123Z] \"GET /a?b=c HTTP/1.1\" 200 - 5 36 20 7 \"-\" "
                                    "\"curl/7.88\" \"id-1\" \"www.example.com\" \"127.0.0.1:9000\"");
}

static void test_default_json(void **state)
{
    (void)state;
    json(NULL);
    json_error_t error;
    json_t *root = json_loads(line, 0, &error);
    assert_non_null(root);
    assert_int_equal(json_object_size(root), 21);
    assert_string_equal(json_string_value(json_object_get(root, "start_time")), "2026-11-23T15:00:00.123Z");
    assert_int_equal(json_integer_value(json_object_get(root, "response_code")), 200);
    assert_int_equal(json_integer_value(json_object_get(root, "duration")), 20);
    assert_string_equal(json_string_value(json_object_get(root, "end_reason")), "via_upstream");
    assert_string_equal(json_string_value(json_object_get(root, "upstream_service_time")), "7");
    assert_true(json_is_null(json_object_get(root, "x_forwarded_for")));
    assert_true(json_is_null(json_object_get(root, "response_flags")));
    json_decref(root);
}

static void test_operators(void **state)
{
    (void)state;
    char host[256];
    assert_int_equal(gethostname(host, sizeof(host)), 0);
    struct headers trailers;
    headers_init(&trailers, &s.arena, 1000, 10);
    assert_int_equal(headers_add(&trailers, STR("grpc-status"), STR("0")), HEADERS_OK);
    s.side[DIR_RESPONSE].trailers = &trailers;
    s.up_local = up_local;
    const struct {
        const char *format, *wanted;
    } cases[] = {
        {"%REQ(USER-AGENT)%", "curl/7.88"},
        {"%REQ(User-Agent):4%", "curl"},
        {"%REQ(X-NONE?USER-AGENT):6%", "curl/7"},
        {"%REQ(X-NONE)%", "-"},
        {"%REQ(HOST)%", "www.example.com"},
        {"%REQUEST_HEADER(:METHOD)%", "GET"},
        {"%RESP(CONTENT-TYPE)%", "text/plain"},
        {"%RESP(:STATUS)%", "200"},
        {"%TRAILER(grpc-status)%", "0"},
        {"%TRAILER(X)%", "-"},
        {"%PROTOCOL%", "HTTP/1.1"},
        {"%RESPONSE_CODE_DETAILS%", "via_upstream"},
        {"%REQUEST_HEADERS_BYTES%+%RESPONSE_HEADERS_BYTES%", "120+80"},
        {"%REQUEST_DURATION%,%RESPONSE_DURATION%,%RESPONSE_TX_DURATION%", "3,11,8"},
        {"%UPSTREAM_HOST% %UPSTREAM_CLUSTER%", "127.0.0.1:9000 default/web:8080"},
        {"%UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %UPSTREAM_REMOTE_PORT%", "127.0.0.1 9000"},
        {"%UPSTREAM_CLUSTER_RAW%", "default/web:8080"},
        {"%UPSTREAM_LOCAL_ADDRESS%", "127.0.0.1:3333"},
        {"%UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%", "127.0.0.1"},
        {"%UPSTREAM_LOCAL_PORT%", "3333"},
        {"%UPSTREAM_REQUEST_ATTEMPT_COUNT%", "1"},
        {"%DOWNSTREAM_REMOTE_ADDRESS%", "127.0.0.9:1111"},
        {"%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%|%DOWNSTREAM_REMOTE_PORT%", "127.0.0.9|1111"},
        {"%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%", "[::1]:2222"},
        {"%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%", "::1"},
        {"%DOWNSTREAM_DIRECT_REMOTE_PORT%", "2222"},
        {"%DOWNSTREAM_LOCAL_ADDRESS%", "127.0.0.1:10080"},
        {"%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%|%DOWNSTREAM_LOCAL_PORT%", "127.0.0.1|10080"},
        {"%ROUTE_NAME%", "default.web.0"},
        {"%FILTER_STATE(my.note:PLAIN)%", "free text"},
        {"%FILTER_STATE(wasm.my.note:PLAIN):4%", "free"},
        {"%FILTER_STATE(other)%", "-"},
        {"%REQUESTED_SERVER_NAME%", "-"},
        {"%HOSTNAME%", host},
        {"%STREAM_ID% %CONNECTION_ID%", "id-1 77"},
        {"%END_REASON%", "via_upstream"},
        {"100%%, %%REQ%%", "100%, %REQ%"},
        {"plain", "plain"},
        {"with newline\n", "with newline"},
        {"", ""},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_string_equal(text(cases[i].format), cases[i].wanted);
    response.headers.count = 0;
    add(&response, "x-envoy-upstream-service-time", "99");
    assert_string_equal(text("%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"), "99");
    s.original_path = STR("/before");
    assert_string_equal(text("%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"), "/before");
    s.details = STR("my filter said no");
    assert_string_equal(text("%RESPONSE_CODE_DETAILS% %END_REASON%"), "my_filter_said_no via_upstream");
    s.reason = END_NO_ENDPOINT;
    assert_string_equal(text("%RESPONSE_FLAGS%"), "UH");
}

static void test_paths_and_parameters(void **state)
{
    (void)state;
    const struct {
        const char *format, *wanted;
    } cases[] = {
        {"%PATH% %PATH()% %PATH(WQ)% %PATH(WQ:PATH)%", "/a?b=c /a?b=c /a?b=c /a?b=c"},
        {"%PATH(NQ)% %PATH(:ORIG)% %PATH(NQ:ORIG_OR_PATH):1%", "/a - /"},
        {"%QUERY_PARAM(b)% %QUERY_PARAM(a)% %QUERY_PARAM(c)%", "c - -"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_string_equal(text(cases[i].format), cases[i].wanted);
    s.original_path = STR("/before?x=y");
    assert_string_equal(text("%PATH% %PATH(NQ)% %PATH(NQ:PATH)% %PATH(NQ:ORIG)%"), "/before?x=y /before /a /before");
    request.headers.count = 0;
    add(&request, ":path", "/?e=&%62=a%20%22%0a%4&b=2&flag&=x&b%3dc=%zz");
    assert_string_equal(text("%QUERY_PARAM(b)%|%QUERY_PARAM(e)%|%QUERY_PARAM(flag)%|%QUERY_PARAM(b=c)%"),
                        "a \\\"\\n%4|-|-|%zz");
    assert_string_equal(text("%QUERY_PARAM(b):2%"), "a ");
}

static void test_grpc_status(void **state)
{
    (void)state;
    static const char all[] = "%GRPC_STATUS% %GRPC_STATUS(CAMEL_STRING)% %GRPC_STATUS(SNAKE_STRING)% "
                              "%GRPC_STATUS(NUMBER)% %GRPC_STATUS_NUMBER%";
    struct headers trailers;
    headers_init(&trailers, &s.arena, 1000, 10);

    assert_string_equal(text(all), "- - - - -");
    add(&request, "content-type", "application/grpc+proto");
    s.status = 503;
    assert_string_equal(text(all), "Unavailable Unavailable UNAVAILABLE 14 14");
    add(&response, "grpc-status", "5");
    assert_string_equal(text(all), "NotFound NotFound NOT_FOUND 5 5");
    assert_int_equal(headers_add(&trailers, STR("grpc-status"), STR("77")), HEADERS_OK);
    s.side[DIR_RESPONSE].trailers = &trailers;
    assert_string_equal(text(all), "77 77 77 77 77");
    assert_string_equal(json("{\"a\":\"%GRPC_STATUS(NUMBER)%\"}"), "{\"a\":77}");
}

static void test_durations_and_bytes(void **state)
{
    (void)state;
    assert_string_equal(text("%COMMON_DURATION(DS_RX_BEG:DS_TX_END:ms)% %COMMON_DURATION(US_TX_BEG:US_RX_BEG:us)% "
                             "%COMMON_DURATION(DS_RX_BEG:DS_RX_END:ns)% %COMMON_DURATION(DS_RX_END:DS_RX_BEG:ms)% "
                             "%COMMON_DURATION(DS_RX_BEG:US_HS_END:ms)% %COMMON_DURATION(mine:DS_TX_END:ms)%"),
                        "20 7999 3000000 - - -");
    s.down_wire = (struct wire_bytes){1, 2};
    s.up_wire = (struct wire_bytes){3, 4};
    assert_string_equal(text("%DOWNSTREAM_WIRE_BYTES_RECEIVED% %DOWNSTREAM_WIRE_BYTES_SENT% "
                             "%UPSTREAM_WIRE_BYTES_RECEIVED% %UPSTREAM_WIRE_BYTES_SENT%"),
                        "1 2 3 4");
    assert_string_equal(text("%DOWNSTREAM_HEADER_BYTES_RECEIVED% %UPSTREAM_HEADER_BYTES_RECEIVED%"), "120 80");
}

static void test_flags(void **state)
{
    (void)state;
    assert_string_equal(text("%RESPONSE_FLAGS_LONG%"), "-");
    for (int r = END_NONE; r < END_COUNT; r++) { /* each that there is has a long name */
        s.reason = (enum end_reason)r;
        if (end_reason_flag(s.reason)[0] != '\0')
            assert_string_not_equal(text("%RESPONSE_FLAGS_LONG%"), end_reason_flag(s.reason));
    }
    s.reason = END_RESPONSE_TIMEOUT;
    assert_string_equal(text("%RESPONSE_FLAGS_LONG%"), "UpstreamRequestTimeout");
}

static void test_environment_and_absent(void **state)
{
    (void)state;
    assert_int_equal(setenv("WEIR_TEST_VALUE", "pod \"1\"\n", 1), 0);
    assert_string_equal(
        text("%ENVIRONMENT(WEIR_TEST_VALUE)%|%ENVIRONMENT(WEIR_TEST_VALUE):3%|%ENVIRONMENT(WEIR_TEST_NO)%"),
        "pod \\\"1\\\"\\n|pod|-");
    assert_string_equal(json("{\"a\":\"%ENVIRONMENT(WEIR_TEST_VALUE)%\",\"b\":\"%ENVIRONMENT(WEIR_TEST_NO)%\"}"),
                        "{\"a\":\"pod \\\"1\\\"\\n\",\"b\":null}");
    struct diag diag = {0};
    struct access_log *with = access_log_new(ACCESS_LOG_JSON, "{\"a\":{\"b\":\"x %ENVIRONMENT(A)%\"}}", &diag);
    struct access_log *without = access_log_new(ACCESS_LOG_JSON, NULL, &diag);
    assert_true(access_log_reads_environment(with));
    assert_false(access_log_reads_environment(without));
    assert_false(access_log_reads_environment(NULL));
    access_log_free(with);
    access_log_free(without);
    assert_string_equal(json("{\"m\":\"%DYNAMIC_METADATA(com.test:a:b):9%\",\"t\":\"%TRACE_ID%\"}"),
                        "{\"m\":null,\"t\":null}");
    assert_string_equal(text("%DYNAMIC_METADATA(a)% %UPSTREAM_METADATA(a:b)% %ACCESS_LOG_TYPE% %UPSTREAM_PROTOCOL%"),
                        "- - DownstreamEnd HTTP/1.1");
}

static void test_start_time(void **state)
{
    (void)state;
    static const struct {
        const char *format, *wanted;
    } cases[] = {
        {"%START_TIME%", "2026-11-23T15:00:00.123Z"},
        {"%START_TIME()%", "2026-11-23T15:00:00.123Z"},
        {"%START_TIME(%Y/%m/%d %H:%M:%S.%3f)%", "2026/11/23 15:00:00.123"},
        {"%START_TIME(%s.%6f)%", "1795446000.123456"},
        {"%START_TIME(%s)%", "1795446000"},
        {"%START_TIME(%f)%", "123456789"},
        {"%START_TIME(%H:%M:%E3S)%", "15:00:00.123"},
        {"%START_TIME(%H:%M:%E*S)%", "15:00:00.123456789"},
        {"%START_TIME(%a %j %%3f %Z)%", "Mon 327 %3f UTC"},
        {"%START_TIME(at %Y)%", "at 2026"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_string_equal(text(cases[i].format), cases[i].wanted);
    assert_string_equal(json("{\"t\":\"%START_TIME(%s)%\",\"u\":\"%START_TIME(%s.%3f)%\"}"),
                        "{\"t\":1795446000,\"u\":\"1795446000.123\"}");
}

static void test_calendar(void **state)
{
    (void)state;
    static const int64_t seconds[] = {0,          -1,         68169600,   951782400,    951868799,
                                      951868800,  1709164800, 1709251200, 1735689599,   1735689600,
                                      4107542399, 4107542400, 1795446000, 253402300799, -62167219200};
    for (size_t i = 0; i < ARRAY_LEN(seconds); i++) {
        struct tm mine, theirs;
        time_t t = (time_t)seconds[i];
        assert_non_null(gmtime_r(&t, &theirs));
        log_time_split(seconds[i], &mine);
        assert_int_equal(mine.tm_year, theirs.tm_year);
        assert_int_equal(mine.tm_mon, theirs.tm_mon);
        assert_int_equal(mine.tm_mday, theirs.tm_mday);
        assert_int_equal(mine.tm_hour, theirs.tm_hour);
        assert_int_equal(mine.tm_min, theirs.tm_min);
        assert_int_equal(mine.tm_sec, theirs.tm_sec);
        assert_int_equal(mine.tm_wday, theirs.tm_wday);
        assert_int_equal(mine.tm_yday, theirs.tm_yday);
    }
}

static void test_missing_values(void **state)
{
    (void)state;
    struct arena arena = s.arena;
    memset(&s, 0, sizeof(s));
    s.arena = arena;
    assert_string_equal(text("%REQ(A)% %RESP(A)% %TRAILER(A)% %PROTOCOL% %RESPONSE_CODE% %DURATION% %UPSTREAM_HOST% "
                             "%UPSTREAM_CLUSTER% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% "
                             "%DOWNSTREAM_LOCAL_PORT% %ROUTE_NAME% %STREAM_ID% %FILTER_STATE(x)%"),
                        "- - - - 0 - - - - - - - - -");
    assert_string_equal(json("{\"a\":\"%UPSTREAM_HOST%\",\"b\":\"%UPSTREAM_HOST%!\",\"c\":\"%DURATION%\"}"),
                        "{\"a\":null,\"b\":\"-!\",\"c\":null}");
}

static void test_hostile_values(void **state)
{
    (void)state;
    add(&request, "x-evil", "a\"b\\c\nd\x01\xc3\xa9\xff");
    assert_string_equal(text("%REQ(X-EVIL)%"), "a\\\"b\\\\c\\nd\\x01\\xc3\\xa9\\xff");
    assert_string_equal(json("{\"v\":\"%REQ(X-EVIL)%\"}"), "{\"v\":\"a\\\"b\\\\c\\nd\\u0001\xc3\xa9\xef\xbf\xbd\"}");
    assert_string_equal(json("{\"v\":\"<%REQ(X-EVIL)%>\"}"),
                        "{\"v\":\"<a\\\"b\\\\c\\nd\\u0001\xc3\xa9\xef\xbf\xbd>\"}");
}

static void test_json_formats(void **state)
{
    (void)state;
    assert_string_equal(json("{}"), "{}");
    assert_string_equal(
        json("{ \"code\" : \"%RESPONSE_CODE%\", \"s\":\"code %RESPONSE_CODE%\", \"t\":\"\\\"q\\\" 1%%\","
             "\"in\":{\"n\":3,\"yes\":true,\"none\":null,\"host\":\"%UPSTREAM_HOST%\"},\"e\":\"\"}"),
        "{\"code\":200,\"s\":\"code 200\",\"t\":\"\\\"q\\\" 1%\","
        "\"in\":{\"n\":3,\"yes\":true,\"none\":null,\"host\":\"127.0.0.1:9000\"},\"e\":\"\"}");
}

static void test_istio_default_format(void **state)
{
    (void)state;
    text("[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% "
         "%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "
         "\"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% "
         "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" "
         "\"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER% "
         "%UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% "
         "%REQUESTED_SERVER_NAME% %ROUTE_NAME%\n");
    assert_non_null(strstr(line, " 200 - via_upstream - \"-\" 5 36 20 7 "));
}

static void test_bad_formats(void **state)
{
    (void)state;
    static const char *const bad_text[] = {"%",
                                           "%REQ",
                                           "%REQ%",
                                           "%REQ()%",
                                           "%REQ(a",
                                           "%REQ(a)",
                                           "%REQ(a):%",
                                           "%REQ(a):0%",
                                           "%REQ(a):x%",
                                           "%REQ(?b)%",
                                           "%REQ(a?)%",
                                           "%NOPE%",
                                           "%PROTOCOL(x)%",
                                           "%FILTER_STATE(a:FIELD)%",
                                           "%FILTER_STATE(:PLAIN)%",
                                           "two\nlines",
                                           "%START_TIME(%Y",
                                           "100% sure",
                                           "%req(a)%",
                                           "%PATH(XQ)%",
                                           "%PATH(WQ:X)%",
                                           "%QUERY_PARAM%",
                                           "%GRPC_STATUS(HEX)%",
                                           "%COMMON_DURATION%",
                                           "%COMMON_DURATION(DS_RX_BEG:DS_TX_END)%",
                                           "%COMMON_DURATION(DS_RX_BEG::ms)%",
                                           "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:s)%",
                                           "%COMMON_DURATION(DS_RX_BEG:US_CX_END:ms)%",
                                           "%DYNAMIC_METADATA%",
                                           "%ENVIRONMENT()%"};
    static const char *const bad_json[] = {"",
                                           "x",
                                           "[]",
                                           "\"a\"",
                                           "{\"a\":\"%NOPE%\"}",
                                           "{\"a\":[\"b\"]}",
                                           "{\"a\":1,\"a\":2}",
                                           "{\"a\":\"ok\",\"b\":{\"c\":\"%\"}}",
                                           "{} {}"};
    for (size_t i = 0; i < ARRAY_LEN(bad_text) + ARRAY_LEN(bad_json); i++) {
        bool is_text = i < ARRAY_LEN(bad_text);
        const char *format = is_text ? bad_text[i] : bad_json[i - ARRAY_LEN(bad_text)];
        struct diag diag = {0};
        if (access_log_new(is_text ? ACCESS_LOG_TEXT : ACCESS_LOG_JSON, format, &diag) != NULL)
            fail_msg("taken: %s", format);
        assert_true(diag.errors > 0);
        diag_free(&diag);
    }
}

static void test_off(void **state)
{
    (void)state;
    struct diag diag = {0};
    assert_null(access_log_new(ACCESS_LOG_OFF, "%NOPE%", &diag));
    assert_int_equal(diag.count, 0);
    access_log_free(NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_default_text),
        TEST(test_default_json),
        TEST(test_operators),
        TEST(test_start_time),
        TEST(test_calendar),
        TEST(test_missing_values),
        TEST(test_hostile_values),
        TEST(test_json_formats),
        TEST(test_istio_default_format),
        TEST(test_bad_formats),
        TEST(test_off),
        TEST(test_paths_and_parameters),
        TEST(test_grpc_status),
        TEST(test_durations_and_bytes),
        TEST(test_flags),
        TEST(test_environment_and_absent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
