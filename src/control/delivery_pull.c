/* SPDX-License-Identifier: Apache-2.0
 *
 * See delivery_pull.h. What is hard: who waits may go at any moment, also while the thread pool has its work, and a
 * download is everybody's: so a pull (one who waits) and a download are two things, and each is freed by whoever sees
 * it last. What must never happen: that what one namespace's credentials, or one key's signature, let in is given to
 * who has neither; so both are part of what a record is remembered under.
 */
#include "control/delivery_pull.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

#include "base/list.h"
#include "base/log.h"
#include "base/map.h"
#include "wasm/vm.h"

/* A module on disk. */
struct facts {
    char sha256[65];
    size_t n;
    char *path;
    int hold;
    enum abi_version abi;
    const char *warning;
    char *bad; /* it is no module that Weir takes, and why */
    struct pull_record record;
};

/* Fetching and storing, for all who want it. */
struct download {
    struct pulls *owner;
    char *key; /* in owner->downloads */
    struct list pulls;
    struct fetch *fetch;
    enum url_scheme scheme;
    char *url, *sha256, *scope, *verification_key, *have, *have_index;
    struct facts known; /* of `have` */
    /* what came */
    char *bytes;
    size_t n;
    char digest[80], index_digest[80], *from, *warning, *reason, *error;
    bool verified, unchanged, bytes_are_bad, retry;
    uint32_t retry_after_ms;
    struct facts facts;
    uv_work_t uv;
};

enum pull_step { PULL_LOOK, PULL_WAIT, PULL_NOTE };
struct pull {
    struct list node; /* in download->pulls */
    struct pulls *owner;
    enum pull_step step;
    struct pull_ask ask;
    char *secret;
    struct facts facts; /* what is remembered */
    bool hit;
    char *real_path, *reason, *error; /* of a file:// url */
    struct download *download;
    uv_work_t uv;
};

struct pulls {
    struct loop *loop;
    struct module_cache *cache;
    struct fetcher *fetcher;
    struct map downloads;
    unsigned working; /* on the thread pool */
};

/* ---- policy ---- */

bool pull_is_always(const struct wasm_plugin *p)
{
    if (p->pull_policy != PULL_UNSPECIFIED)
        return p->pull_policy == PULL_ALWAYS;
    return p->scheme == URL_OCI && str_ends(str_of(p->url), STR(":latest"));
}

static const char *digest_in_url(const char *url)
{
    const char *at = strstr(url, "@sha256:");
    return at != NULL ? at + 1 : NULL;
}

bool pull_is_pinned(const struct wasm_plugin *p)
{
    return p->sha256 != NULL || (p->scheme == URL_OCI && digest_in_url(p->url) != NULL);
}

/* ---- keys of records ---- */

/* Without tag and digest: what a digest is known under. */
static struct str repository_of(const char *url, enum url_scheme scheme)
{
    struct str all = str_of(url);
    if (scheme != URL_OCI)
        return all;
    ptrdiff_t at = str_find(all, '@');
    if (at >= 0)
        all.n = (size_t)at;
    for (size_t i = all.n; i-- > 0 && all.p[i] != '/';)
        if (all.p[i] == ':')
            return str_upto(all, i);
    return all;
}

static char *record_key(const char *kind, struct str url, const char *scope, const char *verification_key,
                        const char *more)
{
    char key[65] = "";
    if (verification_key != NULL)
        sha256_hex(str_of(verification_key), key);
    return mem_printf("%s\n%.*s\n%s\n%s\n%s", kind, STR_ARG(url), scope, key, more);
}

static char *url_key(const char *url, const char *scope, const char *verification_key)
{
    return record_key("url", str_of(url), scope, verification_key, "");
}
static char *digest_key(const char *url, enum url_scheme scheme, const char *scope, const char *verification_key,
                        const char *digest)
{
    return record_key("digest", repository_of(url, scheme), scope, verification_key, digest);
}
static char *object_key(const struct pull_ask *a)
{
    return record_key("object", str_of(a->url), a->secret_scope, a->verification_key, a->object);
}

