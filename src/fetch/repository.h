/* SPDX-License-Identifier: Apache-2.0
 *
 * One repository at one registry, and requests to it (OCI distribution specification 1.1): the way in (http or https),
 * the 401 that asks for Basic or for a Bearer token, the token, the second try. Anonymous until asked; credentials are
 * looked up once, on the first challenge.
 *
 * Rules for realms (where tokens are to be had, as the registry says): http and https only; behind the address guard,
 * as everything a registry can choose; a loopback realm, by name or by address, only for a registry that is itself on loopback
 * or was named by the operator; passwords and refresh tokens go over plain http only when the registry itself is asked over plain http.
 */
#ifndef WEIR_FETCH_REPOSITORY_H
#define WEIR_FETCH_REPOSITORY_H

#include "fetch/failure.h"
#include "fetch/registry.h"
#include "fetch/transfer.h"

struct repository;
struct repository_options {
    struct loop *loop;
    struct transfers *transfers;
    const struct registry_place *place; /* outlives the repository */
    struct str pull_secret;             /* copied; STR_NONE: config_file counts */
    const char *config_file;            /* copied; NULL: none */
    const char *registry;               /* of the reference: "docker.io", "my-registry/..."; what credentials are named after */
    bool push;                          /* the scope to ask for when the registry does not say */
};
struct repository *repository_new(const struct repository_options *o);
/* Cancels what runs. */
void repository_free(struct repository *r);
/* "http://127.0.0.1:5000/name", for people. */
void repository_write(const struct repository *r, struct strbuf *out);

struct repository_answer {
    unsigned status;
    struct strbuf body;      /* may be taken */
    struct transfer *x;      /* for headers; NULL when there was no answer */
    struct failure *failure; /* reason NULL: one of the 2xx. Otherwise why not, with what the registry said */
};
struct repository_request {
    const char *method;     /* NULL: GET */
    const char *path;       /* behind /v2/NAME/: "manifests/latest" */
    const char *url;        /* instead: whole, or beginning with '/'; of an upload, on the registry's host or another */
    const char *accept;     /* NULL: none */
    const char *content_type, *content_range;
    struct str body;        /* with has_body; borrowed until done: a second try sends it again */
    bool has_body;
    size_t max_bytes;
    uint32_t total_ms;
    void (*progress)(void *arg, uint64_t done, uint64_t total);
    void (*done)(void *arg, struct repository_answer *a); /* once, later; the question is gone after it */
    void *arg;
};
struct question;
/* Texts are copied. */
struct question *repository_ask(struct repository *r, const struct repository_request *request);
/* done will not run. */
void question_cancel(struct question *q);

#endif
