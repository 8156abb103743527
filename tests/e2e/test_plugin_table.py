# SPDX-License-Identifier: Apache-2.0
"""docs/abi.md section 1 on the wire, row by row: what a callback's answer does, in both directions, with what the
upstream and the client had at each moment. One worker, so that a request through it shows that nothing more happens."""
import threading

import pytest

from weirtest.client import Closed, Conn
from weirtest.plugins import REQ, REQ_T, RESP, RESP_T, Puppet, StepUpstream, Variants, op, pending, puppet_plugin, script
from weirtest.util import wait_until

HEADERS_ONLY = {"plugin.weir/on-headers-pause": "headers"}
KIB = 1024
SMALL = {"buffer-bytes": "16Ki", "access-log-format": "%RESPONSE_CODE% %RESPONSE_CODE_DETAILS% %REQ(:PATH)%\n"}


@pytest.fixture(scope="module")
def variants(tmp_path_factory):
    return Variants(tmp_path_factory.mktemp("variants"))


@pytest.fixture(scope="module")
def make(module_gateway, module_upstream, variants):
    """Puppets by how their gateway is set up; each gateway once for the module."""
    made = {}

    def get(annotations=None, defines=(), limits=None):
        key = repr((annotations, defines, limits))
        if key not in made:
            up = StepUpstream(module_upstream)
            g = module_gateway(up, workers=1, limits=limits,
                               extra=[puppet_plugin(variants.puppet(*defines), annotations=annotations)])
            made[key] = Puppet(g, up)
        return made[key]
    return get


@pytest.fixture
def all_(make):
    return make()


@pytest.fixture
def headers_only(make):
    return make(HEADERS_ONLY)


@pytest.fixture(params=["all", "headers"])
def either(request, make):
    return make(HEADERS_ONLY if request.param == "headers" else None)


@pytest.fixture
def small(make):
    return make(limits=SMALL)


class Answer:
    """A GET whose response the upstream sends step by step."""

    def __init__(self, p, *statements, method="GET", headers=None):
        from weirtest.plugins import Seen, new_tag
        self.p, self.tag, self.method = p, new_tag(), method
        self.path = "/" + self.tag
        self.seen = Seen(p.g, self.tag)
        self.up = p.up.hold(self.path)
        self.conn = Conn(p.g.port)
        self.conn.request(method, self.path, [("x-tag", self.tag), ("x-do", script(*statements)), *(headers or {}).items()])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.conn.close()
        self.up.steps.put(("done", (), threading.Event()))

    def release(self, stream=1):
        r, _ = self.p.send(("rh", f"eff {self.seen.of('rh')['id']}", f"cont {stream}"))
        assert r.status == 200
        return self

    def nothing_here(self):
        self.p.barrier()
        assert pending(self.conn) == b""

    def head(self, status=200):
        h = self.conn.head()
        assert h.start_line.split(" ")[1] == str(status), h.raw
        return h

    def response(self, status=200):
        r = self.conn.response(self.method)
        assert r.status == status, r
        return r


# ---- 1.1 request headers ----

@pytest.mark.parametrize("ret", [0, 2])
def test_request_headers_continue(either, ret):
    with either.open(("rh", f"ret {ret}")) as f:
        either.up.wait(f.path, complete=False)
        assert f.seen.wait("rh")["end"] == "0"
        f.data(b"hello")
        f.seen.wait("rb", 1)
        f.body_upstream(b"hello")
        f.data(b"world!")
        f.seen.wait("rb", 2)
        f.body_upstream(b"helloworld!")
        f.end({"x-t": "v"})
        f.response()
        assert either.up.wait(f.path).trailers == [("x-t", "v")]
        f.seen.wait_end()
        assert f.seen.sizes("rb") == [(5, 0), (6, 0)]
        assert f.seen.events() == ["rh", "rb", "rb", "rt", "sh", "sb"]


@pytest.mark.parametrize("ret", [0, 2])
def test_request_headers_continue_with_the_end(either, ret):
    r, seen = either.send(("rh", f"ret {ret}"))
    assert r.status == 200
    seen.wait_end()
    assert seen.of("rh")["end"] == "1"
    assert seen.events() == ["rh", "sh", "sb"]


# 1 with `all`; 4 and more with either meaning; 3 with either meaning (below the limit).
PAUSES = [("all", 1), ("all", 3), ("headers", 3), ("all", 4), ("headers", 4), ("all", 5), ("headers", 77)]


@pytest.mark.parametrize("trailers", [False, True], ids=["body", "trailers"])
@pytest.mark.parametrize("meaning,ret", PAUSES)
def test_request_headers_pause_all(make, meaning, ret, trailers):
    p = make(HEADERS_ONLY if meaning == "headers" else None)
    with p.open(("rh", f"ret {ret}")) as f:
        f.seen.wait("rh")
        f.data(b"hello").data(b"world")
        f.end({"x-t": "v"} if trailers else None)
        f.nothing_upstream()
        assert f.seen.events() == ["rh"]
        f.release()
        f.response()
        x = p.up.wait(f.path)
        assert b"".join(x.got) == b"helloworld"
        assert x.trailers == ([("x-t", "v")] if trailers else [])
        f.seen.wait_end()
        assert f.seen.sizes("rb") == [(10, 0 if trailers else 1)]  # all that waited as one chunk
        assert f.seen.events() == ["rh", "rb"] + (["rt"] if trailers else []) + ["sh", "sb"]


@pytest.mark.parametrize("meaning,ret", PAUSES)
def test_request_headers_pause_all_before_any_body(make, meaning, ret):
    """Released while no body has come: what comes later is shown as it comes."""
    p = make(HEADERS_ONLY if meaning == "headers" else None)
    with p.open(("rh", f"ret {ret}")) as f:
        f.seen.wait("rh")
        f.nothing_upstream()
        f.release()
        p.up.wait(f.path, complete=False)
        f.data(b"abc")
        f.seen.wait("rb", 1)
        f.body_upstream(b"abc")
        f.data(b"d").end()
        f.response()
        f.seen.wait_end()
        sizes = f.seen.sizes("rb")
        assert sizes[0] == (3, 0) and sum(n for n, _ in sizes) == 4 and [e for _, e in sizes][-1] == 1


@pytest.mark.parametrize("meaning,ret", PAUSES + [("headers", 1)])
def test_request_headers_pause_with_the_end(make, meaning, ret):
    p = make(HEADERS_ONLY if meaning == "headers" else None)
    with p.open(("rh", f"ret {ret}"), method="GET") as f:
        assert f.seen.wait("rh")["end"] == "1"
        f.nothing_upstream()
        f.release()
        f.response()
        f.seen.wait_end()
        assert f.seen.events() == ["rh", "sh", "sb"]


