/* SPDX-License-Identifier: Apache-2.0
 *
 * Compiled modules on disk, content-addressed. Compiled code is native code that will be mapped and run, so the
 * directory is ours alone (0700), every file carries an authentication code (HMAC-SHA256 under a random key kept beside
 * it, 0600) that is checked before it is mapped, and files are replaced by rename and never rewritten.
 */
#ifndef WEIR_CONTROL_MODULE_CACHE_H
#define WEIR_CONTROL_MODULE_CACHE_H

#include "base/str.h"

struct module_cache;
/* Makes the directory when it is missing. NULL and *error when it is not ours, or cannot be made. fingerprint:
 * engine_fingerprint(). */
struct module_cache *module_cache_open(const char *dir, const char *fingerprint, char **error);
void module_cache_close(struct module_cache *c);
/* Path of the compiled code for this module if it is there and authentic; NULL otherwise (a file that fails the check
 * is removed). mem_free. Reads the whole file: not on a loop's thread. */
char *module_cache_find(struct module_cache *c, const char *wasm_sha256, const char *tier);
/* Fresh temporary names inside the directory for the compiler's input and output. mem_free. */
char *module_cache_temporary(struct module_cache *c, const char *suffix);
/* Seals a file the compiler made: authentication code, fsync, rename. Returns the final path, or NULL and *error;
 * `made` is gone either way. */
char *module_cache_seal(struct module_cache *c, const char *wasm_sha256, const char *tier, const char *made,
                        char **error);

/* Lower-case hex of SHA-256; out has room for 65. */
void sha256_hex(struct str bytes, char out[65]);

#endif
