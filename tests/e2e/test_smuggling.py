# SPDX-License-Identifier: Apache-2.0
"""What a strict parser refuses: 400 (or the status named), the connection closed, and not one byte at the upstream. Each
case goes in one piece and byte by byte, alone and behind a good request on the same connection."""
import pytest

from weirtest.client import Closed

GOOD = b"GET /good HTTP/1.1\r\nHost: test.example\r\n\r\n"
# Behind each case: what a lenient parser would take for a second request.
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: test.example\r\n\r\n"


def _get(*lines, target="/x", version="HTTP/1.1"):
    return ("\r\n".join([f"GET {target} {version}", "Host: test.example", *lines]) + "\r\n\r\n").encode("latin-1")


def _post(*lines, body=""):
    return ("\r\n".join(["POST /x HTTP/1.1", "Host: test.example", *lines]) + "\r\n\r\n" + body).encode("latin-1")


CHUNKED = "Transfer-Encoding: chunked"
HEADS = {
    # field lines
    "obs-fold": _get("X-A: b", " folded: c"),
    "obs-fold-tab": _get("X-A: b", "\tfolded"),
    "first-field-folded": b"GET /x HTTP/1.1\r\n Host: a\r\nHost: test.example\r\n\r\n",
    "bare-lf-field": b"GET /x HTTP/1.1\r\nHost: test.example\nX-A: b\r\n\r\n",
    "bare-lf-everywhere": b"GET /x HTTP/1.1\nHost: test.example\n\n",
    "bare-lf-request-line": b"GET /x HTTP/1.1\nHost: test.example\r\n\r\n",
    "bare-lf-end": b"GET /x HTTP/1.1\r\nHost: test.example\r\n\n",
    "bare-cr-in-value": _get("X-A: b\rc"),
    "bare-cr-in-name": _get("X\r-A: b"),
    "bare-cr-then-field": _get("X-A: b\rContent-Length: 5"),
    "cr-cr-lf": b"GET /x HTTP/1.1\r\nHost: test.example\r\r\n\r\n",
    "nul-in-value": _get("X-A: b\0c"),
    "nul-in-name": _get("X\0A: b"),
    "nul-in-target": b"GET /x\0y HTTP/1.1\r\nHost: test.example\r\n\r\n",
    "control-in-value": _get("X-A: b\x01c"),
    "delete-in-value": _get("X-A: b\x7fc"),
    "space-before-colon": _get("X-A : b"),
    "tab-before-colon": _get("X-A\t: b"),
    "space-before-colon-length": _post("Content-Length : 5", body="abcde"),
    "space-in-name": _get("X A: b"),
    "no-colon": _get("X-A"),
    "empty-name": _get(": b"),
    "name-not-a-token": _get("X(A): b"),
    "name-with-high-byte": _get("X-\xe9: b"),
    # request line
    "no-version": b"GET /x\r\nHost: test.example\r\n\r\n",
    "two-spaces": b"GET  /x HTTP/1.1\r\nHost: test.example\r\n\r\n",
    "space-in-target": b"GET /x y HTTP/1.1\r\nHost: test.example\r\n\r\n",
    "trailing-space": b"GET /x HTTP/1.1 \r\nHost: test.example\r\n\r\n",
    "tab-for-space": b"GET\t/x\tHTTP/1.1\r\nHost: test.example\r\n\r\n",
    "leading-space": b" GET /x HTTP/1.1\r\nHost: test.example\r\n\r\n",
    "lower-case-version": b"GET /x http/1.1\r\nHost: test.example\r\n\r\n",
    "version-with-letters": b"GET /x HTTP/1.x\r\nHost: test.example\r\n\r\n",
    "version-1.10": b"GET /x HTTP/1.10\r\nHost: test.example\r\n\r\n",
    "version-01.1": b"GET /x HTTP/01.1\r\nHost: test.example\r\n\r\n",
    "method-not-a-token": b"GE(T /x HTTP/1.1\r\nHost: test.example\r\n\r\n",
    "no-method": b" /x HTTP/1.1\r\nHost: test.example\r\n\r\n",
    "control-in-target": b"GET /x\x01y HTTP/1.1\r\nHost: test.example\r\n\r\n",
    "high-byte-in-target": b"GET /x\xffy HTTP/1.1\r\nHost: test.example\r\n\r\n",
    "fragment-in-target": b"GET /x#f HTTP/1.1\r\nHost: test.example\r\n\r\n",
    "relative-target": b"GET x HTTP/1.1\r\nHost: test.example\r\n\r\n",
    "asterisk-for-get": b"GET * HTTP/1.1\r\nHost: test.example\r\n\r\n",
    "garbage": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    # Host
    "no-host": b"GET /x HTTP/1.1\r\nX-A: b\r\n\r\n",
    "two-hosts": b"GET /x HTTP/1.1\r\nHost: test.example\r\nHost: test.example\r\n\r\n",
    "two-different-hosts": b"GET /x HTTP/1.1\r\nHost: test.example\r\nHost: evil\r\n\r\n",
    "host-with-space": b"GET /x HTTP/1.1\r\nHost: te st\r\n\r\n",
    "host-with-comma-list": b"GET /x HTTP/1.1\r\nHost: a,b c\r\n\r\n",
    "host-with-path": b"GET /x HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "host-with-userinfo": b"GET /x HTTP/1.1\r\nHost: u@a\r\n\r\n",
    "host-with-bad-port": b"GET /x HTTP/1.1\r\nHost: a:b\r\n\r\n",
    "host-with-large-port": b"GET /x HTTP/1.1\r\nHost: a:65536\r\n\r\n",
    "host-with-query": b"GET /x HTTP/1.1\r\nHost: a?b\r\n\r\n",
    "host-with-high-byte": b"GET /x HTTP/1.1\r\nHost: \xe9\r\n\r\n",
    "host-with-open-bracket": b"GET /x HTTP/1.1\r\nHost: [::1\r\n\r\n",
    "absolute-form-userinfo": b"GET http://u@a/x HTTP/1.1\r\nHost: a\r\n\r\n",
    "absolute-form-no-host": b"GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n",
    "absolute-form-scheme": b"GET gopher://a/x HTTP/1.1\r\nHost: a\r\n\r\n",
    "absolute-form-bad-host-field": b"GET http://a/x HTTP/1.1\r\nHost: b c\r\n\r\n",
    # Content-Length
    "length-twice": _post("Content-Length: 5", "Content-Length: 6", body="abcde"),
    "length-twice-equal": _post("Content-Length: 5", "Content-Length: 5", body="abcde"),
    "length-list": _post("Content-Length: 5, 6", body="abcde"),
    "length-list-equal": _post("Content-Length: 5, 5", body="abcde"),
    "length-negative": _post("Content-Length: -5", body="abcde"),
    "length-plus": _post("Content-Length: +5", body="abcde"),
    "length-hex": _post("Content-Length: 0x5", body="abcde"),
    "length-letters": _post("Content-Length: 5a", body="abcde"),
    "length-inner-space": _post("Content-Length: 1 2", body="abcdeabcdeab"),
    "length-empty": _post("Content-Length:", body="abcde"),
    "length-quoted": _post('Content-Length: "5"', body="abcde"),
    "length-point": _post("Content-Length: 5.0", body="abcde"),
    "length-overflow-64": _post("Content-Length: 18446744073709551616", body="abcde"),
    "length-overflow-wraps-to-5": _post("Content-Length: 18446744073709551621", body="abcde"),
    "length-very-long": _post("Content-Length: " + "9" * 400, body="abcde"),
    # Transfer-Encoding
    "both-framings": _post("Content-Length: 5", CHUNKED, body="0\r\n\r\n"),
    "both-framings-other-order": _post(CHUNKED, "Content-Length: 5", body="0\r\n\r\n"),
    "te-identity": _post("Transfer-Encoding: identity", "Content-Length: 5", body="abcde"),
    "te-gzip-chunked": _post("Transfer-Encoding: gzip, chunked", body="0\r\n\r\n"),
    "te-chunked-gzip": _post("Transfer-Encoding: chunked, gzip", body="0\r\n\r\n"),
    "te-chunked-chunked": _post("Transfer-Encoding: chunked, chunked", body="0\r\n\r\n"),
    "te-twice": _post(CHUNKED, CHUNKED, body="0\r\n\r\n"),
    "te-twice-different": _post(CHUNKED, "Transfer-Encoding: identity", body="0\r\n\r\n"),
    "te-xchunked": _post("Transfer-Encoding: xchunked", body="0\r\n\r\n"),
    "te-chunkedx": _post("Transfer-Encoding: chunkedx", body="0\r\n\r\n"),
    "te-vertical-tab": _post("Transfer-Encoding: \x0bchunked", body="0\r\n\r\n"),
    "te-quoted": _post('Transfer-Encoding: "chunked"', body="0\r\n\r\n"),
    "te-parameter": _post("Transfer-Encoding: chunked;q=1", body="0\r\n\r\n"),
    "te-empty": _post("Transfer-Encoding:", body="0\r\n\r\n"),
    "te-leading-comma": _post("Transfer-Encoding: ,chunked", body="0\r\n\r\n"),
    "te-http-1.0": b"POST /x HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
}

