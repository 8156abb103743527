/* SPDX-License-Identifier: Apache-2.0
 *
 * See source_dir.h. A scan compares (device, inode, size, mtime, ctime) of every file with last time and reads only
 * what differs. What it never does: hand half a scan to the store, or take objects away because a directory could not
 * be listed.
 */
#include "control/source_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"

enum { RESOURCE_FILE_MAX = 16 * 1024 * 1024, RESCAN_MS = 2000, SETTLE_MS = 5, FILES_MAX = 10000 };

struct seen_file {
    dev_t dev;
    ino_t ino;
    off_t size;
    struct timespec mtime, ctime;
    bool present;
};
/* inotify follows the inode: a directory that was replaced under its name needs a new watch. */
struct watch {
    uv_fs_event_t event;
    struct source_dir *owner;
    char *path;
    dev_t dev;
    ino_t ino;
    bool resources;   /* of a PATH: resource files in it matter */
    struct map names; /* of PATHs in it: these entries matter */
};
struct source_dir {
    struct loop *loop;
    struct store *store;
    char **paths;
    size_t path_count;
    const char *default_ns;
    void (*changed)(void *arg);
    void *arg;
    struct map seen;    /* path -> struct seen_file */
    struct map watches; /* directory -> struct watch */
    struct loop_timer settle, confirm, rescan;
};

static bool is_resource_name(const char *name)
{
    struct str s = str_of(name);
    return name[0] != '.' && (str_ends(s, STR(".yaml")) || str_ends(s, STR(".yml")) || str_ends(s, STR(".json")));
}

/* Other entries of a busy directory (the working directory, /tmp) must not cost a scan each. Names that begin with ".."
 * are how a ConfigMap's files are swapped; the directory's own name stands for the directory itself. */
static bool watch_cares(const struct watch *w, const char *name)
{
    if (name == NULL || strncmp(name, "..", 2) == 0)
        return true;
    const char *slash = strrchr(w->path, '/');
    if (strcmp(name, slash != NULL ? slash + 1 : w->path) == 0)
        return true;
    return (w->resources && is_resource_name(name)) || map_get(&w->names, str_of(name)) != NULL;
}

static void on_event(uv_fs_event_t *event, const char *name, int events, int status)
{
    (void)events;
    struct watch *w = event->data;
    /* A little rest, so that an editor's burst of events is one scan. */
    if ((status < 0 || watch_cares(w, name)) && !loop_timer_is_active(&w->owner->settle))
        loop_timer_start(&w->owner->settle, SETTLE_MS);
}

static void watch_closed(uv_handle_t *handle)
{
    struct watch *w = handle->data;
    map_free(&w->names);
    mem_free(w->path);
    mem_free(w);
}

static struct watch *watch_new(struct source_dir *d, const char *path, const struct stat *st)
{
    struct watch *w = mem_zalloc(sizeof *w);
    w->owner = d;
    w->path = mem_strdup(path);
    w->dev = st->st_dev;
    w->ino = st->st_ino;
    uv_fs_event_init(&d->loop->uv, &w->event);
    w->event.data = w;
    if (uv_fs_event_start(&w->event, on_event, path, 0) == 0)
        return w;
    uv_close((uv_handle_t *)&w->event, watch_closed); /* the periodic scan will have to do, and tries again */
    return NULL;
}

/* The watch of the directory as it is now; NULL when it cannot be watched. */
static struct watch *watch_directory(struct source_dir *d, const char *path)
{
    struct stat st;
    struct watch *w = map_get(&d->watches, str_of(path));
    bool there = stat(path, &st) == 0;
    if (w != NULL && there && w->dev == st.st_dev && w->ino == st.st_ino)
        return w;
    struct watch *next = there ? watch_new(d, path, &st) : NULL;
    if (w != NULL) {
        map_remove(&d->watches, str_of(path));
        uv_close((uv_handle_t *)&w->event, watch_closed);
    }
    if (next != NULL)
        map_set(&d->watches, str_of(path), next);
    return next;
}

/* A PATH may itself be replaced: a file by rename, a directory by a symlink swap. */
static void watch_parent(struct source_dir *d, const char *path)
{
    const char *slash = strrchr(path, '/');
    char *parent = slash == NULL   ? mem_strdup(".")
                   : slash == path ? mem_strdup("/")
                                   : mem_strndup(path, (size_t)(slash - path));
    struct watch *w = watch_directory(d, parent);
    if (w != NULL)
        map_set(&w->names, str_of(slash == NULL ? path : slash + 1), d);
    mem_free(parent);
}

