/* SPDX-License-Identifier: Apache-2.0
 *
 * libyaml's events become nodes. libyaml shows in this file alone. What makes it hard is text that is small but large
 * to walk: nesting (bounded by depth), aliases of aliases (bounded by counting every appearance) and anchors that
 * contain themselves (refused). Duplicate keys are reported but do not stop the reading: the other errors are wanted
 * too. Text that begins with a brace or bracket is tried as JSON first, since libyaml does not know all of it
 * (surrogate pairs).
 */
#include <math.h>
#include <yaml.h>

#include "base/map.h"
#include "conf/ydoc.h"

struct ydoc_stream {
    struct str text;
    yaml_parser_t parser;
    bool parser_open, ended;
    bool is_json; /* then at, line and line_start say where the next document begins */
    size_t at, line_start;
    unsigned line;

    char *error;
    unsigned error_line, error_col;

    /* the document being read */
    struct conf_memory *memory;
    struct ydoc *doc;
    struct map anchors; /* name to node, or to &anchor_open while it is being read */
    uint64_t nodes, alias_bytes;
};

static struct node anchor_open;

static struct node *read_node(struct ydoc_stream *s, const yaml_event_t *event, unsigned depth);

struct node *node_new(struct conf_memory *memory, enum node_type type, unsigned line, unsigned col)
{
    struct node *n = memory_alloc(memory, sizeof *n);
    n->type = type;
    n->line = line;
    n->col = col;
    n->height = n->weight = 1;
    return n;
}

struct node *node_new_string(struct conf_memory *memory, struct str text, unsigned line, unsigned col)
{
    struct node *n = node_new(memory, NODE_STRING, line, col);
    n->u.string = str_span(memory_str(memory, text), text.n);
    n->bytes = text.n;
    return n;
}

const struct member *node_member(const struct node *n, struct str key)
{
    if (n == NULL || n->type != NODE_MAP)
        return NULL;
    for (size_t i = 0; i < n->u.map.count; i++) {
        if (str_eq(n->u.map.members[i].key, key))
            return &n->u.map.members[i];
    }
    return NULL;
}

const struct node *node_get(const struct node *n, const char *key)
{
    const struct member *m = node_member(n, str_of(key));
    return m != NULL && m->value->type != NODE_NULL ? m->value : NULL;
}

bool node_is_whole(const struct node *n)
{
    if (n->type != NODE_FLOAT)
        return n->type == NODE_INT;
    /* From 2^53 on every double is whole. */
    return fabs(n->u.number) >= 0x1p53 || n->u.number == (double)(int64_t)n->u.number;
}

bool node_integer(const struct node *n, int64_t *out)
{
    if (n->type == NODE_INT) {
        *out = n->u.integer;
        return true;
    }
    if (!node_is_whole(n) || fabs(n->u.number) >= 0x1p63)
        return false;
    *out = (int64_t)n->u.number;
    return true;
}

const char *node_type_name(const struct node *n)
{
    int64_t whole;
    switch (n->type) {
    case NODE_NULL: return "null";
    case NODE_BOOL: return "boolean";
    case NODE_INT: return "integer";
    case NODE_FLOAT: return node_integer(n, &whole) ? "integer" : "number";
    case NODE_STRING: return "string";
    case NODE_LIST: return "array";
    case NODE_MAP: return "object";
    }
    return "";
}

void ydoc_add_problem(struct ydoc *d, struct conf_memory *memory, unsigned line, unsigned col, const char *fmt, ...)
{
    if (d->problem_count == YDOC_MAX_PROBLEMS)
        return;
    char text[300];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    size_t length = n < 0 ? 0 : (size_t)n < sizeof text ? (size_t)n : sizeof text - 1;
    d->problems[d->problem_count++] = (struct ydoc_problem){line, col, memory_str(memory, str_span(text, length))};
}

static void node_seal_child(const struct node *child, uint64_t *weight, uint64_t *bytes, uint32_t *height)
{
    *weight += child->weight;
    *bytes += child->bytes;
    if (child->height > *height)
        *height = child->height;
}

bool node_seal(struct node *n)
{
    uint64_t weight = 1, bytes = 0;
    uint32_t height = 0;
    if (n->type == NODE_LIST) {
        for (size_t i = 0; i < n->u.list.count; i++)
            node_seal_child(n->u.list.items[i], &weight, &bytes, &height);
    } else {
        for (size_t i = 0; i < n->u.map.count; i++) {
            node_seal_child(n->u.map.members[i].value, &weight, &bytes, &height);
            bytes += n->u.map.members[i].key.n;
        }
    }
    if (weight > YDOC_MAX_NODES)
        return false;
    n->weight = (uint32_t)weight;
    n->bytes = bytes;
    n->height = height + 1;
    return true;
}

