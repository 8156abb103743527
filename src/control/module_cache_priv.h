/* SPDX-License-Identifier: Apache-2.0
 *
 * Shared by the parts of the module cache: what is stored (module_cache.c), records of pulls (module_cache_pull.c), the
 * directory, holds and its size (module_cache_dir.c).
 */
#ifndef WEIR_CONTROL_MODULE_CACHE_PRIV_H
#define WEIR_CONTROL_MODULE_CACHE_PRIV_H

#include <stdatomic.h>

#include "control/module_cache.h"

enum { MAC_BYTES = 32 };

struct module_cache {
    char *dir, *fingerprint;
    uint64_t max_bytes;
    unsigned char key[MAC_BYTES];
    char prefix[32]; /* of this process's temporary files */
    int prefix_lock; /* held as long as the process lives */
    atomic_uint temporaries;
};

char *cache_path(const struct module_cache *c, const char *name, const char *suffix);
/* Opens and holds; -1 when it is not there. The file is now the one used last. */
int cache_hold(const char *path);
/* The whole of a small file of exactly n bytes. */
bool cache_read_exact(const char *path, void *out, size_t n);
/* fsync of a file or directory; flags for open(2). */
bool cache_sync(const char *path, int flags);
/* Whole, or not at all: a temporary file, fsync, rename, fsync of the directory. */
bool cache_write(struct module_cache *c, const char *path, struct str bytes, char **error);
bool cache_mac(const struct module_cache *c, const char name[64], struct str bytes, unsigned char mac[MAC_BYTES]);
bool cache_mac_equal(const unsigned char a[MAC_BYTES], const unsigned char b[MAC_BYTES]);

#endif
