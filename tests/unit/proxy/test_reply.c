/* SPDX-License-Identifier: Apache-2.0
 *
 * Local replies: who sees them, what they say, when they are none; and the deadlines that make them.
 */
#include "base/budget.h"
#include "stream_rig.h"

#define ANSWER(r, i, cb, ...)                                                                                          \
    memcpy((r)->filters[i].script[cb], (enum filter_result[]){__VA_ARGS__}, sizeof((enum filter_result[]){__VA_ARGS__}))

static const struct reply forbidden = {.status = 403,
                                       .body = STR_INIT("no"),
                                       .details = STR_INIT("my_reason"),
                                       .grpc_status = -1,
                                       .reason = END_PLUGIN_REPLY};

static void reply_403(struct rig *r, struct filter *f, struct buf *data)
{
    (void)r;
    (void)data;
    filter_reply(f, &forbidden);
}

static void test_reply_passes_those_that_saw_the_request(void **state)
{
    (void)state;
    struct rig *r = rig_new(3);
    r->filters[1].hook[RIG_QH] = reply_403;
    rig_get(r);
    RIG_STORY(r, "q0(/p,1) q1(/p,1) s1(403,0) s0(403,0) S1(no,1) S0(no,1) DOWN[403,length=2,0] DOWN[no,1]");
    assert_int_equal(r->s->reason, END_PLUGIN_REPLY);
    assert_true(str_is(r->s->details, "my_reason"));
    assert_int_equal(r->s->status, 403);
    assert_true(r->up.detached && r->up.aborted && !r->down.aborted);
    rig_turn(r);
    RIG_STORY(r, "end0 end1 end2");
    rig_free(r);
}

static void test_second_reply_does_nothing(void **state)
{
    (void)state;
    struct rig *r = rig_new(1);
    r->filters[0].hook[RIG_QH] = reply_403;
    r->filters[0].hook[RIG_SH] = reply_403;
    r->filters[0].hook[RIG_SB] = reply_403;
    rig_get(r);
    RIG_STORY(r, "q0(/p,1) s0(403,0) S0(no,1) DOWN[403,length=2,0] DOWN[no,1]");
    rig_free(r);
}

static void test_continue_after_reply_does_nothing(void **state)
{
    (void)state;
    struct rig *r = rig_new(2);
    ANSWER(r, 0, RIG_QH, FILTER_STOP_ALL);
    rig_get(r);
    filter_reply(&r->s->filters[0], &forbidden);
    filter_continue(&r->s->filters[0], DIR_REQUEST);
    rig_turn(r);
    RIG_STORY(r, "q0(/p,1) s0(403,0) S0(no,1) DOWN[403,length=2,0] DOWN[no,1] end0 end1");
    rig_free(r);
}

static void test_reply_held_by_its_own_response_callback(void **state)
{
    (void)state;
    struct rig *r = rig_new(1);
    r->filters[0].hook[RIG_QH] = reply_403;
    ANSWER(r, 0, RIG_SH, FILTER_STOP_ALL);
    rig_get(r);
    RIG_STORY(r, "q0(/p,1) s0(403,0)");
    filter_continue(&r->s->filters[0], DIR_RESPONSE);
    rig_turn(r);
    RIG_STORY(r, "S0(no,1) DOWN[403,length=2,0] DOWN[no,1] end0");
    rig_free(r);
}

static void test_reply_in_a_response_callback_goes_straight_out(void **state)
{
    (void)state;
    struct rig *r = rig_new(2);
    r->filters[1].hook[RIG_SH] = reply_403;
    rig_get(r);
    rig_response(r, NULL, false);
    RIG_STORY(r, "q0(/p,1) q1(/p,1) UP[/p,none,1] s1(200,0) DOWN[403,length=2,0] DOWN[no,1]");
    rig_free(r);
}

static void test_reply_after_the_head_resets(void **state)
{
    (void)state;
    struct rig *r = rig_new(1);
    r->filters[0].hook[RIG_SB] = reply_403;
    rig_get(r);
    rig_response(r, NULL, false);
    rig_up_body(r, "abc", false);
    RIG_STORY(r, "q0(/p,1) UP[/p,none,1] s0(200,0) DOWN[200,chunked,0] S0(abc,0)");
    assert_true(r->down.detached && r->down.aborted && r->up.aborted);
    rig_free(r);
}

static void test_reply_while_the_request_body_flows(void **state)
{
    (void)state;
    struct rig *r = rig_new(1);
    r->filters[0].hook[RIG_QB] = reply_403;
    rig_post(r, NULL);
    rig_down_body(r, "abc", false);
    RIG_STORY(r, "q0(/p,0) UP[/p,chunked,0] Q0(abc,0) s0(403,0) S0(no,1) DOWN[403,length=2,0] DOWN[no,1]");
    assert_true(r->down.detached && !r->down.aborted);
    rig_free(r);
}

