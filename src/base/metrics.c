/* SPDX-License-Identifier: Apache-2.0
 *
 * A series has an entry in one table and, for counters and histograms, a run of cells: numbers into pages that each
 * thread has of its own, made when the thread first writes there. The owner adds with a relaxed load and store; readers
 * walk the list of slots, which only ever grows, without a lock. Slot 0 is shared by all threads without a slot.
 *
 *      series[index] -> cell 1234        slot of worker 1: pages[2] -> [ .. 17 .. ]
 *                                        slot of worker 2: pages[2] -> [ ..  4 .. ]   sum 21
 *
 * What makes it hard: a removed series' cells are used again (plugins come and go for months), yet nobody but its owner
 * may write a cell, so they cannot be set to 0. A new series therefore remembers what its cells held before (`base`)
 * and that is taken off when it is read. A handle is index and age of the entry: one of a removed series does nothing.
 */
#include "base/metrics.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include <pthread.h>

#include "base/map.h"

enum {
    MAX_SERIES = 65536,
    BUCKETS = METRICS_BUCKETS,     /* le 2^0 ... 2^30, +Inf */
    HISTOGRAM_CELLS = BUCKETS + 1, /* and the sum */
    PAGE_CELLS = 512,
    PAGES = MAX_SERIES / (PAGE_CELLS / HISTOGRAM_CELLS) + 1, /* all series being histograms */
    CACHE_LINE = 64,
};

struct page {
    _Alignas(CACHE_LINE) atomic_uint_fast64_t cells[PAGE_CELLS];
};
struct slot {
    struct slot *next; /* set before the slot is seen by others */
    bool claimed;      /* under the lock */
    _Atomic(struct page *) pages[PAGES];
};
/* On a cache line of its own: all workers write it. */
struct gauge {
    _Alignas(CACHE_LINE) atomic_int_fast64_t value;
};
struct family;
/* id and cell are read on the request path; the rest only under the lock, but for base and gauge. */
struct series {
    _Atomic metric_id id; /* METRIC_NONE: not in use */
    atomic_uint cell;     /* first of its cells */
    struct gauge *gauge;
    atomic_uint_fast64_t *base; /* what each of its cells held when it was defined */
    struct family *family;
    char *labels;
    _Atomic double scale;
    uint16_t age;
    uint8_t kind; /* enum metric_type that gauge, cell and base are good for */
    struct series *next_of_family, *next_free;
};
struct family {
    struct family *next;
    char *name, *help;
    enum metric_type type;
    struct series *first, *last;
};
/* Entries for reuse, oldest first, so that a handle stays stale for as long as possible. */
struct free_list {
    struct series *first, *last;
};

static struct slot shared_slot;
static _Atomic(struct slot *) slots = &shared_slot;
static _Thread_local struct slot *own_slot;

/* Entry 0 is METRIC_NONE. Untouched entries take no memory. */
static struct series table[MAX_SERIES];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
/* Under the lock: */
static struct map by_key;   /* name, '{', labels -> struct series */
static struct map families; /* name -> struct family */
static struct family *family_first, *family_last;
static struct free_list free_series[3]; /* by enum metric_type */
static uint32_t table_used = 1, next_cell;

static uint32_t index_of(const struct series *s) { return (uint32_t)(s - table); }

/* ---- slots and cells ---- */

void metrics_thread_init(void)
{
    ASSERT(own_slot == NULL);
    pthread_mutex_lock(&lock);
    struct slot *s = atomic_load_explicit(&slots, memory_order_relaxed);
    while (s != &shared_slot && s->claimed)
        s = s->next;
    if (s == &shared_slot) {
        s = mem_zalloc(sizeof(*s));
        s->next = atomic_load_explicit(&slots, memory_order_relaxed);
        atomic_store_explicit(&slots, s, memory_order_release);
    }
    s->claimed = true;
    own_slot = s;
    pthread_mutex_unlock(&lock);
}

void metrics_thread_fini(void)
{
    if (own_slot == NULL)
        return;
    pthread_mutex_lock(&lock);
    own_slot->claimed = false;
    pthread_mutex_unlock(&lock);
    own_slot = NULL;
}

static struct page *page_new(void)
{
    struct page *p = aligned_alloc(CACHE_LINE, sizeof(*p));
    ASSERT(p != NULL);
    memset(p, 0, sizeof(*p));
    return p;
}

