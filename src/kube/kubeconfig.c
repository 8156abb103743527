/* SPDX-License-Identifier: Apache-2.0
 *
 * See kubeconfig.h. The documents are read as trees of nodes, not along the tables of conf/schema.h: a kubeconfig is
 * written by many tools and holds much that is nobody's business here. What must never happen: a key or token in a
 * message.
 */
#include "kube/kubeconfig.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/file.h"
#include "conf/number.h"
#include "conf/ydoc.h"

void kube_access_free(struct kube_access *a)
{
    char *const texts[] = {a->server, a->server_name, a->proxy, a->token, a->username, a->password, a->ns, a->where};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        mem_free(texts[i]);
    strbuf_free(&a->ca_pem);
    strbuf_free(&a->cert_pem);
    strbuf_free(&a->key_pem);
    *a = (struct kube_access){0};
}

static bool fail(char **error, char *text)
{
    *error = text;
    return false;
}

static char *trimmed(const char *text)
{
    struct str s = str_of(text);
    while (s.n > 0 && (unsigned char)s.p[s.n - 1] <= ' ')
        s.n--;
    while (s.n > 0 && (unsigned char)s.p[0] <= ' ')
        s = str_from(s, 1);
    return str_dup(s);
}

/* A token goes into a header: nothing in it may end one. */
static bool token_is_sane(const char *token)
{
    for (const char *p = token; *p != '\0'; p++)
        if ((unsigned char)*p <= ' ' || (unsigned char)*p >= 0x7f)
            return false;
    return token[0] != '\0';
}

static bool read_token(const char *path, char **token, char **error)
{
    size_t n = 0;
    char *why = NULL, *text = file_read_all(path, KUBECONFIG_FILE_MAX, &n, &why);
    if (text == NULL) {
        *error = mem_printf("token file %s: %s", path, why);
        mem_free(why);
        return false;
    }
    mem_free(*token);
    *token = trimmed(text);
    mem_free(text);
    return token_is_sane(*token) || fail(error, mem_printf("token file %s: holds no token", path));
}

static bool read_pem(const char *path, struct strbuf *out, char **error)
{
    size_t n = 0;
    char *why = NULL, *text = file_read_all(path, KUBECONFIG_FILE_MAX, &n, &why);
    if (text == NULL) {
        *error = mem_printf("%s: %s", path, why);
        mem_free(why);
        return false;
    }
    strbuf_clear(out);
    strbuf_add(out, str_span(text, n));
    mem_free(text);
    return true;
}

/* ---- in a pod ---- */

static char *read_namespace(const char *directory)
{
    char *path = mem_printf("%s/namespace", directory), *why = NULL;
    size_t n = 0;
    char *text = file_read_all(path, KUBECONFIG_FILE_MAX, &n, &why), *ns = text != NULL ? trimmed(text) : NULL;
    mem_free(path);
    mem_free(why);
    mem_free(text);
    return ns;
}

bool kubeconfig_in_cluster(const char *directory, struct kube_access *out, char **error)
{
    *out = (struct kube_access){0};
    const char *host = getenv("KUBERNETES_SERVICE_HOST"), *port = getenv("KUBERNETES_SERVICE_PORT");
    if (host == NULL || host[0] == '\0' || port == NULL || port[0] == '\0')
        return fail(error, mem_strdup("KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set: not in a pod"));
    bool v6 = strchr(host, ':') != NULL;
    out->server = mem_printf("https://%s%s%s:%s", v6 ? "[" : "", host, v6 ? "]" : "", port);
    out->where = mem_strdup("in cluster");
    char *token = mem_printf("%s/token", directory), *ca = mem_printf("%s/ca.crt", directory);
    bool ok = read_token(token, &out->token, error) && read_pem(ca, &out->ca_pem, error);
    mem_free(token);
    mem_free(ca);
    if (ok)
        out->ns = read_namespace(directory);
    else
        kube_access_free(out);
    return ok;
}

/* ---- kubeconfig files ---- */

struct config_file {
    char *path, *text;
    struct ydoc_stream *stream;
    struct conf_memory *memory;
    const struct node *root; /* NULL: empty */
};
struct config {
    struct config_file *files;
    size_t count;
};

static void config_free(struct config *c)
{
    for (size_t i = 0; i < c->count; i++) {
        if (c->files[i].stream != NULL)
            ydoc_close(c->files[i].stream);
        memory_free(c->files[i].memory);
        mem_free(c->files[i].text);
        mem_free(c->files[i].path);
    }
    mem_free(c->files);
}

