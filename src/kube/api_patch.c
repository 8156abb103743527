/* SPDX-License-Identifier: Apache-2.0
 *
 * Patches: JSON merge patch (RFC 7386), JSON patch (RFC 6902), and Kubernetes' strategic merge patch as far as core
 * kinds need it: maps, lists keyed by a member, lists of words that are sets, and the directives $patch,
 * $setElementOrder, $deleteFromPrimitiveList and $retainKeys. What is changed is copied: objects elsewhere share
 * values.
 */
#include <stdio.h>
#include <stdlib.h>

#include "kube/api_priv.h"

/* ---- merge patch ---- */

json_t *patch_merge(const json_t *object, const json_t *patch)
{
    const char *key;
    json_t *value;
    if (!json_is_object(patch))
        return json_incref((json_t *)(uintptr_t)patch);
    json_t *out = json_is_object(object) ? json_copy((json_t *)(uintptr_t)object) : json_object();
    json_object_foreach((json_t *)(uintptr_t)patch, key, value)
    {
        if (json_is_null(value))
            json_object_del(out, key);
        else
            json_object_set_new(out, key, patch_merge(json_object_get(out, key), value));
    }
    return out;
}

/* ---- strategic merge ---- */

static const struct {
    const char *list, *key; /* NULL: a set of words */
} keyed[] = {{"ownerReferences", "uid"},
             {"conditions", "type"},
             {"secrets", "name"},
             {"imagePullSecrets", "name"},
             {"finalizers", NULL}};

/* What merges the items of a list in the map `in` (NULL: the object itself): a member's name, "" for a set of words,
 * NULL: the list is replaced. */
static const char *merge_key(const char *in, const char *list)
{
    for (size_t k = 0; k < ARRAY_LEN(keyed); k++)
        if (strcmp(list, keyed[k].list) == 0)
            return keyed[k].key != NULL ? keyed[k].key : "";
    /* A Service's; those of an EndpointSlice, which are not in its spec, are replaced whole. */
    return in != NULL && strcmp(in, "spec") == 0 && strcmp(list, "ports") == 0 ? "port" : NULL;
}

static size_t find_item(const json_t *list, const char *key, const json_t *value)
{
    json_t *item;
    size_t i;
    json_array_foreach(list, i, item)
    {
        if (json_same(key[0] == '\0' ? item : json_object_get(item, key), value))
            return i;
    }
    return SIZE_MAX;
}

static bool is_directive(const json_t *item, const char *what) { return strcmp(json_text(item, "$patch"), what) == 0; }

static json_t *strategic(const char *in, const json_t *object, const json_t *patch, char **error);

static json_t *merge_list(const json_t *live, const json_t *patch, const char *key, char **error)
{
    json_t *out = json_is_array(live) ? json_copy((json_t *)(uintptr_t)live) : json_array(), *item;
    size_t i;
    json_array_foreach(patch, i, item)
    {
        if (is_directive(item, "replace")) { /* what stands beside it is the whole list */
            json_array_clear(out);
            continue;
        }
        const json_t *value = key[0] == '\0' ? item : json_object_get(item, key);
        if (value == NULL) {
            if (*error == NULL)
                *error = mem_printf("map: does not contain declared merge key: %s", key);
            continue;
        }
        size_t at = find_item(out, key, value);
        if (is_directive(item, "delete")) {
            if (at != SIZE_MAX)
                json_array_remove(out, at);
        } else if (at == SIZE_MAX) {
            json_array_append_new(out, key[0] == '\0' ? json_incref(item) : strategic("", NULL, item, error));
        } else if (key[0] != '\0') {
            json_array_set_new(out, at, strategic("", json_array_get(out, at), item, error));
        }
    }
    return out;
}

/* $setElementOrder/ports: the items named come in this order, others after them. */
static void order_list(json_t *list, const json_t *order, const char *key)
{
    json_t *wanted, *moved = json_array();
    size_t i;
    json_array_foreach(order, i, wanted)
    {
        size_t at = find_item(list, key, key[0] == '\0' ? wanted : json_object_get(wanted, key));
        if (at == SIZE_MAX)
            continue;
        json_array_append(moved, json_array_get(list, at));
        json_array_remove(list, at);
    }
    json_array_extend(moved, list);
    json_array_clear(list);
    json_array_extend(list, moved);
    json_decref(moved);
}

