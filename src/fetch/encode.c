/* SPDX-License-Identifier: Apache-2.0
 *
 * See encode.h.
 */
#include "fetch/encode.h"

#include <openssl/evp.h>

void encode_sha256(struct str bytes, char out[SHA256_HEX + 1])
{
    static const char hex[] = "0123456789abcdef";
    unsigned char md[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    ASSERT(EVP_Digest(bytes.p, bytes.n, md, &n, EVP_sha256(), NULL) == 1 && n == SHA256_HEX / 2);
    for (unsigned i = 0; i < n; i++) {
        out[2 * i] = hex[md[i] >> 4];
        out[2 * i + 1] = hex[md[i] & 15];
    }
    out[SHA256_HEX] = '\0';
}

void encode_digest(struct str bytes, char out[DIGEST_TEXT_MAX])
{
    memcpy(out, "sha256:", 7);
    encode_sha256(bytes, out + 7);
}

bool digest_is_good(struct str text)
{
    if (text.n != 7 + SHA256_HEX || memcmp(text.p, "sha256:", 7) != 0)
        return false;
    for (size_t i = 7; i < text.n; i++)
        if (!((text.p[i] >= '0' && text.p[i] <= '9') || (text.p[i] >= 'a' && text.p[i] <= 'f')))
            return false;
    return true;
}

void encode_base64(struct str bytes, struct strbuf *out)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *p = (const unsigned char *)bytes.p;
    for (size_t i = 0; i < bytes.n; i += 3) {
        size_t left = bytes.n - i;
        unsigned v = (unsigned)p[i] << 16 | (left > 1 ? (unsigned)p[i + 1] << 8 : 0) | (left > 2 ? p[i + 2] : 0);
        strbuf_addc(out, letters[v >> 18]);
        strbuf_addc(out, letters[v >> 12 & 63]);
        strbuf_addc(out, left > 1 ? letters[v >> 6 & 63] : '=');
        strbuf_addc(out, left > 2 ? letters[v & 63] : '=');
    }
}

static int value_of(char c)
{
    return c >= 'A' && c <= 'Z'   ? c - 'A'
           : c >= 'a' && c <= 'z' ? c - 'a' + 26
           : c >= '0' && c <= '9' ? c - '0' + 52
           : c == '+'             ? 62
           : c == '/'             ? 63
                                  : -1;
}

bool decode_base64(struct str text, struct strbuf *out)
{
    unsigned bits = 0, count = 0, pads = 0;
    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i];
        if (c == ' ' || c == '\t' || c == '\r' || c == '\n')
            continue;
        if (c == '=') {
            pads++;
            continue;
        }
        int v = value_of(c);
        if (v < 0 || pads > 0)
            return false;
        bits = bits << 6 | (unsigned)v;
        if (++count % 4 == 0) {
            strbuf_addc(out, (char)(bits >> 16));
            strbuf_addc(out, (char)(bits >> 8));
            strbuf_addc(out, (char)bits);
        }
    }
    unsigned left = count % 4;
    if (left == 1 || (pads > 0 && (left == 0 || left + pads != 4)))
        return false;
    if (left == 2)
        strbuf_addc(out, (char)(bits >> 4));
    if (left == 3) {
        strbuf_addc(out, (char)(bits >> 10));
        strbuf_addc(out, (char)(bits >> 2));
    }
    return true;
}

void encode_url(struct str text, struct strbuf *out)
{
    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i];
        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
            c == '_' || c == '~')
            strbuf_addc(out, c);
        else
            strbuf_printf(out, "%%%02X", (unsigned)(unsigned char)c);
    }
}
