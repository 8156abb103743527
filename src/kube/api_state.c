/* SPDX-License-Identifier: Apache-2.0
 *
 * The state directory: one YAML file for each object that came by the API, KIND/NAMESPACE/NAME.yaml (KIND/NAME.yaml for
 * cluster-scoped kinds), readable and diffable by people. Who owns which field (server-side apply) stands in a comment
 * at its end. A file is written aside, synced and renamed, so it is whole at any moment; one that is damaged all the
 * same is moved aside, said in the log, and costs no other object.
 *
 * resourceVersions are not in the files. They come from one counter, of which a file says only what was certainly not
 * given out yet, RESERVED at a time; after a start it goes on from there, so that none is ever given out twice.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "kube/api_priv.h"

enum { RESERVED = 100000, FILE_MAX = 8 * 1024 * 1024, YAML_MAX = FILE_MAX / 2, NAME_SHOWN = 150 };
static const char managers_mark[] = "\n# field owners: ";

/* ---- names ---- */

/* A name may be 253 bytes and a file's name 255, with what is put behind it: a long one is cut and numbered. */
static void put_file_name(struct strbuf *out, const char *name)
{
    size_t n = strlen(name);
    if (n <= NAME_SHOWN + 16) {
        strbuf_addz(out, name);
        return;
    }
    uint64_t h = 1469598103934665603u; /* FNV-1a: the same in every process */
    for (size_t i = 0; i < n; i++)
        h = (h ^ (unsigned char)name[i]) * 1099511628211u;
    strbuf_printf(out, "%.*s-%016llx", NAME_SHOWN, name, (unsigned long long)h);
}

char *state_path(const struct kube_api *api, const struct api_type *t, const char *ns, const char *name)
{
    struct strbuf b = {0};
    strbuf_printf(&b, "%s/%s/", api->state_dir, t->kind);
    if (t->namespaced)
        strbuf_printf(&b, "%s/", ns);
    put_file_name(&b, name);
    strbuf_addz(&b, ".yaml");
    return strbuf_take(&b);
}

/* ---- writing ---- */

/* Is it read again as what it is? YAML has corners (keys beyond 1,024 bytes, for one). */
static bool reads_back(struct str text, const json_t *object)
{
    char *error, *duplicate;
    json_t *again = json_of_text(text, &error, &duplicate);
    bool same = again != NULL && duplicate == NULL && json_same(again, object);
    json_decref(again);
    mem_free(error);
    mem_free(duplicate);
    return same;
}

bool state_text(const json_t *object, const json_t *managers, bool with_status, struct strbuf *out)
{
    json_t *copy = json_copy_head(object);
    json_object_del(json_object_get(copy, "metadata"), "resourceVersion");
    if (!with_status)
        json_object_del(copy, "status");
    bool readable = json_put_yaml(out, copy, YAML_MAX);
    if (readable && json_array_size(managers) > 0) {
        out->n--; /* the mark begins with it */
        strbuf_addz(out, managers_mark);
        json_put(out, managers);
        strbuf_addc(out, '\n');
    }
    if (!readable || out->n > FILE_MAX || !reads_back(strbuf_str(out), copy)) {
        strbuf_clear(out); /* as JSON, which has no room for a comment: owners are forgotten */
        json_put(out, copy);
        strbuf_addc(out, '\n');
    }
    json_decref(copy);
    return out->n <= FILE_MAX;
}

/* A new directory is there for certain once the one above it is synced. */
static bool sync_directory(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool ok = fd >= 0 && fsync(fd) == 0;
    if (fd >= 0)
        close(fd);
    return ok;
}

static char *parent_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash == NULL || slash == path ? mem_strdup("/") : mem_strndup(path, (size_t)(slash - path));
}

/* As mkdir -p. */
static bool make_directories(const char *path)
{
    if (mkdir(path, 0700) == 0) {
        char *above = parent_of(path);
        bool ok = sync_directory(above);
        mem_free(above);
        return ok;
    }
    if (errno == EEXIST)
        return true;
    if (errno != ENOENT)
        return false;
    char *above = parent_of(path);
    bool ok = strcmp(above, path) != 0 && make_directories(above);
    mem_free(above);
    return ok && make_directories(path);
}