/* Small maps, nearly all of them, are compared by hand; large ones by hashing, so that they take no quadratic time. */
static bool seen_before(struct map *seen, const struct member *members, size_t kept, const struct member *m)
{
    if (seen != NULL)
        return map_set(seen, m->key, seen) != NULL;
    for (size_t i = 0; i < kept; i++) {
        if (str_eq(members[i].key, m->key))
            return true;
    }
    return false;
}

void node_refuse_duplicates(struct ydoc *d, struct conf_memory *memory, struct node *map)
{
    struct map seen = {0};
    struct member *members = map->u.map.members;
    size_t kept = 0;
    bool large = map->u.map.count > 16;
    for (size_t i = 0; i < map->u.map.count; i++) {
        const struct member *m = &members[i];
        if (seen_before(large ? &seen : NULL, members, kept, m))
            ydoc_add_problem(d, memory, m->line, m->col, "key \"%.*s\" already set in map",
                             (int)(m->key.n > 100 ? 100 : m->key.n), m->key.p);
        else
            members[kept++] = *m;
    }
    map->u.map.count = kept;
    map_free(&seen);
}

static struct node *fail(struct ydoc_stream *s, unsigned line, unsigned col, const char *message)
{
    if (s->error == NULL) {
        s->error = mem_strdup(message);
        s->error_line = line;
        s->error_col = col;
    }
    return NULL;
}

static unsigned mark_line(const yaml_event_t *e) { return (unsigned)e->start_mark.line + 1; }
static unsigned mark_col(const yaml_event_t *e) { return (unsigned)e->start_mark.column + 1; }

static void fail_syntax(struct ydoc_stream *s)
{
    const yaml_parser_t *p = &s->parser;
    const char *problem = p->problem != NULL ? p->problem : "cannot be read";
    if (p->error == YAML_READER_ERROR) {
        /* The reader knows a byte offset only. */
        unsigned line = 1;
        size_t start = 0;
        for (size_t i = 0; i < p->problem_offset && i < s->text.n; i++) {
            if (s->text.p[i] == '\n') {
                line++;
                start = i + 1;
            }
        }
        fail(s, line, (unsigned)(p->problem_offset - start) + 1, problem);
        return;
    }
    char *message = p->context != NULL ? mem_printf("%s: %s", problem, p->context) : mem_strdup(problem);
    fail(s, (unsigned)p->problem_mark.line + 1, (unsigned)p->problem_mark.column + 1, message);
    mem_free(message);
}

static bool next_event(struct ydoc_stream *s, yaml_event_t *event)
{
    if (yaml_parser_parse(&s->parser, event) != 0)
        return true;
    fail_syntax(s);
    return false;
}

/* Every node counts, also when it appears by an alias. */
static bool charge(struct ydoc_stream *s, uint64_t nodes, unsigned line, unsigned col)
{
    s->nodes += nodes;
    if (s->nodes <= YDOC_MAX_NODES)
        return true;
    fail(s, line, col, "the document has more than 1000000 nodes");
    return false;
}

static struct node *read_alias(struct ydoc_stream *s, const yaml_event_t *event, unsigned depth)
{
    struct str name = str_of((const char *)event->data.alias.anchor);
    struct node *n = map_get(&s->anchors, name);
    if (n == NULL)
        return fail(s, mark_line(event), mark_col(event), "unknown anchor");
    if (n == &anchor_open)
        return fail(s, mark_line(event), mark_col(event), "an anchor's value contains itself");
    if (depth + n->height > YDOC_MAX_DEPTH)
        return fail(s, mark_line(event), mark_col(event), "nested deeper than 64 levels");
    s->alias_bytes += n->bytes;
    if (s->alias_bytes > YDOC_MAX_ALIAS_BYTES)
        return fail(s, mark_line(event), mark_col(event), "aliases stand for more than 16 MiB of text");
    return charge(s, n->weight, mark_line(event), mark_col(event)) ? n : NULL;
}

