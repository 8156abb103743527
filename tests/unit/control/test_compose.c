/* SPDX-License-Identifier: Apache-2.0
 *
 * From objects to what serves: which Gateway has which address, which plugins run where and in which order, which
 * routes attach under which hosts, which references are allowed, and what each object is told.
 */
#include "control_test.h"

#include "control/compose.h"

static struct store store;
static struct delivery *delivery;
static struct usage_table usage;
static struct compose_memory memory;
static struct snapshot *snapshot;
static struct label labels[] = {{(char[]){"istio"}, (char[]){"ingressgateway"}}};
static struct identity identity = {
    .name = (char[]){"weir"}, .ns = (char[]){"istio-system"}, .labels = {labels, ARRAY_LEN(labels)}};

static void clear(void)
{
    if (snapshot != NULL)
        snapshot_unref(snapshot);
    snapshot = NULL;
    usage_free(&usage);
    store_free(&store);
}
static int setup(void **state)
{
    (void)state;
    delivery = delivery_new(&(struct delivery_options){0});
    return 0;
}
static int teardown(void **state)
{
    (void)state;
    clear();
    compose_memory_free(&memory);
    delivery_free(delivery);
    return 0;
}

static void compose(const char *text)
{
    clear();
    store_of(&store, text);
    snapshot = compose_snapshot(&store, delivery, &identity, 1, &memory, &usage);
}

static const struct usage *said(enum kind kind, const char *ns, const char *name)
{
    const struct usage *u = usage_find(&usage, kind, ns, name);
    assert_non_null(u);
    return u;
}
static void is_refused(enum kind kind, const char *ns, const char *name, const char *reason, const char *text)
{
    const struct usage *u = said(kind, ns, name);
    assert_false(u->accepted);
    assert_string_equal(u->reason, reason);
    if (strstr(u->message, text) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", u->message, text);
}
static void is_used(enum kind kind, const char *ns, const char *name) { assert_true(said(kind, ns, name)->accepted); }

static const struct listener_conf *listener(uint16_t port)
{
    for (size_t i = 0; i < snapshot->listener_count; i++)
        if (addr_port(&snapshot->listeners[i].addr) == port)
            return &snapshot->listeners[i];
    return NULL;
}
/* "a/x b/y": the chain's titles. */
static const char *chain(uint16_t port)
{
    static char text[1024];
    const struct listener_conf *l = listener(port);
    assert_non_null(l);
    text[0] = '\0';
    for (size_t i = 0; i < l->chain_count; i++) {
        strcat(text, i > 0 ? " " : "");
        strcat(text, l->chain[i].title);
    }
    return text;
}

#define HTTP(port)     "{name: http, port: " port ", protocol: HTTP}"
#define HTTP_ALL(port) "{name: http, port: " port ", protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}"
#define URL            "url: 'file:///p.wasm'"
#define PLUGIN_AT(ns, name, time, rest)                                                                                \
    "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {name: " name ", namespace: " ns            \
    ", creationTimestamp: '" time "'}\nspec: {" rest "}\n---\n"

/* ---- gateways ---- */

static void test_one_address_one_gateway(void **state)
{
    (void)state;
    compose(GATEWAY("b", "late", HTTP("80"))
                GATEWAY("a", "early", HTTP("80") ", {name: two, port: 81, protocol: HTTP}"));
    assert_int_equal(snapshot->listener_count, 2);
    assert_string_equal(listener(80)->gateway, "a/early");
    is_refused(KIND_GATEWAY, "b", "late", "PortUnavailable", "port 80 is served by Gateway a/early");
    is_used(KIND_GATEWAY, "a", "early");
}

static void test_age_decides_before_the_name(void **state)
{
    (void)state;
    compose(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: a, namespace: a, creationTimestamp: "
        "'2026-02-01T00:00:00Z'}\nspec: {gatewayClassName: weir, listeners: [" HTTP(
            "80") "]}\n---\n"
                  "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: b, namespace: b, "
                  "creationTimestamp: "
                  "'2026-01-01T00:00:00Z'}\nspec: {gatewayClassName: weir, listeners: [" HTTP("80") "]}\n");
    assert_string_equal(listener(80)->gateway, "b/b");
}

static void test_classes(void **state)
{
    (void)state;
    compose(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: mine}\nspec: {controllerName: "
        "gateway.weir/controller}\n---\n"
        "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: theirs}\nspec: "
        "{controllerName: example.com/other}\n---\n"
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: g1, namespace: a}\nspec: "
        "{gatewayClassName: mine, listeners: [" HTTP(
            "80") "]}\n---\n"
                  "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: g2, namespace: a}\nspec: "
                  "{gatewayClassName: theirs, listeners: [" HTTP(
                      "81") "]}\n---\n"
                            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: g3, namespace: "
                            "a}\nspec: "
                            "{gatewayClassName: nobody, listeners: [" HTTP(
                                "82") "]}\n---\n"
                                      "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: g4, "
                                      "namespace: a}\nspec: "
                                      "{gatewayClassName: istio, listeners: [" HTTP("83") "]}\n");
    assert_int_equal(snapshot->listener_count, 2);
    is_used(KIND_GATEWAY, "a", "g1");
    is_refused(KIND_GATEWAY, "a", "g2", "NoMatchingClass", "example.com/other");
    is_refused(KIND_GATEWAY, "a", "g3", "NoMatchingClass", "nobody");
    is_used(KIND_GATEWAY, "a", "g4");
}

