/* SPDX-License-Identifier: Apache-2.0
 *
 * The library behind proxy_wasm.h: imports, an allocator, and wrappers. It runs with no libc and must never call one;
 * its copies of memcpy and the like are weak, so that a filter may bring its own.
 */
#include "proxy_wasm.h"

#include <stdarg.h>

#define IMPORT(name) __attribute__((import_module("env"), import_name(#name))) uint32_t name
#define WEAK         __attribute__((weak))

IMPORT(proxy_log)(uint32_t level, const char *p, uint32_t n);
IMPORT(proxy_get_current_time_nanoseconds)(uint64_t *ns);
IMPORT(proxy_set_tick_period_milliseconds)(uint32_t ms);
IMPORT(proxy_get_property)(const char *p, uint32_t n, char **v, uint32_t *vn);
IMPORT(proxy_set_property)(const char *p, uint32_t n, const char *v, uint32_t vn);
IMPORT(proxy_get_buffer_bytes)(uint32_t type, uint32_t start, uint32_t max, char **v, uint32_t *vn);
IMPORT(proxy_set_buffer_bytes)(uint32_t type, uint32_t start, uint32_t size, const char *v, uint32_t vn);
IMPORT(proxy_get_header_map_pairs)(uint32_t map, char **v, uint32_t *vn);
IMPORT(proxy_set_header_map_pairs)(uint32_t map, const char *v, uint32_t vn);
IMPORT(proxy_get_header_map_value)(uint32_t map, const char *k, uint32_t kn, char **v, uint32_t *vn);
IMPORT(proxy_add_header_map_value)(uint32_t map, const char *k, uint32_t kn, const char *v, uint32_t vn);
IMPORT(proxy_replace_header_map_value)(uint32_t map, const char *k, uint32_t kn, const char *v, uint32_t vn);
IMPORT(proxy_remove_header_map_value)(uint32_t map, const char *k, uint32_t kn);
IMPORT(proxy_send_local_response)
(uint32_t code, const char *details, uint32_t dn, const char *body, uint32_t bn, const char *headers, uint32_t hn,
 int32_t grpc_status);
IMPORT(proxy_continue_stream)(uint32_t stream);
IMPORT(proxy_close_stream)(uint32_t stream);
IMPORT(proxy_http_call)
(const char *cluster, uint32_t cn, const char *headers, uint32_t hn, const char *body, uint32_t bn,
 const char *trailers, uint32_t tn, uint32_t timeout_ms, uint32_t *id);
IMPORT(proxy_set_shared_data)(const char *k, uint32_t kn, const char *v, uint32_t vn, uint32_t cas);
IMPORT(proxy_get_shared_data)(const char *k, uint32_t kn, char **v, uint32_t *vn, uint32_t *cas);
IMPORT(proxy_register_shared_queue)(const char *name, uint32_t n, uint32_t *id);
IMPORT(proxy_resolve_shared_queue)(const char *vm, uint32_t vn, const char *name, uint32_t n, uint32_t *id);
IMPORT(proxy_enqueue_shared_queue)(uint32_t id, const char *v, uint32_t vn);
IMPORT(proxy_dequeue_shared_queue)(uint32_t id, char **v, uint32_t *vn);
IMPORT(proxy_define_metric)(uint32_t type, const char *name, uint32_t n, uint32_t *id);
IMPORT(proxy_increment_metric)(uint32_t id, int64_t delta);
IMPORT(proxy_record_metric)(uint32_t id, uint64_t value);
IMPORT(proxy_get_metric)(uint32_t id, uint64_t *value);
IMPORT(proxy_set_effective_context)(uint32_t ctx);
IMPORT(proxy_call_foreign_function)
(const char *name, uint32_t n, const char *args, uint32_t an, char **v, uint32_t *vn);

PW_EXPORT("proxy_abi_version_0_2_1") void proxy_abi_version_0_2_1(void);
void proxy_abi_version_0_2_1(void) {}

/* ---- bytes ---- */

WEAK __attribute__((no_builtin)) void *memcpy(void *dst, const void *src, size_t n)
{
    char *d = dst;
    const char *s = src;

    if ((((uintptr_t)d | (uintptr_t)s) & 3) == 0) {
        for (; n >= 4; n -= 4, d += 4, s += 4) {
            *(uint32_t *)(void *)d = *(const uint32_t *)(const void *)s;
        }
    }
    while (n-- != 0) {
        *d++ = *s++;
    }
    return dst;
}

