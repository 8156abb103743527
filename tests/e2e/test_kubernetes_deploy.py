# SPDX-License-Identifier: Apache-2.0
"""What deploy/ holds, judged by a real API server (dry run) and, the chart, rendered by the few forms it uses."""
import re
import shutil
import subprocess

import pytest
import yaml

from weirtest.kubernetes import ROOT, TOOLS, Cluster

pytestmark = pytest.mark.xdist_group("kubernetes")


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    c = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        for f in sorted((ROOT / "deploy/crds").glob("*.yaml")):
            c.kubectl("apply", "--server-side", "-f", f)
        c.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
        c.namespace("istio-system")
        yield c
    finally:
        c.stop()


def render(text, values, namespace):
    """{{ .Values.a.b }}, {{ .Release.Namespace }} and {{- if .Values.x }} ... {{- end }}, which is all the chart may use."""
    def value(path):
        v = values
        for part in path.split("."):
            v = v[part]
        return v

    def block(m):
        return m[2] if value(m[1]) else ""

    text = re.sub(r"\{\{- if \.Values\.([\w.]+) \}\}\n(.*?)\{\{- end \}\}\n", block, text, flags=re.S)
    text = text.replace("{{ .Release.Namespace }}", namespace)
    text = re.sub(r"\{\{ \.Values\.([\w.]+) \}\}", lambda m: str(value(m[1])), text)
    assert "{{" not in text, text[text.index("{{"):][:80]
    return text


def check_security(docs):
    pod = next(d for d in docs if d["kind"] == "Deployment")["spec"]["template"]["spec"]
    c = pod["containers"][0]
    assert pod["securityContext"]["runAsNonRoot"] and c["securityContext"]["readOnlyRootFilesystem"]
    assert not c["securityContext"]["allowPrivilegeEscalation"] and c["securityContext"]["capabilities"]["drop"] == ["ALL"]
    assert c["readinessProbe"]["httpGet"]["path"] == "/ready" and c["lifecycle"]["preStop"]
    role = next(d for d in docs if d["kind"] == "ClusterRole")
    for rule in role["rules"]:
        assert "secrets" not in rule["resources"] and "*" not in rule["verbs"] + rule["resources"]


def test_kustomize(api):
    text = subprocess.run([f"{TOOLS}/bin/kubectl", "kustomize", ROOT / "deploy/kustomize/base"], capture_output=True, text=True, check=True).stdout
    out = api.kubectl("apply", "--dry-run=server", "-f", "-", stdin=text).stdout
    assert out.count("dry run") == len(list(yaml.safe_load_all(text)))
    check_security(list(yaml.safe_load_all(text)))


@pytest.mark.parametrize("gateway", [True, False])
def test_chart(api, gateway):
    chart = ROOT / "deploy/helm/weir"
    values = {**yaml.safe_load((chart / "values.yaml").read_text()), "gateway": gateway}
    text = "\n---\n".join(render(f.read_text(), values, "istio-system") for f in sorted((chart / "templates").glob("*.yaml")))
    docs = [d for d in yaml.safe_load_all(text) if d]
    assert any(d["kind"] == "Gateway" for d in docs) == gateway
    api.kubectl("apply", "--dry-run=server", "-f", "-", stdin=text)
    check_security(docs)


def test_every_option_of_the_manifests_is_one_of_the_program(weir):
    used = set(re.findall(r"--([a-z][a-z-]+)=", (ROOT / "deploy/kustomize/base/deployment.yaml").read_text()))
    used |= set(re.findall(r" --([a-z][a-z-]+) ", (ROOT / "deploy/systemd/weir.service").read_text()))
    helped = weir.run("run", "--help").stdout
    assert used and all(f"--{u} " in helped for u in used), used


def test_systemd_unit():
    text = (ROOT / "deploy/systemd/weir.service").read_text()
    assert not re.search(r"^MemoryDenyWriteExecute", text, re.M)
    if shutil.which("systemd-analyze"):
        r = subprocess.run(["systemd-analyze", "verify", str(ROOT / "deploy/systemd/weir.service")], capture_output=True, text=True)
        bad = [l for l in r.stderr.splitlines() if "weir.service" in l and "is not executable" not in l]
        assert not bad, bad


def test_convert_makes_what_the_api_server_takes(api, weir, tmp_path):
    """The CRD judges what weir convert prints."""
    f = tmp_path / "filter.yaml"
    f.write_text("""apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: old, namespace: istio-system}
spec:
  workloadSelector: {labels: {istio: ingressgateway}}
  configPatches:
  - applyTo: HTTP_FILTER
    match: {context: GATEWAY, listener: {portNumber: 8080}}
    patch:
      operation: INSERT_FIRST
      value:
        name: w
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
          config:
            root_id: r
            configuration: {"@type": type.googleapis.com/google.protobuf.StringValue, value: '{"on": "yes", "n": 1.5}'}
            vm_config: {code: {remote: {http_uri: {uri: "https://example.com/x.wasm", cluster: c}}}}
""")
    r = weir.run("convert", f)
    assert r.returncode == 0, r.stderr
    plugin = yaml.safe_load(r.stdout)
    assert plugin["spec"]["pluginConfig"] == {"on": "yes", "n": 1.5} and plugin["spec"]["phase"] == "AUTHN"
    api.kubectl("apply", "--dry-run=server", "-f", "-", stdin=r.stdout)
    f.write_text(f.read_text().replace("INSERT_FIRST", "MERGE"))
    r = weir.run("convert", f)
    assert r.returncode == 1 and "spec.configPatches[0].patch.operation" in r.stderr and r.stdout == ""