static void test_protocols_and_addresses(void **state)
{
    (void)state;
    compose("apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: g, namespace: a}\nspec:\n"
            "  gatewayClassName: weir\n  addresses: [{value: 127.0.0.1}, {value: '::1'}]\n  listeners:\n"
            "  - {name: http, port: 80, protocol: HTTP}\n  - {name: tcp, port: 90, protocol: TCP}\n");
    assert_int_equal(snapshot->listener_count, 2);
    is_refused(KIND_GATEWAY, "a", "g", "UnsupportedProtocol", "listener tcp");
}

#define WILD(name, addresses)                                                                                          \
    "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: " name ", namespace: a}\nspec:\n"       \
    "  gatewayClassName: weir\n  addresses: [" addresses "]\n  listeners: [" HTTP("80") "]\n---\n"

/* Without addresses: both families on one socket, so "0.0.0.0" is the same place. */
static void test_every_address(void **state)
{
    static const char *const same[] = {WILD("g", ""), WILD("g", "{value: '::'}"),
                                       WILD("g", "{value: 0.0.0.0}, {value: '::'}"),
                                       WILD("g", "{value: '::'}, {value: 0.0.0.0}")};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(same); i++) {
        char text[ADDR_TEXT_MAX];
        compose(same[i]);
        assert_int_equal(snapshot->listener_count, 1);
        addr_format(&snapshot->listeners[0].addr, true, text);
        assert_string_equal(text, "[::]:80");
        is_used(KIND_GATEWAY, "a", "g");
    }
    compose(WILD("g", "") WILD("h", "{value: 0.0.0.0}") WILD("i", "{value: 127.0.0.1}"));
    assert_int_equal(snapshot->listener_count, 2);
    is_refused(KIND_GATEWAY, "a", "h", "PortUnavailable", "Gateway a/g");
}

#define GATEWAY_WITH_LIMITS                                                                                            \
    "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: g, namespace: a}\nspec:\n"              \
    "  gatewayClassName: weir\n  listeners: [" HTTP(                                                                   \
        "80") "]\n"                                                                                                    \
              "  infrastructure: {parametersRef: {group: '', kind: ConfigMap, name: limits}}\n---\n"
#define LIMITS_MAP(data)                                                                                               \
    "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: limits, namespace: a}\ndata: {" data "}\n---\n"

