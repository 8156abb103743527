# SPDX-License-Identifier: Apache-2.0
"""The state directory: what was acknowledged is there after any end, and one damaged file costs no other object."""
import http.client
import json
import random
import shutil
import signal
import subprocess
import threading

import pytest
import yaml

from weirtest import kubectl as kc
from weirtest.util import LOCAL, wait_until

PATH = "/api/v1/namespaces/default/configmaps"
KILLS = 200
pytestmark = pytest.mark.xdist_group("kubectl_state")


def config_map(name, value):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"value": str(value), "fill": "x" * 3000}}


class Writer(threading.Thread):
    """Creates, replaces and deletes its objects for ever; remembers what was acknowledged and what is on its way."""

    def __init__(self, port, number):
        super().__init__(daemon=True)
        self.port, self.number, self.random = port, number, random.Random(number)
        self.acked, self.asked, self.acks, self.over = {}, {}, 0, False
        self.gate, self.idle = threading.Event(), threading.Event()

    def run(self):
        while not self.over:
            self.idle.set()
            self.gate.wait()
            self.idle.clear()
            c = http.client.HTTPConnection(LOCAL, self.port, timeout=60)
            try:
                while self.gate.is_set() and not self.over:
                    self.step(c)
            except (OSError, http.client.HTTPException):
                pass
            finally:
                c.close()

    def step(self, c):
        name = f"w{self.number}-{self.random.randrange(4)}"
        value = None if self.random.random() < 0.15 else self.random.randrange(10**9)
        self.asked[name] = value
        if value is None:
            c.request("DELETE", f"{PATH}/{name}")
        else:
            c.request("PATCH", f"{PATH}/{name}?fieldManager=test&force=true", json.dumps(config_map(name, value)),
                      {"Content-Type": "application/apply-patch+yaml"})
        r = c.getresponse()
        r.read()
        assert r.status in (200, 201) or (value is None and r.status == 404), r.status
        self.acked[name] = value
        self.acks += 1


@pytest.mark.slow
def test_kill_at_any_moment_loses_nothing(gateway, tmp_path):
    state = tmp_path / "state"
    args, port = kc.api_args(state)
    gw = gateway(start=False)
    gw.start(resources={"none": ""}, args=args, ready=False, log_level="info")
    api = kc.Api(port)
    wait_until(api.is_there, "the API")
    writers = [Writer(port, n) for n in range(3)]
    for w in writers:
        w.start()
    dice = random.Random(1)
    last_version = 0
    for kill in range(KILLS):
        goal = sum(w.acks for w in writers) + dice.randrange(1, 12)
        for w in writers:
            w.gate.set()
        wait_until(lambda: sum(w.acks for w in writers) >= goal, "writes")
        gw.signal(signal.SIGKILL)
        for w in writers:
            w.gate.clear()
        gw.process.wait()
        for w in writers:
            assert w.idle.wait(60)
        gw.spawn()
        wait_until(api.is_there, "the API after a kill")
        listing = api.get(PATH)
        version = int(listing["metadata"]["resourceVersion"])
        assert version > last_version, "a resourceVersion was given out twice"
        last_version = version
        found = {o["metadata"]["name"]: int(o["data"]["value"]) for o in listing["items"]}
        for w in writers:
            for name, value in w.acked.items():
                # What was on its way may have arrived though its answer did not.
                assert found.get(name) in (value, w.asked[name]), f"kill {kill}: {name} is {found.get(name)}, acknowledged was {value}"
                w.acked[name] = found.get(name)
    for w in writers:
        w.over = True
        w.gate.set()
    for w in writers:
        w.join()
    assert not list(state.rglob("*.damaged"))
    for path in state.rglob("*.yaml"):
        assert yaml.safe_load(path.read_text())["metadata"]["name"] == path.stem


def start(gateway, state, **more):
    args, port = kc.api_args(state)
    gw = gateway(args=args, **more)
    api = kc.Api(port)
    return gw, api


def restart(gw, api):
    gw.signal(signal.SIGKILL)
    gw.process.wait()
    gw.spawn()
    wait_until(api.is_there, "the API")


