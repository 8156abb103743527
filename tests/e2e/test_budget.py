# SPDX-License-Identifier: Apache-2.0
"""Near the memory budget the gateway sheds: new streams get 503 with Retry-After, idle connections close, bodies are held
in less; what is under way is finished, and afterwards all is as before. The process's own allocations do not fail first."""
import contextlib
import resource
import socket
import threading

import pytest

from weirtest.client import Closed

MIB = 1 << 20
BUDGET = 32 * MIB
BLOCK = bytes(range(256)) * 256  # 64 KiB
BODY = 12 * MIB  # the kernel takes the first few


class Held:
    """Uploads that an upstream does not read until told to: what they have sent lies in the gateway."""

    def __init__(self, gateway, upstream, **limits):
        self.go, self.bodies = threading.Event(), []
        self.up = upstream(self.script, record=0, keep_exchanges=False)
        self.up.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)  # else the kernel holds the bodies
        self.g = gateway(self.up, limits={"memory-budget": str(BUDGET), "debug-headers": True, "response-timeout": "120s",
                                          "output-bytes": "1Mi", **limits})
        self.conns, self.threads = [], []

    def script(self, x):
        if x.target == "/quick":
            x.respond()
            return
        self.go.wait(120)
        n = sum(len(piece) for piece in x.pieces())
        self.bodies.append(n)
        x.respond(200, None, str(n))

    def send(self, conn):
        with contextlib.suppress(OSError):
            for _ in range(BODY // len(BLOCK)):
                conn.send(BLOCK)

    def add(self):
        """One more upload; its bytes go from a thread of its own, for they will stop."""
        conn = self.g.conn().request("POST", "/up", {"Content-Length": BODY})
        self.threads.append(threading.Thread(target=self.send, args=(conn,), daemon=True))
        self.threads[-1].start()
        self.conns.append(conn)

    def used(self):
        return self.g.metrics().value("weir_memory_used_bytes")

    def fill(self):
        """Until new streams are shed. The answers to those that were, by the way."""
        def is_near():
            self.add()
            with self.g.conn() as c:
                r = c.request("GET", "/quick").response()
            assert r.status == 200 or r.header("retry-after") == "1", r
            return r.status == 503
        self.g.wait(is_near, "the budget to be near")

    def finish(self):
        """Lets the upstream read; the statuses of the uploads."""
        self.go.set()
        statuses = []
        for c in self.conns:
            try:
                statuses.append(c.response().status)
            except Closed:
                statuses.append(0)  # shed, and reset while it was still sending
            c.close()
        for t in self.threads:
            t.join(60)
        return statuses


@pytest.fixture
def held(gateway, upstream):
    made = []

    def make(**limits):
        made.append(Held(gateway, upstream, **limits))
        return made[-1]

    yield make
    for h in made:
        h.go.set()


def test_new_streams_are_shed_and_old_ones_finished(held):
    h = held()
    h.fill()
    with h.g.conn() as c:
        r = c.request("GET", "/quick").response()
        assert (r.status, r.header("retry-after"), r.header("x-weir-end-reason")) == (503, "1", "overload"), r
    assert h.g.metrics().value("weir_overload_shed_total") > 0
    statuses = h.finish()
    assert statuses.count(200) >= 3 and set(statuses) <= {200, 503, 0}, statuses
    assert h.bodies == [BODY] * statuses.count(200), "what was begun is whole"
    h.g.wait_status(200, "/quick")
    h.g.wait(lambda: h.used() < BUDGET / 2, "memory to be given back")
    with h.g.conn() as c:  # as before
        h.send(c.request("POST", "/up", {"Content-Length": BODY}))
        assert c.response().body == str(BODY).encode()


def test_idle_connections_close_near_the_budget(held):
    h = held()
    idle = [h.g.conn() for _ in range(5)]
    for c in idle:
        assert c.request("GET", "/quick").response().status == 200
    fresh = h.g.conn()  # connected, nothing sent
    h.fill()
    for c in [*idle, fresh]:
        c.expect_closed()
    h.finish()
    h.g.wait_status(200, "/quick")
    with h.g.conn() as c:
        assert c.request("GET", "/quick").response().status == 200
        assert c.is_open()


def test_memory_is_bounded_whatever_comes(held):
    """Many more uploads than there is room for. Beyond the budget and what the process is anyway it gets no memory at all,
    so an allocation that is made before somebody looks at the budget ends it."""
    h = held()
    h.g.get("/quick")
    before = h.g.memory_kib("VmData") * 1024
    if not h.g.weir.sanitized:  # their shadow is data too
        resource.prlimit(h.g.pid, resource.RLIMIT_DATA, (before + BUDGET + 32 * MIB, before + BUDGET + 32 * MIB))
    for _ in range(120):  # most begin while there is memory, and would hold 120 MiB
        h.add()
    assert h.g.wait_status(503, "/quick").header("retry-after") == "1"
    assert h.used() < BUDGET + 4 * MIB
    statuses = h.finish()
    assert statuses.count(200) >= 3 and set(statuses) <= {200, 503, 0}, statuses
    assert h.bodies == [BODY] * statuses.count(200), "what was begun is whole"
    h.g.wait_status(200, "/quick")