static void test_limits(void **state)
{
    (void)state;
    struct limits standard;
    limits_default(&standard);
    compose(GATEWAY_WITH_LIMITS LIMITS_MAP("head-timeout: 3s"));
    assert_int_equal(listener(80)->limits.head_timeout, 3000);
    /* One bad key: the newest version without one goes on, whole. */
    compose(GATEWAY_WITH_LIMITS LIMITS_MAP("head-timeout: 4s, nonsense: 1s"));
    assert_int_equal(listener(80)->limits.head_timeout, 3000);
    is_refused(KIND_GATEWAY, "a", "g", "InvalidParameters", "nonsense");
    is_refused(KIND_CONFIG_MAP, "a", "limits", "InvalidParameters", "nonsense");
    compose(GATEWAY_WITH_LIMITS LIMITS_MAP("head-timeout: 5s"));
    assert_int_equal(listener(80)->limits.head_timeout, 5000);
    is_used(KIND_GATEWAY, "a", "g");
    /* Never was good: the defaults, and nothing of it. */
    compose_memory_free(&memory);
    compose(GATEWAY_WITH_LIMITS LIMITS_MAP("head-timeout: 4s, nonsense: 1s"));
    assert_int_equal(listener(80)->limits.head_timeout, standard.head_timeout);
    compose(GATEWAY_WITH_LIMITS);
    is_refused(KIND_GATEWAY, "a", "g", "InvalidParameters", "no ConfigMap a/limits");
    assert_non_null(listener(80)); /* and it serves */
    limits_free(&standard);
}

/* Variables of the process hold secrets: only who may write files may have them in the log. */
static void test_environment_in_the_access_log(void **state)
{
    (void)state;
    static const char map[] = LIMITS_MAP("head-timeout: 3s, access-log-format: 'pod %ENVIRONMENT(POD)%'");
    struct limits standard;
    limits_default(&standard);
    compose(GATEWAY_WITH_LIMITS LIMITS_MAP("head-timeout: 3s, access-log-format: 'pod %ENVIRONMENT(POD)%'"));
    assert_int_equal(listener(80)->limits.head_timeout, 3000);
    is_used(KIND_GATEWAY, "a", "g");
    compose_memory_free(&memory);
    clear();
    store_of(&store, GATEWAY_WITH_LIMITS);
    store_text_set(&store, ORIGIN_CLUSTER, "ConfigMap/a/limits", str_of(map), "default");
    settle(&store);
    snapshot = compose_snapshot(&store, delivery, &identity, 1, &memory, &usage);
    assert_int_equal(listener(80)->limits.head_timeout, standard.head_timeout);
    is_refused(KIND_CONFIG_MAP, "a", "limits", "InvalidParameters", "ENVIRONMENT");
    limits_free(&standard);
}

/* ---- plugins ---- */

static void test_who_gets_a_plugin(void **state)
{
    (void)state;
    compose(
        GATEWAY("apps", "gw", HTTP("80")) PLUGIN("istio-system", "root", URL) PLUGIN("apps", "own", URL) PLUGIN(
            "elsewhere", "far", URL) PLUGIN("istio-system", "labels",
                                            URL ", selector: {matchLabels: {istio: ingressgateway}}")
            PLUGIN("istio-system", "others", URL ", selector: {matchLabels: {istio: egressgateway}}") PLUGIN(
                "apps", "by-name", URL ", selector: {matchLabels: {gateway.networking.k8s.io/gateway-name: gw}}")
                PLUGIN("apps", "ref", URL ", targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: gw}]")
                    PLUGIN("apps", "ref-other",
                           URL ", targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: x}]")
                        PLUGIN("istio-system", "ref-far",
                               URL ", targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: gw}]")
                            PLUGIN("apps", "ref-service", URL ", targetRefs: [{group: '', kind: Service, name: gw}]"));
    assert_string_equal(chain(80), "apps/by-name apps/own apps/ref istio-system/labels istio-system/root");
    is_used(KIND_WASM_PLUGIN, "apps", "ref");
    is_refused(KIND_WASM_PLUGIN, "elsewhere", "far", "NoMatchingGateway", "applies to no Gateway");
    is_refused(KIND_WASM_PLUGIN, "istio-system", "others", "NoMatchingGateway", "");
    is_refused(KIND_WASM_PLUGIN, "apps", "ref-other", "TargetNotFound", "Gateway apps/x");
    is_refused(KIND_WASM_PLUGIN, "istio-system", "ref-far", "TargetNotFound", "Gateway istio-system/gw");
    is_refused(KIND_WASM_PLUGIN, "apps", "ref-service", "UnsupportedTarget", "waypoints");
}

