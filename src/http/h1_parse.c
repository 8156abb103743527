/* SPDX-License-Identifier: Apache-2.0
 *
 * Heads of HTTP/1 messages (RFC 9112 sections 2 to 6). Two passes: find_head_end looks for the empty line, going on
 * where it stopped when more bytes come; then the head is copied once into the arena and cut up in place. Framing is
 * decided before a single hop-by-hop field is removed, so that `Connection: content-length` cannot change it. The
 * result must not depend on how the bytes were split, and nothing that two servers could read in two ways may pass.
 */
#include "http/h1_field.h"

/* Looks for the end of the head beginning at base. line_max bounds the first line. */
static enum parse find_head_end(struct str in, size_t base, const struct h1_limits *limits, size_t line_max,
                                size_t *from, size_t *end, const char **why)
{
    size_t n = in.n < limits->head_bytes ? in.n : limits->head_bytes;

    if (n > base && n - base > line_max && memchr(in.p + base, '\n', line_max) == NULL)
        return *why = "request target too long", PARSE_URI_TOO_LONG;
    for (size_t at = *from > base ? *from : base; at < n; at++) {
        const char *lf = memchr(in.p + at, '\n', n - at);
        if (lf == NULL)
            break;
        at = (size_t)(lf - in.p);
        if (at == base || lf[-1] != '\r')
            return *why = "bare LF", PARSE_BAD;
        if (at >= base + 3 && lf[-2] == '\n')
            return *end = at + 1, PARSE_DONE;
    }
    *from = n;
    if (in.n >= limits->head_bytes)
        return *why = "head too large", PARSE_HEAD_TOO_LARGE;
    return PARSE_MORE;
}

static bool copy_head(struct arena *arena, struct str in, char **head)
{
    *head = arena_try_alloc(arena, in.n);
    if (*head != NULL)
        memcpy(*head, in.p, in.n);
    return *head != NULL;
}

/* "HTTP/1.x" followed by `after`; 10 or 11 in *version. */
static enum parse parse_version(const char *p, const char *end, uint8_t *version, const char **why)
{
    if (end - p < 9 || memcmp(p, "HTTP/", 5) != 0 || !h1_is(p[5], H1_DIGIT) || p[6] != '.' || !h1_is(p[7], H1_DIGIT))
        return *why = "bad HTTP version", PARSE_BAD;
    if (p[5] != '1')
        return *why = "HTTP version not supported", PARSE_BAD_VERSION;
    *version = p[7] == '0' ? 10 : 11;
    return PARSE_DONE;
}

struct request_line {
    struct str method, target;
    struct str authority; /* of an absolute-form target; p NULL when there is none */
    struct str path;
};

static enum parse parse_request_line(char **at, const char *end, const struct h1_limits *limits,
                                     struct request_line *line, uint8_t *version, const char **why)
{
    char *p = *at;
    enum parse r;

    while (h1_is(*p, H1_TOKEN))
        p++;
    line->method = str_span(*at, (size_t)(p - *at));
    if (line->method.n == 0 || line->method.n > H1_METHOD_MAX || *p != ' ')
        return *why = "bad method", PARSE_BAD;
    line->target.p = ++p;
    while (h1_is(*p, H1_TARGET))
        p++;
    line->target.n = (size_t)(p - line->target.p);
    if (line->target.n == 0 || *p != ' ')
        return *why = "bad byte in the request target", PARSE_BAD;
    if (line->target.n > limits->uri_bytes)
        return *why = "request target too long", PARSE_URI_TOO_LONG;
    p++;
    r = parse_version(p, end, version, why);
    if (r != PARSE_DONE)
        return r;
    if (p[8] != '\r' || p[9] != '\n')
        return *why = "bad end of the request line", PARSE_BAD;
    *at = p + 10;
    return PARSE_DONE;
}

/* http://authority[/path][?query] (RFC 9112 3.2.2). */
static enum parse parse_absolute_form(struct arena *arena, struct request_line *line, const char **why)
{
    struct str t = line->target, rest;
    size_t scheme = t.n > 7 && str_ieq(str_upto(t, 7), STR("http://"))    ? 7
                    : t.n > 8 && str_ieq(str_upto(t, 8), STR("https://")) ? 8
                                                                          : 0;
    size_t n = 0;

    if (scheme == 0)
        return *why = "bad request target", PARSE_BAD;
    t = str_from(t, scheme);
    while (n < t.n && t.p[n] != '/' && t.p[n] != '?')
        n++;
    line->authority = str_upto(t, n);
    if (!h1_is_authority(line->authority))
        return *why = "bad authority in the request target", PARSE_BAD;
    rest = str_from(t, n);
    if (rest.n == 0) {
        line->path = str_is(line->method, "OPTIONS") ? STR("*") : STR("/");
    } else if (rest.p[0] == '/') {
        line->path = rest;
    } else {
        char *p = arena_try_alloc(arena, rest.n + 1);
        if (p == NULL)
            return *why = "no memory left for the head", PARSE_HEAD_TOO_LARGE;
        p[0] = '/';
        memcpy(p + 1, rest.p, rest.n);
        line->path = str_span(p, rest.n + 1);
    }
    return PARSE_DONE;
}

