/* SPDX-License-Identifier: Apache-2.0
 *
 * Plugin delivery with a real engine, builder, compiler child (this program, re-executed) and workers; what control
 * does (publish, adopt) is done here by hand, step by step.
 */
#include "control_test.h"

#include "../wasm/guest.h"
#include "control/delivery.h"

/* Starts; configures unless it is given a configuration. */
static const char guest_wat[] = "(module (memory (export \"memory\") 1)"
                                "(func (export \"proxy_abi_version_0_2_1\"))"
                                "(func (export \"proxy_on_memory_allocate\") (param i32) (result i32) i32.const 1024)"
                                "(func (export \"proxy_on_context_create\") (param i32 i32))"
                                "(func (export \"proxy_on_vm_start\") (param i32 i32) (result i32) i32.const 1)"
                                "(func (export \"proxy_on_configure\") (param i32 i32) (result i32)"
                                " (i32.eqz (local.get 1))))";

enum { WORKERS = 2 };
static struct store store;
static struct loop loop;
static struct mailbox *mailbox;
static struct engine *engine;
static struct worker *workers[WORKERS];
static struct identity identity;
static struct module_cache *cache;
static struct fetcher *fetcher;
static struct compiler *compiler;
static struct code_maker *maker;
static struct builder *builder;
static struct delivery *delivery;
static unsigned changes, builds;
static uint64_t version;
static struct strbuf wasm;
static char name[16]; /* of the plugin; another one for each test, so that its log lines are its own */

static const char *module_dir;
static const char *const host_env[] = {"WEIR_TEST_ALLOWED"};
static unsigned tellings;

static void on_told(void *arg)
{
    (void)arg;
    tellings++;
}

static void on_changed(void *arg)
{
    (void)arg;
    changes++;
}

static void deliver(void *arg, struct mail *mail)
{
    (void)arg;
    if (mail->type != DELIVERY_BUILT) {
        mem_free(mail);
        return;
    }
    builds++;
    delivery_built(delivery, CONTAINER_OF(mail, struct build_job, mail));
}
static void drop(struct mail *mail)
{
    if (mail->type == DELIVERY_BUILT)
        build_job_free(CONTAINER_OF(mail, struct build_job, mail));
    else
        mem_free(mail);
}

static void start(uint32_t compile_delay_ms)
{
    char *error = NULL;
    static char program[] = "/proc/self/exe";
    static unsigned tests;
    guest_signals_restore();
    snprintf(name, sizeof name, "p%u", ++tests);
    dir_make();
    guest_write_file(at("good.wasm"), strbuf_str(&wasm));
    store = (struct store){0};
    changes = builds = 0;
    version = 0;
    loop_init(&loop);
    mailbox = mailbox_new(&loop, deliver, NULL);
    cache = module_cache_open(at("cache"), engine_fingerprint(engine), 0, &error);
    assert_non_null(cache);
    for (unsigned i = 0; i < WORKERS; i++)
        workers[i] = worker_start(i, WORKERS, &identity, mailbox);
    fetcher = fetcher_new(&loop, &(struct fetcher_options){.docker_config = ""});
    compiler = compiler_new(&loop, program, compile_delay_ms);
    maker = code_maker_new(&loop, cache, compiler, TIERS_AUTO);
    static const struct identity nobody;
    builder = builder_new(mailbox, &nobody, 2);
    delivery = delivery_new(&(struct delivery_options){.loop = &loop,
                                                       .control = mailbox,
                                                       .workers = workers,
                                                       .worker_count = WORKERS,
                                                       .engine = engine,
                                                       .cache = cache,
                                                       .module_dir = module_dir,
                                                       .host_env = host_env,
                                                       .host_env_count = module_dir != NULL ? 1 : 0,
                                                       .told = on_told,
                                                       .fetcher = fetcher,
                                                       .code = maker,
                                                       .builder = builder,
                                                       .changed = on_changed});
}
static int setup(void **state)
{
    (void)state;
    start(0);
    return 0;
}
static char modules_path[128];
static int setup_module_dir(void **state)
{
    (void)state;
    module_dir = modules_path; /* filled once there is a directory */
    start(0);
    snprintf(modules_path, sizeof modules_path, "%s", at("modules"));
    assert_int_equal(mkdir(modules_path, 0700), 0);
    guest_write_file(at("modules/good.wasm"), strbuf_str(&wasm));
    return 0;
}
static int setup_slow_compiler(void **state)
{
    (void)state;
    start(300);
    return 0;
}
static int teardown(void **state)
{
    (void)state;
    module_dir = NULL;
    mailbox_close(mailbox, drop);
    delivery_free(delivery);
    builder_free(builder);
    for (unsigned i = 0; i < WORKERS; i++)
        worker_stop(workers[i]);
    code_maker_free(maker);
    compiler_free(compiler);
    fetcher_free(fetcher);
    loop_fini(&loop);
    module_cache_close(cache);
    store_free(&store);
    dir_remove();
    return 0;
}

