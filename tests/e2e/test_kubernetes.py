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
        return g.start(resources={"backend": res.backend("backend", more.pop("up", None) or upstream(echo_mark))}, port=g.port, ready=ready,
                       args=["--kubernetes", "--kubeconfig", config or cluster.config, *args], **more)
    return start


def echo_mark(x):
    """x-mark is what the guest sets on a request."""
    x.body()
    got = x.header("x-mark")
    x.respond(200, {"x-mark": got} if got else {})


def watches(g):
    return {(w["kind"], w["namespace"]): w for w in g.config()["cluster"]["watches"]}


def all_live(g):
    return all(w["state"] in ("live", "not installed") for w in g.config()["cluster"]["watches"])


def test_from_apply_to_traffic_and_away(cluster, weir_on, modules):
    g = weir_on()
    assert g.get("/").status == 200
    cluster.apply(res.plugin("my-wasm-plugin", modules("counter"), {"mark": "one"}, phase="AUTHN"))
    g.wait_plugin("my-wasm-plugin")
    g.wait(lambda: g.get("/").header("x-mark") == "one", "the first configuration")
    cluster.kubectl("patch", "wasmplugin", "my-wasm-plugin", "-n", "istio-system", "--type=merge", "-p", '{"spec":{"pluginConfig":{"mark":"two"}}}')
    g.wait(lambda: g.get("/").header("x-mark") == "two", "the second configuration")
    cluster.delete("wasmplugin", "my-wasm-plugin")
    g.wait(lambda: g.get("/").header("x-mark") is None, "the plugin to go")
    g.wait(lambda: all_live(g), "every watch to be live")


def test_limits_of_a_configmap_are_watched_by_name(cluster, weir_on):
    cluster.apply(res.limits({"server-name": "first"}))
    g = weir_on(apply=False)
    route = res.route("default", res.rule("backend", matches=[res.path_match("/ok")]))
    cluster.apply(res.gateway(g.port, limits="limits"), route)
    g.wait(lambda: g.get("/missing").header("server") == "first", "the limits of the ConfigMap")
    cluster.apply(res.limits({"server-name": "second"}))
    g.wait(lambda: g.get("/missing").header("server") == "second", "the edited ConfigMap")
    assert ("ConfigMap", "istio-system") in watches(g)
    cluster.apply(res.gateway(g.port))
    g.wait(lambda: ("ConfigMap", "istio-system") not in watches(g), "the watch to end")
    cluster.delete("configmap", "limits")


def test_one_bad_object_stops_no_other(cluster, weir_on, modules):
    bad = res.plugin("bad", "fake://nowhere/x")
    cluster.apply(bad)
    g = weir_on(ready=False)
    cluster.apply(res.plugin("good", modules("counter"), {"mark": "good"}))
    g.wait_plugin("good")
    g.wait(lambda: g.get("/").header("x-mark") == "good", "the good plugin")
    assert "url" in json.dumps(g.object("WasmPlugin", "bad"))
    assert not g.is_ready(), "a plugin that never was good is a gap at start"
    cluster.delete("wasmplugin", "bad")
    g.wait_ready()


def test_edits_and_deletes_while_weir_is_down(cluster, weir_on, modules):
    cluster.apply(res.plugin("p", modules("counter"), {"mark": "before"}))
    g = weir_on()
    g.wait(lambda: g.get("/").header("x-mark") == "before", "the plugin")
    g.stop()
    cluster.delete("wasmplugin", "p")
    cluster.apply(res.plugin("q", modules("counter"), {"mark": "after"}))
    g.spawn()
    g.wait_ready()
    assert g.get("/").header("x-mark") == "after"
    assert g.object("WasmPlugin", "p") is None


def test_restart_while_the_api_server_is_away(cluster, weir_on, modules):
    cluster.apply(res.plugin("p", modules("counter"), {"mark": "kept"}))
    g = weir_on()
    g.wait(lambda: g.get("/").header("x-mark") == "kept", "the plugin")
    g.wait(lambda: list(pathlib.Path(g.cache, "cluster").glob("cluster-*.jsonl")), "the snapshot")
    for f in pathlib.Path(g.cache, "cluster").glob("*"):
        assert f.stat().st_mode & 0o77 == 0
    g.stop()
    cluster.stop_server()
    try:
        g.spawn()
        g.wait_ready()
        assert g.get("/").header("x-mark") == "kept"
        assert "stale" in g.admin_get("/ready").text or "starting" in g.admin_get("/ready").text
        assert g.config()["cluster"]["restored"]
        assert g.metrics().value("weir_kubernetes_watches_stale") > 0
    finally:
        cluster.start_server()
    cluster.kubectl("patch", "wasmplugin", "p", "-n", "istio-system", "--type=merge", "-p", '{"spec":{"pluginConfig":{"mark":"new"}}}')
    g.wait(lambda: g.get("/").header("x-mark") == "new", "the edit after its return")
    g.wait(lambda: all_live(g) and not g.config()["cluster"]["restored"], "every watch to be live")


