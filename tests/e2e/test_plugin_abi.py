# SPDX-License-Identifier: Apache-2.0
"""The ABI's families of one stream on the wire: maps, bodies, replies, properties, foreign functions, environment,
configuration; guests of every ABI version; what a guest writes that may not stand on the wire."""
import re
import struct
import zlib

import pytest

from weirtest import resources as res
from weirtest.client import Conn
from weirtest.plugins import REQ, REQ_T, RESP, RESP_T, Puppet, Seen, StepUpstream, Variants, fields, new_tag, op, puppet_plugin, script
from weirtest.util import free_port

LOG = "%RESPONSE_CODE% %RESPONSE_CODE_DETAILS% %REQ(:PATH)% fs=%FILTER_STATE(note:PLAIN)% ws=%FILTER_STATE(wasm.note:PLAIN)%\n"
MAX = 0xFFFFFFFF


@pytest.fixture(scope="module")
def variants(tmp_path_factory):
    return Variants(tmp_path_factory.mktemp("variants"))


@pytest.fixture(scope="module")
def p(module_gateway, module_upstream, variants):
    up = StepUpstream(module_upstream)
    g = module_gateway(up, workers=1, limits={"access-log-format": LOG}, extra=[
        puppet_plugin(variants.puppet(), pluginName="the root id", annotations={"plugin.weir/vm-id": "the vm id"},
                      vmConfig={"env": [{"name": "COLOUR", "value": "blue"}, {"name": "EMPTY", "value": ""},
                                        {"name": "FROM_HOST", "valueFrom": "HOST"}, {"name": "NOT_THERE", "valueFrom": "HOST"}]})],
        env={"FROM_HOST": "host value", "SECRET_OF_HOST": "canary"})
    return Puppet(g, up)


def upstream_of(p, seen):
    return p.up.find(f"/{seen.tag}")


# ---- header maps ----

def test_request_headers_are_edited(p):
    r, seen = p.send(("rh", op("set", REQ, "x-set", "one two"), op("add", REQ, "x-add", "a"), op("add", REQ, "x-add", "b"),
                      op("set", REQ, "X-Upper", "v"), op("del", REQ, "X-Gone")), headers={"x-gone": "1", "X-Kept": "2"})
    x = upstream_of(p, seen)
    assert r.status == 200
    assert x.header("x-set") == "one two" and x.head.all("x-add") == ["a", "b"] and x.header("x-upper") == "v"
    assert "x-gone" not in x.head and x.header("x-kept") == "2"


def test_response_headers_are_edited(p):
    r, _ = p.send(("sh", op("set", RESP, "x-upstream", "changed"), op("add", RESP, "set-cookie", "a=1"), op("add", RESP, "set-cookie", "b=2")))
    assert r.header("x-upstream") == "changed" and r.head.all("set-cookie") == ["a=1", "b=2"]


def test_names_are_lower_case_and_found_in_any_case(p):
    r, seen = p.send(("rh", op("get", REQ, "X-MiXed"), op("pairs", REQ), op("set", REQ, "X-MIXED", "w"), op("get", REQ, "x-mixed")),
                     headers={"X-Mixed": "v"})
    seen.wait_end()
    assert [g["v"] for g in seen.ops("get")] == ["v", "w"]
    assert "[x-mixed=v]" in seen.texts("pairs")[0]
    assert upstream_of(p, seen).head.all("x-mixed") == ["w"]


def test_get_of_duplicates_gives_the_first_and_pairs_all(p):
    r, seen = p.send(("rh", op("get", REQ, "x-dup"), op("pairs", REQ), op("prop", "request\0headers\0x-dup")),
                     headers=[("x-dup", "1"), ("x-dup", "2")])
    seen.wait_end()
    assert seen.ops("get")[0]["v"] == "1"
    assert "[x-dup=1]" in seen.texts("pairs")[0] and "[x-dup=2]" in seen.texts("pairs")[0]
    assert bytes.fromhex(seen.ops("prop")[0]["v"]) == b"1,2"


def test_set_replaces_all_values_in_one(p):
    r, seen = p.send(("rh", op("set", REQ, "x-dup", "only")), headers=[("x-dup", "1"), ("x-dup", "2")])
    assert upstream_of(p, seen).head.all("x-dup") == ["only"]


def test_set_pairs_replaces_the_map(p):
    r, seen = p.send(("rh", op("setpairs", REQ, ":method", "PUT", ":path", "/replaced", ":authority", "other.example", ":scheme", "http",
                               "X-New", "1", "x-new", "2")), headers={"x-old": "1"})
    assert r.status == 200
    x = p.up.wait("/replaced")
    assert x.method == "PUT" and x.head.all("x-new") == ["1", "2"] and "x-old" not in x.head and x.header("host") == "other.example"


def test_malformed_pairs_wipe_nothing(p):
    for bad in (b"\x05\0\0\0", b"\x01\0\0\0\xff\xff\xff\xff\0\0\0\0a\0b\0", b"\xff\xff\xff\xff", b"\x01\0\0\0\x01\0\0\0\x01\0\0\0aXb\0"):
        r, seen = p.send(("rh", op("rawpairs", REQ, bad)), headers={"x-old": "1"})
        assert r.status == 200 and upstream_of(p, seen).header("x-old") == "1"
        seen.wait_end()
        assert seen.ops("rawpairs")[0]["status"] == "2"  # BAD_ARGUMENT


def test_map_size_and_bad_maps(p):
    r, seen = p.send(("rh", op("mapsize", REQ), op("mapsize", RESP), op("get", 9, "a"), op("set", 9, "a", "b"), op("set", 6, "a", "b"),
                      op("get", RESP, "a"), op("pairs", RESP), op("get", REQ, "x-absent"), op("get", REQ, "x-empty")),
                     headers={"x-empty": ""})
    seen.wait_end()
    size, none = (int(f["n"]) for f in seen.ops("mapsize"))
    assert size > 50 and none == 0
    assert [f["status"] for f in seen.ops("get")] == ["2", "1", "1", "0"]
    assert [f["status"] for f in seen.ops("set")] == ["2", "2"]
    assert seen.ops("pairs")[0] | {"v": ""} == {"status": "0", "n": "0", "v": ""}


