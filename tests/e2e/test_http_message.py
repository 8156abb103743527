# SPDX-License-Identifier: Apache-2.0
"""HTTP/1 messages through the proxy: connections, framing, interim responses, and the odd forms."""
import threading

import pytest

from weirtest import resources as res
from weirtest.client import Closed
from weirtest.load import Load
from weirtest.util import wait_until


def test_keep_alive_on_both_sides(gateway, upstream):
    up = upstream()
    gw = gateway(up, workers=1)
    with gw.conn() as c:
        for i in range(20):
            assert c.request("GET", f"/{i}").response().status == 200
        assert c.is_open()
    assert [x.target for x in up.exchanges] == [f"/{i}" for i in range(20)]
    assert up.connections == 1
    gw.stop()


def test_pool_is_shared_by_clients_of_a_worker(gateway, upstream):
    up = upstream()
    gw = gateway(up, workers=1)
    for _ in range(10):
        assert gw.get().status == 200
    assert up.connections == 1


def test_connection_close_from_client(gateway, upstream):
    up = upstream()
    gw = gateway(up)
    with gw.conn() as c:
        r = c.request("GET", "/", {"Connection": "close"}).response()
        assert r.status == 200 and r.will_close
        c.expect_closed()
    assert "connection" not in up.last.head


def test_pipelining(gateway, upstream):
    up = upstream(lambda x: x.respond(200, {"x-path": x.target}, x.target.encode()))
    gw = gateway(up)
    with gw.conn() as c:
        c.send("".join(f"GET /{i} HTTP/1.1\r\nHost: a\r\n\r\n" for i in range(200)))
        assert [c.response().text for _ in range(200)] == [f"/{i}" for i in range(200)]
        assert c.is_open()


