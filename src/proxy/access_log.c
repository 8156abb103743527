/* SPDX-License-Identifier: Apache-2.0
 *
 * Writes access log lines: a walk over compiled pieces into a buffer that the worker keeps, without allocation or a
 * clock read. Every value may have come from a client or a guest, so each is escaped for the form it stands in; a line
 * is one line, and JSON stays JSON, whatever they sent.
 */
#include "proxy/access_log.h"

#include <stdio.h>
#include <time.h>

#include "proxy/access_log_format.h"
#include "proxy/grpc.h"
#include "proxy/pool.h"
#include "proxy/stream.h"

/* Envoy's default format. */
static const char default_text[] =
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% "
    "%RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "
    "\"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" "
    "\"%UPSTREAM_HOST%\"";
/* Names as in Istio's JSON log, and end_reason. */
static const char default_json[] =
    "{\"start_time\":\"%START_TIME%\",\"method\":\"%REQ(:METHOD)%\","
    "\"path\":\"%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%\",\"protocol\":\"%PROTOCOL%\","
    "\"response_code\":\"%RESPONSE_CODE%\",\"response_flags\":\"%RESPONSE_FLAGS%\","
    "\"response_code_details\":\"%RESPONSE_CODE_DETAILS%\","
    "\"bytes_received\":\"%BYTES_RECEIVED%\",\"bytes_sent\":\"%BYTES_SENT%\","
    "\"duration\":\"%DURATION%\","
    "\"upstream_service_time\":\"%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%\","
    "\"x_forwarded_for\":\"%REQ(X-FORWARDED-FOR)%\",\"user_agent\":\"%REQ(USER-AGENT)%\","
    "\"request_id\":\"%REQ(X-REQUEST-ID)%\",\"authority\":\"%REQ(:AUTHORITY)%\","
    "\"upstream_host\":\"%UPSTREAM_HOST%\",\"upstream_cluster\":\"%UPSTREAM_CLUSTER%\","
    "\"downstream_remote_address\":\"%DOWNSTREAM_REMOTE_ADDRESS%\","
    "\"downstream_local_address\":\"%DOWNSTREAM_LOCAL_ADDRESS%\","
    "\"route_name\":\"%ROUTE_NAME%\",\"end_reason\":\"%END_REASON%\"}";

struct access_log *access_log_new(enum access_log_format kind, const char *text, struct diag *diag)
{
    if (kind == ACCESS_LOG_OFF)
        return NULL;
    struct access_log *log = mem_zalloc(sizeof(*log));
    bool ok = kind == ACCESS_LOG_JSON ? log_format_json(log, str_of(text != NULL ? text : default_json), diag)
                                      : log_format_text(log, str_of(text != NULL ? text : default_text), diag);
    if (ok)
        return log;
    access_log_free(log);
    return NULL;
}

void access_log_free(struct access_log *log)
{
    if (log == NULL)
        return;
    for (size_t i = 0; i < log->count; i++) {
        mem_free(log->pieces[i].text);
        mem_free(log->pieces[i].other);
    }
    mem_free(log->pieces);
    mem_free(log);
}

bool access_log_reads_environment(const struct access_log *log) { return log != NULL && log->reads_environment; }

/* ---- values ---- */

enum value_kind { VALUE_NONE, VALUE_TEXT, VALUE_NUMBER };
struct value {
    enum value_kind kind;
    struct str text;
    uint64_t number;
    char room[LOG_TIME_MAX]; /* for a text made here */
};

static void set_number(struct value *v, uint64_t n)
{
    v->kind = VALUE_NUMBER;
    v->number = n;
}

static void set_text(struct value *v, struct str s)
{
    v->kind = s.n != 0 ? VALUE_TEXT : VALUE_NONE;
    v->text = s;
}

/* Decimal digits at the end of room; v becomes that text. */
static struct str decimal(uint64_t n, char room[LOG_TIME_MAX])
{
    char *at = room + LOG_TIME_MAX;
    do {
        *--at = (char)('0' + n % 10);
        n /= 10;
    } while (n != 0);
    return str_span(at, (size_t)(room + LOG_TIME_MAX - at));
}

