/* SPDX-License-Identifier: Apache-2.0
 *
 * A registry on the test's own loop: pages by path, Basic or Bearer in front of them, and a list of what was asked.
 */
#ifndef WEIR_TESTS_REGISTRY_RIG_H
#define WEIR_TESTS_REGISTRY_RIG_H

#include "../http_rig.h"

#include "fetch/encode.h"
#include "fetch/fetch.h"

enum rig_auth { RIG_OPEN, RIG_BASIC, RIG_BEARER };
struct rig_page {
    char path[300];
    unsigned status;
    const char *type;
    char headers[600];
    char *body;
    size_t n;
};
struct rig_registry {
    struct http_server *server;
    struct addr addr;
    struct rig_page pages[64];
    size_t page_count;
    enum rig_auth auth;
    char authorization[200]; /* that opens */
    char realm[300];         /* "": its own /token */
    char asked[64][400];     /* "GET /path" */
    char with[64][300];      /* authorization that came along */
    char form[2000];         /* of the newest POST */
    size_t asked_count;
};

static struct loop rig_loop;
static struct rig_registry rig;

static struct rig_page *rig_add(const char *path, unsigned status, const char *type, const void *body, size_t n)
{
    struct rig_page *p = NULL;
    for (size_t i = 0; i < rig.page_count; i++)
        if (strcmp(rig.pages[i].path, path) == 0)
            p = &rig.pages[i];
    if (p == NULL) {
        assert_true(rig.page_count < ARRAY_LEN(rig.pages));
        p = &rig.pages[rig.page_count++];
    }
    mem_free(p->body);
    *p = (struct rig_page){.status = status, .type = type, .n = n};
    snprintf(p->path, sizeof p->path, "%s", path);
    p->body = mem_strndup(body, n);
    return p;
}

__attribute__((unused)) static const char *rig_blob(const char *repository, const void *bytes, size_t n)
{
    static char digests[8][DIGEST_TEXT_MAX];
    static unsigned next;
    char *digest = digests[next++ % 8], path[300];
    encode_digest(str_span(bytes, n), digest);
    snprintf(path, sizeof path, "/v2/%s/blobs/%s", repository, digest);
    rig_add(path, 200, "application/octet-stream", bytes, n);
    return digest;
}

/* Under its tag and its digest. */
__attribute__((unused)) static const char *rig_manifest(const char *repository, const char *tag, const char *type,
                                                        const char *json)
{
    static char digests[8][DIGEST_TEXT_MAX];
    static unsigned next;
    char *digest = digests[next++ % 8], path[300];
    encode_digest(str_of(json), digest);
    const char *const names[] = {tag, digest};
    for (size_t i = 0; i < 2; i++) {
        if (names[i] == NULL)
            continue;
        snprintf(path, sizeof path, "/v2/%s/manifests/%s", repository, names[i]);
        struct rig_page *p = rig_add(path, 200, type, json, strlen(json));
        snprintf(p->headers, sizeof p->headers, "docker-content-digest: %s\n", digest);
    }
    return digest;
}

static void rig_challenge(struct http_response *out)
{
    out->status = 401;
    if (rig.auth == RIG_BASIC)
        strbuf_addz(&out->headers, "www-authenticate: Basic realm=\"test\"\n");
    else if (rig.realm[0] != '\0')
        strbuf_printf(&out->headers, "www-authenticate: Bearer realm=\"%s\",service=\"s\"\n", rig.realm);
    else
        strbuf_printf(&out->headers,
                      "www-authenticate: Bearer realm=\"http://127.0.0.1:%u/token\",service=\"s p\",scope=\"repository:x:pull\"\n",
                      addr_port(&rig.addr));
}

static void rig_handle(void *arg, const struct http_request *r, struct http_response *out)
{
    (void)arg;
    const struct header *h = headers_get(&r->msg->headers, STR("authorization"));
    assert_true(rig.asked_count < ARRAY_LEN(rig.asked));
    snprintf(rig.asked[rig.asked_count], sizeof rig.asked[0], "%.*s %.*s%s%.*s", STR_ARG(r->method), STR_ARG(r->path),
             r->query.n > 0 ? "?" : "", STR_ARG(r->query));
    struct str with = h != NULL ? h->value : STR("");
    snprintf(rig.with[rig.asked_count++], sizeof rig.with[0], "%.*s", STR_ARG(with));
    if (r->body.n > 0)
        snprintf(rig.form, sizeof rig.form, "%.*s", STR_ARG(r->body));
    bool token = str_is(r->path, "/token");
    if (!token && rig.auth != RIG_OPEN && (h == NULL || !str_is(h->value, rig.authorization))) {
        rig_challenge(out);
        return;
    }
    out->status = 404;
    for (size_t i = 0; i < rig.page_count; i++) {
        const struct rig_page *p = &rig.pages[i];
        if (!str_is(r->path, p->path))
            continue;
        out->status = p->status;
        out->content_type = p->type;
        strbuf_addz(&out->headers, p->headers);
        strbuf_add(&out->body, str_span(p->body, p->n));
    }
}

/* Whether something like it was asked; how often. */
__attribute__((unused)) static unsigned rig_asked(const char *what)
{
    unsigned n = 0;
    for (size_t i = 0; i < rig.asked_count; i++)
        n += strstr(rig.asked[i], what) != NULL;
    return n;
}

static void rig_start(void)
{
    loop_init(&rig_loop);
    rig = (struct rig_registry){0};
    int fd = rig_listen(&rig.addr);
    rig.server = http_server_new(
        &rig_loop, fd,
        &(struct http_server_options){
            .max_connections = 16, .max_body = 1 << 20, .idle_ms = 60000, .handle = rig_handle});
}
static void rig_stop(void)
{
    http_server_free(rig.server);
    loop_fini(&rig_loop);
    for (size_t i = 0; i < rig.page_count; i++)
        mem_free(rig.pages[i].body);
}
__attribute__((unused)) static unsigned rig_port(void) { return addr_port(&rig.addr); }

#endif
