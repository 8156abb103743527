/* SPDX-License-Identifier: Apache-2.0
 *
 * See store.h. Files give documents; documents that name the same object from two files are a conflict: the file that
 * had it first keeps it. What makes it hard: an object may move between files in one scan, so files are recorded first
 * and objects are settled once, afterwards.
 */
#include "control/store.h"

struct store_file {
    enum store_origin origin;
    char *path;
    char *text; /* of the newest version, to see whether anything changed */
    size_t text_bytes;
    struct documents docs; /* of the newest version that parsed */
    struct diag syntax;    /* of the newest version, when it does not parse */
    char *error;           /* unreadable */
    bool gap;              /* could not be read or parsed when the process started */
};

static void file_free(struct store_file *f)
{
    mem_free(f->path);
    mem_free(f->text);
    mem_free(f->error);
    documents_free(&f->docs);
    diag_free(&f->syntax);
    mem_free(f);
}

static void object_free(struct store_object *o)
{
    mem_free(o->ns);
    mem_free(o->name);
    mem_free(o->file);
    diag_free(&o->diag);
    diag_free(&o->next);
    if (o->good != NULL)
        resource_unref(o->good);
    mem_free(o);
}

static bool diag_same(const struct diag *a, const struct diag *b)
{
    if (a->count != b->count)
        return false;
    for (size_t i = 0; i < a->count; i++) {
        char *x = diag_format(&a->entries[i]), *y = diag_format(&b->entries[i]);
        bool same = strcmp(x, y) == 0;
        mem_free(x);
        mem_free(y);
        if (!same)
            return false;
    }
    return true;
}

static bool text_same(const char *a, const char *b) { return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0); }

static struct store_file *file_find_or_make(struct store *s, enum store_origin origin, const char *path)
{
    struct store_file *f = map_get(&s->files, str_of(path));
    if (f == NULL) {
        f = mem_zalloc(sizeof *f);
        f->origin = origin;
        f->path = mem_strdup(path);
        map_set(&s->files, str_of(path), f);
    }
    return f;
}

static void text_set(struct store *s, enum store_origin origin, const char *path, struct str text, const char *error,
                     const char *default_ns)
{
    struct store_file *f = file_find_or_make(s, origin, path);
    if (!text_same(f->error, error)) {
        mem_free(f->error);
        f->error = error != NULL ? mem_strdup(error) : NULL;
        s->files_changed = true;
    }
    if (error != NULL || (f->text != NULL && str_eq(str_span(f->text, f->text_bytes), text)))
        return;
    mem_free(f->text);
    f->text = mem_strndup(text.p, text.n);
    f->text_bytes = text.n;
    s->files_changed = true;

    struct documents docs = {0};
    struct str whole = str_span(f->text, f->text_bytes);
    if (s->whole && origin == ORIGIN_FILE)
        resources_parse_whole(whole, path, default_ns, &docs);
    else
        resources_parse(whole, origin == ORIGIN_FILE ? path : NULL, default_ns, &docs);
    for (size_t i = 0; i < docs.count; i++)
        if (docs.list[i].resource != NULL)
            docs.list[i].resource->meta.origin = origin; /* nobody else knows it yet */
    diag_free(&f->syntax);
    f->syntax = (struct diag){0};
    if (docs.syntax.errors > 0) {
        /* Does not parse: the objects it last gave go on serving. */
        diag_append(&f->syntax, &docs.syntax);
        documents_free(&docs);
        return;
    }
    diag_append(&f->syntax, &docs.syntax); /* warnings: what was passed over */
    documents_free(&f->docs);
    f->docs = docs;
}

void store_file_set(struct store *s, const char *path, struct str text, const char *error, const char *default_ns)
{
    text_set(s, ORIGIN_FILE, path, text, error, default_ns);
}

void store_file_remove(struct store *s, const char *path)
{
    struct store_file *f = map_remove(&s->files, str_of(path));
    if (f == NULL)
        return;
    s->files_changed = true;
    file_free(f);
}

/* No path begins like this: "//" never comes out of a path and an entry's name. */
static char *text_path(enum store_origin origin, const char *key)
{
    return mem_printf("%s//%s", origin == ORIGIN_CLUSTER ? "cluster" : "kubectl", key);
}

void store_text_set(struct store *s, enum store_origin origin, const char *key, struct str text, const char *default_ns)
{
    ASSERT(origin != ORIGIN_FILE);
    char *path = text_path(origin, key);
    text_set(s, origin, path, text, NULL, default_ns);
    mem_free(path);
}

