/* SPDX-License-Identifier: Apache-2.0
 *
 * Whole pulls from a registry on the same loop: every layout, authentication, mirrors, pins, signatures, and a registry
 * that is wrong, short, long, slow to agree or hostile.
 */
#include "registry_rig.h"

#include <pthread.h>

#include "fetch/image.h"
#include "fetch/signature.h"

#define OCI   "application/vnd.oci.image.manifest.v1+json"
#define INDEX "application/vnd.oci.image.index.v1+json"
static const char MODULE[] = "\0asm\1\0\0\0 the module";
enum { MODULE_BYTES = sizeof MODULE - 1 };

static struct fetcher *fetcher;
static struct registry_table *table;

static int setup(void **state)
{
    (void)state;
    dir_make();
    rig_start();
    table = registry_table_new();
    fetcher = fetcher_new(&rig_loop, &(struct fetcher_options){.registries = table, .docker_config = test_dir});
    return 0;
}
static struct {
    bool done;
    char *bytes, *from, *warning, *reason, *error;
    size_t n;
    struct fetch_result r;
    char stages[400];
} got;
static void forget(void)
{
    char *const all[] = {got.bytes, got.from, got.warning, got.reason, got.error};
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        mem_free(all[i]);
    memset(&got, 0, sizeof got);
}
static int teardown(void **state)
{
    (void)state;
    forget();
    fetcher_free(fetcher);
    registry_table_free(table);
    rig_stop();
    dir_remove();
    return 0;
}

static char *copy(const char *s) { return s != NULL ? mem_strdup(s) : NULL; }
static void on_done(void *arg, struct fetch_result *r)
{
    (void)arg;
    assert_false(got.done);
    got.done = true;
    got.r = *r;
    got.bytes = r->bytes;
    r->bytes = NULL;
    got.n = r->n;
    got.from = copy(r->from);
    got.warning = copy(r->warning);
    got.reason = copy(r->reason);
    got.error = copy(r->error);
}
static void on_stage(void *arg, const char *text)
{
    (void)arg;
    size_t n = strlen(got.stages);
    snprintf(got.stages + n, sizeof got.stages - n, "%s;", text);
}
static bool is_done(void *arg)
{
    (void)arg;
    return got.done;
}
static void fetch_with(struct fetch_request q)
{
    forget();
    rig.asked_count = 0;
    q.done = on_done;
    q.stage = on_stage;
    fetch_start(fetcher, &q);
    assert_false(got.done);
    run_until(&rig_loop, is_done, NULL);
}
/* A reference in the rig's registry. */
static const char *ref(const char *rest)
{
    static char text[300];
    snprintf(text, sizeof text, "oci://127.0.0.1:%u/%s", rig_port(), rest);
    return text;
}
static void fetch(const char *rest) { fetch_with((struct fetch_request){.url = ref(rest)}); }
static void is_module(void)
{
    char sha[65];
    if (got.error != NULL)
        fail_msg("%s: %s", got.reason, got.error);
    encode_sha256(str_span(MODULE, MODULE_BYTES), sha);
    assert_int_equal(got.n, MODULE_BYTES);
    assert_memory_equal(got.bytes, MODULE, MODULE_BYTES);
    assert_string_equal(got.r.module_sha256, sha);
}
static void is_error(const char *reason, const char *text)
{
    assert_null(got.bytes);
    if (got.error == NULL)
        fail_msg("it worked");
    if (strcmp(got.reason, reason) != 0 || strstr(got.error, text) == NULL)
        fail_msg("%s: %s; not %s: %s", got.reason, got.error, reason, text);
}

/* A manifest with one layer. */
static const char *push(const char *tag, const char *type, const void *bytes, size_t n)
{
    const char *digest = rig_blob("x", bytes, n);
    char *json = mem_printf("{\"schemaVersion\":2,\"mediaType\":\"" OCI
                            "\",\"config\":{\"mediaType\":\"application/x\",\"digest\":"
                            "\"%s\",\"size\":2},\"layers\":[{\"mediaType\":\"%s\",\"digest\":\"%s\",\"size\":%zu}]}",
                            digest, type, digest, n);
    const char *name = rig_manifest("x", tag, OCI, json);
    mem_free(json);
    return name;
}
static const char *push_module(const char *tag) { return push(tag, "application/wasm", MODULE, MODULE_BYTES); }
static const char *push_text(const char *tag, const char *type, const char *fmt, ...) PRINTF_LIKE(3, 4);
static const char *push_text(const char *tag, const char *type, const char *fmt, ...)
{
    char text[4000];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return rig_manifest("x", tag, type, text);
}