/* The cell in a slot; its page is made when missing. Threads of the shared slot may race to do so. */
static atomic_uint_fast64_t *slot_cell(struct slot *s, uint32_t cell)
{
    _Atomic(struct page *) *place = &s->pages[cell / PAGE_CELLS];
    struct page *p = atomic_load_explicit(place, memory_order_acquire);
    if (p == NULL) {
        struct page *fresh = page_new();
        if (atomic_compare_exchange_strong_explicit(place, &p, fresh, memory_order_acq_rel, memory_order_acquire))
            p = fresh;
        else
            free(fresh);
    }
    return &p->cells[cell % PAGE_CELLS];
}

static void cell_add(uint32_t cell, uint64_t n)
{
    if (own_slot == NULL) {
        atomic_fetch_add_explicit(slot_cell(&shared_slot, cell), n, memory_order_relaxed);
        return;
    }
    atomic_uint_fast64_t *c = slot_cell(own_slot, cell);
    atomic_store_explicit(c, atomic_load_explicit(c, memory_order_relaxed) + n, memory_order_relaxed);
}

static uint64_t cell_sum(uint32_t cell)
{
    uint64_t sum = 0;
    for (struct slot *s = atomic_load_explicit(&slots, memory_order_acquire); s != NULL; s = s->next) {
        struct page *p = atomic_load_explicit(&s->pages[cell / PAGE_CELLS], memory_order_acquire);
        if (p != NULL)
            sum += atomic_load_explicit(&p->cells[cell % PAGE_CELLS], memory_order_relaxed);
    }
    return sum;
}

/* ---- definition ---- */

static uint32_t cells_of(enum metric_type type)
{
    return type == METRICS_COUNTER ? 1 : type == METRICS_HISTOGRAM ? HISTOGRAM_CELLS : 0;
}

static void free_list_push(struct free_list *list, struct series *s)
{
    s->next_free = NULL;
    if (list->first == NULL)
        list->first = s;
    else
        list->last->next_free = s;
    list->last = s;
}

/* A fresh entry with its cells or gauge; NULL when the table is full. */
static struct series *series_make(enum metric_type type)
{
    if (table_used == MAX_SERIES)
        return NULL;
    struct series *s = &table[table_used++];
    uint32_t cells = cells_of(type);
    s->kind = (uint8_t)type;
    if (type == METRICS_GAUGE) {
        s->gauge = aligned_alloc(CACHE_LINE, sizeof(*s->gauge));
        ASSERT(s->gauge != NULL);
        return s;
    }
    if (next_cell % PAGE_CELLS + cells > PAGE_CELLS)
        next_cell += PAGE_CELLS - next_cell % PAGE_CELLS;
    atomic_store_explicit(&s->cell, next_cell, memory_order_relaxed);
    next_cell += cells;
    ASSERT(next_cell <= PAGES * PAGE_CELLS);
    s->base = mem_zalloc(cells * sizeof(*s->base));
    return s;
}

static struct series *series_take(enum metric_type type)
{
    struct free_list *list = &free_series[type];
    struct series *s = list->first;
    if (s == NULL) {
        s = series_make(type);
    } else {
        list->first = s->next_free;
        s->age++;
    }
    if (s == NULL)
        return NULL;
    uint32_t cell = atomic_load_explicit(&s->cell, memory_order_relaxed);
    for (uint32_t i = 0; i < cells_of(type); i++)
        atomic_store_explicit(&s->base[i], cell_sum(cell + i), memory_order_relaxed);
    if (type == METRICS_GAUGE)
        atomic_store_explicit(&s->gauge->value, 0, memory_order_relaxed);
    atomic_store_explicit(&s->scale, 1.0, memory_order_relaxed);
    return s;
}

/* name as Prometheus allows it. */
static void clean_name(struct str name, struct strbuf *out)
{
    if (name.n == 0 || (name.p[0] >= '0' && name.p[0] <= '9'))
        strbuf_addc(out, '_');
    for (size_t i = 0; i < name.n; i++) {
        char c = name.p[i];
        bool ok = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_' || c == ':';
        strbuf_addc(out, ok ? c : '_');
    }
}

/* A histogram "x" writes "x_bucket", "x_sum" and "x_count": no other family may have these names. */
static bool name_clashes(struct str name, enum metric_type type)
{
    static const char *const suffixes[] = {"_bucket", "_sum", "_count"};
    for (size_t i = 0; i < ARRAY_LEN(suffixes); i++) {
        struct str suffix = str_of(suffixes[i]);
        if (str_ends(name, suffix)) {
            const struct family *f = map_get(&families, str_upto(name, name.n - suffix.n));
            if (f != NULL && f->type == METRICS_HISTOGRAM)
                return true;
        }
        if (type != METRICS_HISTOGRAM)
            continue;
        char *longer = mem_printf("%.*s%s", STR_ARG(name), suffixes[i]);
        bool there = map_get(&families, str_of(longer)) != NULL;
        mem_free(longer);
        if (there)
            return true;
    }
    return false;
}