# The head is fine, and may be forwarded before the body is seen; nothing after it may.
CHUNKS = {
    "size-empty": "\r\nabc\r\n0\r\n\r\n",
    "size-not-hex": "g\r\nabc\r\n0\r\n\r\n",
    "size-0x": "0x3\r\nabc\r\n0\r\n\r\n",
    "size-plus": "+3\r\nabc\r\n0\r\n\r\n",
    "size-minus": "-3\r\nabc\r\n0\r\n\r\n",
    "size-leading-space": " 3\r\nabc\r\n0\r\n\r\n",
    "size-trailing-space": "3 \r\nabc\r\n0\r\n\r\n",
    "size-underscore": "1_0\r\nabc\r\n0\r\n\r\n",
    "size-overflow": "10000000000000003\r\nabc\r\n0\r\n\r\n",
    "size-64-bit": "ffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "size-many-digits": "0" * 400 + "3\r\nabc\r\n0\r\n\r\n",
    "size-line-bare-lf": "3\nabc\r\n0\r\n\r\n",
    "size-line-bare-cr": "3\rabc\r\n0\r\n\r\n",
    "extension-bare-lf": "3;a\nabc\r\n0\r\n\r\n",
    "extension-bare-cr": "3;a\rb\r\nabc\r\n0\r\n\r\n",
    "extension-nul": "3;a\0b\r\nabc\r\n0\r\n\r\n",
    "extension-too-long": "3;" + "a" * 20000 + "\r\nabc\r\n0\r\n\r\n",
    "data-too-long": "3\r\nabcd\r\n0\r\n\r\n",
    "data-no-crlf": "3\r\nabc0\r\n\r\n",
    "data-lf": "3\r\nabc\n0\r\n\r\n",
    "data-cr": "3\r\nabc\r0\r\n\r\n",
    "trailer-fold": "0\r\nX-A: b\r\n c\r\n\r\n",
    "trailer-space-before-colon": "0\r\nX-A : b\r\n\r\n",
    "trailer-no-colon": "0\r\nX-A\r\n\r\n",
    "trailer-bare-lf": "0\r\nX-A: b\n\r\n",
    "trailer-nul": "0\r\nX-A: \0\r\n\r\n",
    "end-bare-lf": "0\r\n\n",
}


