/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory helpers, the budget, the list, and that a failed assertion ends the process.
 */
#include "base/base.h"

#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/budget.h"
#include "base/list.h"

static void test_memory(void **state)
{
    (void)state;
    char *none = mem_alloc(0);
    assert_non_null(none);
    none = mem_realloc(none, 0);
    assert_non_null(none);
    mem_free(none);
    mem_free(NULL);
    unsigned char *zero = mem_zalloc(100);
    for (int i = 0; i < 100; i++)
        assert_int_equal(zero[i], 0);
    mem_free(zero);
    char *part = mem_strndup("abc\0def", 5);
    assert_memory_equal(part, "abc\0d", 6);
    mem_free(part);
    char *text = mem_printf("%s-%d", "x", 7);
    assert_string_equal(text, "x-7");
    mem_free(text);
}

static void test_assert_aborts(void **state)
{
    (void)state;
    ASSERT(1 + 1 == 2);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        close(STDERR_FILENO);
        signal(SIGABRT, SIG_DFL);
        ASSERT(child != 0);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
}

static void test_budget(void **state)
{
    (void)state;
    uint64_t before = budget_used();
    budget_charge(100);
    assert_int_equal(budget_used(), before + 100);
    budget_release(100);
    assert_int_equal(budget_level(), BUDGET_FINE);
    assert_true(budget_try_charge(1 << 30)); /* no ceiling yet */
    budget_release(1 << 30);

    budget_set_limit(before + 1000);
    uint64_t near = (before + 1000) - (before + 1000) / 10;
    assert_true(budget_try_charge((size_t)(near - before)));
    assert_int_equal(budget_level(), BUDGET_FINE);
    assert_true(budget_try_charge(1));
    assert_int_equal(budget_level(), BUDGET_NEAR);
    size_t left = (size_t)(before + 1000 - budget_used());
    assert_false(budget_try_charge(left + 1));
    assert_false(budget_try_charge(SIZE_MAX));
    assert_true(budget_try_charge(left));
    assert_int_equal(budget_level(), BUDGET_NEAR);
    budget_charge(1); /* always counts */
    assert_int_equal(budget_level(), BUDGET_OVER);
    assert_false(budget_try_charge(0));
    budget_release(1001);
    assert_int_equal(budget_used(), before);
    budget_set_limit(0);
}

struct item {
    int value;
    struct list node;
};

static void test_list(void **state)
{
    (void)state;
    struct list head = LIST_INIT(head);
    struct item items[4] = {{.value = 0}, {.value = 1}, {.value = 2}, {.value = 3}};
    assert_true(list_is_empty(&head));
    for (int i = 0; i < 3; i++)
        list_push_back(&head, &items[i].node);
    list_push_front(&head, &items[3].node);
    int expected[] = {3, 0, 1, 2}, seen = 0;
    LIST_EACH (pos, &head) {
        assert_int_equal(LIST_ENTRY(pos, struct item, node)->value, expected[seen++]);
        list_remove(pos);
        list_remove(pos); /* twice does nothing */
        assert_false(list_is_linked(pos));
    }
    assert_int_equal(seen, 4);
    assert_true(list_is_empty(&head));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_assert_aborts),
        cmocka_unit_test(test_budget),
        cmocka_unit_test(test_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
