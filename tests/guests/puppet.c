/* SPDX-License-Identifier: Apache-2.0
 *
 * A guest that does what the test's script says, and logs what it sees. A script comes from pluginConfig ({"script":
 * "..."}) and, for one stream, from the request header x-do; both run, the header's answer counts.
 *
 *      script     = statement *( ";" statement )
 *      statement  = event [ "." n ] ":" op *( "," op )     n: the nth such event of this context only
 *      op         = word *( " " word )                     %41 in a word is A, % alone is nothing, ~1000 is a thousand
 * x
 *
 * Every event and every op's result is a log line "T <tag> <event>.<n> <text>"; the tag is the request header x-tag.
 * -DNO_RB and so on leave a callback out, -DABI_0_1 is the guest of ABI 0.1.0, -DQUIET logs ops only.
 */
#include "proxy_wasm.h"

#define EXPORT(name) __attribute__((export_name(#name)))
#define IMPORT(name) __attribute__((import_module("env"), import_name(#name))) uint32_t name

IMPORT(proxy_get_header_map_pairs)(uint32_t map, char **v, uint32_t *vn);
IMPORT(proxy_set_header_map_pairs)(uint32_t map, const char *v, uint32_t vn);
IMPORT(proxy_get_header_map_size)(uint32_t map, uint32_t *n);
IMPORT(proxy_get_header_map_value)(uint32_t map, const char *k, uint32_t kn, char **v, uint32_t *vn);
IMPORT(proxy_add_header_map_value)(uint32_t map, const char *k, uint32_t kn, const char *v, uint32_t vn);
IMPORT(proxy_replace_header_map_value)(uint32_t map, const char *k, uint32_t kn, const char *v, uint32_t vn);
IMPORT(proxy_remove_header_map_value)(uint32_t map, const char *k, uint32_t kn);
IMPORT(proxy_get_buffer_bytes)(uint32_t type, uint32_t start, uint32_t max, char **v, uint32_t *vn);
IMPORT(proxy_get_buffer_status)(uint32_t type, uint32_t *n, uint32_t *flags);
IMPORT(proxy_set_buffer_bytes)(uint32_t type, uint32_t start, uint32_t size, const char *v, uint32_t vn);
IMPORT(proxy_get_property)(const char *p, uint32_t n, char **v, uint32_t *vn);
IMPORT(proxy_set_property)(const char *p, uint32_t n, const char *v, uint32_t vn);
IMPORT(proxy_send_local_response)
(uint32_t code, const char *details, uint32_t dn, const char *body, uint32_t bn, const char *headers, uint32_t hn,
 int32_t grpc_status);
IMPORT(proxy_http_call)
(const char *cluster, uint32_t cn, const char *headers, uint32_t hn, const char *body, uint32_t bn,
 const char *trailers, uint32_t tn, uint32_t timeout_ms, uint32_t *id);
IMPORT(proxy_get_status)(uint32_t *code, char **v, uint32_t *vn);
IMPORT(proxy_define_metric)(uint32_t type, const char *name, uint32_t n, uint32_t *id);
IMPORT(proxy_get_metric)(uint32_t id, uint64_t *value);
IMPORT(proxy_increment_metric)(uint32_t id, int64_t delta);
IMPORT(proxy_record_metric)(uint32_t id, uint64_t value);
IMPORT(proxy_call_foreign_function)
(const char *name, uint32_t n, const char *args, uint32_t an, char **v, uint32_t *vn);
IMPORT(proxy_set_effective_context)(uint32_t ctx);
#ifdef ABI_0_1
IMPORT(proxy_continue_request)(void);
IMPORT(proxy_continue_response)(void);
IMPORT(proxy_clear_route_cache)(void);
IMPORT(proxy_get_configuration)(char **v, uint32_t *vn);
#else
IMPORT(proxy_continue_stream)(uint32_t stream);
IMPORT(proxy_close_stream)(uint32_t stream);
#endif
IMPORT(proxy_set_shared_data)(const char *k, uint32_t kn, const char *v, uint32_t vn, uint32_t cas);
IMPORT(proxy_get_shared_data)(const char *k, uint32_t kn, char **v, uint32_t *vn, uint32_t *cas);
IMPORT(proxy_register_shared_queue)(const char *name, uint32_t n, uint32_t *id);
IMPORT(proxy_resolve_shared_queue)(const char *vm, uint32_t vn, const char *name, uint32_t n, uint32_t *id);
IMPORT(proxy_enqueue_shared_queue)(uint32_t id, const char *v, uint32_t vn);
IMPORT(proxy_dequeue_shared_queue)(uint32_t id, char **v, uint32_t *vn);
#define WASI(name) __attribute__((import_module("wasi_snapshot_preview1"), import_name(#name))) uint32_t name
WASI(environ_sizes_get)(uint32_t *count, uint32_t *bytes);
WASI(environ_get)(char **list, char *bytes);