def test_request_headers_are_readable_to_the_end(p):
    r, seen = p.send(("sh", op("get", REQ, ":path")), ("sb", op("get", REQ, "x-tag")), ("log", op("get", REQ, ":path"), op("get", RESP, ":status")))
    seen.wait_end()
    assert [f["v"] for f in seen.ops("get")] == [f"/{seen.tag}", seen.tag, f"/{seen.tag}", "200"]


def test_writes_that_come_too_late_are_ok_and_nothing(p):
    r, seen = p.send(("sh", op("set", REQ, "x-late", "1")), ("sb", op("set", RESP, "x-late", "1")), ("log", op("set", RESP, "x-late", "1")))
    assert r.status == 200 and "x-late" not in r.head and "x-late" not in upstream_of(p, seen).head
    seen.wait_end()
    assert [f["status"] for f in seen.ops("set")] == ["0", "0", "0"]


def test_path_method_and_host_are_edited(p):
    r, seen = p.send(("rh", op("set", REQ, ":path", "/elsewhere?q=1"), op("set", REQ, ":method", "DELETE"), op("set", REQ, ":authority", "new.example")))
    x = p.up.wait("/elsewhere?q=1")
    assert r.status == 200 and x.method == "DELETE" and x.head.all("host") == ["new.example"]


def test_status_is_edited(p):
    r, _ = p.send(("sh", op("set", RESP, ":status", "203")))
    assert r.status == 203


def test_an_edit_of_the_path_chooses_the_route_anew(gateway, upstream, variants):
    a, b = StepUpstream(upstream), StepUpstream(upstream)
    port = free_port()
    docs = [res.gateway(port), res.route("r", res.rule("a", matches=[res.path_match("/a")]), res.rule("b", matches=[res.path_match("/b")])),
            *res.backend("a", a), *res.backend("b", b)]
    g = gateway(resources={"all": docs + [puppet_plugin(variants.puppet())]}, port=port, workers=1)
    q = Puppet(g, b)
    r, seen = q.send(("rh", op("prop", "xds\0route_name"), op("set", REQ, ":path", "/b/x"), op("prop", "xds\0route_name")), path="/a/x")
    assert r.status == 200 and b.wait("/b/x") and not a.requests
    seen.wait_end()
    before, after = (bytes.fromhex(f["v"]) for f in seen.ops("prop"))
    assert before != after
    assert q.send(("rh", op("set", REQ, ":path", "/nowhere")), path="/a/x")[0].status == 404


def test_filters_run_for_requests_without_a_route(gateway, upstream, variants):
    up = StepUpstream(upstream)
    port = free_port()
    g = gateway(resources={"all": [res.gateway(port), res.route("r", res.rule("b", matches=[res.path_match("/b")])), *res.backend("b", up),
                                   puppet_plugin(variants.puppet())]}, port=port, workers=1)
    r, seen = Puppet(g, up).send(("rh", "ret 0"), ("sh", op("set", RESP, "x-seen", "404")), path="/none")
    assert r.status == 404 and r.header("x-seen") == "404"


def test_too_many_headers_end_the_stream(p):
    """What the filter meant to write is never silently left out: beyond twice the limits for a client the stream ends."""
    r, seen = p.send(("rh", *[op("add", REQ, f"x-{i}", "~2000") for i in range(90)]), path="/much")
    assert r.status == 431
    assert p.up.find("/much") is None


def test_trailers_are_edited(p):
    path = f"/{new_tag()}"
    held = p.up.hold(path)
    with Conn(p.g.port) as c:
        c.request("POST", path, {"transfer-encoding": "chunked", "x-tag": path[1:], "x-do": script(
            ("rt", op("pairs", REQ_T), op("set", REQ_T, "x-t", "changed"), op("add", REQ_T, "X-New", "1"), op("del", REQ_T, "x-gone")),
            ("st", op("get", RESP_T, "x-s"), op("set", RESP_T, "x-s", "2"), op("mapsize", RESP_T)))})
        c.send("1\r\na\r\n0\r\nX-T: v\r\nx-gone: 1\r\n\r\n")
        assert sorted(p.up.wait(path).trailers) == [("x-new", "1"), ("x-t", "changed")]
        held.head().data(b"x").end({"x-s": "1"})
        assert c.response("POST").trailers == [("x-s", "2")]
    seen = Seen(p.g, path[1:]).wait_end()
    assert "[x-t=v][x-gone=1]" in seen.texts("pairs")[0]
    assert seen.ops("get")[0]["v"] == "1"


# ---- what must never be on the wire ----

EVIL = [("x-a", "b\r\nx-injected: 1"), ("x-a", "b\nx-injected: 1"), ("x-a", "b\0c"), ("x-a", "b\rc"), ("x\r\nx-injected", "1"), ("x a", "1"),
        ("x:a", "1"), ("", "1"), ("x-a\0", "1"), ("transfer-encoding", "chunked"), ("transfer-encoding", "gzip"), ("connection", "x-kept"),
        ("connection", "close"), ("upgrade", "websocket"), ("keep-alive", "timeout=1"), ("te", "trailers, x"), ("proxy-connection", "close"),
        ("content-length", "3"), ("content-length", "-1"), ("content-length", "3, 4"), (":weird", "1")]


def _no_injection(head, body_framing=True):
    assert b"x-injected:" not in head.raw.lower().replace(b"\r", b"") or False
    for line in head.raw.split(b"\r\n")[1:-2]:
        assert not line.startswith(b":") and b"\0" not in line and b"\r" not in line and b"\n" not in line
    assert "x-injected" not in head
    assert len(head.all("content-length")) + len(head.all("transfer-encoding")) <= 1, head.raw


@pytest.mark.parametrize("name,value", EVIL)
@pytest.mark.parametrize("body", [b"", b"hello"], ids=["empty", "body"])
def test_evil_request_headers(p, name, value, body):
    path = f"/{new_tag()}"
    with Conn(p.g.port) as c:
        for how in ("add", "set"):
            r, seen = p.send(("rh", op(how, REQ, name, value)), method="POST" if body else "GET", path=path, body=body,
                             headers={"x-kept": "kept"}, conn=c)
            assert r.status == 200, r
            x = p.up.find(path)
            _no_injection(x.head)
            assert p.up.body(path) == body and x.method == ("POST" if body else "GET")
            assert x.header("x-kept") == "kept" and x.header("upgrade") is None and x.header("keep-alive") is None
            assert x.header("transfer-encoding") in (None, "chunked")
            seen.wait("rh", word=how)
            assert seen.ops(how)[0]["status"] == "0"


