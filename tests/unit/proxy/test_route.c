/* SPDX-License-Identifier: Apache-2.0
 *
 * Routing by the Gateway API's rules: precedence, hosts, paths, conditions, limits of regular expressions, and the
 * filters that edit what passes. HTTPRoutes are made by hand here; their memory is counted by stand-ins.
 */
#include "proxy/route.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static int resource_refs;
struct resource *resource_ref(struct resource *r)
{
    resource_refs++;
    return r;
}
void resource_unref(struct resource *r)
{
    assert_non_null(r);
    resource_refs--;
}

/* ---- a small builder ---- */

enum { MAX_RULES = 8, MAX_ROUTES = 8 };
struct fixture {
    struct route_table *table;
    struct resource resources[MAX_ROUTES];
    struct route_rule rules[MAX_ROUTES][MAX_RULES];
    struct route_match matches[MAX_ROUTES][MAX_RULES];
    size_t count;
    struct chunk_pool *pool;
    struct arena arena;
    struct headers request;
    struct route_scratch *scratch;
};
static struct fixture f;

static int setup(void **state)
{
    (void)state;
    memset(&f, 0, sizeof(f));
    f.table = route_table_new();
    f.pool = chunk_pool_new(4);
    arena_init(&f.arena, f.pool, 1 << 20);
    headers_init(&f.request, &f.arena, 1 << 16, 1000);
    f.scratch = route_scratch_new();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    route_table_free(f.table);
    route_scratch_free(f.scratch);
    arena_fini(&f.arena);
    chunk_pool_free(f.pool);
    assert_int_equal(resource_refs, 0);
    return 0;
}

static struct route_match prefix(const char *value)
{
    return (struct route_match){.path = {MATCH_PREFIX, (char *)(uintptr_t)value}};
}
static struct route_match exact(const char *value)
{
    return (struct route_match){.path = {MATCH_EXACT, (char *)(uintptr_t)value}};
}
static struct route_match regex(const char *value)
{
    return (struct route_match){.path = {MATCH_REGEX, (char *)(uintptr_t)value}};
}

/* A route of one match for each rule; the rules' backends are none. */
static void add_route_at(const char *name, const char *const *hosts, size_t host_count,
                         const struct route_match *matches, size_t count, int64_t created)
{
    static const struct route_backend *const no_backends[MAX_RULES];
    struct resource *r = &f.resources[f.count];
    r->meta = (struct meta){
        .kind = KIND_HTTP_ROUTE, .ns = (char *)(uintptr_t) "ns", .name = (char *)(uintptr_t)name, .created = created};
    r->u.http_route.rules = f.rules[f.count];
    r->u.http_route.rule_count = count;
    for (size_t i = 0; i < count; i++) {
        f.matches[f.count][i] = matches[i];
        f.rules[f.count][i] = (struct route_rule){.matches = &f.matches[f.count][i], .match_count = 1};
    }
    f.count++;
    route_table_add(f.table, r, hosts, host_count, no_backends);
}

static void add_route(const char *name, const char *host, const struct route_match *matches, size_t count)
{
    add_route_at(name, &host, 1, matches, count, 0);
}

static void set_request(const char *method, const char *host, const char *path)
{
    headers_clear(&f.request);
    assert_int_equal(headers_add(&f.request, STR(":method"), str_of(method)), HEADERS_OK);
    assert_int_equal(headers_add(&f.request, STR(":authority"), str_of(host)), HEADERS_OK);
    assert_int_equal(headers_add(&f.request, STR(":path"), str_of(path)), HEADERS_OK);
}

static void add_header(const char *name, const char *value)
{
    assert_int_equal(headers_add(&f.request, str_of(name), str_of(value)), HEADERS_OK);
}

/* Name of the route for the request as it is; "-" for none, "!" for the limit. */
static const char *found(void)
{
    struct route_hit hit;
    switch (route_lookup(f.table, &f.request, f.scratch, &hit)) {
    case ROUTE_FOUND: assert_non_null(hit.match); return hit.route->name;
    case ROUTE_LIMIT: assert_null(hit.route); return "!";
    case ROUTE_NONE: break;
    }
    assert_null(hit.route);
    return "-";
}