/* ---- contexts ---- */

enum event { RH, RB, RT, SH, SB, ST, LOG, DONE, DEL, CREATE, TICK, CR, VM, CFG, QUEUE, EVENTS };
static const char *const event_names[EVENTS] = {"rh",  "rb",     "rt",   "sh", "sb", "st",  "log",  "done",
                                                "del", "create", "tick", "cr", "vm", "cfg", "queue"};

struct ctx {
    struct ctx *next;
    uint32_t id;
    struct pw_str script, tag;
    uint32_t counts[EVENTS];
};
static struct ctx *contexts, root;
static struct pw_str config_script;

static struct ctx *ctx_of(uint32_t id)
{
    for (struct ctx *c = contexts; c != NULL; c = c->next) {
        if (c->id == id) {
            return c;
        }
    }
    if (id == root.id) {
        return &root;
    }
    struct ctx *c = pw_alloc(sizeof *c);
    *c = (struct ctx){.next = contexts, .id = id};
    contexts = c;
    return c;
}

static void ctx_free(uint32_t id)
{
    for (struct ctx **at = &contexts; *at != NULL; at = &(*at)->next) {
        if ((*at)->id == id) {
            struct ctx *gone = *at;
            *at = gone->next;
            pw_free(gone->script.p);
            pw_free(gone->tag.p);
            pw_free(gone);
            return;
        }
    }
}

/* ---- what is being run ---- */

static struct ctx *now;
static enum event now_event;
static uint32_t now_nth;
static bool answered;
static uint32_t answer;
static struct {
    uint32_t call, ctx;
} calls[512];

static char text[8192];
static uint32_t text_n;

static void add(struct pw_str s)
{
    for (uint32_t i = 0; i < s.n && text_n < sizeof text; i++) {
        text[text_n++] = s.p[i];
    }
}
static void add_z(const char *z) { add(pw_z(z)); }
static void add_u(uint64_t v)
{
    char digits[21];
    add(pw_format_u64(v, digits));
}
static void add_field(const char *name, uint64_t v)
{
    add_z(" ");
    add_z(name);
    add_z("=");
    add_u(v);
}
static void add_hex(struct pw_str s)
{
    for (uint32_t i = 0; i < s.n; i++) {
        add((struct pw_str){(char *)&"0123456789abcdef"[((unsigned char)s.p[i]) >> 4], 1});
        add((struct pw_str){(char *)&"0123456789abcdef"[s.p[i] & 15], 1});
    }
}
static void trace_begin(void)
{
    text_n = 0;
    add_z("T ");
    add(now == &root ? PW_STR("root") : now->tag.n != 0 ? now->tag : PW_STR("-"));
    add_z(" ");
    add_z(event_names[now_event]);
    add_z(".");
    add_u(now_nth);
}
static void trace_end(void) { pw_log(PW_INFO, (struct pw_str){text, text_n}); }

/* ---- words ---- */

enum { WORDS = 24 };
static struct pw_str words[WORDS];
static uint32_t word_count;
static char *word_bytes;

