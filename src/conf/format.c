/* SPDX-License-Identifier: Apache-2.0
 *
 * Name checks by hand: they run for every field of every object at each reload, where compiling patterns would cost
 * more than all the rest. Pattern and function must say the same; the texts are the ones users know from the API
 * server.
 */
#include <arpa/inet.h>

#include "conf/format.h"
#include "conf/number.h"

#define LABEL     "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
#define SUBDOMAIN LABEL "(\\." LABEL ")*"

static bool is_lower(char c) { return c >= 'a' && c <= 'z'; }
static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_alpha(char c) { return is_lower((char)(c | 0x20)); }
static bool is_alnum(char c) { return is_alpha(c) || is_digit(c); }
static bool is_one_of(char c, const char *set) { return c != '\0' && strchr(set, c) != NULL; }

static bool ok_label(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        bool edge = i == 0 || i == s.n - 1;
        if (!is_lower(s.p[i]) && !is_digit(s.p[i]) && (edge || s.p[i] != '-'))
            return false;
    }
    return s.n != 0;
}

static bool ok_service_name(struct str s) { return ok_label(s) && is_lower(s.p[0]); }

static bool ok_subdomain(struct str s)
{
    while (s.p != NULL) {
        if (!ok_label(str_split(&s, '.')))
            return false;
        if (s.p != NULL && s.n == 0)
            return false;
    }
    return true;
}

static bool ok_nonempty_subdomain(struct str s) { return s.n != 0 && ok_subdomain(s); }

static bool ok_label_part(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        bool edge = i == 0 || i == s.n - 1;
        if (!is_alnum(s.p[i]) && (edge || !is_one_of(s.p[i], "-_.")))
            return false;
    }
    return true;
}

static bool ok_label_value(struct str s) { return s.n <= 63 && ok_label_part(s); }

static bool ok_qualified_name(struct str s)
{
    ptrdiff_t slash = str_find(s, '/');
    if (slash >= 0) {
        if (slash > 253 || !ok_nonempty_subdomain(str_upto(s, (size_t)slash)))
            return false;
        s = str_from(s, (size_t)slash + 1);
    }
    return s.n != 0 && s.n <= 63 && ok_label_part(s);
}

static bool ok_config_key(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (!is_alnum(s.p[i]) && !is_one_of(s.p[i], "-_."))
            return false;
    }
    return s.n != 0 && !str_is(s, ".") && !str_starts(s, STR(".."));
}

static bool ok_sha256(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (!is_digit(s.p[i]) && (s.p[i] < 'a' || s.p[i] > 'f'))
            return false;
    }
    return s.n == 0 || s.n == 64;
}

static bool ok_controller_name(struct str s)
{
    ptrdiff_t slash = str_find(s, '/');
    if (slash <= 0 || (size_t)slash + 1 == s.n || !ok_subdomain(str_upto(s, (size_t)slash)))
        return false;
    for (size_t i = (size_t)slash + 1; i < s.n; i++) {
        if (!is_alnum(s.p[i]) && !is_one_of(s.p[i], "/-._~%!$&'()*+,;=:"))
            return false;
    }
    return true;
}

static bool ok_group(struct str s) { return s.n == 0 || ok_subdomain(s); }

static bool ok_kind(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        bool fine = i == 0 ? is_alpha(s.p[i]) : is_alnum(s.p[i]) || (s.p[i] == '-' && i != s.n - 1);
        if (!fine)
            return false;
    }
    return s.n != 0;
}

static bool ok_hostname(struct str s)
{
    if (str_starts(s, STR("*.")))
        s = str_from(s, 2);
    return ok_nonempty_subdomain(s);
}

static bool ok_header_name(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (!is_alnum(s.p[i]) && !is_one_of(s.p[i], "!#$%&'*+-.^_`|~"))
            return false;
    }
    return s.n != 0;
}

static bool ok_duration(struct str s)
{
    int64_t ms;
    return number_parse_duration(s, &ms);
}

bool format_is_path(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool hex = c == '%' && i + 2 < s.n && (is_digit(s.p[i + 1]) || is_one_of(s.p[i + 1], "abcdefABCDEF")) &&
                   (is_digit(s.p[i + 2]) || is_one_of(s.p[i + 2], "abcdefABCDEF"));
        if (!hex && !is_alnum(c) && !is_one_of(c, "/-._~!$&'()*+,;=:@"))
            return false;
    }
    return s.n != 0;
}

static bool is_address(struct str s, int family)
{
    char text[INET6_ADDRSTRLEN + 1];
    unsigned char address[16];
    if (s.n >= sizeof text || s.n == 0 || memchr(s.p, '\0', s.n) != NULL)
        return false;
    memcpy(text, s.p, s.n);
    text[s.n] = '\0';
    return inet_pton(family, text, address) == 1;
}

bool format_is_ipv4(struct str s) { return is_address(s, AF_INET); }
bool format_is_ip(struct str s) { return is_address(s, AF_INET) || is_address(s, AF_INET6); }

const struct format format_label_name = {
    "^" LABEL "$", ok_label,
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    "an "
    "alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '" LABEL "')",
    63};
const struct format format_service_name = {
    "^[a-z]([-a-z0-9]*[a-z0-9])?$", ok_service_name,
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and "
    "end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is "
    "'[a-z]([-a-z0-9]*[a-z0-9])?')",
    63};
const struct format format_subdomain = {
    "^" SUBDOMAIN "$", ok_nonempty_subdomain,
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    "end "
    "with an alphanumeric character (e.g. 'example.com', regex used for validation is '" SUBDOMAIN "')",
    253};
const struct format format_qualified_name = {
    "^(?=[^/]{1,253}/|[^/]*$)(" SUBDOMAIN "/)?(?=.{1,63}$)([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$", ok_qualified_name,
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. "
    "'example.com/MyName')",
    0};
const struct format format_label_value = {
    "^(?=.{0,63}$)(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$", ok_label_value,
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end "
    "with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?') and be no longer than 63 characters",
    0};
const struct format format_config_key = {
    "^(?!\\.$|\\.\\.)[-._a-zA-Z0-9]+$", ok_config_key,
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or "
    "'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
    253};
const struct format format_sha256 = {"(^$|^[a-f0-9]{64}$)", ok_sha256, NULL, 0};
const struct format format_controller_name = {"^" SUBDOMAIN "\\/[A-Za-z0-9\\/\\-._~%!$&'()*+,;=:]+$",
                                              ok_controller_name, NULL, 253};
const struct format format_group = {"^$|^" SUBDOMAIN "$", ok_group, NULL, 253};
const struct format format_kind = {"^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$", ok_kind, NULL, 63};
const struct format format_gateway_name = {"^" SUBDOMAIN "$", ok_nonempty_subdomain, NULL, 253};
const struct format format_namespace_ref = {"^" LABEL "$", ok_label, NULL, 63};
const struct format format_hostname = {"^(\\*\\.)?" SUBDOMAIN "$", ok_hostname, NULL, 253};
const struct format format_precise_hostname = {"^" SUBDOMAIN "$", ok_nonempty_subdomain, NULL, 253};
const struct format format_header_name = {"^[A-Za-z0-9!#$%&'*+\\-.^_\\x60|~]+$", ok_header_name, NULL, 256};
const struct format format_duration = {"^([0-9]{1,5}(h|m|s|ms)){1,4}$", ok_duration, NULL, 0};
