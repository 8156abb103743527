/* SPDX-License-Identifier: Apache-2.0
 *
 * The status that is wanted, and the one that is there: what is kept of it, and whether they say the same. See
 * status_writer.h.
 */
#include <jansson.h>
#include <stdlib.h>

#include "kube/status_writer.h"

static bool member_same(const json_t *a, const json_t *b, const char *key)
{
    const json_t *x = json_object_get(a, key), *y = json_object_get(b, key);
    return x == y || (x != NULL && y != NULL && json_equal(x, y));
}

/* The item of list that is the same one as item, by the given members. */
static json_t *find_same(const json_t *list, const json_t *item, const char *const *keys)
{
    size_t i;
    json_t *other;
    json_array_foreach((json_t *)list, i, other)
    {
        bool same = true;
        for (size_t k = 0; keys[k] != NULL; k++)
            same = same && member_same(item, other, keys[k]);
        if (same)
            return other;
    }
    return NULL;
}

static void keep_time(json_t *condition, const json_t *old)
{
    json_t *time = json_object_get(old, "lastTransitionTime");
    if (old != NULL && json_is_string(time) && member_same(condition, old, "status"))
        json_object_set(condition, "lastTransitionTime", time);
}

static void keep_times(json_t *wanted, const json_t *current)
{
    static const char *const by_type[] = {"type", NULL};
    size_t i;
    json_t *condition;
    json_array_foreach(json_object_get(wanted, "conditions"), i, condition)
        keep_time(condition, find_same(json_object_get(current, "conditions"), condition, by_type));
}

static void keep_times_of(json_t *wanted, const json_t *current, const char *list, const char *const *keys)
{
    size_t i;
    json_t *item;
    json_array_foreach(json_object_get(wanted, list), i, item)
        keep_times(item, find_same(json_object_get(current, list), item, keys));
}

static bool is_ours(const json_t *parents, const json_t *entry)
{
    static const char *const by_controller[] = {"controllerName", NULL};
    const char *name = json_string_value(json_object_get(entry, "controllerName"));
    return name == NULL || strcmp(name, "gateway.weir/controller") == 0 ||
           find_same(parents, entry, by_controller) != NULL;
}

/* The list belongs to everybody at once. */
static void keep_foreign_parents(json_t *wanted, const json_t *current)
{
    json_t *parents = json_object_get(wanted, "parents"), *all = json_array(), *entry;
    size_t i;
    if (!json_is_array(parents)) {
        json_decref(all);
        return;
    }
    json_array_foreach(json_object_get(current, "parents"), i, entry) if (!is_ours(parents, entry))
        json_array_append(all, entry);
    json_array_extend(all, parents);
    json_object_set_new(wanted, "parents", all);
}

static bool says_the_same(json_t *wanted, const json_t *current)
{
    const char *key;
    json_t *value;
    json_object_foreach(wanted, key, value) if (!member_same(wanted, current, key)) return false;
    return true;
}

char *kube_status_merge(struct str wanted, struct str current, bool *same)
{
    static const char *const by_name[] = {"name", NULL}, *const by_parent[] = {"parentRef", "controllerName", NULL};
    json_t *w = json_loadb(wanted.p != NULL ? wanted.p : "", wanted.n, 0, NULL);
    json_t *c = json_loadb(current.p != NULL ? current.p : "", current.n, 0, NULL);
    char *text = NULL;
    *same = false;
    if (json_is_object(w)) {
        keep_times(w, c);
        keep_times_of(w, c, "listeners", by_name);
        keep_times_of(w, c, "parents", by_parent);
        keep_foreign_parents(w, c);
        *same = json_is_object(c) && says_the_same(w, c);
        char *dumped = json_dumps(w, JSON_COMPACT);
        text = dumped != NULL ? mem_strdup(dumped) : NULL;
        free(dumped);
    }
    json_decref(w);
    json_decref(c);
    return text;
}
