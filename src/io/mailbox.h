/* SPDX-License-Identifier: Apache-2.0
 *
 * Typed messages into a loop from any thread: the only way threads talk. First in, first out for each sender.
 * A message is allocated by the sender with its payload behind this header and freed by the receiver.
 */
#ifndef WEIR_IO_MAILBOX_H
#define WEIR_IO_MAILBOX_H

#include "io/loop.h"

struct mail {
    struct mail *next;
    int type;
};

struct mailbox;
/* deliver runs on the loop's thread, once for each message, and takes it. */
struct mailbox *mailbox_new(struct loop *loop, void (*deliver)(void *arg, struct mail *mail), void *arg);
/* Takes mail. Any thread. After mailbox_close messages are dropped through `drop`. */
void mailbox_post(struct mailbox *box, struct mail *mail);
/* Loop thread. Undelivered and later messages go to drop (may be NULL: mem_free). Senders may keep their
 * pointer until they call mailbox_unref; the maker's reference is given up here. */
void mailbox_close(struct mailbox *box, void (*drop)(struct mail *mail));
struct mailbox *mailbox_ref(struct mailbox *box);
void mailbox_unref(struct mailbox *box);

#endif
