# SPDX-License-Identifier: Apache-2.0
"""HTTP callouts of filters: to whom, with what, how they end, and that they end once."""
import threading

import pytest

from weirtest import resources as res
from weirtest.client import Conn
from weirtest.plugins import CALL, CALL_T, REQ, Puppet, Seen, StepUpstream, Variants, fields, new_tag, op, puppet_plugin, script
from weirtest.upstream import Upstream, black_hole, closed_port

MAX = 0xFFFFFFFF
AUTH = "auth.istio-system.svc.cluster.local:80"


@pytest.fixture(scope="module")
def variants(tmp_path_factory):
    return Variants(tmp_path_factory.mktemp("variants"))


@pytest.fixture(scope="module")
def rig(module_gateway, module_upstream, variants):
    up, auth = StepUpstream(module_upstream), StepUpstream(module_upstream)
    held, closed = closed_port()
    hole, deaf = black_hole()
    g = module_gateway(up, workers=1, limits={"call-body-bytes": "64Ki", "connect-timeout": "60s"}, extra=[
        *res.backend("auth", auth), *res.backend("refused", closed), *res.backend("deaf", deaf), *res.backend("nobody", []),
        res.service_entry("ext", "ext.example", 8080, [{"address": "127.0.0.1", "ports": {"http": auth.port}}]),
        puppet_plugin(variants.puppet())])
    p = Puppet(g, up)
    p.auth, p.keep = auth, (held, hole)
    return p


def call(cluster=AUTH, path="/check", timeout=60000, body="", *headers):
    return op("call", cluster, path, timeout, body, *headers)


def test_success(rig):
    path = f"/{new_tag()}"
    held = rig.auth.hold(path)
    with rig.open(("rh", call(AUTH, path, 60000, "who?", "x-token", "t1"), "ret 1"),
                  ("cr", op("pairs", CALL), op("buf", 4, 0, MAX), op("get", CALL_T, "x-t"), op("callstatus"), op("set", REQ, "x-user", "alice"), "cont 0"),
                  method="GET") as f:
        x = rig.auth.wait(path)
        assert x.method == "POST" and b"".join(x.got) == b"who?" and x.header("x-token") == "t1" and x.header("host") == "callout.example"
        assert x.header("content-length") == "4"
        f.nothing_upstream()
        held.head(201, {"x-answer": "yes"}).data(b"it is alice").end({"x-t": "trailer"})
        f.response()
        f.seen.wait_end()
        answer = f.seen.of("cr", word="answer")
        assert answer["size"] == "11" and answer["trailers"] == "1" and int(answer["n"]) >= 2
        pairs = f.seen.texts("pairs")[0]
        assert "[:status=201]" in pairs and "[x-answer=yes]" in pairs
        assert f.seen.ops("buf")[0]["v"] == "it" and "v=it is alice" in f.seen.texts("buf")[0]
        assert f.seen.ops("get")[0]["v"] == "trailer"
        assert f.upstream().header("x-user") == "alice"


@pytest.mark.parametrize("name", ["istio-system/auth:80", "auth.istio-system.svc.cluster.local:80", "auth.istio-system.svc:80", "auth.istio-system:80",
                                  "outbound|80||auth.istio-system.svc.cluster.local", "ext.example:8080", "outbound|8080||ext.example"])
def test_names_of_clusters(rig, name):
    r, seen = rig.send(("rh", call(name), "ret 1"), ("cr", "cont 0"))
    assert r.status == 200
    seen.wait_end()
    assert "status=0" in seen.texts("call")[0] and seen.of("cr", word="answer")["n"] != "0"


@pytest.mark.parametrize("name", ["unknown", "127.0.0.1:80", "ext.example:80", "auth:80", "auth.other.svc.cluster.local:80", "", "outbound|81||ext.example",
                                  "~5000", "auth.istio-system.svc.cluster.local:80\0"])
def test_unknown_clusters_are_bad_arguments(rig, name):
    r, seen = rig.send(("rh", call(name), "ret 0"))
    assert r.status == 200
    seen.wait_end()
    assert seen.ops("call")[0] == {"status": "2", "id": "0"}
    assert seen.of("cr") is None


def test_no_address_is_taken_from_a_guest(rig):
    """Not the admin's either."""
    for name in (f"127.0.0.1:{rig.g.admin}", f"localhost:{rig.g.admin}"):
        r, seen = rig.send(("rh", call(name, "/drain", 1000, "x"), "ret 0"))
        seen.wait_end()
        assert seen.ops("call")[0]["status"] == "2"


@pytest.mark.parametrize("path", ["", "relative", "/a b", "/a\r\nx: y", "/\0"])
def test_bad_paths_are_bad_arguments(rig, path):
    r, seen = rig.send(("rh", call(AUTH, path), "ret 0"))
    seen.wait_end()
    assert seen.ops("call")[0]["status"] == "2" and seen.of("cr") is None