/* Without NUL bytes; NULL otherwise. */
static const char *text_at(const struct node *n, const char *key)
{
    const struct node *v = node_get(n, key);
    if (v == NULL || v->type != NODE_STRING || v->u.string.n == 0 || strlen(v->u.string.p) != v->u.string.n)
        return NULL;
    return v->u.string.p;
}

static bool file_parse(struct config_file *f, size_t n, char **error)
{
    struct ydoc doc;
    f->stream = ydoc_open(str_span(f->text, n));
    f->memory = memory_new();
    enum ydoc_result result = ydoc_next(f->stream, f->memory, &doc);
    unsigned line = 0, col = 0;
    if (result == YDOC_ERROR) {
        const char *why = ydoc_error(f->stream, &line, &col);
        return fail(error, mem_printf("%s:%u:%u: %s", f->path, line, col, why));
    }
    if (result == YDOC_DOCUMENT && doc.problem_count > 0)
        return fail(error, mem_printf("%s:%u: %s", f->path, doc.problems[0].line, doc.problems[0].message));
    f->root = result == YDOC_DOCUMENT ? doc.root : NULL;
    if (f->root != NULL && f->root->type == NODE_NULL)
        f->root = NULL;
    if (f->root != NULL && f->root->type != NODE_MAP)
        return fail(error, mem_printf("%s: is no kubeconfig", f->path));
    return true;
}

static bool config_add(struct config *c, struct str path, bool only, char **error)
{
    char *z = str_dup(path), *why = NULL;
    size_t n = 0;
    if (!only && access(z, F_OK) != 0 && errno == ENOENT) {
        mem_free(z);
        return true;
    }
    char *text = file_read_all(z, KUBECONFIG_FILE_MAX, &n, &why);
    if (text == NULL) {
        *error = mem_printf("%s: %s", z, why);
        mem_free(why);
        mem_free(z);
        return false;
    }
    c->files = mem_realloc(c->files, (c->count + 1) * sizeof *c->files);
    struct config_file *f = &c->files[c->count++];
    *f = (struct config_file){.path = z, .text = text};
    return file_parse(f, n, error);
}

/* The entry of that name in the first file that has one; *file is which. */
static const struct node *config_find(const struct config *c, const char *list, const char *name, const char *member,
                                      const char **file)
{
    for (size_t i = 0; i < c->count; i++) {
        const struct node *entries = node_get(c->files[i].root, list);
        for (size_t k = 0; entries != NULL && entries->type == NODE_LIST && k < entries->u.list.count; k++) {
            const struct node *e = entries->u.list.items[k];
            const char *own = text_at(e, "name");
            if (own == NULL || strcmp(own, name) != 0)
                continue;
            *file = c->files[i].path;
            return node_get(e, member);
        }
    }
    return NULL;
}

static const char *config_current(const struct config *c)
{
    for (size_t i = 0; i < c->count; i++) {
        const char *current = text_at(c->files[i].root, "current-context");
        if (current != NULL)
            return current;
    }
    return NULL;
}

char *kubeconfig_path(const char *file, const char *path)
{
    const char *slash = strrchr(file, '/');
    if (path[0] == '/' || slash == NULL)
        return mem_strdup(path);
    return mem_printf("%.*s/%s", (int)(slash - file), file, path);
}

static bool base64_decode(const char *text, struct strbuf *out)
{
    struct str s = str_of(text);
    uint8_t *bytes = mem_alloc(s.n / 4 * 3 + 3);
    size_t n = 0;
    bool ok = number_parse_base64(s, bytes, &n);
    strbuf_clear(out);
    if (ok)
        strbuf_add(out, str_span(bytes, n));
    mem_free(bytes);
    return ok;
}

/* "certificate-authority-data", or the file "certificate-authority" names. */
static bool take_pem(const struct node *n, const char *file, const char *name, struct strbuf *out, char **error)
{
    char *data_name = mem_printf("%s-data", name);
    const char *data = text_at(n, data_name), *path = text_at(n, name);
    bool ok = true;
    if (data != NULL) {
        ok = base64_decode(data, out) && out->n > 0;
        if (!ok)
            *error = mem_printf("%s: %s is no base64", file, data_name);
    } else if (path != NULL) {
        char *whole = kubeconfig_path(file, path);
        ok = read_pem(whole, out, error);
        mem_free(whole);
    }
    mem_free(data_name);
    return ok;
}