static uint32_t nibble(char c)
{
    return c >= 'a' ? (uint32_t)(c - 'a') + 10 : c >= 'A' ? (uint32_t)(c - 'A') + 10 : (uint32_t)(c - '0');
}

static struct pw_str word_decode(struct pw_str w, char **at)
{
    struct pw_str out = {*at, 0};
    uint64_t repeat;

    if (w.n > 1 && w.p[0] == '~' && pw_parse_u64((struct pw_str){w.p + 1, w.n - 1}, &repeat)) {
        out.p = pw_alloc((uint32_t)repeat + 1); /* not freed: tests are short */
        memset(out.p, 'x', (uint32_t)repeat);
        out.n = (uint32_t)repeat;
        return out;
    }
    for (uint32_t i = 0; i < w.n; i++) {
        char c = w.p[i];
        if (c == '%' && w.n == 1) { /* an empty word */
            break;
        }
        if (c == '%' && i + 2 < w.n) {
            c = (char)(nibble(w.p[i + 1]) << 4 | nibble(w.p[i + 2]));
            i += 2;
        }
        *(*at)++ = c;
        out.n++;
    }
    *(*at)++ = 0;
    return out;
}

static struct pw_str cut(struct pw_str *rest, char at)
{
    struct pw_str one = *rest;

    for (uint32_t i = 0; i < rest->n; i++) {
        if (rest->p[i] == at) {
            one.n = i;
            *rest = (struct pw_str){rest->p + i + 1, rest->n - i - 1};
            return one;
        }
    }
    *rest = (struct pw_str){NULL, 0};
    return one;
}

static struct pw_str trim(struct pw_str s)
{
    while (s.n != 0 && s.p[0] == ' ') {
        s = (struct pw_str){s.p + 1, s.n - 1};
    }
    while (s.n != 0 && s.p[s.n - 1] == ' ') {
        s.n--;
    }
    return s;
}

static void words_read(struct pw_str op)
{
    char *at;

    word_count = 0;
    pw_free(word_bytes);
    at = word_bytes = pw_alloc(op.n + WORDS);
    op = trim(op);
    while (op.p != NULL && word_count < WORDS) {
        words[word_count++] = word_decode(cut(&op, ' '), &at);
    }
    for (uint32_t i = word_count; i < WORDS; i++) {
        words[i] = (struct pw_str){NULL, 0};
    }
}

static uint32_t num(uint32_t i)
{
    uint64_t v = 0;
    bool negative = words[i].n != 0 && words[i].p[0] == '-';

    pw_parse_u64(negative ? (struct pw_str){words[i].p + 1, words[i].n - 1} : words[i], &v);
    return negative ? (uint32_t) - (int32_t)v : (uint32_t)v;
}

/* Words from i on as name, value, name, value...; serialised. */
static struct pw_str pairs_from(uint32_t i)
{
    uint32_t count = word_count > i ? (word_count - i) / 2 : 0, n = 4;

    for (uint32_t k = 0; k < count * 2; k++) {
        n += 5 + words[i + k].n;
    }
    char *p = pw_alloc(n), *at = p;
    memcpy(at, &count, 4);
    at += 4;
    for (uint32_t k = 0; k < count * 2; k++, at += 4) {
        memcpy(at, &words[i + k].n, 4);
    }
    for (uint32_t k = 0; k < count * 2; k++) {
        memcpy(at, words[i + k].p, words[i + k].n);
        at += words[i + k].n;
        *at++ = 0;
    }
    return (struct pw_str){p, n};
}

/* ---- ops ---- */

static volatile uint32_t sink;

/* On the call stack alone: nothing of it is in linear memory. */
__attribute__((noinline)) static uint32_t recurse_forever(uint32_t n)
{
    uint32_t r = n == 0 ? 0 : recurse_forever(n + 1);

    __asm__ volatile("" : "+r"(r));
    return r + 1;
}
__attribute__((noinline)) static void spin_forever(void)
{
    for (;;) {
        sink++;
    }
}
__attribute__((noinline)) static void take_memory(void)
{
    while (__builtin_wasm_memory_grow(0, 16) != (size_t)-1) {
    }
    __builtin_trap(); /* what a language without memory does */
}
__attribute__((noinline)) static void give_up(void) { __builtin_trap(); }

