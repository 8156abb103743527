# SPDX-License-Identifier: Apache-2.0
"""Every limit, with small values from a ConfigMap: the status a client gets, and the reason in the access log, in the
metric and in x-weir-end-reason."""
import threading

import pytest

from weirtest import resources as res
from weirtest.client import Closed
from weirtest.plugins import op, puppet_plugin
from weirtest.upstream import black_hole, closed_port
from weirtest.util import wait_until

LOG = {"debug-headers": True, "access-log-format": "%RESPONSE_CODE% %RESPONSE_CODE_DETAILS% %RESPONSE_FLAGS% %REQ(:PATH)%\n"}


def check(gw, response, status, reason, flag="-", header=True, log=True):
    assert response.status == status, response
    if header:
        assert response.header("x-weir-end-reason") == reason
    if log:
        gw.wait_access(f"{status} {reason} {flag}")
    gw.wait(lambda: gw.ended_streams(reason) >= 1, f"weir_streams_ended_total of {reason}")


def limited(gateway, up, **limits):
    return gateway(up, limits={**LOG, **{k.replace("_", "-"): v for k, v in limits.items()}})


def test_head_too_large(gateway, upstream):
    up = upstream()
    gw = limited(gateway, up, max_head_bytes="2Ki")
    assert gw.get(headers={"X-A": "a" * 1500}).status == 200
    for by_byte in (False, True):
        with gw.conn() as c:
            data = b"GET / HTTP/1.1\r\nHost: a\r\nX-A: " + b"a" * 3000 + b"\r\n\r\n"
            c.send_slowly(data, 100) if by_byte else c.send(data)
            r = c.response()
            assert r.will_close
            c.wait_closed()
        check(gw, r, 431, "request_headers_too_large")
    assert up.count == 1


