// SPDX-License-Identifier: Apache-2.0

// Panics in each request, two functions deep, for a test of what the log says then. No SDK: the ABI's few exports.
package main

import "unsafe"

func main() {}

var kept [][]byte

//go:wasmexport proxy_abi_version_0_2_1
func abiVersion() {}

//go:wasmexport proxy_on_memory_allocate
func memoryAllocate(size uint32) unsafe.Pointer {
	kept = append(kept, make([]byte, size+1))
	return unsafe.Pointer(&kept[len(kept)-1][0])
}

//go:wasmexport proxy_on_context_create
func contextCreate(context, parent uint32) {}

type quota struct{ left []uint32 }

//go:noinline
func (q *quota) takeOne(from uint32) uint32 { return q.left[from] }

//go:noinline
func chargeTheClient(context uint32) uint32 {
	q := quota{left: []uint32{1}}
	return q.takeOne(context + 1)
}

//go:wasmexport proxy_on_request_headers
func requestHeaders(context, headers, end uint32) uint32 { return chargeTheClient(context) & 0 }
