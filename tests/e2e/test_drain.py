# SPDX-License-Identifier: Apache-2.0
"""Ending without losing a request: SIGTERM, POST /drain, and who may share a port."""
import os
import signal
import socket
import subprocess
import threading

import pytest

from weirtest import resources as res
from weirtest.client import Closed
from weirtest.load import Load
from weirtest.util import LOCAL, free_port, wait_until


def ask_to_drain(gw, how):
    if how == "sigterm":
        gw.signal(signal.SIGTERM)
    else:
        assert gw.admin_request("POST", "/drain").status == 200


HOW = pytest.mark.parametrize("how", ["sigterm", "drain"])


@HOW
def test_no_request_is_lost_under_load(gateway, upstream, how):
    """Clients that honour Connection: close see nothing but answers, up to the refused connect of a closed port."""
    gw = gateway(upstream(keep_exchanges=False, record=0))
    with Load(gw.port, threads=6, drain=True) as keep_alive, Load(gw.port, threads=2, drain=True, fresh=True) as fresh:
        wait_until(lambda: keep_alive.ok > 300 and fresh.ok > 50, "load")
        ask_to_drain(gw, how)
        gw.assert_ended()
        keep_alive.join()
        fresh.join()
    keep_alive.assert_lossless(300)
    fresh.assert_lossless(50)


@HOW
def test_response_in_flight_completes(gateway, upstream, how):
    go = threading.Event()

    def script(x):
        x.start(200, {"content-length": "8"})
        x.send("half")
        go.wait(60)
        x.send("done")

    gw = gateway(upstream(script))
    with gw.conn() as c, gw.conn() as idle:
        c.request()
        assert c.head().start_line.startswith("HTTP/1.1 200")
        assert c.exactly(4) == b"half"
        ask_to_drain(gw, how)
        idle.expect_closed()
        wait_until(lambda: _refused(gw.port), "the port to be closed")
        assert gw.process.poll() is None
        go.set()
        assert c.exactly(4) == b"done"
        c.expect_closed()
    gw.assert_ended()


def _refused(port):
    with socket.socket() as s:
        return s.connect_ex((LOCAL, port)) != 0


def test_request_in_flight_completes_and_says_close(gateway, upstream):
    """A request that is being received when the drain begins is served, and its response says that the connection ends."""
    up = upstream(lambda x: x.respond(200, None, x.body()))
    gw = gateway(up)
    with gw.conn() as c:
        c.request("POST", "/", {"Content-Length": 8}, b"half")
        up.wait_count(1)
        gw.admin_request("POST", "/drain")
        gw.wait_log("draining")
        c.send(b"done")
        r = c.response()
        assert r.body == b"halfdone" and r.will_close
        c.expect_closed()
    gw.assert_ended()


def test_ready_goes_off_first(gateway, upstream):
    go = threading.Event()
    up = upstream(lambda x: go.wait(60) and x.respond())
    gw = gateway(up)
    with gw.conn() as c:
        c.request()
        up.wait_count(1)
        assert gw.is_ready()
        gw.admin_request("POST", "/drain")
        gw.wait(lambda: gw.admin_request("GET", "/ready").status == 503)
        assert "drain" in gw.admin_request("GET", "/ready").text
        assert gw.admin_request("GET", "/healthz").status == 200
        go.set()
        r = c.response()
        assert r.status == 200 and r.will_close
    gw.assert_ended()


def test_drain_time_cuts_what_does_not_end(gateway, upstream):
    up = upstream(lambda x: x.start(200, {"content-length": "8"}) and threading.Event().wait(60))
    gw = gateway(up, drain_time=1)
    with gw.conn() as c:
        c.request()
        c.head()
        gw.signal()
        with pytest.raises(Closed):
            c.exactly(8)
    gw.assert_ended()
    assert any("drain_time_over" in l or " 200 " in l for l in gw.access_log())


def test_second_signal_ends_at_once(gateway, upstream):
    up = upstream(lambda x: threading.Event().wait(60))
    gw = gateway(up, drain_time=600)
    with gw.conn() as c:
        c.request()
        up.wait_count(1)
        gw.signal()
        gw.wait_log("draining")
        gw.signal()
        c.wait_closed()
    gw.assert_ended()


