/* SPDX-License-Identifier: Apache-2.0
 *
 * api-key: requests must carry one of the configured keys, else 401. The quickstart's filter: authorisation in C.
 *
 *   pluginConfig:
 *     header: x-api-key          # default
 *     keys: ["secret"]           # at least one
 *
 * Weir hands the configuration over as compact JSON (no spaces), so a key is found by its quotes.
 */
#include "proxy_wasm.h"

static struct pw_str config, keys, header_name;

/* The value after "name": in compact JSON, up to `end`; p NULL when it is not there. */
static struct pw_str member(struct pw_str json, const char *name, char end)
{
    struct pw_str quoted = pw_z(name);
    int32_t at = pw_find(json, quoted);
    if (at < 0)
        return (struct pw_str){0};
    struct pw_str value = {json.p + at + quoted.n, 0};
    while (value.p + value.n < json.p + json.n && value.p[value.n] != end)
        value.n++;
    return value;
}

/* Equal in a time that does not tell how much of the key was right. */
static bool same_key(struct pw_str a, struct pw_str b)
{
    unsigned char differs = a.n != b.n;
    for (uint32_t i = 0; i < a.n && i < b.n; i++)
        differs |= (unsigned char)(a.p[i] ^ b.p[i]);
    return !differs;
}

static bool is_known(struct pw_str given)
{
    bool known = false;
    for (uint32_t i = 0; i < keys.n; i++) { /* "a","b" */
        if (keys.p[i] != '"')
            continue;
        struct pw_str key = {keys.p + ++i, 0};
        while (i < keys.n && keys.p[i] != '"') {
            key.n++;
            i++;
        }
        known |= key.n > 0 && same_key(key, given);
    }
    return known;
}

bool pw_on_configure(uint32_t root, uint32_t config_size)
{
    (void)root;
    (void)config_size;
    config = pw_get_config();
    keys = member(config, "\"keys\":[", ']');
    header_name = member(config, "\"header\":\"", '"');
    if (keys.n < 3 || pw_find(config, PW_STR("\\")) >= 0) {
        pw_log(PW_ERROR, PW_STR("pluginConfig must have keys: a list of strings without backslashes"));
        return false;
    }
    if (header_name.n == 0)
        header_name = pw_z("x-api-key");
    else
        header_name.p[header_name.n] = '\0'; /* in place of its closing quote: names are NUL-terminated in the SDK */
    return true;
}

enum pw_action pw_on_request_headers(uint32_t ctx, uint32_t count, bool end)
{
    (void)ctx;
    (void)count;
    (void)end;
    PW_AUTO struct pw_str given = pw_get_header(PW_REQUEST_HEADERS, header_name.p);
    if (is_known(given)) {
        pw_remove_header(PW_REQUEST_HEADERS, header_name.p); /* the upstream need not see it */
        return PW_CONTINUE;
    }
    struct pw_pair challenge = {PW_STR("www-authenticate"), PW_STR("ApiKey")};
    pw_reply(401, "api_key_refused", PW_STR("a valid API key is required\n"), &challenge, 1);
    return PW_PAUSE;
}
