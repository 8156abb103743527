/* SPDX-License-Identifier: Apache-2.0
 *
 * A plugin in a real worker: its own thread and loop, loopback sockets, the real engine and a guest compiled from
 * filter_guest.c. What the fakes of test_plugin_slot.c cannot show: that streams, callouts, ticks and deaths fit
 * together. This thread is client, upstream and control at once.
 */
#include "../wasm/guest.h"

#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>

#include "base/log.h"
#include "conf/resource.h"
#include "io/listener.h"
#include "proxy/worker.h"
#include "wasm/plugin.h"

static struct engine *engine;
static struct module *module;

/* ---- an upstream: answers every GET with the head that it got ---- */

static struct {
    int fd;
    uint16_t port;
    pthread_t thread;
} upstream;

static bool read_head(int fd, char *buf, size_t room)
{
    size_t n = 0;

    while (n + 1 < room) {
        ssize_t got = read(fd, buf + n, room - 1 - n);
        if (got <= 0)
            return false;
        n += (size_t)got;
        buf[n] = 0;
        if (strstr(buf, "\r\n\r\n") != NULL)
            return true;
    }
    return false;
}

static void *serve_one(void *arg)
{
    int fd = (int)(intptr_t)arg;
    char head[8192], out[9000];

    while (read_head(fd, head, sizeof head)) {
        int n = snprintf(out, sizeof out, "HTTP/1.1 200 OK\r\ncontent-length: %zu\r\n\r\n%s", strlen(head), head);
        if (write(fd, out, (size_t)n) != n)
            break;
    }
    close(fd);
    return NULL;
}

static void *serve(void *arg)
{
    (void)arg;
    for (;;) {
        int fd = accept(upstream.fd, NULL, NULL);
        pthread_t t;
        if (fd < 0)
            return NULL;
        if (pthread_create(&t, NULL, serve_one, (void *)(intptr_t)fd) != 0)
            close(fd);
        else
            pthread_detach(t);
    }
}

static void upstream_start(void)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof in;

    upstream.fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(upstream.fd, (struct sockaddr *)&in, len), 0);
    assert_int_equal(listen(upstream.fd, 64), 0);
    assert_int_equal(getsockname(upstream.fd, (struct sockaddr *)&in, &len), 0);
    upstream.port = ntohs(in.sin_port);
    assert_int_equal(pthread_create(&upstream.thread, NULL, serve, NULL), 0);
}

static void upstream_stop(void)
{
    shutdown(upstream.fd, SHUT_RDWR);
    pthread_join(upstream.thread, NULL);
    close(upstream.fd);
}

/* ---- control ---- */

struct fixture {
    struct loop loop;
    struct mailbox *control;
    struct worker *worker;
    struct identity identity;
    struct plugin *plugin;
    uint16_t port;
    unsigned lost, freed;
    bool adopted, listening, quarantined, replaces;
    char callback[64], reason[128];
};

static void give_vm(struct fixture *f);

static void on_mail(void *arg, struct mail *mail)
{
    struct fixture *f = arg;
    struct mail_from_worker *m = CONTAINER_OF(mail, struct mail_from_worker, mail);

    switch ((enum worker_mail)mail->type) {
    case MAIL_ADOPTED: f->adopted = true; break;
    case MAIL_LISTENING: f->listening = true; break;
    case MAIL_VM_FREED: f->freed++; break;
    case MAIL_VM_LOST:
        f->lost++;
        f->quarantined = m->quarantined;
        snprintf(f->callback, sizeof f->callback, "%s", m->callback);
        snprintf(f->reason, sizeof f->reason, "%s", m->reason);
        if (f->replaces && !m->quarantined)
            give_vm(f);
        break;
    default: break;
    }
    mem_free(m->plugin);
    mem_free(m->callback);
    mem_free(m->reason);
    mem_free(m);
}

static void wait_until(struct fixture *f, const bool *what)
{
    while (!*what)
        uv_run(&f->loop.uv, UV_RUN_ONCE);
}

static void wait_lost(struct fixture *f, unsigned n)
{
    while (f->lost < n)
        uv_run(&f->loop.uv, UV_RUN_ONCE);
}

static const struct host_ops early_ops = {0};

static void give_vm(struct fixture *f)
{
    struct mail_vm *m = mem_zalloc(sizeof *m);
    char *error = NULL;

    m->mail.type = MAIL_VM;
    if (plugin_vm_new(f->plugin, &early_ops, &m->vm, &error) != START_OK)
        fail_msg("%s", error);
    mailbox_post(worker_mailbox(f->worker), &m->mail);
}

