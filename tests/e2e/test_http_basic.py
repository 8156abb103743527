# SPDX-License-Identifier: Apache-2.0
"""What a message looks like on both sides of a plain proxy."""
from weirtest import resources as res


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
