# SPDX-License-Identifier: Apache-2.0
"""From a WasmPlugin to traffic: fetching, verifying, compiling, the cache, order, targets, status; and that from process
start and through every edit no request passes around a plugin, and none is lost."""
import http.server
import os
import pathlib
import re
import shutil
import socketserver
import subprocess
import hashlib
import threading
import time

import pytest

from weirtest import resources as res
from weirtest.client import Closed, Conn
from weirtest.load import Load
from weirtest.marked import Marked
from weirtest.plugins import REQ, RESP, Puppet, Seen, StepUpstream, Variants, op, puppet_plugin, script
from weirtest.util import LOCAL, free_port, wait_until

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def variants(tmp_path_factory):
    return Variants(tmp_path_factory.mktemp("variants"))


@pytest.fixture
def own_cache(tmp_path):
    path = tmp_path / "cache"
    path.mkdir(mode=0o700)
    return path


def sha256(path):
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


def build_other(guests, n):
    """counter.c with other bytes: a module of its own."""
    text = (ROOT / "tests/guests/counter.c").read_text()
    return guests.source(text + f"\nPW_EXPORT(\"edition\") int edition(void); int edition(void) {{ return {n}; }}\n", "counter_edition")


def mark(value):
    return {"mark": value}


def marks(x):
    x.body()
    x.respond(200, {"x-mark": x.header("x-mark") or ""})


def build_large(guests, n, bytes_=1 << 20):
    """counter.c with so much ballast that compiling it is expected to take long."""
    text = (ROOT / "tests/guests/counter.c").read_text()
    return guests.source(text + f"""
static volatile const unsigned char ballast[{bytes_}] = {{ {n}, 2, 3 }};
PW_EXPORT("ballast") int ballast_at(int i);
int ballast_at(int i) {{ return ballast[i % {bytes_}]; }}
""", "counter_large")


# ---- never unfiltered ----

class Hammer:
    """From before the process is there: every answer is fine, and so is a refused connection."""

    def __init__(self, port, threads=6, traps=False):
        self.port, self.stopping, self.ok, self.other, self.traps = port, threading.Event(), 0, 0, traps
        self.statuses = set()
        self.threads = [threading.Thread(target=self._run, args=(i,), daemon=True) for i in range(threads)]

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        for t in self.threads:
            t.join(120)

    def _run(self, i):
        n = 0
        while not self.stopping.is_set():
            try:
                with Conn(self.port) as c:
                    for _ in range(20):
                        n += 1
                        op_ = "trap" if self.traps and i == 0 and n % 50 == 0 else "none"
                        c.request("POST" if n % 3 == 0 else "GET", "/", {"x-op": op_}, b"body" if n % 3 == 0 else b"")
                        r = c.response()
                        self.statuses.add(r.status)
                        if r.status == 200:
                            self.ok += 1
                        else:
                            self.other += 1
                        if r.will_close or self.stopping.is_set():
                            break
            except (OSError, AssertionError):
                time.sleep(0.001)