WEAK __attribute__((no_builtin)) void *memmove(void *dst, const void *src, size_t n)
{
    char *d = dst;
    const char *s = src;

    if ((uintptr_t)d - (uintptr_t)s >= n) {
        return memcpy(dst, src, n);
    }
    while (n-- != 0) {
        d[n] = s[n];
    }
    return dst;
}

WEAK __attribute__((no_builtin)) void *memset(void *dst, int c, size_t n)
{
    for (char *d = dst; n != 0; n--) {
        *d++ = (char)c;
    }
    return dst;
}

WEAK __attribute__((no_builtin)) int memcmp(const void *a, const void *b, size_t n)
{
    const unsigned char *x = a, *y = b;

    for (; n != 0; n--, x++, y++) {
        if (*x != *y) {
            return *x < *y ? -1 : 1;
        }
    }
    return 0;
}

WEAK __attribute__((no_builtin)) size_t strlen(const char *z)
{
    size_t n = 0;

    while (z[n] != 0) {
        n++;
    }
    return n;
}

struct pw_str pw_z(const char *z) { return (struct pw_str){(char *)z, z != NULL ? strlen(z) : 0}; }

bool pw_eq(struct pw_str a, struct pw_str b) { return a.n == b.n && memcmp(a.p, b.p, a.n) == 0; }

bool pw_starts(struct pw_str s, struct pw_str prefix)
{
    return s.n >= prefix.n && memcmp(s.p, prefix.p, prefix.n) == 0;
}

int32_t pw_find(struct pw_str s, struct pw_str needle)
{
    for (uint32_t i = 0; i + needle.n <= s.n; i++) {
        if (memcmp(s.p + i, needle.p, needle.n) == 0) {
            return (int32_t)i;
        }
    }
    return -1;
}

struct pw_str pw_format_u64(uint64_t v, char *buf)
{
    char reversed[20];
    uint32_t n = 0;

    do {
        reversed[n++] = (char)('0' + v % 10);
        v /= 10;
    } while (v != 0);
    for (uint32_t i = 0; i < n; i++) {
        buf[i] = reversed[n - 1 - i];
    }
    buf[n] = 0;
    return (struct pw_str){buf, n};
}

bool pw_parse_u64(struct pw_str s, uint64_t *out)
{
    uint64_t v = 0;

    for (uint32_t i = 0; i < s.n; i++) {
        uint64_t digit = (uint64_t)(unsigned char)s.p[i] - '0';
        if (digit > 9 || v > (UINT64_MAX - digit) / 10) {
            return false;
        }
        v = v * 10 + digit;
    }
    *out = v;
    return s.n != 0;
}

/* ---- memory: a free list for each power of two, new blocks from the end of the heap ---- */

extern unsigned char __heap_base;

enum { CLASS_MIN = 4 /* 16 bytes */, CLASS_MAX = 31, HEADER = 8 };

union block {
    struct {
        uint32_t class_;
        union block *next;
    } h;
    uint64_t align;
};
static union block *free_blocks[CLASS_MAX];
static uintptr_t heap_at;

static void *heap_take(uint32_t n)
{
    if (heap_at == 0) {
        heap_at = ((uintptr_t)&__heap_base + 15) & ~(uintptr_t)15;
    }
    uint64_t end = (uint64_t)heap_at + n, have = (uint64_t)__builtin_wasm_memory_size(0) * 65536;
    if (end > have) {
        uint32_t pages = (uint32_t)((end - have + 65535) / 65536);
        if (end > UINT32_MAX || __builtin_wasm_memory_grow(0, pages) == (size_t)-1) {
            return NULL;
        }
    }
    void *p = (void *)heap_at;
    heap_at = (uintptr_t)end;
    return p;
}

void *pw_alloc(uint32_t n)
{
    if (n > (1u << (CLASS_MAX - 1)) - HEADER) {
        return NULL;
    }
    uint32_t need = n + HEADER, class_ = CLASS_MIN;
    if (need > 16) {
        class_ = 32 - (uint32_t)__builtin_clz(need - 1);
    }
    union block *b = free_blocks[class_];
    if (b != NULL) {
        free_blocks[class_] = b->h.next;
    } else {
        b = heap_take(1u << class_);
        if (b == NULL) {
            return NULL;
        }
        b->h.class_ = class_;
    }
    return (char *)b + HEADER;
}

void pw_free(void *p)
{
    if (p != NULL) {
        union block *b = (union block *)(void *)((char *)p - HEADER);
        b->h.next = free_blocks[b->h.class_];
        free_blocks[b->h.class_] = b;
    }
}

void pw_free_str(struct pw_str *s)
{
    pw_free(s->p);
    *s = (struct pw_str){NULL, 0};
}

