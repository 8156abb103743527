/* SPDX-License-Identifier: Apache-2.0
 *
 * The limits table at work: defaults, reading one key with its unit, and the documentation made from the same lines.
 */
#include "conf/limits.h"
#include "conf/number.h"

enum unit { BYTES, MS, COUNT, FLAG };

static const struct limit {
    const char *key;
    enum unit unit;
    size_t at;
    uint64_t def, min, max;
    const char *reason;
} table[] = {
#define X(field, key, unit, def, min, max, reason) {key, unit, offsetof(struct limits, field), def, min, max, reason},
    LIMITS(X)
#undef X
};

static const char *const path_names[] = {"NONE", "BASE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES", NULL};
static const char *const log_names[] = {"off", "text", "json", NULL};

static uint64_t *limit_value(struct limits *l, const struct limit *t)
{
    return (uint64_t *)(void *)((char *)l + t->at);
}

void limits_default(struct limits *l)
{
    *l = (struct limits){.path_normalization = PATH_BASE, .access_log = ACCESS_LOG_TEXT};
    for (size_t i = 0; i < ARRAY_LEN(table); i++)
        *limit_value(l, &table[i]) = table[i].def;
}

static void write_value(struct strbuf *out, enum unit unit, uint64_t v)
{
    if (unit == BYTES)
        number_write_bytes(out, v);
    else if (unit == MS)
        number_write_duration(out, (int64_t)v);
    else if (unit == FLAG)
        strbuf_addz(out, v != 0 ? "true" : "false");
    else
        strbuf_printf(out, "%llu", (unsigned long long)v);
}

static bool read_value(enum unit unit, struct str s, uint64_t *out)
{
    int64_t ms;
    switch (unit) {
    case BYTES: return number_parse_bytes(s, out);
    case COUNT: return str_to_u64(s, UINT64_MAX, out);
    case MS:
        if (str_is(s, "0"))
            return *out = 0, true;
        if (!number_parse_duration(s, &ms))
            return false;
        *out = (uint64_t)ms;
        return true;
    case FLAG: *out = str_is(s, "true") || str_is(s, "1"); return *out == 1 || str_is(s, "false") || str_is(s, "0");
    }
    return false;
}

struct place {
    const char *file, *path;
    unsigned line;
    struct diag *diag;
};

static void refuse(const struct place *at, struct str key, struct str value, const char *must)
{
    struct strbuf b = {0};
    strbuf_addz(&b, "Invalid value: ");
    strbuf_add_json(&b, value.n > 200 ? str_upto(value, 200) : value);
    strbuf_addz(&b, ": ");
    strbuf_add_escaped(&b, key);
    strbuf_addz(&b, " must be ");
    strbuf_addz(&b, must);
    char *z = strbuf_take(&b);
    diag_add(at->diag, DIAG_ERROR, at->file, at->line, 0, at->path, "%s", z);
    mem_free(z);
}

static void set_number(struct limits *l, const struct limit *t, struct str value, const struct place *at)
{
    static const char *const forms[] = {[BYTES] = "a size such as 64Ki",
                                        [MS] = "a duration such as 10s",
                                        [COUNT] = "a whole number",
                                        [FLAG] = "true or false"};
    uint64_t v;
    if (read_value(t->unit, value, &v) && v >= t->min && v <= t->max) {
        *limit_value(l, t) = v;
        return;
    }
    struct strbuf must = {0};
    strbuf_addz(&must, forms[t->unit]);
    if (t->unit != FLAG) {
        strbuf_addz(&must, ", from ");
        write_value(&must, t->unit, t->min);
        strbuf_addz(&must, " to ");
        write_value(&must, t->unit, t->max);
    }
    char *z = strbuf_take(&must);
    refuse(at, str_of(t->key), value, z);
    mem_free(z);
}

static int find_word(const char *const *names, struct str value)
{
    for (int i = 0; names[i] != NULL; i++) {
        if (str_is(value, names[i]))
            return i;
    }
    return -1;
}

static void set_text(char **to, struct str key, struct str value, size_t max, const struct place *at)
{
    for (size_t i = 0; i < value.n; i++) {
        unsigned char c = (unsigned char)value.p[i];
        /* A format may end in a newline, as Envoy's do; nothing else that controls a terminal or a head. */
        if ((c < 0x20 && c != '\t' && (c != '\n' || str_is(key, "server-name"))) || c == 0x7f) {
            refuse(at, key, value, "text without control characters");
            return;
        }
    }
    if (value.n > max) {
        refuse(at, key, value, "shorter");
        return;
    }
    mem_free(*to);
    *to = value.n != 0 ? str_dup(value) : NULL;
}

void limits_set(struct limits *l, struct str key, struct str value, const char *file, unsigned line, const char *path,
                struct diag *diag)
{
    struct place at = {file, path, line, diag};
    value = str_trim(value);
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        if (str_is(key, table[i].key)) {
            set_number(l, &table[i], value, &at);
            return;
        }
    }
    if (str_is(key, "path-normalization")) {
        int i = find_word(path_names, value);
        if (i >= 0)
            l->path_normalization = (enum path_normalization)i;
        else
            refuse(&at, key, value, "NONE, BASE, MERGE_SLASHES or DECODE_AND_MERGE_SLASHES");
    } else if (str_is(key, "access-log")) {
        int i = find_word(log_names, value);
        if (i >= 0)
            l->access_log = (enum access_log_format)i;
        else
            refuse(&at, key, value, "off, text or json");
    } else if (str_is(key, "access-log-format")) {
        set_text(&l->access_log_text, key, value, 16 * KIB, &at);
    } else if (str_is(key, "server-name")) {
        set_text(&l->server_name, key, value, 256, &at);
    } else {
        diag_add(diag, DIAG_ERROR, file, line, 0, path, "unknown limit \"%.*s\"", (int)(key.n > 100 ? 100 : key.n),
                 key.p);
    }
}

void limits_copy(struct limits *dst, const struct limits *src)
{
    *dst = *src;
    dst->access_log_text = src->access_log_text != NULL ? mem_strdup(src->access_log_text) : NULL;
    dst->server_name = src->server_name != NULL ? mem_strdup(src->server_name) : NULL;
}

void limits_free(struct limits *l)
{
    mem_free(l->access_log_text);
    mem_free(l->server_name);
    l->access_log_text = l->server_name = NULL;
}

void limits_write_markdown(struct strbuf *out)
{
    strbuf_addz(out, "| key | default | smallest | largest | what it is for |\n|---|---|---|---|---|\n");
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        const struct limit *t = &table[i];
        strbuf_printf(out, "| `%s` | ", t->key);
        write_value(out, t->unit, t->def);
        strbuf_addz(out, " | ");
        write_value(out, t->unit, t->min);
        strbuf_addz(out, " | ");
        write_value(out, t->unit, t->max);
        strbuf_printf(out, " | %s |\n", t->reason);
    }
    strbuf_addz(
        out, "| `path-normalization` | BASE | | | NONE, BASE, MERGE_SLASHES or DECODE_AND_MERGE_SLASHES, as Istio |\n"
             "| `access-log` | text | | | off, text or json |\n"
             "| `access-log-format` | Envoy's default | | | text with Envoy's operators |\n"
             "| `server-name` | weir | | | the Server header of local replies |\n");
}