/* Milliseconds between two points; none when one was not reached. */
static void set_span(struct value *v, uint64_t from, uint64_t to)
{
    if (from != 0 && to >= from)
        set_number(v, (to - from) / 1000000);
}

/* "1.2.3.4:56", without the detour of inet_ntop: every line has such addresses. */
static struct str ipv4_text(const struct addr *a, bool with_port, char room[LOG_TIME_MAX])
{
    const unsigned char *octets = (const unsigned char *)&a->u.in.sin_addr;
    struct str text = with_port ? decimal(addr_port(a), room) : str_span(room + LOG_TIME_MAX, 0);
    char *at = room + LOG_TIME_MAX - text.n;
    for (int i = 3; i >= 0; i--) {
        if (i < 3 || with_port)
            *--at = i < 3 ? '.' : ':';
        unsigned n = octets[i];
        do {
            *--at = (char)('0' + n % 10);
            n /= 10;
        } while (n != 0);
    }
    return str_span(at, (size_t)(room + LOG_TIME_MAX - at));
}

static void set_addr(struct value *v, const struct addr *a, bool with_port)
{
    _Static_assert(sizeof(v->room) >= ADDR_TEXT_MAX, "an address fits");
    if (a != NULL && a->u.sa.sa_family == AF_INET)
        set_text(v, ipv4_text(a, with_port, v->room));
    else if (a != NULL && a->u.sa.sa_family == AF_INET6)
        set_text(v, str_span(v->room, addr_format(a, with_port, v->room)));
}

static void set_port(struct value *v, const struct addr *a)
{
    if (a == NULL)
        return;
    if (a->u.sa.sa_family == AF_INET || a->u.sa.sa_family == AF_INET6)
        set_number(v, addr_port(a));
}

static void put_digits(char *at, int n, unsigned value)
{
    for (int i = n - 1; i >= 0; i--, value /= 10)
        at[i] = (char)('0' + value % 10);
}

/* "2026-11-23T15:00:00.123Z" */
static void set_start_time(struct value *v, const struct stream *s)
{
    struct tm tm;
    log_time_split((int64_t)(s->start_wall_ns / 1000000000), &tm);
    static const char shape[] = "0000-00-00T00:00:00.000Z";
    memcpy(v->room, shape, sizeof(shape) - 1);
    put_digits(v->room, 4, (unsigned)tm.tm_year + 1900);
    put_digits(v->room + 5, 2, (unsigned)tm.tm_mon + 1);
    put_digits(v->room + 8, 2, (unsigned)tm.tm_mday);
    put_digits(v->room + 11, 2, (unsigned)tm.tm_hour);
    put_digits(v->room + 14, 2, (unsigned)tm.tm_min);
    put_digits(v->room + 17, 2, (unsigned)tm.tm_sec);
    put_digits(v->room + 20, 3, (unsigned)(s->start_wall_ns / 1000000 % 1000));
    set_text(v, str_span(v->room, sizeof(shape) - 1));
}

static void set_time(struct value *v, const struct stream *s, const struct log_piece *p)
{
    struct tm tm;
    log_time_split((int64_t)(s->start_wall_ns / 1000000000), &tm);
    set_text(v, str_span(v->room, strftime(v->room, sizeof(v->room), p->text, &tm)));
}

static void set_fraction(struct value *v, const struct stream *s, const struct log_piece *p)
{
    put_digits(v->room, 9, (unsigned)(s->start_wall_ns % 1000000000));
    set_text(v, str_span(v->room, p->digits));
}

static const struct headers *message_headers(const struct stream *s, enum direction dir)
{
    return s->side[dir].msg != NULL ? &s->side[dir].msg->headers : NULL;
}

static const struct header *find(const struct headers *h, const char *name, enum header_id id)
{
    if (h == NULL || name == NULL)
        return NULL;
    return id != HDR_OTHER ? headers_get_id(h, id) : headers_get(h, str_of(name));
}

