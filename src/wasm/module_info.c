/* SPDX-License-Identifier: Apache-2.0
 *
 * Reads what a module says about itself: imports, exports, memory, sections, name. WebAssembly core specification 3.0,
 * section 5 (binary format), as far as 32-bit modules without garbage collection go; the function bodies are the
 * compiler's business. What makes it hard is that the bytes come from anywhere: no length or count is believed before
 * the bytes behind it are there, and what is kept in memory is bounded by the size of the module and by the limits
 * below. It must never read past the end.
 */
#include "wasm/trap_text.h"
#include "wasm/vm.h"

/* The limits that the JavaScript embedding of WebAssembly agreed on, smaller where no filter comes near them. */
enum {
    MAX_TYPES = 1000000,
    MAX_FUNCTIONS = 1000000,
    MAX_TYPE_VALUES = 1000,
    MAX_ITEMS = 100000, /* imports, exports */
    MAX_SECTIONS = 10000,
    MAX_MEMORIES = 100,
    MAX_TABLES = 100000,
    MAX_NAME_SHOWN = 200,
};

enum section_id {
    SECTION_CUSTOM,
    SECTION_TYPE,
    SECTION_IMPORT,
    SECTION_FUNCTION,
    SECTION_TABLE,
    SECTION_MEMORY,
    SECTION_GLOBAL,
    SECTION_EXPORT,
    SECTION_START,
    SECTION_ELEMENT,
    SECTION_CODE,
    SECTION_DATA,
    SECTION_DATA_COUNT,
    SECTION_TAG,
    SECTION_COUNT
};
static const char *const section_names[SECTION_COUNT] = {"custom", "type",   "import",     "function", "table",
                                                         "memory", "global", "export",     "start",    "element",
                                                         "code",   "data",   "data count", "tag"};

/* A reader over the module or one section; failed is sticky, and everything read after it is zero. */
struct reader {
    const uint8_t *start, *at, *end;
    const char *failed; /* constant text */
};

struct parser {
    struct module_info *info;
    struct reader whole;
    uint32_t *function_types; /* type index of each function, imported ones first */
    uint32_t function_count, function_cap;
    uint32_t memory_count, table_count;
    uint32_t seen; /* bit for each section id */
};

/* ---- primitives ---- */

static void fail_at(struct reader *r, const char *why)
{
    if (r->failed == NULL)
        r->failed = why;
    r->at = r->end;
}

static size_t bytes_left(const struct reader *r) { return (size_t)(r->end - r->at); }

static uint8_t read_byte(struct reader *r)
{
    if (r->at == r->end) {
        fail_at(r, "unexpected end");
        return 0;
    }
    ASSERT(r->at != NULL);
    return *r->at++;
}

/* LEB128, at most bits wide. */
static uint64_t read_unsigned(struct reader *r, unsigned bits)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < bits; shift += 7) {
        uint8_t byte = read_byte(r);
        if (shift + 7 > bits && (byte & 0x7f) >> (bits - shift) != 0)
            break;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if ((byte & 0x80) == 0)
            return r->failed != NULL ? 0 : value;
    }
    fail_at(r, "number too large");
    return 0;
}

static uint32_t read_u32(struct reader *r) { return (uint32_t)read_unsigned(r, 32); }

/* A count of things that take at least item_bytes each. */
static uint32_t read_count(struct reader *r, uint32_t max, size_t item_bytes)
{
    uint32_t count = read_u32(r);
    if (count > max)
        fail_at(r, "more entries than this host accepts");
    else if (count > bytes_left(r) / item_bytes)
        fail_at(r, "count past the end");
    return r->failed != NULL ? 0 : count;
}

static struct str read_bytes(struct reader *r, size_t n)
{
    if (n > bytes_left(r)) {
        fail_at(r, "length past the end");
        return STR_NONE;
    }
    struct str s = str_span(r->at, n);
    r->at += n;
    return s;
}

