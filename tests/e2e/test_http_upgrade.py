# SPDX-License-Identifier: Apache-2.0
"""Upgrades become tunnels."""
import asyncio
import threading

import pytest
import websockets

from weirtest.client import Closed
from weirtest.util import LOCAL


@pytest.fixture
def websocket_server():
    """Echoes messages in upper case, from a thread of its own; gives its port."""
    started, stop, state = threading.Event(), None, {}

    async def handle(ws):
        async for message in ws:
            await ws.send(message.upper() if isinstance(message, str) else message[::-1])

    async def main():
        nonlocal stop
        stop = asyncio.get_running_loop().create_future()
        async with websockets.serve(handle, LOCAL, 0, max_size=1 << 26) as server:
            state["port"], state["loop"] = server.sockets[0].getsockname()[1], asyncio.get_running_loop()
            started.set()
            await stop

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    assert started.wait(60)
    yield state["port"]
    state["loop"].call_soon_threadsafe(stop.set_result, None)
    thread.join(60)


def test_websocket(gateway, websocket_server):
    gw = gateway(websocket_server)

    async def talk():
        async with websockets.connect(f"ws://{LOCAL}:{gw.port}/chat", max_size=1 << 26) as ws:
            for i in range(50):
                await ws.send(f"hello {i}")
                assert await ws.recv() == f"HELLO {i}"
            big = bytes(range(256)) * 16384
            await ws.send(big)
            assert await ws.recv() == big[::-1]
            assert await (await ws.ping()) is not None or True

    asyncio.run(asyncio.wait_for(talk(), 120))
    line = gw.wait_access("/chat")[0]
    assert " 101 " in line
    assert gw.get("/plain").status in (400, 426, 500)  # the server's own answer to what is no upgrade
    gw.stop()


def test_many_websockets_at_once(gateway, websocket_server):
    gw = gateway(websocket_server)

    async def one(i):
        async with websockets.connect(f"ws://{LOCAL}:{gw.port}/") as ws:
            for k in range(20):
                await ws.send(f"c{i}-{k}")
                assert await ws.recv() == f"C{i}-{k}"

    async def all_of_them():
        await asyncio.gather(*(one(i) for i in range(30)))

    asyncio.run(asyncio.wait_for(all_of_them(), 120))


def _tunnel(x):
    assert x.header("upgrade") == "chat/1" and "upgrade" in x.header("connection").lower()
    x.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat/1\r\n\r\nhello from server\n")
    x.keep = False
    while True:
        try:
            line = x.peer.until(b"\n")
        except Closed:
            x.peer.send("bye\n")
            return
        x.peer.send(line[-2::-1] + b"\n")


def test_generic_upgrade_passes_bytes_both_ways(gateway, upstream):
    up = upstream(_tunnel)
    gw = gateway(up)
    with gw.conn() as c:
        c.request("GET", "/up", {"Connection": "Upgrade", "Upgrade": "chat/1"}).send("early\n")
        r = c.response()
        assert r.status == 101 and r.header("upgrade") == "chat/1" and "upgrade" in r.header("connection").lower()
        assert "content-length" not in r.head and "transfer-encoding" not in r.head
        assert c.until(b"\n") == b"hello from server\n"
        assert c.until(b"\n") == b"ylrae\n"
        c.send(b"\x00\xff\n")
        assert c.until(b"\n") == b"\xff\x00\n"
        c.send("x" * 300000 + "\n")
        assert c.until(b"\n") == b"x" * 300000 + b"\n"


def test_half_close_of_a_tunnel(gateway, upstream):
    """FIN of one side is passed on; the other side may still speak."""
    up = upstream(_tunnel)
    gw = gateway(up)
    with gw.conn() as c:
        c.request("GET", "/up", {"Connection": "Upgrade", "Upgrade": "chat/1"})
        assert c.response().status == 101
        assert c.until(b"\n") == b"hello from server\n"
        c.send("abc\n").shut()
        assert c.rest() == b"cba\nbye\n"
    gw.wait(lambda: gw.metrics().value("weir_streams") == 0)
    assert not up.errors


def test_upgrade_that_is_refused_is_an_ordinary_response(gateway, upstream):
    up = upstream(lambda x: x.respond(200, None, b"no upgrade here"))
    gw = gateway(up)
    with gw.conn() as c:
        for _ in range(2):
            r = c.request("GET", "/", {"Connection": "Upgrade", "Upgrade": "chat/1"}).response()
            assert (r.status, r.body) == (200, b"no upgrade here")
        assert c.is_open()


def test_101_that_nobody_asked_for(gateway, upstream):
    """An upstream cannot turn a plain request into a tunnel."""
    up = upstream(lambda x: (x.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat/1\r\n\r\n"), x.close()))
    gw = gateway(up)
    assert gw.get().status == 502


def test_upgrade_without_connection_header_is_no_upgrade(gateway, upstream):
    up = upstream()
    gw = gateway(up)
    assert gw.get(headers={"Upgrade": "chat/1"}).status == 200
    assert "upgrade" not in up.last.head


def test_pipelined_request_before_an_upgrade_answer_is_not_smuggled(gateway, upstream):
    """Bytes after an Upgrade request are tunnel bytes only after a 101; after a refusal they are the next request."""
    up = upstream(lambda x: x.respond(200, None, x.target.encode()))
    gw = gateway(up)
    with gw.conn() as c:
        c.send("GET /a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: chat/1\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n")
        assert c.response().body == b"/a"
        assert c.response().body == b"/b"


def test_tunnel_ends_when_the_upstream_closes(gateway, upstream):
    up = upstream(lambda x: (x.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat/1\r\n\r\nlast words"),
                             x.close()))
    gw = gateway(up)
    with gw.conn() as c:
        c.request("GET", "/", {"Connection": "Upgrade", "Upgrade": "chat/1"})
        assert c.response().status == 101
        assert c.exactly(10) == b"last words"
        c.wait_closed()
    gw.wait(lambda: gw.ended_streams("tunnel_closed") == 1)
