/* SPDX-License-Identifier: Apache-2.0
 *
 * The property tree that guests read: Envoy's attribute names, in the binary forms of Envoy 1.37 (integers 8 bytes
 * little endian, bool 1 byte, times int64 ns, maps as pairs, messages as protobuf), in the spelling of now ("xds.node")
 * and that before Envoy 1.33 (bare "node").
 */
#ifndef WEIR_PROXY_PROPERTIES_H
#define WEIR_PROXY_PROPERTIES_H

#include "proxy/stream.h"
#include "wasm/host_ops.h"

/* path: segments joined by NUL. s may be NULL: then only what belongs to the gateway is known. ended: the stream is
 * over, so that no route is looked up any more. Appends to out. SERIALIZATION_FAILURE: an empty path, or a whole tree
 * that has no form of its own. */
enum abi_status property_get(struct worker *w, struct stream *s, bool ended, struct str path, struct strbuf *out);
/* What is known without a worker or stream: for a VM that is being built. Any thread. */
enum abi_status property_get_root(const struct identity *me, struct str path, struct strbuf *out);
/* Kept for the life of the stream under the whole path, readable by every filter of the chain, but shadowed by what is
 * known. NOT_FOUND without a stream; INTERNAL_FAILURE when the stream's arena is full. */
enum abi_status property_set(struct stream *s, struct str path, struct str value);

#endif
