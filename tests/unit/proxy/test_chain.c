/* SPDX-License-Identifier: Apache-2.0
 *
 * The truth table of docs/abi.md section 1, row by row, as the chain carries it out.
 */
#include "stream_rig.h"

#define ANSWER(r, i, cb, ...)                                                                                          \
    memcpy((r)->filters[i].script[cb], (enum filter_result[]){__VA_ARGS__}, sizeof((enum filter_result[]){__VA_ARGS__}))

/* ---- passing ---- */

static void test_no_filter_passes_directly(void **state)
{
    (void)state;
    struct rig *r = rig_new(0);
    rig_post(r, "6");
    RIG_STORY(r, "UP[/p,length=6,0]");
    rig_down_body(r, "abc", false);
    rig_down_body(r, "def", true);
    RIG_STORY(r, "UP[abc,0] UP[def,1]");
    rig_response(r, NULL, false);
    rig_up_body(r, "xy", false);
    rig_trailers_in(r, &stream_up_ops);
    RIG_STORY(r, "DOWN[200,chunked,0] DOWN[xy,0] DOWN[trailers 1]");
    assert_true(r->down.detached && !r->down.aborted && r->up.detached && !r->up.aborted);
    assert_int_equal(r->s->reason, END_VIA_UPSTREAM);
    rig_free(r);
}

static void test_order_of_filters(void **state)
{
    (void)state;
    struct rig *r = rig_new(3);
    rig_post(r, NULL);
    rig_down_body(r, "a", true);
    RIG_STORY(r, "q0(/p,0) q1(/p,0) q2(/p,0) UP[/p,chunked,0] Q0(a,1) Q1(a,1) Q2(a,1) UP[a,1]");
    rig_response(r, "1", false);
    rig_up_body(r, "b", true);
    RIG_STORY(r, "s2(200,0) s1(200,0) s0(200,0) S2(b,1) S1(b,1) S0(b,1) DOWN[200,length=1,0] DOWN[b,1]");
    rig_turn(r);
    RIG_STORY(r, "end0 end1 end2");
    rig_free(r);
}

static void test_end_with_headers_means_no_body_callback(void **state)
{
    (void)state;
    struct rig *r = rig_new(1);
    rig_get(r);
    rig_response(r, NULL, true);
    RIG_STORY(r, "q0(/p,1) UP[/p,none,1] s0(200,1) DOWN[200,none,1]");
    rig_free(r);
}

static void test_filter_without_callbacks_is_left_out(void **state)
{
    (void)state;
    struct rig *r = rig_new(2);
    r->filters[0].ops = (struct filter_ops){0};
    rig_post(r, NULL);
    rig_down_body(r, "a", true);
    RIG_STORY(r, "q1(/p,0) UP[/p,chunked,0] Q1(a,1) UP[a,1]");
    rig_free(r);
}

/* ---- header callbacks ---- */

static void test_stop_all(void **state)
{
    (void)state;
    struct rig *r = rig_new(2);
    ANSWER(r, 0, RIG_QH, FILTER_STOP_ALL);
    rig_post(r, NULL);
    rig_down_body(r, "abc", false);
    rig_down_body(r, "def", false);
    rig_trailers_in(r, &stream_down_ops);
    RIG_STORY(r, "q0(/p,0)");
    filter_continue(&r->s->filters[0], DIR_REQUEST);
    RIG_STORY(r, "");
    rig_turn(r);
    RIG_STORY(r, "q1(/p,0) Q0(abcdef,0) Q1(abcdef,0) t0(1) t1(1) UP[/p,chunked,0] UP[abcdef,0] UP[trailers 1]");
    rig_free(r);
}

static void test_stop_all_with_end(void **state)
{
    (void)state;
    struct rig *r = rig_new(2);
    ANSWER(r, 0, RIG_QH, FILTER_STOP_ALL);
    rig_get(r);
    filter_continue(&r->s->filters[0], DIR_REQUEST);
    rig_turn(r);
    RIG_STORY(r, "q0(/p,1) q1(/p,1) UP[/p,none,1]");
    rig_free(r);
}

