/* SPDX-License-Identifier: Apache-2.0
 *
 * What the API has: /version, /api, /apis, each group's versions and resources; and the CRDs of the kinds that are CRDs
 * elsewhere, read-only.
 */
#include <stdio.h>

#include "kube/api_priv.h"

/* ---- small documents ---- */

static json_t *words_json(const char *words)
{
    json_t *list = json_array();
    struct str rest = str_of(words);
    while (rest.p != NULL && rest.n > 0) {
        struct str word = str_split(&rest, ' ');
        if (word.n > 0)
            json_array_append_new(list, json_stringn(word.p, word.n));
    }
    return list;
}

/* gitVersion must be a semantic version; what follows '+' is free. */
static json_t *version_json(void)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "major", "1", "minor", "33", "gitVersion",
                     "v1.33.0+weir-" WEIR_VERSION, "gitCommit", "", "gitTreeState", "clean", "buildDate",
                     "1970-01-01T00:00:00Z", "goVersion", "none", "compiler", "cc", "platform", "linux/weir");
}

static json_t *core_versions(void)
{
    return json_pack("{s:s, s:[s], s:[{s:s, s:s}]}", "kind", "APIVersions", "versions", "v1",
                     "serverAddressByClientCIDRs", "clientCIDR", "0.0.0.0/0", "serverAddress", "localhost");
}

/* Groups in the order of the table; each once. */
static bool is_first_of_group(size_t i)
{
    for (size_t k = 0; k < i; k++)
        if (strcmp(api_types[k].group, api_types[i].group) == 0)
            return false;
    return true;
}

/* The group's versions: those of any of its kinds, newest first. */
static json_t *group_json(const char *group, bool with_kind)
{
    json_t *versions = json_array();
    struct strbuf seen = {0};
    strbuf_addc(&seen, ' ');
    for (size_t i = 0; i < api_type_count; i++) {
        if (strcmp(api_types[i].group, group) != 0)
            continue;
        const char *const *v = api_type_versions(&api_types[i]);
        for (; *v != NULL; v++) {
            char *word = mem_printf(" %s ", *v), *name = mem_printf("%s/%s", group, *v);
            if (str_find_str(strbuf_str(&seen), str_of(word)) < 0) {
                strbuf_printf(&seen, "%s ", *v);
                json_array_append_new(versions, json_pack("{s:s, s:s}", "groupVersion", name, "version", *v));
            }
            mem_free(word);
            mem_free(name);
        }
    }
    json_t *g = json_pack("{s:s, s:o, s:O}", "name", group, "versions", versions, "preferredVersion",
                          json_array_get(versions, 0));
    if (with_kind) {
        json_set_text(g, "kind", "APIGroup");
        json_set_text(g, "apiVersion", "v1");
    }
    strbuf_free(&seen);
    return g;
}

static json_t *groups_json(void)
{
    json_t *groups = json_array();
    for (size_t i = 0; i < api_type_count; i++)
        if (api_types[i].group[0] != '\0' && is_first_of_group(i))
            json_array_append_new(groups, group_json(api_types[i].group, false));
    return json_pack("{s:s, s:s, s:o}", "kind", "APIGroupList", "apiVersion", "v1", "groups", groups);
}

static json_t *verbs_of(const struct api_type *t)
{
    return words_json(t->conf_kind >= 0 ? "create delete deletecollection get list patch update watch"
                                        : "get list watch");
}

static void add_subresource(json_t *list, const struct api_type *t, const char *sub, const char *verbs)
{
    char *name = mem_printf("%s/%s", t->plural, sub);
    json_array_append_new(list, json_pack("{s:s, s:s, s:b, s:s, s:o}", "name", name, "singularName", "", "namespaced",
                                          (int)t->namespaced, "kind", t->kind, "verbs", words_json(verbs)));
    mem_free(name);
}

/* NULL: there is no such version of the group. */
static json_t *resources_json(struct str group, struct str version)
{
    json_t *list = json_array();
    for (size_t i = 0; i < api_type_count; i++) {
        const struct api_type *t = &api_types[i];
        if (!str_is(group, t->group) || !api_type_serves(t, version))
            continue;
        json_t *r = json_pack("{s:s, s:s, s:b, s:s, s:o}", "name", t->plural, "singularName", t->singular, "namespaced",
                              (int)t->namespaced, "kind", t->kind, "verbs", verbs_of(t));
        if (t->short_names[0] != '\0')
            json_object_set_new(r, "shortNames", words_json(t->short_names));
        if (t->categories[0] != '\0')
            json_object_set_new(r, "categories", words_json(t->categories));
        json_array_append_new(list, r);
        if (t->conf_kind >= 0)
            add_subresource(list, t, "status", "get patch update");
        if (t == api_type_pod)
            add_subresource(list, t, "log", "get");
    }
    if (json_array_size(list) == 0) {
        json_decref(list);
        return NULL;
    }
    char *name = group.n > 0 ? mem_printf("%.*s/%.*s", STR_ARG(group), STR_ARG(version)) : str_dup(version);
    json_t *j = json_pack("{s:s, s:s, s:s, s:o}", "kind", "APIResourceList", "apiVersion", "v1", "groupVersion", name,
                          "resources", list);
    mem_free(name);
    return j;
}