@pytest.mark.parametrize("name,value", EVIL)
@pytest.mark.parametrize("how", ["add", "set"])
def test_evil_response_headers(p, name, value, how):
    with Conn(p.g.port) as c:
        r, seen = p.send(("sh", op(how, RESP, name, value)), conn=c)
        assert r.status == 200 and r.body == b"answer"
        _no_injection(r.head)
        assert r.header("upgrade") is None and r.header("keep-alive") is None
        if not r.will_close:  # whatever the framing was, the connection is in step
            assert p.send(("rh", "ret 0"), conn=c)[0].body == b"answer"


@pytest.mark.parametrize("path", ["/a b", "/a\r\nx-injected: 1", "/a\0b", "/a\tb", "relative", "", "/a\r\n\r\nGET /evil HTTP/1.1\r\nHost: x\r\n\r\n", "/a b HTTP/1.1"])
def test_evil_paths(p, path):
    before = len(p.up.up.exchanges)
    r, seen = p.send(("rh", op("set", REQ, ":path", path)))
    assert r.status in ((400, 404, 500) if path == "" else (400, 500))
    assert len(p.up.up.exchanges) == before
    assert b"/evil" not in p.up.up.received


@pytest.mark.parametrize("name,value", [(":method", "GET /x HTTP/1.1\r\n"), (":method", "G T"), (":method", ""), (":authority", "a\r\nb: c"),
                                        (":authority", "a b"), (":authority", "a\0")])
def test_evil_pseudo_headers(p, name, value):
    before = len(p.up.up.exchanges)
    r, _ = p.send(("rh", op("set", REQ, name, value)))
    assert r.status in (400, 500) and len(p.up.up.exchanges) == before


@pytest.mark.parametrize("status", ["99", "1000", "abc", "", "20x", "101", "100", "200\r\nx-injected: 1", "-1"])
def test_evil_status(p, status):
    r, seen = p.send(("sh", op("set", RESP, ":status", status)))
    assert r.status in (200, 500) and r.interim == []
    _no_injection(r.head)


@pytest.mark.parametrize("name", [":method", ":path", ":status", ":authority"])
def test_pseudo_headers_taken_away(p, name):
    response = name == ":status"
    r, _ = p.send(("sh" if response else "rh", op("del", RESP if response else REQ, name)))
    assert r.status in (200, 400, 404, 500)  # 404: no route matches no path
    p.barrier()


@pytest.mark.parametrize("name,value", [("x-a", "b\r\nx-injected: 1"), ("transfer-encoding", "chunked"), ("content-length", "99"), ("connection", "close"),
                                        ("x\n", "1"), ("host", "evil"), (":path", "/x")])
def test_evil_trailers(p, name, value):
    path = f"/{new_tag()}"
    held = p.up.hold(path)
    with Conn(p.g.port) as c:
        c.request("POST", path, {"transfer-encoding": "chunked", "x-do": script(
            ("rb", op("add", REQ_T, name, value), op("add", REQ_T, "x-good", "1")),
            ("sb", op("add", RESP_T, name, value), op("add", RESP_T, "x-good", "1")))})
        c.send("5\r\nhello\r\n0\r\n\r\n")
        x = p.up.wait(path)
        assert x.trailers == [("x-good", "1")] and p.up.body(path) == b"hello"
        held.head().data(b"answer").end()
        r = c.response()
        assert r.body == b"answer" and r.trailers == [("x-good", "1")]


def test_evil_local_reply(p):
    for name, value in EVIL:
        with Conn(p.g.port) as c:
            r, _ = p.send(("rh", op("reply", 403, "d", "body", -1, name, value)), conn=c)
            assert r.status == 403 and r.body == b"body", (name, value, r)
            _no_injection(r.head)
            if not r.will_close:
                assert p.send(("rh", "ret 0"), conn=c)[0].body == b"answer"


@pytest.mark.parametrize("status", [0, 99, 100, 101, 199, 600, 1000, 70000])
def test_local_reply_with_a_bad_status(p, status):
    r, _ = p.send(("rh", op("reply", status, "d", "body", -1)))
    assert r.status == 500


@pytest.mark.parametrize("status", [204, 304])
def test_local_reply_without_a_body(p, status):
    with Conn(p.g.port) as c:
        r, _ = p.send(("rh", op("reply", status, "d", "must not be sent", -1)), conn=c)
        assert r.status == status
        assert p.send(("rh", "ret 0"), conn=c)[0].body == b"answer"


def test_local_reply_to_head(p):
    with Conn(p.g.port) as c:
        r, _ = p.send(("rh", op("reply", 403, "d", "must not be sent", -1)), method="HEAD", conn=c)
        assert r.status == 403
        assert p.send(("rh", "ret 0"), conn=c)[0].body == b"answer"


def test_dropped_headers_are_counted(p):
    before = p.g.metrics().get("weir_filter_headers_dropped_total")
    p.send(("rh", op("set", REQ, "x-a", "b\r\nc")))
    p.g.wait(lambda: p.g.metrics().value("weir_filter_headers_dropped_total") > before, "the counter")


# ---- bodies ----

@pytest.mark.parametrize("do,want", [
    (op("setbuf", 0, 0, 0, "pre-"), b"pre-hello world"),
    (op("setbuf", 0, MAX, 0, "-post"), b"hello world-post"),
    (op("setbuf", 0, 11, 0, "-post"), b"hello world-post"),
    (op("setbuf", 0, 0, MAX, "new"), b"new"),
    (op("setbuf", 0, 0, 11, "new"), b"new"),
    (op("setbuf", 0, 0, 5, "HOWDY"), b"HOWDY world"),
    (op("setbuf", 0, 0, 6, ""), b"world"),
    (op("setbuf", 0, 5, 1, ", dear "), b"hello, dear world"),  # a splice in the middle, more than Envoy has
    (op("setbuf", 0, 6, MAX, "all"), b"hello all"),
    (op("setbuf", 0, 0, MAX, ""), b""),
    (op("setbuf", 0, 3, 0, "~20000"), b"hel" + b"x" * 20000 + b"lo world"),
], ids=range(11))
def test_body_is_edited(p, do, want):
    r, seen = p.send(("rb", do), method="POST", body=b"hello world")
    assert r.status == 200 and p.up.body(f"/{seen.tag}") == want
    assert upstream_of(p, seen).header("content-length") in (None, str(len(want)))
    path = f"/{new_tag()}"
    held = p.up.hold(path)
    with Conn(p.g.port) as c:
        c.request("GET", path, {"x-do": script(("sb", do.replace("setbuf 0", "setbuf 1", 1)))})
        held.head(200, {"content-length": 11}, chunked=False).raw(b"hello world").done()
        assert c.response().body == want


