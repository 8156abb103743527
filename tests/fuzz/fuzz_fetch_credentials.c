/* SPDX-License-Identifier: Apache-2.0
 *
 * Pull secrets and what credential helpers answer: a helper's name is never more than [A-Za-z0-9._-]+.
 */
#include <stdint.h>

#include "fetch/credentials.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const targets[] = {"h.example/x", "docker.io/library/x", "my-registry/x", "[::1]:5000/x"};
    struct credentials c;
    char *helper, *server, *error = NULL;
    for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++) {
        if (!credentials_read_config(str_span(data, size), str_of(targets[i]), &c, &helper, &server, &error)) {
            ASSERT(error != NULL && credentials_is_empty(&c));
            mem_free(error);
            error = NULL;
        }
        ASSERT((helper == NULL) == (server == NULL));
        if (helper != NULL)
            ASSERT(helper[0] != '\0' &&
                   strspn(helper, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") ==
                       strlen(helper));
        mem_free(helper);
        mem_free(server);
        credentials_free(&c);
    }
    if (!credentials_read_helper(str_span(data, size), &c, &error))
        mem_free(error);
    credentials_free(&c);
    return 0;
}
