/* SPDX-License-Identifier: Apache-2.0
 *
 * pluginConfig for filters in C and C++ that have no JSON library: finds members of an object and elements of an array
 * in the text itself. The text is JSON (the gateway made it), so nothing is checked here but bounds. Strings with
 * escapes are refused, not decoded.
 */
#ifndef EXAMPLES_CONFIG_H
#define EXAMPLES_CONFIG_H

#include "proxy_wasm.h"

static inline uint32_t config_skip(struct pw_str t, uint32_t at)
{
    while (at < t.n && (t.p[at] == ' ' || t.p[at] == '\n' || t.p[at] == '\r' || t.p[at] == '\t' || t.p[at] == ',' ||
                        t.p[at] == ':')) {
        at++;
    }
    return at;
}

/* Where the value that starts at `at` ends. */
static inline uint32_t config_end(struct pw_str t, uint32_t at)
{
    uint32_t depth = 0;
    bool quoted = false;

    for (; at < t.n; at++) {
        char c = t.p[at];
        if (quoted) {
            at += c == '\\';
            quoted = c != '"';
            if (!quoted && depth == 0) {
                return at + 1;
            }
        } else if (c == '"') {
            quoted = true;
        } else if (c == '{' || c == '[') {
            depth++;
        } else if (c == '}' || c == ']') {
            if (depth <= 1) {
                return depth == 1 ? at + 1 : at;
            }
            depth--;
        } else if (depth == 0 && (c == ',' || c == ' ' || c == '\n' || c == '\r' || c == '\t' || c == ':')) {
            return at;
        }
    }
    return t.n;
}

/* Cuts the next value off *rest (start with an array's or object's text without its brackets): p NULL at the end. */
static inline struct pw_str config_next(struct pw_str *rest)
{
    struct pw_str value = {NULL, 0};
    uint32_t start = config_skip(*rest, 0), end = config_end(*rest, start);

    if (end > start) {
        value.p = rest->p + start;
        value.n = end - start;
    }
    rest->p += end;
    rest->n -= end;
    return value;
}

/* What is between the brackets; empty for what has none. */
static inline struct pw_str config_inside(struct pw_str t)
{
    uint32_t at = config_skip(t, 0);
    struct pw_str inside = {t.p, 0};

    if (at < t.n && (t.p[at] == '{' || t.p[at] == '[')) {
        inside.p = t.p + at + 1;
        inside.n = config_end(t, at) - at - 2;
    }
    return inside;
}

/* The text of the object's member; p NULL when it has none. */
static inline struct pw_str config_member(struct pw_str object, const char *name)
{
    struct pw_str rest = config_inside(object), want = pw_z(name);

    for (;;) {
        struct pw_str key = config_next(&rest), value = config_next(&rest);
        if (key.p == NULL || value.p == NULL) {
            return (struct pw_str){NULL, 0};
        }
        if (key.n == want.n + 2 && memcmp(key.p + 1, want.p, want.n) == 0) {
            return value;
        }
    }
}

/* Without its quotes. false: not a string, or one with escapes. */
static inline bool config_string(struct pw_str value, struct pw_str *out)
{
    struct pw_str escape = {(char *)"\\", 1};

    if (value.n < 2 || value.p[0] != '"' || pw_find(value, escape) >= 0) {
        return false;
    }
    out->p = value.p + 1;
    out->n = value.n - 2;
    return true;
}

#endif
