/* SPDX-License-Identifier: Apache-2.0
 *
 * What the tests of src/cli share: a subcommand is run as main would, and what it printed is kept.
 */
#ifndef WEIR_TESTS_CLI_TEST_H
#define WEIR_TESTS_CLI_TEST_H

#include "../loop_test.h"
#include "cli/cli.h"

enum { PRINTED_MAX = 16384 };
static char out_text[PRINTED_MAX], err_text[PRINTED_MAX];

/* ---- what goes to a stream, by way of a file ---- */

struct caught {
    FILE *stream, *file;
    int kept;
};
static struct caught catch_begin(FILE *stream)
{
    struct caught c = {stream, tmpfile(), -1};
    assert_non_null(c.file);
    fflush(stream);
    c.kept = dup(fileno(stream));
    assert_true(c.kept >= 0 && dup2(fileno(c.file), fileno(stream)) >= 0);
    return c;
}
static void catch_end(struct caught *c, char text[PRINTED_MAX])
{
    fflush(c->stream);
    assert_true(dup2(c->kept, fileno(c->stream)) >= 0);
    close(c->kept);
    rewind(c->file);
    text[fread(text, 1, PRINTED_MAX - 1, c->file)] = '\0';
    fclose(c->file);
}

/* words: NULL at the end; the first is the subcommand's name. Returns the exit code. */
static int run_words(int (*command)(int argc, char **argv), const char *const *words)
{
    char *argv[16];
    int argc = 0;
    for (; words[argc] != NULL; argc++) {
        assert_true(argc < 15);
        argv[argc] = mem_strdup(words[argc]); /* the reader writes into them */
    }
    char *owned[16];
    memcpy(owned, argv, sizeof owned);
    argv[argc] = NULL;
    struct caught out = catch_begin(stdout), err = catch_begin(stderr);
    int code = command(argc, argv);
    catch_end(&err, err_text);
    catch_end(&out, out_text);
    for (int i = 0; i < argc; i++)
        mem_free(owned[i]);
    return code;
}
#define RUN(command, ...) run_words(command, (const char *const[]){__VA_ARGS__, NULL})

#define assert_has(text, part)                                                                                         \
    do {                                                                                                               \
        if (strstr(text, part) == NULL)                                                                                \
            fail_msg("no \"%s\" in: %s", part, text);                                                                  \
    } while (0)

/* Wrong usage: exit code 2, a message on standard error that names what is wrong, nothing on standard output. */
#define assert_refused(says, command, ...)                                                                             \
    do {                                                                                                               \
        assert_int_equal(RUN(command, __VA_ARGS__), CLI_USAGE);                                                        \
        assert_has(err_text, says);                                                                                    \
        assert_string_equal(out_text, "");                                                                             \
    } while (0)

#endif