/* ---- routes ---- */

struct str api_path_trim(struct str path)
{
    return path.n > 1 && path.p[path.n - 1] == '/' ? str_upto(path, path.n - 1) : path;
}

static unsigned slashes(struct str s)
{
    unsigned n = 0;
    for (size_t i = 0; i < s.n; i++)
        n += s.p[i] == '/';
    return n;
}

bool api_discovery_path(struct str path)
{
    static const char *const plain[] = {"/", "/version", "/api", "/apis", "/healthz", "/readyz", "/livez", "/api/v1"};
    struct str p = api_path_trim(path);
    for (size_t i = 0; i < ARRAY_LEN(plain); i++)
        if (str_is(p, plain[i]))
            return true;
    return str_starts(p, STR("/apis/")) && slashes(p) <= 3;
}

static json_t *apis_json(struct str rest)
{
    struct str group = str_split(&rest, '/');
    if (rest.p != NULL)
        return resources_json(group, rest);
    for (size_t i = 0; i < api_type_count; i++)
        if (group.n > 0 && str_is(group, api_types[i].group))
            return group_json(api_types[i].group, true);
    return NULL;
}

void api_discovery(struct kube_api *api, const struct http_request *r, struct http_response *out)
{
    (void)api;
    struct str p = api_path_trim(r->path);
    json_t *j = NULL;
    if (!str_is(r->method, "GET") && !str_is(r->method, "HEAD")) {
        api_fail(out, 405, "MethodNotAllowed", NULL, "the server does not allow this method on the requested resource");
        return;
    }
    if (str_is(p, "/healthz") || str_is(p, "/readyz") || str_is(p, "/livez")) {
        strbuf_addz(&out->body, "ok");
        return;
    }
    if (str_is(p, "/"))
        j = json_pack("{s:[s,s,s,s,s]}", "paths", "/api", "/apis", "/openapi/v2", "/openapi/v3", "/version");
    else if (str_is(p, "/version"))
        j = version_json();
    else if (str_is(p, "/api"))
        j = core_versions();
    else if (str_is(p, "/apis"))
        j = groups_json();
    else if (str_is(p, "/api/v1"))
        j = resources_json(STR(""), STR("v1"));
    else
        j = apis_json(str_from(p, 6));
    if (j != NULL)
        api_json(out, 200, j);
    else
        api_fail(out, 404, "NotFound", json_object(), "the server could not find the requested resource");
}

/* ---- CRDs ---- */

static json_t *crd_versions(const struct api_type *t)
{
    json_t *list = json_array();
    const char *const *v = api_type_versions(t);
    for (size_t i = 0; v[i] != NULL; i++)
        json_array_append_new(list,
                              json_pack("{s:s, s:b, s:b, s:{s:o}, s:{s:{}}}", "name", v[i], "served", 1, "storage",
                                        i == 0, "schema", "openAPIV3Schema", api_schema(t), "subresources", "status"));
    return list;
}

static void make_crd(struct kube_api *api, const struct api_type *t)
{
    char now[32], uid[40];
    char *name = mem_printf("%s.%s", t->plural, t->group);
    api_time_text(api_now(), now);
    api_make_uid(uid);
    json_t *names = json_pack("{s:s, s:s, s:s, s:s}", "kind", t->kind, "plural", t->plural, "singular", t->singular,
                              "listKind", t->kind);
    json_object_set_new(names, "shortNames", words_json(t->short_names));
    json_object_set_new(names, "categories", words_json(t->categories));
    json_t *spec = json_pack("{s:s, s:s, s:o, s:o}", "group", t->group, "scope",
                             t->namespaced ? "Namespaced" : "Cluster", "versions", crd_versions(t), "names", names);
    json_t *status = json_pack("{s:[{s:s, s:s, s:s, s:s}, {s:s, s:s, s:s, s:s}]}", "conditions", "type", "Established",
                               "status", "True", "reason", "InitialNamesAccepted", "lastTransitionTime", now, "type",
                               "NamesAccepted", "status", "True", "reason", "NoConflicts", "lastTransitionTime", now);
    json_t *crd = json_pack("{s:s, s:s, s:{s:s, s:s, s:s}, s:o, s:o}", "apiVersion", "apiextensions.k8s.io/v1", "kind",
                            "CustomResourceDefinition", "metadata", "name", name, "uid", uid, "creationTimestamp", now,
                            "spec", spec, "status", status);
    object_commit(api, api_type_crd, "", name, crd);
    mem_free(name);
}

void api_crds_make(struct kube_api *api)
{
    for (size_t i = 0; i < api_type_count; i++)
        if (!api_types[i].core)
            make_crd(api, &api_types[i]);
}
