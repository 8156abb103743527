# SPDX-License-Identifier: Apache-2.0
"""Resources as dicts, with the defaults that tests want. All in one namespace unless said otherwise."""
from .util import LOCAL

NS = "istio-system"


def _meta(name, ns, labels=None, annotations=None):
    meta = {"name": name, "namespace": ns}
    if labels:
        meta["labels"] = labels
    if annotations:
        meta["annotations"] = annotations
    return meta


def gateway(port, name="gw", ns=NS, listeners=None, address=LOCAL, limits=None, **spec):
    """limits: the name of a ConfigMap (see limits())."""
    body = {"gatewayClassName": "weir",
            "addresses": [{"type": "IPAddress", "value": address}],
            "listeners": listeners or [{"name": "http", "port": port, "protocol": "HTTP"}]}
    if limits:
        body["infrastructure"] = {"parametersRef": {"group": "", "kind": "ConfigMap", "name": limits}}
    body.update(spec)
    return {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": _meta(name, ns), "spec": body}


def listener(name, port, hostname=None, allowed=None):
    out = {"name": name, "port": port, "protocol": "HTTP"}
    if hostname:
        out["hostname"] = hostname
    if allowed:
        out["allowedRoutes"] = allowed
    return out


def limits(values, name="limits", ns=NS):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _meta(name, ns),
            "data": {k: v if isinstance(v, str) else str(v).lower() for k, v in values.items()}}


def ref(name, port=80, weight=None, ns=None, filters=None):
    out = {"name": name, "port": port}
    if weight is not None:
        out["weight"] = weight
    if ns:
        out["namespace"] = ns
    if filters:
        out["filters"] = filters
    return out


def rule(*backends, matches=None, filters=None, **more):
    """backends: names or ref()s."""
    out = {}
    if matches:
        out["matches"] = matches
    if filters:
        out["filters"] = filters
    if backends:
        out["backendRefs"] = [ref(b) if isinstance(b, str) else b for b in backends]
    out.update(more)
    return out


def path_match(value, kind="PathPrefix", **more):
    return {"path": {"type": kind, "value": value}, **more}


def route(name, *rules, hostnames=None, parents=None, ns=NS, created=None):
    spec = {"parentRefs": parents or [{"name": "gw"}], "rules": list(rules)}
    if hostnames:
        spec["hostnames"] = hostnames
    meta = _meta(name, ns)
    if created:
        meta["creationTimestamp"] = created
    return {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": meta, "spec": spec}


def service(name, port=80, target=80, ns=NS, **spec):
    return {"apiVersion": "v1", "kind": "Service", "metadata": _meta(name, ns),
            "spec": {"ports": [{"port": port, "targetPort": target}], **spec}}


def slice_(service_name, port, addresses=(LOCAL,), name=None, ns=NS, ready=True):
    endpoints = [{"addresses": [a], "conditions": {"ready": ready}} for a in addresses]
    return {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": _meta(name or f"{service_name}-1", ns, {"kubernetes.io/service-name": service_name}),
            "addressType": "IPv4", "ports": [{"port": port}], "endpoints": endpoints}


def backend(name, upstream, ns=NS):
    """A Service and its EndpointSlices. upstream: an Upstream, a port, or a list of them."""
    many = upstream if isinstance(upstream, (list, tuple)) else [upstream]
    ports = [getattr(u, "port", u) for u in many]
    return [service(name, target=ports[0] if ports else 80, ns=ns)] + [
        slice_(name, p, name=f"{name}-{i}", ns=ns) for i, p in enumerate(ports)]


def service_entry(name, host, port, endpoints, ns=NS, resolution="STATIC", **spec):
    return {"apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry", "metadata": _meta(name, ns),
            "spec": {"hosts": [host], "ports": [{"number": port, "name": "http", "protocol": "HTTP"}],
                     "resolution": resolution, "location": "MESH_EXTERNAL", "endpoints": endpoints, **spec}}


def grant(name, ns, from_ns, to_kind="Service", to_name=None, from_kind="HTTPRoute"):
    to = {"group": "", "kind": to_kind}
    if to_name:
        to["name"] = to_name
    return {"apiVersion": "gateway.networking.k8s.io/v1beta1", "kind": "ReferenceGrant", "metadata": _meta(name, ns),
            "spec": {"from": [{"group": "gateway.networking.k8s.io", "kind": from_kind, "namespace": from_ns}], "to": [to]}}


def plugin(name, wasm, config=None, ns=NS, annotations=None, selector={"istio": "ingressgateway"}, **spec):
    """wasm: a path, or a URL."""
    url = str(wasm) if "://" in str(wasm) else f"file://{wasm}"
    body = {"url": url}
    if selector and "targetRefs" not in spec and "targetRef" not in spec:
        body["selector"] = {"matchLabels": dict(selector)}
    if config is not None:
        body["pluginConfig"] = config
    body.update(spec)
    return {"apiVersion": "extensions.istio.io/v1alpha1", "kind": "WasmPlugin", "metadata": _meta(name, ns, None, annotations),
            "spec": body}
