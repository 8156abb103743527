/* SPDX-License-Identifier: Apache-2.0
 *
 * What is said of each object: that it is true, that it speaks of the newest text, that times are kept, that sinks hear
 * of each change once, and that a plugin that runs nowhere or looks wrong says so.
 */
#include "../http_rig.h"
#include "control_test.h"

#include "base/metrics.h"
#include "control/conditions_priv.h"

static struct control c;
static struct control_options options;
static char own_name[] = "weir", own_namespace[] = "istio-system";
static struct label labels[] = {{(char[]){"istio"}, (char[]){"ingressgateway"}}};
static unsigned statuses, event_count;
static char last_event[2048], last_status[8192];

static void on_changed(void *arg) { (void)arg; }
static void on_publish(struct loop_task *task) { (void)task; }
static void on_status(void *arg, enum kind kind, const char *ns, const char *name, const char *json)
{
    (void)arg;
    statuses++;
    snprintf(last_status, sizeof last_status, "%s %s/%s %s", kind_name(kind), ns, name, json);
}
static void on_event(void *arg, enum kind kind, const char *ns, const char *name, const char *type, const char *reason,
                     const char *message)
{
    (void)arg;
    event_count++;
    snprintf(last_event, sizeof last_event, "%s %s/%s %s %s %s", kind_name(kind), ns, name, type, reason, message);
}

static struct loop_timer pass;
static bool pass_over;
static void end_pass(struct loop_timer *timer)
{
    (void)timer;
    pass_over = true;
}

static int setup(void **state)
{
    (void)state;
    c = (struct control){.o = &options};
    options = (struct control_options){0};
    options.identity = (struct identity){own_name, own_namespace, {labels, ARRAY_LEN(labels)}};
    loop_init(&c.loop);
    loop_task_init(&c.publish, on_publish);
    loop_timer_init(&pass, &c.loop, end_pass);
    char *error = NULL;
    dir_make();
    c.cache = module_cache_open(at("cache"), "engine", 0, &error);
    assert_non_null(c.cache);
    c.fetcher = fetcher_new(&c.loop, &(struct fetcher_options){.docker_config = ""});
    c.delivery = delivery_new(
        &(struct delivery_options){.loop = &c.loop, .fetcher = c.fetcher, .cache = c.cache, .changed = on_changed});
    c.conditions = conditions_new(&c);
    conditions_add_sink(&c, &(struct status_sink){on_status, on_event, NULL});
    statuses = event_count = 0;
    last_event[0] = last_status[0] = '\0';
    return 0;
}
static int teardown(void **state)
{
    (void)state;
    loop_timer_close(&pass, NULL);
    conditions_free(c.conditions);
    delivery_free(c.delivery);
    fetcher_free(c.fetcher);
    loop_fini(&c.loop);
    if (c.snapshot != NULL)
        snapshot_unref(c.snapshot);
    usage_free(&c.usage);
    events_free(&c.events);
    compose_memory_free(&c.memory);
    for (size_t i = 0; i < c.listener_count; i++)
        mem_free(c.listeners[i].error);
    mem_free(c.listeners);
    store_free(&c.store);
    module_cache_close(c.cache);
    dir_remove();
    return 0;
}

/* The snapshot of the store as it is now, with all its sockets open. */
static void publish(void)
{
    uint64_t version = c.snapshot != NULL ? c.snapshot->version + 1 : 1;
    delivery_update(c.delivery, &c.store);
    usage_free(&c.usage);
    if (c.snapshot != NULL)
        snapshot_unref(c.snapshot);
    c.snapshot = compose_snapshot(&c.store, c.delivery, &options.identity, version, &c.memory, &c.usage);
    c.listeners = mem_realloc(c.listeners, (c.snapshot->listener_count + 1) * sizeof *c.listeners);
    c.listener_count = c.snapshot->listener_count;
    for (size_t i = 0; i < c.listener_count; i++)
        c.listeners[i] = (struct open_listener){.addr = c.snapshot->listeners[i].addr, .open = true};
}
/* Until no pass is due any more. */
static void look(void)
{
    conditions_touch(c.conditions);
    pass_over = false;
    uv_update_time(&c.loop.uv);
    loop_timer_start(&pass, 60);
    while (!pass_over)
        uv_run(&c.loop.uv, UV_RUN_ONCE);
}
static void load(const char *text)
{
    give(&c.store, "all.yaml", text);
    settle(&c.store);
    publish();
    c.adopted_all = c.snapshot->version;
    look();
}

