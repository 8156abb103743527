/* SPDX-License-Identifier: Apache-2.0
 *
 * Socket addresses as text and back: IP literals only, names are for resolve.h. IPv4 that arrives on an IPv6 socket
 * ("::ffff:1.2.3.4") is made plain IPv4 where addresses enter (conn, listener), so that it compares and prints as one.
 */
#include "io/conn.h"

#include <arpa/inet.h>
#include <stdio.h>

bool addr_from_ip(struct str ip, uint16_t port, struct addr *out)
{
    char z[INET6_ADDRSTRLEN];
    if (ip.n == 0 || ip.n >= sizeof(z) || memchr(ip.p, '\0', ip.n) != NULL)
        return false;
    memcpy(z, ip.p, ip.n);
    z[ip.n] = '\0';
    memset(out, 0, sizeof(*out));
    if (inet_pton(AF_INET, z, &out->u.in.sin_addr) == 1) {
        out->u.in.sin_family = AF_INET;
        out->u.in.sin_port = htons(port);
        return true;
    }
    if (inet_pton(AF_INET6, z, &out->u.in6.sin6_addr) == 1) {
        out->u.in6.sin6_family = AF_INET6;
        out->u.in6.sin6_port = htons(port);
        return true;
    }
    return false;
}

bool addr_parse(struct str text, struct addr *out)
{
    ptrdiff_t colon = -1;
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] == ':')
            colon = (ptrdiff_t)i;
    }
    uint64_t port;
    if (colon < 0 || text.n - (size_t)colon > 6 || !str_to_u64(str_from(text, (size_t)colon + 1), UINT16_MAX, &port))
        return false;
    struct str ip = str_upto(text, (size_t)colon);
    if (ip.n == 0)
        return addr_from_ip(STR("::"), (uint16_t)port, out);
    bool bracketed = ip.n > 2 && ip.p[0] == '[' && ip.p[ip.n - 1] == ']';
    if (bracketed)
        ip = (struct str){ip.p + 1, ip.n - 2};
    return addr_from_ip(ip, (uint16_t)port, out) && (out->u.sa.sa_family == AF_INET6) == bracketed;
}

socklen_t addr_len(const struct addr *a)
{
    return a->u.sa.sa_family == AF_INET6 ? sizeof(a->u.in6) : a->u.sa.sa_family == AF_INET ? sizeof(a->u.in) : 0;
}

uint16_t addr_port(const struct addr *a)
{
    return a->u.sa.sa_family == AF_INET6  ? ntohs(a->u.in6.sin6_port)
           : a->u.sa.sa_family == AF_INET ? ntohs(a->u.in.sin_port)
                                          : 0;
}

bool addr_is_loopback(const struct addr *a)
{
    if (a->u.sa.sa_family == AF_INET)
        return ntohl(a->u.in.sin_addr.s_addr) >> 24 == 127;
    if (a->u.sa.sa_family != AF_INET6)
        return false;
    const struct in6_addr *ip = &a->u.in6.sin6_addr;
    return IN6_IS_ADDR_LOOPBACK(ip) || (IN6_IS_ADDR_V4MAPPED(ip) && ip->s6_addr[12] == 127);
}

bool addr_is_any(const struct addr *a)
{
    if (a->u.sa.sa_family == AF_INET)
        return a->u.in.sin_addr.s_addr == htonl(INADDR_ANY);
    return a->u.sa.sa_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&a->u.in6.sin6_addr);
}

bool addr_eq(const struct addr *a, const struct addr *b)
{
    if (a->u.sa.sa_family != b->u.sa.sa_family || addr_port(a) != addr_port(b))
        return false;
    if (a->u.sa.sa_family == AF_INET)
        return a->u.in.sin_addr.s_addr == b->u.in.sin_addr.s_addr;
    if (a->u.sa.sa_family == AF_INET6)
        return memcmp(&a->u.in6.sin6_addr, &b->u.in6.sin6_addr, sizeof(a->u.in6.sin6_addr)) == 0 &&
               a->u.in6.sin6_scope_id == b->u.in6.sin6_scope_id;
    return true;
}

void addr_unmap(struct addr *a)
{
    if (a->u.sa.sa_family != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(&a->u.in6.sin6_addr))
        return;
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = a->u.in6.sin6_port};
    memcpy(&in.sin_addr, &a->u.in6.sin6_addr.s6_addr[12], sizeof(in.sin_addr));
    memset(a, 0, sizeof(*a));
    a->u.in = in;
}

size_t addr_format(const struct addr *a, bool with_port, char out[ADDR_TEXT_MAX])
{
    char ip[INET6_ADDRSTRLEN] = "";
    int n;
    if (a->u.sa.sa_family == AF_INET)
        (void)inet_ntop(AF_INET, &a->u.in.sin_addr, ip, sizeof(ip));
    else if (a->u.sa.sa_family == AF_INET6)
        (void)inet_ntop(AF_INET6, &a->u.in6.sin6_addr, ip, sizeof(ip));
    else
        return (size_t)snprintf(out, ADDR_TEXT_MAX, "local");
    if (!with_port)
        n = snprintf(out, ADDR_TEXT_MAX, "%s", ip);
    else if (a->u.sa.sa_family == AF_INET)
        n = snprintf(out, ADDR_TEXT_MAX, "%s:%u", ip, addr_port(a));
    else
        n = snprintf(out, ADDR_TEXT_MAX, "[%s]:%u", ip, addr_port(a));
    return (size_t)n;
}
