/* SPDX-License-Identifier: Apache-2.0
 *
 * The search of credentials.h: files are read on libuv's pool, a helper runs as a child. What makes it hard: a child
 * may hang, talk without end or leave its output open; so there is one clock and one cap for all of it, and done runs
 * when every handle is closed, whichever way it ended.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "base/file.h"
#include "fetch/credentials.h"

enum { HELPER_LIMIT_MS = 30 * 1000, HELPER_OUTPUT_MAX = 64 * 1024, PASSWORD_FILE_MAX = 64 * 1024, TARGETS = 2 };
enum { STDIN, STDOUT, PIPES };

extern char **environ;

struct credentials_search {
    struct loop *loop;
    uv_work_t work;
    void (*done)(void *arg, struct credentials *c, struct failure *f); /* NULL once cancelled */
    void *arg;
    char *pull_secret, *config_file, *user, *password_file, *targets[TARGETS];
    bool has_secret, must_exist;
    size_t secret_n;
    struct credentials found;
    struct failure failure;
    /* the helper */
    char *helper, *server;
    uv_process_t process;
    pid_t pid;
    uv_pipe_t pipes[PIPES];
    uv_write_t write;
    struct loop_timer limit;
    unsigned open; /* handles */
    bool exited, ended, spawned, timed_out, too_much;
    int64_t exit_status;
    struct strbuf output;
    char chunk[4096];
};

static void search_free(struct credentials_search *s)
{
    char *const all[] = {s->pull_secret, s->config_file, s->user,   s->password_file,
                         s->targets[0],  s->targets[1],  s->helper, s->server};
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        mem_free(all[i]);
    credentials_free(&s->found);
    failure_clear(&s->failure);
    strbuf_free(&s->output);
    mem_free(s);
}

static void search_end(struct credentials_search *s)
{
    if (s->done != NULL)
        s->done(s->arg, &s->found, &s->failure);
    search_free(s);
}

/* ---- the helper ---- */

static void handle_gone(struct credentials_search *s)
{
    if (--s->open == 0)
        search_end(s);
}
static void on_closed(uv_handle_t *h) { handle_gone(h->data); }
static void on_limit_closed(struct loop_timer *t) { handle_gone(CONTAINER_OF(t, struct credentials_search, limit)); }

/* A helper that knows nothing says so on its standard output, and exits with 1. */
static bool says_not_found(struct str text)
{
    return str_find_str(text, STR("credentials not found")) >= 0 || str_find_str(text, STR("no credentials")) >= 0;
}

static void helper_judge(struct credentials_search *s)
{
    struct str said = strbuf_str(&s->output);
    char *error = NULL;
    if (s->timed_out || s->too_much) {
        failure_set(&s->failure, "Unauthorized", true, "docker-credential-%s %s", s->helper,
                    s->too_much ? "answered without end" : "did not answer in 30 s");
    } else if (s->exit_status != 0 && !says_not_found(said)) {
        failure_set(&s->failure, "Unauthorized", true, "docker-credential-%s failed for %s with exit code %d: %.*s",
                    s->helper, s->server, (int)s->exit_status,
                    STR_ARG(str_trim(str_upto(said, said.n < 300 ? said.n : 300))));
    } else if (s->exit_status == 0 && !credentials_read_helper(said, &s->found, &error)) {
        failure_set(&s->failure, "Unauthorized", true, "docker-credential-%s %s", s->helper, error);
        mem_free(error);
    }
}

static void helper_close(struct credentials_search *s)
{
    uv_close((uv_handle_t *)&s->process, on_closed);
    for (int i = 0; i < PIPES; i++)
        if (!uv_is_closing((uv_handle_t *)&s->pipes[i]))
            uv_close((uv_handle_t *)&s->pipes[i], on_closed);
    loop_timer_close(&s->limit, on_limit_closed);
}

static void helper_step(struct credentials_search *s)
{
    if (!s->exited || !(s->ended || s->timed_out || s->too_much) || uv_is_closing((uv_handle_t *)&s->process))
        return;
    helper_judge(s);
    helper_close(s);
}

static void on_child_exit(uv_process_t *process, int64_t status, int signal)
{
    struct credentials_search *s = process->data;
    s->exited = true;
    s->exit_status = signal != 0 ? 128 + signal : status;
    helper_step(s);
}

