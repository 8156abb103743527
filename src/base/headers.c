/* SPDX-License-Identifier: Apache-2.0
 *
 * The header map. Entries that a parser made borrow their bytes; what an edit brings is copied into the map's store,
 * a block that is filled from its beginning and never written twice, but for a value that fits where its predecessor
 * lay. When the store is full the live part moves into a new one, sized by what is live: this bounds it by a small
 * multiple of the map's limit whatever the guest does. What makes it hard is aliasing: name and value handed to an
 * edit may lie in this very store, so the old block lives until the edit has copied what it needs.
 */
#include "base/headers.h"

enum {
    HEADERS_FIRST_LIST = 16,
    HEADERS_FIRST_STORE = 512,
    HEADERS_ROOM_STEP = 16, /* values get room in these steps, so that a counter may gain a digit in place */
    HEADERS_NAME_MAX_KNOWN = 32,
};

/* ---- names ---- */

static const struct str known_names[HDR_COUNT] = {STR_INIT(""),
#define X(id, name) STR_INIT(name),
                                                  HEADER_IDS(X)
#undef X
};

/* Within one length the compiler makes each comparison one or two loads. A test holds this against HEADER_IDS. */
#define IS(literal, id)                                                                                                \
    if (memcmp(name.p, literal, sizeof(literal) - 1) == 0)                                                             \
    return (id)

enum header_id header_id_of(struct str name)
{
    switch (name.n) {
    case 2: IS("te", HDR_TE); break;
    case 3: IS("via", HDR_VIA); break;
    case 4:
        IS("host", HDR_HOST);
        IS("date", HDR_DATE);
        break;
    case 5: IS(":path", HDR_PATH); break;
    case 6:
        IS("accept", HDR_ACCEPT);
        IS("cookie", HDR_COOKIE);
        IS("server", HDR_SERVER);
        IS("expect", HDR_EXPECT);
        break;
    case 7:
        IS(":method", HDR_METHOD);
        IS(":scheme", HDR_SCHEME);
        IS(":status", HDR_STATUS);
        IS("referer", HDR_REFERER);
        IS("upgrade", HDR_UPGRADE);
        IS("trailer", HDR_TRAILER);
        break;
    case 8: IS("location", HDR_LOCATION); break;
    case 9: IS(":protocol", HDR_PROTOCOL); break;
    case 10:
        IS("user-agent", HDR_USER_AGENT);
        IS("connection", HDR_CONNECTION);
        IS(":authority", HDR_AUTHORITY);
        IS("keep-alive", HDR_KEEP_ALIVE);
        IS("set-cookie", HDR_SET_COOKIE);
        break;
    case 11: IS("grpc-status", HDR_GRPC_STATUS); break;
    case 12:
        IS("content-type", HDR_CONTENT_TYPE);
        IS("x-request-id", HDR_X_REQUEST_ID);
        break;
    case 14: IS("content-length", HDR_CONTENT_LENGTH); break;
    case 15: IS("x-forwarded-for", HDR_X_FORWARDED_FOR); break;
    case 16:
        IS("x-forwarded-host", HDR_X_FORWARDED_HOST);
        IS("proxy-connection", HDR_PROXY_CONNECTION);
        break;
    case 17:
        IS("transfer-encoding", HDR_TRANSFER_ENCODING);
        IS("x-forwarded-proto", HDR_X_FORWARDED_PROTO);
        break;
    case 18: IS("proxy-authenticate", HDR_PROXY_AUTHENTICATE); break;
    case 19: IS("proxy-authorization", HDR_PROXY_AUTHORIZATION); break;
    default: break;
    }
    return HDR_OTHER;
}
#undef IS

struct str header_id_name(enum header_id id)
{
    ASSERT(id > HDR_OTHER && id < HDR_COUNT);
    return known_names[id];
}

static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c; }

