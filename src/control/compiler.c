/* SPDX-License-Identifier: Apache-2.0
 *
 * See compiler.h. The child gets two file names and nothing else: no descriptors but its standard ones, an almost empty
 * environment.
 */
#include "control/compiler.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "control/source_dir.h"
#include "wasm/vm.h"

enum { COMPILE_AT_ONCE = 2, COMPILE_LIMIT_MS = 180 * 1000, ERROR_TEXT_MAX = 4000, MODULE_MAX = 256 * 1024 * 1024 };

struct job {
    struct list node;
    struct compiler *owner; /* NULL once the compiler is gone */
    char *wasm, *out, *tier;
    void (*done)(void *arg, const char *error);
    void *arg;
    uv_process_t process;
    uv_pipe_t errors;
    struct loop_timer limit;
    struct strbuf text;
    char chunk[1024];
    bool timed_out, exited, reading;
    int64_t exit_status;
    int signal;
    unsigned open_handles;
};
struct compiler {
    struct loop *loop;
    char *program, *delay;
    struct list waiting, running;
    unsigned running_count;
};

static void start_waiting(struct compiler *c);

struct compiler *compiler_new(struct loop *loop, const char *program, uint32_t test_delay_ms)
{
    struct compiler *c = mem_zalloc(sizeof *c);
    c->loop = loop;
    c->program = mem_strdup(program);
    c->delay = mem_printf("WEIR_COMPILE_DELAY_MS=%u", test_delay_ms);
    list_init(&c->waiting);
    list_init(&c->running);
    return c;
}

static void job_free(struct job *j)
{
    mem_free(j->wasm);
    mem_free(j->out);
    mem_free(j->tier);
    strbuf_free(&j->text);
    mem_free(j);
}

static void job_closed_one(struct job *j)
{
    ASSERT(j->open_handles > 0);
    if (--j->open_handles == 0)
        job_free(j);
}
static void handle_closed(uv_handle_t *handle) { job_closed_one(handle->data); }
static void limit_closed(struct loop_timer *timer) { job_closed_one(CONTAINER_OF(timer, struct job, limit)); }

static void job_close(struct job *j, bool process_started)
{
    j->open_handles = 2 + (process_started ? 1u : 0u);
    uv_close((uv_handle_t *)&j->errors, handle_closed);
    loop_timer_close(&j->limit, limit_closed);
    if (process_started)
        uv_close((uv_handle_t *)&j->process, handle_closed);
}

/* The child has ended and its error text has been read. */
static void job_finish(struct job *j)
{
    if (!j->exited || j->reading)
        return;
    struct compiler *c = j->owner;
    list_remove(&j->node);
    char *error = NULL;
    if (j->timed_out)
        error = mem_printf("the compiler was stopped after %d s", COMPILE_LIMIT_MS / 1000);
    else if (j->signal != 0)
        error = mem_printf("the compiler died of signal %d", j->signal);
    else if (j->exit_status != 0)
        error = j->text.n > 0 ? str_dup(str_trim(strbuf_str(&j->text)))
                              : mem_printf("the compiler ended with code %d", (int)j->exit_status);
    if (error != NULL)
        unlink(j->out);
    if (c != NULL) {
        c->running_count--;
        j->done(j->arg, error);
        start_waiting(c);
    }
    mem_free(error);
    job_close(j, true);
}

static void child_ended(uv_process_t *process, int64_t status, int signal_number)
{
    struct job *j = process->data;
    j->exited = true;
    j->exit_status = status;
    j->signal = signal_number;
    job_finish(j);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *out)
{
    (void)suggested;
    struct job *j = handle->data;
    *out = uv_buf_init(j->chunk, sizeof j->chunk);
}

static void on_error_text(uv_stream_t *stream, ssize_t n, const uv_buf_t *from)
{
    struct job *j = stream->data;
    if (n > 0 && j->text.n + (size_t)n <= ERROR_TEXT_MAX)
        strbuf_add(&j->text, str_span(from->base, (size_t)n));
    if (n < 0) {
        uv_read_stop(stream);
        j->reading = false;
        job_finish(j);
    }
}

static void on_limit(struct loop_timer *timer)
{
    struct job *j = CONTAINER_OF(timer, struct job, limit);
    j->timed_out = true;
    uv_process_kill(&j->process, SIGKILL);
}