def test_body_is_read(p):
    r, seen = p.send(("rb", op("buf", 0, 0, MAX), op("buf", 0, 6, MAX), op("buf", 0, 2, 3), op("buf", 0, 11, 5), op("buf", 0, 99, 5),
                      op("bufstatus", 0), op("buf", 1, 0, 5), op("buf", 4, 0, 5), op("buf", 9, 0, 5)), method="POST", body=b"hello world")
    seen.wait_end()
    bufs = seen.texts("buf")
    assert [b.split("v=", 1)[1] for b in bufs[:5]] == ["hello world", "world", "llo", "", ""]
    assert [fields(b)["status"] for b in bufs] == ["0"] * 5 + ["1", "1", "2"]
    assert seen.ops("bufstatus")[0] == {"status": "0", "n": "11", "flags": "0"}


def test_body_is_not_there_outside_its_callbacks(p):
    r, seen = p.send(("rh", op("buf", 0, 0, 5)), ("sh", op("buf", 0, 0, 5), op("buf", 1, 0, 5)), ("log", op("buf", 0, 0, 5)), method="POST", body=b"hello")
    seen.wait_end()
    assert all(f["status"] == "1" for f in seen.ops("buf"))


def test_configuration_buffers_are_read_only(p):
    r, seen = p.send(("rb", op("setbuf", 7, 0, 1, "x"), op("setbuf", 6, 0, 1, "x"), op("setbuf", 4, 0, 1, "x"), op("setbuf", 9, 0, 1, "x"),
                      op("buf", 6, 0, 9)), method="POST", body=b"hello")
    seen.wait_end()
    assert [f["status"] for f in seen.ops("setbuf")] == ["2"] * 4
    assert seen.ops("buf")[0]["status"] == "0"


def test_a_whole_body_is_collected_and_replaced(p):
    """As most transform filters do: PAUSE until the end, then replace all."""
    path = f"/{new_tag()}"
    held = p.up.hold(path)
    with Conn(p.g.port) as c:
        c.request("GET", path, {"x-tag": path[1:], "x-do": script(("sb.1", "ret 1"), ("sb.2", "ret 1"), ("sb.3", op("buf", 1, 0, MAX), op("setbuf", 1, 0, MAX, "short")))})
        seen = Seen(p.g, path[1:])
        held.head(200, {"content-length": 12}, chunked=False).raw(b"aaaa")
        seen.wait("sb", 1)
        held.raw(b"bbbb")
        seen.wait("sb", 2)
        held.raw(b"cccc").done()
        assert c.response().body == b"short"
        seen.wait_end()
        assert seen.ops("buf")[0]["v"] == "aaaabbbbcccc"


# ---- local replies: details, grpc ----

def test_details_are_in_the_access_log(p):
    r, seen = p.send(("rh", op("reply", 403, "key is\tmissing", "no", -1)))
    p.g.wait_access(f"403 key_is_missing /{seen.tag}")


def test_grpc_reply(p):
    r, _ = p.send(("rh", op("reply", 403, "d", "no entry", -1)), method="POST", headers={"content-type": "application/grpc", "te": "trailers"}, body=b"\0\0\0\0\0")
    assert r.status == 200 and r.header("content-type") == "application/grpc"
    assert r.header("grpc-status") == "7" and r.header("grpc-message") == "no entry" and r.body == b""
    r, _ = p.send(("rh", op("reply", 403, "d", "", 5)), method="POST", headers={"content-type": "application/grpc+proto"}, body=b"\0\0\0\0\0")
    assert r.header("grpc-status") == "5"


def test_reply_headers(p):
    r, _ = p.send(("rh", op("reply", 401, "d", "body", -1, "www-authenticate", "Basic", "content-type", "application/json", "x-a", "1", "x-a", "2")))
    assert r.header("www-authenticate") == "Basic" and r.head.all("x-a") == ["1", "2"] and r.body == b"body"
    assert "application/json" in r.head.all("content-type") and len(r.head.all("content-type")) == 1


# ---- properties ----

def props(p, *paths, event="sh", method="POST", body=b"hello", headers=None):
    r, seen = p.send((event, *[op("prop", path.replace(".", "\0")) for path in paths]), method=method, body=body, headers=headers)
    seen.wait_end()
    out = seen.ops("prop")
    assert len(out) == len(paths)
    return r, seen, [bytes.fromhex(f["v"]) if f["status"] == "0" else int(f["status"]) for f in out]


def u64(b):
    return struct.unpack("<Q", b)[0]


def test_request_properties(p):
    r, seen, (path, url_path, query, host, scheme, method, ref, agent, protocol, size, total, time, id_, headers) = props(
        p, "request.path", "request.url_path", "request.query", "request.host", "request.scheme", "request.method", "request.referer",
        "request.useragent", "request.protocol", "request.size", "request.total_size", "request.time", "request.id", "request.headers",
        headers={"referer": "http://r/", "user-agent": "ua"})
    assert (path, url_path, query, host) == (f"/{seen.tag}".encode(),) * 2 + (b"", b"test.example")
    assert (scheme, method, ref, agent, protocol) == (b"http", b"POST", b"http://r/", b"ua", b"HTTP/1.1")
    assert u64(size) == 5 and u64(total) > 5
    assert u64(time) > 1_600_000_000 * 10**9
    assert re.fullmatch(rb"[0-9a-f-]{36}", id_) and id_.decode() == upstream_of(p, seen).header("x-request-id")
    count = struct.unpack("<I", headers[:4])[0]
    lengths = struct.unpack(f"<{2 * count}I", headers[4:4 + 8 * count])
    assert len(headers) == 4 + 8 * count + sum(lengths) + 2 * count and b"user-agent\0ua\0" in headers


def test_response_properties(p):
    r, seen, (code, size, header, flags, details) = props(p, "response.code", "response.size", "response.headers.x-upstream", "response.flags",
                                                          "response.code_details", event="log")
    assert u64(code) == 200 and u64(size) == 6 and header == b"step" and u64(flags) == 0 and details == b"via_upstream"