/* ---- what is read ---- */

static void test_artifact(void **state)
{
    (void)state;
    const char *digest = push_module("v1");
    fetch("x:v1");
    is_module();
    assert_string_equal(got.r.digest, digest);
    assert_string_equal(got.r.index_digest, "");
    char *from = mem_printf("http://127.0.0.1:%u/x:v1", rig_port());
    assert_string_equal(got.from, from);
    mem_free(from);
    assert_null(got.warning);
    assert_string_equal(got.stages, "resolving;downloading;unpacking;");
    char *pinned = mem_printf("x:v1@%s", digest);
    fetch(pinned);
    is_module();
    assert_int_equal(rig_asked("manifests/v1"), 0);
    mem_free(pinned);
    fetch("x:absent");
    is_error("NotFound", "the registry answered 404");
    assert_true(got.r.retry);
    fetch("X:v1");
    is_error("BadReference", "upper-case");
    assert_false(got.r.retry);
}

static void test_image_layers(void **state)
{
    (void)state;
    struct image image;
    image_make(&image, IMAGE_TAR, str_span(MODULE, MODULE_BYTES), NULL, 0);
    push("one", "application/vnd.oci.image.layer.v1.tar+gzip", image.layer.bytes, image.layer.n);
    fetch("x:one");
    is_module();
    push("docker", "application/vnd.docker.image.rootfs.diff.tar.gzip", image.layer.bytes, image.layer.n);
    fetch("x:docker");
    is_module();
    /* The last layer has none: the one below is looked at, and no more than needed. */
    char empty[1024] = {0};
    char low[DIGEST_TEXT_MAX], mid[DIGEST_TEXT_MAX], top[DIGEST_TEXT_MAX];
    snprintf(mid, sizeof mid, "%s", rig_blob("x", image.layer.bytes, image.layer.n));
    snprintf(top, sizeof top, "%s", rig_blob("x", empty, sizeof empty));
    snprintf(low, sizeof low, "%s", rig_blob("x", "never asked", 11));
    push_text("three", OCI,
              "{\"layers\":[{\"mediaType\":\"a.tar\",\"digest\":\"%s\",\"size\":11},{\"mediaType\":\"a.tar+gzip\","
              "\"digest\":\"%s\","
              "\"size\":%zu},{\"mediaType\":\"a.tar\",\"digest\":\"%s\",\"size\":1024}]}",
              low, mid, image.layer.n, top);
    fetch("x:three");
    is_module();
    assert_int_equal(rig_asked("blobs/"), 2);
    image_free(&image);
    push("none", "application/vnd.oci.image.layer.v1.tar", empty, sizeof empty);
    fetch("x:none");
    is_error("NoModule", "holds no plugin.wasm");
    push("readme", "text/plain", "hello", 5);
    fetch("x:readme");
    is_error("NoModule", "no layer that could hold a module");
}

