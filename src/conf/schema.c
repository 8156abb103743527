/* SPDX-License-Identifier: Apache-2.0
 *
 * The reader of field tables. It must go on after an error (all errors are wanted at once), must not follow lists
 * longer than their limit, and must never print a Secret's values. Offsets are trusted: they come from tables in this
 * layer, never from the document.
 */
#include <stdio.h>

#include "conf/number.h"
#include "conf/regex.h"
#include "conf/schema.h"

enum { DEFAULT_MAX_ITEMS = 4096, SHOWN_VALUE = 200 };

void path_write(struct strbuf *out, const struct path *path)
{
    if (path == NULL)
        return;
    path_write(out, path->up);
    if (path->type == PATH_INDEX) {
        strbuf_printf(out, "[%zu]", path->index);
        return;
    }
    struct str name = path->name.n > SHOWN_VALUE ? str_upto(path->name, SHOWN_VALUE) : path->name;
    if (path->type == PATH_KEY)
        strbuf_addc(out, '[');
    else if (path->up != NULL)
        strbuf_addc(out, '.');
    strbuf_add_escaped(out, name);
    if (path->type == PATH_KEY)
        strbuf_addc(out, ']');
}

void schema_report(struct reader *r, enum diag_level level, unsigned line, unsigned col, const struct path *path,
                   const char *text)
{
    struct strbuf where = {0};
    if (r->title != NULL)
        strbuf_addz(&where, r->title);
    if (r->title != NULL && path != NULL)
        strbuf_addz(&where, ": ");
    path_write(&where, path);
    char *z = strbuf_take(&where);
    diag_add(r->diag, level, r->file, line, col, z[0] != '\0' ? z : NULL, "%s", text);
    mem_free(z);
}

static void report_va(struct reader *r, enum diag_level level, const struct node *n, const struct path *path,
                      const char *prefix, const char *fmt, va_list args)
{
    char text[1600];
    int skip = snprintf(text, sizeof text, "%s", prefix);
    size_t at = skip < 0 ? 0 : (size_t)skip < sizeof text ? (size_t)skip : sizeof text - 1;
    vsnprintf(text + at, sizeof text - at, fmt, args);
    schema_report(r, level, n->line, n->col, path, text);
}

void schema_error(struct reader *r, const struct node *n, const struct path *path, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    report_va(r, DIAG_ERROR, n, path, "", fmt, args);
    va_end(args);
}

void schema_warn(struct reader *r, const struct node *n, const struct path *path, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    report_va(r, DIAG_WARNING, n, path, "", fmt, args);
    va_end(args);
}

static void show_value(struct reader *r, const struct node *n, struct strbuf *out)
{
    if (r->hide_values)
        return;
    switch (n->type) {
    case NODE_NULL: strbuf_addz(out, "null"); break;
    case NODE_BOOL: strbuf_addz(out, n->u.boolean ? "true" : "false"); break;
    case NODE_INT: strbuf_printf(out, "%lld", (long long)n->u.integer); break;
    case NODE_FLOAT: number_write_json(out, n->u.number); break;
    case NODE_STRING:
        if (n->u.string.n <= SHOWN_VALUE) {
            strbuf_add_json(out, n->u.string);
        } else {
            strbuf_add_json(out, str_upto(n->u.string, SHOWN_VALUE));
            out->n--;
            strbuf_addz(out, "...\"");
        }
        break;
    case NODE_LIST:
    case NODE_MAP: return;
    }
    strbuf_addz(out, ": ");
}

void schema_invalid(struct reader *r, const struct node *n, const struct path *path, const char *fmt, ...)
{
    struct strbuf prefix = {0};
    strbuf_addz(&prefix, "Invalid value: ");
    show_value(r, n, &prefix);
    char *z = strbuf_take(&prefix);
    va_list args;
    va_start(args, fmt);
    report_va(r, DIAG_ERROR, n, path, z, fmt, args);
    va_end(args);
    mem_free(z);
}

static char *path_text(const struct path *path)
{
    struct strbuf b = {0};
    path_write(&b, path);
    return strbuf_take(&b);
}

void schema_wrong_type(struct reader *r, const struct node *n, const struct path *path, const char *wanted)
{
    char *where = path_text(path);
    const char *got = node_type_name(n);
    schema_error(r, n, path, "Invalid value: \"%s\": %s in body must be of type %s: \"%s\"", got, where, wanted, got);
    mem_free(where);
}

/* Invalid value: 0: spec.x in body should be ... */
static void invalid_in_body(struct reader *r, const struct node *n, const struct path *path, const char *fmt, ...)
    PRINTF_LIKE(4, 5);
static void invalid_in_body(struct reader *r, const struct node *n, const struct path *path, const char *fmt, ...)
{
    char text[700];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    char *where = path_text(path);
    schema_invalid(r, n, path, "%s in body should %s", where, text);
    mem_free(where);
}