static const char *get(const char *host, const char *path)
{
    set_request("GET", host, path);
    return found();
}

/* ---- hosts ---- */

static void test_hosts(void **state)
{
    (void)state;
    struct route_match all = prefix("/"), deep = prefix("/deep");
    add_route("exact", "www.Example.com", &deep, 1);
    add_route("wide", "*.example.com", &all, 1);
    add_route("narrow", "*.a.example.com", &all, 1);
    add_route("any", "", &all, 1);
    add_route("literal", "[::1]", &all, 1);
    route_table_finish(f.table);
    assert_string_equal(get("www.example.com", "/deep"), "ns.exact.0");
    assert_string_equal(get("WWW.EXAMPLE.COM:8080", "/deep/er"), "ns.exact.0");
    /* the host's own rules are the only ones looked at */
    assert_string_equal(get("www.example.com", "/other"), "-");
    assert_string_equal(get("x.example.com", "/"), "ns.wide.0");
    assert_string_equal(get("x.y.example.com:80", "/"), "ns.wide.0");
    assert_string_equal(get("x.a.example.com", "/"), "ns.narrow.0");
    assert_string_equal(get("a.example.com", "/"), "ns.wide.0");
    assert_string_equal(get("example.com", "/"), "ns.any.0");
    assert_string_equal(get(".example.com", "/"), "ns.any.0");
    assert_string_equal(get("badexample.com", "/"), "ns.any.0");
    assert_string_equal(get("[::1]:8080", "/"), "ns.literal.0");
    assert_string_equal(get("[::1", "/"), "ns.any.0");
    assert_string_equal(get("", "/"), "ns.any.0");
    char name[400];
    memset(name, 'a', sizeof(name) - 1);
    memcpy(name + 380, ".example.com", sizeof(".example.com"));
    assert_string_equal(get(name, "/"), "ns.any.0"); /* longer than any name may be */
}

static void test_no_host_matches(void **state)
{
    (void)state;
    struct route_match all = prefix("/");
    add_route("one", "one.example", &all, 1);
    route_table_finish(f.table);
    assert_string_equal(get("two.example", "/"), "-");
    assert_string_equal(get("", "/"), "-");
    headers_clear(&f.request);
    assert_string_equal(found(), "-");
}

static void test_empty_table(void **state)
{
    (void)state;
    route_table_finish(f.table);
    assert_string_equal(get("two.example", "/"), "-");
}

static void test_several_hosts_of_a_route(void **state)
{
    (void)state;
    struct route_match all = prefix("/"), a = prefix("/a");
    const char *both[] = {"one.example", "two.example"};
    add_route_at("both", both, 2, &all, 1, 0);
    add_route("two", "two.example", &a, 1);
    route_table_finish(f.table);
    assert_string_equal(get("one.example", "/a"), "ns.both.0");
    assert_string_equal(get("two.example", "/a"), "ns.two.0");
    assert_string_equal(get("two.example", "/b"), "ns.both.0");
}

/* ---- paths ---- */

static void test_path_precedence(void **state)
{
    (void)state;
    struct route_match m[] = {regex("/foo/b[a-z]+"), prefix("/foo"), exact("/foo/bar"),      prefix("/foo/bar/"),
                              exact("/foo/"),        regex("/x.*"),  regex("/x[0-9]{1,4}.*")};
    add_route("r", "", m, ARRAY_LEN(m));
    route_table_finish(f.table);
    assert_string_equal(get("h", "/foo/bar"), "ns.r.2");
    assert_string_equal(get("h", "/foo/bar?x=/y"), "ns.r.2");
    assert_string_equal(get("h", "/foo/bar/"), "ns.r.3");
    assert_string_equal(get("h", "/foo/bar/baz"), "ns.r.3");
    assert_string_equal(get("h", "/foo/barbaz"), "ns.r.1"); /* a prefix goes before a regular expression */
    assert_string_equal(get("h", "/foo"), "ns.r.1");
    assert_string_equal(get("h", "/foo/"), "ns.r.4");
    assert_string_equal(get("h", "/foo/x"), "ns.r.1");
    assert_string_equal(get("h", "/foobar"), "-");
    assert_string_equal(get("h", "/Foo"), "-");
    assert_string_equal(get("h", "/x12y"), "ns.r.6"); /* the longer expression */
    assert_string_equal(get("h", "/xy"), "ns.r.5");
    assert_string_equal(get("h", "/yx12"), "-"); /* the whole path or nothing */
    assert_string_equal(get("h", "/"), "-");
    assert_string_equal(get("h", ""), "-");
}

