# SPDX-License-Identifier: Apache-2.0
"""The example filters, with the WasmPlugins that are shipped beside them: each does what its page says, and refuses what it must."""
import json
import random
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml
from weirtest import resources as res
from weirtest.guests import ROOT
from weirtest.util import DEADLINE

SOURCES = {"mask-cards": "examples/mask-cards/mask_cards.c", "rate-limit": "examples/rate-limit/rate_limit.cpp"}


def shipped(name, wasm, **config):
    """examples/NAME/wasm-plugin.yaml, with members of pluginConfig changed."""
    plugin = yaml.safe_load((ROOT / "examples" / name / "wasm-plugin.yaml").read_text())
    plugin["spec"]["url"] = f"file://{wasm}"
    plugin["spec"]["pluginConfig"].update(config)
    return plugin


@pytest.fixture
def example(gateway, guests, request):
    """Starts a gateway with the example; returns it."""
    def start(name, up, config=None, **options):
        wasm = (guests.build(SOURCES[name]) if name in SOURCES
                else request.getfixturevalue("built_guests") / f"{name}.wasm")
        extra = [*options.pop("extra", []), shipped(name, wasm, **(config or {}))]
        gw = gateway(up, extra=extra, **options)
        gw.wait_plugin(name)
        return gw
    return start


def cut(data, *at):
    """data in chunks that end at the given places."""
    places = [0, *sorted(at), len(data)]
    return [data[a:b] for a, b in zip(places, places[1:])]


# ---- token-check ----


def introspection(x):
    x.body()
    if x.header("authorization") == "Bearer good":
        return x.respond(200, {"content-type": "application/json"}, b'{"active":true,"sub":"ann"}')
    if x.header("authorization") == "Bearer nobody":
        return x.respond(200, {}, b"{}")
    if x.header("authorization") == "Bearer expired":
        return x.respond(200, {}, b'{"active":false,"sub":"ann"}')
    if x.header("authorization") == "Bearer split":
        return x.respond(200, {}, b'{"sub":"a\\r\\nx-admin: 1"}')
    if x.header("authorization") == "Bearer html":
        return x.respond(200, {}, b"<html>")
    if x.header("authorization") == "Bearer cut":
        return x.close()
    if x.header("authorization") == "Bearer broken":
        return x.respond(500, {}, b"")
    return x.respond(401, {}, b"")


@pytest.mark.guests
def test_token_check(example, upstream):
    up, auth = upstream(), upstream(introspection)
    gw = example("token-check", up, extra=res.backend("auth", auth))

    r = gw.get("/a", {"authorization": "Bearer good", "x-user": "root"})
    assert (r.status, up.last.head.all("x-user")) == (200, ["ann"])
    assert (auth.last.method, auth.last.target) == ("GET", "/introspect")
    assert gw.request("POST", "/a", {"authorization": "bearer  good"}, b"x" * 300000).status == 200
    assert len(up.last.body()) == 300000, "the body waited for the answer"
    assert gw.get("/a", {"authorization": "Bearer nobody", "x-user": "root"}).status == 200
    assert up.last.header("x-user") is None, "what the client says of itself is dropped"

    passed, asked = up.count, auth.count
    for headers in [{}, {"authorization": "Basic Zm9v"}, {"authorization": "Bearer"}, {"authorization": "Bearer a b"},
                    {"authorization": "Bearer \xff"}, {"authorization": "Bearer " + "a" * 9000},
                    [("authorization", "Bearer good"), ("authorization", "Bearer good")]]:
        r = gw.get("/a", headers)
        # a header that is not UTF-8 is Weir's own 400 (the default, since it would kill filters in Rust)
        assert r.status == (400 if "\xff" in str(headers) else 401), (headers, r)
        assert r.status == 400 or r.header("www-authenticate") == 'Bearer realm="gateway"'
    assert auth.count == asked, "nobody is asked about what cannot be a token"
    for token, status in [("bad", 401), ("expired", 401), ("split", 503), ("html", 503), ("cut", 503), ("broken", 503)]:
        r = gw.get("/a", {"authorization": f"Bearer {token}"})
        assert r.status == status, (token, r)
        assert status != 401 or 'error="invalid_token"' in r.header("www-authenticate")
    assert up.count == passed, "nothing that was refused went up"
    gw.stop()


@pytest.mark.guests
def test_token_check_without_an_endpoint(example, upstream):
    up = upstream()
    gw = example("token-check", up)  # no Service "auth"
    assert gw.get("/a", {"authorization": "Bearer good"}).status == 503
    slow = upstream(lambda x: x.peer.wait_closed())
    gw.apply_and_wait("auth", res.backend("auth", slow))
    assert gw.get("/a", {"authorization": "Bearer good"}).status == 503
    assert up.count == 0


