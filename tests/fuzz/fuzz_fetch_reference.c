/* SPDX-License-Identifier: Apache-2.0
 *
 * References: what is written from one reads as the same one, and where it leads is a url without surprises. The first
 * line may be a table of registries' text, the rest the reference.
 */
#include <stdint.h>

#include "fetch/registry.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_places(const struct registry_table *t, const struct reference *r)
{
    struct registry_places places;
    registry_resolve(t, r, &places);
    ASSERT(places.count > 0 && places.count <= REGISTRY_PLACES_MAX);
    for (size_t i = 0; i < places.count; i++) {
        const struct registry_place *p = &places.list[i];
        ASSERT(strncmp(p->base, "http://", 7) == 0 || strncmp(p->base, "https://", 8) == 0);
        ASSERT(p->repository[0] != '\0');
        for (const char *c = p->base; *c != '\0'; c++)
            ASSERT((unsigned char)*c > 0x20 && *c != 0x7f && *c != '@');
    }
    registry_places_free(&places);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str rest = str_span(data, size), line = size > 0 ? str_split(&rest, '\n') : STR_NONE;
    struct registry_table *t = registry_table_new();
    struct reference r, again;
    char *error = NULL;
    if (rest.p != NULL && !registry_table_read(t, line, "table", &error)) {
        mem_free(error);
        error = NULL;
    }
    struct str text = rest.p != NULL ? rest : line;
    if (reference_parse(text, &r, &error)) {
        struct strbuf b = {0};
        reference_write(&r, &b);
        ASSERT(reference_parse(strbuf_str(&b), &again, &error));
        ASSERT(strcmp(r.registry, again.registry) == 0 && strcmp(r.repository, again.repository) == 0);
        reference_free(&again);
        strbuf_free(&b);
        check_places(t, &r);
    } else {
        ASSERT(error != NULL);
        mem_free(error);
    }
    reference_free(&r);
    registry_table_free(t);
    return 0;
}
