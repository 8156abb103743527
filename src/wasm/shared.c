/* SPDX-License-Identifier: Apache-2.0
 *
 * Shared data and queues of all vm_ids behind one mutex. Hard because a wake-up races with the death of the VM it is
 * for: wakes are sent and registrants removed under the same lock, so that a token that was unsubscribed is never
 * woken. Must never call anything that takes its time, enters a guest or comes back here while the lock is held.
 */
#include "wasm/shared.h"

#include <pthread.h>

#include "base/list.h"
#include "base/map.h"

/* What an entry, an item or a queue is charged beyond its bytes, so that empty ones are bounded too. */
enum { ENTRY_COST = 128, ITEM_COST = 48, QUEUE_COST = 256, WAKE_MAX = 1024 };

struct entry {
    struct list used; /* in space->used, least recently used first */
    uint32_t cas;
    struct str key, value; /* both in bytes[] */
    char bytes[];
};

struct item {
    struct item *next;
    size_t n;
    char bytes[];
};

struct registrant {
    struct list node; /* in queue->registrants, newest first */
    uint64_t token;
    void (*wake)(uint64_t token, uint32_t queue_id);
};

struct queue {
    struct shared_space *space;
    uint32_t id;
    struct item *first, **last;
    size_t count;
    struct list registrants;
};

struct shared_space {
    unsigned refs;
    struct str vm_id;
    struct map data;   /* key -> entry */
    struct map queues; /* name -> queue */
    struct list used;
    size_t data_bytes, queue_bytes; /* charged; each may take half of the quota, so that neither starves the other */
};

/* Process-wide by the ABI's definition. */
static struct {
    pthread_mutex_t lock;
    struct map spaces; /* vm_id -> shared_space */
    struct map by_id;  /* queue id (4 bytes) -> queue */
    uint32_t next_queue, next_cas;
} shared = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void lock(void) { pthread_mutex_lock(&shared.lock); }
static void unlock(void) { pthread_mutex_unlock(&shared.lock); }

struct shared_space *shared_open(struct str vm_id)
{
    lock();
    struct shared_space *s = map_get(&shared.spaces, vm_id);
    if (s == NULL) {
        s = mem_zalloc(sizeof *s);
        s->vm_id = str_of(str_dup(vm_id));
        s->vm_id.n = vm_id.n;
        list_init(&s->used);
        map_set(&shared.spaces, vm_id, s);
    }
    s->refs++;
    unlock();
    return s;
}

static size_t entry_cost(const struct entry *e) { return ENTRY_COST + e->key.n + e->value.n; }

static void entry_drop(struct shared_space *s, struct entry *e)
{
    s->data_bytes -= entry_cost(e);
    list_remove(&e->used);
    map_remove(&s->data, e->key);
    mem_free(e);
}

static struct item *queue_take(struct queue *q)
{
    struct item *it = q->first;

    if (it != NULL) {
        q->first = it->next;
        if (q->first == NULL) {
            q->last = &q->first;
        }
        q->count--;
        q->space->queue_bytes -= ITEM_COST + it->n;
    }
    return it;
}

static void queue_free(struct queue *q)
{
    for (struct item *it; (it = queue_take(q)) != NULL;) {
        mem_free(it);
    }
    LIST_EACH (pos, &q->registrants) {
        mem_free(LIST_ENTRY(pos, struct registrant, node));
    }
    map_remove(&shared.by_id, str_span(&q->id, sizeof q->id));
    mem_free(q);
}

void shared_close(struct shared_space *s)
{
    lock();
    if (--s->refs == 0) {
        LIST_EACH (pos, &s->used) {
            entry_drop(s, LIST_ENTRY(pos, struct entry, used));
        }
        MAP_EACH (e, &s->queues) {
            queue_free(e->value);
        }
        map_free(&s->data);
        map_free(&s->queues);
        map_remove(&shared.spaces, s->vm_id);
        if (shared.spaces.count == 0) {
            map_free(&shared.spaces);
            map_free(&shared.by_id);
            shared.spaces = shared.by_id = (struct map){0};
        }
        mem_free((char *)(uintptr_t)s->vm_id.p);
        mem_free(s);
    }
    unlock();
}

/* ---- data ---- */

enum abi_status shared_get(struct shared_space *s, struct str key, struct strbuf *out, uint32_t *cas)
{
    lock();
    struct entry *e = map_get(&s->data, key);
    if (e != NULL) {
        list_remove(&e->used);
        list_push_back(&s->used, &e->used);
        strbuf_add(out, e->value);
        *cas = e->cas;
    }
    unlock();
    return e != NULL ? ABI_OK : ABI_NOT_FOUND;
}

static struct entry *entry_new(struct str key, struct str value)
{
    struct entry *e = mem_alloc(sizeof *e + key.n + value.n);

    list_init(&e->used);
    e->key = str_span(e->bytes, key.n);
    e->value = str_span(e->bytes + key.n, value.n);
    if (key.n != 0) {
        memcpy(e->bytes, key.p, key.n);
    }
    if (value.n != 0) {
        memcpy(e->bytes + key.n, value.p, value.n);
    }
    if (++shared.next_cas == 0) {
        shared.next_cas = 1; /* 0 means "unconditional" to guests */
    }
    e->cas = shared.next_cas;
    return e;
}

