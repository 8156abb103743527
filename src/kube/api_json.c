/* SPDX-License-Identifier: Apache-2.0
 *
 * See api_json.h. Text goes through conf's documents, whose limits on depth and size hold for everything below, so
 * recursion is bounded.
 */
#include "kube/api_json.h"

#include <math.h>

#include "conf/number.h"
#include "conf/ydoc.h"

/* ---- reading ---- */

static json_t *from_node(const struct node *n)
{
    json_t *j = NULL;
    switch (n->type) {
    case NODE_NULL: return json_null();
    case NODE_BOOL: return json_boolean(n->u.boolean);
    case NODE_INT: return json_integer(n->u.integer);
    case NODE_FLOAT: return json_real(n->u.number);
    case NODE_STRING: return json_stringn_nocheck(n->u.string.p, n->u.string.n);
    case NODE_LIST:
        j = json_array();
        for (size_t i = 0; i < n->u.list.count; i++)
            json_array_append_new(j, from_node(n->u.list.items[i]));
        return j;
    case NODE_MAP:
        j = json_object();
        for (size_t i = 0; i < n->u.map.count; i++)
            if (memchr(n->u.map.members[i].key.p, '\0', n->u.map.members[i].key.n) == NULL)
                json_object_set_new_nocheck(j, n->u.map.members[i].key.p, from_node(n->u.map.members[i].value));
        return j;
    }
    return NULL;
}

static char *problems_of(const struct ydoc *y)
{
    struct strbuf b = {0};
    for (size_t i = 0; i < y->problem_count; i++)
        strbuf_printf(&b, "%s%s", i > 0 ? ", " : "", y->problems[i].message);
    return y->problem_count > 0 ? strbuf_take(&b) : NULL;
}

json_t *json_of_text(struct str text, char **error, char **duplicate)
{
    json_t *j = NULL;
    *error = *duplicate = NULL;
    struct conf_memory *memory = memory_new();
    struct ydoc_stream *s = ydoc_open(text);
    struct ydoc y, more;
    enum ydoc_result r = ydoc_next(s, memory, &y);
    if (r == YDOC_DOCUMENT && y.root != NULL) {
        if (ydoc_next(s, memory, &more) == YDOC_DOCUMENT && more.root != NULL) {
            *error = mem_strdup("one object is expected here, not several documents");
        } else {
            j = from_node(y.root);
            *duplicate = problems_of(&y);
        }
    } else if (r == YDOC_ERROR) {
        unsigned line, col;
        const char *why = ydoc_error(s, &line, &col);
        *error = mem_printf("%u:%u: %s", line, col, why);
    } else {
        *error = mem_strdup("an object is expected here");
    }
    ydoc_close(s);
    memory_free(memory);
    return j;
}

/* ---- writing ---- */

static struct str string_of(const json_t *j) { return str_span(json_string_value(j), json_string_length(j)); }

static void put_number(struct strbuf *out, const json_t *j)
{
    if (json_is_integer(j))
        strbuf_printf(out, "%lld", (long long)json_integer_value(j));
    else
        number_write_json(out, isfinite(json_real_value(j)) ? json_real_value(j) : 0);
}

void json_put(struct strbuf *out, const json_t *j)
{
    const char *key;
    json_t *value;
    size_t i;
    const char *comma = "";
    switch (json_typeof(j)) {
    case JSON_OBJECT:
        strbuf_addc(out, '{');
        json_object_foreach((json_t *)(uintptr_t)j, key, value)
        {
            strbuf_addz(out, comma);
            strbuf_add_json(out, str_of(key));
            strbuf_addc(out, ':');
            json_put(out, value);
            comma = ",";
        }
        strbuf_addc(out, '}');
        break;
    case JSON_ARRAY:
        strbuf_addc(out, '[');
        json_array_foreach(j, i, value)
        {
            strbuf_addz(out, comma);
            json_put(out, value);
            comma = ",";
        }
        strbuf_addc(out, ']');
        break;
    case JSON_STRING: strbuf_add_json(out, string_of(j)); break;
    case JSON_INTEGER:
    case JSON_REAL: put_number(out, j); break;
    case JSON_TRUE: strbuf_addz(out, "true"); break;
    case JSON_FALSE: strbuf_addz(out, "false"); break;
    case JSON_NULL: strbuf_addz(out, "null"); break;
    }
}

