/* SPDX-License-Identifier: Apache-2.0
 *
 * weir run: reads the command line into control_options, and serves.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/registry_options.h"
#include "conf/number.h"
#include "control/options.h"
#include "fetch/transfer.h"

static const uint64_t CACHE_BYTES_DEFAULT = 2ull << 30;
enum { NOT_MINE = -1 };

static const char help_text[] =
    "usage: weir run [OPTIONS] [PATH...]\n"
    "\n"
    "Serves the resources in files or directories (default: .; with --kubernetes or --kube-api none) and\n"
    "reloads when they change.\n"
    "\n"
    "  --name N             who this gateway is (default weir)\n"
    "  --namespace NS       its namespace (default istio-system)\n"
    "  --labels k=v,...     its labels, which selectors match (default istio=ingressgateway)\n"
    "  --admin ADDR         admin and metrics (default 127.0.0.1:15000; \"off\": none)\n"
    "  --probe ADDR         /ready, /healthz and /metrics alone, on any address (default: none)\n"
    "  --admin-any-address  allow an --admin address that is not loopback\n"
    "  --kube-api ADDR      serve kubectl on this loopback address (127.0.0.1:8080: kubectl finds it by itself)\n"
    "  --state-dir DIR      objects that kubectl applied (default: $XDG_STATE_HOME/weir/NAME)\n"
    "  --workers N          worker threads (default: one for each CPU)\n"
    "  --log-level L        trace, debug, info (default), warn, error, critical, off\n"
    "  --cache-dir DIR      modules and their native code (default: $XDG_CACHE_HOME/weir/modules)\n"
    "  --cache-size SIZE    what it may hold; what is in use stays (default 2Gi; 0: no limit)\n"
    "  --compile-tier T     auto (default: fast code first where waiting hurts), optimised, or fast\n"
    "  --registry NAME=URL  where images are whose reference begins with NAME; several of one NAME are mirrors\n"
    "  --registries FILE    more of them, with certificates and credentials\n"
    "  --insecure-registry HOST  https without verification, or plain http, for this one\n"
    "  --module-dir DIR     where file:// modules of plugins that came by kubectl or a cluster may lie\n"
    "  --allow-host-env N,. variables of this process that such plugins may read\n"
    "  --allow-fetch-to C,. link-local or metadata addresses (CIDRs) that modules may be fetched from all the same\n"
    "  --drain-time S       seconds that streams get to end after SIGTERM (default 30)\n"
    "  --dns-servers LIST   servers to ask for hosts of ServiceEntries (default: the system's)\n"
    "  --kubernetes         read resources from a Kubernetes cluster too\n"
    "  --kubeconfig FILE    how to reach it (default: the pod's service account, else $KUBECONFIG or ~/.kube/config)\n"
    "  --watch-namespace NS read this namespace only; may be given more than once (default: all)\n"
    "  --label-selector SEL read only objects with these labels (not Services, EndpointSlices, Namespaces, classes)\n"
    "  --show-plugin-config /config shows pluginConfig, which may hold secrets\n"
    "\n"
    "Logs go to standard error, access logs to standard output. SIGTERM drains; a second one ends at once.\n";

static char *default_cache_dir(void)
{
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (xdg != NULL && xdg[0] == '/')
        return mem_printf("%s/weir/modules", xdg);
    if (home != NULL && home[0] == '/' && home[1] != '\0')
        return mem_printf("%s/.cache/weir/modules", home);
    return mem_printf("/tmp/weir-%u/modules", (unsigned)geteuid());
}

static char *default_state_dir(const char *name)
{
    const char *xdg = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    if (xdg != NULL && xdg[0] == '/')
        return mem_printf("%s/weir/%s", xdg, name);
    if (home != NULL && home[0] == '/' && home[1] != '\0')
        return mem_printf("%s/.local/state/weir/%s", home, name);
    return mem_printf("/var/lib/weir/%s", name);
}

static bool number(const char *text, uint64_t min, uint64_t max, uint64_t *out)
{
    return str_to_u64(str_of(text), max, out) && *out >= min;
}

/* The words between commas, copied, behind those that are there. */
static void add_words(const char *const **list, size_t *count, const char *text)
{
    char **words = (char **)(uintptr_t)*list;
    struct str rest = str_of(text);
    while (rest.p != NULL) {
        struct str one = str_trim(str_split(&rest, ','));
        if (one.n == 0)
            continue;
        words = mem_realloc(words, (*count + 1) * sizeof *words);
        words[(*count)++] = str_dup(one);
    }
    *list = (const char *const *)words;
}

