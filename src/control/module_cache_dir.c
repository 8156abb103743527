/* SPDX-License-Identifier: Apache-2.0
 *
 * See module_cache.h. The directory as a place that several processes share: who makes the key, whose temporary files
 * are whose, what is held, what goes when it is full.
 *
 *   tmp-<random>.lock      locked (flock) by a process as long as it lives; the rest of tmp-<random>* is its own
 *   trim.lock              locked by whoever makes room
 *
 * Process numbers say nothing here: gateways in containers all have number 1, and share volumes.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "control/module_cache_priv.h"

/* A listing is read for each trim: it must not grow without end by small files. */
enum { FILES_MAX = 20000, ORPHAN_S = 3600 };

/* ---- small things ---- */

char *cache_path(const struct module_cache *c, const char *name, const char *suffix)
{
    return mem_printf("%s/%s%s", c->dir, name, suffix);
}

bool cache_read_exact(const char *path, void *out, size_t n)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return false;
    ssize_t got = read(fd, out, n);
    char more;
    bool ok = got == (ssize_t)n && read(fd, &more, 1) == 0;
    close(fd);
    return ok;
}

bool cache_sync(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC);
    bool ok = fd >= 0 && fsync(fd) == 0;
    if (fd >= 0)
        close(fd);
    return ok;
}

/* ---- holds ---- */

void module_cache_release(int *hold)
{
    if (*hold >= 0)
        close(*hold);
    *hold = -1;
}

int module_cache_hold_again(int hold) { return hold >= 0 ? fcntl(hold, F_DUPFD_CLOEXEC, 3) : -1; }

int cache_hold(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    struct stat st;
    if (fd < 0)
        return -1;
    /* Whoever makes room has it locked for the moment of its removal only. */
    bool locked = flock(fd, LOCK_SH) == 0;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || (locked && st.st_nlink == 0)) {
        close(fd);
        return -1;
    }
    futimens(fd, NULL);
    return fd;
}

/* ---- opening ---- */

static bool make_directories(const char *dir)
{
    char *path = mem_strdup(dir);
    for (char *p = path + 1;; p++) {
        if (*p != '/' && *p != '\0')
            continue;
        char kept = *p;
        *p = '\0';
        if (mkdir(path, 0700) != 0 && errno != EEXIST) {
            mem_free(path);
            return false;
        }
        *p = kept;
        if (kept == '\0')
            break;
    }
    mem_free(path);
    return true;
}

char *module_cache_temporary(struct module_cache *c, const char *suffix)
{
    unsigned n = atomic_fetch_add(&c->temporaries, 1);
    return mem_printf("%s/%s-%u%s", c->dir, c->prefix, n, suffix);
}

bool cache_write(struct module_cache *c, const char *path, struct str bytes, char **error)
{
    char *made = module_cache_temporary(c, ".new");
    bool ok = file_create(made, bytes) && rename(made, path) == 0 && cache_sync(c->dir, O_RDONLY | O_DIRECTORY);
    if (!ok) {
        *error = mem_printf("cannot write to the cache directory %s: %s", c->dir, strerror(errno));
        unlink(made);
    }
    mem_free(made);
    return ok;
}

/* A prefix that no other process uses, now or before. */
static bool prefix_take(struct module_cache *c)
{
    for (int tries = 0; tries < 10; tries++) {
        unsigned char random[8];
        struct stat st;
        if (RAND_bytes(random, sizeof random) != 1)
            return false;
        size_t n = (size_t)snprintf(c->prefix, sizeof c->prefix, "tmp-");
        for (size_t i = 0; i < sizeof random; i++)
            n += (size_t)snprintf(c->prefix + n, sizeof c->prefix - n, "%02x", random[i]);
        char *path = cache_path(c, c->prefix, ".lock");
        c->prefix_lock = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        mem_free(path);
        if (c->prefix_lock < 0)
            return false;
        /* Another process may have taken it for one that was left behind before it was locked. */
        flock(c->prefix_lock, LOCK_EX);
        if (fstat(c->prefix_lock, &st) == 0 && st.st_nlink > 0)
            return true;
        module_cache_release(&c->prefix_lock);
    }
    return false;
}

/* Two processes may share the directory: whoever makes the key first wins, by link(2). */
static bool key_load(struct module_cache *c)
{
    char *path = cache_path(c, "mac.key", "");
    bool ok = cache_read_exact(path, c->key, sizeof c->key);
    if (!ok && access(path, F_OK) != 0) {
        char *made = module_cache_temporary(c, ".key");
        ok = RAND_bytes(c->key, sizeof c->key) == 1 &&
             file_create(made, str_span((const char *)c->key, sizeof c->key)) &&
             (link(made, path) == 0 || errno == EEXIST) && cache_read_exact(path, c->key, sizeof c->key);
        unlink(made);
        mem_free(made);
    }
    mem_free(path);
    return ok;
}

/* "tmp-" and 16 digits. */
static bool prefix_of(const char *name, char out[32])
{
    if (strncmp(name, "tmp-", 4) != 0 || strspn(name + 4, "0123456789abcdef") < 16)
        return false;
    memcpy(out, name, 20);
    out[20] = '\0';
    return true;
}

/* Does the process live whose temporary file this is? One that cannot be told is given an hour. */
static bool owner_lives(const struct module_cache *c, const char *name, const struct stat *st)
{
    char prefix[32];
    if (!prefix_of(name, prefix))
        return time(NULL) - st->st_mtime < ORPHAN_S;
    if (strcmp(prefix, c->prefix) == 0)
        return true;
    char *path = cache_path(c, prefix, ".lock");
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    mem_free(path);
    if (fd < 0)
        return errno != ENOENT;
    bool lives = flock(fd, LOCK_EX | LOCK_NB) != 0;
    close(fd);
    return lives;
}