/* Letters, then letters, digits and a few signs, and no word that YAML 1.1 takes for something else. */
static bool is_plain(struct str s)
{
    static const char *const words[] = {"y",  "n",   "yes",  "no",  "true", "false",
                                        "on", "off", "null", "nan", "inf",  "infinity"};
    if (s.n == 0 || s.n > 200)
        return false;
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (str_ieq(s, str_of(words[i])))
            return false;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        bool more = (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '/' || c == '_';
        bool colon = c == ':' && i + 1 < s.n && s.p[i + 1] != ' ';
        if (!letter && (i == 0 || (!more && !colon)))
            return false;
    }
    return true;
}

/* Bytes at i that JSON lets stand and YAML does not, or takes for a line's end: DEL, C1 controls, line and paragraph
 * separators, the byte order mark and what is no character. How many; 0: they may stand. */
static size_t is_unprintable(struct str s, size_t i, unsigned *code)
{
    const unsigned char *p = (const unsigned char *)s.p + i;
    size_t left = s.n - i;
    *code = p[0];
    if (p[0] == 0x7f)
        return 1;
    if (left >= 2 && p[0] == 0xc2 && p[1] < 0xa0)
        return *code = p[1], 2;
    if (left < 3)
        return 0;
    *code = (unsigned)(p[0] & 0x0f) << 12 | (unsigned)(p[1] & 0x3f) << 6 | (p[2] & 0x3f);
    bool odd =
        p[0] >= 0xe0 && p[0] < 0xf0 && (*code == 0x2028 || *code == 0x2029 || *code == 0xfeff || *code >= 0xfffe);
    return odd ? 3 : 0;
}

static void put_text(struct strbuf *out, struct str s)
{
    if (is_plain(s)) {
        strbuf_add(out, s);
        return;
    }
    /* A JSON string is a YAML double-quoted scalar, these apart. */
    struct strbuf json = {0};
    strbuf_add_json(&json, s);
    for (size_t i = 0; i < json.n;) {
        unsigned code;
        size_t n = is_unprintable(strbuf_str(&json), i, &code);
        if (n > 0)
            strbuf_printf(out, "\\u%04x", code);
        else
            strbuf_addc(out, json.p[i]);
        i += n > 0 ? n : 1;
    }
    strbuf_free(&json);
}

/* Lines of text that a block scalar keeps byte for byte: no line begins with a space, ends with one, or is not text. */
static bool is_block(struct str s)
{
    if (s.n < 2 || s.p[s.n - 1] != '\n' || s.p[s.n - 2] == '\n' || s.p[0] == '\n' || !str_is_utf8(s))
        return false;
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if ((c < 0x20 && c != '\n') || c == 0x7f || c >= 0x80)
            return false;
        if (c == ' ' && (i == 0 || s.p[i - 1] == '\n' || s.p[i + 1] == '\n'))
            return false;
    }
    return true;
}

static void indent(struct strbuf *out, unsigned depth)
{
    for (unsigned i = 0; i < depth; i++)
        strbuf_addz(out, "  ");
}

static void put_block(struct strbuf *out, struct str s, unsigned depth)
{
    strbuf_addz(out, "|\n");
    struct str rest = str_upto(s, s.n - 1);
    while (rest.p != NULL) {
        struct str line = str_split(&rest, '\n');
        if (line.n > 0)
            indent(out, depth);
        strbuf_add(out, line);
        strbuf_addc(out, '\n');
    }
}

static bool is_nested(const json_t *j)
{
    return (json_is_object(j) && json_object_size(j) > 0) || (json_is_array(j) && json_array_size(j) > 0);
}

/* After "key:" or "-". */
static void put_value(struct strbuf *out, const json_t *j, unsigned depth)
{
    if (json_is_string(j) && is_block(string_of(j))) {
        strbuf_addc(out, ' ');
        put_block(out, string_of(j), depth);
        return;
    }
    strbuf_addc(out, ' ');
    if (json_is_string(j))
        put_text(out, string_of(j));
    else
        json_put(out, j);
    strbuf_addc(out, '\n');
}

