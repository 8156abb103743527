/* SPDX-License-Identifier: Apache-2.0
 *
 * See module_cache.h. Layout of the directory, beside what module_cache_dir.c keeps there:
 *
 *   mac.key                                       32 random bytes, 0600
 *   <sha256 of the bytes>.wasm                    a module
 *   <sha256 of (module, engine, tier)>.cwasm      its code
 *   <same>.mac                                    HMAC-SHA256 over the name and the code
 *   <sha256 of the key>.pull                      what a pull gave (module_cache_pull.c)
 */
#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "conf/digest.h"
#include "control/module_cache_priv.h"

enum { MODULE_MAX = 256 * 1024 * 1024 };

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

/* ---- authentication ---- */

/* The name is part of it, so that one good file cannot be put in the place of another. */
bool cache_mac(const struct module_cache *c, const char name[64], struct str bytes, unsigned char mac[MAC_BYTES])
{
    unsigned char inner[MAC_BYTES + 64];
    unsigned int n = 0;
    if (HMAC(EVP_sha256(), c->key, sizeof c->key, (const unsigned char *)bytes.p, bytes.n, inner, &n) == NULL)
        return false;
    memcpy(inner + MAC_BYTES, name, 64);
    return HMAC(EVP_sha256(), c->key, sizeof c->key, inner, sizeof inner, mac, &n) != NULL;
}

bool cache_mac_equal(const unsigned char a[MAC_BYTES], const unsigned char b[MAC_BYTES])
{
    return CRYPTO_memcmp(a, b, MAC_BYTES) == 0;
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
    ok = cache_mac(c, name, str_span(map, (size_t)st.st_size), mac);
    munmap(map, (size_t)st.st_size);
    return ok;
}

/* ---- modules ---- */

static char *module_read(const char *path, const char *sha256, size_t *n)
{
    char *error = NULL, *bytes = file_read_all(path, MODULE_MAX, n, &error);
    mem_free(error);
    char have[65];
    if (bytes != NULL) {
        sha256_hex(str_span(bytes, *n), have);
        if (strcmp(have, sha256) == 0)
            return bytes;
        unlink(path); /* torn by a crash, or touched */
    }
    mem_free(bytes);
    return NULL;
}

char *module_cache_get(struct module_cache *c, const char *sha256, size_t *n, char **path, int *hold)
{
    char *at = cache_path(c, sha256, ".wasm"), *bytes = NULL;
    *hold = cache_hold(at);
    if (*hold >= 0)
        bytes = module_read(at, sha256, n);
    if (bytes == NULL) {
        module_cache_release(hold);
        mem_free(at);
        return NULL;
    }
    *path = at;
    return bytes;
}

char *module_cache_put(struct module_cache *c, const char *sha256, struct str bytes, int *hold, char **error)
{
    size_t n = 0;
    char *path = NULL, *there = module_cache_get(c, sha256, &n, &path, hold);
    mem_free(there);
    if (there != NULL)
        return path;
    path = cache_path(c, sha256, ".wasm");
    if (cache_write(c, path, bytes, error)) {
        *hold = cache_hold(path);
        if (*hold >= 0)
            return path;
        *error = mem_printf("the module was removed from %s as it was stored: the cache is too small", c->dir);
    }
    mem_free(path);
    return NULL;
}

/* ---- compiled code ---- */

static void key_name(const struct module_cache *c, const char *wasm_sha256, const char *tier, char out[65])
{
    char *text = mem_printf("%s\n%s\n%s\n", wasm_sha256, c->fingerprint, tier);
    sha256_hex(str_of(text), out);
    mem_free(text);
}

char *module_cache_find(struct module_cache *c, const char *wasm_sha256, const char *tier, int *hold)
{
    char name[65];
    key_name(c, wasm_sha256, tier, name);
    char *code = cache_path(c, name, ".cwasm"), *mac = cache_path(c, name, ".mac");
    unsigned char want[MAC_BYTES], have[MAC_BYTES];
    *hold = cache_hold(code);
    bool ok = *hold >= 0;
    if (ok) {
        ok =
            cache_read_exact(mac, want, sizeof want) && mac_of_file(c, name, code, have) && cache_mac_equal(want, have);
        if (!ok) { /* torn by a crash, or touched: never mapped */
            unlink(code);
            unlink(mac);
        }
    }
    mem_free(mac);
    if (ok)
        return code;
    module_cache_release(hold);
    mem_free(code);
    return NULL;
}

char *module_cache_seal(struct module_cache *c, const char *wasm_sha256, const char *tier, const char *made, int *hold,
                        char **error)
{
    char name[65];
    key_name(c, wasm_sha256, tier, name);
    char *code = cache_path(c, name, ".cwasm"), *mac = cache_path(c, name, ".mac"),
         *mac_made = module_cache_temporary(c, ".mac");
    unsigned char have[MAC_BYTES];
    /* Held before it has its name, so that it cannot go in between. Its authentication code first: whoever looks
     * between the two finds no code, or older code that it is not for. The other way round it would find code that
     * nobody vouches for, and remove it. Fast code is wanted soon and not for long, so nobody waits for the disk: what
     * a crash makes of it is not believed either. */
    bool keep = strcmp(tier, "fast") != 0;
    *hold = cache_hold(made);
    bool ok = *hold >= 0 && (!keep || cache_sync(made, O_RDONLY)) && mac_of_file(c, name, made, have) &&
              file_create(mac_made, str_span((const char *)have, sizeof have)) && rename(mac_made, mac) == 0 &&
              rename(made, code) == 0 && (!keep || cache_sync(c->dir, O_RDONLY | O_DIRECTORY));
    if (!ok) {
        *error = mem_printf("cannot store compiled code in %s: %s", c->dir, strerror(errno));
        unlink(made);
        unlink(mac_made);
        module_cache_release(hold);
    }
    mem_free(mac);
    mem_free(mac_made);
    if (ok)
        return code;
    mem_free(code);
    return NULL;
}
