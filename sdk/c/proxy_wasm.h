/* SPDX-License-Identifier: Apache-2.0
 *
 * Proxy-Wasm filters in C, with no libc. Define the callbacks that you need (section 2) and call what you like (section
 * 3); what you do not define is not exported, and the host leaves the filter out of that phase. ABI 0.2.1.
 *
 *      clang --target=wasm32 -O2 -nostdlib -ffreestanding -Wl,--no-entry -Wl,--allow-undefined \
 *            -o filter.wasm filter.c proxy_wasm.c
 *
 * Memory: what a getter returns (struct pw_str with p != NULL) is the filter's; give it back with pw_free_str, or
 * declare the variable PW_AUTO and it is done at the end of its scope.
 */
#ifndef PROXY_WASM_H
#define PROXY_WASM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- 1. types ---- */

enum pw_status {
    PW_OK = 0,
    PW_NOT_FOUND = 1,
    PW_BAD_ARGUMENT = 2,
    PW_SERIALIZATION_FAILURE = 3,
    PW_PARSE_FAILURE = 4,
    PW_INVALID_MEMORY_ACCESS = 6,
    PW_EMPTY = 7,
    PW_CAS_MISMATCH = 8,
    PW_INTERNAL_FAILURE = 10,
    PW_UNIMPLEMENTED = 12,
};
enum pw_log_level { PW_TRACE, PW_DEBUG, PW_INFO, PW_WARN, PW_ERROR, PW_CRITICAL };
/* What a callback answers. Header callbacks: CONTINUE or PAUSE. Body callbacks: PAUSE keeps the body and asks again
 * with all of it. */
enum pw_action { PW_CONTINUE = 0, PW_PAUSE = 1 };
enum pw_map {
    PW_REQUEST_HEADERS = 0,
    PW_REQUEST_TRAILERS = 1,
    PW_RESPONSE_HEADERS = 2,
    PW_RESPONSE_TRAILERS = 3,
    PW_CALL_HEADERS = 6,
    PW_CALL_TRAILERS = 7,
};
enum pw_buffer {
    PW_REQUEST_BODY = 0,
    PW_RESPONSE_BODY = 1,
    PW_CALL_BODY = 4,
    PW_VM_CONFIGURATION = 6,
    PW_PLUGIN_CONFIGURATION = 7,
};
enum pw_stream { PW_REQUEST = 0, PW_RESPONSE = 1 };
enum pw_metric_type { PW_COUNTER = 0, PW_GAUGE = 1, PW_HISTOGRAM = 2 };

/* Bytes with a length; not NUL-terminated. */
struct pw_str {
    char *p;
    uint32_t n;
};
struct pw_pair {
    struct pw_str name, value;
};

#ifdef __cplusplus
#define PW_STR(literal) (pw_str{const_cast<char *>(literal), sizeof(literal) - 1})
#else
#define PW_STR(literal) ((struct pw_str){(char *)(literal), sizeof(literal) - 1})
#endif
#define PW_AUTO __attribute__((cleanup(pw_free_str)))

/* ---- 2. callbacks: define those that you need ---- */

#define PW_EXPORT(name) __attribute__((export_name(name), visibility("default")))

PW_EXPORT("proxy_on_context_create")
void pw_on_context_create(uint32_t ctx, uint32_t root); /* root 0: ctx is the root */
PW_EXPORT("proxy_on_vm_start") bool pw_on_vm_start(uint32_t root, uint32_t config_size);
PW_EXPORT("proxy_on_configure") bool pw_on_configure(uint32_t root, uint32_t config_size);
PW_EXPORT("proxy_on_tick") void pw_on_tick(uint32_t root);
PW_EXPORT("proxy_on_queue_ready") void pw_on_queue_ready(uint32_t root, uint32_t queue);
/* headers 0: the call failed. */
PW_EXPORT("proxy_on_http_call_response")
void pw_on_http_call_response(uint32_t root, uint32_t call, uint32_t headers, uint32_t body_size, uint32_t trailers);
PW_EXPORT("proxy_on_request_headers") enum pw_action pw_on_request_headers(uint32_t ctx, uint32_t count, bool end);
PW_EXPORT("proxy_on_request_body") enum pw_action pw_on_request_body(uint32_t ctx, uint32_t size, bool end);
PW_EXPORT("proxy_on_request_trailers") enum pw_action pw_on_request_trailers(uint32_t ctx, uint32_t count);
PW_EXPORT("proxy_on_response_headers") enum pw_action pw_on_response_headers(uint32_t ctx, uint32_t count, bool end);
PW_EXPORT("proxy_on_response_body") enum pw_action pw_on_response_body(uint32_t ctx, uint32_t size, bool end);
PW_EXPORT("proxy_on_response_trailers") enum pw_action pw_on_response_trailers(uint32_t ctx, uint32_t count);
PW_EXPORT("proxy_on_log") void pw_on_log(uint32_t ctx);
PW_EXPORT("proxy_on_done") bool pw_on_done(uint32_t ctx);
PW_EXPORT("proxy_on_delete") void pw_on_delete(uint32_t ctx);