static void test_index(void **state)
{
    (void)state;
    char amd[DIGEST_TEXT_MAX], wasm[DIGEST_TEXT_MAX], empty[1024] = {0};
    snprintf(amd, sizeof amd, "%s", push("amd", "a.tar", empty, sizeof empty));
    snprintf(wasm, sizeof wasm, "%s", push_module("wasm"));
    const char *index = push_text("i", INDEX,
                                  "{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"" OCI
                                  "\",\"digest\":\"%s\",\"size\":1,\"platform\":{\"os\":"
                                  "\"linux\",\"architecture\":\"amd64\"}},{\"mediaType\":\"" OCI
                                  "\",\"digest\":\"%s\",\"size\":1,\"platform\":"
                                  "{\"os\":\"wasip1\",\"architecture\":\"wasm\"}}]}",
                                  amd, wasm);
    char top[DIGEST_TEXT_MAX];
    snprintf(top, sizeof top, "%s", index);
    fetch("x:i"); /* Istio's child has none: the next one */
    is_module();
    assert_string_equal(got.r.digest, wasm);
    assert_string_equal(got.r.index_digest, top);
    assert_int_equal(rig_asked("manifests/sha256"), 2);
    fetch_with((struct fetch_request){.url = ref("x:i"), .sha256 = wasm + 7}); /* pinned to a child: only that */
    is_module();
    assert_int_equal(rig_asked("manifests/sha256"), 1);
    fetch_with((struct fetch_request){.url = ref("x:i"), .sha256 = top + 7});
    is_module();
    fetch_with((struct fetch_request){.url = ref("x:i"),
                                      .sha256 = "0000000000000000000000000000000000000000000000000000000000000000"});
    is_error("DigestMismatch", "spec.sha256 wants 0000");
    push_text("loop", INDEX, "{\"manifests\":[{\"digest\":\"%s\",\"size\":1}]}", top);
    fetch("x:loop"); /* an index in an index */
    is_module();
    push_text("empty", INDEX, "{\"manifests\":[]}");
    fetch("x:empty");
    is_error("NoModule", "names no image");
}

static void test_have(void **state)
{
    (void)state;
    char digest[DIGEST_TEXT_MAX], index[DIGEST_TEXT_MAX];
    snprintf(digest, sizeof digest, "%s", push_module("v1"));
    snprintf(index, sizeof index, "%s",
             push_text("i", INDEX, "{\"manifests\":[{\"digest\":\"%s\",\"size\":1}]}", digest));
    fetch_with((struct fetch_request){.url = ref("x:v1"), .have = digest});
    assert_null(got.error);
    assert_true(got.r.unchanged);
    assert_null(got.bytes);
    assert_string_equal(got.r.digest, digest);
    assert_int_equal(rig.asked_count, 1);
    assert_int_equal(rig_asked("HEAD "), 1);
    fetch_with((struct fetch_request){.url = ref("x:i"), .have = digest});
    assert_true(got.r.unchanged);
    assert_int_equal(rig_asked("blobs/"), 0);
    assert_string_equal(got.r.index_digest, index);
    fetch_with((struct fetch_request){.url = ref("x:i"), .have = digest, .have_index = index});
    assert_true(got.r.unchanged);
    assert_int_equal(rig.asked_count, 1);
    fetch_with((struct fetch_request){.url = ref("x:v1"), .have = index});
    is_module();
    assert_false(got.r.unchanged);
}

/* ---- who is let in ---- */

static void config_write(const char *fmt, ...) PRINTF_LIKE(1, 2);
static void config_write(const char *fmt, ...)
{
    char text[600];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    file_write(at("config.json"), text, strlen(text));
}

static void test_basic(void **state)
{
    (void)state;
    push_module("v1");
    rig.auth = RIG_BASIC;
    snprintf(rig.authorization, sizeof rig.authorization, "Basic dTpw");
    fetch("x:v1");
    is_error("Unauthorized", "wants a user and a password");
    config_write("{\"auths\":{\"127.0.0.1:%u\":{\"auth\":\"dTpw\"}}}", rig_port());
    fetch("x:v1");
    is_module();
    assert_int_equal(rig.asked_count, 3); /* once without, then with, no second challenge */
    assert_string_equal(rig.with[0], "");
    config_write("{\"auths\":{\"127.0.0.1:%u\":{\"auth\":\"dTpx\"}}}", rig_port());
    fetch("x:v1");
    is_error("Unauthorized", "the registry answered 401");
    assert_int_equal(rig.asked_count, 2);
    char *secret = mem_printf("{\"auths\":{\"127.0.0.1:%u\":{\"auth\":\"dTpw\"}}}", rig_port());
    fetch_with((struct fetch_request){.url = ref("x:v1"), .pull_secret = str_of(secret)});
    is_module();
    mem_free(secret);
    fetch_with((struct fetch_request){.url = ref("x:v1"), .pull_secret = STR("{\"auths\":{}}")});
    is_error("Unauthorized", "the pull secret has none");
}

