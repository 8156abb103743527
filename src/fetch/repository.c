/* SPDX-License-Identifier: Apache-2.0
 *
 * See repository.h. A question goes: send, and on 401 once: credentials (when not looked up yet), token (when Bearer),
 * send again. What must never happen: credentials to another host than the registry, or its token server under the
 * rules of repository.h.
 */
#include "fetch/repository.h"

#include <jansson.h>

#include "fetch/challenge.h"
#include "fetch/credentials.h"
#include "fetch/encode.h"

enum {
    REDIRECTS_MAX = 5,
    IDLE_MS = 30 * 1000,
    TOKEN_MS = 30 * 1000,
    TOKEN_BYTES_MAX = 512 * 1024,
    TOKEN_MAX = 64 * 1024
};
enum { SAID_MAX = 300 };

struct repository {
    struct loop *loop;
    struct transfers *transfers;
    const struct registry_place *place;
    char *pull_secret, *config_file, *registry;
    size_t secret_n;
    bool has_secret, push;
    struct credentials credentials;
    bool searched;       /* for credentials */
    bool on_fallback;    /* place->fallback is the one that speaks */
    bool answered;       /* something spoke HTTP: no other scheme is tried */
    bool outside;        /* and it was on another machine */
    char *authorization; /* the header to send; NULL: anonymous */
    struct list questions;
};
struct question {
    struct list node;
    struct repository *owner;
    char *method, *path, *url, *accept, *content_type, *content_range; /* path is NULL when the url was given */
    struct repository_request r;
    struct transfer *transfer;
    struct credentials_search *search;
    struct challenge challenge;
    struct failure failure;
    bool challenged;        /* a 401 was dealt with */
    bool first_unconnected; /* before the fallback */
};

static void question_send(struct question *q);

static const char *base_of(const struct repository *r) { return r->on_fallback ? r->place->fallback : r->place->base; }
static bool is_plain(const char *url) { return strncmp(url, "http://", 7) == 0; }

/* ---- ends ---- */

static void question_free(struct question *q)
{
    list_remove(&q->node);
    char *const all[] = {q->method, q->path, q->url, q->accept, q->content_type, q->content_range};
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        mem_free(all[i]);
    challenge_free(&q->challenge);
    failure_clear(&q->failure);
    mem_free(q);
}

void question_cancel(struct question *q)
{
    if (q->transfer != NULL)
        transfer_cancel(q->transfer);
    if (q->search != NULL)
        credentials_search_cancel(q->search);
    question_free(q);
}

static void question_end(struct question *q, struct repository_answer *a)
{
    a->failure = &q->failure;
    list_remove(&q->node); /* done may free the repository */
    q->r.done(q->r.arg, a);
    question_free(q);
}
static void question_fail(struct question *q)
{
    struct repository_answer a = {0};
    question_end(q, &a);
}

/* What a registry says of an error: {"errors":[{"code": "...", "message": "..."}]}, or a token server's "details". */
static void add_said(struct strbuf *out, struct str body)
{
    json_t *doc = body.n > 0 && body.n <= 64 * 1024 ? json_loadb(body.p, body.n, 0, NULL) : NULL;
    const json_t *first = json_array_get(json_object_get(doc, "errors"), 0);
    const char *code = json_string_value(json_object_get(first, "code"));
    const char *message = json_string_value(json_object_get(first, "message"));
    if (message == NULL)
        message = json_string_value(json_object_get(doc, "details"));
    if (code != NULL || message != NULL)
        strbuf_printf(out, ": %.60s%s%.*s", code != NULL ? code : "", code != NULL && message != NULL ? ": " : "",
                      SAID_MAX, message != NULL ? message : "");
    json_decref(doc);
}

static void fail_status(struct question *q, const char *url, const char *who, const struct transfer_result *r)
{
    struct strbuf said = {0};
    add_said(&said, strbuf_str(&r->body));
    failure_set(&q->failure, failure_of_status(r->status), true, "%s: %s answered %u%.*s", url, who, r->status,
                STR_ARG(strbuf_str(&said)));
    q->failure.retry_after_ms = r->retry_after_ms;
    strbuf_free(&said);
}

