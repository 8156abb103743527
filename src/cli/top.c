/* SPDX-License-Identifier: Apache-2.0
 *
 * weir top: what the page shows, in a terminal: asked for every second from /stats. Whatever happens, the terminal must
 * be left as it was; and what objects and filters say may move no cursor, so that it is escaped.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include "cli/ask.h"
#include "cli/cli.h"

static const char help_text[] =
    "usage: weir top [--admin ADDR] [--once] [--interval SECONDS]\n\n"
    "Shows the gateway as it works: traffic, plugins in chain order, events (admin address: default 127.0.0.1:15000).\n"
    "Rates and percentiles are of the last 10 seconds. q quits. --once prints it once, as text; so does a pipe.\n";

/* Everything before a line of the screen, and its length in columns: colours take none. */
struct screen {
    struct strbuf text;
    size_t width, rows, line, column;
    bool colours;
};
enum colour { PLAIN, BOLD, SOFT, GREEN, YELLOW, RED };

/* ---- lines ---- */

static void put_bytes(struct screen *s, enum colour colour, struct str text)
{
    static const char *const codes[] = {"", "\033[1m", "\033[2m", "\033[32m", "\033[33m", "\033[31m"};
    size_t room = s->width > s->column ? s->width - s->column : 0;
    text = str_upto(text, text.n < room ? text.n : room);
    if (s->colours && colour != PLAIN && text.n > 0)
        strbuf_addz(&s->text, codes[colour]);
    strbuf_add(&s->text, text);
    if (s->colours && colour != PLAIN && text.n > 0)
        strbuf_addz(&s->text, "\033[0m");
    s->column += text.n;
}

/* Of others: no byte of it reaches the terminal as it is unless it is printable. */
static void put(struct screen *s, enum colour colour, const char *text)
{
    struct strbuf safe = {0};
    strbuf_add_escaped(&safe, str_of(text));
    put_bytes(s, colour, strbuf_str(&safe));
    strbuf_free(&safe);
}

/* In a field of `width` columns, with a space after it; width < 0: to the left of it. */
static void put_field(struct screen *s, enum colour colour, int width, const char *text)
{
    struct strbuf safe = {0};
    strbuf_add_escaped(&safe, str_of(text));
    size_t n = safe.n, want = (size_t)(width < 0 ? -width : width);
    if (n > want)
        n = want;
    for (size_t i = n; width < 0 && i < want; i++)
        put_bytes(s, PLAIN, STR(" "));
    put_bytes(s, colour, str_upto(strbuf_str(&safe), n));
    for (size_t i = n; width > 0 && i < want; i++)
        put_bytes(s, PLAIN, STR(" "));
    put_bytes(s, PLAIN, STR(" "));
    strbuf_free(&safe);
}

static void put_line(struct screen *s)
{
    if (s->colours)
        strbuf_addz(&s->text, "\033[K\r");
    strbuf_addc(&s->text, '\n');
    s->line++;
    s->column = 0;
}
static bool is_full(const struct screen *s) { return s->rows > 0 && s->line + 2 >= s->rows; }

/* ---- numbers ---- */

