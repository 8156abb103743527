/* SPDX-License-Identifier: Apache-2.0
 *
 * Signatures made by openssl's own commands, and everything that must not pass: another key, another digest, bytes that
 * were changed, payloads that are signed and say something else.
 *
 *   openssl dgst -sha256 -sign KEY PAYLOAD | base64 -w0       (P-256, P-384, RSA; -sha384, -sha512 for the larger
 * curves) openssl pkeyutl -sign -rawin -inkey KEY -in PAYLOAD       (ed25519)
 */
#include "../loop_test.h"

#include "fetch/signature.h"

struct vector {
    const char *name, *key, *signature;
};
static const char DIGEST[] = "sha256:f6c0d945dc8a9e01854484f4e9b123945919e553778d4386d1d939451c038a0c";
static const char PAYLOAD[] =
    "{\"critical\":{\"identity\":{\"docker-reference\":\"127.0.0.1:5000/my-wasm-filter\"},\"image\":{\"docker-manife"
    "st-digest\":\"sha256:f6c0d945dc8a9e01854484f4e9b123945919e553778d4386d1d939451c038a0c\"},\"type\":\"cosign"
    " container image signature\"},\"optional\":null}";
static const char P256_KEY[] = "-----BEGIN PUBLIC KEY-----\n"
                               "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEFozO4wAAN07Hs789+z706jUPnkzo\n"
                               "40Z98psazZUuPXiJoxiAIYhmTcj4DLKtjH23S9KzN1SP6aN4Y0WpTnY7aQ==\n"
                               "-----END PUBLIC KEY-----\n";
static const char P384_KEY[] = "-----BEGIN PUBLIC KEY-----\n"
                               "MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAE6GuftpcjamdgvsfaCsVdCdYABZXj+HfN\n"
                               "b6Irg2LSCBBzKM13UUs1aPM/ddgM6HgKiX3a5t/wGMMzI7ouD0aoRBu2cOQsFpyB\n"
                               "dTnYZKWbKVgQ6w944eVVxIux+2xOHUfZ\n"
                               "-----END PUBLIC KEY-----\n";
static const char P521_KEY[] = "-----BEGIN PUBLIC KEY-----\n"
                               "MIGbMBAGByqGSM49AgEGBSuBBAAjA4GGAAQA9CjoQ2rhJ70R18PYJHrE+urb9zsj\n"
                               "/SDOmf2Yese8bvbveVtEUkUBSZvtVgIxi5Lg0w2C9I2mIwf1gk274lzThN0AgIDv\n"
                               "nPYJKTfyn4075uUt6F1vORA7IkknnR+toYiWbPmdVoIpuD4X96oW9SzGa0Mk2Xfm\n"
                               "ZQtV2k0jaR/IbghKBAg=\n"
                               "-----END PUBLIC KEY-----\n";
static const char ED_KEY[] = "-----BEGIN PUBLIC KEY-----\n"
                             "MCowBQYDK2VwAyEAJyTA2hI9OMqOk+jDjEtjxXYWcabgyRfF2oBkugDSrSY=\n"
                             "-----END PUBLIC KEY-----\n";
static const char RSA_KEY[] = "-----BEGIN PUBLIC KEY-----\n"
                              "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAu595cyaVB7UYxk3Nh3Lh\n"
                              "kpx0HEUgZZwj/SxDgBRQ8vKGP67dTCbkSgMLF5z0acfgddWqc2e7iNkr0gjpDdzB\n"
                              "Dy2U+YkwS9uER4wKEqIY6hAV7f26w6UfoZyTW7GbSlLRadJ3ebz2YXvnjDzyf0V9\n"
                              "ZJWBb/7k2dsfQHLz5iTFV19hyJMzkgrBccdXdebWC2Uwhd7rWizL/kAbkUJ4I8Ke\n"
                              "GODo+lQ/bs++C3sXwvHeuudtH7R2dyGdRYPf8tMCkjwMBIDgYniQecKaxOhQddkv\n"
                              "J595DVLqpPG7BUb1C/XC9ydy7GgpkvNvJb2ZttPxXDvELakOpFdHyRUINilETx4y\n"
                              "RQIDAQAB\n"
                              "-----END PUBLIC KEY-----\n";
