/* SPDX-License-Identifier: Apache-2.0
 *
 * Field lines. What makes it hard is what people have hidden in them: space before the colon, folded lines, second
 * lengths, codings in disguise, a Connection that names what another server needs. A line is either exactly
 * `token ":" OWS value OWS CRLF` or the message is refused; nothing is ever repaired.
 */
#include "http/h1_field.h"

/* One line at *at, which lies in memory that ends with CRLF. */
static enum parse parse_line(char **at, const char *end, struct str *name, struct str *value, const char **why)
{
    char *p = *at, lower;
    const char *from, *to;

    while ((lower = h1_lower_of(*p)) != 0)
        *p++ = lower;
    *name = str_span(*at, (size_t)(p - *at));
    if (name->n == 0)
        return *why = *p == ' ' || *p == '\t' ? "folded field line" : "bad field name", PARSE_BAD;
    if (*p != ':')
        return *why = *p == ' ' || *p == '\t' ? "space before the colon" : "bad field name", PARSE_BAD;
    p++;
    while (*p == ' ' || *p == '\t')
        p++;
    from = to = p;
    while ((to = h1_find_control(to, end)) < end && *to == '\t')
        to++;
    if (end - to < 2 || to[0] != '\r' || to[1] != '\n')
        return *why = "bad byte in a field value", PARSE_BAD;
    *at += to + 2 - *at;
    while (to > from && (to[-1] == ' ' || to[-1] == '\t'))
        to--;
    *value = str_span(from, (size_t)(to - from));
    return PARSE_DONE;
}

static enum parse take_length(struct h1_fields *f, struct str value, const char **why)
{
    if (f->lengths++ > 0)
        return *why = "more than one Content-Length", PARSE_BAD;
    if (!str_to_u64(value, INT64_MAX, &f->length))
        return *why = "bad Content-Length", PARSE_BAD;
    return PARSE_DONE;
}

static bool list_has(struct str list, struct str word)
{
    while (list.p != NULL)
        if (str_ieq(str_trim(str_split(&list, ',')), word))
            return true;
    return false;
}

/* Does this field stop here? Then *keep is false. */
static enum parse take_special(struct h1_fields *f, enum header_id id, struct str value, bool *keep, const char **why)
{
    *keep = false;
    switch (id) {
    case HDR_HOST:
        f->host = value;
        f->hosts++;
        break;
    case HDR_CONTENT_LENGTH: *keep = true; return take_length(f, value, why);
    case HDR_TRANSFER_ENCODING:
        f->codings++;
        f->chunked = str_ieq(value, STR("chunked"));
        break;
    case HDR_CONNECTION:
        if (f->connection_count == H1_MAX_CONNECTIONS)
            return *why = "too many Connection fields", PARSE_BAD;
        f->connections[f->connection_count++] = value;
        break;
    case HDR_UPGRADE:
        f->upgrade = value;
        f->upgrades++;
        break;
    case HDR_TE: f->te_trailers = f->te_trailers || list_has(value, STR("trailers")); break;
    case HDR_KEEP_ALIVE:
    case HDR_PROXY_CONNECTION:
    case HDR_TRAILER: break;
    case HDR_EXPECT:
        f->expect_continue = str_ieq(value, STR("100-continue"));
        *keep = true;
        break;
    default: *keep = true;
    }
    return PARSE_DONE;
}

/* RFC 9112 6.1 and 6.3, without the leniency. */
static enum parse check_framing(const struct h1_fields *f, unsigned version, const char **why)
{
    if (f->codings == 0)
        return PARSE_DONE;
    if (f->lengths > 0)
        return *why = "Content-Length with Transfer-Encoding", PARSE_BAD;
    if (version == 10)
        return *why = "Transfer-Encoding in HTTP/1.0", PARSE_BAD;
    if (f->codings > 1 || !f->chunked)
        return *why = "Transfer-Encoding is not chunked", PARSE_BAD;
    return PARSE_DONE;
}

