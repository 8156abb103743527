# SPDX-License-Identifier: Apache-2.0
"""What a message looks like on both sides of a plain proxy."""
import socket

from weirtest import resources as res
from weirtest.util import DEADLINE


def test_request_passes(gateway, upstream):
    up = upstream()
    gw = gateway(up)
    r = gw.get("/hello?a=b")
    assert (r.status, r.body) == (200, b"ok")
    assert (up.last.method, up.last.target, up.last.version) == ("GET", "/hello?a=b", "HTTP/1.1")
    assert up.last.header("host") == "test.example"
    gw.stop()


def test_echo_upstream(gateway, echo):
    gw = gateway(echo("--name", "one"))
    assert gw.get("/x", {"x-a": "b"}).json()["headers"]["x-a"] == "b"
    assert gw.get("/x").json()["server"] == "one"
    assert gw.get("/x?status=404&header=x-b:c").header("x-b") == "c"


def test_quickstart_guest(gateway, upstream, guests):
    gw = gateway(upstream())
    gw.apply("plugin", res.plugin("api-key", guests.build("examples/api-key/api_key.c"), {"keys": ["secret"]}))
    gw.wait_plugin("api-key")
    assert gw.get().status == 401
    assert gw.get(headers={"x-api-key": "secret"}).status == 200


def _has_ipv6():
    with socket.socket(socket.AF_INET6) as s:
        try:
            s.bind(("::1", 0))
            return True
        except OSError:
            return False


def test_a_gateway_without_addresses_listens_on_both_families(gateway, upstream):
    up = upstream()
    g = gateway(start=False)
    bare = res.gateway(0)
    del bare["spec"]["addresses"]
    g.start(resources={"r": lambda port: [{**bare, "spec": {**bare["spec"], "listeners": [res.listener("http", port)]}},
                                          res.route("all", res.rule("backend")), *res.backend("backend", up)]})
    assert g.get().status == 200
    assert up.last.header("x-forwarded-for") == "127.0.0.1", "not ::ffff:127.0.0.1"
    if _has_ipv6():
        with socket.create_connection(("::1", g.port), DEADLINE) as s:
            s.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert s.makefile("rb").read().startswith(b"HTTP/1.1 200 ")
        assert up.last.header("x-forwarded-for") == "::1"
        assert up.last.header("host") == f"[::1]:{g.port}"
