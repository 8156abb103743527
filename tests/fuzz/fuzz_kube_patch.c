/* SPDX-License-Identifier: Apache-2.0
 *
 * "object <RS> patch <RS> managers" (RS: byte 30), each JSON or YAML: every kind of patch and server-side apply, which
 * must end, must not change the object they are given (others share its values), and must give something that can be
 * written.
 */
#include "kube/api_priv.h"

static json_t *part(struct str *rest)
{
    char *error = NULL, *duplicate = NULL;
    json_t *j = rest->p != NULL ? json_of_text(str_split(rest, 30), &error, &duplicate) : NULL;
    mem_free(error);
    mem_free(duplicate);
    return j;
}

static void done(json_t *out, char *error)
{
    struct strbuf text = {0};
    if (out != NULL) {
        json_put(&text, out);
        (void)json_put_yaml(&text, out, SIZE_MAX);
    }
    strbuf_free(&text);
    json_decref(out);
    mem_free(error);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str rest = str_span(data, size);
    if (size == 0 || size > 16384)
        return 0;
    json_t *object = part(&rest), *patch = part(&rest), *managers = part(&rest);
    if (json_is_object(object) && patch != NULL) {
        json_t *before = json_deep_copy(object);
        char *error = NULL;
        done(patch_merge(object, patch), NULL);
        json_t *out = patch_strategic(object, patch, &error);
        ASSERT((out == NULL) == (error != NULL));
        done(out, error);
        out = patch_json(object, patch, &error);
        ASSERT((out == NULL) == (error != NULL));
        done(out, error);
        ASSERT(json_same(object, before));
        if (json_is_object(patch)) {
            json_t *owners = json_is_array(managers) ? json_incref(managers) : NULL, *causes = NULL;
            out = apply_merge(object, patch, &owners, "fuzz", (size & 1) != 0, "v1", &causes, &error);
            ASSERT((out == NULL) == (error != NULL));
            json_decref(causes);
            done(out, error);
            done(apply_note_update(owners, "hand", object, patch), NULL);
            json_decref(owners);
            ASSERT(json_same(object, before));
        }
        json_decref(before);
    }
    json_decref(object);
    json_decref(patch);
    json_decref(managers);
    return 0;
}
