/* SPDX-License-Identifier: Apache-2.0
 *
 * Who owns which field, what conflicts, and what goes when it is left out.
 */
#include "kube_test.h"

static json_t *live, *managers;

static int setup(void **state)
{
    (void)state;
    live = managers = NULL;
    return 0;
}
static int teardown(void **state)
{
    (void)state;
    json_decref(live);
    json_decref(managers);
    return 0;
}

/* Applies; NULL: it went through. */
static char *apply(const char *manager, bool force, const char *config)
{
    json_t *c = J(config), *causes;
    char *error;
    json_t *out = apply_merge(live, c, &managers, manager, force, "v1", &causes, &error);
    json_decref(c);
    json_decref(causes);
    if (out != NULL) {
        json_decref(live);
        live = out;
    }
    return error;
}
static void applies(const char *manager, const char *config) { assert_null(apply(manager, false, config)); }
static void forces(const char *manager, const char *config) { assert_null(apply(manager, true, config)); }
static void conflicts(const char *manager, const char *config, const char *text)
{
    char *error = apply(manager, false, config);
    assert_non_null(error);
    assert_string_equal(error, text);
    mem_free(error);
}
static void writes(const char *manager, const char *object)
{
    json_t *now = J(object), *next = apply_note_update(managers, manager, live, now);
    json_decref(managers);
    managers = next;
    json_decref(live);
    live = now;
}
static void live_is(const char *text) { same(json_incref(live), J(text)); }

static void test_left_out_goes(void **state)
{
    (void)state;
    applies("a", "{'metadata':{'name':'x','labels':{'l':'1'}},'spec':{'p':1,'q':{'r':[1]}}}");
    applies("a", "{'metadata':{'name':'x'},'spec':{'p':2}}");
    live_is("{'metadata':{'name':'x'},'spec':{'p':2}}");
}

static void test_two_owners(void **state)
{
    (void)state;
    applies("a", "{'spec':{'p':1,'q':1}}");
    applies("b", "{'spec':{'p':1,'s':1}}");
    conflicts("b", "{'spec':{'p':2,'s':1}}", "Apply failed with 1 conflict: conflict with \"a\" using v1: .spec.p");
    applies("a", "{'spec':{'q':1}}");
    live_is("{'spec':{'p':1,'q':1,'s':1}}"); /* b still has p */
    forces("b", "{'spec':{'q':{'deep':1}}}");
    live_is("{'spec':{'q':{'deep':1}}}");
    applies("a", "{'spec':{}}");
    live_is("{'spec':{'q':{'deep':1}}}"); /* it is b's now */
}

static void test_conflict_texts(void **state)
{
    (void)state;
    applies("a", "{'metadata':{'labels':{'x.y/z':'1'}},'spec':{'p':1,'l':[1]}}");
    conflicts("b", "{'metadata':{'labels':{'x.y/z':'2'}},'spec':{'p':{'deep':1},'l':[2]}}",
              "Apply failed with 3 conflicts: conflict with \"a\" using v1: .metadata.labels[\"x.y/z\"]\n"
              "conflict with \"a\" using v1: .spec.p\n"
              "conflict with \"a\" using v1: .spec.l");
}

static void test_other_writes_own(void **state)
{
    (void)state;
    writes("hand", "{'metadata':{'name':'x','uid':'u'},'spec':{'p':1,'q':1}}");
    conflicts("a", "{'spec':{'p':2}}", "Apply failed with 1 conflict: conflict with \"hand\" using v1: .spec.p");
    applies("a", "{'spec':{'r':1}}");
    writes("other", "{'spec':{'p':1,'q':2,'r':3}}");
    conflicts("a", "{'spec':{'r':1}}", "Apply failed with 1 conflict: conflict with \"other\" using v1: .spec.r");
    forces("a", "{'spec':{'r':1}}");
    live_is("{'spec':{'p':1,'q':2,'r':1}}");
    applies("a", "{'spec':{}}");
    live_is("{'spec':{'p':1,'q':2}}");
}

static void test_kubectl_takes_over_its_own(void **state)
{
    (void)state;
    writes("kubectl-client-side-apply", "{'spec':{'p':1,'q':1}}");
    applies("kubectl", "{'spec':{'p':2}}");
    live_is("{'spec':{'p':2}}");
    conflicts("b", "{'spec':{'p':1}}", "Apply failed with 1 conflict: conflict with \"kubectl\" using v1: .spec.p");
}

/* What the client's side compares with stays: people go back to it. */
static void test_last_applied_stays(void **state)
{
    (void)state;
    writes(
        "kubectl-client-side-apply",
        "{'metadata':{'annotations':{'kubectl.kubernetes.io/last-applied-configuration':'x','a':'b'}},'spec':{'p':1}}");
    applies("kubectl", "{'spec':{'p':1}}");
    live_is("{'metadata':{'annotations':{'kubectl.kubernetes.io/last-applied-configuration':'x'}},'spec':{'p':1}}");
}

static void test_nothing_changed(void **state)
{
    (void)state;
    applies("a", "{'spec':{'p':1}}");
    json_t *before = json_deep_copy(managers);
    applies("a", "{'spec':{'p':1}}");
    same(json_incref(managers), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_left_out_goes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_two_owners, setup, teardown),
        cmocka_unit_test_setup_teardown(test_conflict_texts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_other_writes_own, setup, teardown),
        cmocka_unit_test_setup_teardown(test_kubectl_takes_over_its_own, setup, teardown),
        cmocka_unit_test_setup_teardown(test_last_applied_stays, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nothing_changed, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
