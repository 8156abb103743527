/* SPDX-License-Identifier: Apache-2.0
 *
 * mask-cards: overwrites payment card numbers in bodies, all but the last four digits, also where a number is split
 * over chunks. Data loss prevention in C over sdk/c; masker.h says what a card number is.
 *
 *   pluginConfig:
 *     keepLast: 4               # default; 0 to 4 digits stay readable
 *     mask: "*"                 # default; one character
 *     request: true             # default; false: requests are left alone
 *     response: true            # default
 *     contentTypes: ["text/", "json", "xml", "form"]   # default; bodies whose Content-Type contains one of these, or
 * is missing
 *
 * Bodies stream: of each stream and direction 40 bytes are held at most. Content-Length, ETag and digests go, since the
 * bytes change. What is compressed cannot be looked into: Accept-Encoding is removed from requests; a compressed
 * request is refused with 415, a compressed response with 502. Range is removed too: two halves of a number would each
 * pass. Numbers are not found where they are written otherwise (escapes, base64).
 */
#include "proxy_wasm.h"

#include "../config.h"
#include "masker.h"

enum { TYPES_MAX = 32 };

static struct {
    struct masker_rules rules;
    bool on[2]; /* by enum pw_stream */
    struct pw_str types[TYPES_MAX];
    uint32_t type_count;
} rules;
static uint32_t masked_metric;

struct side {
    bool on;
    struct masker masker;
};
struct stream {
    struct side side[2];
};

/* ---- configuration ---- */

static bool fail(const char *why)
{
    pw_logf(PW_ERROR, "pluginConfig: %s", why);
    return false;
}

static bool read_bool(struct pw_str config, const char *name, bool *out)
{
    struct pw_str v = config_member(config, name);

    *out = v.p == NULL || pw_eq(v, PW_STR("true"));
    return v.p == NULL || *out || pw_eq(v, PW_STR("false"));
}

static bool read_types(struct pw_str config)
{
    static char standard[] = "[\"text/\",\"json\",\"xml\",\"form\"]";
    struct pw_str list = config_member(config, "contentTypes"), one;

    if (list.p == NULL) {
        list = pw_z(standard);
    }
    rules.type_count = 0;
    for (struct pw_str rest = config_inside(list); (one = config_next(&rest)).p != NULL;) {
        if (rules.type_count == TYPES_MAX || !config_string(one, &rules.types[rules.type_count]) || one.n <= 2) {
            return false;
        }
        rules.type_count++;
    }
    return rules.type_count != 0;
}

bool pw_on_configure(uint32_t root, uint32_t config_size)
{
    struct pw_str config = pw_get_config(); /* stays: the content types point into it */
    struct pw_str keep = config_member(config, "keepLast"), mask = config_member(config, "mask");
    uint64_t digits = 4;

    (void)root;
    (void)config_size;
    rules.rules = (struct masker_rules){.keep = 4, .mask = '*'};
    if (keep.p != NULL && (!pw_parse_u64(keep, &digits) || digits > 4)) {
        return fail("keepLast must be 0 to 4");
    }
    rules.rules.keep = (uint32_t)digits;
    if (mask.p != NULL) {
        if (!config_string(mask, &mask) || mask.n != 1) {
            return fail("mask must be one character");
        }
        rules.rules.mask = mask.p[0];
    }
    if (!read_bool(config, "request", &rules.on[PW_REQUEST]) ||
        !read_bool(config, "response", &rules.on[PW_RESPONSE])) {
        return fail("request and response must be true or false");
    }
    if (!read_types(config)) {
        return fail("contentTypes must be a list of 1 to 32 strings without escapes");
    }
    masked_metric = pw_define_metric(PW_COUNTER, "mask_cards_chunks_masked");
    return true;
}

/* ---- heads ---- */

static bool is_text(enum pw_map map)
{
    PW_AUTO struct pw_str type = pw_get_header(map, "content-type");

    for (uint32_t i = 0; i < type.n; i++) {
        type.p[i] = (char)(type.p[i] >= 'A' && type.p[i] <= 'Z' ? type.p[i] + 32 : type.p[i]);
    }
    for (uint32_t i = 0; i < rules.type_count; i++) {
        if (pw_find(type, rules.types[i]) >= 0) {
            return true;
        }
    }
    return type.n == 0;
}

static bool is_compressed(enum pw_map map)
{
    PW_AUTO struct pw_str coding = pw_get_header(map, "content-encoding");

    return coding.n != 0 && !pw_eq(coding, PW_STR("identity"));
}

static void start(uint32_t ctx, enum pw_stream which, enum pw_map map)
{
    static const char *const of_the_bytes[] = {"content-length", "etag",          "digest",
                                               "content-digest", "accept-ranges", "content-md5"};
    struct stream *s = pw_state(ctx, sizeof *s);

    s->side[which].on = true;
    for (uint32_t i = 0; i < sizeof of_the_bytes / sizeof of_the_bytes[0]; i++) {
        pw_remove_header(map, of_the_bytes[i]);
    }
}

