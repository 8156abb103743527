/* SPDX-License-Identifier: Apache-2.0
 *
 * Compiles a pattern and throws it away: what `weir check` accepts, a worker can compile. PCRE2 bounds nesting and code
 * size itself; the length of the pattern is bounded by its field.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "conf/regex.h"

bool regex_check(struct str pattern, size_t *offset, char *message, size_t message_size)
{
    int error;
    PCRE2_SIZE at;
    pcre2_code *code =
        pcre2_compile((PCRE2_SPTR)(pattern.n != 0 ? pattern.p : ""), pattern.n, REGEX_OPTIONS, &error, &at, NULL);
    if (code != NULL) {
        pcre2_code_free(code);
        return true;
    }
    *offset = at;
    if (pcre2_get_error_message(error, (PCRE2_UCHAR *)message, message_size) < 0 && message_size != 0)
        message[0] = '\0';
    return false;
}