/* The family of that name and type, made when new; NULL when the name is taken otherwise. */
static struct family *family_get(enum metric_type type, struct str name, const char *help)
{
    struct family *f = map_get(&families, name);
    if (f != NULL)
        return f->type == type ? f : NULL;
    if (name_clashes(name, type))
        return NULL;
    f = mem_zalloc(sizeof(*f));
    f->name = str_dup(name);
    f->help = help != NULL ? mem_strdup(help) : NULL;
    f->type = type;
    map_set(&families, name, f);
    if (family_last != NULL)
        family_last->next = f;
    else
        family_first = f;
    family_last = f;
    return f;
}

static void family_free_if_empty(struct family *f)
{
    if (f->first != NULL)
        return;
    struct family **at = &family_first, *before = NULL;
    while (*at != f) {
        before = *at;
        at = &before->next;
    }
    *at = f->next;
    if (family_last == f)
        family_last = before;
    map_remove(&families, str_of(f->name));
    mem_free(f->name);
    mem_free(f->help);
    mem_free(f);
}

static metric_id define_locked(enum metric_type type, struct str name, struct str labels, const char *help)
{
    struct strbuf key = {0};
    strbuf_add(&key, name);
    strbuf_addc(&key, '{');
    strbuf_add(&key, labels);
    struct series *s = map_get(&by_key, strbuf_str(&key));
    metric_id id = METRIC_NONE;
    struct family *f;
    if (s != NULL) {
        if (s->kind == type)
            id = atomic_load_explicit(&s->id, memory_order_relaxed);
    } else if ((f = family_get(type, name, help)) != NULL && (s = series_take(type)) != NULL) {
        s->family = f;
        s->labels = str_dup(labels);
        s->next_of_family = NULL;
        if (f->first == NULL)
            f->first = s;
        else
            f->last->next_of_family = s;
        f->last = s;
        map_set(&by_key, strbuf_str(&key), s);
        id = (metric_id)s->age << 16 | index_of(s);
        atomic_store_explicit(&s->id, id, memory_order_release);
    } else if (f != NULL) {
        family_free_if_empty(f);
    }
    strbuf_free(&key);
    return id;
}

metric_id metrics_define(enum metric_type type, struct str name, struct str labels, const char *help)
{
    struct strbuf clean = {0};
    clean_name(name, &clean);
    pthread_mutex_lock(&lock);
    metric_id id = define_locked(type, strbuf_str(&clean), labels, help);
    pthread_mutex_unlock(&lock);
    strbuf_free(&clean);
    return id;
}

void metrics_label(struct strbuf *labels, const char *key, struct str value)
{
    bool utf8 = str_is_utf8(value);
    if (labels->n != 0)
        strbuf_addc(labels, ',');
    strbuf_addz(labels, key);
    strbuf_addz(labels, "=\"");
    for (size_t i = 0; i < value.n; i++) {
        unsigned char c = (unsigned char)value.p[i];
        if (c == '\n')
            strbuf_addz(labels, "\\n");
        else if (c == '"' || c == '\\')
            strbuf_printf(labels, "\\%c", c);
        else if (c < 0x20 || c == 0x7f || (c >= 0x80 && !utf8))
            strbuf_addz(labels, "\xef\xbf\xbd");
        else
            strbuf_addc(labels, (char)c);
    }
    strbuf_addc(labels, '"');
}

void metrics_remove(metric_id id)
{
    struct series *s = &table[id & 0xffff];
    pthread_mutex_lock(&lock);
    if (id != METRIC_NONE && atomic_load_explicit(&s->id, memory_order_relaxed) == id) {
        atomic_store_explicit(&s->id, METRIC_NONE, memory_order_relaxed);
        struct family *f = s->family;
        struct series **at = &f->first, *before = NULL;
        while (*at != s) {
            before = *at;
            at = &before->next_of_family;
        }
        *at = s->next_of_family;
        if (f->last == s)
            f->last = before;
        struct strbuf key = {0};
        strbuf_printf(&key, "%s{%s", f->name, s->labels);
        map_remove(&by_key, strbuf_str(&key));
        strbuf_free(&key);
        family_free_if_empty(f);
        mem_free(s->labels);
        s->labels = NULL;
        s->family = NULL;
        free_list_push(&free_series[s->kind], s);
    }
    pthread_mutex_unlock(&lock);
}

