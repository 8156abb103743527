# SPDX-License-Identifier: Apache-2.0
"""Debian's docker-registry with every kind of authentication and with TLS, a token server, and pushes by hand and by
buildah."""
import base64
import hashlib
import http.server
import io
import json
import os
import pathlib
import signal
import socketserver
import ssl
import subprocess
import tarfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

from .registries import basic, digest_of
from .util import LOCAL, free_port, wait_until

OCI = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


def run(*command, **more):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=240, **more)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


def make_certificate(directory, name, hosts="IP:127.0.0.1,DNS:localhost"):
    """(certificate, key): self-signed, so it is its own authority."""
    crt, key = directory / f"{name}.crt", directory / f"{name}.key"
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", f"/CN={name}",
        "-addext", f"subjectAltName={hosts}", "-keyout", key, "-out", crt)
    return crt, key


class TokenServer:
    """Gives JWTs as the distribution project specifies. user:password may push; anonymous may pull what is named public/."""

    def __init__(self, directory, user, password, service="weir-test", issuer="issuer"):
        self.crt, self.key = make_certificate(directory, "token")
        self.user, self.password, self.service, self.issuer = user, password, service, issuer
        self.asked, self.refresh_token = [], "a refresh/token+"
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                outer._get(self)

            def do_POST(self):
                outer._post(self)

            def answer(self, status, doc):
                body = json.dumps(doc).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
            daemon_threads = True

        self.server = Server((LOCAL, 0), Handler)
        self.realm = f"http://{LOCAL}:{self.server.server_port}/token"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()

    def _token(self, scopes, who):
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":", 2)
            actions = [a for a in actions.split(",") if who or (a == "pull" and name.startswith("public/"))]
            access.append({"type": kind, "name": name, "actions": actions})
        def encode(b):
            return base64.urlsafe_b64encode(b).rstrip(b"=").decode()
        der = base64.b64encode(ssl.PEM_cert_to_DER_cert(self.crt.read_text())).decode()
        now = int(time.time())
        head = {"typ": "JWT", "alg": "ES256", "x5c": [der]}
        claims = {"iss": self.issuer, "sub": who or "", "aud": self.service, "exp": now + 3600, "nbf": now - 60, "iat": now, "jti": str(time.time_ns()),
                  "access": access}
        text = encode(json.dumps(head).encode()) + "." + encode(json.dumps(claims).encode())
        der_sig = subprocess.run(["openssl", "dgst", "-sha256", "-sign", self.key], input=text.encode(), capture_output=True, check=True).stdout
        # ASN.1 SEQUENCE of two INTEGERs into r || s.
        r_len = der_sig[3]
        r, s = der_sig[4:4 + r_len], der_sig[6 + r_len:]
        raw = int.from_bytes(r, "big").to_bytes(32, "big") + int.from_bytes(s, "big").to_bytes(32, "big")
        return f"{text}.{encode(raw)}"

    def _get(self, h):
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(h.path).query)
        self.asked.append(("GET", query, h.headers.get("authorization")))
        who = None
        if h.headers.get("authorization"):
            if h.headers["authorization"] != basic(self.user, self.password):
                h.answer(401, {"errors": [{"code": "UNAUTHORIZED", "message": "wrong password"}]})
                return
            who = self.user
        h.answer(200, {"token": self._token(query.get("scope", []), who)})

    def _post(self, h):
        form = urllib.parse.parse_qs(h.rfile.read(int(h.headers["content-length"])).decode())
        self.asked.append(("POST", form, None))
        if form.get("grant_type") != ["refresh_token"] or form.get("refresh_token") != [self.refresh_token]:
            h.answer(401, {"errors": [{"code": "UNAUTHORIZED", "message": "wrong token"}]})
            return
        h.answer(200, {"access_token": self._token(form.get("scope", []), self.user)})