static void set_header(struct value *v, const struct headers *h, const struct log_piece *p)
{
    const struct header *found = find(h, p->text, p->id);
    if (found == NULL)
        found = find(h, p->other, p->other_id);
    if (found != NULL)
        set_text(v, found->value);
}

/* Envoy's router adds a header with the path before a rewrite; here the stream knows it. */
static void set_request_header(struct value *v, const struct stream *s, const struct log_piece *p)
{
    const struct headers *h = message_headers(s, DIR_REQUEST);
    struct str original = s->original_path;
    bool rewritten = original.n != 0 && h != NULL && !str_eq(original, headers_value(h, HDR_PATH));
    struct str name = str_span(p->text, p->text_bytes);
    if (rewritten && str_is(name, "x-envoy-original-path") && find(h, p->text, p->id) == NULL)
        set_text(v, original);
    else if (str_is(name, "host") && h != NULL)
        set_text(v, headers_value(h, HDR_AUTHORITY));
    else
        set_header(v, h, p);
}

/* Envoy's router adds a header with the time the upstream took; here the stream knows it. */
static void set_response_header(struct value *v, const struct stream *s, const struct log_piece *p)
{
    set_header(v, message_headers(s, DIR_RESPONSE), p);
    if (v->kind == VALUE_NONE && s->up_start_ns != 0 && s->up_head_ns >= s->up_start_ns &&
        str_is(str_span(p->text, p->text_bytes), "x-envoy-upstream-service-time"))
        set_text(v, decimal((s->up_head_ns - s->up_start_ns) / 1000000, v->room));
}

/* What a filter set: under the key as written, or without the "wasm." that Envoy's filters have there. */
static void set_filter_state(struct value *v, const struct stream *s, const struct log_piece *p)
{
    bool found = false;
    struct str key = str_span(p->text, p->text_bytes);
    struct str value = stream_property_get(s, key, &found);
    if (!found && str_starts(key, STR("wasm.")))
        value = stream_property_get(s, str_from(key, 5), &found);
    if (found)
        set_text(v, value);
}

static void set_protocol(struct value *v, const struct stream *s)
{
    const struct message *m = s->side[DIR_REQUEST].msg;
    unsigned version = m != NULL ? m->version : 0;
    if (version != 0)
        set_text(v, version == 10 ? STR("HTTP/1.0") : version == 11 ? STR("HTTP/1.1") : STR("HTTP/2"));
}

static void set_head_bytes(struct value *v, const struct stream *s, enum direction dir)
{
    set_number(v, s->side[dir].msg != NULL ? s->side[dir].msg->head_bytes : 0);
}

static const char *long_flag(const char *flag)
{
    static const struct {
        const char *flag, *name;
    } names[] = {{"DC", "DownstreamConnectionTermination"},
                 {"DPE", "DownstreamProtocolError"},
                 {"NC", "NoClusterFound"},
                 {"NR", "NoRouteFound"},
                 {"OM", "OverloadManagerTerminated"},
                 {"SI", "StreamIdleTimeout"},
                 {"UC", "UpstreamConnectionTermination"},
                 {"UF", "UpstreamConnectionFailure"},
                 {"UH", "NoHealthyUpstream"},
                 {"UO", "UpstreamOverflow"},
                 {"UPE", "UpstreamProtocolError"},
                 {"UT", "UpstreamRequestTimeout"}};

    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (strcmp(flag, names[i].flag) == 0)
            return names[i].name;
    return flag;
}

/* As Envoy: of requests that are of gRPC; from the trailers, else the head, else what the HTTP status means. */
static bool grpc_status(const struct stream *s, uint64_t *status)
{
    const struct headers *head = message_headers(s, DIR_RESPONSE), *trailers = s->side[DIR_RESPONSE].trailers;
    struct str text = trailers != NULL ? headers_value(trailers, HDR_GRPC_STATUS) : STR_NONE;

    if (!grpc_is_request(message_headers(s, DIR_REQUEST)))
        return false;
    if (text.n == 0 && head != NULL)
        text = headers_value(head, HDR_GRPC_STATUS);
    if (!str_to_u64(text, INT32_MAX, status))
        *status = grpc_of_status(s->status);
    return true;
}

