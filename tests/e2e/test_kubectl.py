# SPDX-License-Identifier: Apache-2.0
"""Every verb of kubectl that Weir's own API answers, with each kubectl there is. docs/kubectl.md has the table of them: a
function below is a row of it, its docstring is the command; tools/kubectl-docs writes it from what passed."""
import os
import pathlib
import re
import threading

import pytest
import yaml

from weirtest import kubectl as kc
from weirtest.guests import ROOT
from weirtest.util import wait_until

NS = "istio-system"
PROGRAMS = kc.programs()
pytestmark = [pytest.mark.skipif(not PROGRAMS, reason="no kubectl")]


def plugin(name, **spec):
    return yaml.safe_dump({"apiVersion": "extensions.istio.io/v1alpha1", "kind": "WasmPlugin",
                           "metadata": {"name": name, "namespace": NS},
                           "spec": {"selector": {"matchLabels": {"istio": "ingressgateway"}}, "url": "http://127.0.0.1:1/none.wasm",
                                    "phase": "AUTHN", "pluginConfig": {"a": 1}, **spec}})


class Case:
    """A kubectl, a gateway, and names that only this test uses."""

    def __init__(self, k, gw, version, name, tmp):
        self.k, self.gw, self.version, self.name, self.tmp = k, gw, version, name, tmp
        self.run, self.fails = k.run, k.fails

    def file(self, text, name="object.yaml"):
        path = self.tmp / name
        path.write_text(text)
        return path

    def apply(self, **spec):
        return self.run("apply", "-f", "-", input=plugin(self.name, **spec))

    def get(self, *args):
        return self.k.json("get", "wasmplugin", "-n", NS, self.name, *args)

    def on(self, verb, *args):
        return self.run(verb, "-n", NS, "wasmplugin", self.name, *args)


@pytest.fixture(scope="module")
def api(module_gateway, tmp_path_factory):
    args, port = kc.api_args(tmp_path_factory.mktemp("state"))
    gw = module_gateway(args=args)
    return gw, port


# ---- the verbs ----

def apply(c):
    """apply -f"""
    assert "created" in c.apply()
    assert "unchanged" in c.apply()
    version = c.get()["metadata"]["resourceVersion"]
    assert "unchanged" in c.apply()
    assert c.get()["metadata"]["resourceVersion"] == version
    assert "configured" in c.apply(phase="STATS")
    after = c.get()
    assert after["spec"]["phase"] == "STATS" and after["metadata"]["generation"] == 2
    text = c.run("apply", "-f", "-", input=re.sub(r"  phase:.*\n", "", plugin(c.name)))
    assert "configured" in text and "phase" not in c.get()["spec"]


def apply_server_side(c):
    """apply --server-side"""
    def ssa(text, *args, code=0):
        return c.run("apply", "--server-side", "-f", "-", *args, input=text, code=code)
    assert "serverside-applied" in ssa(plugin(c.name, priority=1))
    text = ssa(plugin(c.name, priority=2), "--field-manager=other", code=1)
    assert 'conflict with "kubectl"' in text and ".spec.priority" in text
    ssa(plugin(c.name, priority=2), "--field-manager=other", "--force-conflicts")
    assert c.get()["spec"]["priority"] == 2
    ssa(plugin(c.name), "--field-manager=other")  # kubectl no longer owns it: it goes
    assert "priority" not in c.get()["spec"]


def create(c):
    """create -f"""
    assert "created" in c.run("create", "-f", "-", input=plugin(c.name))
    assert "AlreadyExists" in c.fails("create", "-f", "-", input=plugin(c.name))


def get(c):
    """get (tables, -A, -l, --field-selector)"""
    c.apply(priority=7)
    c.on("label", f"team={c.name}")
    head, row = c.run("get", "wasmplugins", "-n", NS, "-l", f"team={c.name}").splitlines()
    assert head.split() == ["NAME", "PHASE", "PRIORITY", "STATUS", "AGE"] and row.split()[:3] == [c.name, "AUTHN", "7"]
    assert c.name in c.run("get", "wasmplugins", "-A", "-l", f"team in ({c.name},b),!nothing")
    assert c.name not in c.run("get", "wasmplugins", "-A", "-l", f"team notin ({c.name})")
    assert c.run("get", "wasmplugins", "-A", "--field-selector", f"metadata.name={c.name}").count("\n") == 2
    assert "NotFound" in c.fails("get", "wasmplugin", "-n", NS, c.name + "-not")
    assert c.name in c.run("get", "istio-io", "-A")
    assert "PROGRAMMED" in c.run("get", "gtw", "-A")


