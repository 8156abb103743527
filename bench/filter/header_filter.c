/* SPDX-License-Identifier: Apache-2.0
 *
 * The filter that the bench measures: two callbacks and five host calls a request, two of which make the host allocate
 * in the guest. It speaks the raw ABI, with no SDK, so that every host runs the same few instructions of guest code and
 * the difference between hosts is the hosts. peers/ has the same edits in Lua for nginx and HAProxy.
 *
 * Nothing that the host writes here outlives a callback, so the heap is one block that starts afresh in each of them:
 * memory must never grow with the number of requests. The plugin configuration is the value of the response header.
 */
#include <stddef.h>
#include <stdint.h>

#define IMPORT(name)  __attribute__((import_module("env"), import_name(name)))
#define EXPORT(name)  __attribute__((export_name(name), visibility("default")))
#define TEXT(literal) (literal), (sizeof(literal) - 1)

enum { STATUS_OK = 0 };
enum { ACTION_CONTINUE = 0 };
enum { MAP_REQUEST_HEADERS = 0, MAP_RESPONSE_HEADERS = 2 };
enum { BUFFER_PLUGIN_CONFIGURATION = 7 };
enum { HEAP_SIZE = 32 * 1024, MARK_MAX = 128 };

IMPORT("proxy_get_header_map_value")
uint32_t get_header(uint32_t map, const char *name, size_t name_n, const char **value, size_t *value_n);
IMPORT("proxy_add_header_map_value")
uint32_t add_header(uint32_t map, const char *name, size_t name_n, const char *value, size_t value_n);
IMPORT("proxy_replace_header_map_value")
uint32_t replace_header(uint32_t map, const char *name, size_t name_n, const char *value, size_t value_n);
IMPORT("proxy_get_buffer_bytes")
uint32_t get_buffer(uint32_t buffer, size_t start, size_t max, const char **bytes, size_t *n);

static _Alignas(16) char heap[HEAP_SIZE];
static size_t heap_used;
static char mark[MARK_MAX] = "on"; /* what x-bench-filter says */
static size_t mark_n = 2;

EXPORT("proxy_on_memory_allocate") void *proxy_on_memory_allocate(size_t n)
{
    if (n > HEAP_SIZE - heap_used)
        return NULL;
    char *p = heap + heap_used;
    heap_used += (n + 15) & ~(size_t)15;
    return p;
}

EXPORT("proxy_abi_version_0_2_0") void proxy_abi_version_0_2_0(void) {}

EXPORT("proxy_on_context_create") void proxy_on_context_create(uint32_t context, uint32_t root)
{
    (void)context, (void)root;
}

EXPORT("proxy_on_vm_start") uint32_t proxy_on_vm_start(uint32_t root, uint32_t config_n)
{
    (void)root, (void)config_n;
    return 1;
}

EXPORT("proxy_on_configure") uint32_t proxy_on_configure(uint32_t root, uint32_t config_n)
{
    (void)root;
    const char *bytes = NULL;
    size_t n = 0;
    heap_used = 0;
    if (config_n == 0)
        return 1;
    if (get_buffer(BUFFER_PLUGIN_CONFIGURATION, 0, config_n, &bytes, &n) != STATUS_OK || n > MARK_MAX)
        return 0;
    for (size_t i = 0; i < n; i++)
        mark[i] = bytes[i];
    mark_n = n;
    return 1;
}

EXPORT("proxy_on_request_headers")
uint32_t proxy_on_request_headers(uint32_t context, uint32_t count, uint32_t end_of_stream)
{
    (void)context, (void)count, (void)end_of_stream;
    const char *tenant = NULL;
    size_t n = 0;
    heap_used = 0;
    if (get_header(MAP_REQUEST_HEADERS, TEXT("x-tenant"), &tenant, &n) == STATUS_OK && n != 0)
        replace_header(MAP_REQUEST_HEADERS, TEXT("x-tenant"), TEXT("checked"));
    add_header(MAP_REQUEST_HEADERS, TEXT("x-bench-hop"), TEXT("1"));
    return ACTION_CONTINUE;
}

EXPORT("proxy_on_response_headers")
uint32_t proxy_on_response_headers(uint32_t context, uint32_t count, uint32_t end_of_stream)
{
    (void)context, (void)count, (void)end_of_stream;
    const char *type = NULL;
    size_t n = 0;
    heap_used = 0;
    if (get_header(MAP_RESPONSE_HEADERS, TEXT("content-type"), &type, &n) == STATUS_OK && n != 0)
        add_header(MAP_RESPONSE_HEADERS, TEXT("x-bench-filter"), mark, mark_n);
    return ACTION_CONTINUE;
}
