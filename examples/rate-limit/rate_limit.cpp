// SPDX-License-Identifier: Apache-2.0
//
// rate-limit: so many requests per client in so many seconds, over all workers. Traffic shaping in C++ over
// proxy_wasm.hpp.
//
//   pluginConfig:
//     requests: 10          # so many,
//     seconds: 60           # in this time (default 1)
//     burst: 5              # at once, after a pause; default: requests
//     header: x-api-key     # who the client is; default, and for requests without this header: the source address
//
// GCRA: for each client one number is shared by all workers, the time at which it has used nothing any more ("TAT"). A
// request moves it on by seconds / requests; a request that would move it further ahead of now than burst allows is
// refused with 429 and the exact Retry-After. Two workers that count at once are told apart by compare-and-swap. A
// client is a hash of its name, so that one entry has a fixed size; Weir keeps the entries within the quota of the
// vm_id and forgets those least recently used.
//
// Answers carry RateLimit-Policy and RateLimit (draft-ietf-httpapi-ratelimit-headers). A header that anybody can invent
// is no identity: let a filter of the phase AUTHN check it first.
#include "proxy_wasm.hpp"

#include "../config.h"

namespace
{

constexpr uint64_t kSecond = 1000000000;
constexpr uint32_t kAnyCas = UINT32_MAX; // for a key that is not there: fails when another worker has just made it
constexpr int kTries = 16;

struct Limit {
    uint64_t requests, seconds, burst;
    uint64_t interval; // ns that one request costs
    char header[128];
} limit;

uint32_t refused_metric;

struct Verdict {
    bool known; // also: RateLimit headers are wanted
    bool allowed;
    uint64_t remaining; // requests that would pass now
    uint64_t reset_ns;  // until nothing is used
    uint64_t retry_ns;
};

uint64_t hash(pw::View text, uint64_t h)
{
    for (uint32_t i = 0; i < text.size; i++) {
        h = (h ^ static_cast<unsigned char>(text.data[i])) * 0x100000001b3;
    }
    return (h ^ (h >> 29)) * 0xbf58476d1ce4e5b9;
}

// "rate-limit/" and 128 bits of hash. Names of headers and addresses are kept apart.
struct Key {
    char text[48];
    uint32_t size = 0;

    void add(pw::View v)
    {
        memcpy(text + size, v.data, v.size);
        size += v.size;
    }
    void add_hex(uint64_t v)
    {
        for (int shift = 60; shift >= 0; shift -= 4) {
            text[size++] = "0123456789abcdef"[(v >> shift) & 15];
        }
    }
    Key(char kind, pw::View name)
    {
        add("rate-limit/");
        text[size++] = kind;
        add_hex(hash(name, 0xcbf29ce484222325));
        add_hex(hash(name, 0x84222325cbf29ce4));
    }
    pw::View view() const { return pw::View(text, size); }
};

// "192.0.2.1:4711" and "[2001:db8::1]:4711" without the port.
pw::View without_port(pw::View address)
{
    for (uint32_t n = address.size; n > 0; n--) {
        if (address.data[n - 1] == ':') {
            return address.sub(0, n - 1);
        }
    }
    return address;
}

Key client_key()
{
    if (limit.header[0] != 0) {
        pw::Value name = pw::request_headers[limit.header];
        if (name && !name.empty()) {
            return Key('h', name);
        }
    }
    pw::Value address = pw::property("source.address");
    return Key('a', without_port(address));
}

// What a request at `now` means for a client that has used up the time until tat; moves tat on when it is allowed.
Verdict judge(uint64_t now, uint64_t &tat)
{
    uint64_t full = limit.burst * limit.interval;
    uint64_t used = tat > now ? tat - now : 0;

    if (used > full) { // the clock was set back
        used = full;
    }
    bool allowed = used + limit.interval <= full;
    uint64_t retry = allowed ? 0 : used + limit.interval - full;
    if (allowed) {
        used += limit.interval;
        tat = now + used;
    }
    return Verdict{true, allowed, (full - used) / limit.interval, used, retry};
}

Verdict count(pw::View key)
{
    for (int i = 0; i < kTries; i++) {
        pw::Shared entry = pw::shared_get(key);
        uint64_t tat = 0;
        if (entry.value.view().size == sizeof tat) {
            memcpy(&tat, entry.value.view().data, sizeof tat);
        }
        Verdict v = judge(pw_now_ns(), tat);
        pw::View bytes(reinterpret_cast<const char *>(&tat), sizeof tat);
        if (!v.allowed || pw::shared_set(key, bytes, entry.value ? entry.cas : kAnyCas) == PW_OK) {
            return v;
        }
    }
    // So many others counted in the meantime that this client is busy beyond its limit.
    return Verdict{true, false, 0, limit.interval, limit.interval};
}

uint64_t seconds_up(uint64_t ns) { return (ns + kSecond - 1) / kSecond; }

// A header's value out of parts.
struct Text {
    char text[96];
    uint32_t size = 0;

