/* SPDX-License-Identifier: Apache-2.0
 *
 * Compiled modules: loading them and linking their imports with the embedder's table of host functions. What makes it
 * hard is that the types come from the guest and calls go through the unchecked entry points: whatever is linked here
 * with a wrong type corrupts memory later, so each import is compared before it is defined, and nothing is looked up by
 * name after that. It must never call a Wasmtime function that aborts on a type it does not know (wasm_valtype_kind).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "wasm/engine_priv.h"
#include "wasm/trap_text.h"

/* ---- types as text ---- */

static char type_char(const wasm_valtype_t *type)
{
    static const char numbers[] = {[WASMTIME_VALTYPE_KIND_I32] = 'i',
                                   [WASMTIME_VALTYPE_KIND_I64] = 'I',
                                   [WASMTIME_VALTYPE_KIND_F32] = 'f',
                                   [WASMTIME_VALTYPE_KIND_F64] = 'F',
                                   [WASMTIME_VALTYPE_KIND_V128] = 'v'};
    wasmtime_valtype_t full;
    wasmtime_valtype_new(type, &full);
    char c = full.kind < ARRAY_LEN(numbers) ? numbers[full.kind] : 'r';
    wasmtime_valtype_delete(&full);
    return c;
}

char *module_type_chars(const wasm_valtype_vec_t *types)
{
    char *chars = mem_alloc(types->size + 1);
    for (size_t i = 0; i < types->size; i++)
        chars[i] = type_char(types->data[i]);
    chars[types->size] = '\0';
    return chars;
}

static void add_types(struct strbuf *out, const char *chars)
{
    strbuf_addc(out, '(');
    for (const char *c = chars; *c != '\0'; c++) {
        const char *name = *c == 'i'   ? "i32"
                           : *c == 'I' ? "i64"
                           : *c == 'f' ? "f32"
                           : *c == 'F' ? "f64"
                           : *c == 'v' ? "v128"
                                       : "ref";
        strbuf_printf(out, "%s%s", c != chars ? " " : "", name);
    }
    strbuf_addc(out, ')');
}

static void add_signature(struct strbuf *out, const char *params, const char *results)
{
    add_types(out, params);
    strbuf_addz(out, " -> ");
    add_types(out, results);
}

/* ---- linking ---- */

struct host_table {
    const struct vm_host_func *funcs;
    size_t count;
    vm_unknown_import_fn unknown;
};

/* One import as the module declares it. */
struct import {
    struct str module, name;
    const wasm_functype_t *type;
    char *params, *results;
};

static void add_import_name(struct strbuf *out, const struct import *import)
{
    strbuf_addz(out, "import ");
    trap_text_escaped(out, import->module, TRAP_TEXT_NAME);
    strbuf_addc(out, '.');
    trap_text_escaped(out, import->name, TRAP_TEXT_NAME);
}

static char *refuse(const struct import *import, const char *why)
{
    struct strbuf text = {0};
    add_import_name(&text, import);
    strbuf_printf(&text, " %s", why);
    return strbuf_take(&text);
}

static char *refuse_type(const struct import *import, const struct vm_host_func *func)
{
    struct strbuf text = {0};
    add_import_name(&text, import);
    strbuf_addz(&text, " has type ");
    add_signature(&text, import->params, import->results);
    strbuf_addz(&text, ", expected ");
    add_signature(&text, func->params, func->results);
    return strbuf_take(&text);
}

static const struct vm_host_func *find_host_func(const struct host_table *table, const struct import *import)
{
    for (size_t i = 0; i < table->count; i++)
        if (str_is(import->name, table->funcs[i].name) && str_is(import->module, table->funcs[i].module))
            return &table->funcs[i];
    return NULL;
}

/* Numbers can be made from bits of ours, references cannot. */
static char *link_answer(const struct import *import, struct module_link *link, const struct host_table *table)
{
    if (table->unknown == NULL || !table->unknown(import->module, import->name, &link->answer))
        return refuse(import, "is not provided by this host");
    if (strchr(import->results, 'r') != NULL)
        return refuse(import, "is not provided by this host and returns a reference");
    link->result_count = (uint32_t)strlen(import->results);
    return NULL;
}

static char *define(wasmtime_linker_t *linker, const struct import *import, struct module_link *link)
{
    wasmtime_error_t *failed = wasmtime_linker_define_func_unchecked(
        linker, import->module.p, import->module.n, import->name.p, import->name.n, import->type,
        link->func != NULL ? vm_host_trampoline : vm_answer_trampoline, link, NULL);
    return failed != NULL ? engine_error_line(failed) : NULL;
}

