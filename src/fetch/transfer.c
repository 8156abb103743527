/* SPDX-License-Identifier: Apache-2.0
 *
 * See transfer.h. What makes it hard: curl may not be called from inside its own callbacks, but ours may start and
 * cancel transfers. So what is wanted while curl is on the stack (t->inside) is noted, and done when it has returned.
 * What must never happen: a callback of a cancelled transfer, or a byte beyond its bounds kept.
 */
#include "fetch/transfer.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>

enum { KEEPALIVE_IDLE_S = 30, KEEPALIVE_EVERY_S = 10 };
enum { CONNECT_MS = 10000, RETRY_AFTER_MAX_S = 24 * 3600, RESPONSE_HEADERS_MAX = 512 };

struct cidr {
    int family;
    unsigned char bytes[16];
    unsigned bits;
};
struct transfers {
    struct loop *loop;
    CURLM *multi;
    struct loop_timer timeout;
    struct list running; /* struct transfer */
    struct list wanted;  /* not given to curl yet */
    struct list doomed;  /* cancelled while curl was on the stack */
    unsigned inside;
    struct cidr *allow;
    size_t allow_count;
};
struct transfer {
    struct list node;
    struct transfers *owner;
    struct transfer_request r; /* callbacks, arg and bounds; pointers into the caller's memory are cleared */
    CURL *easy;
    struct curl_slist *headers, *connect_to;
    FILE *file;
    uint64_t file_at, file_left, file_n;
    struct strbuf body;
    size_t got;          /* bytes of the body */
    struct strbuf lines; /* header lines of the last hop, each with its line end */
    char curl_error[CURL_ERROR_SIZE];
    unsigned status;
    bool head_done, cancelled, guarded, too_large, stopped, head_too_large;
    bool outside;  /* some hop went to another machine */
    bool led_home; /* and a later one wanted to come back to this one */
};
struct socket_watch {
    uv_poll_t poll;
    struct transfers *owner;
    curl_socket_t fd;
};

/* ---- the address guard ---- */

static bool cidr_parse(const char *text, struct cidr *out)
{
    struct str rest = str_of(text), ip = str_split(&rest, '/');
    char z[INET6_ADDRSTRLEN];
    if (ip.n == 0 || ip.n >= sizeof z)
        return false;
    memcpy(z, ip.p, ip.n);
    z[ip.n] = '\0';
    *out = (struct cidr){.family = str_find(ip, ':') >= 0 ? AF_INET6 : AF_INET};
    unsigned max = out->family == AF_INET ? 32 : 128;
    uint64_t bits = max;
    if (inet_pton(out->family, z, out->bytes) != 1 || (rest.p != NULL && !str_to_u64(rest, max, &bits)))
        return false;
    out->bits = (unsigned)bits;
    return true;
}

bool transfers_allow_parse(const char *text)
{
    struct cidr ignored;
    return cidr_parse(text, &ignored);
}

static bool cidr_has(const struct cidr *c, int family, const unsigned char *bytes)
{
    if (c->family != family || memcmp(c->bytes, bytes, c->bits / 8) != 0)
        return false;
    unsigned left = c->bits % 8;
    return left == 0 || ((c->bytes[c->bits / 8] ^ bytes[c->bits / 8]) >> (8 - left)) == 0;
}

static bool is_allowed(const struct transfers *t, int family, const void *bytes)
{
    for (size_t i = 0; i < t->allow_count; i++)
        if (cidr_has(&t->allow[i], family, bytes))
            return true;
    return false;
}

static bool ip4_is_guarded(const struct transfers *t, struct in_addr in)
{
    uint32_t a = ntohl(in.s_addr);
    bool bad = (a >> 16) == 0xa9fe /* 169.254/16 */ || a == 0xa83f8110u /* 168.63.129.16 */ ||
               a == 0x646464c8u /* 100.100.100.200 */ || a == 0xc00000c0u /* 192.0.0.192 */;
    return bad && !is_allowed(t, AF_INET, &in);
}