static struct str read_name(struct reader *r)
{
    struct str name = read_bytes(r, read_u32(r));
    if (!str_is_utf8(name))
        fail_at(r, "name is not UTF-8");
    return r->failed != NULL ? STR_NONE : name;
}

static struct reader sub_reader(struct reader *r, size_t n)
{
    struct str s = read_bytes(r, n);
    const uint8_t *p = s.p != NULL ? (const uint8_t *)s.p : r->end;
    return (struct reader){p, p, p + s.n, r->failed};
}

/* ---- types ---- */

static const char *read_value_type(struct reader *r)
{
    switch (read_byte(r)) {
    case 0x7f: return "i32";
    case 0x7e: return "i64";
    case 0x7d: return "f32";
    case 0x7c: return "f64";
    case 0x7b: return "v128";
    case 0x70: return "funcref";
    case 0x6f: return "externref";
    case 0x64: /* (ref t) */
    case 0x63: /* (ref null t) */ (void)read_unsigned(r, 33); return "ref";
    default: fail_at(r, "unknown value type"); return "";
    }
}

static void read_value_types(struct reader *r, struct strbuf *text)
{
    uint32_t count = read_count(r, MAX_TYPE_VALUES, 1);
    strbuf_addc(text, '(');
    for (uint32_t i = 0; i < count && r->failed == NULL; i++) {
        if (i != 0)
            strbuf_addc(text, ' ');
        strbuf_addz(text, read_value_type(r));
    }
    strbuf_addc(text, ')');
}

static void read_types(struct parser *p, struct reader *r)
{
    uint32_t count = read_count(r, MAX_TYPES, 3);
    p->info->types = mem_zalloc(count * sizeof(*p->info->types));
    for (uint32_t i = 0; i < count && r->failed == NULL; i++) {
        if (read_byte(r) != 0x60) {
            fail_at(r, "type that is no function type");
            return;
        }
        struct strbuf text = {0};
        read_value_types(r, &text);
        strbuf_addz(&text, " -> ");
        read_value_types(r, &text);
        p->info->types[p->info->type_count++] = strbuf_take(&text);
    }
}

struct limits {
    uint64_t min, max;
};

/* Flags: 1 has a maximum, 2 shared, 4 64-bit, 8 own page size. */
static struct limits read_limits(struct reader *r)
{
    struct limits limits = {0, 0};
    uint8_t flags = read_byte(r);
    if (flags > 0x0f)
        fail_at(r, "unknown kind of limits");
    limits.min = read_unsigned(r, (flags & 4) != 0 ? 64 : 32);
    if ((flags & 1) != 0)
        limits.max = read_unsigned(r, (flags & 4) != 0 ? 64 : 32);
    if ((flags & 8) != 0)
        (void)read_u32(r);
    return limits;
}

static void read_memory(struct parser *p, struct reader *r)
{
    struct limits limits = read_limits(r);
    if (p->memory_count++ == 0) {
        p->info->memory_min_pages = limits.min;
        p->info->memory_max_pages = limits.max;
    }
}

static void read_table_type(struct parser *p, struct reader *r)
{
    (void)read_value_type(r);
    struct limits limits = read_limits(r);
    if (p->table_count++ == 0)
        p->info->table_min = limits.min > UINT32_MAX ? UINT32_MAX : (uint32_t)limits.min;
}

static void add_function(struct parser *p, struct reader *r)
{
    uint32_t type = read_u32(r);
    if (type >= p->info->type_count)
        fail_at(r, "type index out of range");
    if (p->function_count >= MAX_FUNCTIONS)
        fail_at(r, "more functions than this host accepts");
    if (r->failed != NULL)
        return;
    if (p->function_count == p->function_cap) {
        p->function_cap = p->function_cap < 64 ? 64 : p->function_cap * 2;
        p->function_types = mem_realloc(p->function_types, p->function_cap * sizeof(*p->function_types));
    }
    p->function_types[p->function_count++] = type;
}

static const char *function_type(const struct parser *p, uint32_t function)
{
    return p->info->types[p->function_types[function]];
}

/* ---- sections ---- */

