/* SPDX-License-Identifier: Apache-2.0
 *
 * Server-side apply. Who set what is kept as a tree of member names for each manager; a leaf ({}) stands for a value
 * and all below it. Lists are one value. The rules are Kubernetes': applying a value that another manager set to
 * something else is a conflict, unless forced; what a manager applied before and leaves out now goes, unless another
 * one has it.
 *
 * One difference is on purpose: what `kubectl apply` wrote on the client's side belongs to the same person, so that a
 * server-side apply by kubectl takes it over without a conflict (newer versions of kubectl bring that about
 * themselves).
 */
#include <stdio.h>

#include "kube/api_priv.h"

/* ---- trees of names ---- */

static json_t *tree_of(const json_t *value)
{
    const char *key;
    json_t *child, *tree = json_object();
    if (json_is_object(value) && json_object_size(value) == 0)
        json_object_set_new(tree, ".", json_object());
    json_object_foreach((json_t *)(uintptr_t)value, key, child) json_object_set_new(tree, key, tree_of(child));
    return tree;
}

/* What belongs to the server, or names the object, is nobody's. */
static json_t *owned_tree(const json_t *object)
{
    static const char *const of_object[] = {"apiVersion", "kind", "status"};
    static const char *const of_meta[] = {"name",       "namespace",         "uid",           "resourceVersion",
                                          "generation", "creationTimestamp", "managedFields", "generateName",
                                          "selfLink"};
    json_t *tree = tree_of(object), *meta = json_object_get(tree, "metadata");
    for (size_t i = 0; i < ARRAY_LEN(of_object); i++)
        json_object_del(tree, of_object[i]);
    for (size_t i = 0; i < ARRAY_LEN(of_meta) && meta != NULL; i++)
        json_object_del(meta, of_meta[i]);
    if (meta != NULL && json_object_size(meta) == 0)
        json_object_del(tree, "metadata");
    return tree;
}

static bool is_leaf(const json_t *tree) { return json_object_size(tree) == 0; }

/* a gains what b has. */
static void tree_add(json_t *a, const json_t *b)
{
    const char *key;
    json_t *child;
    json_object_foreach((json_t *)(uintptr_t)b, key, child)
    {
        json_t *mine = json_object_get(a, key);
        if (mine == NULL)
            json_object_set_new(a, key, json_deep_copy(child));
        else if (!is_leaf(mine))
            tree_add(mine, child);
    }
}

/* a loses every leaf that b has or covers. True: nothing is left. */
static bool tree_remove(json_t *a, const json_t *b)
{
    const char *key;
    json_t *child;
    void *next;
    json_object_foreach_safe(a, next, key, child)
    {
        const json_t *other = json_object_get(b, key);
        if (other != NULL && (is_leaf(other) || is_leaf(child) || tree_remove(child, other)))
            json_object_del(a, key);
    }
    return is_leaf(a);
}

/* ---- managers ---- */

static json_t *manager_find(json_t *managers, const char *name, const char *operation)
{
    json_t *m;
    size_t i;
    json_array_foreach(managers, i, m)
    {
        if (strcmp(json_text(m, "manager"), name) == 0 && strcmp(json_text(m, "operation"), operation) == 0)
            return m;
    }
    return NULL;
}

static json_t *manager_make(json_t *managers, const char *name, const char *operation)
{
    json_t *m = manager_find(managers, name, operation);
    if (m != NULL)
        return m;
    m = json_object();
    json_set_text(m, "manager", name);
    json_set_text(m, "operation", operation);
    json_object_set_new(m, "fields", json_object());
    json_array_append_new(managers, m);
    return m;
}

/* All but one lose what is in tree. */
static void others_lose(json_t *managers, const json_t *keeper, const json_t *tree)
{
    for (size_t i = json_array_size(managers); i-- > 0;) {
        json_t *m = json_array_get(managers, i);
        json_t *fields = json_object_get(m, "fields");
        if (m != keeper && (is_leaf(fields) || tree_remove(fields, tree)))
            json_array_remove(managers, i);
    }
}

/* ---- conflicts ---- */