static bool ip6_is_guarded(const struct transfers *t, const struct in6_addr *a)
{
    static const unsigned char metadata[2][16] = {{0xfd, 0x00, 0x0e, 0xc2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x02, 0x54},
                                                  {0xfd, 0x20, 0x00, 0xce, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x02, 0x54}},
                               nat64[12] = {0x00, 0x64, 0xff, 0x9b};
    if (IN6_IS_ADDR_V4MAPPED(a) || IN6_IS_ADDR_V4COMPAT(a) || memcmp(a->s6_addr, nat64, sizeof nat64) == 0) {
        struct in_addr in;
        memcpy(&in, a->s6_addr + 12, sizeof in);
        return ip4_is_guarded(t, in);
    }
    bool bad = IN6_IS_ADDR_LINKLOCAL(a) || memcmp(a->s6_addr, metadata[0], 16) == 0 ||
               memcmp(a->s6_addr, metadata[1], 16) == 0;
    return bad && !is_allowed(t, AF_INET6, a->s6_addr);
}

static bool address_is_guarded(const struct transfers *t, const struct sockaddr *sa)
{
    if (sa->sa_family == AF_INET)
        return ip4_is_guarded(t, ((const struct sockaddr_in *)(const void *)sa)->sin_addr);
    return sa->sa_family != AF_INET6 || ip6_is_guarded(t, &((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr);
}

/* This machine; 0.0.0.0 and :: are other names for it. */
static bool ip4_is_here(struct in_addr in) { return ntohl(in.s_addr) >> 24 == 127 || in.s_addr == 0; }
static bool ip6_is_here(const struct in6_addr *a)
{
    struct in_addr in;
    memcpy(&in, a->s6_addr + 12, sizeof in);
    return IN6_IS_ADDR_LOOPBACK(a) || IN6_IS_ADDR_UNSPECIFIED(a) || (IN6_IS_ADDR_V4MAPPED(a) && ip4_is_here(in));
}

/* A server outside may not send us to what listens on this machine only: neither by a redirect nor by a name that it
 * makes point here. */
static bool is_led_home(const struct transfer *x, int family, const void *bytes)
{
    if (!x->outside || is_allowed(x->owner, family, bytes))
        return false;
    return family == AF_INET ? ip4_is_here(*(const struct in_addr *)bytes) : ip6_is_here(bytes);
}

static curl_socket_t open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
    struct transfer *x = arg;
    (void)purpose;
    const void *bytes = address->family == AF_INET6
                            ? (const void *)&((const struct sockaddr_in6 *)(const void *)&address->addr)->sin6_addr
                            : (const void *)&((const struct sockaddr_in *)(const void *)&address->addr)->sin_addr;
    if (x->r.guard && address_is_guarded(x->owner, &address->addr)) {
        x->guarded = true;
        return CURL_SOCKET_BAD;
    }
    if (x->r.guard && is_led_home(x, address->family, bytes)) {
        x->led_home = true;
        return CURL_SOCKET_BAD;
    }
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

/* A connection may be one that a transfer without guard opened. */
static int before_request(void *arg, char *ip, char *local, int port, int local_port)
{
    struct transfer *x = arg;
    struct in_addr in;
    struct in6_addr in6;
    (void)local;
    (void)port;
    (void)local_port;
    if (!x->r.guard || ip == NULL)
        return CURL_PREREQFUNC_OK;
    bool four = inet_pton(AF_INET, ip, &in) == 1, six = !four && inet_pton(AF_INET6, ip, &in6) == 1;
    x->guarded = (four && ip4_is_guarded(x->owner, in)) || (six && ip6_is_guarded(x->owner, &in6));
    x->led_home = (four && is_led_home(x, AF_INET, &in)) || (six && is_led_home(x, AF_INET6, &in6));
    x->outside |= (four && !ip4_is_here(in)) || (six && !ip6_is_here(&in6));
    return x->guarded || x->led_home ? CURL_PREREQFUNC_ABORT : CURL_PREREQFUNC_OK;
}

/* ---- one transfer ---- */

static void transfer_free(struct transfer *x)
{
    list_remove(&x->node);
    if (x->easy != NULL)
        curl_easy_cleanup(x->easy);
    curl_slist_free_all(x->headers);
    curl_slist_free_all(x->connect_to);
    if (x->file != NULL)
        (void)fclose(x->file);
    strbuf_free(&x->body);
    strbuf_free(&x->lines);
    mem_free(x);
}

bool transfer_is_outside(const struct transfer *x) { return x->outside; }
unsigned transfer_status(const struct transfer *x) { return x->head_done ? x->status : 0; }

const char *transfer_url(const struct transfer *x)
{
    const char *url = NULL;
    curl_easy_getinfo(x->easy, CURLINFO_EFFECTIVE_URL, &url);
    return url != NULL ? url : "";
}

struct str transfer_header_at(const struct transfer *x, const char *name, size_t index)
{
    for (struct str rest = strbuf_str(&x->lines); rest.p != NULL && rest.n > 0;) {
        struct str line = str_split(&rest, '\n');
        struct str value = line, key = str_split(&value, ':');
        if (value.p == NULL || !str_ieq(key, str_of(name)) || index-- > 0)
            continue;
        if (value.n > 0 && value.p[value.n - 1] == '\r')
            value.n--;
        return str_trim(value);
    }
    return STR_NONE;
}
struct str transfer_header(const struct transfer *x, const char *name) { return transfer_header_at(x, name, 0); }

/* Will curl go on to another place by itself? */
static bool is_followed(const struct transfer *x)
{
    return x->r.max_redirects > 0 && x->status >= 300 && x->status < 400 && x->status != 304 && x->status != 305 &&
           x->status != 306 && transfer_header(x, "location").n > 0;
}

static void head_ends(struct transfer *x)
{
    if (x->status < 200 || is_followed(x))
        return;
    x->head_done = true;
    if (x->r.on_head != NULL)
        x->r.on_head(x->r.arg, x);
}

static size_t on_header(char *p, size_t size, size_t count, void *arg)
{
    struct transfer *x = arg;
    size_t n = size * count;
    if (x->cancelled)
        return 0;
    if (x->head_done)
        return n; /* trailers */
    if (n >= 5 && memcmp(p, "HTTP/", 5) == 0) {
        long status = 0;
        curl_easy_getinfo(x->easy, CURLINFO_RESPONSE_CODE, &status);
        x->status = (unsigned)status;
        strbuf_clear(&x->lines);
        return n;
    }
    if (x->lines.n + n > TRANSFER_HEAD_MAX) {
        x->head_too_large = true;
        return 0;
    }
    if (n == 0 || p[0] == '\r' || p[0] == '\n')
        head_ends(x);
    else
        strbuf_add(&x->lines, str_span(p, n));
    return x->cancelled ? 0 : n;
}

static size_t on_body(char *p, size_t size, size_t count, void *arg)
{
    struct transfer *x = arg;
    size_t n = size * count;
    if (x->cancelled)
        return 0;
    if (n > x->r.max_bytes - x->got) {
        x->too_large = true;
        return 0;
    }
    x->got += n;
    if (x->r.on_data == NULL)
        strbuf_add(&x->body, str_span(p, n));
    else if (!x->r.on_data(x->r.arg, x, str_span(p, n)))
        x->stopped = true;
    return x->cancelled || x->stopped ? 0 : n;
}

static int on_progress(void *arg, curl_off_t down_total, curl_off_t down, curl_off_t up_total, curl_off_t up)
{
    struct transfer *x = arg;
    if (x->cancelled)
        return 1;
    if (x->r.progress != NULL)
        x->r.progress(x->r.arg, (uint64_t)(up_total > down_total ? up : down),
                      (uint64_t)(up_total > down_total ? up_total : down_total));
    return x->cancelled ? 1 : 0;
}

static size_t on_file_read(char *p, size_t size, size_t count, void *arg)
{
    struct transfer *x = arg;
    size_t want = size * count < x->file_left ? size * count : (size_t)x->file_left;
    size_t n = fread(p, 1, want, x->file);
    x->file_left -= n;
    return n < want ? CURL_READFUNC_ABORT : n; /* the file became shorter */
}

static int on_file_seek(void *arg, curl_off_t offset, int origin)
{
    struct transfer *x = arg;
    if (origin != SEEK_SET || offset < 0 || (uint64_t)offset > x->file_n ||
        fseeko(x->file, (off_t)x->file_at + (off_t)offset, SEEK_SET) != 0)
        return CURL_SEEKFUNC_CANTSEEK;
    x->file_left = x->file_n - (uint64_t)offset;
    return CURL_SEEKFUNC_OK;
}

/* ---- its end ---- */

static uint32_t retry_after_ms(struct transfer *x)
{
    curl_off_t seconds = 0;
    curl_easy_getinfo(x->easy, CURLINFO_RETRY_AFTER, &seconds);
    if (seconds <= 0)
        return 0;
    return (uint32_t)(seconds < RETRY_AFTER_MAX_S ? seconds : RETRY_AFTER_MAX_S) * 1000;
}

static bool is_tls_error(CURLcode code)
{
    return code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_CONNECT_ERROR || code == CURLE_SSL_CERTPROBLEM ||
           code == CURLE_SSL_CACERT_BADFILE || code == CURLE_SSL_CIPHER || code == CURLE_SSL_ISSUER_ERROR ||
           code == CURLE_SSL_INVALIDCERTSTATUS;
}

/* Curl says how many milliseconds and bytes it took. A text that is another one on each try would make each of them
 * news: a line in the log, a new status. */
static char *steady_text(const struct transfer *x, CURLcode code)
{
    const char *said = x->curl_error[0] != '\0' ? x->curl_error : curl_easy_strerror(code);
    if (code == CURLE_OPERATION_TIMEDOUT)
        return strstr(said, "too slow") != NULL ? mem_strdup("nothing came any more, and it was given up")
               : x->status == 0                 ? mem_strdup("no answer came in time")
                                                : mem_strdup("the answer did not end in time");
    if (code == CURLE_PARTIAL_FILE)
        return mem_strdup("the connection was closed before the end of the answer");
    static const char after[] = " after ";
    const char *from = strstr(said, after), *to = from != NULL ? from + strlen(after) : "";
    size_t digits = strspn(to, "0123456789");
    if (digits == 0 || strncmp(to + digits, " ms", 3) != 0)
        return mem_strdup(said);
    long error = 0;
    curl_easy_getinfo(x->easy, CURLINFO_OS_ERRNO, &error);
    if (code == CURLE_COULDNT_CONNECT && error != 0)
        return mem_printf("%.*s: %s", (int)(from - said), said, strerror((int)error));
    return mem_printf("%.*s%s", (int)(from - said), said, to + digits + 3);
}

static char *failure_text(const struct transfer *x, CURLcode code)
{
    if (x->guarded)
        return mem_strdup("the address is link-local or a cloud's metadata service");
    if (x->led_home)
        return mem_strdup("the address is of this machine, where a server outside may not lead");
    if (x->too_large || code == CURLE_FILESIZE_EXCEEDED)
        return mem_printf("is larger than %zu bytes", x->r.max_bytes);
    if (x->head_too_large)
        return mem_printf("the answer's head is larger than %d bytes", TRANSFER_HEAD_MAX);
    if (x->stopped)
        return mem_strdup("was given up");
    return steady_text(x, code);
}

static void transfer_finish(struct transfer *x, CURLcode code)
{
    struct transfer_result result = {.status = x->status, .body = x->body};
    char *text = NULL;
    x->body = (struct strbuf){0};
    curl_multi_remove_handle(x->owner->multi, x->easy);
    if (code != CURLE_OK || x->stopped) {
        text = failure_text(x, code);
        result.refused = x->guarded || x->led_home;
        result.too_large = x->too_large || code == CURLE_FILESIZE_EXCEEDED;
        result.retry = !result.refused && !result.too_large && !x->stopped && code != CURLE_URL_MALFORMAT;
        result.tls = is_tls_error(code);
        result.truncated = code == CURLE_PARTIAL_FILE || code == CURLE_GOT_NOTHING;
        result.unconnected = code == CURLE_COULDNT_CONNECT || code == CURLE_COULDNT_RESOLVE_HOST;
        curl_off_t spoke_us = 0;
        curl_easy_getinfo(x->easy, CURLINFO_PRETRANSFER_TIME_T, &spoke_us);
        result.late = code == CURLE_OPERATION_TIMEDOUT && spoke_us > 0;
    } else {
        result.retry = result.status == 408 || result.status == 429 || (result.status >= 500 && result.status != 501);
    }
    result.error = text;
    result.retry_after_ms = retry_after_ms(x);
    x->r.done(x->r.arg, x, &result);
    strbuf_free(&result.body);
    mem_free(text);
    transfer_free(x);
}

/* ---- curl and the loop ---- */

/* Curl has returned: what was wanted of it meanwhile. Callbacks of finished transfers run here, and may free anything
 * but t. */
static void multi_settle(struct transfers *t)
{
    LIST_EACH (n, &t->doomed) {
        struct transfer *x = LIST_ENTRY(n, struct transfer, node);
        curl_multi_remove_handle(t->multi, x->easy);
        transfer_free(x);
    }
    while (!list_is_empty(&t->wanted)) {
        struct transfer *x = LIST_ENTRY(t->wanted.next, struct transfer, node);
        list_remove(&x->node);
        list_push_back(&t->running, &x->node);
        curl_multi_add_handle(t->multi, x->easy);
    }
    int left = 0;
    for (CURLMsg *msg = curl_multi_info_read(t->multi, &left); msg != NULL;
         msg = curl_multi_info_read(t->multi, &left)) {
        void *x = NULL;
        if (msg->msg != CURLMSG_DONE)
            continue;
        CURLcode code = msg->data.result;
        curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, &x);
        transfer_finish(x, code);
    }
}

static void multi_act(struct transfers *t, curl_socket_t fd, int flags)
{
    int running = 0;
    t->inside++;
    curl_multi_socket_action(t->multi, fd, flags, &running);
    t->inside--;
    multi_settle(t);
}

static void watch_closed(uv_handle_t *handle) { mem_free(handle->data); }

static void on_socket_event(uv_poll_t *poll, int status, int events)
{
    struct socket_watch *w = poll->data;
    int flags = (events & UV_READABLE ? CURL_CSELECT_IN : 0) | (events & UV_WRITABLE ? CURL_CSELECT_OUT : 0);
    if (status < 0) /* told as an error without a number: curl finds it on its next read */
        flags = CURL_CSELECT_IN | CURL_CSELECT_OUT;
    multi_act(w->owner, w->fd, flags);
}

static int on_socket_interest(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg)
{
    (void)easy;
    struct transfers *t = arg;
    struct socket_watch *w = socket_arg;
    if (what == CURL_POLL_REMOVE) {
        if (w != NULL) {
            curl_multi_assign(t->multi, fd, NULL);
            uv_poll_stop(&w->poll);
            uv_close((uv_handle_t *)&w->poll, watch_closed);
        }
        return 0;
    }
    if (w == NULL) {
        w = mem_zalloc(sizeof *w);
        w->owner = t;
        w->fd = fd;
        if (uv_poll_init_socket(&t->loop->uv, &w->poll, fd) != 0) {
            mem_free(w);
            return -1;
        }
        w->poll.data = w;
        curl_multi_assign(t->multi, fd, w);
    }
    uv_poll_start(&w->poll, (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0),
                  on_socket_event);
    return 0;
}

static void on_timeout(struct loop_timer *timer)
{
    multi_act(CONTAINER_OF(timer, struct transfers, timeout), CURL_SOCKET_TIMEOUT, 0);
}

static int on_timeout_wanted(CURLM *multi, long ms, void *arg)
{
    (void)multi;
    struct transfers *t = arg;
    if (ms < 0)
        loop_timer_stop(&t->timeout);
    else
        loop_timer_start(&t->timeout, ms > 0 ? (uint64_t)ms : 1);
    return 0;
}

/* ---- beginning ---- */

static void set_bounds(struct transfer *x, const struct transfer_request *r)
{
    CURL *e = x->easy;
    curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(e, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, r->max_redirects > 0 ? 1L : 0L);
    curl_easy_setopt(e, CURLOPT_MAXREDIRS, (long)r->max_redirects);
    curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, (long)(r->connect_ms > 0 ? r->connect_ms : CONNECT_MS));
    curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, (long)r->total_ms);
    if (r->idle_ms > 0) {
        curl_easy_setopt(e, CURLOPT_LOW_SPEED_LIMIT, 1L);
        curl_easy_setopt(e, CURLOPT_LOW_SPEED_TIME, ((long)r->idle_ms + 999) / 1000);
    }
    if (x->r.max_bytes <= INT64_MAX && !(r->method != NULL && strcmp(r->method, "HEAD") == 0))
        curl_easy_setopt(e, CURLOPT_MAXFILESIZE_LARGE, (curl_off_t)x->r.max_bytes);
    /* A peer that is gone without a word looks like one that has nothing to say. */
    curl_easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(e, CURLOPT_TCP_KEEPIDLE, (long)KEEPALIVE_IDLE_S);
    curl_easy_setopt(e, CURLOPT_TCP_KEEPINTVL, (long)KEEPALIVE_EVERY_S);
    curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    /* Names are looked up on curl's threads; without this, giving a transfer up would wait for its thread. */
    curl_easy_setopt(e, CURLOPT_QUICK_EXIT, 1L);
    curl_easy_setopt(e, CURLOPT_PROXY, r->proxy != NULL ? r->proxy : "");
    curl_easy_setopt(e, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    if (r->unix_socket != NULL)
        curl_easy_setopt(e, CURLOPT_UNIX_SOCKET_PATH, r->unix_socket);
    curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
}