static void fail_transport(struct question *q, const char *url, const struct transfer_result *r)
{
    const char *reason = r->refused     ? "Refused"
                         : r->too_large ? "TooLarge"
                         : r->truncated ? "Truncated"
                                        : "FetchFailed";
    failure_set(&q->failure, reason, r->retry, "%s: %s", url, r->error);
}

/* ---- tokens ---- */

static bool is_header_safe(const char *s)
{
    size_t n = strlen(s);
    for (size_t i = 0; i < n; i++)
        if (s[i] <= 0x20 || s[i] == 0x7f)
            return false;
    return n > 0 && n <= TOKEN_MAX;
}

static void set_authorization(struct repository *r, char *header /* taken */)
{
    mem_free(r->authorization);
    r->authorization = header;
}

static char *basic_header(const struct credentials *c)
{
    struct strbuf pair = {0}, b = {0};
    strbuf_printf(&pair, "%s:%s", c->user != NULL ? c->user : "", c->password != NULL ? c->password : "");
    strbuf_addz(&b, "Authorization: Basic ");
    encode_base64(strbuf_str(&pair), &b);
    strbuf_free(&pair);
    return strbuf_take(&b);
}

static void token_done(void *arg, struct transfer *x, struct transfer_result *result)
{
    struct question *q = arg;
    (void)x;
    q->transfer = NULL;
    if (result->error != NULL) {
        fail_transport(q, q->challenge.realm, result);
    } else if (result->status != 200) {
        fail_status(q, q->challenge.realm, "the registry's token server", result);
        if (result->status == 400 || result->status == 404 || result->status == 405)
            q->failure.reason = "Unauthorized";
    } else {
        json_t *doc = json_loadb(result->body.n > 0 ? result->body.p : "", result->body.n, 0, NULL);
        const char *token = json_string_value(json_object_get(doc, "token"));
        if (token == NULL)
            token = json_string_value(json_object_get(doc, "access_token"));
        if (token != NULL && is_header_safe(token))
            set_authorization(q->owner, mem_printf("Authorization: Bearer %s", token));
        else
            failure_set(&q->failure, "Unauthorized", true, "%s: the registry's token server answered without a token",
                        q->challenge.realm);
        json_decref(doc);
    }
    if (q->failure.reason != NULL)
        question_fail(q);
    else
        question_send(q);
}

static void add_parameter(struct strbuf *b, const char *name, const char *value)
{
    if (value == NULL)
        return;
    if (b->n > 0)
        strbuf_addc(b, '&');
    strbuf_printf(b, "%s=", name);
    encode_url(str_of(value), b);
}

/* What may be asked where; NULL or why not. */
static const char *realm_fault(const struct repository *r, const char *realm)
{
    bool plain = is_plain(realm), secrets = !credentials_is_empty(&r->credentials);
    if (!plain && strncmp(realm, "https://", 8) != 0)
        return "is neither http nor https";
    struct str rest = str_of(strstr(realm, "://") + 3), host = str_split(&rest, '/');
    if (str_find(host, '@') >= 0 || host.n == 0)
        return "is not well formed";
    for (const char *p = realm; *p != '\0'; p++)
        if (*p <= 0x20 || *p == 0x7f)
            return "is not well formed";
    if (registry_host_is_loopback(host) && r->place->entry == NULL &&
        !registry_host_is_loopback(str_of(r->place->host)))
        return "is on this machine, which the registry is not";
    if (plain && secrets && !is_plain(base_of(r)))
        return "wants a password over plain http";
    return NULL;
}

static struct str name_of(struct str host)
{
    return host.n > 0 && host.p[0] == '[' ? str_split(&host, ']') : str_split(&host, ':');
}

/* Is it the registry's own machine? */
static bool realm_is_own(const struct repository *r, const char *realm)
{
    struct str rest = str_of(strstr(realm, "://") + 3), host = str_split(&rest, '/');
    return str_ieq(name_of(host), name_of(str_of(r->place->host)));
}