@pytest.mark.parametrize("ret", [1, 4])
def test_request_headers_pause_all_is_back_pressure(small, ret):
    """More than the buffer limit is never an error: reading stops, and goes on with continue."""
    body = bytes(range(256)) * (4 * KIB)  # 1 MiB
    with small.open(("rh", f"ret {ret}"), chunked=False, headers={"content-length": len(body)}) as f:
        f.seen.wait("rh")
        sender = threading.Thread(target=lambda: f.conn.send(body), daemon=True)
        sender.start()
        wait_until(lambda: f.conn.sock.fileno() >= 0 and _unread_by_weir(f.conn) > 0, "the client to be held back")
        f.nothing_upstream()
        f.release()
        f.response()
        sender.join()
        assert b"".join(small.up.wait(f.path).got) == body
        f.seen.wait_end()
        first = f.seen.sizes("rb")[0][0]
        assert 0 < first <= 16 * KIB + 128 * KIB, first  # the limit and what one read brings


def _unread_by_weir(conn):
    """Bytes in our send queue that the peer has not taken."""
    import fcntl
    import struct
    import termios
    return struct.unpack("i", fcntl.ioctl(conn.sock.fileno(), termios.TIOCOUTQ, b"\0" * 4))[0]


@pytest.mark.parametrize("annotations", [None, HEADERS_ONLY], ids=["all", "headers"])
def test_request_headers_pause_and_buffer_over_the_limit(make, annotations):
    p = make(annotations, limits=SMALL)
    with p.open(("rh", "ret 3"), chunked=False, headers={"content-length": 64 * KIB}) as f:
        f.seen.wait("rh")
        f.conn.send(b"x" * 64 * KIB)
        f.response(413)
        f.seen.wait_end()
        assert f.upstream() is None
        assert "rb" not in f.seen.events()
        p.g.wait_access(f"413 request_payload_too_large {f.path}")


# 1.1, `headers-only`

@pytest.mark.parametrize("trailers", [False, True], ids=["body", "trailers"])
def test_request_headers_only_pause_is_released_by_the_body_callback(headers_only, trailers):
    p = headers_only
    with p.open(("rh", "ret 1"), ("rb.1", "ret 1"), ("rb.2", "ret 0")) as f:
        f.seen.wait("rh")
        f.data(b"hello")
        f.seen.wait("rb", 1)
        f.nothing_upstream()
        f.data(b"world")
        f.seen.wait("rb", 2)
        f.body_upstream(b"helloworld")
        f.end({"x-t": "v"} if trailers else None)
        f.response()
        f.seen.wait_end()
        assert f.seen.sizes("rb")[:2] == [(5, 0), (10, 0)]
        assert ("rt" in f.seen.events()) == trailers


def test_request_headers_only_pause_is_released_by_continue(headers_only):
    p = headers_only
    with p.open(("rh", "ret 1"), ("rb.1", "ret 1")) as f:
        f.data(b"hello")
        f.seen.wait("rb", 1)
        f.nothing_upstream()
        f.release()
        f.body_upstream(b"hello")  # seen already: not shown again
        assert f.seen.sizes("rb") == [(5, 0)]
        f.data(b"more").end()
        f.response()
        f.seen.wait_end()
        assert f.seen.sizes("rb")[1][0] == 4
        p.up.wait_body(f.path, b"hellomore")


def test_request_headers_only_pause_is_released_by_the_trailers_callback(headers_only):
    p = headers_only
    with p.open(("rh", "ret 1"), ("rb", "ret 1")) as f:
        f.data(b"hello").data(b"world")
        f.seen.wait("rb", 1)
        f.nothing_upstream()
        f.end({"x-t": "v"})
        f.response()
        x = p.up.wait(f.path)
        assert b"".join(x.got) == b"helloworld" and x.trailers == [("x-t", "v")]
        f.seen.wait_end()
        assert all(end == 0 for _, end in f.seen.sizes("rb"))
        assert f.seen.events()[-3:] == ["rt", "sh", "sb"]


@pytest.mark.parametrize("ret", [1, 2, 3])
def test_request_headers_only_pause_with_the_body_paused_at_its_end(headers_only, ret):
    p = headers_only
    with p.open(("rh", "ret 1"), ("rb", f"ret {ret}")) as f:
        f.data(b"hello")
        f.seen.wait("rb", 1)
        f.end()
        f.seen.wait("rb", 2)
        f.nothing_upstream()
        assert f.seen.sizes("rb") == [(5, 0), (5 if ret == 1 else 0, 1)]
        f.release()
        f.response()
        assert b"".join(p.up.wait(f.path).got) == (b"" if ret == 3 else b"hello")


def test_request_headers_can_be_edited_from_the_body_callback(headers_only):
    p = headers_only
    r, seen = p.send(("rh", "ret 1"), ("rb", op("set", REQ, "x-from-body", "yes")), method="POST", body=b"hello")
    assert r.status == 200
    assert p.up.find(f"/{seen.tag}").header("x-from-body") == "yes"


def test_request_headers_only_without_a_body_callback_is_all(make):
    p = make(HEADERS_ONLY, ("NO_RB", "NO_SB"))
    with p.open(("rh", "ret 1")) as f:
        f.seen.wait("rh")
        f.data(b"hello").end({"x-t": "v"})
        f.nothing_upstream()
        assert f.seen.events() == ["rh"]
        f.release()
        f.response()
        x = p.up.wait(f.path)
        assert b"".join(x.got) == b"hello" and x.trailers == [("x-t", "v")]
        f.seen.wait_end()
        assert f.seen.events() == ["rh", "rt", "sh"]


def test_request_headers_only_without_a_body_callback_with_the_end(make):
    p = make(HEADERS_ONLY, ("NO_RB", "NO_SB"))
    with p.open(("rh", "ret 1"), method="GET") as f:
        f.seen.wait("rh")
        f.nothing_upstream()
        f.release()
        f.response()


@pytest.mark.parametrize("ret", [0, 1, 2, 3, 4])
def test_local_reply_in_request_headers(either, ret):
    p = either
    with p.open(("rh", op("reply", 418, "tea time", "no coffee", -1, "x-why", "tea"), f"ret {ret}")) as f:
        r = f.response(418)
        assert r.body == b"no coffee" and r.header("x-why") == "tea"
        f.seen.wait_end()
        assert f.upstream() is None
        assert f.seen.events() == ["rh", "sh", "sb"]  # its own response callbacks, and no more of the request
        assert f.seen.sizes("sb") == [(9, 1)]


# ---- 1.1 response headers ----

@pytest.mark.parametrize("ret", [0, 2])
def test_response_headers_continue(either, ret):
    with Answer(either, ("sh", f"ret {ret}")) as a:
        a.up.head(200, {"x-a": "b"})
        assert a.head().get("x-a") == "b"
        assert a.seen.wait("sh")["end"] == "0"
        a.up.data(b"hello")
        assert a.conn.chunk() == b"hello"
        a.up.data(b"world!")
        assert a.conn.chunk() == b"world!"
        a.up.end({"x-t": "v"})
        assert a.conn.chunk() == b"" and a.conn.trailer_fields() == [("x-t", "v")]
        a.seen.wait_end()
        assert a.seen.sizes("sb") == [(5, 0), (6, 0)]
        assert a.seen.events() == ["rh", "sh", "sb", "sb", "st"]


@pytest.mark.parametrize("ret", [0, 2])
def test_response_headers_continue_with_the_end(either, ret):
    with Answer(either, ("sh", f"ret {ret}")) as a:
        a.up.head(204, chunked=False).done()
        a.response(204)
        a.seen.wait_end()
        assert a.seen.of("sh")["end"] == "1" and a.seen.events() == ["rh", "sh"]