/* ---- modules ---- */

static void facts_free(struct facts *f)
{
    module_cache_release(&f->hold);
    mem_free(f->path);
    mem_free(f->bad);
    pull_record_free(&f->record);
    *f = (struct facts){.hold = -1};
}

/* Thread pool: form and ABI. */
static void facts_check(struct facts *f, struct str bytes)
{
    struct module_info info = {0};
    char *error = NULL;
    f->n = bytes.n;
    if (!module_info_parse(bytes, &info, &error)) {
        f->bad = mem_printf("is not a valid Wasm module: %s", error != NULL ? error : "malformed");
        mem_free(error);
        return;
    }
    f->abi = abi_detect(&info, &f->warning);
    f->bad = f->abi == ABI_NONE
                 ? mem_strdup("missing or unknown Proxy-Wasm ABI version (no proxy_abi_version_* export)")
                 : abi_check_module(&info);
    module_info_free(&info);
}

/* Thread pool: the module that a record names, if it is here. */
static bool facts_recall(struct module_cache *cache, char *key /* taken */, const char *version, bool verified,
                         struct facts *out)
{
    *out = (struct facts){.hold = -1};
    bool found = module_cache_recall(cache, str_of(key), &out->record);
    mem_free(key);
    if (found && version != NULL && (out->record.version == NULL || strcmp(out->record.version, version) != 0))
        found = false;
    if (found && verified && out->record.verified_key[0] == '\0')
        found = false;
    size_t n = 0;
    char *bytes = found ? module_cache_get(cache, out->record.module_sha256, &n, &out->path, &out->hold) : NULL;
    if (bytes == NULL) {
        facts_free(out);
        return false;
    }
    memcpy(out->sha256, out->record.module_sha256, sizeof out->sha256);
    facts_check(out, str_span(bytes, n));
    mem_free(bytes);
    if (out->bad == NULL)
        return true;
    facts_free(out); /* it was fine for another version of Weir */
    return false;
}

/* ---- the end of a pull ---- */

static void pull_free(struct pull *p)
{
    mem_free((char *)p->ask.url);
    mem_free((char *)p->ask.sha256);
    mem_free((char *)p->ask.verification_key);
    mem_free((char *)p->ask.secret_scope);
    mem_free((char *)p->ask.module_dir);
    mem_free((char *)p->ask.object);
    mem_free((char *)p->ask.version);
    mem_free(p->secret);
    mem_free(p->real_path);
    mem_free(p->reason);
    mem_free(p->error);
    facts_free(&p->facts);
    mem_free(p);
}

static void pull_finish(struct pull *p, const struct pull_result *result)
{
    if (p->ask.done != NULL)
        p->ask.done(p->ask.arg, result);
    pull_free(p);
}

static void result_of_facts(const struct facts *f, struct pull_result *r)
{
    memcpy(r->sha256, f->sha256, sizeof r->sha256);
    r->n = f->n;
    r->path = f->path;
    r->hold = f->hold;
    r->abi = f->abi;
    if (f->warning != NULL)
        r->warning = f->warning;
    if (f->bad != NULL) {
        r->reason = "BadModule";
        r->error = f->bad;
        r->bytes_are_bad = true;
    }
}

static void pull_finish_hit(struct pull *p)
{
    const struct pull_record *known = &p->facts.record;
    struct pull_result r = {.hold = -1,
                            .digest = known->digest,
                            .index_digest = known->index_digest,
                            .from = known->from,
                            .verified = known->verified_key[0] != '\0',
                            .from_cache = true};
    result_of_facts(&p->facts, &r);
    pull_finish(p, &r);
}

static void pull_finish_download(struct pull *p, const struct download *d, const struct facts *f)
{
    struct pull_result r = {.hold = -1,
                            .reason = d->reason,
                            .error = d->error,
                            .bytes_are_bad = d->bytes_are_bad,
                            .retry = d->retry,
                            .retry_after_ms = d->retry_after_ms,
                            .digest = d->digest,
                            .index_digest = d->index_digest,
                            .from = d->from,
                            .warning = d->warning,
                            .verified = d->verified,
                            .from_cache = d->unchanged,
                            .unchanged = d->unchanged};
    if (d->error == NULL)
        result_of_facts(f, &r);
    pull_finish(p, &r);
}

