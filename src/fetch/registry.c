/* SPDX-License-Identifier: Apache-2.0
 *
 * See registry.h.
 */
#include "fetch/registry.h"

#include <arpa/inet.h>

#include "base/file.h"

enum { FILE_BYTES_MAX = 1024 * 1024, ENTRIES_MAX = 1024 };

#define HUB_BASE "https://registry-1.docker.io"

struct registry_table {
    struct registry_entry *entries;
    size_t count;
    char **insecure;
    size_t insecure_count;
};

struct registry_table *registry_table_new(void) { return mem_zalloc(sizeof(struct registry_table)); }

static void entry_fini(struct registry_entry *e)
{
    char *const all[] = {e->prefix,   e->base,        e->path, e->ca_file,      e->cert_file,
                         e->key_file, e->config_file, e->user, e->password_file};
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        mem_free(all[i]);
}

void registry_table_free(struct registry_table *t)
{
    if (t == NULL)
        return;
    for (size_t i = 0; i < t->count; i++)
        entry_fini(&t->entries[i]);
    for (size_t i = 0; i < t->insecure_count; i++)
        mem_free(t->insecure[i]);
    mem_free(t->entries);
    mem_free(t->insecure);
    mem_free(t);
}

/* ---- reading ---- */

static struct str trim_slashes(struct str s)
{
    while (s.n > 0 && s.p[s.n - 1] == '/')
        s.n--;
    return s;
}

static bool is_printable(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] <= 0x20 || s.p[i] == 0x7f)
            return false;
    return s.n > 0;
}

/* "http://host:port/path" into base and path; NULL or what is wrong. */
static const char *entry_set_url(struct registry_entry *e, struct str url)
{
    size_t scheme = str_starts(url, STR("http://")) ? 7 : str_starts(url, STR("https://")) ? 8 : 0;
    if (scheme == 0)
        return "the url must begin with http:// or https://";
    struct str rest = trim_slashes(str_from(url, scheme));
    ptrdiff_t slash = str_find(rest, '/');
    struct str host = slash >= 0 ? str_upto(rest, (size_t)slash) : rest;
    struct str path = slash >= 0 ? str_from(rest, (size_t)slash + 1) : STR_NONE;
    if (!is_printable(rest) || host.n == 0)
        return "the url must name a host, without spaces";
    if (str_find(host, '@') >= 0)
        return "credentials do not belong in the url: use user= and password-file=, or config=, in a --registries file";
    if (str_find(rest, '?') >= 0 || str_find(rest, '#') >= 0)
        return "the url must be a host and a path only";
    e->base = str_dup(str_upto(url, scheme + host.n));
    e->path = str_dup(path);
    return NULL;
}

static const char *entry_set_prefix(struct registry_entry *e, struct str prefix)
{
    prefix = trim_slashes(prefix);
    if (!is_printable(prefix) || prefix.n > REFERENCE_MAX || str_find_str(prefix, STR("://")) >= 0)
        return "the prefix must be the beginning of an image's name, such as my-registry or docker.io/library";
    e->prefix = str_dup(prefix);
    return NULL;
}

static const char *entry_set_option(struct registry_entry *e, struct str option)
{
    const struct {
        struct str name;
        char **place;
    } options[] = {{STR("ca"), &e->ca_file},   {STR("cert"), &e->cert_file},
                   {STR("key"), &e->key_file}, {STR("config"), &e->config_file},
                   {STR("user"), &e->user},    {STR("password-file"), &e->password_file}};
    struct str value = option, name = str_split(&value, '=');
    if (str_is(option, "insecure")) {
        e->insecure = true;
        return NULL;
    }
    for (size_t i = 0; i < ARRAY_LEN(options); i++) {
        if (value.p == NULL || value.n == 0 || !str_eq(name, options[i].name))
            continue;
        mem_free(*options[i].place);
        *options[i].place = str_dup(value);
        return NULL;
    }
    return "options are ca=FILE, cert=FILE, key=FILE, config=FILE, user=NAME, password-file=FILE and insecure";
}

static const char *table_add(struct registry_table *t, struct registry_entry *e /* taken */, const char *fault)
{
    if (fault == NULL && (e->user == NULL) != (e->password_file == NULL))
        fault = "user= and password-file= belong together";
    if (fault == NULL && (e->cert_file == NULL) != (e->key_file == NULL))
        fault = "cert= and key= belong together";
    if (fault == NULL && t->count == ENTRIES_MAX)
        fault = "there are too many registries";
    if (fault != NULL) {
        entry_fini(e);
        return fault;
    }
    t->entries = mem_realloc(t->entries, (t->count + 1) * sizeof *t->entries);
    t->entries[t->count++] = *e;
    return NULL;
}

