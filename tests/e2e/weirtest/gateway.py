# SPDX-License-Identifier: Apache-2.0
"""One `weir run` under test: its directory of resources, its ports, its logs, and how it must end."""
import json
import mmap
import os
import pathlib
import platform
import re
import signal
import subprocess

import yaml

from . import resources as res
from .client import Conn, fetch
from .prom import Metrics
from .util import DEADLINE, LOCAL, free_port, wait_until

_BAD_OUTPUT = re.compile(
    r"ERROR: AddressSanitizer|ERROR: LeakSanitizer|WARNING: ThreadSanitizer|^\S+:\d+:\d+: runtime error:|UndefinedBehaviorSanitizer"
    r"|[Aa]ssertion.*failed|ASSERT|stack smashing|Segmentation fault|^thread .*panicked at", re.M)


class Weir:
    """The program under test; the wrapper that dies with us, and TSan's need for a tame address space."""

    def __init__(self, program):
        self.program = str(program)
        with open(program, "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as m:
            self.tsan = m.find(b"ThreadSanitizer") >= 0
            self.asan = m.find(b"AddressSanitizer") >= 0
        self.sanitized = self.tsan or self.asan

    def command(self, *args):
        # clang 14's TSan cannot place its shadow on kernels with 32 bits of mmap randomness.
        wrap = ["setarch", platform.machine(), "-R"] if self.tsan else []
        return [*wrap, "setpriv", "--pdeathsig", "KILL", self.program, *map(str, args)]

    def run(self, *args, timeout=DEADLINE, **more):
        """A subcommand to its end; returns CompletedProcess with text output."""
        return subprocess.run(self.command(*args), capture_output=True, text=True, timeout=timeout, **more)


class _Dumper(yaml.SafeDumper):
    """Quotes what YAML 1.1 reads as a boolean though PyYAML does not."""


_Dumper.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^[yYnN]$"), list("yYnN"))


def dump(content):
    """YAML text of one resource, a list of them, or text as it is."""
    if isinstance(content, str):
        return content
    docs = content if isinstance(content, (list, tuple)) else [content]
    return yaml.dump_all(docs, Dumper=_Dumper, sort_keys=False)


class Gateway:
    """Made by the `gateway` fixture; see start() for what it can be told."""

    def __init__(self, weir, directory, cache):
        self.weir, self.state, self.cache = weir, pathlib.Path(directory), cache
        self.dir = self.state / "resources"
        self.dir.mkdir(parents=True)
        self.stdout_path, self.stderr_path = self.state / "access.log", self.state / "weir.log"
        self.process, self.ended, self.port, self.expect_bad_exit = None, False, None, False

    def start(self, upstream=None, resources=None, limits=None, extra=(), args=(), ready=True, port=None, env=None,
              workers=2, paths=None, drain_time=30, log_level="debug"):
        """upstream: default Gateway, HTTPRoute, Service and EndpointSlice lead to it (an Upstream, a port, or a list).
        resources: dict of file name -> content, instead of the default ones; the Gateway's port is gw.port.
        limits: dict for the Gateway's ConfigMap. extra: more resources beside the default ones.
        ready: wait for /ready. paths: operands instead of the directory."""
        self.port = port or free_port()
        self.admin = free_port()
        if resources is None:
            self.apply("gateway", self.default_resources(upstream, limits))
        else:
            for name, content in resources.items():
                self.apply(name, content(self.port) if callable(content) else content)
        if extra:
            self.apply("extra", list(extra))
        self.args = ["run", *(paths or [self.dir]), "--admin", f"{LOCAL}:{self.admin}", "--cache-dir", self.cache,
                     "--workers", workers, "--drain-time", drain_time, "--log-level", log_level, *args]
        self.spawn(env)
        if ready:
            self.wait_ready()
        return self

    def spawn(self, env=None):
        with open(self.stdout_path, "ab") as out, open(self.stderr_path, "ab") as err:
            self.process = subprocess.Popen(self.weir.command(*self.args), stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                                            env={**os.environ, **(env or {})})
        self.ended = False

    def default_resources(self, upstream=None, limits=None, rules=None):
        """One listener, one route for everything to Service "backend"."""
        docs = [res.gateway(self.port, limits="limits" if limits else None)]
        if limits:
            docs.append(res.limits(limits))
        docs.append(res.route("default", *(rules or [res.rule("backend")])))
        docs += res.backend("backend", upstream if upstream is not None else [])
        return docs

    # -- resources --

    def apply(self, name, content):
        """Writes a file of resources as an editor does: aside, then renamed into place."""
        path = self.dir / (name if "." in name else name + ".yaml")
        aside = self.state / f"aside-{os.getpid()}-{path.name}"
        aside.write_text(dump(content))
        os.rename(aside, path)
        return self

    def remove(self, name):
        (self.dir / (name if "." in name else name + ".yaml")).unlink()
        return self

    # -- traffic --

    def conn(self, port=None, **more):
        return Conn(port or self.port, **more)

    raw = conn

    def request(self, method="GET", path="/", headers=None, body=b"", host="test.example", port=None):
        return fetch(port or self.port, method, path, headers, body, host)

    def get(self, path="/", headers=None, **more):
        return self.request("GET", path, headers, **more)

    # -- admin --

    def admin_request(self, method, path, headers=None, body=b"", host=None):
        return fetch(self.admin, method, path, headers, body, host or f"{LOCAL}:{self.admin}")

    def admin_get(self, path):
        r = self.admin_request("GET", path)
        assert r.status == 200, f"{path}: {r!r}"
        return r

    def metrics(self):
        return Metrics(self.admin_get("/metrics").body.decode())

    def config(self):
        return json.loads(self.admin_get("/config").body)

    def object(self, kind, name, ns=res.NS):
        """One object of /config, or None."""
        return next((o for o in self.config()["objects"] if (o["kind"], o["name"], o["namespace"]) == (kind, name, ns)), None)

    def plugins(self):
        """Of /plugins, by name."""
        return {p["name"]: p for p in json.loads(self.admin_get("/plugins").body)["plugins"]}

    def is_ready(self):
        return self.admin_request("GET", "/ready").status == 200

    def ended_streams(self, reason):
        return self.metrics().value("weir_streams_ended_total", reason=reason)

    # -- waiting --

    def wait(self, condition, what="the condition", deadline=DEADLINE):
        return wait_until(condition, what, deadline, self.check_alive, self.tail)

    def wait_ready(self):
        return self.wait(self.is_ready, "/ready")

    def wait_status(self, status, path="/", headers=None, **more):
        """Until a request is answered so; returns that response."""
        def look():
            r = self.get(path, headers, **more)
            return r if r.status == status else None
        return self.wait(look, f"GET {path} -> {status}")

    def wait_plugin(self, name, state="Active", **fields):
        """Until /plugins shows the plugin so (fields: more members that must be equal)."""
        def look():
            p = self.plugins().get(name)
            return p if p and p["state"] == state and all(p.get(k) == v for k, v in fields.items()) else None
        return self.wait(look, f"plugin {name} {state} {fields}")

    def wait_applied(self, change):
        """Runs change(), then waits until a snapshot newer than before is adopted by every worker."""
        before = self.config()["version"]
        change()
        def look():
            c = self.config()
            return c["version"] > before and c["adopted"] == c["version"]
        return self.wait(look, "the change to be adopted")

    def apply_and_wait(self, name, content):
        self.wait_applied(lambda: self.apply(name, content))
        return self

    def wait_log(self, text, count=1):
        """Until the log has this text (a compiled pattern is searched for) that often."""
        def look():
            log = self.log_text()
            return (len(text.findall(log)) if hasattr(text, "findall") else log.count(text)) >= count
        return self.wait(look, f"the log to have {text!r}")

    # -- output --

    def log_text(self):
        return self.stderr_path.read_text(errors="backslashreplace") if self.stderr_path.exists() else ""

    def access_log(self):
        """Lines so far."""
        return self.stdout_path.read_text(errors="backslashreplace").splitlines() if self.stdout_path.exists() else []

    def wait_access(self, text, count=1):
        """The lines with this text, once there are that many."""
        def look():
            lines = [l for l in self.access_log() if text in l]
            return lines if len(lines) >= count else None
        return self.wait(look, f"{count} access log lines with {text!r}")

    def tail(self):
        return (f"--- end of weir's log ({self.state}):\n" + "\n".join(self.log_text().splitlines()[-40:])
                + "\n--- end of the access log:\n" + "\n".join(self.access_log()[-10:]))

    # -- process --

    @property
    def pid(self):
        return self.process.pid

    def memory_kib(self, field="VmHWM"):
        text = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(rf"^{field}:\s+(\d+) kB", text, re.M)[1])

    def check_alive(self):
        code = self.process.poll()
        assert code is None, f"weir ended with code {code}\n{self.tail()}"

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self

    def wait_exit(self, timeout=DEADLINE):
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"weir does not end\n{self.tail()}") from None

    def stop(self):
        """Drains it by SIGTERM, and asserts that it ends well."""
        if self.process.poll() is None:
            self.signal()
        self.assert_ended()

    def assert_ended(self, code=0):
        got = self.wait_exit()
        self.ended = True
        assert got == code, f"weir ended with code {got}, not {code}\n{self.tail()}"
        self.assert_clean()

    def assert_clean(self):
        bad = _BAD_OUTPUT.search(self.log_text())
        if bad is not None:
            at = bad.start()
            raise AssertionError(f"weir's log has a report:\n{self.log_text()[max(0, at - 500):at + 6000]}")

    def teardown(self):
        """Whatever the test left: ends it without waiting for its streams, kills it when it hangs, and still looks at how it ended."""
        if self.process is None or self.ended:
            return
        try:
            if self.process.poll() is None:
                self.signal()
                try:
                    self.process.wait(2)
                except subprocess.TimeoutExpired:
                    self.signal()  # the second one does not wait for streams
            self.wait_exit()
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
        if not self.expect_bad_exit:
            self.assert_ended()