static struct node *read_list(struct ydoc_stream *s, const yaml_event_t *start, unsigned depth)
{
    struct node *n = node_new(s->memory, NODE_LIST, mark_line(start), mark_col(start));
    size_t cap = 0;
    for (;;) {
        yaml_event_t event;
        if (!next_event(s, &event))
            return NULL;
        bool done = event.type == YAML_SEQUENCE_END_EVENT;
        struct node *item = done ? NULL : read_node(s, &event, depth + 1);
        yaml_event_delete(&event);
        if (done)
            break;
        if (item == NULL)
            return NULL;
        n->u.list.items = memory_grow(s->memory, n->u.list.items, n->u.list.count, &cap, sizeof(struct node *));
        n->u.list.items[n->u.list.count++] = item;
    }
    return node_seal(n) ? n : fail(s, n->line, n->col, "the document has more than 1000000 nodes");
}

/* "<<: *defaults": members that the map does not set itself; of several sources the first wins. */
static void merge_into(struct ydoc_stream *s, struct node *n, size_t *cap, const struct node *source, struct map *own)
{
    if (source->type != NODE_MAP) {
        ydoc_add_problem(s->doc, s->memory, source->line, source->col,
                         "map merge requires map or sequence of maps as the value");
        return;
    }
    for (size_t i = 0; i < source->u.map.count; i++) {
        const struct member *m = &source->u.map.members[i];
        if (map_get(own, m->key) != NULL)
            continue;
        map_set(own, m->key, n);
        n->u.map.members = memory_grow(s->memory, n->u.map.members, n->u.map.count, cap, sizeof(struct member));
        n->u.map.members[n->u.map.count++] = *m;
    }
}

static void merge_all(struct ydoc_stream *s, struct node *n, size_t *cap, const struct node *sources)
{
    struct map own = {0};
    for (size_t i = 0; i < n->u.map.count; i++)
        map_set(&own, n->u.map.members[i].key, n);
    if (sources->type == NODE_LIST) {
        for (size_t i = 0; i < sources->u.list.count; i++)
            merge_into(s, n, cap, sources->u.list.items[i], &own);
    } else {
        merge_into(s, n, cap, sources, &own);
    }
    map_free(&own);
}

static bool is_merge_key(const yaml_event_t *e)
{
    return e->type == YAML_SCALAR_EVENT && e->data.scalar.plain_implicit != 0 && e->data.scalar.length == 2 &&
           memcmp(e->data.scalar.value, "<<", 2) == 0;
}

/* One key and its value. False at the end of the map or on failure. */
static bool read_member(struct ydoc_stream *s, unsigned depth, struct member *m, bool *merge, bool *done)
{
    yaml_event_t event;
    if (!next_event(s, &event))
        return false;
    *done = event.type == YAML_MAPPING_END_EVENT;
    struct node *key = NULL;
    if (!*done) {
        *merge = is_merge_key(&event);
        m->line = mark_line(&event);
        m->col = mark_col(&event);
        key = read_node(s, &event, depth + 1);
    }
    yaml_event_delete(&event);
    if (key == NULL)
        return false;
    if (!yscalar_key(s->memory, key, &m->key)) {
        ydoc_add_problem(s->doc, s->memory, m->line, m->col, "unsupported map key of type: %s", node_type_name(key));
        m->key = STR("");
    }
    if (!next_event(s, &event))
        return false;
    m->value = read_node(s, &event, depth + 1);
    yaml_event_delete(&event);
    return m->value != NULL;
}

static struct node *read_map(struct ydoc_stream *s, const yaml_event_t *start, unsigned depth)
{
    struct node *n = node_new(s->memory, NODE_MAP, mark_line(start), mark_col(start));
    size_t cap = 0;
    const struct node *merged = NULL;
    for (;;) {
        struct member m = {0};
        bool merge = false, done = false;
        if (!read_member(s, depth, &m, &merge, &done)) {
            if (done)
                break;
            return NULL;
        }
        if (merge && merged == NULL) {
            merged = m.value;
            continue;
        }
        n->u.map.members = memory_grow(s->memory, n->u.map.members, n->u.map.count, &cap, sizeof m);
        n->u.map.members[n->u.map.count++] = m;
    }
    node_refuse_duplicates(s->doc, s->memory, n);
    if (merged != NULL)
        merge_all(s, n, &cap, merged);
    return node_seal(n) ? n : fail(s, n->line, n->col, "the document has more than 1000000 nodes");
}

static struct node *read_scalar(struct ydoc_stream *s, const yaml_event_t *event)
{
    struct str text = str_span(event->data.scalar.value, event->data.scalar.length);
    return yscalar_read(s->doc, s->memory, text, (const char *)event->data.scalar.tag,
                        event->data.scalar.plain_implicit != 0, mark_line(event), mark_col(event));
}

