/* SPDX-License-Identifier: Apache-2.0
 *
 * See source_dir.h. A scan compares (device, inode, size, mtime, ctime) of every file with last time and reads only
 * what differs; what it never does is hand half a scan to the store.
 */
#include "control/source_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"

enum { RESOURCE_FILE_MAX = 16 * 1024 * 1024, RESCAN_MS = 2000, SETTLE_MS = 5, FILES_MAX = 10000 };

struct seen_file {
    dev_t dev;
    ino_t ino;
    off_t size;
    struct timespec mtime, ctime;
    bool present;
};
struct watch {
    uv_fs_event_t event;
    struct source_dir *owner;
    char *path;
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
    struct loop_timer settle, rescan;
};

char *file_read_all(const char *path, size_t max, size_t *n, char **error)
{
    *error = NULL;
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) {
        *error = mem_printf("cannot open: %s", strerror(errno));
        return NULL;
    }
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        *error = mem_strdup("is not a regular file");
        close(fd);
        return NULL;
    }
    if (st.st_size < 0 || (uint64_t)st.st_size > max) {
        *error = mem_printf("is larger than %zu bytes", max);
        close(fd);
        return NULL;
    }
    /* A file may grow while it is read: the cap holds for what is read, not for what stat said. */
    size_t cap = (size_t)st.st_size + 1, used = 0;
    char *p = mem_alloc(cap + 1);
    for (;;) {
        ssize_t got = read(fd, p + used, cap - used);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            *error = mem_printf("cannot read: %s", strerror(errno));
            break;
        }
        if (got == 0)
            break;
        used += (size_t)got;
        if (used > max) {
            *error = mem_printf("is larger than %zu bytes", max);
            break;
        }
        if (used == cap) {
            cap *= 2;
            p = mem_realloc(p, cap + 1);
        }
    }
    close(fd);
    if (*error != NULL) {
        mem_free(p);
        return NULL;
    }
    p[used] = '\0';
    *n = used;
    return p;
}

static bool is_resource_name(const char *name)
{
    struct str s = str_of(name);
    return name[0] != '.' && (str_ends(s, STR(".yaml")) || str_ends(s, STR(".yml")) || str_ends(s, STR(".json")));
}

static void on_event(uv_fs_event_t *event, const char *name, int events, int status)
{
    (void)name;
    (void)events;
    (void)status;
    struct watch *w = event->data;
    /* A little rest, so that an editor's burst of events is one scan. */
    if (!loop_timer_is_active(&w->owner->settle))
        loop_timer_start(&w->owner->settle, SETTLE_MS);
}

static void watch_closed(uv_handle_t *handle)
{
    struct watch *w = handle->data;
    mem_free(w->path);
    mem_free(w);
}

static void watch_directory(struct source_dir *d, const char *path)
{
    if (map_get(&d->watches, str_of(path)) != NULL)
        return;
    struct watch *w = mem_zalloc(sizeof *w);
    w->owner = d;
    w->path = mem_strdup(path);
    uv_fs_event_init(&d->loop->uv, &w->event);
    w->event.data = w;
    if (uv_fs_event_start(&w->event, on_event, path, 0) != 0) {
        uv_close((uv_handle_t *)&w->event, watch_closed); /* the periodic scan will have to do */
        return;
    }
    map_set(&d->watches, str_of(path), w);
}

static void watch_parent(struct source_dir *d, const char *path)
{
    const char *slash = strrchr(path, '/');
    char *parent = slash == NULL   ? mem_strdup(".")
                   : slash == path ? mem_strdup("/")
                                   : mem_strndup(path, (size_t)(slash - path));
    watch_directory(d, parent);
    mem_free(parent);
}