static enum header_id id_of_any_case(struct str name)
{
    char low[HEADERS_NAME_MAX_KNOWN];
    if (name.n > sizeof(low))
        return HDR_OTHER;
    for (size_t i = 0; i < name.n; i++)
        low[i] = lower(name.p[i]);
    return header_id_of((struct str){low, name.n});
}

/* ---- the store ---- */

static bool in_store(const struct headers *h, const char *p)
{
    return h->store != NULL && (uintptr_t)p - (uintptr_t)h->store < h->store_cap;
}

static bool store_is_malloced(const struct headers *h) { return h->store_cap > HEADERS_FIRST_STORE; }

static void free_store(void *obj)
{
    struct headers *h = obj;
    if (store_is_malloced(h))
        mem_free(h->store);
    h->store = NULL;
    h->store_used = h->store_cap = h->store_dead = 0;
}

static char *put(struct headers *h, const char *p, size_t n)
{
    char *to = h->store + h->store_used;
    memcpy(to, p, n);
    h->store_used += n;
    return to;
}

/* Moves what is live into the new, empty store, without the room that values do not use. */
static void put_live(struct headers *h, const char *old, size_t old_cap)
{
    for (uint32_t i = 0; i < h->count; i++) {
        struct header *e = &h->list[i];
        if ((uintptr_t)e->name.p - (uintptr_t)old < old_cap)
            e->name.p = put(h, e->name.p, e->name.n);
        if (e->room == 0)
            continue;
        e->value.p = e->value.n != 0 ? put(h, e->value.p, e->value.n) : "";
        e->room = (uint32_t)e->value.n;
    }
}

/* Makes room for n more bytes. Returns the block it replaced, to be freed once the edit has copied its arguments. */
NODISCARD static char *store_reserve(struct headers *h, size_t n)
{
    if (n <= h->store_cap - h->store_used)
        return NULL;
    char *old = h->store;
    size_t old_cap = h->store_cap;
    bool old_malloced = store_is_malloced(h);
    size_t need = h->store_used - h->store_dead + n;
    if (old == NULL && need <= HEADERS_FIRST_STORE) {
        h->store_cap = HEADERS_FIRST_STORE;
        h->store = arena_alloc(h->arena, h->store_cap);
        return NULL;
    }
    /* Twice the need: at least as many bytes of edits pass before the next move as this one copies. */
    h->store_cap = 2 * need > HEADERS_FIRST_STORE ? 2 * need : 2 * HEADERS_FIRST_STORE;
    h->store = mem_alloc(h->store_cap);
    h->store_used = h->store_dead = 0;
    if (!old_malloced)
        arena_defer(h->arena, free_store, h); /* the first of them; later ones take its place */
    if (old != NULL)
        put_live(h, old, old_cap);
    return old_malloced ? old : NULL;
}

/* The bytes of an entry that leaves. They stay readable until the store moves. */
static void forget_bytes(struct headers *h, const struct header *e)
{
    h->bytes -= e->name.n + e->value.n;
    if (in_store(h, e->name.p))
        h->store_dead += e->name.n;
    h->store_dead += e->room != 0 ? e->value.n : 0; /* the rest of its room was never counted as live */
}

static size_t room_for(size_t n)
{
    return n != 0 ? (n + HEADERS_ROOM_STEP - 1) / HEADERS_ROOM_STEP * HEADERS_ROOM_STEP : 0;
}

/* Copies a value to the end of the store, where room was made before. memmove: value may be a part of the store that
 * nobody will use again, never one that is ahead of store_used. */
static void put_value(struct headers *h, struct header *e, struct str value)
{
    size_t room = room_for(value.n);
    e->room = (uint32_t)room;
    e->value = (struct str){"", 0};
    if (room == 0)
        return;
    e->value = (struct str){put(h, value.p, value.n), value.n};
    h->store_used += room - value.n;
    h->store_dead += room - value.n;
}

/* ---- life, entries ---- */

void headers_init(struct headers *h, struct arena *arena, size_t max_bytes, size_t max_count)
{
    *h = (struct headers){.arena = arena, .max_bytes = max_bytes, .max_count = max_count};
}