static void test_root_prefix_matches_everything(void **state)
{
    (void)state;
    struct route_match m[] = {prefix("/"), prefix("/a//b")};
    add_route("r", "", m, ARRAY_LEN(m));
    route_table_finish(f.table);
    assert_string_equal(get("h", "/"), "ns.r.0");
    assert_string_equal(get("h", "//"), "ns.r.0");
    assert_string_equal(get("h", "/?q"), "ns.r.0");
    assert_string_equal(get("h", "*"), "ns.r.0");
    assert_string_equal(get("h", "/a//b/c"), "ns.r.1");
    assert_string_equal(get("h", "/a/b"), "ns.r.0");
}

/* ---- conditions ---- */

static char *text(const char *s) { return (char *)(uintptr_t)s; }

static void test_methods_headers_queries_precede(void **state)
{
    (void)state;
    static struct name_match version[] = {{MATCH_EXACT, NULL, NULL}, {MATCH_EXACT, NULL, NULL}};
    version[0] = (struct name_match){MATCH_EXACT, text("version"), text("two")};
    version[1] = (struct name_match){MATCH_EXACT, text("color"), text("blue")};
    static struct name_match animal[1];
    animal[0] = (struct name_match){MATCH_EXACT, text("animal"), text("whale")};
    struct route_match m[6];
    for (size_t i = 0; i < ARRAY_LEN(m); i++)
        m[i] = prefix("/");
    m[1].query = animal;
    m[1].query_count = 1;
    m[2].headers = version;
    m[2].header_count = 1;
    m[3].headers = version;
    m[3].header_count = 2;
    m[4].method = text("POST");
    m[5] = prefix("/long");
    add_route("r", "", m, ARRAY_LEN(m));
    route_table_finish(f.table);
    assert_string_equal(get("h", "/"), "ns.r.0");
    assert_string_equal(get("h", "/?animal=whale"), "ns.r.1");
    add_header("version", "two");
    assert_string_equal(found(), "ns.r.2"); /* headers before query */
    add_header("color", "blue");
    assert_string_equal(found(), "ns.r.3"); /* more headers first */
    assert_int_equal(headers_set(&f.request, STR(":method"), STR("POST")), HEADERS_OK);
    assert_string_equal(found(), "ns.r.4"); /* the method before both */
    assert_int_equal(headers_set(&f.request, STR(":path"), STR("/long/er")), HEADERS_OK);
    assert_string_equal(found(), "ns.r.5"); /* the longer path before all */
    set_request("post", "h", "/");
    assert_string_equal(found(), "ns.r.0"); /* methods have case */
}

static void test_headers(void **state)
{
    (void)state;
    static struct name_match conditions[4];
    conditions[0] = (struct name_match){MATCH_EXACT, text("x-list"), text("a,b,c")};
    conditions[1] = (struct name_match){MATCH_REGEX, text("user-agent"), text("curl/[0-9.]+")};
    conditions[2] = (struct name_match){MATCH_EXACT, text("host"), text("www.example.com:8080")};
    conditions[3] = (struct name_match){MATCH_REGEX, text("x-any"), text(".*")};
    struct route_match m[4];
    for (size_t i = 0; i < ARRAY_LEN(m); i++) {
        m[i] = prefix("/");
        m[i].headers = &conditions[i];
        m[i].header_count = 1;
    }
    add_route("r", "", m, ARRAY_LEN(m));
    route_table_finish(f.table);
    set_request("GET", "h", "/");
    assert_string_equal(found(), "-");
    add_header("x-list", "a");
    add_header("x-list", "b,c");
    assert_string_equal(found(), "ns.r.0"); /* several fields are one */
    set_request("GET", "h", "/");
    add_header("User-Agent", "curl/7.88");
    assert_string_equal(found(), "ns.r.1");
    set_request("GET", "h", "/");
    add_header("user-agent", "xcurl/7.88");
    assert_string_equal(found(), "-");
    assert_string_equal(get("www.example.com:8080", "/"), "ns.r.2");
    set_request("GET", "h", "/");
    add_header("x-any", "");
    assert_string_equal(found(), "ns.r.3"); /* empty is there, absent is not */
}