static void test_stop_all_presses_back(void **state)
{
    (void)state;
    struct rig *r = rig_new(1);
    char text[121];
    memset(text, 'x', 120);
    text[120] = '\0';
    ANSWER(r, 0, RIG_QH, FILTER_STOP_ALL);
    rig_post(r, NULL);
    rig_down_body(r, "abc", false);
    assert_true(r->down.reading);
    rig_down_body(r, text, false);
    assert_false(r->down.reading);
    rig_down_body(r, text, true);
    RIG_STORY(r, "q0(/p,0)");
    filter_continue(&r->s->filters[0], DIR_REQUEST);
    rig_turn(r);
    RIG_STORY(r, "Q0(<243>,1) UP[/p,length=243,0] UP[<243>,1]");
    rig_free(r);
}

static void test_stop_all_reads_on_after_continue(void **state)
{
    (void)state;
    struct rig *r = rig_new(1);
    char text[121];
    memset(text, 'x', 120);
    text[120] = '\0';
    ANSWER(r, 0, RIG_QH, FILTER_STOP_ALL);
    rig_post(r, NULL);
    rig_down_body(r, text, false);
    assert_false(r->down.reading);
    filter_continue(&r->s->filters[0], DIR_REQUEST);
    rig_turn(r);
    assert_true(r->down.reading);
    rig_free(r);
}

static void test_stop_all_buffer_over_the_limit(void **state)
{
    (void)state;
    struct rig *r = rig_new(1);
    char text[102];
    memset(text, 'x', 101);
    text[101] = '\0';
    ANSWER(r, 0, RIG_QH, FILTER_STOP_ALL_BUFFER);
    rig_post(r, NULL);
    rig_down_body(r, "", false);
    assert_true(r->down.reading);
    rig_down_body(r, text, false);
    RIG_STORY(r, "q0(/p,0) s0(413,0) S0(payload too large\n,1) DOWN[413,length=18,0] DOWN[payload too large\n,1]");
    assert_int_equal(r->s->reason, END_BODY_TOO_LARGE);
    rig_free(r);
}

static void test_stop_gets_the_body(void **state)
{
    (void)state;
    struct rig *r = rig_new(2);
    ANSWER(r, 0, RIG_QH, FILTER_STOP);
    ANSWER(r, 0, RIG_QB, FILTER_BUFFER, FILTER_CONTINUE);
    rig_post(r, "6");
    rig_down_body(r, "abc", false);
    RIG_STORY(r, "q0(/p,0) Q0(abc,0)");
    rig_down_body(r, "def", true);
    RIG_STORY(r, "Q0(abcdef,1) q1(/p,0) Q1(abcdef,1) UP[/p,length=6,0] UP[abcdef,1]");
    rig_free(r);
}

static void test_stop_released_by_continue(void **state)
{
    (void)state;
    struct rig *r = rig_new(2);
    ANSWER(r, 0, RIG_QH, FILTER_STOP);
    ANSWER(r, 0, RIG_QB, FILTER_BUFFER);
    rig_post(r, NULL);
    rig_down_body(r, "abc", false);
    filter_continue(&r->s->filters[0], DIR_REQUEST);
    rig_turn(r);
    RIG_STORY(r, "q0(/p,0) Q0(abc,0) q1(/p,0) Q1(abc,0) UP[/p,chunked,0] UP[abc,0]");
    rig_down_body(r, "def", true);
    RIG_STORY(r, "Q0(def,1) Q1(def,1) UP[def,1]");
    rig_free(r);
}

