/* SPDX-License-Identifier: Apache-2.0
 *
 * Manifests and indexes from a registry: whatever they say, what is looked at stays in bounds and has a good digest.
 */
#include <stdint.h>

#include "fetch/encode.h"
#include "fetch/manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct descriptor
        *order[MANIFEST_CHILDREN_MAX > MANIFEST_LAYERS_MAX ? MANIFEST_CHILDREN_MAX : MANIFEST_LAYERS_MAX];
    char *error = NULL;
    struct manifest *m = manifest_parse(str_span(data, size), STR(""), &error);
    ASSERT((m == NULL) == (error != NULL));
    mem_free(error);
    if (m == NULL)
        return 0;
    size_t n =
        m->is_index ? manifest_children(m, m->count > 0 ? m->list[0].digest : NULL, order) : manifest_layers(m, order);
    ASSERT(n <= m->count);
    for (size_t i = 0; i < n; i++) {
        ASSERT(order[i] >= m->list && order[i] < m->list + m->count);
        ASSERT(digest_is_good(str_of(order[i]->digest)));
        for (size_t k = 0; k < i; k++)
            ASSERT(order[i] != order[k]);
    }
    manifest_free(m);
    return 0;
}