# ---- json-transform ----


@pytest.mark.guests
def test_json_transform_request(example, upstream):
    up = upstream()
    gw = example("json-transform", up)
    r = gw.request("POST", "/a", [("content-type", "application/json; charset=utf-8"), ("x-old-name", "1"), ("x-old-name", "2"),
                                  ("x-new-name", "forged"), ("x-internal", "secret"), ("x-gateway", "forged")],
                   b'{"n":9007199254740993, "e":1e400,"meta":{"a":"\\u00e9"}}')
    assert r.status == 200
    assert up.last.body() == b'{"n":9007199254740993,"e":1e400,"meta":{"a":"\\u00e9","gateway":"weir"}}' or \
        json.loads(up.last.body())["meta"] == {"a": "é", "gateway": "weir"}
    assert b"9007199254740993" in up.last.body() and b"1e400" in up.last.body(), "numbers keep their digits"
    assert ", ".join(up.last.head.all("x-new-name")).replace(" ", "") == "1,2"
    assert up.last.header("x-old-name") is None and up.last.header("x-internal") is None
    assert up.last.head.all("x-gateway") == ["weir"]

    for kind, body in [("application/json", b"{not json"), ("text/plain", b'{"a":1}')]:
        gw.request("POST", "/a", {"content-type": kind}, body)
        assert up.last.body() == body, "passes as it is"
    gw.get("/a", {"content-type": "application/json"})
    assert up.last.body() == b""


@pytest.mark.guests
def test_json_transform_response(example, upstream):
    clean = b'[{"user":{"name":"ann","password":"x"},"debug":{"sql":"y"},"n":1.50}]'
    answers = {
        "/plain": lambda x: x.respond(200, {"content-type": "application/json", "etag": '"1"'}, clean),
        "/chunks": lambda x: x.respond(200, {"content-type": "application/problem+json"}, chunked=cut(clean, 9, 20, 33, 34)),
        "/bad": lambda x: x.respond(200, {"content-type": "application/json"}, b'{"password":"x"'),
        "/gzip": lambda x: x.respond(200, {"content-type": "application/json", "content-encoding": "gzip"}, b"\x1f\x8bxx"),
        "/text": lambda x: x.respond(200, {"content-type": "text/plain"}, b'{"debug":1}'),
    }
    up = upstream(lambda x: (x.body(), answers[x.path](x)))
    gw = example("json-transform", up)
    for path in ["/plain", "/chunks"]:
        r = gw.get(path, {"accept-encoding": "gzip", "range": "bytes=0-9"})
        assert r.body == b'[{"user":{"name":"ann"},"n":1.50}]', path
        assert r.header("etag") is None
        assert up.last.header("accept-encoding") is None and up.last.header("range") is None
    for path in ["/bad", "/gzip"]:
        r = gw.get(path)
        assert r.json() == {"error": "response withheld"} and r.header("content-encoding") is None, path
    r = gw.get("/text")
    assert (r.body, r.header("content-length")) == (b'{"debug":1}', "11")
    head = gw.request("HEAD", "/plain")
    assert (head.status, head.body) == (200, b"")


# Trailers: no body callback has the end then; the whole body is edited when the trailers come.
@pytest.mark.guests
def test_json_transform_with_trailers(example, upstream):
    up = upstream(lambda x: (x.body(), x.respond(200, {"content-type": "application/json"}, b'{"debug":1,"a":2}',
                                                 trailers={"x-end": "1"})))
    gw = example("json-transform", up)
    r = gw.get("/")
    assert (r.body, r.trailers) == (b'{"a":2}', [("x-end", "1")])


# ---- rate-limit ----


def test_rate_limit(example, upstream):
    up = upstream()
    gw = example("rate-limit", up, {"requests": 1, "seconds": 3600, "burst": 3})
    for left in [2, 1, 0]:
        r = gw.get("/", {"x-api-key": "ann"})
        assert (r.status, r.header("ratelimit-policy")) == (200, '"client";q=3;w=10800')
        assert re.fullmatch(rf'"client";r={left};t=\d+', r.header("ratelimit")), r
    r = gw.get("/", {"x-api-key": "ann"})
    assert r.status == 429 and r.header("ratelimit").startswith('"client";r=0;t=')
    assert 0 < int(r.header("retry-after")) <= 3600
    assert gw.get("/", {"x-api-key": "bob"}).status == 200, "another client"
    statuses = [gw.get("/").status for _ in range(4)]
    assert statuses == [200, 200, 200, 429], "who has no key is an address"
    assert up.count == 7