static void test_stop_released_by_trailers(void **state)
{
    (void)state;
    struct rig *r = rig_new(2);
    ANSWER(r, 0, RIG_QH, FILTER_STOP);
    ANSWER(r, 0, RIG_QB, FILTER_BUFFER);
    rig_post(r, NULL);
    rig_down_body(r, "abc", false);
    rig_trailers_in(r, &stream_down_ops);
    RIG_STORY(r, "q0(/p,0) Q0(abc,0) t0(1) q1(/p,0) Q1(abc,0) t1(1) UP[/p,chunked,0] UP[abc,0] UP[trailers 1]");
    rig_free(r);
}

static void test_stop_without_body_callback_waits_as_all(void **state)
{
    (void)state;
    struct rig *r = rig_new(1);
    r->filters[0].ops.request_body = NULL;
    ANSWER(r, 0, RIG_QH, FILTER_STOP);
    rig_post(r, NULL);
    rig_down_body(r, "abc", true);
    RIG_STORY(r, "q0(/p,0)");
    filter_continue(&r->s->filters[0], DIR_REQUEST);
    rig_turn(r);
    RIG_STORY(r, "UP[/p,length=3,0] UP[abc,1]");
    rig_free(r);
}

/* ---- body callbacks ---- */

static void test_buffer_shows_everything_so_far(void **state)
{
    (void)state;
    struct rig *r = rig_new(2);
    ANSWER(r, 0, RIG_QB, FILTER_BUFFER, FILTER_BUFFER, FILTER_CONTINUE, FILTER_CONTINUE);
    rig_post(r, NULL);
    rig_down_body(r, "a", false);
    rig_down_body(r, "b", false);
    rig_down_body(r, "c", false);
    rig_down_body(r, "d", true);
    RIG_STORY(
        r, "q0(/p,0) q1(/p,0) UP[/p,chunked,0] Q0(a,0) Q0(ab,0) Q0(abc,0) Q1(abc,0) UP[abc,0] Q0(d,1) Q1(d,1) UP[d,1]");
    rig_free(r);
}

static void test_buffer_with_end_released_by_continue(void **state)
{
    (void)state;
    struct rig *r = rig_new(2);
    ANSWER(r, 0, RIG_QB, FILTER_BUFFER);
    rig_post(r, NULL);
    rig_down_body(r, "abc", true);
    RIG_STORY(r, "q0(/p,0) q1(/p,0) UP[/p,chunked,0] Q0(abc,1)");
    filter_continue(&r->s->filters[0], DIR_REQUEST);
    rig_turn(r);
    RIG_STORY(r, "Q1(abc,1) UP[abc,1]");
    rig_free(r);
}

static void test_buffer_over_the_limit(void **state)
{
    (void)state;
    struct rig *r = rig_new(1);
    char text[62];
    memset(text, 'x', 61);
    text[61] = '\0';
    ANSWER(r, 0, RIG_QB, FILTER_BUFFER, FILTER_BUFFER);
    rig_post(r, NULL);
    rig_down_body(r, text, false);
    strbuf_clear(&r->story);
    rig_down_body(r, text, false);
    RIG_STORY(r, "s0(413,0) S0(payload too large\n,1) DOWN[413,length=18,0] DOWN[payload too large\n,1]");
    rig_free(r);
}

static void test_response_buffer_over_the_limit(void **state)
{
    (void)state;
    struct rig *r = rig_new(1);
    char text[102];
    memset(text, 'x', 101);
    text[101] = '\0';
    ANSWER(r, 0, RIG_SH, FILTER_STOP);
    ANSWER(r, 0, RIG_SB, FILTER_BUFFER);
    rig_get(r);
    rig_response(r, NULL, false);
    strbuf_clear(&r->story);
    rig_up_body(r, text, false);
    RIG_STORY(r, "S0(<101>,0) DOWN[500,length=27,0] DOWN[response payload too large\n,1]");
    assert_int_equal(r->s->reason, END_RESPONSE_TOO_LARGE);
    rig_free(r);
}