/* ---- counting ---- */

/* NULL for METRIC_NONE, a removed series, or one of another type. */
static struct series *series_of(metric_id id, enum metric_type type)
{
    struct series *s = &table[id & 0xffff];
    if (id == METRIC_NONE || atomic_load_explicit(&s->id, memory_order_acquire) != id || s->kind != type)
        return NULL;
    return s;
}

void metrics_add(metric_id id, uint64_t n)
{
    const struct series *s = series_of(id, METRICS_COUNTER);
    if (s != NULL)
        cell_add(atomic_load_explicit(&s->cell, memory_order_relaxed), n);
}

void metrics_gauge_set(metric_id id, int64_t v)
{
    struct series *s = series_of(id, METRICS_GAUGE);
    if (s != NULL)
        atomic_store_explicit(&s->gauge->value, v, memory_order_relaxed);
}

void metrics_gauge_add(metric_id id, int64_t n)
{
    struct series *s = series_of(id, METRICS_GAUGE);
    if (s != NULL)
        atomic_fetch_add_explicit(&s->gauge->value, n, memory_order_relaxed);
}

/* The smallest k with value <= 2^k. */
static uint32_t bucket_of(uint64_t value)
{
    if (value <= 1)
        return 0;
    uint32_t k = 64 - (uint32_t)__builtin_clzll(value - 1);
    return k < BUCKETS - 1 ? k : BUCKETS - 1;
}

void metrics_observe_n(metric_id id, uint64_t value, uint64_t n)
{
    const struct series *s = series_of(id, METRICS_HISTOGRAM);
    if (s == NULL || n == 0)
        return;
    uint32_t cell = atomic_load_explicit(&s->cell, memory_order_relaxed);
    cell_add(cell + bucket_of(value), n);
    cell_add(cell + BUCKETS, value * n);
}

void metrics_observe_bucket(metric_id id, unsigned bucket, uint64_t n)
{
    const struct series *s = series_of(id, METRICS_HISTOGRAM);
    if (s != NULL && n != 0)
        cell_add(atomic_load_explicit(&s->cell, memory_order_relaxed) + (bucket < BUCKETS ? bucket : BUCKETS - 1), n);
}

void metrics_observe_sum(metric_id id, uint64_t sum)
{
    const struct series *s = series_of(id, METRICS_HISTOGRAM);
    if (s != NULL && sum != 0)
        cell_add(atomic_load_explicit(&s->cell, memory_order_relaxed) + BUCKETS, sum);
}

void metrics_observe(metric_id id, uint64_t value) { metrics_observe_n(id, value, 1); }

void metrics_scale(metric_id id, double scale)
{
    struct series *s = series_of(id, METRICS_HISTOGRAM);
    if (s != NULL)
        atomic_store_explicit(&s->scale, scale, memory_order_relaxed);
}

/* ---- reading ---- */

static uint64_t series_cell(const struct series *s, uint32_t i)
{
    uint64_t sum = cell_sum(atomic_load_explicit(&s->cell, memory_order_relaxed) + i);
    return sum - atomic_load_explicit(&s->base[i], memory_order_relaxed);
}

/* Fills counts by bucket; returns how many there are in all. */
static uint64_t read_buckets(const struct series *s, uint64_t counts[BUCKETS])
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < BUCKETS; i++)
        total += counts[i] = series_cell(s, i);
    return total;
}

int64_t metrics_read(metric_id id)
{
    const struct series *s = &table[id & 0xffff];
    if (id == METRIC_NONE || atomic_load_explicit(&s->id, memory_order_acquire) != id)
        return 0;
    uint64_t counts[BUCKETS];
    switch ((enum metric_type)s->kind) {
    case METRICS_COUNTER: return (int64_t)series_cell(s, 0);
    case METRICS_GAUGE: return atomic_load_explicit(&s->gauge->value, memory_order_relaxed);
    case METRICS_HISTOGRAM: return (int64_t)read_buckets(s, counts);
    }
    return 0;
}

double metrics_bucket_quantile(const uint64_t counts[METRICS_BUCKETS], double q)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < BUCKETS; i++)
        total += counts[i];
    if (total == 0)
        return 0;
    double rank = q * (double)total, before = 0;
    for (uint32_t i = 0; i < BUCKETS - 1; i++) {
        double here = (double)counts[i];
        if (here > 0 && before + here >= rank) {
            double low = i == 0 ? 0 : (double)(UINT64_C(1) << (i - 1)), high = (double)(UINT64_C(1) << i);
            return low + (high - low) * (rank > before ? (rank - before) / here : 0);
        }
        before += here;
    }
    return (double)(UINT64_C(1) << (BUCKETS - 2)); /* beyond the last bound */
}