def get_wide(c):
    """get -o wide"""
    c.apply()
    head = c.run("get", "wasmplugins", "-n", NS, "-o", "wide").splitlines()[0].split()
    assert head == ["NAME", "PHASE", "PRIORITY", "STATUS", "AGE", "URL", "DIGEST", "REASON"]


def get_yaml(c):
    """get -o yaml"""
    c.apply()
    o = yaml.safe_load(c.on("get", "-o", "yaml"))
    assert o["spec"]["pluginConfig"] == {"a": 1} and o["metadata"]["uid"] and o["metadata"]["generation"] == 1


def get_watch(c):
    """get -w"""
    c.apply()
    p = c.k.start("get", "wasmplugins", "-n", NS, "-w", "--field-selector", f"metadata.name={c.name}")
    lines = []
    reader = threading.Thread(target=lambda: lines.extend(iter(p.stdout.readline, "")), daemon=True)
    reader.start()
    wait_until(lambda: any(c.name in x for x in list(lines)), "the list")
    c.apply(phase="STATS")
    wait_until(lambda: any("STATS" in x for x in list(lines)), "the change")
    p.terminate()
    p.wait()
    reader.join()
    p.stdout.close()


def describe(c):
    """describe"""
    c.apply()
    text = wait_until(lambda: (lambda t: t if "Warning" in t else None)(c.on("describe")), "the Event")
    assert "Accepted" in text and "Programmed" in text and "Events:" in text


def edit(c):
    """edit"""
    c.apply()
    text = c.run("edit", "-n", NS, "wasmplugin", c.name, env={"EDITOR": "sed -i s/AUTHN/AUTHZ/", "KUBE_EDITOR": ""})
    assert "edited" in text and c.get()["spec"]["phase"] == "AUTHZ"


def patch_merge(c):
    """patch --type=merge"""
    c.apply(priority=1)
    c.on("patch", "--type=merge", "-p", '{"spec":{"priority":5,"phase":null}}')
    spec = c.get()["spec"]
    assert spec["priority"] == 5 and "phase" not in spec


def patch_json(c):
    """patch --type=json"""
    c.apply(priority=1)
    c.on("patch", "--type=json", "-p", '[{"op":"test","path":"/spec/priority","value":1},{"op":"replace","path":"/spec/priority","value":6}]')
    assert c.get()["spec"]["priority"] == 6


def label(c):
    """label"""
    c.apply()
    c.on("label", "a=b")
    assert c.get()["metadata"]["labels"] == {"a": "b"} and c.get()["metadata"]["generation"] == 1
    c.on("label", "a-")
    assert not c.get()["metadata"].get("labels")


def annotate(c):
    """annotate"""
    c.apply()
    c.on("annotate", "note=hello world")
    assert c.get()["metadata"]["annotations"]["note"] == "hello world"


def replace(c):
    """replace -f"""
    c.apply(priority=1)
    old = c.on("get", "-o", "yaml")
    c.on("patch", "--type=merge", "-p", '{"spec":{"phase":"STATS"}}')
    text = c.fails("replace", "-f", "-", input=old)
    assert "the object has been modified" in text
    new = c.on("get", "-o", "yaml").replace("priority: 1", "priority: 4")
    wait_until(lambda: "replaced" in c.run("replace", "-f", "-", code=None,
                                           input=c.on("get", "-o", "yaml").replace("priority: 1", "priority: 4")), "replace")
    assert "priority: 4" in new and c.get()["spec"]["priority"] == 4


def delete(c):
    """delete"""
    c.apply()
    assert "deleted" in c.run("delete", "-f", "-", input=plugin(c.name))
    assert "NotFound" in c.fails("get", "wasmplugin", "-n", NS, c.name)
    c.apply()
    c.on("label", "gone=soon")
    assert c.name in c.run("delete", "wasmplugins", "-n", NS, "-l", "gone=soon")
    assert "NotFound" in c.fails("get", "wasmplugin", "-n", NS, c.name)


def diff(c):
    """diff -f"""
    c.apply()
    assert c.run("diff", "-f", "-", input=plugin(c.name)) == ""
    text = c.run("diff", "-f", "-", input=plugin(c.name, phase="STATS"), code=1)
    assert "-  phase: AUTHN" in text and "+  phase: STATS" in text
    assert c.get()["spec"]["phase"] == "AUTHN"


