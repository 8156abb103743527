/* SPDX-License-Identifier: Apache-2.0
 *
 * What the filters of an HTTPRoute do to a message: header modifiers, URL rewrites, redirects, as the Gateway API v1
 * has them. They act on what a client sent, so a rewrite whose prefix is not there (any more) leaves the path as it is,
 * and no name or path made here is anything but what was configured plus what had been accepted already.
 */
#include "proxy/route.h"

/* ---- header modifiers ---- */

/* `host` of a request is ":authority"; it can be replaced, not added to or removed. Pseudo-headers are not for rules.
 */
enum target { TARGET_FIELD, TARGET_AUTHORITY, TARGET_NONE };
static enum target target_of(const struct headers *h, struct str name)
{
    if (name.n == 0 || name.p[0] == ':')
        return TARGET_NONE;
    bool request = headers_get_id(h, HDR_METHOD) != NULL;
    return request && str_ieq(name, STR("host")) ? TARGET_AUTHORITY : TARGET_FIELD;
}

enum headers_result route_modify_headers(const struct header_modifier *m, struct headers *h)
{
    enum headers_result result = HEADERS_OK;
    for (size_t i = 0; i < m->set_count + m->add_count && result == HEADERS_OK; i++) {
        bool set = i < m->set_count;
        const struct header_value *v = set ? &m->set[i] : &m->add[i - m->set_count];
        struct str name = str_of(v->name), value = str_of(v->value);
        enum target target = target_of(h, name);
        if (target == TARGET_AUTHORITY)
            result = headers_set_id(h, HDR_AUTHORITY, value);
        else if (target == TARGET_FIELD)
            result = set ? headers_set(h, name, value) : headers_add(h, name, value);
    }
    for (size_t i = 0; i < m->remove_count; i++) {
        struct str name = str_of(m->remove[i]);
        if (target_of(h, name) == TARGET_FIELD)
            headers_remove(h, name);
    }
    return result;
}

/* ---- paths ---- */

static struct str without_last_slash(struct str s)
{
    if (s.n != 0 && s.p[s.n - 1] == '/')
        s.n--;
    return s;
}

/* Replaces the matched prefix, element by element: slashes between what stays and what comes are neither doubled nor
 * lost. False when the path does not begin with it. */
static bool replace_prefix(struct str path, struct str prefix, struct str value, struct strbuf *out)
{
    prefix = without_last_slash(prefix);
    if (!str_starts(path, prefix) || (path.n > prefix.n && path.p[prefix.n] != '/'))
        return false;
    struct str rest = str_from(path, prefix.n);
    value = without_last_slash(value);
    if (value.n + rest.n == 0 || (value.n != 0 && value.p[0] != '/'))
        strbuf_addc(out, '/');
    strbuf_add(out, value);
    strbuf_add(out, rest);
    return true;
}

/* The path of a request after m, with its query (unless what replaces the path brings its own). */
static void modified_path(const struct path_modifier *m, const struct route_match *match, struct str path,
                          struct strbuf *out)
{
    struct str query = path;
    path = str_split(&query, '?');
    bool done = false, own_query = false;
    if (m != NULL && m->type == PATH_REPLACE_FULL) {
        struct str value = str_of(m->value);
        if (value.n == 0 || value.p[0] != '/')
            strbuf_addc(out, '/');
        strbuf_add(out, value);
        own_query = str_find(value, '?') >= 0;
        done = true;
    } else if (m != NULL && match != NULL && match->path.type == MATCH_PREFIX) {
        done = replace_prefix(path, str_of(match->path.value), str_of(m->value), out);
    }
    if (!done)
        strbuf_add(out, path);
    if (query.p != NULL && !own_query) {
        strbuf_addc(out, '?');
        strbuf_add(out, query);
    }
}

enum headers_result route_rewrite(const struct route_filter *f, const struct route_match *match,
                                  struct headers *request)
{
    enum headers_result result = HEADERS_OK;
    if (f->to.hostname != NULL)
        result = headers_set_id(request, HDR_AUTHORITY, str_of(f->to.hostname));
    if (f->to.path == NULL || result != HEADERS_OK)
        return result;
    struct str path = headers_value(request, HDR_PATH);
    if (path.n == 0 || path.p[0] != '/') /* "*" */
        return result;
    struct strbuf new_path = {0};
    modified_path(f->to.path, match, path, &new_path);
    result = headers_set_id(request, HDR_PATH, strbuf_str(&new_path));
    strbuf_free(&new_path);
    return result;
}

/* ---- redirects ---- */

static uint16_t known_port(struct str scheme)
{
    return str_ieq(scheme, STR("http")) ? 80 : str_ieq(scheme, STR("https")) ? 443 : 0;
}

static struct str without_port(struct str authority)
{
    bool literal = authority.n != 0 && authority.p[0] == '[';
    ptrdiff_t end = str_find(authority, literal ? ']' : ':');
    return end < 0 ? authority : str_upto(authority, (size_t)end + (literal ? 1 : 0));
}

/* "scheme://host[:port]". The port: the filter's; else the well-known one of the filter's scheme; else the listener's.
 * Left out where it is the scheme's own. */
static void add_origin(const struct route_filter *f, const struct headers *request, struct str host, uint16_t port,
                       struct strbuf *out)
{
    struct str scheme = f->to.scheme != NULL ? str_of(f->to.scheme) : headers_value(request, HDR_SCHEME);
    if (scheme.n == 0)
        scheme = STR("http");
    if (f->to.port != 0)
        port = f->to.port;
    else if (f->to.scheme != NULL && known_port(scheme) != 0)
        port = known_port(scheme);
    strbuf_add(out, scheme);
    strbuf_addz(out, "://");
    strbuf_add(out, host);
    if (port != known_port(scheme))
        strbuf_printf(out, ":%u", port);
}

void route_redirect_location(const struct route_filter *f, const struct route_match *match,
                             const struct headers *request, uint16_t port, struct strbuf *out)
{
    strbuf_clear(out);
    struct str host =
        f->to.hostname != NULL ? str_of(f->to.hostname) : without_port(headers_value(request, HDR_AUTHORITY));
    struct str path = headers_value(request, HDR_PATH);
    if (host.n != 0)
        add_origin(f, request, host, port, out);
    if (path.n == 0 || path.p[0] != '/') /* "*" */
        path = STR("/");
    modified_path(f->to.path, match, path, out);
    if (host.n == 0) {
        /* HTTP/1.0 without Host: a relative reference, which must not begin with "//" (RFC 3986 4.2). */
        size_t extra = 0;
        while (extra + 1 < out->n && out->p[extra + 1] == '/')
            extra++;
        out->n -= extra;
        memmove(out->p, out->p + extra, out->n);
    }
}
