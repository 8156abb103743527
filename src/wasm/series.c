/* SPDX-License-Identifier: Apache-2.0
 *
 * Which plugin names hold which metric series. What makes it hard is that base/metrics does not count its definers:
 * two plugins may define the same name, and generations of one plugin come and go on many threads. So every series of
 * plugins is held here, by counted names, and removed with its last holder; definition and removal share one lock. Must
 * never remove a series that somebody else still holds.
 */
#include "wasm/series.h"

#include <pthread.h>

#include "base/map.h"

struct held {
    metric_id id;
    unsigned holders; /* names of sets */
};

struct series_set {
    unsigned refs;
    char *name;
    struct map series; /* origin, type, name, '{', labels -> held */
    size_t guest_count;
};

/* Process-wide, as the metrics are. */
static struct {
    pthread_mutex_t lock;
    struct map sets; /* plugin name -> series_set */
    struct map held; /* metric_id (4 bytes) -> held */
} all = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void map_free_when_empty(struct map *m)
{
    if (m->count == 0) {
        map_free(m);
        *m = (struct map){0};
    }
}

struct series_set *series_open(struct str plugin_name)
{
    pthread_mutex_lock(&all.lock);
    struct series_set *set = map_get(&all.sets, plugin_name);
    if (set == NULL) {
        set = mem_zalloc(sizeof *set);
        set->name = str_dup(plugin_name);
        map_set(&all.sets, plugin_name, set);
    }
    set->refs++;
    pthread_mutex_unlock(&all.lock);
    return set;
}

static struct str id_key(const metric_id *id) { return str_span(id, sizeof *id); }

static struct held *hold(metric_id id)
{
    struct held *h = map_get(&all.held, id_key(&id));

    if (h == NULL) {
        h = mem_zalloc(sizeof *h);
        h->id = id;
        map_set(&all.held, id_key(&id), h);
    }
    h->holders++;
    return h;
}

static void let_go(struct held *h)
{
    if (--h->holders == 0) {
        metrics_remove(h->id);
        map_remove(&all.held, id_key(&h->id));
        mem_free(h);
    }
}

void series_close(struct series_set *set)
{
    pthread_mutex_lock(&all.lock);
    if (--set->refs == 0) {
        MAP_EACH (e, &set->series) {
            let_go(e->value);
        }
        map_free(&set->series);
        map_remove(&all.sets, str_of(set->name));
        map_free_when_empty(&all.held);
        map_free_when_empty(&all.sets);
        mem_free(set->name);
        mem_free(set);
    }
    pthread_mutex_unlock(&all.lock);
}

struct wanted {
    char origin; /* 'g' of the guest, 'w' of Weir */
    enum metric_type type;
    struct str name, labels;
    const char *help;
    size_t max; /* of the guest's */
};

static metric_id define_locked(struct series_set *set, const struct wanted *w, struct str key, bool *full)
{
    struct held *known = map_get(&set->series, key);

    if (known != NULL) {
        return known->id;
    }
    *full = w->origin == 'g' && set->guest_count >= w->max;
    metric_id id = *full ? METRIC_NONE : metrics_define(w->type, w->name, w->labels, w->help);
    if (id != METRIC_NONE) {
        map_set(&set->series, key, hold(id));
        set->guest_count += w->origin == 'g';
    }
    return id;
}

static metric_id define(struct series_set *set, const struct wanted *w, bool *full)
{
    struct strbuf key = {0};

    strbuf_addc(&key, w->origin);
    strbuf_addc(&key, (char)('0' + w->type));
    strbuf_add(&key, w->name);
    strbuf_addc(&key, '{');
    strbuf_add(&key, w->labels);
    pthread_mutex_lock(&all.lock);
    metric_id id = define_locked(set, w, strbuf_str(&key), full);
    pthread_mutex_unlock(&all.lock);
    strbuf_free(&key);
    return id;
}

metric_id series_define(struct series_set *set, enum metric_type type, struct str name, struct str labels,
                        const char *help)
{
    const struct wanted w = {.origin = 'w', .type = type, .name = name, .labels = labels, .help = help};
    bool full = false;

    return define(set, &w, &full);
}

metric_id series_define_guest(struct series_set *set, enum metric_type type, struct str name, size_t max, bool *full)
{
    const struct wanted w = {
        .origin = 'g', .type = type, .name = name, .help = "defined by a Wasm plugin", .max = max};

    *full = false;
    return define(set, &w, full);
}
