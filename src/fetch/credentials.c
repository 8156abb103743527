/* SPDX-License-Identifier: Apache-2.0
 *
 * See credentials.h: what config.json says, without doing anything about it. What must never happen: a password of one
 * registry for another, so hosts are compared whole, ports included.
 */
#include "fetch/credentials.h"

#include <jansson.h>
#include <stdlib.h>

#include "fetch/encode.h"

enum { HELPER_NAME_MAX = 100 };

#define HUB_SERVER "https://index.docker.io/v1/"

bool credentials_is_empty(const struct credentials *c)
{
    return c->user == NULL && c->password == NULL && c->identity_token == NULL && c->registry_token == NULL;
}

void credentials_free(struct credentials *c)
{
    mem_free(c->user);
    mem_free(c->password);
    mem_free(c->identity_token);
    mem_free(c->registry_token);
    *c = (struct credentials){0};
}

char *credentials_config_path(const char *dir)
{
    const char *home = getenv("HOME");
    if (dir == NULL)
        dir = getenv("DOCKER_CONFIG");
    if (dir != NULL && dir[0] != '\0')
        return mem_printf("%s/config.json", dir);
    return home != NULL && home[0] != '\0' ? mem_printf("%s/.docker/config.json", home) : NULL;
}

/* ---- keys ---- */

struct key {
    struct str host, path;
};

static struct key key_of(struct str text)
{
    static const char *const hub[] = {"docker.io", "index.docker.io", "registry-1.docker.io",
                                      "registry.hub.docker.com"};
    if (str_starts(text, STR("https://")) || str_starts(text, STR("http://")))
        text = str_from(text, str_starts(text, STR("https://")) ? 8 : 7);
    while (text.n > 0 && text.p[text.n - 1] == '/')
        text.n--;
    struct key k = {.path = text};
    k.host = str_split(&k.path, '/');
    if (k.path.p == NULL || str_is(k.path, "v1") || str_is(k.path, "v2"))
        k.path = STR_NONE;
    for (size_t i = 0; i < ARRAY_LEN(hub); i++)
        if (str_ieq(k.host, str_of(hub[i])))
            k.host = STR("docker.io");
    return k;
}

static bool label_matches(struct str pattern, struct str label)
{
    ptrdiff_t star = str_find(pattern, '*');
    if (star < 0)
        return str_ieq(pattern, label);
    struct str head = str_upto(pattern, (size_t)star), tail = str_from(pattern, (size_t)star + 1);
    return label.n >= head.n + tail.n && str_ieq(head, str_upto(label, head.n)) &&
           str_ieq(tail, str_from(label, label.n - tail.n));
}

static bool host_matches(struct str pattern, struct str host)
{
    for (;;) {
        if (!label_matches(str_split(&pattern, '.'), str_split(&host, '.')))
            return false;
        if (pattern.p == NULL || host.p == NULL)
            return pattern.p == host.p;
    }
}

/* 0: no match; otherwise the longer the better. */
static size_t key_matches(struct str key, const struct key *target)
{
    struct key k = key_of(key);
    if (!host_matches(k.host, target->host))
        return 0;
    if (k.path.n == 0)
        return 1;
    bool whole = target->path.n == k.path.n || (target->path.n > k.path.n && target->path.p[k.path.n] == '/');
    return whole && str_starts(target->path, k.path) ? 1 + k.path.n : 0;
}

/* ---- entries ---- */

static char *text_of(const json_t *o, const char *name)
{
    const char *s = json_string_value(json_object_get(o, name));
    return s != NULL && s[0] != '\0' ? mem_strdup(s) : NULL;
}

/* "user:password" in base64. */
static bool read_auth(const char *text, struct credentials *out)
{
    struct strbuf b = {0};
    bool ok = decode_base64(str_of(text), &b);
    struct str password = strbuf_str(&b), user = password.p != NULL ? str_split(&password, ':') : STR_NONE;
    ok = ok && password.p != NULL;
    while (ok && password.n > 0 && password.p[password.n - 1] == '\0')
        password.n--; /* old tools padded with NUL */
    ok = ok && memchr(b.p, '\0', user.n + 1 + password.n) == NULL;
    if (ok) {
        mem_free(out->user);
        mem_free(out->password);
        out->user = str_dup(user);
        out->password = str_dup(password);
    }
    strbuf_free(&b);
    return ok;
}

