/* SPDX-License-Identifier: Apache-2.0
 *
 * Uses every function of the C SDK and checks what it gets; a line "FAIL ..." in the log is a failure. A header "x-do:
 * reply" asks for a local reply, "x-do: pause" for a callout that continues the stream.
 */
#include "proxy_wasm.h"

#define CHECK(cond)                                                                                                    \
    do {                                                                                                               \
        if (!(cond)) {                                                                                                 \
            pw_logf(PW_ERROR, "FAIL %u: %s", (uint32_t)__LINE__, #cond);                                               \
        }                                                                                                              \
    } while (0)

struct state {
    uint32_t requests, sum;
};
static uint32_t counter, gauge, queue, paused_ctx;

static void check_memory(void)
{
    char *blocks[40];

    for (uint32_t round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < 40; i++) {
            blocks[i] = pw_alloc(1 + i * 97);
            CHECK(blocks[i] != NULL && ((uintptr_t)blocks[i] & 7) == 0);
            memset(blocks[i], (int)i, 1 + i * 97);
        }
        for (uint32_t i = 0; i < 40; i++) {
            for (uint32_t at = 0; at < 1 + i * 97; at += 13) {
                CHECK(blocks[i][at] == (char)i);
            }
            pw_free(blocks[i]);
        }
    }
    char *big = pw_alloc(3 * 1024 * 1024);
    CHECK(big != NULL);
    big[3 * 1024 * 1024 - 1] = 1;
    pw_free(big);
    CHECK(pw_alloc(3 * 1024 * 1024) == big);
    CHECK(pw_alloc(0x7fffffff) == NULL);
    pw_free(big);
}

static void check_bytes(void)
{
    char text[] = "abcdefgh", digits[21];
    uint64_t v = 0;

    memmove(text + 2, text, 5);
    CHECK(memcmp(text, "ababcdeh", 8) == 0);
    memmove(text, text + 2, 5);
    CHECK(memcmp(text, "abcdedeh", 8) == 0);
    CHECK(memcmp("a", "b", 1) < 0 && memcmp("b", "a", 1) > 0 && strlen("xyz") == 3);
    CHECK(pw_find(PW_STR("hello"), PW_STR("ll")) == 2 && pw_find(PW_STR("hello"), PW_STR("x")) == -1);
    CHECK(pw_find(PW_STR("a"), PW_STR("ab")) == -1);
    CHECK(pw_starts(PW_STR("hello"), PW_STR("he")) && !pw_starts(PW_STR("h"), PW_STR("he")));
    CHECK(pw_eq(pw_format_u64(18446744073709551615u, digits), PW_STR("18446744073709551615")));
    CHECK(pw_parse_u64(PW_STR("18446744073709551615"), &v) && v == UINT64_MAX);
    CHECK(!pw_parse_u64(PW_STR("18446744073709551616"), &v) && !pw_parse_u64(PW_STR("1x"), &v) &&
          !pw_parse_u64(PW_STR(""), &v));
}

bool pw_on_vm_start(uint32_t root, uint32_t size)
{
    CHECK(root == 1 && size == 0);
    check_memory();
    check_bytes();
    return true;
}

bool pw_on_configure(uint32_t root, uint32_t size)
{
    (void)root;
    PW_AUTO struct pw_str config = pw_get_config();
    CHECK(config.n == size && pw_eq(config, PW_STR("{\"a\":1}")));
    PW_AUTO struct pw_str name = pw_get_property("plugin_name");
    CHECK(pw_eq(name, PW_STR("ns.test")));
    counter = pw_define_metric(PW_COUNTER, "sdk_requests");
    gauge = pw_define_metric(PW_GAUGE, "sdk_level");
    CHECK(pw_register_queue("sdk", &queue) == PW_OK && queue != 0);
    CHECK(pw_set_tick(1000) == PW_OK);
    pw_logf(PW_INFO, "up %s %S %u %d %x %c%%", "s", config, 42u, -7, 0xbeefu, 'c');
    return true;
}

static void check_headers(void)
{
    struct pw_str value;
    struct pw_pair *list;
    void *block;

    CHECK(pw_find_header(PW_REQUEST_HEADERS, "empty", &value) && value.n == 0);
    CHECK(!pw_find_header(PW_REQUEST_HEADERS, "absent", &value));
    CHECK(pw_set_header(PW_REQUEST_HEADERS, "x-set", PW_STR("1")) == PW_OK);
    CHECK(pw_add_header(PW_REQUEST_HEADERS, "x-set", PW_STR("2")) == PW_OK);
    uint32_t n = pw_get_pairs(PW_REQUEST_HEADERS, &list, &block);
    CHECK(n >= 6 && pw_eq(list[n - 1].name, PW_STR("x-set")) && pw_eq(list[n - 1].value, PW_STR("2")));
    list[n - 1].value = PW_STR("two");
    CHECK(pw_set_pairs(PW_REQUEST_HEADERS, list, n) == PW_OK);
    pw_free(block);
    CHECK(pw_remove_header(PW_REQUEST_HEADERS, "empty") == PW_OK);
    CHECK(pw_get_pairs(PW_RESPONSE_TRAILERS, &list, &block) == 0 && block == NULL);
}

