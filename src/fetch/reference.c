/* SPDX-License-Identifier: Apache-2.0
 *
 * See reference.h. Strict: what is no reference for Docker is none here, with the reason.
 */
#include "fetch/reference.h"

#include "fetch/encode.h"

enum { TAG_MAX = 128, SHOWN_MAX = 200 };

static bool is_lower_or_digit(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }
static bool is_word(char c) { return is_lower_or_digit(c) || (c >= 'A' && c <= 'Z') || c == '_'; }

static bool has_upper(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] >= 'A' && s.p[i] <= 'Z')
            return true;
    return false;
}

/* [a-z0-9]+ joined by ".", "_", "__" or any number of "-". */
static bool component_is_good(struct str c)
{
    if (c.n == 0 || !is_lower_or_digit(c.p[0]) || !is_lower_or_digit(c.p[c.n - 1]))
        return false;
    for (size_t i = 0; i < c.n;) {
        size_t from = i;
        while (i < c.n && !is_lower_or_digit(c.p[i]))
            i++;
        struct str between = str_span(c.p + from, i - from);
        bool dashes = between.n > 0;
        for (size_t k = 0; k < between.n; k++)
            dashes &= between.p[k] == '-';
        if (between.n > 0 && !dashes && !str_is(between, ".") && !str_is(between, "_") && !str_is(between, "__"))
            return false;
        while (i < c.n && is_lower_or_digit(c.p[i]))
            i++;
    }
    return true;
}

static const char *repository_fault(struct str repository)
{
    if (repository.n == 0)
        return "names no repository";
    if (repository.n > REPOSITORY_MAX)
        return "has a repository name that is too long";
    if (has_upper(repository))
        return "has upper-case letters in its repository name";
    for (struct str rest = repository; rest.p != NULL;)
        if (!component_is_good(str_split(&rest, '/')))
            return "has a repository name that is not well formed";
    return NULL;
}

static bool port_is_good(struct str port)
{
    uint64_t number = 0;
    return port.n > 0 && str_to_u64(port, 65535, &number) && number > 0;
}

/* host, host:port, [v6], [v6]:port. */
static bool registry_is_good(struct str s)
{
    size_t i = 0;
    if (s.n > 0 && s.p[0] == '[') {
        for (i = 1; i < s.n && s.p[i] != ']'; i++)
            if (!is_word(s.p[i]) && s.p[i] != ':' && s.p[i] != '.')
                return false;
        if (i == 1 || i >= s.n)
            return false;
        i++;
        return i == s.n || (s.p[i] == ':' && port_is_good(str_from(s, i + 1)));
    }
    ptrdiff_t colon = str_find(s, ':');
    struct str host = colon >= 0 ? str_upto(s, (size_t)colon) : s;
    if (host.n == 0 || host.n > 253 || (colon >= 0 && !port_is_good(str_from(s, (size_t)colon + 1))))
        return false;
    for (struct str rest = host; rest.p != NULL;) {
        struct str label = str_split(&rest, '.');
        if (label.n == 0 || label.p[0] == '-' || label.p[label.n - 1] == '-')
            return false;
        for (i = 0; i < label.n; i++)
            if (!is_word(label.p[i]) && label.p[i] != '-')
                return false;
    }
    return true;
}

static bool tag_is_good(struct str tag)
{
    if (tag.n == 0 || tag.n > TAG_MAX || !is_word(tag.p[0]))
        return false;
    for (size_t i = 0; i < tag.n; i++)
        if (!is_word(tag.p[i]) && tag.p[i] != '.' && tag.p[i] != '-')
            return false;
    return true;
}

/* Cuts what follows the last c, if it comes after from. */
static struct str cut_last(struct str *s, char c, size_t from)
{
    for (size_t i = s->n; i-- > from;) {
        if (s->p[i] == c) {
            struct str tail = str_from(*s, i + 1);
            s->n = i;
            return tail;
        }
    }
    return STR_NONE;
}

