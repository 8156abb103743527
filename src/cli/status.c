/* SPDX-License-Identifier: Apache-2.0
 *
 * weir status: what runs now, read from the admin address: plugins, and what is not in use and why.
 */
#include <curl/curl.h>
#include <jansson.h>
#include <stdio.h>

#include "cli/cli.h"

static const char help_text[] =
    "usage: weir status [--admin ADDR]\n\n"
    "Shows plugins, listeners and what is not in use, from the admin address (default 127.0.0.1:15000).\n"
    "Exits 1 when the gateway is not ready or cannot be reached.\n";

static size_t on_bytes(char *p, size_t size, size_t count, void *arg)
{
    strbuf_add(arg, str_span(p, size * count));
    return size * count;
}

/* HTTP status, or 0 when there was no answer (said on standard error). */
static long get(const char *admin, const char *path, struct strbuf *out)
{
    char *url = mem_printf("http://%s%s", admin, path), why[CURL_ERROR_SIZE] = "";
    CURL *e = curl_easy_init();
    ASSERT(e != NULL);
    curl_easy_setopt(e, CURLOPT_URL, url);
    curl_easy_setopt(e, CURLOPT_PROXY, "");
    curl_easy_setopt(e, CURLOPT_TIMEOUT, 10L);
    curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_bytes);
    curl_easy_setopt(e, CURLOPT_WRITEDATA, out);
    curl_easy_setopt(e, CURLOPT_ERRORBUFFER, why);
    long status = 0;
    if (curl_easy_perform(e) == CURLE_OK)
        curl_easy_getinfo(e, CURLINFO_RESPONSE_CODE, &status);
    else
        fprintf(stderr, "weir status: %s: %s\n", url, why);
    curl_easy_cleanup(e);
    mem_free(url);
    return status;
}

static const char *text_of(const json_t *o, const char *name)
{
    const char *s = json_string_value(json_object_get(o, name));
    return s != NULL ? s : "";
}

/* What is said of a plugin in one line: when something older than its newest text serves, which and why. */
static void print_reason(const json_t *p)
{
    const char *reason = text_of(p, "reason"), *message = text_of(p, "message");
    bool live = json_integer_value(json_object_get(p, "generation")) > 0;
    if (live && json_is_false(json_object_get(p, "newestServes")))
        printf("generation %lld serves; the newest text: %s", json_integer_value(json_object_get(p, "generation")),
               reason[0] != '\0' ? "" : text_of(p, "stage"));
    else if (!live && reason[0] == '\0')
        printf("%s", text_of(p, "stage"));
    printf("%s%s%s\n", reason, message[0] != '\0' ? ": " : "", message);
}

static void print_workers(const json_t *p)
{
    size_t i;
    json_t *w;
    json_array_foreach(json_object_get(p, "workers"), i, w)
    {
        if (strcmp(text_of(w, "state"), "live") != 0 && text_of(w, "lastFailure")[0] != '\0')
            printf("    worker %zu %s: %s\n", i, text_of(w, "state"), text_of(w, "lastFailure"));
    }
}

static void print_plugins(const json_t *plugins)
{
    size_t i;
    json_t *p;
    if (json_array_size(plugins) == 0)
        printf("no plugins\n");
    else
        printf("%-36s %-10s %-9s %-12s %s\n", "PLUGIN", "STATE", "PHASE", "SHA256", "REASON");
    json_array_foreach(plugins, i, p)
    {
        char *title = mem_printf("%s/%s", text_of(p, "namespace"), text_of(p, "name"));
        const char *phase = text_of(p, "phase");
        printf("%-36s %-10s %-9s %-12.12s ", title, text_of(p, "state"),
               strcmp(phase, "UNSPECIFIED_PHASE") == 0 ? "-" : phase, text_of(p, "sha256"));
        print_reason(p);
        if (json_is_false(json_object_get(p, "appliesToTraffic")))
            printf("    %s\n", text_of(p, "appliesMessage"));
        print_workers(p);
        mem_free(title);
    }
}

static void print_problems(const json_t *config)
{
    size_t i, k;
    json_t *o, *text;
    json_array_foreach(json_object_get(config, "fileErrors"), i, text)
        printf("not in use: %s\n", json_string_value(text));
    json_array_foreach(json_object_get(config, "listeners"), i, o) if (text_of(o, "error")[0] != '\0')
        printf("not in use: %s\n", text_of(o, "error"));
    json_array_foreach(json_object_get(config, "objects"), i, o)
    {
        json_array_foreach(json_object_get(o, "errors"), k, text)
            printf("not in use%s: %s\n", strcmp(text_of(o, "state"), "stale") == 0 ? " (last good version serves)" : "",
                   json_string_value(text));
        if (json_is_false(json_object_get(o, "accepted")) && strcmp(text_of(o, "kind"), "WasmPlugin") != 0)
            printf("not in use: %s %s/%s: %s: %s\n", text_of(o, "kind"), text_of(o, "namespace"), text_of(o, "name"),
                   text_of(o, "reason"), text_of(o, "message"));
    }
}

static json_t *get_json(const char *admin, const char *path)
{
    struct strbuf b = {0};
    json_t *doc = get(admin, path, &b) == 200 ? json_loadb(b.p, b.n, 0, NULL) : NULL;
    strbuf_free(&b);
    return doc;
}

static int show(const char *admin)
{
    struct strbuf ready = {0};
    long status = get(admin, "/ready", &ready);
    if (status == 0)
        return CLI_FAILED;
    struct str why = str_trim(strbuf_str(&ready));
    while (why.n > 0 && why.p[why.n - 1] == '\n')
        why.n--;
    printf("gateway at %s: %s%.*s\n", admin, status == 200 ? "" : "not ready: ", STR_ARG(why));
    strbuf_free(&ready);
    json_t *plugins = get_json(admin, "/plugins"), *config = get_json(admin, "/config");
    if (plugins != NULL)
        print_plugins(json_object_get(plugins, "plugins"));
    if (config != NULL)
        print_problems(config);
    bool ok = status == 200 && plugins != NULL && config != NULL;
    json_decref(plugins);
    json_decref(config);
    return ok ? CLI_OK : CLI_FAILED;
}

int cli_status(int argc, char **argv)
{
    struct cli_args a = {.argc = argc, .argv = argv};
    const char *admin = "127.0.0.1:15000";
    while (cli_next(&a)) {
        if (a.name != NULL && strcmp(a.name, "help") == 0) {
            fputs(help_text, stdout);
            return CLI_OK;
        }
        if (a.name == NULL)
            return cli_usage_error("status", "no operand is wanted: \"%s\"", a.value);
        if (strcmp(a.name, "admin") != 0)
            return cli_usage_error("status", "no option --%s", a.name);
        admin = cli_value(&a);
        if (admin == NULL)
            return CLI_USAGE;
    }
    return show(admin);
}