PW_EXPORT("proxy_on_memory_allocate") void *proxy_on_memory_allocate(uint32_t n);
void *proxy_on_memory_allocate(uint32_t n) { return pw_alloc(n); }

/* ---- log ---- */

void pw_log(enum pw_log_level level, struct pw_str text) { proxy_log(level, text.p, text.n); }

struct line {
    char p[1024];
    uint32_t n;
};

static void line_add(struct line *l, struct pw_str s)
{
    uint32_t n = s.n < sizeof l->p - l->n ? s.n : sizeof l->p - l->n;

    memcpy(l->p + l->n, s.p, n);
    l->n += n;
}

static void line_add_hex(struct line *l, uint32_t v)
{
    for (int shift = 28; shift >= 0; shift -= 4) {
        if (v >> shift != 0 || shift == 0) {
            line_add(l, (struct pw_str){(char *)&"0123456789abcdef"[(v >> shift) & 15], 1});
        }
    }
}

static void line_add_number(struct line *l, uint64_t v)
{
    char digits[21];

    line_add(l, pw_format_u64(v, digits));
}

void pw_logf(enum pw_log_level level, const char *fmt, ...)
{
    struct line l;
    va_list args;

    l.n = 0;
    va_start(args, fmt);
    for (const char *f = fmt; *f != 0; f++) {
        if (*f != '%' || f[1] == 0) {
            line_add(&l, (struct pw_str){(char *)f, 1});
            continue;
        }
        switch (*++f) {
        case 's': line_add(&l, pw_z(va_arg(args, const char *))); break;
        case 'S': line_add(&l, va_arg(args, struct pw_str)); break;
        case 'u': line_add_number(&l, va_arg(args, uint32_t)); break;
        case 'd': {
            int32_t v = va_arg(args, int32_t);
            if (v < 0) {
                line_add(&l, PW_STR("-"));
            }
            line_add_number(&l, v < 0 ? (uint64_t)(-(int64_t)v) : (uint64_t)v);
            break;
        }
        case 'x': line_add_hex(&l, va_arg(args, uint32_t)); break;
        case 'c': line_add(&l, (struct pw_str){(char[]){(char)va_arg(args, int)}, 1}); break;
        default: line_add(&l, (struct pw_str){(char *)f, 1}); break;
        }
    }
    va_end(args);
    proxy_log(level, l.p, l.n);
}

uint64_t pw_now_ns(void)
{
    uint64_t ns = 0;

    proxy_get_current_time_nanoseconds(&ns);
    return ns;
}

/* ---- headers ---- */

bool pw_find_header(enum pw_map map, const char *name, struct pw_str *value)
{
    *value = (struct pw_str){NULL, 0};
    return proxy_get_header_map_value(map, name, strlen(name), &value->p, &value->n) == PW_OK;
}

struct pw_str pw_get_header(enum pw_map map, const char *name)
{
    struct pw_str value;

    pw_find_header(map, name, &value);
    return value;
}

enum pw_status pw_set_header(enum pw_map map, const char *name, struct pw_str value)
{
    return (enum pw_status)proxy_replace_header_map_value(map, name, strlen(name), value.p, value.n);
}

enum pw_status pw_add_header(enum pw_map map, const char *name, struct pw_str value)
{
    return (enum pw_status)proxy_add_header_map_value(map, name, strlen(name), value.p, value.n);
}

enum pw_status pw_remove_header(enum pw_map map, const char *name)
{
    return (enum pw_status)proxy_remove_header_map_value(map, name, strlen(name));
}

static uint32_t load_u32(const char *p)
{
    uint32_t v;

    memcpy(&v, p, 4);
    return v;
}

uint32_t pw_get_pairs(enum pw_map map, struct pw_pair **list, void **block)
{
    struct pw_str data = {NULL, 0};

    *list = NULL;
    *block = NULL;
    proxy_get_header_map_pairs(map, &data.p, &data.n);
    uint32_t count = data.n >= 4 ? load_u32(data.p) : 0;
    char *copy = count != 0 ? pw_alloc(count * (uint32_t)sizeof(struct pw_pair) + data.n) : NULL;
    if (copy == NULL) {
        pw_free(data.p);
        return 0;
    }
    struct pw_pair *pairs = (struct pw_pair *)(void *)copy;
    char *bytes = copy + count * sizeof *pairs, *at = bytes + 4 + count * 8;
    memcpy(bytes, data.p, data.n);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t name = load_u32(bytes + 4 + i * 8), value = load_u32(bytes + 8 + i * 8);
        pairs[i] = (struct pw_pair){{at, name}, {at + name + 1, value}};
        at += name + value + 2;
    }
    pw_free(data.p);
    *list = pairs;
    *block = copy;
    return count;
}