/* Opens a gap at index. Lists that were outgrown stay in the arena: all of them together are smaller than the last. */
static struct header *insert_at(struct headers *h, size_t index)
{
    if (h->count == h->cap) {
        ASSERT(h->cap <= UINT32_MAX / 2);
        uint32_t cap = h->cap != 0 ? 2 * h->cap : HEADERS_FIRST_LIST;
        struct header *list = arena_alloc(h->arena, cap * sizeof(*list));
        if (h->count != 0)
            memcpy(list, h->list, h->count * sizeof(*list));
        h->list = list;
        h->cap = cap;
    }
    memmove(&h->list[index + 1], &h->list[index], (h->count - index) * sizeof(*h->list));
    h->count++;
    return &h->list[index];
}

void headers_add_borrowed(struct headers *h, struct str name, struct str value, enum header_id id)
{
    *insert_at(h, h->count) = (struct header){.name = name, .value = value, .id = (uint16_t)id};
    h->bytes += name.n + value.n;
}

/* Pseudo-headers stand first (RFC 9113 section 8.3). */
static size_t place_of(const struct headers *h, struct str name)
{
    if (name.n == 0 || name.p[0] != ':')
        return h->count;
    size_t i = 0;
    while (i < h->count && h->list[i].name.n != 0 && h->list[i].name.p[0] == ':')
        i++;
    return i;
}

/* Would the edit that drops old bytes and entries and brings new ones pass a limit? Shrinking is always allowed. */
static bool fits(const struct headers *h, size_t old_bytes, size_t new_name, size_t new_value, size_t old_count,
                 size_t new_count)
{
    if (new_name > h->max_bytes || new_value > h->max_bytes || new_value > UINT32_MAX - HEADERS_ROOM_STEP)
        return new_name + new_value <= old_bytes && new_value <= UINT32_MAX - HEADERS_ROOM_STEP;
    size_t bytes = h->bytes - old_bytes + new_name + new_value;
    size_t count = h->count - old_count + new_count;
    return (bytes <= h->max_bytes || bytes <= h->bytes) && (count <= h->max_count || count <= h->count);
}

static void add_entry(struct headers *h, struct str name, struct str value, enum header_id id)
{
    char *old = store_reserve(h, (id == HDR_OTHER ? name.n : 0) + room_for(value.n));
    struct header e = {.id = (uint16_t)id};
    if (id != HDR_OTHER) {
        e.name = known_names[id];
    } else if (name.n != 0) {
        char *low = put(h, name.p, name.n);
        for (size_t i = 0; i < name.n; i++)
            low[i] = lower(low[i]);
        e.name = (struct str){low, name.n};
    }
    put_value(h, &e, value);
    mem_free(old);
    h->bytes += e.name.n + value.n;
    *insert_at(h, place_of(h, e.name)) = e;
}

enum headers_result headers_add(struct headers *h, struct str name, struct str value)
{
    if (!fits(h, 0, name.n, value.n, 0, 1))
        return HEADERS_FULL;
    add_entry(h, name, value, id_of_any_case(name));
    return HEADERS_OK;
}

/* ---- finding ---- */

static bool entry_is(const struct header *e, enum header_id id, struct str name)
{
    return e->id == id && (id != HDR_OTHER || str_ieq(e->name, name));
}

static uint32_t find_from(const struct headers *h, uint32_t i, enum header_id id, struct str name)
{
    while (i < h->count && !entry_is(&h->list[i], id, name))
        i++;
    return i;
}

static const struct header *get(const struct headers *h, enum header_id id, struct str name)
{
    uint32_t i = find_from(h, 0, id, name);
    return i < h->count ? &h->list[i] : NULL;
}

const struct header *headers_get(const struct headers *h, struct str name)
{
    return get(h, id_of_any_case(name), name);
}

const struct header *headers_get_id(const struct headers *h, enum header_id id)
{
    ASSERT(id != HDR_OTHER);
    return get(h, id, STR_NONE);
}