static void test_queries(void **state)
{
    (void)state;
    static struct name_match conditions[3];
    conditions[0] = (struct name_match){MATCH_EXACT, text("a b"), text("c&d")};
    conditions[1] = (struct name_match){MATCH_REGEX, text("n"), text("[0-9]+")};
    conditions[2] = (struct name_match){MATCH_EXACT, text("flag"), text("")};
    struct route_match m[3];
    for (size_t i = 0; i < ARRAY_LEN(m); i++) {
        m[i] = prefix("/");
        m[i].query = &conditions[i];
        m[i].query_count = 1;
    }
    add_route("r", "", m, ARRAY_LEN(m));
    route_table_finish(f.table);
    assert_string_equal(get("h", "/?a%20b=c%26d"), "ns.r.0");
    assert_string_equal(get("h", "/?x&a%20b=c%26d&y"), "ns.r.0");
    assert_string_equal(get("h", "/?a+b=c%26d"), "-");
    assert_string_equal(get("h", "/?n=12"), "ns.r.1");
    assert_string_equal(get("h", "/?n=1%32"), "ns.r.1");
    assert_string_equal(get("h", "/?n=x&n=12"), "-"); /* the first counts */
    assert_string_equal(get("h", "/?N=12"), "-");
    assert_string_equal(get("h", "/?n=12%"), "-");
    assert_string_equal(get("h", "/?flag"), "ns.r.2");
    assert_string_equal(get("h", "/?flag="), "ns.r.2");
    assert_string_equal(get("h", "/?flag=x"), "-");
    assert_string_equal(get("h", "/?"), "-");
    assert_string_equal(get("h", "/"), "-");
}

static void test_ties(void **state)
{
    (void)state;
    struct route_match m[] = {prefix("/"), prefix("/")};
    const char *host = "";
    add_route_at("b-young", &host, 1, m, 2, 200);
    add_route_at("z-old", &host, 1, m, 2, 100);
    add_route_at("a-old", &host, 1, m, 2, 100);
    route_table_finish(f.table);
    assert_string_equal(get("h", "/"), "ns.a-old.0");
}

/* ---- limits ---- */

static void test_regex_limit_is_an_error(void **state)
{
    (void)state;
    struct route_match m[] = {regex("/(a+)+$"), regex("/.*")};
    add_route("r", "", m, ARRAY_LEN(m));
    route_table_finish(f.table);
    assert_string_equal(get("h", "/aaaa"), "ns.r.0");
    assert_string_equal(get("h", "/b"), "ns.r.1");
    char path[60] = "/";
    memset(path + 1, 'a', 50);
    path[51] = 'b';
    assert_string_equal(get("h", path), "!");
}

static void test_regex_that_does_not_compile_is_an_error(void **state)
{
    (void)state;
    struct route_match m[] = {regex("/("), regex("/")};
    add_route("r", "", m, ARRAY_LEN(m));
    route_table_finish(f.table);
    assert_string_equal(get("h", "/"), "!");
}

static void test_long_innocent_path_is_no_limit(void **state)
{
    (void)state;
    struct route_match m[] = {regex("/([^/]+/)*[^/]*\\.(png|jpg)"), regex("/.*")};
    add_route("r", "", m, ARRAY_LEN(m));
    route_table_finish(f.table);
    char path[16 * 1024];
    for (size_t i = 0; i < sizeof(path); i++)
        path[i] = i % 8 == 0 ? '/' : 'x';
    memcpy(path + sizeof(path) - 5, ".png", 5);
    assert_string_equal(get("h", path), "ns.r.0");
}