def test_pipelining_of_posts_with_both_framings(gateway, upstream):
    up = upstream(lambda x: x.respond(200, None, x.body()))
    gw = gateway(up)
    data = b""
    for i in range(40):
        body = b"%d" % i * (i % 7)
        if i % 2:
            data += b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        else:
            data += b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            data += (b"%x\r\n%s\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"
    with gw.conn() as c:
        c.send_slowly(data, 97)
        for i in range(40):
            assert c.response().body == b"%d" % i * (i % 7)


def test_pipelining_while_the_upstream_answers_slowly(gateway, upstream):
    """Later requests wait, in order, and are not lost; the gateway does not spin meanwhile."""
    go = threading.Event()

    def script(x):
        if x.target == "/0":
            go.wait(60)
        x.respond(200, None, x.target.encode())

    up = upstream(script)
    gw = gateway(up, workers=1)
    with gw.conn() as c:
        c.send("".join(f"GET /{i} HTTP/1.1\r\nHost: a\r\n\r\n" for i in range(50)))
        up.wait_count(1)
        before = _cpu_ticks(gw.pid)
        for _ in range(50):  # the gateway serves its admin port meanwhile, so it had every chance to spin
            gw.is_ready()
        assert up.count == 1, "a pipelined request overtook the first one"
        assert _cpu_ticks(gw.pid) - before < 200
        go.set()
        assert [c.response().text for _ in range(50)] == [f"/{i}" for i in range(50)]


def _cpu_ticks(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def test_more_pipelined_input_than_is_held(gateway, upstream):
    """Unread pipelined bytes are bounded: the socket pushes back, and all is answered in the end."""
    go = threading.Event()
    up = upstream(lambda x: (go.wait(60), x.body(), x.respond(200, None, x.target.encode())))
    gw = gateway(up, limits={"pipeline-bytes": "4Ki"}, workers=1)
    count = 3000
    data = "".join(f"GET /{i} HTTP/1.1\r\nHost: a\r\nX-Pad: {'p' * 100}\r\n\r\n" for i in range(count)).encode()
    with gw.conn() as c:
        sender = threading.Thread(target=lambda: c.send(data), daemon=True)
        sender.start()
        up.wait_count(1)
        go.set()
        assert [c.response().text for _ in range(count)] == [f"/{i}" for i in range(count)]
        sender.join(60)


ODD_SIZES = [1, 2, 3, 15, 16, 17, 255, 4095, 4096, 4097, 16383, 16384, 16385, 65537, 1]


@pytest.mark.parametrize("step", [1 << 20, 4093, 7])
def test_chunked_both_ways_with_odd_chunk_sizes(gateway, upstream, step):
    sizes = ODD_SIZES if step > 100 else ODD_SIZES[:8]
    parts = [bytes([65 + i % 26]) * n for i, n in enumerate(sizes)]

    def script(x):
        body = x.body()
        x.respond(200, None, chunked=[body[i:i + 1013] for i in range(0, len(body), 1013)])

    up = upstream(script)
    gw = gateway(up)
    wire = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in parts) + b"0\r\n\r\n"
    with gw.conn() as c:
        for _ in range(2):
            c.request("POST", "/c", {"Transfer-Encoding": "chunked"})
            c.send_slowly(wire, step)
            r = c.response()
            assert r.body == b"".join(parts)
            assert r.header("transfer-encoding") == "chunked"
    assert up.last.body() == b"".join(parts)
    assert up.last.header("transfer-encoding") == "chunked" and "content-length" not in up.last.head


@pytest.mark.parametrize("size", ["000000004", "4;name=value", '4;n="quo;ted"', "4;a;b=c"])
def test_chunk_sizes_that_are_fine(gateway, upstream, size):
    """Leading zeros and extensions are legal; extensions are not forwarded."""
    up = upstream()
    gw = gateway(up)
    with gw.conn() as c:
        c.request("POST", "/", {"Transfer-Encoding": "chunked"}).send(size + "\r\nabcd\r\n0\r\n\r\n")
        assert c.response().status == 200
    assert up.last.body() == b"abcd"
    assert b"name=" not in up.received and b"quo;ted" not in up.received


def test_content_length_bodies_both_ways(gateway, upstream):
    up = upstream(lambda x: x.respond(200, None, x.body()))
    gw = gateway(up)
    with gw.conn() as c:
        for n in (0, 1, 16384, 65536, 1000003):
            body = (b"0123456789" * (n // 10 + 1))[:n]
            r = c.request("PUT", "/", {"Content-Length": n}, body).response()
            assert r.body == body and r.header("content-length") == str(n)
            assert up.last.header("content-length") == str(n) and "transfer-encoding" not in up.last.head


def test_trailers_both_ways(gateway, upstream):
    up = upstream(lambda x: (x.body(), x.respond(200, {"trailer": "x-sum"}, b"data", trailers={"x-sum": "42", "x-more": "yes"})))
    gw = gateway(up)
    with gw.conn() as c:
        c.request("POST", "/", {"Transfer-Encoding": "chunked", "TE": "trailers", "Trailer": "X-In"})
        c.send("3\r\nabc\r\n0\r\nX-In: one\r\nX-Two: two\r\n\r\n")
        r = c.response()
        assert (r.body, dict(r.trailers)) == (b"data", {"x-sum": "42", "x-more": "yes"})
        assert c.request("GET", "/").response().status == 200
    first = up.exchanges[0]
    assert first.body() == b"abc" and dict(first.trailers) == {"x-in": "one", "x-two": "two"}


def test_framing_fields_in_trailers_are_not_forwarded(gateway, upstream):
    """RFC 9110 6.5.1: a trailer cannot change framing, routing or authentication of a message that is under way."""
    up = upstream()
    gw = gateway(up)
    with gw.conn() as c:
        c.request("POST", "/", {"Transfer-Encoding": "chunked"})
        c.send("1\r\na\r\n0\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nHost: evil\r\nX-Ok: 1\r\n\r\n")
        status = c.response().status
    if status == 400:  # refusing is fine too
        return
    assert status == 200
    assert {n for n, _ in up.last.trailers} == {"x-ok"}


@pytest.mark.parametrize("upstream_sends_100", [False, True])
def test_expect_100_continue(gateway, upstream, upstream_sends_100):
    """As Envoy: the gateway says 100 itself, the upstream is not asked, and the client gets exactly one."""
    def script(x):
        if upstream_sends_100:
            x.interim(100)
        x.respond(200, None, x.body())

    up = upstream(script)
    gw = gateway(up)
    with gw.conn() as c:
        for expect in ("100-continue", "100-Continue"):
            c.request("POST", "/", {"Expect": expect, "Content-Length": "5"})
            assert c.head().start_line.split(" ")[1] == "100"
            c.send("hello")
            r = c.response()
            assert r.body == b"hello" and r.interim == []
        assert c.is_open()
    assert "expect" not in up.last.head


def test_expect_100_continue_when_the_body_is_already_there(gateway, upstream):
    up = upstream(lambda x: x.respond(200, None, x.body()))
    gw = gateway(up)
    with gw.conn() as c:
        for _ in range(3):
            c.request("POST", "/", {"Expect": "100-continue"}, b"hello")
            assert c.response().body == b"hello"


def test_expect_from_http_1_0_is_ignored(gateway, upstream):
    """RFC 9110 10.1.1: no 100 goes to a 1.0 client."""
    gw = gateway(upstream(lambda x: x.respond(200, None, x.body())))
    with gw.conn() as c:
        c.request("POST", "/", {"Expect": "100-continue"}, b"hello", version="HTTP/1.0")
        r = c.response()
        assert r.body == b"hello" and r.interim == []


def test_unknown_expectation(gateway, upstream):
    up = upstream()
    gw = gateway(up)
    assert gw.get(headers={"Expect": "the-impossible"}).status in (200, 417)


def test_interim_responses_are_forwarded(gateway, upstream):
    def script(x):
        x.interim(103, {"link": "</a.css>; rel=preload"})
        x.interim(103, {"link": "</b.css>; rel=preload"})
        x.interim(102)
        x.respond(200, None, b"done")

    gw = gateway(upstream(script))
    with gw.conn() as c:
        r = c.request().response()
        assert r.body == b"done"
        assert [h.start_line.split(" ")[1] for h in r.interim] == ["103", "103", "102"]
        assert [h.get("link") for h in r.interim[:2]] == ["</a.css>; rel=preload", "</b.css>; rel=preload"]
        assert all("content-length" not in h and "transfer-encoding" not in h for h in r.interim)
        assert c.request().response().body == b"done"


def test_interim_responses_are_not_sent_to_http_1_0(gateway, upstream):
    gw = gateway(upstream(lambda x: (x.interim(103), x.respond(200, None, b"done"))))
    with gw.conn() as c:
        r = c.request(version="HTTP/1.0").response()
        assert r.interim == [] and r.body == b"done"


@pytest.mark.parametrize("framing", ["length", "chunked", "none"])
def test_head(gateway, upstream, framing):
    def script(x):
        if framing == "length":
            x.start(200, {"content-length": "1234"})
        elif framing == "chunked":
            x.start(200, {"transfer-encoding": "chunked"})
        else:
            x.start(200)

    up = upstream(script)
    gw = gateway(up, workers=1)
    with gw.conn() as c:
        for _ in range(3):
            r = c.request("HEAD", "/").response("HEAD")
            assert r.status == 200
            assert r.header("content-length") == ("1234" if framing == "length" else None)
        assert c.is_open()
    assert up.last.method == "HEAD" and up.connections == 1


@pytest.mark.parametrize("status", [204, 304])
def test_statuses_without_body(gateway, upstream, status):
    up = upstream(lambda x: x.start(status, {"etag": '"a"'}))
    gw = gateway(up, workers=1)
    with gw.conn() as c:
        for _ in range(3):
            r = c.request().response()
            assert r.status == status and r.body == b"" and r.header("etag") == '"a"'
            assert "transfer-encoding" not in r.head
    assert up.connections == 1


def test_response_delimited_by_close(gateway, upstream):
    """An old upstream: the end of the body is the end of its connection; clients of 1.1 get chunks and keep theirs."""
    up = upstream(lambda x: x.send("HTTP/1.0 200 OK\r\n\r\nbody until close").close())
    gw = gateway(up)
    with gw.conn() as c:
        for _ in range(3):
            r = c.request().response()
            assert r.body == b"body until close"
            assert r.header("transfer-encoding") == "chunked" and r.version == "HTTP/1.1"


def test_http_1_0_client(gateway, upstream):
    up = upstream(lambda x: x.respond(200, None, b"hello", chunked=[b"hel", b"lo"]))
    gw = gateway(up)
    with gw.conn() as c:
        r = c.request(version="HTTP/1.0").response()
        assert r.body == b"hello" and "transfer-encoding" not in r.head
        c.expect_closed()
    assert up.last.version == "HTTP/1.1"


def test_http_1_0_keep_alive(gateway, upstream):
    gw = gateway(upstream())
    with gw.conn() as c:
        for _ in range(3):
            r = c.request(version="HTTP/1.0", headers={"Connection": "keep-alive"}).response()
            assert r.body == b"ok"
            if r.will_close:  # a proxy may refuse to keep 1.0 connections, but then it must say so and close
                c.expect_closed()
                return
            assert c.is_open()


def test_http_1_0_without_host_is_for_the_address_it_came_to(gateway, upstream):
    """RFC 9112, section 3.3: routes, filters, the log and the upstream see the same name."""
    up = upstream()
    gw = gateway(up, limits={"access-log-format": "host=%REQ(:AUTHORITY)%"})
    with gw.conn() as c:
        assert c.request(version="HTTP/1.0", host=None).response().status == 200
    assert up.last.head.all("host") == [f"127.0.0.1:{gw.port}"]
    gw.wait_access(f"host=127.0.0.1:{gw.port}")


def test_half_close_by_the_client(gateway, upstream):
    """FIN after the request is no loss of the client: it still reads."""
    go = threading.Event()
    up = upstream(lambda x: (x.body(), go.wait(60), x.respond(200, None, b"late")))
    gw = gateway(up)
    with gw.conn() as c:
        c.request("POST", "/", body="x").shut()
        up.wait_count(1)
        gw.is_ready()
        go.set()
        assert c.response().body == b"late"
        c.expect_closed()


def test_half_close_inside_a_body(gateway, upstream):
    """Half a body is no body: the upstream must not take it for a whole one."""
    whole = []
    up = upstream(lambda x: (whole.append(x.body()), x.respond()))
    gw = gateway(up)
    with gw.conn() as c:
        c.request("POST", "/", {"Content-Length": 10}, b"12345").shut()
        left = c.wait_closed()
        assert left == b"" or left.startswith(b"HTTP/1.1 4")
    with gw.conn() as c:
        c.request("POST", "/", {"Transfer-Encoding": "chunked"}).send("5\r\n12345\r\n").shut()
        c.wait_closed()
    assert gw.get().status == 200  # and the gateway lives
    assert whole == [b""]


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_early_response_while_the_request_body_flows(gateway, upstream, framing):
    """The upstream answers whole after the head; the client, still sending, sees it."""
    up = upstream(lambda x: (x.respond(413, {"connection": "close"}, b"too much"), setattr(x, "keep", False)))
    gw = gateway(up)
    with gw.conn() as c:
        headers = {"Content-Length": 1 << 26} if framing == "length" else {"Transfer-Encoding": "chunked"}
        c.request("POST", "/", headers)
        piece = b"x" * 8192
        c.send(piece if framing == "length" else b"2000\r\n" + piece + b"\r\n")
        r = c.response()
        assert (r.status, r.body) == (413, b"too much")
        c.wait_closed()


def test_early_response_from_an_upstream_that_reads_on(gateway, upstream):
    """A response that overlaps its request: both directions run at once."""
    def script(x):
        x.start(200, {"transfer-encoding": "chunked"})
        for piece in x.pieces():
            x.send(b"%x\r\n%s\r\n" % (len(piece), piece.upper()))
        x.send("0\r\n\r\n")

    up = upstream(script)
    gw = gateway(up, workers=1)
    with gw.conn() as c:
        for _ in range(2):
            c.request("POST", "/", {"Transfer-Encoding": "chunked"})
            head = c.head()
            assert " 200 " in head.start_line + " "
            for i in range(10):
                c.send("5\r\nabc%02d\r\n" % i)
                got = c.chunk()
                assert got == b"ABC%02d" % i
            c.send("0\r\n\r\n")
            assert c.chunk() == b"" and c.trailer_fields() == []
    assert up.connections == 1 and not up.errors


def test_absolute_form(gateway, upstream):
    """RFC 9112 3.2.2: the target's authority replaces Host."""
    up = upstream()
    gw = gateway(up)
    with gw.conn() as c:
        assert c.request("GET", "http://real.example/a?b=c", host="ignored.example").response().status == 200
        assert c.request("GET", "http://real.example", host="ignored.example").response().status == 200
        assert c.request("GET", "http://real.example:8080?q", host="ignored.example").response().status == 200
    assert [(x.target, x.header("host")) for x in up.exchanges] == [
        ("/a?b=c", "real.example"), ("/", "real.example"), ("/?q", "real.example:8080")]


def test_options_asterisk(gateway, upstream):
    up = upstream()
    gw = gateway(up)
    with gw.conn() as c:
        assert c.request("OPTIONS", "*").response().status in (200, 204, 404)
        assert c.request("OPTIONS", "/a").response().status == 200
        assert c.is_open()
    assert all(x.target in ("*", "/a") for x in up.exchanges)


def test_connect_is_refused(gateway, upstream):
    up = upstream()
    gw = gateway(up)
    with gw.conn() as c:
        c.request("CONNECT", "test.example:443", host="test.example:443")
        r = c.response()
        assert 400 <= r.status < 500
    assert up.received == b""


@pytest.mark.parametrize("method", ["PATCH", "DELETE", "PROPFIND", "M-SEARCH", "X!#$%&'*+.^_`|~z"])
def test_other_methods(gateway, upstream, method):
    up = upstream()
    gw = gateway(up)
    assert gw.request(method, "/").status == 200
    assert up.last.method == method


def test_empty_lines_before_a_request(gateway, upstream):
    """RFC 9112 2.2: a server ignores at least one empty line before a request line."""
    up = upstream()
    gw = gateway(up)
    with gw.conn() as c:
        c.send("\r\n").request("GET", "/")
        assert c.response().status == 200


@pytest.mark.parametrize("how", ["announced", "silent", "reset"])
@pytest.mark.parametrize("nth", [1, 3, 10])
def test_upstream_that_closes_after_every_nth_response(gateway, upstream, nth, how):
    """0 failed GETs, also when the close comes unannounced and races with the next request."""
    def script(x):
        last = x.index % nth == 0
        x.respond(200, None, b"ok", close=last and how == "announced")
        if last:
            x.keep = False
            if how == "reset":
                x.close(reset=True)

    up = upstream(script, keep_exchanges=False, record=0)
    gw = gateway(up)
    with Load(gw.port, threads=4) as load:
        wait_until(lambda: load.total >= 600, "600 requests")
    load.assert_lossless(600)


def test_upstream_that_closes_instead_of_answering_a_reused_connection(gateway, upstream):
    """Trap 3: a GET on a reused connection is tried once more on a fresh one; on a fresh one it is not."""
    def script(x):
        if x.index == 2:
            x.close()
        else:
            x.respond()

    up = upstream(script)
    gw = gateway(up, workers=1)
    with gw.conn() as c:
        for _ in range(10):
            assert c.request().response().status == 200
    assert gw.metrics().value("weir_upstream_retries_total") > 0
    assert not up.errors


@pytest.mark.parametrize("framing", ["length", "chunked", "trailers"])
def test_put_goes_once_more_with_its_body(gateway, upstream, framing):
    """As a GET: what was sent is held until the endpoint says something."""
    def script(x):
        x.body()
        if x.index == 2:
            x.close()
        else:
            x.respond(200, None, x.body())

    up = upstream(script)
    gw = gateway(up, workers=1)
    body = b"0123456789" * 3000
    with gw.conn() as c:
        assert c.request("GET", "/1").response().status == 200
        if framing == "length":
            c.request("PUT", "/2", body=body)
        else:
            c.request("PUT", "/2", {"Transfer-Encoding": "chunked"})
            for i in range(0, len(body), 1000):
                c.send(b"3e8\r\n" + body[i:i + 1000] + b"\r\n")
            c.send("0\r\nX-T: 1\r\n\r\n" if framing == "trailers" else "0\r\n\r\n")
        r = c.response()
        assert (r.status, r.body) == (200, body)
    assert [x.target for x in up.exchanges] == ["/1", "/2", "/2"]
    assert up.last.trailers == ([("x-t", "1")] if framing == "trailers" else [])
    gw.wait_access('"PUT /2 HTTP/1.1" 200 - 30000 30000')


def test_put_with_more_than_is_held_is_not_sent_twice(gateway, upstream):
    def script(x):
        x.body()
        if x.index == 2:
            x.close()
        else:
            x.respond()

    up = upstream(script)
    gw = gateway(up, workers=1)
    with gw.conn() as c:
        assert c.request("GET", "/1").response().status == 200
        assert c.request("PUT", "/2", body=b"a" * 70000).response().status == 503
    assert [x.target for x in up.exchanges] == ["/1", "/2"]


def test_post_is_not_sent_twice(gateway, upstream):
    """A POST whose bytes were written is not idempotent: the client gets the failure, the upstream gets it once."""
    def script(x):
        x.body()
        if x.index == 2:
            x.close()
        else:
            x.respond()

    up = upstream(script)
    gw = gateway(up, workers=1)
    with gw.conn() as c:
        assert c.request("POST", "/1", body="a").response().status == 200
        r = c.request("POST", "/2", body="a").response()
        assert r.status in (502, 503)
    assert [x.target for x in up.exchanges] == ["/1", "/2"]


def test_upstream_resets_inside_a_body(gateway, upstream):
    """What was announced cannot be completed: the client must be able to tell."""
    up = upstream(lambda x: (x.start(200, {"content-length": "100"}), x.send("half"), x.close()))
    gw = gateway(up)
    with gw.conn() as c:
        with pytest.raises(Closed):
            c.request().response()
    up.script = lambda x: (x.start(200, {"transfer-encoding": "chunked"}), x.send("4\r\nhalf\r\n"), x.close())
    with gw.conn() as c:
        with pytest.raises(Closed):
            c.request().response()
    gw.wait(lambda: gw.ended_streams("upstream_reset_after_response_started") == 2)


def test_client_that_leaves_frees_the_upstream(gateway, upstream):
    """While a stream waits for its response, the loss of the client is noticed and the upstream connection closed."""
    gone = threading.Event()

    def script(x):
        try:
            x.peer._more("the close")
        except Closed:
            gone.set()
        x.keep = False

    up = upstream(script)
    gw = gateway(up)
    c = gw.conn().request()
    up.wait_count(1)
    c.close(reset=True)
    assert gone.wait(60)
    gw.wait(lambda: gw.ended_streams("downstream_remote_disconnect") == 1)
    gw.wait(lambda: gw.metrics().value("weir_streams") == 0)


def test_bytes_after_a_response_are_not_given_to_another_client(gateway, upstream):
    """Response splitting by an upstream: what comes unasked on an idle connection is thrown away with it."""
    up = upstream(lambda x: x.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
                                   "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"))
    gw = gateway(up, workers=1)
    for _ in range(20):
        assert gw.get().body == b"ok"
