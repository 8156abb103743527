/* SPDX-License-Identifier: Apache-2.0
 *
 * What a YAML scalar means to kubectl and istiod: both read YAML 1.1 through Go's yaml.v2, so that `on` is a boolean,
 * `010` is eight and a date is a string. A reader of YAML 1.2 would hand plugins other configurations than a cluster
 * does.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "conf/number.h"
#include "conf/ydoc.h"

static const char tag_prefix[] = "tag:yaml.org,2002:";

struct word {
    const char *text;
    enum node_type type;
    bool value;
};
static const struct word words[] = {
    {"y", NODE_BOOL, true},      {"Y", NODE_BOOL, true},      {"yes", NODE_BOOL, true},    {"Yes", NODE_BOOL, true},
    {"YES", NODE_BOOL, true},    {"true", NODE_BOOL, true},   {"True", NODE_BOOL, true},   {"TRUE", NODE_BOOL, true},
    {"on", NODE_BOOL, true},     {"On", NODE_BOOL, true},     {"ON", NODE_BOOL, true},     {"n", NODE_BOOL, false},
    {"N", NODE_BOOL, false},     {"no", NODE_BOOL, false},    {"No", NODE_BOOL, false},    {"NO", NODE_BOOL, false},
    {"false", NODE_BOOL, false}, {"False", NODE_BOOL, false}, {"FALSE", NODE_BOOL, false}, {"off", NODE_BOOL, false},
    {"Off", NODE_BOOL, false},   {"OFF", NODE_BOOL, false},   {"", NODE_NULL, false},      {"~", NODE_NULL, false},
    {"null", NODE_NULL, false},  {"Null", NODE_NULL, false},  {"NULL", NODE_NULL, false},
};

static bool is_not_finite_word(struct str s)
{
    static const char *const list[] = {".nan", ".NaN", ".NAN", ".inf", ".Inf", ".INF"};
    if (s.n == 5 && (s.p[0] == '+' || s.p[0] == '-') && !str_is(str_from(s, 2), "nan") &&
        !str_is(str_from(s, 2), "NaN") && !str_is(str_from(s, 2), "NAN"))
        s = str_from(s, 1);
    for (size_t i = 0; i < ARRAY_LEN(list); i++) {
        if (str_is(s, list[i]))
            return true;
    }
    return false;
}

static unsigned digit_value(char c)
{
    if (c >= '0' && c <= '9')
        return (unsigned)(c - '0');
    if (c >= 'a' && c <= 'f')
        return (unsigned)(c - 'a') + 10;
    if (c >= 'A' && c <= 'F')
        return (unsigned)(c - 'A') + 10;
    return 99;
}

/* Go's ParseInt and ParseUint with base 0: 0x, 0o, 0b, or a leading zero for octal. */
static bool read_integer(struct str s, bool *negative, uint64_t *out)
{
    *negative = s.n != 0 && s.p[0] == '-';
    if (s.n != 0 && (s.p[0] == '-' || s.p[0] == '+'))
        s = str_from(s, 1);
    if (s.n == 0)
        return false;
    unsigned base = 10;
    if (s.p[0] == '0' && s.n > 1) {
        char c = s.n >= 3 ? (char)(s.p[1] | 0x20) : '0';
        base = c == 'x' ? 16 : c == 'b' ? 2 : 8;
        s = str_from(s, c == 'x' || c == 'b' || c == 'o' ? 2 : 1);
    }
    uint64_t value = 0;
    for (size_t i = 0; i < s.n; i++) {
        unsigned digit = digit_value(s.p[i]);
        if (digit >= base || value > (UINT64_MAX - digit) / base)
            return false;
        value = value * base + digit;
    }
    *out = value;
    return true;
}

/* [-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)? */
static bool looks_like_float(struct str s)
{
    size_t at = 0, before = 0, after = 0;
    if (at < s.n && (s.p[at] == '-' || s.p[at] == '+'))
        at++;
    for (; at < s.n && digit_value(s.p[at]) < 10; at++)
        before++;
    if (at < s.n && s.p[at] == '.') {
        for (at++; at < s.n && digit_value(s.p[at]) < 10; at++)
            after++;
    }
    if (before == 0 && after == 0)
        return false;
    if (at < s.n && (s.p[at] == 'e' || s.p[at] == 'E')) {
        at++;
        if (at < s.n && (s.p[at] == '-' || s.p[at] == '+'))
            at++;
        size_t first = at;
        while (at < s.n && digit_value(s.p[at]) < 10)
            at++;
        if (at == first)
            return false;
    }
    return at == s.n;
}

static struct node *number_node(struct conf_memory *memory, double v, unsigned line, unsigned col)
{
    struct node *n = node_new(memory, NODE_FLOAT, line, col);
    n->u.number = v;
    return n;
}

