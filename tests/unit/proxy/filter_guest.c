/* SPDX-License-Identifier: Apache-2.0
 *
 * The filter of test_filter_wasm.c: does what the request's "x-do" header says, so that one module shows a plugin in
 * every mood.
 */
#include <stddef.h>
#include <stdint.h>

#define EXPORT(name) __attribute__((export_name(#name)))
#define IMPORT(name) __attribute__((import_module("env"), import_name(#name)))

IMPORT(proxy_get_header_map_value)
uint32_t get_header(uint32_t map, const char *key, uint32_t n, char **value, uint32_t *size);
IMPORT(proxy_add_header_map_value)
uint32_t add_header(uint32_t map, const char *key, uint32_t n, const char *value, uint32_t size);
IMPORT(proxy_send_local_response)
uint32_t send_reply(uint32_t status, const char *details, uint32_t details_n, const char *body, uint32_t body_n,
                    const char *headers, uint32_t headers_n, int32_t grpc);
IMPORT(proxy_http_call)
uint32_t http_call(const char *cluster, uint32_t n, const char *headers, uint32_t headers_n, const char *body,
                   uint32_t body_n, const char *trailers, uint32_t trailers_n, uint32_t ms, uint32_t *id);
IMPORT(proxy_set_effective_context) uint32_t set_context(uint32_t id);
IMPORT(proxy_continue_stream) uint32_t continue_stream(uint32_t which);
IMPORT(proxy_close_stream) uint32_t close_stream(uint32_t which);
IMPORT(proxy_set_tick_period_milliseconds) uint32_t set_tick(uint32_t ms);
IMPORT(proxy_get_property) uint32_t get_property(const char *path, uint32_t n, char **value, uint32_t *size);

static char heap[64 * 1024];
static uint32_t heap_at;
EXPORT(proxy_on_memory_allocate) void *allocate(uint32_t n)
{
    n = (n + 7) & ~7u;
    if (heap_at + n > sizeof heap)
        heap_at = 0;
    heap_at += n;
    return heap + heap_at - n;
}

EXPORT(proxy_abi_version_0_2_1) void abi_version(void) {}

static uint32_t length(const char *z)
{
    uint32_t n = 0;
    while (z[n] != 0)
        n++;
    return n;
}

static int is(const char *s, uint32_t n, const char *z)
{
    if (n != length(z))
        return 0;
    for (uint32_t i = 0; i < n; i++)
        if (s[i] != z[i])
            return 0;
    return 1;
}

/* :method GET, :path /check, :authority auth, as pairs (proxy-wasm.md 1.6). */
static const char call_headers[] = "\x03\0\0\0"
                                   "\x07\0\0\0\x03\0\0\0\x05\0\0\0\x06\0\0\0\x0a\0\0\0\x04\0\0\0"
                                   ":method\0GET\0:path\0/check\0:authority\0auth";
static uint32_t waiting[64]; /* contexts: of callouts by id's lower byte, of ticks from 32 on */
static uint32_t tick_waiting, answers_of_configure, configure_call;

static uint32_t call_out(void)
{
    uint32_t id = 0;
    return http_call("auth", 4, call_headers, sizeof call_headers, "", 0, "", 0, 5000, &id) == 0 ? id : 0;
}

EXPORT(proxy_on_configure) uint32_t on_configure(uint32_t ctx, uint32_t n)
{
    (void)ctx, (void)n;
    set_tick(10);
    configure_call = call_out();
    return 1;
}

static uint32_t property(void)
{
    char *path, *value;
    uint32_t n, size;

    if (get_header(0, "x-path", 6, &path, &n) != 0)
        return 0;
    for (uint32_t i = 0; i < n; i++)
        path[i] = path[i] == '.' ? 0 : path[i];
    uint32_t status = get_property(path, n, &value, &size);
    send_reply(status == 0 ? 200 : 404, "property", 8, value, status == 0 ? size : 0, "", 0, -1);
    return 1;
}

EXPORT(proxy_on_request_headers) uint32_t request_headers(uint32_t ctx, uint32_t n, uint32_t end)
{
    char *what;
    uint32_t size, id;

    (void)n, (void)end;
    add_header(0, "x-seen", 6, "1", 1);
    if (get_header(0, "x-do", 4, &what, &size) != 0)
        return 0;
    if (is(what, size, "trap"))
        __builtin_trap();
    if (is(what, size, "loop"))
        for (;;)
            __asm__ volatile("");
    if (is(what, size, "reply")) {
        send_reply(401, "no key", 6, "no key\n", 7, "", 0, -1);
        return 1;
    }
    if (is(what, size, "close")) {
        close_stream(0);
        return 0;
    }
    if (is(what, size, "call")) {
        id = call_out();
        waiting[id & 31] = ctx;
        return id != 0 ? 1 : 0;
    }
    if (is(what, size, "tick")) {
        waiting[32 + (tick_waiting++ & 31)] = ctx;
        return 1;
    }
    if (is(what, size, "forever"))
        return 1;
    if (is(what, size, "property"))
        return property();
    return 0;
}

EXPORT(proxy_on_http_call_response)
void call_response(uint32_t ctx, uint32_t id, uint32_t headers, uint32_t body, uint32_t trailers)
{
    char *status;
    uint32_t size;

    (void)ctx, (void)body, (void)trailers;
    if (id == configure_call) {
        answers_of_configure += headers != 0;
        return;
    }
    if (headers == 0 || get_header(6, ":status", 7, &status, &size) != 0)
        status = "none", size = 4;
    if (set_context(waiting[id & 31]) != 0)
        return;
    add_header(0, "x-auth", 6, status, size);
    continue_stream(0);
}

EXPORT(proxy_on_tick) void on_tick(uint32_t ctx)
{
    (void)ctx;
    while (tick_waiting > 0) {
        tick_waiting--;
        if (set_context(waiting[32 + (tick_waiting & 31)]) == 0)
            continue_stream(0);
    }
}

EXPORT(proxy_on_response_headers) uint32_t response_headers(uint32_t ctx, uint32_t n, uint32_t end)
{
    (void)ctx, (void)n, (void)end;
    add_header(2, "x-filter", 8, answers_of_configure != 0 ? "configured" : "1", answers_of_configure != 0 ? 10 : 1);
    return 0;
}
