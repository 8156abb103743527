/* SPDX-License-Identifier: Apache-2.0
 *
 * Any bytes as a module: whatever the reader accepts must be consistent, and it reads nothing outside.
 */
#include "wasm/vm.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_inside(struct str s, const uint8_t *data, size_t size)
{
    const uint8_t *p = (const uint8_t *)s.p;
    ASSERT(s.n == 0 || (p >= data && p + s.n <= data + size));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct module_info info;
    char *error = NULL;
    if (!module_info_parse(str_span(data, size), &info, &error)) {
        ASSERT(error != NULL && info.import_count == 0 && info.types == NULL);
        mem_free(error);
        return 0;
    }
    size_t sections = 0;
    for (size_t i = 0; i < info.import_count; i++) {
        check_inside(info.imports[i].name, data, size);
        ASSERT((info.imports[i].kind == 'f') == (info.imports[i].type != NULL));
    }
    for (size_t i = 0; i < info.export_count; i++) {
        check_inside(info.exports[i].name, data, size);
        ASSERT((info.exports[i].kind == 'f') == (info.exports[i].type != NULL));
    }
    for (size_t i = 0; i < info.section_count; i++)
        sections += info.sections[i].bytes;
    ASSERT(sections <= size);
    module_info_free(&info);
    return 0;
}
