/* SPDX-License-Identifier: Apache-2.0
 *
 * Documents: streams, Lists, syntax errors, kinds of others, bounds, and which object a bad document would have been.
 */
#include "conf_test.h"

#define NS(name) "apiVersion: v1\nkind: Namespace\nmetadata: {name: " name "}\n"

static void test_streams(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t count;
    } cases[] = {{"", 0},
                 {"# nothing\n", 0},
                 {"---\n---\n...\n", 0},
                 {"~", 0},
                 {NS("a"), 1},
                 {"---\n" NS("a") "---\n" NS("b") "---\n# end\n", 2},
                 {"\xef\xbb\xbf" NS("a"), 1},
                 {"{\"apiVersion\":\"v1\",\"kind\":\"Namespace\",\"metadata\":{\"name\":\"a\"}}\n", 1},
                 {"{apiVersion: v1, kind: Namespace, metadata: {name: a}}\n---\n" NS("b"), 2},
                 {"{\"apiVersion\":\"v1\",\"kind\":\"Namespace\",\"metadata\":{\"name\":\"a\"}}\n---\n" NS("b"), 2},
                 {"{\"apiVersion\":\"v1\",\"kind\":\"Namespace\",\"metadata\":{\"name\":\"a\"}}{\"apiVersion\":\"v1\","
                  "\"kind\":\"Namespace\",\"metadata\":{\"name\":\"b\"}}",
                  2},
                 {"apiVersion: v1\nkind: List\nitems: []\n", 0},
                 {"apiVersion: v1\nkind: List\nmetadata: {resourceVersion: ''}\nitems:\n- {apiVersion: v1, kind: "
                  "Namespace, metadata: {name: a}}\n- {apiVersion: v1, kind: NamespaceList, items: [{apiVersion: v1, "
                  "kind: Namespace, metadata: {name: b}}]}\n",
                  2}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct documents d;
        resources_parse(str_of(cases[i].text), "f.yaml", "default", &d);
        assert_int_equal(d.count, cases[i].count);
        assert_int_equal(d.syntax.count, 0);
        for (size_t k = 0; k < d.count; k++)
            assert_non_null(d.list[k].resource);
        documents_free(&d);
    }
}

static void test_syntax_error_keeps_earlier(void **state)
{
    (void)state;
    struct documents d;
    resources_parse(STR(NS("a") "---\na: [\n---\n" NS("b")), "f.yaml", "default", &d);
    assert_int_equal(d.count, 1);
    assert_non_null(d.list[0].resource);
    assert_int_equal(d.syntax.errors, 1);
    assert_int_equal(d.syntax.entries[0].line, 6);
    documents_free(&d);
    assert_messages("a: b: c\n", "f.yaml:1:5: mapping values are not allowed in this context\n");
    assert_messages("a: *nope\n", "f.yaml:1:4: unknown anchor\n");
    assert_messages("a: &x [*x]\n", "f.yaml:1:8: an anchor's value contains itself\n");
    assert_messages("a: \xff\n", "f.yaml:1:4: invalid leading UTF-8 octet\n");
}

static void test_types(void **state)
{
    (void)state;
    assert_messages("a: 1\n", "f.yaml:1:1: apiVersion: Required value\nf.yaml:1:1: kind: Required value\n");
    assert_messages("- 1\n",
                    "f.yaml:1:1: an object with apiVersion and kind is expected here, not a value of type array\n");
    assert_messages(
        "apiVersion: 1\nkind: {}\n",
        "f.yaml:1:13: apiVersion: Invalid value: \"integer\": apiVersion in body must be of type string: \"integer\"\n"
        "f.yaml:2:7: kind: Invalid value: \"object\": kind in body must be of type string: \"object\"\n");
    assert_messages(
        "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugn\nmetadata: {name: a}\n",
        "f.yaml:1:13: WasmPlugn a: no matches for kind \"WasmPlugn\" in version \"extensions.istio.io/v1alpha1\"\n");
    assert_messages("apiVersion: extensions.istio.io/v1\nkind: WasmPlugin\nmetadata: {name: a}\n",
                    "f.yaml:1:13: WasmPlugin default/a: no matches for kind \"WasmPlugin\" in version "
                    "\"extensions.istio.io/v1\"\n");
    assert_messages("apiVersion: v1\nkind: WasmPlugin\n",
                    "f.yaml:1:13: WasmPlugin: no matches for kind \"WasmPlugin\" in version \"v1\"\n");
}

