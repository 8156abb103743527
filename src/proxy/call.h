/* SPDX-License-Identifier: Apache-2.0
 *
 * HTTP callouts of filters: one exchange with a declared cluster over the worker's pool, its whole answer buffered. A
 * call belongs to the plugin's VM, not to a stream, and outlives the stream.
 */
#ifndef WEIR_PROXY_CALL_H
#define WEIR_PROXY_CALL_H

#include "proxy/runtime.h"
#include "wasm/host_ops.h"

struct call;
/* headers NULL: it failed and error (a constant) says how. The callee borrows everything; body may be taken from. The
 * call is over and its pointer invalid after. */
typedef void call_done_fn(void *arg, struct call *call, struct headers *headers, struct buf *body,
                          struct headers *trailers, const char *error);
/* Begins a callout. Copies what it needs of spec. done runs exactly once, from the loop, never before this returned and
 * never inside a guest call. BAD_ARGUMENT: unknown cluster, missing or repeated :method, :path or :authority, what may
 * not stand in a header; INTERNAL_FAILURE: a request over the limits. Time: spec->timeout_ms, at most (and when 0)
 * limits.call_timeout; when it is over the answer is a 504 of our own, as with Envoy. Names are resolved in the
 * worker's cluster table alone: no address is taken from a guest, and control declares no cluster for the gateway's own
 * admin address. */
enum abi_status call_start(struct worker *w, const struct http_call *spec, call_done_fn *done, void *arg,
                           struct call **out);
/* No done any more. */
void call_cancel(struct call *call);

#endif
