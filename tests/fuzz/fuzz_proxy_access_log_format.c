/* SPDX-License-Identifier: Apache-2.0
 *
 * Access log formats, text and JSON, from any bytes: they compile or are refused with a reason, and a compiled one
 * writes one line for a stream of which nothing is known.
 */
#include <stdint.h>
#include <stdlib.h>

#include "proxy/access_log.h"
#include "proxy/pool.h"
#include "proxy/stream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Stand-ins: what a log line asks of the rest of the proxy. */
const struct addr *pool_leg_local(const struct leg *leg)
{
    (void)leg;
    return NULL;
}
struct str stream_property_get(const struct stream *s, struct str key, bool *found)
{
    (void)s;
    (void)key;
    *found = true;
    return STR("a\n\"b");
}

static void check(enum access_log_format kind, const char *format)
{
    static struct stream s;
    struct diag diag = {0};
    struct strbuf line = {0};
    struct access_log *log = access_log_new(kind, format, &diag);
    ASSERT((log == NULL) == (diag.errors != 0));
    if (log != NULL) {
        access_log_write(log, &s, &line);
        ASSERT(str_find(strbuf_str(&line), '\n') < 0);
    }
    access_log_free(log);
    strbuf_free(&line);
    diag_free(&diag);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *format = mem_strndup((const char *)data, size);
    check(ACCESS_LOG_TEXT, format);
    check(ACCESS_LOG_JSON, format);
    mem_free(format);
    return 0;
}