static void on_limit(struct loop_timer *timer)
{
    struct credentials_search *s = CONTAINER_OF(timer, struct credentials_search, limit);
    s->timed_out = true;
    if (!s->exited)
        (void)uv_process_kill(&s->process, SIGKILL);
    helper_step(s);
}

static void on_alloc(uv_handle_t *h, size_t hint, uv_buf_t *out)
{
    struct credentials_search *s = h->data;
    (void)hint;
    *out = uv_buf_init(s->chunk, sizeof s->chunk);
}

static void on_output(uv_stream_t *stream, ssize_t n, const uv_buf_t *b)
{
    struct credentials_search *s = stream->data;
    if (n > 0)
        strbuf_add(&s->output, str_span(b->base, (size_t)n));
    s->ended |= n < 0;
    if (s->output.n > HELPER_OUTPUT_MAX) {
        s->too_much = true;
        (void)uv_process_kill(&s->process, SIGKILL);
    }
    if (s->ended || s->too_much) {
        (void)uv_read_stop(stream);
        helper_step(s);
    }
}

static void on_written(uv_write_t *w, int status)
{
    struct credentials_search *s = w->data;
    (void)status;
    if (!uv_is_closing((uv_handle_t *)&s->pipes[STDIN]))
        uv_close((uv_handle_t *)&s->pipes[STDIN], on_closed); /* its end of file */
}

static bool may_see(const char *entry)
{
    static const char *const names[] = {"PATH=",     "HOME=",   "USER=",   "AWS_",        "AZURE_",
                                        "CLOUDSDK_", "DOCKER_", "GOOGLE_", "HTTPS_PROXY="};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (strncmp(entry, names[i], strlen(names[i])) == 0)
            return true;
    return false;
}

/* Entries are borrowed; mem_free. */
static char **clean_environment(void)
{
    size_t n = 0, kept = 0;
    while (environ[n] != NULL)
        n++;
    char **env = mem_zalloc((n + 1) * sizeof *env);
    for (size_t i = 0; i < n; i++)
        if (may_see(environ[i]))
            env[kept++] = environ[i];
    return env;
}

static void helper_start(struct credentials_search *s)
{
    char *program = mem_printf("docker-credential-%s", s->helper), *args[] = {program, (char[]){"get"}, NULL};
    char **env = clean_environment();
    uv_stdio_container_t stdio[3] = {
        {.flags = UV_CREATE_PIPE | UV_READABLE_PIPE, .data.stream = (uv_stream_t *)&s->pipes[STDIN]},
        {.flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE, .data.stream = (uv_stream_t *)&s->pipes[STDOUT]},
        {.flags = UV_IGNORE}};
    uv_process_options_t o = {
        .file = program, .args = args, .env = env, .stdio = stdio, .stdio_count = 3, .exit_cb = on_child_exit};
    for (int i = 0; i < PIPES; i++) {
        uv_pipe_init(&s->loop->uv, &s->pipes[i], 0);
        s->pipes[i].data = s;
    }
    loop_timer_init(&s->limit, s->loop, on_limit);
    s->process.data = s;
    s->open = PIPES + 2;
    int error = uv_spawn(&s->loop->uv, &s->process, &o);
    if (error != 0) {
        failure_set(&s->failure, "Unauthorized", true, "cannot run %s, which the Docker configuration names: %s",
                    program, uv_strerror(error));
        helper_close(s);
    } else {
        s->spawned = true;
        s->pid = s->process.pid;
        uv_buf_t line = uv_buf_init(s->server, (unsigned)strlen(s->server));
        s->write.data = s;
        loop_timer_start(&s->limit, HELPER_LIMIT_MS);
        if (uv_write(&s->write, (uv_stream_t *)&s->pipes[STDIN], &line, 1, on_written) != 0)
            uv_close((uv_handle_t *)&s->pipes[STDIN], on_closed);
        if (uv_read_start((uv_stream_t *)&s->pipes[STDOUT], on_alloc, on_output) != 0)
            s->ended = true;
    }
    mem_free(program);
    mem_free(env);
}

