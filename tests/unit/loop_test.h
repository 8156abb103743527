/* SPDX-License-Identifier: Apache-2.0
 *
 * What tests of code on a loop share: a directory of their own, files written the ways people write them, a loop run
 * until something is so, and what the log said.
 */
#ifndef WEIR_TESTS_LOOP_TEST_H
#define WEIR_TESTS_LOOP_TEST_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "io/loop.h"

/* ---- a directory ---- */

static char test_dir[64];

__attribute__((unused)) static void dir_make(void)
{
    snprintf(test_dir, sizeof test_dir, "/tmp/weir-test-XXXXXX");
    assert_non_null(mkdtemp(test_dir));
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *walk)
{
    (void)st;
    (void)type;
    (void)walk;
    chmod(path, 0700);
    return remove(path);
}
__attribute__((unused)) static void dir_remove(void)
{
    assert_int_equal(nftw(test_dir, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

/* Path of a name in it; good until eight more were asked for. */
__attribute__((unused)) static const char *at(const char *name)
{
    static char paths[8][256];
    static unsigned next;
    char *p = paths[next++ % 8];
    int n = snprintf(p, sizeof paths[0], "%s/%s", test_dir, name);
    assert_true(n > 0 && (size_t)n < sizeof paths[0]);
    return p;
}

/* In place, as `cat > file` does. */
__attribute__((unused)) static void file_write(const char *path, const void *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}
/* Aside, then renamed, as editors do. */
__attribute__((unused)) static void file_put(const char *name, const char *text)
{
    file_write(at("aside.tmp"), text, strlen(text));
    assert_int_equal(rename(at("aside.tmp"), at(name)), 0);
}

/* ---- a loop ---- */

struct until {
    struct loop *loop;
    bool (*done)(void *arg);
    void *arg;
    uv_check_t check;
    uv_timer_t give_up, beat;
    bool over;
};
static void until_look(struct until *u)
{
    if (!u->over && u->done(u->arg)) {
        u->over = true;
        loop_stop(u->loop);
    }
}
static void until_check(uv_check_t *h) { until_look(h->data); }
static void until_beat(uv_timer_t *h) { until_look(h->data); }
static void until_give_up(uv_timer_t *h) { loop_stop(((struct until *)h->data)->loop); }
static void until_closed(uv_handle_t *h) { (void)h; }

/* Runs the loop until done says so; fails after a time that no machine needs. */
__attribute__((unused)) static void run_until(struct loop *loop, bool (*done)(void *arg), void *arg)
{
    static struct until u;
    u = (struct until){.loop = loop, .done = done, .arg = arg};
    uv_check_init(&loop->uv, &u.check);
    uv_timer_init(&loop->uv, &u.give_up);
    uv_timer_init(&loop->uv, &u.beat);
    u.check.data = u.give_up.data = u.beat.data = &u;
    uv_check_start(&u.check, until_check);
    uv_timer_start(&u.give_up, until_give_up, 60000, 0);
    uv_timer_start(&u.beat, until_beat, 1, 5);
    loop_run(loop);
    uv_close((uv_handle_t *)&u.check, until_closed);
    uv_close((uv_handle_t *)&u.give_up, until_closed);
    uv_close((uv_handle_t *)&u.beat, until_closed);
    for (int i = 0; i < 3; i++)
        uv_run(&loop->uv, UV_RUN_NOWAIT);
    if (!u.over)
        fail_msg("it did not happen");
}

/* How often the log holds this text by now. Lines pass through the log's own thread, so a mark is sent behind them. */
__attribute__((unused)) static unsigned logged(const char *fmt, ...) PRINTF_LIKE(1, 2);
static unsigned logged(const char *fmt, ...)
{
    static unsigned marks;
    char text[512], mark[64];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    snprintf(mark, sizeof mark, "the log up to mark %u.", ++marks);
    log_line(LOG_ERROR, "%s", mark);
    unsigned n = 0;
    for (bool complete = false; !complete;) {
        struct strbuf b = {0};
        log_tail(&b, 4 * 1024 * 1024);
        strbuf_addc(&b, '\0');
        complete = strstr(b.p, mark) != NULL;
        n = 0;
        for (const char *p = strstr(b.p, text); p != NULL; p = strstr(p + 1, text))
            n++;
        strbuf_free(&b);
    }
    return n;
}

#endif