static void set_grpc_status(struct value *v, const struct stream *s, bool as_number, bool snake)
{
    uint64_t status;

    if (!grpc_status(s, &status))
        return;
    const char *name = as_number ? NULL : grpc_status_name(status, snake);
    if (name != NULL)
        set_text(v, str_of(name));
    else
        set_number(v, status);
}

/* The original path is known where a rewrite, or a filter, changed it. */
static void set_path(struct value *v, const struct stream *s, const struct log_piece *p)
{
    const struct headers *h = message_headers(s, DIR_REQUEST);
    struct str now = h != NULL ? headers_value(h, HDR_PATH) : STR_NONE;
    struct str original = str_eq(s->original_path, now) ? STR_NONE : s->original_path;
    struct str path =
        p->u.path.source == PATH_NOW || (p->u.path.source == PATH_ORIGINAL_OR_NOW && original.n == 0) ? now : original;

    if (p->u.path.without_query)
        path = str_split(&path, '?');
    set_text(v, path);
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10 : -1;
}

/* Percent-decoded into the stream's memory, as far as there is any; else as it is. */
static struct str decode(struct arena *arena, struct str s)
{
    if (str_find(s, '%') < 0)
        return s;
    char *at = arena_try_alloc(arena, s.n);
    if (at == NULL)
        return s;
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        bool escape = s.p[i] == '%' && i + 2 < s.n && hex_digit(s.p[i + 1]) >= 0 && hex_digit(s.p[i + 2]) >= 0;
        at[n++] = escape ? (char)(hex_digit(s.p[i + 1]) * 16 + hex_digit(s.p[i + 2])) : s.p[i];
        i += escape ? 2 : 0;
    }
    return str_span(at, n);
}

/* The first parameter of that name. */
static void set_query_param(struct value *v, struct stream *s, struct str wanted)
{
    const struct headers *h = message_headers(s, DIR_REQUEST);
    struct str query = h != NULL ? headers_value(h, HDR_PATH) : STR_NONE;

    (void)str_split(&query, '?');
    while (query.n > 0) {
        struct str value = str_split(&query, '&'), name = str_split(&value, '=');
        if (str_eq(decode(&s->arena, name), wanted)) {
            set_text(v, decode(&s->arena, value));
            return;
        }
    }
}

static uint64_t point_ns(const struct stream *s, enum log_point point)
{
    switch (point) {
    case POINT_REQUEST_BEGIN: return s->start_ns;
    case POINT_REQUEST_END: return s->request_end_ns;
    case POINT_UP_SENT: return s->up_start_ns;
    case POINT_UP_HEAD: return s->up_head_ns;
    case POINT_RESPONSE_END: return s->end_ns;
    case POINT_NEVER: break;
    }
    return 0;
}

static void set_common_duration(struct value *v, const struct stream *s, const struct log_piece *p)
{
    uint64_t from = point_ns(s, p->u.span.from), to = point_ns(s, p->u.span.to);

    if (from != 0 && to >= from)
        set_number(v, (to - from) / p->u.span.unit_ns);
}

