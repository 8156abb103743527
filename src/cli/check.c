/* SPDX-License-Identifier: Apache-2.0
 *
 * weir check: the same reading and composing as `run`, without serving. All or nothing: any error makes it exit 1.
 * Warnings do not.
 */
#include <stdio.h>
#include <unistd.h>

#include "cli/cli.h"
#include "control/compose.h"
#include "control/source_dir.h"

static const char help_text[] = "usage: weir check [--namespace NS] [--labels k=v,...] PATH...\n\n"
                                "Validates files and directories as `weir run` would. Prints every error as\n"
                                "file:line:col: path: message, and exits 1 if there is any.\n";

static void print_diag(const struct diag *d, size_t *errors, size_t *warnings)
{
    for (size_t i = 0; i < d->count; i++) {
        char *text = diag_format(&d->entries[i]);
        bool error = d->entries[i].level == DIAG_ERROR;
        printf("%s%s\n", error ? "" : "warning: ", text);
        *(error ? errors : warnings) += 1;
        mem_free(text);
    }
}

static void ignore_change(void *arg) { (void)arg; }

static void check_store(const struct store *store, size_t *errors, size_t *warnings)
{
    struct diag files = {0};
    store_file_errors(store, &files);
    print_diag(&files, errors, warnings);
    diag_free(&files);
    MAP_EACH (e, &store->objects)
        print_diag(&((const struct store_object *)e->value)->diag, errors, warnings);
}

/* References between objects: what run would leave out. */
static void check_usage(const struct store *store, const struct identity *identity, size_t *errors, size_t *warnings)
{
    struct delivery *none = delivery_new(&(struct delivery_options){0});
    struct usage_table usage = {0};
    struct compose_memory memory = {0};
    struct snapshot *s = compose_snapshot(store, none, identity, 1, &memory, &usage);
    MAP_EACH (e, &store->objects) {
        const struct store_object *o = e->value;
        const struct usage *u = usage_find(&usage, o->kind, o->ns, o->name);
        if (u == NULL || u->accepted || o->good == NULL)
            continue;
        printf("%s%s:%u:1: %s %s%s%s: %s: %s\n", u->mistake ? "" : "warning: ", o->file, o->line, kind_name(o->kind),
               o->ns, o->ns[0] != '\0' ? "/" : "", o->name, u->reason, u->message);
        *(u->mistake ? errors : warnings) += 1;
    }
    snapshot_unref(s);
    usage_free(&usage);
    compose_memory_free(&memory);
    delivery_free(none);
}

enum { NS_MAX = 256 };
struct check_args {
    const char **paths;
    size_t count;
    char ns[NS_MAX];
    struct identity identity;
};

/* *done: all was said already. */
static int read_args(struct cli_args *a, struct check_args *to, bool *done)
{
    while (cli_next(a)) {
        if (a->name == NULL) {
            to->paths[to->count++] = a->value;
        } else if (strcmp(a->name, "help") == 0) {
            fputs(help_text, stdout);
            *done = true;
            return CLI_OK;
        } else if (strcmp(a->name, "namespace") == 0) {
            const char *v = cli_value(a);
            if (v == NULL)
                return CLI_USAGE;
            snprintf(to->ns, sizeof to->ns, "%s", v);
        } else if (strcmp(a->name, "labels") == 0) {
            const char *v = cli_value(a);
            cli_labels_free(&to->identity.labels);
            if (v == NULL)
                return CLI_USAGE;
            if (!cli_labels(v, &to->identity.labels))
                return cli_usage_error("check", "--labels \"%s\": want k=v,k=v", v);
        } else {
            return cli_usage_error("check", "no option --%s", a->name);
        }
    }
    if (to->count == 0)
        return cli_usage_error("check", "needs a file or directory");
    for (size_t i = 0; i < to->count; i++)
        if (access(to->paths[i], F_OK) != 0)
            return cli_usage_error("check", "%s: no such file or directory", to->paths[i]);
    return CLI_OK;
}

static int check(const struct check_args *args)
{
    struct loop loop;
    struct store store = {0};
    size_t errors = 0, warnings = 0;
    loop_init(&loop);
    struct source_dir *source = source_dir_new(&loop, &store, args->paths, args->count, "default", ignore_change, NULL);
    source_dir_scan(source);
    check_store(&store, &errors, &warnings);
    check_usage(&store, &args->identity, &errors, &warnings);
    size_t objects = store.objects.count;
    source_dir_free(source);
    loop_fini(&loop);
    store_free(&store);
    if (errors > 0) {
        fflush(stdout); /* the sum comes last, also where both go into one pipe */
        fprintf(stderr, "%zu error%s, %zu warning%s\n", errors, errors == 1 ? "" : "s", warnings,
                warnings == 1 ? "" : "s");
        return CLI_FAILED;
    }
    printf("%zu object%s, no errors, %zu warning%s\n", objects, objects == 1 ? "" : "s", warnings,
           warnings == 1 ? "" : "s");
    return CLI_OK;
}

int cli_check(int argc, char **argv)
{
    char name[] = "weir";
    struct check_args args = {.paths = mem_zalloc(((size_t)argc + 1) * sizeof *args.paths), .ns = "istio-system"};
    args.identity = (struct identity){.name = name, .ns = args.ns};
    ASSERT(cli_labels("istio=ingressgateway", &args.identity.labels));
    struct cli_args a = {.argc = argc, .argv = argv};
    bool done = false;
    int code = read_args(&a, &args, &done);
    if (code == CLI_OK && !done)
        code = check(&args);
    cli_labels_free(&args.identity.labels);
    mem_free(args.paths);
    return code;
}