static void test_bearer(void **state)
{
    (void)state;
    push_module("v1");
    rig.auth = RIG_BEARER;
    snprintf(rig.authorization, sizeof rig.authorization, "Bearer tok");
    rig_add("/token", 200, "application/json", "{\"token\":\"tok\"}", 15);
    fetch("x:v1"); /* anonymous */
    is_module();
    assert_int_equal(rig_asked("GET /token?service=s%20p&scope=repository%3Ax%3Apull"), 1);
    assert_int_equal(rig.asked_count, 4);
    config_write("{\"auths\":{\"127.0.0.1:%u\":{\"auth\":\"dTpw\"}}}", rig_port());
    fetch("x:v1");
    is_module();
    assert_int_equal(rig_asked("&account=u"), 1);
    assert_string_equal(rig.with[1], "Basic dTpw");
    config_write("{\"auths\":{\"127.0.0.1:%u\":{\"identitytoken\":\"re fresh\"}}}", rig_port());
    rig_add("/token", 200, "application/json", "{\"access_token\":\"tok\"}", 22);
    fetch("x:v1");
    is_module();
    assert_int_equal(rig_asked("POST /token"), 1);
    assert_non_null(strstr(rig.form, "grant_type=refresh_token"));
    assert_non_null(strstr(rig.form, "refresh_token=re%20fresh"));
    config_write("{\"auths\":{\"127.0.0.1:%u\":{\"registrytoken\":\"tok\"}}}", rig_port());
    fetch("x:v1");
    is_module();
    assert_int_equal(rig_asked("/token"), 0);
    config_write("{}");
    static const char denied[] = "{\"errors\":[{\"code\":\"DENIED\",\"message\":\"who are you\"}]}";
    rig_add("/token", 401, "application/json", denied, strlen(denied));
    fetch("x:v1");
    is_error("Unauthorized", "token server answered 401: DENIED: who are you");
    static const char *const tokens[] = {"", "[]", "{\"token\":\"\"}", "{\"token\":\"a\\r\\nx-evil: 1\"}",
                                         "{\"token\":7}"};
    for (size_t i = 0; i < ARRAY_LEN(tokens); i++) {
        rig_add("/token", 200, "application/json", tokens[i], strlen(tokens[i]));
        fetch("x:v1");
        is_error("Unauthorized", "without a token");
    }
    rig_add("/token", 200, "application/json", "{\"token\":\"wrong\"}", 17);
    fetch("x:v1");
    is_error("Unauthorized", "the registry answered 401");
}

static void test_realms(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        {"ftp://127.0.0.1/token", "neither http nor https"},
        {"file:///etc/passwd", "neither http nor https"},
        {"/token", "neither http nor https"},
        {"http://u@127.0.0.1/token", "not well formed"},
        {"http:///token", "not well formed"},
        {"http://169.254.169.254/latest", "link-local or a cloud's metadata service"},
    };
    push_module("v1");
    rig.auth = RIG_BEARER;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        snprintf(rig.realm, sizeof rig.realm, "%s", rows[i][0]);
        fetch("x:v1");
        is_error("Refused", rows[i][1]);
        assert_int_equal(rig.asked_count, 1);
    }
}

/* ---- registries that are not as they should be ---- */

static void test_statuses(void **state)
{
    (void)state;
    static const struct {
        unsigned status;
        const char *reason;
    } rows[] = {{403, "Forbidden"},   {404, "NotFound"},    {429, "RateLimited"},
                {500, "ServerError"}, {503, "ServerError"}, {418, "FetchFailed"}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        static const char said[] = "{\"errors\":[{\"code\":\"CODE\",\"message\":\"text\"}]}";
        struct rig_page *p = rig_add("/v2/x/manifests/v1", rows[i].status, "application/json", said, strlen(said));
        snprintf(p->headers, sizeof p->headers, "retry-after: 7\n");
        fetch("x:v1");
        is_error(rows[i].reason, ": CODE: text");
        assert_true(got.r.retry);
        assert_int_equal(got.r.retry_after_ms, 7000);
    }
}

