/* SPDX-License-Identifier: Apache-2.0
 *
 * When the gateway says that it is ready: not before every worker accepts on every socket it was given.
 */
#include "control_test.h"

#include "control/control.h"

static struct control *control;

static int setup(void **state)
{
    (void)state;
    control = mem_zalloc(sizeof *control);
    control->delivery = delivery_new(&(struct delivery_options){0});
    control->snapshot = snapshot_new(1, NULL);
    control->life = LIFE_SERVING;
    control->adopted_all = 1;
    return 0;
}
static int teardown(void **state)
{
    (void)state;
    snapshot_unref(control->snapshot);
    delivery_free(control->delivery);
    mem_free(control);
    return 0;
}

static void assert_not_ready(const char *why)
{
    struct strbuf text = {0};
    assert_false(control_is_ready(control, &text));
    strbuf_addc(&text, '\0');
    assert_string_equal(text.p, why);
    strbuf_free(&text);
    assert_false(control_is_ready(control, NULL));
}

static void test_ready(void **state)
{
    (void)state;
    assert_true(control_is_ready(control, NULL));
}

static void test_every_worker_must_accept(void **state)
{
    (void)state;
    control->sockets_given = 2;
    assert_not_ready("workers do not accept on every listener yet\n");
    control->sockets_armed = 1;
    assert_not_ready("workers do not accept on every listener yet\n");
    control->sockets_armed = 2;
    assert_true(control_is_ready(control, NULL));
}

static void test_other_reasons(void **state)
{
    (void)state;
    control->adopted_all = 0;
    assert_not_ready("no configuration has been adopted yet\n");
    control->adopted_all = 1;
    control->life = LIFE_DRAINING;
    assert_not_ready("draining\n");
    control->life = LIFE_SERVING;
    char error[] = "cannot listen on 127.0.0.1:1: no";
    struct open_listener listener = {.error = error};
    control->listeners = &listener;
    control->listener_count = 1;
    assert_not_ready("cannot listen on 127.0.0.1:1: no\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_ready, setup, teardown),
        cmocka_unit_test_setup_teardown(test_every_worker_must_accept, setup, teardown),
        cmocka_unit_test_setup_teardown(test_other_reasons, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
