# SPDX-License-Identifier: Apache-2.0
"""Weir's rows: the same proxy as its peers, given as the resources a user would write."""

import os

from .peers import Missing, Proxy

GATEWAY = """\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: bench, namespace: istio-system}}
spec:
  gatewayClassName: weir
  addresses:
  - {{type: IPAddress, value: 127.0.0.1}}
  infrastructure:
    parametersRef: {{group: "", kind: ConfigMap, name: bench}}
  listeners:
  - {{name: http, protocol: HTTP, port: {port}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: bench, namespace: istio-system}}
data:
  access-log: "{access_log}"
---
apiVersion: v1
kind: Service
metadata: {{name: upstream, namespace: istio-system}}
spec:
  ports:
  - {{name: http, port: 80, targetPort: {upstream}}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: upstream
  namespace: istio-system
  labels: {{kubernetes.io/service-name: upstream}}
addressType: IPv4
ports:
- {{name: http, port: {upstream}}}
endpoints:
- addresses: [127.0.0.1]
"""

ROUTE = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: bench, namespace: istio-system}}
spec:
  parentRefs:
  - name: bench
  rules:
  - backendRefs:
    - {{name: upstream, port: 80}}
{filters}"""

ROUTE_FILTER = """\
    filters:
    - type: ResponseHeaderModifier
      responseHeaderModifier:
        set:
        - {{name: x-bench-route, value: "{value}"}}
"""

# The response header's value is the pluginConfig itself, which reaches a filter as JSON.
PLUGIN = """\
apiVersion: extensions.istio.io/v1alpha1
kind: WasmPlugin
metadata: {{name: bench{i}, namespace: istio-system}}
spec:
  selector:
    matchLabels: {{istio: ingressgateway}}
  url: file://{wasm}
  phase: AUTHZ
  priority: {i}
  pluginConfig:
    mark: "{value}"
"""


def route(value=None):
    return ROUTE.format(filters=ROUTE_FILTER.format(value=value) if value else "")


def plugin(wasm, value, i=0):
    return PLUGIN.format(i=i, wasm=wasm, value=value)


class Weir(Proxy):
    family = "Weir"

    def prepare(self, setup):
        if not os.path.exists(setup.weir):
            raise Missing(f"{os.path.basename(setup.weir)} is not built (make build)")
        self.config_dir = os.path.join(setup.run_dir, self.slug)
        os.makedirs(self.config_dir)
        self.write(setup, "gateway.yaml", GATEWAY.format(port=self.port, upstream=setup.upstream.port,
                                                          access_log="text" if self.access_log else "off"))
        self.write(setup, "route.yaml", self.route_text())
        for i in range(self.filters):
            self.write(setup, f"plugin{i}.yaml", plugin(setup.wasm(), "on", i))
        return [setup.weir, "run", self.config_dir, "--admin", f"127.0.0.1:{setup.free_port()}", "--workers", "1",
                "--drain-time", "1", "--cache-dir", setup.weir_cache], None

    def route_text(self):
        return route()

    def stage(self, setup, name, text):
        """Writes a file beside the directory; os.rename(*staged) then puts it in place whole, as a ConfigMap's is."""
        beside = os.path.join(setup.run_dir, f"{self.slug}.{name}.new")
        with open(beside, "w", encoding="utf-8") as f:
            f.write(text)
        return beside, os.path.join(self.config_dir, name)

    def write(self, setup, name, text):
        os.rename(*self.stage(setup, name, text))