static char *store_u32(char *p, uint32_t v)
{
    memcpy(p, &v, 4);
    return p + 4;
}

static char *store_z(char *p, struct pw_str s)
{
    memcpy(p, s.p, s.n);
    p[s.n] = 0;
    return p + s.n + 1;
}

static struct pw_str serialise(const struct pw_pair *list, uint32_t count)
{
    uint32_t n = 4;

    if (count == 0) {
        return (struct pw_str){NULL, 0};
    }
    for (uint32_t i = 0; i < count; i++) {
        n += 8 + list[i].name.n + 1 + list[i].value.n + 1;
    }
    char *p = pw_alloc(n);
    if (p == NULL) {
        __builtin_trap();
    }
    char *at = store_u32(p, count);
    for (uint32_t i = 0; i < count; i++) {
        at = store_u32(store_u32(at, list[i].name.n), list[i].value.n);
    }
    for (uint32_t i = 0; i < count; i++) {
        at = store_z(store_z(at, list[i].name), list[i].value);
    }
    return (struct pw_str){p, n};
}

enum pw_status pw_set_pairs(enum pw_map map, const struct pw_pair *list, uint32_t count)
{
    PW_AUTO struct pw_str data = serialise(list, count);

    return (enum pw_status)proxy_set_header_map_pairs(map, data.p, data.n);
}

/* ---- buffers ---- */

struct pw_str pw_get_buffer(enum pw_buffer buffer, uint32_t start, uint32_t size)
{
    struct pw_str v = {NULL, 0};

    proxy_get_buffer_bytes(buffer, start, size, &v.p, &v.n);
    return v;
}

enum pw_status pw_set_buffer(enum pw_buffer buffer, uint32_t start, uint32_t size, struct pw_str data)
{
    return (enum pw_status)proxy_set_buffer_bytes(buffer, start, size, data.p, data.n);
}

struct pw_str pw_get_config(void) { return pw_get_buffer(PW_PLUGIN_CONFIGURATION, 0, UINT32_MAX); }

/* ---- stream ---- */

void pw_reply(uint32_t status, const char *details, struct pw_str body, const struct pw_pair *headers, uint32_t count)
{
    struct pw_str d = pw_z(details);
    PW_AUTO struct pw_str h = serialise(headers, count);

    proxy_send_local_response(status, d.p, d.n, body.p, body.n, h.p, h.n, -1);
}

void pw_continue(enum pw_stream stream) { proxy_continue_stream(stream); }

void pw_close(enum pw_stream stream) { proxy_close_stream(stream); }

enum pw_status pw_set_effective(uint32_t ctx) { return (enum pw_status)proxy_set_effective_context(ctx); }

/* ---- properties ---- */

enum { PATH_MAX_BYTES = 256 };

/* Dots become NULs; n 0: too long. */
static struct pw_str path_of(const char *path, char *buf)
{
    uint32_t n = strlen(path);

    if (n > PATH_MAX_BYTES) {
        return (struct pw_str){buf, 0};
    }
    for (uint32_t i = 0; i < n; i++) {
        buf[i] = path[i] == '.' ? 0 : path[i];
    }
    return (struct pw_str){buf, n};
}

enum pw_status pw_get_property_raw(struct pw_str path, struct pw_str *value)
{
    *value = (struct pw_str){NULL, 0};
    return (enum pw_status)proxy_get_property(path.p, path.n, &value->p, &value->n);
}

struct pw_str pw_get_property(const char *path)
{
    char buf[PATH_MAX_BYTES];
    struct pw_str value;

    pw_get_property_raw(path_of(path, buf), &value);
    return value;
}

enum pw_status pw_set_property(const char *path, struct pw_str value)
{
    char buf[PATH_MAX_BYTES];
    struct pw_str p = path_of(path, buf);

    return (enum pw_status)proxy_set_property(p.p, p.n, value.p, value.n);
}

bool pw_get_property_int(const char *path, int64_t *value)
{
    PW_AUTO struct pw_str v = pw_get_property(path);

    if (v.n == 8) {
        memcpy(value, v.p, 8);
    }
    return v.n == 8;
}

/* ---- the rest ---- */

uint32_t pw_http_call(const char *cluster, const struct pw_pair *headers, uint32_t count, struct pw_str body,
                      uint32_t timeout_ms, enum pw_status *status)
{
    uint32_t id = 0;
    PW_AUTO struct pw_str h = serialise(headers, count);
    enum pw_status s =
        (enum pw_status)proxy_http_call(cluster, strlen(cluster), h.p, h.n, body.p, body.n, NULL, 0, timeout_ms, &id);

    if (status != NULL) {
        *status = s;
    }
    return s == PW_OK ? id : 0;
}

