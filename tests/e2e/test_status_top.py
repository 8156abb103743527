# SPDX-License-Identifier: Apache-2.0
"""`weir top` and `weir status --conditions`: the same as the page, in a terminal."""
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time

import pytest

from weirtest import resources as res
from weirtest.util import DEADLINE, LOCAL


@pytest.fixture
def gw(gateway, upstream, guests):
    wasm = guests.build("counter")
    g = gateway(upstream(), extra=[res.plugin("first", wasm, {"mark": "a"}, phase="AUTHN"),
                                   res.plugin("nowhere", wasm, {"mark": "b"}, match=[{"mode": "SERVER"}]),
                                   res.plugin("slow", wasm, {"mark": "c"}, annotations={"plugin.weir/pause-limit": "1h"}),
                                   res.plugin("broken", f"http://{LOCAL}:9/x.wasm", {})])
    g.wait(lambda: g.plugins()["first"]["state"] == "Active" and g.plugins()["broken"]["state"] == "Failed", "the plugins")
    g.wait(lambda: g.plugins()["first"]["conditions"][-1]["status"] == "True", "every worker")
    return g


def test_once(gw, weir):
    for _ in range(5):
        gw.get("/")
    r = gw.wait(lambda: (r := weir.run("top", "--once", "--admin", f"{LOCAL}:{gw.admin}")) and "requests" in r.stdout and r, "top")
    assert r.returncode == 0 and "\033" not in r.stdout, r
    assert re.search(r"weir .*/\S+  Ready", r.stdout)
    line = next(x for x in r.stdout.splitlines() if x.startswith(f"{res.NS}/first"))
    assert "Programmed" in line and "AUTHN" in line
    assert "FetchFailed" in r.stdout and "NoMatchingListener" in r.stdout and "LooksWrong" in r.stdout


def test_not_reached(weir):
    r = weir.run("top", "--once", "--admin", f"{LOCAL}:9")
    assert r.returncode == 1 and "weir top: http://127.0.0.1:9/stats" in r.stderr and r.stdout == ""
    assert weir.run("top", "--interval", "0").returncode == 2
    assert weir.run("top", "--nonsense").returncode == 2


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, command, rows=24, columns=100):
        self.master, slave = pty.openpty()
        self.size(rows, columns)
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
                                        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        self.text = b""

    def size(self, rows, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def wait(self, condition):
        end = time.monotonic() + DEADLINE
        while not condition(self.text):
            assert time.monotonic() < end, self.text[-2000:]
            if select.select([self.master], [], [], 1)[0]:
                self.text += os.read(self.master, 65536)

    def frames(self):
        return [f.split(b"\033[J")[0].decode() for f in self.text.split(b"\033[H")[1:]]

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(DEADLINE)
        os.close(self.master)
        os.close(self.slave)


def plain(frame):
    return re.sub(r"\033\[[0-9;?]*[A-Za-z]", "", frame).replace("\r", "").split("\n")


@pytest.mark.parametrize("end", ["q", "signal"])
def test_in_a_terminal(gw, weir, end):
    t = Terminal(weir.command("top", "--admin", f"{LOCAL}:{gw.admin}", "--interval", 1))
    try:
        t.wait(lambda text: text.count(b"\033[J") >= 2)
        assert any(f"{res.NS}/first" in line for line in plain(t.frames()[-1]))
        assert all(len(line) <= 100 for f in t.frames() for line in plain(f)) and all(len(plain(f)) <= 24 for f in t.frames())
        t.size(12, 50)
        os.killpg(t.process.pid, signal.SIGWINCH)
        seen = len(t.text)
        t.wait(lambda text: text[seen:].count(b"\033[J") >= 2)
        last = plain(t.frames()[-2])
        assert all(len(line) <= 50 for line in last) and len(last) <= 12, last
        if end == "q":
            os.write(t.master, b"q")
        else:
            t.process.send_signal(signal.SIGTERM)
        t.wait(lambda text: text.endswith(b"\033[?25h\033[?1049l"))
        assert t.process.wait(DEADLINE) == 0
        assert termios.tcgetattr(t.slave) == t.before
    finally:
        t.close()


def test_conditions(gw, weir):
    r = weir.run("status", "--conditions", "--admin", f"{LOCAL}:{gw.admin}")
    assert r.returncode == 0, r
    text = r.stdout
    part = text[text.index(f"\nWasmPlugin {res.NS}/first"):].split("\n\n")[0]
    assert re.findall(r"^    (\S+) +(\S+)", part, re.M) == [("True", t) for t in ("Accepted", "Fetched", "Verified", "Compiled", "Configured", "Programmed")]
    broken = text[text.index(f"\nWasmPlugin {res.NS}/broken"):].split("\n\n")[0]
    assert re.search(r"False +Fetched +FetchFailed: ", broken) and re.search(r"False +Programmed +FetchFailed: .*answered 403", broken)
    nowhere = text[text.index(f"\nWasmPlugin {res.NS}/nowhere"):].split("\n\n")[0]
    assert re.search(r"False +Accepted +NoMatchingListener: .*mode SERVER", nowhere) and "no traffic goes through it" in nowhere
    assert f"\nGateway {res.NS}/gw" in text and "listener/http Programmed" in text
    short = weir.run("status", "--admin", f"{LOCAL}:{gw.admin}").stdout
    assert "looks wrong: " in short and "pause-limit" in short and "\nWasmPlugin" not in short


def test_the_same_everywhere(gw):
    """/plugins and /config say the same of a plugin, and an edit that fails is said, while the old version serves."""
    def conditions(of):
        return [(c["type"], c["status"], c["reason"], c["message"]) for c in of]
    a = gw.plugins()["first"]["conditions"]
    b = gw.object("WasmPlugin", "first")["conditions"]
    assert conditions(a) == conditions(b) and [c["lastTransitionTime"] for c in a] == [c["lastTransitionTime"] for c in b]
    before = {c["type"]: c["lastTransitionTime"] for c in a}
    gw.apply("extra", [res.plugin("first", f"http://{LOCAL}:9/gone.wasm", {"mark": "a"}, phase="AUTHN")])
    gw.wait(lambda: gw.plugins()["first"]["conditions"][-1]["reason"] == "FetchFailed", "the failure")
    now = {c["type"]: c for c in gw.plugins()["first"]["conditions"]}
    assert "keeps serving" in now["Programmed"]["message"]
    gw.wait_status(200)
    assert now["Accepted"]["lastTransitionTime"] == before["Accepted"]
    events = [(e["reason"], e["type"]) for e in json.loads(gw.admin_get("/events").body)["events"] if e["name"] == "first"]
    assert events[0] == ("FetchFailed", "Warning") and ("Programmed", "Normal") in events
