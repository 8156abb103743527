/* SPDX-License-Identifier: Apache-2.0
 *
 * Compiles modules in a child process: weir re-executed at low priority, with limits, killed at its time limit. In the
 * gateway itself a compile could not be cancelled, a compiler's panic would end the traffic, and its memory would stay.
 * At most two at a time; the rest wait.
 */
#ifndef WEIR_CONTROL_COMPILER_H
#define WEIR_CONTROL_COMPILER_H

#include "io/loop.h"

struct compiler;
struct compiler *compiler_new(struct loop *loop, const char *program, uint32_t test_delay_ms);
/* Kills what runs. No callback comes any more. */
void compiler_free(struct compiler *c);
/* Compiles the file `wasm` into the file `out`. done runs later, on the loop: error is NULL when out is complete, else
 * a text (borrowed). Paths are copied. */
void compiler_run(struct compiler *c, const char *wasm, const char *out, const char *tier,
                  void (*done)(void *arg, const char *error), void *arg);

/* Body of the child (`weir compile-module TIER IN OUT`): returns the exit code; errors go to standard error as one
 * line. */
int compiler_child_main(const char *tier, const char *in, const char *out);

#endif
