/* SPDX-License-Identifier: Apache-2.0
 *
 * See module_cache.h. Layout of the directory:
 *
 *   mac.key                          32 random bytes, 0600
 *   <sha256 of (module, engine, tier)>.cwasm      the code
 *   <same>.mac                       HMAC-SHA256 over the name and the code
 *   tmp-*                            being made; removed when the cache is opened
 */
#include "control/module_cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "conf/digest.h"
enum { MAC_BYTES = 32 };

struct module_cache {
    char *dir, *fingerprint;
    unsigned char key[MAC_BYTES];
    atomic_uint temporaries;
};

void sha256_hex(struct str bytes, char out[65])
{
    uint8_t digest[DIGEST_BYTES];
    digest_sha256(bytes, digest);
    static const char hex[] = "0123456789abcdef";
    for (size_t i = 0; i < sizeof digest; i++) {
        out[2 * i] = hex[digest[i] >> 4];
        out[2 * i + 1] = hex[digest[i] & 15];
    }
    out[64] = '\0';
}

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

static bool read_exact(const char *path, void *out, size_t n)
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

static char *path_of(const struct module_cache *c, const char *name, const char *suffix)
{
    return mem_printf("%s/%s%s", c->dir, name, suffix);
}

/* Two processes may share the directory: whoever makes the key first wins, by link(2). */
static bool key_load(struct module_cache *c)
{
    char *path = path_of(c, "mac.key", "");
    bool ok = read_exact(path, c->key, sizeof c->key);
    if (!ok && access(path, F_OK) != 0) {
        char *made = module_cache_temporary(c, ".key");
        ok = RAND_bytes(c->key, sizeof c->key) == 1 &&
             file_create(made, str_span((const char *)c->key, sizeof c->key)) &&
             (link(made, path) == 0 || errno == EEXIST) && read_exact(path, c->key, sizeof c->key);
        unlink(made);
        mem_free(made);
    }
    mem_free(path);
    return ok;
}

/* Left by processes that died: names carry the process id. */
static void remove_leftovers(const struct module_cache *c)
{
    DIR *dir = opendir(c->dir);
    if (dir == NULL)
        return;
    for (struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        if (strncmp(e->d_name, "tmp-", 4) != 0)
            continue;
        long pid = strtol(e->d_name + 4, NULL, 10);
        if (pid > 0 && kill((pid_t)pid, 0) != 0 && errno == ESRCH)
            unlinkat(dirfd(dir), e->d_name, 0);
    }
    closedir(dir);
}

struct module_cache *module_cache_open(const char *dir, const char *fingerprint, char **error)
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
    remove_leftovers(c);
    if (!key_load(c)) {
        *error = mem_printf("cannot read or make %s/mac.key", dir);
        module_cache_close(c);
        return NULL;
    }
    return c;
}

void module_cache_close(struct module_cache *c)
{
    OPENSSL_cleanse(c->key, sizeof c->key);
    mem_free(c->dir);
    mem_free(c->fingerprint);
    mem_free(c);
}

static void key_name(const struct module_cache *c, const char *wasm_sha256, const char *tier, char out[65])
{
    char *text = mem_printf("%s\n%s\n%s\n", wasm_sha256, c->fingerprint, tier);
    sha256_hex(str_of(text), out);
    mem_free(text);
}

static bool mac_of_file(const struct module_cache *c, const char *name, const char *path, unsigned char mac[MAC_BYTES])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    struct stat st;
    if (fd < 0)
        return false;
    bool ok = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0;
    void *map = ok ? mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0) : MAP_FAILED;
    close(fd);
    if (map == MAP_FAILED)
        return false;
    /* The name is part of it, so that one good file cannot be put in the place of another. */
    unsigned char inner[MAC_BYTES + 64];
    unsigned int n = 0;
    ok = HMAC(EVP_sha256(), c->key, sizeof c->key, map, (size_t)st.st_size, inner, &n) != NULL;
    munmap(map, (size_t)st.st_size);
    memcpy(inner + MAC_BYTES, name, 64);
    return ok && HMAC(EVP_sha256(), c->key, sizeof c->key, inner, sizeof inner, mac, &n) != NULL;
}

char *module_cache_find(struct module_cache *c, const char *wasm_sha256, const char *tier)
{
    char name[65];
    key_name(c, wasm_sha256, tier, name);
    char *code = path_of(c, name, ".cwasm"), *mac = path_of(c, name, ".mac");
    unsigned char want[MAC_BYTES], have[MAC_BYTES];
    bool ok = access(code, R_OK) == 0;
    if (ok) {
        ok = read_exact(mac, want, sizeof want) && mac_of_file(c, name, code, have) &&
             CRYPTO_memcmp(want, have, sizeof want) == 0;
        if (!ok) { /* torn by a crash, or touched: never mapped */
            unlink(code);
            unlink(mac);
        }
    }
    mem_free(mac);
    if (ok)
        return code;
    mem_free(code);
    return NULL;
}

char *module_cache_temporary(struct module_cache *c, const char *suffix)
{
    unsigned n = atomic_fetch_add(&c->temporaries, 1);
    return mem_printf("%s/tmp-%ld-%u%s", c->dir, (long)getpid(), n, suffix);
}

static bool sync_path(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC);
    bool ok = fd >= 0 && fsync(fd) == 0;
    if (fd >= 0)
        close(fd);
    return ok;
}

char *module_cache_seal(struct module_cache *c, const char *wasm_sha256, const char *tier, const char *made,
                        char **error)
{
    char name[65];
    key_name(c, wasm_sha256, tier, name);
    char *code = path_of(c, name, ".cwasm"), *mac = path_of(c, name, ".mac"),
         *mac_made = module_cache_temporary(c, ".mac");
    unsigned char have[MAC_BYTES];
    /* The code first, then its authentication code: a crash between the two leaves a file that is not believed. */
    bool ok = sync_path(made, O_RDONLY) && mac_of_file(c, name, made, have) &&
              file_create(mac_made, str_span((const char *)have, sizeof have)) && rename(made, code) == 0 &&
              rename(mac_made, mac) == 0 && sync_path(c->dir, O_RDONLY | O_DIRECTORY);
    if (!ok) {
        *error = mem_printf("cannot store compiled code in %s: %s", c->dir, strerror(errno));
        unlink(made);
        unlink(mac_made);
    }
    mem_free(mac);
    mem_free(mac_made);
    if (ok)
        return code;
    mem_free(code);
    return NULL;
}
