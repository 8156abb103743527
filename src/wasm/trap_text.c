/* SPDX-License-Identifier: Apache-2.0
 *
 * Reads Wasmtime's error text. A backtrace looks like this, DWARF permitting:
 *
 *     error while executing at wasm backtrace:
 *         0:     0x2e - module!function
 *         1:   0x1f3c - demangled::name
 *                         at /path/src/lib.rs:12:5
 *                     - name of the function it was inlined into
 *                         at /path/src/lib.rs:40:9
 *
 *     Caused by:
 *         wasm trap: call stack exhausted
 *
 * The hard part is that names may hold anything, line breaks included: a line that does not look like one of these is
 * left out. A guest can lie about its own frames; it can never add a line to a log.
 */
#include "wasm/trap_text.h"

static const struct str heading = STR_INIT("error while executing at wasm backtrace:");
static const struct str causes = STR_INIT("Caused by:");

enum { LINE_MAX_BYTES = 2000 };

void trap_text_escaped(struct strbuf *out, struct str s, size_t max)
{
    strbuf_add_escaped(out, s.n > max ? str_upto(s, max) : s);
    if (s.n > max)
        strbuf_addz(out, "...");
}

static bool next_line(struct str *rest, struct str *line)
{
    if (rest->p == NULL)
        return false;
    *line = str_trim(str_split(rest, '\n'));
    return true;
}

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

/* "12: rest" gives rest. */
static bool cut_number(struct str *line)
{
    size_t i = 0;
    while (i < line->n && is_digit(line->p[i]))
        i++;
    if (i == 0 || i + 1 >= line->n || line->p[i] != ':' || line->p[i + 1] != ' ')
        return false;
    *line = str_trim(str_from(*line, i + 1));
    return true;
}

/* ---- frames ---- */

/* "0x2e - name" gives name, for the offset may be missing. */
static struct str cut_offset(struct str line)
{
    ptrdiff_t dash = str_find_str(line, STR(" - "));
    return str_starts(line, STR("0x")) && dash > 0 ? str_from(line, (size_t)dash + 3) : line;
}

/* Rust has a type "!": what stands before it is no module's name. */
static bool is_module(struct str s)
{
    return str_is(s, "<unknown>") || (str_find(s, '<') < 0 && str_find(s, ':') < 0 && str_find(s, ' ') < 0);
}

/* Without "module!" before and "::h0123456789abcdef" behind. */
static struct str short_name(struct str name)
{
    ptrdiff_t bang = str_find(name, '!');
    if (bang > 0 && (size_t)bang + 1 < name.n && is_module(str_upto(name, (size_t)bang)))
        name = str_from(name, (size_t)bang + 1);
    enum { HASH = 3 + 16 };
    if (name.n > HASH && memcmp(name.p + name.n - HASH, "::h", 3) == 0)
        name.n -= HASH;
    return name;
}

/* The last two parts of "/a/b/src/lib.rs:12:5" without the column. */
static struct str short_place(struct str place)
{
    size_t end = place.n, digits = 0, colons = 0;
    for (size_t i = place.n; i > 0 && colons < 2 && (is_digit(place.p[i - 1]) || place.p[i - 1] == ':'); i--)
        if (place.p[i - 1] == ':' && colons++ == 0)
            digits = i - 1;
    if (colons == 2)
        end = digits;
    size_t start = end;
    for (int slashes = 0; start > 0 && (place.p[start - 1] != '/' || ++slashes < 2);)
        start--;
    return str_span(place.p + start, end - start);
}

static bool cut_prefix(struct str *line, struct str prefix)
{
    if (!str_starts(*line, prefix))
        return false;
    *line = str_from(*line, prefix.n);
    return true;
}

void trap_text_frames(struct strbuf *out, struct str message)
{
    ptrdiff_t at = str_find_str(message, heading);
    if (at < 0)
        return;
    struct str rest = str_from(message, (size_t)at + heading.n), line;
    size_t frames = 0, start = out->n;
    while (next_line(&rest, &line) && !str_eq(line, causes) && out->n - start < LINE_MAX_BYTES) {
        if (cut_prefix(&line, STR("at "))) {
            if (frames == 0)
                continue;
            strbuf_addz(out, " (");
            trap_text_escaped(out, short_place(line), TRAP_TEXT_NAME);
            strbuf_addc(out, ')');
        } else if (cut_number(&line) || cut_prefix(&line, STR("- "))) {
            if (frames++ == TRAP_TEXT_FRAMES)
                break;
            if (frames > 1)
                strbuf_addz(out, " < ");
            trap_text_escaped(out, short_name(cut_offset(line)), TRAP_TEXT_NAME);
        }
    }
}

/* ---- causes ---- */

static struct str without_backtrace(struct str message)
{
    if (!str_starts(message, heading))
        return message;
    for (ptrdiff_t at; (at = str_find_str(message, causes)) >= 0;)
        message = str_from(message, (size_t)at + causes.n);
    return message;
}

void trap_text_line(struct strbuf *out, struct str message)
{
    struct str rest = without_backtrace(message), line;
    size_t start = out->n;
    while (next_line(&rest, &line) && out->n - start < LINE_MAX_BYTES) {
        if (line.n == 0 || str_eq(line, causes))
            continue;
        (void)cut_number(&line);
        if (out->n != start)
            strbuf_addz(out, ": ");
        trap_text_escaped(out, line, LINE_MAX_BYTES);
    }
}