/* ---- steps ---- */

static void apply(const char *spec, ...) PRINTF_LIKE(1, 2);
static void apply(const char *spec, ...)
{
    char text[1024], all[2048];
    va_list args;
    va_start(args, spec);
    vsnprintf(text, sizeof text, spec, args);
    va_end(args);
    snprintf(all, sizeof all, PLUGIN("istio-system", "%s", "%s"), name, text);
    give(&store, "p.yaml", all);
    settle(&store);
    delivery_update(delivery, &store);
}
static void apply_good(const char *more) { apply("url: 'file://%s'%s", at("good.wasm"), more); }
static void remove_it(void)
{
    give(&store, "p.yaml", "");
    settle(&store);
    time_passes();
    settle(&store);
    delivery_update(delivery, &store);
}

static const struct delivery_item *item(void)
{
    return delivery_find(delivery, KIND_WASM_PLUGIN, "istio-system", name);
}
static bool stage_is(void *arg) { return item()->stage == *(enum delivery_stage *)arg && item()->work == NULL; }
static void wait_for(enum delivery_stage stage) { run_until(&loop, stage_is, &stage); }
static bool builds_are(void *arg) { return builds >= *(unsigned *)arg; }

static void publish(void) { delivery_published(delivery, ++version); }
static void adopt(void) { delivery_adopted(delivery, version); }
static void go_live(const char *more)
{
    apply_good(more);
    wait_for(DELIVERY_ADOPT);
    publish();
    adopt();
    assert_int_equal(item()->stage, DELIVERY_PROGRAMMED);
}

/* ---- tests ---- */

static void test_good(void **state)
{
    (void)state;
    apply_good("");
    assert_int_equal(item()->stage, DELIVERY_FETCH);
    assert_int_equal(item()->absence, PLUGIN_PENDING);
    assert_false(item()->settled);
    wait_for(DELIVERY_ADOPT);
    assert_true(changes > 0);
    assert_non_null(item()->live);
    assert_false(item()->settled); /* no worker has it yet */
    adopt();
    assert_false(item()->settled); /* no snapshot names it yet */
    publish();
    adopt();
    adopt();
    assert_true(item()->settled);
    assert_int_equal(item()->stage, DELIVERY_PROGRAMMED);
    assert_int_equal(logged("plugin istio-system/%s active:", name), 1);
}

static void test_chain_fields_make_no_generation(void **state)
{
    (void)state;
    go_live("");
    uint64_t generation = item()->live->generation;
    apply_good(", phase: AUTHZ, priority: 7, selector: {matchLabels: {a: b}}, match: [{mode: CLIENT}]");
    assert_null(item()->work);
    assert_int_equal(item()->live->generation, generation);
    assert_int_equal(item()->resource->u.wasm_plugin.priority, 7);
}

