/* SPDX-License-Identifier: Apache-2.0
 *
 * The log, each test in a child process whose standard output and error are pipes: whole lines from many threads,
 * outputs that stall, close or do not block, and that nobody waits for them.
 */
#include "base/log.h"

#include <ctype.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

struct child {
    pid_t pid;
    int out, err; /* read ends */
    int go;       /* the child waits for a byte on its other end */
};

/* In the child: its end of `go`. */
static int wait_fd;

static void wait_for_parent(void)
{
    char c;
    if (read(wait_fd, &c, 1) != 1)
        _exit(99);
}

#define CHECK(cond)                                                                                                    \
    do {                                                                                                               \
        if (!(cond))                                                                                                   \
            _exit(__LINE__ & 0x7f ? __LINE__ & 0x7f : 1);                                                              \
    } while (0)

static struct child start(void (*body)(void))
{
    int out[2], err[2], go[2];
    assert_int_equal(pipe(out), 0);
    assert_int_equal(pipe(err), 0);
    assert_int_equal(pipe(go), 0);
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        dup2(out[1], STDOUT_FILENO);
        dup2(err[1], STDERR_FILENO);
        close(out[0]);
        close(out[1]);
        close(err[0]);
        close(err[1]);
        close(go[1]);
        wait_fd = go[0];
        body();
        _exit(0);
    }
    close(out[1]);
    close(err[1]);
    close(go[0]);
    return (struct child){pid, out[0], err[0], go[1]};
}

static void let_go(struct child *c) { assert_int_equal(write(c->go, "x", 1), 1); }

static struct strbuf read_all(int fd)
{
    struct strbuf b = {0};
    char part[4096];
    ssize_t n;
    while ((n = read(fd, part, sizeof(part))) > 0)
        strbuf_add(&b, str_span(part, (size_t)n));
    close(fd);
    return b;
}

static struct strbuf read_line(int fd)
{
    struct strbuf b = {0};
    char c = 0;
    while (c != '\n' && read(fd, &c, 1) == 1)
        strbuf_addc(&b, c);
    return b;
}