bool registry_table_add(struct registry_table *t, const char *text, char **error)
{
    struct registry_entry e = {0};
    struct str url = str_of(text), prefix = str_split(&url, '=');
    const char *fault = url.p == NULL ? "must be NAME=URL" : entry_set_prefix(&e, prefix);
    if (fault == NULL)
        fault = entry_set_url(&e, url);
    fault = table_add(t, &e, fault);
    if (fault != NULL)
        *error = mem_printf("registry \"%s\": %s", text, fault);
    return fault == NULL;
}

static const char *add_insecure(struct registry_table *t, struct str host)
{
    if (!is_printable(host) || str_find(host, '/') >= 0)
        return "an insecure registry is HOST or HOST:PORT";
    if (t->insecure_count == ENTRIES_MAX)
        return "there are too many insecure registries";
    t->insecure = mem_realloc(t->insecure, (t->insecure_count + 1) * sizeof *t->insecure);
    t->insecure[t->insecure_count++] = str_dup(host);
    return NULL;
}

bool registry_table_add_insecure(struct registry_table *t, const char *host, char **error)
{
    const char *fault = add_insecure(t, str_of(host));
    if (fault != NULL)
        *error = mem_printf("insecure registry \"%s\": %s", host, fault);
    return fault == NULL;
}

static struct str next_word(struct str *line)
{
    *line = str_trim(*line);
    size_t n = 0;
    while (n < line->n && line->p[n] != ' ' && line->p[n] != '\t')
        n++;
    struct str word = str_upto(*line, n);
    *line = str_from(*line, n);
    return word;
}

static const char *read_line(struct registry_table *t, struct str line)
{
    struct str first = next_word(&line), second = next_word(&line);
    if (second.n == 0)
        return "a line is PREFIX URL [OPTION...], or insecure HOST[:PORT]";
    if (str_is(first, "insecure") && str_find_str(second, STR("://")) < 0)
        return next_word(&line).n > 0 ? "nothing may follow the host" : add_insecure(t, second);
    struct registry_entry e = {0};
    const char *fault = entry_set_prefix(&e, first);
    if (fault == NULL)
        fault = entry_set_url(&e, second);
    for (struct str word = next_word(&line); fault == NULL && word.n > 0; word = next_word(&line))
        fault = entry_set_option(&e, word);
    return table_add(t, &e, fault);
}

/* Takes back what was added since. */
static void table_cut(struct registry_table *t, size_t count, size_t insecure_count)
{
    while (t->count > count)
        entry_fini(&t->entries[--t->count]);
    while (t->insecure_count > insecure_count)
        mem_free(t->insecure[--t->insecure_count]);
}

bool registry_table_read(struct registry_table *t, struct str text, const char *path, char **error)
{
    size_t count = t->count, insecure_count = t->insecure_count;
    unsigned number = 0;
    for (struct str rest = text.p != NULL ? text : STR(""); rest.p != NULL;) {
        struct str line = str_split(&rest, '\n');
        number++;
        ptrdiff_t hash = str_find(line, '#');
        if (hash >= 0)
            line.n = (size_t)hash;
        if (line.n > 0 && line.p[line.n - 1] == '\r')
            line.n--;
        const char *fault = str_trim(line).n > 0 ? read_line(t, str_trim(line)) : NULL;
        if (fault != NULL) {
            *error = mem_printf("%s:%u: %s", path, number, fault);
            table_cut(t, count, insecure_count);
            return false;
        }
    }
    return true;
}

bool registry_table_load(struct registry_table *t, const char *path, char **error)
{
    size_t n = 0;
    char *why = NULL, *text = file_read_all(path, FILE_BYTES_MAX, &n, &why);
    if (text == NULL) {
        *error = mem_printf("%s: %s", path, why);
        mem_free(why);
        return false;
    }
    bool ok = registry_table_read(t, str_span(text, n), path, error);
    mem_free(text);
    return ok;
}

/* ---- asking ---- */

