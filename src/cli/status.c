/* SPDX-License-Identifier: Apache-2.0
 *
 * weir status: what runs now, read from the admin address: plugins, and what is not in use and why.
 */
#include <stdio.h>

#include "cli/ask.h"
#include "cli/cli.h"

static const char help_text[] =
    "usage: weir status [--admin ADDR] [--conditions]\n\n"
    "Shows plugins, listeners and what is not in use, from the admin address (default 127.0.0.1:15000).\n"
    "--conditions shows all that is said of each plugin, Gateway and route, as kubectl describe does.\n"
    "Exits 1 when the gateway is not ready or cannot be reached.\n";

/* What is said of a plugin in one line: when something older than its newest text serves, which and why. */
static void print_reason(const json_t *p)
{
    const char *reason = ask_text(p, "reason"), *message = ask_text(p, "message");
    bool live = json_integer_value(json_object_get(p, "generation")) > 0;
    if (live && json_is_false(json_object_get(p, "newestServes")))
        printf("generation %lld serves; the newest text: %s", json_integer_value(json_object_get(p, "generation")),
               reason[0] != '\0' ? "" : ask_text(p, "stage"));
    else if (!live && reason[0] == '\0')
        printf("%s", ask_text(p, "stage"));
    printf("%s%s%s\n", reason, message[0] != '\0' ? ": " : "", message);
}

static void print_workers(const json_t *p)
{
    size_t i;
    json_t *w;
    json_array_foreach(json_object_get(p, "workers"), i, w)
    {
        if (strcmp(ask_text(w, "state"), "live") != 0 && ask_text(w, "lastFailure")[0] != '\0')
            printf("    worker %zu %s: %s\n", i, ask_text(w, "state"), ask_text(w, "lastFailure"));
    }
}

static void print_warning(const json_t *p)
{
    size_t i;
    json_t *c;
    json_array_foreach(json_object_get(p, "conditions"), i, c)
    {
        if (strcmp(ask_text(c, "reason"), "AcceptedWithWarnings") == 0)
            printf("    looks wrong: %s\n", ask_text(c, "message"));
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
        char *title = mem_printf("%s/%s", ask_text(p, "namespace"), ask_text(p, "name"));
        const char *phase = ask_text(p, "phase");
        printf("%-36s %-10s %-9s %-12.12s ", title, ask_text(p, "state"),
               strcmp(phase, "UNSPECIFIED_PHASE") == 0 ? "-" : phase, ask_text(p, "sha256"));
        print_reason(p);
        if (json_is_false(json_object_get(p, "appliesToTraffic")))
            printf("    %s\n", ask_text(p, "appliesMessage"));
        print_warning(p);
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
    json_array_foreach(json_object_get(config, "listeners"), i, o) if (ask_text(o, "error")[0] != '\0')
        printf("not in use: %s\n", ask_text(o, "error"));
    json_array_foreach(json_object_get(config, "objects"), i, o)
    {
        json_array_foreach(json_object_get(o, "errors"), k, text) printf(
            "not in use%s: %s\n", strcmp(ask_text(o, "state"), "stale") == 0 ? " (last good version serves)" : "",
            json_string_value(text));
        if (json_is_false(json_object_get(o, "accepted")) && strcmp(ask_text(o, "kind"), "WasmPlugin") != 0)
            printf("not in use: %s %s/%s: %s: %s\n", ask_text(o, "kind"), ask_text(o, "namespace"), ask_text(o, "name"),
                   ask_text(o, "reason"), ask_text(o, "message"));
    }
}

/* A document, or NULL and why on standard error. */
static json_t *get_json(const char *admin, const char *path)
{
    char *error = NULL;
    json_t *doc = ask_json(admin, path, &error);
    if (doc == NULL)
        fprintf(stderr, "weir status: %s\n", error);
    mem_free(error);
    return doc;
}

/* Each condition of each object that has some: "True     Fetched     Fetched     from ...". */
static void print_conditions(const json_t *config)
{
    size_t i, k;
    json_t *o, *c;
    json_array_foreach(json_object_get(config, "objects"), i, o)
    {
        if (json_array_size(json_object_get(o, "conditions")) == 0)
            continue;
        printf("\n%s %s%s%s\n", ask_text(o, "kind"), ask_text(o, "namespace"),
               ask_text(o, "namespace")[0] != '\0' ? "/" : "", ask_text(o, "name"));
        json_array_foreach(json_object_get(o, "conditions"), k, c)
        {
            const char *scope = ask_text(c, "scope"), *message = ask_text(c, "message");
            printf("    %-8s %s%s%-13s %s%s%s\n", ask_text(c, "status"), scope, scope[0] != '\0' ? " " : "",
                   ask_text(c, "type"), ask_text(c, "reason"), message[0] != '\0' ? ": " : "", message);
        }
    }
}

static int show(const char *admin, bool conditions)
{
    struct strbuf ready = {0};
    char *error = NULL;
    long status = ask(admin, "/ready", &ready, &error);
    if (status == 0) {
        fprintf(stderr, "weir status: %s\n", error);
        mem_free(error);
        return CLI_FAILED;
    }
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
    if (config != NULL && conditions)
        print_conditions(config);
    bool ok = status == 200 && plugins != NULL && config != NULL;
    json_decref(plugins);
    json_decref(config);
    return ok ? CLI_OK : CLI_FAILED;
}

int cli_status(int argc, char **argv)
{
    struct cli_args a = {.argc = argc, .argv = argv};
    const char *admin = "127.0.0.1:15000";
    bool conditions = false;
    while (cli_next(&a)) {
        if (a.name != NULL && strcmp(a.name, "help") == 0) {
            fputs(help_text, stdout);
            return CLI_OK;
        }
        if (a.name == NULL)
            return cli_usage_error("status", "no operand is wanted: \"%s\"", a.value);
        if (strcmp(a.name, "conditions") == 0 && a.value == NULL) {
            conditions = true;
            continue;
        }
        if (strcmp(a.name, "admin") != 0)
            return cli_usage_error("status", "no option --%s", a.name);
        admin = cli_value(&a);
        if (admin == NULL)
            return CLI_USAGE;
    }
    return show(admin, conditions);
}
