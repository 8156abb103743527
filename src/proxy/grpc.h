/* SPDX-License-Identifier: Apache-2.0
 *
 * What the proxy knows of gRPC: which requests are of it, and the numbers and names of its status.
 */
#ifndef WEIR_PROXY_GRPC_H
#define WEIR_PROXY_GRPC_H

#include "base/headers.h"

/* By content-type: application/grpc, also with "+proto" and the like. h may be NULL. */
bool grpc_is_request(const struct headers *h);
/* Of an answer that has no grpc-status: gRPC's mapping ("HTTP to gRPC Status Code Mapping"). */
unsigned grpc_of_status(unsigned http_status);
/* "NotFound", or with snake "NOT_FOUND"; NULL: not one of gRPC's. */
const char *grpc_status_name(uint64_t status, bool snake);

#endif