static enum parse read_options(struct h1_fields *f, const char **why)
{
    unsigned count = 0;

    for (unsigned i = 0; i < f->connection_count; i++) {
        struct str rest = f->connections[i];
        while (rest.p != NULL) {
            struct str option = str_trim(str_split(&rest, ','));
            if (option.n == 0)
                continue;
            if (!h1_is_token(option) || ++count > H1_MAX_OPTIONS)
                return *why = "bad Connection", PARSE_BAD;
            if (str_ieq(option, STR("close")))
                f->option_close = true;
            else if (str_ieq(option, STR("keep-alive")))
                f->option_keep_alive = true;
            else if (str_ieq(option, STR("upgrade")))
                f->option_upgrade = true;
            else
                f->option_named = true;
        }
    }
    return PARSE_DONE;
}

enum parse h1_fields_parse(struct h1_fields *f, char *p, const char *end, const struct h1_limits *limits,
                           unsigned version, struct headers *out, const char **why)
{
    size_t count = 0;
    enum parse r;

    memset(f, 0, sizeof *f);
    while (*p != '\r') {
        struct str name, value;
        bool keep = true;
        enum header_id id;

        r = parse_line(&p, end, &name, &value, why);
        if (r != PARSE_DONE)
            return r;
        if (++count > limits->headers)
            return *why = "too many header fields", PARSE_HEAD_TOO_LARGE;
        id = header_id_of(name);
        if (id != HDR_OTHER) {
            r = take_special(f, id, value, &keep, why);
            if (r != PARSE_DONE)
                return r;
        }
        if (keep)
            headers_add_borrowed(out, name, value, id);
    }
    if (end - p != 2 || p[1] != '\n')
        return *why = "bare CR", PARSE_BAD;
    r = check_framing(f, version, why);
    return r == PARSE_DONE ? read_options(f, why) : r;
}

void h1_fields_remove_named(const struct h1_fields *f, struct headers *out)
{
    if (f->upgrades > 0) /* goes with the h2c upgrade, named in Connection or not */
        headers_remove(out, STR("http2-settings"));
    if (!f->option_named)
        return;
    for (unsigned i = 0; i < f->connection_count; i++) {
        struct str rest = f->connections[i];
        while (rest.p != NULL) {
            struct str option = str_trim(str_split(&rest, ','));
            if (option.n > 0 && !str_ieq(option, STR("content-length")))
                headers_remove(out, option);
        }
    }
}

bool h1_is_trailer(enum header_id id)
{
    switch (id) {
    case HDR_HOST:
    case HDR_CONTENT_LENGTH:
    case HDR_TRANSFER_ENCODING:
    case HDR_CONNECTION:
    case HDR_UPGRADE:
    case HDR_TE:
    case HDR_KEEP_ALIVE:
    case HDR_PROXY_CONNECTION:
    case HDR_TRAILER:
    case HDR_EXPECT:
    case HDR_CONTENT_TYPE:
    case HDR_COOKIE:
    case HDR_SET_COOKIE:
    case HDR_PROXY_AUTHORIZATION:
    case HDR_PROXY_AUTHENTICATE: return false;
    default: return true;
    }
}

enum parse h1_trailers_parse(char *p, const char *end, const struct h1_limits *limits, struct headers *out,
                             const char **why)
{
    size_t count = 0;

    while (*p != '\r') {
        struct str name, value;
        enum header_id id;
        enum parse r = parse_line(&p, end, &name, &value, why);

        if (r != PARSE_DONE)
            return r;
        if (++count > limits->headers)
            return *why = "too many trailer fields", PARSE_HEAD_TOO_LARGE;
        id = header_id_of(name);
        if (h1_is_trailer(id))
            headers_add_borrowed(out, name, value, id);
    }
    if (end - p != 2 || p[1] != '\n')
        return *why = "bare CR", PARSE_BAD;
    return PARSE_DONE;
}
