/* SPDX-License-Identifier: Apache-2.0
 *
 * See events.h. The list is short: it is searched and moved as a whole.
 */
#include "control/events.h"

#include <stdio.h>
#include <time.h>

enum { MESSAGE_MAX = 1024 };

static void event_free(struct event *e)
{
    mem_free(e->ns);
    mem_free(e->name);
    mem_free(e->reason);
    mem_free(e->message);
}

void events_free(struct events *e)
{
    for (size_t i = 0; i < e->count; i++)
        event_free(&e->list[i]);
    e->count = 0;
}

static void event_remove(struct events *e, size_t at)
{
    memmove(&e->list[at], &e->list[at + 1], (e->count - at - 1) * sizeof e->list[0]);
    e->count--;
}

static bool same(const struct event *a, const struct event *b)
{
    return a->kind == b->kind && a->warning == b->warning && strcmp(a->name, b->name) == 0 &&
           strcmp(a->ns, b->ns) == 0 && strcmp(a->reason, b->reason) == 0 && strcmp(a->message, b->message) == 0;
}

void events_add(struct events *e, int64_t now, enum kind kind, const char *ns, const char *name, bool warning,
                const char *reason, const char *message)
{
    struct event fresh = {.id = ++e->next_id, .first = now, .last = now, .count = 1, .kind = kind, .warning = warning};
    fresh.ns = mem_strdup(ns);
    fresh.name = mem_strdup(name);
    fresh.reason = mem_strdup(reason);
    fresh.message = mem_strndup(message, strnlen(message, MESSAGE_MAX));
    for (size_t i = 0; i < e->count; i++) {
        if (!same(&e->list[i], &fresh))
            continue;
        fresh.count = e->list[i].count + 1;
        fresh.first = e->list[i].first;
        event_free(&e->list[i]);
        event_remove(e, i);
        break;
    }
    if (e->count == EVENTS_MAX) {
        event_free(&e->list[0]);
        event_remove(e, 0);
    }
    e->list[e->count++] = fresh;
}

void event_time(int64_t seconds, char out[24])
{
    time_t t = (time_t)seconds;
    struct tm tm;
    if (gmtime_r(&t, &tm) == NULL || strftime(out, 24, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
        out[0] = '\0';
}

static void add(struct strbuf *b, const char *name, const char *value)
{
    strbuf_printf(b, ",\"%s\":", name);
    strbuf_add_json(b, str_of(value));
}

void events_write(const struct events *e, size_t max, struct strbuf *out)
{
    strbuf_addz(out, "{\"events\":[");
    for (size_t i = e->count; i-- > 0 && e->count - i <= max;) {
        const struct event *v = &e->list[i];
        char first[24], last[24];
        event_time(v->first, first);
        event_time(v->last, last);
        strbuf_printf(out, "%s{\"id\":%llu,\"type\":\"%s\",\"count\":%llu", i + 1 < e->count ? "," : "",
                      (unsigned long long)v->id, v->warning ? "Warning" : "Normal", (unsigned long long)v->count);
        add(out, "firstTime", first);
        add(out, "lastTime", last);
        add(out, "kind", kind_name(v->kind));
        add(out, "namespace", v->ns);
        add(out, "name", v->name);
        add(out, "reason", v->reason);
        add(out, "message", v->message);
        strbuf_addc(out, '}');
    }
    strbuf_addz(out, "]}\n");
}
