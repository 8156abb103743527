/* SPDX-License-Identifier: Apache-2.0
 *
 * Host functions: log, clock, timer, and what the guest may know of a callout's end. The allocator may call the first
 * three. Must never answer anything but OK where the Rust SDK panics on it.
 */
#include "wasm/abi.h"

ABI_FUNCTION_ANY(log)
{
    struct str text;

    if (a[0].u32 > LOG_CRITICAL) {
        return ABI_BAD_ARGUMENT;
    }
    if (!abi_read(pv, a[1], a[2], &text)) {
        return ABI_INVALID_MEMORY_ACCESS;
    }
    abi_log(pv, (enum log_level)a[0].u32, text);
    return ABI_OK;
}

ABI_FUNCTION_ANY(get_log_level)
{
    enum log_level level = log_get_level();

    if (!abi_writable(pv, a[0], 4)) {
        return ABI_INVALID_MEMORY_ACCESS;
    }
    /* 6, "off", is no member of the guest's enum. */
    abi_store_u32(pv, a[0], level <= LOG_CRITICAL ? (uint32_t)level : LOG_CRITICAL);
    return ABI_OK;
}

ABI_FUNCTION_ANY(get_current_time_nanoseconds)
{
    if (!abi_writable(pv, a[0], 8)) {
        return ABI_INVALID_MEMORY_ACCESS;
    }
    abi_store_u64(pv, a[0], abi_wall_ns(pv));
    return ABI_OK;
}

ABI_FUNCTION(set_tick_period_milliseconds)
{
    uint32_t ms = a[0].u32;

    if (ms != 0 && ms < TICK_MIN_MS) {
        abi_warn_once(pv, WARN_TICK, "tick period of %u ms raised to %d ms", ms, TICK_MIN_MS);
        ms = TICK_MIN_MS;
    }
    pv->tick_ms = ms;
    if (pv->attached && !pv->detaching) {
        pv->ops->set_tick(pv->host, ms);
    }
    return ABI_OK;
}

ABI_FUNCTION(get_status)
{
    if (!abi_writable(pv, a[0], 4) || !abi_gift_ok(pv, a[1], a[2])) {
        return ABI_INVALID_MEMORY_ACCESS;
    }
    abi_store_u32(pv, a[0], pv->answer.status);
    return abi_give(pv, pv->answer.message, a[1], a[2]);
}
