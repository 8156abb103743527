/* SPDX-License-Identifier: Apache-2.0
 *
 * See fetch.h. Files are read on libuv's thread pool; http goes through one curl multi handle driven by the loop
 * (curl says which sockets and which timeout, the loop says what happened). What must never happen: a blocked
 * control loop, or memory beyond FETCH_BYTES_MAX.
 */
#include "fetch/fetch.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <netinet/in.h>

#include "base/file.h"

enum { CONNECT_LIMIT_S = 10, TOTAL_LIMIT_S = 120, LOW_SPEED_S = 20, REDIRECTS_MAX = 5 };

struct fetcher {
    struct loop *loop;
    CURLM *multi;
    struct loop_timer timeout;
    struct list fetches;
};
struct fetch {
    struct list node;
    struct fetcher *owner;
    void (*done)(void *arg, struct fetch_result *result); /* NULL once cancelled */
    void *arg;
    /* file */
    uv_work_t work;
    char *path, *bytes, *error;
    size_t n;
    /* http */
    CURL *easy;
    struct strbuf body;
    char curl_error[CURL_ERROR_SIZE];
    bool too_large, guarded;
};
struct socket_watch {
    uv_poll_t poll;
    struct fetcher *owner;
    curl_socket_t fd;
};

static void fetch_free(struct fetch *f)
{
    list_remove(&f->node);
    mem_free(f->path);
    mem_free(f->bytes);
    mem_free(f->error);
    strbuf_free(&f->body);
    mem_free(f);
}

static void fetch_finish(struct fetch *f, struct fetch_result *result)
{
    if (f->done != NULL)
        f->done(f->arg, result);
    else
        mem_free(result->bytes);
    fetch_free(f);
}

/* ---- files ---- */

static void file_work(uv_work_t *work)
{
    struct fetch *f = work->data;
    f->bytes = file_read_all(f->path, FETCH_BYTES_MAX, &f->n, &f->error);
}

static void file_done(uv_work_t *work, int status)
{
    struct fetch *f = work->data;
    (void)status;
    char *text = f->error != NULL ? mem_printf("%s: %s", f->path, f->error) : NULL;
    struct fetch_result result = {.bytes = f->bytes, .n = f->n, .error = text, .reason = "FetchFailed", .retry = true};
    f->bytes = NULL;
    fetch_finish(f, &result);
    mem_free(text);
}

/* ---- http ---- */

/* Link-local addresses and the cloud's metadata services are never a place modules come from: a url from somebody who
 * may write WasmPlugins must not read the machine's credentials. */