static const char K1_KEY[] = "-----BEGIN PUBLIC KEY-----\n"
                             "MFYwEAYHKoZIzj0CAQYFK4EEAAoDQgAEH0CZ6MvWxAUOCIlp5Ygl+n//utTp2WEf\n"
                             "tih4Zs15IhvcmxTByo5FOezDUxSDoWJ/qT3ydcVxm++cXv8WPWlZng==\n"
                             "-----END PUBLIC KEY-----\n";
static const char RSA1024_KEY[] = "-----BEGIN PUBLIC KEY-----\n"
                                  "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCedVsTjOifY28TUx+nfuxw+1jX\n"
                                  "GDzyBGtCXQuL/ACRsysvzvjU4RKZpFTs616s4BukFH9xdC9KC0Cm1a7KfYtfTsNh\n"
                                  "xnsCSTGzjJD98yuvpgXBh1PlgzmWQIVyrnCwVxIUSAF7FQswob474Vv4G56p0a3Q\n"
                                  "DruG+m17zUkLGwXGAwIDAQAB\n"
                                  "-----END PUBLIC KEY-----\n";
static const struct vector payload_vectors[] = {
    {"p256", P256_KEY,
     "MEQCIDKDH42/pkjnsugHu6MoLcG4AAFlrPHwsG1cKUpmfBzbAiBaAZX7jOVvOyXF6oaxCRgW4krdbhH3PkugZWtnyzgoqQ=="},
    {"p384", P384_KEY,
     "MGQCMDCUbg6oQqGWkxdI9fKBP249+21ufMticwQk8g4z9gHbL+DqqfWewtFb2+isR2C58QIwWBS4lfllPn5I6UAjltHO1IzXTArS"
     "CHs83bUuwlsCjvkKQKIb4BMqp43B8zw5YJlo"},
    {"p384_256", P384_KEY,
     "MGUCMCHCDo5IN7Ozkvol1kj3mNxk4tCGjm2PP5irVKATbBQIMHXBok211goznTf7en7TEQIxAPbMKe+nASUzNqIvL+1zUUYPvOGu"
     "4p6DvyYrHkrxHdl/fBhoiV9bykA39OsPu2IFBA=="},
    {"p521", P521_KEY,
     "MIGIAkIA0kFW17XuJETAvH0AF6eSK7TgGm9YH1D1bIoSe0gnPT3TjBnf8sGBzKPjLN2ORgXQU7jsJxDf/fL2hrY/QtbGvGACQgFP"
     "qaNBdghAh+UEcn7ZnLu8HZ9gmHa8dfzYRPGgAfJEaIhofNUjK7L13SG85JrF4iGaC0XvOWJ8nMHAND+mEoZp1Q=="},
    {"ed", ED_KEY, "jY8moBWlSaV7d1nNjI09TqTPLF7dHaAaG179TQMjDM/T2tTCC9jJiHHlmjv6EjYNqNX2XgZ89ycNil/uWgWyDg=="},
    {"rsa", RSA_KEY,
     "dz88bTraH9o3jR9qbJl5XVli5zN5RTgeuPxwnzP2ba515O6AkygNDRe/9NEflIg2M++yhOBCGn58kAcI2EATAKUZLyzzS8S7fNoj"
     "kNbeVGvD5j2XErti3eNsDZbAgQL38JwCDyRRO3v/LrEqDqbwqU9jcy9FXrS8+G9ahKt0wQNOK5xPPle1pgRMdnwZeH97ycPEmI50"
     "M7ROTSA0bwuXxRP1bLn6klVz1ZiO+V1smI3IcZ3h3NfopkJnJiQ/6I71aoMkyBHojGjpNNajF/a7FI1n0JpneK8ZklXfd4K8gaoB"
     "ddwUs5w71Y0KhNiAxTBFj8bSha1P7fFdsQWd8B48iw=="},
};
static const char P256_OF_DIGEST[] =
    "MEUCIBulEBeG+pkfUmB7rtC41S+Rkvg7v8CtThxVgdKY7Zf3AiEAxmfcxK7TAQeojOWh7//vVjZLhjESoUKK3e9WzFZofkk=";
