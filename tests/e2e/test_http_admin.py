# SPDX-License-Identifier: Apache-2.0
"""The admin server: what it shows, whom it refuses."""
import json

import pytest

from weirtest import resources as res
from weirtest.util import LOCAL

CANARY = "canary-7f3a-secret"


@pytest.fixture
def gw(gateway, upstream):
    return gateway(upstream())


def test_paths(gw):
    for path in ("/", "/ready", "/healthz", "/metrics", "/config", "/plugins", "/logs", "/logging"):
        r = gw.admin_get(path)
        assert r.body or path == "/logs"
        assert r.header("x-content-type-options") == "nosniff" and "default-src 'self'" in r.header("content-security-policy")
        head = gw.admin_request("HEAD", path)
        assert head.status == 200
    assert gw.admin_request("GET", "/nothing").status == 404


def test_metrics_are_prometheus_text(gw):
    gw.get("/")
    gw.wait(lambda: gw.metrics().value("weir_requests_total", code_class="2xx") == 1)
    m = gw.metrics()  # the reader is strict
    assert set(m.types) == set(m.help) and all(name.startswith("weir_") for name in m.types)
    assert gw.admin_get("/metrics").header("content-type").startswith("text/plain; version=0.0.4")
    assert m.value("weir_streams_ended_total", reason="via_upstream") == 1
    assert m.value("weir_request_duration_seconds_count") == 1
    buckets = m.find("weir_request_duration_seconds_bucket")
    counts = [v for _, v in buckets]
    assert counts == sorted(counts) and buckets[-1][0]["le"] == "+Inf" and counts[-1] == 1
    for name, kind in m.types.items():
        assert kind != "counter" or name.endswith("_total"), name


def test_counts_add_up(gw):
    for status_path in range(7):
        gw.get(f"/{status_path}")
    gw.wait(lambda: gw.metrics().value("weir_requests_total") == 7)
    m = gw.metrics()
    assert m.value("weir_streams_ended_total") == 7 and m.value("weir_streams") == 0
    assert m.value("weir_downstream_connections_total") == 7
    assert m.value("weir_downstream_received_bytes_total") > 0


@pytest.mark.parametrize("method,path,allow", [("POST", "/metrics", "GET"), ("PUT", "/config", "GET"), ("DELETE", "/plugins", "GET"),
                                               ("GET", "/drain", "POST"), ("HEAD", "/drain", "POST")])
def test_wrong_methods(gw, method, path, allow):
    r = gw.admin_request(method, path) if method != "HEAD" else None
    if r is None:
        with gw.conn(gw.admin) as c:
            r = c.request("HEAD", path, host=f"{LOCAL}:{gw.admin}").response("HEAD")
    assert r.status == 405 and allow in r.header("allow")
    assert gw.is_ready(), "a GET must not drain"


def test_hosts(gw):
    """DNS rebinding: a name that is not ours is refused, whatever address it resolves to."""
    for host in (f"{LOCAL}:{gw.admin}", f"localhost:{gw.admin}", "localhost", f"[::1]:{gw.admin}", "127.0.0.1"):
        assert gw.admin_request("GET", "/config", host=host).status == 200, host
    for host in ("evil.example", f"evil.example:{gw.admin}", "localhost.evil.example", "10.0.0.1", "127.0.0.1.evil.example"):
        assert gw.admin_request("GET", "/config", host=host).status == 403, host
        assert gw.admin_request("POST", "/drain", host=host).status == 403, host
    assert gw.is_ready()


def test_origins(gw):
    own = f"http://{LOCAL}:{gw.admin}"
    assert gw.admin_request("GET", "/config", {"Origin": own}).status == 200
    for origin in ("http://evil.example", "null", "https://localhost", f"{own}.evil.example", "file://"):
        assert gw.admin_request("GET", "/config", {"Origin": origin}).status == 403, origin
        assert gw.admin_request("POST", "/drain", {"Origin": origin}).status == 403, origin
    for site in ("cross-site", "same-site"):
        assert gw.admin_request("POST", "/drain", {"Sec-Fetch-Site": site}).status == 403
    assert gw.is_ready()


