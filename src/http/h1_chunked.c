/* SPDX-License-Identifier: Apache-2.0
 *
 * The chunked coding (RFC 9112 section 7.1), taken strictly: a size is 1 to 16 hexadecimal digits, then CRLF or ';'.
 * The decoder never copies data; it says what to skip and what to take. Extensions are skipped, but bounded in a line
 * and in proportion to the data, so that a peer cannot make us read for ever without a body growing.
 */
#include "http/h1_field.h"

enum {
    SIZE_DIGITS = 16,
    /* A chunk's data pays for twice its size of extensions and 16 bytes more; a debt of this much ends the message. */
    MAX_OVERHEAD = 16 * 1024,
};

void h1_chunked_init(struct h1_chunked *c) { memset(c, 0, sizeof *c); }

static int hex_value(char c) { return c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10; }

static void pay_overhead(struct h1_chunked *c, uint64_t data)
{
    uint64_t paid = data > MAX_OVERHEAD ? MAX_OVERHEAD : 2 * data + 16;

    c->overhead = c->overhead > paid ? c->overhead - paid : 0;
}

/* Everything up to `\n` at in.p[lf] is a complete size line. */
static enum parse take_size_line(struct h1_chunked *c, struct str in, size_t lf, const struct h1_limits *limits,
                                 const char **why)
{
    size_t digits = h1_span(str_upto(in, lf), H1_HEX);
    struct str ext;
    uint64_t size = 0;

    if (lf == 0 || in.p[lf - 1] != '\r')
        return *why = "bare LF in a chunk-size line", PARSE_BAD;
    if (digits == 0 || digits > SIZE_DIGITS)
        return *why = "bad chunk size", PARSE_BAD;
    for (size_t i = 0; i < digits; i++)
        size = size << 4 | (uint64_t)hex_value(in.p[i]);
    ext = str_span(in.p + digits, lf - 1 - digits);
    if (size > INT64_MAX || (ext.n > 0 && ext.p[0] != ';'))
        return *why = "bad chunk size", PARSE_BAD;
    if (ext.n > limits->chunk_ext_bytes || !h1_is_field_value(ext))
        return *why = "bad chunk extension", PARSE_BAD;
    c->overhead += ext.n;
    if (c->overhead > MAX_OVERHEAD)
        return *why = "too many chunk extensions", PARSE_BAD;
    pay_overhead(c, size);
    c->left = size;
    c->state = size > 0 ? H1_CHUNK_DATA : H1_CHUNK_TRAILERS;
    c->scanned = 0;
    return PARSE_DONE;
}

static enum parse read_size(struct h1_chunked *c, struct str in, const struct h1_limits *limits, size_t *skip,
                            const char **why)
{
    size_t max = SIZE_DIGITS + limits->chunk_ext_bytes + 2;
    const char *lf = in.n > c->scanned ? memchr(in.p + c->scanned, '\n', in.n - c->scanned) : NULL;

    /* What is wrong in the first byte is refused at once, what is too long as soon as it is. */
    if (in.n > 0 && !h1_is(in.p[0], H1_HEX))
        return *why = "bad chunk size", PARSE_BAD;
    if (lf == NULL && in.n < max) {
        c->scanned = in.n;
        return PARSE_MORE;
    }
    if (lf == NULL || (size_t)(lf - in.p) >= max)
        return *why = "bad chunk extension", PARSE_BAD;
    *skip = (size_t)(lf - in.p) + 1;
    return take_size_line(c, in, *skip - 1, limits, why);
}

static enum parse read_data_end(struct h1_chunked *c, struct str in, size_t *skip, const char **why)
{
    if ((in.n > 0 && in.p[0] != '\r') || (in.n > 1 && in.p[1] != '\n'))
        return *why = "bad end of a chunk", PARSE_BAD;
    if (in.n < 2)
        return PARSE_MORE;
    *skip = 2;
    c->state = H1_CHUNK_SIZE;
    return PARSE_DONE;
}

/* Finds the empty line that ends the trailer section; *end is behind it. */
static enum parse find_trailers_end(struct h1_chunked *c, struct str in, size_t max, size_t *end, const char **why)
{
    size_t n = in.n < max ? in.n : max;

    for (size_t at = c->scanned; at < n; at++) {
        const char *lf = memchr(in.p + at, '\n', n - at);
        if (lf == NULL)
            break;
        at = (size_t)(lf - in.p);
        if (at == 0 || lf[-1] != '\r')
            return *why = "bare LF in trailers", PARSE_BAD;
        if (at == 1 || lf[-2] == '\n')
            return *end = at + 1, PARSE_DONE;
    }
    c->scanned = n;
    return in.n >= max ? (*why = "trailers too large", PARSE_HEAD_TOO_LARGE) : PARSE_MORE;
}

static enum parse read_trailers(struct h1_chunked *c, struct str in, const struct h1_limits *limits,
                                struct arena *arena, struct headers *trailers, size_t *skip, const char **why)
{
    size_t end = 0;
    char *copy;
    enum parse r = find_trailers_end(c, in, limits->trailer_bytes + 2, &end, why);

    if (r != PARSE_DONE)
        return r;
    headers_init(trailers, arena, limits->trailer_bytes * 2, limits->headers * 2);
    if (end > 2) {
        copy = arena_try_alloc(arena, end);
        if (copy == NULL)
            return *why = "no memory left for the trailers", PARSE_HEAD_TOO_LARGE;
        memcpy(copy, in.p, end);
        r = h1_trailers_parse(copy, copy + end, limits, trailers, why);
    }
    if (r == PARSE_DONE) {
        c->state = H1_CHUNK_DONE;
        *skip = end;
    }
    return r;
}

static void take_data(struct h1_chunked *c, struct str in, size_t skip, size_t *data)
{
    uint64_t there = in.n - skip;

    *data = (size_t)(there < c->left ? there : c->left);
    c->left -= *data;
    if (c->left == 0)
        c->state = H1_CHUNK_DATA_END;
}

enum parse h1_chunked_next(struct h1_chunked *c, struct str in, const struct h1_limits *limits, struct arena *arena,
                           struct headers *trailers, size_t *skip, size_t *data, const char **why)
{
    enum parse r = PARSE_DONE;

    *skip = *data = 0;
    *why = NULL;
    switch (c->state) {
    case H1_CHUNK_SIZE: r = read_size(c, in, limits, skip, why); break;
    case H1_CHUNK_DATA: break;
    case H1_CHUNK_DATA_END: return read_data_end(c, in, skip, why);
    case H1_CHUNK_TRAILERS: return read_trailers(c, in, limits, arena, trailers, skip, why);
    case H1_CHUNK_DONE: return PARSE_DONE;
    }
    if (r != PARSE_DONE || c->state != H1_CHUNK_DATA)
        return r;
    if (in.n == *skip && *skip == 0)
        return PARSE_MORE;
    take_data(c, in, *skip, data);
    return r;
}