static const char ED_OF_DIGEST[] =
    "lUkrxnONyqN0lUz0cZmvdgGIelXz/yccAjrdHepbCw6F/BWzNGlIjWSNl6qwebXgK2sNGzbspVphQyfwDxa1Dg==";
static const char K1_OF_PAYLOAD[] =
    "MEUCIDgTwE/SdOSyXBEA1Fx5PJWIqUdlBVse6ut3ifiabRMwAiEA/856mW9u163JywNMX67iU4GKBQp17AILwckhzDohcn8=";
static const char RSA1024_OF_PAYLOAD[] =
    "c9r/KRoVAuGOpV8IeVxoHB0kDljlZv+uDw0dP5sc9vISISLHqPeRguZeEdIPmC+GsjTixWZREm++4Ftuut61Yp7DYwSoZSGnpxHl"
    "+lnQ5rSPbUlyx09SGSgDdLgm33v1SmDZkOeOndkf1eMh/RvP35kzf3TakDXe4qkHOZdOx1U=";
static const struct bad {
    const char *payload, *signature, *says;
} bad_payloads[] = {
    {"not json",
     "MEQCIDuf62NdxMM5TvmancqNg3ILelUOxs4crz+zOMfa6Dg2AiBNr6Ye6X4xQo2GqAhkUMQz/UXt+amNZGQbQbe1HRfQfA==", "not JSON"},
    {"[]", "MEQCIBP57EsyR1DlwCxw/HPntyOAKssIxkQ36jPbKQYKUv0fAiBbaBalR4KEYVhJ8KP8KumcQAjznXou4Q7AJYxnwiVkrw==",
     "critical.type"},
    {"{\"critical\":{\"type\":\"cosign container image signature\"}}",
     "MEUCIQCW2EluD84Z7ftfMwy/tN3d99zGZvmmRfqnmIUWH4rh5gIgVcN0vkEyecc0QU6NpJUPWMaBgVI0tUCGDSYVZLuPbcQ=",
     "docker-manifest-digest"},
    {"{\"critical\":{\"image\":{\"docker-manifest-digest\":\"sha256:f6c0d945dc8a9e01854484f4e9b123945919e553778d4"
     "386d1d939451c038a0c\"},\"type\":\"other\"}}",
     "MEUCIQC6At4x7r+MkO5QCI9Vi5rptCLm6akkVakmPgI2yGlIYAIgWdeL2xTharP5Y9NOqgAQPMsqa8M0mYvVm1IUkZRUsMA=",
     "critical.type"},
    {"{\"critical\":{\"image\":{\"docker-manifest-digest\":\"sha256:ABC\"},\"type\":\"cosign container image signatur"
     "e\"}}",
     "MEYCIQCy5tGa87BHpZR8JeVsoF0smhIo/UGOimWy6GefdwUA8gIhAOh8ii+DUCDcw6mdn/16hXPob5b07O+7XlDCDSO4ZAvc",
     "docker-manifest-digest"},
    {"{\"critical\":{\"image\":{\"docker-manifest-digest\":\"sha256:f6c0d945dc8a9e01854484f4e9b123945919e553778d4"
     "386d1d939451c038a0c\"},\"type\":\"cosign container image signature\",\"type\":\"x\"}}",
     "MEQCIDtBBtXhVfiaIfEhzhPoQcBy0567a9UxI11uBXIBmd2PAiA/C3f6guIvmg7G82QDrqV/NGpCsZUJv9yv0vrgSd0f6g==", "not JSON"},
};

static void assert_error(char *error, const char *part)
{
    assert_non_null(error);
    if (strstr(error, part) == NULL)
        fail_msg("\"%s\" says nothing of \"%s\"", error, part);
    mem_free(error);
}

static char *check(const char *key, const char *payload, const char *signature, const char *digest)
{
    return signature_check_cosign(key, str_of(payload), str_of(signature), digest);
}

