/* SPDX-License-Identifier: Apache-2.0
 *
 * Docker's config.json, and the search with files and helpers: scripts of the test's own directory, which is all that
 * PATH has besides the shell.
 */
#include "../loop_test.h"

#include <signal.h>

#include "fetch/credentials.h"

/* ---- what a config says ---- */

static struct credentials got;
static char *helper, *server;

static void forget(void)
{
    credentials_free(&got);
    mem_free(helper);
    mem_free(server);
    helper = server = NULL;
}
static void look(const char *json, const char *target)
{
    char *error = NULL;
    forget();
    if (!credentials_read_config(str_of(json), str_of(target), &got, &helper, &server, &error))
        fail_msg("%s", error);
}
static void is_user(const char *user, const char *password)
{
    assert_null(helper);
    assert_string_equal(got.user, user);
    assert_string_equal(got.password, password);
}
static void is_nobody(void)
{
    assert_null(helper);
    assert_true(credentials_is_empty(&got));
}

/* u:p is dTpw */
static void test_keys(void **state)
{
    (void)state;
    static const char config[] =
        "{\"auths\":{\"h.example\":{\"auth\":\"dTpw\"},\"h.example:5000\":{\"username\":\"five\",\"password\":\"x\"},"
        "\"h.example/team\":{\"username\":\"team\",\"password\":\"x\"},\"https://index.docker.io/v1/"
        "\":{\"username\":\"hub\","
        "\"password\":\"x\"},\"https://v.example/v2/\":{\"username\":\"v\",\"password\":\"x\"},"
        "\"*.wild.example\":{\"username\":\"wild\",\"password\":\"x\"},\"my-registry\":{\"username\":\"mine\","
        "\"password\":\"x\"}}}";
    static const char *const rows[][2] = {
        {"h.example/x", "u"},           {"H.Example/x", "u"},       {"h.example:5000/x", "five"},
        {"h.example/team/x", "team"},   {"h.example/team", "team"}, {"h.example/teams", "u"},
        {"docker.io/library/x", "hub"}, {"v.example/x", "v"},       {"a.wild.example/x", "wild"},
        {"my-registry/x", "mine"},      {"h.example:5001/x", NULL}, {"xh.example/x", NULL},
        {"a.b.wild.example/x", NULL},   {"wild.example/x", NULL},   {"h.example.evil/x", NULL},
        {"h.exampl/x", NULL},           {"v.example:443/x", NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        look(config, rows[i][0]);
        if (rows[i][1] == NULL)
            is_nobody();
        else
            assert_string_equal(got.user, rows[i][1]);
    }
    forget();
}

static void test_entries(void **state)
{
    (void)state;
    look("{\"auths\":{\"h\":{\"auth\":\"dTpwOnE=\"}}}", "h/x"); /* the first colon ends the name */
    is_user("u", "p:q");
    look("{\"auths\":{\"h\":{\"auth\":\"dTpwAAA=\"}}}", "h/x"); /* padded with NUL */
    is_user("u", "p");
    look("{\"auths\":{\"h\":{\"identitytoken\":\"t\",\"username\":\"00000000-0000-0000-0000-000000000000\"}}}", "h/x");
    assert_string_equal(got.identity_token, "t");
    look("{\"auths\":{\"h\":{\"registrytoken\":\"t\"}}}", "h/x");
    assert_string_equal(got.registry_token, "t");
    look("{\"auths\":{\"h\":{}}}", "h/x");
    is_nobody();
    look("{}", "h/x");
    is_nobody();
    look("{\"auths\":[],\"credHelpers\":7,\"credsStore\":[]}", "h/x");
    is_nobody();
    forget();
}

static void test_helpers_named(void **state)
{
    (void)state;
    static const char config[] =
        "{\"credsStore\":\"store\",\"credHelpers\":{\"h\":\"one\"},\"auths\":{\"h\":{\"auth\":\"dTpw\"},"
        "\"i\":{\"auth\":\"dTpw\"},\"j\":{}}}";
    look(config, "h/x");
    assert_string_equal(helper, "one");
    assert_string_equal(server, "h");
    look(config, "i/x");
    is_user("u", "p");
    look(config, "j/x");
    assert_string_equal(helper, "store");
    assert_string_equal(server, "j");
    look(config, "docker.io/library/x");
    assert_string_equal(helper, "store");
    assert_string_equal(server, "https://index.docker.io/v1/");
    forget();
}

static void test_bad_configs(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        {"", "is not JSON"},
        {"[]", "is not an object"},
        {"{\"auths\":{\"h\":{\"auth\":\"%%\"}}}", "not base64"},
        {"{\"auths\":{\"h\":{\"auth\":\"bm9jb2xvbg==\"}}}", "not base64"},
        {"{\"credHelpers\":{\"h\":\"../x\"}}", "credential helper"},
        {"{\"credHelpers\":{\"h\":\"\"}}", "credential helper"},
        {"{\"credsStore\":\"a b\"}", "credential helper"},
        {"{\"auths\":{\"SECRET", "is not JSON"},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        char *error = NULL;
        if (credentials_read_config(str_of(bad[i][0]), STR("h/x"), &got, &helper, &server, &error))
            fail_msg("%s passed", bad[i][0]);
        if (strstr(error, bad[i][1]) == NULL || strstr(error, "SECRET") != NULL)
            fail_msg("\"%s\" does not say \"%s\"", error, bad[i][1]);
        mem_free(error);
        forget();
    }
}

