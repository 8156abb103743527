/* SPDX-License-Identifier: Apache-2.0
 *
 * See signature.h. What must never happen: a signature that is taken for good because something could not be read, or a
 * prompt for a password on the terminal of a gateway. So every path ends in an error but the one behind a verification
 * that said 1.
 */
#include "fetch/signature.h"

#include <jansson.h>
#include <openssl/bio.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>

enum { KEYS_MAX = 8, RSA_BITS_MIN = 2048, RSA_BITS_MAX = 8192, DIGEST_TEXT = 71 /* "sha256:" and 64 digits */ };

static const char PAYLOAD_TYPE[] = "cosign container image signature";

/* ---- keys ---- */

/* OpenSSL would ask on the terminal. */
static int no_password(char *out, int size, int writing, void *arg)
{
    (void)out;
    (void)size;
    (void)writing;
    (void)arg;
    return -1;
}

static char *curve_error(const EVP_PKEY *key)
{
    static const char *const known[] = {"prime256v1", "secp384r1", "secp521r1"};
    char name[64] = "";
    size_t n = 0;
    if (EVP_PKEY_get_group_name(key, name, sizeof name, &n) == 1)
        for (size_t i = 0; i < ARRAY_LEN(known); i++)
            if (strcmp(name, known[i]) == 0)
                return NULL;
    return mem_printf("the key is on the curve %s: want P-256, P-384 or P-521", name[0] != '\0' ? name : "?");
}

/* NULL: of a kind this file uses. */
static char *kind_error(const EVP_PKEY *key)
{
    switch (EVP_PKEY_get_base_id(key)) {
    case EVP_PKEY_ED25519: return NULL;
    case EVP_PKEY_EC: return curve_error(key);
    case EVP_PKEY_RSA: {
        int bits = EVP_PKEY_get_bits(key);
        return bits >= RSA_BITS_MIN && bits <= RSA_BITS_MAX
                   ? NULL
                   : mem_printf("the RSA key has %d bits: want %d to %d", bits, RSA_BITS_MIN, RSA_BITS_MAX);
    }
    default: return mem_strdup("the key is of an unknown kind: want ECDSA, ed25519 or RSA");
    }
}

static bool size_is_good(const char *pem, char **error)
{
    size_t n = pem != NULL ? strlen(pem) : 0;
    if (n > 0 && n <= SIGNATURE_KEY_MAX)
        return true;
    *error = mem_printf(n == 0 ? "the key is empty" : "the key is larger than %d bytes", SIGNATURE_KEY_MAX);
    return false;
}

static EVP_PKEY *private_key_read(const char *pem, char **error)
{
    if (!size_is_good(pem, error))
        return NULL;
    BIO *in = BIO_new_mem_buf(pem, -1);
    ASSERT(in != NULL);
    EVP_PKEY *key = PEM_read_bio_PrivateKey(in, NULL, no_password, NULL);
    BIO_free(in);
    ERR_clear_error();
    if (key != NULL)
        *error = kind_error(key);
    else if (strstr(pem, "ENCRYPTED") != NULL)
        *error = mem_strdup("the private key is encrypted: give it without a password (openssl pkey -in KEY -out FILE; "
                            "keys that cosign encrypted cannot be read)");
    else
        *error = mem_strdup("no private key in it: want PEM");
    if (*error == NULL)
        return key;
    EVP_PKEY_free(key);
    return NULL;
}

/* Any of them will do: so keys can be exchanged without a moment in which neither counts. */
struct keys {
    EVP_PKEY *list[KEYS_MAX];
    size_t count;
};

static void keys_free(struct keys *keys)
{
    for (size_t i = 0; i < keys->count; i++)
        EVP_PKEY_free(keys->list[i]);
    keys->count = 0;
}

/* OpenSSL passes over what it cannot read: a key that was meant to count must not be overlooked so. */
static size_t keys_meant(const char *pem)
{
    static const char begin[] = "-----BEGIN PUBLIC KEY-----";
    size_t n = 0;
    for (const char *at = strstr(pem, begin); at != NULL; at = strstr(at + 1, begin))
        n++;
    return n;
}

static bool keys_read(const char *pem, struct keys *out, char **error)
{
    out->count = 0;
    if (!size_is_good(pem, error))
        return false;
    if (keys_meant(pem) > KEYS_MAX) {
        *error = mem_printf("there are more than %d keys in it", KEYS_MAX);
        return false;
    }
    BIO *in = BIO_new_mem_buf(pem, -1);
    ASSERT(in != NULL);
    while (*error == NULL && out->count < KEYS_MAX) {
        EVP_PKEY *key = PEM_read_bio_PUBKEY(in, NULL, no_password, NULL);
        if (key == NULL)
            break;
        out->list[out->count++] = key;
        *error = kind_error(key);
    }
    BIO_free(in);
    ERR_clear_error();
    if (*error == NULL && out->count == 0)
        *error = mem_strdup(strstr(pem, "PRIVATE KEY") != NULL ? "it is a private key: want the public one"
                                                               : "no public key in it: want PEM, BEGIN PUBLIC KEY");
    else if (*error == NULL && out->count < keys_meant(pem))
        *error = mem_strdup("one of the keys in it cannot be read");
    if (*error != NULL)
        keys_free(out);
    return *error == NULL;
}