static void free_words(const char *const *list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        mem_free((void *)(uintptr_t)list[i]);
    mem_free((void *)(uintptr_t)list);
}

/* ---- options that are more than text; false: the value is not one ---- */

static bool take_name(struct control_options *o, const char *v)
{
    mem_free(o->identity.name);
    o->identity.name = mem_strdup(v);
    return true;
}

static bool take_namespace(struct control_options *o, const char *v)
{
    mem_free(o->identity.ns);
    o->identity.ns = mem_strdup(v);
    return true;
}

static bool take_labels(struct control_options *o, const char *v)
{
    cli_labels_free(&o->identity.labels);
    return cli_labels(v, &o->identity.labels);
}

static bool take_admin(struct control_options *o, const char *v)
{
    o->has_admin = strcmp(v, "off") != 0;
    return !o->has_admin || addr_parse(str_of(v), &o->admin);
}

static bool take_kube_api(struct control_options *o, const char *v)
{
    o->has_kube_api = true;
    return addr_parse(str_of(v), &o->kube_api) && addr_is_loopback(&o->kube_api);
}

static bool take_probe(struct control_options *o, const char *v)
{
    o->has_probe = true;
    return addr_parse(str_of(v), &o->probe);
}

static bool take_workers(struct control_options *o, const char *v)
{
    uint64_t n = 0;
    bool ok = number(v, 1, 256, &n);
    o->workers = (unsigned)n;
    return ok;
}

static bool take_drain_time(struct control_options *o, const char *v)
{
    uint64_t n = 0;
    bool ok = number(v, 0, 86400, &n);
    o->drain_time_ms = (uint32_t)n * 1000;
    return ok;
}

static bool take_log_level(struct control_options *o, const char *v)
{
    enum log_level level;
    (void)o;
    if (!log_level_parse(str_of(v), &level))
        return false;
    log_set_level(level);
    return true;
}

static bool take_cache_size(struct control_options *o, const char *v)
{
    return number_parse_bytes(str_of(v), &o->cache_bytes);
}

static bool take_compile_tier(struct control_options *o, const char *v) { return tier_policy_parse(v, &o->tiers); }

static bool take_watch_namespace(struct control_options *o, const char *v)
{
    add_words(&o->watch_namespaces, &o->watch_namespace_count, v);
    return true;
}

static bool take_host_env(struct control_options *o, const char *v)
{
    add_words(&o->host_env, &o->host_env_count, v);
    return true;
}

static bool take_fetch_allow(struct control_options *o, const char *v)
{
    size_t before = o->fetch_allow_count;
    bool ok = true;
    add_words(&o->fetch_allow, &o->fetch_allow_count, v);
    for (size_t i = before; i < o->fetch_allow_count; i++)
        ok = ok && transfers_allow_parse(o->fetch_allow[i]);
    return ok;
}

/* ---- all of them ---- */

