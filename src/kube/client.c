/* SPDX-License-Identifier: Apache-2.0
 *
 * See client.h. A call keeps a copy of its request, since a 401 is answered by reading the credentials again and asking
 * once more when they are others. What must never happen: a token sent to another host (redirects are not followed), or
 * a token in a message.
 */
#include "kube/client.h"

#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/log.h"
#include "kube/json_scan.h"
#include "kube/kubeconfig.h"

enum {
    RELOAD_MS = 60 * 1000,
    CONNECT_LIMIT_MS = 10 * 1000,
    TOTAL_LIMIT_MS = 60 * 1000,
    ERROR_BODY_MAX = 64 * 1024,
    MESSAGE_SHOWN = 600,
    BACKOFF_FIRST_MS = 800,
    BACKOFF_MAX_MS = 30000
};

struct kube_client {
    struct loop *loop;
    struct transfers *transfers;
    char *files;     /* of kubeconfig; NULL: in cluster */
    char *directory; /* of the service account */
    struct kube_access access;
    char *where, *problem;
    struct list calls;
    struct loop_timer reload;
};
struct kube_call {
    struct list node;
    struct kube_client *client;
    struct transfer *transfer;
    struct kube_request r; /* callbacks and bounds */
    char *method, *path, *content_type;
    struct strbuf body, error_body;
    bool renewed; /* asked a second time, with other credentials */
};

/* ---- credentials ---- */

static bool access_read(const struct kube_client *c, struct kube_access *out, char **error)
{
    return c->files != NULL ? kubeconfig_load(c->files, NULL, out, error)
                            : kubeconfig_in_cluster(c->directory, out, error);
}

static bool text_same(const char *a, const char *b) { return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0); }

static bool access_same(const struct kube_access *a, const struct kube_access *b)
{
    return text_same(a->server, b->server) && text_same(a->token, b->token) && text_same(a->username, b->username) &&
           text_same(a->password, b->password) && text_same(a->server_name, b->server_name) &&
           text_same(a->proxy, b->proxy) && a->insecure == b->insecure &&
           str_eq(strbuf_str(&a->ca_pem), strbuf_str(&b->ca_pem)) &&
           str_eq(strbuf_str(&a->cert_pem), strbuf_str(&b->cert_pem)) &&
           str_eq(strbuf_str(&a->key_pem), strbuf_str(&b->key_pem));
}

static void set_problem(struct kube_client *c, const char *error)
{
    if (!text_same(c->problem, error) && error != NULL)
        log_line(LOG_WARN, "kubernetes: credentials could not be read again: %s", error);
    mem_free(c->problem);
    c->problem = error != NULL ? mem_strdup(error) : NULL;
}

/* True: they are others than before. */
static bool access_reload(struct kube_client *c)
{
    struct kube_access next;
    char *error = NULL;
    bool ok = access_read(c, &next, &error);
    set_problem(c, error);
    mem_free(error);
    if (!ok)
        return false;
    bool same = access_same(&c->access, &next);
    if (same) {
        kube_access_free(&next);
        return false;
    }
    kube_access_free(&c->access);
    c->access = next;
    log_line(LOG_INFO, "kubernetes: credentials were renewed");
    return true;
}

static void on_reload(struct loop_timer *timer)
{
    struct kube_client *c = CONTAINER_OF(timer, struct kube_client, reload);
    access_reload(c);
    loop_timer_start(timer, RELOAD_MS);
}

static void choose_source(struct kube_client *c, const struct kube_client_options *o)
{
    c->directory = mem_strdup(o->service_account != NULL ? o->service_account : KUBE_SERVICE_ACCOUNT_DIR);
    if (o->kubeconfig != NULL) {
        c->files = mem_strdup(o->kubeconfig);
        return;
    }
    char *token = mem_printf("%s/token", c->directory);
    bool in_pod = getenv("KUBERNETES_SERVICE_HOST") != NULL && access(token, R_OK) == 0;
    mem_free(token);
    const char *list = getenv("KUBECONFIG"), *home = getenv("HOME");
    if (!in_pod)
        c->files = list != NULL && list[0] != '\0' ? mem_strdup(list)
                                                   : mem_printf("%s/.kube/config", home != NULL ? home : "");
}