static void test_new_version_swaps(void **state)
{
    (void)state;
    go_live("");
    uint64_t generation = item()->live->generation;
    struct module *module = item()->live->module;
    go_live(", pluginName: other");
    assert_true(item()->live->generation > generation);
    assert_ptr_equal(item()->live->module, module); /* mapped once */
    assert_int_equal(item()->swaps, 1);
}

static void test_bad_version_keeps_the_last_good(void **state)
{
    (void)state;
    go_live("");
    uint64_t generation = item()->live->generation;
    apply_good(", pluginConfig: {a: 1}");
    wait_for(DELIVERY_FAILED);
    assert_int_equal(item()->live->generation, generation);
    assert_string_equal(item()->reason, "ConfigureFailed");
    assert_true(item()->retry_ms > 0);
    assert_int_equal(logged("plugin istio-system/%s not active: ConfigureFailed", name), 1);
    assert_true(logged("plugin istio-system/%s not active: ConfigureFailed: on_configure", name) <= 1);
    /* Back to what serves: at once, without a VM. */
    unsigned before = builds;
    apply_good("");
    assert_int_equal(item()->stage, DELIVERY_PROGRAMMED);
    assert_null(item()->reason);
    assert_null(item()->retry);
    assert_int_equal(builds, before);
    assert_true(logged("plugin istio-system/%s active as before", name) == 1);
}

static void test_first_version_bad(void **state)
{
    (void)state;
    apply_good(", pluginConfig: {a: 1}");
    wait_for(DELIVERY_FAILED);
    assert_null(item()->live);
    assert_int_equal(item()->absence, PLUGIN_START_FAILED);
    assert_true(item()->settled);
    go_live("");
    assert_int_equal(item()->absence, PLUGIN_PRESENT);
}

/* A comes, B comes before A is adopted, B is taken back: A is what serves, is said so, and /ready does not wait. */
static void test_edit_before_adoption(void **state)
{
    (void)state;
    apply_good("");
    wait_for(DELIVERY_ADOPT);
    publish();
    apply_good(", pluginName: other");
    assert_int_equal(item()->stage, DELIVERY_FETCH);
    adopt();
    assert_true(item()->settled);
    assert_int_equal(logged("plugin istio-system/%s active:", name), 1);
    apply_good("");
    assert_int_equal(item()->stage, DELIVERY_PROGRAMMED);
    apply_good(", pluginName: other");
    wait_for(DELIVERY_ADOPT);
    apply_good(", pluginName: third");
    apply_good(", pluginName: other"); /* not adopted yet */
    assert_int_equal(item()->stage, DELIVERY_ADOPT);
    publish();
    adopt();
    assert_int_equal(item()->stage, DELIVERY_PROGRAMMED);
    assert_int_equal(logged("plugin istio-system/%s active:", name), 2);
}

static void test_newer_text_wins(void **state)
{
    (void)state;
    /* A server that never answers. */
    struct addr addr;
    assert_true(addr_parse(STR("127.0.0.1:0"), &addr));
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, &addr.u.sa, addr_len(&addr)), 0);
    socklen_t n = sizeof addr.u;
    assert_int_equal(getsockname(fd, &addr.u.sa, &n), 0);
    assert_int_equal(listen(fd, 8), 0);
    apply("url: 'http://127.0.0.1:%u/p.wasm'", addr_port(&addr));
    go_live("");
    assert_int_equal(builds, 1);
    close(fd);
}

/* ---- what objects that came by an API may name ---- */

static void apply_api(const char *spec, ...) PRINTF_LIKE(1, 2);
static void apply_api(const char *spec, ...)
{
    char text[1024], all[2048];
    va_list args;
    va_start(args, spec);
    vsnprintf(text, sizeof text, spec, args);
    va_end(args);
    snprintf(all, sizeof all, PLUGIN("istio-system", "%s", "%s"), name, text);
    store_text_set(&store, ORIGIN_KUBE_API, "WasmPlugin/istio-system/p", str_of(all), "default");
    settle(&store);
    delivery_update(delivery, &store);
}