static enum parse parse_target(struct arena *arena, struct request_line *line, const char **why)
{
    line->authority = STR_NONE;
    line->path = line->target;
    if (str_is(line->method, "CONNECT"))
        return *why = "CONNECT is not supported", PARSE_UNSUPPORTED;
    if (line->target.p[0] == '/')
        return PARSE_DONE;
    if (str_is(line->target, "*"))
        return str_is(line->method, "OPTIONS") ? PARSE_DONE : (*why = "bad request target", PARSE_BAD);
    return parse_absolute_form(arena, line, why);
}

static enum parse decide_host(const struct request_line *line, const struct h1_fields *f, struct message *msg,
                              const char **why)
{
    struct header *authority = &msg->headers.list[2];

    if (f->hosts > 1)
        return *why = "more than one Host", PARSE_BAD;
    if (f->hosts == 1 && !h1_is_authority(f->host))
        return *why = "bad Host", PARSE_BAD;
    if (f->hosts == 0 && msg->version == 11)
        return *why = "no Host", PARSE_BAD;
    authority->value = line->authority.p != NULL ? line->authority : f->host;
    msg->headers.bytes += authority->value.n;
    if (authority->value.n == 0)
        headers_remove_at(&msg->headers, 2);
    return PARSE_DONE;
}

/* A request without framing fields has no body (RFC 9112 6.3, case 7). */
static void decide_request_body(const struct h1_fields *f, struct message *msg)
{
    msg->body = f->chunked ? BODY_CHUNKED : f->lengths > 0 ? BODY_LENGTH : BODY_NONE;
    msg->content_length = f->length;
    msg->expect_continue =
        f->expect_continue && msg->version == 11 && (f->chunked || (f->lengths > 0 && f->length > 0));
}

static void decide_upgrade(const struct h1_fields *f, struct message *msg)
{
    if (!f->option_upgrade || f->upgrades != 1 || msg->version != 11 || !h1_is_upgrade_protocol(f->upgrade))
        return;
    if (msg->status == 0 && (msg->body == BODY_CHUNKED || (msg->body == BODY_LENGTH && msg->content_length > 0)))
        return;
    if (msg->status == 0)
        msg->body = BODY_NONE;
    msg->upgrade = true;
    headers_add_borrowed(&msg->headers, STR("connection"), STR("upgrade"), HDR_CONNECTION);
    headers_add_borrowed(&msg->headers, STR("upgrade"), f->upgrade, HDR_UPGRADE);
}

static void begin_message(struct message *msg, struct arena *arena, const struct h1_limits *limits)
{
    memset(msg, 0, sizeof *msg);
    headers_init(&msg->headers, arena, limits->head_bytes * 2, limits->headers * 2);
}

static enum parse parse_request_head(char *head, size_t n, const struct h1_limits *limits, struct arena *arena,
                                     struct message *msg, const char **why)
{
    struct request_line line;
    struct h1_fields fields;
    const char *end = head + n;
    enum parse r;

    begin_message(msg, arena, limits);
    r = parse_request_line(&head, end, limits, &line, &msg->version, why);
    if (r == PARSE_DONE)
        r = parse_target(arena, &line, why);
    if (r != PARSE_DONE)
        return r;
    headers_add_borrowed(&msg->headers, STR(":method"), line.method, HDR_METHOD);
    headers_add_borrowed(&msg->headers, STR(":scheme"), STR("http"), HDR_SCHEME);
    headers_add_borrowed(&msg->headers, STR(":authority"), STR_NONE, HDR_AUTHORITY);
    headers_add_borrowed(&msg->headers, STR(":path"), line.path, HDR_PATH);
    r = h1_fields_parse(&fields, head, end, limits, msg->version, &msg->headers, why);
    if (r != PARSE_DONE)
        return r;
    r = decide_host(&line, &fields, msg, why);
    if (r != PARSE_DONE)
        return r;
    decide_request_body(&fields, msg);
    msg->keep_alive = !fields.option_close && (msg->version == 11 || fields.option_keep_alive);
    h1_fields_remove_named(&fields, &msg->headers);
    if (fields.te_trailers)
        headers_add_borrowed(&msg->headers, STR("te"), STR("trailers"), HDR_TE);
    decide_upgrade(&fields, msg);
    return PARSE_DONE;
}

enum parse h1_parse_request(struct str in, const struct h1_limits *limits, size_t *from, struct arena *arena,
                            struct message *msg, size_t *used, const char **why)
{
    size_t base = 0, end;
    enum parse r;
    char *head;

