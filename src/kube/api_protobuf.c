/* SPDX-License-Identifier: Apache-2.0
 *
 * Bodies in Kubernetes' protobuf envelope: newer kubectl sends what it creates of core kinds so, and does not fall back
 * to JSON. "k8s\0", then runtime.Unknown {1: TypeMeta {1: apiVersion, 2: kind}, 2: raw object}; of objects Namespace,
 * Secret and ConfigMap are read (and SelfSubjectAccessReview not at all: it is answered without a look). Every length
 * is a peer's number.
 *
 * Field numbers: k8s.io/api/core/v1 generated.proto, apimachinery meta/v1 generated.proto.
 */
#include "kube/api_priv.h"

struct reader {
    const uint8_t *p, *end;
    bool bad;
};
struct field {
    uint64_t number;
    uint64_t value;   /* varint */
    struct str bytes; /* length-delimited */
    bool is_bytes;
};

static uint64_t read_varint(struct reader *r)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        if (r->p == r->end)
            break;
        uint8_t b = *r->p++;
        v |= (uint64_t)(b & 0x7f) << shift;
        if (b < 0x80)
            return v;
    }
    r->bad = true;
    return 0;
}

/* False at the end, or when the rest makes no sense (r->bad). */
static bool next_field(struct reader *r, struct field *f)
{
    if (r->bad || r->p == r->end)
        return false;
    uint64_t tag = read_varint(r);
    *f = (struct field){.number = tag >> 3};
    switch (tag & 7) {
    case 0: f->value = read_varint(r); break;
    case 1:
    case 5: {
        size_t n = (tag & 7) == 1 ? 8 : 4;
        r->bad = r->bad || (size_t)(r->end - r->p) < n;
        r->p += r->bad ? 0 : n;
        break;
    }
    case 2: {
        uint64_t n = read_varint(r);
        r->bad = r->bad || n > (uint64_t)(r->end - r->p);
        if (!r->bad) {
            f->bytes = str_span(r->p, (size_t)n);
            f->is_bytes = true;
            r->p += n;
        }
        break;
    }
    default: r->bad = true;
    }
    r->bad = r->bad || f->number == 0;
    return !r->bad;
}

static struct reader reader_of(struct str s)
{
    return (struct reader){(const uint8_t *)s.p, (const uint8_t *)s.p + s.n, false};
}

static bool is_text(struct str s) { return str_is_utf8(s) && (s.n == 0 || memchr(s.p, '\0', s.n) == NULL); }

static void set_text(json_t *o, const char *name, struct str value, bool *bad)
{
    *bad = *bad || !is_text(value);
    if (!*bad && value.n > 0)
        json_object_set_new(o, name, json_stringn(value.p, value.n));
}

/* A map entry {1: key, 2: value} into the member `name` of o. */
static void add_entry(json_t *o, const char *name, struct str entry, bool base64, bool *bad)
{
    struct reader r = reader_of(entry);
    struct field f;
    struct str key = STR(""), value = STR("");
    while (next_field(&r, &f)) {
        if (f.number == 1 && f.is_bytes)
            key = f.bytes;
        else if (f.number == 2 && f.is_bytes)
            value = f.bytes;
    }
    *bad = *bad || r.bad || !is_text(key) || (!base64 && !str_is_utf8(value));
    if (*bad)
        return;
    char *z = str_dup(key);
    json_object_set_new(json_child(o, name), z,
                        base64 ? json_base64(value) : json_stringn(value.p != NULL ? value.p : "", value.n));
    mem_free(z);
}

/* ObjectMeta */
static void read_meta(struct str bytes, json_t *object, bool *bad)
{
    struct reader r = reader_of(bytes);
    struct field f;
    json_t *m = json_child(object, "metadata");
    while (next_field(&r, &f)) {
        if (!f.is_bytes)
            continue;
        switch (f.number) {
        case 1: set_text(m, "name", f.bytes, bad); break;
        case 2: set_text(m, "generateName", f.bytes, bad); break;
        case 3: set_text(m, "namespace", f.bytes, bad); break;
        case 5: set_text(m, "uid", f.bytes, bad); break;
        case 6: set_text(m, "resourceVersion", f.bytes, bad); break;
        case 11: add_entry(m, "labels", f.bytes, false, bad); break;
        case 12: add_entry(m, "annotations", f.bytes, false, bad); break;
        default: break;
        }
    }
    *bad = *bad || r.bad;
}

enum shape { SHAPE_NAMESPACE, SHAPE_SECRET, SHAPE_CONFIG_MAP };
static void read_member(enum shape shape, const struct field *f, json_t *o, bool *bad)
{
    if (f->number == 1 && f->is_bytes) {
        read_meta(f->bytes, o, bad);
    } else if (shape == SHAPE_SECRET && f->is_bytes) {
        if (f->number == 2)
            add_entry(o, "data", f->bytes, true, bad);
        else if (f->number == 3)
            set_text(o, "type", f->bytes, bad);
        else if (f->number == 4)
            add_entry(o, "stringData", f->bytes, false, bad);
    } else if (shape == SHAPE_CONFIG_MAP && f->is_bytes) {
        if (f->number == 2)
            add_entry(o, "data", f->bytes, false, bad);
        else if (f->number == 3)
            add_entry(o, "binaryData", f->bytes, true, bad);
    } else if (!f->is_bytes && f->value != 0 &&
               ((shape == SHAPE_SECRET && f->number == 5) || (shape == SHAPE_CONFIG_MAP && f->number == 4))) {
        json_object_set_new(o, "immutable", json_true());
    }
}

static json_t *read_object(const char *kind, struct str raw, char **error)
{
    static const char *const kinds[] = {"Namespace", "Secret", "ConfigMap"};
    size_t shape = 0;
    while (shape < ARRAY_LEN(kinds) && strcmp(kind, kinds[shape]) != 0)
        shape++;
    if (shape == ARRAY_LEN(kinds)) {
        *error = mem_printf("%s is not read as protobuf here: send JSON", kind);
        return NULL;
    }
    json_t *o = json_pack("{s:s, s:s}", "apiVersion", "v1", "kind", kind);
    struct reader r = reader_of(raw);
    struct field f;
    bool bad = false;
    while (next_field(&r, &f))
        read_member((enum shape)shape, &f, o, &bad);
    if (!bad && !r.bad)
        return o;
    json_decref(o);
    *error = mem_strdup("the protobuf message is damaged");
    return NULL;
}

json_t *protobuf_object(struct str body, char **error)
{
    static const char magic[4] = {'k', '8', 's', '\0'};
    *error = NULL;
    if (!str_starts(body, str_span(magic, 4))) {
        *error = mem_strdup("it does not begin with Kubernetes' protobuf mark");
        return NULL;
    }
    struct reader r = reader_of(str_from(body, 4));
    struct field f, inner;
    struct str raw = STR(""), kind = STR("");
    while (next_field(&r, &f)) {
        if (f.number == 2 && f.is_bytes)
            raw = f.bytes;
        if (f.number != 1 || !f.is_bytes)
            continue;
        struct reader meta = reader_of(f.bytes);
        while (next_field(&meta, &inner))
            if (inner.number == 2 && inner.is_bytes)
                kind = inner.bytes;
        r.bad = r.bad || meta.bad;
    }
    if (r.bad || !is_text(kind)) {
        *error = mem_strdup("the protobuf envelope is damaged");
        return NULL;
    }
    char *z = str_dup(kind);
    json_t *o = read_object(z, raw, error);
    mem_free(z);
    return o;
}