static struct node *read_node(struct ydoc_stream *s, const yaml_event_t *event, unsigned depth)
{
    if (event->type == YAML_ALIAS_EVENT)
        return read_alias(s, event, depth);
    if (depth >= YDOC_MAX_DEPTH)
        return fail(s, mark_line(event), mark_col(event), "nested deeper than 64 levels");
    if (!charge(s, 1, mark_line(event), mark_col(event)))
        return NULL;
    const char *anchor = NULL;
    if (event->type == YAML_SCALAR_EVENT)
        anchor = (const char *)event->data.scalar.anchor;
    else if (event->type == YAML_SEQUENCE_START_EVENT)
        anchor = (const char *)event->data.sequence_start.anchor;
    else if (event->type == YAML_MAPPING_START_EVENT)
        anchor = (const char *)event->data.mapping_start.anchor;
    if (anchor != NULL)
        map_set(&s->anchors, str_of(anchor), &anchor_open);
    struct node *n;
    switch (event->type) {
    case YAML_SCALAR_EVENT: n = read_scalar(s, event); break;
    case YAML_SEQUENCE_START_EVENT: n = read_list(s, event, depth); break;
    case YAML_MAPPING_START_EVENT: n = read_map(s, event, depth); break;
    default: return fail(s, mark_line(event), mark_col(event), "unexpected structure");
    }
    if (anchor != NULL && n != NULL)
        map_set(&s->anchors, str_of(anchor), n);
    return n;
}

struct ydoc_stream *ydoc_open(struct str text)
{
    struct ydoc_stream *s = mem_zalloc(sizeof *s);
    s->text = text.p != NULL ? text : STR("");
    s->line = 1;
    size_t at = 0;
    const char *p = s->text.p;
    while (at < text.n && memchr(" \t\r\n", p[at], 4) != NULL)
        at++;
    s->is_json = at < text.n && (p[at] == '{' || p[at] == '[') && str_is_utf8(text);
    return s;
}

static void open_parser(struct ydoc_stream *s)
{
    if (s->parser_open)
        return;
    ASSERT(yaml_parser_initialize(&s->parser) != 0);
    yaml_parser_set_input_string(&s->parser, (const unsigned char *)s->text.p, s->text.n);
    s->parser_open = true;
}

static enum ydoc_result read_yaml(struct ydoc_stream *s, struct ydoc *out)
{
    open_parser(s);
    for (;;) {
        yaml_event_t event;
        if (!next_event(s, &event))
            return YDOC_ERROR;
        yaml_event_type_t type = event.type;
        bool in_document = type != YAML_STREAM_START_EVENT && type != YAML_DOCUMENT_START_EVENT &&
                           type != YAML_DOCUMENT_END_EVENT && type != YAML_STREAM_END_EVENT;
        if (in_document)
            out->root = read_node(s, &event, 0);
        yaml_event_delete(&event);
        if (type == YAML_STREAM_END_EVENT) {
            s->ended = true;
            return YDOC_END;
        }
        if (in_document && out->root == NULL)
            return YDOC_ERROR;
        if (type == YAML_DOCUMENT_END_EVENT)
            return YDOC_DOCUMENT;
    }
}

enum ydoc_result ydoc_next(struct ydoc_stream *s, struct conf_memory *memory, struct ydoc *out)
{
    *out = (struct ydoc){0};
    if (s->error != NULL)
        return YDOC_ERROR;
    if (s->ended)
        return YDOC_END;
    if (s->is_json) {
        if (s->at != 0 && s->at == s->text.n)
            return YDOC_END;
        if (json_text_read(out, memory, s->text, &s->at, &s->line, &s->line_start))
            return YDOC_DOCUMENT;
        *out = (struct ydoc){0};
        if (s->at != 0)
            return fail(s, s->line, (unsigned)(s->at - s->line_start) + 1, "not a JSON value"), YDOC_ERROR;
        s->is_json = false;
    }
    s->memory = memory;
    s->doc = out;
    s->nodes = s->alias_bytes = 0;
    enum ydoc_result result = read_yaml(s, out);
    map_free(&s->anchors);
    s->anchors = (struct map){0};
    s->memory = NULL;
    s->doc = NULL;
    return result;
}

const char *ydoc_error(const struct ydoc_stream *s, unsigned *line, unsigned *col)
{
    *line = s->error_line;
    *col = s->error_col;
    return s->error;
}

void ydoc_close(struct ydoc_stream *s)
{
    if (s->parser_open)
        yaml_parser_delete(&s->parser);
    mem_free(s->error);
    mem_free(s);
}
