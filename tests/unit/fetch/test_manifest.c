/* SPDX-License-Identifier: Apache-2.0
 *
 * Manifests and indexes: what is read, what is refused, which child and which layers are looked at.
 */
#include "../loop_test.h"

#include "fetch/manifest.h"

#define HEX60         "000000000000000000000000000000000000000000000000000000000000"
#define D(n)          "sha256:" HEX60 "000" #n
#define BLOB(type, n) "{\"mediaType\":\"" type "\",\"digest\":\"" D(n) "\",\"size\":7}"
#define TITLED(type, n, title)                                                                                         \
    "{\"mediaType\":\"" type                                                                                           \
    "\",\"digest\":\"" D(n) "\",\"size\":7,\"annotations\":{\"org.opencontainers.image.title\":\"" title "\"}}"

static struct manifest *parse(const char *json)
{
    char *error = NULL;
    struct manifest *m = manifest_parse(str_of(json), STR(""), &error);
    if (m == NULL)
        fail_msg("%s", error);
    return m;
}

/* The last digits of what is looked at, in order. */
static void layers_are(const char *json, const char *want)
{
    struct manifest *m = parse(json);
    const struct descriptor *order[MANIFEST_LAYERS_MAX];
    char got[MANIFEST_LAYERS_MAX + 1];
    size_t n = manifest_layers(m, order);
    for (size_t i = 0; i < n; i++)
        got[i] = order[i]->digest[strlen(order[i]->digest) - 1];
    got[n] = '\0';
    assert_string_equal(got, want);
    manifest_free(m);
}
static void children_are(const char *list, const char *pin, const char *want)
{
    char *json = mem_printf("{\"schemaVersion\":2,\"manifests\":[%s]}", list);
    struct manifest *m = parse(json);
    const struct descriptor *order[MANIFEST_CHILDREN_MAX];
    char got[MANIFEST_CHILDREN_MAX + 1];
    assert_true(m->is_index);
    size_t n = manifest_children(m, pin, order);
    for (size_t i = 0; i < n; i++)
        got[i] = order[i]->digest[strlen(order[i]->digest) - 1];
    got[n] = '\0';
    assert_string_equal(got, want);
    manifest_free(m);
    mem_free(json);
}

#define MANIFEST(more, layers) "{\"schemaVersion\":2," more "\"layers\":[" layers "]}"
#define CONFIG(type)           "\"config\":" BLOB(type, 9) ","

static void test_layers(void **state)
{
    (void)state;
    layers_are(MANIFEST(CONFIG("application/vnd.docker.container.image.v1+json"),
                        BLOB("application/vnd.docker.image.rootfs.diff.tar.gzip",
                             1) "," BLOB("application/vnd.docker.image.rootfs.diff.tar.gzip", 2)),
               "21");
    layers_are(MANIFEST("", BLOB("application/vnd.oci.image.layer.v1.tar",
                                 1) "," BLOB("application/vnd.oci.image.layer.v1.tar+gzip",
                                             2) "," BLOB("application/vnd.oci.image.layer.v1.tar+zstd", 3)),
               "321");
    /* two-layer and three-layer artifacts, with the module anywhere */
    layers_are(MANIFEST("", BLOB("application/vnd.module.wasm.config.v1+json",
                                 1) "," BLOB("application/vnd.module.wasm.content.layer.v1+wasm", 2)),
               "2");
    layers_are(MANIFEST("", BLOB("application/vnd.module.wasm.spec.v1+yaml",
                                 1) "," BLOB("application/vnd.module.wasm.content.layer.v1+wasm",
                                             2) "," BLOB("application/vnd.oci.image.layer.v1.tar+gzip", 3)),
               "2");
    layers_are(MANIFEST("", BLOB("application/vnd.wasm.content.layer.v1+wasm", 1)), "1");
    layers_are(MANIFEST(CONFIG("application/vnd.wasm.config.v0+json"), BLOB("application/wasm", 1)), "1");
    /* ORAS: by title, by artifactType */
    layers_are(MANIFEST("", TITLED("application/octet-stream", 1, "a/filter.wasm")), "1");
    layers_are(MANIFEST("", TITLED("application/octet-stream", 1, "README.md")), "");
    layers_are(MANIFEST("\"artifactType\":\"application/vnd.wasm.module\",", BLOB("application/octet-stream", 1)), "1");
    layers_are(MANIFEST("", BLOB("application/wasm", 1) "," TITLED("application/wasm", 2, "plugin.wasm")), "21");
    layers_are(MANIFEST("", BLOB("application/octet-stream", 1)), "");
    layers_are("{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.artifact.manifest.v1+json\",\"blobs\":[" BLOB(
                   "application/wasm", 1) "]}",
               "1");
    layers_are("{\"schemaVersion\":2,\"config\":" BLOB("x", 1) "}", "");
}