static void test_match(void **state)
{
    (void)state;
    compose(GATEWAY("istio-system", "gw", HTTP("80") ", {name: two, port: 81, protocol: HTTP}") PLUGIN(
        "istio-system", "all", URL ", match: []") PLUGIN("istio-system", "client", URL ", match: [{mode: CLIENT}]")
                PLUGIN("istio-system", "either", URL ", match: [{mode: CLIENT_AND_SERVER, ports: [{number: 81}]}]")
                    PLUGIN("istio-system", "port80", URL ", match: [{ports: [{number: 80}]}]")
                        PLUGIN("istio-system", "server", URL ", match: [{mode: SERVER}]")
                            PLUGIN("istio-system", "port82", URL ", match: [{ports: [{number: 82}]}]"));
    assert_string_equal(chain(80), "istio-system/all istio-system/client istio-system/port80");
    assert_string_equal(chain(81), "istio-system/all istio-system/client istio-system/either");
    is_used(KIND_WASM_PLUGIN, "istio-system", "port80");
    is_refused(KIND_WASM_PLUGIN, "istio-system", "server", "NoMatchingListener", "mode SERVER");
    is_refused(KIND_WASM_PLUGIN, "istio-system", "port82", "NoMatchingListener", "has a port that spec.match names");
}

static void test_order(void **state)
{
    (void)state;
    compose(GATEWAY("apps", "gw", HTTP("80")) PLUGIN("apps", "none", URL)
                PLUGIN("apps", "stats", URL ", phase: STATS, priority: 1000")
                    PLUGIN("apps", "authz", URL ", phase: AUTHZ")
                        PLUGIN("apps", "authn", URL ", phase: AUTHN, priority: -1000")
                            PLUGIN("apps", "negative", URL ", priority: -5") PLUGIN("apps", "ten", URL ", priority: 10")
                                PLUGIN("apps", "zero", URL ", priority: 0"));
    /* An unset priority is below every explicit one. */
    assert_string_equal(chain(80), "apps/authn apps/authz apps/stats apps/ten apps/zero apps/negative apps/none");
    compose(GATEWAY("apps", "gw", HTTP("80")) PLUGIN_AT("istio-system", "a-root", "2020-01-01T00:00:00Z", URL)
                PLUGIN_AT("apps", "late", "2022-01-01T00:00:00Z", URL)
                    PLUGIN_AT("apps", "early", "2021-01-01T00:00:00Z", URL)
                        PLUGIN_AT("apps", "b", "2023-01-01T00:00:00Z", URL)
                            PLUGIN_AT("apps", "a", "2023-01-01T00:00:00Z", URL));
    /* Age, then name; the gateway's own namespace before the root. */
    assert_string_equal(chain(80), "apps/early apps/late apps/a apps/b istio-system/a-root");
}

static void test_plugin_that_is_not_there_yet_has_its_place(void **state)
{
    (void)state;
    compose(GATEWAY("istio-system", "gw", HTTP("80")) PLUGIN("istio-system", "p", URL ", failStrategy: FAIL_OPEN"));
    const struct chain_entry *e = &listener(80)->chain[0];
    assert_null(e->plugin);
    assert_int_equal(e->absence, PLUGIN_PENDING);
    assert_int_equal(e->fail, FAIL_OPEN);
}

/* ---- routes ---- */

#define PARENT         "parentRefs: [{name: gw, namespace: infra}]"
#define BACKENDS(refs) "rules: [{backendRefs: [" refs "]}]"
#define SVC(ns, name)                                                                                                  \
    "apiVersion: v1\nkind: Service\nmetadata: {name: " name ", namespace: " ns "}\nspec: {ports: [{port: 80}]}\n---\n"