def test_api_server_restarts(cluster, weir_on, modules):
    cluster.apply(res.plugin("p", modules("counter"), {"mark": "one"}))
    g = weir_on()
    g.wait(lambda: g.get("/").header("x-mark") == "one", "the plugin")
    cluster.stop_server()
    g.wait(lambda: not all_live(g), "the watches to notice")
    assert g.is_ready() and g.get("/").header("x-mark") == "one"
    cluster.start_server()
    cluster.kubectl("patch", "wasmplugin", "p", "-n", "istio-system", "--type=merge", "-p", '{"spec":{"pluginConfig":{"mark":"two"}}}')
    g.wait(lambda: g.get("/").header("x-mark") == "two", "the edit after the restart")
    g.wait(lambda: all_live(g), "every watch to be live")


def test_too_old_a_version_lists_again_and_deletes(cluster, weir_on, modules):
    cluster.apply(res.plugin("p", modules("counter"), {"mark": "p"}))
    g = weir_on()
    g.wait(lambda: g.get("/").header("x-mark") == "p", "the plugin")
    lists = watches(g)[("WasmPlugin", "")]["lists"]
    g.signal(19)  # SIGSTOP: it sees nothing of what follows
    try:
        cluster.delete("wasmplugin", "p")
        for i in range(3):
            cluster.apply(res.plugin("other", modules("counter"), {"mark": f"{i}"}, selector={"no": "such"}))
        cluster.compact()
        cluster.stop_server()
        cluster.start_server()
        cluster.compact()
    finally:
        g.signal(18)
    g.wait(lambda: g.get("/").header("x-mark") is None, "the deletion")
    g.wait(lambda: watches(g)[("WasmPlugin", "")]["lists"] > lists, "a second list")
    g.wait(lambda: g.object("WasmPlugin", "other") is not None, "what came meanwhile")
    assert g.object("WasmPlugin", "p") is None


def test_a_kind_that_is_installed_later(cluster, weir_on):
    crds = (ROOT / "deploy/crds/istio-others.yaml").read_text()
    cluster.kubectl("delete", "crd", "serviceentries.networking.istio.io")
    try:
        g = weir_on()
        assert watches(g)[("ServiceEntry", "")]["state"] == "not installed"
    finally:
        cluster.apply(crds)
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd/serviceentries.networking.istio.io")
    cluster.apply(res.service_entry("out", "out.example", 80, [{"address": LOCAL}]))
    g.wait(lambda: g.object("ServiceEntry", "out") is not None, "the object of the new kind")


def test_namespaces_and_labels_limit_what_is_read(cluster, weir_on, modules):
    cluster.namespace("shop")
    g = weir_on("--watch-namespace", "istio-system", "--label-selector", "team=a")
    labelled = res.gateway(g.port)
    labelled["metadata"]["labels"] = {"team": "a"}
    route = res.route("default", res.rule("backend"))
    route["metadata"]["labels"] = {"team": "a"}
    mine, other, far = (res.plugin(n, modules("counter"), {"mark": n}) for n in ("mine", "other", "far"))
    mine["metadata"]["labels"] = {"team": "a"}
    far["metadata"].update(namespace="shop", labels={"team": "a"})
    cluster.apply(labelled, route, mine, other, far)
    g.wait_plugin("mine")
    g.wait(lambda: g.get("/").header("x-mark") == "mine", "the plugin with the label")
    assert g.object("WasmPlugin", "other") is None and g.object("WasmPlugin", "far", "shop") is None
    cluster.kubectl("label", "wasmplugin", "mine", "-n", "istio-system", "team=b", "--overwrite")
    g.wait(lambda: g.object("WasmPlugin", "mine") is None, "the plugin to leave with its label")
    cluster.kubectl("delete", "namespace", "shop", "--wait=false")


def in_pod(cluster, directory, token):
    """A service account as a pod has it; returns the environment of that pod."""
    d = pathlib.Path(directory)
    d.mkdir(exist_ok=True)
    (d / "ca.crt").write_bytes((cluster.dir / "ca.crt").read_bytes())
    (d / "namespace").write_text("istio-system")
    (d / "token.new").write_text(token)
    (d / "token.new").rename(d / "token")
    return {"KUBERNETES_SERVICE_HOST": LOCAL, "KUBERNETES_SERVICE_PORT": str(cluster.port)}