static void token_ask(struct question *q)
{
    struct repository *r = q->owner;
    const struct challenge *c = &q->challenge;
    const char *fault = c->realm != NULL ? realm_fault(r, c->realm) : "is missing";
    if (fault != NULL) {
        failure_set(&q->failure, c->realm != NULL ? "Refused" : "Unauthorized", true,
                    "%s: the registry's token server (realm \"%.200s\") %s", q->url, c->realm != NULL ? c->realm : "",
                    fault);
        question_fail(q);
        return;
    }
    bool refresh = r->credentials.identity_token != NULL;
    bool basic = !refresh && !credentials_is_empty(&r->credentials);
    char *scope = c->scope != NULL
                      ? mem_strdup(c->scope)
                      : mem_printf("repository:%s:%s", r->place->repository, r->push ? "pull,push" : "pull");
    struct strbuf form = {0}, url = {0};
    add_parameter(&form, "service", c->service);
    add_parameter(&form, "scope", scope);
    if (refresh) {
        add_parameter(&form, "grant_type", "refresh_token");
        add_parameter(&form, "client_id", "weir");
        add_parameter(&form, "refresh_token", r->credentials.identity_token);
    } else if (basic) {
        add_parameter(&form, "account", r->credentials.user);
    }
    strbuf_addz(&url, c->realm);
    if (!refresh)
        strbuf_printf(&url, "%c%.*s", strchr(c->realm, '?') != NULL ? '&' : '?', STR_ARG(strbuf_str(&form)));
    strbuf_addc(&url, '\0');
    char *authorization = basic ? basic_header(&r->credentials) : NULL;
    const char *headers[2] = {"Accept: application/json"};
    size_t count = 1;
    if (refresh)
        headers[count++] = "Content-Type: application/x-www-form-urlencoded";
    else if (basic)
        headers[count++] = authorization;
    const struct registry_entry *e = r->place->entry;
    bool own = realm_is_own(r, c->realm);
    q->transfer =
        transfer_start(r->transfers, &(struct transfer_request){.method = refresh ? "POST" : "GET",
                                                                .url = url.p,
                                                                .headers = headers,
                                                                .header_count = count,
                                                                .body = strbuf_str(&form),
                                                                .has_body = refresh,
                                                                .tls = {.ca_file = e != NULL ? e->ca_file : NULL,
                                                                        .ca_also = true,
                                                                        .insecure = own && r->place->insecure},
                                                                .total_ms = TOKEN_MS,
                                                                .guard = e == NULL || !own,
                                                                .outside = e == NULL && r->outside,
                                                                .max_bytes = TOKEN_BYTES_MAX,
                                                                .done = token_done,
                                                                .arg = q});
    strbuf_free(&form);
    strbuf_free(&url);
    mem_free(authorization);
    mem_free(scope);
}

/* ---- the challenge ---- */

static void authorize(struct question *q)
{
    struct repository *r = q->owner;
    const struct credentials *c = &r->credentials;
    if (c->registry_token != NULL && is_header_safe(c->registry_token)) {
        set_authorization(r, mem_printf("Authorization: Bearer %s", c->registry_token));
        question_send(q);
    } else if (q->challenge.bearer) {
        token_ask(q);
    } else if (!q->challenge.basic) {
        failure_set(&q->failure, "Unauthorized", true, "%s: the registry wants neither Basic nor Bearer authentication",
                    q->url);
        question_fail(q);
    } else if (c->user == NULL || c->password == NULL) {
        failure_set(&q->failure, "Unauthorized", true,
                    "%s: the registry wants a user and a password, and %s has none for %s", q->url,
                    r->has_secret ? "the pull secret" : "the Docker configuration", r->place->host);
        question_fail(q);
    } else {
        set_authorization(r, basic_header(c));
        question_send(q);
    }
}

