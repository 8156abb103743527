/* SPDX-License-Identifier: Apache-2.0
 *
 * For unit tests that run guests: assembling WAT text with wat2wasm, and living beside cmocka, which installs its own
 * handlers for SIGSEGV, SIGILL and SIGFPE around each test, over those with which Wasmtime turns faults of a guest into
 * traps. Call guest_signals_save once after engine_new, outside of any test, and guest_signals_restore first thing in
 * each test.
 */
#ifndef WEIR_TESTS_WASM_GUEST_H
#define WEIR_TESTS_WASM_GUEST_H

#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/str.h"

extern char **environ;

static const int guest_signal_numbers[] = {SIGSEGV, SIGILL, SIGFPE, SIGBUS};
static struct sigaction guest_signal_actions[ARRAY_LEN(guest_signal_numbers)];

static inline void guest_signals_save(void)
{
    for (size_t i = 0; i < ARRAY_LEN(guest_signal_numbers); i++)
        sigaction(guest_signal_numbers[i], NULL, &guest_signal_actions[i]);
}

static inline void guest_signals_restore(void)
{
    for (size_t i = 0; i < ARRAY_LEN(guest_signal_numbers); i++)
        sigaction(guest_signal_numbers[i], &guest_signal_actions[i], NULL);
}

static inline struct strbuf guest_read_file(const char *path)
{
    struct strbuf bytes = {0};
    char piece[4096];
    size_t n;
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    while ((n = fread(piece, 1, sizeof(piece), f)) > 0)
        strbuf_add(&bytes, str_span(piece, n));
    fclose(f);
    return bytes;
}

static inline void guest_write_file(const char *path, struct str bytes)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes.p, 1, bytes.n, f), bytes.n);
    fclose(f);
}

/* The module in the file wat, with a name section. option: one more for wat2wasm, or NULL. Free with strbuf_free. */
static inline struct strbuf guest_assemble(const char *wat, const char *option)
{
    char out[] = "/tmp/weir-test-guest-XXXXXX";
    int fd = mkstemp(out);
    assert_true(fd >= 0);
    close(fd);
    char *argv[] = {"wat2wasm", "--debug-names", (char *)wat, "-o", out, (char *)option, NULL};
    pid_t pid;
    int status = -1;
    assert_int_equal(posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    struct strbuf wasm = guest_read_file(out);
    unlink(out);
    return wasm;
}

static inline struct strbuf guest_assemble_text(const char *text, const char *option)
{
    char path[] = "/tmp/weir-test-wat-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    guest_write_file(path, str_of(text));
    struct strbuf wasm = guest_assemble(path, option);
    unlink(path);
    return wasm;
}

#endif
