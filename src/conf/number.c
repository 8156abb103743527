/* SPDX-License-Identifier: Apache-2.0
 *
 * The hard part is the shortest text of a double. C has no such conversion, so precisions are tried until the text
 * reads back as the same value. At powers of two the interval below the value is half as wide as the one above, hence
 * the correctly rounded text may fail where the next one up succeeds: both are tried, as the shortest algorithms would.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "conf/number.h"

/* Significant digits and decimal exponent: value = 0.d1d2d3... * 10^point. */
struct digits {
    char d[32];
    int n, point;
    bool negative;
};

static void digits_of(const char *text, struct digits *out)
{
    *out = (struct digits){0};
    const char *p = text;
    if (*p == '-') {
        out->negative = true;
        p++;
    }
    for (; *p != '\0' && *p != 'e'; p++) {
        if (*p != '.')
            out->d[out->n++] = *p;
    }
    out->point = (int)strtol(p + 1, NULL, 10) + 1;
    while (out->n > 1 && out->d[out->n - 1] == '0')
        out->n--;
}

/* The next decimal of the same length away from zero, in place, of "d.ddde-07"; false when it would carry out. */
static bool digits_next(char *text)
{
    char *e = strchr(text, 'e');
    ASSERT(e != NULL);
    for (char *p = e - 1; p >= text && *p != '-'; p--) {
        if (*p == '.')
            continue;
        if (*p != '9') {
            (*p)++;
            return true;
        }
        *p = '0';
    }
    return false;
}

static bool reads_back(const char *text, double v, bool single)
{
    if (single)
        return (double)strtof(text, NULL) == v;
    return strtod(text, NULL) == v;
}

static void digits_shortest(double v, bool single, struct digits *out)
{
    char text[48];
    for (int precision = 0; precision <= 17; precision++) {
        snprintf(text, sizeof text, "%.*e", precision, v);
        if (reads_back(text, v, single))
            break;
        char up[48];
        memcpy(up, text, sizeof up);
        if (digits_next(up) && reads_back(up, v, single)) {
            memcpy(text, up, sizeof text);
            break;
        }
    }
    digits_of(text, out);
    out->negative = signbit(v) != 0;
}

static void digits_write_plain(struct strbuf *out, const struct digits *g)
{
    if (g->point <= 0) {
        strbuf_addz(out, "0.");
        for (int i = g->point; i < 0; i++)
            strbuf_addc(out, '0');
        strbuf_add(out, str_span(g->d, (size_t)g->n));
        return;
    }
    for (int i = 0; i < g->point; i++)
        strbuf_addc(out, i < g->n ? g->d[i] : '0');
    if (g->n > g->point) {
        strbuf_addc(out, '.');
        strbuf_add(out, str_span(g->d + g->point, (size_t)(g->n - g->point)));
    }
}

static void digits_write_exponent(struct strbuf *out, const struct digits *g, int exponent_width)
{
    int e = g->point - 1;
    strbuf_addc(out, g->d[0]);
    if (g->n > 1) {
        strbuf_addc(out, '.');
        strbuf_add(out, str_span(g->d + 1, (size_t)(g->n - 1)));
    }
    strbuf_printf(out, "e%c%0*d", e < 0 ? '-' : '+', exponent_width, abs(e));
}

void number_write_json(struct strbuf *out, double v)
{
    ASSERT(isfinite(v));
    if (signbit(v) != 0)
        strbuf_addc(out, '-');
    if (v == 0) {
        strbuf_addc(out, '0');
        return;
    }
    struct digits g;
    digits_shortest(v, false, &g);
    if (fabs(v) < 1e-6 || fabs(v) >= 1e21)
        digits_write_exponent(out, &g, 1);
    else
        digits_write_plain(out, &g);
}

void number_write_key(struct strbuf *out, double v)
{
    v = (double)(float)v;
    if (isnan(v)) {
        strbuf_addz(out, ".nan");
        return;
    }
    if (isinf(v)) {
        strbuf_addz(out, v > 0 ? ".inf" : "-.inf");
        return;
    }
    if (signbit(v) != 0)
        strbuf_addc(out, '-');
    if (v == 0) {
        strbuf_addc(out, '0');
        return;
    }
    struct digits g;
    digits_shortest(v, true, &g);
    if (g.point - 1 < -4 || g.point - 1 >= 6)
        digits_write_exponent(out, &g, 2);
    else
        digits_write_plain(out, &g);
}

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

static int64_t duration_unit(struct str *s)
{
    if (s->n >= 2 && s->p[0] == 'm' && s->p[1] == 's') {
        *s = str_from(*s, 2);
        return 1;
    }
    if (s->n == 0)
        return 0;
    char c = s->p[0];
    *s = str_from(*s, 1);
    return c == 'h' ? 3600000 : c == 'm' ? 60000 : c == 's' ? 1000 : 0;
}

bool number_parse_duration(struct str s, int64_t *ms)
{
    int64_t total = 0;
    int parts = 0;
    while (s.n != 0) {
        size_t digits = 0;
        while (digits < s.n && is_digit(s.p[digits]))
            digits++;
        uint64_t value;
        if (digits == 0 || digits > 5 || ++parts > 4 || !str_to_u64(str_upto(s, digits), 99999, &value))
            return false;
        s = str_from(s, digits);
        int64_t unit = duration_unit(&s);
        if (unit == 0)
            return false;
        total += (int64_t)value * unit;
    }
    *ms = total;
    return parts != 0;
}