def test_a_damaged_file_costs_no_other(gateway, tmp_path):
    state = tmp_path / "state"
    gw, api = start(gateway, state)
    for name in ("a", "b", "c"):
        assert api.ask("POST", PATH, config_map(name, 1)).status == 201
    assert api.ask("DELETE", f"{PATH}/c").status == 200
    file = state / "ConfigMap/default/a.yaml"
    assert yaml.safe_load(file.read_text())["data"]["value"] == "1"
    file.write_text("{ half")
    (state / "ConfigMap/default/copy.yaml").write_text((state / "ConfigMap/default/b.yaml").read_text())
    restart(gw, api)
    assert [o["metadata"]["name"] for o in api.get(PATH)["items"]] == ["b"]
    assert (state / "ConfigMap/default/a.yaml.damaged").read_text() == "{ half"
    assert (state / "ConfigMap/default/copy.yaml.damaged").exists()
    gw.wait_log("kept aside as")


def test_objects_come_back_whole(gateway, tmp_path):
    state = tmp_path / "state"
    gw, api = start(gateway, state)
    o = config_map("odd", 1)
    o["metadata"]["labels"] = {"a": "yes", "b": "1"}
    o["metadata"]["annotations"] = {"text": "two\nlines\n", "colon": "a: b", "empty": "", "tab": "\t", "umlaut": "ä", "hash": "# no"}
    o["data"].update({"on": "off", "number": "0x10", "null": "null", "block": "a\n  b\n\nc\n", "nl": "\n", "space": " x "})
    assert api.ask("POST", PATH, o).status == 201
    before = api.get(f"{PATH}/odd")
    restart(gw, api)
    after = api.get(f"{PATH}/odd")
    before["metadata"].pop("resourceVersion")
    after["metadata"].pop("resourceVersion")
    assert after == before


def test_what_yaml_cannot_hold(gateway, tmp_path):
    """A member's name beyond 1,024 bytes is no YAML key; the object is kept as JSON."""
    state = tmp_path / "state"
    gw, api = start(gateway, state)
    path = "/apis/extensions.istio.io/v1alpha1/namespaces/default/wasmplugins"
    o = {"apiVersion": "extensions.istio.io/v1alpha1", "kind": "WasmPlugin", "metadata": {"name": "long"},
         "spec": {"url": "http://127.0.0.1:1/x.wasm", "pluginConfig": {"k" * 2000: 1, "\u0085\u007f\u2028": "\ufeff\u0001"}}}
    assert api.ask("POST", path, o).status == 201
    restart(gw, api)
    assert api.get(f"{path}/long")["spec"] == o["spec"]


def test_what_grows_as_yaml(gateway, tmp_path):
    """Lists in lists: 400 kB of JSON are 20 MB of indentation, more than is read at a start."""
    state = tmp_path / "state"
    gw, api = start(gateway, state)
    path = "/apis/extensions.istio.io/v1alpha1/namespaces/default/wasmplugins"
    nested = [1] * 200000
    for _ in range(50):
        nested = [nested]
    o = {"apiVersion": "extensions.istio.io/v1alpha1", "kind": "WasmPlugin", "metadata": {"name": "deep"},
         "spec": {"url": "http://127.0.0.1:1/x.wasm", "pluginConfig": {"a": nested}}}
    assert api.ask("POST", path, o).status == 201
    assert (state / "WasmPlugin/default/deep.yaml").stat().st_size < 1 << 20
    restart(gw, api)
    assert api.get(f"{path}/deep")["spec"] == o["spec"]


def test_a_state_directory_that_hands_were_in(gateway, tmp_path):
    """Without the counter's file versions rise all the same; what was removed by hand can still be deleted."""
    state = tmp_path / "state"
    gw, api = start(gateway, state)
    for name in ("a", "b"):
        assert api.ask("POST", PATH, config_map(name, 1)).status == 201
    before = int(api.get(PATH)["metadata"]["resourceVersion"])
    for spoil in (lambda f: f.unlink(), lambda f: f.write_text("x"), lambda f: f.write_text("9223372036854775807\n")):
        spoil(state / "resource-version")
        restart(gw, api)
        now = int(api.get(PATH)["metadata"]["resourceVersion"])
        assert before < now < 1 << 62
        before = now
    shutil.rmtree(state / "ConfigMap")
    assert api.ask("DELETE", f"{PATH}/a").status == 200
    assert api.ask("POST", PATH, config_map("c", 1)).status == 201
    restart(gw, api)
    assert [o["metadata"]["name"] for o in api.get(PATH)["items"]] == ["c"]


