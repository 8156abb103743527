/* SPDX-License-Identifier: Apache-2.0
 *
 * The log. A thread that logs writes whole lines into a ring of its own (one producer, one consumer, no lock) and
 * goes on. There is one writer thread for each output, not one for both: only a blocking write() is safe on a
 * descriptor that we inherited (O_NONBLOCK would be shared with whoever gave it to us), poll() before it promises
 * room for one byte but not for ours, and so a stalled reader of standard output must be allowed to hold its writer
 * without holding the other.
 *
 * Waking costs a system call, so it is rare: a writer that found work comes back by itself some milliseconds later
 * (nap) and sleeps for good only when nothing came for a while; a napping writer is woken for warnings, and for a
 * ring that is half full. What must never happen here: a logging thread that waits, a line cut by another one, a
 * process killed or spinning because the reader of its log went away.
 */
#include "base/log.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include <sys/uio.h>

enum { RING_LOG = 256 * 1024, RING_ACCESS = 1024 * 1024 }; /* powers of two */
enum { TAIL_SIZE = 1024 * 1024 };
enum { NAP_MS = 50, NAPS_BEFORE_SLEEP = 20, STOP_MS = 2000, REPORT_MS = 1000 };

enum sink_id { SINK_LOG, SINK_ACCESS, SINK_COUNT };
enum writer_state { WRITER_AWAKE, WRITER_NAPS, WRITER_SLEEPS };

/* Bytes of whole lines: [tail, head), counted since the beginning. */
struct ring {
    struct ring *next;
    size_t size;
    _Atomic bool orphan; /* its thread has ended; freed by the writer when empty */
    char pad_head[64];   /* head and tail on lines of their own */
    _Atomic size_t head; /* the logging thread's */
    size_t tail_seen;
    char pad_tail[64];
    _Atomic size_t tail; /* the writer's */
    char pad_data[64];
    char data[];
};

struct sink {
    int fd;
    size_t ring_size;
    pthread_mutex_t lock;
    pthread_cond_t wake, ended; /* monotonic */
    struct ring *rings;         /* pushed at the front under lock; unlinked by the writer under lock */
    bool running, stop;         /* under lock */
    _Atomic bool stopping;      /* = stop, for a writer that waits for its output */
    _Atomic int state;          /* enum writer_state */
    _Atomic uint64_t dropped;
    uint64_t reported;
};

static struct sink sinks[SINK_COUNT] = {
    [SINK_LOG] = {.fd = STDERR_FILENO, .ring_size = RING_LOG, .lock = PTHREAD_MUTEX_INITIALIZER},
    [SINK_ACCESS] = {.fd = STDOUT_FILENO, .ring_size = RING_ACCESS, .lock = PTHREAD_MUTEX_INITIALIZER},
};
static _Atomic int level_now = LOG_INFO;
static _Atomic bool started;
static _Thread_local struct ring *my_rings[SINK_COUNT];
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t thread_end;

static struct {
    pthread_mutex_t lock;
    void (*watch)(void *arg);
    void *watch_arg;
    char data[TAIL_SIZE];
    uint64_t n; /* bytes ever */
} tail = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* ---- levels ---- */

static const char *const level_names[] = {"trace", "debug", "info", "warn", "error", "critical", "off"};

void log_set_level(enum log_level level) { atomic_store_explicit(&level_now, (int)level, memory_order_relaxed); }

enum log_level log_get_level(void) { return (enum log_level)atomic_load_explicit(&level_now, memory_order_relaxed); }

bool log_level_parse(struct str s, enum log_level *out)
{
    for (size_t i = 0; i < ARRAY_LEN(level_names); i++) {
        if (str_is(s, level_names[i])) {
            *out = (enum log_level)i;
            return true;
        }
    }
    return false;
}

const char *log_level_name(enum log_level level) { return level_names[level]; }

/* ---- making a line ---- */

static size_t put_prefix(char *to, size_t cap, enum log_level level)
{
    struct timespec now;
    struct tm tm;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    int n = snprintf(to, cap, "%04d-%02d-%02dT%02d:%02d:%02d.%03ldZ %-5s ", tm.tm_year + 1900, tm.tm_mon + 1,
                     tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, now.tv_nsec / 1000000, log_level_name(level));
    ASSERT(n > 0 && (size_t)n < cap);
    return (size_t)n;
}