static void test_foreign_kinds(void **state)
{
    (void)state;
    static const char *const kinds[][2] = {{"apps/v1", "Deployment"},
                                           {"v1", "Pod"},
                                           {"v1", "ServiceAccount"},
                                           {"networking.istio.io/v1", "VirtualService"},
                                           {"networking.istio.io/v1", "Gateway"},
                                           {"gateway.networking.k8s.io/v1", "GRPCRoute"},
                                           {"cert-manager.io/v1", "Certificate"},
                                           {"rbac.authorization.k8s.io/v1", "Role"}};
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        struct documents d;
        char *text = mem_printf("apiVersion: %s\nkind: %s\nmetadata: {name: x, namespace: q}\nwhatever: 1\n",
                                kinds[i][0], kinds[i][1]);
        resources_parse(str_of(text), "f.yaml", "default", &d);
        assert_int_equal(d.count, 0);
        assert_int_equal(d.ignored, 1);
        assert_int_equal(d.syntax.errors, 0);
        assert_int_equal(d.syntax.count, 1);
        assert_int_equal(d.syntax.entries[0].level, DIAG_WARNING);
        documents_free(&d);
        mem_free(text);
    }
    assert_messages("\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n",
                    "warning: f.yaml:2:1: Deployment x: Weir does not read this kind (apps/v1): ignored\n");
}

static void test_bad_document_is_named(void **state)
{
    (void)state;
    struct documents d;
    resources_parse(
        STR("apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {name: x}\nspec: {}\n---\n" NS("a")),
        "f.yaml", "team", &d);
    assert_int_equal(d.count, 2);
    assert_null(d.list[0].resource);
    assert_int_equal(d.list[0].kind, KIND_WASM_PLUGIN);
    assert_string_equal(d.list[0].ns, "team");
    assert_string_equal(d.list[0].name, "x");
    assert_string_equal(d.list[0].title, "WasmPlugin team/x");
    assert_int_equal(d.list[0].line, 1);
    assert_non_null(d.list[1].resource);
    assert_string_equal(d.list[1].ns, "");
    assert_int_equal(d.list[1].kind, KIND_NAMESPACE);
    documents_free(&d);
}

/* A duplicate key spoils the object it stands in, not the rest of the List. */
static void test_problem_in_a_list(void **state)
{
    (void)state;
    struct documents d;
    resources_parse(
        STR("apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Namespace\n  metadata: {name: a}\n"
            "- apiVersion: v1\n  kind: Namespace\n  metadata: {name: b, labels: {x: y1, x: z}}\n"
            "- apiVersion: v1\n  kind: Namespace\n  metadata: {name: c}\n"),
        "f.yaml", "default", &d);
    assert_int_equal(d.count, 3);
    assert_non_null(d.list[0].resource);
    assert_null(d.list[1].resource);
    assert_non_null(d.list[2].resource);
    char *text = messages_of(&d);
    assert_string_equal(text, "f.yaml:9:39: Namespace b: key \"x\" already set in map\n");
    mem_free(text);
    documents_free(&d);
}

static char *nested(int depth, const char *open, const char *close)
{
    struct strbuf b = {0};
    for (int i = 0; i < depth; i++)
        strbuf_addz(&b, open);
    for (int i = 0; i < depth; i++)
        strbuf_addz(&b, close);
    return strbuf_take(&b);
}

static void test_depth(void **state)
{
    (void)state;
    char *fits = nested(64, "[", "]"), *deep = nested(65, "[", "]"), *very = nested(5000, "[", "]");
    assert_messages(fits,
                    "f.yaml:1:1: an object with apiVersion and kind is expected here, not a value of type array\n");
    assert_messages(deep, "f.yaml:1:65: nested deeper than 64 levels\n");
    struct documents d;
    resources_parse(str_of(very), "f.yaml", "default", &d);
    assert_int_equal(d.syntax.errors, 1);
    documents_free(&d);
    mem_free(fits);
    mem_free(deep);
    mem_free(very);
}

