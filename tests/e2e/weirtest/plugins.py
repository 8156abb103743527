# SPDX-License-Identifier: Apache-2.0
"""What tests of plugins share: scripts for tests/guests/puppet.c and its traces, guests built in variants, and an
upstream whose response a test sends step by step."""
import collections
import hashlib
import itertools
import pathlib
import queue
import re
import socket
import subprocess
import threading
import urllib.parse

from . import resources as res
from .client import Conn, to_bytes
from .guests import ROOT
from .upstream import Upstream
from .util import DEADLINE, wait_until

_tags = itertools.count(1)
_TRACE = re.compile(r"wasm (\S+?): (?:\[\d+\] )?T (\S+) (\w+)\.(\d+)(?: (.*))?$", re.M)


def new_tag():
    return f"t{next(_tags)}"


def op(*words):
    """One op of a script; its words may hold anything."""
    return " ".join(urllib.parse.quote(w if isinstance(w, bytes) else str(w), safe="~") if w != "" else "%" for w in words)


def script(*statements):
    """script(("rh", op(...), "ret 1"), ("rb.2", "ret 0"))"""
    return ";".join(f"{event}:{','.join(ops)}" for event, *ops in statements)


# Map numbers, buffers, streams.
REQ, REQ_T, RESP, RESP_T, CALL, CALL_T = 0, 1, 2, 3, 6, 7

Trace = collections.namedtuple("Trace", "plugin event nth text")


def fields(text):
    return dict(f.split("=", 1) for f in text.split() if "=" in f)


def traces(g, tag, plugin=None):
    """The events of one tag, in order."""
    out = []
    for m in _TRACE.finditer(g.log_text()):
        name = m[1].split(".")[-1]
        if m[2] == tag and plugin in (None, name):
            out.append(Trace(name, m[3], int(m[4]), m[5] or ""))
    return out


class Seen:
    """The traces of one stream."""

    def __init__(self, g, tag, plugin=None):
        self.g, self.tag, self.plugin = g, tag, plugin

    def all(self):
        return traces(self.g, self.tag, self.plugin)

    def events(self):
        """Callbacks, each once: ['rh', 'rb', 'rb', ...] without the bookkeeping ones."""
        return [t.event for t in self.all() if t.text.startswith("id=") and t.event not in ("create", "log", "done", "del", "tick")]

    def lifecycle(self):
        return [t.event for t in self.all() if t.text.startswith("id=") and t.event != "tick"]

    def of(self, event, nth=None, word=None):
        """The fields of the event itself, or of the op `word` in it; None when it has not come."""
        for t in self.all():
            if t.event == event and nth in (None, t.nth) and (t.text.startswith("id=") if word is None else t.text.split(" ")[0] == word):
                return fields(t.text)
        return None

    def ops(self, word):
        return [fields(t.text) for t in self.all() if t.text.split(" ")[0] == word]

    def texts(self, word):
        return [t.text for t in self.all() if t.text.split(" ")[0] == word]

    def wait(self, event, nth=1, word=None):
        return self.g.wait(lambda: self.of(event, nth, word), f"{self.tag}: {event}.{nth} {word or ''}")

    def wait_end(self):
        self.wait("del")
        return self

    def sizes(self, event):
        return [(int(f["size"]), int(f["end"])) for f in (fields(t.text) for t in self.all() if t.event == event and t.text.startswith("id="))]


def pending(conn):
    """Bytes that have come and were not read, without waiting. b"" also when the peer has closed."""
    conn.sock.setblocking(False)
    try:
        return conn.buffer + conn.sock.recv(65536, socket.MSG_PEEK)
    except BlockingIOError:
        return conn.buffer
    except ConnectionResetError:
        return b"RESET"
    finally:
        conn.sock.settimeout(DEADLINE)


