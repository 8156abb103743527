/* SPDX-License-Identifier: Apache-2.0
 *
 * Mailboxes: order for each sender, every message delivered or dropped exactly once, also around the close.
 */
#include "io/mailbox.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <string.h>

#include <cmocka.h>

enum { SENDERS = 4, EACH = 5000 };

struct note {
    struct mail mail;
    int sender, number;
};

static struct loop loop;
static struct mailbox *box;
static int delivered, last[SENDERS], close_after;
static atomic_int dropped;

static void drop(struct mail *mail)
{
    atomic_fetch_add(&dropped, 1);
    mem_free(mail);
}

static void deliver(void *arg, struct mail *mail)
{
    struct note *note = CONTAINER_OF(mail, struct note, mail);
    assert_ptr_equal(arg, &loop);
    assert_int_equal(mail->type, 7);
    assert_true(note->number > last[note->sender]);
    last[note->sender] = note->number;
    mem_free(note);
    delivered++;
    if (delivered == close_after)
        mailbox_close(box, drop);
}

static struct mail *new_note(int sender, int number)
{
    struct note *note = mem_zalloc(sizeof(*note));
    note->mail.type = 7;
    note->sender = sender;
    note->number = number;
    return &note->mail;
}

static int setup(void **state)
{
    (void)state;
    loop_init(&loop);
    box = mailbox_new(&loop, deliver, &loop);
    delivered = close_after = 0;
    atomic_store(&dropped, 0);
    memset(last, -1, sizeof(last));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    loop_fini(&loop);
    return 0;
}

static void *sender_main(void *arg)
{
    int me = *(int *)arg;
    for (int i = 0; i < EACH; i++)
        mailbox_post(box, new_note(me, i));
    mailbox_unref(box);
    return NULL;
}

static void start_senders(pthread_t threads[SENDERS], int ids[SENDERS])
{
    for (int i = 0; i < SENDERS; i++) {
        ids[i] = i;
        (void)mailbox_ref(box);
        assert_int_equal(pthread_create(&threads[i], NULL, sender_main, &ids[i]), 0);
    }
}

static void test_threads(void **state)
{
    (void)state;
    pthread_t threads[SENDERS];
    int ids[SENDERS];
    start_senders(threads, ids);
    while (delivered < SENDERS * EACH)
        uv_run(&loop.uv, UV_RUN_ONCE);
    for (int i = 0; i < SENDERS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    mailbox_close(box, NULL);
}

static void test_close_while_senders_post(void **state)
{
    (void)state;
    pthread_t threads[SENDERS];
    int ids[SENDERS];
    close_after = 1000;
    start_senders(threads, ids);
    while (delivered < close_after)
        uv_run(&loop.uv, UV_RUN_ONCE);
    for (int i = 0; i < 10; i++)
        uv_run(&loop.uv, UV_RUN_NOWAIT);
    for (int i = 0; i < SENDERS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(delivered, 1000);
    assert_int_equal(atomic_load(&dropped), SENDERS * EACH - 1000);
}

static void test_undelivered_are_dropped(void **state)
{
    (void)state;
    struct mailbox *kept = mailbox_ref(box);
    mailbox_post(box, new_note(0, 1));
    mailbox_close(box, drop);
    assert_int_equal(atomic_load(&dropped), 1);
    loop_fini(&loop); /* the loop goes first, the sender's pointer stays good */
    mailbox_post(kept, new_note(0, 2));
    assert_int_equal(atomic_load(&dropped), 2);
    mailbox_unref(kept);
    loop_init(&loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_threads, setup, teardown),
        cmocka_unit_test_setup_teardown(test_close_while_senders_post, setup, teardown),
        cmocka_unit_test_setup_teardown(test_undelivered_are_dropped, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
