/* SPDX-License-Identifier: Apache-2.0
 *
 * What pulls gave, so that a start without the registry finds what was served before: a text of lines, the last one an
 * authentication code over the name and the lines before it. A record that fails the check is as good as none.
 */
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "control/module_cache_priv.h"

enum { RECORD_MAX = 16 * 1024 };
static const char FORMAT[] = "weir-pull 1";

void pull_record_free(struct pull_record *r)
{
    mem_free(r->from);
    mem_free(r->version);
    *r = (struct pull_record){0};
}

static void add_line(struct strbuf *b, const char *name, const char *value)
{
    if (value != NULL && value[0] != '\0' && strchr(value, '\n') == NULL)
        strbuf_printf(b, "%s %s\n", name, value);
}

static void add_mac(struct strbuf *b, const unsigned char mac[MAC_BYTES])
{
    strbuf_addz(b, "mac ");
    for (size_t i = 0; i < MAC_BYTES; i++)
        strbuf_printf(b, "%02x", mac[i]);
    strbuf_addc(b, '\n');
}

bool module_cache_remember(struct module_cache *c, struct str key, const struct pull_record *r, char **error)
{
    char name[65];
    unsigned char mac[MAC_BYTES];
    struct strbuf b = {0};
    sha256_hex(key, name);
    strbuf_printf(&b, "%s\n", FORMAT);
    add_line(&b, "digest", r->digest);
    add_line(&b, "index", r->index_digest);
    add_line(&b, "module", r->module_sha256);
    add_line(&b, "key", r->verified_key);
    add_line(&b, "from", r->from);
    add_line(&b, "version", r->version);
    strbuf_printf(&b, "pulled %lld\n", (long long)r->pulled_s);
    bool ok = cache_mac(c, name, strbuf_str(&b), mac);
    add_mac(&b, mac);
    char *path = cache_path(c, name, ".pull");
    if (ok && b.n > RECORD_MAX) {
        *error = mem_strdup("the record of a pull is too long");
        ok = false;
    }
    ok = ok && cache_write(c, path, strbuf_str(&b), error);
    mem_free(path);
    strbuf_free(&b);
    return ok;
}

static void take_text(char *out, size_t size, struct str value)
{
    if (value.n < size) {
        memcpy(out, value.p, value.n);
        out[value.n] = '\0';
    }
}

static void take_line(struct pull_record *r, struct str name, struct str value)
{
    uint64_t n = 0;
    if (str_is(name, "digest"))
        take_text(r->digest, sizeof r->digest, value);
    else if (str_is(name, "index"))
        take_text(r->index_digest, sizeof r->index_digest, value);
    else if (str_is(name, "module"))
        take_text(r->module_sha256, sizeof r->module_sha256, value);
    else if (str_is(name, "key"))
        take_text(r->verified_key, sizeof r->verified_key, value);
    else if (str_is(name, "from") && r->from == NULL)
        r->from = str_dup(value);
    else if (str_is(name, "version") && r->version == NULL)
        r->version = str_dup(value);
    else if (str_is(name, "pulled") && str_to_u64(value, INT64_MAX, &n))
        r->pulled_s = (int64_t)n;
}

/* The lines before "mac ...", when that is what we wrote. */
static bool authentic(const struct module_cache *c, const char *name, struct str text, struct str *lines)
{
    enum { MAC_LINE = 4 + 2 * MAC_BYTES + 1 };
    unsigned char mac[MAC_BYTES];
    if (text.n <= MAC_LINE)
        return false;
    *lines = str_upto(text, text.n - MAC_LINE);
    if (!cache_mac(c, name, *lines, mac))
        return false;
    struct strbuf want = {0};
    add_mac(&want, mac);
    bool same = str_eq(strbuf_str(&want), str_from(text, text.n - MAC_LINE));
    strbuf_free(&want);
    return same;
}

bool module_cache_recall(struct module_cache *c, struct str key, struct pull_record *out)
{
    char name[65];
    size_t n = 0;
    *out = (struct pull_record){0};
    sha256_hex(key, name);
    char *path = cache_path(c, name, ".pull"), *error = NULL;
    int hold = cache_hold(path); /* it is used now */
    char *text = hold >= 0 ? file_read_all(path, RECORD_MAX, &n, &error) : NULL;
    mem_free(error);
    struct str lines;
    bool ok = text != NULL && authentic(c, name, str_span(text, n), &lines);
    if (text != NULL && !ok)
        unlink(path);
    struct str rest = ok ? lines : STR_NONE;
    bool first = true;
    while (rest.p != NULL && rest.n > 0) {
        struct str line = str_split(&rest, '\n');
        ptrdiff_t space = str_find(line, ' ');
        if (first)
            ok = str_is(line, FORMAT);
        else if (space > 0)
            take_line(out, str_upto(line, (size_t)space), str_from(line, (size_t)space + 1));
        first = false;
    }
    module_cache_release(&hold);
    mem_free(path);
    mem_free(text);
    if (!ok || strlen(out->module_sha256) != 64)
        pull_record_free(out);
    return out->module_sha256[0] != '\0';
}
