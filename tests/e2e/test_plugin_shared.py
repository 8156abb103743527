# SPDX-License-Identifier: Apache-2.0
"""What outlives a stream: shared data, shared queues, metrics, ticks; across workers, plugins and generations."""
import pytest

from weirtest import resources as res
from weirtest.client import Conn
from weirtest.load import Load
from weirtest.plugins import REQ, Puppet, Seen, StepUpstream, Variants, op, puppet_plugin

VM = "plugin.weir/vm-id"


@pytest.fixture(scope="module")
def variants(tmp_path_factory):
    return Variants(tmp_path_factory.mktemp("variants"))


def spread(g, headers, count, path="/", threads=8):
    """That many requests, each on a connection of its own or a few, so that all workers get some."""
    def run(k):
        done = 0
        while done < k:
            with Conn(g.port) as c:
                for _ in range(min(10, k - done)):
                    c.request("GET", path, headers)
                    assert c.response().status == 200
                    done += 1
    import concurrent.futures
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        list(pool.map(run, [count // threads] * threads))
    return count // threads * threads


# ---- shared data ----

def test_shared_data_by_cas_is_exact(gateway, upstream, guests):
    up = upstream(lambda x: (x.body(), x.respond(200, {"x-n": x.header("x-n") or ""})), keep_exchanges=False)
    g = gateway(up, workers=4, extra=[res.plugin("counter", guests.build("counter"))])
    n = spread(g, {"x-op": "shared"}, 800)
    r = g.get("/", {"x-op": "shared"})
    assert int(r.header("x-n")) == n + 1


def test_shared_data_statuses(gateway, upstream, variants):
    up = StepUpstream(upstream)
    p = Puppet(gateway(up, workers=1, extra=[puppet_plugin(variants.puppet())]), up)
    r, seen = p.send(("rh", op("shget", "k"), op("shset", "k", "v1", 0), op("shget", "k"), op("shset", "k", "v2", 999999), op("shget", "k"),
                      op("shset", "new", "v", 77), op("shset", "k", b"\0\xff", 0), op("shget", "k"), op("shset", "k", "", 0), op("shget", "k")))
    seen.wait_end()
    gets, sets = seen.ops("shget"), [f["status"] for f in seen.ops("shset")]
    assert [f["status"] for f in gets] == ["1", "0", "0", "0", "0"]
    assert gets[1]["v"] == "v1" and int(gets[1]["cas"]) > 0 and gets[2] == gets[1]
    assert sets == ["0", "8", "0", "0", "0"]  # a stale cas is CAS_MISMATCH; against nothing it is well
    assert gets[3]["n"] == "2" and gets[4]["n"] == "0" and int(gets[3]["cas"]) > int(gets[1]["cas"])


@pytest.mark.parametrize("first,second,shared", [("a", "a", True), ("a", "b", False), (None, None, True)])
def test_vm_id_is_the_space_of_shared_data(gateway, upstream, variants, first, second, shared):
    up = StepUpstream(upstream)
    g = gateway(up, workers=1, extra=[
        puppet_plugin(variants.puppet(), name="first", phase="AUTHN", annotations={VM: first} if first else None, statements=[("rh", op("shset", "k", "v", 0))]),
        puppet_plugin(variants.puppet(), name="second", phase="AUTHZ", annotations={VM: second} if second else None, statements=[("rh", op("shget", "k"))])])
    r, seen = Puppet(g, up).send(("x", "ret 0"))
    seen.wait_end()
    assert seen.ops("shget")[0]["status"] == ("0" if shared else "1")


def test_shared_data_lives_on_through_a_new_configuration(gateway, upstream, variants):
    up = StepUpstream(upstream)
    wasm = variants.puppet()
    g = gateway(up, workers=1, extra=[puppet_plugin(wasm)])
    p = Puppet(g, up)
    p.send(("rh", op("shset", "k", "kept", 0)))
    before = g.wait_plugin("puppet")["generation"]
    g.apply("extra", [puppet_plugin(wasm, statements=[("rh", op("log", "new"))])])
    g.wait(lambda: g.plugins()["puppet"]["generation"] > before and g.plugins()["puppet"]["state"] == "Active", "the new generation")
    r, seen = p.send(("rh", op("shget", "k")))
    seen.wait_end()
    assert seen.ops("shget")[0]["v"] == "kept"


# ---- queues ----

def test_queue_from_one_plugin_to_another_over_all_workers(gateway, upstream, guests):
    up = upstream(lambda x: (x.body(), x.respond(200, {"x-status": x.header("x-status") or ""})), keep_exchanges=False)
    g = gateway(up, workers=4, extra=[
        res.plugin("producer", guests.build("counter")),
        res.plugin("consumer", guests.build("consumer"), annotations={VM: "consumer"})])
    assert g.get("/", {"x-op": "queue", "x-item": "1"}).header("x-status") == "0"
    n = spread(g, {"x-op": "queue", "x-item": "3"}, 400)
    g.wait(lambda: g.metrics().get("e2e_jobs") == n + 1, "every item to be taken once")
    assert g.metrics().value("e2e_jobs_sum") == 3 * n + 1


def test_queue_goes_on_when_its_consumer_is_replaced(gateway, upstream, guests):
    up = upstream(keep_exchanges=False)
    consumer = guests.build("consumer")
    g = gateway(up, workers=2, extra=[res.plugin("producer", guests.build("counter"))])
    g.apply_and_wait("consumer", res.plugin("consumer", consumer, annotations={VM: "consumer"}))
    g.wait_plugin("consumer")
    total = 0
    for i in range(5):
        total += spread(g, {"x-op": "queue", "x-item": "1"}, 80)
        before = g.plugins()["consumer"]["generation"]
        g.apply("consumer", res.plugin("consumer", consumer, {"edit": i}, annotations={VM: "consumer"}))
        g.wait(lambda: g.plugins()["consumer"]["generation"] > before, "the new consumer")
    g.wait(lambda: g.metrics().get("e2e_jobs") == total, f"{total} items")


def test_queue_statuses(gateway, upstream, variants):
    up = StepUpstream(upstream)
    p = Puppet(gateway(up, workers=1, extra=[puppet_plugin(variants.puppet(), statements=[("vm", op("qreg", "mine"))])]), up)
    r, seen = p.send(("rh", op("qget", "", "mine"), op("qput", "", "mine", "one"), op("qput", "", "mine", "two"), op("qget", "", "mine"),
                      op("qget", "", "mine"), op("qget", "", "mine"), op("qput", "", "no such", "x"), op("qget", "other", "mine")))
    seen.wait_end()
    assert [(f["status"], f["v"]) for f in seen.ops("qget")[:4]] == [("7", ""), ("0", "one"), ("0", "two"), ("7", "")]
    assert [f["status"] for f in seen.ops("qput")] == ["0", "0", "1"]
    assert seen.ops("qget")[4]["status"] == "1"
    Seen(p.g, "root").wait("queue")  # on_queue_ready came for them


# ---- metrics ----

def test_metrics_are_exact_over_workers(gateway, upstream, guests):
    up = upstream(keep_exchanges=False)
    g = gateway(up, workers=4, extra=[res.plugin("counter", guests.build("counter"))])
    n = spread(g, {"x-op": "metric", "x-size": "100"}, 400)
    m = g.metrics()
    assert m.value("e2e_hits") == n and m.types["e2e_hits"] == "counter"
    assert m.types["e2e_sizes"] == "histogram" and m.value("e2e_sizes_count") == n and m.value("e2e_sizes_sum") == 100 * n
    assert m.value("e2e_sizes_bucket", le="+Inf") == n
    assert m.value("e2e_vm_starts") == 4 and m.value("e2e_configured") == 4


def test_metric_statuses(gateway, upstream, variants):
    up = StepUpstream(upstream)
    p = Puppet(gateway(up, workers=1, extra=[puppet_plugin(variants.puppet())]), up)
    r, seen = p.send(("rh", op("inc", 0, "c_one", 2), op("inc", 0, "c_one", 0), op("inc", 0, "c_one", -1), op("rec", 0, "c_one", 5), op("metric", 0, "c_one"),
                      op("inc", 1, "g_one", 5), op("inc", 1, "g_one", -7), op("metric", 1, "g_one"), op("rec", 1, "g_one", 9), op("metric", 1, "g_one"),
                      op("rec", 2, "h_one", 5), op("inc", 2, "h_one", 5), op("metric", 2, "h_one"), op("inc", 3, "x", 1)))
    seen.wait_end()
    assert [f.get("inc") for f in seen.ops("inc")] == ["0", "2", "2", "0", "0", "2", "1"]
    assert seen.ops("inc")[-1]["status"] == "2"
    values = [(f["get"], f["v"]) for f in seen.ops("metric")]
    assert values == [("0", "7"), ("0", str(2**64 - 2)), ("0", "9"), ("2", "0")]
    m = p.g.metrics()
    assert m.value("c_one") == 7 and m.value("g_one") == 9 and m.value("h_one_count") == 1


def test_metric_names_are_made_safe(gateway, upstream, variants):
    up = StepUpstream(upstream)
    p = Puppet(gateway(up, workers=1, extra=[puppet_plugin(variants.puppet())]), up)
    r, seen = p.send(("rh", op("inc", 0, 'a b"c\n# EVIL 1', 1), op("inc", 0, "weir_requests_total", 1000000), op("inc", 0, "", 1), op("inc", 0, "9starts", 1),
                      op("inc", 0, "istio.requests.total", 1), op("inc", 1, "istio.requests.total", 1)))
    assert r.status == 200
    m = p.g.metrics()  # which refuses malformed text
    assert m.get("weir_requests_total") < 1000
    assert m.value("istio_requests_total") == 1


def test_the_number_of_metrics_is_bounded(gateway, upstream, guests):
    many = guests.source("""
enum pw_action pw_on_request_headers(uint32_t ctx, uint32_t count, bool end) {
    static uint32_t n; (void)ctx; (void)count; (void)end;
    for (int i = 0; i < 500; i++, n++) {
        char name[32] = "m_"; struct pw_str s = pw_format_u64(n, name + 2);
        pw_increment(pw_define_metric(PW_COUNTER, (name[2 + s.n] = 0, name)), 1);
    }
    return PW_CONTINUE;
}
""", "many_metrics")
    g = gateway(upstream(), workers=1, extra=[res.plugin("many", many, annotations={"plugin.weir/cpu-deadline": "10s"})])
    for _ in range(5):
        assert g.get().status == 200
    m = g.metrics()
    assert 900 <= sum(1 for n, _, _ in m.samples if n.startswith("m_")) <= 1000


# ---- ticks ----

def test_ticks_run_in_every_worker(gateway, upstream, guests):
    tick = guests.source("""
static uint32_t ticks, starts;
bool pw_on_configure(uint32_t root, uint32_t size) { (void)root; (void)size; ticks = pw_define_metric(PW_GAUGE, "e2e_ticking");
    pw_set_tick(10); return true; }
void pw_on_tick(uint32_t root) { (void)root; if (++starts == 3) pw_increment(ticks, 1); }
""", "ticker")
    g = gateway(upstream(), workers=3, extra=[res.plugin("tick", tick)])
    g.wait(lambda: g.metrics().get("e2e_ticking") == 3, "three ticks in each of three workers")


def test_ticks_stop(gateway, upstream, variants):
    up = StepUpstream(upstream)
    p = Puppet(gateway(up, workers=1, extra=[puppet_plugin(variants.puppet())]), up)
    p.send(("rh", op("tick", 10)))
    seen = Seen(p.g, "root")
    seen.wait("tick", 3)
    r, stop = p.send(("rh", op("tick", 0)))
    stop.wait_end()
    count = sum(t.event == "tick" for t in seen.all())
    p.send(("rh", op("tick", 0)))[1].wait_end()
    assert sum(t.event == "tick" for t in seen.all()) == count


def test_ticks_of_a_replaced_generation_end(gateway, upstream, variants):
    up = StepUpstream(upstream)
    wasm = variants.puppet()
    g = gateway(up, workers=1, extra=[puppet_plugin(wasm, statements=[("cfg", op("tick", 10)), ("tick", op("inc", 0, "old_ticks", 1))])])
    g.wait(lambda: g.metrics().get("old_ticks") > 2, "ticks")
    g.apply("extra", [puppet_plugin(wasm, statements=[("cfg", op("tick", 10)), ("tick", op("inc", 0, "new_ticks", 1))])])
    g.wait(lambda: g.metrics().get("new_ticks") > 2, "the new one's ticks")

    def still():
        before = g.metrics().value("old_ticks")
        new = g.metrics().value("new_ticks")
        g.wait(lambda: g.metrics().value("new_ticks") > new + 5, "more ticks")
        return g.metrics().value("old_ticks") == before
    g.wait(still, "the old one's ticks to end")