@pytest.mark.parametrize("trailers", [False, True], ids=["body", "trailers"])
@pytest.mark.parametrize("meaning,ret", PAUSES)
def test_response_headers_pause_all(make, meaning, ret, trailers):
    p = make(HEADERS_ONLY if meaning == "headers" else None)
    with Answer(p, ("sh", f"ret {ret}")) as a:
        a.up.head().data(b"hello").data(b"world").end({"x-t": "v"} if trailers else None)
        a.seen.wait("sh")
        a.nothing_here()
        assert a.seen.events() == ["rh", "sh"]
        a.release()
        r = a.response()
        assert r.body == b"helloworld" and r.trailers == ([("x-t", "v")] if trailers else [])
        a.seen.wait_end()
        assert a.seen.sizes("sb") == [(10, 0 if trailers else 1)]
        assert a.seen.events() == ["rh", "sh", "sb"] + (["st"] if trailers else [])


@pytest.mark.parametrize("meaning,ret", PAUSES + [("headers", 1)])
def test_response_headers_pause_with_the_end(make, meaning, ret):
    p = make(HEADERS_ONLY if meaning == "headers" else None)
    with Answer(p, ("sh", f"ret {ret}")) as a:
        a.up.head(204, chunked=False).done()
        a.seen.wait("sh")
        a.nothing_here()
        a.release()
        a.response(204)
        a.seen.wait_end()
        assert a.seen.events() == ["rh", "sh"]


@pytest.mark.parametrize("ret", [1, 4])
def test_response_headers_pause_all_is_back_pressure(small, ret):
    body = bytes(range(256)) * (16 * KIB)  # 4 MiB: more than sockets hold
    with Answer(small, ("sh", f"ret {ret}")) as a:
        a.up.head(200, {"content-length": len(body)}, chunked=False)
        a.seen.wait("sh")
        done = threading.Event()
        a.up.steps.put(("raw", (body,), done))
        a.nothing_here()
        a.release()
        assert a.response().body == body
        a.up.done()
        a.seen.wait_end()
        assert 0 <= a.seen.sizes("sb")[0][0] <= 16 * KIB + 128 * KIB


@pytest.mark.parametrize("annotations", [None, HEADERS_ONLY], ids=["all", "headers"])
def test_response_headers_pause_and_buffer_over_the_limit(make, annotations):
    p = make(annotations, limits=SMALL)
    with Answer(p, ("sh", "ret 3")) as a:
        a.up.head(200, {"content-length": 64 * KIB}, chunked=False)
        a.seen.wait("sh")
        a.up.raw(b"x" * 64 * KIB)
        a.response(500)
        a.seen.wait_end()
        assert "sb" not in a.seen.events()
        p.g.wait_access(f"500 response_payload_too_large {a.path}")


@pytest.mark.parametrize("trailers", [False, True], ids=["body", "trailers"])
def test_response_headers_only_pause_is_released_by_the_body_callback(headers_only, trailers):
    with Answer(headers_only, ("sh", "ret 1"), ("sb.1", "ret 1"), ("sb.2", op("set", RESP, "x-len", "10"))) as a:
        a.up.head().data(b"hello")
        a.seen.wait("sb", 1)
        a.nothing_here()
        a.up.data(b"world")
        assert a.head().get("x-len") == "10"
        assert a.conn.chunk() == b"helloworld"
        a.up.end({"x-t": "v"} if trailers else None)
        assert a.conn.chunk() == b""
        a.seen.wait_end()
        assert a.seen.sizes("sb")[:2] == [(5, 0), (10, 0)]
        assert ("st" in a.seen.events()) == trailers


def test_response_headers_only_pause_is_released_by_continue(headers_only):
    with Answer(headers_only, ("sh", "ret 1"), ("sb.1", "ret 1")) as a:
        a.up.head().data(b"hello")
        a.seen.wait("sb", 1)
        a.nothing_here()
        a.release()
        a.head()
        assert a.conn.chunk() == b"hello"
        a.up.data(b"more")
        assert a.conn.chunk() == b"more"
        a.up.end()
        a.seen.wait_end()
        assert a.seen.sizes("sb")[:2] == [(5, 0), (4, 0)]


def test_response_headers_only_pause_is_released_by_the_trailers_callback(headers_only):
    with Answer(headers_only, ("sh", "ret 1"), ("sb", "ret 1")) as a:
        a.up.head().data(b"hello")
        a.seen.wait("sb", 1)
        a.nothing_here()
        a.up.end({"x-t": "v"})
        r = a.response()
        assert r.body == b"hello" and r.trailers == [("x-t", "v")]
        a.seen.wait_end()
        assert a.seen.events() == ["rh", "sh", "sb", "st"]


def test_response_headers_only_without_a_body_callback_is_all(make):
    p = make(HEADERS_ONLY, ("NO_RB", "NO_SB"))
    with Answer(p, ("sh", "ret 1")) as a:
        a.up.head().data(b"hello").end({"x-t": "v"})
        a.seen.wait("sh")
        a.nothing_here()
        assert a.seen.events() == ["rh", "sh"]
        a.release()
        r = a.response()
        assert r.body == b"hello" and r.trailers == [("x-t", "v")]
        a.seen.wait_end()
        assert a.seen.events() == ["rh", "sh", "st"]


# ---- 1.2 request body ----

def test_request_body_ends_with_an_empty_chunk(all_):
    with all_.open(("rb", "ret 0")) as f:
        f.data(b"hello")
        f.seen.wait("rb", 1)
        f.end()
        f.response()
        f.seen.wait_end()
        assert f.seen.sizes("rb") == [(5, 0), (0, 1)]


@pytest.mark.parametrize("ret", [1, 2])
def test_request_body_is_buffered(all_, ret):
    with all_.open(("rb.1", f"ret {ret}"), ("rb.2", f"ret {ret}"), ("rb.3", "ret 0")) as f:
        f.data(b"one")
        f.seen.wait("rb", 1)
        all_.up.wait(f.path, complete=False)  # the head is on its way
        f.body_upstream(b"")
        f.data(b"three")
        f.seen.wait("rb", 2)
        f.body_upstream(b"")
        f.data(b"seven..")
        f.seen.wait("rb", 3)
        f.body_upstream(b"onethreeseven..")
        f.data(b"last")
        f.seen.wait("rb", 4)
        f.body_upstream(b"onethreeseven..last")
        f.end()
        f.response()
        f.seen.wait_end()
        assert f.seen.sizes("rb") == [(3, 0), *([(8, 0), (15, 0)] if ret == 1 else [(5, 0), (7, 0)]), (4, 0), (0, 1)]


@pytest.mark.parametrize("ret", [1, 2])
def test_request_body_is_held_with_its_end_until_continue(all_, ret):
    with all_.open(("rb", f"ret {ret}")) as f:
        f.data(b"hello")
        f.seen.wait("rb", 1)
        f.end()
        f.seen.wait("rb", 2)
        f.body_upstream(b"")
        shown = [(5, 0), (5 if ret == 1 else 0, 1)]
        assert f.seen.sizes("rb") == shown
        f.release()
        f.response()
        f.seen.wait_end()
        assert b"".join(all_.up.wait(f.path).got) == b"hello"
        assert f.seen.sizes("rb") == shown  # not shown again