/* What follows the two names of an import. */
static void read_import_type(struct parser *p, struct reader *r, struct module_import *import)
{
    switch (read_byte(r)) {
    case 0:
        import->kind = 'f';
        add_function(p, r);
        import->type = r->failed == NULL ? function_type(p, p->function_count - 1) : NULL;
        break;
    case 1:
        import->kind = 't';
        read_table_type(p, r);
        break;
    case 2:
        import->kind = 'm';
        read_memory(p, r);
        break;
    case 3:
        import->kind = 'g';
        (void)read_value_type(r);
        (void)read_byte(r);
        break;
    case 4:
        import->kind = 'e';
        (void)read_byte(r);
        (void)read_u32(r);
        break;
    default: fail_at(r, "unknown kind of import");
    }
}

static void read_imports(struct parser *p, struct reader *r)
{
    uint32_t count = read_count(r, MAX_ITEMS, 4);
    p->info->imports = mem_zalloc(count * sizeof(*p->info->imports));
    for (uint32_t i = 0; i < count && r->failed == NULL; i++) {
        struct module_import *import = &p->info->imports[p->info->import_count++];
        import->module = read_name(r);
        import->name = read_name(r);
        read_import_type(p, r, import);
    }
}

static void read_functions(struct parser *p, struct reader *r)
{
    uint32_t count = read_count(r, MAX_FUNCTIONS, 1);
    for (uint32_t i = 0; i < count && r->failed == NULL; i++)
        add_function(p, r);
}

static void read_exports(struct parser *p, struct reader *r)
{
    static const char kinds[] = {'f', 't', 'm', 'g', 'e'};
    uint32_t count = read_count(r, MAX_ITEMS, 3);
    p->info->exports = mem_zalloc(count * sizeof(*p->info->exports));
    for (uint32_t i = 0; i < count && r->failed == NULL; i++) {
        struct module_export *export = &p->info->exports[p->info->export_count++];
        export->name = read_name(r);
        uint8_t kind = read_byte(r);
        uint32_t index = read_u32(r);
        if (kind >= sizeof(kinds) || (kind == 0 && index >= p->function_count)) {
            fail_at(r, "export of something that does not exist");
            return;
        }
        export->kind = kinds[kind];
        export->type = kind == 0 && r->failed == NULL ? function_type(p, index) : NULL;
    }
}

static void read_memories(struct parser *p, struct reader *r)
{
    uint32_t count = read_count(r, MAX_MEMORIES, 2);
    for (uint32_t i = 0; i < count && r->failed == NULL; i++)
        read_memory(p, r);
}

/* Only the first table is told; a table may have an initial expression, which ends what can be read simply. */
static void read_tables(struct parser *p, struct reader *r)
{
    uint32_t count = read_count(r, MAX_TABLES, 3);
    if (count != 0 && r->at != r->end && *r->at == 0x40) {
        r->at++;
        (void)read_byte(r);
    }
    if (count != 0)
        read_table_type(p, r);
    r->at = r->end;
}

/* The custom section "name": subsection 0 is the module's name. What is wrong in here is no error, as the specification
 * says. */
static void read_name_section(struct parser *p, struct reader r)
{
    while (r.at != r.end && p->info->name == NULL) {
        uint8_t id = read_byte(&r);
        struct reader sub = sub_reader(&r, read_u32(&r));
        if (id != 0)
            continue;
        struct str name = read_name(&sub);
        if (sub.failed == NULL)
            p->info->name = mem_strndup(name.p, name.n > MAX_NAME_SHOWN ? MAX_NAME_SHOWN : name.n);
    }
}

static bool read_section_content(struct parser *p, enum section_id id, struct reader *r)
{
    switch (id) {
    case SECTION_TYPE: read_types(p, r); return true;
    case SECTION_IMPORT: read_imports(p, r); return true;
    case SECTION_FUNCTION: read_functions(p, r); return true;
    case SECTION_TABLE: read_tables(p, r); return true;
    case SECTION_MEMORY: read_memories(p, r); return true;
    case SECTION_EXPORT: read_exports(p, r); return true;
    default: return false;
    }
}

