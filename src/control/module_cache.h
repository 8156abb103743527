/* SPDX-License-Identifier: Apache-2.0
 *
 * Modules on disk: their own bytes, the native code they were compiled to, and what pulls of references gave. Native
 * code will be mapped and run, so the directory is ours alone (0700), code and records carry an authentication code
 * (HMAC-SHA256 under a random key kept beside them, 0600) that is checked before they are believed, and a module's bytes
 * are named by their SHA-256 and checked against it when they are read. Files are replaced by rename and never rewritten.
 *
 * The directory has a size. What was used longest ago goes first; what somebody holds never goes. A hold is an open file
 * with a shared flock(2): it ends with the process whatever becomes of it, and it counts for every process that shares
 * the directory, so that several gateways may. Where locks do not work (some network file systems) holds do not count,
 * and a file may go too early: what was mapped goes on, and what is missed is fetched and compiled anew.
 *
 * Everything here reads and writes whole files: not on a loop's thread, but for opening, closing and names.
 */
#ifndef WEIR_CONTROL_MODULE_CACHE_H
#define WEIR_CONTROL_MODULE_CACHE_H

#include "base/str.h"

struct module_cache;
/* Makes the directory when it is missing, and removes what processes that died have left. NULL and *error when it is
 * not ours, or cannot be made. fingerprint: engine_fingerprint(). max_bytes 0: no limit. */
struct module_cache *module_cache_open(const char *dir, const char *fingerprint, uint64_t max_bytes, char **error);
void module_cache_close(struct module_cache *c);
/* Fresh temporary names inside the directory for the compiler's output. mem_free. */
char *module_cache_temporary(struct module_cache *c, const char *suffix);

/* A file that must not go: a descriptor, -1 for none. Released holds are -1 again. */
void module_cache_release(int *hold);
int module_cache_hold_again(int hold); /* one more for the same file */

/* ---- modules ---- */

/* Stores the bytes under their digest and holds them. Path, for mem_free; or NULL and *error. */
char *module_cache_put(struct module_cache *c, const char *sha256, struct str bytes, int *hold, char **error);
/* Bytes of a module (mem_free), held; NULL when it is not there or is not what its name says (then it is removed). */
char *module_cache_get(struct module_cache *c, const char *sha256, size_t *n, char **path, int *hold);

/* ---- compiled code ---- */

/* Path of the compiled code for this module if it is there and authentic, held; NULL otherwise (a file that fails the
 * check is removed). mem_free. */
char *module_cache_find(struct module_cache *c, const char *wasm_sha256, const char *tier, int *hold);
/* Seals a file the compiler made: authentication code, fsync, rename. Returns the final path, held, or NULL and *error;
 * `made` is gone either way. */
char *module_cache_seal(struct module_cache *c, const char *wasm_sha256, const char *tier, const char *made, int *hold,
                        char **error);

/* ---- what pulls gave ---- */

/* One pull of a reference. Texts are "" when unknown; none of them is a secret. */
struct pull_record {
    char digest[80];          /* oci: "sha256:..." of the manifest */
    char index_digest[80];    /* oci: of the index it was found in */
    char module_sha256[65];   /* of the unpacked module */
    char verified_key[65];    /* SHA-256 of the key whose signature was found good */
    char *from;               /* where the bytes came from; mem_free */
    char *version;            /* of the object that asked: uid, generation, digest; mem_free */
    int64_t pulled_s;         /* wall clock */
};
void pull_record_free(struct pull_record *r);
/* key: any text that says which pull (url, whose credentials, ...). False: none is known. */
bool module_cache_recall(struct module_cache *c, struct str key, struct pull_record *out);
/* False and *error (mem_free) when it cannot be written. */
bool module_cache_remember(struct module_cache *c, struct str key, const struct pull_record *r, char **error);

/* ---- size ---- */

struct cache_size {
    uint64_t bytes;
    unsigned files, removed;
};
/* Removes what was used longest ago and is not held until the directory is within its size. One process at a time does
 * it; when another one is at it, nothing happens. To be called after something was stored. */
struct cache_size module_cache_trim(struct module_cache *c);

/* Lower-case hex of SHA-256; out has room for 65. */
void sha256_hex(struct str bytes, char out[65]);

#endif
