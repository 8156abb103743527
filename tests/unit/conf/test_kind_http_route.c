/* SPDX-License-Identifier: Apache-2.0
 *
 * HTTPRoute: each rule of the CRD with its text, defaults, and what filters become.
 */
#include "conf_test.h"

#define HEAD              "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\nspec:\n  "
#define T                 "HTTPRoute default/r: "
#define RULE(text)        "rules: [{" text "}]"
#define PATH(type, value) RULE("matches: [{path: {type: " type ", value: '" value "'}}]")
#define V                 "Invalid value: "
#define R0                T "spec.rules[0]"
#define P0                R0 ".matches[0].path: " V
#define F0                R0 ".filters[0]: " V

static void test_messages(void **state)
{
    (void)state;
    static const struct message_case cases[] = {
        {"foo: 1", T "unknown field \"spec.foo\""},
        {"rules: []", T "spec.rules: " V "spec.rules in body should have at least 1 items"},
        {"parentRefs: [{}]", T "spec.parentRefs[0].name: Required value"},
        {"parentRefs: [{name: a}, {name: a, sectionName: b}]",
         T "spec.parentRefs: " V
           "sectionName or port must be specified when parentRefs includes 2 or more references to the same parent"},
        {"parentRefs: [{name: a, sectionName: b}, {name: a, sectionName: b}]",
         T "spec.parentRefs: " V
           "sectionName or port must be unique when parentRefs includes 2 or more references to the same parent"},
        {"parentRefs: [{name: a}, {name: a}]",
         T "spec.parentRefs: " V
           "sectionName or port must be unique when parentRefs includes 2 or more references to the same parent"},
        {"parentRefs: [{name: a, sectionName: b}, {name: a, sectionName: c}, {name: d}]", ""},
        {"parentRefs: [{name: a, port: 70000}]", T
         "spec.parentRefs[0].port: " V "70000: spec.parentRefs[0].port in body should be less than or equal to 65535"},
        {"hostnames: ['a.*.com']", T "spec.hostnames[0]: " V "\"a.*.com\": spec.hostnames[0] in body should match "
                                     "'^(\\*\\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$'"},
        {"hostnames: ['*']", T "spec.hostnames[0]: " V "\"*\": spec.hostnames[0] in body should match "
                               "'^(\\*\\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$'"},
        {"hostnames: ['']",
         T "spec.hostnames[0]: " V "\"\": spec.hostnames[0] in body should be at least 1 chars long"},
        {"hostnames: ['*.a.com', b.com]", ""},
        /* paths */
        {PATH("Exact", "a"),
         P0 "value must be an absolute path and start with '/' when type one of ['Exact', 'PathPrefix']"},
        {PATH("PathPrefix", ""),
         P0 "value must be an absolute path and start with '/' when type one of ['Exact', 'PathPrefix']"},
        {PATH("Exact", "/a//b"), P0 "must not contain '//' when type one of ['Exact', 'PathPrefix']"},
        {PATH("PathPrefix", "/a/./b"), P0 "must not contain '/./' when type one of ['Exact', 'PathPrefix']"},
        {PATH("PathPrefix", "/a/../b"), P0 "must not contain '/../' when type one of ['Exact', 'PathPrefix']"},
        {PATH("PathPrefix", "/a%2fb"), P0 "must not contain '%2f' when type one of ['Exact', 'PathPrefix']"},
        {PATH("PathPrefix", "/a%2Fb"), P0 "must not contain '%2F' when type one of ['Exact', 'PathPrefix']"},
        {PATH("PathPrefix", "/a#b"), P0 "must not contain '#' when type one of ['Exact', 'PathPrefix']"},
        {PATH("Exact", "/a/.."), P0 "must not end with '/..' when type one of ['Exact', 'PathPrefix']"},
        {PATH("Exact", "/a/."), P0 "must not end with '/.' when type one of ['Exact', 'PathPrefix']"},
        {PATH("Exact", "/a b"),
         P0 "must only contain valid characters (matching ^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+$) for "
            "types ['Exact', 'PathPrefix']"},
        {PATH("Prefix", "/"), R0 ".matches[0].path.type: Unsupported value: \"Prefix\": supported values: "
                                 "\"PathPrefix\", \"Exact\", \"RegularExpression\""},
        {PATH("RegularExpression", "/a//b/../[0-9]+"), ""},
        {PATH("RegularExpression", "/(a"),
         R0 ".matches[0].path.value: " V
            "\"/(a\": not a valid regular expression: missing closing parenthesis at offset 3"},
        /* headers, query, method */
        {RULE("matches: [{headers: [{name: 'a b', value: c}]}]"),
         R0 ".matches[0].headers[0].name: " V "\"a b\": spec.rules[0].matches[0].headers[0].name in body should match "
            "'^[A-Za-z0-9!#$%&'*+\\-.^_\\x60|~]+$'"},
        {RULE("matches: [{headers: [{name: a}]}]"), R0 ".matches[0].headers[0].value: Required value"},
        {RULE("matches: [{headers: [{name: a, value: b}, {name: a, value: c}]}]"),
         R0 ".matches[0].headers[1]: Duplicate value: {\"name\":\"a\"}"},
        {RULE("matches: [{queryParams: [{name: a, value: b}, {name: a, value: c}]}]"),
         R0 ".matches[0].queryParams[1]: Duplicate value: {\"name\":\"a\"}"},
        {RULE("matches: [{queryParams: [{type: RegularExpression, name: a, value: '*'}]}]"),
         R0 ".matches[0].queryParams[0].value: " V
            "\"*\": not a valid regular expression: quantifier does not follow a repeatable item at offset 0"},
        {RULE("matches: [{method: get}]"),
         R0 ".matches[0].method: Unsupported value: \"get\": supported values: \"GET\", \"HEAD\", \"POST\", \"PUT\", "
            "\"DELETE\", \"CONNECT\", \"OPTIONS\", \"TRACE\", \"PATCH\""},
        {RULE("matches: [{method: ''}]"),
         R0 ".matches[0].method: Unsupported value: \"\": supported values: \"GET\", \"HEAD\", \"POST\", \"PUT\", "
            "\"DELETE\", \"CONNECT\", \"OPTIONS\", \"TRACE\", \"PATCH\""},
        /* backends */
        {RULE("backendRefs: [{name: s}]"), R0 ".backendRefs[0]: " V "Must have port for Service reference"},
        {RULE("backendRefs: [{name: s, kind: Other, group: example.com}]"), ""},
        {RULE("backendRefs: [{port: 80}]"), R0 ".backendRefs[0].name: Required value"},
        {RULE("backendRefs: [{name: s, port: 80, weight: -1}]"),
         R0 ".backendRefs[0].weight: " V
            "-1: spec.rules[0].backendRefs[0].weight in body should be greater than or equal to 0"},
        {RULE("backendRefs: [{name: s, port: 80, weight: 1000001}]"),
         R0 ".backendRefs[0].weight: " V
            "1000001: spec.rules[0].backendRefs[0].weight in body should be less than or equal to 1000000"},
        /* filters */
        {RULE("filters: [{}]"), R0 ".filters[0].type: Required value"},
        {RULE("filters: [{type: Nope}]"),
         R0 ".filters[0].type: Unsupported value: \"Nope\": supported values: \"RequestHeaderModifier\", "
            "\"ResponseHeaderModifier\", \"RequestRedirect\", \"URLRewrite\", \"ExtensionRef\", \"RequestMirror\", "
            "\"CORS\", \"ExternalAuth\""},
        {RULE("filters: [{type: RequestHeaderModifier}]"),
         F0 "filter.requestHeaderModifier must be specified for RequestHeaderModifier filter.type"},
        {RULE("filters: [{type: URLRewrite, urlRewrite: {}, requestRedirect: {}}]"),
         F0 "filter.requestRedirect must be nil if the filter.type is not RequestRedirect"},
        {RULE("filters: [{type: RequestMirror, requestMirror: {backendRef: {name: x, port: 80}}}]"),
         R0 ".filters[0]: RequestMirror filters are not supported yet"},
        {RULE("filters: [{type: CORS, cors: {allowOrigins: ['*']}}]"),
         R0 ".filters[0]: CORS filters are not supported yet"},
        {RULE("filters: [{type: ExtensionRef, extensionRef: {group: g, kind: K, name: n1}}]"),
         R0 ".filters[0]: ExtensionRef filters are not supported yet"},
        {RULE("filters: [{type: RequestHeaderModifier, requestHeaderModifier: {}}, {type: RequestHeaderModifier, "
              "requestHeaderModifier: {}}]"),
         R0 ".filters: " V "RequestHeaderModifier filter cannot be repeated"},
        {RULE("filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {}}, {type: ResponseHeaderModifier, "
              "responseHeaderModifier: {}}]"),
         R0 ".filters: " V "ResponseHeaderModifier filter cannot be repeated"},
        {RULE("filters: [{type: URLRewrite, urlRewrite: {}}, {type: URLRewrite, urlRewrite: {}}]"),
         R0 ".filters: " V "URLRewrite filter cannot be repeated"},
        {RULE("filters: [{type: RequestRedirect, requestRedirect: {}}, {type: URLRewrite, urlRewrite: {}}]"),
         R0 ".filters: " V
            "May specify either httpRouteFilterRequestRedirect or httpRouteFilterRequestRewrite, but not both"},
        {RULE("filters: [{type: RequestRedirect, requestRedirect: {}}], backendRefs: [{name: s, port: 80}]"),
         R0 ": " V "RequestRedirect filter must not be used together with backendRefs"},
        {RULE("filters: [{type: RequestRedirect, requestRedirect: {statusCode: 418}}]"), R0
         ".filters[0].requestRedirect.statusCode: Unsupported value: 418: supported values: 301, 302, 303, 307, 308"},
        {RULE("filters: [{type: RequestRedirect, requestRedirect: {scheme: ftp}}]"),
         R0 ".filters[0].requestRedirect.scheme: Unsupported value: \"ftp\": supported values: \"http\", \"https\""},
        {RULE("filters: [{type: RequestRedirect, requestRedirect: {hostname: '*.a'}}]"),
         R0 ".filters[0].requestRedirect.hostname: " V
            "\"*.a\": spec.rules[0].filters[0].requestRedirect.hostname in body should match "
            "'^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$'"},
        {RULE("filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath}}}]"), R0
         ".filters[0].urlRewrite.path: " V "replaceFullPath must be specified when type is set to 'ReplaceFullPath'"},
        {RULE("filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch}}}]"),
         R0 ".filters[0].urlRewrite.path: " V
            "replacePrefixMatch must be specified when type is set to 'ReplacePrefixMatch'"},
        {RULE("filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /a, "
              "replacePrefixMatch: /b}}}]"),
         R0 ".filters[0].urlRewrite.path: " V "type must be 'ReplacePrefixMatch' when replacePrefixMatch is set"},
        {RULE("filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: '/a b'}}}]"),
         R0 ".filters[0].urlRewrite.path: " V "a path must not hold spaces, control or non-ASCII characters"},
        {RULE("matches: [{path: {type: Exact, value: /a}}], filters: [{type: URLRewrite, urlRewrite: {path: {type: "
              "ReplacePrefixMatch, replacePrefixMatch: /b}}}]"),
         R0
         ": " V
         "When using URLRewrite filter with path.replacePrefixMatch, exactly one PathPrefix match must be specified"},
        {RULE("matches: [{}, {path: {value: /b}}], filters: [{type: RequestRedirect, requestRedirect: {path: {type: "
              "ReplacePrefixMatch, replacePrefixMatch: /b}}}]"),
         R0 ": " V "When using RequestRedirect filter with path.replacePrefixMatch, exactly one PathPrefix match must "
            "be specified"},
        {RULE("matches: [{path: {type: Exact, value: /a}}], backendRefs: [{name: s, port: 80, filters: [{type: "
              "URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}}]}]"),
         R0 ": " V "Within backendRefs, when using URLRewrite filter with path.replacePrefixMatch, exactly one "
            "PathPrefix match must be specified"},
        {RULE("filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: ''}}}]"),
         ""},
        {RULE("filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: 'a:', value: b}]}}]"),
         R0 ".filters[0].requestHeaderModifier.set[0].name: " V
            "\"a:\": spec.rules[0].filters[0].requestHeaderModifier.set[0].name in body should match "
            "'^[A-Za-z0-9!#$%&'*+\\-.^_\\x60|~]+$'"},
        {RULE("filters: [{type: RequestHeaderModifier, requestHeaderModifier: {add: [{name: a, value: \"b\\nc\"}]}}]"),
         R0 ".filters[0].requestHeaderModifier.add[0].value: " V
            "\"b\\nc\": a header value must not hold control characters"},
        {RULE("filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: b}, {name: a, "
              "value: c}]}}]"),
         R0 ".filters[0].requestHeaderModifier.set[1]: Duplicate value: {\"name\":\"a\"}"},
        {RULE("filters: [{type: RequestHeaderModifier, requestHeaderModifier: {remove: [a, b, a]}}]"),
         R0 ".filters[0].requestHeaderModifier.remove[2]: Duplicate value: \"a\""},
        /* timeouts and what is not honoured */
        {RULE("timeouts: {request: 10}"),
         R0 ".timeouts.request: " V
            "\"integer\": spec.rules[0].timeouts.request in body must be of type string: \"integer\""},
        {RULE("timeouts: {request: 10d}"),
         R0 ".timeouts.request: " V
            "\"10d\": spec.rules[0].timeouts.request in body should match '^([0-9]{1,5}(h|m|s|ms)){1,4}$'"},
        {RULE("timeouts: {request: 1s, backendRequest: 2s}"),
         R0 ".timeouts: " V "backendRequest timeout cannot be longer than request timeout"},
        {RULE("timeouts: {request: 0s, backendRequest: 2s}"), ""},
        {RULE("retry: {attempts: 1}"), "warning: " R0 ".retry: retry is not supported yet: the policy has no effect"},
        {RULE("sessionPersistence: {}"),
         "warning: " R0 ".sessionPersistence: sessionPersistence is not supported yet: sessions do not stick"},
        {"rules: [{name: a}, {name: a}]", T "spec.rules: " V "Rule name must be unique within the route"},
        {"rules: [{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}]",
         T "spec.rules: Too many: 17: must have at most 16 items"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_case(HEAD, &cases[i]);
}

static void test_match_counts(void **state)
{
    (void)state;
    static const struct {
        int per_rule, rules;
        const char *message;
    } cases[] = {{64, 1, ""},
                 {65, 1, R0 ".matches: Too many: 65: must have at most 64 items"},
                 {64, 2,
                  T "spec.rules: " V "While 16 rules and 64 matches per rule are allowed, the total number of matches "
                    "across all rules in a route must be less than 128"},
                 {7, 16, ""}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct strbuf b = {0};
        strbuf_addz(&b, "rules: [");
        for (int r = 0; r < cases[i].rules; r++) {
            strbuf_addz(&b, "{matches: [");
            for (int m = 0; m < cases[i].per_rule; m++)
                strbuf_addz(&b, "{},");
            strbuf_addz(&b, "]},");
        }
        strbuf_addz(&b, "]");
        char *text = strbuf_take(&b);
        assert_case(HEAD, &(struct message_case){text, cases[i].message});
        mem_free(text);
    }
}

static void test_defaults(void **state)
{
    (void)state;
    struct documents d;
    const struct http_route *h = &parse_one(HEAD "parentRefs: [{name: g}]", &d)->u.http_route;
    assert_string_equal(h->parents[0].group, "gateway.networking.k8s.io");
    assert_string_equal(h->parents[0].kind, "Gateway");
    assert_null(h->parents[0].ns);
    assert_int_equal(h->rule_count, 1);
    assert_int_equal(h->rules[0].match_count, 1);
    assert_int_equal(h->rules[0].matches[0].path.type, MATCH_PREFIX);
    assert_string_equal(h->rules[0].matches[0].path.value, "/");
    assert_int_equal(h->rules[0].request_timeout_ms, -1);
    documents_free(&d);
    h = &parse_one(HEAD "rules: [{backendRefs: [{name: s, port: 80}]}, {matches: [{method: POST}, {path: {value: "
                        "/x}}], timeouts: {request: 0s}}]",
                   &d)
             ->u.http_route;
    assert_int_equal(h->rule_count, 2);
    const struct backend_ref *b = &h->rules[0].backends[0];
    assert_string_equal(b->group, "");
    assert_string_equal(b->kind, "Service");
    assert_null(b->ns);
    assert_int_equal(b->weight, 1);
    assert_int_equal(b->port, 80);
    assert_int_equal(b->line, 5);
    assert_int_equal(b->col, 26);
    assert_int_equal(h->rules[0].match_count, 1);
    assert_string_equal(h->rules[1].matches[0].method, "POST");
    assert_string_equal(h->rules[1].matches[0].path.value, "/");
    assert_null(h->rules[1].matches[1].method);
    assert_int_equal(h->rules[1].request_timeout_ms, 0);
    assert_int_equal(h->rules[1].backend_timeout_ms, -1);
    documents_free(&d);
}

static void test_filters(void **state)
{
    (void)state;
    struct documents d;
    const struct route_rule *rule =
        parse_one(
            HEAD
            "rules:\n  - matches:\n    - headers: [{name: X-Up, value: v, type: RegularExpression}]\n      "
            "queryParams: [{name: Q, value: w}]\n"
            "    filters:\n"
            "    - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: A, value: b}], remove: [c, d]}}\n"
            "    - {type: ResponseHeaderModifier, responseHeaderModifier: {add: [{name: e, value: f}]}}\n"
            "    - {type: URLRewrite, urlRewrite: {hostname: h.example, path: {type: ReplaceFullPath, replaceFullPath: "
            "/z}}}\n"
            "    backendRefs: [{name: s, namespace: o, port: 80, weight: 0}]\n"
            "    timeouts: {request: 1m30s, backendRequest: 500ms}\n"
            "  - filters: [{type: RequestRedirect, requestRedirect: {scheme: https, port: 8443, path: {type: "
            "ReplacePrefixMatch, replacePrefixMatch: /n}}}]\n",
            &d)
            ->u.http_route.rules;
    assert_string_equal(rule->matches[0].headers[0].name, "x-up");
    assert_int_equal(rule->matches[0].headers[0].type, MATCH_REGEX);
    assert_string_equal(rule->matches[0].query[0].name, "Q");
    assert_int_equal(rule->filter_count, 3);
    assert_int_equal(rule->filters[0].type, FILTER_REQUEST_HEADERS);
    assert_string_equal(rule->filters[0].headers.set[0].value, "b");
    assert_int_equal(rule->filters[0].headers.remove_count, 2);
    assert_string_equal(rule->filters[0].headers.remove[1], "d");
    assert_int_equal(rule->filters[0].line, 10);
    assert_int_equal(rule->filters[1].type, FILTER_RESPONSE_HEADERS);
    assert_int_equal(rule->filters[1].headers.add_count, 1);
    assert_int_equal(rule->filters[2].type, FILTER_REWRITE);
    assert_string_equal(rule->filters[2].to.hostname, "h.example");
    assert_int_equal(rule->filters[2].to.path->type, PATH_REPLACE_FULL);
    assert_string_equal(rule->filters[2].to.path->value, "/z");
    assert_int_equal(rule->backends[0].weight, 0);
    assert_string_equal(rule->backends[0].ns, "o");
    assert_int_equal(rule->request_timeout_ms, 90000);
    assert_int_equal(rule->backend_timeout_ms, 500);
    const struct route_filter *f = &rule[1].filters[0];
    assert_int_equal(f->type, FILTER_REDIRECT);
    assert_string_equal(f->to.scheme, "https");
    assert_null(f->to.hostname);
    assert_int_equal(f->to.port, 8443);
    assert_int_equal(f->to.status, 302);
    assert_int_equal(f->to.path->type, PATH_REPLACE_PREFIX);
    documents_free(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_match_counts),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_filters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