static void set_callbacks(struct transfer *x)
{
    CURL *e = x->easy;
    curl_easy_setopt(e, CURLOPT_PRIVATE, x);
    curl_easy_setopt(e, CURLOPT_ERRORBUFFER, x->curl_error);
    curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(e, CURLOPT_HEADERDATA, x);
    curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(e, CURLOPT_WRITEDATA, x);
    curl_easy_setopt(e, CURLOPT_OPENSOCKETFUNCTION, open_socket);
    curl_easy_setopt(e, CURLOPT_OPENSOCKETDATA, x);
    curl_easy_setopt(e, CURLOPT_PREREQFUNCTION, before_request);
    curl_easy_setopt(e, CURLOPT_PREREQDATA, x);
    if (x->r.progress != NULL) {
        curl_easy_setopt(e, CURLOPT_XFERINFOFUNCTION, on_progress);
        curl_easy_setopt(e, CURLOPT_XFERINFODATA, x);
        curl_easy_setopt(e, CURLOPT_NOPROGRESS, 0L);
    }
}

static void set_blob(CURL *e, CURLoption option, struct str pem)
{
    struct curl_blob blob = {.data = (void *)(uintptr_t)pem.p, .len = pem.n, .flags = CURL_BLOB_COPY};
    curl_easy_setopt(e, option, &blob);
}