static void op_status(uint32_t status) { add_field("status", status); }

static void op_got(uint32_t status, struct pw_str *v)
{
    op_status(status);
    add_field("n", v->n);
    add_z(" v=");
    add(*v);
    pw_free_str(v);
}

static void op_pairs(void)
{
    struct pw_str data = {NULL, 0};
    uint32_t status = proxy_get_header_map_pairs(num(1), &data.p, &data.n), count = 0, at;

    op_status(status);
    if (data.n >= 4) {
        memcpy(&count, data.p, 4);
    }
    add_field("n", count);
    add_z(" v=");
    at = 4 + count * 8;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t name, value;
        memcpy(&name, data.p + 4 + i * 8, 4);
        memcpy(&value, data.p + 8 + i * 8, 4);
        add_z("[");
        add((struct pw_str){data.p + at, name});
        add_z("=");
        add((struct pw_str){data.p + at + name + 1, value});
        add_z("]");
        at += name + value + 2;
    }
    pw_free(data.p);
}

static void op_call(void)
{
    struct pw_str all = {NULL, 0}, rest[WORDS];
    uint32_t id = 77, status, timeout = num(3), rest_count = 0;

    /* call CLUSTER PATH TIMEOUT BODY name value ... */
    struct pw_str cluster = words[1], path = words[2], body = words[4];
    for (uint32_t i = 5; i < word_count && rest_count < WORDS - 6; i++) {
        rest[rest_count++] = words[i];
    }
    words[0] = PW_STR(":method");
    words[1] = body.n != 0 ? PW_STR("POST") : PW_STR("GET");
    words[2] = PW_STR(":path");
    words[3] = path;
    words[4] = PW_STR(":authority");
    words[5] = PW_STR("callout.example");
    for (uint32_t i = 0; i < rest_count; i++) {
        words[6 + i] = rest[i];
    }
    word_count = 6 + rest_count;
    all = pairs_from(0);
    status = proxy_http_call(cluster.p, cluster.n, all.p, all.n, body.p, body.n, NULL, 0, timeout, &id);
    pw_free(all.p);
    op_status(status);
    if (status == 0) {
        for (uint32_t i = 0; i < sizeof calls / sizeof *calls; i++) {
            if (calls[i].call == 0) {
                calls[i].call = id;
                calls[i].ctx = now->id;
                break;
            }
        }
    } else {
        add_field("id", id);
    }
}

static void op_env(void)
{
    uint32_t count = 0, bytes = 0;

    environ_sizes_get(&count, &bytes);
    char **list = pw_alloc(count * 4 + 4), *p = pw_alloc(bytes + 1);
    environ_get(list, p);
    add_field("n", count);
    for (uint32_t i = 0; i < count; i++) {
        add_z(" ");
        add_z(list[i]);
    }
}

static bool is(const char *name) { return pw_eq(words[0], pw_z(name)); }

static uint32_t metric_id(uint32_t i)
{
    uint32_t id = 0;

    op_status(proxy_define_metric(num(i), words[i + 1].p, words[i + 1].n, &id));
    return id;
}

