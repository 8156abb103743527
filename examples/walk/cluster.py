#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""cluster.py DIR LOG: a real kube-apiserver for the walk, with the resource definitions of deploy/crds, a Pod that stands for the
gateway and a stand-in for its kubelet, which answers with LOG. DIR/ready holds the folder of kubectl once all is there."""
import os
import pathlib
import signal
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
os.environ["WEIR_KUBERNETES"] = subprocess.run([ROOT / "tools" / "kubernetes"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()

from weirtest.kubernetes import TOOLS, Cluster, Kubelet  # noqa: E402


def main(directory, log):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    cluster = Cluster(directory)
    try:
        for definition in sorted((ROOT / "deploy" / "crds").glob("*.yaml")):
            cluster.kubectl("apply", "--server-side", "-f", definition)
        cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
        cluster.namespace("istio-system")
        cluster.apply({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": {"name": "weir"},
                       "spec": {"controllerName": "gateway.weir/controller"}})
        kubelet = Kubelet(cluster, log)
        kubelet.register("node-1", "istio-ingressgateway-1", {"istio": "ingressgateway"})
        (cluster.dir / "ready.tmp").write_text(f"{TOOLS}/bin\n")
        os.rename(cluster.dir / "ready.tmp", cluster.dir / "ready")
        signal.pause()
    finally:
        cluster.stop()


main(*sys.argv[1:])
