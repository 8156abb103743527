/* SPDX-License-Identifier: Apache-2.0
 *
 * www-authenticate of a registry: never a value with a control character in it.
 */
#include <stdint.h>

#include "fetch/challenge.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct challenge c = {0};
    challenge_read(&c, str_span(data, size));
    challenge_read(&c, str_span(data, size / 2));
    char *const all[] = {c.realm, c.service, c.scope};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        ASSERT(all[i] == NULL || c.bearer);
        for (const char *p = all[i]; p != NULL && *p != '\0'; p++)
            ASSERT((unsigned char)*p >= 0x20 && *p != 0x7f);
    }
    challenge_free(&c);
    return 0;
}
