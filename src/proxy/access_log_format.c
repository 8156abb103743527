/* SPDX-License-Identifier: Apache-2.0
 *
 * Compiles access log formats. Everything that can be wrong with one is found here, so that writing a line cannot fail;
 * literals are escaped here once and for all.
 */
#include "proxy/access_log_format.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <jansson.h>

struct compiler {
    struct access_log *log;
    struct diag *diag;
    enum log_form form;
};

static bool fail(const struct compiler *c, const char *message, struct str what)
{
    diag_add(c->diag, DIAG_ERROR, NULL, 0, 0, "access-log-format", "%s: \"%.*s\"", message, STR_ARG(what));
    return false;
}

static struct log_piece *piece_add(struct compiler *c, enum log_op op)
{
    struct access_log *log = c->log;
    if (log->count == log->cap) {
        log->cap = log->cap != 0 ? 2 * log->cap : 32;
        log->pieces = mem_realloc(log->pieces, log->cap * sizeof(*log->pieces));
    }
    ASSERT(log->pieces != NULL);
    struct log_piece *p = &log->pieces[log->count++];
    *p = (struct log_piece){.op = op, .form = c->form};
    return p;
}

static void set_text(struct log_piece *p, struct str text)
{
    p->text = str_dup(text);
    p->text_bytes = text.n;
}

/* Bytes that go into the line as they are. */
static void add_raw(struct compiler *c, struct str text)
{
    struct access_log *log = c->log;
    struct log_piece *last = log->count != 0 ? &log->pieces[log->count - 1] : NULL;
    if (last == NULL || last->op != OP_LITERAL) {
        set_text(piece_add(c, OP_LITERAL), text);
        return;
    }
    last->text = mem_realloc(last->text, last->text_bytes + text.n + 1);
    memcpy(last->text + last->text_bytes, text.p, text.n);
    last->text_bytes += text.n;
    last->text[last->text_bytes] = '\0';
}

static void add_literal(struct compiler *c, struct str text)
{
    if (text.n == 0)
        return;
    if (c->form == FORM_TEXT) {
        add_raw(c, text);
        return;
    }
    struct strbuf quoted = {0};
    strbuf_add_json(&quoted, text);
    add_raw(c, str_span(quoted.p + 1, quoted.n - 2));
    strbuf_free(&quoted);
}

/* ---- operators ---- */

enum args { ARGS_NONE, ARGS_MAYBE, ARGS_NEEDED };
static const struct {
    const char *name;
    enum log_op op;
    enum args args;
} operators[] = {
#define X(op, name, args) {name, OP_##op, ARGS_##args},
    LOG_OPERATORS(X)
#undef X
};

/* Days from 0000-03-01 let the leap day be the last of its year; a 400-year cycle has 146,097 of them. */
void log_time_split(int64_t seconds, struct tm *out)
{
    int64_t days = seconds / 86400, rest = seconds % 86400;
    if (rest < 0) {
        rest += 86400;
        days--;
    }
    int64_t shifted = days + 719468;
    int64_t era = (shifted >= 0 ? shifted : shifted - 146096) / 146097;
    int64_t day = shifted - era * 146097;
    int64_t year = (day - day / 1460 + day / 36524 - day / 146096) / 365;
    int64_t of_year = day - (365 * year + year / 4 - year / 100); /* from March on */
    int64_t month = (5 * of_year + 2) / 153;
    *out = (struct tm){0};
    out->tm_mday = (int)(of_year - (153 * month + 2) / 5 + 1);
    out->tm_mon = (int)(month < 10 ? month + 2 : month - 10);
    year += era * 400 + (out->tm_mon < 2);
    out->tm_year = (int)(year - 1900);
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    out->tm_yday = (int)(out->tm_mon < 2 ? of_year - 306 : of_year + 59 + leap);
    out->tm_wday = (int)(((days + 4) % 7 + 7) % 7);
    out->tm_hour = (int)(rest / 3600);
    out->tm_min = (int)(rest / 60 % 60);
    out->tm_sec = (int)(rest % 60);
    out->tm_zone = "UTC";
}

static bool add_strftime(struct compiler *c, struct str format)
{
    if (format.n == 0)
        return true;
    char *text = str_dup(format);
    struct tm tm;
    char out[LOG_TIME_MAX];
    log_time_split(0, &tm);
    bool fits = strftime(out, sizeof(out), text, &tm) != 0;
    mem_free(text);
    if (!fits)
        return fail(c, "time format is empty or too long", format);
    set_text(piece_add(c, OP_TIME), format);
    return true;
}

