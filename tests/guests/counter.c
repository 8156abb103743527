/* SPDX-License-Identifier: Apache-2.0
 *
 * A guest for loads: it logs nothing of a request. The request header x-op says what it does; the answer stands in a
 * response header.
 *
 *      shared      adds one to the shared datum "n" by compare and swap, until it went well; x-n
 *      metric      one to counter "e2e_hits", x-size to histogram "e2e_sizes"
 *      queue       puts x-item into queue "jobs" of vm_id "consumer"
 *      trap        traps
 *      anything    nothing but x-mark, which all of them set
 * Every VM counts its start in "e2e_vm_starts", and every configuration in "e2e_configured".
 */
#include "proxy_wasm.h"

static uint32_t hits, sizes;
static struct pw_str mark;

bool pw_on_vm_start(uint32_t root, uint32_t size)
{
    (void)root;
    (void)size;
    pw_increment(pw_define_metric(PW_COUNTER, "e2e_vm_starts"), 1);
    hits = pw_define_metric(PW_COUNTER, "e2e_hits");
    sizes = pw_define_metric(PW_HISTOGRAM, "e2e_sizes");
    return true;
}

/* pluginConfig {"mark": "..."} is what x-mark says; {"reject": true} is refused. */
bool pw_on_configure(uint32_t root, uint32_t size)
{
    (void)root;
    (void)size;
    struct pw_str config = pw_get_config();
    int32_t at = pw_find(config, PW_STR("\"mark\":\""));
    mark = PW_STR("plain");
    if (at >= 0) {
        mark = (struct pw_str){config.p + at + 8, 0};
        while (mark.p + mark.n < config.p + config.n && mark.p[mark.n] != '"') {
            mark.n++;
        }
    }
    pw_increment(pw_define_metric(PW_COUNTER, "e2e_configured"), 1);
    return pw_find(config, PW_STR("\"reject\":true")) < 0;
}

static uint64_t add_one(void)
{
    for (;;) {
        struct pw_str old;
        uint32_t cas = 0;
        uint64_t n = 0;
        char digits[21];
        enum pw_status status = pw_get_shared(PW_STR("n"), &old, &cas);

        if (status == PW_OK) {
            pw_parse_u64(old, &n);
        } else {
            cas = UINT32_MAX; /* well against nothing, a mismatch when another worker was first */
        }
        pw_free_str(&old);
        if (pw_set_shared(PW_STR("n"), pw_format_u64(n + 1, digits), cas) == PW_OK) {
            return n + 1;
        }
    }
}

enum pw_action pw_on_request_headers(uint32_t ctx, uint32_t count, bool end)
{
    (void)ctx;
    (void)count;
    (void)end;
    PW_AUTO struct pw_str op = pw_get_header(PW_REQUEST_HEADERS, "x-op");
    char digits[21];

    if (pw_eq(op, PW_STR("trap"))) {
        __builtin_trap();
    }
    pw_set_header(PW_REQUEST_HEADERS, "x-mark", mark);
    if (pw_eq(op, PW_STR("shared"))) {
        pw_set_header(PW_REQUEST_HEADERS, "x-n", pw_format_u64(add_one(), digits));
    } else if (pw_eq(op, PW_STR("metric"))) {
        PW_AUTO struct pw_str size = pw_get_header(PW_REQUEST_HEADERS, "x-size");
        uint64_t n = 0;
        pw_parse_u64(size, &n);
        pw_increment(hits, 1);
        pw_record(sizes, n);
    } else if (pw_eq(op, PW_STR("queue"))) {
        PW_AUTO struct pw_str item = pw_get_header(PW_REQUEST_HEADERS, "x-item");
        uint32_t queue = 0;
        enum pw_status status = pw_resolve_queue("consumer", "jobs", &queue);
        if (status == PW_OK) {
            status = pw_enqueue(queue, item);
        }
        pw_set_header(PW_REQUEST_HEADERS, "x-status", pw_format_u64(status, digits));
    }
    return PW_CONTINUE;
}
