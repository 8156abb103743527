# SPDX-License-Identifier: Apache-2.0
"""The command line: what check says and where, and exit codes (0 fine, 1 failed, 2 wrong usage)."""
import subprocess

import pytest

from weirtest import resources as res
from weirtest.gateway import dump
from weirtest.util import free_port


def check(weir, tmp_path, *docs, args=()):
    path = tmp_path / "r.yaml"
    path.write_text(dump(docs[0] if len(docs) == 1 and isinstance(docs[0], str) else list(docs)))
    return weir.run("check", *args, path)


def test_check_of_what_is_fine(weir, tmp_path):
    done = check(weir, tmp_path, res.gateway(8080), res.route("r", res.rule("backend")), *res.backend("backend", 9000))
    assert (done.returncode, done.stderr) == (0, "")
    assert "4 objects, no errors" in done.stdout


def test_check_shows_all_errors_with_their_places(weir, tmp_path):
    text = """apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: a}
spec:
  parentRefs: [{name: gw}]
  hostnames: ["not a host"]
  rules:
    - backendRefs:
        - name: b
          port: 99999
      matchez: []
---
apiVersion: extensions.istio.io/v1alpha1
kind: WasmPlugin
metadata: {name: p, namespace: a}
spec:
  phase: LATER
"""
    done = check(weir, tmp_path, text)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    for place, what in ((":6:", "hostnames[0]"), (":10:", "backendRefs[0].port"), (":11:", "matchez"), (":17:", "phase")):
        assert any(l.startswith(f"{tmp_path}/r.yaml{place}") and what in l for l in lines), f"{place} {what} in {done.stdout}"
    assert any("url" in l for l in lines), "what is missing is said too"
    assert "error" in done.stderr


@pytest.mark.parametrize("text,what", [
    ("a: [", "r.yaml:"), ("a: 1\na: 2\n", "a"), ("kind: HTTPRoute\n", "apiVersion"), ("- 1\n", "r.yaml:1"), ("\tx: 1\n", "r.yaml:1"),
    ("apiVersion: v1\nkind: Service\nmetadata: {}\nspec: {ports: [{port: 80}]}\n", "name"),
    ("apiVersion: v1\nkind: Service\nmetadata: {name: Bad_Name}\nspec: {ports: [{port: 80}]}\n", "metadata.name"),
    ("apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: '80'}]}\n", "port"),
    ("apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80}], port: 80}\n", "spec.port"),
])
def test_check_of_what_is_broken(weir, tmp_path, text, what):
    done = check(weir, tmp_path, text)
    assert done.returncode == 1 and what in done.stdout, done.stdout
    assert done.stdout.startswith(f"{tmp_path}/r.yaml:")


def test_check_of_references(weir, tmp_path):
    """What run would leave out, check reports."""
    done = check(weir, tmp_path, res.gateway(8080), res.route("r", res.rule("absent")), res.route("s", res.rule("absent"), parents=[{"name": "nowhere"}]))
    assert done.returncode == 1
    assert "absent" in done.stdout and "HTTPRoute istio-system/s" in done.stdout and "parentRef" in done.stdout


def test_check_of_what_is_for_another_gateway(weir, tmp_path):
    """Objects of other controllers, and a plugin without its Gateway, are whole: a warning each, as a file by itself is fine."""
    other = res.gateway(8081, name="nginx-gw", gatewayClassName="nginx")
    klass = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": {"name": "nginx"},
             "spec": {"controllerName": "gateway.nginx.org/nginx-gateway-controller"}}
    both = res.gateway(8080, listeners=[res.listener("http", 8080), {"name": "https", "port": 8443, "protocol": "HTTPS", "tls": {
        "certificateRefs": [{"name": "cert"}]}}])
    for docs in ([klass, other, res.route("r", res.rule("backend"), parents=[{"name": "nginx-gw"}]), *res.backend("backend", 9000)],
                 [both], [res.plugin("p", "/opt/x.wasm", ns="elsewhere")]):
        done = check(weir, tmp_path, *docs)
        assert done.returncode == 0 and "warning: " in done.stdout and "no errors" in done.stdout, done