/* ---- downloads ---- */

static void download_leave_table(struct download *d)
{
    if (map_get(&d->owner->downloads, str_of(d->key)) == d)
        map_remove(&d->owner->downloads, str_of(d->key));
}

static void download_free(struct download *d)
{
    download_leave_table(d);
    facts_free(&d->known);
    facts_free(&d->facts);
    mem_free(d->key);
    mem_free(d->url);
    mem_free(d->sha256);
    mem_free(d->scope);
    mem_free(d->verification_key);
    mem_free(d->have);
    mem_free(d->have_index);
    mem_free(d->bytes);
    mem_free(d->from);
    mem_free(d->warning);
    mem_free(d->reason);
    mem_free(d->error);
    mem_free(d);
}

static bool download_is_over(const struct download *d) { return list_is_empty(&d->pulls); }

static void note_start(struct pull *p);

static void download_finish(struct download *d)
{
    /* Off the table first: who is told may want it again. */
    download_leave_table(d);
    const struct facts *f = d->unchanged ? &d->known : &d->facts;
    struct list noting;
    list_init(&noting);
    while (!download_is_over(d)) {
        struct pull *p = LIST_ENTRY(d->pulls.next, struct pull, node);
        list_remove(&p->node);
        if (d->error == NULL && p->ask.always) {
            list_push_back(&noting, &p->node);
            continue;
        }
        p->download = NULL;
        pull_finish_download(p, d, f);
    }
    if (list_is_empty(&noting)) {
        download_free(d);
        return;
    }
    /* They keep it until all have been noted. */
    while (!list_is_empty(&noting)) {
        struct pull *p = LIST_ENTRY(noting.next, struct pull, node);
        list_remove(&p->node);
        list_push_back(&d->pulls, &p->node);
        note_start(p);
    }
}

static void download_record(const struct download *d, const struct facts *f, struct pull_record *out)
{
    *out = (struct pull_record){.from = d->from, .pulled_s = (int64_t)time(NULL)};
    memcpy(out->digest, d->digest, sizeof out->digest);
    memcpy(out->index_digest, d->index_digest, sizeof out->index_digest);
    memcpy(out->module_sha256, f->sha256, sizeof out->module_sha256);
    if (d->verification_key != NULL && d->verified)
        sha256_hex(str_of(d->verification_key), out->verified_key);
}

static void remember(struct module_cache *cache, char *key /* taken */, const struct pull_record *r)
{
    char *error = NULL;
    if (!module_cache_remember(cache, str_of(key), r, &error))
        log_line(LOG_WARN, "what was pulled is not remembered: %s", error != NULL ? error : "?");
    mem_free(error);
    mem_free(key);
}

/* Thread pool. A file is always there: it is not remembered. */
static void download_remember(struct download *d)
{
    struct module_cache *cache = d->owner->cache;
    struct pull_record r;
    char plain[80];
    download_record(d, &d->facts, &r);
    remember(cache, url_key(d->url, d->scope, d->verification_key), &r);
    snprintf(plain, sizeof plain, "sha256:%s", d->facts.sha256);
    const char *digest = d->scheme == URL_OCI ? d->digest : plain;
    if (digest[0] != '\0')
        remember(cache, digest_key(d->url, d->scheme, d->scope, d->verification_key, digest), &r);
    if (d->index_digest[0] != '\0')
        remember(cache, digest_key(d->url, d->scheme, d->scope, d->verification_key, d->index_digest), &r);
}

static void store_work(uv_work_t *uv)
{
    struct download *d = uv->data;
    struct str bytes = str_span(d->bytes, d->n);
    facts_check(&d->facts, bytes);
    if (d->facts.bad != NULL)
        return;
    char *error = NULL;
    d->facts.path = module_cache_put(d->owner->cache, d->facts.sha256, bytes, &d->facts.hold, &error);
    if (d->facts.path == NULL) {
        d->reason = mem_strdup("CacheFailed");
        d->error = error;
        d->retry = true;
        return;
    }
    if (d->scheme != URL_FILE)
        download_remember(d);
    module_cache_trim(d->owner->cache);
}

