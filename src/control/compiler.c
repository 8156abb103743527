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

#include "base/file.h"
#include "base/log.h"
#include "wasm/vm.h"

/* A sanitizer's shadow is terabytes of memory that is mapped and never touched: no limit on data can be told from it.
 */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HAS_SHADOW true
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define HAS_SHADOW true
#endif
#endif
#ifndef HAS_SHADOW
#define HAS_SHADOW false
#endif

enum { COMPILE_AT_ONCE = 2, COMPILE_LIMIT_MS = 180 * 1000, ERROR_TEXT_MAX = 4000, MODULE_MAX = 256 * 1024 * 1024 };

struct compile {
    struct list node;
    struct compiler *owner;
    bool unwanted;   /* its end is awaited, and told to nobody */
    bool background; /* gives way to all others */
    char *wasm, *out, *tier;
    compile_done done;
    void *arg;
    uv_process_t process;
    uv_pipe_t errors;
    struct loop_timer limit;
    struct strbuf text;
    char chunk[1024];
    bool timed_out, exited, reading;
    int spawn_error; /* of libuv */
    int64_t exit_status;
    int signal;
    unsigned open_handles;
};
struct compiler {
    struct loop *loop;
    char *program, *delay;
    struct list waiting, running;
    unsigned running_count, running_background;
    unsigned alive; /* jobs with open handles: those that run, and unwanted ones that die */
};

static void start_waiting(struct compiler *c);

static void running_enter(struct compile *j)
{
    list_push_back(&j->owner->running, &j->node);
    j->owner->running_count++;
    j->owner->running_background += j->background;
}

static void running_leave(struct compile *j)
{
    list_remove(&j->node);
    j->owner->running_count--;
    j->owner->running_background -= j->background;
}

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

static void job_free(struct compile *j)
{
    mem_free(j->wasm);
    mem_free(j->out);
    mem_free(j->tier);
    strbuf_free(&j->text);
    mem_free(j);
}

static void job_closed_one(struct compile *j)
{
    ASSERT(j->open_handles > 0);
    if (--j->open_handles > 0)
        return;
    j->owner->alive--;
    job_free(j);
}
static void handle_closed(uv_handle_t *handle) { job_closed_one(handle->data); }
static void limit_closed(struct loop_timer *timer) { job_closed_one(CONTAINER_OF(timer, struct compile, limit)); }

static void job_close(struct compile *j)
{
    j->open_handles = 3;
    uv_close((uv_handle_t *)&j->errors, handle_closed);
    loop_timer_close(&j->limit, limit_closed);
    uv_close((uv_handle_t *)&j->process, handle_closed);
}

/* mem_free; NULL: fine. */
static char *job_error(const struct compile *j, bool *again)
{
    *again = true;
    if (j->spawn_error != 0)
        return mem_printf("cannot start the compiler: %s", uv_strerror(j->spawn_error));
    if (j->timed_out)
        return mem_printf("the compiler was stopped after %d s", COMPILE_LIMIT_MS / 1000);
    if (j->signal != 0)
        return mem_printf("the compiler died of signal %d", j->signal);
    *again = false;
    if (j->exit_status == 0)
        return NULL;
    return j->text.n > 0 ? str_dup(str_trim(strbuf_str(&j->text)))
                         : mem_printf("the compiler ended with code %d", (int)j->exit_status);
}

/* The child has ended and its error text has been read, or it never began. */
static void job_finish(struct compile *j)
{
    if (!j->exited || j->reading)
        return;
    struct compiler *c = j->owner;
    bool again = false;
    char *error = job_error(j, &again);
    if (error != NULL || j->unwanted)
        unlink(j->out);
    if (!j->unwanted) {
        running_leave(j);
        j->done(j->arg, error, again);
        start_waiting(c);
    }
    mem_free(error);
    job_close(j);
}

static void child_ended(uv_process_t *process, int64_t status, int signal_number)
{
    struct compile *j = process->data;
    j->exited = true;
    j->exit_status = status;
    j->signal = signal_number;
    job_finish(j);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *out)
{
    (void)suggested;
    struct compile *j = handle->data;
    *out = uv_buf_init(j->chunk, sizeof j->chunk);
}

static void on_error_text(uv_stream_t *stream, ssize_t n, const uv_buf_t *from)
{
    struct compile *j = stream->data;
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
    struct compile *j = CONTAINER_OF(timer, struct compile, limit);
    if (j->spawn_error != 0) {
        j->exited = true;
        job_finish(j);
        return;
    }
    j->timed_out = true;
    uv_process_kill(&j->process, SIGKILL);
}

