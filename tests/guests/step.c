/* SPDX-License-Identifier: Apache-2.0
 *
 * A guest without a will of its own: each callback asks the test's host function "step" what to do and answers what it
 * says, so that a test can call any host function, with any arguments, from inside a real callback. Its allocator asks
 * "alloc" how to behave.
 *
 * -DABI=proxy_abi_version_0_1_0 and -DABI_0_1 for two-parameter header callbacks; -DONLY_MALLOC; -DCOMMAND for _start;
 * -DNO_BODY to export no body callbacks.
 */
#include <stddef.h>
#include <stdint.h>

#define EXPORT(name) __attribute__((export_name(#name)))
#ifndef ABI
#define ABI proxy_abi_version_0_2_1
#endif
#define STRING_(x) #x
#define STRING(x)  STRING_(x)

enum { INITIALIZE = 100, MAIN = 101, START = 102 };

__attribute__((import_module("test"), import_name("step"))) uint32_t step(uint32_t cb, uint32_t a, uint32_t b,
                                                                          uint32_t c, uint32_t d, uint32_t e);
__attribute__((import_module("test"), import_name("alloc"))) uint32_t alloc_mode(uint32_t n);

__attribute__((export_name(STRING(ABI)))) void ABI(void) {}

/* What tests read and write; they find it by its address. */
static char area[64 * 1024];
EXPORT(area) char *area_address(void) { return area; }

static char heap[512 * 1024];
static uint32_t heap_at;

static void *allocate(uint32_t n)
{
    switch (alloc_mode(n)) {
    case 1: return NULL;
    case 2: __builtin_trap();
    case 3: return (void *)0xfffffff0u;
    case 4: __builtin_wasm_memory_grow(0, 16); break;
    case 5:
        for (;;) {
            __asm__ volatile("");
        }
    default: break;
    }
    n = (n + 7) & ~7u;
    if (n > sizeof heap) {
        return NULL;
    }
    if (heap_at + n > sizeof heap) {
        heap_at = 0;
    }
    heap_at += n;
    return heap + heap_at - n;
}

#ifdef ONLY_MALLOC
EXPORT(malloc) void *guest_malloc(uint32_t n) { return allocate(n); }
#else
EXPORT(proxy_on_memory_allocate) void *guest_allocate(uint32_t n) { return allocate(n); }
EXPORT(malloc) void *guest_malloc(uint32_t n)
{
    (void)n;
    __builtin_trap(); /* the other one comes first */
}
#endif

#ifdef COMMAND
EXPORT(_start) void start(void) { step(START, 0, 0, 0, 0, 0); }
#else
EXPORT(_initialize) void initialize(void) { step(INITIALIZE, 0, 0, 0, 0, 0); }
EXPORT(main) uint32_t guest_main(uint32_t argc, uint32_t argv) { return step(MAIN, argc, argv, 0, 0, 0); }
#endif

/* Numbers as in enum plugin_callback. */
#ifdef ABI_0_1
EXPORT(proxy_on_request_headers) uint32_t request_headers(uint32_t ctx, uint32_t n) { return step(0, ctx, n, 0, 0, 0); }
EXPORT(proxy_on_response_headers) uint32_t response_headers(uint32_t ctx, uint32_t n)
{
    return step(3, ctx, n, 0, 0, 0);
}
#else
EXPORT(proxy_on_request_headers) uint32_t request_headers(uint32_t ctx, uint32_t n, uint32_t end)
{
    return step(0, ctx, n, end, 0, 0);
}
EXPORT(proxy_on_response_headers) uint32_t response_headers(uint32_t ctx, uint32_t n, uint32_t end)
{
    return step(3, ctx, n, end, 0, 0);
}
#endif
#ifndef NO_BODY
EXPORT(proxy_on_request_body) uint32_t request_body(uint32_t ctx, uint32_t n, uint32_t end)
{
    return step(1, ctx, n, end, 0, 0);
}
EXPORT(proxy_on_response_body) uint32_t response_body(uint32_t ctx, uint32_t n, uint32_t end)
{
    return step(4, ctx, n, end, 0, 0);
}
#endif
EXPORT(proxy_on_request_trailers) uint32_t request_trailers(uint32_t ctx, uint32_t n)
{
    return step(2, ctx, n, 0, 0, 0);
}
EXPORT(proxy_on_response_trailers) uint32_t response_trailers(uint32_t ctx, uint32_t n)
{
    return step(5, ctx, n, 0, 0, 0);
}
EXPORT(proxy_on_log) void on_log(uint32_t ctx) { step(6, ctx, 0, 0, 0, 0); }
EXPORT(proxy_on_http_call_response)
void call_response(uint32_t ctx, uint32_t id, uint32_t headers, uint32_t body, uint32_t trailers)
{
    step(7, ctx, id, headers, body, trailers);
}
EXPORT(proxy_on_tick) void on_tick(uint32_t ctx) { step(8, ctx, 0, 0, 0, 0); }
EXPORT(proxy_on_queue_ready) void on_queue_ready(uint32_t ctx, uint32_t queue) { step(9, ctx, queue, 0, 0, 0); }
EXPORT(proxy_on_done) uint32_t on_done(uint32_t ctx) { return step(10, ctx, 0, 0, 0, 0); }
EXPORT(proxy_on_delete) void on_delete(uint32_t ctx) { step(11, ctx, 0, 0, 0, 0); }
EXPORT(proxy_on_vm_start) uint32_t on_vm_start(uint32_t ctx, uint32_t n) { return step(12, ctx, n, 0, 0, 0); }
EXPORT(proxy_on_configure) uint32_t on_configure(uint32_t ctx, uint32_t n) { return step(13, ctx, n, 0, 0, 0); }
EXPORT(proxy_on_context_create) void on_context_create(uint32_t ctx, uint32_t parent)
{
    step(14, ctx, parent, 0, 0, 0);
}
