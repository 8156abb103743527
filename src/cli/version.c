/* SPDX-License-Identifier: Apache-2.0
 *
 * weir version; and the compiler child's entry.
 */
#include <stdio.h>

#include "cli/cli.h"
#include "control/compiler.h"

int cli_version(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    printf("weir %s\n", WEIR_VERSION);
    return CLI_OK;
}

int cli_compile_module(int argc, char **argv)
{
    if (argc != 4)
        return CLI_USAGE;
    return compiler_child_main(argv[1], argv[2], argv[3]);
}