static void job_start(struct compiler *c, struct compile *j)
{
    c->alive++;
    uv_pipe_init(&c->loop->uv, &j->errors, 0);
    j->errors.data = j;
    j->process.data = j;
    loop_timer_init(&j->limit, c->loop, on_limit);
    char command[] = "compile-module";
    char *args[] = {c->program, command, j->tier, j->wasm, j->out, NULL};
    char path[] = "PATH=/usr/bin:/bin";
    char *env[] = {path, NULL, NULL, NULL};
    size_t n = 1;
    if (c->delay != NULL)
        env[n++] = c->delay;
    /* Its sanitizer's options, above all which reports about the engine are none. */
    char *options_text =
        HAS_SHADOW && getenv("TSAN_OPTIONS") != NULL ? mem_printf("TSAN_OPTIONS=%s", getenv("TSAN_OPTIONS")) : NULL;
    if (options_text != NULL)
        env[n++] = options_text;
    uv_stdio_container_t stdio[3] = {
        {.flags = UV_IGNORE},
        {.flags = UV_IGNORE},
        {.flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE, .data.stream = (uv_stream_t *)&j->errors}};
    uv_process_options_t options = {
        .exit_cb = child_ended, .file = c->program, .args = args, .env = env, .stdio_count = 3, .stdio = stdio};
    j->spawn_error = uv_spawn(&c->loop->uv, &j->process, &options);
    mem_free(options_text);
    if (j->spawn_error != 0) {
        loop_timer_start(&j->limit, 0); /* told later, as everything is */
        return;
    }
    j->reading = true;
    uv_read_start((uv_stream_t *)&j->errors, on_alloc, on_error_text);
    loop_timer_start(&j->limit, COMPILE_LIMIT_MS);
}

/* The longest waiting one that may run now. One place is never the background's. */
static struct compile *next_waiting(const struct compiler *c)
{
    struct compile *background = NULL;
    LIST_EACH (n, &c->waiting) {
        struct compile *j = LIST_ENTRY(n, struct compile, node);
        if (!j->background)
            return j;
        if (background == NULL && c->running_background == 0)
            background = j;
    }
    return background;
}

static void start_waiting(struct compiler *c)
{
    while (c->running_count < COMPILE_AT_ONCE) {
        struct compile *j = next_waiting(c);
        if (j == NULL)
            return;
        list_remove(&j->node);
        running_enter(j);
        job_start(c, j);
    }
}

struct compile *compiler_run(struct compiler *c, const char *wasm, const char *out, const char *tier, bool background,
                             compile_done done, void *arg)
{
    struct compile *j = mem_zalloc(sizeof *j);
    j->owner = c;
    j->wasm = mem_strdup(wasm);
    j->out = mem_strdup(out);
    j->tier = mem_strdup(tier);
    j->background = background;
    j->done = done;
    j->arg = arg;
    list_init(&j->node);
    list_push_back(&c->waiting, &j->node);
    start_waiting(c);
    return j;
}

static bool job_is_running(const struct compile *j) { return j->process.data != NULL; }

void compiler_hurry(struct compile *j)
{
    if (job_is_running(j))
        j->owner->running_background -= j->background;
    j->background = false;
    start_waiting(j->owner);
}

static void job_abandon(struct compile *j)
{
    running_leave(j);
    j->unwanted = true;
    if (j->spawn_error == 0)
        uv_process_kill(&j->process, SIGKILL);
}

void compiler_cancel(struct compile *j)
{
    struct compiler *c = j->owner;
    if (!job_is_running(j)) {
        list_remove(&j->node);
        job_free(j);
        return;
    }
    job_abandon(j);
    start_waiting(c);
}

bool compiler_is_full(const struct compiler *c) { return c->running_count >= COMPILE_AT_ONCE; }

void compiler_free(struct compiler *c)
{
    LIST_EACH (n, &c->waiting) {
        list_remove(n);
        job_free(LIST_ENTRY(n, struct compile, node));
    }
    LIST_EACH (n, &c->running)
        job_abandon(LIST_ENTRY(n, struct compile, node));
    while (c->alive > 0)
        uv_run(&c->loop->uv, UV_RUN_ONCE);
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
    if (!HAS_SHADOW)
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
        engine_free(engine);
        mem_free(wasm);
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
    strbuf_free(&code);
    mem_free(error);
    return ok ? 0 : 1;
}