def test_tunnel_is_cut_at_drain_time(gateway, upstream):
    def script(x):
        x.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n")
        x.peer.until(b"never")

    gw = gateway(upstream(script), drain_time=1)
    with gw.conn() as c:
        c.request("GET", "/", {"Connection": "Upgrade", "Upgrade": "chat"})
        assert c.response().status == 101
        gw.signal()
        c.wait_closed()
    gw.assert_ended()


def test_drain_with_nothing_to_do_ends(gateway, upstream):
    gw = gateway(upstream())
    gw.stop()


def test_sigint_drains_too(gateway, upstream):
    gw = gateway(upstream())
    gw.signal(signal.SIGINT)
    gw.assert_ended()


def test_second_weir_on_the_same_port_is_refused(gateway, upstream):
    """It must not share traffic silently by SO_REUSEPORT: log, /ready, /config and status say it."""
    one, two = upstream(name="one"), upstream(name="two")
    first = gateway(one)
    second = gateway(two, port=first.port, ready=False)
    second.wait_log(f"{LOCAL}:{first.port}")
    r = second.wait(lambda: second.admin_request("GET", "/ready"), "its admin server")
    assert r.status == 503 and str(first.port) in r.text
    listeners = second.config()["listeners"]
    assert [l["address"] for l in listeners] == [f"{LOCAL}:{first.port}"] and "in use" in listeners[0]["error"]
    for _ in range(50):
        assert first.get().text == "one"
    assert two.received == b""
    status = second.weir.run("status", "--admin", f"{LOCAL}:{second.admin}")
    assert status.returncode == 1 and str(first.port) in status.stdout + status.stderr
    first.stop()
    # Now the port is free, and the second takes it.
    second.wait_ready()
    assert second.get().text == "two"


def test_second_admin_on_the_same_port_is_refused(gateway, upstream):
    first = gateway(upstream())
    done = first.weir.run("run", first.dir, "--admin", f"{LOCAL}:{first.admin}", "--cache-dir", first.cache)
    assert done.returncode == 1 and str(first.admin) in done.stderr
    assert first.get().status == 200


def test_listener_that_moves_keeps_old_connections(gateway, upstream):
    """A port that is gone from the resources stops accepting; requests on it are not cut."""
    go = threading.Event()
    up = upstream(lambda x: (x.target != "/slow" or go.wait(60)) and x.respond())
    gw = gateway(up)
    old, new = gw.port, free_port()
    with gw.conn() as c:
        c.request("GET", "/slow")
        up.wait_count(1)
        gw.apply_and_wait("gateway", [res.gateway(new), *gw.default_resources(up)[1:]])
        wait_until(lambda: gw.get(port=new).status == 200, "the new port")
        wait_until(lambda: _refused(old), "the old port to be closed")
        go.set()
        assert c.response().status == 200


def test_stdout_that_nobody_reads_does_not_stop_traffic(weir, gateway, upstream):
    """Trap 6: a stalled pipe costs log lines, not requests."""
    gw = gateway(upstream(keep_exchanges=False), start=False)
    gw.port, gw.admin = free_port(), free_port()
    gw.apply("gateway", gw.default_resources(upstream(keep_exchanges=False)))
    read, write = os.pipe()
    with open(gw.stderr_path, "ab") as err:
        gw.process = subprocess.Popen(weir.command("run", gw.dir, "--admin", f"{LOCAL}:{gw.admin}", "--cache-dir", gw.cache,
                                                   "--workers", "1"), stdin=subprocess.DEVNULL, stdout=write, stderr=err)
    os.close(write)
    gw.wait_ready()
    with gw.conn() as c:
        for _ in range(3000):  # some 150 bytes each: far more than a pipe holds
            assert c.request("GET", "/" + "x" * 100).response().status == 200
    assert gw.is_ready()
    drainer = threading.Thread(target=lambda: [None for _ in iter(lambda: os.read(read, 65536), b"")], daemon=True)
    drainer.start()
    gw.stop()
    drainer.join(60)
    os.close(read)