static void finish(struct child *c)
{
    int status = 0;
    close(c->go);
    assert_int_equal(waitpid(c->pid, &status, 0), c->pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* "2026-11-23T15:00:00.123Z info  text" */
static void assert_line(struct str line, const char *level, const char *text)
{
    static const char shape[] = "dddd-dd-ddTdd:dd:dd.dddZ ";
    assert_true(line.n > 31);
    for (size_t i = 0; i < sizeof(shape) - 1; i++)
        assert_true(shape[i] == 'd' ? isdigit((unsigned char)line.p[i]) != 0 : shape[i] == line.p[i]);
    assert_true(str_starts(str_from(line, 25), str_of(level)));
    assert_true(str_is(str_from(line, 31), text));
}

static void say_lines(void)
{
    log_line(LOG_INFO, "hello %d", 1);
    log_line(LOG_DEBUG, "not shown");
    log_line(LOG_WARN, "two\nlines\x1b[31m\t\x7f");
    log_line(LOG_ERROR, "%s", "");
    log_access(STR("GET / 200"));
}

static void direct_body(void) { say_lines(); }

static void started_body(void)
{
    log_start();
    say_lines();
    log_stop();
    log_stop();
}

static void restarted_body(void)
{
    log_start();
    log_stop();
    log_start();
    say_lines();
    log_stop();
}

static void test_lines(void **state)
{
    (void)state;
    void (*const bodies[])(void) = {direct_body, started_body, restarted_body};
    for (size_t i = 0; i < ARRAY_LEN(bodies); i++) {
        struct child c = start(bodies[i]);
        struct strbuf err = read_all(c.err), out = read_all(c.out);
        struct str rest = strbuf_str(&err);
        assert_line(str_split(&rest, '\n'), "info  ", "hello 1");
        assert_line(str_split(&rest, '\n'), "warn  ", "two\\x0alines\\x1b[31m\\x09\\x7f");
        assert_true(str_ends(str_split(&rest, '\n'), STR("error ")));
        assert_int_equal(rest.n, 0);
        assert_true(str_is(strbuf_str(&out), "GET / 200\n"));
        finish(&c);
        strbuf_free(&err);
        strbuf_free(&out);
    }
}

static void long_body(void)
{
    static char text[3 * LOG_LINE_MAX];
    memset(text, 'x', sizeof(text) - 1);
    log_start();
    log_line(LOG_INFO, "%s", text);
    log_access(str_span(text, sizeof(text) - 1));
    memset(text, '\x01', sizeof(text) - 1);
    log_line(LOG_INFO, "%s", text);
    log_stop();
}

static void test_long_lines_are_cut(void **state)
{
    (void)state;
    struct child c = start(long_body);
    struct strbuf err = read_all(c.err), out = read_all(c.out);
    struct str rest = strbuf_str(&err), line = str_split(&rest, '\n');
    assert_int_equal(line.n, LOG_LINE_MAX - 1);
    assert_true(str_ends(line, STR("xxx...")));
    line = str_split(&rest, '\n');
    assert_true(line.n < LOG_LINE_MAX && str_ends(line, STR("\\x01\\x01...")));
    assert_int_equal(out.n, LOG_LINE_MAX);
    assert_true(str_ends(strbuf_str(&out), STR("xxx...\n")));
    finish(&c);
    strbuf_free(&err);
    strbuf_free(&out);
}

static void level_body(void)
{
    enum log_level level;
    for (int i = LOG_TRACE; i <= LOG_OFF; i++)
        CHECK(log_level_parse(str_of(log_level_name((enum log_level)i)), &level) && (int)level == i);
    CHECK(!log_level_parse(STR("loud"), &level));
    log_set_level(LOG_OFF);
    CHECK(log_get_level() == LOG_OFF);
    log_line(LOG_CRITICAL, "not shown");
    log_set_level(LOG_TRACE);
    log_line(LOG_TRACE, "shown");
}

static void test_levels(void **state)
{
    (void)state;
    struct child c = start(level_body);
    struct strbuf err = read_all(c.err);
    assert_true(str_ends(strbuf_str(&err), STR("trace shown\n")));
    assert_int_equal(str_find(strbuf_str(&err), '\n'), err.n - 1);
    close(c.out);
    finish(&c);
    strbuf_free(&err);
}

/* ---- many threads ---- */

enum { THREADS = 8, LINES = 3000 };

static void *thread_body(void *arg)
{
    int me = *(int *)arg;
    for (int i = 0; i < LINES; i++) {
        log_line(i % 100 == 0 ? LOG_WARN : LOG_INFO, "thread %d line %d .", me, i);
        char text[64];
        log_access(str_span(text, (size_t)snprintf(text, sizeof(text), "thread %d line %d .", me, i)));
    }
    return NULL;
}

static void threads_body(void)
{
    pthread_t threads[THREADS];
    int ids[THREADS];
    log_start();
    for (int i = 0; i < THREADS; i++) {
        ids[i] = i;
        CHECK(pthread_create(&threads[i], NULL, thread_body, &ids[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    log_stop();
}

/* Each line whole, those of a thread in their order, none twice; returns how many. */
static int check_threads(int fd)
{
    struct strbuf all = read_all(fd);
    struct str rest = strbuf_str(&all);
    int last[THREADS], seen = 0;
    memset(last, -1, sizeof(last));
    while (rest.n != 0) {
        struct str line = str_split(&rest, '\n');
        ptrdiff_t at = str_find_str(line, STR("thread "));
        if (at < 0) {
            assert_true(str_find_str(line, STR("lines lost")) >= 0);
            continue;
        }
        char *z = str_dup(str_from(line, (size_t)at));
        int thread, number;
        char end;
        assert_int_equal(sscanf(z, "thread %d line %d %c", &thread, &number, &end), 3);
        assert_int_equal(end, '.');
        assert_true(thread >= 0 && thread < THREADS && number > last[thread]);
        last[thread] = number;
        seen++;
        mem_free(z);
    }
    strbuf_free(&all);
    return seen;
}

static void test_threads(void **state)
{
    (void)state;
    struct child c = start(threads_body);
    int out[2];
    assert_int_equal(pipe(out), 0);
    /* Both pipes are read at once: a helper process copies one of them. */
    fflush(NULL);
    pid_t copier = fork();
    assert_true(copier >= 0);
    if (copier == 0) {
        close(out[0]);
        close(c.err);
        struct strbuf all = read_all(c.out);
        for (size_t at = 0; at < all.n;) {
            ssize_t n = write(out[1], all.p + at, all.n - at);
            if (n <= 0)
                _exit(1);
            at += (size_t)n;
        }
        _exit(0);
    }
    close(out[1]);
    close(c.out);
    assert_int_equal(check_threads(c.err), THREADS * LINES); /* the rings hold them all */
    assert_int_equal(check_threads(out[0]), THREADS * LINES);
    assert_int_equal(waitpid(copier, NULL, 0), copier);
    finish(&c);
}

static void *short_thread(void *arg)
{
    log_line(LOG_INFO, "from %p", arg);
    return NULL;
}

static void short_threads_body(void)
{
    log_start();
    for (int i = 0; i < 2000; i++) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, short_thread, NULL) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
    }
    log_stop();
}

static void test_short_threads(void **state)
{
    (void)state;
    struct child c = start(short_threads_body);
    struct strbuf err = read_all(c.err);
    size_t lines = 0;
    for (size_t i = 0; i < err.n; i++)
        lines += err.p[i] == '\n';
    assert_int_equal(lines, 2000);
    close(c.out);
    finish(&c);
    strbuf_free(&err);
}

/* ---- outputs in trouble ---- */

static void stalled_body(void)
{
    static const char line[1000] = {'x'};
    log_start();
    for (int i = 0; i < 3000; i++) /* 3 MB into a pipe nobody reads and a ring of 1 MiB */
        log_access(str_span(line, sizeof(line)));
    CHECK(log_dropped() > 1000);
    log_line(LOG_WARN, "still here");
    wait_for_parent();
    log_stop(); /* gives the stuck writer up */
    log_line(LOG_INFO, "after");
    log_access(STR("must not hang"));
}

static void test_stalled_output_stops_nothing(void **state)
{
    (void)state;
    struct child c = start(stalled_body);
    bool reported = false, here = false;
    while (!reported || !here) {
        struct strbuf line = read_line(c.err);
        assert_true(line.n != 0);
        here |= str_find_str(strbuf_str(&line), STR("still here")) >= 0;
        reported |= str_find_str(strbuf_str(&line), STR("lines lost")) >= 0;
        strbuf_free(&line);
    }
    let_go(&c);
    struct strbuf err = read_all(c.err); /* until it has ended */
    assert_true(str_ends(strbuf_str(&err), STR("info  after\n")));
    finish(&c);
    close(c.out);
    strbuf_free(&err);
}

static void closed_body(void)
{
    log_start();
    wait_for_parent();
    for (int i = 0; i < 100; i++) {
        log_line(LOG_WARN, "into the void");
        log_access(STR("into the void"));
    }
    log_stop();
    log_line(LOG_WARN, "into the void");
    CHECK(log_dropped() > 0);
}

static void test_closed_output_does_not_kill(void **state)
{
    (void)state;
    struct child c = start(closed_body);
    close(c.err);
    close(c.out);
    let_go(&c);
    finish(&c);
}

static void nonblocking_body(void)
{
    CHECK(fcntl(STDERR_FILENO, F_SETFL, O_NONBLOCK) == 0); /* as a careless parent would */
    log_start();
    wait_for_parent();
    for (int i = 0; i < 1500; i++)
        log_line(LOG_INFO, "%0100d", i);
    log_stop();
}

static void test_nonblocking_output_loses_nothing(void **state)
{
    (void)state;
    struct child c = start(nonblocking_body);
    let_go(&c);
    for (int i = 0; i < 1500; i++) {
        struct strbuf line = read_line(c.err);
        assert_true(line.n > 101);
        line.p[line.n - 1] = '\0';
        assert_int_equal(strtol(line.p + line.n - 101, NULL, 10), i);
        strbuf_free(&line);
    }
    close(c.err);
    close(c.out);
    finish(&c);
}

static void sleepy_body(void)
{
    log_start();
    for (int i = 0; i < 3; i++) {
        log_line(LOG_INFO, "line %d", i);
        wait_for_parent();
        if (i == 1)
            usleep(1500 * 1000); /* the writer goes to sleep for good meanwhile */
    }
}

static void test_a_single_line_arrives(void **state)
{
    (void)state;
    struct child c = start(sleepy_body);
    for (int i = 0; i < 3; i++) {
        struct strbuf line = read_line(c.err);
        assert_true(str_ends(strbuf_str(&line), STR("\n")));
        strbuf_free(&line);
        let_go(&c);
    }
    close(c.err);
    close(c.out);
    finish(&c);
}

static void tail_body(void)
{
    struct strbuf tail = {0};
    log_tail(&tail, 100);
    CHECK(tail.n == 0);
    log_start();
    for (int i = 0; i < 10; i++)
        log_line(LOG_INFO, "line %d", i);
    log_access(STR("not in it"));
    log_stop();
    strbuf_addz(&tail, "before:");
    log_tail(&tail, 10000);
    CHECK(str_starts(strbuf_str(&tail), STR("before:2")));
    CHECK(str_ends(strbuf_str(&tail), STR("line 9\n")));
    CHECK(str_find_str(strbuf_str(&tail), STR("line 0\n")) > 0);
    CHECK(str_find_str(strbuf_str(&tail), STR("not in it")) < 0);
    strbuf_clear(&tail);
    log_tail(&tail, 80); /* two whole lines of 38 and a part, which is left out */
    CHECK(tail.n == 76 && tail.p[0] == '2');
    CHECK(str_find_str(strbuf_str(&tail), STR("line 8\n")) > 0);
    for (int i = 0; i < 40000; i++)
        log_line(LOG_INFO, "wrapped %d", i);
    strbuf_clear(&tail);
    log_tail(&tail, SIZE_MAX);
    CHECK(tail.p[0] == '2' && str_ends(strbuf_str(&tail), STR("wrapped 39999\n")));
    CHECK(tail.n > 1000000 && tail.n < 1100000);
    strbuf_free(&tail);
}

static void test_tail(void **state)
{
    (void)state;
    struct child c = start(tail_body);
    struct strbuf err = read_all(c.err);
    close(c.out);
    finish(&c);
    strbuf_free(&err);
}

static _Atomic int woken;
static void on_more(void *arg)
{
    CHECK(arg == &woken);
    woken++;
}

static void read_body(void)
{
    struct strbuf b = {0};
    CHECK(log_read(0, 1000, &b) == 0 && b.n == 0);
    log_watch(on_more, &woken);
    log_line(LOG_INFO, "line 0");
    log_line(LOG_INFO, "line 1");
    CHECK(woken == 2); /* nobody writes for us yet */
    uint64_t at = log_read(0, 1000, &b);
    CHECK(at == b.n && b.n == 76 && str_ends(strbuf_str(&b), STR("line 1\n")));
    CHECK(log_read(at, 1000, &b) == at && b.n == 76);
    strbuf_clear(&b);
    CHECK(log_read(0, 50, &b) == 38 && b.n == 38); /* whole lines */
    strbuf_clear(&b);
    CHECK(log_read(at + 1000, 1000, &b) == at && b.n == 0); /* from the future */
    log_watch(NULL, NULL);
    for (int i = 0; i < 40000; i++)
        log_line(LOG_INFO, "wrapped %d", i);
    CHECK(woken == 2);
    uint64_t end = log_read(at, SIZE_MAX, &b); /* what it was at is no longer kept: the first whole line that is */
    CHECK(b.p[0] == '2' && str_ends(strbuf_str(&b), STR("wrapped 39999\n")) && end - b.n > at);
    strbuf_free(&b);
}

static void test_read(void **state)
{
    (void)state;
    struct child c = start(read_body);
    struct strbuf err = read_all(c.err);
    close(c.out);
    finish(&c);
    strbuf_free(&err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_long_lines_are_cut),
        cmocka_unit_test(test_levels),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_short_threads),
        cmocka_unit_test(test_stalled_output_stops_nothing),
        cmocka_unit_test(test_closed_output_does_not_kill),
        cmocka_unit_test(test_nonblocking_output_loses_nothing),
        cmocka_unit_test(test_a_single_line_arrives),
        cmocka_unit_test(test_tail),
        cmocka_unit_test(test_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