static void store_done(uv_work_t *uv, int status)
{
    struct download *d = uv->data;
    (void)status;
    d->owner->working--;
    mem_free(d->bytes);
    d->bytes = NULL;
    download_finish(d);
}

static void on_fetch_stage(void *arg, const char *text)
{
    struct download *d = arg;
    LIST_EACH (n, &d->pulls) {
        struct pull *p = LIST_ENTRY(n, struct pull, node);
        if (p->ask.stage != NULL)
            p->ask.stage(p->ask.arg, text);
    }
}

static char *dup_or_null(const char *text) { return text != NULL ? mem_strdup(text) : NULL; }

static void on_fetched(void *arg, struct fetch_result *r)
{
    struct download *d = arg;
    d->fetch = NULL;
    d->from = dup_or_null(r->from);
    d->warning = dup_or_null(r->warning);
    d->retry = r->retry;
    d->retry_after_ms = r->retry_after_ms;
    d->verified = r->verified;
    memcpy(d->digest, r->digest, sizeof d->digest);
    memcpy(d->index_digest, r->index_digest, sizeof d->index_digest);
    if (r->error != NULL) {
        static const char *const of_bytes[] = {"DigestMismatch",   "BadImage",  "NoModule",        "TooLarge",
                                               "SignatureMissing", "BadModule", "SignatureInvalid"};
        d->reason = mem_strdup(r->reason != NULL ? r->reason : "FetchFailed");
        d->error = mem_strdup(r->error);
        for (size_t i = 0; i < ARRAY_LEN(of_bytes); i++)
            d->bytes_are_bad |= strcmp(d->reason, of_bytes[i]) == 0;
        download_finish(d);
        return;
    }
    if (d->verification_key != NULL && !r->verified && !r->unchanged) {
        d->reason = mem_strdup("SignatureMissing");
        d->error = mem_strdup("verificationKey: no signature was found");
        d->bytes_are_bad = d->retry = true;
        download_finish(d);
        return;
    }
    if (r->unchanged) {
        d->unchanged = true;
        if (d->from == NULL)
            d->from = dup_or_null(d->known.record.from);
        d->verified = d->verified || d->known.record.verified_key[0] != '\0';
        download_finish(d);
        return;
    }
    d->bytes = r->bytes;
    d->n = r->n;
    r->bytes = NULL; /* taken */
    memcpy(d->facts.sha256, r->module_sha256, sizeof d->facts.sha256);
    d->uv.data = d;
    d->owner->working++;
    ASSERT(uv_queue_work(&d->owner->loop->uv, &d->uv, store_work, store_done) == 0);
}

static char *download_key(const struct pull *p)
{
    const struct pull_ask *a = &p->ask;
    char secret[65] = "", key[65] = "";
    if (a->secret.p != NULL)
        sha256_hex(a->secret, secret);
    if (a->verification_key != NULL)
        sha256_hex(str_of(a->verification_key), key);
    return mem_printf("%s\n%s\n%s\n%s\n%s\n%s", a->url, a->sha256 != NULL ? a->sha256 : "", a->secret_scope, secret,
                      key, p->real_path != NULL ? p->real_path : "");
}