/* The certificate's name is another than the url's: curl is told the name as host, and where it really is. */
static void set_server_name(struct transfer *x, const char *url, const char *name)
{
    CURLU *u = curl_url();
    char *host = NULL, *port = NULL, *whole = NULL;
    if (u != NULL && curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK &&
        curl_url_get(u, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
        curl_url_get(u, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK &&
        curl_url_set(u, CURLUPART_HOST, name, 0) == CURLUE_OK &&
        curl_url_get(u, CURLUPART_URL, &whole, 0) == CURLUE_OK) {
        char *to = mem_printf("%s:%s:%s:%s", name, port, host, port), *header = mem_printf("Host: %s:%s", host, port);
        x->connect_to = curl_slist_append(NULL, to);
        x->headers = curl_slist_append(x->headers, header);
        curl_easy_setopt(x->easy, CURLOPT_CONNECT_TO, x->connect_to);
        curl_easy_setopt(x->easy, CURLOPT_URL, whole);
        mem_free(to);
        mem_free(header);
    }
    curl_free(host);
    curl_free(port);
    curl_free(whole);
    curl_url_cleanup(u);
}

static void set_tls(struct transfer *x, const struct transfer_tls *tls)
{
    CURL *e = x->easy;
    curl_easy_setopt(e, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    if (tls->insecure) {
        curl_easy_setopt(e, CURLOPT_SSL_VERIFYPEER, 0L);
        curl_easy_setopt(e, CURLOPT_SSL_VERIFYHOST, 0L);
    }
    if (tls->ca_pem.n > 0)
        set_blob(e, CURLOPT_CAINFO_BLOB, tls->ca_pem);
    else if (tls->ca_file != NULL)
        curl_easy_setopt(e, CURLOPT_CAINFO, tls->ca_file);
    if ((tls->ca_pem.n > 0 || tls->ca_file != NULL) && !tls->ca_also)
        curl_easy_setopt(e, CURLOPT_CAPATH, NULL);
    if (tls->cert_pem.n > 0)
        set_blob(e, CURLOPT_SSLCERT_BLOB, tls->cert_pem);
    else if (tls->cert_file != NULL)
        curl_easy_setopt(e, CURLOPT_SSLCERT, tls->cert_file);
    if (tls->key_pem.n > 0)
        set_blob(e, CURLOPT_SSLKEY_BLOB, tls->key_pem);
    else if (tls->key_file != NULL)
        curl_easy_setopt(e, CURLOPT_SSLKEY, tls->key_file);
}

/* A file that cannot be read is found by curl, which asks for its first byte and is told to stop. */
static void set_body_file(struct transfer *x, const struct transfer_request *r)
{
    CURL *e = x->easy;
    x->file = fopen(r->body_file, "rbe");
    off_t end = x->file != NULL && fseeko(x->file, 0, SEEK_END) == 0 ? ftello(x->file) : 0;
    uint64_t whole = end > 0 ? (uint64_t)end : 0, at = r->body_file_at < whole ? r->body_file_at : whole;
    x->file_at = at;
    x->file_n = r->body_file_n > 0 && r->body_file_n < whole - at ? r->body_file_n : whole - at;
    x->file_left = x->file_n;
    if (x->file != NULL)
        (void)fseeko(x->file, (off_t)at, SEEK_SET);
    curl_easy_setopt(e, CURLOPT_UPLOAD, 1L);
    curl_easy_setopt(e, CURLOPT_INFILESIZE_LARGE, (curl_off_t)x->file_n);
    curl_easy_setopt(e, CURLOPT_READFUNCTION, on_file_read);
    curl_easy_setopt(e, CURLOPT_READDATA, x);
    curl_easy_setopt(e, CURLOPT_SEEKFUNCTION, on_file_seek);
    curl_easy_setopt(e, CURLOPT_SEEKDATA, x);
}

static void set_request(struct transfer *x, const struct transfer_request *r)
{
    CURL *e = x->easy;
    curl_easy_setopt(e, CURLOPT_URL, r->url);
    curl_easy_setopt(e, CURLOPT_USERAGENT, "weir/" WEIR_VERSION);
    bool typed = false;
    for (size_t i = 0; i < r->header_count; i++) {
        x->headers = curl_slist_append(x->headers, r->headers[i]);
        typed |= strncasecmp(r->headers[i], "content-type:", 13) == 0;
    }
    x->headers = curl_slist_append(x->headers, "Expect:");
    if (!typed)
        x->headers = curl_slist_append(x->headers, "Content-Type:");
    if (r->body_file != NULL) {
        set_body_file(x, r);
    } else if (r->has_body) {
        curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)r->body.n);
        curl_easy_setopt(e, CURLOPT_COPYPOSTFIELDS, r->body.n > 0 ? r->body.p : "");
    }
    if (r->method != NULL && strcmp(r->method, "HEAD") == 0)
        curl_easy_setopt(e, CURLOPT_NOBODY, 1L);
    else if (r->method != NULL && strcmp(r->method, "GET") != 0)
        curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, r->method);
    else if (r->has_body || r->body_file != NULL)
        curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, "GET");
}