static const struct store_object *object(enum kind kind, const char *ns, const char *name)
{
    const struct store_object *o = store_find(&c.store, kind, ns, name);
    assert_non_null(o);
    return o;
}
/* "Accepted True Accepted: runs on ..." */
static const char *said(enum kind kind, const char *ns, const char *name, const char *scope, const char *type)
{
    static char text[4096];
    struct condition_list l;
    conditions_now(&c, object(kind, ns, name), &l);
    const struct condition *found = condition_find(&l, scope, type);
    snprintf(text, sizeof text, "none");
    if (found != NULL)
        snprintf(text, sizeof text, "%s %s: %s", condition_status_name(found->status), found->reason, found->message);
    condition_list_free(&l);
    return text;
}
static void is(const char *text, const char *wanted)
{
    if (strstr(text, wanted) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", text, wanted);
}
static void is_plugin(const char *name, const char *type, const char *wanted)
{
    is(said(KIND_WASM_PLUGIN, "istio-system", name, "", type), wanted);
}
static void status_has(enum kind kind, const char *ns, const char *name, const char *wanted)
{
    char *text = conditions_write(&c, object(kind, ns, name), 7);
    assert_non_null(text);
    is(text, wanted);
    mem_free(text);
}

#define HTTP80  "{name: http, port: 80, protocol: HTTP}"
#define NOWHERE "url: 'http://127.0.0.1:1/x.wasm'"

static void test_plugin_that_fails(void **state)
{
    (void)state;
    struct addr silent;
    int fd = rig_listen(&silent);
    char yaml[800];
    snprintf(yaml, sizeof yaml,
             GATEWAY("istio-system", "g", HTTP80) PLUGIN("istio-system", "p", "url: 'http://127.0.0.1:%u/x.wasm'"),
             addr_port(&silent));
    load(yaml);
    is_plugin("p", "Accepted", "True Accepted: runs on Gateway istio-system/g");
    is_plugin("p", "Fetched", "Unknown Fetching: under way");
    is_plugin("p", "Verified", "Unknown Pending: comes after Fetched");
    is_plugin("p", "Programmed", "False Fetching: requests are answered 403 (FAIL_CLOSE)");
    close(fd); /* the server goes away */
    while (!delivery_find(c.delivery, KIND_WASM_PLUGIN, "istio-system", "p")->settled)
        uv_run(&c.loop.uv, UV_RUN_ONCE);
    conditions_tick(c.conditions);
    look();
    is_plugin("p", "Fetched", "False FetchFailed: ");
    is_plugin("p", "Configured", "Unknown Pending");
    is_plugin("p", "Programmed", "False FetchFailed: ");
    is(last_event, "WasmPlugin istio-system/p Warning FetchFailed ");
    status_has(KIND_WASM_PLUGIN, "istio-system", "p",
               "{\"observedGeneration\":\"7\",\"conditions\":[{\"type\":\"Accepted\"");
    status_has(KIND_WASM_PLUGIN, "istio-system", "p", ",\"observedGeneration\":\"7\"}");
    status_has(KIND_WASM_PLUGIN, "istio-system", "p",
               ",\"gateways\":[{\"namespace\":\"istio-system\",\"name\":\"g\"}]}");
}

static void test_plugin_that_runs_nowhere(void **state)
{
    (void)state;
    load(GATEWAY("istio-system", "g", HTTP80) PLUGIN("istio-system", "server", NOWHERE ", match: [{mode: SERVER}]")
             PLUGIN("istio-system", "labels", NOWHERE ", selector: {matchLabels: {a: b}}")
                 PLUGIN("istio-system", "ref",
                        NOWHERE ", targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: x}]")
                     PLUGIN("istio-system", "net", NOWHERE ", type: NETWORK")
                         PLUGIN("istio-system", "open", NOWHERE ", failStrategy: FAIL_OPEN"));
    is_plugin("server", "Accepted", "False NoMatchingListener: applies to no traffic: spec.match has mode SERVER");
    is_plugin("server", "Accepted", "warning: ");
    is_plugin("labels", "Accepted", "False NoMatchingGateway: applies to no Gateway: its selector");
    is_plugin("ref", "Accepted", "False TargetNotFound: applies to no Gateway: targetRefs name Gateway istio-system/x");
    is_plugin("net", "Accepted", "False NotSupported: ");
    is_plugin("open", "Programmed", "requests pass without it (FAIL_OPEN)");
    status_has(KIND_WASM_PLUGIN, "istio-system", "ref", ",\"gateways\":[]}");
}

static void test_plugin_that_looks_wrong(void **state)
{
    (void)state;
    load(GATEWAY("istio-system", "g", HTTP80) PLUGIN("istio-system", "path", "url: /opt/x.wasm") PLUGIN(
        "istio-system", "env",
        NOWHERE ", vmConfig: {env: [{name: ISTIO_META_X, value: secret-value}]}") "apiVersion: "
                                                                                  "extensions.istio.io/v1alpha1\nkind: "
                                                                                  "WasmPlugin\nmetadata: {name: slow, "
                                                                                  "namespace: "
                                                                                  "istio-system, annotations: "
                                                                                  "{plugin.weir/cpu-deadline: 1m, "
                                                                                  "plugin.weir/pause-limit: "
                                                                                  "1h}}\nspec: {" NOWHERE "}\n");
    is_plugin("path", "Accepted", "True AcceptedWithWarnings: runs on Gateway istio-system/g; warning: ");
    is_plugin("path", "Accepted", "this means oci:///opt/x.wasm");
    is_plugin("env", "Accepted", "ISTIO_META_");
    is_plugin("slow", "Accepted", "cpu-deadline of 60000 ms is hardly ever reached");
    is_plugin("slow", "Accepted", "pause-limit of 3600000 ms is never reached");
    char *text = conditions_write(&c, object(KIND_WASM_PLUGIN, "istio-system", "env"), 0);
    assert_null(strstr(text, "secret-value"));
    mem_free(text);
}

static void test_bad_text(void **state)
{
    (void)state;
    load(GATEWAY("istio-system", "g", HTTP80) PLUGIN("istio-system", "p", NOWHERE)
             PLUGIN("istio-system", "never", "url: 5"));
    is_plugin("never", "Accepted", "False Invalid: all.yaml:");
    is_plugin("never", "Programmed", "False Invalid: the newest text is not in use; no good version of it is known");
    load(GATEWAY("istio-system", "g", HTTP80) PLUGIN("istio-system", "p", NOWHERE ", priority: x"));
    is_plugin("p", "Accepted", "False Invalid: ");
    is_plugin("p", "Fetched", "Unknown Invalid");
    is(last_event, "Invalid");
}

static void test_adoption(void **state)
{
    (void)state;
    c.worker_count = 0;
    give(&c.store, "all.yaml", GATEWAY("a", "g", HTTP80));
    settle(&c.store);
    publish();
    look();
    is(said(KIND_GATEWAY, "a", "g", "", "Accepted"), "True Accepted");
    is(said(KIND_GATEWAY, "a", "g", "", "Programmed"), "False Pending");
    is(said(KIND_GATEWAY, "a", "g", "listener/http", "Programmed"), "False Pending");
    c.adopted_all = 1;
    look();
    is(said(KIND_GATEWAY, "a", "g", "", "Programmed"), "True Programmed");
    is(last_event, "Gateway a/g Normal Programmed");
    /* A snapshot that another object asked for takes nothing back. */
    give(&c.store, "other.yaml", GATEWAY("b", "h", "{name: http, port: 81, protocol: HTTP}"));
    settle(&c.store);
    publish();
    look();
    is(said(KIND_GATEWAY, "a", "g", "", "Programmed"), "True Programmed");
    is(said(KIND_GATEWAY, "b", "h", "", "Programmed"), "False Pending");
    c.listeners[0].open = false;
    c.listeners[0].error = mem_strdup("cannot listen on it");
    c.adopted_all = 2;
    look();
    is(said(KIND_GATEWAY, "a", "g", "", "Programmed"), "False AddressNotUsable: cannot listen on it");
    is(said(KIND_GATEWAY, "b", "h", "", "Programmed"), "True Programmed");
}

static void test_gateway_status(void **state)
{
    (void)state;
    load(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: weir}\n"
        "spec: {controllerName: gateway.weir/controller}\n---\n"
        "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: theirs}\n"
        "spec: {controllerName: example.com/other}\n---\n" GATEWAY(
            "a", "g",
            HTTP80 ", {name: tcp, port: 81, protocol: TCP}, {name: none, port: 82, protocol: HTTP, "
                   "allowedRoutes: {kinds: [{kind: TCPRoute}]}}") SERVICE("s", "80")
            ROUTE("a", "r", "parentRefs: [{name: g, sectionName: http}], rules: [{backendRefs: [{name: s, port: 80}]}]")
                ROUTE("b", "far", "parentRefs: [{name: g, namespace: a}, {name: unknown}]"));
    is(said(KIND_GATEWAY_CLASS, "", "weir", "", "Accepted"), "True Accepted");
    assert_null(conditions_write(&c, object(KIND_GATEWAY_CLASS, "", "theirs"), 1));
    is(said(KIND_GATEWAY, "a", "g", "", "Accepted"), "True ListenersNotValid");
    is(said(KIND_GATEWAY, "a", "g", "listener/tcp", "Accepted"), "False UnsupportedProtocol");
    is(said(KIND_GATEWAY, "a", "g", "listener/none", "ResolvedRefs"), "False InvalidRouteKinds");
    status_has(KIND_GATEWAY, "a", "g",
               "{\"name\":\"http\",\"attachedRoutes\":1,\"supportedKinds\":[{\"group\":"
               "\"gateway.networking.k8s.io\",\"kind\":\"HTTPRoute\"}],\"conditions\":[");
    status_has(KIND_GATEWAY, "a", "g", "{\"name\":\"tcp\",\"attachedRoutes\":0,\"supportedKinds\":[]");
    status_has(KIND_GATEWAY, "a", "g", "\"addresses\":[{\"type\":\"IPAddress\",\"value\":\"");
    status_has(KIND_GATEWAY, "a", "g", ",\"observedGeneration\":7}");
    is(said(KIND_HTTP_ROUTE, "a", "r", "parent/a/g/http/0", "Accepted"), "True Accepted");
    is(said(KIND_HTTP_ROUTE, "a", "r", "parent/a/g/http/0", "ResolvedRefs"), "False BackendNotFound: Service a/s");
    status_has(KIND_HTTP_ROUTE, "a", "r",
               "{\"parents\":[{\"parentRef\":{\"group\":\"gateway.networking.k8s.io\",\"kind\":\"Gateway\",\"name\":"
               "\"g\",\"sectionName\":\"http\"},\"controllerName\":\"gateway.weir/controller\",\"conditions\":[");
    is(said(KIND_HTTP_ROUTE, "b", "far", "parent/a/g//0", "Accepted"), "False NotAllowedByListeners");
    status_has(KIND_HTTP_ROUTE, "b", "far", "\"parents\":[{\"parentRef\":");
    char *text = conditions_write(&c, object(KIND_HTTP_ROUTE, "b", "far"), 1);
    assert_null(strstr(text, "unknown")); /* a Gateway that is not there has some other controller, for all we know */
    mem_free(text);
}