/* ---- files, on the pool ---- */

static void read_password(struct credentials_search *s)
{
    size_t n = 0;
    char *error = NULL, *text = file_read_all(s->password_file, PASSWORD_FILE_MAX, &n, &error);
    if (text == NULL) {
        failure_set(&s->failure, "Unauthorized", true, "password-file %s: %s", s->password_file, error);
        mem_free(error);
        return;
    }
    while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == '\r'))
        n--;
    s->found.user = mem_strdup(s->user);
    s->found.password = mem_strndup(text, n);
    mem_free(text);
}

static void read_text(struct credentials_search *s, struct str text, const char *what)
{
    for (int i = 0; i < TARGETS && s->targets[i] != NULL; i++) {
        char *error = NULL;
        if (!credentials_read_config(text, str_of(s->targets[i]), &s->found, &s->helper, &s->server, &error)) {
            failure_set(&s->failure, "Unauthorized", true, "%s: %s", what, error);
            mem_free(error);
            return;
        }
        if (s->helper != NULL || !credentials_is_empty(&s->found))
            return;
    }
}

static void read_config_file(struct credentials_search *s)
{
    size_t n = 0;
    char *error = NULL, *text = file_read_all(s->config_file, CREDENTIALS_CONFIG_MAX, &n, &error);
    if (text != NULL)
        read_text(s, str_span(text, n), s->config_file);
    else if (s->must_exist)
        failure_set(&s->failure, "Unauthorized", true, "%s: %s", s->config_file, error);
    mem_free(error);
    mem_free(text);
}

static void search_work(uv_work_t *work)
{
    struct credentials_search *s = work->data;
    if (s->user != NULL) {
        read_password(s);
    } else if (s->has_secret) {
        read_text(s, str_span(s->pull_secret, s->secret_n), "the pull secret");
        mem_free(s->helper); /* who may write a Secret may not run programs */
        s->helper = NULL;
    } else if (s->config_file != NULL) {
        read_config_file(s);
    }
}

static void search_worked(uv_work_t *work, int status)
{
    struct credentials_search *s = work->data;
    (void)status;
    if (s->done != NULL && s->failure.reason == NULL && s->helper != NULL)
        helper_start(s);
    else
        search_end(s);
}

/* ---- entry points ---- */

struct credentials_search *
credentials_search_start(struct loop *loop, const struct credentials_query *q,
                         void (*done)(void *arg, struct credentials *c, struct failure *failure), void *arg)
{
    struct credentials_search *s = mem_zalloc(sizeof *s);
    s->loop = loop;
    s->done = done;
    s->arg = arg;
    s->has_secret = q->pull_secret.p != NULL;
    s->pull_secret = str_dup(q->pull_secret);
    s->secret_n = q->pull_secret.n;
    s->config_file = q->config_file != NULL ? mem_strdup(q->config_file) : NULL;
    s->must_exist = q->must_exist;
    if (q->user != NULL && q->password_file != NULL) {
        s->user = mem_strdup(q->user);
        s->password_file = mem_strdup(q->password_file);
    }
    for (int i = 0; i < TARGETS && q->targets[i] != NULL; i++)
        s->targets[i] = mem_strdup(q->targets[i]);
    s->work.data = s;
    ASSERT(uv_queue_work(&loop->uv, &s->work, search_work, search_worked) == 0);
    return s;
}

static void reap_work(uv_work_t *work)
{
    struct credentials_search *s = work->data;
    while (waitpid(s->pid, NULL, 0) < 0 && errno == EINTR) {
    }
}
static void reaped(uv_work_t *work, int status)
{
    (void)status;
    handle_gone(work->data);
}

void credentials_search_cancel(struct credentials_search *s)
{
    s->done = NULL;
    if (!s->spawned)
        return; /* the pool's answer, or the handles' end, frees it */
    if (uv_is_closing((uv_handle_t *)&s->process))
        return;
    if (!s->exited) { /* it may not outlive us, and nobody else waits for it once the handle is closed */
        (void)uv_process_kill(&s->process, SIGKILL);
        s->open++;
        ASSERT(uv_queue_work(&s->loop->uv, &s->work, reap_work, reaped) == 0);
    }
    helper_close(s);
}