def test_rate_limit_is_one_for_all_workers(example, upstream):
    up = upstream()
    gw = example("rate-limit", up, {"requests": 20, "seconds": 86400}, workers=4)
    with ThreadPoolExecutor(16) as pool:  # each on its own connection, so that all workers take part
        statuses = list(pool.map(lambda _: gw.get("/", {"x-api-key": "ann"}).status, range(200)))
    # the shipped burst is 5
    assert (statuses.count(200), statuses.count(429)) == (5, 195)
    assert up.count == 5


def test_rate_limit_lets_go_with_time(example, upstream):
    gw = example("rate-limit", upstream(), {"requests": 10, "seconds": 1, "burst": 1})
    end = time.monotonic() + DEADLINE
    seen = set()
    while seen != {200, 429} and time.monotonic() < end:
        seen.add(gw.get("/").status)
    assert seen == {200, 429}
    gw.wait_status(200, "/")


# ---- trace-id ----

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.guests
def test_trace_id(example, upstream):
    up = upstream()
    gw = example("trace-id", up, limits={"access-log": "text", "access-log-format": "%REQ(:PATH)% trace=%FILTER_STATE(trace_id)%\n"})

    r = gw.get("/known", {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-00", "tracestate": "a=b"})
    assert r.header("x-trace-id") == TRACE
    version, trace, parent, flags = up.last.header("traceparent").split("-")
    assert (version, trace, flags) == ("00", TRACE, "00") and parent != "00f067aa0ba902b7"
    assert up.last.header("tracestate") == "a=b"
    gw.wait_access(f"/known trace={TRACE}")
    gw.wait_log(f"trace_id={TRACE} GET /known 200")

    gw.get("/future", {"traceparent": f"cc-{TRACE}-00f067aa0ba902b7-01-more"})
    assert up.last.header("traceparent").startswith(f"00-{TRACE}-") and up.last.header("traceparent").endswith("-01")

    seen = set()
    for bad in [None, "", "x", f"ff-{TRACE}-00f067aa0ba902b7-01", f"00-{TRACE.upper()}-00f067aa0ba902b7-01",
                f"00-{'0' * 32}-00f067aa0ba902b7-01", f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE}-00f067aa0ba902b7-01-more",
                f"cc-{TRACE}-00f067aa0ba902b7-01.more", f"00-{TRACE}-00f067aa0ba902b7-0", f"00-{TRACE}_00f067aa0ba902b7-01"]:
        r = gw.get("/new", {"tracestate": "a=b", **({} if bad is None else {"traceparent": bad})})
        made = r.header("x-trace-id")
        assert re.fullmatch("[0-9a-f]{32}", made) and made != TRACE, bad
        assert re.fullmatch(f"00-{made}-[0-9a-f]{{16}}-01", up.last.header("traceparent")), bad
        assert up.last.header("tracestate") is None, bad
        gw.wait_access(f"/new trace={made}")
        seen.add(made)
    assert len(seen) == 11, "each request has its own"
    one = f"00-{TRACE}-00f067aa0ba902b7-01"
    assert gw.get("/twice", [("traceparent", one), ("traceparent", one)]).header("x-trace-id") != TRACE


# ---- mask-cards ----

TEXT = (b"visa 4111 1111 1111 1111 12/27, amex 3782-822463-10005, plain 5555555555554444."
        b" no: 4111111111111112, 0.4111111111111111, sha 9f4111111111111111, 41111111111111111111111, 1234 5678")
MASKED = (b"visa **** **** **** 1111 12/27, amex ****-******-*0005, plain ************4444."
          b" no: 4111111111111112, 0.4111111111111111, sha 9f4111111111111111, 41111111111111111111111, 1234 5678")


def test_mask_cards_wherever_a_response_is_cut(example, upstream):
    rng = random.Random(5)
    cuts = [[i] for i in range(len(TEXT))] + [range(len(TEXT))] + [
        sorted(rng.sample(range(len(TEXT)), rng.randrange(2, 12))) for _ in range(20)]
    up = upstream(lambda x: (x.body(), x.respond(200, {"content-type": "text/plain", "etag": '"1"'},
                                                 chunked=[c for c in cut(TEXT, *cuts[int(x.path[1:])]) if c])))
    gw = example("mask-cards", up)
    with gw.conn() as c:
        for i in range(len(cuts)):
            r = c.request("GET", f"/{i}", {"accept-encoding": "gzip", "range": "bytes=0-9"}).response()
            assert r.body == MASKED, list(cuts[i])
            assert r.header("etag") is None and up.last.header("accept-encoding") is None and up.last.header("range") is None


# What the upstream sends stays apart on its way: the filter sees the halves in two callbacks.
def test_mask_cards_streams(example, upstream):
    seen = threading.Event()

    def script(x):
        x.body()
        x.start(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        x.send(b"15\r\ndata: first\n\ndata: 41\r\n")
        assert seen.wait(DEADLINE)
        x.send(b"19\r\n11 1111 1111 1111\n\ndata: \r\n0\r\n\r\n")

    up = upstream(script)
    gw = example("mask-cards", up)
    with gw.conn() as c:
        c.request("GET", "/")
        c.head()
        first = c.chunk()
        assert first == b"data: first\n\ndata: ", "all but the digits is here before the rest was sent"
        seen.set()
        assert c.chunk() == b"**** **** **** 1111\n\ndata: "


def test_mask_cards_in_requests(example, upstream):
    up = upstream()
    gw = example("mask-cards", up)
    gw.request("POST", "/", {"content-type": "application/json"}, b'{"pan":"4111111111111111"}')
    assert up.last.body() == b'{"pan":"************1111"}'
    with gw.conn() as c:
        c.request("POST", "/", {"transfer-encoding": "chunked"})
        for piece in cut(TEXT, *range(0, len(TEXT), 3)):
            c.send(b"%x\r\n%s\r\n" % (len(piece), piece) if piece else b"")
        assert c.send("0\r\n\r\n").response().status == 200
    assert up.last.body() == MASKED
    gw.request("POST", "/", {"content-type": "image/png"}, b"4111111111111111")
    assert (up.last.body(), up.last.header("content-length")) == (b"4111111111111111", "16")
    count = up.count
    assert gw.request("POST", "/", {"content-type": "text/plain", "content-encoding": "gzip"}, b"zz").status == 415
    assert up.count == count


def test_mask_cards_edges(example, upstream):
    answers = {
        "/end": lambda x: x.respond(200, {"content-type": "text/plain"}, b"4111111111111111"),
        "/gzip": lambda x: x.respond(200, {"content-type": "text/plain", "content-encoding": "gzip"}, b"zz"),
        "/image": lambda x: x.respond(200, {"content-type": "image/png"}, b"4111111111111111"),
        "/empty": lambda x: x.respond(204),
        "/digits": lambda x: x.respond(200, {"content-type": "text/plain"}, b"4 " * 500000),
        "/trailers": lambda x: x.respond(200, {"content-type": "text/plain"}, b"a 4111111111111111", trailers={"x-end": "1"}),
    }
    up = upstream(lambda x: (x.body(), answers[x.path](x)))
    gw = example("mask-cards", up, {"keepLast": 0, "mask": "#"})
    assert gw.get("/end").body == b"#" * 16
    assert gw.get("/gzip").status == 502
    assert gw.get("/image").body == b"4111111111111111"
    assert gw.get("/empty").status == 204
    assert gw.request("HEAD", "/end").status == 200
    r = gw.get("/digits")
    assert len(r.body) == 1000000 and set(r.body) <= set(b"4# ")
    r = gw.get("/trailers")
    assert (r.body, r.trailers) == (b"a " + b"#" * 16, [("x-end", "1")])


# ---- configuration ----


@pytest.mark.guests
@pytest.mark.parametrize("name, config", [
    ("token-check", {"cluster": ""}), ("token-check", {"timeoutMs": 0}), ("json-transform", {"requests": {}}),
    ("json-transform", {"request": {"headers": {"remove": [":path"]}}}),
    ("json-transform", {"request": {"headers": {"rename": {"a": "b", "B": "c"}}}}), ("rate-limit", {"requests": 0}),
    ("rate-limit", {"burst": "x"}), ("rate-limit", {"requests": 1, "seconds": 86400, "burst": 1000000}), ("trace-id", {"responseHeader": ":status"}), ("mask-cards", {"keepLast": 9}),
    ("mask-cards", {"mask": "xx"}), ("mask-cards", {"contentTypes": []})])
def test_bad_configuration_is_refused(gateway, upstream, built_guests, name, config):
    up = upstream()
    gw = gateway(up, extra=[shipped(name, built_guests / f"{name}.wasm", **config)])
    gw.wait_log("pluginConfig")
    assert gw.get("/").status == 503 and up.count == 0, "FAIL_CLOSE"
