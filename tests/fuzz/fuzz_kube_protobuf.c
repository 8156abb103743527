/* SPDX-License-Identifier: Apache-2.0
 *
 * Bodies in Kubernetes' protobuf envelope: whatever the lengths say, it ends, and what is read can be written as JSON
 * and YAML and read again as the same.
 */
#include "kube/api_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *error = NULL, *duplicate = NULL;
    json_t *o = protobuf_object(str_span(data, size), &error);
    ASSERT((o == NULL) == (error != NULL));
    mem_free(error);
    for (int yaml = 0; o != NULL && yaml < 2; yaml++) {
        struct strbuf text = {0};
        if (yaml)
            (void)json_put_yaml(&text, o, SIZE_MAX);
        else
            json_put(&text, o);
        json_t *again = json_of_text(strbuf_str(&text), &error, &duplicate);
        ASSERT(again != NULL && json_same(again, o));
        json_decref(again);
        strbuf_free(&text);
        mem_free(error);
        mem_free(duplicate);
    }
    json_decref(o);
    return 0;
}
