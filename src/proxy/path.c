/* SPDX-License-Identifier: Apache-2.0
 *
 * Path normalisation, so that filters, router, log and upstream judge one and the same path. It does what Envoy does
 * under Istio's policies (pathNormalization of MeshConfig): first escaped slashes are decoded (where the policy says
 * so), then dot segments, backslashes and escapes are brought to one form, then slashes are merged, in this order.
 *
 * What makes it hard: decoding must not make a new escape out of the pieces of a broken one ("%%32e" must not turn into
 * "%2e"), or a second look at the path would see another path. A '%' that would become one is escaped itself ("%25"),
 * as Envoy does. So the result is a fixed point, and it never grows. The one difference to Envoy: bytes that may stand
 * in a request target although RFC 3986 has them escaped (" < > ^ ` { | }) stay as the client sent them.
 */
#include "conf/limits.h"
#include "proxy/route.h"

struct writer {
    char *p;
    size_t n;
    size_t broken; /* index after the last '%' that began no escape in the input; 0: none */
};

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    char low = (char)(c | 0x20);
    return low >= 'a' && low <= 'f' ? low - 'a' + 10 : -1;
}

/* The byte that the escape at s.p[i] stands for, or -1. */
static int escape_at(struct str s, size_t i)
{
    if (s.n - i < 3 || s.p[i] != '%')
        return -1;
    int high = hex_value(s.p[i + 1]), low = hex_value(s.p[i + 2]);
    return high >= 0 && low >= 0 ? high * 16 + low : -1;
}

/* RFC 3986 2.3 */
static bool is_unreserved(int c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '-' || c == '.' ||
           c == '_' || c == '~';
}

static bool is_slash(char c) { return c == '/' || c == '\\'; }

/* Length of the dot at s.p[i], plain or escaped; 0 when there is none. */
static size_t dot_at(struct str s, size_t i)
{
    if (i < s.n && s.p[i] == '.')
        return 1;
    return i < s.n && escape_at(s, i) == '.' ? 3 : 0;
}

enum dots { DOTS_NAME, DOTS_CURRENT, DOTS_UP };

/* Is the segment that begins at i "." or ".."? *used: its length with the slash after it. */
static enum dots segment_at(struct str s, size_t i, size_t *used)
{
    size_t at = i + dot_at(s, i);
    enum dots kind = DOTS_CURRENT;
    if (dot_at(s, at) != 0) {
        at += dot_at(s, at);
        kind = DOTS_UP;
    }
    if (at < s.n && !is_slash(s.p[at]))
        return DOTS_NAME;
    *used = at - i + (at < s.n);
    return kind;
}

/* Drops the last segment; the first slash stays. */
static void back_up(struct writer *w)
{
    if (w->n > 1)
        w->n--;
    while (w->n > 1 && w->p[w->n - 1] != '/')
        w->n--;
    if (w->broken > w->n)
        w->broken = 0;
}

/* Adds a decoded byte. Where it, with what stands before it and `next` after it, would read as an escape, the '%' of
 * that is written as "%25": the bytes for it were saved when this one was decoded. */
static void put_decoded(struct writer *w, char c, struct str next)
{
    w->p[w->n++] = c;
    if (w->broken == 0 || w->n - w->broken > 2)
        return;
    bool complete = w->n - w->broken == 2;
    char second = complete ? w->p[w->n - 1] : (next.n != 0 ? next.p[0] : '\0');
    if (hex_value(w->p[w->broken]) < 0 || hex_value(second) < 0)
        return;
    memmove(w->p + w->broken + 2, w->p + w->broken, w->n - w->broken);
    w->p[w->broken] = '2';
    w->p[w->broken + 1] = '5';
    w->n += 2;
    w->broken = 0;
}

/* One escape at in.p[*i]; false: refused. */
static bool copy_escape(struct writer *w, struct str in, size_t *i)
{
    int value = escape_at(in, *i);
    if (value == 0)
        return false;
    if (value < 0) {
        w->p[w->n++] = '%';
        w->broken = w->n;
        *i += 1;
        return true;
    }
    if (is_unreserved(value)) {
        *i += 3;
        put_decoded(w, (char)value, str_from(in, *i));
        return true;
    }
    memmove(w->p + w->n, in.p + *i, 3);
    w->n += 3;
    *i += 3;
    return true;
}

/* `in` may be the memory written to: what is written never overtakes what is read. */
static bool canonicalize(struct writer *w, struct str in)
{
    for (size_t i = 0; i < in.n;) {
        size_t dot = dot_at(in, i), used = 0;
        if (dot != 0) {
            enum dots kind = w->n != 0 && w->p[w->n - 1] == '/' ? segment_at(in, i, &used) : DOTS_NAME;
            if (kind == DOTS_UP)
                back_up(w);
            else if (kind == DOTS_NAME)
                w->p[w->n++] = '.';
            i += kind == DOTS_NAME ? dot : used;
        } else if (in.p[i] == '%') {
            if (!copy_escape(w, in, &i))
                return false;
        } else {
            if (in.p[i] == '\0')
                return false;
            w->p[w->n++] = in.p[i] == '\\' ? '/' : in.p[i];
            i++;
        }
    }
    return true;
}

static size_t decode_slashes(struct str in, char *out)
{
    size_t n = 0;
    for (size_t i = 0; i < in.n;) {
        int value = escape_at(in, i);
        bool slash = value == '/' || value == '\\';
        out[n++] = slash ? (char)value : in.p[i];
        i += slash ? 3 : 1;
    }
    return n;
}

static size_t merge_slashes(char *p, size_t n)
{
    size_t to = 0;
    for (size_t i = 0; i < n; i++) {
        if (p[i] != '/' || to == 0 || p[to - 1] != '/')
            p[to++] = p[i];
    }
    return to;
}

/* Most paths are in their normal form already: one pass that finds nothing. */
static bool is_normal(struct str path, bool merge)
{
    for (size_t i = 0; i < path.n; i++) {
        char c = path.p[i];
        if (c == '%' || c == '\\' || c == '\0')
            return false;
        if (c == '/' && i + 1 < path.n && (path.p[i + 1] == '.' || (merge && path.p[i + 1] == '/')))
            return false;
    }
    return true;
}

bool path_normalize(unsigned policy, struct str path, char *buf, struct str *out)
{
    *out = path;
    if (policy == PATH_NONE || path.n == 0 || path.p[0] != '/')
        return true;
    ptrdiff_t question = str_find(path, '?');
    struct str in = question >= 0 ? str_upto(path, (size_t)question) : path;
    if (is_normal(in, policy != PATH_BASE))
        return true;

    struct str query = str_from(path, in.n);
    if (policy == PATH_DECODE_AND_MERGE_SLASHES)
        in = str_span(buf, decode_slashes(in, buf));
    struct writer w = {.p = buf};
    if (!canonicalize(&w, in))
        return false;
    if (policy != PATH_BASE)
        w.n = merge_slashes(w.p, w.n);
    ASSERT(w.n + query.n <= path.n);
    if (query.n != 0)
        memcpy(buf + w.n, query.p, query.n);
    *out = str_span(buf, w.n + query.n);
    return true;
}