struct kube_client *kube_client_new(const struct kube_client_options *o, char **error)
{
    struct kube_client *c = mem_zalloc(sizeof *c);
    c->loop = o->loop;
    c->transfers = o->transfers;
    list_init(&c->calls);
    choose_source(c, o);
    if (!access_read(c, &c->access, error)) {
        mem_free(c->files);
        mem_free(c->directory);
        mem_free(c);
        return NULL;
    }
    c->where = mem_printf("%s (%s)", c->access.server, c->access.where);
    loop_timer_init(&c->reload, c->loop, on_reload);
    loop_timer_start(&c->reload, RELOAD_MS);
    return c;
}

const char *kube_client_where(const struct kube_client *c) { return c->where; }
const char *kube_client_server(const struct kube_client *c) { return c->access.server; }
const char *kube_client_namespace(const struct kube_client *c) { return c->access.ns; }
const char *kube_client_problem(const struct kube_client *c) { return c->problem; }

static void call_free(struct kube_call *call)
{
    list_remove(&call->node);
    mem_free(call->method);
    mem_free(call->path);
    mem_free(call->content_type);
    strbuf_free(&call->body);
    strbuf_free(&call->error_body);
    mem_free(call);
}

static void client_closed(struct loop_timer *timer) { mem_free(CONTAINER_OF(timer, struct kube_client, reload)); }

void kube_client_free(struct kube_client *c)
{
    LIST_EACH (n, &c->calls)
        kube_call_cancel(LIST_ENTRY(n, struct kube_call, node));
    kube_access_free(&c->access);
    mem_free(c->files);
    mem_free(c->directory);
    mem_free(c->where);
    mem_free(c->problem);
    loop_timer_close(&c->reload, client_closed);
}

/* ---- calls ---- */

static bool is_fine(unsigned status) { return status >= 200 && status < 300; }

static bool on_data(void *arg, struct transfer *x, struct str bytes)
{
    struct kube_call *call = arg;
    if (is_fine(transfer_status(x)))
        return call->r.on_data(call->r.arg, bytes);
    size_t room = ERROR_BODY_MAX - call->error_body.n;
    strbuf_add(&call->error_body, str_upto(bytes, bytes.n < room ? bytes.n : room));
    return true;
}

static void on_head(void *arg, struct transfer *x)
{
    struct kube_call *call = arg;
    if (is_fine(transfer_status(x)))
        call->r.on_open(call->r.arg);
}

/* "403 Forbidden: message" */
static char *answer_error(unsigned status, struct str body, char **reason)
{
    char *message = json_scan_string(json_get(body, "message"));
    *reason = json_scan_string(json_get(body, "reason"));
    struct strbuf out = {0};
    strbuf_printf(&out, "%u", status);
    if (*reason != NULL && (*reason)[0] != '\0')
        strbuf_printf(&out, " %s", *reason);
    if (message != NULL && message[0] != '\0')
        strbuf_printf(&out, ": %.*s", MESSAGE_SHOWN, message);
    mem_free(message);
    struct strbuf safe = {0};
    strbuf_add_escaped(&safe, strbuf_str(&out));
    strbuf_free(&out);
    return strbuf_take(&safe);
}

static void call_begin(struct kube_call *call);

static void on_done(void *arg, struct transfer *x, struct transfer_result *t)
{
    (void)x;
    struct kube_call *call = arg;
    call->transfer = NULL;
    if (t->error == NULL && t->status == 401 && !call->renewed && access_reload(call->client)) {
        call->renewed = true;
        strbuf_clear(&call->error_body);
        call_begin(call);
        return;
    }
    struct kube_result result = {
        .status = t->status, .reason = "", .too_large = t->too_large, .retry_after_ms = t->retry_after_ms};
    result.body = call->error_body.n > 0 ? strbuf_str(&call->error_body) : strbuf_str(&t->body);
    char *error = NULL, *reason = NULL;
    if (t->error != NULL) {
        error = mem_strdup(t->error);
        result.status = 0;
    } else if (!is_fine(t->status)) {
        error = answer_error(t->status, result.body, &reason);
    }
    result.error = error;
    if (reason != NULL)
        result.reason = reason;
    list_remove(&call->node);
    call->r.done(call->r.arg, &result);
    mem_free(error);
    mem_free(reason);
    call_free(call);
}