static void put_yaml(struct strbuf *out, const json_t *j, unsigned depth, bool in_list, size_t max)
{
    const char *key;
    json_t *value;
    size_t i;
    bool first = in_list; /* stands behind "- " already */
    if (json_is_object(j)) {
        json_object_foreach((json_t *)(uintptr_t)j, key, value)
        {
            if (out->n > max)
                return;
            if (!first)
                indent(out, depth);
            first = false;
            put_text(out, str_of(key));
            strbuf_addc(out, ':');
            if (is_nested(value)) {
                strbuf_addc(out, '\n');
                put_yaml(out, value, depth + (json_is_object(value) ? 1 : 0), false, max);
            } else {
                put_value(out, value, depth + 1);
            }
        }
        return;
    }
    json_array_foreach(j, i, value)
    {
        if (out->n > max)
            return;
        indent(out, depth);
        strbuf_addc(out, '-');
        if (json_is_object(value) && is_nested(value)) {
            strbuf_addc(out, ' ');
            put_yaml(out, value, depth + 1, true, max);
        } else if (is_nested(value)) {
            strbuf_addc(out, '\n');
            put_yaml(out, value, depth + 1, false, max);
        } else {
            put_value(out, value, depth + 1);
        }
    }
}

bool json_put_yaml(struct strbuf *out, const json_t *j, size_t max)
{
    if (is_nested(j)) {
        put_yaml(out, j, 0, false, max);
    } else {
        json_put(out, j);
        strbuf_addc(out, '\n');
    }
    return out->n <= max;
}

/* ---- looking and changing ---- */

bool json_same(const json_t *a, const json_t *b)
{
    if (a == NULL || b == NULL)
        return a == b;
    return json_equal((json_t *)(uintptr_t)a, (json_t *)(uintptr_t)b) != 0;
}

size_t json_weight(const json_t *j)
{
    const char *key;
    json_t *value;
    size_t i, n = 16 + json_string_length(j);
    json_object_foreach((json_t *)(uintptr_t)j, key, value) n += strlen(key) + json_weight(value);
    json_array_foreach(j, i, value) n += json_weight(value);
    return n;
}

bool json_is_shallow(const json_t *j, unsigned depth)
{
    const char *key;
    json_t *value;
    size_t i;
    bool ok = depth > 0 || (!json_is_object(j) && !json_is_array(j));
    if (!ok)
        return false;
    json_object_foreach((json_t *)(uintptr_t)j, key, value) ok = ok && json_is_shallow(value, depth - 1);
    json_array_foreach(j, i, value) ok = ok && json_is_shallow(value, depth - 1);
    return ok;
}

const char *json_text(const json_t *object, const char *name)
{
    const char *z = json_string_value(json_object_get(object, name));
    return z != NULL ? z : "";
}

json_t *json_at(const json_t *object, const char *a, const char *b)
{
    return json_object_get(json_object_get(object, a), b);
}

json_t *json_child(json_t *object, const char *name)
{
    json_t *child = json_object_get(object, name);
    if (json_is_object(child))
        return child;
    child = json_object();
    json_object_set_new(object, name, child);
    return child;
}

json_t *json_copy_head(const json_t *object)
{
    json_t *copy = json_copy((json_t *)(uintptr_t)object);
    json_t *metadata = json_object_get(object, "metadata");
    json_object_set_new(copy, "metadata", metadata != NULL ? json_copy(metadata) : json_object());
    return copy;
}

void json_set_text(json_t *object, const char *name, const char *value)
{
    json_object_set_new_nocheck(object, name, json_string_nocheck(value));
}

json_t *json_array_of(const char *const *texts, size_t n)
{
    json_t *a = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(a, json_string(texts[i]));
    return a;
}

json_t *json_base64(struct str s)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    struct strbuf b = {0};
    for (size_t i = 0; i < s.n; i += 3) {
        size_t n = s.n - i < 3 ? s.n - i : 3;
        uint32_t v = (uint32_t)(unsigned char)s.p[i] << 16;
        v |= n > 1 ? (uint32_t)(unsigned char)s.p[i + 1] << 8 : 0;
        v |= n > 2 ? (uint32_t)(unsigned char)s.p[i + 2] : 0;
        strbuf_addc(&b, digits[v >> 18]);
        strbuf_addc(&b, digits[(v >> 12) & 63]);
        strbuf_addc(&b, n > 1 ? digits[(v >> 6) & 63] : '=');
        strbuf_addc(&b, n > 2 ? digits[v & 63] : '=');
    }
    json_t *j = json_stringn(b.n > 0 ? b.p : "", b.n);
    strbuf_free(&b);
    return j;
}
