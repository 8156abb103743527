// SPDX-License-Identifier: Apache-2.0
//
// Uses the C++ header of the SDK; a line "FAIL ..." in the log is a failure.
#include "proxy_wasm.hpp"

#define CHECK(cond)                                                                                                    \
    do {                                                                                                               \
        if (!(cond)) {                                                                                                 \
            pw::log(PW_ERROR, "FAIL " #cond);                                                                          \
        }                                                                                                              \
    } while (0)

struct Seen {
    uint32_t bodies;
};

extern "C" pw_action pw_on_request_headers(uint32_t ctx, uint32_t count, bool)
{
    pw::Value key = pw::request_headers["x-key"];
    CHECK(key && key == "secret");
    CHECK(!pw::request_headers["absent"]);
    CHECK(pw::request_headers["empty"] && pw::request_headers["empty"].empty());
    CHECK(pw::request_headers.set("x-cpp", key) == PW_OK);
    uint32_t seen = 0;
    pw::request_headers.each([&](pw::View name, pw::View value) {
        seen++;
        CHECK(!name.empty());
        CHECK(name != "x-cpp" || value == "secret");
    });
    CHECK(seen == count + 1);
    CHECK(key.view().starts_with("sec") && key.view().find("ret") == 3 && key.view().sub(3) == "ret");
    CHECK(pw::shared_set("k", "v") == PW_OK);
    pw::Shared shared = pw::shared_get("k");
    CHECK(shared.value == "v" && shared.cas != 0);
    CHECK(!pw::shared_get("absent").value);
    CHECK(pw::config() == "{\"a\":1}" && pw::property("plugin_root_id") == "root");
    pw::Metric counter(PW_COUNTER, "cpp_requests");
    uint64_t before = counter.get();
    counter.increment();
    CHECK(counter.get() == before + 1);
    pw::state<Seen>(ctx).bodies = 5;
    pw::Value moved = static_cast<pw::Value &&>(key);
    CHECK(moved == "secret" && key.empty());
    return PW_CONTINUE;
}

extern "C" pw_action pw_on_response_headers(uint32_t, uint32_t, bool)
{
    pw::reply(403, "no", "cpp");
    return PW_PAUSE;
}

extern "C" pw_action pw_on_request_body(uint32_t ctx, uint32_t, bool)
{
    CHECK(pw::state<Seen>(ctx).bodies == 5);
    CHECK(pw::request_body.get() == "hello");
    CHECK(pw::request_body.append("!") == PW_OK && pw::request_body.splice(0, 1, "J") == PW_OK);
    return PW_CONTINUE;
}

extern "C" void pw_on_delete(uint32_t ctx) { pw_state_free(ctx); }
