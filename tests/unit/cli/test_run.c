/* SPDX-License-Identifier: Apache-2.0
 *
 * The command line of weir run, as far as it goes without serving: what is refused, and that the message says which
 * option and what it wants. What the options do is for the e2e tests.
 */
#include "cli_test.h"

/* An option with a value that is none, and what the message must say. */
static void test_values_that_are_none(void **state)
{
    static const struct {
        const char *option, *value, *says;
    } rows[] = {
        {"--workers", "0", "--workers \"0\": want 1 to 256"},
        {"--workers", "257", "--workers \"257\""},
        {"--workers", "two", "--workers \"two\""},
        {"--workers", "", "--workers \"\""},
        {"--drain-time", "-1", "--drain-time \"-1\": want seconds"},
        {"--drain-time", "86401", "--drain-time \"86401\""},
        {"--log-level", "loud", "--log-level \"loud\": want trace"},
        {"--labels", "=x", "--labels \"=x\": want k=v,k=v"},
        {"--labels", "a", "--labels \"a\""},
        {"--admin", "15000", "--admin \"15000\": want IP:PORT"},
        {"--admin", "localhost:1", "--admin \"localhost:1\""},
        {"--admin", "0.0.0.0:1", "--admin-any-address"},
        {"--kube-api", "0.0.0.0:8080", "--kube-api \"0.0.0.0:8080\": want a loopback"},
        {"--allow-fetch-to", "10.0.0.0/99", "--allow-fetch-to \"10.0.0.0/99\": want an address or CIDR"},
        {"--cache-size", "big", "--cache-size \"big\": want a size"},
        {"--compile-tier", "best", "--compile-tier \"best\": want auto"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char *joined = mem_printf("%s=%s", rows[i].option, rows[i].value);
        assert_refused(rows[i].says, cli_run, "run", rows[i].option, rows[i].value);
        assert_refused(rows[i].says, cli_run, "run", joined);
        mem_free(joined);
    }
}

static void test_options_without_a_value(void **state)
{
    static const char *const names[] = {"registry",       "registries",     "insecure-registry",
                                        "allow-fetch-to", "admin",          "allow-host-env",
                                        "cache-dir",      "cache-size",     "compile-tier",
                                        "dns-servers",    "drain-time",     "kube-api",
                                        "kubeconfig",     "label-selector", "labels",
                                        "log-level",      "module-dir",     "name",
                                        "namespace",      "state-dir",      "watch-namespace",
                                        "workers"};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        char *option = mem_printf("--%s", names[i]), *says = mem_printf("--%s needs a value", names[i]);
        assert_refused(says, cli_run, "run", option);
        mem_free(option);
        mem_free(says);
    }
}

/* "--kubernetes=false" must not turn it on. */
static void test_flags_take_no_value(void **state)
{
    static const char *const names[] = {"admin-any-address", "kubernetes", "show-plugin-config"};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        char *option = mem_printf("--%s=false", names[i]), *says = mem_printf("--%s takes no value", names[i]);
        assert_refused(says, cli_run, "run", option);
        mem_free(option);
        mem_free(says);
    }
}

static void test_other_mistakes(void **state)
{
    (void)state;
    assert_refused("no option --nonsense", cli_run, "run", "--nonsense");
    assert_refused("no option --nonsense", cli_run, "run", "--nonsense=1");
    assert_refused("/no/such/file: no such file", cli_run, "run", "/no/such/file");
    assert_refused("are for --kubernetes", cli_run, "run", "--watch-namespace", "a", "--watch-namespace", "b");
    /* Given twice, the last one counts; the first is let go (a leak is the sanitizer's to find). */
    assert_refused("no option --x", cli_run, "run", "--name=a", "--name=b", "--namespace=a", "--namespace=b",
                   "--labels=a=b", "--labels=c=d", "--allow-host-env=A,B", "--allow-host-env=C", "--x");
}

/* Each option that the help names is one. */
static void test_help(void **state)
{
    (void)state;
    assert_int_equal(RUN(cli_run, "run", "--help"), CLI_OK);
    assert_has(out_text, "usage: weir run");
    assert_string_equal(err_text, "");
    char *help = mem_strdup(out_text);
    unsigned options = 0;
    for (const char *at = strstr(help, "\n  --"); at != NULL; at = strstr(at + 1, "\n  --")) {
        char *option = mem_strndup(at + 3, strcspn(at + 3, " \n"));
        (void)RUN(cli_run, "run", option, "", "--none-such");
        char *unknown = mem_printf("no option %s\n", option);
        assert_null(strstr(err_text, unknown));
        mem_free(unknown);
        mem_free(option);
        options++;
    }
    assert_true(options > 15);
    mem_free(help);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values_that_are_none),
        cmocka_unit_test(test_options_without_a_value),
        cmocka_unit_test(test_flags_take_no_value),
        cmocka_unit_test(test_other_mistakes),
        cmocka_unit_test(test_help),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