def test_check_says_the_sum_last(weir, tmp_path):
    (tmp_path / "r.yaml").write_text("a: 1\n")
    done = subprocess.run(weir.command("check", tmp_path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.stdout.splitlines()[-1].startswith("2 errors"), done.stdout


def test_check_of_istio_messages(weir, tmp_path):
    """Istio's own words where it has them."""
    done = check(weir, tmp_path, res.plugin("p", "ftp://x/y.wasm"))
    assert done.returncode == 1 and "url" in done.stdout and "ftp" in done.stdout


def test_kinds_that_are_not_read_are_a_warning(weir, tmp_path):
    done = check(weir, tmp_path, res.gateway(8080), {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {}})
    assert done.returncode == 0 and "warning" in done.stdout and "Deployment" in done.stdout


def test_check_of_a_directory(weir, tmp_path):
    (tmp_path / "a.yaml").write_text(dump(res.gateway(8080)))
    (tmp_path / "b.yml").write_text("a: [")
    (tmp_path / "c.txt").write_text("a: [")
    done = weir.run("check", tmp_path)
    assert done.returncode == 1 and "b.yml" in done.stdout and "c.txt" not in done.stdout


@pytest.mark.parametrize("args", [
    [], ["no-such"], ["run", "--no-such"], ["run", "--workers"], ["run", "--workers", "many"], ["run", "--workers", "0"], ["run", "--workers", "-1"],
    ["run", "--log-level", "loud"], ["run", "--admin", "nowhere"], ["run", "--admin", "127.0.0.1:99999"], ["run", "--drain-time", "soon"],
    ["run", "--labels", "=x"], ["run", "/no/such/file"], ["check"], ["check", "/no/such/file"], ["check", "--no-such"], ["inspect"],
    ["inspect", "a", "b"], ["status", "extra"], ["status", "--no-such"], ["echo"], ["echo", "--listen", "nowhere"], ["echo", "--listen"], ["run", "--admin", "0.0.0.0:0"],
])
def test_wrong_usage_exits_2_and_says_why(weir, args):
    done = weir.run(*args, stdin=None)
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    assert done.stderr.strip() and done.stdout == ""


@pytest.mark.parametrize("args", [["--help"], ["help"], ["-h"], ["run", "--help"], ["check", "--help"], ["inspect", "--help"], ["status", "--help"],
                                  ["echo", "--help"]])
def test_help_goes_to_stdout(weir, args):
    done = weir.run(*args)
    assert done.returncode == 0 and done.stdout.startswith(("usage: weir", "weir -")) and done.stderr == ""


def test_version(weir):
    for args in (["version"], ["--version"]):
        done = weir.run(*args)
        assert done.returncode == 0 and done.stdout.split()[0] == "weir" and done.stderr == ""


def test_inspect_of_what_is_no_module(weir, tmp_path):
    (tmp_path / "x.wasm").write_bytes(b"not wasm")
    for path in (tmp_path / "x.wasm", tmp_path / "absent.wasm", tmp_path):
        done = weir.run("inspect", path)
        assert done.returncode in (1, 2) and done.stderr.strip() + done.stdout.strip(), path


def test_inspect(weir, guests):
    done = weir.run("inspect", guests.build("examples/api-key/api_key.c"))
    assert done.returncode == 0 and "0.2.1" in done.stdout and "proxy_on_request_headers" in done.stdout


def test_status_of_nobody(weir):
    done = weir.run("status", "--admin", f"127.0.0.1:{free_port()}")
    assert done.returncode == 1 and done.stderr.strip()


def test_run_with_an_empty_directory_waits_for_resources(gateway, upstream):
    up = upstream()
    gw = gateway(start=False)
    gw.start(resources={}, ready=False)
    gw.wait(lambda: gw.admin_request("GET", "/healthz").status == 200)
    gw.apply("gateway", gw.default_resources(up))
    gw.wait(lambda: gw.get().status == 200)
    gw.wait_ready()


def test_echo_shapes_its_answer(echo):
    from weirtest.client import fetch
    port = echo()
    assert len(fetch(port, path="/?bytes=1000").body) == 1000
    r = fetch(port, "POST", "/x?status=503&header=x-a:b", {"X-In": "1"}, b"body")
    assert r.status == 503 and r.header("x-a") == "b" and r.json()["body"] == "body" and r.json()["headers"]["x-in"] == "1"