static void test_wrong_bytes(void **state)
{
    (void)state;
    char path[300], digest[DIGEST_TEXT_MAX];
    snprintf(digest, sizeof digest, "%s", push_module("v1"));
    encode_digest(str_span(MODULE, MODULE_BYTES), path);
    char *blob = mem_printf("/v2/x/blobs/%s", path);
    char *changed = mem_strndup(MODULE, MODULE_BYTES);
    changed[12] ^= 1;
    rig_add(blob, 200, "x", changed, MODULE_BYTES);
    fetch("x:v1");
    is_error("DigestMismatch", "the bytes that came have the digest");
    rig_add(blob, 200, "x", MODULE, MODULE_BYTES - 1);
    fetch("x:v1");
    is_error("LengthMismatch", "bytes came, its manifest says");
    rig_add(blob, 200, "x", "\0asm\1\0\0\0 the module and more", MODULE_BYTES + 9);
    fetch("x:v1");
    is_error("LengthMismatch", "is longer than");
    rig_add(blob, 404, "x", "", 0);
    fetch("x:v1");
    is_error("NotFound", "blobs/");
    mem_free(blob);
    mem_free(changed);
    /* Another manifest than was asked for. */
    snprintf(path, sizeof path, "/v2/x/manifests/%s", digest);
    rig_add(path, 200, OCI, "{\"layers\":[]}", 13);
    char *pinned = mem_printf("x@%s", digest);
    fetch(pinned);
    is_error("DigestMismatch", digest);
    mem_free(pinned);
    rig_add("/v2/x/manifests/html", 200, "text/html", "<html>", 6);
    fetch("x:html");
    is_error("BadImage", "is not JSON");
    push_text("huge", OCI, "{\"layers\":[{\"mediaType\":\"application/wasm\",\"digest\":\"%s\",\"size\":%lld}]}",
              digest, 1ll << 40);
    fetch("x:huge");
    is_error("TooLarge", "1099511627776 bytes");
    assert_int_equal(rig_asked("blobs/"), 0);
    push("nowasm", "application/wasm", "hello", 5);
    fetch("x:nowasm");
    is_error("BadImage", "neither a module nor a tar archive");
}

struct raw {
    int fd;
    const char *answer;
};
/* One answer to one request, as it stands, then the end. */
static void *raw_serve(void *arg)
{
    struct raw *raw = arg;
    char request[4096];
    int fd = accept(raw->fd, NULL, NULL);
    if (fd < 0)
        return NULL;
    (void)!read(fd, request, sizeof request);
    (void)!write(fd, raw->answer, strlen(raw->answer));
    close(fd);
    return NULL;
}

static void test_cut_off(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        {"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"layers\"", "Truncated"},
        {"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nff\r\n{\"layers\"", "Truncated"},
        {"HTTP/1.1 200 OK\r\ncontent-le", "BadImage"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct addr addr;
        pthread_t thread;
        struct raw raw = {.fd = rig_listen(&addr), .answer = rows[i][0]};
        assert_int_equal(fcntl(raw.fd, F_SETFL, 0), 0);
        pthread_create(&thread, NULL, raw_serve, &raw);
        char *entry = mem_printf("raw%zu=http://127.0.0.1:%u", i, addr_port(&addr)), *error = NULL;
        char *name = mem_printf("raw%zu/x:v1", i);
        assert_true(registry_table_add(table, entry, &error));
        fetch_with((struct fetch_request){.url = name});
        is_error(rows[i][1], "");
        pthread_join(thread, NULL);
        close(raw.fd);
        mem_free(entry);
        mem_free(name);
    }
}

static void test_redirected_blobs(void **state)
{
    (void)state;
    push_module("v1");
    rig.auth = RIG_BASIC;
    snprintf(rig.authorization, sizeof rig.authorization, "Basic dTpw");
    config_write("{\"auths\":{\"127.0.0.1:%u\":{\"auth\":\"dTpw\"}}}", rig_port());
    char blob[300] = "/v2/x/blobs/";
    encode_digest(str_span(MODULE, MODULE_BYTES), blob + 12);
    /* To another name of the same machine, which must not get the password: so it asks for one, and nothing comes. */
    struct rig_page *p = rig_add(blob, 307, "x", "", 0);
    snprintf(p->headers, sizeof p->headers, "location: http://localhost:%u/elsewhere\n", rig_port());
    rig_add("/elsewhere", 200, "x", MODULE, MODULE_BYTES);
    fetch("x:v1");
    assert_non_null(got.error);
    bool seen = false;
    for (size_t i = 0; i < rig.asked_count; i++) {
        if (strstr(rig.asked[i], "/elsewhere") != NULL) {
            assert_string_equal(rig.with[i], "");
            seen = true;
        }
    }
    assert_true(seen);
    /* On the same host it goes along. */
    p = rig_add(blob, 307, "x", "", 0);
    snprintf(p->headers, sizeof p->headers, "location: /elsewhere\n");
    fetch("x:v1");
    is_module();
    p = rig_add(blob, 307, "x", "", 0);
    snprintf(p->headers, sizeof p->headers, "location: http://169.254.169.254/x\n");
    fetch("x:v1");
    is_error("Refused", "metadata service");
}

