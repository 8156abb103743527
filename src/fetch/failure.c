/* SPDX-License-Identifier: Apache-2.0
 *
 * See failure.h. Texts hold bytes of servers: they are cut, and whoever shows them escapes them.
 */
#include "fetch/failure.h"

#include <stdio.h>

enum { TEXT_MAX = 1500 };

void failure_clear(struct failure *f)
{
    mem_free(f->text);
    *f = (struct failure){0};
}

void failure_set(struct failure *f, const char *reason, bool retry, const char *fmt, ...)
{
    char text[TEXT_MAX]; /* on the stack: an argument may be f's own text */
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    failure_clear(f);
    *f = (struct failure){.reason = reason, .text = mem_strdup(text), .retry = retry};
}

void failure_move(struct failure *f, struct failure *from)
{
    failure_clear(f);
    *f = *from;
    *from = (struct failure){0};
}

const char *failure_of_status(unsigned status)
{
    return status == 401   ? "Unauthorized"
           : status == 403 ? "Forbidden"
           : status == 404 ? "NotFound"
           : status == 429 ? "RateLimited"
           : status >= 500 ? "ServerError"
                           : "FetchFailed";
}
