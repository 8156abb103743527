/* SPDX-License-Identifier: Apache-2.0
 *
 * The admin server: a fixed table of paths. What changes something is a POST. A browser page of another site must be
 * able to do nothing here, so Host must name a loopback address (or the address we listen on), and a request with a
 * foreign Origin is refused: that keeps DNS rebinding and cross-site forms out.
 */
#include <errno.h>

#include "base/log.h"
#include "control/control.h"
#include "control/page.h"

typedef void (*admin_fn)(struct control *c, const struct http_request *r, struct http_response *out);
struct admin_path {
    const char *method, *path, *what;
    admin_fn fn;
};

static void json(struct http_response *out) { out->content_type = "application/json"; }

static void get_ready(struct control *c, const struct http_request *r, struct http_response *out)
{
    (void)r;
    if (control_is_ready(c, &out->body))
        strbuf_addz(&out->body, "ready\n");
    else
        out->status = 503;
}
static void get_healthz(struct control *c, const struct http_request *r, struct http_response *out)
{
    (void)c;
    (void)r;
    strbuf_addz(&out->body, "ok\n");
}
static void get_metrics(struct control *c, const struct http_request *r, struct http_response *out)
{
    (void)c;
    (void)r;
    out->content_type = "text/plain; version=0.0.4; charset=utf-8";
    metrics_write(&out->body);
}
static void get_config(struct control *c, const struct http_request *r, struct http_response *out)
{
    (void)r;
    json(out);
    status_write_config(c, &out->body);
}
static void get_plugins(struct control *c, const struct http_request *r, struct http_response *out)
{
    (void)r;
    json(out);
    status_write_plugins(c, &out->body);
}
static void get_events(struct control *c, const struct http_request *r, struct http_response *out)
{
    (void)r;
    json(out);
    events_write(&c->events, EVENTS_MAX, &out->body);
}
static void get_stats(struct control *c, const struct http_request *r, struct http_response *out)
{
    (void)r;
    json(out);
    dashboard_write(c, &out->body);
}
static void get_logs(struct control *c, const struct http_request *r, struct http_response *out)
{
    (void)c;
    (void)r;
    log_tail(&out->body, 256 * 1024);
}
static void get_logging(struct control *c, const struct http_request *r, struct http_response *out)
{
    (void)c;
    (void)r;
    strbuf_printf(&out->body, "level: %s\n", log_level_name(log_get_level()));
}
static void post_logging(struct control *c, const struct http_request *r, struct http_response *out)
{
    enum log_level level;
    struct str query = r->query;
    if (!str_starts(query, STR("level=")) || !log_level_parse(str_from(query, 6), &level)) {
        out->status = 400;
        strbuf_addz(&out->body, "use /logging?level=trace|debug|info|warn|error|critical|off\n");
        return;
    }
    log_set_level(level);
    get_logging(c, r, out);
}
static void post_drain(struct control *c, const struct http_request *r, struct http_response *out)
{
    (void)r;
    control_drain(c);
    strbuf_addz(&out->body, "draining\n");
}
static void page_file(struct http_response *out, const char *name)
{
    static const char *const types[][2] = {{".html", "text/html; charset=utf-8"},
                                           {".css", "text/css; charset=utf-8"},
                                           {".js", "text/javascript; charset=utf-8"},
                                           {".svg", "image/svg+xml"}};
    for (size_t i = 0; i < PAGE_FILES; i++) {
        if (strcmp(page_files[i].name, name) != 0)
            continue;
        strbuf_add(&out->body, str_span(page_files[i].bytes, page_files[i].n));
        for (size_t t = 0; t < ARRAY_LEN(types); t++)
            if (str_ends(str_of(name), str_of(types[t][0])))
                out->content_type = types[t][1];
        return;
    }
}
static void get_page_file(struct control *c, const struct http_request *r, struct http_response *out)
{
    (void)c;
    for (size_t i = 0; i < PAGE_FILES; i++)
        if (str_is(str_from(r->path, strlen("/page/")), page_files[i].name))
            page_file(out, page_files[i].name);
}

/* What browsers ask for beside a document that names no icon. */
static void get_icon(struct control *c, const struct http_request *r, struct http_response *out)
{
    (void)c;
    (void)r;
    page_file(out, "icon.svg");
}
static void get_index(struct control *c, const struct http_request *r, struct http_response *out);

static const struct admin_path paths[] = {
    {"GET", "/", "the page, for browsers; else this list", get_index},
    {"GET", "/page/page.css", "of the page", get_page_file},
    {"GET", "/page/page.js", "of the page", get_page_file},
    {"GET", "/page/icon.svg", "of the page", get_page_file},
    {"GET", "/favicon.ico", "of the page", get_icon},
    {"GET", "/ready", "200 when traffic may come, else 503 and why", get_ready},
    {"GET", "/healthz", "200 while the process lives", get_healthz},
    {"GET", "/metrics", "Prometheus metrics", get_metrics},
    {"GET", "/config", "the snapshot and every object, as JSON", get_config},
    {"GET", "/plugins", "every plugin and its state, as JSON", get_plugins},
    {"GET", "/stats", "what serves and how it does: what the page and weir top show, as JSON", get_stats},
    {"GET", "/events", "what became true or false of objects, newest first, as JSON", get_events},
    {"GET", "/logs", "the newest log lines", get_logs},
    {"GET", "/logging", "the log level", get_logging},
    {"POST", "/logging", "?level=debug sets the log level", post_logging},
    {"POST", "/drain", "stop taking traffic, end with the last stream", post_drain},
};