const struct node *schema_place(const struct node *n, const char *member)
{
    const struct member *m = node_member(n, str_of(member));
    return m != NULL ? m->value : n;
}

char *schema_string(struct reader *r, const struct node *n, const struct path *path)
{
    if (n->type != NODE_STRING) {
        schema_wrong_type(r, n, path, "string");
        return NULL;
    }
    if (n->u.string.n != 0 && memchr(n->u.string.p, '\0', n->u.string.n) != NULL) {
        schema_error(r, n, path, "Invalid value: must not hold NUL bytes");
        return NULL;
    }
    return memory_str(r->memory, n->u.string);
}

bool schema_format(struct reader *r, const struct node *n, const struct path *path, struct str text,
                   const struct format *format)
{
    if (format->max != 0 && text.n > format->max) {
        if (format->message != NULL)
            schema_invalid(r, n, path, "must be no more than %zu characters", format->max);
        else
            schema_error(r, n, path, "Too long: may not be more than %zu bytes", format->max);
        return false;
    }
    if (format->ok(text))
        return true;
    if (format->message != NULL)
        schema_invalid(r, n, path, "%s", format->message);
    else
        invalid_in_body(r, n, path, "match '%s'", format->pattern);
    return false;
}

void schema_regex(struct reader *r, const struct node *n, const struct path *path, const char *pattern)
{
    char message[200];
    size_t offset;
    if (!regex_check(str_of(pattern), &offset, message, sizeof message))
        schema_invalid(r, n, path, "not a valid regular expression: %s at offset %zu", message, offset);
}

/* ---- one field ---- */

static bool check_length(struct reader *r, const struct node *n, const struct path *path, const struct field *f,
                         size_t length)
{
    if (f->min > 0 && length < (size_t)f->min) {
        invalid_in_body(r, n, path, "be at least %lld chars long", (long long)f->min);
        return false;
    }
    if (f->max > 0 && length > (size_t)f->max) {
        schema_error(r, n, path, "Too long: may not be more than %lld bytes", (long long)f->max);
        return false;
    }
    return true;
}

static char *read_string(struct reader *r, const struct field *f, const struct node *n, const struct path *path)
{
    char *z = schema_string(r, n, path);
    if (z == NULL || !check_length(r, n, path, f, n->u.string.n))
        return NULL;
    if (f->format != NULL && !schema_format(r, n, path, n->u.string, f->format))
        return NULL;
    return z;
}

static void store_int(void *at, uint8_t width, int64_t value)
{
    uint64_t v = (uint64_t)value;
    ASSERT(width == 2 || width == 4 || width == 8);
    switch (width) {
    case 2: *(uint16_t *)at = (uint16_t)v; break;
    case 4: *(uint32_t *)at = (uint32_t)v; break;
    case 8: *(uint64_t *)at = v; break;
    default: break;
    }
}

static bool read_int(struct reader *r, const struct field *f, const struct node *n, const struct path *path,
                     int64_t *out)
{
    int64_t v;
    if (!node_integer(n, &v)) {
        if (!node_is_whole(n)) {
            schema_wrong_type(r, n, path, "integer");
            return false;
        }
        v = n->u.number < 0 ? INT64_MIN : INT64_MAX; /* whole, but beyond 64 bits */
    }
    if (f->min == INT32_MIN && (v < INT32_MIN || v > INT32_MAX)) {
        schema_invalid(r, n, path, "must be a 32-bit integer, %d to %d", INT32_MIN, INT32_MAX);
        return false;
    }
    if (f->min == 0 && f->max == 0)
        return *out = v, true;
    if (v < f->min) {
        invalid_in_body(r, n, path, "be greater than or equal to %lld", (long long)f->min);
        return false;
    }
    if (v > f->max) {
        invalid_in_body(r, n, path, "be less than or equal to %lld", (long long)f->max);
        return false;
    }
    *out = v;
    return true;
}

static void read_enum(struct reader *r, const struct field *f, const struct node *n, const struct path *path, int *out)
{
    if (n->type != NODE_STRING) {
        schema_wrong_type(r, n, path, "string");
        return;
    }
    for (int i = 0; f->names[i] != NULL; i++) {
        if (n->u.string.n != 0 && str_is(n->u.string, f->names[i])) {
            *out = i;
            return;
        }
    }
    struct strbuf b = {0};
    strbuf_addz(&b, "Unsupported value: ");
    show_value(r, n, &b);
    strbuf_addz(&b, "supported values: ");
    const char *comma = "";
    for (int i = 0; f->names[i] != NULL; i++) {
        if (f->names[i][0] == '\0')
            continue; /* stands for "absent" */
        strbuf_printf(&b, "%s\"%s\"", comma, f->names[i]);
        comma = ", ";
    }
    char *z = strbuf_take(&b);
    schema_error(r, n, path, "%s", z);
    mem_free(z);
}