static void test_many_rules_on_a_host(void **state)
{
    (void)state;
    enum { MANY = 1000 };
    static struct route_rule rules[MANY];
    static struct route_match matches[MANY];
    static char paths[MANY][32];
    static const struct route_backend *backends[MANY];
    for (size_t i = 0; i < MANY; i++) {
        (void)snprintf(paths[i], sizeof(paths[i]), "/service-%zu/v%zu", i / 2, i % 2);
        matches[i] = i % 3 == 0 ? exact(paths[i]) : prefix(paths[i]);
        rules[i] = (struct route_rule){.matches = &matches[i], .match_count = 1};
    }
    struct resource *r = &f.resources[f.count++];
    r->meta = (struct meta){.kind = KIND_HTTP_ROUTE, .ns = text("ns"), .name = text("r")};
    r->u.http_route.rules = rules;
    r->u.http_route.rule_count = MANY;
    const char *host = "h";
    route_table_add(f.table, r, &host, 1, backends);
    route_table_finish(f.table);
    for (size_t i = 0; i < MANY; i++) {
        char wanted[32];
        (void)snprintf(wanted, sizeof(wanted), "ns.r.%zu", i);
        assert_string_equal(get("h", paths[i]), wanted);
    }
    char path[16 * 1024];
    memset(path, '/', sizeof(path) - 1);
    path[sizeof(path) - 1] = '\0';
    assert_string_equal(get("h", path), "-");
}

/* ---- backends ---- */

static void test_backends(void **state)
{
    (void)state;
    static struct route_match m; /* lives as long as the table */
    static struct backend_ref refs[3];
    static struct route_rule rule = {.matches = &m, .match_count = 1, .backends = refs, .backend_count = 3};
    m = prefix("/");
    struct resource *r = &f.resources[f.count++];
    r->meta = (struct meta){.kind = KIND_HTTP_ROUTE, .ns = text("ns"), .name = text("r")};
    r->u.http_route.rules = &rule;
    r->u.http_route.rule_count = 1;
    struct route_backend list[3] = {{.cluster = text("ns/a:80"), .weight = 1},
                                    {.cluster = NULL, .why = text("no such Service"), .weight = 0},
                                    {.cluster = text("ns/b:80"), .weight = 3}};
    const struct route_backend *lists[] = {list};
    const char *host = "";
    route_table_add(f.table, r, &host, 1, lists);
    route_table_finish(f.table);
    set_request("GET", "h", "/");
    struct route_hit hit;
    assert_int_equal(route_lookup(f.table, &f.request, f.scratch, &hit), ROUTE_FOUND);
    assert_int_equal(hit.route->total_weight, 4);
    assert_ptr_equal(hit.route->rule, &rule);
    assert_string_equal(hit.route->backends[1].why, "no such Service");
    int a = 0, b = 0;
    for (uint64_t i = 0; i < 8; i++) {
        const struct route_backend *chosen = route_choose_backend(hit.route, i);
        a += strcmp(chosen->cluster, "ns/a:80") == 0;
        b += strcmp(chosen->cluster, "ns/b:80") == 0;
    }
    assert_int_equal(a, 2);
    assert_int_equal(b, 6);
    struct route none = {0};
    assert_null(route_choose_backend(&none, 1));
}

/* ---- filters ---- */

