/* SPDX-License-Identifier: Apache-2.0
 *
 * my-wasm-filter: the filter of the walk (README.md here). It needs no configuration: who sends no authorization header
 * gets 401; every answer says that the filter saw it, and so does the log.
 */
#include "proxy_wasm.h"

bool pw_on_configure(uint32_t root, uint32_t config_size)
{
    (void)root;
    (void)config_size;
    pw_log(PW_INFO, PW_STR("my-wasm-filter is configured"));
    return true;
}

enum pw_action pw_on_request_headers(uint32_t ctx, uint32_t count, bool end)
{
    (void)ctx;
    (void)count;
    (void)end;
    PW_AUTO struct pw_str given = pw_get_header(PW_REQUEST_HEADERS, "authorization");
    if (given.n > 0)
        return PW_CONTINUE;
    pw_log(PW_INFO, PW_STR("refused: no authorization"));
    struct pw_pair challenge = {PW_STR("www-authenticate"), PW_STR("Bearer")};
    pw_reply(401, "no_authorization", PW_STR("who are you?\n"), &challenge, 1);
    return PW_PAUSE;
}

enum pw_action pw_on_response_headers(uint32_t ctx, uint32_t count, bool end)
{
    (void)ctx;
    (void)count;
    (void)end;
    pw_set_header(PW_RESPONSE_HEADERS, "x-wasm-filter", PW_STR("my-wasm-filter"));
    return PW_CONTINUE;
}
