/* SPDX-License-Identifier: Apache-2.0
 *
 * What is true of a plugin: how far its newest text has come, and what traffic meets until it is there. Easily got
 * wrong: to say Programmed of a plugin that is loaded everywhere and runs nowhere.
 */
#include <stdio.h>

#include "control/conditions_priv.h"

/* The steps of delivery that are conditions of their own. */
static const struct {
    enum delivery_step step;
    const char *type;
} parts[] = {
    {STEP_FETCH, "Fetched"}, {STEP_VERIFY, "Verified"}, {STEP_COMPILE, "Compiled"}, {STEP_CONFIGURE, "Configured"}};

static enum delivery_step step_of_reason(const char *reason)
{
    static const struct {
        const char *reason;
        enum delivery_step step;
    } table[] = {
        {"BadModule", STEP_VERIFY},      {"SignatureMissing", STEP_VERIFY},   {"SignatureInvalid", STEP_VERIFY},
        {"CacheFailed", STEP_COMPILE},   {"CompileFailed", STEP_COMPILE},     {"LinkFailed", STEP_CONFIGURE},
        {"StartFailed", STEP_CONFIGURE}, {"ConfigureFailed", STEP_CONFIGURE},
    };
    for (size_t i = 0; i < ARRAY_LEN(table); i++)
        if (strcmp(table[i].reason, reason) == 0)
            return table[i].step;
    return STEP_FETCH;
}

/* What failed last is what is said while it is tried again: each try would be two changes to tell else. */
static bool is_failing(const struct delivery_item *item)
{
    return item->stage == DELIVERY_FAILED || (item->stage < DELIVERY_ADOPT && item->reason != NULL);
}

static enum delivery_step step_that_failed(const struct delivery_item *item)
{
    for (enum delivery_step i = STEP_ACCEPT; i < STEP_PROGRAM; i++)
        if (item->facts.steps[i].state == STEP_FAILED)
            return i;
    return step_of_reason(item->reason != NULL ? item->reason : "");
}

static const struct delivery_item *item_of(const struct condition_subject *s)
{
    return s->c->delivery != NULL ? delivery_find(s->c->delivery, s->o->kind, s->o->ns, s->o->name) : NULL;
}

static const struct wasm_plugin *plugin_of(const struct condition_subject *s) { return &s->o->good->u.wasm_plugin; }

/* A failure that repeats must read the same each time, or each try would be a change to tell: curl says how long it
 * waited. */
static void add_steady(struct strbuf *out, const char *message)
{
    struct str rest = str_of(message);
    for (ptrdiff_t at; (at = str_find_str(rest, STR(" after "))) >= 0;) {
        size_t end = (size_t)at + 7, digits = end;
        while (end < rest.n && rest.p[end] >= '0' && rest.p[end] <= '9')
            end++;
        bool time = end > digits && str_starts(str_from(rest, end), STR(" ms"));
        strbuf_add(out, str_upto(rest, time ? (size_t)at : digits));
        rest = str_from(rest, time ? end + 3 : digits);
    }
    strbuf_add(out, rest);
}

/* ---- Accepted ---- */

/* The Gateways it is in a chain of: "default/web, default/api". */
static void gateways_text(const struct condition_subject *s, struct strbuf *out)
{
    for (size_t i = 0; s->usage != NULL && i < s->usage->part_count; i++)
        if (s->usage->parts[i].aspect == USAGE_GATEWAY)
            strbuf_printf(out, "%s%s", out->n > 0 ? ", " : "", s->usage->parts[i].name);
}

/* A listener's limits that it shares with this plugin; 0 when it runs nowhere or one has none. */
static uint64_t smallest_limit(const struct condition_subject *s, size_t offset)
{
    char *title = mem_printf("%s/%s", s->o->ns, s->o->name);
    uint64_t smallest = UINT64_MAX;
    const struct snapshot *snapshot = s->c->snapshot;
    for (size_t i = 0; snapshot != NULL && i < snapshot->listener_count; i++) {
        const struct listener_conf *l = &snapshot->listeners[i];
        for (size_t k = 0; k < l->chain_count; k++) {
            uint64_t value = *(const uint64_t *)(const void *)((const char *)&l->limits + offset);
            if (strcmp(l->chain[k].title, title) == 0 && value != 0 && value < smallest)
                smallest = value;
        }
    }
    mem_free(title);
    return smallest != UINT64_MAX ? smallest : 0;
}