static void job_start(struct compiler *c, struct job *j)
{
    uv_pipe_init(&c->loop->uv, &j->errors, 0);
    j->errors.data = j;
    j->process.data = j;
    loop_timer_init(&j->limit, c->loop, on_limit);
    char command[] = "compile-module";
    char *args[] = {c->program, command, j->tier, j->wasm, j->out, NULL};
    char path[] = "PATH=/usr/bin:/bin";
    char *env[] = {path, c->delay, NULL};
    uv_stdio_container_t stdio[3] = {
        {.flags = UV_IGNORE},
        {.flags = UV_IGNORE},
        {.flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE, .data.stream = (uv_stream_t *)&j->errors}};
    uv_process_options_t options = {
        .exit_cb = child_ended, .file = c->program, .args = args, .env = env, .stdio_count = 3, .stdio = stdio};
    int error = uv_spawn(&c->loop->uv, &j->process, &options);
    if (error != 0) {
        list_remove(&j->node);
        c->running_count--;
        char *text = mem_printf("cannot start the compiler: %s", uv_strerror(error));
        j->done(j->arg, text);
        mem_free(text);
        job_close(j, true);
        return;
    }
    j->reading = true;
    uv_read_start((uv_stream_t *)&j->errors, on_alloc, on_error_text);
    loop_timer_start(&j->limit, COMPILE_LIMIT_MS);
}

static void start_waiting(struct compiler *c)
{
    while (c->running_count < COMPILE_AT_ONCE && !list_is_empty(&c->waiting)) {
        struct job *j = LIST_ENTRY(c->waiting.next, struct job, node);
        list_remove(&j->node);
        list_push_back(&c->running, &j->node);
        c->running_count++;
        job_start(c, j);
    }
}

void compiler_run(struct compiler *c, const char *wasm, const char *out, const char *tier,
                  void (*done)(void *arg, const char *error), void *arg)
{
    struct job *j = mem_zalloc(sizeof *j);
    j->owner = c;
    j->wasm = mem_strdup(wasm);
    j->out = mem_strdup(out);
    j->tier = mem_strdup(tier);
    j->done = done;
    j->arg = arg;
    list_init(&j->node);
    list_push_back(&c->waiting, &j->node);
    start_waiting(c);
}

void compiler_free(struct compiler *c)
{
    LIST_EACH (n, &c->waiting) {
        list_remove(n);
        job_free(LIST_ENTRY(n, struct job, node));
    }
    LIST_EACH (n, &c->running) {
        struct job *j = LIST_ENTRY(n, struct job, node);
        list_remove(n);
        j->owner = NULL;
        uv_process_kill(&j->process, SIGKILL);
    }
    mem_free(c->program);
    mem_free(c->delay);
    mem_free(c);
}

/* ---- the child ---- */

static void child_limits(void)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setpriority(PRIO_PROCESS, 0, 10);
    struct rlimit cpu = {COMPILE_LIMIT_MS / 1000 * 2, COMPILE_LIMIT_MS / 1000 * 2};
    setrlimit(RLIMIT_CPU, &cpu);
    struct rlimit core = {0, 0};
    setrlimit(RLIMIT_CORE, &core);
    struct rlimit data = {4ull << 30, 4ull << 30};
    setrlimit(RLIMIT_DATA, &data);
}

static void child_test_delay(void)
{
    const char *text = getenv("WEIR_COMPILE_DELAY_MS");
    uint64_t ms = 0;
    if (text == NULL || !str_to_u64(str_of(text), 600000, &ms) || ms == 0)
        return;
    struct timespec t = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000};
    nanosleep(&t, NULL);
}

int compiler_child_main(const char *tier, const char *in, const char *out)
{
    child_limits();
    child_test_delay();
    size_t n = 0;
    char *error = NULL, *wasm = file_read_all(in, MODULE_MAX, &n, &error);
    struct strbuf code = {0};
    bool ok = false;
    if (wasm != NULL) {
        struct engine *engine = engine_new();
        ok = engine_compile(engine, str_span(wasm, n), strcmp(tier, "fast") == 0 ? TIER_FAST : TIER_OPTIMISED, &code,
                            &error);
    }
    if (ok) {
        int fd = open(out, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        size_t done = 0;
        while (fd >= 0 && done < code.n) {
            ssize_t put = write(fd, code.p + done, code.n - done);
            if (put <= 0 && errno != EINTR)
                break;
            done += put > 0 ? (size_t)put : 0;
        }
        ok = fd >= 0 && done == code.n && close(fd) == 0;
        if (!ok)
            error = mem_printf("cannot write compiled code: %s", strerror(errno));
    }
    if (!ok)
        fprintf(stderr, "%s\n", error != NULL ? error : "failed");
    return ok ? 0 : 1;
}