enum pw_status pw_set_tick(uint32_t period_ms) { return (enum pw_status)proxy_set_tick_period_milliseconds(period_ms); }

enum pw_status pw_get_shared(struct pw_str key, struct pw_str *value, uint32_t *cas)
{
    *value = (struct pw_str){NULL, 0};
    return (enum pw_status)proxy_get_shared_data(key.p, key.n, &value->p, &value->n, cas);
}

enum pw_status pw_set_shared(struct pw_str key, struct pw_str value, uint32_t cas)
{
    return (enum pw_status)proxy_set_shared_data(key.p, key.n, value.p, value.n, cas);
}

enum pw_status pw_register_queue(const char *name, uint32_t *queue)
{
    return (enum pw_status)proxy_register_shared_queue(name, strlen(name), queue);
}

enum pw_status pw_resolve_queue(const char *vm_id, const char *name, uint32_t *queue)
{
    return (enum pw_status)proxy_resolve_shared_queue(vm_id, strlen(vm_id), name, strlen(name), queue);
}

enum pw_status pw_enqueue(uint32_t queue, struct pw_str value)
{
    return (enum pw_status)proxy_enqueue_shared_queue(queue, value.p, value.n);
}

enum pw_status pw_dequeue(uint32_t queue, struct pw_str *value)
{
    *value = (struct pw_str){NULL, 0};
    return (enum pw_status)proxy_dequeue_shared_queue(queue, &value->p, &value->n);
}

uint32_t pw_define_metric(enum pw_metric_type type, const char *name)
{
    uint32_t id = 0;

    proxy_define_metric(type, name, strlen(name), &id);
    return id;
}

enum pw_status pw_increment(uint32_t metric, int64_t by) { return (enum pw_status)proxy_increment_metric(metric, by); }

enum pw_status pw_record(uint32_t metric, uint64_t value) { return (enum pw_status)proxy_record_metric(metric, value); }

uint64_t pw_get_metric(uint32_t metric)
{
    uint64_t v = 0;

    proxy_get_metric(metric, &v);
    return v;
}

enum pw_status pw_foreign(const char *name, struct pw_str args, struct pw_str *result)
{
    struct pw_str unused = {NULL, 0};
    struct pw_str *r = result != NULL ? result : &unused;

    *r = (struct pw_str){NULL, 0};
    enum pw_status s = (enum pw_status)proxy_call_foreign_function(name, strlen(name), args.p, args.n, &r->p, &r->n);
    pw_free_str(&unused);
    return s;
}

/* ---- state of streams: a hash table of chains that doubles ---- */

struct state {
    struct state *next;
    uint32_t ctx;
    uint64_t data[];
};
static struct state **states;
static uint32_t state_slots, state_count;

static void states_grow(void)
{
    uint32_t slots = state_slots != 0 ? state_slots * 2 : 64;
    struct state **table = pw_alloc(slots * (uint32_t)sizeof *table);

    if (table == NULL) {
        __builtin_trap();
    }
    memset(table, 0, slots * sizeof *table);
    for (uint32_t i = 0; i < state_slots; i++) {
        for (struct state *s = states[i], *next; s != NULL; s = next) {
            next = s->next;
            s->next = table[s->ctx & (slots - 1)];
            table[s->ctx & (slots - 1)] = s;
        }
    }
    pw_free(states);
    states = table;
    state_slots = slots;
}

void *pw_state(uint32_t ctx, uint32_t size)
{
    if (state_count >= state_slots) {
        states_grow();
    }
    struct state **slot = &states[ctx & (state_slots - 1)];
    for (struct state *s = *slot; s != NULL; s = s->next) {
        if (s->ctx == ctx) {
            return s->data;
        }
    }
    struct state *s = pw_alloc((uint32_t)sizeof *s + size);
    if (s == NULL) {
        __builtin_trap();
    }
    memset(s, 0, sizeof *s + size);
    s->ctx = ctx;
    s->next = *slot;
    *slot = s;
    state_count++;
    return s->data;
}

void pw_state_free(uint32_t ctx)
{
    for (struct state **s = state_slots != 0 ? &states[ctx & (state_slots - 1)] : NULL; s != NULL && *s != NULL;
         s = &(*s)->next) {
        if ((*s)->ctx == ctx) {
            struct state *gone = *s;
            *s = gone->next;
            state_count--;
            pw_free(gone);
            return;
        }
    }
}