/* ---- 3. what a filter can do ---- */

void pw_log(enum pw_log_level level, struct pw_str text);
/* printf with %s (const char *), %S (struct pw_str), %u, %d, %x, %c and %%; a line is cut at 1,024 bytes. */
void pw_logf(enum pw_log_level level, const char *fmt, ...);
uint64_t pw_now_ns(void); /* wall clock */

/* Headers. Names are lower case; ":method", ":path", ":authority", ":scheme", ":status" are among them. */
struct pw_str pw_get_header(enum pw_map map,
                            const char *name); /* p NULL: not there, or empty; tell apart with pw_find_header */
bool pw_find_header(enum pw_map map, const char *name, struct pw_str *value);
enum pw_status pw_set_header(enum pw_map map, const char *name, struct pw_str value);
enum pw_status pw_add_header(enum pw_map map, const char *name, struct pw_str value);
enum pw_status pw_remove_header(enum pw_map map, const char *name);
/* All of them: *block holds list and bytes (pw_free); NULL and 0 when there are none. */
uint32_t pw_get_pairs(enum pw_map map, struct pw_pair **list, void **block);
enum pw_status pw_set_pairs(enum pw_map map, const struct pw_pair *list, uint32_t count);

/* Body, configuration, a callout's answer. */
struct pw_str pw_get_buffer(enum pw_buffer buffer, uint32_t start, uint32_t size);
enum pw_status pw_set_buffer(enum pw_buffer buffer, uint32_t start, uint32_t size, struct pw_str data);
struct pw_str pw_get_config(void); /* all of the plugin's configuration */

/* Answers the client; what the callback then returns does not matter. */
void pw_reply(uint32_t status, const char *details, struct pw_str body, const struct pw_pair *headers, uint32_t count);
/* Goes on after a PAUSE; from a callout's answer or a tick, call pw_set_effective(ctx) first. */
void pw_continue(enum pw_stream stream);
void pw_close(enum pw_stream stream);
enum pw_status pw_set_effective(uint32_t ctx);

/* Segments of a path are separated by '.' here: "request.path". For names with a dot, see the _raw forms. */
struct pw_str pw_get_property(const char *path);
enum pw_status pw_set_property(const char *path, struct pw_str value);
enum pw_status pw_get_property_raw(struct pw_str path, struct pw_str *value);
bool pw_get_property_int(const char *path, int64_t *value);

/* Asks cluster; the answer comes to pw_on_http_call_response with this id. 0: refused (*status says why, may be NULL).
 */
uint32_t pw_http_call(const char *cluster, const struct pw_pair *headers, uint32_t count, struct pw_str body,
                      uint32_t timeout_ms, enum pw_status *status);

enum pw_status pw_set_tick(uint32_t period_ms);

/* Shared by all VMs of this vm_id. cas 0: unconditional. */
enum pw_status pw_get_shared(struct pw_str key, struct pw_str *value, uint32_t *cas);
enum pw_status pw_set_shared(struct pw_str key, struct pw_str value, uint32_t cas);
enum pw_status pw_register_queue(const char *name, uint32_t *queue);
enum pw_status pw_resolve_queue(const char *vm_id, const char *name, uint32_t *queue);
enum pw_status pw_enqueue(uint32_t queue, struct pw_str value);
enum pw_status pw_dequeue(uint32_t queue, struct pw_str *value);

uint32_t pw_define_metric(enum pw_metric_type type, const char *name);
enum pw_status pw_increment(uint32_t metric, int64_t by);
enum pw_status pw_record(uint32_t metric, uint64_t value);
uint64_t pw_get_metric(uint32_t metric);

/* "compress", "uncompress", "clear_route_cache", "set_envoy_filter_state", ... result may be NULL. */
enum pw_status pw_foreign(const char *name, struct pw_str args, struct pw_str *result);

/* State of a stream: zeroed memory of size bytes, made on first use; free it in pw_on_delete. */
void *pw_state(uint32_t ctx, uint32_t size);
void pw_state_free(uint32_t ctx);

/* ---- 4. in place of a libc ---- */

void *pw_alloc(uint32_t n); /* 8-byte aligned; NULL when memory is out */
void pw_free(void *p);
void pw_free_str(struct pw_str *s);
struct pw_str pw_z(const char *z); /* borrows */
bool pw_eq(struct pw_str a, struct pw_str b);
bool pw_starts(struct pw_str s, struct pw_str prefix);
int32_t pw_find(struct pw_str s, struct pw_str needle); /* -1: not there */
/* Decimal text of v in buf (room for 21); returns it. */
struct pw_str pw_format_u64(uint64_t v, char *buf);
bool pw_parse_u64(struct pw_str s, uint64_t *out);

void *memcpy(void *dst, const void *src, size_t n);
void *memmove(void *dst, const void *src, size_t n);
void *memset(void *dst, int c, size_t n);
int memcmp(const void *a, const void *b, size_t n);
size_t strlen(const char *z);

#ifdef __cplusplus
}
#endif
#endif