def test_connection_properties(p):
    r, seen, (src, sport, dst, dport, mtls, cid, cid2, up, uport) = props(
        p, "source.address", "source.port", "destination.address", "destination.port", "connection.mtls", "connection.id", "connection_id",
        "upstream.address", "upstream.port")
    assert src.decode() == f"127.0.0.1:{u64(sport)}" and dst.decode() == f"127.0.0.1:{p.g.port}" and u64(dport) == p.g.port
    assert mtls == b"\0" and len(cid) == 8 and cid == cid2
    assert up.decode() == f"127.0.0.1:{p.up.port}" and u64(uport) == p.up.port


def test_gateway_properties(p):
    r, seen, (name, root, vm, node, ns, label, route, cluster, direction) = props(
        p, "plugin_name", "plugin_root_id", "plugin_vm_id", "node.id", "xds.node.metadata.NAMESPACE", "node.metadata.LABELS.istio", "xds.route_name",
        "xds.cluster_name", "listener_direction")
    assert (name, root, vm) == (b"istio-system.puppet", b"the root id", b"the vm id")
    assert b"weir" in node and ns == b"istio-system" and label == b"ingressgateway" and b"default" in route and b"backend" in cluster
    assert u64(direction) == 2


def test_properties_that_are_not_there(p):
    r, seen, got = props(p, "request.nothing", "nothing", "response.nothing", "request.headers.x-nothing", "request")
    assert got == [1, 1, 1, 1, 3]
    r, seen, got = props(p, "response.code", "upstream.address", event="rh")
    assert got == [1, 1]


def test_a_trailing_nul_in_a_path(p):
    r, seen = p.send(("rh", op("prop", "request\0method\0")))
    seen.wait_end()
    assert bytes.fromhex(seen.ops("prop")[0]["v"]) == b"GET"


def test_properties_round_trip(p):
    r, seen = p.send(("rh", op("setprop", "one", b"1\0\xff"), op("setprop", "two\0segments", "2"), op("prop", "one")),
                     ("log", op("prop", "one"), op("prop", "two\0segments"), op("prop", "filter_state\0wasm.one")))
    seen.wait_end()
    assert [bytes.fromhex(f["v"]) for f in seen.ops("prop")] == [b"1\0\xff", b"1\0\xff", b"2", b"1\0\xff"]
    r, seen = p.send(("rh", op("prop", "one")))
    seen.wait_end()
    assert seen.ops("prop")[0]["status"] == "1"  # of its stream alone


def test_a_property_is_seen_by_the_next_plugin(gateway, upstream, variants):
    up = StepUpstream(upstream)
    g = gateway(up, workers=1, extra=[puppet_plugin(variants.puppet(), name="first", phase="AUTHN", statements=[("rh", op("setprop", "who", "alice"))]),
                                      puppet_plugin(variants.puppet(), name="second", phase="AUTHZ", statements=[("rh", op("prop", "who"))])])
    r, seen = Puppet(g, up).send(("x", "ret 0"))
    seen.wait_end()
    assert bytes.fromhex(seen.ops("prop")[0]["v"]) == b"alice"


def test_a_property_is_in_the_access_log(p):
    r, seen = p.send(("rh", op("setprop", "note", "from the filter")))
    line = p.g.wait_access(f"/{seen.tag} ")[0]
    assert "ws=from the filter" in line


# ---- foreign functions ----

def test_compress_and_uncompress(p):
    text = b"hello " * 100
    r, seen = p.send(("rh", op("foreign", "compress", text), op("foreign", "uncompress", zlib.compress(text)), op("foreign", "uncompress", b"junk"),
                      op("foreign", "no_such_function", "")))
    seen.wait_end()
    a, b, c, d = seen.ops("foreign")
    assert zlib.decompress(bytes.fromhex(a["v"])) == text and bytes.fromhex(b["v"]) == text
    assert c["status"] == "3" and d["status"] == "1"


def test_uncompress_is_bounded(p):
    bomb = zlib.compress(zlib.compress(b"\0" * (200 << 20), 9), 9)
    inner = zlib.decompress(bomb)
    if len(inner) > 50_000:
        bomb = zlib.compress(b"\0" * (3 << 20), 9)
    before = p.g.memory_kib("VmRSS")
    r, seen = p.send(("rh", op("foreign", "uncompress", bomb)), method="POST", body=b"x")
    assert r.status in (200, 431)
    assert p.g.memory_kib("VmRSS") < before + (512 << 10)


def _field(n, b):
    return bytes([n << 3 | 2, len(b)]) + b


def test_set_envoy_filter_state_and_declare_property(p):
    r, seen = p.send(("rh", op("foreign", "set_envoy_filter_state", _field(1, b"note") + _field(2, b"value")),
                      op("foreign", "declare_property", _field(1, b"x")), op("foreign", "set_envoy_filter_state", b"\xff"),
                      op("prop", "filter_state\0note")))
    seen.wait_end()
    assert [f["status"] for f in seen.ops("foreign")] == ["0", "0", "2"]
    assert bytes.fromhex(seen.ops("prop")[0]["v"]) == b"value"
    assert "fs=value" in p.g.wait_access(f"/{seen.tag} ")[0]


def test_clear_route_cache(p):
    r, seen = p.send(("rh", op("foreign", "clear_route_cache", "")))
    seen.wait_end()
    assert r.status == 200 and seen.ops("foreign")[0]["status"] == "0"


# ---- environment and configuration ----

def test_environment(p):
    r, seen = p.send(("rh", "env"))
    seen.wait_end()
    assert seen.texts("env") == ["env n=3 COLOUR=blue EMPTY= FROM_HOST=host value"]


