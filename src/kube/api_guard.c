/* SPDX-License-Identifier: Apache-2.0
 *
 * Who may speak to the API. There is no TLS and no password: kubectl sends no credentials over plain http. What stands
 * instead: a loopback address, a Host that names it (DNS rebinding), no Origin and no cross-site request (browsers),
 * and a peer that is a process of our own user or of root, as the kernel's table of sockets says. Applied objects are
 * code and Secrets are readable, so when in doubt the answer is no.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "kube/api_priv.h"

enum { TABLE_MAX = 64 * 1024 * 1024, MARK_UNKNOWN = 0, MARK_ALLOWED = 1, MARK_REFUSED = 2 };

/* ---- the kernel's table ---- */

/* "0100007F:1F90", or 32 digits for IPv6: each four bytes as a number of this machine's order. */
static bool read_end(struct str text, struct addr *out)
{
    uint8_t bytes[16];
    ptrdiff_t colon = str_find(text, ':');
    char port_text[8] = "";
    if ((colon != 8 && colon != 32) || text.n != (size_t)colon + 5)
        return false;
    for (ptrdiff_t i = 0; i < colon; i += 8) {
        char word[9] = "", *end;
        memcpy(word, text.p + i, 8);
        uint32_t v = (uint32_t)strtoul(word, &end, 16);
        if (*end != '\0')
            return false;
        memcpy(bytes + i / 2, &v, 4);
    }
    memcpy(port_text, text.p + colon + 1, 4);
    char *end;
    uint16_t port = (uint16_t)strtoul(port_text, &end, 16);
    if (*end != '\0')
        return false;
    *out = (struct addr){0};
    if (colon == 8) {
        out->u.in.sin_family = AF_INET;
        out->u.in.sin_port = htons(port);
        memcpy(&out->u.in.sin_addr, bytes, 4);
    } else {
        out->u.in6.sin6_family = AF_INET6;
        out->u.in6.sin6_port = htons(port);
        memcpy(&out->u.in6.sin6_addr, bytes, 16);
        addr_unmap(out);
    }
    return true;
}

static struct str next_word(struct str *line)
{
    while (line->n > 0 && line->p[0] == ' ')
        *line = str_from(*line, 1);
    size_t n = 0;
    while (n < line->n && line->p[n] != ' ')
        n++;
    struct str word = str_upto(*line, n);
    *line = str_from(*line, n);
    return word;
}

/* sl local remote st queues timer retransmits uid timeout inode ... */
static bool read_line(struct str line, const struct addr *peer, const struct addr *local, unsigned *uid)
{
    struct str words[10];
    struct addr own, other;
    uint64_t user, inode;
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        words[i] = next_word(&line);
    if (!read_end(words[1], &own) || !read_end(words[2], &other) || !addr_eq(&own, peer) || !addr_eq(&other, local))
        return false;
    if (!str_to_u64(words[7], UINT32_MAX, &user) || !str_to_u64(words[9], UINT64_MAX, &inode) || inode == 0)
        return false;
    *uid = (unsigned)user;
    return true;
}

bool peer_find(struct str table, const struct addr *peer, const struct addr *local, unsigned *uid)
{
    struct str rest = table;
    while (rest.p != NULL && rest.n > 0)
        if (read_line(str_split(&rest, '\n'), peer, local, uid))
            return true;
    return false;
}

/* /proc files say that they are empty. */
static char *read_table(const char *path, size_t *n)
{
    FILE *f = fopen(path, "re");
    struct strbuf b = {0};
    char piece[16 * 1024];
    size_t got;
    while (f != NULL && b.n < TABLE_MAX && (got = fread(piece, 1, sizeof piece, f)) > 0)
        strbuf_add(&b, str_span(piece, got));
    if (f != NULL)
        (void)fclose(f);
    *n = b.n;
    return strbuf_take(&b);
}

/* Once for each connection. */
static bool peer_is_ours(const struct http_request *r)
{
    static const char *const tables[] = {"/proc/net/tcp", "/proc/net/tcp6"};
    unsigned uid = 0;
    bool found = false;
    for (size_t i = 0; i < ARRAY_LEN(tables) && !found; i++) {
        size_t n;
        char *table = read_table(tables[i], &n);
        found = peer_find(str_span(table, n), r->peer, r->local, &uid);
        mem_free(table);
    }
    if (found && (uid == 0 || uid == (unsigned)geteuid()))
        return true;
    log_line(LOG_WARN, "kube-api: a connection of %s was refused: only this user and root may use it",
             found ? "another user" : "an unknown process");
    return false;
}

/* ---- headers ---- */

static bool host_is_ours(const struct kube_api *api, struct str authority)
{
    struct str host = authority;
    ptrdiff_t end = authority.n > 0 && authority.p[0] == '[' ? str_find(authority, ']') + 1 : str_find(authority, ':');
    if (end > 0)
        host = str_upto(authority, (size_t)end);
    char own[ADDR_TEXT_MAX];
    addr_format(&api->addr, false, own);
    struct addr literal;
    return str_ieq(host, STR("localhost")) || str_is(host, "[::1]") || str_is(host, own) ||
           (addr_from_ip(host, 0, &literal) && addr_is_loopback(&literal));
}

static bool is_cross_site(const struct http_request *r)
{
    const struct header *site = headers_get(&r->msg->headers, STR("sec-fetch-site"));
    return headers_get(&r->msg->headers, STR("origin")) != NULL || (site != NULL && !str_is(site->value, "none"));
}

bool api_guard(struct kube_api *api, const struct http_request *r, struct http_response *out)
{
    if (!host_is_ours(api, r->authority)) {
        api_fail(out, 403, "Forbidden", NULL, "the Host header names no address of this server");
        return false;
    }
    if (is_cross_site(r)) {
        api_fail(out, 403, "Forbidden", NULL, "requests of web pages are refused");
        return false;
    }
    if (!api->o.any_peer && *r->mark == MARK_UNKNOWN)
        *r->mark = peer_is_ours(r) ? MARK_ALLOWED : MARK_REFUSED;
    if (!api->o.any_peer && *r->mark != MARK_ALLOWED) {
        api_fail(out, 403, "Forbidden", NULL,
                 "only processes of the user that runs this gateway, and root's, may use it");
        return false;
    }
    return true;
}