    Text &add(pw::View v)
    {
        memcpy(text + size, v.data, v.size);
        size += v.size;
        return *this;
    }
    Text &add(uint64_t v)
    {
        char digits[21];
        return add(pw::View(pw_format_u64(v, digits)));
    }
    pw::View view() const { return pw::View(text, size); }
};

Text policy_text()
{
    Text t;
    t.add("\"client\";q=").add(limit.burst).add(";w=").add(seconds_up(limit.burst * limit.interval));
    return t;
}

Text limit_text(const Verdict &v)
{
    Text t;
    t.add("\"client\";r=").add(v.remaining).add(";t=").add(seconds_up(v.reset_ns));
    return t;
}

void refuse(const Verdict &v)
{
    Text policy = policy_text(), now = limit_text(v), after;
    after.add(seconds_up(v.retry_ns));
    pw_pair headers[] = {pw::pair("retry-after", after.view()), pw::pair("ratelimit-policy", policy.view()),
                         pw::pair("ratelimit", now.view()), pw::pair("content-type", "text/plain")};
    pw_reply(429, "rate_limited", pw::View("too many requests\n").str(), headers, 4);
    pw_increment(refused_metric, 1);
}

// A whole number from 1 to most; `otherwise` when there is none.
bool read_number(pw::View config, const char *name, uint64_t otherwise, uint64_t most, uint64_t &out)
{
    pw_str text = config_member(config.str(), name);

    out = otherwise;
    if (text.p != nullptr && !pw_parse_u64(text, &out)) {
        out = 0;
    }
    if (out >= 1 && out <= most) {
        return true;
    }
    pw_logf(PW_ERROR, "pluginConfig: %s must be a whole number from 1 to %u", name, static_cast<uint32_t>(most));
    return false;
}

bool read_header(pw::View config)
{
    pw_str value = config_member(config.str(), "header"), name;

    limit.header[0] = 0;
    if (value.p == nullptr) {
        return true;
    }
    if (!config_string(value, &name) || name.n == 0 || name.n >= sizeof limit.header) {
        pw::log(PW_ERROR, "pluginConfig: header must be the name of a header");
        return false;
    }
    memcpy(limit.header, name.p, name.n);
    limit.header[name.n] = 0;
    return true;
}

} // namespace

extern "C" bool pw_on_configure(uint32_t, uint32_t)
{
    pw::Value config = pw::config();

    if (!read_number(config, "requests", 0, 1000000, limit.requests) ||
        !read_number(config, "seconds", 1, 86400, limit.seconds) ||
        !read_number(config, "burst", limit.requests, 1000000, limit.burst) || !read_header(config)) {
        return false;
    }
    limit.interval = limit.seconds * kSecond / limit.requests;
    if (limit.burst > INT64_MAX / limit.interval) { // times are nanoseconds in 64 bits
        pw::log(PW_ERROR, "pluginConfig: burst is centuries of requests");
        return false;
    }
    refused_metric = pw_define_metric(PW_COUNTER, "rate_limit_refused");
    return true;
}

extern "C" pw_action pw_on_request_headers(uint32_t ctx, uint32_t, bool)
{
    Verdict v = count(client_key().view());

    if (!v.allowed) {
        refuse(v);
        return PW_PAUSE;
    }
    pw::state<Verdict>(ctx) = v;
    return PW_CONTINUE;
}

extern "C" pw_action pw_on_response_headers(uint32_t ctx, uint32_t, bool)
{
    const Verdict &v = pw::state<Verdict>(ctx);

    if (v.known) { // not for our own 429, which has them
        pw::response_headers.set("ratelimit-policy", policy_text().view());
        pw::response_headers.set("ratelimit", limit_text(v).view());
    }
    return PW_CONTINUE;
}

extern "C" void pw_on_delete(uint32_t ctx) { pw_state_free(ctx); }