uint64_t metrics_quantile(metric_id id, double q)
{
    const struct series *s = series_of(id, METRICS_HISTOGRAM);
    uint64_t counts[BUCKETS];
    if (s == NULL || read_buckets(s, counts) == 0)
        return 0;
    return (uint64_t)(metrics_bucket_quantile(counts, q) + 0.5);
}

void metrics_each(struct str name, void (*fn)(void *arg, const struct metrics_value *v), void *arg)
{
    pthread_mutex_lock(&lock);
    const struct family *f = map_get(&families, name);
    for (const struct series *s = f != NULL ? f->first : NULL; s != NULL; s = s->next_of_family) {
        struct metrics_value v = {.labels = str_of(s->labels)};
        if (f->type == METRICS_HISTOGRAM) {
            v.value = (int64_t)read_buckets(s, v.counts);
            v.sum = series_cell(s, BUCKETS);
        } else if (f->type == METRICS_COUNTER) {
            v.value = (int64_t)series_cell(s, 0);
        } else {
            v.value = atomic_load_explicit(&s->gauge->value, memory_order_relaxed);
        }
        fn(arg, &v);
    }
    pthread_mutex_unlock(&lock);
}

/* ---- Prometheus text format 0.0.4 ---- */

static void write_help(struct strbuf *out, const struct family *f)
{
    static const char *const types[] = {
        [METRICS_COUNTER] = "counter", [METRICS_GAUGE] = "gauge", [METRICS_HISTOGRAM] = "histogram"};
    if (f->help != NULL) {
        strbuf_printf(out, "# HELP %s ", f->name);
        for (const char *p = f->help; *p != '\0'; p++) {
            if (*p == '\n')
                strbuf_addz(out, "\\n");
            else if (*p == '\\')
                strbuf_addz(out, "\\\\");
            else
                strbuf_addc(out, *p);
        }
        strbuf_addc(out, '\n');
    }
    strbuf_printf(out, "# TYPE %s %s\n", f->name, types[f->type]);
}

/* name + suffix, labels, and one label more when le is not NULL. */
static void write_name(struct strbuf *out, const struct series *s, const char *suffix, const char *le)
{
    strbuf_addz(out, s->family->name);
    strbuf_addz(out, suffix);
    bool labels = s->labels[0] != '\0';
    if (labels || le != NULL) {
        strbuf_addc(out, '{');
        strbuf_addz(out, s->labels);
        if (le != NULL)
            strbuf_printf(out, "%sle=\"%s\"", labels ? "," : "", le);
        strbuf_addc(out, '}');
    }
    strbuf_addc(out, ' ');
}

static void write_histogram(struct strbuf *out, const struct series *s)
{
    uint64_t counts[BUCKETS], total = 0;
    double scale = atomic_load_explicit(&s->scale, memory_order_relaxed);
    read_buckets(s, counts);
    for (uint32_t i = 0; i < BUCKETS; i++) {
        char le[32] = "+Inf";
        if (i < BUCKETS - 1)
            (void)snprintf(le, sizeof(le), "%.10g", (double)(UINT64_C(1) << i) * scale);
        total += counts[i];
        write_name(out, s, "_bucket", le);
        strbuf_printf(out, "%llu\n", (unsigned long long)total);
    }
    write_name(out, s, "_sum", NULL);
    strbuf_printf(out, "%.15g\n", (double)series_cell(s, BUCKETS) * scale);
    write_name(out, s, "_count", NULL);
    strbuf_printf(out, "%llu\n", (unsigned long long)total);
}

void metrics_write(struct strbuf *out)
{
    pthread_mutex_lock(&lock);
    for (const struct family *f = family_first; f != NULL; f = f->next) {
        write_help(out, f);
        for (const struct series *s = f->first; s != NULL; s = s->next_of_family) {
            if (f->type == METRICS_HISTOGRAM) {
                write_histogram(out, s);
                continue;
            }
            write_name(out, s, "", NULL);
            if (f->type == METRICS_COUNTER)
                strbuf_printf(out, "%llu\n", (unsigned long long)series_cell(s, 0));
            else
                strbuf_printf(out, "%lld\n", (long long)atomic_load_explicit(&s->gauge->value, memory_order_relaxed));
        }
    }
    pthread_mutex_unlock(&lock);
}
