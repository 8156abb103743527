/* SPDX-License-Identifier: Apache-2.0
 *
 * The few words every file of Weir uses: assertions that stay on in release builds, memory that aborts
 * when the machine has none, and attributes. Anything a peer or a guest can size is bounded by its caller
 * *before* it comes here (limits.h, budget.h); that is why allocation may abort.
 */
#ifndef WEIR_BASE_BASE_H
#define WEIR_BASE_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NODISCARD __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#define NORETURN __attribute__((noreturn))
#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/* Our own bug: says where and aborts. Always on. */
#define ASSERT(cond) ((cond) ? (void)0 : base_assert_failed(#cond, __FILE__, __LINE__))
NORETURN void base_assert_failed(const char *cond, const char *file, int line);

/* All return memory that is never NULL (n == 0 gives a valid, freeable pointer); abort when there is none. */
__attribute__((returns_nonnull)) void *mem_alloc(size_t n);
__attribute__((returns_nonnull)) void *mem_zalloc(size_t n);
__attribute__((returns_nonnull)) void *mem_realloc(void *p, size_t n);
/* NUL-terminated copy of n bytes. */
char *mem_strndup(const char *s, size_t n);
char *mem_strdup(const char *s);
/* printf into fresh memory. */
char *mem_printf(const char *fmt, ...) PRINTF_LIKE(1, 2);
/* p may be NULL. */
void mem_free(void *p);

#endif
