/* SPDX-License-Identifier: Apache-2.0
 *
 * kubeconfig files: merging, paths, every kind of credential, and what is refused.
 */
#include "../loop_test.h"
#include "kube/kubeconfig.h"

#define HEAD "apiVersion: v1\nkind: Config\n"

static bool load(const char *files, struct kube_access *out, char **error)
{
    return kubeconfig_load(files, NULL, out, error);
}

static void tokens_and_relative_paths(void **state)
{
    (void)state;
    struct kube_access a;
    char *error = NULL;
    dir_make();
    file_put("ca.crt", "CA");
    file_put("t", " token-1 \n");
    file_put("config",
             HEAD "current-context: c\n"
                  "contexts: [{name: c, context: {cluster: k, user: u, namespace: shop}}]\n"
                  "clusters: [{name: k, cluster: {server: 'https://h:6443/path/', certificate-authority: ca.crt, "
                  "tls-server-name: s, proxy-url: 'http://p'}}]\n"
                  "users: [{name: u, user: {tokenFile: t, client-certificate-data: QQ==, client-key-data: Qg==}}]\n");
    assert_true(load(at("config"), &a, &error));
    assert_string_equal(a.server, "https://h:6443/path");
    assert_true(str_is(strbuf_str(&a.ca_pem), "CA"));
    assert_true(str_is(strbuf_str(&a.cert_pem), "A"));
    assert_true(str_is(strbuf_str(&a.key_pem), "B"));
    assert_string_equal(a.token, "token-1");
    assert_string_equal(a.ns, "shop");
    assert_string_equal(a.server_name, "s");
    assert_string_equal(a.proxy, "http://p");
    assert_false(a.insecure);
    kube_access_free(&a);
    dir_remove();
}

static void the_first_file_wins(void **state)
{
    (void)state;
    struct kube_access a;
    char *error = NULL;
    dir_make();
    file_put("one", HEAD "clusters: [{name: k, cluster: {server: 'https://one'}}]\n"
                         "users: [{name: u, user: {token: first}}]\n");
    file_put("two", HEAD
             "current-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]\n"
             "clusters: [{name: k, cluster: {server: 'https://two'}}]\nusers: [{name: u, user: {token: second}}]\n");
    char *files = mem_printf("%s:%s:%s", at("one"), at("none"), at("two"));
    assert_true(load(files, &a, &error));
    assert_string_equal(a.server, "https://one");
    assert_string_equal(a.token, "first");
    kube_access_free(&a);
    mem_free(files);
    dir_remove();
}

static void refused(const char *text, const char *why)
{
    struct kube_access a;
    char *error = NULL;
    file_put("config", text);
    assert_false(load(at("config"), &a, &error));
    if (strstr(error, why) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", error, why);
    assert_null(strstr(error, "s3cret"));
    mem_free(error);
}

#define USER(user)                                                                                                     \
    HEAD "current-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]\n"                                 \
         "clusters: [{name: k, cluster: {server: 'https://h'}}]\nusers: [{name: u, user: " user "}]\n"

static void what_is_refused(void **state)
{
    (void)state;
    dir_make();
    refused("", "no current-context");
    refused("[1]", "is no kubeconfig");
    refused("a: [", "config:");
    refused(HEAD "current-context: c\n", "does not exist");
    refused(HEAD "current-context: c\ncontexts: [{name: c, context: {cluster: k}}]\n", "its cluster");
    refused(USER("{auth-provider: {name: x}}"), "auth-provider");
    refused(USER("{as: root}"), "as is not supported");
    refused(USER("{token: \"s3cret\\r\\nX: y\"}"), "bytes that no token has");
    refused(USER("{tokenFile: none}"), "token file");
    refused(USER("{client-key-data: '!s3cret'}"), "no base64");
    refused(USER("{exec: {command: x}}"), "exec is not supported");
    refused(HEAD "current-context: c\ncontexts: [{name: c, context: {cluster: k}}]\n"
                 "clusters: [{name: k, cluster: {server: 'file:///x'}}]\n",
            "no http or https url");
    dir_remove();
}

static void in_a_pod(void **state)
{
    (void)state;
    struct kube_access a;
    char *error = NULL;
    dir_make();
    unsetenv("KUBERNETES_SERVICE_HOST");
    assert_false(kubeconfig_in_cluster(test_dir, &a, &error));
    mem_free(error);
    setenv("KUBERNETES_SERVICE_HOST", "fd00::1", 1);
    setenv("KUBERNETES_SERVICE_PORT", "443", 1);
    assert_false(kubeconfig_in_cluster(test_dir, &a, &error));
    mem_free(error);
    file_put("token", "t\n");
    file_put("ca.crt", "CA");
    file_put("namespace", "shop\n");
    assert_true(kubeconfig_in_cluster(test_dir, &a, &error));
    assert_string_equal(a.server, "https://[fd00::1]:443");
    assert_string_equal(a.token, "t");
    assert_string_equal(a.ns, "shop");
    kube_access_free(&a);
    dir_remove();
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(tokens_and_relative_paths),
                                       cmocka_unit_test(the_first_file_wins), cmocka_unit_test(what_is_refused),
                                       cmocka_unit_test(in_a_pod)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