static void test_attachment(void **state)
{
    (void)state;
    compose(GATEWAY("infra", "gw", HTTP("80")) GATEWAY("infra", "open", HTTP_ALL("81")) GATEWAY(
        "infra", "picky",
        "{name: http, port: 82, protocol: HTTP, allowedRoutes: {namespaces: {from: Selector, selector: "
        "{matchLabels: {team: a}}}}}") "apiVersion: v1\nkind: Namespace\nmetadata: {name: apps, labels: {team: "
                                       "a}}\n---\n" SVC("apps", "s") SVC("infra", "s") SVC("more", "s") ROUTE(
                                           "infra", "same", PARENT ", " BACKENDS("{name: s, port: 80}"))
                                           ROUTE("apps", "not-same", PARENT ", " BACKENDS("{name: s, port: 80}")) ROUTE(
                                               "apps", "open",
                                               "parentRefs: [{name: open, namespace: infra}], " BACKENDS(
                                                   "{name: s, port: 80}"))
                                               ROUTE("apps", "picked",
                                                     "parentRefs: [{name: picky, namespace: infra}], " BACKENDS(
                                                         "{name: s, port: 80}"))
                                                   ROUTE("more", "not-picked",
                                                         "parentRefs: [{name: picky, namespace: infra}], " BACKENDS(
                                                             "{name: s, port: 80}"))
                                                       ROUTE("infra", "nowhere",
                                                             "parentRefs: [{name: absent}], " BACKENDS(
                                                                 "{name: s, port: 80}"))
                                                           ROUTE("infra", "section",
                                                                 "parentRefs: [{name: gw, sectionName: "
                                                                 "other}], " BACKENDS("{name: s, port: 80}"))
                                                               ROUTE("infra", "port",
                                                                     "parentRefs: [{name: gw, port: 80}], " BACKENDS(
                                                                         "{name: s, port: 80}")));
    is_used(KIND_HTTP_ROUTE, "infra", "same");
    is_refused(KIND_HTTP_ROUTE, "apps", "not-same", "NotAllowedByListeners", "");
    is_used(KIND_HTTP_ROUTE, "apps", "open");
    is_used(KIND_HTTP_ROUTE, "apps", "picked");
    is_refused(KIND_HTTP_ROUTE, "more", "not-picked", "NotAllowedByListeners", "");
    is_refused(KIND_HTTP_ROUTE, "infra", "nowhere", "NoMatchingParent", "");
    is_refused(KIND_HTTP_ROUTE, "infra", "section", "NoMatchingParent", "");
    is_used(KIND_HTTP_ROUTE, "infra", "port");
}

static bool host_attaches(const char *listener_host, const char *route_hosts)
{
    char text[2048];
    snprintf(text, sizeof text,
             GATEWAY("a", "gw", "{name: http, port: 80, protocol: HTTP%s%s%s}") SVC("a", "s")
                 ROUTE("a", "r", "parentRefs: [{name: gw}], hostnames: [%s], " BACKENDS("{name: s, port: 80}")),
             listener_host[0] != '\0' ? ", hostname: '" : "", listener_host, listener_host[0] != '\0' ? "'" : "",
             route_hosts);
    compose(text);
    const struct usage *u = said(KIND_HTTP_ROUTE, "a", "r");
    if (!u->accepted)
        assert_string_equal(u->reason, "NoMatchingListenerHostname");
    return u->accepted;
}

static void test_hostnames_meet(void **state)
{
    (void)state;
    assert_true(host_attaches("", ""));
    assert_true(host_attaches("", "a.example.com"));
    assert_true(host_attaches("a.example.com", ""));
    assert_true(host_attaches("a.example.com", "a.example.com"));
    assert_true(host_attaches("a.example.com", "'*.example.com'"));
    assert_true(host_attaches("*.example.com", "a.example.com"));
    assert_true(host_attaches("*.example.com", "a.b.example.com"));
    assert_true(host_attaches("*.example.com", "'*.b.example.com'"));
    assert_true(host_attaches("*.b.example.com", "'*.example.com'"));
    assert_true(host_attaches("a.example.com", "other.com, a.example.com"));
    assert_false(host_attaches("a.example.com", "b.example.com"));
    assert_false(host_attaches("*.example.com", "example.com"));
    assert_false(host_attaches("*.example.com", "aexample.com"));
    assert_false(host_attaches("*.example.com", "'*.com.example'"));
}