static bool is_hub(struct str registry)
{
    static const char *const names[] = {"docker.io", "index.docker.io", "registry-1.docker.io",
                                        "registry.hub.docker.com"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (str_ieq(registry, str_of(names[i])))
            return true;
    return false;
}

/* Cuts the registry off *name; STR_NONE when its first component is none. */
static struct str cut_registry(struct str *name)
{
    ptrdiff_t slash = str_find(*name, '/');
    if (slash < 0)
        return STR_NONE;
    struct str first = str_upto(*name, (size_t)slash);
    if (str_find(first, '.') < 0 && str_find(first, ':') < 0 && !str_is(first, "localhost") && !has_upper(first))
        return STR_NONE;
    *name = str_from(*name, (size_t)slash + 1);
    return first;
}

static const char *parse(struct str text, struct reference *out)
{
    if (str_starts(text, STR("oci://")))
        text = str_from(text, 6);
    if (text.n == 0)
        return "is empty";
    if (text.n > REFERENCE_MAX)
        return "is too long";
    if (text.p[0] == '/')
        return "begins with a slash: it names no registry and no repository (a file is file:///...)";
    struct str host = text, rest = host;
    host = str_split(&rest, '/');
    if (rest.p != NULL && str_find(host, '@') >= 0)
        return "holds a user or a password, which belong into a pull secret or Docker's configuration";
    struct str digest = cut_last(&text, '@', 0);
    size_t slash = text.n;
    while (slash > 0 && text.p[slash - 1] != '/')
        slash--;
    struct str tag = cut_last(&text, ':', slash), name = text, registry = cut_registry(&name);
    if (digest.p != NULL && !digest_is_good(digest))
        return "has a digest that is not sha256: and 64 lower-case hex digits";
    if (tag.p != NULL && !tag_is_good(tag))
        return "has a tag that is not well formed";
    if (registry.p != NULL && !registry_is_good(registry))
        return "has a registry that is not well formed";
    const char *fault = repository_fault(name);
    if (fault != NULL)
        return fault;
    out->by_default = registry.p == NULL;
    bool hub = out->by_default || is_hub(registry), official = hub && str_find(name, '/') < 0;
    if (official && name.n + strlen("library/") > REPOSITORY_MAX)
        return "has a repository name that is too long";
    out->name = str_dup(text);
    out->registry = hub ? mem_strdup("docker.io") : str_dup(registry);
    out->repository = official ? mem_printf("library/%.*s", STR_ARG(name)) : str_dup(name);
    out->digest = digest.p != NULL ? str_dup(digest) : NULL;
    out->tag = tag.p != NULL ? str_dup(tag) : digest.p == NULL ? mem_strdup("latest") : NULL;
    return NULL;
}

struct str reference_without_user(struct str text)
{
    ptrdiff_t slash = str_find(text, '/');
    for (size_t i = slash >= 0 ? (size_t)slash : text.n; i-- > 0;)
        if (text.p[i] == '@' && !str_starts(str_from(text, i), STR("@sha256:")))
            return str_from(text, i + 1);
    return text;
}

bool reference_parse(struct str text, struct reference *out, char **error)
{
    *out = (struct reference){0};
    const char *fault = parse(text, out);
    if (fault == NULL)
        return true;
    struct str shown = reference_without_user(str_starts(text, STR("oci://")) ? str_from(text, 6) : text);
    shown.n = shown.n < SHOWN_MAX ? shown.n : SHOWN_MAX;
    *error = mem_printf("the image reference \"%.*s\" %s", STR_ARG(shown), fault);
    return false;
}

void reference_free(struct reference *r)
{
    mem_free(r->name);
    mem_free(r->registry);
    mem_free(r->repository);
    mem_free(r->tag);
    mem_free(r->digest);
    *r = (struct reference){0};
}

void reference_write_version(const struct reference *r, struct strbuf *out)
{
    if (r->digest != NULL)
        strbuf_printf(out, "@%s", r->digest);
    else
        strbuf_printf(out, ":%s", r->tag);
}

void reference_write(const struct reference *r, struct strbuf *out)
{
    strbuf_printf(out, "%s/%s", r->registry, r->repository);
    reference_write_version(r, out);
}