static void warn_deadlines(const struct condition_subject *s, struct strbuf *out)
{
    const struct wasm_plugin *p = plugin_of(s);
    uint64_t response = smallest_limit(s, offsetof(struct limits, response_timeout));
    uint64_t idle = smallest_limit(s, offsetof(struct limits, stream_idle_timeout));
    if (p->cpu_deadline_ms > 0 && response > 0 && (uint64_t)p->cpu_deadline_ms >= response)
        strbuf_printf(out,
                      "%splugin.weir/cpu-deadline of %lld ms is hardly ever reached: the Gateway's response-timeout is "
                      "%llu ms",
                      out->n > 0 ? "; " : "", (long long)p->cpu_deadline_ms, (unsigned long long)response);
    if (p->pause_limit_ms > 0 && idle > 0 && (uint64_t)p->pause_limit_ms >= idle)
        strbuf_printf(out,
                      "%splugin.weir/pause-limit of %lld ms is never reached: the Gateway's stream-idle-timeout is "
                      "%llu ms",
                      out->n > 0 ? "; " : "", (long long)p->pause_limit_ms, (unsigned long long)idle);
}

static void warnings_text(const struct condition_subject *s, struct strbuf *out)
{
    for (size_t i = 0; i < s->o->diag.count && out->n < 2048; i++) {
        if (s->o->diag.entries[i].level != DIAG_WARNING)
            continue;
        char *text = diag_format(&s->o->diag.entries[i]);
        strbuf_printf(out, "%s%s", out->n > 0 ? "; " : "", text);
        mem_free(text);
    }
    const struct delivery_item *item = item_of(s);
    if (item != NULL && item->facts.warning != NULL)
        strbuf_printf(out, "%s%s", out->n > 0 ? "; " : "", item->facts.warning);
    warn_deadlines(s, out);
}

static bool accepted(const struct condition_subject *s, struct condition_list *out)
{
    struct strbuf where = {0}, warnings = {0};
    gateways_text(s, &where);
    warnings_text(s, &warnings);
    bool runs = s->usage != NULL && s->usage->accepted && plugin_of(s)->type == PLUGIN_HTTP;
    const struct delivery_item *item = item_of(s);
    if (item != NULL && is_failing(item) && step_that_failed(item) == STEP_ACCEPT)
        condition_add(out, "", "Accepted", CONDITION_FALSE, item->reason != NULL ? item->reason : "Refused", "%s",
                      item->message != NULL ? item->message : "");
    else if (plugin_of(s)->type != PLUGIN_HTTP)
        condition_add(out, "", "Accepted", CONDITION_FALSE, "NotSupported", "type NETWORK is not supported yet");
    else if (s->usage == NULL)
        condition_add(out, "", "Accepted", CONDITION_UNKNOWN, "Pending", "not looked at yet");
    else if (!runs)
        condition_add(out, "", "Accepted", CONDITION_FALSE, s->usage->reason, "%s%s%.*s", s->usage->message,
                      warnings.n > 0 ? "; warning: " : "", STR_ARG(strbuf_str(&warnings)));
    else
        condition_add(out, "", "Accepted", CONDITION_TRUE, warnings.n > 0 ? "AcceptedWithWarnings" : "Accepted",
                      "runs on Gateway %.*s%s%.*s", STR_ARG(strbuf_str(&where)), warnings.n > 0 ? "; warning: " : "",
                      STR_ARG(strbuf_str(&warnings)));
    strbuf_free(&where);
    strbuf_free(&warnings);
    return runs;
}

/* ---- Fetched, Verified, Compiled, Configured ---- */

static void fetched(const struct condition_subject *s, const struct delivery_facts *f, struct condition_list *out)
{
    struct strbuf from = {0};
    if (f->from != NULL)
        url_write_public(f->from, &from);
    else
        url_write_public(plugin_of(s)->url, &from);
    condition_add(out, "", "Fetched", CONDITION_TRUE, f->bytes_from_cache ? "Cached" : "Fetched", "from %.*s%s%s%s",
                  STR_ARG(strbuf_str(&from)), f->digest[0] != '\0' ? ", " : "", f->digest,
                  f->bytes_from_cache ? ", kept in the cache" : "");
    strbuf_free(&from);
}