class StepUpstream:
    """An upstream that remembers each request by path, as it comes, and answers as the test says: at once (default), or
    step by step for paths given to hold()."""

    def __init__(self, upstreams):
        self.requests, self.holds = {}, {}
        self.up = upstreams(self._script)
        self.port = self.up.port

    class Held:
        def __init__(self):
            self.steps = queue.Queue()

        def step(self, kind, *what):
            done = threading.Event()
            self.steps.put((kind, what, done))
            assert done.wait(DEADLINE), f"upstream step {kind} was not taken"
            return self

        def head(self, status=200, headers=None, chunked=True):
            pairs = list((headers or {}).items())
            if chunked:
                pairs.append(("transfer-encoding", "chunked"))
            return self.step("head", status, pairs)

        def interim(self, status, headers=None):
            return self.step("interim", status, headers)

        def data(self, data):
            return self.step("raw", b"%x\r\n%s\r\n" % (len(data), to_bytes(data)))

        def raw(self, data):
            return self.step("raw", to_bytes(data))

        def end(self, trailers=None):
            fields_ = b"".join(to_bytes(f"{n}: {v}\r\n") for n, v in (trailers or {}).items())
            self.step("raw", b"0\r\n" + fields_ + b"\r\n")
            return self.done()

        def done(self):
            return self.step("done")

        def close(self):
            return self.step("close")

    def hold(self, path):
        self.holds[path] = self.Held()
        return self.holds[path]

    def _script(self, x):
        x.got, x.complete = [], False
        self.requests.setdefault(x.path, []).append(x)
        held = self.holds.get(x.path)
        if held is None:
            for piece in x.pieces():
                x.got.append(piece)
            x.complete = True
            x.respond(200, {"x-upstream": "step"}, b"answer")
            return
        reader = threading.Thread(target=self._read, args=(x,), daemon=True)
        reader.start()
        while True:
            kind, what, done = held.steps.get()
            try:
                if kind == "head":
                    x.start(*what)
                elif kind == "interim":
                    x.interim(*what)
                elif kind == "raw":
                    x.send(*what)
                elif kind == "close":
                    x.close()
                    x.peer.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            done.set()
            if kind in ("done", "close"):
                break
        reader.join()
        if not x.complete:
            x.close()

    @staticmethod
    def _read(x):
        try:
            for piece in x.pieces():
                x.got.append(piece)
            x.complete = True
        except (AssertionError, OSError):
            pass

    def find(self, path):
        got = self.requests.get(path)
        return got[-1] if got else None

    def body(self, path):
        x = self.find(path)
        return b"".join(x.got) if x else None

    def wait(self, path, complete=True):
        def look():
            x = self.find(path)
            return x if x is not None and (x.complete or not complete) else None
        return wait_until(look, f"{path} at the upstream")

    def wait_body(self, path, body):
        wait_until(lambda: self.body(path) == to_bytes(body), f"{path}: body {body[:60]!r} at the upstream")