@pytest.fixture(scope="module")
def up(module_upstream):
    return module_upstream()


@pytest.fixture(scope="module")
def gw(module_gateway, up):
    return module_gateway(up)


def _responses(conn):
    """Every response up to the close."""
    out = []
    while True:
        try:
            out.append(conn.response())
        except Closed as e:
            assert not e.got, f"bytes after the last response: {e.got!r}"
            return out


def _send(conn, data, by_byte):
    if by_byte:
        conn.send_slowly(data)
    else:
        try:
            conn.send(data)
        except (BrokenPipeError, ConnectionResetError):
            pass


WAYS = pytest.mark.parametrize("by_byte", [False, True], ids=["whole", "bytes"])


@WAYS
@pytest.mark.parametrize("name", HEADS)
def test_bad_head_is_refused(gw, up, name, by_byte):
    before = up.count
    with gw.conn() as c:
        _send(c, HEADS[name] + SMUGGLED, by_byte)
        got = _responses(c)
    assert [r.status for r in got] == [400], got
    assert got[0].will_close
    assert up.count == before, f"reached the upstream: {up.last.head.raw!r}"


@pytest.mark.parametrize("name", HEADS)
def test_bad_head_behind_a_good_request(gw, up, name):
    before = up.count
    with gw.conn() as c:
        _send(c, GOOD + HEADS[name] + SMUGGLED, False)
        got = _responses(c)
    assert [r.status for r in got] == [200, 400], got
    assert up.count == before + 1 and up.last.target == "/good"


@WAYS
@pytest.mark.parametrize("name", CHUNKS)
def test_bad_chunk_is_refused(gw, up, name, by_byte):
    before = up.count
    up.errors.clear()
    with gw.conn() as c:
        _send(c, _post(CHUNKED, body=CHUNKS[name]) + SMUGGLED, by_byte)
        got = _responses(c)
    assert [r.status for r in got] == [400], got
    assert all(x.target != "/smuggled" for x in up.exchanges[before:])
    # What did reach the upstream, if the head went ahead, was never completed.
    gw.wait(lambda: gw.metrics().value("weir_streams") == 0)
    for x in up.exchanges[before:]:
        assert not x.answered, f"the upstream got a whole request: {bytes(x.peer.received)!r}"