/* A browser gets the page, everybody else the list. */
static void get_index(struct control *c, const struct http_request *r, struct http_response *out)
{
    (void)c;
    const struct header *accept = headers_get(&r->msg->headers, STR("accept"));
    if (accept != NULL && str_find_str(accept->value, STR("text/html")) >= 0) {
        page_file(out, "page.html");
        return;
    }
    for (size_t i = 0; i < ARRAY_LEN(paths); i++)
        strbuf_printf(&out->body, "%-4s %-15s %s\n", paths[i].method, paths[i].path, paths[i].what);
}

static struct str host_without_port(struct str authority)
{
    if (authority.n > 0 && authority.p[0] == '[') {
        ptrdiff_t end = str_find(authority, ']');
        return end < 0 ? authority : str_upto(authority, (size_t)end + 1);
    }
    ptrdiff_t colon = str_find(authority, ':');
    return colon < 0 ? authority : str_upto(authority, (size_t)colon);
}

static bool host_is_ours(const struct control *c, struct str authority)
{
    struct str host = host_without_port(authority);
    char own[ADDR_TEXT_MAX];
    addr_format(&c->o->admin, false, own);
    if (str_ieq(host, STR("localhost")) || str_is(host, "[::1]") || str_is(host, own))
        return true;
    struct addr a;
    bool literal = addr_from_ip(host, 0, &a);
    /* With an explicit non-loopback address a probe may use any IP of the machine; a name would be DNS rebinding. */
    return literal && (addr_is_loopback(&a) || c->o->admin_any_address);
}

static bool origin_is_ours(const struct control *c, const struct http_request *r)
{
    const struct header *site = headers_get(&r->msg->headers, STR("sec-fetch-site"));
    if (site != NULL && !str_is(site->value, "same-origin") && !str_is(site->value, "none"))
        return false;
    const struct header *origin = headers_get(&r->msg->headers, STR("origin"));
    if (origin == NULL)
        return true;
    (void)c;
    struct str scheme = STR("http://");
    return str_starts(origin->value, scheme) && str_eq(str_from(origin->value, scheme.n), r->authority);
}

static void refuse(struct http_response *out, unsigned status, const char *text)
{
    out->status = status;
    strbuf_addz(&out->body, text);
}

static void admin_handle(void *arg, const struct http_request *r, struct http_response *out)
{
    struct control *c = arg;
    strbuf_addz(
        &out->headers,
        "cache-control: no-store\nx-content-type-options: nosniff\nreferrer-policy: no-referrer\n"
        "content-security-policy: default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\n");
    if (!host_is_ours(c, r->authority)) {
        refuse(out, 403, "the Host header names no address of this admin server\n");
        return;
    }
    if (!origin_is_ours(c, r)) {
        refuse(out, 403, "requests from other sites are refused\n");
        return;
    }
    struct str method = str_is(r->method, "HEAD") ? STR("GET") : r->method;
    bool path_known = false;
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        if (!str_is(r->path, paths[i].path))
            continue;
        path_known = true;
        if (str_is(method, paths[i].method)) {
            paths[i].fn(c, r, out);
            return;
        }
    }
    if (!path_known) {
        refuse(out, 404, "no such path; / lists them\n");
        return;
    }
    strbuf_addz(&out->headers, str_is(method, "GET") ? "allow: POST\n" : "allow: GET\n");
    refuse(out, 405, str_is(method, "GET") ? "this changes something: use POST\n" : "use GET\n");
}

/* What a kubelet and Prometheus ask for, and nothing else: nothing here changes anything or shows a configuration, so
 * that any address and any Host will do. "/healthz/ready" is the path that Istio's gateways have. */
static void probe_handle(void *arg, const struct http_request *r, struct http_response *out)
{
    struct control *c = arg;
    strbuf_addz(&out->headers, "cache-control: no-store\nx-content-type-options: nosniff\n");
    if (!str_is(r->method, "GET") && !str_is(r->method, "HEAD"))
        refuse(out, 405, "use GET\n");
    else if (str_is(r->path, "/ready") || str_is(r->path, "/healthz/ready"))
        get_ready(c, r, out);
    else if (str_is(r->path, "/healthz"))
        get_healthz(c, r, out);
    else if (str_is(r->path, "/metrics"))
        get_metrics(c, r, out);
    else
        refuse(out, 404, "/ready, /healthz and /metrics are here; the rest is on the admin address\n");
}

static struct http_server *serve_on(struct control *c, const struct addr *addr, const char *what,
                                    void (*handle)(void *arg, const struct http_request *r, struct http_response *out))
{
    char text[ADDR_TEXT_MAX];
    addr_format(addr, true, text);
    int error = listener_probe(addr);
    int fd = error == 0 ? listener_open(addr, 128) : -1;
    if (fd < 0) {
        log_line(LOG_ERROR, "%s: cannot listen on %s: %s (--%s ADDR chooses another address)", what, text,
                 strerror(error != 0 ? error : errno), what);
        return NULL;
    }
    struct http_server_options o = {
        .max_connections = 64, .max_body = 64 * 1024, .idle_ms = 60000, .handle = handle, .arg = c};
    log_line(LOG_INFO, "%s on http://%s", what, text);
    return http_server_new(&c->loop, fd, &o);
}

bool admin_start(struct control *c)
{
    if (c->o->has_admin && (c->admin = serve_on(c, &c->o->admin, "admin", admin_handle)) == NULL)
        return false;
    if (c->o->has_probe && (c->probe = serve_on(c, &c->o->probe, "probe", probe_handle)) == NULL)
        return false;
    return true;
}
