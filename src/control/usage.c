/* SPDX-License-Identifier: Apache-2.0
 *
 * What compose found about each object: used or not, and why. Several findings of one object are joined, the first bad
 * one giving the reason.
 */
#include "control/compose_priv.h"

static void key_of(struct strbuf *b, enum kind kind, const char *ns, const char *name)
{
    strbuf_printf(b, "%s/%s/%s", kind_name(kind), ns, name);
}

/* Whole objects that another controller or a later Weir serves. They stand in one directory with ours. */
static bool not_for_us(const char *reason)
{
    static const char *const reasons[] = {"NotOurs", "NoMatchingClass", "NoMatchingGateway", "OtherGateway",
                                          "UnsupportedProtocol"};
    for (size_t i = 0; i < ARRAY_LEN(reasons); i++)
        if (strcmp(reason, reasons[i]) == 0)
            return true;
    return false;
}

static struct usage *usage_get(struct usage_table *t, const struct meta *meta)
{
    struct strbuf key = {0};
    key_of(&key, meta->kind, meta->ns, meta->name);
    struct usage *u = map_get(&t->by_object, strbuf_str(&key));
    if (u == NULL) {
        u = mem_zalloc(sizeof *u);
        u->accepted = true;
        map_set(&t->by_object, strbuf_str(&key), u);
    }
    strbuf_free(&key);
    return u;
}

static char *text_of(const char *fmt, va_list args)
{
    char line[1024];
    return vsnprintf(line, sizeof line, fmt, args) > 0 ? mem_strdup(line) : mem_strdup("");
}

/* text is taken. */
static void message_add(char **message, char *text)
{
    if (*message != NULL && (*message)[0] != '\0' && text[0] != '\0') {
        char *both = mem_printf("%s; %s", *message, text);
        mem_free(text);
        text = both;
    } else if (text[0] == '\0' && *message != NULL) {
        mem_free(text);
        return;
    }
    mem_free(*message);
    *message = text;
}

void usage_say(struct usage_table *t, const struct meta *meta, bool accepted, const char *reason, const char *fmt, ...)
{
    struct usage *u = usage_get(t, meta);
    va_list args;
    va_start(args, fmt);
    message_add(&u->message, text_of(fmt, args));
    va_end(args);
    if (u->reason == NULL || (u->accepted && !accepted)) {
        mem_free(u->reason);
        u->reason = mem_strdup(reason);
    }
    u->accepted = u->accepted && accepted;
    u->mistake |= !accepted && !not_for_us(reason);
}

const struct usage_part *usage_part_find(const struct usage *u, enum usage_aspect aspect, const char *name)
{
    for (size_t i = 0; i < u->part_count; i++)
        if (u->parts[i].aspect == aspect && strcmp(u->parts[i].name, name) == 0)
            return &u->parts[i];
    return NULL;
}

struct usage_part *usage_say_part(struct usage_table *t, const struct meta *meta, enum usage_aspect aspect,
                                  const char *name, bool ok, const char *reason, const char *fmt, ...)
{
    struct usage *u = usage_get(t, meta);
    const struct usage_part *found = usage_part_find(u, aspect, name);
    if (found == NULL) {
        u->parts = mem_realloc(u->parts, (u->part_count + 1) * sizeof *u->parts);
        u->parts[u->part_count] =
            (struct usage_part){.aspect = aspect, .name = mem_strdup(name), .ok = true, .reason = mem_strdup("")};
        u->parts[u->part_count].message = mem_strdup("");
        found = &u->parts[u->part_count++];
    }
    struct usage_part *part = &u->parts[found - u->parts];
    if (ok)
        return part;
    va_list args;
    va_start(args, fmt);
    message_add(&part->message, text_of(fmt, args));
    va_end(args);
    if (part->ok) {
        mem_free(part->reason);
        part->reason = mem_strdup(reason);
    }
    part->ok = false;
    return part;
}

const struct usage *usage_find(const struct usage_table *t, enum kind kind, const char *ns, const char *name)
{
    struct strbuf key = {0};
    key_of(&key, kind, ns, name);
    const struct usage *u = map_get(&t->by_object, strbuf_str(&key));
    strbuf_free(&key);
    return u;
}

void usage_free(struct usage_table *t)
{
    MAP_EACH (e, &t->by_object) {
        struct usage *u = e->value;
        for (size_t i = 0; i < u->part_count; i++) {
            mem_free(u->parts[i].name);
            mem_free(u->parts[i].reason);
            mem_free(u->parts[i].message);
        }
        mem_free(u->parts);
        mem_free(u->reason);
        mem_free(u->message);
        mem_free(u);
    }
    map_free(&t->by_object);
    *t = (struct usage_table){0};
}