/* Appends text to line[0, n) with control bytes escaped, cut so that the newline still fits; returns the new n. */
static size_t put_text(char line[LOG_LINE_MAX], size_t n, const char *text, size_t text_n)
{
    static const char hex[] = "0123456789abcdef";
    size_t limit = LOG_LINE_MAX - sizeof("...\n") + 1; /* beyond it only "..." and the newline */
    for (size_t i = 0; i < text_n; i++) {
        unsigned char c = (unsigned char)text[i];
        bool control = c < 0x20 || c == 0x7f;
        if (n + (control ? 4 : 1) > limit) {
            for (int dots = 0; dots < 3; dots++)
                line[n++] = '.';
            break;
        }
        if (control) {
            line[n++] = '\\';
            line[n++] = 'x';
            line[n++] = hex[c >> 4];
            line[n++] = hex[c & 15];
        } else {
            line[n++] = (char)c;
        }
    }
    line[n++] = '\n';
    return n;
}

/* ---- output ---- */

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static size_t count_lines(const struct iovec *iov, int n)
{
    size_t lines = 0;
    for (int i = 0; i < n; i++) {
        const char *at = iov[i].iov_base, *end = at + iov[i].iov_len;
        while (at < end && (at = memchr(at, '\n', (size_t)(end - at))) != NULL) {
            lines++;
            at++;
        }
    }
    return lines;
}

/* Writes all of iov or gives the rest up: the reader is gone, or takes nothing while we are to stop. */
static void write_all(struct sink *s, struct iovec *iov, int count)
{
    int patience = STOP_MS / NAP_MS; /* once we are to stop */
    while (count > 0) {
        if (iov->iov_len == 0) {
            iov++;
            count--;
            continue;
        }
        ssize_t n = writev(s->fd, iov, count);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN && (!atomic_load(&s->stopping) || patience-- > 0)) {
            /* Somebody else made it non-blocking. */
            struct pollfd p = {.fd = s->fd, .events = POLLOUT};
            (void)poll(&p, 1, NAP_MS);
            continue;
        }
        if (n <= 0) {
            atomic_fetch_add(&s->dropped, count_lines(iov, count));
            return;
        }
        for (size_t left = (size_t)n; left != 0 && count > 0;) {
            size_t part = left < iov->iov_len ? left : iov->iov_len;
            iov->iov_base = (char *)iov->iov_base + part;
            iov->iov_len -= part;
            left -= part;
            if (iov->iov_len == 0) {
                iov++;
                count--;
            }
        }
    }
}

static void keep_tail(const struct iovec *iov, int count)
{
    pthread_mutex_lock(&tail.lock);
    for (int i = 0; i < count; i++) {
        struct str s = {iov[i].iov_base, iov[i].iov_len};
        while (s.n != 0) {
            size_t at = tail.n % TAIL_SIZE;
            size_t part = s.n < TAIL_SIZE - at ? s.n : TAIL_SIZE - at;
            memcpy(tail.data + at, s.p, part);
            tail.n += part;
            s = str_from(s, part);
        }
    }
    if (tail.watch != NULL)
        tail.watch(tail.watch_arg);
    pthread_mutex_unlock(&tail.lock);
}

static void emit(struct sink *s, struct iovec *iov, int count)
{
    if (s == &sinks[SINK_LOG])
        keep_tail(iov, count);
    write_all(s, iov, count);
}

/* ---- the logging thread's side ---- */

static void wake_writer(struct sink *s)
{
    if (atomic_exchange(&s->state, WRITER_AWAKE) == WRITER_AWAKE)
        return;
    pthread_mutex_lock(&s->lock);
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
}

static void unlink_ring(struct sink *s, struct ring *r)
{
    struct ring **at = &s->rings;
    while (*at != r)
        at = &(*at)->next;
    *at = r->next;
    mem_free(r);
}