static struct download *download_start(struct pull *p, char *key /* taken */)
{
    const struct pull_ask *a = &p->ask;
    struct download *d = mem_zalloc(sizeof *d);
    d->owner = p->owner;
    d->key = key;
    list_init(&d->pulls);
    d->scheme = a->scheme;
    d->url = mem_strdup(a->url);
    d->sha256 = dup_or_null(a->sha256);
    d->scope = mem_strdup(a->secret_scope);
    d->verification_key = dup_or_null(a->verification_key);
    d->facts.hold = -1;
    d->known = p->facts;
    p->facts = (struct facts){.hold = -1};
    if (d->known.path != NULL && d->known.record.digest[0] != '\0')
        d->have = mem_strdup(d->known.record.digest);
    if (d->have != NULL && d->known.record.index_digest[0] != '\0')
        d->have_index = mem_strdup(d->known.record.index_digest);
    map_set(&p->owner->downloads, str_of(d->key), d);
    char *file = p->real_path != NULL ? mem_printf("file://%s", p->real_path) : NULL;
    d->fetch = fetch_start(p->owner->fetcher, &(struct fetch_request){.url = file != NULL ? file : a->url,
                                                                      .sha256 = a->sha256,
                                                                      .pull_secret = a->secret,
                                                                      .verification_key = a->verification_key,
                                                                      .have = d->have,
                                                                      .have_index = d->have_index,
                                                                      .stage = on_fetch_stage,
                                                                      .done = on_fetched,
                                                                      .arg = d});
    mem_free(file);
    return d;
}

static void download_join(struct pull *p)
{
    char *key = download_key(p);
    struct download *d = map_get(&p->owner->downloads, str_of(key));
    if (d == NULL)
        d = download_start(p, key);
    else
        mem_free(key);
    p->step = PULL_WAIT;
    p->download = d;
    list_push_back(&p->download->pulls, &p->node);
}

/* ---- note: this version of this object has asked ---- */

static void note_work(uv_work_t *uv)
{
    struct pull *p = uv->data;
    const struct download *d = p->download;
    const struct facts *f = d->unchanged ? &d->known : &d->facts;
    struct pull_record r;
    if (f->bad != NULL || d->scheme == URL_FILE)
        return; /* a file is always there */
    download_record(d, f, &r);
    r.version = (char *)p->ask.version;
    if (d->unchanged)
        memcpy(r.verified_key, f->record.verified_key, sizeof r.verified_key);
    remember(p->owner->cache, object_key(&p->ask), &r);
}

static void note_done(uv_work_t *uv, int status)
{
    struct pull *p = uv->data;
    struct download *d = p->download;
    (void)status;
    p->owner->working--;
    list_remove(&p->node);
    pull_finish_download(p, d, d->unchanged ? &d->known : &d->facts);
    if (download_is_over(d))
        download_free(d);
}

static void note_start(struct pull *p)
{
    p->step = PULL_NOTE;
    p->uv.data = p;
    p->owner->working++;
    ASSERT(uv_queue_work(&p->owner->loop->uv, &p->uv, note_work, note_done) == 0);
}

/* ---- look ---- */

/* Thread pool. Where the file really is, when it must lie in a directory. */
static void look_at_file(struct pull *p)
{
    const char *path = p->ask.url + strlen("file://");
    if (p->ask.module_dir == NULL)
        return;
    char dir[PATH_MAX], file[PATH_MAX];
    size_t n = 0;
    if (realpath(p->ask.module_dir, dir) == NULL)
        p->error = mem_printf("--module-dir %s: %s", p->ask.module_dir, strerror(errno));
    else if (realpath(path, file) == NULL)
        p->error = mem_printf("%s: %s", path, strerror(errno));
    else if (n = strlen(dir), strncmp(file, dir, n) != 0 || (file[n] != '/' && strcmp(dir, "/") != 0)) {
        p->error = mem_printf("%s is not in --module-dir %s", path, p->ask.module_dir);
        p->reason = mem_strdup("Refused");
    } else
        p->real_path = mem_strdup(file);
    if (p->error != NULL && p->reason == NULL)
        p->reason = mem_strdup("FetchFailed");
}

static char *known_digest(const struct pull_ask *a)
{
    if (a->sha256 != NULL)
        return mem_printf("sha256:%s", a->sha256);
    const char *in_url = a->scheme == URL_OCI ? digest_in_url(a->url) : NULL;
    return in_url != NULL ? mem_strdup(in_url) : NULL;
}

/* A url and a sha256 that name different things: only an index and its child may. The registry says which they are, and
 * what it said of this one is remembered. */
