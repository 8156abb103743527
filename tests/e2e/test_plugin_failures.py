# SPDX-License-Identifier: Apache-2.0
"""Guests that trap, spin, eat memory or recurse without end, in every callback, under every fail strategy; quarantine,
probe and recovery; and that nobody else is harmed."""
import json
import re

import pytest

from weirtest import resources as res
from weirtest.client import Conn
from weirtest.load import Load
from weirtest.plugins import REQ, RESP, Puppet, Seen, StepUpstream, Variants, new_tag, op, puppet_plugin, script
from weirtest.util import free_port

LIMITS = {"plugin.weir/cpu-deadline": "300ms", "plugin.weir/memory-limit": "8Mi", "plugin.weir/start-deadline": "1s"}
LOG = {"access-log-format": "%RESPONSE_CODE% %RESPONSE_CODE_DETAILS% %REQ(:PATH)%\n"}
CALLBACKS = {"rh": "proxy_on_request_headers", "rb": "proxy_on_request_body", "rt": "proxy_on_request_trailers", "sh": "proxy_on_response_headers",
             "sb": "proxy_on_response_body", "st": "proxy_on_response_trailers", "log": "proxy_on_log", "done": "proxy_on_done",
             "del": "proxy_on_delete", "create": "proxy_on_context_create", "tick": "proxy_on_tick", "cr": "proxy_on_http_call_response",
             "queue": "proxy_on_queue_ready", "vm": "proxy_on_vm_start", "cfg": "proxy_on_configure"}
# What the log must say of each, and the function that must stand in the backtrace.
KINDS = {"trap": (r"unreachable", "give_up"), "loop": (r"CPU time of .*plugin\.weir/(cpu|start)-deadline", "spin_forever"), "bomb": (r"memory limit.*plugin\.weir/memory-limit", "take_memory"),
         "recurse": (r"stack", "recurse_forever")}
AUTH = "backend.istio-system.svc.cluster.local:80"


@pytest.fixture(scope="module")
def variants(tmp_path_factory):
    return Variants(tmp_path_factory.mktemp("variants"))


@pytest.fixture
def rig(gateway, upstream, variants):
    def make(strategy="FAIL_CLOSE", statements=None, workers=1, defines=(), annotations=None, extra=(), ready=True, **more):
        up = StepUpstream(upstream)
        g = gateway(up, workers=workers, limits=LOG, ready=ready, extra=[*extra, puppet_plugin(
            variants.puppet(*defines), statements=statements, failStrategy=strategy, annotations={**LIMITS, **(annotations or {})}, **more)])
        return Puppet(g, up)
    return make


def failure_line(g, event, kind):
    """The one line that says all."""
    what, function = KINDS[kind]
    pattern = re.compile(rf"^.*error .*puppet.*{CALLBACKS[event]}.*$", re.M)
    g.wait_log(pattern)
    lines = pattern.findall(g.log_text())
    assert any("istio-system" in l and re.search(what, l) and function in l for l in lines), lines


def failures(g, event):
    m = g.metrics()
    return sum(m.get(f"weir_plugin_{n}_total", plugin="istio-system.puppet", callback=CALLBACKS[event]) for n in ("traps", "breaches"))


def recovered(p, mark="x-alive"):
    """The next streams are filtered again."""
    def look():
        r, _ = p.send(("sh", op("set", RESP, mark, "yes")))
        return r.status == 200 and r.header(mark) == "yes"
    p.g.wait(look, "the plugin to serve again")


class Exchange:
    """A request with a body and trailers whose response has both, at the point where `where` fails."""

    def __init__(self, p, where, kind):
        self.p, self.tag = p, new_tag()
        self.path = "/" + self.tag
        self.held = p.up.hold(self.path)
        self.conn = Conn(p.g.port)
        statements = [(where, kind)]
        if where == "cr":
            statements = [("rh", op("call", AUTH, "/callout", 60000, ""), "ret 1"), ("cr", kind)]
        elif where == "tick":
            statements = [("rh", op("tick", 20), "ret 1"), ("tick", kind)]
        self.conn.request("POST", self.path, {"transfer-encoding": "chunked", "x-tag": self.tag, "x-do": script(*statements)})
        self.conn.send("5\r\nhello\r\n0\r\nx-t: v\r\n\r\n")

    def answer(self):
        self.held.head(200, {"x-a": "b"})
        self.held.data(b"answer").end({"x-s": "w"})
        return self