def test_plugin_config_is_what_istio_delivers(gateway, upstream, guests):
    """Struct to JSON as Istio's Go code prints it: keys sorted, no spaces, HTML characters escaped, numbers as float64."""
    wasm = guests.source("""
bool pw_on_configure(uint32_t root, uint32_t size) { (void)root; PW_AUTO struct pw_str c = pw_get_config(); pw_logf(PW_INFO, "config %u [%S]", size, c); return true; }
enum pw_action pw_on_request_headers(uint32_t ctx, uint32_t count, bool end) { (void)ctx; (void)count; (void)end; return PW_CONTINUE; }
""", "configured")
    config = """
  pluginConfig:
    zeta: 1
    alpha: "text with <tags> & 'quotes' \\" and \\u00e9 \\u2028"
    number: 1.50
    big: 12345678901234567890
    small: 1e-7
    yes: true
    nothing: null
    list: [1, two, {three: 3}]
    nested: {b: 1, a: 2}
"""
    g = gateway(StepUpstream(upstream), workers=1, start=False)
    doc = f"apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {{name: c, namespace: istio-system}}\nspec:\n  url: file://{wasm}\n{config}"
    up = StepUpstream(upstream)
    g.apply("plugin", doc)
    g.start(up, workers=1)
    g.wait_log(" config ")
    size, text = re.search(r"config (\d+) \[(.*)\]$", g.log_text(), re.M).groups()
    want = ('{"alpha":"text with \\u003ctags\\u003e \\u0026 \'quotes\' \\" and \u00e9 \\u2028","big":12345678901234567000,"list":[1,"two",{"three":3}],'
            '"nested":{"a":2,"b":1},"nothing":null,"number":1.5,"small":1e-7,"true":true,"zeta":1}').encode()
    assert int(size) == len(want)
    assert text == "".join({'"': '\\"', "\\": "\\\\"}.get(chr(c), chr(c) if c < 0x80 else f"\\x{c:02x}") for c in want)  # as the log escapes it


# ---- ABI versions ----

def test_abi_0_1_0(gateway, upstream, variants):
    up = StepUpstream(upstream)
    wasm = variants.puppet("ABI_0_1", marker="proxy_abi_version_0_1_0", name="puppet010")
    g = gateway(up, workers=1, extra=[puppet_plugin(wasm, statements=[("cfg", "config"), ("vm", "config")])])
    q = Puppet(g, up)
    assert g.wait_plugin("puppet")["abi"] == "0.1.0"
    r, seen = q.send(("rh", op("get", REQ, "x-absent"), "clear", "config", "cont 0", "ret 1"), ("sh", "cont 1", "ret 1"))
    assert r.status == 200
    seen.wait_end()
    assert seen.ops("get")[0]["status"] == "0" and seen.ops("get")[0]["n"] == "0"  # 0.1.0: a header that is not there is empty
    assert "end" not in seen.of("rh")
    assert seen.ops("clear")[0]["status"] == "0"
    root = Seen(g, "root")
    root.wait("cfg", word="config")
    assert any("script" in t.text for t in root.all() if t.text.startswith("config"))
    with q.open(("rh", "ret 1"), method="GET") as f:
        f.seen.wait("rh")
        f.nothing_upstream()
        f.release()
        f.response()


@pytest.mark.parametrize("marker,shown", [("proxy_abi_version_0_2_0", "0.2.0"), ("proxy_abi_version_0_2_1", "0.2.1")])
def test_abi_0_2(gateway, upstream, variants, marker, shown):
    up = StepUpstream(upstream)
    g = gateway(up, workers=1, extra=[puppet_plugin(variants.puppet(marker=marker))])
    assert g.wait_plugin("puppet")["abi"] == shown
    r, seen = Puppet(g, up).send(("rh", op("get", REQ, "x-absent")))
    seen.wait_end()
    assert r.status == 200 and seen.ops("get")[0]["status"] == "1" and seen.of("rh")["end"] == "1"


def test_abi_0_2_100_is_taken_as_0_2_1_with_a_warning(gateway, upstream, variants):
    up = StepUpstream(upstream)
    g = gateway(up, workers=1, extra=[puppet_plugin(variants.puppet(marker="proxy_abi_version_0_2_100"))])
    assert g.wait_plugin("puppet")["abi"] == "0.2.1"
    assert g.get().status == 200
    g.wait_log(re.compile(r"warn.*istio-system/puppet.*0\.2"))


RAW = """
#define E(n) __attribute__((export_name(#n)))
E(proxy_abi_version_0_2_1) void abi(void) {}
static char heap[65536]; static unsigned at;
E(malloc) void *alloc(unsigned n) { n = (n + 7) & ~7u; if (at + n > sizeof heap) at = 0; at += n; return heap + at - n; }
#define I(m, n) __attribute__((import_module(m), import_name(#n)))
I("env", proxy_log) unsigned proxy_log(unsigned l, const char *p, unsigned n);
I("env", proxy_replace_header_map_value) unsigned set_header(unsigned m, const char *k, unsigned kn, const char *v, unsigned vn);
"""


def test_unknown_imports_are_stubs(gateway, upstream, variants):
    """A guest from the future: what it asks for is not there, and says so with a status instead of not loading."""
    wasm = variants.raw(RAW + """
I("env", proxy_from_the_future) unsigned future(unsigned a, unsigned long long b);
I("wasi_snapshot_preview1", sock_from_the_future) unsigned sock(unsigned a);
I("wasi_unstable", fd_write) unsigned fd_write_old(unsigned fd, const void *iov, unsigned n, unsigned *out);
E(proxy_on_request_headers) unsigned rh(unsigned c, unsigned n, unsigned e) {
    static struct { const char *p; unsigned n; } iov = {"old wasi\\n", 9};
    unsigned out; char d[4];
    unsigned f = future(1, 2), s = sock(3), w = fd_write_old(1, &iov, 1, &out);
    d[0] = (char)('0' + f / 10); d[1] = (char)('0' + f % 10); d[2] = (char)('0' + s / 10); d[3] = (char)('0' + s % 10);
    set_header(0, "x-stub", 6, d, 4); (void)c; (void)n; (void)e; (void)w;
    return 0;
}
""", "future")
    up = StepUpstream(upstream)
    g = gateway(up, workers=1, extra=[res.plugin("future", wasm)])
    g.wait_plugin("future")
    assert g.get("/x").status == 200
    stub = up.find("/x").header("x-stub")
    assert stub[:2] == "12" and stub[2:] in ("52", "58")  # UNIMPLEMENTED; ENOSYS or ENOTSUP
    g.wait_log("old wasi")
    g.wait_log("proxy_from_the_future")


