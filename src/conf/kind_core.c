/* SPDX-License-Identifier: Apache-2.0
 *
 * Namespace, Secret and ConfigMap. A Secret's values must never show: not in messages (the reader's hide_values is set
 * for it), not in what resource_write_json prints.
 */
#include "conf/kinds.h"
#include "conf/number.h"

enum { MAX_DATA = 1024 * 1024 };

/* ---- Namespace ---- */

static const struct field namespace_fields[] = {ROOT_FIELDS, {.name = "spec", .type = FIELD_IGNORED}};
static const struct schema namespace_schema = {FIELDS(namespace_fields)};
const struct kind_reader kind_namespace = {{"v1"}, &namespace_schema, &format_label_name};

/* ---- Secret ---- */

struct raw_secret {
    char *type;
    const struct node *data, *string_data;
};

static bool check_key(struct reader *r, const struct member *m, const struct path *path)
{
    struct path at = {.up = path, .type = PATH_KEY, .name = m->key};
    struct node key = {.type = NODE_STRING, .line = m->line, .col = m->col, .u.string = m->key};
    bool hidden = r->hide_values;
    r->hide_values = false;
    bool ok = schema_format(r, &key, &at, m->key, &format_config_key);
    r->hide_values = hidden;
    return ok;
}

static struct secret_item *secret_slot(struct secret *s, char *key)
{
    for (size_t i = 0; i < s->item_count; i++) {
        if (strcmp(s->items[i].key, key) == 0)
            return &s->items[i];
    }
    return &s->items[s->item_count++];
}

static bool decode(struct reader *r, const struct node *n, const struct path *path, uint8_t **bytes, size_t *count)
{
    if (n->type != NODE_STRING && n->type != NODE_NULL) {
        schema_wrong_type(r, n, path, "string");
        return false;
    }
    struct str text = n->type == NODE_STRING ? n->u.string : STR("");
    *bytes = memory_alloc(r->memory, text.n / 4 * 3 + 4);
    if (number_parse_base64(text, *bytes, count))
        return true;
    schema_error(r, n, path, "Invalid value: illegal base64 data at input byte %zu", *count);
    return false;
}

static void read_secret_data(struct reader *r, const struct raw_secret *raw, struct secret *s)
{
    struct path data = {.type = PATH_FIELD, .name = STR("data")};
    for (size_t i = 0; raw->data != NULL && i < raw->data->u.map.count; i++) {
        const struct member *m = &raw->data->u.map.members[i];
        struct path at = {.up = &data, .type = PATH_KEY, .name = m->key};
        struct secret_item item = {0};
        if (!check_key(r, m, &data) || !decode(r, m->value, &at, &item.bytes, &item.n))
            continue;
        item.key = memory_str(r->memory, m->key);
        s->items[s->item_count++] = item;
    }
    struct path strings = {.type = PATH_FIELD, .name = STR("stringData")};
    for (size_t i = 0; raw->string_data != NULL && i < raw->string_data->u.map.count; i++) {
        const struct member *m = &raw->string_data->u.map.members[i];
        struct path at = {.up = &strings, .type = PATH_KEY, .name = m->key};
        if (!check_key(r, m, &strings))
            continue;
        if (m->value->type != NODE_STRING && m->value->type != NODE_NULL) {
            schema_wrong_type(r, m->value, &at, "string");
            continue;
        }
        struct str text = m->value->type == NODE_STRING ? m->value->u.string : STR("");
        char *key = memory_str(r->memory, m->key);
        *secret_slot(s, key) = (struct secret_item){key, (uint8_t *)memory_str(r->memory, text), text.n};
    }
}

static void check_secret(struct reader *r, const struct node *n, const struct secret *s)
{
    static const struct {
        const char *type, *key;
    } needs[] = {{"kubernetes.io/dockerconfigjson", ".dockerconfigjson"},
                 {"kubernetes.io/dockercfg", ".dockercfg"},
                 {"kubernetes.io/tls", "tls.crt"},
                 {"kubernetes.io/tls", "tls.key"}};
    struct path data = {.type = PATH_FIELD, .name = STR("data")};
    size_t total = 0;
    for (size_t i = 0; i < s->item_count; i++)
        total += s->items[i].n;
    if (total > MAX_DATA)
        schema_error(r, n, &data, "Too long: may not be more than %d bytes", MAX_DATA);
    for (size_t k = 0; k < ARRAY_LEN(needs); k++) {
        if (strcmp(s->type, needs[k].type) != 0)
            continue;
        bool found = false;
        for (size_t i = 0; i < s->item_count; i++)
            found = found || strcmp(s->items[i].key, needs[k].key) == 0;
        struct path at = {.up = &data, .type = PATH_KEY, .name = str_of(needs[k].key)};
        if (!found && node_get(node_get(n, "data"), needs[k].key) == NULL)
            schema_error(r, n, &at, "Required value");
    }
}