/* strftime's specifiers, and Envoy's: %s (seconds since 1970), %3f and %f (digits of the second), %E3S (%S.%3f). */
static bool add_time(struct compiler *c, struct str format)
{
    size_t from = 0, i = 0;
    while (i < format.n) {
        if (format.p[i] != '%' || i + 1 == format.n) {
            i++;
            continue;
        }
        size_t at = i + 1;
        bool extended = format.p[at] == 'E' && at + 2 < format.n && format.p[at + 2] == 'S';
        at += extended;
        uint32_t digits = 9;
        if (format.p[at] >= '1' && format.p[at] <= '9' && at + 1 < format.n)
            digits = (uint32_t)(format.p[at++] - '0');
        else if (extended && format.p[at] == '*')
            at++;
        else if (extended)
            extended = false;
        if (!extended && format.p[at] != 'f' && format.p[at] != 's') {
            i += 2;
            continue;
        }
        if (!add_strftime(c, (struct str){format.p + from, i - from}))
            return false;
        if (extended && !add_strftime(c, STR("%S.")))
            return false;
        if (format.p[at] == 's')
            piece_add(c, OP_TIME_SECONDS);
        else
            piece_add(c, OP_TIME_FRACTION)->digits = digits;
        from = i = at + 1;
    }
    return add_strftime(c, str_from(format, from));
}

static char *lower_dup(struct str s)
{
    char *z = str_dup(s);
    for (char *p = z; *p != '\0'; p++)
        *p = *p >= 'A' && *p <= 'Z' ? (char)(*p | 0x20) : *p;
    return z;
}

/* "X?Y": header X, or Y where X is absent. */
static bool add_header(struct compiler *c, enum log_op op, struct str args, uint32_t limit)
{
    struct str other = args, name = str_split(&other, '?');
    if (name.n == 0 || (other.p != NULL && other.n == 0))
        return fail(c, "header name is missing", args);
    struct log_piece *p = piece_add(c, op);
    p->limit = limit;
    p->text = lower_dup(name);
    p->text_bytes = name.n;
    p->other = other.p != NULL ? lower_dup(other) : NULL;
    p->id = header_id_of(str_of(p->text));
    p->other_id = p->other != NULL ? header_id_of(str_of(p->other)) : HDR_OTHER;
    return true;
}

/* "key:PLAIN". Other serialisations would need to know types, which a guest's bytes have not. */
static bool add_filter_state(struct compiler *c, struct str args, uint32_t limit)
{
    struct str how = args, key = str_split(&how, ':');
    if (key.n == 0)
        return fail(c, "key of FILTER_STATE is missing", args);
    if (how.p != NULL && !str_is(how, "PLAIN") && !str_is(how, "TYPED"))
        return fail(c, "FILTER_STATE can be written as PLAIN only", args);
    struct log_piece *p = piece_add(c, OP_FILTER_STATE);
    p->limit = limit;
    set_text(p, key);
    return true;
}

static void add_hostname(struct compiler *c)
{
    char name[256] = "";
    (void)gethostname(name, sizeof(name) - 1);
    add_literal(c, str_of(name[0] != '\0' ? name : "-"));
}

/* A literal that is a value: null where there is none. */
static void add_value(struct compiler *c, const char *text, uint32_t limit)
{
    struct str value = text != NULL ? str_of(text) : STR_NONE;

    if (value.n == 0) {
        piece_add(c, OP_ABSENT);
        return;
    }
    value = limit != 0 && limit < value.n ? str_upto(value, limit) : value;
    if (c->form != FORM_TEXT) {
        add_literal(c, value);
        return;
    }
    struct strbuf escaped = {0};
    strbuf_add_escaped(&escaped, value);
    add_raw(c, strbuf_str(&escaped));
    strbuf_free(&escaped);
}

/* Where the format comes from decides whether it may be used: access_log_reads_environment. */
static bool add_environment(struct compiler *c, struct str name, uint32_t limit)
{
    char *z = str_dup(name);

    c->log->reads_environment = true;
    add_value(c, getenv(z), limit);
    mem_free(z);
    return true;
}

/* "WQ" or "NQ" (the query), then what of the path. */
static bool add_path(struct compiler *c, struct str args, uint32_t limit)
{
    static const char *const sources[] = {"ORIG_OR_PATH", "ORIG", "PATH"};
    struct str source = args, query = str_split(&source, ':');
    size_t i = 0;

    if (query.n != 0 && !str_is(query, "WQ") && !str_is(query, "NQ"))
        return fail(c, "PATH is with (WQ) or without (NQ) the query", args);
    while (source.n != 0 && i < ARRAY_LEN(sources) && !str_is(source, sources[i]))
        i++;
    if (i == ARRAY_LEN(sources))
        return fail(c, "PATH is one of ORIG, PATH, ORIG_OR_PATH", args);
    struct log_piece *p = piece_add(c, OP_PATH);
    p->limit = limit;
    p->u.path.source = (enum log_path_source)i;
    p->u.path.without_query = str_is(query, "NQ");
    return true;
}