    *why = NULL;
    if (in.n > 0 && in.p[0] == '\r') { /* one empty line before a request is tolerated */
        if (in.n > 1 && in.p[1] != '\n')
            return *why = "bare CR", PARSE_BAD;
        base = 2;
    }
    if (in.n <= base)
        return PARSE_MORE;
    if (!h1_is(in.p[base], H1_TOKEN))
        return *why = "bad method", PARSE_BAD;
    r = find_head_end(in, base, limits, limits->uri_bytes + H1_METHOD_MAX + 16, from, &end, why);
    if (r != PARSE_DONE)
        return r;
    if (!copy_head(arena, str_span(in.p + base, end - base), &head))
        return *why = "no memory left for the head", PARSE_HEAD_TOO_LARGE;
    r = parse_request_head(head, end - base, limits, arena, msg, why);
    msg->head_bytes = *used = end;
    return r;
}

/* "HTTP/1.1 200 Fine\r\n"; the reason phrase, and the space before it, may be missing. */
static enum parse parse_status_line(char **at, const char *end, struct message *msg, const char **why)
{
    const char *p = *at;
    enum parse r = parse_version(p, end, &msg->version, why);

    if (r != PARSE_DONE)
        return r;
    if (p[8] != ' ' || end - p < 14 || !h1_is(p[9], H1_DIGIT) || !h1_is(p[10], H1_DIGIT) || !h1_is(p[11], H1_DIGIT) ||
        p[9] == '0')
        return *why = "bad status code", PARSE_BAD;
    msg->status = (uint16_t)((p[9] - '0') * 100 + (p[10] - '0') * 10 + (p[11] - '0'));
    headers_add_borrowed(&msg->headers, STR(":status"), str_span(p + 9, 3), HDR_STATUS);
    p += 12;
    if (*p != '\r' && *p != ' ')
        return *why = "bad status code", PARSE_BAD;
    while ((p = h1_find_control(p, end)) < end && *p == '\t')
        p++;
    if (end - p < 2 || p[0] != '\r' || p[1] != '\n')
        return *why = "bad byte in the reason phrase", PARSE_BAD;
    *at += p + 2 - *at;
    return PARSE_DONE;
}

/* RFC 9112 6.3. */
static void decide_response_body(const struct h1_fields *f, struct str method, struct message *msg)
{
    msg->content_length = f->length;
    bool none = msg->status < 200 || msg->status == 204 || msg->status == 304 || str_is(method, "HEAD");

    if (msg->status == 101 || (!none && msg->status < 300 && str_is(method, "CONNECT")))
        msg->body = BODY_TUNNEL;
    else if (none)
        msg->body = BODY_NONE;
    else
        msg->body = f->chunked ? BODY_CHUNKED : f->lengths > 0 ? BODY_LENGTH : BODY_CLOSE;
    msg->keep_alive = !f->option_close && (msg->version == 11 || f->option_keep_alive) && msg->body != BODY_CLOSE &&
                      msg->body != BODY_TUNNEL;
}

static enum parse parse_response_head(char *head, size_t n, const struct h1_limits *limits, struct str method,
                                      struct arena *arena, struct message *msg, const char **why)
{
    struct h1_fields fields;
    const char *end = head + n;
    enum parse r;

    begin_message(msg, arena, limits);
    r = parse_status_line(&head, end, msg, why);
    if (r == PARSE_DONE)
        r = h1_fields_parse(&fields, head, end, limits, msg->version, &msg->headers, why);
    if (r != PARSE_DONE)
        return r;
    decide_response_body(&fields, method, msg);
    if (fields.hosts > 0)
        headers_add_borrowed(&msg->headers, STR("host"), fields.host, HDR_HOST);
    h1_fields_remove_named(&fields, &msg->headers);
    if (msg->status == 101)
        decide_upgrade(&fields, msg);
    return PARSE_DONE;
}

enum parse h1_parse_response(struct str in, const struct h1_limits *limits, size_t *from, struct str method,
                             struct arena *arena, struct message *msg, size_t *used, const char **why)
{
    size_t end;
    enum parse r;
    char *head;

    *why = NULL;
    if (in.n == 0)
        return PARSE_MORE;
    if (in.p[0] != 'H')
        return *why = "not an HTTP/1 response", PARSE_BAD;
    r = find_head_end(in, 0, limits, SIZE_MAX, from, &end, why);
    if (r != PARSE_DONE)
        return r;
    if (!copy_head(arena, str_upto(in, end), &head))
        return *why = "no memory left for the head", PARSE_HEAD_TOO_LARGE;
    r = parse_response_head(head, end, limits, method, arena, msg, why);
    msg->head_bytes = *used = end;
    return r;
}
