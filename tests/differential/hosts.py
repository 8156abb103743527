# SPDX-License-Identifier: Apache-2.0
"""The two hosts: Weir and Envoy (of the bench's virtual environment), each with one worker, the same filter, the same
upstream, and as alike as their configurations allow."""
import glob
import json
import os
import pathlib
import re
import subprocess
import urllib.request

from weirtest import resources as res
from weirtest.gateway import Gateway, Weir
from weirtest.util import LOCAL, free_port, wait_until

ROOT = pathlib.Path(__file__).resolve().parents[2]


def envoy_program():
    named = os.environ.get("ENVOY")
    if named:
        return named
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    found = glob.glob(f"{cache}/weir/bench-venv/lib/python*/site-packages/envoy/_bin/envoy")
    return found[0] if found else None


def _typed(name, **fields):
    return {"@type": "type.googleapis.com/envoy.extensions." + name, **fields}


def _address(port):
    return {"socket_address": {"address": LOCAL, "port_value": port}}


class Filter:
    """What both hosts are told of a filter."""

    def __init__(self, wasm, config=None, name="puppet", headers_only=False, env=None, fail="FAIL_CLOSE", annotations=None, root=None):
        """annotations: Weir's alone."""
        self.wasm, self.config, self.name, self.headers_only = str(wasm), config, name, headers_only
        self.annotations = {**({"plugin.weir/on-headers-pause": "headers"} if headers_only else {}), **(annotations or {})}
        self.env, self.fail, self.root = env or {}, fail, name if root is None else root

    def text(self):
        """As Istio delivers pluginConfig: compact JSON."""
        return self.config if isinstance(self.config, str) or self.config is None else json.dumps(self.config, separators=(",", ":"))


class EnvoyHost:
    name = "envoy"
    log_line = re.compile(r"wasm log [^:]*: (.*)$")

    def __init__(self, directory, filters, upstream, buffer_bytes=None, level="trace"):
        self.port, self.admin = free_port(), free_port()
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.log_path = self.directory / "envoy.log"
        path = self.directory / "envoy.json"
        path.write_text(json.dumps(self._config(filters, upstream, buffer_bytes), indent=1))
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", envoy_program(), "-c", str(path), "--concurrency", "1", "--disable-hot-restart",
                 "--log-level", "warning", "--component-log-level", f"wasm:{level}", "--log-format", "%l %v"],
                stdout=log, stderr=subprocess.STDOUT)
        wait_until(self._ready, "Envoy", explain=self.log_text)

    def _ready(self):
        assert self.process.poll() is None or exit(self.log_text()[-3000:])
        with urllib.request.urlopen(f"http://{LOCAL}:{self.admin}/ready", timeout=2) as r:
            return r.status == 200

    def _filter(self, f):
        fields = {"name": f.name, "root_id": f.root, "fail_open": f.fail == "FAIL_OPEN",
                  "vm_config": {"runtime": "envoy.wasm.runtime.v8", "vm_id": res.NS, "code": {"local": {"filename": f.wasm}},
                                "environment_variables": {"key_values": f.env}}}
        if f.text() is not None:
            fields["configuration"] = {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": f.text()}
        if f.headers_only:
            fields["allow_on_headers_stop_iteration"] = True
        return {"name": f.name, "typed_config": _typed("filters.http.wasm.v3.Wasm", config=fields)}

    def _cluster(self, name, port=None):
        options = {"explicit_http_config": {"http_protocol_options": {"enable_trailers": True}}}
        return {"name": name, "type": "STATIC", "connect_timeout": "5s",
                "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions":
                                                     _typed("upstreams.http.v3.HttpProtocolOptions", **options)},
                "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [
                    {"endpoint": {"address": _address(port)}}] if port else []}]}}

    def _config(self, filters, upstream, buffer_bytes):
        manager = _typed("filters.network.http_connection_manager.v3.HttpConnectionManager",
                         stat_prefix="d", use_remote_address=True, normalize_path=True,
                         http_protocol_options={"enable_trailers": True, "accept_http_10": True},
                         route_config={"name": "routes", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
                             
                             {"match": {"prefix": "/"}, "name": "istio-system.default.0", "route": {"cluster": CLUSTER, "timeout": "0s"}}]}]},
                         http_filters=[self._filter(f) for f in filters] + [
                             {"name": "router", "typed_config": _typed("filters.http.router.v3.Router")}])
        listener = {"name": "d", "address": _address(self.port), "filter_chains": [
            {"filters": [{"name": "http", "typed_config": manager}]}]}
        if buffer_bytes:
            listener["per_connection_buffer_limit_bytes"] = buffer_bytes
        return {"node": {"id": "node", "cluster": "cluster"}, "admin": {"address": _address(self.admin)},
                "static_resources": {"listeners": [listener], "clusters": [
                    self._cluster(CLUSTER, upstream.port), self._cluster("outbound|80||dead.istio-system.svc.cluster.local", free_port()),
                    self._cluster("outbound|80||nobody.istio-system.svc.cluster.local")]}}

    def log_text(self):
        return self.log_path.read_text(errors="backslashreplace")

    def lines(self):
        return [m[1] for m in (self.log_line.search(l) for l in self.log_text().splitlines()) if m]

    def raw_metrics(self):
        with urllib.request.urlopen(f"http://{LOCAL}:{self.admin}/stats/prometheus", timeout=5) as r:
            return r.read().decode()

    def is_gone(self):
        return self.process.poll() is not None

    def stop(self):
        self.process.terminate()
        self.process.wait(60)


CLUSTER = "outbound|80||backend.istio-system.svc.cluster.local"


class WeirHost:
    name = "weir"
    log_line = re.compile(r"wasm \S+?: (?:\[\d+\] )?(.*)$")

    def __init__(self, directory, filters, upstream, buffer_bytes=None, level="trace"):
        directory = pathlib.Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        program = Weir(os.environ.get("WEIR", ROOT / "build" / "weir"))
        cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "weir" / "differential"
        cache.mkdir(parents=True, exist_ok=True)
        cache.chmod(0o700)
        self.g = Gateway(program, directory, cache)
        plugins = []
        for i, f in enumerate(filters):
            p = res.plugin(f.name, f.wasm, None, priority=1000 - i, failStrategy=f.fail,
                           annotations=f.annotations)
            if f.root:
                p["spec"]["pluginName"] = f.root
            if f.config is not None:
                p["spec"]["pluginConfig"] = f.config
            if f.env:
                p["spec"]["vmConfig"] = {"env": [{"name": n, "value": v} for n, v in f.env.items()]}
            plugins.append(p)
        limits = {"buffer-bytes": str(buffer_bytes)} if buffer_bytes else None
        extra = plugins + res.backend("dead", free_port()) + res.backend("nobody", [])
        self.g.start(upstream, workers=1, limits=limits, extra=extra, log_level=level)
        for f in filters:
            self.g.wait_plugin(f.name)
        self.port = self.g.port

    def log_text(self):
        return self.g.log_text()

    def lines(self):
        return [m[1] for m in (self.log_line.search(l) for l in self.log_text().splitlines()) if m]

    def raw_metrics(self):
        return self.g.admin_get("/metrics").text

    def stop(self):
        self.g.stop()
