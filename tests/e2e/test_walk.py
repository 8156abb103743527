# SPDX-License-Identifier: Apache-2.0
"""The walk of examples/walk, from a filter's source to live traffic, with each command as users type it. It runs in a network
namespace of its own, since it shows the ports that users see."""
import os
import pathlib
import platform
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
WALK = ROOT / "examples" / "walk" / "walk"


def in_a_network_of_its_own(*command):
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    script = 'ip link set lo up && exec "$@"'
    return ["unshare", "--net", *user, "sh", "-c", script, "sh", *map(str, command)]


MODES = [pytest.param("", id="alone")]
if os.environ.get("WEIR_KUBERNETES"):  # make test-kubernetes
    MODES.append(pytest.param("--kubernetes", id="kubernetes"))


@pytest.fixture(scope="module", params=MODES)
def walked(weir, request):
    tame = ["setarch", platform.machine(), "-R"] if weir.tsan else []
    done = subprocess.run([*tame, *in_a_network_of_its_own(WALK, *request.param.split())], capture_output=True, text=True, timeout=300,
                          env={**os.environ, "WEIR": str(weir.program)})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def after(text, command):
    """What the first command that begins so printed."""
    at = text.index(f"$ {command}")
    return text[text.index("\n", at) + 1 :].split("\n$ ")[0].split("\n# ")[0]


def test_without_filters_traffic_passes(walked):
    assert after(walked, "kubectl apply -f").count(" created") == 2
    assert after(walked, "curl -s -i http://127.0.0.1:10080/hello").startswith("HTTP/1.1 200 OK")


def test_the_resource_is_applied_as_it_is(walked):
    assert "url: oci://my-registry/my-wasm-filter:latest" in after(walked, "cat wasm-plugin.yaml")
    assert after(walked, "kubectl apply -f wasm-plugin.yaml") == "wasmplugin.extensions.istio.io/my-wasm-plugin created"
    assert "condition met" in after(walked, "kubectl wait")


def test_traffic_goes_through_the_filter(walked):
    filtered = walked[walked.index("# live traffic"):]
    refused = after(filtered, "curl -s -i http://127.0.0.1:10080/hello")
    assert refused.startswith("HTTP/1.1 401 Unauthorized") and "x-wasm-filter: my-wasm-filter" in refused
    assert after(filtered, "curl -s -i -H 'authorization: Bearer me'").startswith("HTTP/1.1 200 OK")


def test_it_can_be_seen(walked):
    table = after(walked, "kubectl get wasmplugins").split("\n")
    alone = table[0].split() == ["NAME", "PHASE", "PRIORITY", "STATUS", "AGE"]
    assert alone or table[0].split() == ["NAME", "PHASE", "PROGRAMMED", "AGE"], "as the resource definition of deploy/crds has it"
    assert table[1].split()[:-1] == ["my-wasm-plugin", "AUTHZ", *(["<unset>", "Programmed"] if alone else ["True"])]
    log = after(walked, "kubectl logs -l istio=ingressgateway -n istio-system")
    assert "plugin istio-system/my-wasm-plugin active: phase AUTHZ" in log
    assert "wasm istio-system.my-wasm-plugin: my-wasm-filter is configured" in log
    assert "refused: no authorization" in log