static char *link_function(wasmtime_linker_t *linker, const struct import *import, struct module_link *link,
                           const struct host_table *table)
{
    link->func = find_host_func(table, import);
    if (link->func == NULL) {
        char *error = link_answer(import, link, table);
        if (error != NULL)
            return error;
    } else if (strcmp(import->params, link->func->params) != 0 ||
               (import->results[0] != '\0' && strcmp(import->results, link->func->results) != 0)) {
        return refuse_type(import, link->func);
    }
    return define(linker, import, link);
}

static const char *kind_name(wasm_externkind_t kind)
{
    switch (kind) {
    case WASM_EXTERN_GLOBAL: return "is a global; only functions can be imported";
    case WASM_EXTERN_TABLE: return "is a table; only functions can be imported";
    case WASM_EXTERN_MEMORY:
        return "is a memory; only functions can be imported (link the module without --import-memory)";
    default: return "is no function; only functions can be imported";
    }
}

/* Has an earlier import the same name? They must agree on the type then, for one definition serves both. */
static bool is_duplicate(const wasm_importtype_vec_t *imports, size_t at)
{
    const wasm_name_t *module = wasm_importtype_module(imports->data[at]),
                      *name = wasm_importtype_name(imports->data[at]);
    for (size_t i = 0; i < at; i++) {
        const wasm_name_t *m = wasm_importtype_module(imports->data[i]), *n = wasm_importtype_name(imports->data[i]);
        if (str_eq(str_span(n->data, n->size), str_span(name->data, name->size)) &&
            str_eq(str_span(m->data, m->size), str_span(module->data, module->size)))
            return true;
    }
    return false;
}

static char *link_import(wasmtime_linker_t *linker, const wasm_importtype_t *declared, struct module_link *link,
                         const struct host_table *table)
{
    const wasm_name_t *module = wasm_importtype_module(declared), *name = wasm_importtype_name(declared);
    const wasm_externtype_t *type = wasm_importtype_type(declared);
    struct import import = {.module = {module->data, module->size}, .name = {name->data, name->size}};
    wasm_externkind_t kind = wasm_externtype_kind(type);
    if (kind != WASM_EXTERN_FUNC)
        return refuse(&import, kind_name(kind));
    import.type = wasm_externtype_as_functype_const(type);
    import.params = module_type_chars(wasm_functype_params(import.type));
    import.results = module_type_chars(wasm_functype_results(import.type));
    char *error = link_function(linker, &import, link, table);
    mem_free(import.params);
    mem_free(import.results);
    return error;
}

/* Bounds the quadratic search for duplicates; real modules have below a hundred. */
enum { MAX_IMPORTS = 1000 };

static char *link_imports(struct module *m, wasmtime_linker_t *linker, const struct host_table *table)
{
    wasm_importtype_vec_t imports;
    wasmtime_module_imports(m->compiled, &imports);
    char *error = NULL;
    if (imports.size > MAX_IMPORTS)
        error = mem_printf("the module has %zu imports, the limit is %d", imports.size, MAX_IMPORTS);
    else
        m->links = mem_zalloc(imports.size * sizeof(*m->links));
    for (size_t i = 0; error == NULL && i < imports.size; i++)
        if (!is_duplicate(&imports, i))
            error = link_import(linker, imports.data[i], &m->links[i], table);
    wasm_importtype_vec_delete(&imports);
    return error;
}

/* The export named "memory", else the first memory. */
static void find_memory(struct module *m)
{
    wasm_exporttype_vec_t exports;
    wasmtime_module_exports(m->compiled, &exports);
    m->memory_max_bytes = UINT64_MAX;
    for (size_t i = 0; i < exports.size; i++) {
        const wasm_externtype_t *type = wasm_exporttype_type(exports.data[i]);
        const wasm_name_t *name = wasm_exporttype_name(exports.data[i]);
        if (wasm_externtype_kind(type) != WASM_EXTERN_MEMORY)
            continue;
        bool preferred = str_eq(str_span(name->data, name->size), STR("memory"));
        if (m->memory_name != NULL && !preferred)
            continue;
        mem_free(m->memory_name);
        m->memory_name = mem_strndup(name->data, name->size);
        m->memory_name_length = name->size;
        uint64_t max = 0;
        const wasm_memorytype_t *memory = wasm_externtype_as_memorytype_const(type);
        m->memory_max_bytes = wasmtime_memorytype_maximum(memory, &max) ? max * 65536 : UINT64_MAX;
    }
    wasm_exporttype_vec_delete(&exports);
}