static void test_modify_headers(void **state)
{
    (void)state;
    set_request("GET", "h", "/");
    add_header("x-set", "old");
    add_header("x-set", "older");
    add_header("x-add", "one");
    add_header("x-remove", "gone");
    struct header_value set[] = {
        {text("X-Set"), text("new")}, {text("Host"), text("other.example")}, {text(":path"), text("/evil")}};
    struct header_value add[] = {{text("X-Add"), text("two")}, {text("x-remove"), text("gone too")}};
    char *removed[] = {text("X-Remove"), text("host"), text(":method")};
    struct header_modifier modifier = {set, add, removed, 3, 2, 3};
    assert_int_equal(route_modify_headers(&modifier, &f.request), HEADERS_OK);
    assert_true(str_is(headers_get(&f.request, STR("x-set"))->value, "new"));
    assert_int_equal(headers_remove(&f.request, STR("x-set")), 1);
    assert_int_equal(headers_remove(&f.request, STR("x-add")), 2);
    assert_null(headers_get(&f.request, STR("x-remove")));
    assert_null(headers_get(&f.request, STR("host")));
    assert_true(str_is(headers_value(&f.request, HDR_AUTHORITY), "other.example"));
    assert_true(str_is(headers_value(&f.request, HDR_PATH), "/"));
    assert_true(str_is(headers_value(&f.request, HDR_METHOD), "GET"));
    /* a response has no authority */
    headers_clear(&f.request);
    add_header(":status", "200");
    assert_int_equal(route_modify_headers(&modifier, &f.request), HEADERS_OK);
    assert_null(headers_get_id(&f.request, HDR_AUTHORITY));
}

static void test_modify_headers_is_bounded(void **state)
{
    (void)state;
    struct header_value add[] = {{text("x"), text("0123456789")}};
    struct header_modifier modifier = {.add = add, .add_count = 1};
    f.request.max_count = f.request.count;
    assert_int_equal(route_modify_headers(&modifier, &f.request), HEADERS_FULL);
}

static void rewrite(struct path_modifier *m, const struct route_match *match, const char *path, const char *wanted)
{
    set_request("GET", "h", path);
    struct route_filter filter = {.type = FILTER_REWRITE, .to = {.path = m}};
    assert_int_equal(route_rewrite(&filter, match, &f.request), HEADERS_OK);
    struct str now = headers_value(&f.request, HDR_PATH);
    if (!str_is(now, wanted))
        fail_msg("%s became %.*s, not %s", path, STR_ARG(now), wanted);
}