def test_wasi_guest(gateway, upstream, variants):
    """What a libc's start-up and a runtime ask for: clocks, random, preopens, write, exit."""
    wasm = variants.raw(RAW + """
#define W(n) I("wasi_snapshot_preview1", n) unsigned n
W(fd_write)(unsigned fd, const void *iov, unsigned n, unsigned *out);
W(clock_time_get)(unsigned id, unsigned long long precision, unsigned long long *t);
W(clock_res_get)(unsigned id, unsigned long long *t);
W(random_get)(void *p, unsigned n);
W(fd_prestat_get)(unsigned fd, void *p);
W(args_sizes_get)(unsigned *c, unsigned *n);
W(path_open)(unsigned fd, unsigned f, const char *p, unsigned n, unsigned o, unsigned long long r, unsigned long long ri, unsigned ff, unsigned *out);
W(sched_yield)(void);
W(poll_oneoff)(const void *in, void *out, unsigned n, unsigned *events);
W(fd_close)(unsigned fd);
I("wasi_snapshot_preview1", proc_exit) void proc_exit(unsigned code);
static unsigned started;
E(_initialize) void init(void) { started = 1; }
E(proxy_on_request_headers) unsigned rh(unsigned c, unsigned n, unsigned e) {
    unsigned long long t = 0, m = 0; unsigned char r[16] = {0}; unsigned out = 0, a = 9, b = 9, sum = 0; (void)c; (void)n; (void)e;
    static struct { const char *p; unsigned n; } iov[2] = {{"to std", 6}, {"out\\n", 4}};
    static const char hello[] = "hello";
    char d[12];
    d[0] = (char)('0' + (clock_time_get(0, 1, &t) == 0 && t > 1000000000));
    d[1] = (char)('0' + (clock_time_get(1, 1, &m) == 0 && m != 0));
    random_get(r, 16);
    for (unsigned i = 0; i < 16; i++) sum += r[i];
    d[2] = (char)('0' + (sum != 0));
    d[3] = (char)('0' + fd_prestat_get(3, r));
    d[4] = (char)('0' + (args_sizes_get(&a, &b) == 0 && a == 0));
    d[5] = (char)('0' + (path_open(3, 0, hello, 5, 0, 0, 0, 0, &out) == 44));
    d[6] = (char)('0' + (fd_write(1, iov, 2, &out) == 0 && out == 10));
    d[7] = (char)('0' + (fd_write(7, iov, 2, &out) == 8));
    d[8] = (char)('0' + sched_yield());
    d[9] = (char)('0' + started);
    d[10] = (char)('0' + (clock_res_get(0, &t) == 0));
    d[11] = (char)('0' + (poll_oneoff(r, r, 0, &out) == 0));
    set_header(0, "x-wasi", 6, d, 12);
    return 0;
}
""", "wasi")
    up = StepUpstream(upstream)
    g = gateway(up, workers=1, extra=[res.plugin("wasi", wasm)])
    assert g.get("/x").status == 200
    assert up.find("/x").header("x-wasi") == "111811110111"
    g.wait_log(re.compile(r"info  wasm istio-system\.wasi: .*to stdout$", re.M))


# ---- bytes that are no UTF-8 ----

@pytest.fixture(scope="module")
def utf8(module_gateway, module_upstream, variants):
    made = {}

    def get(policy):
        if policy not in made:
            up = StepUpstream(module_upstream)
            g = module_gateway(up, workers=1, limits={"access-log-format": LOG}, extra=[
                puppet_plugin(variants.puppet(), annotations={"plugin.weir/utf8": policy} if policy else None)])
            made[policy] = Puppet(g, up)
        return made[policy]
    return get


BAD = "b\xff\xfed"  # the client writes latin-1


@pytest.mark.parametrize("policy", [None, "reject"])
def test_request_bytes_that_are_no_utf8_are_rejected(utf8, policy):
    p = utf8(policy)
    r, seen = p.send(("rh", op("get", REQ, "x-bad")), headers={"x-bad": BAD})
    assert r.status == 400
    p.g.wait_access(f"400 wasm_header_not_utf8 /{seen.tag}")
    assert upstream_of(p, seen) is None and seen.of("rh") is None
    r, seen = p.send(("rh", op("get", REQ, "x-good")), headers={"x-good": "caf\xc3\xa9"})
    assert r.status == 200


def test_request_bytes_that_are_no_utf8_are_escaped(utf8):
    p = utf8("escape")
    r, seen = p.send(("rh", op("get", REQ, "x-bad"), op("pairs", REQ), op("get", REQ, "x-good")), headers={"x-bad": BAD, "x-good": "caf\xc3\xa9"})
    assert r.status == 200
    seen.wait_end()
    assert seen.ops("get")[0]["v"] == "b%FF%FEd"
    assert "[x-bad=b%FF%FEd]" in seen.texts("pairs")[0]
    assert upstream_of(p, seen).header("x-bad") == BAD  # what the filter did not touch is as it came


def test_request_bytes_that_are_no_utf8_pass(utf8):
    p = utf8("pass")
    r, seen = p.send(("rh", op("get", REQ, "x-bad")), headers={"x-bad": BAD})
    assert r.status == 200
    seen.wait_end()
    assert seen.ops("get")[0]["n"] == "4"
    assert upstream_of(p, seen).header("x-bad") == BAD


@pytest.mark.parametrize("policy", [None, "escape", "pass"])
def test_response_bytes_that_are_no_utf8(utf8, policy):
    """The client is not to blame for what the upstream says."""
    p = utf8(policy)
    path = f"/{new_tag()}"
    held = p.up.hold(path)
    with Conn(p.g.port) as c:
        c.request("GET", path, {"x-tag": path[1:], "x-do": script(("sh", op("get", RESP, "x-bad")))})
        held.head(200, {"x-bad": BAD, "content-length": 0}, chunked=False).done()
        r = c.response()
    assert r.status == 200
    seen = Seen(p.g, path[1:]).wait_end()
    assert seen.ops("get")[0]["n"] == ("4" if policy == "pass" else "8")


# ---- host functions with arguments that no SDK would give ----

