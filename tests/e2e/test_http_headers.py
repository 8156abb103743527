# SPDX-License-Identifier: Apache-2.0
"""What the gateway adds, removes and normalises on the way."""
import re

import pytest

from weirtest import resources as res

UUID4 = re.compile(r"^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")


def test_hop_by_hop_request_headers_are_removed(gateway, upstream):
    up = upstream()
    gw = gateway(up)
    with gw.conn() as c:
        r = c.request("GET", "/", [
            ("Connection", "X-Private, keep-alive"), ("Connection", "x-second,, "), ("Keep-Alive", "timeout=5"),
            ("Proxy-Connection", "keep-alive"), ("TE", "gzip;q=0.5, trailers"), ("Upgrade", "h2c"), ("X-Private", "secret"),
            ("X-Second", "secret"), ("X-Kept", "yes")]).response()
        assert r.status == 200 and c.is_open()
    head = up.last.head
    for name in ("keep-alive", "proxy-connection", "upgrade", "x-private", "x-second"):
        assert name not in head, head.raw
    # TE is the gateway's own word to the upstream, and then named in Connection (RFC 9110 10.1.4).
    assert (head.get("te"), head.get("connection")) in ((None, None), ("trailers", "te"))
    assert head.get("x-kept") == "yes"


def test_hop_by_hop_response_headers_are_removed(gateway, upstream):
    up = upstream(lambda x: x.respond(200, [("connection", "keep-alive, x-private"), ("keep-alive", "timeout=5"),
                                            ("proxy-connection", "close"), ("upgrade", "h2c"), ("x-private", "secret"),
                                            ("x-kept", "yes")]))
    gw = gateway(up)
    with gw.conn() as c:
        r = c.request().response()
        for name in ("connection", "keep-alive", "proxy-connection", "upgrade", "x-private"):
            assert name not in r.head, r.head.raw
        assert r.header("x-kept") == "yes"
        assert c.is_open()


@pytest.mark.parametrize("named", ["Host", "Content-Length", "Transfer-Encoding", "X-Forwarded-For, X-Request-Id", ":path"])
def test_connection_cannot_name_what_is_needed_end_to_end(gateway, upstream, named):
    """A client must not make the gateway drop its own framing, Host, or what it says about the client."""
    up = upstream()
    gw = gateway(up)
    with gw.conn() as c:
        status = c.request("POST", "/", {"Connection": named}, b"abcde").response().status
    if status == 400:
        assert up.received == b""
        return
    assert status == 200
    assert up.last.body() == b"abcde" and up.last.header("host") == "test.example"
    assert up.last.header("x-forwarded-for") == "127.0.0.1" and UUID4.match(up.last.header("x-request-id"))


def test_many_fields_of_one_name_keep_their_order_and_values(gateway, upstream):
    up = upstream(lambda x: x.respond(200, [("set-cookie", "a=1, b"), ("x-a", "1"), ("set-cookie", "c=2"), ("x-a", "2")]))
    gw = gateway(up)
    with gw.conn() as c:
        r = c.request("GET", "/", [("X-B", "1"), ("Cookie", "a"), ("x-b", "2"), ("X-B", "a \t b"), ("X-Empty", "")]).response()
    assert r.head.all("set-cookie") == ["a=1, b", "c=2"] and r.head.all("x-a") == ["1", "2"]
    assert up.last.head.all("x-b") == ["1", "2", "a \t b"]
    assert up.last.head.all("x-empty") == [""]


def test_header_bytes_beyond_ascii_pass(gateway, upstream):
    """Without a filter that would mind, obs-text passes as it came (RFC 9110 5.5)."""
    up = upstream(lambda x: x.respond(200, {"x-back": "\xe9\xff"}))
    gw = gateway(up)
    r = gw.get(headers={"X-A": "caf\xe9 \xff\x80"})
    assert up.last.header("x-a") == "caf\xe9 \xff\x80" and r.header("x-back") == "\xe9\xff"


def test_forwarded_headers_by_default(gateway, upstream):
    """As Envoy at the edge: the peer is appended, what the client said about its scheme and id is replaced."""
    up = upstream()
    gw = gateway(up)
    gw.get()
    first = up.last.head
    assert first.get("x-forwarded-for") == "127.0.0.1" and first.get("x-forwarded-proto") == "http"
    assert UUID4.match(first.get("x-request-id"))
    for name in ("via", "x-forwarded-host"):
        assert name not in first
    gw.get(headers=[("X-Forwarded-For", "1.2.3.4"), ("X-Forwarded-For", "5.6.7.8"), ("X-Forwarded-Proto", "https"),
                    ("X-Request-Id", "mine"), ("X-Forwarded-Host", "a"), ("Via", "1.0 x")])
    second = up.last.head
    assert [v.strip() for v in second.get("x-forwarded-for").split(",")] == ["1.2.3.4", "5.6.7.8", "127.0.0.1"]
    assert second.all("x-forwarded-proto") == ["http"]
    assert UUID4.match(second.get("x-request-id")) and second.get("x-request-id") != first.get("x-request-id")
    assert second.get("x-forwarded-host") == "a" and second.get("via") == "1.0 x"