def test_head_without_end(gateway, upstream):
    """A head that never ends is refused as soon as it is too long, not when it ends."""
    gw = limited(gateway, upstream(), max_head_bytes="2Ki")
    with gw.conn() as c:
        c.send(b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X-A: b\r\n" * 300)
        check(gw, c.response(), 431, "request_headers_too_large")


def test_too_many_headers(gateway, upstream):
    up = upstream()
    gw = limited(gateway, up, max_headers=10)
    assert gw.get(headers=[(f"X-{i}", "a") for i in range(9)]).status == 200
    check(gw, gw.get(headers=[(f"X-{i}", "a") for i in range(10)]), 431, "request_headers_too_large")
    assert up.count == 1


def test_default_limits_of_a_head(gateway, upstream):
    gw = gateway(upstream())
    assert gw.get(headers={"X-A": "a" * 50000}).status == 200
    assert gw.get(headers={"X-A": "a" * 70000}).status == 431
    assert gw.get(headers=[(f"X-{i}", "a") for i in range(99)]).status == 200
    assert gw.get(headers=[(f"X-{i}", "a") for i in range(101)]).status == 431


def test_uri_too_long(gateway, upstream):
    up = upstream()
    gw = limited(gateway, up, max_uri_bytes=256)
    assert gw.get("/" + "a" * 255).status == 200
    check(gw, gw.get("/" + "a" * 256), 414, "uri_too_long")
    assert up.count == 1


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_body_too_large(gateway, upstream, framing):
    whole = []
    up = upstream(lambda x: (whole.append(x.body()), x.respond()))
    gw = limited(gateway, up, max_body_bytes="1Ki")
    with gw.conn() as c:
        if framing == "length":
            assert c.request("POST", "/", body=b"a" * 1024).response().status == 200
            c.request("POST", "/", {"Content-Length": 1025})
        else:
            assert c.request("POST", "/", {"Transfer-Encoding": "chunked"}, b"400\r\n" + b"a" * 1024 + b"\r\n0\r\n\r\n").response().status == 200
            c.request("POST", "/", {"Transfer-Encoding": "chunked"}, b"400\r\n" + b"a" * 1024 + b"\r\n1\r\na\r\n0\r\n\r\n")
        r = c.response()
        assert r.will_close
        c.wait_closed()
    check(gw, r, 413, "request_payload_too_large")
    assert whole == [b"a" * 1024]


def test_head_timeout(gateway, upstream):
    up = upstream()
    gw = limited(gateway, up, head_timeout="300ms")
    with gw.conn() as c:
        c.send("GET / HTTP/1.1\r\nHost:")
        r = c.response()
        assert r.will_close
        c.expect_closed()
    check(gw, r, 408, "request_header_timeout")
    assert up.received == b""


def test_head_timeout_runs_for_slow_but_steady_bytes(gateway, upstream):
    """Slowloris: bytes that keep coming do not move the deadline of the head."""
    gw = limited(gateway, upstream(), head_timeout="300ms")
    with gw.conn() as c:
        c.send("GET / HTTP/1.1\r\nHost: a\r\nX-A: ")
        stop = threading.Event()

        def drip():
            while not stop.wait(0.02):
                try:
                    c.send("a")
                except OSError:
                    return

        t = threading.Thread(target=drip)
        t.start()
        try:
            assert c.response().status == 408
        finally:
            stop.set()
            t.join()


def test_idle_connection_is_closed(gateway, upstream):
    gw = limited(gateway, upstream(), idle_timeout="300ms")
    with gw.conn() as fresh, gw.conn() as used:
        assert used.request().response().status == 200
        fresh.expect_closed()
        used.expect_closed()


def test_request_timeout(gateway, upstream):
    gw = limited(gateway, upstream(), request_timeout="300ms")
    with gw.conn() as c:
        c.request("POST", "/", {"Content-Length": 10}, b"12345")
        r = c.response()
        assert r.will_close
    check(gw, r, 408, "request_overall_timeout")


def test_stream_idle_timeout_of_the_request(gateway, upstream):
    gw = limited(gateway, upstream(), stream_idle_timeout="300ms")
    with gw.conn() as c:
        c.request("POST", "/", {"Content-Length": 10}, b"12345")
        check(gw, c.response(), 408, "stream_idle_timeout", "SI")


def test_stream_idle_timeout_of_the_response_body(gateway, upstream):
    """Half a response is out: all that is left is a visible end."""
    go = threading.Event()
    up = upstream(lambda x: (x.start(200, {"content-length": "10"}), x.send("12345"), go.wait(60)))
    gw = limited(gateway, up, stream_idle_timeout="300ms")
    with gw.conn() as c:
        with pytest.raises(Closed):
            c.request().response()
    gw.wait(lambda: gw.ended_streams("stream_idle_timeout") == 1)
    go.set()


def test_connect_refused(gateway):
    held, port = closed_port()
    gw = limited(gateway, port)
    check(gw, gw.get(), 503, "upstream_connect_failure", "UF")
    assert gw.metrics().value("weir_upstream_connect_failures_total") >= 1
    held.close()


def test_connect_timeout(gateway):
    held, port = black_hole()
    gw = limited(gateway, port, connect_timeout="200ms")
    check(gw, gw.get(), 503, "upstream_connect_failure", "UF")
    for s in held:
        s.close()


def test_response_timeout(gateway, upstream):
    go = threading.Event()
    up = upstream(lambda x: go.wait(60) and x.respond())
    gw = limited(gateway, up, response_timeout="300ms")
    check(gw, gw.get(), 504, "response_timeout", "UT")
    go.set()


def test_response_timeout_counts_from_the_end_of_the_request(gateway, upstream):
    up = upstream()
    gw = limited(gateway, up, response_timeout="500ms")
    with gw.conn() as c:
        c.request("POST", "/", {"Content-Length": 4})
        for b in b"abcd":
            threading.Event().wait(0.2)  # slower than the timeout in all
            c.send(bytes([b]))
        assert c.response().status == 200


def test_bad_upstream_is_502(gateway, upstream):
    gw = limited(gateway, upstream(lambda x: x.send("nonsense\r\n\r\n")))
    check(gw, gw.get(), 502, "upstream_protocol_error", "UPE")


def test_upstream_that_closes_before_answering(gateway, upstream):
    gw = limited(gateway, upstream(lambda x: x.close()))
    check(gw, gw.get(), 503, "upstream_reset_before_response_started", "UC")


def test_response_head_too_large(gateway, upstream):
    gw = limited(gateway, upstream(lambda x: x.respond(200, {"x-a": "a" * 5000})), max_head_bytes="2Ki")
    check(gw, gw.get(), 502, "upstream_protocol_error", "UPE")


@pytest.mark.parametrize("arena,status", [("64Ki", 500), ("1Mi", 200)])
def test_arena(gateway, upstream, arena, status):
    """A long path that is rewritten is there several times."""
    up = upstream()
    gw = gateway(start=False)
    gw.start(resources={"r": lambda port: [
        res.gateway(port, limits="limits"), res.limits({**LOG, "arena-bytes": arena, "max-uri-bytes": "64Ki"}),
        *res.backend("backend", up),
        res.route("r", res.rule("backend", matches=[res.path_match("/a")], filters=[
            {"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/b"}}}]))]})
    assert gw.get("/a/short").status == 200
    r = gw.get("/a/" + "c" * 30000, {"x-a": "a" * 15000})
    if status == 200:
        assert r.status == 200 and up.exchanges[-1].target == "/b/" + "c" * 30000
    else:
        check(gw, r, 500, "stream_memory_limit")
        assert up.count == 1
    assert gw.get("/a/short").status == 200