static void close_it(struct rig *r, struct filter *f, struct buf *data)
{
    (void)r;
    (void)data;
    filter_close(f, END_PLUGIN_CLOSED);
}

static void test_close(void **state)
{
    (void)state;
    struct rig *r = rig_new(2);
    r->filters[0].hook[RIG_QH] = close_it;
    rig_get(r);
    RIG_STORY(r, "q0(/p,1)");
    assert_true(r->down.aborted && r->up.aborted);
    assert_int_equal(r->s->reason, END_PLUGIN_CLOSED);
    rig_free(r);
}

static void test_no_route(void **state)
{
    (void)state;
    struct rig *r = rig_new(1);
    r->s->route.route = NULL;
    rig_get(r);
    RIG_STORY(r, "q0(/p,1) s0(404,1) DOWN[404,length=0,1]");
    rig_free(r);
}

static void test_head_reply_has_a_length_and_no_body(void **state)
{
    (void)state;
    struct rig *r = rig_new(1);
    r->filters[0].hook[RIG_QH] = reply_403;
    stream_down_ops.on_head(r->s, rig_request_message(r, "HEAD", BODY_NONE, NULL), true);
    RIG_STORY(r, "q0(/p,1) s0(403,1) DOWN[403,length=2,1]");
    rig_free(r);
}

static void test_grpc_reply(void **state)
{
    (void)state;
    struct rig *r = rig_new(1);
    struct message *m = rig_request_message(r, "POST", BODY_CHUNKED, NULL);
    assert_int_equal(headers_add(&m->headers, STR("content-type"), STR("application/grpc+proto")), HEADERS_OK);
    r->filters[0].hook[RIG_QH] = reply_403;
    stream_down_ops.on_head(r->s, m, false);
    RIG_STORY(r, "q0(/p,0) s0(200,1) DOWN[200,none,1]");
    const struct headers *h = &r->s->side[DIR_RESPONSE].msg->headers;
    assert_true(str_is(headers_value(h, HDR_GRPC_STATUS), "7"));
    assert_true(str_is(headers_get(h, STR("grpc-message"))->value, "no"));
    rig_free(r);
}

static void test_extra_headers_and_debug_reason(void **state)
{
    (void)state;
    struct rig *r = rig_new(1);
    struct header extra[] = {{.name = STR("X-Why"), .value = STR("because")},
                             {.name = STR("content-length"), .value = STR("99")}};
    struct reply with = forbidden;
    r->conf.limits.debug_headers = 1;
    with.extra = extra;
    with.extra_count = 2;
    ANSWER(r, 0, RIG_QH, FILTER_STOP_ALL);
    rig_get(r);
    filter_reply(&r->s->filters[0], &with);
    rig_turn(r);
    /* The stream's memory is gone; its story stays. */
    RIG_STORY(r, "q0(/p,1) s0(403,0) S0(no,1) DOWN[403,length=2,0] DOWN[no,1] end0");
    rig_free(r);
}

static void see_extra(struct rig *r, struct filter *f, struct buf *data)
{
    (void)r;
    (void)data;
    const struct headers *h = filter_headers(f, DIR_RESPONSE, false, false);
    assert_true(str_is(headers_get(h, STR("x-weir-end-reason"))->value, "my_reason"));
    assert_true(str_is(headers_value(h, HDR_CONTENT_LENGTH), "2"));
    assert_true(str_is(headers_value(h, HDR_SERVER), "weir"));
    assert_true(str_is(headers_value(h, HDR_CONTENT_TYPE), "text/plain"));
    assert_true(headers_value(h, HDR_DATE).n == 29);
}

static void test_what_a_reply_says(void **state)
{
    (void)state;
    struct rig *r = rig_new(1);
    r->conf.limits.debug_headers = 1;
    r->filters[0].hook[RIG_QH] = reply_403;
    r->filters[0].hook[RIG_SH] = see_extra;
    rig_get(r);
    rig_free(r);
}

/* ---- deadlines ---- */

static void test_pause_timeout(void **state)
{
    (void)state;
    struct rig *r = rig_new(1);
    enum end_reason why = END_NONE;
    ANSWER(r, 0, RIG_QH, FILTER_STOP_ALL);
    r->conf.limits.pause_timeout = 1000;
    rig_get(r);
    uint64_t at = stream_deadline(r->s, &why);
    assert_int_equal(why, END_PAUSE_TIMEOUT);
    assert_in_range(at, r->s->priv->start_ms + 1000, r->s->priv->start_ms + 1001);
    strbuf_clear(&r->story);
    stream_expire(r->s, why);
    RIG_STORY(r, "s0(504,0) S0(filter did not continue in time\n,1) DOWN[504,length=32,0] DOWN[filter did not continue "
                 "in time\n,1]");
    rig_free(r);
}

