/* SPDX-License-Identifier: Apache-2.0
 *
 * See layer.h. libarchive reads from memory with tar, gzip and zstd enabled and nothing else, in two steps: one
 * unpacks, the other reads what came out as a tar, and every block that goes from the first to the second is counted.
 * So a small blob that unpacks to terabytes ends at the bound, entries that are passed over included. Headers have a
 * bound of their own: libarchive keeps what they say in memory, and the map of a sparse file may be as long as its
 * archive (80 kB of gzip made it take 1 GB).
 */
#include "fetch/layer.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>

enum { ENTRIES_MAX = 200 * 1000, UNPACKED_TIMES = 8, HEADER_MAX = 2 * 1024 * 1024, BLOCK = 64 * 1024 };

struct search {
    struct archive *packed, *archive; /* the blob; what it unpacks to */
    size_t max;
    uint64_t budget;      /* bytes that may still be unpacked */
    uint64_t header_left; /* of them, before the next entry has begun */
    bool in_header;
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

/* What was found wrong first counts: libarchive's words for it come after ours. */
static void unpack_fails(struct search *s, struct archive *a)
{
    const char *why = archive_error_string(a);
    if (s->fault == NULL)
        s->fault = mem_printf("cannot be unpacked: %s", why != NULL ? why : "out of bounds");
}

/* ---- from the blob to the tar ---- */

static bool charge(struct search *s, uint64_t n)
{
    if (n > s->budget || (s->in_header && n > s->header_left)) {
        if (s->fault == NULL)
            s->fault = mem_strdup(n > s->budget ? "is too large when unpacked" : "holds a header that is too large");
        return false;
    }
    s->budget -= n;
    s->header_left -= s->in_header ? n : 0;
    return true;
}

/* The next unpacked bytes, as libarchive asks for them. */
static la_ssize_t unpacked_read(struct archive *a, void *arg, const void **bytes)
{
    struct search *s = arg;
    la_int64_t at = 0;
    size_t n = 0;
    int result = archive_read_data_block(s->packed, bytes, &n, &at);
    if (result == ARCHIVE_EOF)
        return 0;
    if (result != ARCHIVE_OK)
        unpack_fails(s, s->packed);
    if (result == ARCHIVE_OK && charge(s, n))
        return (la_ssize_t)n;
    archive_set_error(a, EILSEQ, "%s", s->fault);
    return ARCHIVE_FATAL;
}

/* ---- the tar ---- */

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
            unpack_fails(s, s->archive);
            return false;
        }
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
        s->header_left = HEADER_MAX;
        s->in_header = true;
        int result = archive_read_next_header(s->archive, &entry);
        s->in_header = false;
        if (result == ARCHIVE_EOF)
            return s->modules == 1 ? LAYER_ONLY : LAYER_NOTHING;
        if (result != ARCHIVE_OK && result != ARCHIVE_WARN) {
            unpack_fails(s, s->archive);
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
    struct archive_entry *all = NULL;
    ASSERT(archive_read_support_format_raw(s->packed) == ARCHIVE_OK);
    ASSERT(archive_read_support_filter_gzip(s->packed) == ARCHIVE_OK);
    ASSERT(archive_read_support_filter_zstd(s->packed) == ARCHIVE_OK);
    ASSERT(archive_read_support_format_tar(s->archive) == ARCHIVE_OK);
    if (archive_read_open_memory2(s->packed, bytes.p, bytes.n, BLOCK) != ARCHIVE_OK ||
        archive_read_next_header(s->packed, &all) != ARCHIVE_OK ||
        archive_read_open(s->archive, s, NULL, unpacked_read, NULL) != ARCHIVE_OK) {
        if (s->fault == NULL)
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
    struct search s = {.packed = archive_read_new(),
                       .archive = archive_read_new(),
                       .max = max,
                       .budget = (uint64_t)max * UNPACKED_TIMES};
    ASSERT(s.packed != NULL && s.archive != NULL);
    enum layer_found found = bytes.n > 0 ? search_archive(&s, bytes) : LAYER_NOTHING;
    archive_read_free(s.archive);
    archive_read_free(s.packed);
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