static void give_endpoints(struct fixture *f, const char *key)
{
    struct mail_endpoints *m = mem_zalloc(sizeof *m);
    char text[32];

    m->mail.type = MAIL_ENDPOINTS;
    m->key = mem_strdup(key);
    m->list = mem_zalloc(sizeof *m->list);
    m->count = 1;
    snprintf(text, sizeof text, "127.0.0.1:%u", upstream.port);
    assert_true(addr_parse(str_of(text), &m->list->addr));
    m->list->weight = 1;
    mailbox_post(worker_mailbox(f->worker), &m->mail);
}

static const char route_yaml[] = "apiVersion: gateway.networking.k8s.io/v1\n"
                                 "kind: HTTPRoute\n"
                                 "metadata: {name: all, namespace: shop}\n"
                                 "spec:\n"
                                 "  parentRefs: [{name: gw}]\n"
                                 "  rules:\n"
                                 "  - backendRefs: [{name: api, port: 80}]\n";

static struct route_table *make_routes(void)
{
    struct documents docs = {0};
    struct route_backend backend = {.cluster = (char *)"shop/api:80", .weight = 1};
    const struct route_backend *backends[] = {&backend};
    const char *hosts[] = {""};
    struct route_table *t = route_table_new();

    resources_parse(STR(route_yaml), "test", "shop", &docs);
    assert_int_equal(docs.count, 1);
    if (docs.list[0].resource == NULL)
        fail_msg("%s", diag_format(&docs.list[0].diag.entries[0]));
    route_table_add(t, docs.list[0].resource, hosts, 1, backends);
    route_table_finish(t);
    documents_free(&docs);
    return t;
}

static void add_cluster(struct snapshot *s, size_t i, const char *key, const char *name)
{
    s->clusters[i].key = mem_strdup(key);
    s->clusters[i].names = mem_strdup(name);
    s->clusters[i].names_bytes = strlen(name) + 1;
}

static void give_snapshot(struct fixture *f, uint64_t version, const struct addr *addr, bool with_plugin)
{
    struct mail_snapshot *m = mem_zalloc(sizeof *m);
    struct snapshot *s = snapshot_new(version, &f->identity);

    s->clusters = mem_zalloc(2 * sizeof *s->clusters);
    s->cluster_count = 2;
    add_cluster(s, 0, "shop/api:80", "api");
    add_cluster(s, 1, "shop/auth:80", "auth");
    s->listeners = mem_zalloc(sizeof *s->listeners);
    s->listener_count = 1;
    struct listener_conf *l = s->listeners;
    l->addr = *addr;
    l->gateway = mem_strdup("shop/gw");
    limits_default(&l->limits);
    l->limits.access_log = ACCESS_LOG_OFF;
    l->routes = make_routes();
    if (with_plugin) {
        l->chain = mem_zalloc(sizeof *l->chain);
        l->chain_count = 1;
        l->chain[0] =
            (struct chain_entry){.title = mem_strdup("ns/p"), .plugin = plugin_ref(f->plugin), .fail = f->plugin->fail};
    }
    m->mail.type = MAIL_SNAPSHOT;
    m->snapshot = s;
    f->adopted = false;
    mailbox_post(worker_mailbox(f->worker), &m->mail);
    wait_until(f, &f->adopted);
}

static void give_listener(struct fixture *f, struct addr *addr)
{
    struct mail_listener *m = mem_zalloc(sizeof *m);
    socklen_t len = sizeof addr->u;

    assert_true(addr_parse(STR("127.0.0.1:0"), addr));
    m->mail.type = MAIL_LISTENER;
    m->fd = listener_open(addr, 16);
    assert_true(m->fd >= 0);
    assert_int_equal(getsockname(m->fd, &addr->u.sa, &len), 0);
    f->port = addr_port(addr);
    m->addr = *addr;
    mailbox_post(worker_mailbox(f->worker), &m->mail);
    wait_until(f, &f->listening);
}

static struct fixture *start(enum fail_strategy fail)
{
    struct fixture *f = mem_zalloc(sizeof *f);
    struct addr addr;

    guest_signals_restore();
    loop_init(&f->loop);
    f->control = mailbox_new(&f->loop, on_mail, f);
    f->identity = (struct identity){.name = (char *)"weir", .ns = (char *)"istio-system"};
    struct plugin desc = {.generation = 5,
                          .name = (char *)"ns.p",
                          .root_id = (char *)"",
                          .vm_id = (char *)"ns",
                          .fail = fail,
                          .limits = plugin_limits_default(),
                          .abi = ABI_0_2_1,
                          .module = module};
    desc.limits.cpu_deadline_ms = 50;
    f->plugin = plugin_new(&desc);
    f->worker = worker_start(0, 1, &f->identity, f->control);
    give_endpoints(f, "shop/api:80");
    give_endpoints(f, "shop/auth:80");
    give_listener(f, &addr);
    give_vm(f); /* before any chain has it, as control does */
    give_snapshot(f, 1, &addr, true);
    return f;
}