static void test_response_over_the_limit_after_the_head_is_reset(void **state)
{
    (void)state;
    struct rig *r = rig_new(1);
    char text[102];
    memset(text, 'x', 101);
    text[101] = '\0';
    ANSWER(r, 0, RIG_SB, FILTER_BUFFER);
    rig_get(r);
    rig_response(r, NULL, false);
    rig_up_body(r, text, false);
    assert_true(r->down.detached && r->down.aborted);
    rig_free(r);
}

static void test_watermark_presses_back(void **state)
{
    (void)state;
    struct rig *r = rig_new(1);
    char text[62];
    memset(text, 'x', 61);
    text[61] = '\0';
    ANSWER(r, 0, RIG_QB, FILTER_WATERMARK, FILTER_WATERMARK);
    rig_post(r, NULL);
    rig_down_body(r, text, false);
    assert_true(r->down.reading);
    rig_down_body(r, text, false);
    assert_false(r->down.reading);
    strbuf_clear(&r->story);
    filter_continue(&r->s->filters[0], DIR_REQUEST);
    rig_turn(r);
    RIG_STORY(r, "UP[<122>,0]");
    assert_true(r->down.reading);
    rig_free(r);
}

/* As in Envoy: only after FILTER_BUFFER does a callback see what is held. */
static void test_watermark_shows_each_piece_alone(void **state)
{
    (void)state;
    struct rig *r = rig_new(1);
    ANSWER(r, 0, RIG_QB, FILTER_WATERMARK, FILTER_WATERMARK, FILTER_BUFFER, FILTER_CONTINUE);
    rig_post(r, NULL);
    rig_down_body(r, "abc", false);
    rig_down_body(r, "def", false);
    rig_down_body(r, "ghi", false);
    rig_down_body(r, "jkl", true);
    RIG_STORY(r, "q0(/p,0) UP[/p,chunked,0] Q0(abc,0) Q0(def,0) Q0(ghi,0) Q0(abcdefghijkl,1) UP[abcdefghijkl,1]");
    rig_free(r);
}

static void test_watermark_then_on(void **state)
{
    (void)state;
    struct rig *r = rig_new(1);
    ANSWER(r, 0, RIG_QB, FILTER_WATERMARK, FILTER_CONTINUE, FILTER_CONTINUE);
    rig_post(r, NULL);
    rig_down_body(r, "abc", false);
    rig_down_body(r, "def", false);
    rig_down_body(r, "ghi", true);
    RIG_STORY(r, "q0(/p,0) UP[/p,chunked,0] Q0(abc,0) Q0(def,0) UP[abcdef,0] Q0(ghi,1) UP[ghi,1]");
    rig_free(r);
}

static void test_no_buffer_consumes(void **state)
{
    (void)state;
    struct rig *r = rig_new(2);
    ANSWER(r, 0, RIG_QB, FILTER_NO_BUFFER, FILTER_CONTINUE);
    rig_post(r, NULL);
    rig_down_body(r, "abc", false);
    rig_down_body(r, "def", true);
    RIG_STORY(r, "q0(/p,0) q1(/p,0) UP[/p,chunked,0] Q0(abc,0) Q0(def,1) Q1(def,1) UP[def,1]");
    rig_free(r);
}

/* As in Envoy: what was shown behind held bytes is held with them. */
static void test_no_buffer_keeps_what_was_held(void **state)
{
    (void)state;
    struct rig *r = rig_new(1);
    ANSWER(r, 0, RIG_QB, FILTER_BUFFER, FILTER_NO_BUFFER, FILTER_NO_BUFFER);
    rig_post(r, NULL);
    rig_down_body(r, "abc", false);
    rig_down_body(r, "def", false);
    rig_down_body(r, "ghi", true); /* this one is taken */
    RIG_STORY(r, "q0(/p,0) UP[/p,chunked,0] Q0(abc,0) Q0(abcdef,0) Q0(ghi,1)");
    filter_continue(&r->s->filters[0], DIR_REQUEST);
    rig_turn(r);
    RIG_STORY(r, "UP[abcdef,1]");
    rig_free(r);
}