static void remove_words(json_t *out, const char *name, const json_t *words)
{
    json_t *list = json_copy(json_object_get(out, name)), *word;
    size_t i;
    json_array_foreach(words, i, word)
    {
        size_t at = find_item(list, "", word);
        if (at != SIZE_MAX)
            json_array_remove(list, at);
    }
    json_object_set_new(out, name, list);
}

static void retain_keys(json_t *out, const json_t *names)
{
    json_t *kept = json_object(), *name;
    size_t i;
    json_array_foreach(names, i, name)
    {
        json_t *value = json_is_string(name) ? json_object_get(out, json_string_value(name)) : NULL;
        if (value != NULL)
            json_object_set(kept, json_string_value(name), value);
    }
    json_object_clear(out);
    json_object_update(out, kept);
    json_decref(kept);
}

static void directive(const char *in, json_t *out, const char *key, const json_t *value)
{
    static const char order[] = "$setElementOrder/", removed[] = "$deleteFromPrimitiveList/";
    struct str name = str_of(key);
    if (str_starts(name, STR(order)) && json_is_array(value)) {
        const char *list = key + sizeof order - 1;
        json_t *copy = json_copy(json_object_get(out, list));
        if (json_is_array(copy)) {
            const char *by = merge_key(in, list);
            if (by != NULL)
                order_list(copy, value, by);
            json_object_set(out, list, copy);
        }
        json_decref(copy);
    } else if (str_starts(name, STR(removed)) && json_is_array(json_object_get(out, key + sizeof removed - 1))) {
        remove_words(out, key + sizeof removed - 1, value);
    } else if (strcmp(key, "$retainKeys") == 0 && json_is_array(value)) {
        retain_keys(out, value);
    }
}

static json_t *strategic(const char *in, const json_t *object, const json_t *patch, char **error)
{
    const char *key;
    json_t *value, *p = (json_t *)(uintptr_t)patch;
    if (!json_is_object(patch))
        return json_incref(p);
    if (is_directive(patch, "delete"))
        return json_object();
    bool replace = is_directive(patch, "replace");
    json_t *out = json_is_object(object) && !replace ? json_copy((json_t *)(uintptr_t)object) : json_object();
    json_object_foreach(p, key, value)
    {
        if (key[0] == '$')
            continue;
        const char *by = json_is_array(value) ? merge_key(in, key) : NULL;
        if (json_is_null(value))
            json_object_del(out, key);
        else if (by != NULL)
            json_object_set_new(out, key, merge_list(json_object_get(out, key), value, by, error));
        else
            json_object_set_new(out, key, strategic(key, json_object_get(out, key), value, error));
    }
    json_object_foreach(p, key, value)
    {
        if (key[0] == '$')
            directive(in, out, key, value);
    }
    return out;
}

json_t *patch_strategic(const json_t *object, const json_t *patch, char **error)
{
    *error = NULL;
    json_t *out = json_is_object(patch) ? strategic(NULL, object, patch, error) : NULL;
    if (out == NULL)
        *error = mem_strdup("the patch must be an object");
    else if (*error != NULL) {
        json_decref(out);
        out = NULL;
    }
    return out;
}

/* ---- JSON patch ---- */

enum { OPS_MAX = 10000, DEPTH_MAX = 64 /* as of what is read */ };

/* The next reference token of a JSON pointer, decoded; mem_free. */
static char *pointer_token(struct str *rest)
{
    *rest = str_from(*rest, 1);
    ptrdiff_t end = str_find(*rest, '/');
    struct str raw = end < 0 ? *rest : str_upto(*rest, (size_t)end);
    *rest = str_from(*rest, raw.n);
    struct strbuf b = {0};
    for (size_t i = 0; i < raw.n; i++) {
        bool escaped = raw.p[i] == '~' && i + 1 < raw.n && (raw.p[i + 1] == '0' || raw.p[i + 1] == '1');
        strbuf_addc(&b, escaped ? (raw.p[i + 1] == '0' ? '~' : '/') : raw.p[i]);
        i += escaped;
    }
    return strbuf_take(&b);
}

static bool list_index(const json_t *list, const char *token, bool end_allowed, size_t *at)
{
    uint64_t n = 0;
    size_t size = json_array_size(list);
    if (strcmp(token, "-") == 0 && end_allowed)
        return *at = size, true;
    if (!str_to_u64(str_of(token), size, &n) || n > size || (n == size && !end_allowed))
        return false;
    *at = (size_t)n;
    return true;
}