@pytest.mark.parametrize("ret", [1, 2])
def test_request_body_continue_in_the_middle(all_, ret):
    with all_.open(("rb.1", f"ret {ret}")) as f:
        f.data(b"hello")
        f.seen.wait("rb", 1)
        f.body_upstream(b"")
        f.release()
        f.body_upstream(b"hello")
        f.data(b"more").end()
        f.response()
        f.seen.wait_end()
        assert f.seen.sizes("rb")[1][0] == 4


def test_request_body_buffered_over_the_limit(small):
    with small.open(("rb", "ret 1"), chunked=False, headers={"content-length": 64 * KIB}) as f:
        f.conn.send(b"x" * 64 * KIB)
        f.response(413)
        small.g.wait_access(f"413 request_payload_too_large {f.path}")
        f.seen.wait_end()
        assert all(n <= 64 * KIB for n, _ in f.seen.sizes("rb"))
        assert f.seen.events()[-1] == "sb"  # the reply passed the response callbacks


def test_request_body_watermark_is_back_pressure(small):
    body = b"0123456789abcdef" * (64 * KIB)  # 1 MiB
    with small.open(("rb", "ret 2")) as f:
        sender = threading.Thread(target=lambda: f.data(body).end(), daemon=True)
        sender.start()
        f.seen.wait("rb", 1)
        wait_until(lambda: _unread_by_weir(f.conn) > 0, "the client to be held back")
        f.body_upstream(b"")
        # Every callback holds again, so that each continue lets one limit's worth pass.
        while sum(len(g) for g in f.upstream().got) < len(body) or not f.upstream().complete:
            f.release()
            small.barrier()
        f.response()
        sender.join()
        assert b"".join(small.up.wait(f.path).got) == body
        assert max(n for n, _ in f.seen.sizes("rb")) <= 16 * KIB + 128 * KIB


@pytest.mark.parametrize("ret", [3, 4, 9])
def test_request_body_not_buffered_is_consumed(all_, ret):
    with all_.open(("rb.1", f"ret {ret}"), ("rb.2", "ret 0"), ("rb.3", f"ret {ret}")) as f:
        f.data(b"gone")
        f.seen.wait("rb", 1)
        f.data(b"stays")
        f.seen.wait("rb", 2)
        f.body_upstream(b"stays")
        f.data(b"gone too")
        f.seen.wait("rb", 3)
        f.body_upstream(b"stays")
        f.end()
        f.response()
        f.seen.wait_end()
        assert f.seen.sizes("rb") == [(4, 0), (5, 0), (8, 0), (0, 1)]


@pytest.mark.parametrize("ret", [3, 4])
def test_request_body_not_buffered_end_is_held(all_, ret):
    with all_.open(("rb", f"ret {ret}")) as f:
        f.data(b"gone")
        f.seen.wait("rb", 1)
        f.end()
        f.seen.wait("rb", 2)
        f.body_upstream(b"")
        assert not all_.up.find(f.path).complete
        f.release()
        f.response()
        assert b"".join(all_.up.wait(f.path).got) == b""


def test_request_body_not_buffered_keeps_what_was_held(all_):
    """After 1 the new chunk is shown behind what is held, and is held with it whatever the answer; after 3 it is alone."""
    with all_.open(("rb.1", "ret 1"), ("rb.2", "ret 3"), ("rb.3", "ret 3"), ("rb.4", "ret 0")) as f:
        f.data(b"keep,")
        f.seen.wait("rb", 1)
        f.data(b"too,")
        assert f.seen.wait("rb", 2)["size"] == "9"
        f.body_upstream(b"")
        f.data(b"drop,")
        assert f.seen.wait("rb", 3)["size"] == "5"
        f.data(b"end")
        assert f.seen.wait("rb", 4)["size"] == "3"
        f.body_upstream(b"keep,too,end")
        f.end()
        f.response()


@pytest.mark.parametrize("ret", [0, 1, 2, 3])
def test_local_reply_in_request_body(all_, ret):
    with all_.open(("rh", "ret 1"), ("rb", op("reply", 403, "body_refused", "refused", -1), f"ret {ret}")) as f:
        f.seen.wait("rh")
        f.data(b"hello").end()
        f.nothing_upstream()
        f.release()
        assert f.response(403).body == b"refused"
        f.seen.wait_end()
        assert f.seen.events() == ["rh", "rb", "sh", "sb"]
        all_.g.wait_access("/" + f.tag)


# ---- 1.2 response body ----

@pytest.mark.parametrize("ret", [1, 2])
def test_response_body_is_buffered(all_, ret):
    with Answer(all_, ("sb.1", f"ret {ret}"), ("sb.2", f"ret {ret}"), ("sb.3", "ret 0")) as a:
        a.up.head()
        a.head()
        a.up.data(b"one")
        a.seen.wait("sb", 1)
        a.nothing_here()
        a.up.data(b"three")
        a.seen.wait("sb", 2)
        a.nothing_here()
        a.up.data(b"seven..")
        assert a.conn.chunk() == b"onethreeseven.."
        a.up.data(b"last")
        assert a.conn.chunk() == b"last"
        a.up.end()
        assert a.conn.chunk() == b""
        a.seen.wait_end()
        assert a.seen.sizes("sb") == [(3, 0), *([(8, 0), (15, 0)] if ret == 1 else [(5, 0), (7, 0)]), (4, 0), (0, 1)]


@pytest.mark.parametrize("ret", [1, 2])
def test_response_body_is_held_with_its_end_until_continue(all_, ret):
    with Answer(all_, ("sb", f"ret {ret}")) as a:
        a.up.head().data(b"hello")
        a.seen.wait("sb", 1)
        a.up.end()
        a.seen.wait("sb", 2)
        a.head()
        a.nothing_here()
        a.release()
        assert a.conn.chunk() == b"hello" and a.conn.chunk() == b""
        a.seen.wait_end()
        assert a.seen.sizes("sb") == [(5, 0), (5 if ret == 1 else 0, 1)]


def test_response_body_buffered_over_the_limit(small):
    """The head is out: the stream is reset, and no client takes what came for the whole."""
    with Answer(small, ("sb", "ret 1")) as a:
        a.up.head()
        a.head()
        a.up.data(b"x" * 64 * KIB)
        assert a.conn.wait_closed() == b""
        a.seen.wait_end()
        small.g.wait_access(f"200 response_payload_too_large {a.path}")


def test_response_body_buffered_over_the_limit_with_a_length(small):
    """A head with a length waits for the body's first bytes when a filter may change it: it is not out yet."""
    with Answer(small, ("sb", "ret 1")) as a:
        a.up.head(200, {"content-length": 64 * KIB}, chunked=False).raw(b"x" * 64 * KIB)
        a.response(500)
        a.seen.wait_end()
        small.g.wait_access(f"500 response_payload_too_large {a.path}")