/* Runs when a thread that logged ends: a writer frees its rings; where none runs, nobody else knows them. */
static void leave_rings(void *arg)
{
    struct ring **rings = arg;
    for (int i = 0; i < SINK_COUNT; i++) {
        struct ring *r = rings[i];
        rings[i] = NULL;
        if (r == NULL)
            continue;
        pthread_mutex_lock(&sinks[i].lock);
        if (sinks[i].running)
            atomic_store(&r->orphan, true);
        else
            unlink_ring(&sinks[i], r);
        pthread_mutex_unlock(&sinks[i].lock);
    }
}

static struct ring *new_ring(struct sink *s)
{
    struct ring *r = mem_alloc(sizeof(*r) + s->ring_size);
    memset(r, 0, sizeof(*r));
    r->size = s->ring_size;
    pthread_mutex_lock(&s->lock);
    r->next = s->rings;
    s->rings = r;
    pthread_mutex_unlock(&s->lock);
    return r;
}

static struct ring *my_ring(enum sink_id id)
{
    if (my_rings[id] == NULL) {
        my_rings[id] = new_ring(&sinks[id]);
        pthread_setspecific(thread_end, my_rings);
    }
    return my_rings[id];
}

static void drop_line(struct sink *s)
{
    atomic_fetch_add_explicit(&s->dropped, 1, memory_order_relaxed);
    /* The log's writer reports it; it may sleep while the other output is the one that is stuck. */
    if (atomic_load(&sinks[SINK_LOG].state) == WRITER_SLEEPS)
        wake_writer(&sinks[SINK_LOG]);
}

static void push(enum sink_id id, const char *line, size_t n, bool urgent)
{
    struct sink *s = &sinks[id];
    struct ring *r = my_ring(id);
    size_t head = atomic_load_explicit(&r->head, memory_order_relaxed);
    if (n > r->size - (head - r->tail_seen)) {
        r->tail_seen = atomic_load_explicit(&r->tail, memory_order_acquire);
        if (n > r->size - (head - r->tail_seen)) {
            drop_line(s);
            return;
        }
    }
    size_t at = head & (r->size - 1);
    size_t part = n < r->size - at ? n : r->size - at;
    memcpy(r->data + at, line, part);
    memcpy(r->data, line + part, n - part);
    /* Sequentially consistent with the state below: either we see that the writer went to sleep, or it, looking once
     * more after it said so, sees this line. */
    atomic_store(&r->head, head + n);
    int state = atomic_load(&s->state);
    if (state == WRITER_AWAKE)
        return;
    if (state == WRITER_NAPS && !urgent && head + n - r->tail_seen <= r->size / 2)
        return;
    if (state == WRITER_NAPS && !urgent) {
        r->tail_seen = atomic_load_explicit(&r->tail, memory_order_acquire);
        if (head + n - r->tail_seen <= r->size / 2)
            return;
    }
    wake_writer(s);
}

static void submit(enum sink_id id, char *line, size_t n, bool urgent)
{
    struct sink *s = &sinks[id];
    if (atomic_load_explicit(&started, memory_order_acquire)) {
        push(id, line, n, urgent);
        return;
    }
    pthread_mutex_lock(&s->lock);
    bool stuck = s->running; /* log_stop left its writer behind in a write: so would we be */
    pthread_mutex_unlock(&s->lock);
    struct iovec iov = {line, n};
    if (stuck)
        atomic_fetch_add(&s->dropped, 1);
    else
        emit(s, &iov, 1);
}

void log_line(enum log_level level, const char *fmt, ...)
{
    if ((int)level < atomic_load_explicit(&level_now, memory_order_relaxed) || level >= LOG_OFF)
        return;
    int saved = errno;
    char text[LOG_LINE_MAX], line[LOG_LINE_MAX];
    va_list args;
    va_start(args, fmt);
    int text_n = vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    size_t n = put_prefix(line, sizeof(line), level);
    if (text_n > 0)
        n = put_text(line, n, text, (size_t)text_n < sizeof(text) ? (size_t)text_n : sizeof(text) - 1);
    else
        line[n++] = '\n';
    submit(SINK_LOG, line, n, level >= LOG_WARN);
    errno = saved;
}

void log_access(struct str text)
{
    int saved = errno;
    char line[LOG_LINE_MAX];
    submit(SINK_ACCESS, line, put_text(line, 0, text.p, text.n), false);
    errno = saved;
}

