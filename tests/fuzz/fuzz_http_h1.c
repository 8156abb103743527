/* SPDX-License-Identifier: Apache-2.0
 *
 * Fuzzes the HTTP/1 parser, encoder and codec. The first byte chooses what is driven, the second seeds the splits and
 * what the stream does. Held to be true of every input:
 *   - the result of parsing does not depend on where the bytes were split;
 *   - a head that was taken, sent on by the other role's encoder, parses again to the same message;
 *   - the codec's events and output do not depend on the splits, and each exchange ends exactly once;
 *   - a stream that answers, stops reading, or detaches anywhere breaks nothing.
 */
#include <stdlib.h>

#include "http/h1.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct h1_limits limits = {.head_bytes = 2048,
                                        .uri_bytes = 512,
                                        .headers = 30,
                                        .trailer_bytes = 256,
                                        .chunk_ext_bytes = 32,
                                        .pipeline_bytes = 1024};
static struct chunk_pool *pool;

#define CHECK(cond) ((cond) ? (void)0 : abort())

static uint32_t next_random(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

/* ---- a codec with a stream that logs ---- */

struct rig {
    struct h1 h;
    struct buf in, out;
    struct arena arenas[64]; /* kept to the end: events may be compared */
    unsigned arena_count, begun, ended;
    struct strbuf log, wire;
    uint32_t seed;
    bool wild;    /* does things at random; else answers when the message is complete */
    bool passive; /* does nothing */
    bool in_body_word, refused;
};

static struct rig *rig_of(struct h1 *h) { return CONTAINER_OF(h, struct rig, h); }

static struct arena *new_arena(struct rig *r)
{
    CHECK(r->arena_count < 64);
    arena_init(&r->arenas[r->arena_count], pool, 1 << 16);
    return &r->arenas[r->arena_count++];
}

static void word(struct rig *r, const char *text)
{
    strbuf_addc(&r->log, ' ');
    strbuf_addz(&r->log, text);
    r->in_body_word = false;
}

static struct message *make_response(struct rig *r, enum message_body body, uint64_t length)
{
    struct message *m = arena_zalloc(r->h.arena, sizeof *m);

    headers_init(&m->headers, r->h.arena, 4096, 40);
    headers_add_borrowed(&m->headers, STR(":status"), STR("200"), HDR_STATUS);
    m->status = 200;
    m->body = body;
    m->content_length = length;
    return m;
}

static void send_text(struct rig *r, struct str text, bool end)
{
    struct buf data;

    buf_init(&data, pool);
    buf_append(&data, text);
    r->h.leg.codec->send_body(&r->h.leg, &data, end);
    CHECK(data.n == 0);
    buf_fini(&data);
}

static void act_wildly(struct rig *r)
{
    const struct leg_codec *codec = r->h.leg.codec;

    if (r->h.leg.stream == NULL ||
        h1_is_dropping(&r->h)) /* none, or the codec's own that drops the rest of an answered request */
        return;
    switch (next_random(&r->seed) % 12) {
    case 0: codec->detach(&r->h.leg, false); break;
    case 1: codec->detach(&r->h.leg, true); break;
    case 2:
    case 3: codec->read_enable(&r->h.leg, next_random(&r->seed) % 2 != 0); break;
    case 4:
    case 5:
        if (r->h.role == H1_SERVER && r->h.out_state == H1_IDLE)
            codec->send_head(&r->h.leg, make_response(r, (enum message_body)(next_random(&r->seed) % 4), 4),
                             next_random(&r->seed) % 2 != 0);
        break;
    case 6: send_text(r, STR("abcd"), next_random(&r->seed) % 2 != 0); break;
    case 7: send_text(r, STR_NONE, true); break;
    case 8:
        if (r->h.role == H1_SERVER)
            codec->send_interim(&r->h.leg, make_response(r, BODY_NONE, 0));
        break;
    default: break;
    }
}

static void finish(struct rig *r)
{
    if (r->passive)
        return;
    if (r->wild) {
        act_wildly(r);
        return;
    }
    if (r->h.role == H1_SERVER) {
        r->h.leg.codec->send_head(&r->h.leg, make_response(r, BODY_LENGTH, 2), false);
        send_text(r, STR("ok"), true);
    }
    r->h.leg.codec->detach(&r->h.leg, false);
}

static void note_fields(struct rig *r, const struct headers *h)
{
    for (uint32_t i = 0; i < h->count; i++)
        strbuf_printf(&r->log, "%.*s=%.*s;", STR_ARG(h->list[i].name), STR_ARG(h->list[i].value));
}

static void on_head(void *stream, struct message *m, bool end)
{
    struct rig *r = stream;

    word(r, end ? "HEAD-END " : "HEAD ");
    note_fields(r, &m->headers);
    if (end || (m->upgrade && m->status == 0))
        finish(r);
    else if (r->wild)
        act_wildly(r);
}

static void on_interim(void *stream, struct message *m)
{
    word(stream, "INTERIM ");
    note_fields(stream, &m->headers);
}

static void on_body(void *stream, struct buf *data, bool end)
{
    struct rig *r = stream;

    if (data->n > 0 && !r->in_body_word)
        word(r, "BODY ");
    r->in_body_word = r->in_body_word || data->n > 0;
    while (data->n > 0) {
        struct str front = buf_front(data);
        strbuf_add(&r->log, front);
        buf_consume(data, front.n);
    }
    if (end)
        word(r, "END");
    if (end)
        finish(r);
    else if (r->wild)
        act_wildly(r);
}

static void on_trailers(void *stream, struct headers *t)
{
    word(stream, "TRAILERS ");
    note_fields(stream, t);
    finish(stream);
}

static void on_reset(void *stream, enum leg_error why)
{
    struct rig *r = stream;

    CHECK(r->h.leg.stream == NULL && why != LEG_OK);
    r->in_body_word = false;
    strbuf_printf(&r->log, " RESET%d", (int)why);
}

static void on_drain(void *stream) { CHECK(((struct rig *)stream)->wild); }

static const struct leg_ops stream_ops = {on_head, on_interim, on_body, on_trailers, on_reset, on_drain};

static struct arena *own_begin(struct h1 *h)
{
    struct rig *r = rig_of(h);

    if (r->arena_count == 64)
        return NULL;
    r->begun++;
    h->leg.ops = &stream_ops;
    h->leg.stream = r;
    return new_arena(r);
}

static void own_bad_request(struct h1 *h, enum leg_error error, const char *why)
{
    struct rig *r = rig_of(h);

    CHECK(why != NULL && error != LEG_OK && h->bad_status >= 400 && !r->refused);
    r->refused = true;
    r->ended++;
    h1_send_error(h, h->bad_status, STR("bad"));
}

static void own_output(struct h1 *h) { CHECK(h->out != NULL); }
static void own_read_state(struct h1 *h) { (void)h1_wants_input(h); }

static void own_exchange_end(struct h1 *h, bool reusable)
{
    struct rig *r = rig_of(h);

    CHECK(h->leg.stream == NULL);
    r->ended++;
    word(r, reusable ? "REUSE" : "CLOSE");
}

static const struct h1_ops owner_ops = {own_begin, own_bad_request, own_output, own_read_state, own_exchange_end};

static void open_rig(struct rig *r, enum h1_role role, uint32_t seed, bool wild)
{
    memset(r, 0, sizeof *r);
    r->seed = seed;
    r->wild = wild;
    buf_init(&r->in, pool);
    buf_init(&r->out, pool);
    h1_init(&r->h, role, &limits, &r->out, 512, &owner_ops);
    if (role == H1_CLIENT) {
        h1_begin_request(&r->h, new_arena(r), &stream_ops, r);
        r->begun++;
    }
}

static void flush(struct rig *r)
{
    while (r->out.n > 0) {
        struct str front = buf_front(&r->out);
        strbuf_add(&r->wire, front);
        buf_consume(&r->out, front.n);
    }
    h1_output_drained(&r->h);
}

static void close_rig(struct rig *r)
{
    flush(r);
    if (r->h.leg.stream != NULL) {
        h1_fail(&r->h, LEG_TIMEOUT);
        r->ended++;
    }
    CHECK(r->ended == r->begun);
    for (unsigned i = 0; i < r->arena_count; i++)
        arena_fini(&r->arenas[i]);
    buf_fini(&r->in);
    buf_fini(&r->out);
}

static void free_rig(struct rig *r)
{
    strbuf_free(&r->log);
    strbuf_free(&r->wire);
}

/* Feeds everything, in random pieces when split, and ends with FIN. */
static void drive(struct rig *r, struct str in, bool split)
{
    while (in.n > 0) {
        size_t n = split ? 1 + next_random(&r->seed) % 40 : in.n;
        if (n > in.n)
            n = in.n;
        buf_append(&r->in, str_upto(in, n));
        in = str_from(in, n);
        if (!h1_input(&r->h, &r->in))
            break;
        if (r->wild) {
            act_wildly(r);
            flush(r);
            (void)!h1_input(&r->h, &r->in);
        }
    }
    /* Of pipelined requests the codec begins a bounded number at a time. */
    size_t before;
    do {
        before = r->in.n;
        flush(r);
    } while (h1_input(&r->h, &r->in) && r->in.n < before);
    h1_eof(&r->h);
    close_rig(r);
}

static struct message *make_request(struct rig *r, const char *method)
{
    struct message *m = arena_zalloc(r->h.arena, sizeof *m);

    headers_init(&m->headers, r->h.arena, 4096, 40);
    headers_add_borrowed(&m->headers, STR(":method"), str_of(method), HDR_METHOD);
    headers_add_borrowed(&m->headers, STR(":path"), STR("/"), HDR_PATH);
    headers_add_borrowed(&m->headers, STR("upgrade"), STR("websocket"), HDR_UPGRADE);
    m->upgrade = r->seed % 2 == 0;
    return m;
}

static void fuzz_codec(enum h1_role role, uint8_t seed, bool wild, struct str in)
{
    static struct rig whole, split;
    struct rig *rigs[2] = {&whole, &split};

    for (int i = 0; i < 2; i++) {
        open_rig(rigs[i], role, seed, wild);
        if (role == H1_CLIENT)
            rigs[i]->h.leg.codec->send_head(&rigs[i]->h.leg, make_request(rigs[i], seed % 3 == 0 ? "HEAD" : "GET"),
                                            true);
        drive(rigs[i], in, i == 1);
    }
    if (!wild) {
        /* Whether surplus bytes of a server come with the response or behind it decides how the exchange ends. */
        size_t verdict = role == H1_CLIENT && whole.log.n > 6 && split.log.n == whole.log.n ? 6 : 0;
        CHECK(str_eq(str_span(whole.log.p, whole.log.n - verdict), str_span(split.log.p, split.log.n - verdict)));
        CHECK(str_eq(strbuf_str(&whole.wire), strbuf_str(&split.wire)));
    }
    free_rig(&whole);
    free_rig(&split);
}

/* ---- the parser ---- */

static enum parse parse(enum h1_role role, struct str in, size_t *from, struct arena *arena, struct message *m,
                        size_t *used)
{
    const char *why;
    enum parse r = role == H1_SERVER ? h1_parse_request(in, &limits, from, arena, m, used, &why)
                                     : h1_parse_response(in, &limits, from, STR("GET"), arena, m, used, &why);

    CHECK(r == PARSE_DONE || r == PARSE_MORE || why != NULL);
    return r;
}

static bool is_same(const struct message *a, const struct message *b)
{
    if (a->headers.count != b->headers.count || a->status != b->status || a->upgrade != b->upgrade)
        return false;
    for (uint32_t i = 0; i < a->headers.count; i++)
        if (!str_eq(a->headers.list[i].name, b->headers.list[i].name) ||
            !str_eq(a->headers.list[i].value, b->headers.list[i].value))
            return false;
    return true;
}

/* What the encoder may change by right: framing fields, their place, and the empty authority of HTTP/1.0. */
static void normalise(struct message *m)
{
    headers_remove_id(&m->headers, HDR_CONTENT_LENGTH);
    headers_remove_id(&m->headers, HDR_CONNECTION);
    headers_remove_id(&m->headers, HDR_UPGRADE);
    headers_remove_id(&m->headers, HDR_TE);
    headers_remove_id(&m->headers, HDR_HOST);
}

/* Sends m on by the other role's encoder and parses that. */
static void check_round_trip(enum h1_role role, struct message *m)
{
    static struct rig r;
    struct h1_limits wide = limits;
    struct message again;
    size_t from = 0, used;
    struct arena arena;
    const char *why;
    enum parse p;
    bool end = m->body == BODY_NONE || (m->body == BODY_LENGTH && m->content_length == 0);

    open_rig(&r, role == H1_SERVER ? H1_CLIENT : H1_SERVER, 0, false);
    if (role == H1_CLIENT) { /* a request to answer */
        r.passive = true;
        buf_append(&r.in, STR("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
        CHECK(h1_input(&r.h, &r.in));
    }
    r.h.leg.codec->send_head(&r.h.leg, m, end);
    CHECK(r.h.pending == LEG_OK && r.h.dropped_headers == 0);
    flush(&r);
    arena_init(&arena, pool, 1 << 16);
    wide.head_bytes *= 2; /* framing fields of ours may come on top */
    wide.headers *= 2;
    p = role == H1_SERVER
            ? h1_parse_request(strbuf_str(&r.wire), &wide, &from, &arena, &again, &used, &why)
            : h1_parse_response(strbuf_str(&r.wire), &wide, &from, STR("GET"), &arena, &again, &used, &why);
    CHECK(p == PARSE_DONE && used == r.wire.n);
    CHECK(end || m->upgrade || again.body == m->body || m->body == BODY_CLOSE);
    CHECK(again.body != BODY_LENGTH || again.content_length == m->content_length);
    normalise(m);
    normalise(&again);
    CHECK(is_same(m, &again));
    arena_fini(&arena);
    close_rig(&r);
    free_rig(&r);
}

static void fuzz_parser(enum h1_role role, uint32_t seed, struct str in)
{
    struct arena arena;
    struct message whole, split;
    size_t from = 0, used = 0, used_split = 0, n = 0;
    enum parse a, b = PARSE_MORE;

    arena_init(&arena, pool, 1 << 18);
    a = parse(role, in, &from, &arena, &whole, &used);
    from = 0;
    while (b == PARSE_MORE && n < in.n) {
        n += 1 + next_random(&seed) % 30;
        if (n > in.n)
            n = in.n;
        b = parse(role, str_upto(in, n), &from, &arena, &split, &used_split);
    }
    CHECK(a == b);
    if (a == PARSE_DONE) {
        CHECK(used == used_split && used <= in.n && is_same(&whole, &split));
        bool sendable = role == H1_SERVER ? headers_get_id(&whole.headers, HDR_AUTHORITY) != NULL
                                          : whole.status >= 200 && whole.body != BODY_TUNNEL;
        if (sendable)
            check_round_trip(role, &whole);
    }
    arena_fini(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    struct str in = str_span(data + 2, size - 2);

    pool = chunk_pool_new(16);
    switch (data[0] % 6) {
    case 0: fuzz_parser(H1_SERVER, data[1], in); break;
    case 1: fuzz_parser(H1_CLIENT, data[1], in); break;
    case 2: fuzz_codec(H1_SERVER, data[1], false, in); break;
    case 3: fuzz_codec(H1_CLIENT, data[1], false, in); break;
    case 4: fuzz_codec(H1_SERVER, data[1], true, in); break;
    default: fuzz_codec(H1_CLIENT, data[1], true, in); break;
    }
    chunk_pool_free(pool);
    return 0;
}