static bool read_entry(const json_t *o, struct credentials *out)
{
    const char *auth = json_string_value(json_object_get(o, "auth"));
    out->user = text_of(o, "username");
    out->password = text_of(o, "password");
    out->identity_token = text_of(o, "identitytoken");
    out->registry_token = text_of(o, "registrytoken");
    return auth == NULL || auth[0] == '\0' || read_auth(auth, out);
}

static const json_t *best_entry(const json_t *auths, const struct key *target, const char **key)
{
    const json_t *best = NULL;
    size_t best_length = 0;
    void *at;
    for (at = json_object_iter((json_t *)(uintptr_t)auths); at != NULL;
         at = json_object_iter_next((json_t *)(uintptr_t)auths, at)) {
        size_t length = key_matches(str_of(json_object_iter_key(at)), target);
        if (length > best_length) {
            best_length = length;
            best = json_object_iter_value(at);
            *key = json_object_iter_key(at);
        }
    }
    return best;
}

static bool helper_name_is_good(const char *name)
{
    size_t n = strlen(name);
    for (size_t i = 0; i < n; i++)
        if (!((name[i] >= 'a' && name[i] <= 'z') || (name[i] >= 'A' && name[i] <= 'Z') ||
              (name[i] >= '0' && name[i] <= '9') || strchr("._-", name[i]) != NULL))
            return false;
    return n > 0 && n <= HELPER_NAME_MAX;
}

static const char *want_helper(const char *name, const char *key, const struct key *target, char **helper,
                               char **server)
{
    if (!helper_name_is_good(name))
        return "names a credential helper that is not [A-Za-z0-9._-]+";
    *helper = mem_strdup(name);
    *server = key != NULL                         ? mem_strdup(key)
              : str_is(target->host, "docker.io") ? mem_strdup(HUB_SERVER)
                                                  : str_dup(target->host);
    return NULL;
}

static const char *read_config(const json_t *doc, const struct key *target, struct credentials *out, char **helper,
                               char **server)
{
    const char *key = NULL, *store = json_string_value(json_object_get(doc, "credsStore"));
    if (!json_is_object(doc))
        return "is not an object";
    const json_t *named = best_entry(json_object_get(doc, "credHelpers"), target, &key);
    if (named != NULL && json_string_value(named) != NULL)
        return want_helper(json_string_value(named), key, target, helper, server);
    const json_t *entry = best_entry(json_object_get(doc, "auths"), target, &key);
    if (entry != NULL && !read_entry(entry, out)) {
        credentials_free(out);
        return "has an auth that is not base64 of user:password";
    }
    if (credentials_is_empty(out) && store != NULL && store[0] != '\0')
        return want_helper(store, NULL, target, helper, server);
    return NULL;
}

bool credentials_read_config(struct str json, struct str target, struct credentials *out, char **helper, char **server,
                             char **error)
{
    json_error_t at;
    struct key key = key_of(target);
    *out = (struct credentials){0};
    *helper = *server = NULL;
    json_t *doc = json.n <= CREDENTIALS_CONFIG_MAX ? json_loadb(json.n > 0 ? json.p : "", json.n, 0, &at) : NULL;
    /* The text of the error would hold a piece of the file, so only its place is told. */
    const char *fault = doc == NULL ? "is not JSON" : read_config(doc, &key, out, helper, server);
    json_decref(doc);
    if (fault != NULL)
        *error = mem_printf("the Docker configuration %s", fault);
    return fault == NULL;
}

bool credentials_read_helper(struct str json, struct credentials *out, char **error)
{
    json_error_t at;
    *out = (struct credentials){0};
    json_t *doc = json_loadb(json.n > 0 ? json.p : "", json.n, 0, &at);
    char *user = text_of(doc, "Username"), *secret = text_of(doc, "Secret");
    json_decref(doc);
    if (secret == NULL) {
        mem_free(user);
        *error = mem_strdup("answered something else than a Username and a Secret");
        return false;
    }
    if (user != NULL && strcmp(user, "<token>") == 0) {
        mem_free(user);
        out->identity_token = secret;
    } else {
        out->user = user != NULL ? user : mem_strdup("");
        out->password = secret;
    }
    return true;
}
