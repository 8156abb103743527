# SPDX-License-Identifier: Apache-2.0
"""Registries to pull from: Debian's docker-registry as it is, and one whose every answer a test counts and may spoil."""
import base64
import collections
import crypt
import hashlib
import http.client
import http.server
import json
import os
import pathlib
import signal
import socket
import socketserver
import subprocess
import threading
import urllib.parse

from .util import LOCAL, free_port, wait_until

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
LAYER = "application/vnd.module.wasm.content.layer.v1+wasm"


def digest_of(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def image_of(wasm, layer_type=LAYER, config=b"{}", config_type="application/vnd.module.wasm.config.v1+json", annotations=None):
    """A module as an OCI artifact: (manifest bytes, [(digest, blob bytes)])."""
    wasm = pathlib.Path(wasm).read_bytes() if isinstance(wasm, (str, pathlib.Path)) else wasm
    blobs = [(digest_of(config), config), (digest_of(wasm), wasm)]
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST,
                "config": {"mediaType": config_type, "digest": blobs[0][0], "size": len(config)},
                "layers": [{"mediaType": layer_type, "digest": blobs[1][0], "size": len(wasm)}]}
    if annotations:
        manifest["annotations"] = annotations
    return json.dumps(manifest).encode(), blobs


def basic(user, password):
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def docker_config(host, user, password):
    """Text of .dockerconfigjson."""
    return json.dumps({"auths": {host: {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}}})


def pull_secret(name, host, user, password, ns="istio-system", type_="kubernetes.io/dockerconfigjson"):
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": ns}, "type": type_,
            "data": {".dockerconfigjson": base64.b64encode(docker_config(host, user, password).encode()).decode()}}


class DockerRegistry:
    """`docker-registry serve` on loopback, with a directory of its own."""

    def __init__(self, directory, user=None, password=None):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port, self.user, self.password, self.process = free_port(), user, password, None
        self.host = f"{LOCAL}:{self.port}"
        config = {"version": 0.1, "log": {"level": "error"}, "storage": {"filesystem": {"rootdirectory": str(self.directory / "data")}},
                  "http": {"addr": self.host}}
        if user:
            # bcrypt is all it reads.
            (self.directory / "htpasswd").write_text(f"{user}:{crypt.crypt(password, '$2b$05$' + 'a' * 22)}\n")
            config["auth"] = {"htpasswd": {"realm": "test", "path": str(self.directory / "htpasswd")}}
        (self.directory / "config.yml").write_text(json.dumps(config))
        self.start()

    def start(self):
        log = open(self.directory / "log", "ab")
        self.process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "docker-registry", "serve", self.directory / "config.yml"],
                                        stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={"PATH": os.environ["PATH"]})
        log.close()
        wait_until(lambda: self._request("GET", "/v2/")[0] in (200, 401), "docker-registry to answer")
        return self

    def stop(self):
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def _request(self, method, path, body=None, headers=None):
        conn = http.client.HTTPConnection(LOCAL, self.port, timeout=60)
        try:
            headers = dict(headers or {})
            if self.user:
                headers["authorization"] = basic(self.user, self.password)
            conn.request(method, path, body, headers)
            r = conn.getresponse()
            return r.status, dict((k.lower(), v) for k, v in r.getheaders()), r.read()
        finally:
            conn.close()

    def push(self, repository, tag, wasm, **more):
        """Digest of the manifest."""
        manifest, blobs = image_of(wasm, **more)
        for digest, blob in blobs:
            status, headers, _ = self._request("POST", f"/v2/{repository}/blobs/uploads/")
            assert status == 202, status
            where = urllib.parse.urlsplit(headers["location"])
            query = f"{where.query}&digest={digest}" if where.query else f"digest={digest}"
            status, _, text = self._request("PUT", f"{where.path}?{query}", blob, {"content-type": "application/octet-stream"})
            assert status == 201, (status, text)
        status, _, text = self._request("PUT", f"/v2/{repository}/manifests/{tag}", manifest, {"content-type": MANIFEST})
        assert status == 201, (status, text)
        return digest_of(manifest)


class Asked(collections.namedtuple("Asked", "method kind repository what authorization")):
    """One request: kind is "manifest" or "blob", what a tag or digest."""


class ScriptedRegistry:
    """Answers from memory. `asked` has every request; spoil(kind, fn) lets fn(handler) answer instead: it returns True when it did."""

    def __init__(self, user=None, password=None):
        self.blobs, self.manifests, self.tags = {}, {}, {}
        self.asked, self.spoilers, self.lock, self.connections = [], {}, threading.Lock(), set()
        self.authorization = basic(user, password) if user else None
        self.port, self.server = free_port(), None
        self.host = f"{LOCAL}:{self.port}"
        self.start()

    def start(self):
        registry = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            registry = self

            def setup(self):
                super().setup()
                with registry.lock:
                    registry.connections.add(self.connection)

            def finish(self):
                with registry.lock:
                    registry.connections.discard(self.connection)
                try:
                    super().finish()
                except OSError:
                    pass

            def do_GET(self):
                registry._serve(self)

            do_HEAD = do_GET

            def answer(self, status, body=b"", headers=(), length=None):
                self.send_response(status)
                for name, value in dict(headers).items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body) if length is None else length))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def log_message(self, *_):
                pass

        class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
            daemon_threads, allow_reuse_address, request_queue_size = True, True, 128

            def handle_error(self, *_):
                pass

        self.server = Server((LOCAL, self.port), Handler)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def stop(self):
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None
            with self.lock:
                for c in self.connections:  # kept alive, they would be answered still
                    try:
                        c.shutdown(socket.SHUT_RDWR)
                    except OSError:
                        pass

    def push(self, repository, tag, wasm, **more):
        manifest, blobs = image_of(wasm, **more)
        with self.lock:
            self.blobs.update(blobs)
            self.manifests[digest_of(manifest)] = manifest
            self.tags[repository, tag] = digest_of(manifest)
        return digest_of(manifest)

    def spoil(self, kind, fn):
        self.spoilers[kind] = fn

    def mend(self):
        self.spoilers.clear()

    def count(self, kind=None, since=0):
        return sum(1 for a in self.asked[since:] if kind in (None, a.kind))

    def _serve(self, h):
        parts = urllib.parse.urlsplit(h.path).path.split("/")
        if len(parts) < 5 or parts[1] != "v2" or parts[-2] not in ("manifests", "blobs"):
            if self.authorization and h.headers.get("authorization") != self.authorization:
                h.answer(401, headers={"www-authenticate": 'Basic realm="test"'})
            else:
                h.answer(200, b"{}") if h.path in ("/v2", "/v2/") else h.answer(404)
            return
        kind, repository, what = parts[-2][:-1], "/".join(parts[2:-2]), parts[-1]
        with self.lock:
            self.asked.append(Asked(h.command, kind, repository, what, h.headers.get("authorization")))
        if self.authorization and h.headers.get("authorization") != self.authorization:
            h.answer(401, headers={"www-authenticate": 'Basic realm="test"'})
            return
        spoiler = self.spoilers.get(kind)
        if spoiler is not None and spoiler(h):
            return
        if kind == "blob":
            body = self.blobs.get(what)
            h.answer(200, body, {"content-type": "application/octet-stream"}) if body is not None else h.answer(404)
            return
        digest = what if what.startswith("sha256:") else self.tags.get((repository, what))
        body = self.manifests.get(digest)
        if body is None:
            h.answer(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}', {"content-type": "application/json"})
        else:
            h.answer(200, body, {"content-type": MANIFEST, "docker-content-digest": digest})