def dry_run(c):
    """apply --dry-run=server"""
    assert "created (server dry run)" in c.run("apply", "--dry-run=server", "-f", "-", input=plugin(c.name))
    assert "NotFound" in c.fails("get", "wasmplugin", "-n", NS, c.name)


def wait_condition(c):
    """wait --for=condition"""
    c.apply()
    assert "condition met" in c.on("wait", "--for=condition=Accepted", "--timeout=60s")
    assert "condition met" in c.run("wait", "-n", NS, "--for=condition=Ready", "pod", "-l", "istio=ingressgateway", "--timeout=60s")
    assert "timed out" in c.run("wait", "-n", NS, "wasmplugin", c.name, "--for=condition=Programmed", "--timeout=1s", code=1)


def wait_delete(c):
    """wait --for=delete"""
    for _ in range(20):
        c.apply()
        p = c.k.start("wait", "-n", NS, "wasmplugin", c.name, "--for=delete", "--timeout=60s")
        c.on("delete")
        out, _ = p.communicate(timeout=120)
        if "no matching resources" not in out:  # it had not looked yet when the object went
            break
    assert p.returncode == 0 or "NotFound" in out, out


def logs(c):
    """logs -l, --tail, --since, --timestamps"""
    c.apply()
    wait_until(lambda: c.name in c.run("logs", "-n", NS, "-l", "istio=ingressgateway", "--tail=-1"), "its line")
    assert len(c.run("logs", "-n", NS, "-l", "istio=ingressgateway", "--tail=1").splitlines()) == 1
    assert c.name in c.run("logs", "-n", NS, "weir", "--since=1h")
    line = c.run("logs", "-n", NS, "weir", "--timestamps", "--tail=1").split()
    assert line[0] == line[1]
    assert "BadRequest" in c.fails("logs", "-n", NS, "weir", "--previous")


def logs_follow(c):
    """logs -f"""
    p = c.k.start("logs", "-n", NS, "-l", "istio=ingressgateway", "-f", "--tail=1")
    lines = []
    reader = threading.Thread(target=lambda: lines.extend(iter(p.stdout.readline, "")), daemon=True)
    reader.start()
    wait_until(lambda: lines, "the first line")
    c.apply()
    wait_until(lambda: any(c.name in x for x in list(lines)), "its line")
    p.terminate()
    p.wait()
    reader.join()
    p.stdout.close()


def get_pods(c):
    """get pods"""
    head, row = c.run("get", "pods", "-n", NS).splitlines()
    assert row.split()[:4] == ["weir", "1/1", "Running", "0"] and head.split()[0] == "NAME"


def events(c):
    """get events"""
    c.apply()
    wait_until(lambda: c.name in c.run("get", "events", "-n", NS), "its Event")


def secret_registry(c):
    """create secret docker-registry"""
    c.run("create", "secret", "docker-registry", c.name, "--docker-server=127.0.0.1:5000", "--docker-username=u", "--docker-password=p")
    o = c.k.json("get", "secret", c.name)
    assert o["type"] == "kubernetes.io/dockerconfigjson" and ".dockerconfigjson" in o["data"]


def secret_generic(c):
    """create secret generic"""
    c.run("create", "secret", "generic", c.name, "--from-literal=a=b")
    assert c.k.json("get", "secret", c.name)["data"] == {"a": "Yg=="}


