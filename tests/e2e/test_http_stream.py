# SPDX-License-Identifier: Apache-2.0
"""Big bodies stream with bounded memory, and slow readers push back."""
import hashlib
import os
import pathlib
import threading
import time

import pytest

from weirtest.client import Closed

MIB = 1 << 20
# What the process may grow by while a body passes: a few times its buffers (1 MiB and 128 KiB a direction), not the body.
# Sanitizers keep freed memory in quarantine.
GROWTH_KIB = 24 * 1024
GROWTH_SANITIZED_KIB = 400 * 1024

BLOCK = os.urandom(MIB)


def allowed_growth(gw):
    return GROWTH_SANITIZED_KIB if gw.weir.sanitized else GROWTH_KIB


def reset_peak(gw):
    pathlib.Path(f"/proc/{gw.pid}/clear_refs").write_text("5")
    return gw.memory_kib("VmRSS")


def upload(gw, blocks, chunked):
    with gw.conn() as c:
        c.request("POST", "/up", {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": blocks * MIB})
        for _ in range(blocks):
            if chunked:
                c.send(b"%x\r\n" % MIB)
            c.send(BLOCK)
            if chunked:
                c.send(b"\r\n")
        if chunked:
            c.send(b"0\r\n\r\n")
        return c.response()


def counting_upstream(upstream):
    def script(x):
        digest, count = hashlib.blake2b(), 0
        for piece in x.pieces():
            digest.update(piece)
            count += len(piece)
        x.respond(200, None, f"{count} {digest.hexdigest()}")
    return upstream(script, record=0)


def expected(blocks):
    digest = hashlib.blake2b()
    for _ in range(blocks):
        digest.update(BLOCK)
    return f"{blocks * MIB} {digest.hexdigest()}"


def sending_upstream(upstream, blocks, chunked):
    def script(x):
        x.start(200, {"transfer-encoding": "chunked"} if chunked else {"content-length": str(blocks * MIB)})
        for _ in range(blocks):
            x.send(b"%x\r\n%s\r\n" % (MIB, BLOCK) if chunked else BLOCK)
        if chunked:
            x.send("0\r\n\r\n")
    return upstream(script, record=0)


def download(gw, chunked):
    """Digest and size of the body of GET /, not kept."""
    digest, count = hashlib.blake2b(), 0
    with gw.conn() as c:
        c.request()
        head = c.head()
        if chunked:
            assert head.get("transfer-encoding") == "chunked"
            while data := c.chunk():
                digest.update(data)
                count += len(data)
        else:
            left = int(head.get("content-length"))
            while left:
                data = c.exactly(min(left, MIB))
                digest.update(data)
                count += len(data)
                left -= len(data)
    return f"{count} {digest.hexdigest()}"


SIZES = pytest.mark.parametrize("blocks", [pytest.param(256, id="256MiB"), pytest.param(1024, id="1GiB", marks=pytest.mark.slow)])
FRAMINGS = pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])


@SIZES
@FRAMINGS
def test_upload_streams(gateway, upstream, blocks, chunked):
    up = counting_upstream(upstream)
    gw = gateway(up, workers=1)
    assert upload(gw, 4, chunked).text == expected(4)
    before = reset_peak(gw)
    assert upload(gw, blocks, chunked).text == expected(blocks)
    assert gw.memory_kib("VmHWM") - before < allowed_growth(gw)


@SIZES
@FRAMINGS
def test_download_streams(gateway, upstream, blocks, chunked):
    up = sending_upstream(upstream, blocks, chunked)
    gw = gateway(up, workers=1)
    before = reset_peak(gw)
    assert download(gw, chunked) == expected(blocks)
    assert gw.memory_kib("VmHWM") - before < allowed_growth(gw)


