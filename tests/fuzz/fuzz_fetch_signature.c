/* SPDX-License-Identifier: Apache-2.0
 *
 * What a registry gives as a signature: a payload, a signature in base64, and (from whoever writes resources) a key.
 * Nothing a fuzzer makes up is ever good, and a digest that is read is a digest.
 */
#include <stdint.h>

#include "fetch/signature.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char KEY[] = "-----BEGIN PUBLIC KEY-----\n"
                          "MCowBQYDK2VwAyEAJyTA2hI9OMqOk+jDjEtjxXYWcabgyRfF2oBkugDSrSY=\n"
                          "-----END PUBLIC KEY-----\n";
static const char DIGEST[] = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

static void refused(char *error)
{
    ASSERT(error != NULL);
    mem_free(error);
}

/* The first byte says what the rest is. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct str rest = str_span(data + 1, size - 1);
    char digest[80];
    char *error;
    switch (data[0] % 3) {
    case 0:
        error = signature_payload_digest(rest, digest);
        ASSERT(error != NULL || (strlen(digest) == 71 && strncmp(digest, "sha256:", 7) == 0));
        mem_free(error);
        break;
    case 1:
        refused(signature_check_cosign(KEY, rest, rest, DIGEST));
        refused(signature_check_detached(KEY, str_of(DIGEST), rest));
        break;
    default: {
        char *pem = str_dup(rest);
        error = signature_check_key(pem);
        mem_free(error);
        mem_free(pem);
    }
    }
    return 0;
}