bool state_write(const char *path, struct str text, char **error)
{
    char *dir = parent_of(path);
    *error = NULL;
    bool ok;
    if (text.p != NULL) {
        ok = make_directories(dir);
        if (!ok)
            *error = mem_printf("cannot make %s: %s", dir, strerror(errno));
        ok = ok && file_replace(path, text, 0600, error);
    } else {
        /* Someone may have removed it, or its whole directory, by hand. */
        ok = (unlink(path) == 0 || errno == ENOENT) && (sync_directory(dir) || errno == ENOENT);
        if (!ok)
            *error = mem_printf("cannot remove %s: %s", path, strerror(errno));
    }
    mem_free(dir);
    return ok;
}

/* ---- the counter ---- */

struct reservation {
    uv_work_t work;
    struct kube_api *api;
    char *path;
    uint64_t limit;
    char *error;
};

static bool write_counter(const char *path, uint64_t limit, char **error)
{
    char text[32];
    int n = snprintf(text, sizeof text, "%llu\n", (unsigned long long)limit);
    return file_replace(path, str_span(text, (size_t)n), 0600, error);
}

static void on_reserve(uv_work_t *work)
{
    struct reservation *r = CONTAINER_OF(work, struct reservation, work);
    (void)write_counter(r->path, r->limit, &r->error);
}

static void on_reserved(uv_work_t *work, int status)
{
    struct reservation *r = CONTAINER_OF(work, struct reservation, work);
    struct kube_api *api = r->api;
    (void)status;
    if (r->error != NULL)
        log_line(LOG_ERROR, "kube-api: %s", r->error);
    else
        api->rv_limit = r->limit;
    api->reserving = false;
    mem_free(r->error);
    mem_free(r->path);
    mem_free(r);
    if (api->freed && api->writing == NULL)
        kube_api_free(api);
}

void state_reserve(struct kube_api *api)
{
    if (api->reserving || api->rv + RESERVED / 2 < api->rv_limit || api->freed)
        return;
    struct reservation *r = mem_zalloc(sizeof *r);
    r->api = api;
    r->path = mem_printf("%s/resource-version", api->state_dir);
    r->limit = api->rv + RESERVED;
    api->reserving = true;
    ASSERT(uv_queue_work(&api->loop->uv, &r->work, on_reserve, on_reserved) == 0);
}

/* No kind's directory is there yet. */
static bool is_new(const struct kube_api *api)
{
    bool found = false;
    for (size_t i = 0; i < api_type_count && !found; i++) {
        char *dir = mem_printf("%s/%s", api->state_dir, api_types[i].kind);
        found = access(dir, F_OK) == 0;
        mem_free(dir);
    }
    return !found;
}

