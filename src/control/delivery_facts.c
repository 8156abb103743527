/* SPDX-License-Identifier: Apache-2.0
 *
 * What is told of a plugin's delivery: delivery.h says what each fact means. Times are of the wall clock, since they go
 * into conditions that people and other programs read; durations are the loop's.
 */
#include <stdio.h>
#include <time.h>

#include "control/delivery_priv.h"

void delivery_fact_text(char **slot, const char *text)
{
    char *copy = text != NULL ? mem_strdup(text) : NULL;
    mem_free(*slot);
    *slot = copy;
}

void delivery_fact(struct delivery *d, struct delivery_item *item, enum delivery_step step,
                   enum delivery_step_state state)
{
    struct delivery_step_fact *f = &item->facts.steps[step];
    uint64_t now = loop_now(d->o.loop);
    if (state == STEP_GOING) {
        f->began_ms = now;
        bool ended = f->state == STEP_DONE || f->state == STEP_FAILED || f->state == STEP_SKIPPED;
        if (ended && step != STEP_PROGRAM)
            return;
    } else if (f->began_ms != 0 && (state == STEP_DONE || state == STEP_FAILED)) {
        f->took_ms = now - f->began_ms;
        f->began_ms = 0;
    }
    if (f->state == state)
        return;
    f->state = state;
    f->since_s = (int64_t)time(NULL);
    delivery_tell(d);
}

void delivery_facts_reset(struct delivery_item *item)
{
    struct delivery_facts *f = &item->facts;
    int64_t now = (int64_t)time(NULL);
    for (size_t i = 0; i < STEP_COUNT; i++) {
        if (f->steps[i].state == STEP_WAITING)
            continue;
        f->steps[i] = (struct delivery_step_fact){.state = STEP_WAITING, .since_s = now};
    }
    delivery_fact_text(&f->from, NULL);
    delivery_fact_text(&f->progress, NULL);
    delivery_fact_text(&f->warning, NULL);
    f->module_sha256[0] = f->digest[0] = f->index_digest[0] = f->tier[0] = '\0';
    f->module_bytes = 0;
    f->verified = f->bytes_from_cache = f->code_from_cache = false;
    f->retry_at_s = 0;
    f->rechecks = 0;
    switch (item->resource->u.wasm_plugin.scheme) {
    case URL_FILE: f->source = SOURCE_FILE; break;
    case URL_HTTP:
    case URL_HTTPS: f->source = SOURCE_HTTP; break;
    case URL_OCI: f->source = SOURCE_OCI; break;
    }
}

void delivery_facts_free(struct delivery_item *item)
{
    delivery_fact_text(&item->facts.from, NULL);
    delivery_fact_text(&item->facts.progress, NULL);
    delivery_fact_text(&item->facts.warning, NULL);
}

void delivery_facts_as_live(struct delivery_item *item)
{
    struct delivery_facts *f = &item->facts;
    memcpy(f->tier, f->live_tier, sizeof f->tier);
    memcpy(f->digest, f->live_digest, sizeof f->digest);
    memcpy(f->module_sha256, item->live_module.sha256, sizeof f->module_sha256);
    f->module_bytes = item->live_module.n;
    f->verified = item->live_resource->u.wasm_plugin.verification_key != NULL;
    delivery_fact_text(&f->progress, NULL);
}

void delivery_facts_of_pull(struct delivery *d, struct delivery_item *item, const struct pull_result *r)
{
    struct delivery_facts *f = &item->facts;
    delivery_fact_text(&f->progress, NULL);
    delivery_fact_text(&f->warning, r->warning);
    if (r->from != NULL)
        delivery_fact_text(&f->from, r->from);
    if (r->error != NULL)
        return;
    snprintf(f->digest, sizeof f->digest, "%s", r->digest);
    snprintf(f->index_digest, sizeof f->index_digest, "%s", r->index_digest);
    memcpy(f->module_sha256, r->sha256, sizeof f->module_sha256);
    f->module_bytes = r->n;
    f->verified = r->verified;
    f->bytes_from_cache = r->from_cache;
    delivery_fact(d, item, STEP_FETCH, STEP_DONE);
    delivery_fact(d, item, STEP_VERIFY, r->verified ? STEP_DONE : STEP_SKIPPED);
}
