/* SPDX-License-Identifier: Apache-2.0
 *
 * Regular expressions run against bytes that a client chose, so each run is bounded (match limit, depth, stack of the
 * compiled code); what hits a bound is an error, never "no match". They match as RE2's do in Envoy and Istio: the whole
 * text or nothing, byte by byte.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "proxy/route_match.h"

#include <pcre2.h>

#include "conf/regex.h"

/* Compiled code gets through about 100 of these in a microsecond, so that a crafted text costs a millisecond at most;
 * an innocent expression on a path of 16 KiB stays far below. */
enum { REGEX_MATCH_LIMIT = 100000, REGEX_DEPTH_LIMIT = 20000, REGEX_HEAP_KIB = 4096 };
enum { JIT_STACK_FIRST = 32 * 1024, JIT_STACK_MOST = 512 * 1024 };

struct condition {
    struct str name;
    enum header_id id; /* of a header */
    struct str value;  /* exact */
    bool is_regex;
    pcre2_code *regex; /* NULL: it did not compile */
};
struct matcher {
    const struct route_match *match;
    struct str method; /* empty: any */
    pcre2_code *path;  /* NULL when the path is no regular expression or a bad one */
    struct condition *headers, *query;
};
struct route_scratch {
    pcre2_match_data *data;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
    struct strbuf text;
};

struct route_scratch *route_scratch_new(void)
{
    struct route_scratch *s = mem_zalloc(sizeof(*s));
    s->data = pcre2_match_data_create(1, NULL);
    s->context = pcre2_match_context_create(NULL);
    ASSERT(s->data != NULL && s->context != NULL);
    (void)pcre2_set_match_limit(s->context, REGEX_MATCH_LIMIT);
    (void)pcre2_set_depth_limit(s->context, REGEX_DEPTH_LIMIT);
    (void)pcre2_set_heap_limit(s->context, REGEX_HEAP_KIB);
    /* NULL where there is no JIT */
    s->stack = pcre2_jit_stack_create(JIT_STACK_FIRST, JIT_STACK_MOST, NULL);
    if (s->stack != NULL)
        pcre2_jit_stack_assign(s->context, NULL, s->stack);
    return s;
}

void route_scratch_free(struct route_scratch *s)
{
    if (s == NULL)
        return;
    pcre2_match_data_free(s->data);
    pcre2_match_context_free(s->context);
    if (s->stack != NULL)
        pcre2_jit_stack_free(s->stack);
    strbuf_free(&s->text);
    mem_free(s);
}

/* ---- compiling ---- */