static bool load_counter(struct kube_api *api, char **error)
{
    char *path = mem_printf("%s/resource-version", api->state_dir), *why = NULL;
    size_t n = 0;
    uint64_t from = 0;
    char *text = file_read_all(path, 64, &n, &why);
    bool known = text != NULL &&
                 str_to_u64(str_upto(str_of(text), n > 0 && text[n - 1] == '\n' ? n - 1 : n), INT64_MAX / 2, &from);
    if (!known && (text != NULL || !is_new(api))) {
        /* Never give one out twice: the clock's microseconds are far beyond what a counter reaches. */
        struct timespec now;
        (void)clock_gettime(CLOCK_REALTIME, &now);
        from = (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
        log_line(LOG_WARN, "kube-api: %s is damaged or missing; resourceVersions go on from %llu", path,
                 (unsigned long long)from);
    }
    mem_free(text);
    mem_free(why);
    api->rv = from + 1;
    api->rv_limit = from + RESERVED;
    bool ok = write_counter(path, api->rv_limit, error);
    mem_free(path);
    return ok;
}

/* ---- reading ---- */

static void set_aside(const char *path, const char *why)
{
    char *aside = mem_printf("%s.damaged", path);
    int moved = rename(path, aside);
    log_line(LOG_ERROR, "kube-api: %s: %s; %s%s", path, why,
             moved == 0 ? "kept aside as " : "and it could not be moved aside", moved == 0 ? aside : "");
    mem_free(aside);
}

/* The text's comment of owners, or NULL. */
static json_t *read_managers(struct str text)
{
    struct str mark = STR(managers_mark);
    ptrdiff_t at = -1;
    for (size_t i = text.n > 0 ? text.n - 1 : 0; i-- > 0;) {
        if (text.p[i] == '\n') {
            at = str_starts(str_from(text, i), mark) ? (ptrdiff_t)i : -1;
            break;
        }
    }
    char *error = NULL, *duplicate = NULL;
    json_t *j = at < 0 ? NULL : json_of_text(str_from(text, (size_t)at + mark.n), &error, &duplicate);
    mem_free(error);
    mem_free(duplicate);
    if (json_is_array(j))
        return j;
    json_decref(j);
    return NULL;
}

/* What names the object must be what its place says, or a copy of a file would be two objects with one file. */
static const char *object_fault(const struct kube_api *api, const struct api_type *t, const json_t *j, const char *path)
{
    const json_t *metadata = json_object_get(j, "metadata");
    const char *ns = json_text(metadata, "namespace"), *name = json_text(metadata, "name");
    if (strcmp(json_text(j, "kind"), t->kind) != 0 || name[0] == '\0')
        return "it does not hold an object of that kind";
    char *wanted = state_path(api, t, ns, name);
    bool same = strcmp(wanted, path) == 0;
    mem_free(wanted);
    return same ? NULL : "its name is another than its object's";
}

static void load_file(struct kube_api *api, const struct api_type *t, const char *path)
{
    size_t n = 0;
    char *error = NULL, *duplicate = NULL, *text = file_read_all(path, FILE_MAX, &n, &error);
    json_t *j = text != NULL ? json_of_text(str_span(text, n), &error, &duplicate) : NULL;
    const char *fault = j != NULL ? object_fault(api, t, j, path) : error;
    if (fault != NULL || !json_is_object(j) || duplicate != NULL) {
        set_aside(path, fault != NULL ? fault : duplicate != NULL ? duplicate : "it holds no object");
        json_decref(j);
    } else {
        const json_t *metadata = json_object_get(j, "metadata");
        char *ns = mem_strdup(json_text(metadata, "namespace")), *name = mem_strdup(json_text(metadata, "name"));
        bool with_status = json_object_get(j, "status") != NULL;
        struct api_object *o = object_commit(api, t, ns, name, j);
        o->path = mem_strdup(path);
        o->managers = read_managers(str_span(text, n));
        o->client_status = with_status;
        mem_free(ns);
        mem_free(name);
    }
    mem_free(text);
    mem_free(error);
    mem_free(duplicate);
}

static void load_directory(struct kube_api *api, const struct api_type *t, const char *dir, bool of_namespaces)
{
    DIR *d = opendir(dir);
    if (d == NULL) {
        if (errno != ENOENT && errno != ENOTDIR)
            log_line(LOG_ERROR, "kube-api: %s cannot be read, its objects are missing: %s", dir, strerror(errno));
        return;
    }
    struct dirent *e;
    while ((e = readdir(d)) != NULL) {
        struct str name = str_of(e->d_name);
        char *path = mem_printf("%s/%s", dir, e->d_name);
        if (name.p[0] == '.')
            ;
        else if (of_namespaces)
            load_directory(api, t, path, false);
        else if (str_ends(name, STR(".tmp")))
            unlink(path); /* of a write that was never answered */
        else if (str_ends(name, STR(".yaml")))
            load_file(api, t, path);
        mem_free(path);
    }
    closedir(d);
}

/* One process at a time: two would each hold half the truth. */
static bool lock(struct kube_api *api, char **error)
{
    char *path = mem_printf("%s/lock", api->state_dir);
    api->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    bool ok = api->lock_fd >= 0 && flock(api->lock_fd, LOCK_EX | LOCK_NB) == 0;
    if (!ok)
        *error = errno == EWOULDBLOCK ? mem_printf("%s is in use by another weir (--state-dir)", api->state_dir)
                                      : mem_printf("cannot lock %s: %s", path, strerror(errno));
    mem_free(path);
    return ok;
}

bool state_load(struct kube_api *api, char **error)
{
    if (!make_directories(api->state_dir)) {
        *error = mem_printf("cannot make %s: %s (--state-dir)", api->state_dir, strerror(errno));
        return false;
    }
    if (!lock(api, error) || !load_counter(api, error))
        return false;
    for (size_t i = 0; i < api_type_count; i++) {
        if (api_types[i].conf_kind < 0)
            continue;
        char *dir = mem_printf("%s/%s", api->state_dir, api_types[i].kind);
        load_directory(api, &api_types[i], dir, api_types[i].namespaced);
        mem_free(dir);
    }
    return true;
}

void state_close(struct kube_api *api)
{
    if (api->lock_fd >= 0)
        close(api->lock_fd);
    api->lock_fd = -1;
}