static bool add_grpc_status(struct compiler *c, struct str how, uint32_t limit)
{
    if (str_is(how, "NUMBER")) {
        piece_add(c, OP_GRPC_STATUS_NUMBER);
        return true;
    }
    if (how.n != 0 && !str_is(how, "CAMEL_STRING") && !str_is(how, "SNAKE_STRING"))
        return fail(c, "GRPC_STATUS is CAMEL_STRING, SNAKE_STRING or NUMBER", how);
    struct log_piece *p = piece_add(c, OP_GRPC_STATUS);
    p->limit = limit;
    p->u.snake = str_is(how, "SNAKE_STRING");
    return true;
}

static bool find_point(const struct compiler *c, struct str name, enum log_point *out)
{
    static const struct {
        const char *name;
        enum log_point point;
    } points[] = {{"DS_RX_BEG", POINT_REQUEST_BEGIN}, {"DS_RX_END", POINT_REQUEST_END},  {"US_TX_BEG", POINT_UP_SENT},
                  {"US_RX_BEG", POINT_UP_HEAD},       {"DS_TX_END", POINT_RESPONSE_END}, {"US_HS_END", POINT_NEVER}};
    static const char *const unmeasured[] = {"US_CX_BEG",      "US_CX_END", "US_TX_END",
                                             "US_RX_BODY_BEG", "US_RX_END", "DS_TX_BEG"};

    for (size_t i = 0; i < ARRAY_LEN(unmeasured); i++)
        if (str_is(name, unmeasured[i]))
            return fail(c, "this point of COMMON_DURATION is not measured", name);
    *out = POINT_NEVER;
    for (size_t i = 0; i < ARRAY_LEN(points); i++)
        if (str_is(name, points[i].name))
            *out = points[i].point;
    return name.n != 0 || fail(c, "COMMON_DURATION is START:END:ms, us or ns", name);
}

/* "START:END:PRECISION" */
static bool add_common_duration(struct compiler *c, struct str args, uint32_t limit)
{
    struct str unit = args, from = str_split(&unit, ':'), to = str_split(&unit, ':');
    uint64_t ns = str_is(unit, "ms") ? 1000000 : str_is(unit, "us") ? 1000 : str_is(unit, "ns") ? 1 : 0;
    enum log_point begin, end;

    if (ns == 0)
        return fail(c, "COMMON_DURATION is START:END:ms, us or ns", args);
    if (!find_point(c, from, &begin) || !find_point(c, to, &end))
        return false;
    struct log_piece *p = piece_add(c, OP_COMMON_DURATION);
    p->limit = limit;
    p->u.span.from = begin;
    p->u.span.to = end;
    p->u.span.unit_ns = ns;
    return true;
}

static void add_query_param(struct compiler *c, struct str name, uint32_t limit)
{
    struct log_piece *p = piece_add(c, OP_QUERY_PARAM);

    p->limit = limit;
    set_text(p, name);
}

static bool add_operator(struct compiler *c, struct str name, struct str args, uint32_t limit)
{
    size_t i = 0;
    while (i < ARRAY_LEN(operators) && !str_is(name, operators[i].name))
        i++;
    if (i == ARRAY_LEN(operators))
        return fail(c, "unknown operator", name);
    if (args.p != NULL && operators[i].args == ARGS_NONE)
        return fail(c, "operator takes nothing in parentheses", name);
    if (args.n == 0 && operators[i].args == ARGS_NEEDED)
        return fail(c, "operator needs something in parentheses", name);
    switch (operators[i].op) {
    case OP_START_TIME:
        if (args.n != 0)
            return add_time(c, args);
        break;
    case OP_REQ:
    case OP_RESP:
    case OP_TRAILER: return add_header(c, operators[i].op, args, limit);
    case OP_FILTER_STATE: return add_filter_state(c, args, limit);
    case OP_HOSTNAME: add_hostname(c); return true;
    case OP_ACCESS_LOG_TYPE: add_literal(c, STR("DownstreamEnd")); return true;
    case OP_ENVIRONMENT: return add_environment(c, args, limit);
    case OP_PATH: return add_path(c, args, limit);
    case OP_QUERY_PARAM: add_query_param(c, args, limit); return true;
    case OP_GRPC_STATUS: return add_grpc_status(c, args, limit);
    case OP_COMMON_DURATION: return add_common_duration(c, args, limit);
    default: break;
    }
    piece_add(c, operators[i].op)->limit = limit;
    return true;
}