/* ---- the search ---- */

static struct loop loop;
static char *path_before;

static int setup(void **state)
{
    (void)state;
    dir_make();
    loop_init(&loop);
    path_before = mem_strdup(getenv("PATH"));
    char *path = mem_printf("%s:%s", test_dir, path_before);
    setenv("PATH", path, 1);
    setenv("WEIR_TEST_SECRET", "CANARY", 1);
    mem_free(path);
    return 0;
}
static int teardown(void **state)
{
    (void)state;
    setenv("PATH", path_before, 1);
    mem_free(path_before);
    loop_fini(&loop);
    dir_remove();
    forget();
    return 0;
}

static struct failure why;
static bool searched;

static void on_found(void *arg, struct credentials *c, struct failure *failure)
{
    (void)arg;
    got = *c;
    *c = (struct credentials){0};
    failure_move(&why, failure);
    searched = true;
}
static bool is_searched(void *arg)
{
    (void)arg;
    return searched;
}
static void search(const struct credentials_query *q)
{
    forget();
    failure_clear(&why);
    searched = false;
    credentials_search_start(&loop, q, on_found, NULL);
    assert_false(searched);
    run_until(&loop, is_searched, NULL);
}
static void script(const char *name, const char *text)
{
    const char *path = at(name);
    char *whole = mem_printf("#!/bin/sh\n%s\n", text);
    file_write(path, whole, strlen(whole));
    chmod(path, 0755);
    mem_free(whole);
}
static void search_with_helper(const char *text)
{
    script("docker-credential-test", text);
    file_write(at("config.json"), "{\"credsStore\":\"test\"}", 21);
    search(&(struct credentials_query){.config_file = at("config.json"), .targets = {"h:5000/x"}});
}
static void says(const char *text)
{
    assert_non_null(why.reason);
    assert_string_equal(why.reason, "Unauthorized");
    if (strstr(why.text, text) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", why.text, text);
    assert_true(credentials_is_empty(&got));
    failure_clear(&why);
}

static void test_files(void **state)
{
    (void)state;
    static const char config[] = "{\"auths\":{\"second\":{\"auth\":\"dTpw\"}}}";
    file_write(at("config.json"), config, strlen(config));
    search(&(struct credentials_query){.config_file = at("config.json"), .targets = {"first/x", "second/x"}});
    is_user("u", "p");
    search(&(struct credentials_query){.config_file = at("config.json"), .targets = {"first/x"}});
    assert_null(why.reason);
    is_nobody();
    search(&(struct credentials_query){.config_file = at("absent.json"), .targets = {"h/x"}});
    assert_null(why.reason);
    is_nobody();
    search(&(struct credentials_query){.config_file = at("absent.json"), .must_exist = true, .targets = {"h/x"}});
    says("absent.json");
    search(&(struct credentials_query){.targets = {"h/x"}});
    assert_null(why.reason);
    is_nobody();
    file_write(at("password"), "secret\n", 7);
    search(&(struct credentials_query){.user = "me", .password_file = at("password"), .targets = {"h/x"}});
    is_user("me", "secret");
    search(&(struct credentials_query){.user = "me", .password_file = at("absent"), .targets = {"h/x"}});
    says("absent");
}

static void test_pull_secret_alone_counts(void **state)
{
    (void)state;
    static const char config[] = "{\"auths\":{\"h\":{\"auth\":\"dTpw\"}}}";
    file_write(at("config.json"), config, strlen(config));
    script("docker-credential-test", "touch ran; echo '{\"Username\":\"x\",\"Secret\":\"y\"}'");
    search(&(struct credentials_query){.pull_secret = STR("{\"auths\":{\"i\":{\"auth\":\"dTpw\"}}}"),
                                       .config_file = at("config.json"),
                                       .targets = {"h/x"}});
    is_nobody();
    /* Who may write a Secret may not run programs here. */
    search(&(struct credentials_query){.pull_secret = STR("{\"credsStore\":\"test\"}"), .targets = {"h/x"}});
    is_nobody();
    assert_null(why.reason);
    search(&(struct credentials_query){.pull_secret = STR("no json"), .targets = {"h/x"}});
    says("the pull secret: the Docker configuration is not JSON");
}

static void test_helper(void **state)
{
    (void)state;
    search_with_helper("read host; [ \"$1\" = get ] && echo "
                       "\"{\\\"Username\\\":\\\"$host\\\",\\\"Secret\\\":\\\"s$WEIR_TEST_SECRET\\\"}\"");
    is_user("h:5000", "s"); /* and nothing of our environment */
    search_with_helper("echo '{\"Username\":\"<token>\",\"Secret\":\"tok\"}'");
    assert_string_equal(got.identity_token, "tok");
    search_with_helper("echo 'credentials not found in native keychain'; exit 1");
    assert_null(why.reason);
    is_nobody();
    search_with_helper("echo 'the keychain is locked'; exit 3");
    says("failed for h:5000 with exit code 3: the keychain is locked");
    search_with_helper("echo rubbish");
    says("answered something else");
    search_with_helper("exec yes");
    says("answered without end");
    search_with_helper("kill -9 $$");
    says("exit code 137");
    search_with_helper("exec <&-; echo '{\"Username\":\"a\",\"Secret\":\"b\"}'"); /* does not read */
    is_user("a", "b");
    unlink(at("docker-credential-test"));
    search(&(struct credentials_query){.config_file = at("config.json"), .targets = {"h:5000/x"}});
    says("cannot run docker-credential-test");
}

static bool is_started(void *arg)
{
    (void)arg;
    return access(at("pid"), F_OK) == 0;
}

static void test_cancel(void **state)
{
    (void)state;
    char *text = mem_printf("echo $$ > %s.tmp; mv %s.tmp %s; exec sleep 1000", at("pid"), at("pid"), at("pid"));
    script("docker-credential-test", text);
    mem_free(text);
    file_write(at("config.json"), "{\"credsStore\":\"test\"}", 21);
    struct credentials_query q = {.config_file = at("config.json"), .targets = {"h/x"}};
    searched = false;
    credentials_search_cancel(credentials_search_start(&loop, &q, on_found, NULL)); /* while the pool has it */
    struct credentials_search *s = credentials_search_start(&loop, &q, on_found, NULL);
    run_until(&loop, is_started, NULL);
    credentials_search_cancel(s);
    FILE *f = fopen(at("pid"), "r");
    int pid = 0;
    assert_int_equal(fscanf(f, "%d", &pid), 1);
    fclose(f);
    loop_fini(&loop); /* waits until it has been reaped */
    assert_int_equal(kill(pid, 0), -1);
    assert_int_equal(errno, ESRCH);
    assert_false(searched);
    loop_init(&loop);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN); /* as cli_main: a helper may not read what it is asked */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_entries),
        cmocka_unit_test(test_helpers_named),
        cmocka_unit_test(test_bad_configs),
        cmocka_unit_test_setup_teardown(test_files, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pull_secret_alone_counts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_helper, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cancel, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