struct str headers_value(const struct headers *h, enum header_id id)
{
    const struct header *e = headers_get_id(h, id);
    return e != NULL ? e->value : STR_NONE;
}

size_t headers_count_id(const struct headers *h, enum header_id id)
{
    size_t n = 0;
    for (uint32_t i = 0; i < h->count; i++)
        n += h->list[i].id == id;
    return n;
}

/* ---- removing ---- */

void headers_remove_at(struct headers *h, size_t index)
{
    ASSERT(index < h->count);
    forget_bytes(h, &h->list[index]);
    h->count--;
    memmove(&h->list[index], &h->list[index + 1], (h->count - index) * sizeof(*h->list));
}

/* One pass, whatever the number of matches. Entries before `from` stay. */
static size_t remove_from(struct headers *h, uint32_t from, enum header_id id, struct str name)
{
    uint32_t kept = from;
    for (uint32_t i = from; i < h->count; i++) {
        if (entry_is(&h->list[i], id, name))
            forget_bytes(h, &h->list[i]);
        else
            h->list[kept++] = h->list[i];
    }
    size_t removed = h->count - kept;
    h->count = kept;
    return removed;
}

size_t headers_remove(struct headers *h, struct str name) { return remove_from(h, 0, id_of_any_case(name), name); }

size_t headers_remove_id(struct headers *h, enum header_id id)
{
    ASSERT(id != HDR_OTHER);
    return remove_from(h, 0, id, STR_NONE);
}

void headers_clear(struct headers *h)
{
    h->count = 0;
    h->bytes = 0;
    h->store_used = h->store_dead = 0;
}

/* ---- replacing ---- */

static void replace_value(struct headers *h, struct header *e, struct str value)
{
    h->bytes += value.n;
    h->bytes -= e->value.n;
    if (e->room >= value.n && e->room != 0) {
        /* In place: value may be a part of what it overwrites. */
        if (value.n != 0)
            memmove((char *)(uintptr_t)e->value.p, value.p, value.n);
        h->store_dead += e->value.n;
        h->store_dead -= value.n;
        e->value.n = value.n;
        return;
    }
    char *old = store_reserve(h, room_for(value.n));
    h->store_dead += e->room != 0 ? e->value.n : 0;
    put_value(h, e, value);
    mem_free(old);
}

static enum headers_result set(struct headers *h, enum header_id id, struct str name, struct str value)
{
    uint32_t first = find_from(h, 0, id, name);
    if (first == h->count) {
        if (!fits(h, 0, name.n, value.n, 0, 1))
            return HEADERS_FULL;
        add_entry(h, name, value, id);
        return HEADERS_OK;
    }
    size_t bytes = 0, count = 0;
    for (uint32_t i = first; i < h->count; i = find_from(h, i + 1, id, name)) {
        bytes += h->list[i].name.n + h->list[i].value.n;
        count++;
    }
    if (!fits(h, bytes, name.n, value.n, count, 1))
        return HEADERS_FULL;
    /* The others first: name may be a part of the value that goes. */
    if (count > 1)
        (void)remove_from(h, first + 1, id, name);
    replace_value(h, &h->list[first], value);
    return HEADERS_OK;
}

enum headers_result headers_set(struct headers *h, struct str name, struct str value)
{
    return set(h, id_of_any_case(name), name, value);
}

enum headers_result headers_set_id(struct headers *h, enum header_id id, struct str value)
{
    return set(h, id, header_id_name(id), value);
}

/* ---- copying ---- */

enum headers_result headers_copy(struct headers *dst, const struct headers *src)
{
    if (dst == src)
        return HEADERS_OK;
    if (src->bytes > dst->max_bytes || src->count > dst->max_count)
        return HEADERS_FULL;
    headers_clear(dst);
    for (uint32_t i = 0; i < src->count; i++)
        add_entry(dst, src->list[i].name, src->list[i].value, src->list[i].id);
    return HEADERS_OK;
}
