# SPDX-License-Identifier: Apache-2.0
"""A real Kubernetes API server: Debian's etcd, and kube-apiserver and kubectl built by tools/kubernetes. No controllers, no
kubelet: what is applied stays as it is, and a Pod's log comes from the stand-in below."""
import http.server
import json
import os
import pathlib
import ssl
import subprocess
import threading

import yaml

from .gateway import dump
from .util import DEADLINE, LOCAL, free_port, wait_until

ROOT = pathlib.Path(__file__).resolve().parents[3]
TOOLS = os.environ.get("WEIR_KUBERNETES", "")
ADMIN_TOKEN = "admin-token-of-a-test"


def _run(*args, **more):
    r = subprocess.run([str(a) for a in args], capture_output=True, text=True, timeout=DEADLINE, **more)
    assert r.returncode == 0, f"{args[0]} ended with {r.returncode}: {r.stderr}\n{r.stdout}"
    return r.stdout


def make_certificates(directory):
    """A CA, and a certificate of 127.0.0.1 signed by it: ca.crt, tls.crt, tls.key."""
    d = pathlib.Path(directory)
    _run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-subj", "/CN=test ca",
         "-keyout", d / "ca.key", "-out", d / "ca.crt")
    sign(d, "tls", "/CN=kube-apiserver", "subjectAltName=IP:127.0.0.1,DNS:kubernetes.default.svc")
    _run("openssl", "genrsa", "-out", d / "sa.key", "2048")


def sign(d, name, subject, extension):
    _run("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", subject,
         "-keyout", d / f"{name}.key", "-out", d / f"{name}.csr")
    (d / f"{name}.ext").write_text(extension + "\n")
    _run("openssl", "x509", "-req", "-in", d / f"{name}.csr", "-CA", d / "ca.crt", "-CAkey", d / "ca.key", "-CAcreateserial",
         "-days", "30", "-extfile", d / f"{name}.ext", "-out", d / f"{name}.crt")