static void cosign_signatures_of_every_kind_are_good(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(payload_vectors); i++) {
        const struct vector *v = &payload_vectors[i];
        char *error = check(v->key, PAYLOAD, v->signature, DIGEST);
        if (error != NULL)
            fail_msg("%s: %s", v->name, error);
        assert_null(signature_check_key(v->key));
    }
}

static void another_key_is_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(payload_vectors); i++) {
        const struct vector *v = &payload_vectors[i];
        const char *other = v->key == P256_KEY ? ED_KEY : P256_KEY;
        assert_error(check(other, PAYLOAD, v->signature, DIGEST), "not of this key");
    }
}

static void another_digest_is_refused(void **state)
{
    (void)state;
    char other[80];
    memcpy(other, DIGEST, sizeof DIGEST);
    other[70] = other[70] == '0' ? '1' : '0';
    assert_error(check(P256_KEY, PAYLOAD, payload_vectors[0].signature, other), "the signature is for sha256:");
    assert_error(check(P256_KEY, PAYLOAD, payload_vectors[0].signature, NULL), "the signature is for sha256:");
    assert_error(check(P256_KEY, PAYLOAD, payload_vectors[0].signature, ""), "the signature is for sha256:");
}

static void changed_bytes_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof PAYLOAD - 1; i += 7) {
        char *changed = mem_strdup(PAYLOAD);
        changed[i] ^= 1;
        assert_error(check(P256_KEY, changed, payload_vectors[0].signature, DIGEST), "not of this key");
        mem_free(changed);
    }
    char *signature = mem_strdup(payload_vectors[0].signature);
    signature[20] = signature[20] == 'A' ? 'B' : 'A';
    assert_error(check(P256_KEY, PAYLOAD, signature, DIGEST), "not of this key");
    mem_free(signature);
}

static void signed_payloads_that_say_something_else_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad_payloads); i++)
        assert_error(check(P256_KEY, bad_payloads[i].payload, bad_payloads[i].signature, DIGEST), bad_payloads[i].says);
}

static void what_is_no_signature_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "=", "====", "A", "AAA", "AAAA", "AA==AAAA", "!!!!", "MEUC", "-----BEGIN"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_error(check(P256_KEY, PAYLOAD, bad[i], DIGEST), "the signature is not");
        assert_error(check(ED_KEY, PAYLOAD, bad[i], DIGEST), "the signature is not");
        assert_error(signature_check_detached(P256_KEY, str_of(DIGEST), str_of(bad[i])), "the signature is not");
    }
    assert_error(check(P256_KEY, "", payload_vectors[0].signature, DIGEST), "not of this key");
    struct strbuf large = {0};
    for (size_t i = 0; i < SIGNATURE_PAYLOAD_MAX + 1; i++)
        strbuf_addc(&large, ' ');
    assert_error(signature_check_cosign(P256_KEY, strbuf_str(&large), str_of("AAAA"), DIGEST), "larger than");
    strbuf_free(&large);
}

static void keys_that_cannot_be_used_are_told(void **state)
{
    (void)state;
    assert_error(check(K1_KEY, PAYLOAD, K1_OF_PAYLOAD, DIGEST), "curve secp256k1");
    assert_error(check(RSA1024_KEY, PAYLOAD, RSA1024_OF_PAYLOAD, DIGEST), "1024 bits");
    assert_error(signature_check_key(""), "empty");
    assert_error(signature_check_key("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"), "no public key");
    assert_error(signature_check_key("ssh-ed25519 AAAA"), "no public key");
    assert_error(signature_check_detached("garbage", str_of(DIGEST), str_of(P256_OF_DIGEST)), "no public key");
}