def test_response_body_buffered_over_the_limit_with_the_head_held(make):
    p = make(HEADERS_ONLY, limits=SMALL)
    with Answer(p, ("sh", "ret 1"), ("sb", "ret 1")) as a:
        a.up.head(200, {"content-length": 64 * KIB}, chunked=False)
        a.up.raw(b"x" * 64 * KIB)
        a.response(500)
        p.g.wait_access(f"500 response_payload_too_large {a.path}")


def test_response_body_watermark_is_back_pressure(small):
    body = b"0123456789abcdef" * (256 * KIB)  # 4 MiB: more than sockets hold
    with Answer(small, ("sb", "ret 2")) as a:
        a.up.head()
        a.head()
        a.up.steps.put(("raw", (b"%x\r\n%s\r\n" % (len(body), body),), threading.Event()))
        a.seen.wait("sb", 1)
        a.nothing_here()
        got = b""

        def read():
            nonlocal got
            while len(got) < len(body):
                got += a.conn.chunk()
        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        while reader.is_alive():
            a.release()
            small.barrier()
        assert got == body
        a.up.end()
        a.seen.wait("sb", len(a.seen.sizes("sb")))
        a.release()
        assert max(n for n, _ in a.seen.sizes("sb")) <= 16 * KIB + 128 * KIB


@pytest.mark.parametrize("ret", [3, 4])
def test_response_body_not_buffered_is_consumed(all_, ret):
    with Answer(all_, ("sb.1", f"ret {ret}"), ("sb.3", f"ret {ret}"), ("sb.4", f"ret {ret}")) as a:
        a.up.head().data(b"gone")
        a.seen.wait("sb", 1)
        a.up.data(b"stays")
        a.head()
        assert a.conn.chunk() == b"stays"
        a.up.data(b"gone too")
        a.seen.wait("sb", 3)
        a.up.end()
        a.seen.wait("sb", 4)
        a.nothing_here()
        a.release()
        assert a.conn.chunk() == b""
        a.seen.wait_end()
        assert a.seen.sizes("sb") == [(4, 0), (5, 0), (8, 0), (0, 1)]


def test_response_body_not_buffered_keeps_what_was_held(all_):
    with Answer(all_, ("sb.1", "ret 1"), ("sb.2", "ret 3"), ("sb.3", "ret 3")) as a:
        a.up.head().data(b"keep,")
        a.seen.wait("sb", 1)
        a.up.data(b"too,")
        assert a.seen.wait("sb", 2)["size"] == "9"
        a.head()
        a.nothing_here()
        a.up.data(b"drop,")
        assert a.seen.wait("sb", 3)["size"] == "5"
        a.up.data(b"end")
        assert a.conn.chunk() == b"keep,too,end"
        a.up.end()


@pytest.mark.parametrize("ret", [0, 1, 2, 3])
def test_local_reply_in_response_body_before_the_head(headers_only, ret):
    """The reply goes to the client as it is, without callbacks."""
    with Answer(headers_only, ("sh", "ret 1"), ("sb", op("reply", 502, "bad_answer", "bad", -1), f"ret {ret}")) as a:
        a.up.head().data(b"secret")
        assert a.response(502).body == b"bad"
        a.seen.wait_end()
        assert a.seen.events() == ["rh", "sh", "sb"]


def test_local_reply_in_response_body_after_the_head_is_a_reset(all_):
    with Answer(all_, ("sb", op("reply", 502, "bad_answer", "bad", -1))) as a:
        a.up.head()
        a.head()
        a.up.data(b"secret")
        assert a.conn.wait_closed() == b""
        a.seen.wait_end()


# ---- 1.3 trailers ----

@pytest.mark.parametrize("ret", [1, 2])
def test_request_trailers_pause(either, ret):
    with either.open(("rt", f"ret {ret}")) as f:
        f.data(b"hello")
        f.seen.wait("rb", 1)
        f.end({"x-t": "v"})
        assert f.seen.wait("rt")["n"] == "1"
        f.body_upstream(b"hello")
        assert not either.up.find(f.path).complete
        f.release()
        f.response()
        assert either.up.wait(f.path).trailers == [("x-t", "v")]


@pytest.mark.parametrize("ret", [1, 2])
def test_request_trailers_pause_holds_all_that_is_held(headers_only, ret):
    with headers_only.open(("rh", "ret 1"), ("rb", "ret 1"), ("rt", op("set", REQ, "x-late", "1"), f"ret {ret}")) as f:
        f.data(b"hello")
        f.seen.wait("rb", 1)
        f.end({"x-t": "v"})
        f.seen.wait("rt")
        f.nothing_upstream()
        f.release()
        f.response()
        x = headers_only.up.wait(f.path)
        assert x.header("x-late") == "1" and b"".join(x.got) == b"hello" and x.trailers == [("x-t", "v")]


def test_request_trailers_callback_runs_while_the_body_is_held(all_):
    with all_.open(("rb", "ret 1")) as f:
        f.data(b"hello")
        f.seen.wait("rb", 1)
        f.body_upstream(b"")
        f.end({"x-t": "v"})
        f.response()
        x = all_.up.wait(f.path)
        assert b"".join(x.got) == b"hello" and x.trailers == [("x-t", "v")]


@pytest.mark.parametrize("ret", [0, 1])
def test_local_reply_in_request_trailers(headers_only, ret):
    with headers_only.open(("rh", "ret 1"), ("rb", "ret 1"), ("rt", op("reply", 403, "d", "no", -1), f"ret {ret}")) as f:
        f.data(b"hello").end({"x-t": "v"})
        assert f.response(403).body == b"no"
        f.seen.wait_end()
        assert f.upstream() is None
        assert f.seen.events()[-3:] == ["rt", "sh", "sb"]


@pytest.mark.parametrize("ret", [1, 2])
def test_response_trailers_pause(either, ret):
    with Answer(either, ("st", f"ret {ret}")) as a:
        a.up.head().data(b"hello").end({"x-t": "v"})
        a.head()
        assert a.conn.chunk() == b"hello"
        a.seen.wait("st")
        a.nothing_here()
        a.release()
        assert a.conn.chunk() == b"" and a.conn.trailer_fields() == [("x-t", "v")]


def test_response_trailers_pause_holds_all_that_is_held(headers_only):
    with Answer(headers_only, ("sh", "ret 1"), ("sb", "ret 1"), ("st", op("set", RESP, "x-late", "1"), "ret 1")) as a:
        a.up.head().data(b"hello").end({"x-t": "v"})
        a.seen.wait("st")
        a.nothing_here()
        a.release()
        r = a.response()
        assert r.header("x-late") == "1" and r.body == b"hello" and r.trailers == [("x-t", "v")]


def test_local_reply_in_response_trailers(headers_only):
    with Answer(headers_only, ("sh", "ret 1"), ("sb", "ret 1"), ("st", op("reply", 502, "d", "no", -1))) as a:
        a.up.head().data(b"secret").end({"x-t": "v"})
        assert a.response(502).body == b"no"
        a.seen.wait_end()
        assert a.seen.events() == ["rh", "sh", "sb", "st"]