struct transfer *transfer_start(struct transfers *t, const struct transfer_request *r)
{
    struct transfer *x = mem_zalloc(sizeof *x);
    x->owner = t;
    x->r = (struct transfer_request){.max_redirects = r->max_redirects,
                                     .guard = r->guard,
                                     .max_bytes = r->max_bytes,
                                     .on_head = r->on_head,
                                     .on_data = r->on_data,
                                     .done = r->done,
                                     .progress = r->progress,
                                     .arg = r->arg};
    if (x->r.max_bytes == 0)
        x->r.max_bytes = r->on_data != NULL ? SIZE_MAX : TRANSFER_BODY_DEFAULT;
    x->outside = r->outside;
    list_init(&x->node);
    x->easy = curl_easy_init();
    ASSERT(x->easy != NULL);
    set_request(x, r);
    set_bounds(x, r);
    set_callbacks(x);
    set_tls(x, &r->tls);
    if (r->tls.server_name != NULL)
        set_server_name(x, r->url, r->tls.server_name);
    curl_easy_setopt(x->easy, CURLOPT_HTTPHEADER, x->headers);
    if (t->inside > 0) {
        list_push_back(&t->wanted, &x->node);
    } else {
        list_push_back(&t->running, &x->node);
        curl_multi_add_handle(t->multi, x->easy);
    }
    return x;
}