def early_reply(gateway, upstream, linger):
    """A reply while the body is still on its way; the gateway, and the client's connection."""
    gw = limited(gateway, upstream(), max_body_bytes="1Ki", linger_timeout=linger, idle_timeout="1h")
    c = gw.conn().request("POST", "/", {"Content-Length": 1 << 30}, b"a" * 1024)
    r = c.response()
    check(gw, r, 413, "request_payload_too_large")
    assert r.will_close
    return gw, c


def test_linger_timeout(gateway, upstream):
    """After it the connection is closed, whatever the client does."""
    gw, c = early_reply(gateway, upstream, "100ms")

    def is_closed():
        try:
            c.send(b"a")
        except OSError:
            return True
    gw.wait(is_closed, "the connection to be closed")
    c.close()


def test_lingering_reads_on(gateway, upstream):
    """Until then what the client still sends is taken, so that nothing destroys the reply on its way."""
    gw, c = early_reply(gateway, upstream, "60s")
    for _ in range(16):
        c.send(b"a" * 65536)
    assert c.wait_closed() == b"", "the end, and no reset"
    c.close()
    gw.wait(lambda: gw.metrics().value("weir_downstream_received_bytes_total") > 16 * 65536)


def test_pause_timeout(gateway, upstream, guests):
    up = upstream()
    gw = gateway(up, limits={**LOG, "pause-timeout": "100ms"}, extra=[
        puppet_plugin(guests.build("puppet"), statements=[("rh", "ret 1")])])
    gw.wait_plugin("puppet")
    check(gw, gw.get(), 504, "wasm_pause_timeout")
    assert up.received == b""


def test_call_timeout(gateway, upstream, guests):
    """It is a ceiling: what the filter asks for would be later than its pause may last."""
    go = threading.Event()
    up = upstream(lambda x: x.respond() if x.target == "/" else go.wait(120))
    call = op("call", "backend.istio-system.svc.cluster.local:80", "/never", 600000, "")
    gw = gateway(up, limits={**LOG, "call-timeout": "100ms", "pause-timeout": "20s"}, extra=[
        puppet_plugin(guests.build("puppet"), statements=[("rh", call, "ret 1"), ("cr", "cont 0")])])
    gw.wait_plugin("puppet")
    assert gw.get().status == 200
    go.set()


def test_no_route(gateway, upstream):
    up = upstream()
    gw = gateway(start=False)
    gw.start(resources={"r": lambda port: [
        res.gateway(port, limits="limits"), res.limits(LOG), *res.backend("backend", up),
        res.route("r", res.rule("backend", matches=[res.path_match("/only")]))]})
    check(gw, gw.get("/other"), 404, "route_not_found", "NR")
    assert up.received == b""


def test_route_to_nothing(gateway):
    """Gateway API: a backendRef that does not resolve is a 500; no ready endpoint is a 503."""
    gw = gateway(start=False)
    gw.start(resources={"r": lambda port: [
        res.gateway(port, limits="limits"), res.limits(LOG), res.service("empty"),
        res.route("r", res.rule("absent", matches=[res.path_match("/absent")]), res.rule("empty"))]})
    check(gw, gw.get("/absent"), 500, "cluster_not_found", "NC")
    check(gw, gw.get("/empty"), 503, "no_healthy_upstream", "UH")


def test_bad_request_has_its_reason(gateway, upstream):
    gw = limited(gateway, upstream())
    with gw.conn() as c:
        c.send("GET / HTTP/1.1\r\nHost: a\r\nX A: b\r\n\r\n")
        check(gw, c.response(), 400, "http1.codec_error", "DPE")


def test_connect_has_its_reason(gateway, upstream):
    gw = limited(gateway, upstream())
    with gw.conn() as c:
        c.request("CONNECT", "a:443", host="a:443")
        check(gw, c.response(), 405, "connect_not_supported", "NR")


def test_streams_per_connection(gateway, upstream):
    gw = limited(gateway, upstream(), max_streams_per_connection=3)
    with gw.conn() as c:
        got = [c.request().response().will_close for _ in range(3)]
        assert got == [False, False, True]
        c.expect_closed()