#define CHILD(n, os, arch)                                                                                             \
    "{\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"digest\":\"" D(                                   \
        n) "\",\"size\":7,\"platform\":{\"os\":\"" os "\",\"architecture\":\"" arch "\"}}"
#define NO_PLATFORM(n) BLOB("application/vnd.oci.image.manifest.v1+json", n)
#define ATTESTATION(n)                                                                                                 \
    "{\"digest\":\"" D(n) "\",\"size\":7,\"annotations\":{\"vnd.docker.reference.type\":\"attestation-manifest\"},"    \
                          "\"platform\":{\"os\":\"unknown\",\"architecture\":\"unknown\"}}"

static void test_children(void **state)
{
    (void)state;
    children_are(
        CHILD(1, "linux", "arm64") "," CHILD(2, "linux", "amd64") "," CHILD(3, "wasi", "wasm") "," ATTESTATION(4), NULL,
        "231");
    children_are(CHILD(1, "linux", "arm64") "," CHILD(2, "linux", "amd64"), D(1), "12");
    children_are(NO_PLATFORM(1) "," CHILD(2, "wasip1", "wasm"), NULL, "21");
    children_are(CHILD(1, "windows", "amd64"), NULL, "1");
    children_are(CHILD(1, "windows", "amd64") "," NO_PLATFORM(2), NULL, "2");
    children_are(CHILD(1, "unknown", "unknown"), NULL, "1");
    children_are(ATTESTATION(1), NULL, "");
    children_are("", NULL, "");
}

static void test_bad(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        {"", "is not JSON"},
        {"[]", "is not a JSON object"},
        {"{}", "neither manifests nor layers"},
        {"{\"schemaVersion\":1,\"fsLayers\":[]}", "schema 1"},
        {"{\"schemaVersion\":2,\"layers\":{}}", "no list"},
        {"{\"manifests\":[],\"layers\":[]}", "both manifests and layers"},
        {"{\"layers\":[{}]}", "without a sha256 digest"},
        {"{\"layers\":[{\"digest\":\"sha512:00\",\"size\":1}]}", "without a sha256 digest"},
        {"{\"layers\":[{\"digest\":\"sha256:../../x\",\"size\":1}]}", "without a sha256 digest"},
        {"{\"layers\":[{\"digest\":\"" D(1) "\"}]}", "without a size"},
        {"{\"layers\":[{\"digest\":\"" D(1) "\",\"size\":-1}]}", "without a size"},
        {"{\"layers\":[{\"digest\":\"" D(1) "\",\"size\":1.5}]}", "without a size"},
        {"{\"layers\":[{\"digest\":\"" D(1) "\",\"size\":99999999999999999999}]}", "is not JSON"},
        {"{\"layers\":[7]}", "without a sha256 digest"},
        {"{\"config\":[],\"layers\":[]}", "without a sha256 digest"},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        char *error = NULL;
        if (manifest_parse(str_of(bad[i][0]), STR(""), &error) != NULL)
            fail_msg("%s passed", bad[i][0]);
        if (strstr(error, bad[i][1]) == NULL)
            fail_msg("\"%s\" does not say \"%s\"", error, bad[i][1]);
        mem_free(error);
    }
}

static void test_counts_are_bounded(void **state)
{
    (void)state;
    for (size_t n = MANIFEST_LAYERS_MAX; n <= MANIFEST_LAYERS_MAX + 1; n++) {
        struct strbuf b = {0};
        char *error = NULL;
        strbuf_addz(&b, "{\"layers\":[");
        for (size_t i = 0; i < n; i++)
            strbuf_printf(&b, "%s%s", i > 0 ? "," : "", BLOB("application/vnd.oci.image.layer.v1.tar", 1));
        strbuf_addz(&b, "]}");
        struct manifest *m = manifest_parse(strbuf_str(&b), STR(""), &error);
        assert_int_equal(m != NULL, n == MANIFEST_LAYERS_MAX);
        if (m != NULL) {
            const struct descriptor *order[MANIFEST_LAYERS_MAX];
            assert_int_equal(manifest_layers(m, order), n);
        }
        manifest_free(m);
        mem_free(error);
        strbuf_free(&b);
    }
    char *deep = mem_alloc(100001), *error = NULL;
    memset(deep, '[', 100000);
    deep[100000] = '\0';
    assert_null(manifest_parse(str_of(deep), STR(""), &error));
    mem_free(deep);
    mem_free(error);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_layers), cmocka_unit_test(test_children),
                                       cmocka_unit_test(test_bad), cmocka_unit_test(test_counts_are_bounded)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