def test_bad_pointers_and_numbers(gateway, upstream, variants):
    """Every out-pointer, every span, beyond memory: a status, never a crash, never a byte of anybody else."""
    functions = {"proxy_log": 3, "proxy_get_log_level": 1, "proxy_get_current_time_nanoseconds": 1, "proxy_set_tick_period_milliseconds": 1, "proxy_get_status": 3,
                 "proxy_get_property": 4, "proxy_set_property": 4, "proxy_get_buffer_bytes": 5, "proxy_get_buffer_status": 3, "proxy_set_buffer_bytes": 5,
                 "proxy_get_header_map_pairs": 3, "proxy_set_header_map_pairs": 3, "proxy_get_header_map_size": 2, "proxy_get_header_map_value": 5,
                 "proxy_add_header_map_value": 5, "proxy_replace_header_map_value": 5, "proxy_remove_header_map_value": 3, "proxy_http_call": 10,
                 "proxy_grpc_call": 12, "proxy_grpc_stream": 9, "proxy_grpc_send": 4, "proxy_grpc_cancel": 1, "proxy_grpc_close": 1, "proxy_set_shared_data": 5,
                 "proxy_get_shared_data": 5, "proxy_register_shared_queue": 3, "proxy_resolve_shared_queue": 5, "proxy_enqueue_shared_queue": 3,
                 "proxy_dequeue_shared_queue": 3, "proxy_define_metric": 4, "proxy_get_metric": 2, "proxy_set_effective_context": 1, "proxy_done": 0,
                 "proxy_call_foreign_function": 6, "proxy_continue_stream": 1, "proxy_close_stream": 1}
    text = RAW.replace('I("env", proxy_log) unsigned proxy_log(unsigned l, const char *p, unsigned n);\n', "").replace(
        'I("env", proxy_replace_header_map_value) unsigned set_header(unsigned m, const char *k, unsigned kn, const char *v, unsigned vn);\n', "")
    body = ""
    skip = {"proxy_continue_stream", "proxy_close_stream", "proxy_set_tick_period_milliseconds", "proxy_log"}
    for name, count in functions.items():
        args = ", ".join(["unsigned"] * count) or "void"
        text += f'I("env", {name}) unsigned {name}({args});\n'
        if name in skip:
            continue
        for value in ("0xffffffffu", "0x7fffffffu", "0xfffffffcu", "0u", "65536u"):
            body += f"    r |= {name}({', '.join([value] * count)});\n"
            for at in range(count):
                body += f"    r |= {name}({', '.join(value if i == at else '4u' for i in range(count))});\n"
    body += "    r |= proxy_log(6, 0, 0); r |= proxy_log(2, 0xfffffff0u, 99); r |= proxy_continue_stream(4); r |= proxy_continue_stream(0xffffffffu); r |= proxy_close_stream(9);\n"
    text += "static volatile unsigned result;\nE(proxy_on_request_headers) unsigned rh(unsigned c, unsigned n, unsigned e) { unsigned r = 0; (void)c; (void)n; (void)e;\n" + body + \
        "    result = r;\n    return 0;\n}\n"
    text += "E(proxy_on_response_headers) unsigned sh(unsigned c, unsigned n, unsigned e) { unsigned r = 0; (void)c; (void)n; (void)e;\n" + body + "    result = r;\n    return 0;\n}\n"
    text = text.replace("static char heap[65536]", "static char pad[64]; static char heap[65536]")
    wasm = variants.raw(text, "bad_pointers")
    up = StepUpstream(upstream)
    g = gateway(up, workers=1, extra=[res.plugin("bad", wasm, annotations={"plugin.weir/cpu-deadline": "10s"})])
    g.wait_plugin("bad")
    for _ in range(3):
        r = g.get("/x")  # what the guest wrote over its own memory is its own business; the gateway lives and answers
        assert r.status in (200, 400, 404, 431, 500, 503)
    g.check_alive()


@pytest.mark.parametrize("answer", ["0", "0xfffffff0u", "(void *)4 - 4", "trap"])
def test_allocators_that_fail(gateway, upstream, variants, answer):
    trap = answer == "trap"
    wasm = variants.raw(RAW.replace("E(malloc) void *alloc(unsigned n) { n = (n + 7) & ~7u; if (at + n > sizeof heap) at = 0; at += n; return heap + at - n; }",
                                    f"E(malloc) void *alloc(unsigned n) {{ (void)n; (void)at; (void)heap; {'__builtin_trap();' if trap else ''} return (void *)({'0' if trap else answer}); }}") + """
I("env", proxy_get_header_map_value) unsigned get_header(unsigned m, const char *k, unsigned kn, char **v, unsigned *vn);
E(proxy_on_request_headers) unsigned rh(unsigned c, unsigned n, unsigned e) { char *v = 0; unsigned vn = 0; (void)c; (void)n; (void)e;
    char d = (char)('0' + get_header(0, ":path", 5, &v, &vn)); set_header(0, "x-status", 8, &d, 1); return 0; }
""", "bad_alloc")
    up = StepUpstream(upstream)
    g = gateway(up, workers=1, extra=[res.plugin("bad", wasm)])
    r = g.get("/x")
    if trap:
        assert r.status == 503
        g.wait_log("failed on worker 0 in the allocator: unreachable")
    else:
        assert r.status == 200 and up.find("/x").header("x-status") == "6"  # INVALID_MEMORY_ACCESS


def test_log_levels(gateway, upstream, variants):
    wasm = variants.raw(RAW + """
I("env", proxy_get_log_level) unsigned get_level(unsigned *l);
I("env", proxy_get_current_time_nanoseconds) unsigned now(unsigned long long *t);
E(proxy_on_request_headers) unsigned rh(unsigned c, unsigned n, unsigned e) { unsigned l = 9; unsigned long long t = 0; (void)c; (void)n; (void)e;
    for (unsigned i = 0; i < 6; i++) { char line[] = "at level 0"; line[9] = (char)('0' + i); proxy_log(i, line, 10); }
    char d[3]; get_level(&l); d[0] = (char)('0' + l); d[1] = (char)('0' + proxy_log(6, "x", 1)); d[2] = (char)('0' + (now(&t) == 0 && t > 1600000000ull * 1000000000ull));
    set_header(0, "x-level", 7, d, 3); return 0; }
""", "levels")
    up = StepUpstream(upstream)
    g = gateway(up, workers=1, log_level="warn", extra=[res.plugin("levels", wasm)])
    assert g.get("/x").status == 200
    assert up.find("/x").header("x-level") == "321"  # WARN; BAD_ARGUMENT; a clock
    g.wait_log("at level 5")
    shown = re.findall(r"(\w+) +wasm istio-system\.levels: .*at level (\d)", g.log_text())
    assert shown == [("warn", "3"), ("error", "4"), ("critical", "5")] or [n for _, n in shown] == ["3", "4", "5"]
    g.admin_request("POST", "/logging?level=debug")
    g.get("/x")
    g.wait_log("at level 1")
    assert "at level 0" not in g.log_text()