struct conflicts {
    json_t *causes; /* of the Status */
    struct strbuf text;
    const char *api_version;
    size_t count;
};

static void add_conflict(struct conflicts *c, const json_t *m, const char *path)
{
    char *with = mem_printf("conflict with \"%s\" using %s", json_text(m, "manager"), c->api_version);
    json_array_append_new(
        c->causes, json_pack("{s:s, s:s, s:s}", "reason", "FieldManagerConflict", "message", with, "field", path));
    strbuf_printf(&c->text, "%s%s: %s", c->count > 0 ? "\n" : "", with, path);
    c->count++;
    mem_free(with);
}

/* config's leaves that m has at another value. */
static void find_conflicts(struct conflicts *c, const json_t *m, const json_t *fields, const json_t *config,
                           const json_t *live, const json_t *tree, const char *path)
{
    const char *key;
    json_t *child;
    json_object_foreach((json_t *)(uintptr_t)tree, key, child)
    {
        const json_t *theirs = json_object_get(fields, key), *value = json_object_get(config, key);
        const json_t *now = json_object_get(live, key);
        if (theirs == NULL || now == NULL || json_same(value, now))
            continue;
        char *at = strchr(key, '.') != NULL || strchr(key, '/') != NULL ? mem_printf("%s[\"%s\"]", path, key)
                                                                        : mem_printf("%s.%s", path, key);
        if (json_is_object(value) && json_is_object(now)) /* they merge */
            find_conflicts(c, m, theirs, value, now, child, at);
        else
            add_conflict(c, m, at);
        mem_free(at);
    }
}

/* ---- apply ---- */

static json_t *merged(const json_t *live, const json_t *config)
{
    const char *key;
    json_t *value;
    if (!json_is_object(config) || !json_is_object(live))
        return json_incref((json_t *)(uintptr_t)config);
    json_t *out = json_copy((json_t *)(uintptr_t)live);
    json_object_foreach((json_t *)(uintptr_t)config, key, value)
        json_object_set_new(out, key, merged(json_object_get(out, key), value));
    return out;
}

/* object without the leaves of tree; parents that become empty go too. New reference; NULL: nothing is left. */
static json_t *without(const json_t *object, const json_t *tree)
{
    const char *key;
    json_t *child;
    if (is_leaf(tree))
        return NULL;
    if (!json_is_object(object))
        return json_incref((json_t *)(uintptr_t)object);
    json_t *out = json_copy((json_t *)(uintptr_t)object);
    json_object_foreach((json_t *)(uintptr_t)tree, key, child)
    {
        json_t *old = json_object_get(out, key);
        json_t *now = old != NULL ? without(old, child) : NULL;
        if (now == NULL)
            json_object_del(out, key);
        else
            json_object_set_new(out, key, now);
    }
    if (json_object_size(out) > 0)
        return out;
    json_decref(out);
    return NULL;
}

/* What this manager had before, that of kubectl's client-side apply included. */
static json_t *take_over(json_t *managers, const char *manager)
{
    json_t *m = manager_find(managers, manager, "Apply");
    json_t *had = m != NULL ? json_deep_copy(json_object_get(m, "fields")) : json_object();
    static const char client_side[] = "kubectl-client-side-apply";
    json_t *c = strcmp(manager, "kubectl") == 0 ? manager_find(managers, client_side, "Update") : NULL;
    for (size_t i = json_array_size(managers); c != NULL && i-- > 0;) {
        if (json_array_get(managers, i) != c)
            continue;
        tree_add(had, json_object_get(c, "fields"));
        json_array_remove(managers, i);
    }
    /* Kept: without it, going back to client-side apply would remove nothing any more. */
    json_t *kept =
        json_pack("{s:{s:{s:{}}}}", "metadata", "annotations", "kubectl.kubernetes.io/last-applied-configuration");
    tree_remove(had, kept);
    json_decref(kept);
    return had;
}

static json_t *drop_left_out(json_t *object, json_t *had, const json_t *tree, const json_t *managers, const json_t *own)
{
    json_t *m;
    size_t i;
    tree_remove(had, tree);
    json_array_foreach(managers, i, m)
    {
        if (m != own)
            tree_remove(had, json_object_get(m, "fields"));
    }
    if (is_leaf(had))
        return object;
    json_t *out = without(object, had);
    json_decref(object);
    return out != NULL ? out : json_object();
}