enum pw_action pw_on_request_headers(uint32_t ctx, uint32_t count, bool end)
{
    (void)count;
    if (rules.on[PW_RESPONSE]) {
        pw_remove_header(PW_REQUEST_HEADERS, "accept-encoding");
        pw_remove_header(PW_REQUEST_HEADERS, "range");
    }
    if (end || !rules.on[PW_REQUEST] || !is_text(PW_REQUEST_HEADERS)) {
        return PW_CONTINUE;
    }
    if (is_compressed(PW_REQUEST_HEADERS)) {
        pw_reply(415, "mask_cards_compressed", PW_STR("compressed bodies are not accepted\n"), NULL, 0);
        return PW_PAUSE;
    }
    start(ctx, PW_REQUEST, PW_REQUEST_HEADERS);
    return PW_CONTINUE;
}

enum pw_action pw_on_response_headers(uint32_t ctx, uint32_t count, bool end)
{
    PW_AUTO struct pw_str status = pw_get_header(PW_RESPONSE_HEADERS, ":status");

    (void)count;
    if (end || !rules.on[PW_RESPONSE] || pw_eq(status, PW_STR("101")) || !is_text(PW_RESPONSE_HEADERS)) {
        return PW_CONTINUE;
    }
    if (is_compressed(PW_RESPONSE_HEADERS)) {
        pw_reply(502, "mask_cards_compressed", PW_STR("the response is compressed and cannot be checked\n"), NULL, 0);
        return PW_PAUSE;
    }
    start(ctx, PW_RESPONSE, PW_RESPONSE_HEADERS);
    return PW_CONTINUE;
}

/* ---- bodies ---- */

static enum pw_action mask(uint32_t ctx, enum pw_stream which, enum pw_buffer buffer, uint32_t size, bool end)
{
    struct stream *s = pw_state(ctx, sizeof *s);
    struct masker *m = &s->side[which].masker;

    if (!s->side[which].on) {
        return PW_CONTINUE;
    }
    PW_AUTO struct pw_str in = pw_get_buffer(buffer, 0, size);
    PW_AUTO struct pw_str out = {pw_alloc(in.n + 2 * HELD_MAX), 0};
    if (in.n != size || out.p == NULL) {
        __builtin_trap(); /* out of memory; never unmasked: the fail strategy decides */
    }
    bool waited = m->n != 0, found = false;
    out.n = masker_feed(m, &rules.rules, in.p, in.n, out.p, &found);
    if (end) {
        out.n += masker_end(m, &rules.rules, out.p + out.n, &found);
    }
    if (found) {
        pw_increment(masked_metric, 1);
    }
    if ((waited || found || out.n != in.n) && pw_set_buffer(buffer, 0, UINT32_MAX, out) != PW_OK) {
        pw_close(which);
        return PW_PAUSE;
    }
    return PW_CONTINUE;
}

enum pw_action pw_on_request_body(uint32_t ctx, uint32_t size, bool end)
{
    return mask(ctx, PW_REQUEST, PW_REQUEST_BODY, size, end);
}

enum pw_action pw_on_response_body(uint32_t ctx, uint32_t size, bool end)
{
    return mask(ctx, PW_RESPONSE, PW_RESPONSE_BODY, size, end);
}

/* With trailers no body callback had the end: what waits is put before them, where the gateway lets a filter do so;
 * else the stream is cut, since a body that lacks its last bytes must not look whole. */
static enum pw_action finish(uint32_t ctx, enum pw_stream which, enum pw_buffer buffer)
{
    struct stream *s = pw_state(ctx, sizeof *s);
    char rest[HELD_MAX];
    bool found = false;
    struct pw_str out = {rest, masker_end(&s->side[which].masker, &rules.rules, rest, &found)};

    if (out.n == 0) {
        return PW_CONTINUE;
    }
    pw_set_buffer(buffer, UINT32_MAX, 0, out);
    PW_AUTO struct pw_str held = pw_get_buffer(buffer, 0, UINT32_MAX); /* an ignored write may be answered with OK */
    if (held.n < out.n) {
        pw_log(PW_WARN, PW_STR("a body ends in digits before trailers: the stream is cut"));
        pw_close(which);
        return PW_PAUSE;
    }
    return PW_CONTINUE;
}

enum pw_action pw_on_request_trailers(uint32_t ctx, uint32_t count)
{
    (void)count;
    return finish(ctx, PW_REQUEST, PW_REQUEST_BODY);
}

enum pw_action pw_on_response_trailers(uint32_t ctx, uint32_t count)
{
    (void)count;
    return finish(ctx, PW_RESPONSE, PW_RESPONSE_BODY);
}

void pw_on_delete(uint32_t ctx) { pw_state_free(ctx); }