def test_logging_level(gw):
    assert gw.admin_get("/logging").text == "level: debug\n"
    assert gw.admin_request("POST", "/logging?level=warn").text == "level: warn\n"
    assert gw.admin_request("POST", "/logging?level=loud").status == 400
    assert gw.admin_get("/logging").text == "level: warn\n"
    assert gw.admin_request("GET", "/logging?level=info").text == "level: warn\n"


def test_logs(gw):
    gw.wait(lambda: "listening on" in gw.admin_get("/logs").text)


def test_config_shows_objects_but_no_secrets(gateway, upstream, guests):
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": res.NS}, "type": "Opaque",
              "stringData": {"key": CANARY}}
    wasm = res.plugin("p", guests.build("examples/api-key/api_key.c"), {"keys": [CANARY + "-config"]},
                      vmConfig={"env": [{"name": "TOKEN", "value": CANARY + "-env"}]})
    gw = gateway(upstream(), extra=[secret, wasm])
    gw.wait_plugin("p")
    assert gw.get(headers={"x-api-key": CANARY + "-config"}).status == 200
    for path in ("/", "/ready", "/metrics", "/config", "/plugins", "/logs", "/logging"):
        assert CANARY not in gw.admin_get(path).text, path
    status = gw.weir.run("status", "--admin", f"{LOCAL}:{gw.admin}")
    assert CANARY not in status.stdout + status.stderr
    gw.stop()
    assert CANARY not in gw.log_text()
    kinds = {"Gateway", "HTTPRoute", "Service", "EndpointSlice", "Secret", "WasmPlugin"}
    shown = gateway(upstream(), extra=[secret, wasm], args=["--show-plugin-config"])
    assert {o["kind"] for o in shown.config()["objects"]} == kinds
    text = shown.admin_get("/config").text
    assert CANARY + "-config" in text and CANARY + "-env" not in text and text.count(CANARY) == text.count(CANARY + "-config")


def test_plugins_is_json(gateway, upstream, guests):
    gw = gateway(upstream(), extra=[res.plugin("p", guests.build("examples/api-key/api_key.c"), {"keys": ["k"]}, phase="AUTHZ", priority=7)])
    p = gw.wait_plugin("p")
    assert (p["phase"], p["priority"], p["failStrategy"], p["abi"]) == ("AUTHZ", 7, "FAIL_CLOSE", p["abi"])
    assert len(p["sha256"]) == 64 and p["generation"] >= 1 and [w["state"] for w in p["workers"]] == ["live", "live"]
    assert p["appliesToTraffic"] is True


def test_malformed_requests(gw):
    for data in (b"GET / HTTP/1.1\r\n\r\n", b"GET /\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nX A: b\r\n\r\n", b"\x16\x03\x01\r\n\r\n"):
        with gw.conn(gw.admin) as c:
            c.send(data)
            assert c.response().status == 400
            c.wait_closed()
    assert gw.is_ready()


def test_admin_is_not_reachable_through_the_gateway(gateway):
    """A route whose endpoint is Weir's own admin address gets no connection there."""
    gw = gateway(start=False)
    gw.start(resources={"r": lambda port: [res.gateway(port), *res.backend("backend", gw.admin), res.route("r", res.rule("backend"))]})
    r = gw.get("/config", host=f"{LOCAL}:{gw.admin}")
    assert r.status in (500, 502, 503) and b"objects" not in r.body


def test_admin_off(weir, gateway, upstream):
    up = upstream()
    gw = gateway(up, ready=False, args=["--admin", "off"])
    gw.wait(lambda: gw.get().status == 200)
    with pytest.raises(ConnectionRefusedError):
        gw.admin_get("/ready")
    gw.stop()


def test_status_command(gw):
    done = gw.weir.run("status", "--admin", f"{LOCAL}:{gw.admin}")
    assert done.returncode == 0 and "ready" in done.stdout


def test_config_is_whole_json_with_many_objects(gateway, upstream):
    many = [res.route(f"r{i}", res.rule("backend", matches=[res.path_match(f"/r{i}")])) for i in range(500)]
    gw = gateway(upstream(), extra=many)
    assert len([o for o in json.loads(gw.admin_get("/config").body)["objects"] if o["kind"] == "HTTPRoute"]) == 501
    assert gw.get("/r499").status == 200
