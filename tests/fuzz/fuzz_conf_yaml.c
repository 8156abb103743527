/* SPDX-License-Identifier: Apache-2.0
 *
 * Any text through resources_parse and back out as JSON. Whatever is accepted must survive being written and asked
 * about; text in error must leave messages and no resource.
 */
#include "conf/resource.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(const struct resource *r)
{
    struct strbuf out = {0};
    resource_write_json(r, true, &out);
    ASSERT(str_is_utf8(strbuf_str(&out)));
    strbuf_clear(&out);
    resource_title(&r->meta, &out);
    strbuf_free(&out);
    if (r->meta.kind == KIND_WASM_PLUGIN)
        ASSERT(wasm_plugin_order(r, r, "a", "b") == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct documents d;
    resources_parse(str_span(data, size), "f.yaml", "default", &d);
    for (size_t i = 0; i < d.count; i++) {
        const struct document *doc = &d.list[i];
        ASSERT((doc->resource == NULL) == (doc->diag.errors != 0));
        for (size_t k = 0; k < doc->diag.count; k++)
            mem_free(diag_format(&doc->diag.entries[k]));
        if (doc->resource != NULL)
            use(doc->resource);
    }
    documents_free(&d);
    return 0;
}
