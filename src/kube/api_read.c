/* SPDX-License-Identifier: Apache-2.0
 *
 * get and list, and the three shapes an object is shown in: itself, a row of a Table (kubectl prints its cells as they
 * are), or its metadata alone.
 */
#include <stdio.h>
#include <stdlib.h>

#include "conf/number.h"
#include "kube/api_priv.h"

json_t *api_view(const struct api_request *r, const json_t *object)
{
    char *version = api_type_version(r->type, r->version);
    json_t *copy = json_incref((json_t *)(uintptr_t)object);
    if (strcmp(json_text(object, "apiVersion"), version) != 0) {
        json_decref(copy);
        copy = json_copy((json_t *)(uintptr_t)object);
        json_set_text(copy, "apiVersion", version);
    }
    mem_free(version);
    return copy;
}

static json_t *partial(const struct api_request *r, const json_t *object)
{
    char *version = mem_printf("meta.k8s.io/%s", r->meta_version);
    json_t *p = json_pack("{s:s, s:s}", "kind", "PartialObjectMetadata", "apiVersion", version);
    json_object_set(p, "metadata", json_object_get(object, "metadata"));
    mem_free(version);
    return p;
}

/* As kubectl's own duration.HumanDuration. */
static void age_text(int64_t s, char out[24])
{
    long long minutes = s / 60, hours = s / 3600, days = s / 86400, years = s / (86400 * 365);
    if (s < 0)
        snprintf(out, 24, "0s");
    else if (s < 120)
        snprintf(out, 24, "%llds", (long long)s);
    else if (minutes < 10)
        snprintf(out, 24, s % 60 ? "%lldm%llds" : "%lldm", minutes, (long long)(s % 60));
    else if (hours < 3)
        snprintf(out, 24, "%lldm", minutes);
    else if (hours < 8)
        snprintf(out, 24, minutes % 60 ? "%lldh%lldm" : "%lldh", hours, minutes % 60);
    else if (hours < 48)
        snprintf(out, 24, "%lldh", hours);
    else if (days < 8)
        snprintf(out, 24, hours % 24 ? "%lldd%lldh" : "%lldd", days, hours % 24);
    else if (days < 365 * 2)
        snprintf(out, 24, "%lldd", days);
    else if (days < 365 * 8)
        snprintf(out, 24, days % 365 ? "%lldy%lldd" : "%lldy", years, days % 365);
    else
        snprintf(out, 24, "%lldy", years);
}

static void age_cell(json_t *cells, const char *since)
{
    int64_t then;
    char text[24] = "<unknown>";
    if (number_parse_time(str_of(since), &then))
        age_text(api_now() - then, text);
    json_array_append_new(cells, json_string(text));
}

/* The type's own cells, with Name and Age put where the columns have them. */
static json_t *cells_of(const struct api_type *t, const json_t *object)
{
    json_t *own = json_array(), *cells = json_array();
    const json_t *metadata = json_object_get(object, "metadata");
    size_t next = 0;
    t->cells(object, own);
    for (const struct api_column *c = t->columns; c->name != NULL; c++) {
        if (strcmp(c->name, "Name") == 0)
            json_array_append(cells, json_object_get(metadata, "name"));
        else if (strcmp(c->name, "Age") == 0)
            age_cell(cells, json_text(metadata, "creationTimestamp"));
        else if (strcmp(c->name, "Last Seen") == 0)
            age_cell(cells, json_text(object, "lastTimestamp"));
        else
            json_array_append(cells, json_array_get(own, next++));
    }
    json_decref(own);
    return cells;
}

static json_t *columns_of(const struct api_type *t)
{
    json_t *list = json_array();
    for (const struct api_column *c = t->columns; c->name != NULL; c++)
        json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s, s:i}", "name", c->name, "type", c->type, "format",
                                              strcmp(c->name, "Name") == 0 ? "name" : "", "description", "", "priority",
                                              c->wide ? 1 : 0));
    return list;
}

json_t *api_table(const struct api_request *r, json_t *const *objects, size_t n, const char *rv, const char *more,
                  size_t remaining)
{
    char *version = mem_printf("meta.k8s.io/%s", r->meta_version);
    json_t *rows = json_array();
    bool whole = r->include != NULL && strcmp(r->include, "Object") == 0;
    bool none = r->include != NULL && strcmp(r->include, "None") == 0;
    for (size_t i = 0; i < n; i++) {
        json_t *row = json_object();
        json_object_set_new(row, "cells", cells_of(r->type, objects[i]));
        json_object_set_new(row, "object",
                            none    ? json_null()
                            : whole ? api_view(r, objects[i])
                                    : partial(r, objects[i]));
        json_array_append_new(rows, row);
    }
    json_t *t =
        json_pack("{s:s, s:s, s:{s:s}}", "kind", "Table", "apiVersion", version, "metadata", "resourceVersion", rv);
    if (more != NULL) {
        json_set_text(json_object_get(t, "metadata"), "continue", more);
        json_object_set_new(json_object_get(t, "metadata"), "remainingItemCount", json_integer((json_int_t)remaining));
    }
    json_object_set_new(t, "columnDefinitions", columns_of(r->type));
    json_object_set_new(t, "rows", rows);
    mem_free(version);
    return t;
}

json_t *api_render(const struct api_request *r, const json_t *object)
{
    if (r->format == FORMAT_PARTIAL)
        return partial(r, object);
    if (r->format == FORMAT_OBJECT)
        return api_view(r, object);
    json_t *one = (json_t *)(uintptr_t)object;
    return api_table(r, &one, 1, json_text(json_object_get(object, "metadata"), "resourceVersion"), NULL, 0);
}