static void test_telling_once(void **state)
{
    (void)state;
    load(GATEWAY("a", "g", HTTP80) ROUTE("a", "r", "parentRefs: [{name: g}]"));
    assert_int_equal(statuses, 2);
    unsigned events = event_count;
    assert_true(events >= 2);
    look();
    look();
    assert_int_equal(statuses, 2);
    assert_int_equal(event_count, events);
    load(GATEWAY("a", "g", HTTP80) ROUTE("a", "r", "parentRefs: [{name: g}], hostnames: [x.example]"));
    assert_int_equal(event_count, events); /* nothing became true or false */
    load(GATEWAY("a", "g", HTTP80) ROUTE("a", "r", "parentRefs: [{name: g, sectionName: x}]"));
    is(last_event, "HTTPRoute a/r Warning NoMatchingParent");
    is(last_status, "HTTPRoute a/r {\"parents\":[{");
    /* A sink that comes later hears of every object. */
    statuses = 0;
    conditions_add_sink(&c, &(struct status_sink){.status = on_status});
    look();
    assert_int_equal(statuses, 2);
}

static void test_times_are_kept(void **state)
{
    (void)state;
    load(GATEWAY("a", "g", HTTP80));
    struct condition_list l;
    conditions_now(&c, object(KIND_GATEWAY, "a", "g"), &l);
    int64_t since = condition_find(&l, "", "Accepted")->since;
    condition_list_free(&l);
    while (time(NULL) == since)
        usleep(20000);
    load(GATEWAY("a", "g", HTTP80 ", {name: tcp, port: 81, protocol: TCP}"));
    conditions_now(&c, object(KIND_GATEWAY, "a", "g"), &l);
    assert_string_equal(condition_find(&l, "", "Accepted")->reason, "ListenersNotValid");
    assert_int_equal(condition_find(&l, "", "Accepted")->since, since); /* True before and after */
    assert_true(condition_find(&l, "listener/tcp", "Accepted")->since > since);
    condition_list_free(&l);
}