static void search_done(void *arg, struct credentials *c, struct failure *failure)
{
    struct question *q = arg;
    struct repository *r = q->owner;
    q->search = NULL;
    if (failure->reason != NULL) {
        failure_move(&q->failure, failure);
        question_fail(q);
        return;
    }
    r->searched = true;
    credentials_free(&r->credentials);
    r->credentials = *c;
    *c = (struct credentials){0};
    authorize(q);
}

static void search(struct question *q)
{
    struct repository *r = q->owner;
    const struct registry_entry *e = r->place->entry;
    char *own = mem_printf("%s/%s", r->place->host, r->place->repository);
    bool other = r->place->own_names && strcmp(r->registry, r->place->host) != 0;
    bool entrys = e != NULL && e->config_file != NULL;
    struct credentials_query query = {.pull_secret =
                                          r->has_secret && !entrys ? str_span(r->pull_secret, r->secret_n) : STR_NONE,
                                      .config_file = entrys ? e->config_file : r->config_file,
                                      .must_exist = entrys,
                                      .user = e != NULL ? e->user : NULL,
                                      .password_file = e != NULL ? e->password_file : NULL,
                                      .targets = {own, other ? r->registry : NULL}};
    q->search = credentials_search_start(r->loop, &query, search_done, q);
    mem_free(own);
}

static void question_challenged(struct question *q, const struct transfer *x)
{
    q->challenged = true;
    challenge_free(&q->challenge);
    for (size_t i = 0;; i++) {
        struct str header = transfer_header_at(x, "www-authenticate", i);
        if (header.p == NULL)
            break;
        challenge_read(&q->challenge, header);
    }
    if (q->owner->searched)
        authorize(q);
    else
        search(q);
}

/* ---- the request ---- */

/* Not what it speaks, as far as one can tell: a TLS server answers a plain request with 400 or closes, and at once. */
static bool should_fall_back(const struct repository *r, const struct transfer_result *result)
{
    if (r->place->fallback == NULL || r->on_fallback || r->answered || result->refused || result->too_large ||
        result->late)
        return false;
    return result->status == 0 || (is_plain(r->place->base) && result->status == 400);
}

/* Neither way: what is told is what was wrong with the one that somebody was reached by, or with both. */
static void fail_both_ways(struct question *q, const struct transfer_result *result)
{
    struct failure first = {0};
    bool nobody = q->first_unconnected;
    if (q->failure.reason != NULL && result->unconnected)
        return;
    failure_move(&first, &q->failure);
    fail_transport(q, q->url, result);
    if (first.reason != NULL && !nobody)
        failure_set(&q->failure, q->failure.reason, q->failure.retry || first.retry, "%s; %s", first.text,
                    q->failure.text);
    failure_clear(&first);
}

static void transfer_done(void *arg, struct transfer *x, struct transfer_result *result)
{
    struct question *q = arg;
    struct repository *r = q->owner;
    q->transfer = NULL;
    if (should_fall_back(r, result) && q->path != NULL) {
        if (result->error != NULL)
            fail_transport(q, q->url, result);
        q->first_unconnected = result->unconnected;
        r->on_fallback = true;
        question_send(q);
        return;
    }
    if (result->error != NULL) {
        fail_both_ways(q, result);
        question_fail(q);
        return;
    }
    r->answered = true;
    r->outside |= transfer_is_outside(x);
    failure_clear(&q->failure);
    if (result->status == 401 && !q->challenged) {
        question_challenged(q, x);
        return;
    }
    if (result->status < 200 || result->status > 299)
        fail_status(q, q->url, "the registry", result);
    struct repository_answer a = {.status = result->status, .body = result->body, .x = x};
    result->body = (struct strbuf){0};
    struct strbuf *body = &a.body;
    question_end(q, &a);
    strbuf_free(body);
}

static bool same_host(const struct repository *r, const char *url)
{
    size_t n = strlen(base_of(r));
    return strncmp(url, base_of(r), n) == 0 && (url[n] == '/' || url[n] == '?' || url[n] == '\0');
}