static void refused(const char *text)
{
    assert_int_equal(item()->stage, DELIVERY_FAILED);
    assert_string_equal(item()->reason, "Refused");
    if (strstr(item()->message, text) == NULL)
        fail_msg("%s", item()->message);
    assert_int_equal(item()->retry_ms, 0);
}

static void test_api_objects_name_no_files(void **state)
{
    (void)state;
    apply_api("url: 'file://%s'", at("good.wasm"));
    refused("--module-dir");
    assert_int_equal(item()->facts.steps[STEP_ACCEPT].state, STEP_FAILED);
    assert_int_equal(item()->facts.steps[STEP_FETCH].state, STEP_WAITING);
    apply_api("url: 'http://127.0.0.1:1/x', vmConfig: {env: [{name: HOME, valueFrom: HOST}]}");
    refused("--allow-host-env HOME");
}

static void test_api_objects_and_the_module_dir(void **state)
{
    (void)state;
    apply_api("url: 'file://%s'", at("modules/good.wasm"));
    wait_for(DELIVERY_ADOPT);
    apply_api("url: 'file://%s'", at("good.wasm"));
    wait_for(DELIVERY_FAILED);
    refused("is not in --module-dir");
    apply_api("url: 'file://%s/../good.wasm'", modules_path);
    wait_for(DELIVERY_FAILED);
    refused("is not in --module-dir");
    assert_int_equal(symlink(at("good.wasm"), at("modules/link.wasm")), 0);
    apply_api("url: 'file://%s'", at("modules/link.wasm"));
    wait_for(DELIVERY_FAILED);
    refused("is not in --module-dir");
    char sibling[160];
    snprintf(sibling, sizeof sibling, "%s2", modules_path);
    assert_int_equal(mkdir(sibling, 0700), 0);
    guest_write_file(at("modules2/good.wasm"), strbuf_str(&wasm));
    apply_api("url: 'file://%s/good.wasm'", sibling);
    wait_for(DELIVERY_FAILED);
    refused("is not in --module-dir");
    apply_api("url: 'file://%s', vmConfig: {env: [{name: HOME, valueFrom: HOST}]}", at("modules/good.wasm"));
    refused("--allow-host-env HOME");
    apply_api("url: 'file://%s', vmConfig: {env: [{name: WEIR_TEST_ALLOWED, valueFrom: HOST}]}",
              at("modules/good.wasm"));
    wait_for(DELIVERY_ADOPT);
    store_text_remove(&store, ORIGIN_KUBE_API, "WasmPlugin/istio-system/p");
    settle(&store);
    apply_good(", vmConfig: {env: [{name: HOME, valueFrom: HOST}]}"); /* a file of resources may name anything */
    wait_for(DELIVERY_ADOPT);
}

/* ---- what is told ---- */

static void step_is(enum delivery_step step, enum delivery_step_state state)
{
    assert_int_equal(item()->facts.steps[step].state, state);
}

static bool was_told(void *arg) { return tellings > *(unsigned *)arg; }

