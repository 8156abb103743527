/* SPDX-License-Identifier: Apache-2.0
 *
 * User and password (or token) for a registry, from Docker's config.json: "auths", "credHelpers", "credsStore", and the
 * text of a kubernetes.io/dockerconfigjson Secret, which is the same format without helpers.
 *
 * Keys of auths are hosts with an optional port and path, with or without a scheme ("https://index.docker.io/v1/" is
 * Docker Hub's); the longest path wins; '*' stands for a part of one label, as kubelet has it. A helper is the program
 * docker-credential-NAME of PATH: name of [A-Za-z0-9._-]+, the host on its standard input, JSON out, at most 30 s and
 * 64 KiB, and only PATH, HOME, USER and what AWS_, AZURE_, CLOUDSDK_, DOCKER_, GOOGLE_ and HTTPS_PROXY say in its
 * environment. credHelpers come before auths, which come before credsStore.
 */
#ifndef WEIR_FETCH_CREDENTIALS_H
#define WEIR_FETCH_CREDENTIALS_H

#include "fetch/failure.h"
#include "io/loop.h"

enum { CREDENTIALS_CONFIG_MAX = 1024 * 1024 };

struct credentials {
    char *user, *password;
    char *identity_token; /* for the token server, instead of a password */
    char *registry_token; /* a Bearer token as it is */
};
bool credentials_is_empty(const struct credentials *c);
void credentials_free(struct credentials *c);

/* What a config says of target ("host:port/repository"; docker.io for Docker Hub). False and *error (mem_free) when it
 * cannot be read. *helper (mem_free): name of the helper to ask for *server (mem_free), NULL: none. Parses the bytes of
 * others; never blocks. */
NODISCARD bool credentials_read_config(struct str json, struct str target, struct credentials *out, char **helper,
                                       char **server, char **error);
/* A helper's answer. */
NODISCARD bool credentials_read_helper(struct str json, struct credentials *out, char **error);

/* Finds them without blocking the loop. Strings are copied. */
struct credentials_query {
    struct str pull_secret;      /* only this counts then; helpers in it are not run */
    const char *config_file;     /* else this file; NULL: none. That it is missing is no error unless must_exist */
    bool must_exist;
    const char *user, *password_file; /* before everything else; NULL */
    const char *targets[2];      /* the first that is known counts; NULL ends them */
};
struct credentials_search;
/* done: once, later; c may be taken (it is empty when none are known); failure->reason is NULL when it worked. */
struct credentials_search *credentials_search_start(struct loop *loop, const struct credentials_query *q,
                                                    void (*done)(void *arg, struct credentials *c,
                                                                 struct failure *failure),
                                                    void *arg);
/* done will not run. */
void credentials_search_cancel(struct credentials_search *s);
/* The config of this user: dir/config.json, of dir, $DOCKER_CONFIG or ~/.docker; mem_free; NULL when there is no home. */
char *credentials_config_path(const char *dir);

#endif