static void value_of(const struct log_piece *p, struct stream *s, struct value *v)
{
    switch (p->op) {
    case OP_START_TIME: set_start_time(v, s); break;
    case OP_TIME: set_time(v, s, p); break;
    case OP_TIME_FRACTION: set_fraction(v, s, p); break;
    case OP_TIME_SECONDS: set_number(v, s->start_wall_ns / 1000000000); break;
    case OP_REQ: set_request_header(v, s, p); break;
    case OP_RESP: set_response_header(v, s, p); break;
    case OP_TRAILER: set_header(v, s->side[DIR_RESPONSE].trailers, p); break;
    case OP_FILTER_STATE: set_filter_state(v, s, p); break;
    case OP_PROTOCOL: set_protocol(v, s); break;
    case OP_RESPONSE_CODE: set_number(v, s->status); break;
    case OP_RESPONSE_CODE_DETAILS:
        set_text(v, s->details.n != 0 ? s->details : str_of(end_reason_details(s->reason)));
        break;
    case OP_RESPONSE_FLAGS: set_text(v, str_of(end_reason_flag(s->reason))); break;
    case OP_BYTES_RECEIVED: set_number(v, s->side[DIR_REQUEST].body_bytes); break;
    case OP_BYTES_SENT: set_number(v, s->side[DIR_RESPONSE].body_bytes_out); break;
    case OP_REQUEST_HEADERS_BYTES: set_head_bytes(v, s, DIR_REQUEST); break;
    case OP_RESPONSE_HEADERS_BYTES: set_head_bytes(v, s, DIR_RESPONSE); break;
    case OP_DURATION: set_span(v, s->start_ns, s->end_ns); break;
    case OP_REQUEST_DURATION: set_span(v, s->start_ns, s->request_end_ns); break;
    case OP_RESPONSE_DURATION: set_span(v, s->start_ns, s->up_head_ns); break;
    case OP_RESPONSE_TX_DURATION: set_span(v, s->up_head_ns, s->end_ns); break;
    case OP_UPSTREAM_HOST: set_text(v, s->endpoint != NULL ? str_of(s->endpoint->text) : STR_NONE); break;
    case OP_UPSTREAM_IP: set_addr(v, s->endpoint != NULL ? &s->endpoint->addr : NULL, false); break;
    case OP_UPSTREAM_PORT: set_port(v, s->endpoint != NULL ? &s->endpoint->addr : NULL); break;
    case OP_UPSTREAM_CLUSTER: set_text(v, s->cluster != NULL ? str_of(s->cluster->key) : STR_NONE); break;
    case OP_UPSTREAM_LOCAL_ADDRESS: set_addr(v, &s->up_local, true); break;
    case OP_UPSTREAM_LOCAL_IP: set_addr(v, &s->up_local, false); break;
    case OP_UPSTREAM_LOCAL_PORT: set_port(v, &s->up_local); break;
    case OP_ATTEMPTS: set_number(v, s->attempts); break;
    case OP_REMOTE: set_addr(v, &s->remote, true); break;
    case OP_REMOTE_IP: set_addr(v, &s->remote, false); break;
    case OP_REMOTE_PORT: set_port(v, &s->remote); break;
    case OP_PEER: set_addr(v, &s->peer, true); break;
    case OP_PEER_IP: set_addr(v, &s->peer, false); break;
    case OP_PEER_PORT: set_port(v, &s->peer); break;
    case OP_LOCAL: set_addr(v, &s->local, true); break;
    case OP_LOCAL_IP: set_addr(v, &s->local, false); break;
    case OP_LOCAL_PORT: set_port(v, &s->local); break;
    case OP_ROUTE_NAME: set_text(v, s->route.route != NULL ? str_of(s->route.route->name) : STR_NONE); break;
    case OP_STREAM_ID: set_text(v, s->request_id); break;
    case OP_CONNECTION_ID: set_number(v, s->conn_id); break;
    case OP_END_REASON: set_text(v, str_of(end_reason_details(s->reason))); break;
    case OP_RESPONSE_FLAGS_LONG: set_text(v, str_of(long_flag(end_reason_flag(s->reason)))); break;
    case OP_GRPC_STATUS: set_grpc_status(v, s, false, p->u.snake); break;
    case OP_GRPC_STATUS_NUMBER: set_grpc_status(v, s, true, false); break;
    case OP_PATH: set_path(v, s, p); break;
    case OP_QUERY_PARAM: set_query_param(v, s, str_span(p->text, p->text_bytes)); break;
    case OP_COMMON_DURATION: set_common_duration(v, s, p); break;
    case OP_DOWN_WIRE_RECEIVED: set_number(v, s->down_wire.received); break;
    case OP_DOWN_WIRE_SENT: set_number(v, s->down_wire.sent); break;
    case OP_UP_WIRE_RECEIVED: set_number(v, s->up_wire.received); break;
    case OP_UP_WIRE_SENT: set_number(v, s->up_wire.sent); break;
    case OP_UPSTREAM_PROTOCOL: set_text(v, s->up_start_ns != 0 ? STR("HTTP/1.1") : STR_NONE); break;
    case OP_LITERAL:
    case OP_HOSTNAME:
    case OP_ENVIRONMENT:
    case OP_ACCESS_LOG_TYPE:
    case OP_ABSENT: break;
    }
}