static void test_facts(void **state)
{
    (void)state;
    unsigned before = tellings;
    go_live("");
    const struct delivery_facts *f = &item()->facts;
    for (enum delivery_step i = STEP_ACCEPT; i < STEP_COUNT; i++) {
        step_is(i, i == STEP_VERIFY ? STEP_SKIPPED : STEP_DONE);
        assert_true(f->steps[i].since_s > 0);
    }
    assert_int_equal(f->source, SOURCE_FILE);
    assert_string_equal(f->module_sha256, item()->live->sha256);
    assert_int_equal(f->module_bytes, wasm.n);
    assert_string_equal(f->tier, "optimised");
    assert_string_equal(f->live_tier, "optimised");
    run_until(&loop, was_told, &before);
    apply_good(", pluginConfig: {reject: true}");
    wait_for(DELIVERY_FAILED);
    step_is(STEP_FETCH, STEP_DONE);
    step_is(STEP_COMPILE, STEP_DONE);
    assert_true(f->code_from_cache);
    step_is(STEP_CONFIGURE, STEP_FAILED);
    step_is(STEP_PROGRAM, STEP_WAITING);
    assert_true(f->retry_at_s > 0);
    assert_string_equal(f->live_tier, "optimised");
    apply_good("");
    step_is(STEP_CONFIGURE, STEP_DONE);
    step_is(STEP_PROGRAM, STEP_DONE);
    assert_int_equal(f->retry_at_s, 0);
}

static void test_pull_secret_is_waited_for(void **state)
{
    (void)state;
    apply("url: 'oci://127.0.0.1:1/x:v1', imagePullSecret: creds");
    assert_int_equal(item()->stage, DELIVERY_FAILED);
    assert_string_equal(item()->reason, "PullSecret");
    assert_int_equal(item()->retry_ms, 0);
    step_is(STEP_FETCH, STEP_FAILED);
    give(&store, "s.yaml",
         "apiVersion: v1\nkind: Secret\nmetadata: {name: creds, namespace: istio-system}\n"
         "type: kubernetes.io/dockerconfigjson\ndata: {.dockerconfigjson: e30=}\n");
    settle(&store);
    delivery_update(delivery, &store);
    assert_int_equal(item()->stage, DELIVERY_FETCH);
    wait_for(DELIVERY_FAILED); /* nobody listens there */
    assert_string_equal(item()->reason, "FetchFailed");
    assert_true(item()->retry_ms > 0);
}

static void test_many_edits_one_compile(void **state)
{
    (void)state;
    char more[64];
    /* Faster than the compiler: each edit drops the attempt before it, but not its compile. */
    for (int i = 0; i < 20; i++) {
        snprintf(more, sizeof more, ", pluginName: n%d", i);
        apply_good(more);
        enum delivery_stage compiling = DELIVERY_COMPILE;
        bool at_compile = false;
        for (int turn = 0; turn < 2000 && !at_compile; turn++) {
            uv_run(&loop.uv, UV_RUN_NOWAIT);
            at_compile = item()->stage == compiling;
            usleep(100);
        }
    }
    wait_for(DELIVERY_ADOPT);
    assert_string_equal(item()->live->root_id, "n19");
    assert_int_equal(builds, 1);
}

static void test_orphans_give_way(void **state)
{
    (void)state;
    /* Ten modules, each taken back while it compiles; the last one must not wait for all of them. */
    for (int i = 0; i < 10; i++) {
        char file[32];
        struct strbuf bytes = {0};
        snprintf(file, sizeof file, "m%d.wasm", i);
        strbuf_add(&bytes, strbuf_str(&wasm));
        const char section[] = {0, 3, 1, 'x', (char)('a' + i)}; /* a custom one makes another module of it */
        strbuf_add(&bytes, str_span(section, sizeof section));
        guest_write_file(at(file), strbuf_str(&bytes));
        strbuf_free(&bytes);
        apply("url: 'file://%s'", at(file));
        for (int turn = 0; turn < 2000 && item()->stage != DELIVERY_COMPILE; turn++) {
            uv_run(&loop.uv, UV_RUN_NOWAIT);
            usleep(100);
        }
        assert_int_equal(item()->stage, DELIVERY_COMPILE);
    }
    wait_for(DELIVERY_ADOPT);
    assert_int_equal(builds, 1);
}

static void test_removed_while_building(void **state)
{
    (void)state;
    apply_good("");
    for (int turn = 0; turn < 100000 && item()->stage < DELIVERY_BUILD; turn++)
        uv_run(&loop.uv, UV_RUN_ONCE);
    remove_it();
    assert_null(item());
    go_live(""); /* applied again at once */
    assert_int_equal(logged("plugin istio-system/%s removed", name), 1);
    assert_int_equal(logged("plugin istio-system/%s active:", name), 1);
}