void api_get(struct kube_api *api, const struct api_request *r, struct http_response *out)
{
    const struct api_object *o = object_find(api, r->type, r->ns != NULL ? r->ns : "", r->name);
    if (o == NULL)
        api_fail_not_found(out, r->type, r->name);
    else
        api_json(out, 200, api_render(r, o->json));
}

/* ---- list ---- */

/* A token is "VERSION/NS/NAME". A page begins after the object it names. What was made or removed since the first page
 * shows as it is now, so all pages say the first one's version: a watch from there on misses nothing. */
static bool page_start(const struct api_request *r, struct api_object *const *list, size_t n, uint64_t *rv,
                       size_t *start)
{
    *start = 0;
    if (r->continue_token == NULL || r->continue_token[0] == '\0')
        return true;
    struct str name = str_of(r->continue_token), version = str_split(&name, '/'), ns = STR_NONE;
    uint64_t now = *rv;
    if (name.p != NULL)
        ns = str_split(&name, '/');
    if (name.p == NULL || !str_to_u64(version, now, rv) || *rv > now)
        return false;
    while (*start < n) {
        int c = str_cmp(str_of(list[*start]->ns), ns);
        if (c > 0 || (c == 0 && str_cmp(str_of(list[*start]->name), name) > 0))
            break;
        (*start)++;
    }
    return true;
}

/* A version from the future: the client knows more than we do (it spoke to another server). */
static bool version_is_known(const struct kube_api *api, const struct api_request *r, struct http_response *out)
{
    uint64_t wanted = 0;
    const char *rv = r->resource_version;
    if (rv == NULL || rv[0] == '\0')
        return true;
    if (!str_to_u64(str_of(rv), UINT64_MAX, &wanted)) {
        api_fail(out, 400, "BadRequest", NULL, "resourceVersion: Invalid value: \"%s\"", rv);
        return false;
    }
    if (wanted > api->rv) {
        json_t *details = json_pack("{s:[{s:s, s:s}], s:i}", "causes", "reason", "ResourceVersionTooLarge", "message",
                                    "Too large resource version", "retryAfterSeconds", 1);
        api_fail(out, 504, "Timeout", details, "Too large resource version: %llu, current: %llu",
                 (unsigned long long)wanted, (unsigned long long)api->rv);
        return false;
    }
    return true;
}

static void answer_list(const struct api_request *r, json_t *const *objects, size_t n, uint64_t rv, const char *more,
                        size_t remaining, struct http_response *out)
{
    char rv_text[24];
    snprintf(rv_text, sizeof rv_text, "%llu", (unsigned long long)rv);
    if (r->format == FORMAT_TABLE) {
        api_json(out, 200, api_table(r, objects, n, rv_text, more, remaining));
        return;
    }
    char *version = r->format == FORMAT_PARTIAL ? mem_printf("meta.k8s.io/%s", r->meta_version)
                                                : api_type_version(r->type, r->version);
    char *kind =
        r->format == FORMAT_PARTIAL ? mem_strdup("PartialObjectMetadataList") : mem_printf("%sList", r->type->kind);
    json_t *list =
        json_pack("{s:s, s:s, s:{s:s}}", "kind", kind, "apiVersion", version, "metadata", "resourceVersion", rv_text);
    if (more != NULL) {
        json_set_text(json_object_get(list, "metadata"), "continue", more);
        json_object_set_new(json_object_get(list, "metadata"), "remainingItemCount",
                            json_integer((json_int_t)remaining));
    }
    json_t *items = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(items, api_render(r, objects[i]));
    json_object_set_new(list, "items", items);
    mem_free(version);
    mem_free(kind);
    api_json(out, 200, list);
}

void api_list(struct kube_api *api, const struct api_request *r, struct http_response *out)
{
    char *error = NULL;
    if (!version_is_known(api, r, out))
        return;
    struct api_selector *s = api_selector_new(r->label_selector, r->field_selector, r->type, &error);
    if (s == NULL) {
        api_fail(out, 400, "BadRequest", NULL, "%s", error);
        mem_free(error);
        return;
    }
    uint64_t rv = api->rv;
    size_t n = 0, start, shown = 0, left = 0, last = 0;
    struct api_object **list = object_list(api, r->type, r->ns, &n);
    json_t **objects = mem_alloc((n + 1) * sizeof *objects);
    if (!page_start(r, list, n, &rv, &start)) {
        api_fail(out, 400, "BadRequest", NULL, "continue key is not valid");
    } else if (rv < api_oldest_version(api)) {
        api_fail(out, 410, "Expired", NULL, "the provided continue parameter is too old: list from the beginning");
    } else {
        for (size_t i = start; i < n; i++) {
            if ((r->name != NULL && strcmp(r->name, list[i]->name) != 0) || !api_selector_matches(s, list[i]->json))
                continue;
            if (r->limit > 0 && shown == r->limit) {
                left++;
                continue;
            }
            objects[shown++] = list[i]->json;
            last = i;
        }
        char *more =
            left > 0 ? mem_printf("%llu/%s/%s", (unsigned long long)rv, list[last]->ns, list[last]->name) : NULL;
        answer_list(r, objects, shown, rv, more, left, out);
        mem_free(more);
    }
    mem_free(objects);
    mem_free(list);
    api_selector_free(s);
}