static void test_references(void **state)
{
    (void)state;
#define GRANT(from_ns, rest)                                                                                           \
    "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {name: g, namespace: "             \
    "data}\nspec: "                                                                                                    \
    "{from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: " from_ns "}], to: [{group: '', kind: "    \
    "Service" rest "}]}\n---\n"
#define FAR                                                                                                            \
    GATEWAY("apps", "gw", HTTP("80"))                                                                                  \
    SVC("data", "s")                                                                                                   \
    SVC("data", "t") ROUTE("apps", "r", "parentRefs: [{name: gw}], " BACKENDS("{name: s, namespace: data, port: 80}"))
    compose(FAR);
    is_refused(KIND_HTTP_ROUTE, "apps", "r", "RefNotPermitted", "no ReferenceGrant in data");
    assert_non_null(listener(80)); /* the route is there all the same, and answers 500 */
    compose(FAR GRANT("apps", ""));
    is_used(KIND_HTTP_ROUTE, "apps", "r");
    compose(FAR GRANT("apps", ", name: s"));
    is_used(KIND_HTTP_ROUTE, "apps", "r");
    compose(FAR GRANT("apps", ", name: t"));
    is_refused(KIND_HTTP_ROUTE, "apps", "r", "RefNotPermitted", "");
    compose(FAR GRANT("other", ""));
    is_refused(KIND_HTTP_ROUTE, "apps", "r", "RefNotPermitted", "");
}

static void test_backends_that_are_not_there(void **state)
{
    (void)state;
#define LOCAL(ref)                                                                                                     \
    GATEWAY("a", "gw", HTTP("80")) SVC("a", "s") ROUTE("a", "r", "parentRefs: [{name: gw}], " BACKENDS(ref))
    compose(LOCAL("{name: absent, port: 80}"));
    is_refused(KIND_HTTP_ROUTE, "a", "r", "BackendNotFound", "Service a/absent not found");
    compose(LOCAL("{name: s, port: 81}"));
    is_refused(KIND_HTTP_ROUTE, "a", "r", "BackendNotFound", "has no port 81");
    compose(LOCAL("{group: example.com, kind: Thing, name: s, port: 80}"));
    is_refused(KIND_HTTP_ROUTE, "a", "r", "InvalidKind", "example.com/Thing");
    compose(LOCAL("{group: networking.istio.io, kind: Hostname, name: api.example.com, port: 80}"));
    is_refused(KIND_HTTP_ROUTE, "a", "r", "BackendNotFound", "no ServiceEntry gives");
    compose(LOCAL(
        "{group: networking.istio.io, kind: Hostname, name: api.example.com, port: 80}") "apiVersion: "
                                                                                         "networking.istio.io/"
                                                                                         "v1\nkind: "
                                                                                         "ServiceEntry\nmetadata: "
                                                                                         "{name: e, namespace: "
                                                                                         "b}\nspec: {hosts: "
                                                                                         "[api.example.com], ports: "
                                                                                         "[{number: 80, name: http, "
                                                                                         "protocol: HTTP}], "
                                                                                         "resolution: DNS}\n");
    is_used(KIND_HTTP_ROUTE, "a", "r");
    compose(
        GATEWAY("a", "gw", HTTP("80")) "apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: a}\nspec: {type: "
                                       "ExternalName, externalName: example.com, ports: [{port: 80}]}\n---\n" ROUTE(
                                           "a", "r", "parentRefs: [{name: gw}], " BACKENDS("{name: s, port: 80}")));
    is_refused(KIND_HTTP_ROUTE, "a", "r", "BackendNotFound", "ExternalName");
    is_refused(KIND_SERVICE, "a", "s", "ExternalNameRefused", "ServiceEntry");
}

/* ---- endpoints ---- */

static struct cluster_set clusters;
/* "127.0.0.1:80*1 name:80*1" of a cluster, or NULL. */
static const char *endpoints(const char *text, const char *key)
{
    static char out[1024];
    const char *found = NULL;
    clear();
    store_of(&store, text);
    compose_endpoints(&store, &clusters);
    for (size_t i = 0; i < clusters.count; i++) {
        const struct cluster_endpoints *e = &clusters.list[i];
        if (strcmp(e->key, key) != 0)
            continue;
        size_t n = 0;
        out[0] = '\0';
        found = out;
        for (size_t k = 0; k < e->count; k++) {
            char a[ADDR_TEXT_MAX];
            addr_format(&e->list[k].addr, true, a);
            n += (size_t)snprintf(out + n, sizeof out - n, "%s%s*%u", n > 0 ? " " : "", a, e->list[k].weight);
        }
        for (size_t k = 0; k < e->name_count; k++)
            n += (size_t)snprintf(out + n, sizeof out - n, "%s%s:%u*%u", n > 0 ? " " : "", e->names[k].host,
                                  e->names[k].port, e->names[k].weight);
    }
    cluster_set_free(&clusters);
    return found;
}