/* "NAME(args):12%" at the start of *rest, without its first '%'. */
static bool parse_operator(struct compiler *c, struct str *rest)
{
    struct str s = *rest, args = STR_NONE;
    size_t n = 0;
    while (n < s.n && ((s.p[n] >= 'A' && s.p[n] <= 'Z') || (s.p[n] >= '0' && s.p[n] <= '9') || s.p[n] == '_'))
        n++;
    struct str name = str_upto(s, n);
    s = str_from(s, n);
    if (s.n != 0 && s.p[0] == '(') {
        ptrdiff_t close = str_find(s, ')');
        if (close < 0)
            return fail(c, "parenthesis is not closed", *rest);
        args = (struct str){s.p + 1, (size_t)close - 1};
        s = str_from(s, (size_t)close + 1);
    }
    uint64_t limit = 0;
    if (s.n != 0 && s.p[0] == ':') {
        struct str digits = str_from(s, 1);
        ptrdiff_t end = str_find(digits, '%');
        digits.n = end >= 0 ? (size_t)end : digits.n;
        if (!str_to_u64(digits, 1 << 20, &limit) || limit == 0)
            return fail(c, "bad length", *rest);
        s = str_from(s, digits.n + 1);
    }
    if (n == 0 || s.n == 0 || s.p[0] != '%')
        return fail(c, "not an operator (a plain percent sign is %%)", *rest);
    *rest = str_from(s, 1);
    return add_operator(c, name, args, (uint32_t)limit);
}

static bool compile(struct compiler *c, struct str format)
{
    while (format.n != 0) {
        ptrdiff_t percent = str_find(format, '%');
        add_literal(c, percent < 0 ? format : str_upto(format, (size_t)percent));
        if (percent < 0)
            break;
        format = str_from(format, (size_t)percent + 1);
        if (format.n != 0 && format.p[0] == '%') {
            add_literal(c, STR("%"));
            format = str_from(format, 1);
        } else if (!parse_operator(c, &format)) {
            return false;
        }
    }
    return true;
}

bool log_format_text(struct access_log *log, struct str format, struct diag *diag)
{
    struct compiler c = {.log = log, .diag = diag, .form = FORM_TEXT};
    if (format.n != 0 && format.p[format.n - 1] == '\n')
        format.n--;
    for (size_t i = 0; i < format.n; i++) {
        if ((unsigned char)format.p[i] < 0x20 && format.p[i] != '\t')
            return fail(&c, "a format is one line without control characters", format);
    }
    return compile(&c, format);
}

/* ---- JSON ---- */

/* A string of one operator becomes a value with a type; any other stays a string. */
static bool json_format(struct compiler *c, struct str format)
{
    struct access_log part = {0};
    struct compiler inner = {.log = &part, .diag = c->diag, .form = FORM_JSON_INNER};
    bool ok = compile(&inner, format);
    bool single = part.count == 1 && part.pieces[0].op != OP_LITERAL;
    if (!single)
        add_raw(c, STR("\""));
    for (size_t i = 0; i < part.count; i++) {
        struct log_piece *p = &part.pieces[i];
        if (p->op == OP_LITERAL) {
            add_raw(c, str_span(p->text, p->text_bytes));
            mem_free(p->text);
            continue;
        }
        p->form = single ? FORM_JSON : FORM_JSON_INNER;
        *piece_add(c, p->op) = *p;
    }
    if (!single)
        add_raw(c, STR("\""));
    c->log->reads_environment = c->log->reads_environment || part.reads_environment;
    mem_free(part.pieces);
    return ok;
}

static bool json_value(struct compiler *c, json_t *value);

static bool json_members(struct compiler *c, json_t *object)
{
    const char *key, *comma = "{";
    json_t *value;
    bool ok = true;
    json_object_foreach(object, key, value)
    {
        struct strbuf name = {0};
        strbuf_addz(&name, comma);
        strbuf_add_json(&name, str_of(key));
        strbuf_addc(&name, ':');
        add_raw(c, strbuf_str(&name));
        strbuf_free(&name);
        ok = json_value(c, value) && ok;
        comma = ",";
    }
    add_raw(c, json_object_size(object) != 0 ? STR("}") : STR("{}"));
    return ok;
}

static bool json_value(struct compiler *c, json_t *value)
{
    if (json_is_string(value))
        return json_format(c, str_span(json_string_value(value), json_string_length(value)));
    if (json_is_object(value))
        return json_members(c, value);
    if (json_is_array(value))
        return fail(c, "lists are not supported", STR("[]"));
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    ASSERT(text != NULL);
    add_raw(c, str_of(text));
    free(text);
    return true;
}

bool log_format_json(struct access_log *log, struct str object, struct diag *diag)
{
    struct compiler c = {.log = log, .diag = diag, .form = FORM_JSON};
    json_error_t error;
    json_t *root = json_loadb(object.n != 0 ? object.p : "", object.n, JSON_REJECT_DUPLICATES, &error);
    if (root == NULL)
        return fail(&c, error.text, object);
    bool ok = json_is_object(root) ? json_members(&c, root) : fail(&c, "a JSON format is an object of formats", object);
    json_decref(root);
    return ok;
}