/* ---- mirrors ---- */

static void add_registry(const char *fmt, ...) PRINTF_LIKE(1, 2);
static void add_registry(const char *fmt, ...)
{
    char text[300], *error = NULL;
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    assert_true(registry_table_add(table, text, &error));
}

static void test_mirrors(void **state)
{
    (void)state;
    push_module("v1");
    add_registry("my-registry=http://127.0.0.1:%u", rig_port());
    fetch_with((struct fetch_request){.url = "oci://my-registry/x:v1"});
    is_module();
    assert_null(got.warning);
    add_registry("two=http://127.0.0.1:1");
    add_registry("two=http://127.0.0.1:%u/nothing/here", rig_port());
    add_registry("two=http://127.0.0.1:%u", rig_port());
    fetch_with((struct fetch_request){.url = "two/x:v1"});
    is_module();
    char *from = mem_printf("http://127.0.0.1:%u/x:v1", rig_port());
    assert_string_equal(got.from, from);
    mem_free(from);
    assert_int_equal(rig_asked("/v2/nothing/here/x/manifests/v1"), 1);
    fetch_with((struct fetch_request){.url = "two/x:v2"});
    is_error("NotFound", "http://127.0.0.1:1/v2/x/manifests/v2: ");
    assert_non_null(strstr(got.error, "nothing/here"));
    /* A Docker Hub name goes to its mirror. */
    add_registry("docker.io/library=http://127.0.0.1:%u", rig_port());
    fetch_with((struct fetch_request){.url = "x:v1"});
    is_module();
    /* Credentials under the made-up name are for its place. */
    rig.auth = RIG_BASIC;
    snprintf(rig.authorization, sizeof rig.authorization, "Basic dTpw");
    fetch_with((struct fetch_request){.url = "my-registry/x:v1",
                                      .pull_secret = STR("{\"auths\":{\"my-registry\":{\"auth\":\"dTpw\"}}}")});
    is_module();
    fetch_with((struct fetch_request){
        .url = "x:v1", .pull_secret = STR("{\"auths\":{\"https://index.docker.io/v1/\":{\"auth\":\"dTpw\"}}}")});
    is_error("Unauthorized", "has none for 127.0.0.1");
}

/* ---- signatures ---- */