static const char *rate(double n, char out[32])
{
    (void)snprintf(out, 32,
                   n >= 10000          ? "%.1fk/s"
                   : n >= 10 || n == 0 ? "%.0f/s"
                                       : "%.1f/s",
                   n >= 10000 ? n / 1000 : n);
    return out;
}
static const char *duration(const json_t *o, const char *name, char out[32])
{
    const json_t *v = json_object_get(o, name);
    double us = json_number_value(v);
    if (!json_is_number(v))
        (void)snprintf(out, 32, "-");
    else if (us < 1)
        (void)snprintf(out, 32, "<1 us");
    else if (us < 1000)
        (void)snprintf(out, 32, us < 10 ? "%.1f us" : "%.0f us", us);
    else if (us < 1e6)
        (void)snprintf(out, 32, us < 1e5 ? "%.1f ms" : "%.0f ms", us / 1000);
    else
        (void)snprintf(out, 32, "%.2f s", us / 1e6);
    return out;
}
static const char *bytes(double n, char out[32])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    size_t i = 0;
    for (; n >= 1024 && i + 1 < ARRAY_LEN(units); i++)
        n /= 1024;
    (void)snprintf(out, 32, n >= 100 || i == 0 ? "%.0f %s" : "%.1f %s", n, units[i]);
    return out;
}
static const char *number(double n, char out[32])
{
    (void)snprintf(out, 32, "%.0f", n);
    return out;
}
static const char *span(double seconds, char out[32])
{
    if (seconds < 60)
        (void)snprintf(out, 32, "%.0f s", seconds > 0 ? seconds : 0);
    else if (seconds < 3600)
        (void)snprintf(out, 32, "%.0f min", seconds / 60);
    else if (seconds < 172800)
        (void)snprintf(out, 32, "%.0f h", seconds / 3600);
    else
        (void)snprintf(out, 32, "%.0f d", seconds / 86400);
    return out;
}

/* ---- what is shown ---- */

static enum colour state_colour(const char *state)
{
    return strcmp(state, "good") == 0   ? GREEN
           : strcmp(state, "bad") == 0  ? RED
           : strcmp(state, "warn") == 0 ? YELLOW
                                        : SOFT;
}

static void draw_head(struct screen *s, const json_t *d)
{
    char a[32], b[32];
    bool ready = json_is_true(json_object_get(d, "ready"));
    put(s, BOLD, "weir ");
    put(s, BOLD, ask_text(d, "gatewayNamespace"));
    put(s, BOLD, "/");
    put(s, BOLD, ask_text(d, "gateway"));
    put(s, PLAIN, "  ");
    put(s, ready ? GREEN : RED,
        strcmp(ask_text(d, "life"), "draining") == 0 ? "Draining"
        : ready                                      ? "Ready"
                                                     : "Not ready");
    char *rest = mem_printf("  up %s  %.0f workers  configuration %s", span(ask_number(d, "uptimeSeconds"), a),
                            ask_number(d, "workers"), number(ask_number(d, "adoptedVersion"), b));
    put(s, SOFT, rest);
    mem_free(rest);
    put_line(s);
    size_t i;
    json_t *problem;
    json_array_foreach(json_object_get(d, "problems"), i, problem)
    {
        if (i == 3 || is_full(s))
            break;
        put(s, YELLOW, "! ");
        put(s, YELLOW, json_string_value(problem) != NULL ? json_string_value(problem) : "");
        put_line(s);
    }
}

static void draw_traffic(struct screen *s, const json_t *d)
{
    const json_t *t = json_object_get(d, "traffic"), *now = json_object_get(t, "last10s");
    char r[32], e[32], p50[32], p99[32], up[32], m[32], budget[32];
    double errors = ask_number(now, "errorsPerSecond");
    char *line =
        mem_printf("requests %-9s p50 %-8s p99 %-8s upstream p99 %-8s open %.0f  connections %.0f+%.0f",
                   rate(ask_number(now, "requestsPerSecond"), r), duration(now, "p50Micros", p50),
                   duration(now, "p99Micros", p99), duration(now, "upstreamP99Micros", up), ask_number(t, "streams"),
                   ask_number(t, "connections"), ask_number(t, "upstreamConnections"));
    put(s, PLAIN, line);
    mem_free(line);
    put_line(s);
    put(s, PLAIN, "errors   ");
    put_field(s, errors > 0 ? RED : PLAIN, 9, rate(errors, e));
    line = mem_printf("memory %s of %s", bytes(ask_number(d, "memoryUsedBytes"), m),
                      bytes(ask_number(d, "memoryBudgetBytes"), budget));
    put(s, PLAIN, line);
    mem_free(line);
    put_line(s);
}