bool registry_host_is_loopback(struct str host)
{
    struct in_addr ip;
    char z[64];
    if (str_starts(host, STR("[::1]")))
        return host.n == 5 || host.p[5] == ':';
    struct str rest = host, name = str_split(&rest, ':');
    if (str_ieq(name, STR("localhost")))
        return true;
    if (name.n == 0 || name.n >= sizeof z)
        return false;
    memcpy(z, name.p, name.n);
    z[name.n] = '\0';
    return inet_pton(AF_INET, z, &ip) == 1 && (ntohl(ip.s_addr) >> 24) == 127;
}

/* Length of the prefix if it is one of whole components of name; else 0. */
static size_t prefix_length(const struct registry_entry *e, struct str name)
{
    struct str prefix = str_of(e->prefix);
    if (!str_starts(name, prefix) || (name.n > prefix.n && name.p[prefix.n] != '/'))
        return 0;
    return name.n > prefix.n || e->path[0] != '\0' ? prefix.n : 0; /* something must be left to ask for */
}

static void place_of_entry(const struct registry_entry *e, struct str rest, struct registry_place *out)
{
    if (rest.n > 0)
        rest = str_from(rest, 1);
    const char *between = e->path[0] != '\0' && rest.n > 0 ? "/" : "";
    struct str first = str_of(e->prefix), later = first;
    first = str_split(&later, '/');
    *out = (struct registry_place){
        .entry = e,
        .base = mem_strdup(e->base),
        .host = mem_strdup(strstr(e->base, "://") + 3),
        .repository = mem_printf("%s%s%.*s", e->path, between, STR_ARG(rest)),
        .insecure = e->insecure,
        /* A word that can be no host's name is a name for this place alone. */
        .own_names = str_find(first, '.') < 0 && str_find(first, ':') < 0 && !str_is(first, "localhost"),
    };
}

/* All entries of the longest prefix of name. */
static void match(const struct registry_table *t, struct str name, struct registry_places *out)
{
    size_t longest = 0;
    for (size_t i = 0; i < t->count; i++) {
        size_t n = prefix_length(&t->entries[i], name);
        longest = n > longest ? n : longest;
    }
    for (size_t i = 0; longest > 0 && i < t->count && out->count < REGISTRY_PLACES_MAX; i++)
        if (prefix_length(&t->entries[i], name) == longest)
            place_of_entry(&t->entries[i], str_from(name, longest), &out->list[out->count++]);
}

static bool is_insecure(const struct registry_table *t, struct str host)
{
    struct str rest = host, name = host.n > 0 && host.p[0] == '[' ? host : str_split(&rest, ':');
    for (size_t i = 0; t != NULL && i < t->insecure_count; i++)
        if (str_ieq(str_of(t->insecure[i]), host) || str_ieq(str_of(t->insecure[i]), name))
            return true;
    return false;
}

static void place_of_name(const struct registry_table *t, const struct reference *r, struct registry_place *out)
{
    struct str host = str_of(r->registry);
    bool hub = strcmp(r->registry, "docker.io") == 0, loopback = registry_host_is_loopback(host);
    *out = (struct registry_place){.host = mem_strdup(r->registry),
                                   .repository = mem_strdup(r->repository),
                                   .own_names = true,
                                   .insecure = loopback || is_insecure(t, host)};
    out->base = hub ? mem_strdup(HUB_BASE) : mem_printf("http%s://%s", loopback ? "" : "s", r->registry);
    if (out->insecure)
        out->fallback = mem_printf("http%s://%s", loopback ? "s" : "", r->registry);
}

void registry_resolve(const struct registry_table *t, const struct reference *r, struct registry_places *out)
{
    *out = (struct registry_places){0};
    struct strbuf full = {0};
    strbuf_printf(&full, "%s/%s", r->registry, r->repository);
    if (t != NULL)
        match(t, str_of(r->name), out);
    if (t != NULL && out->count == 0)
        match(t, strbuf_str(&full), out);
    strbuf_free(&full);
    if (out->count > 0)
        return;
    place_of_name(t, r, &out->list[out->count++]);
    out->guessed_hub = r->by_default && strchr(r->name, '/') != NULL;
}

char *registry_credentials_name(const struct reference *r, const struct registry_place *place)
{
    return r->by_default && place->entry != NULL ? mem_strdup(r->name)
                                                 : mem_printf("%s/%s", r->registry, r->repository);
}

void registry_places_free(struct registry_places *p)
{
    for (size_t i = 0; i < p->count; i++) {
        struct registry_place *one = &p->list[i];
        mem_free(one->base);
        mem_free(one->fallback);
        mem_free(one->host);
        mem_free(one->repository);
    }
    *p = (struct registry_places){0};
}