static bool address_is_guarded(const struct sockaddr *sa)
{
    if (sa->sa_family == AF_INET) {
        uint32_t a = ntohl(((const struct sockaddr_in *)(const void *)sa)->sin_addr.s_addr);
        return (a >> 16) == 0xa9fe /* 169.254/16 */ || a == 0xa83f8110u /* 168.63.129.16 */ ||
               a == 0x646464c8u /* 100.100.100.200 */;
    }
    if (sa->sa_family == AF_INET6) {
        const struct in6_addr *a = &((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr;
        if (IN6_IS_ADDR_V4MAPPED(a)) {
            struct sockaddr_in in = {.sin_family = AF_INET};
            memcpy(&in.sin_addr, a->s6_addr + 12, 4);
            return address_is_guarded((const struct sockaddr *)&in);
        }
        static const unsigned char metadata[16] = {0xfd, 0x00, 0x0e, 0xc2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x02, 0x54};
        return IN6_IS_ADDR_LINKLOCAL(a) || memcmp(a->s6_addr, metadata, 16) == 0;
    }
    return true;
}

static curl_socket_t open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
    struct fetch *f = arg;
    (void)purpose;
    if (address_is_guarded(&address->addr)) {
        f->guarded = true;
        return CURL_SOCKET_BAD;
    }
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

static size_t on_body(char *p, size_t size, size_t count, void *arg)
{
    struct fetch *f = arg;
    size_t n = size * count;
    if (f->body.n + n > FETCH_BYTES_MAX) {
        f->too_large = true;
        return 0;
    }
    strbuf_add(&f->body, str_span(p, n));
    return n;
}

static void http_finish(struct fetch *f, CURLcode code)
{
    long status = 0;
    curl_easy_getinfo(f->easy, CURLINFO_RESPONSE_CODE, &status);
    curl_multi_remove_handle(f->owner->multi, f->easy);
    curl_easy_cleanup(f->easy);
    f->easy = NULL;
    char *text = NULL;
    struct fetch_result result = {.retry = true, .reason = "FetchFailed"};
    if (f->guarded) {
        text = mem_strdup("the address is link-local or a cloud's metadata service");
        result.retry = false;
    } else if (f->too_large) {
        text = mem_printf("is larger than %d bytes", FETCH_BYTES_MAX);
        result.retry = false;
    } else if (code != CURLE_OK)
        text = mem_printf("%s", f->curl_error[0] != '\0' ? f->curl_error : curl_easy_strerror(code));
    else if (status != 200)
        text = mem_printf("the server answered %ld", status);
    result.error = text;
    if (text == NULL) {
        result.n = f->body.n;
        result.bytes = strbuf_take(&f->body);
    }
    fetch_finish(f, &result);
    mem_free(text);
}

static void multi_harvest(struct fetcher *fr)
{
    int left = 0;
    for (CURLMsg *msg = curl_multi_info_read(fr->multi, &left); msg != NULL;
         msg = curl_multi_info_read(fr->multi, &left)) {
        if (msg->msg != CURLMSG_DONE)
            continue;
        void *f = NULL;
        CURLcode code = msg->data.result;
        curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, &f);
        http_finish(f, code);
    }
}

static void watch_closed(uv_handle_t *handle) { mem_free(handle->data); }

static void on_socket_event(uv_poll_t *poll, int status, int events)
{
    struct socket_watch *w = poll->data;
    struct fetcher *fr = w->owner;
    int flags = (events & UV_READABLE ? CURL_CSELECT_IN : 0) | (events & UV_WRITABLE ? CURL_CSELECT_OUT : 0);
    if (status < 0) /* told as an error without a number: curl finds it on its next read */
        flags = CURL_CSELECT_IN | CURL_CSELECT_OUT;
    int running = 0;
    curl_multi_socket_action(fr->multi, w->fd, flags, &running);
    multi_harvest(fr);
}

static int on_socket_interest(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg)
{
    (void)easy;
    struct fetcher *fr = arg;
    struct socket_watch *w = socket_arg;
    if (what == CURL_POLL_REMOVE) {
        if (w != NULL) {
            curl_multi_assign(fr->multi, fd, NULL);
            uv_poll_stop(&w->poll);
            uv_close((uv_handle_t *)&w->poll, watch_closed);
        }
        return 0;
    }
    if (w == NULL) {
        w = mem_zalloc(sizeof *w);
        w->owner = fr;
        w->fd = fd;
        if (uv_poll_init_socket(&fr->loop->uv, &w->poll, fd) != 0) {
            mem_free(w);
            return -1;
        }
        w->poll.data = w;
        curl_multi_assign(fr->multi, fd, w);
    }
    uv_poll_start(&w->poll, (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0),
                  on_socket_event);
    return 0;
}

static void on_timeout(struct loop_timer *timer)
{
    struct fetcher *fr = CONTAINER_OF(timer, struct fetcher, timeout);
    int running = 0;
    curl_multi_socket_action(fr->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    multi_harvest(fr);
}

static int on_timeout_wanted(CURLM *multi, long ms, void *arg)
{
    (void)multi;
    struct fetcher *fr = arg;
    if (ms < 0)
        loop_timer_stop(&fr->timeout);
    else
        loop_timer_start(&fr->timeout, ms > 0 ? (uint64_t)ms : 1);
    return 0;
}

static void http_start(struct fetch *f, const char *url)
{
    CURL *e = f->easy = curl_easy_init();
    ASSERT(e != NULL);
    curl_easy_setopt(e, CURLOPT_URL, url);
    curl_easy_setopt(e, CURLOPT_PRIVATE, f);
    curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(e, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(e, CURLOPT_MAXREDIRS, (long)REDIRECTS_MAX);
    curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_LIMIT_S);
    curl_easy_setopt(e, CURLOPT_TIMEOUT, (long)TOTAL_LIMIT_S);
    curl_easy_setopt(e, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(e, CURLOPT_LOW_SPEED_TIME, (long)LOW_SPEED_S);
    curl_easy_setopt(e, CURLOPT_MAXFILESIZE_LARGE, (curl_off_t)FETCH_BYTES_MAX);
    curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    /* Names are looked up on curl's threads; without this, giving a fetch up would wait for its thread. */
    curl_easy_setopt(e, CURLOPT_QUICK_EXIT, 1L);
    curl_easy_setopt(e, CURLOPT_PROXY, ""); /* the environment does not decide where modules come from */
    curl_easy_setopt(e, CURLOPT_USERAGENT, "weir/" WEIR_VERSION);
    curl_easy_setopt(e, CURLOPT_ERRORBUFFER, f->curl_error);
    curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(e, CURLOPT_WRITEDATA, f);
    curl_easy_setopt(e, CURLOPT_OPENSOCKETFUNCTION, open_socket);
    curl_easy_setopt(e, CURLOPT_OPENSOCKETDATA, f);
    curl_multi_add_handle(f->owner->multi, e);
}

/* ---- entry points ---- */

struct fetcher *fetcher_new(struct loop *loop)
{
    struct fetcher *fr = mem_zalloc(sizeof *fr);
    fr->loop = loop;
    list_init(&fr->fetches);
    loop_timer_init(&fr->timeout, loop, on_timeout);
    curl_global_init(CURL_GLOBAL_DEFAULT);
    fr->multi = curl_multi_init();
    ASSERT(fr->multi != NULL);
    curl_multi_setopt(fr->multi, CURLMOPT_SOCKETFUNCTION, on_socket_interest);
    curl_multi_setopt(fr->multi, CURLMOPT_SOCKETDATA, fr);
    curl_multi_setopt(fr->multi, CURLMOPT_TIMERFUNCTION, on_timeout_wanted);
    curl_multi_setopt(fr->multi, CURLMOPT_TIMERDATA, fr);
    return fr;
}

struct fetch *fetch_start(struct fetcher *fr, const struct fetch_request *r)
{
    const char *url = r->url;
    struct fetch *f = mem_zalloc(sizeof *f);
    f->owner = fr;
    f->done = r->done;
    f->arg = r->arg;
    list_init(&f->node);
    list_push_back(&fr->fetches, &f->node);
    if (strncmp(url, "file://", 7) == 0) {
        f->path = mem_strdup(url + 7);
        f->work.data = f;
        ASSERT(uv_queue_work(&fr->loop->uv, &f->work, file_work, file_done) == 0);
    } else {
        http_start(f, url);
    }
    return f;
}

void fetch_cancel(struct fetch *f)
{
    f->done = NULL;
    if (f->easy == NULL)
        return; /* the thread pool will finish it, unheard */
    curl_multi_remove_handle(f->owner->multi, f->easy);
    curl_easy_cleanup(f->easy);
    fetch_free(f);
}

static void timeout_closed(struct loop_timer *timer) { mem_free(CONTAINER_OF(timer, struct fetcher, timeout)); }

void fetcher_free(struct fetcher *fr)
{
    LIST_EACH (n, &fr->fetches)
        fetch_cancel(LIST_ENTRY(n, struct fetch, node));
    /* File reads still in the thread pool end in file_done, which takes them off the list: run until then. */
    while (!list_is_empty(&fr->fetches))
        uv_run(&fr->loop->uv, UV_RUN_ONCE);
    curl_multi_cleanup(fr->multi);
    curl_global_cleanup();
    loop_timer_close(&fr->timeout, timeout_closed);
}
