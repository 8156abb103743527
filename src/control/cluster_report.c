/* SPDX-License-Identifier: Apache-2.0
 *
 * What is said of a cluster's watches: in the log when something changes, in metrics, on /ready and in /config.
 */
#include "base/log.h"
#include "control/source_cluster_priv.h"

static void say(struct cluster_watch *w)
{
    struct kube_watch_state state = kube_watch_state(w->watch);
    if (state.phase == w->said)
        return;
    const char *in = w->ns != NULL ? w->ns : "all namespaces";
    if (state.phase == KUBE_WATCH_LIVE && w->said != KUBE_WATCH_STARTING)
        log_line(LOG_INFO, "kubernetes: %s (%s): up to date again", w->kind->kube.plural, in);
    else if (state.phase == KUBE_WATCH_ABSENT)
        log_line(LOG_INFO, "kubernetes: %s is not installed; looking again now and then", w->kind->kube.plural);
    else if (state.phase == KUBE_WATCH_STALE || state.phase == KUBE_WATCH_REFUSED)
        log_line(LOG_WARN, "kubernetes: %s (%s): %s: %s", w->kind->kube.plural, in, kube_phase_name(state.phase),
                 state.problem != NULL ? state.problem : "");
    w->said = state.phase;
}

void cluster_report(struct source_cluster *s)
{
    int64_t stale = 0;
    for (size_t i = 0; i < s->count; i++) {
        enum kube_watch_phase phase = kube_watch_state(s->watches[i]->watch).phase;
        say(s->watches[i]);
        stale += phase != KUBE_WATCH_LIVE && phase != KUBE_WATCH_ABSENT;
    }
    MAP_EACH (e, &s->named) {
        struct cluster_watch *w = e->value;
        say(w);
        stale += kube_watch_state(w->watch).phase != KUBE_WATCH_LIVE;
    }
    metrics_gauge_set(s->stale, stale);
    metrics_gauge_set(s->objects, (int64_t)s->keys.count);
}

static void write_line(const struct source_cluster *s, const struct cluster_watch *w, struct strbuf *out)
{
    struct kube_watch_state state = kube_watch_state(w->watch);
    if (state.phase == KUBE_WATCH_LIVE || state.phase == KUBE_WATCH_ABSENT)
        return;
    strbuf_printf(out, "kubernetes: %s", w->kind->kube.plural);
    if (w->ns != NULL)
        strbuf_printf(out, " in %s", w->ns);
    if (w->field != NULL)
        strbuf_printf(out, " (%s)", w->field);
    strbuf_printf(out, ": %s for %llu s%s%s\n", kube_phase_name(state.phase),
                  (unsigned long long)((loop_now(s->o.loop) - state.since_ms) / 1000),
                  state.problem != NULL ? ": " : "", state.problem != NULL ? state.problem : "");
}

bool source_cluster_is_ready(const struct source_cluster *s, struct strbuf *out)
{
    if (out == NULL)
        return s->stage == STAGE_FLOWING;
    for (size_t i = 0; i < s->count; i++)
        write_line(s, s->watches[i], out);
    MAP_EACH (e, &s->named)
        write_line(s, e->value, out);
    if (s->full)
        strbuf_printf(out, "kubernetes: more than %d Secrets and ConfigMaps are named: the rest is not read\n",
                      CLUSTER_NAMED_MAX);
    if (kube_lease_problem(s->lease) != NULL)
        strbuf_printf(out, "kubernetes: status is not written: %s\n", kube_lease_problem(s->lease));
    if (kube_lease_is_held(s->lease) && kube_writer_problem(s->writer) != NULL)
        strbuf_printf(out, "kubernetes: status: %s\n", kube_writer_problem(s->writer));
    if (kube_client_problem(s->client) != NULL)
        strbuf_printf(out, "kubernetes: credentials: %s\n", kube_client_problem(s->client));
    if (s->stage != STAGE_FLOWING)
        strbuf_printf(out, "kubernetes: %s has not been read yet\n", kube_client_where(s->client));
    return s->stage == STAGE_FLOWING;
}

static void write_watch(const struct source_cluster *s, const struct cluster_watch *w, struct strbuf *out)
{
    struct kube_watch_state state = kube_watch_state(w->watch);
    strbuf_addz(out, "{\"kind\":");
    strbuf_add_json(out, str_of(w->kind->kube.kind));
    strbuf_addz(out, ",\"namespace\":");
    strbuf_add_json(out, str_of(w->ns != NULL ? w->ns : ""));
    if (w->field != NULL) {
        strbuf_addz(out, ",\"fieldSelector\":");
        strbuf_add_json(out, str_of(w->field));
    }
    strbuf_addz(out, ",\"state\":");
    strbuf_add_json(out, str_of(kube_phase_name(state.phase)));
    strbuf_printf(out, ",\"seconds\":%llu,\"objects\":%zu,\"skipped\":%llu,\"lists\":%llu,\"problem\":",
                  (unsigned long long)((loop_now(s->o.loop) - state.since_ms) / 1000), state.objects,
                  (unsigned long long)state.skipped, (unsigned long long)state.lists);
    if (state.problem != NULL)
        strbuf_add_json(out, str_of(state.problem));
    else
        strbuf_addz(out, "null");
    strbuf_addc(out, '}');
}

void source_cluster_write_json(const struct source_cluster *s, struct strbuf *out)
{
    strbuf_addz(out, "{\"server\":");
    strbuf_add_json(out, str_of(kube_client_where(s->client)));
    strbuf_printf(out, ",\"restored\":%s,\"writesStatus\":%s,\"statusWriter\":", s->restored ? "true" : "false",
                  kube_lease_is_held(s->lease) ? "true" : "false");
    strbuf_add_json(out, str_of(kube_lease_holder(s->lease)));
    strbuf_printf(out, ",\"statusWaiting\":%zu,\"watches\":[", kube_writer_waiting(s->writer));
    for (size_t i = 0; i < s->count; i++) {
        if (i > 0)
            strbuf_addc(out, ',');
        write_watch(s, s->watches[i], out);
    }
    MAP_EACH (e, &s->named) {
        strbuf_addc(out, ',');
        write_watch(s, e->value, out);
    }
    strbuf_addz(out, "]}");
}
