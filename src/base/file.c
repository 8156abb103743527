/* SPDX-License-Identifier: Apache-2.0
 *
 * See file.h.
 */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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

static bool write_all(int fd, struct str bytes)
{
    size_t done = 0;
    while (done < bytes.n) {
        ssize_t put = write(fd, bytes.p + done, bytes.n - done);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return false;
        done += (size_t)put;
    }
    return fsync(fd) == 0;
}

static bool create(const char *path, struct str bytes, unsigned mode)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, (mode_t)mode);
    if (fd < 0)
        return false;
    bool ok = write_all(fd, bytes);
    int why = errno;
    if (close(fd) == 0 && ok)
        return true;
    why = ok ? errno : why;
    unlink(path);
    errno = why;
    return false;
}

bool file_create(const char *path, struct str bytes) { return create(path, bytes, 0600); }

/* A rename is kept only once the directory is on disk. */
static bool sync_directory_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *dir = slash == NULL ? mem_strdup(".") : mem_strndup(path, slash == path ? 1 : (size_t)(slash - path));
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    mem_free(dir);
    if (fd < 0)
        return false;
    bool ok = fsync(fd) == 0;
    close(fd);
    return ok;
}

bool file_replace(const char *path, struct str bytes, unsigned mode, char **error)
{
    struct stat st;
    if (lstat(path, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISLNK(st.st_mode)) {
        *error = mem_printf("%s is not a regular file", path); /* a device, which a rename would take away */
        return false;
    }
    char *made = mem_printf("%s.%d.tmp", path, (int)getpid());
    unlink(made); /* left behind by a process that had our number and died */
    *error = NULL;
    if (!create(made, bytes, mode)) {
        *error = mem_printf("cannot write %s: %s", made, strerror(errno));
    } else if (rename(made, path) != 0 || !sync_directory_of(path)) {
        *error = mem_printf("cannot replace %s: %s", path, strerror(errno));
        unlink(made);
    }
    mem_free(made);
    return *error == NULL;
}
