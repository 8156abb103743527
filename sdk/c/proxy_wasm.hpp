// SPDX-License-Identifier: Apache-2.0
//
// Proxy-Wasm filters in C++17, over proxy_wasm.h: owners instead of free, no exceptions, no RTTI, no standard library.
// The callbacks are the C ones; define those that you need as extern "C". Link proxy_wasm.c (compiled as C) as well:
//
//     clang --target=wasm32 -O2 -nostdlib -ffreestanding -c proxy_wasm.c
//     clang++ --target=wasm32 -std=c++17 -O2 -nostdlib -ffreestanding -fno-exceptions -fno-rtti \
//             -Wl,--no-entry -Wl,--allow-undefined -o filter.wasm filter.cpp proxy_wasm.o
#ifndef PROXY_WASM_HPP
#define PROXY_WASM_HPP

#include "proxy_wasm.h"

namespace pw
{

// Bytes that belong to somebody else.
struct View {
    const char *data = nullptr;
    uint32_t size = 0;

    constexpr View() = default;
    constexpr View(const char *p, uint32_t n) : data(p), size(n) {}
    constexpr View(const char *z) : data(z), size(static_cast<uint32_t>(__builtin_strlen(z))) {}
    View(pw_str s) : data(s.p), size(s.n) {}
    pw_str str() const { return pw_str{const_cast<char *>(data), size}; }
    bool empty() const { return size == 0; }
    bool starts_with(View prefix) const { return pw_starts(str(), prefix.str()); }
    int32_t find(View needle) const { return pw_find(str(), needle.str()); }
    View sub(uint32_t at, uint32_t n = UINT32_MAX) const
    {
        at = at < size ? at : size;
        return View(data + at, n < size - at ? n : size - at);
    }
};
inline bool operator==(View a, View b) { return pw_eq(a.str(), b.str()); }
inline bool operator!=(View a, View b) { return !(a == b); }

// Bytes that came from the host; freed at the end of their scope.
class Value
{
  public:
    Value() = default;
    explicit Value(pw_str s, bool found = true) : s_(s), found_(found) {}
    Value(const Value &) = delete;
    Value &operator=(const Value &) = delete;
    Value(Value &&o) noexcept : s_(o.s_), found_(o.found_) { o.s_ = pw_str{nullptr, 0}; }
    Value &operator=(Value &&o) noexcept
    {
        pw_str s = s_;
        s_ = o.s_;
        o.s_ = s;
        found_ = o.found_;
        return *this;
    }
    ~Value() { pw_free_str(&s_); }
    explicit operator bool() const { return found_; }
    operator View() const { return View(s_); }
    View view() const { return View(s_); }
    bool empty() const { return s_.n == 0; }

  private:
    pw_str s_{nullptr, 0};
    bool found_ = false;
};
inline bool operator==(const Value &a, View b) { return a.view() == b; }
inline bool operator!=(const Value &a, View b) { return !(a == b); }

// One of the header maps: pw::request_headers["x"] to read, .set("x", "y") to write.
struct Map {
    pw_map map;
    Value operator[](const char *name) const
    {
        pw_str v;
        bool found = pw_find_header(map, name, &v);
        return Value(v, found);
    }
    pw_status set(const char *name, View value) const { return pw_set_header(map, name, value.str()); }
    pw_status add(const char *name, View value) const { return pw_add_header(map, name, value.str()); }
    pw_status remove(const char *name) const { return pw_remove_header(map, name); }
    // fn(View name, View value) for each.
    template <typename Fn> void each(Fn fn) const
    {
        pw_pair *list;
        void *block;
        uint32_t n = pw_get_pairs(map, &list, &block);
        for (uint32_t i = 0; i < n; i++) {
            fn(View(list[i].name), View(list[i].value));
        }
        pw_free(block);
    }
};
inline constexpr Map request_headers{PW_REQUEST_HEADERS}, request_trailers{PW_REQUEST_TRAILERS},
    response_headers{PW_RESPONSE_HEADERS}, response_trailers{PW_RESPONSE_TRAILERS}, call_headers{PW_CALL_HEADERS};

struct Buffer {
    pw_buffer buffer;
    Value get(uint32_t start = 0, uint32_t size = UINT32_MAX) const
    {
        return Value(pw_get_buffer(buffer, start, size));
    }
    pw_status replace(View data) const { return pw_set_buffer(buffer, 0, UINT32_MAX, data.str()); }
    pw_status append(View data) const { return pw_set_buffer(buffer, UINT32_MAX, 0, data.str()); }
    pw_status splice(uint32_t start, uint32_t size, View data) const
    {
        return pw_set_buffer(buffer, start, size, data.str());
    }
};
inline constexpr Buffer request_body{PW_REQUEST_BODY}, response_body{PW_RESPONSE_BODY}, call_body{PW_CALL_BODY};

inline Value config() { return Value(pw_get_config()); }
inline Value property(const char *path) { return Value(pw_get_property(path)); }
inline void log(pw_log_level level, View text) { pw_log(level, text.str()); }
inline void reply(uint32_t status, View body = View(), const char *details = "")
{
    pw_reply(status, details, body.str(), nullptr, 0);
}

// A pair for header lists of replies and calls.
inline pw_pair pair(View name, View value) { return pw_pair{name.str(), value.str()}; }

struct Shared {
    Value value;
    uint32_t cas = 0;
};
inline Shared shared_get(View key)
{
    pw_str v;
    uint32_t cas = 0;
    bool found = pw_get_shared(key.str(), &v, &cas) == PW_OK;
    return Shared{Value(v, found), cas};
}
inline pw_status shared_set(View key, View value, uint32_t cas = 0)
{
    return pw_set_shared(key.str(), value.str(), cas);
}

// The state of a stream: T must be trivial (zeroes are its start). Free it in pw_on_delete with pw_state_free.
template <typename T> T &state(uint32_t ctx)
{
    static_assert(__is_trivial(T), "state starts as zeroes and is never destroyed");
    return *static_cast<T *>(pw_state(ctx, sizeof(T)));
}

struct Metric {
    uint32_t id;
    Metric(pw_metric_type type, const char *name) : id(pw_define_metric(type, name)) {}
    void increment(int64_t by = 1) const { pw_increment(id, by); }
    void record(uint64_t v) const { pw_record(id, v); }
    uint64_t get() const { return pw_get_metric(id); }
};

} // namespace pw

#endif