static bool ends_with(const char *name, const char *suffix) { return str_ends(str_of(name), str_of(suffix)); }

/* Locks go last: a file whose lock is gone belongs to nobody. */
static void remove_leftovers(const struct module_cache *c, bool locks)
{
    DIR *dir = opendir(c->dir);
    if (dir == NULL)
        return;
    for (struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        struct stat st;
        if (strncmp(e->d_name, "tmp-", 4) != 0 || ends_with(e->d_name, ".lock") != locks ||
            fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 || owner_lives(c, e->d_name, &st))
            continue;
        unlinkat(dirfd(dir), e->d_name, 0);
    }
    closedir(dir);
}

struct module_cache *module_cache_open(const char *dir, const char *fingerprint, uint64_t max_bytes, char **error)
{
    struct stat st;
    if (!make_directories(dir) || stat(dir, &st) != 0) {
        *error = mem_printf("cannot make the cache directory %s: %s", dir, strerror(errno));
        return NULL;
    }
    if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 077) != 0) {
        *error = mem_printf(
            "the cache directory %s must be a directory of this user with mode 0700: it holds native code", dir);
        return NULL;
    }
    struct module_cache *c = mem_zalloc(sizeof *c);
    c->dir = mem_strdup(dir);
    c->fingerprint = mem_strdup(fingerprint);
    c->max_bytes = max_bytes;
    c->prefix_lock = -1;
    bool ok = prefix_take(c);
    if (ok) {
        remove_leftovers(c, false);
        remove_leftovers(c, true);
    }
    if (!ok || !key_load(c)) {
        *error = ok ? mem_printf("cannot read or make %s/mac.key", dir)
                    : mem_printf("cannot write to the cache directory %s: %s", dir, strerror(errno));
        module_cache_close(c);
        return NULL;
    }
    return c;
}

void module_cache_close(struct module_cache *c)
{
    if (c->prefix_lock >= 0) {
        char *path = cache_path(c, c->prefix, ".lock");
        unlink(path);
        mem_free(path);
    }
    module_cache_release(&c->prefix_lock);
    OPENSSL_cleanse(c->key, sizeof c->key);
    mem_free(c->dir);
    mem_free(c->fingerprint);
    mem_free(c);
}

/* ---- size ---- */

struct entry {
    char *name;
    uint64_t bytes;
    struct timespec used;
};

static bool is_stored(const char *name)
{
    return ends_with(name, ".cwasm") || ends_with(name, ".wasm") || ends_with(name, ".pull");
}

/* Authentication codes go with their code; one whose code is gone is no use to anybody. */
static void remove_mac(int dir, const char *code_name)
{
    char *name = mem_printf("%.64s.mac", code_name);
    unlinkat(dir, name, 0);
    mem_free(name);
}

static struct entry *list_entries(DIR *dir, size_t *count, uint64_t *total)
{
    struct entry *list = NULL;
    size_t cap = 0;
    *count = 0;
    *total = 0;
    for (struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        struct stat st;
        if (fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(st.st_mode))
            continue;
        *total += (uint64_t)st.st_blocks * 512;
        if (strncmp(e->d_name, "tmp-", 4) == 0 || !is_stored(e->d_name))
            continue;
        if (*count == cap) {
            cap = cap > 0 ? 2 * cap : 256;
            list = mem_realloc(list, cap * sizeof *list);
        }
        list[(*count)++] = (struct entry){mem_strdup(e->d_name), (uint64_t)st.st_blocks * 512, st.st_mtim};
    }
    return list;
}

static int older_first(const void *a, const void *b)
{
    const struct timespec *x = &((const struct entry *)a)->used, *y = &((const struct entry *)b)->used;
    if (x->tv_sec != y->tv_sec)
        return x->tv_sec < y->tv_sec ? -1 : 1;
    return x->tv_nsec < y->tv_nsec ? -1 : x->tv_nsec > y->tv_nsec;
}

/* False: somebody holds it, in this process or another, or it is gone. */
static bool entry_remove(int dir, const struct entry *e)
{
    int fd = openat(dir, e->name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return false;
    bool free_to_go = flock(fd, LOCK_EX | LOCK_NB) == 0 || errno == ENOLCK || errno == EOPNOTSUPP;
    bool gone = free_to_go && unlinkat(dir, e->name, 0) == 0;
    close(fd);
    if (gone && ends_with(e->name, ".cwasm"))
        remove_mac(dir, e->name);
    return gone;
}

static struct cache_size trim(const struct module_cache *c, DIR *dir)
{
    struct cache_size size = {0};
    size_t count = 0;
    struct entry *list = list_entries(dir, &count, &size.bytes);
    if (count > 0)
        qsort(list, count, sizeof *list, older_first);
    size.files = (unsigned)count;
    for (size_t i = 0; i < count; i++) {
        bool full = (c->max_bytes > 0 && size.bytes > c->max_bytes) || size.files > FILES_MAX;
        if (full && entry_remove(dirfd(dir), &list[i])) {
            size.bytes -= list[i].bytes < size.bytes ? list[i].bytes : size.bytes;
            size.files--;
            size.removed++;
        }
        mem_free(list[i].name);
    }
    mem_free(list);
    return size;
}

struct cache_size module_cache_trim(struct module_cache *c)
{
    struct cache_size size = {0};
    char *path = cache_path(c, "trim.lock", "");
    int lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    mem_free(path);
    if (lock < 0)
        return size;
    if (flock(lock, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) {
        DIR *dir = opendir(c->dir);
        if (dir != NULL) {
            size = trim(c, dir);
            closedir(dir);
        }
    }
    close(lock);
    return size;
}