void number_write_duration(struct strbuf *out, int64_t ms)
{
    static const struct {
        int64_t ms;
        const char *name;
    } units[] = {{3600000, "h"}, {60000, "m"}, {1000, "s"}, {1, "ms"}};
    if (ms == 0) {
        strbuf_addz(out, "0s");
        return;
    }
    for (size_t i = 0; i < ARRAY_LEN(units); i++) {
        if (ms >= units[i].ms)
            strbuf_printf(out, "%lld%s", (long long)(ms / units[i].ms), units[i].name);
        ms %= units[i].ms;
    }
}

static const struct {
    const char *name;
    uint64_t bytes;
} byte_units[] = {{"Gi", 1ull << 30}, {"Mi", 1ull << 20}, {"Ki", 1ull << 10},
                  {"G", 1000000000},  {"M", 1000000},     {"k", 1000}};

bool number_parse_bytes(struct str s, uint64_t *bytes)
{
    uint64_t unit = 1;
    for (size_t i = 0; i < ARRAY_LEN(byte_units); i++) {
        if (str_ends(s, str_of(byte_units[i].name))) {
            unit = byte_units[i].bytes;
            s.n -= strlen(byte_units[i].name);
            break;
        }
    }
    uint64_t value;
    if (s.n == 0 || !str_to_u64(s, UINT64_MAX / unit, &value))
        return false;
    *bytes = value * unit;
    return true;
}

void number_write_bytes(struct strbuf *out, uint64_t bytes)
{
    for (size_t i = 0; i < 3; i++) {
        if (bytes != 0 && bytes % byte_units[i].bytes == 0) {
            strbuf_printf(out, "%llu%s", (unsigned long long)(bytes / byte_units[i].bytes), byte_units[i].name);
            return;
        }
    }
    strbuf_printf(out, "%llu", (unsigned long long)bytes);
}

/* Exactly n digits at s.p[at]. */
static bool read_digits(struct str s, size_t at, size_t n, int64_t *out)
{
    uint64_t value;
    if (at + n > s.n || !str_to_u64(str_span(s.p + at, n), 9999, &value))
        return false;
    *out = (int64_t)value;
    return true;
}

/* Days since 1970-01-01 of a proleptic Gregorian date: years begin in March, so that the leap day comes last. */
static int64_t days_of(int64_t year, int64_t month, int64_t day)
{
    year -= month <= 2;
    int64_t era = year / 400, of_era = year % 400;
    int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

static int64_t days_in_month(int64_t year, int64_t month)
{
    static const int64_t days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return month == 2 && leap ? 29 : days[month - 1];
}

static bool parse_zone(struct str s, int64_t *offset)
{
    *offset = 0;
    if (s.n == 1 && (s.p[0] == 'Z' || s.p[0] == 'z'))
        return true;
    int64_t hours, minutes;
    if (s.n != 6 || (s.p[0] != '+' && s.p[0] != '-') || s.p[3] != ':' || !read_digits(s, 1, 2, &hours) ||
        !read_digits(s, 4, 2, &minutes) || hours > 23 || minutes > 59)
        return false;
    *offset = (hours * 3600 + minutes * 60) * (s.p[0] == '-' ? -1 : 1);
    return true;
}

bool number_parse_time(struct str s, int64_t *seconds)
{
    int64_t year, month, day, hour, minute, second, offset;
    if (s.n < 20 || s.p[4] != '-' || s.p[7] != '-' || (s.p[10] != 'T' && s.p[10] != 't') || s.p[13] != ':' ||
        s.p[16] != ':')
        return false;
    if (!read_digits(s, 0, 4, &year) || !read_digits(s, 5, 2, &month) || !read_digits(s, 8, 2, &day) ||
        !read_digits(s, 11, 2, &hour) || !read_digits(s, 14, 2, &minute) || !read_digits(s, 17, 2, &second))
        return false;
    if (month < 1 || month > 12 || day < 1 || day > days_in_month(year, month) || hour > 23 || minute > 59 ||
        second > 59)
        return false;
    size_t at = 19;
    if (s.p[at] == '.') {
        size_t first = ++at;
        while (at < s.n && is_digit(s.p[at]))
            at++;
        if (at == first)
            return false;
    }
    if (!parse_zone(str_from(s, at), &offset))
        return false;
    *seconds = days_of(year, month, day) * 86400 + hour * 3600 + minute * 60 + second - offset;
    return true;
}

static int base64_value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (is_digit(c))
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

bool number_parse_base64(struct str s, uint8_t *out, size_t *n)
{
    size_t at = 0, written = 0, pads = 0;
    uint32_t group = 0, have = 0;
    for (; at < s.n; at++) {
        char c = s.p[at];
        if (c == '\r' || c == '\n')
            continue;
        int value = base64_value(c);
        if (c == '=' && have >= 2 && pads < 2) {
            value = 0;
            pads++;
        } else if (value < 0 || pads != 0) {
            break;
        }
        group = group << 6 | (uint32_t)value;
        if (++have < 4)
            continue;
        for (uint32_t i = 0; i < 3 - pads; i++)
            out[written++] = (uint8_t)(group >> (16 - 8 * i));
        group = have = 0;
        if (pads != 0) {
            for (at++; at < s.n && (s.p[at] == '\r' || s.p[at] == '\n'); at++)
                ;
            break;
        }
    }
    *n = at == s.n && have == 0 ? written : at;
    return at == s.n && have == 0;
}