static void finish_secret(struct reader *r, const struct node *n, const struct path *path, void *raw, void *out)
{
    (void)path;
    const struct raw_secret *from = raw;
    struct secret *s = out;
    size_t count = (from->data != NULL ? from->data->u.map.count : 0) +
                   (from->string_data != NULL ? from->string_data->u.map.count : 0);
    s->type = from->type != NULL && from->type[0] != '\0' ? from->type : memory_str(r->memory, STR("Opaque"));
    if (count > 4096) {
        schema_error(r, n, NULL, "Too many: %zu: must have at most 4096 keys", count);
        return;
    }
    s->items = memory_alloc(r->memory, count * sizeof *s->items);
    read_secret_data(r, from, s);
    check_secret(r, n, s);
}

static const struct field secret_fields[] = {
    ROOT_FIELDS,
    {.name = "type", .type = FIELD_STRING, .at = offsetof(struct raw_secret, type), .max = 253},
    {.name = "data", .type = FIELD_NODE, .at = offsetof(struct raw_secret, data), .node_type = NODE_MAP},
    {.name = "stringData", .type = FIELD_NODE, .at = offsetof(struct raw_secret, string_data), .node_type = NODE_MAP},
    {.name = "immutable", .type = FIELD_IGNORED},
};
static const struct schema secret_schema = {FIELDS(secret_fields), .size = sizeof(struct secret),
                                            .raw_size = sizeof(struct raw_secret), .finish = finish_secret};
const struct kind_reader kind_secret = {{"v1"}, &secret_schema, &format_subdomain};

/* ---- ConfigMap ---- */

struct raw_config_map {
    struct labels data;
    const struct node *binary;
};

static void finish_config_map(struct reader *r, const struct node *n, const struct path *path, void *raw, void *out)
{
    (void)path;
    const struct raw_config_map *from = raw;
    struct config_map *c = out;
    struct path data = {.type = PATH_FIELD, .name = STR("data")};
    struct path binary = {.type = PATH_FIELD, .name = STR("binaryData")};
    const struct node *node = node_get(n, "data");
    size_t total = 0;
    for (size_t i = 0; node != NULL && node->type == NODE_MAP && i < node->u.map.count; i++) {
        check_key(r, &node->u.map.members[i], &data);
        total += node->u.map.members[i].value->bytes;
    }
    for (size_t i = 0; from->binary != NULL && i < from->binary->u.map.count; i++) {
        const struct member *m = &from->binary->u.map.members[i];
        struct path at = {.up = &binary, .type = PATH_KEY, .name = m->key};
        uint8_t *bytes;
        size_t count;
        if (check_key(r, m, &binary) && decode(r, m->value, &at, &bytes, &count))
            total += count;
        if (node_member(node, m->key) != NULL)
            schema_error(r, m->value, &at, "Invalid value: \"%s\": duplicate of key present in data", m->key.p);
    }
    if (total > MAX_DATA)
        schema_error(r, n, NULL, "Too long: may not be more than %d bytes", MAX_DATA);
    c->data = from->data.list;
    c->data_count = from->data.count;
}

static const struct field config_map_fields[] = {
    ROOT_FIELDS,
    {.name = "data", .type = FIELD_LABELS, .at = offsetof(struct raw_config_map, data)},
    {.name = "binaryData", .type = FIELD_NODE, .at = offsetof(struct raw_config_map, binary), .node_type = NODE_MAP},
    {.name = "immutable", .type = FIELD_IGNORED},
};
static const struct schema config_map_schema = {FIELDS(config_map_fields), .size = sizeof(struct config_map),
                                                .raw_size = sizeof(struct raw_config_map), .finish = finish_config_map};
const struct kind_reader kind_config_map = {{"v1"}, &config_map_schema, &format_subdomain};