static bool check_items(struct reader *r, const struct field *f, const struct node *n, const struct path *path,
                        size_t count)
{
    size_t max = f->max_items != 0 ? f->max_items : DEFAULT_MAX_ITEMS;
    if (count > max) {
        schema_error(r, n, path, "Too many: %zu: must have at most %zu items", count, max);
        return false;
    }
    if (count < f->min_items)
        invalid_in_body(r, n, path, "have at least %zu items", f->min_items);
    return true;
}

static bool open_list(struct reader *r, const struct field *f, const struct node *n, const struct path *path)
{
    if (n->type != NODE_LIST) {
        schema_wrong_type(r, n, path, "array");
        return false;
    }
    return check_items(r, f, n, path, n->u.list.count);
}

/* Two scalars that mean the same. */
static bool same_scalar(const struct node *a, const struct node *b)
{
    if (a->type == NODE_STRING && b->type == NODE_STRING)
        return str_eq(a->u.string, b->u.string);
    int64_t x, y;
    return node_integer(a, &x) && node_integer(b, &y) && x == y;
}

static void refuse_twins(struct reader *r, const struct field *f, const struct node *list, const struct path *path)
{
    for (size_t i = 1; i < list->u.list.count; i++) {
        const struct node *item = list->u.list.items[i], *key = node_get(item, f->unique);
        for (size_t j = 0; key != NULL && j < i; j++) {
            const struct node *other = node_get(list->u.list.items[j], f->unique);
            if (other == NULL || !same_scalar(key, other))
                continue;
            struct strbuf b = {0};
            show_value(r, key, &b);
            if (b.n >= 2)
                b.n -= 2;
            struct path at = {.up = path, .type = PATH_INDEX, .index = i};
            schema_error(r, item, &at, "Duplicate value: {\"%s\":%.*s}", f->unique, STR_ARG(strbuf_str(&b)));
            strbuf_free(&b);
            break;
        }
    }
}

static void read_objects(struct reader *r, const struct field *f, const struct node *n, const struct path *path,
                         char *base)
{
    if (!open_list(r, f, n, path))
        return;
    size_t count = n->u.list.count, size = f->schema->size;
    char *items = memory_alloc(r->memory, count * size);
    for (size_t i = 0; i < count; i++) {
        struct path at = {.up = path, .type = PATH_INDEX, .index = i};
        schema_read(r, f->schema, n->u.list.items[i], &at, items + i * size);
    }
    if (f->unique != NULL)
        refuse_twins(r, f, n, path);
    *(void **)(void *)(base + f->at) = items;
    *(size_t *)(void *)(base + f->count_at) = count;
}

static void read_strings(struct reader *r, const struct field *f, const struct node *n, const struct path *path,
                         char *base)
{
    if (!open_list(r, f, n, path))
        return;
    char **items = memory_alloc(r->memory, n->u.list.count * sizeof(char *));
    size_t count = 0;
    for (size_t i = 0; i < n->u.list.count; i++) {
        struct path at = {.up = path, .type = PATH_INDEX, .index = i};
        char *z = read_string(r, f, n->u.list.items[i], &at);
        if (z == NULL)
            continue;
        for (size_t j = 0; f->is_set && j < count; j++) {
            if (strcmp(items[j], z) == 0)
                schema_error(r, n->u.list.items[i], &at, "Duplicate value: \"%s\"", z);
        }
        items[count++] = z;
    }
    *(char ***)(void *)(base + f->at) = items;
    *(size_t *)(void *)(base + f->count_at) = count;
}

static void read_ints(struct reader *r, const struct field *f, const struct node *n, const struct path *path,
                      char *base)
{
    if (!open_list(r, f, n, path))
        return;
    uint16_t *items = memory_alloc(r->memory, n->u.list.count * sizeof *items);
    size_t count = 0;
    for (size_t i = 0; i < n->u.list.count; i++) {
        struct path at = {.up = path, .type = PATH_INDEX, .index = i};
        int64_t v;
        if (read_int(r, f, n->u.list.items[i], &at, &v))
            items[count++] = (uint16_t)v;
    }
    *(uint16_t **)(void *)(base + f->at) = items;
    *(size_t *)(void *)(base + f->count_at) = count;
}