/* A path is below whichever base speaks; a url stays what it was given as, and gets no authorization on another host.
 */
static void set_url(struct question *q)
{
    struct repository *r = q->owner;
    if (q->path == NULL)
        return;
    mem_free(q->url);
    q->url = mem_printf("%s/v2/%s/%s", base_of(r), r->place->repository, q->path);
}

static void on_progress(void *arg, uint64_t done, uint64_t total)
{
    struct question *q = arg;
    q->r.progress(q->r.arg, done, total);
}

static void question_send(struct question *q)
{
    struct repository *r = q->owner;
    const struct registry_entry *e = r->place->entry;
    set_url(q);
    const char *headers[4];
    size_t count = 0;
    char *const own[] = {q->accept, q->content_type, q->content_range};
    for (size_t i = 0; i < ARRAY_LEN(own); i++)
        if (own[i] != NULL)
            headers[count++] = own[i];
    if (r->authorization != NULL && same_host(r, q->url))
        headers[count++] = r->authorization;
    q->transfer =
        transfer_start(r->transfers, &(struct transfer_request){.method = q->method,
                                                                .url = q->url,
                                                                .headers = headers,
                                                                .header_count = count,
                                                                .body = q->r.body,
                                                                .has_body = q->r.has_body,
                                                                .tls = {.ca_file = e != NULL ? e->ca_file : NULL,
                                                                        .ca_also = true,
                                                                        .cert_file = e != NULL ? e->cert_file : NULL,
                                                                        .key_file = e != NULL ? e->key_file : NULL,
                                                                        .insecure = r->place->insecure},
                                                                .max_redirects = REDIRECTS_MAX,
                                                                .total_ms = q->r.total_ms,
                                                                .idle_ms = IDLE_MS,
                                                                .guard = e == NULL,
                                                                .max_bytes = q->r.max_bytes,
                                                                .done = transfer_done,
                                                                .progress = q->r.progress != NULL ? on_progress : NULL,
                                                                .arg = q});
}

static char *header_of(const char *name, const char *value)
{
    return value != NULL ? mem_printf("%s: %s", name, value) : NULL;
}

struct question *repository_ask(struct repository *r, const struct repository_request *request)
{
    struct question *q = mem_zalloc(sizeof *q);
    q->owner = r;
    q->r = *request;
    q->method = request->method != NULL ? mem_strdup(request->method) : NULL;
    q->accept = header_of("Accept", request->accept);
    q->content_type = header_of("Content-Type", request->content_type);
    q->content_range = header_of("Content-Range", request->content_range);
    if (request->url == NULL)
        q->path = mem_strdup(request->path);
    else
        q->url = request->url[0] == '/' ? mem_printf("%s%s", base_of(r), request->url) : mem_strdup(request->url);
    list_init(&q->node);
    list_push_back(&r->questions, &q->node);
    question_send(q);
    return q;
}

/* ---- the repository ---- */

struct repository *repository_new(const struct repository_options *o)
{
    struct repository *r = mem_zalloc(sizeof *r);
    r->loop = o->loop;
    r->transfers = o->transfers;
    r->place = o->place;
    r->has_secret = o->pull_secret.p != NULL;
    r->pull_secret = str_dup(o->pull_secret);
    r->secret_n = o->pull_secret.n;
    r->config_file = o->config_file != NULL ? mem_strdup(o->config_file) : NULL;
    r->registry = mem_strdup(o->registry);
    r->push = o->push;
    list_init(&r->questions);
    return r;
}

void repository_free(struct repository *r)
{
    if (r == NULL)
        return;
    LIST_EACH (n, &r->questions)
        question_cancel(LIST_ENTRY(n, struct question, node));
    mem_free(r->pull_secret);
    mem_free(r->config_file);
    mem_free(r->registry);
    mem_free(r->authorization);
    credentials_free(&r->credentials);
    mem_free(r);
}

void repository_write(const struct repository *r, struct strbuf *out)
{
    strbuf_printf(out, "%s/%s", base_of(r), r->place->repository);
}