/* ---- scanning ---- */

static void forget_file(struct source_dir *d, const char *path)
{
    mem_free(map_remove(&d->seen, str_of(path)));
    store_file_remove(d->store, path);
}

static bool file_is_as_before(const struct seen_file *seen, const struct stat *st)
{
    return seen->dev == st->st_dev && seen->ino == st->st_ino && seen->size == st->st_size &&
           memcmp(&seen->mtime, &st->st_mtim, sizeof st->st_mtim) == 0 &&
           memcmp(&seen->ctime, &st->st_ctim, sizeof st->st_ctim) == 0;
}

static void read_file(struct source_dir *d, const char *path, struct seen_file *seen, const struct stat *st)
{
    *seen = (struct seen_file){st->st_dev, st->st_ino, st->st_size, st->st_mtim, st->st_ctim, true};
    size_t n = 0;
    char *error, *text = file_read_all(path, RESOURCE_FILE_MAX, &n, &error);
    store_file_set(d->store, path, str_span(text, n), error, d->default_ns);
    if (error != NULL)
        seen->size = -1; /* try again next time */
    mem_free(error);
    mem_free(text);
}

/* False: there are too many files already. */
static bool scan_file(struct source_dir *d, const char *path)
{
    struct stat st;
    struct seen_file *seen = map_get(&d->seen, str_of(path));
    if (stat(path, &st) != 0) {
        if (seen != NULL && errno != ENOENT && errno != ENOTDIR)
            seen->present = true;
        return true;
    }
    if (seen == NULL) {
        if (d->seen.count >= FILES_MAX)
            return false;
        seen = mem_zalloc(sizeof *seen);
        map_set(&d->seen, str_of(path), seen);
    } else if (file_is_as_before(seen, &st)) {
        seen->present = true;
        return true;
    }
    read_file(d, path, seen, &st);
    return true;
}