static bool names_agree(const struct pull_ask *a, const struct pull_record *r)
{
    const char *in_url = a->scheme == URL_OCI ? digest_in_url(a->url) : NULL;
    return a->sha256 == NULL || in_url == NULL || strcmp(in_url + strlen("sha256:"), a->sha256) == 0 ||
           strcmp(in_url, r->index_digest) == 0;
}

static void look_work(uv_work_t *uv)
{
    struct pull *p = uv->data;
    const struct pull_ask *a = &p->ask;
    struct module_cache *cache = p->owner->cache;
    if (a->scheme == URL_FILE) {
        look_at_file(p);
        return;
    }
    char *digest = known_digest(a);
    bool verified = a->verification_key != NULL;
    if (digest != NULL)
        p->hit = facts_recall(cache, digest_key(a->url, a->scheme, a->secret_scope, a->verification_key, digest), NULL,
                              verified, &p->facts) &&
                 names_agree(a, &p->facts.record);
    else if (a->always && !a->again)
        p->hit = facts_recall(cache, object_key(a), a->version, verified, &p->facts);
    /* Also when the registry has to be asked: it may name what is here. */
    if (!p->hit && digest == NULL) {
        bool known =
            facts_recall(cache, url_key(a->url, a->secret_scope, a->verification_key), NULL, verified, &p->facts);
        p->hit = known && !a->always && !a->again;
    }
    mem_free(digest);
}

static void look_done(uv_work_t *uv, int status)
{
    struct pull *p = uv->data;
    (void)status;
    p->owner->working--;
    if (p->ask.done == NULL)
        pull_free(p);
    else if (p->error != NULL)
        pull_finish(p, &(struct pull_result){.hold = -1,
                                             .reason = p->reason,
                                             .error = p->error,
                                             .retry = strcmp(p->reason, "FetchFailed") == 0,
                                             .digest = "",
                                             .index_digest = ""});
    else if (p->hit)
        pull_finish_hit(p);
    else
        download_join(p);
}

struct pull *pull_start(struct pulls *owner, const struct pull_ask *ask)
{
    struct pull *p = mem_zalloc(sizeof *p);
    p->owner = owner;
    p->ask = *ask;
    p->ask.url = mem_strdup(ask->url);
    p->ask.sha256 = dup_or_null(ask->sha256);
    p->ask.verification_key = dup_or_null(ask->verification_key);
    p->ask.secret_scope = mem_strdup(ask->secret_scope);
    p->ask.module_dir = dup_or_null(ask->module_dir);
    p->ask.object = mem_strdup(ask->object);
    p->ask.version = mem_strdup(ask->version);
    p->secret = ask->secret.p != NULL ? mem_strndup(ask->secret.p, ask->secret.n) : NULL;
    p->ask.secret = p->secret != NULL ? str_span(p->secret, ask->secret.n) : STR_NONE;
    p->facts.hold = -1;
    list_init(&p->node);
    p->uv.data = p;
    owner->working++;
    ASSERT(uv_queue_work(&owner->loop->uv, &p->uv, look_work, look_done) == 0);
    return p;
}

void pull_cancel(struct pull *p)
{
    p->ask.done = NULL;
    p->ask.stage = NULL;
    if (p->step != PULL_WAIT)
        return; /* the thread pool gives it back */
    struct download *d = p->download;
    list_remove(&p->node);
    pull_free(p);
    if (!download_is_over(d) || d->fetch == NULL)
        return;
    fetch_cancel(d->fetch);
    download_free(d);
}

/* ---- all ---- */

struct pulls *pulls_new(struct loop *loop, struct module_cache *cache, struct fetcher *fetcher)
{
    struct pulls *p = mem_zalloc(sizeof *p);
    p->loop = loop;
    p->cache = cache;
    p->fetcher = fetcher;
    return p;
}

void pulls_free(struct pulls *p)
{
    while (p->working > 0)
        uv_run(&p->loop->uv, UV_RUN_ONCE);
    ASSERT(p->downloads.count == 0);
    map_free(&p->downloads);
    mem_free(p);
}