static void test_removed_and_retired(void **state)
{
    (void)state;
    go_live("");
    remove_it();
    publish();
    adopt();
    go_live("");
    remove_it(); /* and the end comes before anything is published */
}

static void test_wrong_bytes(void **state)
{
    (void)state;
    guest_write_file(at("bad.wasm"), STR("hello"));
    apply("url: 'file://%s'", at("bad.wasm"));
    wait_for(DELIVERY_FAILED);
    assert_string_equal(item()->reason, "BadModule");
    assert_int_equal(item()->absence, PLUGIN_BAD_MODULE);
    assert_int_equal(item()->retry_ms, 0); /* the file is watched */
    apply_good(", sha256: '0000000000000000000000000000000000000000000000000000000000000000'");
    wait_for(DELIVERY_FAILED);
    assert_string_equal(item()->reason, "DigestMismatch");
    apply("url: 'file://%s'", at("missing.wasm"));
    wait_for(DELIVERY_FAILED);
    assert_string_equal(item()->reason, "FetchFailed");
    assert_int_equal(item()->absence, PLUGIN_FETCH_FAILED);
    assert_true(item()->retry_ms > 0);
    apply_good(", type: NETWORK");
    assert_int_equal(item()->stage, DELIVERY_FAILED);
    assert_string_equal(item()->reason, "NotSupported");
    assert_int_equal(item()->retry_ms, 0);
    apply("url: 'oci://x/Y:z'");
    wait_for(DELIVERY_FAILED);
    assert_string_equal(item()->reason, "BadReference");
    assert_int_equal(item()->retry_ms, 0);
    assert_null(item()->retry);
}

static bool failed_twice(void *arg)
{
    (void)arg;
    return item()->failures >= 2 && item()->work == NULL;
}
static void test_fetch_is_tried_again_and_said_once(void **state)
{
    (void)state;
    apply("url: 'file://%s'", at("later.wasm"));
    wait_for(DELIVERY_FAILED);
    run_until(&loop, failed_twice, NULL);
    assert_true(item()->settled); /* ready does not flicker */
    assert_int_equal(logged("plugin istio-system/%s not active: FetchFailed", name), 1);
    guest_write_file(at("later.wasm"), strbuf_str(&wasm));
    wait_for(DELIVERY_ADOPT);
    assert_int_equal(item()->failures, 0);
}
static void test_file_that_changes(void **state)
{
    (void)state;
    go_live("");
    uint64_t generation = item()->live->generation;
    delivery_check_files(delivery);
    assert_null(item()->work);
    unlink(at("good.wasm"));
    delivery_check_files(delivery);
    assert_null(item()->work); /* gone takes nothing away */
    guest_write_file(at("good.wasm"), strbuf_str(&wasm));
    delivery_check_files(delivery);
    assert_non_null(item()->work);
    wait_for(DELIVERY_PROGRAMMED); /* the same bytes */
    assert_int_equal(item()->live->generation, generation);
    guest_write_file(at("good.wasm"), STR("no module"));
    delivery_check_files(delivery);
    wait_for(DELIVERY_FAILED);
    assert_int_equal(item()->live->generation, generation);
    assert_string_equal(item()->reason, "BadModule");
}

static void test_cached_code_that_does_not_load(void **state)
{
    (void)state;
    char sha[65], *error = NULL;
    sha256_hex(strbuf_str(&wasm), sha);
    char *made = module_cache_temporary(cache, ".cwasm");
    guest_write_file(made, STR("authentic, but no code"));
    int hold = -1;
    char *path = module_cache_seal(cache, sha, "optimised", made, &hold, &error);
    module_cache_release(&hold);
    assert_non_null(path);
    mem_free(path);
    mem_free(made);
    go_live("");
    assert_int_equal(builds, 2);
    assert_true(logged("plugin istio-system/%s: compiled code of the cache does not load", name) == 1);
    assert_false(item()->fresh_code);
}