static void test_rewrite_prefix(void **state)
{
    (void)state;
    static const struct {
        const char *path, *prefix, *value, *wanted;
    } cases[] = {
        /* the table of the Gateway API, HTTPPathModifier */
        {"/foo/bar", "/foo", "/xyz", "/xyz/bar"},
        {"/foo/bar", "/foo", "/xyz/", "/xyz/bar"},
        {"/foo/bar", "/foo/", "/xyz", "/xyz/bar"},
        {"/foo/bar", "/foo/", "/xyz/", "/xyz/bar"},
        {"/foo", "/foo", "/xyz", "/xyz"},
        {"/foo/", "/foo", "/xyz", "/xyz/"},
        {"/foo/bar", "/foo", "", "/bar"},
        {"/foo/", "/foo", "", "/"},
        {"/foo", "/foo", "", "/"},
        {"/foo/", "/foo", "/", "/"},
        {"/foo", "/foo", "/", "/"},
        /* and more */
        {"/foo/bar?a=/foo", "/foo", "/", "/bar?a=/foo"},
        {"/foo?", "/foo", "/xyz", "/xyz?"},
        {"/bar", "/", "/xyz", "/xyz/bar"},
        {"/", "/", "/xyz", "/xyz/"},
        {"/foobar", "/foo", "/xyz", "/foobar"},
        {"/other", "/foo", "/xyz", "/other"},
        {"*", "/", "/xyz", "*"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct path_modifier m = {PATH_REPLACE_PREFIX, text(cases[i].value)};
        struct route_match match = prefix(cases[i].prefix);
        rewrite(&m, &match, cases[i].path, cases[i].wanted);
    }
    struct path_modifier m = {PATH_REPLACE_PREFIX, text("/xyz")};
    struct route_match match = exact("/foo");
    rewrite(&m, &match, "/foo", "/foo");
}

static void test_rewrite_full_path_and_host(void **state)
{
    (void)state;
    struct path_modifier m = {PATH_REPLACE_FULL, text("/new")};
    struct route_match match = prefix("/");
    rewrite(&m, &match, "/a/b?c=d", "/new?c=d");
    rewrite(&m, &match, "/a/b", "/new");
    m.value = text("/new?x");
    rewrite(&m, &match, "/a/b?c=d", "/new?x");
    struct route_filter filter = {.type = FILTER_REWRITE, .to = {.hostname = text("up.example")}};
    assert_int_equal(route_rewrite(&filter, &match, &f.request), HEADERS_OK);
    assert_true(str_is(headers_value(&f.request, HDR_AUTHORITY), "up.example"));
}

static void test_redirect(void **state)
{
    (void)state;
    static const struct {
        const char *scheme, *hostname;
        uint16_t port;
        const char *prefix; /* ReplacePrefixMatch of "/old", or NULL */
        const char *request_scheme, *host, *path;
        uint16_t listener;
        const char *wanted;
    } cases[] = {
        {NULL, "new.example", 0, NULL, "http", "old.example", "/p?q", 80, "http://new.example/p?q"},
        {NULL, "new.example", 0, NULL, "http", "old.example", "/p", 8080, "http://new.example:8080/p"},
        {NULL, NULL, 0, NULL, "http", "old.example:8080", "/p", 8080, "http://old.example:8080/p"},
        {NULL, NULL, 0, NULL, "https", "old.example", "/p", 443, "https://old.example/p"},
        {"https", NULL, 0, NULL, "http", "old.example:8080", "/p", 8080, "https://old.example/p"},
        {"http", NULL, 0, NULL, "https", "old.example", "/p", 443, "http://old.example/p"},
        {"https", NULL, 8443, NULL, "http", "old.example", "/p", 80, "https://old.example:8443/p"},
        {"https", NULL, 443, NULL, "http", "old.example", "/p", 80, "https://old.example/p"},
        {"https", NULL, 80, NULL, "http", "old.example", "/p", 80, "https://old.example:80/p"},
        {NULL, NULL, 80, NULL, "http", "old.example", "/p", 8080, "http://old.example/p"},
        {NULL, NULL, 0, "/new", "http", "[::1]:8080", "/old/x?y", 8080, "http://[::1]:8080/new/x?y"},
        {NULL, NULL, 0, "", "http", "h", "/old", 80, "http://h/"},
        {NULL, NULL, 0, NULL, "http", "", "//evil.example/", 80, "/evil.example/"},
        {NULL, NULL, 0, "", "http", "", "/old//evil.example", 80, "/evil.example"},
        {NULL, NULL, 0, NULL, "http", "h", "*", 80, "http://h/"},
    };
    struct strbuf out = {0};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        set_request("GET", cases[i].host, cases[i].path);
        assert_int_equal(headers_add(&f.request, STR(":scheme"), str_of(cases[i].request_scheme)), HEADERS_OK);
        struct path_modifier m = {PATH_REPLACE_PREFIX, text(cases[i].prefix)};
        struct route_match match = prefix("/old");
        struct route_filter filter = {.type = FILTER_REDIRECT,
                                      .to = {.scheme = text(cases[i].scheme),
                                             .hostname = text(cases[i].hostname),
                                             .port = cases[i].port,
                                             .path = cases[i].prefix != NULL ? &m : NULL}};
        route_redirect_location(&filter, &match, &f.request, cases[i].listener, &out);
        if (!str_is(strbuf_str(&out), cases[i].wanted))
            fail_msg("case %zu: %.*s, not %s", i, STR_ARG(strbuf_str(&out)), cases[i].wanted);
    }
    strbuf_free(&out);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_hosts),
        TEST(test_no_host_matches),
        TEST(test_empty_table),
        TEST(test_several_hosts_of_a_route),
        TEST(test_path_precedence),
        TEST(test_root_prefix_matches_everything),
        TEST(test_methods_headers_queries_precede),
        TEST(test_headers),
        TEST(test_queries),
        TEST(test_ties),
        TEST(test_regex_limit_is_an_error),
        TEST(test_regex_that_does_not_compile_is_an_error),
        TEST(test_long_innocent_path_is_no_limit),
        TEST(test_many_rules_on_a_host),
        TEST(test_backends),
        TEST(test_modify_headers),
        TEST(test_modify_headers_is_bounded),
        TEST(test_rewrite_prefix),
        TEST(test_rewrite_full_path_and_host),
        TEST(test_redirect),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
