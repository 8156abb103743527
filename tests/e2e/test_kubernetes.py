# SPDX-License-Identifier: Apache-2.0
"""Weir reading from a real kube-apiserver (make test-kubernetes; WEIR_KUBERNETES names the folder of tools/kubernetes)."""
import functools
import http.server
import json
import pathlib
import threading
import time

import pytest

from weirtest import resources as res
from weirtest.kubernetes import ROOT, Cluster, Kubelet
from weirtest.util import LOCAL, wait_until

pytestmark = pytest.mark.xdist_group("kubernetes")
CLASS = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": {"name": "weir"},
         "spec": {"controllerName": "gateway.weir/controller"}}


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    c = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        for f in sorted((ROOT / "deploy/crds").glob("*.yaml")):
            c.kubectl("apply", "--server-side", "-f", f)
        c.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
        c.namespace("istio-system")
        c.apply(CLASS)
        yield c
    finally:
        c.stop()


@pytest.fixture
def cluster(api):
    yield api
    api.check_alive()
    api.clean()


@pytest.fixture(scope="module")
def modules(tmp_path_factory, guests):
    """Modules over http, since a cluster's objects may not name files of the gateway's machine."""
    directory = tmp_path_factory.mktemp("modules")
    handler = functools.partial(type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *a: None}), directory=str(directory))
    server = http.server.ThreadingHTTPServer((LOCAL, 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def url(guest):
        (directory / f"{guest}.wasm").write_bytes(pathlib.Path(guests.build(guest)).read_bytes())
        return f"http://{LOCAL}:{server.server_address[1]}/{guest}.wasm"

    yield url
    server.shutdown()
    server.server_close()


@pytest.fixture
def weir_on(cluster, gateway, upstream):
    """Starts a gateway that reads from the cluster. Its backend comes from a file: the API server takes no loopback
    addresses in EndpointSlices."""
    def start(*args, config=None, ready=True, apply=True, **more):
        g = gateway(start=False)
        from weirtest.util import free_port
        g.port = more.pop("port", None) or free_port()
        if apply:
            cluster.apply(res.gateway(g.port), res.route("default", res.rule("backend")))
        return g.start(resources={"backend": res.backend("backend", more.pop("up", None) or upstream())}, port=g.port, ready=ready,
                       args=["--kubernetes", "--kubeconfig", config or cluster.config, *args], **more)
    return start


def watches(g):
    return {(w["kind"], w["namespace"]): w for w in g.config()["cluster"]["watches"]}


def all_live(g):
    return all(w["state"] in ("live", "not installed") for w in g.config()["cluster"]["watches"])


def test_from_apply_to_traffic_and_away(cluster, weir_on, modules):
    g = weir_on()
    assert g.get("/").status == 200
    cluster.apply(res.plugin("my-wasm-plugin", modules("counter"), {"mark": "one"}, phase="AUTHN"))
    g.wait_plugin("my-wasm-plugin")
    g.wait(lambda: g.get("/").headers.get("x-mark") == "one", "the first configuration")
    cluster.kubectl("patch", "wasmplugin", "my-wasm-plugin", "-n", "istio-system", "--type=merge", "-p", '{"spec":{"pluginConfig":{"mark":"two"}}}')
    g.wait(lambda: g.get("/").headers.get("x-mark") == "two", "the second configuration")
    cluster.delete("wasmplugin", "my-wasm-plugin")
    g.wait(lambda: g.get("/").headers.get("x-mark") is None, "the plugin to go")
    assert all_live(g), watches(g)