static void draw_plugin(struct screen *s, const json_t *p)
{
    char text[32];
    const json_t *now = json_object_get(p, "last10s");
    const char *state = ask_text(p, "state"), *phase = ask_text(p, "phase");
    char *title = mem_printf("%s/%s", ask_text(p, "namespace"), ask_text(p, "name"));
    double errors = ask_number(p, "failed") + ask_number(p, "bypassed"), traps = ask_number(p, "traps");
    put_field(s, PLAIN, 34, title);
    put_field(s, state_colour(state), 20, strcmp(state, "warn") == 0 ? "LooksWrong" : ask_text(p, "reason"));
    put_field(s, PLAIN, 6, phase[0] != '\0' ? phase : "-");
    put_field(s, PLAIN, 12, ask_text(p, "sha256"));
    put_field(s, PLAIN, -9, rate(ask_number(now, "requestsPerSecond"), text));
    put_field(s, PLAIN, -8, duration(now, "p50Micros", text));
    put_field(s, PLAIN, -8, duration(now, "p99Micros", text));
    (void)snprintf(text, sizeof text, "%.1f%%", ask_number(now, "busyCores") * 100);
    put_field(s, PLAIN, -6, text);
    put_field(s, PLAIN, -9, bytes(ask_number(p, "memoryBytes"), text));
    put_field(s, PLAIN, -6, number(ask_number(p, "swaps"), text));
    put_field(s, errors > 0 ? RED : PLAIN, -7, number(errors, text));
    put_field(s, traps > 0 ? RED : PLAIN, -6, number(traps, text));
    put_line(s);
    mem_free(title);
    if (strcmp(state, "good") != 0 && ask_text(p, "message")[0] != '\0' && !is_full(s)) {
        put(s, SOFT, "    ");
        put(s, SOFT, ask_text(p, "message"));
        put_line(s);
    }
}

static void draw_plugins(struct screen *s, const json_t *d)
{
    static const struct {
        const char *name;
        int width;
    } columns[] = {{"PLUGIN", 34}, {"STATE", 20}, {"PHASE", 6},   {"SHA256", 12}, {"REQUESTS", -9}, {"P50", -8},
                   {"P99", -8},    {"CPU", -6},   {"MEMORY", -9}, {"SWAPS", -6},  {"ERRORS", -7},   {"TRAPS", -6}};
    const json_t *plugins = json_object_get(d, "plugins");
    put_line(s);
    if (json_array_size(plugins) == 0) {
        put(s, SOFT, "no plugins");
        put_line(s);
        return;
    }
    for (size_t i = 0; i < ARRAY_LEN(columns); i++)
        put_field(s, BOLD, columns[i].width, columns[i].name);
    put_line(s);
    size_t i;
    json_t *p;
    json_array_foreach(plugins, i, p)
    {
        if (is_full(s))
            return;
        draw_plugin(s, p);
    }
}

static void draw_events(struct screen *s, const json_t *d)
{
    size_t i;
    json_t *e;
    if (is_full(s))
        return;
    put_line(s);
    json_array_foreach(json_object_get(d, "events"), i, e)
    {
        if (is_full(s) || i == 20)
            return;
        char *object = mem_printf("%s %s/%s", ask_text(e, "kind"), ask_text(e, "namespace"), ask_text(e, "name"));
        put_field(s, SOFT, 20, ask_text(e, "lastTime"));
        put_field(s, strcmp(ask_text(e, "type"), "Warning") == 0 ? RED : GREEN, 20, ask_text(e, "reason"));
        put_field(s, PLAIN, 40, object);
        put(s, SOFT, ask_text(e, "message"));
        put_line(s);
        mem_free(object);
    }
}

static void draw(struct screen *s, const json_t *d)
{
    draw_head(s, d);
    draw_traffic(s, d);
    draw_plugins(s, d);
    draw_events(s, d);
}

/* ---- the terminal ---- */

static void write_all(struct str text)
{
    while (text.n > 0) {
        ssize_t n = write(STDOUT_FILENO, text.p, text.n);
        if (n < 0 && errno != EINTR && errno != EAGAIN)
            return;
        if (n > 0)
            text = str_from(text, (size_t)n);
    }
}