REQUEST_SIDE = ["rh", "rb", "rt", "cr", "tick"]
RESPONSE_SIDE = ["sh", "sb", "st"]
AFTER = ["log", "done", "del"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", REQUEST_SIDE + RESPONSE_SIDE + AFTER)
def test_fail_close(rig, where, kind):
    p = rig()
    x = Exchange(p, where, kind)
    if where in REQUEST_SIDE:
        r = x.conn.response()
        assert r.status == 503 and r.body == b""
        p.g.wait_access(f"503 wasm_fail_stream {x.path}")
        if where in ("rh", "cr", "tick"):
            assert p.up.find(x.path) is None
    elif where == "sh":
        x.answer()
        r = x.conn.response()
        assert r.status == 503 and "x-a" not in r.head
    elif where in ("sb", "st"):
        x.answer()
        got = x.conn.wait_closed()
        assert not got.endswith(b"0\r\n\r\n") and b"x-s: w" not in got and (where == "st" or b"answer" not in got)
    else:
        x.answer()
        r = x.conn.response()
        assert r.status == 200 and r.body == b"answer" and r.trailers == [("x-s", "w")]
    failure_line(p.g, where, kind)
    recovered(p)
    p.g.wait(lambda: failures(p.g, where) == 1, "the metric")


@pytest.mark.parametrize("kind", ["trap", "loop"])
@pytest.mark.parametrize("where", REQUEST_SIDE + RESPONSE_SIDE + AFTER)
def test_fail_open(rig, where, kind):
    """The stream goes on as if there were no filter: nothing of it is lost."""
    p = rig("FAIL_OPEN")
    x = Exchange(p, where, kind)
    up = p.up.wait(x.path)
    assert b"".join(up.got) == b"hello" and up.trailers == [("x-t", "v")]
    x.answer()
    r = x.conn.response()
    assert r.status == 200 and r.header("x-a") == "b" and r.body == b"answer" and r.trailers == [("x-s", "w")]
    failure_line(p.g, where, kind)
    recovered(p)


@pytest.mark.parametrize("where", REQUEST_SIDE + ["sh"])
def test_fail_reload(rig, where):
    p = rig("FAIL_RELOAD")
    x = Exchange(p, where, "trap")
    if where == "sh":
        x.answer()
    assert x.conn.response().status == 503
    recovered(p)


@pytest.mark.parametrize("strategy,status", [("FAIL_CLOSE", 503), ("FAIL_OPEN", 200)])
def test_failure_when_a_stream_context_is_made(gateway, upstream, guests, strategy, status):
    bad = guests.source("""
void pw_on_context_create(uint32_t ctx, uint32_t root) { (void)ctx; if (root != 0) __builtin_trap(); }
enum pw_action pw_on_request_headers(uint32_t ctx, uint32_t count, bool end) { (void)ctx; (void)count; (void)end; return PW_CONTINUE; }
""", "bad_create")
    up = upstream()
    g = gateway(up, workers=1, extra=[res.plugin("puppet", bad, failStrategy=strategy)])
    assert g.get().status == status
    g.wait_log(re.compile("puppet.*proxy_on_context_create"))


@pytest.mark.parametrize("strategy,status", [("FAIL_CLOSE", 503), ("FAIL_OPEN", 200), ("FAIL_RELOAD", 503)])
@pytest.mark.parametrize("held", ["rh", "rb", "rt", "sh", "sb", "st"])
def test_paused_streams_are_settled_when_their_vm_dies(rig, strategy, status, held):
    p = rig(strategy)
    tag = new_tag()
    path = "/" + tag
    step = p.up.hold(path)
    with Conn(p.g.port) as c:
        c.request("POST", path, {"transfer-encoding": "chunked", "x-tag": tag, "x-do": script((held, "ret 1"))})
        request_trailers = [] if held == "rb" else [("x-t", "v")]
        c.send("5\r\nhello\r\n0\r\n" + "".join(f"{n}: {v}\r\n" for n, v in request_trailers) + "\r\n")
        seen = Seen(p.g, tag)
        trailers = {} if held == "sb" else {"x-s": "w"}  # whose callback would let the body go
        if held[0] == "s":
            step.head(200).data(b"answer").end(trailers)
        seen.wait(held)
        p.send(("rh", "trap"))
        if strategy == "FAIL_OPEN":
            up = p.up.wait(path)
            assert b"".join(up.got) == b"hello" and up.trailers == request_trailers
            if held[0] == "r":
                step.head(200).data(b"answer").end(trailers)
            r = c.response()
            assert r.status == 200 and r.body == b"answer" and r.trailers == list(trailers.items())
        elif held in ("sb", "st"):
            assert not c.wait_closed().endswith(b"\r\n0\r\n\r\n")
        else:
            assert c.response().status == 503


def test_a_stream_that_needs_the_guest_no_more_goes_on(rig):
    """A download behind a filter of headers is not cut when the VM dies."""
    p = rig(defines=("NO_RB", "NO_RT", "NO_SB", "NO_ST"))
    tag = new_tag()
    step = p.up.hold("/" + tag)
    with Conn(p.g.port) as c:
        c.request("GET", "/" + tag, {"x-tag": tag})
        step.head(200).data(b"one")
        c.head()
        assert c.chunk() == b"one"
        p.send(("rh", "trap"))
        p.g.wait_log("proxy_on_request_headers")
        step.data(b"two").end()
        assert c.chunk() == b"two" and c.chunk() == b""


@pytest.mark.parametrize("kind", [*KINDS, "false"])
@pytest.mark.parametrize("event", ["vm", "cfg"])
@pytest.mark.parametrize("strategy,status", [("FAIL_CLOSE", 503), ("FAIL_OPEN", 200), ("FAIL_RELOAD", 503)])
def test_failure_at_the_start(rig, event, kind, strategy, status):
    p = rig(strategy, statements=[(event, "ret 0" if kind == "false" else kind)])
    plugin = p.g.wait_plugin("puppet", "Failed")
    assert plugin["reason"] == ("ConfigureFailed" if event == "cfg" else "StartFailed")
    if kind == "false":
        assert CALLBACKS[event] in plugin["message"] or "false" in plugin["message"]
    else:
        what, function = KINDS[kind]
        assert re.search(what, plugin["message"]) and function in plugin["message"]
    assert p.g.get("/x").status == status  # ready, and definitely failed
    assert (p.up.find("/x") is not None) == (status == 200)
    status_text = p.g.weir.run("status", "--admin", f"127.0.0.1:{p.g.admin}").stdout
    assert re.search(rf"istio-system/puppet +Failed .*{plugin['reason']}", status_text)
    p.g.wait_log(re.compile(rf"error plugin istio-system/puppet not active: {plugin['reason']}"))


def test_a_broken_new_version_keeps_the_old_one(rig, variants):
    p = rig(statements=[("sh", op("set", RESP, "x-version", "1"))])
    live = p.g.plugins()["puppet"]
    with Load(p.g.port, threads=2, check=lambda r: r.header("x-version") == "1") as load:
        for statements in ([("cfg", "ret 0")], [("vm", "trap")], [("cfg", "loop")]):
            p.g.apply("extra", puppet_plugin(variants.puppet(), statements=statements, annotations=LIMITS))
            got = p.g.wait(lambda: (lambda q: q if q["stage"] == "Failed" and q["message"] and q["reason"] ==
                                    ("StartFailed" if statements[0][0] == "vm" else "ConfigureFailed") else None)(p.g.plugins()["puppet"]), "the failure")
            assert got["state"] == "Active" and got["generation"] == live["generation"]
            text = p.g.weir.run("status", "--admin", f"127.0.0.1:{p.g.admin}").stdout
            assert got["reason"] in text
        p.g.apply("extra", puppet_plugin(variants.puppet(), statements=[("sh", op("set", RESP, "x-version", "1"), op("set", RESP, "x-good", "again"))], annotations=LIMITS))
        p.g.wait(lambda: p.g.get().header("x-good") == "again", "the good version")
    load.assert_lossless(20)


def test_others_are_served_while_a_guest_spins(rig, variants):
    """One worker: streams of other plugins and of none wait for the deadline at most, and none is lost."""
    port = free_port()
    p = rig(annotations={"plugin.weir/cpu-deadline": "500ms"}, match=[{"mode": "CLIENT", "ports": [{"number": 1}]}], ready=False)
    g = p.g
    g.apply("gateway", [res.gateway(0, listeners=[res.listener("a", g.port), res.listener("b", port)]), res.route("default", res.rule("backend")), *res.backend("backend", p.up)])
    g.apply("extra", puppet_plugin(variants.puppet(), annotations={**LIMITS, "plugin.weir/cpu-deadline": "500ms"}, match=[{"mode": "CLIENT", "ports": [{"number": g.port}]}]))
    g.wait_plugin("puppet")
    # The match alone makes no new generation: what tells that it acts is the chain of the first listener.
    g.wait(lambda: [len(l["chain"]) for l in g.config()["listeners"] if l["address"].endswith(f":{g.port}")] == [1]
           and g.config()["adopted"] == g.config()["version"], "the plugin in the chain")
    g.wait(lambda: g.get(port=port).status == 200, "the second listener")
    with Load(port, threads=4) as load:
        for _ in range(2):
            assert p.send(("rh", "loop"))[0].status == 503
            recovered(p)
        before = load.ok
        g.wait(lambda: load.ok > before + 20, "more requests")
    load.assert_lossless(20)


def test_deadline_counts_cpu_time_of_each_callback_alone(rig):
    """Many callbacks of a long stream do not add up to a breach."""
    p = rig(annotations={"plugin.weir/cpu-deadline": "300ms"})
    with p.open(("rh", "ret 0")) as f:
        for i in range(200):
            f.data(b"x" * 100)
        f.end()
        f.response()
    assert failures(p.g, "rb") == 0


# ---- quarantine ----

@pytest.mark.parametrize("strategy", ["FAIL_CLOSE", "FAIL_OPEN", "FAIL_RELOAD"])
def test_quarantine_probe_and_recovery(rig, strategy):
    p = rig(strategy)
    g = p.g

    def trap():
        return p.send(("rh", "trap"))[0].status
    refused = 200 if strategy == "FAIL_OPEN" else 503
    for i in range(3):
        g.wait(lambda: g.plugins()["puppet"]["state"] == "Active", "the VM to be there")
        recovered(p)
        assert trap() == refused
    worker = g.wait(lambda: next((w for w in g.plugins()["puppet"]["workers"] if w["state"] == "quarantined"), None), "the quarantine")
    assert worker["failures"] == 3 and "proxy_on_request_headers" in worker["lastFailure"]
    assert g.plugins()["puppet"]["state"] == "Degraded"
    text = g.weir.run("status", "--admin", f"127.0.0.1:{g.admin}").stdout
    assert "Degraded" in text and "quarantined" in text
    g.wait_log(re.compile("puppet.*quarantined"))
    recovered(p)  # by a probe
    g.wait_log("serves again")
    g.wait(lambda: g.plugins()["puppet"]["state"] == "Active", "the state")
    g.wait(lambda: g.metrics().get("weir_plugin_traps_total", plugin="istio-system.puppet") == 3, "the metric")


def test_in_quarantine_the_guest_is_not_entered(rig):
    """A plugin that always traps: FAIL_CLOSE refuses at once, and the guest is entered by probes alone."""
    p = rig(statements=[("rh", "trap")])
    def refused():
        assert p.g.get("/x").status == 503
        return p.g.plugins()["puppet"]["workers"][0]["state"] == "quarantined"
    p.g.wait(refused, "the quarantine")
    statuses = [p.g.get(f"/{i}").status for i in range(300)]
    assert set(statuses) == {503} and not p.up.requests
    m = p.g.metrics()
    assert m.get("weir_plugin_errors_total", plugin="istio-system.puppet", strategy="fail") >= 300
    p.g.wait(lambda: p.g.metrics().get("weir_plugin_traps_total", plugin="istio-system.puppet") >= 3, "the metric")
    assert p.g.ended_streams("wasm_quarantined") > 0
    assert len(re.findall("failed on worker", p.g.log_text())) < 50


def test_a_failed_probe_goes_back_to_quarantine(rig):
    p = rig()
    g = p.g

    def losses():
        return g.plugins()["puppet"]["workers"][0]["failures"]

    def trap_until(n):
        def look():
            p.send(("rh", "trap"))
            return losses() >= n
        g.wait(look, f"{n} failures")
    trap_until(5)  # three, and two probes
    g.wait(lambda: g.plugins()["puppet"]["workers"][0]["state"] == "quarantined", "the quarantine")
    recovered(p)


def test_quarantine_on_one_worker_is_of_that_worker(rig):
    """Each worker has its VM; a request that kills it kills it there alone. GETs without the poison are served by the others."""
    p = rig(workers=4)
    with Conn(p.g.port) as c:  # one connection: one worker
        for _ in range(3):
            def poison():
                r, _ = p.send(("rh", "trap"), conn=c)
                return r.status == 503 and any(w["failures"] for w in p.g.plugins()["puppet"]["workers"])
            p.g.wait(poison, "a failure")
            recovered(p)
    g = p.g
    failed = [w["failures"] for w in g.plugins()["puppet"]["workers"]]
    assert sum(f > 0 for f in failed) == 1


def test_a_plugin_that_always_fails_harms_nobody_else(rig, variants):
    """Traps, spins and bombs go on on one listener; every GET on another one, and on plugins beside it, succeeds."""
    port = free_port()
    p = rig()
    g = p.g
    g.apply("gateway", [res.gateway(0, listeners=[res.listener("a", g.port), res.listener("b", port)]), res.route("default", res.rule("backend")), *res.backend("backend", p.up)])
    mine, other = ([{"mode": "CLIENT", "ports": [{"number": n}]}] for n in (g.port, port))
    g.apply("extra", [puppet_plugin(variants.puppet(), annotations={**LIMITS, "plugin.weir/cpu-deadline": "50ms"}, match=mine),
                      puppet_plugin(variants.puppet("QUIET"), name="good", statements=[("sh", op("set", RESP, "x-good", "yes"))], match=other)])
    g.wait_plugin("good")
    g.wait(lambda: g.get(port=port).header("x-good") == "yes", "the good plugin on the second listener")
    with Load(port, threads=4, check=lambda r: r.header("x-good") == "yes") as load:
        kinds = ["trap", "loop", "bomb", "recurse"]
        for i in range(40):
            r, _ = p.send(("rh", kinds[i % 4]))
            assert r.status == 503
        before = load.ok
        g.wait(lambda: load.ok >= before + 50, "more requests")
    load.assert_lossless(50)
    assert g.plugins()["good"]["state"] == "Active"


def test_memory_of_dead_vms_is_given_back(rig):
    p = rig(annotations={"plugin.weir/memory-limit": "64Mi"})
    g = p.g

    def kill(n):
        def look():
            p.send(("rh", "bomb"))
            return g.plugins()["puppet"]["workers"][0]["failures"] >= n
        g.wait(look, f"{n} failures")
    kill(3)
    first = g.memory_kib("VmRSS")
    kill(6)
    assert g.memory_kib("VmRSS") < first + 100 * 1024


def test_failure_in_the_last_callbacks_of_a_plugin(rig):
    """on_done of the root runs when the plugin is taken away: nothing is left to harm."""
    p = rig()
    bad = [("done", "trap"), ("del", "trap")]
    p.g.apply("extra", puppet_plugin(p.g.dir.joinpath("extra.yaml").read_text().split("file://")[1].split("\n")[0], statements=bad, annotations=LIMITS))
    p.g.wait(lambda: p.g.plugins()["puppet"]["generation"] > 1 and p.g.plugins()["puppet"]["state"] == "Active", "the new generation")
    p.g.remove("extra")
    p.g.wait(lambda: not p.g.plugins(), "the plugin to be gone")
    assert p.g.get().status == 200


def test_function_names_and_guest_text_are_escaped(gateway, upstream, guests):
    loud = guests.source("""
enum pw_action pw_on_request_headers(uint32_t ctx, uint32_t count, bool end) { (void)ctx; (void)count; (void)end;
    pw_log(PW_WARN, PW_STR("first line\\n2026-01-01T00:00:00.000Z info  plugin evil active\\x1b[31m\\r\\0<script>")); return PW_CONTINUE; }
""", "loud")
    g = gateway(upstream(), workers=1, extra=[res.plugin("loud", loud)])
    assert g.get().status == 200
    g.wait_log("first line")
    assert not [l for l in g.log_text().splitlines() if l.startswith("2026-01-01")]
    assert "\x1b" not in g.log_text() and "\x00" not in g.log_text()


# What a trap's line must say, innermost first: names always, places where the module carries DWARF (Go's has none).
BACKTRACES = {"trap-rust": [r"take_one \(src/lib\.rs:22\)", r"charge_the_client \(src/lib\.rs:29\)",
                            r"proxy_on_request_headers \(src/lib\.rs:34\)"],
              "trap-go": [r"runtime\.\S*panic", r"main\.\S*quota\S*\.takeOne", r"main\.chargeTheClient", r"main\.requestHeaders"]}


@pytest.mark.guests
@pytest.mark.parametrize("name", BACKTRACES)
def test_backtrace_of_other_languages(gateway, upstream, built_guests, name):
    up = upstream()
    g = gateway(up, workers=1, extra=[res.plugin(name, built_guests / f"{name}.wasm")])
    g.wait_plugin(name)
    assert g.get().status == 503
    assert up.count == 0
    pattern = re.compile(rf"^.* error .*istio-system[./]{name}.*proxy_on_request_headers.*$", re.M)
    g.wait_log(pattern)
    lines = pattern.findall(g.log_text())
    assert len(lines) == 1, lines
    assert re.search(" < .*?".join(BACKTRACES[name]), lines[0]), lines[0]