@pytest.mark.parametrize("name,value", [("x-a", "b\r\nx-injected: 1"), ("x a", "1"), ("transfer-encoding", "chunked"), ("content-length", "99"),
                                        ("connection", "close"), ("host", "evil"), ("x-a\n", "1")])
def test_evil_callout_headers(rig, name, value):
    path = f"/{new_tag()}"
    r, seen = rig.send(("rh", call(AUTH, path, 60000, "body", name, value), "ret 0"))
    seen.wait_end()
    if seen.ops("call")[0]["status"] == "0":
        x = rig.auth.wait(path)
        assert "x-injected" not in x.head and b"".join(x.got) == b"body" and x.head.all("content-length") == ["4"]
        assert x.head.all("host") == ["callout.example"] and "transfer-encoding" not in x.head
    else:
        assert seen.ops("call")[0]["status"] == "2"


@pytest.mark.parametrize("cluster", ["refused", "nobody"])
def test_failures_are_answered_once(rig, cluster):
    """As in Envoy: what fails before an answer's head is an answer of the gateway's own."""
    r, seen = rig.send(("rh", call(f"{cluster}.istio-system.svc.cluster.local:80"), "ret 1"), ("cr", op("callstatus"), op("pairs", CALL), "cont 0"))
    assert r.status == 200
    seen.wait_end()
    answers = seen.texts("answer")
    assert len(answers) == 1 and fields(answers[0])["n"] == "3"
    assert seen.ops("callstatus")[0]["code"] == "0" and "[:status=503]" in seen.texts("pairs")[0]


def test_a_peer_that_closes(rig):
    path = f"/{new_tag()}"
    held = rig.auth.hold(path)
    with rig.open(("rh", call(AUTH, path), "ret 1"), ("cr", "cont 0"), method="GET") as f:
        rig.auth.wait(path)
        held.head(200, {"content-length": 100}, chunked=False).raw(b"half").close()
        f.response()
        f.seen.wait_end()
        assert f.seen.of("cr", word="answer")["n"] == "0"


def test_timeout_is_a_504(rig):
    path = f"/{new_tag()}"
    rig.auth.hold(path)
    r, seen = rig.send(("rh", call(AUTH, path, 200), "ret 1"), ("cr", op("get", CALL, ":status"), "cont 0"))
    assert r.status == 200
    seen.wait_end()
    assert seen.ops("get")[0]["v"] == "504" and len(seen.texts("answer")) == 1


def test_timeout_behind_the_head(rig):
    path = f"/{new_tag()}"
    held = rig.auth.hold(path)
    with rig.open(("rh", call(AUTH, path, 1500), "ret 1"), ("cr", op("callstatus"), "cont 0"), method="GET") as f:
        rig.auth.wait(path)
        held.head(200).data(b"half")
        f.response()
        f.seen.wait_end()
        assert f.seen.of("cr", word="answer")["n"] == "0" and f.seen.ops("callstatus")[0]["code"] == "11"
        rig.auth.wait(path)
        held.end()


def test_timeout_while_connecting(rig):
    r, seen = rig.send(("rh", call("deaf.istio-system.svc.cluster.local:80", "/x", 200), "ret 1"), ("cr", "cont 0"))
    assert r.status == 200
    seen.wait_end()
    assert len(seen.texts("answer")) == 1


def test_a_negative_timeout_is_a_bad_argument(rig):
    r, seen = rig.send(("rh", call(AUTH, "/x", -1), "ret 0"))
    seen.wait_end()
    assert seen.ops("call")[0]["status"] == "2"


def test_an_answer_over_the_limit_fails(rig):
    path = f"/{new_tag()}"
    held = rig.auth.hold(path)
    with rig.open(("rh", call(AUTH, path), "ret 1"), ("cr", "cont 0"), method="GET") as f:
        rig.auth.wait(path)
        held.head(200, {"content-length": 100_000}, chunked=False).raw(b"x" * 100_000)
        f.response()
        f.seen.wait_end()
        assert f.seen.of("cr", word="answer")["n"] == "0"


def test_an_answer_at_the_limit_is_whole(rig):
    path = f"/{new_tag()}"
    held = rig.auth.hold(path)
    with rig.open(("rh", call(AUTH, path), "ret 1"), ("cr", "cont 0"), method="GET") as f:
        rig.auth.wait(path)
        held.head(200, {"content-length": 65536}, chunked=False).raw(b"x" * 65536).done()
        f.response()
        f.seen.wait_end()
        assert f.seen.of("cr", word="answer")["size"] == "65536"


def test_a_large_request_body(rig):
    path = f"/{new_tag()}"
    r, seen = rig.send(("rh", call(AUTH, path, 60000, "~500000"), "ret 1"), ("cr", "cont 0"))
    assert r.status == 200
    assert sum(len(g) for g in rig.auth.wait(path).got) == 500000
    r, seen = rig.send(("rh", call(AUTH, path, 60000, "~5000000"), "ret 0"))
    seen.wait_end()
    assert seen.ops("call")[0]["status"] == "10" and seen.of("cr") is None