static bool size_of(struct screen *s)
{
    struct winsize w;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) != 0 || w.ws_col == 0)
        return false;
    s->width = w.ws_col;
    s->rows = w.ws_row;
    return true;
}

/* True when it is over: q, end of input, or a signal that asks for it. A new size of the window is drawn at once. */
static bool wait_for_key(int signals, uint64_t seconds)
{
    struct pollfd p[] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = signals, .events = POLLIN}};
    struct signalfd_siginfo info;
    char c = 0;
    if (poll(p, ARRAY_LEN(p), (int)seconds * 1000) <= 0)
        return false;
    if (p[1].revents != 0)
        return read(signals, &info, sizeof info) != sizeof info || info.ssi_signo != SIGWINCH;
    return read(STDIN_FILENO, &c, 1) != 1 || c == 'q' || c == 'Q';
}

static int watch(const char *admin, uint64_t interval)
{
    struct termios before, raw;
    sigset_t signals;
    if (tcgetattr(STDIN_FILENO, &before) != 0)
        return cli_usage_error("top", "standard input is no terminal; --once prints it once");
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGHUP);
    sigaddset(&signals, SIGWINCH);
    sigprocmask(SIG_BLOCK, &signals, NULL); /* they are read, when the terminal can be put back */
    int fd = signalfd(-1, &signals, SFD_CLOEXEC);
    ASSERT(fd >= 0);
    raw = before;
    raw.c_lflag &= (tcflag_t) ~(ICANON | ECHO);
    tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    write_all(STR("\033[?1049h\033[?25l"));
    bool over = false;
    while (!over) {
        struct screen s = {.width = 80, .rows = 24, .colours = true};
        char *error = NULL;
        size_of(&s);
        strbuf_addz(&s.text, "\033[H");
        json_t *d = ask_json(admin, "/stats", &error);
        if (d != NULL)
            draw(&s, d);
        else
            put(&s, RED, error);
        strbuf_addz(&s.text, "\033[J");
        write_all(strbuf_str(&s.text));
        strbuf_free(&s.text);
        json_decref(d);
        mem_free(error);
        over = wait_for_key(fd, interval);
    }
    write_all(STR("\033[?25h\033[?1049l"));
    tcsetattr(STDIN_FILENO, TCSANOW, &before);
    close(fd);
    return CLI_OK;
}

static int once(const char *admin)
{
    struct screen s = {.width = 240};
    char *error = NULL;
    json_t *d = ask_json(admin, "/stats", &error);
    if (d == NULL) {
        fprintf(stderr, "weir top: %s\n", error);
        mem_free(error);
        return CLI_FAILED;
    }
    size_of(&s);
    s.rows = 0;
    draw(&s, d);
    write_all(strbuf_str(&s.text));
    strbuf_free(&s.text);
    json_decref(d);
    return CLI_OK;
}

int cli_top(int argc, char **argv)
{
    struct cli_args a = {.argc = argc, .argv = argv};
    const char *admin = "127.0.0.1:15000";
    bool just_once = isatty(STDOUT_FILENO) == 0;
    uint64_t seconds = 1;
    while (cli_next(&a)) {
        const char *value = NULL;
        if (a.name != NULL && strcmp(a.name, "help") == 0) {
            fputs(help_text, stdout);
            return CLI_OK;
        }
        if (a.name != NULL && strcmp(a.name, "once") == 0 && a.value == NULL) {
            just_once = true;
            continue;
        }
        if (a.name == NULL || (strcmp(a.name, "admin") != 0 && strcmp(a.name, "interval") != 0))
            return cli_usage_error("top", "no option %s", a.name != NULL ? a.name : a.value);
        if ((value = cli_value(&a)) == NULL)
            return CLI_USAGE;
        if (strcmp(a.name, "admin") == 0)
            admin = value;
        else if (!str_to_u64(str_of(value), 3600, &seconds) || seconds == 0)
            return cli_usage_error("top", "--interval wants seconds, 1 to 3600");
    }
    return just_once ? once(admin) : watch(admin, seconds);
}
