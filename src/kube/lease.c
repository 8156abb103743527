/* SPDX-License-Identifier: Apache-2.0
 *
 * See lease.h. Every few seconds: read the record; it is ours, nobody's, or run out: write it with the resourceVersion
 * that was read, so that of two who try one gets 409. What must never happen: believing to hold a lease that could not
 * be renewed in time.
 */
#include "kube/lease.h"

#include <sys/random.h>
#include <time.h>

#include "base/log.h"
#include "kube/json_scan.h"

enum { DURATION_S = 15, EVERY_MS = 4000, GIVE_UP_MS = 10000 };

struct kube_lease {
    struct kube_lease_options o;
    char *ns, *name, *identity, *path, *collection;
    struct kube_call *call;
    struct loop_timer next;
    char *seen; /* the record's resourceVersion as last seen */
    uint64_t seen_ms, renewed_ms;
    char *holder, *problem;
    bool held;
};

void kube_micro_time(struct strbuf *out, int64_t seconds, unsigned micros)
{
    time_t t = (time_t)seconds;
    struct tm tm;
    char text[32];
    gmtime_r(&t, &tm);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm);
    strbuf_printf(out, "%s.%06uZ", text, micros % 1000000);
}

static char *now_text(void)
{
    struct timespec t;
    struct strbuf out = {0};
    clock_gettime(CLOCK_REALTIME, &t);
    kube_micro_time(&out, t.tv_sec, (unsigned)(t.tv_nsec / 1000));
    return strbuf_take(&out);
}

static void later(struct kube_lease *l)
{
    uint32_t random = 0;
    if (getrandom(&random, sizeof random, 0) != sizeof random)
        random = 0;
    loop_timer_start(&l->next, EVERY_MS - EVERY_MS / 8 + random % (EVERY_MS / 4));
}

static void set_held(struct kube_lease *l, bool held)
{
    if (l->held == held)
        return;
    l->held = held;
    log_line(LOG_INFO, "kubernetes: %s writes status now", held ? "this gateway" : "another gateway, or none,");
    l->o.changed(l->o.arg, held);
}

static void set_problem(struct kube_lease *l, const char *problem)
{
    if (problem != NULL && (l->problem == NULL || strcmp(l->problem, problem) != 0))
        log_line(LOG_WARN, "kubernetes: lease %s/%s: %s", l->ns, l->name, problem);
    char *copy = problem != NULL ? mem_strdup(problem) : NULL;
    mem_free(l->problem);
    l->problem = copy;
}

static void set_holder(struct kube_lease *l, const char *holder)
{
    char *copy = mem_strdup(holder != NULL ? holder : "");
    mem_free(l->holder);
    l->holder = copy;
}

static void call_failed(struct kube_lease *l, const char *problem)
{
    set_problem(l, problem);
    if (l->held && loop_now(l->o.loop) - l->renewed_ms > GIVE_UP_MS)
        set_held(l, false);
    later(l);
}

/* ---- writing ---- */

static void on_written(void *arg, struct kube_result *r)
{
    struct kube_lease *l = arg;
    l->call = NULL;
    if (r->error == NULL) {
        char *version = json_scan_string(json_get(json_get(r->body, "metadata"), "resourceVersion"));
        mem_free(l->seen);
        l->seen = version;
        l->seen_ms = l->renewed_ms = loop_now(l->o.loop);
        set_holder(l, l->identity);
        set_problem(l, NULL);
        set_held(l, true);
        later(l);
    } else if (r->status == 409) { /* another was first */
        set_held(l, false);
        later(l);
    } else {
        call_failed(l, r->error);
    }
}

static void add_text(struct strbuf *b, const char *name, const char *value)
{
    strbuf_printf(b, "\"%s\":", name);
    strbuf_add_json(b, str_of(value));
}

/* version NULL: it is made; acquired NULL: now. */
static void write_record(struct kube_lease *l, const char *version, uint64_t transitions, const char *acquired)
{
    struct strbuf b = {0};
    char *now = now_text();
    strbuf_addz(&b, "{\"apiVersion\":\"coordination.k8s.io/v1\",\"kind\":\"Lease\",\"metadata\":{");
    add_text(&b, "name", l->name);
    strbuf_addc(&b, ',');
    add_text(&b, "namespace", l->ns);
    if (version != NULL) {
        strbuf_addc(&b, ',');
        add_text(&b, "resourceVersion", version);
    }
    strbuf_printf(&b, "},\"spec\":{\"leaseDurationSeconds\":%d,\"leaseTransitions\":%llu,", DURATION_S,
                  (unsigned long long)transitions);
    add_text(&b, "holderIdentity", l->identity);
    strbuf_addc(&b, ',');
    add_text(&b, "acquireTime", acquired != NULL ? acquired : now);
    strbuf_addc(&b, ',');
    add_text(&b, "renewTime", now);
    strbuf_addz(&b, "}}");
    mem_free(now);
    struct kube_request r = {.method = version != NULL ? "PUT" : "POST",
                             .path = version != NULL ? l->path : l->collection,
                             .content_type = "application/json",
                             .body = strbuf_str(&b),
                             .total_ms = GIVE_UP_MS / 2,
                             .done = on_written,
                             .arg = l};
    l->call = kube_call(l->o.client, &r);
    strbuf_free(&b);
}