@pytest.mark.parametrize("event", ["rh", "rb", "sh", "sb", "log", "done"])
def test_from_every_callback(rig, event):
    """Also when the stream is over: the call belongs to the plugin."""
    path = f"/{new_tag()}"
    r, seen = rig.send((event, call(AUTH, path)), method="POST", body=b"x")
    assert r.status == 200
    assert rig.auth.wait(path)
    seen.wait_end()


def test_many_in_parallel_from_one_stream(rig):
    prefix = new_tag()
    helds = [rig.auth.hold(f"/{prefix}-{i}") for i in range(10)]
    with rig.open(("rh", *[call(AUTH, f"/{prefix}-{i}") for i in range(10)], "ret 1"), ("cr.10", "cont 0"), method="GET") as f:
        for i in reversed(range(10)):
            rig.auth.wait(f"/{prefix}-{i}")
        for i in (3, 9, 0, 1, 2, 4, 5, 6, 7):
            helds[i].head(200, {"content-length": i}, chunked=False).raw(b"x" * i).done()
            f.seen.wait("cr", sum(t.startswith("answer") for t in f.seen.texts("answer")) or 1)
        f.seen.wait("cr", 9)
        f.nothing_upstream()
        helds[8].head(200, {"content-length": 8}, chunked=False).raw(b"x" * 8).done()
        f.response()
        f.seen.wait_end()
        assert sorted(int(a["size"]) for a in f.seen.ops("answer")) == list(range(10))


def test_client_loss_while_a_callout_is_out(rig):
    """The stream ends at once; the answer comes to the plugin, which knows no such stream any more."""
    path = f"/{new_tag()}"
    held = rig.auth.hold(path)
    before = len(Seen(rig.g, "root").texts("answer"))
    with rig.open(("rh", call(AUTH, path), "ret 1"), method="GET") as f:
        rig.auth.wait(path)
        f.conn.close(reset=True)
        f.seen.wait_end()
        held.head(200, {"content-length": 0}, chunked=False).done()
        rig.g.wait(lambda: len(Seen(rig.g, "root").texts("answer")) == before + 1, "the answer at the root")
    assert rig.send(("rh", "ret 0"))[0].status == 200


def test_the_number_of_calls_is_bounded(rig):
    prefix = new_tag()
    paths = [f"/{prefix}-{i}" for i in range(3)]
    r, seen = rig.send(("rh", *[call("deaf.istio-system.svc.cluster.local:80", "/x", 3000)] * 200, "ret 0"))
    assert r.status == 200
    seen.wait_end()
    assert {f["status"] for f in seen.ops("call")} <= {"0", "10"}
    for path in paths:
        assert rig.send(("rh", call(AUTH, path), "ret 1"), ("cr", "cont 0"))[0].status in (200,)


def test_calls_from_configure_start_with_the_plugin(gateway, upstream, variants):
    up, auth = StepUpstream(upstream), StepUpstream(upstream)
    g = gateway(up, workers=2, extra=[*res.backend("auth", auth), puppet_plugin(variants.puppet(), statements=[("cfg", call(AUTH, "/at-start"))])])
    g.wait(lambda: len(auth.requests.get("/at-start", [])) == 2, "one call of each worker")
    g.wait(lambda: len(Seen(g, "root").texts("answer")) == 2, "both answers")


def test_calls_are_cancelled_with_their_plugin(gateway, upstream, variants):
    up, auth = StepUpstream(upstream), StepUpstream(upstream)
    auth.hold("/never")
    g = gateway(up, workers=1, extra=[*res.backend("auth", auth)])
    g.apply("plugin", puppet_plugin(variants.puppet(), statements=[("cfg", call(AUTH, "/never"))]))
    x = auth.wait("/never")
    g.remove("plugin")
    g.wait(lambda: not g.plugins(), "the plugin to be gone")
    g.wait(lambda: x.peer.sock.recv(1) == b"", "the connection of the call to be closed")
    assert g.get().status == 200


def test_callouts_under_load(gateway, upstream, variants):
    """Every request asks first; the answers are those of its own call."""
    from weirtest.load import Load
    auth = upstream(lambda x: (x.body(), x.respond(200, {}, x.path.encode())), keep_exchanges=False)
    up = upstream(lambda x: (x.body(), x.respond(200, {"x-user": x.header("x-user") or ""})), keep_exchanges=False)
    statements = [("rh", call(AUTH, "/who"), "ret 1"), ("cr", op("set", REQ, "x-user", "asked"), "cont 0")]
    g = gateway(up, workers=2, extra=[*res.backend("auth", auth), puppet_plugin(variants.puppet("QUIET"), statements=statements)])
    with Load(g.port, threads=8, check=lambda r: r.header("x-user") == "asked") as load:
        g.wait(lambda: load.total >= 500, "500 requests")
    load.assert_lossless()
