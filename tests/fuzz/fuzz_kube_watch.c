/* SPDX-License-Identifier: Apache-2.0
 *
 * Any bytes as the stream of a watch: cut into lines, each looked at as an event whose object is taken apart. What is
 * taken for an object must be JSON in shape again, with its resourceVersion in place.
 */
#include "kube/json_scan.h"
#include "kube/status_writer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool is_whole(struct str text)
{
    struct str rest = text, value;
    return json_scan_value(&rest, &value) && rest.n == 0;
}

static bool on_line(void *arg, struct str line)
{
    (void)arg;
    struct kube_parsed p;
    struct str object = json_get(line, "object");
    char *type = json_scan_string(json_get(line, "type"));
    mem_free(type);
    if (!is_whole(line) || !kube_parse(object, "v1", "Service", &p))
        return true;
    ASSERT(is_whole(strbuf_str(&p.text)));
    ASSERT(p.version_at <= p.text.n && p.text.p[p.version_at - 1] == '{');
    bool same;
    mem_free(kube_status_merge(p.status, json_get(object, "spec"), &same));
    kube_parsed_free(&p);
    return true;
}

static void on_skipped(void *arg, struct str begin)
{
    (void)arg;
    (void)begin;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct kube_lines lines = {0};
    size_t piece = size > 0 ? 1 + data[0] % 64u : 1;
    for (size_t at = 0; at < size; at += piece)
        (void)kube_lines_feed(&lines, str_span(data + at, size - at < piece ? size - at : piece), on_line, on_skipped,
                              NULL);
    strbuf_free(&lines.part);
    return 0;
}