static char *copy_at(const struct node *n, const char *key)
{
    const char *text = text_at(n, key);
    return text != NULL ? mem_strdup(text) : NULL;
}

static bool is_true(const struct node *n, const char *key)
{
    const struct node *v = node_get(n, key);
    return v != NULL && v->type == NODE_BOOL && v->u.boolean;
}

static bool take_cluster(const struct node *n, const char *file, struct kube_access *out, char **error)
{
    const char *server = text_at(n, "server");
    if (server == NULL)
        return fail(error, mem_printf("%s: the cluster has no server", file));
    struct str s = str_of(server);
    if (!str_starts(s, STR("https://")) && !str_starts(s, STR("http://")))
        return fail(error, mem_printf("%s: server \"%s\" is no http or https url", file, server));
    while (s.n > 0 && s.p[s.n - 1] == '/')
        s.n--;
    out->server = str_dup(s);
    out->server_name = copy_at(n, "tls-server-name");
    out->proxy = copy_at(n, "proxy-url");
    out->insecure = is_true(n, "insecure-skip-tls-verify");
    return take_pem(n, file, "certificate-authority", &out->ca_pem, error);
}

static bool take_user(const struct node *n, const char *file, struct kube_access *out, char **error)
{
    static const char *const refused[] = {"exec", "auth-provider", "as", "as-groups", "as-uid", "as-user-extra"};
    for (size_t i = 0; i < ARRAY_LEN(refused); i++)
        if (node_get(n, refused[i]) != NULL)
            return fail(error, mem_printf("%s: the user's %s is not supported", file, refused[i]));
    const char *token_file = text_at(n, "tokenFile");
    out->token = copy_at(n, "token");
    if (token_file != NULL) { /* it wins over token, as in kubectl */
        char *whole = kubeconfig_path(file, token_file);
        bool ok = read_token(whole, &out->token, error);
        mem_free(whole);
        if (!ok)
            return false;
    }
    if (out->token != NULL && !token_is_sane(out->token))
        return fail(error, mem_printf("%s: the user's token has bytes that no token has", file));
    out->username = copy_at(n, "username");
    out->password = copy_at(n, "password");
    return take_pem(n, file, "client-certificate", &out->cert_pem, error) &&
           take_pem(n, file, "client-key", &out->key_pem, error);
}

static bool config_resolve(const struct config *c, const char *context, struct kube_access *out, char **error)
{
    const char *file = NULL;
    if (context == NULL)
        context = config_current(c);
    if (context == NULL)
        return fail(error, mem_strdup("no current-context is set"));
    const struct node *n = config_find(c, "contexts", context, "context", &file);
    if (n == NULL)
        return fail(error, mem_printf("context \"%s\" does not exist", context));
    out->where = mem_printf("context %s", context);
    out->ns = copy_at(n, "namespace");
    const char *cluster = text_at(n, "cluster"), *user = text_at(n, "user");
    n = cluster != NULL ? config_find(c, "clusters", cluster, "cluster", &file) : NULL;
    if (n == NULL)
        return fail(error, mem_printf("context \"%s\": its cluster does not exist", context));
    if (!take_cluster(n, file, out, error))
        return false;
    if (user == NULL)
        return true;
    bool found = false;
    for (size_t i = 0; i < c->count && !found; i++) {
        struct config one = {.files = &c->files[i], .count = 1};
        n = config_find(&one, "users", user, "user", &file);
        found = n != NULL;
    }
    if (!found)
        return fail(error, mem_printf("context \"%s\": its user does not exist", context));
    return take_user(n, file, out, error);
}

bool kubeconfig_load(const char *files, const char *context, struct kube_access *out, char **error)
{
    struct config c = {0};
    struct str rest = str_of(files);
    bool ok = true, only = strchr(files, ':') == NULL;
    *out = (struct kube_access){0};
    *error = NULL;
    while (ok && rest.p != NULL) {
        struct str path = str_split(&rest, ':');
        if (path.n > 0)
            ok = config_add(&c, path, only, error);
    }
    ok = ok && config_resolve(&c, context, out, error);
    if (!ok)
        kube_access_free(out);
    config_free(&c);
    return ok;
}
