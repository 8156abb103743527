/* SPDX-License-Identifier: Apache-2.0
 *
 * Label selectors (=, ==, !=, in, notin, exists, !) and field selectors (metadata.name, metadata.namespace; of Events
 * involvedObject.* and a few more). A selector that is not understood is refused: one that were passed over would make
 * `kubectl delete -l` take everything.
 */
#include "kube/api_priv.h"

enum { CLAUSES_MAX = 64 };
enum op { OP_IN, OP_NOT_IN, OP_EXISTS, OP_NOT_EXISTS };
struct clause {
    bool field;
    enum op op;
    char *key;
    char *values; /* '\n' before and after each */
};
struct api_selector {
    struct clause clauses[CLAUSES_MAX];
    size_t count;
};

static bool is_word_byte(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
           c == '.' || c == '/';
}

static void skip_spaces(struct str *s)
{
    while (s->n > 0 && (s->p[0] == ' ' || s->p[0] == '\t'))
        *s = str_from(*s, 1);
}

static struct str take_word(struct str *s)
{
    size_t n = 0;
    skip_spaces(s);
    while (n < s->n && is_word_byte(s->p[n]))
        n++;
    struct str word = str_upto(*s, n);
    *s = str_from(*s, n);
    skip_spaces(s);
    return word;
}

static bool take(struct str *s, const char *text)
{
    if (!str_starts(*s, str_of(text)))
        return false;
    *s = str_from(*s, strlen(text));
    skip_spaces(s);
    return true;
}

static struct clause *add(struct api_selector *s, bool field, struct str key)
{
    if (key.n == 0 || s->count == CLAUSES_MAX)
        return NULL;
    struct clause *c = &s->clauses[s->count++];
    *c = (struct clause){.field = field, .key = str_dup(key)};
    return c;
}

/* "(a, b)" */
static bool take_set(struct str *s, struct clause *c)
{
    struct strbuf b = {0};
    strbuf_addc(&b, '\n');
    bool ok = take(s, "(");
    do {
        strbuf_add(&b, take_word(s));
        strbuf_addc(&b, '\n');
    } while (ok && take(s, ","));
    c->values = strbuf_take(&b);
    return ok && take(s, ")");
}

static void set_value(struct clause *c, struct str value) { c->values = mem_printf("\n%.*s\n", STR_ARG(value)); }

static bool label_clause(struct api_selector *s, struct str *rest)
{
    bool not = take(rest, "!");
    struct clause *c = add(s, false, take_word(rest));
    if (c == NULL)
        return false;
    if (not || rest->n == 0 || rest->p[0] == ',') {
        c->op = not ? OP_NOT_EXISTS : OP_EXISTS;
        return true;
    }
    bool equal = take(rest, "==") || take(rest, "="), unequal = !equal && take(rest, "!=");
    if (equal || unequal) {
        c->op = equal ? OP_IN : OP_NOT_IN;
        set_value(c, take_word(rest));
        return true;
    }
    struct str word = take_word(rest);
    c->op = str_is(word, "in") ? OP_IN : OP_NOT_IN;
    return (str_is(word, "in") || str_is(word, "notin")) && take_set(rest, c);
}

static bool read_labels(struct api_selector *s, struct str text)
{
    struct str rest = text;
    skip_spaces(&rest);
    bool ok = rest.n == 0 || label_clause(s, &rest);
    while (ok && rest.n > 0)
        ok = take(&rest, ",") && label_clause(s, &rest);
    return ok;
}

static bool field_is_known(const struct api_type *t, struct str key)
{
    static const char *const of_events[] = {"involvedObject.kind",
                                            "involvedObject.namespace",
                                            "involvedObject.name",
                                            "involvedObject.uid",
                                            "involvedObject.apiVersion",
                                            "involvedObject.resourceVersion",
                                            "involvedObject.fieldPath",
                                            "reason",
                                            "type",
                                            "reportingComponent",
                                            "source"};
    if (str_is(key, "metadata.name") || str_is(key, "metadata.namespace"))
        return true;
    if (t == api_type_pod && (str_is(key, "spec.nodeName") || str_is(key, "status.phase")))
        return true;
    if (t->conf_kind == KIND_SECRET && str_is(key, "type"))
        return true;
    for (size_t i = 0; t == api_type_event && i < ARRAY_LEN(of_events); i++)
        if (str_is(key, of_events[i]))
            return true;
    return false;
}

static bool read_fields(struct api_selector *s, struct str text, const struct api_type *t)
{
    struct str rest = text;
    while (rest.p != NULL && rest.n > 0) {
        struct str item = str_trim(str_split(&rest, ','));
        ptrdiff_t at = str_find(item, '=');
        if (item.n == 0)
            continue;
        if (at <= 0)
            return false;
        bool not = item.p[at - 1] == '!';
        struct str key = str_trim(str_upto(item, (size_t)at - not )), value = str_from(item, (size_t)at + 1);
        if (!not &&value.n > 0 && value.p[0] == '=')
            value = str_from(value, 1);
        struct clause *c = field_is_known(t, key) ? add(s, true, key) : NULL;
        if (c == NULL)
            return false;
        c->op = not ? OP_NOT_IN : OP_IN;
        set_value(c, str_trim(value));
    }
    return true;
}

struct api_selector *api_selector_new(const char *labels, const char *fields, const struct api_type *t, char **error)
{
    struct api_selector *s = mem_zalloc(sizeof *s);
    *error = NULL;
    if (labels != NULL && !read_labels(s, str_of(labels)))
        *error = mem_printf("unable to parse requirement: %s", labels);
    else if (fields != NULL && !read_fields(s, str_of(fields), t))
        *error = mem_printf("field label not supported: %s", fields);
    if (*error == NULL)
        return s;
    api_selector_free(s);
    return NULL;
}

static const char *field_value(const json_t *object, const char *key)
{
    const json_t *at = object;
    struct str rest = str_of(key);
    while (rest.p != NULL) {
        char *part = str_dup(str_split(&rest, '.'));
        at = json_object_get(at, part);
        mem_free(part);
    }
    const char *z = json_string_value(at);
    return z != NULL ? z : "";
}

static bool is_listed(const char *values, const char *value)
{
    char *line = mem_printf("\n%s\n", value);
    bool found = strchr(value, '\n') == NULL && strstr(values, line) != NULL;
    mem_free(line);
    return found;
}

bool api_selector_matches(const struct api_selector *s, const json_t *object)
{
    const json_t *labels = json_at(object, "metadata", "labels");
    for (size_t i = 0; i < s->count; i++) {
        const struct clause *c = &s->clauses[i];
        const char *value = c->field ? field_value(object, c->key) : json_string_value(json_object_get(labels, c->key));
        bool listed = value != NULL && c->values != NULL && is_listed(c->values, value);
        bool holds = c->op == OP_IN ? listed : c->op == OP_NOT_IN ? !listed : (c->op == OP_EXISTS) == (value != NULL);
        if (!holds)
            return false;
    }
    return true;
}

void api_selector_free(struct api_selector *s)
{
    for (size_t i = 0; s != NULL && i < s->count; i++) {
        mem_free(s->clauses[i].key);
        mem_free(s->clauses[i].values);
    }
    mem_free(s);
}