def test_local_reply_in_response_headers(either):
    with Answer(either, ("sh", op("reply", 502, "d", "no", -1))) as a:
        a.up.head().data(b"secret").end()
        assert a.response(502).body == b"no"
        a.seen.wait_end()
        assert a.seen.events() == ["rh", "sh"]


# ---- 1.4 rules that cut across ----

@pytest.mark.parametrize("out", ["NO_RH", "NO_RB", "NO_RT", "NO_SH", "NO_SB", "NO_ST"])
def test_a_callback_that_is_not_exported(make, out):
    p = make(None, (out,))
    path = "/" + out
    up = p.up.hold(path)
    with Conn(p.g.port) as c:
        c.request("POST", path, {"transfer-encoding": "chunked", "x-tag": out})
        c.send("5\r\nhello\r\n0\r\nx-t: v\r\n\r\n")
        x = p.up.wait(path)
        assert b"".join(x.got) == b"hello" and x.trailers == [("x-t", "v")]
        up.head().data(b"answer").end({"x-t": "w"})
        r = c.response("POST")
        assert r.status == 200 and r.body == b"answer" and r.trailers == [("x-t", "w")]
    wanted = [e for e in ("rh", "rb", "rt", "sh", "sb", "st") if e != out[3:].lower()]

    def events():
        got = []
        for line in p.g.log_text().splitlines():
            if " T " in line and " id=" in line and f"{out} " in line:
                got.append(line.split(" T ")[1].split(" ")[1].split(".")[0])
        return got
    wait = p.g.wait(lambda: "del" in events() and events(), "the stream to end")
    seen = [e for e in dict.fromkeys(wait) if e in ("rh", "rb", "rt", "sh", "sb", "st")]
    # Without rh the tag is read with the response headers.
    assert seen == wanted if out != "NO_RH" else [e for e in seen if e[0] == "s"] == ["sh", "sb", "st"]


@pytest.mark.parametrize("event,ret", [("rh", 1), ("rh", 3), ("rh", 4), ("rb", 1), ("rb", 2), ("rt", 1)])
def test_continue_inside_the_request_callback(either, event, ret):
    with either.open((event, "cont 0", f"ret {ret}")) as f:
        f.data(b"hello").end({"x-t": "v"})
        f.response()
        x = either.up.wait(f.path)
        assert b"".join(x.got) == b"hello" and x.trailers == [("x-t", "v")]


@pytest.mark.parametrize("event,ret", [("sh", 1), ("sh", 3), ("sh", 4), ("sb", 1), ("sb", 2), ("st", 1)])
def test_continue_inside_the_response_callback(either, event, ret):
    with Answer(either, (event, "cont 1", f"ret {ret}")) as a:
        a.up.head().data(b"hello").end({"x-t": "v"})
        r = a.response()
        assert r.body == b"hello" and r.trailers == [("x-t", "v")]


def test_continue_for_the_other_direction_is_no_answer(all_):
    with all_.open(("rh", "cont 1", "ret 1"), method="GET") as f:
        f.seen.wait("rh")
        f.nothing_upstream()
        f.release()
        f.response()


def test_continue_when_nothing_is_paused(all_):
    """It is not kept for a later pause."""
    with all_.open(("rh", "ret 0"), ("rb", "ret 1")) as f:
        f.seen.wait("rh")
        f.release()
        f.data(b"hello")
        f.seen.wait("rb", 1)
        f.body_upstream(b"")
        f.release()
        f.body_upstream(b"hello")
        f.end()
        f.seen.wait("rb", 2)
        f.release()
        f.response()


def test_continue_after_a_local_reply(all_):
    with all_.open(("rh", op("reply", 403, "d", "no", -1), "cont 0", "cont 1", "ret 0"), method="GET") as f:
        assert f.response(403).body == b"no"
        f.seen.wait_end()
        assert f.upstream() is None


def test_a_second_local_reply_is_nothing(all_):
    with all_.open(("rh", op("reply", 401, "first", "one", -1), op("reply", 402, "second", "two", -1)),
                   ("sh", op("reply", 403, "third", "three", -1)), ("sb", op("reply", 404, "fourth", "four", -1)), method="GET") as f:
        assert f.response(401).body == b"one"
        f.seen.wait_end()
        assert f.seen.events() == ["rh", "sh", "sb"]


def test_continue_from_a_tick(make):
    p = make()
    with p.open(("rh", op("tick", 20), "ret 1"), ("tick.3", "cont 0"), method="GET") as f:
        f.response()
        f.seen.wait_end()
    p.send(("rh", op("tick", 0)))


def test_continue_response_from_a_tick(make):
    p = make()
    with Answer(p, ("rh", op("tick", 20)), ("sh", "ret 1"), ("tick", "cont 1")) as a:
        a.up.head().data(b"hello").end()
        assert a.response().body == b"hello"
    p.send(("rh", op("tick", 0)))


def test_reply_from_a_tick(make):
    p = make()
    with p.open(("rh", op("tick", 20), "ret 1"), ("tick.2", op("reply", 429, "d", "late", -1)), method="GET") as f:
        assert f.response(429).body == b"late"
        f.seen.wait_end()
        assert f.seen.events() == ["rh", "sh", "sb"] and f.upstream() is None
    p.send(("rh", op("tick", 0)))


def test_continue_from_a_callout_answer(all_):
    with all_.open(("rh", op("call", "backend.istio-system.svc.cluster.local:80", "/callout", 5000, ""), "ret 1"), ("cr", "cont 0"),
                   method="GET") as f:
        f.response()
        f.seen.wait_end()
        assert f.seen.of("cr", word="answer")["n"] != "0"


def test_reply_from_a_callout_answer(all_):
    with all_.open(("rh", op("call", "backend.istio-system.svc.cluster.local:80", "/callout", 5000, ""), "ret 1"),
                   ("cr", op("reply", 401, "d", "who", -1)), method="GET") as f:
        assert f.response(401).body == b"who"
        f.seen.wait_end()
        assert f.upstream() is None and f.seen.events() == ["rh", "cr", "sh", "sb"]


@pytest.mark.parametrize("event", ["rh", "rb", "rt"])
@pytest.mark.parametrize("stream", [0, 1])
def test_close_in_a_request_callback(either, event, stream):
    with either.open((event, f"close {stream}", "ret 0")) as f:
        f.data(b"hello").end({"x-t": "v"})
        assert f.conn.wait_closed() == b""
        f.seen.wait_end()
        assert f.seen.events()[-1] == event


@pytest.mark.parametrize("event", ["sh", "sb", "st"])
def test_close_in_a_response_callback(all_, event):
    with Answer(all_, (event, "close 1")) as a:
        a.up.head().data(b"hello").end({"x-t": "v"})
        got = a.conn.wait_closed()
        assert b"0\r\n" not in got
        if event == "sh":
            assert got == b""
        a.seen.wait_end()
        assert a.seen.events()[-1] == event


def test_close_with_a_paused_stream_from_elsewhere(all_):
    with all_.open(("rh", "ret 1"), method="GET") as f:
        f.seen.wait("rh")
        all_.send(("rh", f"eff {f.id()}", "close 0"))
        assert f.conn.wait_closed() == b""
        f.seen.wait_end()
        assert f.upstream() is None


