/* SPDX-License-Identifier: Apache-2.0
 *
 * weir echo: a small upstream that answers with what it received, as JSON, for demos and tests. A request can ask for
 * more by its query: ?status=404 answers with that status, ?bytes=1000 with a body of that many bytes,
 * ?header=name:value adds a response header.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/cli.h"
#include "web/http_server.h"

static const char help_text[] = "usage: weir echo --listen ADDR [--name NAME]\n\n"
                                "Answers every request with what it received, as JSON. ?status=404, ?bytes=1000 and\n"
                                "?header=name:value in the query shape the answer. Ends on SIGTERM and SIGINT.\n";
enum { ECHO_BYTES_MAX = 64 * 1024 * 1024 };

static void add_member(struct strbuf *b, const char *name, struct str value, bool comma)
{
    strbuf_printf(b, "\"%s\":", name);
    strbuf_add_json(b, value);
    if (comma)
        strbuf_addc(b, ',');
}

static void add_headers(struct strbuf *b, const struct headers *h)
{
    strbuf_addz(b, "\"headers\":{");
    bool first = true;
    for (uint32_t i = 0; i < h->count; i++) {
        if (h->list[i].name.n > 0 && h->list[i].name.p[0] == ':')
            continue;
        bool seen = false;
        for (uint32_t k = 0; k < i; k++)
            seen |= str_eq(h->list[k].name, h->list[i].name);
        if (seen)
            continue;
        struct strbuf joined = {0};
        for (uint32_t k = i; k < h->count; k++) {
            if (!str_eq(h->list[k].name, h->list[i].name))
                continue;
            if (k > i)
                strbuf_addz(&joined, ", ");
            strbuf_add(&joined, h->list[k].value);
        }
        if (!first)
            strbuf_addc(b, ',');
        first = false;
        strbuf_add_json(b, h->list[i].name);
        strbuf_addc(b, ':');
        strbuf_add_json(b, strbuf_str(&joined));
        strbuf_free(&joined);
    }
    strbuf_addz(b, "},");
}

static void echo_handle(void *arg, const struct http_request *r, struct http_response *out)
{
    const char *name = arg;
    uint64_t bytes = UINT64_MAX, status = 200;
    struct str rest = r->query;
    while (rest.p != NULL && rest.n > 0) {
        struct str one = str_split(&rest, '&');
        if (str_starts(one, STR("status=")))
            (void)!str_to_u64(str_from(one, 7), 599, &status);
        else if (str_starts(one, STR("bytes=")))
            (void)!str_to_u64(str_from(one, 6), ECHO_BYTES_MAX, &bytes);
        else if (str_starts(one, STR("header=")))
            strbuf_printf(&out->headers, "%.*s\n", STR_ARG(str_from(one, 7)));
    }
    out->status = status < 200 ? 200 : (unsigned)status;
    out->content_type = "application/json";
    if (bytes != UINT64_MAX) {
        for (uint64_t i = 0; i < bytes; i++)
            strbuf_addc(&out->body, (char)('a' + i % 26));
        return;
    }
    strbuf_addc(&out->body, '{');
    if (name != NULL)
        add_member(&out->body, "server", str_of(name), true);
    add_member(&out->body, "method", r->method, true);
    add_member(&out->body, "path", headers_value(&r->msg->headers, HDR_PATH), true);
    add_member(&out->body, "host", r->authority, true);
    add_headers(&out->body, &r->msg->headers);
    add_member(&out->body, "body", r->body, false);
    strbuf_addz(&out->body, "}\n");
}

static void on_signal(uv_signal_t *handle, int signum)
{
    (void)signum;
    loop_stop(handle->data);
}

static int serve(const struct addr *addr, const char *name)
{
    struct loop loop;
    int fd = listener_open(addr, 1024);
    if (fd < 0) {
        fprintf(stderr, "weir echo: cannot listen: %s\n", strerror(errno));
        return CLI_FAILED;
    }
    loop_init(&loop);
    struct http_server_options o = {.max_connections = 10000,
                                    .max_body = ECHO_BYTES_MAX,
                                    .idle_ms = 600000,
                                    .handle = echo_handle,
                                    .arg = (void *)(uintptr_t)name};
    struct http_server *server = http_server_new(&loop, fd, &o);
    uv_signal_t term, interrupt;
    uv_signal_init(&loop.uv, &term);
    uv_signal_init(&loop.uv, &interrupt);
    term.data = interrupt.data = &loop;
    uv_signal_start(&term, on_signal, SIGTERM);
    uv_signal_start(&interrupt, on_signal, SIGINT);
    loop_run(&loop);
    uv_close((uv_handle_t *)&term, NULL);
    uv_close((uv_handle_t *)&interrupt, NULL);
    http_server_free(server);
    loop_fini(&loop);
    return CLI_OK;
}

int cli_echo(int argc, char **argv)
{
    struct cli_args a = {.argc = argc, .argv = argv};
    struct addr addr;
    bool have = false;
    const char *name = NULL;
    while (cli_next(&a)) {
        if (a.name != NULL && strcmp(a.name, "help") == 0) {
            fputs(help_text, stdout);
            return CLI_OK;
        }
        if (a.name == NULL)
            return cli_usage_error("echo", "no operand is wanted: \"%s\"", a.value);
        bool is_name = strcmp(a.name, "name") == 0;
        if (!is_name && strcmp(a.name, "listen") != 0)
            return cli_usage_error("echo", "no option --%s", a.name);
        const char *v = cli_value(&a);
        if (v == NULL)
            return CLI_USAGE;
        if (is_name)
            name = v;
        else if (!addr_parse(str_of(v), &addr))
            return cli_usage_error("echo", "--listen \"%s\": want IP:PORT", v);
        else
            have = true;
    }
    return have ? serve(&addr, name) : cli_usage_error("echo", "needs --listen ADDR");
}