uint64_t log_dropped(void) { return atomic_load(&sinks[SINK_LOG].dropped) + atomic_load(&sinks[SINK_ACCESS].dropped); }

void log_tail(struct strbuf *out, size_t max)
{
    pthread_mutex_lock(&tail.lock);
    size_t n = tail.n < TAIL_SIZE ? (size_t)tail.n : TAIL_SIZE;
    bool cut = n < tail.n || n > max;
    if (n > max)
        n = max;
    size_t at = (size_t)((tail.n - n) % TAIL_SIZE);
    size_t part = n < TAIL_SIZE - at ? n : TAIL_SIZE - at;
    size_t begin = out->n;
    strbuf_add(out, (struct str){tail.data + at, part});
    strbuf_add(out, (struct str){tail.data, n - part});
    pthread_mutex_unlock(&tail.lock);
    if (!cut)
        return;
    /* Begin with a whole line. */
    ptrdiff_t end = str_find((struct str){out->p + begin, n}, '\n');
    size_t skip = end >= 0 ? (size_t)end + 1 : n;
    if (skip != 0)
        memmove(out->p + begin, out->p + begin + skip, n - skip);
    out->n -= skip;
}

uint64_t log_read(uint64_t from, size_t max, struct strbuf *out)
{
    pthread_mutex_lock(&tail.lock);
    uint64_t oldest = tail.n > TAIL_SIZE ? tail.n - TAIL_SIZE : 0, at = from < oldest ? oldest : from;
    at = at > tail.n ? tail.n : at;
    if (at == oldest && oldest > 0) { /* the line it begins in is cut */
        while (at < tail.n && tail.data[at % TAIL_SIZE] != '\n')
            at++;
        at += at < tail.n;
    }
    uint64_t end = tail.n - at > max ? at + max : tail.n;
    while (end > at && tail.data[(end - 1) % TAIL_SIZE] != '\n')
        end--;
    while (at < end) {
        size_t place = (size_t)(at % TAIL_SIZE);
        size_t part = end - at < TAIL_SIZE - place ? (size_t)(end - at) : TAIL_SIZE - place;
        strbuf_add(out, (struct str){tail.data + place, part});
        at += part;
    }
    pthread_mutex_unlock(&tail.lock);
    return at;
}

void log_watch(void (*fn)(void *arg), void *arg)
{
    pthread_mutex_lock(&tail.lock);
    tail.watch = fn;
    tail.watch_arg = arg;
    pthread_mutex_unlock(&tail.lock);
}

/* ---- the writer's side ---- */

static bool drain_ring(struct sink *s, struct ring *r)
{
    size_t at = atomic_load_explicit(&r->tail, memory_order_relaxed);
    size_t n = atomic_load(&r->head) - at;
    if (n == 0)
        return false;
    size_t from = at & (r->size - 1);
    size_t part = n < r->size - from ? n : r->size - from;
    struct iovec iov[2] = {{r->data + from, part}, {r->data, n - part}};
    emit(s, iov, 2);
    atomic_store_explicit(&r->tail, at + n, memory_order_release);
    return true;
}

static bool drain(struct sink *s)
{
    pthread_mutex_lock(&s->lock);
    struct ring *r = s->rings;
    pthread_mutex_unlock(&s->lock);
    bool any = false;
    while (r != NULL) {
        struct ring *next = r->next;
        bool orphan = atomic_load(&r->orphan); /* before draining: nothing is added after it */
        any |= drain_ring(s, r);
        if (orphan) {
            pthread_mutex_lock(&s->lock);
            unlink_ring(s, r);
            pthread_mutex_unlock(&s->lock);
        }
        r = next;
    }
    return any;
}

static bool rings_are_empty(struct sink *s)
{
    bool empty = true;
    pthread_mutex_lock(&s->lock);
    for (struct ring *r = s->rings; r != NULL && empty; r = r->next)
        empty = atomic_load(&r->head) == atomic_load_explicit(&r->tail, memory_order_relaxed);
    pthread_mutex_unlock(&s->lock);
    return empty;
}

