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

void usage_say(struct usage_table *t, const struct meta *meta, bool accepted, const char *reason, const char *fmt, ...)
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
    struct strbuf text = {0};
    char line[1024];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    if (u->message != NULL && u->message[0] != '\0' && n > 0)
        strbuf_printf(&text, "%s; ", u->message);
    if (u->message != NULL && u->message[0] != '\0' && n <= 0)
        strbuf_addz(&text, u->message);
    strbuf_addz(&text, n > 0 ? line : "");
    mem_free(u->message);
    u->message = strbuf_take(&text);
    if (u->reason == NULL || (u->accepted && !accepted)) {
        mem_free(u->reason);
        u->reason = mem_strdup(reason);
    }
    u->accepted = u->accepted && accepted;
    u->mistake |= !accepted && !not_for_us(reason);
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
        mem_free(u->reason);
        mem_free(u->message);
        mem_free(u);
    }
    map_free(&t->by_object);
    *t = (struct usage_table){0};
}