static void test_waiting_for_the_client_is_no_pause(void **state)
{
    (void)state;
    struct rig *r = rig_new(1);
    enum end_reason why = END_NONE;
    ANSWER(r, 0, RIG_QB, FILTER_BUFFER);
    rig_post(r, NULL);
    rig_down_body(r, "abc", false);
    stream_deadline(r->s, &why);
    assert_int_equal(why, END_IDLE_TIMEOUT);
    rig_free(r);
}

static void test_response_timeout(void **state)
{
    (void)state;
    struct rig *r = rig_new(0);
    enum end_reason why = END_NONE;
    rig_get(r);
    uint64_t at = stream_deadline(r->s, &why);
    assert_int_equal(why, END_RESPONSE_TIMEOUT);
    assert_int_equal(at, r->s->priv->up_start_ms + r->conf.limits.response_timeout);
    r->rule.request_timeout_ms = 50;
    assert_int_equal(stream_deadline(r->s, &why), r->s->priv->start_ms + 50);
    r->rule.request_timeout_ms = 0; /* none: the stream idle timeout is left */
    assert_int_equal(stream_deadline(r->s, &why), r->s->priv->active_ms + r->conf.limits.stream_idle_timeout);
    strbuf_clear(&r->story);
    stream_expire(r->s, END_RESPONSE_TIMEOUT);
    RIG_STORY(r, "DOWN[504,length=25,0] DOWN[upstream request timeout\n,1]");
    assert_true(r->up.aborted);
    rig_free(r);
}

/* ---- memory ---- */

static void test_near_the_budget_streams_are_shed(void **state)
{
    (void)state;
    struct rig *r = rig_new(1);
    budget_set_limit(budget_used() + budget_used() / 20 + 20);
    assert_int_equal(budget_level(), BUDGET_NEAR);
    struct stream *s = stream_new(&r->w, NULL, &r->listener);
    assert_true(s->priv->shed);
    s->down_leg = &r->down.leg;
    stream_down_ops.on_head(s, rig_request_message(r, "GET", BODY_NONE, NULL), true);
    RIG_STORY(r, "DOWN[503,length=24,0] DOWN[memory budget exhausted\n,1]");
    assert_true(str_is(headers_get(&s->side[DIR_RESPONSE].msg->headers, STR("retry-after"))->value, "1"));
    budget_set_limit(0);
    rig_free(r);
}

/* ---- expect ---- */

static void test_continue_is_said_when_the_body_is_wanted(void **state)
{
    (void)state;
    struct rig *r = rig_new(1);
    struct message *m = rig_request_message(r, "POST", BODY_LENGTH, "3");
    m->expect_continue = true;
    ANSWER(r, 0, RIG_QH, FILTER_STOP_ALL);
    stream_down_ops.on_head(r->s, m, false);
    RIG_STORY(r, "q0(/p,0)");
    filter_continue(&r->s->filters[0], DIR_REQUEST);
    rig_turn(r);
    RIG_STORY(r, "UP[/p,length=3,0] DOWN[interim 100]");
    rig_free(r);
}

static void test_continue_for_a_filter_that_wants_the_body(void **state)
{
    (void)state;
    struct rig *r = rig_new(1);
    struct message *m = rig_request_message(r, "POST", BODY_LENGTH, "3");
    m->expect_continue = true;
    ANSWER(r, 0, RIG_QH, FILTER_STOP);
    stream_down_ops.on_head(r->s, m, false);
    RIG_STORY(r, "q0(/p,0) DOWN[interim 100]");
    rig_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reply_passes_those_that_saw_the_request),
        cmocka_unit_test(test_second_reply_does_nothing),
        cmocka_unit_test(test_continue_after_reply_does_nothing),
        cmocka_unit_test(test_reply_held_by_its_own_response_callback),
        cmocka_unit_test(test_reply_in_a_response_callback_goes_straight_out),
        cmocka_unit_test(test_reply_after_the_head_resets),
        cmocka_unit_test(test_reply_while_the_request_body_flows),
        cmocka_unit_test(test_close),
        cmocka_unit_test(test_no_route),
        cmocka_unit_test(test_head_reply_has_a_length_and_no_body),
        cmocka_unit_test(test_grpc_reply),
        cmocka_unit_test(test_extra_headers_and_debug_reason),
        cmocka_unit_test(test_what_a_reply_says),
        cmocka_unit_test(test_pause_timeout),
        cmocka_unit_test(test_waiting_for_the_client_is_no_pause),
        cmocka_unit_test(test_response_timeout),
        cmocka_unit_test(test_near_the_budget_streams_are_shed),
        cmocka_unit_test(test_continue_is_said_when_the_body_is_wanted),
        cmocka_unit_test(test_continue_for_a_filter_that_wants_the_body),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