def test_interim_responses_are_never_shown(all_):
    with Answer(all_) as a:
        a.up.interim(103, {"link": "</a>"}).head().data(b"x").end()
        r = a.response()
        assert [h.start_line.split(" ")[1] for h in r.interim] == ["103"]
        a.seen.wait_end()
        assert a.seen.events().count("sh") == 1


def test_request_trailers_are_created(all_):
    with all_.open(("rb.2", op("add", REQ_T, "x-made", "1"))) as f:
        f.data(b"hello")
        f.seen.wait("rb", 1)
        f.end()
        f.response()
        assert all_.up.wait(f.path).trailers == [("x-made", "1")]
        f.seen.wait_end()
        assert f.seen.sizes("rb") == [(5, 0), (0, 1)]


def test_request_trailers_cannot_be_created_before_the_end(all_):
    with all_.open(("rh", op("add", REQ_T, "x-early", "1")), ("rb.1", op("add", REQ_T, "x-early", "2"))) as f:
        f.data(b"hello")
        f.seen.wait("rb", 1)
        f.end()
        f.response()
        assert all_.up.wait(f.path).trailers == []


def test_response_trailers_are_created(all_):
    with Answer(all_, ("sb.2", op("add", RESP_T, "x-made", "1"))) as a:
        a.up.head().data(b"hello")
        a.head()
        assert a.conn.chunk() == b"hello"
        a.up.end()
        assert a.conn.chunk() == b"" and a.conn.trailer_fields() == [("x-made", "1")]


def test_trailers_created_while_the_body_is_held(all_):
    with all_.open(("rb.1", "ret 1"), ("rb.2", op("add", REQ_T, "x-made", "1"), "ret 1")) as f:
        f.data(b"hello")
        f.seen.wait("rb", 1)
        f.end()
        f.seen.wait("rb", 2)
        f.body_upstream(b"")
        f.release()
        f.response()
        x = all_.up.wait(f.path)
        assert b"".join(x.got) == b"hello" and x.trailers == [("x-made", "1")]


def test_end_of_the_stream_is_log_done_delete(all_):
    r, seen = all_.send(("rh", "ret 0"), method="POST", body=b"x")
    assert r.status == 200
    seen.wait_end()
    assert seen.lifecycle() == ["rh", "rb", "sh", "sb", "log", "done", "del"]


@pytest.mark.parametrize("where", ["rh", "rb", "sh", "sb"])
def test_client_loss_while_paused_ends_the_stream(all_, where):
    if where[0] == "r":
        with all_.open((where, "ret 1")) as f:
            f.data(b"hello")
            f.seen.wait(where)
        f.seen.wait_end()
        assert f.seen.lifecycle()[-3:] == ["log", "done", "del"]
    else:
        with Answer(all_, (where, "ret 1")) as a:
            a.up.head().data(b"hello")
            a.seen.wait(where)
            a.conn.close(reset=True)  # a FIN after a whole request may be a half-close
            a.seen.wait_end()


def test_upstream_loss_while_the_response_is_paused(all_):
    with Answer(all_, ("sh", "ret 1")) as a:
        a.up.head().data(b"hello")
        a.seen.wait("sh")
        a.up.close()
        a.response(503)
        a.seen.wait_end()


# ---- two plugins: the order, and who sees a reply ----

@pytest.fixture(scope="module")
def pair(module_gateway, module_upstream, variants):
    up = StepUpstream(module_upstream)
    wasm = variants.puppet()
    g = module_gateway(up, workers=1, extra=[
        puppet_plugin(wasm, name="first", phase="AUTHN", statements=[("rh", op("get", REQ, "x-first"))]),
        puppet_plugin(wasm, name="second", phase="AUTHZ")])
    return Puppet(g, up)


def _order(p, tag, want="del"):
    from weirtest.plugins import traces
    p.g.wait(lambda: sum(t.event == want and t.text.startswith("id=") for t in traces(p.g, tag)) >= 2, "both plugins to end")
    return [(t.plugin, t.event) for t in traces(p.g, tag) if t.text.startswith("id=") and t.event not in ("done", "del")]


def test_response_callbacks_run_in_reverse(pair):
    r, seen = pair.send(("x", "ret 0"), method="POST", body=b"hello")
    assert r.status == 200
    got = [o for o in _order(pair, seen.tag) if o[1] != "log"]
    assert got == [("first", "rh"), ("second", "rh"), ("first", "rb"), ("second", "rb"),
                   ("second", "sh"), ("first", "sh"), ("second", "sb"), ("first", "sb")] or \
        got == [("first", "rh"), ("first", "rb"), ("second", "rh"), ("second", "rb"),
                ("second", "sh"), ("first", "sh"), ("second", "sb"), ("first", "sb")]


@pytest.fixture(scope="module")
def repliers(module_gateway, module_upstream, variants):
    """x-do speaks to both, so who replies is said in pluginConfig: by an event number that only one of them reaches."""
    up = StepUpstream(module_upstream)
    made = {}

    def get(who):
        if who not in made:
            reply = [("rh", op("reply", 403, "d", who, -1))]
            g = module_gateway(up, workers=1, extra=[
                puppet_plugin(variants.puppet(), name=n, phase=phase, statements=reply if n == who else None)
                for n, phase in (("first", "AUTHN"), ("second", "AUTHZ"), ("third", "STATS"))])
            made[who] = Puppet(g, up)
        return made[who]
    return get


@pytest.mark.parametrize("who,ran", [("first", ["first"]), ("second", ["first", "second"]), ("third", ["first", "second", "third"])])
def test_a_reply_passes_the_filters_whose_request_callback_ran(repliers, who, ran):
    from weirtest.plugins import traces
    p = repliers(who)
    r, seen = p.send(("x", "ret 0"))
    assert r.status == 403 and r.body == who.encode()
    p.g.wait(lambda: sum(t.event == "log" for t in traces(p.g, seen.tag)) == 3, "on_log of all three")
    got = [(t.plugin, t.event) for t in traces(p.g, seen.tag) if t.text.startswith("id=")]
    assert [o for o in got if o[1] == "rh"] == [(n, "rh") for n in ran]
    assert [o for o in got if o[1] == "sh"] == [(n, "sh") for n in reversed(ran)]
    assert [o for o in got if o[1] == "sb"] == [(n, "sb") for n in reversed(ran)]


def test_two_filters_that_pause_one_after_the_other(pair):
    """Both hold the headers; each lets go for itself."""
    from weirtest.plugins import traces
    with pair.open(("rh", "ret 1")) as f:
        f.seen.wait("rh")
        f.data(b"hello").end()
        f.nothing_upstream()

        def ids(plugin):
            return [t.text.split("id=")[1].split()[0] for t in traces(pair.g, f.tag, plugin) if t.event == "rh" and t.text.startswith("id=")]
        assert ids("first") and not ids("second")
        # The control request passes both VMs; ids are of one VM each, and the other VM has none like it or the same stream.
        for plugin in ("first", "second"):
            pair.g.wait(lambda: ids(plugin), f"{plugin} to be asked")
            if plugin == "second":
                f.nothing_upstream()
            pair.send(("rh", f"eff {ids(plugin)[0]}", "cont 0"))
        f.response()
        assert pair.up.body(f.path) == b"hello"