def test_a_service_account_with_the_roles_of_deploy_and_a_token_that_rotates(cluster, weir_on, modules, tmp_path):
    cluster.kubectl("apply", "-n", "istio-system", "-f", ROOT / "deploy/kustomize/base/rbac.yaml")
    for name in ("first", "second"):
        cluster.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "istio-system"}})
    config = cluster.kubeconfig("weir", tokenFile=str(tmp_path / "token"))
    (tmp_path / "token").write_text(cluster.service_account("weir", bound="first"))
    g = weir_on(config=config)
    cluster.apply(res.plugin("p", modules("counter"), {"mark": "one"}))
    g.wait(lambda: g.get("/").header("x-mark") == "one", "the plugin")
    g.wait(lambda: all_live(g), "every watch to be live")
    # The old token ends with the Secret it is bound to; the new one is in the file by then, as the kubelet does it.
    (tmp_path / "aside").write_text(cluster.service_account("weir", bound="second"))
    (tmp_path / "aside").rename(tmp_path / "token")
    cluster.delete("secret", "first")
    cluster.stop_server()
    cluster.start_server()
    cluster.kubectl("patch", "wasmplugin", "p", "-n", "istio-system", "--type=merge", "-p", '{"spec":{"pluginConfig":{"mark":"two"}}}')
    g.wait(lambda: g.get("/").header("x-mark") == "two", "the edit, read with the new token")
    g.wait(lambda: all_live(g), "every watch to be live")
    g.wait_log("credentials were renewed")
    cluster.delete("secret", "second")


def test_no_rights_is_said_and_is_not_ready(cluster, weir_on, tmp_path):
    token = cluster.service_account("nobody")
    g = weir_on(config=cluster.kubeconfig("nobody", token=token), ready=False)
    r = g.wait(lambda: (x := g.admin_request("GET", "/ready")).status == 503 and "forbidden" in x.text.lower() and x, "why it is not ready")
    assert "wasmplugins" in r.text and token not in r.text and token not in g.log_text()


def test_logs_of_a_pod_by_label(cluster, weir_on, modules):
    g = weir_on()
    kubelet = Kubelet(cluster, g.stderr_path)
    try:
        kubelet.register("node-1", "istio-ingressgateway-1", {"istio": "ingressgateway"})
        cluster.apply(res.plugin("my-wasm-plugin", modules("counter"), {"mark": "x"}))
        g.wait_plugin("my-wasm-plugin")
        def look():
            return "my-wasm-plugin" in cluster.kubectl("logs", "-l", "istio=ingressgateway", "-n", "istio-system", "--tail=-1").stdout
        g.wait(look, "the plugin in kubectl logs")
    finally:
        kubelet.stop()
        cluster.kubectl("delete", "node", "node-1", check=False)


def condition(o, kind):
    return next((c for c in o.get("status", {}).get("conditions", []) if c["type"] == kind), {})


def test_status_and_events_are_written_and_two_gateways_have_one_writer(cluster, weir_on, modules):
    cluster.kubectl("apply", "-n", "istio-system", "-f", ROOT / "deploy/kustomize/base/rbac.yaml")
    config = cluster.kubeconfig("weir", token=cluster.service_account("weir"))
    gateways = [weir_on(config=config)]
    # The second cannot have the listener of the first on one machine; it reads and judges all the same.
    gateways.append(weir_on(config=config, apply=False, ready=False))
    gateways[1].wait(lambda: gateways[1].object("Gateway", "gw"), "the second to have read the cluster")
    cluster.apply(res.plugin("p", modules("counter"), {"mark": "one"}))
    def programmed():
        o = cluster.get("wasmplugin", "p")
        return o if condition(o, "Programmed").get("status") == "True" else None
    first = wait_until(programmed, "Programmed in the cluster", explain=gateways[0].tail)
    assert condition(first, "Programmed")["lastTransitionTime"]
    leaders = [g for g in gateways if g.config()["cluster"]["writesStatus"]]
    assert len(leaders) == 1, [g.config()["cluster"] for g in gateways]
    lease = cluster.get("lease", "weir-status")
    assert lease["spec"]["holderIdentity"] == leaders[0].config()["cluster"]["statusWriter"]
    wait_until(lambda: "WasmPlugin/p" in cluster.kubectl("get", "events", "-n", "istio-system", "-o", "wide").stdout
               or "wasmplugin/p" in cluster.kubectl("get", "events", "-n", "istio-system", "-o", "wide").stdout, "an Event", explain=leaders[0].tail)
    # A status that is right is not written again, and the next leader keeps its times.
    version = cluster.get("wasmplugin", "p")["metadata"]["resourceVersion"]
    other = next(g for g in gateways if g is not leaders[0])
    leaders[0].stop()
    gateways.remove(leaders[0])
    wait_until(lambda: other.config()["cluster"]["writesStatus"], "the other to lead", explain=other.tail)
    cluster.kubectl("patch", "wasmplugin", "p", "-n", "istio-system", "--type=merge", "-p", '{"spec":{"url":"http://127.0.0.1:1/none.wasm"}}')
    def failed():
        o = cluster.get("wasmplugin", "p")
        return o if condition(o, "Fetched").get("status") == "False" else None
    second = wait_until(failed, "Fetched to be False", explain=other.tail)
    assert condition(second, "Accepted")["lastTransitionTime"] == condition(first, "Accepted")["lastTransitionTime"]
    assert int(second["status"]["observedGeneration"]) == second["metadata"]["generation"] == 2
    gw = cluster.get("gateway", "gw")
    assert condition(gw, "Accepted")["status"] == "True"
    route = cluster.get("httproute", "default")
    assert route["status"]["parents"][0]["conditions"]
    assert version != second["metadata"]["resourceVersion"]


