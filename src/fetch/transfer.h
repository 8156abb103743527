/* SPDX-License-Identifier: Apache-2.0
 *
 * HTTP that Weir itself starts: modules, registries, the Kubernetes API. libcurl's multi interface on a libuv loop:
 * curl says which sockets and which timeout, the loop says what happened. One struct transfers for each loop; its
 * connections are reused by transfers that want the same of TLS.
 *
 * Bounded: every answer in size, every transfer in time unless it asks not to be. http and https only, also on
 * redirects. Nothing of the environment (proxies, netrc) is used. HTTP/1.1.
 *
 * The address guard looks at every address about to be connected to (every hop, whatever DNS says), and once more at
 * the connection a request is about to go over. Refused are link-local addresses and the metadata services of clouds:
 * who may write a url must not read the machine's credentials.
 */
#ifndef WEIR_FETCH_TRANSFER_H
#define WEIR_FETCH_TRANSFER_H

#include "base/str.h"
#include "io/loop.h"

enum { TRANSFER_BODY_DEFAULT = 16 * 1024 * 1024, TRANSFER_HEAD_MAX = 128 * 1024, TRANSFER_URL_MAX = 16 * 1024 };

struct transfers;
struct transfer;

struct transfers_options {
    const char *const *allow; /* "10.0.0.0/8", "fe80::/10", "169.254.1.1": the guard lets them through; bad ones abort */
    size_t allow_count;
};
/* o may be NULL; copied. */
struct transfers *transfers_new(struct loop *loop, const struct transfers_options *o);
/* Cancels what runs. Not from a callback of a transfer. The memory goes when the loop has closed the handles. */
void transfers_free(struct transfers *t);
/* Is this a CIDR or an address as `allow` takes them? */
NODISCARD bool transfers_allow_parse(const char *text);

/* Certificates and keys are PEM; a file and a text of the same thing: the text wins. */
struct transfer_tls {
    const char *ca_file;
    struct str ca_pem;
    bool ca_also; /* the system's authorities count besides; else only the ones named here */
    const char *cert_file, *key_file;
    struct str cert_pem, key_pem;
    const char *server_name; /* asked for and verified instead of the url's host */
    bool insecure;           /* certificates are not verified */
};
struct transfer_result {
    unsigned status;         /* 0 when there was no answer */
    struct strbuf body;      /* collected; done may take it */
    const char *error;       /* why no whole answer came, borrowed; NULL: one came, whatever its status */
    bool retry;              /* worth trying again: most transport errors, and 408, 429, 5xx */
    bool refused;            /* by the address guard */
    bool too_large;          /* more than max_bytes */
    bool tls;                /* the error is one of TLS: handshake, certificate */
    bool truncated;          /* the answer ended before its end */
    bool unconnected;        /* nothing was reached at all */
    bool late;               /* it was reached, and did not answer (to the end) in time */
    uint32_t retry_after_ms; /* from Retry-After, at most a day; 0 */
};
/* Everything is copied before transfer_start returns, but body_file's content. */
struct transfer_request {
    const char *method;         /* NULL: GET */
    const char *url;            /* http or https; a user and password in it are sent as Basic */
    const char *const *headers; /* "name: value" */
    size_t header_count;
    struct str body; /* with has_body */
    bool has_body;
    const char *body_file;               /* instead of body; its size is declared. Read on the loop: for tools */
    uint64_t body_file_at, body_file_n;  /* the piece of it; n 0: up to its end */
    struct transfer_tls tls;
    const char *unix_socket, *proxy; /* NULL: none. What a proxy connects to the guard cannot see */
    unsigned max_redirects;          /* 0: a redirect is an answer. Authorization is never sent to another host or port */
    uint32_t connect_ms;             /* 0: 10 s */
    uint32_t total_ms, idle_ms;      /* 0: no end; idle is rounded up to seconds */
    bool guard;   /* no link-local address, no metadata service; and no way back to this machine from another one */
    bool outside; /* as if some hop had been on another machine already: with guard, this machine is refused */
    size_t max_bytes; /* of the body; 0: TRANSFER_BODY_DEFAULT when collected, no end with on_data */
    /* All run on the loop, never before transfer_start returns, and may start and cancel transfers (x too, but in done). */
    void (*on_head)(void *arg, struct transfer *x); /* status and headers are known, of the last hop; NULL */
    /* NULL: collected into result.body. False ends the transfer with an error. */
    bool (*on_data)(void *arg, struct transfer *x, struct str bytes);
    /* Once; x is gone after it. */
    void (*done)(void *arg, struct transfer *x, struct transfer_result *r);
    void (*progress)(void *arg, uint64_t done, uint64_t total /* 0: unknown */); /* of the larger direction; NULL */
    void *arg;
};
struct transfer *transfer_start(struct transfers *t, const struct transfer_request *r);
/* done will not run; x is gone. */
void transfer_cancel(struct transfer *x);
/* 0 before on_head. */
unsigned transfer_status(const struct transfer *x);
/* Of the last hop's answer, trimmed; the first of that name, or the one at index. STR_NONE. Good until x is gone. */
struct str transfer_header(const struct transfer *x, const char *name);
struct str transfer_header_at(const struct transfer *x, const char *name, size_t index);
/* With guard: has it spoken with another machine? */
bool transfer_is_outside(const struct transfer *x);
/* The url of the last hop. */
const char *transfer_url(const struct transfer *x);

#endif
