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

static char *own_program(void)
{
    char path[4096];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path);
    return n > 0 && (size_t)n < sizeof path ? mem_strndup(path, (size_t)n) : mem_strdup("weir");
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

/* Where modules come from, and what is kept of them. */
static int take_module_option(struct cli_args *a, struct control_options *o)
{
    static const char *const mine[] = {"module-dir", "allow-host-env", "allow-fetch-to", "cache-size", "compile-tier"};
    int registry = registry_option(o->registries, "run", a);
    bool known = false;
    for (size_t i = 0; i < ARRAY_LEN(mine); i++)
        known |= strcmp(a->name, mine[i]) == 0;
    if (registry != NOT_MINE || !known)
        return registry;
    const char *v = cli_value(a);
    if (v == NULL)
        return CLI_USAGE;
    if (strcmp(a->name, "module-dir") == 0)
        o->module_dir = v;
    else if (strcmp(a->name, "allow-host-env") == 0)
        add_words(&o->host_env, &o->host_env_count, v);
    else if (strcmp(a->name, "cache-size") == 0) {
        if (!number_parse_bytes(str_of(v), &o->cache_bytes))
            return cli_usage_error("run", "--cache-size \"%s\": want a size such as 500Mi or 2Gi, or 0", v);
    } else if (strcmp(a->name, "compile-tier") == 0) {
        if (!tier_policy_parse(v, &o->tiers))
            return cli_usage_error("run", "--compile-tier \"%s\": want auto, optimised or fast", v);
    } else {
        size_t before = o->fetch_allow_count;
        add_words(&o->fetch_allow, &o->fetch_allow_count, v);
        for (size_t i = before; i < o->fetch_allow_count; i++)
            if (!transfers_allow_parse(o->fetch_allow[i]))
                return cli_usage_error("run", "--allow-fetch-to \"%s\": want an address or CIDR such as 10.0.0.0/8", v);
    }
    return CLI_OK;
}

static void namespaces_add(struct control_options *o, const char *ns)
{
    const char **list = mem_alloc((o->watch_namespace_count + 1) * sizeof *list);
    for (size_t i = 0; i < o->watch_namespace_count; i++)
        list[i] = o->watch_namespaces[i];
    list[o->watch_namespace_count++] = ns;
    mem_free((void *)(uintptr_t)o->watch_namespaces);
    o->watch_namespaces = list;
}

/* One option into o; CLI_OK, or the usage error it printed. */
static int take_option(struct cli_args *a, struct control_options *o)
{
    struct str name = str_of(a->name);
    uint64_t n = 0;
    if (str_is(name, "show-plugin-config")) {
        o->show_plugin_config = true;
        return CLI_OK;
    }
    if (str_is(name, "admin-any-address")) {
        o->admin_any_address = true;
        return CLI_OK;
    }
    if (str_is(name, "kubernetes")) {
        o->kubernetes = true;
        return CLI_OK;
    }
    int module = take_module_option(a, o);
    if (module != NOT_MINE)
        return module;
    const char *v = cli_value(a);
    if (v == NULL)
        return CLI_USAGE;
    if (str_is(name, "name"))
        o->identity.name = mem_strdup(v);
    else if (str_is(name, "namespace"))
        o->identity.ns = mem_strdup(v);
    else if (str_is(name, "cache-dir"))
        o->cache_dir = v;
    else if (str_is(name, "state-dir"))
        o->state_dir = v;
    else if (str_is(name, "dns-servers"))
        o->dns_servers = v;
    else if (str_is(name, "kubeconfig"))
        o->kubeconfig = v;
    else if (str_is(name, "label-selector"))
        o->label_selector = v;
    else if (str_is(name, "watch-namespace"))
        namespaces_add(o, v);
    else if (str_is(name, "labels")) {
        if (!cli_labels(v, &o->identity.labels))
            return cli_usage_error("run", "--labels \"%s\": want k=v,k=v", v);
    } else if (str_is(name, "probe")) {
        o->has_probe = true;
        if (!addr_parse(str_of(v), &o->probe))
            return cli_usage_error("run", "--probe \"%s\": want IP:PORT", v);
    } else if (str_is(name, "admin")) {
        o->has_admin = strcmp(v, "off") != 0;
        if (o->has_admin && !addr_parse(str_of(v), &o->admin))
            return cli_usage_error("run", "--admin \"%s\": want IP:PORT", v);
    } else if (str_is(name, "kube-api")) {
        o->has_kube_api = true;
        if (!addr_parse(str_of(v), &o->kube_api) || !addr_is_loopback(&o->kube_api))
            return cli_usage_error("run", "--kube-api \"%s\": want a loopback IP:PORT, such as 127.0.0.1:8080", v);
    } else if (str_is(name, "workers")) {
        if (!number(v, 1, 256, &n))
            return cli_usage_error("run", "--workers \"%s\": want 1 to 256", v);
        o->workers = (unsigned)n;
    } else if (str_is(name, "drain-time")) {
        if (!number(v, 0, 86400, &n))
            return cli_usage_error("run", "--drain-time \"%s\": want seconds, 0 to 86400", v);
        o->drain_time_ms = (uint32_t)n * 1000;
    } else if (str_is(name, "log-level")) {
        enum log_level level;
        if (!log_level_parse(str_of(v), &level))
            return cli_usage_error("run", "--log-level \"%s\": want trace, debug, info, warn, error, critical or off",
                                   v);
        log_set_level(level);
    } else {
        return cli_usage_error("run", "no option --%s", a->name);
    }
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
    mem_free((void *)(uintptr_t)o->watch_namespaces);
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
    char *cache = o->cache_dir == NULL ? default_cache_dir() : NULL, *program = own_program();
    char *state = o->state_dir == NULL ? default_state_dir(o->identity.name) : NULL;
    if (cache != NULL)
        o->cache_dir = cache;
    if (state != NULL)
        o->state_dir = state;
    o->program = program;
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
    mem_free(program);
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