enum option_kind { OPTION_FLAG, OPTION_TEXT, OPTION_TAKEN };
static const struct option {
    const char *name;
    enum option_kind kind;
    size_t member; /* OPTION_FLAG, OPTION_TEXT: of struct control_options */
    bool (*take)(struct control_options *o, const char *v);
    const char *want; /* what take takes */
} options[] = {
    {"show-plugin-config", OPTION_FLAG, offsetof(struct control_options, show_plugin_config), NULL, NULL},
    {"admin-any-address", OPTION_FLAG, offsetof(struct control_options, admin_any_address), NULL, NULL},
    {"kubernetes", OPTION_FLAG, offsetof(struct control_options, kubernetes), NULL, NULL},
    {"cache-dir", OPTION_TEXT, offsetof(struct control_options, cache_dir), NULL, NULL},
    {"state-dir", OPTION_TEXT, offsetof(struct control_options, state_dir), NULL, NULL},
    {"dns-servers", OPTION_TEXT, offsetof(struct control_options, dns_servers), NULL, NULL},
    {"kubeconfig", OPTION_TEXT, offsetof(struct control_options, kubeconfig), NULL, NULL},
    {"label-selector", OPTION_TEXT, offsetof(struct control_options, label_selector), NULL, NULL},
    {"module-dir", OPTION_TEXT, offsetof(struct control_options, module_dir), NULL, NULL},
    {"name", OPTION_TAKEN, 0, take_name, ""},
    {"namespace", OPTION_TAKEN, 0, take_namespace, ""},
    {"watch-namespace", OPTION_TAKEN, 0, take_watch_namespace, ""},
    {"allow-host-env", OPTION_TAKEN, 0, take_host_env, ""},
    {"allow-fetch-to", OPTION_TAKEN, 0, take_fetch_allow, "an address or CIDR such as 10.0.0.0/8"},
    {"labels", OPTION_TAKEN, 0, take_labels, "k=v,k=v"},
    {"admin", OPTION_TAKEN, 0, take_admin, "IP:PORT"},
    {"kube-api", OPTION_TAKEN, 0, take_kube_api, "a loopback IP:PORT, such as 127.0.0.1:8080"},
    {"probe", OPTION_TAKEN, 0, take_probe, "IP:PORT"},
    {"workers", OPTION_TAKEN, 0, take_workers, "1 to 256"},
    {"drain-time", OPTION_TAKEN, 0, take_drain_time, "seconds, 0 to 86400"},
    {"cache-size", OPTION_TAKEN, 0, take_cache_size, "a size such as 500Mi or 2Gi, or 0"},
    {"compile-tier", OPTION_TAKEN, 0, take_compile_tier, "auto, optimised or fast"},
    {"log-level", OPTION_TAKEN, 0, take_log_level, "trace, debug, info, warn, error, critical or off"},
};

static const struct option *option_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(options); i++)
        if (strcmp(options[i].name, name) == 0)
            return &options[i];
    return NULL;
}

/* One option into o; CLI_OK, or the usage error it printed. */
static int take_option(struct cli_args *a, struct control_options *o)
{
    const struct option *option = option_find(a->name);
    int registry = option == NULL ? registry_option(o->registries, "run", a) : NOT_MINE;
    if (registry != NOT_MINE)
        return registry;
    if (option == NULL)
        return cli_usage_error("run", "no option --%s", a->name);
    char *member = (char *)o + option->member;
    if (option->kind == OPTION_FLAG) { /* "=false" would else turn it on */
        if (a->value != NULL)
            return cli_usage_error("run", "--%s takes no value", a->name);
        *(bool *)(void *)member = true;
        return CLI_OK;
    }
    const char *v = cli_value(a);
    if (v == NULL)
        return CLI_USAGE;
    if (option->kind == OPTION_TEXT)
        *(const char **)(void *)member = v;
    else if (!option->take(o, v))
        return cli_usage_error("run", "--%s \"%s\": want %s", a->name, v, option->want);
    return CLI_OK;
}

/* A gateway needs two descriptors for each stream; the usual soft limit of 1,024 is for programs that use select(2). */
static void raise_descriptor_limit(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0)
        return;
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
}

