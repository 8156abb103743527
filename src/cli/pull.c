/* SPDX-License-Identifier: Apache-2.0
 *
 * weir pull: the module of an image into a file, by the same way as the gateway takes.
 */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "base/file.h"
#include "cli/registry_options.h"
#include "fetch/fetch.h"

enum { KEY_FILE_MAX = 64 * 1024 };

static const char help_text[] =
    "usage: weir pull [OPTION...] REF\n\n"
    "Fetches the Wasm module of an image or artifact as the gateway does, checks its digests, and writes it to a "
    "file.\n"
    "Credentials are those of docker login ($DOCKER_CONFIG/config.json or ~/.docker/config.json).\n\n"
    "  -o, --output FILE          where to; - is standard output (default: the repository's last word with .wasm)\n"
    "  --key FILE                 a public key (PEM): the image must be signed with its private "
    "one\n" REGISTRY_OPTIONS_HELP
    "\nPrints the digest and what was asked. Exit codes: 0 fine, 1 it did not work, 2 wrong usage.\n";

struct pull {
    struct loop loop;
    struct cli_bar bar;
    const char *reference, *output;
    char *key;
    int code;
};

static void on_stage(void *arg, const char *text)
{
    struct pull *p = arg;
    unsigned long long done = 0, total = 0;
    enum { MIB = 1024 * 1024 };
    if (sscanf(text, "downloading %llu of %llu MiB", &done, &total) == 2)
        cli_bar_show(&p->bar, "downloading", done * MIB, total * MIB);
}

static char *default_output(const char *reference)
{
    struct reference r;
    char *error = NULL;
    if (!reference_parse(str_of(reference), &r, &error)) { /* file:// or http:// */
        mem_free(error);
        return mem_strdup("plugin.wasm");
    }
    const char *slash = strrchr(r.repository, '/');
    char *path = mem_printf("%s.wasm", slash != NULL ? slash + 1 : r.repository);
    reference_free(&r);
    return path;
}

static bool write_all(int fd, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t done = write(fd, p, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return false;
        p += done;
        n -= (size_t)done;
    }
    return true;
}

/* False: said on standard error. */
static bool save(const struct pull *p, const struct fetch_result *r, const char *path)
{
    char *error = NULL;
    if (strcmp(path, "-") == 0) {
        if (write_all(STDOUT_FILENO, r->bytes, r->n))
            return true;
        error = mem_strdup(strerror(errno));
    } else if (file_replace(path, str_span(r->bytes, r->n), 0644, &error)) {
        return true;
    }
    char *text = mem_printf("%s: %s", path, error);
    cli_complain("pull", text);
    mem_free(text);
    mem_free(error);
    (void)p;
    return false;
}

static void on_done(void *arg, struct fetch_result *r)
{
    struct pull *p = arg;
    cli_bar_end(&p->bar);
    loop_stop(&p->loop);
    p->code = CLI_FAILED;
    if (r->warning != NULL)
        cli_complain("pull", r->warning);
    if (r->error != NULL) {
        char *text = mem_printf("%s: %s", r->reason, r->error);
        cli_complain("pull", text);
        mem_free(text);
        return;
    }
    char *path = p->output != NULL ? mem_strdup(p->output) : default_output(p->reference);
    if (save(p, r, path)) {
        FILE *to = strcmp(path, "-") == 0 ? stderr : stdout;
        fprintf(to, "digest: %s%s\n",
                r->digest[0] != '\0' ? r->digest : "sha256:", r->digest[0] != '\0' ? "" : r->module_sha256);
        if (r->index_digest[0] != '\0')
            fprintf(to, "index: %s\n", r->index_digest);
        fprintf(to, "module: sha256:%s, %zu bytes%s\n", r->module_sha256, r->n, r->verified ? ", signature good" : "");
        fprintf(to, "%s -> %s\n", r->from, path);
        p->code = CLI_OK;
    }
    mem_free(path);
}

static int run(struct pull *p, const struct registry_table *t)
{
    loop_init(&p->loop);
    cli_bar_init(&p->bar);
    struct fetcher *f = fetcher_new(&p->loop, &(struct fetcher_options){.registries = t});
    fetch_start(f, &(struct fetch_request){
                       .url = p->reference, .verification_key = p->key, .stage = on_stage, .done = on_done, .arg = p});
    loop_run(&p->loop);
    fetcher_free(f);
    loop_fini(&p->loop);
    return p->code;
}

/* CLI_OK, or CLI_USAGE and said why. */
static int read_key(struct pull *p, const char *path)
{
    size_t n = 0;
    char *error = NULL;
    mem_free(p->key);
    p->key = file_read_all(path, KEY_FILE_MAX, &n, &error);
    if (p->key != NULL)
        return CLI_OK;
    (void)cli_usage_error("pull", "%s: %s", path, error);
    mem_free(error);
    return CLI_USAGE;
}

static int read_options(struct pull *p, struct registry_table *t, struct cli_args *a, bool *help)
{
    while (cli_next(a)) {
        if (a->name == NULL && strcmp(a->value, "-o") == 0) {
            a->name = "output";
            a->value = NULL;
        }
        if (a->name == NULL && p->reference == NULL) {
            p->reference = a->value;
            continue;
        }
        if (a->name == NULL)
            return cli_usage_error("pull", "one reference, not also %s", a->value);
        if (strcmp(a->name, "help") == 0) {
            *help = true;
            return CLI_OK;
        }
        int taken = registry_option(t, "pull", a);
        if (taken == CLI_OK)
            continue;
        if (taken == CLI_USAGE)
            return CLI_USAGE;
        bool output = strcmp(a->name, "output") == 0;
        if (!output && strcmp(a->name, "key") != 0)
            return cli_usage_error("pull", "no option --%s", a->name);
        const char *value = cli_value(a);
        if (value == NULL || (!output && read_key(p, value) != CLI_OK))
            return CLI_USAGE;
        if (output)
            p->output = value;
    }
    return p->reference != NULL ? CLI_OK : cli_usage_error("pull", "which image?");
}

int cli_pull(int argc, char **argv)
{
    struct cli_args a = {.argc = argc, .argv = argv};
    struct pull p = {0};
    struct registry_table *t = registry_table_new();
    bool help = false;
    int code = read_options(&p, t, &a, &help);
    if (help)
        fputs(help_text, stdout);
    else if (code == CLI_OK)
        code = run(&p, t);
    mem_free(p.key);
    registry_table_free(t);
    return code;
}