/* False: no such op. */
static bool op_data(void)
{
    struct pw_str v = {NULL, 0};
    uint32_t n = 0, flags = 0;

    if (is("get")) {
        uint32_t status = proxy_get_header_map_value(num(1), words[2].p, words[2].n, &v.p, &v.n);
        op_got(status, &v);
    } else if (is("set")) {
        op_status(proxy_replace_header_map_value(num(1), words[2].p, words[2].n, words[3].p, words[3].n));
    } else if (is("add")) {
        op_status(proxy_add_header_map_value(num(1), words[2].p, words[2].n, words[3].p, words[3].n));
    } else if (is("del")) {
        op_status(proxy_remove_header_map_value(num(1), words[2].p, words[2].n));
    } else if (is("pairs")) {
        op_pairs();
    } else if (is("setpairs")) {
        v = pairs_from(2);
        op_status(proxy_set_header_map_pairs(num(1), v.p, v.n));
        pw_free(v.p);
    } else if (is("rawpairs")) {
        op_status(proxy_set_header_map_pairs(num(1), words[2].p, words[2].n));
    } else if (is("mapsize")) {
        op_status(proxy_get_header_map_size(num(1), &n));
        add_field("n", n);
    } else if (is("buf")) {
        uint32_t status = proxy_get_buffer_bytes(num(1), num(2), num(3), &v.p, &v.n);
        op_got(status, &v);
    } else if (is("bufstatus")) {
        op_status(proxy_get_buffer_status(num(1), &n, &flags));
        add_field("n", n);
        add_field("flags", flags);
    } else if (is("setbuf")) {
        op_status(proxy_set_buffer_bytes(num(1), num(2), num(3), words[4].p, words[4].n));
    } else if (is("prop")) { /* hex: properties are binary */
        op_status(proxy_get_property(words[1].p, words[1].n, &v.p, &v.n));
        add_field("n", v.n);
        add_z(" v=");
        add_hex(v);
        pw_free_str(&v);
    } else if (is("setprop")) {
        op_status(proxy_set_property(words[1].p, words[1].n, words[2].p, words[2].n));
    } else if (is("foreign")) {
        op_status(proxy_call_foreign_function(words[1].p, words[1].n, words[2].p, words[2].n, &v.p, &v.n));
        add_field("n", v.n);
        add_z(" v=");
        add_hex(v);
        pw_free_str(&v);
    } else if (is("callstatus")) {
        op_status(proxy_get_status(&n, &v.p, &v.n));
        add_field("code", n);
        add_z(" v=");
        add(v);
    } else {
        return false;
    }
    return true;
}

static bool op_shared(void)
{
    struct pw_str v = {NULL, 0};
    uint32_t id = 0;
    uint64_t value = 0;

    if (is("shget")) {
        uint32_t status = proxy_get_shared_data(words[1].p, words[1].n, &v.p, &v.n, &id);
        add_field("cas", id);
        op_got(status, &v);
    } else if (is("shset")) {
        op_status(proxy_set_shared_data(words[1].p, words[1].n, words[2].p, words[2].n, num(3)));
    } else if (is("qreg")) {
        op_status(proxy_register_shared_queue(words[1].p, words[1].n, &id));
    } else if (is("qput")) { /* VM_ID NAME VALUE */
        op_status(proxy_resolve_shared_queue(words[1].p, words[1].n, words[2].p, words[2].n, &id));
        add_field("put", id != 0 ? proxy_enqueue_shared_queue(id, words[3].p, words[3].n) : 99);
    } else if (is("qget")) { /* VM_ID NAME */
        proxy_resolve_shared_queue(words[1].p, words[1].n, words[2].p, words[2].n, &id);
        uint32_t status = proxy_dequeue_shared_queue(id, &v.p, &v.n);
        op_got(status, &v);
    } else if (is("inc")) { /* TYPE NAME VALUE */
        id = metric_id(1);
        add_field("inc", proxy_increment_metric(id, (int32_t)num(3)));
    } else if (is("rec")) {
        id = metric_id(1);
        add_field("rec", proxy_record_metric(id, num(3)));
    } else if (is("metric")) {
        id = metric_id(1);
        add_field("get", proxy_get_metric(id, &value));
        add_field("v", value);
    } else if (is("env")) {
        op_env();
    } else {
        return false;
    }
    return true;
}

