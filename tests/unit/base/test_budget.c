/* SPDX-License-Identifier: Apache-2.0
 *
 * The memory limit that cgroups set, on directory trees made for it: both versions, nested groups, names that the mount
 * does not show, and files that say nothing.
 */
#include "base/budget.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/str.h"

#define V2 "/sys/fs/cgroup"
#define V1 "/sys/fs/cgroup/memory"

static char root[64];

/* Makes the folders that lead to it, too. */
static void put(const char *path, const char *text)
{
    char *full = mem_printf("%s%s", root, path);
    for (char *at = strchr(full + strlen(root) + 1, '/'); at != NULL; at = strchr(at + 1, '/')) {
        *at = '\0';
        (void)mkdir(full, 0700); /* it may be there already */
        *at = '/';
    }
    FILE *f = fopen(full, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
    mem_free(full);
}

static int make(void **state)
{
    (void)state;
    (void)snprintf(root, sizeof root, "/tmp/weir-test-XXXXXX");
    return mkdtemp(root) != NULL ? 0 : -1;
}

static int drop(void **state)
{
    (void)state;
    char *command = mem_printf("rm -rf '%s'", root);
    int failed = system(command);
    mem_free(command);
    return failed;
}

static void nothing_is_no_limit(void **state)
{
    (void)state;
    assert_int_equal(budget_cgroup_limit(root), 0);
    put("/proc/self/cgroup", "0::/a.slice/weir.service\n");
    put(V2 "/a.slice/weir.service/memory.max", "max\n");
    put(V2 "/a.slice/memory.max", "many\n");
    assert_int_equal(budget_cgroup_limit(root), 0);
}

static void tightest_of_nested_groups(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "0::/a.slice/b.slice/weir.service\n");
    put(V2 "/a.slice/b.slice/weir.service/memory.max", "max\n");
    put(V2 "/a.slice/b.slice/memory.max", "300000000\n");
    put(V2 "/a.slice/memory.max", "400000000\n");
    put(V2 "/a.slice/b.slice/other.service/memory.max", "1\n");
    assert_int_equal(budget_cgroup_limit(root), 300000000);
    put(V2 "/a.slice/b.slice/weir.service/memory.max", "200000000\n");
    assert_int_equal(budget_cgroup_limit(root), 200000000);
    put(V2 "/a.slice/memory.max", "100000000\n");
    assert_int_equal(budget_cgroup_limit(root), 100000000);
    put(V2 "/memory.max", "90000000"); /* a container's own */
    assert_int_equal(budget_cgroup_limit(root), 90000000);
}

static void root_group_of_a_namespace(void **state)
{
    (void)state;
    put(V2 "/memory.max", "5000\n");
    assert_int_equal(budget_cgroup_limit(root), 5000); /* no /proc */
    put("/proc/self/cgroup", "0::/\n");
    assert_int_equal(budget_cgroup_limit(root), 5000);
}

static void version_1(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "12:cpu,cpuacct:/x\n9:hugetlb,memory:/docker/abc\n1:name=systemd:/y\n0::/z\n");
    put(V1 "/memory.limit_in_bytes", "9223372036854771712\n");
    assert_int_equal(budget_cgroup_limit(root), 9223372036854771712u);
    put(V1 "/docker/memory.limit_in_bytes", "800\n");
    put(V1 "/x/memory.limit_in_bytes", "1\n");
    put(V1 "/y/memory.limit_in_bytes", "2\n");
    assert_int_equal(budget_cgroup_limit(root), 800);
    put(V1 "/docker/abc/memory.limit_in_bytes", "700\n");
    assert_int_equal(budget_cgroup_limit(root), 700);
    put(V2 "/z/memory.max", "600\n"); /* both */
    assert_int_equal(budget_cgroup_limit(root), 600);
}

static void odd_names_do_not_leave_the_mount(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "0::/../../weir\n");
    put("/sys/weir/memory.max", "1\n");
    put(V2 "/memory.max", "70\n");
    assert_int_equal(budget_cgroup_limit(root), 70);
    put("/proc/self/cgroup", "0::\n:::\n\nmemory\n7\n");
    assert_int_equal(budget_cgroup_limit(root), 70);
}

static void default_is_not_more_than_the_machine_has(void **state)
{
    (void)state;
    uint64_t all = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    assert_in_range(budget_default_limit(), 1, all / 10 * 8);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make, drop)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(nothing_is_no_limit),
        TEST(tightest_of_nested_groups),
        TEST(root_group_of_a_namespace),
        TEST(version_1),
        TEST(odd_names_do_not_leave_the_mount),
        TEST(default_is_not_more_than_the_machine_has),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