# ---- writes of buffers while held ----

def test_body_held_by_headers_is_not_to_be_seen(all_):
    """While `all` holds, nothing has been shown: get_buffer_bytes from another context sees what waits or nothing, never a crash."""
    with all_.open(("rh", "ret 1")) as f:
        f.seen.wait("rh")
        f.data(b"hello")
        all_.barrier()
        r, seen = all_.send(("rh", f"eff {f.id()}", op("buf", 0, 0, 100)))
        assert r.status == 200 and seen.wait("rh", word="buf")
        f.release()
        f.end()
        f.response()


def test_request_pseudo_headers_and_counts(all_):
    r, seen = all_.send(("rh", op("pairs", REQ)), ("sh", op("pairs", RESP)))
    seen.wait_end()
    pairs = seen.texts("pairs")
    assert f"[:path=/{seen.tag}]" in pairs[0] and "[:method=GET]" in pairs[0] and "[:authority=test.example]" in pairs[0]
    assert "[:scheme=http]" in pairs[0] and "[host=" not in pairs[0]
    assert "[:status=200]" in pairs[1]
    assert seen.of("rh")["n"] == seen.ops("pairs")[0]["n"]


def test_pause_limit_ends_the_stream(gateway, upstream, variants):
    up = StepUpstream(upstream)
    g = gateway(up, workers=1, limits={"access-log-format": "%RESPONSE_CODE% %RESPONSE_CODE_DETAILS% %REQ(:PATH)%\n"},
                extra=[puppet_plugin(variants.puppet(), annotations={"plugin.weir/pause-limit": "200ms"})])
    p = Puppet(g, up)
    with p.open(("rh", "ret 1"), method="GET") as f:
        f.response(504)
        g.wait_access(f"504 wasm_pause_timeout {f.path}")
        assert f.upstream() is None
    with Answer(p, ("sb", "ret 1")) as a:
        a.up.head().data(b"x").end()
        a.head()
        assert a.conn.wait_closed() == b""


# ---- beside the table: where it meets HTTP ----

def test_expect_continue_and_a_filter_that_wants_the_body_first(headers_only):
    """The head is held for the body, and the client holds the body for the 100: somebody has to say it."""
    p = headers_only
    path = "/expect-held"
    with Conn(p.g.port) as c:
        c.request("POST", path, {"expect": "100-continue", "content-length": 5, "x-do": script(("rh", "ret 1"), ("rb", op("buf", 0, 0, 9)))})
        assert c.head().start_line.startswith("HTTP/1.1 100")
        c.send("hello")
        r = c.response("POST")
        assert r.status == 200 and r.interim == []
        assert p.up.body(path) == b"hello"


def test_expect_continue_and_a_filter_that_refuses(all_):
    with Conn(all_.g.port) as c:
        c.request("POST", "/expect-refused", {"expect": "100-continue", "content-length": 5, "x-do": script(("rh", op("reply", 401, "d", "no", -1)))})
        r = c.response("POST")
        assert r.status == 401 and r.interim == []


def test_head_has_no_body_callback(all_):
    with Answer(all_, method="HEAD") as a:
        a.up.head(200, {"content-length": 500}, chunked=False).done()
        r = a.response()
        assert r.header("content-length") == "500"
        a.seen.wait_end()
        assert a.seen.events() == ["rh", "sh"] and a.seen.of("sh")["end"] == "1"


def test_pipelined_requests_keep_their_order(all_):
    with Conn(all_.g.port) as c:
        c.send(f"GET /pipe-1 HTTP/1.1\r\nHost: a\r\nx-tag: pipe-1\r\nx-do: rh:{op('tick', 20)},ret 1;tick.3:cont 0\r\n\r\n"
               "GET /pipe-2 HTTP/1.1\r\nHost: a\r\nx-tag: pipe-2\r\n\r\n")
        assert c.response().status == 200 and c.response().status == 200
    paths = [x.path for x in all_.up.up.exchanges if x.path.startswith("/pipe-")]
    assert paths == ["/pipe-1", "/pipe-2"]
    all_.send(("rh", op("tick", 0)))


def test_length_is_kept_by_filters_that_cannot_change_it(make):
    p = make(None, ("NO_RB", "NO_SB"))
    r, seen = p.send(("rh", "ret 0"), method="POST", body=b"hello")
    assert r.header("content-length") == "6" and p.up.find(f"/{seen.tag}").header("content-length") == "5"


def test_length_is_made_anew_when_all_of_a_body_is_there(all_):
    r, seen = all_.send(("rb", op("setbuf", 0, 0, 0, "12345")), ("sb", op("setbuf", 1, 0, 0, "123")), method="POST", body=b"hello")
    assert r.body == b"123answer" and r.header("content-length") in ("9", None)
    assert all_.up.body(f"/{seen.tag}") == b"12345hello"


def test_an_answer_before_the_request_is_over(all_):
    """Both directions run at once."""
    path = "/early"
    held = all_.up.hold(path)
    with Conn(all_.g.port) as c:
        c.request("POST", path, {"transfer-encoding": "chunked", "x-tag": "early"})
        c.send("3\r\none\r\n")
        all_.up.wait_body(path, b"one")
        held.head().data(b"first")
        c.head()
        assert c.chunk() == b"first"
        c.send("3\r\ntwo\r\n0\r\n\r\n")
        all_.up.wait_body(path, b"onetwo")
        held.data(b"second").end()
        assert c.chunk() == b"second" and c.chunk() == b""


@pytest.mark.parametrize("edit", [False, True], ids=["seen", "edited"])
def test_tunnel_bytes_pass_the_body_callbacks(all_, edit):
    path = f"/tunnel-{edit}"
    held = all_.up.hold(path)
    do = [("rb", op("setbuf", 0, 0, 0, "<"), op("setbuf", 0, 99999, 0, ">")), ("sb", op("setbuf", 1, 0, 0, "["), op("setbuf", 1, 99999, 0, "]"))] if edit else [("x", "ret 0")]
    with Conn(all_.g.port) as c:
        c.request("GET", path, {"connection": "upgrade", "upgrade": "websocket", "x-tag": path[1:], "x-do": script(*do)})
        x = all_.up.wait(path, complete=False)
        assert x.header("upgrade") == "websocket"
        held.raw("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert c.head().start_line.startswith("HTTP/1.1 101")
        c.send("ping")
        assert x.peer.exactly(6 if edit else 4) == (b"<ping>" if edit else b"ping")
        held.raw("pong")
        assert c.exactly(6 if edit else 4) == (b"[pong]" if edit else b"pong")
        held.close()
        c.wait_closed()


@pytest.mark.parametrize("status", [204, 304])
def test_responses_without_a_body(all_, status):
    with Answer(all_, ("sh", op("set", RESP, "x-a", "1"))) as a:
        a.up.head(status, chunked=False).done()
        assert a.response(status).header("x-a") == "1"
        a.seen.wait_end()
        assert a.seen.events() == ["rh", "sh"]
