/* SPDX-License-Identifier: Apache-2.0
 *
 * gRPC's words and numbers. The names are Envoy's and Abseil's as they stand in access logs, "Canceled" and "CANCELLED"
 * included.
 */
#include "proxy/grpc.h"

bool grpc_is_request(const struct headers *h)
{
    struct str grpc = STR("application/grpc"), type = h != NULL ? headers_value(h, HDR_CONTENT_TYPE) : STR_NONE;

    return str_starts(type, grpc) && (type.n == grpc.n || type.p[grpc.n] == '+' || type.p[grpc.n] == ';');
}

unsigned grpc_of_status(unsigned http_status)
{
    switch (http_status) {
    case 400: return 13;
    case 401: return 16;
    case 403: return 7;
    case 404: return 12;
    case 429:
    case 502:
    case 503:
    case 504: return 14;
    default: return 2;
    }
}

const char *grpc_status_name(uint64_t status, bool snake)
{
    static const char *const names[][2] = {
        {"OK", "OK"},
        {"Canceled", "CANCELLED"},
        {"Unknown", "UNKNOWN"},
        {"InvalidArgument", "INVALID_ARGUMENT"},
        {"DeadlineExceeded", "DEADLINE_EXCEEDED"},
        {"NotFound", "NOT_FOUND"},
        {"AlreadyExists", "ALREADY_EXISTS"},
        {"PermissionDenied", "PERMISSION_DENIED"},
        {"ResourceExhausted", "RESOURCE_EXHAUSTED"},
        {"FailedPrecondition", "FAILED_PRECONDITION"},
        {"Aborted", "ABORTED"},
        {"OutOfRange", "OUT_OF_RANGE"},
        {"Unimplemented", "UNIMPLEMENTED"},
        {"Internal", "INTERNAL"},
        {"Unavailable", "UNAVAILABLE"},
        {"DataLoss", "DATA_LOSS"},
        {"Unauthenticated", "UNAUTHENTICATED"},
    };

    return status < ARRAY_LEN(names) ? names[status][snake] : NULL;
}