void store_text_remove(struct store *s, enum store_origin origin, const char *key)
{
    ASSERT(origin != ORIGIN_FILE);
    char *path = text_path(origin, key);
    store_file_remove(s, path);
    mem_free(path);
}

/* Names no object: its errors are the file's. */
static bool document_is_nameless(const struct document *d)
{
    return d->resource == NULL && (d->kind < 0 || d->name == NULL || d->name[0] == '\0');
}

static void object_key(struct strbuf *key, enum kind kind, const char *ns, const char *name)
{
    strbuf_clear(key);
    strbuf_printf(key, "%s/%s/%s", kind_name(kind), ns, name);
}

static bool object_take_resource(struct store_object *o, struct resource *r)
{
    bool same = o->good != NULL && o->good->meta.origin == r->meta.origin &&
                memcmp(o->good->meta.digest, r->meta.digest, sizeof r->meta.digest) == 0;
    if (o->good != r) { /* one that means the same may still have a newer uid, generation or resourceVersion */
        if (o->good != NULL)
            resource_unref(o->good);
        o->good = resource_ref(r);
    }
    if (same && !o->stale)
        return false;
    o->generation += !same;
    o->stale = false;
    return true;
}

static struct store_object *object_find_or_make(struct store *s, enum kind kind, const char *ns, const char *name)
{
    struct strbuf key = {0};
    object_key(&key, kind, ns, name);
    struct store_object *o = map_get(&s->objects, strbuf_str(&key));
    if (o == NULL) {
        o = mem_zalloc(sizeof *o);
        o->kind = kind;
        o->ns = mem_strdup(ns);
        o->name = mem_strdup(name);
        map_set(&s->objects, strbuf_str(&key), o);
    }
    strbuf_free(&key);
    return o;
}

static bool is_plugin(enum kind kind) { return kind == KIND_WASM_PLUGIN || kind == KIND_TRAFFIC_EXTENSION; }

static void refuse_twin(struct store_object *o, const struct store_file *f, const struct document *d)
{
    const char *file = f->origin == ORIGIN_FILE ? f->path : NULL;
    if (o->origin == ORIGIN_FILE)
        diag_add(&o->next, DIAG_ERROR, file, d->line, 1, d->title, "is already defined at %s:%u; this one is not used",
                 o->file, o->line);
    else
        diag_add(&o->next, DIAG_ERROR, file, d->line, 1, d->title, "is already there, from %s; this one is not used",
                 o->origin == ORIGIN_CLUSTER ? "the cluster" : "kubectl");
}

static bool settle_document(struct store *s, const struct store_file *f, const struct document *d)
{
    if (document_is_nameless(d))
        return false;
    const struct meta *meta = d->resource != NULL ? &d->resource->meta : NULL;
    const char *ns = meta != NULL ? meta->ns : d->ns;
    struct store_object *o = object_find_or_make(s, meta != NULL ? meta->kind : (enum kind)d->kind,
                                                 ns != NULL ? ns : "", meta != NULL ? meta->name : d->name);
    if (o->seen) {
        refuse_twin(o, f, d);
        return false;
    }
    bool changed = o->file == NULL;
    if (changed)
        o->gap = f->gap && d->resource == NULL && is_plugin(o->kind); /* the file was one at start */
    o->seen = true;
    o->missing_ms = 0;
    diag_append(&o->next, &d->diag);
    if (o->file == NULL || strcmp(o->file, f->path) != 0) {
        mem_free(o->file);
        o->file = mem_strdup(f->path);
    }
    o->origin = f->origin;
    o->line = d->line;
    if (d->resource != NULL)
        return object_take_resource(o, d->resource) || changed;
    changed |= !o->stale;
    o->stale = true;
    return changed;
}

static const struct document *nameless_document(const struct store *s, const char *path)
{
    const struct store_file *f = path != NULL ? map_get(&s->files, str_of(path)) : NULL;
    for (size_t i = 0; f != NULL && i < f->docs.count; i++)
        if (document_is_nameless(&f->docs.list[i]))
            return &f->docs.list[i];
    return NULL;
}

/* No file names it now. True: it is gone. */
static bool object_is_gone(struct store *s, struct store_object *o, uint64_t now_ms)
{
    const struct document *nameless = nameless_document(s, o->file);
    if (nameless != NULL && o->good != NULL) {
        /* It may be this one, its name spoilt by the edit: not known, so it stays. */
        o->stale = true;
        o->missing_ms = 0;
        diag_add(&o->next, DIAG_ERROR, o->file, nameless->line, 1, NULL,
                 "this document names no object; %s %s%s%s, which stood in this file, is kept until it is mended",
                 kind_name(o->kind), o->ns, o->ns[0] != '\0' ? "/" : "", o->name);
        return false;
    }
    if (o->origin != ORIGIN_FILE)
        return true;
    if (o->missing_ms == 0)
        o->missing_ms = now_ms;
    if (now_ms - o->missing_ms >= STORE_GONE_MS)
        return true;
    diag_append(&o->next, &o->diag);
    s->missing++;
    return false;
}

