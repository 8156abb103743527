/* SPDX-License-Identifier: Apache-2.0
 *
 * JSON (RFC 8259) into the same nodes as YAML, with places. Strict: what it refuses is tried as YAML by the caller, as
 * kubectl does. It must never read past the text nor recurse deeper than the depth limit.
 */
#include <math.h>
#include <stdlib.h>

#include "conf/ydoc.h"

struct json_reader {
    struct ydoc *doc;
    struct conf_memory *memory;
    struct str text;
    size_t at, line_start;
    unsigned line;
    uint32_t nodes;
};

static struct node *read_value(struct json_reader *r, unsigned depth);

static int peek(const struct json_reader *r) { return r->at < r->text.n ? (unsigned char)r->text.p[r->at] : -1; }

static void skip_space(struct json_reader *r)
{
    for (; r->at < r->text.n; r->at++) {
        char c = r->text.p[r->at];
        if (c == '\n') {
            r->line++;
            r->line_start = r->at + 1;
        } else if (c != ' ' && c != '\t' && c != '\r') {
            return;
        }
    }
}

static unsigned column(const struct json_reader *r) { return (unsigned)(r->at - r->line_start) + 1; }

static bool take(struct json_reader *r, char c)
{
    if (peek(r) != c)
        return false;
    r->at++;
    return true;
}

static bool read_hex4(struct json_reader *r, uint32_t *out)
{
    uint32_t v = 0;
    for (int i = 0; i < 4; i++, r->at++) {
        int c = peek(r);
        int digit = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
        if (c < 0 || digit < 0)
            return false;
        v = v << 4 | (uint32_t)digit;
    }
    *out = v;
    return true;
}

static void add_utf8(struct strbuf *b, uint32_t c)
{
    if (c < 0x80) {
        strbuf_addc(b, (char)c);
    } else if (c < 0x800) {
        strbuf_addc(b, (char)(0xc0 | c >> 6));
        strbuf_addc(b, (char)(0x80 | (c & 0x3f)));
    } else if (c < 0x10000) {
        strbuf_addc(b, (char)(0xe0 | c >> 12));
        strbuf_addc(b, (char)(0x80 | (c >> 6 & 0x3f)));
        strbuf_addc(b, (char)(0x80 | (c & 0x3f)));
    } else {
        strbuf_addc(b, (char)(0xf0 | c >> 18));
        strbuf_addc(b, (char)(0x80 | (c >> 12 & 0x3f)));
        strbuf_addc(b, (char)(0x80 | (c >> 6 & 0x3f)));
        strbuf_addc(b, (char)(0x80 | (c & 0x3f)));
    }
}

/* A lone surrogate becomes U+FFFD, as in Go. */
static bool read_unicode(struct json_reader *r, struct strbuf *b)
{
    uint32_t c, low;
    if (!read_hex4(r, &c))
        return false;
    if (c >= 0xd800 && c < 0xdc00 && r->at + 6 <= r->text.n && r->text.p[r->at] == '\\' &&
        r->text.p[r->at + 1] == 'u') {
        size_t back = r->at;
        r->at += 2;
        if (!read_hex4(r, &low))
            return false;
        if (low >= 0xdc00 && low < 0xe000) {
            add_utf8(b, 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00));
            return true;
        }
        r->at = back;
    }
    add_utf8(b, c >= 0xd800 && c < 0xe000 ? 0xfffd : c);
    return true;
}

static bool read_escape(struct json_reader *r, struct strbuf *b)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    int c = peek(r);
    if (c < 0)
        return false;
    r->at++;
    if (c == 'u')
        return read_unicode(r, b);
    const char *p = memchr(from, c, sizeof from - 1);
    if (p == NULL)
        return false;
    strbuf_addc(b, to[p - from]);
    return true;
}

static bool read_string(struct json_reader *r, struct str *out)
{
    struct strbuf b = {0};
    bool ok = take(r, '"');
    while (ok) {
        int c = peek(r);
        if (c < 0x20) {
            ok = false;
            break;
        }
        r->at++;
        if (c == '"')
            break;
        if (c == '\\')
            ok = read_escape(r, &b);
        else
            strbuf_addc(&b, (char)c);
    }
    if (ok)
        *out = str_span(memory_str(r->memory, strbuf_str(&b)), b.n);
    strbuf_free(&b);
    return ok;
}

static size_t skip_digits(struct json_reader *r)
{
    size_t first = r->at;
    while (peek(r) >= '0' && peek(r) <= '9')
        r->at++;
    return r->at - first;
}