def test_status_of_a_bad_object_and_parents_of_another_controller(cluster, weir_on):
    cluster.apply(res.plugin("bad", "fake://nowhere/x"))
    weir_on(ready=False)
    wait_until(lambda: condition(cluster.get("wasmplugin", "bad"), "Accepted").get("status") == "False", "Accepted to be False")
    foreign = {"parentRef": {"name": "gw", "group": "gateway.networking.k8s.io", "kind": "Gateway"}, "controllerName": "example.com/other",
               "conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}
    cluster.kubectl("patch", "httproute", "default", "-n", "istio-system", "--subresource=status", "--type=merge", "-p", json.dumps({"status": {"parents": [foreign]}}))
    cluster.kubectl("patch", "httproute", "default", "-n", "istio-system", "--type=merge", "-p", '{"spec":{"hostnames":["a.example"]}}')
    def both():
        names = {p["controllerName"] for p in cluster.get("httproute", "default").get("status", {}).get("parents", [])}
        return names >= {"example.com/other", "gateway.weir/controller"}
    wait_until(both, "both controllers' entries")


def test_an_envoy_filter_is_the_plugin_it_means(cluster, weir_on, modules):
    g = weir_on()
    cluster.apply({"apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter", "metadata": {"name": "old", "namespace": "istio-system"}, "spec": {
        "workloadSelector": {"labels": {"istio": "ingressgateway"}},
        "configPatches": [{"applyTo": "HTTP_FILTER", "match": {"context": "GATEWAY"}, "patch": {"operation": "INSERT_BEFORE", "value": {"name": "w", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm", "config": {
                "configuration": {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": '{"mark":"old way"}'},
                "vm_config": {"code": {"remote": {"http_uri": {"uri": modules("counter"), "cluster": "c"}}}}}}}}}]}})
    g.wait(lambda: g.get("/").header("x-mark") == "old way", "the filter of the EnvoyFilter")
    assert g.object("WasmPlugin", "old") is not None
    cluster.delete("envoyfilter", "old")
    g.wait(lambda: g.get("/").header("x-mark") is None, "the filter to go")


def test_a_pull_secret_is_read_by_name_only(cluster, weir_on):
    """With the roles of deploy and one Role for the one Secret; another Secret of the namespace is never seen."""
    canary = "canary-7c1d"
    cluster.kubectl("apply", "-n", "istio-system", "-f", ROOT / "deploy/kustomize/base/rbac.yaml")
    for name in ("pull", "other"):
        cluster.kubectl("create", "secret", "docker-registry", name, "-n", "istio-system", "--docker-server=r.example",
                        "--docker-username=u", f"--docker-password={canary}")
    cluster.kubectl("create", "role", "weir-pull", "--verb=get,list,watch", "--resource=secrets", "--resource-name=pull", "-n", "istio-system")
    cluster.kubectl("create", "rolebinding", "weir-pull", "--role=weir-pull", "--serviceaccount=istio-system:weir", "-n", "istio-system")
    g = weir_on(config=cluster.kubeconfig("weir", token=cluster.service_account("weir")))
    cluster.apply(res.plugin("p", "oci://127.0.0.1:1/none:v1", imagePullSecret="pull"))
    g.wait(lambda: g.object("Secret", "pull") is not None, "the Secret that the plugin names")
    assert g.object("Secret", "other") is None
    assert canary not in g.admin_get("/config").text + g.log_text()
    cluster.delete("wasmplugin", "p")
    g.wait(lambda: g.object("Secret", "pull") is None, "the Secret to be let go")
    cluster.kubectl("delete", "secret,role,rolebinding", "pull", "other", "weir-pull", "-n", "istio-system", "--ignore-not-found", check=False)