static void op_run(struct pw_str op)
{
    words_read(op);
    if (word_count == 0 || words[0].n == 0) {
        return;
    }
    if (is("ret")) {
        answered = true;
        answer = num(1);
        return;
    }
    trace_begin();
    add_z(" ");
    add(words[0]);
    if (is("trap")) {
        give_up();
    } else if (is("loop")) {
        spin_forever();
    } else if (is("bomb")) {
        take_memory();
    } else if (is("recurse")) {
        sink = recurse_forever(1);
    } else if (is("tick")) {
        op_status(pw_set_tick(num(1)));
    } else if (is("log")) {
        add_z(" ");
        add(words[1]);
    } else if (is("eff")) {
        op_status(proxy_set_effective_context(num(1)));
    } else if (is("reply")) { /* STATUS DETAILS BODY GRPC name value ... */
        struct pw_str h = pairs_from(5);
        op_status(proxy_send_local_response(num(1), words[2].p, words[2].n, words[3].p, words[3].n, h.p, h.n,
                                            (int32_t)num(4)));
        pw_free(h.p);
    } else if (is("cont")) {
#ifdef ABI_0_1
        op_status(num(1) == 0 ? proxy_continue_request() : proxy_continue_response());
    } else if (is("clear")) {
        op_status(proxy_clear_route_cache());
    } else if (is("config")) {
        struct pw_str v = {NULL, 0};
        uint32_t status = proxy_get_configuration(&v.p, &v.n);
        op_got(status, &v);
#else
        op_status(proxy_continue_stream(num(1)));
    } else if (is("close")) {
        op_status(proxy_close_stream(num(1)));
#endif
    } else if (is("call")) {
        op_call();
    } else if (!op_data() && !op_shared()) {
        add_z(" UNKNOWN");
    }
    trace_end();
}

static bool event_matches(struct pw_str name)
{
    struct pw_str nth = name, base = cut(&nth, '.');
    uint64_t n;

    return pw_eq(base, pw_z(event_names[now_event])) && (nth.p == NULL || (pw_parse_u64(nth, &n) && n == now_nth));
}

static void script_run(struct pw_str script)
{
    while (script.p != NULL) {
        struct pw_str statement = trim(cut(&script, ';')), event = cut(&statement, ':');
        if (!event_matches(trim(event))) {
            continue;
        }
        while (statement.p != NULL) {
            op_run(cut(&statement, ','));
        }
    }
}

static uint32_t run(struct ctx *c, enum event e, uint32_t otherwise, const char *size_name, uint32_t size, int end)
{
    now = c;
    now_event = e;
    now_nth = ++c->counts[e];
    answered = false;
#ifndef QUIET
    trace_begin();
    add_field("id", c->id);
    if (size_name != NULL) {
        add_field(size_name, size);
    }
    if (end >= 0) {
        add_field("end", (uint64_t)end);
    }
    trace_end();
#endif
    if (c->script.p == config_script.p || c != &root) {
        script_run(config_script);
    }
    if (c != &root) {
        script_run(c->script);
    }
    return answered ? answer : otherwise;
}

/* ---- callbacks ---- */

static void learn(struct ctx *c)
{
    if (c->script.p == NULL) {
        pw_find_header(PW_REQUEST_HEADERS, "x-do", &c->script);
    }
    if (c->tag.p == NULL) {
        pw_find_header(PW_REQUEST_HEADERS, "x-tag", &c->tag);
    }
}

#ifndef NO_CREATE
EXPORT(proxy_on_context_create) void on_context_create(uint32_t id, uint32_t parent)
{
    if (parent == 0) {
        root.id = id;
        now = &root;
        return;
    }
    run(ctx_of(id), CREATE, 0, NULL, 0, -1);
}
#endif

static void config_read(uint32_t n)
{
    (void)n;
    struct pw_str config = pw_get_config();
    int32_t at = pw_find(config, PW_STR("\"script\":\""));

    if (at >= 0) {
        struct pw_str rest = {config.p + at + 10, config.n - (uint32_t)at - 10};
        config_script = cut(&rest, '"'); /* kept for good */
    }
    root.script = config_script;
}

EXPORT(proxy_on_vm_start) uint32_t on_vm_start(uint32_t id, uint32_t n)
{
    root.id = id;
    config_read(n);
    return run(&root, VM, 1, NULL, 0, -1);
}
EXPORT(proxy_on_configure) uint32_t on_configure(uint32_t id, uint32_t n)
{
    root.id = id;
    config_read(n);
    return run(&root, CFG, 1, "size", n, -1);
}