static json_t *pointer_get(json_t *root, struct str path)
{
    json_t *at = root;
    while (at != NULL && path.n > 0) {
        if (path.p[0] != '/')
            return NULL;
        char *token = pointer_token(&path);
        size_t i = 0;
        at = json_is_object(at)                                      ? json_object_get(at, token)
             : json_is_array(at) && list_index(at, token, false, &i) ? json_array_get(at, i)
                                                                     : NULL;
        mem_free(token);
    }
    return at;
}

enum edit { EDIT_ADD, EDIT_REMOVE, EDIT_REPLACE };
/* root is an own deep copy. value is borrowed. */
static bool pointer_edit(json_t **root, struct str path, enum edit edit, json_t *value)
{
    if (path.n == 0) {
        if (edit == EDIT_REMOVE)
            return false;
        json_decref(*root);
        *root = json_deep_copy(value);
        return true;
    }
    size_t last = path.n;
    while (last > 0 && path.p[last - 1] != '/')
        last--;
    if (last == 0)
        return false;
    json_t *parent = pointer_get(*root, str_upto(path, last - 1));
    struct str tail = str_from(path, last - 1);
    char *token = pointer_token(&tail);
    size_t i = 0;
    bool ok = false;
    if (json_is_object(parent)) {
        bool there = json_object_get(parent, token) != NULL;
        ok = edit == EDIT_ADD || there;
        if (ok && edit == EDIT_REMOVE)
            json_object_del(parent, token);
        else if (ok)
            json_object_set_new(parent, token, json_deep_copy(value));
    } else if (json_is_array(parent) && list_index(parent, token, edit == EDIT_ADD, &i)) {
        ok = true;
        if (edit == EDIT_ADD)
            json_array_insert_new(parent, i, json_deep_copy(value));
        else if (edit == EDIT_REMOVE)
            json_array_remove(parent, i);
        else
            json_array_set_new(parent, i, json_deep_copy(value));
    }
    mem_free(token);
    return ok;
}

static bool run_op(json_t **root, const json_t *op)
{
    const char *what = json_text(op, "op");
    struct str path = str_of(json_text(op, "path")), from = str_of(json_text(op, "from"));
    json_t *value = json_object_get(op, "value");
    if (!json_is_string(json_object_get(op, "path")))
        return false;
    if (strcmp(what, "test") == 0)
        return value != NULL && json_same(pointer_get(*root, path), value);
    if (strcmp(what, "add") == 0 || strcmp(what, "replace") == 0)
        return value != NULL && pointer_edit(root, path, what[0] == 'a' ? EDIT_ADD : EDIT_REPLACE, value);
    if (strcmp(what, "remove") == 0)
        return pointer_edit(root, path, EDIT_REMOVE, NULL);
    bool move = strcmp(what, "move") == 0;
    if (!move && strcmp(what, "copy") != 0)
        return false;
    json_t *source = json_deep_copy(pointer_get(*root, from));
    bool ok = source != NULL && (!move || pointer_edit(root, from, EDIT_REMOVE, NULL)) &&
              pointer_edit(root, path, EDIT_ADD, source);
    json_decref(source);
    return ok;
}

json_t *patch_json(const json_t *object, const json_t *patch, char **error)
{
    *error = NULL;
    if (!json_is_array(patch) || json_array_size(patch) > OPS_MAX) {
        *error = mem_printf("a JSON patch is a list of at most %d operations", OPS_MAX);
        return NULL;
    }
    json_t *out = json_deep_copy(object), *op;
    size_t i, left = 64 * 1024 * 1024;
    json_array_foreach(patch, i, op)
    {
        /* "copy" can double a document with each step, its size or its depth. */
        bool done = run_op(&out, op) && json_is_shallow(out, DEPTH_MAX);
        size_t now = done ? json_weight(out) : 0;
        if (!done || now > API_BODY_MAX || now > left) {
            *error = mem_printf("operation %zu of the patch, \"%s\" of \"%s\", cannot be done", i, json_text(op, "op"),
                                json_text(op, "path"));
            json_decref(out);
            return NULL;
        }
        left -= now;
    }
    return out;
}
