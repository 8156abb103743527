/* SPDX-License-Identifier: Apache-2.0
 *
 * `kubectl logs`: the newest lines of this process's log, as the log of the Pod's one container, and what follows them.
 * The log's own thread says when there is more; it may only wake the loop, so one handle does that for all who follow.
 * A client that does not read is waited for with the lines it has; what the log no longer keeps by then it does not
 * get.
 */
#include <stdio.h>

#include "base/log.h"
#include "conf/number.h"
#include "kube/api_priv.h"

enum { READ_MAX = 256 * 1024, KEPT_MAX = 4 * 1024 * 1024 };

/* Lives as long as its handle, which closes later than the API. */
struct api_log_wake {
    uv_async_t async;
    struct kube_api *api;
};
struct follower {
    struct list node;
    struct kube_api *api;
    struct http_exchange *x;
    uint64_t position;
    uint64_t left; /* bytes of limitBytes */
    bool timestamps;
};
struct log_request {
    bool follow, timestamps, previous;
    bool has_tail;
    uint64_t tail, limit;
    int64_t since; /* seconds since 1970; 0: all */
    char *container;
};

/* ---- the query ---- */

static bool query_number(struct str query, const char *name, bool *has, uint64_t *out, struct http_response *fail)
{
    char *value = api_query_get(query, name);
    *has = value != NULL && value[0] != '\0';
    bool ok = !*has || str_to_u64(str_of(value), INT64_MAX / 2, out);
    if (*has && strcmp(value, "-1") == 0) { /* all */
        *has = false;
        ok = true;
    }
    if (!ok)
        api_fail(fail, 400, "BadRequest", NULL, "%s: a number is expected", name);
    mem_free(value);
    return ok;
}

static bool query_flag(struct str query, const char *name)
{
    char *value = api_query_get(query, name);
    bool yes = value != NULL && (strcmp(value, "true") == 0 || strcmp(value, "1") == 0);
    mem_free(value);
    return yes;
}

static bool read_query(struct str query, struct log_request *l, struct http_response *out)
{
    bool has_limit, has_since;
    uint64_t seconds = 0;
    *l = (struct log_request){.limit = UINT64_MAX};
    if (!query_number(query, "tailLines", &l->has_tail, &l->tail, out) ||
        !query_number(query, "limitBytes", &has_limit, &l->limit, out) ||
        !query_number(query, "sinceSeconds", &has_since, &seconds, out))
        return false;
    if (has_since)
        l->since = api_now() - (int64_t)(seconds < INT32_MAX ? seconds : INT32_MAX);
    char *time = api_query_get(query, "sinceTime");
    bool ok = time == NULL || number_parse_time(str_of(time), &l->since);
    if (!ok)
        api_fail(out, 400, "BadRequest", NULL, "sinceTime: an RFC 3339 time is expected");
    mem_free(time);
    l->follow = query_flag(query, "follow");
    l->timestamps = query_flag(query, "timestamps");
    l->previous = query_flag(query, "previous");
    l->container = api_query_get(query, "container");
    return ok;
}

/* ---- lines ---- */

static struct str stamp_of(struct str line)
{
    ptrdiff_t space = str_find(line, ' ');
    return space > 0 ? str_upto(line, (size_t)space) : STR_NONE;
}

static void put_line(struct strbuf *out, struct str line, bool timestamps)
{
    if (timestamps) {
        strbuf_add(out, stamp_of(line));
        strbuf_addc(out, ' ');
    }
    strbuf_add(out, line);
    strbuf_addc(out, '\n');
}

/* Where the last n lines begin. */
static size_t tail_start(struct str text, uint64_t n)
{
    size_t at = text.n;
    while (at > 0) {
        size_t line = at - 1;
        while (line > 0 && text.p[line - 1] != '\n')
            line--;
        if (n-- == 0)
            return at;
        at = line;
    }
    return 0;
}

static void choose_lines(struct str all, const struct log_request *l, struct strbuf *out)
{
    struct strbuf recent = {0};
    struct str rest = all;
    while (rest.p != NULL && rest.n > 0) {
        int64_t when = 0;
        struct str line = str_split(&rest, '\n');
        if (l->since > 0 && number_parse_time(stamp_of(line), &when) && when < l->since)
            continue;
        put_line(&recent, line, l->timestamps);
    }
    struct str chosen = strbuf_str(&recent);
    if (l->has_tail)
        chosen = str_from(chosen, tail_start(chosen, l->tail));
    strbuf_add(out, chosen.n > l->limit ? str_upto(chosen, (size_t)l->limit) : chosen);
    strbuf_free(&recent);
}