static void test_no_buffer_with_end_holds_the_end(void **state)
{
    (void)state;
    struct rig *r = rig_new(1);
    ANSWER(r, 0, RIG_QB, FILTER_NO_BUFFER);
    rig_post(r, NULL);
    rig_down_body(r, "abc", true);
    RIG_STORY(r, "q0(/p,0) UP[/p,chunked,0] Q0(abc,1)");
    filter_continue(&r->s->filters[0], DIR_REQUEST);
    rig_turn(r);
    RIG_STORY(r, "UP[,1]");
    rig_free(r);
}

static void test_empty_last_chunk(void **state)
{
    (void)state;
    struct rig *r = rig_new(1);
    rig_post(r, NULL);
    rig_down_body(r, "a", false);
    rig_down_body(r, "", true);
    RIG_STORY(r, "q0(/p,0) UP[/p,chunked,0] Q0(a,0) UP[a,0] Q0(,1) UP[,1]");
    rig_free(r);
}

/* ---- trailers ---- */

static void test_trailers_come_while_the_body_is_held(void **state)
{
    (void)state;
    struct rig *r = rig_new(2);
    ANSWER(r, 0, RIG_QB, FILTER_BUFFER);
    ANSWER(r, 0, RIG_QT, FILTER_STOP);
    rig_post(r, NULL);
    rig_down_body(r, "abc", false);
    rig_trailers_in(r, &stream_down_ops);
    RIG_STORY(r, "q0(/p,0) q1(/p,0) UP[/p,chunked,0] Q0(abc,0) t0(1)");
    filter_continue(&r->s->filters[0], DIR_REQUEST);
    rig_turn(r);
    RIG_STORY(r, "Q1(abc,0) t1(1) UP[abc,0] UP[trailers 1]");
    rig_free(r);
}

static void make_trailers(struct rig *r, struct filter *f, struct buf *data)
{
    (void)r;
    (void)data;
    struct headers *t = filter_headers(f, DIR_RESPONSE, true, true);
    if (t != NULL)
        assert_int_equal(headers_add(t, STR("x-made"), STR("1")), HEADERS_OK);
}

static void test_trailers_made_in_the_last_body_callback(void **state)
{
    (void)state;
    struct rig *r = rig_new(2);
    r->filters[1].hook[RIG_SB] = make_trailers;
    rig_get(r);
    rig_response(r, NULL, false);
    strbuf_clear(&r->story);
    rig_up_body(r, "a", false);
    RIG_STORY(r, "S1(a,0) S0(a,0) DOWN[a,0]");
    rig_up_body(r, "b", true);
    RIG_STORY(r, "S1(b,1) S0(b,0) u0(1) DOWN[b,0] DOWN[trailers 1]");
    rig_free(r);
}

static void test_trailers_made_and_held(void **state)
{
    (void)state;
    struct rig *r = rig_new(2);
    r->filters[1].hook[RIG_SB] = make_trailers;
    ANSWER(r, 1, RIG_SB, FILTER_BUFFER);
    rig_get(r);
    rig_response(r, NULL, false);
    strbuf_clear(&r->story);
    rig_up_body(r, "b", true);
    RIG_STORY(r, "S1(b,1)");
    filter_continue(&r->s->filters[1], DIR_RESPONSE);
    rig_turn(r);
    RIG_STORY(r, "S0(b,0) u0(1) DOWN[b,0] DOWN[trailers 1] end0 end1");
    rig_free(r);
}

/* ---- framing ---- */

static void grow(struct rig *r, struct filter *f, struct buf *data)
{
    (void)r;
    (void)f;
    buf_append(data, STR("++"));
}