static void report_drops(struct sink *s, uint64_t *last)
{
    uint64_t dropped = log_dropped();
    if (s != &sinks[SINK_LOG] || dropped == s->reported || now_ms() - *last < REPORT_MS)
        return;
    *last = now_ms();
    char text[128], line[LOG_LINE_MAX];
    int text_n = snprintf(text, sizeof(text), "log: %llu lines lost because their reader was too slow or gone",
                          (unsigned long long)(dropped - s->reported));
    s->reported = dropped;
    size_t n = put_prefix(line, sizeof(line), LOG_WARN);
    struct iovec iov = {line, put_text(line, n, text, (size_t)text_n)};
    emit(s, &iov, 1);
    /* Where this very line was lost too, saying so again would never end. */
    s->reported += log_dropped() - dropped;
}

static void wait_for_work(struct sink *s, bool nap)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += NAP_MS * 1000000L;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000L;
    }
    atomic_store(&s->state, nap ? WRITER_NAPS : WRITER_SLEEPS);
    /* A napper comes back soon whatever it missed; a sleeper must look once more. */
    if (nap || rings_are_empty(s)) {
        int result = 0;
        pthread_mutex_lock(&s->lock);
        while (result == 0 && !s->stop && atomic_load(&s->state) != WRITER_AWAKE)
            result = nap ? pthread_cond_timedwait(&s->wake, &s->lock, &until) : pthread_cond_wait(&s->wake, &s->lock);
        pthread_mutex_unlock(&s->lock);
    }
    atomic_store(&s->state, WRITER_AWAKE);
}

static void *writer_main(void *arg)
{
    struct sink *s = arg;
    uint64_t last_report = 0;
    for (int idle = 0;;) {
        pthread_mutex_lock(&s->lock);
        bool stop = s->stop;
        pthread_mutex_unlock(&s->lock);
        bool any = drain(s);
        report_drops(s, &last_report);
        if (stop && !any)
            break;
        idle = any ? 0 : idle + 1;
        if (!stop)
            wait_for_work(s, idle < NAPS_BEFORE_SLEEP || (s == &sinks[SINK_LOG] && log_dropped() != s->reported));
    }
    pthread_mutex_lock(&s->lock);
    s->running = false;
    pthread_cond_broadcast(&s->ended);
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* ---- start, stop ---- */

static void init_once(void)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    for (int i = 0; i < SINK_COUNT; i++) {
        pthread_cond_init(&sinks[i].wake, &attr);
        pthread_cond_init(&sinks[i].ended, &attr);
    }
    pthread_condattr_destroy(&attr);
    ASSERT(pthread_key_create(&thread_end, leave_rings) == 0);
}

static void start_writer(struct sink *s)
{
    pthread_mutex_lock(&s->lock);
    s->stop = false;
    atomic_store(&s->stopping, false);
    /* One that was left behind by log_stop, stuck in a write, simply goes on. */
    if (!s->running) {
        s->running = true;
        pthread_t thread;
        pthread_attr_t attr;
        pthread_attr_init(&attr);
        pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
        ASSERT(pthread_create(&thread, &attr, writer_main, s) == 0);
        pthread_attr_destroy(&attr);
    }
    pthread_mutex_unlock(&s->lock);
}

void log_start(void)
{
    pthread_once(&once, init_once);
    struct sigaction now;
    if (sigaction(SIGPIPE, NULL, &now) == 0 && now.sa_handler == SIG_DFL)
        signal(SIGPIPE, SIG_IGN);
    /* Signals are for the threads that handle them. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (int i = 0; i < SINK_COUNT; i++)
        start_writer(&sinks[i]);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    atomic_store(&started, true);
}

void log_stop(void)
{
    if (!atomic_exchange(&started, false))
        return;
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += STOP_MS / 1000;
    for (int i = 0; i < SINK_COUNT; i++) {
        pthread_mutex_lock(&sinks[i].lock);
        sinks[i].stop = true;
        atomic_store(&sinks[i].stopping, true);
        pthread_cond_signal(&sinks[i].wake);
        pthread_mutex_unlock(&sinks[i].lock);
    }
    for (int i = 0; i < SINK_COUNT; i++) {
        struct sink *s = &sinks[i];
        pthread_mutex_lock(&s->lock);
        int result = 0;
        while (s->running && result == 0)
            result = pthread_cond_timedwait(&s->ended, &s->lock, &until);
        pthread_mutex_unlock(&s->lock);
    }
}
