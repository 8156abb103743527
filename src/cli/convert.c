/* SPDX-License-Identifier: Apache-2.0
 *
 * weir convert: the WasmPlugins that EnvoyFilters mean, as YAML on standard output, and what has no equivalent on
 * standard error. Exits 1 when something was refused.
 */
#include <stdio.h>

#include "base/file.h"
#include "cli/cli.h"
#include "conf/envoy_filter.h"

enum { CONVERT_FILE_MAX = 16 * 1024 * 1024 };

static const char help_text[] =
    "usage: weir convert FILE...\n\n"
    "Prints the WasmPlugins that the EnvoyFilters in these files mean, as YAML. What has no\n"
    "equivalent is listed on standard error, and makes it exit 1; other kinds are left out.\n";

/* What YAML 1.1 reads as the same text without quotes. */
static bool is_plain(struct str s)
{
    static const char *const words[] = {"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"};
    if (s.n == 0 || !((s.p[0] >= 'a' && s.p[0] <= 'z') || (s.p[0] >= 'A' && s.p[0] <= 'Z') || s.p[0] == '/'))
        return false;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool ok = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
                  c == '/' || c == '-' || (c == ':' && i + 1 < s.n);
        if (!ok)
            return false;
    }
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (str_ieq(s, str_of(words[i])))
            return false;
    return true;
}

static void write_text(struct strbuf *b, struct str s)
{
    if (is_plain(s))
        strbuf_add(b, s);
    else
        strbuf_add_json(b, s);
}

static void write_yaml(struct strbuf *b, const struct node *n, unsigned indent, bool in_list);

static void write_map(struct strbuf *b, const struct node *n, unsigned indent, bool in_list)
{
    for (size_t i = 0; i < n->u.map.count; i++) {
        const struct member *m = &n->u.map.members[i];
        if (i > 0 || !in_list)
            strbuf_printf(b, "\n%*s", (int)indent, "");
        write_text(b, m->key);
        strbuf_addc(b, ':');
        write_yaml(b, m->value, indent, false);
    }
}

/* A value behind "key:" or "-": scalars on the same line, the rest below, indented. */
static void write_yaml(struct strbuf *b, const struct node *n, unsigned indent, bool in_list)
{
    switch (n->type) {
    case NODE_NULL: strbuf_addz(b, " null"); break;
    case NODE_BOOL: strbuf_addz(b, n->u.boolean ? " true" : " false"); break;
    case NODE_INT: strbuf_printf(b, " %lld", (long long)n->u.integer); break;
    case NODE_FLOAT: strbuf_printf(b, " %.17g", n->u.number); break;
    case NODE_STRING:
        strbuf_addc(b, ' ');
        write_text(b, n->u.string);
        break;
    case NODE_LIST:
        if (n->u.list.count == 0)
            strbuf_addz(b, " []");
        for (size_t i = 0; i < n->u.list.count; i++) {
            strbuf_printf(b, "\n%*s-", (int)indent + 2, "");
            write_yaml(b, n->u.list.items[i], indent + 2, true);
        }
        break;
    case NODE_MAP:
        if (n->u.map.count == 0)
            strbuf_addz(b, " {}");
        else if (in_list)
            strbuf_addc(b, ' ');
        write_map(b, n, indent + 2, in_list);
        break;
    }
}

/* Members that an API server added say nothing of what is meant. */
static bool is_of_server(struct str key)
{
    static const char *const keys[] = {"uid", "resourceVersion", "generation", "creationTimestamp"};
    for (size_t i = 0; i < ARRAY_LEN(keys); i++)
        if (str_is(key, keys[i]))
            return true;
    return false;
}

static void drop_server_members(struct node *plugin)
{
    const struct member *meta = node_member(plugin, STR("metadata"));
    struct node *n = meta->value;
    size_t kept = 0;
    for (size_t i = 0; i < n->u.map.count; i++)
        if (!is_of_server(n->u.map.members[i].key))
            n->u.map.members[kept++] = n->u.map.members[i];
    n->u.map.count = kept;
}

struct convert {
    const char *file;
    size_t written, errors;
};

static void print_diag(struct convert *c, const struct diag *d)
{
    for (size_t i = 0; i < d->count; i++) {
        char *text = diag_format(&d->entries[i]);
        fprintf(stderr, "%s%s\n", d->entries[i].level == DIAG_WARNING ? "warning: " : "", text);
        mem_free(text);
    }
    c->errors += d->errors;
}

static void convert_object(struct convert *c, struct conf_memory *memory, const struct node *n)
{
    const struct node *kind = node_get(n, "kind"), *items = node_get(n, "items");
    if (items != NULL && items->type == NODE_LIST)
        for (size_t i = 0; i < items->u.list.count; i++)
            convert_object(c, memory, items->u.list.items[i]);
    if (kind == NULL || kind->type != NODE_STRING || strcmp(kind->u.string.p, "EnvoyFilter") != 0)
        return;
    struct diag diag = {0};
    struct envoy_filter found;
    envoy_filter_read(memory, n, c->file, NULL, &diag, &found);
    if (found.count == 0)
        fprintf(stderr, "warning: %s:%u: this EnvoyFilter has no Wasm filter\n", c->file, n->line);
    print_diag(c, &diag);
    for (size_t i = 0; diag.errors == 0 && i < found.count; i++) {
        struct strbuf text = {0};
        drop_server_members(found.plugins[i]);
        write_map(&text, found.plugins[i], 0, true);
        printf("%s%.*s\n", c->written++ > 0 ? "---\n" : "", STR_ARG(strbuf_str(&text)));
        strbuf_free(&text);
    }
    diag_free(&diag);
}

static void convert_text(struct convert *c, struct str text)
{
    struct ydoc_stream *s = ydoc_open(text);
    enum ydoc_result result;
    do {
        struct ydoc doc;
        struct conf_memory *memory = memory_new();
        result = ydoc_next(s, memory, &doc);
        if (result == YDOC_DOCUMENT && doc.root != NULL)
            convert_object(c, memory, doc.root);
        memory_free(memory);
    } while (result == YDOC_DOCUMENT);
    if (result == YDOC_ERROR) {
        unsigned line, col;
        const char *why = ydoc_error(s, &line, &col);
        fprintf(stderr, "%s:%u:%u: %s\n", c->file, line, col, why);
        c->errors++;
    }
    ydoc_close(s);
}

int cli_convert(int argc, char **argv)
{
    struct cli_args a = {.argc = argc, .argv = argv};
    struct convert c = {0};
    size_t files = 0;
    while (cli_next(&a)) {
        if (a.name != NULL && strcmp(a.name, "help") == 0) {
            fputs(help_text, stdout);
            return CLI_OK;
        }
        if (a.name != NULL)
            return cli_usage_error("convert", "no option --%s", a.name);
        char *error = NULL;
        size_t n = 0;
        char *text = file_read_all(a.value, CONVERT_FILE_MAX, &n, &error);
        c.file = a.value;
        files++;
        if (text == NULL) {
            fprintf(stderr, "%s: %s\n", a.value, error);
            c.errors++;
        } else {
            convert_text(&c, str_span(text, n));
        }
        mem_free(text);
        mem_free(error);
    }
    if (files == 0)
        return cli_usage_error("convert", "needs a file");
    return c.errors > 0 ? CLI_FAILED : CLI_OK;
}
