/* SPDX-License-Identifier: Apache-2.0
 *
 * See registry_options.h.
 */
#include "cli/registry_options.h"

#include <stdio.h>
#include <unistd.h>

enum { BAR_WIDTH = 30, MIB = 1024 * 1024 };

int registry_option(struct registry_table *t, const char *command, struct cli_args *a)
{
    char *error = NULL;
    bool registry = strcmp(a->name, "registry") == 0, file = strcmp(a->name, "registries") == 0;
    if (!registry && !file && strcmp(a->name, "insecure-registry") != 0)
        return -1;
    const char *value = cli_value(a);
    if (value == NULL)
        return CLI_USAGE;
    bool ok = registry ? registry_table_add(t, value, &error)
              : file   ? registry_table_load(t, value, &error)
                       : registry_table_add_insecure(t, value, &error);
    if (ok)
        return CLI_OK;
    (void)cli_usage_error(command, "%s", error);
    mem_free(error);
    return CLI_USAGE;
}

void cli_bar_init(struct cli_bar *bar) { *bar = (struct cli_bar){.on = isatty(STDERR_FILENO) == 1, .shown = -1}; }

void cli_bar_show(struct cli_bar *bar, const char *what, uint64_t done, uint64_t total)
{
    if (!bar->on || total == 0)
        return;
    int percent = (int)(done >= total ? 100 : done * 100 / total);
    if (percent == bar->shown)
        return;
    bar->shown = percent;
    char line[BAR_WIDTH + 1];
    for (int i = 0; i < BAR_WIDTH; i++)
        line[i] = i * 100 < percent * BAR_WIDTH ? '=' : ' ';
    line[BAR_WIDTH] = '\0';
    fprintf(stderr, "\r%-11s [%s] %3d %% of %.1f MiB", what, line, percent, (double)total / MIB);
}

void cli_bar_end(struct cli_bar *bar)
{
    if (bar->on && bar->shown >= 0)
        fprintf(stderr, "\r\033[K");
    bar->shown = -1;
}

void cli_complain(const char *command, const char *text)
{
    struct strbuf b = {0};
    strbuf_add_escaped(&b, str_of(text));
    fprintf(stderr, "weir %s: %.*s\n", command, STR_ARG(strbuf_str(&b)));
    strbuf_free(&b);
}
