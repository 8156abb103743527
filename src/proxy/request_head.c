/* SPDX-License-Identifier: Apache-2.0
 *
 * What the edge does to a request head before the first filter sees it: the path becomes normal (so that filters,
 * router, log and upstream see the same one), the client's address is found, and X-Forwarded-For, X-Forwarded-Proto,
 * X-Request-Id and Via are set as Envoy does for an edge. It must never trust what a client wrote about itself unless
 * the configuration says how many proxies are ours.
 */
#include "http/h1_parse.h"
#include "proxy/plugin_slot.h"
#include "proxy/stream_private.h"

/* ---- path ---- */

/* END_NONE: it is normal. */
static enum end_reason normalise(struct stream *s, struct headers *h)
{
    struct str path = headers_value(h, HDR_PATH), normal;
    enum path_normalization policy = stream_limits(s)->path_normalization;

    s->original_path = path;
    if (policy == PATH_NONE || path.n == 0 || str_is(path, "*"))
        return END_NONE;
    char *room = arena_try_alloc(&s->arena, path.n | 1);
    if (room == NULL)
        return END_ARENA_FULL;
    if (!path_normalize(policy, path, room, &normal))
        return END_BAD_PATH;
    if (normal.p == path.p && normal.n == path.n)
        return END_NONE;
    s->original_path = normal; /* in room: no edit of the map touches it. The log shows what everybody saw */
    return headers_set_id(h, HDR_PATH, normal) == HEADERS_OK ? END_NONE : END_ARENA_FULL;
}

/* ---- where the client is ---- */

/* The n-th address from the right end of X-Forwarded-For (1: the last). */
static bool xff_from_right(const struct headers *h, uint64_t n, struct str *out)
{
    struct str list = headers_value(h, HDR_X_FORWARDED_FOR);

    while (list.n > 0) {
        size_t at = list.n;
        while (at > 0 && list.p[at - 1] != ',')
            at--;
        if (--n == 0) {
            *out = str_trim(str_from(list, at));
            return true;
        }
        list.n = at > 0 ? at - 1 : 0;
    }
    return false;
}

static void believe(struct stream *s, const struct headers *h, uint64_t n)
{
    struct str text;
    struct addr a;

    if (n > 0 && xff_from_right(h, n, &text) && addr_from_ip(text, 0, &a))
        s->remote = a;
}

static bool append(struct stream *s, struct headers *h, enum header_id id, const char *separator, struct str value)
{
    const struct header *old = headers_get_id(h, id);
    char *p;

    if (old == NULL || old->value.n == 0)
        return headers_set_id(h, id, value) == HEADERS_OK;
    size_t sep = strlen(separator), n = old->value.n + sep + value.n;
    p = arena_try_alloc(&s->arena, n | 1);
    if (p == NULL)
        return false;
    memcpy(p, old->value.p, old->value.n);
    memcpy(p + old->value.n, separator, sep);
    memcpy(p + old->value.n + sep, value.p, value.n);
    return headers_set_id(h, id, str_span(p, n)) == HEADERS_OK;
}

/* Several fields of one name are one list; lists are read and appended to as one. */
static bool join(struct stream *s, struct headers *h, enum header_id id)
{
    if (headers_count_id(h, id) < 2)
        return true;
    size_t n = 0, at = 0;
    for (uint32_t i = 0; i < h->count; i++)
        n += h->list[i].id == id ? h->list[i].value.n + 1 : 0;
    char *p = arena_try_alloc(&s->arena, n | 1);
    if (p == NULL)
        return false;
    for (uint32_t i = 0; i < h->count; i++) {
        if (h->list[i].id != id)
            continue;
        if (at > 0)
            p[at++] = ',';
        memcpy(p + at, h->list[i].value.p, h->list[i].value.n);
        at += h->list[i].value.n;
    }
    return headers_set_id(h, id, str_span(p, at)) == HEADERS_OK;
}