def test_slow_reader_holds_the_upstream_back(gateway, upstream):
    """A client that does not read stops its source; what is queued in between is bounded."""
    sent = [0]
    total = 256

    def script(x):
        x.start(200, {"content-length": str(total * MIB)})
        for _ in range(total * 16):
            x.peer.sock.sendall(BLOCK[:MIB // 16])
            sent[0] += MIB // 16

    gw = gateway(upstream(script, record=0), workers=1)
    before = reset_peak(gw)
    with gw.conn(receive_buffer=32 * 1024) as c:
        c.request()
        head = c.head()
        stalled = wait_stalled(gw, lambda: sent[0])
        assert stalled < 32 * MIB, "the source was not held back"
        assert gw.memory_kib("VmHWM") - before < allowed_growth(gw)
        got = len(c.buffer)
        c.buffer = b""
        while got < total * MIB:
            got += len(c.sock.recv(MIB))
        assert got == total * MIB == int(head.get("content-length"))


def test_upstream_that_never_reads_holds_the_client_back(gateway, upstream):
    go = threading.Event()

    def script(x):
        go.wait(120)
        x.respond(200, None, str(len(x.body())))

    gw = gateway(upstream(script, record=0), workers=1)
    before = reset_peak(gw)
    sent = [0]
    total = 128
    with gw.conn() as c:
        c.request("POST", "/", {"Content-Length": total * MIB})

        def send():
            for _ in range(total * 16):
                c.sock.sendall(BLOCK[:MIB // 16])
                sent[0] += MIB // 16

        t = threading.Thread(target=send, daemon=True)
        t.start()
        assert wait_stalled(gw, lambda: sent[0]) < 32 * MIB
        assert gw.memory_kib("VmHWM") - before < allowed_growth(gw)
        go.set()
        assert c.response().text == str(total * MIB)
        t.join(60)


def wait_stalled(gw, value, still=25):
    """Until value() is above 0 and has not moved for a number of looks, each with a round trip to the gateway."""
    last, count = -1, 0
    end = time.monotonic() + 120
    while count < still:
        now = value()
        count = count + 1 if now == last and now > 0 else 0
        last = now
        gw.is_ready()
        time.sleep(0.02)
        assert time.monotonic() < end, f"never stalls: {now}"
    return last


def test_many_slow_readers_have_bounded_memory(gateway, upstream):
    """Fifty clients that ask for much and read nothing cost their buffers, not the bodies."""
    sent = []  # one entry for each 16 KiB

    def script(x):
        x.start(200, {"content-length": str(8 * MIB)})
        for _ in range(8 * 64):
            x.peer.sock.sendall(BLOCK[:MIB // 64])
            sent.append(1)

    gw = gateway(upstream(script, record=0), limits={"output-bytes": "64Ki", "buffer-bytes": "64Ki"}, workers=1)
    before = reset_peak(gw)
    conns = []
    for _ in range(50):
        c = gw.conn(receive_buffer=16 * 1024)
        c.request()
        conns.append(c)
    for c in conns:
        c.head()
    assert wait_stalled(gw, lambda: len(sent)) < 50 * 8 * 64
    assert gw.memory_kib("VmHWM") - before < allowed_growth(gw) + 50 * 256
    for c in conns:
        c.close(reset=True)
    gw.wait(lambda: gw.metrics().value("weir_streams") == 0)


def test_both_directions_at_once(gateway, upstream):
    """A full-duplex exchange of 32 MiB each way does not lock up."""
    def script(x):
        x.start(200, {"transfer-encoding": "chunked"})
        for piece in x.pieces():
            x.send(b"%x\r\n%s\r\n" % (len(piece), piece))
        x.send("0\r\n\r\n")

    gw = gateway(upstream(script, record=0), workers=1)
    with gw.conn() as c:
        c.request("POST", "/", {"Transfer-Encoding": "chunked"})

        def send():
            for _ in range(32):
                c.send(b"%x\r\n%s\r\n" % (MIB, BLOCK))
            c.send("0\r\n\r\n")

        t = threading.Thread(target=send, daemon=True)
        t.start()
        digest, count = hashlib.blake2b(), 0
        c.head()
        while data := c.chunk():
            digest.update(data)
            count += len(data)
        assert f"{count} {digest.hexdigest()}" == expected(32)
        t.join(60)


def test_first_bytes_are_not_held_back(gateway, upstream):
    """What the upstream has said the client can read, though the response goes on (server-sent events)."""
    go = threading.Event()

    def script(x):
        x.start(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        x.send("5\r\nfirst\r\n")
        go.wait(60)
        x.send("4\r\nlast\r\n0\r\n\r\n")

    gw = gateway(upstream(script))
    with gw.conn() as c:
        c.request()
        c.head()
        assert c.chunk() == b"first"
        go.set()
        assert c.chunk() == b"last" and c.chunk() == b""
        c.trailer_fields()


def test_client_leaves_in_the_middle_of_a_download(gateway, upstream):
    up = sending_upstream(upstream, 64, False)
    gw = gateway(up, workers=1)
    for reset in (False, True):
        c = gw.conn()
        c.request()
        c.exactly(MIB)
        c.close(reset=reset)
    gw.wait(lambda: gw.metrics().value("weir_streams") == 0)
    gw.wait(lambda: gw.ended_streams("downstream_remote_disconnect") == 2)
    assert gw.metrics().value("weir_downstream_connections") == 0


def test_client_leaves_in_the_middle_of_an_upload(gateway, upstream):
    seen = []

    def script(x):
        try:
            x.body()
            seen.append("whole")
        except Closed:
            seen.append("cut")
            raise

    up = upstream(script, record=0)
    gw = gateway(up, workers=1)
    with gw.conn() as c:
        c.request("POST", "/", {"Content-Length": 8 * MIB}).send(BLOCK)
        up.wait_count(1)
        c.close(reset=True)
    gw.wait(lambda: seen == ["cut"])
    gw.wait(lambda: gw.metrics().value("weir_streams") == 0)