static struct module_section *add_section(struct module_info *info, struct reader *r)
{
    if (info->section_count >= MAX_SECTIONS) {
        fail_at(r, "more sections than this host accepts");
        return NULL;
    }
    if ((info->section_count & (info->section_count - 1)) == 0) /* full at each power of two */
        info->sections = mem_realloc(info->sections, (info->section_count != 0 ? info->section_count * 2 : 1) *
                                                         sizeof(*info->sections));
    return &info->sections[info->section_count++];
}

/* Each section once; the order is the compiler's business, except that whatever refers backwards fails by its index. */
static bool check_section(struct parser *p, uint8_t id)
{
    if (id >= SECTION_COUNT) {
        fail_at(&p->whole, "unknown section");
        return false;
    }
    if (id != SECTION_CUSTOM && (p->seen & 1u << id) != 0) {
        fail_at(&p->whole, "section appears twice");
        return false;
    }
    p->seen |= 1u << id;
    return true;
}

static void read_section(struct parser *p, struct reader *failed_in)
{
    uint8_t id = read_byte(&p->whole);
    struct reader r = sub_reader(&p->whole, read_u32(&p->whole));
    struct module_section *section =
        p->whole.failed == NULL && check_section(p, id) ? add_section(p->info, &p->whole) : NULL;
    if (section == NULL)
        return;
    *section = (struct module_section){.name = str_of(section_names[id]), .bytes = bytes_left(&r)};
    if (id == SECTION_CUSTOM) {
        section->name = read_name(&r);
        if (r.failed == NULL && str_eq(section->name, STR("name")))
            read_name_section(p, r);
    } else if (read_section_content(p, (enum section_id)id, &r) && r.failed == NULL && r.at != r.end) {
        fail_at(&r, "bytes left over");
    }
    *failed_in = r;
}

/* ---- the whole ---- */

static const char *read_header(struct reader *r)
{
    static const uint8_t magic[] = {0, 'a', 's', 'm'}, core[] = {1, 0, 0, 0}, component[] = {0x0d, 0, 1, 0};
    if (bytes_left(r) < 8 || memcmp(r->at, magic, 4) != 0)
        return "not a WebAssembly module";
    if (memcmp(r->at + 4, component, 4) == 0)
        return "a WebAssembly component; a core module is needed";
    if (memcmp(r->at + 4, core, 4) != 0)
        return "unknown version of the WebAssembly binary format";
    r->at += 8;
    return NULL;
}

static char *parse(struct parser *p)
{
    const char *header = read_header(&p->whole);
    if (header != NULL)
        return mem_strdup(header);
    while (p->whole.at != p->whole.end) {
        size_t offset = (size_t)(p->whole.at - p->whole.start);
        uint8_t id = *p->whole.at;
        struct reader section = {0};
        read_section(p, &section);
        const char *why = p->whole.failed != NULL ? p->whole.failed : section.failed;
        if (why != NULL)
            return mem_printf("malformed module: %s section at byte %zu: %s",
                              id < SECTION_COUNT ? section_names[id] : "unknown", offset, why);
    }
    return NULL;
}

bool module_info_parse(struct str wasm, struct module_info *info, char **error)
{
    memset(info, 0, sizeof(*info));
    const uint8_t *start = wasm.n != 0 ? (const uint8_t *)wasm.p : (const uint8_t *)"";
    struct parser p = {.info = info, .whole = {start, start, start + wasm.n, NULL}};
    *error = parse(&p);
    mem_free(p.function_types);
    if (*error != NULL)
        module_info_free(info);
    return *error == NULL;
}

void module_info_free(struct module_info *info)
{
    for (size_t i = 0; i < info->type_count; i++)
        mem_free(info->types[i]);
    mem_free(info->types);
    mem_free(info->imports);
    mem_free(info->exports);
    mem_free(info->sections);
    mem_free(info->name);
    memset(info, 0, sizeof(*info));
}