def test_metadata_that_is_no_object(gateway, tmp_path):
    gw, api = start(gateway, tmp_path / "state")
    for metadata in ("text", ["a"], 5, None):
        o = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
        assert api.ask("POST", PATH, o).status == 422


def test_two_weirs_do_not_share_a_state_directory(gateway, weir, tmp_path):
    state = tmp_path / "state"
    start(gateway, state)
    args, _ = kc.api_args(state)
    done = weir.run("run", "--admin", "off", *args)
    assert done.returncode == 1 and "is in use by another weir" in done.stderr


def test_applied_objects_serve_at_once(gateway, upstream, tmp_path):
    """A whole gateway from nothing but the API, and back."""
    from weirtest import resources as res
    up = upstream()
    gw = gateway(start=False)
    args, port = kc.api_args(tmp_path / "state")
    gw.start(resources={"none": ""}, args=args, ready=False)
    api = kc.Api(port)
    wait_until(api.is_there, "the API")
    plurals = {"Gateway": "/apis/gateway.networking.k8s.io/v1/namespaces/istio-system/gateways",
               "HTTPRoute": "/apis/gateway.networking.k8s.io/v1/namespaces/istio-system/httproutes",
               "Service": "/api/v1/namespaces/istio-system/services",
               "EndpointSlice": "/apis/discovery.k8s.io/v1/namespaces/istio-system/endpointslices"}
    for o in gw.default_resources(up):
        r = api.ask("POST", plurals[o["kind"]], o)
        assert r.status == 201, r.text
    gw.wait_status(200)
    wait_until(lambda: any(c["type"] == "Programmed" and c["status"] == "True"
                           for c in api.get(plurals["Gateway"] + "/gw")["status"]["conditions"]), "Programmed")
    restart(gw, api)
    gw.wait_status(200)
    assert api.ask("DELETE", plurals["HTTPRoute"] + "/default").status == 200
    gw.wait_status(404)


def test_from_apply_to_filtered_traffic(gateway, guests, upstream, tmp_path):
    """A file:// module of an applied plugin must lie in --module-dir; then it filters, says so in its status, and goes."""
    from weirtest import resources as res
    wasm = guests.build("puppet")
    args, port = kc.api_args(tmp_path / "state")
    gw = gateway(upstream(), args=[*args, "--module-dir", wasm.parent])
    api = kc.Api(port)
    path = f"/apis/extensions.istio.io/v1alpha1/namespaces/{res.NS}/wasmplugins"

    def plugin(name, url):
        return {"apiVersion": "extensions.istio.io/v1alpha1", "kind": "WasmPlugin", "metadata": {"name": name},
                "spec": {"url": url, "selector": {"matchLabels": {"istio": "ingressgateway"}}}}

    def programmed(name):
        o = api.get(f"{path}/{name}")
        return next((c for c in o.get("status", {}).get("conditions", []) if c["type"] == "Programmed"), {"status": "Unknown"})

    assert api.ask("POST", path, plugin("good", f"file://{wasm}")).status == 201
    wait_until(lambda: programmed("good")["status"] == "True", "Programmed")
    assert api.get(f"{path}/good")["metadata"]["generation"] == 1
    log = f"/api/v1/namespaces/{res.NS}/pods/weir/log"
    wait_until(lambda: f"plugin {res.NS}/good" in api.ask("GET", log).text, "its line")
    assert api.ask("POST", path, plugin("outside", "file:///etc/hostname")).status == 201
    wait_until(lambda: programmed("outside")["status"] == "False", "a refusal")
    gw.wait_status(403)
    assert api.ask("DELETE", f"{path}/outside").status == 200
    gw.wait_status(200)
    assert api.ask("DELETE", f"{path}/good").status == 200
    gw.wait(lambda: not gw.plugins(), "no plugins")