def test_forwarded_headers_configured(gateway, upstream):
    up = upstream()
    gw = gateway(up, limits={"via": True, "preserve-external-request-id": True, "xff-num-trusted-hops": 1,
                             "access-log-format": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%\n"})
    gw.get(headers={"X-Forwarded-For": "1.2.3.4, 5.6.7.8", "X-Request-Id": "mine", "Via": "1.0 x", "X-Forwarded-Proto": "https"})
    head = up.last.head
    assert head.get("via") == "1.0 x, 1.1 weir"
    assert head.get("x-request-id") == "mine"
    assert head.get("x-forwarded-proto") == "https"
    assert gw.wait_access("5.6.7.8") == ["5.6.7.8 127.0.0.1"]


def test_forwarded_headers_behind_a_trusted_proxy(gateway, upstream):
    up = upstream()
    gw = gateway(up, limits={"use-remote-address": False, "access-log-format": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%\n"})
    gw.get(headers={"X-Forwarded-For": "1.2.3.4, 5.6.7.8", "X-Request-Id": "mine"})
    assert up.last.header("x-forwarded-for").replace(" ", "") == "1.2.3.4,5.6.7.8"
    assert up.last.header("x-request-id") == "mine"
    assert gw.wait_access("5.6.7.8") == ["5.6.7.8"]


def test_responses_keep_the_upstreams_date_and_server(gateway, upstream):
    date = "Mon, 01 Jan 2001 00:00:00 GMT"
    up = upstream(lambda x: x.respond(200, {"date": date, "server": "mine"}))
    gw = gateway(up)
    assert gw.get().head.all("date") == [date]


# What a client sends -> what filters, router, log and upstream see, by policy; None: refused with 400.
PATHS = {
    "NONE": {"/a/../b": "/a/../b", "/%61": "/%61", "//a": "//a", "/a\\b": "/a\\b", "/%2f": "/%2f", "/a%00b": "/a%00b"},
    "BASE": {"/": "/", "/a/b": "/a/b", "/a/../b": "/b", "/a/./b": "/a/b", "/a/..": "/", "/..": "/", "/../../a": "/a",
             "/a/%2e%2e/b": "/b", "/a/%2E./b": "/b", "/%61%7e": "/a~", "/%2fa": "/%2fa", "/a%2Fb": "/a%2Fb", "//a//b": "//a//b",
             "/a\\b": "/a/b", "/a\\..\\b": "/b", "/a%5cb": "/a%5cb", "/a%00b": None, "/%zz": "/%zz", "/%": "/%", "/%252e": "/%252e",
             "/a?b=/../c": "/a?b=/../c", "/a/../b?x=%61": "/b?x=%61", "/a/..?q": "/?q", "/a/b/..": "/a/", "/...": "/..."},
    "MERGE_SLASHES": {"//a///b": "/a/b", "/a//../b": "/a/b", "/a?b=//c": "/a?b=//c", "/a%2f%2fb": "/a%2f%2fb", "///": "/"},
    "DECODE_AND_MERGE_SLASHES": {"/a%2fb": "/a/b", "/a%5Cb": "/a/b", "/a%2f%2e%2e%2fb": "/b", "/a%2f/b": "/a/b", "/a?b=%2f": "/a?b=%2f"},
}


@pytest.mark.parametrize("policy", PATHS)
def test_path_normalisation(gateway, upstream, policy):
    up = upstream()
    log = {"access-log-format": "%REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_CODE_DETAILS%\n"}
    gw = gateway(up, limits=log if policy == "BASE" else {"path-normalization": policy, **log})
    for sent, seen in PATHS[policy].items():
        before = up.count
        with gw.conn() as c:
            r = c.request("GET", sent).response()
        if seen is None:
            assert r.status == 400 and up.count == before, sent
            gw.wait_access(" 400 path_normalization_failed")
        else:
            assert r.status == 200 and up.last.target == seen, f"{sent} became {up.last.target}, not {seen}"
    lines = "\n".join(gw.wait_access(" 200 ", sum(v is not None for v in PATHS[policy].values())))
    for seen in filter(None, PATHS[policy].values()):
        assert f"{seen.encode('unicode_escape').decode() if policy == 'NONE' else seen} 200 via_upstream" in lines


def test_router_and_upstream_see_the_same_path(gateway, upstream):
    """A path that only normalises into a protected prefix is routed as that prefix."""
    public, private = upstream(name="public"), upstream(name="private")
    gw = gateway(start=False)
    gw.start(resources={"r": lambda port: [
        res.gateway(port),
        res.route("r", res.rule("private", matches=[res.path_match("/admin")]), res.rule("public")),
        *res.backend("public", public), *res.backend("private", private)]})
    for path in ("/admin", "/admin/", "/x/../admin", "/%61dmin", "/x/%2e%2e/admin/a", "/./admin", "/x\\..\\admin"):
        assert gw.get(path).text == "private", path
    for path in ("/", "/administrator", "/x/admin", "/admin/../y"):
        assert gw.get(path).text == "public", path
