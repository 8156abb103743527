/* SPDX-License-Identifier: Apache-2.0
 *
 * Merge patches (the table of RFC 7386), JSON patches, strategic merges.
 */
#include "kube_test.h"

static void test_merge_table(void **state)
{
    (void)state;
    /* RFC 7386, appendix A */
    static const char *const rows[][3] = {
        {"{'a':'b'}", "{'a':'c'}", "{'a':'c'}"},
        {"{'a':'b'}", "{'b':'c'}", "{'a':'b','b':'c'}"},
        {"{'a':'b'}", "{'a':null}", "{}"},
        {"{'a':'b','b':'c'}", "{'a':null}", "{'b':'c'}"},
        {"{'a':['b']}", "{'a':'c'}", "{'a':'c'}"},
        {"{'a':'c'}", "{'a':['b']}", "{'a':['b']}"},
        {"{'a':{'b':'c'}}", "{'a':{'b':'d','c':null}}", "{'a':{'b':'d'}}"},
        {"{'a':[{'b':'c'}]}", "{'a':[1]}", "{'a':[1]}"},
        {"['a','b']", "['c','d']", "['c','d']"},
        {"{'a':'b'}", "['c']", "['c']"},
        {"{'e':null}", "{'a':1}", "{'e':null,'a':1}"},
        {"[1,2]", "{'a':'b','c':null}", "{'a':'b'}"},
        {"{}", "{'a':{'bb':{'ccc':null}}}", "{'a':{'bb':{}}}"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        json_t *object = J(rows[i][0]), *patch = J(rows[i][1]);
        same(patch_merge(object, patch), J(rows[i][2]));
        same(object, J(rows[i][0])); /* untouched */
        json_decref(patch);
    }
}

static void test_strategic(void **state)
{
    (void)state;
    static const char *const rows[][3] = {
        {"{'data':{'a':'1','b':'2'}}", "{'data':{'b':null,'c':'3'}}", "{'data':{'a':'1','c':'3'}}"},
        {"{'spec':{'ports':[{'port':80,'name':'a'},{'port':81}]}}",
         "{'spec':{'ports':[{'port':80,'name':'b'},{'port':82}]}}",
         "{'spec':{'ports':[{'port':80,'name':'b'},{'port':81},{'port':82}]}}"},
        {"{'spec':{'ports':[{'port':80},{'port':81}]}}", "{'spec':{'ports':[{'port':80,'$patch':'delete'}]}}",
         "{'spec':{'ports':[{'port':81}]}}"},
        {"{'spec':{'ports':[{'port':80},{'port':81}]}}", "{'spec':{'ports':[{'$patch':'replace'},{'port':82}]}}",
         "{'spec':{'ports':[{'port':82}]}}"},
        {"{'spec':{'ports':[{'port':80},{'port':81}]}}",
         "{'spec':{'$setElementOrder/ports':[{'port':81},{'port':80}]}}",
         "{'spec':{'ports':[{'port':81},{'port':80}]}}"},
        {"{'finalizers':['a','b']}", "{'$deleteFromPrimitiveList/finalizers':['a'],'finalizers':['c']}",
         "{'finalizers':['b','c']}"},
        {"{'a':{'b':1,'c':2}}", "{'a':{'$patch':'replace','d':3}}", "{'a':{'d':3}}"},
        {"{'a':{'b':1}}", "{'a':{'$patch':'delete'}}", "{'a':{}}"},
        {"{'a':{'b':1,'c':2}}", "{'a':{'$retainKeys':['b'],'b':3}}", "{'a':{'b':3}}"},
        {"{'list':[1,2]}", "{'list':[3]}", "{'list':[3]}"},
        /* An EndpointSlice's ports are one value. */
        {"{'ports':[{'name':'a','port':1}],'endpoints':[{'conditions':{}}]}", "{'endpoints':[{'addresses':['x']}]}",
         "{'ports':[{'name':'a','port':1}],'endpoints':[{'addresses':['x']}]}"},
        {"{'ports':[{'name':'a','port':1}]}", "{'$setElementOrder/ports':[{'port':2}],'ports':[{'name':'a','port':2}]}",
         "{'ports':[{'name':'a','port':2}]}"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        json_t *object = J(rows[i][0]), *patch = J(rows[i][1]);
        char *error;
        same(patch_strategic(object, patch, &error), J(rows[i][2]));
        same(object, J(rows[i][0]));
        json_decref(patch);
    }
    char *error;
    json_t *object = J("{'conditions':[{'type':'a'}]}"), *patch = J("{'conditions':[{'status':'b'}]}");
    assert_null(patch_strategic(object, patch, &error));
    assert_string_equal(error, "map: does not contain declared merge key: type");
    mem_free(error);
    json_decref(object);
    json_decref(patch);
}

static void test_json_patch(void **state)
{
    (void)state;
    static const char *const rows[][3] = {
        {"{'foo':'bar'}", "[{'op':'add','path':'/baz','value':'qux'}]", "{'foo':'bar','baz':'qux'}"},
        {"{'foo':['a','b']}", "[{'op':'add','path':'/foo/1','value':'x'}]", "{'foo':['a','x','b']}"},
        {"{'foo':['a']}", "[{'op':'add','path':'/foo/-','value':['b']}]", "{'foo':['a',['b']]}"},
        {"{'a':1,'b':2}", "[{'op':'remove','path':'/a'}]", "{'b':2}"},
        {"{'a':[1,2]}", "[{'op':'remove','path':'/a/0'}]", "{'a':[2]}"},
        {"{'a':1}", "[{'op':'replace','path':'/a','value':null}]", "{'a':null}"},
        {"{'a':{'b':1},'c':{}}", "[{'op':'move','from':'/a/b','path':'/c/d'}]", "{'a':{},'c':{'d':1}}"},
        {"{'a':{'b':1}}", "[{'op':'copy','from':'/a','path':'/c'}]", "{'a':{'b':1},'c':{'b':1}}"},
        {"{'a/b':{'~':1}}", "[{'op':'test','path':'/a~1b/~0','value':1},{'op':'remove','path':'/a~1b'}]", "{}"},
        {"{'':{'':1}}", "[{'op':'replace','path':'//','value':2}]", "{'':{'':2}}"},
        {"{'a':1}", "[{'op':'add','path':'','value':{'b':2}}]", "{'b':2}"},
    };
    char *error;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        json_t *object = J(rows[i][0]), *patch = J(rows[i][1]);
        same(patch_json(object, patch, &error), J(rows[i][2]));
        same(object, J(rows[i][0]));
        json_decref(patch);
    }
    static const char *const bad[] = {"{}",
                                      "[1]",
                                      "[{'op':'test','path':'/a','value':2}]",
                                      "[{'op':'remove','path':'/b'}]",
                                      "[{'op':'add','path':'/b/c','value':1}]",
                                      "[{'op':'add','path':'/l/3','value':1}]",
                                      "[{'op':'remove','path':'/l/-'}]",
                                      "[{'op':'fly','path':'/a'}]",
                                      "[{'op':'add','path':'a','value':1}]",
                                      "[{'op':'add','path':'/x'}]",
                                      "[{'op':'remove','path':''}]",
                                      "[{'op':'copy','from':'/none','path':'/x'}]",
                                      "[{'op':'replace','path':'/l/01x','value':1}]"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        json_t *object = J("{'a':1,'l':[1]}"), *patch = J(bad[i]);
        if (patch_json(object, patch, &error) != NULL)
            fail_msg("%s is taken", bad[i]);
        assert_non_null(error);
        mem_free(error);
        json_decref(object);
        json_decref(patch);
    }
}

/* Each copy doubles the document: it must not get far. */
static void test_json_patch_bomb(void **state)
{
    (void)state;
    json_t *object = J("{'a':{'b':'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'}}"), *patch = json_array();
    for (int i = 0; i < 40; i++) {
        char name[16];
        snprintf(name, sizeof name, "/a/c%d", i);
        json_array_append_new(patch, json_pack("{s:s, s:s, s:s}", "op", "copy", "from", "/a", "path", name));
    }
    char *error;
    assert_null(patch_json(object, patch, &error));
    mem_free(error);
    json_decref(object);
    json_decref(patch);
}

/* Each copy, put below the deepest member, doubles the depth: what is read later is walked by recursion. */
static void test_json_patch_depth(void **state)
{
    (void)state;
    json_t *object = J("{'x':{}}"), *patch = json_array();
    struct strbuf path = {0};
    strbuf_addz(&path, "/x");
    for (int i = 0; i < 16; i++) {
        size_t n = path.n;
        strbuf_addz(&path, "/x");
        char *to = str_dup(strbuf_str(&path));
        json_array_append_new(patch, json_pack("{s:s, s:s, s:s}", "op", "copy", "from", "/x", "path", to));
        mem_free(to);
        char *half = str_dup(str_upto(strbuf_str(&path), n));
        strbuf_clear(&path);
        strbuf_addz(&path, half);
        strbuf_addz(&path, half);
        mem_free(half);
    }
    char *error;
    assert_null(patch_json(object, patch, &error));
    assert_non_null(error);
    mem_free(error);
    strbuf_free(&path);
    json_decref(object);
    json_decref(patch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_merge_table),      cmocka_unit_test(test_strategic),
        cmocka_unit_test(test_json_patch),       cmocka_unit_test(test_json_patch_bomb),
        cmocka_unit_test(test_json_patch_depth),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