static void test_signatures(void **state)
{
    (void)state;
    struct strbuf key = {0}, pub = {0}, other = {0}, other_pub = {0}, payload = {0}, sig = {0}, b64 = {0};
    assert_null(signature_make_key(&key, &pub));
    assert_null(signature_make_key(&other, &other_pub));
    struct strbuf *const all[] = {&key, &pub, &other, &other_pub};
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        strbuf_addc(all[i], '\0');
    char digest[DIGEST_TEXT_MAX], tag[100];
    snprintf(digest, sizeof digest, "%s", push_module("v1"));
    struct fetch_request q = {.url = mem_strdup(ref("x:v1")), .verification_key = pub.p};
    fetch_with(q);
    is_error("SignatureMissing", "nobody has signed sha256:");
    /* cosign's tag: a bad one first, then the good one */
    signature_payload_write("127.0.0.1/x", digest, &payload);
    assert_null(signature_make(key.p, strbuf_str(&payload), &sig));
    signature_base64(strbuf_str(&sig), &b64);
    const char *blob = rig_blob("x", payload.p, payload.n);
    snprintf(tag, sizeof tag, "sha256-%s.sig", digest + 7);
#define SIGNED(sigtext)                                                                                                \
    "{\"mediaType\":\"application/"                                                                                    \
    "vnd.dev.cosign.simplesigning.v1+json\",\"digest\":\"%s\",\"size\":%zu,\"annotations\":"                           \
    "{\"dev.cosignproject.cosign/signature\":\"" sigtext "\"}}"
    push_text(tag, OCI, "{\"layers\":[" SIGNED("bm8=") "," SIGNED("%.*s") "]}", blob, payload.n, blob, payload.n,
              STR_ARG(strbuf_str(&b64)));
    fetch_with(q);
    is_module();
    assert_true(got.r.verified);
    fetch_with((struct fetch_request){.url = q.url, .verification_key = other_pub.p});
    is_error("SignatureInvalid", "2 signatures of sha256:");
    assert_false(got.r.verified);
    fetch_with((struct fetch_request){.url = q.url, .verification_key = pub.p, .have = digest});
    assert_true(got.r.unchanged && got.r.verified); /* looked at even so */
    /* a detached one, by the referrers tag and by the API */
    char gone[300];
    snprintf(gone, sizeof gone, "/v2/x/manifests/%s", tag);
    rig_add(gone, 404, "x", "", 0);
    strbuf_clear(&sig);
    assert_null(signature_make(key.p, str_of(digest), &sig));
    blob = rig_blob("x", sig.p, sig.n);
    const char *manifest =
        push_text(NULL, OCI, "{\"layers\":[{\"mediaType\":\"a\",\"digest\":\"%s\",\"size\":%zu}]}", blob, sig.n);
    snprintf(tag, sizeof tag, "sha256-%s", digest + 7);
    char index[600];
    snprintf(index, sizeof index,
             "{\"manifests\":[{\"digest\":\"%s\",\"size\":1,\"artifactType\":\"application/vnd.weir.signature.v1\"}]}",
             manifest);
    rig_manifest("x", tag, INDEX, index);
    fetch_with(q);
    is_module();
    assert_true(got.r.verified);
    char path[300];
    snprintf(path, sizeof path, "/v2/x/referrers/%s", digest);
    rig_add(path, 200, INDEX, index, strlen(index));
    fetch_with(q);
    is_module();
    assert_int_equal(rig_asked(tag), 1); /* cosign's only */
    fetch_with((struct fetch_request){.url = q.url, .verification_key = other_pub.p});
    is_error("SignatureInvalid", "1 signatures");
    rig_add(path, 500, "x", "", 0);
    fetch_with(q);
    is_error("ServerError", "referrers"); /* not to know is not to be unsigned */
    file_write(at("m.wasm"), MODULE, MODULE_BYTES);
    char *file = mem_printf("file://%s", at("m.wasm"));
    fetch_with((struct fetch_request){.url = file, .verification_key = pub.p});
    is_error("SignatureMissing", "only those are signed");
    mem_free(file);
    mem_free((void *)(uintptr_t)q.url);
    struct strbuf *const rest[] = {&key, &pub, &other, &other_pub, &payload, &sig, &b64};
    for (size_t i = 0; i < ARRAY_LEN(rest); i++)
        strbuf_free(rest[i]);
}

static void test_cancel(void **state)
{
    (void)state;
    push_module("v1");
    rig.auth = RIG_BASIC;
    snprintf(rig.authorization, sizeof rig.authorization, "Basic dTpw");
    config_write("{\"auths\":{\"127.0.0.1:%u\":{\"auth\":\"dTpw\"}}}", rig_port());
    /* Given up after any number of turns of the loop: the same number of bytes is left of each, none. */
    for (int turns = 0; turns < 40; turns++) {
        forget();
        rig.asked_count = 0;
        struct fetch *f = fetch_start(fetcher, &(struct fetch_request){.url = ref("x:v1"), .done = on_done});
        for (int i = 0; i < turns && !got.done; i++)
            uv_run(&rig_loop.uv, UV_RUN_NOWAIT);
        if (!got.done)
            fetch_cancel(f);
    }
    fetch("x:v1");
    is_module();
    fetch_start(fetcher, &(struct fetch_request){.url = ref("x:v1"), .done = on_done}); /* for the end to deal with */
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_artifact),
        TEST(test_image_layers),
        TEST(test_index),
        TEST(test_have),
        TEST(test_basic),
        TEST(test_bearer),
        TEST(test_realms),
        TEST(test_statuses),
        TEST(test_wrong_bytes),
        TEST(test_cut_off),
        TEST(test_redirected_blobs),
        TEST(test_mirrors),
        TEST(test_signatures),
        TEST(test_cancel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
