/* SPDX-License-Identifier: Apache-2.0
 *
 * Layers: what is found is a module within its bound, whatever the archive says of itself.
 */
#include <stdint.h>

#include "fetch/layer.h"

enum { MAX = 64 * 1024 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *module, *error;
    size_t n;
    enum layer_found found = layer_find_module(str_span(data, size), MAX, &module, &n, &error);
    bool good = found == LAYER_PLUGIN || found == LAYER_ONLY;
    ASSERT(good == (module != NULL) && good == (error == NULL));
    if (good)
        ASSERT(n >= 8 && n <= MAX && memcmp(module, "\0asm", 4) == 0);
    mem_free(module);
    mem_free(error);
    return 0;
}
