/* SPDX-License-Identifier: Apache-2.0
 *
 * The admin server as strangers meet it: hosts, origins, methods, paths; and that no output ever shows a secret.
 */
#include "../http_rig.h"
#include "control_test.h"

#include "base/metrics.h"
#include "control/control.h"

static struct control c;
static struct control_options options;
static char own_name[] = "weir", own_namespace[] = "istio-system";
static struct label labels[] = {{(char[]){"istio"}, (char[]){"ingressgateway"}}};

static void drained(struct loop_timer *timer) { (void)timer; }
static void on_changed(void *arg) { (void)arg; }

static void on_publish(struct loop_task *task) { (void)task; }

static int setup(void **state)
{
    (void)state;
    c = (struct control){.o = &options};
    options = (struct control_options){.has_admin = true, .drain_time_ms = 60000};
    options.identity = (struct identity){own_name, own_namespace, {labels, ARRAY_LEN(labels)}};
    loop_init(&c.loop);
    int fd = rig_listen(&options.admin);
    close(fd);
    char *error = NULL;
    dir_make();
    c.cache = module_cache_open(at("cache"), "engine", 0, &error);
    assert_non_null(c.cache);
    c.fetcher = fetcher_new(&c.loop, &(struct fetcher_options){.docker_config = ""});
    c.delivery = delivery_new(
        &(struct delivery_options){.loop = &c.loop, .fetcher = c.fetcher, .cache = c.cache, .changed = on_changed});
    loop_timer_init(&c.drain_timer, &c.loop, drained);
    c.life = LIFE_SERVING;
    loop_task_init(&c.publish, on_publish);
    c.conditions = conditions_new(&c);
    assert_true(admin_start(&c));
    return 0;
}
static int teardown(void **state)
{
    (void)state;
    http_server_free(c.admin);
    loop_timer_close(&c.drain_timer, NULL);
    conditions_free(c.conditions);
    delivery_free(c.delivery);
    fetcher_free(c.fetcher);
    loop_fini(&c.loop);
    if (c.snapshot != NULL)
        snapshot_unref(c.snapshot);
    usage_free(&c.usage);
    events_free(&c.events);
    compose_memory_free(&c.memory);
    store_free(&c.store);
    module_cache_close(c.cache);
    dir_remove();
    return 0;
}

static void load(const char *text)
{
    give(&c.store, "all.yaml", text);
    settle(&c.store);
    delivery_update(c.delivery, &c.store);
    c.snapshot = compose_snapshot(&c.store, c.delivery, &options.identity, 1, &c.memory, &c.usage);
}

static const char *ask(const char *fmt, ...) PRINTF_LIKE(1, 2);
static const char *ask(const char *fmt, ...)
{
    char request[2048];
    va_list args;
    va_start(args, fmt);
    vsnprintf(request, sizeof request, fmt, args);
    va_end(args);
    return rig_ask(&c.loop, &options.admin, request);
}
static unsigned status_of(const char *answer)
{
    unsigned status = 0;
    assert_int_equal(sscanf(answer, "HTTP/1.1 %u", &status), 1);
    return status;
}
static const char *get(const char *path) { return ask("GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", path); }
static unsigned port(void) { return addr_port(&options.admin); }

static void test_hosts(void **state)
{
    (void)state;
    static const char *const good[] = {"localhost", "localhost:15000", "127.0.0.1", "127.0.0.1:1",
                                       "[::1]",     "[::1]:80",        "LOCALHOST"};
    static const char *const bad[] = {"example.com", "localhost.example.com", "127.0.0.1.example.com",
                                      "10.0.0.1",    "[fe80::1]:80",          "localhostx",
                                      "[::1"};
    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        assert_int_equal(status_of(ask("GET /healthz HTTP/1.1\r\nHost: %s\r\n\r\n", good[i])), 200);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_in_range(status_of(ask("GET /healthz HTTP/1.1\r\nHost: %s\r\n\r\n", bad[i])), 400, 403);
    assert_in_range(status_of(ask("GET /healthz HTTP/1.0\r\n\r\n")), 400, 403);
    options.admin_any_address = true; /* probes use addresses; names would be DNS rebinding */
    assert_int_equal(status_of(ask("GET /healthz HTTP/1.1\r\nHost: 10.0.0.1\r\n\r\n")), 200);
    assert_int_equal(status_of(ask("GET /healthz HTTP/1.1\r\nHost: example.com\r\n\r\n")), 403);
}

