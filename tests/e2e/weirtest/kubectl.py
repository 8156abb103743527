# SPDX-License-Identifier: Apache-2.0
"""kubectl against `weir run --kube-api`. WEIR_KUBECTLS names the programs to run, separated by colons; without it Debian's
kubectl and the one on PATH, where that is another."""
import functools
import json
import os
import pathlib
import shutil
import subprocess

from .client import fetch
from .guests import ROOT
from .util import DEADLINE, LOCAL, free_port


def _version(program):
    done = subprocess.run([program, "version", "--client", "-o", "json"], capture_output=True, text=True, timeout=DEADLINE,
                          env={**os.environ, "KUBECONFIG": "/nonexistent"})
    v = json.loads(done.stdout)["clientVersion"]
    return int(v["major"]), int("".join(c for c in v["minor"] if c.isdigit()))


@functools.lru_cache(maxsize=None)
def programs():
    """[(version, path)], oldest first, one of each version."""
    named = os.environ.get("WEIR_KUBECTLS")
    if named:
        found = [p for p in named.split(":") if p]
    else:
        debian = subprocess.run([ROOT / "tools/kubectl-debian"], capture_output=True, text=True)
        found = [debian.stdout.strip()] if debian.returncode == 0 else []
        if shutil.which("kubectl"):
            found.append(shutil.which("kubectl"))
    by_version = {}
    for p in found:
        by_version.setdefault(_version(p), p)
    return sorted(by_version.items())


def version_text(version):
    return f"{version[0]}.{version[1]}"


class Kubectl:
    """One kubectl with a home of its own, so that its caches are its own too."""

    def __init__(self, program, port, home):
        self.program, self.port, self.home = program, port, pathlib.Path(home)
        self.home.mkdir(parents=True, exist_ok=True)
        self.env = {"PATH": os.environ["PATH"], "HOME": str(self.home), "TERM": "dumb"}

    def command(self, *args):
        return [self.program, "-s", f"http://{LOCAL}:{self.port}", *map(str, args)]

    def run(self, *args, input=None, code=0, env=None):
        """Its output; code None: any."""
        done = subprocess.run(self.command(*args), input=input, capture_output=True, text=True, timeout=DEADLINE,
                              env={**self.env, **(env or {})})
        text = done.stdout + done.stderr
        assert code is None or done.returncode == code, f"kubectl {' '.join(map(str, args))}: {done.returncode}\n{text}"
        return text

    def fails(self, *args, **more):
        return self.run(*args, code=1, **more)

    def json(self, *args):
        return json.loads(self.run(*args, "-o", "json"))

    def start(self, *args):
        """In the background; its output is a pipe."""
        return subprocess.Popen(self.command(*args), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=self.env)


def api_args(state_dir, port=None):
    """Arguments of `weir run`, and the port."""
    port = port or free_port()
    return ["--kube-api", f"{LOCAL}:{port}", "--state-dir", str(state_dir)], port


class Api:
    """The API without kubectl: one connection for each request, JSON in and out."""

    def __init__(self, port):
        self.port = port

    def ask(self, method, path, body=None, type="application/json", headers=None):
        """The response; .json() is its body."""
        data = body if isinstance(body, (bytes, str)) else json.dumps(body) if body is not None else b""
        fields = {"Accept": "application/json", **({"Content-Type": type} if data else {}), **(headers or {})}
        return fetch(self.port, method, path, fields, data, f"{LOCAL}:{self.port}")

    def get(self, path, **more):
        r = self.ask("GET", path, **more)
        assert r.status == 200, f"GET {path}: {r!r}"
        return r.json()

    def is_there(self):
        return self.ask("GET", "/version").status == 200
