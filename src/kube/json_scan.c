/* SPDX-License-Identifier: Apache-2.0
 *
 * See json_scan.h. One pass finds the end of a value; what must never happen is a read beyond the text, or recursion
 * that a peer can deepen.
 */
#include "kube/json_scan.h"

static bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

static void skip_spaces(struct str *rest)
{
    while (rest->n > 0 && is_space(rest->p[0]))
        *rest = str_from(*rest, 1);
}

/* Index behind the string that begins at `at`; 0: it does not end. */
static size_t string_end(struct str text, size_t at)
{
    for (at++; at < text.n; at++) {
        if (text.p[at] == '\\')
            at++;
        else if (text.p[at] == '"')
            return at + 1;
    }
    return 0;
}

static bool is_plain(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '+' ||
           c == '.';
}

/* Index behind the value that begins the text; 0: none does. */
static size_t value_end(struct str text)
{
    uint8_t stack[JSON_SCAN_DEPTH / 8] = {0}; /* a bit for each level: an object */
    size_t depth = 0, at = 0;
    while (at < text.n) {
        char c = text.p[at];
        if (c == '"') {
            if ((at = string_end(text, at)) == 0)
                return 0;
        } else if (c == '{' || c == '[') {
            if (depth == JSON_SCAN_DEPTH)
                return 0;
            uint8_t bit = (uint8_t)(1u << (depth % 8));
            stack[depth / 8] = (uint8_t)(c == '{' ? stack[depth / 8] | bit : stack[depth / 8] & ~bit);
            depth++;
            at++;
            continue;
        } else if (c == '}' || c == ']') {
            if (depth == 0)
                return 0;
            depth--;
            if (((stack[depth / 8] >> (depth % 8)) & 1) != (c == '}'))
                return 0;
            at++;
        } else if (depth > 0 && (c == ',' || c == ':' || is_space(c))) {
            at++;
            continue;
        } else if (is_plain(c)) {
            while (at < text.n && is_plain(text.p[at]))
                at++;
        } else {
            return 0;
        }
        if (depth == 0)
            return at;
    }
    return 0;
}

bool json_scan_value(struct str *rest, struct str *value)
{
    skip_spaces(rest);
    size_t end = value_end(*rest);
    if (end == 0)
        return false;
    *value = str_upto(*rest, end);
    *rest = str_from(*rest, end);
    skip_spaces(rest);
    return true;
}

struct json_iter json_iter(struct str text)
{
    struct json_iter it = {.rest = text};
    skip_spaces(&it.rest);
    if (it.rest.n == 0 || (it.rest.p[0] != '{' && it.rest.p[0] != '[')) {
        it.bad = true;
        return it;
    }
    it.close = it.rest.p[0] == '{' ? '}' : ']';
    it.rest = str_from(it.rest, 1);
    skip_spaces(&it.rest);
    return it;
}

static bool iter_end(struct json_iter *it, bool bad)
{
    it->bad = it->bad || bad;
    it->close = 0;
    return false;
}

bool json_iter_next(struct json_iter *it)
{
    if (it->bad || it->close == 0)
        return false;
    if (it->rest.n == 0)
        return iter_end(it, true);
    if (it->rest.p[0] == it->close)
        return iter_end(it, false);
    if (it->begun) {
        if (it->rest.p[0] != ',')
            return iter_end(it, true);
        it->rest = str_from(it->rest, 1);
    }
    it->begun = true;
    if (it->close == '}') {
        if (!json_scan_value(&it->rest, &it->key) || it->key.p[0] != '"' || it->rest.n == 0 || it->rest.p[0] != ':')
            return iter_end(it, true);
        it->key = str_span(it->key.p + 1, it->key.n - 2);
        it->rest = str_from(it->rest, 1);
    }
    if (!json_scan_value(&it->rest, &it->value))
        return iter_end(it, true);
    return true;
}

struct str json_get(struct str object, const char *key)
{
    struct json_iter it = json_iter(object);
    if (it.close != '}')
        return STR_NONE;
    while (json_iter_next(&it))
        if (str_is(it.key, key))
            return it.value;
    return STR_NONE;
}

/* ---- strings ---- */

static bool hex4(struct str s, uint32_t *out)
{
    if (s.n < 4)
        return false;
    *out = 0;
    for (size_t i = 0; i < 4; i++) {
        char c = s.p[i];
        uint32_t d;
        if (c >= '0' && c <= '9')
            d = (uint32_t)(c - '0');
        else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
            d = (uint32_t)((c | 0x20) - 'a' + 10);
        else
            return false;
        *out = *out * 16 + d;
    }
    return true;
}

static void add_utf8(struct strbuf *b, uint32_t c)
{
    if (c < 0x80) {
        strbuf_addc(b, (char)c);
        return;
    }
    if (c < 0x800) {
        strbuf_addc(b, (char)(0xc0 | (c >> 6)));
    } else if (c < 0x10000) {
        strbuf_addc(b, (char)(0xe0 | (c >> 12)));
        strbuf_addc(b, (char)(0x80 | ((c >> 6) & 0x3f)));
    } else {
        strbuf_addc(b, (char)(0xf0 | (c >> 18)));
        strbuf_addc(b, (char)(0x80 | ((c >> 12) & 0x3f)));
        strbuf_addc(b, (char)(0x80 | ((c >> 6) & 0x3f)));
    }
    strbuf_addc(b, (char)(0x80 | (c & 0x3f)));
}

/* \uXXXX, with its second half when it has one. */
static bool take_unicode(struct str *s, struct strbuf *out)
{
    uint32_t c, low;
    if (!hex4(*s, &c))
        return false;
    *s = str_from(*s, 4);
    if (c >= 0xd800 && c < 0xdc00 && s->n >= 6 && s->p[0] == '\\' && s->p[1] == 'u' && hex4(str_from(*s, 2), &low) &&
        low >= 0xdc00 && low < 0xe000) {
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
        *s = str_from(*s, 6);
    } else if (c >= 0xd800 && c < 0xe000) {
        c = 0xfffd;
    }
    add_utf8(out, c);
    return c != 0;
}

static bool take_escape(struct str *s, struct strbuf *out)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (s->n == 0)
        return false;
    char c = s->p[0];
    *s = str_from(*s, 1);
    if (c == 'u')
        return take_unicode(s, out);
    const char *at = c != '\0' ? strchr(from, c) : NULL;
    if (at == NULL)
        return false;
    strbuf_addc(out, to[at - from]);
    return true;
}

char *json_scan_string(struct str value)
{
    if (value.n < 2 || value.p[0] != '"' || value.p[value.n - 1] != '"')
        return NULL;
    struct str s = str_span(value.p + 1, value.n - 2);
    struct strbuf out = {0};
    bool ok = true;
    while (ok && s.n > 0) {
        char c = s.p[0];
        s = str_from(s, 1);
        if (c == '\\')
            ok = take_escape(&s, &out);
        else if (c == '\0')
            ok = false;
        else
            strbuf_addc(&out, c);
    }
    if (!ok) {
        strbuf_free(&out);
        return NULL;
    }
    return strbuf_take(&out);
}