static char *basic_header(const struct kube_access *a)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    struct strbuf plain = {0}, out = {0};
    strbuf_printf(&plain, "%s:%s", a->username, a->password != NULL ? a->password : "");
    strbuf_addz(&out, "Authorization: Basic ");
    for (size_t i = 0; i < plain.n; i += 3) {
        uint32_t bits = 0;
        for (size_t k = 0; k < 3; k++)
            bits = (bits << 8) | (i + k < plain.n ? (unsigned char)plain.p[i + k] : 0);
        for (size_t k = 0; k < 4; k++)
            strbuf_addc(&out, i + k <= plain.n ? digits[(bits >> (18 - 6 * k)) & 63] : '=');
    }
    strbuf_free(&plain);
    return strbuf_take(&out);
}

static void call_begin(struct kube_call *call)
{
    const struct kube_client *c = call->client;
    const struct kube_access *a = &c->access;
    char *url = mem_printf("%s%s", a->server, call->path);
    char *authorization = a->token != NULL      ? mem_printf("Authorization: Bearer %s", a->token)
                          : a->username != NULL ? basic_header(a)
                                                : NULL;
    char *type = call->content_type != NULL ? mem_printf("Content-Type: %s", call->content_type) : NULL;
    const char *headers[3] = {"Accept: application/json"};
    size_t count = 1;
    if (authorization != NULL)
        headers[count++] = authorization;
    if (type != NULL)
        headers[count++] = type;
    struct transfer_request t = {.method = call->method,
                                 .url = url,
                                 .headers = headers,
                                 .header_count = count,
                                 .body = strbuf_str(&call->body),
                                 .has_body = type != NULL,
                                 .tls = {.ca_pem = strbuf_str(&a->ca_pem),
                                         .cert_pem = strbuf_str(&a->cert_pem),
                                         .key_pem = strbuf_str(&a->key_pem),
                                         .server_name = a->server_name,
                                         .insecure = a->insecure},
                                 .proxy = a->proxy,
                                 .connect_ms = CONNECT_LIMIT_MS,
                                 .total_ms = call->r.total_ms,
                                 .idle_ms = call->r.idle_ms,
                                 .max_bytes = call->r.max_bytes,
                                 .on_head = call->r.on_open != NULL ? on_head : NULL,
                                 .on_data = call->r.on_data != NULL ? on_data : NULL,
                                 .done = on_done,
                                 .arg = call};
    call->transfer = transfer_start(c->transfers, &t);
    mem_free(url);
    mem_free(authorization);
    mem_free(type);
}

struct kube_call *kube_call(struct kube_client *c, const struct kube_request *r)
{
    struct kube_call *call = mem_zalloc(sizeof *call);
    call->client = c;
    call->r = (struct kube_request){.total_ms = r->total_ms,
                                    .idle_ms = r->idle_ms,
                                    .max_bytes = r->max_bytes,
                                    .on_open = r->on_open,
                                    .on_data = r->on_data,
                                    .done = r->done,
                                    .arg = r->arg};
    if (r->total_ms == 0 && r->on_data == NULL)
        call->r.total_ms = TOTAL_LIMIT_MS;
    call->method = mem_strdup(r->method != NULL ? r->method : "GET");
    call->path = mem_strdup(r->path);
    if (r->content_type != NULL) {
        call->content_type = mem_strdup(r->content_type);
        strbuf_add(&call->body, r->body);
    }
    list_init(&call->node);
    list_push_back(&c->calls, &call->node);
    call_begin(call);
    return call;
}

void kube_call_cancel(struct kube_call *call)
{
    if (call->transfer != NULL)
        transfer_cancel(call->transfer);
    call_free(call);
}

uint32_t kube_backoff(uint32_t *ms)
{
    uint32_t random = 0;
    *ms = *ms == 0 ? BACKOFF_FIRST_MS : *ms >= BACKOFF_MAX_MS / 2 ? BACKOFF_MAX_MS : *ms * 2;
    if (getrandom(&random, sizeof random, 0) != sizeof random)
        random = UINT32_MAX / 2;
    return *ms / 2 + random % (*ms / 2 + 1);
}