static void test_body_changed_before_the_head_is_sent(void **state)
{
    (void)state;
    struct rig *r = rig_new(1);
    r->filters[0].hook[RIG_SB] = grow;
    ANSWER(r, 0, RIG_SH, FILTER_STOP);
    rig_get(r);
    rig_response(r, "6", false);
    strbuf_clear(&r->story);
    rig_up_body(r, "abc", false);
    RIG_STORY(r, "S0(abc,0) DOWN[200,chunked,0] DOWN[abc++,0]");
    rig_free(r);
    r = rig_new(1);
    r->filters[0].hook[RIG_SB] = grow;
    ANSWER(r, 0, RIG_SH, FILTER_STOP);
    rig_get(r);
    rig_response(r, "3", false);
    strbuf_clear(&r->story);
    rig_up_body(r, "abc", true);
    RIG_STORY(r, "S0(abc,1) DOWN[200,length=5,0] DOWN[abc++,1]");
    rig_free(r);
}

static void remove_length(struct rig *r, struct filter *f, struct buf *data)
{
    (void)r;
    (void)data;
    headers_remove_id(filter_headers(f, DIR_RESPONSE, false, true), HDR_CONTENT_LENGTH);
}

static void test_length_removed_by_a_filter(void **state)
{
    (void)state;
    struct rig *r = rig_new(1);
    r->filters[0].hook[RIG_SH] = remove_length;
    rig_get(r);
    rig_response(r, "6", false);
    RIG_STORY(r, "q0(/p,1) UP[/p,none,1] s0(200,0) DOWN[200,chunked,0]");
    rig_free(r);
}

static void write_length(struct rig *r, struct filter *f, struct buf *data)
{
    (void)r;
    (void)data;
    struct headers *h = filter_headers(f, DIR_RESPONSE, false, true);
    assert_int_equal(headers_set_id(h, HDR_CONTENT_LENGTH, STR("3")), HEADERS_OK);
}

/* The length that goes out is the one of the body that goes out, whatever the header says. */
static void test_body_changed_behind_a_declared_length(void **state)
{
    (void)state;
    struct rig *r = rig_new(1);
    r->filters[0].hook[RIG_SB] = grow;
    r->filters[0].hook[RIG_QB] = grow;
    rig_post(r, "3");
    RIG_STORY(r, "q0(/p,0)");
    rig_down_body(r, "abc", true);
    RIG_STORY(r, "Q0(abc,1) UP[/p,length=5,0] UP[abc++,1]");
    rig_response(r, "6", false);
    rig_up_body(r, "abc", false);
    RIG_STORY(r, "s0(200,0) S0(abc,0) DOWN[200,chunked,0] DOWN[abc++,0]");
    rig_up_body(r, "def", true);
    RIG_STORY(r, "S0(def,1) DOWN[def++,1]");
    rig_free(r);
}

static unsigned broke[2];

static void note_broken(struct filter *f, enum direction dir)
{
    (void)f;
    broke[dir]++;
}

/* Filters in Rust and Go see every body; a download keeps its length. */
static void test_length_is_kept_while_nobody_changes_the_body(void **state)
{
    (void)state;
    struct rig *r = rig_new(1);
    broke[DIR_REQUEST] = broke[DIR_RESPONSE] = 0;
    r->filters[0].ops.broke_length = note_broken;
    rig_post(r, "6");
    rig_down_body(r, "abc", false);
    RIG_STORY(r, "q0(/p,0) Q0(abc,0) UP[/p,length=6,0] UP[abc,0]");
    rig_down_body(r, "def", true);
    rig_response(r, "6", false);
    rig_up_body(r, "abc", false);
    RIG_STORY(r, "Q0(def,1) UP[def,1] s0(200,0) S0(abc,0) DOWN[200,length=6,0] DOWN[abc,0]");
    assert_int_equal(broke[DIR_REQUEST] + broke[DIR_RESPONSE], 0);
    r->filters[0].hook[RIG_SB] = grow;
    rig_up_body(r, "def", true); /* too late: the encoder refuses it */
    assert_int_equal(broke[DIR_RESPONSE], 1);
    rig_free(r);
}