class Variants:
    """Guests built with -D options, another ABI marker, or without the SDK."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.clang = next(c for c in ("clang", "clang-14", "clang-15", "clang-16") if subprocess.run(["sh", "-c", f"command -v {c}"], capture_output=True).returncode == 0)

    def _clang(self, out, sources, defines=(), link=()):
        command = [self.clang, "--target=wasm32", "-O2", "-std=c17", "-ffreestanding", "-fvisibility=hidden", "-nostdlib",
                   f"-I{ROOT}/sdk/c", "-Wall", "-Wextra", "-Wno-infinite-recursion", *[f"-D{d}" for d in defines], "-Wl,--no-entry", "-Wl,--allow-undefined",
                   "-Wl,--gc-sections", *link, *map(str, sources), "-o", str(out)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return out

    def _key(self, *parts):
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    def puppet(self, *defines, marker="proxy_abi_version_0_2_1", name="puppet"):
        source = ROOT / "tests/guests/puppet.c"
        sdk = (ROOT / "sdk/c/proxy_wasm.c").read_text()
        if marker is None:
            sdk = sdk.replace('PW_EXPORT("proxy_abi_version_0_2_1")', "")
        else:
            sdk = sdk.replace('PW_EXPORT("proxy_abi_version_0_2_1")', f'PW_EXPORT("{marker}")')
        key = self._key(source.read_bytes(), sdk, defines, marker)
        out = self.directory / f"{name}-{key}.wasm"
        if not out.exists():
            sdk_path = self.directory / f"sdk-{key}.c"
            sdk_path.write_text(sdk)
            self._clang(out, [source, sdk_path], defines)
        return out

    def raw(self, text, name="raw", link=()):
        """C without the SDK."""
        key = self._key(text, link)
        out = self.directory / f"{name}-{key}.wasm"
        if not out.exists():
            path = self.directory / f"{name}-{key}.c"
            path.write_text(text)
            self._clang(out, [path], link=link)
        return out


def puppet_plugin(wasm, name="puppet", statements=None, **more):
    """A WasmPlugin of the puppet; statements: a script for all streams and the root."""
    config = {"script": statements if isinstance(statements, str) else script(*statements)} if statements else None
    return res.plugin(name, wasm, config, **more)


class Puppet:
    """A gateway with puppets on it, and requests that tell them what to do."""

    def __init__(self, g, up):
        self.g, self.up = g, up

    def send(self, *statements, method="GET", path=None, headers=None, body=b"", conn=None, tag=None):
        """One whole request; returns (response, Seen)."""
        tag = tag or new_tag()
        pairs = [("x-tag", tag), ("x-do", script(*statements))] if statements else [("x-tag", tag)]
        pairs += list(headers.items()) if isinstance(headers, dict) else list(headers or [])
        if conn is not None:
            conn.request(method, path or f"/{tag}", pairs, body)
            return conn.response(method), Seen(self.g, tag)
        with Conn(self.g.port) as c:
            c.request(method, path or f"/{tag}", pairs, body)
            return c.response(method), Seen(self.g, tag)

    def open(self, *statements, method="POST", chunked=True, headers=None, port=None):
        return Flow(self, statements, method, chunked, headers, port)

    def barrier(self):
        """With one worker: whatever had come when this was called, the worker has dealt with."""
        assert self.g.get("/barrier").status == 200


class Flow:
    """A request that is sent bit by bit."""

    def __init__(self, p, statements, method, chunked, headers, port=None):
        self.p, self.tag = p, new_tag()
        self.path = "/" + self.tag
        self.seen = Seen(p.g, self.tag)
        self.conn = Conn(port or p.g.port)
        pairs = [("x-tag", self.tag), ("x-do", script(*statements))] + list((headers or {}).items())
        if chunked and method == "POST":
            pairs.append(("transfer-encoding", "chunked"))
        self.conn.request(method, self.path, pairs)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.conn.close()

    def data(self, data):
        self.conn.send(b"%x\r\n%s\r\n" % (len(data), to_bytes(data)))
        return self

    def end(self, trailers=None):
        self.conn.send(b"0\r\n" + b"".join(to_bytes(f"{n}: {v}\r\n") for n, v in (trailers or {}).items()) + b"\r\n")
        return self

    def release(self, stream=0):
        """continue_stream from another context of the same VM."""
        id_ = self.id()
        r, seen = self.p.send(("rh", f"eff {id_}", f"cont {stream}"))
        assert r.status == 200, r
        return self

    def id(self):
        for t in self.seen.all():
            if t.text.startswith("id="):
                return fields(t.text)["id"]
        raise AssertionError("no callback ran")

    # -- what the upstream has --

    def upstream(self):
        return self.p.up.find(self.path)

    def nothing_upstream(self):
        self.p.barrier()
        x = self.upstream()
        assert x is None, f"the upstream got {x.head.raw!r}"

    def body_upstream(self, body):
        """Exactly this much of the body, now and after all that has come was dealt with."""
        self.p.up.wait_body(self.path, body)
        self.p.barrier()
        assert self.p.up.body(self.path) == to_bytes(body)

    # -- what the client has --

    def nothing_here(self):
        self.p.barrier()
        assert pending(self.conn) == b"", pending(self.conn)

    def response(self, status=200, **more):
        r = self.conn.response(**more)
        assert r.status == status, r
        return r