@pytest.mark.parametrize("value", ["chunked", "Chunked", "CHUNKED", " chunked\t"])
def test_chunked_in_any_case_is_fine(gw, up, value):
    with gw.conn() as c:
        c.send(_post(f"Transfer-Encoding:{value}", body="3\r\nabc\r\n0\r\n\r\n") + GOOD)
        assert c.response().status == 200
        assert c.response().status == 200
    assert up.exchanges[-2].body() == b"abc" and up.last.target == "/good"
    assert up.exchanges[-2].head.all("transfer-encoding") == ["chunked"]


@pytest.mark.parametrize("host", ["a", "a:80", "a.b.example:8080", "127.0.0.1:80", "[::1]:80", "[::1]", "xn--bcher-kva.example", "a_b"])
def test_good_hosts(gw, up, host):
    with gw.conn() as c:
        assert c.request(host=host).response().status == 200
    assert up.last.header("host") == host


@pytest.mark.parametrize("version,status", [("HTTP/2.0", 505), ("HTTP/3.0", 505), ("HTTP/0.9", 505)])
def test_other_versions(gw, up, version, status):
    before = up.count
    with gw.conn() as c:
        c.send(_get(version=version) + SMUGGLED)
        got = _responses(c)
    assert [r.status for r in got] in ([status], [400])
    assert up.count == before


def test_http2_preface_is_refused(gw, up):
    before = up.count
    with gw.conn() as c:
        c.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
        got = _responses(c)
    assert [r.status for r in got] in ([400], [505])
    assert up.count == before


def test_get_with_a_body_is_framed(gw, up):
    """A body on GET is legal; what matters is that both sides agree where it ends."""
    with gw.conn() as c:
        c.send(b"GET /x HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED + GOOD)
        assert c.response().status == 200
        assert c.response().status == 200
    assert up.exchanges[-2].body() == SMUGGLED and up.last.target == "/good"


# ---- the upstream's side: a response that cannot be framed is a 502, and its connection is gone ----

RESPONSES = {
    "not-http": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "bare-lf": b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok",
    "obs-fold": b"HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\ncontent-length: 2\r\n\r\nok",
    "nul": b"HTTP/1.1 200 OK\r\nX-A: b\0c\r\ncontent-length: 2\r\n\r\nok",
    "bare-cr": b"HTTP/1.1 200 OK\r\nX-A: b\rc\r\ncontent-length: 2\r\n\r\nok",
    "space-before-colon": b"HTTP/1.1 200 OK\r\nX-A : b\r\ncontent-length: 2\r\n\r\nok",
    "both-framings": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "different-lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok!",
    "length-negative": b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\nok",
    "te-other": b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "status-two-digits": b"HTTP/1.1 20 OK\r\ncontent-length: 2\r\n\r\nok",
    "status-four-digits": b"HTTP/1.1 2000 OK\r\ncontent-length: 2\r\n\r\nok",
    "status-letters": b"HTTP/1.1 2xx OK\r\ncontent-length: 2\r\n\r\nok",
    "status-099": b"HTTP/1.1 099 OK\r\ncontent-length: 2\r\n\r\nok",
    "version-2": b"HTTP/2.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
}


@pytest.mark.parametrize("name", RESPONSES)
def test_bad_response_is_502(gateway, upstream, name):
    bad = upstream(lambda x: x.send(RESPONSES[name]))
    g = gateway(bad, workers=1)
    r = g.get()
    assert r.status == 502, r
    assert "x-a" not in r.head
    g.wait(lambda: g.ended_streams("upstream_protocol_error") == 1)
    g.get()
    assert bad.connections == 2, "the connection was used again"


@pytest.mark.parametrize("body", ["g\r\nok\r\n0\r\n\r\n", "2\nok\r\n0\r\n\r\n", "2\r\nokX\r\n0\r\n\r\n", "ffffffffffffffffff\r\nok"])
def test_bad_chunks_of_a_response_end_it_visibly(gateway, upstream, body):
    bad = upstream(lambda x: x.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n" + body))
    g = gateway(bad)
    with g.conn() as c:
        c.request()
        try:
            assert c.response().status == 502
        except Closed:
            pass
