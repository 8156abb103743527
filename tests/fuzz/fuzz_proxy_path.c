/* SPDX-License-Identifier: Apache-2.0
 *
 * Path normalisation under every policy: never grows, never writes beyond the input's size, and its result is a fixed
 * point without dot segments, so that whoever looks a second time sees the same path.
 */
#include <stdint.h>
#include <stdlib.h>

#include "conf/limits.h"
#include "proxy/route.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(unsigned policy, struct str path)
{
    char *first = malloc(path.n + 1), *second = malloc(path.n + 1);
    struct str once, twice;
    ASSERT(first != NULL && second != NULL);
    if (path_normalize(policy, path, first, &once)) {
        ASSERT(once.n <= path.n);
        ASSERT(path_normalize(policy, once, second, &twice));
        ASSERT(str_eq(once, twice));
        ptrdiff_t question = str_find(once, '?');
        struct str plain = question >= 0 ? str_upto(once, (size_t)question) : once;
        if (policy != PATH_NONE && path.n != 0 && path.p[0] == '/') {
            ASSERT(plain.n != 0 && plain.p[0] == '/');
            ASSERT(str_find(plain, '\\') < 0);
            ASSERT(str_find_str(plain, STR("/./")) < 0 && str_find_str(plain, STR("/../")) < 0);
            ASSERT(!str_ends(plain, STR("/.")) && !str_ends(plain, STR("/..")));
            ASSERT(policy == PATH_BASE || str_find_str(plain, STR("//")) < 0);
        }
    }
    free(first);
    free(second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    for (unsigned policy = PATH_NONE; policy <= PATH_DECODE_AND_MERGE_SLASHES; policy++)
        check(policy, str_span(data, size));
    return 0;
}
