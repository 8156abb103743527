/* SPDX-License-Identifier: Apache-2.0
 *
 * Finds payment card numbers in a stream of bytes and overwrites their digits. Chunk borders do not matter: the bytes
 * that may still become part of a number (40 at most, whatever is sent) wait in the masker. A masked byte is replaced
 * by one byte, so the stream keeps its length. No host calls here: it runs in tests as it is.
 *
 * A card number: 13 to 19 digits, the first one 2 to 6, with the check digit of ISO/IEC 7812 (Luhn), single spaces or
 * dashes between digits allowed. It starts and ends with whole groups of digits, so that a card number followed by an
 * expiry date is found, and one inside a longer row of digits, a word (hashes) or a fraction (0.4111...) is not. Where
 * several readings overlap, all of them are masked.
 */
#ifndef MASKER_H
#define MASKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void *memmove(void *dst, const void *src, size_t n); /* no libc in a guest */

enum {
    PAN_MIN = 13,
    PAN_MAX = 19,
    HELD_MAX = 2 * (PAN_MAX + 1), /* a digit too many, and a separator after each */
};

struct masker {
    char held[HELD_MAX];
    bool starts[HELD_MAX]; /* a group of digits starts here */
    bool masked[HELD_MAX];
    uint32_t n, digits; /* in held, which starts with a group or is empty */
    char last;          /* the byte before the next */
    bool fraction;      /* last is the point after a digit */
};

struct masker_rules {
    uint32_t keep; /* digits that stay at the end of a number */
    char mask;
};

static inline bool masker_is_digit(char c) { return c >= '0' && c <= '9'; }
static inline bool masker_is_separator(char c) { return c == ' ' || c == '-'; }
static inline bool masker_is_word(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

/* The first n held bytes go out. */
static inline char *masker_release(struct masker *m, const struct masker_rules *rules, uint32_t n, char *out)
{
    for (uint32_t i = 0; i < n; i++) {
        m->digits -= masker_is_digit(m->held[i]);
        *out++ = m->masked[i] ? rules->mask : m->held[i];
    }
    m->n -= n;
    memmove(m->held, m->held + n, m->n);
    memmove(m->starts, m->starts + n, m->n * sizeof m->starts[0]);
    memmove(m->masked, m->masked + n, m->n * sizeof m->masked[0]);
    return out;
}

static inline void masker_hold(struct masker *m, char c, bool start)
{
    m->held[m->n] = c;
    m->starts[m->n] = start;
    m->masked[m->n] = false;
    m->n++;
}

/* All digits from `from` on but the last ones. */
static inline bool masker_mark(struct masker *m, const struct masker_rules *rules, uint32_t from, uint32_t digits)
{
    bool any = false;

    for (uint32_t i = from; digits > rules->keep; i++) {
        if (masker_is_digit(m->held[i])) {
            m->masked[i] = any = true;
            digits--;
        }
    }
    return any;
}

/* A group of digits has ended with the last digit held: every group start that makes a card number with it is masked.
 */
static inline bool masker_check(struct masker *m, const struct masker_rules *rules)
{
    uint32_t sum = 0, digits = 0;
    bool any = false;

    if (m->digits < PAN_MIN) {
        return false;
    }
    for (uint32_t i = m->n; i-- > 0;) {
        if (!masker_is_digit(m->held[i])) {
            continue;
        }
        uint32_t digit = (uint32_t)(m->held[i] - '0'), twice = digit * 2;
        sum += digits % 2 == 0 ? digit : twice > 9 ? twice - 9 : twice;
        digits++;
        if (m->starts[i] && digits >= PAN_MIN && sum % 10 == 0 && digit >= 2 && digit <= 6) {
            any |= masker_mark(m, rules, i, digits);
        }
    }
    return any;
}

static inline char *masker_digit(struct masker *m, const struct masker_rules *rules, char c, char *out)
{
    bool start = !masker_is_digit(m->last);

    if (m->n == 0 && (!start || masker_is_word(m->last) || m->fraction)) { /* in a group that cannot be one */
        *out++ = c;
        return out;
    }
    masker_hold(m, c, start);
    if (++m->digits > PAN_MAX) { /* the first group is too far back now */
        uint32_t next = 1;
        while (next < m->n && !m->starts[next]) {
            next++;
        }
        out = masker_release(m, rules, next, out);
    }
    return out;
}

/* Masks n bytes of in; out has room for n + HELD_MAX. The number of bytes that went out; *found is set when something
 * was masked. */
static inline uint32_t masker_feed(struct masker *m, const struct masker_rules *rules, const char *in, uint32_t n,
                                   char *out, bool *found)
{
    char *at = out;

    for (uint32_t i = 0; i < n; i++) {
        char c = in[i];
        bool after_digit = masker_is_digit(m->last);
        if (masker_is_digit(c)) {
            at = masker_digit(m, rules, c, at);
        } else {
            if (after_digit && !masker_is_word(c)) {
                *found |= masker_check(m, rules);
            }
            if (m->n != 0 && after_digit && masker_is_separator(c)) {
                masker_hold(m, c, false);
            } else {
                at = m->n != 0 ? masker_release(m, rules, m->n, at) : at;
                *at++ = c;
            }
        }
        m->fraction = c == '.' && after_digit;
        m->last = c;
    }
    return (uint32_t)(at - out);
}

/* The stream has ended: what waits goes out. out has room for HELD_MAX. */
static inline uint32_t masker_end(struct masker *m, const struct masker_rules *rules, char *out, bool *found)
{
    uint32_t n = m->n;

    if (masker_is_digit(m->last)) {
        *found |= masker_check(m, rules);
    }
    masker_release(m, rules, n, out);
    m->last = 0;
    return n;
}

#endif