enum abi_status shared_set(struct shared_space *s, struct str key, struct str value, uint32_t cas, size_t quota,
                           size_t *evicted)
{
    enum abi_status status = ABI_OK;

    *evicted = 0;
    lock();
    struct entry *old = map_get(&s->data, key);
    if (old != NULL && cas != 0 && cas != old->cas) {
        status = ABI_CAS_MISMATCH;
    } else if (ENTRY_COST + key.n + value.n > quota / 2) {
        if (old != NULL) {
            entry_drop(s, old);
        }
        status = ABI_INTERNAL_FAILURE;
    } else {
        if (old != NULL) {
            entry_drop(s, old);
        }
        while (s->data_bytes + ENTRY_COST + key.n + value.n > quota / 2) {
            entry_drop(s, LIST_ENTRY(s->used.next, struct entry, used));
            ++*evicted;
        }
        struct entry *e = entry_new(key, value);
        list_push_back(&s->used, &e->used);
        s->data_bytes += entry_cost(e);
        map_set(&s->data, key, e);
    }
    unlock();
    return status;
}

/* ---- queues ---- */

static struct queue *queue_find(uint32_t id) { return map_get(&shared.by_id, str_span(&id, sizeof id)); }

static struct queue *queue_new(struct shared_space *s, struct str name)
{
    struct queue *q = mem_zalloc(sizeof *q);

    do {
        q->id = ++shared.next_queue;
    } while (q->id == 0 || queue_find(q->id) != NULL);
    q->space = s;
    q->last = &q->first;
    list_init(&q->registrants);
    s->queue_bytes += QUEUE_COST + name.n;
    map_set(&s->queues, name, q);
    map_set(&shared.by_id, str_span(&q->id, sizeof q->id), q);
    return q;
}

enum abi_status queue_register(struct shared_space *s, struct str name, size_t quota, uint32_t *id)
{
    lock();
    struct queue *q = map_get(&s->queues, name);
    if (q == NULL && s->queue_bytes + QUEUE_COST + name.n <= quota / 2) {
        q = queue_new(s, name);
    }
    if (q != NULL) {
        *id = q->id;
    }
    unlock();
    return q != NULL ? ABI_OK : ABI_INTERNAL_FAILURE;
}

enum abi_status queue_resolve(struct shared_space *s, struct str vm_id, struct str name, uint32_t *id)
{
    lock();
    struct shared_space *space = vm_id.n == 0 ? s : map_get(&shared.spaces, vm_id);
    struct queue *q = space != NULL ? map_get(&space->queues, name) : NULL;
    if (q != NULL) {
        *id = q->id;
    }
    unlock();
    return q != NULL ? ABI_OK : ABI_NOT_FOUND;
}

bool queue_is_in(struct shared_space *s, uint32_t id)
{
    lock();
    struct queue *q = queue_find(id);
    bool in = q != NULL && q->space == s;
    unlock();
    return in;
}

static void queue_wake(struct queue *q, size_t times)
{
    if (list_is_empty(&q->registrants)) {
        return;
    }
    struct registrant *r = LIST_ENTRY(q->registrants.next, struct registrant, node);
    for (size_t i = 0; i < times && i < WAKE_MAX; i++) {
        r->wake(r->token, q->id);
    }
}

enum abi_status queue_push(uint32_t id, struct str value, size_t quota, bool *full)
{
    enum abi_status status = ABI_NOT_FOUND;

    *full = false;
    lock();
    struct queue *q = queue_find(id);
    if (q != NULL) {
        *full = q->space->queue_bytes + ITEM_COST + value.n > quota / 2;
        if (!*full) {
            struct item *it = mem_alloc(sizeof *it + value.n);
            it->next = NULL;
            it->n = value.n;
            if (value.n != 0) {
                memcpy(it->bytes, value.p, value.n);
            }
            *q->last = it;
            q->last = &it->next;
            q->count++;
            q->space->queue_bytes += ITEM_COST + value.n;
            queue_wake(q, 1);
            status = ABI_OK;
        }
    }
    unlock();
    return status;
}

enum abi_status queue_pop(uint32_t id, struct strbuf *out)
{
    lock();
    struct queue *q = queue_find(id);
    struct item *it = q != NULL ? queue_take(q) : NULL;
    unlock();
    if (it == NULL) {
        return q != NULL ? ABI_EMPTY : ABI_NOT_FOUND;
    }
    strbuf_add(out, str_span(it->bytes, it->n));
    mem_free(it);
    return ABI_OK;
}

void queue_subscribe(uint32_t id, uint64_t token, void (*wake)(uint64_t token, uint32_t queue_id))
{
    lock();
    struct queue *q = queue_find(id);
    if (q != NULL) {
        struct registrant *found = NULL;
        LIST_EACH (pos, &q->registrants) {
            struct registrant *r = LIST_ENTRY(pos, struct registrant, node);
            found = r->token == token ? r : found;
        }
        bool was_newest = found != NULL && q->registrants.next == &found->node;
        if (found == NULL) {
            found = mem_alloc(sizeof *found);
            *found = (struct registrant){.token = token, .wake = wake};
            list_init(&found->node);
        }
        list_remove(&found->node);
        list_push_front(&q->registrants, &found->node);
        if (!was_newest) {
            queue_wake(q, q->count);
        }
    }
    unlock();
}

void queue_unsubscribe_all(uint64_t token)
{
    lock();
    MAP_EACH (e, &shared.by_id) {
        struct queue *q = e->value;
        LIST_EACH (pos, &q->registrants) {
            struct registrant *r = LIST_ENTRY(pos, struct registrant, node);
            if (r->token == token) {
                bool newest = q->registrants.next == &r->node;
                list_remove(&r->node);
                mem_free(r);
                if (newest) {
                    queue_wake(q, q->count);
                }
                break;
            }
        }
    }
    unlock();
}
