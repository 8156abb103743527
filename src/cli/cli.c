/* SPDX-License-Identifier: Apache-2.0
 *
 * Chooses the subcommand, and the option reader they share.
 */
#include "cli/cli.h"

#include <stdio.h>

struct command {
    const char *name, *args, *what;
    int (*run)(int argc, char **argv);
};
static const struct command commands[] = {
    {"run", "[PATH...]", "serve the resources in files or directories; reloads when they change", cli_run},
    {"check", "PATH...", "validate as run would; every error as file:line:col: path: message", cli_check},
    {"convert", "FILE...", "the WasmPlugins that Istio EnvoyFilters mean, and what has no equivalent", cli_convert},
    {"inspect", "FILE.wasm", "ABI version, imports, exports, memory, sections, what is not supported", cli_inspect},
    {"status", "[--admin ADDR]", "what runs now, from the admin address", cli_status},
    {"top", "[--once]", "the gateway as it works, every second, in the terminal", cli_top},
    {"echo", "--listen ADDR", "a small upstream that answers with what it received, as JSON", cli_echo},
    {"push", "FILE.wasm REF", "a module into a registry, as an image or an artifact", cli_push},
    {"pull", "REF [-o FILE]", "the module of an image in a registry, into a file", cli_pull},
    {"sign", "REF --key FILE", "an image in a registry, so that verificationKey lets it pass; makes keys", cli_sign},
    {"version", "", "version of weir", cli_version},
};

static int help(FILE *to, int code)
{
    fprintf(to, "weir - a service gateway programmed by WebAssembly filters\n\nusage: weir COMMAND [ARGS]\n\n");
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        fprintf(to, "  %-8s %-15s %s\n", commands[i].name, commands[i].args, commands[i].what);
    fprintf(to, "\n\"weir COMMAND --help\" says more.\n");
    return code;
}

int cli_main(int argc, char **argv)
{
    if (argc < 2)
        return help(stderr, CLI_USAGE);
    struct str name = str_of(argv[1]);
    if (str_is(name, "help") || str_is(name, "--help") || str_is(name, "-h"))
        return help(stdout, CLI_OK);
    if (str_is(name, "--version"))
        return cli_version(argc - 1, argv + 1);
    if (str_is(name, "compile-module")) /* run's own child; no command for users */
        return cli_compile_module(argc - 1, argv + 1);
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        if (str_is(name, commands[i].name))
            return commands[i].run(argc - 1, argv + 1);
    fprintf(stderr, "weir: no command \"%s\"\n\n", argv[1]);
    return help(stderr, CLI_USAGE);
}

bool cli_next(struct cli_args *a)
{
    if (a->at == 0)
        a->at = 1;
    if (a->at >= a->argc)
        return false;
    char *arg = a->argv[a->at++];
    a->name = a->value = NULL;
    if (strncmp(arg, "--", 2) != 0 || arg[2] == '\0') {
        a->value = arg;
        return true;
    }
    char *equals = strchr(arg, '=');
    if (equals != NULL) {
        *equals = '\0';
        a->value = equals + 1;
    }
    a->name = arg + 2;
    return true;
}

const char *cli_value(struct cli_args *a)
{
    if (a->value == NULL && a->at < a->argc)
        a->value = a->argv[a->at++];
    if (a->value == NULL)
        fprintf(stderr, "weir: --%s needs a value\n", a->name);
    return a->value;
}

int cli_usage_error(const char *command, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fprintf(stderr, "weir %s: ", command);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fprintf(stderr, "\n\"weir %s --help\" says how.\n", command);
    return CLI_USAGE;
}

bool cli_labels(const char *text, struct labels *out)
{
    struct str rest = str_of(text);
    *out = (struct labels){0};
    while (rest.p != NULL) {
        struct str one = str_split(&rest, ',');
        ptrdiff_t equals = str_find(one, '=');
        if (one.n == 0)
            continue;
        if (equals <= 0)
            return false;
        out->list = mem_realloc(out->list, (out->count + 1) * sizeof *out->list);
        out->list[out->count++] =
            (struct label){str_dup(str_upto(one, (size_t)equals)), str_dup(str_from(one, (size_t)equals + 1))};
    }
    return true;
}

void cli_labels_free(struct labels *l)
{
    for (size_t i = 0; i < l->count; i++) {
        mem_free(l->list[i].key);
        mem_free(l->list[i].value);
    }
    mem_free(l->list);
    *l = (struct labels){0};
}
