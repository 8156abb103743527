/* SPDX-License-Identifier: Apache-2.0
 *
 * What push and pull share: the options that say where registries are, and a progress bar.
 */
#ifndef WEIR_CLI_REGISTRY_OPTIONS_H
#define WEIR_CLI_REGISTRY_OPTIONS_H

#include "cli/cli.h"
#include "fetch/registry.h"

#define REGISTRY_OPTIONS_HELP                                                                                          \
    "  --registry NAME=URL        where images are whose reference begins with NAME; several of one NAME are mirrors\n" \
    "  --registries FILE          more of them, one a line, with certificates and credentials\n"                       \
    "  --insecure-registry HOST   https without verification, or plain http, for this one\n"

/* -1: not one of these options; CLI_OK: taken; CLI_USAGE: wrong (said on standard error). */
int registry_option(struct registry_table *t, const char *command, struct cli_args *a);

/* A bar on standard error when that is a terminal; nothing otherwise. total 0: unknown. */
struct cli_bar {
    bool on;
    int shown; /* percent; -1: nothing yet */
};
void cli_bar_init(struct cli_bar *bar);
void cli_bar_show(struct cli_bar *bar, const char *what, uint64_t done, uint64_t total);
/* Takes it away. */
void cli_bar_end(struct cli_bar *bar);
/* "weir COMMAND: text" on standard error, control characters of servers escaped. */
void cli_complain(const char *command, const char *text);

#endif