static bool link_module(struct module *m, const struct host_table *table, char **error)
{
    wasmtime_linker_t *linker = wasmtime_linker_new(m->engine->tiers[m->tier]);
    *error = link_imports(m, linker, table);
    if (*error == NULL) {
        wasmtime_error_t *failed = wasmtime_linker_instantiate_pre(linker, m->compiled, &m->pre);
        if (failed != NULL)
            *error = engine_error_line(failed);
    }
    wasmtime_linker_delete(linker);
    if (*error == NULL)
        find_memory(m);
    return *error == NULL;
}

/* ---- loading ---- */

/* Compiled code as one of the two: a file to map, or bytes. */
struct source {
    const char *path;
    struct str bytes;
};

static wasmtime_error_t *deserialize(wasm_engine_t *engine, const struct source *source, wasmtime_module_t **out)
{
    if (source->path != NULL)
        return wasmtime_module_deserialize_file(engine, source->path, out);
    return wasmtime_module_deserialize(engine, (const uint8_t *)source->bytes.p, source->bytes.n, out);
}

/* The tier is not written anywhere: the settings stored in compiled code make the other engine refuse it at once. */
static char *load(struct engine *engine, const struct source *source, struct module *m)
{
    char *first = NULL;
    for (int tier = 0; tier < TIER_COUNT; tier++) {
        if (engine->tiers[tier] == NULL)
            continue;
        wasmtime_error_t *failed = deserialize(engine->tiers[tier], source, &m->compiled);
        if (failed == NULL) {
            m->tier = (enum compile_tier)tier;
            mem_free(first);
            return NULL;
        }
        char *text = engine_error_line(failed);
        if (first == NULL)
            first = source->path != NULL ? mem_printf("%s: %s", source->path, text) : mem_strdup(text);
        mem_free(text);
    }
    return first;
}

static bool load_and_link(struct engine *engine, const struct source *source, const struct host_table *table,
                          struct module **out, char **error)
{
    struct module *m = mem_zalloc(sizeof(*m));
    m->engine = engine;
    atomic_init(&m->refs, 1);
    *error = load(engine, source, m);
    if (*error == NULL && link_module(m, table, error)) {
        *out = m;
        return true;
    }
    module_unref(m);
    return false;
}

bool module_load(struct engine *engine, struct str compiled, const struct vm_host_func *table, size_t count,
                 vm_unknown_import_fn unknown, struct module **out, char **error)
{
    const struct host_table host = {table, count, unknown};
    return load_and_link(engine, &(struct source){.bytes = compiled}, &host, out, error);
}

static bool is_noexec(const char *path)
{
    struct statvfs fs;
    return statvfs(path, &fs) == 0 && (fs.f_flag & ST_NOEXEC) != 0;
}

static bool read_file(const char *path, struct strbuf *out)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    char piece[64 * 1024];
    ssize_t n;
    while ((n = read(fd, piece, sizeof(piece))) > 0 || (n < 0 && errno == EINTR))
        if (n > 0)
            strbuf_add(out, str_span(piece, (size_t)n));
    close(fd);
    return n == 0;
}

bool module_load_file(struct engine *engine, const char *path, const struct vm_host_func *table, size_t count,
                      vm_unknown_import_fn unknown, struct module **out, char **error)
{
    const struct host_table host = {table, count, unknown};
    if (!is_noexec(path))
        return load_and_link(engine, &(struct source){.path = path}, &host, out, error);
    /* Code cannot be mapped from there; a copy in memory can be made executable. */
    struct strbuf bytes = {0};
    bool ok = read_file(path, &bytes);
    if (ok)
        ok = load_and_link(engine, &(struct source){.bytes = strbuf_str(&bytes)}, &host, out, error);
    else
        *error = mem_printf("%s: %s", path, strerror(errno));
    strbuf_free(&bytes);
    return ok;
}

struct module *module_ref(struct module *m)
{
    atomic_fetch_add_explicit(&m->refs, 1, memory_order_relaxed);
    return m;
}

void module_unref(struct module *m)
{
    if (m == NULL || atomic_fetch_sub_explicit(&m->refs, 1, memory_order_acq_rel) != 1)
        return;
    if (m->pre != NULL)
        wasmtime_instance_pre_delete(m->pre);
    if (m->compiled != NULL)
        wasmtime_module_delete(m->compiled);
    mem_free(m->links);
    mem_free(m->memory_name);
    mem_free(m);
}
