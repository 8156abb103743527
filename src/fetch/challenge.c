/* SPDX-License-Identifier: Apache-2.0
 *
 * See challenge.h. A comma separates challenges as well as parameters: a word that is followed by '=' is a parameter of
 * the scheme before it, any other begins a scheme.
 */
#include "fetch/challenge.h"

static bool is_token_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("!#$%&'*+-.^_`|~/", c) != NULL); /* '/': token68 and careless servers */
}

static void skip(struct str *s, const char *what)
{
    while (s->n > 0 && s->p[0] != '\0' && strchr(what, s->p[0]) != NULL)
        *s = str_from(*s, 1);
}

static struct str take_token(struct str *s)
{
    size_t n = 0;
    while (n < s->n && is_token_char(s->p[n]))
        n++;
    struct str token = str_upto(*s, n);
    *s = str_from(*s, n);
    return token;
}

/* A token or a quoted string, unquoted; NULL when it is neither. */
static char *take_value(struct str *s)
{
    if (s->n == 0 || s->p[0] != '"') {
        struct str token = take_token(s);
        return token.n > 0 ? str_dup(token) : NULL;
    }
    struct strbuf b = {0};
    for (size_t i = 1; i < s->n; i++) {
        char c = s->p[i];
        if (c == '"') {
            *s = str_from(*s, i + 1);
            return strbuf_take(&b);
        }
        if (c == '\\' && i + 1 < s->n)
            c = s->p[++i];
        if ((unsigned char)c < 0x20 || c == 0x7f)
            break;
        strbuf_addc(&b, c);
    }
    strbuf_free(&b);
    return NULL;
}

static void keep(char **place, char *value /* taken */)
{
    if (*place == NULL)
        *place = value;
    else
        mem_free(value);
}

static void keep_parameter(struct challenge *c, struct str name, char *value /* taken */)
{
    if (str_ieq(name, STR("realm")))
        keep(&c->realm, value);
    else if (str_ieq(name, STR("service")))
        keep(&c->service, value);
    else if (str_ieq(name, STR("scope")))
        keep(&c->scope, value);
    else
        mem_free(value);
}

void challenge_read(struct challenge *c, struct str header)
{
    bool in_bearer = false, seen = c->bearer;
    if (header.n > CHALLENGE_MAX)
        return;
    for (struct str s = header;;) {
        skip(&s, " \t,");
        struct str word = take_token(&s);
        if (word.n == 0)
            return; /* the end, or nothing we understand */
        skip(&s, " \t");
        if (s.n > 0 && s.p[0] == '=') {
            skip(&s, "="); /* token68 may end in several */
            skip(&s, " \t");
            if (s.n == 0 || s.p[0] == ',')
                continue; /* it was token68 */
            char *value = take_value(&s);
            if (value == NULL)
                return;
            if (in_bearer)
                keep_parameter(c, word, value);
            else
                mem_free(value);
            continue;
        }
        in_bearer = str_ieq(word, STR("bearer")) && !seen;
        seen |= in_bearer;
        c->bearer |= in_bearer;
        c->basic |= str_ieq(word, STR("basic"));
    }
}

void challenge_free(struct challenge *c)
{
    mem_free(c->realm);
    mem_free(c->service);
    mem_free(c->scope);
    *c = (struct challenge){0};
}
