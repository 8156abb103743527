/* SPDX-License-Identifier: Apache-2.0
 *
 * "path \n query \n Accept \n labels \n fields \n" and then lines of /proc/net/tcp: what a client says before its body,
 * and the kernel's table, whose lines are looked through for it.
 */
#include "kube/api_priv.h"

static char *text_of(struct str s) { return s.n > 0 && memchr(s.p, '\0', s.n) == NULL ? str_dup(s) : NULL; }

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str rest = str_span(data, size), parts[5];
    struct api_request r = {0};
    struct http_response out = {0};
    for (size_t i = 0; i < ARRAY_LEN(parts); i++)
        parts[i] = rest.p != NULL ? str_split(&rest, '\n') : STR("");
    if (api_path_parse(parts[0], &r)) {
        ASSERT(r.type != NULL && r.version != NULL);
        (void)api_discovery_path(parts[0]);
    }
    (void)(api_query_parse(parts[1], &r, &out) && api_accept_parse(parts[2], &r, &out));
    char *labels = text_of(parts[3]), *fields = text_of(parts[4]), *error = NULL;
    struct api_selector *s = api_selector_new(labels, fields, api_type_event, &error);
    ASSERT((s == NULL) == (error != NULL));
    json_t *o = json_pack("{s:{s:s, s:{s:s, s:s}}}", "metadata", "name", "x", "labels", "a", "b", "c", "");
    if (s != NULL)
        (void)api_selector_matches(s, o);
    struct addr peer, local;
    unsigned uid;
    ASSERT(addr_parse(STR("127.0.0.1:40000"), &peer) && addr_parse(STR("127.0.0.1:8080"), &local));
    if (rest.p != NULL)
        (void)peer_find(rest, &peer, &local, &uid);
    json_decref(o);
    api_selector_free(s);
    api_request_free(&r);
    mem_free(labels);
    mem_free(fields);
    mem_free(error);
    strbuf_free(&out.body);
    strbuf_free(&out.headers);
    return 0;
}