/* ---- following ---- */

static void follower_free(struct follower *f)
{
    list_remove(&f->node);
    mem_free(f);
}
static void on_gone(void *owner) { follower_free(owner); }

static void follower_end(struct follower *f)
{
    struct http_exchange *x = f->x;
    follower_free(f);
    http_exchange_end(x);
}

static void follower_read(struct follower *f)
{
    uint64_t before;
    do {
        if (http_exchange_queued(f->x) > API_QUEUED_MAX / 4)
            return;
        struct strbuf text = {0}, lines = {0};
        before = f->position;
        f->position = log_read(before, READ_MAX, &text);
        struct str rest = strbuf_str(&text);
        while (rest.p != NULL && rest.n > 0)
            put_line(&lines, str_split(&rest, '\n'), f->timestamps);
        size_t n = lines.n < f->left ? lines.n : (size_t)f->left;
        http_exchange_send(f->x, str_upto(strbuf_str(&lines), n));
        f->left -= n;
        strbuf_free(&text);
        strbuf_free(&lines);
    } while (f->position != before && f->left > 0);
    if (f->left == 0)
        follower_end(f);
}

static void on_wake(uv_async_t *async)
{
    struct api_log_wake *w = CONTAINER_OF(async, struct api_log_wake, async);
    if (w->api == NULL)
        return;
    LIST_EACH (n, &w->api->logs)
        follower_read(LIST_ENTRY(n, struct follower, node));
}

/* On the log's thread. */
static void on_more(void *arg) { uv_async_send(arg); }

static void watch_log(struct kube_api *api)
{
    if (api->log_wake != NULL)
        return;
    api->log_wake = mem_zalloc(sizeof *api->log_wake);
    api->log_wake->api = api;
    ASSERT(uv_async_init(&api->loop->uv, &api->log_wake->async, on_wake) == 0);
    log_watch(on_more, &api->log_wake->async);
}

static void on_wake_closed(uv_handle_t *h) { mem_free(CONTAINER_OF((uv_async_t *)h, struct api_log_wake, async)); }

void api_log_end(struct kube_api *api)
{
    LIST_EACH (n, &api->logs)
        follower_end(LIST_ENTRY(n, struct follower, node));
    if (api->log_wake == NULL)
        return;
    log_watch(NULL, NULL);
    api->log_wake->api = NULL;
    uv_close((uv_handle_t *)&api->log_wake->async, on_wake_closed);
    api->log_wake = NULL;
}

/* ---- the request ---- */

static bool check(const struct api_request *r, const struct log_request *l, struct kube_api *api,
                  struct http_response *out)
{
    if (object_find(api, r->type, r->ns, r->name) == NULL)
        api_fail_not_found(out, r->type, r->name);
    else if (l->container != NULL && l->container[0] != '\0' && strcmp(l->container, "weir") != 0)
        api_fail(out, 400, "BadRequest", NULL, "container %s is not valid for pod %s", l->container, r->name);
    else if (l->previous)
        api_fail(out, 400, "BadRequest", NULL, "previous terminated container \"weir\" in pod \"%s\" not found",
                 r->name);
    else
        return true;
    return false;
}

static void follow(struct kube_api *api, const struct log_request *l, uint64_t position, struct str text,
                   struct http_exchange *x)
{
    struct follower *f = mem_zalloc(sizeof *f);
    *f = (struct follower){
        .api = api, .x = x, .position = position, .left = l->limit - text.n, .timestamps = l->timestamps};
    list_init(&f->node);
    list_push_back(&api->logs, &f->node);
    http_exchange_defer(x, on_gone, f);
    struct http_response head = {.status = 200, .content_type = "text/plain"};
    http_exchange_begin(x, &head);
    http_exchange_send(x, text);
    watch_log(api);
    follower_read(f); /* what came since it was looked at */
}

void api_log(struct kube_api *api, const struct api_request *r, struct str query, struct http_exchange *x,
             struct http_response *out, bool *deferred)
{
    struct log_request l;
    struct strbuf all = {0}, text = {0};
    if (!read_query(query, &l, out) || !check(r, &l, api, out)) {
        mem_free(l.container);
        return;
    }
    uint64_t position = log_read(0, KEPT_MAX, &all);
    choose_lines(strbuf_str(&all), &l, &text);
    if (l.follow) {
        *deferred = true;
        follow(api, &l, position, strbuf_str(&text), x);
    } else {
        out->content_type = "text/plain";
        strbuf_add(&out->body, strbuf_str(&text));
    }
    strbuf_free(&all);
    strbuf_free(&text);
    mem_free(l.container);
}