json_t *apply_merge(const json_t *live, const json_t *config, json_t **managers, const char *manager, bool force,
                    const char *api_version, json_t **causes, char **error)
{
    *error = NULL;
    *causes = NULL;
    json_t *all = *managers != NULL ? json_deep_copy(*managers) : json_array(), *m;
    json_t *tree = owned_tree(config), *had = take_over(all, manager), *own = manager_make(all, manager, "Apply");
    struct conflicts c = {.causes = json_array(), .api_version = api_version};
    size_t i;
    json_array_foreach(all, i, m)
    {
        if (m != own && !force)
            find_conflicts(&c, m, json_object_get(m, "fields"), config, live, tree, "");
    }
    json_t *out = NULL;
    if (c.count > 0) {
        char *text = strbuf_take(&c.text);
        *error = mem_printf("Apply failed with %zu conflict%s: %s", c.count, c.count > 1 ? "s" : "", text);
        *causes = c.causes;
        mem_free(text);
        json_decref(all);
    } else {
        json_decref(c.causes);
        json_object_set(own, "fields", tree);
        out = live != NULL ? merged(live, config) : json_incref((json_t *)(uintptr_t)config);
        /* Forced: what others had at another value is this manager's now. */
        json_t *changed = live != NULL ? apply_note_update(NULL, "", live, out) : NULL;
        if (changed != NULL)
            others_lose(all, own, json_object_get(json_array_get(changed, 0), "fields"));
        json_decref(changed);
        out = drop_left_out(out, had, tree, all, own);
        json_decref(*managers);
        *managers = all;
    }
    json_decref(tree);
    json_decref(had);
    return out;
}

/* ---- other writes ---- */

/* Names of what differs between old and now; what is gone is in it too. */
static json_t *changed_tree(const json_t *old, const json_t *now)
{
    const char *key;
    json_t *value, *tree = json_object();
    json_object_foreach((json_t *)(uintptr_t)now, key, value)
    {
        const json_t *before = json_object_get(old, key);
        if (json_same(before, value))
            continue;
        bool both = json_is_object(before) && json_is_object(value);
        json_t *below = both ? changed_tree(before, value) : before == NULL ? tree_of(value) : json_object();
        json_object_set_new(tree, key, below);
    }
    json_object_foreach((json_t *)(uintptr_t)old, key, value)
    {
        if (json_object_get(now, key) == NULL)
            json_object_set_new(tree, key, json_object());
    }
    return tree;
}

/* Keeps of tree what object has. */
static void keep_present(json_t *tree, const json_t *object)
{
    const char *key;
    json_t *child;
    void *next;
    json_object_foreach_safe(tree, next, key, child)
    {
        const json_t *value = json_object_get(object, key);
        bool whole = is_leaf(child);
        if (strcmp(key, ".") == 0)
            continue;
        if (value != NULL && !whole)
            keep_present(child, value);
        if (value == NULL || (!whole && is_leaf(child)))
            json_object_del(tree, key);
    }
}

json_t *apply_note_update(json_t *managers, const char *manager, const json_t *old, const json_t *now)
{
    json_t *all = managers != NULL ? json_deep_copy(managers) : json_array();
    json_t *changed = changed_tree(old, now), *shadow = owned_tree(now), *own;
    json_t *was = old != NULL ? owned_tree(old) : json_object();
    /* Only what can be owned at all. */
    tree_add(shadow, was);
    keep_present(changed, shadow);
    json_object_del(changed, "status");
    if (is_leaf(changed)) {
        json_decref(changed);
        json_decref(shadow);
        json_decref(was);
        return all;
    }
    own = manager_make(all, manager, "Update");
    others_lose(all, own, changed);
    json_t *fields = json_object_get(own, "fields");
    keep_present(fields, now);
    keep_present(changed, now);
    tree_add(fields, changed);
    json_decref(changed);
    json_decref(shadow);
    json_decref(was);
    return all;
}