static void scan_file(struct source_dir *d, const char *path, bool named)
{
    struct stat st;
    struct seen_file *seen = map_get(&d->seen, str_of(path));
    if (stat(path, &st) != 0) {
        if (seen != NULL && errno != ENOENT && errno != ENOTDIR)
            seen->present = true;
        if (named)
            store_file_set(d->store, path, STR_NONE, strerror(errno), d->default_ns);
        return;
    }
    if (seen == NULL) {
        if (d->seen.count >= FILES_MAX) {
            log_line(LOG_ERROR, "more than %d resource files; %s is not read", FILES_MAX, path);
            return;
        }
        seen = mem_zalloc(sizeof *seen);
        map_set(&d->seen, str_of(path), seen);
    } else if (seen->dev == st.st_dev && seen->ino == st.st_ino && seen->size == st.st_size &&
               memcmp(&seen->mtime, &st.st_mtim, sizeof st.st_mtim) == 0 &&
               memcmp(&seen->ctime, &st.st_ctim, sizeof st.st_ctim) == 0) {
        seen->present = true;
        return;
    }
    *seen = (struct seen_file){st.st_dev, st.st_ino, st.st_size, st.st_mtim, st.st_ctim, true};
    size_t n = 0;
    char *error, *text = file_read_all(path, RESOURCE_FILE_MAX, &n, &error);
    store_file_set(d->store, path, str_span(text, n), error, d->default_ns);
    if (error != NULL)
        seen->size = -1; /* try again next time */
    mem_free(error);
    mem_free(text);
}

static int compare_names(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* What a directory last gave stays when it cannot be listed now (no descriptor left, a mount away for a moment): only a
 * listing that worked may take files away. */
static void keep_files_of(struct source_dir *d, const char *path)
{
    struct str prefix = str_of(path);
    MAP_EACH (e, &d->seen) {
        struct seen_file *f = e->value;
        if (str_starts(e->key, prefix))
            f->present = true;
    }
}

static void scan_directory(struct source_dir *d, const char *path)
{
    watch_directory(d, path);
    DIR *dir = opendir(path);
    if (dir == NULL) {
        log_line(LOG_ERROR, "%s cannot be listed: %s; its objects stay as they are", path, strerror(errno));
        keep_files_of(d, path);
        return;
    }
    char **names = NULL;
    size_t count = 0;
    for (struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        if (!is_resource_name(e->d_name))
            continue;
        names = mem_realloc(names, (count + 1) * sizeof *names);
        names[count++] = mem_printf("%s%s%s", path, path[strlen(path) - 1] == '/' ? "" : "/", e->d_name);
    }
    closedir(dir);
    if (count > 0)
        qsort(names, count, sizeof *names, compare_names);
    for (size_t i = 0; i < count; i++) {
        scan_file(d, names[i], false);
        mem_free(names[i]);
    }
    mem_free(names);
}

static void forget_absent(struct source_dir *d)
{
    struct map gone = {0};
    MAP_EACH (e, &d->seen)
        if (!((struct seen_file *)e->value)->present)
            map_set(&gone, e->key, e->value);
    MAP_EACH (e, &gone) {
        char *path = str_dup(e->key);
        store_file_remove(d->store, path);
        mem_free(map_remove(&d->seen, e->key));
        mem_free(path);
    }
    map_free(&gone);
}

bool source_dir_scan(struct source_dir *d)
{
    MAP_EACH (e, &d->seen)
        ((struct seen_file *)e->value)->present = false;
    for (size_t i = 0; i < d->path_count; i++) {
        struct stat st;
        int error = stat(d->paths[i], &st) == 0 ? 0 : errno;
        if (error != 0 && error != ENOENT && error != ENOTDIR) {
            keep_files_of(d, d->paths[i]);
        } else if (error == 0 && S_ISDIR(st.st_mode)) {
            store_file_remove(d->store, d->paths[i]); /* it may have been missing before */
            scan_directory(d, d->paths[i]);
        } else {
            watch_parent(d, d->paths[i]);
            scan_file(d, d->paths[i], true);
        }
    }
    forget_absent(d);
    return store_settle(d->store);
}

static void on_settle(struct loop_timer *timer)
{
    struct source_dir *d = CONTAINER_OF(timer, struct source_dir, settle);
    if (source_dir_scan(d))
        d->changed(d->arg);
}

static void on_rescan(struct loop_timer *timer)
{
    struct source_dir *d = CONTAINER_OF(timer, struct source_dir, rescan);
    loop_timer_start(&d->rescan, RESCAN_MS);
    if (source_dir_scan(d))
        d->changed(d->arg);
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
    loop_timer_init(&d->rescan, loop, on_rescan);
    loop_timer_start(&d->rescan, RESCAN_MS);
    return d;
}

static void rescan_closed(struct loop_timer *timer)
{
    struct source_dir *d = CONTAINER_OF(timer, struct source_dir, rescan);
    mem_free(d);
}

static void settle_closed(struct loop_timer *timer)
{
    struct source_dir *d = CONTAINER_OF(timer, struct source_dir, settle);
    loop_timer_close(&d->rescan, rescan_closed);
}

void source_dir_free(struct source_dir *d)
{
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
