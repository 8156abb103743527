/* SPDX-License-Identifier: Apache-2.0
 *
 * Where images are asked for: the table of --registry and --registries, and the rules for what it does not name.
 *
 * An entry maps a prefix of a reference to a url, whole path components only; the longest prefix wins, and several
 * entries of one prefix are mirrors, tried in order. What follows the prefix is appended to the url's path, so with
 * my-registry=http://127.0.0.1:5000 the image oci://my-registry/my-wasm-filter:latest is asked for at
 * http://127.0.0.1:5000/v2/my-wasm-filter/manifests/latest. A prefix is compared with the name as it was written (which
 * is how a first component without a dot works), then with the full name (docker.io/library/x). When a prefix is in the
 * table nothing else is asked: an origin that shall be tried after its mirrors is named as the last of them.
 *
 * Everything else: https. Loopback registries (localhost, 127/8, [::1]): http, then https without verification. Those of
 * the insecure list: https without verification, then http, as Docker does.
 *
 * A file of them (--registries) has one entry a line, '#' begins a comment:
 *     PREFIX URL [ca=FILE] [cert=FILE] [key=FILE] [config=FILE] [user=NAME] [password-file=FILE] [insecure]
 *     insecure HOST[:PORT]
 */
#ifndef WEIR_FETCH_REGISTRY_H
#define WEIR_FETCH_REGISTRY_H

#include "fetch/reference.h"

struct registry_table;

struct registry_table *registry_table_new(void);
void registry_table_free(struct registry_table *t);
/* "PREFIX=URL". False and *error (mem_free) when it reads otherwise. */
NODISCARD bool registry_table_add(struct registry_table *t, const char *text, char **error);
/* "HOST[:PORT]". */
NODISCARD bool registry_table_add_insecure(struct registry_table *t, const char *host, char **error);
/* The lines of a file; none of them count when one is bad. Reads the file here and now. */
NODISCARD bool registry_table_load(struct registry_table *t, const char *path, char **error);
/* The same of a text; path is for messages. */
NODISCARD bool registry_table_read(struct registry_table *t, struct str text, const char *path, char **error);

/* What an entry says besides its url; strings are NULL when not said. */
struct registry_entry {
    char *prefix, *base /* "https://host:port" */, *path /* "" or "a/b" */;
    char *ca_file, *cert_file, *key_file;
    char *config_file; /* docker config.json with the credentials for this entry */
    char *user, *password_file;
    bool insecure;
};

enum { REGISTRY_PLACES_MAX = 16 };
/* One place to ask. */
struct registry_place {
    const struct registry_entry *entry; /* NULL: not of the table; borrowed from it */
    char *base;                         /* "http://127.0.0.1:5000" */
    char *fallback;                     /* asked instead when base does not speak that; NULL */
    char *host;                         /* of base, with port if it has one: what credentials are looked up by */
    char *repository;
    bool insecure;   /* certificates are not verified */
    bool own_names;  /* credentials for the reference's own registry name are meant for it too */
};
struct registry_places {
    struct registry_place list[REGISTRY_PLACES_MAX];
    size_t count;
    bool guessed_hub; /* a first component without a dot, in no table, went to Docker Hub */
};
/* t may be NULL: an empty table. At least one place. */
void registry_resolve(const struct registry_table *t, const struct reference *r, struct registry_places *out);
/* What credentials for this place may be stored under besides its host: "my-registry/x", "docker.io/library/x". mem_free. */
char *registry_credentials_name(const struct reference *r, const struct registry_place *place);
void registry_places_free(struct registry_places *p);

/* localhost, 127/8 or [::1], with or without port. */
bool registry_host_is_loopback(struct str host);

#endif
