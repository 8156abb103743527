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

/* A series, by all plugins that define it. */
struct held {
    metric_id id;
    unsigned holders; /* struct named */
};

/* A name in a plugin's set. */
struct named {
    struct held *held;
    unsigned users; /* living generations that have defined it; it may outlive them */
    bool guests;
};

struct series_set {
    unsigned refs;
    char *name;
    struct map names; /* origin, type, name, '{', labels -> named */
    size_t guest_count;
};

struct series_user {
    struct series_set *set;
    struct map names; /* as the set's, of what this generation has defined */
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

/* ---- series ---- */

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

/* ---- sets and users ---- */

static struct series_set *set_ref(struct str plugin_name)
{
    struct series_set *set = map_get(&all.sets, plugin_name);

    if (set == NULL) {
        set = mem_zalloc(sizeof *set);
        set->name = str_dup(plugin_name);
        map_set(&all.sets, plugin_name, set);
    }
    set->refs++;
    return set;
}

static void set_unref(struct series_set *set)
{
    if (--set->refs != 0) {
        return;
    }
    MAP_EACH (e, &set->names) {
        struct named *n = e->value;
        let_go(n->held);
        mem_free(n);
    }
    map_free(&set->names);
    map_remove(&all.sets, str_of(set->name));
    map_free_when_empty(&all.held);
    map_free_when_empty(&all.sets);
    mem_free(set->name);
    mem_free(set);
}

/* Names of guests that only generations of the past have defined. Removing from a map leaves its entries in place. */
static void set_forget_unused(struct series_set *set)
{
    MAP_EACH (e, &set->names) {
        struct named *n = e->value;
        if (n->users == 0 && n->guests) {
            let_go(n->held);
            mem_free(n);
            map_remove(&set->names, e->key);
            set->guest_count--;
        }
    }
}

struct series_user *series_open(struct str plugin_name)
{
    struct series_user *user = mem_zalloc(sizeof *user);

    pthread_mutex_lock(&all.lock);
    user->set = set_ref(plugin_name);
    pthread_mutex_unlock(&all.lock);
    return user;
}

void series_close(struct series_user *user)
{
    pthread_mutex_lock(&all.lock);
    MAP_EACH (e, &user->names) {
        ((struct named *)e->value)->users--;
    }
    set_unref(user->set);
    pthread_mutex_unlock(&all.lock);
    map_free(&user->names);
    mem_free(user);
}

/* ---- definition ---- */

struct wanted {
    char origin; /* 'g' of the guest, 'w' of Weir */
    enum metric_type type;
    struct str name, labels;
    const char *help;
    size_t max; /* of the guest's */
};

static struct named *name_find(struct series_set *set, const struct wanted *w, struct str key, bool *full)
{
    struct named *n = map_get(&set->names, key);
    bool guests = w->origin == 'g';

    if (n != NULL) {
        return n;
    }
    if (guests && set->guest_count >= w->max) {
        set_forget_unused(set);
    }
    *full = guests && set->guest_count >= w->max;
    metric_id id = *full ? METRIC_NONE : metrics_define(w->type, w->name, w->labels, w->help);
    if (id == METRIC_NONE) {
        return NULL;
    }
    n = mem_zalloc(sizeof *n);
    *n = (struct named){.held = hold(id), .guests = guests};
    map_set(&set->names, key, n);
    set->guest_count += guests;
    return n;
}

static metric_id define_locked(struct series_user *user, const struct wanted *w, struct str key, bool *full)
{
    struct named *n = map_get(&user->names, key);

    if (n != NULL) {
        return n->held->id;
    }
    n = name_find(user->set, w, key, full);
    if (n == NULL) {
        return METRIC_NONE;
    }
    n->users++;
    map_set(&user->names, key, n);
    return n->held->id;
}

static metric_id define(struct series_user *user, const struct wanted *w, bool *full)
{
    struct strbuf key = {0};

    strbuf_addc(&key, w->origin);
    strbuf_addc(&key, (char)('0' + w->type));
    strbuf_add(&key, w->name);
    strbuf_addc(&key, '{');
    strbuf_add(&key, w->labels);
    pthread_mutex_lock(&all.lock);
    metric_id id = define_locked(user, w, strbuf_str(&key), full);
    pthread_mutex_unlock(&all.lock);
    strbuf_free(&key);
    return id;
}

metric_id series_define(struct series_user *user, enum metric_type type, struct str name, struct str labels,
                        const char *help)
{
    const struct wanted w = {.origin = 'w', .type = type, .name = name, .labels = labels, .help = help};
    bool full = false;

    return define(user, &w, &full);
}

metric_id series_define_guest(struct series_user *user, enum metric_type type, struct str name, size_t max, bool *full)
{
    const struct wanted w = {.origin = 'g', .type = type, .name = name, .help = "defined by a Wasm plugin", .max = max};

    *full = false;
    return define(user, &w, full);
}