static bool settle_unseen(struct store *s, uint64_t now_ms)
{
    struct map gone = {0};
    s->missing = 0;
    MAP_EACH (e, &s->objects) {
        struct store_object *o = e->value;
        if (!o->seen && object_is_gone(s, o, now_ms))
            map_set(&gone, e->key, o);
    }
    MAP_EACH (e, &gone)
        object_free(map_remove(&s->objects, e->key));
    bool any = gone.count > 0;
    map_free(&gone);
    return any;
}

static bool settle_origin(struct store *s, enum store_origin origin)
{
    bool changed = false;
    MAP_EACH (e, &s->files) {
        struct store_file *f = e->value;
        if (f->origin != origin)
            continue;
        for (size_t i = 0; i < f->docs.count; i++)
            changed |= settle_document(s, f, &f->docs.list[i]);
        f->gap = f->gap && (f->error != NULL || f->syntax.errors > 0); /* what it names is known from now on */
    }
    return changed;
}

bool store_settle(struct store *s, uint64_t now_ms)
{
    bool changed = s->files_changed;
    s->files_changed = false;
    MAP_EACH (e, &s->objects)
        ((struct store_object *)e->value)->seen = false;
    static const enum store_origin order[] = {ORIGIN_KUBE_API, ORIGIN_CLUSTER, ORIGIN_FILE};
    for (size_t i = 0; i < ARRAY_LEN(order); i++)
        changed |= settle_origin(s, order[i]);
    changed |= settle_unseen(s, now_ms);
    MAP_EACH (e, &s->objects) {
        struct store_object *o = e->value;
        changed |= !diag_same(&o->diag, &o->next);
        diag_free(&o->diag);
        o->diag = o->next;
        o->next = (struct diag){0};
    }
    if (changed)
        s->version++;
    return changed;
}

const struct store_object *store_find(const struct store *s, enum kind kind, const char *ns, const char *name)
{
    struct strbuf key = {0};
    object_key(&key, kind, ns, name);
    const struct store_object *o = map_get(&s->objects, strbuf_str(&key));
    strbuf_free(&key);
    return o;
}

void store_file_errors(const struct store *s, struct diag *out)
{
    MAP_EACH (e, &s->files) {
        const struct store_file *f = e->value;
        if (f->error != NULL)
            diag_add(out, DIAG_ERROR, f->path, 0, 0, NULL, "%s", f->error);
        diag_append(out, &f->syntax);
        for (size_t i = 0; i < f->docs.count; i++) {
            if (document_is_nameless(&f->docs.list[i]))
                diag_append(out, &f->docs.list[i].diag);
        }
    }
}

size_t store_bad_count(const struct store *s)
{
    struct diag files = {0};
    store_file_errors(s, &files);
    size_t n = files.errors;
    diag_free(&files);
    MAP_EACH (e, &s->objects)
        n += ((struct store_object *)e->value)->diag.errors > 0;
    return n;
}

void store_mark_gaps(struct store *s)
{
    MAP_EACH (e, &s->objects) {
        struct store_object *o = e->value;
        o->gap = is_plugin(o->kind) && o->good == NULL;
    }
    MAP_EACH (e, &s->files) {
        struct store_file *f = e->value;
        f->gap = f->error != NULL || f->syntax.errors > 0;
    }
}

bool store_write_gaps(const struct store *s, struct strbuf *out)
{
    bool any = false;
    MAP_EACH (e, &s->objects) {
        const struct store_object *o = e->value;
        if (!o->gap || o->good != NULL)
            continue;
        any = true;
        strbuf_printf(out, "%s %s/%s: its text is bad and no good version of it is known\n", kind_name(o->kind), o->ns,
                      o->name);
    }
    MAP_EACH (e, &s->files) {
        const struct store_file *f = e->value;
        if (!f->gap)
            continue;
        any = true;
        strbuf_printf(out, "%s: cannot be read, and what it holds is not known\n", f->path);
    }
    return any;
}

void store_free(struct store *s)
{
    MAP_EACH (e, &s->objects)
        object_free(e->value);
    MAP_EACH (e, &s->files)
        file_free(e->value);
    map_free(&s->objects);
    map_free(&s->files);
}
