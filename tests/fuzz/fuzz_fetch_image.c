/* SPDX-License-Identifier: Apache-2.0
 *
 * What registries and pushers make up: manifests and indexes, challenges, layers; and what users write: references,
 * Docker configurations. What is taken is bounded, and every digest is one.
 */
#include <stdint.h>

#include "fetch/challenge.h"
#include "fetch/credentials.h"
#include "fetch/encode.h"
#include "fetch/layer.h"
#include "fetch/manifest.h"
#include "fetch/reference.h"
#include "fetch/unwrap.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MODULE_MAX = 1024 * 1024 };

static void try_manifest(struct str bytes)
{
    const struct descriptor *order[MANIFEST_CHILDREN_MAX];
    char *error = NULL;
    struct manifest *m = manifest_parse(bytes, STR("application/json"), &error);
    ASSERT((m != NULL) == (error == NULL));
    size_t n = m == NULL ? 0 : m->is_index ? manifest_children(m, NULL, order) : manifest_layers(m, order);
    ASSERT(m == NULL || n <= m->count);
    for (size_t i = 0; i < n; i++)
        ASSERT(digest_is_good(str_of(order[i]->digest)) && order[i]->media_type != NULL);
    manifest_free(m);
    mem_free(error);
}

static void try_challenge(struct str header)
{
    struct challenge c = {0};
    challenge_read(&c, header);
    challenge_read(&c, header);
    ASSERT(c.bearer || (c.realm == NULL && c.service == NULL && c.scope == NULL));
    for (const char *p = c.realm; p != NULL && *p != '\0'; p++)
        ASSERT(*p != '\r' && *p != '\n');
    challenge_free(&c);
}

static void try_layer(struct str bytes)
{
    char *module = NULL, *error = NULL;
    size_t n = 0;
    enum layer_found found = layer_find_module(bytes, MODULE_MAX, &module, &n, &error);
    bool good = found == LAYER_ONLY || found == LAYER_PLUGIN;
    ASSERT(good == (module != NULL) && good == (error == NULL));
    ASSERT(!good || (n >= 8 && n <= MODULE_MAX && memcmp(module, "\0asm", 4) == 0));
    mem_free(module);
    mem_free(error);
}

static void try_unwrap(struct str bytes)
{
    size_t n = bytes.n;
    char *p = mem_strndup(bytes.p, n), *error = module_unwrap(&p, &n, MODULE_MAX);
    ASSERT(error != NULL || n <= MODULE_MAX || n == bytes.n);
    mem_free(p);
    mem_free(error);
}

static void try_reference(struct str text)
{
    struct reference r;
    struct strbuf whole = {0};
    char *error = NULL;
    if (!reference_parse(text, &r, &error)) {
        mem_free(error);
        return;
    }
    /* Written out, it is the same. */
    struct reference again;
    reference_write(&r, &whole);
    ASSERT(reference_parse(strbuf_str(&whole), &again, &error));
    ASSERT(strcmp(r.registry, again.registry) == 0 && strcmp(r.repository, again.repository) == 0);
    ASSERT(r.digest == NULL || strcmp(r.digest, again.digest) == 0);
    reference_free(&again);
    reference_free(&r);
    strbuf_free(&whole);
}

static void try_credentials(struct str json)
{
    struct credentials c;
    char *helper = NULL, *server = NULL, *error = NULL;
    bool ok = credentials_read_config(json, STR("registry.test:5000/a/b"), &c, &helper, &server, &error);
    ASSERT(ok == (error == NULL) && (helper == NULL) == (server == NULL));
    ASSERT(helper == NULL || strpbrk(helper, "/ ;$\n") == NULL);
    credentials_free(&c);
    mem_free(helper);
    mem_free(server);
    mem_free(error);
    error = NULL;
    if (!credentials_read_helper(json, &c, &error))
        mem_free(error);
    credentials_free(&c);
}

/* The first byte says what the rest is. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const tries[])(struct str) = {try_manifest, try_challenge, try_layer,
                                                try_unwrap,   try_reference, try_credentials};
    if (size > 0)
        tries[data[0] % ARRAY_LEN(tries)](str_span(data + 1, size - 1));
    return 0;
}
