/* SPDX-License-Identifier: Apache-2.0
 *
 * Whether an object changed is asked at every reload, for every object, and decides whether VMs restart: the digest
 * must not depend on the order of keys, on quoting or comments, nor on what an API server counts up by itself.
 */
#include <openssl/evp.h>

#include "conf/digest.h"
#include "conf/plugin_config.h"
#include "conf/ydoc.h"

void digest_sha256(struct str data, uint8_t out[DIGEST_BYTES])
{
    unsigned n = 0;
    int ok = EVP_Digest(data.n != 0 ? data.p : "", data.n, out, &n, EVP_sha256(), NULL);
    ASSERT(ok == 1 && n == DIGEST_BYTES);
}

void digest_write_hidden(struct strbuf *out, struct str secret)
{
    uint8_t digest[DIGEST_BYTES];
    digest_sha256(secret, digest);
    strbuf_addz(out, "sha256:");
    for (size_t i = 0; i < DIGEST_BYTES; i++)
        strbuf_printf(out, "%02x", digest[i]);
}

static struct node *map_without(struct conf_memory *scratch, const struct node *map, const char *const *names)
{
    struct node *copy = node_new(scratch, NODE_MAP, map->line, map->col);
    copy->u.map.members = memory_alloc(scratch, map->u.map.count * sizeof(struct member));
    for (size_t i = 0; i < map->u.map.count; i++) {
        const struct member *m = &map->u.map.members[i];
        bool left_out = false;
        for (size_t k = 0; names[k] != NULL; k++)
            left_out = left_out || str_is(m->key, names[k]);
        if (!left_out)
            copy->u.map.members[copy->u.map.count++] = *m;
    }
    return copy;
}

void digest_object(struct conf_memory *scratch, const struct node *root, const char *ns, uint8_t out[DIGEST_BYTES])
{
    static const char *const not_meaning[] = {"status", NULL};
    static const char *const not_meta[] = {"resourceVersion", "generation", "managedFields", "uid", NULL};
    ASSERT(root->type == NODE_MAP);
    struct node *object = map_without(scratch, root, not_meaning);
    for (size_t i = 0; i < object->u.map.count; i++) {
        struct member *m = &object->u.map.members[i];
        if (str_is(m->key, "metadata") && m->value->type == NODE_MAP)
            m->value = map_without(scratch, m->value, not_meta);
    }
    struct strbuf text = {0};
    node_write_json(object, false, &text);
    strbuf_addc(&text, '\n');
    strbuf_addz(&text, ns);
    digest_sha256(strbuf_str(&text), out);
    strbuf_free(&text);
}