@pytest.mark.slow
def test_never_unfiltered(gateway, upstream, guests, own_cache):
    """From before the start, with a slow compile, through 50 edits of configuration, code and phase, with traps between."""
    up = Marked(upstream)
    g = gateway(start=False, cache=own_cache)
    port = free_port()
    wasms = [guests.build("counter"), *(build_other(guests, i) for i in range(2))]
    with Hammer(port, traps=True) as hammer:
        g.start(up, port=port, ready=False, env={"WEIR_TEST_COMPILE_DELAY_MS": "3000"}, extra=[res.plugin("counter", wasms[0], mark("start"))])
        g.wait(lambda: g.plugins()["counter"]["state"] == "Pending", "the plugin to be on its way")
        g.wait(lambda: 403 in hammer.statuses, "requests to be refused meanwhile")
        assert not g.is_ready() or g.plugins()["counter"]["state"] != "Pending"
        assert up.up.count == 0 or g.plugins()["counter"]["state"] != "Pending"
        g.wait_ready()
        g.wait(lambda: hammer.ok > 50, "requests to pass")
        for i in range(50):
            g.apply("extra", res.plugin("counter", wasms[i * 3 // 50], mark(f"m{i}"), phase=["AUTHN", "AUTHZ", "STATS"][i % 3],
                                        failStrategy=["FAIL_CLOSE", "FAIL_RELOAD"][i % 2]))
            before = hammer.ok + hammer.other
            g.wait(lambda: hammer.ok + hammer.other > before + 10, "traffic")
            if i % 7 == 0:
                g.wait(lambda: g.plugins()["counter"]["stage"] == "Programmed", "the edit")
        g.wait(lambda: "m49" in up.seen, "the last edit")
        before = hammer.ok
        g.wait(lambda: hammer.ok > before + 50, "more requests")
    assert up.unmarked == [], f"{len(up.unmarked)} requests reached the upstream unfiltered: {up.unmarked[:2]}"
    assert up.seen <= {"start", *(f"m{i}" for i in range(50))}


def test_not_ready_until_the_plugin_is(gateway, upstream, guests, own_cache):
    up = Marked(upstream)
    g = gateway(up, cache=own_cache, ready=False, env={"WEIR_TEST_COMPILE_DELAY_MS": "3000"}, extra=[res.plugin("counter", guests.build("counter"))])
    g.wait(lambda: g.plugins().get("counter", {}).get("stage") == "Compiling", "the compile")
    seen_unready = not g.is_ready()
    text = g.admin_request("GET", "/ready").text
    refused = g.get().status
    still = g.plugins()["counter"]["stage"] == "Compiling"
    assert not still or (seen_unready and refused == 403 and "counter" in text and up.up.count == 0)
    g.wait_ready()
    assert g.plugins()["counter"]["state"] == "Active"
    assert g.get().status == 200 and up.unmarked == []


def test_fail_open_passes_meanwhile(gateway, upstream, guests, own_cache):
    up = Marked(upstream)
    g = gateway(up, cache=own_cache, ready=False, env={"WEIR_TEST_COMPILE_DELAY_MS": "3000"},
                extra=[res.plugin("counter", guests.build("counter"), failStrategy="FAIL_OPEN")])
    g.wait(lambda: g.plugins().get("counter", {}).get("stage") == "Compiling", "the compile")
    assert g.get().status == 200
    g.wait_ready()
    assert g.get().header("x-mark") == "plain"


def test_a_plugin_on_its_way_delays_no_other(gateway, upstream, guests, own_cache):
    """One module compiles for long; edits of another plugin, and of routes, act at once."""
    up = Marked(upstream)
    g = gateway(up, cache=own_cache, extra=[res.plugin("counter", guests.build("counter"))])
    g.stop()
    port = free_port()
    g.apply("gateway", [res.gateway(0, listeners=[res.listener("a", g.port), res.listener("b", port)]), res.route("default", res.rule("backend")), *res.backend("backend", up)])
    g.apply("extra", [res.plugin("counter", guests.build("counter"), mark("one"), match=[{"mode": "CLIENT", "ports": [{"number": g.port}]}]),
                      res.plugin("slow", build_other(guests, 77), match=[{"mode": "CLIENT", "ports": [{"number": port}]}])])
    g.spawn({"WEIR_TEST_COMPILE_DELAY_MS": "60000"})
    g.wait(lambda: g.get().header("x-mark") == "one", "the ready plugin to serve")
    assert g.get(port=port).status == 403
    g.apply("extra", [res.plugin("counter", guests.build("counter"), mark("two"), match=[{"mode": "CLIENT", "ports": [{"number": g.port}]}]),
                      res.plugin("slow", build_other(guests, 77), match=[{"mode": "CLIENT", "ports": [{"number": port}]}])])
    g.wait(lambda: g.get().header("x-mark") == "two", "the edit to act")
    assert g.plugins()["slow"]["state"] == "Pending" and not g.is_ready()
    assert g.get(port=port).status == 403


# ---- zero loss ----

def test_edits_under_load_lose_nothing(gateway, upstream, guests):
    up = Marked(upstream)
    wasms = [guests.build("counter"), *(build_other(guests, i) for i in range(4))]
    g = gateway(up, extra=[res.plugin("counter", wasms[0], mark("start"))])
    with Load(g.port, threads=8, check=lambda r: r.header("x-mark")) as load:
        for i in range(30):
            g.apply("extra", res.plugin("counter", wasms[i // 6], mark(f"m{i}"), phase=["AUTHN", "AUTHZ"][i % 2], priority=i))
            g.wait(lambda: g.get().header("x-mark") == f"m{i}", f"edit {i} to act")
    load.assert_lossless(100)
    assert up.unmarked == []
    g.wait(lambda: g.plugins()["counter"]["stage"] == "Programmed", "the status")
    assert g.plugins()["counter"]["swaps"] >= 29


def test_deleting_and_adding_under_load_loses_nothing(gateway, upstream, guests):
    up = Marked(upstream)
    g = gateway(up, extra=[res.plugin("counter", guests.build("counter"))])
    with Load(g.port, threads=4) as load:
        for i in range(5):
            g.remove("extra")
            g.wait(lambda: g.get().header("x-mark") == "", "the plugin to be gone")
            before = load.ok
            g.wait(lambda: load.ok > before + 20, "more requests")
            if i < 4:
                # A FAIL_CLOSE plugin that is new refuses until it is there; the module is in the cache, and still that is a moment.
                g.apply("extra", res.plugin("counter", guests.build("counter"), failStrategy="FAIL_OPEN"))
                g.wait(lambda: g.get().header("x-mark") == "plain", "the plugin to be there again")
    load.assert_lossless(100)
    assert g.plugins() == {}
    g.wait_log("plugin istio-system/counter removed")


def test_streams_on_their_way_stay_with_their_generation(gateway, upstream, variants):
    up = StepUpstream(upstream)
    wasm = variants.puppet()
    g = gateway(up, workers=1, extra=[puppet_plugin(wasm, statements=[("sb", op("setbuf", 1, 99999, 0, "-old"))])])
    p = Puppet(g, up)
    held = up.hold("/long")
    with Conn(g.port) as c:
        c.request("GET", "/long", {"x-tag": "long"})
        held.head().data(b"one")
        c.head()
        assert c.chunk() == b"one-old"
        g.apply("extra", puppet_plugin(wasm, statements=[("sb", op("setbuf", 1, 99999, 0, "-new"))]))
        g.wait(lambda: g.plugins()["puppet"]["generation"] == 2 and g.plugins()["puppet"]["stage"] == "Programmed", "the edit")
        held.data(b"two")
        assert c.chunk() == b"two-old"
        g.remove("extra")
        g.wait(lambda: not g.plugins(), "the plugin to be gone")
        held.data(b"three").end()
        assert c.chunk() == b"three-old" and c.chunk().endswith(b"")
    assert p.send(("x", "ret 0"))[0].body == b"answer"


def test_a_paused_stream_of_an_old_generation_is_released(gateway, upstream, variants):
    up = StepUpstream(upstream)
    wasm = variants.puppet()
    auth = StepUpstream(upstream)
    held = auth.hold("/auth")
    g = gateway(up, workers=1, extra=[*res.backend("auth", auth)])
    g.apply_and_wait("plugin", puppet_plugin(wasm))
    g.wait_plugin("puppet")
    p = Puppet(g, up)
    with p.open(("rh", op("call", "auth.istio-system:80", "/auth", 60000, ""), "ret 1"), ("cr", "cont 0"), method="GET") as f:
        auth.wait("/auth")
        g.apply("plugin", puppet_plugin(wasm, statements=[("x", "ret 0")]))
        g.wait(lambda: g.plugins()["puppet"]["generation"] == 2 and g.plugins()["puppet"]["stage"] == "Programmed", "the edit")
        held.head(200, {"content-length": 0}, chunked=False).done()
        f.response()


def test_endpoint_and_route_edits_start_no_vm(gateway, upstream, guests):
    ups = [upstream(marks, keep_exchanges=False) for _ in range(2)]
    g = gateway(ups[0], workers=2, extra=[res.plugin("counter", guests.build("counter"), mark("same"))])
    assert g.metrics().value("e2e_vm_starts") == 2
    generation = g.plugins()["counter"]["generation"]
    slices = g.dir / "slices.yaml"
    docs = g.default_resources(ups[0])
    g.apply("gateway", docs[:2] + [res.service("backend")])
    g.apply("slices", res.slice_("backend", ups[0].port))
    with Load(g.port, threads=4, check=lambda r: r.header("x-mark") == "same") as load:
        for i in range(1000):
            g.apply("slices", [res.slice_("backend", ups[i % 2].port), res.slice_("backend", ups[(i + 1) % 2].port, name="backend-2", ready=i % 3 == 0)])
            if i % 10 == 0:
                rule = res.rule("backend", filters=[{"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "x-edit", "value": str(i)}]}}])
                g.apply("gateway", [docs[0], res.route("default", rule), res.service("backend")])
            if i % 100 == 90:
                g.wait(lambda: g.get().header("x-edit") == str(i), "the route edit to act")
    load.assert_lossless(100)
    m = g.metrics()
    assert m.value("e2e_vm_starts") == 2 and m.value("e2e_configured") == 2
    assert g.plugins()["counter"]["generation"] == generation


def test_phase_priority_and_match_edits_start_no_vm(gateway, upstream, guests):
    up = Marked(upstream)
    wasm = guests.build("counter")
    g = gateway(up, workers=2, extra=[res.plugin("counter", wasm)])
    for i, spec in enumerate([{"phase": "AUTHN"}, {"phase": "STATS", "priority": 5}, {"match": [{"mode": "CLIENT", "ports": [{"number": g.port}]}]}]):
        g.apply_and_wait("extra", res.plugin("counter", wasm, **spec))
        assert g.get().header("x-mark") == "plain"
    assert g.metrics().value("e2e_vm_starts") == 2


# ---- bad modules ----

def failed(g, name, reason, text):
    p = g.wait_plugin(name, "Failed", reason=reason)
    assert re.search(text, p["message"]), p["message"]
    return p


@pytest.fixture
def bad(gateway, upstream):
    def make(url, **spec):
        up = upstream()
        g = gateway(up, extra=[res.plugin("bad", url, **spec)])
        g.up = up
        return g
    return make


def test_bad_digest(bad, guests):
    wasm = guests.build("counter")
    g = bad(wasm, sha256="0" * 64)
    failed(g, "bad", "DigestMismatch", sha256(wasm))
    assert g.get().status in (403, 503) and g.up.count == 0
    g.apply("extra", res.plugin("bad", wasm, sha256=sha256(wasm)))
    g.wait_plugin("bad", sha256=sha256(wasm))
    assert g.get().status == 200


def test_not_a_module(bad, tmp_path):
    path = tmp_path / "text.wasm"
    path.write_text("this is no module")
    g = bad(path)
    failed(g, "bad", "BadModule", "not a valid Wasm module")
    assert g.get().status == 503 and g.up.count == 0


def test_module_without_an_abi(bad, variants):
    g = bad(variants.raw("__attribute__((export_name(\"malloc\"))) void *alloc(unsigned n) { (void)n; return 0; }\n", "no_abi"))
    failed(g, "bad", "BadModule", "missing or unknown Proxy-Wasm ABI version")


def test_module_with_a_callback_of_a_wrong_type(bad, variants):
    g = bad(variants.puppet("ABI_0_1"))
    failed(g, "bad", "BadModule", "proxy_on_request_headers")


def test_module_with_invalid_code(bad, guests, tmp_path):
    data = bytearray(guests.build("counter").read_bytes())
    at = data.find(b"\x0b", len(data) // 3)  # some end of a block or function
    path = tmp_path / "broken.wasm"
    for value in (0xFF, 0xFE, 0x06):
        data[at] = value
    path.write_bytes(bytes(data))
    g = bad(path)
    p = g.wait_plugin("bad", "Failed")
    assert p["reason"] in ("CompileFailed", "BadModule") and p["message"]
    assert g.get().status == 503 and g.up.count == 0


@pytest.mark.parametrize("strategy,status", [("FAIL_CLOSE", 403), ("FAIL_OPEN", 200), ("FAIL_RELOAD", 403)])
def test_missing_file_and_its_arrival(bad, guests, tmp_path, strategy, status):
    path = tmp_path / "late.wasm"
    g = bad(path, failStrategy=strategy)
    failed(g, "bad", "FetchFailed", "late.wasm")
    assert g.get().status == status
    shutil.copy(guests.build("counter"), tmp_path / "aside")
    os.rename(tmp_path / "aside", path)
    g.wait_plugin("bad")
    assert g.get().status == 200


@pytest.mark.parametrize("what", ["directory", "fifo", "socket"])
def test_what_is_no_regular_file(bad, tmp_path, what):
    path = tmp_path / what
    if what == "directory":
        path.mkdir()
    elif what == "fifo":
        os.mkfifo(path)
    else:
        import socket
        s = socket.socket(socket.AF_UNIX)
        s.bind(str(path))
    g = bad(path)
    failed(g, "bad", "FetchFailed", ".")


def test_registry_that_is_not_there(bad):
    g = bad("oci://127.0.0.1:1/filter:v1")
    failed(g, "bad", "FetchFailed", r"http://127\.0\.0\.1:1/v2/filter/manifests/v1: ")
    assert g.get().status == 403 and g.up.count == 0


def test_network_type_is_not_supported_yet(bad, guests):
    g = bad(guests.build("counter"), type="NETWORK")
    failed(g, "bad", "NotSupported", "NETWORK")


# ---- http ----

class WebServer:
    """Answers from a list of (path, function of handler)."""

    def __init__(self):
        outer = self
        self.answers, self.requests = {}, []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.requests.append(self.path)
                status, headers, body = outer.answers.get(self.path, (404, {}, b"none"))
                if callable(body):
                    status, headers, body = body()
                self.send_response(status)
                for n, v in headers.items():
                    self.send_header(n, v)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass
        self.server = http.server.ThreadingHTTPServer((LOCAL, 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self, path):
        return f"http://{LOCAL}:{self.port}{path}"


@pytest.fixture
def web():
    w = WebServer()
    yield w
    w.server.shutdown()
    w.server.server_close()


def test_http_module(bad, web, guests):
    data = guests.build("counter").read_bytes()
    web.answers["/m.wasm"] = (200, {}, data)
    g = bad(web.url("/m.wasm"), sha256=hashlib.sha256(data).hexdigest())
    assert g.wait_plugin("bad")["sha256"] == hashlib.sha256(data).hexdigest()
    assert g.get().status == 200


def test_http_module_with_a_bad_digest(bad, web, guests):
    web.answers["/m.wasm"] = (200, {}, guests.build("counter").read_bytes())
    g = bad(web.url("/m.wasm"), sha256="1" * 64)
    failed(g, "bad", "DigestMismatch", "1111")
    assert g.up.count == 0 and g.get().status in (403, 503)


@pytest.mark.parametrize("status", [404, 500, 503])
def test_http_failures_are_tried_again(bad, web, guests, status):
    web.answers["/m.wasm"] = (status, {}, b"no")
    g = bad(web.url("/m.wasm"))
    failed(g, "bad", "NotFound" if status == 404 else "ServerError", f"answered {status}")
    assert g.get().status == 403
    web.answers["/m.wasm"] = (200, {}, guests.build("counter").read_bytes())
    g.wait_plugin("bad")
    assert len(web.requests) >= 2


def test_http_redirects(bad, web, guests):
    web.answers["/m.wasm"] = (302, {"Location": "/moved"}, b"")
    web.answers["/moved"] = (301, {"Location": web.url("/there.wasm")}, b"")
    web.answers["/there.wasm"] = (200, {}, guests.build("counter").read_bytes())
    g = bad(web.url("/m.wasm"))
    g.wait_plugin("bad")


@pytest.mark.parametrize("target", ["file:///etc/hostname", "ftp://127.0.0.1/x", "/loop", "http://169.254.169.254/latest/meta-data"])
def test_http_redirects_to_where_none_may_go(bad, web, target):
    web.answers["/loop"] = (302, {"Location": target}, b"")
    g = bad(web.url("/loop"))
    failed(g, "bad", "Refused" if "169.254" in target else "FetchFailed", ".")
    assert g.get().status == 403 and g.up.count == 0


def test_http_server_that_is_not_there(bad):
    g = bad(f"http://{LOCAL}:{free_port()}/m.wasm")
    failed(g, "bad", "FetchFailed", "(?i)connect|refused")


# ---- files that change ----

@pytest.mark.parametrize("how", ["rename", "overwrite"])
def test_a_rebuilt_file_goes_live_by_itself(gateway, upstream, guests, tmp_path, how):
    path = tmp_path / "filter.wasm"
    source = "enum pw_action pw_on_response_headers(uint32_t ctx, uint32_t count, bool end) {{ (void)ctx; (void)count; (void)end;" \
             " pw_set_header(PW_RESPONSE_HEADERS, \"x-build\", PW_STR(\"{}\")); return PW_CONTINUE; }}\n"
    builds = [guests.source(source.format(n), "rebuilt") for n in ("one", "two", "three")]
    shutil.copy(builds[0], path)
    g = gateway(upstream(keep_exchanges=False), extra=[res.plugin("p", path)])
    assert g.get().header("x-build") == "one"
    with Load(g.port, threads=2, check=lambda r: r.header("x-build")) as load:
        for n, build in zip(("two", "three"), builds[1:]):
            if how == "rename":
                shutil.copy(build, tmp_path / "aside")
                os.rename(tmp_path / "aside", path)
            else:
                path.write_bytes(build.read_bytes())
            g.wait(lambda: g.get().header("x-build") == n, f"build {n} to serve")
        os.unlink(path)  # takes nothing away
        before = load.ok
        g.wait(lambda: load.ok > before + 50, "more requests")
    load.assert_lossless(50)
    g.wait(lambda: g.plugins()["p"]["sha256"] == sha256(builds[2]), "the status")


def test_a_touched_file_changes_nothing(gateway, upstream, guests, tmp_path):
    path = tmp_path / "filter.wasm"
    shutil.copy(guests.build("counter"), path)
    g = gateway(upstream(), workers=1, extra=[res.plugin("p", path)])
    generation = g.plugins()["p"]["generation"]
    os.utime(path, (1, 1))
    g.wait_log("active as before")
    assert g.plugins()["p"]["generation"] == generation and g.metrics().value("e2e_vm_starts") == 1


# ---- order and targets ----

def ordered(g, up, port=None):
    path = "/order"
    assert g.get(path, port=port).status == 200
    return up.find(path).head.all("x-order")


def orderer(wasm, name, **spec):
    return puppet_plugin(wasm, name=name, statements=[("rh", op("add", REQ, "x-order", name))], **spec)


def test_phases_and_priorities(gateway, upstream, variants):
    up, w = StepUpstream(upstream), variants.puppet("QUIET")
    g = gateway(up, workers=1, extra=[
        orderer(w, "none"), orderer(w, "stats", phase="STATS"), orderer(w, "authz-1", phase="AUTHZ", priority=1), orderer(w, "authz-5", phase="AUTHZ", priority=5),
        orderer(w, "authz-minus", phase="AUTHZ", priority=-3), orderer(w, "authn", phase="AUTHN", priority=-100), orderer(w, "authz-0", phase="AUTHZ", priority=0)])
    assert ordered(g, up) == ["authn", "authz-5", "authz-1", "authz-0", "authz-minus", "stats", "none"]
    chain = [c["plugin"].split("/")[1] for c in g.config()["listeners"][0]["chain"]]
    assert chain == ordered(g, up)


def test_match_ports(gateway, upstream, variants):
    up, w = StepUpstream(upstream), variants.puppet("QUIET")
    a, b = free_port(), free_port()

    def on(*ports, mode="CLIENT"):
        return [{"mode": mode, "ports": [{"number": n} for n in ports]}]
    g = gateway(resources={"all": [
        res.gateway(0, listeners=[res.listener("a", a), res.listener("b", b)]), res.route("r", res.rule("backend")), *res.backend("backend", up),
        orderer(w, "a", match=on(a), phase="AUTHN"), orderer(w, "b", match=on(b), phase="AUTHN"), orderer(w, "both", match=on(a, b)),
        orderer(w, "any", match=[{"mode": "CLIENT"}], phase="STATS"), orderer(w, "server", match=on(a, mode="SERVER"))]}, port=a, workers=1)
    assert ordered(g, up) == ["a", "any", "both"]
    assert ordered(g, up, port=b) == ["b", "any", "both"]


def test_a_selector_that_matches_nothing(gateway, upstream, variants):
    up, w = StepUpstream(upstream), variants.puppet("QUIET")
    g = gateway(up, workers=1, extra=[orderer(w, "no", selector={"istio": "egressgateway"}), orderer(w, "yes"),
                                      orderer(w, "elsewhere", ns="other"), orderer(w, "all", selector=None)])
    assert sorted(ordered(g, up)) == ["all", "yes"]
    for name in ("no", "elsewhere"):
        p = g.plugins()[name]
        assert p["appliesToTraffic"] is False and "applies to no Gateway" in p["appliesMessage"]
    assert g.plugins()["yes"]["appliesToTraffic"] is True
    assert "applies to no Gateway" in g.weir.run("status", "--admin", f"{LOCAL}:{g.admin}").stdout


def test_a_plugin_that_applies_to_nothing_does_not_hold_readiness(gateway, upstream, own_cache, guests):
    g = gateway(upstream(), cache=own_cache, extra=[res.plugin("no", "/no/such/file.wasm", selector={"a": "b"})])
    assert g.get().status == 200


def test_labels_of_this_gateway(gateway, upstream, variants):
    up, w = StepUpstream(upstream), variants.puppet("QUIET")
    g = gateway(up, workers=1, args=["--labels", "app=mine,tier=edge", "--name", "edge"],
                extra=[orderer(w, "app", selector={"app": "mine"}), orderer(w, "two", selector={"app": "mine", "tier": "edge"}),
                       orderer(w, "not", selector={"app": "mine", "tier": "back"}), orderer(w, "default", selector={"istio": "ingressgateway"}),
                       orderer(w, "gw", selector={"gateway.networking.k8s.io/gateway-name": "gw"})])
    assert sorted(ordered(g, up)) == ["app", "gw", "two"]


@pytest.mark.parametrize("field", ["targetRefs", "targetRef"])
def test_target_refs(gateway, upstream, variants, field):
    up, w = StepUpstream(upstream), variants.puppet("QUIET")
    a, b = free_port(), free_port()

    def target(name):
        ref = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": name}
        return {field: [ref] if field == "targetRefs" else ref}
    g = gateway(resources={"all": [
        res.gateway(a, name="one"), res.gateway(b, name="two"), res.route("r", res.rule("backend"), parents=[{"name": "one"}, {"name": "two"}]),
        *res.backend("backend", up), orderer(w, "for-one", **target("one")), orderer(w, "for-two", **target("two")), orderer(w, "for-none", **target("three"))]},
        port=a, workers=1)
    assert ordered(g, up) == ["for-one"] and ordered(g, up, port=b) == ["for-two"]
    assert g.plugins()["for-none"]["appliesToTraffic"] is False


def test_the_resource_of_the_wasm_guide(gateway, upstream, guests):
    """As published for Istio, with nothing but its url changed."""
    wasm = guests.build("counter")
    text = f"""apiVersion: extensions.istio.io/v1alpha1
kind: WasmPlugin
metadata:
  name: my-wasm-plugin
  namespace: istio-system
spec:
  selector:
    matchLabels:
      istio: ingressgateway
  url: file://{wasm}
  phase: AUTHZ
"""
    up = Marked(upstream)
    g = gateway(up)
    assert g.get().header("x-mark") == ""
    g.apply("plugin", text)
    p = g.wait_plugin("my-wasm-plugin", phase="AUTHZ", appliesToTraffic=True)
    assert g.get().header("x-mark") == "plain"
    g.wait_log(re.compile(rf"info  plugin istio-system/my-wasm-plugin active: phase AUTHZ, sha256 {sha256(wasm)}, ABI 0\.2\.1, 2 workers, .* \d+ ms after the change"))
    g.apply("plugin", text.replace(f"file://{wasm}", "oci://127.0.0.1:1/my-wasm-filter:latest"))
    g.wait(lambda: g.plugins()["my-wasm-plugin"]["reason"] == "FetchFailed", "the status")
    assert g.get().header("x-mark") == "plain"  # the last good version goes on


def test_traffic_extension(gateway, upstream, guests, variants):
    up, w = StepUpstream(upstream), variants.puppet("QUIET")
    doc = {"apiVersion": "extensions.istio.io/v1alpha1", "kind": "TrafficExtension", "metadata": {"name": "ext", "namespace": "istio-system"},
           "spec": {"selector": {"matchLabels": {"istio": "ingressgateway"}}, "phase": "AUTHN", "priority": 3,
                    "wasm": {"url": f"file://{w}", "pluginConfig": {"script": script(("rh", op("add", REQ, "x-order", "ext")))}, "pluginName": "root"}}}
    g = gateway(up, workers=1, extra=[orderer(w, "plugin", phase="AUTHZ"), doc])
    assert ordered(g, up) == ["ext", "plugin"]
    assert g.plugins()["ext"]["kind"] == "TrafficExtension" and g.plugins()["ext"]["state"] == "Active"
    del doc["spec"]["wasm"]
    g.apply("extra", [orderer(w, "plugin", phase="AUTHZ"), doc])
    g.wait(lambda: g.object("TrafficExtension", "ext")["state"] == "stale", "the object to be stale")
    assert ordered(g, up)[-2:] == ["ext", "plugin"]


def test_two_plugins_with_the_same_code(gateway, upstream, variants):
    up, w = StepUpstream(upstream), variants.puppet("QUIET")
    g = gateway(up, workers=2, extra=[orderer(w, f"p{i}", phase="AUTHN", priority=10 - i) for i in range(5)])
    assert ordered(g, up) == [f"p{i}" for i in range(5)]
    # One of them fails: the others go on.
    g.apply("extra", [orderer(w, f"p{i}", phase="AUTHN", priority=10 - i) for i in range(5)] + [
        puppet_plugin(w, name="bad", statements=[("rh", "trap")], failStrategy="FAIL_OPEN")])
    g.wait_plugin("bad")
    for _ in range(5):
        assert g.get("/again").status == 200
        assert up.find("/again").head.all("x-order") == [f"p{i}" for i in range(5)]


def test_config_shows_no_secrets(gateway, upstream, guests):
    canary = "canary-7f3a9"
    g = gateway(upstream(), extra=[res.plugin("p", guests.build("counter"), {"mark": canary}, vmConfig={"env": [{"name": "KEY", "value": canary + "-env"}]})])
    g.get()
    outputs = [g.admin_get(p).text for p in ("/config", "/plugins", "/metrics", "/ready", "/")] + [g.log_text(), g.weir.run("status", "--admin", f"{LOCAL}:{g.admin}").stdout]
    assert not [o for o in outputs if canary in o]


# ---- the cache ----

def test_a_restart_compiles_nothing(gateway, upstream, guests, own_cache):
    up = Marked(upstream)
    g = gateway(up, cache=own_cache, extra=[res.plugin("counter", guests.build("counter"))])
    assert list(own_cache.glob("*.cwasm"))
    g.stop()
    g.spawn({"WEIR_TEST_COMPILE_DELAY_MS": "60000"})
    stages = set()

    def ready():
        stages.add(g.plugins()["counter"]["stage"])
        return g.is_ready()
    g.wait(ready, "/ready")
    assert "Compiling" not in stages and g.get().header("x-mark") == "plain"


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.chmod(0o600)
    path.write_bytes(bytes(data))
    return bytes(data)


@pytest.mark.parametrize("what", ["code", "mac", "no mac", "truncated", "other file", "other key"])
def test_a_tampered_cache_is_not_loaded(gateway, upstream, guests, own_cache, what):
    up = Marked(upstream)
    g = gateway(up, cache=own_cache, extra=[res.plugin("counter", guests.build("counter"))])
    g.stop()
    code, = own_cache.glob("*.cwasm")
    good = code.read_bytes()
    mac = code.with_suffix(".mac")
    if what == "code":
        flip(code)
    elif what == "mac":
        flip(mac)
    elif what == "no mac":
        mac.unlink()
    elif what == "truncated":
        code.write_bytes(good[:len(good) // 2])
    elif what == "other key":
        flip(own_cache / "mac.key")
    elif what == "other file":  # well made, but of another module
        other = gateway(upstream(), cache=own_cache, extra=[res.plugin("p", build_other(guests, 5))])
        other.stop()
        second = next(p for p in own_cache.glob("*.cwasm") if p != code)
        shutil.copy(second, code)
        shutil.copy(second.with_suffix(".mac"), mac)
    bad = code.read_bytes() if what != "mac" else None
    g.spawn({})
    stages = set()

    def ready():
        stages.add(g.plugins()["counter"]["stage"])
        return g.is_ready()
    g.wait(ready, "/ready")
    assert g.get().header("x-mark") == "plain"
    if what in ("code", "truncated", "other file"):
        assert code.read_bytes() != bad  # made anew
    assert len(mac.read_bytes()) == 32 and up.unmarked == []


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_a_cache_directory_of_others_is_refused(gateway, upstream, tmp_path, mode):
    cache = tmp_path / "open"
    cache.mkdir()
    cache.chmod(mode)
    g = gateway(upstream(), cache=cache, ready=False)
    assert g.wait_exit() == 1
    g.ended = True
    assert "0700" in g.log_text() and str(cache) in g.log_text()


def test_processes_may_share_a_cache(gateway, upstream, guests, own_cache):
    ups = [Marked(upstream) for _ in range(3)]
    gs = [gateway(up, cache=own_cache, ready=False, extra=[res.plugin("counter", guests.build("counter"))]) for up in ups]
    for g, up in zip(gs, ups):
        g.wait_ready()
        assert g.get().header("x-mark") == "plain" and up.unmarked == []


def test_a_compile_that_is_not_wanted_any_more(gateway, upstream, guests, own_cache):
    """The plugin changes while its module compiles: the newer one counts, whenever the older one ends."""
    up = Marked(upstream)
    g = gateway(up, cache=own_cache, ready=False, env={"WEIR_TEST_COMPILE_DELAY_MS": "1500"}, extra=[res.plugin("counter", build_other(guests, 1), mark("old"))])
    g.wait(lambda: g.plugins().get("counter", {}).get("stage") == "Compiling", "the compile")
    g.apply("extra", res.plugin("counter", build_other(guests, 2), mark("new")))
    g.wait_ready()
    g.wait(lambda: g.get().header("x-mark") == "new", "the newer one")
    assert "old" not in up.seen and up.unmarked == []


def test_shutdown_while_compiling(gateway, upstream, guests, own_cache):
    g = gateway(upstream(), cache=own_cache, ready=False, env={"WEIR_TEST_COMPILE_DELAY_MS": "60000"}, extra=[res.plugin("counter", guests.build("counter"))])
    g.wait(lambda: g.plugins().get("counter", {}).get("stage") == "Compiling", "the compile")
    g.stop()
    assert not list(own_cache.glob("tmp-*"))


def test_many_generations_leave_no_memory(gateway, upstream, guests):
    up = Marked(upstream)
    wasm = guests.build("counter")
    g = gateway(up, workers=2, extra=[res.plugin("counter", wasm, mark("start"))])

    def edit(n):
        for i in range(n):
            g.apply("extra", res.plugin("counter", wasm, mark(f"g{i}")))
            g.wait(lambda: g.get().header("x-mark") == f"g{i}", "the edit")
    edit(20)
    if g.weir.sanitized:
        return
    first = g.memory_kib("VmRSS")
    edit(100)
    assert g.memory_kib("VmRSS") < first + 8 * 1024
    g.wait(lambda: g.metrics().value("weir_plugin_memory_bytes", plugin="istio-system.counter") < 3 * 2 * 1024 * 1024, "memory of retired VMs to be given back")


# ---- the two tiers ----

def test_fast_code_first_and_optimised_code_later(gateway, upstream, guests, own_cache):
    """A large cold module goes live by the fast compiler; the optimised code comes by a swap that no request notices."""
    up = Marked(upstream)
    wasm = build_large(guests, 1)
    g = gateway(up, cache=own_cache, extra=[res.plugin("large", wasm, mark("a"))], env={"WEIR_TEST_COMPILE_DELAY_MS": "1000"})
    first = g.wait_plugin("large", tier="fast", stage="Programmed")
    g.wait_log("fast code")
    with Load(g.port, threads=4) as load:
        g.wait_plugin("large", tier="optimised", stage="Programmed")
        before = load.ok
        g.wait(lambda: load.ok > before + 50, "requests through the optimised code")
    assert load.failed == 0, load.failures
    assert up.unmarked == [] and up.seen == {"a"}
    after = g.plugins()["large"]
    assert (after["generation"], after["swaps"]) == (first["generation"] + 1, 1)
    g.wait_log("plugin istio-system/large: its optimised code is in use")
    # Both are in the cache: a restart takes the better one and compiles nothing.
    g.stop()
    g.spawn({"WEIR_TEST_COMPILE_DELAY_MS": "60000"})
    g.wait_ready()
    p = g.wait_plugin("large", stage="Programmed")
    assert (p["tier"], p["swaps"]) == ("optimised", 0)


def test_an_edit_while_the_optimised_code_is_made(gateway, upstream, guests, own_cache):
    up = Marked(upstream)
    wasm = build_large(guests, 2)
    g = gateway(up, cache=own_cache, extra=[res.plugin("large", wasm, mark("a"))], env={"WEIR_TEST_COMPILE_DELAY_MS": "1500"})
    g.wait_plugin("large", tier="fast", stage="Programmed")
    with Load(g.port, threads=4) as load:
        for i in range(5):
            g.apply("extra", res.plugin("large", wasm, mark(f"b{i}")))
            g.wait(lambda: f"b{i}" in up.seen, "the edit")
        g.apply("extra", res.plugin("large", wasm, {"reject": True}))
        g.wait_plugin("large", reason="ConfigureFailed", stage="Failed")
        g.wait_plugin("large", tier="optimised")  # of what serves
        assert g.get().header("x-mark") == "b4"
        assert g.plugins()["large"]["reason"] == "ConfigureFailed"
    assert load.failed == 0, load.failures
    assert up.unmarked == []


@pytest.mark.parametrize("tier", ["optimised", "fast"])
def test_one_tier_only(gateway, upstream, guests, own_cache, tier):
    wasm = build_large(guests, 3)
    small = guests.build("counter")
    g = gateway(Marked(upstream), cache=own_cache, args=["--compile-tier", tier],
                extra=[res.plugin("large", wasm), res.plugin("small", small)])
    for name in ("large", "small"):
        assert g.wait_plugin(name, stage="Programmed")["tier"] == tier
    g.get()
    assert [p["swaps"] for p in g.plugins().values()] == [0, 0]


def test_a_module_the_fast_compiler_refuses(gateway, upstream, guests, own_cache):
    """Tail calls are the optimising compiler's alone."""
    base = build_large(guests, 4)
    wat = subprocess.run(["wasm2wat", "--enable-all", base], capture_output=True, text=True, check=True).stdout
    wat = wat.rstrip()[:-1] + """
  (func $tail_a (param i32) (result i32) (return_call $tail_b (local.get 0)))
  (func $tail_b (param i32) (result i32) (local.get 0))
  (export "tail" (func $tail_a)))"""
    out = own_cache.parent / "tail.wasm"
    text = own_cache.parent / "tail.wat"
    text.write_text(wat)
    subprocess.run(["wat2wasm", "--enable-all", text, "-o", out], check=True)
    g = gateway(Marked(upstream), cache=own_cache, extra=[res.plugin("tail", out)])
    p = g.wait_plugin("tail", stage="Programmed")
    assert (p["tier"], p["swaps"]) == ("optimised", 0)
    g.wait_log("the fast compiler does not take it")


# ---- one compile held ----

@pytest.mark.slow
def test_everything_else_goes_on_while_a_compile_is_held(gateway, upstream, guests, own_cache):
    up = Marked(upstream)
    small = guests.build("counter")
    g = gateway(up, cache=own_cache, extra=[res.plugin("small", small, mark("s0"))])
    g.wait_plugin("small", stage="Programmed")
    g.stop()
    g.spawn({"WEIR_TEST_COMPILE_DELAY_MS": "10000"})
    g.wait_ready()
    held = build_large(guests, 5)
    with Load(g.port, threads=2) as load:
        g.apply("held", res.plugin("held", held, failStrategy="FAIL_OPEN"))
        g.wait(lambda: g.plugins().get("held", {}).get("stage") == "Compiling", "the compile")
        for i in range(10):  # admin, other plugins, routes: all answer meanwhile
            g.apply("extra", res.plugin("small", small, mark(f"s{i + 1}")))
            g.wait(lambda: f"s{i + 1}" in up.seen, "the other plugin's edit")
            g.apply("gateway", g.default_resources(up, rules=[res.rule("backend", matches=[res.path_match("/")])] + [
                res.rule("backend", matches=[res.path_match(f"/r{k}")]) for k in range(i)]))
            assert g.admin_request("GET", "/metrics").status == 200
            assert g.plugins()["held"]["stage"] == "Compiling"
    assert load.failed == 0, load.failures
    g.wait_plugin("held", stage="Programmed")


# ---- the cache's size ----

def test_what_is_in_use_stays_in_a_cache_that_is_too_small(gateway, upstream, guests, own_cache):
    up = Marked(upstream)
    live = build_large(guests, 10)
    g = gateway(up, cache=own_cache, args=["--cache-size", "4Mi", "--compile-tier", "optimised"],
                extra=[res.plugin("live", live, mark("live"))])
    g.wait_plugin("live", stage="Programmed")
    for i in range(8):
        g.apply("other", res.plugin("other", build_large(guests, 20 + i), mark("live")))
        g.wait_plugin("other", stage="Programmed", sha256=sha256(build_large(guests, 20 + i)))
    g.wait(lambda: sum(p.stat().st_blocks * 512 for p in own_cache.iterdir()) < 9 << 20, "room to be made")
    kept = {p.name for p in own_cache.iterdir()}
    assert sha256(live) + ".wasm" in kept and sha256(build_large(guests, 27)) + ".wasm" in kept
    assert sha256(build_large(guests, 20)) + ".wasm" not in kept
    # It starts from what it kept, and compiles nothing.
    g.stop()
    g.spawn({"WEIR_TEST_COMPILE_DELAY_MS": "60000"})
    g.wait_ready()
    assert g.get().header("x-mark") == "live"


def test_killed_while_it_compiles(gateway, upstream, guests, own_cache):
    """What a process leaves behind that was killed goes with the next start."""
    g = gateway(Marked(upstream), cache=own_cache, ready=False, env={"WEIR_TEST_COMPILE_DELAY_MS": "1000"},
                extra=[res.plugin("counter", build_other(guests, 77))])
    g.wait(lambda: g.plugins().get("counter", {}).get("stage") == "Compiling", "the compile")
    g.expect_bad_exit = True
    g.process.kill()
    g.process.wait()
    (own_cache / "tmp-0123456789abcdef-0.cwasm").write_bytes(b"half of it")
    g.expect_bad_exit = False
    g.spawn()
    g.wait_ready()
    g.wait_plugin("counter", stage="Programmed")
    g.wait(lambda: len([p for p in own_cache.iterdir() if p.name.startswith("tmp-")]) == 1, "the leftovers to go")  # its own lock