#ifdef ABI_0_1
#define HEADERS(name) (uint32_t id, uint32_t n)
#define END           -1
#else
#define HEADERS(name) (uint32_t id, uint32_t n, uint32_t end)
#define END           (int)end
#endif
#ifndef NO_RH
EXPORT(proxy_on_request_headers) uint32_t on_request_headers HEADERS()
{
    struct ctx *c = ctx_of(id);
    learn(c);
    return run(c, RH, 0, "n", n, END);
}
#endif
#ifndef NO_SH
EXPORT(proxy_on_response_headers) uint32_t on_response_headers HEADERS()
{
    struct ctx *c = ctx_of(id);
    learn(c);
    return run(c, SH, 0, "n", n, END);
}
#endif
#ifndef NO_RB
EXPORT(proxy_on_request_body) uint32_t on_request_body(uint32_t id, uint32_t n, uint32_t end)
{
    return run(ctx_of(id), RB, 0, "size", n, (int)end);
}
#endif
#ifndef NO_SB
EXPORT(proxy_on_response_body) uint32_t on_response_body(uint32_t id, uint32_t n, uint32_t end)
{
    return run(ctx_of(id), SB, 0, "size", n, (int)end);
}
#endif
#ifndef NO_RT
EXPORT(proxy_on_request_trailers) uint32_t on_request_trailers(uint32_t id, uint32_t n)
{
    return run(ctx_of(id), RT, 0, "n", n, -1);
}
#endif
#ifndef NO_ST
EXPORT(proxy_on_response_trailers) uint32_t on_response_trailers(uint32_t id, uint32_t n)
{
    return run(ctx_of(id), ST, 0, "n", n, -1);
}
#endif
#ifndef NO_LOG
EXPORT(proxy_on_log) void on_log(uint32_t id)
{
    struct ctx *c = ctx_of(id);
    learn(c);
    run(c, LOG, 0, NULL, 0, -1);
}
#endif
EXPORT(proxy_on_done) uint32_t on_done(uint32_t id) { return run(ctx_of(id), DONE, 1, NULL, 0, -1); }
EXPORT(proxy_on_delete) void on_delete(uint32_t id)
{
    if (id != root.id) {
        run(ctx_of(id), DEL, 0, NULL, 0, -1);
        ctx_free(id);
    }
}

/* A tick runs the root's statements, then those of each stream, with that stream in effect. */
EXPORT(proxy_on_tick) void on_tick(uint32_t id)
{
    (void)id;
    run(&root, TICK, 0, NULL, 0, -1);
    for (struct ctx *c = contexts, *next; c != NULL; c = next) {
        next = c->next;
        if (proxy_set_effective_context(c->id) == 0) {
            now = c;
            now_event = TICK;
            now_nth = ++c->counts[TICK];
            script_run(c->script);
        }
    }
}

EXPORT(proxy_on_queue_ready) void on_queue_ready(uint32_t id, uint32_t queue)
{
    (void)id;
    (void)queue;
    run(&root, QUEUE, 0, NULL, 0, -1);
}

EXPORT(proxy_on_http_call_response)
void on_call_response(uint32_t id, uint32_t call, uint32_t n, uint32_t size, uint32_t trailers)
{
    (void)id;
    struct ctx *c = &root;

    for (uint32_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        if (calls[i].call == call) {
            uint32_t wanted = calls[i].ctx;
            calls[i].call = 0;
            for (c = contexts; c != NULL && c->id != wanted; c = c->next) {
            }
            c = c != NULL && proxy_set_effective_context(wanted) == 0 ? c : &root;
            break;
        }
    }
    now = c;
    now_event = CR;
    now_nth = c->counts[CR] + 1;
    trace_begin();
    add_z(" answer");
    add_field("n", n);
    add_field("size", size);
    add_field("trailers", trailers);
    trace_end();
    run(c, CR, 0, NULL, 0, -1);
}