/* ---- writing ---- */

#define EACH_BYTE(b) (UINT64_C(0x0101010101010101) * (b))

/* Does any byte of the word need care: a control byte, '"', '\\', 0x7f or beyond? Each term sets the top bit of a byte
 * that does (or of one above it, which is as good: then one does). */
static bool word_is_plain(uint64_t w)
{
    uint64_t quote = w ^ EACH_BYTE('"'), backslash = w ^ EACH_BYTE('\\'), rubout = w ^ EACH_BYTE(0x7f);
    uint64_t care =
        w | (w - EACH_BYTE(0x20)) | (quote - EACH_BYTE(1)) | (backslash - EACH_BYTE(1)) | (rubout - EACH_BYTE(1));
    return (care & EACH_BYTE(0x80)) == 0;
}

/* Printable ASCII that means nothing in text or JSON. */
static bool is_plain(struct str s)
{
    uint64_t w;
    for (; s.n >= sizeof(w); s = str_from(s, sizeof(w))) {
        memcpy(&w, s.p, sizeof(w));
        if (!word_is_plain(w))
            return false;
    }
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c < 0x20 || c >= 0x7f || c == '"' || c == '\\')
            return false;
    }
    return true;
}

/* A JSON string, with or without its quotes. */
static void write_json(struct strbuf *out, struct str s, bool quotes)
{
    if (is_plain(s)) {
        if (quotes)
            strbuf_addc(out, '"');
        strbuf_add(out, s);
        if (quotes)
            strbuf_addc(out, '"');
        return;
    }
    size_t at = out->n;
    strbuf_add_json(out, s);
    if (!quotes) {
        out->n -= 2;
        memmove(out->p + at, out->p + at + 1, out->n - at);
    }
}

static void write_value(const struct log_piece *p, struct value *v, struct strbuf *out)
{
    if (v->kind == VALUE_NONE) {
        strbuf_add(out, p->form == FORM_JSON ? STR("null") : STR("-"));
        return;
    }
    if (v->kind == VALUE_NUMBER) {
        strbuf_add(out, decimal(v->number, v->room));
        return;
    }
    if (p->limit != 0 && v->text.n > p->limit)
        v->text.n = p->limit;
    size_t from = out->n;
    if (p->form != FORM_TEXT)
        write_json(out, v->text, p->form == FORM_JSON);
    else if (is_plain(v->text))
        strbuf_add(out, v->text);
    else
        strbuf_add_escaped(out, v->text);
    /* A word among words; Envoy, too, lets no space into it. */
    for (size_t i = from; p->op == OP_RESPONSE_CODE_DETAILS && i < out->n; i++)
        out->p[i] = out->p[i] == ' ' ? '_' : out->p[i];
}

void access_log_write(const struct access_log *log, struct stream *s, struct strbuf *out)
{
    for (size_t i = 0; i < log->count; i++) {
        const struct log_piece *p = &log->pieces[i];
        if (p->op == OP_LITERAL) {
            strbuf_add(out, str_span(p->text, p->text_bytes));
            continue;
        }
        struct value v;
        v.kind = VALUE_NONE;
        value_of(p, s, &v);
        write_value(p, &v, out);
    }
}
