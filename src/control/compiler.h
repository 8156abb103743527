/* SPDX-License-Identifier: Apache-2.0
 *
 * Compiles modules in a child process: weir re-executed at low priority, with limits, killed at its time limit. In the
 * gateway itself a compile could not be cancelled, a compiler's panic would end the traffic, and its memory would stay.
 * At most two at a time; the rest wait, and those of the background last: one at a time, and only what nobody waits for
 * may wait for them.
 */
#ifndef WEIR_CONTROL_COMPILER_H
#define WEIR_CONTROL_COMPILER_H

#include "io/loop.h"

struct compiler;
struct compiler *compiler_new(struct loop *loop, const char *program, uint32_t test_delay_ms);
/* Kills what runs, and runs the loop until it is gone. No callback comes any more. */
void compiler_free(struct compiler *c);
/* Compiles the file `wasm` into the file `out`. done runs once, later, on the loop: error is NULL when out is complete,
 * else a text (borrowed), and again says that another try may go better: it was killed, ran out of time, or could not
 * start. Paths are copied. */
struct compile;
typedef void (*compile_done)(void *arg, const char *error, bool again);
struct compile *compiler_run(struct compiler *c, const char *wasm, const char *out, const char *tier, bool background,
                             compile_done done, void *arg);
/* No longer a matter of the background. */
void compiler_hurry(struct compile *job);
/* done will not run; the child is killed, and what it wrote removed. */
void compiler_cancel(struct compile *job);
/* No free place: the next one (not of the background) would wait. */
bool compiler_is_full(const struct compiler *c);

/* Body of the child (`weir compile-module TIER IN OUT`): returns the exit code; errors go to standard error as one
 * line. */
int compiler_child_main(const char *tier, const char *in, const char *out);

#endif