static int compare_names(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* What a directory last gave stays when it cannot be listed now (no descriptor left, a mount or the directory itself
 * away for a moment): only a listing that worked may take files away. */
static void keep_files_of(struct source_dir *d, const char *path)
{
    struct strbuf prefix = {0};
    strbuf_printf(&prefix, "%s%s", path, path[strlen(path) - 1] == '/' ? "" : "/");
    MAP_EACH (e, &d->seen)
        if (str_starts(e->key, strbuf_str(&prefix)))
            ((struct seen_file *)e->value)->present = true;
    strbuf_free(&prefix);
}

static bool gave_files(const struct source_dir *d, const char *path)
{
    struct strbuf prefix = {0};
    bool any = false;
    strbuf_printf(&prefix, "%s%s", path, path[strlen(path) - 1] == '/' ? "" : "/");
    MAP_EACH (e, &d->seen)
        any |= str_starts(e->key, strbuf_str(&prefix));
    strbuf_free(&prefix);
    return any;
}

static void path_failed(struct source_dir *d, const char *path, const char *fmt, ...) PRINTF_LIKE(3, 4);
static void path_failed(struct source_dir *d, const char *path, const char *fmt, ...)
{
    char text[256];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    store_file_set(d->store, path, STR_NONE, text, d->default_ns);
}

static char **list_directory(DIR *dir, const char *path, size_t *count)
{
    char **names = NULL;
    *count = 0;
    for (struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        if (!is_resource_name(e->d_name))
            continue;
        names = mem_realloc(names, (*count + 1) * sizeof *names);
        names[(*count)++] = mem_printf("%s%s%s", path, path[strlen(path) - 1] == '/' ? "" : "/", e->d_name);
    }
    if (*count > 0)
        qsort(names, *count, sizeof *names, compare_names);
    return names;
}

static void scan_directory(struct source_dir *d, const char *path)
{
    struct watch *w = watch_directory(d, path);
    if (w != NULL)
        w->resources = true;
    DIR *dir = opendir(path);
    if (dir == NULL) {
        path_failed(d, path, "cannot be listed: %s; its objects stay as they are", strerror(errno));
        keep_files_of(d, path);
        return;
    }
    size_t count = 0;
    char **names = list_directory(dir, path, &count);
    closedir(dir);
    bool all = true;
    for (size_t i = 0; i < count; i++) {
        all = scan_file(d, names[i]) && all;
        mem_free(names[i]);
    }
    mem_free(names);
    if (all)
        store_file_remove(d->store, path); /* an error of before */
    else
        path_failed(d, path, "there are more than %d resource files: the rest is not read", FILES_MAX);
}

static void forget_absent(struct source_dir *d)
{
    struct map gone = {0};
    MAP_EACH (e, &d->seen)
        if (!((struct seen_file *)e->value)->present)
            map_set(&gone, e->key, e->value);
    MAP_EACH (e, &gone) {
        char *path = str_dup(e->key);
        forget_file(d, path);
        mem_free(path);
    }
    map_free(&gone);
}

static void scan_path(struct source_dir *d, const char *path)
{
    struct stat st;
    int error = stat(path, &st) == 0 ? 0 : errno;
    watch_parent(d, path);
    if (error == 0 && S_ISDIR(st.st_mode)) {
        scan_directory(d, path);
    } else if (error == 0) {
        if (!scan_file(d, path))
            path_failed(d, path, "there are more than %d resource files: this one is not read", FILES_MAX);
    } else if ((error != ENOENT && error != ENOTDIR) || gave_files(d, path)) {
        path_failed(d, path, "%s; its objects stay as they are", strerror(error));
        keep_files_of(d, path);
        struct seen_file *seen = map_get(&d->seen, str_of(path));
        if (seen != NULL)
            seen->present = true;
    } else {
        if (map_get(&d->seen, str_of(path)) != NULL)
            forget_file(d, path);
        path_failed(d, path, "%s", strerror(error));
    }
}

bool source_dir_scan(struct source_dir *d)
{
    MAP_EACH (e, &d->seen)
        ((struct seen_file *)e->value)->present = false;
    for (size_t i = 0; i < d->path_count; i++)
        scan_path(d, d->paths[i]);
    forget_absent(d);
    uv_update_time(&d->loop->uv);
    bool changed = store_settle(d->store, loop_now(d->loop) + 1);
    if (d->store->missing > 0)
        loop_timer_start(&d->confirm, STORE_GONE_MS + 1);
    return changed;
}

static void look(struct source_dir *d)
{
    if (source_dir_scan(d))
        d->changed(d->arg);
}

static void on_settle(struct loop_timer *timer) { look(CONTAINER_OF(timer, struct source_dir, settle)); }
static void on_confirm(struct loop_timer *timer) { look(CONTAINER_OF(timer, struct source_dir, confirm)); }
static void on_rescan(struct loop_timer *timer)
{
    loop_timer_start(timer, RESCAN_MS);
    look(CONTAINER_OF(timer, struct source_dir, rescan));
}

struct source_dir *source_dir_new(struct loop *loop, struct store *store, const char *const *paths, size_t count,
                                  const char *default_ns, void (*changed)(void *arg), void *arg)
{
    struct source_dir *d = mem_zalloc(sizeof *d);
    d->loop = loop;
    d->store = store;
    d->default_ns = default_ns;
    d->changed = changed;
    d->arg = arg;
    d->paths = mem_zalloc((count + 1) * sizeof *d->paths);
    for (size_t i = 0; i < count; i++) {
        struct str p = str_of(paths[i]);
        while (p.n > 1 && p.p[p.n - 1] == '/')
            p.n--;
        d->paths[i] = str_dup(p);
    }
    d->path_count = count;
    loop_timer_init(&d->settle, loop, on_settle);
    loop_timer_init(&d->confirm, loop, on_confirm);
    loop_timer_init(&d->rescan, loop, on_rescan);
    loop_timer_start(&d->rescan, RESCAN_MS);
    return d;
}

static void rescan_closed(struct loop_timer *timer)
{
    struct source_dir *d = CONTAINER_OF(timer, struct source_dir, rescan);
    mem_free(d);
}

static void confirm_closed(struct loop_timer *timer)
{
    struct source_dir *d = CONTAINER_OF(timer, struct source_dir, confirm);
    loop_timer_close(&d->rescan, rescan_closed);
}

static void settle_closed(struct loop_timer *timer)
{
    struct source_dir *d = CONTAINER_OF(timer, struct source_dir, settle);
    loop_timer_close(&d->confirm, confirm_closed);
}

void source_dir_free(struct source_dir *d)
{
    /* They close one after the other; none may fire until its turn. */
    loop_timer_stop(&d->confirm);
    loop_timer_stop(&d->rescan);
    MAP_EACH (e, &d->watches) {
        struct watch *w = e->value;
        uv_close((uv_handle_t *)&w->event, watch_closed);
    }
    MAP_EACH (e, &d->seen)
        mem_free(e->value);
    map_free(&d->watches);
    map_free(&d->seen);
    for (size_t i = 0; i < d->path_count; i++)
        mem_free(d->paths[i]);
    mem_free(d->paths);
    loop_timer_close(&d->settle, settle_closed);
}
