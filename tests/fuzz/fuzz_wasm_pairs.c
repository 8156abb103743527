/* SPDX-License-Identifier: Apache-2.0
 *
 * Header maps from a guest: nothing is read outside the bytes (the input lies in a block of its own), and what decodes
 * encodes to the same bytes again.
 */
#include <stdlib.h>

#include "wasm/pairs.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct abi_pair list[PAIRS_MAX_COUNT];
    char *copy = malloc(size != 0 ? size : 1);
    struct strbuf again = {0};
    size_t count;

    if (size != 0) {
        memcpy(copy, data, size);
    }
    enum pairs_result r = pairs_decode(str_span(copy, size), list, &count);
    if (r == PAIRS_OK) {
        ASSERT(count <= PAIRS_MAX_COUNT);
        pairs_encode(&again, list, count);
        ASSERT(again.n == pairs_size(list, count));
        ASSERT(count == 0 ? again.n == 4 : str_eq(strbuf_str(&again), str_span(copy, size)));
    } else {
        ASSERT(count == 0);
    }
    strbuf_free(&again);
    free(copy);
    return 0;
}