/* NULL when text (NUL-terminated, without underscores) is no number. */
static struct node *read_number(struct conf_memory *memory, struct str text, unsigned line, unsigned col)
{
    bool negative;
    uint64_t magnitude;
    if (read_integer(text, &negative, &magnitude)) {
        if (negative ? magnitude <= (uint64_t)INT64_MAX + 1 : magnitude <= INT64_MAX) {
            struct node *n = node_new(memory, NODE_INT, line, col);
            n->u.integer = negative ? (int64_t)(0 - magnitude) : (int64_t)magnitude;
            return n;
        }
        if (!negative && text.p[0] != '+')
            return number_node(memory, (double)magnitude, line, col);
    }
    if (!looks_like_float(text))
        return NULL;
    double v = strtod(text.p, NULL);
    return isfinite(v) ? number_node(memory, v, line, col) : NULL;
}

static struct node *resolve_plain(struct ydoc *d, struct conf_memory *memory, struct str text, unsigned line,
                                  unsigned col)
{
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        if (!str_is(text, words[i].text))
            continue;
        struct node *n = node_new(memory, words[i].type, line, col);
        if (n->type == NODE_BOOL)
            n->u.boolean = words[i].value;
        return n;
    }
    if (is_not_finite_word(text)) {
        ydoc_add_problem(d, memory, line, col, "%.*s has no form in JSON", STR_ARG(text));
        return node_new(memory, NODE_NULL, line, col);
    }
    char first = text.p[0];
    if (first == '.')
        return looks_like_float(text) ? read_number(memory, text, line, col) : NULL;
    if (first != '+' && first != '-' && digit_value(first) > 9)
        return NULL;
    char *plain = memory_str(memory, text);
    size_t n = 0;
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] != '_')
            plain[n++] = text.p[i];
    }
    plain[n] = '\0';
    return read_number(memory, str_span(plain, n), line, col);
}

static struct node *read_binary(struct ydoc *d, struct conf_memory *memory, struct str text, unsigned line,
                                unsigned col)
{
    size_t n;
    uint8_t *bytes = memory_alloc(memory, text.n / 4 * 3 + 4);
    if (!number_parse_base64(text, bytes, &n)) {
        ydoc_add_problem(d, memory, line, col, "!!binary value contains invalid base64 data");
        n = 0;
    } else if (!str_is_utf8(str_span(bytes, n))) {
        ydoc_add_problem(d, memory, line, col, "!!binary value is not UTF-8 text");
        n = 0;
    }
    return node_new_string(memory, str_span(bytes, n), line, col);
}

/* An explicit !!int, !!float, !!bool or !!null must fit the value. */
static bool tag_fits(const char *tag, const struct node *n)
{
    if (strcmp(tag, "int") == 0)
        return n->type == NODE_INT;
    if (strcmp(tag, "float") == 0)
        return n->type == NODE_FLOAT || n->type == NODE_INT;
    if (strcmp(tag, "bool") == 0)
        return n->type == NODE_BOOL;
    return strcmp(tag, "null") != 0 || n->type == NODE_NULL;
}

struct node *yscalar_read(struct ydoc *d, struct conf_memory *memory, struct str text, const char *tag, bool plain,
                          unsigned line, unsigned col)
{
    const char *name = NULL;
    if (tag != NULL && strncmp(tag, tag_prefix, sizeof tag_prefix - 1) == 0)
        name = tag + sizeof tag_prefix - 1;
    if (name != NULL && strcmp(name, "binary") == 0)
        return read_binary(d, memory, text, line, col);
    bool typed = name != NULL && (strcmp(name, "int") == 0 || strcmp(name, "float") == 0 || strcmp(name, "bool") == 0 ||
                                  strcmp(name, "null") == 0);
    if (!typed && (tag != NULL || !plain))
        return node_new_string(memory, text, line, col);
    struct node *n = resolve_plain(d, memory, text, line, col);
    if (n == NULL)
        n = node_new_string(memory, text, line, col);
    if (typed && !tag_fits(name, n))
        ydoc_add_problem(d, memory, line, col, "cannot decode !!%s `%.*s` as a !!%s",
                         n->type == NODE_STRING ? "str" : node_type_name(n), STR_ARG(text), name);
    return n;
}

bool yscalar_key(struct conf_memory *memory, const struct node *n, struct str *key)
{
    struct strbuf b = {0};
    switch (n->type) {
    case NODE_STRING: *key = n->u.string; return true;
    case NODE_BOOL: *key = n->u.boolean ? STR("true") : STR("false"); return true;
    case NODE_INT: strbuf_printf(&b, "%lld", (long long)n->u.integer); break;
    case NODE_FLOAT: number_write_key(&b, n->u.number); break;
    default: return false;
    }
    key->p = memory_str(memory, strbuf_str(&b));
    key->n = b.n;
    strbuf_free(&b);
    return true;
}