static struct node *read_number(struct json_reader *r)
{
    unsigned col = column(r);
    size_t first = r->at;
    bool negative = take(r, '-');
    size_t first_digit = r->at, digits = skip_digits(r);
    if (digits == 0 || (digits > 1 && r->text.p[first_digit] == '0'))
        return NULL;
    bool whole = true;
    if (take(r, '.')) {
        whole = false;
        if (skip_digits(r) == 0)
            return NULL;
    }
    if (peek(r) == 'e' || peek(r) == 'E') {
        whole = false;
        r->at++;
        if (!take(r, '+'))
            (void)take(r, '-');
        if (skip_digits(r) == 0)
            return NULL;
    }
    uint64_t magnitude;
    if (whole && str_to_u64(str_span(r->text.p + first_digit, digits), INT64_MAX, &magnitude)) {
        struct node *n = node_new(r->memory, NODE_INT, r->line, col);
        n->u.integer = negative ? -(int64_t)magnitude : (int64_t)magnitude;
        return n;
    }
    struct node *n = node_new(r->memory, NODE_FLOAT, r->line, col);
    n->u.number = strtod(memory_str(r->memory, str_span(r->text.p + first, r->at - first)), NULL);
    return isfinite(n->u.number) ? n : NULL;
}

static struct node *read_word(struct json_reader *r)
{
    static const struct {
        struct str word;
        enum node_type type;
        bool value;
    } words[] = {{STR_INIT("true"), NODE_BOOL, true},
                 {STR_INIT("false"), NODE_BOOL, false},
                 {STR_INIT("null"), NODE_NULL, false}};
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        if (!str_starts(str_from(r->text, r->at), words[i].word))
            continue;
        struct node *n = node_new(r->memory, words[i].type, r->line, column(r));
        if (n->type == NODE_BOOL)
            n->u.boolean = words[i].value;
        r->at += words[i].word.n;
        return n;
    }
    return NULL;
}

static struct node *read_list(struct json_reader *r, unsigned depth)
{
    struct node *n = node_new(r->memory, NODE_LIST, r->line, column(r));
    size_t cap = 0;
    r->at++;
    skip_space(r);
    if (take(r, ']'))
        return n;
    do {
        struct node *item = read_value(r, depth + 1);
        if (item == NULL)
            return NULL;
        n->u.list.items = memory_grow(r->memory, n->u.list.items, n->u.list.count, &cap, sizeof(struct node *));
        n->u.list.items[n->u.list.count++] = item;
        skip_space(r);
    } while (take(r, ','));
    return take(r, ']') && node_seal(n) ? n : NULL;
}

static struct node *read_map(struct json_reader *r, unsigned depth)
{
    struct node *n = node_new(r->memory, NODE_MAP, r->line, column(r));
    size_t cap = 0;
    r->at++;
    skip_space(r);
    if (take(r, '}'))
        return n;
    do {
        skip_space(r);
        struct member m = {.line = r->line, .col = column(r)};
        if (!read_string(r, &m.key))
            return NULL;
        skip_space(r);
        if (!take(r, ':') || (m.value = read_value(r, depth + 1)) == NULL)
            return NULL;
        n->u.map.members = memory_grow(r->memory, n->u.map.members, n->u.map.count, &cap, sizeof m);
        n->u.map.members[n->u.map.count++] = m;
        skip_space(r);
    } while (take(r, ','));
    if (!take(r, '}'))
        return NULL;
    node_refuse_duplicates(r->doc, r->memory, n);
    return node_seal(n) ? n : NULL;
}

static struct node *read_value(struct json_reader *r, unsigned depth)
{
    skip_space(r);
    if (depth >= YDOC_MAX_DEPTH || ++r->nodes > YDOC_MAX_NODES)
        return NULL;
    int c = peek(r);
    if (c == '{')
        return read_map(r, depth);
    if (c == '[')
        return read_list(r, depth);
    if (c == '-' || (c >= '0' && c <= '9'))
        return read_number(r);
    if (c != '"')
        return read_word(r);
    unsigned line = r->line, col = column(r);
    struct str text;
    if (!read_string(r, &text))
        return NULL;
    struct node *n = node_new(r->memory, NODE_STRING, line, col);
    n->u.string = text;
    n->bytes = text.n;
    return n;
}

bool json_text_read(struct ydoc *d, struct conf_memory *memory, struct str text, size_t *at, unsigned *line,
                    size_t *line_start)
{
    struct json_reader r = {
        .doc = d, .memory = memory, .text = text, .at = *at, .line = *line, .line_start = *line_start};
    d->root = read_value(&r, 0);
    if (d->root == NULL)
        return false;
    skip_space(&r);
    /* "{a: b}" or "[x]: y" is YAML; after a JSON value only another one, or nothing, may follow. */
    if (r.at < text.n && text.p[r.at] != '{' && text.p[r.at] != '[')
        return false;
    *at = r.at;
    *line = r.line;
    *line_start = r.line_start;
    return true;
}