void transfer_cancel(struct transfer *x)
{
    struct transfers *t = x->owner;
    x->cancelled = true;
    if (t->inside > 0) {
        list_remove(&x->node);
        list_push_back(&t->doomed, &x->node);
        return;
    }
    curl_multi_remove_handle(t->multi, x->easy);
    transfer_free(x);
}

/* ---- all of them ---- */

struct transfers *transfers_new(struct loop *loop, const struct transfers_options *o)
{
    struct transfers *t = mem_zalloc(sizeof *t);
    t->loop = loop;
    list_init(&t->running);
    list_init(&t->wanted);
    list_init(&t->doomed);
    loop_timer_init(&t->timeout, loop, on_timeout);
    curl_global_init(CURL_GLOBAL_DEFAULT);
    t->multi = curl_multi_init();
    ASSERT(t->multi != NULL);
    curl_multi_setopt(t->multi, CURLMOPT_SOCKETFUNCTION, on_socket_interest);
    curl_multi_setopt(t->multi, CURLMOPT_SOCKETDATA, t);
    curl_multi_setopt(t->multi, CURLMOPT_TIMERFUNCTION, on_timeout_wanted);
    curl_multi_setopt(t->multi, CURLMOPT_TIMERDATA, t);
    if (o != NULL && o->allow_count > 0) {
        t->allow = mem_zalloc(o->allow_count * sizeof *t->allow);
        for (; t->allow_count < o->allow_count; t->allow_count++)
            ASSERT(cidr_parse(o->allow[t->allow_count], &t->allow[t->allow_count]));
    }
    return t;
}

static void timeout_closed(struct loop_timer *timer)
{
    struct transfers *t = CONTAINER_OF(timer, struct transfers, timeout);
    mem_free(t->allow);
    mem_free(t);
}

void transfers_free(struct transfers *t)
{
    ASSERT(t->inside == 0);
    LIST_EACH (n, &t->running)
        transfer_cancel(LIST_ENTRY(n, struct transfer, node));
    curl_multi_cleanup(t->multi);
    curl_global_cleanup();
    loop_timer_close(&t->timeout, timeout_closed);
}