/* A billion laughs, and a few aliases of a long text. */
static void test_alias_bombs(void **state)
{
    (void)state;
    struct strbuf b = {0};
    strbuf_addz(&b, "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for (int i = 1; i < 10; i++) {
        strbuf_printf(&b, "a%d: &a%d [", i, i);
        for (int k = 0; k < 10; k++)
            strbuf_printf(&b, "*a%d, ", i - 1);
        strbuf_addz(&b, "]\n");
    }
    struct documents d;
    resources_parse(strbuf_str(&b), "f.yaml", "default", &d);
    assert_int_equal(d.syntax.errors, 1);
    assert_string_equal(d.syntax.entries[0].message, "the document has more than 1000000 nodes");
    documents_free(&d);
    strbuf_clear(&b);
    strbuf_addz(&b, "a: &a ");
    for (int i = 0; i < 100000; i++)
        strbuf_addc(&b, 'x');
    strbuf_addz(&b, "\nb: [");
    for (int i = 0; i < 200; i++)
        strbuf_addz(&b, "*a, ");
    strbuf_addz(&b, "]\n");
    resources_parse(strbuf_str(&b), "f.yaml", "default", &d);
    assert_int_equal(d.syntax.errors, 1);
    assert_string_equal(d.syntax.entries[0].message, "aliases stand for more than 16 MiB of text");
    documents_free(&d);
    strbuf_free(&b);
}

/* Many keys take another way than few. */
static void test_duplicate_among_many(void **state)
{
    (void)state;
    struct strbuf b = {0};
    strbuf_addz(&b, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata:\n");
    for (int i = 0; i < 1000; i++)
        strbuf_printf(&b, "  k%d: v\n", i);
    strbuf_addz(&b, "  k500: w\n");
    char *text = strbuf_take(&b);
    assert_messages(text, "f.yaml:1005:3: ConfigMap default/c: key \"k500\" already set in map\n");
    mem_free(text);
}

static void test_digest(void **state)
{
    (void)state;
    static const struct {
        const char *a, *b;
        bool same;
    } cases[] = {
        {"metadata: {name: a}\ndata: {x: y1, z: w}", "data: {'z': \"w\", x: y1} # comment\nmetadata: {name: a}", true},
        {"metadata: {name: a}",
         "metadata: {name: a, uid: u, resourceVersion: '7', generation: 3, managedFields: []}\nstatus: {x: 1}", true},
        {"metadata: {name: a}", "metadata: {name: a, namespace: other}", false},
        {"metadata: {name: a}\ndata: {x: a}", "metadata: {name: a}\ndata: {x: b}", false},
        {"metadata: {name: a}", "metadata: {name: a, labels: {l: v}}", false},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct documents d, e;
        char *a = mem_printf("apiVersion: v1\nkind: ConfigMap\n%s\n", cases[i].a),
             *b = mem_printf("apiVersion: v1\nkind: ConfigMap\n%s\n", cases[i].b);
        resources_parse(str_of(a), "f.yaml", "default", &d);
        resources_parse(str_of(b), "g.yaml", "default", &e);
        bool same = memcmp(d.list[0].resource ? d.list[0].resource->meta.digest : (const uint8_t *)a,
                           e.list[0].resource ? e.list[0].resource->meta.digest : (const uint8_t *)b, 32) == 0;
        assert_int_equal(same, cases[i].same);
        documents_free(&d);
        documents_free(&e);
        mem_free(a);
        mem_free(b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_streams),
        cmocka_unit_test(test_syntax_error_keeps_earlier),
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_foreign_kinds),
        cmocka_unit_test(test_bad_document_is_named),
        cmocka_unit_test(test_problem_in_a_list),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_alias_bombs),
        cmocka_unit_test(test_digest),
        cmocka_unit_test(test_duplicate_among_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