char *signature_check_key(const char *pem)
{
    struct keys keys;
    char *error = NULL;
    if (keys_read(pem, &keys, &error))
        keys_free(&keys);
    return error;
}

/* ---- checking ---- */

static bool verify_with(EVP_PKEY *key, const EVP_MD *md, struct str bytes, struct str signature)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    ASSERT(ctx != NULL);
    bool good = EVP_DigestVerifyInit(ctx, NULL, md, NULL, key) == 1 &&
                EVP_DigestVerify(ctx, (const unsigned char *)signature.p, signature.n,
                                 (const unsigned char *)(bytes.n > 0 ? bytes.p : ""), bytes.n) == 1;
    EVP_MD_CTX_free(ctx);
    ERR_clear_error();
    return good;
}

/* Signers differ in the digest they take for the larger curves: both are as strong as the key. */
static bool verify_one(EVP_PKEY *key, struct str bytes, struct str signature)
{
    int kind = EVP_PKEY_get_base_id(key);
    if (kind == EVP_PKEY_ED25519)
        return verify_with(key, NULL, bytes, signature);
    if (verify_with(key, EVP_sha256(), bytes, signature))
        return true;
    if (kind != EVP_PKEY_EC || EVP_PKEY_get_bits(key) < 384)
        return false;
    return verify_with(key, EVP_PKEY_get_bits(key) == 384 ? EVP_sha384() : EVP_sha512(), bytes, signature);
}

static bool verify(const struct keys *keys, struct str bytes, struct str signature)
{
    bool good = false;
    if (signature.n == 0 || signature.n > SIGNATURE_MAX)
        return false;
    for (size_t i = 0; i < keys->count && !good; i++)
        good = verify_one(keys->list[i], bytes, signature);
    return good;
}

/* Strict but for white space at the ends. False: no base64. */
static bool base64_decode(struct str text, struct strbuf *out)
{
    static const char space[] = " \t\r\n";
    while (text.n > 0 && strchr(space, text.p[0]) != NULL)
        text = str_from(text, 1);
    while (text.n > 0 && strchr(space, text.p[text.n - 1]) != NULL)
        text.n--;
    if (text.n == 0 || text.n % 4 != 0 || text.n > SIGNATURE_MAX / 3 * 4)
        return false;
    for (size_t i = 0; i < text.n; i++) /* the decoder overlooks some */
        if (!((text.p[i] >= 'A' && text.p[i] <= 'Z') || (text.p[i] >= 'a' && text.p[i] <= 'z') ||
              (text.p[i] >= '0' && text.p[i] <= '9') || text.p[i] == '+' || text.p[i] == '/' ||
              (text.p[i] == '=' && i + 2 >= text.n)))
            return false;
    unsigned char raw[SIGNATURE_MAX + 4];
    int n = EVP_DecodeBlock(raw, (const unsigned char *)text.p, (int)text.n);
    ERR_clear_error();
    if (n <= 0)
        return false;
    n -= (text.p[text.n - 1] == '=') + (text.p[text.n - 2] == '=');
    strbuf_add(out, str_span(raw, (size_t)n));
    return n > 0;
}

static bool is_digest(const char *text)
{
    if (text == NULL || strlen(text) != DIGEST_TEXT || strncmp(text, "sha256:", 7) != 0)
        return false;
    return strspn(text + 7, "0123456789abcdef") == DIGEST_TEXT - 7;
}

char *signature_payload_digest(struct str payload, char out[80])
{
    if (payload.n == 0 || payload.n > SIGNATURE_PAYLOAD_MAX)
        return mem_printf("the signed payload has %zu bytes", payload.n);
    json_error_t why;
    json_t *root = json_loadb(payload.p, payload.n, JSON_REJECT_DUPLICATES, &why);
    if (root == NULL)
        return mem_strdup("the signed payload is not JSON");
    const json_t *critical = json_object_get(root, "critical");
    const char *type = json_string_value(json_object_get(critical, "type"));
    const char *digest =
        json_string_value(json_object_get(json_object_get(critical, "image"), "docker-manifest-digest"));
    char *error = NULL;
    if (type == NULL || strcmp(type, PAYLOAD_TYPE) != 0)
        error = mem_printf("the signed payload's critical.type is not \"%s\"", PAYLOAD_TYPE);
    else if (!is_digest(digest))
        error = mem_strdup("the signed payload's critical.image.docker-manifest-digest is no sha256 digest");
    else
        memcpy(out, digest, DIGEST_TEXT + 1);
    json_decref(root);
    return error;
}