class Registry:
    """docker-registry of its own; auth None, "basic" or "token"."""

    def __init__(self, directory, auth=None, tls=False, user="u", password="p"):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True)
        self.port, self.user, self.password, self.process, self.tokens, self.ca = free_port(), user, password, None, None, None
        self.host = f"{LOCAL}:{self.port}"
        config = {"version": 0.1, "log": {"level": "error"}, "storage": {"filesystem": {"rootdirectory": str(self.directory / "data")}},
                  "http": {"addr": self.host}}
        if auth == "basic":
            import crypt
            (self.directory / "htpasswd").write_text(f"{user}:{crypt.crypt(password, '$2b$05$' + 'a' * 22)}\n")
            config["auth"] = {"htpasswd": {"realm": "test", "path": str(self.directory / "htpasswd")}}
        if auth == "token":
            self.tokens = TokenServer(self.directory, user, password)
            config["auth"] = {"token": {"realm": self.tokens.realm, "service": self.tokens.service, "issuer": self.tokens.issuer,
                                        "rootcertbundle": str(self.tokens.crt)}}
        if tls:
            self.ca, key = make_certificate(self.directory, "registry")
            config["http"]["tls"] = {"certificate": str(self.ca), "key": str(key)}
        self.url = f"http{'s' if tls else ''}://{self.host}"
        (self.directory / "config.yml").write_text(json.dumps(config))
        log = open(self.directory / "log", "ab")
        self.process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "docker-registry", "serve", self.directory / "config.yml"],
                                        stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={"PATH": os.environ["PATH"]})
        log.close()
        wait_until(self._is_up, "docker-registry to answer")

    def _is_up(self):
        try:
            return self.request("GET", "/v2/")[0] in (200, 401)
        except OSError:
            return False

    def stop(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        if self.tokens:
            self.tokens.stop()

    def request(self, method, url, body=None, headers=None):
        headers = dict(headers or {}, authorization=basic(self.user, self.password))
        context = ssl.create_default_context(cafile=str(self.ca)) if self.ca else None
        request = urllib.request.Request(urllib.parse.urljoin(self.url, url), data=body, method=method, headers=headers)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), *([urllib.request.HTTPSHandler(context=context)] if context else []))
        try:
            with opener.open(request, timeout=60) as r:
                return r.status, r.headers, r.read()
        except urllib.error.HTTPError as e:
            return e.code, e.headers, e.read()

    def blob(self, repository, data):
        """Puts it there; a descriptor without media type."""
        status, headers, text = self.request("POST", f"/v2/{repository}/blobs/uploads/", b"")
        assert status == 202, (status, text)
        where = headers["location"]
        status, _, text = self.request("PUT", f"{where}{'&' if '?' in where else '?'}digest={digest_of(data)}", data, {"content-type": "application/octet-stream"})
        assert status == 201, (status, text)
        return {"digest": digest_of(data), "size": len(data)}

    def manifest(self, repository, tag, doc, media_type=OCI):
        """Its digest."""
        data = json.dumps(dict({"schemaVersion": 2, "mediaType": media_type}, **doc)).encode()
        status, _, text = self.request("PUT", f"/v2/{repository}/manifests/{tag or digest_of(data)}", data, {"content-type": media_type})
        assert status == 201, (status, text)
        return digest_of(data)

    def artifact(self, repository, tag, layers, config_type="application/vnd.oci.empty.v1+json", **more):
        """layers: (media type, bytes, annotations)."""
        described = [dict(self.blob(repository, data), mediaType=kind, **({"annotations": notes} if notes else {})) for kind, data, notes in layers]
        return self.manifest(repository, tag, dict({"config": dict(self.blob(repository, b"{}"), mediaType=config_type), "layers": described}, **more))


def tar_of(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as t:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            t.addfile(info, io.BytesIO(data))
    return out.getvalue()


class Buildah:
    """docker build and docker push without an engine."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.base = ["buildah", "--storage-driver", "vfs", "--root", self.directory / "root", "--runroot", self.directory / "run"]

    def build(self, context, name):
        run(*self.base, "bud", "--isolation", "chroot", "-t", name, context)

    def push(self, name, to, *options):
        run(*self.base, "push", "--tls-verify=false", *options, name, f"docker://{to}")

    def pull(self, name):
        run(*self.base, "pull", "--tls-verify=false", name)