def config_map(c):
    """create configmap"""
    c.run("create", "configmap", c.name, "--from-literal=a=b")
    assert c.k.json("get", "cm", c.name)["data"] == {"a": "b"}
    both = yaml.safe_dump({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": c.name}, "data": {"c": "d", "e": "f"}})
    c.run("apply", "-f", "-", input=both)
    c.run("apply", "-f", "-", input=both.replace("  e: f\n", ""))
    assert c.k.json("get", "cm", c.name)["data"] == {"a": "b", "c": "d"}


def service(c):
    """apply -f (a Service: lists by key)"""
    def text(*ports):
        return yaml.safe_dump({"apiVersion": "v1", "kind": "Service", "metadata": {"name": c.name},
                               "spec": {"ports": [{"name": f"p{p}", "port": p} for p in ports]}})
    def ports():
        return [p["port"] for p in c.k.json("get", "svc", c.name)["spec"]["ports"]]
    c.run("apply", "-f", "-", input=text(80, 81))
    assert "unchanged" in c.run("apply", "-f", "-", input=text(80, 81))
    c.run("apply", "-f", "-", input=text(81, 82))
    assert ports() == [81, 82]


def namespace(c):
    """create namespace"""
    c.run("create", "namespace", c.name)
    assert c.k.json("get", "ns", c.name)["metadata"]["labels"] == {"kubernetes.io/metadata.name": c.name}
    c.run("create", "configmap", "x", "-n", c.name, "--from-literal=a=b")
    c.run("delete", "namespace", c.name)
    assert "NotFound" in c.fails("get", "cm", "x", "-n", c.name)
    assert "Forbidden" in c.fails("delete", "namespace", "istio-system")


def explain(c):
    """explain"""
    text = c.run("explain", "wasmplugin.spec.phase")
    assert "phase" in text
    text = c.run("explain", "wasmplugin.spec")
    assert "failStrategy" in text and "vmConfig" in text
    assert "listeners" in c.run("explain", "gateways.spec")


def api_resources(c):
    """api-resources"""
    text = c.run("api-resources")
    for word in ("wasmplugins", "httproutes", "serviceentries", "secrets", "pods"):
        assert word in text


def api_versions(c):
    """api-versions"""
    lines = c.run("api-versions").splitlines()
    assert "extensions.istio.io/v1alpha1" in lines and "v1" in lines


def version(c):
    """version"""
    assert "weir" in c.run("version")


def cluster_info(c):
    """cluster-info"""
    assert "is running at" in c.run("cluster-info")


def can_i(c):
    """auth can-i"""
    assert c.run("auth", "can-i", "create", "wasmplugins").strip().endswith("yes")


def get_crd(c):
    """get crd"""
    assert "wasmplugins.extensions.istio.io" in c.run("get", "crd")


VERBS = [apply, apply_server_side, create, get, get_wide, get_yaml, get_watch, describe, edit, patch_merge, patch_json, label,
         annotate, replace, delete, diff, dry_run, wait_condition, wait_delete, logs, logs_follow, get_pods, events,
         secret_registry, secret_generic, config_map, service, namespace, explain, api_resources, api_versions, version,
         cluster_info, can_i, get_crd]
# Those kubectl itself cannot do, and why.
CANNOT = {}


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: kc.version_text(p[0]))
@pytest.mark.parametrize("verb", VERBS, ids=lambda v: v.__name__)
def test_verb(api, verb, program, tmp_path):
    (kubectl_version, path), (gw, port) = program, api
    if kubectl_version in CANNOT.get(verb, ()):
        pytest.skip(CANNOT[verb][kubectl_version])
    name = f"{verb.__name__.replace('_', '-')}-{kubectl_version[0]}-{kubectl_version[1]}"
    k = kc.Kubectl(path, port, gw.state / f"home-{kubectl_version[1]}")
    verb(Case(k, gw, kubectl_version, name, tmp_path))
    results = os.environ.get("WEIR_KUBECTL_RESULTS")
    if results:
        with open(results, "a") as f:
            f.write(f"{verb.__name__} {kc.version_text(kubectl_version)}\n")


def table(passed):
    """The table of docs/kubectl.md; passed: {(verb name, version text)}."""
    versions = sorted({v for _, v in passed}, key=lambda v: [int(x) for x in v.split(".")])
    lines = ["| kubectl ... | " + " | ".join(versions) + " |", "|---|" + "---|" * len(versions)]
    for v in VERBS:
        cells = ["yes" if (v.__name__, x) in passed else "no" for x in versions]
        lines.append(f"| `{v.__doc__}` | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def test_the_table_is_true():
    """docs/kubectl.md has a row for each verb, and says yes where a test says so."""
    text = (ROOT / "docs/kubectl.md").read_text()
    head = re.search(r"^\| kubectl \.\.\. \|(.*)\|$", text, re.M)
    columns = [x.strip() for x in head[1].split("|")]
    for verb in VERBS:
        row = re.search(rf"^\| `{re.escape(verb.__doc__)}` \|(.*)\|$", text, re.M)
        assert row, f"docs/kubectl.md has no row for {verb.__doc__}: run tools/kubectl-docs"
        cells = dict(zip(columns, (x.strip() for x in row[1].split("|"))))
        for kubectl_version, _ in PROGRAMS:
            expected = "no" if kubectl_version in CANNOT.get(verb, ()) else "yes"
            assert cells.get(kc.version_text(kubectl_version), expected) == expected