static void test_length_is_not_kept_for_a_filter_that_broke_one(void **state)
{
    (void)state;
    struct rig *r = rig_new(1);
    r->filters[0].ops.breaks_length[DIR_RESPONSE] = true;
    rig_post(r, "6");
    rig_down_body(r, "abc", false);
    RIG_STORY(r, "q0(/p,0) Q0(abc,0) UP[/p,length=6,0] UP[abc,0]");
    rig_down_body(r, "def", true);
    rig_response(r, "6", false);
    rig_up_body(r, "abc", false);
    RIG_STORY(r, "Q0(def,1) UP[def,1] s0(200,0) S0(abc,0) DOWN[200,chunked,0] DOWN[abc,0]");
    rig_free(r);
}

static void test_a_guests_length_never_counts(void **state)
{
    (void)state;
    struct rig *r = rig_new(1);
    r->filters[0].hook[RIG_SH] = write_length;
    r->filters[0].ops.response_body = NULL;
    rig_get(r);
    rig_response(r, "5", false);
    RIG_STORY(r, "q0(/p,1) UP[/p,none,1] s0(200,0) DOWN[200,length=5,0]");
    rig_free(r);
}

/* ---- leaving ---- */

static void test_bypass_while_holding(void **state)
{
    (void)state;
    struct rig *r = rig_new(2);
    ANSWER(r, 0, RIG_QH, FILTER_STOP_ALL);
    rig_post(r, NULL);
    rig_down_body(r, "abc", true);
    r->s->filters[0].side[DIR_REQUEST].state = FILTER_BYPASSED;
    r->s->filters[0].side[DIR_RESPONSE].state = FILTER_BYPASSED;
    filter_continue(&r->s->filters[0], DIR_REQUEST);
    rig_turn(r);
    RIG_STORY(r, "q0(/p,0) q1(/p,0) Q1(abc,1) UP[/p,length=3,0] UP[abc,1]");
    rig_response(r, NULL, true);
    RIG_STORY(r, "s1(200,1) DOWN[200,none,1]");
    rig_free(r);
}

static void leave(struct rig *r, struct filter *f, struct buf *data)
{
    (void)r;
    (void)data;
    f->side[DIR_REQUEST].state = FILTER_BYPASSED;
    f->side[DIR_RESPONSE].state = FILTER_BYPASSED;
    filter_continue(f, DIR_REQUEST);
    filter_continue(f, DIR_RESPONSE);
}

static void test_bypass_inside_a_body_callback(void **state)
{
    (void)state;
    struct rig *r = rig_new(2);
    r->filters[0].hook[RIG_QB] = leave;
    ANSWER(r, 0, RIG_QH, FILTER_STOP);
    rig_post(r, NULL);
    rig_down_body(r, "abc", false);
    rig_down_body(r, "def", true);
    RIG_STORY(r, "q0(/p,0) Q0(abc,0) q1(/p,0) Q1(abc,0) UP[/p,chunked,0] UP[abc,0] Q1(def,1) UP[def,1]");
    rig_free(r);
}

static void test_continue_when_nothing_is_held(void **state)
{
    (void)state;
    struct rig *r = rig_new(1);
    rig_get(r);
    filter_continue(&r->s->filters[0], DIR_REQUEST);
    filter_continue(&r->s->filters[0], DIR_RESPONSE);
    rig_turn(r);
    RIG_STORY(r, "q0(/p,1) UP[/p,none,1]");
    rig_free(r);
}

static void test_ended_once_for_all(void **state)
{
    (void)state;
    struct rig *r = rig_new(3);
    ANSWER(r, 1, RIG_QH, FILTER_STOP_ALL);
    rig_get(r);
    stream_abort(r->s, END_CLIENT_GONE);
    stream_abort(r->s, END_DRAIN_CUT);
    assert_int_equal(r->s->reason, END_CLIENT_GONE);
    rig_turn(r);
    RIG_STORY(r, "q0(/p,1) q1(/p,1) end0 end1 end2");
    rig_free(r);
}