static bool forwarded(struct stream *s, struct headers *h)
{
    const struct limits *l = stream_limits(s);
    bool has_proto = headers_get_id(h, HDR_X_FORWARDED_PROTO) != NULL;

    if (!join(s, h, HDR_X_FORWARDED_FOR))
        return false;
    if (l->use_remote_address == 0) {
        believe(s, h, l->xff_num_trusted_hops + 1);
        return has_proto || headers_set_id(h, HDR_X_FORWARDED_PROTO, STR("http")) == HEADERS_OK;
    }
    believe(s, h, l->xff_num_trusted_hops);
    if (s->down != NULL && !append(s, h, HDR_X_FORWARDED_FOR, ",", down_peer_ip(s->down)))
        return false;
    if (has_proto && l->xff_num_trusted_hops > 0)
        return true;
    return headers_set_id(h, HDR_X_FORWARDED_PROTO, STR("http")) == HEADERS_OK;
}

/* ---- request id ---- */

/* UUID, version 4 (RFC 9562 5.4). It names a request; it is no secret. */
static struct str make_id(struct stream *s)
{
    static const char hex[] = "0123456789abcdef";
    uint64_t r[2] = {worker_random(s->worker), worker_random(s->worker)};
    char *p = arena_alloc(&s->arena, 36);
    size_t at = 0;

    r[0] = (r[0] & ~0xf000ull) | 0x4000ull;
    r[1] = (r[1] & 0x3fffffffffffffffull) | 0x8000000000000000ull;
    for (unsigned i = 0; i < 32; i++) {
        if (i == 8 || i == 12 || i == 16 || i == 20)
            p[at++] = '-';
        p[at++] = hex[(r[i / 16] >> (60 - 4 * (i % 16))) & 15];
    }
    return str_span(p, 36);
}

static bool identify(struct stream *s, struct headers *h)
{
    const struct limits *l = stream_limits(s);
    struct str given = headers_value(h, HDR_X_REQUEST_ID);

    if (given.n > 0 && (l->preserve_request_id || !l->use_remote_address)) {
        s->request_id = arena_str(&s->arena, given);
        return true;
    }
    s->request_id = make_id(s);
    return headers_set_id(h, HDR_X_REQUEST_ID, s->request_id) == HEADERS_OK;
}

/* ---- the host ---- */

/* HTTP/1.0 may come without Host: then it is for the address it came to (RFC 9112 3.3), for everybody who looks. */
static bool name_host(struct stream *s, struct headers *h)
{
    char text[ADDR_TEXT_MAX];

    if (headers_get_id(h, HDR_AUTHORITY) != NULL)
        return true;
    return headers_set_id(h, HDR_AUTHORITY, str_span(text, addr_format(&s->local, true, text))) == HEADERS_OK;
}

/* ---- all of it ---- */

static bool edit(struct stream *s, struct headers *h)
{
    headers_remove_id(h, HDR_EXPECT); /* the go-ahead is given by us */
    if (!name_host(s, h) || !forwarded(s, h) || !identify(s, h))
        return false;
    return !stream_limits(s)->via || append(s, h, HDR_VIA, ", ", STR("1.1 weir"));
}

static void make_filters(struct stream *s)
{
    const struct listener_runtime *l = s->listener;

    if (s->filters != NULL || l->chain_count == 0)
        return;
    struct filter *filters = arena_zalloc(&s->arena, l->chain_count * sizeof *filters);
    for (uint32_t i = 0; i < l->chain_count; i++) {
        filters[i].stream = s;
        filters[i].index = i;
    }
    s->filters = filters;
    s->filter_count = l->chain_count;
    for (uint32_t i = 0; i < l->chain_count; i++)
        filter_wasm_init(&filters[i], &l->chain[i]);
}

void request_head(struct stream *s)
{
    struct headers *h = &s->side[DIR_REQUEST].msg->headers;
    enum end_reason bad = s->priv->shed ? END_OVERLOAD : normalise(s, h);

    if (bad != END_NONE)
        reply_reason(s, bad);
    else if (!edit(s, h))
        reply_reason(s, END_HEAD_TOO_LARGE);
    else
        make_filters(s);
}
