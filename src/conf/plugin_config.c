/* SPDX-License-Identifier: Apache-2.0
 *
 * Plugins hash, compare and parse their configuration: a byte that differs from what a cluster delivers is a bug. Keys
 * are sorted by bytes; null members are kept; 9007199254740993 becomes ...992, because a Struct holds doubles.
 */
#include <stdlib.h>

#include "conf/number.h"
#include "conf/plugin_config.h"
#include "conf/ydoc.h"

static const char hex[] = "0123456789abcdef";

static void write_byte(struct strbuf *out, unsigned char c)
{
    static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
    const char *p = memchr(from, c, sizeof from - 1);
    if (p != NULL) {
        strbuf_addc(out, '\\');
        strbuf_addc(out, to[p - from]);
    } else if (c < 0x20 || c == '<' || c == '>' || c == '&') {
        strbuf_addz(out, "\\u00");
        strbuf_addc(out, hex[c >> 4]);
        strbuf_addc(out, hex[c & 15]);
    } else {
        strbuf_addc(out, (char)c);
    }
}

void plugin_config_write_string(struct strbuf *out, struct str s)
{
    strbuf_addc(out, '"');
    for (size_t i = 0; i < s.n; i++) {
        struct str rest = str_from(s, i);
        if (str_starts(rest, STR("\xe2\x80\xa8")) || str_starts(rest, STR("\xe2\x80\xa9"))) {
            strbuf_addz(out, s.p[i + 2] == '\xa8' ? "\\u2028" : "\\u2029");
            i += 2;
            continue;
        }
        write_byte(out, (unsigned char)s.p[i]);
    }
    strbuf_addc(out, '"');
}

static int compare_members(const void *a, const void *b)
{
    const struct member *const *x = a, *const *y = b;
    return str_cmp((*x)->key, (*y)->key);
}

static void write_map(const struct node *n, bool as_struct, struct strbuf *out)
{
    size_t count = n->u.map.count;
    const struct member **sorted = mem_alloc(count * sizeof(struct member *));
    for (size_t i = 0; i < count; i++)
        sorted[i] = &n->u.map.members[i];
    qsort(sorted, count, sizeof(struct member *), compare_members);
    strbuf_addc(out, '{');
    for (size_t i = 0; i < count; i++) {
        if (i != 0)
            strbuf_addc(out, ',');
        plugin_config_write_string(out, sorted[i]->key);
        strbuf_addc(out, ':');
        node_write_json(sorted[i]->value, as_struct, out);
    }
    strbuf_addc(out, '}');
    mem_free(sorted);
}

void node_write_json(const struct node *n, bool as_struct, struct strbuf *out)
{
    switch (n->type) {
    case NODE_NULL: strbuf_addz(out, "null"); break;
    case NODE_BOOL: strbuf_addz(out, n->u.boolean ? "true" : "false"); break;
    case NODE_INT:
        if (as_struct)
            number_write_json(out, (double)n->u.integer);
        else
            strbuf_printf(out, "%lld", (long long)n->u.integer);
        break;
    case NODE_FLOAT: number_write_json(out, n->u.number); break;
    case NODE_STRING: plugin_config_write_string(out, n->u.string); break;
    case NODE_LIST:
        strbuf_addc(out, '[');
        for (size_t i = 0; i < n->u.list.count; i++) {
            if (i != 0)
                strbuf_addc(out, ',');
            node_write_json(n->u.list.items[i], as_struct, out);
        }
        strbuf_addc(out, ']');
        break;
    case NODE_MAP: write_map(n, as_struct, out); break;
    }
}