#define SLICE(name, ns, rest)                                                                                          \
    "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: " name ", namespace: " ns                  \
    ", labels: {kubernetes.io/service-name: s}}\naddressType: IPv4\n" rest "\n---\n"

static void test_endpoints_of_slices(void **state)
{
    (void)state;
#define TWO_PORTS                                                                                                      \
    "apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: a}\nspec: {ports: [{name: web, port: 80}, {name: "  \
    "admin, port: 90}]}\n---\n"
#define SLICES                                                                                                         \
    SLICE("s1", "a",                                                                                                   \
          "ports: [{name: admin, port: 9000}, {name: web, port: 8000}]\n"                                              \
          "endpoints: [{addresses: [10.0.0.1]}, {addresses: [10.0.0.2], conditions: {ready: false}}]")                 \
    SLICE("s2", "a", "ports: [{name: web, port: 8001}]\nendpoints: [{addresses: [10.0.0.3]}]")                         \
    SLICE("s3", "b", "ports: [{name: web, port: 8002}]\nendpoints: [{addresses: [10.0.0.4]}]")
    assert_string_equal(endpoints(TWO_PORTS SLICES, "a/s:80"), "10.0.0.1:8000*1 10.0.0.3:8001*1");
    assert_string_equal(endpoints(TWO_PORTS SLICES, "a/s:90"), "10.0.0.1:9000*1");
    assert_null(endpoints(TWO_PORTS SLICES, "b/s:80"));
    /* One unnamed port for one port, whatever they are called. */
    assert_string_equal(endpoints(SVC("a", "s") SLICE("s1", "a",
                                                      "ports: [{port: 8000}]\nendpoints: [{addresses: "
                                                      "[10.0.0.1]}]"),
                                  "a/s:80"),
                        "10.0.0.1:8000*1");
    assert_string_equal(endpoints(SVC("a", "s"), "a/s:80"), "");
}

static void test_endpoints_of_entries(void **state)
{
    (void)state;
#define ENTRY(resolution, endpoints)                                                                                   \
    "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: e, namespace: a}\nspec: {hosts: "        \
    "[api.example.com], ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}], resolution: " resolution  \
        endpoints "}\n---\n"
    static const char key[] = "a/e/api.example.com:80";
    assert_string_equal(endpoints(ENTRY("STATIC", ", endpoints: [{address: 10.0.0.1, weight: 3}, {address: 10.0.0.2, "
                                                  "ports: {http: 9000}}]"),
                                  key),
                        "10.0.0.1:8080*3 10.0.0.2:9000*1");
    assert_string_equal(endpoints(ENTRY("DNS", ""), key), "api.example.com:8080*1");
    /* Names and addresses may stand side by side; each name is looked up. */
    assert_string_equal(
        endpoints(ENTRY("DNS", ", endpoints: [{address: one.example.com}, {address: 10.0.0.1}, {address: "
                               "two.example.com, ports: {http: 9000}, weight: 5}]"),
                  key),
        "10.0.0.1:8080*1 one.example.com:8080*1 two.example.com:9000*5");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_one_address_one_gateway, setup, teardown),
        cmocka_unit_test_setup_teardown(test_age_decides_before_the_name, setup, teardown),
        cmocka_unit_test_setup_teardown(test_classes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_protocols_and_addresses, setup, teardown),
        cmocka_unit_test_setup_teardown(test_every_address, setup, teardown),
        cmocka_unit_test_setup_teardown(test_limits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_environment_in_the_access_log, setup, teardown),
        cmocka_unit_test_setup_teardown(test_who_gets_a_plugin, setup, teardown),
        cmocka_unit_test_setup_teardown(test_match, setup, teardown),
        cmocka_unit_test_setup_teardown(test_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_plugin_that_is_not_there_yet_has_its_place, setup, teardown),
        cmocka_unit_test_setup_teardown(test_attachment, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hostnames_meet, setup, teardown),
        cmocka_unit_test_setup_teardown(test_references, setup, teardown),
        cmocka_unit_test_setup_teardown(test_backends_that_are_not_there, setup, teardown),
        cmocka_unit_test_setup_teardown(test_endpoints_of_slices, setup, teardown),
        cmocka_unit_test_setup_teardown(test_endpoints_of_entries, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