def test_connection_limit(gateway, upstream):
    """Above the limit: 503 and closed, without a request being read; free again when others leave."""
    gw = gateway(upstream(), limits={**LOG, "max-connections": 3}, workers=1)
    before = gw.metrics().get("weir_requests_total", code_class="5xx")
    conns = [gw.conn() for _ in range(3)]
    for c in conns:
        assert c.request().response().status == 200
    with gw.conn() as over:
        r = over.response()
        assert r.status == 503 and r.will_close and r.header("retry-after") == "1" and r.header("date")
        over.wait_closed()
    check(gw, r, 503, "overload", "OM")
    assert gw.ended_streams("overload") == 1 and gw.metrics().value("weir_overload_shed_total") == 1
    assert gw.metrics().get("weir_requests_total", code_class="5xx") == before + 1
    conns.pop().close()

    def again():
        with gw.conn() as c:
            return c.request().response().status == 200
    gw.wait(again, "a place for a new connection")
    for c in conns:
        assert c.request().response().status == 200
        c.close()


def test_upstream_connection_limit_queues(gateway, upstream):
    """Requests above the limit wait for a connection rather than fail, up to max-pending-requests."""
    go = threading.Event()
    up = upstream(lambda x: go.wait(60) and x.respond())
    gw = gateway(up, limits={**LOG, "max-upstream-connections": 2, "max-pending-requests": 3}, workers=1)
    conns = [gw.conn().request("GET", f"/{i}") for i in range(2)]
    up.wait_count(2)
    conns += [gw.conn().request("GET", f"/{i}") for i in range(2, 5)]
    gw.wait(lambda: gw.metrics().value("weir_streams") == 5)
    check(gw, gw.get("/over"), 503, "upstream_overflow", "UO")
    go.set()
    for c in conns:
        assert c.response().status == 200
        c.close()
    assert up.connections == 2


def test_idle_upstream_connections_are_bounded(gateway, upstream):
    ready = threading.Barrier(6)
    up = upstream(lambda x: (ready.wait(60), x.respond()))
    gw = gateway(up, limits={"max-idle-upstream": 2}, workers=1)
    conns = [gw.conn().request() for _ in range(6)]
    for c in conns:
        assert c.response().status == 200
        c.close()
    gw.wait(lambda: gw.metrics().value("weir_upstream_connections") == 2)


def test_idle_upstream_connections_time_out(gateway, upstream):
    gw = gateway(upstream(), limits={"upstream-idle-timeout": "200ms"}, workers=1)
    assert gw.get().status == 200
    gw.wait(lambda: gw.metrics().value("weir_upstream_connections") == 0)
    assert gw.get().status == 200


def test_memory_budget(gateway, upstream):
    """Near it new requests are refused and idle connections close; what runs goes on, and all is well again after."""
    go = threading.Event()

    def script(x):
        if x.method == "POST":
            go.wait(120)
        x.respond(200, None, str(len(x.body())))

    size = 16 << 20
    up = upstream(script, record=0)
    gw = gateway(up, workers=1, limits={
        **LOG, "memory-budget": "8Mi", "buffer-bytes": "4Mi", "output-bytes": "4Mi", "response-timeout": "5m"})
    assert gw.metrics().value("weir_memory_budget_bytes") == 8 << 20, "known as soon as it is ready"
    idle = gw.conn()
    busy = [gw.conn() for _ in range(4)]
    for c in busy:
        c.request("POST", "/held", {"Content-Length": size})
    up.wait_count(len(busy))
    threads = [threading.Thread(target=c.send, args=(b"x" * size,), daemon=True) for c in busy]
    for t in threads:
        t.start()

    def refused():
        with gw.conn() as c:
            try:
                r = c.request("GET", "/new").response()
            except Closed:
                return None
            return r if r.status == 503 else None
    over = gw.wait(refused, "a request to be refused")
    assert over.header("retry-after") == "1" and over.header("x-weir-end-reason") == "overload" and over.header("date")
    gw.wait(lambda: gw.metrics().value("weir_overload_shed_total") >= 1)  # counted after the answer has gone
    idle.wait_closed()
    go.set()
    for c, t in zip(busy, threads):
        assert c.response().text == str(size)
        t.join(60)
        c.close()
    gw.wait_status(200)


def test_over_the_memory_budget(gateway, upstream):
    """Not even a stream is made; what the connection knows is in the log all the same."""
    up = upstream()
    gw = gateway(up, workers=1, limits={"memory-budget": "1Ki", "debug-headers": True, "access-log": "json", "access-log-format": (
        '{"code":"%RESPONSE_CODE%","why":"%END_REASON%","flags":"%RESPONSE_FLAGS%","path":"%REQ(:PATH)%","sent":"%BYTES_SENT%",'
        '"peer":"%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%","port":"%DOWNSTREAM_LOCAL_PORT%"}')})
    for n in (1, 2):
        r = gw.get("/secret")
        assert (r.status, r.header("retry-after"), r.header("x-weir-end-reason")) == (503, "1", "overload"), r
        gw.wait_access('{"code":503,"why":"overload","flags":"OM","path":null,"sent":%d,"peer":"127.0.0.1","port":%d}' % (
            len(r.body), gw.port), n)
        gw.wait(lambda: gw.ended_streams("overload") == n)
    assert gw.metrics().value("weir_overload_shed_total") == 2 and up.count == 0