/* ---- reading ---- */

static uint64_t number_of(struct str object, const char *key, uint64_t otherwise)
{
    uint64_t n = 0;
    return str_to_u64(json_get(object, key), UINT32_MAX, &n) ? n : otherwise;
}

/* When this process last saw it change, plus its time. */
static bool has_run_out(const struct kube_lease *l, struct str spec)
{
    uint64_t seconds = number_of(spec, "leaseDurationSeconds", DURATION_S);
    return loop_now(l->o.loop) - l->seen_ms > (seconds < 3600 ? seconds : 3600) * 1000;
}

static void on_record(struct kube_lease *l, struct str body)
{
    struct str spec = json_get(body, "spec");
    char *version = json_scan_string(json_get(json_get(body, "metadata"), "resourceVersion"));
    char *holder = json_scan_string(json_get(spec, "holderIdentity")),
         *acquired = json_scan_string(json_get(spec, "acquireTime"));
    if (version != NULL && (l->seen == NULL || strcmp(l->seen, version) != 0)) {
        mem_free(l->seen);
        l->seen = mem_strdup(version);
        l->seen_ms = loop_now(l->o.loop);
    }
    bool ours = holder != NULL && strcmp(holder, l->identity) == 0;
    bool free_now = holder == NULL || holder[0] == '\0' || has_run_out(l, spec);
    uint64_t transitions = number_of(spec, "leaseTransitions", 0);
    set_problem(l, NULL);
    set_holder(l, holder);
    if (version == NULL) {
        call_failed(l, "the answer is no Lease");
    } else if (ours || free_now) {
        write_record(l, version, ours ? transitions : transitions + 1, ours ? acquired : NULL);
    } else {
        set_held(l, false);
        later(l);
    }
    mem_free(version);
    mem_free(holder);
    mem_free(acquired);
}

static void on_read(void *arg, struct kube_result *r)
{
    struct kube_lease *l = arg;
    l->call = NULL;
    if (r->error == NULL)
        on_record(l, r->body);
    else if (r->status == 404)
        write_record(l, NULL, 0, NULL);
    else
        call_failed(l, r->error);
}

static void on_next(struct loop_timer *timer)
{
    struct kube_lease *l = CONTAINER_OF(timer, struct kube_lease, next);
    struct kube_request r = {.path = l->path, .total_ms = GIVE_UP_MS / 2, .done = on_read, .arg = l};
    l->call = kube_call(l->o.client, &r);
}

/* ---- life ---- */

struct kube_lease *kube_lease_new(const struct kube_lease_options *o)
{
    struct kube_lease *l = mem_zalloc(sizeof *l);
    l->o = *o;
    l->ns = mem_strdup(o->ns);
    l->name = mem_strdup(o->name);
    l->identity = mem_strdup(o->identity);
    l->collection = mem_printf("/apis/coordination.k8s.io/v1/namespaces/%s/leases", o->ns);
    l->path = mem_printf("%s/%s", l->collection, o->name);
    l->holder = mem_strdup("");
    loop_timer_init(&l->next, o->loop, on_next);
    loop_timer_start(&l->next, 1);
    return l;
}

static void lease_closed(struct loop_timer *timer) { mem_free(CONTAINER_OF(timer, struct kube_lease, next)); }

void kube_lease_free(struct kube_lease *l)
{
    if (l->call != NULL)
        kube_call_cancel(l->call);
    char *const texts[] = {l->ns, l->name, l->identity, l->collection, l->path, l->seen, l->holder, l->problem};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        mem_free(texts[i]);
    loop_timer_close(&l->next, lease_closed);
}

bool kube_lease_is_held(const struct kube_lease *l) { return l->held; }
const char *kube_lease_holder(const struct kube_lease *l) { return l->holder; }
const char *kube_lease_problem(const struct kube_lease *l) { return l->problem; }
