/* SPDX-License-Identifier: Apache-2.0
 *
 * Threads that load compiled modules and start and configure VMs, so that neither a worker nor the control loop ever
 * runs a guest's start or configure. A job gives all the VMs it was asked for or none: a broken new version never
 * touches traffic.
 */
#ifndef WEIR_CONTROL_BUILDER_H
#define WEIR_CONTROL_BUILDER_H

#include "io/mailbox.h"
#include "proxy/snapshot.h"
#include "wasm/plugin.h"

struct build_job {
    /* given */
    struct mail mail; /* comes back to the control mailbox with the type it was given */
    struct engine *engine;
    char *code_path;    /* compiled code; taken. NULL: desc.module is set */
    struct plugin desc; /* strings taken; module: a reference taken, or NULL */
    struct plugin
        *plugin; /* one reference: build VMs of this one instead of making a new one (replacements); NULL otherwise */
    unsigned vm_count;
    unsigned first_worker; /* for replacements */
    uint64_t ticket;       /* the asker's */
    /* result */
    struct plugin_vm **vms; /* vm_count, not attached; NULL on failure */
    enum { BUILD_OK, BUILD_BAD_CODE, BUILD_START_FAILED, BUILD_CONFIGURE_FAILED } result;
    char *error;
};

struct builder;
/* identity: what guests may ask about the gateway while they are configured; outlives the builder. */
struct builder *builder_new(struct mailbox *control, const struct identity *identity, unsigned threads);
/* Takes job. */
void builder_post(struct builder *b, struct build_job *job);
/* A job with this ticket (not 0) that no thread has begun goes; one that runs comes back as ever. */
void builder_forget(struct builder *b, uint64_t ticket);
/* Waits for the jobs that run (bounded by the start deadlines); those that wait are dropped. */
void builder_free(struct builder *b);
/* Frees the job and what is left in it (VMs included). */
void build_job_free(struct build_job *job);

#endif
