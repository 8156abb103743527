/* SPDX-License-Identifier: Apache-2.0
 *
 * A mutex, a list and an uv_async. Messages are rare (snapshots, endpoints, VMs), so the lock is uncontended and the
 * simplest thing is right. What makes it hard is the end: senders on other threads may post while the loop's thread
 * closes the box, so everything that decides is read under the lock, and the memory goes with the last reference (the
 * maker's, each sender's, and the async handle's own until libuv let it go).
 */
#include "io/mailbox.h"

#include <pthread.h>
#include <stdatomic.h>

struct mailbox {
    uv_async_t async;
    pthread_mutex_t lock;
    struct mail *first, **last; /* under lock */
    bool closed;                /* under lock; written by the loop's thread only */
    void (*drop)(struct mail *mail);
    void (*deliver)(void *arg, struct mail *mail);
    void *arg;
    atomic_uint refs;
};

static void drop_mail(struct mailbox *box, struct mail *mail)
{
    if (box->drop != NULL)
        box->drop(mail);
    else
        mem_free(mail);
}

static struct mail *take_all(struct mailbox *box)
{
    pthread_mutex_lock(&box->lock);
    struct mail *mail = box->first;
    box->first = NULL;
    box->last = &box->first;
    pthread_mutex_unlock(&box->lock);
    return mail;
}

static void on_async(uv_async_t *async)
{
    struct mailbox *box = CONTAINER_OF(async, struct mailbox, async);
    struct mail *mail = take_all(box);
    while (mail != NULL) {
        struct mail *next = mail->next;
        mail->next = NULL;
        if (box->closed) /* by deliver */
            drop_mail(box, mail);
        else
            box->deliver(box->arg, mail);
        mail = next;
    }
}

struct mailbox *mailbox_new(struct loop *loop, void (*deliver)(void *arg, struct mail *mail), void *arg)
{
    struct mailbox *box = mem_zalloc(sizeof(*box));
    ASSERT(uv_async_init(&loop->uv, &box->async, on_async) == 0);
    ASSERT(pthread_mutex_init(&box->lock, NULL) == 0);
    box->last = &box->first;
    box->deliver = deliver;
    box->arg = arg;
    atomic_init(&box->refs, 2); /* the maker's and the handle's */
    return box;
}

void mailbox_post(struct mailbox *box, struct mail *mail)
{
    mail->next = NULL;
    pthread_mutex_lock(&box->lock);
    bool closed = box->closed;
    if (!closed) {
        *box->last = mail;
        box->last = &mail->next;
        uv_async_send(&box->async); /* inside: after the close the handle may be gone */
    }
    pthread_mutex_unlock(&box->lock);
    if (closed)
        drop_mail(box, mail);
}

static void on_closed(uv_handle_t *handle) { mailbox_unref(CONTAINER_OF(handle, struct mailbox, async)); }

void mailbox_close(struct mailbox *box, void (*drop)(struct mail *mail))
{
    ASSERT(!box->closed);
    pthread_mutex_lock(&box->lock);
    box->drop = drop;
    box->closed = true;
    pthread_mutex_unlock(&box->lock);
    for (struct mail *mail = take_all(box), *next; mail != NULL; mail = next) {
        next = mail->next;
        drop_mail(box, mail);
    }
    uv_close((uv_handle_t *)&box->async, on_closed);
    mailbox_unref(box);
}

struct mailbox *mailbox_ref(struct mailbox *box)
{
    atomic_fetch_add_explicit(&box->refs, 1, memory_order_relaxed);
    return box;
}

void mailbox_unref(struct mailbox *box)
{
    if (atomic_fetch_sub_explicit(&box->refs, 1, memory_order_acq_rel) != 1)
        return;
    pthread_mutex_destroy(&box->lock);
    mem_free(box);
}
