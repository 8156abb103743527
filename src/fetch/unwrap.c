/* SPDX-License-Identifier: Apache-2.0
 *
 * See unwrap.h. gzip by zlib; of tar only what is needed to find the first regular file (POSIX.1-1988 ustar, with the
 * extended headers of pax and GNU passed over).
 */
#include "fetch/unwrap.h"

#include <zlib.h>

enum { LAYERS_MAX = 4, TAR_BLOCK = 512, FIRST_CHUNK = 64 * 1024 };

/* ---- gzip ---- */

static bool is_gzip(const char *p, size_t n)
{
    return n >= 18 && (unsigned char)p[0] == 0x1f && (unsigned char)p[1] == 0x8b;
}

struct output {
    char *p;
    size_t n, cap, max;
};

/* NULL when all of in has been inflated. */
static const char *inflate_all(z_stream *z, struct output *out)
{
    for (;;) {
        if (out->n == out->cap) {
            if (out->cap > out->max)
                return "is too large when unpacked";
            out->cap = out->cap * 2 < out->max ? out->cap * 2 : out->max + 1;
            out->p = mem_realloc(out->p, out->cap);
        }
        size_t room = out->cap - out->n;
        z->next_out = (unsigned char *)out->p + out->n;
        z->avail_out = room < UINT_MAX ? (unsigned)room : UINT_MAX;
        int result = inflate(z, Z_NO_FLUSH);
        out->n = (size_t)((char *)z->next_out - out->p);
        if (result == Z_STREAM_END) {
            /* Members may follow each other; what else follows the end is padding. */
            if (z->avail_in < 18 || !is_gzip((const char *)z->next_in, z->avail_in))
                return out->n <= out->max ? NULL : "is too large when unpacked";
            if (inflateReset(z) != Z_OK)
                return "cannot be unpacked";
        } else if (result != Z_OK) {
            return result == Z_BUF_ERROR ? "is a gzip file that is cut off" : "is a damaged gzip file";
        }
    }
}

static const char *gunzip(char **bytes, size_t *n, size_t max)
{
    z_stream z = {.next_in = (unsigned char *)*bytes, .avail_in = (unsigned)*n};
    if (*n > UINT_MAX || inflateInit2(&z, 15 + 16) != Z_OK)
        return "cannot be unpacked";
    struct output out = {.cap = FIRST_CHUNK, .max = max, .p = mem_alloc(FIRST_CHUNK)};
    const char *error = inflate_all(&z, &out);
    inflateEnd(&z);
    if (error != NULL) {
        mem_free(out.p);
        return error;
    }
    mem_free(*bytes);
    *bytes = out.p;
    *n = out.n;
    return NULL;
}

/* ---- tar ---- */

static bool is_tar(const char *p, size_t n) { return n >= TAR_BLOCK && memcmp(p + 257, "ustar", 5) == 0; }

/* Octal, as tar writes sizes; false when it is anything else. */
static bool tar_size(const char *field, size_t *out)
{
    size_t size = 0;
    unsigned i = 0;
    for (; i < 12 && field[i] >= '0' && field[i] <= '7'; i++) {
        if (size > SIZE_MAX >> 4)
            return false;
        size = size * 8 + (size_t)(field[i] - '0');
    }
    *out = size;
    return i > 0 && (i == 12 || field[i] == '\0' || field[i] == ' ');
}

static const char *untar(char **bytes, size_t *n)
{
    char *p = *bytes;
    for (size_t at = 0; at + TAR_BLOCK <= *n && is_tar(p + at, *n - at);) {
        size_t size = 0;
        char type = p[at + 156];
        if (!tar_size(p + at + 124, &size) || size > *n - at - TAR_BLOCK)
            return "is a damaged tar archive";
        if (type == '0' || type == '\0') {
            memmove(p, p + at + TAR_BLOCK, size);
            *n = size;
            return NULL;
        }
        size_t whole = (size + TAR_BLOCK - 1) / TAR_BLOCK * TAR_BLOCK;
        if (whole > *n - at - TAR_BLOCK)
            break;
        at += TAR_BLOCK + whole;
    }
    return "is a tar archive without a file";
}

char *module_unwrap(char **bytes, size_t *n, size_t max)
{
    for (unsigned layer = 0; layer <= LAYERS_MAX; layer++) {
        const char *error = NULL;
        if (!is_gzip(*bytes, *n) && !is_tar(*bytes, *n))
            return NULL;
        if (layer == LAYERS_MAX)
            error = "is packed too deep";
        else
            error = is_gzip(*bytes, *n) ? gunzip(bytes, n, max) : untar(bytes, n);
        if (error != NULL)
            return mem_strdup(error);
    }
    return NULL;
}
