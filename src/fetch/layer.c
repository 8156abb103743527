/* SPDX-License-Identifier: Apache-2.0
 *
 * See layer.h. libarchive reads from memory with tar, gzip and zstd enabled and nothing else; entries that are passed
 * over are read block by block as well, so that a small blob that unpacks to terabytes ends at the bound.
 */
#include "fetch/layer.h"

#include <archive.h>
#include <archive_entry.h>

enum { ENTRIES_MAX = 200 * 1000, UNPACKED_TIMES = 8 };

struct search {
    struct archive *archive;
    size_t max;
    uint64_t budget; /* bytes that may still be unpacked */
    struct strbuf only;
    unsigned modules; /* entries named *.wasm */
    char *fault;
};

static bool is_module(struct str bytes) { return bytes.n >= 8 && memcmp(bytes.p, "\0asm", 4) == 0; }

static struct str base_name(const char *path)
{
    const char *slash = path != NULL ? strrchr(path, '/') : NULL;
    return str_of(slash != NULL ? slash + 1 : path);
}

static bool charge(struct search *s, uint64_t n)
{
    if (n > s->budget) {
        s->fault = mem_strdup("is too large when unpacked");
        return false;
    }
    s->budget -= n;
    return true;
}

/* The current entry's bytes into out, or nowhere when it is NULL. False: fault. */
static bool read_entry(struct search *s, struct strbuf *out)
{
    for (;;) {
        const void *p = NULL;
        size_t n = 0;
        la_int64_t at = 0;
        int result = archive_read_data_block(s->archive, &p, &n, &at);
        if (result == ARCHIVE_EOF)
            return true;
        if (result != ARCHIVE_OK) {
            s->fault = mem_printf("cannot be unpacked: %s", archive_error_string(s->archive));
            return false;
        }
        if (!charge(s, n))
            return false;
        if (out == NULL)
            continue;
        if (at < 0 || (uint64_t)at > s->max || n > s->max - (uint64_t)at || (uint64_t)at < out->n) {
            s->fault = mem_printf("holds a module that is larger than %zu bytes", s->max);
            return false;
        }
        while (out->n < (uint64_t)at) /* a hole of a sparse file */
            strbuf_addc(out, '\0');
        strbuf_add(out, str_span(p, n));
    }
}

/* LAYER_NOTHING: go on. */
static enum layer_found look_at_entry(struct search *s, struct archive_entry *entry)
{
    struct str name = base_name(archive_entry_pathname(entry));
    bool file = archive_entry_filetype(entry) == AE_IFREG && archive_entry_hardlink(entry) == NULL;
    bool plugin = file && str_is(name, "plugin.wasm");
    bool wasm = file && str_ends(name, STR(".wasm")) && !str_starts(name, STR(".wh."));
    if (!charge(s, 512))
        return LAYER_BROKEN;
    if (!wasm)
        return read_entry(s, NULL) ? LAYER_NOTHING : LAYER_BROKEN;
    s->modules++;
    if (plugin)
        strbuf_clear(&s->only);
    if (!read_entry(s, plugin || s->modules == 1 ? &s->only : NULL))
        return LAYER_BROKEN;
    return plugin ? LAYER_PLUGIN : LAYER_NOTHING;
}

static enum layer_found walk(struct search *s)
{
    for (unsigned i = 0; i < ENTRIES_MAX; i++) {
        struct archive_entry *entry = NULL;
        int result = archive_read_next_header(s->archive, &entry);
        if (result == ARCHIVE_EOF)
            return s->modules == 1 ? LAYER_ONLY : LAYER_NOTHING;
        if (result != ARCHIVE_OK && result != ARCHIVE_WARN) {
            s->fault = mem_printf("cannot be unpacked: %s", archive_error_string(s->archive));
            return LAYER_BROKEN;
        }
        enum layer_found found = look_at_entry(s, entry);
        if (found != LAYER_NOTHING)
            return found;
    }
    s->fault = mem_strdup("holds too many files");
    return LAYER_BROKEN;
}

static enum layer_found search_archive(struct search *s, struct str bytes)
{
    struct archive *a = s->archive;
    ASSERT(archive_read_support_format_tar(a) == ARCHIVE_OK);
    ASSERT(archive_read_support_filter_gzip(a) == ARCHIVE_OK);
    ASSERT(archive_read_support_filter_zstd(a) == ARCHIVE_OK);
    if (archive_read_open_memory(a, bytes.p, bytes.n) != ARCHIVE_OK) {
        s->fault = mem_strdup("is neither a module nor a tar archive, plain or packed with gzip or zstd");
        return LAYER_BROKEN;
    }
    return walk(s);
}

enum layer_found layer_find_module(struct str bytes, size_t max, char **module, size_t *n, char **error)
{
    *module = *error = NULL;
    *n = 0;
    if (is_module(bytes)) {
        if (bytes.n > max) {
            *error = mem_printf("is larger than %zu bytes", max);
            return LAYER_BROKEN;
        }
        *module = mem_strndup(bytes.p, bytes.n);
        *n = bytes.n;
        return LAYER_PLUGIN;
    }
    struct search s = {.archive = archive_read_new(), .max = max, .budget = (uint64_t)max * UNPACKED_TIMES};
    ASSERT(s.archive != NULL);
    enum layer_found found = bytes.n > 0 ? search_archive(&s, bytes) : LAYER_NOTHING;
    archive_read_free(s.archive);
    if ((found == LAYER_ONLY || found == LAYER_PLUGIN) && !is_module(strbuf_str(&s.only))) {
        s.fault = mem_printf("holds %s that is not a Wasm module",
                             found == LAYER_PLUGIN ? "a plugin.wasm" : "a file named *.wasm");
        found = LAYER_BROKEN;
    }
    if (found == LAYER_ONLY || found == LAYER_PLUGIN) {
        *n = s.only.n;
        *module = strbuf_take(&s.only);
    } else if (s.fault == NULL) {
        s.fault = s.modules > 1 ? mem_printf("holds %u files named *.wasm and none is plugin.wasm", s.modules)
                                : mem_strdup("holds no plugin.wasm");
    }
    strbuf_free(&s.only);
    *error = s.fault;
    return found;
}
