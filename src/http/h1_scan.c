/* SPDX-License-Identifier: Apache-2.0
 *
 * The byte classes of HTTP/1 and the checks made of them. The tables are computed by the compiler from the grammar's
 * own words, because a table typed by hand hides its one wrong entry. Nothing here allocates or keeps state.
 */
#include "http/h1_scan.h"

#include "http/h1_parse.h"

#define ALPHA(c) (((c) >= 'a' && (c) <= 'z') || ((c) >= 'A' && (c) <= 'Z'))
#define DIGIT(c) ((c) >= '0' && (c) <= '9')
#define HEX(c)   (DIGIT(c) || ((c) >= 'a' && (c) <= 'f') || ((c) >= 'A' && (c) <= 'F'))
#define TCHAR(c)                                                                                                       \
    (ALPHA(c) || DIGIT(c) || (c) == '!' || (c) == '#' || (c) == '$' || (c) == '%' || (c) == '&' || (c) == '\'' ||      \
     (c) == '*' || (c) == '+' || (c) == '-' || (c) == '.' || (c) == '^' || (c) == '_' || (c) == '`' || (c) == '|' ||   \
     (c) == '~')
#define HOST(c)                                                                                                        \
    (ALPHA(c) || DIGIT(c) || (c) == '-' || (c) == '.' || (c) == '_' || (c) == '~' || (c) == '!' || (c) == '$' ||       \
     (c) == '&' || (c) == '\'' || (c) == '(' || (c) == ')' || (c) == '*' || (c) == '+' || (c) == ',' || (c) == ';' ||  \
     (c) == '=')
#define CLASS(c)                                                                                                       \
    (uint8_t)((TCHAR(c) ? H1_TOKEN : 0) | ((c) > 0x20 && (c) < 0x7f && (c) != '#' ? H1_TARGET : 0) |                   \
              ((c) == '\t' || ((c) >= 0x20 && (c) != 0x7f) ? H1_VALUE : 0) | (HOST(c) ? H1_HOST : 0) |                 \
              (HEX(c) ? H1_HEX : 0) | (DIGIT(c) ? H1_DIGIT : 0))
#define LOWER(c) (char)(!TCHAR(c) ? 0 : (c) >= 'A' && (c) <= 'Z' ? (c) + 32 : (c))

#define ROW4(f, c)  f((c) + 0), f((c) + 1), f((c) + 2), f((c) + 3)
#define ROW16(f, c) ROW4(f, (c) + 0), ROW4(f, (c) + 4), ROW4(f, (c) + 8), ROW4(f, (c) + 12)
#define ROW64(f, c) ROW16(f, (c) + 0), ROW16(f, (c) + 16), ROW16(f, (c) + 32), ROW16(f, (c) + 48)

const uint8_t h1_class[256] = {ROW64(CLASS, 0), ROW64(CLASS, 64), ROW64(CLASS, 128), ROW64(CLASS, 192)};
const char h1_lower[256] = {ROW64(LOWER, 0), ROW64(LOWER, 64), ROW64(LOWER, 128), ROW64(LOWER, 192)};

/* Eight bytes at a time: a byte below 0x20 borrows in the first subtraction, 0x7f becomes zero and borrows in the
 * second. A borrow may run into higher bytes, never into lower ones, so a hit is looked at once more byte by byte. */
const char *h1_find_control(const char *p, const char *end)
{
    const uint64_t ones = UINT64_C(0x0101010101010101), high = ones << 7;

    for (; end - p >= 8; p += 8) {
        uint64_t x, del;
        memcpy(&x, p, 8);
        del = x ^ (ones * 0x7f);
        if ((((x - ones * 0x20) & ~x) | ((del - ones) & ~del)) & high)
            break;
    }
    while (p < end && ((uint8_t)*p >= 0x20 && *p != 0x7f))
        p++;
    return p;
}

bool h1_is_token(struct str s) { return s.n > 0 && h1_span(s, H1_TOKEN) == s.n; }

bool h1_is_field_value(struct str s)
{
    if (s.n == 0)
        return true;
    for (const char *p = s.p, *end = s.p + s.n; (p = h1_find_control(p, end)) < end; p++)
        if (*p != '\t')
            return false;
    return true;
}

bool h1_is_path(struct str s)
{
    if (s.n == 0 || (s.p[0] != '/' && !str_eq(s, STR("*"))))
        return false;
    return h1_span(s, H1_TARGET) == s.n;
}

/* "[" ... "]": the address itself is the resolver's to judge; here only what bytes it may have. */
static size_t span_ip_literal(struct str s)
{
    size_t n = 1;

    while (n < s.n && (h1_is(s.p[n], H1_HEX) || s.p[n] == ':' || s.p[n] == '.'))
        n++;
    return n > 2 && n < s.n && s.p[n] == ']' ? n + 1 : 0;
}

static size_t span_reg_name(struct str s)
{
    size_t n = 0;

    while (n < s.n) {
        if (h1_is(s.p[n], H1_HOST))
            n++;
        else if (s.p[n] == '%' && s.n - n >= 3 && h1_is(s.p[n + 1], H1_HEX) && h1_is(s.p[n + 2], H1_HEX))
            n += 3;
        else
            break;
    }
    return n;
}

bool h1_is_authority(struct str s)
{
    uint64_t port;
    size_t n = s.n > 0 && s.p[0] == '[' ? span_ip_literal(s) : span_reg_name(s);

    if (n == 0)
        return false;
    if (n == s.n)
        return true;
    return s.p[n] == ':' && s.n - n <= 6 && str_to_u64(str_from(s, n + 1), UINT16_MAX, &port);
}

bool h1_is_upgrade_protocol(struct str s)
{
    size_t n = h1_span(s, H1_TOKEN);
    struct str name = str_upto(s, n);

    if (n == 0 || (n < s.n && (s.p[n] != '/' || !h1_is_token(str_from(s, n + 1)))))
        return false;
    return !str_ieq(name, STR("h2c")) && !str_ieq(name, STR("h2")) && !str_ieq(name, STR("http"));
}
