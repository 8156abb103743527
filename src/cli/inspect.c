/* SPDX-License-Identifier: Apache-2.0
 *
 * weir inspect: what a module is, without running it.
 */
#include <stdio.h>

#include "base/file.h"
#include "cli/cli.h"
#include "control/module_cache.h"
#include "fetch/fetch.h"
#include "wasm/plugin.h"

static const char help_text[] =
    "usage: weir inspect FILE.wasm\n\n"
    "Shows the ABI version, imports, exports, memory and sections of a Proxy-Wasm module, and what in it is\n"
    "not supported. Exits 1 when the gateway would not load it.\n";

static bool is_served(const struct module_import *import)
{
    size_t count = 0;
    const struct vm_host_func *table = abi_host_functions(&count);
    for (size_t i = 0; i < count; i++)
        if (str_is(import->module, table[i].module) && str_is(import->name, table[i].name))
            return true;
    return false;
}

static void print_name(struct str name)
{
    struct strbuf b = {0};
    strbuf_add_escaped(&b, name);
    printf("%.*s", STR_ARG(strbuf_str(&b)));
    strbuf_free(&b);
}

static void print_imports(const struct module_info *info)
{
    printf("imports: %zu\n", info->import_count);
    for (size_t i = 0; i < info->import_count; i++) {
        const struct module_import *m = &info->imports[i];
        printf("  ");
        print_name(m->module);
        printf(".");
        print_name(m->name);
        printf(" %s%s\n", m->type != NULL ? m->type : "",
               m->kind != 'f' ? "  NOT SUPPORTED: only functions can be imported"
               : is_served(m) ? ""
                              : "  unknown: answered by a stub");
    }
}

static int report(const char *path, struct str wasm)
{
    struct module_info info = {0};
    char *error = NULL, digest[65];
    if (!module_info_parse(wasm, &info, &error)) {
        fprintf(stderr, "%s: is not a valid Wasm module: %s\n", path, error != NULL ? error : "malformed");
        mem_free(error);
        return CLI_FAILED;
    }
    sha256_hex(wasm, digest);
    const char *warning = NULL;
    enum abi_version abi = abi_detect(&info, &warning);
    printf("file: %s\nbytes: %zu\nsha256: %s\nname: %s\nabi: %s\n", path, wasm.n, digest,
           info.name != NULL ? info.name : "-", abi == ABI_NONE ? "none" : abi_version_name(abi));
    if (warning != NULL)
        printf("warning: %s\n", warning);
    printf("memory: %llu pages at start", (unsigned long long)info.memory_min_pages);
    if (info.memory_max_pages > 0)
        printf(", at most %llu", (unsigned long long)info.memory_max_pages);
    printf("\ntable: %u elements\n", info.table_min);
    print_imports(&info);
    printf("exports: %zu\n", info.export_count);
    for (size_t i = 0; i < info.export_count; i++) {
        printf("  ");
        print_name(info.exports[i].name);
        printf(" %s\n", info.exports[i].kind == 'f'   ? info.exports[i].type
                        : info.exports[i].kind == 'm' ? "memory"
                                                      : "");
    }
    printf("sections:");
    for (size_t i = 0; i < info.section_count; i++) {
        printf(" ");
        print_name(info.sections[i].name);
        printf("=%zu", info.sections[i].bytes);
    }
    printf("\n");
    char *problem = abi == ABI_NONE
                        ? mem_strdup("missing or unknown Proxy-Wasm ABI version (no proxy_abi_version_* export)")
                        : abi_check_module(&info);
    printf("verdict: %s\n", problem == NULL ? "loads" : problem);
    module_info_free(&info);
    int code = problem == NULL ? CLI_OK : CLI_FAILED;
    mem_free(problem);
    return code;
}

int cli_inspect(int argc, char **argv)
{
    struct cli_args a = {.argc = argc, .argv = argv};
    const char *path = NULL;
    while (cli_next(&a)) {
        if (a.name != NULL && strcmp(a.name, "help") == 0) {
            fputs(help_text, stdout);
            return CLI_OK;
        }
        if (a.name != NULL)
            return cli_usage_error("inspect", "no option --%s", a.name);
        if (path != NULL)
            return cli_usage_error("inspect", "takes one file");
        path = a.value;
    }
    if (path == NULL)
        return cli_usage_error("inspect", "needs a file");
    size_t n = 0;
    char *error = NULL, *bytes = file_read_all(path, FETCH_BYTES_MAX, &n, &error);
    if (bytes == NULL) {
        fprintf(stderr, "%s: %s\n", path, error);
        mem_free(error);
        return CLI_FAILED;
    }
    int code = report(path, str_span(bytes, n));
    mem_free(bytes);
    return code;
}