static void fill_defaults(struct control_options *o)
{
    if (o->identity.name == NULL)
        o->identity.name = mem_strdup("weir");
    if (o->identity.ns == NULL)
        o->identity.ns = mem_strdup("istio-system");
    if (o->identity.labels.count == 0)
        ASSERT(cli_labels("istio=ingressgateway", &o->identity.labels));
    if (o->workers == 0) {
        long cpus = sysconf(_SC_NPROCESSORS_ONLN);
        o->workers = cpus < 1 ? 1 : cpus > 256 ? 256 : (unsigned)cpus;
    }
}

static void options_free(struct control_options *o)
{
    free_words(o->host_env, o->host_env_count);
    free_words(o->fetch_allow, o->fetch_allow_count);
    registry_table_free(o->registries);
    mem_free(o->identity.name);
    mem_free(o->identity.ns);
    cli_labels_free(&o->identity.labels);
    free_words(o->watch_namespaces, o->watch_namespace_count);
}

/* CLI_OK: o is complete. *done: all was said already. */
static int read_args(struct cli_args *a, struct control_options *o, const char **paths, bool *done)
{
    while (cli_next(a)) {
        if (a->name == NULL) {
            paths[o->path_count++] = a->value;
            continue;
        }
        if (strcmp(a->name, "help") == 0) {
            fputs(help_text, stdout);
            *done = true;
            return CLI_OK;
        }
        int code = take_option(a, o);
        if (code != CLI_OK)
            return code;
    }
    bool cluster_options = o->kubeconfig != NULL || o->label_selector != NULL || o->watch_namespace_count > 0;
    if (cluster_options && !o->kubernetes)
        return cli_usage_error("run", "--kubeconfig, --watch-namespace and --label-selector are for --kubernetes");
    if (o->path_count == 0 && !o->kubernetes && !o->has_kube_api)
        paths[o->path_count++] = ".";
    for (size_t i = 0; i < o->path_count; i++)
        if (access(paths[i], F_OK) != 0)
            return cli_usage_error("run", "%s: no such file or directory", paths[i]);
    if (o->has_admin && !o->admin_any_address && !addr_is_loopback(&o->admin))
        return cli_usage_error("run",
                               "--admin is not a loopback address: anyone who reaches it can drain this gateway; "
                               "--admin-any-address says that you want that");
    return CLI_OK;
}

static int serve(struct control_options *o)
{
    fill_defaults(o);
    char *cache = o->cache_dir == NULL ? default_cache_dir() : NULL;
    char *state = o->state_dir == NULL ? default_state_dir(o->identity.name) : NULL;
    if (cache != NULL)
        o->cache_dir = cache;
    if (state != NULL)
        o->state_dir = state;
    o->program = "/proc/self/exe"; /* also when the file has been replaced since: its code is what the cache is for */
    const char *delay = getenv("WEIR_TEST_COMPILE_DELAY_MS");
    uint64_t ms = 0;
    if (delay != NULL && str_to_u64(str_of(delay), 60000, &ms))
        o->compile_delay_ms = (uint32_t)ms;
    raise_descriptor_limit();
    log_start();
    int code = control_run(o);
    log_stop();
    mem_free(cache);
    mem_free(state);
    return code;
}

int cli_run(int argc, char **argv)
{
    struct control_options o = {.has_admin = true,
                                .drain_time_ms = 30000,
                                .cache_bytes = CACHE_BYTES_DEFAULT,
                                .registries = registry_table_new()};
    ASSERT(addr_parse(STR("127.0.0.1:15000"), &o.admin));
    const char **paths = mem_zalloc(((size_t)argc + 1) * sizeof *paths);
    struct cli_args a = {.argc = argc, .argv = argv};
    bool done = false;
    o.paths = paths;
    int code = read_args(&a, &o, paths, &done);
    if (code == CLI_OK && !done)
        code = serve(&o);
    options_free(&o);
    mem_free(paths);
    return code;
}