static void test_lost_vm_is_replaced(void **state)
{
    (void)state;
    go_live("");
    char callback[] = "proxy_on_request_headers", reason[] = "unreachable", plugin[] = "istio-system.p";
    struct mail_from_worker lost = {.worker = 1,
                                    .generation = item()->live->generation,
                                    .wanted_in_ms = 1,
                                    .plugin = plugin,
                                    .callback = callback,
                                    .reason = reason};
    unsigned count = builds + 1;
    delivery_vm_lost(delivery, &lost);
    delivery_vm_lost(delivery, &lost); /* a second loss takes the first's timer */
    assert_string_equal(item()->workers[1].state, "restarting");
    assert_string_equal(item()->workers[1].reason, "proxy_on_request_headers: unreachable");
    run_until(&loop, builds_are, &count);
    assert_string_equal(item()->workers[1].state, "live");
    assert_int_equal(item()->workers[1].losses, 2);
    assert_int_equal(logged("plugin istio-system/%s failed on worker 1", name), 2);
    assert_int_equal(logged("plugin istio-system/%s active again on worker 1", name), 1);
    /* Lost while its successor is on its way: the successor is what counts. */
    lost.wanted_in_ms = 60000;
    delivery_vm_lost(delivery, &lost);
    go_live(", pluginName: next");
    assert_string_equal(item()->workers[1].state, "live");
    assert_null(item()->workers[1].retry);
    /* A retired generation's loss is told, and wants nothing. */
    delivery_vm_lost(delivery, &lost);
    assert_null(item()->workers[1].retry);
    assert_true(logged("which is being replaced") > 0);
}

static bool all_are_built(void *arg)
{
    (void)arg;
    return builds >= 5;
}

/* Five plugins of one module that come together: compiled once, one module in memory. */
static void test_one_module_for_all(void **state)
{
    (void)state;
    char text[4096] = "", one[512], plugin[8];
    for (int i = 0; i < 5; i++) {
        snprintf(one, sizeof one, PLUGIN("istio-system", "same%d", "url: 'file://%s', pluginName: n%d"), i,
                 at("good.wasm"), i);
        strcat(text, one);
    }
    give(&store, "all.yaml", text);
    settle(&store);
    delivery_update(delivery, &store);
    run_until(&loop, all_are_built, NULL);
    const struct module *module = NULL;
    for (int i = 0; i < 5; i++) {
        snprintf(plugin, sizeof plugin, "same%d", i);
        const struct delivery_item *it = delivery_find(delivery, KIND_WASM_PLUGIN, "istio-system", plugin);
        assert_int_equal(it->stage, DELIVERY_ADOPT);
        module = module == NULL ? it->live->module : module;
        assert_ptr_equal(it->live->module, module);
    }
}

/* The one that loads it is taken back or fails: the others do not wait for ever. */
static void test_waiting_for_a_module_that_does_not_come(void **state)
{
    (void)state;
    char sha[65], *error = NULL, text[2048];
    sha256_hex(strbuf_str(&wasm), sha);
    char *made = module_cache_temporary(cache, ".cwasm");
    guest_write_file(made, STR("authentic, but no code"));
    int hold = -1;
    mem_free(module_cache_seal(cache, sha, "optimised", made, &hold, &error));
    module_cache_release(&hold);
    mem_free(made);
    snprintf(text, sizeof text,
             PLUGIN("istio-system", "w1", "url: 'file://%s', pluginConfig: {a: 1}")
                 PLUGIN("istio-system", "w2", "url: 'file://%s'") PLUGIN("istio-system", "w3", "url: 'file://%s'"),
             at("good.wasm"), at("good.wasm"), at("good.wasm"));
    give(&store, "all.yaml", text);
    settle(&store);
    delivery_update(delivery, &store);
    for (int turn = 0; turn < 100000 && builds < 1; turn++)
        uv_run(&loop.uv, UV_RUN_ONCE);
    snprintf(text, sizeof text, PLUGIN("istio-system", "w2", "url: 'file://%s'"), at("good.wasm"));
    give(&store, "all.yaml", text);
    settle(&store);
    time_passes();
    settle(&store);
    delivery_update(delivery, &store);
    const struct delivery_item *it = delivery_find(delivery, KIND_WASM_PLUGIN, "istio-system", "w2");
    while (it->stage != DELIVERY_ADOPT)
        uv_run(&loop.uv, UV_RUN_ONCE);
    assert_non_null(it->live);
}