class Cluster:
    def __init__(self, directory):
        self.dir = pathlib.Path(directory)
        self.etcd_port, self.peer_port, self.port = free_port(), free_port(), free_port()
        self.etcd = self.server = None
        make_certificates(self.dir)
        (self.dir / "tokens.csv").write_text(f'{ADMIN_TOKEN},admin,admin,"system:masters"\n')
        self.config = self.kubeconfig("admin", token=ADMIN_TOKEN)
        self.start_etcd()
        self.start_server()

    # -- processes --

    def _spawn(self, name, *args):
        with open(self.dir / f"{name}.log", "ab") as log:
            return subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *map(str, args)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def start_etcd(self):
        url, peer = f"http://{LOCAL}:{self.etcd_port}", f"http://{LOCAL}:{self.peer_port}"
        self.etcd = self._spawn("etcd", "etcd", "--data-dir", self.dir / "etcd", "--listen-client-urls", url, "--advertise-client-urls", url,
                                "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}",
                                "--unsafe-no-fsync")

    def start_server(self):
        d = self.dir
        self.server = self._spawn(
            "apiserver", f"{TOOLS}/bin/kube-apiserver", f"--etcd-servers=http://{LOCAL}:{self.etcd_port}", f"--secure-port={self.port}",
            f"--bind-address={LOCAL}", f"--advertise-address={LOCAL}", f"--cert-dir={d}", f"--tls-cert-file={d}/tls.crt",
            f"--tls-private-key-file={d}/tls.key",
            f"--client-ca-file={d}/ca.crt", f"--token-auth-file={d}/tokens.csv", "--authorization-mode=RBAC",
            f"--service-account-key-file={d}/sa.key", f"--service-account-signing-key-file={d}/sa.key",
            f"--service-account-issuer=https://{LOCAL}:{self.port}", "--service-cluster-ip-range=10.0.0.0/24",
            "--endpoint-reconciler-type=none", "--disable-admission-plugins=ServiceAccount", "--etcd-compaction-interval=0",
            "--shutdown-delay-duration=0s", "--kubelet-preferred-address-types=InternalIP", "--v=1")
        wait_until(lambda: self.kubectl("get", "--raw", "/readyz", check=False).stdout.strip() == "ok", "kube-apiserver", explain=self.tail,
                   alive=self.check_alive)

    def check_alive(self):
        for name, process in (("etcd", self.etcd), ("apiserver", self.server)):
            assert process.poll() is None, f"{name} ended\n{self.tail()}"

    def tail(self):
        return "\n".join(f"--- {n}\n" + "\n".join((self.dir / f"{n}.log").read_text(errors="replace").splitlines()[-15:])
                         for n in ("etcd", "apiserver") if (self.dir / f"{n}.log").exists())

    def stop_server(self, kill=True):
        (self.server.kill if kill else self.server.terminate)()
        self.server.wait(DEADLINE)

    def compact(self):
        """Everything older than now is gone from etcd: a watch from before gets 410."""
        env = {**os.environ, "ETCDCTL_API": "3"}
        end = f"http://{LOCAL}:{self.etcd_port}"
        status = json.loads(_run("etcdctl", "--endpoints", end, "endpoint", "status", "-w", "json", env=env))
        revision = status[0]["Status"]["header"]["revision"]
        _run("etcdctl", "--endpoints", end, "compact", revision, env=env)

    def stop(self):
        for process in (self.server, self.etcd):
            if process and process.poll() is None:
                process.kill()
                process.wait(DEADLINE)

    # -- access --

    def kubeconfig(self, name, ns="default", **user):
        path = self.dir / f"kubeconfig-{name}"
        path.write_text(yaml.safe_dump({
            "apiVersion": "v1", "kind": "Config", "current-context": name,
            "clusters": [{"name": "c", "cluster": {"server": f"https://{LOCAL}:{self.port}", "certificate-authority": "ca.crt"}}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": name, "context": {"cluster": "c", "user": name, "namespace": ns}}]}))
        path.chmod(0o600)
        return path

    def kubectl(self, *args, config=None, stdin=None, check=True, binary=None):
        env = {**os.environ, "KUBECONFIG": str(config or self.config), "HOME": str(self.dir)}
        r = subprocess.run([binary or f"{TOOLS}/bin/kubectl", *map(str, args)], input=stdin, capture_output=True, text=True, timeout=DEADLINE, env=env)
        assert not check or r.returncode == 0, f"kubectl {' '.join(map(str, args))}: {r.stderr}\n{r.stdout}"
        return r

    def apply(self, *docs, **more):
        return self.kubectl("apply", "-f", "-", stdin=dump(list(docs)) if not isinstance(docs[0], str) else docs[0], **more)

    def get(self, kind, name, ns="istio-system", subresource=None):
        return json.loads(self.kubectl("get", kind, name, "-n", ns, "-o", "json").stdout)

    def delete(self, kind, name, ns="istio-system"):
        return self.kubectl("delete", kind, name, "-n", ns, "--wait=false")

    def namespace(self, name):
        return self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    def service_account(self, name, ns="istio-system", seconds=3600, bound=None):
        """A token of a service account; bound: a Secret it is bound to, whose end is the token's."""
        self.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": ns}})
        more = ["--bound-object-kind", "Secret", "--bound-object-name", bound] if bound else []
        return self.kubectl("create", "token", name, "-n", ns, "--duration", f"{seconds}s", *more).stdout.strip()

    KINDS = ("wasmplugins.extensions.istio.io,envoyfilters.networking.istio.io,gateways.gateway.networking.k8s.io,"
             "httproutes.gateway.networking.k8s.io,serviceentries.networking.istio.io,leases.coordination.k8s.io,pods,events")

    def clean(self):
        """Objects of the tests; what a test adds besides it takes away itself."""
        self.kubectl("delete", self.KINDS, "-A", "--all", "--wait=false", "--grace-period=0", "--force", check=False)


class Kubelet:
    """Answers GET /containerLogs/NS/POD/CONTAINER as a kubelet does, from a file."""

    def __init__(self, cluster, log_path):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                ok = self.path.startswith("/containerLogs/")
                body = pathlib.Path(log_path).read_bytes() if ok else b""
                self.send_response(200 if ok else 404)
                self.send_header("content-type", "text/plain")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cluster.dir / "tls.crt", cluster.dir / "tls.key")
        self.server = http.server.ThreadingHTTPServer((LOCAL, 0), Handler)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.cluster = cluster

    def register(self, node, pod, labels, ns="istio-system", container="weir"):
        """A Node whose kubelet this is, and a Pod that runs on it."""
        c = self.cluster
        c.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}})
        c.kubectl("patch", "node", node, "--subresource=status", "--type=merge", "-p", json.dumps({"status": {
            "addresses": [{"type": "InternalIP", "address": LOCAL}], "daemonEndpoints": {"kubeletEndpoint": {"Port": self.port}}}}))
        c.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod, "namespace": ns, "labels": labels},
                 "spec": {"nodeName": node, "containers": [{"name": container, "image": "weir"}], "automountServiceAccountToken": False}})
        c.kubectl("patch", "pod", pod, "-n", ns, "--subresource=status", "--type=merge", "-p", json.dumps({"status": {
            "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": container, "ready": True, "restartCount": 0, "image": "weir", "imageID": "",
                                   "state": {"running": {}}}]}}))

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