static void stop(struct fixture *f)
{
    worker_stop(f->worker);
    plugin_unref(f->plugin);
    mailbox_close(f->control, NULL);
    loop_fini(&f->loop);
    mem_free(f);
}

/* ---- a client ---- */

static int client(const struct fixture *f, const char *headers)
{
    struct sockaddr_in in = {
        .sin_family = AF_INET, .sin_port = htons(f->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    char out[1024];
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    assert_int_equal(connect(fd, (struct sockaddr *)&in, sizeof in), 0);
    int n =
        snprintf(out, sizeof out, "GET /a?b=c HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n%s\r\n", headers);
    assert_int_equal(write(fd, out, (size_t)n), n);
    return fd;
}

/* All that comes, while control's mail is read. */
static char answer[16384];
static void receive(struct fixture *f, int fd)
{
    size_t n = 0;
    ssize_t got;

    do {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        do
            uv_run(&f->loop.uv, UV_RUN_NOWAIT);
        while (poll(&p, 1, 5) == 0);
        got = read(fd, answer + n, sizeof answer - 1 - n);
        n += got > 0 ? (size_t)got : 0;
    } while (got > 0);
    answer[n] = 0;
    close(fd);
}

static unsigned ask(struct fixture *f, const char *headers)
{
    receive(f, client(f, headers));
    return answer[0] == 0 ? 0 : (unsigned)strtoul(answer + 9, NULL, 10);
}

#define assert_has(z)                                                                                                  \
    if (strstr(answer, z) == NULL)                                                                                     \
    fail_msg("no \"%s\" in \"%s\"", z, answer)
#define assert_has_not(z) assert_null(strstr(answer, z))

/* ---- tests ---- */

static void test_request_and_response(void **state)
{
    struct fixture *f = start(FAIL_CLOSE);

    (void)state;
    assert_int_equal(ask(f, ""), 200);
    assert_has("x-seen: 1\r\n");
    assert_has("x-filter: ");
    assert_int_equal(ask(f, "x-do: reply\r\n"), 401);
    assert_has("no key\n");
    assert_has("x-filter: "); /* its own reply passes it */
    assert_int_equal(ask(f, "x-do: close\r\n"), 0);
    stop(f);
}

/* The callout asked for in on_configure, before any cluster was known, has its answer. */
static void test_callout_while_configuring(void **state)
{
    struct fixture *f = start(FAIL_CLOSE);

    (void)state;
    do
        assert_int_equal(ask(f, ""), 200);
    while (strstr(answer, "x-filter: configured") == NULL);
    stop(f);
}

static void test_callout_and_tick_continue(void **state)
{
    struct fixture *f = start(FAIL_CLOSE);

    (void)state;
    assert_int_equal(ask(f, "x-do: call\r\n"), 200);
    assert_has("x-auth: 200\r\n");
    assert_int_equal(ask(f, "x-do: tick\r\n"), 200);
    assert_has("x-seen: 1\r\n");
    stop(f);
}

static void test_properties(void **state)
{
    struct fixture *f = start(FAIL_CLOSE);

    (void)state;
    assert_int_equal(ask(f, "x-do: property\r\nx-path: request.url_path\r\n"), 200);
    assert_has("\r\n\r\n/a");
    assert_int_equal(ask(f, "x-do: property\r\nx-path: xds.route_name\r\n"), 200);
    assert_has("\r\n\r\nshop.all.0");
    assert_int_equal(ask(f, "x-do: property\r\nx-path: node.metadata.NAMESPACE\r\n"), 200);
    assert_has("\r\n\r\nistio-system");
    assert_int_equal(ask(f, "x-do: property\r\nx-path: plugin_name\r\n"), 200);
    assert_has("\r\n\r\nns.p");
    assert_int_equal(ask(f, "x-do: property\r\nx-path: response.code\r\n"), 404);
    stop(f);
}

/* A paused stream and the one that kills the VM both get 503; with a new VM all is well. */
static void test_trap(void **state)
{
    struct fixture *f = start(FAIL_CLOSE);

    (void)state;
    int paused = client(f, "x-do: forever\r\n");
    assert_int_equal(ask(f, ""), 200); /* accepted in order: the other is inside by now */
    assert_int_equal(ask(f, "x-do: trap\r\n"), 503);
    receive(f, paused);
    assert_int_equal(strtoul(answer + 9, NULL, 10), 503);
    wait_lost(f, 1);
    assert_string_equal(f->callback, "proxy_on_request_headers");
    assert_non_null(strstr(f->reason, "unreachable"));
    assert_int_equal(ask(f, ""), 503);
    assert_has_not("x-seen");
    give_vm(f);
    assert_int_equal(ask(f, ""), 200);
    assert_has("x-seen: 1\r\n");
    stop(f);
}

static void test_trap_with_fail_open(void **state)
{
    struct fixture *f = start(FAIL_OPEN);

    (void)state;
    int paused = client(f, "x-do: forever\r\n");
    assert_int_equal(ask(f, ""), 200);
    assert_int_equal(ask(f, "x-do: trap\r\n"), 200);
    assert_has_not("x-filter");
    receive(f, paused);
    assert_int_equal(strtoul(answer + 9, NULL, 10), 200);
    assert_int_equal(ask(f, ""), 200);
    assert_has_not("x-seen");
    stop(f);
}

static void test_deadline_and_quarantine(void **state)
{
    struct fixture *f = start(FAIL_CLOSE);

    (void)state;
    f->replaces = true;
    assert_int_equal(ask(f, "x-do: loop\r\n"), 503);
    wait_lost(f, 1);
    assert_false(f->quarantined);
    for (unsigned i = 2; i <= 3; i++) {
        while (f->lost < i)
            assert_int_equal(ask(f, "x-do: trap\r\n"), 503);
    }
    assert_true(f->quarantined);
    assert_int_equal(ask(f, ""), 503);
    give_vm(f); /* it may have to wait */
    while (ask(f, "") != 200)
        assert_has_not("x-seen");
    assert_has("x-seen: 1\r\n");
    stop(f);
}

/* The plugin is taken out of the chain while a stream is in it: that one ends with its filter, and then the VM goes. */
static void test_retire(void **state)
{
    struct fixture *f = start(FAIL_CLOSE);
    struct mail_retire *m = mem_zalloc(sizeof *m);
    struct addr addr;
    char text[32];

    (void)state;
    snprintf(text, sizeof text, "127.0.0.1:%u", f->port);
    assert_true(addr_parse(str_of(text), &addr));
    int call = client(f, "x-do: forever\r\n");
    assert_int_equal(ask(f, ""), 200);
    give_snapshot(f, 2, &addr, false);
    m->mail.type = MAIL_RETIRE;
    m->generation = 5;
    mailbox_post(worker_mailbox(f->worker), &m->mail);
    assert_int_equal(ask(f, ""), 200);
    assert_has_not("x-seen");
    assert_int_equal(f->freed, 0);
    struct linger reset = {.l_onoff = 1};
    assert_int_equal(setsockopt(call, SOL_SOCKET, SO_LINGER, &reset, sizeof reset), 0);
    close(call);
    while (f->freed == 0)
        uv_run(&f->loop.uv, UV_RUN_ONCE);
    stop(f);
}

/* ---- all of it ---- */

static void compile(void)
{
    char out[] = "/tmp/weir-test-guest-XXXXXX", *error = NULL;
    int fd = mkstemp(out), status = -1;
    pid_t pid;
    size_t count;

    assert_true(fd >= 0);
    close(fd);
    char *argv[] = {(char *)"clang",
                    (char *)"--target=wasm32",
                    (char *)"-O2",
                    (char *)"-nostdlib",
                    (char *)"-ffreestanding",
                    (char *)"-Wl,--no-entry",
                    (char *)"-Wl,--allow-undefined",
                    (char *)"-o",
                    out,
                    (char *)WEIR_SOURCE_DIR "/tests/unit/proxy/filter_guest.c",
                    NULL};
    assert_int_equal(posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    struct strbuf wasm = guest_read_file(out), code = {0};
    unlink(out);
    const struct vm_host_func *table = abi_host_functions(&count);
    if (!engine_compile(engine, strbuf_str(&wasm), TIER_OPTIMISED, &code, &error) ||
        !module_load(engine, strbuf_str(&code), table, count, abi_unknown_import, &module, &error))
        fail_msg("%s", error);
    strbuf_free(&wasm);
    strbuf_free(&code);
}

static int group_setup(void **state)
{
    (void)state;
    compile();
    upstream_start();
    return 0;
}

static int group_teardown(void **state)
{
    (void)state;
    upstream_stop();
    module_unref(module);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_request_and_response),
        cmocka_unit_test(test_callout_while_configuring),
        cmocka_unit_test(test_callout_and_tick_continue),
        cmocka_unit_test(test_properties),
        cmocka_unit_test(test_trap),
        cmocka_unit_test(test_trap_with_fail_open),
        cmocka_unit_test(test_deadline_and_quarantine),
        cmocka_unit_test(test_retire),
    };

    signal(SIGPIPE, SIG_IGN);
    log_set_level(LOG_ERROR);
    engine = engine_new();
    guest_signals_save();
    int failed = cmocka_run_group_tests(tests, group_setup, group_teardown);
    engine_free(engine);
    return failed;
}