static void test_origins(void **state)
{
    (void)state;
#define POST(headers) ask("POST /drain HTTP/1.1\r\nHost: 127.0.0.1:%u\r\n" headers "\r\n", port())
    assert_int_equal(status_of(POST("Origin: http://evil.example\r\n")), 403);
    assert_int_equal(status_of(POST("Origin: null\r\n")), 403);
    assert_int_equal(status_of(POST("Origin: https://127.0.0.1\r\n")), 403);
    assert_int_equal(status_of(POST("Origin: http://127.0.0.1:1\r\n")), 403);
    assert_int_equal(status_of(POST("Sec-Fetch-Site: cross-site\r\n")), 403);
    assert_int_equal(status_of(POST("Sec-Fetch-Site: same-site\r\n")), 403);
    assert_int_equal(c.life, LIFE_SERVING);
    assert_int_equal(status_of(ask("POST /drain HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nOrigin: http://127.0.0.1:%u\r\n"
                                   "Sec-Fetch-Site: same-origin\r\n\r\n",
                                   port(), port())),
                     200);
    assert_int_equal(c.life, LIFE_DRAINING);
}

static void test_methods_and_paths(void **state)
{
    (void)state;
    assert_int_equal(status_of(get("/nothing")), 404);
    const char *answer = get("/drain");
    assert_int_equal(status_of(answer), 405);
    assert_non_null(strstr(answer, "allow: POST\r\n"));
    assert_int_equal(c.life, LIFE_SERVING);
    answer = ask("POST /config HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    assert_int_equal(status_of(answer), 405);
    assert_non_null(strstr(answer, "allow: GET\r\n"));
    assert_int_equal(status_of(ask("DELETE /plugins HTTP/1.1\r\nHost: localhost\r\n\r\n")), 405);
    assert_int_equal(status_of(ask("HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")), 200);
    answer = get("/");
    assert_non_null(strstr(answer, "/metrics"));
    assert_non_null(strstr(answer, "content-security-policy: default-src 'self'; base-uri 'none'; form-action 'none'; "
                                   "frame-ancestors 'none'\r\n"));
    assert_non_null(strstr(answer, "x-content-type-options: nosniff\r\n"));
    assert_non_null(strstr(answer, "cache-control: no-store\r\n"));
}

static void test_logging(void **state)
{
    (void)state;
    enum log_level before = log_get_level();
    assert_int_equal(status_of(ask("POST /logging?level=error HTTP/1.1\r\nHost: localhost\r\n\r\n")), 200);
    assert_int_equal(log_get_level(), LOG_ERROR);
    assert_int_equal(status_of(ask("POST /logging?level=loud HTTP/1.1\r\nHost: localhost\r\n\r\n")), 400);
    assert_int_equal(status_of(ask("POST /logging HTTP/1.1\r\nHost: localhost\r\n\r\n")), 400);
    assert_int_equal(log_get_level(), LOG_ERROR);
    assert_non_null(strstr(get("/logging"), "level: error"));
    log_set_level(before);
}

static void test_ready(void **state)
{
    (void)state;
    const char *answer = get("/ready");
    assert_int_equal(status_of(answer), 503);
    assert_non_null(strstr(answer, "no configuration"));
    struct addr silent;
    int fd = rig_listen(&silent);
    char text[300];
    snprintf(text, sizeof text, PLUGIN("istio-system", "p", "url: 'http://127.0.0.1:%u/x.wasm'"), addr_port(&silent));
    load(text);
    c.adopted_all = 1;
    answer = get("/ready");
    assert_int_equal(status_of(answer), 503);
    assert_non_null(strstr(answer, "plugin istio-system/p: Fetching"));
    close(fd); /* the server goes away */
    while (!delivery_find(c.delivery, KIND_WASM_PLUGIN, "istio-system", "p")->settled)
        uv_run(&c.loop.uv, UV_RUN_ONCE);
    assert_int_equal(status_of(get("/ready")), 200); /* it has definitely failed */
    assert_non_null(strstr(get("/plugins"), "\"state\":\"Failed\""));
    control_drain(&c);
    assert_int_equal(status_of(get("/ready")), 503);
    assert_int_equal(status_of(get("/healthz")), 200);
}

static void test_no_output_shows_a_secret(void **state)
{
    (void)state;
    /* "Q0FOQVJZ" is what "CANARY" is in base64. */
    load("apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: istio-system}\ntype: Opaque\n"
         "data: {password: Q0FOQVJZ}\nstringData: {token: CANARY}\n---\n"
         "apiVersion: v1\nkind: Secret\nmetadata: {name: bad, namespace: istio-system}\ndata: {password: CANARY-}\n"
         "nonsense: CANARY\n---\n" GATEWAY("istio-system", "g", "{name: http, port: 80, protocol: HTTP}") PLUGIN(
             "istio-system", "p",
             "url: 'http://user:CANARY@127.0.0.1:1/x.wasm', pluginConfig: {token: CANARY, CANARY: 1}, vmConfig: {env: "
             "[{name: A, value: CANARY}]}, imagePullSecret: s")
             PLUGIN("istio-system", "q", "url: 'oci://user:CANARY@example.com/x:y', pluginConfig: {token: CANARY}")
                 PLUGIN("istio-system", "r",
                        "url: 'http://127.0.0.1:1/x.wasm', vmConfig: {env: [{name: A, value: CANARY, "
                        "valueFrom: HOST}]}")
                     PLUGIN("istio-system", "t",
                            "url: 'http://user:CANARY@127.0.0.1:99999/x.wasm', pluginConfig: [CANARY]"));
    while (!delivery_find(c.delivery, KIND_WASM_PLUGIN, "istio-system", "p")->settled)
        uv_run(&c.loop.uv, UV_RUN_ONCE);
    conditions_touch(c.conditions);
    while (c.events.count == 0)
        uv_run(&c.loop.uv, UV_RUN_ONCE);
    static const char *const paths[] = {"/config", "/plugins", "/ready",   "/metrics", "/events",
                                        "/stats",  "/logs",    "/logging", "/"};
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        const char *answer = get(paths[i]), *canary = strstr(answer, "CANARY");
        if (canary == NULL)
            canary = strstr(answer, "Q0FOQVJZ");
        if (canary != NULL)
            fail_msg("%s: %.200s", paths[i], canary - answer > 120 ? canary - 120 : answer);
    }
    assert_int_equal(logged("CANARY"), 0);
    MAP_EACH (e, &c.store.objects) {
        char *text = conditions_write(&c, e->value, 1);
        assert_true(text == NULL || strstr(text, "CANARY") == NULL);
        mem_free(text);
    }
    assert_non_null(strstr(get("/config"), "\"name\":\"p\""));
    /* pluginConfig only when the operator asked for it; the rest never. */
    options.show_plugin_config = true;
    const char *answer = get("/config"), *canary = strstr(answer, "CANARY");
    assert_non_null(canary);
    for (; canary != NULL; canary = strstr(canary + 1, "CANARY")) {
        const char *config = canary;
        while (config > answer && strncmp(config, "\"pluginConfig\"", 14) != 0)
            config--;
        assert_true(config > answer && canary - config < 100);
    }
}

static void test_address_in_use(void **state)
{
    (void)state;
    struct control second = {.o = &options};
    assert_false(admin_start(&second));
    assert_int_equal(logged("admin: cannot listen on 127.0.0.1:%u", port()), 1);
}

int main(void)
{
    log_set_level(LOG_INFO);
    log_start();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_hosts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_origins, setup, teardown),
        cmocka_unit_test_setup_teardown(test_methods_and_paths, setup, teardown),
        cmocka_unit_test_setup_teardown(test_logging, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ready, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_output_shows_a_secret, setup, teardown),
        cmocka_unit_test_setup_teardown(test_address_in_use, setup, teardown),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    log_stop();
    return failed;
}