/* NULL when it does not compile (resources are checked before, so that this is a rare difference of opinion). */
static pcre2_code *regex_compile(const char *text)
{
    int error;
    PCRE2_SIZE at;
    pcre2_code *code = pcre2_compile((PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED, REGEX_OPTIONS, &error, &at, NULL);
    if (code != NULL)
        (void)pcre2_jit_compile(code, PCRE2_JIT_COMPLETE); /* without it the interpreter runs, with the same limits */
    return code;
}

static void condition_init(struct condition *c, const struct name_match *m)
{
    c->name = str_of(m->name);
    c->id = str_ieq(c->name, STR("host")) ? HDR_AUTHORITY : header_id_of(c->name);
    c->value = str_of(m->value);
    c->is_regex = m->type == MATCH_REGEX;
    if (c->is_regex)
        c->regex = regex_compile(m->value);
}

struct matcher *matcher_new(const struct route_match *match)
{
    struct matcher *m = mem_zalloc(sizeof(*m));
    m->match = match;
    m->method = str_of(match->method);
    if (match->path.type == MATCH_REGEX)
        m->path = regex_compile(match->path.value);
    m->headers = mem_zalloc(match->header_count * sizeof(*m->headers));
    for (size_t i = 0; i < match->header_count; i++)
        condition_init(&m->headers[i], &match->headers[i]);
    m->query = mem_zalloc(match->query_count * sizeof(*m->query));
    for (size_t i = 0; i < match->query_count; i++)
        condition_init(&m->query[i], &match->query[i]);
    return m;
}

void matcher_free(struct matcher *m)
{
    for (size_t i = 0; i < m->match->header_count; i++)
        pcre2_code_free(m->headers[i].regex);
    for (size_t i = 0; i < m->match->query_count; i++)
        pcre2_code_free(m->query[i].regex);
    pcre2_code_free(m->path);
    mem_free(m->headers);
    mem_free(m->query);
    mem_free(m);
}

const struct route_match *matcher_match(const struct matcher *m) { return m->match; }

/* ---- matching ---- */

static enum matcher_result regex_try(const pcre2_code *code, struct str text, struct route_scratch *scratch)
{
    if (code == NULL)
        return MATCHER_LIMIT;
    PCRE2_SPTR subject = (PCRE2_SPTR)(text.n != 0 ? text.p : "");
    int result = pcre2_match(code, subject, text.n, 0, 0, scratch->data, scratch->context);
    if (result >= 0)
        return MATCHER_YES;
    return result == PCRE2_ERROR_NOMATCH ? MATCHER_NO : MATCHER_LIMIT;
}

static enum matcher_result value_try(const struct condition *c, struct str value, struct route_scratch *scratch)
{
    if (c->is_regex)
        return regex_try(c->regex, value, scratch);
    return str_eq(c->value, value) ? MATCHER_YES : MATCHER_NO;
}

static bool is_named(const struct header *h, const struct condition *c)
{
    return c->id != HDR_OTHER ? h->id == c->id : h->id == HDR_OTHER && str_ieq(h->name, c->name);
}

/* Several fields of one name count as one, joined by commas (RFC 9110 5.2). An absent one matches nothing. */
static enum matcher_result header_try(const struct condition *c, const struct headers *request,
                                      struct route_scratch *scratch)
{
    const struct header *found = NULL;
    bool joined = false;
    for (uint32_t i = 0; i < request->count; i++) {
        const struct header *h = &request->list[i];
        if (!is_named(h, c))
            continue;
        if (found != NULL && !joined) {
            strbuf_clear(&scratch->text);
            strbuf_add(&scratch->text, found->value);
            joined = true;
        }
        if (joined) {
            strbuf_addc(&scratch->text, ',');
            strbuf_add(&scratch->text, h->value);
        }
        found = h;
    }
    if (found == NULL)
        return MATCHER_NO;
    return value_try(c, joined ? strbuf_str(&scratch->text) : found->value, scratch);
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    char low = (char)(c | 0x20);
    return low >= 'a' && low <= 'f' ? low - 'a' + 10 : -1;
}

/* Escapes become bytes; broken ones and '+' stay, as in Envoy. The result may lie in buf. */
static struct str percent_decode(struct str s, struct strbuf *buf)
{
    if (str_find(s, '%') < 0)
        return s;
    strbuf_clear(buf);
    for (size_t i = 0; i < s.n; i++) {
        int high = s.p[i] == '%' && s.n - i > 2 ? hex_value(s.p[i + 1]) : -1;
        int low = high >= 0 ? hex_value(s.p[i + 2]) : -1;
        strbuf_addc(buf, low >= 0 ? (char)(high * 16 + low) : s.p[i]);
        i += low >= 0 ? 2 : 0;
    }
    return strbuf_str(buf);
}

/* The first parameter of that name counts. */
static enum matcher_result query_try(const struct condition *c, struct str query, struct route_scratch *scratch)
{
    for (struct str rest = query; rest.p != NULL;) {
        struct str value = str_split(&rest, '&');
        struct str name = str_split(&value, '=');
        if (str_eq(percent_decode(name, &scratch->text), c->name))
            return value_try(c, percent_decode(value, &scratch->text), scratch);
    }
    return MATCHER_NO;
}

/* Cheap conditions first; a regular expression runs only when all before it held. */
enum matcher_result matcher_try(const struct matcher *m, const struct headers *request, struct str path,
                                struct str query, struct route_scratch *scratch)
{
    if (m->method.n != 0 && !str_eq(m->method, headers_value(request, HDR_METHOD)))
        return MATCHER_NO;
    enum matcher_result result = MATCHER_YES;
    for (size_t i = 0; i < m->match->header_count && result == MATCHER_YES; i++)
        result = header_try(&m->headers[i], request, scratch);
    for (size_t i = 0; i < m->match->query_count && result == MATCHER_YES; i++)
        result = query_try(&m->query[i], query, scratch);
    if (result == MATCHER_YES && m->match->path.type == MATCH_REGEX)
        result = regex_try(m->path, path, scratch);
    return result;
}