static void check_shared(void)
{
    uint32_t cas = 0, found = 0;
    struct pw_str value;

    CHECK(pw_set_shared(PW_STR("k"), PW_STR("v1"), 0) == PW_OK);
    CHECK(pw_get_shared(PW_STR("k"), &value, &cas) == PW_OK && pw_eq(value, PW_STR("v1")));
    pw_free_str(&value);
    CHECK(pw_set_shared(PW_STR("k"), PW_STR("v2"), cas + 1) == PW_CAS_MISMATCH);
    CHECK(pw_enqueue(queue, PW_STR("item")) == PW_OK);
    CHECK(pw_resolve_queue("", "sdk", &found) == PW_OK && found == queue);
    CHECK(pw_dequeue(queue, &value) == PW_OK && pw_eq(value, PW_STR("item")));
    pw_free_str(&value);
    CHECK(pw_dequeue(queue, &value) == PW_EMPTY);
}

static void check_rest(void)
{
    int64_t number = 0;
    struct pw_str packed, text;
    uint64_t before = pw_get_metric(counter);

    CHECK(pw_increment(counter, 2) == PW_OK && pw_get_metric(counter) == before + 2);
    CHECK(pw_record(gauge, 9) == PW_OK && pw_get_metric(gauge) == 9);
    CHECK(pw_set_property("my.number", (struct pw_str){(char *)"\5\0\0\0\0\0\0\0", 8}) == PW_OK);
    CHECK(pw_get_property_int("my.number", &number) && number == 5);
    CHECK(!pw_get_property_int("my.absent", &number));
    CHECK(pw_foreign("compress", PW_STR("aaaaaaaaaaaaaaaa"), &packed) == PW_OK);
    CHECK(pw_foreign("uncompress", packed, &text) == PW_OK && pw_eq(text, PW_STR("aaaaaaaaaaaaaaaa")));
    pw_free_str(&packed);
    pw_free_str(&text);
    CHECK(pw_foreign("clear_route_cache", PW_STR(""), NULL) == PW_OK);
    CHECK(pw_foreign("nothing", PW_STR(""), NULL) == PW_NOT_FOUND);
    CHECK(pw_now_ns() > 0);
}

enum pw_action pw_on_request_headers(uint32_t ctx, uint32_t count, bool end)
{
    struct state *s = pw_state(ctx, sizeof *s);
    PW_AUTO struct pw_str todo = pw_get_header(PW_REQUEST_HEADERS, "x-do");

    (void)end;
    CHECK(count >= 4 && s->requests == 0);
    s->requests++;
    if (pw_eq(todo, PW_STR("reply"))) {
        struct pw_pair header = {PW_STR("x-why"), PW_STR("asked")};
        pw_reply(418, "asked for", PW_STR("short and stout"), &header, 1);
        return PW_PAUSE;
    }
    if (pw_eq(todo, PW_STR("pause"))) {
        struct pw_pair headers[] = {
            {PW_STR(":method"), PW_STR("GET")}, {PW_STR(":path"), PW_STR("/")}, {PW_STR(":authority"), PW_STR("auth")}};
        enum pw_status status;
        CHECK(pw_http_call("auth", headers, 3, PW_STR("ping"), 100, &status) != 0 && status == PW_OK);
        CHECK(pw_http_call("auth", headers, 2, PW_STR("ping"), 100, &status) == 0 && status == PW_BAD_ARGUMENT);
        paused_ctx = ctx;
        return PW_PAUSE;
    }
    check_headers();
    check_shared();
    check_rest();
    return PW_CONTINUE;
}

enum pw_action pw_on_request_body(uint32_t ctx, uint32_t size, bool end)
{
    struct state *s = pw_state(ctx, sizeof *s);

    CHECK(s->requests == 1);
    s->sum += size;
    if (!end) {
        return PW_PAUSE;
    }
    PW_AUTO struct pw_str body = pw_get_buffer(PW_REQUEST_BODY, 0, UINT32_MAX);
    CHECK(body.n == size);
    CHECK(pw_set_buffer(PW_REQUEST_BODY, 0, UINT32_MAX, PW_STR("changed")) == PW_OK);
    return PW_CONTINUE;
}

void pw_on_http_call_response(uint32_t root, uint32_t call, uint32_t headers, uint32_t body_size, uint32_t trailers)
{
    CHECK(root == 1 && call != 0 && headers == 0 && body_size == 0 && trailers == 0);
    CHECK(pw_set_effective(paused_ctx) == PW_OK);
    CHECK(pw_set_header(PW_REQUEST_HEADERS, "x-called", PW_STR("1")) == PW_OK);
    pw_continue(PW_REQUEST);
}

void pw_on_tick(uint32_t root)
{
    CHECK(root == 1 && pw_set_effective(12345) == PW_BAD_ARGUMENT);
    pw_close(PW_REQUEST);
}

void pw_on_delete(uint32_t ctx) { pw_state_free(ctx); }