def test_bad_body_is_a_whole_reply(gateway, upstream):
    """Also where no stream is left to make it."""
    gw = gateway(upstream(), limits={**LOG, "server-name": "front"})
    with gw.conn() as c:
        c.send("POST /bad HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\n")
        r = c.response()
        assert r.header("server") == "front" and r.header("date") and r.will_close
        check(gw, r, 400, "http1.codec_error", "DPE")


def test_limits_are_reread(gateway, upstream):
    """An edit of the ConfigMap acts on the next request of open connections."""
    gw = gateway(upstream(), limits={"max-uri-bytes": 256})
    with gw.conn() as c:
        assert c.request("GET", "/a").response().status == 200
        gw.apply_and_wait("gateway", gw.default_resources(int(gw_port(gw)), {"max-uri-bytes": 512}))
        assert c.request("GET", "/" + "a" * 300).response().status == 200
        assert c.request("GET", "/" + "a" * 600).response().status == 414


def gw_port(gw):
    """The endpoint's port as /config shows it."""
    return gw.object("EndpointSlice", "backend-0")["resource"]["ports"][0]["port"]


@pytest.mark.parametrize("key,value,text", [
    ("max-uri-bytes", "1", "max-uri-bytes must be a size"), ("max-uri-byte", "1Ki", "unknown limit"),
    ("head-timeout", "soon", "head-timeout must be a duration"), ("via", "maybe", "via must be true or false"),
    ("path-normalization", "SOME", "must be NONE, BASE")])
def test_bad_limits_are_not_used(gateway, upstream, key, value, text):
    """A bad ConfigMap shows in /config, and the last good one stays."""
    up = upstream()
    gw = gateway(up, limits={"max-uri-bytes": 300})
    docs = [d if d["kind"] != "ConfigMap" else res.limits({"max-uri-bytes": 600, key: value}) for d in gw.default_resources(up, {"a": 1})]
    gw.apply("gateway", docs)
    gw.wait(lambda: text in gw.admin_get("/config").text, f"{text!r} in /config")
    assert gw.get("/" + "a" * 400).status == 414
    assert gw.get("/").status == 200


def test_local_replies_to_head_have_no_body(gateway):
    held, port = closed_port()
    gw = limited(gateway, port)
    with gw.conn() as c:
        for _ in range(3):
            r = c.request("HEAD", "/").response("HEAD")
            assert r.status == 503
        assert c.is_open()
    held.close()


def test_local_reply_keeps_the_connection(gateway, upstream):
    """A 404 is no reason to close."""
    up = upstream()
    gw = gateway(start=False)
    gw.start(resources={"r": lambda port: [res.gateway(port), *res.backend("backend", up),
                                           res.route("r", res.rule("backend", matches=[res.path_match("/only")]))]})
    with gw.conn() as c:
        for _ in range(3):
            assert c.request().response().status == 404
        assert c.request("GET", "/only").response().status == 200


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_local_reply_to_a_request_with_a_body_keeps_the_connection_or_says_that_it_closes(gateway, upstream, framing):
    """A reply that comes before the body was read ends the connection; the client must not find out by losing its next request."""
    up = upstream()
    gw = gateway(start=False)
    gw.start(resources={"r": lambda port: [res.gateway(port), *res.backend("backend", up),
                                           res.route("r", res.rule("backend", matches=[res.path_match("/only")]))]})
    with gw.conn() as c:
        if framing == "length":
            c.request("POST", "/x", body=b"abc" * 1000)
        else:
            c.request("POST", "/x", {"Transfer-Encoding": "chunked"}, b"1\r\na\r\n0\r\n\r\n")
        r = c.response()
        assert r.status == 404
        if r.will_close:
            c.expect_closed()
        else:
            assert c.request("GET", "/only").response().status == 200


def test_local_replies_look_alike(gateway, upstream):
    up = upstream()
    gw = limited(gateway, up, server_name="front")
    gw.apply_and_wait("gateway", [d for d in gw.default_resources(up, {**LOG, "server-name": "front"}) if d["kind"] != "HTTPRoute"])
    r = gw.get()
    assert r.status == 404 and r.header("server") == "front" and r.header("date")
