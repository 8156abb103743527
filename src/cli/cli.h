/* SPDX-License-Identifier: Apache-2.0
 *
 * The command line: one file for each subcommand. Exit codes: 0 fine, 1 what was asked for failed, 2 wrong usage.
 */
#ifndef WEIR_CLI_CLI_H
#define WEIR_CLI_CLI_H

#include "conf/resource.h"

enum { CLI_OK = 0, CLI_FAILED = 1, CLI_USAGE = 2 };

/* argv[0] is the subcommand's name. */
int cli_run(int argc, char **argv);
int cli_convert(int argc, char **argv);
int cli_check(int argc, char **argv);
int cli_inspect(int argc, char **argv);
int cli_echo(int argc, char **argv);
int cli_status(int argc, char **argv);
int cli_top(int argc, char **argv);
int cli_pull(int argc, char **argv);
int cli_push(int argc, char **argv);
int cli_sign(int argc, char **argv);
int cli_version(int argc, char **argv);
int cli_compile_module(int argc, char **argv);
/* Chooses the subcommand. */
int cli_main(int argc, char **argv);

/* A reader of "--name value" and "--name=value" options, in order; anything else is an operand. */
struct cli_args {
    int argc, at;
    char **argv;
    const char *name;  /* of the option just read, without dashes; NULL for an operand */
    const char *value; /* the operand, or what followed '='; NULL when there is none */
};
/* False at the end. */
bool cli_next(struct cli_args *a);
/* The option's value, from "=value" or the next argument; NULL (and a message on standard error) when there is none. */
const char *cli_value(struct cli_args *a);
/* "k=v,k=v" into out (cli_labels_free); false when it reads otherwise. */
bool cli_labels(const char *text, struct labels *out);
void cli_labels_free(struct labels *l);
/* Prints "weir COMMAND: text" and how to get help; returns CLI_USAGE. */
int cli_usage_error(const char *command, const char *fmt, ...) PRINTF_LIKE(2, 3);

#endif