static void verified(const struct condition_subject *s, const struct delivery_facts *f, struct condition_list *out)
{
    const struct wasm_plugin *p = plugin_of(s);
    const char *sha = p->sha256 != NULL ? "; the digest is what spec.sha256 asks for" : "";
    if (f->verified)
        condition_add(out, "", "Verified", CONDITION_TRUE, "SignatureValid", "signed by spec.verificationKey%s", sha);
    else if (p->sha256 != NULL)
        condition_add(out, "", "Verified", CONDITION_TRUE, "DigestMatches", "a Proxy-Wasm module%s", sha);
    else
        condition_add(out, "", "Verified", CONDITION_TRUE, "ModuleValid",
                      "a Proxy-Wasm module; the text asks for no digest and no signature");
}

static void step_done(const struct condition_subject *s, const struct delivery_facts *f, enum delivery_step step,
                      struct condition_list *out)
{
    if (step == STEP_FETCH)
        fetched(s, f, out);
    else if (step == STEP_VERIFY)
        verified(s, f, out);
    else if (step == STEP_COMPILE)
        condition_add(out, "", "Compiled", CONDITION_TRUE, f->code_from_cache ? "Cached" : "Compiled",
                      "native code of this machine%s%s%s", f->tier[0] != '\0' ? ", " : "", f->tier,
                      f->tier[0] != '\0' ? " tier" : "");
    else
        condition_add(out, "", "Configured", CONDITION_TRUE, "Configured",
                      "a VM for each of %u workers has started and taken the configuration", s->c->worker_count);
}

static const char *reason_of(const struct delivery_item *item)
{
    return item->reason != NULL ? item->reason : "Failed";
}

static void steps(const struct condition_subject *s, const struct delivery_item *item, struct str message,
                  struct condition_list *out)
{
    static const char *const going[] = {[STEP_FETCH] = "Fetching",
                                        [STEP_VERIFY] = "Verifying",
                                        [STEP_COMPILE] = "Compiling",
                                        [STEP_CONFIGURE] = "Configuring"};
    bool failing = is_failing(item), over = item->stage == DELIVERY_ADOPT || item->stage == DELIVERY_PROGRAMMED;
    enum delivery_step failed = failing ? step_that_failed(item) : STEP_COUNT;
    const char *waits_for = failed == STEP_ACCEPT ? "Accepted" : NULL;
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        enum delivery_step_state state = item->facts.steps[parts[i].step].state;
        bool done = over || (failing ? parts[i].step < failed : state == STEP_DONE || state == STEP_SKIPPED);
        if (waits_for != NULL)
            condition_add(out, "", parts[i].type, CONDITION_UNKNOWN, "Pending", "comes after %s", waits_for);
        else if (done)
            step_done(s, &item->facts, parts[i].step, out);
        else if (parts[i].step == failed)
            condition_add(out, "", parts[i].type, CONDITION_FALSE, reason_of(item), "%.*s", STR_ARG(message));
        else
            condition_add(out, "", parts[i].type, CONDITION_UNKNOWN, going[parts[i].step], "under way");
        if (!done && waits_for == NULL)
            waits_for = parts[i].type;
    }
}

/* ---- Programmed ---- */

/* What traffic meets while the newest text is not in use. */
static void meanwhile(const struct condition_subject *s, const struct delivery_item *item, struct strbuf *out)
{
    if (item->live != NULL)
        strbuf_printf(out, "generation %llu, the last good one, keeps serving",
                      (unsigned long long)item->live->generation);
    else if (plugin_of(s)->fail == PLUGIN_FAIL_OPEN)
        strbuf_addz(out, "requests pass without it (FAIL_OPEN)");
    else
        strbuf_printf(out, "requests are answered %s (FAIL_CLOSE)",
                      item->absence == PLUGIN_PENDING || item->absence == PLUGIN_FETCH_FAILED ? "403" : "503");
}