static void read_labels(struct reader *r, const struct field *f, const struct node *n, const struct path *path,
                        struct labels *out)
{
    if (n->type != NODE_MAP) {
        schema_wrong_type(r, n, path, "object");
        return;
    }
    if (!check_items(r, f, n, path, n->u.map.count))
        return;
    out->list = memory_alloc(r->memory, n->u.map.count * sizeof *out->list);
    for (size_t i = 0; i < n->u.map.count; i++) {
        const struct member *m = &n->u.map.members[i];
        struct path at = {.up = path, .type = PATH_KEY, .name = m->key};
        if (memchr(m->key.p, '\0', m->key.n) != NULL) {
            schema_error(r, m->value, &at, "Invalid value: must not hold NUL bytes");
            continue;
        }
        char *value = m->value->type == NODE_NULL ? memory_str(r->memory, STR("")) : schema_string(r, m->value, &at);
        if (value != NULL)
            out->list[out->count++] = (struct label){memory_str(r->memory, m->key), value};
    }
}

static void read_duration(struct reader *r, const struct field *f, const struct node *n, const struct path *path,
                          int64_t *out)
{
    char *z = schema_string(r, n, path);
    if (z != NULL && schema_format(r, n, path, str_of(z), &format_duration)) {
        bool ok = number_parse_duration(str_of(z), out);
        ASSERT(ok);
    }
    (void)f;
}

static void read_field(struct reader *r, const struct field *f, const struct node *n, const struct path *path,
                       char *base)
{
    void *at = base + f->at;
    int64_t integer;
    if (f->has != 0)
        *(bool *)(base + f->has - 1) = true;
    switch (f->type) {
    case FIELD_STRING: *(char **)at = read_string(r, f, n, path); break;
    case FIELD_BOOL:
        if (n->type == NODE_BOOL)
            *(bool *)at = n->u.boolean;
        else
            schema_wrong_type(r, n, path, "boolean");
        break;
    case FIELD_INT:
        if (read_int(r, f, n, path, &integer))
            store_int(at, f->width, integer);
        break;
    case FIELD_ENUM: read_enum(r, f, n, path, at); break;
    case FIELD_DURATION: read_duration(r, f, n, path, at); break;
    case FIELD_OBJECT: schema_read(r, f->schema, n, path, at); break;
    case FIELD_POINTER:
        *(void **)at = memory_alloc(r->memory, f->schema->size);
        schema_read(r, f->schema, n, path, *(void **)at);
        break;
    case FIELD_OBJECTS: read_objects(r, f, n, path, base); break;
    case FIELD_STRINGS: read_strings(r, f, n, path, base); break;
    case FIELD_INTS: read_ints(r, f, n, path, base); break;
    case FIELD_LABELS: read_labels(r, f, n, path, at); break;
    case FIELD_NODE:
        if (n->type == f->node_type)
            *(const struct node **)at = n;
        else
            schema_wrong_type(r, n, path, f->node_type == NODE_LIST ? "array" : "object");
        break;
    case FIELD_UNREAD:
        schema_warn(r, n, path, "%s", f->text != NULL ? f->text : "is not supported yet and has no effect");
        break;
    case FIELD_IGNORED: break;
    }
}

/* ---- an object ---- */

static const struct field *find_field(const struct schema *s, struct str name)
{
    for (size_t i = 0; i < s->field_count; i++) {
        if (str_is(name, s->fields[i].name))
            return &s->fields[i];
    }
    return NULL;
}

static void unknown_field(struct reader *r, const struct schema *s, const struct member *m, const struct path *path)
{
    char *where = path_text(path);
    struct strbuf b = {0};
    strbuf_printf(&b, "unknown field \"%s", where);
    schema_report(r, s->open ? DIAG_WARNING : DIAG_ERROR, m->line, m->col, NULL,
                  (strbuf_addc(&b, '"'), strbuf_addc(&b, '\0'), b.p));
    strbuf_free(&b);
    mem_free(where);
}

void schema_read(struct reader *r, const struct schema *s, const struct node *n, const struct path *path, void *out)
{
    char *raw = s->raw_size != 0 ? memory_alloc(r->scratch, s->raw_size) : out;
    if (s->line != 0)
        *(unsigned *)(void *)((char *)out + s->line - 1) = n->line;
    if (s->col != 0)
        *(unsigned *)(void *)((char *)out + s->col - 1) = n->col;
    if (n->type != NODE_MAP) {
        schema_wrong_type(r, n, path, "object");
        return;
    }
    for (size_t i = 0; i < n->u.map.count; i++) {
        const struct member *m = &n->u.map.members[i];
        struct path at = {.up = path, .type = PATH_FIELD, .name = m->key};
        const struct field *f = find_field(s, m->key);
        if (f == NULL)
            unknown_field(r, s, m, &at);
        else if (m->value->type != NODE_NULL)
            read_field(r, f, m->value, &at, raw);
    }
    for (size_t i = 0; i < s->field_count; i++) {
        const struct field *f = &s->fields[i];
        if (!f->required || node_get(n, f->name) != NULL)
            continue;
        struct path at = {.up = path, .type = PATH_FIELD, .name = str_of(f->name)};
        schema_error(r, n, &at, "Required value");
    }
    if (s->finish != NULL)
        s->finish(r, n, path, raw, out);
}