static void test_end_with_everything_under_way(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        char text[1024];
        snprintf(text, sizeof text, PLUGIN("istio-system", "q%d", "url: 'file://%s', pluginName: n%d"), i,
                 at("good.wasm"), i);
        give(&store, i == 0 ? "0.yaml" : i == 1 ? "1.yaml" : i == 2 ? "2.yaml" : "3.yaml", text);
    }
    settle(&store);
    delivery_update(delivery, &store);
    apply("url: 'http://127.0.0.1:1/x'");
    for (int turn = 0; turn < 20; turn++)
        uv_run(&loop.uv, UV_RUN_NOWAIT);
}

static void test_end_with_a_build_under_way(void **state)
{
    (void)state;
    apply_good("");
    for (int turn = 0; turn < 100000 && item()->stage < DELIVERY_BUILD; turn++)
        uv_run(&loop.uv, UV_RUN_ONCE);
}

int main(int argc, char **argv)
{
    if (argc == 5 && strcmp(argv[1], "compile-module") == 0)
        return compiler_child_main(argv[2], argv[3], argv[4]);
    log_set_level(LOG_INFO);
    log_start();
    engine = engine_new();
    guest_signals_save();
    wasm = guest_assemble_text(guest_wat, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_good, setup, teardown),
        cmocka_unit_test_setup_teardown(test_chain_fields_make_no_generation, setup, teardown),
        cmocka_unit_test_setup_teardown(test_new_version_swaps, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_version_keeps_the_last_good, setup, teardown),
        cmocka_unit_test_setup_teardown(test_first_version_bad, setup, teardown),
        cmocka_unit_test_setup_teardown(test_edit_before_adoption, setup, teardown),
        cmocka_unit_test_setup_teardown(test_newer_text_wins, setup, teardown),
        cmocka_unit_test_setup_teardown(test_api_objects_name_no_files, setup, teardown),
        cmocka_unit_test_setup_teardown(test_api_objects_and_the_module_dir, setup_module_dir, teardown),
        cmocka_unit_test_setup_teardown(test_facts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pull_secret_is_waited_for, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_edits_one_compile, setup_slow_compiler, teardown),
        cmocka_unit_test_setup_teardown(test_orphans_give_way, setup_slow_compiler, teardown),
        cmocka_unit_test_setup_teardown(test_removed_while_building, setup, teardown),
        cmocka_unit_test_setup_teardown(test_removed_and_retired, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wrong_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fetch_is_tried_again_and_said_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_file_that_changes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cached_code_that_does_not_load, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lost_vm_is_replaced, setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_module_for_all, setup, teardown),
        cmocka_unit_test_setup_teardown(test_waiting_for_a_module_that_does_not_come, setup, teardown),
        cmocka_unit_test_setup_teardown(test_end_with_a_build_under_way, setup, teardown),
        cmocka_unit_test_setup_teardown(test_end_with_everything_under_way, setup_slow_compiler, teardown),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    strbuf_free(&wasm);
    engine_free(engine);
    log_stop();
    return failed;
}
