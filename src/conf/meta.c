/* SPDX-License-Identifier: Apache-2.0
 *
 * metadata of any object: names, labels, annotations and what an API server adds. Fields that Weir does not use are
 * tolerated, as objects come back from `kubectl get -o yaml` with all of them.
 */
#include "conf/kinds.h"
#include "conf/number.h"

enum { MAX_ANNOTATION_BYTES = 256 * 1024 };

struct raw_meta {
    char *name, *generate_name, *ns, *uid, *resource_version, *created;
    struct labels labels, annotations;
    int64_t generation;
};

#define M(member) offsetof(struct raw_meta, member)
#define IGNORE(field_name)                                                                                             \
    {                                                                                                                  \
        .name = field_name, .type = FIELD_IGNORED                                                                      \
    }
static const struct field meta_fields[] = {
    {.name = "name", .type = FIELD_STRING, .at = M(name)},
    {.name = "generateName", .type = FIELD_STRING, .at = M(generate_name)},
    {.name = "namespace", .type = FIELD_STRING, .at = M(ns)},
    {.name = "uid", .type = FIELD_STRING, .at = M(uid)},
    {.name = "resourceVersion", .type = FIELD_STRING, .at = M(resource_version)},
    {.name = "generation", .type = FIELD_INT, .width = 8, .at = M(generation)},
    {.name = "creationTimestamp", .type = FIELD_STRING, .at = M(created)},
    {.name = "labels", .type = FIELD_LABELS, .at = M(labels)},
    {.name = "annotations", .type = FIELD_LABELS, .at = M(annotations)},
    IGNORE("deletionTimestamp"),
    IGNORE("deletionGracePeriodSeconds"),
    IGNORE("selfLink"),
    IGNORE("ownerReferences"),
    IGNORE("finalizers"),
    IGNORE("managedFields"),
};
static const struct schema meta_schema = {FIELDS(meta_fields), .size = sizeof(struct raw_meta), .open = true};

static const struct path metadata_path = {.type = PATH_FIELD, .name = STR_INIT("metadata")};

static void check_name(struct reader *r, const struct node *n, const struct kind_reader *kind, struct raw_meta *m)
{
    struct path at = {.up = &metadata_path, .type = PATH_FIELD, .name = STR("name")};
    if (m->name == NULL || m->name[0] == '\0') {
        const struct member *given = node_member(n, STR("name"));
        if (given == NULL || given->value->type == NODE_NULL || given->value->type == NODE_STRING)
            schema_error(r, given != NULL ? given->value : n, &at, "Required value: %s",
                         m->generate_name != NULL ? "generateName needs an API server: give the name itself"
                                                  : "name or generateName is required");
        return;
    }
    schema_format(r, schema_place(n, "name"), &at, str_of(m->name), kind->name);
}

static void check_namespace(struct reader *r, const struct node *n, const struct raw_meta *m)
{
    struct path at = {.up = &metadata_path, .type = PATH_FIELD, .name = STR("namespace")};
    if (m->ns == NULL || m->ns[0] == '\0')
        return;
    if (!kind_is_namespaced(r->meta->kind))
        schema_error(r, schema_place(n, "namespace"), &at, "Forbidden: not allowed on this type");
    else
        schema_format(r, schema_place(n, "namespace"), &at, str_of(m->ns), &format_label_name);
}

/* Keys of labels and annotations, values of labels. */
static void check_labels(struct reader *r, const struct node *n, const char *member, bool values)
{
    struct path at = {.up = &metadata_path, .type = PATH_FIELD, .name = str_of(member)};
    const struct node *map = node_get(n, member);
    uint64_t total = 0;
    for (size_t i = 0; map != NULL && map->type == NODE_MAP && i < map->u.map.count; i++) {
        const struct member *m = &map->u.map.members[i];
        struct node key = {.type = NODE_STRING, .line = m->line, .col = m->col, .u.string = m->key};
        schema_format(r, &key, &at, m->key, &format_qualified_name);
        if (values && m->value->type == NODE_STRING)
            schema_format(r, m->value, &at, m->value->u.string, &format_label_value);
        total += m->key.n + m->value->bytes;
    }
    if (!values && total > MAX_ANNOTATION_BYTES)
        schema_error(r, map, &at, "Too long: may not be more than %d bytes", MAX_ANNOTATION_BYTES);
}

static void read_created(struct reader *r, const struct node *n, const struct raw_meta *m)
{
    struct path at = {.up = &metadata_path, .type = PATH_FIELD, .name = STR("creationTimestamp")};
    if (m->created != NULL && !number_parse_time(str_of(m->created), &r->meta->created))
        schema_invalid(r, schema_place(n, "creationTimestamp"), &at,
                       "must be an RFC 3339 time, such as 2026-11-23T15:00:00Z");
}

void meta_read(struct reader *r, const struct node *root, const struct kind_reader *kind, const char *default_ns)
{
    struct meta *meta = r->meta;
    struct raw_meta m = {0};
    bool hidden = r->hide_values;
    r->hide_values = false;
    const struct node *n = node_get(root, "metadata");
    if (n != NULL)
        schema_read(r, &meta_schema, n, &metadata_path, &m);
    else
        n = root;
    if (n->type == NODE_MAP) {
        check_name(r, n, kind, &m);
        if (n != root) {
            check_namespace(r, n, &m);
            check_labels(r, n, "labels", true);
            check_labels(r, n, "annotations", false);
            read_created(r, n, &m);
        }
    }
    r->hide_values = hidden;
    char *none = memory_str(r->memory, STR(""));
    meta->name = m.name != NULL ? m.name : none;
    meta->uid = m.uid != NULL ? m.uid : none;
    meta->resource_version = m.resource_version != NULL ? m.resource_version : none;
    meta->labels = m.labels;
    meta->annotations = m.annotations;
    meta->generation = m.generation;
    if (!kind_is_namespaced(meta->kind))
        meta->ns = none;
    else
        meta->ns = m.ns != NULL && m.ns[0] != '\0' ? m.ns : memory_str(r->memory, str_of(default_ns));
}
