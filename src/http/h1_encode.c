/* SPDX-License-Identifier: Apache-2.0
 *
 * The encoder. Bytes go straight into the output queue's last chunk: room is reserved once and written by bump, and
 * only what does not fit goes the slow way. Every name and value is checked again here, behind all filters: this is the
 * last place that can keep a guest's CR or LF from becoming a second message, and it must not be talked out of it.
 */
#include "http/h1_encode.h"

#include "http/h1.h"
#include "http/h1_field.h"

enum { WRITER_ROOM = 2048 };

struct writer {
    struct buf *out;
    char *start, *at, *end;
};

static void writer_open(struct writer *w, struct buf *out)
{
    size_t room;

    w->out = out;
    w->start = w->at = buf_reserve(out, WRITER_ROOM, &room);
    w->end = w->at + room;
}

static void writer_close(struct writer *w) { buf_commit(w->out, (size_t)(w->at - w->start)); }

static void put(struct writer *w, struct str s)
{
    if (s.n <= (size_t)(w->end - w->at)) {
        if (s.n > 0)
            memcpy(w->at, s.p, s.n);
        w->at += s.n;
        return;
    }
    writer_close(w);
    buf_append(w->out, s);
    writer_open(w, w->out);
}

#define PUT(w, literal) put(w, STR(literal))

static struct str format_decimal(uint64_t v, char digits[20])
{
    size_t at = 20;

    do
        digits[--at] = (char)('0' + v % 10);
    while ((v /= 10) > 0);
    return str_span(digits + at, 20 - at);
}

/* name is not empty. */
static void put_field(struct writer *w, struct str name, struct str value)
{
    if (name.n + value.n + 4 <= (size_t)(w->end - w->at)) {
        char *p = w->at;
        memcpy(p, name.p, name.n);
        p += name.n;
        memcpy(p, ": ", 2);
        if (value.n > 0)
            memcpy(p + 2, value.p, value.n);
        p += 2 + value.n;
        memcpy(p, "\r\n", 2);
        w->at = p + 2;
        return;
    }
    put(w, name);
    PUT(w, ": ");
    put(w, value);
    PUT(w, "\r\n");
}

/* Is this field of the map the codec's own to write? *refused: nobody but a guest can have put it there. */
static bool is_codecs(const struct h1_head *head, const struct header *f, bool *refused)
{
    *refused = false;
    switch ((enum header_id)f->id) {
    case HDR_METHOD:
    case HDR_PATH:
    case HDR_AUTHORITY:
    case HDR_SCHEME:
    case HDR_STATUS:
    case HDR_PROTOCOL:
    case HDR_CONTENT_LENGTH:
    case HDR_TE: return true;
    case HDR_CONNECTION:
    case HDR_UPGRADE: *refused = head->connection != H1_CONNECTION_UPGRADE; return true;
    case HDR_HOST: *refused = head->status == 0; return *refused;
    case HDR_TRANSFER_ENCODING:
    case HDR_KEEP_ALIVE:
    case HDR_PROXY_CONNECTION:
    case HDR_TRAILER: *refused = true; return true;
    default: return false;
    }
}

static bool is_writable(const struct header *f)
{
    return (f->id != HDR_OTHER || h1_is_token(f->name)) && h1_is_field_value(f->value);
}

static bool is_te_trailers(const struct header *f)
{
    return f->id == HDR_TE && str_ieq(str_trim(f->value), STR("trailers"));
}

/* Returns whether "te: trailers" is among them (not written here). */
static bool put_fields(struct writer *w, const struct h1_head *head)
{
    bool refused, te = false;

    for (uint32_t i = 0; i < head->headers->count; i++) {
        const struct header *f = &head->headers->list[i];
        if (is_codecs(head, f, &refused)) {
            *head->dropped += refused;
            te = te || is_te_trailers(f);
        } else if (is_writable(f)) {
            put_field(w, f->name, f->value);
        } else {
            (*head->dropped)++;
        }
    }
    return te;
}