char *signature_check_cosign(const char *pem, struct str payload, struct str signature_base64, const char *digest)
{
    char *error = NULL;
    struct keys keys;
    if (!keys_read(pem, &keys, &error))
        return error;
    struct strbuf signature = {0};
    char says[80] = "";
    if (payload.n > SIGNATURE_PAYLOAD_MAX)
        error = mem_printf("the signed payload is larger than %d bytes", SIGNATURE_PAYLOAD_MAX);
    else if (!base64_decode(signature_base64, &signature))
        error = mem_strdup("the signature is not base64");
    else if (!verify(&keys, payload, strbuf_str(&signature)))
        error = mem_strdup("the signature is not of this key");
    else
        error = signature_payload_digest(payload, says);
    if (error == NULL && (digest == NULL || strcmp(says, digest) != 0))
        error = mem_printf("the signature is for %s", says);
    strbuf_free(&signature);
    keys_free(&keys);
    return error;
}

char *signature_check_detached(const char *pem, struct str bytes, struct str signature)
{
    char *error = NULL;
    struct keys keys;
    if (!keys_read(pem, &keys, &error))
        return error;
    struct strbuf decoded = {0};
    if (!verify(&keys, bytes, signature) &&
        !(base64_decode(signature, &decoded) && verify(&keys, bytes, strbuf_str(&decoded))))
        error = mem_strdup("the signature is not of this key, or not of this digest");
    strbuf_free(&decoded);
    keys_free(&keys);
    return error;
}

/* ---- making ---- */

void signature_payload_write(const char *reference, const char *digest, struct strbuf *out)
{
    strbuf_addz(out, "{\"critical\":{\"identity\":{\"docker-reference\":");
    strbuf_add_json(out, str_of(reference));
    strbuf_addz(out, "},\"image\":{\"docker-manifest-digest\":");
    strbuf_add_json(out, str_of(digest));
    strbuf_printf(out, "},\"type\":\"%s\"},\"optional\":null}", PAYLOAD_TYPE);
}

char *signature_make(const char *private_pem, struct str bytes, struct strbuf *out)
{
    char *error = NULL;
    EVP_PKEY *key = private_key_read(private_pem, &error);
    if (key == NULL)
        return error;
    unsigned char made[SIGNATURE_MAX];
    size_t n = sizeof made;
    const EVP_MD *md = EVP_PKEY_get_base_id(key) == EVP_PKEY_ED25519 ? NULL : EVP_sha256();
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    ASSERT(ctx != NULL);
    if (EVP_DigestSignInit(ctx, NULL, md, NULL, key) == 1 &&
        EVP_DigestSign(ctx, made, &n, (const unsigned char *)bytes.p, bytes.n) == 1)
        strbuf_add(out, str_span(made, n));
    else
        error = mem_strdup("cannot sign with this key");
    EVP_MD_CTX_free(ctx);
    EVP_PKEY_free(key);
    ERR_clear_error();
    return error;
}

static bool take_pem(BIO *from, bool ok, struct strbuf *out)
{
    char *text = NULL;
    long n = BIO_get_mem_data(from, &text);
    if (ok && n > 0)
        strbuf_add(out, str_span(text, (size_t)n));
    BIO_free(from);
    return ok && n > 0;
}

char *signature_make_key(struct strbuf *private_pem, struct strbuf *public_pem)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    if (key == NULL)
        return mem_strdup("cannot make a key");
    BIO *hidden = BIO_new(BIO_s_secmem()), *open = BIO_new(BIO_s_mem());
    ASSERT(hidden != NULL && open != NULL);
    bool ok = take_pem(hidden, PEM_write_bio_PKCS8PrivateKey(hidden, key, NULL, NULL, 0, NULL, NULL) == 1, private_pem);
    ok = take_pem(open, PEM_write_bio_PUBKEY(open, key) == 1, public_pem) && ok;
    EVP_PKEY_free(key);
    return ok ? NULL : mem_strdup("cannot write the key");
}

void signature_base64(struct str bytes, struct strbuf *out)
{
    ASSERT(bytes.n <= SIGNATURE_MAX);
    unsigned char text[SIGNATURE_MAX / 3 * 4 + 8];
    int n = EVP_EncodeBlock(text, (const unsigned char *)bytes.p, (int)bytes.n);
    strbuf_add(out, str_span(text, (size_t)n));
}