/* ---- what may be read and edited when ---- */

static void look(struct rig *r, struct filter *f, struct buf *data)
{
    assert_ptr_equal(filter_body(f, DIR_REQUEST), data);
    assert_null(filter_headers(f, DIR_REQUEST, false, true)); /* they went on */
    assert_non_null(filter_headers(f, DIR_REQUEST, false, false));
    assert_null(filter_headers(f, DIR_REQUEST, true, true)); /* it is not the end */
    assert_null(filter_headers(f, DIR_RESPONSE, false, false));
    assert_null(filter_body(&r->s->filters[1 - f->index], DIR_REQUEST));
}

static void test_access(void **state)
{
    (void)state;
    struct rig *r = rig_new(2);
    r->filters[0].hook[RIG_QB] = look;
    ANSWER(r, 1, RIG_QH, FILTER_STOP_ALL);
    rig_post(r, NULL);
    assert_null(filter_headers(&r->s->filters[0], DIR_REQUEST, false, true));
    assert_non_null(filter_headers(&r->s->filters[1], DIR_REQUEST, false, true));
    rig_down_body(r, "abc", false);
    assert_int_equal(filter_body(&r->s->filters[1], DIR_REQUEST)->n, 3);
    assert_null(filter_body(&r->s->filters[0], DIR_REQUEST));
    rig_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_filter_passes_directly),
        cmocka_unit_test(test_order_of_filters),
        cmocka_unit_test(test_end_with_headers_means_no_body_callback),
        cmocka_unit_test(test_filter_without_callbacks_is_left_out),
        cmocka_unit_test(test_stop_all),
        cmocka_unit_test(test_stop_all_with_end),
        cmocka_unit_test(test_stop_all_presses_back),
        cmocka_unit_test(test_stop_all_reads_on_after_continue),
        cmocka_unit_test(test_stop_all_buffer_over_the_limit),
        cmocka_unit_test(test_stop_gets_the_body),
        cmocka_unit_test(test_stop_released_by_continue),
        cmocka_unit_test(test_stop_released_by_trailers),
        cmocka_unit_test(test_stop_without_body_callback_waits_as_all),
        cmocka_unit_test(test_buffer_shows_everything_so_far),
        cmocka_unit_test(test_buffer_with_end_released_by_continue),
        cmocka_unit_test(test_buffer_over_the_limit),
        cmocka_unit_test(test_response_buffer_over_the_limit),
        cmocka_unit_test(test_response_over_the_limit_after_the_head_is_reset),
        cmocka_unit_test(test_watermark_presses_back),
        cmocka_unit_test(test_watermark_shows_each_piece_alone),
        cmocka_unit_test(test_watermark_then_on),
        cmocka_unit_test(test_no_buffer_consumes),
        cmocka_unit_test(test_no_buffer_keeps_what_was_held),
        cmocka_unit_test(test_no_buffer_with_end_holds_the_end),
        cmocka_unit_test(test_empty_last_chunk),
        cmocka_unit_test(test_trailers_come_while_the_body_is_held),
        cmocka_unit_test(test_trailers_made_in_the_last_body_callback),
        cmocka_unit_test(test_trailers_made_and_held),
        cmocka_unit_test(test_body_changed_before_the_head_is_sent),
        cmocka_unit_test(test_length_removed_by_a_filter),
        cmocka_unit_test(test_body_changed_behind_a_declared_length),
        cmocka_unit_test(test_a_guests_length_never_counts),
        cmocka_unit_test(test_length_is_kept_while_nobody_changes_the_body),
        cmocka_unit_test(test_length_is_not_kept_for_a_filter_that_broke_one),
        cmocka_unit_test(test_bypass_while_holding),
        cmocka_unit_test(test_bypass_inside_a_body_callback),
        cmocka_unit_test(test_continue_when_nothing_is_held),
        cmocka_unit_test(test_ended_once_for_all),
        cmocka_unit_test(test_access),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