static void test_many_objects(void **state)
{
    (void)state;
    struct strbuf text = {0};
    strbuf_addz(&text, GATEWAY("a", "g", HTTP80));
    for (int i = 0; i < 3000; i++)
        strbuf_printf(&text, ROUTE("a", "r%d", "parentRefs: [{name: g}]"), i);
    strbuf_addc(&text, '\0');
    load(text.p);
    strbuf_free(&text);
    while (statuses < 3001) /* in several turns of the loop */
        uv_run(&c.loop.uv, UV_RUN_ONCE);
    look();
    assert_int_equal(statuses, 3001);
    status_has(KIND_GATEWAY, "a", "g", "\"attachedRoutes\":3000");
}

static void test_events_are_bounded(void **state)
{
    (void)state;
    struct events e = {0};
    for (int i = 0; i < 5; i++)
        events_add(&e, 100 + i, KIND_GATEWAY, "a", "g", true, "Bad", "<script>alert(1)</script>");
    assert_int_equal(e.count, 1);
    assert_int_equal(e.list[0].count, 5);
    assert_int_equal(e.list[0].first, 100);
    for (int i = 0; i < 2 * EVENTS_MAX; i++) {
        char name[32];
        snprintf(name, sizeof name, "g%d", i);
        events_add(&e, 200, KIND_GATEWAY, "a", name, false, "Good", "");
    }
    assert_int_equal(e.count, EVENTS_MAX);
    struct strbuf out = {0};
    events_write(&e, 2, &out);
    strbuf_addc(&out, '\0');
    is(out.p, "\"name\":\"g511\"");
    is(out.p, "\"firstTime\":\"1970-01-01T00:03:20Z\"");
    assert_null(strstr(out.p, "g509"));
    strbuf_free(&out);
    events_free(&e);
}

int main(void)
{
    log_set_level(LOG_ERROR);
    log_start();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_plugin_that_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(test_plugin_that_runs_nowhere, setup, teardown),
        cmocka_unit_test_setup_teardown(test_plugin_that_looks_wrong, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_text, setup, teardown),
        cmocka_unit_test_setup_teardown(test_adoption, setup, teardown),
        cmocka_unit_test_setup_teardown(test_gateway_status, setup, teardown),
        cmocka_unit_test_setup_teardown(test_telling_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_times_are_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_objects, setup, teardown),
        cmocka_unit_test(test_events_are_bounded),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    log_stop();
    return failed;
}