static void detached_signatures_are_raw_or_base64(void **state)
{
    (void)state;
    struct str digest = str_of(DIGEST);
    assert_null(signature_check_detached(P256_KEY, digest, str_of(P256_OF_DIGEST)));
    assert_null(signature_check_detached(ED_KEY, digest, str_of(ED_OF_DIGEST)));
    char *lines = mem_printf("\n%s\r\n", ED_OF_DIGEST);
    assert_null(signature_check_detached(ED_KEY, digest, str_of(lines)));
    mem_free(lines);
    assert_error(signature_check_detached(P256_KEY, digest, str_of(ED_OF_DIGEST)), "not of this key");
    assert_error(signature_check_detached(ED_KEY, str_upto(digest, digest.n - 1), str_of(ED_OF_DIGEST)),
                 "not of this digest");
}

static void what_is_made_is_good(void **state)
{
    (void)state;
    struct strbuf private_pem = {0}, public_pem = {0}, payload = {0}, raw = {0}, text = {0};
    assert_null(signature_make_key(&private_pem, &public_pem));
    char *private_key = strbuf_take(&private_pem), *public_key = strbuf_take(&public_pem);
    assert_null(signature_check_key(public_key));
    assert_error(signature_check_key(private_key), "private key");
    signature_payload_write("registry.example/a \"b\"", DIGEST, &payload);
    char says[80];
    assert_null(signature_payload_digest(strbuf_str(&payload), says));
    assert_string_equal(says, DIGEST);
    assert_null(signature_make(private_key, strbuf_str(&payload), &raw));
    signature_base64(strbuf_str(&raw), &text);
    assert_null(signature_check_cosign(public_key, strbuf_str(&payload), strbuf_str(&text), DIGEST));
    strbuf_clear(&raw);
    assert_null(signature_make(private_key, str_of(DIGEST), &raw));
    assert_null(signature_check_detached(public_key, str_of(DIGEST), strbuf_str(&raw)));
    assert_error(signature_make(public_key, str_of(DIGEST), &raw), "no private key");
    assert_error(signature_make("-----BEGIN ENCRYPTED PRIVATE KEY-----\n", str_of(DIGEST), &raw), "encrypted");
    mem_free(private_key);
    mem_free(public_key);
    strbuf_free(&payload);
    strbuf_free(&raw);
    strbuf_free(&text);
}

/* Any of several keys will do, and none of them is overlooked. */
static void test_several_keys(void **state)
{
    (void)state;
    const struct vector *v = &payload_vectors[0];
    char *good = mem_printf("# old and new\n%s%s", ED_KEY, P256_KEY), *other = mem_printf("%s%s", ED_KEY, P384_KEY);
    char *damaged = mem_printf("-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n%s", P256_KEY);
    char *weak = mem_printf("%s%s", P256_KEY, RSA1024_KEY);
    struct strbuf many = {0};
    for (int i = 0; i < 9; i++)
        strbuf_addz(&many, P256_KEY);
    strbuf_addc(&many, '\0');
    const struct {
        const char *pem, *error;
    } cases[] = {{good, NULL},
                 {other, "is not of this key"},
                 {damaged, "one of the keys in it cannot be read"},
                 {weak, "RSA key has 1024 bits"},
                 {many.p, "more than 8 keys"}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char *error = signature_check_cosign(cases[i].pem, STR(PAYLOAD), str_of(v->signature), DIGEST);
        if (cases[i].error == NULL && error != NULL)
            fail_msg("%s", error);
        if (cases[i].error != NULL && (error == NULL || strstr(error, cases[i].error) == NULL))
            fail_msg("\"%s\" does not say \"%s\"", error != NULL ? error : "good", cases[i].error);
        mem_free(error);
    }
    mem_free(good);
    mem_free(other);
    mem_free(damaged);
    mem_free(weak);
    strbuf_free(&many);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_several_keys),
        cmocka_unit_test(cosign_signatures_of_every_kind_are_good),
        cmocka_unit_test(another_key_is_refused),
        cmocka_unit_test(another_digest_is_refused),
        cmocka_unit_test(changed_bytes_are_refused),
        cmocka_unit_test(signed_payloads_that_say_something_else_are_refused),
        cmocka_unit_test(what_is_no_signature_is_refused),
        cmocka_unit_test(keys_that_cannot_be_used_are_told),
        cmocka_unit_test(detached_signatures_are_raw_or_base64),
        cmocka_unit_test(what_is_made_is_good),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