static void put_framing(struct writer *w, const struct h1_head *head)
{
    char digits[20];
    uint64_t n;

    switch (head->framing) {
    case H1_FRAMING_NONE: break;
    case H1_FRAMING_LENGTH: put_field(w, STR("content-length"), format_decimal(head->length, digits)); break;
    case H1_FRAMING_CHUNKED: PUT(w, "transfer-encoding: chunked\r\n"); break;
    case H1_FRAMING_AS_IS:
        if (headers_count_id(head->headers, HDR_CONTENT_LENGTH) == 1 &&
            str_to_u64(headers_value(head->headers, HDR_CONTENT_LENGTH), INT64_MAX, &n))
            put_field(w, STR("content-length"), format_decimal(n, digits));
        break;
    }
}

static void put_connection(struct writer *w, const struct h1_head *head, bool te)
{
    if (te)
        PUT(w, "te: trailers\r\n");
    switch (head->connection) {
    case H1_CONNECTION_NONE:
        if (te) /* RFC 9110 10.1.4 */
            PUT(w, "connection: te\r\n");
        break;
    case H1_CONNECTION_CLOSE: PUT(w, "connection: close\r\n"); break;
    case H1_CONNECTION_KEEP_ALIVE: PUT(w, "connection: keep-alive\r\n"); break;
    case H1_CONNECTION_UPGRADE:
        put(w, te ? STR("connection: te, upgrade\r\n") : STR("connection: upgrade\r\n"));
        put_field(w, STR("upgrade"), head->upgrade);
        break;
    }
}

void h1_encode_request(struct buf *out, const struct h1_head *head)
{
    struct writer w;
    bool te;

    writer_open(&w, out);
    put(&w, head->method);
    PUT(&w, " ");
    put(&w, head->path);
    PUT(&w, " HTTP/1.1\r\n");
    put_field(&w, STR("host"), head->host);
    te = put_fields(&w, head);
    put_framing(&w, head);
    put_connection(&w, head, te);
    PUT(&w, "\r\n");
    writer_close(&w);
}

void h1_encode_response(struct buf *out, const struct h1_head *head)
{
    struct writer w;
    char digits[20];

    writer_open(&w, out);
    PUT(&w, "HTTP/1.1 ");
    put(&w, format_decimal(head->status, digits));
    PUT(&w, " ");
    put(&w, str_of(http_status_text(head->status)));
    PUT(&w, "\r\n");
    (void)put_fields(&w, head);
    if (head->server_name != NULL && headers_get_id(head->headers, HDR_SERVER) == NULL)
        put_field(&w, STR("server"), str_of(head->server_name));
    if (head->content_type != NULL)
        put_field(&w, STR("content-type"), str_of(head->content_type));
    put_framing(&w, head);
    put_connection(&w, head, false);
    PUT(&w, "\r\n");
    writer_close(&w);
}

void h1_encode_last_chunk(struct buf *out, const struct headers *trailers, uint64_t *dropped)
{
    struct writer w;

    writer_open(&w, out);
    PUT(&w, "0\r\n");
    for (uint32_t i = 0; trailers != NULL && i < trailers->count; i++) {
        const struct header *f = &trailers->list[i];
        if (h1_is_trailer((enum header_id)f->id) && h1_is_token(f->name) && h1_is_field_value(f->value))
            put_field(&w, f->name, f->value);
        else
            (*dropped)++;
    }
    PUT(&w, "\r\n");
    writer_close(&w);
}

void h1_encode_chunk_size(struct buf *out, size_t size)
{
    char digits[18];
    size_t at = sizeof digits;

    digits[--at] = '\n';
    digits[--at] = '\r';
    do
        digits[--at] = "0123456789abcdef"[size & 15];
    while ((size >>= 4) > 0);
    buf_append(out, str_span(digits + at, sizeof digits - at));
}
