/* SPDX-License-Identifier: Apache-2.0
 *
 * The bytes of a watch: its stream cut into lines, and objects taken apart into what means something and what the
 * server adds. Items of lists of built-in kinds carry no apiVersion and kind; they are put in front.
 */
#include "kube/json_scan.h"
#include "kube/watch.h"

enum { BEGIN_SHOWN = 2048 };

/* ---- lines ---- */

static bool take_line(struct kube_lines *l, struct str piece, bool (*line)(void *arg, struct str text), void *arg)
{
    struct str whole = piece;
    if (l->part.n > 0) {
        strbuf_add(&l->part, piece);
        whole = strbuf_str(&l->part);
    }
    if (whole.n > 0 && whole.p[whole.n - 1] == '\r')
        whole.n--;
    bool more = whole.n == 0 || line(arg, whole);
    if (l->part.cap > 64 * 1024)
        strbuf_free(&l->part); /* one large object must not cost its size for ever */
    strbuf_clear(&l->part);
    return more;
}

bool kube_lines_feed(struct kube_lines *l, struct str bytes, bool (*line)(void *arg, struct str text),
                     void (*skipped)(void *arg, struct str begin), void *arg)
{
    while (bytes.n > 0) {
        ptrdiff_t end = str_find(bytes, '\n');
        struct str piece = end < 0 ? bytes : str_upto(bytes, (size_t)end);
        bytes = str_from(bytes, end < 0 ? bytes.n : (size_t)end + 1);
        if (!l->skipping && piece.n > KUBE_OBJECT_MAX - l->part.n) {
            if (l->part.n < BEGIN_SHOWN)
                strbuf_add(&l->part, str_upto(piece, piece.n < BEGIN_SHOWN ? piece.n : BEGIN_SHOWN));
            skipped(arg, str_upto(strbuf_str(&l->part), l->part.n < BEGIN_SHOWN ? l->part.n : BEGIN_SHOWN));
            strbuf_free(&l->part);
            l->skipping = true;
        }
        if (l->skipping) {
            l->skipping = end < 0;
            continue;
        }
        if (end < 0)
            strbuf_add(&l->part, piece);
        else if (!take_line(l, piece, line, arg))
            return false;
    }
    return true;
}

/* ---- objects ---- */

static void add_member(struct strbuf *b, struct str key, struct str value)
{
    strbuf_addc(b, '"');
    strbuf_add(b, key);
    strbuf_addz(b, "\":");
    strbuf_add(b, value);
}

static bool is_one_of(struct str key, const char *const *names)
{
    for (size_t i = 0; names[i] != NULL; i++)
        if (str_is(key, names[i]))
            return true;
    return false;
}

/* Members but the named ones, each with a comma in front when comma is set or it is not the first. */
static bool copy_members(struct strbuf *out, struct str object, const char *const *without, bool comma)
{
    struct json_iter it = json_iter(object);
    if (it.close != '}')
        return false;
    while (json_iter_next(&it)) {
        if (is_one_of(it.key, without))
            continue;
        if (comma)
            strbuf_addc(out, ',');
        comma = true;
        add_member(out, it.key, it.value);
    }
    return !it.bad;
}

static void add_type(struct strbuf *out, struct str object, const char *key, const char *fallback)
{
    struct str own = json_get(object, key);
    struct strbuf quoted = {0};
    if (own.n <= 2 || own.p[0] != '"') {
        strbuf_add_json(&quoted, str_of(fallback));
        own = strbuf_str(&quoted);
    }
    add_member(out, str_of(key), own);
    strbuf_free(&quoted);
}

static char *string_or_empty(struct str object, const char *key)
{
    char *text = json_scan_string(json_get(object, key));
    return text != NULL ? text : mem_strdup("");
}

bool kube_parse(struct str object, const char *api_version, const char *kind, struct kube_parsed *out)
{
    static const char *const of_server[] = {"apiVersion", "kind", "metadata", "status", NULL};
    static const char *const of_meta[] = {"managedFields", "resourceVersion", NULL};
    struct str meta = json_get(object, "metadata");
    *out = (struct kube_parsed){.ns = string_or_empty(meta, "namespace"),
                                .name = string_or_empty(meta, "name"),
                                .uid = string_or_empty(meta, "uid"),
                                .resource_version = string_or_empty(meta, "resourceVersion"),
                                .status = json_get(object, "status")};
    struct strbuf *b = &out->text;
    strbuf_addc(b, '{');
    add_type(b, object, "apiVersion", api_version);
    strbuf_addc(b, ',');
    add_type(b, object, "kind", kind);
    strbuf_addz(b, ",\"metadata\":{");
    out->version_at = b->n;
    bool ok = out->name[0] != '\0' && copy_members(b, meta, of_meta, false);
    strbuf_addc(b, '}');
    ok = ok && copy_members(b, object, of_server, true);
    strbuf_addc(b, '}');
    if (!ok)
        kube_parsed_free(out);
    return ok;
}

void kube_parsed_free(struct kube_parsed *p)
{
    strbuf_free(&p->text);
    mem_free(p->ns);
    mem_free(p->name);
    mem_free(p->uid);
    mem_free(p->resource_version);
    *p = (struct kube_parsed){0};
}