static int quarantined(const struct condition_subject *s, const struct delivery_item *item)
{
    for (unsigned i = 0; i < s->c->worker_count; i++)
        if (item->workers[i].state != NULL && strcmp(item->workers[i].state, "quarantined") == 0)
            return (int)i;
    return -1;
}

static void programmed(const struct condition_subject *s, const struct delivery_item *item, struct str message,
                       bool runs, struct condition_list *out)
{
    struct strbuf then = {0};
    meanwhile(s, item, &then);
    int worker = quarantined(s, item);
    if (is_failing(item))
        condition_add(out, "", "Programmed", CONDITION_FALSE, reason_of(item), "%.*s; %.*s", STR_ARG(message),
                      STR_ARG(strbuf_str(&then)));
    else if (item->stage < DELIVERY_ADOPT)
        condition_add(out, "", "Programmed", CONDITION_FALSE, delivery_stage_name(item->stage), "%.*s",
                      STR_ARG(strbuf_str(&then)));
    else if (!runs)
        condition_add(out, "", "Programmed", CONDITION_FALSE, s->usage != NULL ? s->usage->reason : "Pending",
                      "it is loaded, but no traffic goes through it");
    else if (item->stage != DELIVERY_PROGRAMMED || !s->adopted)
        condition_add(out, "", "Programmed", CONDITION_FALSE, "Adopting", "not every worker has it yet");
    else if (worker >= 0)
        condition_add(out, "", "Programmed", CONDITION_FALSE, "Quarantined", "failed too often on worker %d: %s",
                      worker, item->workers[worker].reason != NULL ? item->workers[worker].reason : "unknown");
    else
        condition_add(out, "", "Programmed", CONDITION_TRUE, "Programmed",
                      "generation %llu serves on %u workers, %llu ms after the change",
                      (unsigned long long)item->live->generation, s->c->worker_count,
                      (unsigned long long)item->took_ms);
    strbuf_free(&then);
}

/* The newest text is bad: nothing of it was begun. */
static void not_in_use(const struct condition_subject *s, const char *errors, struct condition_list *out)
{
    const struct delivery_item *item = s->o->good != NULL ? item_of(s) : NULL;
    condition_add(out, "", "Accepted", CONDITION_FALSE, "Invalid", "%s", errors);
    for (size_t i = 0; i < ARRAY_LEN(parts); i++)
        condition_add(out, "", parts[i].type, CONDITION_UNKNOWN, "Invalid", "the newest text is not in use");
    condition_add(out, "", "Programmed", CONDITION_FALSE, "Invalid", "the newest text is not in use; %s",
                  s->o->good == NULL                   ? "no good version of it is known"
                  : item != NULL && item->live != NULL ? "the last good version keeps serving"
                                                       : "the last good version is what is wanted");
}

void conditions_of_plugin(const struct condition_subject *s, struct condition_list *out)
{
    char *errors = condition_errors(s->o);
    const struct delivery_item *item = s->o->good != NULL ? item_of(s) : NULL;
    if (errors != NULL)
        not_in_use(s, errors, out);
    mem_free(errors);
    if (out->count > 0 || item == NULL)
        return;
    bool runs = accepted(s, out);
    struct strbuf message = {0};
    add_steady(&message, item->message != NULL ? item->message : "");
    steps(s, item, strbuf_str(&message), out);
    programmed(s, item, strbuf_str(&message), runs, out);
    strbuf_free(&message);
}

/* ---- which gateways ---- */

void conditions_write_gateways(const struct condition_subject *s, struct strbuf *out)
{
    bool first = true;
    strbuf_addz(out, ",\"gateways\":[");
    for (size_t i = 0; s->usage != NULL && i < s->usage->part_count; i++) {
        if (s->usage->parts[i].aspect != USAGE_GATEWAY)
            continue;
        struct str name = str_of(s->usage->parts[i].name), ns = str_split(&name, '/');
        strbuf_addz(out, first ? "{\"namespace\":" : ",{\"namespace\":");
        strbuf_add_json(out, ns);
        strbuf_addz(out, ",\"name\":");
        strbuf_add_json(out, name);
        strbuf_addc(out, '}');
        first = false;
    }
    strbuf_addc(out, ']');
}
